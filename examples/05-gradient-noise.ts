/**
 * Gradient noise of a net of your own: how large it is, where it pushes a charge, and how well few samples tell.
 *
 * ell = |V tanh(U W x) - y|^2 has the double rotation U -> U e^(lambda B), W -> e^(-lambda B) W for any symmetric B, inside a
 * net that is not linear. With Sigma the covariance of the gradients of single samples (divisor N),
 *
 *   Tr Sigma           the noise in all directions together
 *   Tr[Sigma A]        dC/dt = sigma2 Tr[Sigma A] for the charge C of A, sigma2 = eta / (2 S)
 *   S_U, S_W           h x h: dQ/dt = 2 sigma2 (S_U - S_W) for Q = U^T U - W W^T, all B at once
 *
 * Over a finite set they are exact. Of a law, or of a large set, a number of independent samples gives an estimate with
 * its standard error; `interval` makes a 95 % interval of it.
 *
 * Run it: npx jiti examples/05-gradient-noise.ts   (in your own project import from "noetherflow")
 */
import { createEngine, type Estimate, interval, model, ops, sampler, symmetry } from "../src/index.ts";

const net = model({
  params: { V: [2, 5], U: [5, 3], W: [3, 4] },
  inputs: { x: [4], y: [2] },
  loss: ({ V, U, W, x, y }) => {
    const z = ops.matmul(U, ops.matmul(W, x));
    return ops.sqnorm(ops.sub(ops.matmul(V, ops.tanh(z)), y));
  },
});
const law = sampler({
  noise: { x: { kind: "uniform", shape: [4] }, e: { kind: "normal", shape: [2] } },
  constants: {
    T: [
      [1, 2, 0, -1],
      [0.5, 0, -2, 1],
    ],
  },
  outputs: ({ x, e, T }) => {
    const centred = ops.sub(x, 0.5);
    return { x: centred, y: ops.add(ops.matmul(T, centred), ops.scale(e, 0.3)) };
  },
});
const B = [
  [1, 0.5, 0],
  [0.5, -1, 0],
  [0, 0, 2],
];
const A = symmetry.doubleRotation("U", "W", B);

const engine = await createEngine();
const set = engine.problem(net, law, { samples: 1000, dataSeed: "noise" });
const online = engine.problem(net, law); // fresh samples
const theta = set.init("glorot", { seed: "noise" });

const rows: [string, trace: Estimate, power: Estimate][] = [
  ["the whole set of 1,000", set.noiseTrace(theta), set.noisePower(theta, A)],
  ...[100, 1000].map((samples): [string, Estimate, Estimate] => {
    const draws = { samples, seed: "draws" };
    return [`${samples} draws from it`, set.noiseTrace(theta, draws), set.noisePower(theta, A, draws)];
  }),
  ...[1000, 100_000].map((samples): [string, Estimate, Estimate] => {
    const fresh = { samples, seed: "fresh" };
    return [`${samples} fresh samples`, online.noiseTrace(theta, fresh), online.noisePower(theta, A, fresh)];
  }),
];
const show = (estimate: Estimate): string => {
  const { low, high } = interval(estimate);
  const value = estimate.value.toFixed(4).padStart(8);
  return `${value}  ${low === high ? "exact" : `[${low.toFixed(4)}, ${high.toFixed(4)}]`}`.padEnd(28);
};
console.log(`${" ".repeat(22)}   Tr Sigma, 95 %               Tr[Sigma A], 95 %`);
for (const [name, trace, power] of rows)
  console.log(`${name.padStart(22)}   ${show(trace)} ${show(power)}`.trimEnd());

const { SU, SW, Q } = set.noiseMoments(theta, "U", "W");
console.log("\n   S_U - S_W (moves Q)               Q");
for (const i of [0, 1, 2]) {
  const row = (f: (at: number) => number) =>
    [0, 1, 2]
      .map((j) =>
        f(3 * i + j)
          .toFixed(3)
          .padStart(8),
      )
      .join(" ");
  console.log(`${row((at) => SU[at]! - SW[at]!)}   ${row((at) => Q[at]!)}`);
}
/** Tr[B (S_U - S_W)], which is Tr[Sigma A]. */
const byMoments = B.flat().reduce((sum, b, at) => sum + b * (SU[at]! - SW[at]!), 0);
console.log(`\nTr[B (S_U - S_W)] = ${byMoments.toFixed(4)}`);

// where the noise is: the largest eigenvalues of Sigma
const top = await set.topEigenvalues(theta, 3, { of: "noise" });
const shares = top.map(({ value }) => (100 * value) / rows[0]![1].value);
console.log(
  `3 of ${net.P} directions hold ${shares.map((share) => `${share.toFixed(1)} %`).join(" + ")} of the noise`,
);
engine.dispose();

/** What test/examples.test.ts checks. */
export const found = { rows, byMoments, top };

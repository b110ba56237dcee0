/**
 * Curvature of a net of your own without its Hessian: the trace by three estimators with 95 % intervals (one in twenty
 * does not hold the truth), the sharpness, and the spectrum. Here P is small enough to check them against the whole matrix.
 *
 * All cost products H v, about two gradients each. Hutchinson's estimator suits a flat spectrum; hutch++ and xtrace find
 * the large eigenvalues first, and are far better where few carry the trace, as in nets. "exact" takes P quadratic forms.
 *
 * Run it: npx jiti examples/06-curvature.ts   (in your own project import from "noetherflow")
 */
import { createEngine, type Estimate, interval, model, ops, sampler } from "../src/index.ts";

const net = model({
  params: { U: [3, 24], c: [3], W: [24, 6], b: [24] },
  inputs: { x: [6], y: [3] },
  loss: ({ U, c, W, b, x, y }) => {
    const z = ops.tanh(ops.add(ops.matmul(W, x), b));
    return ops.sqnorm(ops.sub(ops.add(ops.matmul(U, z), c), y));
  },
});
const law = sampler({
  noise: { x: { kind: "normal", shape: [6] }, e: { kind: "normal", shape: [3] } },
  outputs: ({ x, e }) => ({
    x,
    y: ops.add(ops.tanh(ops.slice(x, { start: 0, stop: 3 })), ops.scale(e, 0.1)),
  }),
});
const engine = await createEngine();
const problem = engine.problem(net, law, { samples: 500, dataSeed: "curvature" });
// some way down, where the curvature has formed
const start = problem.init("glorot", { seed: "curvature" });
const { theta } = await problem.simulate({ scheme: "gd", theta: start, eta: 0.05, steps: 300, seed: "none" });

const methods = ["exact", "hutchinson", "hutch++", "xtrace"] as const;
const traces: { method: (typeof methods)[number]; estimate: Estimate }[] = [];
for (const method of methods) {
  const options = method === "exact" ? {} : { probes: 64, seed: "curvature" };
  traces.push({ method, estimate: await problem.hessianTrace(theta, { method, ...options }) });
}
console.log(`Tr H of ${problem.P} parameters           95 % interval   products`);
for (const { method, estimate } of traces) {
  const { low, high } = interval(estimate);
  const range = method === "exact" ? "" : `[${low.toFixed(3)}, ${high.toFixed(3)}]`;
  const products = method === "exact" ? problem.P : 64;
  console.log(
    `  ${method.padEnd(10)}   ${estimate.value.toFixed(4).padStart(9)}   ${range.padStart(20)}   ${String(products).padStart(8)}`,
  );
}

const { max, min } = await problem.sharpness(theta);
const gaussNewton = await problem.sharpness(theta, {
  of: ({ U, c, W, b, x }) => ops.add(ops.matmul(U!, ops.tanh(ops.add(ops.matmul(W!, x!), b!))), c!),
});
console.log(`\nlargest eigenvalue    ${max.value.toFixed(6)}   error below ${max.residual.toExponential(0)}`);
console.log(`smallest              ${min.value.toFixed(6)}   error below ${min.residual.toExponential(0)}`);
console.log(`largest, Gauss-Newton ${gaussNewton.max.value.toFixed(6)}`);
console.log(
  `gradient descent is stable below eta = 2 / ${max.value.toFixed(2)} = ${(2 / max.value).toFixed(4)}`,
);

const density = await problem.spectralDensity(theta, { probes: 16, steps: 60, seed: "curvature" });
// up to each point: how many of the P eigenvalues
const points = [-0.01, 0.01, 0.1, 1, max.value * (1 + 1e-6)];
const shares = density.cumulative(points);
console.log("\neigenvalues below     share   std err   within");
for (const { x, value, stdErr, resolution } of shares)
  console.log(
    `${x.toFixed(3).padStart(17)}   ${value.toFixed(4).padStart(7)}   ${stdErr.toFixed(4).padStart(7)}   ${resolution.toFixed(4)}`,
  );

// the whole matrix, for the test
const H = await problem.hessian(theta);
const { P } = problem;
engine.dispose();

/** What test/examples.test.ts checks. */
export const found = { traces, max, min, gaussNewton, density, shares, points, H, P };

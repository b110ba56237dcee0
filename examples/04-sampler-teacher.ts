/**
 * Data as a law: a teacher y = V x + noise, drawn fresh in every step, as a finite set, or as a set with exactly the
 * law's moments.
 *
 * The student U W has the charge C = (|U|^2 - |W|^2) / 2. We start at U W = V, where the mean gradient is zero and only
 * the label noise moves theta. One step of SGD then changes the charge on average by exactly
 *
 *   E[C' - C] = (eta^2 / 2S) Tr[Sigma A],   Tr[Sigma A] = 4 (Tr Se Tr(W Sx W^T) - Tr(U^T Se U) Tr Sx)
 *
 * with Sx, Se the covariances of x and of the noise. Gradient descent on the population does not move at all.
 *
 * Run it: npx jiti examples/04-sampler-teacher.ts   (in your own project import from "noetherflow")
 */
import { createEngine, model, momentMatched, ops, parseSampler, sampler, symmetry } from "../src/index.ts";

const xSd = [1, 0.5, 2]; // standard deviations of x and of the label noise
const noiseSd = [0.3, 0.8];
const teacher = sampler({
  noise: { z: { kind: "normal", shape: [3] }, e: { kind: "normal", shape: [2] } },
  constants: {
    V: [
      [1, 2, 3],
      [0.5, 0, -1],
    ],
    xSd,
    noiseSd,
  },
  outputs: ({ z, e, V, xSd, noiseSd }) => {
    const x = ops.mul(xSd, z);
    return { x, y: ops.add(ops.matmul(V, x), ops.mul(noiseSd, e)) };
  },
});
const student = model({
  params: { U: [2, 2], W: [2, 3] },
  inputs: { x: [3], y: [2] },
  loss: ({ U, W, x, y }) => ops.sqnorm(ops.sub(ops.matmul(U, ops.matmul(W, x)), y)),
});
const U = [
  [1, 0],
  [0, 0.5],
];
const W = [
  [1, 2, 3],
  [1, 0, -2],
];
const theta = { U, W }; // U W = V
const A = symmetry.rescaling("U", "W");

const engine = await createEngine();
const online = engine.problem(student, teacher); // fresh samples in every step
const finite = engine.problem(student, parseSampler(JSON.stringify(teacher)), {
  samples: 20_000,
  dataSeed: "set",
});
const population = engine.problem(student, momentMatched(teacher)); // for losses quadratic in the data

// the population loss at U W = V is Tr Se
const square = (a: number) => a * a;
const total = (values: readonly number[]) => values.reduce((a, b) => a + b, 0);
const exact = total(noiseSd.map(square));
const loss = {
  exact,
  population: population.loss(theta),
  fresh: online.loss(theta, { samples: 20_000, seed: "measure" }),
  finite: finite.loss(theta),
};
console.log(`population loss        ${exact.toFixed(6)}`);
console.log(`  moment-matched set   ${loss.population.toFixed(6)}   (${population.N} points)`);
console.log(`  20,000 fresh         ${loss.fresh.value.toFixed(6)} +- ${loss.fresh.stdErr.toFixed(6)}`);
console.log(`  a set of 20,000      ${loss.finite.toFixed(6)}`);

const eta = 0.01;
const S = 4;
const common = { theta, eta, steps: 1, record: { every: 1, charges: { C: A } } } as const;
const R = 4096;
const sgd = await online.simulate({ ...common, scheme: "sgd", batchSize: S, replicas: R, seed: "teacher" });
const gd = await population.simulate({ ...common, scheme: "gd" });

const C = sgd.series.charges.C!; // [record][replica]
const changes = Array.from({ length: R }, (_, r) => C[R + r]! - C[r]!);
const mean = total(changes) / R;
const stdErr = Math.sqrt(total(changes.map((c) => square(c - mean))) / (R - 1) / R);

const traceSe = exact;
const traceSx = total(xSd.map(square));
const traceWSxW = total(W.map((row) => total(row.map((w, j) => square(w * xSd[j]!)))));
const traceUSeU = total(U.map((row, i) => total(row.map((u) => square(u * noiseSd[i]!)))));
const traceSigmaA = 4 * (traceSe * traceWSxW - traceUSeU * traceSx);
const predicted = ((eta * eta) / (2 * S)) * traceSigmaA;
const gdChange = gd.series.charges.C![1]! - gd.series.charges.C![0]!;
console.log(`\nchange of the charge in one step`);
console.log(
  `  SGD, S = ${S}           ${mean.toExponential(4)} +- ${stdErr.toExponential(1)}   (${R} replicas)`,
);
console.log(`  predicted            ${predicted.toExponential(4)}`);
console.log(`  GD on the population ${gdChange.toExponential(1)}`);
engine.dispose();

/** What test/examples.test.ts checks. */
export const found = { loss, mean, stdErr, predicted, gdChange };

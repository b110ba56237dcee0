/**
 * Many replicas of a run side by side: independent draws, one step size each if you like, one CSV.
 *
 * ell = (m - x)^2 is a quadratic whose minimum is the mean of the data. SGD never comes to rest there: the stationary
 * variance of m is, exactly for this scheme (H = 2, Sigma = 4 Var x),
 *
 *   Var m = eta Var x / (S (1 - eta))
 *
 * 4 step sizes x 256 replicas show it. A replica is a function of (seed, its number) alone: run 7 on its own is, bit
 * for bit, run 7 among the 1024.
 *
 * Run it: npx jiti examples/03-replicas-and-records.ts   (in your own project import from "noetherflow")
 */
import { createEngine, model, ops } from "../src/index.ts";

const net = model({
  params: { m: [1] },
  inputs: { x: [1] },
  loss: ({ m, x }) => ops.sqnorm(ops.sub(m, x)),
});
const x = [-2, -1, -0.5, 0, 0.5, 1, 2];
const S = 2;
const etas = [0.02, 0.05, 0.1, 0.2];
const perEta = 256;
const steps = 2000; // e^(-2 eta steps) of the start is left: nothing

const engine = await createEngine();
const problem = engine.problem(net, { x });
const common = { scheme: "sgd", batchSize: S, theta: { m: [1] }, steps, seed: "replicas" } as const;
const run = await problem.simulate({
  ...common,
  replicas: etas.length * perEta,
  eta: etas.flatMap((eta) => Array.from({ length: perEta }, () => eta)),
  record: { every: steps / 2, loss: "full", blockNorms: true },
});

const varX = x.reduce((sum, xi) => sum + xi * xi, 0) / x.length; // the mean of x is 0
const rows = etas.map((eta, i) => {
  const ends = Array.from(run.theta.subarray(i * perEta, (i + 1) * perEta));
  const mean = ends.reduce((a, b) => a + b) / perEta;
  const measured = ends.reduce((sum, m) => sum + (m - mean) * (m - mean), 0) / (perEta - 1);
  return {
    eta,
    measured,
    stdErr: measured * Math.sqrt(2 / (perEta - 1)),
    predicted: (eta * varX) / (S * (1 - eta)),
  };
});
console.log("  eta   Var m measured   std err   predicted");
for (const { eta, measured, stdErr, predicted } of rows)
  console.log(
    `${eta.toFixed(2).padStart(5)}   ${measured.toFixed(5).padStart(14)}   ${stdErr.toFixed(5)}   ${predicted.toFixed(5).padStart(9)}`,
  );

const csv = run.toCSV();
console.log(`\nthe CSV has ${csv.trimEnd().split("\n").length - 1} lines; its head and first line:`);
console.log(csv.split("\n").slice(0, 2).join("\n"));

const seventh = await problem.simulate({
  ...common,
  eta: etas[0]!,
  firstReplica: 7,
  record: { every: steps / 2, loss: "full", blockNorms: true },
});
const isSame = seventh.hashes[0] === run.hashes[7];
console.log(
  `\nreplica 7 alone ${isSame ? "has" : "does NOT have"} the bits of replica 7 among ${run.replicas}`,
);
engine.dispose();

/** What test/examples.test.ts checks. */
export const found = { rows, csv, isSame };

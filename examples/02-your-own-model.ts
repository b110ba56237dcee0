/**
 * A model of your own as a model file: plain JSON with parameters, inputs, constants, shared subexpressions and a loss.
 * Then a question that needs no theory: is my generator a symmetry of this loss?
 *
 * For a symmetry the gradient has no component along A theta, so each step changes the charge by its quadratic work
 * alone, at any step size: C(K) - C(0) = sum_k eta^2/2 g^T A g, to rounding. Where the two differ, A is no symmetry.
 * Here: a two-layer net with a weighted squared loss. With a linear hidden layer any symmetric B gives a symmetry
 * U -> U e^(lambda B), W -> e^(-lambda B) W; tanh breaks it.
 *
 * Run it: npx jiti examples/02-your-own-model.ts   (in your own project import from "noetherflow")
 */
import { createEngine, type ModelJSON, parseModel, symmetry } from "../src/index.ts";

const linear: ModelJSON = {
  schema: "noetherflow-model/1",
  params: { U: [2, 3], W: [3, 2] },
  inputs: { x: [2], y: [2] },
  // the loss is r^T M r with r = U W x - y
  constants: {
    M: {
      shape: [2, 2],
      values: [2, 0.5, 0.5, 1],
    },
  },
  let: [
    ["z", ["matmul", "W", "x"]],
    ["r", ["sub", ["matmul", "U", "z"], "y"]],
  ],
  loss: ["matmul", "r", ["matmul", "M", "r"]],
};
const tanh: ModelJSON = {
  ...linear,
  let: [
    ["z", ["tanh", ["matmul", "W", "x"]]],
    ["r", ["sub", ["matmul", "U", "z"], "y"]],
  ],
};

const data = {
  x: [
    [1, 0.5],
    [-0.3, 1.2],
    [0.8, -1],
    [-1.1, -0.4],
  ],
  y: [
    [0.7, -1],
    [0.1, 0.9],
    [1.3, 0.2],
    [-0.6, 0.4],
  ],
};
const B = [
  [1, 0.2, 0],
  [0.2, -0.5, 0.3],
  [0, 0.3, 0.7],
];

/** 500 steps of SGD; the change of the charge, the work, and the loss before and after. */
async function budget(file: ModelJSON) {
  // a file may come as text, as from a server; parseModel reads either form
  const net = parseModel(JSON.stringify(file));
  const engine = await createEngine();
  const problem = engine.problem(net, data);
  const theta = problem.init("glorot", { seed: "own model" });
  const run = await problem.simulate({
    scheme: "sgd",
    batchSize: 2,
    sampling: "without",
    theta,
    eta: 0.02,
    steps: 500,
    seed: "own model",
    record: { every: 500, loss: "full", charges: { C: symmetry.doubleRotation("U", "W", B) }, work: true },
  });
  engine.dispose();
  const { charges, work, loss } = run.series;
  return {
    theta,
    file: net.toJSON(),
    change: charges.C![1]! - charges.C![0]!,
    work: work.C![1]!,
    lossBefore: loss![0]!,
    lossAfter: loss![1]!,
  };
}

const results = { linear: await budget(linear), tanh: await budget(tanh) };
for (const [name, { change, work, lossBefore, lossAfter }] of Object.entries(results)) {
  const isSymmetry = Math.abs(change - work) < 1e-12;
  console.log(
    `${name.padEnd(6)}  loss ${lossBefore.toFixed(4)} -> ${lossAfter.toFixed(4)}   change of C ${change.toFixed(9)}` +
      `   work ${work.toFixed(9)}   ${isSymmetry ? "a symmetry" : "not a symmetry"}`,
  );
}
console.log(
  `written back: ${JSON.stringify(results.tanh.file.loss)} with let ${JSON.stringify(results.tanh.file.let)}`,
);

/** What test/examples.test.ts checks. */
export const found = { ...results, data, B };

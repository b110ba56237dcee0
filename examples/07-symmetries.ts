/**
 * From a loss of your own to its symmetries: found from per-sample gradients, named, and for each where the noise of SGD
 * takes it. Nothing is told about the network but the loss.
 *
 * A class 1 symmetry (A of both signs) has a noise equilibrium, which SGD drifts to on the time scale tau; a class 2
 * symmetry (one sign: a scale) has none without weight decay, its charge grows for ever.
 *
 * Run it: npx jiti examples/07-symmetries.ts   (in your own project import from "noetherflow")
 */
import { createEngine, layers, model, ops, sampler } from "../src/index.ts";

const net = model({
  params: { V: [2, 3], U: [3, 2], W: [2, 3] },
  inputs: { x: [3], y: [2] },
  // a linear bottleneck U W inside, and a normalised layer V on top
  loss: ({ V, U, W, x, y }) => {
    const hidden = ops.tanh(ops.matmul(U, ops.matmul(W, x)));
    return ops.sqnorm(ops.sub(ops.matmul(layers.weightNorm(V, { by: "block" }), hidden), y));
  },
});
const law = sampler({
  noise: { x: { kind: "normal", shape: [3] }, e: { kind: "normal", shape: [2] } },
  outputs: ({ x, e }) => ({ x, y: ops.add(ops.slice(x, { stop: 2 }), ops.scale(e, 0.5)) }),
});

const engine = await createEngine();
const problem = engine.problem(net, law, { samples: 200, dataSeed: "symmetries" });
const theta = problem.init("glorot", { seed: "symmetries" });

const plain = await problem.report(theta, { eta: 0.01, batchSize: 4 });
console.log(String(plain));
const decayed = await problem.report(theta, { eta: 0.01, batchSize: 4, weightDecay: 1e-3 });
console.log(`\nwith weight decay 0.001\n${decayed}`);
engine.dispose();

/** What test/examples.test.ts checks. */
export const found = { plain, decayed };

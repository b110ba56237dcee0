/**
 * One model under gradient descent, gradient flow, SGD, its SDE and SVAG: who moves the charge, and does prediction follow?
 *
 * ell = (u w x - y)^2 does not change under u -> e^lambda u, w -> e^-lambda w. Gradient flow keeps C = (u^2 - w^2) / 2; noise removes it
 * at the rate sigma^2 Tr[Sigma A], whichever scheme brings it. `probes: { flow: true }` sums that rate along the run.
 *
 * Run it: npx jiti examples/08-schemes.ts   (in your own project import from "noetherflow")
 */
import { createEngine, model, ops, sampler, symmetry } from "../src/index.ts";

const net = model({
  params: { u: [1], w: [1] },
  inputs: { x: [1], y: [1] },
  loss: ({ u, w, x, y }) => ops.sqnorm(ops.sub(ops.mul(ops.mul(u, w), x), y)),
});
const teacher = sampler({
  noise: { x: { kind: "sign", shape: [1] }, e: { kind: "normal", shape: [1] } },
  outputs: ({ x, e }) => ({ x, y: ops.add(x!, e!) }),
});
const engine = await createEngine();
const problem = engine.problem(net, teacher, { samples: 64, dataSeed: "schemes" });

const [eta, steps, replicas] = [0.01, 2000, 256];
const common = {
  theta: { u: [1.8], w: [0.5] },
  eta,
  steps,
  seed: "schemes",
  record: { every: 100, charges: { C: symmetry.rescaling("u", "w") } },
  probes: { every: 100, flow: true },
} as const;
const runs = {
  "gradient descent": await problem.simulate({ ...common, scheme: "gd" }),
  "gradient flow": await problem.simulate({ ...common, scheme: "flow" }),
  "SGD, S = 4": await problem.simulate({ ...common, scheme: "sgd", batchSize: 4, replicas }),
  "SDE of it": await problem.simulate({ ...common, scheme: "sde", batchSize: 4, substeps: 2, replicas }),
  "SVAG, l = 2": await problem.simulate({
    ...common,
    scheme: "svag",
    batchSize: 4,
    l: 2,
    substeps: 2,
    replicas,
  }),
};

export const found = { runs, eta, steps };
const mean = (values: Float64Array) => values.reduce((a, b) => a + b, 0) / values.length;
console.log("scheme             C at the end   predicted along the way");
for (const [name, run] of Object.entries(runs)) {
  const end = mean(run.series.charges.C!.slice(-run.replicas));
  const predicted = mean(run.probes!.values["predicted.C"]!.slice(-run.replicas));
  console.log(`${name.padEnd(18)} ${end.toFixed(4).padStart(12)}   ${predicted.toFixed(4)}`);
}
engine.dispose();

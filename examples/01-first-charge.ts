/**
 * The smallest model with a symmetry: ell = (u w x - y)^2 does not change under u -> e^lambda u, w -> e^-lambda w.
 *
 * Its Noether charge is C = (u^2 - w^2) / 2. Gradient descent keeps C up to terms of order eta. SGD removes it, at
 * a rate that theory gives in closed form for these data (x^2 = 1, Var(x y) = 1):
 *
 *   C(k) = C(0) exp(-8 sigma2 D t),   D = Var(x y) = 1,   sigma2 = eta / (2 S),   t = k eta
 *
 * up to a relative O(eta) in the exponent. And one identity holds at any eta to rounding: the change of C is the
 * accumulated work sum_k eta^2/2 g^T A g of the steps.
 *
 * Run it: npx jiti examples/01-first-charge.ts   (in your own project import from "noetherflow")
 */
import { createEngine, model, ops, type Run, symmetry } from "../src/index.ts";

const net = model({
  params: { u: [1], w: [1] },
  inputs: { x: [1], y: [1] },
  loss: ({ u, w, x, y }) => ops.sqnorm(ops.sub(ops.mul(ops.mul(u, w), x), y)),
});
const A = symmetry.rescaling("u", "w");

const eta = 0.005;
const steps = 20_000;
const engine = await createEngine();
const problem = engine.problem(net, { x: [1, 1, -1, -1], y: [2, 0, 0, -2] });
const common = {
  theta: { u: [1.5], w: [0.5] },
  eta,
  steps,
  seed: "first charge",
  record: { every: steps / 4, loss: "full", charges: { C: A }, work: true },
} as const;
const gd = await problem.simulate({ ...common, scheme: "gd" });
const sgd = await problem.simulate({ ...common, scheme: "sgd", batchSize: 1 });
engine.dispose();

/** Charge and accumulated work of the only replica: one entry per record. */
const chargeOf = (run: Run) => run.series.charges.C!;
const workOf = (run: Run) => run.series.work.C!;

console.log("    step   C under GD   C under SGD   predicted for SGD   C - C(0) - work");
const [C0] = chargeOf(sgd) as unknown as [number];
const rate = 8 * (eta / 2);
for (const [i, k] of sgd.series.k.entries()) {
  const C = chargeOf(sgd)[i]!;
  const predicted = C0 * Math.exp(-rate * eta * k);
  const residue = C - C0 - workOf(sgd)[i]!;
  console.log(
    `${String(k).padStart(8)}   ${chargeOf(gd)[i]!.toFixed(6).padStart(10)}   ${C.toFixed(6).padStart(11)}` +
      `   ${predicted.toFixed(6).padStart(17)}   ${residue.toExponential(1).padStart(15)}`,
  );
}

/** What test/examples.test.ts checks. */
export const found = { eta, steps, gd, sgd };

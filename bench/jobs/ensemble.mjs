// J5: 256 replicas of SGD on (u w x - y)^2 with batches of one sample.
import { filled, nets, uniforms } from "../nets.mjs";
import {
  engineOf,
  finished,
  jobOf,
  N,
  noetherflow,
  prototypeOf,
  referenceEngine,
  repeated,
} from "../ours.mjs";
import { prototypeReplicas } from "../prototypes.mjs";

const R = 256;
const CHECK_STEPS = 10;

export const jobs = ["f64", "f32"].map((dtype) =>
  jobOf(import.meta.url, {
    name: `J5${dtype === "f32" ? "-f32" : ""}`,
    family: "ensemble",
    title: "256 replicas of (u w x - y)^2, S = 1",
    unit: "replica-step",
    unitsPerRun: R,
    dtype,
    prototype: dtype === "f64",
    // of the loss 1/2 (u w x - y)^2, which the other sides have
    params: { N, R, eta: 0.01, steps: CHECK_STEPS },
  }),
);

/** Data; starts, a different one for every replica; and for the check the sample of every replica in every step. */
export function inputs() {
  const { x: X, y: Y } = nets.rankOne().data(N);
  const uniform = uniforms(14);
  const u = filled(R, (_, r) => 0.5 + r / R);
  const w = filled(R, (_, r) => 1.2 - r / R);
  const batches = Uint32Array.from({ length: CHECK_STEPS * R }, () => Math.floor(uniform() * N));
  return { X, Y, u, w, batches };
}

const eta = 0.01 / 2;

/** Replica after replica, on given samples: u and w of all. */
async function given(engine, { X, Y, u, w, batches }) {
  const problem = engine.problem(nets.rankOne().build(noetherflow), { x: X, y: Y });
  const ends = [];
  for (let r = 0; r < R; r++) {
    const own = Uint32Array.from({ length: CHECK_STEPS }, (_, k) => batches[k * R + r]);
    const options = { scheme: "sgd", theta: [u[r], w[r]], eta, batchSize: 1, steps: CHECK_STEPS };
    ends.push((await finished(problem.simulate({ ...options, batches: own }))).theta);
  }
  problem.dispose();
  return [...ends.map((theta) => theta[0]), ...ends.map((theta) => theta[1])];
}

export const sides = {
  async ours({ job, side }) {
    const engine = await engineOf(job, side.variant);
    const net = nets.rankOne();
    const problem = engine.problem(net.build(noetherflow), net.data(N));
    const options = { scheme: "sgd", theta: net.theta, eta, batchSize: 1, replicas: R, seed: "bench" };
    return {
      run: async (steps) => (await finished(problem.simulate({ ...options, steps }))).hash,
      check: async () => ({
        values: await given(engine, inputs()),
        expected: await given(await referenceEngine(), inputs()),
      }),
    };
  },
  async prototype(context) {
    const exports = await prototypeOf(context);
    const { X, Y, u, w } = inputs();
    const data = repeated({ x: X.slice(0, 1), y: Y.slice(0, 1) }, 32);
    const few = prototypeReplicas(exports, data, { u, w });
    few.run(CHECK_STEPS, 2 * eta);
    const values = few.weights();
    const batches = new Uint32Array(CHECK_STEPS * R);
    const expected = await given(await referenceEngine(), { X, Y, u, w, batches });
    const start = { u: filled(R, () => 0.7), w: filled(R, () => 0.8) };
    const prototype = prototypeReplicas(exports, { x: X, y: Y }, start);
    return {
      run(steps) {
        prototype.run(steps, 2 * eta);
        return prototype.weights();
      },
      check: () => ({ values, expected }),
    };
  },
};

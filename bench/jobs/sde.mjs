// J4: the SDE of SGD with the exact covariance of batches of 8, by Euler and Maruyama, two-layer linear net, d = 16, P = 512.
import { filled, nets, normals, rowForm } from "../nets.mjs";
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
import { prototypeSde } from "../prototypes.mjs";

const d = 16;
const sizes = [d, d, d];
const S = 8;
const CHECK_STEPS = 3;

export const jobs = ["f64", "f32"].map((dtype) =>
  jobOf(import.meta.url, {
    name: `J4${dtype === "f32" ? "-f32" : ""}`,
    family: "sde",
    title: "SDE with exact noise covariance, d = 16, P = 512, N = 2048",
    dtype,
    prototype: dtype === "f64",
    // of the loss 1/2 |U W x - y|^2, which the other sides have
    params: { N, d, h: d, o: d, S, eta: 0.01, steps: CHECK_STEPS },
  }),
);

/** Data, weights in row form, and the N normals of every step of the check. */
export function inputs() {
  const net = nets.twoLayer(sizes);
  const { x: X, y: Y } = net.data(N);
  const weights = Float64Array.from(rowForm(net.theta, sizes));
  return { X, Y, weights, xi: filled(CHECK_STEPS * N, normals(13)) };
}

const options = (net) => ({ scheme: "sde", theta: net.theta, eta: 0.01 / 2, batchSize: S });

async function thetaAfter(engine, data, given) {
  const net = nets.twoLayer(sizes);
  const problem = engine.problem(net.build(noetherflow), data);
  const run = await finished(problem.simulate({ ...options(net), steps: CHECK_STEPS, ...given }));
  const theta = rowForm(problem.named(run.theta), sizes);
  problem.dispose();
  return theta;
}

/** The same from per-sample gradients, written out: theta - eta (gbar + (S N)^(-1/2) sum_n (xi_n - mean xi) g_n). */
async function expectedTheta({ X, Y, xi }) {
  const engine = await referenceEngine();
  const net = nets.twoLayer(sizes);
  const problem = engine.problem(net.build(noetherflow), { x: X, y: Y });
  const { P } = problem;
  const theta = problem.theta(net.theta);
  for (let k = 0; k < CHECK_STEPS; k++) {
    const g = problem.perSampleGradients(theta);
    const now = xi.subarray(k * N, (k + 1) * N);
    const mean = now.reduce((sum, value) => sum + value, 0) / N;
    const moved = new Float64Array(P);
    for (let n = 0; n < N; n++) {
      const weight = 1 / N + (now[n] - mean) / Math.sqrt(S * N);
      for (let i = 0; i < P; i++) moved[i] += weight * g[n * P + i];
    }
    for (let i = 0; i < P; i++) theta[i] -= (0.01 / 2) * moved[i];
  }
  return rowForm(problem.named(theta), sizes);
}

export const sides = {
  async ours({ job, side }) {
    const engine = await engineOf(job, side.variant);
    const net = nets.twoLayer(sizes);
    const problem = engine.problem(net.build(noetherflow), net.data(N));
    return {
      run: async (steps) =>
        (await finished(problem.simulate({ ...options(net), seed: "bench", steps }))).hash,
      async check() {
        const { X, Y, xi } = inputs();
        const values = await thetaAfter(engine, { x: X, y: Y }, { normals: xi });
        return { values, expected: await expectedTheta({ X, Y, xi }) };
      },
    };
  },
  async prototype(context) {
    const exports = await prototypeOf(context);
    const { eta } = context.job.params;
    const net = nets.twoLayer(sizes);
    // it draws its own normals; samples that are all equal have no noise
    const equal = repeated(net.data(1), 32);
    const few = prototypeSde(exports, d, S, equal, net.theta);
    few.run(CHECK_STEPS, eta);
    const values = few.weights();
    const expected = await thetaAfter(await referenceEngine(), equal, {});
    const prototype = prototypeSde(exports, d, S, net.data(N), net.theta);
    return {
      run(steps) {
        prototype.run(steps, eta);
        return prototype.weights();
      },
      check: () => ({ values, expected }),
    };
  },
};

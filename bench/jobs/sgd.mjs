// J1: SGD of the two-layer linear net |U W x - y|^2, d inputs, hidden units and outputs, batches of S with replacement.
import { nets, rowForm, uniforms } from "../nets.mjs";
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
import { prototypeSgd } from "../prototypes.mjs";

/** Steps after which all sides have the same theta. */
const CHECK_STEPS = 10;
const EQUAL_SAMPLES = 32;

export const jobs = ["f64", "f32"].flatMap((dtype) =>
  [
    [16, 8],
    [16, 32],
    [64, 8],
    [64, 32],
  ].map(([d, S]) =>
    jobOf(import.meta.url, {
      name: `J1-d${d}-S${S}${dtype === "f32" ? "-f32" : ""}`,
      family: "sgd",
      title: `SGD, two-layer linear net, d = ${d}, S = ${S}`,
      dtype,
      prototype: true,
      // of the loss 1/2 |U W x - y|^2, which the other sides have
      params: { N, d, h: d, o: d, S, eta: 0.01, steps: CHECK_STEPS },
    }),
  ),
);

const sizesOf = ({ d, h, o }) => [d, h, o];

/** What every side gets: data, weights in row form, and batches for the check. */
export function inputs({ params }) {
  const { S, steps } = params;
  const net = nets.twoLayer(sizesOf(params));
  const { x: X, y: Y } = net.data(N);
  const uniform = uniforms(3);
  const batches = Uint32Array.from({ length: steps * S }, () => Math.floor(uniform() * N));
  const weights = rowForm(net.theta, sizesOf(params));
  return { X, Y, weights: Float64Array.from(weights), batches };
}

/** theta in row form after the steps of the check. */
async function thetaAfter(engine, { params }, data, batches) {
  const { S, eta, steps } = params;
  const sizes = sizesOf(params);
  const net = nets.twoLayer(sizes);
  const problem = engine.problem(net.build(noetherflow), data);
  const options = { scheme: "sgd", theta: net.theta, eta: eta / 2, batchSize: S, steps };
  const run = await finished(problem.simulate({ ...options, ...(batches ? { batches } : {}) }));
  const { U, W } = problem.named(run.theta);
  problem.dispose();
  return rowForm({ U, W }, sizes);
}

export const sides = {
  async ours({ job, side }) {
    const { S, eta } = job.params;
    const engine = await engineOf(job, side.variant);
    const net = nets.twoLayer(sizesOf(job.params));
    const problem = engine.problem(net.build(noetherflow), net.data(N));
    const options = { scheme: "sgd", theta: net.theta, eta: eta / 2, batchSize: S, seed: "bench" };
    return {
      run: async (steps) => (await finished(problem.simulate({ ...options, steps }))).hash,
      async check() {
        const { X, Y, batches } = inputs(job);
        const data = { x: X, y: Y };
        const values = await thetaAfter(engine, job, data, batches);
        return { values, expected: await thetaAfter(await referenceEngine(), job, data, batches) };
      },
    };
  },
  async prototype(context) {
    const { d, S, eta, steps } = context.job.params;
    const exports = await prototypeOf(context);
    const net = nets.twoLayer([d, d, d]);
    const { dtype } = context.job;
    // it draws its own batches
    const equal = repeated(net.data(1), EQUAL_SAMPLES);
    const values = prototypeSgd(exports, dtype, d, S, equal, net.theta);
    values.run(steps, eta);
    const checked = values.weights();
    const expected = await thetaAfter(await referenceEngine(), context.job, equal);
    const prototype = prototypeSgd(exports, dtype, d, S, net.data(N), net.theta);
    return {
      run(count) {
        prototype.run(count, eta);
        return prototype.weights();
      },
      check: () => ({ values: checked, expected }),
    };
  },
};

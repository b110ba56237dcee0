// Jobs that measure instead of stepping: second moments of per-sample gradients (J2), a Hessian trace (J3), Sigma v.
// A side is prepared from { kind, measure, sizes }; `run()` repeats it `steps` times and returns what it gave.
import { filled, normals } from "./nets.mjs";
import { checksum, transpose } from "./plain.mjs";
import { allocator } from "./prototypes.mjs";

/** The net with 1/2 of the squared norm, as the prototypes have it, and data that fit it badly. */
function problemOf({ engine, noetherflow }, activation, [d, h, o], N, scale) {
  const { model, ops } = noetherflow;
  const normal = normals(7);
  const some = (n, factor) => filled(n, () => factor * normal());
  const x = some(N * d, 1);
  const y = some(N * o, 1);
  const W = some(h * d, scale);
  const U = some(o * h, scale);
  const net = model({
    params: { W: [h, d], U: [o, h] },
    inputs: { x: [d], y: [o] },
    loss: ({ W, U, x, y }) => {
      const z = ops.matmul(W, x);
      const f = ops.matmul(U, activation === "tanh" ? ops.tanh(z) : z);
      return ops.scale(ops.sqnorm(ops.sub(f, y)), 0.5);
    },
  });
  const problem = engine.problem(net, { x, y });
  return { problem, theta: problem.theta({ W, U }), x, y, W, U, normal };
}

/** The measurements by name: from a problem to a number or numbers. */
const ours = {
  secondMoment: ({ problem, theta }) => problem.noiseTrace(theta, { centred: false }).value,
  trace: ({ problem, theta }) => problem.noiseTrace(theta).value,
  covariance: ({ problem, theta }) => problem.noiseCovariance(theta),
  gradient: ({ problem, theta }) => problem.gradient(theta),
  noiseVector: ({ problem, theta, v }) => problem.noiseVector(theta, v),
  // another theta every time, so that the mean gradient has to be found first
  noiseVectorAnew: (made) => {
    made.theta[0] = -made.theta[0];
    return made.problem.noiseVector(made.theta, made.v);
  },
  hutchinson: async ({ problem, theta }) =>
    (await problem.hessianTrace(theta, { method: "hutchinson", probes: 64, seed: "bench" })).value,
};

const settings = {
  moments: { activation: "linear", sizes: [16, 32, 16], N: 2048, scale: 0.3 },
  curvature: { activation: "tanh", sizes: [64, 64, 64], N: 1024, scale: 1 / 8 },
};
const settingOf = (measure) => (measure === "hutchinson" ? settings.curvature : settings.moments);

/** The prototype of a measurement, on the same data. */
function prototypeOf({ exports }, measure, { x, y, W, U }) {
  const { sizes, N } = settingOf(measure);
  const [d, h, o] = sizes;
  const allocate = allocator(exports.memory);
  const [X, Y] = [allocate(N * d, x), allocate(N * o, y)];
  const [W1, W2] = [allocate(d * h, transpose(W, h, d)), allocate(h * o, transpose(U, o, h))];
  const copy = allocate(h * o);
  const scratch = allocate(4 * 32 * 64);
  if (measure === "hutchinson") {
    const [V1, V2] = [allocate(d * d), allocate(d * d)];
    const [A, E, delta] = [allocate(N * d), allocate(N * d), allocate(N * d)];
    const parts = [X, Y, W1, W2, copy, V1, V2, A, E, delta, scratch].map((p) => p.address);
    return () => exports.hutch_f64x2_2x4(64, N, d, ...parts);
  }
  const P = d * h + h * o;
  const trace = allocate(8);
  const parts = [X, Y, W1, W2, copy, scratch].map((p) => p.address);
  if (measure !== "covariance")
    return () => {
      exports.persample_f64(N, d, h, o, ...parts, 0, 0, trace.address);
      return trace.view[0] / N;
    };
  const G = allocate(N * P);
  const weights = allocate(
    N,
    filled(N, () => 1 / N),
  );
  const stride = P + 16;
  const sigma = allocate(stride * stride);
  const packed = allocate((P + 32) * 300);
  return () => {
    exports.persample_f64(N, d, h, o, ...parts, G.address, P, trace.address);
    sigma.view.fill(0);
    exports.s_f64x2_4x2_TN(P, N, G.address, P, weights.address, sigma.address, packed.address, stride, 256);
    return sigma.view;
  };
}

/** A side of a measuring job: `run()` does its repetitions. */
export function prepareMeasure(context, side) {
  const { activation, sizes, N, scale } = settingOf(side.measure);
  const made = problemOf(context, activation, sizes, N, scale);
  const v = filled(made.problem.P, made.normal);
  const once =
    side.kind === "ours"
      ? ours[side.measure].bind(null, Object.assign(made, { v }))
      : prototypeOf(context.prototypes, side.measure, made);
  return {
    once,
    run: async () => {
      let value;
      for (let i = 0; i < side.steps; i++) value = await once();
      return checksum({ value: typeof value === "number" ? [value] : value });
    },
  };
}

/** Do both sides measure the same? The prototypes do not centre and draw probes of their own: moments to 1e-12, traces to 20 %. */
export async function checkMeasure(context, label, side) {
  const { activation, sizes, N, scale } = settingOf(side.measure);
  const made = problemOf(context, activation, sizes, N, scale);
  const gradient = made.problem.gradient(made.theta);
  const theirs = prototypeOf(context.prototypes, side.measure, made)();
  let difference;
  let tolerance = 1e-12;
  if (side.measure === "hutchinson") {
    const exact = (await made.problem.hessianTrace(made.theta)).value;
    difference = Math.abs(theirs - exact) / exact;
    tolerance = 0.2;
  } else if (side.measure === "covariance") {
    // theirs is E[g g^T] with the entries of each matrix transposed; the trace does not mind
    const sigma = await made.problem.noiseCovariance(made.theta);
    const P = made.problem.P;
    let [mine, other] = [0, 0];
    for (let i = 0; i < P; i++) {
      mine += sigma[i * P + i] + gradient[i] * gradient[i];
      other += theirs[i * (P + 16) + i];
    }
    difference = Math.abs(mine - other) / Math.abs(other);
  } else {
    const second = made.problem.noiseTrace(made.theta, { centred: false }).value;
    difference = Math.abs(second - theirs) / theirs;
  }
  made.problem.dispose();
  return {
    side: label,
    on: "the same data",
    difference,
    tolerance,
    comparable: true,
    ok: difference <= tolerance,
  };
}

const job = (name, title, measure, steps, atLeast) => ({
  name,
  title,
  measures: true,
  sides: {
    ours: { kind: "ours", measure, steps },
    prototype: { kind: "prototype", measure, steps },
  },
  figures: [{ quantity: "speed", of: "ours", against: "prototype", atLeast }],
});

export const measuringJobs = [
  job("J2-moment", "E|g|^2 of 2048 per-sample gradients, P = 1024", "secondMoment", 300, 0.8),
  // for information: centring takes the mean gradient, two products in five that the prototype does not do
  job("J2-trace", "Tr Sigma of 2048 samples, P = 1024, beside the uncentred moment", "trace", 200),
  job(
    "J2-full",
    "the whole Sigma, P = 1024, 2048 samples; the prototype does not centre",
    "covariance",
    2,
    0.8,
  ),
  job("J3", "Hessian trace, tanh 64-64-64, 1024 samples, 64 probes", "hutchinson", 2, 0.7),
  ...["noiseVector", "noiseVectorAnew"].map((measure) => ({
    name: measure === "noiseVector" ? "Sigma-v" : "Sigma-v-anew",
    title: `Sigma times a vector, P = 1024, 2048 samples, ${measure === "noiseVector" ? "in a series at one theta" : "each at another theta"}`,
    measures: true,
    sides: {
      ours: { kind: "ours", measure, steps: 100 },
      "a gradient": { kind: "ours", measure: "gradient", steps: 200 },
    },
    figures: [{ quantity: "cost", of: "ours", against: "a gradient", atMost: 2.5 }],
  })),
];

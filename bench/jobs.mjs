// The jobs: what runs in turns inside one process, what is compared, and what each comparison has to reach.

import { measuringJobs } from "./measures.mjs";

/** Samples of every data set. */
export const N = 2048;

/**
 * A side of a job is { kind, steps, ... }: `steps` is the length of one sample, at least 100 ms where this was written.
 *
 *   ours        noetherflow: a net of nets.mjs, its sizes, batch size S, replicas
 *   prototype   the hand-built program for the same job, if --prototypes is given
 *   plain       plain JavaScript
 *   specialised plain JavaScript, written for V8's optimiser
 *
 * A figure compares two sides by a quantity:
 *
 *   speed       steps per second, of / against
 *   cost        time of a replica's step, of / against
 *   stepRate    operations of the products per second of a whole step, of / against
 *   productRate the same per second spent in product instructions (from simulate's profile), of / against
 *
 * `atLeast` or `atMost` is the goal; without one the figure is for information.
 */

const J1_STEPS = {
  "d16-S8": 150_000,
  "d16-S32": 40_000,
  "d64-S8": 10_000,
  "d64-S32": 3_000,
  "d16-S1": 500_000,
};
const PLAIN_STEPS = { "d16-S8": 10_000, "d16-S32": 2_500, "d64-S8": 600, "d64-S32": 150, "d16-S1": 70_000 };

function linearJob(d, S) {
  const size = `d${d}-S${S}`;
  const common = { net: "twoLayer", sizes: [d, d, d], S };
  const job = {
    name: `J1-${size}`,
    title: `two-layer linear net, d = ${d}, S = ${S}`,
    peak: true,
    sides: {
      ours: { kind: "ours", ...common, steps: J1_STEPS[size] },
      prototype: { kind: "prototype", ...common, steps: J1_STEPS[size] },
      "plain JavaScript": { kind: "plain", ...common, steps: PLAIN_STEPS[size] },
    },
    figures: [
      { quantity: "speed", of: "ours", against: "prototype", atLeast: S === 1 ? 1 : 0.9 },
      { quantity: "speed", of: "ours", against: "plain JavaScript" },
    ],
  };
  if (size === "d16-S8") {
    const specialised = "specialised JavaScript";
    job.sides[specialised] = { kind: "specialised", ...common, steps: 20_000 };
    job.figures[1].atLeast = 13;
    job.figures.push({ quantity: "speed", of: "ours", against: specialised });
  }
  return job;
}

/** A net beside the two-layer linear net of like size. */
function netJob(name, title, net, sizes, d, S, steps) {
  return {
    name: `${name}-S${S}`,
    title: `${title}, S = ${S}`,
    peak: true,
    sides: {
      ours: { kind: "ours", net, sizes, S, steps, profile: true },
      J1: {
        kind: "ours",
        net: "twoLayer",
        sizes: [d, d, d],
        S,
        steps: J1_STEPS[`d${d}-S${S}`],
        profile: true,
      },
    },
    figures: [
      { quantity: "productRate", of: "ours", against: "J1", atLeast: 0.75 },
      { quantity: "stepRate", of: "ours", against: "J1", atLeast: 0.75 },
    ],
  };
}

function weightNormJob(d, S, steps) {
  return {
    name: `weight-norm-d${d}-S${S}`,
    title: `weight-normalised two-layer net, d = ${d}, S = ${S}`,
    sides: {
      ours: { kind: "ours", net: "weightNormalised", sizes: [d, d, d], S, steps },
      "the plain net": {
        kind: "ours",
        net: "twoLayer",
        sizes: [d, d, d],
        S,
        steps: J1_STEPS[`d${d}-S${S}`],
      },
    },
    figures: [{ quantity: "cost", of: "ours", against: "the plain net", atMost: 1.3 }],
  };
}

const rankOneJob = {
  name: "J5",
  title: "256 replicas of (u w x - y)^2, S = 1",
  sides: {
    ours: { kind: "ours", net: "rankOne", sizes: [1], S: 1, replicas: 256, steps: 100_000 },
    prototype: { kind: "prototype", net: "rankOne", sizes: [1], S: 1, replicas: 256, steps: 100_000 },
    "ours, R = 1": { kind: "ours", net: "rankOne", sizes: [1], S: 1, replicas: 1, steps: 2_000_000 },
  },
  figures: [
    { quantity: "speed", of: "ours", against: "prototype", atLeast: 0.4 },
    { quantity: "cost", of: "ours", against: "ours, R = 1", atMost: 0.35 },
  ],
};

/** The SDE with the exact covariance of the noise of batches of 8, P = 512. */
const sdeJob = {
  name: "J4",
  title: "SDE step with exact noise covariance, two-layer linear net, d = 16, N = 2048",
  sides: {
    ours: { kind: "ours", net: "twoLayer", sizes: [16, 16, 16], S: 8, scheme: "sde", steps: 500 },
    prototype: { kind: "prototype", net: "twoLayer", sizes: [16, 16, 16], S: 8, scheme: "sde", steps: 500 },
    "gradient descent": {
      kind: "ours",
      net: "twoLayer",
      sizes: [16, 16, 16],
      S: N,
      scheme: "gd",
      steps: 500,
    },
  },
  figures: [
    { quantity: "speed", of: "ours", against: "prototype", atLeast: 0.8 },
    { quantity: "cost", of: "ours", against: "gradient descent", atMost: 1.25 },
  ],
};

export const jobs = [
  linearJob(16, 8),
  linearJob(16, 32),
  linearJob(64, 8),
  linearJob(64, 32),
  linearJob(16, 1),
  netJob("linear-12-20-7", "two-layer linear net 12-20-7", "twoLayer", [12, 20, 7], 16, 8, 150_000),
  netJob("linear-12-20-7", "two-layer linear net 12-20-7", "twoLayer", [12, 20, 7], 16, 32, 50_000),
  netJob("three-layer-d16", "three-layer linear net, d = 16", "threeLayer", [16, 16, 16, 16], 16, 8, 100_000),
  netJob("three-layer-d16", "three-layer linear net, d = 16", "threeLayer", [16, 16, 16, 16], 16, 32, 25_000),
  netJob("three-layer-d64", "three-layer linear net, d = 64", "threeLayer", [64, 64, 64, 64], 64, 32, 2_000),
  netJob("tanh-bias-d16", "tanh net with bias, d = 16", "tanhBias", [16, 16, 16], 16, 8, 100_000),
  netJob("tanh-bias-d16", "tanh net with bias, d = 16", "tanhBias", [16, 16, 16], 16, 32, 30_000),
  netJob("tanh-bias-d64", "tanh net with bias, d = 64", "tanhBias", [64, 64, 64], 64, 32, 3_000),
  netJob("softmax-d16", "softmax cross-entropy, d = 16", "softmaxTwoLayer", [16, 16, 16], 16, 8, 100_000),
  netJob("softmax-d16", "softmax cross-entropy, d = 16", "softmaxTwoLayer", [16, 16, 16], 16, 32, 30_000),
  netJob("softmax-d64", "softmax cross-entropy, d = 64", "softmaxTwoLayer", [64, 64, 64], 64, 32, 3_000),
  weightNormJob(16, 32, 30_000),
  weightNormJob(64, 32, 2_500),
  rankOneJob,
  sdeJob,
  ...measuringJobs,
];

import type { Scheme } from "./scheme.ts";

/**
 * Stochastic gradient descent: S draws a step, each with weight 1/S.
 *
 * iid      with replacement; the minibatch gradient has covariance Sigma / S
 * without  S distinct samples a step; covariance (Sigma / S) (N - S) / (N - 1)
 * epochs   the data in a random order, a new one for each epoch of floor(N / S) steps; each step as "without"
 * online   fresh samples of a sampler; covariance Sigma / S with the population's Sigma
 */
export const sgd: Scheme = {
  name: "sgd",
  visits: "batch",
  batches: 1,
  samplings: ["iid", "without", "epochs", "online"],
  takes: ["batchSize", "sampling", "batches", "momentum", "clip", "labelNoise"],
  charges: "work",
  perSample: false,
  update(build) {
    build.walk("batch");
    return build.heavyBall(build.clipped(build.mean()));
  },
};

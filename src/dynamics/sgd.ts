import type { Scheme } from "./scheme.ts";

/**
 * Stochastic gradient descent: S draws a step, each with weight 1/S.
 *
 * iid      with replacement; the minibatch gradient has covariance Sigma / S
 * without  S distinct samples a step; covariance (Sigma / S) (N - S) / (N - 1)
 * online   fresh samples of a sampler; covariance Sigma / S with the population's Sigma
 */
export const sgd: Scheme = {
  name: "sgd",
  visits: "batch",
  weight: (count) => 1 / count,
  samplings: ["iid", "without", "online"],
};

import type { Scheme } from "./scheme.ts";
import { plus } from "./update.ts";

/**
 * The stochastic differential equation of SGD, d theta = -grad L dt + sqrt(2 sigma^2 Sigma) dW, by Euler-Maruyama steps of dt
 * with the exact covariance of the gradient noise at every theta:
 *
 *   theta' = theta - dt sum_n w_n g_n,   w_n = 1/N + c (xi_n - mean xi),   c = sqrt(2 sigma^2 / (N dt))
 *
 * xi standard normal: the weights sum to 1 and dt^2 Cov(sum w_n g_n) = 2 sigma^2 dt Sigma. One weighted backward pass, so
 * a step costs what a step of gradient descent does, and every realisation keeps g . A theta = 0. With noise: "factor" the noise is
 * drawn by a Cholesky factor of Sigma instead, for small models: the same law by another way, to check the one by the other.
 *
 * @source Li, Tai, E 2019, J. Mach. Learn. Res. 20(40), for the equation; its weights are proved in docs/glossary.md
 */
export const sde: Scheme = {
  name: "sde",
  visits: "all",
  batches: 0,
  samplings: [],
  takes: ["batchSize", "sigma2", "dt", "substeps", "normals", "sampling", "noise"],
  charges: "work",
  perSample: true,
  update(build) {
    build.walk("all");
    if (build.setting.noise === "weights") return build.noisy();
    build.keep("mean", build.mean());
    const noise = build.factored();
    build.walk("none");
    return plus(build.vector("mean"), noise);
  },
};

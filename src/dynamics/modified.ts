import type { Scheme } from "./scheme.ts";
import { plus, times } from "./update.ts";

/**
 * The second-order modified equation of SGD, d theta = -grad(L + (eta/4) |grad L|^2) dt + sqrt(2 sigma^2 Sigma) dW, which follows
 * SGD to weak order 2 in eta, by Euler-Maruyama steps of dt with exact noise:
 *
 *   theta' = theta - dt (sum_n w_n g_n + (eta/2) H gbar)
 *
 * Choose dt well below eta (substeps): at dt = eta the integrator's own error is of the order of the correction.
 *
 * @cost two passes over the data a step, the second with a Hessian product
 * @source Li, Tai, E 2019, J. Mach. Learn. Res. 20(40)
 */
export const modified: Scheme = {
  name: "modified",
  visits: "all",
  batches: 0,
  samplings: [],
  takes: ["batchSize", "sigma2", "dt", "substeps", "normals", "sampling"],
  charges: "work",
  perSample: true,
  // (A theta) . H gbar = -gbar^T A gbar for a symmetry
  bends: (build) => build.vector("mean"),
  update(build) {
    build.walk("all");
    build.keep("mean", build.mean());
    build.walk("all");
    const bend = times(build.hessianTimes(build.vector("mean")), build.eta);
    return plus(build.noisy(), times(bend, 0.5));
  },
};

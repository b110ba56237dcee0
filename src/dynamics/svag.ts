import type { Scheme } from "./scheme.ts";
import { plus, times } from "./update.ts";

/**
 * Stochastic variance-amplified gradient: two independent batches and a step of eta / l,
 *
 *   theta' = theta - (eta / l) (a g1 + b g2),   a, b = (1 +- sqrt(2 l - 1)) / 2
 *
 * so that the noise of l steps has the covariance of one step of SGD: l = 1 is SGD, l -> infinity its SDE.
 *
 * @source Li, Malladi, Arora 2021, arXiv:2102.12470
 */
export const svag: Scheme = {
  name: "svag",
  visits: "batch",
  batches: 2,
  samplings: ["iid", "without", "online"],
  takes: ["batchSize", "sampling", "batches", "labelNoise", "l", "substeps"],
  charges: "work",
  perSample: false,
  update(build) {
    const root = Math.sqrt(2 * build.setting.l - 1);
    build.walk("batch");
    build.keep("first", build.mean());
    build.walk("second");
    return plus(times(build.vector("first"), (1 + root) / 2), times(build.mean(), (1 - root) / 2));
  },
};

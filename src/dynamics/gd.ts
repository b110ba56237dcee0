import type { Scheme } from "./scheme.ts";

/** Gradient descent: every sample in every step, all with weight 1/N. Needs a finite data set. */
export const gd: Scheme = {
  name: "gd",
  visits: "all",
  batches: 0,
  samplings: [],
  takes: ["momentum", "clip", "labelNoise"],
  charges: "work",
  perSample: false,
  update(build) {
    build.walk("all");
    return build.heavyBall(build.clipped(build.mean()));
  },
};

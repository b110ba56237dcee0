import type { Scheme } from "./scheme.ts";

/** Gradient descent: every sample in every step, all with weight 1/N. Needs a finite data set. */
export const gd: Scheme = {
  name: "gd",
  visits: "all",
  weight: (count) => 1 / count,
  samplings: [],
};

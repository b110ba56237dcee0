import { gd } from "./gd.ts";
import { sgd } from "./sgd.ts";

/** How the samples of a step are chosen. */
export type Sampling = "iid" | "without" | "online";

/**
 * A scheme is a law for per-sample weights: one step moves theta by
 *
 *   theta' = (1 - 2 eta gamma) theta - eta sum_i w_i g_i
 *
 * with g_i the gradient of sample i. The scheme says which samples a step visits and their weight;
 * everything else (replicas, decay, records, control) is the run's and the same for all.
 */
export interface Scheme {
  readonly name: string;
  /** All N samples of the data set in every step, or a batch of S. */
  readonly visits: "all" | "batch";
  /** Weight of each visited sample, given how many are visited. */
  weight(count: number): number;
  /** Ways to choose a batch; the first that fits the data is the default. */
  readonly samplings: readonly Sampling[];
}

export const schemes: ReadonlyMap<string, Scheme> = new Map([gd, sgd].map((s) => [s.name, s]));

import { adam } from "./adam.ts";
import { flow } from "./flow.ts";
import { gd } from "./gd.ts";
import { modified } from "./modified.ts";
import { rmsprop } from "./rmsprop.ts";
import { sde } from "./sde.ts";
import { sgd } from "./sgd.ts";
import { svag } from "./svag.ts";
import type { UpdateBuilder, Vector } from "./update.ts";

/** How the samples of a step are chosen. */
export type Sampling = "iid" | "without" | "epochs" | "online";

/** Options that not every scheme takes. */
export type SchemeOption =
  | "batchSize"
  | "sampling"
  | "batches"
  | "normals"
  | "momentum"
  | "clip"
  | "labelNoise"
  | "l"
  | "dt"
  | "substeps"
  | "sigma2"
  | "noise"
  | "beta1"
  | "beta2"
  | "epsilon"
  | "rtol"
  | "atol";

/**
 * A scheme is a law for per-sample weights: one update moves theta by
 *
 *   theta' = (1 - 2 dt gamma) theta - dt sum_i w_i g_i
 *
 * with g_i the gradient of sample i. The scheme says which samples an update visits and their weights;
 * everything else (replicas, decay, schedules, records, control) is the run's and the same for all.
 */
export interface Scheme {
  readonly name: string;
  /** All N samples of the data set in every update, or batches of S. */
  readonly visits: "all" | "batch";
  /** Batches an update draws. */
  readonly batches: 0 | 1 | 2;
  /** Ways to choose a batch; the first that fits the data is the default. */
  readonly samplings: readonly Sampling[];
  readonly takes: readonly SchemeOption[];
  /**
   * What the charge of a symmetry does: "work" where its change is the quadratic work of the updates, "kept" where
   * it does not change, "none" where the theory of charges does not apply.
   */
  readonly charges: "work" | "kept" | "none";
  /** Needs the gradient of every sample by itself. */
  readonly perSample: boolean;
  /** The direction sum_i w_i g_i of an update, at the end of its last pass; null if the scheme has moved theta itself. */
  update(build: UpdateBuilder): Vector | null;
  /**
   * Further quadratic work of an update, for charges: (eta / (2 dt)) x^T A x of a vector x is added to 1/2 d^T A d of its
   * direction d.
   */
  readonly bends?: (build: UpdateBuilder) => Vector;
}

export const schemes: ReadonlyMap<string, Scheme> = new Map(
  [gd, sgd, svag, sde, modified, flow, adam, rmsprop].map((s) => [s.name, s]),
);

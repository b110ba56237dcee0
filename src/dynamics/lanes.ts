import { fail, show } from "../errors.ts";
import type { Lanes, Real } from "../graph/layout.ts";
import type { Model } from "../graph/model.ts";
import { reachable, sizeOf, VARIES_WITH_SAMPLE } from "../graph/node.ts";
import type { Samples } from "../models/samples.ts";
import type { Setting } from "./options.ts";

/** Where the lanes go: `groups` of `groupLanes` replicas each, walked one group after the other. */
export interface LaneChoice {
  readonly lanes: Lanes;
  readonly groups: number;
  readonly groupLanes: number;
  readonly block: number;
}

const SCRATCH_BYTES = 256 * 1024;
/** Values of a group of replicas should stay in the first-level cache. */
const GROUP_BYTES = 24 * 1024;
const MIN_GROUP = 16;
const MAX_GROUP = 256;

/**
 * Samples in the lanes when a batch fills them and products are large enough for tiles; replicas
 * when there are several and the model is small or the batch short; else the features of one sample.
 */
export function chooseLanes(model: Model, samples: Samples, setting: Setting, real: Real): LaneChoice {
  const { replicas, S, lowering } = setting;
  if (samples.coupled) {
    if (lowering.lanes !== undefined && lowering.lanes !== "samples")
      fail(
        "unsupported",
        "simulate: lowering.lanes",
        'a loss with batch ops needs all samples of a batch side by side: lanes "samples"',
        show(lowering.lanes),
      );
    return { lanes: "samples", groups: replicas, groupLanes: 1, block: S };
  }
  if (setting.noise === "factor" && lowering.lanes === "replicas")
    fail(
      "unsupported",
      "simulate: lowering.lanes",
      'lanes "samples" or "features" with noise: "factor"',
      '"replicas"',
    );
  const loss = samples.lossIn(S);
  const widest = Math.max(...model.blocks.flatMap((b) => [...b.shape, 1]));
  const lanes =
    lowering.lanes ??
    (setting.noise === "factor" ? "samples" : null) ??
    (replicas >= 4 && (widest <= 8 || S < 4) ? "replicas" : S < 4 ? "features" : "samples");
  const bytesOf = (bit: number) =>
    real.bytes *
    reachable([loss]).reduce((n, v) => ((v.varies & bit) !== 0 || bit === 0 ? n + sizeOf(v.shape) : n), 1);
  if (lanes === "replicas") {
    // parameters and samples both have lanes: all values of a step, and their cotangents
    const fits = Math.floor(GROUP_BYTES / (2 * bytesOf(0)));
    const wanted = lowering.group ?? Math.max(MIN_GROUP, Math.min(MAX_GROUP, 16 * Math.floor(fits / 16)));
    const groups = Math.ceil(replicas / Math.max(real.perRegister, wanted));
    return { lanes, groups, groupLanes: Math.ceil(replicas / groups), block: 1 };
  }
  // forward values, their cotangents and copies, in the second-level cache
  const fits = Math.floor(SCRATCH_BYTES / (3 * bytesOf(VARIES_WITH_SAMPLE)));
  const block = lowering.block ?? Math.max(8, Math.min(128, 8 * Math.floor(fits / 8)));
  return { lanes, groups: replicas, groupLanes: 1, block };
}

/**
 * One eta and one decay in all lanes, which then need not be read lane by lane. Not when lanes are
 * left over or may have to stand still.
 */
export function haveSameRates(choice: LaneChoice, setting: Setting, ld: number): boolean {
  const { eta, dt, gammas, replicas, onDiverge } = setting;
  const isUniform = (values: Float64Array) => values.every((x) => x === values[0]);
  return (
    onDiverge !== "stopReplica" &&
    choice.groups * choice.groupLanes === replicas &&
    (ld === 1 || ld === choice.groupLanes) &&
    isUniform(eta) &&
    (dt === null || isUniform(dt)) &&
    gammas.every(isUniform)
  );
}

import { PURPOSE } from "../core/key.ts";
import { internal } from "../errors.ts";
import { drawFields } from "../graph/instructions.ts";
import type { Planner, Real } from "../graph/layout.ts";
import { type FeedPlan, planFeed } from "../models/feed.ts";
import type { Samples } from "../models/samples.ts";
import type { Setting } from "./options.ts";

const WINDOW_BYTES = 8 * 1024;

/** A window of draws ahead: its address and the fields of its block. */
export interface WindowPlan {
  readonly address: number;
  readonly fields: Partial<Record<(typeof drawFields)[number], number>>;
  /** Identity table of N words to write, or 0. */
  readonly distinct: number;
  /** Brings the drawn samples, where they are not in memory: the window then holds their numbers. */
  readonly feed: FeedPlan | null;
  readonly bytes: number;
}

/**
 * Room for the draws of some updates ahead.
 *
 * @param block draws of one block of a walk
 */
export function planWindow(
  planner: Planner,
  samples: Samples,
  { sampling, S, steps, substeps }: Setting,
  lanes: number,
  number: number,
  block: number,
  real: Real,
): WindowPlan {
  const { N } = samples;
  const start = planner.mark();
  const address = planner.take(4 * drawFields.length);
  const isEpoch = sampling === "epochs";
  const epoch = isEpoch ? Math.floor(N / S) : 0;
  const { reader, recordBytes } = samples;
  // the further ahead draws are known, the more of them one read can bring
  const fits = reader === null ? Math.floor(WINDOW_BYTES / 4) : reader.room(recordBytes);
  const most = reader === null ? 256 : 65_536;
  const updates = isEpoch ? epoch : Math.max(1, Math.min(most, Math.floor(fits / (S * lanes))));
  const draws = isEpoch ? Math.ceil(N / 4) * 4 : (updates + 1) * S + 8;
  if (isEpoch && (steps * substeps) / epoch >= 4_294_967_295)
    internal("plan", "more epochs than are counted");
  const window = planner.take(4 * draws * lanes);
  const distinct = sampling === "iid" ? 0 : planner.take(4 * N);
  const feed =
    reader === null
      ? null
      : planFeed(planner, reader, real, recordBytes, "drawn", { block, most: draws * lanes, end: 0 });
  return {
    address,
    distinct,
    feed,
    bytes: planner.mark() - start,
    fields: {
      WINDOW: window,
      WINDOW_UPDATES: updates,
      BATCH_SIZE: S,
      DRAW_LANES: lanes,
      BELOW: N,
      RECORD_BYTES: feed === null ? recordBytes : 1,
      PURPOSE: isEpoch ? PURPOSE.epoch : number === 0 ? PURPOSE.batch : PURPOSE.batchSecond,
      DISTINCT: distinct,
      EPOCH_UPDATES: epoch,
      WINDOW_FEED: feed?.address ?? 0,
    },
  };
}

/**
 * Runs on disk, for Node: a folder per run that survives a crash, goes on from its last checkpoint, and can be replayed to the
 * same bits; and what leaves it as CSV, JSON, Parquet, npy or npz.
 *
 * @module noetherflow/records
 */

export type { RunControl } from "../dynamics/run.ts";

export { type ExportFormat, exportRun } from "./export.ts";
export type { Session } from "./folder.ts";
export { decodeNpy, decodeNpz, encodeNpy, encodeNpz, type NpyArray, type NpyValues } from "./npy.ts";
export {
  type RecordControl,
  type RecordedRun,
  type RecordRunOptions,
  readRun,
  recordRun,
  resumeRun,
  saveRun,
  writeVerdicts,
} from "./record.ts";
export { type Difference, type Replay, replayRun } from "./replay.ts";

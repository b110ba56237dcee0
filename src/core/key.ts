import { fail, show } from "../errors.ts";

/** Version of the random stream: which counter means which draw. Part of every record. */
export const STREAM_VERSION = 1;

/** What a draw is for: the fourth word of its Philox counter. Numbers never change meaning. */
export const PURPOSE = {
  /** Indices of a minibatch. */
  batch: 1,
  /** Samples of a finite data set made by a sampler. */
  data: 2,
  /** Fresh samples of a step. */
  fresh: 3,
  /** Initial parameters. */
  init: 4,
  /** Fresh samples of a measurement outside any run. */
  measure: 5,
  /** Probe vectors of estimators. */
  probe: 6,
  /** Normals xi of the SDE's weights. */
  xi: 7,
  /** Indices of the second batch of an update, and the order of the data in an epoch. */
  batchSecond: 8,
  epoch: 9,
  /** Fresh samples, or noise on inputs, of the second batch of an update. */
  freshSecond: 10,
  /** Normals of the SDE's noise by a factor of Sigma. */
  factor: 11,
} as const;

/** Key of the counter-based generator: two 32-bit words. */
export interface Key {
  readonly key0: number;
  readonly key1: number;
}

type Seeder = (seed: string) => { int32(): number };
let seeder: Seeder | undefined;

/** Loads seedrandom, which mixes entropy of its own when loaded and so is not loaded at import. */
export async function loadSeeder(): Promise<void> {
  if (seeder !== undefined) return;
  const loaded: { default: unknown } = await import("seedrandom");
  seeder = loaded.default as Seeder;
}

/**
 * The key of a seed. seedrandom turns the seed's text into 64 key bits and does nothing else; every
 * draw is then a pure function of (key, purpose, replica, step, index).
 */
export function keyOf(where: string, seed: unknown): Key {
  if (typeof seed !== "string" && !(typeof seed === "number" && Number.isFinite(seed))) {
    fail("range", where, "a seed is a string or a finite number", show(seed));
  }
  if (seeder === undefined) return fail("internal", where, "the seeder was not loaded");
  const generator = seeder(String(seed));
  return { key0: generator.int32() >>> 0, key1: generator.int32() >>> 0 };
}

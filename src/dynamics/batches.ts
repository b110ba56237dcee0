import { checkInteger, checkWord, fail, show } from "../errors.ts";
import { flatten } from "../graph/parse.ts";
import type { Sampling, Scheme } from "./scheme.ts";

/** Which samples the updates of a run go over. */
export interface BatchOptions {
  /** S; for schemes that draw a batch, and for sigma^2 = eta / (2 S) of the SDE. */
  readonly batchSize?: number;
  /** "iid" by default for finite data, "online" for a sampler. Of the SDE: the noise is that of "iid" or "without". */
  readonly sampling?: Sampling;
  /** Explicit draws: indices, a row of S per batch (two rows an update of "svag"), the same for all replicas. */
  readonly batches?: unknown;
  /** Explicit normals xi of the SDE: a row of N per update, the same for all replicas. */
  readonly normals?: unknown;
}

export interface BatchSetting {
  readonly sampling: Sampling | null;
  /** Samples of a batch; of the data where a scheme visits all of it. */
  readonly S: number;
  /**
   * Of the SDE: the batches whose noise it has, and S of sigma^2 = eta / (2 S), which is larger than the batch size without
   * replacement; null where there are none.
   */
  readonly noiseOf: {
    readonly batchSize: number;
    readonly sampling: Sampling;
    readonly effectiveS: number;
  } | null;
}

/** The same before it has been checked. */
interface AnyBatchOptions {
  readonly batchSize?: unknown;
  readonly sampling?: unknown;
  readonly sigma2?: unknown;
}

const MAX_BATCH = 1_000_000_000;

export function readBatch(scheme: Scheme, N: number, options: AnyBatchOptions): BatchSetting {
  const where = scheme.name;
  if (scheme.visits === "all") {
    if (N === Infinity) {
      fail(
        "unsupported",
        where,
        `${where} needs a finite data set`,
        "a sampler of fresh samples",
        "Use momentMatched(sampler), or { samples: N }.",
      );
    }
    const given = scheme.takes.includes("batchSize") ? noiseSource(where, N, options) : null;
    return { sampling: null, S: N, noiseOf: given };
  }
  const fitting: Sampling[] = N === Infinity ? ["online"] : ["iid", "without", "epochs"];
  const sampling = checkWord(
    where,
    "sampling",
    options.sampling === undefined ? fitting[0] : options.sampling,
    scheme.samplings,
  );
  if (!fitting.includes(sampling)) {
    fail(
      "unsupported",
      where,
      N === Infinity
        ? 'fresh samples are drawn "online"'
        : `a finite data set is drawn ${fitting.map((s) => `"${s}"`).join(" or ")}`,
      show(sampling),
    );
  }
  const S = options.batchSize;
  const distinct = sampling === "without" || sampling === "epochs";
  if (distinct && typeof S === "number" && Number.isInteger(S) && S > N) {
    fail(
      "range",
      where,
      `batch size S must be an integer in [1, N = ${N}] without replacement`,
      `${S}`,
      'Use sampling: "iid", which may draw a sample twice.',
    );
  }
  const most = distinct ? N : MAX_BATCH;
  return {
    sampling,
    S: checkInteger(where, "batch size S", S, 1, most, distinct ? "N" : undefined),
    noiseOf: null,
  };
}

/** S (N - 1) / (N - S) for batches without repetition, whose noise is that of larger ones. */
function noiseSource(where: string, N: number, options: AnyBatchOptions): BatchSetting["noiseOf"] {
  if (options.sigma2 !== undefined) {
    if (options.batchSize !== undefined || options.sampling !== undefined)
      fail("unsupported", where, "sigma2, or batchSize for sigma2 = eta / (2 S)", "both");
    return null;
  }
  if (options.batchSize === undefined)
    fail("range", where, "expected batchSize, for sigma2 = eta / (2 S), or sigma2", "neither");
  const sampling = checkWord(where, "sampling", options.sampling === undefined ? "iid" : options.sampling, [
    "iid",
    "without",
  ]);
  const distinct = sampling === "without";
  const S = checkInteger(
    where,
    "batch size S",
    options.batchSize,
    1,
    distinct ? N : MAX_BATCH,
    distinct ? "N" : undefined,
  );
  // S = N has no noise, N = 1 included
  const larger = S === N ? Infinity : (S * (N - 1)) / (N - S);
  return { batchSize: S, sampling, effectiveS: distinct ? larger : S };
}

/** @param updates updates of theta in the run */
export function readBatches(
  scheme: Scheme,
  { sampling, S }: BatchSetting,
  updates: number,
  N: number,
  batches: unknown,
  loss: "full" | "batch" | undefined,
): Uint32Array | null {
  if (batches === undefined) return null;
  const where = scheme.name;
  if (sampling === null || sampling === "online")
    fail("unsupported", where, "explicit batches go with a scheme that draws from a finite data set");
  if (loss === "batch")
    fail(
      "unsupported",
      "record",
      'loss: "batch" needs the batch after the last step, which explicit batches do not have',
      undefined,
      'Record loss: "full".',
    );
  const rows = updates * scheme.batches;
  const values = flatten(`${where}: batches`, batches, rows * S, [rows, S]);
  const out = new Uint32Array(values.length);
  for (const [i, n] of values.entries())
    out[i] = checkInteger(`${where}: batches`, `entry ${i}`, n, 0, N - 1, "N - 1");
  return out;
}

/** @param updates updates of theta in the run */
export function readNormals(
  where: string,
  normals: unknown,
  updates: number,
  N: number,
): Float64Array | null {
  return normals === undefined ? null : flatten(`${where}: normals`, normals, updates * N, [updates, N]);
}

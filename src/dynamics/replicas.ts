import { checkInteger, checkNumber, checkWord, fail, show } from "../errors.ts";
import type { Model } from "../graph/model.ts";
import { flatten } from "../graph/parse.ts";
import { readBatch } from "./batches.ts";
import type { Setting, SimulateOptions } from "./options.ts";
import type { Scheme } from "./scheme.ts";

/** One value for all replicas, or one per replica. */
export type PerReplica<T> = T | readonly T[];

/** Streams are numbered in 32 bits. */
const MAX_STREAM = 4_294_967_295;

/** More than one value. */
const isList = (value: unknown): value is ArrayLike<unknown> =>
  Array.isArray(value) || ArrayBuffer.isView(value);

/** Absent is undefined: a null, as a NaN becomes in JSON, is a value and is refused where it is checked. */
export function orDefault<T>(value: T | undefined, standard: T): T {
  return value === undefined ? standard : value;
}

/** One finite number of at least `min` per replica. */
export function perReplica(
  where: string,
  what: string,
  value: unknown,
  replicas: number,
  min: number,
): Float64Array {
  const out = new Float64Array(replicas);
  if (Array.isArray(value) || ArrayBuffer.isView(value)) {
    const list = value as unknown as ArrayLike<number>;
    if (list.length !== replicas)
      fail("shape", where, `${what} is one number or one per replica (${replicas})`, `${list.length}`);
    for (let r = 0; r < replicas; r++) out[r] = checkNumber(where, `${what} of replica ${r}`, list[r], min);
  } else out.fill(checkNumber(where, what, value, min));
  return out;
}

/** Batch sizes, seeds and data seeds where some of them are given per replica; else null. */
export function readDiffering(
  scheme: Scheme,
  N: number,
  options: SimulateOptions<unknown, unknown>,
  R: number,
): Setting["differs"] {
  const where = scheme.name;
  const { batchSize, seed, dataSeed, batches, normals } = options;
  if (![batchSize, seed, dataSeed].some(isList) && dataSeed === undefined) return null;
  const each = (name: string, value: unknown): unknown[] => {
    if (!isList(value)) return new Array<unknown>(R).fill(value);
    if (value.length !== R)
      fail("shape", where, `${name} is one value or one per replica (${R})`, `${value.length}`);
    return Array.from(value);
  };
  if (isList(batchSize) && (batches !== undefined || normals !== undefined))
    fail("unsupported", where, "one batch size beside explicit draws", show(batchSize));
  return {
    batches: each("batchSize", batchSize).map((S) => readBatch(scheme, N, { ...options, batchSize: S })),
    seeds: each("seed", seed).map((s) => readSeed(where, s)),
    dataSeeds:
      dataSeed === undefined ? null : each("dataSeed", dataSeed).map((s) => readSeed(where, s, "dataSeed")),
  };
}

export function readSeed(where: string, seed: unknown, what = "seed"): string {
  const given = orDefault(seed, "0");
  if (typeof given !== "string" && !(typeof given === "number" && Number.isFinite(given)))
    fail("range", where, `${what} must be a string or a finite number`, show(given));
  return String(given);
}

export function readOnDiverge(where: string, given: unknown, inParts: boolean): Setting["onDiverge"] {
  const word = checkWord(where, "onDiverge", orDefault(given, inParts ? "stopReplica" : "stop"), [
    "stop",
    "stopReplica",
    "throw",
  ]);
  if (inParts && word === "stop")
    fail(
      "unsupported",
      where,
      'onDiverge: "stopReplica" or "throw" where replicas differ in batchSize, seed or dataSeed',
      '"stop"',
      "They run in parts, which do not stop each other.",
    );
  return word;
}

export function readDecay(
  where: string,
  model: Model,
  decay: unknown,
  replicas: number,
): Pick<Setting, "gammas" | "weightDecay"> {
  const blocks = model.blocks.filter((b) => b.trainable);
  const given = orDefault(decay, 0);
  if (typeof given !== "object" || given === null || Array.isArray(given) || ArrayBuffer.isView(given)) {
    const all = perReplica(where, "weightDecay", given, replicas, 0);
    return { gammas: blocks.map(() => all), weightDecay: [...all] };
  }
  const named = given as Record<string, unknown>;
  for (const name of Object.keys(named)) {
    if (!model.block(name, `${where}: weightDecay`).trainable)
      fail("unsupported", `${where}: weightDecay`, "a block that is trained", `${name}, which is not`);
  }
  const gammas = blocks.map(({ name }) =>
    perReplica(where, `weightDecay of ${name}`, orDefault(named[name], 0), replicas, 0),
  );
  return { gammas, weightDecay: Object.fromEntries(blocks.map(({ name }, i) => [name, [...gammas[i]!]])) };
}

export function readStreams(where: string, streams: unknown, replicas: number): Uint32Array | null {
  if (streams === undefined) return null;
  const list = flatten(`${where}: streams`, streams, replicas, [replicas]);
  return Uint32Array.from(list, (n, r) => checkInteger(where, `stream of replica ${r}`, n, 0, MAX_STREAM));
}

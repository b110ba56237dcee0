import {
  checkFlag,
  checkInteger,
  checkKnown,
  checkNumber,
  checkObject,
  checkWord,
  fail,
  show,
} from "../errors.ts";
import type { Block, Model } from "../graph/model.ts";
import type { Node } from "../graph/node.ts";
import { flatten } from "../graph/parse.ts";
import { type Sampling, type Scheme, schemes } from "./scheme.ts";

/** One value for all replicas, or one per replica. */
export type PerReplica<T> = T | readonly T[];

/** A flat theta of P values, or an object of named blocks. */
export type ThetaLike = ArrayLike<number> | Readonly<Record<string, unknown>>;

/** Progress of a run, given to onProgress between chunks. */
export interface Progress {
  readonly step: number;
  readonly steps: number;
  readonly replicas: number;
  /** Since the run began. */
  readonly elapsedMs: number;
  /** At the rate so far. */
  readonly remainingMs: number;
  /** Steps of one replica per second, times replicas. */
  readonly replicaStepsPerSecond: number;
}

/** What a run records every `every` steps, at step 0 and within Wasm. */
export interface RecordOptions<A, E> {
  readonly every: number;
  /** Mean loss over the data ("full"), or over the minibatch the next step will use ("batch"). */
  readonly loss?: "full" | "batch";
  /** Frobenius norm of every block. */
  readonly blockNorms?: boolean;
  /** Charges by name: C = 1/2 (theta - c)^T A (theta - c). */
  readonly charges?: Readonly<Record<string, A>>;
  /** Matrix charges Q = U^T U - W W^T of products U W, by name: the two blocks, U first. */
  readonly matrixCharges?: Readonly<Record<string, readonly [up: string, down: string]>>;
  /** Accumulated quadratic work sum_k eta^2/2 g^T A g of every charge (accumulated in f64). */
  readonly work?: boolean;
  /** Any expressions of parameters alone. */
  readonly values?: Readonly<Record<string, E>>;
  /**
   * Averages over time of all of these but loss and work, summed in f64 within Wasm: over the steps
   * from `from` on (not before step 1) that are multiples of `every` (record.every when absent).
   */
  readonly average?: { readonly from: number; readonly every?: number };
}

/** Choices that change speed and memory and never a bit of a result. */
export interface LoweringOptions {
  /** What runs in the SIMD lanes; chosen from sizes when absent. */
  readonly lanes?: "samples" | "replicas" | "features";
  /** Samples per block when samples are in the lanes. */
  readonly block?: number;
  /** Replicas side by side when replicas are in the lanes. */
  readonly group?: number;
  /** Compute pairs of elementwise ops, and gradients with the step they end in, in one pass (default true). */
  readonly fuse?: boolean;
  /** Steps per call into Wasm; chosen by time, about 10 ms, when absent. */
  readonly chunk?: number;
}

export interface SimulateOptions<A = unknown, E = Node> {
  readonly scheme: "gd" | "sgd";
  /** Start: P values for all replicas, R * P values, or one theta per replica. */
  readonly theta: ThetaLike | readonly ThetaLike[];
  /** Step size. */
  readonly eta: PerReplica<number>;
  readonly steps: number;
  /** S; for schemes that draw a batch. */
  readonly batchSize?: number;
  /** "iid" by default for finite data, "online" for a sampler. */
  readonly sampling?: Sampling;
  /** gamma in L + gamma |theta|^2: theta' = (1 - 2 eta gamma) theta - eta g. PyTorch's weight_decay is 2 gamma. */
  readonly weightDecay?: PerReplica<number>;
  /** Explicit draws: indices, steps x S, the same for all replicas. */
  readonly batches?: unknown;
  /** Text or number; "0" when absent. The same seed gives the same bits on every host. */
  readonly seed?: string | number;
  readonly replicas?: number;
  /** Number of the first replica: replica 7 alone equals replica 7 among many. */
  readonly firstReplica?: number;
  readonly record?: RecordOptions<A, E>;
  /**
   * When some theta stops being finite: "stop" (default) ends the run at the last step where all
   * were; "stopReplica" lets the others go on; "throw" throws, with what was recorded on the error.
   */
  readonly onDiverge?: "stop" | "stopReplica" | "throw";
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: Progress) => void;
  readonly lowering?: LoweringOptions;
  /** Time every instruction of a step after the run: run.profile says where the time goes. */
  readonly profile?: boolean;
}

const KNOWN = [
  "scheme",
  "theta",
  "eta",
  "steps",
  "batchSize",
  "sampling",
  "weightDecay",
  "batches",
  "seed",
  "replicas",
  "firstReplica",
  "record",
  "onDiverge",
  "signal",
  "onProgress",
  "lowering",
  "profile",
] as const;

/** Options after checking: nothing optional, one entry per replica. */
export interface Setting {
  readonly scheme: Scheme;
  readonly sampling: Sampling | null;
  readonly steps: number;
  /** Samples a step visits. */
  readonly S: number;
  readonly replicas: number;
  readonly firstReplica: number;
  readonly seed: string;
  readonly eta: Float64Array;
  readonly weightDecay: Float64Array;
  /** replicas x P. */
  readonly theta: Float64Array;
  readonly batches: Uint32Array | null;
  readonly every: number;
  readonly onDiverge: "stop" | "stopReplica" | "throw";
  readonly lowering: LoweringOptions;
  readonly profile: boolean;
}

/** Largest step number: steps are counted in 32 bits. */
const MAX_STEPS = 4_294_967_295;

/**
 * Checks the options of a run, all before any work.
 *
 * @param N         samples of the data, Infinity when they are drawn fresh
 * @param realBytes bytes of one value in the engine
 */
export function readOptions(
  model: Model,
  N: number,
  realBytes: number,
  options: SimulateOptions<unknown, unknown>,
): Setting {
  if (typeof options !== "object" || options === null)
    fail("shape", "simulate", "expected an object of options", show(options));
  checkKnown("simulate", options, KNOWN);
  const scheme = schemes.get(checkWord("simulate", "scheme", options.scheme, [...schemes.keys()]))!;
  const where = scheme.name;
  const steps = checkInteger(where, "steps", options.steps, 0, MAX_STEPS);
  const replicas = checkInteger(where, "replicas", orDefault(options.replicas, 1), 1, 1_000_000_000);
  const firstReplica = checkInteger(
    where,
    "firstReplica",
    orDefault(options.firstReplica, 0),
    0,
    MAX_STEPS - replicas,
  );
  // state and snapshot: theta, eta and decay of every replica, twice
  if (2 * replicas * (model.P + 2) * realBytes >= 4_294_967_296) {
    const got = `${replicas} replicas of ${model.P} parameters`;
    fail(
      "memory",
      where,
      "the states of all replicas must fit twice in the 4 GiB of Wasm memory",
      got,
      "Run fewer at a time, with firstReplica.",
    );
  }
  const { sampling, S } = readBatch(scheme, N, options);
  const eta = perReplica(where, "eta", options.eta, replicas, 0);
  const weightDecay = perReplica(where, "weightDecay", orDefault(options.weightDecay, 0), replicas, 0);
  const record = options.record;
  if (record !== undefined) {
    checkObject("record", "{ every, ... }", record);
    checkKnown("record", record, [
      "every",
      "loss",
      "blockNorms",
      "charges",
      "matrixCharges",
      "work",
      "values",
      "average",
    ]);
    if (record.loss !== undefined) checkWord("record", "loss", record.loss, ["full", "batch"]);
    if (record.loss === "full" && N === Infinity) {
      fail(
        "unsupported",
        "record",
        'loss: "full" needs a finite data set',
        "a sampler of fresh samples",
        'Record loss: "batch", or make a set with { samples: N }.',
      );
    }
    checkFlag("record", "blockNorms", record.blockNorms);
    if (checkFlag("record", "work", record.work) && Object.keys(record.charges ?? {}).length === 0) {
      fail(
        "range",
        "record",
        "work is recorded for the charges",
        "no charges",
        "Name a generator in record.charges.",
      );
    }
  }
  const lowering = orDefault(options.lowering, {});
  checkObject("lowering", "{ lanes?, block?, group?, fuse?, chunk? }", lowering);
  checkFlag("lowering", "fuse", lowering.fuse);
  checkKnown("lowering", lowering, ["lanes", "block", "group", "fuse", "chunk"]);
  if (lowering.lanes !== undefined)
    checkWord("lowering", "lanes", lowering.lanes, ["samples", "replicas", "features"]);
  for (const key of ["block", "group", "chunk"] as const) {
    if (lowering[key] !== undefined) checkInteger("lowering", key, lowering[key], 1, MAX_STEPS);
  }
  const seed = orDefault(options.seed, "0");
  if (typeof seed !== "string" && !(typeof seed === "number" && Number.isFinite(seed))) {
    fail("range", where, "seed must be a string or a finite number", show(seed));
  }
  if (options.signal !== undefined && typeof options.signal?.throwIfAborted !== "function") {
    fail("shape", where, "signal must be an AbortSignal", show(options.signal));
  }
  if (options.onProgress !== undefined && typeof options.onProgress !== "function") {
    fail("shape", where, "onProgress must be a function", show(options.onProgress));
  }
  return {
    scheme,
    sampling,
    steps,
    S,
    replicas,
    firstReplica,
    seed: String(seed),
    eta,
    weightDecay,
    theta: readThetas(where, model, options.theta, replicas),
    batches: readBatches(where, options.batches, scheme, sampling, steps, S, N, record?.loss),
    every: record === undefined ? 0 : checkInteger("record", "every", record.every, 1, MAX_STEPS),
    onDiverge: checkWord(where, "onDiverge", orDefault(options.onDiverge, "stop"), [
      "stop",
      "stopReplica",
      "throw",
    ]),
    lowering,
    profile: checkFlag(where, "profile", options.profile),
  };
}

function readBatch(
  scheme: Scheme,
  N: number,
  options: SimulateOptions<unknown, unknown>,
): { sampling: Sampling | null; S: number } {
  const where = scheme.name;
  if (scheme.visits === "all") {
    if (options.batchSize !== undefined || options.sampling !== undefined) {
      fail(
        "unsupported",
        where,
        `${where} visits all N samples in every step; it takes no batchSize and no sampling`,
      );
    }
    if (N === Infinity) {
      fail(
        "unsupported",
        where,
        `${where} needs a finite data set`,
        "a sampler of fresh samples",
        "Use momentMatched(sampler), or { samples: N }.",
      );
    }
    return { sampling: null, S: N };
  }
  const fitting: Sampling[] = N === Infinity ? ["online"] : ["iid", "without"];
  const sampling = checkWord(where, "sampling", orDefault(options.sampling, fitting[0]), scheme.samplings);
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
  if (sampling === "online") return { sampling, S: checkInteger(where, "batch size S", S, 1, 1_000_000_000) };
  if (sampling === "without" && typeof S === "number" && Number.isInteger(S) && S > N) {
    fail(
      "range",
      where,
      `batch size S must be an integer in [1, N = ${N}] without replacement`,
      `${S}`,
      'Use sampling: "iid", which may draw a sample twice.',
    );
  }
  return {
    sampling,
    S: checkInteger(
      where,
      "batch size S",
      S,
      1,
      sampling === "without" ? N : 1_000_000_000,
      sampling === "without" ? "N" : undefined,
    ),
  };
}

function readBatches(
  where: string,
  batches: unknown,
  scheme: Scheme,
  sampling: Sampling | null,
  steps: number,
  S: number,
  N: number,
  loss: "full" | "batch" | undefined,
): Uint32Array | null {
  if (batches === undefined) return null;
  if (scheme.visits === "all" || sampling === "online")
    fail("unsupported", where, "explicit batches go with a scheme that draws from a finite data set");
  if (loss === "batch")
    fail(
      "unsupported",
      "record",
      'loss: "batch" needs the batch after the last step, which explicit batches do not have',
      undefined,
      'Record loss: "full".',
    );
  const values = flatten(`${where}: batches`, batches, steps * S, [steps, S]);
  const out = new Uint32Array(values.length);
  for (const [i, n] of values.entries())
    out[i] = checkInteger(`${where}: batches`, `entry ${i}`, n, 0, N - 1, "N - 1");
  return out;
}

/** Absent is undefined: a null, as a NaN becomes in JSON, is a value and is refused where it is checked. */
function orDefault<T>(value: T | undefined, standard: T): T {
  return value === undefined ? standard : value;
}

/** One finite number of at least `min` per replica. */
function perReplica(
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

/** A flat copy of one theta (or another vector of parameter space), given flat or by blocks. */
export function readTheta(where: string, model: Model, theta: unknown, what = "theta"): Float64Array {
  if (Array.isArray(theta) || ArrayBuffer.isView(theta))
    return flatten(`${where}: ${what}`, theta, model.P, [model.P]);
  if (typeof theta !== "object" || theta === null) {
    return fail(
      "shape",
      `${where}: ${what}`,
      `expected ${model.P} values, or an object with ${blockNames(model.blocks)}`,
      show(theta),
    );
  }
  const given = theta as Record<string, unknown>;
  for (const name of Object.keys(given)) model.block(name, `${where}: ${what}`);
  const parts = model.blocks.map((block) => {
    if (!Object.hasOwn(given, block.name)) {
      fail(
        "name",
        `${where}: ${what}`,
        `expected values for ${blockNames(model.blocks)}`,
        `none for ${block.name}`,
      );
    }
    return flatten(`${where}: ${what}.${block.name}`, given[block.name], block.size, block.shape);
  });
  const out = new Float64Array(model.P);
  for (const [i, block] of model.blocks.entries()) out.set(parts[i]!, block.offset);
  return out;
}

const blockNames = (blocks: readonly Block[]): string =>
  blocks.map((b) => `${b.name} [${b.shape.join(", ")}]`).join(", ");

function readThetas(where: string, model: Model, theta: unknown, replicas: number): Float64Array {
  const { P } = model;
  if (Array.isArray(theta) && theta.length > 0 && typeof theta[0] === "object") {
    if (theta.length !== replicas)
      fail("shape", `${where}: theta`, `expected one theta per replica (${replicas})`, `${theta.length}`);
    const each = theta.map((t, r) => readTheta(`${where}: replica ${r}`, model, t));
    const out = new Float64Array(replicas * P);
    for (const [r, t] of each.entries()) out.set(t, r * P);
    return out;
  }
  const flat = Array.isArray(theta) || ArrayBuffer.isView(theta);
  if (flat && replicas > 1 && (theta as unknown as ArrayLike<number>).length === replicas * P) {
    return flatten(`${where}: theta`, theta, replicas * P, [replicas, P]);
  }
  const one = readTheta(where, model, theta);
  const out = new Float64Array(replicas * P);
  for (let r = 0; r < replicas; r++) out.set(one, r * P);
  return out;
}

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
import type { Model } from "../graph/model.ts";
import type { Node } from "../graph/node.ts";
import { type BatchOptions, type BatchSetting, readBatch, readBatches, readNormals } from "./batches.ts";
import {
  orDefault,
  type PerReplica,
  perReplica,
  readDecay,
  readDiffering,
  readOnDiverge,
  readSeed,
  readStreams,
} from "./replicas.ts";
import type { CheckpointOptions, ProbeOptions } from "./run.ts";
import { readSchedule, type Schedule, type ScheduleSetting } from "./schedule.ts";
import { type Scheme, type SchemeOption, schemes } from "./scheme.ts";
import { readThetas, type ThetaLike } from "./theta.ts";

/** Progress of a run, given to onProgress between chunks. */
export interface Progress {
  /** Steps done. */
  readonly step: number;
  /** Steps asked for. */
  readonly steps: number;
  /** Replicas that run side by side. */
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
  /** Steps between records; the last step is recorded only if it is a multiple. */
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

/**
 * What a run does, and what it records: start, scheme, rate and steps; A are generators, E expressions of parameters. An
 * option that the scheme does not take is refused by name.
 */
export interface SimulateOptions<A = unknown, E = Node> extends Omit<BatchOptions, "batchSize"> {
  /** S; for schemes that draw a batch, and for sigma^2 = eta / (2 S) of the SDE. */
  readonly batchSize?: PerReplica<number>;
  /** The update rule: "gd" all data; "sgd" minibatches; "sde" the noise SDE by Euler-Maruyama; "svag" the bridge between the last two; "modified" the second-order modified equation of SGD; "flow" gradient flow; "adam", "rmsprop". */
  readonly scheme: "gd" | "sgd" | "svag" | "sde" | "modified" | "flow" | "adam" | "rmsprop";
  /** Start: P values for all replicas, R * P values, or one theta per replica. */
  readonly theta: ThetaLike | readonly ThetaLike[];
  /** Learning rate. "flow" follows gradient flow over a time eta in every step. */
  readonly eta?: PerReplica<number>;
  /** eta_k by a rule, or a list of them, which takes the place of eta. */
  readonly schedule?: Schedule;
  /** Steps of every replica, 0 to 2^32 - 1. */
  readonly steps: number;
  /**
   * gamma in L + gamma |theta|^2: theta' = (1 - 2 eta gamma) theta - eta g. PyTorch's weight_decay is 2 gamma. By named blocks, those
   * not named do not decay.
   */
  readonly weightDecay?: PerReplica<number> | Readonly<Record<string, PerReplica<number>>>;
  /** beta of the heavy ball: v' = beta v + g, theta' = (1 - 2 eta gamma) theta - eta v'. */
  readonly momentum?: PerReplica<number>;
  /** Largest norm of the gradient of an update; longer ones are shortened to it. */
  readonly clip?: number;
  /** Fresh normal noise on inputs, standard deviation by name, in every update. */
  readonly labelNoise?: Readonly<Record<string, number>>;
  /** Of "svag": steps of eta / l with the noise of one step of eta. 1 is SGD. */
  readonly l?: number;
  /** Updates per step, of dt = eta / substeps unless the scheme or dt says otherwise. */
  readonly substeps?: number;
  /** Size of an update of the SDE. */
  readonly dt?: PerReplica<number>;
  /** sigma^2 of the SDE; eta / (2 S) when absent. */
  readonly sigma2?: PerReplica<number>;
  /** How the noise of the SDE is drawn: by weights of the samples (default), or by a Cholesky factor of Sigma, P at most 500. */
  readonly noise?: "weights" | "factor";
  /** Of Adam (.9, .999, 1e-8) and RMSProp (beta2 .99). */
  readonly beta1?: number;
  /** .999; of RMSProp .99. */
  readonly beta2?: number;
  /** Added to the root of the second moment; 1e-8 when absent. */
  readonly epsilon?: number;
  /** Tolerances of "flow": 1e-8 and 1e-10 when absent. */
  readonly rtol?: number;
  /** Absolute tolerance of "flow". */
  readonly atol?: number;
  /** Text or number; "0" when absent. The same seed gives the same bits on every host. */
  readonly seed?: PerReplica<string | number>;
  /**
   * Other data of the same sampler for each replica, as `engine.problem(model, sampler, { samples, dataSeed })` makes them. Replicas that
   * differ in batch size, seed or data do not share lanes: the run is done in parts.
   */
  readonly dataSeed?: PerReplica<string | number>;
  /** Runs side by side with random streams of their own; 1 when absent. */
  readonly replicas?: number;
  /** Number of the first replica: replica 7 alone equals replica 7 among many. */
  readonly firstReplica?: number;
  /** The number of every replica's random stream, where they do not follow the first: replicas with equal numbers see equal draws. */
  readonly streams?: readonly number[];
  /** What to record, and how often; nothing when absent. */
  readonly record?: RecordOptions<A, E>;
  /**
   * When some theta stops being finite: "stop" (default) ends the run at the last step where all
   * were; "stopReplica" lets the others go on; "throw" throws, with what was recorded on the error.
   */
  readonly onDiverge?: "stop" | "stopReplica" | "throw";
  /** An abort ends the run after the chunk in progress and rejects with its reason; what was recorded is on the error as `recorded`. */
  readonly signal?: AbortSignal;
  /** Called between chunks, each of about 10 ms. */
  readonly onProgress?: (progress: Progress) => void;
  /** Measurements of the host along the run: run.probes. */
  readonly probes?: ProbeOptions;
  /** Checkpoints, and one to go on from: same options, same bits. */
  readonly checkpoint?: CheckpointOptions;
  /** Bytes of a checkpoint of this very run. */
  readonly resume?: Uint8Array;
  /** Choices of speed and memory that change no bit. */
  readonly lowering?: LoweringOptions;
  /** Time every instruction of a step after the run: run.profile says where the time goes. */
  readonly profile?: boolean;
}

/** Options that every scheme takes. */
const COMMON = [
  "scheme",
  "theta",
  "eta",
  "schedule",
  "steps",
  "weightDecay",
  "seed",
  "dataSeed",
  "replicas",
  "firstReplica",
  "streams",
  "record",
  "onDiverge",
  "signal",
  "onProgress",
  "probes",
  "checkpoint",
  "resume",
  "lowering",
  "profile",
] as const;

/** What other packages call them. */
const ELSEWHERE = { lr: "eta", learningRate: "eta", wd: "weightDecay", bs: "batchSize" };

const SPECIAL: readonly SchemeOption[] = [...new Set([...schemes.values()].flatMap((s) => s.takes))];

/** Options after checking: nothing optional, one entry per replica. */
export interface Setting extends BatchSetting {
  /** What lanes cannot hold, where replicas differ in it. */
  readonly differs: {
    readonly batches: readonly BatchSetting[];
    readonly seeds: readonly string[];
    readonly dataSeeds: readonly string[] | null;
  } | null;
  readonly scheme: Scheme;
  readonly steps: number;
  readonly replicas: number;
  readonly firstReplica: number;
  /** Numbers of the replicas' streams where they are not consecutive. */
  readonly streams: Uint32Array | null;
  readonly seed: string;
  readonly eta: Float64Array;
  readonly schedule: ScheduleSetting | null;
  /** gamma of every trainable block, per replica. */
  readonly gammas: readonly Float64Array[];
  readonly weightDecay: unknown;
  /** beta per replica; null without momentum. */
  readonly momentum: Float64Array | null;
  readonly clip: number | null;
  readonly labelNoise: ReadonlyMap<string, number> | null;
  readonly l: number;
  readonly substeps: number;
  readonly dt: Float64Array | null;
  readonly sigma2: Float64Array | null;
  readonly noise: "weights" | "factor";
  readonly beta1: number;
  readonly beta2: number;
  readonly epsilon: number;
  readonly rtol: number;
  readonly atol: number;
  /** replicas x P. */
  readonly theta: Float64Array;
  readonly batches: Uint32Array | null;
  /** Given xi of the SDE, updates x N. */
  readonly normals: Float64Array | null;
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
  const known = [...COMMON, ...SPECIAL];
  for (const [theirs, ours] of Object.entries(ELSEWHERE))
    if (Object.hasOwn(options, theirs))
      fail("name", "simulate", `options are ${known.join(", ")}`, show(theirs), `Did you mean "${ours}"?`);
  checkKnown("simulate", options, known);
  const scheme = schemes.get(checkWord("simulate", "scheme", options.scheme, [...schemes.keys()]))!;
  const where = scheme.name;
  checkTaken(scheme, options);
  const steps = checkInteger(where, "steps", options.steps, 0, MAX_STEPS);
  const substeps = checkInteger(where, "substeps", orDefault(options.substeps, 1), 1, 1_000_000);
  checkInteger(where, "steps times substeps", steps * substeps, 0, MAX_STEPS);
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
  const differs = readDiffering(scheme, N, options, replicas);
  const batch = differs?.batches[0] ?? readBatch(scheme, N, options);
  const schedule = readSchedule(where, options.schedule, steps);
  // a list of eta_k takes the place of eta
  const eta = perReplica(
    where,
    "eta",
    options.eta === undefined && schedule?.table ? 1 : options.eta,
    replicas,
    0,
  );
  const decay = readDecay(where, model, options.weightDecay, replicas);
  const momentum =
    options.momentum === undefined ? null : perReplica(where, "momentum", options.momentum, replicas, 0);
  for (const [r, beta] of (momentum ?? []).entries())
    if (beta >= 1) fail("range", where, `momentum of replica ${r} must be in [0, 1)`, show(beta));
  const numberOr = (
    name: "beta1" | "beta2" | "epsilon" | "rtol" | "atol" | "l",
    standard: number,
    least = 0,
  ): number => (options[name] === undefined ? standard : checkNumber(where, name, options[name], least));
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
    if (record.work && scheme.charges === "none") {
      const expected = "work is recorded where the theory of charges applies";
      fail(
        "unsupported",
        "record",
        expected,
        scheme.name,
        `${scheme.name} scales every coordinate by itself; record the charges alone.`,
      );
    }
    if (record.work && scheme.charges === "kept")
      fail(
        "unsupported",
        "record",
        "gradient flow does no work on charges",
        "work: true",
        "Record the charges alone.",
      );
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
  return {
    scheme,
    ...batch,
    steps,
    substeps,
    replicas,
    firstReplica,
    streams: readStreams(where, options.streams, replicas),
    differs,
    seed: differs?.seeds[0] ?? readSeed(where, options.seed),
    eta,
    schedule,
    ...decay,
    momentum,
    clip: options.clip === undefined ? null : checkPositive(where, "clip", options.clip),
    labelNoise: readLabelNoise(where, model, N, options.labelNoise),
    l: numberOr("l", 1, 1),
    dt: options.dt === undefined ? null : perReplica(where, "dt", options.dt, replicas, 0),
    sigma2: options.sigma2 === undefined ? null : perReplica(where, "sigma2", options.sigma2, replicas, 0),
    noise: readNoise(where, model, options),
    beta1: below1(where, "beta1", numberOr("beta1", 0.9)),
    beta2: below1(where, "beta2", numberOr("beta2", scheme.name === "rmsprop" ? 0.99 : 0.999)),
    epsilon: numberOr("epsilon", 1e-8),
    rtol: numberOr("rtol", 1e-8),
    atol: numberOr("atol", 1e-10, Number.MIN_VALUE),
    theta: readThetas(where, model, options.theta, replicas),
    batches: readBatches(scheme, batch, steps * substeps, N, options.batches, record?.loss),
    normals: readNormals(where, options.normals, steps * substeps, N),
    every: record === undefined ? 0 : checkInteger("record", "every", record.every, 1, MAX_STEPS),
    onDiverge: readOnDiverge(where, options.onDiverge, differs !== null),
    lowering,
    profile: checkFlag(where, "profile", options.profile),
  };
}

/** Options that belong to other schemes are refused. */
function checkTaken(scheme: Scheme, options: SimulateOptions<unknown, unknown>): void {
  const { name: where, takes } = scheme;
  for (const name of SPECIAL) {
    if (options[name] === undefined || takes.includes(name)) continue;
    if (name === "batchSize" || name === "sampling")
      fail(
        "unsupported",
        where,
        `${where} visits all N samples in every step; it takes no batchSize and no sampling`,
      );
    if (name === "batches")
      fail("unsupported", where, "explicit batches go with a scheme that draws from a finite data set");
    const others = [...schemes.values()].filter((s) => s.takes.includes(name)).map((s) => s.name);
    fail("unsupported", where, `${name} goes with ${others.join(", ")}`, show(options[name]));
  }
}

function readLabelNoise(
  where: string,
  model: Model,
  N: number,
  given: unknown,
): ReadonlyMap<string, number> | null {
  if (given === undefined) return null;
  const at = `${where}: labelNoise`;
  if (N === Infinity)
    fail(
      "unsupported",
      at,
      "a finite data set",
      "a sampler of fresh samples",
      "Write the noise into the sampler.",
    );
  const named = checkObject(at, "a standard deviation by input: { y: 0.5 }", given);
  const out = new Map<string, number>();
  for (const [name, std] of Object.entries(named)) {
    if (!model.inputs.some((i) => i.name === name))
      fail(
        "name",
        at,
        `the inputs of the model are ${model.inputs.map((i) => i.name).join(", ")}`,
        show(name),
      );
    out.set(name, checkNumber(at, name, std, 0));
  }
  return out.size === 0 ? null : out;
}

/** More parameters than this are no small model: Sigma is formed at every step. */
const MAX_FACTOR = 500;

function readNoise(
  where: string,
  model: Model,
  options: SimulateOptions<unknown, unknown>,
): Setting["noise"] {
  const noise = checkWord(where, "noise", orDefault(options.noise, "weights"), ["weights", "factor"]);
  if (noise === "weights") return noise;
  if (options.normals !== undefined)
    fail("unsupported", where, 'explicit normals are those of noise: "weights"', '"factor"');
  const P = model.blocks.reduce((n, b) => (b.trainable ? n + b.size : n), 0);
  if (P > MAX_FACTOR)
    fail(
      "memory",
      where,
      `noise: "factor" takes at most ${MAX_FACTOR} parameters`,
      `${P}`,
      'Use noise: "weights".',
    );
  return noise;
}

function checkPositive(where: string, what: string, value: unknown): number {
  const number = checkNumber(where, what, value, 0);
  if (number === 0) fail("range", where, `${what} must be above 0`, "0");
  return number;
}

function below1(where: string, what: string, value: number): number {
  if (value >= 1) fail("range", where, `${what} must be in [0, 1)`, show(value));
  return value;
}

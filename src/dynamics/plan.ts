import type { Key } from "../core/key.ts";
import { PURPOSE } from "../core/key.ts";
import { fail, internal, show } from "../errors.ts";
import { gradient, meanOver } from "../graph/derive.ts";
import { type Lanes, Planner, paddedLanes, type Real } from "../graph/layout.ts";
import { type Effect, lower } from "../graph/lower.ts";
import type { Block, Model } from "../graph/model.ts";
import { type Node, reachable, sizeOf, VARIES_WITH_SAMPLE } from "../graph/node.ts";
import { norm } from "../graph/ops.ts";
import { type Draws, placePass, RUN_BYTES } from "../graph/program.ts";
import type { Samples } from "../models/samples.ts";
import type { Setting } from "./options.ts";

/** One recorded quantity: `entries` values per record and replica. */
export interface Series {
  readonly kind: "loss" | "blockNorms" | "charges" | "matrixCharges" | "work" | "values";
  readonly name: string;
  readonly entries: number;
  readonly node: Node | null;
}

/** What is measured along a run, as expressions. */
export interface Measures {
  readonly loss: "full" | "batch" | null;
  readonly blockNorms: boolean;
  /** Charges of the parameters. */
  readonly charges: ReadonlyMap<string, Node>;
  /** 1/2 g^T A g of a step's gradient, by charge name; null when no work is recorded. */
  readonly work: ((gradient: (block: string) => Node | null) => ReadonlyMap<string, Node>) | null;
  /** Matrix charges Q of products, h x h each. */
  readonly matrixCharges: ReadonlyMap<string, Node>;
  readonly values: ReadonlyMap<string, Node>;
  /** Averages over time of everything but loss and work. */
  readonly average: { readonly from: number; readonly every: number } | null;
}

/** Where the lanes go: `groups` of `groupLanes` replicas each, walked one group after the other. */
export interface LaneChoice {
  readonly lanes: Lanes;
  readonly groups: number;
  readonly groupLanes: number;
  readonly block: number;
}

/** Largest trace kept in Wasm between two calls. */
const TRACE_BYTES = 4 * 1024 * 1024;
const WINDOW_BYTES = 8 * 1024;
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
  const loss = samples.lossIn(S);
  const widest = Math.max(...model.blocks.flatMap((b) => [...b.shape, 1]));
  const lanes =
    lowering.lanes ?? (replicas >= 4 && (widest <= 8 || S < 4) ? "replicas" : S < 4 ? "features" : "samples");
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
function haveSameRates(choice: LaneChoice, setting: Setting, ld: number): boolean {
  const { eta, weightDecay, replicas, onDiverge } = setting;
  return (
    onDiverge !== "stopReplica" &&
    choice.groups * choice.groupLanes === replicas &&
    (ld === 1 || ld === choice.groupLanes) &&
    eta.every((e) => e === eta[0]) &&
    weightDecay.every((g) => g === weightDecay[0])
  );
}

/** Addresses and code of a whole run. */
export type RunPlan = ReturnType<typeof planRun>;

/**
 * Lays out a run from a base address: state of a group (rates, theta, work), saved states, trace,
 * window of draws, constants, and the code of the step, the probes and the minibatch loss.
 */
export function planRun(
  model: Model,
  samples: Samples,
  setting: Setting,
  measures: Measures,
  real: Real,
  base: number,
) {
  const choice = chooseLanes(model, samples, setting, real);
  const ld = choice.lanes === "replicas" ? paddedLanes(real, choice.groupLanes) : 1;
  const { scheme, S } = setting;
  const planner = new Planner(base);
  const run = planner.take(RUN_BYTES);
  const lossRun = planner.take(RUN_BYTES);
  const values = (n: number) => planner.take((n + real.perRegister) * real.bytes);

  // the state of one group of replicas
  const state = planner.take(64);
  const eta = values(ld);
  const decay = values(ld);
  const thetaStart = planner.mark();
  const theta: { block: Block; node: Node; address: number }[] = model.blocks.map((block) => ({
    block,
    node: model.leaf(block.name),
    address: values(block.size * ld),
  }));
  const thetaEnd = planner.mark();
  const series: Series[] = [];
  if (measures.loss !== null) series.push({ kind: "loss", name: "loss", entries: 1, node: null });
  if (measures.blockNorms) {
    for (const { block, node } of theta)
      series.push({ kind: "blockNorms", name: block.name, entries: 1, node: norm(node) });
  }
  for (const [name, node] of measures.charges) series.push({ kind: "charges", name, entries: 1, node });
  for (const [name, node] of measures.matrixCharges)
    series.push({ kind: "matrixCharges", name, entries: sizeOf(node.shape), node });
  if (measures.work !== null)
    for (const name of measures.charges.keys()) series.push({ kind: "work", name, entries: 1, node: null });
  for (const [name, node] of measures.values)
    series.push({ kind: "values", name, entries: sizeOf(node.shape), node });
  const workAt = new Map<string, number>();
  for (const s of series)
    if (s.kind === "work") workAt.set(s.name, planner.take(8 * Math.max(ld, choice.groupLanes)));
  const averaged =
    measures.average === null ? [] : series.filter((s) => s.kind !== "loss" && s.kind !== "work");
  const averages = averaged.map((s) => ({
    series: s,
    address: planner.take(8 * s.entries * choice.groupLanes),
  }));
  const stateBytes = Math.ceil((planner.mark() - state) / 64) * 64;
  planner.take(64);

  const saved = choice.groups > 1 ? planner.take(choice.groups * stateBytes) : state;
  const snapshot = planner.take(choice.groups * stateBytes);

  const entries = series.reduce((n, s) => n + s.entries, 0);
  const recordBytes = 8 * entries * choice.groupLanes;
  const total = setting.every === 0 ? 0 : Math.floor(setting.steps / setting.every) + 1;
  const traceRecords =
    recordBytes === 0
      ? 1
      : Math.max(1, Math.min(total, Math.floor(TRACE_BYTES / (recordBytes * choice.groups))));
  const trace = planner.take(recordBytes * choice.groups * traceRecords);
  const lossTrace = planner.take(8 * choice.groupLanes * choice.groups);

  // the batch of a step
  const byReplica = choice.lanes === "replicas";
  const shared = scheme.visits === "all" || setting.batches !== null;
  const drawLanes = byReplica ? choice.groupLanes : 1;
  let windowSteps = 0;
  let window = 0;
  let batches = 0;
  let distinct = 0;
  let draws: Draws = { kind: "none" };
  if (scheme.visits === "all") draws = samples.allDraws;
  else if (setting.batches !== null) {
    batches = planner.take(4 * setting.batches.length);
    draws = { kind: "table", table: batches };
  } else if (!samples.isFresh) {
    windowSteps = Math.max(1, Math.min(256, Math.floor(WINDOW_BYTES / (4 * S * drawLanes))));
    window = planner.take(4 * ((windowSteps + 1) * S + 8) * drawLanes);
    draws = { kind: "window", strideBytes: 4 * drawLanes };
    if (setting.sampling === "without") distinct = planner.take(4 * samples.N);
  }

  const constants = new Map<number, Node>();
  const constant = (node: Node, address: number) => void constants.set(address, node);
  const shape = {
    real,
    lanes: choice.lanes,
    replicas: choice.groupLanes,
    block: choice.block,
    fuse: setting.lowering.fuse ?? true,
    decays: setting.weightDecay.some((g) => g !== 0),
    sameRates: haveSameRates(choice, setting, ld),
    params: new Map(theta.map((t) => [t.node, t.address])),
    constant,
    planner,
  };

  // the step: gradient of sum_i w_i ell_i, the work it does, the update
  const trainable = theta.filter((t) => t.block.trainable);
  const gradients = gradient(
    samples.lossIn(S),
    trainable.map((t) => t.node),
    model.graph.number(scheme.weight(S)),
    S,
  );
  const stepEffects: Effect[] = [];
  const gradientOf = (name: string) => gradients[trainable.findIndex((t) => t.block.name === name)] ?? null;
  for (const [name, node] of measures.work?.(gradientOf) ?? []) {
    stepEffects.push({
      kind: "work",
      value: node,
      address: workAt.get(name) ?? internal("plan", "work without room"),
      eta,
    });
  }
  for (const [i, t] of trainable.entries()) {
    if (gradients[i] === null && !shape.decays) continue;
    stepEffects.push({
      kind: "update",
      block: t.node,
      gradient: gradients[i]!,
      eta,
      decay,
    });
  }
  const stepPass = placePass(
    planner,
    lower(stepEffects, { ...shape, source: samples.source(S, shared) }),
    draws,
  );

  // mean loss of the batch the next step uses: recorded, or asked for when a run diverges
  const lossEffects: Effect[] = [{ kind: "record", value: meanOver(samples.lossIn(S), S), slot: 0 }];
  const lossPass = placePass(
    planner,
    lower(lossEffects, { ...shape, source: samples.source(S, shared) }),
    draws,
  );

  const averageEffects = averages.map(
    ({ series: s, address }): Effect => ({ kind: "average", value: s.node!, address }),
  );
  const averagePass = placePass(
    planner,
    lower(averageEffects, { ...shape, source: samples.source(0, true) }),
    {
      kind: "none",
    },
  );

  let slot = 0;
  const probeEffects: Effect[] = [];
  const whole = measures.loss === "full";
  const count = whole ? samples.N : S;
  for (const s of series) {
    if (s.kind === "work") probeEffects.push({ kind: "recordWork", address: workAt.get(s.name)!, slot });
    else
      probeEffects.push({
        kind: "record",
        value: s.kind === "loss" ? meanOver(samples.lossIn(count), count) : s.node!,
        slot,
      });
    slot += s.entries * choice.groupLanes;
  }
  const needsSamples = measures.loss !== null;
  const probeSource = needsSamples ? samples.source(count, whole || shared) : samples.source(0, true);
  const probeDraws = !needsSamples ? ({ kind: "none" } as const) : whole ? samples.allDraws : draws;
  const probePass = placePass(planner, lower(probeEffects, { ...shape, source: probeSource }), probeDraws);

  return {
    bytes: planner.end - base,
    choice,
    ld,
    run,
    lossRun,
    state,
    stateBytes,
    saved,
    snapshot,
    eta,
    decay,
    theta,
    thetaStart,
    thetaValues: (thetaEnd - thetaStart) / real.bytes,
    series,
    averages,
    average: measures.average,
    averagePass,
    entries,
    recordBytes,
    traceRecords,
    trace,
    lossTrace,
    windowSteps,
    window,
    drawLanes,
    batches,
    distinct,
    constants,
    stepPass,
    lossPass,
    probePass,
  };
}

/** Fields of the control block of a run. */
export function controlOf(plan: RunPlan, setting: Setting, samples: Samples, key: Key) {
  return {
    STEP_PASS: plan.stepPass.address,
    PROBE_PASS: plan.probePass.address,
    AVERAGE_PASS: plan.averagePass.address,
    AVERAGE_FROM: plan.average?.from ?? 0,
    AVERAGE_EVERY: plan.average?.every ?? 0,
    KEY0: key.key0,
    KEY1: key.key1,
    FRESH_PURPOSE: PURPOSE.fresh,
    DRAW_PURPOSE: PURPOSE.batch,
    FIRST_REPLICA: setting.firstReplica,
    GROUP_LANES: plan.choice.groupLanes,
    GROUPS: plan.choice.groups,
    STATE: plan.state,
    STATE_BYTES: plan.stateBytes,
    SAVED: plan.saved,
    THETA: plan.thetaStart,
    THETA_VALUES: plan.thetaValues,
    EVERY: setting.every,
    TRACE: plan.trace,
    TRACE_RECORD: plan.recordBytes,
    TRACE_GROUP: plan.recordBytes * plan.traceRecords,
    WINDOW: plan.window,
    WINDOW_STEPS: plan.windowSteps,
    BATCH_SIZE: setting.S,
    DRAW_LANES: plan.drawLanes,
    BELOW: samples.N === Infinity ? 0 : samples.N,
    RECORD_BYTES: samples.recordBytes,
    DISTINCT: plan.distinct,
  };
}

import type { Key } from "../core/key.ts";
import { PURPOSE } from "../core/key.ts";
import { fail, internal } from "../errors.ts";
import { meanOver } from "../graph/derive.ts";
import { rateFields } from "../graph/instructions.ts";
import { Planner, paddedLanes, type Real } from "../graph/layout.ts";
import { type Effect, type Instruction, lower } from "../graph/lower.ts";
import type { Block, Model } from "../graph/model.ts";
import { type Node, sizeOf } from "../graph/node.ts";
import { type Draws, placePass, RUN_BYTES } from "../graph/program.ts";
import { type FeedPlan, planFeed } from "../models/feed.ts";
import type { Samples } from "../models/samples.ts";
import { draftUpdate, type Measures, seriesOf } from "./draft.ts";
import { chooseLanes, haveSameRates } from "./lanes.ts";
import type { Setting } from "./options.ts";
import type { PassDraft, Visit } from "./update.ts";
import { planWindow, type WindowPlan } from "./window.ts";

/** Largest trace kept in Wasm between two calls. */
const TRACE_BYTES = 4 * 1024 * 1024;
/** More recorded numbers than this do not fit in one array of a host. */
export const MAX_RECORDED = 268_435_456;

/** Refuses series no array holds; the steps themselves count even where nothing else is recorded. */
function checkRecorded(records: number, replicas: number, entries: number): void {
  if (records * replicas * Math.max(1, entries) <= MAX_RECORDED) return;
  fail(
    "memory",
    "record",
    `at most ${MAX_RECORDED} numbers can be recorded`,
    `${records} records x ${replicas} replicas x ${entries} entries`,
    "Record less often (a larger record.every), or run fewer replicas.",
  );
}

/** Addresses and code of a whole run. */
export type RunPlan = ReturnType<typeof planRun>;

/**
 * Lays out a run from a base address: state of a group (rates, theta, what lives from update to update, work), saved states,
 * trace, windows of draws, constants, and the code of the update, the probes and the minibatch loss.
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
  const { scheme, S, substeps } = setting;
  const { build, direction, work, modifiedCharges } = draftUpdate(model, samples, setting, measures);
  const { trainable } = build;
  const planner = new Planner(base);
  const run = planner.take(RUN_BYTES);
  const lossRun = planner.take(RUN_BYTES);
  const rates = planner.take(4 * rateFields.length);
  const rateNumbers = planner.take(8 * 6);
  const passTable = planner.take(4 * build.passes.length);
  const streams = setting.streams === null ? 0 : planner.take(4 * (choice.groups * choice.groupLanes + 8));
  const etaTable = setting.schedule?.table == null ? 0 : planner.take(8 * setting.schedule.table.length);
  const values = (n: number) => planner.take((n + real.perRegister) * real.bytes);
  const doubles = (n: number) => planner.take(8 * n);

  // the state of one group of replicas
  const state = planner.take(64);
  const etaBase = doubles(ld);
  const dtBase = setting.dt === null ? 0 : doubles(ld);
  const sigma2 = setting.sigma2 === null ? 0 : doubles(ld);
  const gammas = doubles(ld * trainable.length);
  const eta = values(ld);
  const dt = values(ld);
  const keepBytes = Math.ceil(((ld + real.perRegister) * real.bytes) / 64) * 64;
  const keep = planner.take(keepBytes * trainable.length);
  const noise = build.passes.some((p) => p.weighs || p.factors) ? values(ld) : 0;
  const judges = build.passes.some((p) => p.judges);
  const varies = setting.schedule !== null || judges;
  const time = varies ? doubles(Math.max(ld, choice.groupLanes)) : 0;
  const left = judges ? doubles(ld) : 0;
  const next = judges ? doubles(ld) : 0;
  const thetaStart = planner.mark();
  const theta: { block: Block; node: Node; address: number }[] = model.blocks.map((block) => ({
    block,
    node: model.leaf(block.name),
    address: values(block.size * ld),
  }));
  const thetaEnd = planner.mark();
  const numbers = [...build.numbers].map(([name, { node, start }]) => ({
    name,
    node,
    start,
    address: values(ld),
  }));
  const vectors = new Map(
    [...build.vectors].map(([name, leaves]) => [
      name,
      leaves.map((leaf) => ({ leaf, address: values(sizeOf(leaf.shape) * ld) })),
    ]),
  );
  const series = seriesOf(measures, theta, modifiedCharges, varies);
  const workAt = new Map<string, number>();
  for (const s of series)
    if (s.kind === "work") workAt.set(s.name, planner.take(8 * Math.max(ld, choice.groupLanes)));
  const averaged =
    measures.average === null ? [] : series.filter((s) => s.node !== null && s.kind !== "modifiedCharges");
  const averages = averaged.map((s) => ({
    series: s,
    address: planner.take(8 * s.entries * choice.groupLanes),
  }));
  const stateBytes = Math.ceil((planner.mark() - state) / 64) * 64;
  planner.take(64);

  const saved = choice.groups > 1 ? planner.take(choice.groups * stateBytes) : state;
  const snapshot = planner.take(choice.groups * stateBytes);

  const entries = series.reduce((n, s) => n + s.entries, 0);
  checkRecorded(recordsOf(setting), setting.replicas, entries);
  const recordBytes = 8 * entries * choice.groupLanes;
  const total = recordsOf(setting);
  const traceRecords =
    recordBytes === 0
      ? 2_147_483_648
      : Math.max(1, Math.min(total, Math.floor(TRACE_BYTES / (recordBytes * choice.groups))));
  const trace = planner.take(recordBytes * choice.groups * traceRecords);
  const lossTrace = planner.take(8 * choice.groupLanes * choice.groups);

  // the batches of an update
  const byReplica = choice.lanes === "replicas";
  const drawLanes = byReplica ? choice.groupLanes : 1;
  const batches = setting.batches === null ? 0 : planner.take(4 * setting.batches.length);
  const windows: WindowPlan[] = [];
  const { reader } = samples;
  const block = choice.lanes === "samples" ? choice.block : drawLanes;
  let inOrder: FeedPlan | null = null;
  let fromTable: FeedPlan | null = null;
  /** How a pass finds its samples, and where their records are. */
  const walkOver = (visits: Visit): { draws: Draws; data: number | undefined } => {
    const fed = (draws: Exclude<Draws, { kind: "none" }>, feed: FeedPlan | null) =>
      feed === null
        ? { draws, data: undefined }
        : { draws: { ...draws, feed: feed.address }, data: feed.data };
    if (visits === "none") return { draws: { kind: "none" }, data: undefined };
    if (visits === "all") {
      if (reader === null) return { draws: samples.allDraws, data: undefined };
      if (samples.coupled)
        fail(
          "unsupported",
          scheme.name,
          "a loss with batch ops needs all samples of a pass in memory at once",
          "all of data that a function reads",
          "Use minibatches, or give the data as arrays.",
        );
      const sizes = { block, most: samples.N, end: 4 * samples.N };
      inOrder ??= planFeed(planner, reader, real, samples.recordBytes, "inOrder", sizes);
      return fed({ kind: "all", table: 0 }, inOrder);
    }
    const number = visits === "batch" ? 0 : 1;
    if (batches !== 0) {
      const given = setting.batches!.length;
      const sizes = { block, most: given, end: batches + 4 * given };
      if (reader !== null) fromTable ??= planFeed(planner, reader, real, samples.recordBytes, "drawn", sizes);
      const table = batches + 4 * S * number;
      return fed({ kind: "table", table, rowBytes: 4 * S * scheme.batches }, fromTable);
    }
    if (samples.isFresh) return { draws: { kind: "none" }, data: undefined };
    windows[number] ??= planWindow(planner, samples, setting, drawLanes, number, block, real);
    const window = windows[number];
    return fed({ kind: "window", window: window.address, strideBytes: 4 * drawLanes }, window.feed);
  };
  const sharedIn = (visits: Visit) => visits === "all" || visits === "none" || setting.batches !== null;
  const weights = noise === 0 ? 0 : values((samples.N + 1) * ld);
  const normals = setting.normals === null ? 0 : values(setting.normals.length);

  const constants = new Map<number, Node>();
  const constant = (node: Node, address: number) => void constants.set(address, node);
  const decays = setting.gammas.some((g) => g.some((x) => x !== 0));
  const parameters = new Map(theta.map((t) => [t.node, t.address]));
  for (const [i, leaf] of build.theta.entries())
    parameters.set(leaf, theta.find((t) => t.block === trainable[i])!.address);
  for (const { node, address } of numbers) parameters.set(node, address);
  for (const list of vectors.values()) for (const { leaf, address } of list) parameters.set(leaf, address);
  parameters.set(build.eta, eta);
  parameters.set(build.dt, dt);
  parameters.set(build.keepRate, keep);
  parameters.set(model.graph.param("~c", []), noise);
  const size = trainable.reduce((n, b) => n + b.size, 0);
  const factor = build.passes.some((p) => p.factors)
    ? {
        g: values(samples.N * size),
        mean: values(size),
        sigma: values(size * size),
        normals: values(size),
        dst: values(size),
      }
    : null;
  const shape = {
    real,
    lanes: choice.lanes,
    replicas: choice.groupLanes,
    block: choice.block,
    fuse: setting.lowering.fuse ?? true,
    decays,
    sameRates: haveSameRates(choice, setting, ld),
    params: parameters,
    constant,
    planner,
  };
  let before = 0;
  const offsets = trainable.map((b) => {
    before += b.size;
    return { n: b.size, offset: before - b.size };
  });
  const numberAt = (name: string) =>
    numbers.find((n) => n.name === name)?.address ?? internal("plan", `no ${name}`);

  // the passes of an update; the last one also moves theta
  for (const [name, value] of work)
    build.pass.effects.push({ kind: "work", value, address: workAt.get(name)!, eta: dt });
  if (direction !== null) {
    for (const [i, block] of trainable.entries()) {
      const gradient = direction[i]!;
      if (gradient === null && !decays) continue;
      const decay = keep + i * keepBytes;
      build.pass.effects.push({ kind: "update", block: model.leaf(block.name), gradient, eta: dt, decay });
    }
  }
  const lowerPass = (draft: PassDraft) => {
    const count = draft.visits === "all" ? samples.N : draft.visits === "none" ? 0 : S;
    const stand = draft.at === null ? null : vectors.get(draft.at)!;
    const params = stand === null ? parameters : new Map(parameters);
    for (const [i, block] of trainable.entries())
      if (stand !== null) params.set(model.leaf(block.name), stand[i]!.address);
    const opening: Instruction[] = [];
    if (draft.weighs) {
      const sizes = { dst: weights, count, lanes: choice.groupLanes, ld };
      opening.push({
        name: "sampleWeights",
        values: { ...sizes, noise, purpose: PURPOSE.xi, table: normals },
      });
    }
    const closing: Instruction[] = [];
    if (draft.judges) {
      const [error, h, accept] = ["error", "h", "accept"].map(numberAt) as [number, number, number];
      closing.push({ name: "adaptStep", values: { error, count: size, h, next, left, accept, lanes: ld } });
      for (const [i, block] of trainable.entries()) {
        const y = vectors.get("y")![i]!.address;
        const to = parameters.get(model.leaf(block.name))!;
        closing.push({ name: "acceptStep", values: { theta: to, y, accept, elements: block.size, ld } });
      }
    }
    const effects = [...draft.effects];
    if (draft.factors && factor !== null) {
      for (const [i, value] of build.each().entries()) {
        const { offset } = offsets[i]!;
        if (value !== null)
          effects.push({ kind: "storeSamples", value, address: factor.g, stride: size, offset });
      }
      const blocks = offsets.map(({ offset, n }, i) => ({
        n,
        at: offset * real.bytes,
        mean: vectors.get("mean")![i]!.address,
        noise: vectors.get("noise")![i]!.address,
      }));
      for (const { n, at, mean } of blocks)
        closing.push({ name: "copy", values: { dst: factor.mean + at, a: mean, n } });
      closing.push({ name: "factorNoise", values: { ...factor, count, p: size, purpose: PURPOSE.factor } });
      for (const { n, at, noise: to } of blocks)
        closing.push({ name: "copy", values: { dst: to, a: factor.dst + at, n } });
    }
    const { draws, data } = walkOver(draft.visits);
    const source = samples.source(count, sharedIn(draft.visits), setting.labelNoise, data);
    const pass = lower(effects, { ...shape, params, weights, opening, closing, source });
    const purpose = draft.visits === "second" ? PURPOSE.freshSecond : PURPOSE.fresh;
    return placePass(planner, pass, draws, purpose);
  };
  const passes = build.passes.map(lowerPass);

  // mean loss of the batch the next step uses: recorded, or asked for when a run diverges
  const first = build.passes[0]?.visits ?? "all";
  const lossOfBatch = meanOver(samples.lossIn(S, setting.labelNoise), S);
  const firstWalk = walkOver(first);
  const batchSource = samples.source(S, sharedIn(first), setting.labelNoise, firstWalk.data);
  const lossPass = placePass(
    planner,
    lower([{ kind: "record", value: lossOfBatch, slot: 0 }], { ...shape, source: batchSource }),
    firstWalk.draws,
    PURPOSE.fresh,
  );

  const averageEffects = averages.map(
    ({ series: s, address }): Effect => ({ kind: "average", value: s.node!, address }),
  );
  const averagePass = placePass(
    planner,
    lower(averageEffects, { ...shape, source: samples.source(0, true) }),
    { kind: "none" },
    PURPOSE.fresh,
  );

  let slot = 0;
  const probeEffects: Effect[] = [];
  const whole = measures.loss === "full";
  for (const s of series) {
    if (s.kind === "work") probeEffects.push({ kind: "recordWork", address: workAt.get(s.name)!, slot });
    else if (s.kind === "t") probeEffects.push({ kind: "recordWork", address: time, slot });
    else {
      const loss = whole ? meanOver(samples.lossIn(samples.N), samples.N) : lossOfBatch;
      probeEffects.push({ kind: "record", value: s.kind === "loss" ? loss : s.node!, slot });
    }
    slot += s.entries * choice.groupLanes;
  }
  const probeWalk = walkOver(measures.loss === null ? "none" : whole ? "all" : first);
  const probeSource =
    measures.loss === null
      ? samples.source(0, true)
      : whole
        ? samples.source(samples.N, true, null, probeWalk.data)
        : batchSource;
  const probePass = placePass(
    planner,
    lower(probeEffects, { ...shape, source: probeSource }),
    probeWalk.draws,
    PURPOSE.fresh,
  );

  const walks = [inOrder, fromTable] as (FeedPlan | null)[];
  const feeds = [...walks, ...windows.map((w) => w.feed)].filter((f) => f !== null);
  const size64 = (n: number) => Math.ceil(n / 64) * 64;
  const perSample = [weights && (samples.N + 1) * ld, setting.normals?.length ?? 0];
  const factors = factor === null ? 0 : samples.N * size;
  const parts = {
    state: (choice.groups > 1 ? 1 + 2 * choice.groups : 2) * stateBytes,
    samples:
      windows.reduce((n, w) => n + w.bytes, 0) +
      walks.reduce((n, f) => n + (f?.bytes ?? 0), 0) +
      [...perSample, factors].reduce((n, count) => n + size64(count * real.bytes), 0) +
      size64(4 * (setting.batches?.length ?? 0)),
    trace: size64(recordBytes * choice.groups * traceRecords),
  };

  return {
    bytes: planner.end - base,
    /** Parts of it; what is left holds values of a block, gradients and the program. */
    parts,
    choice,
    ld,
    run,
    lossRun,
    state,
    stateBytes,
    saved,
    snapshot,
    rates: {
      address: rates,
      numbersAt: rateNumbers,
      varies,
      etaBase,
      dtBase,
      sigma2,
      gammas,
      etaTable,
      fields: {
        LANES: ld,
        ETA_BASE: etaBase,
        DT_BASE: dtBase,
        GAMMAS: gammas,
        SIGMA2: sigma2,
        ETA: eta,
        DT: dt,
        KEEP: keep,
        DECAYS: trainable.length,
        DECAY_BYTES: keepBytes,
        NOISE: noise,
        TIME: time,
        LEFT: left,
        H: judges ? numberAt("h") : 0,
        NEXT: next,
        SCHEDULE: setting.schedule?.kind ?? 0,
        WARMUP: setting.schedule?.warmup ?? 0,
        ETA_TABLE: etaTable,
        NUMBERS: rateNumbers,
      },
      numbers: [
        setting.schedule?.period ?? 1,
        setting.schedule?.number ?? 0,
        updatesPerEta(setting),
        2 * (setting.noiseOf?.effectiveS ?? 1),
        samples.N,
        // a step of the flow takes as many updates as it needs, and eta in all
        judges ? 1 : substeps,
      ],
    },
    left,
    numbers,
    vectors,
    trainable,
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
    streams,
    windows,
    feeds,
    batches,
    normals,
    constants,
    passTable,
    passes,
    lossPass,
    probePass,
  };
}

/** The start, and every `every` steps. */
export const recordsOf = ({ every, steps }: Setting): number =>
  every === 0 ? 0 : Math.floor(steps / every) + 1;

/** eta / dt where dt follows from eta. */
export function updatesPerEta({ scheme, l, substeps }: Setting): number {
  return scheme.name === "svag" ? l : substeps;
}

/** Fields of the control block of a run. */
export function controlOf(plan: RunPlan, setting: Setting, key: Key) {
  return {
    PASSES: plan.passTable,
    PASS_COUNT: plan.passes.length,
    UPDATES: setting.substeps,
    UNTIL: plan.left,
    PROBE_PASS: plan.probePass.address,
    AVERAGE_PASS: plan.averagePass.address,
    AVERAGE_FROM: plan.average?.from ?? 0,
    AVERAGE_EVERY: plan.average?.every ?? 0,
    RATES: plan.rates.address,
    RATES_VARY: plan.rates.varies ? 1 : 0,
    KEY0: key.key0,
    KEY1: key.key1,
    FIRST_REPLICA: setting.firstReplica,
    STREAMS: plan.streams,
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
    DRAWS_A: plan.windows[0]?.address ?? 0,
    DRAWS_B: plan.windows[1]?.address ?? 0,
  };
}

import type { RealArray, Region } from "../core/arena.ts";
import { hashArrays, hashText } from "../core/hash.ts";
import { keyOf, STREAM_VERSION } from "../core/key.ts";
import { fail, internal } from "../errors.ts";
import { drawFields, rateFields } from "../graph/instructions.ts";
import type { Model } from "../graph/model.ts";
import { sizeOf } from "../graph/node.ts";
import { printExpressions } from "../graph/print.ts";
import { installPass, setRun, writeConstants, writeFields, writeRun } from "../graph/program.ts";
import type { Host } from "../models/evaluate.ts";
import type { Samples } from "../models/samples.ts";
import { VERSION } from "../version.ts";
import type { Core } from "../wasm/module.ts";
import { type CheckpointHeader, packCheckpoint, unpackCheckpoint } from "./checkpoint.ts";
import type { Measures } from "./draft.ts";
import type { Setting } from "./options.ts";
import { controlOf, planRun, type RunPlan, updatesPerEta } from "./plan.ts";
import { profileStep } from "./profile.ts";
import {
  type Divergence,
  Run,
  type RunAverages,
  type RunRecord,
  type RunSettings,
  type SeriesData,
} from "./result.ts";
import type { SchemeOption } from "./scheme.ts";

/** How long one call into Wasm should last. */
const CHUNK_MS = 10;
/** What `advance` returns when its blocks are used up before the chunk. */
const PAUSED = -2_147_483_648;
/** A budget no call uses up. */
const ALL_BLOCKS = 4_294_967_295;
/** More recorded numbers than this do not fit in one array of a host. */
const MAX_RECORDED = 268_435_456;

/** Refuses series no array holds; the steps themselves count even where nothing else is recorded. */
function checkRecorded(records: number, replicas: number, entries: number): void {
  if (records * replicas * Math.max(1, entries) <= MAX_RECORDED) return;
  fail(
    "memory",
    "record",
    `at most ${MAX_RECORDED} numbers can be recorded`,
    `${records} records x ${replicas} replicas x ${entries} entries`,
    "Record less often (a larger record.every).",
  );
}

/**
 * A run under way: its region of Wasm memory, how far it is, and what it has recorded. It advances by chunks of steps, and
 * a chunk by slices of about 10 ms; between slices other runs may use the engine.
 */
export class Execution {
  readonly #host: Host;
  readonly #model: Model;
  readonly #setting: Setting;
  readonly #plan: RunPlan;
  readonly #region: Region;
  /** Collected series, [record][replica][entry] each, growing by chunk. */
  readonly #data: Float64Array[];
  readonly #k: Float64Array;
  #records = 0;
  #step = 0;
  /** Final theta of replicas that diverged while others go on. */
  readonly #frozen = new Map<number, RealArray>();
  #diverged: Divergence[] = [];
  /** Steps and blocks of samples that fill a slice, as measured so far. */
  #size: number;
  #blocks: number;
  /** The chunk under way. */
  #open: { readonly first: number; readonly count: number; readonly probeNow: boolean } | null = null;
  #isOver = false;
  /** What probes of the host found: numbers of all replicas, step after step. */
  readonly #probes = new Map<string, number[]>();
  #probed = 0;
  readonly #probeEvery: number;
  readonly #samples: Samples;

  constructor(
    host: Host,
    model: Model,
    samples: Samples,
    setting: Setting,
    measures: Measures,
    probeEvery = 0,
  ) {
    this.#probeEvery = probeEvery;
    this.#host = host;
    this.#model = model;
    this.#samples = samples;
    this.#setting = setting;
    this.#size = setting.lowering.chunk ?? 1;
    this.#blocks = setting.lowering.chunk === undefined ? 1 : ALL_BLOCKS;
    const { arena, core } = host;
    const where = setting.scheme.name;
    const key = keyOf(where, setting.seed);
    const total = setting.every === 0 ? 0 : Math.floor(setting.steps / setting.every) + 1;
    const { region, plan } = arena.reserve(where, (base) => {
      const made = planRun(model, samples, setting, measures, core.real, base);
      checkRecorded(total, setting.replicas, made.entries);
      return made;
    });
    this.#region = region;
    this.#plan = plan;
    this.#k = new Float64Array(total);
    this.#data = plan.series.map((s) => new Float64Array(total * setting.replicas * s.entries));

    arena.clear(region);
    writeConstants(arena, plan.constants);
    const fields = controlOf(plan, setting, key);
    writeRun(arena, plan.run, fields);
    writeRun(arena, plan.lossRun, {
      ...fields,
      // it moves nothing, its rates included
      RATES: 0,
      RATES_VARY: 0,
      PROBE_PASS: plan.lossPass.address,
      EVERY: 0,
      AVERAGE_EVERY: 0,
      TRACE: plan.lossTrace,
      TRACE_RECORD: 8 * plan.choice.groupLanes,
      TRACE_GROUP: 8 * plan.choice.groupLanes,
    });
    for (const placed of [...plan.passes, plan.lossPass, plan.probePass, plan.averagePass]) {
      const { setup, setupEnd } = installPass(arena, placed);
      core.exports.execute(setup, setupEnd);
    }
    this.#writeTables(samples);
    this.#writeStates();
  }

  /** What a run reads and never changes: passes, rates, draws given or to be made. */
  #writeTables(samples: Samples): void {
    const { arena } = this.#host;
    const plan = this.#plan;
    const setting = this.#setting;
    arena.words(plan.passTable, plan.passes.length).set(plan.passes.map((p) => p.address));
    writeFields(arena, plan.rates.address, rateFields, plan.rates.fields);
    arena.doubles(plan.rates.numbersAt, plan.rates.numbers.length).set(plan.rates.numbers);
    const eta = setting.schedule?.table;
    if (eta != null) arena.doubles(plan.rates.etaTable, eta.length).set(eta);
    if (setting.streams !== null) {
      // lanes beyond the replicas draw what the last one does
      const lanes = arena.words(plan.streams, plan.choice.groups * plan.choice.groupLanes + 8);
      for (let l = 0; l < lanes.length; l++) lanes[l] = setting.streams[Math.min(l, setting.replicas - 1)]!;
    }
    if (setting.batches !== null) {
      const table = arena.words(plan.batches, setting.batches.length);
      for (const [i, n] of setting.batches.entries()) table[i] = n * samples.recordBytes;
    }
    if (setting.normals !== null) arena.reals(plan.normals, setting.normals.length).set(setting.normals);
    for (const { address, fields, distinct } of plan.windows) {
      writeFields(arena, address, drawFields, fields);
      if (distinct === 0) continue;
      const table = arena.words(distinct, samples.N);
      for (let n = 0; n < samples.N; n++) table[n] = n;
    }
  }

  /** Address of the saved state of the group of a replica, and the replica's lane in it. */
  #locate(replica: number): { shift: number; lane: number } {
    const { groupLanes, groups } = this.#plan.choice;
    const group = Math.floor(replica / groupLanes);
    const { saved, state, stateBytes } = this.#plan;
    return { shift: groups > 1 ? saved + group * stateBytes - state : 0, lane: replica % groupLanes };
  }

  /** The states of all replicas at the start. */
  #writeStates(): void {
    const { arena } = this.#host;
    const plan = this.#plan;
    const setting = this.#setting;
    const { groups, groupLanes } = plan.choice;
    new Uint8Array(arena.buffer, plan.saved, groups * plan.stateBytes).fill(0);
    for (let slot = 0; slot < groups * plan.ld; slot++) {
      const group = Math.floor(slot / plan.ld);
      const lane = slot % plan.ld;
      const replica = Math.min(group * groupLanes + Math.min(lane, groupLanes - 1), setting.replicas - 1);
      // lanes beyond the replicas repeat the last one and stand still, so that they stay finite
      const isReplica = lane < groupLanes && group * groupLanes + lane < setting.replicas;
      const shift = groups > 1 ? plan.saved + group * plan.stateBytes - plan.state : 0;
      this.#startLane(shift, lane, replica, isReplica);
    }
  }

  /** One lane at the start of its replica; a lane that does not move has eta 0. */
  #startLane(shift: number, lane: number, replica: number, moves: boolean): void {
    const { arena } = this.#host;
    const plan = this.#plan;
    const setting = this.#setting;
    const { etaBase, dtBase, sigma2, gammas } = plan.rates;
    const setDouble = (address: number, at: number, value: number) => {
      if (address !== 0) arena.doubles(address + shift, at + 1)[at] = value;
    };
    setDouble(etaBase, lane, moves ? setting.eta[replica]! : 0);
    setDouble(dtBase, lane, moves && setting.dt !== null ? setting.dt[replica]! : 0);
    setDouble(sigma2, lane, setting.sigma2?.[replica] ?? 0);
    for (const [i, gamma] of setting.gammas.entries()) setDouble(gammas, i * plan.ld + lane, gamma[replica]!);
    for (const { start, address } of plan.numbers)
      arena.reals(address + shift, plan.ld)[lane] = typeof start === "number" ? start : start[replica]!;
    for (const { leaf, address } of [...plan.vectors.values()].flat()) {
      const view = arena.reals(address + shift, sizeOf(leaf.shape) * plan.ld);
      for (let e = 0; e < sizeOf(leaf.shape); e++) view[e * plan.ld + lane] = 0;
    }
    for (const { block, address } of plan.theta) {
      const view = arena.reals(address + shift, block.size * plan.ld);
      for (let e = 0; e < block.size; e++)
        view[e * plan.ld + lane] = setting.theta[replica * this.#model.P + block.offset + e]! + 0; // -0 becomes 0
    }
  }

  #readTheta(replica: number): RealArray {
    const { arena } = this.#host;
    const { shift, lane } = this.#locate(replica);
    const out = arena.array(this.#model.P);
    for (const { block, address } of this.#plan.theta) {
      const view = arena.reals(address + shift, block.size * this.#plan.ld);
      for (let e = 0; e < block.size; e++) out[block.offset + e] = view[e * this.#plan.ld + lane]!;
    }
    return out;
  }

  /** Steps done. */
  get step(): number {
    return this.#step;
  }

  /** A chunk is under way. */
  get isOpen(): boolean {
    return this.#open !== null;
  }

  /** Steps at which the host has measured something. */
  get probed(): number {
    return this.#probed;
  }

  /** Keeps what the host has measured at this step. */
  recordProbe(values: Readonly<Record<string, readonly number[]>>): void {
    for (const [name, numbers] of Object.entries(values)) {
      const known = this.#probes.get(name) ?? [];
      if (this.#probed > 0 && known.length !== this.#probed * numbers.length)
        fail(
          "shape",
          `probes.measures.${name}`,
          `${known.length / this.#probed} numbers, as before`,
          `${numbers.length}`,
        );
      known.push(...numbers);
      this.#probes.set(name, known);
    }
    this.#probed++;
  }

  /** One record as it is yielded by a stream. */
  recordAt(i: number): RunRecord {
    const { replicas } = this.#setting;
    const out: Record<string, unknown> = { k: this.#k[i]! };
    const kinds = ["blockNorms", "charges", "modifiedCharges", "matrixCharges", "work", "values"];
    for (const kind of kinds) out[kind] = {};
    for (const [s, { kind, name, entries }] of this.#plan.series.entries()) {
      const part = this.#data[s]!.slice(i * replicas * entries, (i + 1) * replicas * entries);
      if (kind === "loss" || kind === "t") out[kind] = part;
      else (out[kind] as Record<string, Float64Array>)[name] = part;
    }
    out["t"] ??= this.#times().map((dt) => this.#k[i]! * dt);
    return out as unknown as RunRecord;
  }

  /** Time of a step of each replica, where it does not change. */
  #times(): Float64Array {
    const setting = this.#setting;
    return setting.eta.map((eta, r) => (setting.dt?.[r] ?? eta / updatesPerEta(setting)) * setting.substeps);
  }

  get isOver(): boolean {
    return this.#isOver;
  }

  /** Records so far. */
  get records(): number {
    return this.#records;
  }

  get diverged(): readonly Divergence[] {
    return this.#diverged;
  }

  /**
   * Works for about 10 ms, not beyond step `limit`. Between two calls a chunk may be open: its steps count when it is through.
   */
  slice(limit: number): void {
    const setting = this.#setting;
    const { arena, core } = this.#host;
    const { saved, snapshot, stateBytes, choice, run } = this.#plan;
    const start = performance.now();
    if (this.#open === null) {
      const probeNow = this.#records === 0 && setting.every !== 0;
      const count = Math.min(
        this.#size,
        setting.steps - this.#step,
        limit - this.#step,
        this.#room(probeNow),
      );
      arena.copyBytes(snapshot, saved, choice.groups * stateBytes);
      this.#open = { first: this.#step, count, probeNow };
    }
    const { count, probeNow } = this.#open;
    const code = core.exports.advance(run, count, probeNow ? 1 : 0, this.#blocks);
    const spent = performance.now() - start;
    const isPaused = code === PAUSED;
    if (setting.lowering.chunk === undefined) {
      // at most doubling keeps one slow reading from making a chunk nobody can interrupt
      const paced = (size: number) =>
        Math.max(1, Math.min(2 * size, spent > 0.01 ? Math.floor((size * CHUNK_MS) / spent) : 2 * size));
      if (isPaused || this.#blocks < ALL_BLOCKS) this.#blocks = Math.min(ALL_BLOCKS, paced(this.#blocks));
      if (!isPaused) this.#size = paced(this.#size);
    }
    if (isPaused) return;
    this.#step += count;
    const finite = code >= 0;
    if (finite) this.#drain(code);
    const ended = !finite && this.#search(this.#open.first, count, probeNow);
    this.#open = null;
    this.#isOver = ended || this.#step >= setting.steps;
  }

  /** Takes back the chunk under way, so that all replicas are at the same step. */
  #rollBack(): void {
    if (this.#open === null) return;
    const { saved, snapshot, stateBytes, choice, run } = this.#plan;
    const { arena } = this.#host;
    arena.copyBytes(saved, snapshot, choice.groups * stateBytes);
    setRun(arena, run, "IS_PAUSED", 0);
    setRun(arena, run, "BLOCK_AT", 0);
    this.#rewind(this.#open.first);
    this.#open = null;
  }

  /** Steps until the trace is full. */
  #room(probeNow: boolean): number {
    const { every } = this.#setting;
    if (every === 0) return 4_294_967_295;
    const free = this.#plan.traceRecords - (probeNow ? 1 : 0);
    return free <= 0 ? 0 : free * every - (this.#step % every) + every - 1;
  }

  #advance(count: number, probeNow: boolean): { records: number; finite: boolean } {
    const code = this.#host.core.exports.advance(this.#plan.run, count, probeNow ? 1 : 0, ALL_BLOCKS);
    this.#step += count;
    return code >= 0 ? { records: code, finite: true } : { records: -1 - code, finite: false };
  }

  /** Goes through a chunk that lost a replica step by step; returns true when the run ends there. */
  #search(first: number, count: number, probeNow: boolean): boolean {
    const { arena } = this.#host;
    const { saved, snapshot, stateBytes, choice } = this.#plan;
    const bytes = choice.groups * stateBytes;
    // somewhere in this chunk a replica left the finite numbers: go through it step by step
    arena.copyBytes(saved, snapshot, bytes);
    this.#rewind(first);
    if (probeNow) this.#drain(this.#advance(0, true).records);
    const lastLoss = new Float64Array(this.#setting.replicas).fill(Number.NaN);
    for (let s = 0; s < count; s++) {
      this.#minibatchLoss(lastLoss);
      arena.copyBytes(snapshot, saved, bytes);
      const step = this.#advance(1, false);
      const lost = step.finite ? [] : this.#nonFinite();
      const stops = lost.length > 0 && this.#setting.onDiverge !== "stopReplica";
      // before any replay, which writes over the trace
      if (!stops) this.#drain(step.records, lost);
      if (lost.some((r) => Number.isNaN(lastLoss[r]!))) this.#earlierLosses(lastLoss, lost, first);
      for (const replica of lost) {
        this.#diverged.push({
          replica: replica + this.#setting.firstReplica,
          step: this.#step,
          lastLoss: lastLoss[replica]!,
        });
      }
      if (stops) {
        arena.copyBytes(saved, snapshot, bytes);
        this.#rewind(this.#step - 1);
        return true;
      }
      if (lost.length > 0) {
        this.#freeze(lost);
        if (this.#diverged.length === this.#setting.replicas) return true;
      }
    }
    return false;
  }

  #rewind(step: number): void {
    this.#step = step;
    setRun(this.#host.arena, this.#plan.run, "STEP", step);
  }

  /** Replicas with a theta that is not finite. */
  #nonFinite(): number[] {
    const out: number[] = [];
    for (let r = 0; r < this.#setting.replicas; r++) {
      if (!this.#frozen.has(r) && !this.#readTheta(r).every((x) => Number.isFinite(x))) out.push(r);
    }
    return out;
  }

  /**
   * Last finite losses before a step, for replicas that had none since: the run is walked again
   * from its start, in windows that double, so that the answer does not depend on the chunks.
   */
  #earlierLosses(last: Float64Array, wanted: readonly number[], before: number): void {
    const { arena } = this.#host;
    const { saved, stateBytes, choice } = this.#plan;
    const present = new Uint8Array(arena.buffer, saved, choice.groups * stateBytes).slice();
    const step = this.#step;
    for (let window = 64, end = before; end > 0; window *= 2) {
      const start = Math.max(0, end - window);
      this.#writeStates();
      this.#rewind(0);
      for (let left = start; left > 0; ) {
        const count = Math.min(left, 65_536, this.#room(false));
        this.#advance(count, false);
        left -= count;
      }
      const found = new Float64Array(last.length).fill(Number.NaN);
      for (let k = start; k < end; k++) {
        this.#minibatchLoss(found);
        this.#advance(1, false);
      }
      for (const r of wanted) if (Number.isNaN(last[r]!)) last[r] = found[r]!;
      if (wanted.every((r) => !Number.isNaN(last[r]!))) break;
      end = start;
    }
    new Uint8Array(arena.buffer, saved, present.length).set(present);
    this.#rewind(step);
  }

  /** Updates the last finite minibatch loss of each replica at the present theta. */
  #minibatchLoss(last: Float64Array): void {
    const { arena, core } = this.#host;
    const { choice, lossRun, lossTrace } = this.#plan;
    // explicit batches end with the run, and so does the table they are read from
    setRun(arena, lossRun, "STEP", this.#step);
    core.exports.advance(lossRun, 0, 1, ALL_BLOCKS);
    const view = arena.doubles(lossTrace, choice.groups * choice.groupLanes);
    for (let r = 0; r < last.length; r++) if (Number.isFinite(view[r]!)) last[r] = view[r]!;
  }

  /** Keeps the last finite theta of lost replicas and lets their lanes stand still at the start. */
  #freeze(lost: readonly number[]): void {
    const { arena } = this.#host;
    const plan = this.#plan;
    const model = this.#model;
    for (const r of lost) {
      const { shift, lane } = this.#locate(r);
      const kept = arena.array(model.P);
      const fromSnapshot = plan.snapshot - plan.saved;
      for (const { block, address } of plan.theta) {
        const before = arena.reals(address + shift + fromSnapshot, block.size * plan.ld);
        for (let e = 0; e < block.size; e++) kept[block.offset + e] = before[e * plan.ld + lane]!;
      }
      this.#startLane(shift, lane, r, false);
      this.#frozen.set(r, kept);
    }
  }

  /** Moves records from the trace into the series; what a lost replica would show is NaN. */
  #drain(records: number, justLost: readonly number[] = []): void {
    if (this.#setting.every === 0 || records === 0) return;
    const plan = this.#plan;
    const setting = this.#setting;
    const { groupLanes } = plan.choice;
    const { replicas, every } = setting;
    const perGroup = (plan.recordBytes / 8) * plan.traceRecords;
    const view = this.#host.arena.doubles(plan.trace, perGroup * plan.choice.groups);
    for (let i = 0; i < records; i++) {
      const at = this.#records + i;
      if (at >= this.#k.length) internal("run", "more records than planned");
      this.#k[at] = at * every;
      let slot = 0;
      for (const [s, { entries }] of plan.series.entries()) {
        const data = this.#data[s]!;
        for (let r = 0; r < replicas; r++) {
          const gone = this.#frozen.has(r) || justLost.includes(r);
          const from =
            Math.floor(r / groupLanes) * perGroup + i * (plan.recordBytes / 8) + slot + (r % groupLanes);
          for (let e = 0; e < entries; e++) {
            data[(at * replicas + r) * entries + e] = gone ? Number.NaN : view[from + e * groupLanes]!;
          }
        }
        slot += entries * groupLanes;
      }
    }
    this.#records += records;
  }

  /** Theta of a replica now (for a lost one, its last finite theta). */
  theta(replica: number): RealArray {
    return this.#frozen.get(replica) ?? this.#readTheta(replica);
  }

  /** What has been recorded; `status` says how the run ended. */
  result(status: "done" | "aborted"): Run {
    this.#rollBack();
    const plan = this.#plan;
    const setting = this.#setting;
    const model = this.#model;
    const { replicas } = setting;
    const { P } = model;
    const theta = this.#host.arena.array(replicas * P);
    for (let r = 0; r < replicas; r++) theta.set(this.theta(r), r * P);
    const n = this.#records;
    const k = this.#k.slice(0, n);
    const perStep = this.#times();
    let t = new Float64Array(n * replicas);
    for (let i = 0; i < n; i++) for (let r = 0; r < replicas; r++) t[i * replicas + r] = k[i]! * perStep[r]!;
    const groups: Record<
      "blockNorms" | "charges" | "modifiedCharges" | "matrixCharges" | "work" | "values",
      Record<string, SeriesData>
    > = {
      blockNorms: {},
      charges: {},
      modifiedCharges: {},
      matrixCharges: {},
      work: {},
      values: {},
    };
    let loss: SeriesData | undefined;
    for (const [i, s] of plan.series.entries()) {
      const data = this.#data[i]!.slice(0, n * replicas * s.entries);
      if (s.kind === "loss") loss = data;
      else if (s.kind === "t") t = data;
      else groups[s.kind][s.name] = data;
    }
    const { core } = this.#host;
    const profile = status === "done" && setting.profile ? { profile: profileStep(this.#host, plan) } : {};
    return new Run({
      ...profile,
      theta,
      replicas,
      P,
      steps: this.#step,
      status: this.#diverged.length > 0 ? "diverged" : status,
      diverged: this.#diverged,
      series: { k, t, ...(loss === undefined ? {} : { loss }), ...groups },
      averages: this.#averages(),
      probes: this.#probed === 0 ? null : this.#probesOf(),
      settings: settingsOf(setting, core),
    });
  }

  /** Running sums over the number of steps they hold. */
  #averages(): RunAverages | null {
    const plan = this.#plan;
    const setting = this.#setting;
    if (plan.average === null) return null;
    const { from, every } = plan.average;
    const count = Math.max(0, Math.floor(this.#step / every) - Math.ceil(Math.max(from, 1) / every) + 1);
    const { groupLanes } = plan.choice;
    const out = { blockNorms: {}, charges: {}, matrixCharges: {}, values: {} } as Record<
      string,
      Record<string, Float64Array>
    >;
    for (const { series, address } of plan.averages) {
      const mean = new Float64Array(setting.replicas * series.entries);
      for (let r = 0; r < setting.replicas; r++) {
        const { shift, lane } = this.#locate(r);
        const view = this.#host.arena.doubles(address + shift, series.entries * groupLanes);
        for (let e = 0; e < series.entries; e++) {
          mean[r * series.entries + e] = this.#frozen.has(r)
            ? Number.NaN
            : view[e * groupLanes + lane]! / count;
        }
      }
      out[series.kind]![series.name] = mean;
    }
    return { count, ...(out as Omit<{ -readonly [K in keyof RunAverages]: RunAverages[K] }, "count">) };
  }

  #probesOf(): NonNullable<Run["probes"]> {
    const every = this.#probeEvery;
    return {
      k: Float64Array.from({ length: this.#probed }, (_, i) => i * every),
      values: Object.fromEntries([...this.#probes].map(([name, data]) => [name, Float64Array.from(data)])),
    };
  }

  /** What decides the numbers of the run, as one hash: a checkpoint belongs to it alone. */
  #fingerprint(): string {
    const setting = this.#setting;
    const plan = this.#plan;
    const names = new Set([...this.#model.blocks.map((b) => b.name), ...this.#model.constants]);
    const nodes = plan.series.flatMap((s) => (s.kind === "values" ? [s.node!] : []));
    const given = [
      setting.theta,
      Float64Array.from(setting.batches ?? []),
      setting.normals ?? new Float64Array(0),
    ];
    return hashText(
      JSON.stringify([
        settingsOf(setting, this.#host.core),
        this.#model.toJSON(),
        this.#samples.fingerprint(),
        plan.series.map((s) => [s.kind, s.name, s.entries]),
        printExpressions(nodes, names),
        plan.average,
        hashArrays(given),
        setting.onDiverge,
      ]),
    );
  }

  #header(): CheckpointHeader {
    const plan = this.#plan;
    const { core } = this.#host;
    return {
      schema: "noetherflow-checkpoint/1",
      engine: VERSION,
      streamVersion: STREAM_VERSION,
      dtype: core.dtype,
      variant: core.variant,
      wasmSha256: core.sha256,
      fingerprint: this.#fingerprint(),
      layout: `${plan.choice.lanes} ${plan.choice.groups} x ${plan.choice.groupLanes}, ${plan.stateBytes} bytes`,
      step: this.#step,
      records: this.#records,
      isOver: this.#isOver,
      diverged: this.#diverged.map((d) => ({
        ...d,
        lastLoss: Number.isFinite(d.lastLoss) ? d.lastLoss : null,
      })),
      frozen: [...this.#frozen.keys()],
      probed: this.#probed,
      probes: [...this.#probes].map(
        ([name, data]) => [name, data.length / Math.max(1, this.#probed)] as const,
      ),
    };
  }

  /** All that is needed to go on from here to the same bits: states, records, and what they belong to. */
  save(): Uint8Array {
    this.#rollBack();
    const { saved, stateBytes, choice, series } = this.#plan;
    const states = new Uint8Array(this.#host.arena.buffer, saved, choice.groups * stateBytes);
    const recorded = series.map(({ entries }, i) =>
      this.#data[i]!.subarray(0, this.#records * this.#setting.replicas * entries),
    );
    const frozen = [...this.#frozen.values()].map((theta) => Float64Array.from(theta));
    const probes = [...this.#probes.values()].map((data) => Float64Array.from(data));
    return packCheckpoint(this.#header(), states, [...recorded, ...frozen, ...probes]);
  }

  /**
   * Goes back to where a checkpoint was taken.
   *
   * @throws NoetherflowError "version" for one of another engine, "range" for one of another run, "shape" for a damaged one
   */
  load(bytes: Uint8Array): void {
    const { replicas } = this.#setting;
    const { saved, stateBytes, choice, series } = this.#plan;
    const { header, states, arrays } = unpackCheckpoint(
      bytes,
      this.#header(),
      choice.groups * stateBytes,
      (h) => [
        ...series.map(({ entries }) => h.records * replicas * entries),
        ...h.frozen.map(() => this.#model.P),
        ...h.probes.map(([, perStep]) => h.probed * perStep),
      ],
    );
    new Uint8Array(this.#host.arena.buffer, saved, states.length).set(states);
    this.#rewind(header.step);
    this.#records = header.records;
    for (let i = 0; i < header.records; i++) this.#k[i] = i * this.#setting.every;
    for (const [i, data] of this.#data.entries()) data.set(arrays[i]!);
    for (const [i, r] of header.frozen.entries()) {
      const theta = this.#host.arena.array(this.#model.P);
      theta.set(arrays[series.length + i]!);
      this.#frozen.set(r, theta);
    }
    this.#diverged = header.diverged.map((d) => ({ ...d, lastLoss: d.lastLoss ?? Number.NaN }));
    this.#isOver = header.isOver;
    this.#probed = header.probed;
    const before = series.length + header.frozen.length;
    for (const [i, [name]] of header.probes.entries()) this.#probes.set(name, [...arrays[before + i]!]);
  }

  dispose(): void {
    this.#host.arena.release(this.#region);
  }
}

/** What a run was: everything asked for that decides its numbers. */
export function settingsOf(setting: Setting, core: Core): RunSettings {
  const { scheme, schedule } = setting;
  const takes = (name: SchemeOption) => scheme.takes.includes(name);
  const some = (values: Float64Array) => values.some((x) => x !== 0);
  return {
    scheme: scheme.name,
    sampling: setting.sampling,
    batchSize: scheme.visits === "batch" ? setting.S : setting.effectiveS,
    eta: [...setting.eta],
    weightDecay: setting.weightDecay,
    seed: setting.seed,
    firstReplica: setting.firstReplica,
    requestedSteps: setting.steps,
    every: setting.every,
    dtype: core.dtype,
    variant: core.variant,
    wasmSha256: core.sha256,
    streamVersion: STREAM_VERSION,
    ...(setting.streams === null ? {} : { streams: [...setting.streams] }),
    ...(schedule === null ? {} : { schedule: schedule.given }),
    ...(some(setting.momentum) ? { momentum: [...setting.momentum] } : {}),
    ...(setting.clip === null ? {} : { clip: setting.clip }),
    ...(setting.labelNoise === null ? {} : { labelNoise: Object.fromEntries(setting.labelNoise) }),
    ...(setting.noise === "factor" ? { noise: "factor" } : {}),
    ...(takes("l") ? { l: setting.l } : {}),
    ...(takes("substeps") ? { substeps: setting.substeps } : {}),
    ...(setting.dt === null ? {} : { dt: [...setting.dt] }),
    ...(setting.sigma2 === null ? {} : { sigma2: [...setting.sigma2] }),
    ...(takes("beta1") ? { beta1: setting.beta1 } : {}),
    ...(takes("beta2") ? { beta2: setting.beta2, epsilon: setting.epsilon } : {}),
    ...(takes("rtol") ? { rtol: setting.rtol, atol: setting.atol } : {}),
  };
}

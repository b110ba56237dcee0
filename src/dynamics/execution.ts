import type { RealArray } from "../core/arena.ts";
import { hashArrays, hashText } from "../core/hash.ts";
import { STREAM_VERSION } from "../core/key.ts";
import type { Steps } from "../core/steps.ts";
import type { Model } from "../graph/model.ts";
import { printExpressions } from "../graph/print.ts";
import type { Host } from "../models/evaluate.ts";
import type { Samples } from "../models/samples.ts";
import { VERSION } from "../version.ts";
import { type CheckpointHeader, packCheckpoint, unpackCheckpoint } from "./checkpoint.ts";
import type { Measures } from "./draft.ts";
import { ALL_BLOCKS, PAUSED, RunMemory } from "./memory.ts";
import type { Setting } from "./options.ts";
import { planRun, recordsOf } from "./plan.ts";
import { profileStep } from "./profile.ts";
import { Recorder } from "./recorder.ts";
import { type Divergence, Run, type RunRecord } from "./result.ts";
import { settingsOf } from "./settings.ts";

/** How long one call into Wasm should last. */
const CHUNK_MS = 10;
/** How long a chunk lasts whose samples are read on the way: its draws are known from its beginning. */
const READING_CHUNK_MS = 1000;

/**
 * A run under way: its memory, how far it is, and what it has recorded. It advances by chunks of steps, and
 * a chunk by slices of about 10 ms; between slices other runs may use the engine.
 */
export class Execution {
  readonly #host: Host;
  readonly #model: Model;
  readonly #samples: Samples;
  readonly #setting: Setting;
  readonly #measures: Measures;
  /** What the host measures, and how often. */
  readonly #probes: { readonly every: number; readonly names: readonly string[] } | null;
  readonly #memory: RunMemory;
  readonly #recorder: Recorder;
  #step = 0;
  #isOver = false;
  #canStop = true;
  /** Final theta of replicas that diverged while others go on. */
  readonly #frozen = new Map<number, RealArray>();
  #diverged: Divergence[] = [];
  /** Steps and blocks of samples that fill a slice, as measured so far. */
  #size: number;
  #blocks: number;
  readonly #chunkMs: number;
  /** What the slices of the chunk under way have taken. */
  #spentMs = 0;
  /** The chunk under way. */
  #open: { readonly first: number; readonly count: number; readonly probeNow: boolean } | null = null;

  constructor(
    host: Host,
    model: Model,
    samples: Samples,
    setting: Setting,
    measures: Measures,
    probes?: { readonly every: number; readonly measures?: Readonly<Record<string, unknown>> },
  ) {
    this.#measures = measures;
    this.#probes =
      probes === undefined ? null : { every: probes.every, names: Object.keys(probes.measures ?? {}) };
    this.#host = host;
    this.#model = model;
    this.#samples = samples;
    this.#setting = setting;
    this.#chunkMs = samples.reader === null ? CHUNK_MS : READING_CHUNK_MS;
    this.#size = setting.lowering.chunk ?? 1;
    this.#blocks = setting.lowering.chunk === undefined ? 1 : ALL_BLOCKS;
    this.#memory = new RunMemory(host, model, samples, setting, (base) =>
      planRun(model, samples, setting, measures, host.core.real, base),
    );
    this.#recorder = new Recorder(this.#memory, setting, recordsOf(setting), probes?.every ?? 0);
  }

  /** Steps done. */
  get step(): number {
    return this.#step;
  }

  get isOver(): boolean {
    return this.#isOver;
  }

  /** The chunk under way can be taken back: not while it is gone through again for where a replica was lost. */
  get canStop(): boolean {
    return this.#canStop;
  }

  /** A chunk is under way. */
  get isOpen(): boolean {
    return this.#open !== null;
  }

  /** Records so far. */
  get records(): number {
    return this.#recorder.records;
  }

  /** One record as it is yielded by a stream. */
  recordAt(i: number): RunRecord {
    return this.#recorder.recordAt(i);
  }

  /** Steps at which the host has measured something. */
  get probed(): number {
    return this.#recorder.probed;
  }

  recordProbe(values: Readonly<Record<string, readonly number[]>>): void {
    this.#recorder.recordProbe(values);
  }

  /** Theta of a replica now (for a lost one, its last finite theta). */
  theta(replica: number): RealArray {
    return this.#frozen.get(replica) ?? this.#memory.theta(replica);
  }

  readonly #isLost = (replica: number): boolean => this.#frozen.has(replica);

  /**
   * Works for about 10 ms, not beyond step `limit`. Between two calls a chunk may be open: its steps count when it is through.
   */
  *slice(limit: number): Steps<void> {
    const setting = this.#setting;
    const start = performance.now();
    if (this.#open === null) {
      const probeNow = this.records === 0 && setting.every !== 0;
      const left = Math.min(setting.steps, limit) - this.#step;
      this.#memory.snapshot();
      this.#open = { first: this.#step, count: Math.min(this.#size, left, this.#room(probeNow)), probeNow };
      this.#spentMs = 0;
    }
    const { first, count, probeNow } = this.#open;
    const code = this.#memory.advance(count, probeNow, this.#blocks);
    const starved = code === PAUSED ? this.#memory.starved : null;
    // a slice that ended for want of samples says little of what fills one
    if (starved === null) this.#paceBlocks(performance.now() - start);
    if (starved !== null) yield* starved.fill();
    this.#spentMs += performance.now() - start;
    if (code === PAUSED) return;
    this.#paceSteps();
    this.#step += count;
    const finite = code >= 0;
    if (finite) this.#recorder.drain(code, this.#isLost);
    this.#canStop = false;
    const ended = !finite && (yield* this.#search(first, count, probeNow));
    this.#canStop = true;
    this.#open = null;
    this.#isOver = ended || this.#step >= setting.steps;
  }

  /** Chooses how much the next slice does from what this one took. */
  #paceBlocks(spentMs: number): void {
    if (this.#setting.lowering.chunk !== undefined || this.#blocks === ALL_BLOCKS) return;
    this.#blocks = Math.min(ALL_BLOCKS, paced(this.#blocks, spentMs, CHUNK_MS));
  }

  /** Chooses how many steps the next chunk has from what this one took, with all its slices. */
  #paceSteps(): void {
    if (this.#setting.lowering.chunk !== undefined) return;
    this.#size = paced(this.#size, this.#spentMs, this.#chunkMs);
  }

  /** Takes back the chunk under way, so that all replicas are at the same step. */
  #rollBack(): void {
    if (this.#open === null) return;
    this.#memory.restore();
    this.#rewind(this.#open.first);
    this.#open = null;
  }

  #rewind(step: number): void {
    this.#step = step;
    this.#memory.rewind(step);
  }

  /** Steps until the trace is full. */
  #room(probeNow: boolean): number {
    const { every } = this.#setting;
    if (every === 0) return 4_294_967_295;
    const free = this.#memory.plan.traceRecords - (probeNow ? 1 : 0);
    return free <= 0 ? 0 : free * every - (this.#step % every) + every - 1;
  }

  *#advance(count: number, probeNow: boolean): Steps<{ records: number; finite: boolean }> {
    let code = this.#memory.advance(count, probeNow);
    for (; code === PAUSED; code = this.#memory.advance(count, probeNow)) yield* this.#memory.starved!.fill();
    this.#step += count;
    return code >= 0 ? { records: code, finite: true } : { records: -1 - code, finite: false };
  }

  /** Goes step by step through a chunk in which some replica left the finite numbers; returns true when the run ends there. */
  *#search(first: number, count: number, probeNow: boolean): Steps<boolean> {
    const { replicas, firstReplica, onDiverge } = this.#setting;
    this.#memory.restore();
    this.#rewind(first);
    if (probeNow) this.#recorder.drain((yield* this.#advance(0, true)).records, this.#isLost);
    const lastLoss = new Float64Array(replicas).fill(Number.NaN);
    for (let s = 0; s < count; s++) {
      yield* this.#updateLosses(lastLoss);
      this.#memory.snapshot();
      const step = yield* this.#advance(1, false);
      const lost = step.finite ? [] : this.#nonFinite();
      const stops = lost.length > 0 && onDiverge !== "stopReplica";
      // before any replay, which writes over the trace
      if (!stops) this.#recorder.drain(step.records, (r) => this.#isLost(r) || lost.includes(r));
      if (lost.some((r) => Number.isNaN(lastLoss[r]!))) yield* this.#earlierLosses(lastLoss, lost, first);
      for (const r of lost)
        this.#diverged.push({ replica: r + firstReplica, step: this.#step, lastLoss: lastLoss[r]! });
      if (stops) {
        this.#memory.restore();
        this.#rewind(this.#step - 1);
        return true;
      }
      for (const r of lost) this.#frozen.set(r, this.#memory.freeze(r));
      if (this.#diverged.length === replicas) return true;
    }
    return false;
  }

  /** Replicas with a theta that is not finite. */
  #nonFinite(): number[] {
    const all = Array.from({ length: this.#setting.replicas }, (_, r) => r);
    return all.filter((r) => !this.#isLost(r) && !this.#memory.theta(r).every((x) => Number.isFinite(x)));
  }

  /** Updates the last finite minibatch loss of each replica at the present theta. */
  *#updateLosses(last: Float64Array): Steps<void> {
    const losses = yield* this.#memory.minibatchLosses(this.#step);
    for (let r = 0; r < last.length; r++) if (Number.isFinite(losses[r]!)) last[r] = losses[r]!;
  }

  /**
   * Last finite losses before a step, for replicas that had none since: the run is walked again
   * from its start, in windows that double, so that the answer does not depend on the chunks.
   */
  *#earlierLosses(last: Float64Array, wanted: readonly number[], before: number): Steps<void> {
    const present = this.#memory.states();
    const step = this.#step;
    for (let window = 64, end = before; end > 0; window *= 2) {
      const start = Math.max(0, end - window);
      this.#memory.writeStates();
      this.#rewind(0);
      for (let left = start; left > 0; ) {
        const count = Math.min(left, 65_536, this.#room(false));
        yield* this.#advance(count, false);
        left -= count;
      }
      const found = new Float64Array(last.length).fill(Number.NaN);
      for (let k = start; k < end; k++) {
        yield* this.#updateLosses(found);
        yield* this.#advance(1, false);
      }
      for (const r of wanted) if (Number.isNaN(last[r]!)) last[r] = found[r]!;
      if (wanted.every((r) => !Number.isNaN(last[r]!))) break;
      end = start;
    }
    this.#memory.setStates(present);
    this.#rewind(step);
  }

  /** What has been recorded; `status` says how the run ended. */
  result(status: "done" | "aborted"): Run {
    this.#rollBack();
    const { replicas, profile } = this.#setting;
    const { P } = this.#model;
    const theta = this.#host.arena.array(replicas * P);
    for (let r = 0; r < replicas; r++) theta.set(this.theta(r), r * P);
    return new Run({
      theta,
      replicas,
      P,
      steps: this.#step,
      status: this.#diverged.length > 0 ? "diverged" : status,
      diverged: this.#diverged,
      series: this.#recorder.series(),
      averages: this.#recorder.averages(this.#step, this.#isLost),
      probes: this.#recorder.probes(),
      settings: settingsOf(this.#setting, this.#host.core),
      ...(status === "done" && profile
        ? { profile: profileStep(this.#host, this.#memory.plan, this.#memory.region) }
        : {}),
    });
  }

  /** What decides the numbers of the run, as one hash: a checkpoint belongs to it alone. */
  #fingerprint(): string {
    const { theta, batches, normals, onDiverge } = this.#setting;
    const { series, average } = this.#memory.plan;
    const names = new Set([...this.#model.blocks.map((b) => b.name), ...this.#model.constants]);
    const nodes = series.flatMap((s) => (s.node === null ? [] : [s.node]));
    const given = [theta, Float64Array.from(batches ?? []), normals ?? new Float64Array(0)];
    return hashText(
      JSON.stringify([
        settingsOf(this.#setting, this.#host.core),
        this.#model.toJSON(),
        this.#samples.fingerprint(),
        series.map((s) => [s.kind, s.name, s.entries]),
        printExpressions(nodes, names),
        average,
        this.#measures.loss,
        this.#probes,
        hashArrays(given),
        onDiverge,
      ]),
    );
  }

  #header(): CheckpointHeader {
    const { choice, stateBytes } = this.#memory.plan;
    const { core } = this.#host;
    const finite = (x: number) => (Number.isFinite(x) ? x : null);
    return {
      schema: "noetherflow-checkpoint/1",
      engine: VERSION,
      streamVersion: STREAM_VERSION,
      dtype: core.dtype,
      variant: core.variant,
      wasmSha256: core.sha256,
      fingerprint: this.#fingerprint(),
      layout: `${choice.lanes} ${choice.groups} x ${choice.groupLanes}, ${stateBytes} bytes`,
      step: this.#step,
      records: this.records,
      isOver: this.#isOver,
      diverged: this.#diverged.map((d) => ({ ...d, lastLoss: finite(d.lastLoss) })),
      frozen: [...this.#frozen.keys()],
      probed: this.probed,
      probes: this.#recorder.probeSizes,
    };
  }

  /** All that is needed to go on from here to the same bits: states, records, and what they belong to. */
  save(): Uint8Array {
    this.#rollBack();
    const { series, probes } = this.#recorder.save();
    const frozen = [...this.#frozen.values()].map((theta) => Float64Array.from(theta));
    return packCheckpoint(this.#header(), this.#memory.states(), [...series, ...frozen, ...probes]);
  }

  /**
   * Goes back to where a checkpoint was taken.
   *
   * @throws NoetherflowError "version" for one of another engine, "range" for one of another run, "shape" for a damaged one
   */
  load(bytes: Uint8Array): void {
    const { replicas } = this.#setting;
    const { P } = this.#model;
    const { series } = this.#memory.plan;
    const lengths = (h: CheckpointHeader) => [
      ...series.map(({ entries }) => h.records * replicas * entries),
      ...h.frozen.map(() => P),
      ...h.probes.map(([, perStep]) => h.probed * perStep),
    ];
    const { header, states, arrays } = unpackCheckpoint(
      bytes,
      this.#header(),
      this.#memory.stateBytes,
      lengths,
    );
    const { frozen, diverged, records, probed, probes } = header;
    const [recorded, kept, found] = [
      arrays.slice(0, series.length),
      arrays.slice(series.length, series.length + frozen.length),
      arrays.slice(series.length + frozen.length),
    ];
    this.#memory.setStates(states);
    this.#rewind(header.step);
    this.#isOver = header.isOver;
    this.#diverged = diverged.map((d) => ({ ...d, lastLoss: d.lastLoss ?? Number.NaN }));
    for (const [i, r] of frozen.entries()) {
      const theta = this.#host.arena.array(P);
      theta.set(kept[i]!);
      this.#frozen.set(r, theta);
    }
    this.#recorder.load(
      records,
      probed,
      recorded,
      probes.map(([name], i) => [name, found[i]!] as const),
    );
  }

  dispose(): void {
    this.#memory.release();
  }
}

/** At most doubling keeps one slow reading from making a chunk nobody can interrupt. */
function paced(size: number, spentMs: number, wantedMs: number): number {
  return Math.max(1, Math.min(2 * size, spentMs > 0.01 ? Math.floor((size * wantedMs) / spentMs) : 2 * size));
}

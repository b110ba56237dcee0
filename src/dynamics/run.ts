import type { RealArray, Region } from "../core/arena.ts";
import { keyOf, STREAM_VERSION } from "../core/key.ts";
import { turn } from "../core/turn.ts";
import { fail, internal, NoetherflowError } from "../errors.ts";
import type { Model } from "../graph/model.ts";
import { drawFields, rateFields } from "../graph/instructions.ts";
import { sizeOf } from "../graph/node.ts";
import { installPass, setRun, writeConstants, writeFields, writeRun } from "../graph/program.ts";
import type { Host } from "../models/evaluate.ts";
import type { Samples } from "../models/samples.ts";
import type { Progress, Setting } from "./options.ts";
import { controlOf, type Measures, planRun, type RunPlan, updatesPerEta } from "./plan.ts";
import { profileStep } from "./profile.ts";
import { type Divergence, Run, type RunAverages, type RunSettings, type SeriesData } from "./result.ts";
import type { SchemeOption } from "./scheme.ts";
import type { Core } from "../wasm/module.ts";

/** How long one call into Wasm should last. */
const CHUNK_MS = 10;
/** A budget no call uses up. */
const ALL_BLOCKS = 4_294_967_295;
/** More recorded numbers than this do not fit in one array of a host. */
const MAX_RECORDED = 268_435_456;

/** Runs a scheme to its end; see SimulateOptions. */
export async function simulate(
  host: Host,
  model: Model,
  samples: Samples,
  setting: Setting,
  measures: Measures,
  control: { signal?: AbortSignal | undefined; onProgress?: ((p: Progress) => void) | undefined },
): Promise<Run> {
  control.signal?.throwIfAborted();
  const execution = new Execution(host, model, samples, setting, measures);
  samples.hold();
  try {
    return await execution.finish(control);
  } finally {
    execution.dispose();
    samples.letGo();
  }
}

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

class Execution {
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
  readonly #diverged: Divergence[] = [];

  constructor(host: Host, model: Model, samples: Samples, setting: Setting, measures: Measures) {
    this.#host = host;
    this.#model = model;
    this.#setting = setting;
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

  async finish(control: {
    signal?: AbortSignal | undefined;
    onProgress?: ((p: Progress) => void) | undefined;
  }): Promise<Run> {
    const setting = this.#setting;
    const began = performance.now();
    let size = setting.lowering.chunk ?? 16;
    let probeNow = setting.every !== 0;
    let lastTurn = began;
    for (;;) {
      const count = Math.min(size, setting.steps - this.#step, this.#room(probeNow));
      const start = performance.now();
      const ended = this.#chunk(count, probeNow);
      probeNow = false;
      const now = performance.now();
      if (setting.lowering.chunk === undefined) {
        const spent = now - start;
        // at most doubling keeps one slow reading from making a chunk nobody can interrupt
        size = Math.max(
          1,
          Math.min(2 * size, spent > 0.01 ? Math.floor((size * CHUNK_MS) / spent) : 2 * size),
        );
      }
      if (ended || this.#step >= setting.steps) break;
      if (now - lastTurn >= CHUNK_MS / 2) {
        if (control.onProgress) {
          const elapsedMs = now - began;
          control.onProgress({
            step: this.#step,
            steps: setting.steps,
            replicas: setting.replicas,
            elapsedMs,
            remainingMs: (elapsedMs * (setting.steps - this.#step)) / Math.max(1, this.#step),
            replicaStepsPerSecond: (1000 * this.#step * setting.replicas) / Math.max(1e-3, elapsedMs),
          });
        }
        await turn();
        lastTurn = performance.now();
        if (control.signal?.aborted) throw this.#aborted(control.signal);
      }
    }
    const run = this.#result(true);
    if (control.onProgress) {
      const elapsedMs = performance.now() - began;
      control.onProgress({
        step: this.#step,
        steps: setting.steps,
        replicas: setting.replicas,
        elapsedMs,
        remainingMs: 0,
        replicaStepsPerSecond: (1000 * this.#step * setting.replicas) / Math.max(1e-3, elapsedMs),
      });
    }
    if (run.status === "diverged" && setting.onDiverge === "throw") throw this.#divergence(run);
    return run;
  }

  /** The signal's reason; what was recorded so far is on it when it is an object. */
  #aborted(signal: AbortSignal): unknown {
    const reason: unknown = signal.reason;
    if (typeof reason === "object" && reason !== null) {
      try {
        Object.defineProperty(reason, "recorded", {
          value: this.#result(false),
          configurable: true,
          enumerable: false,
        });
      } catch {
        // a frozen reason is the caller's own choice
      }
    }
    return reason;
  }

  #divergence(run: Run): NoetherflowError {
    const first = run.diverged.reduce((a, b) => (b.step < a.step ? b : a));
    const error = new NoetherflowError("nonfinite", "run", {
      expected: `theta became non-finite at step ${first.step}, replica ${first.replica} (eta ${this.#setting.eta[first.replica - this.#setting.firstReplica]}, last finite loss ${first.lastLoss.toPrecision(4)})`,
      hint: 'Lower eta, or pass onDiverge: "stopReplica" to let the others go on.',
    });
    error.recorded = run;
    return error;
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

  /** Advances; returns true when the run ends here because of a divergence. */
  #chunk(count: number, probeNow: boolean): boolean {
    const { arena } = this.#host;
    const { saved, snapshot, stateBytes, choice } = this.#plan;
    const bytes = choice.groups * stateBytes;
    const first = this.#step;
    arena.copyBytes(snapshot, saved, bytes);
    const { records, finite } = this.#advance(count, probeNow);
    if (finite) {
      this.#drain(records);
      return false;
    }
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

  #result(ended: boolean): Run {
    const plan = this.#plan;
    const setting = this.#setting;
    const model = this.#model;
    const { replicas } = setting;
    const { P } = model;
    const theta = this.#host.arena.array(replicas * P);
    for (let r = 0; r < replicas; r++) theta.set(this.#frozen.get(r) ?? this.#readTheta(r), r * P);
    const n = this.#records;
    const k = this.#k.slice(0, n);
    const perStep = Array.from(
      setting.eta,
      (eta, r) => (setting.dt?.[r] ?? eta / updatesPerEta(setting)) * setting.substeps,
    );
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
    const profile = ended && setting.profile ? { profile: profileStep(this.#host, plan) } : {};
    return new Run({
      ...profile,
      theta,
      replicas,
      P,
      steps: this.#step,
      status: this.#diverged.length > 0 ? "diverged" : ended ? "done" : "aborted",
      diverged: this.#diverged,
      series: { k, t, ...(loss === undefined ? {} : { loss }), ...groups },
      averages: this.#averages(),
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

  dispose(): void {
    this.#host.arena.release(this.#region);
  }
}

/** What a run was: everything asked for that decides its numbers. */
function settingsOf(setting: Setting, core: Core): RunSettings {
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
    ...(takes("l") ? { l: setting.l } : {}),
    ...(takes("substeps") ? { substeps: setting.substeps } : {}),
    ...(setting.dt === null ? {} : { dt: [...setting.dt] }),
    ...(setting.sigma2 === null ? {} : { sigma2: [...setting.sigma2] }),
    ...(takes("beta1") ? { beta1: setting.beta1 } : {}),
    ...(takes("beta2") ? { beta2: setting.beta2, epsilon: setting.epsilon } : {}),
    ...(takes("rtol") ? { rtol: setting.rtol, atol: setting.atol } : {}),
  };
}

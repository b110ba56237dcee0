import { later } from "../core/steps.ts";
import { turn } from "../core/turn.ts";
import {
  checkFlag,
  checkInteger,
  checkKnown,
  checkNumber,
  checkObject,
  fail,
  NoetherflowError,
  show,
} from "../errors.ts";
import type { Model } from "../graph/model.ts";
import type { Host } from "../models/evaluate.ts";
import type { Samples } from "../models/samples.ts";
import { joinCheckpoints, splitCheckpoints } from "./checkpoint.ts";
import type { Measures } from "./draft.ts";
import { Execution } from "./execution.ts";
import type { Progress, Setting } from "./options.ts";
import type { Run, RunRecord } from "./result.ts";
import { settingsOf } from "./settings.ts";
import { mergeRuns } from "./sweep.ts";

/** Measurements of the host between chunks: slow ones, a few times along a run. */
export interface ProbeOptions {
  /** At steps 0, every, 2 every, ... */
  readonly every: number;
  /**
   * Predicted Noether flow of every recorded charge beside the charge itself: run.probes.values has "charge.C", "flow.C" (dC per
   * step, what finite steps add included) and "predicted.C", C(0) plus the sum of the flow by trapezoids between the probes.
   */
  readonly flow?: boolean;
  /** Each is given a copy of a replica's theta; numbers, the same count every time. */
  readonly measures?: Readonly<
    Record<string, (theta: Float64Array | Float32Array, at: ProbePoint) => ProbeResult | Promise<ProbeResult>>
  >;
}
/** What a measure gives: a number, or a list of the same length every time. */
export type ProbeResult = number | ArrayLike<number>;
/** Where along a run a measure is asked. */
export interface ProbePoint {
  /** Step. */
  readonly k: number;
  /** Position among the run's replicas. */
  readonly replica: number;
}

/** What is kept of a long run, so that it can go on after an end. */
export interface CheckpointOptions {
  /** Receives the bytes that `resume` takes: every so often, and when the run is aborted. The run waits for it. */
  readonly save: (
    bytes: Uint8Array,
    at: { readonly step: number; readonly steps: number },
  ) => void | Promise<void>;
  /** Milliseconds between checkpoints, 60000 when neither is given; or steps between them. */
  readonly everyMs?: number;
  /** Steps between checkpoints. */
  readonly everySteps?: number;
}

/** How a run is watched, stopped and resumed; nothing of it decides a number. */
export interface RunControl {
  /** An abort ends the run after the chunk in progress and rejects with its reason. */
  readonly signal?: AbortSignal | undefined;
  /** Called between chunks, each of about 10 ms. */
  readonly onProgress?: ((progress: Progress) => void) | undefined;
  /** Measurements of the host along the run. */
  readonly probes?: ProbeOptions | undefined;
  /** Where its state is kept, and how often. */
  readonly checkpoint?: CheckpointOptions | undefined;
  /** Bytes of a checkpoint of this very run. */
  readonly resume?: Uint8Array | undefined;
}

/** Replicas that run side by side: they share batch size, seed and data. */
export interface Part {
  readonly samples: Samples;
  readonly setting: Setting;
  /** Positions of its replicas in the whole run. */
  readonly replicas: readonly number[];
}

/** A run: its whole setting, and the parts it is done in. */
export interface Sweep {
  readonly setting: Setting;
  readonly parts: readonly Part[];
}

/** The event loop gets a turn after this much work. */
const TURN_MS = 5;
const SAVE_MS = 60_000;

/** Checks what a run is controlled by. */
export function readControl(where: string, options: RunControl): RunControl {
  const { signal, onProgress, probes, checkpoint, resume } = options;
  if (signal !== undefined && typeof signal?.throwIfAborted !== "function")
    fail("shape", where, "signal must be an AbortSignal", show(signal));
  if (onProgress !== undefined && typeof onProgress !== "function")
    fail("shape", where, "onProgress must be a function", show(onProgress));
  if (probes !== undefined) {
    const at = `${where}: probes`;
    checkKnown(at, checkObject(at, "{ every, flow?, measures? }", probes), ["every", "flow", "measures"]);
    const flow = checkFlag(at, "flow", probes.flow);
    if (!flow && probes.measures === undefined)
      fail("range", at, "something to measure: flow, or measures", "neither");
    checkInteger(at, "every", probes.every, 1, 4_294_967_295);
    for (const [name, f] of Object.entries(
      checkObject(at, "measures: functions by name", probes.measures ?? {}),
    ))
      if (typeof f !== "function") fail("shape", `${at}.measures.${name}`, "a function of theta", show(f));
  }
  if (checkpoint !== undefined) {
    const at = `${where}: checkpoint`;
    checkKnown(at, checkObject(at, "{ save, everyMs?, everySteps? }", checkpoint), [
      "save",
      "everyMs",
      "everySteps",
    ]);
    if (typeof checkpoint.save !== "function")
      fail("shape", at, "save must be a function of the bytes", show(checkpoint.save));
    if (checkpoint.everyMs !== undefined) checkNumber(at, "everyMs", checkpoint.everyMs, 0);
    if (checkpoint.everySteps !== undefined)
      checkInteger(at, "everySteps", checkpoint.everySteps, 1, 4_294_967_295);
  }
  return { signal, onProgress, probes, checkpoint, resume };
}

/**
 * Runs a scheme to its end, yielding between slices; see SimulateOptions. Parts run one after the other.
 *
 * @returns the run; what a consumer leaves early is given back
 */
export async function* advance(
  host: Host,
  model: Model,
  { setting: whole, parts }: Sweep,
  measures: Measures,
  control: RunControl,
): AsyncGenerator<Execution, Run> {
  control.signal?.throwIfAborted();
  const saved = control.resume === undefined ? [] : splitCheckpoints(control.resume, parts.length);
  const finished: { run: Run; checkpoint: Uint8Array | null }[] = [];
  const progress = new Meter(parts, control.onProgress);
  if (control.checkpoint !== undefined || control.resume !== undefined)
    for (const { samples } of parts) await later(samples.identify(), control.signal);
  for (const [p, { samples, setting }] of parts.entries()) {
    const execution = new Execution(host, model, samples, setting, measures, control.probes);
    samples.hold();
    const bytes = () => joinCheckpoints([...finished.map((f) => f.checkpoint!), execution.save()]);
    try {
      if (saved[p] !== undefined) execution.load(saved[p]);
      progress.begin(p, execution.step);
      let lastTurn = performance.now();
      let lastSave = lastTurn;
      let lastStep = execution.step;
      for (;;) {
        const { step } = execution;
        await measure(execution, setting, parts[p]!.replicas, control.probes);
        if (execution.isOver) break;
        await untilAborted(execution, nextStop(step, control), control.signal);
        const now = performance.now();
        // a checkpoint within a chunk would take it back, and a run that is always due would get nowhere
        const due = !execution.isOpen && isDue(control.checkpoint, now - lastSave, execution.step - lastStep);
        if (now - lastTurn < TURN_MS && !due && !control.signal?.aborted) continue;
        if (!execution.isOver) {
          progress.report(p, execution.step);
          if (due) {
            await control.checkpoint!.save(bytes(), { step: execution.step, steps: setting.steps });
            lastSave = performance.now();
            lastStep = execution.step;
          }
          await turn();
        }
        yield execution;
        lastTurn = performance.now();
        if (control.signal?.aborted && !execution.isOver) {
          const part = execution.result("aborted");
          if (control.checkpoint !== undefined)
            await control.checkpoint.save(bytes(), { step: execution.step, steps: setting.steps });
          throw abortedWith(control.signal, parts.length === 1 ? part : null);
        }
      }
      yield execution;
      finished.push({
        checkpoint: control.checkpoint === undefined ? null : execution.save(),
        run: execution.result("done"),
      });
    } finally {
      execution.dispose();
      samples.letGo();
    }
  }
  const runs = finished.map((f) => f.run);
  const run = mergeRuns(parts, runs, settingsOf(whole, host.core));
  progress.end();
  if (run.status === "diverged" && whole.onDiverge === "throw") throw divergence(run);
  return run;
}

/** A slice; an abort ends it without a word, and the run then says what it has. */
async function untilAborted(
  execution: Execution,
  limit: number,
  signal: AbortSignal | undefined,
): Promise<void> {
  try {
    await later(execution.slice(limit), signal, () => execution.canStop);
  } catch (error) {
    // what cannot be taken back has nothing to show
    if (!signal?.aborted || !execution.canStop) throw error;
  }
}

/** The whole run at once. */
export async function simulate(
  host: Host,
  model: Model,
  sweep: Sweep,
  measures: Measures,
  control: RunControl,
): Promise<Run> {
  const run = advance(host, model, sweep, measures, control);
  for (;;) {
    const { done, value } = await run.next();
    if (done) return value;
  }
}

/** The records of a run as they are made; the run goes no further than the one who asks for them. */
export async function* stream(
  host: Host,
  model: Model,
  sweep: Sweep,
  measures: Measures,
  control: RunControl,
): AsyncGenerator<RunRecord, Run> {
  const run = advance(host, model, sweep, measures, control);
  let given = 0;
  try {
    for (;;) {
      const { done, value } = await run.next();
      if (done) return value;
      for (; given < value.records; given++) yield value.recordAt(given);
    }
  } finally {
    await run.return(undefined as never);
  }
}

/** The first step at which the host wants the run to halt. */
function nextStop(step: number, { probes, checkpoint }: RunControl): number {
  const after = (every: number | undefined) =>
    every === undefined ? Number.POSITIVE_INFINITY : (Math.floor(step / every) + 1) * every;
  return Math.min(after(probes?.every), after(checkpoint?.everySteps));
}

function isDue(options: CheckpointOptions | undefined, sinceMs: number, sinceSteps: number): boolean {
  if (options === undefined) return false;
  const { everyMs, everySteps } = options;
  if (everySteps !== undefined && sinceSteps >= everySteps) return true;
  return everyMs === undefined ? everySteps === undefined && sinceMs >= SAVE_MS : sinceMs >= everyMs;
}

/** Measures what probes ask for at this step, once. */
async function measure(
  execution: Execution,
  setting: Setting,
  replicas: readonly number[],
  probes: ProbeOptions | undefined,
): Promise<void> {
  if (probes === undefined || execution.isOpen || execution.step % probes.every !== 0) return;
  if (execution.probed * probes.every > execution.step) return;
  const values: Record<string, number[]> = {};
  for (const [name, f] of Object.entries(probes.measures ?? {})) {
    values[name] = [];
    for (let r = 0; r < setting.replicas; r++) {
      const result = await f(execution.theta(r).slice(), { k: execution.step, replica: replicas[r]! });
      const isList = Array.isArray(result) || ArrayBuffer.isView(result);
      const numbers =
        typeof result === "number" ? [result] : isList ? Array.from(result as ArrayLike<number>) : null;
      if (numbers === null || numbers.some((x) => typeof x !== "number"))
        fail("shape", `probes.measures.${name}`, "a number, or an array of numbers", show(result));
      values[name].push(...numbers);
    }
  }
  execution.recordProbe(values);
}

/** Progress over all parts, in steps of one replica. */
class Meter {
  readonly #began = performance.now();
  readonly #parts: readonly Part[];
  readonly #onProgress: RunControl["onProgress"];
  #skipped = 0;

  constructor(parts: readonly Part[], onProgress: RunControl["onProgress"]) {
    this.#parts = parts;
    this.#onProgress = onProgress;
  }

  /** A part that goes on from a step: what was done before took no time now. */
  begin(part: number, step: number): void {
    this.#skipped += step * this.#parts[part]!.setting.replicas;
  }

  report(part: number, step: number): void {
    if (this.#onProgress === undefined) return;
    const { setting } = this.#parts[part]!;
    const size = (p: Part) => p.setting.steps * p.setting.replicas;
    const done = this.#parts.slice(0, part).reduce((n, p) => n + size(p), step * setting.replicas);
    const all = this.#parts.reduce((n, p) => n + size(p), 0);
    const elapsedMs = performance.now() - this.#began;
    const worked = Math.max(1, done - this.#skipped);
    const replicas = this.#parts.reduce((n, p) => n + p.setting.replicas, 0);
    this.#onProgress({
      step: this.#parts.length === 1 ? step : Math.floor(done / replicas),
      steps: setting.steps,
      replicas,
      elapsedMs,
      remainingMs: (elapsedMs * (all - done)) / worked,
      replicaStepsPerSecond: (1000 * (done - this.#skipped)) / Math.max(1e-3, elapsedMs),
    });
  }

  end(): void {
    const last = this.#parts.length - 1;
    this.report(last, this.#parts[last]!.setting.steps);
  }
}

/** The signal's reason; what was recorded so far is on it when it is an object. */
function abortedWith(signal: AbortSignal, recorded: Run | null): unknown {
  const reason: unknown = signal.reason;
  if (typeof reason === "object" && reason !== null) {
    try {
      Object.defineProperty(reason, "recorded", { value: recorded, configurable: true, enumerable: false });
    } catch {
      // a frozen reason is the caller's own choice
    }
  }
  return reason;
}

function divergence(run: Run): NoetherflowError {
  const first = run.diverged.reduce((a, b) => (b.step < a.step ? b : a));
  const eta = run.settings.eta[first.replica - run.settings.firstReplica];
  const error = new NoetherflowError("nonfinite", "run", {
    expected: `theta became non-finite at step ${first.step}, replica ${first.replica} (eta ${eta}, last finite loss ${first.lastLoss.toPrecision(4)})`,
    hint: 'Lower eta, or pass onDiverge: "stopReplica" to let the others go on.',
  });
  error.recorded = run;
  return error;
}

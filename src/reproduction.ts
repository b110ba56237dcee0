/** Experiments one after the other, or side by side in threads of Node. */
import { Worker } from "node:worker_threads";
import { createEngine } from "./create.ts";
import { NoetherflowError } from "./errors.ts";
import { experiments, type Result, runExperiment } from "./experiments/experiment.ts";
import { readSpec } from "./experiments/spec.ts";
import { type ErrorWire, packRun, type RunWire, unpackError, unpackRun } from "./parallel/wire.ts";
import { SymmetrySummary } from "./symmetry/summary.ts";

export interface ReproduceOptions {
  /** Threads; 1 uses none. */
  readonly workers: number;
  /** Their program, reproduce-worker.js. */
  readonly thread: URL;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: ReproduceProgress) => void;
}

export interface ReproduceProgress {
  /** Of the whole, 0 to 1. */
  readonly fraction: number;
  /** What is being done, one text for each experiment under way. */
  readonly under: readonly string[];
  readonly elapsedMs: number;
  /** At the rate so far. */
  readonly remainingMs: number;
}

/** One execution of an experiment. */
export interface Job {
  readonly id: string;
  readonly seed: string;
  /** Over the defaults. */
  readonly settings: Readonly<Record<string, number>>;
}

/** What a thread says. */
export type Message =
  | { readonly kind: "progress"; readonly fraction: number; readonly what: string }
  | { readonly kind: "result"; readonly result: ResultWire }
  | { readonly kind: "error"; readonly error: ErrorWire };

/** A result as it crosses threads. */
type ResultWire = Omit<Result, "runs" | "symmetries"> & {
  readonly runs: Readonly<Record<string, RunWire>>;
  readonly symmetries: readonly { readonly title: string; readonly summary: Summary }[];
};
type Summary = Pick<SymmetrySummary, "rows" | "discovery" | "loss">;

export function packResult({ runs, symmetries, ...rest }: Result): ResultWire {
  return {
    ...rest,
    runs: Object.fromEntries(Object.entries(runs).map(([name, run]) => [name, packRun(run)])),
    symmetries: (symmetries ?? []).map(({ title, summary: { rows, discovery, loss } }) => ({
      title,
      // a generator is an object of a class; its data say the same
      summary: {
        rows: rows.map((row) => ({
          ...row,
          generator: row.generator.toJSON() as unknown as typeof row.generator,
        })),
        discovery,
        loss,
      },
    })),
  };
}

function unpackResult({ runs, symmetries, ...rest }: ResultWire): Result {
  return {
    ...rest,
    runs: Object.fromEntries(Object.entries(runs).map(([name, run]) => [name, unpackRun(run)])),
    ...(symmetries.length === 0
      ? {}
      : {
          symmetries: symmetries.map(({ title, summary: { rows, discovery, loss } }) => ({
            title,
            summary: new SymmetrySummary(rows, discovery, loss),
          })),
        }),
  };
}

/**
 * Does experiments and returns their results in the order asked for; the numbers do not depend on the number of threads.
 *
 * @param jobs of experiments in the table
 * @throws NoetherflowError "name" or "range" for settings that an experiment does not have, before any work; the signal's reason
 *         after an abort; what an experiment threw, which stops the others
 */
export async function reproduce(jobs: readonly Job[], options: ReproduceOptions): Promise<Result[]> {
  for (const { id, settings } of jobs) readSpec(id, experiments.get(id)!.parameters, settings);
  const meter = new Meter(jobs, options.onProgress);
  const results: Result[] = new Array(jobs.length);
  const finish = (index: number, result: Result) => {
    results[index] = result;
    meter.done(index);
  };
  if (options.workers <= 1 || jobs.length <= 1) await inThisThread(jobs, options, meter, finish);
  else await inThreads(jobs, options, meter, finish);
  return results;
}

type Finish = (index: number, result: Result) => void;

async function inThisThread(jobs: readonly Job[], options: ReproduceOptions, meter: Meter, finish: Finish) {
  const engine = await createEngine();
  try {
    for (const [index, { id, seed, settings }] of jobs.entries()) {
      const result = await runExperiment(experiments.get(id)!, engine, settings, seed, {
        ...(options.signal === undefined ? {} : { signal: options.signal }),
        onProgress: (fraction, what) => meter.report(index, fraction, what),
      });
      finish(index, result);
    }
  } finally {
    engine.dispose();
  }
}

async function inThreads(jobs: readonly Job[], options: ReproduceOptions, meter: Meter, finish: Finish) {
  const { signal } = options;
  signal?.throwIfAborted();
  // the longest first, so that no thread is left with it at the end
  const queue = [...jobs.entries()].sort(([, a], [, b]) => secondsOf(b.id) - secondsOf(a.id));
  const threads = Array.from(
    { length: Math.min(options.workers, jobs.length) },
    () => new Worker(options.thread),
  );
  let give: ((reason: unknown) => void) | undefined;
  const stopped = new Promise<never>((_, reject) => {
    give = reject;
  });
  stopped.catch(() => undefined);
  const onAbort = () => give!(signal!.reason);
  signal?.addEventListener("abort", onAbort, { once: true });
  const work = async (thread: Worker) => {
    for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
      const [index, job] = next;
      finish(index, await ask(thread, job, (fraction, what) => meter.report(index, fraction, what)));
    }
  };
  try {
    await Promise.race([Promise.all(threads.map(work)), stopped]);
  } finally {
    signal?.removeEventListener("abort", onAbort);
    await Promise.all(threads.map((thread) => thread.terminate()));
  }
}

/** One job in one thread. */
function ask(
  thread: Worker,
  job: Job,
  onProgress: (fraction: number, what: string) => void,
): Promise<Result> {
  return new Promise((resolve, reject) => {
    const leave = () => {
      thread.off("message", onMessage);
      thread.off("error", onError);
      thread.off("exit", onExit);
    };
    const onError = (error: unknown) => {
      leave();
      reject(error);
    };
    const onExit = (code: number) =>
      onError(
        new NoetherflowError("internal", job.id, {
          expected: "a result from its thread",
          got: `the thread ended with code ${code}`,
          hint: "It may have run out of memory; try --workers 1.",
        }),
      );
    const onMessage = (message: Message) => {
      if (message.kind === "progress") return onProgress(message.fraction, message.what);
      leave();
      if (message.kind === "error") reject(unpackError(job.id, message.error));
      else resolve(unpackResult(message.result));
    };
    thread.on("message", onMessage);
    thread.on("error", onError);
    thread.on("exit", onExit);
    thread.postMessage(job);
  });
}

/** What an experiment takes, roughly, at its defaults; for the order and the remaining time. */
const secondsOf = (id: string): number => experiments.get(id)?.seconds ?? 4;

/** Progress over experiments of known length. */
class Meter {
  readonly #began = performance.now();
  readonly #jobs: readonly Job[];
  readonly #onProgress: ReproduceOptions["onProgress"];
  /** By the index of a job. */
  readonly #fractions = new Map<number, number>();
  readonly #under = new Map<number, string>();

  constructor(jobs: readonly Job[], onProgress: ReproduceOptions["onProgress"]) {
    this.#jobs = jobs;
    this.#onProgress = onProgress;
  }

  report(index: number, fraction: number, what: string): void {
    this.#fractions.set(index, Math.max(this.#fractions.get(index) ?? 0, fraction));
    this.#under.set(index, `${this.#jobs[index]!.id}  ${what}`);
    this.#tell();
  }

  done(index: number): void {
    this.#fractions.set(index, 1);
    this.#under.delete(index);
    this.#tell();
  }

  #tell(): void {
    const all = this.#jobs.reduce((n, j) => n + secondsOf(j.id), 0);
    const done = this.#jobs.reduce((n, j, i) => n + secondsOf(j.id) * (this.#fractions.get(i) ?? 0), 0);
    const fraction = done / all;
    const elapsedMs = performance.now() - this.#began;
    this.#onProgress?.({
      fraction,
      under: [...this.#under.values()],
      elapsedMs,
      remainingMs: fraction > 0 ? (elapsedMs * (1 - fraction)) / fraction : Number.POSITIVE_INFINITY,
    });
  }
}

import { cpus, TerminateError, type Pool as ThreadPool, pool as threadPool } from "workerpool";
import type { SimulateOptions } from "../dynamics/options.ts";
import type { Run } from "../dynamics/result.ts";
import { mergeRuns } from "../dynamics/sweep.ts";
import { checkInteger, checkKnown, checkObject, fail, NoetherflowError, show } from "../errors.ts";
import type { Node } from "../graph/node.ts";
import type { Problem } from "../problem.ts";
import type { RunSpec } from "../spec.ts";
import type { Generator } from "../symmetry/generator.ts";
import { goOn, partOf, splitReplicas } from "./replicas.ts";
import { type AnswerWire, buffersIn, type ProgressWire, unpackError, unpackRun } from "./wire.ts";

/** A run to do: described, or a problem and the options of its `simulate`. */
export type Task =
  | RunSpec
  | { readonly problem: Problem; readonly options: SimulateOptions<Generator, Node> };

/** How a task ended. */
export type TaskResult =
  | { readonly status: "done"; readonly run: Run }
  | { readonly status: "failed"; readonly error: NoetherflowError };

/** What an abort finds: a task under way has the run so far, one that had not begun null. */
export type TaskSoFar = TaskResult | { readonly status: "aborted"; readonly run: Run | null };

/** Progress over all tasks; steps are those of one replica, times replicas. */
export interface ManyProgress {
  /** Tasks in all. */
  readonly tasks: number;
  /** Tasks that ended, and how many of these failed. */
  readonly ended: number;
  /** Of these, tasks that failed. */
  readonly failed: number;
  /** Done so far, over all tasks. */
  readonly replicaSteps: number;
  /** Of all tasks, done or not; of a failed one, what it did. */
  readonly replicaStepsInAll: number;
  /** Since the call. */
  readonly elapsedMs: number;
  /** At the rate so far. */
  readonly remainingMs: number;
  /** At the rate so far. */
  readonly replicaStepsPerSecond: number;
}

/** How many runs are watched and stopped. */
export interface ManyOptions<K = number | string> {
  /** Stops every worker, each after the chunk in progress. */
  readonly signal?: AbortSignal;
  /** Called as workers report. */
  readonly onProgress?: (progress: ManyProgress) => void;
  /** Told each result as it comes, in no fixed order, with the task's index or name. */
  readonly onResult?: (result: TaskResult, key: K) => void;
  /** How often a task whose worker died is tried again, 0 when absent. */
  readonly retries?: number;
}

/** How many threads, and what they run. */
export interface PoolOptions {
  /** Threads at most, the number of cores when absent; they start when there is work for them. */
  readonly workers?: number;
  /** The program of the workers, for pages whose bundler does not copy it: the URL of `noetherflow/parallel-worker.js`. */
  readonly worker?: URL | string;
}

/** A task with its place among the results. */
interface Entry<K> {
  readonly key: K;
  readonly task: Task;
  /** Steps of one replica: as many as there are (fewer once it failed), and done so far. */
  size: number;
  done: number;
  result: TaskSoFar | null;
}

/** Everything that one call of simulateMany shares between its tasks. */
interface Call<K> {
  readonly name: string;
  readonly options: ManyOptions<K>;
  readonly entries: readonly Entry<K>[];
  readonly began: number;
  /** Why it stops before its end. */
  stopped: { readonly reason: unknown } | null;
  /** What stopping has to reach: tasks under way, and waits for a worker. */
  readonly open: Set<() => void>;
}

/** A worker that has not answered this long after it was told to stop is ended. */
const STOP_MS = 2000;
const MOST_WORKERS = 1024;

/**
 * Worker threads, each with a Wasm instance of its own. They start when they are needed and stay for the next call; a process
 * ends only after `dispose`.
 */
export class Pool {
  /** Threads at most. */
  readonly workers: number;
  readonly #threads: ThreadPool;
  #free: number;
  readonly #waiting = new Set<() => void>();
  readonly #calls = new Map<(reason: unknown) => void, Promise<unknown>>();
  #disposed = false;

  /** @internal use createPool */
  constructor(options: PoolOptions, ownWorker: () => URL) {
    const where = "createPool";
    checkKnown(where, checkObject(where, "{ workers?, worker? }", options), ["workers", "worker"]);
    this.workers = checkInteger(where, "workers", options.workers ?? Math.max(1, cpus ?? 1), 1, MOST_WORKERS);
    this.#free = this.workers;
    const { worker } = options;
    if (worker !== undefined && typeof worker !== "string" && !(worker instanceof URL))
      fail("shape", where, "worker must be a URL", show(worker));
    const script = (worker ?? ownWorker()) as string; // URLs are taken as they are, in Node and in browsers
    this.#threads = threadPool({
      maxWorkers: this.workers,
      workerOpts: { type: "module", name: "noetherflow" },
      onCreateWorker: () => ({ script }),
    });
    const symbol = (Symbol as { asyncDispose?: symbol }).asyncDispose;
    if (symbol !== undefined) Object.defineProperty(this, symbol, { value: () => this.dispose() });
  }

  /**
   * Does many runs, each in one of the workers. Results stand where their tasks stand: an array for an array, names for names.
   * Neither the number of workers nor their timing changes a bit of a run.
   *
   * @returns for every task its run, or the NoetherflowError it ended with; one that fails, or whose worker dies, ends no other
   * @throws  NoetherflowError for tasks and options that are none; the signal's reason after an abort, with `{ runs }` so far as
   *          `recorded`, unless it is a primitive or frozen
   * @cost    a copy of the data of each task, and a hash of its result, in the calling thread
   */
  async simulateMany<const T extends readonly Task[] | Readonly<Record<string, Task>>>(
    tasks: T,
    options: ManyOptions<T extends readonly Task[] ? number : string> = {},
  ): Promise<{ runs: { -readonly [K in keyof T]: TaskResult } }> {
    const where = "simulateMany";
    checkKnown(where, checkObject(where, "options { signal?, ... }", options), [
      "signal",
      "onProgress",
      "onResult",
      "retries",
    ]);
    const entries = readTasks(where, tasks);
    const runs = await this.#call(where, entries, options as ManyOptions);
    return { runs: (Array.isArray(tasks) ? runs : byName(entries, runs)) as never };
  }

  /**
   * One run whose replicas are shared out between the workers: the Run, and the hash, of
   * `problem.simulate({ ...options, onDiverge: "stopReplica" })`.
   *
   * @throws NoetherflowError as `simulate` does, and "unsupported" for another onDiverge; the signal's reason after an abort, with the
   *         runs of the parts so far as `recorded`
   */
  async simulateReplicas(
    problem: Problem,
    options: SimulateOptions<Generator, Node>,
    control: Omit<ManyOptions, "onResult"> = {},
  ): Promise<Run> {
    const where = "simulateReplicas";
    checkKnown(where, checkObject(where, "options { signal?, ... }", control), [
      "signal",
      "onProgress",
      "retries",
    ]);
    const whole = goOn(options);
    refuseOwn(where, whole);
    const settings = problem.settings(whole);
    const count = settings.eta.length;
    const spec = problem.describe(whole);
    const parts = splitReplicas(count, this.workers);
    const tasks =
      parts.length === 1 ? [spec] : parts.map(({ replicas }) => partOf(spec, problem.P, count, replicas));
    const ends = await this.#call(where, readTasks(where, tasks), control);
    const runs = ends.map((end) => {
      if (end.status === "failed") throw end.error;
      return end.run;
    });
    return mergeRuns(parts, runs, settings);
  }

  /** Ends all workers. Calls under way reject with what they have so far. */
  async dispose(): Promise<void> {
    this.#disposed = true;
    const ended = [...this.#calls.values()];
    for (const stop of this.#calls.keys()) stop(new NoetherflowError("unsupported", "dispose", DISPOSED));
    await Promise.allSettled(ended);
    await this.#threads.terminate(true);
  }

  async #call<K extends number | string>(
    name: string,
    entries: readonly Entry<K>[],
    options: ManyOptions<K>,
  ): Promise<TaskResult[]> {
    if (this.#disposed) throw new NoetherflowError("unsupported", name, DISPOSED);
    checkOptions(name, options);
    const { signal } = options;
    signal?.throwIfAborted();
    const call: Call<K> = {
      name,
      options,
      entries,
      began: performance.now(),
      stopped: null,
      open: new Set(),
    };
    const stop = (reason: unknown) => {
      if (call.stopped !== null) return;
      call.stopped = { reason };
      for (const end of [...call.open]) end();
    };
    const onAbort = () => stop(signal!.reason);
    signal?.addEventListener("abort", onAbort, { once: true });
    const work = this.#workThrough(call, stop);
    this.#calls.set(stop, work);
    try {
      await work;
    } finally {
      this.#calls.delete(stop);
      signal?.removeEventListener("abort", onAbort);
    }
    const { stopped } = call as Call<K>;
    if (stopped === null) return entries.map((entry) => entry.result as TaskResult);
    const soFar = entries.map((entry) => entry.result ?? ({ status: "aborted", run: null } as const));
    throw withRecorded(stopped.reason, {
      runs: typeof entries[0]?.key === "string" ? byName(entries, soFar) : soFar,
    });
  }

  /** As many tasks at a time as there are workers, each begun when one is free. */
  async #workThrough<K>(call: Call<K>, stop: (reason: unknown) => void): Promise<void> {
    const { options, entries } = call;
    const queue = entries.values();
    const tell = (f: () => void) => {
      try {
        f();
      } catch (error) {
        stop(error);
      }
    };
    const report = () => {
      if (options.onProgress !== undefined && call.stopped === null)
        tell(() => options.onProgress!(progressOf(call)));
    };
    const lane = async () => {
      while (call.stopped === null && (await this.#acquire(call))) {
        try {
          const next = queue.next();
          if (next.done || call.stopped !== null) return;
          const entry = next.value;
          const result = await this.#perform(call, entry, report);
          entry.result = result;
          if (result.status === "aborted") return;
          if (result.status === "done") entry.done = entry.size;
          else entry.size = entry.done;
          if (options.onResult !== undefined && call.stopped === null)
            tell(() => options.onResult!(result, entry.key));
          report();
        } finally {
          this.#release();
        }
      }
    };
    await Promise.all(Array.from({ length: Math.min(this.workers, entries.length) }, lane));
  }

  /** Waits for a free worker; false when the call is stopped first. */
  #acquire<K>(call: Call<K>): Promise<boolean> {
    if (this.#free > 0) {
      this.#free--;
      return Promise.resolve(true);
    }
    return new Promise((resolve) => {
      const leave = (won: boolean) => {
        this.#waiting.delete(take);
        call.open.delete(giveUp);
        resolve(won);
      };
      const take = () => leave(true);
      const giveUp = () => leave(false);
      this.#waiting.add(take);
      call.open.add(giveUp);
    });
  }

  #release(): void {
    const [next] = this.#waiting;
    if (next === undefined) this.#free++;
    else next();
  }

  /** One task, again in another worker when its worker dies and there are tries left. */
  async #perform<K>(call: Call<K>, entry: Entry<K>, report: () => void): Promise<TaskSoFar> {
    const where = `${call.name}: task ${entry.key}`;
    for (let tries = call.options.retries ?? 0; ; ) {
      try {
        const answer = await this.#ask(where, call, entry, report);
        if (answer.status === "done") return { status: "done", run: unpackRun(answer.run) };
        if (answer.status === "aborted")
          return { status: "aborted", run: answer.run && unpackRun(answer.run) };
        return { status: "failed", error: unpackError(where, answer.error) };
      } catch (error) {
        if (call.stopped !== null) return { status: "aborted", run: null };
        if (error instanceof NoetherflowError) return { status: "failed", error };
        // one that had died before, when nobody was looking
        if ((error as Error).message === "Worker is terminated") continue;
        if (tries-- > 0) continue;
        return { status: "failed", error: deathOf(where, error) };
      }
    }
  }

  /** Sends a task to a worker. Rejects when the task cannot be sent, or with an error of workerpool's when the worker dies. */
  async #ask<K>(where: string, call: Call<K>, entry: Entry<K>, report: () => void): Promise<AnswerWire> {
    const spec = ownCopy(where, describeTask(where, entry.task));
    const { port1, port2 } = new MessageChannel();
    const onProgress = (done: ProgressWire) => {
      // a second try begins at 0 again
      if (done <= entry.done) return;
      entry.done = Math.min(entry.size, done);
      report();
    };
    let timer: ReturnType<typeof setTimeout> | undefined;
    const answer = this.#threads.exec("simulate", [{ spec, control: port2 }], {
      transfer: [port2, ...buffersIn(spec)],
      on: onProgress,
    });
    const stop = () => {
      port1.postMessage("stop");
      timer = setTimeout(() => answer.cancel(), STOP_MS);
    };
    call.open.add(stop);
    try {
      return await (answer as unknown as PromiseLike<AnswerWire>);
    } finally {
      clearTimeout(timer);
      call.open.delete(stop);
      port1.close();
    }
  }
}

const DISPOSED = { expected: "the pool was disposed of", hint: "Make a new one with createPool." };

/** Options of simulate that belong to the thread that asks for a run. */
const OWN = {
  signal: "Give it to the call.",
  onProgress: "Give it to the call.",
  probes: "Functions cannot go to another thread; record values.",
  checkpoint: "Functions cannot go to another thread.",
  resume: "A checkpoint resumes in the thread that has it.",
  profile: "Profile a run of its own.",
} as const;

function refuseOwn(where: string, options: SimulateOptions<Generator, Node>): void {
  for (const [name, hint] of Object.entries(OWN))
    if (options[name as keyof typeof OWN] !== undefined)
      fail("unsupported", where, "options that another thread can take", name, hint);
}

function describeTask(where: string, task: Task): RunSpec {
  if (!("problem" in task)) return task;
  refuseOwn(where, task.options);
  return task.problem.describe(task.options);
}

/** A copy for a worker to own, whose buffers can be transferred. */
function ownCopy(where: string, spec: RunSpec): RunSpec {
  try {
    return structuredClone(spec);
  } catch (error) {
    return fail("shape", where, "a run as plain data", show((error as Error).message));
  }
}

function readTasks(where: string, tasks: unknown): Entry<never>[] {
  const given = Array.isArray(tasks)
    ? [...tasks.entries()]
    : Object.entries(checkObject(where, "tasks, as an array or by name", tasks));
  if (!Array.isArray(tasks) && ("schema" in (tasks as object) || "problem" in (tasks as object)))
    fail("shape", where, "tasks, as an array or by name", "one task", "Pass [task].");
  return given.map(([key, task]) => {
    const isTask =
      typeof task === "object" &&
      task !== null &&
      ("schema" in task || ("problem" in task && "options" in task));
    if (!isTask)
      fail(
        "shape",
        `${where}: task ${key}`,
        "what problem.describe(options) returns, or { problem, options }",
        show(task),
      );
    const options: unknown = (task as { options?: unknown }).options;
    const { steps, replicas = 1 } = (options ?? {}) as { steps?: unknown; replicas?: unknown };
    const size = Number(steps) * Number(replicas);
    // what is no number is refused where the task is read
    return {
      key: key as never,
      task: task as Task,
      size: Number.isFinite(size) ? size : 0,
      done: 0,
      result: null,
    };
  });
}

function checkOptions<K>(where: string, options: ManyOptions<K>): void {
  const { signal, onProgress, onResult, retries } = options;
  if (signal !== undefined && typeof signal?.throwIfAborted !== "function")
    fail("shape", where, "signal must be an AbortSignal", show(signal));
  for (const [name, f] of Object.entries({ onProgress, onResult }))
    if (f !== undefined && typeof f !== "function")
      fail("shape", where, `${name} must be a function`, show(f));
  if (retries !== undefined) checkInteger(where, "retries", retries, 0, 1000);
}

function byName<T>(entries: readonly Entry<unknown>[], results: readonly T[]): Record<string, T> {
  return Object.fromEntries(entries.map(({ key }, i) => [String(key), results[i]!]));
}

function progressOf<K>({ entries, began }: Call<K>): ManyProgress {
  const ends = entries.flatMap(({ result }) => (result === null ? [] : [result]));
  const done = entries.reduce((n, entry) => n + entry.done, 0);
  const all = entries.reduce((n, entry) => n + entry.size, 0);
  const elapsedMs = performance.now() - began;
  return {
    tasks: entries.length,
    ended: ends.length,
    failed: ends.filter(({ status }) => status === "failed").length,
    replicaSteps: done,
    replicaStepsInAll: all,
    elapsedMs,
    remainingMs: (elapsedMs * (all - done)) / Math.max(1, done),
    replicaStepsPerSecond: (1000 * done) / Math.max(1e-3, elapsedMs),
  };
}

/** What happened to a worker, from what workerpool says of it. */
function deathOf(where: string, error: unknown): NoetherflowError {
  const { message, cause } = error as Error & { cause?: { code?: unknown } };
  const code = /exitCode: `(-?\d+)`/.exec(message)?.[1];
  const said = message.replace(/^Workerpool Worker error: /, "").replace(/\.$/, "");
  const isMemory = cause?.code === "ERR_WORKER_OUT_OF_MEMORY";
  const died = new NoetherflowError(isMemory ? "memory" : "internal", where, {
    expected: "the worker of this task must live until it is done",
    got:
      code !== undefined
        ? `its exit with code ${code}`
        : error instanceof TerminateError
          ? `its end: ${said}`
          : said,
    hint: isMemory
      ? "Record less often, or use fewer workers. The other tasks went on."
      : "The other tasks went on; retries: 1 tries such a task once more, in a new worker.",
  });
  died.cause = error;
  return died;
}

/** The reason of an abort; what was recorded so far is on it when it is an object. */
function withRecorded(reason: unknown, recorded: unknown): unknown {
  if (typeof reason === "object" && reason !== null) {
    try {
      Object.defineProperty(reason, "recorded", { value: recorded, configurable: true, enumerable: false });
    } catch {
      // a frozen reason is the caller's own choice
    }
  }
  return reason;
}

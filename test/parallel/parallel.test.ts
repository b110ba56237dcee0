/**
 * Runs over worker threads: the same bits as in the calling thread, whatever the number of workers, their timing and their end. The
 * workers run the sources through jiti (src/parallel-worker.js); `npm run test:package` does the same with what the build makes.
 */
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  createEngine,
  type Engine,
  model,
  momentMatched,
  NoetherflowError,
  ops,
  type Problem,
  type Run,
  type RunSpec,
  sampler,
  symmetry,
} from "../../src/index.ts";
import {
  createPool,
  type ManyProgress,
  simulateMany,
  simulateReplicas,
  type TaskResult,
  type TaskSoFar,
} from "../../src/parallel.ts";

type Options = Parameters<Problem["simulate"]>[0];

const unruly = new URL("./unruly-worker.js", import.meta.url);
const net = model({
  params: { U: [2, 3], W: [3, 3] },
  inputs: { x: [3], y: [2] },
  loss: ({ U, W, x, y }) => ops.sqnorm(ops.sub(ops.matmul(U, ops.tanh(ops.matmul(W, x))), y)),
});
const teacher = sampler({
  noise: { x: { kind: "normal", shape: [3] }, e: { kind: "normal", shape: [2] } },
  outputs: ({ x, e }) => ({ x, y: ops.add(ops.slice(x, { stop: 2 }), ops.scale(e, 0.5)) }),
});
const linear = model({
  params: { U: [2, 3], W: [3, 3] },
  inputs: { x: [3], y: [2] },
  loss: ({ U, W, x, y }) => ops.sqnorm(ops.sub(ops.matmul(U, ops.matmul(W, x)), y)),
});
const x = [1, 0.5, -1, 0, 2, 0.25, -0.5, 1, 1, 0.75, -1.5, 0.5];
const y = [1, -1, 0.5, 0, 2, 1, -0.25, 0.75];
const theta = Array.from({ length: net.P }, (_, j) => Math.sin(j + 1));
const base: Options = { scheme: "sgd", theta, eta: 0.02, batchSize: 2, steps: 400, seed: "parallel" };
const descent: Options = { scheme: "gd", theta, eta: 0.02, steps: 400 };
const records: Options["record"] = {
  every: 50,
  loss: "full",
  blockNorms: true,
  work: true,
  charges: {
    C: symmetry.rescaling("U", "W"),
    D: symmetry.doubleRotation("U", "W", [
      [1, 0.5, 0],
      [0.5, 2, 0],
      [0, 0, 1],
    ]),
  },
  matrixCharges: { Q: ["U", "W"] },
  values: {
    product: ops.matmul(net.leaf("U"), net.leaf("W")),
    half: ops.scale(ops.sqnorm(net.leaf("U")), 0.5),
  },
  average: { from: 100 },
};

let f64: Engine;
let f32: Engine;
let problem: Problem;
/** Pools that tests share, by their number of workers. */
const pools = new Map([1, 2, 4].map((workers) => [workers, createPool({ workers })]));
beforeAll(async () => {
  f64 = await createEngine();
  f32 = await createEngine({ dtype: "f32" });
  problem = f64.problem(net, { x, y });
});
afterAll(async () => {
  for (const pool of pools.values()) await pool.dispose();
  f64.dispose();
  f32.dispose();
});

/** The run of a task that is done. */
function runOf(result: TaskResult | undefined): Run {
  if (result?.status !== "done") throw result?.error ?? new Error("there is no such task");
  return result.run;
}

function errorOf(result: TaskResult | undefined): NoetherflowError {
  if (result?.status !== "failed") throw new Error("expected a task that failed");
  return result.error;
}

async function rejection(promise: Promise<unknown>): Promise<unknown> {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  throw new Error("expected a rejection");
}

/** A run of hours. */
const endless = (seed: string): RunSpec => problem.describe({ ...base, steps: 2_000_000_000, seed });

describe("runs over workers", () => {
  let tasks: { problem: Problem; options: Options }[];
  let alone: Run[];
  beforeAll(async () => {
    tasks = [
      { problem, options: { ...base, record: records, replicas: 5 } },
      {
        problem,
        options: { ...descent, eta: [0.01, 0.03], replicas: 2 },
      },
      { problem: f32.problem(net, { x, y }), options: { ...base, record: records } },
      {
        problem: f64.problem(net, teacher),
        options: { ...base, sampling: "online", record: { every: 20, loss: "batch" } },
      },
      {
        problem: f64.problem(net, teacher, { samples: 40, dataSeed: "d" }),
        options: { ...base, sampling: "without" },
      },
      {
        problem: f64.problem(linear, momentMatched(teacher)),
        options: descent,
      },
      { problem: f32.problem(net, teacher), options: { ...base, replicas: 9, firstReplica: 4 } },
      { problem, options: { ...base, eta: 40, record: { every: 10, loss: "full" } } },
      {
        problem,
        options: {
          ...base,
          theta: { U: theta.slice(0, 6), W: theta.slice(6) },
          lowering: { lanes: "features" },
        },
      },
    ];
    alone = [];
    for (const task of tasks) alone.push(await task.problem.simulate(task.options));
  });

  test.each([1, 2, 4])(
    "have the hashes and the series of the calling thread with %i workers",
    async (workers) => {
      const { runs } = await pools.get(workers)!.simulateMany(tasks);
      expect(runs.map((end) => runOf(end).hash)).toEqual(alone.map((run) => run.hash));
      expect(runs.map((end) => runOf(end).toJSON())).toEqual(alone.map((run) => run.toJSON()));
      expect(runs.map((end) => runOf(end).toCSV())).toEqual(alone.map((run) => run.toCSV()));
      for (const [i, end] of runs.entries()) {
        expect(runOf(end)).toBeInstanceOf(alone[i]!.constructor);
        expect(runOf(end).averages).toEqual(alone[i]!.averages);
      }
      expect(alone[7]!.status).toBe("diverged");
    },
  );

  test("have them as descriptions that were kept elsewhere, without a problem", async () => {
    const described = tasks.map((task) => structuredClone(task.problem.describe(task.options)));
    const { runs } = await simulateMany(described, { workers: 2 });
    expect(runs.map((end) => runOf(end).hash)).toEqual(alone.map((run) => run.hash));
  });

  test("stand where their tasks stand, whichever ends first, in an array and by name", async () => {
    // the first keeps its worker for a tenth of a second or more, by which time the other has done the second
    const steps = [1_000_000, 10, 20_000, 20];
    const of = (n: number) => problem.describe({ ...base, steps: n });
    const order: unknown[] = [];
    const pool = pools.get(2)!;
    const { runs } = await pool.simulateMany(steps.map(of), { onResult: (_, key) => order.push(key) });
    expect(runs.map((end) => runOf(end).steps)).toEqual(steps);
    expect([...order].sort()).toEqual([0, 1, 2, 3]);
    expect(order[0]).not.toBe(0);
    const named = await pool.simulateMany({
      long: of(2000),
      short: { problem, options: { ...base, steps: 3 } },
    });
    expect(Object.keys(named.runs)).toEqual(["long", "short"]);
    expect([runOf(named.runs.long).steps, runOf(named.runs.short).steps]).toEqual([2000, 3]);
    expect((await pool.simulateMany([])).runs).toEqual([]);
  });
});

describe("one run with its replicas over workers", () => {
  const R = 37;
  const each = (f: (r: number) => number) => Array.from({ length: R }, (_, r) => f(r));
  const cases: [string, Options][] = [
    ["one value for all", { ...base, replicas: R, firstReplica: 3, record: records }],
    [
      "rates, decay, momentum and thetas of their own",
      {
        ...base,
        replicas: R,
        eta: each((r) => 0.001 * (r + 1)),
        weightDecay: { U: each((r) => 1e-4 * r) },
        momentum: each((r) => 0.01 * r),
        theta: Float64Array.from({ length: R * net.P }, (_, i) => Math.cos(i)),
        record: { every: 100, loss: "batch" },
      },
    ],
    [
      "seeds, batch sizes, streams and lists of thetas",
      {
        ...base,
        replicas: R,
        seed: each((r) => r % 3).map(String),
        batchSize: each((r) => 1 + (r % 2)),
        streams: each((r) => 7 * r),
        theta: each((r) => r).map((r) => theta.map((t) => t + r / 100)),
      },
    ],
    [
      "lost ones among them",
      { ...base, replicas: R, eta: each((r) => (r < 20 ? 60 : 0.02)), record: records },
    ],
    ["fewer replicas than workers", { ...base, replicas: 2 }],
  ];
  test.each(cases)("has the hash of the single run: %s", async (_, options) => {
    const single = await problem.simulate({ ...options, onDiverge: "stopReplica" });
    for (const pool of pools.values()) {
      const run = await pool.simulateReplicas(problem, options);
      expect(run.hash).toBe(single.hash);
      expect(run.hashes).toEqual(single.hashes);
      expect(run.settings).toEqual(single.settings);
      expect([run.status, run.steps, run.diverged]).toEqual([single.status, single.steps, single.diverged]);
      expect(run.averages).toEqual(single.averages);
    }
  });

  test("has other data for each replica, of the same sampler", async () => {
    const set = f64.problem(net, teacher, { samples: 20 });
    const options: Options = { ...base, replicas: 6, dataSeed: ["a", "b", "a", "c", "b", "d"] };
    const run = await simulateReplicas(set, options, { workers: 2 });
    expect(run.hash).toBe((await set.simulate(options)).hash);
    set.dispose();
  });

  test("refuses what other threads cannot stop or take, and mistakes, before any work", async () => {
    for (const onDiverge of ["stop", "throw"] as const)
      expect(String(await rejection(simulateReplicas(problem, { ...base, onDiverge })))).toContain(
        'simulateReplicas: onDiverge: "stopReplica"',
      );
    expect(await rejection(simulateReplicas(problem, { ...base, eta: -1 }))).toMatchObject({
      code: "range",
      where: "sgd",
    });
  });
});

describe("a task that fails", () => {
  test("has the NoetherflowError of the calling thread, whole, and ends no other", async () => {
    const bad: Options[] = [
      { ...base, eta: -1 },
      { ...base, theta: [1, 2] },
      { ...base, eta: 40, onDiverge: "throw", record: { every: 10, loss: "full" } },
    ];
    const here = await Promise.all(bad.map((options) => rejection(problem.simulate(options))));
    const good = problem.describe(base);
    // mistakes that only the worker finds
    const specs = bad.map((options) => ({ ...good, options: { ...options } }));
    const { runs } = await simulateMany([...specs, good, ...bad.map((options) => ({ problem, options }))], {
      workers: 2,
    });
    expect(runs.map((end) => end.status)).toEqual(
      "failed failed failed done failed failed failed".split(" "),
    );
    for (const [i, expected] of here.entries()) {
      for (const error of [errorOf(runs[i]), errorOf(runs[4 + i])]) {
        expect(error).toBeInstanceOf(NoetherflowError);
        const { code, where, expected: what, got, hint, message } = expected as NoetherflowError;
        expect(error).toMatchObject({ code, where, expected: what, message });
        expect([error.got, error.hint]).toEqual([got, hint]);
      }
    }
    const recorded = errorOf(runs[2]).recorded as Run;
    expect(recorded.hash).toBe(((here[2] as NoetherflowError).recorded as Run).hash);
  });

  test("says so when it is no plain data, or asks for what only one thread has", async () => {
    const spec = problem.describe(base);
    const { runs } = await simulateMany(
      [
        { ...spec, options: { ...spec.options, theta: () => theta } },
        { problem, options: { ...base, signal: new AbortController().signal } },
        { problem, options: { ...base, probes: { every: 1, measures: {} } } },
        { ...spec, schema: "noetherflow-spec/9" as never },
      ],
      { workers: 1 },
    );
    expect(runs.map((end) => errorOf(end).message)).toEqual([
      expect.stringMatching(/^simulateMany: task 0: a run as plain data, got ".*could not be cloned/),
      "simulateMany: task 1: options that another thread can take, got signal. Give it to the call.",
      expect.stringContaining("task 2: options that another thread can take, got probes."),
      expect.stringContaining('spec.schema: this version reads "noetherflow-spec/1"'),
    ]);
  });
});

describe("a worker that dies", () => {
  const of = (seed: string) => problem.describe({ ...base, seed });

  test.each([
    ["exit", "its exit with code 3"],
    ["throw", "its end: a bug in a timer"],
  ])("fails its own task alone, and another takes its place: %s", async (mood, got) => {
    for (const workers of [1, 2]) {
      const seeds = ["a", mood, "b", "c", mood, "d"];
      const { runs } = await simulateMany(seeds.map(of), { workers, worker: unruly });
      expect(runs.map((end) => end.status)).toEqual(seeds.map((seed) => (seed === mood ? "failed" : "done")));
      const error = errorOf(runs[4]);
      expect(error).toBeInstanceOf(NoetherflowError);
      expect(error.message).toBe(
        `simulateMany: task 4: the worker of this task must live until it is done, got ${got}. The other tasks went on; ` +
          "retries: 1 tries such a task once more, in a new worker.",
      );
      for (const i of [0, 2, 3, 5])
        expect(runOf(runs[i]).hash).toBe((await problem.simulate({ ...base, seed: seeds[i]! })).hash);
    }
  });

  test("is tried again as often as asked", async () => {
    // "exit once" ends a worker that has done something before
    const seeds = ["a", "exit once", "exit", "b"];
    const { runs } = await simulateMany(seeds.map(of), { workers: 1, worker: unruly, retries: 1 });
    expect(runs.map((end) => end.status)).toEqual(["done", "done", "failed", "done"]);
    expect(runOf(runs[1]).hash).toBe((await problem.simulate({ ...base, seed: "exit once" })).hash);
  });

  test("between two tasks is replaced without a word", async () => {
    const pool = createPool({ workers: 1, worker: unruly });
    expect(runOf((await pool.simulateMany([of("exit later")])).runs[0]).steps).toBe(400);
    await new Promise((resolve) => setTimeout(resolve, 500));
    expect(runOf((await pool.simulateMany([of("a")])).runs[0]).steps).toBe(400);
    await pool.dispose();
  });

  test("whose program cannot be loaded says so", async () => {
    const { runs } = await simulateMany([of("a")], {
      workers: 1,
      worker: new URL("./nothing.js", import.meta.url),
    });
    expect(errorOf(runs[0]).message).toContain("Cannot find module");
  });
});

describe("an abort", () => {
  test("stops all workers within two chunks, and what was done and half done is on the reason", async () => {
    const pool = pools.get(2)!;
    await pool.simulateMany([problem.describe(base), problem.describe(base)]); // both have started
    const abort = new AbortController();
    const reason = new Error("enough");
    let at = 0;
    const tasks = [problem.describe({ ...base, steps: 100 }), endless("a"), endless("b"), endless("c")];
    const error = await rejection(
      pool.simulateMany(tasks, {
        signal: abort.signal,
        onProgress: ({ ended, replicaSteps }) => {
          if (ended < 1 || replicaSteps < 20_000 || abort.signal.aborted) return;
          at = performance.now();
          abort.abort(reason);
        },
      }),
    );
    expect(error).toBe(reason);
    // chunks are 10 ms; the rest is for other programs on the cores
    expect(performance.now() - at).toBeLessThan(1500);
    const { runs } = (error as unknown as { recorded: { runs: TaskSoFar[] } }).recorded;
    expect(runs.map((end) => end.status)).toEqual(["done", "aborted", "aborted", "aborted"]);
    const halves = runs.slice(1).map((end) => (end.status === "aborted" ? end.run : null));
    expect(halves[2]).toBeNull();
    for (const [i, half] of halves.slice(0, 2).entries()) {
      expect(half!.status).toBe("aborted");
      expect(half!.steps).toBeGreaterThan(0);
      const again = await problem.simulate({ ...base, steps: half!.steps, seed: "ab"[i]! });
      expect(half!.hash).toBe(again.hash);
    }
    // the workers are there for the next call
    expect(runOf((await pool.simulateMany([problem.describe(base)])).runs[0]).steps).toBe(400);
  });

  test("before the start throws the reason; during a hang of a worker it ends the worker", async () => {
    const reason = new Error("not today");
    expect(await rejection(simulateMany([endless("a")], { signal: AbortSignal.abort(reason) }))).toBe(reason);
    const { runs } = (
      (await rejection(
        simulateMany([problem.describe({ ...base, seed: "hang" })], {
          worker: unruly,
          workers: 1,
          signal: AbortSignal.timeout(1000),
        }),
      )) as { recorded: { runs: TaskSoFar[] } }
    ).recorded;
    expect(runs).toEqual([{ status: "aborted", run: null }]);
  });

  test("comes from a callback that throws, too", async () => {
    const thrown = new Error("in a callback");
    const onResult = () => {
      throw thrown;
    };
    expect(
      await rejection(simulateMany([problem.describe(base), endless("a")], { workers: 2, onResult })),
    ).toBe(thrown);
  });

  test("of one call leaves another on the same pool alone, whether it runs or waits", async () => {
    const pool = pools.get(1)!;
    const first = new AbortController();
    const long = pool.simulateMany([endless("a")], { signal: first.signal });
    const waiting = new AbortController();
    const waits = pool.simulateMany([endless("b")], { signal: waiting.signal });
    const last = pool.simulateMany([problem.describe(base)]);
    waiting.abort();
    expect(await rejection(waits)).toMatchObject({ name: "AbortError" });
    first.abort();
    expect(await rejection(long)).toMatchObject({ name: "AbortError" });
    expect(runOf((await last).runs[0]).steps).toBe(400);
  });
});

describe("a pool", () => {
  test("tells the progress of all tasks together, which never goes back and ends at the end", async () => {
    const tasks = [20_000, 40_000, 60_000].map((steps) => problem.describe({ ...base, steps, replicas: 4 }));
    const seen: ManyProgress[] = [];
    await pools
      .get(2)!
      .simulateMany([...tasks, problem.describe({ ...base, eta: 1e9, onDiverge: "throw" })], {
        onProgress: (progress) => seen.push(progress),
      });
    expect(seen.length).toBeGreaterThan(3);
    const share = ({ replicaSteps, replicaStepsInAll }: ManyProgress) => replicaSteps / replicaStepsInAll;
    for (const [i, now] of seen.entries()) {
      const before = seen[i - 1];
      if (before === undefined) continue;
      expect(share(now)).toBeGreaterThanOrEqual(share(before));
      expect(now.ended).toBeGreaterThanOrEqual(before.ended);
      expect(now.elapsedMs).toBeGreaterThanOrEqual(before.elapsedMs);
    }
    const last = seen.at(-1)!;
    expect(last).toMatchObject({ tasks: 4, ended: 4, failed: 1, remainingMs: 0 });
    // the task that failed may have told of its steps before
    expect(last.replicaStepsInAll).toBe(last.replicaSteps);
    expect(last.replicaSteps).toBeGreaterThanOrEqual(480_000);
    expect(last.replicaSteps).toBeLessThanOrEqual(480_400);
    expect(last.replicaStepsPerSecond).toBeCloseTo((1000 * last.replicaSteps) / last.elapsedMs, 6);
  });

  test("works beside another, and for several calls at once", async () => {
    const batch = (name: string) =>
      Array.from({ length: 5 }, (_, i) => problem.describe({ ...base, seed: `${name}${i}`, steps: 2000 }));
    const names = ["p", "q", "r"];
    const ends = await Promise.all(names.map((name, i) => pools.get(1 + (i % 2))!.simulateMany(batch(name))));
    for (const [n, { runs }] of ends.entries())
      for (const [i, end] of runs.entries())
        expect(runOf(end).hash).toBe(
          (await problem.simulate({ ...base, seed: `${names[n]}${i}`, steps: 2000 })).hash,
        );
  });

  test("that is disposed of ends its calls and takes no more", async () => {
    const pool = createPool({ workers: 1 });
    const many = rejection(pool.simulateMany([endless("a")]));
    await pool.dispose();
    expect(String(await many)).toContain(
      "dispose: the pool was disposed of. Make a new one with createPool.",
    );
    expect(String(await rejection(pool.simulateMany([])))).toContain(
      "simulateMany: the pool was disposed of.",
    );
  });

  test("refuses options and tasks that are none", async () => {
    expect(() => createPool({ workers: 0 })).toThrow(
      "createPool: workers must be an integer in [1, 1024], got 0.",
    );
    expect(() => createPool({ threads: 2 } as never)).toThrow("createPool: options are workers, worker");
    expect(() => createPool({ worker: 3 as never })).toThrow("createPool: worker must be a URL, got 3.");
    const spec = problem.describe(base);
    const refused: [unknown, unknown, string][] = [
      [spec, {}, "simulateMany: tasks, as an array or by name, got one task. Pass [task]."],
      [3, {}, "simulateMany: expected tasks, as an array or by name, got 3."],
      [
        [spec, 3],
        {},
        "simulateMany: task 1: what problem.describe(options) returns, or { problem, options }, got 3.",
      ],
      [[spec], { retries: -1 }, "simulateMany: retries must be an integer in [0, 1000], got -1."],
      [[spec], { onProgress: 1 }, "simulateMany: onProgress must be a function, got 1."],
      [[spec], { signal: {} }, "simulateMany: signal must be an AbortSignal, got an object with keys ."],
      [[spec], { abort: 1 }, 'simulateMany: options are signal, onProgress, onResult, retries, got "abort".'],
    ];
    for (const [tasks, options, message] of refused)
      expect(String(await rejection(pools.get(2)!.simulateMany(tasks as never, options as never)))).toBe(
        `NoetherflowError: ${message}`,
      );
  });
});

describe("a process", () => {
  const run = (mood: string, ...flags: string[]) => {
    const path = (relative: string) => fileURLToPath(new URL(relative, import.meta.url));
    const jiti = path("../../node_modules/jiti/lib/jiti-cli.mjs");
    const { stdout, stderr, status, error } = spawnSync(
      process.execPath,
      [...flags, jiti, path("script.ts"), mood],
      { encoding: "utf8", timeout: 30_000 },
    );
    if (error !== undefined) throw error;
    return { lines: stdout.trim().split("\n"), stderr, status };
  };

  test.each(["pool", "abort", "exit"])("ends by itself: %s", (mood) => {
    const { lines, stderr, status } = run(mood);
    expect(stderr).toBe("");
    expect(status).toBe(0);
    expect(lines.at(-1)).toBe("end");
  });

  test("survives a worker that runs out of memory", () => {
    const { lines } = run("heap", "--max-old-space-size=150");
    expect(lines).toEqual([
      "done",
      expect.stringMatching(/^\[memory\] simulateMany: task 1: .*out of memory\. Record less often/),
      "done",
      "end",
    ]);
  });
});

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  createEngine,
  type Engine,
  type Model,
  model,
  NoetherflowError,
  ops,
  type Problem,
  type Progress,
  type Run,
  symmetry,
} from "../../src/index.ts";
import { descend, goldenProblem, iidBatch, keyOfSeed, twoLayerLinear } from "../reference/sgd.ts";

let engine: Engine;
beforeAll(async () => {
  engine = await createEngine();
});
afterAll(() => engine.dispose());

type Options = Parameters<Problem["simulate"]>[0];

const lanes = ["samples", "replicas", "features"] as const;
/** What `advance` returns when its blocks are used up before the chunk is through. */
const PAUSED = -2_147_483_648;
const golden = goldenProblem();
const start = [...golden.U, ...golden.W];
const net = model({
  params: { U: [2, 2], W: [2, 3] },
  inputs: { x: [3], y: [2] },
  loss: ({ U, W, x, y }) => ops.sqnorm(ops.sub(ops.matmul(U, ops.matmul(W, x)), y)),
});
const C = symmetry.doubleRotation("U", "W", golden.B);
const open = (on = engine): Problem => on.problem(net, { x: golden.x, y: golden.y });

/** What a promise rejects with. */
async function rejection(promise: Promise<unknown>): Promise<unknown> {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  throw new Error("expected a rejection");
}

/** A run of some 100,000 steps a second: long enough to be ended from outside. */
const long: Options = {
  scheme: "sgd",
  theta: start,
  eta: 0.01,
  batchSize: 64,
  steps: 100_000_000,
  seed: "long",
  record: { every: 100_000, loss: "full", charges: { C } },
};

describe("an abort", () => {
  test("before the run rejects with the signal's reason and reserves nothing", async () => {
    const problem = open();
    const before = engine.bytesInUse;
    const reason = new Error("not today");
    expect(await rejection(problem.simulate({ ...long, signal: AbortSignal.abort(reason) }))).toBe(reason);
    expect(engine.bytesInUse).toBe(before);
    problem.dispose();
  });

  test("during the run rejects with the reason, what was recorded on it, the memory given back", async () => {
    const problem = open();
    const before = engine.bytesInUse;
    const controller = new AbortController();
    const reason = new Error("enough");
    const options: Options = { ...long, record: { every: 50, loss: "full", charges: { C }, work: true } };
    let calls = 0;
    const error = await rejection(
      problem.simulate({
        ...options,
        steps: 2_000_000,
        signal: controller.signal,
        onProgress: () => {
          if (++calls === 3) controller.abort(reason);
        },
      }),
    );
    expect(error).toBe(reason);
    expect(calls).toBe(3);
    expect(engine.bytesInUse).toBe(before);
    const recorded = (error as { recorded?: Run }).recorded!;
    expect(recorded.status).toBe("aborted");
    expect(recorded.steps).toBeGreaterThan(0);
    expect(recorded.steps).toBeLessThan(2_000_000);
    expect(recorded.series.k).toHaveLength(Math.floor(recorded.steps / 50) + 1);
    // the engine goes on, and a run of as many steps is what was recorded, bit for bit
    const again = await problem.simulate({ ...options, steps: recorded.steps });
    expect(again.hash).toBe(recorded.hash);
    problem.dispose();
  });

  test("from a timer is heard within a second, and the same problem runs afterwards", async () => {
    const problem = open();
    const before = engine.bytesInUse;
    const expected = (await problem.simulate({ ...long, steps: 500, record: { every: 100 } })).hash;
    const controller = new AbortController();
    setTimeout(() => controller.abort(), 30);
    const began = performance.now();
    const error = (await rejection(problem.simulate({ ...long, signal: controller.signal }))) as Error;
    expect(performance.now() - began).toBeLessThan(1000);
    expect(error.name).toBe("AbortError");
    expect((error as { recorded?: Run }).recorded!.series.k[0]).toBe(0);
    expect(engine.bytesInUse).toBe(before);
    expect((await problem.simulate({ ...long, steps: 500, record: { every: 100 } })).hash).toBe(expected);
    const timeout = (await rejection(
      problem.simulate({ ...long, signal: AbortSignal.timeout(20) }),
    )) as Error;
    expect(timeout.name).toBe("TimeoutError");
    problem.dispose();
  });

  test("for a reason that cannot carry anything still rejects with that reason", async () => {
    const problem = open();
    for (const reason of ["a word", Object.freeze({ why: "frozen" }), 7]) {
      const controller = new AbortController();
      const error = await rejection(
        problem.simulate({ ...long, signal: controller.signal, onProgress: () => controller.abort(reason) }),
      );
      expect(error).toBe(reason);
    }
    problem.dispose();
  });
});

describe("progress", () => {
  test("steps and time never fall, the last call is the end", async () => {
    const problem = open();
    const seen: Progress[] = [];
    const steps = 60_000;
    const run = await problem.simulate({ ...long, steps, replicas: 2, onProgress: (p) => seen.push(p) });
    problem.dispose();
    expect(run.steps).toBe(steps);
    expect(seen.length).toBeGreaterThan(2);
    for (const [i, p] of seen.entries()) {
      expect(p.steps).toBe(steps);
      expect(p.replicas).toBe(2);
      expect(p.step).toBeGreaterThanOrEqual(seen[i - 1]?.step ?? 1);
      expect(p.elapsedMs).toBeGreaterThanOrEqual(seen[i - 1]?.elapsedMs ?? 0);
      expect(p.remainingMs).toBeGreaterThanOrEqual(0);
      expect(p.replicaStepsPerSecond).toBeGreaterThan(0);
    }
    expect(seen.at(-1)!.step).toBe(steps);
    expect(seen.at(-1)!.remainingMs).toBe(0);
  });

  test("an error thrown by onProgress rejects the run and gives the memory back", async () => {
    const problem = open();
    const before = engine.bytesInUse;
    const mistake = new Error("mine");
    const error = await rejection(
      problem.simulate({
        ...long,
        onProgress: () => {
          throw mistake;
        },
      }),
    );
    expect(error).toBe(mistake);
    expect(engine.bytesInUse).toBe(before);
    problem.dispose();
  });
});

/** l = t^4 / 4 + x t: t' = t - eta (t^3 + x), which leaves every bound once |t| > sqrt(2 / eta). */
const quartic: Model = model({
  params: { t: [] },
  inputs: { x: [] },
  loss: ({ t, x }) => ops.add(ops.scale(ops.square(ops.square(t)), 0.25), ops.mul(x, t)),
});
const shifts = [0.1, -0.2, 0.05, 0.3];

/** Step by step: the first step after which t is not finite, the last finite minibatch loss, the last finite t. */
function quarticEnd(eta: number, t0: number, seed: string, replica: number, steps: number) {
  const key = keyOfSeed(seed);
  let t = t0;
  let lastLoss = Number.NaN;
  for (let k = 0; k < steps; k++) {
    const batch = iidBatch(key, replica, k, 2, 4).map((n) => shifts[n]!);
    const x = (batch[0]! + batch[1]!) / 2;
    const loss = t ** 4 / 4 + x * t;
    if (Number.isFinite(loss)) lastLoss = loss;
    const next = t - eta * (t ** 3 + x);
    if (!Number.isFinite(next)) return { step: k + 1, lastLoss, t };
    t = next;
  }
  return { step: -1, lastLoss, t };
}

describe("divergence", () => {
  // replicas 3 ... 7; the second and the fourth start beyond sqrt(2 / eta)
  const etas = [0.1, 0.1, 0.05, 0.2, 0.1];
  const starts = [0.5, 4.6, -1, 3.4, 2];
  const run = (problem: Problem, more: Partial<Options> = {}): Promise<Run> =>
    problem.simulate({
      scheme: "sgd",
      theta: starts,
      eta: etas,
      batchSize: 2,
      steps: 40,
      replicas: 5,
      firstReplica: 3,
      seed: "diverge",
      record: {
        every: 1,
        loss: "full",
        blockNorms: true,
        values: { t: quartic.leaf("t") },
        average: { from: 2 },
      },
      ...more,
    });
  const make = () => engine.problem(quartic, { x: shifts });
  const ends = starts.map((t, i) => quarticEnd(etas[i]!, t, "diverge", 3 + i, 40));
  const lost = ends.flatMap(({ step }, i) => (step > 0 ? [i] : []));
  const first = Math.min(...lost.map((i) => ends[i]!.step));
  const firstLost = lost.filter((i) => ends[i]!.step === first);

  test("the reference loses two of the five replicas, not at once and not in the first steps", () => {
    expect(lost).toEqual([1, 3]);
    expect(first).toBeGreaterThan(3);
    expect(firstLost).toHaveLength(1);
  });

  for (const where of lanes) {
    for (const chunk of [1, 3, 1000]) {
      const lowering = { lanes: where, chunk, group: 2 };
      const name = `lanes are ${where}, chunk ${chunk}`;

      test(`stop: ends at the last step where all were finite, with its records, ${name}`, async () => {
        const problem = make();
        const ended = await run(problem, { lowering });
        const clean = await run(problem, { steps: first - 1, lowering });
        expect(ended.status).toBe("diverged");
        expect(ended.steps).toBe(first - 1);
        expect(ended.diverged.map((d) => [d.replica, d.step])).toEqual(firstLost.map((i) => [3 + i, first]));
        // what was done before is what a run of that many steps does, bit for bit
        expect(clean.status).toBe("done");
        expect(ended.hashes).toEqual(clean.hashes);
        expect(ended.averages).toEqual(clean.averages);
        problem.dispose();
      });

      test(`stopReplica: the lost ones keep their last finite theta, the others go on unchanged, ${name}`, async () => {
        const problem = make();
        const ended = await run(problem, { onDiverge: "stopReplica", lowering });
        expect(ended.status).toBe("diverged");
        expect(ended.steps).toBe(40);
        const byStep = [...lost].sort((a, b) => ends[a]!.step - ends[b]!.step);
        expect(ended.diverged.map((d) => [d.replica, d.step])).toEqual(
          byStep.map((i) => [3 + i, ends[i]!.step]),
        );
        for (let i = 0; i < 5; i++) {
          const alone = await run(problem, {
            theta: [starts[i]!],
            eta: etas[i]!,
            replicas: 1,
            firstReplica: 3 + i,
            steps: lost.includes(i) ? ends[i]!.step - 1 : 40,
            lowering,
          });
          expect(alone.status).toBe("done");
          expect(ended.theta[i]).toBe(alone.theta[0]);
          if (!lost.includes(i)) {
            expect(ended.hashes[i]).toBe(alone.hashes[0]);
            continue;
          }
          // records up to the last finite step are kept, those after it are NaN
          for (const series of ["loss", "t"] as const) {
            const pick = (r: Run) => (series === "loss" ? r.series.loss! : r.series.values["t"]!);
            const column = Array.from({ length: 41 }, (_, k) => pick(ended)[k * 5 + i]!);
            expect(column.slice(0, ends[i]!.step)).toEqual([...pick(alone)]);
            expect(column.slice(ends[i]!.step).every(Number.isNaN)).toBe(true);
          }
        }
        problem.dispose();
      });

      test(`throw: a sentence with step, replica and eta, and the run on the error, ${name}`, async () => {
        const problem = make();
        const before = engine.bytesInUse;
        const error = await rejection(run(problem, { onDiverge: "throw", lowering }));
        const stopped = await run(problem, { lowering });
        expect(engine.bytesInUse).toBe(before);
        problem.dispose();
        expect(error).toBeInstanceOf(NoetherflowError);
        const { code, message, recorded } = error as NoetherflowError;
        expect(code).toBe("nonfinite");
        expect(message).toMatch(
          new RegExp(
            `theta became non-finite at step ${first}, replica ${3 + firstLost[0]!} \\(eta ${etas[firstLost[0]!]},`,
          ),
        );
        expect(message).toContain(`last finite loss ${stopped.diverged[0]!.lastLoss.toPrecision(4)}`);
        expect((recorded as Run).hash).toBe(stopped.hash);
        expect((recorded as Run).steps).toBe(first - 1);
      });
    }

    test(`when every replica is lost the run ends, lanes are ${where}`, async () => {
      const problem = make();
      const ended = await run(problem, {
        theta: [4.6, 5, 6],
        eta: 0.1,
        replicas: 3,
        onDiverge: "stopReplica",
        lowering: { lanes: where },
      });
      problem.dispose();
      const expected = [4.6, 5, 6].map((t, i) => quarticEnd(0.1, t, "diverge", 3 + i, 40));
      expect(ended.status).toBe("diverged");
      expect(ended.diverged.map((d) => d.replica).sort()).toEqual([3, 4, 5]);
      expect(ended.steps).toBe(Math.max(...expected.map((e) => e.step)));
      for (const [i, e] of expected.entries()) {
        // 3^9 roundings of a number of order t
        expect(Math.abs(ended.theta[i]! / e.t - 1)).toBeLessThan(1e-10);
      }
    });

    test.each([1000, 3, 1])(
      `the last finite minibatch loss is the same however the run is cut into calls, lanes are ${where}, chunk %i`,
      async (chunk) => {
        const problem = make();
        const ended = await run(problem, { lowering: { lanes: where, chunk } });
        problem.dispose();
        const i = firstLost[0]!;
        // errors grow by 3 a step, some 3^9 roundings in all
        expect(Math.abs(ended.diverged[0]!.lastLoss / ends[i]!.lastLoss - 1)).toBeLessThan(1e-10);

        // l = t^2, eta = 3: t' = -5 t, and t^2 leaves the numbers at half the steps that t takes to
        const square = model({ params: { t: [] }, inputs: {}, loss: ({ t }) => ops.square(t) });
        const slow = engine.problem(square, {});
        let [t, lastLoss, step] = [1, 1, 0];
        while (Number.isFinite(t)) {
          if (Number.isFinite(t * t)) lastLoss = t * t;
          t = t - 3 * (2 * t);
          step++;
        }
        const far = await slow.simulate({
          scheme: "gd",
          theta: [1],
          eta: 3,
          steps: 1000,
          lowering: { lanes: where, chunk },
        });
        slow.dispose();
        expect(far.diverged).toEqual([{ replica: 0, step, lastLoss }]);
      },
    );
  }

  test("a NaN in the first step is a divergence at step 1, without any finite loss", async () => {
    const log = model({ params: { t: [] }, inputs: {}, loss: ({ t }) => ops.sqrt(t) });
    const problem = engine.problem(log, {});
    const ended = await problem.simulate({
      scheme: "gd",
      theta: [-1],
      eta: 0.1,
      steps: 10,
      record: { every: 1 },
    });
    problem.dispose();
    expect(ended.status).toBe("diverged");
    expect(ended.steps).toBe(0);
    expect(ended.diverged).toEqual([{ replica: 0, step: 1, lastLoss: Number.NaN }]);
    expect([...ended.theta]).toEqual([-1]);
    expect([...ended.series.k]).toEqual([0]);
  });

  test("in f32 a run diverges where f32 does", async () => {
    const single = await createEngine({ dtype: "f32" });
    const problem = single.problem(
      model({ params: { t: [] }, inputs: {}, loss: ({ t }) => ops.square(t) }),
      {},
    );
    const ended = await problem.simulate({ scheme: "gd", theta: [1], eta: 3, steps: 1000 });
    single.dispose();
    let [t, step] = [1, 0];
    while (Number.isFinite(t)) {
      t = Math.fround(t - Math.fround(3 * Math.fround(2 * t)));
      step++;
    }
    expect(ended.diverged.map((d) => d.step)).toEqual([step]);
    expect(Math.abs(ended.theta[0]!)).toBeLessThan(3.5e38);
  });
});

describe("what a run returns", () => {
  const series = (run: Run) => [...run.series.k];

  test("0 steps: theta as given and one record, also with lanes of replicas", async () => {
    const problem = open();
    for (const where of lanes) {
      const run = await problem.simulate({
        ...long,
        steps: 0,
        replicas: 2,
        record: { every: 5, loss: "full", charges: { C }, work: true },
        lowering: { lanes: where },
      });
      expect(run.steps).toBe(0);
      expect(run.status).toBe("done");
      expect([...run.theta]).toEqual([...start, ...start]);
      expect(series(run)).toEqual([0]);
      const charge = problem.charge(start, C);
      expect([...run.series.charges["C"]!]).toEqual([charge, charge]);
      expect([...run.series.work["C"]!]).toEqual([0, 0]);
      expect(run.series.loss![0]).toBe(problem.loss(start));
    }
    const silent = await problem.simulate({ ...long, steps: 0, record: { every: 1 } });
    expect(series(silent)).toEqual([0]);
    problem.dispose();
  });

  test("records at 0, every, 2 every, ... and not at the end; every > steps records the start", async () => {
    const problem = open();
    const at = async (steps: number, every: number) =>
      series(await problem.simulate({ ...long, steps, record: { every, charges: { C } } }));
    expect(await at(7, 3)).toEqual([0, 3, 6]);
    expect(await at(6, 3)).toEqual([0, 3, 6]);
    expect(await at(7, 100)).toEqual([0]);
    expect(await at(3, 1)).toEqual([0, 1, 2, 3]);
    const none = await problem.simulate({ ...long, steps: 7, record: undefined as never });
    expect(series(none)).toEqual([]);
    expect(none.series.loss).toBeUndefined();
    problem.dispose();
  });

  test("more records than the trace in Wasm holds are all kept, [record][replica][entry]", async () => {
    const problem = open();
    const steps = 30_000;
    const replicas = 3;
    const run = await problem.simulate({
      ...long,
      eta: [0.001, 0.01, 0.02],
      batchSize: 1,
      steps,
      replicas,
      record: { every: 1, charges: { C }, values: { UW: ops.matmul(net.leaf("U"), net.leaf("W")) } },
    });
    const { k, t, charges, values } = run.series;
    expect(k.every((step, i) => step === i)).toBe(true);
    expect(k).toHaveLength(steps + 1);
    expect(t).toHaveLength((steps + 1) * replicas);
    expect(t[50 * replicas + 2]).toBe(50 * 0.02);
    expect(charges["C"]).toHaveLength((steps + 1) * replicas);
    expect(values["UW"]).toHaveLength((steps + 1) * replicas * 6);
    for (let r = 0; r < replicas; r++) {
      const theta = run.theta.slice(r * 10, (r + 1) * 10);
      expect(charges["C"]![steps * replicas + r]).toBe(problem.charge(theta, C));
    }
    problem.dispose();
  });

  test("toJSON is plain data that survives JSON text; toCSV has a line for every record and replica", async () => {
    const problem = open();
    const run = await problem.simulate({
      ...long,
      eta: [0.01, 0.02],
      weightDecay: 0.1,
      steps: 9,
      replicas: 2,
      firstReplica: 4,
      record: {
        every: 4,
        loss: "batch",
        blockNorms: true,
        charges: { 'odd, "name"': C },
        work: true,
        values: { U: net.leaf("U") },
      },
    });
    problem.dispose();
    const json = JSON.parse(JSON.stringify(run)) as ReturnType<Run["toJSON"]> & {
      settings: Record<string, unknown>;
      series: Record<string, unknown> & { values: Record<string, number[]> };
    };
    expect(Object.keys(json).sort()).toEqual(
      "schema settings status steps replicas P diverged hash hashes theta series".split(" ").sort(),
    );
    expect(json["schema"]).toBe("noetherflow-run/1");
    expect(json["hash"]).toBe(run.hash);
    expect(json["theta"]).toEqual([...run.theta]);
    expect(json.settings).toMatchObject({
      scheme: "sgd",
      sampling: "iid",
      batchSize: 64,
      eta: [0.01, 0.02],
      weightDecay: [0.1, 0.1],
      seed: "long",
      firstReplica: 4,
      requestedSteps: 9,
      every: 4,
      dtype: "f64",
      variant: "simd",
      streamVersion: 1,
    });
    expect(json.settings["wasmSha256"]).toMatch(/^[0-9a-f]{64}$/);
    expect(json.series["k"]).toEqual([0, 4, 8]);
    expect(json.series.values["U"]).toEqual([...run.series.values["U"]!]);

    const lines = run.toCSV().trimEnd().split("\n");
    expect(lines[0]).toBe(
      'k,t,replica,loss,norm.U,norm.W,"charge.odd, ""name""","work.odd, ""name""",value.U[0],value.U[1],value.U[2],value.U[3]',
    );
    expect(lines).toHaveLength(1 + 3 * 2);
    const row = lines[4]!.split(",").map(Number);
    // record 1 (k = 4) of the second replica
    expect(row.slice(0, 3)).toEqual([4, 4 * 0.02, 5]);
    expect(row[3]).toBe(run.series.loss![3]);
    expect(row.slice(8)).toEqual([...run.series.values["U"]!.slice(12, 16)]);
  });

  test("NaN of a lost replica is null in JSON", async () => {
    const problem = engine.problem(quartic, { x: shifts });
    const run = await problem.simulate({
      scheme: "gd",
      theta: [0.5, 9],
      eta: 0.1,
      steps: 20,
      replicas: 2,
      onDiverge: "stopReplica",
      record: { every: 10, values: { t: quartic.leaf("t") } },
    });
    problem.dispose();
    const json = JSON.parse(JSON.stringify(run)) as {
      series: { values: { t: (number | null)[] } };
      diverged: [];
    };
    expect(json.series.values.t.map((x) => x === null)).toEqual([false, false, false, true, false, true]);
    expect(json.diverged).toHaveLength(1);
  });

  test("arrays are the caller's own, and theta given is not written to", async () => {
    const problem = open();
    const theta = Float64Array.from(start);
    const options: Options = { ...long, theta, steps: 50, record: { every: 10, loss: "full" } };
    const run = await problem.simulate(options);
    const copy = [...run.theta];
    expect([...theta]).toEqual(start);
    expect(run.theta.buffer).not.toBe(engine.core.memory.buffer);
    expect(run.series.loss!.buffer).not.toBe(engine.core.memory.buffer);
    await problem.simulate({ ...options, seed: "other" });
    expect([...run.theta]).toEqual(copy);
    problem.dispose();
  });

  test('a seed is its text: 7 and "7" give one run, 8 another', async () => {
    const problem = open();
    const hash = async (seed: string | number) => (await problem.simulate({ ...long, steps: 20, seed })).hash;
    expect(await hash(7)).toBe(await hash("7"));
    expect(await hash(8)).not.toBe(await hash(7));
    problem.dispose();
  });

  test("the recorded path is the reference's, and its hash depends on the last bit of theta", async () => {
    const problem = open();
    const options: Options = { ...long, batchSize: 4, steps: 30, seed: "path", record: { every: 30 } };
    const run = await problem.simulate(options);
    const nudged = await problem.simulate({
      ...options,
      theta: [start[0]! * (1 + 2 ** -52), ...start.slice(1)],
    });
    problem.dispose();
    const { gradient } = twoLayerLinear({ dx: 3, h: 2, dy: 2 }, golden);
    const key = keyOfSeed("path");
    const path = descend({
      theta: start,
      eta: 0.01,
      steps: 30,
      gradient,
      batch: (k) => iidBatch(key, 0, k, 4, 8),
    });
    // 30 steps of some 30 roundings of numbers of order 1
    for (const [i, x] of path[30]!.entries()) expect(Math.abs(run.theta[i]! - x)).toBeLessThan(2e-13);
    expect(nudged.hash).not.toBe(run.hash);
  });
});

describe("calls from JavaScript into Wasm", () => {
  /** Runs with every call into Wasm counted; `sizes` are the bytes of memory at each `advance`. */
  async function counted(options: Options): Promise<{ calls: string[]; counts: number[]; sizes: number[] }> {
    const own = await createEngine();
    const problem = open(own);
    const calls: string[] = [];
    const counts: number[] = [];
    const sizes: number[] = [];
    const { core } = own;
    const spied = new Proxy(core.exports, {
      get: (target, name) => {
        const found: unknown = Reflect.get(target, name);
        if (typeof found !== "function") return found;
        return (...args: number[]) => {
          calls.push(String(name));
          if (name === "advance") {
            const code = (found as (...args: number[]) => unknown)(...args);
            // a call that ran out of blocks is repeated with the same steps
            if (code !== PAUSED) counts.push(args[1]!);
            sizes.push(core.memory.buffer.byteLength);
            return code;
          }
          return (found as (...args: number[]) => unknown)(...args);
        };
      },
    });
    (core as { exports: typeof spied }).exports = spied;
    await problem.simulate(options);
    own.dispose();
    return { calls, counts, sizes };
  }

  const hundredThousand: Options = {
    ...long,
    batchSize: 2,
    steps: 100_000,
    record: { every: 500, loss: "full", charges: { C }, work: true },
  };

  test("100,000 steps in chunks of 1,000: 100 calls of advance and nothing else in the loop", async () => {
    const { calls, counts, sizes } = await counted({ ...hundredThousand, lowering: { chunk: 1000 } });
    const first = calls.indexOf("advance");
    expect(first).toBeGreaterThan(-1);
    expect(new Set(calls.slice(first))).toEqual(new Set(["advance"]));
    expect(counts).toHaveLength(100);
    expect(counts.every((c) => c === 1000)).toBe(true);
    // what comes before is the set-up, a few calls whatever the number of steps
    expect(first).toBeLessThan(10);
    expect(new Set(sizes).size).toBe(1);
  });

  test("100,000 steps, chunks chosen by time: under 1,000 calls, each 10 ms of steps, and memory does not grow", async () => {
    for (const replicas of [1, 16]) {
      const { calls, counts, sizes } = await counted({ ...hundredThousand, replicas });
      const first = calls.indexOf("advance");
      expect(new Set(calls.slice(first))).toEqual(new Set(["advance"]));
      expect(counts.reduce((a, b) => a + b, 0)).toBe(100_000);
      expect(counts.length).toBeLessThan(1000);
      expect(new Set(sizes).size).toBe(1);
    }
  });
});

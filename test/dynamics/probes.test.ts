import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createEngine, type Engine, model, ops, type Problem, type Run, symmetry } from "../../src/index.ts";
import { recordRun, saveRun } from "../../src/records/records.ts";

type Options = Parameters<Problem["simulate"]>[0];

/** (u w x - y)^2 with x = +-1: at u w = 1 the gradient noise of four samples stays, and flow has closed forms. */
const net = model({
  params: { u: [1], w: [1] },
  inputs: { x: [1], y: [1] },
  loss: ({ u, w, x, y }) => ops.sqnorm(ops.sub(ops.mul(ops.mul(u, w), x), y)),
});
const C = symmetry.rescaling("u", "w");
let engine: Engine;
let problem: Problem;
beforeAll(async () => {
  engine = await createEngine();
  problem = engine.problem(net, { x: [1, 1, -1, -1], y: [2, 0, 0, -2] });
});
afterAll(() => engine.dispose());

const valley = { theta: { u: [2], w: [0.5] }, eta: 0.002, steps: 1000 } as const;
const record = { every: 1000, charges: { C } } as const;
const ends = (run: Run, name: string): number => {
  const data = run.probes!.values[name]!;
  let sum = 0;
  for (let r = 0; r < run.replicas; r++) sum += data[data.length - run.replicas + r]!;
  return sum / run.replicas;
};

describe("the predicted flow beside a run", () => {
  test("at the minimum gradient descent with momentum and decay has C(0) exp(-4 gamma eta k): decoupled decay is not sped up", async () => {
    const gamma = 0.05;
    const run = await problem.simulate({
      ...valley,
      scheme: "gd",
      momentum: 0.9,
      weightDecay: gamma,
      record,
      probes: { every: 1, flow: true },
    });
    const expected = 1.875 * Math.exp(-4 * gamma * valley.eta * valley.steps);
    // decay moves u w off the minimum, of relative order gamma; the prediction follows the same path
    expect(ends(run, "charge.C")).toBeCloseTo(expected, 3);
    expect(Math.abs(ends(run, "predicted.C") - ends(run, "charge.C"))).toBeLessThan(0.01);
  });

  test.each([
    ["SGD", { scheme: "sgd", batchSize: 1 }],
    ["the SDE", { scheme: "sde", batchSize: 1, substeps: 2 }],
    ["SVAG", { scheme: "svag", batchSize: 1, l: 2, substeps: 2 }],
    ["SGD with decay", { scheme: "sgd", batchSize: 1, weightDecay: 0.2 }],
    [
      "SGD by a list of eta_k, whatever eta is",
      { scheme: "sgd", batchSize: 1, eta: 0, schedule: new Array(1000).fill(0.002) },
    ],
  ] as [string, Partial<Options>][])(
    "%s: the sum along the path is the change of C, |z| < 4.9",
    async (_, more) => {
      const options = {
        ...valley,
        replicas: 256,
        record,
        probes: { every: 10, flow: true },
        ...more,
      } as Options;
      const run = await problem.simulate(options);
      const at = run.probes!.values["charge.C"]!.length - run.replicas;
      const gaps = Float64Array.from(
        { length: run.replicas },
        (_value, r) => run.probes!.values["predicted.C"]![at + r]! - run.probes!.values["charge.C"]![at + r]!,
      );
      const mean = gaps.reduce((a, b) => a + b, 0) / gaps.length;
      const stdErr = Math.sqrt(
        gaps.reduce((s, g) => s + (g - mean) ** 2, 0) / (gaps.length - 1) / gaps.length,
      );
      const moved = 1.875 - ends(run, "charge.C");
      expect(moved).toBeGreaterThan(0.01);
      // trapezoids over twenty steps of a path whose loss falls at rate 4 eta (u^2 + w^2): a twelfth of its square
      const quadrature = (20 * 4 * 0.002 * 4.25) ** 2 / 12;
      expect(Math.abs(mean)).toBeLessThan(4.9 * stdErr + quadrature * moved);
      // twice the noise would be seen
      expect(Math.abs(mean + moved)).toBeGreaterThan(4.9 * stdErr + quadrature * moved);
    },
  );

  test.each([
    ["labelNoise", { labelNoise: { y: 2 } }],
    ["clip", { clip: 0.1 }],
  ] as [string, Partial<Options>][])("is refused with %s, which it does not know", async (name, more) => {
    const options = {
      ...valley,
      scheme: "sgd",
      batchSize: 1,
      record,
      probes: { every: 20, flow: true },
      ...more,
    };
    await expect(problem.simulate(options as Options)).rejects.toThrow(
      `sgd: probes.flow: gradients as the data give them, got ${name}.`,
    );
  });

  test("a replica that diverges is the run's to report, the others go on", async () => {
    const run = await problem.simulate({
      scheme: "sgd",
      batchSize: 2,
      steps: 20,
      replicas: 2,
      eta: [0.01, 0.6],
      theta: [2, 3],
      record: { every: 5, charges: { C } },
      probes: { every: 5, flow: true },
      onDiverge: "stopReplica",
    });
    expect(run.status).toBe("diverged");
    expect(run.diverged.map((d) => d.replica)).toEqual([1]);
    expect(Number.isFinite(run.probes!.values["predicted.C"]!.at(-2))).toBe(true);
  });

  test("a stream ends with it, too", async () => {
    const records = problem.stream({
      ...valley,
      scheme: "gd",
      record: { ...record, every: 500 },
      probes: { every: 500, flow: true },
    });
    let last = await records.next();
    while (!last.done) last = await records.next();
    expect(Object.keys((last.value as Run).probes!.values)).toEqual(["charge.C", "flow.C", "predicted.C"]);
  });
});

test("a measure that gives no numbers is refused", async () => {
  const probes = { every: 500, measures: { z: () => ({ max: 1 }) as never } };
  await expect(problem.simulate({ ...valley, scheme: "gd", probes })).rejects.toThrow(
    "probes.measures.z: a number, or an array of numbers",
  );
});

test("a Map of charges is refused, not taken for an empty object", async () => {
  const charges = new Map([["C", C]]) as never;
  await expect(
    problem.simulate({ ...valley, scheme: "gd", record: { every: 5, charges } }),
  ).rejects.toMatchObject({
    code: "shape",
  });
});

test("clipping a gradient whose norm overflows is a divergence, not a run that stands still", async () => {
  const run = await problem.simulate({
    scheme: "sgd",
    batchSize: 2,
    theta: [1e80, 1e80],
    clip: 1,
    eta: 0.1,
    steps: 2,
  });
  expect(run.status).toBe("diverged");
});

describe("records", () => {
  const dir = mkdtempSync(join(tmpdir(), "noetherflow-probes-"));
  afterAll(() => rmSync(dir, { recursive: true }));

  test("what simulate refuses leaves no folder behind", async () => {
    const wrong = { ...valley, scheme: "gd", probes: { every: 0, measures: { a: () => 1 } } } as Options;
    await expect(recordRun(problem, wrong, { dir: join(dir, "run") })).rejects.toMatchObject({
      code: "range",
    });
    expect(readdirSync(dir)).toEqual([]);
  });

  test("an aborted run is no finished record", async () => {
    const stop = new AbortController();
    const reason = new Error("enough") as Error & { recorded?: Run };
    const options = { ...valley, scheme: "sgd", batchSize: 1, steps: 50_000_000 } as Options;
    const run = problem.simulate({ ...options, signal: stop.signal, onProgress: () => stop.abort(reason) });
    await expect(run).rejects.toBe(reason);
    await expect(saveRun(join(dir, "run"), problem.describe(options), reason.recorded!)).rejects.toThrow(
      "got an aborted one",
    );
  });
});

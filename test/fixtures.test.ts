/**
 * Everything the public fixtures expect of what the engine can do, from an automatic-differentiation oracle in float64.
 * It catches a factor of 2 in a loss, gamma or charge, a divisor N - 1, a batch read in the wrong order, and a lane
 * layout that changes a number.
 */
import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, test } from "vitest";
import { createEngine, type Engine, type Generator, parseModel, type Run, symmetry } from "../src/index.ts";

interface GeneratorFixture {
  name: string;
  blocks?: Record<string, { scalar?: number; left?: number[][]; right?: number[][] }>;
  dense?: number[];
  center?: number[];
  C: number;
}

interface Trajectory {
  step1: number[];
  step25: number[];
  loss25: number;
  charges?: { name: string; C25: number; quadraticWork?: number }[];
}

interface Fixture {
  schema: string;
  name: string;
  model: { params: Record<string, number[]>; inputs: Record<string, number[]>; loss: unknown };
  paramOrder: string[];
  N: number;
  P: number;
  data: Record<string, number[]>;
  theta: Record<string, number[]>;
  settings: { eta: number; S: number; gamma: number };
  schedule: { batches: number[][] };
  expected: {
    loss: number;
    lossWithDecay: number;
    perSampleLoss: number[];
    gradient: number[];
    gradientWithDecay: number[];
    generators: GeneratorFixture[];
    trajectories: Record<"gd" | "gdDecay" | "sgd" | "sgdDecay", Trajectory>;
  };
}

const NAMES = [
  "attention",
  "deep-linear-3",
  "gelu-cross-entropy",
  "layer-norm",
  "logistic-linear",
  "matrix-completion",
  "net-a",
  "net-b",
  "quadratic-noise",
  "rank-1",
  "relu-bias",
  "residual-1",
  "ssl-cosine",
  "tanh-bias",
  "two-layer-linear-reference",
];

const folder = fileURLToPath(new URL("fixtures/", import.meta.url));
const read = (name: string): Fixture => JSON.parse(readFileSync(`${folder}${name}.json`, "utf8")) as Fixture;

/** Largest error of each quantity over all fixtures, for the line at the end. */
const worst = new Map<string, { error: number; fixture: string }>();
const checked = new Set<string>();

/**
 * Fails unless every entry is within `tolerance` of `scale`, by default the largest expected entry (the unit of the
 * fixtures' README).
 */
function expectClose(
  [fixture, quantity]: [string, string],
  got: ArrayLike<number>,
  expected: readonly number[],
  tolerance: number,
  scale = expected.reduce((m, x) => Math.max(m, Math.abs(x)), 0),
): void {
  expect(got.length, `${quantity}: number of entries`).toBe(expected.length);
  let at = 0;
  let error = 0;
  for (const [i, x] of expected.entries()) {
    const e = Math.abs(got[i]! - x) / scale;
    if (!(e <= error)) [error, at] = [e, i];
  }
  const known = worst.get(quantity);
  if (known === undefined || !(error <= known.error)) worst.set(quantity, { error, fixture });
  expect(
    error,
    `${quantity} of ${fixture}: entry ${at} is ${got[at]}, expected ${expected[at]}; error over bound ${error / tolerance}`,
  ).toBeLessThanOrEqual(tolerance);
}

const flatTheta = (f: Fixture): number[] => f.paramOrder.flatMap((name) => f.theta[name]!);

/** A as a dense matrix, from the words of the README: P -> s P + L P + P R on each block. */
function denseOf(f: Fixture, g: GeneratorFixture): number[] {
  if (g.blocks === undefined) return g.dense!;
  const A = new Array<number>(f.P * f.P).fill(0);
  let offset = 0;
  for (const name of f.paramOrder) {
    const [rows, cols] = [f.model.params[name]![0] ?? 1, f.model.params[name]![1] ?? 1];
    const action = g.blocks[name] ?? {};
    const at = (i: number, j: number) => offset + i * cols + j;
    for (let i = 0; i < rows; i++) {
      for (let j = 0; j < cols; j++) {
        const put = (k: number, x: number) => {
          A[at(i, j) * f.P + k]! += x;
        };
        put(at(i, j), action.scalar ?? 0);
        if (action.left) for (let k = 0; k < rows; k++) put(at(k, j), action.left[i]![k]!);
        if (action.right) for (let k = 0; k < cols; k++) put(at(i, k), action.right[k]![j]!);
      }
    }
    offset += rows * cols;
  }
  return A;
}

/** 1/2 sum |A_ij| |d_i| |d_j|: what the rounding of a charge is relative to, however much of it cancels. */
function chargeScale(f: Fixture, g: GeneratorFixture, theta: ArrayLike<number>): number {
  const A = denseOf(f, g);
  let sum = 0;
  for (let i = 0; i < f.P; i++) {
    for (let j = 0; j < f.P; j++) {
      const d = (k: number) => Math.abs(theta[k]! - (g.center?.[k] ?? 0));
      sum += Math.abs(A[i * f.P + j]!) * d(i) * d(j);
    }
  }
  return sum / 2;
}

function prepare(engine: Engine, name: string) {
  const fixture = read(name);
  const net = parseModel(fixture.model);
  const problem = engine.problem(net, fixture.data);
  return { fixture, net, problem, theta: flatTheta(fixture) };
}

const last = (series: Float64Array): number => series[series.length - 1]!;

test("the folder holds the 15 public fixtures and no other", () => {
  const found = readdirSync(folder).filter((file) => file.endsWith(".json"));
  expect(found.sort()).toEqual(NAMES.map((name) => `${name}.json`));
});

afterAll(() => {
  console.log(`${checked.size} of ${NAMES.length} public fixtures checked`);
  for (const [quantity, { error, fixture }] of worst)
    console.log(`  ${quantity}: largest error ${error.toExponential(1)} (${fixture})`);
});

describe.each(NAMES)("%s", async (name) => {
  const engine = await createEngine();
  const { fixture, net, problem, theta } = prepare(engine, name);
  const { expected, settings } = fixture;
  const { eta, S, gamma } = settings;

  test("has the schema, the sizes and the order of blocks it says", () => {
    expect(fixture.schema).toBe("noetherflow-fixture/1");
    expect(fixture.name).toBe(name);
    expect(net.blocks.map((b) => b.name)).toEqual(fixture.paramOrder);
    expect([problem.N, problem.P]).toEqual([fixture.N, fixture.P]);
    checked.add(name);
  });

  test("losses, with and without decay, agree to 1e-12", () => {
    const loss = problem.loss(fixture.theta);
    const squares = theta.reduce((n, x) => n + x * x, 0);
    expectClose([name, "loss"], [loss], [expected.loss], 1e-12);
    expectClose([name, "lossWithDecay"], [loss + gamma * squares], [expected.lossWithDecay], 1e-12);
    expectClose([name, "perSampleLoss"], problem.losses(theta), expected.perSampleLoss, 1e-12);
  });

  test("the gradient, with and without decay, agrees to 1e-12 of its largest entry", () => {
    const gradient = problem.gradient(theta);
    expectClose([name, "gradient"], gradient, expected.gradient, 1e-12);
    const withDecay = Array.from(gradient, (g, i) => g + 2 * gamma * theta[i]!);
    expectClose([name, "gradientWithDecay"], withDecay, expected.gradientWithDecay, 1e-12);
  });

  test("the charge of every generator agrees to 1e-12 of its terms", () => {
    expect(expected.generators.length).toBeGreaterThan(0);
    for (const g of expected.generators) {
      const scale = chargeScale(fixture, g, theta);
      expectClose([name, "charge C"], [problem.charge(theta, symmetry.generator(g))], [g.C], 1e-12, scale);
      // the two forms of one generator
      if (g.blocks && g.dense)
        expect(denseOf(fixture, g)).toEqual(g.dense.map((x) => expect.closeTo(x, 12) as unknown as number));
    }
  });

  describe.each(["samples", "replicas", "features"] as const)("with %s in the lanes", (lanes) => {
    const generators = new Map<string, Generator>(
      expected.generators.map((g) => [g.name, symmetry.generator(g)]),
    );
    const walk = (kind: "gd" | "gdDecay" | "sgd" | "sgdDecay", steps: number): Promise<Run> => {
      const isSgd = kind.startsWith("sgd");
      return problem.simulate({
        scheme: isSgd ? "sgd" : "gd",
        theta,
        eta,
        steps,
        ...(isSgd ? { batchSize: S, batches: fixture.schedule.batches.slice(0, steps) } : {}),
        ...(kind.endsWith("Decay") ? { weightDecay: gamma } : {}),
        record: { every: 25, loss: "full", charges: Object.fromEntries(generators), work: true },
        lowering: { lanes },
      });
    };

    test.each(["gd", "gdDecay", "sgd", "sgdDecay"] as const)(
      "%s: step 1 agrees to 1e-12, step 25, its loss and its charges to 1e-11",
      async (kind) => {
        const reference = expected.trajectories[kind];
        expectClose([name, `${kind} step 1`], (await walk(kind, 1)).theta, reference.step1, 1e-12);
        const run = await walk(kind, 25);
        expect([...run.series.k]).toEqual([0, 25]);
        expectClose([name, `${kind} step 25`], run.theta, reference.step25, 1e-11);
        expectClose([name, `${kind} loss 25`], [problem.loss(run.theta)], [reference.loss25], 1e-11);
        expectClose([name, `${kind} recorded loss`], [last(run.series.loss!)], [reference.loss25], 1e-11);
        const charges = reference.charges ?? [];
        const works = charges.flatMap((c) => c.quadraticWork ?? []);
        const workScale = works.reduce((m, x) => Math.max(m, Math.abs(x)), 0);
        for (const c of charges) {
          const g = expected.generators.find((other) => other.name === c.name)!;
          const scale = chargeScale(fixture, g, reference.step25);
          expectClose([name, `${kind} C 25`], [last(run.series.charges[c.name]!)], [c.C25], 1e-11, scale);
          if (c.quadraticWork === undefined) continue;
          const work = last(run.series.work[c.name]!);
          expectClose([name, `${kind} work 25`], [work], [c.quadraticWork], 1e-11, workScale);
        }
        const hasCharges = kind === "gd" || kind === "sgd";
        expect(charges).toHaveLength(hasCharges ? expected.generators.length : 0);
      },
    );
  });
});

/**
 * 2000 units of f32 rounding: a gradient is a sum over paths of at most some 50 dependent operations, each wrong by one
 * unit, and the residuals it starts from (prediction minus target) may have lost up to a factor 40 to cancellation.
 */
const F32_BOUND = 2000 * 2 ** -24;

describe.each(NAMES)("%s in f32", async (name) => {
  const engine = await createEngine({ dtype: "f32" });
  const { fixture, problem, theta } = prepare(engine, name);
  const { expected } = fixture;

  test("losses and gradient agree to 2000 units of rounding", () => {
    expectClose([name, "f32 loss"], [problem.loss(theta)], [expected.loss], F32_BOUND);
    expectClose([name, "f32 perSampleLoss"], problem.losses(theta), expected.perSampleLoss, F32_BOUND);
    const gradient = problem.gradient(theta);
    expect(gradient).toBeInstanceOf(Float32Array);
    expectClose([name, "f32 gradient"], gradient, expected.gradient, F32_BOUND);
  });
});

/**
 * Everything the public fixtures expect of what the engine can do, from an automatic-differentiation oracle in float64.
 * It catches a factor of 2 in a loss, gamma or charge, a divisor N - 1, a batch read in the wrong order, and a lane
 * layout that changes a number.
 */
import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, test } from "vitest";
import {
  createEngine,
  type Engine,
  type Generator,
  type Problem,
  parseModel,
  type Run,
  symmetry,
} from "../src/index.ts";

type Options = Parameters<Problem["simulate"]>[0];

interface GeneratorFixture {
  name: string;
  blocks?: Record<string, { scalar?: number; left?: number[][]; right?: number[][] }>;
  dense?: number[];
  center?: number[];
  C: number;
  traceSigmaA: number;
  gAg: number;
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
  settings: { eta: number; S: number; gamma: number; sigma2: number };
  v: number[];
  schedule: {
    batches: number[][];
    warmup: number[];
    momentum: number;
    sde: { dt: number; xi: number[] };
    svag: { l: number; batch1: number[]; batch2: number[] };
  };
  expected: {
    loss: number;
    lossWithDecay: number;
    perSampleLoss: number[];
    gradient: number[];
    gradientWithDecay: number[];
    gradientSquareNorm: number;
    perSampleGradients: { rows: number[]; values: number[][] };
    perSampleJvp: number[];
    traceSigma: number;
    Sigma?: number[];
    hessian: { trace: number; lambdaMax: number; lambdaMin: number; Hv: number[]; full?: number[] };
    products: {
      U: string;
      W: string;
      transposeW: boolean;
      h: number;
      S_U: number[];
      S_W: number[];
      Q: number[];
    }[];
    generators: GeneratorFixture[];
    trajectories: Record<Kind, Trajectory>;
    sdeStep: { theta: number[]; thetaWithDecay: number[]; weights: number[] };
    svagStep: { theta: number[]; thetaWithDecay: number[] };
  };
}

const KINDS = ["gd", "gdDecay", "sgd", "sgdDecay", "gdMomentum", "sgdMomentum", "sgdWarmupDecay"] as const;
type Kind = (typeof KINDS)[number];

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

/** What a fixture says of a trajectory, as options of a run. */
function optionsOf(f: Fixture, kind: Kind, steps: number): Options {
  const { eta, S, gamma } = f.settings;
  const isSgd = kind.startsWith("sgd");
  return {
    scheme: isSgd ? "sgd" : "gd",
    theta: flatTheta(f),
    steps,
    ...(kind.includes("Warmup") ? { schedule: f.schedule.warmup.slice(0, steps) } : { eta }),
    ...(isSgd ? { batchSize: S, batches: f.schedule.batches.slice(0, steps) } : {}),
    ...(kind.endsWith("Decay") ? { weightDecay: gamma } : {}),
    ...(kind.endsWith("Momentum") ? { momentum: f.schedule.momentum } : {}),
  };
}

/** One step of the SDE with the fixture's xi, and one of SVAG with its two batches. */
function noisySteps(f: Fixture): Record<"sdeStep" | "svagStep", Options> {
  const { eta, S, sigma2 } = f.settings;
  const { sde, svag } = f.schedule;
  const common = { theta: flatTheta(f), eta, steps: 1 };
  return {
    sdeStep: { ...common, scheme: "sde", sigma2, dt: sde.dt, normals: sde.xi },
    svagStep: { ...common, scheme: "svag", batchSize: S, l: svag.l, batches: [svag.batch1, svag.batch2] },
  };
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
  const { gamma } = settings;

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

  test("per-sample gradients and directional derivatives agree to 1e-12", () => {
    const { rows, values } = expected.perSampleGradients;
    const flat = values.flat();
    expectClose([name, "perSampleGradients"], problem.perSampleGradients(theta, { rows }), flat, 1e-12);
    expectClose(
      [name, "perSampleJvp"],
      problem.jacobianVector(theta, fixture.v),
      expected.perSampleJvp,
      1e-12,
    );
    const g = Array.from(problem.gradient(theta));
    const square = g.reduce((n, x) => n + x * x, 0);
    expectClose([name, "gradientSquareNorm"], [square], [expected.gradientSquareNorm], 1e-11);
  });

  test("noise: Sigma, its trace, Tr[Sigma A], gbar A gbar and the matrix moments agree to 1e-11, by both methods", async () => {
    const sigma = await problem.noiseCovariance(theta);
    if (expected.Sigma !== undefined) expectClose([name, "Sigma"], sigma, expected.Sigma, 1e-11);
    const g = problem.gradient(theta);
    for (const method of ["structured", "streamed"] as const) {
      const trace = problem.noiseTrace(theta, { method });
      expect(trace).toMatchObject({ stdErr: 0, count: fixture.N, method: "exact" });
      expectClose([name, `traceSigma, ${method}`], [trace.value], [expected.traceSigma], 1e-11);
      for (const generator of expected.generators) {
        const A = denseOf(fixture, generator);
        // what the terms of Tr[Sigma A] and of g A g may lose to each other
        let scale = 0;
        let gAg = 0;
        for (let i = 0; i < fixture.P; i++) {
          for (let j = 0; j < fixture.P; j++) {
            const a = A[i * fixture.P + j]!;
            scale +=
              Math.abs(a) *
              (Math.sqrt(sigma[i * fixture.P + i]! * sigma[j * fixture.P + j]!) + Math.abs(g[i]! * g[j]!));
            gAg += a * g[i]! * g[j]!;
          }
        }
        const power = problem.noisePower(theta, symmetry.generator(generator), { method });
        if (scale > 0) {
          expectClose([name, `traceSigmaA, ${method}`], [power.value], [generator.traceSigmaA], 1e-11, scale);
          expectClose([name, "gAg"], [gAg], [generator.gAg], 1e-11, scale);
        } else expect([power.value, generator.traceSigmaA]).toEqual([0, 0]);
      }
      for (const { U, W, transposeW, S_U, S_W, Q } of expected.products ?? []) {
        const moments = problem.noiseMoments(theta, U, W, { transposeW, method });
        expectClose([name, `S_U, ${method}`], moments.SU, S_U, 1e-11);
        expectClose([name, `S_W, ${method}`], moments.SW, S_W, 1e-11);
        expectClose([name, "Q"], moments.Q, Q, 1e-11);
      }
    }
    // the operator against the matrix
    const product = Array.from({ length: fixture.P }, (_, i) =>
      fixture.v.reduce((n, x, j) => n + sigma[i * fixture.P + j]! * x, 0),
    );
    const largest = Array.from(sigma).reduce((m, x) => Math.max(m, Math.abs(x)), 0);
    const length = fixture.v.reduce((n, x) => n + Math.abs(x), 0);
    expectClose([name, "Sigma v"], problem.noiseVector(theta, fixture.v), product, 1e-12, largest * length);
  });

  test("curvature: H v, the Hessian, its trace and extreme eigenvalues agree to 1e-10", async () => {
    const { Hv, full, trace, lambdaMax, lambdaMin } = expected.hessian;
    expectClose([name, "Hv"], problem.hessianVector(theta, fixture.v), Hv, 1e-11);
    const H = await problem.hessian(theta);
    if (full !== undefined) expectClose([name, "hessian"], H, full, 1e-11);
    const scale = Math.max(Math.abs(lambdaMax), Math.abs(lambdaMin), Math.abs(trace));
    const exact = await problem.hessianTrace(theta);
    expect(exact).toMatchObject({ stdErr: 0, method: "exact" });
    expectClose([name, "trace of the Hessian"], [exact.value], [trace], 1e-10, scale);
    const blocks = await Promise.all(
      fixture.paramOrder.map(async (block) => (await problem.hessianTrace(theta, { block })).value),
    );
    expectClose([name, "sum of block traces"], [blocks.reduce((a, b) => a + b)], [trace], 1e-10, scale);
    const { max, min } = await problem.sharpness(theta, { tolerance: 1e-13 });
    expectClose([name, "lambdaMax"], [max.value], [lambdaMax], 1e-10, scale);
    expectClose([name, "lambdaMin"], [min.value], [lambdaMin], 1e-10, scale);
  });

  describe.each(["samples", "replicas", "features"] as const)("with %s in the lanes", (lanes) => {
    const generators = new Map<string, Generator>(
      expected.generators.map((g) => [g.name, symmetry.generator(g)]),
    );
    const walk = (kind: Kind, steps: number): Promise<Run> =>
      problem.simulate({
        ...optionsOf(fixture, kind, steps),
        record: { every: 25, loss: "full", charges: Object.fromEntries(generators), work: true },
        lowering: { lanes },
      });

    test.each(KINDS)(
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

    test.each(["sdeStep", "svagStep"] as const)(
      "%s agrees to 1e-12, with decay and without",
      async (kind) => {
        const options = { ...noisySteps(fixture)[kind], lowering: { lanes } };
        const { theta: plain, thetaWithDecay } = expected[kind];
        expectClose([name, kind], (await problem.simulate(options)).theta, plain, 1e-12);
        const decayed = await problem.simulate({ ...options, weightDecay: gamma });
        expectClose([name, `${kind} with decay`], decayed.theta, thetaWithDecay, 1e-12);
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
    expectClose(
      [name, "f32 perSampleJvp"],
      problem.jacobianVector(theta, fixture.v),
      expected.perSampleJvp,
      F32_BOUND,
    );
    expectClose([name, "f32 Hv"], problem.hessianVector(theta, fixture.v), expected.hessian.Hv, F32_BOUND);
    const trace = problem.noiseTrace(theta).value;
    expectClose([name, "f32 traceSigma"], [trace], [expected.traceSigma], F32_BOUND);
  });

  // a step is no worse than a gradient; over 25 of them errors add up, and theta may amplify each 100 times (README)
  test("all trajectories, the SDE's step and SVAG's agree to 2000 units of rounding, 25 steps to 25 times that", async () => {
    for (const kind of KINDS) {
      const reference = expected.trajectories[kind];
      const [one, many] = await Promise.all(
        [1, 25].map((steps) => problem.simulate(optionsOf(fixture, kind, steps))),
      );
      expectClose([name, `f32 ${kind} step 1`], one!.theta, reference.step1, F32_BOUND);
      expectClose([name, `f32 ${kind} step 25`], many!.theta, reference.step25, 25 * F32_BOUND);
    }
    for (const [kind, options] of Object.entries(noisySteps(fixture))) {
      const run = await problem.simulate(options);
      expectClose([name, `f32 ${kind}`], run.theta, expected[kind as "sdeStep"].theta, F32_BOUND);
    }
  });
});

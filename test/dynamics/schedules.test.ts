/**
 * Learning rates that change, decay by blocks, clipping, noise on inputs, momentum, Adam and RMSProp against formulas and
 * plain loops. It catches a schedule that starts at 1 instead of 0, decay at the rate of another step, a norm per block in
 * place of the global one, and noise that all samples share.
 */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createEngine, type Engine, model, ops, type Problem, symmetry } from "../../src/index.ts";
import {
  adam,
  factorOf,
  heavyBall,
  type Rule,
  rmsprop,
  type Steps,
  shortened,
} from "../reference/schemes.ts";
import { goldenProblem, meanVector, twoLayerLinear } from "../reference/sgd.ts";
import { meanOf, zOf } from "../reference/statistics.ts";

type Options = Parameters<Problem["simulate"]>[0];

let engine: Engine;
beforeAll(async () => {
  engine = await createEngine();
});
afterAll(() => engine.dispose());

const lanes = ["samples", "replicas", "features"] as const;

describe("schedules: theta falls by exactly eta_k under a loss of slope 1", () => {
  const net = model({ params: { t: [] }, inputs: { x: [] }, loss: ({ t, x }) => ops.mul(t, x) });
  const steps = 30;
  const rules: (Rule | readonly number[])[] = [
    { kind: "constant" },
    { kind: "warmup", steps: 7 },
    { kind: "warmup", steps: 1 },
    { kind: "cosine", steps: 25 },
    { kind: "cosine", steps: 12, final: 0.1, warmup: 5 },
    { kind: "step", every: 4, factor: 0.5 },
    { kind: "step", every: 9, factor: 0.3, warmup: 3 },
    { kind: "inverse", steps: 6 },
    { kind: "inverse", steps: 2, warmup: 8 },
    Array.from({ length: steps }, (_, k) => 0.1 + Math.sin(k) ** 2),
  ];

  for (const where of lanes) {
    // theta stays below 32 in size, so a difference of two is exact to 32 units of 1e-16, and eta_k to a few more
    test.each(rules.map((rule) => [JSON.stringify(rule).slice(0, 60), rule] as const))(
      `%s, three replicas of other eta, t is the sum of dt, lanes are ${where}`,
      async (_name, rule) => {
        const isList = Array.isArray(rule);
        const eta = [0.5, 0.25, 1];
        const problem = engine.problem(net, { x: [1, 1] });
        const run = await problem.simulate({
          scheme: "gd",
          theta: [0],
          steps,
          replicas: 3,
          ...(isList ? {} : { eta }),
          schedule: rule as Rule,
          record: { every: 1, values: { t: net.leaf("t") } },
          lowering: { lanes: where },
        });
        problem.dispose();
        const at = (k: number, r: number) => run.series.values["t"]![3 * k + r]!;
        for (const r of [0, 1, 2]) {
          let time = 0;
          for (let k = 0; k < steps; k++) {
            const expected = isList ? (rule as number[])[k]! : eta[r]! * factorOf(rule as Rule, k);
            time += expected;
            expect(Math.abs(at(k, r) - at(k + 1, r) - expected), `step ${k}`).toBeLessThan(1e-14);
            expect(Math.abs(run.series.t[3 * (k + 1) + r]! - time)).toBeLessThan(1e-13);
            expect(Math.abs(at(k + 1, r) + time)).toBeLessThan(1e-13);
          }
        }
      },
    );
  }

  test("a cosine without a length ends with the run, and a step without a factor divides by 10", async () => {
    const problem = engine.problem(net, { x: [1] });
    const ends = async (schedule: Options["schedule"]) =>
      (await problem.simulate({ scheme: "gd", theta: [0], eta: 1, steps, schedule: schedule! })).theta[0]!;
    const total = (rule: Rule) =>
      -Array.from({ length: steps }, (_, k) => factorOf(rule, k)).reduce((a, b) => a + b);
    expect(await ends({ kind: "cosine", warmup: 4 })).toBeCloseTo(
      total({ kind: "cosine", steps: 26, warmup: 4 }),
      12,
    );
    expect(await ends({ kind: "step", every: 10 })).toBeCloseTo(
      total({ kind: "step", every: 10, factor: 0.1 }),
      12,
    );
    problem.dispose();
  });

  test("updates of substeps and of SVAG share the eta of their step, and t counts their dt", async () => {
    const problem = engine.problem(net, { x: [1, 1] });
    const common = {
      theta: [0],
      eta: 0.5,
      steps,
      record: { every: 1, values: { t: net.leaf("t") } },
    } as const;
    const rule: Rule = { kind: "inverse", steps: 6 };
    const cases: [Options, number][] = [
      [{ ...common, scheme: "sde", batchSize: 1, substeps: 4, schedule: rule }, 1],
      [{ ...common, scheme: "svag", batchSize: 1, l: 3, substeps: 2, schedule: rule }, 2 / 3],
      [{ ...common, scheme: "modified", batchSize: 1, substeps: 2, schedule: rule }, 1],
      [{ ...common, scheme: "flow", schedule: rule }, 1],
    ];
    for (const [options, share] of cases) {
      const run = await problem.simulate(options);
      let time = 0;
      for (let k = 0; k < steps; k++) {
        time += share * 0.5 * factorOf(rule, k);
        expect(Math.abs(run.series.t[k + 1]! - time), options.scheme).toBeLessThan(1e-13);
        // every sample has slope 1, so any weights that sum to 1 move theta by dt
        expect(Math.abs(run.series.values["t"]![k + 1]! + time), options.scheme).toBeLessThan(1e-12);
      }
    }
    problem.dispose();
  });
});

const golden = goldenProblem();
const [N, dx, h, dy] = [8, 3, 2, 2];
const P = dy * h + h * dx;
const start = [...golden.U, ...golden.W];
const plain = twoLayerLinear({ dx, h, dy }, golden);
const net = model({
  params: { U: [dy, h], W: [h, dx] },
  inputs: { x: [dx], y: [dy] },
  loss: ({ U, W, x, y }) => ops.sqnorm(ops.sub(ops.matmul(U, ops.matmul(W, x)), y)),
});
const open = () => engine.problem(net, { x: golden.x, y: golden.y });
const S = 3;
const steps = 60;
const batches = Array.from({ length: steps }, (_, k) =>
  Array.from({ length: S }, (_b, s) => (5 * k + 3 * s * k + s) % N),
);
const gradient = (theta: readonly number[], k: number) =>
  meanVector(batches[k]!.map((n) => plain.gradient(theta, n)));
const length = (v: readonly number[]) => Math.sqrt(v.reduce((a, x) => a + x * x, 0));

/** All thetas of a run that records them, against a path: the largest difference over the largest entry. */
async function gapTo(paths: readonly number[][][], options: Partial<Options>, where: (typeof lanes)[number]) {
  const problem = open();
  const R = paths.length;
  const run = await problem.simulate({
    scheme: "sgd",
    theta: start,
    steps,
    replicas: R,
    ...(options.scheme === "gd" ? {} : { batchSize: S, batches }),
    ...options,
    record: { every: 1, values: { U: net.leaf("U"), W: net.leaf("W") } },
    lowering: { lanes: where },
  });
  problem.dispose();
  let worst = 0;
  for (const [r, path] of paths.entries()) {
    for (const [k, theta] of path.entries()) {
      const row = k * R + r;
      const got = [
        ...run.series.values["U"]!.subarray(row * 4, row * 4 + 4),
        ...run.series.values["W"]!.subarray(row * 6, row * 6 + 6),
      ];
      const scale = Math.max(...theta.map(Math.abs));
      for (const [i, x] of theta.entries()) worst = Math.max(worst, Math.abs(got[i]! - x) / scale);
    }
  }
  return worst;
}

// 60 steps, each wrong by some ten roundings, none amplified more than 1000 times: 1e-11
describe("60 steps against plain loops, every theta on the way to 1e-11", () => {
  const base: Steps = { theta: start, eta: () => 0.02, steps, gradient };
  const blocks = (u: number, w: number) => [...new Array<number>(4).fill(u), ...new Array<number>(6).fill(w)];
  const rule: Rule = { kind: "cosine", steps: 40, final: 0.1, warmup: 10 };
  const scheduled = { eta: (k: number) => 0.02 * factorOf(rule, k) };

  for (const where of lanes) {
    test(`heavy ball, a beta per replica, with decay and a schedule, lanes are ${where}`, async () => {
      const momentum = [0, 0.5, 0.9, 0.99];
      const paths = momentum.map((beta) => heavyBall({ ...base, beta }));
      expect(await gapTo(paths, { eta: 0.02, momentum }, where)).toBeLessThan(1e-11);
      const decayed = momentum.map((beta) =>
        heavyBall({ ...base, ...scheduled, gamma: blocks(0.3, 0.3), beta }),
      );
      const options = { eta: 0.02, momentum, weightDecay: 0.3, schedule: rule };
      expect(await gapTo(decayed, options, where)).toBeLessThan(1e-11);
      // decay inside the velocity, as in other libraries, is another path
      const coupled = heavyBall({
        ...base,
        beta: 0.9,
        gradient: (theta, k) => gradient(theta, k).map((g, i) => g + 2 * 0.3 * theta[i]!),
      });
      const apart = heavyBall({ ...base, beta: 0.9, gamma: blocks(0.3, 0.3) });
      expect(Math.abs(coupled.at(-1)![0]! - apart.at(-1)![0]!)).toBeGreaterThan(1e-3);
      const whole = (theta: readonly number[]) =>
        meanVector(Array.from({ length: N }, (_, n) => plain.gradient(theta, n)));
      const full = momentum.map((beta) => heavyBall({ ...base, beta, gradient: whole }));
      expect(await gapTo(full, { scheme: "gd", eta: 0.02, momentum }, where)).toBeLessThan(1e-11);
    });

    test(`decay by block and replica, blocks not named keep theirs, lanes are ${where}`, async () => {
      const paths = [0.1, 0.7].map((u) => heavyBall({ ...base, ...scheduled, gamma: blocks(u, 0), beta: 0 }));
      const options = { eta: 0.02, schedule: rule, weightDecay: { U: [0.1, 0.7] } };
      expect(await gapTo(paths, options, where)).toBeLessThan(1e-11);
      const both = [heavyBall({ ...base, gamma: blocks(0.2, 0.9), beta: 0 })];
      expect(await gapTo(both, { eta: 0.02, weightDecay: { U: 0.2, W: 0.9 } }, where)).toBeLessThan(1e-11);
    });

    test(`Adam, decay decoupled, an eta per replica, lanes are ${where}`, async () => {
      const eta = [0.01, 0.003];
      const moments = { beta1: 0.8, beta2: 0.95, epsilon: 1e-3 };
      const paths = eta.map((e) => adam({ ...base, eta: () => e, gamma: blocks(0.4, 0.4), ...moments }));
      expect(await gapTo(paths, { scheme: "adam", eta, weightDecay: 0.4, ...moments }, where)).toBeLessThan(
        1e-11,
      );
      const standard = [adam({ ...base, ...scheduled, beta1: 0.9, beta2: 0.999, epsilon: 1e-8 })];
      expect(await gapTo(standard, { scheme: "adam", eta: 0.02, schedule: rule }, where)).toBeLessThan(1e-11);
    });

    test(`RMSProp, lanes are ${where}`, async () => {
      const paths = [rmsprop({ ...base, beta2: 0.99, epsilon: 1e-8, eta: () => 0.001 })];
      expect(await gapTo(paths, { scheme: "rmsprop", eta: 0.001 }, where)).toBeLessThan(1e-11);
      const other = { beta2: 0.7, epsilon: 0.01 };
      const decayed = [rmsprop({ ...base, ...other, ...scheduled, gamma: blocks(0.4, 0) })];
      const options = { eta: 0.02, schedule: rule, weightDecay: { U: 0.4 }, ...other };
      expect(await gapTo(decayed, { scheme: "rmsprop", ...options }, where)).toBeLessThan(1e-11);
    });

    test(`clipping: of the global norm, before momentum and before Adam, lanes are ${where}`, async () => {
      const clip = 0.8;
      const clipped = (theta: readonly number[], k: number) => shortened(gradient(theta, k), clip);
      const limited = { ...base, gradient: clipped };
      // some steps are shortened and some are not
      const lengths = heavyBall({ ...limited, beta: 0 })
        .slice(0, -1)
        .map((theta, k) => length(gradient(theta, k)));
      expect(Math.min(...lengths)).toBeLessThan(clip);
      expect(Math.max(...lengths)).toBeGreaterThan(clip);
      const options = { eta: 0.02, clip };
      expect(await gapTo([heavyBall({ ...limited, beta: 0 })], options, where)).toBeLessThan(1e-11);
      const ball = [heavyBall({ ...limited, beta: 0.9 })];
      expect(await gapTo(ball, { ...options, momentum: 0.9 }, where)).toBeLessThan(1e-11);
      const slow = [adam({ ...limited, beta1: 0.9, beta2: 0.999, epsilon: 1e-8 })];
      expect(await gapTo(slow, { ...options, scheme: "adam" }, where)).toBeLessThan(1e-11);
    });
  }
});

describe("clipping", () => {
  test.each(lanes)(
    "shortens to exactly the limit, keeps the direction, and below it changes no bit, lanes are %s",
    async (where) => {
      const problem = open();
      const common = { scheme: "gd", theta: start, eta: 1, steps: 1, lowering: { lanes: where } } as const;
      const g = [...(await problem.simulate(common)).theta].map((x, i) => start[i]! - x);
      for (const clip of [1e-3, 0.5, 0.999 * length(g)]) {
        const step = [...(await problem.simulate({ ...common, clip })).theta].map((x, i) => start[i]! - x);
        // theta of size 1 rounds a step of size clip by 1e-16
        expect(Math.abs(length(step) - clip)).toBeLessThan(1e-15);
        for (const [i, x] of step.entries())
          expect(Math.abs(x - (g[i]! * clip) / length(g))).toBeLessThan(1e-15);
      }
      const free = await problem.simulate({ ...common, eta: 0.02, steps: 100 });
      const loose = await problem.simulate({ ...common, eta: 0.02, steps: 100, clip: 100 });
      expect(loose.hash).toBe(free.hash);
      problem.dispose();
    },
  );

  test("keeps steps orthogonal to A theta: C moves by the recorded work alone", async () => {
    const problem = open();
    const run = await problem.simulate({
      scheme: "sgd",
      theta: start,
      eta: 0.02,
      batchSize: S,
      steps: 2000,
      clip: 0.5,
      seed: "clip",
      record: { every: 1, charges: { C: symmetry.doubleRotation("U", "W", golden.B) }, work: true },
    });
    const free = await problem.simulate({
      scheme: "sgd",
      theta: start,
      eta: 0.02,
      batchSize: S,
      steps: 2000,
      seed: "clip",
    });
    problem.dispose();
    const [C, W] = [run.series.charges["C"]!, run.series.work["C"]!];
    // a step is wrong by less than 100 units of rounding of a charge of size 1 (identity.test.ts); they add up at worst
    for (const [k, x] of C.entries())
      expect(Math.abs(x - C[0]! - W[k]!)).toBeLessThan(100 * 2 ** -53 * (k + 1));
    expect(Math.abs(W.at(-1)!)).toBeGreaterThan(1e-3);
    expect(free.hash).not.toBe(run.hash);
  });
});

describe("noise on inputs", () => {
  // l = (t - y)^2 with all y = 0: the gradient of a sample is 2 (t - std z), z standard normal
  const single = model({
    params: { t: [] },
    inputs: { y: [] },
    loss: ({ t, y }) => ops.square(ops.sub(t, y)),
  });
  const [std, eta, t0, n, R] = [0.7, 0.1, 0.4, 5, 40_000];
  const measure = async (options: Partial<Options>): Promise<number[]> => {
    const problem = engine.problem(single, { y: new Array<number>(n).fill(0) });
    const run = await problem.simulate({
      scheme: "gd",
      theta: [t0],
      eta,
      steps: 1,
      replicas: R,
      labelNoise: { y: std },
      seed: "label noise",
      ...options,
    });
    problem.dispose();
    return Array.from(run.theta, (x) => x - t0);
  };

  // R = 40,000: a variance has a standard error of .7 %, so |z| < 4.9 sees 3.5 %; noise that all samples share has n or S
  // times the variance. Two statistics a case, a false alarm in 500,000
  const cases: [string, Partial<Options>, number, number][] = [
    ["gd", {}, eta, 1 / n],
    ["sgd", { scheme: "sgd", batchSize: 3 }, eta, 1 / 3],
    ["sgd of 12 draws from 5 samples", { scheme: "sgd", batchSize: 12 }, eta, 1 / 12],
    ["svag", { scheme: "svag", batchSize: 2, l: 3 }, eta / 3, 3 / 2],
  ];
  for (const where of lanes) {
    test.each(cases)(
      `%s: mean -2 dt t, variance (2 dt std)^2 / S, |z| < 4.9, R = 40,000, lanes are ${where}`,
      async (_name, options, dt, share) => {
        const steps = await measure({ ...options, lowering: { lanes: where } });
        const mean = -2 * dt * t0;
        const variance = (2 * dt * std) ** 2 * share;
        expect(Math.abs(zOf(steps, mean))).toBeLessThan(4.9);
        const squares = steps.map((x) => (x - mean) ** 2);
        expect(Math.abs(zOf(squares, variance))).toBeLessThan(4.9);
        expect(Math.abs(zOf(squares, (2 * dt * std) ** 2))).toBeGreaterThan(4.9);
      },
    );
  }

  test("is new in every update: the noise of two steps is not correlated, |z| < 4.9", async () => {
    const problem = engine.problem(single, { y: new Array<number>(n).fill(0) });
    const run = await problem.simulate({
      scheme: "gd",
      theta: [0],
      eta,
      steps: 2,
      replicas: R,
      labelNoise: { y: std },
      seed: "two steps",
      record: { every: 1, values: { t: single.leaf("t") } },
    });
    problem.dispose();
    const t = run.series.values["t"]!;
    const noise = (k: number, r: number) => t[(k + 1) * R + r]! - (1 - 2 * eta) * t[k * R + r]!;
    const products = Array.from({ length: R }, (_, r) => noise(0, r) * noise(1, r));
    expect(Math.abs(zOf(products, 0))).toBeLessThan(4.9);
    const same = Array.from({ length: R }, (_, r) => noise(0, r) ** 2);
    expect(meanOf(same).value / meanOf(same).stdErr).toBeGreaterThan(4.9);
  });

  test("leaves the full loss clean, and the batch loss shows the noise of the next step", async () => {
    const problem = open();
    const common = {
      scheme: "gd",
      theta: start,
      eta: 0.02,
      steps: 20,
      labelNoise: { y: 0.5 },
      seed: "clean",
    } as const;
    const values = { U: net.leaf("U"), W: net.leaf("W") };
    const full = await problem.simulate({ ...common, record: { every: 1, loss: "full", values } });
    for (let k = 0; k <= 20; k++) {
      const { U, W } = full.series.values as { U: Float64Array; W: Float64Array };
      const theta = [...U.subarray(4 * k, 4 * k + 4), ...W.subarray(6 * k, 6 * k + 6)];
      expect(theta).toHaveLength(P);
      expect(full.series.loss![k]).toBe(problem.loss(theta));
    }
    const noisy = await problem.simulate({ ...common, record: { every: 1, loss: "batch" } });
    expect([...noisy.theta]).toEqual([...full.theta]);
    const apart = Array.from(noisy.series.loss!, (x, k) => Math.abs(x - full.series.loss![k]!));
    expect(Math.min(...apart)).toBeGreaterThan(1e-4);
    problem.dispose();
  });
});

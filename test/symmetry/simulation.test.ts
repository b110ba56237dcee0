/**
 * The predicted flow of a charge against simulated SGD, on 50 random ready models whose symmetries are known.
 *
 * One step of SGD from theta changes the charge, in the mean over batches and without any approximation, by
 *
 *   E[C' - C] / eta = noetherFlow.total + noetherFlow.discrete + 2 eta gamma (gbar . A theta + gamma theta . A theta)
 *
 * for theta' = (1 - 2 eta gamma) theta - eta ghat and any symmetric A with a center or without; where A is a symmetry without
 * a center the last term is 4 eta gamma^2 C (theory.md, 2.3). So one step of many replicas is an exact test, of several steps
 * their sum is (every step's excess has mean 0 at the theta it starts from), and all batches of a tiny set give equality.
 */
import { afterAll, describe, expect, test } from "vitest";
import { createEngine, type Problem, type StrengthOptions } from "../../src/index.ts";
import {
  apply,
  Draw,
  form,
  type KnownSymmetry,
  type Rows,
  readyKinds,
  readyModel,
} from "../helpers/ready.ts";

const engine = await createEngine();
afterAll(() => engine.dispose());

const COUNT = 50;
/** Of one step; a standard error of the mean of 1 / 64 of the spread. */
const REPLICAS = 4096;

const less = (v: ArrayLike<number>, c: readonly number[]): number[] => c.map((x, i) => v[i]! - x);

/** C = 1/2 (theta - c)^T A (theta - c) by the matrix written out. */
const chargeOf = ({ dense, center }: KnownSymmetry, theta: ArrayLike<number>): number =>
  form(dense, less(theta, center)) / 2;

/** What a step with decay adds to the flow per unit of time, beside `discrete`. */
const decayTwice = (A: Rows, gBar: ArrayLike<number>, theta: ArrayLike<number>, eta: number, gamma: number) =>
  2 * eta * gamma * (form(A, gBar, theta) + gamma * form(A, theta));

interface Setting {
  readonly eta: number;
  readonly batchSize: number;
  readonly sampling: "iid" | "without";
  readonly weightDecay: number;
}

/** A setting for a model: both samplings in turn, decay in every third, any batch size. */
function settingOf(seed: number, N: number): Setting {
  const d = new Draw(seed + 1000);
  const sampling = Math.floor(seed / readyKinds.length) % 2 === 0 ? "iid" : "without";
  return {
    eta: d.choose([0.003, 0.01, 0.03]),
    batchSize: d.between(1, sampling === "iid" ? 5 : Math.min(5, N - 1)),
    sampling,
    weightDecay: seed % 3 === 0 ? d.uniform(0.01, 0.3) : 0,
  };
}

/** Mean change of C per unit of time that the engine predicts at theta. */
function predicted(
  problem: Problem,
  theta: ArrayLike<number>,
  known: KnownSymmetry,
  options: Setting,
): number {
  const flow = problem.noetherFlow(theta, known.A, options satisfies StrengthOptions);
  const gBar = problem.gradient(theta);
  return flow.total + flow.discrete + decayTwice(known.dense, gBar, theta, options.eta, options.weightDecay);
}

interface Measured {
  readonly label: string;
  readonly z: number;
  readonly predicted: number;
  readonly mean: number;
  readonly stdErr: number;
  /** false where every replica changes alike, so that there is nothing random to test: a dead unit. */
  readonly varies: boolean;
  /** z against predictions with one thing wrong. */
  readonly wrong: Readonly<Record<string, number>>;
}

const statistics = (values: readonly number[]): { mean: number; stdErr: number } => {
  const mean = values.reduce((a, b) => a + b, 0) / values.length;
  const squares = values.reduce((sum, x) => sum + (x - mean) ** 2, 0);
  return { mean, stdErr: Math.sqrt(squares / (values.length - 1) / values.length) };
};

/** One step of many replicas from a random theta. */
async function measure(seed: number): Promise<Measured[]> {
  const { label, model, data, theta, N, symmetries } = readyModel(seed);
  const problem = engine.problem(model, data);
  const options = settingOf(seed, N);
  const { eta, batchSize, sampling, weightDecay } = options;
  const run = await problem.simulate({
    scheme: "sgd",
    theta,
    ...options,
    steps: 1,
    replicas: REPLICAS,
    seed: `flow ${seed}`,
    record: { every: 1, charges: Object.fromEntries(symmetries.map(({ A }, i) => [`C${i}`, A])) },
  });
  const out = symmetries.map((known, i): Measured => {
    const { A, dense } = known;
    const C = run.series.charges[`C${i}`]!;
    const before = chargeOf(known, theta);
    // recorded charges are those of the matrix written out
    expect(C[0]).toBeCloseTo(before, 11);
    expect(C[REPLICAS]).toBeCloseTo(chargeOf(known, run.theta.subarray(0, model.P)), 11);
    const changes = Array.from({ length: REPLICAS }, (_, r) => (C[REPLICAS + r]! - C[r]!) / eta);
    const { mean, stdErr } = statistics(changes);
    const value = predicted(problem, theta, known, options);
    const flow = problem.noetherFlow(theta, A, options);
    const floor = (1e-14 * (1 + Math.abs(before))) / eta;
    const z = (against: number) => (mean - against) / Math.hypot(stdErr, floor);
    return {
      label: `${label}, ${A.name}, S ${batchSize} ${sampling}, gamma ${weightDecay.toFixed(2)}`,
      z: z(value),
      predicted: value,
      mean,
      stdErr,
      varies: stdErr > 100 * floor,
      wrong: {
        "twice the noise": z(value + flow.noise),
        "the other sign of the noise": z(value - 2 * flow.noise),
        "no discrete part": z(value - flow.discrete),
        "no decay": z(value - flow.decay),
        "half of the decay": z(value - flow.decay / 2),
        "the other way of sampling": z(
          value +
            flow.noise * (sampling === "iid" ? (N - batchSize) / (N - 1) - 1 : (N - 1) / (N - batchSize) - 1),
        ),
        "decay to first order in eta": z(
          value - decayTwice(dense, problem.gradient(theta), theta, eta, weightDecay),
        ),
      },
    };
  });
  problem.dispose();
  return out;
}

/** P(chi^2_n < x) is that of a normal z (Wilson and Hilferty). */
const chiSquareBound = (n: number, z: number): number =>
  n * (1 - 2 / (9 * n) + z * Math.sqrt(2 / (9 * n))) ** 3;

/** P(Z < z), to 1e-7 (Abramowitz and Stegun 7.1.26). */
function normalLaw(z: number): number {
  const t = 1 / (1 + (0.3275911 * Math.abs(z)) / Math.SQRT2);
  const series =
    t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  const tail = 0.5 * series * Math.exp((-z * z) / 2);
  return z > 0 ? 1 - tail : tail;
}

function kolmogorov(z: readonly number[]): number {
  const law = [...z].sort((a, b) => a - b).map(normalLaw);
  const n = law.length;
  return Math.sqrt(n) * Math.max(...law.map((p, i) => Math.max(p - i / n, (i + 1) / n - p)));
}

describe(`one step of ${REPLICAS} replicas on ${COUNT} random ready models: mean change of C`, async () => {
  const all: Measured[][] = [];
  for (let seed = 0; seed < COUNT; seed++) all.push(await measure(seed));
  const flat = all.flat();

  // |z| < 4.9 fails once in a million per charge for normal z, so once in 10,000 for these some 90
  test.each(flat.map((m) => [m.label, m] as const))("%s", (_, { z, predicted: value, mean, stdErr }) => {
    expect(Math.abs(z), `predicted ${value}, measured ${mean} +- ${stdErr}`).toBeLessThan(4.9);
    // the sign, where it is measured
    if (Math.abs(mean) > 4.9 * stdErr) expect(Math.sign(value)).toBe(Math.sign(mean));
  });

  test("the z of all models together are standard normal: chi-square, its 4.9 sigma both ways; Kolmogorov-Smirnov, 1e-6", () => {
    // charges of one model share its draws: one of each model
    const z = all.map((of, seed) => of[seed % of.length]!).flatMap((m) => (m.varies ? [m.z] : []));
    expect(z.length).toBeGreaterThan(0.9 * COUNT);
    console.log(`z of ${z.length} models: ${z.map((x) => x.toFixed(2)).join(" ")}`);
    const chi = z.reduce((sum, x) => sum + x * x, 0);
    const ks = kolmogorov(z);
    const signed = flat.filter((m) => Math.abs(m.mean) > 4.9 * m.stdErr).length;
    console.log(
      `chi-square ${chi.toFixed(1)} of ${z.length}, sqrt(n) D ${ks.toFixed(2)}, largest |z| of ${flat.length}: ` +
        `${Math.max(...flat.map((m) => Math.abs(m.z))).toFixed(2)}; sign decided in ${signed}`,
    );
    expect(chi).toBeLessThan(chiSquareBound(z.length, 4.9));
    expect(chi).toBeGreaterThan(chiSquareBound(z.length, -4.9));
    // P(sqrt(n) D > x) = 2 e^(-2 x^2)
    expect(ks).toBeLessThan(Math.sqrt(Math.log(2e6) / 2));
    // most charges move by more than they scatter, so that the sign says something
    expect(signed).toBeGreaterThan(0.7 * flat.length);
  });

  test("predictions with one thing wrong are rejected", () => {
    const names = Object.keys(flat[0]!.wrong);
    const worst = names.map((name) => Math.max(...flat.map((m) => Math.abs(m.wrong[name]!))));
    console.log(`largest |z| if wrong: ${names.map((n, i) => `${n} ${worst[i]!.toFixed(1)}`).join("; ")}`);
    for (const [i, name] of names.entries()) expect(worst[i]!, name).toBeGreaterThan(4.9);
  });
});

describe("all batches of three samples by two: the mean over them is the prediction, to rounding", () => {
  test.each(readyKinds.map((kind, seed) => [kind, seed] as const))("%s", async (_, kindSeed) => {
    for (const seed of [kindSeed, kindSeed + readyKinds.length]) {
      const { label, model, data, theta, symmetries } = readyModel(seed, 3);
      const problem = engine.problem(model, data);
      for (const sampling of ["iid", "without"] as const) {
        for (const weightDecay of [0, 0.17]) {
          const options: Setting = { eta: 0.05, batchSize: 2, sampling, weightDecay };
          const batches = [0, 1, 2].flatMap((a) =>
            [0, 1, 2].filter((b) => sampling === "iid" || b !== a).map((b) => [a, b]),
          );
          const charges: Record<string, number[]> = {};
          for (const batch of batches) {
            const run = await problem.simulate({
              scheme: "sgd",
              theta,
              ...options,
              steps: 1,
              batches: batch,
              record: {
                every: 1,
                charges: Object.fromEntries(symmetries.map(({ A }, i) => [`C${i}`, A])),
              },
            });
            for (const [name, C] of Object.entries(run.series.charges)) {
              charges[name] ??= [];
              charges[name].push(C[1]! - C[0]!);
            }
          }
          for (const [i, known] of symmetries.entries()) {
            const changes = charges[`C${i}`]!;
            const mean = changes.reduce((a, b) => a + b, 0) / changes.length / options.eta;
            const value = predicted(problem, theta, known, options);
            // every charge is rounded to its terms, and divided by eta
            const terms = form(
              known.dense.map((row) => row.map(Math.abs)),
              less(theta, known.center).map(Math.abs),
            );
            const largest = Math.max(...changes.map(Math.abs)) / options.eta;
            const bound = (1e-14 * terms) / options.eta + 1e-12 * largest;
            const what = `${label}, ${known.A.name}, ${sampling}, gamma ${weightDecay}: ${mean}, predicted ${value}`;
            expect(Math.abs(mean - value), what).toBeLessThan(bound);
          }
        }
      }
      problem.dispose();
    }
  });
});

describe("runs of several steps", () => {
  const [R, K] = [64, 12];

  // false alarm 1e-6 each
  test.each(readyKinds.map((kind, i) => [kind, i + 2 * readyKinds.length] as const))(
    `%s: over ${K} steps of ${R} replicas the changes sum up to the predictions along the way, |z| < 4.9`,
    async (_, seed) => {
      const { label, model, data, theta, N, symmetries } = readyModel(seed);
      const problem = engine.problem(model, data);
      const options = { ...settingOf(seed, N), eta: 0.002 };
      const run = await problem.simulate({
        scheme: "sgd",
        theta,
        ...options,
        steps: K,
        replicas: R,
        seed: `path ${seed}`,
        record: {
          every: 1,
          charges: Object.fromEntries(symmetries.map(({ A }, i) => [`C${i}`, A])),
          values: Object.fromEntries(model.blocks.map((b) => [b.name, model.leaf(b.name)])),
        },
      });
      const at = (k: number, r: number): number[] =>
        model.blocks.flatMap(({ name, size }) => [
          ...run.series.values[name]!.subarray((k * R + r) * size, (k * R + r + 1) * size),
        ]);
      const known = symmetries[0]!;
      const C = run.series.charges["C0"]!;
      const excess: number[] = [];
      const total: number[] = [];
      for (let r = 0; r < R; r++) {
        let sum = 0;
        for (let k = 0; k < K; k++) sum += predicted(problem, at(k, r), known, options);
        total.push((C[K * R + r]! - C[r]!) / (K * options.eta));
        excess.push(total[r]! - sum / K);
      }
      const { mean, stdErr } = statistics(excess);
      const floor = (1e-14 * (1 + Math.abs(C[0]!))) / (K * options.eta);
      expect(Math.abs(mean) / Math.hypot(stdErr, floor), label).toBeLessThan(4.9);

      // the flow at the start alone misses the drift of theta on the way: O(eta K), no more than theta moves
      const start = predicted(problem, theta, known, options);
      const moved = statistics(
        Array.from({ length: R }, (_, r) => {
          const end = at(K, r);
          return Math.hypot(...end.map((x, i) => x - theta[i]!)) / Math.hypot(...theta);
        }),
      ).mean;
      const flow = problem.noetherFlow(theta, known.A, options);
      const size = flow.plus + flow.minus + Math.abs(flow.decay) + Math.abs(flow.discrete);
      const whole = statistics(total);
      // the flow is of degree below 12 in theta for each of these models
      expect(Math.abs(whole.mean - start), `${label}: moved ${moved}`).toBeLessThan(
        4.9 * whole.stdErr + 12 * moved * size + floor,
      );
      problem.dispose();
    },
  );
});

test("the oracle: A of every constructor is the matrix written out", () => {
  for (let seed = 0; seed < 2 * readyKinds.length; seed++) {
    const { label, model, data, theta, symmetries } = readyModel(seed);
    const problem = engine.problem(model, data);
    for (const known of symmetries) {
      expect(problem.charge(theta, known.A), label).toBeCloseTo(chargeOf(known, theta), 11);
      // for every sample the loss stands still along A (theta - c)
      const field = apply(known.dense, less(theta, known.center));
      const along = problem.jacobianVector(theta, field);
      expect(Math.max(...along.map(Math.abs)), `${label}, ${known.A.name}`).toBeLessThan(1e-11);
    }
    problem.dispose();
  }
});

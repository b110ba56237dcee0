/**
 * What the schemes with noise of their own do in one update: the mean and the covariance of the step, the draws they are
 * made of, and the work they do on charges. It catches S divided twice or not at all, the second moment in place of the
 * covariance, two batches that are one, and a bend of the drift that the work leaves out.
 */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createEngine, type Engine, model, ops, type Problem, symmetry } from "../../src/index.ts";
import { secondBatch, svagDirection, weighted, weightsOf, xiOf } from "../reference/schemes.ts";
import {
  goldenProblem,
  gradientMoments,
  iidBatch,
  keyOfSeed,
  meanVector,
  twoLayerLinear,
} from "../reference/sgd.ts";

type Options = Parameters<Problem["simulate"]>[0];
type Matrix = readonly (readonly number[])[];

const lanes = ["samples", "replicas", "features"] as const;
const golden = goldenProblem();
const [N, dx, h, dy, P] = [8, 3, 2, 2, 10];
const start = [...golden.U, ...golden.W];
const plain = twoLayerLinear({ dx, h, dy }, golden);
const net = model({
  params: { U: [dy, h], W: [h, dx] },
  inputs: { x: [dx], y: [dy] },
  loss: ({ U, W, x, y }) => ops.sqnorm(ops.sub(ops.matmul(U, ops.matmul(W, x)), y)),
});
const gradients = Array.from({ length: N }, (_, n) => plain.gradient(start, n));
const { mean: gBar, covariance: Sigma } = gradientMoments(gradients);

let engine: Engine;
let problem: Problem;
beforeAll(async () => {
  engine = await createEngine();
  problem = engine.problem(net, { x: golden.x, y: golden.y });
});
afterAll(() => engine.dispose());

const largest = (values: readonly number[]) => values.reduce((m, x) => Math.max(m, Math.abs(x)), 0);
const scaled = (M: Matrix, c: number): number[][] => M.map((row) => row.map((x) => c * x));

/** Largest difference of two vectors or matrices, in units of the largest expected entry. */
function gap(got: readonly number[] | Matrix, expected: readonly number[] | Matrix): number {
  const [a, b] = [got.flat(), expected.flat()];
  expect(a.length).toBe(b.length);
  return largest(a.map((x, i) => x - b[i]!)) / largest(b);
}

const moved = (theta: ArrayLike<number>): number[] => Array.from(theta, (x, i) => x - start[i]!);

describe("one update of the SDE", () => {
  const [eta, dt, S] = [0.02, 0.005, 4];
  const zero = new Array<number>(N).fill(0);
  const step = async (normals: readonly number[], options: Partial<Options>): Promise<number[]> =>
    moved(
      (await problem.simulate({ scheme: "sde", theta: start, eta, dt, steps: 1, normals, ...options })).theta,
    );

  // theta' is affine in xi, so the columns of that map give the covariance by algebra. Entries of a step are of size
  // 1e-2 beside a theta of size 1: differences keep 14 digits of it
  for (const where of lanes) {
    const cases: [string, number, Partial<Options>][] = [
      ["sigma2 = eta / (2 S) for iid draws", eta / (2 * S), { batchSize: S }],
      [
        "sigma2 (N - S) / (N - 1) without replacement",
        ((eta / (2 * S)) * (N - S)) / (N - 1),
        { batchSize: S, sampling: "without" },
      ],
      ["sigma2 as given", 0.0123, { sigma2: 0.0123 }],
      ["no noise at S = N without replacement", 0, { batchSize: N, sampling: "without" }],
    ];
    test.each(cases)(
      `has mean -dt gBar and covariance 2 sigma2 dt Sigma: %s, lanes are ${where}`,
      async (_name, sigma2, given) => {
        const options = { ...given, lowering: { lanes: where } };
        const mean = await step(zero, options);
        expect(
          gap(
            mean,
            gBar.map((g) => -dt * g),
          ),
        ).toBeLessThan(1e-12);
        const columns = await Promise.all(
          zero.map(async (_, n) => {
            const one = await step(
              zero.map((_z, m) => (m === n ? 1 : 0)),
              options,
            );
            return one.map((x, i) => x - mean[i]!);
          }),
        );
        const covariance = gBar.map((_, i) =>
          gBar.map((_g, j) => columns.reduce((c, b) => c + b[i]! * b[j]!, 0)),
        );
        const expected = scaled(Sigma, 2 * sigma2 * dt);
        if (sigma2 === 0) expect(largest(covariance.flat())).toBe(0);
        else {
          expect(gap(covariance, expected)).toBeLessThan(1e-12);
          // the second moment of the gradients in place of their covariance would be seen
          const raw = gBar.map((a, i) => gBar.map((b, j) => 2 * sigma2 * dt * (Sigma[i]![j]! + a * b)));
          expect(gap(covariance, raw)).toBeGreaterThan(0.1);
        }
        // the weights sum to 1 for any xi: adding a number to all of them does nothing; and the map is affine
        const xi = zero.map((_, n) => Math.sin(3 * n + 1));
        const at = await step(xi, options);
        expect(
          gap(
            await step(
              xi.map((x) => x + 2),
              options,
            ),
            at,
          ),
        ).toBeLessThan(1e-12);
        const combined = mean.map((m, i) => m + columns.reduce((c, b, n) => c + xi[n]! * b[i]!, 0));
        expect(gap(at, combined)).toBeLessThan(1e-12);
      },
    );
  }

  // 65 statistics, R = 20,000: a variance has a standard error of 1 %, so |z| < 4.9 sees 5 %, and the wrong laws are off
  // by 33 % (S - 1) and 75 % (no factor for S without replacement). False alarm 7e-5 for all entries together
  test("has that mean and covariance with the engine's own xi, |z| < 4.9, R = 20,000", async () => {
    const R = 20_000;
    const measure = async (sampling: "iid" | "without") => {
      const run = await problem.simulate({
        scheme: "sde",
        theta: start,
        eta,
        batchSize: S,
        sampling,
        dt,
        steps: 1,
        replicas: R,
        seed: "own xi",
      });
      return Array.from({ length: R }, (_, r) => moved(run.theta.subarray(r * P, (r + 1) * P)));
    };
    const worst = (steps: Matrix, covariance: Matrix): number => {
      const centred = steps.map((d) => d.map((x, i) => x + dt * gBar[i]!));
      const z = (of: (d: readonly number[]) => number, expected: number) => {
        const values = centred.map(of);
        const mean = values.reduce((a, b) => a + b, 0) / R;
        const square = values.reduce((a, x) => a + (x - mean) ** 2, 0) / (R - 1);
        return Math.abs(mean - expected) / Math.sqrt(square / R);
      };
      let most = 0;
      for (let i = 0; i < P; i++) {
        most = Math.max(
          most,
          z((d) => d[i]!, 0),
        );
        for (let j = 0; j <= i; j++)
          most = Math.max(
            most,
            z((d) => d[i]! * d[j]!, covariance[i]![j]!),
          );
      }
      return most;
    };
    const law = (size: number) => scaled(Sigma, (eta * dt) / size);
    const [iid, without] = [await measure("iid"), await measure("without")];
    expect(worst(iid, law(S))).toBeLessThan(4.9);
    expect(worst(iid, law(S - 1))).toBeGreaterThan(4.9);
    expect(worst(without, law((S * (N - 1)) / (N - S)))).toBeLessThan(4.9);
    expect(worst(without, law(S))).toBeGreaterThan(4.9);
  });
});

test.each(["sde", "modified"] as const)(
  "%s without replacement at S = N has no noise, a single sample included",
  async (scheme) => {
    for (const n of [1, 2, N]) {
      const few = engine.problem(net, { x: golden.x.slice(0, n * dx), y: golden.y.slice(0, n * dy) });
      const common = { scheme, theta: start, eta: 0.02, steps: 5 } as const;
      const run = await few.simulate({ ...common, batchSize: n, sampling: "without" });
      const silent = await few.simulate({ ...common, sigma2: 0 });
      expect(run.status).toBe("done");
      expect(run.hash).toBe(silent.hash);
      few.dispose();
    }
  },
);

describe("the draws of the schemes are those the table of counters names", () => {
  const key = keyOfSeed("counters");
  const [eta, S, steps, substeps, firstReplica] = [0.03, 3, 7, 3, 5];

  // 21 updates, each wrong by a few roundings and none amplified more than 100 times
  test.each(lanes)(
    "xi of the SDE: purpose 7, counter (n >> 1, update, replica), lanes are %s",
    async (where) => {
      const run = await problem.simulate({
        scheme: "sde",
        theta: start,
        eta,
        batchSize: S,
        steps,
        substeps,
        replicas: 3,
        firstReplica,
        seed: "counters",
        lowering: { lanes: where },
      });
      const dt = eta / substeps;
      for (let r = 0; r < 3; r++) {
        let theta = start;
        for (let u = 0; u < steps * substeps; u++) {
          const xi = Array.from({ length: N }, (_, n) => xiOf(key, firstReplica + r, u, n));
          const d = weighted(plain.gradient, theta, weightsOf(xi, eta / (2 * S), dt));
          theta = theta.map((x, i) => x - dt * d[i]!);
        }
        expect(gap([...run.theta.subarray(r * P, (r + 1) * P)], theta)).toBeLessThan(1e-12);
      }
    },
  );

  test.each(lanes)("the two batches of SVAG: purposes 1 and 8, lanes are %s", async (where) => {
    const l = 2.5;
    const options: Options = {
      scheme: "svag",
      theta: start,
      eta,
      batchSize: S,
      l,
      steps,
      substeps,
      replicas: 3,
      firstReplica,
      seed: "counters",
      lowering: { lanes: where },
    };
    const run = await problem.simulate(options);
    const pathOf = (second: typeof secondBatch, r: number) => {
      let theta = start;
      for (let u = 0; u < steps * substeps; u++) {
        const mean = (batch: number[]) => meanVector(batch.map((n) => plain.gradient(theta, n)));
        const replica = firstReplica + r;
        const [g1, g2] = [mean(iidBatch(key, replica, u, S, N)), mean(second(key, replica, u, S, N))];
        const d = svagDirection(g1, g2, l);
        theta = theta.map((x, i) => x - (eta / l) * d[i]!);
      }
      return theta;
    };
    for (let r = 0; r < 3; r++) {
      const end = [...run.theta.subarray(r * P, (r + 1) * P)];
      expect(gap(end, pathOf(secondBatch, r))).toBeLessThan(1e-12);
      // one batch in both places is told apart
      expect(gap(end, pathOf(iidBatch, r))).toBeGreaterThan(1e-3);
    }
  });

  test.each(lanes)("SVAG with l = 1 is SGD, bit for bit, lanes are %s", async (where) => {
    const options = { theta: start, eta, batchSize: S, steps: 50, replicas: 3, seed: "one" };
    const lowering = { lanes: where };
    const svag = await problem.simulate({ ...options, scheme: "svag", lowering });
    const sgd = await problem.simulate({ ...options, scheme: "sgd", lowering });
    expect(svag.hash).toBe(sgd.hash);
  });
});

describe("one update of SVAG, over all batches there are", () => {
  const [eta, n] = [0.02, 4];
  const few = gradients.slice(0, n);
  const { mean, covariance } = gradientMoments(few);
  const all = (S: number): number[][] =>
    S === 0 ? [[]] : all(S - 1).flatMap((b) => Array.from({ length: n }, (_, i) => [...b, i]));

  test.each([
    ["iid", 1, 3],
    ["iid", 2, 2],
    ["without", 2, 4],
    ["without", 3, 1.5],
  ] as const)(
    "%s, S = %d, l = %d: mean -(eta / l) gBar, covariance (eta / l)^2 l Sigma / S_eff",
    async (sampling, S, l) => {
      const small = engine.problem(net, { x: golden.x.slice(0, n * dx), y: golden.y.slice(0, n * dy) });
      const batches = all(S).filter((b) => sampling === "iid" || new Set(b).size === S);
      const steps = await Promise.all(
        batches.flatMap((first) =>
          batches.map(async (second) => {
            const options = {
              scheme: "svag",
              theta: start,
              eta,
              batchSize: S,
              sampling,
              l,
              steps: 1,
            } as const;
            return moved((await small.simulate({ ...options, batches: [first, second] })).theta);
          }),
        ),
      );
      small.dispose();
      expect(steps).toHaveLength(batches.length ** 2);
      const { mean: step, covariance: spread } = gradientMoments(steps);
      expect(
        gap(
          step,
          mean.map((g) => (-eta / l) * g),
        ),
      ).toBeLessThan(1e-12);
      const size = sampling === "iid" ? S : (S * (n - 1)) / (n - S);
      expect(gap(spread, scaled(covariance, (eta * eta) / l / size))).toBeLessThan(1e-12);
      expect(gap(spread, scaled(covariance, (eta * eta) / (l * l) / size))).toBeGreaterThan(0.1);
    },
  );
});

describe("every update changes C by exactly the work it records", () => {
  const [eta, S, steps, substeps] = [0.01, 4, 400, 2];
  const u = 2 ** -53;
  const key = keyOfSeed("work");
  const A: number[][] = Array.from({ length: P }, () => new Array<number>(P).fill(0));
  for (let a = 0; a < h; a++) {
    for (let b = 0; b < h; b++) {
      for (let i = 0; i < dy; i++) A[i * h + a]![i * h + b]! += golden.B[a]![b]!;
      for (let j = 0; j < dx; j++) A[dy * h + a * dx + j]![dy * h + b * dx + j]! -= golden.B[a]![b]!;
    }
  }
  const absolute = A.map((row) => row.map(Math.abs));
  const form = (v: readonly number[], w = v): number =>
    absolute.reduce((total, row, i) => total + v[i]! * row.reduce((c, a, j) => c + a * w[j]!, 0), 0);

  /** |g_n| with all terms made positive, and |H_n| v of a vector of sizes: what roundings are relative to. */
  function sizes(theta: readonly number[], n: number, v?: readonly number[]): number[] {
    const t = theta.map(Math.abs);
    const x = golden.x.slice(n * dx, (n + 1) * dx).map(Math.abs);
    const y = golden.y.slice(n * dy, (n + 1) * dy).map(Math.abs);
    const forward = (U: readonly number[], W: readonly number[]) => {
      const z = Array.from({ length: h }, (_, a) => x.reduce((c, xj, j) => c + W[a * dx + j]! * xj, 0));
      return {
        z,
        r: Array.from({ length: dy }, (_, i) => z.reduce((c, za, a) => c + U[i * h + a]! * za, 0)),
      };
    };
    const back = (U: readonly number[], r: readonly number[]) =>
      Array.from({ length: h }, (_, a) => r.reduce((c, ri, i) => c + U[i * h + a]! * ri, 0));
    const [U, W] = [t.slice(0, dy * h), t.slice(dy * h)];
    const { z, r: fit } = forward(U, W);
    const r = fit.map((f, i) => f + y[i]!);
    const outer = (a: readonly number[], b: readonly number[]) => a.flatMap((p) => b.map((q) => 2 * p * q));
    if (v === undefined) return [...outer(r, z), ...outer(back(U, r), x)];
    const [VU, VW] = [v.slice(0, dy * h), v.slice(dy * h)];
    const dz = forward(U, VW).z;
    const dr = forward(VU, W).r.map((q, i) => q + forward(U, VW).r[i]!);
    const both = (a: readonly number[], b: readonly number[]) => a.map((p, i) => p + b[i]!);
    return [...both(outer(dr, z), outer(r, dz)), ...outer(both(back(VU, r), back(U, dr)), x)];
  }

  /** Weights of the samples in an update, and of the bend (eta/2) H gBar. */
  const weights = {
    sde: (update: number, dt: number) => {
      const xi = Array.from({ length: N }, (_, n) => xiOf(key, 0, update, n));
      return weightsOf(xi, eta / (2 * S), dt).map(Math.abs);
    },
    svag: (update: number) => {
      const [a, b] = svagDirection([1, 0], [0, 1], 2).map(Math.abs) as [number, number];
      const w = new Array<number>(N).fill(0);
      for (const n of iidBatch(key, 0, update, S, N)) w[n]! += a / S;
      for (const n of secondBatch(key, 0, update, S, N)) w[n]! += b / S;
      return w;
    },
  };

  /**
   * The most that rounding parts C' and keep^2 C + work: as in identity.test.ts, with the weighted gradient's terms made
   * positive, 40 roundings on any path from theta to it (two passes and the weights, 80, for the modified equation).
   */
  function bound(
    theta: readonly number[],
    next: readonly number[],
    w: readonly number[],
    dt: number,
    bend: number,
  ) {
    const mean = meanVector(Array.from({ length: N }, (_, n) => sizes(theta, n)));
    const g = meanVector(w.map((wn, n) => sizes(theta, n).map((s) => N * wn * s)));
    const Hg = meanVector(w.map((_, n) => sizes(theta, n, mean)));
    const d = g.map((x, i) => x + bend * Hg[i]!);
    const roundings = bend === 0 ? 40 : 80;
    const [t, n] = [theta.map(Math.abs), next.map(Math.abs)];
    const charge = (u * (P + h + 4) * (form(t) + form(n))) / 2;
    const update = form(
      n,
      t.map((x, i) => u * (2 * x + 3 * dt * d[i]!)),
    );
    const direction = roundings * u * dt * (form(t, d) + dt * form(d) + bend * form(mean));
    return charge + update + direction;
  }

  const kinds: [string, Options, number, (update: number, dt: number) => number[], number][] = [
    ["sde", { scheme: "sde", theta: start, eta, steps }, eta, weights.sde, 0],
    ["sde", { scheme: "sde", theta: start, eta, weightDecay: 0.02, steps }, eta, weights.sde, 0],
    ["svag", { scheme: "svag", theta: start, eta, l: 2, steps }, eta / 2, weights.svag, 0],
    ["svag", { scheme: "svag", theta: start, eta, l: 2, weightDecay: 0.02, steps }, eta / 2, weights.svag, 0],
    ["modified", { scheme: "modified", theta: start, eta, steps }, eta, weights.sde, eta / 2],
    ["modified", { scheme: "modified", theta: start, eta, dt: 0.004, steps }, 0.004, weights.sde, eta / 2],
  ];
  for (const where of lanes) {
    test.each(kinds)(`%s, case %#, lanes are ${where}`, async (_name, options, dt, weightsAt, bend) => {
      const run = await problem.simulate({
        ...options,
        batchSize: S,
        seed: "work",
        replicas: where === "samples" ? 1 : 2,
        record: {
          every: 1,
          charges: { C: symmetry.doubleRotation("U", "W", golden.B) },
          work: true,
          values: { U: net.leaf("U"), W: net.leaf("W") },
        },
        lowering: { lanes: where },
      });
      const R = run.replicas;
      const { charges, work, values } = run.series;
      const theta = (k: number) => [
        ...values["U"]!.subarray(k * R * 4, k * R * 4 + 4),
        ...values["W"]!.subarray(k * R * 6, k * R * 6 + 6),
      ];
      const gamma = (options.weightDecay as number | undefined) ?? 0;
      const keep = (1 - 2 * dt * gamma) ** 2;
      const worst = { ratio: 0, off: 0 };
      let sum = 0;
      for (let k = 0; k < steps; k++) {
        const of = (data: Float64Array, at: number) => data[at * R]!;
        const done = of(work["C"]!, k + 1) - of(work["C"]!, k);
        const change = of(charges["C"]!, k + 1) - keep * of(charges["C"]!, k);
        const rounding =
          bound(theta(k), theta(k + 1), weightsAt(k, dt), dt, bend) +
          2 ** -52 * Math.abs(of(work["C"]!, k + 1));
        worst.ratio = Math.max(worst.ratio, Math.abs(change - done) / rounding);
        worst.off = Math.max(worst.off, Math.abs(change - 1.0001 * done) / rounding);
        sum += rounding;
      }
      expect(worst.ratio).toBeLessThan(1);
      // a part in 10,000 of the work would be seen, and the bound is far below what it judges
      expect(worst.off).toBeGreaterThan(1);
      expect(sum).toBeLessThan(1e-5 * Math.abs(work["C"]!.at(-R)!));
    });
  }

  test("substeps: the work of a step is that of its updates", async () => {
    const record = { every: 2, charges: { C: symmetry.doubleRotation("U", "W", golden.B) }, work: true };
    const common = { scheme: "modified", theta: start, batchSize: S, seed: "sub" } as const;
    const run = await problem.simulate({ ...common, eta, substeps, steps: 100, record });
    const C = run.series.charges["C"]!;
    const W = run.series.work["C"]!;
    const total = W.at(-1)!;
    expect(Math.abs(C.at(-1)! - C[0]! - total)).toBeLessThan(1e-10 * Math.abs(total));
  });
});

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createEngine, type Engine, model, ops, type Problem, sampler } from "../../src/index.ts";
import {
  descend,
  distinctBatch,
  freshEntry,
  goldenProblem,
  gradientMoments,
  iidBatch,
  keyOfSeed,
  twoLayerLinear,
} from "../reference/sgd.ts";

let engine: Engine;
beforeAll(async () => {
  engine = await createEngine();
});
afterAll(() => engine.dispose());

const lanes = ["samples", "replicas", "features"] as const;

/** theta after step k of a replica, from values recorded every step. */
const entriesOf = (series: Float64Array, k: number, replica: number, replicas: number, P: number): number[] =>
  Array.from(series.subarray((k * replicas + replica) * P, (k * replicas + replica + 1) * P));

/**
 * A problem whose path shows its batches: ell_n = t_n, so that one step takes eta/S off entry n for each time sample n
 * was drawn. With eta = S the entries count the draws.
 */
function counting(N: number): Problem {
  const net = model({ params: { t: [N] }, inputs: { e: [N] }, loss: ({ t, e }) => ops.sum(ops.mul(t, e)) });
  return engine.problem(net, {
    e: Array.from({ length: N * N }, (_, i) => (i % N === Math.floor(i / N) ? 1 : 0)),
  });
}

/** How often each sample was drawn, [step][replica][sample]. */
async function countDraws(
  N: number,
  S: number,
  steps: number,
  replicas: number,
  more: {
    sampling?: "iid" | "without";
    firstReplica?: number;
    seed: string;
    lanes: "samples" | "replicas" | "features";
  },
): Promise<number[][][]> {
  const problem = counting(N);
  const { lanes: lanesWanted, ...rest } = more;
  const run = await problem.simulate({
    scheme: "sgd",
    theta: new Float64Array(N),
    eta: S,
    batchSize: S,
    steps,
    replicas,
    ...rest,
    record: { every: 1, values: { t: problem.model.leaf("t") } },
    lowering: { lanes: lanesWanted },
  });
  problem.dispose();
  const t = run.series.values["t"]!;
  return Array.from({ length: steps }, (_, k) =>
    Array.from({ length: replicas }, (_, r) => {
      const before = entriesOf(t, k, r, replicas, N);
      const after = entriesOf(t, k + 1, r, replicas, N);
      return before.map((x, n) => Math.round(x - after[n]!));
    }),
  );
}

const histogram = (batch: readonly number[], N: number): number[] =>
  Array.from({ length: N }, (_, n) => batch.filter((m) => m === n).length);

describe("the draws of a run are those of the reference", () => {
  // 300 steps run past one window of 256; S = 1, 2, 3 start batches inside a block of four draws, 4 at one, 7 across
  test.each(lanes)("iid: draw i of replica r is floor(word i N / 2^32), lanes are %s", async (where) => {
    for (const [N, S, steps] of [
      [5, 1, 300],
      [6, 2, 270],
      [7, 3, 270],
      [5, 4, 270],
      [9, 7, 120],
    ] as const) {
      const counts = await countDraws(N, S, steps, 5, { seed: `iid ${S}`, firstReplica: 3, lanes: where });
      const key = keyOfSeed(`iid ${S}`);
      const expected = counts.map((_, k) =>
        [0, 1, 2, 3, 4].map((r) => histogram(iidBatch(key, 3 + r, k, S, N), N)),
      );
      expect(counts, `N ${N}, S ${S}`).toEqual(expected);
    }
  });

  test.each(lanes)("without: the first S rounds of a shuffle, lanes are %s", async (where) => {
    for (const [N, S, steps] of [
      [5, 1, 270],
      [7, 3, 270],
      [8, 5, 120],
      [6, 6, 20],
    ] as const) {
      const counts = await countDraws(N, S, steps, 5, { seed: `w ${S}`, sampling: "without", lanes: where });
      const key = keyOfSeed(`w ${S}`);
      const expected = counts.map((_, k) =>
        [0, 1, 2, 3, 4].map((r) => histogram(distinctBatch(key, r, k, S, N), N)),
      );
      expect(counts, `N ${N}, S ${S}`).toEqual(expected);
      expect(counts.flat(2).every((c) => c === 0 || c === 1)).toBe(true);
    }
  });

  test.each([29, 43, 64, 86, 100, 200])(
    "iid draws are right with %i replicas side by side, where a window of draws may hold any number of steps",
    async (group) => {
      const problem = counting(3);
      const run = await problem.simulate({
        scheme: "sgd",
        theta: new Float64Array(3),
        eta: 1,
        batchSize: 1,
        steps: 400,
        replicas: group,
        seed: "wide",
        record: { every: 400, values: { t: problem.model.leaf("t") } },
        lowering: { lanes: "replicas", group, chunk: 400 },
      });
      problem.dispose();
      const key = keyOfSeed("wide");
      for (const r of [0, 1, 20, group - 1]) {
        const drawn = Array.from({ length: 400 }, (_, k) => iidBatch(key, r, k, 1, 3)[0]!);
        const counts = entriesOf(run.series.values["t"]!, 1, r, group, 3).map((x) => -x);
        expect(counts, `replica ${r}`).toEqual(histogram(drawn, 3));
      }
    },
  );

  test.each(lanes)(
    "online: leaf entries of (block, step, replica, purpose 3), lanes are %s",
    async (where) => {
      const law = sampler({
        noise: {
          z: { kind: "normal", shape: [3] },
          u: { kind: "uniform", shape: [3] },
          s: { kind: "sign", shape: [5] },
          i: { kind: "index", shape: [2], below: 1000 },
        },
        outputs: ({ z, u, s, i }) => ({ z, u, s, i }),
      });
      const sizes = { z: 3, u: 3, s: 5, i: 2 };
      // ell = t . (all leaves); theta' = theta - mean leaves at eta = 1
      const net = model({
        params: { tz: [3], tu: [3], ts: [5], ti: [2] },
        inputs: { z: [3], u: [3], s: [5], i: [2] },
        loss: (v) =>
          ops.add(
            ops.add(ops.matmul(v.tz, v.z), ops.matmul(v.tu, v.u)),
            ops.add(ops.matmul(v.ts, v.s), ops.matmul(v.ti, v.i)),
          ),
      });
      const problem = engine.problem(net, law);
      const [steps, S, replicas, P] = [7, 3, 5, 13];
      const run = await problem.simulate({
        scheme: "sgd",
        theta: new Float64Array(P),
        eta: 1,
        batchSize: S,
        steps,
        replicas,
        firstReplica: 2,
        seed: "fresh",
        record: {
          every: 1,
          values: Object.fromEntries(["z", "u", "s", "i"].map((n) => [n, net.leaf(`t${n}`)])),
        },
        lowering: { lanes: where },
      });
      problem.dispose();
      const key = keyOfSeed("fresh");
      const kinds = { z: "normal", u: "uniform", s: "sign", i: "index" } as const;
      const firstBlock = { z: 0, u: 2, s: 4, i: 6 };
      const perSample = 7;
      for (const name of ["z", "u", "s", "i"] as const) {
        const size = sizes[name];
        const worst = { error: 0, at: "" };
        for (let r = 0; r < replicas; r++) {
          const expected = Array.from({ length: size }, () => 0);
          for (let k = 0; k < steps; k++) {
            const got = entriesOf(run.series.values[name]!, k + 1, r, replicas, size);
            for (let e = 0; e < size; e++) {
              for (let s = 0; s < S; s++) {
                const block = s * perSample + firstBlock[name];
                expected[e]! -=
                  freshEntry(kinds[name], key, { replica: 2 + r, step: k, block, entry: e, below: 1000 }) / S;
              }
              const error = Math.abs(got[e]! - expected[e]!);
              if (error > worst.error)
                Object.assign(worst, { error, at: `replica ${r} step ${k} entry ${e}` });
            }
          }
        }
        // sums of 21 numbers of size up to 1000/3: 21 roundings of 7000 u = 2e-11; the normals' functions err less
        expect(worst.error, `${name}: ${worst.at}`).toBeLessThan(name === "i" ? 2e-11 : 2e-13);
      }
    },
  );
});

describe("simulate follows the plain loop", () => {
  const golden = goldenProblem();
  const { loss, gradient } = twoLayerLinear({ dx: 3, h: 2, dy: 2 }, golden);
  const start = [...golden.U, ...golden.W];
  const net = model({
    params: { U: [2, 2], W: [2, 3] },
    inputs: { x: [3], y: [2] },
    loss: ({ U, W, x, y }) => ops.sqnorm(ops.sub(ops.matmul(U, ops.matmul(W, x)), y)),
  });
  const data = { x: golden.x, y: golden.y };

  // Two evaluations of a step differ by some 30 roundings of numbers of order 1; a contracting or neutral map adds
  // them up: 200 steps * 30 * 1.1e-16 < 1e-12.
  const TOLERANCE = 1e-12;
  const worst = (got: ArrayLike<number>, expected: readonly number[]) =>
    Math.max(...expected.map((x, i) => Math.abs(x - got[i]!)));

  const cases = [
    { name: "iid", sampling: "iid", batch: iidBatch },
    { name: "without", sampling: "without", batch: distinctBatch },
  ] as const;
  for (const where of lanes) {
    for (const { name, sampling, batch } of cases) {
      test(`SGD, ${name}, S = 3, decay, its own eta in each replica, lanes are ${where}`, async () => {
        const problem = engine.problem(net, data);
        const etas = [0.01, 0.02, 0.03];
        const gammas = [0, 0.05, 0.01];
        const run = await problem.simulate({
          scheme: "sgd",
          theta: start,
          eta: etas,
          weightDecay: gammas,
          batchSize: 3,
          sampling,
          steps: 200,
          replicas: 3,
          seed: name,
          record: { every: 1, loss: "batch" },
          lowering: { lanes: where },
        });
        problem.dispose();
        const key = keyOfSeed(name);
        for (let r = 0; r < 3; r++) {
          const draw = (k: number) => batch(key, r, k, 3, 8);
          const path = descend({
            theta: start,
            eta: etas[r]!,
            gamma: gammas[r]!,
            steps: 200,
            gradient,
            batch: draw,
          });
          expect(worst(run.theta.slice(r * 10, (r + 1) * 10), path[200]!)).toBeLessThan(TOLERANCE);
          // the recorded batch loss is that of the batch the next step uses
          const losses = path.map((theta, k) => draw(k).reduce((sum, n) => sum + loss(theta, n), 0) / 3);
          const recorded = losses.map((_, k) => run.series.loss![k * 3 + r]!);
          expect(worst(recorded, losses)).toBeLessThan(TOLERANCE * 10);
        }
      });
    }

    test(`GD with decay, lanes are ${where}; SGD without replacement of all N is GD`, async () => {
      const problem = engine.problem(net, data);
      const options = {
        theta: start,
        eta: [0.01, 0.03],
        weightDecay: 0.02,
        steps: 200,
        replicas: 2,
        lowering: { lanes: where },
      } as const;
      const run = await problem.simulate({ scheme: "gd", ...options, record: { every: 1, loss: "full" } });
      const all = await problem.simulate({ scheme: "sgd", ...options, batchSize: 8, sampling: "without" });
      problem.dispose();
      const everything = [0, 1, 2, 3, 4, 5, 6, 7];
      for (const [r, eta] of options.eta.entries()) {
        const path = descend({
          theta: start,
          eta,
          gamma: 0.02,
          steps: 200,
          gradient,
          batch: () => everything,
        });
        expect(worst(run.theta.slice(r * 10, (r + 1) * 10), path[200]!)).toBeLessThan(TOLERANCE);
        expect(worst(all.theta.slice(r * 10, (r + 1) * 10), path[200]!)).toBeLessThan(TOLERANCE);
        const losses = path.map((theta) => everything.reduce((sum, n) => sum + loss(theta, n), 0) / 8);
        const recorded = losses.map((_, k) => run.series.loss![k * 2 + r]!);
        expect(worst(recorded, losses)).toBeLessThan(TOLERANCE * 10);
      }
    });

    test(`explicit batches are walked in order by every replica, lanes are ${where}`, async () => {
      const problem = engine.problem(net, data);
      const batches = Array.from({ length: 50 * 3 }, (_, i) => (i * i + 3 * i) % 8);
      const run = await problem.simulate({
        scheme: "sgd",
        theta: start,
        eta: [0.02, 0.01],
        batchSize: 3,
        steps: 50,
        replicas: 2,
        batches,
        record: { every: 25, loss: "full" },
        lowering: { lanes: where },
      });
      problem.dispose();
      for (const [r, eta] of [0.02, 0.01].entries()) {
        const path = descend({
          theta: start,
          eta,
          steps: 50,
          gradient,
          batch: (k) => batches.slice(3 * k, 3 * k + 3),
        });
        expect(worst(run.theta.slice(r * 10, (r + 1) * 10), path[50]!)).toBeLessThan(TOLERANCE);
      }
    });
  }

  const R = 10_000;
  const P = 10;
  const { mean, covariance } = gradientMoments([0, 1, 2, 3, 4, 5, 6, 7].map((n) => gradient(start, n)));
  const measured = new Map<string, Float64Array[]>();
  /** ghat - gbar of R replicas of one step, by entry. */
  async function deviations(sampling: "iid" | "without", S: number): Promise<Float64Array[]> {
    const known = measured.get(`${sampling} ${S}`);
    if (known) return known;
    const eta = 0.5;
    const problem = engine.problem(net, data);
    const run = await problem.simulate({
      scheme: "sgd",
      theta: start,
      eta,
      batchSize: S,
      sampling,
      steps: 1,
      replicas: R,
      seed: "covariance",
    });
    problem.dispose();
    const made = mean.map((m, i) =>
      Float64Array.from({ length: R }, (_, r) => (start[i]! - run.theta[r * P + i]!) / eta - m),
    );
    measured.set(`${sampling} ${S}`, made);
    return made;
  }

  /**
   * Covariance of the minibatch gradient over R replicas of one step, against `factor` Sigma. The mean is known, so
   * entry (i, j) is the mean of R iid products; its standard error comes from the replicas. Returns the largest |z|
   * over the P means and P (P + 1) / 2 covariances.
   */
  async function worstZ(sampling: "iid" | "without", S: number, factor: number): Promise<number> {
    const d = await deviations(sampling, S);
    const z = (sample: (r: number) => number, expected: number) => {
      let [sum, squares] = [0, 0];
      for (let r = 0; r < R; r++) sum += sample(r);
      const average = sum / R;
      for (let r = 0; r < R; r++) squares += (sample(r) - average) ** 2;
      return Math.abs(average - expected) / Math.sqrt(squares / (R - 1) / R);
    };
    let largest = 0;
    for (let i = 0; i < P; i++) {
      largest = Math.max(
        largest,
        z((r) => d[i]![r]!, 0),
      );
      for (let j = 0; j <= i; j++) {
        largest = Math.max(
          largest,
          z((r) => d[i]![r]! * d[j]![r]!, factor * covariance[i]![j]!),
        );
      }
    }
    return largest;
  }

  // 65 statistics each, R = 10,000 (se of a variance about 2 %): false alarm 65 * 1e-6 per test
  test("iid: the minibatch gradient has mean gbar and covariance Sigma / S, |z| < 4.9, R = 10,000", async () => {
    expect(await worstZ("iid", 3, 1 / 3)).toBeLessThan(4.9);
    expect(await worstZ("iid", 1, 1)).toBeLessThan(4.9);
  });
  test("without: covariance (Sigma / S) (N - S) / (N - 1), |z| < 4.9, R = 10,000", async () => {
    expect(await worstZ("without", 3, (1 / 3) * (5 / 7))).toBeLessThan(4.9);
    expect(await worstZ("without", 7, (1 / 7) * (1 / 7))).toBeLessThan(4.9);
  });
  test("the test above tells the two apart, and S from S - 1", async () => {
    expect(await worstZ("without", 3, 1 / 3)).toBeGreaterThan(4.9);
    expect(await worstZ("iid", 3, (1 / 3) * (5 / 7))).toBeGreaterThan(4.9);
    expect(await worstZ("iid", 3, 1 / 2)).toBeGreaterThan(4.9);
  });
});

describe("draws without replacement", () => {
  /** Wilson and Hilferty: (chi2 / df)^(1/3) is nearly normal. One-sided alarm above 4.9: 5e-7. */
  const chiSquareZ = (counts: readonly number[], expected: number): number => {
    const chi2 = counts.reduce((sum, c) => sum + (c - expected) ** 2 / expected, 0);
    const df = counts.length - 1;
    return (Math.cbrt(chi2 / df) - (1 - 2 / (9 * df))) / Math.sqrt(2 / (9 * df));
  };
  const subsetsOf = (batches: readonly (readonly number[])[]): number[] => {
    const counts = new Map<string, number>();
    for (const counted of batches) {
      const key = counted.join("");
      counts.set(key, (counts.get(key) ?? 0) + 1);
    }
    return [...counts.values()];
  };

  test("every 3-subset of 6 is equally likely: chi-square z < 4.9 over 40,000 batches", async () => {
    const draws = await countDraws(6, 3, 40, 1000, {
      seed: "subsets",
      sampling: "without",
      lanes: "replicas",
    });
    const counts = subsetsOf(draws.flat());
    expect(counts).toHaveLength(20);
    expect(chiSquareZ(counts, 2000)).toBeLessThan(4.9);
  });

  test("the chi-square rejects a shuffle that exchanges with any entry", () => {
    const key = keyOfSeed("naive");
    // 4,000 batches of the well-known wrong shuffle, whose orders are unequal by about a tenth
    const wrong = Array.from({ length: 4000 }, (_, k) => {
      const order = [0, 1, 2, 3, 4, 5];
      for (const [s, other] of iidBatch(key, 0, k, 3, 6).entries()) {
        [order[s], order[other]] = [order[other]!, order[s]!];
      }
      return histogram(order.slice(0, 3), 6);
    });
    const counts = subsetsOf(wrong);
    expect(chiSquareZ(counts, 200)).toBeGreaterThan(4.9);
  });
});

describe("fresh samples", () => {
  test("have the moments of their leaves, and are independent over steps, samples and replicas (|z| < 4.9)", async () => {
    const law = sampler({
      noise: {
        z: { kind: "normal", shape: [2] },
        u: { kind: "uniform", shape: [1] },
        s: { kind: "sign", shape: [1] },
        i: { kind: "index", shape: [1], below: 10 },
      },
      outputs: ({ z, u, s, i }) => ({ z, u, s, i }),
    });
    const net = model({
      params: { tz: [2], tu: [1], ts: [1], ti: [1] },
      inputs: { z: [2], u: [1], s: [1], i: [1] },
      loss: (v) =>
        ops.add(
          ops.add(ops.matmul(v.tz, v.z), ops.matmul(v.tu, v.u)),
          ops.add(ops.matmul(v.ts, v.s), ops.matmul(v.ti, v.i)),
        ),
    });
    const problem = engine.problem(net, law);
    const [R, steps, P] = [2000, 20, 5];
    const run = await problem.simulate({
      scheme: "sgd",
      theta: new Float64Array(P),
      eta: 1,
      batchSize: 1,
      steps,
      replicas: R,
      seed: "moments",
      record: {
        every: 1,
        values: Object.fromEntries(["z", "u", "s", "i"].map((n) => [n, net.leaf(`t${n}`)])),
      },
    });
    problem.dispose();
    /** The leaf of each step and replica, [step][replica]. */
    const drawn = (name: string, size: number, e: number) =>
      Array.from({ length: steps }, (_, k) =>
        Array.from({ length: R }, (_, r) => {
          const t = run.series.values[name]!;
          return t[(k * R + r) * size + e]! - t[((k + 1) * R + r) * size + e]!;
        }),
      );
    /** z of the mean of iid numbers with a known mean, its error from the numbers themselves. */
    const z = (xs: readonly number[], expected: number) => {
      const m = xs.reduce((a, b) => a + b, 0) / xs.length;
      const v = xs.reduce((a, b) => a + (b - m) * (b - m), 0) / (xs.length - 1);
      return v === 0 ? (m === expected ? 0 : Infinity) : Math.abs(m - expected) / Math.sqrt(v / xs.length);
    };
    const moments: [string, number, readonly number[]][] = [];
    // E x, E x^2, E x^3, E x^4 of each leaf, 40,000 numbers each
    const uniform = drawn("u", 1, 0);
    const drawnZ1 = drawn("z", 2, 1);
    for (const [name, leaf, expected] of [
      ["z0", drawn("z", 2, 0), [0, 1, 0, 3]],
      ["z1", drawn("z", 2, 1), [0, 1, 0, 3]],
      ["u", uniform, [1 / 2, 1 / 3, 1 / 4, 1 / 5]],
      ["s", drawn("s", 1, 0), [0]],
      ["i", drawn("i", 1, 0), [4.5, 28.5, 202.5, 1533.3]],
    ] as const) {
      for (const [p, value] of expected.entries()) {
        moments.push([`E ${name}^${p + 1}`, value, leaf.flat().map((x) => x ** (p + 1))]);
      }
      const m = expected[0]!;
      const centred = leaf.map((row) => row.map((x) => x - m));
      const products = (other: (k: number, r: number) => number | undefined) =>
        centred.flatMap((row, k) =>
          row.flatMap((x, r) => (other(k, r) === undefined ? [] : x * other(k, r)!)),
        );
      moments.push([`${name}: next step`, 0, products((k, r) => centred[k + 1]?.[r])]);
      moments.push([`${name}: next replica`, 0, products((k, r) => centred[k]![r + 1])]);
      moments.push([`${name}: leaf z1`, 0, name === "z1" ? [0, 0] : products((k, r) => drawnZ1[k]![r])]);
    }
    for (const [what, expected, xs] of moments) expect(z(xs, expected), what).toBeLessThan(4.9);
    // a wrong moment must be seen: uniforms on [0, 1.02)
    expect(
      z(
        uniform.flat().map((x) => 1.02 * x),
        1 / 2,
      ),
    ).toBeGreaterThan(4.9);
  });
});

import { beforeAll, describe, expect, test } from "vitest";
import { normalMatrix, randomTeacher } from "../../src/experiments/linear-net.ts";
import { createEngine, type Engine, type GroupTrend, type Matrix } from "../../src/index.ts";

let engine: Engine;
beforeAll(async () => {
  engine = await createEngine();
});

const matrix = (rows: number, cols: number, f: (i: number, j: number) => number): Matrix => ({
  rows,
  cols,
  values: Float64Array.from({ length: rows * cols }, (_, e) => f(Math.floor(e / cols), e % cols)),
});
const at = (A: Matrix, i: number, j: number) => A.values[i * A.cols + j]!;

/** Plain products, apart from the engine's. */
function times(A: Matrix, B: Matrix): Matrix {
  return matrix(A.rows, B.cols, (i, j) => {
    let sum = 0;
    for (let p = 0; p < A.cols; p++) sum += at(A, i, p) * at(B, p, j);
    return sum;
  });
}
const turned = (A: Matrix) => matrix(A.cols, A.rows, (i, j) => at(A, j, i));
const trace = (A: Matrix) => {
  let sum = 0;
  for (let i = 0; i < A.rows; i++) sum += at(A, i, i);
  return sum;
};
const norm = (A: Matrix) => Math.sqrt(A.values.reduce((s, x) => s + x * x, 0));
const minus = (A: Matrix, B: Matrix) => matrix(A.rows, A.cols, (i, j) => at(A, i, j) - at(B, i, j));

/** The deterministic system of the theory's golden values. */
const golden = {
  x: matrix(8, 3, (n, j) => Math.sin(1.3 * n * (j + 1) + 0.7 * j + 0.2)),
  y: matrix(8, 2, (n, i) => Math.cos(0.9 * n + 1.6 * i + 0.2)),
  U: matrix(2, 2, (i, a) => Math.sin(0.5 + i + 2 * a)),
  W: matrix(2, 3, (a, j) => Math.cos(0.3 + 1.1 * a + 0.7 * j)),
  sigma2: 0.00125,
  gamma: 0.02,
};

/** Largest difference over the largest entry. */
function expectEntries(got: ArrayLike<number>, wanted: readonly number[], tolerance: number): void {
  const largest = Math.max(...wanted.map(Math.abs));
  expect(got.length).toBe(wanted.length);
  for (const [i, w] of wanted.entries()) expect(Math.abs(got[i]! - w) / largest).toBeLessThan(tolerance);
}

const symmetric = (n: number, upper: readonly number[]): number[] => {
  const full = new Array<number>(n * n).fill(0);
  let e = 0;
  for (let i = 0; i < n; i++) {
    for (let j = i; j < n; j++) {
      full[i * n + j] = upper[e]!;
      full[j * n + i] = upper[e++]!;
    }
  }
  return full;
};

describe("Theorem 2 at the golden system (values to 1e-10)", () => {
  const GammaW = [
    2.323028405016393, 1.2786996425133963, 1.2003362550989494, 3.0921138940942408, 3.647076734414612,
    4.636837182473514,
  ];
  const GammaU = [2.675223911539201, -2.622815335296166, 7.376755570044948];
  const S_U = symmetric(2, [3.61657251586235, -3.1288026268443945, 7.83745986857952]);
  const S_W = symmetric(2, [5.44615177037532, -2.9382365833146715, 2.967119661913981]);

  test("the Gammas of the data", () => {
    const gammas = engine.twoLayer.gammasOfData(golden);
    expectEntries(gammas.GammaW.values, symmetric(3, GammaW), 1e-10);
    expectEntries(gammas.GammaU.values, symmetric(2, GammaU), 1e-10);
  });

  test.each([
    [0, [0.009598927357261847, 0.0019236150307654267]],
    [golden.gamma, [0.055888419125229356, 0.034615799796852365]],
  ])("the common spectrum D with weight decay %d", (gamma, D) => {
    const gammas = engine.twoLayer.gammasOfData(golden);
    const V = times(golden.U, golden.W);
    const balanced = engine.twoLayer.balanced({ V, h: 2, sigma2: golden.sigma2, gamma, ...gammas });
    expectEntries(balanced.D, D, 1e-10);
  });

  test.each([
    [0, [0.8977477097910058, 0.16106929345434626, 1.7779138064632893]],
    [golden.gamma, [0.9845718824174201, 0.06816015787590073, 1.5858680471489595]],
  ])("the group equilibrium M with weight decay %d", (gamma, M) => {
    const { U, W, sigma2 } = golden;
    const SU = { rows: 2, cols: 2, values: Float64Array.from(S_U) };
    const SW = { rows: 2, cols: 2, values: Float64Array.from(S_W) };
    const found = engine.twoLayer.groupEquilibrium({ U, W, SU, SW, sigma2, gamma });
    expectEntries(found.M.values, symmetric(2, M), 1e-10);
    expect(norm(minus(times(found.U, found.W), times(U, W)))).toBeLessThan(1e-12);
  });

  test("the group equilibrium has the spectrum D of the explicit solution", () => {
    const { U, W, sigma2, gamma } = golden;
    const SU = { rows: 2, cols: 2, values: Float64Array.from(S_U) };
    const SW = { rows: 2, cols: 2, values: Float64Array.from(S_W) };
    const gammas = engine.twoLayer.gammasOfData(golden);
    const star = engine.twoLayer.groupEquilibrium({ U, W, SU, SW, sigma2, gamma });
    const KW = minus(
      matrix(3, 3, (i, j) => sigma2 * at(gammas.GammaW, i, j)),
      matrix(3, 3, (i, j) => (i === j ? -2 * gamma : 0)),
    );
    const side = times(star.W, times(KW, turned(star.W)));
    const { values } = engine.dense.symmetricEigen(side);
    expectEntries(values, [0.055888419125229356, 0.034615799796852365], 1e-10);
  });
});

describe("Theorem 2 on 100 random problems", () => {
  test("product, balance and optimality hold to 1e-10, by plain products", () => {
    let worst = 0;
    for (let i = 0; i < 100; i++) {
      const d = 2 + (i % 5);
      const h = d + (i % 4);
      const { V, SigmaX, SigmaEps } = randomTeacher(engine, d, 1 + (i % 7) / 2, `problem ${i}`);
      const error =
        i % 2 === 0
          ? undefined
          : matrix(d, d, (r, c) => 0.2 * at(normalMatrix(engine, d, d, `error ${i}`), r, c));
      const gammas = engine.twoLayer.gammas({ SigmaX, SigmaEps, ...(error ? { error } : {}) });
      const [sigma2, gamma] = [0.001 * (1 + (i % 9)), i % 3 === 0 ? 0 : 0.003 * (i % 5)];
      const { U, W, D } = engine.twoLayer.balanced({ V, h, sigma2, gamma, ...gammas });
      const K = (G: Matrix) =>
        matrix(G.rows, G.cols, (r, c) => sigma2 * at(G, r, c) + (r === c ? 2 * gamma : 0));
      const [KW, KU] = [K(gammas.GammaW), K(gammas.GammaU)];
      const left = times(W, times(KW, turned(W)));
      const right = times(turned(U), times(KU, U));
      const sum = D.reduce((a, b) => a + b, 0);
      worst = Math.max(
        worst,
        norm(minus(times(U, W), V)) / norm(V),
        norm(minus(left, right)) / norm(right),
        Math.abs(trace(left) + trace(right) - 2 * sum) / (2 * sum),
      );
      // any other factorisation of V costs more: the minimum is the optimality claim
      const G = matrix(
        h,
        h,
        (r, c) => (r === c ? 1 : 0) + 0.1 * at(normalMatrix(engine, h, h, `G ${i}`), r, c),
      );
      const [U2, W2] = [times(U, G), times(engine.dense.inverse(G), W)];
      const cost = trace(times(W2, times(KW, turned(W2)))) + trace(times(turned(U2), times(KU, U2)));
      expect(cost).toBeGreaterThan(2 * sum * (1 - 1e-10));
    }
    console.log(`Theorem 2, 100 random problems: largest error ${worst.toExponential(1)}`);
    expect(worst).toBeLessThan(1e-10);
  });

  test("the population Gammas are those of a large sample (|z| < 4.9 on every entry)", () => {
    // 40,000 samples: entries scatter by their own standard error, estimated from 40 batches
    const d = 3;
    const { V, SigmaX, SigmaEps } = randomTeacher(engine, d, 1.6, "sampled");
    const error = matrix(d, d, (r, c) => 0.3 * at(normalMatrix(engine, d, d, "E"), r, c));
    const exact = engine.twoLayer.gammas({ SigmaX, SigmaEps, error });
    const [rootX, rootE] = [engine.dense.sqrtSymmetric(SigmaX), engine.dense.sqrtSymmetric(SigmaEps)];
    const U = minus(
      V,
      matrix(d, d, (r, c) => -at(error, r, c)),
    );
    const W = engine.dense.identity(d);
    const batches = Array.from({ length: 40 }, (_, b) => {
      const x = times(normalMatrix(engine, 1000, d, `x ${b}`), rootX);
      const y = minus(times(x, turned(V)), times(normalMatrix(engine, 1000, d, `e ${b}`), rootE));
      return engine.twoLayer.gammasOfData({ U, W, x, y });
    });
    let largest = 0;
    for (const side of ["GammaW", "GammaU"] as const) {
      for (let e = 0; e < d * d; e++) {
        const values = batches.map((g) => g[side].values[e]!);
        const mean = values.reduce((a, b) => a + b, 0) / values.length;
        const variance = values.reduce((s, v) => s + (v - mean) ** 2, 0) / (values.length - 1);
        largest = Math.max(
          largest,
          Math.abs(mean - exact[side].values[e]!) / Math.sqrt(variance / values.length),
        );
      }
    }
    expect(largest).toBeLessThan(4.9);
  });
});

describe("the group equilibrium where X_U or X_W is singular, or far off balance", () => {
  /** Squared error on random data: the moments of theory 9, S_U = W Gamma_W W^T and S_W = U^T Gamma_U U. */
  function system(dx: number, h: number, dy: number, seed: string) {
    const x = normalMatrix(engine, 30, dx, `${seed} x`);
    const y = normalMatrix(engine, 30, dy, `${seed} y`);
    return of(x, y, normalMatrix(engine, dy, h, `${seed} U`), normalMatrix(engine, h, dx, `${seed} W`));
  }
  function of(x: Matrix, y: Matrix, U: Matrix, W: Matrix) {
    const gammas = engine.twoLayer.gammasOfData({ U, W, x, y });
    const SU = times(W, times(gammas.GammaW, turned(W)));
    const SW = times(turned(U), times(gammas.GammaU, U));
    return { U, W, SU, SW, sigma2: 0.01, gammas };
  }
  type System = ReturnType<typeof of>;
  /** sigma^2 Tr Sigma + 2 gamma |theta|^2, which the equilibrium minimises. */
  const cost = ({ gammas: { GammaW, GammaU }, sigma2 }: System, U: Matrix, W: Matrix, gamma: number) =>
    sigma2 * (trace(times(W, times(GammaW, turned(W)))) + trace(times(turned(U), times(GammaU, U)))) +
    2 * gamma * (norm(U) ** 2 + norm(W) ** 2);
  /** |X_U - X_W| / (|X_U| + |X_W|) at U, W. */
  const imbalance = ({ gammas: { GammaW, GammaU }, sigma2 }: System, U: Matrix, W: Matrix, gamma: number) => {
    const K = (G: Matrix) =>
      matrix(G.rows, G.cols, (i, j) => sigma2 * at(G, i, j) + (i === j ? 2 * gamma : 0));
    const [XU, XW] = [times(W, times(K(GammaW), turned(W))), times(turned(U), times(K(GammaU), U))];
    return norm(minus(XU, XW)) / (norm(XU) + norm(XW));
  };
  const rescaled = (s: System, powers: readonly number[]): System => {
    const e = powers.map((k) => Math.exp(k));
    return {
      ...s,
      U: matrix(s.U.rows, s.U.cols, (i, j) => at(s.U, i, j) * e[j]!),
      W: matrix(s.W.rows, s.W.cols, (i, j) => at(s.W, i, j) / e[i]!),
      SU: matrix(s.SU.rows, s.SU.cols, (i, j) => at(s.SU, i, j) / (e[i]! * e[j]!)),
      SW: matrix(s.SW.rows, s.SW.cols, (i, j) => at(s.SW, i, j) * (e[i]! * e[j]!)),
    };
  };
  /** Distances of each neuron from where it was: up to 40 between them. */
  const farPowers = (h: number, k: number) => Array.from({ length: h }, (_, j) => 20 * Math.sin(5 * j + k));

  test.each([0, 0.004])("neurons e^40 apart: the same minimum, at rest to 1e-9; gamma %d", (gamma) => {
    for (let k = 0; k < 20; k++) {
      const s = system(4, 3, 3, `far ${k}`);
      const near = engine.twoLayer.groupEquilibrium({ ...s, gamma });
      expect(near.trend).toBeNull();
      const far = rescaled(s, farPowers(3, k));
      const { U, W } = engine.twoLayer.groupEquilibrium({ ...far, gamma });
      expect(imbalance(s, U, W, gamma)).toBeLessThan(1e-9);
      expect(cost(s, U, W, gamma) / cost(s, near.U, near.W, gamma)).toBeCloseTo(1, 9);
      expect(norm(minus(times(U, W), times(s.U, s.W))) / norm(times(s.U, s.W))).toBeLessThan(1e-9);
    }
  });

  test("a neuron of which both weights are small is weak, not singular", () => {
    const s = system(4, 3, 3, "weak");
    const small = (k: number) => (k === 1 ? 1e-9 : 1);
    const x = normalMatrix(engine, 30, 4, "weak x");
    const y = normalMatrix(engine, 30, 3, "weak y");
    const weak = of(
      x,
      y,
      matrix(3, 3, (i, k) => at(s.U, i, k) * small(k)),
      matrix(3, 4, (k, j) => at(s.W, k, j) * small(k)),
    );
    const { U, W } = engine.twoLayer.groupEquilibrium(weak);
    expect(imbalance(weak, U, W, 0)).toBeLessThan(1e-7); // 1e9 between neurons, times some 2^-52
  });

  test("U M^1/2 and M^-1/2 W are those of the M returned", () => {
    const s = system(4, 3, 3, "roots");
    for (const one of [s, rescaled(s, [2, -1, 0.5])]) {
      const { M, U, W } = engine.twoLayer.groupEquilibrium(one);
      const root = engine.dense.sqrtSymmetric(M);
      expect(norm(minus(U, times(one.U, root))) / norm(U)).toBeLessThan(1e-12);
      expect(norm(minus(times(root, W), one.W)) / norm(one.W)).toBeLessThan(1e-12);
    }
  });

  test("more hidden units than inputs and outputs: refused, naming both ranks", () => {
    const s = system(3, 5, 2, "wide");
    expect(() => engine.twoLayer.groupEquilibrium(s)).toThrow(
      "groupEquilibrium: X_U and X_W of rank h = 5, without which the least noise may lie at infinity, got " +
        "X_U = sigma^2 S_U + 2 gamma W W^T of rank 3 and X_W = sigma^2 S_W + 2 gamma U^T U of rank 2. " +
        "Pass { regularize: 1e-6 } to come near it and see the trend.",
    );
    const tall = system(5, 4, 2, "tall");
    expect(() => engine.twoLayer.groupEquilibrium({ ...tall, gamma: 0.1 })).toThrow(
      "got X_W = sigma^2 S_W + 2 gamma U^T U of rank 2. Pass",
    );
    // neurons e^40 apart have the rank they have
    expect(() => engine.twoLayer.groupEquilibrium(rescaled(tall, farPowers(4, 1)))).toThrow(
      "of rank 2. Pass",
    );
  });

  test.each([0, 0.004])(
    "regularized it comes near the minimum 2 sum D of eq. 52: theta* has a limit; gamma %d",
    (gamma) => {
      for (let k = 0; k < 10; k++) {
        const s = system(3, 5, 2, `limit ${k}`);
        const V = times(s.U, s.W);
        const { D } = engine.twoLayer.balanced({ V, h: 5, sigma2: s.sigma2, gamma, ...s.gammas });
        const least = 2 * D.reduce((a, b) => a + b, 0);
        let before = Infinity;
        for (const regularize of [1e-2, 1e-4, 1e-6, 1e-8]) {
          const { U, W, trend } = engine.twoLayer.groupEquilibrium({ ...s, gamma, regularize });
          const above = cost(s, U, W, gamma) / least - 1;
          expect(above).toBeGreaterThan(-1e-10);
          expect(above).toBeLessThan(0.5 * before);
          before = above;
          expect(norm(minus(times(U, W), V)) / norm(V)).toBeLessThan(1e-9);
          expect(trend!.regularize).toBe(regularize);
          expect(Math.abs(trend!.growth)).toBeLessThan(20 * Math.sqrt(regularize));
          expect(trend!.imbalance[0]).toBeCloseTo(imbalance(s, U, W, gamma), 9);
          expect(trend!.imbalance[1]).toBeLessThan(0.5 * trend!.imbalance[0]);
          const far = engine.twoLayer.groupEquilibrium({
            ...rescaled(s, farPowers(5, k)),
            gamma,
            regularize,
          });
          expect(cost(s, far.U, far.W, gamma) / cost(s, U, W, gamma)).toBeCloseTo(1, 6);
        }
        expect(before).toBeLessThan(1e-3);
      }
    },
  );
  test("an input that is always 0: W grows towards it for ever, as e^-1/4", () => {
    const x = normalMatrix(engine, 30, 3, "blind x");
    const y = normalMatrix(engine, 30, 3, "blind y");
    const blind = matrix(30, 3, (n, j) => (j === 0 ? 0 : at(x, n, j)));
    const [U, W] = [normalMatrix(engine, 3, 3, "blind U"), normalMatrix(engine, 3, 3, "blind W")];
    const s = of(blind, y, U, W);
    expect(() => engine.twoLayer.groupEquilibrium(s)).toThrow(
      "got X_U = sigma^2 S_U + 2 gamma W W^T of rank 2.",
    );
    for (const regularize of [1e-6, 1e-8]) {
      const { trend, W: at } = engine.twoLayer.groupEquilibrium({ ...s, regularize });
      expect(Math.abs(trend!.growth - 0.25)).toBeLessThan(0.02);
      expect(norm(at)).toBeGreaterThan(5);
      expect(trend!.imbalance[1]).toBeLessThan(trend!.imbalance[0]);
    }
    // decay holds it
    expect(engine.twoLayer.groupEquilibrium({ ...s, gamma: 0.01 }).trend).toBeNull();
  });

  test("where nothing is singular, a small regularize changes little, and its trend says so", () => {
    const s = system(4, 3, 3, "whole");
    const { U } = engine.twoLayer.groupEquilibrium(s);
    const [more, less] = [1e-6, 1e-8].map((regularize) => {
      const { U: there, trend } = engine.twoLayer.groupEquilibrium({ ...s, regularize });
      return { moved: norm(minus(U, there)) / norm(U), trend: trend! };
    }) as [{ moved: number; trend: GroupTrend }, { moved: number; trend: GroupTrend }];
    expect(less.moved).toBeLessThan(1e-4);
    expect(Math.abs(more.moved / less.moved / 100 - 1)).toBeLessThan(0.1);
    expect(Math.abs(less.trend.growth)).toBeLessThan(1e-5);
    expect(Math.abs(more.trend.imbalance[1] / less.trend.imbalance[0] - 1)).toBeLessThan(1e-6);
    expect(less.trend.imbalance[0]).toBeLessThan(1e-4);
  });

  test("what regularize refuses", () => {
    const s = system(3, 5, 2, "refused");
    for (const regularize of [0, -1, 2, Number.NaN])
      expect(() => engine.twoLayer.groupEquilibrium({ ...s, regularize })).toThrow(
        "groupEquilibrium: regularize must be a finite number in [1e-10, 1]",
      );
    const still = { ...s, sigma2: 0, regularize: 1e-6 };
    expect(() => engine.twoLayer.groupEquilibrium(still)).toThrow(
      "There is neither noise nor decay on that side",
    );
  });
});

describe("what Theorem 2 refuses", () => {
  const eye = () => engine.dense.identity(3);
  test("a product with more rank than hidden units", () => {
    const gammas = engine.twoLayer.gammas({ SigmaX: eye(), SigmaEps: eye() });
    expect(() => engine.twoLayer.balanced({ V: eye(), h: 2, sigma2: 1, ...gammas })).toThrow(
      "balanced: a product of rank 3 needs at least 3 hidden units, got h = 2.",
    );
  });
  test("matrices that do not fit", () => {
    expect(() => engine.twoLayer.gammas({ SigmaX: [[1, 0]], SigmaEps: eye() })).toThrow(
      "gammas: SigmaX: expected a square matrix",
    );
    expect(() => engine.twoLayer.hessianTrace({ U: eye(), W: [[1, 0]], SigmaX: eye() })).toThrow(
      "expected a matrix of shape [3, any]",
    );
  });
});

test("Proposition 2 is the trace of the Hessian, by central differences of the gradient", async () => {
  const { model, ops } = await import("../../src/index.ts");
  const net = model({
    params: { U: [2, 3], W: [3, 4] },
    inputs: { x: [4], y: [2] },
    loss: ({ U, W, x, y }) => ops.sqnorm(ops.sub(ops.matmul(U, ops.matmul(W, x)), y)),
  });
  const x = normalMatrix(engine, 20, 4, "p2 x");
  const y = normalMatrix(engine, 20, 2, "p2 y");
  const problem = engine.problem(net, { x: x.values, y: y.values });
  const theta = Float64Array.from(problem.init("lecun", { seed: "p2" }));
  const h = 1e-4;
  let sum = 0;
  for (let i = 0; i < theta.length; i++) {
    const up = theta.slice();
    const down = theta.slice();
    up[i]! += h;
    down[i]! -= h;
    sum += (problem.gradient(up)[i]! - problem.gradient(down)[i]!) / (2 * h);
  }
  const SigmaX = matrix(4, 4, (i, j) => at(times(turned(x), x), i, j) / 20);
  const U = { rows: 2, cols: 3, values: theta.slice(0, 6) };
  const W = { rows: 3, cols: 4, values: theta.slice(6) };
  const exact = engine.twoLayer.hessianTrace({ U, W, SigmaX });
  // the loss is a quartic: central differences of its gradient err by h^2 / 6 of third derivatives, here 1e-8
  expect(Math.abs(sum / exact - 1)).toBeLessThan(1e-7);
});

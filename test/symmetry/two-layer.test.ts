import { beforeAll, describe, expect, test } from "vitest";
import { normalMatrix, randomTeacher } from "../../src/experiments/linear-net.ts";
import { createEngine, type Engine, type Matrix } from "../../src/index.ts";

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

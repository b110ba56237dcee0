import { log } from "../core/elementary.ts";
import { checkNumber, fail } from "../errors.ts";
import { readValues } from "../graph/parse.ts";
import type { Dense, Matrix } from "../stats/dense.ts";
import { finalTrace, type LinearTeacher } from "./final-trace.ts";

/** A matrix as a caller gives it: nested rows, or { rows, cols, values }. */
export type MatrixLike = Matrix | readonly (readonly number[])[];

/** Covariances of the noise of a two-layer linear network, Gamma_W (dx x dx) and Gamma_U (dy x dy). */
export interface Gammas {
  /** dx x dx: W Gamma_W W^T is the moment S_W of `noiseMoments`. */
  readonly GammaW: Matrix;
  /** dy x dy: U^T Gamma_U U is the moment S_U. */
  readonly GammaU: Matrix;
}

/** A factorisation U W = V where the noise of both layers balances. */
export interface BalancedFactors {
  /** dy x h. */
  readonly U: Matrix;
  /** h x dx. */
  readonly W: Matrix;
  /** Singular values of K_U^(1/2) V K_W^(1/2), descending: the common spectrum of both sides. */
  readonly D: Float64Array;
  /** Relative errors of U W = V, of W K_W W^T = U^T K_U U, and of the minimum 2 sum D. */
  readonly checks: { readonly product: number; readonly balance: number; readonly optimality: number };
}

/** A point of the orbit of all double rotations where dQ/dt = 0, or near the infimum where there is none. */
export interface GroupFactors {
  /** The geometric mean, h x h. */
  readonly M: Matrix;
  /** U M^1/2, dy x h, and M^-1/2 W, h x dx. */
  readonly U: Matrix;
  /** M^-1/2 W, h x dx. */
  readonly W: Matrix;
  /** What becomes of them as `regularize` falls; null without it. */
  readonly trend: GroupTrend | null;
}

/** From regularize = e to e / 100. */
export interface GroupTrend {
  /** e, as it was given. */
  readonly regularize: number;
  /** g in |theta*| ~ e^-g: 0 where theta* has a limit, above 0 where the infimum lies at infinity. */
  readonly growth: number;
  /** |X_U - X_W| / (|X_U| + |X_W|) at theta*, unregularized, for e and e / 100: dQ/dt in units of its parts. */
  readonly imbalance: readonly [number, number];
}

/** Eigenvalues below this times h are rounding, of a matrix with a unit diagonal: 2^-48. */
const RANK = 3.552713678800501e-15;

/**
 * Theorem 2 for ell = |U W x - y|^2: where the noise of the layers of a two-layer linear network
 * balances.
 *
 *   dQ/dt = 2 sigma^2 (W Gamma_W W^T - U^T Gamma_U U) - 4 gamma Q,   Q = U^T U - W W^T
 *   dQ/dt = 0  <=>  W K_W W^T = U^T K_U U,   K = sigma^2 Gamma + 2 gamma I
 *
 * With the product V fixed, K_U^(1/2) V K_W^(1/2) = L D R^T gives every balanced factorisation,
 * U = K_U^(-1/2) L D^(1/2) O^T and W = O D^(1/2) R^T K_W^(-1/2) with O^T O = I; here O is the first
 * columns of the identity.
 *
 * @source Ziyin et al. 2024, arXiv:2402.07193, eqs. 14-16 and 39-52
 */
export class TwoLayer {
  readonly #dense: Dense;

  /** @internal use engine.twoLayer */
  constructor(dense: Dense) {
    this.#dense = dense;
  }

  /**
   * Gammas of the population y = V x + eps, eps independent of x, at the product V + error:
   *
   *   Gamma_W = 4 (Tr[Sigma_eps] Sigma_x + Tr[E Sigma_x E^T] Sigma_x + Sigma_x E^T E Sigma_x)
   *   Gamma_U = 4 (Tr[Sigma_x] Sigma_eps + Tr[Sigma_x] E Sigma_x E^T + E Sigma_x^2 E^T)
   *
   * Without `error` (the global minimum) they hold for any law of x; the terms in E are those of a
   * Gaussian x.
   *
   * @example engine.twoLayer.gammas({ SigmaX: [[1, 0], [0, 1]], SigmaEps: [[0.25]] }).GammaU.values; // [2]
   */
  gammas(spec: { SigmaX: MatrixLike; SigmaEps: MatrixLike; error?: MatrixLike }): Gammas {
    const d = this.#dense;
    const Sx = covariance("gammas: SigmaX", spec.SigmaX);
    const Se = covariance("gammas: SigmaEps", spec.SigmaEps);
    const [traceX, traceEps] = [d.trace(Sx), d.trace(Se)];
    let GammaW = d.scale(Sx, 4 * traceEps);
    let GammaU = d.scale(Se, 4 * traceX);
    if (spec.error !== undefined) {
      const E = matrix("gammas: error", spec.error, Se.rows, Sx.rows);
      const ES = d.matmul(E, Sx);
      const ESE = d.matmul(ES, d.transpose(E));
      GammaW = d.add(GammaW, d.add(d.scale(Sx, 4 * d.trace(ESE)), d.scale(d.matmul(d.transpose(ES), ES), 4)));
      GammaU = d.add(GammaU, d.add(d.scale(ESE, 4 * traceX), d.scale(d.matmul(ES, d.transpose(ES)), 4)));
    }
    return { GammaW, GammaU };
  }

  /**
   * Gammas of a finite data set at given parameters, r = U W x - y (divisor N):
   *
   *   Gamma_W = 4 (E[|r|^2 x x^T] - E[x r^T] E[r x^T]),   Gamma_U = 4 (E[|x|^2 r r^T] - E[r x^T] E[x r^T])
   *
   * @param spec.x N x dx, one sample a row; spec.y N x dy
   */
  gammasOfData(spec: { U: MatrixLike; W: MatrixLike; x: MatrixLike; y: MatrixLike }): Gammas {
    const d = this.#dense;
    const U = matrix("gammasOfData: U", spec.U);
    const W = matrix("gammasOfData: W", spec.W, U.cols);
    const x = matrix("gammasOfData: x", spec.x, undefined, W.cols);
    const y = matrix("gammasOfData: y", spec.y, x.rows, U.rows);
    const N = x.rows;
    const r = d.sub(d.matmul(x, d.transpose(d.matmul(U, W))), y);
    const xr = d.scale(d.matmul(d.transpose(x), r), 1 / N);
    const weigh = (rows: Matrix, by: Matrix): Matrix => {
      const values = Float64Array.from(rows.values);
      for (let n = 0; n < N; n++) {
        let square = 0;
        for (let j = 0; j < by.cols; j++) square += by.values[n * by.cols + j]! * by.values[n * by.cols + j]!;
        for (let j = 0; j < rows.cols; j++) values[n * rows.cols + j]! *= square;
      }
      return d.scale(d.matmul(d.transpose(rows), { ...rows, values }), 1 / N);
    };
    return {
      GammaW: d.scale(d.sub(weigh(x, r), d.matmul(xr, d.transpose(xr))), 4),
      GammaU: d.scale(d.sub(weigh(r, x), d.matmul(d.transpose(xr), xr)), 4),
    };
  }

  /**
   * The balanced factorisation of a product V with h hidden units.
   *
   * @param spec.sigma2 noise strength eta / (2 S); spec.gamma weight decay in L + gamma |theta|^2
   * @throws NoetherflowError "range" when V has more than h singular values that are not rounding,
   *         or a K is not positive definite
   * @example
   * const law = engine.twoLayer.gammas({ SigmaX: [[1, 0], [0, 1]], SigmaEps: [[1, 0], [0, 1]] });
   * engine.twoLayer.balanced({ ...law, V: [[1, 0], [0, 1]], h: 3, sigma2: 0.01 }).D; // [0.08, 0.08]
   */
  balanced(spec: { V: MatrixLike; h: number; sigma2: number; gamma?: number } & Gammas): BalancedFactors {
    const d = this.#dense;
    const where = "balanced";
    const V = matrix(`${where}: V`, spec.V);
    const sigma2 = checkNumber(where, "sigma2", spec.sigma2, 0);
    const gamma = checkNumber(where, "gamma", spec.gamma ?? 0, 0);
    const K = (name: string, Gamma: Matrix, n: number): Matrix =>
      d.add(d.scale(covariance(`${where}: ${name}`, Gamma, n), sigma2), d.scale(d.identity(n), 2 * gamma));
    const KW = K("GammaW", spec.GammaW, V.cols);
    const KU = K("GammaU", spec.GammaU, V.rows);
    const [rootU, rootW] = [d.sqrtSymmetric(KU), d.sqrtSymmetric(KW)];
    const { U: L, s, V: R } = d.svd(d.matmul(rootU, d.matmul(V, rootW)));
    const top = s[0] ?? 0;
    const rank = s.filter((x) => x > 1e-13 * top * Math.max(V.rows, V.cols)).length;
    if (rank > spec.h) {
      fail("range", where, `a product of rank ${rank} needs at least ${rank} hidden units`, `h = ${spec.h}`);
    }
    // U = K_U^(-1/2) L D^(1/2) O^T: columns of L, zero beyond the rank
    const half = new Float64Array(spec.h * spec.h);
    for (let k = 0; k < rank; k++) half[k * spec.h + k] = Math.sqrt(s[k]!);
    const root: Matrix = { rows: spec.h, cols: spec.h, values: half };
    const U = d.matmul(d.matmul(d.invSqrtSymmetric(KU), widen(L, spec.h)), root);
    const W = d.matmul(root, d.transpose(d.matmul(d.invSqrtSymmetric(KW), widen(R, spec.h))));
    const left = d.matmul(W, d.matmul(KW, d.transpose(W)));
    const right = d.matmul(d.transpose(U), d.matmul(KU, U));
    const D = s.slice(0, Math.min(spec.h, s.length));
    const sum = D.reduce((a, b) => a + b, 0);
    return {
      U,
      W,
      D,
      checks: {
        product: relative(d, d.sub(d.matmul(U, W), V), V),
        balance: relative(d, d.sub(left, right), right),
        optimality: Math.abs(d.trace(left) + d.trace(right) - 2 * sum) / (2 * sum || 1),
      },
    };
  }

  /**
   * Equilibrium of all double rotations at once, for any loss of U W: M is the matrix geometric mean
   * of X_U = sigma^2 S_U + 2 gamma W W^T and X_W^-1, X_W = sigma^2 S_W + 2 gamma U^T U; then
   * dQ/dt = 0 at U M^(1/2), M^(-1/2) W.
   *
   * Where X_U or X_W is singular (h > min(dx, dy), a neuron without noise) the infimum may lie at infinity. With
   * regularize = e, X + e (mean diagonal of X) I takes the place of both, and `trend` says what becomes of that as e falls.
   * Each neuron is first rescaled so that the diagonals of both are equal: how far off balance neurons are changes nothing.
   *
   * @param spec.SU noise moment E[g_U^T g_U] - mean^T mean, h x h; spec.SW likewise of g_W g_W^T
   * @param spec.regularize in [1e-10, 1]; absent: singular X_U and X_W are refused
   * @throws NoetherflowError "range" when X_U or X_W is singular beyond rounding: without `regularize`, or all 0
   * @source theory.md, 8 (closed form) and 16
   */
  groupEquilibrium(spec: {
    U: MatrixLike;
    W: MatrixLike;
    SU: MatrixLike;
    SW: MatrixLike;
    sigma2: number;
    gamma?: number | undefined;
    regularize?: number | undefined;
  }): GroupFactors {
    const d = this.#dense;
    const where = "groupEquilibrium";
    const U = matrix(`${where}: U`, spec.U);
    const W = matrix(`${where}: W`, spec.W, U.cols);
    const sigma2 = checkNumber(where, "sigma2", spec.sigma2, 0);
    const gamma = checkNumber(where, "gamma", spec.gamma ?? 0, 0);
    const SU = covariance(`${where}: SU`, spec.SU, U.cols);
    const SW = covariance(`${where}: SW`, spec.SW, U.cols);
    const XU = d.add(d.scale(SU, sigma2), d.scale(d.matmul(W, d.transpose(W)), 2 * gamma));
    const XW = d.add(d.scale(SW, sigma2), d.scale(d.matmul(d.transpose(U), U), 2 * gamma));
    const even = evenFactors(XU, XW);
    const back = even.map((x) => 1 / x);
    const [evenU, evenW] = [scaled(XU, even, even), scaled(XW, back, back)];
    const at = (e: number) => {
      const mean = d.geometricMean(raised(d, evenU, e), raised(d, evenW, e));
      if (this.#rank(mean) < mean.rows)
        fail(
          "range",
          where,
          "X_U and X_W whose geometric mean f64 resolves",
          `one with entries from ${extremes(mean.values)}`,
          "Some directions are too many decades off balance: pass { regularize: 1e-6 }, or a larger one.",
        );
      const [root, inverse] = [d.sqrtSymmetric(mean), d.invSqrtSymmetric(mean)];
      // M = G G^T for G = D^-1 root, and G = M^1/2 Q
      const { U: left, V: right } = d.svd(scaled(root, back, null));
      const Q = d.matmul(left, d.transpose(right));
      return {
        M: scaled(mean, back, back),
        U: d.matmul(d.matmul(scaled(U, null, back), root), d.transpose(Q)),
        W: d.matmul(Q, d.matmul(inverse, scaled(W, even, null))),
        /** X_U and X_W there, turned by Q. */
        sides: [d.matmul(inverse, d.matmul(evenU, inverse)), d.matmul(root, d.matmul(evenW, root))] as const,
      };
    };
    if (spec.regularize === undefined) {
      this.#demandRank(where, evenU, evenW, "Pass { regularize: 1e-6 } to come near it and see the trend.");
      const { M, U, W } = at(0);
      return { M, U, W, trend: null };
    }
    const regularize = checkNumber(where, "regularize", spec.regularize, 1e-10, 1);
    const hint = "There is neither noise nor decay on that side: nothing to regularize.";
    this.#demandRank(where, raised(d, evenU, regularize), raised(d, evenW, regularize), hint);
    const [here, further] = [at(regularize), at(0.01 * regularize)];
    const size = (of: typeof here) => norm(d.frobenius(of.U), d.frobenius(of.W));
    const imbalance = ({ sides: [a, b] }: typeof here) =>
      d.frobenius(d.sub(a, b)) / (d.frobenius(a) + d.frobenius(b) || 1);
    return {
      M: here.M,
      U: here.U,
      W: here.W,
      trend: {
        regularize,
        growth: log(size(further) / size(here) || 1) / log(100),
        imbalance: [imbalance(here), imbalance(further)],
      },
    };
  }

  /** Of a positive semidefinite matrix, whatever the sizes on its diagonal. */
  #rank(X: Matrix): number {
    const { values } = this.#dense.symmetricEigen(unitDiagonal(X));
    return values.filter((x) => x > RANK * X.rows * values[0]!).length;
  }

  /** Refuses an X_U or X_W that is singular. */
  #demandRank(where: string, XU: Matrix, XW: Matrix, hint: string): void {
    const h = XU.rows;
    const lacking = [
      ["X_U = sigma^2 S_U + 2 gamma W W^T", XU] as const,
      ["X_W = sigma^2 S_W + 2 gamma U^T U", XW] as const,
    ].flatMap(([name, X]) => {
      const rank = this.#rank(X);
      return rank < h ? [`${name} of rank ${rank}`] : [];
    });
    if (lacking.length > 0)
      fail(
        "range",
        where,
        `X_U and X_W of rank h = ${h}, without which the least noise may lie at infinity`,
        lacking.join(" and "),
        hint,
      );
  }

  /**
   * Trace of the Hessian where SGD comes to rest for a teacher V, Sigma_x, Sigma_eps: see final-trace.ts.
   *
   * @example engine.twoLayer.finalTrace({ V: [[1, 0], [0, 1]], SigmaX: [[1, 0], [0, 1]], SigmaEps: [[1, 0], [0, 1]] }); // 16
   */
  finalTrace(teacher: LinearTeacher): number {
    return finalTrace(this, teacher);
  }

  /**
   * Trace of the Hessian of the mean of |U W x - y|^2 (Proposition 2), exact for all U and W:
   * 2 dy Tr[W Sigma_x W^T] + 2 |U|_F^2 Tr Sigma_x.
   *
   * @example engine.twoLayer.hessianTrace({ U: [[1, 0], [0, 1]], W: [[1, 0], [0, 1]], SigmaX: [[1, 0], [0, 1]] }); // 16
   */
  hessianTrace(spec: { U: MatrixLike; W: MatrixLike; SigmaX: MatrixLike }): number {
    const d = this.#dense;
    const U = matrix("hessianTrace: U", spec.U);
    const W = matrix("hessianTrace: W", spec.W, U.cols);
    const Sx = covariance("hessianTrace: SigmaX", spec.SigmaX, W.cols);
    const norm = d.frobenius(U);
    return 2 * U.rows * d.trace(d.matmul(W, d.matmul(Sx, d.transpose(W)))) + 2 * norm * norm * d.trace(Sx);
  }
}

function isMatrix(given: MatrixLike): given is Matrix {
  return typeof given === "object" && given !== null && !Array.isArray(given);
}

function matrix(where: string, given: MatrixLike, rows?: number, cols?: number): Matrix {
  const { values, shape } = isMatrix(given)
    ? readValues(where, given.values, [given.rows, given.cols])
    : readValues(where, given, null);
  if (
    shape.length !== 2 ||
    (rows !== undefined && shape[0] !== rows) ||
    (cols !== undefined && shape[1] !== cols)
  ) {
    return fail(
      "shape",
      where,
      `expected a matrix of shape [${rows ?? "any"}, ${cols ?? "any"}]`,
      `[${shape.join(", ")}]`,
    );
  }
  return { rows: shape[0]!, cols: shape[1]!, values };
}

/** A square matrix; that it is symmetric and definite is checked where it matters. */
function covariance(where: string, given: MatrixLike, n?: number): Matrix {
  const out = matrix(where, given, n, n);
  if (out.rows !== out.cols) fail("shape", where, "expected a square matrix", `[${out.rows}, ${out.cols}]`);
  return out;
}

/** Factors d_k with d_k^2 X_kk = Y_kk / d_k^2; 1 where one of them is 0. */
function evenFactors(X: Matrix, Y: Matrix): number[] {
  return Array.from({ length: X.rows }, (_, k) => {
    const [x, y] = [X.values[k * (X.cols + 1)]!, Y.values[k * (Y.cols + 1)]!];
    return x > 0 && y > 0 ? Math.sqrt(Math.sqrt(y) / Math.sqrt(x)) : 1;
  });
}

/** X with row i times rows[i] and column j times cols[j]; null for 1. */
function scaled(X: Matrix, rows: readonly number[] | null, cols: readonly number[] | null): Matrix {
  const of = (x: number, e: number) =>
    x * (rows?.[(e - (e % X.cols)) / X.cols] ?? 1) * (cols?.[e % X.cols] ?? 1);
  return { ...X, values: X.values.map(of) };
}

/** X + e (mean of its diagonal) I. */
function raised(d: Dense, X: Matrix, e: number): Matrix {
  return e === 0 ? X : d.add(X, d.scale(d.identity(X.rows), (e * d.trace(X)) / X.rows));
}

/** X_kl / sqrt(X_kk X_ll), 0 where the diagonal is. */
function unitDiagonal(X: Matrix): Matrix {
  const root = Array.from({ length: X.rows }, (_, k) => Math.sqrt(Math.max(0, X.values[k * (X.cols + 1)]!)));
  const inverse = root.map((x) => (x > 0 ? 1 / x : 0));
  return scaled(X, inverse, inverse);
}

/** The sizes of the least and the largest entry, in words. */
function extremes(values: Float64Array): string {
  const sizes = values.map(Math.abs);
  const [least, most] = [sizes.reduce((a, b) => Math.min(a, b)), sizes.reduce((a, b) => Math.max(a, b))];
  return `${Number(least.toPrecision(2))} to ${Number(most.toPrecision(2))}`;
}

/** sqrt(a^2 + b^2) without overflow. */
function norm(a: number, b: number): number {
  const most = Math.max(a, b);
  return most === 0 ? 0 : most * Math.sqrt((a / most) * (a / most) + (b / most) * (b / most));
}

/** The first h columns, zeros where there are fewer. */
function widen(A: Matrix, h: number): Matrix {
  const values = new Float64Array(A.rows * h);
  for (let i = 0; i < A.rows; i++) {
    for (let j = 0; j < Math.min(h, A.cols); j++) values[i * h + j] = A.values[i * A.cols + j]!;
  }
  return { rows: A.rows, cols: h, values };
}

function relative(d: Dense, difference: Matrix, to: Matrix): number {
  const scale = d.frobenius(to);
  return scale === 0 ? d.frobenius(difference) : d.frobenius(difference) / scale;
}

import type { Arena } from "../core/arena.ts";
import { checkInteger, fail, internal, show, showShape } from "../errors.ts";
import type { Host } from "../models/evaluate.ts";

/** A dense matrix, row-major, in an array of its owner's. Functions here never write their inputs. */
export interface Matrix {
  /** Number of rows. */
  readonly rows: number;
  /** Number of columns. */
  readonly cols: number;
  /** rows * cols finite values. */
  readonly values: Float64Array;
}

/** 2^-52, the spacing of f64 at 1. */
const EPS = Number.EPSILON;
/** How far A and A^T may differ, beside the largest entry of A. */
const SYMMETRY = 1e-10;
/** Far more than matrices need: 25 sweeps is the most that has been seen. */
const MAX_SWEEPS = 60;

/**
 * Linear algebra of small dense matrices, in f64 on every engine and with the same bits on every host.
 *
 * Each call takes memory from the engine's arena for as long as it lasts. Bounds and costs are with the kernels, in
 * assembly/dense.ts. Where a matrix must be symmetric it may differ from its transpose by 1e-10 of its largest entry,
 * and the mean of the two is used.
 *
 * @throws NoetherflowError "shape", "nonfinite" (an input, or a result beyond 1.8e308), "range" (not symmetric, not
 *         positive, not invertible), "memory"
 */
export class Dense {
  readonly #host: Host;

  /** @internal use engine.dense */
  constructor(host: Host) {
    this.#host = host;
  }

  /** A = V diag(values) V^T, values descending, eigenvectors in the columns of `vectors`, largest entries positive. */
  symmetricEigen(A: Matrix): { values: Float64Array; vectors: Matrix } {
    return this.#eigen("symmetricEigen", symmetrised("symmetricEigen", "A", A));
  }

  /** A = U diag(s) V^T with k = min(rows, cols) columns in U and V, s descending. */
  svd(A: Matrix): { U: Matrix; s: Float64Array; V: Matrix } {
    return this.#svd("svd", checked("svd", "A", A));
  }

  /** A = Q R: Q has min(rows, cols) orthonormal columns, R is upper triangular with a diagonal >= 0. */
  qr(A: Matrix): { Q: Matrix; R: Matrix } {
    checked("qr", "A", A);
    const { rows: m, cols: n } = A;
    const k = Math.min(m, n);
    return this.#within("qr", [m * n, m * k, k * n, m * (n + k) + k], (arena, [a, q, r, scratch]) => {
      arena.doubles(a, m * n).set(A.values);
      this.#host.core.exports.qr(a, q, r, m, n, scratch);
      return { Q: taken("qr", arena, q, m, k), R: taken("qr", arena, r, k, n) };
    });
  }

  /** L, lower triangular with a diagonal > 0, with A = L L^T. */
  cholesky(A: Matrix): Matrix {
    const { L, failed } = this.#cholesky("cholesky", symmetrised("cholesky", "A", A));
    if (failed === 0) return L;
    return fail(
      "range",
      "cholesky",
      "expected a positive definite matrix",
      `one that is not: its leading ${failed} x ${failed} block has no positive determinant`,
    );
  }

  /**
   * X with A X = B.
   *
   * X is off by about condition(A) * 2^-52. Of matrices that rounding alone keeps from being singular nine in ten are
   * refused; where that must be sure, look at the condition.
   *
   * @throws "range" where a pivot is zero to within rounding
   */
  solve(A: Matrix, B: Matrix): Matrix {
    checkedSquare("solve", "A", A);
    checked("solve", "B", B);
    if (B.rows !== A.rows)
      fail("shape", "solve", `B must have as many rows as A, ${A.rows}`, showShape([B.rows, B.cols]));
    return this.#solve("solve", A, B);
  }

  /** A^-1, as solve(A, I). @throws "range" where a pivot is zero to within rounding */
  inverse(A: Matrix): Matrix {
    return this.#solve("inverse", checkedSquare("inverse", "A", A), this.identity(A.rows));
  }

  /**
   * A B; each entry adds its terms in ascending inner index.
   *
   * @example
   * const A = { rows: 1, cols: 2, values: Float64Array.of(3, 4) };
   * engine.dense.matmul(A, engine.dense.transpose(A)).values; // [25]
   */
  matmul(A: Matrix, B: Matrix): Matrix {
    checked("matmul", "A", A);
    checked("matmul", "B", B);
    if (A.cols !== B.rows)
      fail(
        "shape",
        "matmul",
        `B must have as many rows as A has columns, ${A.cols}`,
        showShape([B.rows, B.cols]),
      );
    return this.#matmul("matmul", A, B, false, false);
  }

  /**
   * S, symmetric with S S = A: ||S S - A|| <= 4 n 2^-52 ||A||.
   *
   * Eigenvalues in [-8 n 2^-52 max|lambda|, 0), which rounding explains, count as 0.
   *
   * @throws "range" for an eigenvalue below that
   */
  sqrtSymmetric(A: Matrix): Matrix {
    const where = "sqrtSymmetric";
    const { values, vectors } = this.#semidefinite(where, "A", symmetrised(where, "A", A));
    return this.#form(where, vectors, values.map(Math.sqrt));
  }

  /**
   * S, symmetric with S A S = I: ||S A S - I|| <= 8 n 2^-52 condition(A).
   *
   * @throws "range" unless A is positive definite: a pivot of its Cholesky factorisation must be more than n 2^-52 of
   *         the diagonal entry it comes from (so scaling rows and columns alike does not matter)
   */
  invSqrtSymmetric(A: Matrix): Matrix {
    const where = "invSqrtSymmetric";
    const a = symmetrised(where, "A", A);
    this.#definite(where, "A", a);
    const { values, vectors } = this.#eigen(where, a);
    if (values.length > 0 && values[values.length - 1]! <= 0) this.#indefinite(where, "A", values);
    return this.#form(
      where,
      vectors,
      values.map((x) => 1 / Math.sqrt(x)),
    );
  }

  /**
   * The symmetric positive M with M Y M = X, the geometric mean of X and Y^-1:
   *
   *   M = Y^-1/2 (Y^1/2 X Y^1/2)^1/2 Y^-1/2
   *
   * Computed as M = Z S Z^T from Y = L L^T, X = K K^T, K^T L = P S V^T and L^T Z = V. That is the same matrix, with no
   * product of X and Y, whose square root would halve the digits.
   *
   * @param X positive semidefinite (as for sqrtSymmetric); where it is singular so is M
   * @param Y positive definite (as for invSqrtSymmetric)
   * @source theory.md, section 8, with X = X_U and Y = X_W; Laub, Heath, Paige and Ward 1987 for the way
   */
  geometricMean(X: Matrix, Y: Matrix): Matrix {
    const where = "geometricMean";
    const x = symmetrised(where, "X", X);
    const y = symmetrised(where, "Y", Y);
    if (X.rows !== Y.rows)
      fail("shape", where, `Y must be like X, ${showShape([X.rows, X.cols])}`, showShape([Y.rows, Y.cols]));
    const L = this.#definite(where, "Y", y);
    const { values, vectors } = this.#semidefinite(where, "X", x);
    const K = columnsScaled(vectors, values.map(Math.sqrt));
    const { s, V } = this.#svd(where, this.#matmul(where, K, L, true, false));
    return this.#form(where, this.#solveUpper(where, this.transpose(L), V), s);
  }

  /** Largest over smallest singular value: 1 for no values, Infinity where the smallest is 0. */
  condition(A: Matrix): number {
    const { s } = this.#svd("condition", checked("condition", "A", A));
    if (s.length === 0) return 1;
    return s[s.length - 1] === 0 ? Infinity : s[0]! / s[s.length - 1]!;
  }

  /** Singular values above max(rows, cols) 2^-52 of the largest, counted. */
  rank(A: Matrix): number {
    const { s } = this.#svd("rank", checked("rank", "A", A));
    return s.filter((value) => value > Math.max(A.rows, A.cols) * EPS * s[0]!).length;
  }

  /** sqrt(sum of squares), without overflow on the way. */
  frobenius(A: Matrix): number {
    checked("frobenius", "A", A);
    return this.#within("frobenius", [A.values.length], (arena, [a]) => {
      arena.doubles(a, A.values.length).set(A.values);
      return finiteNumber("frobenius", this.#host.core.exports.euclideanNorm(a, A.values.length));
    });
  }

  /** Sum of the diagonal, ascending. */
  trace(A: Matrix): number {
    checkedSquare("trace", "A", A);
    let sum = 0;
    for (let i = 0; i < A.rows; i++) sum += A.values[i * A.cols + i]!;
    return finiteNumber("trace", sum);
  }

  /** A^T. */
  transpose(A: Matrix): Matrix {
    checked("transpose", "A", A);
    const { rows, cols } = A;
    const values = new Float64Array(rows * cols);
    for (let i = 0; i < rows; i++) {
      for (let j = 0; j < cols; j++) values[j * rows + i] = A.values[i * cols + j]!;
    }
    return { rows: cols, cols: rows, values };
  }

  /** factor * A. */
  scale(A: Matrix, factor: number): Matrix {
    checked("scale", "A", A);
    if (!Number.isFinite(factor)) fail("nonfinite", "scale", "factor must be a finite number", show(factor));
    return finite("scale", { ...A, values: A.values.map((x) => factor * x) });
  }

  /** A + B. */
  add(A: Matrix, B: Matrix): Matrix {
    checkedAlike("add", A, B);
    return finite("add", { ...A, values: A.values.map((x, e) => x + B.values[e]!) });
  }

  /** A - B. */
  sub(A: Matrix, B: Matrix): Matrix {
    checkedAlike("sub", A, B);
    return finite("sub", { ...A, values: A.values.map((x, e) => x - B.values[e]!) });
  }

  /** I, n x n. */
  identity(n: number): Matrix {
    return this.diagonal(new Float64Array(checkInteger("identity", "n", n, 0)).fill(1));
  }

  /** The matrix with these values on its diagonal and zeros elsewhere. */
  diagonal(values: ArrayLike<number>): Matrix {
    const n = values.length;
    const A = { rows: n, cols: n, values: new Float64Array(n * n) };
    for (let i = 0; i < n; i++) A.values[i * n + i] = values[i]!;
    return checked("diagonal", "the matrix", A);
  }

  /** Runs `work` with addresses of so many values each, 16-byte aligned, and gives the memory back. */
  #within<T, const Counts extends readonly number[]>(
    where: string,
    counts: Counts,
    work: (arena: Arena, at: { [K in keyof Counts]: number }) => T,
  ): T {
    const { arena } = this.#host;
    const { region, plan } = arena.reserve(where, (base) => {
      let end = base;
      const at = counts.map((count) => {
        const address = end;
        end += (count + (count % 2)) * 8;
        return address;
      });
      return { bytes: Math.max(end - base, 16), at };
    });
    try {
      return work(arena, plan.at as { [K in keyof Counts]: number });
    } finally {
      arena.release(region);
    }
  }

  #eigen(where: string, A: Matrix): { values: Float64Array; vectors: Matrix } {
    const n = A.rows;
    return this.#within(where, [n * n, n * n, n], (arena, [a, v, w]) => {
      arena.doubles(a, n * n).set(A.values);
      if (this.#host.core.exports.symmetricEigen(a, v, w, n, MAX_SWEEPS) < 0)
        internal(where, `${MAX_SWEEPS} sweeps did not diagonalise a ${n} x ${n} matrix`);
      return { values: taken(where, arena, w, n, 1).values, vectors: taken(where, arena, v, n, n) };
    });
  }

  #svd(where: string, A: Matrix): { U: Matrix; s: Float64Array; V: Matrix } {
    const { rows: m, cols: n } = A;
    const k = Math.min(m, n);
    return this.#within(where, [m * n, m * k, k, n * k, k * (m + n)], (arena, [a, u, s, v, scratch]) => {
      arena.doubles(a, m * n).set(A.values);
      if (this.#host.core.exports.svd(a, u, s, v, m, n, scratch, MAX_SWEEPS) < 0)
        internal(where, `${MAX_SWEEPS} sweeps did not diagonalise a ${m} x ${n} matrix`);
      return {
        U: taken(where, arena, u, m, k),
        s: taken(where, arena, s, k, 1).values,
        V: taken(where, arena, v, n, k),
      };
    });
  }

  /** L, and 0 or one more than the index of the pivot that was not positive. */
  #cholesky(where: string, A: Matrix): { L: Matrix; failed: number } {
    const n = A.rows;
    return this.#within(where, [n * n, n * n], (arena, [a, l]) => {
      arena.doubles(a, n * n).set(A.values);
      const failed = this.#host.core.exports.cholesky(a, l, n);
      return { L: failed > 0 ? A : taken(where, arena, l, n, n), failed };
    });
  }

  /** The Cholesky factor of a matrix that is positive definite beyond rounding. */
  #definite(where: string, name: string, A: Matrix): Matrix {
    const n = A.rows;
    const { L, failed } = this.#cholesky(where, A);
    const root = Math.sqrt(n * EPS);
    let isDefinite = failed === 0;
    for (let i = 0; isDefinite && i < n; i++) {
      isDefinite = L.values[i * n + i]! > root * Math.sqrt(A.values[i * n + i]!);
    }
    return isDefinite ? L : this.#indefinite(where, name, this.#eigen(where, A).values);
  }

  #indefinite(where: string, name: string, values: Float64Array): never {
    const least = values[values.length - 1]!;
    return fail(
      "range",
      where,
      `${name} must be positive definite beyond rounding`,
      `eigenvalues from ${showValue(least)} to ${showValue(values[0]!)}`,
      "Where a limit is meant, add a small multiple of the identity and watch the trend.",
    );
  }

  /** Eigenvalues, clipped at 0, and eigenvectors of a matrix that is positive semidefinite to within rounding. */
  #semidefinite(where: string, name: string, A: Matrix): { values: Float64Array; vectors: Matrix } {
    const { values, vectors } = this.#eigen(where, A);
    const n = values.length;
    if (n === 0) return { values, vectors };
    const least = values[n - 1]!;
    const rounding = 8 * n * EPS * Math.max(Math.abs(values[0]!), Math.abs(least));
    if (least < -rounding) {
      fail(
        "range",
        where,
        `${name} must be positive semidefinite`,
        `eigenvalue ${showValue(least)}, and rounding explains ${showValue(-rounding)} at most`,
      );
    }
    return { values: values.map((x) => Math.max(x, 0)), vectors };
  }

  #solve(where: string, A: Matrix, B: Matrix): Matrix {
    const { rows: n, cols: k } = B;
    return this.#within(where, [n * n, n * k, n * k, n * (n + 1)], (arena, [a, b, x, scratch]) => {
      arena.doubles(a, n * n).set(A.values);
      arena.doubles(b, n * k).set(B.values);
      const failed = this.#host.core.exports.solve(a, b, x, n, k, scratch);
      if (failed > 0) {
        fail(
          "range",
          where,
          "expected an invertible matrix",
          `one whose column ${failed - 1} depends on those before it, to within rounding`,
          "condition(A) says how near singular it is.",
        );
      }
      return taken(where, arena, x, n, k);
    });
  }

  #solveUpper(where: string, U: Matrix, B: Matrix): Matrix {
    const { rows: n, cols: k } = B;
    return this.#within(where, [n * n, n * k], (arena, [u, x]) => {
      arena.doubles(u, n * n).set(U.values);
      arena.doubles(x, n * k).set(B.values);
      this.#host.core.exports.solveUpper(u, x, n, k);
      return taken(where, arena, x, n, k);
    });
  }

  #matmul(where: string, A: Matrix, B: Matrix, transA: boolean, transB: boolean): Matrix {
    const m = transA ? A.cols : A.rows;
    const k = transA ? A.rows : A.cols;
    const n = transB ? B.rows : B.cols;
    return this.#within(where, [m * n, m * k, k * n], (arena, [c, a, b]) => {
      arena.doubles(a, m * k).set(A.values);
      arena.doubles(b, k * n).set(B.values);
      this.#host.core.exports.denseMatmul(c, a, b, m, n, k, Number(transA), Number(transB));
      return taken(where, arena, c, m, n);
    });
  }

  /** B diag(d) B^T, symmetric to the bit. */
  #form(where: string, B: Matrix, d: Float64Array): Matrix {
    return mean(this.#matmul(where, columnsScaled(B, d), B, false, true));
  }
}

/** A diag(d). */
function columnsScaled(A: Matrix, d: Float64Array): Matrix {
  return { ...A, values: A.values.map((x, e) => x * d[e % A.cols]!) };
}

/** A copy of a result. */
function taken(where: string, arena: Arena, address: number, rows: number, cols: number): Matrix {
  return finite(where, { rows, cols, values: arena.doubles(address, rows * cols).slice() });
}

function finiteNumber(where: string, x: number): number {
  if (Number.isFinite(x)) return x;
  return fail("nonfinite", where, "the result must fit in f64, below 1.8e308", `${x}`, "Scale the matrix.");
}

function finite(where: string, A: Matrix): Matrix {
  const at = A.values.findIndex((x) => !Number.isFinite(x));
  if (at < 0) return A;
  return fail(
    "nonfinite",
    where,
    "the result must fit in f64, below 1.8e308",
    `${A.values[at]}${place(A, at)}`,
    "Scale the matrices.",
  );
}

function checked(where: string, name: string, A: Matrix): Matrix {
  const isCount = (n: unknown) => typeof n === "number" && Number.isInteger(n) && n >= 0;
  if (typeof A !== "object" || A === null || !isCount(A.rows) || !isCount(A.cols)) {
    fail("shape", where, `${name} must be a matrix { rows, cols, values }`, show(A));
  }
  if (!(A.values instanceof Float64Array) || A.values.length !== A.rows * A.cols) {
    fail(
      "shape",
      where,
      `${name} of shape ${showShape([A.rows, A.cols])} must hold a Float64Array of ${A.rows * A.cols} values`,
      show(A.values),
    );
  }
  const at = A.values.findIndex((x) => !Number.isFinite(x));
  if (at < 0) return A;
  return fail("nonfinite", where, `every entry of ${name} must be finite`, `${A.values[at]}${place(A, at)}`);
}

function checkedSquare(where: string, name: string, A: Matrix): Matrix {
  checked(where, name, A);
  if (A.rows === A.cols) return A;
  return fail("shape", where, `${name} must be square`, showShape([A.rows, A.cols]));
}

function checkedAlike(where: string, A: Matrix, B: Matrix): void {
  checked(where, "A", A);
  checked(where, "B", B);
  if (A.rows !== B.rows || A.cols !== B.cols)
    fail("shape", where, `B must be like A, ${showShape([A.rows, A.cols])}`, showShape([B.rows, B.cols]));
}

/** (A + A^T) / 2 of a matrix that is symmetric to 1e-10 of its largest entry. */
function symmetrised(where: string, name: string, A: Matrix): Matrix {
  checkedSquare(where, name, A);
  const n = A.rows;
  const most = A.values.reduce((largest, x) => Math.max(largest, Math.abs(x)), 0);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < i; j++) {
      const lower = A.values[i * n + j]!;
      const upper = A.values[j * n + i]!;
      if (Math.abs(0.5 * lower - 0.5 * upper) <= 0.5 * SYMMETRY * most) continue;
      fail(
        "range",
        where,
        "expected a symmetric matrix",
        `${name}[${j}, ${i}] = ${upper} and ${name}[${i}, ${j}] = ${lower}`,
      );
    }
  }
  return mean(A);
}

/** (A + A^T) / 2. */
function mean(A: Matrix): Matrix {
  const n = A.rows;
  const values = A.values.slice();
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < i; j++) {
      const lower = A.values[i * n + j]!;
      const upper = A.values[j * n + i]!;
      // halving would round the smallest values
      if (lower !== upper) values[i * n + j] = values[j * n + i] = 0.5 * lower + 0.5 * upper;
    }
  }
  return { rows: n, cols: n, values };
}

function place(A: Matrix, at: number): string {
  const row = (at - (at % A.cols)) / A.cols;
  return ` at ${showShape([row, at % A.cols])}`;
}

/** Enough digits for a message. */
function showValue(x: number): string {
  return String(Number(x.toPrecision(4)));
}

import { turn } from "../core/turn.ts";
import { checkInteger, fail } from "../errors.ts";

/** A symmetric linear operator on R^size: Hessian, Gauss-Newton matrix, Sigma. */
export interface LinearOperator {
  /** Length of the vectors: the number of trained entries. */
  readonly size: number;
  /** How many vectors at a time cost least per vector. */
  readonly width: number;
  /** A v for `count` vectors, flat [count][size]; returns a fresh array. */
  apply(vectors: Float64Array, count: number): Float64Array;
  /** v^T A v of each vector, where that is cheaper than apply. */
  quadratic?(vectors: Float64Array, count: number): Float64Array;
}

/** How a long measurement is stopped and watched. */
export interface Control {
  /** An abort rejects with its reason after the portion in progress. */
  readonly signal?: AbortSignal | undefined;
  /** Called after every portion of products; `total` is the most known to be needed, and is reached at the end. */
  readonly onProgress?: ((done: { done: number; total: number }) => void) | undefined;
}

/** 2^-52, the spacing of f64 at 1. */
export const EPS = Number.EPSILON;
/** What counts as rounding in a unit vector of n entries is this times sqrt(n) 2^-52. */
const ROUNDINGS = 64;

/**
 * Products with one operator, in portions of its width. After a portion come progress, a turn of the event loop and a
 * look at the signal.
 *
 * @throws the signal's reason; NoetherflowError "nonfinite" for a product that is not finite, "shape" for an operator
 *         without a size, or whose products have another length
 */
export class Products {
  readonly #where: string;
  readonly #op: LinearOperator;
  readonly #control: Control;
  readonly #width: number;
  #done = 0;
  /** The most products that may be needed. */
  total: number;

  constructor(where: string, op: LinearOperator, total: number, control: Control) {
    checkInteger(where, "the operator's size", op.size, 1);
    control.signal?.throwIfAborted();
    this.#where = where;
    this.#op = op;
    this.#control = control;
    this.#width = Math.max(1, Math.floor(op.width));
    this.total = total;
  }

  /** The operator's, but at least 1. */
  get width(): number {
    return this.#width;
  }

  get done(): number {
    return this.#done;
  }

  /** A v of `count` vectors, flat [count][size], in a fresh array. */
  apply(vectors: Float64Array, count: number): Promise<Float64Array> {
    return this.#portions(vectors, count, this.#op.size, (portion, n) => this.#op.apply(portion, n));
  }

  /** v^T A v of `count` vectors. */
  quadratic(vectors: Float64Array, count: number): Promise<Float64Array> {
    const { size } = this.#op;
    return this.#portions(vectors, count, 1, (portion, n) => {
      if (this.#op.quadratic !== undefined) return this.#op.quadratic(portion, n);
      const products = this.#checked(this.#op.apply(portion, n), n, size);
      return Float64Array.from({ length: n }, (_, j) =>
        dot(portion.subarray(j * size, (j + 1) * size), products.subarray(j * size, (j + 1) * size)),
      );
    });
  }

  /** Turns the event loop, for work that is not products. */
  async pause(): Promise<void> {
    await turn();
    this.#control.signal?.throwIfAborted();
  }

  /** Reports that no more products are needed. */
  finish(): void {
    if (this.#done === this.total) return;
    this.#done = this.total;
    this.#control.onProgress?.({ done: this.#done, total: this.total });
  }

  async #portions(
    vectors: Float64Array,
    count: number,
    length: number,
    product: (portion: Float64Array, n: number) => Float64Array,
  ): Promise<Float64Array> {
    const { size } = this.#op;
    let results = new Float64Array(0);
    for (let first = 0; first < count; first += this.#width) {
      const n = Math.min(this.#width, count - first);
      const portion = vectors.subarray(first * size, (first + n) * size);
      const made = this.#checked(product(portion, n), n, length);
      if (n === count) {
        results = made;
      } else {
        if (first === 0) results = new Float64Array(count * length);
        results.set(made, first * length);
      }
      this.#done += n;
      this.#control.onProgress?.({ done: this.#done, total: this.total });
      await this.pause();
    }
    return results;
  }

  #checked(made: Float64Array, count: number, length: number): Float64Array<ArrayBuffer> {
    if (made.length !== count * length)
      fail("shape", this.#where, `the operator must return ${count * length} values`, `${made.length}`);
    for (let e = 0; e < made.length; e++) {
      if (Number.isFinite(made[e]!)) continue;
      fail(
        "nonfinite",
        this.#where,
        "every product with the operator must be finite",
        length === 1 ? `${made[e]}` : `${made[e]} in entry ${e % length}`,
      );
    }
    return made as Float64Array<ArrayBuffer>;
  }
}

/** x . y: four partial sums, entry e in partial e mod 4, added as (p0 + p1) + (p2 + p3). */
export function dot(x: Float64Array, y: Float64Array): number {
  const n = x.length;
  let [p0, p1, p2, p3] = [0, 0, 0, 0];
  let e = 0;
  for (; e + 4 <= n; e += 4) {
    p0 += x[e]! * y[e]!;
    p1 += x[e + 1]! * y[e + 1]!;
    p2 += x[e + 2]! * y[e + 2]!;
    p3 += x[e + 3]! * y[e + 3]!;
  }
  if (e < n) p0 += x[e]! * y[e]!;
  if (e + 1 < n) p1 += x[e + 1]! * y[e + 1]!;
  if (e + 2 < n) p2 += x[e + 2]! * y[e + 2]!;
  return p0 + p1 + (p2 + p3);
}

/** y += a x. */
export function axpy(a: number, x: Float64Array, y: Float64Array): void {
  for (let e = 0; e < y.length; e++) y[e] = y[e]! + a * x[e]!;
}

/** x := x / length. */
export function divide(x: Float64Array, length: number): void {
  for (let e = 0; e < x.length; e++) x[e] = x[e]! / length;
}

/** sqrt(x . x), without overflow or underflow on the way. */
export function norm(x: Float64Array): number {
  const squares = dot(x, x);
  if (squares > 1e-280 && squares < 1e300) return Math.sqrt(squares);
  let most = 0;
  for (let e = 0; e < x.length; e++) most = Math.max(most, Math.abs(x[e]!));
  if (most === 0) return 0;
  const scaled = x.slice();
  divide(scaled, most);
  return most * Math.sqrt(dot(scaled, scaled));
}

/** The vectors of a flat array [count][size], as views. */
export function rowsOf(flat: Float64Array, size: number): Float64Array[] {
  return Array.from({ length: flat.length / size }, (_, j) => flat.subarray(j * size, (j + 1) * size));
}

/**
 * v := v - Q Q^T v by classical Gram-Schmidt, twice, and again while a pass takes more than half of what is left.
 *
 * @param basis orthonormal vectors, the columns of Q
 * @returns Q^T v, and the length of what is left
 * @cost 8 size vectors flops
 * @source Giraud, Langou, Rozloznik 2005: twice is enough
 */
export function orthogonalise(
  v: Float64Array,
  basis: readonly Float64Array[],
): { coefficients: Float64Array; length: number } {
  const coefficients = new Float64Array(basis.length);
  let length = norm(v);
  for (let pass = 0; pass < 5; pass++) {
    const before = length;
    const step = basis.map((q) => dot(q, v));
    for (const [j, q] of basis.entries()) {
      coefficients[j] = coefficients[j]! + step[j]!;
      axpy(-step[j]!, q, v);
    }
    length = norm(v);
    if (pass > 0 && length >= 0.5 * before) break;
  }
  return { coefficients, length };
}

/**
 * Thin QR factorisation of vectors that are first scaled to length 1, in place: the first `rank` of them become Q.
 *
 *   v_i / |v_i| = sum_j<rank R[i][j] q_j
 *
 * A vector that those before it span to within 64 sqrt(size) 2^-52 adds no column to Q, so rank may be below their
 * number, and Q is orthonormal to rounding whatever the vectors are.
 *
 * @param pause awaited after each vector
 * @returns Q, and for each vector its coefficients, as many as Q had columns after it
 * @cost 4 size count^2 flops
 */
export async function orthonormalise(
  vectors: readonly Float64Array[],
  pause: () => Promise<void>,
): Promise<{ Q: Float64Array[]; R: Float64Array[] }> {
  const Q: Float64Array[] = [];
  const R: Float64Array[] = [];
  for (const v of vectors) {
    const whole = norm(v);
    if (whole > 0) divide(v, whole);
    const { coefficients, length } = orthogonalise(v, Q);
    if (length > ROUNDINGS * Math.sqrt(v.length) * EPS) {
      divide(v, length);
      const q = vectors[Q.length]!;
      if (q !== v) q.set(v);
      Q.push(q);
      R.push(Float64Array.of(...coefficients, length));
    } else {
      R.push(coefficients);
    }
    await pause();
  }
  return { Q, R };
}

import type { Key } from "../core/key.ts";
import { checkInteger } from "../errors.ts";
import type { Host } from "../models/evaluate.ts";
import { type Estimate, exact, meanOf } from "./estimate.ts";
import {
  axpy,
  type Control,
  divide,
  dot,
  EPS,
  type LinearOperator,
  norm,
  orthogonalise,
  orthonormalise,
  Products,
  rowsOf,
} from "./operator.ts";
import { probes } from "./probes.ts";

export interface TraceOptions extends Control {
  readonly key: Key;
  /** Products with the operator that may be spent; 96 when absent. */
  readonly products?: number | undefined;
}

type Method = (host: Host, op: LinearOperator, options: TraceOptions) => Promise<Estimate>;

/** Estimators of Tr A by name; each spends at most `products` products, "basis" one for each dimension. */
export const traceMethods = {
  basis: (_host, op, options) => exactTrace(op, options),
  hutchinson,
  "hutch++": hutchPlusPlus,
  xtrace,
} as const satisfies Record<string, Method>;

/** Products that are spent where nobody says how many. */
export const PRODUCTS = 96;

/**
 * Tr A = sum_e u_e^T A u_e over the unit vectors.
 *
 * @returns an exact result, count the size
 * @cost `size` quadratic forms
 */
export async function exactTrace(op: LinearOperator, control: Control = {}): Promise<Estimate> {
  const { size } = op;
  const products = new Products("exact", op, size, control);
  let trace = 0;
  for (let first = 0; first < size; first += products.width) {
    const count = Math.min(products.width, size - first);
    const units = new Float64Array(count * size);
    for (let j = 0; j < count; j++) units[j * size + first + j] = 1;
    for (const form of await products.quadratic(units, count)) trace += form;
  }
  return exact(trace, size);
}

/**
 * Hutchinson's estimator: the mean of z^T A z over vectors z of independent signs. Unbiased.
 *
 *   variance of a term = 2 (||A||_F^2 - sum_e a_ee^2)
 *
 * stdErr is s / sqrt(count), s^2 the sample variance of the terms; 0 for a diagonal matrix, where every term is Tr A.
 * Terms are skewed where few eigenvalues carry ||A||_F, and then intervals of few terms cover too seldom (measured in
 * test/stats/trace.test.ts): take some 250 terms where one eigenvalue stands out, or another method.
 *
 * @returns count = products, which may exceed the size
 * @throws NoetherflowError "range" below 2 products
 * @cost one quadratic form for each of `products`, memory for `width` vectors
 * @source Hutchinson 1990
 */
export async function hutchinson(host: Host, op: LinearOperator, options: TraceOptions): Promise<Estimate> {
  const count = checkInteger("hutchinson", "products", options.products ?? PRODUCTS, 2);
  const products = new Products("hutchinson", op, count, options);
  const terms = await quadratics(host, op, options.key, products, 0, count);
  return meanOf(terms, "hutchinson");
}

/**
 * Hutch++: the trace on the range of a sketch, and Hutchinson's estimator on what it leaves. Unbiased.
 *
 *   Q = orth(A S),   Tr(Q^T A Q) + mean of g^T (I - Q Q^T) A (I - Q Q^T) g
 *
 * A third of the products makes A S, a third A Q, the rest the mean; S and g have independent signs. With 3 k products
 * of a positive semidefinite A the error is O(1 / k) Tr A, where Hutchinson's is O(1 / sqrt(k)). Exact, up to rounding,
 * for rank at most `floor(products / 3)`. stdErr is that of the mean, given the sketch: the rest has no error.
 *
 * @returns count = terms of the mean; with at least `size` products, the exact trace
 * @throws NoetherflowError "range" below 4 products
 * @cost `products` products, 6 size products^2 / 9 flops, memory for 2/3 products vectors
 * @source Meyer, Musco, Musco, Woodruff 2021, arXiv:2010.09649
 */
export async function hutchPlusPlus(
  host: Host,
  op: LinearOperator,
  options: TraceOptions,
): Promise<Estimate> {
  const { size } = op;
  const total = checkInteger("hutch++", "products", options.products ?? PRODUCTS, 4);
  if (total >= size) return exactTrace(op, options);
  const products = new Products("hutch++", op, total, options);
  const sketched = Math.floor(total / 3);
  const S = probes(host, options.key, "signs", size, 0, sketched);
  const sketch = await products.apply(S, sketched);
  const { Q } = await orthonormalise(rowsOf(sketch, size), () => products.pause());
  const forms = await products.quadratic(sketch.subarray(0, Q.length * size), Q.length);
  const terms = await quadratics(host, op, options.key, products, sketched, total - 2 * sketched, Q);
  products.finish();
  const rest = meanOf(terms, "hutch++");
  return { ...rest, value: forms.reduce((sum, form) => sum + form, 0) + rest.value };
}

/**
 * XTrace: Hutch++ with every vector in both roles. With Y = A Omega, m columns, and P_i the projector on the range of
 * Y without its column i,
 *
 *   e_i = Tr(P_i A P_i) + c_i w_i^T (I - P_i) A (I - P_i) w_i,   c_i = (size - rank P_i) / |(I - P_i) w_i|^2
 *
 * and the estimate is the mean of e_i. The columns w_i of Omega are standard normal, so that (I - P_i) w_i has a
 * uniform direction, independent of P_i; c_i makes its length no source of error, and each e_i is unbiased. (So the
 * w_i count as vectors of a sphere; the authors' code calls this scale "improved".)
 *
 * All e_i come from one factorisation Y = Q R:  P_i = Q (I - s_i s_i^T) Q^T, s_i column i of R^-T, scaled to length 1;
 *
 *   e_i = Tr H - s_i^T H s_i + c_i (w_i^T y_i - 2 p_i^T t_i + p_i^T H p_i)
 *   H = Q^T A Q,   t_i = (A Q)^T w_i,   p_i = (I - s_i s_i^T) Q^T w_i
 *
 * Where Y has rank below m, any m - 1 of its columns span its range and s_i is 0: then the result is exact up to
 * rounding, and stdErr is of the size of rounding.
 *
 * The e_i are not independent, and their spread alone, s^2 / m as in the paper, is below the variance: 0.4 to 0.8 of it on
 * matrices of size 100. With e_ij the term e_i where w_j is left out of Y too,
 *
 *   stdErr^2 = s^2 / m + max(0, mean over pairs of (e_i - e_ij) (e_j - e_ji))
 *
 * The second term is an unbiased estimate of the covariance of e_i and e_j, so without max() the sum is one of the
 * variance. For given all vectors but w_j, e_j and e_ji both have mean Tr A, so their difference is uncorrelated with
 * e_ij; and given all but w_i and w_j, e_ij and e_ji are independent. It takes no products.
 *
 * @returns count = m = floor(products / 2); with at least `size` products, the exact trace
 * @throws NoetherflowError "range" below 4 products
 * @cost 2 m products, 10 size m^2 + 20 m^3 flops, memory for 3 m vectors
 * @source Epperly, Tropp, Webber 2024, arXiv:2301.07825, but for stdErr
 */
export async function xtrace(host: Host, op: LinearOperator, options: TraceOptions): Promise<Estimate> {
  const { size } = op;
  const total = checkInteger("xtrace", "products", options.products ?? PRODUCTS, 4);
  if (total >= size) return exactTrace(op, options);
  const m = Math.floor(total / 2);
  const products = new Products("xtrace", op, 2 * m, options);
  const pause = () => products.pause();
  const vectors = probes(host, options.key, "normals", size, 0, m);
  const omega = rowsOf(vectors, size);
  const sketch = await products.apply(vectors, m);
  const forms = rowsOf(sketch, size).map((y, i) => dot(omega[i]!, y));
  const squares = omega.map((w) => dot(w, w));
  const { Q, R } = await orthonormalise(rowsOf(sketch, size), pause);
  const rank = Q.length;
  const AQ = rowsOf(await products.apply(sketch.subarray(0, rank * size), rank), size);
  const H = await gram(Q, AQ, pause);
  const W = await gram(omega, Q, pause);
  const T = await gram(omega, AQ, pause);
  const HW = await gram(W, H, pause);
  const trace = H.reduce((sum, row, j) => sum + row[j]!, 0);

  /** The term of w_i with the range of Q less some directions, orthonormal. */
  const term = (i: number, removed: readonly Direction[], left: number): number => {
    const [p, Hp] = [W[i]!.slice(), HW[i]!.slice()];
    let inside = trace;
    for (const { v, Hv } of removed) {
      const along = dot(v, p);
      axpy(-along, v, p);
      axpy(-along, Hv, Hp);
      inside -= dot(v, Hv);
    }
    const outside = forms[i]! - 2 * dot(p, T[i]!) + dot(p, Hp);
    return inside + ((size - left) / (squares[i]! - dot(p, p))) * outside;
  };
  products.finish();
  if (rank < m)
    return meanOf(
      omega.map((_, i) => term(i, [], rank)),
      "xtrace",
    );
  const s = omega.map((_, i) => directed(leftOut(R, i), H));
  const terms = s.map((s_i, i) => term(i, [s_i], m - 1));
  /** e_i less its value where w_j is left out of Y too. */
  const change = (i: number, j: number): number =>
    terms[i]! - term(i, [s[i]!, ...beside(s[j]!, s[i]!)], m - 2);
  let sum = 0;
  for (let i = 0; i < m; i++) {
    for (let j = 0; j < i; j++) sum += change(i, j) * change(j, i);
    await pause();
  }
  const covariance = sum / (0.5 * m * (m - 1));
  const spread = meanOf(terms, "xtrace");
  return { ...spread, stdErr: Math.sqrt(spread.stdErr * spread.stdErr + Math.max(0, covariance)) };
}

/** A unit vector and its image under H. */
interface Direction {
  readonly v: Float64Array;
  readonly Hv: Float64Array;
}

function directed(v: Float64Array, H: readonly Float64Array[]): Direction {
  return { v, Hv: Float64Array.from(H, (row) => dot(row, v)) };
}

/** What makes the direction t, with s, an orthonormal basis of both; nothing where they are parallel to rounding. */
function beside(t: Direction, s: Direction): Direction[] {
  const [v, Hv] = [t.v.slice(), t.Hv.slice()];
  const along = dot(s.v, v);
  axpy(-along, s.v, v);
  axpy(-along, s.Hv, Hv);
  const length = norm(v);
  if (length <= 64 * EPS) return [];
  divide(v, length);
  divide(Hv, length);
  return [{ v, Hv }];
}

/** z^T A z for signs z, of which the part in the span of Q is taken away first, in portions of the operator's width. */
async function quadratics(
  host: Host,
  op: LinearOperator,
  key: Key,
  products: Products,
  first: number,
  count: number,
  Q: readonly Float64Array[] = [],
): Promise<Float64Array> {
  const terms = new Float64Array(count);
  for (let j = 0; j < count; j += products.width) {
    const n = Math.min(products.width, count - j);
    const z = probes(host, key, "signs", op.size, first + j, n);
    if (Q.length > 0) for (const v of rowsOf(z, op.size)) orthogonalise(v, Q);
    terms.set(await products.quadratic(z, n), j);
  }
  return terms;
}

/** Entry [i][j] is a_i . b_j. */
async function gram(
  a: readonly Float64Array[],
  b: readonly Float64Array[],
  pause: () => Promise<void>,
): Promise<Float64Array[]> {
  const rows: Float64Array[] = [];
  for (const x of a) {
    rows.push(Float64Array.from(b, (y) => dot(x, y)));
    await pause();
  }
  return rows;
}

/** The unit vector orthogonal to all columns of R but column i: R^T s = e_i, scaled. R[j] is column j, j + 1 entries. */
function leftOut(R: readonly Float64Array[], i: number): Float64Array {
  const s = new Float64Array(R.length);
  for (let j = i; j < R.length; j++) {
    const column = R[j]!;
    let sum = j === i ? 1 : 0;
    for (let l = i; l < j; l++) sum -= column[l]! * s[l]!;
    s[j] = sum / column[j]!;
  }
  const length = norm(s);
  return s.map((x) => x / length);
}

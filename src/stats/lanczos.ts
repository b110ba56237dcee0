import type { Key } from "../core/key.ts";
import { checkInteger, checkNumber, internal } from "../errors.ts";
import type { Host } from "../models/evaluate.ts";
import {
  axpy,
  type Control,
  divide,
  EPS,
  type LinearOperator,
  norm,
  orthogonalise,
  Products,
  rowsOf,
} from "./operator.ts";
import { probes } from "./probes.ts";

/** A couple beyond this times 2^-52 of ||A|| is rounding: the Krylov space is invariant. */
const INVARIANT = 10;
/** Far more QL iterations than an eigenvalue needs: 1 or 2 are usual. */
const MAX_ITERATIONS = 60;

export interface LanczosOptions extends Control {
  readonly key: Key;
  /** Residual that is small enough, relative to the largest |eigenvalue| found; 1e-8 when absent. */
  readonly tolerance?: number | undefined;
  /** Most steps of one Lanczos process, which keeps as many vectors; 300 when absent. */
  readonly maxSteps?: number | undefined;
}

export interface Eigenpair {
  readonly value: number;
  /**
   * |A v - value v|, measured: some eigenvalue of A lies within it of `value`, up to the rounding of products. Where
   * other eigenvalues are further away than g, value is off by residual^2 / g only.
   */
  readonly residual: number;
  /** Lanczos steps taken until then. */
  readonly steps: number;
  /** residual <= tolerance max|eigenvalue found|. */
  readonly converged: boolean;
  /** v, length 1; its entry of largest magnitude, the first of equals, is positive. */
  readonly vector: Float64Array;
}

/**
 * Largest and smallest eigenvalue of A by Lanczos with full re-orthogonalisation, from a vector of standard normals.
 *
 * Ends when both residuals |beta_m s_m| are within the tolerance, after maxSteps, or when the Krylov space is invariant:
 * the start has a part in every eigenspace, so that space then holds every eigenvalue, once. Residuals are measured with
 * one more product each. An extreme eigenvalue closer to the next than the tolerance may be missed for that one.
 *
 * @throws NoetherflowError "nonfinite" for a product that is not finite, "range"; the signal's reason
 * @cost m + 2 products, 4 size m^2 flops and m size values for m steps; 10 to 100 are usual
 * @source Lanczos 1950; Parlett 1980, chapter 13
 */
export async function extremes(
  host: Host,
  op: LinearOperator,
  options: LanczosOptions,
): Promise<{ max: Eigenpair; min: Eigenpair }> {
  const { tolerance, maxSteps } = limits("extremes", op, options);
  const products = new Products("extremes", op, maxSteps + 2, options);
  const krylov = new Krylov(probes(host, options.key, "normals", op.size, 0, 1));
  const { values } = await advance(products, krylov, maxSteps, ({ values, residuals }) => {
    const small = tolerance * scaleOf(values);
    return residuals[0]! <= small && residuals[residuals.length - 1]! <= small;
  });
  const [max, min] = await pairs(products, krylov, [values.length - 1, 0], tolerance);
  products.finish();
  return { max: max!, min: min! };
}

/**
 * The k largest eigenvalues of A, descending, each as often as its multiplicity.
 *
 * A Krylov space holds one vector of each eigenspace. So after a process has found k pairs, others start from fresh
 * vectors orthogonal to all vectors found, until one finds nothing above the k-th value. (For k = 1 none is needed.)
 * A process that reaches maxSteps is the last: pairs then say that they have not converged.
 *
 * @throws as extremes; "range" unless k is in [1, size]
 * @cost for simple eigenvalues two processes of 4 size m^2 flops, m + k products and m size values each
 */
export async function topEigenvalues(
  host: Host,
  op: LinearOperator,
  k: number,
  options: LanczosOptions,
): Promise<Eigenpair[]> {
  checkInteger("topEigenvalues", "k", k, 1, op.size, "size");
  const { tolerance, maxSteps } = limits("topEigenvalues", op, options, k);
  const products = new Products("topEigenvalues", op, 0, options);
  let found: Eigenpair[] = [];
  for (let round = 0; found.length < op.size; round++) {
    const wanted = Math.max(1, k - found.length);
    products.total = products.done + maxSteps + wanted;
    const locked = found.map((pair) => pair.vector);
    const krylov = new Krylov(probes(host, options.key, "normals", op.size, round, 1), locked);
    const kth = found[k - 1]?.value ?? -Infinity;
    let isAbove = true;
    const { values } = await advance(products, krylov, maxSteps, ({ values, residuals }) => {
      const top = values.length - 1;
      const small = tolerance * Math.max(scaleOf(values), Math.abs(found[0]?.value ?? 0));
      isAbove = values[top]! > kth + small;
      return values.length >= wanted && residuals.slice(-wanted).every((residual) => residual <= small);
    });
    if (!isAbove) break;
    const indices = Array.from({ length: Math.min(wanted, values.length) }, (_, i) => values.length - 1 - i);
    found = found
      .concat(await pairs(products, krylov, indices, tolerance, Math.abs(found[0]?.value ?? 0)))
      .sort((a, b) => b.value - a.value);
    const isCutShort = krylov.steps >= maxSteps && !krylov.isInvariant;
    if (found.length >= k && (k === 1 || isCutShort)) break;
  }
  products.finish();
  return found.slice(0, k);
}

/** Eigenvalues of T, ascending, and |beta_m s_m|: how far each may be from an eigenvalue of A, in exact arithmetic. */
export interface Ritz {
  readonly values: Float64Array;
  readonly residuals: Float64Array;
}

/**
 * The Lanczos process: orthonormal v_1, v_2, ... with  A v_j = beta_{j-1} v_{j-1} + alpha_j v_j + beta_j v_{j+1},
 * so that V^T A V = T is tridiagonal. With locked vectors L the operator is (I - L L^T) A (I - L L^T).
 */
export class Krylov {
  readonly #locked: readonly Float64Array[];
  /** Locked vectors, then v_1 to v_{m+1}. */
  readonly #basis: Float64Array[];
  readonly #alpha: number[] = [];
  readonly #beta: number[] = [];
  /** A lower bound of ||A||. */
  #scale = 0;
  #isInvariant = false;

  /** @param start not in the span of the orthonormal vectors `locked`; overwritten and kept */
  constructor(start: Float64Array, locked: readonly Float64Array[] = []) {
    divide(start, norm(start));
    divide(start, orthogonalise(start, locked).length);
    this.#locked = locked;
    this.#basis = [...locked, start];
  }

  /** m, the products taken in. */
  get steps(): number {
    return this.#alpha.length;
  }

  /** The span of v_1 to v_m is invariant: there is no next vector, and residuals are 0. */
  get isInvariant(): boolean {
    return this.#isInvariant;
  }

  /** v_{m+1}, whose product is to be taken in next. */
  get next(): Float64Array {
    return this.#basis[this.#basis.length - 1]!;
  }

  /** Takes in A v_{m+1}; the array is overwritten and kept. */
  take(product: Float64Array): void {
    this.#scale = Math.max(this.#scale, norm(product));
    const { coefficients, length } = orthogonalise(product, this.#basis);
    this.#alpha.push(coefficients[coefficients.length - 1]!);
    this.#isInvariant = this.#basis.length === product.length || length <= INVARIANT * EPS * this.#scale;
    this.#beta.push(this.#isInvariant ? 0 : length);
    if (this.#isInvariant) return;
    divide(product, length);
    this.#basis.push(product);
  }

  ritz(): Ritz {
    const last = new Float64Array(this.steps);
    last[this.steps - 1] = 1;
    const values = this.#eigen([last]);
    const beta = this.#beta[this.steps - 1]!;
    return { values, residuals: last.map((s) => beta * Math.abs(s)) };
  }

  /** Nodes and weights of the m-point Gauss quadrature of  f -> v_1^T f(A) v_1,  exact for degrees up to 2 m - 1. */
  quadrature(): { nodes: Float64Array; weights: Float64Array } {
    const first = new Float64Array(this.steps);
    first[0] = 1;
    const nodes = this.#eigen([first]);
    return { nodes, weights: first.map((s) => s * s) };
  }

  /** Unit vectors V s of eigenvectors s of T, by index of their values. */
  vectors(indices: readonly number[]): Float64Array[] {
    const m = this.steps;
    const rows = Array.from({ length: m }, (_, j) => new Float64Array(m).fill(1, j, j + 1));
    this.#eigen(rows);
    return indices.map((i) => {
      const x = new Float64Array(this.#basis[0]!.length);
      for (let j = 0; j < m; j++) axpy(rows[j]![i]!, this.#basis[this.#locked.length + j]!, x);
      divide(x, norm(x));
      return x;
    });
  }

  #eigen(rows: readonly Float64Array[]): Float64Array {
    return tridiagonalEigen(Float64Array.from(this.#alpha), Float64Array.from(this.#beta), rows);
  }
}

/**
 * Eigenvalues, ascending, of the symmetric tridiagonal T with this diagonal and couple[j] at (j, j + 1), by QL with
 * implicit shifts.
 *
 * @param diagonal n values; overwritten
 * @param couple at least n values, of which n - 1 are used; overwritten
 * @param rows each r becomes r Z, T = Z diag(values) Z^T: rows of the identity become those of Z
 * @returns within about n 2^-52 ||T||
 * @cost some 30 n^2 + 6 n^2 rows flops
 * @source Dubrulle 1970; EISPACK imtql2
 */
export function tridiagonalEigen(
  diagonal: Float64Array,
  couple: Float64Array,
  rows: readonly Float64Array[],
): Float64Array {
  const [d, e, n] = [diagonal, couple, diagonal.length];
  for (let l = 0; l < n; l++) {
    for (let iteration = 0; ; iteration++) {
      let m = l;
      while (m < n - 1 && Math.abs(e[m]!) > EPS * (Math.abs(d[m]!) + Math.abs(d[m + 1]!))) m++;
      if (m === l) break;
      if (iteration === MAX_ITERATIONS)
        internal("lanczos", `${MAX_ITERATIONS} iterations did not diagonalise a tridiagonal matrix`);
      chase(d, e, l, m, rows);
    }
  }
  const order = Array.from(d, (_, i) => i).sort((i, j) => d[i]! - d[j]! || i - j);
  for (const row of rows) row.set(order.map((i) => row[i]!));
  return Float64Array.from(order, (i) => d[i]!);
}

/** One QL step on rows l to m of T. */
function chase(d: Float64Array, e: Float64Array, l: number, m: number, rows: readonly Float64Array[]): void {
  const ratio = (d[l + 1]! - d[l]!) / (2 * e[l]!);
  const root = hypotenuse(ratio, 1);
  let g = d[m]! - d[l]! + e[l]! / (ratio + (ratio < 0 ? -root : root));
  let [s, c, p] = [1, 1, 0];
  for (let i = m - 1; i >= l; i--) {
    const f = s * e[i]!;
    const b = c * e[i]!;
    const r = hypotenuse(f, g);
    e[i + 1] = r;
    if (r === 0) {
      d[i + 1] = d[i + 1]! - p;
      e[m] = 0;
      return;
    }
    s = f / r;
    c = g / r;
    g = d[i + 1]! - p;
    const t = (d[i]! - g) * s + 2 * c * b;
    p = s * t;
    d[i + 1] = g + p;
    g = c * t - b;
    for (const row of rows) {
      const upper = row[i + 1]!;
      row[i + 1] = s * row[i]! + c * upper;
      row[i] = c * row[i]! - s * upper;
    }
  }
  d[l] = d[l]! - p;
  e[l] = g;
  e[m] = 0;
}

/** sqrt(a^2 + b^2) without overflow or underflow on the way. */
function hypotenuse(a: number, b: number): number {
  const [large, small] = [Math.max(Math.abs(a), Math.abs(b)), Math.min(Math.abs(a), Math.abs(b))];
  if (large === 0) return 0;
  const ratio = small / large;
  return large * Math.sqrt(1 + ratio * ratio);
}

/** Steps until isDone, maxSteps or an invariant space. Ritz values are looked at more rarely as they get dearer. */
async function advance(
  products: Products,
  krylov: Krylov,
  maxSteps: number,
  isDone: (ritz: Ritz) => boolean,
): Promise<Ritz> {
  for (let check = 1; ; ) {
    krylov.take(await products.apply(krylov.next, 1));
    const isLast = krylov.isInvariant || krylov.steps >= maxSteps;
    if (krylov.steps < check && !isLast) continue;
    const ritz = krylov.ritz();
    if (isDone(ritz) || isLast) return ritz;
    check = krylov.steps + 1 + Math.floor(krylov.steps / 16);
  }
}

/** The Ritz pairs of these indices, with measured residuals. */
async function pairs(
  products: Products,
  krylov: Krylov,
  indices: readonly number[],
  tolerance: number,
  scale = 0,
): Promise<Eigenpair[]> {
  const { values, residuals } = krylov.ritz();
  const vectors = krylov.vectors(indices);
  const size = vectors[0]!.length;
  const flat = new Float64Array(indices.length * size);
  for (const [i, vector] of vectors.entries()) flat.set(vector, i * size);
  const images = rowsOf(await products.apply(flat, indices.length), size);
  const small = tolerance * Math.max(scale, scaleOf(values));
  return vectors.map((vector, i) => {
    const value = values[indices[i]!]!;
    const image = images[i]!;
    axpy(-value, vector, image);
    const residual = Math.max(norm(image), residuals[indices[i]!]!);
    pointForward(vector);
    return { value, residual, steps: krylov.steps, converged: residual <= small, vector };
  });
}

/** Makes the entry of largest magnitude, the first of equals, positive. */
function pointForward(v: Float64Array): void {
  let most = 0;
  for (const x of v) if (Math.abs(x) > Math.abs(most)) most = x;
  if (most < 0) divide(v, -1);
}

/** The largest magnitude of ascending values. */
function scaleOf(values: Float64Array): number {
  return Math.max(Math.abs(values[0]!), Math.abs(values[values.length - 1]!));
}

function limits(
  where: string,
  op: LinearOperator,
  options: LanczosOptions,
  least = 1,
): { tolerance: number; maxSteps: number } {
  return {
    tolerance: checkNumber(where, "tolerance", options.tolerance ?? 1e-8, 0),
    maxSteps: Math.min(
      op.size,
      checkInteger(where, "maxSteps", options.maxSteps ?? Math.max(300, 3 * least), least),
    ),
  };
}

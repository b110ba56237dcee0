import { axpy, divide, dot, EPS, norm } from "../stats/operator.ts";

/** The vectors a matrix takes to 0, to within rounding, and how clear that is. */
export interface NullSpace {
  /** Orthonormal. */
  readonly vectors: Float64Array[];
  readonly rank: number;
  /** Estimate of the largest singular value, from below. */
  readonly largest: number;
  /** The smallest singular value that counts: an estimate from above, good to some per cent. Infinity for rank 0. */
  readonly smallestKept: number;
  /** Upper bound of the largest one that does not: |M Z|_F for the null vectors Z; 0 where there are none. */
  readonly largestNull: number;
}

/** Power and inverse iterations for the ends of the spectrum: they decide no more than a factor. */
const ITERATIONS = 16;

/**
 * Null space of a matrix M of m rows and n columns by a complete orthogonal decomposition: Householder QR with column
 * pivoting, M P = Q [R S; 0 E] with |E| at most the threshold, then [R S] = [T 0] Z^T by reflections from the right. The
 * last columns of P Z are the null vectors.
 *
 * One order of operations, + - * / sqrt alone: equal input gives equal bits on every host.
 *
 * @param columns   n arrays of m values; overwritten
 * @param threshold from the largest singular value, or an absolute one: columns whose remainder is no longer count as spanned
 * @cost 2 r (m n - r (m + n) / 2 + r^2 / 3) flops and what they take again for a large null space; 2.4 GFlop/s measured
 * @source Golub and Van Loan, Matrix Computations, 4th edition, 5.4
 */
export function nullSpace(columns: Float64Array[], threshold: (largest: number) => number): NullSpace {
  const work = decompose(columns, threshold);
  for (;;) {
    const step = work.next();
    if (step.done) return step.value;
  }
}

/** The same, `pause` being awaited after each column. */
export async function nullSpaceWithPauses(
  columns: Float64Array[],
  threshold: (largest: number) => number,
  pause: () => Promise<void>,
): Promise<NullSpace> {
  const work = decompose(columns, threshold);
  for (;;) {
    const step = work.next();
    if (step.done) return step.value;
    await pause();
  }
}

function* decompose(
  columns: Float64Array[],
  threshold: (largest: number) => number,
): Generator<void, NullSpace> {
  const n = columns.length;
  const m = columns[0]?.length ?? 0;
  const order = Int32Array.from({ length: n }, (_, j) => j);
  const largest = largestSingular(columns);
  const limit = threshold(largest);
  const lengths = columns.map((c) => dot(c, c));
  const fresh = lengths.slice();
  let rank = 0;
  for (; rank < Math.min(m, n); rank++) {
    // lengths are kept up to date by subtraction, and measured again once that has cost half of their digits
    for (let j = rank; j < n; j++) {
      if (lengths[j]! > 1e-8 * fresh[j]!) continue;
      const rest = columns[j]!.subarray(rank);
      lengths[j] = fresh[j] = dot(rest, rest);
    }
    let pivot = rank;
    for (let j = rank + 1; j < n; j++) if (lengths[j]! > lengths[pivot]!) pivot = j;
    if (!(Math.sqrt(lengths[pivot]!) > limit)) break;
    for (const list of [columns, lengths, fresh, order] as (number[] | Int32Array | Float64Array[])[])
      exchange(list, rank, pivot);
    eliminate(columns, lengths, rank);
    yield;
  }
  let remainder = 0;
  for (const column of columns.slice(rank)) {
    const rest = column.subarray(rank);
    remainder += dot(rest, rest);
  }
  const vectors = nullVectors(columns, rank, order);
  return {
    vectors,
    rank,
    largest,
    smallestKept: rank === 0 ? Infinity : smallestSingular(columns, rank),
    largestNull: Math.sqrt(remainder),
  };
}

function exchange(list: { [i: number]: unknown }, i: number, j: number): void {
  [list[i], list[j]] = [list[j], list[i]];
}

/** Reflects column `at` to a multiple of a unit vector from entry `at` on, and the columns behind it with it. */
function eliminate(columns: Float64Array[], lengths: number[], at: number): void {
  const pivot = columns[at]!;
  const v = pivot.slice(at);
  const length = norm(v);
  const image = v[0]! > 0 ? -length : length;
  v[0] = v[0]! - image;
  const square = dot(v, v);
  for (let j = at + 1; j < columns.length; j++) {
    const column = columns[j]!.subarray(at);
    axpy((-2 * dot(v, column)) / square, v, column);
    lengths[j] = Math.max(0, lengths[j]! - column[0]! * column[0]!);
  }
  pivot.fill(0, at);
  pivot[at] = image;
}

/** Takes [R S], the first `rank` rows of the columns, to [T 0]; T replaces R. Null vectors in the caller's order. */
function nullVectors(columns: Float64Array[], rank: number, order: Int32Array): Float64Array[] {
  const n = columns.length;
  const d = n - rank;
  if (d === 0) return [];
  const vectors = Array.from({ length: d }, (_, t) => {
    const z = new Float64Array(n);
    z[rank + t] = 1;
    return z;
  });
  // row i of [R S] is reflected onto entry i, from the last row up, which leaves the zeros below
  const reflections: Float64Array[] = new Array(rank);
  for (let i = rank - 1; i >= 0; i--) {
    const w = Float64Array.from({ length: d + 1 }, (_, c) => columns[c === 0 ? i : rank + c - 1]![i]!);
    const length = norm(w);
    const image = w[0]! > 0 ? -length : length;
    w[0] = w[0]! - image;
    reflections[i] = w;
    const square = dot(w, w);
    const parts = [columns[i]!, ...columns.slice(rank)].map((column) => column.subarray(0, i));
    const along = new Float64Array(i);
    for (const [c, part] of parts.entries()) axpy(w[c]!, part, along);
    for (const [c, part] of parts.entries()) axpy((-2 * w[c]!) / square, along, part);
    columns[i]![i] = image;
  }
  for (const z of vectors) {
    for (const [i, w] of reflections.entries()) {
      const tail = z.subarray(rank);
      const direction = w.subarray(1);
      const f = (-2 * (w[0]! * z[i]! + dot(direction, tail))) / dot(w, w);
      z[i] = z[i]! + f * w[0]!;
      axpy(f, direction, tail);
    }
  }
  return vectors.map((z) => {
    const out = new Float64Array(n);
    for (let j = 0; j < n; j++) out[order[j]!] = z[j]!;
    return out;
  });
}

/** Power iteration on M^T M from the columns' lengths; at least the length of the longest column. */
function largestSingular(columns: readonly Float64Array[]): number {
  const m = columns[0]?.length ?? 0;
  const x = Float64Array.from(columns, (c) => norm(c));
  let estimate = x.reduce((most, value) => Math.max(most, value), 0);
  for (let k = 0; k < ITERATIONS / 2; k++) {
    const length = norm(x);
    if (length === 0) break;
    divide(x, length);
    const y = new Float64Array(m);
    for (const [j, column] of columns.entries()) axpy(x[j]!, column, y);
    estimate = Math.max(estimate, norm(y));
    for (const [j, column] of columns.entries()) x[j] = dot(column, y);
  }
  return estimate;
}

/** Inverse iteration on T^T T, T the upper triangle of the first `rank` columns. */
function smallestSingular(columns: readonly Float64Array[], rank: number): number {
  let x = Float64Array.from({ length: rank }, (_, i) => 1 + (i % 7) / 7);
  let estimate = Infinity;
  for (let k = 0; k < ITERATIONS; k++) {
    divide(x, norm(x));
    const y = new Float64Array(rank);
    for (let j = 0; j < rank; j++) {
      const column = columns[j]!;
      y[j] = (x[j]! - dot(column.subarray(0, j), y.subarray(0, j))) / column[j]!;
    }
    // |T^-T x| = 1 / s at the end, x then being a left singular vector
    estimate = Math.min(estimate, 1 / norm(y));
    for (let j = rank - 1; j >= 0; j--) {
      const column = columns[j]!;
      y[j] = y[j]! / column[j]!;
      axpy(-y[j]!, column.subarray(0, j), y.subarray(0, j));
    }
    x = y;
  }
  return estimate;
}

/**
 * Indices of rows that span all of them: each is the one furthest from the span of those before, until none is further
 * than `tolerance` times the longest.
 *
 * @cost 4 count rank length flops
 */
export function independentRows(rows: readonly Float64Array[], tolerance: number): number[] {
  const rest = rows.map((row) => row.slice());
  const lengths = rest.map((row) => norm(row));
  const limit = tolerance * Math.max(0, ...lengths);
  const chosen: number[] = [];
  for (;;) {
    let next = -1;
    for (const [i, length] of lengths.entries()) if (length > limit && !(length <= lengths[next]!)) next = i;
    if (next < 0) return chosen;
    chosen.push(next);
    const q = rest[next]!;
    divide(q, lengths[next]!);
    lengths[next] = 0;
    for (const [i, row] of rest.entries()) {
      if (lengths[i]! <= limit) continue;
      axpy(-dot(q, row), q, row);
      lengths[i] = norm(row);
    }
  }
}

/** Orthonormal vectors that span a space, growing. */
export class Span {
  readonly vectors: Float64Array[];

  constructor(orthonormal: readonly Float64Array[] = []) {
    this.vectors = [...orthonormal];
  }

  /**
   * The part of v that is orthogonal to the span.
   *
   * @cost 2 size flops per vector of the span, and 2 per entry of v that is not 0
   */
  outside(v: Float64Array): Float64Array {
    const rest = v.slice();
    const used = Array.from(v.keys()).filter((i) => v[i] !== 0);
    const isSparse = 8 * used.length < v.length;
    for (const q of this.vectors) {
      let along = 0;
      if (isSparse) for (const i of used) along += q[i]! * v[i]!;
      else along = dot(q, v);
      if (along !== 0) axpy(-along, q, rest);
    }
    return rest;
  }

  /** How far v / |v| is from the span. */
  distance(v: Float64Array): number {
    return norm(this.outside(v)) / norm(v);
  }

  /** Takes v in, unless the span holds it to within `tolerance` of its length. */
  add(v: Float64Array, tolerance: number): boolean {
    // twice is enough
    const rest = this.outside(this.outside(v));
    const length = norm(rest);
    if (!(length > tolerance * norm(v))) return false;
    divide(rest, length);
    this.vectors.push(rest);
    return true;
  }
}

/** Orthonormal vectors that span what vectors of length 1 span outside of `chosen`, the furthest first. */
export function* furthest(vectors: readonly Float64Array[], chosen: Span): Generator<Float64Array> {
  const rest = vectors.map((v) => chosen.outside(v));
  for (;;) {
    const lengths = rest.map(norm);
    const next = lengths.indexOf(Math.max(0, ...lengths));
    if (next < 0 || lengths[next]! < APART) return;
    const q = rest[next]!;
    divide(q, lengths[next]!);
    yield q.slice();
    for (const v of rest) if (v !== q) axpy(-dot(q, v), q, v);
    q.fill(0);
  }
}

/** A vector of length 1 is independent of others if it is this far from their span. */
export const APART = 0.01;

/** The rank of vectors scaled to length 1: singular values above `tolerance`. Vectors of zeros are left out. */
export function rankOf(vectors: readonly Float64Array[], tolerance: number): number {
  const columns = vectors.filter((v) => norm(v) > 0).map((v) => v.slice());
  for (const column of columns) divide(column, norm(column));
  return nullSpace(columns, (largest) => Math.max(tolerance, EPS * largest)).rank;
}

/**
 * The matrix and reduction kernels as plain loops over whole arrays: one accumulator per result, from +0 (or from
 * dst), terms in ascending index, every operation rounded by itself. The kernels must give the same bits.
 *
 * It catches a tile that skips or repeats a row, a tail that is summed in another order, a fused multiply-add,
 * and a stride that is off by one.
 *
 * `round` is the identity for f64 and Math.fround for f32: +, -, * and / of two floats, done in double and then
 * rounded to float, are the float operations. Sizes, strides and layouts are those of the kernels, in values;
 * dst is changed in place and nowhere but at its own elements.
 */

import { fusedMultiplyAdd } from "./fma.ts";

export type Values = Float64Array | Float32Array;
export type Round = (x: number) => number;

/** Whether the terms of products are added in one rounding, as the variant "fma" does. */
let isFused = false;
export function fuseProducts(fuse: boolean): void {
  isFused = fuse;
}

/** sum + a b */
function withTerm(values: Values, sum: number, a: number, b: number): number {
  const round = rounding(values);
  if (isFused) return fusedMultiplyAdd(a, b, sum, values instanceof Float32Array ? 24 : 53);
  return round(sum + round(a * b));
}

export const rounding = (values: Values): Round => (values instanceof Float32Array ? Math.fround : (x) => x);

/** dst(i, j) (+)= sum_p a(i, p) * b(p, j); the functions give positions in the arrays. */
function product(
  [dst, dstAt]: [Values, (i: number, j: number) => number],
  [a, aAt]: [Values, (i: number, p: number) => number],
  [b, bAt]: [Values, (p: number, j: number) => number],
  [m, n, k]: readonly [number, number, number],
  accumulate: number,
): void {
  for (let i = 0; i < m; ++i) {
    for (let j = 0; j < n; ++j) {
      let sum = accumulate ? (dst[dstAt(i, j)] as number) : 0;
      for (let p = 0; p < k; ++p) {
        sum = withTerm(dst, sum, a[aAt(i, p)] as number, b[bAt(p, j)] as number);
      }
      dst[dstAt(i, j)] = sum;
    }
  }
}

type Matmul = (
  dst: Values,
  a: Values,
  b: Values,
  m: number,
  n: number,
  k: number,
  ldd: number,
  lda: number,
  ldb: number,
  accumulate: number,
) => void;

export const matmulNN: Matmul = (dst, a, b, m, n, k, ldd, lda, ldb, accumulate) => {
  product(
    [dst, (i, j) => i * ldd + j],
    [a, (i, p) => i * lda + p],
    [b, (p, j) => p * ldb + j],
    [m, n, k],
    accumulate,
  );
};

export const matmulTN: Matmul = (dst, a, b, m, n, k, ldd, lda, ldb, accumulate) => {
  product(
    [dst, (i, j) => i * ldd + j],
    [a, (i, p) => p * lda + i],
    [b, (p, j) => p * ldb + j],
    [m, n, k],
    accumulate,
  );
};

type LanedMatmul = (
  dst: Values,
  a: Values,
  b: Values,
  m: number,
  n: number,
  k: number,
  ai: number,
  ap: number,
  bp: number,
  bj: number,
  ld: number,
  accumulate: number,
) => void;

/** One lane after the other; an operand that is not laned is the same in all of them. */
const lanedMatmul =
  (aIsLaned: boolean, bIsLaned: boolean): LanedMatmul =>
  (dst, a, b, m, n, k, ai, ap, bp, bj, ld, accumulate) => {
    for (let l = 0; l < ld; ++l) {
      product(
        [dst, (i, j) => (i * n + j) * ld + l],
        [a, (i, p) => (aIsLaned ? (i * ai + p * ap) * ld + l : i * ai + p * ap)],
        [b, (p, j) => (bIsLaned ? (p * bp + j * bj) * ld + l : p * bp + j * bj)],
        [m, n, k],
        accumulate,
      );
    }
  };

export const matmulLaned = lanedMatmul(true, true);
export const matmulLanedUniform = lanedMatmul(true, false);
export const matmulUniformLaned = lanedMatmul(false, true);

export function transpose(
  dst: Values,
  a: Values,
  rows: number,
  cols: number,
  ldd: number,
  lda: number,
): void {
  for (let i = 0; i < rows; ++i) {
    for (let j = 0; j < cols; ++j) dst[j * ldd + i] = a[i * lda + j] as number;
  }
}

export function laneTranspose(
  dst: Values,
  a: Values,
  outer: number,
  inner: number,
  so: number,
  si: number,
  lanes: number,
  ld: number,
): void {
  for (let l = 0; l < lanes; ++l) {
    for (let o = 0; o < outer; ++o) {
      for (let i = 0; i < inner; ++i) {
        dst[l * outer * inner + o * inner + i] = a[(o * so + i * si) * ld + l] as number;
      }
    }
  }
}

export function copyRows(
  dst: Values,
  a: Values,
  rows: number,
  n: number,
  strideD: number,
  strideA: number,
): void {
  for (let i = 0; i < rows; ++i) {
    for (let j = 0; j < n; ++j) dst[i * strideD + j] = a[i * strideA + j] as number;
  }
}

/** g[n][j] -= mean[j]. */
export function centreRows(g: Values, mean: Values, k: number, p: number, ldg: number): void {
  const round = rounding(g);
  for (let n = 0; n < k; ++n) {
    for (let j = 0; j < p; ++j) {
      g[n * ldg + j] = round((g[n * ldg + j] as number) - (mean[j] as number));
    }
  }
}

/** c[i][j] += sum_n g[n][i] * g[n][j] for i <= j, and nothing below the diagonal. */
export function rankUpdate(c: Values, g: Values, k: number, p: number, ldg: number): void {
  for (let i = 0; i < p; ++i) {
    for (let j = i; j < p; ++j) {
      let sum = c[i * p + j] as number;
      for (let n = 0; n < k; ++n) {
        sum = withTerm(c, sum, g[n * ldg + i] as number, g[n * ldg + j] as number);
      }
      c[i * p + j] = sum;
    }
  }
}

export function mirror(c: Values, p: number): void {
  for (let i = 0; i < p; ++i) {
    for (let j = i + 1; j < p; ++j) c[j * p + i] = c[i * p + j] as number;
  }
}

export function sumAxis(dst: Values, a: Values, outer: number, count: number, inner: number): void {
  const round = rounding(dst);
  for (let o = 0; o < outer; ++o) {
    for (let i = 0; i < inner; ++i) {
      let sum = 0;
      for (let r = 0; r < count; ++r) sum = round(sum + (a[(o * count + r) * inner + i] as number));
      dst[o * inner + i] = sum;
    }
  }
}

/** Eight partial sums, one for each e mod 8, and then pairs of pairs of pairs. */
function total(dst: Values, a: Values, elements: number, ld: number, term: (x: number) => number): void {
  const round = rounding(dst);
  for (let l = 0; l < ld; ++l) {
    const partial = [0, 0, 0, 0, 0, 0, 0, 0];
    for (let e = 0; e < elements; ++e) {
      partial[e % 8] = round((partial[e % 8] as number) + term(a[e * ld + l] as number));
    }
    const [p0, p1, p2, p3, p4, p5, p6, p7] = partial as [
      number,
      number,
      number,
      number,
      number,
      number,
      number,
      number,
    ];
    const low = round(round(p0 + p1) + round(p2 + p3));
    const high = round(round(p4 + p5) + round(p6 + p7));
    dst[l] = round(low + high);
  }
}

export function sumAll(dst: Values, a: Values, elements: number, ld: number): void {
  total(dst, a, elements, ld, (x) => x);
}

export function sumSquares(dst: Values, a: Values, elements: number, ld: number): void {
  const round = rounding(dst);
  total(dst, a, elements, ld, (x) => round(x * x));
}

export function batchSum(dst: Values, a: Values, elements: number, lanes: number, ld: number): void {
  const round = rounding(dst);
  for (let e = 0; e < elements; ++e) {
    let sum = dst[e] as number;
    for (let l = 0; l < lanes; ++l) sum = round(sum + (a[e * ld + l] as number));
    dst[e] = sum;
  }
}

export function batchSumLaned(dst: Values, a: Values, n: number): void {
  const round = rounding(dst);
  for (let i = 0; i < n; ++i) dst[i] = round((dst[i] as number) + (a[i] as number));
}

/**
 * The terms of one column of [outer][count][inner], in double whatever the type: an oracle for the value, not for
 * the bits, because Math.exp differs from host to host. Its own error is that of count operations in double.
 */
function exponentials(
  a: Values,
  o: number,
  i: number,
  count: number,
  inner: number,
): { max: number; terms: number[] } {
  const column = Array.from({ length: count }, (_, r) => a[(o * count + r) * inner + i] as number);
  const max = Math.max(...column);
  return { max, terms: column.map((x) => Math.exp(x - max)) };
}

export function softmax(dst: Values, a: Values, outer: number, count: number, inner: number): void {
  for (let o = 0; o < outer; ++o) {
    for (let i = 0; i < inner; ++i) {
      const { terms } = exponentials(a, o, i, count, inner);
      const sum = terms.reduce((s, e) => s + e, 0);
      for (let r = 0; r < count; ++r) dst[(o * count + r) * inner + i] = (terms[r] as number) / sum;
    }
  }
}

export function logsumexp(dst: Values, a: Values, outer: number, count: number, inner: number): void {
  for (let o = 0; o < outer; ++o) {
    for (let i = 0; i < inner; ++i) {
      const { max, terms } = exponentials(a, o, i, count, inner);
      const isEmpty = max === Number.NEGATIVE_INFINITY;
      dst[o * inner + i] = isEmpty ? max : Math.log(terms.reduce((s, e) => s + e, 0)) + max;
    }
  }
}

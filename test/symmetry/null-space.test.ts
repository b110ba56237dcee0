/**
 * Null spaces of matrices whose singular values are known. It catches a wrong order of reflections, columns that come back
 * in the pivots' order, and a rank that follows the size of the matrix instead of its singular values.
 */
import { Matrix, SingularValueDecomposition } from "ml-matrix";
import { describe, expect, test } from "vitest";
import { APART, furthest, independentRows, nullSpace, rankOf, Span } from "../../src/symmetry/null-space.ts";
import { uniforms } from "../reference/grammar.ts";

const dot = (x: ArrayLike<number>, y: ArrayLike<number>): number =>
  Array.from(x).reduce((s, v, i) => s + v * y[i]!, 0);
const norm = (x: ArrayLike<number>): number => Math.sqrt(dot(x, x));

/** m x n with these singular values: orthonormal columns of random matrices on both sides. */
function withSingularValues(seed: number, m: number, n: number, values: readonly number[]): Matrix {
  const random = uniforms(seed);
  const q = (rows: number): Matrix => {
    const A = Matrix.from1DArray(
      rows,
      values.length,
      Array.from({ length: rows * values.length }, () => random() - 0.5),
    );
    return new SingularValueDecomposition(A, { autoTranspose: true }).leftSingularVectors;
  };
  return q(m)
    .mmul(Matrix.diag([...values]))
    .mmul(q(n).transpose());
}

const columnsOf = (A: Matrix): Float64Array[] =>
  Array.from({ length: A.columns }, (_, j) => Float64Array.from(A.getColumn(j)));

describe("null space", () => {
  test.each([
    { m: 1, n: 1, values: [2] },
    { m: 7, n: 5, values: [3, 2, 1, 0.5, 0.1] },
    { m: 9, n: 6, values: [3, 1, 1e-3] },
    { m: 40, n: 30, values: Array.from({ length: 21 }, (_, i) => 5 / (1 + i)) },
    { m: 12, n: 20, values: Array.from({ length: 12 }, (_, i) => 1 + i) },
    { m: 60, n: 33, values: [1] },
    { m: 25, n: 24, values: Array.from({ length: 23 }, (_, i) => (i === 22 ? 1e-6 : 1)) },
  ])("of $m x $n with $values.length singular values", ({ m, n, values }) => {
    const A = withSingularValues(m * n, m, n, values);
    const found = nullSpace(columnsOf(A), (largest) => 1e-12 * largest);
    expect(found.rank).toBe(values.length);
    expect(found.vectors.length).toBe(n - values.length);
    const [most, least] = [Math.max(...values), Math.min(...values)];
    for (const [i, z] of found.vectors.entries()) {
      expect(norm(A.mmul(Matrix.columnVector(z)).to1DArray())).toBeLessThan(1e-14 * most * n);
      for (const [j, y] of found.vectors.entries())
        expect(Math.abs(dot(z, y) - (i === j ? 1 : 0))).toBeLessThan(1e-14);
    }
    // bounds from the side they are on, and close
    expect(found.largest).toBeLessThanOrEqual(most * (1 + 1e-12));
    expect(found.largest).toBeGreaterThan(0.7 * most);
    expect(found.smallestKept).toBeGreaterThan(least * (1 - 1e-9));
    expect(found.smallestKept).toBeLessThan(1.1 * least);
    expect(found.largestNull).toBeLessThan(1e-14 * most * Math.sqrt(n));
  });

  test("a matrix of zeros, one without rows, one without columns", () => {
    const zeros = nullSpace([new Float64Array(3), new Float64Array(3)], () => 0);
    expect([zeros.rank, zeros.vectors.length, zeros.largest, zeros.largestNull]).toEqual([0, 2, 0, 0]);
    expect(zeros.smallestKept).toBe(Infinity);
    expect(nullSpace([new Float64Array(0)], () => 0).vectors).toEqual([Float64Array.of(1)]);
    expect(nullSpace([], () => 0).vectors).toEqual([]);
  });

  test("a threshold above a singular value takes its vector for a null vector, and largestNull tells", () => {
    const A = withSingularValues(3, 20, 8, [4, 3, 2, 1, 1, 1, 1, 1e-5]);
    const found = nullSpace(columnsOf(A), () => 1e-3);
    expect(found.rank).toBe(7);
    expect(found.largestNull).toBeGreaterThan(0.99e-5);
    expect(found.largestNull).toBeLessThan(3e-5);
  });

  test("equal input gives equal bits", () => {
    const A = withSingularValues(5, 50, 20, [3, 2, 1]);
    const once = nullSpace(columnsOf(A), () => 1e-10);
    expect(nullSpace(columnsOf(A), () => 1e-10)).toEqual(once);
  });
});

describe("spans", () => {
  const e = (i: number): Float64Array => Float64Array.from({ length: 40 }, (_, j) => (i === j ? 1 : 0));

  test("independent rows span all of them, and are the longest first", () => {
    const A = withSingularValues(7, 14, 9, [3, 2, 1, 1e-3]);
    const rows = A.to2DArray().map((r) => Float64Array.from(r));
    const chosen = independentRows(rows, 1e-9);
    expect(chosen.length).toBe(4);
    const longest = rows.map(norm);
    expect(longest[chosen[0]!]).toBe(Math.max(...longest));
    expect(rankOf(rows, 1e-9)).toBe(4);
    expect(
      rankOf(
        chosen.map((i) => rows[i]!),
        1e-9,
      ),
    ).toBe(4);
    expect(independentRows([], 1e-9)).toEqual([]);
    expect(independentRows([new Float64Array(3)], 1e-9)).toEqual([]);
  });

  test("outside, of sparse and of full vectors", () => {
    const span = new Span();
    expect(
      span.add(
        Float64Array.from(e(0), (x, i) => x + e(1)[i]!),
        APART,
      ),
    ).toBe(true);
    expect(
      span.add(
        Float64Array.from(e(0), (x, i) => 3 * x + 3 * e(1)[i]!),
        APART,
      ),
    ).toBe(false);
    expect(span.distance(e(0))).toBeCloseTo(Math.SQRT1_2, 14);
    const full = Float64Array.from({ length: 40 }, (_, i) => 1 + (i % 3));
    const rest = span.outside(full);
    expect(rest[0]! + rest[1]!).toBeCloseTo(0, 14);
    expect(rest.slice(2)).toEqual(full.slice(2));
  });

  test("what lies outside of what is chosen has as many vectors as are missing", () => {
    const chosen = new Span([e(0)]);
    const mixed = [0, 1, 2].map((i) =>
      Float64Array.from(e(i), (x, j) => (x + e((i + 1) % 3)[j]!) / Math.SQRT2),
    );
    const others = [...furthest(mixed, chosen)];
    expect(others.length).toBe(2);
    for (const v of others) {
      expect(norm(v)).toBeCloseTo(1, 14);
      expect(v[0]).toBeCloseTo(0, 14);
    }
    expect(dot(others[0]!, others[1]!)).toBeCloseTo(0, 14);
  });
});

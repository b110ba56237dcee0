import { createHash } from "node:crypto";
import { EigenvalueDecomposition, Matrix as MlMatrix, SingularValueDecomposition } from "ml-matrix";
import { afterAll, describe, expect, test } from "vitest";
import { Arena } from "../../src/core/arena.ts";
import { NoetherflowError } from "../../src/errors.ts";
import type { Host } from "../../src/models/evaluate.ts";
import { Dense, type Matrix } from "../../src/stats/dense.ts";
import { loadInlined } from "../../src/wasm/inlined.ts";
import type { CoreExports, Dtype } from "../../src/wasm/module.ts";

const EPS = 2 ** -52;

async function hostOf(dtype: Dtype): Promise<Host> {
  const core = await loadInlined(dtype);
  return { core, arena: new Arena(core.memory, core.exports.heapBase(), core.real.bytes) };
}
const host = await hostOf("f64");
/** What the last eigenproblem or SVD took. */
let sweeps = 0;
const counted: CoreExports = Object.assign(Object.create(host.core.exports) as CoreExports, {
  symmetricEigen: (...args: Parameters<CoreExports["symmetricEigen"]>) =>
    (sweeps = host.core.exports.symmetricEigen(...args)),
  svd: (...args: Parameters<CoreExports["svd"]>) => (sweeps = host.core.exports.svd(...args)),
});
const dense = new Dense({ ...host, core: { ...host.core, exports: counted } });

// ---- plain loops: nothing here comes from the code under test

const of = (rows: number, cols: number, entry: (i: number, j: number) => number): Matrix => {
  const values = new Float64Array(rows * cols);
  for (let i = 0; i < rows; i++) for (let j = 0; j < cols; j++) values[i * cols + j] = entry(i, j);
  return { rows, cols, values };
};
const at = (A: Matrix, i: number, j: number): number => A.values[i * A.cols + j]!;
const flip = (A: Matrix): Matrix => of(A.cols, A.rows, (i, j) => at(A, j, i));
const minus = (A: Matrix, B: Matrix): Matrix => of(A.rows, A.cols, (i, j) => at(A, i, j) - at(B, i, j));
const one = (n: number): Matrix => of(n, n, (i, j) => Number(i === j));
/** A with column j times d[j]. */
const columns = (A: Matrix, d: ArrayLike<number>): Matrix =>
  of(A.rows, A.cols, (i, j) => at(A, i, j) * d[j]!);
const times = (A: Matrix, B: Matrix): Matrix => {
  const C = of(A.rows, B.cols, () => 0);
  for (let i = 0; i < A.rows; i++) {
    for (let p = 0; p < A.cols; p++) {
      const a = at(A, i, p);
      for (let j = 0; j < B.cols; j++) C.values[i * B.cols + j]! += a * B.values[p * B.cols + j]!;
    }
  }
  return C;
};
const norm = (A: Matrix): number => {
  const most = A.values.reduce((m, x) => Math.max(m, Math.abs(x)), 0);
  return most === 0 ? 0 : most * Math.sqrt(A.values.reduce((sum, x) => sum + (x / most) ** 2, 0));
};
const offOrthonormal = (Q: Matrix): number => norm(minus(times(flip(Q), Q), one(Q.cols)));

// ---- matrices

let state = 20240229;
const uniform = (): number => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return (state + 0.5) / 2 ** 32;
};
const normal = (): number => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
const random = (m: number, n: number): Matrix => of(m, n, normal);
/** A product of n reflections. */
function orthogonal(n: number): Matrix {
  const Q = one(n);
  for (let r = 0; r < n; r++) {
    const v = Array.from({ length: n }, normal);
    const vv = v.reduce((sum, x) => sum + x * x, 0);
    for (let i = 0; i < n; i++) {
      let s = 0;
      for (let j = 0; j < n; j++) s += at(Q, i, j) * v[j]!;
      for (let j = 0; j < n; j++) Q.values[i * n + j]! -= (2 * s * v[j]!) / vv;
    }
  }
  return Q;
}
const mirrored = (A: Matrix): Matrix => of(A.rows, A.cols, (i, j) => (i < j ? at(A, i, j) : at(A, j, i)));
const withEigenvalues = (d: number[]): Matrix => {
  const V = orthogonal(d.length);
  return mirrored(times(columns(V, d), flip(V)));
};
const spread = (n: number, digits: number): number[] =>
  Array.from({ length: n }, (_, i) => 10 ** ((-digits * i) / Math.max(1, n - 1)));

const semidefinite: Record<string, (n: number) => Matrix> = {
  "condition up to 1e12": (n) => withEigenvalues(spread(n, 12 * uniform())),
  "condition 1e12": (n) => withEigenvalues(spread(n, 12)),
  "rank n / 3": (n) => withEigenvalues(Array.from({ length: n }, (_, i) => (3 * i < n ? 1 + i : 0))),
  "repeated eigenvalues": (n) => withEigenvalues(Array.from({ length: n }, (_, i) => 1 + (i >> 2))),
  Hilbert: (n) => of(n, n, (i, j) => 1 / (i + j + 1)),
  "graded down": (n) => {
    const H = withEigenvalues(Array.from({ length: n }, () => 1 + 9 * uniform()));
    return of(n, n, (i, j) => at(H, i, j) * 2 ** (-4 * (i + j)));
  },
  "graded up": (n) => {
    const H = withEigenvalues(Array.from({ length: n }, () => 1 + 9 * uniform()));
    return of(n, n, (i, j) => at(H, i, j) * 2 ** (4 * (i + j)));
  },
  zero: (n) => of(n, n, () => 0),
  "all ones": (n) => of(n, n, () => 1),
};
const symmetric: Record<string, (n: number) => Matrix> = {
  random: (n) => mirrored(random(n, n)),
  "indefinite of rank n / 3": (n) =>
    withEigenvalues(Array.from({ length: n }, (_, i) => (3 * i < n ? (-1) ** i : 0))),
  antidiagonal: (n) => of(n, n, (i, j) => Number(i + j === n - 1)),
  ...semidefinite,
};
const scales = [0, 0, 0, 500, -500]; // powers of two; 2^500 = 3e150

/** `count` matrices of sizes 1 to 12, then a few large ones; families take turns. */
function* cases(families: Record<string, (n: number) => Matrix>, count: number, large = [30, 60, 200]) {
  const names = Object.keys(families);
  for (let c = 0; c < count; c++) {
    const name = names[c % names.length]!;
    const A = families[name]!(1 + (Math.floor(c / names.length) % 12));
    const e = 2 ** scales[c % scales.length]!;
    const scaled = of(A.rows, A.cols, (i, j) => at(A, i, j) * e);
    yield { name: `${name} ${A.rows} x ${A.cols}, times ${e}`, A: scaled, e, plain: A };
  }
  for (const n of large) {
    for (const name of n > 100 ? names.slice(0, 2) : names) {
      const A = families[name]!(n);
      yield { name: `${name} ${n}`, A, e: 1, plain: A };
    }
  }
}

// ---- the largest ratio of an error to its unit, by claim

const worst = new Map<string, { ratio: number; name: string }>();
function within(claim: string, bound: number, error: number, unit: number, name: string): void {
  const ratio = error === 0 ? 0 : error / unit;
  if (!(ratio <= (worst.get(claim)?.ratio ?? -1))) worst.set(claim, { ratio, name });
  if (!(ratio <= bound)) expect.fail(`${claim}: ${ratio} > ${bound} for ${name}`);
}
afterAll(() => {
  console.log([...worst].map(([claim, w]) => `${w.ratio.toFixed(3)}  ${claim}  (${w.name})`).join("\n"));
});

/** Code and text of the error that a call throws. */
const message = (call: () => unknown): string => {
  try {
    call();
  } catch (error) {
    if (error instanceof NoetherflowError) return `${error.code} | ${error.message}`;
    throw error;
  }
  return "nothing was thrown";
};

/** In each column the entry of largest magnitude, the first of equals, is positive. */
function pointsForward(V: Matrix): boolean {
  for (let j = 0; j < V.cols; j++) {
    let most = 0;
    for (let i = 0; i < V.rows; i++) if (Math.abs(at(V, i, j)) > Math.abs(most)) most = at(V, i, j);
    if (!(most > 0)) return false;
  }
  return true;
}
const descends = (values: Float64Array): boolean => values.every((x, i) => i === 0 || x <= values[i - 1]!);
const ml = (A: Matrix): MlMatrix => MlMatrix.from1DArray(A.rows, A.cols, [...A.values]);
/** Largest difference of two lists. */
const apart = (a: ArrayLike<number>, b: ArrayLike<number>): number =>
  Array.from(a).reduce((most, x, i) => Math.max(most, Math.abs(x - b[i]!)), 0);

describe("symmetricEigen", () => {
  test("of 1,000 matrices is within 4 n 2^-52 ||A||, ordered, signed, and as ml-matrix has it", () => {
    let count = 0;
    for (const { name, A, e, plain } of cases(symmetric, 1000)) {
      count++;
      const n = A.rows;
      const { values, vectors: V } = dense.symmetricEigen(A);
      within("eigen sweeps <= 25", 25, sweeps, 1, name);
      const unit = n * EPS * norm(A);
      within(
        "eigen ||A V - V D|| / (n eps ||A||) <= 4",
        4,
        norm(minus(times(A, V), columns(V, values))),
        unit,
        name,
      );
      within("eigen ||V^T V - I|| / (n eps) <= 4", 4, offOrthonormal(V), n * EPS, name);
      if (!descends(values)) expect.fail(`eigenvalues not descending for ${name}`);
      if (!pointsForward(V)) expect.fail(`sign of a vector for ${name}`);
      if (n > 60) continue;
      // ml-matrix squares entries and loses digits at 1e-150, so it is given the matrix without the power of two
      const theirs = new EigenvalueDecomposition(ml(plain), { assumeSymmetric: true }).realEigenvalues;
      theirs.sort((a, b) => b - a);
      within(
        "eigenvalues against ml-matrix / (n eps ||A||) <= 8",
        8,
        apart(
          values,
          theirs.map((x) => x * e),
        ),
        unit,
        name,
      );
    }
    expect(count).toBe(1000 + 2 * 12 + 2);
  });

  test("keeps the digits of tiny eigenvalues, in any order of the rows", () => {
    // a_ij = (1 + [i = j]) 2^(-20 (i + j)); mpmath, 80 digits
    const exact = [
      2.0000000000004547474, 1.3642420526592200276e-12, 1.1029074834039881386e-24, 9.4039548065781076247e-37,
      8.2107331894029263202e-49,
    ];
    for (const order of [
      [0, 1, 2, 3, 4],
      [4, 3, 2, 1, 0],
      [2, 4, 0, 3, 1],
    ]) {
      const A = of(5, 5, (i, j) => (i === j ? 2 : 1) * 2 ** (-20 * (order[i]! + order[j]!)));
      for (const [i, value] of dense.symmetricEigen(A).values.entries()) {
        expect(Math.abs(value / exact[i]! - 1)).toBeLessThan(4 * EPS);
      }
    }
  });

  test("of 2^e A has 2^e times the eigenvalues and the same vectors, bit by bit, from 1e-300 to 1e300", () => {
    const A = mirrored(random(9, 9));
    const plain = dense.symmetricEigen(A);
    for (const e of [-990, -500, -1, 1, 500, 1010]) {
      const { values, vectors } = dense.symmetricEigen(of(9, 9, (i, j) => at(A, i, j) * 2 ** e));
      expect(values).toEqual(plain.values.map((x) => x * 2 ** e));
      expect(vectors).toEqual(plain.vectors);
    }
  });

  test("of a diagonal matrix is a permutation, and equal values keep their order", () => {
    const { values, vectors } = dense.symmetricEigen(dense.diagonal([1, 3, -2, 3]));
    expect([...values]).toEqual([3, 3, 1, -2]);
    expect(vectors).toEqual(of(4, 4, (i, j) => Number(i === [1, 3, 0, 2][j])));
  });
});

describe("svd", () => {
  const shaped = (c: number, n: number): [number, number] =>
    [
      [n, n],
      [n + 1 + (c % 7), n],
      [n, n + 1 + (c % 5)],
    ][c % 3] as [number, number];
  let turn = 0;
  const withSingular = (m: number, n: number, s: number[]): Matrix => {
    const U = orthogonal(m);
    const V = orthogonal(n);
    return times(
      of(m, s.length, (i, j) => at(U, i, j) * s[j]!),
      of(s.length, n, (i, j) => at(V, j, i)),
    );
  };
  const shape = (make: (m: number, n: number) => Matrix) => (size: number) => make(...shaped(turn++, size));
  const rectangular: Record<string, (n: number) => Matrix> = {
    random: shape(random),
    "condition 1e12": shape((m, n) => withSingular(m, n, spread(Math.min(m, n), 12))),
    "rank k / 3": shape((m, n) =>
      withSingular(
        m,
        n,
        Array.from({ length: Math.min(m, n) }, (_, i) => (3 * i < Math.min(m, n) ? 1 : 0)),
      ),
    ),
    "exact rank 1": shape((m, n) => of(m, n, (i, j) => (i + 1) * (j + 2))),
    "zero rows and columns": shape((m, n) => of(m, n, (i, j) => (i === 0 || j === n - 1 ? 0 : normal()))),
    "graded columns": shape((m, n) => of(m, n, (_, j) => normal() * 10 ** -j)),
    "graded rows": shape((m, n) => of(m, n, (i) => normal() * 10 ** i)),
    Hilbert: shape((m, n) => of(m, n, (i, j) => 1 / (i + j + 1))),
    zero: shape((m, n) => of(m, n, () => 0)),
    "repeated values": shape((m, n) => withSingular(m, n, new Array(Math.min(m, n)).fill(3))),
  };

  test("of 1,000 matrices is within 4 max(m, n) 2^-52 ||A||, ordered, signed, and as ml-matrix has it", () => {
    let count = 0;
    for (const { name, A, e, plain } of cases(rectangular, 1000)) {
      count++;
      const { U, s, V } = dense.svd(A);
      within("svd sweeps <= 25", 25, sweeps, 1, name);
      const size = Math.max(A.rows, A.cols);
      const k = Math.min(A.rows, A.cols);
      expect([U.rows, U.cols, s.length, V.rows, V.cols]).toEqual([A.rows, k, k, A.cols, k]);
      const residual = norm(minus(A, times(columns(U, s), flip(V))));
      within("svd ||A - U S V^T|| / (max(m, n) eps ||A||) <= 4", 4, residual, size * EPS * norm(A), name);
      within("svd ||U^T U - I|| / (max(m, n) eps) <= 4", 4, offOrthonormal(U), size * EPS, name);
      within("svd ||V^T V - I|| / (max(m, n) eps) <= 4", 4, offOrthonormal(V), size * EPS, name);
      if (!descends(s) || s.some((x) => x < 0)) expect.fail(`singular values not descending for ${name}`);
      if (!pointsForward(V)) expect.fail(`sign of a vector for ${name}`);
      if (size > 60) continue;
      const theirs = new SingularValueDecomposition(ml(plain), { autoTranspose: true }).diagonal;
      within(
        "singular values against ml-matrix / (max(m, n) eps ||A||) <= 8",
        8,
        apart(
          s,
          theirs.map((x) => x * e),
        ),
        size * EPS * norm(A),
        name,
      );
    }
    expect(count).toBe(1000 + 2 * 10 + 2);
  });

  test("keeps the digits of tiny singular values of graded columns, and of rows for the transpose", () => {
    // b_ij = (1 + (i j mod 3) + [i = j]) 2^(-30 j); mpmath, 80 digits
    const exact = [
      3.0000000000000000031, 3.1198920126758796049e-9, 1.1989973625416658191e-18, 1.0417757692928766522e-27,
    ];
    const B = of(6, 4, (i, j) => (1 + ((i * j) % 3) + Number(i === j)) * 2 ** (-30 * j));
    for (const A of [B, flip(B), of(6, 4, (i, j) => at(B, 5 - i, 3 - j))]) {
      for (const [i, value] of dense.svd(A).s.entries())
        expect(Math.abs(value / exact[i]! - 1)).toBeLessThan(4 * EPS);
    }
  });

  test("of 2^e A has 2^e times the singular values and the same vectors, bit by bit", () => {
    const A = random(7, 5);
    const plain = dense.svd(A);
    for (const e of [-990, 1010]) {
      const { U, s, V } = dense.svd(of(7, 5, (i, j) => at(A, i, j) * 2 ** e));
      expect([U, s, V]).toEqual([plain.U, plain.s.map((x) => x * 2 ** e), plain.V]);
    }
  });

  test("of equal magnitudes the first entry is the positive one", () => {
    const r = 1 / Math.SQRT2;
    expect(dense.svd(of(1, 2, (_, j) => [-1, 1][j]!))).toEqual({
      U: of(1, 1, () => -1),
      s: Float64Array.of(Math.SQRT2),
      V: of(2, 1, (i) => [r, -r][i]!),
    });
  });

  test("counts rank and condition", () => {
    expect(dense.rank(of(4, 6, (i, j) => (i + 1) * (j + 2) + i))).toBe(2);
    expect([dense.rank(one(5)), dense.rank(of(3, 3, () => 0)), dense.rank(of(0, 3, () => 0))]).toEqual([
      5, 0, 0,
    ]);
    expect(dense.condition(dense.diagonal([2, -8, 4]))).toBe(4);
    expect([dense.condition(of(2, 2, () => 1)) > 1e15, dense.condition(of(0, 0, () => 0))]).toEqual([
      true,
      1,
    ]);
    expect(dense.condition(dense.diagonal([1, 0]))).toBe(Infinity);
  });

  test("QR of the same kinds is within 4 max(m, n) 2^-52 ||A||, R triangular with diagonal >= 0", () => {
    let count = 0;
    for (const { name, A } of cases(rectangular, 500)) {
      count++;
      const { Q, R } = dense.qr(A);
      const size = Math.max(A.rows, A.cols);
      const k = Math.min(A.rows, A.cols);
      expect([Q.rows, Q.cols, R.rows, R.cols]).toEqual([A.rows, k, k, A.cols]);
      within(
        "qr ||A - Q R|| / (max(m, n) eps ||A||) <= 4",
        4,
        norm(minus(A, times(Q, R))),
        size * EPS * norm(A),
        name,
      );
      within("qr ||Q^T Q - I|| / (max(m, n) eps) <= 4", 4, offOrthonormal(Q), size * EPS, name);
      const isUpper = R.values.every((x, e) => {
        const [i, j] = [Math.floor(e / R.cols), e % R.cols];
        return i > j ? x === 0 : i < j || x >= 0;
      });
      if (!isUpper) expect.fail(`R of ${name}`);
    }
    expect(count).toBe(500 + 2 * 10 + 2);
  });
});

describe("matrices whose entries span 2^600 or 2^1900, or are few, or all but equal", () => {
  const entries: Record<string, () => number> = {
    "span 2^600": () => normal() * 2 ** Math.round(600 * (uniform() - 1)),
    "span 2^1900": () => normal() * 2 ** Math.round(1900 * (uniform() - 0.5)) * 2 ** -100,
    sparse: () => (uniform() < 0.7 ? 0 : normal()),
    "small integers": () => Math.round(4 * (uniform() - 0.5)),
    "all but equal": () => 1 + 1e-15 * normal(),
  };
  test("have decompositions within the same bounds", () => {
    let count = 0;
    for (let c = 0; c < 1500; c++) {
      const [kind, draw] = Object.entries(entries)[c % 5]!;
      const [m, n] = [1 + Math.floor(10 * uniform()), 1 + Math.floor(10 * uniform())];
      const name = `${kind} ${m} x ${n}, case ${c}`;
      const A = of(m, n, draw);
      const unit = Math.max(m, n) * EPS;
      const { U, s, V } = dense.svd(A);
      within("any svd residual <= 4", 4, norm(minus(A, times(columns(U, s), flip(V)))), unit * norm(A), name);
      within("any svd U^T U <= 4", 4, offOrthonormal(U), unit, name);
      within("any svd V^T V <= 4", 4, offOrthonormal(V), unit, name);
      const { Q, R } = dense.qr(A);
      within("any qr residual <= 4", 4, norm(minus(A, times(Q, R))), unit * norm(A), name);
      within("any qr Q^T Q <= 4", 4, offOrthonormal(Q), unit, name);
      const S = mirrored(of(n, n, draw));
      const { values, vectors: W } = dense.symmetricEigen(S);
      within(
        "any eigen residual <= 4",
        4,
        norm(minus(times(S, W), columns(W, values))),
        n * EPS * norm(S),
        name,
      );
      within("any eigen V^T V <= 4", 4, offOrthonormal(W), n * EPS, name);
      count++;
    }
    expect(count).toBe(1500);
  });

  test("down to the smallest subnormal number", () => {
    const tiny = 2 ** -1074;
    const A = of(2, 2, (i, j) => (i === j ? 5 : 3) * tiny);
    expect(dense.symmetricEigen(A).values).toEqual(Float64Array.of(8 * tiny, 2 * tiny));
    expect(dense.svd(A).s).toEqual(Float64Array.of(8 * tiny, 2 * tiny));
    expect(dense.solve(A, A)).toEqual(one(2));
    expect(dense.frobenius(of(1, 2, (_, j) => [3 * tiny, 4 * tiny][j]!))).toBe(5 * tiny);
  });
});

describe("cholesky and solve", () => {
  test("L L^T is A within (n + 4) 2^-53 sqrt(a_ii a_jj), entry by entry, also of graded matrices", () => {
    const { "condition 1e12": a, "condition up to 1e12": b, "graded up": c, "graded down": d } = semidefinite;
    let count = 0;
    for (const { name, A } of cases({ a: a!, b: b!, c: c!, d: d! }, 240, [30, 60])) {
      count++;
      const n = A.rows;
      const L = dense.cholesky(A);
      const LLt = times(L, flip(L));
      for (let i = 0; i < n; i++) {
        if (!(at(L, i, i) > 0)) expect.fail(`diagonal of L for ${name}`);
        for (let j = 0; j < n; j++) {
          if (j > i && at(L, i, j) !== 0) expect.fail(`L above the diagonal for ${name}`);
          // and as much again for the plain product that checks it
          const unit = (n + 4) * EPS * Math.sqrt(at(A, i, i)) * Math.sqrt(at(A, j, j));
          within(
            "cholesky |A - L L^T| / ((n + 4) eps sqrt(a_ii a_jj)) <= 1",
            1,
            Math.abs(at(LLt, i, j) - at(A, i, j)),
            unit,
            name,
          );
        }
      }
    }
    expect(count).toBe(240 + 8);
  });

  test("||B - A X|| <= 2 n 2^-52 (||A|| ||X|| + ||B||) for any condition up to 1e12", () => {
    const kinds = {
      random: (n: number) => random(n, n),
      "condition 1e12": (n: number) => times(columns(orthogonal(n), spread(n, 12)), orthogonal(n)),
      permuted: (n: number) => of(n, n, (i, j) => Number((i + 1) % n === j) * 10 ** (i - 3)),
    };
    let count = 0;
    for (const { name, A } of cases(kinds, 300)) {
      const B = random(A.rows, 1 + (count++ % 4));
      const X = dense.solve(A, B);
      const unit = A.rows * EPS * (norm(A) * norm(X) + norm(B));
      within(
        "solve ||B - A X|| / (n eps (||A|| ||X|| + ||B||)) <= 2",
        2,
        norm(minus(B, times(A, X))),
        unit,
        name,
      );
    }
    expect(count).toBe(300 + 8);
  });

  test("rows of very different sizes lose nothing: row scaling by powers of two changes no bit of X", () => {
    const A = random(8, 8);
    const B = random(8, 3);
    const d = [0, 300, -300, 7, -40, 900, -900, 1].map((e) => 2 ** e);
    const X = dense.solve(
      of(8, 8, (i, j) => at(A, i, j) * d[i]!),
      of(8, 3, (i, j) => at(B, i, j) * d[i]!),
    );
    expect(X).toEqual(dense.solve(A, B));
  });

  test("nine in ten matrices that only rounding keeps from being singular are refused; the others have condition > 1e13", () => {
    let refused = 0;
    for (let c = 0; c < 330; c++) {
      const n = 2 + (c % 11);
      const A = times(random(n, n - 1), random(n - 1, n));
      if (message(() => dense.inverse(A)).startsWith("range | inverse: expected an invertible matrix"))
        refused++;
      else expect(dense.condition(A)).toBeGreaterThan(1e13);
    }
    expect(refused).toBeGreaterThan(0.9 * 330);
    const A = of(3, 3, (i, j) => (3 * i + j + 1) / 10); // its last pivot is 1e-16, not 0
    expect(() => dense.inverse(A)).toThrow("inverse: expected an invertible matrix");
  });

  test("inverse times A is I", () => {
    for (const n of [1, 2, 5, 12]) {
      const A = random(n, n);
      const left = norm(minus(times(dense.inverse(A), A), one(n)));
      within(
        "inverse ||A^-1 A - I|| / (n eps condition) <= 2",
        2,
        left,
        n * EPS * dense.condition(A),
        `${n}`,
      );
    }
    expect(
      dense.inverse(
        of(
          2,
          2,
          (i, j) =>
            [
              [0, 2],
              [4, 0],
            ][i]![j]!,
        ),
      ).values,
    ).toEqual(Float64Array.of(0, 0.25, 0.5, 0));
  });
});

describe("roots and means", () => {
  test("sqrtSymmetric squares to A within 4 n 2^-52 ||A||, and is symmetric to the bit", () => {
    let count = 0;
    for (const { name, A } of cases(semidefinite, 270, [30, 60])) {
      count++;
      const S = dense.sqrtSymmetric(A);
      within(
        "sqrt ||S S - A|| / (n eps ||A||) <= 4",
        4,
        norm(minus(times(S, S), A)),
        A.rows * EPS * norm(A),
        name,
      );
      if (norm(minus(S, flip(S))) !== 0) expect.fail(`${name} is not symmetric`);
    }
    expect(count).toBe(270 + 2 * 9);
  });

  test("invSqrtSymmetric S has S A S = I within 8 n 2^-52 condition(A)", () => {
    const { "condition up to 1e12": a, "repeated eigenvalues": b } = semidefinite;
    let count = 0;
    for (const { name, A } of cases({ a: a!, b: b! }, 120, [30])) {
      count++;
      const S = dense.invSqrtSymmetric(A);
      const unit = A.rows * EPS * dense.condition(A);
      within(
        "invSqrt ||S A S - I|| / (n eps condition) <= 8",
        8,
        norm(minus(times(times(S, A), S), one(A.rows))),
        unit,
        name,
      );
    }
    expect(count).toBe(122);
  });

  test("invSqrtSymmetric takes what is ill-conditioned only by its scales", () => {
    const S = dense.invSqrtSymmetric(dense.diagonal([1e-200, 4, 1e200]));
    for (const [i, value] of [1e100, 0.5, 1e-100].entries())
      expect(Math.abs(at(S, i, i) / value - 1)).toBeLessThan(4 * EPS);
  });

  test("geometricMean M solves M Y M = X within 4 n 2^-52 ||M||^2 ||Y||, also where the condition of both is 1e10", () => {
    let count = 0;
    for (let n = 1; n <= 12; n++) {
      for (const digits of [0, 3, 6, 10]) {
        for (const scale of [1, 2 ** 500, 2 ** -500]) {
          count++;
          const X = columns(withEigenvalues(spread(n, digits)), new Array(n).fill(scale));
          const Y = withEigenvalues(spread(n, digits));
          const M = dense.geometricMean(X, Y);
          if (norm(minus(M, flip(M))) !== 0) expect.fail(`M for ${n} is not symmetric`);
          const error = norm(minus(times(times(M, Y), M), X));
          const unit = n * EPS * norm(M) * norm(Y) * norm(M);
          within(
            "mean ||M Y M - X|| / (n eps ||M||^2 ||Y||) <= 4",
            4,
            error,
            unit,
            `${n}, 1e${digits}, ${scale}`,
          );
        }
      }
    }
    expect(count).toBe(144);
  });

  test("geometricMean is Y^-1/2 (Y^1/2 X Y^1/2)^1/2 Y^-1/2, and sqrt(x / y) for numbers", () => {
    for (const n of [1, 2, 5, 9]) {
      const [X, Y] = [withEigenvalues(spread(n, 2)), withEigenvalues(spread(n, 2))];
      const [root, inverse] = [dense.sqrtSymmetric(Y), dense.invSqrtSymmetric(Y)];
      const inner = dense.sqrtSymmetric(mirrored(times(times(root, X), root)));
      const M = times(times(inverse, inner), inverse);
      expect(norm(minus(dense.geometricMean(X, Y), M)) / norm(M)).toBeLessThan(1e-11);
    }
    expect(at(dense.geometricMean(dense.diagonal([12]), dense.diagonal([3])), 0, 0)).toBeCloseTo(2, 14);
  });

  test("geometricMean balances a product: U M^1/2 and M^-1/2 W have one Gram matrix and the product U W", () => {
    // theory.md, section 8, with sigma2 = 0 and 2 gamma = 1: X_U = W W^T, X_W = U^T U
    const [U, W] = [random(6, 4), random(4, 5)];
    const M = dense.geometricMean(times(W, flip(W)), times(flip(U), U));
    const [U1, W1] = [times(U, dense.sqrtSymmetric(M)), times(dense.invSqrtSymmetric(M), W)];
    expect(norm(minus(times(flip(U1), U1), times(W1, flip(W1))))).toBeLessThan(1e-12);
    expect(norm(minus(times(U1, W1), times(U, W)))).toBeLessThan(1e-12);
  });

  test("geometricMean of a singular X is singular", () => {
    const M = dense.geometricMean(dense.diagonal([4, 0]), dense.diagonal([1, 9]));
    expect(M).toEqual(dense.diagonal([2, 0]));
  });
});

describe("products and sums", () => {
  test("matmul has the bits of the plain loop for every size and tail, transposed or not", () => {
    const { exports } = host.core;
    const region = host.arena.reserve("test", () => ({ bytes: 3 * 200 * 8 })).region;
    let count = 0;
    for (const m of [0, 1, 2, 3, 4, 5, 8, 9]) {
      for (const n of [0, 1, 2, 3, 4, 5]) {
        for (const k of [0, 1, 2, 3, 7, 16]) {
          const [A, B] = [random(m, k), random(k, n)];
          const expected = times(A, B);
          expect(dense.matmul(A, B)).toEqual(expected);
          const AAt = dense.matmul(A, flip(A));
          if (AAt.values.some((x, e) => x !== flip(AAt).values[e])) expect.fail(`A A^T of ${m} x ${k}`);
          for (const [transA, transB] of [
            [0, 1],
            [1, 0],
            [1, 1],
          ] as const) {
            const [c, a, b] = [region.base, region.base + 1600, region.base + 3200];
            const C = host.arena.doubles(c, 60).fill(7);
            host.arena.doubles(a, m * k).set((transA ? flip(A) : A).values);
            host.arena.doubles(b, k * n).set((transB ? flip(B) : B).values);
            exports.denseMatmul(c, a, b, m, n, k, transA, transB);
            if (C.subarray(0, m * n).some((x, e) => !Object.is(x, expected.values[e])))
              expect.fail(`${m} ${n} ${k}`);
            if (C.subarray(m * n).some((x) => x !== 7)) expect.fail(`wrote beyond ${m} x ${n}`);
            count++;
          }
        }
      }
    }
    host.arena.release(region);
    expect(count).toBe(8 * 6 * 6 * 3);
  });

  test("the rest does what it says", () => {
    const A = of(2, 3, (i, j) => 3 * i + j);
    expect(dense.transpose(A)).toEqual(of(3, 2, (i, j) => 3 * j + i));
    expect(dense.scale(A, -2).values).toEqual(Float64Array.of(-0, -2, -4, -6, -8, -10));
    expect(dense.add(A, A)).toEqual(dense.scale(A, 2));
    expect(dense.sub(dense.add(A, A), A)).toEqual(A);
    expect(dense.identity(2)).toEqual(one(2));
    expect(dense.trace(of(3, 3, (i, j) => 3 * i + j))).toBe(12);
    expect(dense.frobenius(of(1, 3, (_, j) => [2, 3, 6][j]!))).toBe(7);
    expect(dense.frobenius(of(1, 2, (_, j) => [3, 4][j]! * 2 ** 1000))).toBe(5 * 2 ** 1000);
    expect(dense.frobenius(of(1, 2, (_, j) => [3, 4][j]! * 2 ** -1060))).toBe(5 * 2 ** -1060);
    expect(dense.frobenius(of(2, 2, () => 0))).toBe(0);
  });

  test("matrices without rows or columns are matrices too", () => {
    const none = of(0, 0, () => 0);
    expect(dense.symmetricEigen(none)).toEqual({ values: new Float64Array(0), vectors: none });
    expect(dense.svd(of(3, 0, () => 0))).toEqual({ U: of(3, 0, () => 0), s: new Float64Array(0), V: none });
    expect(dense.qr(of(0, 2, () => 0))).toEqual({ Q: none, R: of(0, 2, () => 0) });
    for (const f of ["cholesky", "inverse", "sqrtSymmetric", "invSqrtSymmetric"] as const)
      expect(dense[f](none)).toEqual(none);
    expect(dense.geometricMean(none, none)).toEqual(none);
    expect(
      dense.matmul(
        of(2, 0, () => 0),
        of(0, 3, () => 0),
      ),
    ).toEqual(of(2, 3, () => 0));
    expect([dense.frobenius(none), dense.trace(none)]).toEqual([0, 0]);
  });
});

describe("every engine", () => {
  const everything = (d: Dense): unknown[] => {
    state = 7;
    return [1, 2, 3, 4, 5, 8, 11].flatMap((n) => {
      const [A, S, P] = [random(n + 2, n), mirrored(random(n, n)), withEigenvalues(spread(n, 3))];
      const Q = withEigenvalues(spread(n, 1));
      return [
        d.symmetricEigen(S),
        d.svd(A),
        d.svd(flip(A)),
        d.qr(A),
        d.cholesky(P),
        d.solve(S, Q),
        d.inverse(P),
      ].concat([
        d.sqrtSymmetric(P),
        d.invSqrtSymmetric(P),
        d.geometricMean(P, Q),
        d.matmul(A, S),
        d.frobenius(A),
      ] as never[]);
    });
  };

  test("gives the same bits, f64 or f32, again or anew, and after other work", async () => {
    const first = everything(dense);
    expect(everything(dense)).toEqual(first);
    expect(everything(new Dense(await hostOf("f32")))).toEqual(first);
    expect(everything(new Dense(await hostOf("f64")))).toEqual(first);
  });

  test("gives the bits written down here, from inputs that are exact on any host", () => {
    const A = of(7, 5, (i, j) => ((i * 37 + j * 101 + i * j * 13) % 64) / 8 - 3.5);
    const P = times(flip(A), A); // exact: small multiples of 1/64
    const { values, vectors } = dense.symmetricEigen(P);
    const { U, s, V } = dense.svd(A);
    const { Q, R } = dense.qr(A);
    const hash = createHash("sha256");
    const results = [
      vectors,
      U,
      V,
      Q,
      R,
      dense.cholesky(P),
      dense.inverse(P),
      dense.geometricMean(P, one(5)),
    ];
    for (const bits of [values, s, ...results.map((M) => M.values)]) hash.update(new Uint8Array(bits.buffer));
    expect(hash.digest("hex").slice(0, 16)).toBe("f4548537b881f656");
  });

  test("keeps inputs as they were and gives its memory back, also when it fails", () => {
    const before = host.arena.bytesInUse;
    const [A, P] = [random(5, 3), withEigenvalues([3, 2, 1])];
    const copies = [A, P].map((M) => M.values.slice());
    dense.svd(A);
    dense.qr(A);
    dense.symmetricEigen(P);
    dense.solve(P, P);
    dense.geometricMean(P, P);
    dense.matmul(A, P);
    expect(() => dense.inverse(of(3, 3, () => 1))).toThrow("invertible");
    expect([A, P].map((M) => M.values)).toEqual(copies);
    expect(host.arena.bytesInUse).toBe(before);
  });

  test("kernels write only their outputs and scratch, whatever the size", () => {
    const { exports } = host.core;
    const { region } = host.arena.reserve("test", () => ({ bytes: 65536 }));
    const GUARD = 3 * 2 ** 40;
    /** Calls with addresses of the arrays (inputs) and counts (outputs); says whether inputs and guards survived. */
    const isTidy = (
      parts: readonly (Float64Array | number)[],
      call: (...addresses: number[]) => unknown,
    ): boolean => {
      const all = host.arena.doubles(region.base, 8192).fill(GUARD);
      let at = 8;
      const places = parts.map((part) => {
        const place = at;
        if (typeof part !== "number") all.set(part, place);
        at += (typeof part === "number" ? part : part.length) + 5;
        return place;
      });
      const before = all.slice();
      call(...places.map((place) => region.base + 8 * place));
      for (const [i, part] of parts.entries()) {
        if (typeof part === "number") before.set(all.subarray(places[i]!, places[i]! + part), places[i]!);
      }
      return all.every((x, e) => Object.is(x, before[e]));
    };
    let count = 0;
    for (let m = 0; m <= 7; m++) {
      for (let n = 0; n <= 7; n++) {
        const k = Math.min(m, n);
        const A = random(m, n).values;
        const P = withEigenvalues(spread(n, 3)).values;
        const tidy = [
          isTidy([A, m * k, k, n * k, k * (m + n)], (a, u, s, v, w) =>
            exports.svd(a!, u!, s!, v!, m, n, w!, 60),
          ),
          isTidy([A, m * k, k * n, m * (n + k) + k], (a, q, r, w) => exports.qr(a!, q!, r!, m, n, w!)),
          isTidy([n * n, n * n, n], (a, v, w) => exports.symmetricEigen(a!, v!, w!, n, 60)),
          isTidy([P, n * n], (a, l) => exports.cholesky(a!, l!, n)),
          isTidy([P, A, n * m, n * (n + 1)], (a, b, x, w) => exports.solve(a!, b!, x!, n, m, w!)),
          isTidy([P, n * m], (u, x) => exports.solveUpper(u!, x!, n, m)),
          isTidy([A], (a) => exports.euclideanNorm(a!, m * n)),
        ];
        expect(tidy).toEqual(tidy.map(() => true));
        count++;
      }
    }
    host.arena.release(region);
    expect(count).toBe(64);
  });
});

describe("messages", () => {
  const of2 = (a: number, b: number, c: number, d: number): Matrix => ({
    rows: 2,
    cols: 2,
    values: Float64Array.of(a, b, c, d),
  });

  test("not a matrix, or of a wrong shape", () => {
    expect(message(() => dense.svd([[1]] as never))).toBe(
      "shape | svd: A must be a matrix { rows, cols, values }, got an array of 1.",
    );
    expect(message(() => dense.svd({ rows: 1.5, cols: 1, values: new Float64Array(1) }))).toBe(
      "shape | svd: A must be a matrix { rows, cols, values }, got an object with keys rows, cols, values.",
    );
    expect(message(() => dense.qr({ rows: 2, cols: 3, values: new Float64Array(5) }))).toBe(
      "shape | qr: A of shape [2, 3] must hold a Float64Array of 6 values, got Float64Array of 5 values.",
    );
    expect(message(() => dense.trace({ rows: 1, cols: 1, values: [1] as never }))).toBe(
      "shape | trace: A of shape [1, 1] must hold a Float64Array of 1 values, got [1].",
    );
    expect(message(() => dense.symmetricEigen(random(2, 3)))).toBe(
      "shape | symmetricEigen: A must be square, got [2, 3].",
    );
    expect(message(() => dense.matmul(random(2, 3), random(2, 3)))).toBe(
      "shape | matmul: B must have as many rows as A has columns, 3, got [2, 3].",
    );
    expect(message(() => dense.solve(one(2), random(3, 1)))).toBe(
      "shape | solve: B must have as many rows as A, 2, got [3, 1].",
    );
    expect(message(() => dense.add(one(2), one(3)))).toBe(
      "shape | add: B must be like A, [2, 2], got [3, 3].",
    );
    expect(message(() => dense.sub(one(2), one(3)))).toBe(
      "shape | sub: B must be like A, [2, 2], got [3, 3].",
    );
    expect(message(() => dense.geometricMean(one(2), one(3)))).toBe(
      "shape | geometricMean: Y must be like X, [2, 2], got [3, 3].",
    );
    expect(message(() => dense.identity(-1))).toBe(
      "range | identity: n must be an integer of at least 0, got -1.",
    );
  });

  test("not finite", () => {
    expect(message(() => dense.cholesky(of2(1, 0, Number.NaN, 1)))).toBe(
      "nonfinite | cholesky: every entry of A must be finite, got NaN at [1, 0].",
    );
    expect(message(() => dense.diagonal([1, Infinity]))).toBe(
      "nonfinite | diagonal: every entry of the matrix must be finite, got Infinity at [1, 1].",
    );
    expect(message(() => dense.scale(one(1), Number.NaN))).toBe(
      "nonfinite | scale: factor must be a finite number, got NaN.",
    );
    expect(message(() => dense.scale(of2(1, 2, 3, -1e300), 1e10))).toBe(
      "nonfinite | scale: the result must fit in f64, below 1.8e308, got -Infinity at [1, 1]. Scale the matrices.",
    );
    expect(message(() => dense.symmetricEigen(of2(1.5e308, 1.5e308, 1.5e308, 1.5e308)))).toBe(
      "nonfinite | symmetricEigen: the result must fit in f64, below 1.8e308, got Infinity at [0, 0]. Scale the matrices.",
    );
  });

  test("numbers that do not fit", () => {
    const A = dense.diagonal([1.5e308, 1.5e308]);
    expect(message(() => dense.frobenius(A))).toBe(
      "nonfinite | frobenius: the result must fit in f64, below 1.8e308, got Infinity. Scale the matrix.",
    );
    expect(message(() => dense.trace(A))).toBe(
      "nonfinite | trace: the result must fit in f64, below 1.8e308, got Infinity. Scale the matrix.",
    );
  });

  test("not symmetric: beyond 1e-10 of the largest entry; within, the mean is used", () => {
    expect(message(() => dense.symmetricEigen(of2(1, 1, 2, 1)))).toBe(
      "range | symmetricEigen: expected a symmetric matrix, got A[0, 1] = 1 and A[1, 0] = 2.",
    );
    expect(message(() => dense.geometricMean(one(2), of2(1, 0, 1e-9, 1)))).toBe(
      "range | geometricMean: expected a symmetric matrix, got Y[0, 1] = 0 and Y[1, 0] = 1e-9.",
    );
    const e = 2 ** -34; // 6e-11
    expect(dense.symmetricEigen(of2(1, 0, e, 1)).values).toEqual(Float64Array.of(1 + e / 2, 1 - e / 2));
  });

  test("not positive, or not invertible", () => {
    expect(message(() => dense.cholesky(of2(1, 2, 2, 1)))).toBe(
      "range | cholesky: expected a positive definite matrix, got one that is not: its leading 2 x 2 block has no positive determinant.",
    );
    expect(message(() => dense.sqrtSymmetric(of2(1, 2, 2, 1)))).toBe(
      "range | sqrtSymmetric: A must be positive semidefinite, got eigenvalue -1, and rounding explains -1.066e-14 at most.",
    );
    expect(message(() => dense.sqrtSymmetric(dense.diagonal([1, -4e-15])))).toMatch("eigenvalue -4e-15, and");
    expect(dense.sqrtSymmetric(dense.diagonal([1, -3e-15]))).toEqual(dense.diagonal([1, 0]));
    expect(message(() => dense.invSqrtSymmetric(of2(1, 1, 1, 1)))).toBe(
      "range | invSqrtSymmetric: A must be positive definite beyond rounding, got eigenvalues from 0 to 2. " +
        "Where a limit is meant, add a small multiple of the identity and watch the trend.",
    );
    expect(message(() => dense.geometricMean(one(2), of2(1, 1, 1, 1 + EPS)))).toMatch(
      "range | geometricMean: Y must be positive definite beyond rounding, got eigenvalues from ",
    );
    expect(message(() => dense.geometricMean(dense.diagonal([1, -1]), one(2)))).toMatch(
      "range | geometricMean: X must be positive semidefinite, got eigenvalue -1, and",
    );
    expect(message(() => dense.inverse(of(3, 3, (i, j) => 3 * i + j)))).toBe(
      "range | inverse: expected an invertible matrix, got one whose column 2 depends on those before it, to within " +
        "rounding. condition(A) says how near singular it is.",
    );
    expect(message(() => dense.solve(of2(0, 0, 0, 0), one(2)))).toMatch(
      "range | solve: expected an invertible matrix",
    );
  });

  test("rotations that do not end are a fault of ours and say so", () => {
    const stuck = { symmetricEigen: () => -1, svd: () => -1 } as unknown as CoreExports;
    const broken = new Dense({ ...host, core: { ...host.core, exports: stuck } });
    expect(message(() => broken.symmetricEigen(one(2)))).toBe(
      "internal | internal: symmetricEigen: 60 sweeps did not diagonalise a 2 x 2 matrix. Please report this with the model and options.",
    );
    expect(message(() => broken.svd(random(2, 3)))).toMatch(
      "svd: 60 sweeps did not diagonalise a 2 x 3 matrix",
    );
    // and the kernels do return -1
    const { region } = host.arena.reserve("test", () => ({ bytes: 4096 }));
    const [a, v, w, scratch] = [0, 512, 1024, 1536].map((offset) => region.base + offset) as [
      number,
      number,
      number,
      number,
    ];
    host.arena.doubles(a, 25).set(mirrored(random(5, 5)).values);
    expect(host.core.exports.svd(a, v, w, v, 5, 5, scratch, 2)).toBe(-1);
    expect(host.core.exports.symmetricEigen(a, v, w, 5, 2)).toBe(-1);
    host.arena.release(region);
  });
});

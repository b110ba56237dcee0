import { describe, expect, test } from "vitest";
import { keyOf, loadSeeder } from "../../src/core/key.ts";
import { type Eigenpair, extremes, topEigenvalues, tridiagonalEigen } from "../../src/stats/lanczos.ts";
import type { LinearOperator } from "../../src/stats/operator.ts";
import {
  type Explicit,
  eigenvaluesOf,
  explicit,
  hostOf,
  normal,
  operatorOf,
  spectra,
  uniform,
  withSpectrum,
} from "../helpers/spectra.ts";

const host = await hostOf("f64");
await loadSeeder();
const key = keyOf("test", "lanczos");
const EPS = 2 ** -52;

const scaleOf = (values: readonly number[]): number => Math.max(...values.map(Math.abs));
/** |A v - value v|, |v| and the value's distance from the spectrum, by plain loops. */
function audit(A: Explicit, { value, vector }: Eigenpair): { residual: number; length: number } {
  const image = operatorOf(A).apply(vector, 1);
  const sum = (xs: Float64Array) => Math.sqrt(xs.reduce((s, x) => s + x * x, 0));
  return { residual: sum(image.map((x, e) => x - value * vector[e]!)), length: sum(vector) };
}
const distance = (values: readonly number[], x: number): number =>
  Math.min(...values.map((y) => Math.abs(x - y)));
/** -1 / k^2 and 1 / k^2. */
const bothEnds = (n: number): number[] =>
  Array.from({ length: n }, (_, k) => (-1) ** k / (1 + (k >> 1)) ** 2);

const refusal = async (call: Promise<unknown>): Promise<string> =>
  call.then(
    () => "nothing was thrown",
    (error: { code?: string; message: string }) => `${error.code} | ${error.message}`,
  );

describe("tridiagonalEigen", () => {
  test("has the eigenvalues of ml-matrix and an orthonormal Z with T Z = Z D, within n 2^-52 ||T||", () => {
    for (const n of [1, 2, 3, 8, 33, 120]) {
      for (const family of [
        () => [normal(), normal()],
        () => [2, -1],
        () => [uniform() * 1e-9, uniform() < 0.3 ? 0 : normal()],
        () => [0, 1],
      ]) {
        const d = new Float64Array(n);
        const e = new Float64Array(n);
        for (let i = 0; i < n; i++) [d[i], e[i]] = family() as [number, number];
        const T = explicit(n, (i, j) => (i === j ? d[i]! : Math.abs(i - j) === 1 ? e[Math.min(i, j)]! : 0));
        const rows = Array.from({ length: n }, (_, i) => new Float64Array(n).fill(1, i, i + 1));
        const values = tridiagonalEigen(d.slice(), e.slice(), rows);
        const theirs = eigenvaluesOf(T);
        const unit = Math.max(4, n) * EPS * Math.max(scaleOf(theirs), 1e-300);
        for (let i = 0; i < n; i++) expect(Math.abs(values[i]! - theirs[i]!)).toBeLessThan(4 * unit);
        let [worst, skew] = [0, 0];
        for (let i = 0; i < n; i++) {
          for (let j = 0; j < n; j++) {
            let product = -values[j]! * rows[i]![j]!;
            for (let l = 0; l < n; l++) product += T.values[i * n + l]! * rows[l]![j]!;
            worst = Math.max(worst, Math.abs(product));
            const gram = rows.reduce((s, row) => s + row[i]! * row[j]!, i === j ? -1 : 0);
            skew = Math.max(skew, Math.abs(gram));
          }
        }
        expect(worst).toBeLessThan(4 * unit);
        expect(skew).toBeLessThan(4 * n * EPS);
      }
    }
  });

  test("of 2^e T has 2^e times the values and the same vectors, bit by bit", () => {
    const [d, e] = [Float64Array.from({ length: 9 }, normal), Float64Array.from({ length: 9 }, normal)];
    const solve = (scale: number) => {
      const row = new Float64Array(9).fill(1, 0, 1);
      return [
        tridiagonalEigen(
          d.map((x) => x * scale),
          e.map((x) => x * scale),
          [row],
        ).map((x) => x / scale),
        row,
      ];
    };
    for (const power of [-900, -1, 500, 1000]) expect(solve(2 ** power)).toEqual(solve(1));
  });
});

describe("extremes", () => {
  test.each([
    ["flat", spectra.flat],
    ["decaying", spectra.decaying],
    ["spike", spectra.spike],
    ["both ends", bothEnds],
    ["negative", (n: number) => spectra.flat(n).map((x) => -x)],
  ])("of a %s spectrum are those of ml-matrix, within the residual", async (_, spectrum) => {
    for (const n of [1, 2, 3, 10, 150]) {
      const A = withSpectrum(spectrum(n));
      const theirs = eigenvaluesOf(A);
      const scale = scaleOf(theirs);
      const op = operatorOf(A);
      const { max, min } = await extremes(host, op, { key });
      for (const [pair, value] of [
        [max, theirs[n - 1]!],
        [min, theirs[0]!],
      ] as const) {
        const rounding = 8 * Math.max(4, n) * EPS * scale;
        expect(pair.converged).toBe(true);
        expect(pair.residual).toBeLessThanOrEqual(1e-8 * scale);
        expect(Math.abs(pair.value - value)).toBeLessThanOrEqual(pair.residual + rounding);
        const { residual, length } = audit(A, pair);
        expect(residual).toBeLessThanOrEqual(pair.residual + rounding);
        expect(Math.abs(length - 1)).toBeLessThan(n * EPS + 4 * EPS);
        expect(Math.max(...pair.vector)).toBe(Math.max(...pair.vector.map(Math.abs)));
      }
      expect(op.products).toBe(max.steps + 2);
      expect(max.steps).toBeLessThanOrEqual(n);
    }
  });

  test("need few steps where the ends stand apart", async () => {
    const op = operatorOf(withSpectrum([-40, ...spectra.flat(198), 100]));
    const { max, min } = await extremes(host, op, { key, tolerance: 1e-10 });
    expect([max.value, min.value]).toEqual([expect.closeTo(100, 8), expect.closeTo(-40, 8)]);
    expect(op.products).toBeLessThan(20);
  });

  test("of invariant spaces are found at once: zero, identity, two values, a projector of rank 1", async () => {
    const n = 60;
    const two = (count: number, high: number, low: number) =>
      withSpectrum(Array.from({ length: n }, (_, k) => (k < count ? high : low)));
    const cases: [Explicit, number, number, number][] = [
      [explicit(n, () => 0), 0, 0, 1],
      [explicit(n, (i, j) => (i === j ? 3 : 0)), 3, 3, 1],
      [explicit(n, (i, j) => (i === j ? (i < 30 ? -7 : 2) : 0)), 2, -7, 2],
      [explicit(n, () => 1), n, 0, 2],
      [two(30, 5, 1), 5, 1, 4],
      [two(1, 1e6, 1e-3), 1e6, 1e-3, 4],
      [two(59, 1, -1), 1, -1, 4],
      [explicit(1, () => -2), -2, -2, 1],
    ];
    for (const [A, high, low, steps] of cases) {
      const { max, min } = await extremes(host, operatorOf(A), { key });
      const rounding = 200 * EPS * Math.max(Math.abs(high), Math.abs(low));
      expect(Math.abs(max.value - high)).toBeLessThanOrEqual(rounding);
      expect(Math.abs(min.value - low)).toBeLessThanOrEqual(rounding);
      expect(max.steps).toBeLessThanOrEqual(steps);
      expect(max.converged && min.converged).toBe(true);
    }
  });

  test("of 1e+-200 A are 1e+-200 times as large", async () => {
    const A = withSpectrum(bothEnds(40));
    const whole = await extremes(host, operatorOf(A), { key });
    for (const scale of [1e200, 1e-200]) {
      const scaled = explicit(40, (i, j) => scale * A.values[i * 40 + j]!);
      const { max, min } = await extremes(host, operatorOf(scaled), { key });
      expect(Math.abs(max.value / scale - whole.max.value)).toBeLessThan(1e-13);
      expect(Math.abs(min.value / scale - whole.min.value)).toBeLessThan(1e-13);
    }
  });

  test("that maxSteps cuts short say so, and their residual still holds an eigenvalue", async () => {
    const A = withSpectrum(spectra.flat(100));
    const theirs = eigenvaluesOf(A);
    for (const maxSteps of [1, 2, 5, 12]) {
      const { max, min } = await extremes(host, operatorOf(A), { key, maxSteps });
      for (const pair of [max, min]) {
        expect([pair.converged, pair.steps]).toEqual([false, maxSteps]);
        expect(distance(theirs, pair.value)).toBeLessThanOrEqual(pair.residual);
        expect(pair.residual).toBeLessThan(0.5);
      }
    }
  });

  test("measure the residual: noise in the products shows in it", async () => {
    const exact = operatorOf(withSpectrum(spectra.spike(100)));
    const noisy = { ...exact, apply: (v: Float64Array, c: number) => exact.apply(v, c).map(Math.fround) };
    const { max } = await extremes(host, noisy, { key, tolerance: 1e-5 });
    expect(max.residual).toBeGreaterThan(1e-7);
    expect(max.residual).toBeLessThan(1e-4);
    expect(Math.abs(max.value - 100)).toBeLessThan(1e-5);
    expect(max.converged).toBe(true);
    expect((await extremes(host, noisy, { key, tolerance: 1e-12 })).max.converged).toBe(false);
  });

  test("are the same again, and with another key within the residuals", async () => {
    const op = operatorOf(withSpectrum(spectra.decaying(80)));
    const first = await extremes(host, op, { key });
    expect(await extremes(host, operatorOf(withSpectrum([1])), { key })).toBeDefined();
    expect(await extremes(host, op, { key })).toEqual(first);
    const other = await extremes(host, op, { key: { key0: 1, key1: 2 } });
    expect(other.max.value).not.toBe(first.max.value);
    expect(Math.abs(other.max.value - first.max.value)).toBeLessThan(1e-8);
    expect(host.arena.bytesInUse).toBe(0);
  });
});

describe("topEigenvalues", () => {
  const check = async (
    A: Explicit,
    k: number,
    wanted: readonly number[],
    tolerance = 1e-8,
  ): Promise<Eigenpair[]> => {
    const pairs = await topEigenvalues(host, operatorOf(A), k, { key, tolerance });
    const allowed = 2 * tolerance * Math.max(1e-300, scaleOf(wanted));
    expect(pairs.map(({ value }) => value)).toEqual(
      wanted.map((value) => expect.toSatisfy((x: number) => Math.abs(x - value) <= allowed, `near ${value}`)),
    );
    for (const [i, pair] of pairs.entries()) {
      expect(pair.converged).toBe(true);
      expect(audit(A, pair).residual).toBeLessThanOrEqual(pair.residual + 1e-12 * scaleOf(wanted));
      for (const other of pairs.slice(0, i)) {
        const overlap = other.vector.reduce((sum, x, e) => sum + x * pair.vector[e]!, 0);
        expect(Math.abs(overlap)).toBeLessThan(1e-12);
      }
    }
    return pairs;
  };

  test.each(["flat", "decaying", "spike"] as const)(
    "of a %s spectrum are those of ml-matrix",
    async (name) => {
      const A = withSpectrum(spectra[name](120));
      const theirs = eigenvaluesOf(A).reverse();
      for (const k of [1, 2, 7]) await check(A, k, theirs.slice(0, k));
    },
  );

  test("come as often as their multiplicity", async () => {
    const n = 100;
    const fill = (...tops: number[]) => withSpectrum([...tops, ...spectra.flat(n - tops.length)]);
    await check(fill(9, 9, 7, 7, 7, 5), 6, [9, 9, 7, 7, 7, 5]);
    await check(fill(9, 9, 7, 7, 7, 5), 3, [9, 9, 7]);
    await check(fill(9, 8, 7, 7, 7, 7), 4, [9, 8, 7, 7]);
    await check(fill(9, 9, 9, 9, 9, 9), 2, [9, 9]);
    await check(fill(9, 9 + 1e-6, 8), 3, [9 + 1e-6, 9, 8]);
  });

  test("of zero, identity and low rank, up to all of them", async () => {
    await check(
      explicit(30, () => 0),
      4,
      [0, 0, 0, 0],
    );
    await check(
      explicit(30, (i, j) => (i === j ? 1 : 0)),
      30,
      new Array(30).fill(1),
    );
    await check(withSpectrum([3, 2, 2, 0, 0, 0, 0, 0]), 8, [3, 2, 2, 0, 0, 0, 0, 0]);
    await check(withSpectrum([-1, -1, -2, -4]), 3, [-1, -1, -2]);
    await check(
      explicit(1, () => 4),
      1,
      [4],
    );
    const A = withSpectrum(spectra.flat(25));
    await check(A, 25, eigenvaluesOf(A).reverse());
  });

  test("that maxSteps cuts short say so", async () => {
    const pairs = await topEigenvalues(host, operatorOf(withSpectrum(spectra.flat(100))), 3, {
      key,
      maxSteps: 6,
    });
    expect(pairs).toHaveLength(3);
    expect(pairs.some((pair) => pair.converged)).toBe(false);
  });
});

describe("both", () => {
  const A = withSpectrum(spectra.flat(90));
  const calls = {
    extremes: (op: LinearOperator, more: object) => extremes(host, op, { key, ...more }),
    topEigenvalues: (op: LinearOperator, more: object) => topEigenvalues(host, op, 3, { key, ...more }),
  };

  test("report progress up to its end, and stop for an abort with its reason", async () => {
    for (const call of Object.values(calls)) {
      const seen: { done: number; total: number }[] = [];
      await call(operatorOf(A), { onProgress: (p: { done: number; total: number }) => seen.push(p) });
      expect(seen.at(-1)!.done).toBe(seen.at(-1)!.total);
      expect(seen.every((p, i) => p.done <= p.total && (i === 0 || p.done > seen[i - 1]!.done))).toBe(true);
      expect(
        await refusal(call(operatorOf(A), { signal: AbortSignal.abort(new Error("before")) })),
      ).toContain("before");
      const controller = new AbortController();
      const op = operatorOf(A);
      const onProgress = ({ done }: { done: number }) => {
        if (done === 4) controller.abort(new Error("by progress"));
      };
      expect(await refusal(call(op, { signal: controller.signal, onProgress }))).toContain("by progress");
      expect(op.products).toBe(4);
    }
  });

  test("refuse what is not finite, and options out of range", async () => {
    for (const [name, call] of Object.entries(calls)) {
      let count = 0;
      const op: LinearOperator = {
        size: 5,
        width: 1,
        apply: (v) => v.map((x, e) => (++count > 12 ? Number.NaN : (e + 1) * x)),
      };
      expect(await refusal(call(op, {}))).toBe(
        `nonfinite | ${name}: every product with the operator must be finite, got NaN in entry 2.`,
      );
      expect(await refusal(call(operatorOf(A), { tolerance: -1 }))).toBe(
        `range | ${name}: tolerance must be a finite number of at least 0, got -1.`,
      );
      expect(await refusal(call(operatorOf(A), { maxSteps: 0 }))).toBe(
        `range | ${name}: maxSteps must be an integer of at least ${name === "extremes" ? 1 : 3}, got 0.`,
      );
    }
    expect(await refusal(topEigenvalues(host, operatorOf(A), 91, { key }))).toBe(
      "range | topEigenvalues: k must be an integer in [1, size = 90], got 91.",
    );
  });
});

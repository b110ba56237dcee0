import { describe, expect, test } from "vitest";
import {
  arctan,
  binaryExponent,
  exp,
  expExponent,
  expMantissa,
  log,
  timesPowerOfTwo,
} from "../../src/core/elementary.ts";
import { loadKernels, values } from "../helpers/kernels.ts";
import * as precise from "../reference/precise.ts";

/** A plain generator of numbers in [0, 1) (Numerical Recipes' 32-bit LCG). */
function uniforms(seed: number): () => number {
  let state = seed >>> 0;
  const next = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state;
  };
  return () => ((next() >>> 5) * 2 ** 26 + (next() >>> 6)) / 2 ** 53;
}

const draw = uniforms(1);
const between = (low: number, high: number, count: number) =>
  Array.from({ length: count }, () => low + (high - low) * draw());

const exponents = [
  ...[0, -0, 1, -1, 708, -708, 709.78, -745.13, -745.14, 1e-300, -1e-17],
  ...between(-1, 1, 300),
  ...between(-30, 30, 300),
  ...between(-746, 709.7, 500),
  ...between(-746, -700, 200),
];
const positives = [
  ...[
    1,
    2,
    0.5,
    Math.SQRT1_2,
    Math.SQRT2,
    1 + 2 ** -52,
    1 - 2 ** -53,
    5e-324,
    2 ** -1022,
    1.7976931348623157e308,
  ],
  ...between(0.5, 2, 400),
  ...between(0, 1000, 200),
  ...between(-323, 308.2, 500).map((e) => 10 ** e),
  ...between(-323.5, -307.5, 200).map((e) => 10 ** e),
];

const worst = (points: readonly number[], got: (x: number) => number, oracle: (x: number) => precise.Big) =>
  points.reduce((most, x) => Math.max(most, precise.ulps(got(x), oracle(x))), 0);

/** arctan x for 0 <= x <= 1 by Euler's series of positive terms, in BigInt. */
function arctanOf(x: number): precise.Big {
  const width = 256n;
  const { m, s } = precise.fromDouble(x);
  const X = s + 256 >= 0 ? m << BigInt(s + 256) : m >> BigInt(-s - 256);
  const ratio = ((X * X) << width) / ((1n << (2n * width)) + X * X);
  let term = (X << (2n * width)) / ((1n << (2n * width)) + X * X);
  term = (term * (1n << width)) >> width;
  let sum = 0n;
  for (let n = 1n; term !== 0n; n++) {
    sum += term;
    term = (((term * ratio) >> width) * (2n * n)) / (2n * n + 1n);
  }
  return { m: sum, s: -256 };
}

describe("elementary functions of TypeScript", () => {
  test("exp is within 1 ulp, 1511 points of all ranges", () => {
    expect(worst(exponents, exp, precise.exp)).toBeLessThan(1);
  });
  test("log is within 0.9 ulp, 1310 points of all ranges", () => {
    expect(worst(positives, log, precise.log)).toBeLessThan(0.9);
  });
  test("arctan is within 4 ulp on [0, 1], and odd, and pi/2 - arctan(1/x) beyond", () => {
    const points = [...between(0, 1, 400), ...between(-8, 0, 100).map((e) => 10 ** e), 1];
    expect(worst(points, arctan, arctanOf)).toBeLessThan(4);
    for (const x of between(1, 100, 50)) {
      expect(arctan(-x)).toBe(-arctan(x));
      expect(Math.abs(arctan(x) - Math.atan(x))).toBeLessThan(4e-16);
    }
    expect([arctan(0), arctan(Infinity), arctan(-Infinity)]).toEqual([0, Math.PI / 2, -Math.PI / 2]);
    expect(arctan(Number.NaN)).toBeNaN();
  });
  test("special cases", () => {
    expect([Infinity, 710, -746, -Infinity, Number.NaN].map(exp)).toEqual([
      Infinity,
      Infinity,
      0,
      0,
      Number.NaN,
    ]);
    expect([0, -0, -1, Infinity, Number.NaN].map(log)).toEqual([
      -Infinity,
      -Infinity,
      Number.NaN,
      Infinity,
      Number.NaN,
    ]);
    expect([exp(0), log(1)]).toEqual([1, 0]);
  });
  test("timesPowerOfTwo rounds once, also into the denormals, and binaryExponent undoes it", () => {
    for (const x of [1, 1.5, -Math.PI, 2 ** -1000 * 1.1, 1.7976931348623157e308, 5e-324, 2 ** -1060 * 1.3]) {
      for (const k of [0, 1, -1, 52, -53, 1000, -1023, -1060, -1074, -1075, 1074, 2098, -2098, 1e15, -1e15]) {
        const { m, s } = precise.fromDouble(x);
        const limited = Math.max(-4000, Math.min(4000, k));
        expect(Math.abs(timesPowerOfTwo(x, k))).toBe(Math.abs(precise.rounded({ m, s: s + limited })));
      }
      if (x > 0) {
        const e = binaryExponent(x);
        const mantissa = timesPowerOfTwo(x, -e);
        expect(mantissa).toBeGreaterThanOrEqual(1);
        expect(mantissa).toBeLessThan(2);
      }
    }
    expect([timesPowerOfTwo(0, 5000), timesPowerOfTwo(1, Infinity), timesPowerOfTwo(1, -Infinity)]).toEqual([
      0,
      Infinity,
      0,
    ]);
  });
  test("e^x = expMantissa 2^expExponent beyond the range of numbers, within 1 ulp for |x| < 1e6", () => {
    for (const x of [...between(-1e6, 1e6, 200), ...between(-5000, 5000, 200)]) {
      const k = expExponent(x);
      const { m, s } = precise.exp(x);
      const mantissa = expMantissa(x, k);
      expect(precise.ulps(mantissa, { m, s: s - k })).toBeLessThan(1);
      expect(mantissa).toBeGreaterThan(0.7);
      expect(mantissa).toBeLessThan(1.42);
    }
  });
  test.each([
    ["exp", exp, [...exponents, 710, -746, Infinity, -Infinity]],
    ["log", log, [...positives, 0, Infinity]],
  ] as const)("%s has the bits of the f64 kernel", async (name, own, points) => {
    const kernels = await loadKernels("f64");
    const { exports, base } = kernels;
    const [from, to] = [base, base + 8 * (points.length + 2)];
    const a = values(kernels, "f64", from, points.length);
    a.set(points);
    exports[name]!(to, from, points.length);
    expect(points.map(own)).toEqual([...values(kernels, "f64", to, points.length)]);
  });
});

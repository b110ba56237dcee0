import { describe, expect, it } from "vitest";
import { arrayOf, difference, dtypes, lanesOf, runGuarded, someValues } from "../helpers/guarded.ts";
import { loadKernels } from "../helpers/kernels.ts";
import * as reference from "../reference/kernels.ts";

type Values = reference.Values;
const plainLoops = { ...reference } as unknown as Record<string, (...args: unknown[]) => void>;

describe.each(dtypes)("%s", async (dtype) => {
  const kernels = await loadKernels(dtype);
  const call = kernels.exports as unknown as Record<string, (...args: number[]) => void>;
  const LANES = lanesOf(dtype);
  const u = dtype === "f64" ? 2 ** -53 : 2 ** -24;
  const array = (values: number[]): Values => new (arrayOf(dtype))(values);
  const nans = (n: number): Values => new (arrayOf(dtype))(n).fill(Number.NaN);

  const run = (name: keyof typeof reference, arrays: Values[], sizes: number[], offsets?: number[]): Values =>
    runGuarded(kernels, (...addresses) => call[name]!(...addresses, ...sizes), arrays, offsets);

  const oracle = (name: keyof typeof reference, [dst, a]: [Values, Values], sizes: number[]): Values => {
    const expected = dst.slice();
    plainLoops[name]!(expected, a, ...sizes);
    return expected;
  };

  /** Fails if the kernel and the plain loops give different bits. */
  const expectSameBits = (
    name: keyof typeof reference,
    arrays: [Values, Values],
    sizes: number[],
    offsets: number[] = [],
  ): void => {
    const found = difference(run(name, arrays, sizes, offsets), oracle(name, arrays, sizes));
    if (found) expect.fail(`${name}(${sizes.join(", ")}) at offsets [${offsets.join(", ")}] ${found}`);
  };

  const widths = [0, 1, LANES - 1, LANES, LANES + 1, 4 * LANES, 8 * LANES, 11 * LANES + (LANES - 1)];

  it("sumAxis adds one axis in ascending order, for any shape and address", () => {
    let cases = 0;
    for (const outer of [0, 1, 2, 3, 4, 9]) {
      for (const count of [0, 1, 2, 3, 8, 17]) {
        for (const inner of widths) {
          const a = someValues(dtype, outer * count * inner, 1);
          const offsets = [cases % 2, (cases >> 1) % 2];
          ++cases;
          expectSameBits("sumAxis", [nans(outer * inner), a], [outer, count, inner], offsets);
        }
      }
    }
    expect(cases).toBe(6 * 6 * widths.length);
  });

  const elementCounts = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 31, 32, 33, 100];

  for (const name of ["sumAll", "sumSquares"] as const) {
    it(`${name} adds by the tree of eight partial sums, for uniform and for laned values`, () => {
      let cases = 0;
      for (const elements of elementCounts) {
        for (const ld of [1, LANES, 2 * LANES, 5 * LANES]) {
          const a = someValues(dtype, elements * ld, elements);
          expectSameBits(name, [nans(ld), a], [elements, ld], ld === 1 ? [cases % 2, (cases >> 2) % 2] : []);
          ++cases;
        }
      }
      expect(cases).toBe(elementCounts.length * 4);
    });

    it(`${name} of a lane has the bits of ${name} of the same elements alone`, () => {
      for (const elements of elementCounts) {
        const ld = 3 * LANES;
        const a = someValues(dtype, elements * ld, elements);
        const together = run(name, [nans(ld), a], [elements, ld]);
        for (let l = 0; l < ld; ++l) {
          const alone = run(name, [nans(1), a.filter((_, i) => i % ld === l)], [elements, 1]);
          expect(alone[0]).toBe(together[l]);
        }
      }
    });
  }

  it("batchSum adds the real lanes to dst in ascending order and leaves the pad lanes out", () => {
    let cases = 0;
    for (const elements of [0, 1, 2, 3, 4, 5, 7, 8, 9, 16, 23]) {
      for (const lanes of [0, 1, 2, 3, 4, 5, 7, 8, 9, 17]) {
        for (const spare of [0, LANES]) {
          const ld = Math.ceil(lanes / LANES) * LANES + spare;
          const a = someValues(dtype, elements * ld, lanes);
          const dst = someValues(dtype, elements, 5);
          expectSameBits("batchSum", [dst, a], [elements, lanes, ld], [cases++ % 2]);
        }
      }
    }
    expect(cases).toBe(11 * 10 * 2);
  });

  it("batchSumLaned adds every lane to its own", () => {
    for (const registers of [0, 1, 3, 4, 5, 8, 11]) {
      const n = registers * LANES;
      expectSameBits("batchSumLaned", [someValues(dtype, n, 1), someValues(dtype, n, 2)], [n]);
    }
    expect(LANES).toBeGreaterThan(1);
  });

  const shapes: [number, number, number][] = [];
  for (const outer of [0, 1, 3]) {
    for (const count of [1, 2, 3, 10, 33]) {
      for (const inner of widths) shapes.push([outer, count, inner]);
    }
  }
  /** Columns of values in [-20, 20]: nothing underflows, and the largest of them lies anywhere. */
  const columns = (n: number): Values => someValues(dtype, n, 9).map((x) => (x * 17) % 20);
  /** Rounded differences to the maximum (at most 40), the exponentials of both sides, two sums, a quotient. */
  const relativeBound = (count: number): number => (40 + 2 * count + 10) * u;

  it("softmax is right within (50 + 2 count) u of each result", () => {
    for (const [outer, count, inner] of shapes) {
      const a = columns(outer * count * inner);
      const actual = run("softmax", [nans(a.length), a], [outer, count, inner], [1]);
      const exact = new Float64Array(a.length);
      reference.softmax(exact, a, outer, count, inner);
      actual.forEach((x, i) => {
        const expected = exact[i] as number;
        const error = Math.abs(x - expected) / (relativeBound(count) * expected);
        if (!(error <= 1)) {
          expect.fail(
            `softmax(${outer}, ${count}, ${inner}) at ${i}: ${x}, not ${expected}: ${error} bounds`,
          );
        }
      });
    }
    expect(shapes.length).toBe(3 * 5 * widths.length);
  });

  it("logsumexp is right within (50 + 2 count) u of 1, and 4 u of the result and its maximum", () => {
    for (const [outer, count, inner] of shapes) {
      const a = columns(outer * count * inner);
      const actual = run("logsumexp", [nans(outer * inner), a], [outer, count, inner], [1]);
      const exact = new Float64Array(outer * inner);
      reference.logsumexp(exact, a, outer, count, inner);
      actual.forEach((x, i) => {
        const expected = exact[i] as number;
        // |max| <= |result| + log(count)
        const bound = relativeBound(count) + 4 * u * (Math.abs(expected) + Math.log(count));
        const error = Math.abs(x - expected) / bound;
        if (!(error <= 1)) {
          expect.fail(
            `logsumexp(${outer}, ${count}, ${inner}) at ${i}: ${x}, not ${expected}: ${error} bounds`,
          );
        }
      });
    }
    expect(shapes.length).toBe(3 * 5 * widths.length);
  });

  for (const name of ["softmax", "logsumexp"] as const) {
    it(`${name} of a column has the same bits among others and alone`, () => {
      const [outer, count, inner] = [2, 7, 2 * LANES + (LANES - 1)] as [number, number, number];
      // One column reaches the range where exp underflows: its neighbours must not see it.
      const a = columns(outer * count * inner).map((x, at) => (at % inner === 1 ? x * 40 : x));
      const rows = name === "softmax" ? count : 1;
      const together = run(name, [nans(outer * rows * inner), a], [outer, count, inner]);
      for (let i = 0; i < inner; ++i) {
        const column = a.filter((_, at) => at % inner === i);
        const alone = run(name, [nans(outer * rows), column], [outer, count, 1]);
        const part = together.filter((_, at) => at % inner === i);
        expect(difference(alone, part), `column ${i}`).toBe("");
      }
    });
  }

  it("softmax works in place", () => {
    for (const [outer, count, inner] of shapes) {
      const a = columns(outer * count * inner);
      const inPlace = runGuarded(
        kernels,
        (dst) => call.softmax!(dst as number, dst as number, outer, count, inner),
        [a],
      );
      const apart = run("softmax", [nans(a.length), a], [outer, count, inner]);
      if (difference(inPlace, apart)) expect.fail(`softmax(${outer}, ${count}, ${inner}) in place differs`);
    }
    expect(shapes.length).toBeGreaterThan(0);
  });

  const { NaN: nan, POSITIVE_INFINITY: inf, NEGATIVE_INFINITY: minusInf } = Number;

  it.each([
    ["NaN first", [nan, 1, 2], [nan, nan, nan], nan],
    ["NaN last", [1, 2, nan], [nan, nan, nan], nan],
    ["NaN beside -Inf", [minusInf, nan, minusInf], [nan, nan, nan], nan],
    ["NaN beside +Inf", [inf, nan, 0], [nan, nan, nan], nan],
    ["+Inf", [0, inf, 1], [nan, nan, nan], nan],
    ["nothing but -Inf", [minusInf, minusInf, minusInf], [nan, nan, nan], minusInf],
    ["-Inf beside a number", [minusInf, 3, minusInf], [0, 1, 0], 3],
    ["numbers whose exponentials overflow", [1e30, minusInf, -1e30], [1, 0, 0], 1e30],
    ["signed zeros", [-0, minusInf, minusInf], [1, 0, 0], 0],
  ])("softmax and logsumexp of %s: %j", (_, terms, shares, total) => {
    for (const inner of [1, LANES - 1, LANES, 2 * LANES + 1]) {
      // The special column stands at `place`, the others are [1, 1, 1] and must not notice it.
      for (let place = 0; place < inner; ++place) {
        const a = array(terms.flatMap((x) => Array.from({ length: inner }, (_, i) => (i === place ? x : 1))));
        const soft = run("softmax", [nans(3 * inner), a], [1, 3, inner]);
        const logs = run("logsumexp", [nans(inner), a], [1, 3, inner]);
        expect([...soft.filter((_, at) => at % inner === place)]).toEqual(shares);
        expect(logs[place]).toBe(arrayOf(dtype).of(total)[0]);
        if (inner > 1) {
          const other = (place + 1) % inner;
          expect(soft[other]).toBe(arrayOf(dtype).of(1 / 3)[0]);
          expect(logs[other]).toBeCloseTo(1 + Math.log(3), 6);
        }
      }
    }
  });

  it("an empty sum is +0, an empty logsumexp -Inf, and an empty softmax nothing", () => {
    const n = LANES + 1;
    const empty = array([]);
    expect(difference(run("sumAxis", [nans(n), empty], [1, 0, n]), array(Array(n).fill(0)))).toBe("");
    expect(difference(run("logsumexp", [nans(n), empty], [1, 0, n]), array(Array(n).fill(minusInf)))).toBe(
      "",
    );
    expect(run("softmax", [empty, empty], [1, 0, n])).toHaveLength(0);
  });
});

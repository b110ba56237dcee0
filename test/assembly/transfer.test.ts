import { describe, expect, it } from "vitest";
import { arrayOf, difference, dtypes, GUARD, lanesOf, runGuarded, someValues } from "../helpers/guarded.ts";
import { loadKernels } from "../helpers/kernels.ts";
import * as reference from "../reference/kernels.ts";

describe.each(dtypes)("%s", async (dtype) => {
  const kernels = await loadKernels(dtype);
  const copyRows = kernels.exports.copyRows!;
  const LANES = lanesOf(dtype);
  const widths = [0, 1, LANES - 1, LANES, LANES + 1, 3 * LANES, 4 * LANES, 4 * LANES + 1, 11 * LANES - 1];

  it("copyRows copies n values a row and leaves all others, for any stride and address", () => {
    let cases = 0;
    for (const rows of [0, 1, 2, 5]) {
      for (const n of widths) {
        for (const [gapD, gapA] of [
          [0, 0],
          [1, 0],
          [0, 3],
          [2 * LANES + 1, 1],
          [2, -n],
        ] as [number, number][]) {
          const [strideD, strideA] = [n + gapD, n + gapA];
          const a = someValues(dtype, strideA === 0 ? n : rows * strideA, 1 + n);
          const guards = someValues(dtype, rows * strideD, 3, [n, strideD]);
          const dst = guards.map((x) => (x === GUARD ? GUARD : Number.NaN));
          const offsets = [cases % 2, (cases >> 1) % 2];
          ++cases;
          const expected = dst.slice();
          reference.copyRows(expected, a, rows, n, strideD, strideA);
          const sizes = [rows, n, strideD, strideA] as const;
          const actual = runGuarded(kernels, (d, from) => copyRows(d!, from!, ...sizes), [dst, a], offsets);
          const found = difference(actual, expected);
          if (found) expect.fail(`copyRows(${sizes.join(", ")}) at offsets [${offsets.join(", ")}] ${found}`);
        }
      }
    }
    expect(cases).toBe(4 * widths.length * 5);
  });

  it("copyRows keeps the bits of every NaN", () => {
    const n = 5 * LANES + 1;
    const bits = new Uint8Array(n * arrayOf(dtype).BYTES_PER_ELEMENT).map((_, i) => 0xff - (i % 3));
    const { buffer } = kernels.memory;
    const [dst, a] = [kernels.base, kernels.base + 1024] as [number, number];
    new Uint8Array(buffer, a, bits.length).set(bits);
    copyRows(dst, a, 1, n, n, n);
    expect(new Uint8Array(buffer, dst, bits.length)).toEqual(bits);
  });

  it("copyRows reads nothing past the last row: that may be the end of the memory", () => {
    const size = arrayOf(dtype).BYTES_PER_ELEMENT;
    for (const n of widths) {
      const a = kernels.memory.buffer.byteLength - (3 * (n + 1) - 1) * size;
      expect(() => copyRows(kernels.base, a, 3, n, n, n + 1)).not.toThrow();
    }
  });
});

import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { beforeAll, describe, expect, it } from "vitest";
import { arrayOf, difference, dtypes, GUARD, lanesOf, runGuarded, someValues } from "../helpers/guarded.ts";
import { loadKernels } from "../helpers/kernels.ts";
import { allowRelaxedSimd } from "../helpers/relaxed.ts";
import * as reference from "../reference/kernels.ts";

type Values = reference.Values;
const plainLoops = { ...reference } as unknown as Record<string, (...args: unknown[]) => void>;

const root = new URL("../../", import.meta.url);

allowRelaxedSimd();
const builds = dtypes.flatMap((dtype) => (["simd", "fma"] as const).map((variant) => ({ dtype, variant })));

describe.each(builds)("$dtype $variant", async ({ dtype, variant }) => {
  beforeAll(() => reference.fuseProducts(variant === "fma"));
  const kernels = await loadKernels(dtype, 16, variant);
  const call = kernels.exports as unknown as Record<string, (...args: number[]) => void>;
  const LANES = lanesOf(dtype);

  /** [m][n] of NaN, or of values where a product is added to them, with `gap` guards after each row. */
  const target = (m: number, n: number, gap: number, accumulate: number): Values => {
    const dst = someValues(dtype, m * (n + gap), 3 + n, [n, n + gap]);
    return accumulate ? dst : dst.map((x) => (x === GUARD ? GUARD : Number.NaN));
  };

  /** Runs `name` on Wasm and on plain arrays; says where they differ, with the arguments, or "". */
  const compare = (
    name: keyof typeof reference,
    arrays: [Values, ...Values[]],
    sizes: number[],
    offsets: number[] = [],
  ): string => {
    const [dst, ...operands] = arrays;
    const actual = runGuarded(
      kernels,
      (...addresses) => call[name]!(...addresses, ...sizes),
      arrays,
      offsets,
    );
    const expected = dst.slice();
    plainLoops[name]!(expected, ...operands, ...sizes);
    const found = difference(actual, expected);
    return found && `${name}(${sizes.join(", ")}) at offsets [${offsets.join(", ")}] ${found}`;
  };

  // Two tiles of every height and width, and all the tails after them.
  const heights = [0, 1, 2, 3, 4, 5, 8, 11];
  const widths = [0, 1, LANES - 1, LANES, LANES + 1, 3 * LANES + 1, 8 * LANES, 11 * LANES + (LANES - 1)];
  const depths = [0, 1, 2, 3, 9, 18];

  for (const name of ["matmulNN", "matmulTN"] as const) {
    it(`${name} has the bits of the triple loop for every tile and tail, at any address`, () => {
      let cases = 0;
      for (const m of heights) {
        for (const n of widths) {
          for (const k of depths) {
            for (const accumulate of [0, 1]) {
              const [gapD, gapA, gapB] = [cases % 3, cases % 2, (cases >> 1) % 3] as [number, number, number];
              const [rowsA, colsA] = name === "matmulNN" ? [m, k] : [k, m];
              const a = someValues(dtype, rowsA * (colsA + gapA), 1 + k);
              const b = someValues(dtype, k * (n + gapB), 2 + m);
              const dst = target(m, n, gapD, accumulate);
              const sizes = [m, n, k, n + gapD, colsA + gapA, n + gapB, accumulate];
              const offsets = [cases % 2, (cases >> 1) % 2, (cases >> 2) % 2];
              ++cases;
              const found = compare(name, [dst, a, b], sizes, offsets);
              if (found) expect.fail(found);
            }
          }
        }
      }
      expect(cases).toBe(heights.length * widths.length * depths.length * 2);
    });
  }

  for (const name of ["matmulLaned", "matmulLanedUniform", "matmulUniformLaned"] as const) {
    it(`${name} has the bits of the triple loop in every lane, for both orders of either operand`, () => {
      let cases = 0;
      for (const m of [0, 1, 2, 3, 6]) {
        for (const n of [0, 1, 2, 3, 5]) {
          for (const k of [0, 1, 2, 7]) {
            for (const registers of [1, 2, 3, 9, 11]) {
              const ld = registers * LANES;
              for (const order of [0, 1, 2, 3]) {
                const accumulate = cases++ % 2;
                const [ai, ap] = (order & 1 ? [1, m] : [k, 1]) as [number, number];
                const [bp, bj] = (order & 2 ? [1, k] : [n, 1]) as [number, number];
                const a = someValues(dtype, m * k * (name === "matmulUniformLaned" ? 1 : ld), 1 + k);
                const b = someValues(dtype, k * n * (name === "matmulLanedUniform" ? 1 : ld), 2 + m);
                const dst = target(m * n, ld, 0, accumulate);
                const found = compare(name, [dst, a, b], [m, n, k, ai, ap, bp, bj, ld, accumulate]);
                if (found) expect.fail(found);
              }
            }
          }
        }
      }
      expect(cases).toBe(5 * 5 * 4 * 5 * 4);
    });

    it(`${name} takes operands that are slices of something larger`, () => {
      const [m, n, k, ld] = [5, 3, 4, 5 * LANES] as [number, number, number, number];
      for (const accumulate of [0, 1]) {
        const [ai, ap, bp, bj] = [2, 11, 3, 14] as [number, number, number, number];
        const a = someValues(dtype, ((m - 1) * ai + (k - 1) * ap + 1) * ld, 5);
        const b = someValues(dtype, ((k - 1) * bp + (n - 1) * bj + 1) * ld, 6);
        const dst = target(m * n, ld, 0, accumulate);
        expect(compare(name, [dst, a, b], [m, n, k, ai, ap, bp, bj, ld, accumulate])).toBe("");
      }
    });
  }

  it("a product that is only a negative zero is +0, because it is added to one", () => {
    const one = new (arrayOf(dtype))(4 * LANES).fill(1);
    const minusZero = new (arrayOf(dtype))(4 * LANES).fill(-0);
    const dst = () => new (arrayOf(dtype))(4 * LANES).fill(Number.NaN);
    const expected = new (arrayOf(dtype))(4 * LANES);
    for (const [name, sizes] of [
      ["matmulNN", [1, 4 * LANES, 1, 4 * LANES, 1, 4 * LANES, 0]],
      ["matmulTN", [4 * LANES, 1, 1, 1, 4 * LANES, 1, 0]],
      ["matmulLaned", [1, 1, 1, 1, 1, 1, 1, 4 * LANES, 0]],
      ["matmulLanedUniform", [1, 1, 1, 1, 1, 1, 1, 4 * LANES, 0]],
      ["matmulUniformLaned", [1, 1, 1, 1, 1, 1, 1, 4 * LANES, 0]],
    ] as const) {
      const run = (...addresses: number[]) => call[name]!(...addresses, ...sizes);
      expect(difference(runGuarded(kernels, run, [dst(), one, minusZero]), expected), name).toBe("");
    }
  });

  it("transpose moves every value and nothing else, for any size, stride and address", () => {
    const sizes = [0, 1, 2, 3, 4, 5, 7, 8, 9, 17];
    let cases = 0;
    for (const rows of sizes) {
      for (const cols of sizes) {
        for (const [gapD, gapA] of [
          [0, 0],
          [1, 0],
          [0, 3],
          [2, 2],
        ] as [number, number][]) {
          const a = someValues(dtype, rows * (cols + gapA), 1);
          const dst = target(cols, rows, gapD, 0);
          const offsets = [cases % 2, (cases >> 1) % 2];
          ++cases;
          const found = compare("transpose", [dst, a], [rows, cols, rows + gapD, cols + gapA], offsets);
          if (found) expect.fail(found);
        }
      }
    }
    expect(cases).toBe(sizes.length ** 2 * 4);
  });

  it("laneTranspose puts the real lanes in rows, whatever the order of the elements", () => {
    let cases = 0;
    for (const outer of [0, 1, 2, 3, 9]) {
      for (const inner of [0, 1, 2, 5, 8]) {
        for (const lanes of [0, 1, LANES - 1, LANES, LANES + 1, 2 * LANES, 4 * LANES + 1]) {
          const ld = Math.max(Math.ceil(lanes / LANES), 1) * LANES;
          for (const [so, si] of [
            [inner, 1],
            [inner, 2],
            [1, outer],
            [inner + 2, 1],
            [3 * inner, 3],
            [1, outer + 1],
          ] as [number, number][]) {
            const a = someValues(dtype, (outer * so + inner * si + 1) * ld, 4);
            const dst = target(lanes, outer * inner, 0, 0);
            ++cases;
            const found = compare("laneTranspose", [dst, a], [outer, inner, so, si, lanes, ld], [cases % 2]);
            if (found) expect.fail(found);
          }
        }
      }
    }
    expect(cases).toBe(5 * 5 * 7 * 6);
  });

  it("centreRows subtracts the mean from p values of each row and from nothing else", () => {
    let cases = 0;
    for (const k of [0, 1, 2, 5]) {
      for (const p of [0, 1, LANES - 1, LANES, LANES + 1, 5 * LANES + 3]) {
        for (const gap of [0, 1, 5]) {
          const g = someValues(dtype, k * (p + gap), 8, [p, p + gap]);
          const offsets = [cases % 2, (cases >> 1) % 2];
          ++cases;
          const found = compare("centreRows", [g, someValues(dtype, p, 9)], [k, p, p + gap], offsets);
          if (found) expect.fail(found);
        }
      }
    }
    expect(cases).toBe(4 * 6 * 3);
  });

  /** c after rankUpdate in chunks of the given sizes. */
  const ranked = (c: Values, g: Values, p: number, ldg: number, chunks: readonly number[]): Values =>
    runGuarded(
      kernels,
      (addrC, addrG) => {
        let at = addrG as number;
        for (const k of chunks) {
          call.rankUpdate!(addrC as number, at, k, p, ldg);
          at += k * ldg * c.BYTES_PER_ELEMENT;
        }
      },
      [c, g],
      [p % 2, ldg % 2],
    );

  /** What changed far below the diagonal, or differs on or above it. */
  const wrong = (actual: Values, expected: Values, before: Values, p: number): string => {
    for (let i = 0; i < p; ++i) {
      for (let j = 0; j < p; ++j) {
        const at = i * p + j;
        if (j < i && i - j < 4 * LANES) continue;
        const right = j < i ? before : expected;
        if (!Object.is(actual[at], right[at]))
          return `(${i}, ${j}): got ${actual[at]}, expected ${right[at]}`;
      }
    }
    return "";
  };

  it("rankUpdate has the bits of the triple loop on and above the diagonal, for any size and stride", () => {
    let cases = 0;
    for (const p of [0, 1, 2, 3, 7, 4 * LANES, 33, 65, 130, 67 * LANES + 1]) {
      for (const k of p > 130 ? [65] : [0, 1, 2, 63, 64, 65, 130]) {
        const ldg = p + (cases++ % 3);
        const g = someValues(dtype, k * ldg, k, [p, ldg]);
        const c = someValues(dtype, p * p, 7 + p);
        const expected = c.slice();
        reference.rankUpdate(expected, g, k, p, ldg);
        const found = wrong(ranked(c, g, p, ldg, [k]), expected, c, p);
        if (found) expect.fail(`rankUpdate(k ${k}, p ${p}, ldg ${ldg}) at ${found}`);
      }
    }
    expect(cases).toBe(9 * 7 + 1);
  });

  it("rankUpdate and mirror have the same bits for chunks of any size", () => {
    for (const p of [3, 70, 130]) {
      const [k, ldg] = [201, p + 2] as [number, number];
      const g = someValues(dtype, k * ldg, 11, [p, ldg]);
      const zeros = () => new (arrayOf(dtype))(p * p);
      const mirrored = (c: Values) => runGuarded(kernels, (at) => call.mirror!(at as number, p), [c]);
      const expected = zeros();
      reference.rankUpdate(expected, g, k, p, ldg);
      reference.mirror(expected, p);
      for (const size of [1, 5, 64, 100, 128, k]) {
        const chunks = Array.from({ length: Math.ceil(k / size) }, (_, i) => Math.min(size, k - i * size));
        const found = difference(mirrored(ranked(zeros(), g, p, ldg, chunks)), expected);
        expect(found, `p = ${p}, chunks of ${size}`).toBe("");
      }
    }
  });

  it("mirror copies the upper triangle to the lower and nothing else, for any size and address", () => {
    const sizes = [0, 1, 2, 3, 4, 7, 31, 32, 33, 64, 67, 130];
    for (const p of sizes) {
      const found = compare("mirror", [someValues(dtype, p * p, p)], [p], [p % 3]);
      if (found) expect.fail(found);
    }
    expect(sizes.length).toBeGreaterThan(0);
  });
});

it("assembly/tiles.ts is what tools/gen-tiles.mjs writes", () => {
  const printed = execFileSync(process.execPath, ["tools/gen-tiles.mjs", "--print"], {
    cwd: root,
    encoding: "utf8",
  });
  expect(readFileSync(new URL("assembly/tiles.ts", root), "utf8")).toBe(printed);
});

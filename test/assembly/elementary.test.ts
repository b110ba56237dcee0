import { describe, expect, it } from "vitest";
import {
  type Dtype,
  guarded,
  type Kernels,
  lanesOf,
  loadKernels,
  sizeOf,
  values,
} from "../helpers/kernels.ts";
import * as precise from "../reference/precise.ts";

const names = ["exp", "log", "tanh", "sigmoid", "softplus", "erf"] as const;
type Name = (typeof names)[number];
const oracle: Record<Name, (x: number) => precise.Big> = {
  exp: precise.exp,
  log: precise.log,
  tanh: precise.tanh,
  sigmoid: precise.sigmoid,
  softplus: precise.softplus,
  erf: precise.erf,
};
const dtypes = ["f64", "f32"] as const;

/** Largest error allowed, in ulp of the exact result, as the kernels' docstrings promise. */
const bounds: Record<Dtype, Record<Name, number>> = {
  f64: { exp: 1, log: 0.9, tanh: 2.3, sigmoid: 2.5, softplus: 1.8, erf: 1.4 },
  // f64 results rounded once: half an ulp and the f64 error, 2^-29 of an f32 ulp each
  f32: { exp: 0.50001, log: 0.50001, tanh: 0.50001, sigmoid: 0.50001, softplus: 0.50001, erf: 0.50001 },
};

/** A plain generator of test points, apart from the one under test (Numerical Recipes' 32-bit LCG). */
function pointSource(seed: number): () => number {
  let state = seed >>> 0;
  const next = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state;
  };
  return () => ((next() >>> 5) * 2 ** 26 + (next() >>> 6)) / 2 ** 53;
}

/** Ranges [low, high] sampled evenly, and decades [10^a, 10^b] sampled evenly in the logarithm, with both signs. */
const ranges: Record<Dtype, Record<Name, { even: [number, number][]; decades: [number, number][] }>> = {
  f64: {
    exp: {
      even: [
        [-1, 1],
        [-20, 20],
        [-708, 709.7],
        [-746, -708],
      ],
      decades: [[-20, 2]],
    },
    log: {
      even: [
        [0.5, 1.5],
        [0.7, 1.42],
        [0, 1000],
      ],
      decades: [
        [-323, 308],
        [-323.5, -307.5],
      ],
    },
    tanh: {
      even: [
        [-0.4, 0.4],
        [-3, 3],
        [-21, 21],
      ],
      decades: [
        [-307, 2],
        [-3, 1],
      ],
    },
    sigmoid: {
      even: [
        [-1, 1],
        [-10, 10],
        [-40, 40],
        [-746, 40],
      ],
      decades: [[-20, 2]],
    },
    softplus: {
      even: [
        [-1, 1],
        [-10, 10],
        [-40, 40],
        [-746, 40],
      ],
      decades: [[-20, 2]],
    },
    erf: {
      even: [
        [-1.25, 1.25],
        [1.1, 1.3],
        [-3, 3],
        [-6.5, 6.5],
      ],
      decades: [
        [-323.5, -307],
        [-307, 2],
        [-3, 1],
      ],
    },
  },
  f32: {
    exp: {
      even: [
        [-1, 1],
        [-20, 20],
        [-104, 88.8],
      ],
      decades: [[-10, 1.9]],
    },
    log: {
      even: [
        [0.5, 1.5],
        [0, 1000],
      ],
      decades: [[-44.5, 38]],
    },
    tanh: {
      even: [
        [-0.4, 0.4],
        [-10, 10],
      ],
      decades: [[-38, 1]],
    },
    sigmoid: {
      even: [
        [-10, 10],
        [-104, 20],
      ],
      decades: [[-10, 2]],
    },
    softplus: {
      even: [
        [-10, 10],
        [-104, 20],
      ],
      decades: [[-10, 2]],
    },
    erf: {
      even: [
        [-1.25, 1.25],
        [-4.5, 4.5],
      ],
      decades: [[-44.5, 1]],
    },
  },
};

function points(dtype: Dtype, name: Name, count: number): number[] {
  const uniform = pointSource(20250 + names.indexOf(name));
  const { even, decades } = ranges[dtype][name];
  const kinds = even.length + decades.length;
  const result: number[] = [];
  while (result.length < count) {
    const kind = result.length % kinds;
    const [low, high] = (kind < even.length ? even[kind] : decades[kind - even.length]) as [number, number];
    const along = low + (high - low) * uniform();
    let x = kind < even.length ? along : 10 ** along;
    if (kind >= even.length && name !== "log" && uniform() < 0.5) x = -x;
    if (dtype === "f32") x = Math.fround(x);
    if (name !== "log" || (x > 0 && x < Number.POSITIVE_INFINITY)) result.push(x);
  }
  return result;
}

/** The kernel over an array, through memory. */
function apply(kernels: Kernels, dtype: Dtype, name: Name, x: readonly number[]): number[] {
  const bytes = Math.ceil(x.length / 4) * 4 * sizeOf[dtype];
  const a = kernels.base;
  const dst = a + bytes;
  values(kernels, dtype, a, x.length).set(x);
  kernels.exports[name]?.(dst, a, x.length);
  return Array.from(values(kernels, dtype, dst, x.length));
}

describe.each(dtypes)("elementary functions, %s", (dtype) => {
  const count = dtype === "f64" ? 20000 : 6000;
  for (const name of names) {
    const bound = bounds[dtype][name];
    it(`${name} errs by at most ${bound} ulp at ${count} points`, async () => {
      const kernels = await loadKernels(dtype);
      const x = points(dtype, name, count);
      const y = apply(kernels, dtype, name, x);
      let worst = { error: -1, x: Number.NaN, got: Number.NaN, exact: Number.NaN };
      for (let i = 0; i < count; ++i) {
        const exact = oracle[name](x[i] as number);
        const error = precise.ulps(y[i] as number, exact, dtype);
        if (!(error <= worst.error)) {
          worst = { error, x: x[i] as number, got: y[i] as number, exact: precise.rounded(exact, dtype) };
          if (Number.isNaN(error)) break;
        }
      }
      expect(
        worst.error,
        `worst point ${JSON.stringify(worst)}, error over bound ${worst.error / bound}`,
      ).toBeLessThanOrEqual(bound);
    });
  }

  const inf = Number.POSITIVE_INFINITY;
  const nan = Number.NaN;
  const least = dtype === "f64" ? 5e-324 : 2 ** -149;
  const greatest = dtype === "f64" ? Number.MAX_VALUE : (2 - 2 ** -23) * 2 ** 127;
  const ln2 = precise.rounded(precise.log(2), dtype);
  const overflow = dtype === "f64" ? 709.7827128933841 : 88.72284; // the first x whose e^x rounds to infinity
  const special: Record<Name, [number, number][]> = {
    exp: [
      [nan, nan],
      [inf, inf],
      [-inf, 0],
      [0, 1],
      [-0, 1],
      [least, 1],
      [-least, 1],
      [overflow, inf],
      [1000, inf],
      [greatest, inf],
      [-greatest, 0],
      [dtype === "f64" ? -745.2 : -104, 0],
      [dtype === "f64" ? -745 : -103, least],
    ],
    log: [
      [nan, nan],
      [inf, inf],
      [-inf, nan],
      [0, -inf],
      [-0, -inf],
      [-least, nan],
      [-1, nan],
      [1, 0],
      [least, precise.rounded(precise.log(least), dtype)],
      [greatest, precise.rounded(precise.log(greatest), dtype)],
    ],
    tanh: [
      [nan, nan],
      [inf, 1],
      [-inf, -1],
      [0, 0],
      [-0, -0],
      [least, least],
      [-least, -least],
      [20, 1],
      [-700, -1],
      [greatest, 1],
      [-greatest, -1],
    ],
    sigmoid: [
      [nan, nan],
      [inf, 1],
      [-inf, 0],
      [0, 0.5],
      [-0, 0.5],
      [least, 0.5],
      [40, 1],
      [greatest, 1],
      [-greatest, 0],
      [dtype === "f64" ? -745 : -103, least],
    ],
    softplus: [
      [nan, nan],
      [inf, inf],
      [-inf, 0],
      [0, ln2],
      [-0, ln2],
      [greatest, greatest],
      [-greatest, 0],
      [100, 100],
      [dtype === "f64" ? -745 : -103, least],
    ],
    erf: [
      [nan, nan],
      [inf, 1],
      [-inf, -1],
      [0, 0],
      [-0, -0],
      [least, least],
      [-least, -least],
      [6, 1],
      [-30, -1],
      [greatest, 1],
      [-greatest, -1],
    ],
  };
  for (const name of names) {
    it(`${name} has the special values of IEEE 754, whatever its neighbours in the register are`, async () => {
      const kernels = await loadKernels(dtype);
      const ordinary = [0.75, 1.5, 3.25];
      const alone = apply(kernels, dtype, name, ordinary);
      for (const [x, y] of special[name]) {
        const packed = [x, 0.75, 1.5, 3.25, 0.75, 1.5, 3.25, x, 0.75, x, 1.5, 3.25];
        const got = apply(kernels, dtype, name, packed);
        const rest = [0.75, 1.5, 3.25].map((v) => alone[ordinary.indexOf(v)]);
        const [a, b, c] = rest;
        expect(got, `${name}(${x})`).toEqual([y, a, b, c, a, b, c, y, a, y, b, c]);
        // toEqual distinguishes 0 and -0, and takes NaN as equal to NaN
      }
    });

    it(`${name} keeps NaN of every sign and payload`, async () => {
      const kernels = await loadKernels(dtype);
      const n = 24;
      const a = kernels.base;
      const dst = a + n * 8;
      const bits = new DataView(kernels.memory.buffer, a);
      for (let i = 0; i < n; ++i) {
        const quiet = i % 3 === 0 ? 0n : 1n; // quiet and signalling
        if (dtype === "f64") {
          const payload = (quiet << 51n) | (0x5a5a5a5a5a5a5n >> BigInt(i)) | 1n;
          bits.setBigUint64(8 * i, (BigInt(i & 1) << 63n) | (0x7ffn << 52n) | payload, true);
        } else {
          const payload = (Number(quiet) << 22) | (0x2a5a5a >> i) | 1;
          bits.setUint32(4 * i, ((i & 1) * 2 ** 31 + 0x7f800000 + payload) >>> 0, true);
        }
      }
      values(kernels, dtype, dst, n).fill(0);
      kernels.exports[name]?.(dst, a, n);
      expect(Array.from(values(kernels, dtype, dst, n)).filter((v) => !Number.isNaN(v))).toEqual([]);
    });

    it(`${name} writes n values rounded up to whole registers and no more, at any alignment, in place too`, async () => {
      const kernels = await loadKernels(dtype);
      const L = lanesOf[dtype];
      for (const n of [0, 1, L - 1, L, L + 1, 2 * L, 5 * L + 1, 67]) {
        for (const offset of [0, 1]) {
          const padded = Math.ceil(n / L) * L;
          const a = kernels.base + offset * sizeOf[dtype];
          const dst = a + 1024 + offset * sizeOf[dtype];
          const x = points(dtype, name, padded);
          const expected = apply(kernels, dtype, name, x);
          const intact = guarded(kernels, dst, padded * sizeOf[dtype]);
          values(kernels, dtype, a, padded).set(x);
          kernels.exports[name]?.(dst, a, n);
          expect(intact(), `n = ${n}`).toBe(true);
          expect(Array.from(values(kernels, dtype, dst, n))).toEqual(expected.slice(0, n));

          values(kernels, dtype, dst, padded).set(x);
          kernels.exports[name]?.(dst, dst, n);
          expect(intact(), `in place, n = ${n}`).toBe(true);
          expect(Array.from(values(kernels, dtype, dst, n))).toEqual(expected.slice(0, n));
        }
      }
    });
  }
});

describe("the oracle", () => {
  it("agrees with values from published tables", () => {
    // Abramowitz and Stegun, tables 1.1, 4.2, 4.4, 4.6, 4.15 and 7.1, to 30 and more digits where given
    const digits = (value: precise.Big, decimals: number): string => {
      const scaled = value.m * 10n ** BigInt(decimals);
      const text = String(value.s < 0 ? scaled >> BigInt(-value.s) : scaled << BigInt(value.s)).padStart(
        decimals + 1,
        "0",
      );
      return `${text.slice(0, -decimals)}.${text.slice(-decimals)}`;
    };
    expect(digits(precise.exp(1), 40)).toBe("2.7182818284590452353602874713526624977572");
    expect(digits(precise.exp(-1), 40)).toBe("0.3678794411714423215955237701614608674458");
    expect(digits(precise.log(2), 40)).toBe("0.6931471805599453094172321214581765680755");
    expect(digits(precise.log(10), 40)).toBe("2.3025850929940456840179914546843642076011");
    expect(digits(precise.tanh(1), 40)).toBe("0.7615941559557648881194582826047935904127");
    expect(digits(precise.erf(0.5), 10)).toBe("0.5204998778");
    expect(digits(precise.erf(1), 40)).toBe("0.8427007929497148693412206350826092592960");
    expect(digits(precise.erf(2), 10)).toBe("0.9953222650");
    expect(digits(precise.sigmoid(0), 20)).toBe("0.50000000000000000000");
    expect(digits(precise.softplus(0), 40)).toBe(digits(precise.log(2), 40));
    expect(digits(precise.sinTurns(0.125), 40)).toBe("0.7071067811865475244008443621048490392848");
    expect(digits(precise.cosTurns(0.125), 40)).toBe("0.7071067811865475244008443621048490392848");
  });

  it("rounds to nearest and counts ulps, denormals and overflow included", () => {
    expect(precise.rounded({ m: 1n, s: -1075 })).toBe(0); // half the least denormal, ties to even
    expect(precise.rounded({ m: 3n, s: -1075 })).toBe(2 ** -1073);
    expect(precise.rounded({ m: (1n << 54n) - 1n, s: 970 })).toBe(Number.POSITIVE_INFINITY);
    expect(precise.rounded({ m: (1n << 25n) + 1n, s: 0 }, "f32")).toBe(2 ** 25);
    expect(precise.ulps(1 + 2 ** -52, precise.fromDouble(1))).toBe(1);
    expect(precise.ulps(1, { m: 3n, s: -1 })).toBe(2 ** 51);
    expect(precise.ulps(0, { m: 1n, s: -1075 })).toBe(0.5);
    expect(precise.ulps(Number.NaN, precise.fromDouble(1))).toBeNaN();
  });
});

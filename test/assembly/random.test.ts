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
import { knownAnswers, philox, type Words2, type Words4 } from "../reference/philox.ts";
import * as precise from "../reference/precise.ts";

const dtypes = ["f64", "f32"] as const;
const u32 = (x: number): number => x >>> 0;

// --- the reference: one number at a time ---------------------------------------------------------------------

/** c0, c1, c2, c3, inc0, inc2, key0, key1, in the order of the kernels' arguments. */
type Stream = readonly [number, number, number, number, number, number, number, number];

/** Block `index` of a lane: counter (c0 + lane inc0 + index, c1, c2 + lane inc2, c3). */
function block(stream: Stream, lane: number, index: number): Words4 {
  const [c0, c1, c2, c3, inc0, inc2, key0, key1] = stream;
  const counter: Words4 = [u32(c0 + lane * inc0 + index), c1, u32(c2 + lane * inc2), c3];
  return philox(counter, [key0, key1]);
}

/** floor(x / 2^12) of the 64-bit number low | high << 32, over 2^52: exact, in [0, 1). */
const fraction52 = (low: number, high: number): number => (high * 2 ** 20 + (low >>> 12)) / 2 ** 52;

/** The two normals of one block, from exact u and t, in BigInt arithmetic. */
function normalPair([w0, w1, w2, w3]: Words4): [precise.Big, precise.Big] {
  const u = 1 - fraction52(w0, w1);
  const t = fraction52(w2, w3) - 0.5;
  const logarithm = precise.log(u);
  const radius = precise.sqrt({ m: -2n * logarithm.m, s: logarithm.s });
  return [precise.multiply(radius, precise.sinTurns(t)), precise.multiply(radius, precise.cosTurns(t))];
}

const belowTest = 1000;
/** What the exact kernels must give for entry e of a lane. */
const entryOf = {
  uniform(stream: Stream, lane: number, e: number, dtype: Dtype): number {
    const words = block(stream, lane, e >> 1);
    const x = e % 2 === 0 ? fraction52(words[0], words[1]) : fraction52(words[2], words[3]);
    return dtype === "f64" ? x : Math.min(Math.fround(x), 1 - 2 ** -24);
  },
  sign(stream: Stream, lane: number, e: number): number {
    return (block(stream, lane, e >> 2)[e & 3] as number) >= 2 ** 31 ? -1 : 1;
  },
  index(stream: Stream, lane: number, e: number): number {
    return Number((BigInt(block(stream, lane, e >> 2)[e & 3] as number) * BigInt(belowTest)) >> 32n);
  },
};

// --- calling the kernels -------------------------------------------------------------------------------------

type Kind = "normal" | "uniform" | "sign" | "index";
const kinds: readonly Kind[] = ["normal", "uniform", "sign", "index"];

function fill(
  kernels: Kernels,
  kind: Kind,
  dst: number,
  elements: number,
  lanes: number,
  ld: number,
  stream: Stream,
) {
  const before = kind === "index" ? [dst, elements, lanes, ld, belowTest] : [dst, elements, lanes, ld];
  kernels.exports[`${kind}Lanes`]?.(...before, ...stream);
}

/** Fills into NaN between guards, and returns the values as rows of ld. */
function filled(
  kernels: Kernels,
  dtype: Dtype,
  kind: Kind,
  elements: number,
  lanes: number,
  ld: number,
  stream: Stream,
): number[] {
  const dst = kernels.base + 64 + sizeOf[dtype]; // off the 16-byte grid
  const intact = guarded(kernels, dst, elements * ld * sizeOf[dtype]);
  fill(kernels, kind, dst, elements, lanes, ld, stream);
  expect(intact(), `${kind}Lanes, ${elements} x ${ld}, wrote outside`).toBe(true);
  return Array.from(values(kernels, dtype, dst, elements * ld));
}

const someStream: Stream = [7, 123456, 40, 3, 0, 1, 0xdeadbeef, 0x12345678];
/** Both running counters pass 2^32 inside the test. */
const wrapping: Stream = [
  0xfffffffd, 0xffffffff, 0xfffffffe, 0x80000000, 0x7fffffff, 0xffffffff, 5, 0xffffffff,
];

describe("Philox4x32-10", () => {
  it("of the scalar reference gives the published known answers", () => {
    for (const { counter, key, result } of knownAnswers) expect(philox(counter, key)).toEqual(result);
  });

  it.each(dtypes)("of the kernel gives the published known answers (%s)", async (dtype) => {
    const kernels = await loadKernels(dtype);
    for (const { counter, key, result } of knownAnswers) {
      kernels.exports.philoxBlocks?.(kernels.base, 1, ...counter, 0, 0, ...key);
      const words = new Uint32Array(kernels.memory.buffer, kernels.base, 16);
      expect([words[0], words[4], words[8], words[12]]).toEqual(result);
    }
  });

  it("fills four word planes of any length as the scalar reference does, wrap-around of both counters included", async () => {
    const kernels = await loadKernels("f64");
    const dst = kernels.base + 68;
    for (const stream of [someStream, wrapping, [0, 0, 0, 0, 1, 0, 1, 2] as Stream]) {
      for (const count of [0, 1, 3, 4, 5, 8, 16, 17]) {
        const ldc = Math.ceil(count / 4) * 4;
        const intact = guarded(kernels, dst, 16 * ldc);
        kernels.exports.philoxBlocks?.(dst, count, ...stream);
        expect(intact()).toBe(true);
        const planes = Array.from(new Uint32Array(kernels.memory.buffer.slice(dst, dst + 16 * ldc)));
        const expected: number[] = [];
        for (let w = 0; w < 4; ++w) {
          for (let i = 0; i < ldc; ++i) expected.push(block(stream, i, 0)[w] as number);
        }
        expect(planes, `count ${count}`).toEqual(expected);
      }
    }
  });
});

describe.each(dtypes)("laned values, %s", (dtype) => {
  const L = lanesOf[dtype];
  const padded = (lanes: number) => Math.ceil(lanes / L) * L;
  const normalBound = dtype === "f64" ? 3.5 : 0.50001;

  it(`normals are Box-Muller of the reference words to ${normalBound} ulp`, async () => {
    const kernels = await loadKernels(dtype);
    const elements = 31; // odd: the last cosine is dropped
    const lanes = 61;
    const ld = padded(lanes);
    const got = filled(kernels, dtype, "normal", elements, lanes, ld, someStream);
    let worst = { error: 0, e: -1, lane: -1, got: 0, exact: 0 };
    for (let lane = 0; lane < ld; ++lane) {
      for (let e = 0; e < elements; ++e) {
        const exact = normalPair(block(someStream, lane, e >> 1))[e & 1] as precise.Big;
        const value = got[e * ld + lane] as number;
        const error = precise.ulps(value, exact, dtype);
        if (!(error <= worst.error)) {
          worst = { error, e, lane, got: value, exact: precise.rounded(exact, dtype) };
        }
      }
    }
    expect(worst.error, JSON.stringify(worst)).toBeLessThanOrEqual(normalBound);
  });

  it.each(["uniform", "sign", "index"] as const)(
    "%s values are exactly those of the reference",
    async (kind) => {
      const kernels = await loadKernels(dtype);
      for (const stream of [someStream, wrapping]) {
        for (const [elements, lanes] of [
          [9, 2],
          [6, 5],
          [3, 13],
          [1, 1],
        ] as const) {
          const ld = padded(lanes);
          const got = filled(kernels, dtype, kind, elements, lanes, ld, stream);
          const expected = got.map((_, at) => entryOf[kind](stream, at % ld, Math.floor(at / ld), dtype));
          expect(got, `${elements} x ${lanes}`).toEqual(expected);
        }
      }
    },
  );

  it.each(kinds)(
    "%s values of one lane are, bit for bit, those of the same lane among others",
    async (kind) => {
      const kernels = await loadKernels(dtype);
      for (const stream of [someStream, wrapping]) {
        for (const elements of [0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 40]) {
          for (const lanes of [1, 2, 3, 4, 5, 8, 9, 12, 13]) {
            const ld = padded(lanes);
            const together = filled(kernels, dtype, kind, elements, lanes, ld, stream);
            expect(together.every(Number.isFinite)).toBe(true); // pad lanes too
            const lane = lanes - 1;
            const [c0, c1, c2, c3, inc0, inc2, key0, key1] = stream;
            const own: Stream = [
              u32(c0 + lane * inc0),
              c1,
              u32(c2 + lane * inc2),
              c3,
              inc0,
              inc2,
              key0,
              key1,
            ];
            const alone = filled(kernels, dtype, kind, elements, 1, 1, own);
            expect(alone, `${elements} entries, lane ${lane} of ${lanes}`).toEqual(
              together.filter((_, at) => at % ld === lane),
            );
          }
        }
      }
    },
  );

  it("uniforms lie in [0, 1), f32 rounding of the largest included", async () => {
    const kernels = await loadKernels(dtype, 64);
    const count = 400_000;
    fill(kernels, "uniform", kernels.base, count, 1, 1, someStream);
    const x = values(kernels, dtype, kernels.base, count);
    expect(x.every((v) => v >= 0 && v < 1)).toBe(true);
    if (dtype === "f32") {
      // A word pair that rounds to 1 in f32 (the top 25 bits are ones), found by search over c0 with zero key:
      // the block and the word are checked here, so the claim does not rest on the search.
      const { c0, odd } = topUniform;
      const words = philox([c0, 0, 0, 0], [0, 0]);
      expect(Math.fround(odd ? fraction52(words[2], words[3]) : fraction52(words[0], words[1]))).toBe(1);
      const stream: Stream = [c0, 0, 0, 0, 0, 0, 0, 0];
      expect(filled(kernels, dtype, "uniform", 2, 1, 1, stream)[odd]).toBe(1 - 2 ** -24);
    }
  });
});

/** See the test above. */
const topUniform = { c0: 11031643, odd: 1 };

// --- index draws ---------------------------------------------------------------------------------------------

describe("drawIndices", () => {
  /** Draw i of replica r, by the definition. */
  function draw(
    i: bigint,
    below: number,
    scale: number,
    replica: number,
    purpose: number,
    key: Words2,
  ): number {
    const index = i >> 2n;
    const counter: Words4 = [Number(index & 0xffffffffn), Number(index >> 32n), u32(replica), purpose];
    const word = philox(counter, key)[Number(i & 3n)] as number;
    return Number((((BigInt(word) * BigInt(below)) >> 32n) * BigInt(scale)) & 0xffffffffn);
  }

  const firsts = [0n, 1n << 20n, (1n << 32n) - 8n, (1n << 34n) - 24n, (1n << 62n) + 4n];
  for (const lanes of [1, 2, 3, 4, 5, 7, 8, 9, 12, 19]) {
    it(`gives every draw of ${lanes} ${lanes === 1 ? "lane" : "lanes"} its own word, and writes nothing else`, async () => {
      const kernels = await loadKernels("f64");
      const dst = kernels.base + 68;
      const key: Words2 = [0xcafe0001, 0xffffffff];
      const [replica, purpose] = [0xfffffffd, 0x80000001]; // replica + lane wraps
      for (const first of firsts) {
        for (const count of [0, 4, 8, 12, 16, 20, 36]) {
          const [below, scale] = count % 8 === 0 ? [4294967295, 1] : [1000, 24];
          const intact = guarded(kernels, dst, 4 * count * lanes);
          const [low, high] = [Number(first & 0xffffffffn), Number(first >> 32n)];
          kernels.exports.drawIndices?.(dst, count, low, high, lanes, below, scale, replica, purpose, ...key);
          expect(intact(), `count ${count}, first ${first}`).toBe(true);
          const got = Array.from(new Uint32Array(kernels.memory.buffer, dst, count * lanes));
          const expected = got.map((_, at) => {
            const [j, lane] = [Math.floor(at / lanes), at % lanes];
            return draw(first + BigInt(j), below, scale, replica + lane, purpose, key);
          });
          expect(got, `count ${count}, first ${first}`).toEqual(expected);
        }
      }
    });
  }

  it("multiplies modulo 2^32, and reaches 0 and below - 1 only", async () => {
    const kernels = await loadKernels("f32");
    const dst = kernels.base + 64;
    const draws = (below: number, scale: number) => {
      kernels.exports.drawIndices?.(dst, 4096, 0, 0, 1, below, scale, 0, 0, 1, 2);
      return Array.from(new Uint32Array(kernels.memory.buffer, dst, 4096));
    };
    expect(new Set(draws(1, 8))).toEqual(new Set([0]));
    expect(new Set(draws(3, 16))).toEqual(new Set([0, 16, 32]));
    expect(new Set(draws(2, 0x80000000))).toEqual(new Set([0, 0x80000000]));
    expect(new Set(draws(3, 0x80000000))).toEqual(new Set([0, 0x80000000])); // 2 * 2^31 wraps to 0
  });

  it("draws each of 7 indices equally often (1048576 draws, |z| < 4.9 per index)", async () => {
    const kernels = await loadKernels("f64", 80);
    const count = 1 << 20;
    kernels.exports.drawIndices?.(kernels.base, count, 0, 0, 1, 7, 1, 3, 9, 11, 13);
    const seen = new Array<number>(7).fill(0);
    for (const i of new Uint32Array(kernels.memory.buffer, kernels.base, count))
      seen[i] = (seen[i] as number) + 1;
    const p = 1 / 7;
    for (const n of seen) {
      expect(Math.abs(n - count * p) / Math.sqrt(count * p * (1 - p))).toBeLessThan(4.9);
    }
  });
});

// --- statistics ----------------------------------------------------------------------------------------------

/** z values of the first four moments against the standard normal, each about N(0, 1) for a right sampler. */
function momentScores(x: ArrayLike<number>): Record<"mean" | "variance" | "skewness" | "kurtosis", number> {
  const n = x.length;
  const sums = [0, 0, 0, 0];
  for (let i = 0; i < n; ++i) {
    const v = x[i] as number;
    const square = v * v;
    sums[0]! += v;
    sums[1]! += square;
    sums[2]! += square * v;
    sums[3]! += square * square;
  }
  const [m1, m2, m3, m4] = sums.map((sum) => sum / n) as [number, number, number, number];
  // Hermite averages He1..He4 are uncorrelated with variances 1, 2, 6, 24 over n
  const root = Math.sqrt(n);
  return {
    mean: m1 * root,
    variance: ((m2 - 1) * root) / Math.sqrt(2),
    skewness: ((m3 - 3 * m1) * root) / Math.sqrt(6),
    kurtosis: ((m4 - 6 * m2 + 3) * root) / Math.sqrt(24),
  };
}

describe.each(dtypes)("statistics of a million normals, %s", (dtype) => {
  it.each([
    ["one lane", 1],
    ["64 lanes", 64],
  ] as const)(
    "the first four moments of 1000000 normals in %s are right (|z| < 4.9 each)",
    async (_, lanes) => {
      const kernels = await loadKernels(dtype, 140);
      const elements = 1_000_000 / lanes;
      fill(kernels, "normal", kernels.base, elements, lanes, lanes, someStream);
      const x = values(kernels, dtype, kernels.base, 1_000_000);
      for (const [moment, z] of Object.entries(momentScores(x))) {
        expect(Math.abs(z), `z of the ${moment}`).toBeLessThan(4.9);
      }
    },
  );

  it("neighbours in a stream, in lanes, in steps and in keys are uncorrelated (262144 pairs, |z| < 4.9 each)", async () => {
    const kernels = await loadKernels(dtype, 140);
    const n = 1 << 18;
    const take = (stream: Stream) => {
      fill(kernels, "normal", kernels.base, n, 1, 1, stream);
      return values(kernels, dtype, kernels.base, n).slice();
    };
    const score = (x: ArrayLike<number>, y: ArrayLike<number>, shift: number) => {
      let sum = 0;
      for (let i = 0; i + shift < n; ++i) sum += (x[i] as number) * (y[i + shift] as number);
      return sum / Math.sqrt(n - shift);
    };
    const changed = (at: number): Stream =>
      someStream.map((v, i) => (i === at ? v + 1 : v)) as unknown as Stream;
    const x = take(someStream);
    const scores = {
      "sine and cosine": score(x, x, 1),
      "next block": score(x, x, 2),
      step: score(x, take(changed(1)), 0),
      replica: score(x, take(changed(2)), 0),
      purpose: score(x, take(changed(3)), 0),
      key: score(x, take(changed(6)), 0),
      // the radius is shared within a pair: squares would show it
      squares: score(
        Array.from(x, (v) => (v * v - 1) / Math.SQRT2),
        Array.from(x, (v) => (v * v - 1) / Math.SQRT2),
        1,
      ),
    };
    for (const [name, z] of Object.entries(scores)) expect(Math.abs(z), `z of ${name}`).toBeLessThan(4.9);
  });

  it("the moment test rejects a wrong sampler: sums of 12 uniforms (262144 sums, |z| > 4.9 in kurtosis)", async () => {
    const kernels = await loadKernels(dtype, 450);
    const n = 1 << 18;
    fill(kernels, "uniform", kernels.base, 12, n, n, someStream);
    const x = values(kernels, dtype, kernels.base, 12 * n);
    const sums = new Float64Array(n).fill(-6);
    x.forEach((v, at) => {
      sums[at % n]! += v;
    });
    const scores = momentScores(sums);
    expect(Math.abs(scores.mean)).toBeLessThan(4.9);
    expect(Math.abs(scores.kurtosis)).toBeGreaterThan(4.9);
  });
});

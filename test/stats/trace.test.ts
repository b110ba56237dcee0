import { afterAll, describe, expect, test } from "vitest";
import { keyOf, loadSeeder, PURPOSE } from "../../src/core/key.ts";
import { type Estimate, exact, interval, meanOf, studentT } from "../../src/stats/estimate.ts";
import type { LinearOperator } from "../../src/stats/operator.ts";
import { probes } from "../../src/stats/probes.ts";
import {
  exactTrace,
  hutchinson,
  hutchPlusPlus,
  type TraceOptions,
  traceMethods,
  xtrace,
} from "../../src/stats/trace.ts";
import {
  type Explicit,
  explicit,
  hostOf,
  operatorOf,
  spectra,
  uniform,
  withSpectrum,
} from "../helpers/spectra.ts";
import { philox } from "../reference/philox.ts";

const host = await hostOf("f64");
await loadSeeder();
const key = keyOf("test", "trace");
const EPS = 2 ** -52;

type Method = (typeof traceMethods)["xtrace"];
type Name = keyof typeof traceMethods;
const randomised = ["hutchinson", "hutch++", "xtrace"] as const;

/** Estimates of keys 0, 1, ...; always the same keys. */
async function over(keys: number, method: Method, A: Explicit, products: number): Promise<Estimate[]> {
  const op = operatorOf(A, 512);
  const estimates: Estimate[] = [];
  for (let key0 = 0; key0 < keys; key0++)
    estimates.push(await method(host, op, { key: { key0, key1: 0x7a5c }, products }));
  return estimates;
}
const rms = (xs: number[]): number => Math.sqrt(xs.reduce((sum, x) => sum + x * x, 0) / xs.length);
const lines: string[] = [];
afterAll(() => console.log(lines.join("\n")));

/** Code and text of the error that a call rejects with, or the reason if it is none of ours. */
async function refusal(call: Promise<unknown>): Promise<string> {
  try {
    await call;
  } catch (error) {
    const { code, message } = error as { code: string; message: string };
    return `${code} | ${message}`;
  }
  return "nothing was thrown";
}

describe("probes", () => {
  test("entry e of probe j comes from block (e >> 2 or e >> 1, 0 or 1, j, 6), as reference Philox has it", () => {
    const [size, first] = [11, 5];
    const signs = probes(host, key, "signs", size, first, 3);
    const normals = probes(host, key, "normals", size, first, 3);
    const words = (c0: number, c1: number, j: number) =>
      philox([c0, c1, first + j, PURPOSE.probe], [key.key0, key.key1]);
    for (let j = 0; j < 3; j++) {
      for (let e = 0; e < size; e++) {
        expect(signs[j * size + e]).toBe(words(e >> 2, 0, j)[e & 3]! >>> 31 ? -1 : 1);
        const [w0, w1, w2, w3] = words(e >> 1, 1, j).map(BigInt) as [bigint, bigint, bigint, bigint];
        const u = 2 - (1 + Number((w0 | (w1 << 32n)) >> 12n) / 2 ** 52);
        const t = Number((w2 | (w3 << 32n)) >> 12n) / 2 ** 52 - 0.5;
        const angle = 2 * Math.PI * t;
        const exact = Math.sqrt(-2 * Math.log(u)) * (e % 2 === 0 ? Math.sin(angle) : Math.cos(angle));
        expect(Math.abs(normals[j * size + e]! - exact)).toBeLessThan(8 * EPS * Math.max(1, Math.abs(exact)));
      }
    }
  });

  test("are the same however many are asked for, and signs are on an f32 engine too", async () => {
    const all = probes(host, key, "normals", 13, 0, 9);
    for (const [first, count] of [
      [0, 1],
      [3, 4],
      [8, 1],
    ] as const)
      expect(probes(host, key, "normals", 13, first, count)).toEqual(
        all.slice(first * 13, (first + count) * 13),
      );
    const f32 = await hostOf("f32");
    expect(probes(f32, key, "signs", 13, 0, 9)).toEqual(probes(host, key, "signs", 13, 0, 9));
    expect(probes(f32, key, "normals", 13, 0, 9)).toEqual(all.map(Math.fround));
    expect([host.arena.bytesInUse, f32.arena.bytesInUse]).toEqual([0, 0]);
  });
});

describe("an interval", () => {
  // scipy.stats.t.ppf((1 + level) / 2, dof), scipy 1.17.1
  test.each([
    [0.95, 1, 12.706204736174694],
    [0.95, 2, 4.302652729749462],
    [0.95, 3, 3.1824463052837078],
    [0.95, 4, 2.7764451051977934],
    [0.95, 5, 2.5705818356363146],
    [0.95, 10, 2.228138851986274],
    [0.95, 15, 2.131449545559776],
    [0.95, 30, 2.0422724563012378],
    [0.95, 63, 1.998340542520741],
    [0.95, 100, 1.9839715185235518],
    [0.95, 999, 1.9623414611334493],
    [0.95, 100_000, 1.9599877075346095],
    [0.5, 7, 0.7111417780817866],
    [0.99, 2, 9.924843200918287],
    [0.999, 12, 4.3177912836062475],
    [0.68, 31, 1.0106665119706804],
    [0.001, 9, 0.0012885442580143924],
    [0.999999, 5, 28.478473462183874],
  ])("t of level %d with %d degrees of freedom is %d, as scipy has it", (level, dof, t) => {
    // P is met within 1e-14, and the density at t is above 0.1 (1 - level) / t
    expect(Math.abs(studentT(level, dof) / t - 1)).toBeLessThan(2e-13 / (1 - level));
  });

  test("t of one and two degrees of freedom has its closed form at any level", () => {
    for (const level of [0.01, 0.3, 0.5, 0.8, 0.99, 0.9999]) {
      expect(studentT(level, 1) / Math.tan((Math.PI * level) / 2)).toBeCloseTo(1, 10);
      expect(studentT(level, 2) / (level * Math.sqrt(2 / (1 - level ** 2)))).toBeCloseTo(1, 10);
    }
    expect(studentT(0.95, 1e9)).toBe(studentT(0.95, 1e5));
  });

  test("is value +- t stdErr, and an exact result by itself", () => {
    const estimate = { value: 3, stdErr: 0.5, count: 11, method: "mean" };
    const { low, high } = interval(estimate);
    expect([low, high]).toEqual([3 - studentT(0.95, 10) / 2, 3 + studentT(0.95, 10) / 2]);
    expect(interval(exact(7, 1))).toEqual({ low: 7, high: 7 });
    expect(() => interval(meanOf([1]))).toThrow(
      "interval: a standard error takes at least 2 terms, got stdErr NaN from a count of 1.",
    );
    expect(() => interval(estimate, 1)).toThrow("studentT: level must lie between 0 and 1, got 1.");
    expect(() => interval(estimate, Number.NaN)).toThrow("level must be a finite number");
    expect(() => studentT(0.9, 0)).toThrow("dof must be an integer of at least 1");
  });
});

describe("95 % intervals over 1,000 keys, standard error 0.7 %", () => {
  // sizes and products were fixed before these tests ran; see Hutchinson's docstring for the many terms of the skewed two
  test.each([
    ["flat", 64],
    ["decaying", 256],
    ["spike", 256],
  ] as const)("of hutchinson, %s spectrum, %d terms, cover in 93 to 97 %", async (name, products) => {
    const covered = await coverage("hutchinson", name, withSpectrum(spectra[name](48)), products);
    expect(covered).toBeGreaterThanOrEqual(93);
    expect(covered).toBeLessThanOrEqual(97);
  });
  test.each(
    (["flat", "decaying", "spike"] as const).flatMap((name) =>
      (["hutch++", "xtrace"] as const).map((method) => [method, name] as const),
    ),
  )("of %s, %s spectrum, 32 products on size 64, cover in 93 % or more", async (method, name) => {
    const covered = await coverage(method, name, withSpectrum(spectra[name](64)), 32);
    expect(covered).toBeGreaterThanOrEqual(93);
  });

  /** Also: the mean is Tr A (|z| < 4.9, a false alarm in a million), and stdErr is not below the rms error. */
  async function coverage(method: Name, name: string, A: Explicit, products: number): Promise<number> {
    const all = await over(1000, traceMethods[method], A, products);
    const isCovered = (e: Estimate) => interval(e).low <= A.trace && A.trace <= interval(e).high;
    const covered = all.filter(isCovered).length / 10;
    const errors = all.map((e) => e.value - A.trace);
    const bias = meanOf(errors);
    const z = bias.value / bias.stdErr;
    const stdErr = rms(all.map((e) => e.stdErr));
    lines.push(
      `${method}, ${name}, size ${A.n}, ${products} products: covered ${covered} %, z of the mean ${z.toFixed(2)}, ` +
        `rms error ${rms(errors).toPrecision(3)}, rms stdErr ${stdErr.toPrecision(3)}`,
    );
    expect(Math.abs(z)).toBeLessThan(4.9);
    expect(stdErr / rms(errors)).toBeGreaterThan(0.85); // both are off by some 3 %
    return covered;
  }
});

describe("hutchinson", () => {
  test("has variance 2 (||A||^2 - sum a_ee^2) a term (|z| < 4.9 with 1,000 keys, 22 %)", async () => {
    const A = withSpectrum(spectra.flat(48));
    let variance = 0;
    for (let i = 0; i < 48; i++) {
      for (let j = 0; j < 48; j++) if (i !== j) variance += 2 * A.values[i * 48 + j]! ** 2;
    }
    const all = await over(1000, hutchinson, A, 16);
    const ratio = (16 * rms(all.map((e) => e.value - A.trace)) ** 2) / variance;
    expect(ratio).toBeGreaterThan(0.78);
    expect(ratio).toBeLessThan(1.22);
  });

  test("of a diagonal matrix is its trace, with stdErr 0", async () => {
    const A = explicit(9, (i, j) => (i === j ? 2 ** (i - 4) : 0));
    expect(await hutchinson(host, operatorOf(A), { key, products: 5 })).toEqual({
      value: A.trace,
      stdErr: 0,
      count: 5,
      method: "hutchinson",
    });
  });
});

describe("hutch++ and xtrace", () => {
  test("are exact for ranks below their sketch: no eigenvalues, positive, of both signs", async () => {
    for (const [rank, products] of [
      [0, 12],
      [1, 12],
      [4, 15],
      [5, 15],
      [5, 48],
    ] as const) {
      for (const sign of [1, -1]) {
        // integers, so that rank and trace have no rounding
        const vectors = Array.from({ length: rank }, () =>
          Array.from({ length: 60 }, () => Math.floor(7 * uniform()) - 3),
        );
        const A = explicit(60, (i, j) =>
          vectors.reduce((sum, v, k) => sum + (k % 2 === 0 ? 1 : sign) * v[i]! * v[j]!, 0),
        );
        for (const method of ["hutch++", "xtrace"] as const) {
          const op = operatorOf(A);
          const { value, stdErr } = await traceMethods[method](host, op, { key, products });
          const rounding = 60 * EPS * vectors.flat().reduce((sum, x) => sum + x * x, 0);
          const sketched = Math.floor(products / (method === "xtrace" ? 2 : 3));
          expect(op.products).toBe(sketched + rank + (method === "xtrace" ? 0 : products - 2 * sketched));
          expect(Math.abs(value - A.trace), `${method} rank ${rank}`).toBeLessThanOrEqual(rounding);
          expect(stdErr, `${method} rank ${rank}`).toBeLessThanOrEqual(rounding);
        }
      }
    }
  });

  test("lose no digits where the spectrum decays to rounding and below", async () => {
    for (const rate of [0.5, 0.1, 0.01]) {
      const A = withSpectrum(Array.from({ length: 80 }, (_, k) => rate ** k));
      for (const method of ["hutch++", "xtrace"] as const) {
        const { value, stdErr } = await traceMethods[method](host, operatorOf(A), { key, products: 66 });
        const allowed = 4.9 * stdErr + 80 * 80 * EPS;
        expect(Math.abs(value - A.trace), `${method} ${rate}`).toBeLessThanOrEqual(allowed);
        expect(stdErr, `${method} ${rate}`).toBeLessThan(1e-5);
      }
    }
  });

  test("err less and less than hutchinson on a spectrum k^-2: 4 times the products, rms over 60 keys", async () => {
    const A = withSpectrum(spectra.decaying(100));
    const gain = { hutchinson: 0, "hutch++": 0, xtrace: 0 };
    for (const method of randomised) {
      const error = async (products: number) =>
        rms((await over(60, traceMethods[method], A, products)).map((e) => e.value - A.trace));
      const [few, many] = [await error(20), await error(80)];
      gain[method] = few / many;
      lines.push(
        `${method}, k^-2, size 100: rms error ${few.toPrecision(2)} (20), ${many.toPrecision(2)} (80)`,
      );
    }
    // 2 for hutchinson, 4^2 for k^-2 in theory; a ratio of two rms of 60 is off by some 13 %
    expect(gain.hutchinson).toBeLessThan(3);
    expect(gain["hutch++"]).toBeGreaterThan(8);
    expect(gain.xtrace).toBeGreaterThan(8);
  });

  test("take the exact trace where it costs no more, and say so", async () => {
    const A = withSpectrum(spectra.flat(7));
    for (const method of [hutchPlusPlus, xtrace]) {
      const op = operatorOf(A, 3);
      const estimate = await method(host, op, { key, products: 7 });
      expect(estimate).toEqual({ value: expect.closeTo(A.trace, 12), stdErr: 0, count: 7, method: "exact" });
      expect(op.products).toBe(7);
      expect((await method(host, operatorOf(A), { key, products: 6 })).method).not.toBe("exact");
    }
    const one: Explicit = { n: 1, values: Float64Array.of(-3), trace: -3 };
    for (const method of Object.values(traceMethods))
      expect((await method(host, operatorOf(one), { key })).value).toBe(-3);
    expect(await exactTrace(operatorOf(A))).toEqual(await exactTrace(operatorOf(A, 2)));
  });
});

describe("xtrace", () => {
  /** The term of w[i] with the range of A w[j], j in `from`, by Gram-Schmidt: slow and obvious. */
  function term(A: Explicit, w: number[][], i: number, from: number[]): number {
    const n = A.n;
    const along = (x: number[], y: number[]) => x.reduce((sum, x_e, e) => sum + x_e * y[e]!, 0);
    const times = (x: number[]) => x.map((_, r) => along([...A.values.slice(r * n, r * n + n)], x));
    const basis: number[][] = [];
    const outside = (x: number[]) => {
      let left = x;
      for (const q of [...basis, ...basis]) {
        const c = along(q, left);
        left = left.map((x_e, e) => x_e - c * q[e]!);
      }
      return left;
    };
    for (const j of from) {
      const left = outside(times(w[j]!));
      basis.push(left.map((x) => x / Math.sqrt(along(left, left))));
    }
    const inside = basis.reduce((sum, q) => sum + along(q, times(q)), 0);
    const u = outside(w[i]!);
    return inside + ((n - from.length) / along(u, u)) * along(u, times(u));
  }

  test("is the mean of leave-one-out terms, its stdErr made of them and of leave-two-out ones", async () => {
    const n = 20;
    for (const [spectrum, m] of [
      [spectra.flat(n), 2],
      [spectra.decaying(n).map((x, k) => x * (-1) ** k), 5],
      [spectra.spike(n), 9],
    ] as const) {
      const A = withSpectrum(spectrum);
      const omega = probes(host, key, "normals", n, 0, m);
      const w = Array.from({ length: m }, (_, j) => [...omega.slice(j * n, (j + 1) * n)]);
      const all = w.map((_, j) => j);
      const terms = all.map((i) =>
        term(
          A,
          w,
          i,
          all.filter((j) => j !== i),
        ),
      );
      const mean = terms.reduce((sum, x) => sum + x, 0) / m;
      const spread = terms.reduce((sum, x) => sum + (x - mean) ** 2, 0) / (m - 1) / m;
      let covariance = 0;
      for (const i of all) {
        for (const j of all.filter((j) => j < i)) {
          const others = all.filter((l) => l !== i && l !== j);
          covariance += (terms[i]! - term(A, w, i, others)) * (terms[j]! - term(A, w, j, others));
        }
      }
      covariance /= (m * (m - 1)) / 2;
      const estimate = await xtrace(host, operatorOf(A), { key, products: 2 * m + 1 });
      expect(Math.abs(estimate.value / mean - 1)).toBeLessThan(1e-12);
      expect(Math.abs(estimate.stdErr / Math.sqrt(spread + Math.max(0, covariance)) - 1)).toBeLessThan(1e-10);
      expect([estimate.count, estimate.method]).toEqual([m, "xtrace"]);
    }
  });

  test("is exact for multiples of the identity, by its scale", async () => {
    const op = operatorOf(explicit(50, (i, j) => (i === j ? 0.3 : 0)));
    const { value, stdErr } = await xtrace(host, op, { key, products: 20 });
    expect(Math.abs(value - 15)).toBeLessThan(1e-12);
    expect(stdErr).toBeLessThan(1e-12);
  });
});

describe("every method", () => {
  const A = withSpectrum(spectra.spike(40));

  test("spends its products, never more, reports them, and gives the same bits at any width", async () => {
    for (const method of randomised) {
      for (const products of [4, 5, 6, 17, 39]) {
        const results: Estimate[] = [];
        for (const width of [1, 7, 64]) {
          const op = operatorOf(A, width);
          const seen: { done: number; total: number }[] = [];
          results.push(
            await traceMethods[method](host, op, { key, products, onProgress: (p) => seen.push(p) }),
          );
          const spent = method === "xtrace" ? 2 * Math.floor(products / 2) : products;
          expect(op.products).toBe(spent);
          expect(seen.at(-1)).toEqual({ done: spent, total: spent });
          expect(seen.every((p, i) => i === 0 || p.done > seen[i - 1]!.done)).toBe(true);
        }
        expect(results[1]).toEqual(results[0]);
        expect(results[2]).toEqual(results[0]);
      }
    }
  });

  test("uses apply where there is no quadratic, scales with the matrix, and leaves no memory taken", async () => {
    for (const method of randomised) {
      const { size, width, apply } = operatorOf(A);
      const whole = await traceMethods[method](host, operatorOf(A), { key, products: 12 });
      for (const scale of [1, 1e100, 1e-100]) {
        const op = {
          size,
          width,
          products: 0,
          apply: (v: Float64Array, c: number) => apply.call(op, v, c).map((x) => x * scale),
        };
        const plain = await traceMethods[method](host, op, { key, products: 12 });
        expect(Math.abs(plain.value / scale / whole.value - 1)).toBeLessThan(1e-12);
        expect(Math.abs(plain.stdErr / scale / whole.stdErr - 1)).toBeLessThan(1e-9);
      }
    }
    expect(host.arena.bytesInUse).toBe(0);
  });

  test("stops for an abort, before, by progress and by a timer, with its reason", async () => {
    for (const method of Object.values(traceMethods)) {
      const run = (more: Partial<TraceOptions>) =>
        refusal(method(host, operatorOf(A, 1), { key, products: 39, ...more }));
      expect(await run({ signal: AbortSignal.abort(new Error("before")) })).toBe("undefined | before");
      const controller = new AbortController();
      const onProgress = ({ done }: { done: number }) => {
        if (done === 3) controller.abort(new Error("by progress"));
        expect(done).toBeLessThan(4);
      };
      expect(await run({ signal: controller.signal, onProgress })).toBe("undefined | by progress");
      const timed = new AbortController();
      const slow: LinearOperator = {
        ...operatorOf(A, 1),
        quadratic: undefined as never,
        apply: (v, c) => {
          for (const end = performance.now() + 2; performance.now() < end; );
          return operatorOf(A).apply(v, c);
        },
      };
      setTimeout(() => timed.abort(new Error("by a timer")), 5);
      expect(await refusal(method(host, slow, { key, products: 39, signal: timed.signal }))).toBe(
        "undefined | by a timer",
      );
    }
  });

  test("refuses too few products, and what is not finite or of another length", async () => {
    const op = operatorOf(A);
    const broken = (apply: LinearOperator["apply"], size = 40): LinearOperator => ({ size, width: 2, apply });
    const cases: [Name, number, LinearOperator, string][] = [
      ["hutchinson", 1, op, "range | hutchinson: products must be an integer of at least 2, got 1."],
      ["hutch++", 3, op, "range | hutch++: products must be an integer of at least 4, got 3."],
      ["xtrace", 4.5, op, "range | xtrace: products must be an integer of at least 4, got 4.5."],
      [
        "xtrace",
        8,
        broken((_, count) => new Float64Array(40 * count).fill(Number.NaN, 41, 42)),
        "nonfinite | xtrace: every product with the operator must be finite, got NaN in entry 1.",
      ],
      [
        "hutchinson",
        8,
        broken((_, count) => new Float64Array(40 * count).fill(Infinity, 3)),
        "nonfinite | hutchinson: every product with the operator must be finite, got Infinity in entry 3.",
      ],
      [
        "basis",
        8,
        {
          ...broken(() => new Float64Array(0)),
          quadratic: (_, count) => new Float64Array(count).fill(-Infinity),
        },
        "nonfinite | exact: every product with the operator must be finite, got -Infinity.",
      ],
      [
        "hutch++",
        8,
        broken((_, count) => new Float64Array(39 * count)),
        "shape | hutch++: the operator must return 80 values, got 78.",
      ],
      [
        "basis",
        8,
        broken(() => new Float64Array(0), 0),
        "range | exact: the operator's size must be an integer of at least 1, got 0.",
      ],
    ];
    for (const [method, products, operator, message] of cases)
      expect(await refusal(traceMethods[method](host, operator, { key, products }))).toBe(message);
  });
});

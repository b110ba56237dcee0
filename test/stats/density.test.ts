import { describe, expect, test } from "vitest";
import { keyOf, loadSeeder } from "../../src/core/key.ts";
import { type SpectralDensity, spectralDensity } from "../../src/stats/density.ts";
import { interval } from "../../src/stats/estimate.ts";
import { eigenvaluesOf, explicit, hostOf, operatorOf, spectra, withSpectrum } from "../helpers/spectra.ts";

const host = await hostOf("f64");
await loadSeeder();
const key = keyOf("test", "density");
const n = 120;

const share = (values: readonly number[], x: number): number =>
  values.filter((y) => y <= x).length / values.length;
const mean = (values: readonly number[], f: (x: number) => number): number =>
  values.reduce((sum, x) => sum + f(x), 0) / values.length;
const sum = (xs: ArrayLike<number>): number => Array.from(xs).reduce((s, x) => s + x, 0);

describe("a spectral density", () => {
  test.each(["flat", "decaying", "spike"] as const)(
    "of a %s spectrum has its shares and moments within 4.9 standard errors and the resolution",
    async (name) => {
      const A = withSpectrum(spectra[name](n));
      const theirs = eigenvaluesOf(A);
      const density = await spectralDensity(host, operatorOf(A), { key, probes: 24, steps: 20 });
      const [low, high] = [theirs[0]!, theirs[n - 1]!];
      const points = Array.from({ length: 41 }, (_, i) => low - 0.1 + ((high - low + 0.2) * i) / 40);
      for (const { x, value, stdErr, count, resolution } of density.cumulative(points)) {
        expect(count).toBe(24);
        expect(Math.abs(value - share(theirs, x))).toBeLessThanOrEqual(4.9 * stdErr + resolution + 1e-12);
      }
      for (let p = 0; p <= 5; p++) {
        const { value, stdErr } = density.moment(p);
        const exact = mean(theirs, (x) => x ** p);
        expect(Math.abs(value - exact)).toBeLessThanOrEqual(4.9 * stdErr + 1e-12 * exact);
      }
      const { value, stdErr } = density.average(Math.exp);
      const exact = mean(theirs, Math.exp);
      expect(Math.abs(value - exact)).toBeLessThanOrEqual(4.9 * stdErr + 1e-12 * exact);
    },
  );

  test("is off by the resolution at most where all probes agree: diagonal matrices, few steps", async () => {
    for (const spectrum of [
      spectra.flat(n),
      spectra.decaying(n),
      [...spectra.flat(n / 2), ...spectra.spike(n / 2)],
    ]) {
      const A = explicit(n, (i, j) => (i === j ? spectrum[i]! : 0));
      let worst = 0;
      for (const steps of [1, 2, 5, 11]) {
        const density = await spectralDensity(host, operatorOf(A), { key, probes: 2, steps });
        for (const { x, value, stdErr, resolution } of density.cumulative(spectrum)) {
          const error = Math.abs(value - share(spectrum, x));
          expect(stdErr).toBeLessThan(1e-10);
          expect(error).toBeLessThanOrEqual(resolution + 1e-10);
          worst = Math.max(worst, error / resolution);
        }
      }
      expect(worst).toBeGreaterThan(0.5);
    }
  });

  test("has ascending nodes inside the spectrum, and weights with sum 1", async () => {
    const A = withSpectrum(spectra.flat(n));
    const theirs = eigenvaluesOf(A);
    const { nodes, weights } = await spectralDensity(host, operatorOf(A), { key, probes: 5, steps: 12 });
    expect([nodes.length, weights.length]).toEqual([60, 60]);
    expect(nodes.every((x, i) => i === 0 || nodes[i - 1]! <= x)).toBe(true);
    expect(nodes[0]!).toBeGreaterThanOrEqual(theirs[0]! - 1e-12);
    expect(nodes[59]!).toBeLessThanOrEqual(theirs[n - 1]! + 1e-12);
    expect(weights.every((w) => w >= 0)).toBe(true);
    expect(Math.abs(sum(weights) - 1)).toBeLessThan(1e-13);
  });

  test("has moments that are exact for each probe: z^T A^p z / n up to degree 2 steps - 1", async () => {
    const A = withSpectrum(spectra.flat(n));
    const signs = { ...operatorOf(A) };
    const starts: Float64Array[] = [];
    const op = {
      ...signs,
      apply: (v: Float64Array, c: number) => {
        starts.push(v.slice());
        return signs.apply(v, c);
      },
    };
    const density = await spectralDensity(host, op, { key, probes: 2, steps: 3 });
    const z = starts[0]!; // both probes, length 1 each
    let power = z;
    for (let p = 0; p <= 6; p++) {
      const exact = sum(z.map((x, e) => x * power[e]!)) / 2;
      const off = Math.abs(density.moment(p).value / exact - 1);
      if (p < 6) expect(off).toBeLessThan(1e-13);
      else expect(off).toBeGreaterThan(1e-10);
      power = operatorOf(A).apply(power, 2);
    }
  });

  test("is exact where spaces are invariant: two eigenvalues, a diagonal matrix, all steps", async () => {
    const half = explicit(n, (i, j) => (i === j ? (i < 30 ? -1 : 2) : 0));
    const two = await spectralDensity(host, operatorOf(half), { key, probes: 3, steps: 50 });
    expect(two.nodes).toHaveLength(6);
    for (const { x, value, stdErr, resolution } of two.cumulative([-2, -0.9, 1.9, 2.1])) {
      expect(value).toBeCloseTo(x < -1 ? 0 : x < 2 ? 0.25 : 1, 12);
      expect(stdErr).toBeLessThan(1e-14);
      expect(resolution).toBe(0);
    }
    const zero = await spectralDensity(host, operatorOf(explicit(4, () => 0)), { key });
    expect(zero.cumulative([-1e-9, 0]).map(({ value }) => value)).toEqual([0, 1]);
    const one = await spectralDensity(host, operatorOf(explicit(1, () => 5)), { key });
    expect(one.moment(3)).toEqual({
      value: 125,
      stdErr: 0,
      count: 16,
      method: "stochastic Lanczos quadrature",
    });
    const A = withSpectrum(spectra.flat(40));
    const whole = await spectralDensity(host, operatorOf(A), { key, probes: 3, steps: 1000 });
    expect(whole.nodes).toHaveLength(120);
    for (const [i, node] of whole.nodes.entries())
      expect(Math.abs(node - eigenvaluesOf(A)[Math.floor(i / 3)]!)).toBeLessThan(1e-12);
  });

  test("has 95 % intervals that cover moments and shares in 93 to 97 % of 1,000 keys (standard error 0.7 %)", async () => {
    const A = withSpectrum(spectra.flat(20));
    const theirs = eigenvaluesOf(A);
    const op = operatorOf(A, 64);
    const at = 1.1;
    const covered = [0, 0, 0];
    for (let key0 = 0; key0 < 1000; key0++) {
      const density: SpectralDensity = await spectralDensity(host, op, {
        key: { key0, key1: 9 },
        probes: 20,
        steps: 20,
      });
      const found = [density.moment(1), density.moment(3), density.cumulative([at])[0]!];
      const exact = [mean(theirs, (x) => x), mean(theirs, (x) => x ** 3), share(theirs, at)];
      for (const [i, estimate] of found.entries()) {
        const { low, high } = interval(estimate);
        if (low <= exact[i]! && exact[i]! <= high) covered[i]! += 0.1;
      }
    }
    console.log(
      `covered: mean ${covered[0]!.toFixed(1)} %, third moment ${covered[1]!.toFixed(1)} %, share ${covered[2]!.toFixed(1)} %`,
    );
    for (const percent of covered) {
      expect(percent).toBeGreaterThanOrEqual(93);
      expect(percent).toBeLessThanOrEqual(97);
    }
  });

  test("is the same at any width, and spends probes times steps", async () => {
    const A = withSpectrum(spectra.decaying(50));
    const results: SpectralDensity[] = [];
    for (const width of [1, 3, 64]) {
      const op = operatorOf(A, width);
      const seen: number[] = [];
      results.push(
        await spectralDensity(host, op, {
          key,
          probes: 7,
          steps: 9,
          onProgress: ({ done }) => seen.push(done),
        }),
      );
      expect(op.products).toBe(63);
      expect(seen.at(-1)).toBe(63);
    }
    for (const { nodes, weights } of results)
      expect([nodes, weights]).toEqual([results[0]!.nodes, results[0]!.weights]);
    expect(host.arena.bytesInUse).toBe(0);
  });

  test("refuses bad counts and points, stops for an abort", async () => {
    const op = operatorOf(withSpectrum(spectra.flat(9)));
    await expect(spectralDensity(host, op, { key, probes: 1 })).rejects.toThrow(
      "spectralDensity: probes must be an integer of at least 2, got 1.",
    );
    await expect(spectralDensity(host, op, { key, steps: 0 })).rejects.toThrow(
      "spectralDensity: steps must be an integer of at least 1, got 0.",
    );
    const density = await spectralDensity(host, op, { key });
    expect(() => density.cumulative([Number.NaN])).toThrow("cumulative: x must be a finite number, got NaN.");
    expect(() => density.moment(-1)).toThrow("moment: p must be an integer of at least 0, got -1.");
    const reason = new Error("enough");
    await expect(spectralDensity(host, op, { key, signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    await expect(
      spectralDensity(host, { ...op, apply: () => new Float64Array(9).fill(Number.NaN) }, { key, probes: 2 }),
    ).rejects.toMatchObject({ code: "shape" });
  });
});

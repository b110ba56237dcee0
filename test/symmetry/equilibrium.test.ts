import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { EigenvalueDecomposition, Matrix as MlMatrix } from "ml-matrix";
import { describe, expect, test } from "vitest";
import { NoetherflowError } from "../../src/errors.ts";
import {
  chargeAt,
  type Direction,
  type EquilibriumSetting,
  fieldAt,
  flowAt,
  productDirections,
  slopeAt,
  solveEquilibrium,
} from "../../src/symmetry/equilibrium.ts";
import * as precise from "../reference/precise.ts";

// ---- spectra from per-sample gradients, by ml-matrix

/** Directions of a dense generator: s = Var_n(v . g_n) in two passes, less what rounding leaves of 0, and q = (v . theta)^2. */
function spectrumOf(A: number[][], gradients: number[][], theta: number[]): Direction[] {
  const eigen = new EigenvalueDecomposition(new MlMatrix(A), { assumeSymmetric: true });
  const along = (v: number[], p: number[]) => v.reduce((sum, x, i) => sum + x * p[i]!, 0);
  return eigen.realEigenvalues.map((mu, i) => {
    const v = eigen.eigenvectorMatrix.getColumn(i);
    const values = gradients.map((g) => along(v, g));
    const mean = values.reduce((a, b) => a + b, 0) / values.length;
    const variance = values.reduce((sum, x) => sum + (x - mean) ** 2, 0) / values.length;
    const s = variance > 1e-24 * meanSquare(gradients) ? variance : 0;
    return { mu, s, q: along(v, theta) ** 2 };
  });
}

const meanSquare = (gradients: number[][]) =>
  gradients.reduce((sum, g) => sum + g.reduce((a, x) => a + x * x, 0), 0) / gradients.length;

/** The system of the golden values: |U W x - y|^2 with N = 8, dx = 3, h = dy = 2. */
function golden() {
  const x = (n: number, j: number) => Math.sin(1.3 * n * (j + 1) + 0.7 * j + 0.2);
  const y = (n: number, i: number) => Math.cos(0.9 * n + 1.6 * i + 0.2);
  const U = [0, 1].map((i) => [0, 1].map((a) => Math.sin(0.5 + i + 2 * a)));
  const W = [0, 1].map((a) => [0, 1, 2].map((j) => Math.cos(0.3 + 1.1 * a + 0.7 * j)));
  const B = [
    [1, 0.5],
    [0.5, -1],
  ];
  const gradients = Array.from({ length: 8 }, (_, n) => {
    const z = [0, 1].map((a) => [0, 1, 2].reduce((sum, j) => sum + W[a]![j]! * x(n, j), 0));
    const r = [0, 1].map((i) => [0, 1].reduce((sum, a) => sum + U[i]![a]! * z[a]!, 0) - y(n, i));
    const gU = [0, 1].flatMap((i) => [0, 1].map((a) => 2 * r[i]! * z[a]!));
    const gW = [0, 1].flatMap((a) =>
      [0, 1, 2].map((j) => 2 * (U[0]![a]! * r[0]! + U[1]![a]! * r[1]!) * x(n, j)),
    );
    return [...gU, ...gW];
  });
  // U -> U B on entries (i, a) at 2 i + a, W -> -B W on (a, j) at 4 + 3 a + j
  const A = Array.from({ length: 10 }, () => new Array<number>(10).fill(0));
  for (const a of [0, 1]) {
    for (const b of [0, 1]) {
      for (const i of [0, 1]) A[2 * i + a]![2 * i + b] = B[b]![a]!;
      for (const j of [0, 1, 2]) A[4 + 3 * a + j]![4 + 3 * b + j] = -B[a]![b]!;
    }
  }
  return { A, gradients, theta: [...U.flat(), ...W.flat()], U, W, B };
}

const relative = (got: number, wanted: number) => Math.abs(got - wanted) / Math.abs(wanted);

describe("the equilibrium of the golden system, to 1e-10", () => {
  const { A, gradients, theta, U, W, B } = golden();
  const expected = [
    {
      gamma: 0,
      flow0: -0.008613106880885285,
      lambda: -0.1434562039289269,
      slope: -0.05902253348114984,
      charge: -0.4215890808519468,
      rate: 0.011431424500829186,
    },
    {
      gamma: 0.02,
      flow0: -0.03341251646133408,
      lambda: -0.07139484356887559,
      slope: -0.4660142073962368,
      charge: -0.053395916358219477,
      rate: 0.09177487530737193,
    },
  ];
  test.each(expected)("from 10 eigen-directions and per-sample gradients, gamma $gamma", (row) => {
    const { gamma, ...wanted } = row;
    const found = solveEquilibrium(spectrumOf(A, gradients, theta), { sigma2: 0.00125, gamma });
    expect(found.status).toBe("finite");
    for (const [name, value] of Object.entries(wanted))
      expect(relative(found[name as "lambda"], value), name).toBeLessThan(1e-12);
    expect(relative(found.charge0, 0.3099926197556098)).toBeLessThan(1e-12);
    expect(found.residual).toBeLessThan(1e-14);
    expect(found.iterations).toBe(1); // all |mu| are equal, but for rounding
  });
  test.each(expected)("from h x h matrices, gamma $gamma", ({ gamma, lambda, slope, charge, rate }) => {
    const SU = [
      [3.61657251586235, -3.1288026268443945],
      [-3.1288026268443945, 7.83745986857952],
    ];
    const SW = [
      [5.44615177037532, -2.9382365833146715],
      [-2.9382365833146715, 2.967119661913981],
    ];
    const UtU = [0, 1].map((a) => [0, 1].map((b) => U[0]![a]! * U[0]![b]! + U[1]![a]! * U[1]![b]!));
    const WWt = [0, 1].map((a) =>
      [0, 1].map((b) => [0, 1, 2].reduce((s, j) => s + W[a]![j]! * W[b]![j]!, 0)),
    );
    const eigen = new EigenvalueDecomposition(new MlMatrix(B), { assumeSymmetric: true });
    const directions = productDirections(
      eigen.realEigenvalues.map((beta, k) => {
        const b = eigen.eigenvectorMatrix.getColumn(k);
        const form = (M: number[][]) =>
          [0, 1].reduce((sum, i) => sum + [0, 1].reduce((t, j) => t + b[i]! * M[i]![j]! * b[j]!, 0), 0);
        return { beta, sU: form(SU), sW: form(SW), qU: form(UtU), qW: form(WWt) };
      }),
    );
    expect(directions).toHaveLength(4);
    const found = solveEquilibrium(directions, { sigma2: 0.00125, gamma });
    for (const [name, value] of Object.entries({ lambda, slope, charge, rate }))
      expect(relative(found[name as "lambda"], value), name).toBeLessThan(1e-10);
  });
});

interface Outcome {
  status: string;
  lambda: number | null;
  C?: number;
  fPrime?: number;
  rate?: number;
}

interface Fixture {
  name: string;
  paramOrder: string[];
  P: number;
  model: { params: Record<string, number[]> };
  theta: Record<string, number[]>;
  settings: { gamma: number; sigma2: number };
  expected: {
    perSampleGradients: { values: number[][] };
    generators: {
      name: string;
      blocks: Record<string, { scalar?: number; left?: number[][]; right?: number[][] }>;
      center?: number[];
      equilibrium?: Outcome;
      equilibriumWithDecay?: Outcome;
    }[];
  };
}

/** The generator P -> s P + L P + P R on named blocks as a P x P matrix. */
function denseOf(fixture: Fixture, blocks: Fixture["expected"]["generators"][number]["blocks"]): number[][] {
  const A = Array.from({ length: fixture.P }, () => new Array<number>(fixture.P).fill(0));
  let offset = 0;
  for (const name of fixture.paramOrder) {
    const [rows, cols = 1] = fixture.model.params[name] as [number, number?];
    const { scalar = 0, left, right } = blocks[name] ?? {};
    for (let i = 0; i < rows; i++) {
      for (let j = 0; j < cols; j++) {
        const row = A[offset + i * cols + j]!;
        row[offset + i * cols + j]! += scalar;
        for (let k = 0; left && k < rows; k++) row[offset + k * cols + j]! += left[i]![k]!;
        for (let k = 0; right && k < cols; k++) row[offset + i * cols + k]! += right[k]![j]!;
      }
    }
    offset += rows * cols;
  }
  return A;
}

test("every equilibrium of the 15 fixtures: status, lambda, charge, slope and rate to 1e-10", () => {
  const folder = fileURLToPath(new URL("../fixtures/", import.meta.url));
  let [finite, infinite] = [0, 0];
  for (const file of readdirSync(folder).filter((name) => name.endsWith(".json"))) {
    const fixture = JSON.parse(readFileSync(`${folder}${file}`, "utf8")) as Fixture;
    const { values: gradients } = fixture.expected.perSampleGradients;
    const { sigma2, gamma } = fixture.settings;
    for (const generator of fixture.expected.generators) {
      const A = denseOf(fixture, generator.blocks);
      const theta = fixture.paramOrder.flatMap((name) => fixture.theta[name]!);
      const at = theta.map((x, i) => x - (generator.center?.[i] ?? 0));
      const directions = spectrumOf(A, gradients, at);
      for (const [wanted, decay] of [
        [generator.equilibrium, 0],
        [generator.equilibriumWithDecay, gamma],
      ] as const) {
        if (wanted === undefined) continue;
        const name = `${file} ${generator.name}`;
        const found = solveEquilibrium(directions, { sigma2, gamma: decay });
        expect(found.status, name).toBe(wanted.status);
        if (wanted.lambda === null) {
          infinite++;
          continue;
        }
        finite++;
        expect(Math.abs(found.lambda - wanted.lambda), name).toBeLessThan(1e-10 * Math.abs(wanted.lambda));
        expect(relative(found.slope, wanted.fPrime!), name).toBeLessThan(1e-10);
        expect(relative(found.rate, wanted.rate!), name).toBeLessThan(1e-10);
        const scale = directions.reduce((sum, { mu, q }) => sum + Math.abs(mu) * q, 0);
        expect(Math.abs(found.charge - wanted.C!), name).toBeLessThan(1e-10 * scale);
      }
    }
  }
  expect([finite, infinite]).toEqual([43, 9]);
});

// ---- wild spectra

/** A plain generator of numbers in [0, 1) (Numerical Recipes' 32-bit LCG). */
function uniforms(seed: number): () => number {
  let state = seed >>> 0;
  const next = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state;
  };
  return () => ((next() >>> 5) * 2 ** 26 + (next() >>> 6)) / 2 ** 53;
}

interface Case {
  readonly directions: Direction[];
  readonly setting: EquilibriumSetting & { readonly gamma: number };
}

/** 2 to 20 directions, mu over 6 decades of both signs, s and q over 400 decades, some of them 0; gamma 0 in a third. */
function wildCase(u: () => number): Case {
  const decades = (n: number) => 10 ** (n * (u() - 0.5));
  const count = 2 + Math.floor(19 * u());
  const directions = Array.from({ length: count }, () => ({
    mu: (u() < 0.5 ? -1 : 1) * decades(6),
    s: u() < 0.1 ? 0 : decades(400),
    q: u() < 0.1 ? 0 : decades(400),
  }));
  return { directions, setting: { sigma2: decades(8), gamma: u() < 1 / 3 ? 0 : decades(8) } };
}

const wildCases = (() => {
  const u = uniforms(20240211);
  return Array.from({ length: 1000 }, () => wildCase(u));
})();

/** The table of theory 5.2. */
function statusOf({ directions, setting: { sigma2, gamma } }: Case): string {
  const some = (sign: number, of: "s" | "q") => directions.some((d) => sign * d.mu > 0 && d[of] > 0);
  const up = (sigma2 > 0 && some(1, "s")) || (gamma > 0 && some(-1, "q"));
  const down = (sigma2 > 0 && some(-1, "s")) || (gamma > 0 && some(1, "q"));
  return up ? (down ? "finite" : "+inf") : down ? "-inf" : "flat";
}

/** a b, exactly, as a sum of two doubles (Dekker). */
function twoProduct(a: number, b: number): [number, number] {
  const halves = (x: number): [number, number] => {
    const big = 134217729 * x;
    const high = big - (big - x);
    return [high, x - high];
  };
  const p = a * b;
  const [ah, al] = halves(a);
  const [bh, bl] = halves(b);
  return [p, al * bl - (p - ah * bh - al * bh - ah * bl)];
}

/** P / M - 1 at lambda with 150 bits: the true residual of a returned double. */
function trueResidual({ directions, setting: { sigma2, gamma } }: Case, lambda: number): number {
  const big = precise.fromDouble;
  const product = (...xs: precise.Big[]) => xs.reduce(precise.multiply);
  const sum = (terms: precise.Big[]) => {
    const least = Math.min(...terms.map(({ s }) => s));
    return { m: terms.reduce((all, { m, s }) => all + (m << BigInt(s - least)), 0n), s: least };
  };
  const sides: [precise.Big[], precise.Big[]] = [[], []];
  for (const { mu, s, q } of directions) {
    const m = Math.abs(mu);
    const power = (sign: number): precise.Big => {
      const [high, low] = twoProduct(2 * sign * mu, lambda);
      if (high < -20000) return { m: 0n, s: 0 };
      if (high > 20000) throw new Error("a term of e^20000 cannot balance");
      return product(precise.exp(high), precise.exp(low));
    };
    if (s > 0) sides[mu > 0 ? 0 : 1].push(product(big(sigma2), big(m), big(s), power(-1)));
    if (q > 0 && gamma > 0) sides[mu > 0 ? 1 : 0].push(product(big(2 * gamma), big(m), big(q), power(1)));
  }
  const [P, M] = [sum(sides[0]), sum(sides[1])];
  const least = Math.min(P.s, M.s);
  const [p, m] = [P.m << BigInt(P.s - least), M.m << BigInt(M.s - least)];
  return Number(((p - m) << 80n) / m) / 2 ** 80;
}

/** The root of ln P - ln M by bisection, in plain doubles. */
function bisected({ directions, setting: { sigma2, gamma } }: Case): number {
  const side = (lambda: number, sign: number) => {
    const logs = directions.flatMap(({ mu, s, q }) => [
      ...(sign * mu > 0 && s > 0 ? [Math.log(sigma2) + Math.log(s * Math.abs(mu)) - 2 * lambda * mu] : []),
      ...(sign * mu < 0 && q > 0 && gamma > 0
        ? [Math.log(2 * gamma) + Math.log(q * Math.abs(mu)) + 2 * lambda * mu]
        : []),
    ]);
    const most = Math.max(...logs);
    return most + Math.log(logs.reduce((sum, x) => sum + Math.exp(x - most), 0));
  };
  let [low, high] = [-1e10, 1e10];
  for (let k = 0; k < 120; k++) {
    const middle = (low + high) / 2;
    if (side(middle, 1) > side(middle, -1)) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}

describe("1,000 wild spectra: s and q over 400 decades, mu over 6", () => {
  const found = wildCases.map(({ directions, setting }) => solveEquilibrium(directions, setting));
  const finite = wildCases.flatMap((c, i) => (found[i]!.status === "finite" ? [{ c, e: found[i]! }] : []));

  test("have the status of the table", () => {
    expect(found.map((e) => e.status)).toEqual(wildCases.map(statusOf));
    expect(finite.length).toBeGreaterThan(900);
  });
  test("balance to 1e-12 in 150-bit arithmetic, after at most 12 iterations", () => {
    let [residual, claimed, iterations] = [0, 0, 0];
    for (const { c, e } of finite) {
      residual = Math.max(residual, Math.abs(trueResidual(c, e.lambda)));
      claimed = Math.max(claimed, e.residual);
      iterations = Math.max(iterations, e.iterations);
    }
    const average = finite.reduce((sum, { e }) => sum + e.iterations, 0) / finite.length;
    console.log(
      `wild spectra: residual ${residual.toExponential(1)}, iterations ${average.toFixed(1)} on average, ${iterations} at most`,
    );
    expect(residual).toBeLessThan(1e-12);
    expect(claimed).toBeLessThan(1e-12);
    expect(iterations).toBeLessThanOrEqual(12);
  });
  test("have the roots that bisection finds, 200 of them", () => {
    // ln P and ln M are some 900 at most and rounded to 1e-13 each; the least |mu| there is, 1e-3, is on both sides
    for (const { c, e } of finite.slice(0, 200)) {
      const tolerance =
        1e-12 * Math.abs(e.lambda) + 1e-12 / Math.min(...c.directions.map((d) => Math.abs(d.mu)));
      expect(Math.abs(bisected(c) - e.lambda)).toBeLessThan(tolerance);
    }
  });
  test("never have a NaN, and infinite values only where they belong", () => {
    for (const e of found) {
      for (const value of Object.values(e)) if (typeof value === "number") expect(value).not.toBeNaN();
      expect(Math.abs(e.lambda) === Infinity).toBe(e.status === "+inf" || e.status === "-inf");
      expect(e.slope).toBeLessThanOrEqual(0);
      expect(e.rate).toBeGreaterThanOrEqual(0);
      if (e.status !== "finite") expect([e.slope, e.rate, e.iterations, e.residual]).toEqual([0, 0, 0, 0]);
    }
  });
  test("2,000 wilder ones, s and q over 600 decades and mu over 12, take at most 30 iterations", () => {
    const u = uniforms(12);
    let most = 0;
    for (let k = 0; k < 2000; k++) {
      // the larger mu, the less of it, so that one term after another takes over
      const fall = 600 * u();
      const directions = Array.from({ length: 3 + (k % 30) }, (_, i) => {
        const decade = -11.9 * u();
        const energy = () => 10 ** (-fall * 10 ** (decade * u()) + 300 * u());
        return { mu: (i % 2 ? -1 : 1) * 10 ** decade, s: energy(), q: energy() };
      });
      const e = solveEquilibrium(directions, { sigma2: 1, gamma: k % 3 ? 0.5 : 0 });
      most = Math.max(most, e.iterations);
      expect(e.residual).toBeLessThan(1e-12);
    }
    expect(most).toBeGreaterThan(5);
    expect(most).toBeLessThanOrEqual(30);
  });
  test("the time per solve", () => {
    const round = () => {
      const start = performance.now();
      for (const { directions, setting } of wildCases) solveEquilibrium(directions, setting);
      return performance.now() - start;
    };
    const rounds = Array.from({ length: 5 }, round).sort((a, b) => a - b);
    const mean = wildCases.reduce((n, c) => n + c.directions.length, 0) / 1000;
    console.log(
      `equilibrium: ${rounds[2]!.toFixed(0)} us per solve of ${mean.toFixed(0)} directions (median of 5)`,
    );
    expect(rounds[2]).toBeGreaterThan(0);
  });
});

// ---- statuses

const at = (mu: number, s: number, q: number): Direction => ({ mu, s, q });

describe("when the root is finite", () => {
  const noisy = { sigma2: 0.01, gamma: 0 };
  const decaying = { sigma2: 0.01, gamma: 0.1 };
  test.each([
    ["A indefinite, noise on both sides", [at(1, 2, 1), at(-1, 3, 1)], noisy, "finite"],
    ["A = I without decay", [at(1, 2, 1), at(1, 1, 4)], noisy, "+inf"],
    ["A = -I without decay", [at(-1, 2, 1), at(-1, 1, 4)], noisy, "-inf"],
    ["A = I with decay", [at(1, 2, 1), at(1, 1, 4)], decaying, "finite"],
    ["A = -I with decay", [at(-1, 2, 1), at(-1, 1, 4)], decaying, "finite"],
    ["A indefinite, noise where mu > 0 alone", [at(1, 2, 1), at(-1, 0, 1)], noisy, "+inf"],
    ["A indefinite, noise where mu < 0 alone", [at(1, 0, 1), at(-1, 2, 1)], noisy, "-inf"],
    ["no noise and no decay (interpolation)", [at(1, 0, 1), at(-1, 0, 1)], noisy, "flat"],
    ["no noise, decay against itself", [at(1, 0, 1), at(-2, 0, 3)], decaying, "finite"],
    ["no noise, decay where mu > 0 alone", [at(1, 0, 1), at(-1, 0, 0)], decaying, "-inf"],
    ["no noise, decay where mu < 0 alone", [at(1, 0, 0), at(-1, 0, 1)], decaying, "+inf"],
    ["decay that only helps the noise", [at(1, 2, 0), at(-1, 0, 1)], decaying, "+inf"],
    ["sigma2 = 0: GD without decay", [at(1, 2, 1), at(-1, 3, 1)], { sigma2: 0, gamma: 0 }, "flat"],
    ["theta = 0 and no noise along the generator", [at(1, 0, 0), at(-1, 0, 0)], decaying, "flat"],
    ["no directions", [], decaying, "flat"],
    ["mu = 0 alone", [at(0, 1, 1)], decaying, "flat"],
  ])("%s", (_, directions, setting, status) => {
    const e = solveEquilibrium(directions, setting);
    expect(e.status).toBe(status);
    const lambda = { finite: e.lambda, "+inf": Infinity, "-inf": -Infinity, flat: 0 }[status];
    expect(e.lambda).toBe(lambda);
    const sum = directions.reduce((C, { mu, q }) => C + 0.5 * mu * q, 0);
    expect(e.charge0).toBeCloseTo(sum, 14);
    if (status === "flat") expect([e.flow0, e.charge]).toEqual([0, e.charge0]);
  });
  test("an infinite lambda takes the charge to infinity, or to 0 where theta has no such part", () => {
    expect(solveEquilibrium([at(1, 2, 1)], noisy).charge).toBe(Infinity);
    expect(solveEquilibrium([at(-1, 2, 1)], noisy).charge).toBe(-Infinity);
    expect(solveEquilibrium([at(1, 2, 0), at(-1, 0, 1)], noisy).charge).toBe(0);
  });
  test("no theta along the directions, but noise: reached at once", () => {
    expect(solveEquilibrium([at(1, 2, 0), at(-1, 2, 0)], noisy)).toMatchObject({ lambda: 0, rate: Infinity });
  });
  test("a rate is finite where the slope and |A theta|^2 are beyond 1.8e308", () => {
    const e = solveEquilibrium([at(100, 1e300, 1e308), at(-100, 1e300, 1e308)], { sigma2: 1e6 });
    expect(e).toMatchObject({ status: "finite", lambda: 0, slope: -Infinity, charge: 0 });
    expect(e.rate).toBeCloseTo(0.02, 15);
  });
  test("mu below 1e-12 of the largest does not make a large finite root", () => {
    expect(solveEquilibrium([at(1, 2, 1), at(-1e-13, 1, 1)], noisy).status).toBe("+inf");
    expect(solveEquilibrium([at(1, 2, 1), at(-1e-11, 1, 1)], noisy).status).toBe("finite");
  });
});

describe("closed forms", () => {
  test("all |mu| = m: lambda* = ln(P / M) / (4 m), in one iteration", () => {
    const u = uniforms(5);
    for (let k = 0; k < 200; k++) {
      const m = 10 ** (4 * (u() - 0.5));
      const gamma = u() < 0.5 ? 0 : u();
      const directions = Array.from({ length: 8 }, (_, i) =>
        at(i % 2 ? m : -m, 10 ** (8 * u()), 10 ** (8 * u())),
      );
      const e = solveEquilibrium(directions, { sigma2: 0.3, gamma });
      const total = (sign: number, of: "s" | "q") =>
        directions.reduce((sum, d) => sum + (d.mu * sign > 0 ? d[of] : 0), 0);
      const P = 0.3 * total(1, "s") + 2 * gamma * total(-1, "q");
      const M = 0.3 * total(-1, "s") + 2 * gamma * total(1, "q");
      expect(Math.abs(e.lambda - Math.log(P / M) / (4 * m)) * m).toBeLessThan(1e-14);
      expect(e.iterations).toBeLessThanOrEqual(1);
    }
  });
  test("A = I with decay: |theta|^4 = sigma2 n / (2 gamma) with n = Tr Sigma at unit norm", () => {
    const e = solveEquilibrium([at(1, 3, 1.5), at(1, 1, 0.5)], { sigma2: 0.01, gamma: 0.05 });
    expect((2 * e.charge) ** 2).toBeCloseTo((0.01 * (4 * 2)) / (2 * 0.05), 12);
    expect(e.rate).toBeCloseTo(8 * 0.05, 12); // of r^4, and of C^2
  });
  test("y = (1, 1) x + eps with one hidden unit: C* and 1 / tau_2 of theory 15, E28", () => {
    // theory 9: S_U = w Gamma_W w, S_W = u Gamma_U u for the product u w = p (1, 1) / sqrt 2, e = p - sqrt 2
    const directions = (u2: number, p: number) => {
      const [w2, e2] = [p ** 2 / u2, (p - Math.SQRT2) ** 2];
      return [at(1, 4 * (2 + 3 * e2) * w2, u2), at(-1, 4 * (1 + 2 * e2) * u2, w2)];
    };
    const sigma2 = 0.01 / 8;
    for (const u2 of [2, 0.3, 9]) {
      const free = solveEquilibrium(directions(u2, Math.SQRT2), { sigma2 });
      expect([free.charge, free.rate].map((x) => Number(x.toPrecision(4)))).toEqual([0.5, 0.01333]);
      // decay makes the product smaller, e = -2 gamma p / (|u|^2 + w^2), and |u|^2 + w^2 = 2 sqrt(C^2 + p^2)
      let p = Math.SQRT2;
      let held = free;
      for (let k = 0; k < 50; k++) {
        held = solveEquilibrium(directions(u2, p), { sigma2, gamma: 0.01 });
        p = Math.SQRT2 - (0.01 * p) / Math.sqrt(held.charge ** 2 + p ** 2);
      }
      expect([held.charge, held.rate].map((x) => Number(x.toPrecision(4)))).toEqual([0.1282, 0.05455]);
    }
  });
});

// ---- properties

const energies = fc.oneof(fc.constant(0), fc.double({ min: 1e-3, max: 1e3, noNaN: true }));
const direction = fc.record({
  mu: fc.oneof(
    fc.double({ min: -3, max: -0.01, noNaN: true }),
    fc.double({ min: 0.01, max: 3, noNaN: true }),
  ),
  s: energies,
  q: energies,
});
const system = fc.record({
  directions: fc.array(direction, { minLength: 1, maxLength: 12 }),
  setting: fc.record({
    sigma2: fc.double({ min: 1e-4, max: 1, noNaN: true }),
    gamma: fc.oneof(fc.constant(0), fc.double({ min: 1e-4, max: 1, noNaN: true })),
  }),
});
const finiteSystem = system.filter((c) => statusOf(c) === "finite");
const kick = fc.double({ min: -2, max: 2, noNaN: true });

/** The spectrum at e^(k A) theta. */
const moved = (directions: readonly Direction[], k: number): Direction[] =>
  directions.map(({ mu, s, q }) => at(mu, s * Math.exp(-2 * k * mu), q * Math.exp(2 * k * mu)));
/** Gross flow P + M, the unit in which f is rounded. */
const gross = (directions: readonly Direction[], setting: EquilibriumSetting) =>
  directions.reduce(
    (t, { mu, s, q }) => t + Math.abs(mu) * (setting.sigma2 * s + 2 * (setting.gamma ?? 0) * q),
    0,
  );

describe("the flow along an orbit", () => {
  test("is the flow at the moved point, and so is the charge", () => {
    fc.assert(
      fc.property(system, kick, ({ directions, setting }, k) => {
        const there = moved(directions, k);
        const flow = there.reduce(
          (sum, { mu, s, q }) => sum + mu * (setting.sigma2 * s - 2 * setting.gamma * q),
          0,
        );
        expect(Math.abs(flowAt(directions, k, setting) - flow)).toBeLessThanOrEqual(
          1e-13 * gross(there, setting),
        );
        const charge = there.reduce((sum, { mu, q }) => sum + 0.5 * mu * q, 0);
        const size = there.reduce((sum, { mu, q }) => sum + Math.abs(mu) * q, 0);
        expect(Math.abs(chargeAt(directions, k) - charge)).toBeLessThanOrEqual(1e-13 * size);
        expect(chargeAt(directions, 0)).toBe(solveEquilibrium(directions, setting).charge0);
        expect(flowAt(directions, 0, setting)).toBe(solveEquilibrium(directions, setting).flow0);
      }),
    );
  });
  test("never increases", () => {
    fc.assert(
      fc.property(system, kick, kick, ({ directions, setting }, a, b) => {
        const [low, high] = [Math.min(a, b), Math.max(a, b)];
        const rounding = 1e-14 * gross(moved(directions, low), setting);
        expect(flowAt(directions, high, setting)).toBeLessThanOrEqual(
          flowAt(directions, low, setting) + rounding,
        );
      }),
    );
  });
  test("has the derivative slopeAt, and the charge has fieldAt: the error of differences falls by 4", () => {
    fc.assert(
      fc.property(system, kick, ({ directions, setting }, k) => {
        const check = (f: (lambda: number) => number, exact: number, unit: number) => {
          const error = (h: number) => Math.abs((f(k + h) - f(k - h)) / (2 * h) - exact);
          const [coarse, fine] = [error(2e-3), error(1e-3)];
          const rounding = 1e-9 * unit; // and the h^4 term, where that in h^2 cancels
          expect(fine).toBeLessThanOrEqual(coarse / 3.9 + rounding);
        };
        const there = moved(directions, k);
        const size = there.reduce((sum, { mu, q }) => sum + Math.abs(mu) * q, 0);
        check((x) => flowAt(directions, x, setting), slopeAt(directions, k, setting), gross(there, setting));
        check((x) => chargeAt(directions, x), fieldAt(directions, k), size);
      }),
    );
  });
  test("is exact over all magnitudes, and +-Infinity only beyond 1.8e308", () => {
    expect(flowAt([at(1, 1e300, 0)], -100, { sigma2: 1e-110 }) / (1e190 * Math.exp(200))).toBeCloseTo(1, 13);
    expect(flowAt([at(1, 1e300, 0)], -100, { sigma2: 1e-10 })).toBe(Infinity); // 7e376
    expect(flowAt([at(1, 1e-300, 0)], -350, { sigma2: 1e-10 }) / (1e-310 * 1e304)).toBeCloseTo(
      Math.exp(700 - 304 * Math.LN10),
      10,
    );
    expect(flowAt([at(1, 1e300, 0)], 345, { sigma2: 1e20 }) / 1e20).toBeCloseTo(
      Math.exp(300 * Math.LN10 - 690),
      10,
    );
    expect(flowAt([at(1, 1, 1), at(-1, 2, 1)], -1000, { sigma2: 1, gamma: 1 })).toBe(Infinity);
    expect(flowAt([at(1, 1, 1), at(-1, 2, 1)], 1000, { sigma2: 1, gamma: 1 })).toBe(-Infinity);
    expect([chargeAt([at(1, 0, 1)], Infinity), chargeAt([at(1, 0, 1)], -Infinity)]).toEqual([Infinity, 0]);
  });
});

describe("the equilibrium", () => {
  test("of an equilibrium is lambda = 0, to rounding", () => {
    fc.assert(
      fc.property(finiteSystem, ({ directions, setting }) => {
        const { lambda } = solveEquilibrium(directions, setting);
        fc.pre(Math.abs(lambda) < 50);
        const again = solveEquilibrium(moved(directions, lambda), setting);
        expect(Math.abs(again.lambda)).toBeLessThan(1e-13 * (1 + Math.abs(lambda)));
        expect(Math.abs(again.flow0)).toBeLessThan(
          1e-12 * (1 + Math.abs(lambda)) * gross(moved(directions, lambda), setting),
        );
      }),
    );
  });
  test("moves by -k when theta is kicked by e^(k A); the point, its charge, slope and rate stay", () => {
    fc.assert(
      fc.property(finiteSystem, kick, ({ directions, setting }, k) => {
        const before = solveEquilibrium(directions, setting);
        fc.pre(Math.abs(before.lambda) < 50);
        const after = solveEquilibrium(moved(directions, k), setting);
        const scale = 1 + Math.abs(before.lambda);
        expect(Math.abs(after.lambda - before.lambda + k)).toBeLessThan(1e-13 * scale);
        expect(relative(after.slope, before.slope)).toBeLessThan(1e-12 * scale);
        const still = directions.every(({ q }) => q === 0);
        if (!still) expect(relative(after.rate, before.rate)).toBeLessThan(1e-12 * scale);
      }),
    );
  });
  test("minimises sigma2 Tr Sigma + 2 gamma |theta|^2 along the orbit, and f = -1/2 its derivative", () => {
    fc.assert(
      fc.property(finiteSystem, ({ directions, setting }) => {
        const { lambda } = solveEquilibrium(directions, setting);
        fc.pre(Math.abs(lambda) < 20);
        const noise = (x: number) =>
          moved(directions, x).reduce((sum, { s, q }) => sum + setting.sigma2 * s + 2 * setting.gamma * q, 0);
        const least = noise(lambda);
        for (const step of [-0.5, -0.01, 0.01, 0.5])
          expect(noise(lambda + step)).toBeGreaterThanOrEqual(least * (1 - 1e-14));
      }),
    );
  });
  test("scales: ell -> c ell, A -> a A, theta -> r theta", () => {
    fc.assert(
      fc.property(
        finiteSystem,
        fc.double({ min: 0.1, max: 10, noNaN: true }),
        ({ directions, setting }, c) => {
          const e = solveEquilibrium(directions, setting);
          fc.pre(Math.abs(e.lambda) < 50 && directions.some(({ q }) => q > 0));
          const tolerance = 1e-11 * (1 + Math.abs(e.lambda));
          // Sigma -> c^2 Sigma, gamma -> c^2 gamma: the same root, rates c^2 as fast
          const loud = solveEquilibrium(
            directions.map((d) => ({ ...d, s: c * c * d.s })),
            { sigma2: setting.sigma2, gamma: c * c * setting.gamma },
          );
          expect(Math.abs(loud.lambda - e.lambda)).toBeLessThan(tolerance);
          expect(relative(loud.rate, c * c * e.rate)).toBeLessThan(tolerance);
          // A -> c A: the same point after lambda / c, the same rate
          const steep = solveEquilibrium(
            directions.map((d) => ({ ...d, mu: c * d.mu })),
            setting,
          );
          expect(Math.abs(steep.lambda * c - e.lambda)).toBeLessThan(tolerance);
          expect(relative(steep.rate, e.rate)).toBeLessThan(tolerance);
          expect(relative(steep.slope, c * c * e.slope)).toBeLessThan(tolerance);
          // theta -> c theta with Sigma / c^2 and sigma2 c^4 (the same loss in other units)
          const wide = solveEquilibrium(
            directions.map(({ mu, s, q }) => at(mu, s / (c * c), q * c * c)),
            { sigma2: setting.sigma2 * c ** 4, gamma: setting.gamma },
          );
          expect(Math.abs(wide.lambda - e.lambda)).toBeLessThan(tolerance);
          expect(relative(wide.rate, e.rate)).toBeLessThan(tolerance);
        },
      ),
    );
  });
  test("depends neither on the order of directions nor on how those of one mu are split", () => {
    fc.assert(
      fc.property(finiteSystem, ({ directions, setting }) => {
        const e = solveEquilibrium(directions, setting);
        const split = [...directions]
          .reverse()
          .flatMap(({ mu, s, q }) => [at(mu, s / 4, q / 2), at(mu, 0.75 * s, q / 2)]);
        expect(Math.abs(solveEquilibrium(split, setting).lambda - e.lambda)).toBeLessThan(
          1e-13 * (1 + Math.abs(e.lambda)),
        );
      }),
    );
  });
});

describe("refusals", () => {
  const message = (directions: Direction[], setting: EquilibriumSetting): string => {
    try {
      solveEquilibrium(directions, setting);
    } catch (error) {
      expect(error).toBeInstanceOf(NoetherflowError);
      return (error as Error).message;
    }
    return "";
  };
  test.each([
    [
      [at(1, 1, 1)],
      { sigma2: 1, gamma: -1 },
      "equilibrium: gamma must be a finite number of at least 0, got -1.",
    ],
    [[at(1, 1, 1)], { sigma2: -1 }, "equilibrium: sigma2 must be a finite number of at least 0, got -1."],
    [[at(1, -1, 1)], { sigma2: 1 }, "equilibrium: s must be a finite number of at least 0, got -1."],
    [[at(1, 1, Number.NaN)], { sigma2: 1 }, "equilibrium: q must be a finite number of at least 0, got NaN."],
    [[at(Infinity, 1, 1)], { sigma2: 1 }, "equilibrium: mu must be a finite number, got Infinity."],
    [
      [at(1e-200, 1, 1)],
      { sigma2: 1 },
      "equilibrium: the largest |mu| must lie in [1e-100, 1e100], got 1e-200. Scale the generator.",
    ],
  ])("%j %j", (directions, setting, text) => {
    expect(message(directions, setting)).toBe(text);
  });
  test("a lambda that is not a number, or infinite where a flow is asked for", () => {
    const one = [at(1, 1, 1)];
    expect(() => flowAt(one, Infinity, { sigma2: 1 })).toThrow(
      "flowAt: lambda must be a finite number, got Infinity.",
    );
    expect(() => slopeAt(one, Number.NaN, { sigma2: 1 })).toThrow(
      "slopeAt: lambda must be a finite number, got NaN.",
    );
    expect(() => chargeAt(one, Number.NaN)).toThrow("chargeAt: lambda must be a finite number, got NaN.");
    expect(() => fieldAt(one, Number.NaN)).toThrow("fieldAt: lambda must be a finite number, got NaN.");
  });
});

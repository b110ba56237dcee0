/**
 * Every example runs as it stands, prints something, and finds what theory says. The oracles here are closed forms and
 * plain loops; a statistical alarm is at 4.9 standard errors (one in a million), with the seeds fixed in the examples.
 */
import { readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";

const SECONDS = 1000;
/** Examples promise five seconds; a loaded machine gets four times that. */
const LIMIT = 20 * SECONDS;

const printed: string[] = [];
beforeEach(() => {
  printed.length = 0;
  vi.spyOn(console, "log").mockImplementation((...parts: unknown[]) => void printed.push(parts.join(" ")));
});
afterEach(() => {
  vi.restoreAllMocks();
});

test("the folder holds the examples that are tested here and no other", () => {
  const files = readdirSync(fileURLToPath(new URL("../examples", import.meta.url)));
  expect(files.sort()).toEqual([
    "01-first-charge.ts",
    "02-your-own-model.ts",
    "03-replicas-and-records.ts",
    "04-sampler-teacher.ts",
    "05-gradient-noise.ts",
    "06-curvature.ts",
    "07-symmetries.ts",
    "08-schemes.ts",
    "09-record-and-resume.ts",
    "10-many-runs.ts",
    "live",
    "models",
  ]);
});

describe("01-first-charge", () => {
  test(
    "GD follows the plain loop, SGD the law, and the change of C is the work",
    async () => {
      const { eta, steps, gd, sgd } = (await import("../examples/01-first-charge.ts")).found;
      expect(printed).toHaveLength(6);
      for (const run of [gd, sgd]) {
        const { charges, work } = run.series;
        // rounding of 20,000 steps of a charge of size 1
        for (const [i, C] of charges.C!.entries())
          expect(Math.abs(C - charges.C![0]! - work.C![i]!)).toBeLessThan(1e-12);
      }
      let [u, w] = [1.5, 0.5];
      for (let k = 0; k < steps; k++) {
        // mean over the data of 2 (u w x - y) x, with x^2 = 1 and E[x y] = 1
        const delta = 2 * (u * w - 1);
        [u, w] = [u - eta * delta * w, w - eta * delta * u];
      }
      expect(gd.theta[0]).toBeCloseTo(u, 12);
      expect(gd.theta[1]).toBeCloseTo(w, 12);
      // -ln C(K)/C(0) = 8 sigma2 t (1 + O(eta)); the O(eta) is Var v + eta (u^2 + w^2), about 2 %, v = u w.
      // One run: a step adds 4 eta^2 (1 +- 2 (v - 1)), so with Var v = 2 eta its standard error is 8 eta^2 sqrt(2 eta K).
      const decay = -Math.log(sgd.series.charges.C!.at(-1)! / sgd.series.charges.C![0]!);
      const predicted = 4 * eta * eta * steps;
      const stdErr = 8 * eta * eta * Math.sqrt(2 * eta * steps);
      expect(Math.abs(decay - predicted)).toBeLessThan(4.9 * stdErr + 0.02 * predicted);
    },
    LIMIT,
  );
});

describe("02-your-own-model", () => {
  test(
    "the loss is the file's, and the budget of the charge closes for the symmetry alone",
    async () => {
      const { linear, tanh, data } = (await import("../examples/02-your-own-model.ts")).found;
      expect(printed).toHaveLength(3);
      const M = [
        [2, 0.5],
        [0.5, 1],
      ];
      const lossBy = (theta: ArrayLike<number>, act: (z: number) => number): number => {
        const losses = data.x.map((x, n) => {
          const z = [0, 1, 2].map((j) => act(theta[6 + 2 * j]! * x[0]! + theta[7 + 2 * j]! * x[1]!));
          const r = [0, 1].map(
            (i) =>
              theta[3 * i]! * z[0]! + theta[3 * i + 1]! * z[1]! + theta[3 * i + 2]! * z[2]! - data.y[n]![i]!,
          );
          return r.reduce((sum, ri, i) => sum + r.reduce((s, rj, j) => s + ri * M[i]![j]! * rj, 0), 0);
        });
        return losses.reduce((a, b) => a + b) / losses.length;
      };
      expect(linear.lossBefore).toBeCloseTo(
        lossBy(linear.theta, (z) => z),
        12,
      );
      expect(tanh.lossBefore).toBeCloseTo(lossBy(tanh.theta, Math.tanh), 12);
      for (const { lossBefore, lossAfter } of [linear, tanh]) expect(lossAfter).toBeLessThan(lossBefore);
      expect(Math.abs(linear.change)).toBeGreaterThan(0.01);
      expect(Math.abs(linear.change - linear.work)).toBeLessThan(1e-12); // rounding of 500 steps
      expect(Math.abs(tanh.change - tanh.work)).toBeGreaterThan(0.01);
    },
    LIMIT,
  );
});

describe("03-replicas-and-records", () => {
  test(
    "the variance of SGD at the minimum is eta Var x / (S (1 - eta)), |z| < 4.9, 256 replicas each",
    async () => {
      const { rows, csv, isSame } = (await import("../examples/03-replicas-and-records.ts")).found;
      expect(rows.map((row) => row.eta)).toEqual([0.02, 0.05, 0.1, 0.2]);
      for (const { measured, predicted } of rows) {
        // the standard error of a variance of normals; z = 4.9 is 43 %, so a factor of 2 is seen
        const z = (measured - predicted) / (predicted * Math.sqrt(2 / 255));
        expect(Math.abs(z)).toBeLessThan(4.9);
      }
      const lines = csv.trimEnd().split("\n");
      expect(lines).toHaveLength(1 + 3 * 1024);
      expect(lines[0]).toBe("k,t,replica,loss,norm.m");
      expect(isSame).toBe(true);
    },
    LIMIT,
  );
});

describe("04-sampler-teacher", () => {
  test(
    "losses are those of the law, and one step of SGD moves C by (eta^2 / 2S) Tr[Sigma A], |z| < 4.9",
    async () => {
      const { loss, mean, stdErr, predicted, gdChange } = (await import("../examples/04-sampler-teacher.ts"))
        .found;
      expect(loss.exact).toBeCloseTo(0.3 * 0.3 + 0.8 * 0.8, 12);
      expect(loss.population).toBeCloseTo(loss.exact, 12);
      expect(loss.fresh.count).toBe(20_000);
      expect(Math.abs(loss.fresh.value - loss.exact)).toBeLessThan(4.9 * loss.fresh.stdErr);
      expect(Math.abs(loss.finite - loss.exact)).toBeLessThan(4.9 * loss.fresh.stdErr);
      expect(Math.abs(mean - predicted)).toBeLessThan(4.9 * stdErr);
      expect(stdErr).toBeLessThan(0.05 * predicted);
      // the mean gradient is 0 to rounding, and enters squared
      expect(Math.abs(gdChange)).toBeLessThan(1e-20);
    },
    LIMIT,
  );
});

describe("05-gradient-noise", () => {
  test(
    "estimates are those of the whole set, and of the law, |z| < 4.9; the moments give the power to 1e-12",
    async () => {
      const { rows, byMoments, top } = (await import("../examples/05-gradient-noise.ts")).found;
      expect(printed).toHaveLength(6 + 4 + 2);
      const [whole, ...sampled] = rows;
      expect(whole!.slice(1)).toMatchObject([
        { stdErr: 0, method: "exact" },
        { stdErr: 0, method: "exact" },
      ]);
      expect(Math.abs(byMoments - whole![2].value)).toBeLessThan(1e-12);
      expect(sampled.map(([, trace]) => trace.count)).toEqual([100, 1000, 1000, 100_000]);
      const z = (a: { value: number; stdErr: number }, b: { value: number; stdErr: number }) =>
        Math.abs(a.value - b.value) / Math.sqrt(a.stdErr * a.stdErr + b.stdErr * b.stdErr);
      const law = sampled[3]!;
      for (const k of [1, 2] as const) {
        // draws against their set, few fresh samples against many
        for (const row of sampled.slice(0, 2)) expect(z(row[k], whole![k])).toBeLessThan(4.9);
        expect(z(sampled[2]![k], law[k])).toBeLessThan(4.9);
        // ten times the samples: the standard error falls by sqrt(10), to within a factor of 2
        const fall = sampled[0]![k].stdErr / sampled[1]![k].stdErr;
        expect(Math.abs(Math.log(fall / Math.sqrt(10)))).toBeLessThan(Math.log(2));
      }
      expect(top).toHaveLength(3);
      for (const [i, { value, residual, converged }] of top.entries()) {
        expect(value).toBeGreaterThan(0);
        expect(value).toBeLessThanOrEqual(top[i - 1]?.value ?? Infinity);
        expect([converged, residual < 1e-7]).toEqual([true, true]);
      }
    },
    LIMIT,
  );
});

describe("06-curvature", () => {
  test(
    "traces are that of the matrix, |z| < 4.9; eigenvalues are where the matrix has them, within their residuals",
    async () => {
      const { traces, max, min, gaussNewton, density, shares, H, P } = (
        await import("../examples/06-curvature.ts")
      ).found;
      expect(printed).toHaveLength(5 + 4 + 6);
      let trace = 0;
      for (let i = 0; i < P; i++) trace += H[i * P + i]!;
      for (const { method, estimate } of traces) {
        if (method === "exact") expect(Math.abs(estimate.value - trace)).toBeLessThan(1e-12 * P);
        else expect(Math.abs(estimate.value - trace)).toBeLessThan(4.9 * estimate.stdErr);
      }
      const errors = traces.map(({ estimate }) => estimate.stdErr);
      expect(errors[2]!).toBeLessThan(errors[1]!); // hutch++ against Hutchinson
      expect(errors[3]!).toBeLessThan(errors[2]!); // xtrace against hutch++
      // |H v - lambda v| of the vectors, by the matrix
      for (const { value, residual, vector } of [max, min]) {
        let squares = 0;
        for (let i = 0; i < P; i++) {
          let sum = -value * vector[i]!;
          for (let j = 0; j < P; j++) sum += H[i * P + j]! * vector[j]!;
          squares += sum * sum;
        }
        expect(Math.sqrt(squares)).toBeLessThan(residual + 1e-12);
        expect(residual).toBeLessThan(1e-7 * max.value);
      }
      // no other direction bends more, or less
      for (let i = 0; i < P; i++) {
        expect(H[i * P + i]!).toBeLessThanOrEqual(max.value + 1e-12);
        expect(H[i * P + i]!).toBeGreaterThanOrEqual(min.value - 1e-6);
      }
      expect(gaussNewton.min.value).toBeGreaterThan(-1e-12);
      expect(min.value).toBeLessThan(0);
      const mean = density.average((x) => x);
      expect(Math.abs(P * mean.value - trace)).toBeLessThan(4.9 * P * mean.stdErr);
      expect(shares.at(-1)!.value).toBeCloseTo(1, 12);
    },
    LIMIT,
  );
});

describe("07-symmetries", () => {
  test(
    "finds the double rotation of U W and the scale of V, and no other",
    async () => {
      const { plain, decayed } = (await import("../examples/07-symmetries.ts")).found;
      const rows = (class_: number) => plain.rows.filter((row) => row.class === class_);
      // h (h + 1) / 2 symmetric B for h = 2, and one scale
      expect(plain.rows).toHaveLength(4);
      expect(rows(1)).toHaveLength(3);
      for (const row of rows(1)) {
        expect(row.name).toContain("double rotation U, W");
        expect(row.equilibrium?.status).toBe("finite");
      }
      expect(rows(2).map((row) => [row.name, row.equilibrium?.status])).toEqual([["scaling of V", "+inf"]]);
      expect(decayed.rows.every((row) => row.equilibrium?.status === "finite")).toBe(true);
      expect(plain.rows.every((row) => row.conserved && row.defect < 1e-10)).toBe(true);
      expect(printed.join("\n")).toContain("4 generators found");
    },
    LIMIT,
  );
});

describe("08-schemes", () => {
  test(
    "noise moves the charge alike in SGD, SDE and SVAG, as predicted along the way; GD and the flow keep it",
    async () => {
      const { runs, eta } = (await import("../examples/08-schemes.ts")).found;
      expect(printed).toHaveLength(6);
      const ends = (run: { replicas: number; series: { charges: Record<string, Float64Array> } }) =>
        run.series.charges.C!.slice(-run.replicas);
      const mean = (x: Float64Array) => x.reduce((a, b) => a + b, 0) / x.length;
      const stdErr = (x: Float64Array) =>
        Math.sqrt(x.reduce((s, v) => s + (v - mean(x)) ** 2, 0) / (x.length - 1) / x.length);
      const start = (1.8 ** 2 - 0.5 ** 2) / 2;
      // the flow keeps it to its tolerance, and descent moves it by at most 2 eta (L(0) - L(end)) / 2
      expect(Math.abs(ends(runs["gradient flow"])[0]! - start)).toBeLessThan(1e-6);
      expect(Math.abs(ends(runs["gradient descent"])[0]! - start)).toBeLessThan(eta);
      const noisy = [runs["SGD, S = 4"], runs["SDE of it"], runs["SVAG, l = 2"]];
      for (const run of noisy) {
        // exp(-8 sigma^2 D t) = exp(-0.2 D), D = Var(x y) of 64 samples, 1 +- 0.18
        expect(mean(ends(run))).toBeLessThan(0.95 * start);
        // the prediction is summed along the very path, so only its own noise and the steps of 100 are between: of order
        // eta (u^2 + w^2) of the change
        const change = start - mean(ends(run));
        const predicted = run.probes!.values["predicted.C"]!.slice(-run.replicas);
        const gap = Float64Array.from(predicted, (p, r) => p - ends(run)[r]!);
        expect(Math.abs(mean(gap))).toBeLessThan(4.9 * stdErr(gap) + 3.5 * eta * change);
      }
      for (const run of noisy.slice(1)) {
        const [a, b] = [ends(runs["SGD, S = 4"]), ends(run)];
        const allowed = 4.9 * Math.hypot(stdErr(a), stdErr(b)) + 3.5 * eta * (start - mean(a));
        expect(Math.abs(mean(a) - mean(b))).toBeLessThan(allowed);
      }
    },
    LIMIT,
  );
});

describe("09-record-and-resume", () => {
  test(
    "a run that was ended goes on to the bits of one that was not, and its record is replayed and exported",
    async () => {
      const { whole, run, record, step, unfinished, same, differences, lines } = (
        await import("../examples/09-record-and-resume.ts")
      ).found;
      expect(unfinished.sort()).toEqual(["checkpoint.bin", "run.json"]);
      expect(step).toBeGreaterThan(0);
      expect(step).toBeLessThan(1_000_000);
      expect([run.hash, record.hash, record.run!.hash]).toEqual([whole.hash, whole.hash, whole.hash]);
      expect(record.sessions).toHaveLength(2);
      expect([same, differences]).toEqual([true, []]);
      expect(`${lines.join("\n")}\n`).toBe(whole.toCSV());
      // C = C(0) + work in every line that was read back
      const { charges, work } = record.run!.series;
      for (const [i, C] of charges["C"]!.entries())
        expect(Math.abs(C - charges["C"]![0]! - work["C"]![i]!)).toBeLessThan(1e-11);
      expect(printed).toHaveLength(6);
    },
    LIMIT,
  );
});

describe("10-many-runs", () => {
  test(
    "the charge decays at the rate of every batch size, |z| < 4.9, and workers change no bit",
    async () => {
      const { eta, steps, replicas, rows, mistakes, last, isSame } = (
        await import("../examples/10-many-runs.ts")
      ).found;
      expect(rows.map(({ S }) => S)).toEqual([1, 2, 4, 8]);
      for (const { S, measured, predicted } of rows) {
        expect(predicted).toBeCloseTo((4 * eta * eta * steps) / S, 12);
        // the standard error and the O(eta) of example 01, which are largest at S = 1
        const stdErr = (8 * eta * eta * Math.sqrt(2 * eta * steps)) / Math.sqrt(replicas);
        expect(Math.abs(measured - predicted)).toBeLessThan(4.9 * stdErr + 0.02 * predicted);
      }
      expect(mistakes).toEqual([expect.stringContaining("sgd: batch size S must be an integer in [1, ")]);
      expect(last).toBe(5);
      expect(isSame).toBe(true);
      expect(printed).toHaveLength(7);
    },
    LIMIT,
  );
});

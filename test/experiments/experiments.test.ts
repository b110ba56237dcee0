import { beforeAll, describe, expect, test } from "vitest";
import { lawOfQ } from "../../src/experiments/e01-rescaling.ts";
import { experiments, runExperiment } from "../../src/experiments/experiment.ts";
import { createEngine, type Engine } from "../../src/index.ts";

/** A machine under load takes many times the second that quick settings promise. */
const LIMIT = 60_000;

let engine: Engine;
beforeAll(async () => {
  engine = await createEngine();
});

describe.each([...experiments.values()].map((e) => [e.id, e] as const))("%s", (id, experiment) => {
  const seen: number[] = [];
  let first: ReturnType<typeof runExperiment> | undefined;
  /** One run at the settings for a first look, for all that is asked below. */
  const once = () => {
    first ??= runExperiment(experiment, engine, experiment.quick ?? {}, "smoke", {
      onProgress: (f) => seen.push(f),
    });
    return first;
  };

  test(
    "every row holds a finite prediction, a finite measurement and the verdict they imply",
    async () => {
      expect(experiment.quick).toBeDefined();
      const result = await once();
      expect(result.rows.length).toBeGreaterThan(0);
      for (const { setting, quantity, predicted, measured, verdict } of result.rows) {
        const what = `${setting}, ${quantity}`;
        const numbers = [predicted.value, predicted.modelError, measured.value, measured.stdErr];
        expect(numbers.every(Number.isFinite), `${what}: ${numbers.join(", ")}`).toBe(true);
        expect(verdict.gap, what).toBeCloseTo(measured.value - predicted.value, 12);
        const plain = Math.abs(verdict.gap) <= 4.9 * measured.stdErr + predicted.modelError;
        if (verdict.limit === undefined) expect(verdict.agrees, what).toBe(plain);
        else expect(verdict.agrees || !plain, what).toBe(true);
      }
      for (const figure of result.figures) {
        expect(figure.xLabel !== "" && figure.yLabel !== "" && figure.caption !== "").toBe(true);
        for (const c of figure.curves) {
          expect(c.x.length).toBe(c.y.length);
          if (c.error !== undefined) expect(c.error.length).toBe(c.y.length);
        }
      }
      expect(result.figures.length).toBeGreaterThan(0);
      expect(Math.max(...seen)).toBeLessThanOrEqual(1);
    },
    LIMIT,
  );

  test(
    "the same seed gives the same bits",
    async () => {
      const hashes = (runs: Readonly<Record<string, { hash: string }>>) =>
        Object.values(runs).map((run) => run.hash);
      const again = await runExperiment(experiment, engine, experiment.quick ?? {}, "smoke");
      const { runs, rows } = await once();
      expect(hashes(again.runs)).toEqual(hashes(runs));
      expect(again.rows).toEqual(rows);
    },
    LIMIT,
  );

  test(
    "every run has the description that does it again",
    async () => {
      const { runs, specs = {} } = await once();
      const [name] = Object.keys(specs);
      // those that keep no descriptions say so by an empty list
      expect(Object.keys(specs).every((n) => n in runs)).toBe(true);
      if (name === undefined) return;
      expect(Object.keys(specs).sort()).toEqual(Object.keys(runs).sort());
      const { problem, options } = engine.open(structuredClone(specs[name]!));
      expect((await problem.simulate(options)).hash).toBe(runs[name]!.hash);
      problem.dispose();
    },
    LIMIT,
  );

  test("a setting out of its range, or unknown, is refused with a sentence", async () => {
    const [name, { max }] = Object.entries(experiment.parameters)[0]!;
    await expect(runExperiment(experiment, engine, { [name]: 2 * max + 1 }, "x")).rejects.toThrow(
      `${id}: ${name} must be `,
    );
    await expect(runExperiment(experiment, engine, { nosuchsetting: 0.01 }, "x")).rejects.toThrow(
      `${id}: settings are `,
    );
  });
});

describe("the law of Q", () => {
  const moments = { alpha: 1, b1: 1, a: 2, b: 2, c: 3 };

  test("without batch noise it is the product formula of gradient descent, to rounding", () => {
    const [eta, steps] = [0.02, 500];
    const law = lawOfQ(eta, Infinity, steps, 2, 0.1, moments);
    let [u, w, product] = [2, 0.1, 1];
    for (let k = 0; k < steps; k++) {
      const delta = 2 * (u * w - 1);
      product *= 1 - eta * eta * delta * delta;
      [u, w] = [u - eta * delta * w, w - eta * delta * u];
    }
    expect(law.decay[steps]).toBeCloseTo(-Math.log(product), 12);
    expect((u * u - w * w) / (4 - 0.01)).toBeCloseTo(product, 12);
  });

  test("at small eta it is exp(-8 sigma^2 int D dt) with D at the minimum", () => {
    // started at the minimum, u w = 1: D = a - 2 b + c = 1
    const [eta, S, steps] = [1e-4, 4, 20_000];
    const law = lawOfQ(eta, S, steps, 2, 0.5, moments);
    const sde = 8 * (eta / (2 * S)) * eta * steps;
    // corrections are of relative order eta (u^2 + w^2)
    expect(Math.abs(law.decay[steps]! / sde - 1)).toBeLessThan(2 * eta * 4.25);
  });
});

import { beforeAll, describe, expect, test } from "vitest";
import { lawOfQ } from "../../src/experiments/e01-rescaling.ts";
import { experiments, runExperiment } from "../../src/experiments/experiment.ts";
import { createEngine, type Engine } from "../../src/index.ts";

let engine: Engine;
beforeAll(async () => {
  engine = await createEngine();
});

/** Small settings: a smoke check that every row is made and judged. */
const quick: Record<string, Record<string, number>> = {
  E01: { steps: 2000, replicas: 16 },
  E04: { d: 3, h: 4, steps: 6000, gdSteps: 1500, replicas: 4, draws: 1 },
  E05: { d: 3, h: 10, steps: 6000, gdSteps: 1500, replicas: 4, draws: 1 },
};

describe.each([...experiments.values()].map((e) => [e.id, e] as const))("%s", (id, experiment) => {
  test("every row holds a finite prediction, a finite measurement and the verdict they imply", async () => {
    const seen: number[] = [];
    const result = await runExperiment(experiment, engine, quick[id]!, "smoke", {
      onProgress: (f) => seen.push(f),
    });
    expect(result.rows.length).toBeGreaterThan(3);
    for (const { predicted, measured, verdict } of result.rows) {
      expect(
        [predicted.value, predicted.modelError, measured.value, measured.stdErr].every(Number.isFinite),
      ).toBe(true);
      expect(verdict.gap).toBeCloseTo(measured.value - predicted.value, 12);
      expect(verdict.agrees).toBe(Math.abs(verdict.gap) <= 4.9 * measured.stdErr + predicted.modelError);
    }
    for (const figure of result.figures) for (const c of figure.curves) expect(c.x.length).toBe(c.y.length);
    expect(Math.max(...seen)).toBeLessThanOrEqual(1);
  });

  test("the same seed gives the same bits, another seed others", async () => {
    const hashes = async (seed: string) =>
      Object.values((await runExperiment(experiment, engine, quick[id]!, seed)).runs).map((r) => r.hash);
    const [one, again, other] = [await hashes("a"), await hashes("a"), await hashes("b")];
    expect(again).toEqual(one);
    expect(other).not.toEqual(one);
  });

  test("a setting out of its range, or unknown, is refused with a sentence", async () => {
    await expect(runExperiment(experiment, engine, { eta: -1 }, "x")).rejects.toThrow(
      `${id}: eta must be a finite number in [`,
    );
    await expect(runExperiment(experiment, engine, { etta: 0.01 }, "x")).rejects.toThrow(
      'Did you mean "eta"?',
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

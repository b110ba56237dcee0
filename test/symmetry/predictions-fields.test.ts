/** Every field of every prediction is read, checked and named in its refusal; a misspelt one is refused. */
import { describe, expect, test } from "vitest";
import { Arena } from "../../src/core/arena.ts";
import { NoetherflowError } from "../../src/errors.ts";
import { Dense } from "../../src/stats/dense.ts";
import { predictions } from "../../src/symmetry/predictions.ts";
import { loadInlined } from "../../src/wasm/inlined.ts";

const core = await loadInlined("f64");
const dense = new Dense({ core, arena: new Arena(core.memory, core.exports.heapBase(), core.real.bytes) });

type Fields = Record<string, unknown>;
const one = { rows: 1, cols: 1, values: Float64Array.of(2) };

/** Valid calls by name. */
const calls: readonly {
  readonly name: string;
  readonly of: Fields;
  readonly call: (of: never) => unknown;
  /** Values just outside of the range of a field. */
  readonly outside: Readonly<Record<string, number>>;
}[] = [
  {
    name: "discreteFlow",
    of: { eta: 0.1, effectiveBatch: 2, noise: 3, mean: -1, beta: 0.5 },
    call: predictions.discreteFlow,
    outside: { eta: 0, effectiveBatch: 0.5, beta: 1 },
  },
  {
    name: "timeScales",
    of: { rate: 0.5, excessLoss: 2, squaredGradient: 3 },
    call: predictions.timeScales,
    outside: { rate: -1, excessLoss: 0, squaredGradient: 0 },
  },
  {
    name: "timeScales",
    of: { rate: 0.5, curvature: 2 },
    call: predictions.timeScales,
    outside: { rate: -1, curvature: 0 },
  },
  {
    name: "balance",
    of: { sigma2: 1, gamma: 0.1 },
    call: (of) => predictions.balance([{ mu: 1, s: 1, q: 1 }], of),
    outside: { sigma2: -1, gamma: -1 },
  },
  {
    name: "isotropicRate",
    of: { d: 4, sigma2: 1, varX: 1, varEps: 2, gamma: 0 },
    call: predictions.isotropicRate,
    outside: { d: 0, sigma2: -1, varX: -1, varEps: -1, gamma: -1 },
  },
  {
    name: "warmUp",
    of: { etas: [0.1, 0.2], effectiveBatch: 1, ratePerNoise: 40, gamma: 0 },
    call: predictions.warmUp,
    outside: { effectiveBatch: 0.5, ratePerNoise: -1, gamma: -1 },
  },
  {
    name: "initVariances",
    of: { dx: 3, h: 4, dy: 5 },
    call: (of) => predictions.initVariances("he", of),
    outside: { dx: 0, h: 1.5, dy: 0 },
  },
  {
    name: "initialTrace",
    of: { h: 4, dy: 5, traceSigmaX: 2, varU: 1, varW: 1, dx: 3 },
    call: predictions.initialTrace,
    outside: { h: 0, dy: 0, traceSigmaX: 0, varU: -1, varW: -1, dx: 0 },
  },
  {
    name: "initialTrace",
    of: { h: 4, dy: 5, dx: 3, traceSigmaX: 2, init: "he" },
    call: predictions.initialTrace,
    outside: { h: 0, dy: 0, traceSigmaX: 0, dx: 0 },
  },
  {
    name: "autoencoderTrace",
    of: { d: 5, traceSigmaX: 5 },
    call: predictions.autoencoderTrace,
    outside: { d: 0.5, traceSigmaX: 0 },
  },
  {
    name: "traceRatio",
    of: { initial: 2, final: 1 },
    call: predictions.traceRatio,
    outside: { initial: -1, final: 0 },
  },
  {
    name: "traceRatio",
    of: { h: 4, varU: 1, varW: 1 },
    call: predictions.traceRatio,
    outside: { h: 0, varU: -1, varW: -1 },
  },
  {
    name: "traceRatio",
    of: { h: 4, d: 2, init: "glorot" },
    call: predictions.traceRatio,
    outside: { h: 0, d: 0 },
  },
  {
    name: "unitPower",
    of: { noise: 1, squaredGradient: 1, effectiveBatch: 1, radius: 1 },
    call: predictions.unitPower,
    outside: { noise: -1, squaredGradient: -1, effectiveBatch: 0, radius: 0 },
  },
  {
    name: "radiusAt",
    of: { radius0: 1, sigma2: 1, unitNoise: 1, gamma: 1 },
    call: (of) => predictions.radiusAt(1, of),
    outside: { radius0: -1, sigma2: -1, unitNoise: -1, gamma: -1 },
  },
  {
    name: "normEquilibrium",
    of: { eta: 0.1, G: 1, gamma: 0.1 },
    call: predictions.normEquilibrium,
    outside: { eta: 0, G: 0, gamma: -1 },
  },
  {
    name: "angularUpdate",
    of: { eta: 0.1, G: 1, radius: 1, gamma: 0.1 },
    call: predictions.angularUpdate,
    outside: { eta: 0, G: -1, radius: 0, gamma: -1 },
  },
  {
    name: "productRate",
    of: { sigma2: 1, slopeVariance: 1, gamma: 0 },
    call: predictions.productRate,
    outside: { sigma2: -1, slopeVariance: -1, gamma: -1 },
  },
  {
    name: "productFactor",
    of: { eta: 0.1, delta: -1, gamma: 0 },
    call: predictions.productFactor,
    outside: { eta: 0, gamma: -1 },
  },
  {
    name: "brokenFlow",
    of: { sigma2: 1, noise: -1, zeta: -1, pull: -1 },
    call: predictions.brokenFlow,
    outside: { sigma2: -1 },
  },
  {
    name: "smallBreakingShift",
    of: { zeta: 1, pull: 1, slope: -1 },
    call: predictions.smallBreakingShift,
    outside: { slope: 0 },
  },
  {
    name: "largeBreakingShift",
    of: { sigma2: 1, noise: 1, h: 1, alignment: 1 },
    call: predictions.largeBreakingShift,
    outside: { sigma2: -1, h: 0, alignment: 0 },
  },
  {
    name: "minimumShift",
    of: { H: one, Sigma: one, T: [0], A: one, theta: [1], sigma2: 1 },
    call: (of) => predictions.minimumShift(dense, of),
    outside: { sigma2: -1 },
  },
  {
    name: "stationaryCovariance",
    of: { H: one, Sigma: one, sigma2: 1, eta: 0.1 },
    call: (of) => predictions.stationaryCovariance(dense, of),
    outside: { sigma2: -1, eta: -1 },
  },
  {
    name: "rankOneLaw",
    of: { alpha: 1, b1: 1, a: 1, b: 0, c: 2 },
    call: (of) => predictions.rankOneLaw(of, 0.1),
    outside: { alpha: 0, a: -1, c: 0 },
  },
  {
    name: "rankOneLogDensity",
    of: { alpha: 1, b1: 1, a: 1, b: 0, c: 2 },
    call: (of) => predictions.rankOneLogDensity(of, 0.1, 1),
    outside: { alpha: 0, a: -1, c: 0 },
  },
];

function refusal(work: () => unknown): NoetherflowError {
  try {
    work();
  } catch (error) {
    if (error instanceof NoetherflowError) return error;
    throw error;
  }
  throw new Error("it was not refused");
}

test("the table has every prediction that takes an object", () => {
  const positional = ["effectiveBatch", "noiseStrength", "effectiveEta"];
  expect([...new Set([...calls.map((c) => c.name), ...positional])].sort()).toEqual(
    Object.keys(predictions).sort(),
  );
});

describe.each(calls.map((c) => [`${c.name} { ${Object.keys(c.of).join(", ")} }`, c] as const))(
  "%s",
  (_, c) => {
    const call = c.call as (of: Fields) => unknown;

    test("takes valid fields", () => {
      expect(() => call(c.of)).not.toThrow();
    });
    test("refuses each field that is no number, not finite, or of another shape, by its name", () => {
      for (const field of Object.keys(c.of)) {
        for (const bad of [Number.NaN, "3", null, -Infinity, true]) {
          const error = refusal(() => call({ ...c.of, [field]: bad }));
          expect(error.where).toContain(c.name);
          expect(error.message).toContain(field);
        }
      }
    });
    test("refuses values outside of the range of a field, by its name", () => {
      for (const [field, bad] of Object.entries(c.outside)) {
        const error = refusal(() => call({ ...c.of, [field]: bad }));
        expect(error.code).toBe("range");
        expect(error.message).toContain(field);
      }
    });
    test("refuses a misspelt field, and what is no object", () => {
      expect(refusal(() => call({ ...c.of, etta: 1 })).message).toContain('"etta"');
      for (const bad of [undefined, null, 3, [1]])
        expect(["shape", "range"]).toContain(refusal(() => call(bad as never)).code);
    });
  },
);

test("arguments that stand alone are checked too", () => {
  expect(() => predictions.noiseStrength(-1, 1)).toThrow("noiseStrength: eta must be a finite number of at");
  expect(() => predictions.noiseStrength(1, 0.5)).toThrow("noiseStrength: S_eff must be a finite number of");
  expect(predictions.noiseStrength(1, Infinity)).toBe(0);
  expect(() => predictions.radiusAt(-1, { radius0: 1, sigma2: 1, unitNoise: 1 })).toThrow("radiusAt: t must");
  expect(() => predictions.balance([{ mu: 1, s: -1, q: 1 }], { sigma2: 1 })).toThrow(
    "balance: directions[0]: s must be a finite number of at least 0, got -1.",
  );
  expect(() => predictions.balance(3 as never, { sigma2: 1 })).toThrow("balance: expected directions");
  expect(() => predictions.warmUp({ etas: [0.1, -1], effectiveBatch: 1, ratePerNoise: 1 })).toThrow(
    "warmUp: etas[1] must be a finite number of at least 0, got -1.",
  );
  expect(() => predictions.initVariances("normal" as never, { dx: 1, h: 1, dy: 1 })).toThrow(
    'initVariances: init must be one of "glorot"',
  );
  expect(() =>
    predictions.minimumShift(dense, {
      H: one,
      Sigma: one,
      T: [Number.NaN],
      A: one,
      theta: [1],
      sigma2: 1,
    } as never),
  ).toThrow("minimumShift: T must be finite, got NaN at position 0.");
});

/**
 * 100 random models of every op there is (test/reference/grammar.ts) against an evaluator over dual numbers that knows no
 * derivative rule of any op (test/reference/dual.ts): losses, gradients, Hessian-vector products, per-sample gradients,
 * tangents. And the evaluator itself against closed forms, differences, 150-bit arithmetic and the public fixtures.
 *
 * It catches what tests of one op at a time cannot: a rule that is right alone and wrong where values are shared, a cotangent
 * summed over the batch at the wrong place, a rewriting of nodes that changes a value, a lowering that overwrites what is
 * still needed. A failure prints the seed; `randomModel(seed, ops)` gives the model back.
 *
 * Tolerances are bounds that the evaluator carries beside every number: a running error analysis with 8 roundings for each
 * operation, relative to the sum of the absolute contributions of all paths.
 */
import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, test } from "vitest";
import { publicOps } from "../../src/graph/ops.ts";
import { createEngine, type Problem, parseModel } from "../../src/index.ts";
import * as dual from "../reference/dual.ts";
import { allOps, batchOps, type RandomModel, randomModel, uniforms } from "../reference/grammar.ts";
import { exp, fromDouble, log, sigmoid, softplus, sqrt, tanh, ulps } from "../reference/precise.ts";

const COUNT = 100;
const seeds = Array.from({ length: COUNT }, (_, seed) => seed);

const largest = (xs: ArrayLike<number>): number =>
  Array.from(xs).reduce((m, x) => Math.max(m, Math.abs(x)), 0);
const dot = (a: ArrayLike<number>, b: ArrayLike<number>): number =>
  Array.from(a).reduce((sum, x, i) => sum + x * b[i]!, 0);

/** Numbers in [-1, 1) for a direction. */
function direction(seed: number, P: number): number[] {
  const next = uniforms(seed);
  return Array.from({ length: P }, () => 2 * next() - 1);
}

const moved = (theta: readonly number[], v: readonly number[], t: number): number[] =>
  theta.map((x, i) => x + t * v[i]!);

// --- the oracle --------------------------------------------------------------------------------------------

describe("functions of one number", () => {
  const points = [-7.3, -3, -2.25, -1, -0.4, -0.01, 0.003, 0.5, 1, 1.9, 2, 2.1, 3.7, 6];
  const positive = points.filter((x) => x > 0.1);
  const curves = Object.entries(dual.curves) as [string, dual.Curve][];

  const exact = { exp, log, tanh, sigmoid, softplus, sqrt: (x: number) => sqrt(fromDouble(x)) };
  test.each(Object.entries(exact))(
    "%s is within 4 units in the last place of the 288-bit value",
    (name, f) => {
      for (const x of name === "log" || name === "sqrt" ? positive : points) {
        const value = dual.curves[name as keyof typeof exact](x).d[0];
        expect(ulps(value, f(x)), `${name}(${x})`).toBeLessThanOrEqual(4);
      }
    },
  );

  // mpmath 1.3.0, 30 digits
  test.each([
    [1e-10, 1.128379167095512615e-10],
    [0.125, 0.14031620480133381739],
    [0.5, 0.52049987781304653768],
    [-0.75, -0.7111556336535151316],
    [1, 0.84270079294971486934],
    [1.5, 0.96610514647531072707],
    [1.9375, 0.99385680639521319999],
    [2, 0.99532226501895273416],
    [2.125, 0.99734597064051765847],
    [-2.5, -0.99959304798255504106],
    [3, 0.99997790950300141456],
    [4, 0.99999998458274209972],
    [5.5, 0.99999999999999264215],
  ])("erf(%d) is good to 1e-15", (x, expected) => {
    expect(Math.abs(dual.erf(x) / expected - 1)).toBeLessThanOrEqual(1e-15);
  });

  test.each(curves)("%s: each derivative is the limit of quotients of the one before", (name, curve) => {
    const h = 2 ** -8;
    for (const x of ["log", "sqrt", "reciprocal"].includes(name) ? positive : points) {
      if (Math.abs(x) <= h) continue;
      const { d, terms } = curve(x);
      for (const k of [1, 2, 3] as const) {
        const error = (by: number) => (curve(x + by).d[k - 1]! - curve(x - by).d[k - 1]!) / (2 * by) - d[k];
        const rounding = (64 * dual.U * (largest(d) + largest(terms ?? []))) / (h / 2);
        const [e1, e2] = [error(h), error(h / 2)].map(Math.abs) as [number, number];
        const isLimit = e2 <= rounding || e1 >= 3.5 * e2;
        expect(isLimit, `derivative ${k} at ${x} is ${d[k]}, off by ${e1} and ${e2}`).toBe(true);
      }
    }
  });
});

describe("closed forms", () => {
  const x = [0.5, -1, 2];
  const file = (loss: dual.Expression, more: Partial<dual.ModelFile> = {}): dual.ModelFile => ({
    params: { a: [3] },
    inputs: {},
    loss,
    ...more,
  });
  const expectNear = (got: readonly number[], expected: readonly number[]): void => {
    expect(got.length).toBe(expected.length);
    const scale = largest(expected);
    for (const [i, e] of expected.entries())
      expect(Math.abs(got[i]! - e), `entry ${i}: ${got[i]}, expected ${e}`).toBeLessThanOrEqual(
        1e-14 * scale,
      );
  };

  test("a quadratic form a^T M a has gradient (M + M^T) a and Hessian M + M^T", () => {
    const values = [1, 2, -1, 0.5, 3, 0.25, -2, 1, 0.75];
    const form = file(["matmul", "a", ["matmul", "M", "a"]], { constants: { M: { shape: [3, 3], values } } });
    const H = values.map((m, at) => m + values[(at % 3) * 3 + Math.floor(at / 3)]!);
    const Hx = [0, 1, 2].map((i) => dot(H.slice(3 * i, 3 * i + 3), x));
    expectNear(dual.derivatives(form, {}, x).gradient.values, Hx);
    expectNear(dual.hessian(form, {}, x), H);
    expectNear(dual.derivatives(form, {}, x, x).hessianVector.values, Hx);
  });

  test("logsumexp has gradient p = softmax and Hessian diag(p) - p p^T", () => {
    const powers = x.map(Math.exp);
    const p = powers.map((e) => e / powers.reduce((a, b) => a + b));
    const form = file(["logsumexp", "a"]);
    expectNear(dual.derivatives(form, {}, x).gradient.values, p);
    expectNear(
      dual.hessian(form, {}, x),
      p.flatMap((pi, i) => p.map((pj, j) => (i === j ? pi : 0) - pi * pj)),
    );
  });

  test("a norm has gradient a/|a| and Hessian (1 - a a^T/|a|^2)/|a|", () => {
    const r = Math.hypot(...x);
    const form = file(["norm", "a"]);
    expectNear(
      dual.derivatives(form, {}, x).gradient.values,
      x.map((e) => e / r),
    );
    expectNear(
      dual.hessian(form, {}, x),
      x.flatMap((ai, i) => x.map((aj, j) => ((i === j ? 1 : 0) - (ai * aj) / r ** 2) / r)),
    );
  });

  test("a variance over the batch, through batch_mean, has the gradient of a variance", () => {
    // values w x_n: the mean of (w x_n - mean)^2 is w^2 var(x)
    const form: dual.ModelFile = {
      params: { w: [] },
      inputs: { x: [] },
      let: [["z", ["mul", "w", "x"]]],
      loss: ["square", ["sub", "z", ["batch_mean", "z"]]],
    };
    const samples = [1, 2, 4, 9];
    const variance = samples.map((e) => (e - 4) ** 2).reduce((a, b) => a + b) / 4;
    const got = dual.derivatives(form, { x: samples }, [1.5], [1]);
    expectNear([got.loss.values[0]!], [1.5 ** 2 * variance]);
    expectNear(got.gradient.values, [2 * 1.5 * variance]);
    expectNear(got.hessianVector.values, [2 * variance]);
  });

  test("batch_row is the adjoint of batch_stack: sum_n <row_n(M), v_n> = sum_n <M_n, stack(v)>", () => {
    const inputs = { M: [4, 2], v: [2] };
    const next = uniforms(1);
    const data = {
      M: Array.from({ length: 32 }, () => next() - 0.5),
      v: Array.from({ length: 8 }, () => next() - 0.5),
    };
    const mean = (loss: dual.Expression) => {
      const all = dual.losses({ params: { a: [] }, inputs, loss }, data, [1]);
      return all.reduce((a, b) => a + b) / all.length;
    };
    const left = mean(["matmul", ["batch_row", "M"], "v"]);
    const right = mean(["sum", ["mul", "M", ["batch_stack", "v"]]]);
    expectNear([left], [right]);
    expect(Math.abs(left)).toBeGreaterThan(1e-3);
    // row i of the sum of all matrices, in full
    const rows = Array.from({ length: 4 }, (_, i) =>
      [0, 1].map((j) => [0, 1, 2, 3].reduce((sum, n) => sum + data.M[8 * n + 2 * i + j]!, 0)),
    );
    const by = rows.reduce((sum, row, i) => sum + dot(row, data.v.slice(2 * i, 2 * i + 2)), 0) / 4;
    expectNear([left], [by]);
  });

  test("kinks have the derivatives that are laid down at 0, and bend nowhere", () => {
    const at0: [dual.Expression, number][] = [
      [["relu", "a"], 0],
      [["leaky_relu", "a", { slope: 0.25 }], 0.25],
      [["abs", "a"], 0],
      [["step", "a"], 0],
      [["sign", "a"], 0],
    ];
    for (const [loss, slope] of at0) {
      const got = dual.derivatives({ params: { a: [] }, inputs: {}, loss }, {}, [0], [1]);
      expect([got.loss.values[0]!, got.gradient.values[0]!, got.hessianVector.values[0]!]).toEqual([
        0,
        slope,
        0,
      ]);
    }
  });
});

describe("differences", () => {
  const H = 2 ** -11;
  const quotientFault = (derivative: number, at: (t: number) => number, bound: number): string | null => {
    const quotient = (h: number) => (at(h) - at(-h)) / (2 * h);
    const [e1, e2] = [quotient(H) - derivative, quotient(H / 2) - derivative];
    if (Math.abs(e2) <= (2 * bound) / (H / 2) || Math.abs(e1) >= 3.5 * Math.abs(e2)) return null;
    return `${derivative} is off by ${e1} at h and ${e2} at h/2`;
  };

  test.each([
    ["without batch ops", allOps.filter((op) => !batchOps.includes(op))],
    ["with batch ops", allOps],
  ])(
    "%s: slopes along a line and u.Hv are limits of central differences in 100 models of all ops",
    (_, ops) => {
      const faults: string[] = [];
      for (const seed of seeds) {
        const { model, data, theta } = randomModel(seed, ops);
        const mask = dual.trainableMask(model);
        const [u, v] = [1, 2].map((k) => direction(k, theta.length).map((x, i) => x * mask[i]!)) as [
          number[],
          number[],
        ];
        const mean = (t: number) => dual.meanOf(dual.lossesAlong(model, data, moved(theta, v, t), u, v));
        const here = mean(0);
        const loss = quotientFault(here.at[2], (t) => mean(t).at[0], dual.U * here.error[0]);
        const slope = quotientFault(here.at[3], (t) => mean(t).at[1], dual.U * here.error[1]);
        for (const fault of [loss, slope]) if (fault !== null) faults.push(`seed ${seed}: ${fault}`);
        const whole = dual.derivatives(model, data, theta, v);
        const first = dot(whole.gradient.values, u) - here.at[1];
        const second = dot(whole.hessianVector.values, u) - here.at[3];
        if (Math.abs(first) > dual.U * here.error[1] || Math.abs(second) > dual.U * here.error[3])
          faults.push(`seed ${seed}: entries do not add up to the derivative along u`);
      }
      expect(faults).toEqual([]);
    },
  );
});

describe("the public fixtures, by an independent automatic differentiation", () => {
  interface Fixture {
    name: string;
    model: dual.ModelFile;
    paramOrder: string[];
    data: Record<string, number[]>;
    theta: Record<string, number[]>;
    v: number[];
    expected: {
      loss: number;
      perSampleLoss: number[];
      gradient: number[];
      perSampleGradients: { rows: number[]; values: number[] | number[][] };
      perSampleJvp: number[];
      hessian: { trace: number; Hv: number[]; full?: number[] | number[][] };
    };
  }
  const folder = fileURLToPath(new URL("../fixtures/", import.meta.url));
  const names = readdirSync(folder).filter((file) => file.endsWith(".json"));

  test("there are 15", () => expect(names).toHaveLength(15));

  test.each(names)(
    "%s: losses, gradients, tangents, Hv and the Hessian agree to 2e-13 of the largest entry",
    (name) => {
      const { model, paramOrder, data, theta, v, expected } = JSON.parse(
        readFileSync(folder + name, "utf8"),
      ) as Fixture;
      const at = paramOrder.flatMap((block) => theta[block]!);
      const P = at.length;
      const got = dual.derivatives(model, data, at, v);
      const expectClose = (what: string, xs: readonly number[], ys: readonly number[]): void => {
        expect(xs.length, what).toBe(ys.length);
        const error = largest(xs.map((x, i) => x - ys[i]!)) / largest(ys);
        expect(error, `${what} of ${name}`).toBeLessThanOrEqual(2e-13);
      };
      expectClose("loss", got.loss.values, [expected.loss]);
      expectClose("losses", got.losses.values, expected.perSampleLoss);
      expectClose("gradient", got.gradient.values, expected.gradient);
      const { rows, values } = expected.perSampleGradients;
      const own = rows.flatMap((n) => got.perSampleGradients.values.slice(n * P, (n + 1) * P));
      expectClose("perSampleGradients", own, values.flat());
      expectClose("perSampleJvp", got.jacobianVector.values, expected.perSampleJvp);
      expectClose("Hv", got.hessianVector.values, expected.hessian.Hv);
      if (expected.hessian.full === undefined) return;
      const H = dual.hessian(model, data, at);
      expectClose("Hessian", H, expected.hessian.full.flat());
      const trace = Array.from({ length: P }, (_, i) => H[i * P + i]!).reduce((a, b) => a + b);
      expectClose("trace of the Hessian", [trace], [expected.hessian.trace]);
    },
  );
});

// --- the engine --------------------------------------------------------------------------------------------

const known = publicOps.filter((op) => allOps.includes(op));
const ordinary = known.filter((op) => !batchOps.includes(op));

/** Of each quantity: the largest error over its bound, and every model's bound over the largest entry. */
const seen = new Map<string, { ratio: number; seed: number; widths: number[] }>();

afterAll(() => {
  for (const [what, { ratio, seed, widths }] of seen) {
    const sorted = widths.sort((a, b) => a - b);
    const [half, most] = [0.5, 0.95].map((q) =>
      sorted[Math.floor(q * (sorted.length - 1))]!.toExponential(0),
    );
    console.log(
      `  ${what}: ${sorted.length} models, largest error ${ratio.toFixed(2)} of its bound (seed ${seed}); ` +
        `bounds are ${half} of the largest entry, ${most} in the worst twentieth`,
    );
  }
});

/** A sentence for the first entry beyond its bound. */
function fault(
  what: string,
  seed: number,
  got: ArrayLike<number>,
  { values, bounds }: dual.Bounded,
): string[] {
  const errors = values.map((x, i) => Math.abs(got[i]! - x));
  const ratio = errors.reduce((m, e, i) => Math.max(m, e === 0 ? 0 : e / bounds[i]!), 0);
  const entry = seen.get(what) ?? { ratio: -1, seed, widths: [] };
  if (!(ratio <= entry.ratio)) Object.assign(entry, { ratio, seed });
  if (largest(values) > 0) entry.widths.push(largest(bounds) / largest(values));
  seen.set(what, entry);
  if (got.length !== values.length)
    return [`seed ${seed}: ${what} has ${got.length} entries, not ${values.length}`];
  const at = errors.findIndex((e, i) => !(e <= bounds[i]!));
  if (at < 0) return [];
  return [`seed ${seed}: ${what} entry ${at} is ${got[at]}, expected ${values[at]}, bound ${bounds[at]}`];
}

/** At most this share of models may have a bound wider than `width` of the largest entry: else a test proves little. */
function expectNarrow(what: string, width: number): void {
  const { widths } = seen.get(what)!;
  const wide = widths.filter((w) => w > width).length;
  expect(wide, `${what}: models with a bound wider than ${width}`).toBeLessThanOrEqual(0.1 * widths.length);
}

const engine = await createEngine();

function open({ model, data }: RandomModel): Problem {
  return engine.problem(parseModel(JSON.parse(JSON.stringify(model))), data);
}

test("every public op is in the grammar", () => {
  expect(publicOps.filter((op) => !allOps.includes(op))).toEqual([]);
});

describe(`${COUNT} random models of ${ordinary.length} ops`, () => {
  const models = seeds.map((seed) => randomModel(seed, ordinary));
  const oracle = models.map(({ model, data, theta }, seed) =>
    dual.derivatives(model, data, theta, direction(seed + COUNT, theta.length)),
  );
  const problems = models.map(open);

  test("every op is in at least five of them; most share values, some tie parameters or use them beside the samples", () => {
    const rare = ordinary.filter((op) => models.filter((m) => m.ops.has(op)).length < 5);
    expect(rare).toEqual([]);
    const text = models.map(({ model }) => JSON.stringify([model.let ?? [], model.loss]));
    const uses = (t: string, name: string) => t.split(`"${name}"`).length - 1;
    const shared = models.filter(({ model }, k) =>
      (model.let ?? []).some(([name]) => uses(text[k]!, name) > 2),
    );
    const tied = models.filter(({ model }, k) =>
      Object.keys(model.params).some((name) => uses(text[k]!, name) > 1),
    );
    expect(shared.length).toBeGreaterThanOrEqual(20);
    expect(tied.length).toBeGreaterThanOrEqual(20);
  });

  test("loss and losses are within their bounds", () => {
    const faults = models.flatMap(({ seed, theta }, k) => [
      ...fault("loss", seed, [problems[k]!.loss(theta)], oracle[k]!.loss),
      ...fault("losses", seed, problems[k]!.losses(theta), oracle[k]!.losses),
    ]);
    expect(faults).toEqual([]);
    expectNarrow("loss", 1e-12);
  });

  test("the gradient is within its bounds, nine tenths of them below 1e-12 of the largest entry", () => {
    const faults = models.flatMap(({ seed, theta }, k) =>
      fault("gradient", seed, problems[k]!.gradient(theta), oracle[k]!.gradient),
    );
    expect(faults).toEqual([]);
    expectNarrow("gradient", 1e-12);
  });

  const walks = [
    ["two steps of gradient descent", { scheme: "gd", count: 2, gamma: 0 }],
    ["a step of gradient descent with weight decay", { scheme: "gd", count: 1, gamma: 1 / 8 }],
    ["a step of SGD on a batch of three", { scheme: "sgd", count: 1, gamma: 0 }],
  ] as const;
  test.each(walks)(
    "%s: equal bits in every lane layout, and it moves by the gradient",
    async (what, kind) => {
      const { scheme, count, gamma } = kind;
      const faults: string[] = [];
      const eta = 2 ** -6;
      for (const [k, { seed, theta, N, model }] of models.entries()) {
        const drawn = [N - 1, 0, N >> 1];
        const walk = async (steps: number, lanes: "samples" | "replicas" | "features") => {
          const more =
            scheme === "gd"
              ? { lowering: { lanes } }
              : { lowering: { lanes, block: 2 }, batchSize: 3, batches: [drawn] };
          const options = { scheme, theta, eta, steps, replicas: 2, weightDecay: gamma, ...more };
          return Array.from((await problems[k]!.simulate(options)).theta);
        };
        const after = await walk(count, "samples");
        for (const lanes of ["replicas", "features"] as const) {
          const other = await walk(count, lanes);
          if (other.some((x, i) => !Object.is(x, after[i])))
            faults.push(`seed ${seed}: a step with ${lanes} in the lanes is ${other}, with samples ${after}`);
        }
        // the second step is only compared between layouts: it starts elsewhere
        const first = count === 1 ? after : await walk(1, "samples");
        const { gradient, perSampleGradients: each } = oracle[k]!;
        const over = (xs: readonly number[], i: number) =>
          drawn.reduce((sum, n) => sum + xs[n * theta.length + i]!, 0) / drawn.length;
        const slope = (i: number) => (scheme === "gd" ? gradient.values[i]! : over(each.values, i));
        const doubt = (i: number) => (scheme === "gd" ? gradient.bounds[i]! : over(each.bounds, i));
        const keep = dual.trainableMask(model).map((m) => 1 - 2 * eta * gamma * m);
        const expected = {
          values: theta.map((x, i) => keep[i]! * x - eta * slope(i)),
          bounds: theta.map((x, i) => eta * doubt(i) + 8 * dual.U * (Math.abs(x) + eta * Math.abs(slope(i)))),
        };
        faults.push(...fault(what, seed, first.slice(0, theta.length), expected));
      }
      expect(faults).toEqual([]);
    },
  );

  test("Hv is within its bounds, nine tenths of them below 1e-10 of the largest entry", () => {
    const faults = models.flatMap(({ seed, theta }, k) => {
      const v = direction(seed + COUNT, theta.length);
      return fault("hessianVector", seed, problems[k]!.hessianVector(theta, v), oracle[k]!.hessianVector);
    });
    expect(faults).toEqual([]);
    expectNarrow("hessianVector", 1e-10);
  });

  test("per-sample gradients are within their bounds", () => {
    const faults = models.flatMap(({ seed, theta }, k) =>
      fault(
        "perSampleGradients",
        seed,
        problems[k]!.perSampleGradients(theta),
        oracle[k]!.perSampleGradients,
      ),
    );
    expect(faults).toEqual([]);
    expectNarrow("perSampleGradients", 1e-12);
  });

  test("g_n.v is within its bounds", () => {
    const faults = models.flatMap(({ seed, theta }, k) => {
      const v = direction(seed + COUNT, theta.length);
      return fault("jacobianVector", seed, problems[k]!.jacobianVector(theta, v), oracle[k]!.jacobianVector);
    });
    expect(faults).toEqual([]);
    expectNarrow("jacobianVector", 1e-11);
  });
});

/** Models without data that failures of the tests above were shrunk to; eta, theta and slopes are short, so no step rounds. */
const vectors = { c: { shape: [2], values: [-0.5, 0.25] }, d: { shape: [2], values: [0.25, 2] } };
const shrunk: [string, dual.ModelFile, number[]][] = [
  ["another block", { params: { a: [], b: [] }, inputs: {}, loss: ["mul", "a", "b"] }, [1, 2]],
  [
    "another block, reshaped",
    {
      params: { a: [2], b: [1, 2] },
      inputs: {},
      loss: ["matmul", "a", ["reshape", "b", { shape: [2] }]],
    },
    [1, 2, 3, 4],
  ],
  [
    "a sum of constants",
    {
      params: { a: [2] },
      inputs: {},
      constants: vectors,
      loss: ["add", ["matmul", "a", "c"], ["matmul", "a", "d"]],
    },
    [1, 2],
  ],
  [
    "a multiple of the block itself",
    { params: { a: [2] }, inputs: {}, constants: vectors, loss: ["sum", ["mul", "c", ["square", "a"]]] },
    [1, 2],
  ],
];

describe.each(shrunk)("where the gradient of a block is %s", (_, model, theta) => {
  test.each(["samples", "replicas", "features"] as const)(
    "a step with %s in the lanes moves by the gradient",
    async (lanes) => {
      const problem = engine.problem(parseModel(model), {});
      const slopes = dual.derivatives(model, {}, theta).gradient.values;
      for (const [fuse, weightDecay] of [true, false].flatMap((f) => [0, 0.5].map((w) => [f, w] as const))) {
        const options = { scheme: "gd", theta, eta: 0.25, steps: 1, replicas: 2, weightDecay } as const;
        const run = await problem.simulate({ ...options, lowering: { lanes, fuse } });
        const next = theta.map((x, i) => (1 - weightDecay / 2) * x - slopes[i]! / 4);
        expect([...run.theta], `fuse: ${fuse}, weightDecay: ${weightDecay}`).toEqual([...next, ...next]);
      }
      problem.dispose();
    },
  );
});

const coupling = known.filter((op) => batchOps.includes(op));

describe(`${COUNT} random models that couple their samples`, () => {
  test("loss, gradient and Hv are within their bounds, and gradient descent moves by the gradient", async () => {
    const faults: string[] = [];
    const used = new Map<string, number>();
    const eta = 2 ** -6;
    for (const seed of seeds) {
      const random = randomModel(seed, known);
      const { model, data, theta } = random;
      const v = direction(seed + COUNT, theta.length);
      const { loss, gradient, hessianVector } = dual.derivatives(model, data, theta, v);
      const next = {
        values: theta.map((x, i) => x - eta * gradient.values[i]!),
        bounds: theta.map(
          (x, i) =>
            eta * gradient.bounds[i]! + 8 * dual.U * (Math.abs(x) + eta * Math.abs(gradient.values[i]!)),
        ),
      };
      try {
        const problem = open(random);
        const run = await problem.simulate({ scheme: "gd", theta, eta, steps: 1 });
        faults.push(
          ...fault("loss over a batch", seed, [problem.loss(theta)], loss),
          ...fault("gradient over a batch", seed, problem.gradient(theta), gradient),
          ...fault("a step over a batch", seed, run.theta, next),
        );
        faults.push(
          ...fault("hessianVector over a batch", seed, problem.hessianVector(theta, v), hessianVector),
        );
        problem.dispose();
      } catch (error) {
        faults.push(`seed ${seed}: ${(error as Error).message}`);
      }
      for (const op of random.ops) used.set(op, (used.get(op) ?? 0) + 1);
    }
    expect(faults).toEqual([]);
    expect(coupling.filter((op) => (used.get(op) ?? 0) < 20)).toEqual([]);
    expectNarrow("gradient over a batch", 1e-11);
  });
});

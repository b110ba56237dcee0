/**
 * Where numbers come from: arrays of the caller, samplers, sets with exact moments, and initial parameters.
 *
 * Statistical claims: fixed seeds, independent draws, |z| < 4.9 (one in a million per assertion); the counts stand in the
 * titles.
 */
import { afterAll, describe, expect, test } from "vitest";
import { NoetherflowError } from "../../src/errors.ts";
import {
  createEngine,
  type Model,
  model,
  momentMatched,
  ops,
  parseModel,
  parseSampler,
  type Sampler,
  sampler,
} from "../../src/index.ts";
import { philox } from "../reference/philox.ts";
import { below, keyOfSeed } from "../reference/sgd.ts";

const engine = await createEngine();
afterAll(() => engine.dispose());

const Z = 4.9;
const times = <T>(n: number, f: (i: number) => T): T[] => Array.from({ length: n }, (_, i) => f(i));
const mean = (xs: ArrayLike<number>): number => Array.from(xs).reduce((s, x) => s + x, 0) / xs.length;

/** The error of a call, which must be one of ours; and the call leaves no memory behind. */
function refusal(make: () => unknown): NoetherflowError {
  const before = engine.bytesInUse;
  try {
    make();
  } catch (error) {
    if (!(error instanceof NoetherflowError)) throw error;
    expect(engine.bytesInUse, `bytes kept after "${error.message}"`).toBe(before);
    return error;
  }
  throw new Error("nothing was refused");
}

// --- arrays ------------------------------------------------------------------------------------------------------

const net = model({
  params: { w: [] },
  inputs: { x: [3], M: [2, 2], s: [] },
  loss: ({ w, x, M, s }) =>
    ops.mul(
      w,
      ops.add(
        ops.sum(ops.mul(x, x)),
        ops.mul(s, ops.sum(ops.matmul(M, ops.reshape(ops.broadcastTo(s, [2]), [2])))),
      ),
    ),
});
const flat = {
  x: [1, 2, 3, 4, 5, 6],
  M: [1, 0.5, -1, 2, 3, -0.25, 0, 8],
  s: [0.5, -2],
};
const f64 = Float64Array.from.bind(Float64Array);
const forms: Record<string, Record<keyof typeof flat, unknown>> = {
  flat,
  nested: {
    x: [
      [1, 2, 3],
      [4, 5, 6],
    ],
    M: [
      [
        [1, 0.5],
        [-1, 2],
      ],
      [
        [3, -0.25],
        [0, 8],
      ],
    ],
    s: [0.5, -2],
  },
  Float64Array: { x: f64(flat.x), M: f64(flat.M), s: f64(flat.s) },
  "Float32Array (all exact)": {
    x: Float32Array.from(flat.x),
    M: Float32Array.from(flat.M),
    s: Float32Array.from(flat.s),
  },
  "integers for x": { ...flat, x: Int16Array.from(flat.x) },
  "rows that are typed": {
    x: [f64([1, 2, 3]), f64([4, 5, 6])],
    M: [f64(flat.M.slice(0, 4)), f64(flat.M.slice(4))],
    s: flat.s,
  },
  "matrices as flat rows": { x: flat.x, M: [flat.M.slice(0, 4), flat.M.slice(4)], s: flat.s },
  "scalars as columns": { ...flat, s: [[0.5], [-2]] },
};

describe("data from arrays", () => {
  // sample 1: 14 + 0.25 * (1 + 0.5 - 1 + 2), sample 2: 77 + 4 * (3 - 0.25 + 0 + 8)
  const losses = [14 + 0.25 * 2.5, 77 + 4 * 10.75];

  test.each(Object.entries(forms))("%s: the same samples", (_, data) => {
    const problem = engine.problem(net, data);
    expect(problem.N).toBe(2);
    expect([...problem.losses([1])]).toEqual(losses);
    expect(problem.data).toEqual({ x: f64(flat.x), M: f64(flat.M), s: f64(flat.s) });
    problem.dispose();
  });

  test("is copied once: neither the caller's arrays nor the returned ones are views", () => {
    const x = f64(flat.x);
    const problem = engine.problem(net, { ...flat, x });
    x.fill(100);
    problem.data.x!.fill(200);
    problem.losses([1]).fill(300);
    expect([...problem.losses([1])]).toEqual(losses);
    expect([...x]).toEqual(times(6, () => 100));
    problem.dispose();
  });

  test("is rounded to f32 once in an f32 engine", async () => {
    const single = await createEngine({ dtype: "f32" });
    const problem = single.problem(net, { ...flat, s: [0.1, 1 / 3] });
    expect([...problem.data.s!]).toEqual([Math.fround(0.1), Math.fround(1 / 3)]);
    expect(problem.losses([1])).toBeInstanceOf(Float32Array);
    single.dispose();
  });

  test("is not needed by a model without inputs, which has one sample", () => {
    const alone = parseModel({ params: { w: [2] }, inputs: {}, loss: ["sqnorm", "w"] });
    const problem = engine.problem(alone, {});
    expect([problem.N, problem.loss([3, 4])]).toEqual([1, 25]);
    expect(problem.data).toEqual({});
    problem.dispose();
  });

  test("gives its memory back when the problem is disposed of, once", () => {
    const before = engine.bytesInUse;
    const [a, b] = [engine.problem(net, flat), engine.problem(net, flat)];
    a.loss([1]);
    expect(engine.bytesInUse).toBeGreaterThan(before + 2 * 8 * 16);
    a.dispose();
    a.dispose();
    expect([...b.losses([1])]).toEqual(losses);
    b.dispose();
    expect(engine.bytesInUse).toBe(before);
  });

  const refused: [what: string, data: unknown, code: string, message: string | RegExp][] = [
    ["nothing", undefined, "shape", "problem: data: expected { x, M, s } or a sampler, got undefined."],
    ["an array", [1, 2], "shape", "problem: data: expected { x, M, s } or a sampler, got [1, 2]."],
    [
      "an input that is missing",
      { x: flat.x, M: flat.M },
      "name",
      "problem: data.s: the model needs input s of shape [] per sample, got nothing.",
    ],
    [
      "a name that is no input",
      { ...flat, y: [1] },
      "name",
      'problem: data: the inputs of the model are x, M, s, got "y".',
    ],
    [
      "a number for an array",
      { ...flat, x: 3 },
      "shape",
      "problem: data.x: expected an array, nested or flat row-major, typed or not, got 3.",
    ],
    [
      "text for an array",
      { ...flat, x: "123" },
      "shape",
      'problem: data.x: expected an array, nested or flat row-major, typed or not, got "123".',
    ],
    [
      "a DataView",
      { ...flat, x: new DataView(new ArrayBuffer(48)) },
      "shape",
      /^problem: data\.x: expected an array, nested or flat row-major, typed or not, got DataView/,
    ],
    [
      "a count that is no multiple",
      { ...flat, x: [1, 2, 3, 4] },
      "shape",
      "problem: data.x: expected N times 3 numbers, shape [N, 3], got 4 numbers.",
    ],
    [
      "two values of N",
      { ...flat, s: [1, 2, 3] },
      "shape",
      "problem: data.s: every input must have the same N; M has 2, got 3.",
    ],
    [
      "N = 0",
      { x: [], M: [], s: [] },
      "shape",
      "problem: data.x: a data set has at least one sample, got N = 0.",
    ],
    [
      "N = 0 in typed arrays",
      { x: new Float64Array(0), M: [], s: [] },
      "shape",
      "problem: data.x: a data set has at least one sample, got N = 0.",
    ],
    [
      "NaN",
      { ...flat, x: [1, 2, 3, 4, Number.NaN, 6] },
      "nonfinite",
      "problem: data.x: values must be finite, got NaN at position 4.",
    ],
    [
      "an infinity in a typed array",
      { ...flat, s: f64([1, -1 / 0]) },
      "nonfinite",
      "problem: data.s: values must be finite, got -Infinity at position 1.",
    ],
    [
      "null for a number",
      { ...flat, x: [1, 2, null, 4, 5, 6] },
      "shape",
      "problem: data.x: expected 6 numbers, shape [2, 3], got null.",
    ],
    [
      "a hole",
      { ...flat, x: [1, 2, undefined, 4, 5, 6] },
      "shape",
      "problem: data.x: expected 6 numbers, shape [2, 3], got undefined.",
    ],
    [
      "text for a number",
      { ...flat, s: ["0.5", -2] },
      "shape",
      'problem: data.s: expected 2 numbers, shape [2], got "0.5".',
    ],
    [
      "bigints",
      { ...flat, s: BigInt64Array.from([1n, 2n]) },
      "shape",
      "problem: data.s: expected 2 numbers, shape [2], got 1n.",
    ],
    [
      "arrays nested too deep",
      { ...flat, s: [[[[[1]]]], [[[[2]]]]] },
      "shape",
      "problem: data.s: expected at most three levels of arrays, got more.",
    ],
    [
      "rows of different lengths",
      {
        ...flat,
        x: [
          [1, 2],
          [3, 4, 5, 6],
        ],
      },
      "shape",
      /^problem: data\.x: /,
    ],
    [
      "columns for rows",
      {
        ...flat,
        x: [
          [1, 4],
          [2, 5],
          [3, 6],
        ],
      },
      "shape",
      /^problem: data\.x: /,
    ],
    [
      "matrices in one row too long",
      {
        ...flat,
        M: [
          [[1, 0.5, -1], [2]],
          [
            [3, -0.25],
            [0, 8],
          ],
        ],
      },
      "shape",
      /^problem: data\.M: /,
    ],
  ];
  test.each(refused)("refused: %s", (_, data, code, message) => {
    const error = refusal(() => engine.problem(net, data as never));
    expect(error.code).toBe(code);
    expect(error.message).toMatch(message);
    if (typeof message === "string") expect(error.message).toBe(message);
  });

  test("refused: an input whose name every object inherits, when it is missing", () => {
    for (const name of ["constructor", "toString", "hasOwnProperty"]) {
      const odd = parseModel({ params: { w: [] }, inputs: { [name]: [] }, loss: ["mul", "w", name] });
      expect(refusal(() => engine.problem(odd, {})).message).toBe(
        `problem: data.${name}: the model needs input ${name} of shape [] per sample, got nothing.`,
      );
    }
  });
});

// --- samplers ----------------------------------------------------------------------------------------------------

/** A model whose data are the outputs of a sampler, to be read back. */
function readerOf(made: Sampler): Model {
  return model({
    params: { weight: [] },
    inputs: Object.fromEntries([...made.outputs].map(([name, node]) => [name, node.shape])),
    loss: (v) => v.weight,
  });
}

const dataOf = (made: Sampler, samples: number, dataSeed: string): Record<string, Float64Array> => {
  const problem = engine.problem(readerOf(made), made, { samples, dataSeed });
  const { data } = problem;
  problem.dispose();
  return data;
};

const teacher = sampler({
  noise: { z: { kind: "normal", shape: [3] }, e: { kind: "normal", shape: [2] } },
  constants: {
    V: [
      [1, -0.5, 2],
      [0, 0.25, 1],
    ],
  },
  outputs: ({ z, e, V }) => ({ x: z, y: ops.add(ops.matmul(V, z), ops.scale(e, 0.5)) }),
});

describe("a finite set made by a sampler", () => {
  test("is a function of dataSeed: equal bits for one seed, other values for another", () => {
    const first = dataOf(teacher, 50, "a");
    expect(dataOf(teacher, 50, "a")).toEqual(first);
    expect(dataOf(parseSampler(JSON.stringify(teacher)), 50, "a")).toEqual(first);
    const other = dataOf(teacher, 50, "b");
    expect([...other.x!].filter((x, i) => x === first.x![i])).toEqual([]);
  });

  test("begins with the smaller set of the same seed, for sizes around a block of 64", () => {
    const large = dataOf(teacher, 200, "a");
    for (const n of [1, 2, 63, 64, 65, 128]) {
      const small = dataOf(teacher, n, "a");
      expect([...small.x!]).toEqual([...large.x!.slice(0, 3 * n)]);
      expect([...small.y!]).toEqual([...large.y!.slice(0, 2 * n)]);
    }
  });

  test("has outputs that belong together: y = V x + e / 2, with e as large as it says", () => {
    const { x, y } = dataOf(teacher, 10_000, "c");
    const V = [1, -0.5, 2, 0, 0.25, 1];
    const e = times(20_000, (i) => {
      const [n, k] = [i >> 1, i & 1];
      const vx = [0, 1, 2].reduce((s, j) => s + V[3 * k + j]! * x![3 * n + j]!, 0);
      return (y![i]! - vx) * 2;
    });
    expect(Math.abs(mean(e)) * Math.sqrt(e.length)).toBeLessThan(Z);
    expect(Math.abs(mean(e.map((v) => v * v)) - 1) / Math.sqrt(2 / e.length)).toBeLessThan(Z);
  });

  test('draws the same whichever dataSeed form is given, and "0" when there is none', () => {
    const read = (options: { samples: number; dataSeed?: string | number }) => {
      const problem = engine.problem(readerOf(teacher), teacher, options);
      const { data } = problem;
      problem.dispose();
      return data;
    };
    expect(read({ samples: 5 })).toEqual(read({ samples: 5, dataSeed: "0" }));
    expect(read({ samples: 5, dataSeed: 7 })).toEqual(read({ samples: 5, dataSeed: "7" }));
  });

  const two = parseModel({ params: { w: [] }, inputs: { x: [3], y: [2] }, loss: "w" });
  const make = (made: unknown, options?: unknown) => () =>
    engine.problem(two, made as never, options as never);
  const refused: [what: string, () => unknown, code: string, message: string | RegExp][] = [
    [
      "no samples",
      make(teacher, { samples: 0 }),
      "range",
      "problem: samples must be an integer in [1, 2147483648], got 0.",
    ],
    [
      "half a sample",
      make(teacher, { samples: 1.5 }),
      "range",
      "problem: samples must be an integer in [1, 2147483648], got 1.5.",
    ],
    [
      "text for samples",
      make(teacher, { samples: "5" }),
      "range",
      'problem: samples must be an integer in [1, 2147483648], got "5".',
    ],
    [
      "a seed that is an object",
      make(teacher, { samples: 5, dataSeed: {} }),
      "range",
      /^problem: dataSeed: a seed is a string or a finite number, got an object/,
    ],
    [
      "a seed that is NaN",
      make(teacher, { samples: 5, dataSeed: Number.NaN }),
      "range",
      "problem: dataSeed: a seed is a string or a finite number, got NaN.",
    ],
    [
      "a seed without samples",
      make(teacher, { dataSeed: "a" }),
      "unsupported",
      "problem: dataSeed goes with samples: N, got a sampler of fresh samples. Fresh samples follow the run's seed.",
    ],
    [
      "samples of arrays",
      make({ x: [1, 2, 3], y: [1, 2] }, { samples: 1 }),
      "unsupported",
      "problem: samples and dataSeed go with a sampler, got a finite data set.",
    ],
    [
      "samples of a moment-matched set",
      make(momentMatched(teacher), { samples: 10 }),
      "unsupported",
      "problem: samples and dataSeed go with a sampler, got a finite data set.",
    ],
    [
      "an unknown option",
      make(teacher, { sample: 5 }),
      "name",
      'problem: options are samples, dataSeed, got "sample". Did you mean "samples"?',
    ],
    ["options that are null", make(teacher, null), "shape", /^problem: .*got null\.$/],
    [
      "a missing output",
      make(parseSampler({ noise: { z: { kind: "sign", shape: [3] } }, outputs: { x: "z" } }), { samples: 2 }),
      "name",
      "problem: sampler: expected an output for input y, got outputs x.",
    ],
    [
      "an output too many",
      make(parseSampler({ noise: { z: { kind: "sign", shape: [3] } }, outputs: { x: "z", q: "z" } }), {
        samples: 2,
      }),
      "name",
      'problem: sampler: the inputs of the model are x, y, got an output "q".',
    ],
    [
      "an output of another shape",
      make(parseSampler({ noise: { z: { kind: "sign", shape: [2] } }, outputs: { x: "z", y: "z" } }), {
        samples: 2,
      }),
      "shape",
      "problem: sampler: input x has shape [3], got output of shape [2].",
    ],
    [
      "a logarithm of negative numbers",
      make(
        parseSampler({
          noise: { z: { kind: "sign", shape: [3] }, v: { kind: "sign", shape: [2] } },
          outputs: { x: ["log", ["sub", "z", 3]], y: "v" },
        }),
        { samples: 2 },
      ),
      "nonfinite",
      "problem: data from a sampler: a sampler must give finite values, got NaN in sample 0.",
    ],
  ];
  test.each(refused)("refused: %s", (_, attempt, code, message) => {
    const error = refusal(attempt);
    expect(error.code).toBe(code);
    expect(error.message).toMatch(message);
    if (typeof message === "string") expect(error.message).toBe(message);
  });
});

describe("fresh samples", () => {
  const scalar = sampler({ noise: { x: { kind: "normal", shape: [2] } }, outputs: ({ x }) => ({ x }) });
  const squares = parseModel({ params: { a: [2] }, inputs: { x: [2] }, loss: ["sqnorm", ["mul", "a", "x"]] });
  const problem = engine.problem(squares, scalar);

  test("have no N, and a loss that is an honest estimate of its mean (100,000 samples)", () => {
    expect(problem.N).toBe(Number.POSITIVE_INFINITY);
    const estimate = problem.loss([1, 2], { samples: 100_000, seed: "fresh" });
    // E = 1 + 4, variance 2 + 2 * 16
    expect(Math.abs(estimate.value - 5) / estimate.stdErr).toBeLessThan(Z);
    expect(estimate.count).toBe(100_000);
    expect(estimate.method).toBe("fresh samples");
    // the spread of an estimated standard error is that of the fourth moment: 1 % is 10 of its own standard errors
    expect(Math.abs(estimate.stdErr / Math.sqrt(34 / 100_000) - 1)).toBeLessThan(0.1);
  });

  test("are the same for the same seed and count, and others for another seed", () => {
    const losses = (seed: string) => [...problem.losses([1, 2], { samples: 10, seed })];
    expect(losses("a")).toEqual(losses("a"));
    expect(losses("a").filter((x, i) => x === losses("b")[i])).toEqual([]);
    expect(problem.loss([1, 2], { samples: 10, seed: "a" }).value).toBeCloseTo(mean(losses("a")), 12);
  });

  test("give a gradient of their mean: 2 a_i <x_i^2>", () => {
    const fresh = { samples: 100_000, seed: "g" };
    const g = problem.gradient([1, 2], fresh);
    // x^2 has variance 2
    for (const [i, a] of [1, 2].entries())
      expect(Math.abs(g[i]! - 2 * a) / (2 * a * Math.sqrt(2 / 100_000))).toBeLessThan(Z);
  });

  const refused: [what: string, () => unknown, code: string, message: string][] = [
    [
      "a loss of none",
      () => problem.loss([1, 2]),
      "unsupported",
      "loss: samples are drawn fresh, so say how many: { samples, seed }, got undefined.",
    ],
    [
      "losses of none",
      () => problem.losses([1, 2]),
      "unsupported",
      "losses: samples are drawn fresh, so say how many: { samples, seed }, got undefined.",
    ],
    [
      "a gradient of none",
      () => problem.gradient([1, 2]),
      "unsupported",
      "gradient: samples are drawn fresh, so say how many: { samples, seed }, got undefined.",
    ],
    [
      "half a sample",
      () => problem.loss([1, 2], { samples: 0.5 }),
      "range",
      "loss: samples must be an integer in [1, 100000000], got 0.5.",
    ],
    [
      "a misspelt option",
      () => problem.loss([1, 2], { sample: 5 } as never),
      "name",
      'loss: options are samples, seed, got "sample". Did you mean "samples"?',
    ],
    [
      "a seed that is null",
      () => problem.loss([1, 2], { samples: 5, seed: {} as never }),
      "range",
      "loss: a seed is a string or a finite number, got an object with keys .",
    ],
    [
      "the data themselves",
      () => problem.data,
      "unsupported",
      "data: fresh samples are drawn in every step and never stored.",
    ],
  ];
  test.each(refused)("refused: %s", (_, attempt, code, message) => {
    const error = refusal(attempt);
    expect([error.code, error.message]).toEqual([code, message]);
  });

  test("are those of the documented counters: sample s of a measurement has the blocks s b + leaf of purpose 5", () => {
    const law = parseSampler({
      noise: { i: { kind: "index", shape: [5], below: 1000 }, s: { kind: "sign", shape: [2] } },
      outputs: { x: ["concat", "i", "s"] },
    });
    const read = parseModel({ params: { w: [7] }, inputs: { x: [7] }, loss: ["matmul", "w", "x"] });
    const drawn = engine.problem(read, law);
    const key = keyOfSeed("documented");
    for (const e of times(7, (k) => k)) {
      const unit = times(7, (k) => (k === e ? 1 : 0));
      const expected = times(70, (s) => {
        // the five indices take two blocks, the signs the third
        const leaf = e < 5 ? e >> 2 : 2;
        const word = philox([3 * s + leaf, 0, 0, MEASURE], key)[(e < 5 ? e & 3 : e - 5) as 0];
        return e < 5 ? below(word, 1000) : word >= 2 ** 31 ? -1 : 1;
      });
      expect([...drawn.losses(unit, { samples: 70, seed: "documented" })]).toEqual(expected);
    }
    drawn.dispose();
  });
});

/** The purpose of draws that measure. */
const MEASURE = 5;

describe("independent draws from a finite set", () => {
  const squares = parseModel({ params: { a: [2] }, inputs: { x: [2] }, loss: ["sqnorm", ["mul", "a", "x"]] });
  const x = times(22, (i) => Math.sin(1 + i));
  const rowsOf = (rows: readonly number[]) => rows.flatMap((n) => x.slice(2 * n, 2 * n + 2));
  const theta = [1, 2];
  const all = engine.problem(squares, { x });

  /** Draw i is floor(word N / 2^32), word i & 3 of block (i >> 2, 0, 0, 5). */
  const documented = (count: number, seed: string, N: number): number[] => {
    const key = keyOfSeed(seed);
    return times(count, (i) => below(philox([i >> 2, 0, 0, MEASURE], key)[(i & 3) as 0], N));
  };

  test("are the documented ones, with replacement, for counts below and above N", () => {
    const own = [...all.losses(theta)];
    for (const count of [1, 3, 4, 5, 11, 130]) {
      const rows = documented(count, "measure", 11);
      expect(count < 11 || new Set(rows).size < count).toBe(true);
      const draw = { samples: count, seed: "measure" };
      expect([...all.losses(theta, draw)]).toEqual(rows.map((n) => own[n]));
      // the same samples as a data set of their own
      const picked = engine.problem(squares, { x: rowsOf(rows) });
      expect(all.gradient(theta, draw)).toEqual(picked.gradient(theta));
      picked.dispose();
    }
    expect([...all.losses(theta)]).toEqual(own);
  });

  test("give an Estimate of the mean loss: the mean of the drawn losses, s / sqrt(n), the count and the method", () => {
    const draw = { samples: 9, seed: 3 };
    const drawn = all.losses(theta, draw);
    const { value, stdErr, count, method } = all.loss(theta, draw);
    expect([count, method]).toEqual([9, "independent draws"]);
    expect(Math.abs(value - mean(drawn))).toBeLessThanOrEqual(16 * 2 ** -53 * value);
    const variance = (9 / 8) * mean(drawn.map((l) => (l - value) ** 2));
    expect(Math.abs(stdErr / Math.sqrt(variance / 9) - 1)).toBeLessThanOrEqual(32 * 2 ** -53);
    expect(all.loss(theta)).toBeTypeOf("number");
    // one draw says nothing about its doubt
    expect(all.loss(theta, { samples: 1 }).stdErr).toBeNaN();
  });

  test("are honest: 100,000 of them cover the mean over all, |z| < 4.9, with its standard error to 1 %", () => {
    const own = all.losses(theta);
    const { value, stdErr } = all.loss(theta, { samples: 100_000, seed: "honest" });
    expect(Math.abs(value - all.loss(theta)) / stdErr).toBeLessThan(Z);
    const variance = mean(own.map((l) => (l - mean(own)) ** 2));
    expect(Math.abs(stdErr / Math.sqrt(variance / 100_000) - 1)).toBeLessThan(0.01);
  });

  test('follow the seed alone: equal bits for one seed, others for another, "0" when there is none', () => {
    const losses = (seed?: string | number) =>
      [...all.losses(theta, seed === undefined ? { samples: 20 } : { samples: 20, seed })].join();
    expect(losses("a")).toBe(losses("a"));
    expect(losses("a")).not.toBe(losses("b"));
    expect(losses(7)).toBe(losses("7"));
    expect(losses()).toBe(losses("0"));
  });

  test("of a set that a sampler made are draws from that set", () => {
    const law = sampler({ noise: { z: { kind: "normal", shape: [2] } }, outputs: ({ z }) => ({ x: z }) });
    const made = engine.problem(squares, law, { samples: 13, dataSeed: "d" });
    const own = made.losses(theta);
    const rows = documented(40, "m", 13);
    expect([...made.losses(theta, { samples: 40, seed: "m" })]).toEqual(rows.map((n) => own[n]));
    made.dispose();
  });

  test("take memory for the last few sets only, and give it back with the problem", () => {
    const before = engine.bytesInUse;
    const problem = engine.problem(squares, { x });
    const used = times(8, (seed) => {
      problem.loss(theta, { samples: 1000, seed });
      return engine.bytesInUse;
    });
    expect(used.slice(3)).toEqual(times(5, () => used[2]));
    problem.dispose();
    expect(engine.bytesInUse).toBe(before);
  });

  const refused: [what: string, () => unknown, code: string, message: string][] = [
    [
      "none",
      () => all.loss(theta, { samples: 0 }),
      "range",
      "loss: samples must be an integer in [1, 100000000], got 0.",
    ],
    [
      "a seed without a count",
      () => all.losses(theta, { seed: 1 } as never),
      "range",
      "losses: samples must be an integer in [1, 100000000], got undefined.",
    ],
    [
      "a misspelt option",
      () => all.gradient(theta, { sample: 5 } as never),
      "name",
      'gradient: options are samples, seed, got "sample". Did you mean "samples"?',
    ],
    [
      "a number for the options",
      () => all.loss(theta, 5 as never),
      "shape",
      "loss: expected { samples, seed? }, got 5.",
    ],
  ];
  test.each(refused)("refused: %s", (_, attempt, code, message) => {
    const error = refusal(attempt);
    expect([error.code, error.message]).toEqual([code, message]);
  });
});

// --- laws --------------------------------------------------------------------------------------------------------

describe("200,000 entries of each random leaf, |z| < 4.9", () => {
  const COUNT = 200_000;
  const draw = (leaf: object, expression: unknown = "z"): Float64Array =>
    dataOf(
      parseSampler({ noise: { z: { shape: [8], ...leaf } }, outputs: { x: expression } }),
      COUNT / 8,
      "law",
    ).x!;

  /** z of the mean of f(x), whose mean and variance are known. */
  const zOf = (xs: ArrayLike<number>, f: (x: number) => number, mu: number, variance: number): number =>
    (mean(Array.from(xs, f)) - mu) / Math.sqrt(variance / xs.length);
  /** z of the correlation of each entry with the one `lag` entries later. */
  const lagged = (xs: Float64Array, lag: number, centre: number, variance: number): number => {
    const n = xs.length - lag;
    return (
      times(n, (i) => (xs[i]! - centre) * (xs[i + lag]! - centre)).reduce((s, x) => s + x) /
      variance /
      Math.sqrt(n)
    );
  };
  const uncorrelated = (xs: Float64Array, centre: number, variance: number): void => {
    // 1, 2, 4: entries of one Philox block; 8: the same entry of the next sample; 512: of the next block of samples
    for (const lag of [1, 2, 3, 4, 8, 512])
      expect(Math.abs(lagged(xs, lag, centre, variance)), `lag ${lag}`).toBeLessThan(Z);
  };

  test("normal: mean 0, variance 1, third moment 0, fourth 3, tails, no correlation", () => {
    const xs = draw({ kind: "normal" });
    expect(Math.abs(zOf(xs, (x) => x, 0, 1))).toBeLessThan(Z);
    expect(Math.abs(zOf(xs, (x) => x * x, 1, 2))).toBeLessThan(Z);
    expect(Math.abs(zOf(xs, (x) => x ** 3, 0, 15))).toBeLessThan(Z);
    expect(Math.abs(zOf(xs, (x) => x ** 4, 3, 96))).toBeLessThan(Z);
    // P(|x| > 2) and P(|x| > 3.5) of the normal law
    for (const [t, p] of [
      [2, 0.04550026389635842],
      [3.5, 0.00046525815807105],
    ] as const)
      expect(Math.abs(zOf(xs, (x) => (Math.abs(x) > t ? 1 : 0), p, p * (1 - p)))).toBeLessThan(Z);
    uncorrelated(xs, 0, 1);
    // the same tests refuse a law that is 1 % too wide
    expect(
      Math.abs(
        zOf(
          xs.map((x) => 1.01 * x),
          (x) => x * x,
          1,
          2,
        ),
      ),
    ).toBeGreaterThan(Z);
  });

  test("uniform: in [0, 1), mean 1/2, variance 1/12, equal tenths, no correlation", () => {
    const xs = draw({ kind: "uniform" });
    expect(xs.every((x) => x >= 0 && x < 1)).toBe(true);
    expect(Math.abs(zOf(xs, (x) => x, 1 / 2, 1 / 12))).toBeLessThan(Z);
    // (x - 1/2)^2 has mean 1/12 and variance 1/180
    expect(Math.abs(zOf(xs, (x) => (x - 0.5) ** 2, 1 / 12, 1 / 180))).toBeLessThan(Z);
    for (let cell = 0; cell < 10; cell++)
      expect(
        Math.abs(zOf(xs, (x) => (Math.floor(10 * x) === cell ? 1 : 0), 0.1, 0.09)),
        `tenth ${cell}`,
      ).toBeLessThan(Z);
    uncorrelated(xs, 1 / 2, 1 / 12);
    expect(
      Math.abs(
        zOf(
          xs.map((x) => 0.99 * x),
          (x) => x,
          1 / 2,
          1 / 12,
        ),
      ),
    ).toBeGreaterThan(Z);
  });

  test("sign: -1 and 1, equally often, no correlation", () => {
    const xs = draw({ kind: "sign" });
    expect(xs.every((x) => x === 1 || x === -1)).toBe(true);
    expect(Math.abs(zOf(xs, (x) => x, 0, 1))).toBeLessThan(Z);
    uncorrelated(xs, 0, 1);
    // the same test refuses a coin that shows heads 51 times of 100
    expect(
      Math.abs(
        zOf(
          xs.map((x, i) => (i % 50 === 0 ? 1 : x)),
          (x) => x,
          0,
          1,
        ),
      ),
    ).toBeGreaterThan(Z);
  });

  test.each([2, 3, 7, 10])("index below %i: every integer equally often, no correlation", (below) => {
    const xs = draw({ kind: "index", below });
    expect(xs.every((x) => Number.isInteger(x) && x >= 0 && x < below)).toBe(true);
    const p = 1 / below;
    for (let k = 0; k < below; k++)
      expect(Math.abs(zOf(xs, (x) => (x === k ? 1 : 0), p, p * (1 - p))), `index ${k}`).toBeLessThan(Z);
    uncorrelated(xs, (below - 1) / 2, (below * below - 1) / 12);
    // a draw that shows 0 in place of the last index once in 50
    const biased = xs.map((x, i) => (x === below - 1 && i % 5 === 0 ? 0 : x));
    expect(Math.abs(zOf(biased, (x) => (x === 0 ? 1 : 0), p, p * (1 - p)))).toBeGreaterThan(Z);
  });

  test("index below 1 is 0, and below 2^31 is uniform", () => {
    expect(draw({ kind: "index", below: 1 }).every((x) => x === 0)).toBe(true);
    const xs = draw({ kind: "index", below: 2 ** 31 });
    expect(xs.every((x) => Number.isInteger(x) && x >= 0 && x < 2 ** 31)).toBe(true);
    expect(Math.abs(zOf(xs, (x) => x / 2 ** 31, 0.5, 1 / 12))).toBeLessThan(Z);
    expect(Math.abs(zOf(xs, (x) => x % 2, 0.5, 0.25))).toBeLessThan(Z);
  });

  test("leaves of one sampler are independent of each other", () => {
    const both = parseSampler({
      noise: {
        a: { kind: "normal", shape: [1] },
        b: { kind: "normal", shape: [1] },
        c: { kind: "sign", shape: [1] },
      },
      outputs: { ab: ["mul", "a", "b"], ac: ["mul", "a", "c"], bc: ["mul", "b", "c"] },
    });
    for (const xs of Object.values(dataOf(both, COUNT, "pairs")))
      expect(Math.abs(zOf(xs, (x) => x, 0, 1))).toBeLessThan(Z);
  });
});

// --- exact moments -----------------------------------------------------------------------------------------------

describe("momentMatched", () => {
  // x = mu + L z, y = V x + M e: full covariances of both
  const L = [1.5, 0, 0, -0.4, 0.8, 0, 0.3, 0.7, 1.1];
  const M = [0.6, 0, -0.2, 0.9];
  const V = [1, -0.5, 2, 0, 0.25, 1];
  const mu = [0.3, -1, 2];
  const linear = sampler({
    noise: { z: { kind: "normal", shape: [3] }, e: { kind: "normal", shape: [2] } },
    constants: {
      L: { shape: [3, 3], values: L },
      M: { shape: [2, 2], values: M },
      V: { shape: [2, 3], values: V },
      mu,
    },
    outputs: ({ z, e, L: l, M: m, V: v, mu: shift }) => {
      const x = ops.add(shift, ops.matmul(l, z));
      return { x, y: ops.add(ops.matmul(v, x), ops.matmul(m, e)) };
    },
  });
  const product = (a: number[], b: number[], rows: number, inner: number, cols: number): number[] =>
    times(rows * cols, (i) => {
      const [r, c] = [Math.floor(i / cols), i % cols];
      return times(inner, (k) => a[r * inner + k]! * b[k * cols + c]!).reduce((s, x) => s + x, 0);
    });
  const turned = (a: number[], rows: number, cols: number): number[] =>
    times(rows * cols, (i) => a[(i % rows) * cols + Math.floor(i / rows)]!);
  const Sx = product(L, turned(L, 3, 3), 3, 3, 3);
  const VSx = product(V, Sx, 2, 3, 3);
  const Sy = product(VSx, turned(V, 2, 3), 2, 3, 2).map(
    (s, i) => s + product(M, turned(M, 2, 2), 2, 2, 2)[i]!,
  );
  const muY = product(V, mu, 2, 3, 1);

  test("of y = V x + noise: 2 d points with exactly the mean and the full covariance of (x, y)", () => {
    const problem = engine.problem(readerOf(linear), momentMatched(linear));
    expect(problem.N).toBe(2 * 5);
    const { x, y } = problem.data;
    const point = (n: number): number[] => [...x!.slice(3 * n, 3 * n + 3), ...y!.slice(2 * n, 2 * n + 2)];
    const points = times(problem.N, point);
    const centre = [...mu, ...muY];
    for (let i = 0; i < 5; i++) {
      // ten points of size sqrt(5) times a few: the roundings of their sums stay below 100 units
      expect(Math.abs(mean(points.map((p) => p[i]!)) - centre[i]!)).toBeLessThan(100 * 2 ** -53 * 10);
      for (let j = 0; j <= i; j++) {
        const expected = i < 3 ? Sx[3 * i + j]! : j < 3 ? VSx[3 * (i - 3) + j]! : Sy[2 * (i - 3) + j - 3]!;
        const got = mean(points.map((p) => (p[i]! - centre[i]!) * (p[j]! - centre[j]!)));
        expect(Math.abs(got - expected), `covariance ${i}, ${j}`).toBeLessThan(100 * 2 ** -53 * 50);
      }
    }
    problem.dispose();
  });

  test("gives the population's loss and gradient of a quadratic loss", () => {
    const regression = parseModel({
      params: { U: [2, 3] },
      inputs: { x: [3], y: [2] },
      loss: ["sqnorm", ["sub", ["matmul", "U", "x"], "y"]],
    });
    const problem = engine.problem(regression, momentMatched(linear));
    const U = [0.2, -0.3, 0.5, 1, 0, -0.7];
    // E |D x - M e|^2 with D = U - V, x of second moment S = Sx + mu mu^T
    const D = U.map((u, i) => u - V[i]!);
    const S = Sx.map((s, i) => s + mu[Math.floor(i / 3)]! * mu[i % 3]!);
    const DS = product(D, S, 2, 3, 3);
    const expected = D.reduce((s, d, i) => s + d * DS[i]!, 0) + M.reduce((s, m) => s + m * m, 0);
    expect(Math.abs(problem.loss(U) / expected - 1)).toBeLessThan(200 * 2 ** -53);
    const g = problem.gradient(U);
    for (const [i, d] of DS.entries())
      expect(Math.abs(g[i]! - 2 * d)).toBeLessThan(200 * 2 ** -53 * expected);
    problem.dispose();
  });

  test("of uniform and sign leaves, through every affine op", () => {
    const made = parseSampler({
      noise: { u: { kind: "uniform", shape: [2, 3] }, s: { kind: "sign", shape: [3] } },
      constants: { c: [0.5, 2, -1] },
      let: [
        ["t", ["transpose", ["reshape", ["scale", "u", 2], { shape: [3, 2] }]]],
        ["m", ["matmul", ["div", "t", "c"], "c"]],
      ],
      outputs: {
        a: "m",
        b: [
          "sub",
          ["sum", "s", { axis: null }],
          ["mean", ["outer", "c", ["broadcast_to", "s", { shape: [3] }]], { axis: null }],
        ],
        c: ["mul", ["exp", "c"], "s"],
        d: ["concat", ["slice", "s", { start: 1 }], ["pad", ["slice", "s", { stop: 1 }], { before: 1 }]],
      },
    });
    const problem = engine.problem(readerOf(made), momentMatched(made));
    expect(problem.N).toBe(2 * 9);
    const { a, b, c, d } = problem.data;
    // a is 2 (u_1 + u_2 + u_3) of six uniform entries, each of mean 1/2 and variance 1/12
    const column = (v: Float64Array, width: number, i: number) => times(18, (n) => v[n * width + i]!);
    for (const i of [0, 1]) {
      expect(mean(column(a!, 2, i))).toBeCloseTo(3, 13);
      expect(mean(column(a!, 2, i).map((x) => (x - 3) ** 2))).toBeCloseTo(3 * 4 * (1 / 12), 13);
    }
    expect(mean(column(a!, 2, 0).map((x, n) => (x - 3) * (a![2 * n + 1]! - 3)))).toBeCloseTo(0, 13);
    // b = sum_j s_j (1 - sum(c)/9), c of sum 1.5
    expect(mean(b!)).toBeCloseTo(0, 13);
    expect(mean(b!.map((x) => x * x))).toBeCloseTo(3 * (1 - 1.5 / 9) ** 2, 13);
    for (const [i, v] of [0.5, 2, -1].entries())
      expect(mean(column(c!, 3, i).map((x) => x * x))).toBeCloseTo(Math.exp(2 * v), 11);
    // d is s_1, s_2, 0, s_0; c has e^(c_i) s_i
    for (const [i, of] of [1, 2, -1, 0].entries()) {
      const expected =
        of < 0 ? times(18, () => 0) : column(c!, 3, of).map((x) => x / Math.exp([0.5, 2, -1][of]!));
      for (const [n, x] of column(d!, 4, i).entries()) expect(x).toBeCloseTo(expected[n]!, 13);
    }
    problem.dispose();
  });

  test("of no noise at all is one sample", () => {
    const fixed = parseSampler({ noise: {}, constants: { c: [1, 2] }, outputs: { x: ["tanh", "c"] } });
    const problem = engine.problem(readerOf(fixed), momentMatched(fixed));
    expect([problem.N, problem.data.x!.length]).toEqual([1, 2]);
    problem.dispose();
  });

  test("keeps nothing but the points in memory", () => {
    const before = engine.bytesInUse;
    const problem = engine.problem(readerOf(linear), momentMatched(linear));
    // 10 points of 5 numbers and their addresses
    expect(engine.bytesInUse - before).toBeLessThan(10 * 5 * 8 + 10 * 4 + 256);
    problem.dispose();
    expect(engine.bytesInUse).toBe(before);
  });

  const NOISE = {
    z: { kind: "normal", shape: [2] },
    v: { kind: "sign", shape: [2] },
    A: { kind: "normal", shape: [2, 2] },
  };
  const of =
    (expression: unknown, noise: object = NOISE) =>
    () =>
      momentMatched(parseSampler({ noise, outputs: { x: expression } }));
  const notAffine: [expression: unknown, op: string][] = [
    [["tanh", "z"], "tanh"],
    [["mul", "z", "v"], "mul"],
    [["mul", "z", "z"], "mul"],
    [["square", "z"], "square"],
    [["matmul", "A", "z"], "matmul"],
    [["outer", "z", "v"], "outer"],
    [["div", 1, "z"], "div"],
    [["div", "z", "v"], "div"],
    [["sqnorm", "z"], "sqnorm"],
    [["norm", "z"], "sqnorm"],
    [["softmax", "z"], "softmax"],
    [["logsumexp", "z"], "logsumexp"],
    [["relu", "z"], "relu"],
    [["abs", "z"], "abs"],
    [["sign", "z"], "sign"],
    [["step", "z"], "step"],
    [["erf", "z"], "erf"],
    [["gelu_erf", "z"], "erf"],
    [["leaky_relu", "z", { slope: 0.5 }], "leaky_relu"],
    [["concat", "v", ["mul", "z", "z"]], "mul"],
    [["add", "z", ["exp", "v"]], "exp"],
  ];
  test.each(notAffine)("refused, not affine: %j", (expression, op) => {
    const error = refusal(of(expression));
    expect([error.code, error.message]).toEqual([
      "unsupported",
      `momentMatched: every output must be affine in the random entries, got ${op} of them. Use engine.problem(model, sampler, { samples: N }) with a large N instead.`,
    ]);
  });

  test("refused: an index, and what is no sampler", () => {
    const index = refusal(of(["scale", "i", 2], { i: { kind: "index", shape: [1], below: 3 } }));
    expect([index.code, index.message]).toEqual([
      "unsupported",
      'momentMatched: an index has no moments to match, got leaf "i". Give a finite data set with { samples: N }.',
    ]);
    const number = refusal(() => momentMatched(3 as never));
    expect([number.code, number.message]).toEqual(["shape", "momentMatched: expected a sampler, got 3."]);
  });
});

// --- initial parameters ------------------------------------------------------------------------------------------

describe("initial parameters", () => {
  // 50,000 entries of W and 20,000 of U over the replicas
  const REPLICAS = 5;
  const deep = model({
    params: { W: [50, 200], b: [50], U: { shape: [80, 50], trainable: false }, s: [] },
    inputs: {},
    loss: ({ W }) => ops.sqnorm(W),
  });
  const problem = engine.problem(deep, {});
  const sizes = { W: 10_000, b: 50, U: 4000, s: 1 };

  /** Entries of each block over all replicas. */
  const drawn = (kind: string, std?: unknown): Record<keyof typeof sizes, number[]> => {
    const theta = problem.init(kind as never, {
      seed: "init",
      replicas: REPLICAS,
      ...(std === undefined ? {} : { std: std as number }),
    });
    const out: Record<string, number[]> = { W: [], b: [], U: [], s: [] };
    for (let r = 0; r < REPLICAS; r++) {
      const named = problem.named(theta.slice(r * problem.P, (r + 1) * problem.P));
      for (const [name, values] of Object.entries(named)) out[name]!.push(...values);
    }
    return out as Record<keyof typeof sizes, number[]>;
  };

  /** Mean 0, the variance, and the fourth moment of a normal law. */
  function expectNormal(xs: number[], variance: number): void {
    const n = xs.length;
    const scaled = xs.map((x) => x / Math.sqrt(variance));
    expect(Math.abs(mean(scaled)) * Math.sqrt(n)).toBeLessThan(Z);
    expect(Math.abs(mean(scaled.map((x) => x * x)) - 1) / Math.sqrt(2 / n)).toBeLessThan(Z);
    expect(Math.abs(mean(scaled.map((x) => x ** 4)) - 3) / Math.sqrt(96 / n)).toBeLessThan(Z);
  }

  test.each([
    ["glorot", 2 / 250, 2 / 130],
    ["xavier", 2 / 250, 2 / 130],
    ["he", 2 / 200, 2 / 50],
    ["kaiming", 2 / 200, 2 / 50],
    ["lecun", 1 / 200, 1 / 50],
    ["paperKaiming", 1 / 200, 1 / 50],
    ["paperXavier", 1 / 250, 1 / 130],
  ])(
    "%s: variance %f of a 50 x 200 and %f of an 80 x 50 matrix (50,000 and 20,000 entries, |z| < 4.9), biases 0",
    (kind, w, u) => {
      const { W, b, U, s } = drawn(kind);
      expectNormal(W, w);
      expectNormal(U, u);
      expect([...b, ...s].every((x) => x === 0)).toBe(true);
      expect([W.length, U.length, b.length]).toEqual([50_000, 20_000, 250]);
    },
  );

  test("the kinds are scalings of one draw: glorot and he differ by a factor only", () => {
    const [glorot, he] = [drawn("glorot").W, drawn("he").W];
    const factor = Math.sqrt(2 / 200 / (2 / 250));
    // two products of one rounding each
    expect(he.every((x, i) => Math.abs(x - factor * glorot[i]!) <= 4 * 2 ** -53 * Math.abs(x))).toBe(true);
  });

  test("normal: the caller's standard deviation, one for all or one per block, biases included", () => {
    const all = drawn("normal", 0.3);
    expectNormal(all.W, 0.09);
    expectNormal(all.b, 0.09);
    const each = drawn("normal", { W: 2, b: 0, U: 0.1, s: 5 });
    expectNormal(each.W, 4);
    expectNormal(each.U, 0.01);
    expect(each.b.every((x) => x === 0)).toBe(true);
    expect(each.s.every((x) => x !== 0)).toBe(true);
  });

  test("a replica is the same alone and among others, and seeds, replicas and blocks differ", () => {
    const { P } = problem;
    const many = problem.init("he", { seed: 3, replicas: 4, firstReplica: 5 });
    for (let r = 0; r < 4; r++)
      expect(problem.init("he", { seed: "3", firstReplica: 5 + r })).toEqual(many.slice(r * P, (r + 1) * P));
    const equal = (a: ArrayLike<number>, b: ArrayLike<number>) =>
      Array.from(a).filter((x, i) => x === b[i] && x !== 0);
    expect(equal(many.slice(0, P), many.slice(P, 2 * P))).toEqual([]);
    expect(equal(problem.init("he", { seed: 4 }), problem.init("he", { seed: 3 }))).toEqual([]);
    const { W, U } = problem.named(problem.init("normal", { seed: 3, std: 1 }));
    expect(equal(W!.slice(0, 4000), U!)).toEqual([]);
  });

  test("data, batches and parameters of one seed are different draws", () => {
    const made = parseSampler({ noise: { z: { kind: "normal", shape: [100] } }, outputs: { x: "z" } });
    const { x } = dataOf(made, 1, "same");
    const w = parseModel({ params: { w: [100] }, inputs: {}, loss: ["sqnorm", "w"] });
    const theta = engine.problem(w, {}).init("normal", { seed: "same", std: 1 });
    expect([...theta].filter((t, i) => t === x![i])).toEqual([]);
  });

  test("f32 engines give f32 parameters", async () => {
    const single = await createEngine({ dtype: "f32" });
    const theta = single.problem(deep, {}).init("glorot", { seed: "init" });
    expect(theta).toBeInstanceOf(Float32Array);
    single.dispose();
  });

  const vectors = engine.problem(parseModel({ params: { a: [3], b: [] }, inputs: {}, loss: "b" }), {});
  const refused: [what: string, () => unknown, code: string, message: string | RegExp][] = [
    [
      "an unknown kind",
      () => problem.init("glorott" as never, { seed: 1 }),
      "name",
      'init: kind must be one of "glorot", "xavier", "he", "kaiming", "lecun", "paperXavier", "paperKaiming", "normal", got "glorott". Did you mean "glorot"?',
    ],
    [
      "a kind that objects inherit",
      () => problem.init("constructor" as never, { seed: 1 }),
      "name",
      /^init: kind must be one of .*, got "constructor"\./,
    ],
    [
      "no options",
      () => problem.init("he", undefined as never),
      "shape",
      "init: expected { seed, std?, replicas?, firstReplica? }, got undefined.",
    ],
    [
      "a misspelt option",
      () => problem.init("he", { seed: 1, replica: 3 } as never),
      "name",
      'init: options are seed, std, replicas, firstReplica, got "replica". Did you mean "replicas"?',
    ],
    [
      "no seed",
      () => problem.init("he", {} as never),
      "range",
      "init: a seed is a string or a finite number, got undefined.",
    ],
    [
      "a seed that is NaN",
      () => problem.init("he", { seed: Number.NaN }),
      "range",
      "init: a seed is a string or a finite number, got NaN.",
    ],
    [
      "no replicas",
      () => problem.init("he", { seed: 1, replicas: 0 }),
      "range",
      "init: replicas must be an integer of at least 1, got 0.",
    ],
    [
      "a negative firstReplica",
      () => problem.init("he", { seed: 1, firstReplica: -1 }),
      "range",
      "init: firstReplica must be an integer of at least 0, got -1.",
    ],
    [
      "more replicas than any array holds",
      () => problem.init("he", { seed: 1, replicas: 1e12 }),
      "memory",
      /^init: .*1000000000000/,
    ],
    [
      "std with another kind",
      () => problem.init("he", { seed: 1, std: 1 }),
      "unsupported",
      'init: std goes with kind "normal", got kind "he".',
    ],
    [
      "normal without std",
      () => problem.init("normal", { seed: 1 }),
      "range",
      'init: kind "normal" needs std, a number or one per block, got undefined.',
    ],
    [
      "a negative std",
      () => problem.init("normal", { seed: 1, std: -1 }),
      "range",
      "init: std must be a finite number of at least 0, got -1.",
    ],
    [
      "a std that is NaN",
      () => problem.init("normal", { seed: 1, std: Number.NaN }),
      "range",
      "init: std must be a finite number of at least 0, got NaN.",
    ],
    [
      "a negative std of one block",
      () => problem.init("normal", { seed: 1, std: { W: 1, b: 1, U: -2, s: 1 } }),
      "range",
      "init: std.U must be a finite number of at least 0, got -2.",
    ],
    [
      "no std for a block",
      () => problem.init("normal", { seed: 1, std: { W: 1, b: 1, s: 1 } }),
      "name",
      "init: std needs an entry for every block, got none for U.",
    ],
    [
      "std for a block that is not there",
      () => problem.init("normal", { seed: 1, std: { W: 1, b: 1, U: 1, s: 1, V: 1 } }),
      "name",
      'init: std: the parameters are W, b, U, s, got "V".',
    ],
    [
      "fans of a model without matrices",
      () => vectors.init("he", { seed: 1 }),
      "unsupported",
      'init: "he" sets the variance of matrices by their fans, got a model whose blocks are a [3], b []. Use init("normal", { std, seed }).',
    ],
  ];
  test.each(refused)("refused: %s", (_, attempt, code, message) => {
    const error = refusal(attempt);
    expect(error.code).toBe(code);
    expect(error.message).toMatch(message);
    if (typeof message === "string") expect(error.message).toBe(message);
  });
});

/**
 * What a problem measures at one theta: gradients of samples, products with the Hessian and its relatives, the noise of
 * gradients, spectra. Oracles are plain loops over per-sample gradients of dual numbers, over problems of one sample,
 * and over exact binary fractions.
 *
 * It catches a factor of a tied parameter that is counted once, a term of a sum that lost its sign, a chunk that begins
 * or ends one sample off, a first moment taken from a second one of the same size, and an answer where there is none.
 */
import { afterAll, describe, expect, test } from "vitest";
import { type Products, plain, structured } from "../src/graph/inner.ts";
import {
  createEngine,
  type Engine,
  type Expr,
  type Generator,
  type LinearOperator,
  type Model,
  type ModelJSON,
  model,
  NoetherflowError,
  ops,
  type Problem,
  parseModel,
  sampler,
  symmetry,
} from "../src/index.ts";
import { models } from "../src/models/ready.ts";
import {
  type Data,
  derivatives,
  duals,
  type Expression,
  evaluate,
  leaves,
  type ModelFile,
  sampleCount,
  seeded,
} from "./reference/dual.ts";
import { type Big, fromDouble, multiply } from "./reference/precise.ts";
import { goldenProblem, gradientMoments } from "./reference/sgd.ts";

const engine = await createEngine();
const engine32 = await createEngine({ dtype: "f32" });
afterAll(() => {
  engine.dispose();
  engine32.dispose();
});

const U64 = 2 ** -53;
const U32 = 2 ** -24;

type Numbers = ArrayLike<number>;
const times = <T>(n: number, f: (i: number) => T): T[] => Array.from({ length: n }, (_, i) => f(i));
const total = (xs: Numbers): number => {
  let sum = 0;
  for (let i = 0; i < xs.length; i++) sum += xs[i]!;
  return sum;
};
const dot = (a: Numbers, b: Numbers): number => total(times(a.length, (i) => a[i]! * b[i]!));
const size = (a: Numbers): number => Math.sqrt(dot(a, a));
const largest = (a: Numbers): number => Array.from(a).reduce((m, x) => Math.max(m, Math.abs(x)), 0);
const rowsOf = (flat: Numbers, width: number): number[][] =>
  times(flat.length / width, (i) => Array.from(flat).slice(i * width, (i + 1) * width));
const areaOf = (shape: readonly number[]): number => shape.reduce((n, d) => n * d, 1);

/** A stream of numbers in [-1, 1): a linear congruential generator, good enough for test data. */
function stream(seed: number): (n: number) => number[] {
  let state = seed;
  return (n) =>
    times(n, () => {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
      return state / 2_147_483_648 - 1;
    });
}

/** Fails unless every entry is within `bound` of the expected one. */
function expectWithin(what: string, got: Numbers, expected: Numbers, bound: number): void {
  expect(got.length, `${what}: number of entries`).toBe(expected.length);
  let at = 0;
  let error = 0;
  for (let i = 0; i < expected.length; i++) {
    const e = Math.abs(got[i]! - expected[i]!);
    if (!(e <= error)) [error, at] = [e, i];
  }
  expect(
    error,
    `${what}: entry ${at} is ${got[at]}, expected ${expected[at]}; error over bound ${error / bound}`,
  ).toBeLessThanOrEqual(bound);
}

/** Equal numbers, entry by entry; +0 and -0 are equal. */
function expectSame(what: string, got: Numbers, expected: Numbers): void {
  expect(got.length, `${what}: number of entries`).toBe(expected.length);
  const at = Array.from(expected).findIndex((x, i) => got[i] !== x);
  expect(at, `${what}: entry ${at} is ${got[at]}, expected ${expected[at]}`).toBe(-1);
}

// --- models ------------------------------------------------------------------------------------------------

type File = ModelJSON & ModelFile;
const fileOf = (net: Model): File => net.toJSON() as File;
/** A model file with a squared loss |f - y|^2. */
const squared = (
  params: File["params"],
  inputs: Record<string, readonly number[]>,
  f: unknown,
  y = "y",
): File => ({ params, inputs, loss: ["sqnorm", ["sub", f, y]] }) as unknown as File;

const hidden = ["tanh", ["matmul", "W", "x"]];
/** Every way a parameter may enter a loss, with the factors of products U W; true where W's block holds its transpose. */
const zoo: Record<string, { file: File; products?: [U: string, W: string, transposeW: boolean][] }> = {
  "two layers and biases": {
    file: squared({ U: [2, 3], W: [3, 4], b: [3], c: [2] }, { x: [4], y: [2] }, [
      "add",
      ["matmul", "U", ["tanh", ["add", ["matmul", "W", "x"], "b"]]],
      "c",
    ]),
    products: [["U", "W", false]],
  },
  "a transposed block": {
    file: squared({ U: [2, 3], V: [4, 3] }, { x: [4], y: [2] }, ["matmul", "U", ["matmul", "x", "V"]]),
    products: [["U", "V", true]],
  },
  "a matrix used twice": {
    file: squared({ W: [3, 3] }, { x: [3], y: [3] }, ["matmul", "W", hidden]),
    products: [
      ["W", "W", false],
      ["W", "W", true],
    ],
  },
  "a matrix and its transpose": {
    file: squared({ W: [2, 4] }, { x: [4] }, ["matmul", ["transpose", "W"], hidden], "x"),
    products: [["W", "W", true]],
  },
  "layers shared by two inputs": {
    file: squared({ V: [2, 3], W: [3, 4] }, { x: [4], z: [4], y: [2] }, [
      "add",
      ["matmul", "V", hidden],
      ["matmul", "V", ["tanh", ["matmul", "W", "z"]]],
    ] as unknown),
    products: [["V", "W", false]],
  },
  "differences and factors": {
    file: squared({ W: [2, 3] }, { x: [3], z: [3], y: [2] }, [
      "sub",
      ["scale", ["matmul", "W", "x"], -3],
      ["scale", ["sub", ["matmul", "W", "z"], ["tanh", ["matmul", "W", "x"]]], 2],
    ]),
    products: [["W", "W", true]],
  },
  "five layers of one matrix": {
    file: squared(
      { W: [3, 3] },
      { x: [3], y: [3] },
      times(4, () => 0).reduce<unknown>((f) => ["matmul", "W", ["tanh", f]], ["matmul", "W", "x"]),
    ),
    products: [["W", "W", false]],
  },
  "a layer shared by tokens": {
    file: squared({ V: [2, 3], W: [3, 4], b: [3] }, { X: [5, 4], y: [2] }, [
      "matmul",
      "V",
      ["mean", ["tanh", ["add", ["matmul", "X", ["transpose", "W"]], "b"]], { axis: 0 }],
    ]),
    products: [["V", "W", false]],
  },
  "outputs per token": {
    file: squared({ V: [2, 3], W: [3, 4] }, { X: [5, 4], y: [5, 2] }, [
      "matmul",
      ["tanh", ["matmul", "X", ["transpose", "W"]]],
      ["transpose", "V"],
    ]),
    products: [["V", "W", false]],
  },
  attention: {
    file: fileOf(models.attention({ T: 4, d: 3, dk: 2 })),
    products: [["Wq", "Wk", true]],
  },
  "vectors alone": {
    file: squared({ u: [3], c: [3] }, { x: [3], y: [3] }, ["add", ["mul", "u", "x"], "c"]),
  },
  "normalised weights and a penalty": {
    file: {
      params: { V: [2, 3], W: [3, 4] },
      inputs: { x: [4], y: [2] },
      let: [
        ["rows", ["sqrt", ["sum", ["square", "W"], { axis: 1, keepdims: true }]]],
        ["f", ["matmul", ["div", "V", ["norm", "V"]], ["relu", ["matmul", ["div", "W", "rows"], "x"]]]],
      ],
      loss: ["add", ["sqnorm", ["sub", "f", "y"]], ["scale", ["sqnorm", "V"], 0.1]],
    } as unknown as File,
    products: [["V", "W", false]],
  },
  "a block that is not trained": {
    file: squared(
      { U: [2, 3], R: { shape: [3], trainable: false }, W: [3, 4] } as unknown as File["params"],
      { x: [4], y: [2] },
      ["matmul", "U", ["mul", "R", hidden]],
    ),
    products: [["U", "W", false]],
  },
  "a block the loss does not use": {
    file: squared({ Z: [2, 2], U: [2, 3], W: [3, 4] }, { x: [4], y: [2] }, ["matmul", "U", hidden]),
    products: [
      ["U", "W", false],
      ["Z", "Z", false],
    ],
  },
  "matrix completion": {
    file: fileOf(models.matrixCompletion({ rows: 3, cols: 4, rank: 2 })),
    products: [["U", "W", false]],
  },
  "cross-entropy behind layer norm": {
    file: {
      params: { U: [3, 4], W: [4, 2], b: [4] },
      inputs: { x: [2], y: [3] },
      let: [
        ["a", ["add", ["matmul", "W", "x"], "b"]],
        ["d", ["sub", "a", ["mean", "a"]]],
        ["z", ["matmul", "U", ["div", "d", ["sqrt", ["mean", ["square", "d"]]]]]],
      ],
      loss: ["sub", ["logsumexp", "z"], ["sum", ["mul", ["softmax", "y"], "z"]]],
    } as unknown as File,
    products: [["U", "W", false]],
  },
  "no samples in the loss": {
    file: { params: { W: [2, 3] }, inputs: { x: [2] }, loss: ["sqnorm", "W"] } as unknown as File,
    products: [["W", "W", true]],
  },
};

interface Block {
  name: string;
  shape: readonly number[];
  size: number;
  offset: number;
  trainable: boolean;
}
const blocksOf = (file: File): readonly Block[] => parseModel(file).blocks;
const sizeOfTheta = (file: File): number => blocksOf(file).reduce((n, b) => n + b.size, 0);

/** Data and a theta of a model file, from a stream. */
function drawn(file: File, N: number, seed: number): { data: Data; theta: number[]; v: number[] } {
  const next = stream(seed);
  const data = Object.fromEntries(
    Object.entries(file.inputs).map(([name, shape]) => [name, next(N * areaOf(shape))]),
  );
  const P = sizeOfTheta(file);
  return { data, theta: next(P), v: next(P) };
}

const symmetric = (n: number, next: (n: number) => number[]): number[][] => {
  const half = rowsOf(next(n * n), n);
  return half.map((row, i) => row.map((x, j) => x + half[j]![i]!));
};

type Action = { scalar?: number; left?: number[][]; right?: number[][] };
type GeneratorFile = { blocks?: Record<string, Action>; dense?: number[]; center?: number[] };

/** Generators of all kinds: one block by a scalar, from the left, from the right, all at once, dense, with a center. */
function generatorsOf(file: File, seed: number): Record<string, GeneratorFile> {
  const next = stream(seed);
  const out: Record<string, GeneratorFile> = {};
  const together: Record<string, Action> = {};
  const P = sizeOfTheta(file);
  for (const { name, shape } of blocksOf(file)) {
    const [rows, cols] = [shape[0] ?? 1, shape[1] ?? 1];
    const scalar = next(1)[0]!;
    const [left, right] = [symmetric(rows, next), symmetric(cols, next)];
    out[`scalar on ${name}`] = { blocks: { [name]: { scalar } } };
    out[`left of ${name}`] = { blocks: { [name]: { left } } };
    out[`right of ${name}`] = { blocks: { [name]: { right } } };
    together[name] = { scalar, left, right };
  }
  out["all blocks, with a center"] = { blocks: together, center: next(P) };
  out.dense = { dense: symmetric(P, next).flat() };
  out["dense, with a center"] = { dense: symmetric(P, next).flat(), center: next(P) };
  return out;
}

/** A as a matrix: P -> scalar P + left P + P right on each block. */
function matrixOf(file: File, { blocks, dense }: GeneratorFile): number[][] {
  const P = sizeOfTheta(file);
  if (dense !== undefined) return rowsOf(dense, P);
  const A = times(P, () => new Array<number>(P).fill(0));
  for (const { name, shape, offset } of blocksOf(file)) {
    const { scalar = 0, left, right } = blocks![name] ?? {};
    const [rows, cols] = [shape[0] ?? 1, shape[1] ?? 1];
    const at = (i: number, j: number) => offset + i * cols + j;
    for (let i = 0; i < rows; i++) {
      for (let j = 0; j < cols; j++) {
        A[at(i, j)]![at(i, j)]! += scalar;
        if (left) for (let k = 0; k < rows; k++) A[at(i, j)]![at(k, j)]! += left[i]![k]!;
        if (right) for (let k = 0; k < cols; k++) A[at(i, j)]![at(i, k)]! += right[k]![j]!;
      }
    }
  }
  return A;
}

/** A bound of the largest |eigenvalue| of a symmetric matrix: its largest row sum. */
const normOf = (A: readonly (readonly number[])[]): number =>
  Math.max(...A.map((row) => total(row.map(Math.abs))));
const trace = (S: readonly Numbers[]): number => total(S.map((row, i) => row[i]!));
/** Tr[S A]. */
const power = (S: readonly Numbers[], A: readonly Numbers[]): number =>
  total(S.map((row, i) => dot(row, A[i]!)));

/** sum_i S[(i, k), (i, l)] of a block of rows x cols, or with its rows and columns exchanged. */
function momentOf(S: readonly Numbers[], { shape, offset }: Block, turned: boolean): number[] {
  const [rows, cols] = [shape[0]!, shape[1]!];
  const [h, other] = turned ? [rows, cols] : [cols, rows];
  const at = (i: number, k: number) => offset + (turned ? k * cols + i : i * cols + k);
  return times(h * h, (e) => total(times(other, (i) => S[at(i, Math.floor(e / h))]![at(i, e % h)]!)));
}

// --- golden values -----------------------------------------------------------------------------------------

describe("the golden problem of theory.md, section 18", () => {
  const { x, y, U, W, B } = goldenProblem();
  const problem = engine.problem(models.twoLayerLinear({ dx: 3, h: 2, dy: 2 }), { x, y });
  const theta = problem.theta({ U, W });
  const A = symmetry.doubleRotation("U", "W", B);
  const close = (what: string, got: number, expected: number) =>
    expectWithin(what, [got], [expected], 1e-11 * Math.abs(expected));

  test("the noise: Tr Sigma, Tr[Sigma A], S_U, S_W and Q, and gbar A gbar, to 1e-11", () => {
    for (const method of [undefined, "structured", "streamed"] as const) {
      const options = method === undefined ? {} : { method };
      close("Tr Sigma", problem.noiseTrace(theta, options).value, 19.867303816731173);
      close("Tr[Sigma A]", problem.noisePower(theta, A, options).value, -6.890485504708232);
      const { SU, SW, Q } = problem.noiseMoments(theta, "U", "W", options);
      const expected = {
        SU: [3.61657251586235, -3.1288026268443945, -3.1288026268443945, 7.83745986857952],
        SW: [5.44615177037532, -2.9382365833146715, -2.9382365833146715, 2.967119661913981],
        Q: [0.003649802474615438, -0.07398814111710694, -0.07398814111710694, -0.6903235781537114],
      };
      // Q is a difference of sums of size 1
      expectWithin("S_U", SU, expected.SU, 1e-11 * largest(expected.SU));
      expectWithin("S_W", SW, expected.SW, 1e-11 * largest(expected.SW));
      expectWithin("Q", Q, expected.Q, 1e-11 * largest(expected.Q));
    }
    const g = problem.gradient(theta);
    close("|gbar|^2", dot(g, g), 4.95366211606881);
    const file = fileOf(problem.model);
    const matrix = matrixOf(file, {
      blocks: { U: { right: B }, W: { left: B.map((row) => row.map((b) => -b)) } },
    });
    const gAg = dot(
      g,
      matrix.map((row) => dot(row, g)),
    );
    close("gbar A gbar", gAg, -0.4797266019761906);
    close("C", problem.charge(theta, A), 0.3099926197556098);
  });

  test("curvature: the trace of the Hessian and its largest eigenvalue, to 1e-11", async () => {
    close("Tr H", (await problem.hessianTrace(theta)).value, 10.347762818699675);
    const parts = await Promise.all(["U", "W"].map((block) => problem.hessianTrace(theta, { block })));
    close("Tr H by blocks", total(parts.map(({ value }) => value)), 10.347762818699675);
    const { max } = await problem.sharpness(theta, { tolerance: 1e-12 });
    close("lambda_max", max.value, 4.7598274518118435);
    expect(max.converged).toBe(true);
    const [top] = await problem.topEigenvalues(theta, 1, { tolerance: 1e-12 });
    close("lambda_max, the first of one", top!.value, 4.7598274518118435);
  });
});

// --- sums of factors ---------------------------------------------------------------------------------------

describe("products of sums of factors are those of their entries, to 1e-14 of the terms", () => {
  // every kind of term that a gradient of a 3 x 4 block may have, and sums of them
  const inputs = {
    a: [3],
    b: [4],
    c: [3],
    d: [4],
    C: [3, 5],
    D: [5, 4],
    p: [3, 1],
    q: [1, 4],
    E: [3, 4],
    e: [1, 4],
  };
  const sum = (x: Expr, y: Expr): Expr => ops.add(x, y);
  const { outer, matmul, scale, add, sub } = ops;
  const forms: Record<string, (v: Record<string, Expr>) => Expr> = {
    "an outer product": ({ a, b }) => outer(a!, b!),
    "a product": ({ C, D }) => matmul(C!, D!),
    "a thin product": ({ p, q }) => matmul(p!, q!),
    entries: ({ E }) => E!,
    "a difference of outer products": ({ a, b, c, d }) => sub(scale(outer(a!, b!), 3), outer(c!, d!)),
    "a difference of a difference": ({ a, b, C, D, E }) =>
      scale(sub(outer(a!, b!), sub(matmul(C!, D!), scale(E!, 0.5))), -2),
    "an outer product and a row for all": ({ a, b, e }) => add(outer(a!, b!), e!),
    "five outer products": ({ a, b, c, d }) =>
      [outer(a!, d!), outer(c!, d!), scale(outer(c!, b!), 2), outer(a!, scale(b!, 3))].reduce(
        sum,
        outer(a!, b!),
      ),
    "the same term twice": ({ a, b }) => add(outer(a!, b!), scale(outer(a!, b!), 2)),
  };
  const probes = { L: [3, 3], R: [4, 4], M: [3, 4], T: [4, 3] };
  const next = stream(61);
  const data = Object.fromEntries(
    Object.entries({ ...inputs, ...probes }).map(([name, shape]) => [name, next(areaOf(shape))]),
  );
  /** The value of an expression of the data; for a matrix, sum_ij of it times the probe. */
  const evaluated = (
    build: (v: Record<string, Expr>, products: Products) => Expr,
    products: Products,
  ): number => {
    const net = model({
      params: { one: [1] },
      inputs: { ...inputs, ...probes },
      loss: (v) => build(v as unknown as Record<string, Expr>, products),
    });
    const problem = engine.problem(net, data);
    const value = problem.loss([1]);
    problem.dispose();
    return value;
  };
  const against = (value: Expr, probe: Expr): Expr => ops.sum(ops.mul(value, probe));

  test.each(Object.entries(forms))("%s", (_, form) => {
    const checks: Record<string, (v: Record<string, Expr>, by: Products) => Expr> = {
      "L a": (v, by) => against(by.leftTimes(v.L!, form(v)), v.M!),
      "a R": (v, by) => against(by.rightTimes(form(v), v.R!), v.M!),
      "a^T": (v, by) => against(by.transposed(form(v)), v.T!),
      "a^T a": (v, by) => against(by.gram(form(v)).reduce(sum), v.R!),
      "a a^T": (v, by) => against(by.gram(by.transposed(form(v))).reduce(sum), v.L!),
      "<a, L a>": (v, by) => by.inner(form(v), by.leftTimes(v.L!, form(v))),
      "<a, a R>": (v, by) => by.inner(form(v), by.rightTimes(form(v), v.R!)),
      ...Object.fromEntries(
        Object.entries(forms).map(([name, other]) => [
          `<a, ${name}>`,
          (v: Record<string, Expr>, by: Products) => by.inner(form(v), other(v)),
        ]),
      ),
    };
    for (const [what, check] of Object.entries(checks)) {
      const expected = evaluated(check, plain);
      // entries are below 1, and a sum has at most 5 terms of 5 products, up to 8 times each
      expectWithin(what, [evaluated(check, structured)], [expected], 1e-14 * 1000);
    }
  });
});

// --- noise by two paths ------------------------------------------------------------------------------------

describe.each(Object.entries(zoo))("%s", (_, { file, products = [] }) => {
  test("noise of 9 samples, by both methods, is that of the dual numbers' gradients, to 1e-12 of |A| E|g|^2", async () => {
    const { data, theta, v } = drawn(file, 9, 1);
    const P = theta.length;
    const gradients = rowsOf(derivatives(file, data, theta).perSampleGradients.values, P);
    const S = gradientMoments(gradients).covariance;
    const unit = total(gradients.map((g) => dot(g, g))) / 9;
    const problem = engine.problem(parseModel(file), data);
    for (const method of ["structured", "streamed"] as const) {
      const options = { method };
      expectWithin(
        `Tr Sigma, ${method}`,
        [problem.noiseTrace(theta, options).value],
        [trace(S)],
        1e-12 * unit,
      );
      for (const [name, generator] of Object.entries(generatorsOf(file, 2))) {
        const A = matrixOf(file, generator);
        const { value } = problem.noisePower(theta, symmetry.generator(generator), options);
        expectWithin(`Tr[Sigma A], ${name}, ${method}`, [value], [power(S, A)], 1e-12 * unit * normOf(A));
      }
      for (const [U, W, transposeW] of products) {
        const blocks = blocksOf(file);
        const [u, w] = [blocks.find((b) => b.name === U)!, blocks.find((b) => b.name === W)!];
        const { SU, SW, Q } = problem.noiseMoments(theta, U, W, { transposeW, method });
        expectWithin(`S_U, ${method}`, SU, momentOf(S, u, false), 1e-12 * unit);
        expectWithin(`S_W, ${method}`, SW, momentOf(S, w, !transposeW), 1e-12 * unit);
        const square = theta.map((a) => theta.map((b) => a * b));
        const expected = momentOf(square, w, !transposeW).map((q, e) => momentOf(square, u, false)[e]! - q);
        expectWithin(`Q, ${method}`, Q, expected, 1e-14 * dot(theta, theta));
      }
    }
    expectWithin("Sigma", await problem.noiseCovariance(theta), S.flat(), 1e-12 * unit);
    expectWithin(
      "Sigma v",
      problem.noiseVector(theta, v),
      S.map((row) => dot(row, v)),
      1e-12 * unit * size(v),
    );
    problem.dispose();
  });

  test("both methods agree on 130 samples, two blocks and a rest, to 1e-12 of |A| E|g|^2", () => {
    const { data, theta } = drawn(file, 130, 3);
    const problem = engine.problem(parseModel(file), data);
    const g = problem.perSampleGradients(theta);
    const unit = dot(g, g) / 130;
    const both = (what: string, scale: number, measure: (method: "structured" | "streamed") => Numbers) =>
      expectWithin(what, measure("structured"), measure("streamed"), 1e-12 * unit * scale);
    both("Tr Sigma", 1, (method) => [problem.noiseTrace(theta, { method }).value]);
    for (const [name, generator] of Object.entries(generatorsOf(file, 4))) {
      const A = symmetry.generator(generator);
      both(`Tr[Sigma A], ${name}`, normOf(matrixOf(file, generator)), (method) => [
        problem.noisePower(theta, A, { method }).value,
      ]);
    }
    for (const [U, W, transposeW] of products) {
      for (const key of ["SU", "SW"] as const)
        both(key, 1, (method) => problem.noiseMoments(theta, U, W, { transposeW, method })[key]);
    }
    problem.dispose();
  });
});

describe("noise that is tiny beside the mean gradient", () => {
  // exact binary fractions m 2^s: sums and products are exact, and a mean over 32 samples is
  const N = 32;
  const zero: Big = { m: 0n, s: 0 };
  const plus = (a: Big, b: Big): Big => {
    const s = Math.min(a.s, b.s);
    return { m: (a.m << BigInt(a.s - s)) + (b.m << BigInt(b.s - s)), s };
  };
  const negative = ({ m, s }: Big): Big => ({ m: -m, s });
  const sum = (xs: readonly Big[]): Big => xs.reduce(plus, zero);
  const mean = (xs: readonly Big[]): Big => ({ m: sum(xs).m, s: sum(xs).s - 5 });
  /** Rounded once; m may have more digits than fit an exponent. */
  const toNumber = ({ m, s }: Big): number => {
    const excess = Math.max(0, m.toString(2).length - 900);
    return Number(m >> BigInt(excess)) * 2 ** (s + excess);
  };
  const two: Big = { m: 2n, s: 0 };

  /** Sigma of l = |U W x - y|^2, dx = 3, h = dy = 2, rounded once. */
  function exactly(theta: number[], x: number[], y: number[]): { S: number[][]; unit: number } {
    const [t, xs, ys] = [theta.map(fromDouble), x.map(fromDouble), y.map(fromDouble)];
    const gradients = times(N, (n) => {
      const X = (j: number) => xs[3 * n + j]!;
      const z = times(2, (a) => sum(times(3, (j) => multiply(t[4 + 3 * a + j]!, X(j)))));
      const r = times(2, (i) =>
        plus(sum(times(2, (a) => multiply(t[2 * i + a]!, z[a]!))), negative(ys[2 * n + i]!)),
      );
      const back = times(2, (a) => sum(times(2, (i) => multiply(t[2 * i + a]!, r[i]!))));
      return [
        ...r.flatMap((ri) => z.map((za) => multiply(two, multiply(ri, za)))),
        ...back.flatMap((b) => times(3, (j) => multiply(two, multiply(b, X(j))))),
      ];
    });
    const centre = times(10, (e) => mean(gradients.map((g) => g[e]!)));
    const off = gradients.map((g) => g.map((x, e) => plus(x, negative(centre[e]!))));
    const S = times(10, (i) => times(10, (j) => toNumber(mean(off.map((d) => multiply(d[i]!, d[j]!))))));
    const unit = toNumber(mean(gradients.map((g) => sum(g.map((x) => multiply(x, x))))));
    return { S, unit };
  }

  /** Samples around one point, `spread` apart; few digits, so that f32 holds them too. */
  function around(spread: number) {
    const next = stream(17);
    const grid = (n: number) => next(n).map((x) => Math.round(64 * x) / 64);
    const theta = next(10).map((t) => Math.round(t * 256) / 256);
    const place = (point: number[]) =>
      times(N, () => grid(point.length).map((k, j) => point[j]! + spread * k)).flat();
    return { theta, x: place([0.5, -0.75, 1.25]), y: place([2.5, -1.25]) };
  }
  const net = models.twoLayerLinear({ dx: 3, h: 2, dy: 2 });
  const lines: string[] = [];
  afterAll(() => console.log(lines.join("\n")));

  describe.each([
    { name: "f64", on: engine, u: U64, switchAt: 1e-6, halvings: [0, 4, 7, 9, 11, 14, 18] },
    { name: "f32", on: engine32, u: U32, switchAt: 1e-2, halvings: [0, 3, 4, 6, 8, 10] },
  ])("in $name", ({ name, on, u, switchAt, halvings }) => {
    test.each(halvings)(
      "samples 2^-%d apart: the structured difference where it keeps its digits, else the centred form",
      async (half) => {
        const { theta, x, y } = around(2 ** -half);
        const { S, unit } = exactly(theta, x, y);
        const ratio = trace(S) / unit;
        // a gradient is off by some 10 u of itself, and a sum over N samples by N u of its terms
        const centred = (20 * u) / Math.sqrt(ratio);
        const allowed = ratio > switchAt / 4 ? Math.max(centred, ((N + 20) * u) / ratio) : centred;
        const problem = on.problem(net, { x, y });
        const errors: Record<string, number> = {};
        const check = (what: string, got: Numbers, expected: Numbers, scale: number, bound = allowed) => {
          errors[what] = largest(times(got.length, (e) => got[e]! - expected[e]!)) / scale;
          expectWithin(what, got, expected, bound * scale);
        };
        check("Tr Sigma", [problem.noiseTrace(theta).value], [trace(S)], trace(S));
        for (const scale of [1, 1e8, 1e-8]) {
          const A = symmetry.generator({ blocks: { U: { scalar: scale }, W: { scalar: -scale } } });
          const expected = scale * total(S.map((row, i) => (i < 4 ? 1 : -1) * row[i]!));
          check(
            `Tr[Sigma A], |A| = ${scale}`,
            [problem.noisePower(theta, A).value],
            [expected],
            scale * trace(S),
          );
        }
        const [ub, wb] = blocksOf(fileOf(net)) as [Block, Block];
        const { SU, SW } = problem.noiseMoments(theta, "U", "W");
        check("S_U", SU, momentOf(S, ub, false), trace(S));
        check("S_W", SW, momentOf(S, wb, true), trace(S));
        check("Sigma", await problem.noiseCovariance(theta), S.flat(), trace(S), centred);
        // the quick product takes gbar (gbar . v) away at the end; the operator's weights are centred
        const v = stream(5)(10);
        const product = S.map((row) => dot(row, v));
        check("Sigma v", problem.noiseVector(theta, v), product, size(v) * unit, (N + 20) * u);
        const { apply } = problem.operator(theta, "noise");
        check("Sigma v, operator", apply(Float64Array.from(v), 1), product, size(v) * trace(S), 2 * centred);
        lines.push(
          `${name}, 2^-${half}: Tr Sigma / E|g|^2 = ${ratio.toExponential(1)}; relative errors: ` +
            Object.entries(errors)
              .map(([what, e]) => `${what} ${e.toExponential(1)}`)
              .join(", "),
        );
        problem.dispose();
      },
    );
  });

  test("equal samples have no noise at all, whatever the method", async () => {
    const { theta, x, y } = around(0);
    const problem = engine.problem(net, { x, y });
    expect(problem.noiseTrace(theta)).toEqual({ value: 0, stdErr: 0, count: N, method: "exact" });
    expect(problem.noiseTrace(theta, { method: "streamed" }).value).toBe(0);
    expect(problem.noisePower(theta, symmetry.rescaling("U", "W")).value).toBe(0);
    expect([...problem.noiseMoments(theta, "U", "W").SU]).toEqual([0, 0, 0, 0]);
    expect(largest(await problem.noiseCovariance(theta))).toBe(0);
    problem.dispose();
  });
});

// --- many samples ------------------------------------------------------------------------------------------

/** Tanh net with a factor that is not trained in the middle of theta. */
const chunked = squared(
  { U: [2, 3], R: { shape: [3], trainable: false }, W: [3, 2], b: [3] } as unknown as File["params"],
  { x: [2], y: [2] },
  ["matmul", "U", ["tanh", ["add", ["mul", "R", ["matmul", "W", "x"]], "b"]]],
);
/** f of that net, from its leaves. */
const outputOf = ({ U, R, W, b, x }: Record<string, Expr>): Expr =>
  ops.matmul(U!, ops.tanh(ops.add(ops.mul(R!, ops.matmul(W!, x!)), b!)));

const first = (data: Data, file: File, N: number): Record<string, number[]> =>
  Object.fromEntries(
    Object.entries(file.inputs).map(([name, shape]) => [
      name,
      Array.from(data[name]!).slice(0, N * areaOf(shape)),
    ]),
  );
const sampleOf = (data: Data, file: File, n: number): Record<string, number[]> =>
  Object.fromEntries(
    Object.entries(file.inputs).map(([name, shape]) => [
      name,
      Array.from(data[name]!).slice(n * areaOf(shape), (n + 1) * areaOf(shape)),
    ]),
  );

describe("chunks hold 256 rows, blocks 64 samples", () => {
  const net = parseModel(chunked);
  const { P } = net;
  const { data, theta, v } = drawn(chunked, 1000, 6);
  const isTrained = net.blocks.flatMap(({ trainable, size }) => times(size, () => trainable));
  const trained = v.filter((_, i) => isTrained[i]);
  /** Loss, gradient and H_n v of each sample, from a problem that has no other. */
  const alone: { loss: number; g: number[]; Hv: number[] }[] = times(1000, (n) => {
    const problem = engine.problem(net, sampleOf(data, chunked, n));
    const g = [...problem.gradient(theta)];
    const found = { loss: problem.loss(theta), g, Hv: [...problem.hessianVector(theta, v)] };
    problem.dispose();
    return found;
  });

  describe.each([1, 63, 64, 65, 255, 257, 1000])("N = %d", (N) => {
    const samples = alone.slice(0, N);
    const problem = engine.problem(net, first(data, chunked, N));
    const gradients = samples.map(({ g }) => g);
    const { mean, covariance: S } = gradientMoments(gradients);
    const unit = total(gradients.map((g) => dot(g, g))) / N;
    /** A sum of N terms, each good to some 20 roundings. */
    const rounding = (N + 20) * U64;

    test("values of samples are those of the sample alone, bit for bit", () => {
      expectSame(
        "losses",
        problem.losses(theta),
        samples.map(({ loss }) => loss),
      );
      expectSame("gradients", problem.perSampleGradients(theta), gradients.flat());
      expectSame(
        "H_n v",
        problem.perSampleHessianVector(theta, v),
        samples.flatMap(({ Hv }) => Hv),
      );
      expectWithin(
        "g_n . v",
        problem.jacobianVector(theta, v),
        gradients.map((g) => dot(g, v)),
        20 * U64 * Math.max(...gradients.map((g) => dot(g.map(Math.abs), v.map(Math.abs)))),
      );
    });

    test("means over the samples are those of a plain loop", async () => {
      expectWithin(
        "loss",
        [problem.loss(theta)],
        [total(samples.map(({ loss }) => loss)) / N],
        rounding * total(samples.map(({ loss }) => loss / N)),
      );
      const scale = largest(gradients.flat());
      expectWithin("gradient", problem.gradient(theta), mean, rounding * scale);
      const products = samples.map(({ Hv }) => Hv);
      const Hv = times(P, (i) => total(products.map((row) => row[i]!)) / N);
      expectWithin("H v", problem.hessianVector(theta, v), Hv, rounding * largest(products.flat()));
      expectWithin("Tr Sigma", [problem.noiseTrace(theta).value], [trace(S)], rounding * unit);
      const raw = problem.noiseTrace(theta, { centred: false });
      expectWithin("E|g|^2", [raw.value], [unit], rounding * unit);
      const A = symmetry.rescaling("U", "W");
      const signs = net.blocks.flatMap((b) =>
        times(b.size, () => (b.name === "U" ? 1 : b.name === "W" ? -1 : 0)),
      );
      expectWithin(
        "Tr[Sigma A]",
        [problem.noisePower(theta, A).value],
        [total(S.map((row, i) => signs[i]! * row[i]!))],
        rounding * unit,
      );
      const { SU, SW } = problem.noiseMoments(theta, "U", "W");
      const [u, , w] = net.blocks as unknown as [Block, Block, Block];
      expectWithin("S_U", SU, momentOf(S, u, false), rounding * unit);
      expectWithin("S_W", SW, momentOf(S, w, true), rounding * unit);
      expectWithin("Sigma", await problem.noiseCovariance(theta), S.flat(), rounding * unit);
      const product = S.map((row) => dot(row, v));
      expectWithin("Sigma v", problem.noiseVector(theta, v), product, rounding * unit * size(v));
    });

    test("u.Hv = v.Hu, v.Hv by second-order forward differentiation is v.(Hv), and so for the whole Hessian", async () => {
      const u = stream(7)(P);
      const [Hu, Hv] = [problem.hessianVector(theta, u), problem.hessianVector(theta, v)];
      const H = rowsOf(await problem.hessian(theta), P);
      const bound = rounding * P * size(u) * size(v) * normOf(H);
      expectWithin("u.Hv", [dot(u, Hv)], [dot(v, Hu)], bound);
      expectWithin(
        "H times v",
        H.map((row) => dot(row, v)),
        Hv,
        rounding * P * normOf(H) * size(v),
      );
      expectSame(
        "H transposed",
        H.flat(),
        times(P * P, (e) => H[e % P]![Math.floor(e / P)]!),
      );
      const operator = problem.operator(theta);
      expect(operator.size).toBe(P - 3);
      const pair = Float64Array.from([...trained, ...u.filter((_, i) => isTrained[i])]);
      expectWithin("v.Hv and u.Hu", operator.quadratic!(pair, 2), [dot(v, Hv), dot(u, Hu)], 2 * bound);
      expectSame("R does not move", net.blocks[1]!.size === 3 ? Hv.slice(6, 9) : [1], [0, 0, 0]);
    });
    afterAll(() => problem.dispose());
  });

  describe("of 1000 samples", () => {
    const problem = engine.problem(net, data);
    const rowsWanted: [string, Numbers][] = [
      ["one", [999]],
      ["in any order, some twice", [999, 0, 256, 255, 255, 64, 3]],
      ["typed", Int32Array.from([5, 4, 3])],
      ["more than two chunks", times(600, (i) => (i * 7) % 1000)],
      ["more than there are", times(1300, (i) => i % 1000)],
      ["none", []],
    ];
    test.each(rowsWanted)("rows: %s; `out` is filled and returned", (_, rows) => {
      const expected = (pick: (n: number) => number[]) => Array.from(rows).flatMap((n) => pick(n));
      const gradients = expected((n) => alone[n]!.g);
      expectSame("gradients", problem.perSampleGradients(theta, { rows }), gradients);
      // part of an array of the caller, with NaN on both sides and inside
      const room = new Float64Array(gradients.length + 2).fill(Number.NaN);
      const out = room.subarray(1, room.length - 1);
      expect(problem.perSampleGradients(theta, { rows, out })).toBe(out);
      expectSame("out", out, gradients);
      expect([room[0], room[room.length - 1]]).toEqual([Number.NaN, Number.NaN]);
      const products = expected((n) => alone[n]!.Hv);
      expect(problem.perSampleHessianVector(theta, v, { rows, out })).toBe(out);
      expectSame("H_n v", out, products);
      expectSame("H_n v, new", problem.perSampleHessianVector(theta, v, { rows }), products);
    });

    test.each([1, 2, 7, 8, 9, 17])("%d vectors at a time are each of them alone, bit for bit", (count) => {
      const vectors = stream(8)(count * P);
      const of = outputOf as (leaves: Record<string, Expr>) => Expr;
      const products: Record<string, (v: Numbers, options: { count?: number }) => Numbers> = {
        hessianVector: (w, o) => problem.hessianVector(theta, w as number[], o),
        gaussNewtonVector: (w, o) => problem.gaussNewtonVector(theta, w as number[], { of, ...o }),
        noiseVector: (w, o) => problem.noiseVector(theta, w as number[], o),
      };
      for (const [name, product] of Object.entries(products)) {
        const each = rowsOf(vectors, P).flatMap((w) => Array.from(product(w, {})));
        expectSame(name, product(vectors, { count }), each);
      }
      const small = P - 3;
      const flat = Float64Array.from(stream(9)(count * small));
      for (const kind of ["hessian", "noise", of] as const) {
        const op: LinearOperator = problem.operator(theta, kind);
        const one = (f: (v: Float64Array, n: number) => Float64Array) =>
          times(count, (k) => Array.from(f(flat.slice(k * small, (k + 1) * small), 1))).flat();
        expectSame(`${kind}`, op.apply(flat, count), one(op.apply));
        if (op.quadratic) expectSame(`${kind}, v.Av`, op.quadratic(flat, count), one(op.quadratic));
      }
    });

    test("theta and v may be named blocks, and are not written to", () => {
      const [t, w] = [Float64Array.from(theta), Float64Array.from(v)];
      const named = problem.named(t);
      expectSame("named", problem.hessianVector(named, problem.named(w)), problem.hessianVector(t, w));
      expect([Array.from(t), Array.from(w)]).toEqual([theta, v]);
      const out = problem.perSampleGradients(t, { rows: [0] });
      out.fill(0);
      expectSame("a copy", problem.perSampleGradients(t, { rows: [0] }), alone[0]!.g);
    });
    afterAll(() => problem.dispose());
  });
});

// --- Gauss-Newton ------------------------------------------------------------------------------------------

describe("gaussNewtonVector", () => {
  /** J_n [entries of f][P] of every sample, by dual numbers, one parameter after the other. */
  function jacobians(file: File, f: Expression, data: Data, theta: number[]): number[][][] {
    const S = sampleCount(file, data);
    const columns = theta.map((_, j) => {
      const names = leaves(file, data, duals, (i) => seeded(theta[i]!, i === j ? 1 : 0, 0));
      return evaluate(f, names, S, duals).map(({ entries }) => entries.map(({ at }) => at[1]));
    });
    return times(S, (n) => columns[0]![n]!.map((_, k) => columns.map((column) => column[n]![k]!)));
  }
  /** mean_n J_n^T M_n J_n v, M_n = d^2 ell / d f^2. */
  function explicit(J: number[][][], M: (n: number) => number[][], v: number[]): number[] {
    const sum = v.map(() => 0);
    for (const [n, Jn] of J.entries()) {
      const moved = Jn.map((row) => dot(row, v));
      const bent = M(n).map((row) => dot(row, moved));
      for (const i of v.keys()) sum[i]! += total(Jn.map((row, k) => row[i]! * bent[k]!)) / J.length;
    }
    return sum;
  }

  const f: Expression = ["matmul", "U", ["tanh", ["matmul", "W", "x"]]];
  const build = ({ U, W, x }: Record<string, Expr>): Expr => ops.matmul(U!, ops.tanh(ops.matmul(W!, x!)));
  const file = squared({ U: [3, 4], W: [4, 2] }, { x: [2], y: [3] }, f);

  test("is mean J^T 2 J v for a squared loss, to 1e-13", () => {
    const { data, theta, v } = drawn(file, 70, 10);
    const problem = engine.problem(parseModel(file), data);
    const two = times(3, (i) => times(3, (j) => (i === j ? 2 : 0)));
    const expected = explicit(jacobians(file, f, data, theta), () => two, v);
    expectWithin(
      "G v",
      problem.gaussNewtonVector(theta, v, { of: build }),
      expected,
      1e-13 * largest(expected),
    );
    problem.dispose();
  });

  test("is mean J^T (diag p - p p^T) J v for cross-entropy, to 1e-13, and never negative", () => {
    const loss = ["sub", ["logsumexp", f], ["sum", ["mul", ["softmax", "y"], f]]];
    const other = { ...file, loss } as unknown as File;
    const { data, theta, v } = drawn(other, 70, 11);
    const problem = engine.problem(parseModel(other), data);
    const J = jacobians(other, f, data, theta);
    const logits = evaluate(
      f,
      leaves(other, data, duals, (i) => seeded(theta[i]!, 0, 0)),
      70,
      duals,
    );
    const M = (n: number): number[][] => {
      const powers = logits[n]!.entries.map(({ at }) => Math.exp(at[0]));
      const p = powers.map((x) => x / total(powers));
      return p.map((pi, i) => p.map((pj, j) => (i === j ? pi : 0) - pi * pj));
    };
    const expected = explicit(J, M, v);
    expectWithin(
      "G v",
      problem.gaussNewtonVector(theta, v, { of: build }),
      expected,
      1e-13 * largest(expected),
    );
    const next = stream(12);
    for (const w of times(20, () => next(theta.length)))
      expect(dot(w, problem.gaussNewtonVector(theta, w, { of: build }))).toBeGreaterThan(0);
    problem.dispose();
  });

  test("is the Hessian where the residual is zero, and where the network is linear in theta", () => {
    const { data, theta, v } = drawn(file, 70, 13);
    const y = evaluate(
      f,
      leaves(file, data, duals, (i) => seeded(theta[i]!, 0, 0)),
      70,
      duals,
    ).flatMap(({ entries }) => entries.map(({ at }) => at[0]));
    const exact = engine.problem(parseModel(file), { ...data, y });
    const Hv = exact.hessianVector(theta, v);
    expectWithin("zero residual", exact.gaussNewtonVector(theta, v, { of: build }), Hv, 1e-13 * largest(Hv));
    exact.dispose();
    const linear = squared({ U: [3, 2] }, { x: [2], y: [3] }, ["matmul", "U", "x"]);
    const given = drawn(linear, 70, 14);
    const problem = engine.problem(parseModel(linear), given.data);
    const of = ({ U, x }: Record<string, Expr>) => ops.matmul(U!, x!);
    const straight = problem.hessianVector(given.theta, given.v);
    expectWithin(
      "a linear network",
      problem.gaussNewtonVector(given.theta, given.v, { of }),
      straight,
      1e-13 * largest(straight),
    );
    problem.dispose();
  });

  test("of a parameter is its block of the Hessian, of the loss the mean of g g^T times nothing", () => {
    const { data, theta, v } = drawn(file, 70, 15);
    const problem = engine.problem(parseModel(file), data);
    const isU = times(theta.length, (i) => i < 12);
    const block = problem.hessianVector(
      theta,
      v.map((x, i) => (isU[i] ? x : 0)),
    );
    expectWithin(
      "of U",
      problem.gaussNewtonVector(theta, v, { of: ({ U }) => U! }),
      Array.from(block, (x, i) => (isU[i] ? x : 0)),
      1e-13 * largest(block),
    );
    // d^2 ell / d ell^2 = 0
    const of = (v: Record<string, Expr>) => ops.sqnorm(ops.sub(build(v), v.y!));
    expect(largest(problem.gaussNewtonVector(theta, v, { of }))).toBe(0);
    problem.dispose();
  });

  test("goes through batch normalisation: other samples' values are part of J, to 1e-12", () => {
    const normalised = fileOf(models.batchNormNet({ dx: 3, h: 4, dy: 2, trainReadout: true }));
    const { data, theta, v } = drawn(normalised, 20, 16);
    const problem = engine.problem(parseModel(normalised), data);
    const { hessianVector } = derivatives(normalised, data, theta, v);
    expectWithin(
      "H v",
      problem.hessianVector(theta, v),
      hessianVector.values,
      1e-12 * largest(hessianVector.values),
    );
    const lets = new Map(normalised.let ?? []);
    // the loss is |f - y|^2; names of `let` written out
    const open = (e: unknown): unknown =>
      typeof e === "string" && lets.has(e) ? open(lets.get(e)) : Array.isArray(e) ? e.map(open) : e;
    const [, [, F]] = open(normalised.loss) as [string, [string, Expression]];
    const leavesOf = (values: Record<string, Expr>) => {
      const value = (e: unknown): Expr => {
        if (typeof e === "number") return e as never;
        if (typeof e === "string") return values[e]!;
        const [op, ...args] = e as [string, ...unknown[]];
        const name = op.replace(/_(.)/g, (_, c: string) => c.toUpperCase());
        const isOption = (x: unknown) => typeof x === "object" && !Array.isArray(x);
        const build = (ops as unknown as Record<string, (...args: unknown[]) => Expr>)[name]!;
        return build(...args.map((x) => (isOption(x) ? x : value(x))));
      };
      return value(F);
    };
    const expected = sumOverBatch(normalised, F, data, theta, v);
    expectWithin(
      "G v",
      problem.gaussNewtonVector(theta, v, { of: leavesOf }),
      expected,
      1e-12 * largest(expected),
    );
    problem.dispose();
  });

  /** mean_n J_n^T 2 J_n v where J_n goes through the batch. */
  function sumOverBatch(file: File, f: Expression, data: Data, theta: number[], v: number[]): number[] {
    const J = jacobians(file, f, data, theta);
    const two = J[0]!.map((_, i) => J[0]!.map((__, j) => (i === j ? 2 : 0)));
    return explicit(J, () => two, v);
  }

  test("refuses a value the loss is not computed from, instead of answering 0", () => {
    const { data, theta, v } = drawn(file, 5, 15);
    const problem = engine.problem(parseModel(file), data);
    const before = engine.bytesInUse;
    expect(() =>
      problem.gaussNewtonVector(theta, v, { of: ({ W, x }) => ops.relu(ops.matmul(W!, x!)) }),
    ).toThrow(
      "gaussNewtonVector: of: the loss must be computed from this value, got relu(...) [4]. " +
        "Write it as the model does, with the same ops in the same order.",
    );
    expect(engine.bytesInUse).toBe(before);
    problem.dispose();
  });
});

// --- sampling ----------------------------------------------------------------------------------------------

describe("estimates from independent samples", () => {
  const net = models.twoLayerLinear({ dx: 2, h: 2, dy: 1 });
  const law = sampler({
    noise: { x: { kind: "uniform", shape: [2] }, e: { kind: "normal", shape: [1] } },
    outputs: ({ x, e }) => ({ x: ops.sub(x, 0.3), y: e }),
  });
  const theta = [0.7, -0.4, 0.9, 0.2, -0.5, 1.1];
  const A = symmetry.rescaling("U", "W");
  const KEYS = 1000;
  const n = 3;

  /** z of the mean of some estimates against the truth. */
  const z = (values: number[], truth: number): number => {
    const mean = total(values) / values.length;
    const variance = total(values.map((x) => (x - mean) ** 2)) / (values.length - 1);
    return (mean - truth) / Math.sqrt(variance / values.length);
  };
  const finite = engine.problem(net, law, { samples: 40, dataSeed: "forty" });
  const fresh = engine.problem(net, law);
  const crowd = engine.problem(net, law, { samples: 4_000_000, dataSeed: "population" });
  afterAll(() => {
    for (const problem of [finite, fresh, crowd]) problem.dispose();
  });

  test.each([
    ["draws from a finite set", finite, finite],
    ["fresh samples", fresh, crowd],
  ])(
    "of 3 %s are unbiased: |z| < 4.9 over 1,000 keys (false alarm 1e-6 each); a divisor n is seen",
    async (_, problem, population) => {
      // 4,000,000 samples stand for the law: their own error is 60 times smaller than what 3,000 can see
      const truth = {
        trace: population.noiseTrace(theta).value,
        power: population.noisePower(theta, A).value,
        covariance: await population.noiseCovariance(theta),
      };
      const found = { trace: [] as number[], power: [] as number[], covariance: [] as Numbers[] };
      for (let seed = 0; seed < KEYS; seed++) {
        const options = { samples: n, seed };
        const estimate = problem.noiseTrace(theta, options);
        expect(estimate.count).toBe(n);
        found.trace.push(estimate.value);
        found.power.push(problem.noisePower(theta, A, options).value);
        if (seed < 300) found.covariance.push(await problem.noiseCovariance(theta, options));
      }
      expect(Math.abs(z(found.trace, truth.trace))).toBeLessThan(4.9);
      expect(Math.abs(z(found.power, truth.power))).toBeLessThan(4.9);
      for (let e = 0; e < 36; e++) {
        const values = found.covariance.map((S) => S[e]!);
        expect(Math.abs(z(values, truth.covariance[e]!)), `entry ${e}`).toBeLessThan(4.9);
      }
      const wrong = found.trace.map((x) => ((n - 1) / n) * x);
      expect(Math.abs(z(wrong, truth.trace))).toBeGreaterThan(4.9);
    },
  );

  test("the same seed gives the same bits, another seed others, as text or number; all methods see the same samples", async () => {
    for (const problem of [finite, fresh]) {
      const at = (seed: string | number) => problem.noiseTrace(theta, { samples: 50, seed });
      const again = at("a");
      expect(at("b").value).not.toBe(again.value);
      expect(at(7)).toEqual(at("7"));
      expect(at("a")).toEqual(again);
      const S = await problem.noiseCovariance(theta, { samples: 50, seed: "a" });
      expectWithin("trace of Sigma", [total(times(6, (i) => S[7 * i]!))], [again.value], 1e-13 * again.value);
      const losses = problem.losses(theta, { samples: 50, seed: "a" });
      const { value, count } = problem.loss(theta, { samples: 50, seed: "a" });
      expect([value, count]).toEqual([total(losses) / 50, 50]);
    }
  });

  test("a whole finite set is exact, and a sampled one is not", () => {
    expect(finite.noiseTrace(theta)).toMatchObject({ stdErr: 0, count: 40, method: "exact" });
    const estimate = finite.noiseTrace(theta, { samples: 4000 });
    expect(estimate).toMatchObject({ count: 4000, method: "jackknife of independent samples" });
    expect(estimate.stdErr).toBeGreaterThan(0);
    const error = Math.abs(estimate.value - finite.noiseTrace(theta).value);
    expect(error).toBeLessThan(4.9 * estimate.stdErr);
    // draws of one sample have no spread but the rounding of their mean, squared
    const one = engine.problem(net, { x: [1, 2], y: [3] });
    const none = one.noiseTrace(theta, { samples: 10 });
    expect(Math.max(none.value, none.stdErr)).toBeLessThan(1e-28);
    one.dispose();
  });
});

// --- f32 ---------------------------------------------------------------------------------------------------

describe("in f32", () => {
  /** As test/fixtures.test.ts: 2000 units of rounding cover some 50 operations and residuals that cancel. */
  const BOUND = 2000 * U32;
  test.each(Object.entries(zoo))(
    "%s: all measurements are those of f64 to 2000 units of rounding of their terms",
    async (_, { file, products = [] }) => {
      const { data, theta, v } = drawn(file, 70, 21);
      const single = Object.fromEntries(
        Object.entries(data).map(([name, values]) => [name, Array.from(values, Math.fround)]),
      );
      const at = theta.map(Math.fround);
      const along = v.map(Math.fround);
      const both = [engine, engine32].map((on) => on.problem(parseModel(file), single)) as [Problem, Problem];
      const g = both[0].perSampleGradients(at);
      const unit = dot(g, g) / 70;
      const compare = async (
        what: string,
        measure: (problem: Problem) => Numbers | Promise<Numbers>,
        scale?: number,
      ) => {
        const [wide, narrow] = [await measure(both[0]), await measure(both[1])];
        expectWithin(what, narrow, wide, BOUND * (scale ?? largest(wide)));
      };
      expect(both[1].perSampleGradients(at, { rows: [0] })).toBeInstanceOf(Float32Array);
      await compare("g_n", (p) => p.perSampleGradients(at));
      await compare("g_n . v", (p) => p.jacobianVector(at, along), largest(g) * size(along));
      const H = rowsOf(await both[0].hessian(at), at.length);
      const bent = normOf(H) * size(along);
      await compare("H v", (p) => p.hessianVector(at, along), bent);
      await compare("H_n v", (p) => p.perSampleHessianVector(at, along));
      await compare("H", (p) => p.hessian(at), normOf(H));
      await compare("Tr H", async (p) => [(await p.hessianTrace(at)).value], at.length * normOf(H));
      await compare("Tr Sigma", (p) => [p.noiseTrace(at).value], unit);
      await compare("Sigma", (p) => p.noiseCovariance(at), unit);
      await compare("Sigma v", (p) => p.noiseVector(at, along), unit * size(along));
      for (const [name, generator] of Object.entries(generatorsOf(file, 22)))
        await compare(
          `Tr[Sigma A], ${name}`,
          (p) => [p.noisePower(at, symmetry.generator(generator)).value],
          unit * normOf(matrixOf(file, generator)),
        );
      for (const [U, W, transposeW] of products) {
        for (const key of ["SU", "SW", "Q"] as const)
          await compare(
            key,
            (p) => p.noiseMoments(at, U, W, { transposeW })[key],
            key === "Q" ? dot(at, at) : unit,
          );
      }
      for (const problem of both) problem.dispose();
    },
  );
});

// --- refusals ----------------------------------------------------------------------------------------------

type Call = (problem: Problem, theta: unknown) => unknown;
const along = (problem: Problem): number[] => times(problem.P, (i) => (i % 3) - 1);
const rescaling = symmetry.rescaling("U", "W");

/** Every measurement of a problem with blocks U and W, called with a theta; `perSample`: it needs a gradient per sample. */
const measurements: Record<string, { call: Call; perSample?: boolean; steps?: boolean }> = {
  perSampleGradients: { call: (p, theta) => p.perSampleGradients(theta as never), perSample: true },
  jacobianVector: { call: (p, theta) => p.jacobianVector(theta as never, along(p)), perSample: true },
  hessianVector: { call: (p, theta) => p.hessianVector(theta as never, along(p)) },
  perSampleHessianVector: {
    call: (p, theta) => p.perSampleHessianVector(theta as never, along(p)),
    perSample: true,
  },
  gaussNewtonVector: {
    call: (p, theta) =>
      p.gaussNewtonVector(theta as never, along(p), { of: ({ W, x }) => ops.matmul(W!, x!) }),
  },
  noiseTrace: { call: (p, theta) => p.noiseTrace(theta as never), perSample: true },
  noisePower: { call: (p, theta) => p.noisePower(theta as never, rescaling), perSample: true },
  noiseMoments: { call: (p, theta) => p.noiseMoments(theta as never, "U", "W"), perSample: true },
  noiseCovariance: { call: (p, theta) => p.noiseCovariance(theta as never), perSample: true, steps: true },
  noiseVector: { call: (p, theta) => p.noiseVector(theta as never, along(p)), perSample: true },
  hessian: { call: (p, theta) => p.hessian(theta as never), steps: true },
  hessianTrace: { call: (p, theta) => p.hessianTrace(theta as never), steps: true },
  sharpness: { call: (p, theta) => p.sharpness(theta as never), steps: true },
  topEigenvalues: { call: (p, theta) => p.topEigenvalues(theta as never, 2), steps: true },
  spectralDensity: { call: (p, theta) => p.spectralDensity(theta as never), steps: true },
  operator: {
    call: (p, theta) => {
      const operator = p.operator(theta as never);
      return operator.apply(new Float64Array(operator.size).fill(1), 1);
    },
  },
};

/** The error of a call: one of ours, with nothing kept in memory. */
async function refusal(call: () => unknown, on: Engine = engine): Promise<NoetherflowError> {
  const before = on.bytesInUse;
  let error: unknown = "nothing was thrown";
  try {
    await call();
  } catch (thrown) {
    error = thrown;
  }
  expect(error).toBeInstanceOf(NoetherflowError);
  expect(on.bytesInUse, "bytes kept").toBe(before);
  return error as NoetherflowError;
}
async function expectRefusal(call: () => unknown, code: string, message: string | RegExp): Promise<void> {
  const error = await refusal(call);
  if (typeof message === "string") expect(error.message).toBe(message);
  else expect(error.message).toMatch(message);
  expect(error.code).toBe(code);
}

describe("refusals", () => {
  const net = models.tanhNet({ dx: 3, h: 4, dy: 2 });
  const N = 300;
  const { data, theta } = drawn(fileOf(net), N, 31);
  const problem = engine.problem(net, data);
  const law = sampler({
    noise: { x: { kind: "normal", shape: [3] }, y: { kind: "normal", shape: [2] } },
    outputs: ({ x, y }) => ({ x, y }),
  });
  const fresh = engine.problem(net, law);
  const coupledNet = models.batchNormNet({ dx: 3, h: 4, dy: 2 });
  const coupled = engine.problem(coupledNet, data);
  const disposed = engine.problem(net, data);
  disposed.dispose();
  afterAll(() => {
    for (const p of [problem, fresh, coupled, still, partly]) p.dispose();
  });
  const P = net.P;

  describe.each(Object.entries(measurements))("%s", (name, { call, perSample }) => {
    test("a theta that is too short, not finite, missing or of other blocks", async () => {
      const sentence = `theta: expected ${P} numbers, shape [${P}], got 2.`;
      await expectRefusal(() => call(problem, [1, 2]), "shape", `${name}: ${sentence}`);
      const broken = theta.map((x, i) => (i === 3 ? Number.NaN : x));
      await expectRefusal(
        () => call(problem, broken),
        "nonfinite",
        `${name}: theta: values must be finite, got NaN at position 3.`,
      );
      await expectRefusal(
        () => call(problem, undefined),
        "shape",
        new RegExp(`^${name}: theta: expected .*got undefined`),
      );
      await expectRefusal(() => call(problem, { Z: [1] }), "name", new RegExp(`^${name}: theta: .*got "Z"`));
    });

    const takesSamples = new Set([
      "loss",
      "losses",
      "gradient",
      "noiseTrace",
      "noisePower",
      "noiseCovariance",
    ]);
    test("a problem of fresh samples, a problem that was disposed of", async () => {
      await expectRefusal(
        () => call(fresh, theta),
        "unsupported",
        takesSamples.has(name)
          ? `${name}: samples are drawn fresh, so say how many: { samples, seed }, got undefined.`
          : `${name}: this needs a finite set of samples, got a sampler of fresh samples. Make one: engine.problem(model, sampler, { samples: N }).`,
      );
      await expectRefusal(
        () => call(disposed, theta),
        "unsupported",
        `${name}: the problem was disposed of. Make a new one with engine.problem.`,
      );
    });

    test(perSample ? "a loss with batch ops" : "and accepts a loss with batch ops", async () => {
      const at = drawn(fileOf(coupledNet), 1, 32).theta;
      if (perSample)
        await expectRefusal(
          () => call(coupled, at),
          "unsupported",
          new RegExp(`^${name}: a loss with batch ops has no gradient per sample`),
        );
      else await expect((async () => call(coupled, at))()).resolves.toBeDefined();
    });

    test("in f32 a theta beyond its range", async () => {
      const narrow = engine32.problem(net, data);
      const huge = theta.map((x, i) => (i === 1 ? 1e39 : x));
      const error = await refusal(() => call(narrow, huge), engine32);
      expect(error.message).toBe(`${name}: theta: values must be finite in f32, got 1e+39 at position 1.`);
      narrow.dispose();
    });
  });

  const v = along(problem);
  const three = { samples: 50 };
  const of = ({ W, x }: Record<string, Expr>) => ops.matmul(W!, x!);
  const rows: [what: string, code: string, message: string | RegExp, call: () => unknown][] = [
    // rows and out
    [
      "rows that do not exist",
      "range",
      "perSampleGradients: rows[1] must be an integer in [0, 299], got 300.",
      () => problem.perSampleGradients(theta, { rows: [0, 300] }),
    ],
    [
      "negative rows",
      "range",
      "perSampleHessianVector: rows[0] must be an integer in [0, 299], got -1.",
      () => problem.perSampleHessianVector(theta, v, { rows: [-1] }),
    ],
    [
      "rows between",
      "range",
      "perSampleGradients: rows[0] must be an integer in [0, 299], got 0.5.",
      () => problem.perSampleGradients(theta, { rows: [0.5] }),
    ],
    [
      "an out of another size",
      "shape",
      `perSampleGradients: out holds 2 x ${P} values, got ${P} values.`,
      () => problem.perSampleGradients(theta, { rows: [0, 1], out: new Float64Array(P) }),
    ],
    [
      "a misspelt option",
      "name",
      'perSampleGradients: options are rows, out, got "row". Did you mean "rows"?',
      () => problem.perSampleGradients(theta, { row: [0] } as never),
    ],
    [
      "options that are null",
      "shape",
      "perSampleHessianVector: expected options { rows?, out? }, got null.",
      () => problem.perSampleHessianVector(theta, v, null as never),
    ],
    // vectors
    ...(["jacobianVector", "hessianVector", "perSampleHessianVector", "noiseVector"] as const).flatMap(
      (name): typeof rows => [
        [
          `${name}: a vector that is too short`,
          "shape",
          new RegExp(`^${name}: .*expected ${P} numbers, shape \\[${P}\\], got 1\\.$`),
          () => problem[name](theta, [1]),
        ],
        [
          `${name}: a vector that is not finite`,
          "nonfinite",
          new RegExp(`^${name}: .*values must be finite, got Infinity at position 0\\.$`),
          () =>
            problem[name](
              theta,
              v.map(() => Infinity),
            ),
        ],
      ],
    ),
    ...(["hessianVector", "noiseVector", "gaussNewtonVector"] as const).flatMap((name): typeof rows => {
      const others = name === "gaussNewtonVector" ? { of } : {};
      const call = (w: unknown, count: number) => () =>
        problem[name](theta, w as never, { count, ...others } as never);
      return [
        [
          `${name}: a count of 0`,
          "range",
          new RegExp(`^${name}: count must be an integer in \\[1, \\d+\\], got 0\\.$`),
          call(v, 0),
        ],
        [
          `${name}: too few vectors`,
          "shape",
          `${name}: expected 3 x ${P} numbers, got ${2 * P}.`,
          call([...v, ...v], 3),
        ],
        [
          `${name}: vectors of which one is not finite`,
          "nonfinite",
          `${name}: vectors must be finite, got NaN at position ${P}.`,
          call([...v, Number.NaN, ...v.slice(1)], 2),
        ],
      ];
    }),
    // gaussNewtonVector
    [
      "no value to differentiate by",
      "shape",
      "gaussNewtonVector: expected of: (leaves) => an expression of this model, got undefined.",
      () => problem.gaussNewtonVector(theta, v, undefined as never),
    ],
    [
      "a value of another model",
      "shape",
      /^gaussNewtonVector: `of` must return an expression of this model, got /,
      () => problem.gaussNewtonVector(theta, v, { of: () => coupledNet.leaf("W") }),
    ],
    [
      "a number for a value",
      "shape",
      "gaussNewtonVector: `of` must return an expression of this model, got 3.",
      () => problem.gaussNewtonVector(theta, v, { of: (() => 3) as never }),
    ],
    [
      "a value the loss is not computed from, as a spectrum",
      "unsupported",
      /the loss must be computed from this value, got relu\(\.\.\.\) \[4\]/,
      () => problem.sharpness(theta, { of: (leaves) => ops.relu(of(leaves)) }),
    ],
    // noise
    [
      "a generator that is data",
      "shape",
      /^noisePower: expected a generator, got an object with keys blocks\. Make one with symmetry\./,
      () => problem.noisePower(theta, { blocks: {} } as never),
    ],
    [
      "a generator of other blocks",
      "name",
      'noisePower: the parameters are U, W, got "V".',
      () => problem.noisePower(theta, symmetry.scaling("V")),
    ],
    [
      "a generator whose matrix does not fit",
      "shape",
      "noisePower: double rotation U, W acts on U from the right with 2 x 2, got U of shape [2, 4].",
      () =>
        problem.noisePower(
          theta,
          symmetry.doubleRotation("U", "W", [
            [1, 0],
            [0, 1],
          ]),
        ),
    ],
    [
      "a dense generator of another model",
      "shape",
      `noisePower: a dense generator of this model is ${P} x ${P}, got 4 entries.`,
      () => problem.noisePower(theta, symmetry.generator({ dense: [1, 0, 0, 1] })),
    ],
    [
      "an unknown method",
      "range",
      'noiseTrace: method is "structured" or "streamed", got "exact".',
      () => problem.noiseTrace(theta, { method: "exact" as never }),
    ],
    [
      "an unknown method of moments",
      "range",
      'noiseMoments: method is "structured" or "streamed", got 1.',
      () => problem.noiseMoments(theta, "U", "W", { method: 1 as never }),
    ],
    [
      "a seed without samples",
      "unsupported",
      "noisePower: a seed goes with samples: { samples, seed }, got no samples.",
      () => problem.noisePower(theta, rescaling, { seed: 1 }),
    ],
    [
      "no samples",
      "range",
      /^noiseTrace: samples must be an integer in \[\d, \d+\], got 0\.$/,
      () => problem.noiseTrace(theta, { samples: 0 }),
    ],
    [
      "a seed that is none",
      "range",
      /^noiseTrace: a seed is a string or a finite number, got NaN\.$/,
      () => problem.noiseTrace(theta, { ...three, seed: Number.NaN }),
    ],
    [
      "a misspelt option of noise",
      "name",
      /^noiseTrace: options are samples, seed, method.*, got "sample"\. Did you mean "samples"\?$/,
      () => problem.noiseTrace(theta, { sample: 10 } as never),
    ],
    [
      "moments of a vector",
      "shape",
      /^noiseMoments: expected matrices U, dy x h, and W, h x dx, got U \[2, 4\] and U \[2, 4\]\. Pass \{ transposeW: true \}/,
      () => problem.noiseMoments(theta, "U", "U"),
    ],
    [
      "moments of a matrix that is not transposed",
      "shape",
      "noiseMoments: expected matrices U, dy x h, and W, dx x h (its transpose), got U [2, 4] and W [4, 3].",
      () => problem.noiseMoments(theta, "U", "W", { transposeW: true }),
    ],
    [
      "moments of a block that is not there",
      "name",
      'noiseMoments: the parameters are U, W, got "V".',
      () => problem.noiseMoments(theta, "U", "V"),
    ],
    // curvature
    [
      "an unknown estimator",
      "range",
      'hessianTrace: method is exact, basis, hutchinson, hutch++, xtrace, got "gauss".',
      () => problem.hessianTrace(theta, { method: "gauss" as never }),
    ],
    [
      "an estimator of other objects",
      "range",
      /^hessianTrace: method is .*, got "constructor"\.$/,
      () => problem.hessianTrace(theta, { method: "constructor" as never }),
    ],
    [
      "the trace of a block that is not there",
      "name",
      'hessianTrace: the parameters are U, W, got "V".',
      () => problem.hessianTrace(theta, { block: "V" }),
    ],
    [
      "a misspelt option of the trace",
      "name",
      /^hessianTrace: options are method, probes, seed, block, .*, got "probe"\. Did you mean "probes"\?$/,
      () => problem.hessianTrace(theta, { probe: 3 } as never),
    ],
    [
      "an unknown spectrum",
      "range",
      'sharpness: of is "hessian", "noise" or a function of the leaves, got "gauss".',
      () => problem.sharpness(theta, { of: "gauss" as never }),
    ],
    [
      "more eigenvalues than there are",
      "range",
      `topEigenvalues: k must be an integer in [1, size = ${P}], got ${P + 1}.`,
      () => problem.topEigenvalues(theta, P + 1),
    ],
    [
      "half an eigenvalue",
      "range",
      `topEigenvalues: k must be an integer in [1, size = ${P}], got 0.5.`,
      () => problem.topEigenvalues(theta, 0.5),
    ],
    [
      "a density of one probe",
      "range",
      "spectralDensity: probes must be an integer of at least 2, got 1.",
      () => problem.spectralDensity(theta, { probes: 1 }),
    ],
    [
      "a density of no steps",
      "range",
      "spectralDensity: steps must be an integer of at least 1, got 0.",
      () => problem.spectralDensity(theta, { steps: 0 }),
    ],
    [
      "an operator of nothing known",
      "range",
      'operator: of is "hessian", "noise" or a function of the leaves, got "fisher".',
      () => problem.operator(theta, "fisher" as never),
    ],
  ];
  test.each(rows)("%s", (_, code, message, call) => expectRefusal(call, code, message));

  // whatever the words, the error is ours and names the call
  const idle = parseModel({
    params: { w: { shape: [2], trainable: false } },
    inputs: { x: [2] },
    loss: ["sum", ["mul", "w", "x"]],
  });
  const still = engine.problem(idle, { x: [1, 2] });
  const partly = engine.problem(parseModel(chunked), drawn(chunked, 3, 1).data);
  const named: [what: string, name: string, call: () => unknown][] = [
    ["null for options", "hessianVector", () => problem.hessianVector(theta, v, null as never)],
    ["null for options", "noiseVector", () => problem.noiseVector(theta, v, null as never)],
    ["a misspelt option", "hessianVector", () => problem.hessianVector(theta, v, { cuont: 1 } as never)],
    ["a misspelt option", "noiseVector", () => problem.noiseVector(theta, v, { cuont: 1 } as never)],
    [
      "a misspelt option",
      "gaussNewtonVector",
      () => problem.gaussNewtonVector(theta, v, { of, cuont: 1 } as never),
    ],
    ["null for vectors", "hessianVector", () => problem.hessianVector(theta, null as never, { count: 2 })],
    [
      "a number for rows",
      "perSampleGradients",
      () => problem.perSampleGradients(theta, { rows: 3 as never }),
    ],
    ["text for rows", "perSampleGradients", () => problem.perSampleGradients(theta, { rows: "12" as never })],
    [
      "a plain array for out",
      "perSampleGradients",
      () => problem.perSampleGradients(theta, { rows: [1], out: new Array(P).fill(0) as never }),
    ],
    [
      "integers for out",
      "perSampleGradients",
      () => problem.perSampleGradients(theta, { rows: [1], out: new Uint8Array(P) as never }),
    ],
    [
      "a signal of a call that takes none",
      "noiseTrace",
      () => problem.noiseTrace(theta, { signal: null } as never),
    ],
    [
      "a method of a call that has one only",
      "noiseCovariance",
      () => problem.noiseCovariance(theta, { method: "streamed" } as never),
    ],
    [
      "2 samples, before they are drawn",
      "noiseTrace",
      () => problem.noiseTrace(theta, { samples: 2, seed: "two" }),
    ],
    [
      "a number for transposeW",
      "noiseMoments",
      () => problem.noiseMoments(theta, "U", "W", { transposeW: 0 as never }),
    ],
    [
      "too few probes",
      "hessianTrace",
      () => problem.hessianTrace(theta, { method: "hutchinson", probes: 1 }),
    ],
    ["half a probe", "hessianTrace", () => problem.hessianTrace(theta, { method: "xtrace", probes: 8.5 })],
    ["a negative tolerance", "sharpness", () => problem.sharpness(theta, { tolerance: -1 })],
    ["no steps", "sharpness", () => problem.sharpness(theta, { maxSteps: 0 })],
    [
      "a block that is not trained",
      "hessianTrace",
      () => partly.hessianTrace(drawn(chunked, 3, 1).theta, { block: "R" }),
    ],
    ["nothing that is trained", "hessianTrace", () => still.hessianTrace([1, 2])],
    ["nothing that is trained", "sharpness", () => still.sharpness([1, 2])],
    ["a signal that is none", "hessianTrace", () => problem.hessianTrace(theta, { signal: {} as never })],
    [
      "a signal that is none",
      "noiseCovariance",
      () => problem.noiseCovariance(theta, { signal: 1 as never }),
    ],
    ["progress that is no function", "hessian", () => problem.hessian(theta, { onProgress: 3 as never })],
  ];
  test.each(named)("%s: %s", async (_, name, call) => {
    expect((await refusal(call)).message).toMatch(new RegExp(`^${name}: `));
  });

  test("Sigma and the Hessian of a model with 10^6 parameters, before any work, with their size", async () => {
    const wide = model({
      params: { w: [1_000_000] },
      inputs: { x: [1] },
      loss: ({ w, x }) => ops.mul(ops.sqnorm(w), ops.sum(x)),
    });
    const large = engine.problem(wide, { x: [1, 2, 3] });
    const at = new Float64Array(1_000_000);
    await expectRefusal(() => large.hessian(at), "memory", /^hessian: .*1000000 x 1000000/);
    const error = await (async () => large.noiseCovariance(at))().catch((e: NoetherflowError) => e);
    expect(error).toMatchObject({ code: "memory", where: "noiseCovariance", got: "7.3 TiB" });
    large.dispose();
  });
});

// --- signals, progress, memory -----------------------------------------------------------------------------

describe("signals and progress", () => {
  const net = models.tanhNet({ dx: 3, h: 4, dy: 2 });
  const { data, theta } = drawn(fileOf(net), 1000, 41);
  type Options = { signal?: AbortSignal; onProgress?: (p: { done: number; total: number }) => void };
  const calls: Record<string, (problem: Problem, options: Options) => Promise<unknown>> = {
    noiseCovariance: (p, o) => p.noiseCovariance(theta, o),
    "noiseCovariance of draws": (p, o) => p.noiseCovariance(theta, { samples: 900, seed: "s", ...o }),
    hessian: (p, o) => p.hessian(theta, o),
    "hessianTrace, basis": (p, o) => p.hessianTrace(theta, { method: "basis", ...o }),
    "hessianTrace, hutchinson": (p, o) => p.hessianTrace(theta, { method: "hutchinson", probes: 40, ...o }),
    "hessianTrace, hutch++": (p, o) => p.hessianTrace(theta, { method: "hutch++", probes: 15, ...o }),
    "hessianTrace, xtrace": (p, o) => p.hessianTrace(theta, { method: "xtrace", probes: 16, ...o }),
    sharpness: (p, o) => p.sharpness(theta, o),
    "sharpness of Sigma": (p, o) => p.sharpness(theta, { of: "noise", ...o }),
    topEigenvalues: (p, o) => p.topEigenvalues(theta, 3, o),
    spectralDensity: (p, o) => p.spectralDensity(theta, { probes: 3, steps: 8, ...o }),
  };

  describe.each(Object.entries(calls))("%s", (_, call) => {
    test("says how far it is, and ends at its total", async () => {
      const problem = engine.problem(net, data);
      const seen: { done: number; total: number }[] = [];
      await call(problem, { onProgress: (p) => void seen.push({ ...p }) });
      expect(seen.length).toBeGreaterThan(1);
      for (const [i, { done, total }] of seen.entries()) {
        expect(done).toBeGreaterThan(seen[i - 1]?.done ?? 0);
        expect(done).toBeLessThanOrEqual(total);
      }
      const last = seen.at(-1)!;
      expect(last.done).toBe(last.total);
      problem.dispose();
    });

    test("an abort rejects with the signal's reason: before, from progress, from a timer; nothing stays in memory", async () => {
      const before = engine.bytesInUse;
      const problem = engine.problem(net, data);
      const reason = new Error("enough");
      await expect(call(problem, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
      const onProgress = new AbortController();
      const running = call(problem, {
        signal: onProgress.signal,
        onProgress: () => onProgress.abort(reason),
      });
      await expect(running).rejects.toBe(reason);
      const timed = new AbortController();
      const slow = call(problem, { signal: timed.signal });
      setImmediate(() => timed.abort(reason));
      await expect(slow).rejects.toBe(reason);
      const held = engine.bytesInUse;
      await call(problem, {});
      await call(problem, {});
      expect(engine.bytesInUse - held, "passes made by the second and third call").toBeLessThan(1e6);
      problem.dispose();
      expect(engine.bytesInUse).toBe(before);
    });

    test("dispose() meanwhile: it ends, or is refused with a sentence, and nothing stays in memory", async () => {
      const before = engine.bytesInUse;
      const problem = engine.problem(net, data);
      const running = call(problem, {});
      problem.dispose();
      // memory that was given back is used again
      const other = engine.problem(net, data);
      other.gradient(theta);
      const result = await running.catch((error: unknown) => error);
      if (result instanceof Error) {
        expect(result).toBeInstanceOf(NoetherflowError);
        expect(result.message).toMatch(/the problem was disposed of while this was under way/);
      } else {
        const again = await call(other, {});
        expect(result).toEqual(again);
      }
      other.dispose();
      expect(engine.bytesInUse).toBe(before);
    });
  });

  test("an operator that outlives its problem says so", async () => {
    const problem = engine.problem(net, data);
    const operators = [problem.operator(theta), problem.operator(theta, "noise")];
    problem.dispose();
    for (const operator of operators)
      await expectRefusal(
        () => operator.apply(new Float64Array(operator.size).fill(1), 1),
        "unsupported",
        /the problem was disposed of while this was under way\. Make a new one with engine\.problem\.$/,
      );
  });
});

describe("memory", () => {
  const net = models.tanhNet({ dx: 3, h: 4, dy: 2 });
  const { data, theta } = drawn(fileOf(net), 300, 51);

  test("is what it was after dispose(), whatever was measured", async () => {
    const before = engine.bytesInUse;
    const problem = engine.problem(net, data);
    for (const { call } of Object.values(measurements)) await call(problem, theta);
    problem.dispose();
    problem.dispose();
    expect(engine.bytesInUse).toBe(before);
  });

  test("does not grow with the seeds of sampled measurements, of a finite set and of a law", () => {
    const law = sampler({
      noise: { x: { kind: "normal", shape: [3] }, y: { kind: "normal", shape: [2] } },
      outputs: ({ x, y }) => ({ x, y }),
    });
    for (const given of [data, law]) {
      const before = engine.bytesInUse;
      const problem = engine.problem(net, given as Record<string, unknown>);
      const held = (seed: number): number => {
        problem.noiseTrace(theta, { samples: 100, seed });
        problem.gradient(theta, { samples: 100, seed });
        return engine.bytesInUse;
      };
      held(0);
      const two = held(1);
      for (let seed = 2; seed < 60; seed++) expect(held(seed)).toBe(two);
      problem.dispose();
      expect(engine.bytesInUse).toBe(before);
    }
  });

  test("a covariance of draws keeps its samples while other draws push them out", async () => {
    const problem = engine.problem(net, data);
    const expected = await problem.noiseCovariance(theta, { samples: 1000, seed: "a" });
    problem.noiseTrace(theta, { samples: 1000, seed: "b" });
    problem.noiseTrace(theta, { samples: 1000, seed: "c" });
    const running = problem.noiseCovariance(theta, { samples: 1000, seed: "a" });
    problem.noiseTrace(theta, { samples: 1000, seed: "d" });
    problem.noiseTrace(theta, { samples: 1000, seed: "e" });
    problem.noiseTrace(theta, { samples: 1000, seed: "f" });
    expect(await running).toEqual(expected);
    problem.dispose();
  });

  test("does not grow with the generators whose noise power is asked for, and one that comes back is found", () => {
    const problem = engine.problem(net, data);
    const at = (k: number): Generator =>
      symmetry.generator({ blocks: { U: { scalar: k }, W: { scalar: -1 } } });
    const first = problem.noisePower(theta, at(0.5)).value;
    let after100 = 0;
    for (let k = 1; k <= 300; k++) {
      problem.noisePower(theta, at(k));
      if (k === 100) after100 = engine.bytesInUse;
    }
    expect(engine.bytesInUse).toBeLessThanOrEqual(after100);
    expect(problem.noisePower(theta, at(0.5)).value).toBe(first);
    problem.dispose();
  });
});

/**
 * Layers, losses and ready models: values against plain loops written here, gradients against the closed forms of the
 * normalised nets and against central differences, and every symmetry that a docstring claims, sample by sample.
 *
 * It catches a transposed weight, a norm along the wrong axis, a head that reads another head's columns, a factor of 2 in a
 * loss, an epsilon that is not 0, and a model whose blocks are not those its docstring names.
 */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, test } from "vitest";
import { NoetherflowError } from "../../src/errors.ts";
import type { Node } from "../../src/graph/node.ts";
import { createEngine, type Model, model, ops, parseModel, symmetry } from "../../src/index.ts";
import { layers } from "../../src/models/layers.ts";
import { losses } from "../../src/models/losses.ts";
import { models } from "../../src/models/ready.ts";

const engine = await createEngine();
afterAll(() => engine.dispose());

type Vector = number[];
type Matrix = number[][];
type Named = Record<string, Vector>;

const times = <T>(n: number, f: (i: number) => T): T[] => Array.from({ length: n }, (_, i) => f(i));
const sizeOf = (shape: readonly number[]): number => shape.reduce((n, d) => n * d, 1);
const dot = (a: ArrayLike<number>, b: ArrayLike<number>): number => {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
  return sum;
};
const lengthOf = (a: ArrayLike<number>): number => Math.sqrt(dot(a, a));

/** A stream of numbers in [-1, 1): a linear congruential generator, good enough for test data. */
function stream(seed: number): (n: number) => Vector {
  let state = seed;
  return (n) =>
    times(n, () => {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
      return state / 2_147_483_648 - 1;
    });
}

const rows = (entries: ArrayLike<number>, columns: number): Matrix =>
  times(entries.length / columns, (i) => Array.from(entries).slice(i * columns, (i + 1) * columns));

/** Fails unless all entries agree to `tolerance` of the largest expected one. */
function expectClose(got: ArrayLike<number>, expected: ArrayLike<number>, tolerance = 1e-13): void {
  expect(got.length).toBe(expected.length);
  const scale = Array.from(expected).reduce((m, x) => Math.max(m, Math.abs(x)), 0);
  for (let i = 0; i < expected.length; i++) {
    const error = Math.abs(got[i]! - expected[i]!) / scale;
    expect(error, `entry ${i} is ${got[i]}, expected ${expected[i]}`).toBeLessThanOrEqual(tolerance);
  }
}

type Shapes = Record<string, readonly number[]>;

/**
 * The entries of a value built from parameters and inputs: sample k reads entry k through a probe that is 1 there.
 */
function entriesOf(
  shapes: { params: Shapes; inputs: Shapes; out: readonly number[] },
  values: Named,
  build: (v: Record<string, Node>) => Node,
): Vector {
  const N = sizeOf(shapes.out);
  const net = model({
    params: shapes.params,
    inputs: { ...shapes.inputs, probe: shapes.out },
    loss: (v) => {
      const value = build(v as Record<string, Node>);
      expect(value.shape).toEqual(shapes.out);
      return ops.sum(ops.mul(value, (v as Record<string, Node>).probe!));
    },
  });
  const pick = (names: readonly string[], copies: number): Named =>
    Object.fromEntries(names.map((name) => [name, times(copies, () => values[name]!).flat()]));
  const probe = times(N, (k) => times(N, (j) => (j === k ? 1 : 0))).flat();
  const problem = engine.problem(net, { ...pick(Object.keys(shapes.inputs), N), probe });
  return Array.from(problem.losses(pick(Object.keys(shapes.params), 1)));
}

/** Random values for named shapes. */
function randomValues(shapes: Shapes, seed: number): Named {
  const next = stream(seed);
  return Object.fromEntries(Object.entries(shapes).map(([name, shape]) => [name, next(sizeOf(shape))]));
}

// --- plain loops -------------------------------------------------------------------------------------------------

const apply = (W: Matrix, x: Vector): Vector => W.map((row) => dot(row, x));
const product = (A: Matrix, B: Matrix): Matrix =>
  A.map((row) => B[0]!.map((_, j) => row.reduce((sum, a, k) => sum + a * B[k]![j]!, 0)));
const turned = (A: Matrix): Matrix => A[0]!.map((_, j) => A.map((row) => row[j]!));
const softmaxOf = (z: Vector): Vector => {
  const e = z.map(Math.exp);
  const total = e.reduce((a, b) => a + b, 0);
  return e.map((x) => x / total);
};

/** Layer norm of one row, from the definition. */
function normalisedRow(x: Vector, gain: Vector, bias: Vector, eps: number): Vector {
  const m = x.reduce((a, b) => a + b, 0) / x.length;
  const v = x.reduce((sum, xi) => sum + (xi - m) * (xi - m), 0) / x.length;
  return x.map((xi, i) => (gain[i]! * (xi - m)) / Math.sqrt(v + eps) + bias[i]!);
}

/** Attention of tokens, one head after the other, from the definition. */
function attentionOf(X: Matrix, Wq: Matrix, Wk: Matrix, Wv: Matrix, heads: number): Matrix {
  const cut = (W: Matrix, head: number): Matrix => {
    const width = W[0]!.length / heads;
    return W.map((row) => row.slice(head * width, (head + 1) * width));
  };
  const out: Matrix = X.map(() => []);
  for (let head = 0; head < heads; head++) {
    const [q, k, v] = [Wq, Wk, Wv].map((W) => product(X, cut(W, head))) as [Matrix, Matrix, Matrix];
    for (const [t, qt] of q.entries()) {
      const p = softmaxOf(k.map((ks) => dot(qt, ks) / Math.sqrt(qt.length)));
      for (let j = 0; j < v[0]!.length; j++) out[t]!.push(p.reduce((sum, ps, s) => sum + ps * v[s]![j]!, 0));
    }
  }
  return out;
}

describe("layers.linear", () => {
  const params = { W: [3, 4], b: [3] };
  test("is W x + b of a vector and of every token", () => {
    for (const x of [[4], [5, 4]]) {
      const shapes = { params, inputs: { x }, out: [...x.slice(0, -1), 3] };
      const values = randomValues({ ...params, x }, 1);
      const W = rows(values.W!, 4);
      const expected = rows(values.x!, 4).flatMap((token) =>
        apply(W, token).map((z, i) => z + values.b![i]!),
      );
      expectClose(
        entriesOf(shapes, values, ({ W, x, b }) => layers.linear(W!, x!, b)),
        expected,
      );
      const bare = rows(values.x!, 4).flatMap((token) => apply(W, token));
      expectClose(
        entriesOf(shapes, values, ({ W, x }) => layers.linear(W!, x!)),
        bare,
      );
    }
  });
});

describe("layers.mlp", () => {
  const params = { W1: [4, 3], b1: [4], W2: [5, 4], W3: [2, 5], b3: [2] };
  const activations = {
    linear: (z: number) => z,
    relu: (z: number) => Math.max(0, z),
    tanh: Math.tanh,
    sigmoid: (z: number) => 1 / (1 + Math.exp(-z)),
    softplus: (z: number) => Math.log(1 + Math.exp(z)),
    square: (z: number) => z * z,
    geluTanh: (z: number) => (z / 2) * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (z + 0.044715 * z * z * z))),
  } as const;
  test.each(Object.keys(activations) as (keyof typeof activations)[])(
    "with %s between its maps and none behind the last",
    (name) => {
      const act = activations[name];
      const values = randomValues({ ...params, x: [3] }, 2);
      const add = (z: Vector, b: Vector) => z.map((zi, i) => zi + b[i]!);
      const z1 = add(apply(rows(values.W1!, 3), values.x!), values.b1!);
      const z2 = apply(rows(values.W2!, 4), z1.map(act));
      const z3 = add(apply(rows(values.W3!, 5), z2.map(act)), values.b3!);
      const build = ({ W1, b1, W2, W3, b3, x }: Record<string, Node>) =>
        layers.mlp(x!, [{ W: W1!, b: b1 }, W2!, { W: W3!, b: b3 }], name);
      expectClose(entriesOf({ params, inputs: { x: [3] }, out: [2] }, values, build), z3, 1e-12);
    },
  );
  test("geluErf and an activation given as a function", () => {
    const shapes = { params: { W: [3, 2], U: [1, 3] }, inputs: { x: [2] }, out: [1] };
    const values = randomValues({ ...shapes.params, ...shapes.inputs }, 3);
    const z = apply(rows(values.W!, 2), values.x!);
    const leaky = entriesOf(shapes, values, ({ W, U, x }) =>
      layers.mlp(x!, [W!, U!], (v) => ops.leakyRelu(v, { slope: 0.1 })),
    );
    expectClose(leaky, [
      dot(
        values.U!,
        z.map((v) => (v > 0 ? v : 0.1 * v)),
      ),
    ]);
    // erf by its series: 2 / sqrt(pi) sum (-1)^n t^(2n+1) / (n! (2n+1))
    const erf = (t: number) => {
      let [sum, term] = [0, t];
      for (let n = 0; n < 40; n++) {
        sum += term / (2 * n + 1);
        term *= (-t * t) / (n + 1);
      }
      return (2 / Math.sqrt(Math.PI)) * sum;
    };
    const gelu = entriesOf(shapes, values, ({ W, U, x }) => layers.mlp(x!, [W!, U!], "geluErf"));
    expectClose(gelu, [
      dot(
        values.U!,
        z.map((v) => (v / 2) * (1 + erf(v / Math.SQRT2))),
      ),
    ]);
  });
});

test("layers.residual is f(x) + skip x, and f(x) alone at skip 0", () => {
  const shapes = { params: { W: [3, 3] }, inputs: { x: [3] }, out: [3] };
  const values = randomValues({ W: [3, 3], x: [3] }, 4);
  const Wx = apply(rows(values.W!, 3), values.x!);
  for (const skip of [undefined, 0, 0.25]) {
    const got = entriesOf(shapes, values, ({ W, x }) =>
      layers.residual(x!, (z) => ops.matmul(W!, z), skip === undefined ? {} : { skip }),
    );
    expectClose(
      got,
      Wx.map((z, i) => z + (skip ?? 1) * values.x![i]!),
    );
  }
});

test("layers.layerNorm normalises each sample and each token over its features", () => {
  for (const x of [[6], [3, 6]]) {
    const shapes = { params: { gain: [6], bias: [6] }, inputs: { x }, out: x };
    const values = randomValues({ gain: [6], bias: [6], x }, 5);
    const ones = times(6, () => 1);
    const zeros = times(6, () => 0);
    const tokens = rows(values.x!, 6);
    expectClose(
      entriesOf(shapes, values, ({ x }) => layers.layerNorm(x!)),
      tokens.flatMap((token) => normalisedRow(token, ones, zeros, 0)),
    );
    expectClose(
      entriesOf(shapes, values, ({ x, gain, bias }) =>
        layers.layerNorm(x!, { gain: gain!, bias: bias!, eps: 0.1 }),
      ),
      tokens.flatMap((token) => normalisedRow(token, values.gain!, values.bias!, 0.1)),
    );
  }
});

describe("layers.weightNorm", () => {
  const values = randomValues({ V: [3, 4], all: [], row: [3], column: [4] }, 6);
  const V = rows(values.V!, 4);
  const norms = {
    block: () => lengthOf(values.V!),
    row: (i: number, _j: number) => lengthOf(V[i]!),
    column: (_i: number, j: number) => lengthOf(V.map((r) => r[j]!)),
  };
  const gains = {
    block: () => values.all![0]!,
    row: (i: number) => values.row![i]!,
    column: (_: number, j: number) => values.column![j]!,
  };
  test.each(["block", "row", "column"] as const)("by %s, with and without gain", (by) => {
    const name = by === "block" ? "all" : by;
    const params = { V: [3, 4], all: [], row: [3], column: [4] };
    const expected = (gain: boolean) =>
      V.flatMap((r, i) => r.map((v, j) => ((gain ? gains[by](i, j) : 1) * v) / norms[by](i, j)));
    const shapes = { params, inputs: {}, out: [3, 4] };
    expectClose(
      entriesOf(shapes, values, (v) => layers.weightNorm(v.V!, { by })),
      expected(false),
    );
    expectClose(
      entriesOf(shapes, values, (v) => layers.weightNorm(v.V!, { by, gain: v[name]! })),
      expected(true),
    );
  });
});

describe("layers.selfAttention", () => {
  const [T, d] = [5, 6];
  test.each([
    { heads: 1, dk: 3, dv: 4, output: false },
    { heads: 2, dk: 3, dv: 2, output: true },
    { heads: 3, dk: 1, dv: 2, output: false },
  ])("of $heads heads, dk $dk, dv $dv, output $output", ({ heads, dk, dv, output }) => {
    const params = { Wq: [d, dk * heads], Wk: [d, dk * heads], Wv: [d, dv * heads], Wo: [dv * heads, 3] };
    const values = randomValues({ ...params, x: [T, d] }, 7);
    const M = (name: keyof typeof params) => rows(values[name]!, params[name][1]!);
    const Y = attentionOf(rows(values.x!, d), M("Wq"), M("Wk"), M("Wv"), heads);
    const expected = output ? product(Y, M("Wo")) : Y;
    const out = [T, expected[0]!.length];
    const got = entriesOf({ params, inputs: { x: [T, d] }, out }, values, ({ x, Wq, Wk, Wv, Wo }) =>
      layers.selfAttention(x!, {
        query: Wq!,
        key: Wk!,
        value: Wv!,
        heads,
        ...(output ? { output: Wo! } : {}),
      }),
    );
    expectClose(got, expected.flat());
  });
});

// --- losses ------------------------------------------------------------------------------------------------------

/** Losses of N samples with inputs f and y of one shape. */
function lossesOf(shape: readonly number[], f: Vector, y: Vector, loss: (f: Node, y: Node) => Node): Vector {
  const net = model({
    params: { shift: [] },
    inputs: { f: shape, y: shape },
    loss: ({ f, y, shift }) => loss(ops.add(f, shift), y),
  });
  const problem = engine.problem(net, { f, y });
  return Array.from(problem.losses([0]));
}

describe("losses", () => {
  const N = 4;
  const K = 3;
  const next = stream(8);
  const f = next(N * K);
  const y = next(N * K);
  const [fs, ys] = [rows(f, K), rows(y, K)];

  test("squared is the sum of squares, without 1/2, of scalars, vectors and matrices", () => {
    const expected = fs.map((fn, n) => fn.reduce((sum, a, i) => sum + (a - ys[n]![i]!) ** 2, 0));
    expectClose(lossesOf([K], f, y, losses.squared), expected);
    expectClose(lossesOf([1, K], f, y, losses.squared), expected);
    expectClose(
      lossesOf([], f, y, losses.squared),
      f.map((a, i) => (a - y[i]!) ** 2),
    );
  });

  test("crossEntropy is -sum y ln softmax(z), for one-hot y, probabilities and other weights", () => {
    const targets = [[0, 1, 0], softmaxOf([0.3, -1, 2]), [1, 0, 0], [0.5, 2, 0.25]];
    const expected = fs.map((z, n) => -dot(targets[n]!, softmaxOf(z).map(Math.log)));
    expectClose(lossesOf([K], f, targets.flat(), losses.crossEntropy), expected);
  });

  test("crossEntropy does not feel a number added to all logits, whatever the weights sum to", () => {
    const net = model({
      params: { c: [] },
      inputs: { z: [K], y: [K] },
      loss: ({ z, y, c }) => losses.crossEntropy(ops.add(z, c), y),
    });
    const problem = engine.problem(net, { z: f, y: y.map(Math.abs) });
    const [at0, at5] = [problem.losses([0]), problem.losses([5])];
    expectClose(at5, at0);
    expect(Math.abs(problem.gradient([0.3])[0]!)).toBeLessThan(1e-15);
  });

  test("logistic sums ln(1 + e^(-y z)) over labels of -1 and 1", () => {
    const labels = y.map((v) => (v > 0 ? 1 : -1));
    const each = f.map((z, i) => Math.log(1 + Math.exp(-labels[i]! * z)));
    expectClose(lossesOf([], f, labels, losses.logistic), each);
    expectClose(
      lossesOf([K], f, labels, losses.logistic),
      rows(each, K).map((e) => e.reduce((a, b) => a + b, 0)),
    );
  });

  test("cosine is 1 - f . y / (|f| |y|)", () => {
    const expected = fs.map((fn, n) => 1 - dot(fn, ys[n]!) / (lengthOf(fn) * lengthOf(ys[n]!)));
    expectClose(lossesOf([K], f, y, losses.cosine), expected);
  });
});

// --- ready models ------------------------------------------------------------------------------------------------

/** N samples that fit a model: one-hot rows and columns, positive class weights, labels of +-1 where it needs them. */
function dataFor(net: Model, N: number, seed: number, labels: "real" | "sign" | "classes" = "real"): Named {
  const next = stream(seed);
  return Object.fromEntries(
    net.inputs.map(({ name, size }) => {
      if (name === "row" || name === "col")
        return [name, times(N, (n) => times(size, (i) => (i === (3 * n + 1) % size ? 1 : 0))).flat()];
      const values = next(N * size);
      if (name !== "y" || labels === "real") return [name, values];
      if (labels === "sign") return [name, values.map((v) => (v > 0 ? 1 : -1))];
      return [name, rows(values, size).flatMap(softmaxOf)];
    }),
  );
}

const B2 = [
  [1, 0.5],
  [0.5, -1],
];
const unit = (n: number, j: number): Matrix => times(n, (i) => times(n, (k) => (i === j && k === j ? 1 : 0)));
const negative = (M: Matrix): Matrix => M.map((row) => row.map((x) => -x));

/** A -> s A + L A + A R on named blocks, and the center that is taken off first: A theta, written out. */
interface Action {
  scalar?: number;
  left?: Matrix;
  right?: Matrix;
  center?: number;
}
type Field = Record<string, Action>;

function fieldAt(net: Model, theta: ArrayLike<number>, field: Field): Vector {
  const out = times(net.P, () => 0);
  for (const [name, { scalar = 0, left, right, center = 0 }] of Object.entries(field)) {
    const { shape, offset } = net.block(name);
    const [m, n] = [shape[0] ?? 1, shape[1] ?? 1];
    const P = times(m, (i) =>
      times(n, (j) => theta[offset + i * n + j]! - (i === j && center !== 0 ? center : 0)),
    );
    for (let i = 0; i < m; i++) {
      for (let j = 0; j < n; j++) {
        let value = scalar * P[i]![j]!;
        if (left) for (let k = 0; k < m; k++) value += left[i]![k]! * P[k]![j]!;
        if (right) for (let k = 0; k < n; k++) value += P[i]![k]! * right[k]![j]!;
        out[offset + i * n + j] = value;
      }
    }
  }
  return out;
}

const pair = (U: string, W: string, B: Matrix): Field => ({ [U]: { right: B }, [W]: { left: negative(B) } });

interface Case {
  net: Model;
  labels?: "sign" | "classes";
  /** Fields A theta that no sample's gradient may have a component along. */
  symmetries: Field[];
  /** Fields that are no symmetries: the test must see them. */
  broken: Field[];
}

const symmetric3 = [
  [1, 0.2, 0],
  [0.2, -0.5, 0.3],
  [0, 0.3, 0.7],
];
/** Per-head matrices on a diagonal of blocks. */
const blocks = (...parts: Matrix[]): Matrix => {
  const n = parts.reduce((sum, part) => sum + part.length, 0);
  const out = times(n, () => times(n, () => 0));
  let at = 0;
  for (const part of parts) {
    for (const [i, row] of part.entries()) for (const [j, x] of row.entries()) out[at + i]![at + j] = x;
    at += part.length;
  }
  return out;
};

const both: Field = { U: { scalar: 1 }, W: { scalar: 1 } };
const small = { dx: 4, h: 3, dy: 2 };
const neuron = (j: number): Field => ({ U: { right: unit(3, j) }, W: { left: unit(3, j) } });
const cases: Record<string, () => Case> = {
  rankOne: () => ({
    net: models.rankOne(),
    symmetries: [{ u: { scalar: 1 }, w: { scalar: -1 } }],
    broken: [{ u: { scalar: 1 }, w: { scalar: 1 } }],
  }),
  twoLayerLinear: () => ({
    net: models.twoLayerLinear(small),
    symmetries: [pair("U", "W", symmetric3), ...times(3, (j) => pair("U", "W", unit(3, j)))],
    broken: [both],
  }),
  "twoLayerLinear, logistic": () => ({
    net: models.twoLayerLinear({ ...small, loss: "logistic" }),
    labels: "sign",
    symmetries: [pair("U", "W", symmetric3)],
    broken: [both],
  }),
  "twoLayerLinear, cosine": () => ({
    net: models.twoLayerLinear({ ...small, loss: "cosine" }),
    symmetries: [pair("U", "W", symmetric3), both, { U: { scalar: 1 } }],
    broken: [{ U: { right: symmetric3 } }],
  }),
  deepLinear: () => ({
    net: models.deepLinear({ widths: [3, 3, 2, 2, 2] }),
    symmetries: [pair("W2", "W1", symmetric3), pair("W3", "W2", B2), pair("W4", "W3", B2)],
    broken: [pair("W4", "W2", B2)],
  }),
  "deepLinear with biases": () => ({
    net: models.deepLinear({ widths: [3, 2, 2], biases: true }),
    symmetries: [{ ...pair("W2", "W1", B2), b1: { left: negative(B2) } }],
    broken: [pair("W2", "W1", B2)],
  }),
  reluNet: () => ({
    net: models.reluNet({ widths: [3, 4, 4, 2], biases: true }),
    symmetries: times(4, (j) => ({
      ...pair("W2", "W1", unit(4, j)),
      b1: { left: negative(unit(4, j)) },
    })),
    broken: [pair("W2", "W1", blocks(B2, B2)), pair("W2", "W1", unit(4, 1))],
  }),
  "mlp with squares": () => ({
    net: models.mlp({ widths: [3, 2, 2], activation: "square" }),
    symmetries: times(2, (j) => ({
      W2: { right: unit(2, j).map((row) => row.map((x) => 2 * x)) },
      W1: { left: negative(unit(2, j)) },
    })),
    broken: [pair("W2", "W1", unit(2, 0))],
  }),
  tanhNet: () => ({ net: models.tanhNet(small), symmetries: [], broken: [pair("U", "W", symmetric3)] }),
  tanhAutoencoder: () => ({
    net: models.tanhAutoencoder({ d: 3, h: 2 }),
    symmetries: [],
    broken: [pair("U", "W", B2)],
  }),
  residual: () => ({
    net: models.residual({ d: 3, skip: 0.5 }),
    symmetries: [{ U: { right: symmetric3, center: -0.5 }, W: { left: negative(symmetric3), center: -0.5 } }],
    broken: [pair("U", "W", symmetric3)],
  }),
  netA: () => ({
    net: models.netA(small),
    symmetries: [both],
    broken: [{ U: { scalar: 1 } }, neuron(0), pair("U", "W", symmetric3)],
  }),
  netAPrime: () => ({
    net: models.netAPrime(small),
    symmetries: [both, neuron(0), neuron(1), neuron(2)],
    broken: [{ U: { scalar: 1 } }],
  }),
  netB: () => ({
    net: models.netB(small),
    symmetries: [
      both,
      { U: { scalar: 1 } },
      ...times(3, (j) => ({ U: { right: unit(3, j) } })),
      ...times(3, (j) => ({ W: { left: unit(3, j) } })),
    ],
    broken: [pair("U", "W", symmetric3)],
  }),
  netBPrime: () => ({
    net: models.netBPrime(small),
    symmetries: [both, { U: { scalar: 1 } }, { W: { scalar: 1 } }],
    broken: [neuron(0), pair("U", "W", symmetric3)],
  }),
  layerNormNet: () => ({
    net: models.layerNormNet({ dx: 4, h: 5, dy: 2, activation: "tanh", trainReadout: true }),
    symmetries: [{ W: { scalar: 1 } }],
    broken: [{ U: { scalar: 1 } }, { W: { left: unit(5, 2) } }],
  }),
  matrixCompletion: () => ({
    net: models.matrixCompletion({ rows: 4, cols: 5, rank: 2 }),
    symmetries: [pair("U", "W", B2)],
    broken: [both],
  }),
  attention: () => ({
    net: models.attention(),
    symmetries: [{ Wq: { right: symmetric3 }, Wk: { right: negative(symmetric3) } }],
    broken: [{ Wq: { right: symmetric3 }, Wk: { right: symmetric3 } }],
  }),
  "attention of two heads": () => ({
    net: models.attention({ T: 3, d: 4, dk: 2, heads: 2, output: true }),
    symmetries: [
      { Wq: { right: blocks(B2, unit(2, 0)) }, Wk: { right: negative(blocks(B2, unit(2, 0))) } },
      { Wv: { right: blocks(unit(2, 1), B2) }, Wo: { left: negative(blocks(unit(2, 1), B2)) } },
    ],
    // mixes the heads
    broken: [{ Wq: { right: turnedHeads() }, Wk: { right: negative(turnedHeads()) } }],
  }),
  selfSupervised: () => ({
    net: models.selfSupervised({ dx: 4, h: 3 }),
    symmetries: [{ W: { scalar: 1 } }],
    broken: [{ W: { left: symmetric3 } }],
  }),
  softmaxRegression: () => ({
    net: models.softmaxRegression({ d: 3, classes: 3 }),
    labels: "classes",
    symmetries: [],
    broken: [{ W: { scalar: 1 } }],
  }),
  "twoLayerLinear, crossEntropy": () => ({
    net: models.twoLayerLinear({ ...small, loss: "crossEntropy" }),
    labels: "classes",
    symmetries: [pair("U", "W", symmetric3)],
    broken: [both],
  }),
  "a layer norm with gain and bias": () => ({
    net: model({
      params: { U: [2, 3], W: [3, 4], b: [3], gain: [3], bias: [3] },
      inputs: { x: [4], y: [2] },
      loss: ({ U, W, b, gain, bias, x, y }) =>
        losses.squared(ops.matmul(U, layers.layerNorm(layers.linear(W, x, b), { gain, bias })), y),
    }),
    symmetries: [
      { W: { scalar: 1 }, b: { scalar: 1 } },
      ...times(3, (j) => ({
        U: { right: unit(3, j) },
        gain: { left: negative(unit(3, j)) },
        bias: { left: negative(unit(3, j)) },
      })),
    ],
    broken: [{ W: { scalar: 1 } }, { U: { right: unit(3, 0) }, gain: { left: negative(unit(3, 0)) } }],
  }),
  "weights normalised by block, row and column, with gains": () => ({
    net: model({
      params: { V1: [3, 4], g1: [], V2: [3, 3], g2: [3], V3: [2, 3], g3: [3] },
      inputs: { x: [4], y: [2] },
      loss: ({ V1, g1, V2, g2, V3, g3, x, y }) => {
        const W1 = layers.weightNorm(V1, { by: "block", gain: g1 });
        const W2 = layers.weightNorm(V2, { by: "row", gain: g2 });
        const W3 = layers.weightNorm(V3, { by: "column", gain: g3 });
        return losses.squared(layers.mlp(x, [W1, W2, W3], "tanh"), y);
      },
    }),
    symmetries: [
      { V1: { scalar: 1 } },
      ...times(3, (j) => ({ V2: { left: unit(3, j) } })),
      ...times(3, (j) => ({ V3: { right: unit(3, j) } })),
    ],
    broken: [
      { V1: { left: unit(3, 0) } },
      { V2: { right: unit(3, 0) } },
      { V3: { left: unit(2, 0) } },
      { g1: { scalar: 1 } },
    ],
  }),
  "a leaky relu": () => ({
    net: models.mlp({ widths: [3, 2, 2], biases: true, activation: (z) => ops.leakyRelu(z, { slope: 0.2 }) }),
    symmetries: times(2, (j) => ({ ...pair("W2", "W1", unit(2, j)), b1: { left: negative(unit(2, j)) } })),
    broken: [pair("W2", "W1", unit(2, 0))],
  }),
};

function turnedHeads(): Matrix {
  const out = times(4, () => times(4, () => 0));
  out[0]![2] = out[2]![0] = 1;
  return out;
}

const N = 5;

/** Gradients sample by sample, from problems of one sample each. */
function gradientsOf(net: Model, data: Named, theta: Vector): Float64Array[] {
  return times(N, (n) => {
    const one = Object.fromEntries(
      net.inputs.map(({ name, size }) => [name, data[name]!.slice(n * size, (n + 1) * size)]),
    );
    const problem = engine.problem(net, one);
    return problem.gradient(theta) as Float64Array;
  });
}

/** Central differences, extrapolated from h and h/2: O(h^4). Only where kinks are further than h away. */
function differences(loss: (theta: Vector) => number, theta: Vector): Vector {
  const slope = (i: number, h: number) => {
    const at = (x: number) => loss(theta.map((t, k) => (k === i ? t + x : t)));
    return (at(h) - at(-h)) / (2 * h);
  };
  return theta.map((_, i) => (4 * slope(i, 5e-4) - slope(i, 1e-3)) / 3);
}

describe.each(Object.keys(cases))("%s", (name) => {
  const { net, labels = "real", symmetries, broken } = cases[name]!();
  const data = dataFor(net, N, 9, labels);
  const theta = stream(10)(net.P);

  test("is a model file that reads back to itself", () => {
    const json = net.toJSON();
    expect(parseModel(JSON.stringify(json)).toJSON()).toEqual(json);
  });

  test("its gradient agrees with central differences to 1e-8", () => {
    const problem = engine.problem(net, data);
    const moving = net.blocks.flatMap((b) => times(b.size, () => (b.trainable ? 1 : 0)));
    const expected = differences((t) => problem.loss(t), theta).map((g, i) => g * moving[i]!);
    expectClose(problem.gradient(theta), expected, 1e-8);
  });

  test(`has the symmetries it claims, sample by sample to 1e-12, and not ${broken.length} others`, () => {
    const gradients = gradientsOf(net, data, theta);
    const defect = (field: Field) => {
      const J = fieldAt(net, theta, field);
      return Math.max(...gradients.map((g) => Math.abs(dot(g, J)) / (lengthOf(g) * lengthOf(J))));
    };
    for (const field of symmetries) expect(defect(field), JSON.stringify(field)).toBeLessThan(1e-12);
    for (const field of broken) expect(defect(field), JSON.stringify(field)).toBeGreaterThan(1e-3);
  });
});

/** theta with some of its blocks times a factor. */
const scaled = (net: Model, theta: Vector, names: readonly string[], factor: number): Vector =>
  net.blocks.flatMap((b) =>
    theta.slice(b.offset, b.offset + b.size).map((t) => (names.includes(b.name) ? factor * t : t)),
  );

describe("scale invariance is exact: powers of two change no bit of the loss", () => {
  test.each([
    { name: "netA", scales: [["U", "W"]] },
    { name: "netAPrime", scales: [["U", "W"]] },
    { name: "netB", scales: [["U"], ["W"]] },
    { name: "netBPrime", scales: [["U"], ["W"]] },
    { name: "layerNormNet", scales: [["W"]] },
    { name: "selfSupervised", scales: [["W"]] },
  ])("$name", ({ name, scales }) => {
    const { net } = cases[name]!();
    const problem = engine.problem(net, dataFor(net, N, 11));
    const theta = stream(12)(net.P);
    for (const names of scales) {
      const [g, far] = [theta, scaled(net, theta, names, 8)].map((t) => problem.gradient(t)) as [
        Float64Array,
        Float64Array,
      ];
      expect(problem.losses(scaled(net, theta, names, 8))).toEqual(problem.losses(theta));
      // g(rho theta) = g(theta) / rho on the blocks that scale
      expect(Array.from(far)).toEqual(scaled(net, Array.from(g), names, 1 / 8));
    }
  });

  test("and an epsilon in the layer norm breaks it", () => {
    const net = model({
      params: { W: [4, 3] },
      inputs: { x: [3], y: [4] },
      loss: ({ W, x, y }) => losses.squared(layers.layerNorm(ops.matmul(W, x), { eps: 0.01 }), y),
    });
    const theta = stream(13)(net.P);
    for (const g of gradientsOf(net, dataFor(net, N, 14), theta))
      expect(Math.abs(dot(g, theta)) / (lengthOf(g) * lengthOf(theta))).toBeGreaterThan(1e-5);
  });
});

test("a zero row of a normalised weight is not hidden: the loss is NaN", () => {
  const { net } = cases.netB!();
  const problem = engine.problem(net, dataFor(net, N, 18));
  const { offset } = net.block("W");
  const theta = stream(19)(net.P).map((t, i) => (i >= offset && i < offset + small.dx ? 0 : t));
  expect(problem.loss(theta)).toBeNaN();
});

describe("translations: charges that are linear", () => {
  test("softmaxRegression and layerNormNet keep the sum of the rows of W, sample by sample", () => {
    const nets: [Model, "classes" | "real"][] = [
      [models.softmaxRegression(), "classes"],
      [models.layerNormNet(), "real"],
    ];
    for (const [net, labels] of nets) {
      const { shape, offset, size } = net.block("W");
      for (const g of gradientsOf(net, dataFor(net, N, 15, labels), stream(16)(net.P))) {
        const W = rows(g.slice(offset, offset + size), shape[1]!);
        const sums = turned(W).map((column) => Math.abs(column.reduce((a, b) => a + b, 0)));
        expect(Math.max(...sums)).toBeLessThan(1e-14 * lengthOf(g));
        expect(lengthOf(g)).toBeGreaterThan(0.01);
      }
    }
  });
});

describe("closed-form gradients of one sample", () => {
  const { dx, h, dy } = small;
  const next = stream(17);
  const [U, W, x, y] = [rows(next(dy * h), h), rows(next(h * dx), dx), next(dx), next(dy)];
  const gradient = (net: Model) => {
    const problem = engine.problem(net, { x, y });
    return problem.gradient([...U.flat(), ...W.flat()]);
  };

  test("netA: g_U = 2 r z^T / R - (4c / R^2) U, g_W = 2 U^T r x^T / R - (4c / R^2) W", () => {
    const z = apply(W, x);
    const R = dot(U.flat(), U.flat()) + dot(W.flat(), W.flat());
    const Uz = apply(U, z);
    const r = Uz.map((f, i) => f / R - y[i]!);
    const c = dot(r, Uz);
    const Ur = apply(turned(U), r);
    const gU = U.flatMap((row, i) => row.map((u, j) => (2 * r[i]! * z[j]!) / R - ((4 * c) / (R * R)) * u));
    const gW = W.flatMap((row, j) => row.map((w, k) => (2 * Ur[j]! * x[k]!) / R - ((4 * c) / (R * R)) * w));
    expectClose(gradient(models.netA(small)), [...gU, ...gW]);
  });

  test("netB: the parts of r z_j and z_j x across the unit columns and rows, over their lengths", () => {
    const a = turned(U).map(lengthOf);
    const b = W.map(lengthOf);
    const hatU = U.map((row) => row.map((u, j) => u / a[j]!));
    const hatW = W.map((row, j) => row.map((w) => w / b[j]!));
    const z = apply(hatW, x);
    const r = apply(hatU, z).map((f, i) => f - y[i]!);
    const s = apply(turned(hatU), r);
    const gU = hatU.flatMap((row, i) => row.map((u, j) => (2 * (r[i]! - u * s[j]!) * z[j]!) / a[j]!));
    const gW = hatW.flatMap((row, j) => row.map((w, k) => (2 * s[j]! * (x[k]! - z[j]! * w)) / b[j]!));
    expectClose(gradient(models.netB(small)), [...gU, ...gW]);
  });
});

describe("ready models are the models of the fixtures, to 1e-12 of losses and gradients", () => {
  const ready: Record<string, () => Model> = {
    attention: () => models.attention({ T: 4, d: 4, dk: 2 }),
    "deep-linear-3": () => models.deepLinear({ widths: [4, 3, 2, 2] }),
    "gelu-cross-entropy": () =>
      models.mlp({ widths: [6, 4, 4], activation: "geluTanh", biases: true, loss: "crossEntropy" }),
    "layer-norm": () => models.layerNormNet({ dx: 4, h: 6, dy: 2, trainReadout: true }),
    "logistic-linear": () => models.deepLinear({ widths: [4, 4, 2], loss: "logistic" }),
    "matrix-completion": () => models.matrixCompletion({ rows: 6, cols: 4, rank: 2 }),
    "net-a": () => models.netA({ dx: 4, h: 2, dy: 2 }),
    "net-b": () => models.netB({ dx: 4, h: 2, dy: 2 }),
    "rank-1": () => models.rankOne(),
    "relu-bias": () => models.reluNet({ widths: [4, 6, 2], biases: true }),
    "residual-1": () => models.residual({ d: 4 }),
    "ssl-cosine": () => models.selfSupervised({ dx: 6, h: 3 }),
    "tanh-bias": () => models.mlp({ widths: [4, 6, 3], biases: true }),
    "two-layer-linear-reference": () => models.twoLayerLinear({ dx: 3, h: 2, dy: 2 }),
  };
  test.each(Object.keys(ready))("%s", (name) => {
    const path = fileURLToPath(new URL(`../fixtures/${name}.json`, import.meta.url));
    const fixture = JSON.parse(readFileSync(path, "utf8")) as {
      paramOrder: string[];
      data: Named;
      theta: Named;
      expected: { perSampleLoss: Vector; gradient: Vector };
    };
    const net = ready[name]!();
    const problem = engine.problem(net, fixture.data);
    expectClose(problem.losses(fixture.theta), fixture.expected.perSampleLoss, 1e-12);
    const gradient = problem.named(problem.gradient(fixture.theta));
    const inOrder = fixture.paramOrder.flatMap((block) => Array.from(gradient[block]!));
    expectClose(inOrder, fixture.expected.gradient, 1e-12);
  });
});

// --- layers and losses that couple the samples of a batch ------------------------------------------------------------

/**
 * Entries of a batch's values, sample by sample: the mean loss through a probe that is S at one entry of one sample.
 */
function batchEntriesOf(
  shapes: { params: Shapes; x: readonly number[] },
  values: Named,
  S: number,
  build: (v: Record<string, Node>) => Node,
): Vector {
  const net = model({
    params: { one: [], ...shapes.params },
    inputs: { x: shapes.x, probe: shapes.x },
    loss: (v) => ops.sum(ops.mul(build(v as Record<string, Node>), (v as Record<string, Node>).probe!)),
  });
  const theta = { one: [1], ...Object.fromEntries(Object.keys(shapes.params).map((k) => [k, values[k]!])) };
  const size = S * sizeOf(shapes.x);
  return times(size, (e) => {
    const probe = times(size, (j) => (j === e ? S : 0));
    const problem = engine.problem(net, { x: values.x!, probe });
    return problem.loss(theta);
  });
}

/** Batch norm of the rows of a matrix, column by column, from the definition. */
function normalisedColumns(X: Matrix, gain: Vector, bias: Vector, eps: number): Matrix {
  const columns = turned(X).map((column, j) => {
    const [g, b] = [column.map(() => gain[j]!), column.map(() => bias[j]!)];
    return normalisedRow(column, g, b, eps);
  });
  return turned(columns);
}

describe("layers.batchNorm", () => {
  const S = 4;
  test("normalises each feature over the samples, and over their tokens", () => {
    for (const x of [[3], [2, 3]]) {
      const values = randomValues({ gain: [3], bias: [3], x: [S, sizeOf(x)] }, 20);
      const tokens = rows(values.x!, 3);
      const [ones, zeros] = [times(3, () => 1), times(3, () => 0)];
      expectClose(
        batchEntriesOf({ params: {}, x }, values, S, (v) => layers.batchNorm(v.x!)),
        normalisedColumns(tokens, ones, zeros, 0).flat(),
        1e-12,
      );
      expectClose(
        batchEntriesOf({ params: { gain: [3], bias: [3] }, x }, values, S, ({ x, gain, bias }) =>
          layers.batchNorm(x!, { gain: gain!, bias: bias!, eps: 0.1 }),
        ),
        normalisedColumns(tokens, values.gain!, values.bias!, 0.1).flat(),
        1e-12,
      );
    }
  });
});

test("losses.infoNCE picks a sample's own second view among those of its batch", () => {
  const [S, h, temperature] = [5, 3, 0.3];
  const { z1, z2 } = randomValues({ z1: [S, h], z2: [S, h] }, 21) as { z1: Vector; z2: Vector };
  const [first, second] = [z1, z2].map((z) => rows(z, h).map((v) => v.map((x) => x / lengthOf(v)))) as [
    Matrix,
    Matrix,
  ];
  const each = first.map((a, i) => {
    const scores = second.map((b) => dot(a, b) / temperature);
    return Math.log(scores.reduce((sum, s) => sum + Math.exp(s), 0)) - scores[i]!;
  });
  const net = model({
    params: { c: [] },
    inputs: { z1: [h], z2: [h], probe: [] },
    loss: ({ z1, z2, c, probe }) => ops.mul(ops.mul(c, probe), losses.infoNCE(z1, z2, { temperature })),
  });
  const got = times(S, (n) => {
    const problem = engine.problem(net, { z1, z2, probe: times(S, (i) => (i === n ? S : 0)) });
    return problem.loss([1]);
  });
  expectClose(got, each, 1e-12);
});

describe.each([
  {
    name: "batchNormNet",
    make: () => models.batchNormNet({ dx: 4, h: 3, dy: 2, activation: "tanh" }),
    symmetries: [{ W: { scalar: 1 } }, ...times(3, (j) => ({ W: { left: unit(3, j) } }))] as Field[],
    broken: [{ W: { right: unit(4, 0) } }] as Field[],
  },
  {
    name: "batch norm with gain and bias",
    make: () =>
      model({
        params: { U: [2, 3], W: [3, 4], b: [3], gain: [3], bias: [3] },
        inputs: { x: [4], y: [2] },
        loss: ({ U, W, b, gain, bias, x, y }) =>
          losses.squared(ops.matmul(U, layers.batchNorm(layers.linear(W, x, b), { gain, bias })), y),
      }),
    symmetries: times(3, (j) => [
      { W: { left: unit(3, j) }, b: { left: unit(3, j) } },
      {
        U: { right: unit(3, j) },
        gain: { left: negative(unit(3, j)) },
        bias: { left: negative(unit(3, j)) },
      },
    ]).flat() as Field[],
    broken: [{ U: { right: unit(3, 0) }, gain: { left: negative(unit(3, 0)) } }] as Field[],
  },
  {
    name: "infoNCE",
    make: () => models.infoNCE({ dx: 4, h: 3 }),
    symmetries: [{ W: { scalar: 1 } }] as Field[],
    broken: [{ W: { left: symmetric3 } }] as Field[],
  },
])("$name, which couples the samples of a batch", ({ make, symmetries, broken }) => {
  const S = 6;
  const set = () => {
    const net = make();
    return { net, theta: stream(22)(net.P), data: dataFor(net, S, 23) };
  };

  test("is a model file that reads back to itself", () => {
    const json = make().toJSON();
    expect(parseModel(JSON.stringify(json)).toJSON()).toEqual(json);
  });

  test("the gradient of a batch agrees with central differences to 1e-8", () => {
    const { net, theta, data } = set();
    const problem = engine.problem(net, data);
    const moving = net.blocks.flatMap((b) => times(b.size, () => (b.trainable ? 1 : 0)));
    const expected = differences((t) => problem.loss(t), theta).map((g, i) => g * moving[i]!);
    expectClose(problem.gradient(theta), expected, 1e-8);
  });

  test("the gradient of a batch has no component along A theta, to 1e-12", () => {
    const { net, theta, data } = set();
    const problem = engine.problem(net, data);
    const g = problem.gradient(theta);
    const defect = (field: Field) => {
      const J = fieldAt(net, theta, field);
      return Math.abs(dot(g, J)) / (lengthOf(g) * lengthOf(J));
    };
    for (const field of symmetries) expect(defect(field), JSON.stringify(field)).toBeLessThan(1e-12);
    for (const field of broken) expect(defect(field), JSON.stringify(field)).toBeGreaterThan(1e-3);
  });

  test("eight times the map before it changes no bit of the loss", () => {
    const { net, theta, data } = set();
    const problem = engine.problem(net, data);
    const far = scaled(net, theta, ["W", "b"], 8);
    expect(problem.loss(far)).toBe(problem.loss(theta));
  });

  test("200 steps of SGD change the first charge by their work, to 1e-12 of |theta|^2", async () => {
    const { net, theta } = set();
    const problem = engine.problem(net, dataFor(net, 30, 24));
    const A = symmetry.generator({ blocks: symmetries[0]! as object });
    const run = await problem.simulate({
      scheme: "sgd",
      batchSize: S,
      theta,
      eta: 0.02,
      steps: 200,
      seed: "coupled",
      record: { every: 200, charges: { C: A }, work: true },
    });
    const [C, work] = [run.series.charges.C!, run.series.work.C!];
    expect(Math.abs(C[1]! - C[0]! - work[1]!)).toBeLessThan(1e-12 * dot(theta, theta));
    expect(Math.abs(work[1]!)).toBeGreaterThan(1e-6);
  });
});

test("a bias before a batch norm has no gradient, and a row scaled by itself changes no bit", () => {
  const net = model({
    params: { W: [3, 4], b: [3] },
    inputs: { x: [4], y: [3] },
    loss: ({ W, b, x, y }) => losses.squared(layers.batchNorm(layers.linear(W, x, b)), y),
  });
  const problem = engine.problem(net, dataFor(net, 6, 25));
  const theta = stream(26)(net.P);
  const g = problem.gradient(theta);
  expect(lengthOf(g.slice(12))).toBeLessThan(1e-14 * lengthOf(g));
  const far = theta.map((t, i) => ((i >= 4 && i < 8) || i === 13 ? t / 4 : t));
  expect(problem.loss(far)).toBe(problem.loss(theta));
});

test("defaults are the sizes of the experiments", () => {
  const sizes = Object.entries(models).map(([name, make]) => {
    const net = (make as () => Model)();
    const shape = (b: { name: string; shape: readonly number[] }) => `${b.name} ${b.shape.join("x")}`;
    const fixed = net.blocks.filter((b) => !b.trainable).map((b) => ` fixed ${b.name}`);
    return `${name}: ${net.blocks.map(shape).join(", ")}; ${net.inputs.map(shape).join(", ")}${fixed.join("")}`;
  });
  expect(sizes).toEqual([
    "rankOne: u 1, w 1; x 1, y 1",
    "twoLayerLinear: U 5x8, W 8x5; x 5, y 5",
    "deepLinear: W1 3x3, W2 3x3, W3 3x3; x 3, y 3",
    "reluNet: W1 5x4, W2 2x5; x 4, y 2",
    "mlp: W1 5x4, W2 2x5; x 4, y 2",
    "tanhNet: U 6x6, W 6x6; x 6, y 6",
    "tanhAutoencoder: U 6x6, W 6x6; x 6, y 6",
    "residual: U 5x5, W 5x5; x 5, y 5",
    "netA: U 5x10, W 10x10; x 10, y 5",
    "netAPrime: U 5x10, W 10x10; x 10, y 5",
    "netB: U 5x10, W 10x10; x 10, y 5",
    "netBPrime: U 5x10, W 10x10; x 10, y 5",
    "layerNormNet: U 3x12, W 12x8; x 8, y 3 fixed U",
    "batchNormNet: U 3x6, W 6x8; x 8, y 3 fixed U",
    "matrixCompletion: U 8x3, W 3x8; row 8, col 8, y 1",
    "attention: Wq 4x3, Wk 4x3, Wv 4x4; X 5x4, y 4",
    "selfSupervised: W 4x6; x 6, xplus 6",
    "infoNCE: W 4x6; x 6, xplus 6",
    "softmaxRegression: W 4x5; x 5, y 4",
  ]);
});

// --- refusals ----------------------------------------------------------------------------------------------------

describe("a mistake is refused with the name of the layer", () => {
  /** The message of what a model's loss throws, with values of some shapes at hand. */
  const refusal = (build: (v: Record<string, Node>) => unknown): string => {
    try {
      model({
        params: { W: [3, 2], V: [2, 3], s: [], v: [3], one: [1], T: [5, 2], long: [2, 4] },
        inputs: { x: [2], y: [3] },
        loss: (v) => build(v as Record<string, Node>) as Node,
      });
    } catch (error) {
      if (error instanceof NoetherflowError) return `${error.code} ${error.message}`;
      throw error;
    }
    throw new Error("nothing was refused");
  };
  const misspelt = undefined as unknown as Node;
  const cases: [string, (v: Record<string, Node>) => unknown][] = [
    [
      "shape layers.linear: W [3, 2] takes x of shape [2] or tokens [T, 2], got v [3].",
      ({ W, v }) => layers.linear(W!, v!),
    ],
    ["shape layers.linear: W must be a matrix, got v [3].", ({ v, x }) => layers.linear(v!, x!)],
    [
      "shape layers.linear: b must have the shape [3], got one [1].",
      ({ W, x, one }) => layers.linear(W!, x!, one!),
    ],
    [
      "shape layers.linear: x must be a value of the model, got undefined.",
      ({ W }) => layers.linear(W!, misspelt),
    ],
    [
      "shape layers.mlp: layer 2 of 2: W [3, 2] takes x of shape [2] or tokens [T, 2], got relu(...) [3].",
      ({ W, x }) => layers.mlp(x!, [W!, { W: W! }], "relu"),
    ],
    [
      "shape layers.mlp: expected a list of W or { W, b? }, one or more, got [].",
      ({ x }) => layers.mlp(x!, [], "relu"),
    ],
    [
      'name layers.mlp: layer 1 of 1: options are W, b, got "B". Did you mean "b"?',
      ({ x, W, v }) => layers.mlp(x!, [{ W: W!, B: v! } as { W: Node }], "relu"),
    ],
    [
      'name layers.mlp: activation must be one of "linear", "relu", "tanh", "sigmoid", "softplus", "square", "geluTanh", "geluErf", got "rleu". Did you mean "relu"?',
      ({ W, V, x }) => layers.mlp(x!, [W!, V!], "rleu" as "relu"),
    ],
    [
      "shape layers.mlp: the activation keeps the shape [3], got sqnorm(...) [].",
      ({ W, V, x }) => layers.mlp(x!, [W!, V!], ops.sqnorm),
    ],
    [
      "shape layers.residual: f(x) must have the shape [2], got matmul(...) [3].",
      ({ W, x }) => layers.residual(x!, (z) => ops.matmul(W!, z)),
    ],
    [
      "range layers.residual: skip must be a finite number, got NaN.",
      ({ x }) => layers.residual(x!, (z) => z, { skip: Number.NaN }),
    ],
    [
      "shape layers.residual: expected a function of x, got an object with keys graph, id, op, args, attrs, shape, ....",
      ({ x }) => layers.residual(x!, x! as never),
    ],
    [
      "shape layers.layerNorm: x has two features or more, because one alone is its own mean, got one [1]. batchNorm and weightNorm work with one.",
      ({ one }) => layers.layerNorm(one!),
    ],
    [
      "shape layers.layerNorm: x has features, shape [h], or is tokens, shape [T, h], got s [].",
      ({ s }) => layers.layerNorm(s!),
    ],
    [
      "shape layers.layerNorm: gain must have the shape [2], got v [3].",
      ({ x, v }) => layers.layerNorm(x!, { gain: v! }),
    ],
    [
      "range layers.layerNorm: eps must be a finite number of at least 0, got -1.",
      ({ x }) => layers.layerNorm(x!, { eps: -1 }),
    ],
    [
      'name layers.layerNorm: options are gain, bias, eps, got "epsilon".',
      ({ x }) => layers.layerNorm(x!, { epsilon: 1 } as object),
    ],
    [
      "shape layers.batchNorm: bias must have the shape [2], got v [3].",
      ({ x, v }) => layers.batchNorm(x!, { bias: v! }),
    ],
    [
      'name layers.weightNorm: by must be one of "block", "row", "column", got undefined.',
      ({ W }) => layers.weightNorm(W!, {} as { by: "row" }),
    ],
    ["shape layers.weightNorm: V is a matrix, got v [3].", ({ v }) => layers.weightNorm(v!, { by: "row" })],
    [
      "shape layers.weightNorm: gain must have the shape [3], got one [1].",
      ({ W, one }) => layers.weightNorm(W!, { by: "row", gain: one! }),
    ],
    [
      "shape layers.selfAttention: x must be a matrix, got x [2].",
      ({ x, V }) => layers.selfAttention(x!, { query: V!, key: V!, value: V! }),
    ],
    [
      "shape layers.selfAttention: x [5, 2] takes query [2, ...], got W [3, 2].",
      ({ T, W }) => layers.selfAttention(T!, { query: W!, key: W!, value: W! }),
    ],
    [
      "shape layers.selfAttention: value has a multiple of 2 heads as columns, got V [2, 3].",
      ({ T, V, long }) => layers.selfAttention(T!, { query: long!, key: long!, value: V!, heads: 2 }),
    ],
    [
      "shape layers.selfAttention: key must have the shape [2, 3], got long [2, 4].",
      ({ T, V, long }) => layers.selfAttention(T!, { query: V!, key: long!, value: V! }),
    ],
    [
      "shape layers.selfAttention: value [2, 3] takes output [3, ...], got V [2, 3].",
      ({ T, V }) => layers.selfAttention(T!, { query: V!, key: V!, value: V!, output: V! }),
    ],
    [
      "range layers.selfAttention: heads must be an integer of at least 1, got 0.",
      ({ T, V }) => layers.selfAttention(T!, { query: V!, key: V!, value: V!, heads: 0 }),
    ],
    ["shape losses.squared: y must have the shape [2], got y [3].", ({ x, y }) => losses.squared(x!, y!)],
    ["shape losses.crossEntropy: logits must be a vector, got s [].", ({ s }) => losses.crossEntropy(s!, s!)],
    [
      "shape losses.logistic: y must be a value of the model, got 1.",
      ({ x }) => losses.logistic(x!, 1 as unknown as Node),
    ],
    ["shape losses.cosine: y must have the shape [2], got y [3].", ({ x, y }) => losses.cosine(x!, y!)],
    [
      "range losses.infoNCE: temperature must be above 0, got 0.",
      ({ x }) => losses.infoNCE(x!, x!, { temperature: 0 }),
    ],
    [
      "range losses.infoNCE: temperature must be a finite number, got undefined.",
      ({ x }) => losses.infoNCE(x!, x!, {} as { temperature: number }),
    ],
  ];
  test.each(cases)("%s", (message, build) => expect(refusal(build)).toBe(message));

  test.each<[string, () => Model]>([
    ["range models.netA: h must be an integer of at least 1, got 0.", () => models.netA({ h: 0 })],
    [
      'name models.netB: options are dx, h, dy, loss, got "dz". Did you mean "dx"?',
      () => models.netB({ dz: 3 } as object),
    ],
    [
      "shape models.twoLayerLinear: expected options dx, h, dy, loss, got 3.",
      () => models.twoLayerLinear(3 as unknown as object),
    ],
    [
      "shape models.reluNet: widths is a list [dx, ..., dy] of two sizes or more, got [4].",
      () => models.reluNet({ widths: [4] }),
    ],
    [
      "range models.deepLinear: widths[1] must be an integer of at least 1, got 2.5.",
      () => models.deepLinear({ widths: [4, 2.5] }),
    ],
    [
      'name models.mlp: options are widths, activation, biases, loss, got "depth".',
      () => models.mlp({ depth: 3 } as object),
    ],
    [
      "range models.reluNet: biases must be true or false, got 1.",
      () => models.reluNet({ biases: 1 as unknown as boolean }),
    ],
    [
      'name models.netA: loss must be one of "squared", "crossEntropy", "logistic", "cosine", got "mse".',
      () => models.netA({ loss: "mse" as "squared" }),
    ],
    [
      "shape models.attention: heads must divide d, because each has d / heads values, got d = 4, heads = 3.",
      () => models.attention({ heads: 3 }),
    ],
    ["range losses.infoNCE: temperature must be above 0, got -1.", () => models.infoNCE({ temperature: -1 })],
  ])("%s", (message, make) => {
    try {
      make();
    } catch (error) {
      if (error instanceof NoetherflowError) return expect(`${error.code} ${error.message}`).toBe(message);
      throw error;
    }
    throw new Error("nothing was refused");
  });
});

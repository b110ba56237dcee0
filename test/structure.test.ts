/**
 * Structure of a model that measurements make use of: products in another order, moments of fewer products for the whole
 * Sigma, lengths of gradients for the trace of the Hessian, weights of Sigma v that need no mean beforehand. Each is held
 * against the way that uses none of it, which is tested on its own in measurements.test.ts.
 *
 * It catches a bias that is lost on the way to the input, a factor or sign in front of a layer, an entry of a block that is
 * written to its neighbour, a layer that is taken for linear, a short form that is kept where it has lost its digits.
 */
import { afterAll, describe, expect, test } from "vitest";
import { associate } from "../src/graph/associate.ts";
import { gradient, meanOver } from "../src/graph/derive.ts";
import { hessianTrace } from "../src/graph/hessian-trace.ts";
import { structured } from "../src/graph/inner.ts";
import { lift } from "../src/graph/lifted.ts";
import { isSampleValue, reachable, sizeOf } from "../src/graph/node.ts";
import {
  createEngine,
  type Engine,
  type Expr,
  type Model,
  model,
  NoetherflowError,
  ops,
  type Problem,
} from "../src/index.ts";
import type { Measure } from "../src/models/measure.ts";

const engine = await createEngine();
const engine32 = await createEngine({ dtype: "f32" });
afterAll(() => {
  engine.dispose();
  engine32.dispose();
});

type Numbers = ArrayLike<number>;
const times = <T>(n: number, f: (i: number) => T): T[] => Array.from({ length: n }, (_, i) => f(i));
const norm = (a: Numbers): number => Math.sqrt(Array.from(a).reduce((s, x) => s + x * x, 0));
const farthest = (a: Numbers, b: Numbers): number => {
  expect(a.length).toBe(b.length);
  let most = 0;
  for (let i = 0; i < a.length; i++) most = Math.max(most, Math.abs(a[i]! - b[i]!));
  return most;
};

const activated = (z: Expr): Expr => ops.tanh(z);

/** A stream of numbers in [-1, 1): a linear congruential generator, good enough for test data. */
function stream(seed: number): (n: number) => number[] {
  let state = seed;
  return (n) =>
    times(n, () => {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
      return state / 2_147_483_648 - 1;
    });
}

interface Net {
  readonly net: Model;
  readonly sizes: readonly number[];
  readonly biased: boolean;
}

/** W_L ... W_1 x with a squared loss, biases or none, `between` the layers, and a penalty that all samples share. */
function layered(
  sizes: readonly number[],
  { biased = false, penalty = 0, scaled = 1, between = (z: Expr, _: number): Expr => z } = {},
): Net {
  const L = sizes.length - 1;
  const params: Record<string, number[]> = {};
  for (let k = 1; k <= L; k++) {
    params[`W${k}`] = [sizes[k]!, sizes[k - 1]!];
    if (biased) params[`b${k}`] = [sizes[k]!];
  }
  const net = model({
    params,
    inputs: { x: [sizes[0]!], y: [sizes[L]!] },
    loss: (leaves) => {
      const at = leaves as unknown as Record<string, Expr>;
      let z = at.x!;
      for (let k = 1; k <= L; k++) {
        z = ops.matmul(at[`W${k}`]!, z);
        if (biased) z = ops.add(z, at[`b${k}`]!);
        if (k < L) z = between(z, k);
      }
      const loss = ops.scale(ops.sqnorm(ops.sub(z, at.y!)), scaled);
      return penalty === 0 ? loss : ops.add(loss, ops.scale(ops.sqnorm(at.W1!), penalty));
    },
  });
  return { net, sizes, biased };
}

/** Data, a theta, and a bound of E|g|^2 from norms of layers alone: what rounding of every shorter form is relative to. */
function drawn(on: Engine, { net, sizes, biased }: Net, N: number, seed: number, size = 0.6) {
  const next = stream(seed);
  const o = sizes.at(-1)!;
  const [x, y] = [next(N * sizes[0]!), next(N * o)];
  const theta = next(net.P).map((t) => size * t);
  const problem = on.problem(net, { x, y });
  const L = sizes.length - 1;
  const partOf = (name: string) => norm(problem.named(theta)[name] as unknown as Numbers);
  const weights = times(L, (k) => partOf(`W${k + 1}`));
  const shifts = times(L, (k) => (biased ? partOf(`b${k + 1}`) : 0));
  let bound = 0;
  for (let n = 0; n < N; n++) {
    const ends = [norm(x.slice(n * sizes[0]!, (n + 1) * sizes[0]!))];
    for (let k = 0; k < L; k++) ends.push(weights[k]! * ends[k]! + shifts[k]!);
    let back = 2 * (ends[L]! + norm(y.slice(n * o, (n + 1) * o)));
    for (let k = L - 1; k >= 0; k--) {
      bound += (back * (ends[k]! + (biased ? 1 : 0))) ** 2 / N;
      back *= weights[k]!;
    }
  }
  return { problem, theta, bound, v: next(net.P) };
}

const builds = [
  { name: "f64", on: engine, u: 2 ** -53 },
  { name: "f32", on: engine32, u: 2 ** -24 },
];
/** Roundings of a term of a sum over N samples: those of the sum, and of products as long as all layers together. */
const roundings = (N: number, sizes: readonly number[]): number =>
  N + 2 * sizes.reduce((n, d) => n + d, 0) + 20;

const linear: Record<string, { made: Net; N: number; p: number | null }> = {
  "4-9-3": { made: layered([4, 9, 3]), N: 70, p: 12 },
  "5-8-2 with biases": { made: layered([5, 8, 2], { biased: true }), N: 130, p: 12 },
  "3-7-6-2 with biases": { made: layered([3, 7, 6, 2], { biased: true, scaled: -0.7 }), N: 200, p: 8 },
  "6-12-6 and a penalty": { made: layered([6, 12, 6], { penalty: 0.3 }), N: 65, p: 36 },
  "7-20-5, fewer samples than parameters": { made: layered([7, 20, 5]), N: 11, p: 35 },
  "one layer with a bias, as short as it can be": { made: layered([4, 3], { biased: true }), N: 40, p: null },
  "a bottleneck 8-2-8": { made: layered([8, 2, 8]), N: 50, p: null },
};

const measureOf = (problem: Problem): Measure =>
  (problem as unknown as { perSample(where: string): Measure }).perSample("test");

describe.each(builds)("linear nets in $name", ({ on, u }) => {
  test.each(Object.entries(linear))(
    "%s: Tr Sigma in the cheapest order is that in the order as written",
    (_, { made, N }) => {
      const { problem, theta, bound } = drawn(on, made, N, 3);
      const written = problem.noiseTrace(theta, { method: "structured" }).value;
      const centred = problem.noiseTrace(theta, { method: "streamed" }).value;
      const tolerance = roundings(N, made.sizes) * u * bound;
      expect(Math.abs(problem.noiseTrace(theta).value - written)).toBeLessThanOrEqual(tolerance);
      expect(Math.abs(problem.noiseTrace(theta).value - centred)).toBeLessThanOrEqual(tolerance);
      problem.dispose();
    },
  );

  test.each(Object.entries(linear))(
    "%s: Sigma from moments is that from the gradients",
    async (_, { made, N, p }) => {
      const { problem, theta, bound } = drawn(on, made, N, 4);
      const lifted = lift(measureOf(problem).sampleGradients);
      expect(lifted?.size ?? null).toBe(p);
      const direct = await problem.noiseCovariance(theta, { method: "direct" });
      expect(direct.method).toBe("direct");
      const tolerance = roundings(N, made.sizes) * u * bound;
      for (const options of [
        { method: "moments" },
        { method: "auto" },
        {},
        { samples: 30, seed: "s" },
      ] as const) {
        if (p === null && "method" in options && options.method === "moments") continue;
        const found = await problem.noiseCovariance(theta, options);
        const expected =
          "samples" in options
            ? await problem.noiseCovariance(theta, { ...options, method: "direct" })
            : direct;
        expect(farthest(found, expected)).toBeLessThanOrEqual(tolerance);
        const { P } = problem;
        expect(found.every((x, e) => Object.is(x, found[(e % P) * P + Math.floor(e / P)]))).toBe(true);
        if ("method" in options && options.method === "moments") expect(found.method).toBe("moments");
      }
      problem.dispose();
    },
  );
});

test("the cheapest order of a wide linear net forms no hidden layer; that of a tanh net is as written", () => {
  const orderOf = (made: Net) => {
    const { problem } = drawn(engine, made, 100, 2);
    const { loss, leaves, model, sampleGradients } = measureOf(problem);
    const norms = sampleGradients.map((g) => meanOver(structured.inner(g!, g!), 100));
    const sums = gradient(loss, leaves, model.graph.number(1), 100).map((g) => ops.sqnorm(g!));
    const found = associate([...norms, ...sums], 100);
    problem.dispose();
    return found;
  };
  const found = orderOf(layered([4, 9, 8, 3], { biased: true }))!;
  const longest = Math.max(...reachable(found.values).map((n) => (isSampleValue(n) ? sizeOf(n.shape) : 0)));
  // e x^T below the sum over the batch is never formed
  expect(longest).toBe(3 * 4);
  expect(reachable(found.values).some((n) => isSampleValue(n) && n.shape.join() === "9")).toBe(false);
  expect(orderOf(layered([4, 9, 3], { between: activated }))).toBe(null);
});

describe("the whole Sigma", () => {
  test("moments are taken by themselves where they cost less, and not in a tanh net, where they are refused", async () => {
    const wide = drawn(engine, layered([6, 30, 5]), 400, 5);
    expect((await wide.problem.noiseCovariance(wide.theta)).method).toBe("moments");
    const net = layered([6, 30, 5], { between: activated });
    const { problem, theta } = drawn(engine, net, 400, 5);
    expect((await problem.noiseCovariance(theta)).method).toBe("direct");
    const refused = await problem
      .noiseCovariance(theta, { method: "moments" })
      .catch((error: unknown) => error);
    expect(refused).toBeInstanceOf(NoetherflowError);
    expect((refused as Error).message).toBe(
      "noiseCovariance: gradients that are a linear image of fewer products of vectors of the sample, got none are shorter than " +
        'the gradients of this model. Leave the method out, or take "direct".',
    );
    const misspelt = await problem
      .noiseCovariance(theta, { method: "moment" as never })
      .catch((error: unknown) => error);
    expect((misspelt as Error).message).toBe(
      'noiseCovariance: method is "auto", "direct" or "moments", got "moment".',
    );
    wide.problem.dispose();
    problem.dispose();
  });

  test("linear layers behind a tanh layer are lifted, the tanh layer's own gradient is not", async () => {
    const net = layered([3, 4, 12, 2], { biased: true, between: (z, k) => (k === 1 ? ops.tanh(z) : z) });
    const { problem, theta, bound } = drawn(engine, net, 300, 6);
    // delta (x, 1) of the first layer, e (a, 1) of the other two
    expect(lift(measureOf(problem).sampleGradients)!.size).toBe(4 * 4 + 2 * 5);
    const [moments, direct] = await Promise.all(
      (["moments", "direct"] as const).map((method) => problem.noiseCovariance(theta, { method })),
    );
    expect(farthest(moments!, direct!)).toBeLessThanOrEqual(roundings(300, net.sizes) * 2 ** -53 * bound);
    problem.dispose();
  });

  test("a block the loss does not use, one that is not trained, and tokens", async () => {
    const net = model({
      params: { Z: [2, 2], W: [9, 3], R: { shape: [3], trainable: false }, V: [2, 9], T: [3, 2] },
      inputs: { x: [3], y: [2], X: [4, 3] },
      loss: ({ W, R, V, T, x, y, X }) => {
        const f = ops.matmul(V, ops.matmul(W, ops.mul(R, x)));
        return ops.add(ops.sqnorm(ops.sub(f, y)), ops.sqnorm(ops.tanh(ops.matmul(X, T))));
      },
    });
    const next = stream(8);
    const N = 90;
    const problem = engine.problem(net, { x: next(3 * N), y: next(2 * N), X: next(12 * N) });
    const theta = next(net.P);
    const [moments, direct] = await Promise.all(
      (["moments", "direct"] as const).map((method) => problem.noiseCovariance(theta, { method })),
    );
    const largest = farthest(direct!, new Float64Array(direct!.length));
    // no layer here is longer than 12, and no factor larger than 10
    expect(farthest(moments!, direct!)).toBeLessThanOrEqual((N + 100) * 2 ** -53 * 10 * largest);
    expect(largest).toBeGreaterThan(0.1);
    problem.dispose();
  });

  test("errors that the last layer hardly sends back: the short forms would lose their digits, and are not taken", async () => {
    // the rows of U are opposite, and the two errors equal but for 1e-9
    const { net } = layered([3, 12, 2]);
    const next = stream(9);
    const N = 300;
    const x = next(3 * N);
    const y = times(N, (n) => [1 + 0.5 * x[3 * n]!, 1 + 0.5 * x[3 * n]! + 1e-9 * x[3 * n + 1]!]).flat();
    const problem = engine.problem(net, { x, y });
    const W = next(36).map((w) => 1e-9 * w);
    const row = next(12);
    const U = [...row, ...row.map((t) => -t)];
    const theta = problem.theta({ W1: W, W2: U });
    const only = (S: Numbers) => times(36, (i) => S[i * problem.P + i]!);
    const direct = await problem.noiseCovariance(theta, { method: "direct" });
    expect(only(direct).every((s) => s < 1e-15)).toBe(true);
    const found = await problem.noiseCovariance(theta);
    expect(found.method).toBe("direct");
    expect(found).toEqual(direct);
    expect(problem.noiseTrace(theta).value).toBe(problem.noiseTrace(theta, { method: "structured" }).value);
    problem.dispose();
  });
});

describe("Sigma v", () => {
  const cases = {
    linear: layered([4, 9, 3], { biased: true }),
    tanh: layered([4, 9, 3], { between: activated }),
  };
  test.each(Object.entries(cases))(
    "%s: the same bits whether the mean is known or found on the way",
    async (_, net) => {
      const N = 500;
      const { problem, theta, v, bound } = drawn(engine, net, N, 10);
      const { P } = problem;
      const first = problem.noiseVector(theta, v);
      expect(problem.noiseVector(theta, v)).toEqual(first);
      const other = theta.map((t) => -t);
      problem.noiseVector(other, v);
      expect(problem.noiseVector(theta, v)).toEqual(first);
      const pair = problem.noiseVector(other, [...v, ...v], { count: 2 });
      expect(pair.slice(0, P)).toEqual(problem.noiseVector(other, v));
      const Sigma = await problem.noiseCovariance(theta, { method: "direct" });
      const product = times(P, (i) => v.reduce((s, vj, j) => s + Sigma[i * P + j]! * vj, 0));
      expect(farthest(first, product)).toBeLessThanOrEqual(
        roundings(N, net.sizes) * 2 ** -53 * bound * norm(v),
      );
      problem.dispose();
    },
  );
});

describe("the trace of the Hessian without probes", () => {
  type Leaves = Record<string, Expr>;
  const f = (build: (at: Leaves) => Expr) => build;
  const squared = (value: Expr, y: Expr) => ops.sqnorm(ops.sub(value, y));
  const { matmul, tanh, add, mul, scale, sub, sum } = ops;
  /** Losses with W1 [4, 3], b1 [4], W2 [2, 4], V [4, 4], x [3], y [2]; whether lengths give their trace. */
  const losses: Record<string, { byLengths: boolean; loss: (at: Leaves) => Expr }> = {
    "a linear net": {
      byLengths: true,
      loss: f(({ W1, W2, x, y }) => squared(matmul(W2!, matmul(W1!, x!)), y!)),
    },
    "tanh with a bias": {
      byLengths: true,
      loss: f(({ W1, b1, W2, x, y }) => squared(matmul(W2!, tanh(add(matmul(W1!, x!), b1!))), y!)),
    },
    "three layers": {
      byLengths: true,
      loss: f(({ W1, V, W2, x, y }) =>
        scale(squared(matmul(W2!, ops.sigmoid(matmul(V!, tanh(matmul(W1!, x!))))), y!), 0.5),
      ),
    },
    "relu, softplus and a square": {
      byLengths: true,
      loss: f(({ W1, V, W2, x, y }) =>
        squared(matmul(W2!, ops.square(ops.softplus(matmul(V!, ops.relu(matmul(W1!, x!)))))), y!),
      ),
    },
    "gelu and leaky relu": {
      byLengths: true,
      loss: f(({ W1, V, W2, x, y }) =>
        squared(matmul(W2!, ops.leakyRelu(matmul(V!, ops.geluTanh(matmul(W1!, x!))), { slope: 0.1 })), y!),
      ),
    },
    "cross-entropy": {
      byLengths: true,
      loss: f(({ W1, W2, x, y }) => {
        const z = matmul(W2!, tanh(matmul(W1!, x!)));
        return sub(ops.logsumexp(z), sum(mul(ops.softmax(y!), z)));
      }),
    },
    "scaled before an activation": {
      byLengths: true,
      loss: f(({ W1, W2, x, y }) => squared(matmul(W2!, ops.square(scale(matmul(W1!, x!), 2))), y!)),
    },
    "gates, halves and a quotient": {
      byLengths: true,
      loss: f(({ W1, b1, W2, V, x, y }) => {
        const a = tanh(matmul(W1!, x!));
        const gated = mul(a, ops.sigmoid(b1!));
        const halves = ops.concat([
          ops.slice(gated, { start: 2, stop: 4 }),
          ops.slice(gated, { start: 0, stop: 2 }),
        ]);
        const f = ops.div(matmul(W2!, halves), ops.exp(sum(V!)));
        return squared(f, y!);
      }),
    },
    "a row times a matrix, a penalty and a norm": {
      byLengths: true,
      loss: f(({ W1, W2, V, x, y }) => {
        const f = matmul(matmul(W1!, x!), ops.transpose(W2!));
        return add(squared(f, y!), add(scale(ops.sqnorm(V!), 0.3), ops.norm(ops.sub(f, 5))));
      }),
    },
    "a unit times itself and its neighbours": {
      byLengths: true,
      loss: f(({ W1, W2, x, y }) => {
        const a = tanh(matmul(W1!, x!));
        return squared(matmul(W2!, mul(a, ops.sigmoid(matmul(W1!, x!)))), y!);
      }),
    },
    "a layer used twice": {
      byLengths: false,
      loss: f(({ V, W2, b1, y }) => squared(matmul(W2!, matmul(V!, tanh(matmul(V!, b1!)))), y!)),
    },
    "softmax on the way": {
      byLengths: false,
      loss: f(({ W1, W2, x, y }) => squared(matmul(W2!, ops.softmax(matmul(W1!, x!))), y!)),
    },
  };
  const N = 37;
  const next = stream(12);
  const data = { x: next(3 * N), y: next(2 * N) };

  test.each(Object.entries(losses))(
    "%s: as by quadratic forms with unit vectors, whole and by blocks",
    async (_, row) => {
      const net = model({
        params: { W1: [4, 3], b1: [4], W2: [2, 4], V: [4, 4] },
        inputs: { x: [3], y: [2] },
        loss: (at) => row.loss(at as unknown as Leaves),
      });
      const problem = engine.problem(net, data);
      const theta = next(net.P);
      const measure = measureOf(problem);
      expect(hessianTrace(measure.loss, measure.leaves) !== null).toBe(row.byLengths);
      const H = await problem.hessian(theta);
      // the terms of a trace cancel; they are no larger than all entries of H together
      const unit = norm(H) * Math.sqrt(net.P);
      for (const block of [undefined, "W1", "b1", "W2", "V"]) {
        const options = block === undefined ? {} : { block };
        const found = await problem.hessianTrace(theta, options);
        const basis = await problem.hessianTrace(theta, { ...options, method: "basis" });
        expect(Math.abs(found.value - basis.value)).toBeLessThanOrEqual((N + 200) * 2 ** -53 * unit);
        expect({ ...found, value: 0 }).toEqual({ ...basis, value: 0 });
      }
      problem.dispose();
    },
  );

  test("and as central differences of the gradient say", async () => {
    const { net } = layered([3, 5, 4, 2], { biased: true, between: activated });
    const problem = engine.problem(net, data);
    const theta = next(net.P);
    const h = 2 ** -12;
    const moved = (i: number, by: number) =>
      problem.gradient(theta.map((t, j) => (j === i ? t + by : t)))[i]!;
    const differences = times(net.P, (i) => (moved(i, h) - moved(i, -h)) / (2 * h));
    const trace = differences.reduce((s, x) => s + x, 0);
    const found = (await problem.hessianTrace(theta)).value;
    // h^2 / 6 times third derivatives of a gradient, some 100 of size 10 at most
    expect(Math.abs(found - trace)).toBeLessThanOrEqual(((h * h) / 6) * 1000);
    expect(Math.abs(trace)).toBeGreaterThan(0.1);
    problem.dispose();
  });

  test("in f32 too", async () => {
    const made = layered([3, 5, 2], { biased: true, between: activated });
    const problem = engine32.problem(made.net, data);
    const theta = next(made.net.P);
    const found = (await problem.hessianTrace(theta)).value;
    const basis = (await problem.hessianTrace(theta, { method: "basis" })).value;
    const H = await problem.hessian(theta);
    expect(Math.abs(found - basis)).toBeLessThanOrEqual(
      (N + 200) * 2 ** -24 * norm(H) * Math.sqrt(made.net.P),
    );
    problem.dispose();
  });
});

test("gradients whose squares overflow are refused by every measure of noise", async () => {
  const net = model({
    params: { W: [2, 3], U: [1, 2] },
    inputs: { x: [3], y: [1] },
    loss: ({ W, U, x, y }) => ops.sqnorm(ops.sub(ops.matmul(U!, ops.matmul(W!, x!)), y!)),
  });
  const problem = engine.problem(net, { x: times(30, Math.sin), y: times(10, Math.cos) });
  // a gradient is of the order of theta^3, 1e240, and its square is not a number of f64
  const theta = new Array(8).fill(1e80);
  const calls: (() => unknown)[] = [
    () => problem.noiseTrace(theta),
    () => problem.noiseVector(theta, theta),
    () => problem.noiseCovariance(theta),
    () => problem.noiseCovariance(theta, { method: "direct" }),
  ];
  for (const call of calls) {
    const found = await Promise.resolve()
      .then(call)
      .catch((error: unknown) => error);
    expect(found).toBeInstanceOf(NoetherflowError);
    expect((found as NoetherflowError).message).toMatch(/all samples and their squares must be finite, got/);
  }
  problem.dispose();
});

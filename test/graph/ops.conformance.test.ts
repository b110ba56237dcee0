/**
 * Every op of the table, as the table lists them: forward values against plain loops, the gradient against central
 * differences, tangents against the gradient, second derivatives against differences of the gradient and against their
 * own symmetry, and one step of a run in every lane layout, bit for bit.
 *
 * A new op needs its shapes in `cases` below and its loop in test/reference/ops.ts; the first test says so.
 */
import { describe, expect, test } from "vitest";
import { gradient, tangent } from "../../src/graph/derive.ts";
import { Model } from "../../src/graph/model.ts";
import type { Node } from "../../src/graph/node.ts";
import { apply, publicOps, table } from "../../src/graph/ops.ts";
import { createEngine, parseModel } from "../../src/index.ts";
import * as reference from "../reference/ops.ts";

type Shape = readonly number[];
type Expression = reference.Expression;

/** One way to call an op: the shapes of its arguments, what follows them, and which are written transposed. */
interface Case {
  readonly shapes: readonly Shape[];
  readonly rest?: readonly unknown[];
  readonly transposed?: readonly boolean[];
}

// --- cases -------------------------------------------------------------------------------------------------

/** What the cases are made of: all of it where arguments are parameters, the core of it for every mixture of roles. */
interface Grid {
  /** Sizes that leave tails of 1, 2, 3, 5 and 8 in registers of 2 and 4, as vectors and as either side of matrices. */
  readonly shapes: readonly Shape[];
  readonly pairs: readonly (readonly [Shape, Shape])[];
  /** Operands of matmul, before any is transposed. */
  readonly products: readonly (readonly [Shape, Shape])[];
  /** Counts of axes, from the front and from the end. */
  readonly axesFrom: readonly ("front" | "end")[];
  readonly keepdims: readonly boolean[];
  /** Numbers of scale. */
  readonly factors: readonly number[];
}

const CORE: Grid = {
  shapes: [[], [3], [8], [1, 1], [3, 5], [5, 1], [1, 8]],
  pairs: [
    [[], []],
    [[3], [3]],
    [
      [3, 5],
      [3, 5],
    ],
    [[], [5]],
    [[5], []],
    [[3], [1]],
    [[2, 3], [3]],
    [
      [2, 1],
      [1, 5],
    ],
    [
      [8, 2],
      [8, 1],
    ],
    [[1], [2, 3]],
  ],
  products: [
    [
      [3, 8],
      [8, 5],
    ],
    [[5, 8], [8]],
    [[8], [8, 5]],
    [[3], [3]],
    [[8], [8]],
  ],
  axesFrom: ["front"],
  keepdims: [false],
  factors: [-0.75],
};

const FULL: Grid = {
  shapes: [...CORE.shapes, [1], [2], [5], [2, 3], [8, 2]],
  pairs: [
    ...CORE.pairs,
    [[8], [8]],
    [[1], [3]],
    [[1], []],
    [[3], [2, 3]],
    [
      [1, 5],
      [2, 1],
    ],
    [[5], [2, 1]],
    [[2, 3], []],
    [
      [1, 1],
      [2, 3],
    ],
    [[1, 1], []],
  ],
  products: [
    ...CORE.products,
    [
      [2, 3],
      [3, 2],
    ],
    [[1, 3], [3]],
    [[3], [3, 1]],
    [
      [1, 5],
      [5, 1],
    ],
    [
      [5, 1],
      [1, 3],
    ],
    [[1, 2], [2]],
    [[3, 1], [1]],
    [[1], [1, 3]],
    [[2], [2, 5]],
    [[1], [1]],
  ],
  axesFrom: ["front", "end"],
  keepdims: [false, true],
  factors: [2.5, -0.75, 1, 0],
};

/** [from, to] of the ops that are given a shape. */
const RESHAPED: readonly (readonly [Shape, Shape])[] = [
  [[], [1]],
  [[1], []],
  [[], [1, 1]],
  [[3], [3]],
  [[3], [3, 1]],
  [[8], [2, 4]],
  [[3, 5], [15]],
  [
    [2, 3],
    [3, 2],
  ],
  [
    [5, 1],
    [1, 5],
  ],
];
const STRETCHED: readonly (readonly [Shape, Shape])[] = [
  [[], []],
  [[], [3]],
  [[], [2, 3]],
  [[1], [5]],
  [[1], [2, 3]],
  [[3], [3]],
  [[3], [2, 3]],
  [[8], [3, 8]],
  [
    [2, 1],
    [2, 5],
  ],
  [
    [1, 5],
    [3, 5],
  ],
  [
    [1, 1],
    [2, 3],
  ],
  [
    [5, 1],
    [5, 1],
  ],
];

/** The cases of an op, by what its row says it takes. */
function cases(op: string, { shapes, pairs, products, axesFrom, keepdims, factors }: Grid): Case[] {
  const row = table.get(op)!;
  const options = row.options ?? [];
  if (op === "matmul") {
    return products.flatMap((pair): Case[] => {
      const [left, right] = pair.map((s) => (s.length === 2 ? [false, true] : [false]));
      return left!.flatMap((ta) =>
        right!.map((tb) => ({
          shapes: pair.map((s, i) => ([ta, tb][i] ? [s[1]!, s[0]!] : s)),
          transposed: [ta, tb],
        })),
      );
    });
  }
  if (op === "outer") {
    return [
      [[1], [1]],
      [[2], [3]],
      [[3], [1]],
      [[5], [8]],
    ].map((both) => ({ shapes: both }));
  }
  if (op === "transpose") return shapes.filter((s) => s.length === 2).map((s) => ({ shapes: [s] }));
  if (op === "reshape") return RESHAPED.map(([from, to]) => ({ shapes: [from], rest: [{ shape: to }] }));
  if (op === "broadcast_to")
    return STRETCHED.map(([from, to]) => ({ shapes: [from], rest: [{ shape: to }] }));
  if (row.arity === 2) return pairs.map((both) => ({ shapes: both }));
  if (options.includes("c")) return shapes.flatMap((s) => factors.map((c) => ({ shapes: [s], rest: [c] })));
  if (!options.includes("axis")) return shapes.map((s) => ({ shapes: [s] }));
  // softmax and logsumexp run along an axis, the last when absent; the others take null and mean all entries
  const needsAxis = row.kernel === "axis";
  return shapes.flatMap((s): Case[] => {
    const counted = s.flatMap((_, i) => axesFrom.map((from) => (from === "front" ? i : i - s.length)));
    const axes = needsAxis ? counted : [null, ...counted];
    const choices = axes.flatMap((axis): object[] =>
      options.includes("keepdims") ? keepdims.map((k) => (k ? { axis, keepdims: k } : { axis })) : [{ axis }],
    );
    const absent = needsAxis && s.length === 0 ? [] : [{ shapes: [s] }];
    return [...absent, ...choices.map((o) => ({ shapes: [s], rest: [o] }))];
  });
}

const call = (op: string, c: Case, args: readonly Expression[]): Expression => [
  op,
  ...args.map((a, i) => (c.transposed?.[i] ? ["transpose", a] : a)),
  ...(c.rest ?? []),
];

const titleOf = (op: string, c: Case, roles = ""): string =>
  JSON.stringify([call(op, c, ["a", "b"].slice(0, c.shapes.length)), c.shapes, roles]);

// --- numbers -----------------------------------------------------------------------------------------------

/** Uniform numbers in [0, 1) that depend on the text alone (xmur3 into mulberry32). */
function randomOf(text: string): () => number {
  let state = 1779033703 ^ text.length;
  for (let i = 0; i < text.length; i++) {
    state = Math.imul(state ^ text.charCodeAt(i), 3432918353);
    state = (state << 13) | (state >>> 19);
  }
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

const size = (shape: Shape): number => shape.reduce((n, d) => n * d, 1);
const times = <T>(n: number, f: (i: number) => T): T[] => Array.from({ length: n }, (_, i) => f(i));
const dot = (a: ArrayLike<number>, b: ArrayLike<number>): number =>
  Array.from(a).reduce((sum, x, i) => sum + x * b[i]!, 0);
const sizes = (a: ArrayLike<number>): number => Array.from(a).reduce((sum, x) => sum + Math.abs(x), 0);

/** How far from 0 arguments stay, so that no difference quotient steps over a kink. */
const KINK = 0.1;

/** A number of the domain, at least KINK away from 0. */
function within([low, high]: readonly [number, number], next: () => number): number {
  for (;;) {
    const x = low + (high - low) * next();
    if (Math.abs(x) >= KINK) return x;
  }
}

/** h of the difference quotients: a power of two, well below KINK. */
const H = 2 ** -8;
const U = 2 ** -53;
/**
 * Roundings behind one number of these tests, each relative to the sizes of the terms: at most 40 terms in a product or
 * sum, 5 samples, and a handful of elementary functions good to 3 units in the last place.
 */
const ROUNDINGS = 64;

/**
 * Whether a derivative agrees with central differences D(h), D(h/2): the error is at the level of rounding, or falls by
 * about 4 from h to h/2 (faster where the third derivative vanishes). A constant mistake falls by 1.
 *
 * @param size   what the roundings of the differenced function are relative to
 * @param travel how far its argument's own rounding moves it
 */
function quotientFault(
  derivative: number,
  at: (t: number) => number,
  size: number,
  travel: number,
): string | null {
  const quotient = (h: number) => (at(h) - at(-h)) / (2 * h);
  const [e1, e2] = [quotient(H) - derivative, quotient(H / 2) - derivative];
  const rounding = (U * (ROUNDINGS * (size + 1) + 4 * travel)) / (H / 2);
  if (Math.abs(e2) <= rounding || Math.abs(e1) >= 3.5 * Math.abs(e2)) return null;
  return `derivative ${derivative}; quotients are off by ${e1} at h and ${e2} at h/2, rounding allows ${rounding}`;
}

// --- problems ----------------------------------------------------------------------------------------------

const engine = await createEngine();

interface Setup {
  readonly title: string;
  readonly json: {
    params: Record<string, Shape>;
    inputs: Record<string, Shape>;
    constants: object;
    loss: Expression;
  };
  readonly params: Record<string, number[]>;
  readonly data: Record<string, number[]>;
  readonly constants: Record<string, number[]>;
  readonly N: number;
}

/** The same model with another expression as its loss. */
function withLoss(net: Model, loss: Node): Model {
  const names = [...net.blocks, ...net.inputs].map((x) => x.name);
  return new Model(net.graph, net.blocks, net.inputs, new Map(names.map((n) => [n, net.leaf(n)])), loss);
}

function open(setup: Setup) {
  const net = parseModel(setup.json);
  const data = setup.data;
  const problem = engine.problem(net, data);
  const theta = net.blocks.flatMap((b) => setup.params[b.name]!);
  /** The value of an expression of this model's graph at a theta, a mean over samples where it varies with them. */
  const valueAt = (node: Node, at = theta): number => {
    const other = engine.problem(withLoss(net, node), data);
    const value = other.loss(at);
    other.dispose();
    return value;
  };
  const constant = (v: readonly number[], name: string): Map<Node, Node> =>
    new Map(
      net.blocks.map((b) => [
        net.leaf(b.name),
        net.graph.constant(
          Float64Array.from(v.slice(b.offset, b.offset + b.size)),
          b.shape,
          `${name}.${b.name}`,
        ),
      ]),
    );
  const environment = (n: number, at: ArrayLike<number> = theta): Record<string, reference.Value> => {
    const values: Record<string, reference.Value> = {};
    for (const b of net.blocks)
      values[b.name] = reference.shaped(Array.from(at).slice(b.offset, b.offset + b.size), b.shape);
    for (const i of net.inputs)
      values[i.name] = reference.shaped(data[i.name]!.slice(n * i.size, (n + 1) * i.size), i.shape);
    for (const [name, entries] of Object.entries(setup.constants))
      values[name] = reference.shaped(
        entries,
        (setup.json.constants as Record<string, { shape: Shape }>)[name]!.shape,
      );
    return values;
  };
  /** Mean over the samples of the sizes of all terms of the loss. */
  const scale =
    times(setup.N, (n) => reference.magnitude(setup.json.loss, environment(n))).reduce((a, b) => a + b) /
    setup.N;
  return { net, problem, theta, valueAt, constant, environment, scale };
}
type Opened = ReturnType<typeof open>;

const moved = (theta: readonly number[], v: readonly number[], t: number): number[] =>
  theta.map((x, i) => x + t * v[i]!);

/** Faults of the forward values against plain loops. */
function forwardFaults(setup: Setup, { problem, theta, environment, scale }: Opened): string[] {
  return Array.from(problem.losses(theta)).flatMap((loss, n) => {
    const values = environment(n);
    const expected = reference.evaluate(setup.json.loss, values) as number;
    const bound = ROUNDINGS * U * (reference.magnitude(setup.json.loss, values) + 1);
    return Math.abs(loss - expected) <= bound
      ? []
      : [`${setup.title}: loss of sample ${n} is ${loss}, plain loops give ${expected} (scale ${scale})`];
  });
}

/** Faults of the gradient: along every coordinate, or along two random directions. */
function gradientFaults(setup: Setup, { problem, theta, scale }: Opened, everywhere: boolean): string[] {
  const g = problem.gradient(theta);
  const next = randomOf(`${setup.title} directions`);
  const directions = everywhere
    ? theta.map((_, i) => theta.map((__, j) => (i === j ? 1 : 0)))
    : times(2, () => theta.map(() => 2 * next() - 1));
  return directions.flatMap((v, i) => {
    const along = (t: number) => problem.loss(moved(theta, v, t));
    const fault = quotientFault(dot(g, v), along, scale, sizes(g));
    return fault === null ? [] : [`${setup.title}: ${everywhere ? `entry ${i}` : "gradient"}: ${fault}`];
  });
}

/**
 * Faults of the tangent of the loss, of u.Hv = v.Hu, and of Hv against differences of the gradient.
 *
 * @param curved whether the loss bends; where it is linear in all parameters only the tangent is of interest
 */
function tangentFaults(
  setup: Setup,
  { net, problem, theta, valueAt, constant, scale }: Opened,
  curved = true,
): string[] {
  const faults: string[] = [];
  const next = randomOf(`${setup.title} tangents`);
  const [u, v] = [theta.map(() => 2 * next() - 1), theta.map(() => 2 * next() - 1)];
  const [alongU, alongV] = [constant(u, "u"), constant(v, "v")];
  const g = problem.gradient(theta);

  const t = tangent([net.loss], alongV)[0]!;
  const jvp = t === null ? 0 : valueAt(t);
  // the derivative has at most some ten times as many terms as the loss, and sizes of g and of the loss bound them
  const bound = ROUNDINGS * U * 16 * (scale + sizes(g) + 1);
  if (!(Math.abs(jvp - dot(g, v)) <= bound))
    faults.push(`${setup.title}: tangent ${jvp}, gradient along v ${dot(g, v)}, bound ${bound}`);

  const leaves = net.blocks.map((b) => net.leaf(b.name));
  const nodes = gradient(net.loss, leaves, net.graph.number(1 / setup.N), setup.N);
  const product = (into: Map<Node, Node>, from: Map<Node, Node>): number => {
    let sum: Node | null = null;
    const columns = tangent(
      nodes.filter((n) => n !== null),
      from,
    );
    let i = 0;
    for (const [k, node] of nodes.entries()) {
      if (node === null) continue;
      const column = columns[i++]!;
      if (column === null) continue;
      const term = apply("sum", [apply("mul", [into.get(leaves[k]!)!, column])]);
      sum = sum === null ? term : apply("add", [sum, term]);
    }
    return sum === null ? 0 : valueAt(sum);
  };
  if (!curved) return faults;
  const [uHv, vHu] = [product(alongU, alongV), product(alongV, alongU)];
  const atGradient = (s: number) => dot(problem.gradient(moved(theta, v, s)), u);
  const gScale = scale + sizes(g) + sizes(problem.gradient(moved(theta, v, H)));
  if (!(Math.abs(uHv - vHu) <= ROUNDINGS * U * 64 * (gScale + Math.abs(uHv) + 1)))
    faults.push(`${setup.title}: u.Hv = ${uHv} but v.Hu = ${vHu}`);
  const fault = quotientFault(uHv, atGradient, 16 * gScale, Math.abs(uHv) + gScale);
  if (fault !== null) faults.push(`${setup.title}: u.Hv: ${fault}`);
  return faults;
}

/** Faults of one step: equal bits in every lane layout, and theta' = theta - eta g. */
async function stepFaults(setup: Setup, { problem, theta, scale }: Opened): Promise<string[]> {
  const next = randomOf(`${setup.title} replicas`);
  const replicas = 3;
  // replicas start near each other, so that all stay away from kinks and inside the domain
  const starts = times(replicas, (r) => theta.map((x) => (r === 0 ? x : x * (1 + 0.02 * (next() - 0.5)))));
  const eta = 2 ** -4;
  const step = async (options: object, lowering: object): Promise<Float64Array> => {
    const run = await problem.simulate({
      scheme: "gd",
      theta: starts,
      eta,
      steps: 1,
      replicas,
      lowering,
      ...options,
    });
    return run.theta as Float64Array;
  };
  const faults: string[] = [];
  const batched = { scheme: "sgd", batchSize: 3, batches: [[setup.N - 1, 0, Math.floor(setup.N / 2)]] };
  for (const options of setup.N > 1 ? [{}, batched] : [{}]) {
    // blocks of 2 samples and a rest of 1; 3 replicas beside one lane of padding
    const samples = await step(options, { lanes: "samples", block: 2 });
    for (const lanes of options === batched ? ["replicas"] : ["replicas", "features"]) {
      const others = await step(options, { lanes });
      const at = samples.findIndex((x, i) => !Object.is(x, others[i]));
      if (at >= 0)
        faults.push(
          `${setup.title}: theta[${at}] is ${samples[at]} with samples, ${others[at]} with ${lanes} in the lanes`,
        );
    }
    if (options !== batched) {
      for (let r = 0; r < replicas; r++) {
        const g = problem.gradient(starts[r]!);
        const bound = ROUNDINGS * U * (scale + sizes(g) + sizes(theta));
        for (const [i, x] of starts[r]!.entries()) {
          const [got, expected] = [samples[r * theta.length + i]!, x - eta * g[i]!];
          if (!(Math.abs(got - expected) <= bound))
            faults.push(`${setup.title}: replica ${r} entry ${i} steps to ${got}, x - eta g is ${expected}`);
        }
      }
    }
  }
  return faults;
}

// --- setups ------------------------------------------------------------------------------------------------

const domainOf = (op: string): readonly [number, number] => table.get(op)!.domain ?? [-2, 2];

/** The shape of an op's result, from the plain loops. */
function resultShape(op: string, c: Case): number[] {
  const ones = Object.fromEntries(c.shapes.map((s, i) => ["ab"[i]!, reference.build(s, () => 1)]));
  return reference.shapeOf(reference.evaluate(call(op, c, Object.keys(ones)), ones));
}

/** All arguments parameters; the loss is a weighted sum of the result, or of its square (so that linear ops bend). */
function ofParameters(op: string, c: Case, squared: boolean): Setup {
  const title = titleOf(op, c, squared ? "squared" : "");
  const next = randomOf(title);
  const names = ["a", "b"].slice(0, c.shapes.length);
  const shape = resultShape(op, c);
  const value = call(op, c, names);
  const w = times(size(shape), () => 2 * next() - 1);
  return {
    title,
    json: {
      params: Object.fromEntries(names.map((n, i) => [n, c.shapes[i]!])),
      inputs: {},
      constants: { w: { shape, values: w } },
      loss: ["sum", ["mul", "w", squared ? ["square", value] : value]],
    },
    params: Object.fromEntries(
      names.map((n, i) => [n, times(size(c.shapes[i]!), () => within(domainOf(op), next))]),
    ),
    data: {},
    constants: { w },
    N: 1,
  };
}

/** P: a parameter, X: an input, C: a constant, M: a parameter plus an input. */
type Role = "P" | "X" | "C" | "M";
const ROLES: readonly Role[] = ["P", "X", "C", "M"];
const N = 5;

/**
 * Arguments of all kinds. The result's square is weighted by constants, or by parameters where no argument has any, so
 * that there always is a gradient.
 */
function ofRoles(op: string, c: Case, roles: readonly Role[]): Setup {
  const title = titleOf(op, c, roles.join(""));
  const next = randomOf(title);
  const shape = resultShape(op, c);
  const [low, high] = domainOf(op);
  const params: Record<string, number[]> = {};
  const shapes: Record<string, Shape> = {};
  const data: Record<string, number[]> = {};
  const inputs: Record<string, Shape> = {};
  const constants: Record<string, number[]> = {};
  const constantShapes: Record<string, object> = {};
  const weights = times(size(shape), () => 2 * next() - 1);
  if (roles.some((role) => role === "P" || role === "M")) {
    constants.weights = weights;
    constantShapes.weights = { shape, values: weights };
  } else {
    params.weights = weights;
    shapes.weights = shape;
  }
  const args = roles.map((role, i): Expression => {
    const name = "ab"[i]!;
    const own = c.shapes[i]!;
    const values = (n: number, f: () => number) => times(n * size(own), f);
    if (role === "C") {
      constants[name] = values(1, () => within([low, high], next));
      constantShapes[name] = { shape: own, values: constants[name] };
      return name;
    }
    if (role === "P") {
      params[name] = values(1, () => within([low, high], next));
      shapes[name] = own;
      return name;
    }
    inputs[`x${name}`] = own;
    if (role === "X") {
      data[`x${name}`] = values(N, () => within([low, high], next));
      return `x${name}`;
    }
    // half of the argument each, both of one sign, so that the sum stays in the domain and away from 0
    const signs = times(size(own), () => (low < 0 && next() < 0.5 ? -1 : 1));
    const half = (j: number) =>
      signs[j % size(own)]! * within([Math.max(low, KINK) / 2 + KINK / 2, high / 2], next);
    params[name] = times(size(own), half);
    shapes[name] = own;
    data[`x${name}`] = times(N * size(own), half);
    return ["add", name, `x${name}`];
  });
  const withSamples = Object.keys(inputs).length > 0;
  return {
    title,
    json: {
      params: shapes,
      inputs,
      constants: constantShapes,
      loss: ["sum", ["mul", "weights", ["square", call(op, c, args)]]],
    },
    params,
    data,
    constants,
    N: withSamples ? N : 1,
  };
}

const roleChoices = (arity: number): Role[][] =>
  arity === 1 ? ROLES.map((r) => [r]) : ROLES.flatMap((a) => ROLES.map((b) => [a, b]));

// --- tests -------------------------------------------------------------------------------------------------

test("every public op has cases here and a loop in test/reference/ops.ts", () => {
  expect(publicOps.length).toBeGreaterThan(20);
  expect(publicOps.filter((op) => !(op in reference.ops))).toEqual([]);
  expect(publicOps.filter((op) => cases(op, CORE).length < 4)).toEqual([]);
});

const known = publicOps.filter((op) => op in reference.ops);

describe.each(known)("%s", (op) => {
  const all = cases(op, FULL);

  test(`of parameters: ${all.length} calls agree with plain loops; gradient, tangent and Hv with differences`, () => {
    const faults: string[] = [];
    for (const c of all) {
      for (const squared of [false, true]) {
        const setup = ofParameters(op, c, squared);
        const opened = open(setup);
        faults.push(
          ...forwardFaults(setup, opened),
          ...gradientFaults(setup, opened, true),
          ...tangentFaults(setup, opened),
        );
        opened.problem.dispose();
      }
    }
    expect(faults).toEqual([]);
  });

  const core = cases(op, CORE);
  const choices = roleChoices(table.get(op)!.arity);
  test(`of inputs, constants and parameters: ${core.length * choices.length} mixtures, derivatives and every lane layout`, async () => {
    const faults: string[] = [];
    for (const c of core) {
      for (const roles of choices) {
        const setup = ofRoles(op, c, roles);
        const opened = open(setup);
        faults.push(
          ...forwardFaults(setup, opened),
          ...gradientFaults(setup, opened, false),
          ...tangentFaults(setup, opened, !("weights" in setup.params)),
          ...(await stepFaults(setup, opened)),
        );
        opened.problem.dispose();
      }
    }
    expect(faults).toEqual([]);
  });
});

// --- models whose parameters are used twice, not at all, or not on every sample ---------------------------------

/** A setup of our own: named parameters, N samples, numbers from the title. */
function ofModel(
  title: string,
  params: Record<string, Shape>,
  inputs: Record<string, Shape>,
  loss: Expression,
): Setup {
  const next = randomOf(title);
  const draw = (n: number) => times(n, () => within([-1.5, 1.5], next));
  const named = (shapes: Record<string, Shape>, n: number) =>
    Object.fromEntries(Object.entries(shapes).map(([name, shape]) => [name, draw(n * size(shape))]));
  return {
    title,
    json: { params, inputs, constants: {}, loss },
    params: named(params, 1),
    data: named(inputs, N),
    constants: {},
    N: Object.keys(inputs).length > 0 ? N : 1,
  };
}

const error: Expression = ["sub", ["matmul", ["transpose", "W"], ["tanh", ["matmul", "W", "x"]]], "x"];
const normed: Expression = ["div", "W", ["sqrt", ["sum", ["square", "W"], { axis: 1, keepdims: true }]]];

const compositions: Setup[] = [
  ofModel("a matrix and its transpose (tied)", { W: [2, 3] }, { x: [3] }, ["sqnorm", error]),
  ofModel("a parameter in both factors of a product", { W: [3, 3] }, { x: [3] }, [
    "sqnorm",
    ["matmul", ["matmul", "W", "W"], "x"],
  ]),
  ofModel("a parameter added to itself", { a: [5] }, { x: [5] }, [
    "sum",
    ["mul", "x", ["exp", ["add", "a", "a"]]],
  ]),
  ofModel("values of parameters alone inside", { W: [3, 5], b: [3] }, { x: [5], y: [3] }, [
    "sqnorm",
    ["sub", ["add", ["matmul", normed, "x"], ["softmax", "b"]], "y"],
  ]),
  ofModel("a value of parameters on samples and beside them", { W: [2, 5] }, { x: [5] }, [
    "add",
    ["sqnorm", ["matmul", ["tanh", "W"], "x"]],
    ["sqnorm", ["tanh", "W"]],
  ]),
  ofModel("a sum over the batch of a scalar", { a: [] }, { x: [] }, ["square", ["add", "a", "x"]]),
  ofModel("parameters alone, no inputs", { a: [3], b: [3] }, {}, ["sqnorm", ["sub", ["exp", "a"], "b"]]),
  ofModel("parameters alone, samples ignored", { a: [3] }, { x: [2] }, ["sqnorm", ["sub", ["exp", "a"], 1]]),
  ofModel("attention of a sample to itself", { Q: [3, 2], K: [3, 2] }, { X: [5, 3] }, [
    "sqnorm",
    [
      "matmul",
      ["softmax", ["matmul", ["matmul", "X", "Q"], ["transpose", ["matmul", "X", "K"]]], { axis: 1 }],
      "X",
    ],
  ]),
];

test.each(compositions.map((setup) => [setup.title, setup] as const))(
  "%s: values, derivatives and every lane layout",
  async (_, setup) => {
    const opened = open(setup);
    const faults = [
      ...forwardFaults(setup, opened),
      ...gradientFaults(setup, opened, true),
      ...tangentFaults(setup, opened),
      ...(await stepFaults(setup, opened)),
    ];
    opened.problem.dispose();
    expect(faults).toEqual([]);
  },
);

test("a tangent recorded by a run is the tangent evaluated as a loss, bit for bit", async () => {
  const { net, problem, theta, valueAt, constant } = open(
    compositions.find((s) => s.title === "parameters alone, no inputs")!,
  );
  const v = theta.map((_, i) => 1 / (i + 1));
  const t = tangent([net.loss], constant(v, "v"))[0]!;
  for (const lanes of ["samples", "replicas", "features"] as const) {
    const run = await problem.simulate({
      scheme: "gd",
      theta,
      eta: 0.1,
      steps: 0,
      record: { every: 1, values: { t } },
      lowering: { lanes },
    });
    expect([...run.series.values.t!]).toEqual([valueAt(t)]);
  }
  const gv = dot(problem.gradient(theta), v);
  expect(Math.abs(valueAt(t) - gv)).toBeLessThanOrEqual(ROUNDINGS * U * 16 * Math.abs(gv));
});

describe.each(["samples", "replicas", "features"] as const)("with %s in the lanes", (lanes) => {
  const eta = 0.05;
  const gamma = 0.03;
  const theta = { used: [0.3, -0.7], fixed: [1.1, 0.4], idle: [[2, -3, 0.1]] };
  const data = { x: [1, 2, -1, 0.5, 0.25, 3] };
  const problem = engine.problem(
    parseModel({
      params: { used: [2], fixed: { shape: [2], trainable: false }, idle: [1, 3] },
      inputs: { x: [2] },
      loss: ["sqnorm", ["sub", ["mul", "used", "fixed"], "x"]],
    }),
    data,
  );
  const run = async (weightDecay: number, scheme: "gd" | "sgd") =>
    problem.named(
      (
        await problem.simulate({
          scheme,
          theta,
          eta,
          steps: 3,
          weightDecay,
          lowering: { lanes },
          ...(scheme === "sgd" ? { batchSize: 2 } : {}),
        })
      ).theta,
    );

  test("unused parameters have gradient 0 and stand still; weight decay alone shrinks them", async () => {
    const { used, fixed, idle } = problem.named(problem.gradient(theta));
    expect([...fixed!, ...idle!]).toEqual([0, 0, 0, 0, 0]);
    expect([...used!].every((g) => Math.abs(g) > 0.01)).toBe(true);
    for (const scheme of ["gd", "sgd"] as const) {
      expect([...(await run(0, scheme)).idle!]).toEqual(theta.idle[0]);
      const keep = 1 - 2 * eta * gamma;
      expect([...(await run(gamma, scheme)).idle!]).toEqual(
        theta.idle[0]!.map((x) => x * keep * keep * keep),
      );
    }
  });

  test("untrainable blocks never move, not even under weight decay, and the loss sees them", async () => {
    for (const scheme of ["gd", "sgd"] as const) {
      for (const decay of [0, gamma]) {
        const after = await run(decay, scheme);
        expect([...after.fixed!]).toEqual(theta.fixed);
        expect([...after.used!]).not.toEqual(theta.used);
      }
    }
    expect(problem.loss({ ...theta, fixed: [0, 0] })).not.toBe(problem.loss(theta));
  });

  test("a loss of the data alone gives gradient 0, its values per sample, and a run that stands still", async () => {
    const blind = engine.problem(
      parseModel({ params: { a: [2] }, inputs: { x: [2] }, loss: ["sqnorm", "x"] }),
      data,
    );
    expect([...blind.gradient([1, 2])]).toEqual([0, 0]);
    expect([...blind.losses([1, 2])]).toEqual([5, 1.25, 9.0625]);
    const options = { scheme: "gd", theta: [1, 2], eta, steps: 4, lowering: { lanes } } as const;
    expect([...(await blind.simulate(options)).theta]).toEqual([1, 2]);
    const decayed = await blind.simulate({ ...options, steps: 1, weightDecay: gamma });
    expect([...decayed.theta]).toEqual([1 - 2 * eta * gamma, 2 * (1 - 2 * eta * gamma)]);
    blind.dispose();
  });

  test("a loss of parameters alone is the same for every sample, and a batch counts it once", async () => {
    const alone = engine.problem(
      parseModel({ params: { a: [2] }, inputs: { x: [2] }, loss: ["sqnorm", "a"] }),
      data,
    );
    expect([...alone.losses([1, 2])]).toEqual([5, 5, 5]);
    expect(alone.loss([1, 2])).toBe(5);
    // 1/3 is not a binary number: 3 times the rounded 1/3 is 1 all the same
    expect([...alone.gradient([1, 2])]).toEqual([2, 4]);
    const step = await alone.simulate({
      scheme: "sgd",
      theta: [1, 2],
      eta: 0.25,
      steps: 1,
      batchSize: 4,
      lowering: { lanes },
    });
    expect([...step.theta]).toEqual([0.5, 1]);
    alone.dispose();
  });
});

/**
 * Every op of the table, as the table lists them: forward values against plain loops, the gradient against central
 * differences, tangents against the gradient, second derivatives by every way of deriving twice against differences of
 * the gradient and against their own symmetry, and one step of a run in every lane layout, bit for bit. Ops that couple the
 * samples of a batch: the same over batches of several sizes.
 *
 * A new op needs its shapes in `cases` below and its loop in test/reference/ops.ts; the first test says so.
 */
import { describe, expect, test } from "vitest";
import { curvature, gradient, tangent } from "../../src/graph/derive.ts";
import { Model } from "../../src/graph/model.ts";
import { type Node, reachable } from "../../src/graph/node.ts";
import { apply, publicOps, table } from "../../src/graph/ops.ts";
import { createEngine, ops, parseModel, parseSampler, symmetry } from "../../src/index.ts";
import * as dual from "../reference/dual.ts";
import * as reference from "../reference/ops.ts";
import { freshEntry, iidBatch, keyOfSeed } from "../reference/sgd.ts";

type Shape = readonly number[];
type Expression = reference.Expression;

/** One way to call an op: the shapes of its arguments, what follows them, and which are written transposed. */
interface Case {
  readonly shapes: readonly Shape[];
  readonly rest?: readonly unknown[];
  readonly transposed?: readonly boolean[];
  /** An expression of its own in place of the call. */
  readonly write?: (...args: Expression[]) => Expression;
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
  /** Numbers of scale, slopes of leaky_relu. */
  readonly factors: readonly number[];
  /** Values side by side along an axis, one to four. */
  readonly rows: readonly Row[];
  /** Options of slice and of pad, by the shape they are for. */
  readonly slices: readonly (readonly [Shape, object?])[];
  readonly pads: readonly (readonly [Shape, object?])[];
}

type Row = readonly [shapes: readonly Shape[], axis?: number];

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
  rows: [
    [[[3]]],
    [[[1], [3]]],
    [[[8], [5]], -1],
    [
      [
        [2, 3],
        [1, 3],
      ],
    ],
    [
      [
        [3, 1],
        [3, 2],
      ],
      1,
    ],
    [
      [
        [2, 3],
        [2, 5],
      ],
      -1,
    ],
    [[[1], [2], [5]], 0],
    [
      [
        [2, 1],
        [2, 3],
        [2, 1],
      ],
      1,
    ],
    [[[1], [2], [1], [3]]],
    [
      [
        [1, 3],
        [2, 3],
        [1, 3],
        [1, 3],
      ],
      -2,
    ],
    [
      [
        [3, 1],
        [3, 2],
        [3, 1],
        [3, 3],
      ],
      1,
    ],
  ],
  slices: [
    [[3]],
    [[3], { start: 1 }],
    [[8], { axis: -1, start: 3, stop: 6 }],
    [[3, 5], { start: 1, stop: 2 }],
    [[3, 5], { axis: -2, stop: 2 }],
    [[3, 5], { axis: 1, start: 1, stop: 4 }],
    [[1, 8], { axis: -1, start: 5 }],
    [[5, 1], { start: 2 }],
  ],
  pads: [
    [[3]],
    [[3], { before: 1 }],
    [[8], { axis: -1, before: 2, after: 3 }],
    [[3, 5], { before: 1, after: 2 }],
    [[3, 5], { axis: 1, after: 1 }],
    [[3, 5], { axis: -1, before: 3, after: 2 }],
    [[5, 1], { axis: 1, before: 1 }],
  ],
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
  rows: [
    ...CORE.rows,
    [[[1]]],
    [[[1], [1]]],
    [[[8], [8]], 0],
    [[[1, 1]], 1],
    [
      [
        [1, 1],
        [1, 1],
      ],
      -1,
    ],
    [
      [
        [1, 8],
        [1, 8],
      ],
    ],
    [
      [
        [8, 2],
        [8, 8],
      ],
      1,
    ],
    [
      [
        [5, 1],
        [3, 1],
      ],
      -2,
    ],
    [[[5], [5], [5]]],
    [
      [
        [2, 3],
        [3, 3],
        [1, 3],
      ],
    ],
    [
      [
        [1, 1],
        [1, 2],
        [1, 1],
        [1, 5],
      ],
      -1,
    ],
  ],
  slices: [
    ...CORE.slices,
    [[1]],
    [[1], { start: 0, stop: 1 }],
    [[2], { stop: 1 }],
    [[8], { start: 7, stop: 8 }],
    [[3], { axis: 0, start: 0, stop: 3 }],
    [[1, 1]],
    [[1, 1], { axis: 1, start: 0 }],
    [[3, 5], { axis: 0, start: 2 }],
    [[3, 5], { axis: -1, start: 4, stop: 5 }],
    [[3, 5], { axis: 1 }],
    [[8, 2], { start: 3, stop: 7 }],
    [[8, 2], { axis: 1, start: 1 }],
    [[5, 1], { axis: -1 }],
  ],
  pads: [
    ...CORE.pads,
    [[1], { after: 1 }],
    [[3], { before: 0, after: 0 }],
    [[2], { axis: 0, before: 3, after: 3 }],
    [[1, 1], { axis: 1, before: 2 }],
    [[1, 8], { before: 1 }],
    [[3, 5], { axis: -2, after: 3 }],
    [[3, 5], { axis: 1, before: 0, after: 0 }],
    [[8, 2], { axis: 1, before: 1, after: 1 }],
    [[2, 3], { before: 8 }],
  ],
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
function cases(op: string, grid: Grid): Case[] {
  const { shapes, pairs, products, axesFrom, keepdims, factors } = grid;
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
  if (op === "concat")
    return grid.rows.map(([parts, axis]) => ({
      shapes: parts,
      ...(axis === undefined ? {} : { rest: [{ axis }] }),
    }));
  if (op === "slice" || op === "pad")
    return (op === "slice" ? grid.slices : grid.pads).map(([shape, rest]) => ({
      shapes: [shape],
      ...(rest === undefined ? {} : { rest: [rest] }),
    }));
  if (row.arity === 2) return pairs.map((both) => ({ shapes: both }));
  if (options.includes("slope"))
    return shapes.flatMap((s) => factors.map((slope) => ({ shapes: [s], rest: [{ slope }] })));
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

const call = (op: string, c: Case, args: readonly Expression[]): Expression =>
  c.write?.(...args) ?? [
    op,
    ...args.map((a, i) => (c.transposed?.[i] ? ["transpose", a] : a)),
    ...(c.rest ?? []),
  ];

/** Names of the arguments. */
const ARGUMENTS = ["a", "b", "c", "d"];

const titleOf = (op: string, c: Case, roles = ""): string =>
  JSON.stringify([call(op, c, ARGUMENTS.slice(0, c.shapes.length)), c.shapes, roles]);

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
 * @param wobble how far roundings may move the differenced function
 */
function quotientFault(derivative: number, at: (t: number) => number, wobble: number): string | null {
  const quotient = (h: number) => (at(h) - at(-h)) / (2 * h);
  const [e1, e2] = [quotient(H) - derivative, quotient(H / 2) - derivative];
  const rounding = wobble / (H / 2);
  if (Math.abs(e2) <= rounding || Math.abs(e1) >= 3.5 * Math.abs(e2)) return null;
  return `derivative ${derivative}; quotients are off by ${e1} at h and ${e2} at h/2, rounding allows ${rounding}`;
}

/**
 * How far roundings may move a function: its own, relative to `size`, and that of its argument, which moves it by
 * `travel` times a rounding.
 */
const wobbleOf = (size: number, travel: number): number => U * (ROUNDINGS * (size + 1) + 4 * travel);

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
    const fault = quotientFault(dot(g, v), along, wobbleOf(scale, sizes(g)));
    return fault === null ? [] : [`${setup.title}: ${everywhere ? `entry ${i}` : "gradient"}: ${fault}`];
  });
}

/**
 * Faults of the tangent of the loss, of u.Hv by every way of deriving twice (v.Hu among them), and of Hv against
 * differences of the gradient. All derivatives are ops of the table again.
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

  if (!curved) return faults;
  const leaves = net.blocks.map((b) => net.leaf(b.name));
  const pulled = (node: Node) => gradient(node, leaves, net.graph.number(1 / setup.N), setup.N);
  /** Sum over the blocks of <into, block>. */
  const inner = (into: Map<Node, Node>, blocks: readonly (Node | null)[]): Node | null => {
    const terms = blocks.flatMap((b, k) =>
      b === null ? [] : [apply("sum", [apply("mul", [into.get(leaves[k]!)!, b])])],
    );
    return terms.length === 0 ? null : terms.reduce((sum, term) => apply("add", [sum, term]));
  };
  const moving = (node: Node | null, by: Map<Node, Node>) => node && tangent([node], by)[0]!;
  const slopes = pulled(net.loss);
  const seconds: Record<string, Node | null> = {
    "forward over reverse": moving(inner(alongU, slopes), alongV),
    "forward over reverse, u and v exchanged": moving(inner(alongV, slopes), alongU),
  };
  if (setup.N === 1) {
    const slope = inner(alongV, slopes);
    seconds["reverse over reverse"] = slope && inner(alongU, pulled(slope));
    seconds["reverse over forward"] = t && inner(alongU, pulled(t));
    seconds["forward over forward"] = moving(t, alongU);
  }
  const quadratic = moving(inner(alongV, slopes), alongV);
  const byBends = curvature(net.loss, net.graph.number(1 / setup.N), alongV, setup.N);
  const outside = reachable([...Object.values(seconds), byBends].filter((n) => n !== null)).filter(
    (n) => n.args.length > 0 && !table.has(n.op),
  );
  if (outside.length > 0) faults.push(`${setup.title}: derivatives are of ${outside.map((n) => n.op)}`);
  const values = Object.entries(seconds).map(([way, node]) => [way, node && valueAt(node)] as const);
  const uHv = values[0]![1] ?? 0;
  const atGradient = (s: number) => dot(problem.gradient(moved(theta, v, s)), u);
  const gScale = scale + sizes(g) + sizes(problem.gradient(moved(theta, v, H)));
  const secondBound = (x: number) => ROUNDINGS * U * 64 * (gScale + Math.abs(x) + 1);
  for (const [way, value] of values) {
    if (!(Math.abs(uHv - (value ?? 0)) <= secondBound(uHv)))
      faults.push(`${setup.title}: u.Hv = ${uHv}, but ${value} by ${way}`);
  }
  const [vHv, bends] = [quadratic && valueAt(quadratic), byBends && valueAt(byBends)];
  if (!(Math.abs((vHv ?? 0) - (bends ?? 0)) <= secondBound(vHv ?? 0)))
    faults.push(`${setup.title}: v.Hv = ${vHv}, but ${bends} from the bends of all values on the way`);
  const fault = quotientFault(uHv, atGradient, wobbleOf(16 * gScale, Math.abs(uHv) + gScale));
  if (fault !== null) faults.push(`${setup.title}: u.Hv: ${fault}`);
  return faults;
}

/** Faults of v.Gv for the Gauss-Newton matrix of a value f under the loss sum(w f^2): 2 sum w (J v)^2. */
function gaussNewtonFaults(
  setup: Setup,
  { net, problem, theta, valueAt, constant, scale }: Opened,
): string[] {
  const next = randomOf(`${setup.title} Gauss-Newton`);
  const v = theta.map(() => 2 * next() - 1);
  const [w, squares] = net.loss.args[0]!.args as [Node, Node];
  const f = squares.args[0]!;
  const got = dot(problem.gaussNewtonVector(theta, v, { of: () => f }), v);
  const moved = tangent([f], constant(v, "v"))[0]!;
  const expected =
    moved === null
      ? 0
      : valueAt(apply("sum", [apply("mul", [w, apply("scale", [apply("square", [moved])], { c: 2 })])]));
  const bound = ROUNDINGS * U * 64 * (scale + sizes(problem.gradient(theta)) + Math.abs(expected) + 1);
  return Math.abs(got - expected) <= bound
    ? []
    : [`${setup.title}: Gauss-Newton: v.Gv = ${got}, 2 w.(Jv)^2 = ${expected}`];
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

const domainOf = (op: string): readonly [number, number] => table.get(op)?.domain ?? [-2, 2];

/** The shape of an op's result, from the plain loops. */
function resultShape(op: string, c: Case): number[] {
  const ones = Object.fromEntries(c.shapes.map((s, i) => [ARGUMENTS[i]!, reference.build(s, () => 1)]));
  return reference.shapeOf(reference.evaluate(call(op, c, Object.keys(ones)), ones));
}

/** All arguments parameters; the loss is a weighted sum of the result, or of its square (so that linear ops bend). */
function ofParameters(op: string, c: Case, squared: boolean): Setup {
  const title = titleOf(op, c, squared ? "squared" : "");
  const next = randomOf(title);
  const names = ARGUMENTS.slice(0, c.shapes.length);
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
    const name = ARGUMENTS[i]!;
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

/** All mixtures for up to three arguments; for four, every role once, in every order. */
function roleChoices(count: number): Role[][] {
  if (count === 0) return [[]];
  const all = roleChoices(Math.min(count, 4) - 1).flatMap((roles) => ROLES.map((r) => [...roles, r]));
  return count < 4 ? all : all.filter((roles) => new Set(roles).size === 4);
}

// --- tests -------------------------------------------------------------------------------------------------

const known = publicOps.filter((op) => op in reference.ops);

test("every public op has cases here and a loop in test/reference/ops.ts", () => {
  expect(publicOps.length).toBeGreaterThan(20);
  expect(publicOps.filter((op) => !(op in reference.ops || op in reference.batchOps))).toEqual([]);
  expect(known.filter((op) => cases(op, CORE).length < 4)).toEqual([]);
  const uses = (op: string) =>
    coupled.filter(({ json }) => JSON.stringify(json.loss).includes(`"${op}"`)).length;
  expect(publicOps.filter((op) => op in reference.batchOps && uses(op) < 4)).toEqual([]);
});

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
          ...(squared ? gaussNewtonFaults(setup, opened) : []),
        );
        opened.problem.dispose();
      }
    }
    expect(faults).toEqual([]);
  });

  const mixtures = cases(op, CORE).flatMap((c) =>
    roleChoices(c.shapes.length).map((roles) => [c, roles] as const),
  );
  test(`of inputs, constants and parameters: ${mixtures.length} mixtures, derivatives and every lane layout`, async () => {
    const faults: string[] = [];
    for (const [c, roles] of mixtures) faults.push(...(await mixtureFaults(op, c, roles)));
    expect(faults).toEqual([]);
  });
});

/** All faults of a call whose arguments have some roles. */
async function mixtureFaults(op: string, c: Case, roles: readonly Role[]): Promise<string[]> {
  const setup = ofRoles(op, c, roles);
  const opened = open(setup);
  const faults = [
    ...forwardFaults(setup, opened),
    ...gradientFaults(setup, opened, false),
    ...tangentFaults(setup, opened, !("weights" in setup.params)),
    ...(await stepFaults(setup, opened)),
  ];
  opened.problem.dispose();
  return faults;
}

// --- parts of parts ----------------------------------------------------------------------------------------------

/** Values that are read where they lie in another one, by all that may read them. */
const views: Record<string, Case> = {
  "rows of a transpose": {
    shapes: [[5, 3]],
    write: (a) => ["slice", ["transpose", a!], { start: 1 }],
  },
  "columns of a transpose": {
    shapes: [[5, 3]],
    write: (a) => ["slice", ["transpose", a!], { axis: 1, start: 1, stop: 4 }],
  },
  "a product with transposed rows": {
    shapes: [[5, 3], [2]],
    write: (a, b) => ["matmul", ["transpose", ["slice", a!, { start: 1, stop: 3 }]], b!],
  },
  "a product of rows and columns": {
    shapes: [
      [5, 3],
      [3, 5],
    ],
    write: (a, b) => [
      "matmul",
      ["slice", a!, { start: 2, stop: 4 }],
      ["slice", b!, { axis: 1, start: 1, stop: 4 }],
    ],
  },
  "a product of columns and a part of a vector": {
    shapes: [[3, 8], [8]],
    write: (a, b) => [
      "matmul",
      ["slice", a!, { axis: 1, start: 2, stop: 7 }],
      ["slice", b!, { start: 3, stop: 8 }],
    ],
  },
  "a part of a vector times rows": {
    shapes: [[8], [5, 3]],
    write: (a, b) => ["matmul", ["slice", a!, { start: 5 }], ["slice", b!, { start: 1, stop: 4 }]],
  },
  // the gradient of the first factor is a sum of outer products with a part of a sample's record
  "a layer on the first entries": {
    shapes: [[2, 3], [8]],
    write: (a, b) => ["matmul", a!, ["slice", b!, { stop: 3 }]],
  },
  "a layer on the last entries": {
    shapes: [[2, 3], [8]],
    write: (a, b) => ["tanh", ["matmul", a!, ["slice", b!, { start: 5 }]]],
  },
  "a layer on the first rows": {
    shapes: [
      [3, 2],
      [5, 3],
    ],
    write: (a, b) => ["matmul", ["slice", b!, { stop: 2 }], a!],
  },
  "a layer on the last rows": {
    shapes: [
      [3, 2],
      [5, 3],
    ],
    write: (a, b) => ["matmul", ["transpose", a!], ["transpose", ["slice", b!, { start: 2 }]]],
  },
  "layers on both halves": {
    shapes: [[2, 4], [8]],
    write: (a, b) => [
      "add",
      ["matmul", a!, ["slice", b!, { stop: 4 }]],
      ["matmul", a!, ["slice", b!, { start: 4 }]],
    ],
  },
  "outer of parts": {
    shapes: [[5], [8]],
    write: (a, b) => ["outer", ["slice", a!, { start: 1, stop: 4 }], ["slice", b!, { start: 6 }]],
  },
  "a part of a matrix made of a vector": {
    shapes: [[12]],
    write: (a) => ["slice", ["reshape", a!, { shape: [3, 4] }], { axis: 1, start: 1, stop: 3 }],
  },
  "a matrix made of a part of a vector": {
    shapes: [[12]],
    write: (a) => ["transpose", ["reshape", ["slice", a!, { start: 3, stop: 9 }], { shape: [2, 3] }]],
  },
  "a part of a part": {
    shapes: [[8]],
    write: (a) => ["slice", ["slice", a!, { start: 1, stop: 7 }], { start: 2, stop: 5 }],
  },
  "columns of rows": {
    shapes: [[5, 3]],
    write: (a) => ["slice", ["slice", a!, { start: 1, stop: 4 }], { axis: 1, start: 1 }],
  },
  "rows of columns": {
    shapes: [[5, 3]],
    write: (a) => ["slice", ["slice", a!, { axis: 1, stop: 2 }], { start: 3 }],
  },
  "entries turned round": {
    shapes: [[5]],
    write: (a) => ["concat", ["slice", a!, { start: 2 }], ["slice", a!, { stop: 2 }]],
  },
  "parts that overlap": {
    shapes: [[5]],
    write: (a) => ["mul", ["slice", a!, { stop: 3 }], ["slice", a!, { start: 2 }]],
  },
  "a part across a seam": {
    shapes: [[3], [5]],
    write: (a, b) => ["slice", ["concat", a!, b!], { start: 2, stop: 5 }],
  },
  "columns across a seam": {
    shapes: [
      [2, 3],
      [2, 2],
    ],
    write: (a, b) => ["slice", ["concat", a!, b!, { axis: 1 }], { axis: 1, start: 1, stop: 4 }],
  },
  "a value beside itself": { shapes: [[3], [1]], write: (a, b) => ["concat", a!, a!, b!, a!] },
  "transposes side by side": {
    shapes: [
      [3, 2],
      [1, 2],
    ],
    write: (a, b) => ["concat", ["transpose", a!], ["transpose", b!], { axis: 1 }],
  },
  "products side by side": {
    shapes: [[3, 2], [2]],
    write: (a, b) => ["concat", ["matmul", a!, b!], ["mul", b!, b!], ["matmul", b!, ["transpose", a!]]],
  },
  "zeros around a part": {
    shapes: [[3, 5]],
    write: (a) => ["pad", ["slice", a!, { axis: 1, start: 2, stop: 4 }], { axis: 1, before: 1, after: 2 }],
  },
  "zeros cut off again": {
    shapes: [[3]],
    write: (a) => ["slice", ["pad", a!, { before: 2, after: 2 }], { start: 1, stop: 6 }],
  },
  "zeros on both axes": {
    shapes: [[2, 3]],
    write: (a) => ["pad", ["pad", a!, { before: 1 }], { axis: 1, after: 1 }],
  },
  "a part of copies": {
    shapes: [[1, 3]],
    write: (a) => ["slice", ["broadcast_to", a!, { shape: [4, 3] }], { start: 1, stop: 3 }],
  },
  "rows and a column, broadcast": {
    shapes: [
      [5, 3],
      [3, 1],
    ],
    write: (a, b) => ["sub", ["slice", a!, { start: 2 }], b!],
  },
  "a sum of products of parts": {
    shapes: [[5, 3], [8]],
    write: (a, b) => [
      "sum",
      [
        "mul",
        ["slice", a!, { start: 1, stop: 3 }],
        ["reshape", ["slice", b!, { start: 2 }], { shape: [2, 3] }],
      ],
      { axis: 0 },
    ],
  },
  "parts added to products": {
    shapes: [[8], [3]],
    write: (a, b) => [
      "add",
      ["mul", ["slice", a!, { start: 1, stop: 4 }], b!],
      ["slice", a!, { start: 4, stop: 7 }],
    ],
  },
  "softmax of rows, along them and across": {
    shapes: [[5, 3]],
    write: (a) => [
      "add",
      ["softmax", ["slice", a!, { start: 1, stop: 4 }], { axis: 0 }],
      ["softmax", ["slice", a!, { start: 2 }]],
    ],
  },
  "a part of each beside the whole of the other": {
    shapes: [[8], [3]],
    write: (a, b) => [
      "concat",
      ["mul", ["slice", a!, { start: 5 }], b!],
      ["mul", a!, ["slice", b!, { start: 2 }]],
    ],
  },
};

test.each(Object.entries(views))(
  "%s: values, derivatives, every mixture of roles and lane layout",
  async (_, c) => {
    const faults: string[] = [];
    for (const squared of [false, true]) {
      const setup = ofParameters("", c, squared);
      const opened = open(setup);
      faults.push(
        ...forwardFaults(setup, opened),
        ...gradientFaults(setup, opened, true),
        ...tangentFaults(setup, opened),
        ...(squared ? gaussNewtonFaults(setup, opened) : []),
      );
      opened.problem.dispose();
    }
    for (const roles of roleChoices(c.shapes.length)) faults.push(...(await mixtureFaults("", c, roles)));
    expect(faults).toEqual([]);
  },
);

// --- kinks -------------------------------------------------------------------------------------------------------

describe("at a kink, where differences say nothing", () => {
  /** Value and derivative at 0. */
  const laidDown: [call: readonly unknown[], slope: number][] = [
    [["relu"], 0],
    [["leaky_relu", { slope: 0.25 }], 0.25],
    [["leaky_relu", { slope: -0.5 }], -0.5],
    [["leaky_relu", { slope: 0 }], 0],
    [["leaky_relu", { slope: 3 }], 3],
    [["abs"], 0],
    [["step"], 0],
    [["sign"], 0],
  ];
  test.each(laidDown)(
    "%j has the derivative %d at 0, and its one-sided ones beside it",
    ([op, ...rest], slope) => {
      // +0 and -0, a parameter and a value of a sample
      for (const zero of [0, -0]) {
        for (const inside of ["a", ["add", "a", "x"]]) {
          const json = { params: { a: [3] }, inputs: { x: [3] }, loss: ["sum", [op, inside, ...rest]] };
          const tiny = Number.MIN_VALUE;
          const problem = engine.problem(parseModel(json), { x: [0, 0, 0] });
          const g = problem.gradient([zero, tiny, -tiny]);
          const expected = { relu: [1, 0], leaky_relu: [1, slope], abs: [1, -1], step: [0, 0], sign: [0, 0] };
          expect([...g].map((x) => x + 0)).toEqual([slope, ...expected[op as keyof typeof expected]]);
          expect(problem.loss([zero, zero, zero]) + 0).toBe(0);
          expect([...problem.hessianVector([zero, tiny, -tiny], [1, 1, 1])].map((x) => x + 0)).toEqual([
            0, 0, 0,
          ]);
          problem.dispose();
        }
      }
    },
  );
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

// --- batches whose samples are coupled ---------------------------------------------------------------------------

/** Around registers of 2 and 4, and around blocks of 64. */
const SIZES = [1, 2, 3, 5, 64, 65, 130];
const MOST = Math.max(...SIZES);

interface Coupled {
  readonly title: string;
  readonly json: dual.ModelFile;
  readonly theta: number[];
  /** The first N samples. */
  readonly data: (N: number) => Record<string, number[]>;
  /** Largest size for evaluations over dual numbers, which are slow where each sample sees all others. */
  readonly most: number;
}

function ofBatch(
  title: string,
  params: dual.ModelFile["params"],
  inputs: Record<string, Shape>,
  loss: Expression,
  { constants = {}, most = MOST }: { constants?: Record<string, Shape>; most?: number } = {},
): Coupled {
  const next = randomOf(title);
  const draw = (n: number) => times(n, () => within([-1.5, 1.5], next));
  const shapes = Object.values(params).map((p) => ("shape" in p ? p.shape : p));
  const columns = Object.entries(inputs).map(
    ([name, shape]) => [name, shape, draw(MOST * size(shape))] as const,
  );
  const values = Object.entries(constants).map(([name, shape]) => [
    name,
    { shape, values: draw(size(shape)) },
  ]);
  return {
    title,
    json: { params, inputs, constants: Object.fromEntries(values), loss },
    theta: draw(shapes.reduce((n, shape) => n + size(shape), 0)),
    data: (N) => Object.fromEntries(columns.map(([name, shape, xs]) => [name, xs.slice(0, N * size(shape))])),
    most,
  };
}

type E = Expression;
const stack = (x: E): E => ["batch_stack", x];
const z: E = ["mul", "w", "x"];
const Z = stack(z);
const centred = (x: E): E => ["sub", x, ["batch_mean", x]];
const standard = (x: E, over: (square: E) => E): E => [
  "div",
  centred(x),
  ["sqrt", ["add", over(["square", centred(x)]), 0.1]],
];
const unit = (x: E): E => ["div", x, ["norm", x]];
const [query, key] = [unit(["matmul", "A", "x"]), unit(["matmul", "B", "y"])];
const scores = (against: E): E => ["scale", ["matmul", against, query], 2];
const own: E = ["scale", ["matmul", query, key], 2];
const views2 = { params: { A: [2, 3], B: [2, 2] }, inputs: { x: [3], y: [2] } };
const w3 = { w: [3] };
const x3 = { x: [3] };

const coupled: Coupled[] = [
  ofBatch("the variance of a value", w3, x3, ["sqnorm", centred(z)]),
  ofBatch("a mean of scalars", { w: [] }, { x: [] }, ["square", ["sub", z, ["batch_mean", ["exp", z]]]]),
  ofBatch("a mean of matrices", { W: [2, 3] }, { X: [2, 3] }, [
    "sum",
    ["mul", ["tanh", ["batch_mean", ["mul", "W", "X"]]], "X"],
  ]),
  ofBatch("a mean of products", { W: [2, 3] }, { x: [3], y: [2] }, [
    "sqnorm",
    ["sub", ["batch_mean", ["outer", ["matmul", "W", "x"], "x"]], ["outer", "y", "x"]],
  ]),
  ofBatch("a loss that is a mean", w3, x3, ["batch_mean", ["sqnorm", ["tanh", z]]]),
  ofBatch("a loss of a mean alone", w3, x3, ["sqnorm", ["batch_mean", ["tanh", z]]]),
  ofBatch(
    "means of a parameter, a constant and an input",
    w3,
    x3,
    ["sqnorm", ["sub", ["mul", ["batch_mean", "w"], ["batch_mean", "c"]], ["mul", "x", ["batch_mean", "x"]]]],
    { constants: { c: [3] } },
  ),
  ofBatch("a mean of a function of a mean", w3, x3, [
    "sqnorm",
    ["batch_mean", ["mul", "x", ["exp", ["batch_mean", ["mul", "w", z]]]]],
  ]),
  ofBatch(
    "batch normalisation",
    { W: [4, 3], g: [4], b: { shape: [4], trainable: false }, U: [2, 4] },
    { x: [3], y: [2] },
    [
      "sqnorm",
      [
        "sub",
        [
          "matmul",
          "U",
          ["tanh", ["add", ["mul", "g", standard(["matmul", "W", "x"], (s) => ["batch_mean", s])], "b"]],
        ],
        "y",
      ],
    ],
  ),
  ofBatch("batch normalisation over samples and tokens", { V: [3, 2] }, { X: [5, 3], y: [2] }, [
    "sqnorm",
    [
      "sub",
      [
        "sum",
        [
          "tanh",
          standard(["matmul", "X", "V"], (s) => ["batch_mean", ["mean", s, { axis: 0, keepdims: true }]]),
        ],
        { axis: 0 },
      ],
      "y",
    ],
  ]),
  ofBatch(
    "second moments",
    w3,
    x3,
    ["sqnorm", ["sub", ["scale", ["matmul", ["transpose", Z], Z], 0.125], "C"]],
    { constants: { C: [3, 3] } },
  ),
  ofBatch("all inner products", w3, x3, ["mean", ["square", ["matmul", Z, ["transpose", stack("x")]]]], {
    most: 5,
  }),
  ofBatch("rows of a parameter", w3, x3, ["sum", ["mul", ["exp", stack("w")], stack("x")]]),
  ofBatch("a row of a stacked parameter", w3, x3, ["sqnorm", ["sub", ["batch_row", stack("w")], "x"]]),
  ofBatch("the row of a stack, N times the value", w3, x3, ["sqnorm", ["sub", ["batch_row", Z], "x"]]),
  ofBatch("rows of matrices that are others for every sample", w3, { ...x3, y: [3] }, [
    "sum",
    ["mul", ["batch_row", ["mul", ["tanh", Z], "y"]], "x"],
  ]),
  ofBatch("the first sample, seen by all", w3, x3, [
    "sqnorm",
    ["sub", z, ["reshape", ["slice", Z, { start: 0, stop: 1 }], { shape: [3] }]],
  ]),
  ofBatch(
    "rows of products",
    { ...w3, v: [3] },
    x3,
    ["sqnorm", ["batch_row", ["outer", ["softmax", ["matmul", Z, "x"]], ["mul", "v", "x"]]]],
    { most: 5 },
  ),
  ofBatch("in-batch InfoNCE", views2.params, views2.inputs, ["sub", ["logsumexp", scores(stack(key))], own]),
  ofBatch("InfoNCE against both views of all samples", views2.params, views2.inputs, [
    "sub",
    ["logsumexp", scores(["concat", stack(key), stack(query)])],
    own,
  ]),
  ofBatch("InfoNCE with a place for no match", views2.params, views2.inputs, [
    "sub",
    ["logsumexp", ["pad", scores(stack(key)), { after: 1 }]],
    own,
  ]),
  ofBatch(
    "attention of the samples to each other",
    { A: [2, 3], B: [2, 3] },
    { x: [3], y: [3] },
    [
      "sqnorm",
      [
        "sub",
        [
          "scale",
          [
            "batch_row",
            [
              "matmul",
              [
                "softmax",
                ["matmul", stack(["matmul", "A", "x"]), ["transpose", stack(["matmul", "B", "x"])]],
                { axis: 1 },
              ],
              stack("x"),
            ],
          ],
          0.25,
        ],
        "y",
      ],
    ],
    { most: 5 },
  ),
  ofBatch("means of a stack along its axes", w3, x3, [
    "add",
    ["sqnorm", ["mean", ["tanh", Z], { axis: 0 }]],
    ["sum", ["square", ["mean", Z, { axis: 1, keepdims: true }]]],
  ]),
  ofBatch("a mean over all entries of a stack", w3, x3, ["mul", ["mean", ["exp", Z]], ["sum", z]]),
  ofBatch(
    "columns of a stack, zeros beside them and others",
    w3,
    x3,
    [
      "sqnorm",
      [
        "concat",
        ["slice", ["tanh", Z], { axis: 1, start: 1, stop: 3 }],
        ["pad", stack("x"), { axis: -1, before: 1 }],
        ["mul", Z, "c"],
        { axis: 1 },
      ],
    ],
    { constants: { c: [3] } },
  ),
  ofBatch("rows that weigh the same for all", w3, x3, ["sum", ["mul", Z, "c"]], { constants: { c: [3] } }),
  ofBatch("a sum of own rows", w3, x3, ["sum", ["batch_row", ["exp", Z]]]),
  ofBatch("a stack of what a mean made", w3, x3, [
    "sqnorm",
    ["batch_row", ["mul", stack(["tanh", centred(z)]), stack("x")]],
  ]),
  ofBatch("a mean of own rows", w3, x3, [
    "sum",
    ["mul", "x", ["tanh", ["batch_mean", ["mul", "x", ["batch_row", ["tanh", Z]]]]]],
  ]),
];

/** Faults of loss, gradient and Hessian-vector product over a batch of N samples. */
function batchFaults({ title, json, theta, data: dataOf, most }: Coupled, N: number): string[] {
  const faults: string[] = [];
  const data = dataOf(N);
  const problem = engine.problem(parseModel(JSON.parse(JSON.stringify(json))), data);
  const next = randomOf(`${title} ${N}`);
  const mask = dual.trainableMask(json);
  const direction = () => theta.map((_, i) => mask[i]! * (2 * next() - 1));
  const [u, v] = [direction(), direction()];
  const check = (what: string, got: number, expected: number, bound: number): void => {
    if (!(Math.abs(got - expected) <= bound))
      faults.push(`${title}, N = ${N}: ${what} is ${got}, expected ${expected}, bound ${bound}`);
  };

  const names = dual.leaves(json, data, dual.reals, (i) => theta[i]!);
  const samples = times(N, (n) =>
    Object.fromEntries(
      [...names].map(([name, all]) => [name, reference.shaped(all[n]!.entries, all[n]!.shape)]),
    ),
  );
  const expected = reference.evaluateBatch(json.loss, samples) as number[];
  const average = expected.reduce((sum, x) => sum + x, 0) / N;
  const g = problem.gradient(theta);
  const [hu, hv] = [problem.hessianVector(theta, u), problem.hessianVector(theta, v)];
  /** What roundings may do to each loss, their mean, its slope along u, and u.Hv. */
  let bounds: { losses: number[]; mean: number; slope: number; bend: number };
  if (N <= most) {
    // a running error analysis; twice, for either of two evaluations
    const here = dual.lossesAlong(json, data, theta, u, v);
    const { at, error } = dual.meanOf(here);
    const [mean, slope, bend] = [2 * U * error[0], 2 * U * error[1], 2 * U * error[3]];
    bounds = { losses: here.map((x) => 2 * U * x.error[0]), mean, slope, bend };
    check("g.u", dot(g, u), at[1], slope);
    check("u.Hv", dot(u, hv), at[3], bend);
  } else {
    // sums have up to N terms instead of 40
    const by = (what: number) => wobbleOf((what * N) / 32, 0);
    const scale = reference.magnitudes(json.loss, samples);
    const [mean, moves] = [scale.reduce((sum, x) => sum + x, 0) / N, sizes(g)];
    bounds = {
      losses: scale.map(by),
      mean: by(mean),
      slope: by(16 * (mean + moves)),
      bend: by(64 * (mean + moves + sizes(hv))),
    };
  }
  for (const [n, loss] of problem.losses(theta).entries())
    check(`loss ${n}`, loss, expected[n]!, bounds.losses[n]!);
  check("the mean loss", problem.loss(theta), average, bounds.mean);
  check("v.Hu", dot(v, hu), dot(u, hv), bounds.bend);
  const along = quotientFault(dot(g, u), (t) => problem.loss(moved(theta, u, t)), bounds.mean);
  if (along !== null) faults.push(`${title}, N = ${N}: g.u: ${along}`);
  const slopeAt = (t: number) => dot(problem.gradient(moved(theta, v, t)), u);
  const bending = quotientFault(dot(u, hv), slopeAt, bounds.slope);
  if (bending !== null) faults.push(`${title}, N = ${N}: u.Hv: ${bending}`);

  if (N <= 5) {
    const whole = dual.derivatives(json, data, theta, v);
    for (const [i, x] of whole.gradient.values.entries())
      check(`gradient entry ${i}`, g[i]!, x, whole.gradient.bounds[i]!);
    for (const [i, x] of whole.hessianVector.values.entries())
      check(`Hv entry ${i}`, hv[i]!, x, whole.hessianVector.bounds[i]!);
  }
  problem.dispose();
  return faults;
}

/** Faults of some steps on given batches, against the derivatives of each batch by itself. */
async function walkFaults({ title, json, theta, data: dataOf, most }: Coupled): Promise<string[]> {
  const faults: string[] = [];
  const next = randomOf(`${title} batches`);
  // small enough that no step leads far, whatever the curvature of these losses
  const eta = 2 ** -9;
  const starts = [theta, theta.map((x) => x * (1 + 0.02 * (next() - 0.5)))];
  const net = parseModel(JSON.parse(JSON.stringify(json)));
  const walk = async (N: number, batches: number[][], options: object): Promise<void> => {
    const data = dataOf(N);
    const problem = engine.problem(net, data);
    const common = { theta: starts, replicas: 2, eta, steps: batches.length, ...options };
    const record = { every: 1, loss: "full" } as const;
    const run = await problem.simulate({ scheme: "gd", ...common, record });
    for (const other of [
      { lowering: { fuse: false } },
      { lowering: { lanes: "samples", block: 2 } },
      { lowering: { lanes: "samples" } },
    ] as const) {
      const { theta: end } = await problem.simulate({ scheme: "gd", ...common, ...other });
      if (end.some((x, i) => !Object.is(x, run.theta[i])))
        faults.push(`${title}: other bits with ${JSON.stringify(other)} and ${JSON.stringify(options)}`);
    }
    for (const [r, start] of starts.entries()) {
      const [P, entries] = [theta.length, Object.entries(json.inputs)];
      let at = start;
      let bound = at.map(() => 0);
      for (const batch of batches) {
        const picked = entries.map(([name, shape]) => [
          name,
          batch.flatMap((n) => data[name]!.slice(n * size(shape), (n + 1) * size(shape))),
        ]);
        const { gradient: g } = dual.derivatives(json, Object.fromEntries(picked), at);
        at = at.map((x, i) => x - eta * g.values[i]!);
        // what a step inherits grows by 1 + eta |H| at most, which is below 2
        const inherited = Math.max(...bound);
        bound = bound.map((b, i) => b + inherited + eta * g.bounds[i]! + 4 * U * (Math.abs(at[i]!) + 1));
      }
      for (let i = 0; i < P; i++) {
        const got = run.theta[r * P + i]!;
        if (!(Math.abs(got - at[i]!) <= bound[i]!))
          faults.push(
            `${title}: theta[${i}] of replica ${r} is ${got} after ${JSON.stringify(options)}, expected ${at[i]}, bound ${bound[i]}`,
          );
      }
      const ends = problem.loss(Array.from(run.theta.slice(r * P, (r + 1) * P)));
      const recorded = run.series.loss![batches.length * 2 + r]!;
      if (!Object.is(ends, recorded)) faults.push(`${title}: recorded loss ${recorded}, measured ${ends}`);
    }
    problem.dispose();
  };
  for (const N of [1, 5])
    await walk(
      N,
      times(2, () => times(N, (n) => n)),
      { scheme: "gd" },
    );
  for (const S of [1, 2, 9]) {
    const batches = times(2, () => times(S, () => Math.floor(7 * next())));
    await walk(7, batches, { scheme: "sgd", batchSize: S, batches });
  }
  if (theta.length <= 6 && most > 65) {
    const batches = [times(65, (s) => (5 * s) % 70)];
    await walk(70, batches, { scheme: "sgd", batchSize: 65, batches });
  }
  return faults;
}

describe("coupled samples", () => {
  test.each(coupled.map((c) => [c.title, c] as const))(
    "%s: loss, gradient and Hv over batches of up to 130",
    (_, c) => {
      expect(SIZES.flatMap((N) => batchFaults(c, N))).toEqual([]);
    },
  );

  test.each(coupled.map((c) => [c.title, c] as const))(
    "%s: steps of GD, where all samples are one batch, and of SGD",
    async (_, c) => {
      expect(await walkFaults(c)).toEqual([]);
    },
  );

  test("batch_row is the adjoint of batch_stack: sum_i <row_i(M), v_i> = sum_i <M_i, stack(v)>", () => {
    // M_i = Y diag(x_i), and another for every sample; v_i = w x_i
    const M: E = ["mul", ["exp", stack("y")], "x"];
    const left = ofBatch("adjoint", w3, { ...x3, y: [3] }, ["sum", ["mul", ["batch_row", M], z]]);
    const right = parseModel({ ...left.json, loss: ["sum", ["mul", M, Z]] });
    for (const N of SIZES) {
      const [a, b] = [parseModel(left.json), right].map((net) => engine.problem(net, left.data(N)));
      const bound =
        2 * U * dual.meanOf(dual.lossesAlong(left.json, left.data(N), left.theta, [], [])).error[0];
      expect(Math.abs(a!.loss(left.theta) - b!.loss(left.theta)), `N = ${N}`).toBeLessThanOrEqual(bound);
      expect(Math.abs(a!.loss(left.theta))).toBeGreaterThan(1e-3);
      a!.dispose();
      b!.dispose();
    }
  });

  /** The variance of w x over a batch: the loss of a sample is (w x_i - mean)^2, so L = w^2 var x and dL/dw = 2 w var x. */
  const spread = parseModel({ params: { w: [] }, inputs: { x: [] }, loss: ["square", centred(z)] });
  const varianceOf = (xs: readonly number[]): number => {
    const mean = xs.reduce((a, b) => a + b) / xs.length;
    return xs.map((x) => (x - mean) ** 2).reduce((a, b) => a + b) / xs.length;
  };
  const shrunk = (w: number, eta: number, steps: number, batch: (k: number) => number[]): number =>
    times(steps, batch).reduce((at, xs) => at - eta * 2 * at * varianceOf(xs), w);

  test("SGD draws the batches that it draws for any other loss, and each is coupled in itself", async () => {
    const x = times(11, (n) => Math.sin(1 + 3 * n));
    const problem = engine.problem(spread, { x });
    const [eta, steps, replicas] = [0.05, 60, 3];
    for (const S of [1, 2, 5, 64]) {
      const run = await problem.simulate({
        scheme: "sgd",
        theta: [1.5],
        eta,
        steps,
        batchSize: S,
        replicas,
        seed: "coupled",
      });
      for (let r = 0; r < replicas; r++) {
        const key = keyOfSeed("coupled");
        const w = shrunk(1.5, eta, steps, (k) => iidBatch(key, r, k, S, 11).map((n) => x[n]!));
        // 60 steps of some 2 S + 6 roundings
        expect(Math.abs(run.theta[r]! / w - 1), `S = ${S}`).toBeLessThanOrEqual(steps * (2 * S + 6) * U);
      }
    }
    problem.dispose();
  });

  test("fresh samples of a step are coupled too", async () => {
    const law = parseSampler({ noise: { n: { kind: "normal", shape: [] } }, outputs: { x: ["exp", "n"] } });
    const problem = engine.problem(spread, law);
    const [eta, steps, S] = [0.01, 20, 5];
    const run = await problem.simulate({ scheme: "sgd", theta: [1.5], eta, steps, batchSize: S, seed: 4 });
    const key = keyOfSeed("4");
    const fresh = (k: number) =>
      times(S, (s) => Math.exp(freshEntry("normal", key, { replica: 0, step: k, block: s, entry: 0 })));
    const w = shrunk(1.5, eta, steps, fresh);
    // the host's exp, log and sin are good to a unit in the last place or so
    expect(Math.abs(run.theta[0]! / w - 1)).toBeLessThanOrEqual(steps * 64 * U);
    problem.dispose();
  });

  test("the trace of the Hessian from quadratic forms is that of its columns, over 5 samples", async () => {
    for (const { title, json, theta, data: dataOf } of coupled) {
      const problem = engine.problem(parseModel(json), dataOf(5));
      const mask = dual.trainableMask(json);
      const diagonal = mask.map((m, i) => {
        const unit = mask.map((_, j) => (i === j ? m : 0));
        return dual.meanOf(dual.lossesAlong(json, dataOf(5), theta, unit, unit));
      });
      const bound = diagonal.reduce((sum, { error }) => sum + 2 * U * error[3], 0);
      const expected = diagonal.reduce((sum, { at }) => sum + at[3], 0);
      const { value } = await problem.hessianTrace(theta, { method: "exact" });
      expect(Math.abs(value - expected), title).toBeLessThanOrEqual(bound);
      problem.dispose();
    }
  });

  test("Gauss-Newton products for a value that is linear in the parameters are Hessian products", () => {
    // z = w x is all that these losses know of w, and what is made of it here is linear in w too
    const product = ({ w, x }: Record<string, Node>) => ops.mul(w!, x!);
    const half = (l: Record<string, Node>) => ops.scale(product(l), 0.5);
    const average = (l: Record<string, Node>) => ops.mean(product(l));
    const copies = (l: Record<string, Node>) => ops.broadcastTo(product(l), [2, 3]);
    const ofAll = (l: Record<string, Node>) => ops.batchMean(product(l));
    const titles = [
      "the variance of a value",
      "a loss that is a mean",
      "second moments",
      "all inner products",
    ];
    const known = coupled
      .filter(({ title }) => titles.includes(title))
      .map((c): [Coupled, typeof product] => [c, product]);
    expect(known).toHaveLength(titles.length);
    const made = (title: string, loss: E, inputs: Record<string, Shape> = x3) =>
      ofBatch(title, w3, inputs, loss);
    const means: E = ["sqnorm", ["tanh", ["batch_mean", z]]];
    const halves: E = ["scale", z, 0.5];
    const cases: [Coupled, (l: Record<string, Node>) => Node][] = [
      ...known,
      [made("rows", ["sqnorm", ["batch_row", ["mul", ["tanh", Z], "y"]]], { ...x3, y: [3] }), product],
      [made("what means are made of", means), product],
      [made("means", means), ofAll],
      // not coupled, and squared as it is
      [made("a value", ["sqnorm", ["tanh", z]]), product],
      [made("half a value", ["sqnorm", halves]), half],
      [made("half a coupled value", ["sqnorm", centred(halves)]), half],
      [made("an average", ["square", ["mean", z]]), average],
      [made("copies", ["sqnorm", ["broadcast_to", z, { shape: [2, 3] }]]), copies],
      // a value that all samples share
      [
        made("parameters alone", ["sqnorm", ["mul", ["scale", "w", 0.5], "x"]]),
        ({ w }) => ops.scale(w!, 0.5),
      ],
    ];
    for (const [c, of] of cases) {
      const problem = engine.problem(parseModel(c.json), c.data(5));
      const next = randomOf(c.title);
      const v = c.theta.map(() => 2 * next() - 1);
      const { hessianVector: H } = dual.derivatives(c.json, c.data(5), c.theta, v);
      for (const [i, got] of problem.gaussNewtonVector(c.theta, v, { of }).entries())
        expect(
          Math.abs(got - H.values[i]!),
          `${c.title}, entry ${i}: ${got}, ${H.values[i]}`,
        ).toBeLessThanOrEqual(2 * H.bounds[i]!);
      problem.dispose();
    }
  });

  test("a run of replicas is the runs one by one, bit for bit", async () => {
    const { json, theta, data: dataOf } = coupled.find((c) => c.title === "batch normalisation")!;
    const problem = engine.problem(parseModel(json), dataOf(20));
    const options = { scheme: "sgd", theta, eta: 0.05, steps: 12, batchSize: 6, seed: "r" } as const;
    const all = await problem.simulate({ ...options, replicas: 5 });
    for (let r = 0; r < 5; r++) {
      const one = await problem.simulate({ ...options, firstReplica: r });
      expect([...one.theta]).toEqual([...all.theta.slice(r * theta.length, (r + 1) * theta.length)]);
    }
    problem.dispose();
  });

  const { json, theta, data: dataOf } = coupled[0]!;
  const problem = engine.problem(parseModel(json), dataOf(6));
  const A = symmetry.generator({ blocks: { w: { scalar: 1 } } });
  const perSample =
    "a loss with batch ops has no gradient per sample, its samples depend on each other, " +
    "got batch_mean, batch_stack or batch_row in the loss. " +
    "Measure the covariance of minibatch gradients: minibatchNoise(theta, { batchSize, batches }).";
  const refused: [where: string, attempt: () => unknown][] = [
    ["perSampleGradients", () => problem.perSampleGradients(theta)],
    ["jacobianVector", () => problem.jacobianVector(theta, theta)],
    ["perSampleHessianVector", () => problem.perSampleHessianVector(theta, theta)],
    ["noiseTrace", () => problem.noiseTrace(theta)],
    ["noiseTrace", () => problem.noiseTrace(theta, { samples: 50, seed: 1 })],
    ["noisePower", () => problem.noisePower(theta, A)],
    ["noiseVector", () => problem.noiseVector(theta, theta)],
    ["noiseCovariance", () => problem.noiseCovariance(theta)],
    ["operator", () => problem.operator(theta, "noise")],
    ["topEigenvalues", () => problem.topEigenvalues(theta, 1, { of: "noise" })],
  ];
  test.each(refused)("%s refuses with a sentence", async (where, attempt) => {
    await expect((async () => attempt())()).rejects.toThrow(`${where}: ${perSample}`);
  });

  test.each(["replicas", "features"] as const)("%s in the lanes are refused", async (lanes) => {
    const options = { theta, eta: 0.1, steps: 1, lowering: { lanes } };
    const sentence = `simulate: lowering.lanes: a loss with batch ops needs all samples of a batch side by side: lanes "samples", got "${lanes}".`;
    for (const scheme of [{ scheme: "gd" }, { scheme: "sgd", batchSize: 2 }] as const) {
      await expect(problem.simulate({ ...scheme, ...options })).rejects.toThrow(sentence);
      await expect(problem.plan({ ...scheme, ...options })).rejects.toThrow(sentence);
    }
  });

  test("shapes that depend on the size of the batch are checked when it is known", () => {
    const sized = (loss: E) => parseModel({ params: { w: [2] }, inputs: { x: [2] }, loss });
    const problem = (loss: E, N: number) => engine.problem(sized(loss), { x: times(2 * N, (i) => i) });
    const four: E = ["sqnorm", ["slice", stack("x"), { start: 1, stop: 4 }]];
    expect(problem(four, 4).loss([1, 1])).toBe(4 + 9 + 16 + 25 + 36 + 49);
    const short = "slice: slice expects at least 4 entries along axis 0, got batch_stack(...) [3, 2].";
    for (const call of ["loss", "losses", "gradient"] as const)
      expect(() => problem(four, 3)[call]([1, 1])).toThrow(short);
    const longer: E = ["sum", ["mul", ["pad", stack("x"), { before: 1 }], stack(["mul", "w", "x"])]];
    expect(() => problem(longer, 3).loss([1, 1])).toThrow("mul: mul expects two shapes that broadcast");
    // before it is known, no literal size is that of the batch
    expect(() => sized(["sum", ["mul", ["matmul", stack("x"), "x"], "w"]])).toThrow(
      "model.loss[1]: mul expects two shapes that broadcast",
    );
  });

  test("values that a run records depend on parameters alone, however they are gathered", async () => {
    const net = problem.model;
    for (const m of [ops.batchMean(net.leaf("x")), ops.batchStack(net.leaf("x"))]) {
      const record = { every: 1, values: { m } };
      await expect(problem.simulate({ scheme: "gd", theta, eta: 0.1, steps: 1, record })).rejects.toThrow(
        "record.values.m: recorded values depend on parameters alone",
      );
    }
  });

  test("a sampler couples no samples", () => {
    const law = (x: unknown) => () =>
      parseSampler({ noise: { n: { kind: "normal", shape: [3] } }, outputs: { x } });
    for (const x of [
      ["batch_mean", "n"],
      ["sum", ["batch_stack", "n"], { axis: 0 }],
      ["tanh", ["batch_row", ["batch_stack", "n"]]],
    ])
      expect(law(x)).toThrow(
        "sampler.outputs.x: samples are independent: batch_mean, batch_stack and batch_row belong in a model's loss",
      );
  });
});

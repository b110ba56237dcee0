import { checkKnown, checkObject, fail, nearest, show, showShape } from "../errors.ts";
import {
  type Attrs,
  BATCH,
  checkShape,
  describe,
  type Graph,
  isSampleValue,
  MAX_ENTRIES,
  type Node,
  type Shape,
  sameShape,
  sizeOf,
  VARIES_WITH_PARAMS,
  VARIES_WITH_SAMPLE,
} from "./node.ts";

/**
 * The op table: one row per op. A row says how its value is shaped, how it is differentiated
 * (`jvp`: tangents in, tangent out; `vjp`: cotangent in, one cotangent per argument out) and which
 * kernel computes it. Rules are written with the builders below, so they emit ops of this table
 * only and derivatives compose to any order.
 */
export interface OpRow {
  /** Name in model files; the builder's name is the same in camelCase. */
  readonly name: string;
  /** Number of arguments; "some" is one or more. */
  readonly arity: number | "some";
  /** Options a model file may give, besides `shapes`. */
  readonly options?: readonly OptionName[];
  /** Result shape; throws a sentence when the arguments do not fit. */
  shape(args: readonly Node[], attrs: Attrs): Shape;
  /** How the lowering computes it; ops without one are rewritten by `expand`. */
  readonly kernel?: Kernel;
  /** Derivative rules; absent where `expand` gives them. */
  jvp?(node: Node, tangents: Tangents): Node | null;
  vjp?(node: Node, cotangent: Node, needs: readonly boolean[]): (Node | null)[];
  /** A composition of other ops that replaces this one on reading. */
  expand?(args: readonly Node[], attrs: Attrs): Node;
  /**
   * Couples the samples of a batch. Its value has a size, or a meaning, only once the number of
   * samples is known: `instantiate` applies it again then.
   */
  readonly couples?: boolean;
  /** Where conformance tests draw arguments from; [-2, 2] when absent. */
  readonly domain?: readonly [number, number];
}

/** One tangent per argument, null where it does not move. */
export type Tangents = readonly [Node | null, Node | null, ...(Node | null)[]];

export type OptionName =
  | "axis"
  | "keepdims"
  | "shape"
  | "c"
  | "slope"
  | "start"
  | "stop"
  | "before"
  | "after"
  | "count";

/** What the lowering has to know: elementwise kernels are named after the op. */
export type Kernel =
  | "unary"
  | "binary"
  | "matmul"
  | "transpose"
  | "scale"
  | "reduce"
  | "axis"
  | "outer"
  | "broadcast"
  | "alias"
  | "number"
  | "block"
  | "batch";

type Rule = Omit<OpRow, "name">;

const same = (args: readonly Node[]): Shape => args[0]!.shape;

/** numpy broadcasting of two shapes; throws with both operands named. */
function broadcastShape(args: readonly Node[]): Shape {
  const [a, b] = [args[0]!, args[1]!];
  const rank = Math.max(a.shape.length, b.shape.length);
  const out: number[] = [];
  for (let i = 0; i < rank; i++) {
    const da = a.shape[a.shape.length - rank + i] ?? 1;
    const db = b.shape[b.shape.length - rank + i] ?? 1;
    if (da !== db && da !== 1 && db !== 1) {
      throw new ShapeMismatch(`two shapes that broadcast`, `${describe(a)} and ${describe(b)}`);
    }
    out.push(Math.max(da, db));
  }
  return out;
}

/** Raised by shape rules; `apply` adds the op's name and the place in a file. */
class ShapeMismatch extends Error {
  constructor(
    readonly expected: string,
    readonly got: string,
  ) {
    super(expected);
  }
}

function matmulShape(args: readonly Node[]): Shape {
  const [a, b] = [args[0]!, args[1]!];
  const inner = a.shape.at(-1);
  const other = b.shape.length === 2 ? b.shape[0] : b.shape.at(-1);
  if (inner === undefined || other === undefined || inner !== other) {
    throw new ShapeMismatch(
      "operands of rank 1 or 2 whose inner sizes agree",
      `${describe(a)} and ${describe(b)}`,
    );
  }
  return [...a.shape.slice(0, -1), ...(b.shape.length === 2 ? [b.shape[1]!] : [])];
}

function rankTwo(args: readonly Node[]): Shape {
  const a = args[0]!;
  if (a.shape.length !== 2) throw new ShapeMismatch("a matrix", describe(a));
  return [a.shape[1]!, a.shape[0]!];
}

function reduceShape(args: readonly Node[], attrs: Attrs): Shape {
  const a = args[0]!;
  if (attrs.axis == null) return attrs.keepdims ? a.shape.map(() => 1) : [];
  return a.shape.flatMap((d, i) => (i === attrs.axis ? (attrs.keepdims ? [1] : []) : [d]));
}

/** Sums a cotangent of a broadcast result back to an operand's shape. */
export function sumTo(x: Node, shape: Shape): Node {
  if (sameShape(x.shape, shape)) return x;
  if (sizeOf(shape) === 1) return reshape(sum(x), shape);
  let out = x;
  while (out.shape.length > shape.length) out = sum(out, { axis: 0 });
  for (let i = 0; i < shape.length; i++) {
    if (shape[i] === 1 && out.shape[i] !== 1) out = sum(out, { axis: i, keepdims: true });
  }
  return out;
}

/** A reduction's cotangent or tangent spread over the shape it was reduced from. */
function spread(ct: Node, like: Node, attrs: Attrs): Node {
  const kept =
    attrs.axis == null ? like.shape.map(() => 1) : like.shape.map((d, i) => (i === attrs.axis ? 1 : d));
  return broadcastTo(reshape(ct, kept), like.shape);
}

/** A tangent brought to the shape of a result it was broadcast into. */
const grow = (t: Node, node: Node): Node => broadcastTo(t, node.shape);

const addTangents = (a: Node | null, b: Node | null): Node | null =>
  a === null ? b : b === null ? a : add(a, b);

/** Elementwise op with y' = slope(x, y): both rules follow from the slope. */
function unary(slope: (x: Node, y: Node) => Node, domain?: readonly [number, number]): Rule {
  return {
    arity: 1,
    shape: same,
    kernel: "unary",
    jvp: (n, [t]) => t && mul(t, slope(n.args[0]!, n)),
    vjp: (n, ct) => [mul(ct, slope(n.args[0]!, n))],
    ...(domain ? { domain } : {}),
  };
}

/** 1 where x > 0, else the slope, exactly. */
function leakySlope(node: Node): Node {
  const up = step(node.args[0]!);
  return add(up, scale(sub(1, up), node.attrs.slope!));
}

/** Piecewise constant: its derivative is zero almost everywhere. */
const flat: Rule = { arity: 1, shape: same, kernel: "unary", jvp: () => null, vjp: () => [null] };

const rules: Record<string, Rule> = {
  matmul: {
    arity: 2,
    shape: matmulShape,
    kernel: "matmul",
    jvp: (n, [ta, tb]) => addTangents(ta && matmul(ta, n.args[1]!), tb && matmul(n.args[0]!, tb)),
    vjp: (n, ct, needs) => {
      const [a, b] = [n.args[0]!, n.args[1]!];
      const ranks = `${a.shape.length}${b.shape.length}`;
      const forA = () =>
        ranks === "22"
          ? matmul(ct, transpose(b))
          : ranks === "21"
            ? outer(ct, b)
            : ranks === "12"
              ? matmul(b, ct)
              : mul(ct, b);
      const forB = () =>
        ranks === "22"
          ? matmul(transpose(a), ct)
          : ranks === "21"
            ? matmul(transpose(a), ct)
            : ranks === "12"
              ? outer(a, ct)
              : mul(ct, a);
      return [needs[0] ? forA() : null, needs[1] ? forB() : null];
    },
  },
  transpose: {
    arity: 1,
    shape: rankTwo,
    kernel: "transpose",
    jvp: (_, [t]) => t && transpose(t),
    vjp: (_, ct) => [transpose(ct)],
  },
  outer: {
    arity: 2,
    shape: (args) => {
      const [a, b] = [args[0]!, args[1]!];
      if (a.shape.length !== 1 || b.shape.length !== 1)
        throw new ShapeMismatch("two vectors", `${describe(a)} and ${describe(b)}`);
      return [a.shape[0]!, b.shape[0]!];
    },
    kernel: "outer",
    jvp: (n, [ta, tb]) => addTangents(ta && outer(ta, n.args[1]!), tb && outer(n.args[0]!, tb)),
    vjp: (n, ct, needs) => [
      needs[0] ? matmul(ct, n.args[1]!) : null,
      needs[1] ? matmul(n.args[0]!, ct) : null,
    ],
  },
  add: {
    arity: 2,
    shape: broadcastShape,
    kernel: "binary",
    jvp: (n, [ta, tb]) => addTangents(ta && grow(ta, n), tb && grow(tb, n)),
    vjp: (n, ct, needs) => n.args.map((a, i) => (needs[i] ? sumTo(ct, a.shape) : null)),
  },
  sub: {
    arity: 2,
    shape: broadcastShape,
    kernel: "binary",
    jvp: (n, [ta, tb]) => addTangents(ta && grow(ta, n), tb && grow(scale(tb, -1), n)),
    vjp: (n, ct, needs) => [
      needs[0] ? sumTo(ct, n.args[0]!.shape) : null,
      needs[1] ? scale(sumTo(ct, n.args[1]!.shape), -1) : null,
    ],
  },
  mul: {
    arity: 2,
    shape: broadcastShape,
    kernel: "binary",
    jvp: (n, [ta, tb]) => addTangents(ta && grow(mul(ta, n.args[1]!), n), tb && grow(mul(n.args[0]!, tb), n)),
    vjp: (n, ct, needs) => [
      needs[0] ? sumTo(mul(ct, n.args[1]!), n.args[0]!.shape) : null,
      needs[1] ? sumTo(mul(ct, n.args[0]!), n.args[1]!.shape) : null,
    ],
  },
  div: {
    arity: 2,
    shape: broadcastShape,
    kernel: "binary",
    domain: [0.5, 2],
    jvp: (n, [ta, tb]) =>
      addTangents(ta && grow(div(ta, n.args[1]!), n), tb && grow(scale(div(mul(n, tb), n.args[1]!), -1), n)),
    vjp: (n, ct, needs) => {
      const each = div(ct, n.args[1]!);
      return [
        needs[0] ? sumTo(each, n.args[0]!.shape) : null,
        needs[1] ? scale(sumTo(mul(each, n), n.args[1]!.shape), -1) : null,
      ];
    },
  },
  scale: {
    arity: 1,
    options: ["c"],
    shape: same,
    kernel: "scale",
    jvp: (n, [t]) => t && scale(t, n.attrs.c!),
    vjp: (n, ct) => [scale(ct, n.attrs.c!)],
  },
  tanh: unary((_, y) => sub(1, square(y))),
  sigmoid: unary((_, y) => mul(y, sub(1, y))),
  softplus: unary((x) => sigmoid(x)),
  exp: unary((_, y) => y),
  log: unary((x) => div(1, x), [0.5, 3]),
  sqrt: unary((_, y) => div(0.5, y), [0.5, 3]),
  erf: unary((x) => scale(exp(scale(square(x), -1)), 1.1283791670955126)), // 2 / sqrt(pi)
  // 2 x ct, the factor on the side that may be a broadcast
  square: { ...unary((x) => scale(x, 2)), vjp: (n, ct) => [mul(scale(ct, 2), n.args[0]!)] },
  relu: unary((x) => step(x)),
  leaky_relu: {
    arity: 1,
    options: ["slope"],
    shape: same,
    kernel: "number",
    jvp: (n, [t]) => t && mul(t, leakySlope(n)),
    vjp: (n, ct) => [mul(ct, leakySlope(n))],
  },
  abs: unary((x) => sign(x)),
  step: flat,
  sign: flat,
  sum: {
    arity: 1,
    options: ["axis", "keepdims"],
    shape: reduceShape,
    kernel: "reduce",
    jvp: (n, [t]) => t && sum(t, n.attrs),
    vjp: (n, ct) => [spread(ct, n.args[0]!, n.attrs)],
  },
  mean: {
    arity: 1,
    options: ["axis", "keepdims"],
    shape: reduceShape,
    expand: ([a], attrs) => {
      const count = attrs.axis == null ? sizeOf(a!.shape) : a!.shape[attrs.axis]!;
      return scale(sum(a!, attrs), 1 / count);
    },
  },
  sqnorm: {
    arity: 1,
    shape: () => [],
    kernel: "reduce",
    jvp: (n, [t]) => t && scale(sum(mul(n.args[0]!, t)), 2),
    vjp: (n, ct) => [mul(scale(ct, 2), n.args[0]!)],
  },
  norm: { arity: 1, shape: () => [], expand: ([a]) => sqrt(sqnorm(a!)) },
  softmax: {
    arity: 1,
    options: ["axis"],
    shape: same,
    kernel: "axis",
    jvp: (n, [t]) => t && softmaxPull(n, t),
    vjp: (n, ct) => [softmaxPull(n, ct)],
  },
  logsumexp: {
    arity: 1,
    options: ["axis", "keepdims"],
    shape: reduceShape,
    kernel: "axis",
    jvp: (n, [t]) => t && sum(mul(softmax(n.args[0]!, { axis: n.attrs.axis! }), t), n.attrs),
    vjp: (n, ct) => [mul(spread(ct, n.args[0]!, n.attrs), softmax(n.args[0]!, { axis: n.attrs.axis! }))],
  },
  broadcast_to: {
    arity: 1,
    options: ["shape"],
    shape: ([a], attrs) => {
      const target = attrs.shape!;
      const offset = target.length - a!.shape.length;
      if (offset < 0 || a!.shape.some((d, i) => d !== 1 && d !== target[i + offset])) {
        throw new ShapeMismatch(`a value that broadcasts to ${showShape(target)}`, describe(a!));
      }
      return target;
    },
    kernel: "broadcast",
    jvp: (n, [t]) => t && broadcastTo(t, n.shape),
    vjp: (n, ct) => [sumTo(ct, n.args[0]!.shape)],
  },
  reshape: {
    arity: 1,
    options: ["shape"],
    shape: ([a], attrs) => {
      if (sizeOf(attrs.shape!) !== sizeOf(a!.shape)) {
        throw new ShapeMismatch(`a value with ${sizeOf(attrs.shape!)} entries`, describe(a!));
      }
      return attrs.shape!;
    },
    kernel: "alias",
    jvp: (n, [t]) => t && reshape(t, n.shape),
    vjp: (n, ct) => [reshape(ct, n.args[0]!.shape)],
  },
  concat: {
    arity: "some",
    options: ["axis"],
    shape: (args, { axis }) => {
      const [first] = args as [Node];
      for (const arg of args) {
        const fits = arg.shape.length === first.shape.length;
        if (!fits || arg.shape.some((d, i) => i !== axis && d !== first.shape[i]))
          throw new ShapeMismatch(
            "values of one rank that agree along all other axes",
            args.map(describe).join(", "),
          );
      }
      return first.shape.map((d, i) => (i === axis ? args.reduce((n, a) => n + a.shape[i]!, 0) : d));
    },
    kernel: "block",
    jvp: (n, tangents) => {
      const moving = tangents.filter((t) => t !== null);
      if (moving.length === n.args.length) return concat(moving, { axis: n.attrs.axis! });
      let sum: Node | null = null;
      for (const { arg, before, after } of parts(n)) {
        const t = tangents[arg]!;
        if (t !== null) sum = addTangents(sum, pad(t, { axis: n.attrs.axis!, before, after }));
      }
      return sum;
    },
    vjp: (n, ct, needs) =>
      parts(n).map(({ arg, before, size }) =>
        needs[arg] ? slice(ct, { axis: n.attrs.axis!, start: before, stop: before + size }) : null,
      ),
  },
  slice: {
    arity: 1,
    options: ["axis", "start", "stop"],
    shape: ([a], { axis, start, stop }) => {
      if (stop! > a!.shape[axis!]!)
        throw new ShapeMismatch(`at least ${stop} entries along axis ${axis}`, describe(a!));
      return a!.shape.map((d, i) => (i === axis ? stop! - start! : d));
    },
    kernel: "block",
    jvp: (n, [t]) => t && slice(t, n.attrs as SliceOptions),
    vjp: (n, ct) => {
      const { axis, start, stop } = n.attrs;
      return [pad(ct, { axis: axis!, before: start!, after: n.args[0]!.shape[axis!]! - stop! })];
    },
  },
  pad: {
    arity: 1,
    options: ["axis", "before", "after"],
    shape: ([a], { axis, before, after }) => a!.shape.map((d, i) => (i === axis ? before! + d + after! : d)),
    kernel: "block",
    jvp: (n, [t]) => t && pad(t, n.attrs as PadOptions),
    vjp: (n, ct) => {
      const { axis, before } = n.attrs;
      return [slice(ct, { axis: axis!, start: before!, stop: before! + n.args[0]!.shape[axis!]! })];
    },
  },
  gelu_tanh: {
    arity: 1,
    shape: same,
    expand: ([x]) => {
      // sqrt(2 / pi) as a literal: the host's Math must not decide a number
      const inner = scale(add(x!, scale(mul(square(x!), x!), 0.044715)), 0.7978845608028654);
      return mul(scale(x!, 0.5), add(1, tanh(inner)));
    },
  },
  gelu_erf: {
    arity: 1,
    shape: same,
    // 1 / sqrt(2)
    expand: ([x]) => mul(scale(x!, 0.5), add(1, erf(scale(x!, 0.7071067811865476)))),
  },
  /** Mean over the samples of the batch: one value for all of them. */
  batch_mean: {
    arity: 1,
    options: ["count"],
    couples: true,
    shape: same,
    expand: ([x], { count }) => (isSampleValue(x!) ? scale(batchSum(x!, count!), 1 / count!) : x!),
  },
  /** Every sample's vector as a row of one matrix [batch, h] that all samples see. */
  batch_stack: {
    arity: 1,
    options: ["count"],
    couples: true,
    shape: ([a], { count }) => {
      if (a!.shape.length !== 1) throw new ShapeMismatch("a vector per sample", describe(a!));
      return [count ?? BATCH, a!.shape[0]!];
    },
    kernel: "batch",
    jvp: (n, [t]) => t && batchStack(t, n.attrs.count),
    vjp: (_, ct) => [batchPick(ct)],
  },
  /** Sample i receives row i of the sum over samples of a matrix [batch, h]: the adjoint of batch_stack. */
  batch_row: {
    arity: 1,
    options: ["count"],
    couples: true,
    shape: ([a], { count }) => {
      if (a!.shape.length !== 2 || a!.shape[0] !== (count ?? BATCH))
        throw new ShapeMismatch("a matrix with one row per sample of the batch", describe(a!));
      return [a!.shape[1]!];
    },
    expand: ([m], { count }) => batchPick(isSampleValue(m!) ? batchSum(m!, count!) : scale(m!, count!)),
  },
  /** Not for model files: sample i receives row i of a matrix that does not vary with the sample. */
  batch_pick: {
    arity: 1,
    couples: true,
    shape: ([a]) => [a!.shape[1]!],
    kernel: "batch",
    jvp: (_, [t]) => t && batchPick(t),
    vjp: (n, ct) => [batchStack(ct, n.args[0]!.shape[0]!)],
  },
  /**
   * Sum over the samples of the batch. Not for model files: derive.ts puts it where a cotangent
   * leaves the part of the graph that varies with the sample (a parameter's gradient).
   */
  batch_sum: {
    arity: 1,
    options: ["count"],
    shape: same,
    kernel: "batch",
    jvp: (n, [t]) => t && (isSampleValue(t) ? batchSum(t, n.attrs.count!) : scale(t, n.attrs.count!)),
    vjp: (_, ct) => [ct],
  },
};

/** Where the arguments of a concatenation lie along its axis. */
function parts(node: Node): { arg: number; before: number; size: number; after: number }[] {
  const axis = node.attrs.axis!;
  let before = 0;
  return node.args.map((a, arg) => {
    const size = a.shape[axis]!;
    const part = { arg, before, size, after: node.shape[axis]! - before - size };
    before += size;
    return part;
  });
}

/** Both rules of softmax: p * (t - sum(p t)), the Jacobian being symmetric. */
function softmaxPull(p: Node, t: Node): Node {
  return mul(p, sub(t, sum(mul(p, t), { axis: p.attrs.axis!, keepdims: true })));
}

/** The table itself, in the order that numbers the ops. */
export const table: ReadonlyMap<string, OpRow> = new Map(
  Object.entries(rules).map(([name, rule]) => [name, { name, ...rule }]),
);

/** Ops a model file may name. */
export const publicOps: readonly string[] = [...table.keys()].filter(
  (name) => name !== "batch_sum" && name !== "batch_pick",
);

/** Row of an op that is known to exist. */
export function rowOf(op: string): OpRow | undefined {
  return table.get(op);
}

/** The value that was broadcast, for ops that broadcast by themselves. */
const narrow = (x: Node): Node => (x.op === "broadcast_to" ? x.args[0]! : x);

/** A place to name in an error; a function where saying it costs something. */
export type Where = string | (() => string);

/** `2 arguments`, for messages. */
export function argumentsOf(row: OpRow): string {
  return row.arity === "some" ? "one argument or more" : `${row.arity} argument${row.arity === 1 ? "" : "s"}`;
}

const placeOf = (where: Where): string => (typeof where === "string" ? where : where());

/**
 * Applies an op of the table: checks arity and options, infers the shape, expands compositions,
 * merges with an equal node of the same graph.
 *
 * @param where the place to name in an error (a path in a model file, or the builder)
 * @throws NoetherflowError "name", "shape" or "range"
 */
export function apply(op: string, args: readonly Node[], options: Attrs = {}, where: Where = op): Node {
  const row = table.get(op);
  if (row === undefined)
    return fail("name", placeOf(where), "expected an op of the table", show(op), nearest(op, publicOps));
  if (row.arity === "some" ? args.length === 0 : args.length !== row.arity) {
    return fail("shape", placeOf(where), `${op} takes ${argumentsOf(row)}`, `${args.length}`);
  }
  const graph = args[0]!.graph;
  for (const arg of args) {
    if (arg.graph !== graph) {
      return fail(
        "unsupported",
        placeOf(where),
        "all arguments must belong to one model",
        `nodes of two models`,
        "Build the expression inside one model's loss function.",
      );
    }
  }
  const attrs = normalise(row, args, options, where);
  try {
    const shape = Object.freeze(row.shape(args, attrs));
    const size = sizeOf(shape);
    if (size > MAX_ENTRIES && size !== BATCH) {
      return fail(
        "memory",
        placeOf(where),
        `a value may have at most ${MAX_ENTRIES} entries`,
        `${op} of shape ${showShape(shape)}`,
      );
    }
    // what depends on the size of the batch waits for it
    const waits = row.couples
      ? row.options?.includes("count") && attrs.count === undefined
      : waitsForSize(op, args);
    if (row.expand && !waits) return row.expand(args, attrs);
    // where all samples have the same vector the rows of a stack are copies
    if (op === "batch_stack" && !waits && !isSampleValue(args[0]!)) return broadcastTo(args[0]!, shape);
    if (op === "scale" && attrs.c === 1) return args[0]!;
    if (op === "scale" && args[0]!.op === "scale") {
      const c = args[0]!.attrs.c! * attrs.c!;
      if (Number.isFinite(c) && (c !== 0 || attrs.c === 0 || args[0]!.attrs.c === 0))
        return scale(args[0]!.args[0]!, c);
    }
    if (op === "scale" && args[0]!.op === "number") {
      const c = args[0]!.attrs.c! * attrs.c!;
      if (Number.isFinite(c)) return graph.number(c);
    }
    // copies of one value are made as late as they can be
    if (op === "scale" && args[0]!.op === "broadcast_to")
      return broadcastTo(scale(args[0]!.args[0]!, attrs.c!), shape);
    if (row.kernel === "binary") {
      const [a, b] = [narrow(args[0]!), narrow(args[1]!)];
      if (a !== args[0] && sameShape(args[1]!.shape, shape)) return apply(op, [a, args[1]!], {}, where);
      if (b !== args[1] && sameShape(args[0]!.shape, shape)) return apply(op, [args[0]!, b], {}, where);
    }
    if ((op === "reshape" || op === "broadcast_to") && sameShape(shape, args[0]!.shape)) return args[0]!;
    if (op === "transpose" && args[0]!.op === "transpose") return args[0]!.args[0]!;
    if (op === "mul" && args[0]!.op === "number" && sameShape(shape, args[1]!.shape))
      return scale(args[1]!, args[0]!.attrs.c!);
    if (op === "mul" && args[1]!.op === "number" && sameShape(shape, args[0]!.shape))
      return scale(args[0]!, args[1]!.attrs.c!);
    let varies = 0;
    let phase = 0;
    for (const arg of args) {
      varies |= arg.varies;
      phase = Math.max(phase, arg.phase);
    }
    if (op === "batch_sum" || op === "batch_mean" || op === "batch_stack")
      return graph.intern(op, args, attrs, shape, VARIES_WITH_PARAMS, phase + 1);
    if (op === "batch_row" || op === "batch_pick") varies |= VARIES_WITH_SAMPLE;
    return graph.intern(op, args, attrs, shape, varies, phase);
  } catch (error) {
    if (error instanceof ShapeMismatch)
      return fail("shape", placeOf(where), `${op} expects ${error.expected}`, error.got);
    throw error;
  }
}

/** A mean over an axis of one entry per sample: its divisor is not known yet. */
function waitsForSize(op: string, args: readonly Node[]): boolean {
  return op === "mean" && sizeOf(args[0]!.shape) === BATCH;
}

function normalise(row: OpRow, args: readonly Node[], options: Attrs, where: Where): Attrs {
  const attrs: { -readonly [K in keyof Attrs]: Attrs[K] } = {};
  const rank = args[0]!.shape.length;
  if (row.options?.includes("axis")) {
    const perAxis = row.kernel === "axis" || row.kernel === "block";
    const usual = row.kernel === "axis" ? -1 : row.kernel === "block" ? 0 : null;
    const axis = options.axis === undefined ? usual : options.axis;
    if (axis === null && !perAxis) attrs.axis = null;
    else if (axis === null || !Number.isInteger(axis) || axis < -rank || axis >= rank) {
      fail(
        "range",
        placeOf(where),
        `${row.name} of ${describe(args[0]!)} takes an axis in [${-rank}, ${rank - 1}]${perAxis ? "" : " or null"}`,
        show(axis),
      );
    } else attrs.axis = axis < 0 ? axis + rank : axis;
  }
  if (row.options?.includes("keepdims") && options.keepdims) attrs.keepdims = true;
  if (row.options?.includes("shape") && options.shape === undefined)
    return fail("shape", placeOf(where), `${row.name} needs a shape`);
  if (row.options?.includes("shape")) attrs.shape = checkShape(placeOf(where), options.shape);
  if (row.options?.includes("c")) {
    if (typeof options.c !== "number" || !Number.isFinite(options.c)) {
      fail("range", placeOf(where), `${row.name} needs a finite number`, show(options.c));
    }
    attrs.c = options.c!;
  }
  if (row.options?.includes("slope")) {
    if (typeof options.slope !== "number" || !Number.isFinite(options.slope))
      fail("range", placeOf(where), `${row.name} needs slope, a finite number`, show(options.slope));
    attrs.slope = options.slope!;
  }
  if (row.options?.includes("count") && options.count !== undefined) attrs.count = options.count;
  const whole = (name: "start" | "stop" | "before" | "after", usual: number | undefined, least: number) => {
    const value = options[name] ?? usual;
    // safe, so that no sum of sizes can pass for that of a batch
    if (typeof value !== "number" || !Number.isSafeInteger(value) || value < least)
      fail(
        "range",
        placeOf(where),
        `${row.name} needs ${name}, an integer of at least ${least}`,
        show(value),
      );
    attrs[name] = value!;
  };
  if (row.options?.includes("start")) {
    whole("start", 0, 0);
    whole("stop", args[0]!.shape[attrs.axis!], attrs.start! + 1);
  }
  if (row.options?.includes("before")) {
    whole("before", 0, 0);
    whole("after", 0, 0);
  }
  return attrs;
}

/** An argument of a builder: a node, or a number where some other argument is a node. */
export type Operand = Node | number;

const isNode = (x: unknown): x is Node => typeof x === "object" && x !== null && "graph" in x && "op" in x;

/** `ops.geluTanh` for gelu_tanh. */
const builderOf = (op: string): string =>
  `ops.${op.replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase())}`;

function nodes(op: string, operands: readonly Operand[]): Node[] {
  let graph: Graph | undefined;
  for (const x of operands) if (isNode(x)) graph = x.graph;
  return operands.map((x) => {
    if (isNode(x)) return x;
    if (typeof x !== "number" || !Number.isFinite(x) || graph === undefined) {
      return fail(
        "range",
        builderOf(op),
        "expected values of the model, and finite numbers beside them",
        show(x),
      );
    }
    return graph.number(x);
  });
}

const unaryBuilder =
  (op: string) =>
  (x: Node, ...surplus: never[]): Node =>
    apply(op, nodes(op, [x, ...surplus]), {}, builderOf(op));
const binaryBuilder =
  (op: string) =>
  (a: Operand, b: Operand, ...surplus: never[]): Node =>
    apply(op, nodes(op, [a, b, ...surplus]), {}, builderOf(op));

/**
 * Matrix product by numpy's rules for ranks 1 and 2.
 *
 * @example ops.matmul(W, x).shape; // [4]
 */
export const matmul = binaryBuilder("matmul");
/** A^T of a matrix. */
export const transpose = unaryBuilder("transpose");
/**
 * a b^T of two vectors.
 *
 * @example ops.outer(y, x).shape; // [2, 3]
 */
export const outer = binaryBuilder("outer");
/**
 * a + b, with numpy broadcasting; so sub, mul and div.
 *
 * @example ops.add(ops.matmul(W, x), 1).shape; // [4]
 */
export const add = binaryBuilder("add");
/** a - b. */
export const sub = binaryBuilder("sub");
/** a b, entry by entry. */
export const mul = binaryBuilder("mul");
/** a / b, entry by entry. */
export const div = binaryBuilder("div");
/** tanh x. */
export const tanh = unaryBuilder("tanh");
/** 1 / (1 + e^-x). */
export const sigmoid = unaryBuilder("sigmoid");
/** ln(1 + e^x). */
export const softplus = unaryBuilder("softplus");
/** e^x. */
export const exp = unaryBuilder("exp");
/** ln x; NaN below 0. */
export const log = unaryBuilder("log");
/** Root of x; NaN below 0. */
export const sqrt = unaryBuilder("sqrt");
/** x^2, entry by entry. */
export const square = unaryBuilder("square");
/** max(x, 0); its derivative at 0 is 0. */
export const relu = unaryBuilder("relu");
/** |x|; its derivative at 0 is 0. */
export const abs = unaryBuilder("abs");
/** 1 where x > 0, else 0. */
export const step = unaryBuilder("step");
/** -1, 0 or 1. */
export const sign = unaryBuilder("sign");
/** Sum of squares of all entries. */
export const sqnorm = unaryBuilder("sqnorm");
/** Root of the sum of squares of all entries. */
export const norm = unaryBuilder("norm");
/** 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))). */
export const geluTanh = unaryBuilder("gelu_tanh");
/** c x for a number c. */
export const scale = (x: Node, c: number): Node => apply("scale", nodes("scale", [x]), { c }, "ops.scale");

/** Which entries a sum or a mean goes over. */
export interface AxisOptions {
  /** Axis of the per-sample value, negative from the end; null or absent sums over all entries. */
  readonly axis?: number | null;
  /** Keep the axis, with length 1: [2, 3] over axis 1 gives [2, 1] instead of [2]. */
  readonly keepdims?: boolean;
}
const axisAttrs = (op: string, options: AxisOptions): Attrs => {
  const allowed = table.get(op)!.options ?? [];
  checkKnown(`ops.${op}`, checkObject(`ops.${op}`, `options ${allowed.join(", ")}`, options), allowed);
  const { axis, keepdims } = options;
  return {
    ...(axis === undefined ? {} : { axis }),
    ...(keepdims ? { keepdims } : {}),
  };
};
/** Options a caller gave, none of them unknown. */
function known(op: string, options: object): Attrs {
  const allowed = table.get(op)!.options ?? [];
  const where = builderOf(op);
  checkKnown(where, checkObject(where, `options ${allowed.join(", ")}`, options), allowed);
  return { ...options };
}

/**
 * Sum of all entries, or along one axis.
 *
 * @example ops.sum(W, { axis: 0 }).shape; // [3]
 */
export const sum = (x: Node, options: AxisOptions = {}): Node =>
  apply("sum", nodes("sum", [x]), axisAttrs("sum", options), "ops.sum");
/** Mean of all entries, or along one axis. */
export const mean = (x: Node, options: AxisOptions = {}): Node =>
  apply("mean", nodes("mean", [x]), axisAttrs("mean", options), "ops.mean");
/** exp(x) / sum exp(x) along one axis, the last when absent. */
export const softmax = (x: Node, options: { axis?: number } = {}): Node =>
  apply("softmax", nodes("softmax", [x]), axisAttrs("softmax", options), "ops.softmax");
/** ln sum exp(x) along one axis, the last when absent. */
export const logsumexp = (x: Node, options: { axis?: number; keepdims?: boolean } = {}): Node =>
  apply("logsumexp", nodes("logsumexp", [x]), axisAttrs("logsumexp", options), "ops.logsumexp");
/** x repeated to a shape, by numpy's rules. */
export const broadcastTo = (x: Node, shape: Shape): Node =>
  apply("broadcast_to", nodes("broadcast_to", [x]), { shape }, "ops.broadcastTo");
/** The same entries, row-major, in another shape. */
export const reshape = (x: Node, shape: Shape): Node =>
  apply("reshape", nodes("reshape", [x]), { shape }, "ops.reshape");
/** erf x = 2 / sqrt(pi) integral of exp(-t^2) from 0 to x. */
export const erf = unaryBuilder("erf");
/** x (1 + erf(x / sqrt 2)) / 2. */
export const geluErf = unaryBuilder("gelu_erf");
/**
 * x where x > 0, else slope x.
 *
 * @example ops.leakyRelu(x, { slope: 0.1 }).shape; // [3]
 */
export const leakyRelu = (x: Node, options: { slope: number }): Node =>
  apply("leaky_relu", nodes("leaky_relu", [x]), known("leaky_relu", options), "ops.leakyRelu");
/**
 * Values one after the other along an axis, the first when absent.
 *
 * @example ops.concat([x, y]).shape; // [5]
 */
export const concat = (args: readonly Node[], options: { axis?: number } = {}): Node => {
  if (!Array.isArray(args)) fail("shape", "ops.concat", "expected an array of values", show(args));
  return apply("concat", nodes("concat", args), known("concat", options), "ops.concat");
};

/** Entries start to stop - 1 of an axis. */
export interface SliceOptions {
  /** The first axis when absent. */
  readonly axis?: number;
  /** 0 when absent. */
  readonly start?: number;
  /** One behind the last entry. */
  readonly stop?: number;
}
/**
 * Entries start to stop - 1 of an axis.
 *
 * @example ops.slice(W, { axis: 0, start: 1, stop: 3 }).shape; // [2, 3]
 */
export const slice = (x: Node, options: SliceOptions): Node =>
  apply("slice", nodes("slice", [x]), known("slice", options), "ops.slice");

/** How many zeros to put around the entries of an axis. */
export interface PadOptions {
  /** The first axis when absent. */
  readonly axis?: number;
  /** 0 when absent. */
  readonly before?: number;
  /** 0 when absent. */
  readonly after?: number;
}
/** Zeros before and after the entries of an axis. */
export const pad = (x: Node, options: PadOptions): Node =>
  apply("pad", nodes("pad", [x]), known("pad", options), "ops.pad");

/** Mean of a value over the samples of the batch, the same for all of them. */
export const batchMean = unaryBuilder("batch_mean");
/** Every sample's vector [h] as a row of one matrix [batch, h] that all samples see; the count is internal. */
export const batchStack = (x: Node, count?: number): Node =>
  apply("batch_stack", [x], count === undefined ? {} : { count });
/** Sample i receives row i [h] of the sum over samples of a matrix [batch, h]. */
export const batchRow = unaryBuilder("batch_row");
/** Internal: see the table. */
export const batchPick = (x: Node): Node => apply("batch_pick", [x]);
/** Internal: see the table. */
export const batchSum = (x: Node, count: number): Node => apply("batch_sum", [x], { count });

/**
 * The builders users write losses with: functions of a model's values (and of finite numbers beside them) that give a value.
 * Shapes are those of one sample, rank 0 to 2.
 *
 * @namespace
 */
export const ops = {
  matmul,
  transpose,
  outer,
  add,
  sub,
  mul,
  div,
  scale,
  tanh,
  sigmoid,
  softplus,
  exp,
  log,
  sqrt,
  square,
  relu,
  abs,
  step,
  sign,
  sum,
  mean,
  sqnorm,
  norm,
  softmax,
  logsumexp,
  geluTanh,
  geluErf,
  erf,
  leakyRelu,
  concat,
  slice,
  pad,
  broadcastTo,
  reshape,
  batchMean,
  /** Every sample's vector [h] as a row of one matrix [batch, h] that all samples see. */
  batchStack: unaryBuilder("batch_stack"),
  batchRow,
} as const;

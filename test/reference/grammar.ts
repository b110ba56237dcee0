/**
 * Random valid model files with data and parameters, reproducible from an integer: expressions of any ops of a given list
 * over parameters, inputs and constants of ranks 0 to 2, with values used several times, parameters in several places, and
 * values of parameters alone. The numbers come from mulberry32, so that a seed is all there is to say about a failure.
 *
 * Expressions grow from the leaves: every new value is evaluated on the data by dual.ts and thrown away unless it is finite,
 * not large, and its arguments are inside the domain of its op and away from kinks. So derivatives exist at theta.
 */
import {
  type Batch,
  type Dual,
  derivatives,
  duals,
  type Expression,
  lossesAlong,
  type ModelFile,
  meanOf,
  type Options,
  opsOver,
  type Shape,
  sizeOf,
} from "./dual.ts";

const table = opsOver(duals);

export const batchOps: readonly string[] = ["batch_mean", "batch_stack", "batch_row"];
export const kinkedOps: readonly string[] = ["relu", "leaky_relu", "abs", "step", "sign"];
/** Every op a model file may name. */
export const allOps: readonly string[] = Object.keys(table).filter(
  (op) => op !== "batch_sum" && op !== "batch_pick",
);

/** Ops that any model may use, because losses are put together with them. */
const ALWAYS = ["add", "mul", "sum", "square"];

export interface RandomModel {
  readonly seed: number;
  readonly model: ModelFile;
  readonly data: Readonly<Record<string, number[]>>;
  readonly theta: readonly number[];
  /** Samples in the data. */
  readonly N: number;
  /** The ops behind the loss. */
  readonly ops: ReadonlySet<string>;
}

/** Uniform numbers in [0, 1): mulberry32. */
export function uniforms(seed: number): () => number {
  let state = Math.imul(seed ^ 0x5bd1e995, 0x9e3779b1) | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

// --- what models are made of -------------------------------------------------------------------------------

/** Depth of a value; the reduction to a scalar makes it 6. */
const MAX_DEPTH = 5;
const MAX_ENTRIES = 24;
/** Sizes of leaves. In batch models the number of samples is larger, so that an axis of that size is one of samples. */
const MAX_SIZE = 4;
const MAX_PARAMETERS = 24;
/** Ops that make axes of sizes of their own. */
const SIZED = ["concat", "pad", "reshape", "broadcast_to"];
/** No value is larger. */
const LIMIT = 10;
/** How far from 0 arguments of div, log, sqrt and norm stay, and of kinked ops. */
const POSITIVE = 0.3;
const KINK = 0.05;

/** A value of the model: a leaf, a number, or an op of other values. */
interface Piece {
  readonly op: string;
  readonly args: readonly Piece[];
  /** What follows the arguments: options, or the number of scale. */
  readonly rest: readonly unknown[];
  readonly shape: Shape;
  readonly depth: number;
  /** Whether it changes with the sample, as far as its form tells. */
  readonly varies: boolean;
  readonly value: Batch<Dual>;
}

type LeafKind = "param" | "input" | "constant";

interface Leaf {
  readonly name: string;
  readonly kind: LeafKind;
  readonly trainable: boolean;
  readonly values: number[];
  readonly piece: Piece;
}

type Call = readonly [args: readonly Piece[], ...rest: unknown[]];

/** A model while it grows. */
class Draft {
  readonly leaves: Leaf[] = [];
  /** Values that may be used, leaves included. */
  readonly pieces: Piece[] = [];
  readonly used = new Map<Piece, number>();

  constructor(
    readonly next: () => number,
    readonly S: number,
    readonly ops: ReadonlySet<string>,
    /** Whether an axis of size S is one of samples. */
    readonly isBatch: boolean,
    /** Whether every argument is a new leaf. */
    readonly isFocused: boolean,
  ) {}

  // --- choices ---

  chance = (p: number): boolean => this.next() < p;
  between = (low: number, high: number): number => low + Math.floor(this.next() * (high - low + 1));
  choose = <T>(from: readonly T[]): T => from[Math.floor(this.next() * from.length)]!;
  allows = (op: string): boolean => this.ops.has(op);

  shape(rank = this.choose([0, 1, 1, 1, 2, 2, 2])): Shape {
    return Array.from({ length: rank }, () => this.choose([1, 2, 2, 3, 3, MAX_SIZE]));
  }

  /** An axis of a shape that is not one of samples, or null. */
  axis(shape: Shape): number | null {
    const axes = shape.flatMap((d, k) => (this.isSamples(d) ? [] : [k]));
    return axes.length === 0 ? null : this.choose(axes);
  }

  /** An axis counted from the front or from the end. */
  counted = (axis: number, shape: Shape): number => (this.chance(0.5) ? axis : axis - shape.length);

  isSamples = (size: number): boolean => this.isBatch && size === this.S;

  /** Whether a new axis may have this size. */
  isSize = (size: number): boolean => size <= (this.isBatch ? MAX_SIZE : 2 * MAX_SIZE);

  // --- values ---

  /** Three decimals of either sign, away from 0. */
  #draw = (): number => (this.chance(0.5) ? -1 : 1) * (this.between(300, 1500) / 1000);

  number(c: number): Piece {
    const value = Array.from({ length: this.S }, () => ({ shape: [], entries: [duals.of(c)] }));
    return { op: "number", args: [], rest: [c], shape: [], depth: 0, varies: false, value };
  }

  leaf(shape: Shape, kind: LeafKind): Piece {
    const size = sizeOf(shape);
    const values = Array.from({ length: kind === "input" ? this.S * size : size }, this.#draw);
    const value = Array.from({ length: this.S }, (_, n) => ({
      shape,
      entries: values.slice(...(kind === "input" ? [n * size, (n + 1) * size] : [])).map((x) => duals.of(x)),
    }));
    const count = this.leaves.filter((l) => l.kind === kind).length;
    const name = `${{ param: "W", input: "x", constant: "c" }[kind]}${count}`;
    const piece: Piece = {
      op: "leaf",
      args: [],
      rest: [name],
      shape,
      depth: 0,
      varies: kind === "input",
      value,
    };
    const trainable = kind !== "param" || this.isFocused || this.chance(0.9);
    this.leaves.push({ name, kind, trainable, values, piece });
    this.pieces.push(piece);
    return piece;
  }

  /** A leaf of a kind drawn by chance, while there is room for parameters. */
  #fresh(shape: Shape): Piece | null {
    if (shape.some((d) => !this.isSize(d) && !this.isFocused)) return null;
    const entries = this.leaves.flatMap((l) => (l.kind === "param" ? l.values : [])).length;
    const hasRoom = entries + sizeOf(shape) <= MAX_PARAMETERS && this.leaves.length < 8;
    if (!this.isFocused) {
      const kind = hasRoom && this.chance(0.55) ? "param" : this.chance(0.7) ? "input" : "constant";
      return this.leaf(shape, kind);
    }
    // parameters that move with and without the samples, straight and bent
    const p = this.leaf(shape, "param");
    if (this.chance(0.3)) return p;
    const mixed = this.make("add", [p, this.leaf(shape, "input")]);
    return mixed !== null && this.chance(0.5) ? this.make("scale", [mixed], 0.5) : mixed;
  }

  /** An earlier value whose shape fits, or a leaf of a shape that does. */
  operand(fits: (shape: Shape) => boolean, fresh: Shape | null): Piece | null {
    const known = this.pieces.filter((p) => p.depth < MAX_DEPTH && fits(p.shape));
    const leaves = known.filter((p) => p.depth === 0);
    if (!this.isFocused && leaves.length > 0 && this.chance(0.15)) return this.choose(leaves);
    if (fresh !== null && (this.isFocused || known.length === 0 || this.chance(0.25))) {
      const leaf = this.#fresh(fresh);
      if (leaf !== null || known.length === 0) return leaf;
    }
    if (known.length === 0) return null;
    // mostly what nobody uses yet, so that models grow in depth; else something for a second time
    const inner = known.filter((p) => p.depth > 0);
    const way = this.next();
    const wanted = way < 0.7 ? inner.filter((p) => !this.used.has(p)) : inner;
    return this.choose(wanted.length > 0 ? wanted : known);
  }

  /** The op of these arguments, if it is allowed here. */
  make(op: string, args: readonly Piece[], ...rest: readonly unknown[]): Piece | null {
    const depth = 1 + Math.max(...args.map((a) => a.depth));
    if (!this.allows(op) || depth > MAX_DEPTH || !isInDomain(op, args)) return null;
    const options = rest.find((x): x is Options => typeof x === "object") ?? {};
    const numbers = rest.filter((x) => typeof x === "number").map((c) => this.number(c));
    const value = table[op]!(
      [...args, ...numbers].map((a) => a.value),
      options,
    );
    const { shape } = value[0]!;
    if (sizeOf(shape) > MAX_ENTRIES || shape.some((d) => !this.isSize(d) && !this.isSamples(d))) return null;
    // an axis that is as long as the batch by chance would be taken for one of samples
    const samples = (of: Shape) => of.filter(this.isSamples).length;
    if (SIZED.includes(op) && samples(shape) !== samples(args[0]!.shape)) return null;
    if (!value.every((v) => v.entries.every((x) => Math.abs(x.at[0]) <= LIMIT))) return null;
    const isShared = op === "batch_mean" || op === "batch_stack";
    const varies = op === "batch_row" || (!isShared && args.some((a) => a.varies));
    const piece: Piece = { op, args, rest, shape, depth, varies, value };
    for (const arg of args) this.used.set(arg, (this.used.get(arg) ?? 0) + 1);
    this.pieces.push(piece);
    return piece;
  }

  /** A value that is at least POSITIVE, made of this one. */
  positive(x: Piece | null): Piece | null {
    if (x === null) return null;
    if (entriesOf(x).every((e) => e.at[0] >= POSITIVE)) return x;
    const made = this.make(this.choose(["softplus", "square", "exp"]), [x]) ?? this.make("square", [x]);
    return made && this.make("add", [made, this.number(0.5)]);
  }
}

/** A value for an op over the batch: mostly one that changes with the sample. */
function sampled(d: Draft, x: Piece | null): Call | null {
  if (x === null || x.varies || x.shape.some(d.isSamples) || d.chance(0.15)) return x && [[x]];
  const mixed = d.make(d.choose(["add", "mul"]), [x, d.leaf(x.shape, "input")]);
  return mixed && [[mixed]];
}

const entriesOf = (x: Piece): Dual[] => x.value.flatMap((v) => v.entries);

function isInDomain(op: string, args: readonly Piece[]): boolean {
  const every = (x: Piece, holds: (e: Dual) => boolean) => entriesOf(x).every(holds);
  if (op === "log" || op === "sqrt") return every(args[0]!, (e) => e.at[0] >= POSITIVE);
  if (op === "div") return every(args[1]!, (e) => Math.abs(e.at[0]) >= POSITIVE);
  if (op === "norm")
    return args[0]!.value.every((v) => v.entries.reduce((n, e) => n + e.at[0] ** 2, 0) >= POSITIVE);
  // a 0 that no rounding can move (of pad, of relu) stays on its side
  if (kinkedOps.includes(op))
    return every(args[0]!, (e) => Math.abs(e.at[0]) >= KINK || (e.at[0] === 0 && e.error[0] === 0));
  return true;
}

const any = (): boolean => true;

function broadcasts(a: Shape, b: Shape): boolean {
  return a.every((d, k) => {
    const other = b[b.length - a.length + k] ?? 1;
    return d === other || d === 1 || other === 1;
  });
}

/** A shape that broadcasts with another, its own axes kept, made 1, or left off at the front. */
function partnerOf(d: Draft, shape: Shape): Shape {
  const kept = shape.map((n) => (d.isSamples(n) || d.chance(0.25) ? 1 : n));
  return kept.slice(d.chance(0.3) ? d.between(0, shape.length) : 0);
}

// --- a call of every op ------------------------------------------------------------------------------------

type Proposal = (d: Draft) => Call | null;

const one =
  (fits: (shape: Shape) => boolean, fresh: (d: Draft) => Shape, ...rest: unknown[]): Proposal =>
  (d) => {
    const x = d.operand(fits, fresh(d));
    return x && [[x], ...rest];
  };
const unary: Proposal = one(any, (d) => d.shape());
const positive: Proposal = (d) => {
  const x = d.positive(d.operand(any, d.shape()));
  return x && [[x]];
};

function pair(d: Draft): [Piece, Piece] | null {
  const a = d.operand(any, d.shape());
  if (a === null) return null;
  const literal = d.number(d.between(-8, 8) / 4 || 1.5);
  const b =
    !d.isFocused && d.chance(0.15)
      ? literal
      : d.operand((s) => broadcasts(a.shape, s), partnerOf(d, a.shape));
  return b && (d.chance(0.5) ? [a, b] : [b, a]);
}

/** Now and then a call spells out its shapes. */
function spelled(d: Draft, op: string, args: [Piece, Piece]): Call {
  if (d.isBatch || !d.chance(0.15)) return [args];
  const result = table[op]!(
    args.map((a) => a.value),
    {},
  )[0]!.shape;
  return [args, { shapes: [args[0].shape, args[1].shape, result] }];
}

const binary =
  (op: string): Proposal =>
  (d) => {
    const args = pair(d);
    return args && spelled(d, op, args);
  };

/** Reductions over all entries, or along an axis. */
const reduction: Proposal = (d) => {
  const x = d.operand(any, d.shape());
  if (x === null) return null;
  const keepdims = d.chance(0.4) ? { keepdims: d.chance(0.7) } : {};
  if (x.shape.length === 0 || d.chance(0.35))
    return [[x], d.chance(0.5) ? keepdims : { axis: null, ...keepdims }];
  return [[x], { axis: d.counted(d.between(0, x.shape.length - 1), x.shape), ...keepdims }];
};

const alongAxis =
  (hasKeepdims: boolean): Proposal =>
  (d) => {
    const x = d.operand((s) => s.length > 0, d.shape(d.between(1, 2)));
    if (x === null) return null;
    const keepdims = hasKeepdims && d.chance(0.4) ? { keepdims: true } : {};
    if (d.chance(0.2)) return [[x], keepdims];
    return [[x], { axis: d.counted(d.between(0, x.shape.length - 1), x.shape), ...keepdims }];
  };

/** Options of an op along an axis whose default is 0. */
const along = (d: Draft, axis: number, shape: Shape, rest: object): object =>
  axis === 0 && d.chance(0.3) ? rest : { axis: d.counted(axis, shape), ...rest };

const hasOpenAxis =
  (d: Draft) =>
  (shape: Shape): boolean =>
    shape.some((n) => !d.isSamples(n));

const proposals: Readonly<Record<string, Proposal>> = {
  matmul: (d) => {
    const a = d.operand((s) => s.length > 0, d.shape(d.between(1, 2)));
    if (a === null) return null;
    const inner = a.shape.at(-1)!;
    const fresh = d.isSamples(inner) ? null : d.chance(0.5) ? [inner] : [inner, d.between(1, MAX_SIZE)];
    const b = d.operand((s) => s[0] === inner, fresh);
    return b && spelled(d, "matmul", [a, b]);
  },
  transpose: one(
    (s) => s.length === 2,
    (d) => d.shape(2),
  ),
  outer: (d) => {
    const a = d.operand((s) => s.length === 1, d.shape(1));
    const b = d.operand((s) => s.length === 1, d.shape(1));
    return a && b && [[a, b]];
  },
  add: binary("add"),
  sub: binary("sub"),
  mul: binary("mul"),
  div: (d) => {
    const args = pair(d);
    if (args === null) return null;
    const isFar = entriesOf(args[1]).every((e) => Math.abs(e.at[0]) >= POSITIVE);
    const below = isFar ? args[1] : d.positive(args[1]);
    return below && spelled(d, "div", [args[0], below]);
  },
  scale: (d) => {
    const x = d.operand(any, d.shape());
    return x && [[x], d.choose([-1.5, -0.75, 0.5, 1, 2])];
  },
  tanh: unary,
  relu: unary,
  leaky_relu: (d) => {
    const x = d.operand(any, d.shape());
    return x && [[x], { slope: d.choose([0.1, 0.25, -0.5, 0]) }];
  },
  sigmoid: unary,
  exp: unary,
  log: positive,
  sqrt: positive,
  square: unary,
  abs: unary,
  softplus: unary,
  step: unary,
  sign: unary,
  erf: unary,
  gelu_tanh: unary,
  gelu_erf: unary,
  sum: reduction,
  mean: reduction,
  sqnorm: unary,
  norm: unary,
  softmax: alongAxis(false),
  logsumexp: alongAxis(true),
  concat: (d) => {
    const first = d.operand(hasOpenAxis(d), d.shape(d.between(1, 2)));
    const axis = first && d.axis(first.shape);
    if (first === null || axis === null) return null;
    const parts = [first];
    const fits = (s: Shape) =>
      s.length === first.shape.length && s.every((n, k) => k === axis || n === first.shape[k]);
    for (let count = d.between(d.isFocused ? 2 : 1, 3); parts.length < count; ) {
      const fresh = first.shape.map((n, k) => (k === axis ? d.between(1, 2) : n));
      const part = d.operand(fits, fresh.some(d.isSamples) ? null : fresh);
      if (part === null) return null;
      parts.push(part);
    }
    const options = along(d, axis, first.shape, {});
    const sized = d.chance(0.5) ? parts : parts.reverse();
    return Object.keys(options).length === 0 && d.chance(0.5) ? [sized] : [sized, options];
  },
  slice: (d) => {
    const x = d.operand(hasOpenAxis(d), d.shape(d.between(1, 2)));
    const axis = x && d.axis(x.shape);
    if (x === null || axis === null) return null;
    const start = d.between(0, x.shape[axis]! - 1);
    return [[x], along(d, axis, x.shape, { start, stop: d.between(start + 1, x.shape[axis]!) })];
  },
  pad: (d) => {
    const x = d.operand(hasOpenAxis(d), d.shape(d.between(1, 2)));
    const axis = x && d.axis(x.shape);
    if (x === null || axis === null) return null;
    return [[x], along(d, axis, x.shape, { before: d.between(0, 2), after: d.between(0, 2) })];
  },
  reshape: (d) => {
    const x = d.operand((s) => !s.some(d.isSamples), d.shape());
    if (x === null) return null;
    const size = sizeOf(x.shape);
    const divisors = Array.from({ length: size }, (_, k) => k + 1).filter((k) => size % k === 0);
    const rows = d.choose(divisors);
    const shapes = [[size], [rows, size / rows], ...(size === 1 ? [[]] : [])];
    return [[x], { shape: d.choose(shapes) }];
  },
  broadcast_to: (d) => {
    const x = d.operand((s) => !s.some(d.isSamples), partnerOf(d, d.shape()));
    if (x === null) return null;
    const grown = x.shape.map((n) => (n === 1 ? d.between(1, 3) : n));
    return [[x], { shape: [...d.shape(d.between(0, 2 - x.shape.length)), ...grown] }];
  },
  batch_mean: (d) => sampled(d, d.operand(any, d.shape())),
  batch_stack: (d) =>
    sampled(
      d,
      d.operand((s) => s.length === 1 && s[0]! <= MAX_SIZE, d.shape(1)),
    ),
  batch_row: (d) => {
    const isTable = (s: Shape) => s.length === 2 && s[0] === d.S;
    if (d.isFocused) return one(isTable, () => [d.S, d.between(1, 3)])(d);
    const vector = d.operand((s) => s.length === 1 && !d.isSamples(s[0]!), d.shape(1));
    const rows = d.operand(isTable, null) ?? (vector && d.make("batch_stack", [vector]));
    if (rows === null) return null;
    // a matrix that is another one for every sample
    const weights = d.operand((s) => broadcasts(s, rows.shape), partnerOf(d, rows.shape));
    const table = d.chance(0.3) || weights === null ? rows : d.make("mul", [rows, weights]);
    return table && isTable(table.shape) ? [[table]] : null;
  },
};

// --- models ------------------------------------------------------------------------------------------------

/** A scalar of a value. */
function scalarOf(d: Draft, x: Piece): Piece | null {
  if (x.shape.length === 0) return x;
  const way = d.choose(["sum", "mean", "sqnorm", "logsumexp"].filter(d.allows));
  if (way !== "logsumexp") return above(d, way, [x]);
  const reduced = above(d, way, [x], { axis: d.counted(0, x.shape) });
  return reduced && (reduced.shape.length === 0 ? reduced : above(d, "sum", [reduced]));
}

/** An op above the values, where depth does not count. */
const above = (d: Draft, op: string, args: readonly Piece[], ...rest: unknown[]): Piece | null => {
  const made = d.make(
    op,
    args.map((x) => ({ ...x, depth: 0 })),
    ...rest,
  );
  return made && { ...made, args };
};

function behind(root: Piece): Piece[] {
  const found = new Set<Piece>();
  const visit = (x: Piece): void => {
    if (found.has(x)) return;
    for (const arg of x.args) visit(arg);
    found.add(x);
  };
  visit(root);
  return [...found];
}

/** The file of a loss: values used several times are mostly named, sometimes written again. */
function fileOf(d: Draft, loss: Piece): ModelFile {
  const order = behind(loss);
  const uses = new Map<Piece, number>();
  for (const x of order) for (const arg of x.args) uses.set(arg, (uses.get(arg) ?? 0) + 1);
  const names = new Map<Piece, string>();
  const lets: [string, Expression][] = [];
  const written = (x: Piece): Expression => {
    const name = names.get(x);
    if (name !== undefined) return name;
    if (x.op === "number" || x.op === "leaf") return x.rest[0] as Expression;
    const rest = x.rest.filter((o) => typeof o !== "object" || Object.keys(o as object).length > 0);
    return [x.op, ...x.args.map(written), ...rest];
  };
  for (const x of order) {
    if (x.args.length === 0 || (uses.get(x) ?? 0) < 2 || d.chance(0.2)) continue;
    const name = `t${lets.length}`;
    lets.push([name, written(x)]);
    names.set(x, name);
  }
  const of = (kind: LeafKind) => d.leaves.filter((l) => l.kind === kind);
  const constants = of("constant").map((l) => [l.name, { shape: l.piece.shape, values: l.values }] as const);
  return {
    params: Object.fromEntries(
      of("param").map((l) => [
        l.name,
        l.trainable ? l.piece.shape : { shape: l.piece.shape, trainable: false },
      ]),
    ),
    inputs: Object.fromEntries(of("input").map((l) => [l.name, l.piece.shape])),
    ...(constants.length > 0 ? { constants: Object.fromEntries(constants) } : {}),
    ...(lets.length > 0 ? { let: lets } : {}),
    loss: written(loss),
  };
}

function finished(d: Draft, seed: number, loss: Piece): RandomModel {
  return {
    seed,
    model: fileOf(d, loss),
    data: Object.fromEntries(d.leaves.flatMap((l) => (l.kind === "input" ? [[l.name, l.values]] : []))),
    theta: d.leaves.flatMap((l) => (l.kind === "param" ? l.values : [])),
    N: d.leaves.some((l) => l.kind === "input") ? d.S : 1,
    ops: new Set(behind(loss).flatMap((x) => (x.args.length === 0 ? [] : [x.op]))),
  };
}

/** Up to four values that nobody uses, the deepest first, as one scalar. */
function lossOf(d: Draft): Piece | null {
  const ends = d.pieces.filter((p) => p.depth > 0 && !d.used.has(p)).sort((a, b) => b.depth - a.depth);
  let loss: Piece | null = null;
  for (const end of ends.slice(0, d.between(1, 4))) {
    const term = scalarOf(d, end);
    if (term === null || term.args.length === 0) continue;
    const sum: Piece | null = loss && above(d, "add", [loss, term]);
    loss = loss === null ? term : sum;
    if (loss === null) return null;
  }
  return loss;
}

/** One attempt at a model; null where chance led nowhere. */
function attempt(d: Draft, seed: number): RandomModel | null {
  const names = Object.keys(proposals).filter(d.allows);
  const wanted = d.between(6, 20);
  for (let made = 0, tries = 0; made < wanted && tries < 4 * wanted; tries++) {
    const op = d.isBatch && d.chance(0.3) ? d.choose(batchOps.filter(d.allows)) : d.choose(names);
    const call = proposals[op]!(d);
    if (call !== null && d.make(op, ...call) !== null) made++;
  }
  const loss = lossOf(d);
  if (loss === null) return null;
  const made = finished(d, seed, loss);
  if (made.theta.length === 0) return null;
  if (d.isBatch && !(batchOps.some((op) => made.ops.has(op)) && made.N === d.S)) return null;
  // parameters move the loss, and one model in eight may be straight
  const directions = [1, 2].map((k) => made.theta.map((_, i) => Math.sin(k + i)));
  const along = meanOf(lossesAlong(made.model, made.data, made.theta, directions[0]!, directions[1]!));
  const slopes = derivatives(made.model, made.data, made.theta).gradient.values;
  const isMoving = slopes.some((x) => Math.abs(x) > 0.01);
  return isMoving && (along.at[3] !== 0 || d.chance(0.125)) ? made : null;
}

/**
 * A model of the allowed ops.
 *
 * @param ops  names; where batch ops are among them every model has some
 */
export function randomModel(seed: number, ops: readonly string[]): RandomModel {
  const allowed = new Set([...ALWAYS, ...ops]);
  const isBatch = batchOps.some((op) => allowed.has(op));
  for (let k = 0; k < 200; k++) {
    const next = uniforms(1000 * seed + k);
    const S = isBatch ? MAX_SIZE + 1 + Math.floor(3 * next()) : 1 + Math.floor(6 * next());
    const made = attempt(new Draft(next, S, allowed, isBatch, false), seed);
    if (made !== null) return made;
  }
  throw new Error(`no model came of seed ${seed}`);
}

/**
 * A small model about one op, for checks of its rules: every argument is a parameter of its own, with or without an input
 * added, and the loss a weighted sum of the squares of the result, or the square of its distance to a constant. Numbers of samples are literal sizes here (a parameter
 * may have one row per sample), which model files cannot say.
 */
export function modelOf(op: string, seed: number): RandomModel {
  const allowed = new Set([...allOps]);
  for (let k = 0; k < 200; k++) {
    const next = uniforms(1000 * seed + k);
    const S = 1 + Math.floor(3 * next());
    const d = new Draft(next, S, allowed, false, true);
    const call = proposals[op]!(d);
    const value = call && d.make(op, ...call);
    if (value === null) continue;
    const constant = d.leaf(value.shape, "constant");
    // two ways, so that no op is on every path an even number of times, where two wrong signs would make a right one
    const isWeighted = seed % 2 === 0;
    const bent = isWeighted ? above(d, "square", [value]) : above(d, "sub", [value, constant]);
    const weighted = bent && isWeighted ? above(d, "mul", [bent, constant]) : bent;
    const loss = weighted && above(d, isWeighted ? "sum" : "sqnorm", [weighted]);
    if (loss && d.leaves.some((l) => l.kind === "input")) return finished(d, seed, loss);
  }
  throw new Error(`no model of ${op} came of seed ${seed}`);
}

import { fail, showShape } from "../errors.ts";

/** Shape of a per-sample value: rank 0 (scalar) to 2 (matrix). */
export type Shape = readonly number[];

/** Options of one node, normalised by its op's row. */
export interface Attrs {
  readonly axis?: number | null;
  readonly keepdims?: boolean;
  readonly shape?: Shape;
  readonly c?: number;
  readonly name?: string;
  readonly kind?: NoiseKind;
  readonly below?: number;
  readonly values?: Float64Array;
}

/** Random leaves a sampler may hold. */
export type NoiseKind = "normal" | "uniform" | "sign" | "index";

/** What a value changes with. A value without bits is a constant. */
export const VARIES_WITH_PARAMS = 1;
export const VARIES_WITH_SAMPLE = 2;

/**
 * One value of an expression graph: an op of the table applied to nodes of the same graph. Equal
 * subtrees of one graph are one node, so identity is equality.
 */
export interface Node {
  readonly graph: Graph;
  readonly id: number;
  readonly op: string;
  readonly args: readonly Node[];
  readonly attrs: Attrs;
  readonly shape: Shape;
  /** Bits of VARIES_WITH_*. */
  readonly varies: number;
  /** How many sums over the batch lie on the longest path to a leaf: 0 before any, 1 after one. */
  readonly phase: number;
}

/** A graph: an interning table of nodes. Leaves are made here, ops in ops.ts. */
export class Graph {
  #interned = new Map<string, Node>();
  #constants: Node[] = [];
  #count = 0;

  get size(): number {
    return this.#count;
  }

  /** The node with this op, arguments and options; the existing one if there is one. */
  intern(op: string, args: readonly Node[], attrs: Attrs, shape: Shape, varies: number, phase: number): Node {
    const key = `${op}(${args.map((a) => a.id).join(",")})${attrKey(attrs)}`;
    const known = this.#interned.get(key);
    if (known !== undefined) return known;
    const node: Node = Object.freeze({
      graph: this,
      id: this.#count++,
      op,
      args,
      attrs,
      shape,
      varies,
      phase,
    });
    this.#interned.set(key, node);
    return node;
  }

  param(name: string, shape: Shape): Node {
    return this.intern("param", [], { name, shape }, shape, VARIES_WITH_PARAMS, 0);
  }

  input(name: string, shape: Shape): Node {
    return this.intern("input", [], { name, shape }, shape, VARIES_WITH_SAMPLE, 0);
  }

  noise(name: string, kind: NoiseKind, shape: Shape, below?: number): Node {
    const attrs: Attrs = below === undefined ? { name, kind, shape } : { name, kind, shape, below };
    return this.intern("noise", [], attrs, shape, VARIES_WITH_SAMPLE, 0);
  }

  /** A scalar literal. */
  number(c: number): Node {
    return this.intern("number", [], { c }, [], 0, 0);
  }

  /** A constant with values; named ones are written back under their name. */
  constant(values: Float64Array, shape: Shape, name = "constant"): Node {
    let unique = name;
    for (const node of this.#constants) {
      if (node.attrs.name !== unique) continue;
      if (sameShape(node.shape, shape) && sameValues(node.attrs.values!, values)) return node;
      unique = `${unique}'`;
    }
    const node = this.intern("constant", [], { name: unique, values, shape }, shape, 0, 0);
    this.#constants.push(node);
    return node;
  }
}

function attrKey(attrs: Attrs): string {
  let key = "";
  if (attrs.axis !== undefined) key += `|axis${attrs.axis}`;
  if (attrs.keepdims) key += "|keep";
  if (attrs.shape !== undefined) key += `|shape${attrs.shape.join("x")}`;
  // -0 and 0 are different literals
  if (attrs.c !== undefined) key += Object.is(attrs.c, -0) ? "|c-0" : `|c${attrs.c}`;
  if (attrs.name !== undefined) key += `|name:${attrs.name}`;
  if (attrs.kind !== undefined) key += `|kind${attrs.kind}|${attrs.below ?? ""}`;
  return key;
}

function sameValues(a: Float64Array, b: Float64Array): boolean {
  return a.length === b.length && a.every((v, i) => Object.is(v, b[i]));
}

export function sameShape(a: Shape, b: Shape): boolean {
  return a.length === b.length && a.every((n, i) => n === b[i]);
}

/** Entries of a value of this shape. */
export function sizeOf(shape: Shape): number {
  return shape.reduce((n, d) => n * d, 1);
}

/** `W [16, 8]` for a leaf, `tanh(...) [16]` for an op: how messages name a node. */
export function describe(node: Node): string {
  const shape = showShape(node.shape);
  if (node.op === "number") return `${node.attrs.c}`;
  if (node.args.length === 0) return `${node.attrs.name} ${shape}`;
  return `${node.op}(...) ${shape}`;
}

/**
 * Nodes reachable from the roots, arguments before users, in ascending id. Interning gives every
 * node a larger id than its arguments, so this order is topological; it is also the canonical
 * order in which contributions are added.
 */
export function reachable(roots: readonly Node[]): Node[] {
  const seen = new Set<Node>();
  const stack = [...roots];
  while (stack.length > 0) {
    const node = stack.pop()!;
    if (seen.has(node)) continue;
    seen.add(node);
    for (const arg of node.args) stack.push(arg);
  }
  return [...seen].sort((a, b) => a.id - b.id);
}

/** Shape literal as it came from a caller: an array of at most two positive integers. */
export function checkShape(where: string, value: unknown): Shape {
  if (!Array.isArray(value) || value.length > 2) {
    fail("shape", where, "a shape is an array of at most two positive integers", describeShape(value));
  }
  for (const d of value) {
    if (typeof d !== "number" || !Number.isInteger(d) || d < 1) {
      fail("shape", where, "a shape is an array of at most two positive integers", describeShape(value));
    }
  }
  if (sizeOf(value) > MAX_ENTRIES) {
    fail("memory", where, `a value may have at most ${MAX_ENTRIES} entries`, describeShape(value));
  }
  return Object.freeze([...value]) as Shape;
}

/** More entries than this cannot be held beside anything else in 4 GiB. */
export const MAX_ENTRIES = 268_435_456;

function describeShape(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}

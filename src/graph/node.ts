import { fail, show, showShape } from "../errors.ts";

/** Shape of a per-sample value: rank 0 (scalar) to 2 (matrix). */
export type Shape = readonly number[];

/** Options of one node, normalised by its op's row. */
export interface Attrs {
  readonly axis?: number | null;
  readonly keepdims?: boolean;
  readonly shape?: Shape;
  readonly c?: number;
  readonly slope?: number;
  readonly start?: number;
  readonly stop?: number;
  readonly before?: number;
  readonly after?: number;
  /** Samples of the batch that a sum over it goes through. */
  readonly count?: number;
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
  /** @internal */
  readonly graph: Graph;
  /** @internal */
  readonly id: number;
  /** Name of the op in model files, or "param", "input", "noise", "constant", "number". */
  readonly op: string;
  /** What the op is applied to. */
  readonly args: readonly Node[];
  /** @internal */
  readonly attrs: Attrs;
  /** Of one sample: rank 0 to 2. */
  readonly shape: Shape;
  /** @internal Bits of VARIES_WITH_*. */
  readonly varies: number;
  /** @internal How many sums over the batch lie on the longest path to a leaf: 0 before any, 1 after one. */
  readonly phase: number;
}

/** Whether a value differs from sample to sample. */
export const isSampleValue = (node: Node): boolean => (node.varies & VARIES_WITH_SAMPLE) !== 0;

/** A graph: an interning table of nodes. Leaves are made here, ops in ops.ts. */
export class Graph {
  #interned = new Map<string, Node>();
  /** Constants by the name they were asked for, and the names they have. */
  #constants = new Map<string, Node[]>();
  #constantNames = new Set<string>();
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

  /** The weight of a sample in the update under way. */
  weight(): Node {
    return this.intern("weight", [], { name: "~weight" }, [], VARIES_WITH_SAMPLE, 0);
  }

  /** A scalar literal. */
  number(c: number): Node {
    return this.intern("number", [], { c }, [], 0, 0);
  }

  /**
   * A constant with values. One of the same name, shape and values is reused; where only the name is
   * taken another is found by adding primes.
   */
  constant(values: Float64Array, shape: Shape, name = "constant"): Node {
    const named = this.#constants.get(name) ?? [];
    for (const node of named) {
      if (sameShape(node.shape, shape) && sameValues(node.attrs.values!, values)) return node;
    }
    let unique = name;
    while (this.#constantNames.has(unique)) unique = `${unique}'`;
    const node = this.intern("constant", [], { name: unique, values, shape }, shape, 0, 0);
    this.#constants.set(name, [...named, node]);
    this.#constantNames.add(unique);
    return node;
  }
}

const NUMBERS = ["slope", "start", "stop", "before", "after", "count"] as const;

function attrKey(attrs: Attrs): string {
  let key = "";
  if (attrs.axis !== undefined) key += `|axis${attrs.axis}`;
  if (attrs.keepdims) key += "|keep";
  if (attrs.shape !== undefined) key += `|shape${attrs.shape.join("x")}`;
  // -0 and 0 are different literals
  if (attrs.c !== undefined) key += Object.is(attrs.c, -0) ? "|c-0" : `|c${attrs.c}`;
  for (const name of NUMBERS) if (attrs[name] !== undefined) key += `|${name}${attrs[name]}`;
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

/**
 * The size of an axis that has one entry per sample of the batch, before it is known how many there
 * are. `instantiate` replaces it.
 */
export const BATCH = Infinity;

/** Entries of a value of this shape; Infinity before the size of the batch is known. */
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
 * Nodes reachable from the roots, arguments before users: depth first, arguments in order. The order
 * is the structure's own, not that of creation, so a model read back from its file has the same; it
 * is the canonical order in which contributions are added. Iterative, for any depth.
 */
export function reachable(roots: readonly Node[]): Node[] {
  const done = new Set<Node>();
  const stack: { node: Node; next: number }[] = [];
  for (const root of roots) {
    if (!done.has(root)) stack.push({ node: root, next: 0 });
    while (stack.length > 0) {
      const top = stack[stack.length - 1]!;
      const arg = top.node.args[top.next++];
      if (arg === undefined) {
        done.add(top.node);
        stack.pop();
      } else if (!done.has(arg)) stack.push({ node: arg, next: 0 });
    }
  }
  return [...done];
}

/** Shape literal as it came from a caller: an array of at most two positive integers. */
export function checkShape(where: string, value: unknown): Shape {
  if (!Array.isArray(value) || value.length > 2) {
    fail("shape", where, "a shape is an array of at most two positive integers", show(value));
  }
  for (const d of value) {
    if (typeof d !== "number" || !Number.isInteger(d) || d < 1) {
      fail("shape", where, "a shape is an array of at most two positive integers", show(value));
    }
  }
  if (sizeOf(value) > MAX_ENTRIES) {
    fail("memory", where, `a value may have at most ${MAX_ENTRIES} entries`, show(value));
  }
  return Object.freeze([...value]) as Shape;
}

/** More entries than this cannot be held beside anything else in 4 GiB. */
export const MAX_ENTRIES = 268_435_456;

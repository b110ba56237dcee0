import { pullback, standIn } from "./derive.ts";
import { structured } from "./inner.ts";
import { type Node, reachable, sizeOf } from "./node.ts";
import {
  add,
  apply,
  broadcastTo,
  concat,
  div,
  matmul,
  mul,
  outer,
  pad,
  reshape,
  rowOf,
  scale,
  slice,
  softmax,
  sqnorm,
  square,
  sub,
  sum,
  transpose,
} from "./ops.ts";
import { substitute } from "./substitute.ts";

/**
 * The trace of the Hessian without probes. The sum over unit vectors of what `curvature` in derive.ts gives,
 *
 *   Tr H = sum over values y = f(x) of  <cotangent of y, sum_e D^2 f(x) [J e, J e]>,   J = dx / dtheta
 *
 * takes only inner products of the rows of J: for an elementwise f the squared lengths q_i = |grad x_i|^2, weighted by
 * f''(x_i). (|f - y|^2 gives the Gauss-Newton part that way, twice the sum of |grad f_i|^2, and the activations behind it the rest.)
 * Lengths go forward with the values. Through a layer they do where the gradients of its inputs are orthogonal, as those of
 * the units of a first layer are:  |grad (W a)_i|^2 = |a|^2 + sum_j W_ij^2 |grad a_j|^2.  Where they are not, each
 * |grad x_i|^2 is that of a way back of its own, its terms by block products of factors.
 */

/** Ways back for single entries that one trace may take. */
const MAX_ENTRIES = 128;
/** Values of a loss that are looked through: rules go down the expression by recursion. */
const MAX_DEPTH = 2000;

/**
 * Tr H of the loss of one sample with respect to some leaves.
 *
 * @returns null where some op has no rule here: products of values with a parameter in common, softmax, batch ops
 */
export function hessianTrace(loss: Node, leaves: readonly Node[]): Node | null {
  if (reachable([loss]).length > MAX_DEPTH) return null;
  try {
    return new Lengths(leaves).trace(loss);
  } catch (reason) {
    if (reason === UNKNOWN) return null;
    throw reason;
  }
}

/** Thrown where there is no rule. */
const UNKNOWN = Symbol("no rule");

function unknown(): never {
  throw UNKNOWN;
}

const LINEAR = new Set([
  "add",
  "sub",
  "scale",
  "reshape",
  "transpose",
  "broadcast_to",
  "sum",
  "slice",
  "pad",
  "concat",
]);

const isElementwise = (node: Node): boolean => rowOf(node.op)?.kernel === "unary" || node.op === "leaky_relu";

class Lengths {
  readonly #leaves: readonly Node[];
  readonly #supports = new Map<Node, bigint>();
  readonly #lengths = new Map<Node, Node>();
  #entries = 0;

  constructor(leaves: readonly Node[]) {
    this.#leaves = leaves;
  }

  trace(loss: Node): Node | null {
    const bent = reachable([loss]).filter((n) => n.args.length > 0 && !LINEAR.has(n.op) && this.#moves(n));
    const one = loss.graph.number(1);
    const cotangents = pullback(loss, one, bent, "perSample");
    const terms = bent.flatMap((node, i) => {
      const ct = cotangents[i]!;
      const term = ct === null ? null : this.#bend(node, ct);
      return term === null ? [] : [term];
    });
    return terms.length === 0 ? one.graph.number(0) : terms.reduce((a, b) => add(a, b));
  }

  /** The leaves a value depends on, a bit each. */
  #support(node: Node): bigint {
    for (const n of this.#supports.has(node) ? [] : reachable([node])) {
      if (this.#supports.has(n)) continue;
      const leaf = this.#leaves.indexOf(n);
      const below = n.args.reduce((bits, a) => bits | this.#supports.get(a)!, 0n);
      const isFlat = n.op === "step" || n.op === "sign";
      this.#supports.set(n, leaf >= 0 ? 1n << BigInt(leaf) : isFlat ? 0n : below);
    }
    return this.#supports.get(node)!;
  }

  readonly #moves = (node: Node): boolean => this.#support(node) !== 0n;

  #disjoint(a: Node, b: Node): boolean {
    return (this.#support(a) & this.#support(b)) === 0n;
  }

  /** <ct, sum_e D^2 f [J e, J e]> of one op, null for 0. */
  #bend(node: Node, ct: Node): Node | null {
    const [x, b] = [node.args[0]!, node.args[1]!];
    if (isElementwise(node)) {
      const second = secondSlope(node);
      return second === null ? null : total(mul(mul(ct, second), this.#length(x)));
    }
    switch (node.op) {
      case "sqnorm":
        return scale(mul(ct, total(this.#length(x))), 2);
      case "mul":
        if (x === b) return scale(total(mul(ct, this.#length(x))), 2);
        return this.#disjoint(x, b) ? null : scale(total(mul(ct, this.#products(x, b, node))), 2);
      case "div": {
        if (!this.#moves(b)) return null;
        const own = mul(node, this.#length(b));
        const both = this.#disjoint(x, b) ? own : sub(own, this.#products(x, b, node));
        return scale(total(mul(ct, div(both, square(b)))), 2);
      }
      case "matmul":
      case "outer":
        return this.#disjoint(x, b) ? null : unknown();
      case "logsumexp": {
        if (x.shape.length !== 1) return unknown();
        const p = softmax(x, { axis: 0 });
        const spread = sub(total(mul(p, this.#length(x))), this.#squared(x, p));
        return mul(total(ct), spread);
      }
      default:
        return unknown();
    }
  }

  /** |grad x_i|^2 of every entry of a value that moves. */
  #length(node: Node): Node {
    const known = this.#lengths.get(node);
    if (known !== undefined) return known;
    const made = this.#carried(node) ?? this.#apart(node);
    this.#lengths.set(node, made);
    return made;
  }

  /** From the lengths of the arguments, or null where they do not say. */
  #carried(node: Node): Node | null {
    const { shape, graph } = node;
    const [a, b] = [node.args[0]!, node.args[1]!];
    if (node.args.length === 0) return spread(graph.number(1), shape);
    if (isElementwise(node)) return mul(square(slopeOf(node)), this.#length(a));
    switch (node.op) {
      case "scale":
        return scale(this.#length(a), node.attrs.c! * node.attrs.c!);
      case "reshape":
        return reshape(this.#length(a), shape);
      case "transpose":
        return transpose(this.#length(a));
      case "broadcast_to":
        return broadcastTo(this.#length(a), shape);
      case "slice":
        return slice(this.#length(a), {
          axis: node.attrs.axis!,
          start: node.attrs.start!,
          stop: node.attrs.stop!,
        });
      case "pad":
        return pad(this.#length(a), {
          axis: node.attrs.axis!,
          before: node.attrs.before!,
          after: node.attrs.after!,
        });
      case "concat":
        return concat(
          node.args.map((x) => (this.#moves(x) ? this.#length(x) : spread(graph.number(0), x.shape))),
          { axis: node.attrs.axis! },
        );
      case "sum":
        return this.#isOrthogonal(a)
          ? sum(this.#length(a), {
              axis: node.attrs.axis ?? null,
              ...(node.attrs.keepdims ? { keepdims: true } : {}),
            })
          : null;
      case "add":
      case "sub":
        return this.#disjoint(a, b)
          ? this.#ofBoth(
              node,
              (q) => q,
              (q) => q,
            )
          : null;
      case "mul":
        if (a === b) return scale(mul(square(a), this.#length(a)), 4);
        if (!this.#disjoint(a, b)) return null;
        return this.#ofBoth(
          node,
          (q) => mul(q, square(b)),
          (q) => mul(square(a), q),
        );
      case "div":
        if (!this.#disjoint(a, b)) return null;
        return this.#ofBoth(
          node,
          (q) => div(q, square(b)),
          (q) => mul(square(div(node, b)), q),
        );
      case "outer":
        if (!this.#disjoint(a, b)) return null;
        return this.#ofBoth(
          node,
          (q) => outer(q, square(b)),
          (q) => outer(square(a), q),
        );
      case "matmul": {
        if (!this.#disjoint(a, b) || !this.#isOrthogonal(a) || !this.#isOrthogonal(b)) return null;
        return this.#ofBoth(
          node,
          (q) => throughColumns(q, b, node),
          (q) => throughRows(a, q, node),
        );
      }
      default:
        return null;
    }
  }

  /** The sum of what both arguments bring, each where it moves. */
  #ofBoth(node: Node, first: (q: Node) => Node, second: (q: Node) => Node): Node {
    const [a, b] = [node.args[0]!, node.args[1]!];
    const parts = [
      ...(this.#moves(a) ? [broadcastTo(first(this.#length(a)), node.shape)] : []),
      ...(this.#moves(b) ? [broadcastTo(second(this.#length(b)), node.shape)] : []),
    ];
    return parts.reduce((p, q) => add(p, q));
  }

  /** Whether the gradients of different entries are orthogonal for every sample and theta. */
  #isOrthogonal(node: Node): boolean {
    if (!this.#moves(node) || node.args.length === 0 || sizeOf(node.shape) === 1) return true;
    const [a, b] = [node.args[0]!, node.args[1]!];
    if (isElementwise(node)) return this.#isOrthogonal(a);
    switch (node.op) {
      case "scale":
      case "reshape":
      case "transpose":
      case "slice":
      case "pad":
        return this.#isOrthogonal(a);
      case "add":
      case "sub":
      case "mul":
      case "div":
        // an entry that is copied would not be orthogonal to itself
        return (
          this.#disjoint(a, b) &&
          [a, b].every(
            (x) => !this.#moves(x) || (sizeOf(x.shape) === sizeOf(node.shape) && this.#isOrthogonal(x)),
          )
        );
      case "matmul":
        if (this.#moves(a)) return !this.#moves(b) && b.shape.length === 1 && this.#isOrthogonal(a);
        return a.shape.length === 1 && this.#isOrthogonal(b);
      default:
        return false;
    }
  }

  /** Every |grad x_i|^2 by a way back of its own. */
  #apart(node: Node): Node {
    return this.#each(node, (unit) => this.#squared(node, unit));
  }

  /** <grad a_i, grad b_i> for every entry of a product or quotient. */
  #products(a: Node, b: Node, node: Node): Node {
    if (a.shape.join() !== node.shape.join() || b.shape.join() !== node.shape.join()) return unknown();
    return this.#each(node, (unit) => this.#inner(this.#back(a, unit), this.#back(b, unit)));
  }

  #each(node: Node, of: (unit: Node) => Node): Node {
    const { shape, graph } = node;
    const n = sizeOf(shape);
    this.#entries += n;
    if (this.#entries > MAX_ENTRIES) return unknown();
    if (shape.length === 0) return of(graph.number(1));
    const entries = Array.from({ length: n }, (_, i) => {
      const unit = new Float64Array(n);
      unit[i] = 1;
      return reshape(of(graph.constant(unit, shape, "unit")), [1]);
    });
    return reshape(n === 1 ? entries[0]! : concat(entries), shape);
  }

  #back(node: Node, ct: Node): (Node | null)[] {
    return pullback(node, ct, this.#leaves, "perSample");
  }

  /** |J^T ct|^2, ct held fixed. */
  #squared(node: Node, ct: Node): Node {
    const back = this.#back(node, ct);
    return this.#inner(back, back);
  }

  #inner(a: readonly (Node | null)[], b: readonly (Node | null)[]): Node {
    const parts = a.flatMap((x, i) => (x === null || b[i] === null ? [] : [structured.inner(x, b[i]!)]));
    return parts.length === 0 ? this.#leaves[0]!.graph.number(0) : parts.reduce((p, q) => add(p, q));
  }
}

/** One number for all entries stays one number. */
const spread = (c: Node, shape: readonly number[]): Node => broadcastTo(c, shape);

/** The number all entries of a value are copies of, or null. */
const commonOf = (x: Node): Node | null =>
  x.op === "broadcast_to" && x.args[0]!.shape.length === 0 ? x.args[0]! : null;

const total = (x: Node): Node => {
  const common = commonOf(x);
  if (common !== null) return scale(common, sizeOf(x.shape));
  return x.shape.length === 0 ? x : sum(x);
};

/** sum_k q_ik B_kj^2. */
function throughColumns(q: Node, B: Node, node: Node): Node {
  const common = commonOf(q);
  if (common === null) return matmul(q, square(B));
  return B.shape.length === 1
    ? spread(mul(common, sqnorm(B)), node.shape)
    : broadcastTo(mul(common, sum(square(B), { axis: 0 })), node.shape);
}

/** sum_k A_ik^2 q_kj. */
function throughRows(A: Node, q: Node, node: Node): Node {
  const common = commonOf(q);
  if (common === null) return matmul(square(A), q);
  if (A.shape.length === 1) return spread(mul(common, sqnorm(A)), node.shape);
  const rows = mul(common, sum(square(A), { axis: 1 }));
  return node.shape.length === 1 ? rows : broadcastTo(reshape(rows, [rows.shape[0]!, 1]), node.shape);
}

/** f'(x) of an elementwise op: what its rule makes of the cotangent 1. */
function slopeOf(node: Node): Node {
  return rowOf(node.op)!.vjp!(node, node.graph.number(1), [true])[0] ?? unknown();
}

/**
 * f''(x), null for 0: f' is elementwise as well, so the way back through it with ones is its slope. Of a leaf that stands for
 * x: with x itself, simplifications of the graph could see through to what lies behind it.
 */
function secondSlope(node: Node): Node | null {
  const x = node.args[0]!;
  const leaf = standIn(x, "x");
  const slope = slopeOf(apply(node.op, [leaf], node.attrs, node.op));
  const [second] = pullback(slope, broadcastTo(node.graph.number(1), slope.shape), [leaf], "perSample");
  return second == null ? null : substitute([second], node.graph, new Map([[leaf, x]]))[0]!;
}

import { type Node, sizeOf } from "./node.ts";

/** An elementwise op computed together with the one whose result it uses. */
export interface Pair {
  /** The op that is not computed on its own. */
  readonly inner: Node;
  /** Kernel of the pair, see assembly/fused.ts; or a sum of products. */
  readonly kernel: string;
  /** The other operand of the outer op; null when that is a number. */
  readonly other: Node | null;
}

const FUSED = new Set(["add", "sub", "mul", "scale"]);

/** Every node whose buffer is read, with how often. Roots count as one use each. */
export interface Uses {
  readonly count: ReadonlyMap<Node, number>;
  readonly isUsed: (node: Node) => boolean;
}

/** The node whose buffer a product reads: transposes are strides. */
export function viewed(node: Node): Node {
  let inner = node;
  while (inner.op === "transpose") inner = inner.args[0]!;
  return inner;
}

/** The node whose memory a value is read from: views of all kinds seen through. */
export function storage(node: Node): Node {
  let inner = node;
  while (
    inner.op === "transpose" ||
    inner.op === "reshape" ||
    (inner.op === "slice" && inner.attrs.axis === 0)
  )
    inner = inner.args[0]!;
  return inner;
}

/** A product under a sum over the batch is never formed per sample. */
export function isFusedProduct(arg: Node): boolean {
  return arg.shape.length > 0 && (arg.op === "outer" || arg.op === "matmul");
}

/**
 * Nodes that need a buffer of their own, and how often each is read. Transposes read by products
 * alone are strides, and outer or matrix products read by a sum over the batch alone are
 * accumulated as they arise.
 */
export function countUses(order: readonly Node[], roots: readonly Node[]): Uses {
  const count = new Map<Node, number>();
  const use = (node: Node) => count.set(node, (count.get(node) ?? 0) + 1);
  for (const root of roots) use(root);
  for (let i = order.length - 1; i >= 0; i--) {
    const node = order[i]!;
    const isSum = node.op === "batch_sum";
    if (!count.has(node) && !isSum) continue;
    for (const arg of node.args) {
      if (isSum && isFusedProduct(arg)) for (const inner of arg.args) use(viewed(inner));
      else if (node.op === "matmul") use(viewed(arg));
      else use(arg);
    }
  }
  return { count, isUsed: (node) => count.has(node) };
}

/** A sum over products or squares that nobody else reads. */
function isSumOfProducts(outer: Node, uses: Uses): boolean {
  const inner = outer.args[0]!;
  return (
    outer.op === "sum" &&
    uses.isUsed(outer) &&
    (inner.op === "mul" || inner.op === "square") &&
    uses.count.get(inner) === 1
  );
}

/**
 * Pairs of elementwise ops that are computed in one pass: the inner one is used once, and all
 * operands lie alike; also products that are summed. A node is inner of at most one pair and outer of at most one, never both.
 *
 * @param together whether two nodes are computed in the same stage
 * @param alike    whether two nodes lie in the same layout
 */
export function pairUp(
  order: readonly Node[],
  uses: Uses,
  together: (a: Node, b: Node) => boolean,
  alike: (a: Node, b: Node) => boolean,
): Map<Node, Pair> {
  const pairs = new Map<Node, Pair>();
  const taken = new Set<Node>();
  const fits = (node: Node, to: Node) => alike(node, to) && sizeOf(node.shape) === sizeOf(to.shape);
  for (const outer of order) {
    if (isSumOfProducts(outer, uses) && together(outer.args[0]!, outer)) {
      const inner = outer.args[0]!;
      if (!pairs.has(inner) && !taken.has(inner) && inner.args.every((a) => fits(a, inner))) {
        const kernel = outer.attrs.axis == null ? "sumAllMul" : "sumAxisMul";
        pairs.set(outer, { inner, kernel, other: null });
        taken.add(inner);
        continue;
      }
    }
    if (!FUSED.has(outer.op) || !uses.isUsed(outer)) continue;
    for (const [side, inner] of outer.args.entries()) {
      if (!FUSED.has(inner.op) || uses.count.get(inner) !== 1 || taken.has(inner) || pairs.has(inner))
        continue;
      const other = outer.args[1 - side] ?? null;
      // two numbers have no room in one instruction
      if (inner.op === "scale" && outer.op === "scale") continue;
      if (
        !together(inner, outer) ||
        !fits(inner, outer) ||
        !inner.args.every((a) => fits(a, outer)) ||
        (other !== null && !fits(other, outer))
      )
        continue;
      const second =
        outer.op === "sub" && side === 1 ? "From" : outer.op[0]!.toUpperCase() + outer.op.slice(1);
      pairs.set(outer, { inner, kernel: `${inner.op}${second}`, other });
      taken.add(inner);
      break;
    }
  }
  return pairs;
}

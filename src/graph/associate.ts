import { isSampleValue, type Node, reachable, sizeOf } from "./node.ts";
import { add, apply, batchSum, matmul, mul, outer, scale, sqnorm, sum, transpose } from "./ops.ts";

/**
 * Products in another order. What a linear layer gives, y = B s + c with the same B and c for all samples, need not be
 * formed for every sample where all that is made of it is
 *
 *   A y        = (A B) s + A c
 *   sum y z^T  = B (sum s z^T) + c (sum z)^T      over the batch, likewise with y on the right
 *   |y|^2      = s^T (B^T B) s + 2 (B^T c)^T s + |c|^2
 *
 * Products of parameters alone are taken once, so a linear net whose hidden layer is wider than its ends costs no more than
 * a small one. The first two have the error bounds of the order as written. The third has not: its error is some u |B|^2 |s|^2
 * however small |y|^2 is, so it comes with a bound to be compared with (`Associated.bounds`).
 */

/** y = map base + shift; nodes of the rewritten graph. */
interface Image {
  readonly map: Node;
  readonly base: Node;
  readonly shift: Node | null;
}

/** Values in another order. */
export interface Associated {
  readonly values: readonly Node[];
  /** The values with |B|^2 |s|^2 + |c|^2, twice, in the place of each |y|^2 that was rewritten; null where none was. */
  readonly bounds: readonly (Node | null)[];
}

/** More layers than this are left as written or all rewritten, nothing between. */
const MAX_CHOICES = 12;

/**
 * The cheapest order of the products below some values, by multiplications for each sample.
 *
 * @param count samples a product of parameters is shared by
 * @returns null where the order as written is the cheapest
 */
export function associate(values: readonly Node[], count: number): Associated | null {
  const order = reachable(values);
  const layers = order.filter((n) => affineIn(n) !== null);
  if (layers.length === 0) return null;
  const tried = (chosen: ReadonlySet<Node>) => {
    const made = rewrite(values, order, chosen, false);
    return { chosen, made, cost: costOf(made, count) };
  };
  const asWritten = tried(new Set()).cost;
  let best = tried(new Set(layers));
  if (layers.length <= MAX_CHOICES) {
    for (let improves = true; improves; ) {
      improves = false;
      for (const layer of layers) {
        const other = new Set(best.chosen);
        if (!other.delete(layer)) other.add(layer);
        const next = tried(other);
        if (next.cost < best.cost) {
          best = next;
          improves = true;
        }
      }
    }
  }
  if (best.cost >= asWritten) return null;
  const bounds = rewrite(values, order, best.chosen, true);
  return { values: best.made, bounds: bounds.map((b, i) => (b === best.made[i] ? null : b)) };
}

/** The argument in which a value of the sample is affine with coefficients that all samples share, else null. */
function affineIn(node: Node): Node | null {
  if (node.shape.length !== 1 || !isSampleValue(node)) return null;
  const [a, b] = [node.args[0]!, node.args[1]];
  switch (node.op) {
    case "matmul": {
      const [matrix, vector] = a.shape.length === 2 ? [a, b!] : [b!, a];
      return vector.shape.length === 1 && matrix.shape.length === 2 && !isSampleValue(matrix) ? vector : null;
    }
    case "add":
    case "sub": {
      const [moving, shift] = isSampleValue(a) ? [a, b!] : [b!, a];
      const fits = sizeOf(moving.shape) === sizeOf(node.shape) && moving.shape.length === 1;
      return fits && !isSampleValue(shift) && shift.shape.join() === node.shape.join() ? moving : null;
    }
    default:
      return null;
  }
}

/** factor (map base + shift); no map is the identity. */
export interface Affine {
  readonly factor: number;
  readonly map: Node | null;
  readonly base: Node;
  readonly shift: Node | null;
}

/**
 * A vector of the sample as affine images of ever earlier vectors, with maps and shifts that all samples share: first of
 * itself, by the identity. U (W x + b) is that of W x + b, of W x and of x.
 */
export function imagesOf(vector: Node): Affine[] {
  const images: Affine[] = [{ factor: 1, map: null, base: vector, shift: null }];
  for (;;) {
    const { factor, map, base, shift } = images.at(-1)!;
    if (base.op === "scale") {
      // a shift is not scaled with what it is added to
      const c = base.attrs.c!;
      if (shift !== null && (c === 0 || !Number.isFinite(1 / c))) return images;
      images.push({ factor: factor * c, map, base: base.args[0]!, shift: shift && scale(shift, 1 / c) });
      continue;
    }
    const moving = affineIn(base);
    if (moving === null) return images;
    const [a, b] = [base.args[0]!, base.args[1]!];
    if (base.op === "matmul") {
      const matrix = moving === b ? a : transpose(b);
      images.push({ factor, map: map === null ? matrix : matmul(map, matrix), base: moving, shift });
      continue;
    }
    const isFirst = moving === a;
    const other = isFirst ? b : a;
    // a - b is -(b - a)
    const sign = !isFirst && base.op === "sub" ? -1 : 1;
    const by = isFirst && base.op === "sub" ? -1 : 1;
    const added = scale(map === null ? other : matmul(map, other), sign * by);
    const before = shift === null ? added : add(scale(shift, sign), added);
    images.push({ factor: factor * sign, map, base: moving, shift: before });
  }
}

/** Rewrites values, taking some layers for images; with `bounding` a squared norm that is rewritten is replaced by its bound. */
function rewrite(
  values: readonly Node[],
  order: readonly Node[],
  chosen: ReadonlySet<Node>,
  bounding: boolean,
): Node[] {
  const made = new Map<Node, Node>();
  const images = new Map<Node, Image>();
  const at = (node: Node) => made.get(node)!;
  for (const node of order) {
    const image = imageOf(node, at, images);
    if (image !== null) {
      made.set(node, evaluated(image));
      if (chosen.has(node)) images.set(node, image);
      continue;
    }
    const arg = node.args[0];
    const inner = arg === undefined ? undefined : images.get(arg);
    if (node.op === "sqnorm" && inner !== undefined && sizeOf(inner.base.shape) < sizeOf(arg!.shape))
      made.set(node, bounding ? boundOf(inner) : squaredNorm(inner));
    else if (node.op === "batch_sum" && arg!.op === "outer") {
      const count = node.attrs.count!;
      const [p, q] = [arg!.args[0]!, arg!.args[1]!];
      made.set(node, sumOfOuter(images.get(p) ?? at(p), images.get(q) ?? at(q), count));
    } else if (node.op === "batch_sum" && inner !== undefined)
      made.set(node, sumOf(inner, node.attrs.count!));
    else if (node.op === "batch_sum" && node.shape.length === 0)
      made.set(node, sumOfNumber(at(arg!), node.attrs.count!));
    else {
      const args = node.args.map(at);
      const same = args.every((a, i) => a === node.args[i]);
      made.set(node, same ? node : apply(node.op, args, node.attrs));
    }
  }
  return values.map(at);
}

/** A layer as an image of what its argument is an image of, or of the argument itself. */
function imageOf(node: Node, at: (node: Node) => Node, images: ReadonlyMap<Node, Image>): Image | null {
  const moving = affineIn(node);
  if (moving === null) return null;
  const inner = images.get(moving);
  const [a, b] = [node.args[0]!, node.args[1]!];
  if (node.op === "matmul") {
    const map = moving === b ? at(a) : transpose(at(b));
    if (inner === undefined) return { map, base: at(moving), shift: null };
    const shift = inner.shift && matmul(map, inner.shift);
    return { map: matmul(map, inner.map), base: inner.base, shift };
  }
  // a shift of something that is no image of anything else would be an image by the identity
  if (inner === undefined) return null;
  const [first, second] = [moving === a, node.op === "add"];
  const other = at(first ? b : a);
  const [own, by] = [first || second ? 1 : -1, !first || second ? 1 : -1];
  const shift = scale(other, by);
  return {
    map: scale(inner.map, own),
    base: inner.base,
    shift: inner.shift === null ? shift : add(scale(inner.shift, own), shift),
  };
}

function evaluated({ map, base, shift }: Image): Node {
  const linear = matmul(map, base);
  return shift === null ? linear : add(linear, shift);
}

function squaredNorm({ map, base, shift }: Image): Node {
  const back = transpose(map);
  const moved = matmul(matmul(back, map), base);
  if (shift === null) return sum(mul(base, moved));
  const rest = sum(mul(base, add(moved, scale(matmul(back, shift), 2))));
  return add(rest, sqnorm(shift));
}

function boundOf({ map, base, shift }: Image): Node {
  const linear = mul(sqnorm(base), sqnorm(map));
  return scale(shift === null ? linear : add(linear, sqnorm(shift)), 2);
}

const isNode = (x: Image | Node): x is Node => "op" in x;

/** sum over the batch of p q^T. */
function sumOfOuter(p: Image | Node, q: Image | Node, count: number): Node {
  if (!isNode(p)) {
    const linear = matmul(p.map, sumOfOuter(p.base, q, count));
    return p.shift === null ? linear : add(linear, outer(p.shift, sumOf(q, count)));
  }
  if (!isNode(q)) {
    const linear = matmul(sumOfOuter(p, q.base, count), transpose(q.map));
    return q.shift === null ? linear : add(linear, outer(sumOf(p, count), q.shift));
  }
  return batchSum(outer(p, q), count);
}

function sumOf(y: Image | Node, count: number): Node {
  if (isNode(y)) return isSampleValue(y) ? batchSum(y, count) : scale(y, count);
  const linear = matmul(y.map, sumOf(y.base, count));
  return y.shift === null ? linear : add(linear, scale(y.shift, count));
}

/** Sum over the batch of one number: of its terms one by one, and without the factors that all samples share. */
function sumOfNumber(x: Node, count: number): Node {
  if (!isSampleValue(x)) return scale(x, count);
  if (x.op === "add") return add(sumOfNumber(x.args[0]!, count), sumOfNumber(x.args[1]!, count));
  const factors = factorsOf(x);
  const own = factors.filter(isSampleValue);
  if (own.length === 1 && own[0]!.op === "add")
    return timesAll(
      sumOfNumber(own[0]!, count),
      factors.filter((f) => !isSampleValue(f)),
    );
  // in one order, so that equal products are one sum
  const product = own.sort((p, q) => p.id - q.id).reduce((p, q) => mul(p, q));
  return timesAll(
    batchSum(product, count),
    factors.filter((f) => !isSampleValue(f)),
  );
}

const timesAll = (x: Node, factors: readonly Node[]): Node => factors.reduce((p, q) => mul(p, q), x);

/** Factors of a product of numbers. */
function factorsOf(x: Node): Node[] {
  if (x.op === "mul" && x.shape.length === 0) return x.args.flatMap(factorsOf);
  if (x.op === "scale") return [...factorsOf(x.args[0]!), x.graph.number(x.attrs.c!)];
  return [x];
}

/** Multiplications for each sample below some values, those that all samples share divided among them. */
export function costOf(values: readonly Node[], count: number): number {
  let cost = 0;
  for (const node of reachable(values)) {
    const size = sizeOf(node.shape);
    const each =
      node.op === "matmul" ? size * node.args[0]!.shape.at(-1)! : node.args.length === 0 ? 0 : size;
    cost += isSampleValue(node) ? each : each / count;
  }
  return cost;
}

import { imagesOf } from "./associate.ts";
import { sumTerms } from "./inner.ts";
import { isSampleValue, type Node, sizeOf } from "./node.ts";
import { outer, reshape, scale } from "./ops.ts";

/**
 * Per-sample gradients as a linear image of few products of vectors of the sample. The gradient of a dense layer is
 * delta a^T. Where delta = L s and a = R t with matrices that all samples share, it is L (s t^T) R^T; so in a linear net the
 * gradients of all layers are images of e x^T, the error and the input. A covariance of P^2 entries then follows from that
 * of the lifted vector phi, the entries of all s t^T, of which there may be far fewer.
 */

/** One product s t^T of the lifted vector; a vector alone has null for the other. */
export interface Lift {
  readonly s: Node | null;
  readonly t: Node | null;
  /** Its entries as a node of the sample, row-major. */
  readonly node: Node;
  /** Entries of s and of t. */
  readonly rows: number;
  readonly cols: number;
  /** Of its first entry in phi. */
  readonly offset: number;
}

/** left (s t^T) right^T, a term of the gradient of a block; a null matrix is the identity. */
export interface LiftedTerm {
  readonly lift: Lift;
  readonly left: Node | null;
  readonly right: Node | null;
}

export interface Lifted {
  /** Entries of phi. */
  readonly size: number;
  readonly lifts: readonly Lift[];
  /** Terms of every block's gradient; none where it is the same for all samples. */
  readonly blocks: readonly (readonly LiftedTerm[])[];
}

/** factor map base; no map is the identity, no base the number 1. */
interface Factor {
  readonly factor: number;
  readonly map: Node | null;
  readonly base: Node | null;
}

/** Ways of writing one term of a gradient as a sum of products of factors. */
type Ways = readonly (readonly (readonly [Factor, Factor])[])[];

const ONE: Factor = { factor: 1, map: null, base: null };

/** Gradients as images of a vector phi that is as short as can be found; null where that is no shorter than they are. */
export function lift(gradients: readonly (Node | null)[]): Lifted | null {
  const terms = gradients.flatMap((g, block) =>
    g === null ? [] : partsOf(g).map((ways) => ({ block, ways })),
  );
  const starts = [terms.map(({ ways }) => ways.length - 1), terms.map(() => 0)];
  let best: { choice: number[]; size: number } | null = null;
  for (const choice of starts) {
    let size = sizeOfLift(terms, choice);
    for (let improves = true; improves; ) {
      improves = false;
      for (const [i, { ways }] of terms.entries()) {
        for (let way = 0; way < ways.length; way++) {
          const other = choice.map((w, j) => (j === i ? way : w));
          const next = sizeOfLift(terms, other);
          if (next >= size) continue;
          choice[i] = way;
          size = next;
          improves = true;
        }
      }
    }
    if (best === null || size < best.size) best = { choice, size };
  }
  const P = gradients.reduce((n, g) => n + (g === null ? 0 : sizeOf(g.shape)), 0);
  if (best === null || best.size === 0 || best.size >= P) return null;
  const lifts = new Map<string, Lift>();
  const blocks: LiftedTerm[][] = gradients.map(() => []);
  let offset = 0;
  for (const [i, { block, ways }] of terms.entries()) {
    for (const [u, v] of ways[best.choice[i]!]!) {
      const node = productOf(u.base, v.base);
      if (node === null) continue;
      const key = keyOf(u, v);
      let known = lifts.get(key);
      if (known === undefined) {
        const [rows, cols] = [entries(u.base), entries(v.base)];
        known = { s: u.base, t: v.base, node, rows, cols, offset };
        lifts.set(key, known);
        offset += rows * cols;
      }
      const term = withFactor(known, u, v);
      // one term without matrices is a copy and comes first; others are added by a product with the identity
      const isCopy = term.left === null && term.right === null;
      const terms = blocks[block]!;
      if (!isCopy) terms.push(term);
      else if (terms.some((t) => t.left === null && t.right === null))
        terms.push({ ...term, left: diagonal(term.lift, 1) });
      else terms.unshift(term);
    }
  }
  return { size: offset, lifts: [...lifts.values()], blocks };
}

const entries = (base: Node | null): number => (base === null ? 1 : sizeOf(base.shape));
const keyOf = (u: Factor, v: Factor): string => `${u.base?.id ?? ""}|${v.base?.id ?? ""}`;

/** What is the same for all samples has no covariance. */
const productOf = (s: Node | null, t: Node | null): Node | null =>
  s !== null && t !== null ? outer(s, t) : (s ?? t);

/** A number in front goes into a matrix; into one of its own where there is none. */
function withFactor(lift: Lift, u: Factor, v: Factor): LiftedTerm {
  const factor = u.factor * v.factor;
  if (factor === 1) return { lift, left: u.map, right: v.map };
  if (u.map !== null) return { lift, left: scale(u.map, factor), right: v.map };
  if (v.map !== null) return { lift, left: null, right: scale(v.map, factor) };
  return { lift, left: diagonal(lift, factor), right: null };
}

/** factor times the identity, as the matrix on the left of a term. */
function diagonal({ rows, node }: Lift, factor: number): Node {
  const values = new Float64Array(rows * rows);
  for (let i = 0; i < rows; i++) values[i * (rows + 1)] = factor;
  return node.graph.constant(values, [rows, rows], "factor");
}

/** Entries of phi, if every term is written in the chosen way. */
function sizeOfLift(terms: readonly { readonly ways: Ways }[], choice: readonly number[]): number {
  const sizes = new Map<string, number>();
  for (const [i, { ways }] of terms.entries()) {
    for (const [u, v] of ways[choice[i]!]!) {
      if (u.base !== null || v.base !== null) sizes.set(keyOf(u, v), entries(u.base) * entries(v.base));
    }
  }
  return [...sizes.values()].reduce((n, size) => n + size, 0);
}

/** The terms of a gradient that are written apart from each other. */
function partsOf(g: Node): Ways[] {
  const terms = sumTerms(g).map(({ node, factor }) => waysOf(node, factor));
  if (g.shape.length !== 1 || terms.length === 1) return terms;
  // a vector may also be taken as it is: an error, rather than an output and a target
  return [[...waysOf(g, 1), terms.flatMap((ways) => ways.at(-1)!)]];
}

/** A term in all ways, as written first and from the earliest vectors last. */
function waysOf(node: Node, factor: number): Ways {
  const scaled = (f: Factor): Factor => ({ ...f, factor: f.factor * factor });
  if (node.op === "outer") {
    const [left, right] = [factorsOf(node.args[0]!), factorsOf(node.args[1]!)];
    return left.flatMap((us) => right.map((vs) => us.flatMap((u) => vs.map((v) => [scaled(u), v] as const))));
  }
  if (node.shape.length === 1) return factorsOf(node).map((us) => us.map((u) => [scaled(u), ONE] as const));
  // entries that are seen as one vector
  const base = isSampleValue(node) ? node : null;
  return [[[{ factor, map: null, base }, ONE]]];
}

/** A vector as sums of factors, in all ways. */
function factorsOf(vector: Node): (readonly Factor[])[] {
  const column = (x: Node) => reshape(x, [sizeOf(x.shape), 1]);
  if (!isSampleValue(vector)) return [[{ factor: 1, map: column(vector), base: null }]];
  return imagesOf(vector).map(({ factor, map, base, shift }) => [
    { factor, map, base },
    ...(shift === null ? [] : [{ factor, map: column(shift), base: null }]),
  ]);
}

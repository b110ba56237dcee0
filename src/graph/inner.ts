import type { Node } from "./node.ts";
import { add, matmul, mul, outer, scale, sqnorm, sum, transpose } from "./ops.ts";

/**
 * Products of per-sample gradients that keep their structure. The gradient of a dense layer is an outer
 * product delta a^T, that of a layer shared by tokens a product D^T X: inner products and moments of
 * such gradients follow from their factors, without the gradients themselves. A parameter that is used
 * several times has a sum of terms; all pairs of terms are counted.
 */

/** More terms than this are added up first: pairs would cost more than entries. */
const MAX_TERMS = 4;

interface Term {
  readonly factor: number;
  readonly node: Node;
}

/** Terms of a sum, numbers taken out. */
export function sumTerms(node: Node, factor = 1): Term[] {
  if (node.op === "scale") return sumTerms(node.args[0]!, factor * node.attrs.c!);
  if (node.op === "add" || node.op === "sub") {
    const [a, b] = [node.args[0]!, node.args[1]!];
    // terms that are broadcast into the sum have another shape
    if (a.shape.join() !== node.shape.join() || b.shape.join() !== node.shape.join())
      return [{ factor, node }];
    return [...sumTerms(a, factor), ...sumTerms(b, node.op === "sub" ? -factor : factor)];
  }
  return [{ factor, node }];
}

const isFactored = (node: Node): boolean =>
  node.op === "outer" || (node.op === "matmul" && node.shape.length === 2);

/** The terms of a node if its structure is worth using, else null. */
function structure(node: Node): Term[] | null {
  const terms = sumTerms(node);
  return terms.length <= MAX_TERMS && terms.some((t) => isFactored(t.node)) ? terms : null;
}

const total = (nodes: readonly Node[]): Node => nodes.reduce((a, b) => add(a, b));

/** Sum over pairs of terms of f, numbers put back. */
function pairs(a: readonly Term[], b: readonly Term[], f: (x: Node, y: Node) => Node): Node {
  return total(a.flatMap((x) => b.map((y) => scale(f(x.node, y.node), x.factor * y.factor))));
}

const dot = (a: Node, b: Node): Node => (a === b ? sqnorm(a) : sum(mul(a, b)));

/** <a, b> = sum of a_ij b_ij. */
function inner(a: Node, b: Node): Node {
  const [s, t] = [structure(a), structure(b)];
  if (s === null && t === null) return dot(a, b);
  return pairs(s ?? [{ factor: 1, node: a }], t ?? [{ factor: 1, node: b }], innerOfTerms);
}

function innerOfTerms(a: Node, b: Node): Node {
  if (a.op === "outer" && b.op === "outer")
    return mul(dot(a.args[0]!, b.args[0]!), dot(a.args[1]!, b.args[1]!));
  if (a.op === "outer") return dot(a.args[0]!, matmul(b, a.args[1]!));
  if (b.op === "outer") return dot(b.args[0]!, matmul(a, b.args[1]!));
  if (isFactored(a) && isFactored(b)) {
    // tr(B^T A^T C D): k x l instead of m x n
    const [A, B, C, D] = [a.args[0]!, a.args[1]!, b.args[0]!, b.args[1]!];
    const [m, n] = a.shape as [number, number];
    const [k, l] = [A.shape[1]!, C.shape[1]!];
    if (k * l * (m + n) < (k + l) * m * n) return dot(matmul(transpose(A), C), matmul(B, transpose(D)));
  }
  return dot(a, b);
}

/** L a for a matrix L. */
function leftTimes(L: Node, a: Node): Node {
  const terms = structure(a);
  if (terms === null) return matmul(L, a);
  return total(
    terms.map(({ factor, node }) =>
      scale(
        node.op === "outer"
          ? outer(matmul(L, node.args[0]!), node.args[1]!)
          : node.op === "matmul"
            ? matmul(matmul(L, node.args[0]!), node.args[1]!)
            : matmul(L, node),
        factor,
      ),
    ),
  );
}

/** a R for a matrix R. */
function rightTimes(a: Node, R: Node): Node {
  const terms = structure(a);
  if (terms === null) return matmul(a, R);
  return total(
    terms.map(({ factor, node }) =>
      scale(
        node.op === "outer"
          ? outer(node.args[0]!, matmul(node.args[1]!, R))
          : node.op === "matmul"
            ? matmul(node.args[0]!, matmul(node.args[1]!, R))
            : matmul(node, R),
        factor,
      ),
    ),
  );
}

/** Terms whose sum is w a, for a number w per sample. */
export function weighted(w: Node, a: Node): Node[] {
  const terms = structure(a);
  if (terms === null) return [mul(w, a)];
  return terms.map(({ factor, node }) => {
    const c = scale(w, factor);
    if (node.op === "outer") return outer(mul(c, node.args[0]!), node.args[1]!);
    return node.op === "matmul" ? matmul(mul(c, node.args[0]!), node.args[1]!) : mul(c, node);
  });
}

/** Whether products of a gradient cost less than its entries. */
export const hasStructure = (a: Node): boolean => a.shape.length < 2 || structure(a) !== null;

/** a^T, term by term. */
function transposed(a: Node): Node {
  const terms = structure(a);
  if (terms === null) return transpose(a);
  return total(
    terms.map(({ factor, node }) => {
      const [p, q] = [node.args[0]!, node.args[1]!];
      const back =
        node.op === "outer"
          ? outer(q, p)
          : node.op === "matmul"
            ? matmul(transpose(q), transpose(p))
            : transpose(node);
      return scale(back, factor);
    }),
  );
}

/** Terms whose sum is a^T a; a product under a sum over the batch is accumulated as it arises. */
function gram(a: Node): Node[] {
  const terms = structure(a);
  if (terms === null) return [matmul(transpose(a), a)];
  return terms.flatMap((x) =>
    terms.map((y) => {
      const factor = x.factor * y.factor;
      const [p, q] = [x.node, y.node];
      if (p.op === "outer" && q.op === "outer")
        return outer(mul(scale(dot(p.args[0]!, q.args[0]!), factor), p.args[1]!), q.args[1]!);
      if (p.op === "outer") return outer(scale(p.args[1]!, factor), matmul(p.args[0]!, q));
      if (q.op === "outer") return outer(matmul(q.args[0]!, p), scale(q.args[1]!, factor));
      return matmul(transpose(p), scale(q, factor));
    }),
  );
}

/** Products of gradients: from their factors, or from the gradients themselves. */
export interface Products {
  readonly inner: (a: Node, b: Node) => Node;
  readonly leftTimes: (L: Node, a: Node) => Node;
  readonly rightTimes: (a: Node, R: Node) => Node;
  readonly transposed: (a: Node) => Node;
  readonly gram: (a: Node) => Node[];
}

export const structured: Products = { inner, leftTimes, rightTimes, transposed, gram };

export const plain: Products = {
  inner: dot,
  leftTimes: matmul,
  rightTimes: matmul,
  transposed: transpose,
  gram: (a) => [matmul(transpose(a), a)],
};

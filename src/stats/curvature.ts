import { costOf } from "../graph/associate.ts";
import { curvature, meanOver } from "../graph/derive.ts";
import { hessianTrace } from "../graph/hessian-trace.ts";
import type { Node } from "../graph/node.ts";
import { gaussNewtonVectors, hessianQuadratic, hessianVectors, WIDTH } from "../models/derivatives.ts";
import type { Measure } from "../models/measure.ts";
import { noiseVectors } from "./noise.ts";
import { type Control, type LinearOperator, Products } from "./operator.ts";

/** Entries of theta an operator acts on: all that are trained, or those of one block. */
interface Support {
  readonly size: number;
  /** Puts vectors [count][size] into vectors of all P entries, and back. */
  spread(vectors: Float64Array, count: number): Float64Array;
  pick(vectors: Float64Array, count: number): Float64Array;
}

function supportOf(measure: Measure, blocks: readonly { offset: number; size: number }[]): Support {
  const { P } = measure;
  const size = blocks.reduce((n, b) => n + b.size, 0);
  if (size === P) return { size, spread: (v) => v, pick: (v) => v };
  const move = (count: number, each: (row: number, whole: number, part: number, n: number) => void) => {
    for (let k = 0; k < count; k++) {
      let part = 0;
      for (const b of blocks) {
        each(k, b.offset, part, b.size);
        part += b.size;
      }
    }
  };
  return {
    size,
    spread(vectors, count) {
      const out = new Float64Array(count * P);
      move(count, (k, whole, part, n) =>
        out.set(vectors.subarray(k * size + part, k * size + part + n), k * P + whole),
      );
      return out;
    },
    pick(vectors, count) {
      const out = new Float64Array(count * size);
      move(count, (k, whole, part, n) =>
        out.set(vectors.subarray(k * P + whole, k * P + whole + n), k * size + part),
      );
      return out;
    },
  };
}

/** An operator on the trained entries of theta, from products with vectors of all P. */
function operatorOn(
  support: Support,
  products: (vectors: Float64Array, count: number) => Float64Array,
  quadratic?: (vectors: Float64Array, count: number) => Float64Array,
  width = WIDTH,
): LinearOperator {
  return {
    size: support.size,
    width,
    apply: (v, count) => support.pick(products(support.spread(v, count), count), count),
    ...(quadratic === undefined
      ? {}
      : { quadratic: (v: Float64Array, count: number) => quadratic(support.spread(v, count), count) }),
  };
}

/**
 * The Hessian of the mean loss at theta, on the trained entries or on one block: products by the tangent of
 * the gradient, quadratic forms by second-order forward differentiation.
 */
export function hessianOperator(
  measure: Measure,
  theta: Float64Array,
  { block, width = WIDTH }: { block?: string | undefined; width?: number } = {},
): LinearOperator {
  const blocks = measure.trainable.filter((b) => block === undefined || b.name === block);
  return operatorOn(
    supportOf(measure, blocks),
    (v, count) => hessianVectors(measure, theta, v, count),
    (v, count) => hessianQuadratic(measure, theta, v, count),
    width,
  );
}

/**
 * Tr H without products with H, from squared lengths of gradients (graph/hessian-trace.ts): one forward and some backward
 * passes. Null where the model has no such form, or it would cost more than a quadratic form for every entry of theta.
 */
export function hessianTraceByLengths(measure: Measure, theta: Float64Array, block?: string): number | null {
  const { N, loss, samples, model } = measure;
  const pass = measure.pass(`trace of the Hessian by lengths, ${block ?? "all blocks"}`, () => ({
    effects: (take) => {
      const trained = measure.trainable.filter((b) => block === undefined || b.name === block);
      const leaves = trained.map((b) => model.leaf(b.name));
      const each = samples.coupled ? null : hessianTrace(loss, leaves);
      if (each === null) return [];
      const along = new Map(measure.vectorLeaves(0).map(({ node }, i) => [measure.leaves[i]!, node]));
      const form = curvature(loss, model.graph.number(1 / N), along, N);
      const forms = form === null ? 0 : trained.reduce((n, b) => n + b.size, 0) * costOf([form], N);
      const value = meanOver(each, N);
      return costOf([value], N) > forms && forms > 0 ? [] : [{ kind: "output", value, address: take(1) }];
    },
  }));
  if (pass.results.length === 0) return null;
  pass.run(theta);
  return pass.read(0, 1)[0]!;
}

/** The Gauss-Newton matrix for a value on the way to the loss. */
export function gaussNewtonOperator(measure: Measure, of: Node, theta: Float64Array): LinearOperator {
  return operatorOn(supportOf(measure, measure.trainable), (v, count) =>
    gaussNewtonVectors(measure, of, theta, v, count),
  );
}

/** The covariance Sigma of per-sample gradients. */
export function noiseOperator(measure: Measure, theta: Float64Array): LinearOperator {
  return operatorOn(supportOf(measure, measure.trainable), (v, count) =>
    noiseVectors(measure, theta, v, count),
  );
}

/**
 * The whole Hessian, P x P row-major, symmetric: the mean of what products with unit vectors give for
 * (i, j) and (j, i). Rows of untrainable entries are 0.
 *
 * @cost P Hessian-vector products
 */
export async function hessianMatrix(
  measure: Measure,
  theta: Float64Array,
  control: Control,
): Promise<Float64Array> {
  const { P } = measure;
  const operator: LinearOperator = {
    size: P,
    width: WIDTH,
    apply: (v, count) => hessianVectors(measure, theta, v, count),
  };
  const products = new Products("hessian", operator, P, control);
  const out = new Float64Array(P * P);
  for (let first = 0; first < P; first += WIDTH) {
    const count = Math.min(WIDTH, P - first);
    const units = new Float64Array(count * P);
    for (let k = 0; k < count; k++) units[k * P + first + k] = 1;
    out.set(await products.apply(units, count), first * P);
  }
  products.finish();
  for (let i = 0; i < P; i++) {
    for (let j = 0; j < i; j++) {
      const mean = 0.5 * (out[i * P + j]! + out[j * P + i]!);
      out[i * P + j] = mean;
      out[j * P + i] = mean;
    }
  }
  return out;
}

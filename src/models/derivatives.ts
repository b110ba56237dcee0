import type { RealArray } from "../core/arena.ts";
import { now, type Steps } from "../core/steps.ts";
import { fail } from "../errors.ts";
import { curvature, gradient, meanOver, pullback, standIn, tangent } from "../graph/derive.ts";
import { instantiate } from "../graph/instantiate.ts";
import type { Effect } from "../graph/lower.ts";
import { describe, isSampleValue, type Node, reachable } from "../graph/node.ts";
import { scale } from "../graph/ops.ts";
import { substitute } from "../graph/substitute.ts";
import type { Evaluation } from "./evaluate.ts";
import type { Measure, Recipe } from "./measure.ts";

/** Vectors of parameter space, flat [count][P]; entries of untrainable blocks are left out of account. */
type Vectors = ArrayLike<number>;

/** Values of per-sample gradients held at a time. */
const CHUNK_VALUES = 1 << 20;
const CHUNK_ROWS = 256;

/** Vectors that go through one pass together: what does not depend on them is computed once. */
export const WIDTH = 8;
/** Quadratic forms of one pass where there are that many: each adds few instructions, and the way forward and back is shared. */
export const WIDE = 32;

/** Samples per chunk of per-sample gradients. */
export function chunkRows(measure: Measure): number {
  return Math.max(1, Math.min(CHUNK_ROWS, measure.N, Math.floor(CHUNK_VALUES / Math.max(1, measure.P))));
}

/** The pass that writes g_n of a chunk of chosen samples, [rows][P]. */
export function gradientsPass(measure: Measure): Evaluation {
  const rows = chunkRows(measure);
  return measure.pass("per-sample gradients", () => ({
    samples: rows,
    chosen: true,
    effects: (take) => {
      const address = take(rows * measure.P);
      return measure.sampleGradients.flatMap((value, i): Effect[] => {
        const { offset } = measure.trainable[i]!;
        return value === null ? [] : [{ kind: "storeSamples", value, address, stride: measure.P, offset }];
      });
    },
  }));
}

/** Offsets of records for a pass over `room` samples; the last one fills what is left. */
export function chooseRows(measure: Measure, pass: Evaluation, rows: ArrayLike<number>, room: number): void {
  const offsets = new Uint32Array(room);
  for (let i = 0; i < room; i++)
    offsets[i] = rows[Math.min(i, rows.length - 1)]! * measure.samples.recordBytes;
  pass.choose(offsets);
}

/**
 * Per-sample gradients g_n = grad ell(theta, x_n) of some samples, row after row into `out`.
 *
 * @cost one forward and backward pass over the rows, P values written for each
 */
export function perSampleGradients(
  measure: Measure,
  theta: ArrayLike<number>,
  rows: ArrayLike<number>,
  out: RealArray,
): void {
  const pass = gradientsPass(measure);
  const room = chunkRows(measure);
  for (let first = 0; first < rows.length; first += room) {
    const count = Math.min(room, rows.length - first);
    chooseRows(measure, pass, Array.prototype.slice.call(rows, first, first + count), room);
    pass.run(theta);
    pass.readInto(out, first * measure.P, 0, count * measure.P);
  }
}

/** Vectors set as the values of leaf sets 0 .. count - 1; the rest of the sets are 0. */
function setVectors(
  measure: Measure,
  pass: Evaluation,
  vectors: Vectors,
  first: number,
  count: number,
  width: number,
): void {
  const zero = new Float64Array(measure.P);
  for (let k = 0; k < width; k++) {
    for (const [i, block] of measure.trainable.entries()) {
      const at = k * measure.trainable.length + i;
      if (k < count) pass.set(at, vectors, (first + k) * measure.P + block.offset);
      else pass.set(at, zero);
    }
  }
}

const direction = (measure: Measure, k: number): Map<Node, Node> =>
  new Map(measure.vectorLeaves(k).map(({ node }, i) => [measure.leaves[i]!, node]));

/** g_n . v for every sample, N values. */
export function jacobianVector(measure: Measure, theta: ArrayLike<number>, v: Vectors): RealArray {
  const pass = measure.pass("jacobianVector", () => ({
    extra: measure.vectorLeaves(0),
    effects: (take) => {
      const address = take(measure.N);
      const [value] = tangent([measure.loss], direction(measure, 0));
      return value == null ? [] : [{ kind: "storeSamples", value, address, stride: 1, offset: 0 }];
    },
  }));
  setVectors(measure, pass, v, 0, 1, 1);
  pass.run(theta);
  return pass.read(0, measure.N);
}

export const lossRecipe = (measure: Measure): Recipe => ({
  effects: (take) => [{ kind: "output", value: meanOver(measure.loss, measure.N), address: take(1) }],
});

/** Mean loss over the samples. */
export const meanLoss = (measure: Measure, theta: ArrayLike<number>): number =>
  now(lossSteps(measure, theta));

/** The same where samples may have to be waited for. */
export function* lossSteps(measure: Measure, theta: ArrayLike<number>): Steps<number> {
  const pass = measure.pass("loss", () => lossRecipe(measure));
  yield* pass.walk(theta);
  return pass.read(0, 1)[0]!;
}

export const lossesRecipe = (measure: Measure): Recipe => ({
  effects: (take) => [
    { kind: "storeSamples", value: measure.loss, address: take(measure.N), stride: 1, offset: 0 },
  ],
});

/** Loss of every sample, N values. */
export const losses = (measure: Measure, theta: ArrayLike<number>): RealArray =>
  now(lossesSteps(measure, theta));

/** The same where samples may have to be waited for. */
export function* lossesSteps(measure: Measure, theta: ArrayLike<number>): Steps<RealArray> {
  const pass = measure.pass("losses", () => lossesRecipe(measure));
  yield* pass.walk(theta);
  return pass.read(0, measure.N);
}

export function gradientRecipe(measure: Measure): Recipe {
  const weight = measure.model.graph.number(1 / measure.N);
  return {
    effects: (take) =>
      gradient(measure.loss, measure.leaves, weight, measure.N).flatMap((value, i): Effect[] => {
        const address = take(measure.trainable[i]!.size);
        return value === null ? [] : [{ kind: "output", value, address }];
      }),
  };
}

/** The gradient of the mean loss, P values. */
export const meanGradient = (measure: Measure, theta: ArrayLike<number>): Float64Array =>
  now(gradientSteps(measure, theta));

/** The same where samples may have to be waited for. */
export function* gradientSteps(measure: Measure, theta: ArrayLike<number>): Steps<Float64Array> {
  const out = new Float64Array(measure.P);
  const pass = measure.pass("gradient", () => gradientRecipe(measure));
  yield* pass.walk(theta);
  for (const [i, block] of measure.trainable.entries()) pass.readInto(out, block.offset, i, block.size);
  return out;
}

/** Results of P values for each of several vectors, `width` vectors to a pass. */
export function* mapVectors(
  measure: Measure,
  name: string,
  theta: ArrayLike<number>,
  vectors: Vectors,
  count: number,
  build: (direction: ReadonlyMap<Node, Node>, k: number) => readonly (Node | null)[],
  shared: { node: Node; size: number }[] = [],
  prepare: (pass: Evaluation, from: number) => void = () => {},
): Steps<Float64Array> {
  const { P, trainable } = measure;
  const out = new Float64Array(count * P);
  for (let first = 0; first < count; ) {
    const width = count - first > 1 ? WIDTH : 1;
    const used = Math.min(width, count - first);
    const sets = Array.from({ length: width }, (_, k) => measure.vectorLeaves(k)).flat();
    const pass = measure.pass(`${name}, ${width} at a time`, () => ({
      extra: [...sets, ...shared],
      effects: (take) =>
        Array.from({ length: width }, (_, k) => {
          const nodes = build(direction(measure, k), k);
          return nodes.flatMap((value, i): Effect[] => {
            const address = take(trainable[i]!.size);
            return value === null ? [] : [{ kind: "output", value, address }];
          });
        }).flat(),
    }));
    setVectors(measure, pass, vectors, first, used, width);
    prepare(pass, sets.length);
    yield* pass.walk(theta);
    for (let k = 0; k < used; k++) {
      for (const [i, block] of trainable.entries())
        pass.readInto(out, (first + k) * P + block.offset, k * trainable.length + i, block.size);
    }
    first += used;
  }
  return out;
}

/**
 * Hessian-vector products H v of the mean loss, by the tangent of the gradient.
 *
 * @returns [count][P]
 * @cost    about two gradients for each vector, less what vectors of one pass share
 */
export const hessianVectors = (
  measure: Measure,
  theta: ArrayLike<number>,
  vectors: Vectors,
  count: number,
): Float64Array => now(hessianSteps(measure, theta, vectors, count));

/** The same where samples may have to be waited for. */
export function hessianSteps(
  measure: Measure,
  theta: ArrayLike<number>,
  vectors: Vectors,
  count: number,
): Steps<Float64Array> {
  const weight = measure.model.graph.number(1 / measure.N);
  const gradients = () => gradient(measure.loss, measure.leaves, weight, measure.N);
  return mapVectors(measure, "hessianVector", theta, vectors, count, (along) => {
    const nodes = gradients();
    const moving = nodes.filter((n) => n !== null);
    const tangents = tangent(moving, along);
    return nodes.map((n) => (n === null ? null : tangents[moving.indexOf(n)]!));
  });
}

/**
 * Gauss-Newton products  mean_n J_n^T (d^2 ell / d f^2) J_n v  for a value f on the way to the loss.
 *
 * @param of the value f, a node below the loss
 * @throws NoetherflowError "unsupported" if the loss is not made of f: the product would be 0
 */
export function gaussNewtonVectors(
  measure: Measure,
  of: Node,
  theta: ArrayLike<number>,
  vectors: Vectors,
  count: number,
): Float64Array {
  const { graph } = measure.model;
  const steps = mapVectors(measure, `gaussNewton of node ${of.id}`, theta, vectors, count, (along) => {
    const value = measure.samples.coupled ? instantiate(of, measure.N) : of;
    if (!reachable([measure.loss]).includes(value))
      fail(
        "unsupported",
        "gaussNewtonVector: of",
        "the loss must be computed from this value",
        describe(of),
        "Write it as the model does, with the same ops in the same order.",
      );
    const none = measure.leaves.map(() => null);
    const [moved] = tangent([value], along);
    if (moved == null) return none;
    // f becomes a leaf, so that no simplification of the graph sees through it
    const [f, d] = [standIn(value, "f"), standIn(moved, "df")];
    const [loss] = substitute([measure.loss], graph, new Map([[value, f]])) as [Node];
    const [slope] = pullback(loss, graph.number(1 / measure.N), [f], measure.N);
    const [curved] = slope == null ? [null] : tangent([slope], new Map([[f, d]]));
    if (curved == null) return none;
    const [bent] = substitute(
      [curved],
      graph,
      new Map([
        [f, value],
        [d, moved],
      ]),
    );
    // the cotangent of a value that all samples share has gone over the batch already
    const ct = isSampleValue(value) ? bent! : scale(bent!, 1 / measure.N);
    return pullback(value, ct, measure.leaves, measure.N);
  });
  return now(steps);
}

/** v^T H v of each vector, from tangents and the cotangents of the loss: `curvature` in graph/derive.ts. */
export function hessianQuadratic(
  measure: Measure,
  theta: ArrayLike<number>,
  vectors: Vectors,
  count: number,
): Float64Array {
  const out = new Float64Array(count);
  const weight = measure.model.graph.number(1 / measure.N);
  for (let first = 0; first < count; ) {
    const width = count - first >= WIDE ? WIDE : WIDTH;
    const used = Math.min(width, count - first);
    const pass = measure.pass(`quadratic forms of the Hessian, ${width} at a time`, () => ({
      extra: Array.from({ length: width }, (_, k) => measure.vectorLeaves(k)).flat(),
      effects: (take) =>
        Array.from({ length: width }, (_, k): Effect[] => {
          const address = take(1);
          const value = curvature(measure.loss, weight, direction(measure, k), measure.N);
          return value === null ? [] : [{ kind: "output", value, address }];
        }).flat(),
    }));
    setVectors(measure, pass, vectors, first, used, width);
    pass.run(theta);
    for (let k = 0; k < used; k++) pass.readInto(out, first + k, k, 1);
    first += used;
  }
  return out;
}

/**
 * Gradients of v^T H v of the mean loss with v held fixed, that is T[v, v, .] of its third derivatives T: the way back
 * through `curvature` in graph/derive.ts.
 *
 * @returns [count][P]
 * @cost    some three Hessian-vector products for each vector
 */
export function curvatureGradients(
  measure: Measure,
  theta: ArrayLike<number>,
  vectors: Vectors,
  count: number,
): Float64Array {
  const weight = measure.model.graph.number(1 / measure.N);
  const steps = mapVectors(measure, "gradient of the curvature", theta, vectors, count, (along) => {
    const value = curvature(measure.loss, weight, along, measure.N);
    // what has gone over the batch is one number: its seed is shared by the samples
    return value === null
      ? measure.leaves.map(() => null)
      : pullback(value, weight, measure.leaves, measure.N);
  });
  return now(steps);
}

/** Per-sample Hessian-vector products H_n v of some samples, [rows][P]. */
export function perSampleHessianVector(
  measure: Measure,
  theta: ArrayLike<number>,
  v: Vectors,
  rows: ArrayLike<number>,
  out: RealArray,
): void {
  const room = chunkRows(measure);
  const pass = measure.pass("per-sample hessianVector", () => ({
    samples: room,
    chosen: true,
    extra: measure.vectorLeaves(0),
    effects: (take) => {
      const address = take(room * measure.P);
      const nodes = measure.sampleGradients;
      const moving = nodes.filter((n) => n !== null);
      const tangents = tangent(moving, direction(measure, 0));
      return nodes.flatMap((n, i): Effect[] => {
        const value = n === null ? null : tangents[moving.indexOf(n)];
        if (value == null) return [];
        const { offset } = measure.trainable[i]!;
        return [{ kind: "storeSamples", value, address, stride: measure.P, offset }];
      });
    },
  }));
  setVectors(measure, pass, v, 0, 1, 1);
  for (let first = 0; first < rows.length; first += room) {
    const count = Math.min(room, rows.length - first);
    chooseRows(measure, pass, Array.prototype.slice.call(rows, first, first + count), room);
    pass.run(theta);
    pass.readInto(out, first * measure.P, 0, count * measure.P);
  }
}

import { meanOver, pullback } from "../graph/derive.ts";
import type { Effect } from "../graph/lower.ts";
import type { Model } from "../graph/model.ts";
import { type Node, sizeOf } from "../graph/node.ts";
import { add, concat, matmul, mul, reshape, square, sub, sum, transpose } from "../graph/ops.ts";
import { meanGradient } from "../models/derivatives.ts";
import type { Evaluation } from "../models/evaluate.ts";
import type { Measure } from "../models/measure.ts";
import type { Dense } from "../stats/dense.ts";
import { type BlockAction, type Generator, type Matrix, resolved } from "./generator.ts";

/** Orthonormal eigenvectors of a symmetric matrix in the columns of `vectors`, size x size row-major. */
interface Eigen {
  readonly size: number;
  readonly values: Float64Array;
  readonly vectors: Float64Array;
  /** Of a diagonal matrix they are the identity, and products with them are left out. */
  readonly isDiagonal: boolean;
}

/**
 * The eigen-decomposition of a generator, block by block: P -> s P + L P + P R with L = E diag(a) E^T and
 * R = F diag(b) F^T has the eigenvalues mu_ij = s + a_i + b_j, and E^T P F holds the coordinates of P. A dense
 * generator is one block of all parameters.
 *
 * @cost O(rows^3 + cols^3) per block; O(P^3) for a dense generator
 */
export class Spectrum {
  readonly model: Model;
  readonly parts: readonly Part[];

  constructor(model: Model, A: Generator, dense: Dense) {
    this.model = model;
    const eigen = (matrix: Matrix | undefined): Eigen | null => {
      if (matrix === undefined) return null;
      const { size } = matrix;
      const diagonal = (e: number): boolean => e % (size + 1) === 0;
      if (matrix.values.every((x, e) => x === 0 || diagonal(e)))
        return {
          size,
          values: matrix.values.filter((_, e) => diagonal(e)),
          vectors: matrix.values.map((_, e) => (diagonal(e) ? 1 : 0)),
          isDiagonal: true,
        };
      const { values, vectors } = dense.symmetricEigen({ rows: size, cols: size, values: matrix.values });
      return { size, values, vectors: vectors.values, isDiagonal: false };
    };
    if (A.blocks === null) {
      const all = eigen({ size: model.P, values: A.dense! });
      this.parts = [new Part(null, 0, model.P, 1, 0, all, null)];
      return;
    }
    this.parts = [...A.blocks].map(([name, action]: [string, BlockAction]) => {
      const { shape, offset } = model.block(name, A.name);
      const [rows, cols] = [shape[0] ?? 1, shape[1] ?? 1];
      const { scalar, left, right } = resolved(`${A.name} on ${name}`, action, shape);
      return new Part(name, offset, rows, cols, scalar, eigen(left), eigen(right));
    });
  }

  /** Eigenvalues of all parts, one after the other. */
  get mu(): Float64Array {
    return joined(this.parts.map((part) => part.mu));
  }

  /** Coordinates v_i . p of a vector of parameter space. */
  coordinates(p: ArrayLike<number>): Float64Array {
    return joined(this.parts.map((part) => part.turn(p)));
  }

  /** sum_j |v_ij| p_j for every i: what coordinates of a vector with entries of size p are rounded to, over 2^-53. */
  spread(p: ArrayLike<number>): Float64Array {
    return joined(this.parts.map((part) => part.turn(p, Math.abs)));
  }

  /** The vector with these coordinates, `outside` where the generator does not act. */
  vector(coordinates: Float64Array, outside: ArrayLike<number>): Float64Array {
    const out = Float64Array.from(outside);
    let at = 0;
    for (const part of this.parts) {
      part.turnBack(coordinates.subarray(at, at + part.rows * part.cols), out);
      at += part.rows * part.cols;
    }
    return out;
  }
}

function joined(parts: readonly Float64Array[]): Float64Array {
  const out = new Float64Array(parts.reduce((n, p) => n + p.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

const turns = (eigen: Eigen | null): eigen is Eigen => eigen !== null && !eigen.isDiagonal;

/** One block of a generator, or all of a dense one. */
class Part {
  constructor(
    /** null for a dense generator. */
    readonly block: string | null,
    readonly offset: number,
    readonly rows: number,
    readonly cols: number,
    readonly scalar: number,
    readonly left: Eigen | null,
    readonly right: Eigen | null,
  ) {}

  get mu(): Float64Array {
    const { rows, cols, scalar, left, right } = this;
    const out = new Float64Array(rows * cols);
    for (let i = 0; i < rows; i++) {
      for (let j = 0; j < cols; j++)
        out[i * cols + j] = scalar + (left?.values[i] ?? 0) + (right?.values[j] ?? 0);
    }
    return out;
  }

  /** E^T P F of this block of a flat vector, with `of` each entry of E and F where it is given. */
  turn(p: ArrayLike<number>, of?: (x: number) => number): Float64Array {
    const { rows, cols, offset, left, right } = this;
    let block = Float64Array.from({ length: rows * cols }, (_, i) => p[offset + i]!);
    const entries = ({ vectors }: Eigen) => (of === undefined ? vectors : vectors.map(of));
    if (turns(left)) block = product(entries(left), block, rows, rows, cols, true, false);
    if (turns(right)) block = product(block, entries(right), rows, cols, cols, false, false);
    return block;
  }

  /** E C F^T of coordinates, written to its place in a flat vector. */
  turnBack(coordinates: Float64Array, out: Float64Array): void {
    const { rows, cols, offset, left, right } = this;
    let block = coordinates.slice();
    if (turns(left)) block = product(left.vectors, block, rows, rows, cols, false, false);
    if (turns(right)) block = product(block, right.vectors, rows, cols, cols, false, true);
    out.set(block, offset);
  }

  /** The coordinates of a gradient as an expression. */
  node(model: Model, gradient: Node): Node {
    const { rows, cols, left, right } = this;
    let value = reshape(gradient, [rows, cols]);
    const constant = ({ size, vectors }: Eigen) =>
      model.graph.constant(vectors, [size, size], "eigenvectors");
    if (turns(left)) value = matmul(transpose(constant(left)), value);
    if (turns(right)) value = matmul(value, constant(right));
    return value;
  }
}

/** a b of [m][k] and [k][n], either of them transposed. */
function product(
  a: Float64Array,
  b: Float64Array,
  m: number,
  k: number,
  n: number,
  transA: boolean,
  transB: boolean,
): Float64Array<ArrayBuffer> {
  const out = new Float64Array(m * n);
  for (let i = 0; i < m; i++) {
    for (let j = 0; j < n; j++) {
      let sum = 0;
      for (let p = 0; p < k; p++)
        sum += (transA ? a[p * m + i]! : a[i * k + p]!) * (transB ? b[j * k + p]! : b[p * n + j]!);
      out[i * n + j] = sum;
    }
  }
  return out;
}

/**
 * Noise along the eigenvectors of a generator: s_i = Var_n(v_i . g_n), from g_n - gbar (two passes), in the
 * order of the spectrum.
 *
 * @cost a forward and two backward passes over the samples, and their gradients' coordinates
 */
export function noiseSpectrum(
  measure: Measure,
  theta: ArrayLike<number>,
  spectrum: Spectrum,
  key: string,
): Float64Array {
  const { N } = measure;
  const mean = spectrum.coordinates(meanGradient(measure, theta));
  const means = leavesLike(measure, spectrum, "mean");
  const pass = measure.pass(`noise spectrum of ${key}`, () => ({
    extra: means,
    effects: (take) =>
      spectrum.parts.flatMap((part, i): Effect[] => {
        const { node, size } = means[i]!;
        const address = take(size);
        const along = sampleCoordinates(measure, part);
        if (along === null) return [];
        return [{ kind: "output", value: meanOver(square(sub(along, node)), N), address }];
      }),
  }));
  setCoordinates(pass, means, mean, 0);
  pass.run(theta);
  const out = new Float64Array(mean.length);
  let at = 0;
  for (const [i, { size }] of means.entries()) {
    pass.readInto(out, at, i, size);
    at += size;
  }
  return out;
}

/**
 * Gradient of Tr[Sigma(theta) M] with respect to theta, P values, for M = sum_i m_i v_i v_i^T held fixed:
 *
 *   grad Tr[Sigma M] = 2 (E_n[H_n M g_n] - Hbar M gbar) = grad mean_n sum_i m_i (v_i . (g_n - gbar))^2
 *
 * with gbar held fixed on the right: what moves with it has the factor mean_n (g_n - gbar) = 0. That form loses no
 * digits to the difference, and needs no Hessian-vector product. Blocks that are not trained count as theta here, though
 * no gradient has entries there.
 *
 * @param weights m in the order of the spectrum
 * @cost  some four times noiseSpectrum: each sample's gradient, its coordinates, and the way back through both
 * @source theory.md, 5.1 (4)
 */
export function noiseGradient(
  measure: Measure,
  theta: ArrayLike<number>,
  spectrum: Spectrum,
  key: string,
  weights: Float64Array,
): Float64Array {
  const { model, N, P } = measure;
  const mean = spectrum.coordinates(meanGradient(measure, theta));
  const means = leavesLike(measure, spectrum, "mean");
  const factors = leavesLike(measure, spectrum, "weight");
  const pass = measure.pass(`gradient of the noise of ${key}`, () => ({
    extra: [...means, ...factors],
    effects: (take) => {
      const terms = spectrum.parts.flatMap((part, i): Node[] => {
        const along = sampleCoordinates(measure, part);
        if (along === null) return [];
        return [sum(mul(factors[i]!.node, square(sub(along, means[i]!.node))))];
      });
      const leaves = model.blocks.map((b) => model.leaf(b.name));
      const share = model.graph.number(1 / N);
      const gradients =
        terms.length === 0
          ? []
          : pullback(
              terms.reduce((a, b) => add(a, b)),
              share,
              leaves,
              N,
            );
      return model.blocks.flatMap((block, i): Effect[] => {
        const address = take(block.size);
        const value = gradients[i] ?? null;
        return value === null ? [] : [{ kind: "output", value, address }];
      });
    },
  }));
  setCoordinates(pass, means, mean, 0);
  setCoordinates(pass, factors, weights, means.length);
  pass.run(theta);
  const out = new Float64Array(P);
  for (const [i, block] of model.blocks.entries()) pass.readInto(out, block.offset, i, block.size);
  return out;
}

/** Leaves for coordinates, one per part. */
function leavesLike(measure: Measure, spectrum: Spectrum, name: string): { node: Node; size: number }[] {
  // names a model cannot have
  return spectrum.parts.map(({ rows, cols }, i) => ({
    node: measure.model.graph.param(`${name}~${i}`, [rows, cols]),
    size: rows * cols,
  }));
}

function setCoordinates(
  pass: Evaluation,
  leaves: readonly { size: number }[],
  values: Float64Array,
  first: number,
): void {
  let at = 0;
  for (const [i, { size }] of leaves.entries()) {
    pass.set(first + i, values, at);
    at += size;
  }
}

/** Coordinates of the gradient of a sample along one part; null where they are 0. */
function sampleCoordinates(measure: Measure, part: Part): Node | null {
  const { model } = measure;
  const gradients = measure.sampleGradients;
  const gradientOf = (name: string): Node | null =>
    gradients[measure.trainable.findIndex((b) => b.name === name)] ?? null;
  if (part.block !== null) {
    const g = gradientOf(part.block);
    return g === null ? null : part.node(model, g);
  }
  const all = model.blocks.map((b) => {
    const of = gradientOf(b.name);
    return of === null
      ? model.graph.constant(new Float64Array(b.size), [b.size], "zeros")
      : reshape(of, [sizeOf(b.shape)]);
  });
  return part.node(model, concat(all));
}

import type { Key } from "../core/key.ts";
import { checkInteger, checkNumber } from "../errors.ts";
import type { Host } from "../models/evaluate.ts";
import { type Estimate, meanOf } from "./estimate.ts";
import { Krylov } from "./lanczos.ts";
import { type Control, type LinearOperator, Products, rowsOf } from "./operator.ts";
import { probes } from "./probes.ts";

/** Most values that processes side by side may keep: 128 MiB. */
const MAX_VALUES = 16_777_216;
const METHOD = "stochastic Lanczos quadrature";

export interface DensityOptions extends Control {
  readonly key: Key;
  /** Independent probe vectors; 16 when absent. */
  readonly probes?: number | undefined;
  /** Lanczos steps of each; 64 when absent. */
  readonly steps?: number | undefined;
}

/** The share of eigenvalues up to x. */
export interface Share extends Estimate {
  /** The point asked for. */
  readonly x: number;
  /**
   * The share of the measure of a probe that its quadrature can not place on one side of x, averaged over the probes: what
   * the step function may be off by beside stdErr. It falls with the steps, and is 0 where the quadrature is complete.
   */
  readonly resolution: number;
}

/**
 * The spectral density of A, (1/size) sum_e delta(lambda - lambda_e), by stochastic Lanczos quadrature.
 *
 * For each probe v = z / |z|, z of independent signs, m steps of Lanczos give the Gauss quadrature of v^T f(A) v, whose mean over v is
 * (1/size) Tr f(A). So the average of f is unbiased for polynomials up to degree 2 m - 1.
 *
 * @throws NoetherflowError "nonfinite" for a product that is not finite, "range"; the signal's reason
 * @cost `probes` times `steps` products and 4 size steps^2 flops; processes run side by side, as many as the operator's
 *       width, within 128 MiB
 * @source Ubaru, Chen, Saad 2017; Ghorbani, Krishnan, Xiao 2019, arXiv:1901.10159
 */
export async function spectralDensity(
  host: Host,
  op: LinearOperator,
  options: DensityOptions,
): Promise<SpectralDensity> {
  const count = checkInteger("spectralDensity", "probes", options.probes ?? 16, 2);
  const steps = Math.min(op.size, checkInteger("spectralDensity", "steps", options.steps ?? 64, 1));
  const products = new Products("spectralDensity", op, count * steps, options);
  const width = Math.max(1, Math.min(products.width, Math.floor(MAX_VALUES / (steps * op.size))));
  const rules: Quadrature[] = [];
  for (let first = 0; first < count; first += width) {
    const n = Math.min(width, count - first);
    const starts = probes(host, options.key, "signs", op.size, first, n);
    rules.push(...(await quadratures(products, starts, n, steps)));
  }
  products.finish();
  return new SpectralDensity(rules);
}

/** Gauss quadrature of one probe: nodes ascending, weights with sum 1. */
interface Quadrature {
  readonly nodes: Float64Array;
  readonly weights: Float64Array;
  /** The Krylov space was invariant: the measure of the probe is this, not only its first moments. */
  readonly isComplete: boolean;
}

/** A spectral density as Gauss quadratures, one for each probe: averages over eigenvalues with their standard errors. */
export class SpectralDensity {
  readonly #rules: readonly Quadrature[];
  /** Nodes of all probes, ascending, and the weights that average over probes: their sum is 1. */
  readonly nodes: Float64Array;
  /** Weights of the nodes; their sum is 1. */
  readonly weights: Float64Array;

  /** @internal use problem.spectralDensity */
  constructor(rules: readonly Quadrature[]) {
    this.#rules = rules;
    const all = rules.flatMap(({ nodes, weights }) =>
      Array.from(nodes, (node, i) => ({ node, weight: weights[i]! / rules.length })),
    );
    all.sort((a, b) => a.node - b.node);
    this.nodes = Float64Array.from(all, ({ node }) => node);
    this.weights = Float64Array.from(all, ({ weight }) => weight);
  }

  /** (1/size) Tr f(A), as an estimate over the probes. */
  average(f: (eigenvalue: number) => number): Estimate {
    const terms = this.#rules.map(({ nodes, weights }) =>
      nodes.reduce((sum, node, i) => sum + weights[i]! * f(node), 0),
    );
    return meanOf(terms, METHOD);
  }

  /** (1/size) Tr A^p. Unbiased for p up to 2 steps - 1. */
  moment(p: number): Estimate {
    checkInteger("moment", "p", p, 0);
    return this.average((x) => {
      let power = 1;
      for (let k = 0; k < p; k++) power *= x;
      return power;
    });
  }

  /**
   * The share of eigenvalues up to each x: the mean over probes of the weights of nodes <= x.
   *
   * Between two nodes the step function of a probe differs from the measure it stands for by at most the larger of
   * their weights (Chebyshev, Markov, Stieltjes); the mean of that is the `resolution`.
   */
  cumulative(points: ArrayLike<number>): Share[] {
    return Array.from(points, (point) => {
      const x = checkNumber("cumulative", "x", point);
      let resolution = 0;
      const terms = this.#rules.map(({ nodes, weights, isComplete }) => {
        let below = 0;
        let i = 0;
        for (; i < nodes.length && nodes[i]! <= x; i++) below += weights[i]!;
        if (!isComplete) resolution += Math.max(weights[i - 1] ?? 0, weights[i] ?? 0);
        return below;
      });
      return { x, ...meanOf(terms, METHOD), resolution: resolution / terms.length };
    });
  }
}

/** Quadratures of `count` starts, their processes in step so that products come `count` at a time. */
async function quadratures(
  products: Products,
  starts: Float64Array,
  count: number,
  steps: number,
): Promise<Quadrature[]> {
  const size = starts.length / count;
  const all = rowsOf(starts, size).map((start) => new Krylov(start));
  for (let step = 0; step < steps; step++) {
    const going = all.filter((krylov) => !krylov.isInvariant);
    if (going.length === 0) break;
    const flat = new Float64Array(going.length * size);
    for (const [j, krylov] of going.entries()) flat.set(krylov.next, j * size);
    const images = rowsOf(await products.apply(flat, going.length), size);
    for (const [j, krylov] of going.entries()) krylov.take(images[j]!);
  }
  return all.map((krylov) => ({ ...krylov.quadrature(), isComplete: krylov.isInvariant }));
}

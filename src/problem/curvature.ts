import type { RealArray } from "../core/arena.ts";
import { keyOf } from "../core/key.ts";
import { turn } from "../core/turn.ts";
import type { ThetaLike } from "../dynamics/theta.ts";
import { checkInteger, checkNumber, fail, show } from "../errors.ts";
import { MAX_ENTRIES, type Node } from "../graph/node.ts";
import { WIDE } from "../models/derivatives.ts";
import {
  gaussNewtonOperator,
  hessianMatrix,
  hessianOperator,
  hessianTraceByLengths,
  noiseOperator,
} from "../stats/curvature.ts";
import type { SpectralDensity } from "../stats/density.ts";
import { type Estimate, exact } from "../stats/estimate.ts";
import type { Eigenpair } from "../stats/lanczos.ts";
import type { Control, LinearOperator } from "../stats/operator.ts";
import type { traceMethods } from "../stats/trace.ts";
import { ProblemNoise } from "./noise.ts";

/** What a spectrum is that of: a function gives the value of a Gauss-Newton matrix. */
export type Curvature = "hessian" | "noise" | ((leaves: Record<string, Node>) => Node);

/** How a trace is computed. */
export interface HessianTraceOptions extends Control {
  /** "exact" when absent; "hutchinson", "hutch++" and "xtrace" are estimates from random signs. */
  readonly method?: "exact" | keyof typeof traceMethods;
  /** Products that may be spent, 96 when absent; not with "exact" and "basis". */
  readonly probes?: number;
  /** Text or number; "0" when absent. The same seed gives the same bits. It draws the signs. */
  readonly seed?: string | number;
  /** Name of the block whose diagonal block of H is meant; all of H when absent. */
  readonly block?: string;
}

/** Which operator, and the start of Lanczos. */
export interface SpectrumOptions extends Control {
  /** "hessian" when absent. */
  readonly of?: Curvature;
  /** Text or number; "0" when absent. The same seed gives the same bits. It draws the starting vectors. */
  readonly seed?: string | number;
}

/** How far Lanczos goes. */
export interface EigenvalueOptions extends SpectrumOptions {
  /** Residual that is small enough, relative to the largest |eigenvalue|; 1e-8 when absent (f32: 1e-5). */
  readonly tolerance?: number;
  /** Lanczos steps at most. */
  readonly maxSteps?: number;
}

/** An eigenvalue with the bound of its error; `vector` has length 1, over the trained entries. */
export interface Eigenvalue extends Estimate {
  /** |A v - value v|, a bound of the error: some eigenvalue lies this near. */
  readonly residual: number;
  /** residual <= tolerance times the largest |eigenvalue| found. */
  readonly converged: boolean;
  /** Unit eigenvector. */
  readonly vector: Float64Array;
}

/** Curvature of the loss, and spectra. What draws probes or iterates is loaded when it is asked for. */
export abstract class ProblemCurvature extends ProblemNoise {
  /**
   * The whole Hessian of the mean loss, P x P row-major, symmetric; weight decay not included.
   *
   * @cost P Hessian-vector products
   * @example (await problem.hessian(theta)).length; // 400; P = 20
   */
  async hessian(theta: ThetaLike, options: Control = {}): Promise<RealArray> {
    const where = "hessian";
    const flat = this.checked(where, theta);
    const measure = this.all(where);
    this.control(where, options, []);
    if (this.P * this.P > MAX_ENTRIES)
      fail(
        "memory",
        where,
        `a matrix has at most ${MAX_ENTRIES} entries`,
        `${this.P} x ${this.P}`,
        "hessianVector and hessianTrace need no matrix.",
      );
    return this.real(await hessianMatrix(measure, flat, options));
  }

  /**
   * Tr H of the mean loss, or of its diagonal block of one parameter block.
   *
   * @param options.method "exact", "basis", "hutchinson", "hutch++", "xtrace"; exact when absent: without products with H where
   *                       squared lengths of gradients give the trace for less (nets without tied layers, squared loss or
   *                       cross-entropy), else as "basis", P quadratic forms
   * @param options.probes products with H that may be spent, 96 when absent; of a few signs alone all terms may be equal, and
   *                       stdErr 0 by chance: take 16 or more
   * @param options.block  name of the block whose trace is asked for
   * @cost  exact: for a net of two layers some two gradients; of more layers one for each output and hidden unit behind the first;
   *        quadratic forms v.Hv by second-order forward differentiation (basis, Hutchinson), else products
   * @example
   * await problem.hessianTrace(theta); // { value: 29.50, stdErr: 0, method: "exact" }
   * await problem.hessianTrace(theta, { method: "hutchinson", probes: 64 }); // { value: 24.91, stdErr: 3.728 }
   */
  async hessianTrace(theta: ThetaLike, options: HessianTraceOptions = {}): Promise<Estimate> {
    const where = "hessianTrace";
    const flat = this.checked(where, theta);
    const measure = this.all(where);
    this.control(where, options, ["method", "probes", "seed", "block"]);
    const { method = "exact", probes, seed, block, signal, onProgress } = options;
    const { PRODUCTS, traceMethods } = await import("../stats/trace.ts");
    if (method !== "exact" && !Object.hasOwn(traceMethods, method))
      fail("range", where, `method is exact, ${Object.keys(traceMethods).join(", ")}`, show(method));
    if ((method === "exact" || method === "basis") && (probes !== undefined || seed !== undefined))
      fail(
        "unsupported",
        where,
        "probes and a seed go with a method that draws",
        show({ method, probes, seed }),
      );
    if (probes !== undefined) checkInteger(where, "probes", probes, method === "hutchinson" ? 2 : 4);
    if (block !== undefined && !this.model.block(block, where).trainable)
      fail("unsupported", where, "a block that is not trained has no curvature", show(block));
    this.#trained(where);
    const size = measure.trainable.reduce(
      (n, b) => n + (block === undefined || b.name === block ? b.size : 0),
      0,
    );
    if (method === "exact") {
      signal?.throwIfAborted();
      const value = hessianTraceByLengths(measure, flat, block);
      if (value !== null) {
        if (!Number.isFinite(value))
          fail("nonfinite", where, "the trace must be finite", `${value} at this theta`);
        onProgress?.({ done: size, total: size });
        await turn();
        signal?.throwIfAborted();
        return exact(value, size);
      }
    }
    const forms =
      method === "hutchinson" ? (probes ?? PRODUCTS) : method === "exact" || method === "basis" ? size : 0;
    const operator = hessianOperator(measure, flat, { block, ...(forms >= WIDE ? { width: WIDE } : {}) });
    return traceMethods[method === "exact" ? "basis" : method](this.host, operator, {
      key: keyOf(where, seed ?? "0"),
      products: probes,
      signal,
      onProgress,
    });
  }

  /**
   * Largest and smallest eigenvalue of the Hessian (or of `of`) by Lanczos. `residual` bounds the error:
   * some eigenvalue lies within it of `value`.
   *
   * @example
   * const { max, min } = await problem.sharpness(theta);
   * max.value; // 14.35
   * min.value; // -5.330
   */
  async sharpness(
    theta: ThetaLike,
    options: EigenvalueOptions = {},
  ): Promise<{ max: Eigenvalue; min: Eigenvalue }> {
    const where = "sharpness";
    const { operator, lanczos } = this.#spectral(where, theta, options, ["tolerance", "maxSteps"]);
    const { extremes } = await import("../stats/lanczos.ts");
    const { max, min } = await extremes(this.host, operator, lanczos);
    return { max: eigenvalueOf(max), min: eigenvalueOf(min) };
  }

  /**
   * The k largest eigenvalues of the Hessian, or of `of`: with of: "noise" those of Sigma.
   *
   * @example
   * const top = await problem.topEigenvalues(theta, 2, { of: "noise" });
   * top.map(({ value }) => value); // [132.3, 51.74]
   */
  async topEigenvalues(theta: ThetaLike, k: number, options: EigenvalueOptions = {}): Promise<Eigenvalue[]> {
    const where = "topEigenvalues";
    const { operator, lanczos } = this.#spectral(where, theta, options, ["tolerance", "maxSteps"]);
    const { topEigenvalues } = await import("../stats/lanczos.ts");
    return (await topEigenvalues(this.host, operator, k, lanczos)).map(eigenvalueOf);
  }

  /**
   * Spectral density of the Hessian, or of `of`, by stochastic Lanczos quadrature.
   *
   * @example
   * const density = await problem.spectralDensity(theta);
   * density.moment(1); // { value: 1.080, stdErr: 0.354 }; (1/P) Tr H = 1.475
   */
  async spectralDensity(
    theta: ThetaLike,
    options: SpectrumOptions & { probes?: number; steps?: number } = {},
  ): Promise<SpectralDensity> {
    const where = "spectralDensity";
    const { operator, lanczos } = this.#spectral(where, theta, options, ["probes", "steps"]);
    const { spectralDensity } = await import("../stats/density.ts");
    return spectralDensity(this.host, operator, {
      ...lanczos,
      probes: options.probes,
      steps: options.steps,
    });
  }

  /**
   * The Hessian, the noise covariance Sigma ("noise") or a Gauss-Newton matrix (a function that gives the
   * value it is formed for) at theta, as a linear operator on the trained entries.
   *
   * @example problem.operator(theta, "noise").size; // 20
   */
  operator(theta: ThetaLike, of: Curvature = "hessian"): LinearOperator {
    const where = "operator";
    const inner = this.#operatorAt(where, this.checked(where, theta), of);
    const guarded =
      (name: string, products: (v: Float64Array, count: number) => Float64Array) =>
      (v: Float64Array, count = v.length / inner.size): Float64Array => {
        if (
          !(v instanceof Float64Array) ||
          !Number.isInteger(count) ||
          count < 1 ||
          v.length !== count * inner.size
        )
          fail("shape", `operator.${name}`, `vectors are a Float64Array of count x ${inner.size}`, show(v));
        const bad = v.findIndex((x) => !Number.isFinite(x));
        if (bad >= 0)
          fail("nonfinite", `operator.${name}`, "vectors must be finite", `${v[bad]} at position ${bad}`);
        return products(v, count);
      };
    const { quadratic } = inner;
    return {
      ...inner,
      apply: guarded("apply", inner.apply),
      ...(quadratic === undefined ? {} : { quadratic: guarded("quadratic", quadratic) }),
    };
  }

  #operatorAt(where: string, theta: Float64Array, of: Curvature): LinearOperator {
    const measure = this.all(where);
    if (of === "hessian") return hessianOperator(measure, theta);
    if (of === "noise") return noiseOperator(this.perSample(where), theta);
    if (typeof of === "function") return gaussNewtonOperator(measure, this.expressionOf(where, of), theta);
    return fail("range", where, 'of is "hessian", "noise" or a function of the leaves', show(of));
  }

  #trained(where: string): void {
    if (this.model.blocks.every((b) => !b.trainable))
      fail("unsupported", where, "the model has no block that is trained");
  }

  #spectral(where: string, theta: ThetaLike, options: EigenvalueOptions, names: readonly string[]) {
    this.control(where, options, [...names, "of", "seed"]);
    this.#trained(where);
    const { of = "hessian", seed, tolerance, maxSteps, signal, onProgress } = options;
    if (tolerance !== undefined) checkNumber(where, "tolerance", tolerance, 0);
    if (maxSteps !== undefined) checkInteger(where, "maxSteps", maxSteps, 1);
    const operator = this.#operatorAt(where, this.checked(where, theta), of);
    return {
      operator,
      lanczos: {
        key: keyOf(where, seed ?? "0"),
        tolerance: tolerance ?? (this.host.core.dtype === "f32" ? 1e-5 : undefined),
        maxSteps,
        signal,
        onProgress,
      },
    };
  }
}

const eigenvalueOf = ({ value, residual, converged, vector, steps }: Eigenpair): Eigenvalue => ({
  value,
  stdErr: 0,
  count: steps,
  method: "Lanczos",
  residual,
  converged,
  vector,
});

import type { RealArray } from "../core/arena.ts";
import { now } from "../core/steps.ts";
import type { ThetaLike } from "../dynamics/theta.ts";
import { checkFlag, checkInteger, checkKnown, checkObject, fail, show } from "../errors.ts";
import type { Measure } from "../models/measure.ts";
import { generatorIn } from "../recording.ts";
import { type Covariance, type CovarianceMethod, noiseCovariance } from "../stats/covariance.ts";
import type { Estimate } from "../stats/estimate.ts";
import { type MinibatchNoise, minibatchNoise } from "../stats/minibatch.ts";
import {
  type Form,
  finiteNoise,
  type NoiseMethod,
  type NoiseMoments,
  noiseEstimate,
  noiseMoments,
  noiseVectors,
  readMethod,
  readNoise,
  squaredNorm,
} from "../stats/noise.ts";
import type { Control } from "../stats/operator.ts";
import { actionOn } from "../symmetry/action.ts";
import { type Generator, quadraticForm } from "../symmetry/generator.ts";
import { ProblemGradients } from "./gradients.ts";

/** Which samples the gradient noise is measured on, and how. */
export interface NoiseOptions {
  /** That many independent samples instead of all: fresh ones, or draws from the finite set. */
  readonly samples?: number;
  /** Text or number; "0" when absent. The same seed gives the same bits. It draws the samples. */
  readonly seed?: string | number;
  /** "structured" keeps gradients factored; "streamed" forms g - gbar; by default the first while it keeps its digits. */
  readonly method?: NoiseMethod;
  /** false: the second moment E[g^T A g], without taking gbar^T A gbar away. */
  readonly centred?: boolean;
}

/** The noise of minibatch gradients, with Tr[Sigma A] for generators. */
export type MinibatchMeasurement = MinibatchNoise & {
  /** Tr[Sigma A]: unbiased, with the jackknife's standard error. */
  power(A: Generator): Estimate;
};

/** The noise of per-sample gradients. */
export abstract class ProblemNoise extends ProblemGradients {
  /**
   * Tr Sigma, Sigma the covariance of per-sample gradients (divisor N): exact over a finite set; with
   * { samples, seed } an unbiased Estimate from that many independent samples.
   *
   * @cost one forward and backward pass; gradients of dense layers stay outer products
   * @example
   * problem.noiseTrace(theta); // { value: 245.3, stdErr: 0, method: "exact" }
   * problem.noiseTrace(theta, { samples: 1000 }).stdErr; // 9.871
   */
  noiseTrace(theta: ThetaLike, options: NoiseOptions = {}): Estimate {
    return this.#noise("noiseTrace", theta, "trace", squaredNorm, options);
  }

  /**
   * Tr[Sigma A] for a symmetric generator A: sigma^2 times it is the rate at which gradient noise moves
   * the charge of A. As noiseTrace.
   *
   * @source Ziyin et al. 2024, arXiv:2402.07193, eq. 7
   * @example problem.noisePower(theta, A).value; // 3.539
   */
  noisePower(theta: ThetaLike, A: Generator, options: NoiseOptions = {}): Estimate {
    const where = "noisePower";
    const generator = generatorIn(where, A);
    const form: Form = (of, products) => quadraticForm(where, this.model, generator, of, products);
    const key = `power of ${JSON.stringify({ ...generator.toJSON(), name: "", center: [] })}`;
    return this.#noise(where, theta, key, () => form, options);
  }

  /**
   * Matrix moments of the gradient noise of a product U W, h x h each:
   *
   *   SU = E[g_U^T g_U] - gbar_U^T gbar_U,   SW = E[g_W g_W^T] - gbar_W gbar_W^T,   Q = U^T U - W W^T
   *
   * so that dQ/dt = 2 sigma^2 (SU - SW) - 4 gamma Q.
   *
   * @param options.transposeW the block W holds the transpose, dx x h
   * @source Ziyin et al. 2024, arXiv:2402.07193, Proposition 1
   * @example problem.noiseMoments(theta, "U", "W").Q.length; // 16; h = 4
   */
  noiseMoments(
    theta: ThetaLike,
    U: string,
    W: string,
    options: { transposeW?: boolean; method?: NoiseMethod } = {},
  ): NoiseMoments {
    const where = "noiseMoments";
    const flat = this.checked(where, theta);
    checkKnown(where, checkObject(where, "options { transposeW?, method? }", options), [
      "transposeW",
      "method",
    ]);
    const measure = this.perSample(where);
    const transposeW = checkFlag(where, "transposeW", options.transposeW);
    return now(noiseMoments(measure, flat, U, W, transposeW, readMethod(where, options.method)));
  }

  /**
   * The whole gradient-noise covariance Sigma, P x P row-major, divisor N (n - 1 for { samples: n }).
   *
   * Where gradients are a linear image of fewer products of vectors of the sample (in a linear net of the entries of
   * e x^T, errors and inputs), it is found from the covariance of those, by method "moments". `method` of the array says
   * what it was.
   *
   * @param options.method "direct" from the gradients of all samples, "moments" from those products; "auto" when absent:
   *                       what costs less, and never moments where they lose more than six digits (f32: four) of a block's trace
   * @throws NoetherflowError "unsupported" for "moments" where no products are fewer than P, as in a tanh net; "memory"
   *         before any work where P^2 values do not fit
   * @cost  direct N P^2 / 2 multiply-adds; moments N p^2 / 2 for p products, and some P^2 for each entry of a side of a layer
   * @example
   * const Sigma = await problem.noiseCovariance(theta);
   * Sigma.length; // 400; P = 20
   * Sigma.method; // "moments"
   */
  async noiseCovariance(
    theta: ThetaLike,
    options: Pick<NoiseOptions, "samples" | "seed"> & { method?: "auto" | CovarianceMethod } & Control = {},
  ): Promise<Covariance> {
    const where = "noiseCovariance";
    const flat = this.checked(where, theta);
    const { signal, onProgress, method, ...noise } = checkObject(where, "options", options) as typeof options;
    this.control(where, { signal, onProgress }, []);
    if (method !== undefined && method !== "auto" && method !== "direct" && method !== "moments")
      fail("range", where, 'method is "auto", "direct" or "moments"', show(method));
    const { measure, drawn } = this.#noiseSamples(where, noise, ["samples", "seed"]);
    const by = method === "auto" ? undefined : method;
    const Sigma = await noiseCovariance(measure, flat, drawn ? measure.N - 1 : measure.N, {
      method: by,
      signal,
      onProgress,
    });
    for (let i = 0; i < this.P; i++) finiteNoise(where, Sigma[i * this.P + i]!);
    return Sigma;
  }

  /**
   * Sigma v for one vector, or several as a flat [count][P] array: a forward and a weighted backward pass each.
   *
   * @example problem.noiseVector(theta, theta).length; // 20; Sigma theta
   */
  noiseVector(theta: ThetaLike, v: ThetaLike, options: { count?: number } = {}): RealArray {
    const where = "noiseVector";
    const flat = this.checked(where, theta);
    const measure = this.perSample(where);
    const { vectors, count } = this.vectorsOf(where, v, options);
    const products = noiseVectors(measure, flat, vectors, count);
    for (const x of products) finiteNoise(where, x);
    return this.real(products);
  }

  /**
   * The noise of gradients of independent minibatches: for losses with batch ops, whose samples have no
   * gradient of their own. Batches are drawn with replacement (fresh ones of a sampler).
   *
   * @param options.batches at least 3; the standard error falls as 1 / sqrt(batches)
   * @returns mean, trace and Tr[Sigma A] as Estimates, with Sigma = S Cov(g_hat)
   * @example
   * const noise = await problem.minibatchNoise(theta, { batchSize: 4, batches: 1000 });
   * noise.trace; // { value: 233.1, stdErr: 6.813 }; noiseTrace from batches
   */
  async minibatchNoise(
    theta: ThetaLike,
    options: { batchSize: number; batches: number; seed?: string | number } & Control,
  ): Promise<MinibatchMeasurement> {
    const where = "minibatchNoise";
    const flat = this.checked(where, theta);
    this.control(where, options, ["batchSize", "batches", "seed"]);
    const { seed, signal, onProgress } = options;
    signal?.throwIfAborted();
    const batchSize = checkInteger(where, "batchSize", options.batchSize, 1, 1_000_000);
    const batches = checkInteger(where, "batches", options.batches, 3, 100_000_000);
    const drawn = batchSize * batches;
    if (Math.max(drawn, batches * this.P) > 100_000_000)
      fail(
        "memory",
        where,
        "batchSize x batches and batches x P are at most 100,000,000",
        `${drawn} and ${batches * this.P}`,
      );
    const { measure } = this.over(where, { samples: drawn, seed: seed ?? "0" });
    const noise = await minibatchNoise(measure, flat, batchSize, batches, { signal, onProgress });
    const power = (A: Generator): Estimate => {
      const generator = generatorIn(`${where}.power`, A);
      return noise.form((d) => actionOn(`${where}.power`, this.model, generator, d));
    };
    return Object.assign(noise, { power });
  }

  #noiseSamples(
    where: string,
    options: NoiseOptions,
    names: readonly string[] = ["samples", "seed", "method", "centred"],
  ): { measure: Measure; drawn: boolean } {
    checkKnown(where, checkObject(where, `options ${names.join(", ")}`, options), names);
    if (options.samples !== undefined) checkInteger(where, "samples", options.samples, 3, 100_000_000);
    const { samples, seed } = options;
    if (samples === undefined && seed !== undefined)
      fail("unsupported", where, "a seed goes with samples: { samples, seed }", "no samples");
    const draw = samples === undefined ? undefined : seed === undefined ? { samples } : { samples, seed };
    const found = this.over(where, draw);
    found.measure.refuseCoupled(where);
    return found;
  }

  #noise(
    where: string,
    theta: ThetaLike,
    key: string,
    form: (measure: Measure) => Form,
    options: NoiseOptions,
  ): Estimate {
    const flat = this.checked(where, theta);
    const { measure, drawn } = this.#noiseSamples(where, options);
    const how = readNoise(where, options, !drawn);
    const found = now(noiseEstimate(measure, key, flat, form(measure), drawn, how));
    finiteNoise(where, found.value);
    return found;
  }
}

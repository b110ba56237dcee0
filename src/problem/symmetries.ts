import type { RealArray } from "../core/arena.ts";
import { log } from "../core/elementary.ts";
import { keyOf } from "../core/key.ts";
import { readTheta, type ThetaLike } from "../dynamics/options.ts";
import { checkKnown, checkNumber, checkObject, fail } from "../errors.ts";
import { meanGradient } from "../models/derivatives.ts";
import type { Measure } from "../models/measure.ts";
import { generatorIn } from "../recording.ts";
import { Dense } from "../stats/dense.ts";
import { secondMoment, squaredNorm } from "../stats/noise.ts";
import { checkSymmetry, type SymmetryCheck, transformed } from "../symmetry/check.ts";
import { type Equilibrium, NOISE_FLOOR, solveEquilibrium } from "../symmetry/equilibrium.ts";
import { type FlowInput, flowOf, type NoetherFlow } from "../symmetry/flow.ts";
import type { Generator } from "../symmetry/generator.ts";
import { noiseSpectrum, Spectrum } from "../symmetry/spectrum.ts";
import { readStrength, type StrengthOptions } from "../symmetry/strength.ts";
import { ProblemCurvature } from "./curvature.ts";

/** The noise equilibrium on the orbit of theta, or why there is no closed form. */
export type OrbitEquilibrium =
  | Equilibrium
  | { readonly status: "none"; readonly reason: string; readonly flow0: number; readonly charge0: number };

export interface EquilibriumOptions extends StrengthOptions {
  /** Compute it although the generator is no exact symmetry. */
  readonly force?: boolean;
}

/** dQ/dt of a matrix charge, h x h each, row-major. */
export interface MatrixFlow {
  /** 2 sigma^2 (S_U - S_W) */
  readonly noise: Float64Array;
  /** -4 gamma Q */
  readonly decay: Float64Array;
  readonly total: Float64Array;
}

/** Exponential symmetries: checks, Noether flow, equilibria. */
export abstract class ProblemSymmetries extends ProblemCurvature {
  readonly #spectra = new WeakMap<Generator, { spectrum: Spectrum; key: string }>();
  readonly #exact = new WeakMap<Generator, boolean>();
  #count = 0;

  /**
   * theta moved along the orbit of a generator: e^(lambda A) (theta - c) + c, block by block.
   *
   * @cost eigenvectors of the generator's matrices once, then products of block size
   */
  transform(theta: ThetaLike, A: Generator, lambda: number): RealArray {
    const where = "transform";
    const flat = this.checked(where, theta);
    checkNumber(where, "lambda", lambda);
    const generator = generatorIn(where, A);
    return this.real(transformed(this.#spectrum(generator).spectrum, flat, lambda, generator.center));
  }

  /**
   * Is A a symmetry of the loss of every sample? `defect` is the largest |g_n . J| / (|g_n| |J|) over all samples and
   * three standard normal thetas (and `theta` if given), J = A (theta - c): "exact" up to 1e-10 (f32: 1e-4) and under
   * the finite transformation, "approximate" up to 0.05, else "none".
   *
   * @cost some 12 passes over the data
   */
  checkSymmetry(A: Generator, options: { theta?: ThetaLike; seed?: string | number } = {}): SymmetryCheck {
    const where = "checkSymmetry";
    checkKnown(where, checkObject(where, "options { theta?, seed? }", options), ["theta", "seed"]);
    const generator = generatorIn(where, A);
    const measure = this.all(where);
    const given = options.theta === undefined ? null : readTheta(where, this.model, options.theta);
    const key = keyOf(where, options.seed ?? "0");
    return checkSymmetry(measure, generator, this.#spectrum(generator).spectrum, key, given);
  }

  /**
   * dC/dt of the charge of A and its parts: noise sigma^2 Tr[Sigma A], decay, gradient (0 for a symmetry), the balance of
   * both signs, and every eigen-direction.
   *
   * @param options { eta, batchSize } or { sigma2 }; weightDecay, sampling, momentum
   * @source Ziyin et al. 2024, arXiv:2402.07193, eqs. 5 and 7
   */
  noetherFlow(theta: ThetaLike, A: Generator, options: StrengthOptions): NoetherFlow {
    const where = "noetherFlow";
    const flat = this.checked(where, theta);
    const generator = generatorIn(where, A);
    const measure = this.perSample(where);
    const strength = readStrength(where, options, this.N);
    return flowOf(this.#directions(measure, flat, generator), strength, log);
  }

  /**
   * Theorem 1: the point of the orbit e^(lambda A) theta where noise and decay balance.
   *
   * @returns status "finite" (lambda, charge there, slope f', rate 1 / tau_2, ...), "+inf", "-inf" (the charge grows or
   *          falls for ever), "flat" (nothing moves it), or "none" with a reason (a shifted generator with decay)
   * @throws  NoetherflowError "unsupported" for a generator that is not an exact symmetry, unless `force`
   * @source  Ziyin et al. 2024, arXiv:2402.07193, Theorem 1
   */
  equilibrium(theta: ThetaLike, A: Generator, options: EquilibriumOptions): OrbitEquilibrium {
    const where = "equilibrium";
    const flat = this.checked(where, theta);
    const generator = generatorIn(where, A);
    const measure = this.perSample(where);
    const strength = readStrength(where, options, this.N, ["force"]);
    if (!options.force) this.#demandExact(where, measure, generator);
    const { mu, s, displaced, ...rest } = this.#directions(measure, flat, generator);
    const flow = flowOf({ mu, s, displaced, ...rest }, strength, log);
    if (generator.center !== null && strength.gamma > 0) {
      let charge0 = 0;
      for (const [i, m] of mu.entries()) charge0 += 0.5 * m * displaced[i]! * displaced[i]!;
      return {
        status: "none",
        reason:
          "weight decay pulls to 0, and this generator turns about another center: there is no closed form",
        flow0: flow.total,
        charge0,
      };
    }
    const directions = Array.from(mu, (m, i) => ({ mu: m, s: s[i]!, q: displaced[i]! * displaced[i]! }));
    const mean = secondMoment(measure, "squared norm", flat, squaredNorm(measure));
    const { sigma2, gamma } = strength;
    return solveEquilibrium(directions, { sigma2, gamma, floor: NOISE_FLOOR * mean });
  }

  /**
   * The matrix form for a product U W: dQ/dt = 2 sigma^2 (S_U - S_W) - 4 gamma Q, Q = U^T U - W W^T.
   *
   * @source Ziyin et al. 2024, arXiv:2402.07193, Proposition 1
   */
  matrixFlow(
    theta: ThetaLike,
    U: string,
    W: string,
    options: StrengthOptions & { transposeW?: boolean },
  ): MatrixFlow {
    const { sigma2, gamma } = readStrength("matrixFlow", options, this.N, ["transposeW"]);
    const { transposeW = false } = options;
    const { SU, SW, Q } = this.noiseMoments(theta, U, W, { transposeW });
    const noise = Float64Array.from(SU, (x, i) => 2 * sigma2 * (x - SW[i]!));
    const decay = Float64Array.from(Q, (x) => -4 * gamma * x);
    return { noise, decay, total: noise.map((x, i) => x + decay[i]!) };
  }

  /** Coordinates of the noise, theta and the mean gradient along the eigenvectors of a generator. */
  #directions(measure: Measure, theta: Float64Array, A: Generator): FlowInput {
    const { spectrum, key } = this.#spectrum(A);
    const { center } = A;
    if (center !== null && center.length !== this.P)
      fail(
        "shape",
        A.name,
        `the center of a generator of this model has ${this.P} entries`,
        `${center.length}`,
      );
    return {
      mu: spectrum.mu,
      s: noiseSpectrum(measure, theta, spectrum, key),
      displaced: spectrum.coordinates(center === null ? theta : theta.map((x, i) => x - center[i]!)),
      theta: spectrum.coordinates(theta),
      mean: spectrum.coordinates(meanGradient(measure, theta)),
    };
  }

  #spectrum(A: Generator): { spectrum: Spectrum; key: string } {
    let known = this.#spectra.get(A);
    if (known === undefined) {
      known = {
        spectrum: new Spectrum(this.model, A, new Dense(this.host)),
        key: `generator ${this.#count++}`,
      };
      this.#spectra.set(A, known);
    }
    return known;
  }

  #demandExact(where: string, measure: Measure, A: Generator): void {
    let exact = this.#exact.get(A);
    if (exact === undefined) {
      const { verdict } = checkSymmetry(measure, A, this.#spectrum(A).spectrum, keyOf(where, "0"), null);
      exact = verdict === "exact";
      this.#exact.set(A, exact);
    }
    if (!exact)
      fail(
        "unsupported",
        where,
        `${A.name} is no exact symmetry of this loss`,
        "a field along which the loss of some sample changes",
        "See checkSymmetry; { force: true } computes it all the same.",
      );
  }
}

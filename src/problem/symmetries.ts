import type { RealArray } from "../core/arena.ts";
import { log } from "../core/elementary.ts";
import { keyOf } from "../core/key.ts";
import type { ThetaLike } from "../dynamics/options.ts";
import { checkFlag, checkKnown, checkNumber, checkObject, fail } from "../errors.ts";
import { meanGradient } from "../models/derivatives.ts";
import { Evaluation } from "../models/evaluate.ts";
import type { Measure } from "../models/measure.ts";
import { generatorIn } from "../recording.ts";
import { Dense } from "../stats/dense.ts";
import { secondMoment, squaredNorm } from "../stats/noise.ts";
import { chargeOf } from "../symmetry/charge.ts";
import { checkSymmetry, type SymmetryCheck, transformed } from "../symmetry/check.ts";
import { DiscoveredGenerator } from "../symmetry/discover.ts";
import { NOISE_FLOOR } from "../symmetry/equilibrium.ts";
import { type FlowInput, flowOf, type NoetherFlow } from "../symmetry/flow.ts";
import { checkActsOn, type Generator } from "../symmetry/generator.ts";
import { noiseSpectrum, Spectrum } from "../symmetry/spectrum.ts";
import { readStrength, type StrengthOptions } from "../symmetry/strength.ts";
import { ProblemCurvature } from "./curvature.ts";

/** dQ/dt of a matrix charge, h x h each, row-major. */
export interface MatrixFlow {
  /** 2 sigma^2 (S_U - S_W) */
  readonly noise: Float64Array;
  /** -4 gamma Q */
  readonly decay: Float64Array;
  readonly total: Float64Array;
}

/** What flows and equilibria are computed from. */
export type Directions = FlowInput & { readonly floor: number };

/** Exponential symmetries: charges, orbits, checks, Noether flow. */
export abstract class ProblemSymmetries extends ProblemCurvature {
  readonly #spectra = new WeakMap<Generator, { spectrum: Spectrum; key: string }>();
  /** The last measurement: the flow and the equilibrium of one generator ask for the same. */
  #measured: { A: Generator; theta: Float64Array; along: Directions } | null = null;

  /**
   * Noether charge C = 1/2 (theta - c)^T A (theta - c) of a generator.
   *
   * @throws NoetherflowError "shape" if A and the model disagree on a block
   */
  charge(theta: ThetaLike, A: Generator): number {
    const flat = this.checked("charge", theta);
    const value = chargeOf(this.model, this.fitting("charge", A));
    const { model } = this;
    const evaluation = new Evaluation(this.host, {
      where: "charge",
      params: model.blocks.map((block) => ({ node: model.leaf(block.name), block })),
      source: this.samples.source(0, true),
      draws: { kind: "none" },
      block: 1,
      effects: (take) => [{ kind: "output", value, address: take(1) }],
    });
    evaluation.run(flat);
    const charge = evaluation.read(0, 1)[0]!;
    evaluation.dispose();
    return charge;
  }

  /**
   * theta moved along the orbit of a generator: e^(lambda A) (theta - c) + c, block by block.
   *
   * @cost eigenvectors of the generator's matrices once, then products of block size
   */
  transform(theta: ThetaLike, A: Generator, lambda: number): RealArray {
    const where = "transform";
    const flat = this.checked(where, theta);
    checkNumber(where, "lambda", lambda);
    const generator = this.fitting(where, A);
    return this.real(transformed(this.spectrumOf(generator).spectrum, flat, lambda, generator.center));
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
    const measure = this.all(where);
    const generator = this.fitting(where, A);
    const given = options.theta === undefined ? null : this.checked(where, options.theta);
    const key = keyOf(where, options.seed ?? "0");
    return checkSymmetry(measure, generator, this.spectrumOf(generator).spectrum, key, given);
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
    const generator = this.fitting(where, A);
    const measure = this.perSample(where);
    const strength = readStrength(where, options, this.N);
    return flowOf(this.directions(measure, flat, generator), strength, log);
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
    const where = "matrixFlow";
    this.checked(where, theta);
    this.perSample(where);
    const { sigma2, gamma } = readStrength(where, options, this.N, ["transposeW"]);
    const transposeW = checkFlag(where, "transposeW", options.transposeW);
    for (const name of [U, W]) this.model.block(name, where);
    const { SU, SW, Q } = this.noiseMoments(theta, U, W, { transposeW });
    const noise = Float64Array.from(SU, (x, i) => 2 * sigma2 * (x - SW[i]!));
    const decay = Float64Array.from(Q, (x) => -4 * gamma * x);
    return { noise, decay, total: noise.map((x, i) => x + decay[i]!) };
  }

  /** Noise energies up to here are rounding. */
  protected noiseFloor(measure: Measure, theta: Float64Array): number {
    return NOISE_FLOOR * secondMoment(measure, "squared norm", theta, squaredNorm(measure));
  }

  /** Coordinates of the noise, theta and the mean gradient along the eigenvectors of a generator. */
  protected directions(measure: Measure, theta: Float64Array, A: Generator): Directions {
    const last = this.#measured;
    if (last?.A === A && last.theta.every((x, i) => x === theta[i])) return last.along;
    const { spectrum, key } = this.spectrumOf(A);
    const { center } = A;
    const floor = this.noiseFloor(measure, theta);
    const along = {
      floor,
      mu: spectrum.mu,
      s: noiseSpectrum(measure, theta, spectrum, key).map((s) => (s <= floor ? 0 : s)),
      displaced: spectrum.coordinates(center === null ? theta : theta.map((x, i) => x - center[i]!)),
      theta: spectrum.coordinates(this.decaying(theta)),
      mean: spectrum.coordinates(measure.meanAt(theta, meanGradient)),
    };
    this.#measured = { A, theta: theta.slice(), along };
    return along;
  }

  /** What weight decay pulls to 0: theta, with zeros for blocks that are not trained. */
  protected decaying(theta: Float64Array): Float64Array {
    const out = theta.slice();
    for (const { trainable, offset, size } of this.model.blocks)
      if (!trainable) out.fill(0, offset, offset + size);
    return out;
  }

  /** A generator as it came from a caller, one of this model. */
  protected fitting(where: string, A: Generator): Generator {
    const generator = generatorIn(where, A);
    checkActsOn(where, this.model, generator);
    if (generator instanceof DiscoveredGenerator && generator.translation !== null)
      fail(
        "unsupported",
        where,
        "a field A (theta - c) without a constant part",
        `${generator.name}, which also translates`,
        "Its translation is in generator.translation; charges of such fields are not computed yet.",
      );
    return generator;
  }

  /** Eigenvectors of a generator, kept as long as it is. */
  protected spectrumOf(A: Generator): { spectrum: Spectrum; key: string } {
    let known = this.#spectra.get(A);
    if (known === undefined) {
      known = {
        spectrum: new Spectrum(this.model, A, new Dense(this.host)),
        key: this.newKey(),
      };
      this.#spectra.set(A, known);
    }
    return known;
  }

  #keys = 0;
  /** A name for the passes of a generator, or of several. */
  protected newKey(): string {
    return `generator ${this.#keys++}`;
  }
}

import type { RealArray } from "../core/arena.ts";
import { log } from "../core/elementary.ts";
import { keyOf } from "../core/key.ts";
import type { ThetaLike } from "../dynamics/theta.ts";
import { checkFlag, checkKnown, checkNumber, checkObject, fail, showShape } from "../errors.ts";
import { type Node, sizeOf } from "../graph/node.ts";
import { sum } from "../graph/ops.ts";
import { meanGradient } from "../models/derivatives.ts";
import { Evaluation } from "../models/evaluate.ts";
import type { Measure } from "../models/measure.ts";
import { expressionIn, generatorIn } from "../recording.ts";
import { Dense } from "../stats/dense.ts";
import { secondMoment, squaredNorm } from "../stats/noise.ts";
import { dot } from "../stats/operator.ts";
import { chargeOf, factorsOf } from "../symmetry/charge.ts";
import { type ChargeCheck, type ChargeFlow, chargeFlowOf, checkCharge } from "../symmetry/charge-flow.ts";
import { checkSymmetry, type SymmetryCheck } from "../symmetry/check.ts";
import { type Energies, energiesAlong, NOISE_FLOOR } from "../symmetry/energy.ts";
import { type Drift, type FlowInput, flowOf, type NoetherFlow } from "../symmetry/flow.ts";
import { type Fitted, fitted, type Generator } from "../symmetry/generator.ts";
import { fromCenter, type Motion, motionOf, transformed } from "../symmetry/motion.ts";
import { Spectrum } from "../symmetry/spectrum.ts";
import { readStrength, type StrengthOptions } from "../symmetry/strength.ts";
import { ProblemCurvature } from "./curvature.ts";

/** dQ/dt of a matrix charge, h x h each, row-major. */
export interface MatrixFlow {
  /** 2 sigma^2 (S_U - S_W) */
  readonly noise: Float64Array;
  /** -4 gamma Q, of a block that is not trained without its part U^T U or -W W^T */
  readonly decay: Float64Array;
  /** -(U^T gbar_U + gbar_U^T U - W gbar_W^T - gbar_W W^T): 0 where the loss depends on U and W through U W alone */
  readonly gradient: Float64Array;
  /** noise + decay + gradient */
  readonly total: Float64Array;
}

/** What flows and equilibria are computed from. */
export type Directions = FlowInput & Energies;

/** Exponential symmetries: charges, orbits, checks, Noether flow. */
export abstract class ProblemSymmetries extends ProblemCurvature {
  readonly #spectra = new WeakMap<Generator, { spectrum: Spectrum; key: string }>();
  readonly #fitted = new WeakMap<Generator, Fitted>();
  readonly #motions = new WeakMap<Fitted, Motion>();
  readonly #charges = new WeakMap<Node, { scalar: Node; key: string }>();
  /** The last measurement: the flow and the equilibrium of one generator ask for the same. */
  #measured: { A: Generator; theta: Float64Array; along: Directions } | null = null;

  /**
   * Noether charge C = 1/2 (theta - c)^T A (theta - c) + b . theta of a generator.
   *
   * @throws NoetherflowError "shape" if A and the model disagree on a block, "nonfinite" beyond the range of the engine
   * @example problem.charge(theta, A); // -0.4985
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
    this.within("charge", "C", charge);
    return charge;
  }

  /**
   * theta moved along the orbit of a generator, block by block: e^(lambda A) (theta - c) + c, and with a translation b the
   * flow of A (theta - c) + b for a time lambda: about a center c - A^+ b where A acts, theta + lambda b where it does not.
   *
   * @throws NoetherflowError "nonfinite" where it leaves the range of the engine
   * @cost eigenvectors of the generator's matrices once, then products of block size
   * @example problem.charge(problem.transform(theta, A, 0.1), A); // 0.1058; C rises along the orbit
   */
  transform(theta: ThetaLike, A: Generator, lambda: number): RealArray {
    const where = "transform";
    const flat = this.checked(where, theta);
    checkNumber(where, "lambda", lambda);
    const out = this.real(transformed(this.motion(this.fitting(where, A)), flat, lambda));
    for (const x of out) this.within(where, "theta on the orbit", x, "Take a lambda nearer to 0.");
    return out;
  }

  /**
   * Is A a symmetry of the loss of every sample? `defect` is the largest |g_n . J| / (|g_n| |J|) over all samples and
   * three standard normal thetas (and `theta` if given), J = A (theta - c) + b: "exact" up to 1e-10 (f32: 1e-4) and under
   * the finite transformation, "approximate" up to 0.05, else "none".
   *
   * @throws NoetherflowError "unsupported" for a field that is 0 everywhere
   * @cost some 12 passes over the data
   * @example
   * problem.checkSymmetry(A).verdict; // "exact"
   * problem.checkSymmetry(symmetry.scaling("U")).verdict; // "none"
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
   * dC/dt of the charge of A and its parts, J = A (theta - c) + b: noise sigma^2 Tr[Sigma A], decay -2 gamma J . theta,
   * gradient -J . gbar (0 for a symmetry), the balance of both signs, and every eigen-direction.
   *
   * @param options { eta, batchSize } or { sigma2 }; weightDecay, sampling, momentum
   * @throws NoetherflowError "nonfinite" where a part of it is
   * @source Ziyin et al. 2024, arXiv:2402.07193, eqs. 5 and 7
   * @example
   * const flow = problem.noetherFlow(theta, A, { eta: 0.01, batchSize: 4, weightDecay: 0.001 });
   * flow.noise; // 0.004423
   * flow.decay; // 0.001994
   */
  noetherFlow(theta: ThetaLike, A: Generator, options: StrengthOptions): NoetherFlow {
    const where = "noetherFlow";
    const flat = this.checked(where, theta);
    const generator = this.fitting(where, A);
    const measure = this.perSample(where);
    const strength = readStrength(where, options, this.N);
    const flow = flowOf(this.directions(where, measure, flat, generator), strength, log);
    for (const part of ["noise", "decay", "gradient", "discrete", "total"] as const)
      this.within(where, `the ${part} of the flow`, flow[part]);
    return flow;
  }

  /**
   * dC/dt of any charge C, an expression of parameters that need not be quadratic, and its parts:
   *
   *   dC/dt = sigma^2 Tr[Sigma Hess C] - 2 gamma grad C . theta - grad C . gbar
   *
   * The last is 0 where C is conserved by gradient flow, grad C . g_n = 0 for every sample n.
   *
   * @param C       a scalar built with `ops` from `model.leaf(name)`, as `record.values` takes
   * @param options { eta, batchSize } or { sigma2 }; weightDecay, sampling, momentum
   * @throws NoetherflowError "nonfinite" where a part is, as outside the domain of C; "unsupported" for a C of no trained block
   * @cost    five passes over the data: neither Sigma nor Hess C is formed
   * @source  Ziyin et al. 2024, arXiv:2402.07193, eq. 5
   * @example
   * const C = ops.log(ops.div(ops.sqnorm(U), ops.sqnorm(W))); // scaling changes it, so it is not conserved
   * problem.chargeFlow(theta, C, { eta: 0.01, batchSize: 4 }).gradient; // -1.671
   */
  chargeFlow(theta: ThetaLike, C: Node, options: StrengthOptions): ChargeFlow {
    const where = "chargeFlow";
    const flat = this.checked(where, theta);
    const { scalar, key } = this.#chargeIn(where, C);
    const measure = this.perSample(where);
    const strength = readStrength(where, options, this.N);
    const flow = chargeFlowOf(where, measure, scalar, key, flat, this.decaying(flat), strength);
    const domain = "The charge and the loss must be finite at theta, with their derivatives.";
    for (const part of ["charge", "noise", "decay", "gradient", "discrete", "total"] as const)
      this.within(where, part === "charge" ? "C" : `the ${part} of the flow`, flow[part], domain);
    return flow;
  }

  /**
   * Is C conserved, grad C . g_n = 0 for every sample? `defect` is the largest |g_n . grad C| / (|g_n| |grad C|) over all
   * samples and three standard normal thetas (and `theta` if given); verdicts as checkSymmetry. A theta outside the domain
   * of C is tried with its absolute values, then drawn again, 16 times at most.
   *
   * @throws NoetherflowError "nonfinite" where no theta lies in the domain of C and of the loss; "unsupported" for a constant
   * @cost three passes over the data per theta
   * @example
   * problem.checkCharge(ops.sub(ops.sqnorm(U), ops.sqnorm(W))).verdict; // "exact"
   * problem.checkCharge(ops.sqnorm(U)).verdict; // "none"
   */
  checkCharge(C: Node, options: { theta?: ThetaLike; seed?: string | number } = {}): ChargeCheck {
    const where = "checkCharge";
    checkKnown(where, checkObject(where, "options { theta?, seed? }", options), ["theta", "seed"]);
    const measure = this.all(where);
    const { scalar, key } = this.#chargeIn(where, C);
    const given = options.theta === undefined ? null : this.checked(where, options.theta);
    return checkCharge(where, measure, scalar, key, keyOf(where, options.seed ?? "0"), given);
  }

  /**
   * The matrix form for a product U W: dQ/dt = 2 sigma^2 (S_U - S_W) - 4 gamma Q - (U^T gbar_U + gbar_U^T U - W gbar_W^T -
   * gbar_W W^T), Q = U^T U - W W^T. The last is 0 for a loss of U W.
   *
   * @param options.transposeW the block W holds the transpose, dx x h
   * @returns h x h each, row-major
   * @source Ziyin et al. 2024, arXiv:2402.07193, Proposition 1
   * @example problem.matrixFlow(theta, "U", "W", { eta: 0.01, batchSize: 4 }).total.length; // 16; h = 4
   */
  matrixFlow(
    theta: ThetaLike,
    U: string,
    W: string,
    options: StrengthOptions & { transposeW?: boolean },
  ): MatrixFlow {
    const where = "matrixFlow";
    const flat = this.checked(where, theta);
    const measure = this.perSample(where);
    const { sigma2, gamma } = readStrength(where, options, this.N, ["transposeW"]);
    const transposeW = checkFlag(where, "transposeW", options.transposeW);
    const { U: up, W: down, h } = factorsOf(where, this.model, U, W, transposeW);
    const { SU, SW } = this.noiseMoments(flat, U, W, { transposeW });
    const gBar = measure.meanAt(flat, meanGradient);
    // sum_r p_ri q_rj over the rows of U, or over the columns of W
    const products = (p: Float64Array, q: Float64Array, block: typeof up, turned: boolean): Float64Array => {
      const [count, entry, step] = turned ? [block.size / h, block.size / h, 1] : [block.size / h, 1, h];
      return Float64Array.from({ length: h * h }, (_, e) => {
        const [i, j] = [Math.floor(e / h) * entry, (e % h) * entry];
        let total = 0;
        for (let r = 0; r < count; r++)
          total += p[block.offset + r * step + i]! * q[block.offset + r * step + j]!;
        return total;
      });
    };
    const own = this.decaying(flat);
    const of = (p: Float64Array, q: Float64Array): Float64Array => {
      const ofW = products(p, q, down, !transposeW);
      return products(p, q, up, false).map((x, e) => x - ofW[e]!);
    };
    const noise = Float64Array.from(SU, (x, e) => 2 * sigma2 * (x - SW[e]!));
    const decay = of(own, own).map((x) => -4 * gamma * x + 0); // no -0
    const pulled = of(flat, gBar);
    const gradient = pulled.map((x, e) => 0 - (x + pulled[(e % h) * h + Math.floor(e / h)]!));
    const total = noise.map((x, e) => x + decay[e]! + gradient[e]!);
    for (const [name, part] of Object.entries({ noise, decay, gradient, total }))
      for (const x of part) this.within(where, `the ${name} of the flow`, x);
    return { noise, decay, gradient, total };
  }

  /** Coordinates of the noise, theta and the mean gradient along the eigenvectors of a generator. */
  protected directions(where: string, measure: Measure, theta: Float64Array, A: Fitted): Directions {
    const last = this.#measured;
    if (last?.A === A && last.theta.every((x, i) => x === theta[i])) return last.along;
    const { spectrum, key } = this.spectrumOf(A);
    const motion = this.motion(A);
    const { mu } = spectrum;
    const mean = measure.meanAt(theta, meanGradient);
    const energies = energiesAlong(where, measure, theta, fromCenter(motion, theta), spectrum, [mu], key);
    // a component of the mean gradient this small is what rounding leaves of none, as of the noise
    const floor =
      motion.drift === null
        ? 0
        : NOISE_FLOOR[this.host.core.dtype] *
          secondMoment(measure, "squared norm", theta, squaredNorm(measure));
    const along = {
      ...energies,
      mu,
      theta: spectrum.coordinates(this.decaying(theta)),
      mean: spectrum.coordinates(mean).map((x, i) => (x * x <= energies.floor[i]! ? 0 : x)),
      drift: this.#drift(motion, theta, mean, floor),
    };
    this.#measured = { A, theta: theta.slice(), along };
    return along;
  }

  #drift(
    { drift: b, constant }: Motion,
    theta: Float64Array,
    mean: Float64Array,
    floor: number,
  ): Drift | null {
    if (b === null && constant === 0) return null;
    const whole = b ?? new Float64Array(this.P);
    const moved = this.decaying(whole);
    const squared = dot(whole, whole);
    const along = dot(whole, mean);
    return {
      squared,
      theta: dot(whole, theta),
      mean: along * along <= floor * squared ? 0 : along,
      decaying: dot(moved, theta),
      decayingSquared: dot(moved, moved),
      moved,
      constant,
    };
  }

  /** What weight decay pulls to 0: theta, with zeros for blocks that are not trained. */
  protected decaying(theta: Float64Array): Float64Array {
    const out = theta.slice();
    for (const { trainable, offset, size } of this.model.blocks)
      if (!trainable) out.fill(0, offset, offset + size);
    return out;
  }

  /** A generator as it came from a caller, one of this model. */
  protected fitting(where: string, A: Generator): Fitted {
    const generator = generatorIn(where, A);
    let known = this.#fitted.get(generator);
    if (known === undefined) {
      known = fitted(where, this.model, generator);
      this.#fitted.set(generator, known);
    }
    return known;
  }

  /** The value, refused where it is not finite. */
  protected within(where: string, what: string, value: number, hint?: string): void {
    if (!Number.isFinite(value))
      fail(
        "nonfinite",
        where,
        `${what} within ${this.host.core.dtype}`,
        `${value}`,
        hint ?? "Scale theta or the data, or move theta into the domain of the loss.",
      );
  }

  /** A charge as it came from a caller: an expression of one value. */
  #chargeIn(where: string, C: unknown): { scalar: Node; key: string } {
    const node = expressionIn(where, this.model, C, "charges");
    let known = this.#charges.get(node);
    if (known === undefined) {
      if (sizeOf(node.shape) !== 1)
        fail("shape", where, "expected a charge of one value", `shape ${showShape(node.shape)}`);
      known = { scalar: node.shape.length === 0 ? node : sum(node), key: this.newKey() };
      this.#charges.set(node, known);
    }
    return known;
  }

  /** How a generator moves theta. */
  protected motion(A: Fitted): Motion {
    let known = this.#motions.get(A);
    if (known === undefined) {
      known = motionOf(A, this.spectrumOf(A).spectrum);
      this.#motions.set(A, known);
    }
    return known;
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

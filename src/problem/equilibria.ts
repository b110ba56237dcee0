import type { RealArray } from "../core/arena.ts";
import { exp, log } from "../core/elementary.ts";
import { keyOf } from "../core/key.ts";
import type { ThetaLike } from "../dynamics/theta.ts";
import { checkFlag, checkNumber, fail, show, showShape } from "../errors.ts";
import type { Block } from "../graph/model.ts";
import { readValues } from "../graph/parse.ts";
import type { Measure } from "../models/measure.ts";
import { Dense, type Matrix } from "../stats/dense.ts";
import { checkSymmetry } from "../symmetry/check.ts";
import { type CommonBasis, commonBasis, solveCommon } from "../symmetry/common.ts";
import { checkSquares, energiesAlong } from "../symmetry/energy.ts";
import {
  chargeAt,
  type Direction,
  type Equilibrium,
  flowAt,
  MU_FLOOR,
  solveEquilibrium,
} from "../symmetry/equilibrium.ts";
import { flowOf } from "../symmetry/flow.ts";
import { doubleRotation, type Fitted, type Generator, keyQuery } from "../symmetry/generator.ts";
import { driftCharge, driftFlow, equilibriumWith } from "../symmetry/motion.ts";
import { noiseGradient } from "../symmetry/spectrum.ts";
import { readStrength, type StrengthOptions } from "../symmetry/strength.ts";
import { type GroupFactors, TwoLayer } from "../symmetry/two-layer.ts";
import { ProblemSymmetries } from "./symmetries.ts";

/** The noise equilibrium on the orbit of theta, or why there is no closed form. */
export type OrbitEquilibrium =
  | Equilibrium
  | { readonly status: "none"; readonly reason: string; readonly flow0: number; readonly charge0: number };

export interface EquilibriumOptions extends StrengthOptions {
  /** Compute it although the generator is no exact symmetry. */
  readonly force?: boolean;
}

/** Flow and charge along an orbit, one value per lambda. */
export interface EquilibriumCurve {
  /** The values asked for. */
  readonly lambda: Float64Array;
  /** f(lambda) = dC/dt at e^(lambda A) theta, non-increasing in lambda. */
  readonly flow: Float64Array;
  /** C(lambda), non-decreasing in lambda. */
  readonly charge: Float64Array;
}

/** Where the charges of several commuting generators rest, or why they do not. */
export type CommonEquilibrium =
  | {
      readonly status: "finite";
      /** One lambda for each generator. */
      readonly lambda: readonly number[];
      /** e^(sum_k lambda_k A_k) theta: every charge is at rest there. */
      readonly theta: RealArray;
      /** dC_k/dt and C_k at theta, and C_k at rest. */
      readonly flows0: readonly number[];
      readonly charges0: readonly number[];
      readonly charges: readonly number[];
      /** Directions of lambda along which nothing changes; 0 where lambda is unique. */
      readonly flat: number;
      readonly iterations: number;
      /** max_k |dC_k/dt| at rest, beside the sum of the sizes of its terms. */
      readonly residual: number;
    }
  | {
      readonly status: "none";
      readonly reason: string;
      /** A unit vector of lambda along which the charges change for ever; null where that is not the reason. */
      readonly direction: readonly number[] | null;
      readonly flows0: readonly number[];
      readonly charges0: readonly number[];
    };

export interface GroupOptions extends EquilibriumOptions {
  /** The block W holds the transpose, dx x h; the W returned is h x dx all the same. */
  readonly transposeW?: boolean;
  /** In [1e-10, 1]: how much of their mean diagonals is added to X_U and X_W; see `trend`. */
  readonly regularize?: number;
}

/** A point of the orbit of all double rotations where dQ/dt = 0, or near the infimum where there is none. */
export interface GroupEquilibrium extends GroupFactors {
  /** theta with U and W in place. */
  readonly theta: RealArray;
}

const SHIFTED_WITH_DECAY =
  "weight decay pulls to 0, and this generator turns about another center: there is no closed form";
const UNTRAINED_WITH_DECAY =
  "weight decay leaves untrained blocks where they are, and this generator moves them: there is no closed form";

const FAR = "Move theta along its orbit with problem.transform, or scale the data or theta.";

/** A list of finite numbers, which may be empty. */
function readList(where: string, given: ArrayLike<number>): Float64Array {
  if ((Array.isArray(given) || ArrayBuffer.isView(given)) && given.length === 0) return new Float64Array(0);
  const { values, shape } = readValues(where, given, null);
  if (shape.length !== 1) fail("shape", where, "expected a list of numbers", showShape(shape));
  return values;
}

/** Where noise and decay balance: on the orbit of one generator, of several, of all rotations of a product. */
export abstract class ProblemEquilibria extends ProblemSymmetries {
  readonly #exact = new WeakMap<Generator, boolean>();
  readonly #common = new WeakMap<Generator, { of: Generator[]; basis: CommonBasis & { key: string } }>();
  readonly #rotations = new Map<string, Generator>();

  /**
   * Theorem 1: the point of the orbit e^(lambda A) theta where noise and decay balance.
   *
   * @returns status "finite" (lambda, charge there, slope f', rate 1 / tau_2, ...), "+inf", "-inf" (the charge grows or
   *          falls for ever), "flat" (nothing moves it), or "none" with a reason (with decay, a shifted generator or one of untrained blocks)
   * @throws  NoetherflowError "unsupported" for a generator that is not an exact symmetry, unless `force`
   * @source  Ziyin et al. 2024, arXiv:2402.07193, Theorem 1
   * @example problem.equilibrium(theta, A, { eta: 0.01, batchSize: 4 }); // { status: "finite", lambda: 0.00721, charge0: -0.4985, charge: -0.4545 }
   */
  equilibrium(theta: ThetaLike, A: Generator, options: EquilibriumOptions): OrbitEquilibrium {
    const where = "equilibrium";
    const { input, strength, directions, setting, obstacle } = this.#orbit(where, theta, A, options);
    if (obstacle === null)
      return equilibriumWith(input.drift, solveEquilibrium(directions, setting), setting.gamma);
    const flow0 = flowOf(input, strength, log).total;
    this.within(where, "dC/dt", flow0, FAR);
    return {
      status: "none",
      reason: obstacle,
      flow0,
      charge0: chargeAt(directions, 0) + (input.drift === null ? 0 : driftCharge(input.drift, 0)),
    };
  }

  /**
   * How the equilibrium moves with theta: d lambda* / d theta, P values (all blocks of theta count, trained or not). With
   * M = A e^(-2 lambda* A) held fixed,
   *
   *   d lambda* / d theta = -(sigma^2 grad Tr[Sigma(theta) M] - 4 gamma A e^(2 lambda* A) theta) / f'(lambda*)
   *
   * Along the orbit it is -1: (A (theta - c)) . grad lambda* = -1.
   *
   * @returns its own copy
   * @throws  NoetherflowError "unsupported" where the equilibrium is not finite, and as `equilibrium` does
   * @cost    some five times that of `equilibrium`: mostly the coordinates of each sample's gradient, and the way back through them
   * @source  theory.md, 5.1 (4); Ziyin et al. 2024, arXiv:2402.07193, Theorem 1
   * @example problem.equilibriumGradient(theta, A, { eta: 0.01, batchSize: 4 }).length; // 20
   */
  equilibriumGradient(theta: ThetaLike, A: Generator, options: EquilibriumOptions): RealArray {
    const where = "equilibriumGradient";
    const { measure, flat, generator, input, strength, directions, setting, obstacle } = this.#orbit(
      where,
      theta,
      A,
      options,
    );
    const refuse = (got: string): never =>
      fail(
        "unsupported",
        where,
        "a finite equilibrium, which moves with theta",
        got,
        "See problem.equilibrium for its status.",
      );
    if (obstacle !== null) return refuse(obstacle);
    const at = equilibriumWith(input.drift, solveEquilibrium(directions, setting), setting.gamma);
    if (at.status !== "finite") return refuse(`status "${at.status}"`);
    const { sigma2, gamma } = strength;
    const { mu, displaced, drift } = input;
    const least = MU_FLOOR * mu.reduce((m, x) => Math.max(m, Math.abs(x)), 0);
    const acts = (m: number): boolean => Math.abs(m) > least;
    const weights = mu.map((m) => (acts(m) ? m * exp(-2 * at.lambda * m) : 0));
    const pulled = mu.map((m, i) => (acts(m) ? m * exp(2 * at.lambda * m) * displaced[i]! : 0));
    const { spectrum, key } = this.spectrumOf(generator);
    const noise = noiseGradient(measure, flat, spectrum, key, weights);
    const decay = spectrum.vector(pulled, new Float64Array(this.P));
    const translated = drift?.moved ?? new Float64Array(this.P);
    const out = noise.map((x, i) => -(sigma2 * x - gamma * (4 * decay[i]! + 2 * translated[i]!)) / at.slope);
    if (!(at.slope > -Infinity && out.every(Number.isFinite)))
      fail(
        "nonfinite",
        where,
        "derivatives of lambda* within f64",
        `lambda* ${at.lambda}, slope ${at.slope}`,
        FAR,
      );
    return this.real(out);
  }

  /**
   * The flow and the charge along the orbit e^(lambda A) theta, from one measurement at theta:
   *
   *   f(lambda) = dC/dt = sum_i mu_i [sigma^2 s_i e^(-2 lambda mu_i) - 2 gamma q_i e^(2 lambda mu_i)],   non-increasing
   *   C(lambda) = 1/2 sum_i mu_i q_i e^(2 lambda mu_i),   non-decreasing
   *
   * The root of f is `equilibrium`. Values beyond 1.8e308 are +-Infinity.
   *
   * @returns its own copies, one value per lambda in the order given
   * @throws  NoetherflowError "unsupported" where `equilibrium` is "none", and as it does
   * @cost    three passes over the data, then O(P) a lambda
   * @source  Ziyin et al. 2024, arXiv:2402.07193, eqs. 34-38
   * @example
   * const curve = problem.equilibriumCurve(theta, A, [-0.5, 0, 0.5], { eta: 0.01, batchSize: 4 });
   * curve.charge; // [-4.355, -0.4985, 2.816]
   */
  equilibriumCurve(
    theta: ThetaLike,
    A: Generator,
    lambdas: ArrayLike<number>,
    options: EquilibriumOptions,
  ): EquilibriumCurve {
    const where = "equilibriumCurve";
    const lambda = readList(`${where}: lambdas`, lambdas);
    const { input, directions, setting, obstacle } = this.#orbit(where, theta, A, options);
    if (obstacle !== null) fail("unsupported", where, "an orbit with a closed form", obstacle);
    const { drift } = input;
    return {
      lambda,
      flow: lambda.map(
        (x) => flowAt(directions, x, setting) + (drift ? driftFlow(drift, setting.gamma, x) : 0),
      ),
      charge: lambda.map((x) => chargeAt(directions, x) + (drift ? driftCharge(drift, x) : 0)),
    };
  }

  /**
   * Several commuting generators at once: the point of their joint orbit e^(sum_k lambda_k A_k) theta where every charge is
   * at rest, the minimum of the convex
   *
   *   Psi(lambda) = sum_i [sigma^2 s_i e^(-2 lambda . mu_i) + 2 gamma q_i e^(2 lambda . mu_i)],   d Psi / d lambda_k = -2 dC_k/dt
   *
   * (the noise sigma^2 Tr Sigma and the norm 2 gamma |theta|^2 that the generators act on), mu_i the eigenvalues of all
   * generators along the common eigenvector i. Directions along which nothing changes are counted in `flat`; lambda has no
   * component there.
   *
   * @returns status "finite", or "none" with a reason: the charges change for ever along some direction, nothing moves any of
   *          them, or as for one generator
   * @throws  NoetherflowError "unsupported" for generators that do not commute, naming two of them, or turn about different
   *          centers, or are no exact symmetries, unless `force`
   * @cost    three passes over the data, then O(J K^2 + K^3) an iteration for K generators with J different eigenvalues; the
   *          first call with these generators finds their eigenvectors, O(K n^3) for blocks of n rows and columns
   * @source  theory.md, 3 (variational form); Ziyin et al. 2024, arXiv:2402.07193, Theorem 1, for one generator
   * @example
   * const neurons = [0, 1, 2, 3].map((j) => symmetry.neuronRescaling("U", "W", j));
   * const at = problem.commonEquilibrium(theta, neurons, { eta: 0.01, batchSize: 4 });
   * at.status; // "finite"
   */
  commonEquilibrium(
    theta: ThetaLike,
    generators: readonly Generator[],
    options: EquilibriumOptions,
  ): CommonEquilibrium {
    const where = "commonEquilibrium";
    const flat = this.checked(where, theta);
    if (!Array.isArray(generators) || generators.length === 0)
      fail("shape", where, "expected a list of generators, at least one", show(generators));
    const list = generators.map((A, k) => this.fitting(`${where}: generator ${k}`, A));
    const measure = this.perSample(where);
    const { sigma2, gamma } = readStrength(where, options, this.N, ["force"]);
    if (!checkFlag(where, "force", options.force))
      for (const A of list) this.#demandExact(where, measure, A, flat);
    const { spectrum, mu, center, key } = this.#commonBasis(where, list);
    const from = center === null ? flat : flat.map((x, i) => x - center[i]!);
    const { s, q, displaced } = energiesAlong(where, measure, flat, from, spectrum, mu, key);
    const own = spectrum.coordinates(this.decaying(flat));
    const sum = (name: string, of: (i: number) => number): number[] =>
      mu.map((m) => {
        const total = m.reduce((partial, x, i) => (x === 0 ? partial : partial + x * of(i)), 0);
        this.within(where, name, total, FAR);
        return total;
      });
    const flows0 = sum("dC/dt", (i) => sigma2 * s[i]! - 2 * gamma * displaced[i]! * own[i]!);
    const charges0 = sum("the charge", (i) => 0.5 * q[i]!);
    const obstacle = this.#obstacle(gamma, list);
    if (obstacle !== null) return { status: "none", reason: obstacle, direction: null, flows0, charges0 };
    const directions = Array.from(s, (x, i) => ({
      mu: mu.map((m) => m[i]!),
      s: x,
      q: q[i]!,
    }));
    const dense = new Dense(this.host);
    const at = solveCommon(where, directions, list.length, { sigma2, gamma }, dense);
    if (at.status === "none") {
      const direction = at.direction && [...at.direction];
      return { status: "none", reason: at.reason, direction, flows0, charges0 };
    }
    const moved = displaced.map((x, i) => {
      const along = at.lambda.reduce((total, l, k) => total + l * mu[k]![i]!, 0);
      return along === 0 ? x : x * exp(along);
    });
    const there = spectrum.vector(moved, from);
    if (center !== null) for (const [i, c] of center.entries()) there[i] = there[i]! + c;
    for (const x of there) this.within(where, "theta at rest", x, FAR);
    return {
      status: "finite",
      lambda: [...at.lambda],
      theta: this.real(there),
      flows0,
      charges0,
      charges: sum("the charge at rest", (i) => 0.5 * moved[i]! * moved[i]!),
      flat: at.flat,
      iterations: at.iterations,
      residual: at.residual,
    };
  }

  /**
   * All double rotations of a product U W at once, commuting or not, for any loss of U W: with X_U = sigma^2 S_U + 2 gamma
   * W W^T and X_W = sigma^2 S_W + 2 gamma U^T U measured at theta,
   *
   *   M = X_W^-1/2 (X_W^1/2 X_U X_W^1/2)^1/2 X_W^-1/2,   U* = U M^1/2,   W* = M^-1/2 W   =>   dQ/dt = 0
   *
   * the least sigma^2 Tr Sigma + 2 gamma |theta|^2 of the group's orbit, unique up to a rotation between U and W.
   *
   * Where X_U or X_W is singular (h > min(dx, dy), a dead neuron) the infimum may lie at infinity. With `regularize` = e that
   * of X_U + e (mean diagonal) I and X_W likewise is returned; `trend` tells from e / 100 whether theta* has a limit.
   *
   * @returns M, U*, W*, theta with both in place, and the trend where it is regularized
   * @throws  NoetherflowError "range" where X_U or X_W is singular, unless `regularize`; "unsupported" for a loss that is no
   *          function of U W, unless `force`; "nonfinite" where theta or its gradients are beyond f64
   * @cost    that of `noiseMoments`, and O(h^3); the symmetry is checked once per pair
   * @source  theory.md, 8 (closed form) and 16; Proposition 1 of Ziyin et al. 2024, arXiv:2402.07193
   * @example
   * const at = problem.groupEquilibrium(theta, "U", "W", { eta: 0.01, batchSize: 4, regularize: 1e-6 });
   * at.M.rows; // 4; h
   */
  groupEquilibrium(theta: ThetaLike, U: string, W: string, options: GroupOptions): GroupEquilibrium {
    const where = "groupEquilibrium";
    const flat = this.checked(where, theta);
    const measure = this.perSample(where);
    const more = ["force", "transposeW", "regularize"];
    const { sigma2, gamma } = readStrength(where, options, this.N, more);
    const transposeW = checkFlag(where, "transposeW", options.transposeW);
    const { regularize } = options;
    if (regularize !== undefined) checkNumber(where, "regularize", regularize, 1e-10, 1);
    const [up, down] = [this.model.block(U, where), this.model.block(W, where)];
    checkSquares(where, measure, flat, [up, down]);
    const { SU, SW } = this.noiseMoments(theta, U, W, { transposeW });
    const rotation = this.fitting(where, this.#genericRotation(U, W, transposeW));
    if (!checkFlag(where, "force", options.force)) this.#demandExact(where, measure, rotation, flat);
    const obstacle = this.#obstacle(gamma, [rotation]);
    if (obstacle !== null) fail("unsupported", where, "a product whose factors both decay", obstacle);
    const dense = new Dense(this.host);
    const matrixIn = ({ offset, shape: [rows = 1, cols = 1] }: Block) => ({
      rows,
      cols,
      values: flat.slice(offset, offset + rows * cols),
    });
    const turned = (m: Matrix): Matrix => (transposeW ? dense.transpose(m) : m);
    const h = up.shape[1]!;
    const moment = (values: ArrayLike<number>) => ({
      rows: h,
      cols: h,
      values: Float64Array.from(values),
    });
    const at = new TwoLayer(dense).groupEquilibrium({
      U: matrixIn(up),
      W: turned(matrixIn(down)),
      SU: moment(SU),
      SW: moment(SW),
      sigma2,
      gamma,
      regularize,
    });
    flat.set(at.U.values, up.offset);
    flat.set(turned(at.W).values, down.offset);
    return { ...at, theta: this.real(flat) };
  }

  /** What an equilibrium is computed from, measured at theta; refuses generators that are no symmetry. */
  #orbit(where: string, theta: ThetaLike, A: Generator, options: EquilibriumOptions) {
    const flat = this.checked(where, theta);
    const generator = this.fitting(where, A);
    const measure = this.perSample(where);
    const strength = readStrength(where, options, this.N, ["force"]);
    if (!checkFlag(where, "force", options.force)) this.#demandExact(where, measure, generator, flat);
    const input = this.directions(where, measure, flat, generator);
    const { mu, s, q } = input;
    const { sigma2, gamma } = strength;
    return {
      measure,
      flat,
      generator,
      input,
      strength,
      directions: Array.from(mu, (m, i): Direction => ({ mu: m, s: s[i]!, q: q[i]! })),
      setting: { sigma2, gamma },
      obstacle: this.#obstacle(gamma, [generator]),
    };
  }

  /** Why orbits of these generators have no closed form, or null. */
  #obstacle(gamma: number, generators: readonly Fitted[]): string | null {
    if (gamma === 0) return null;
    const isShifted = (A: Fitted): boolean => {
      const { spectrum, center, drift } = this.motion(A);
      return center !== null || (drift !== null && spectrum.mu.some((x) => x !== 0));
    };
    if (generators.some(isShifted)) return SHIFTED_WITH_DECAY;
    return generators.some((A) => this.#movesUntrained(A)) ? UNTRAINED_WITH_DECAY : null;
  }

  #movesUntrained({ blocks, dense }: Generator): boolean {
    const { P } = this;
    return this.model.blocks.some(({ name, trainable, offset, size }) => {
      if (trainable) return false;
      return blocks === null
        ? dense!.subarray(offset * P, (offset + size) * P).some((x) => x !== 0)
        : blocks.has(name);
    });
  }

  /** Eigenvectors that generators share, kept for the last list that began with this one. */
  #commonBasis(where: string, generators: readonly Fitted[]): CommonBasis & { key: string } {
    const [first] = generators as [Generator];
    const known = this.#common.get(first);
    if (known?.of.length === generators.length && known.of.every((A, k) => A === generators[k]))
      return known.basis;
    const basis = {
      ...commonBasis(where, this.model, generators, new Dense(this.host)),
      key: this.newKey(),
    };
    this.#common.set(first, { of: [...generators], basis });
    return basis;
  }

  /** A double rotation whose B commutes with nothing but its own functions: where it is a symmetry, all of them are. */
  #genericRotation(U: string, W: string, transposeW: boolean): Generator {
    const name = [U, W, transposeW].join();
    let A = this.#rotations.get(name);
    if (A === undefined) {
      const h = this.model.block(U).shape[1]!;
      const B = Array.from({ length: h }, (_, i) =>
        Array.from({ length: h }, (__, j) => (((i + 1) * (j + 1) * 0.6180339887498949) % 1) - 0.5),
      );
      A = transposeW ? keyQuery(U, W, B) : doubleRotation(U, W, B);
      this.#rotations.set(name, A);
    }
    return A;
  }

  #demandExact(where: string, measure: Measure, A: Generator, theta: Float64Array): void {
    let exact = this.#exact.get(A);
    if (exact === undefined) {
      const { spectrum } = this.spectrumOf(A);
      const { verdict } = checkSymmetry(measure, A, spectrum, keyOf(where, "0"), theta, where);
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

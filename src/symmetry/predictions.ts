/**
 * Closed-form predictions, as functions of plain numbers. Conventions are those of the glossary: C = theta^T A theta / 2,
 * sigma2 = eta / (2 S_eff), time t = k eta, decay gamma |theta|^2 (PyTorch's weight_decay is 2 gamma), Sigma of single
 * samples. "theory" is theory.md with its section.
 */
import { arctan, exp, log } from "../core/elementary.ts";
import { checkInteger, checkNumber, checkWord, fail, showShape } from "../errors.ts";
import type { Dense, Matrix } from "../stats/dense.ts";
import type { Direction } from "./equilibrium.ts";

// --- sampling and momentum ---------------------------------------------------------------------------------

/**
 * S_eff with Cov(mean of a batch) = Sigma / S_eff: S with replacement, S (N - 1) / (N - S) without (also the batches of a
 * shuffled epoch, for the drift of a charge). Infinity where a batch is all of the data, which leaves no noise.
 *
 * @source theory 1
 */
export function effectiveBatch(S: number, N = Infinity, sampling: "iid" | "without" = "iid"): number {
  const where = "effectiveBatch";
  checkInteger(where, "S", S, 1);
  checkWord(where, "sampling", sampling, ["iid", "without"]);
  if (N !== Infinity) checkInteger(where, "N", N, 1);
  if (sampling === "iid" || N === Infinity) return S;
  checkInteger(where, "S", S, 1, N, "N");
  return S === N ? Infinity : (S * (N - 1)) / (N - S);
}

/** sigma^2 = eta / (2 S_eff). @source theory 1 */
export function noiseStrength(eta: number, effectiveBatch: number): number {
  checkNumber("noiseStrength", "eta", eta, 0);
  if (effectiveBatch === Infinity) return 0;
  return eta / (2 * checkNumber("noiseStrength", "S_eff", effectiveBatch, 1));
}

/**
 * eta~ = eta / (1 - beta) of heavy-ball momentum (v' = beta v + g, theta' = theta - eta v'): predictions hold with it in
 * place of eta, at time k eta~. Fixed points without decay stay where they are.
 *
 * @source theory 13.4
 */
export function effectiveEta(eta: number, beta: number): number {
  const where = "effectiveEta";
  checkNumber(where, "beta", beta, 0);
  if (beta >= 1) fail("range", where, "beta must be below 1", `${beta}`);
  return checkNumber(where, "eta", eta, 0) / (1 - beta);
}

/**
 * Mean change of a charge per unit of the time k eta~, without decay:
 *
 *   dC/dt = eta~ / (2 S_eff) Tr[Sigma A] + (eta~ / 2) (1 + beta) / (1 - beta) gbar^T A gbar
 *
 * Exact for beta = 0 (one step of SGD); otherwise that of the slow motion, to first order in eta.
 *
 * @param of.noise Tr[Sigma A]; of.mean gbar^T A gbar
 * @source theory 2.3, 13.4
 */
export function discreteFlow(of: {
  readonly eta: number;
  readonly effectiveBatch: number;
  readonly noise: number;
  readonly mean: number;
  readonly beta?: number;
}): number {
  const { beta = 0 } = of;
  const eta = effectiveEta(of.eta, beta);
  return noiseStrength(eta, of.effectiveBatch) * of.noise + 0.5 * eta * ((1 + beta) / (1 - beta)) * of.mean;
}

// --- time scales -------------------------------------------------------------------------------------------

/** How fast the loss falls beside how fast a charge equilibrates. */
export interface TimeScales {
  /** Of the loss: (L - L_inf) / |grad L|^2, its e-folding time. */
  readonly tau1: number;
  /** Of the charge: 1 / rate. */
  readonly tau2: number;
  /** tau2 / tau1. */
  readonly ratio: number;
  /** "fast": the charge follows its equilibrium while the loss falls; "slow": the loss first. Within a factor 3 of 1, "between". */
  readonly phase: "fast" | "slow" | "between";
}

/**
 * tau_1 = (L - L_inf) / |grad L|^2, tau_2 = 1 / rate with the rate of an equilibrium, and which is shorter. In steps they
 * are tau / eta.
 *
 * @param of.curvature instead of the excess loss and the gradient, near a minimum: tau_1 = 1 / (2 h), h that of the loss
 *        along the motion
 * @source theory 4
 */
export function timeScales(
  of: { readonly rate: number } & (
    | { readonly excessLoss: number; readonly squaredGradient: number }
    | { readonly curvature: number }
  ),
): TimeScales {
  const where = "timeScales";
  const positive = (name: string, value: number): number => {
    if (checkNumber(where, name, value, 0) > 0) return value;
    return fail("range", where, `${name} must be above 0`, "0", "At a minimum give the curvature.");
  };
  const tau1 =
    "curvature" in of
      ? 1 / (2 * positive("curvature", of.curvature))
      : positive("excessLoss", of.excessLoss) / positive("squaredGradient", of.squaredGradient);
  const tau2 = of.rate === Infinity ? 0 : 1 / checkNumber(where, "rate", of.rate, 0);
  const ratio = tau2 / tau1;
  return { tau1, tau2, ratio, phase: ratio <= 0.3 ? "fast" : ratio >= 3 ? "slow" : "between" };
}

// --- balance -----------------------------------------------------------------------------------------------

/** How far the noise of the two signs of a generator is from balance. */
export interface Balance {
  /** N+ = sigma^2 Tr[Sigma A+] and N- = sigma^2 Tr[Sigma A-], A = A+ - A-. */
  readonly plus: number;
  readonly minus: number;
  /** ln(N+ / N-): 0 at balance without decay, infinite where one side has no noise, NaN where neither has. */
  readonly logRatio: number;
  /** (N+ - N- - 4 gamma C) / (N+ + N- + 2 gamma theta^T |A| theta), in [-1, 1]; 0 at the equilibrium, or where nothing acts. */
  readonly residual: number;
}

/** The balance of a spectrum. @source theory 6, eqs. 9 and 10 */
export function balance(
  directions: readonly Direction[],
  { sigma2, gamma = 0 }: { readonly sigma2: number; readonly gamma?: number },
): Balance {
  checkNumber("balance", "sigma2", sigma2, 0);
  checkNumber("balance", "gamma", gamma, 0);
  let [plus, minus, decay, size] = [0, 0, 0, 0];
  for (const { mu, s, q } of directions) {
    if (mu > 0) plus += mu * s;
    else minus -= mu * s;
    decay += mu * q;
    size += Math.abs(mu) * q;
  }
  plus *= sigma2;
  minus *= sigma2;
  const total = plus + minus + 2 * gamma * size;
  return {
    plus,
    minus,
    logRatio: plus === minus && plus > 0 ? 0 : log(plus) - log(minus),
    residual: total === 0 ? 0 : (plus - minus - 2 * gamma * decay) / total,
  };
}

// --- scale-invariant losses --------------------------------------------------------------------------------

/**
 * G = E|ghat|^2 of minibatch gradients at unit norm, from what was measured at norm r: r^2 (Tr Sigma / S_eff + |gbar|^2).
 *
 * @source theory 7
 */
export function unitPower(of: {
  readonly noise: number;
  readonly squaredGradient: number;
  readonly effectiveBatch: number;
  readonly radius: number;
}): number {
  const noise = of.effectiveBatch === Infinity ? 0 : of.noise / of.effectiveBatch;
  return of.radius * of.radius * (noise + of.squaredGradient);
}

/**
 * Norm r(t) of the parameters of a scale-invariant loss, for a constant n = Tr Sigma at unit norm:
 *
 *   d r^4/dt = 4 sigma2 n - 8 gamma r^4
 *   r^4 = r_0^4 e^(-8 gamma t) + 4 sigma2 n (1 - e^(-8 gamma t)) / (8 gamma),   r_0^4 + 4 sigma2 n t for gamma = 0
 *
 * t = Infinity gives r_inf = (sigma2 n / (2 gamma))^(1/4), or Infinity without decay.
 *
 * @source theory 7, eq. 11
 */
export function radiusAt(
  t: number,
  of: {
    readonly radius0: number;
    readonly sigma2: number;
    readonly unitNoise: number;
    readonly gamma?: number;
  },
): number {
  const where = "radiusAt";
  const { gamma = 0 } = of;
  if (t !== Infinity) checkNumber(where, "t", t, 0);
  checkNumber(where, "gamma", gamma, 0);
  const square = checkNumber(where, "radius0", of.radius0, 0) * of.radius0;
  const source =
    4 * checkNumber(where, "sigma2", of.sigma2, 0) * checkNumber(where, "unitNoise", of.unitNoise, 0);
  const kept = gamma === 0 ? 1 : exp(-8 * gamma * t);
  const grown = source === 0 ? 0 : source * decayedTime(8 * gamma, t);
  return Math.sqrt(Math.sqrt(square * square * kept + grown));
}

/** (1 - e^(-k t)) / k, the integral of e^(-k t), with all its digits (Kahan's quotient for small k t). */
function decayedTime(k: number, t: number): number {
  if (k === 0) return t;
  if (t === Infinity) return 1 / k;
  const factor = exp(-k * t);
  if (factor === 1) return t;
  return factor > 0.5 ? t * ((1 - factor) / -log(factor)) : (1 - factor) / k;
}

/** Where SGD of a scale-invariant loss comes to rest. */
export interface NormEquilibrium {
  /** (eta G / (4 gamma (1 - eta gamma)))^(1/4); Infinity without decay, when the norm grows as t^(1/4) for ever. */
  readonly radius: number;
  /** eta / r^2 = sqrt(4 eta gamma (1 - eta gamma) / G). */
  readonly effectiveEta: number;
  /** Root mean square angle of a step there, sqrt(4 eta gamma). */
  readonly angle: number;
  /** Of r^4 towards it: 8 gamma per unit of time, and 1 / (8 eta gamma) steps to fall by e. */
  readonly rate: number;
  readonly steps: number;
  /** lambda_e = 2 eta gamma of Li, Lyu, Arora 2020. */
  readonly intrinsicEta: number;
}

/**
 * The equilibrium norm of SGD, discreteness and mean gradient included, for G = E|ghat|^2 at unit norm (`unitPower`):
 * the fixed point of |theta'|^2 = (1 - 2 eta gamma)^2 |theta|^2 + eta^2 G / |theta|^2.
 *
 * @throws NoetherflowError "range" for eta gamma >= 1, and where eta or G is 0: nothing moves then
 * @source theory 7; Wan et al. 2021; Li, Lyu, Arora 2020, arXiv:2010.02916
 */
export function normEquilibrium(of: {
  readonly eta: number;
  readonly G: number;
  readonly gamma?: number;
}): NormEquilibrium {
  const where = "normEquilibrium";
  const { eta, G, gamma = 0 } = of;
  for (const [name, value] of Object.entries({ eta, G }))
    if (!(checkNumber(where, name, value) > 0)) fail("range", where, `${name} must be above 0`, `${value}`);
  const shrink = checkNumber(where, "gamma", gamma, 0) * eta;
  if (shrink >= 1) fail("range", where, "eta gamma must be below 1", `${shrink}`);
  return {
    radius: Math.sqrt(Math.sqrt((eta * G) / (4 * gamma * (1 - shrink)))),
    effectiveEta: Math.sqrt((4 * shrink * (1 - shrink)) / G),
    angle: Math.sqrt(4 * shrink),
    rate: 8 * gamma,
    steps: 1 / (8 * shrink),
    intrinsicEta: 2 * shrink,
  };
}

/**
 * Root mean square of the tangent of the angle that a step turns theta by, at norm r, in equilibrium or not, since a
 * gradient is orthogonal to theta and has the size sqrt(G) / r:  eta sqrt(G) / ((1 - 2 eta gamma) r^2).
 *
 * @source theory 7
 */
export function angularUpdate(of: {
  readonly eta: number;
  readonly G: number;
  readonly radius: number;
  readonly gamma?: number;
}): number {
  const { eta, gamma = 0, radius } = of;
  return (eta * Math.sqrt(of.G)) / ((1 - 2 * eta * gamma) * radius * radius);
}

// --- products u . w (dx = dy = 1) --------------------------------------------------------------------------

/**
 * Rate at which every entry of Q = u u^T - w w^T decays in ell(u . w): 2 sigma2 Var(ell') + 4 gamma, ell' = d ell / d(u . w).
 * For the rank-1 loss (u w x - y)^2 the variance is 4 D(v).
 *
 * @source theory 8 (d = 1), 14 (a)
 */
export function productRate(of: {
  readonly sigma2: number;
  readonly slopeVariance: number;
  readonly gamma?: number;
}): number {
  const { sigma2, slopeVariance, gamma = 0 } = of;
  return 2 * checkNumber("productRate", "sigma2", sigma2, 0) * slopeVariance + 4 * gamma;
}

/** What one step multiplies Q by, exactly: (1 - 2 eta gamma)^2 - eta^2 delta^2, delta the batch mean of ell'. @source theory 8 */
export function productFactor(of: {
  readonly eta: number;
  readonly delta: number;
  readonly gamma?: number;
}): number {
  const { eta, delta, gamma = 0 } = of;
  const keep = 1 - 2 * eta * gamma;
  return keep * keep - eta * eta * (delta * delta);
}

// --- lack of symmetry: ell + zeta ell_0 --------------------------------------------------------------------

/**
 * dC/dt = sigma2 Tr[Sigma A] - zeta (A theta) . grad ell_0, where ell has the symmetry and ell_0 has not.
 *
 * @param of.noise Tr[Sigma A]; of.pull (A theta) . grad ell_0
 * @source theory 11, eq. 18; 0 is eq. 19
 */
export function brokenFlow(of: {
  readonly sigma2: number;
  readonly noise: number;
  readonly zeta: number;
  readonly pull: number;
}): number {
  return of.sigma2 * of.noise - of.zeta * of.pull;
}

/**
 * Shift of the equilibrium along its orbit by a small zeta: zeta q / f'(lambda*), q = (A theta) . grad ell_0 there. The
 * error is O(zeta^2).
 *
 * @param of.slope f'(lambda*) of the symmetric loss, below 0
 * @source theory 11
 */
export function smallBreakingShift(of: {
  readonly zeta: number;
  readonly pull: number;
  readonly slope: number;
}): number {
  if (!(of.slope < 0))
    fail("range", "smallBreakingShift", "the slope at a finite equilibrium is below 0", `${of.slope}`);
  return (of.zeta * of.pull) / of.slope;
}

/**
 * The paper's estimate for large zeta at a minimum theta* of the total loss: C - C* = sigma2 Tr[Sigma A] / h, and with it
 * the displacement s n along the eigenvector n of the Hessian with the eigenvalue h, s = (C - C*) / (theta*^T A n).
 *
 * It treats theta as a point and may be 25 % off: `minimumShift` is the correct first order in sigma2. Both agree where the
 * noise can not move C, as for ell_0 = psi(C).
 *
 * @param of.alignment theta*^T A n; without it there is no displacement
 * @source theory 11, eqs. 20-23
 */
export function largeBreakingShift(of: {
  readonly sigma2: number;
  readonly noise: number;
  readonly h: number;
  readonly alignment?: number;
}): { readonly charge: number; readonly displacement?: number } {
  const where = "largeBreakingShift";
  if (!(checkNumber(where, "h", of.h) > 0)) fail("range", where, "h must be above 0", `${of.h}`);
  const charge = (of.sigma2 * of.noise) / of.h;
  return of.alignment === undefined ? { charge } : { charge, displacement: charge / of.alignment };
}

/** What noise does to first order in sigma2 near a minimum. */
export interface MinimumShift {
  /** Stationary covariance of theta, P x P. */
  readonly R: Matrix;
  /** E[theta] - theta*, P values. */
  readonly delta: Float64Array;
  /** E[C] - C(theta*). */
  readonly charge: number;
}

/**
 * E[theta] - theta* and E[C] - C* of the SDE near a minimum theta*, to first order in sigma2:
 *
 *   H R + R H = 2 sigma2 Sigma,   delta = -1/2 H^-1 (T : R),   E[C] - C* = (A theta*) . delta + 1/2 Tr[A R]
 *
 * @param of.H     Hessian of the total loss, P x P, positive definite
 * @param of.Sigma covariance of single-sample gradients, P x P
 * @param of.T     third derivatives of the total loss, T[(i P + j) P + k]
 * @param of.A     generator, P x P
 * @throws NoetherflowError "range" unless H is positive definite, "shape"
 * @cost   an eigen-decomposition and some products of P x P, and P^3
 * @source theory 11
 */
export function minimumShift(
  dense: Dense,
  of: {
    readonly H: Matrix;
    readonly Sigma: Matrix;
    readonly T: Float64Array;
    readonly A: Matrix;
    readonly theta: ArrayLike<number>;
    readonly sigma2: number;
  },
): MinimumShift {
  const where = "minimumShift";
  const { H, Sigma, T, A, theta, sigma2 } = of;
  const P = H.rows;
  alike(where, "A", A, P);
  if (T.length !== P * P * P)
    fail("shape", where, `T must hold P^3 = ${P * P * P} values`, `${T.length} values`);
  if (theta.length !== P) fail("shape", where, `theta must hold P = ${P} values`, `${theta.length} values`);
  const { R } = lyapunov(where, dense, H, Sigma, sigma2, 0);
  const pull: Matrix = { rows: P, cols: 1, values: new Float64Array(P) };
  for (let i = 0; i < P; i++) {
    let sum = 0;
    for (let e = 0; e < P * P; e++) sum += T[i * P * P + e]! * R.values[e]!;
    pull.values[i] = -0.5 * sum;
  }
  const delta = dense.solve(H, pull).values;
  let charge = 0.5 * dense.trace(dense.matmul(A, R));
  for (let i = 0; i < P; i++) {
    for (let j = 0; j < P; j++) charge += delta[i]! * A.values[i * P + j]! * theta[j]!;
  }
  return { R, delta, charge };
}

// --- stationary laws ---------------------------------------------------------------------------------------

/**
 * Stationary covariance of theta in the quadratic loss theta^T H theta / 2 with constant noise Sigma, and the mean loss
 * above its least, Tr[H R] / 2:
 *
 *   the SDE (no eta)    H R + R H = 2 sigma2 Sigma,                loss (sigma2 / 2) Tr Sigma
 *   SGD with step eta   H R + R H - eta H R H = 2 sigma2 Sigma     (2 sigma2 = eta / S_eff)
 *
 * @throws NoetherflowError "range" unless H is positive definite and, for SGD, eta max eig H < 2; "shape"
 * @source theory 14 (b)
 */
export function stationaryCovariance(
  dense: Dense,
  of: { readonly H: Matrix; readonly Sigma: Matrix; readonly sigma2: number; readonly eta?: number },
): { readonly R: Matrix; readonly excessLoss: number } {
  const where = "stationaryCovariance";
  return lyapunov(where, dense, of.H, of.Sigma, of.sigma2, checkNumber(where, "eta", of.eta ?? 0, 0));
}

/** H R + R H - eta H R H = 2 sigma2 Sigma in the eigenvectors of H, and Tr[H R] / 2. */
function lyapunov(
  where: string,
  dense: Dense,
  H: Matrix,
  Sigma: Matrix,
  sigma2: number,
  eta: number,
): { R: Matrix; excessLoss: number } {
  const P = H.rows;
  alike(where, "Sigma", Sigma, P);
  checkNumber(where, "sigma2", sigma2, 0);
  const { values: h, vectors: V } = dense.symmetricEigen(H);
  if (P > 0 && !(h[P - 1]! > 0))
    fail("range", where, "H must be positive definite", `an eigenvalue of ${h[P - 1]}`);
  if (P > 0 && !(eta * h[0]! < 2))
    fail(
      "range",
      where,
      "eta times the largest eigenvalue of H must be below 2",
      `${eta * h[0]!}`,
      "SGD diverges there.",
    );
  const Vt = dense.transpose(V);
  const turned = dense.matmul(Vt, dense.matmul(Sigma, V));
  let excessLoss = 0;
  for (let i = 0; i < P; i++) {
    for (let j = 0; j < P; j++)
      turned.values[i * P + j]! *= (2 * sigma2) / (h[i]! + h[j]! - eta * h[i]! * h[j]!);
    excessLoss += 0.5 * h[i]! * turned.values[i * P + i]!;
  }
  return { R: dense.matmul(V, dense.matmul(turned, Vt)), excessLoss };
}

function alike(where: string, name: string, matrix: Matrix, P: number): void {
  if (matrix.rows !== P || matrix.cols !== P)
    fail(
      "shape",
      where,
      `${name} must be like H, ${showShape([P, P])}`,
      showShape([matrix.rows, matrix.cols]),
    );
}

/** Moments of the data of (u w x - y)^2. */
export interface RankOneData {
  /** E x^2 and E[x y]. */
  readonly alpha: number;
  readonly b1: number;
  /** Var x^2, Cov(x^2, x y), Var(x y). */
  readonly a: number;
  readonly b: number;
  readonly c: number;
}

/** The stationary law of v = u w > 0 on the balanced valley u^2 = w^2, without decay. */
export interface RankOneLaw {
  /** sigma2 >= b1 / (2 c): no law, v goes to 0. */
  readonly collapses: boolean;
  /** Exponent of ln v near 0, 4 b1 - 8 sigma2 c: above 0 where v escapes from it. */
  readonly lyapunov: number;
  /**
   * p(v) ~ v^powerOfV D(v)^powerOfD e^(-angleFactor arctan((a v - b) / sqrt(Delta))) with D = a v^2 - 2 b v + c and
   * Delta = a c - b^2; where x^2 is constant, v^powerOfV e^(-v / scale).
   */
  readonly powerOfV: number;
  readonly powerOfD: number;
  readonly angleFactor: number;
  readonly Delta: number;
  /** p(v) falls as v^tail, -7/2, so that moments from 5/2 on diverge; -Infinity where it falls exponentially. */
  readonly tail: number;
  /** Of the gamma law where x^2 is constant, else null. */
  readonly gamma: GammaLaw | null;
}

/** Density v^(shape - 1) e^(-v / scale), normalised. */
export interface GammaLaw {
  readonly shape: number;
  readonly scale: number;
  /** shape scale and shape scale^2. */
  readonly mean: number;
  readonly variance: number;
}

/**
 * The stationary law of rank-1 regression under label noise, of
 *
 *   dv = [-4 v (alpha v - b1) + 8 sigma2 D v] dt + sqrt(32 sigma2 v^2 D) dW
 *
 * For x = +-1 (alpha = 1, a = b = 0) a gamma law of shape b1 / (4 sigma2 c) - 1/2, scale 4 sigma2 c, mean b1 - 2 sigma2 c
 * and variance (b1 - 2 sigma2 c) 4 sigma2 c. SGD differs from it by O(eta).
 *
 * @throws NoetherflowError "range" for moments of no data: a c must exceed b^2, or a and b be 0; and for sigma2 = 0
 * @source theory 14 (a); Ziyin, Li, Ueda, arXiv:2308.06671
 */
export function rankOneLaw({ alpha, b1, a, b, c }: RankOneData, sigma2: number): RankOneLaw {
  const where = "rankOneLaw";
  const positive = (name: string, value: number): void => {
    if (!(checkNumber(where, name, value) > 0)) fail("range", where, `${name} must be above 0`, `${value}`);
  };
  positive("sigma2", sigma2);
  positive("alpha", alpha);
  positive("c", c);
  const Delta = a * c - b * b;
  const isConstant = a === 0 && b === 0;
  if (!isConstant) positive("a c - b^2", Delta);
  const pull = b1 / (4 * sigma2 * c);
  const collapses = !(2 * sigma2 * c < b1);
  const shape = pull - 0.5;
  const scale = (4 * sigma2 * c) / alpha;
  return {
    collapses,
    lyapunov: 4 * b1 - 8 * sigma2 * c,
    powerOfV: pull - 1.5,
    powerOfD: isConstant ? 0 : -1 - 0.5 * pull,
    angleFactor: isConstant ? 0 : (alpha - (b * b1) / c) / (4 * sigma2 * Math.sqrt(Delta)),
    Delta,
    tail: isConstant ? -Infinity : -3.5,
    gamma:
      isConstant && !collapses
        ? { shape, scale, mean: shape * scale, variance: shape * scale * scale }
        : null,
  };
}

/** ln p(v) of that law but for a constant, v > 0. @throws NoetherflowError "range" where there is no law */
export function rankOneLogDensity(data: RankOneData, sigma2: number, v: number): number {
  const where = "rankOneLogDensity";
  const law = rankOneLaw(data, sigma2);
  if (law.collapses)
    fail("range", where, "expected sigma2 below b1 / (2 c)", `${sigma2}, where v collapses to 0`);
  if (!(checkNumber(where, "v", v) > 0)) fail("range", where, "v must be above 0", `${v}`);
  const { a, b, c } = data;
  if (law.gamma !== null) return law.powerOfV * log(v) - v / law.gamma.scale;
  const angle = arctan((a * v - b) / Math.sqrt(law.Delta));
  return law.powerOfV * log(v) + law.powerOfD * log(a * v * v - 2 * b * v + c) - law.angleFactor * angle;
}

/** Closed-form predictions, for users. */
export const predictions = {
  effectiveBatch,
  noiseStrength,
  effectiveEta,
  discreteFlow,
  timeScales,
  balance,
  unitPower,
  radiusAt,
  normEquilibrium,
  angularUpdate,
  productRate,
  productFactor,
  brokenFlow,
  smallBreakingShift,
  largeBreakingShift,
  minimumShift,
  stationaryCovariance,
  rankOneLaw,
  rankOneLogDensity,
} as const;

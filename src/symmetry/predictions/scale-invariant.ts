/** Norms of the parameters of a scale-invariant loss. */
import { exp, log } from "../../core/elementary.ts";
import { fail } from "../../errors.ts";
import { batch, nonNegative, optional, orInfinite, positive, readFields } from "./fields.ts";

/**
 * G = E|ghat|^2 of minibatch gradients at unit norm, from what was measured at norm r: r^2 (Tr Sigma / S_eff + |gbar|^2).
 *
 * @param of.noise Tr Sigma at norm r
 * @throws NoetherflowError "range" or "name" naming the field
 * @source theory 7
 * @example predictions.unitPower({ noise: 8, squaredGradient: 1, effectiveBatch: 4, radius: 2 }); // 12
 */
export function unitPower(of: {
  readonly noise: number;
  readonly squaredGradient: number;
  readonly effectiveBatch: number;
  readonly radius: number;
}): number {
  const { noise, squaredGradient, effectiveBatch, radius } = readFields("unitPower", of, {
    noise: nonNegative,
    squaredGradient: nonNegative,
    effectiveBatch: batch,
    radius: positive,
  });
  return radius * radius * (noise / effectiveBatch + squaredGradient);
}

/**
 * Norm r(t) of the parameters of a scale-invariant loss, for a constant n = Tr Sigma at unit norm:
 *
 *   d r^4/dt = 4 sigma2 n - 8 gamma r^4
 *   r^4 = r_0^4 e^(-8 gamma t) + 4 sigma2 n (1 - e^(-8 gamma t)) / (8 gamma),   r_0^4 + 4 sigma2 n t for gamma = 0
 *
 * t = Infinity gives r_inf = (sigma2 n / (2 gamma))^(1/4), or Infinity without decay.
 *
 * @throws NoetherflowError "range" or "name" naming the field
 * @source theory 7, eq. 11
 * @example predictions.radiusAt(Infinity, { radius0: 1, sigma2: 0.02, unitNoise: 16, gamma: 0.01 }); // 2
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
  orInfinite(where, "t", t);
  const { radius0, sigma2, unitNoise, gamma } = readFields(where, of, {
    radius0: nonNegative,
    sigma2: nonNegative,
    unitNoise: nonNegative,
    gamma: optional(nonNegative, 0),
  });
  const square = radius0 * radius0;
  const source = 4 * sigma2 * unitNoise;
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
  /** Steps in which r^4 comes nearer by e: 1 / (8 eta gamma). */
  readonly steps: number;
  /** lambda_e = 2 eta gamma of Li, Lyu, Arora 2020. */
  readonly intrinsicEta: number;
}

/**
 * The equilibrium norm of SGD, discreteness and mean gradient included, for G = E|ghat|^2 at unit norm (`unitPower`):
 * the fixed point of |theta'|^2 = (1 - 2 eta gamma)^2 |theta|^2 + eta^2 G / |theta|^2.
 *
 * @throws NoetherflowError "range" or "name" naming the field: eta gamma must be below 1, and eta and G above 0, else nothing
 *         moves
 * @source theory 7; Wan et al. 2021; Li, Lyu, Arora 2020, arXiv:2010.02916
 * @example predictions.normEquilibrium({ eta: 0.1, G: 1, gamma: 0.025 }); // { radius: 1.001, angle: 0.1 }
 */
export function normEquilibrium(of: {
  readonly eta: number;
  readonly G: number;
  readonly gamma?: number;
}): NormEquilibrium {
  const where = "normEquilibrium";
  const { eta, G, gamma } = readFields(where, of, {
    eta: positive,
    G: positive,
    gamma: optional(nonNegative, 0),
  });
  const shrink = gamma * eta;
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
 * @throws NoetherflowError "range" or "name" naming the field: 2 eta gamma must be below 1
 * @source theory 7
 * @example predictions.angularUpdate({ eta: 0.1, G: 4, radius: 1 }); // 0.2
 */
export function angularUpdate(of: {
  readonly eta: number;
  readonly G: number;
  readonly radius: number;
  readonly gamma?: number;
}): number {
  const where = "angularUpdate";
  const { eta, G, radius, gamma } = readFields(where, of, {
    eta: positive,
    G: nonNegative,
    radius: positive,
    gamma: optional(nonNegative, 0),
  });
  const shrink = 2 * eta * gamma;
  if (shrink >= 1) fail("range", where, "2 eta gamma must be below 1", `${shrink}`);
  return (eta * Math.sqrt(G)) / ((1 - shrink) * radius * radius);
}

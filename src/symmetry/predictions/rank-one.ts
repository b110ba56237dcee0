/** Products u . w of vectors (dx = dy = 1), and the stationary law of rank-1 regression. */
import { arctan, log } from "../../core/elementary.ts";
import { fail } from "../../errors.ts";
import { finite, nonNegative, optional, positive, readFields } from "./fields.ts";

/**
 * Rate at which every entry of Q = u u^T - w w^T decays in ell(u . w): 2 sigma2 Var(ell') + 4 gamma, ell' = d ell / d(u . w).
 * For the rank-1 loss (u w x - y)^2 the variance is 4 D(v).
 *
 * @throws NoetherflowError "range" or "name" naming the field
 * @source theory 8 (d = 1), 14 (a)
 * @example predictions.productRate({ sigma2: 0.01, slopeVariance: 4 }); // 0.08
 */
export function productRate(of: {
  readonly sigma2: number;
  readonly slopeVariance: number;
  readonly gamma?: number;
}): number {
  const { sigma2, slopeVariance, gamma } = readFields("productRate", of, {
    sigma2: nonNegative,
    slopeVariance: nonNegative,
    gamma: optional(nonNegative, 0),
  });
  return 2 * sigma2 * slopeVariance + 4 * gamma;
}

/**
 * What one step multiplies Q by, exactly: (1 - 2 eta gamma)^2 - eta^2 delta^2, delta the batch mean of ell'.
 *
 * @throws NoetherflowError "range" or "name" naming the field
 * @source theory 8
 * @example predictions.productFactor({ eta: 0.5, delta: 1 }); // 0.75
 */
export function productFactor(of: {
  readonly eta: number;
  readonly delta: number;
  readonly gamma?: number;
}): number {
  const { eta, delta, gamma } = readFields("productFactor", of, {
    eta: positive,
    delta: finite,
    gamma: optional(nonNegative, 0),
  });
  const keep = 1 - 2 * eta * gamma;
  return keep * keep - eta * eta * (delta * delta);
}

/** Moments of the data of (u w x - y)^2. */
export interface RankOneData {
  /** E x^2 and E[x y]. */
  readonly alpha: number;
  /** E[x y]. */
  readonly b1: number;
  /** Var x^2, Cov(x^2, x y), Var(x y). */
  readonly a: number;
  /** Cov(x^2, x y). */
  readonly b: number;
  /** Var(x y). */
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
  /** Exponent of D(v). */
  readonly powerOfD: number;
  /** Factor of the arctan in the exponent. */
  readonly angleFactor: number;
  /** a c - b^2. */
  readonly Delta: number;
  /** p(v) falls as v^tail, -7/2, so that moments from 5/2 on diverge; -Infinity where it falls exponentially. */
  readonly tail: number;
  /** Of the gamma law where x^2 is constant, else null. */
  readonly gamma: GammaLaw | null;
}

/** Density v^(shape - 1) e^(-v / scale), normalised. */
export interface GammaLaw {
  /** Above 0. */
  readonly shape: number;
  /** In units of v. */
  readonly scale: number;
  /** shape scale and shape scale^2. */
  readonly mean: number;
  /** shape scale^2. */
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
 * @throws NoetherflowError "range" or "name" naming the field; "range" for moments of no data: a c must exceed b^2, or a and b
 *         be 0
 * @source theory 14 (a); Ziyin, Li, Ueda, arXiv:2308.06671
 * @example predictions.rankOneLaw({ alpha: 1, b1: 1, a: 0, b: 0, c: 1 }, 0.05).gamma; // { shape: 4.5, scale: 0.2, mean: 0.9 }
 */
export function rankOneLaw(data: RankOneData, sigma2: number): RankOneLaw {
  return lawOf("rankOneLaw", data, sigma2);
}

function lawOf(where: string, data: RankOneData, sigma2: number): RankOneLaw {
  const { alpha, b1, a, b, c } = readFields(where, data, {
    alpha: positive,
    b1: finite,
    a: nonNegative,
    b: finite,
    c: positive,
  });
  positive(where, "sigma2", sigma2);
  const Delta = a * c - b * b;
  const isConstant = a === 0 && b === 0;
  if (!isConstant) positive(where, "a c - b^2", Delta);
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

/**
 * ln p(v) of that law but for a constant, v > 0.
 *
 * @throws NoetherflowError "range" where there is no law
 * @example predictions.rankOneLogDensity({ alpha: 1, b1: 1, a: 0, b: 0, c: 1 }, 0.05, 1); // -5
 */
export function rankOneLogDensity(data: RankOneData, sigma2: number, v: number): number {
  const where = "rankOneLogDensity";
  const law = lawOf(where, data, sigma2);
  if (law.collapses)
    fail("range", where, "expected sigma2 below b1 / (2 c)", `${sigma2}, where v collapses to 0`);
  positive(where, "v", v);
  const { a, b, c } = data;
  if (law.gamma !== null) return law.powerOfV * log(v) - v / law.gamma.scale;
  const angle = arctan((a * v - b) / Math.sqrt(law.Delta));
  return law.powerOfV * log(v) + law.powerOfD * log(a * v * v - 2 * b * v + c) - law.angleFactor * angle;
}

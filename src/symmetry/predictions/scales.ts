/** How fast losses and charges move, and how far the noise of a generator is from balance. */
import { log } from "../../core/elementary.ts";
import { checkKnown, checkObject, fail, show } from "../../errors.ts";
import type { Direction } from "../equilibrium.ts";
import {
  batch,
  finite,
  nonNegative,
  optional,
  orInfinite,
  positive,
  positiveOr,
  type Rule,
  readFields,
} from "./fields.ts";
import { noiseStrength } from "./noise.ts";

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

const HINT = "At a minimum give the curvature.";

/**
 * tau_1 = (L - L_inf) / |grad L|^2, tau_2 = 1 / rate with the rate of an equilibrium, and which is shorter. In steps they
 * are tau / eta.
 *
 * @param of.curvature instead of the excess loss and the gradient, near a minimum: tau_1 = 1 / (2 h), h that of the loss
 *        along the motion
 * @throws NoetherflowError "range" or "name" naming the field
 * @source theory 4
 * @example predictions.timeScales({ rate: 0.5, curvature: 1 }); // { tau1: 0.5, tau2: 2, ratio: 4, phase: "slow" }
 */
export function timeScales(
  of: { readonly rate: number } & (
    | { readonly excessLoss: number; readonly squaredGradient: number }
    | { readonly curvature: number }
  ),
): TimeScales {
  const where = "timeScales";
  const rate: Rule = orInfinite;
  const fields = checkObject(where, "{ rate, excessLoss, squaredGradient } or { rate, curvature }", of);
  let tau1: number;
  if ("curvature" in fields) {
    tau1 = 1 / (2 * readFields(where, of, { curvature: positive, rate }).curvature);
  } else {
    const above = positiveOr(HINT);
    const read = readFields(where, of, { excessLoss: above, squaredGradient: above, rate }, ["curvature"]);
    tau1 = read.excessLoss / read.squaredGradient;
  }
  // an infinite rate takes no time, and none takes for ever
  const tau2 = 1 / of.rate;
  const ratio = tau2 / tau1;
  return { tau1, tau2, ratio, phase: ratio <= 0.3 ? "fast" : ratio >= 3 ? "slow" : "between" };
}

/** How far the noise of the two signs of a generator is from balance. */
export interface Balance {
  /** N+ = sigma^2 Tr[Sigma A+] and N- = sigma^2 Tr[Sigma A-], A = A+ - A-. */
  readonly plus: number;
  /** N- = sigma^2 Tr[Sigma A-]. */
  readonly minus: number;
  /** ln(N+ / N-): 0 at balance without decay, infinite where one side has no noise, NaN where neither has. */
  readonly logRatio: number;
  /** (N+ - N- - 4 gamma C) / (N+ + N- + 2 gamma theta^T |A| theta), in [-1, 1]; 0 at the equilibrium, or where nothing acts. */
  readonly residual: number;
}

/**
 * The balance of a spectrum.
 *
 * @throws NoetherflowError "shape", "range" or "name" naming the field
 * @source theory 6, eqs. 9 and 10
 * @example
 * const sides = [{ mu: 1, s: 3, q: 1 }, { mu: -1, s: 1, q: 1 }];
 * predictions.balance(sides, { sigma2: 0.25 }); // { plus: 0.75, minus: 0.25, residual: 0.5 }
 */
export function balance(
  directions: readonly Direction[],
  setting: { readonly sigma2: number; readonly gamma?: number },
): Balance {
  const where = "balance";
  const { sigma2, gamma } = readFields(where, setting, {
    sigma2: nonNegative,
    gamma: optional(nonNegative, 0),
  });
  if (!Array.isArray(directions))
    fail("shape", where, "expected directions { mu, s, q }, one after the other", show(directions));
  let [plus, minus, decay, size] = [0, 0, 0, 0];
  for (const [i, direction] of directions.entries()) {
    const at = `${where}: directions[${i}]`;
    checkKnown(at, checkObject(at, "{ mu, s, q }", direction), ["mu", "s", "q", "noise"]);
    const mu = finite(at, "mu", direction.mu);
    const s = nonNegative(at, "s", direction.s);
    const q = nonNegative(at, "q", direction.q);
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

/**
 * Rate at which every entry of Q = U^T U - W W^T decays in a linear autoencoder |U W x - y|^2 near its minimum, for
 * Sigma_x = varX I and label noise varEps I, all in d dimensions: 8 sigma2 d varX varEps + 4 gamma.
 *
 * @source theory 14 (e); 9
 * @example predictions.isotropicRate({ d: 2, sigma2: 0.01 }); // 0.16
 */
export function isotropicRate(of: {
  readonly d: number;
  readonly sigma2: number;
  readonly varX?: number;
  readonly varEps?: number;
  readonly gamma?: number;
}): number {
  const { d, sigma2, varX, varEps, gamma } = readFields("isotropicRate", of, {
    d: positive,
    sigma2: nonNegative,
    varX: optional(nonNegative, 1),
    varEps: optional(nonNegative, 1),
    gamma: optional(nonNegative, 0),
  });
  return 8 * sigma2 * d * varX * varEps + 4 * gamma;
}

/** How far a charge equilibrates while eta is raised. */
export interface WarmUp {
  /** Integral of dt / tau_2 over the schedule: the charge falls by e to that power. */
  readonly integral: number;
  /** The integral is at least 2: runs survive the full eta (about .6 of it, one in ten does). */
  readonly enough: boolean;
  /** Steps after which the integral has reached 2; null where it does not. */
  readonly enoughAfter: number | null;
}

/** What a warm-up needs of the integral. */
const NEEDED = 2;

/**
 * Is a warm-up long enough for the noise to lower the sharpness before eta is large? With 1 / tau_2 = ratePerNoise sigma2 +
 * 4 gamma and sigma2 = eta_k / (2 S_eff) in step k:
 *
 *   integral of dt / tau_2 = sum_k eta_k (ratePerNoise eta_k / (2 S_eff) + 4 gamma),   needed: about 2
 *
 * @param of.etas         eta of every step
 * @param of.ratePerNoise 1 / tau_2 per unit of sigma2 without decay: `isotropicRate({ d, sigma2: 1 })`, or
 *                        (rate - 4 gamma) / sigma2 of an equilibrium that was measured
 * @throws NoetherflowError "shape", "range" or "name" naming the field
 * @source theory 10; E06: ramps of 100, 300 and 1000 steps to eta .03 have .6, 1.8 and 6
 * @example
 * const etas = Float64Array.from({ length: 1000 }, (_, k) => (0.03 * (k + 1)) / 1000);
 * predictions.warmUp({ etas, effectiveBatch: 4, ratePerNoise: 80 }).integral; // 3.005; the charge falls by e^3
 */
export function warmUp(of: {
  readonly etas: ArrayLike<number>;
  readonly effectiveBatch: number;
  readonly ratePerNoise: number;
  readonly gamma?: number;
}): WarmUp {
  const where = "warmUp";
  const given = readFields(
    where,
    of,
    { effectiveBatch: batch, ratePerNoise: nonNegative, gamma: optional(nonNegative, 0) },
    ["etas"],
  );
  const { etas } = of;
  if (!Array.isArray(etas) && !ArrayBuffer.isView(etas))
    fail("shape", where, "etas must hold the eta of every step", show(etas));
  let integral = 0;
  let enoughAfter: number | null = null;
  for (let k = 0; k < etas.length; k++) {
    const eta = nonNegative(where, `etas[${k}]`, etas[k]);
    integral += eta * (given.ratePerNoise * noiseStrength(eta, given.effectiveBatch) + 4 * given.gamma);
    if (enoughAfter === null && integral >= NEEDED) enoughAfter = k + 1;
  }
  return { integral, enough: enoughAfter !== null, enoughAfter };
}

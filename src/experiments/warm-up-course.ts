import { exp, log } from "../core/elementary.ts";

/** The autoencoder y = x + noise, all variances 1, initialised by 1/fan-in. */
export interface Net {
  readonly d: number;
  readonly h: number;
  readonly eta: number;
}

/** |U|^2 + |W|^2 of a direction in which they differ by q at u w = 1. */
export const sizeAt = (q: number): number => Math.sqrt(q * q + 4);

/** What a run is predicted to go through. */
export interface Course {
  /** Largest eta m (d + 2) on the way: the mean square of the error is stable below 1. */
  readonly peak: number;
  /** Largest mean square of the residual on the way, in units of what makes a step multiply the charges by -1. */
  readonly fatal: number;
}

/**
 * The widest direction along eta_k, m = |u|^2 + |w|^2 = sqrt(q^2 + 4), starting from the largest q of W W^T under 1/fan-in, (sqrt(h/d) + 1)^2
 * (Marchenko and Pastur), and the mean square F of the error U W - I, closed with it:
 *
 *   F' = (1 - 4 eta m + 4 eta^2 m^2 (d + 2)) F + 4 eta^2 m^2 d^2,   q' = (1 - 4 eta^2 (d + F (1 + 2/d))) q
 *
 * A residual r multiplies charges by 1 - 4 eta^2 |r|^2 |x|^2: |r|^2 = F + d is fatal from 1 / (2 eta^2 d) on.
 *
 * @source theory.md, 10 and 14(e) with its O(eta) terms at S = 1; Proposition 1 for the factor of the charges
 */
export function courseOf({ d, h, eta }: Net, length: number, after: number): Course {
  const width = Math.sqrt(h / d) + 1;
  let [q, F, peak, fatal] = [width * width, 0, 0, 0];
  for (let k = 0; k < length + after; k++) {
    const step = eta * Math.min(1, (k + 1) / length);
    const m = step * sizeAt(q);
    peak = Math.max(peak, m * (d + 2));
    F = (1 - 4 * m + 4 * m * m * (d + 2)) * F + 4 * m * m * d * d;
    q *= Math.max(0, 1 - 4 * step * step * (d + F * (1 + 2 / d)));
    fatal = Math.max(fatal, 2 * step * step * d * (F + d));
  }
  return { peak, fatal };
}

/** Cells of the midpoint rule for single samples. */
const CELLS = 400;

/**
 * Chance that a sample has |r|^2 |x|^2 >= 1 / (2 eta^2), so that it multiplies charges by less than -1, at the noise equilibrium:
 * x ~ N(0, I), r ~ N(0, (1 + F/d) I), F = 2 eta d^2 / (1 - 2 eta (d + 2)). By the midpoint rule in |r| and |x|.
 */
export function chanceOfFatalSample({ d, eta }: Net): number {
  const spread = 1 + (2 * eta * d) / (1 - 2 * eta * (d + 2));
  const limit = 1 / (2 * eta * eta * spread);
  const step = (8 + Math.sqrt(d)) / CELLS;
  const radius = Float64Array.from({ length: CELLS }, (_, i) => (i + 0.5) * step);
  // chi density, not normalised
  const density = radius.map((s) => exp((d - 1) * log(s) - 0.5 * s * s));
  const total = density.reduce((a, b) => a + b, 0);
  let [beyond, chance] = [0, 0];
  let j = CELLS;
  for (const [i, s] of radius.entries()) {
    for (; j > 0 && s * radius[j - 1]! * (s * radius[j - 1]!) >= limit; j--) beyond += density[j - 1]!;
    chance += density[i]! * beyond;
  }
  return chance / (total * total);
}

/** Least length for which `isEnough` holds, to 1 % : doubling, then bisection in the ratio. */
export function leastLength(isEnough: (length: number) => boolean): number {
  if (isEnough(1)) return 1;
  let [low, high] = [1, 2];
  while (!isEnough(high)) [low, high] = [high, 2 * high];
  while (high > low + 1 && high > 1.01 * low) {
    const middle = Math.floor(Math.sqrt(low * high) + 0.5);
    const at = middle > low && middle < high ? middle : low + 1;
    if (isEnough(at)) high = at;
    else low = at;
  }
  return high;
}

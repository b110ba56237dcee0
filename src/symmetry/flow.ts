import type { Strength } from "./strength.ts";

/** What one eigen-direction of a generator contributes to dC/dt. */
export interface DirectionFlow {
  /** Eigenvalue of A along it. */
  readonly mu: number;
  /** Variance of the gradient along it. */
  readonly s: number;
  /** Square of theta's coordinate (less that of the center, which b moves). */
  readonly q: number;
  /** mu sigma^2 s */
  readonly noise: number;
}

/** Parts of dC/dt, each in units of the loss. */
export interface NoetherFlow {
  /** sigma^2 Tr[Sigma A] */
  readonly noise: number;
  /** -2 gamma J . theta, J = A (theta - c) + b */
  readonly decay: number;
  /** -J . gbar: 0 for a symmetry */
  readonly gradient: number;
  /** noise + decay + gradient */
  readonly total: number;
  /** (eta / 2) gbar^T A gbar, the part that finite steps add; not in total. 0 when only sigma2 was given. */
  readonly discrete: number;
  /** sigma^2 Tr[Sigma A+] */
  readonly plus: number;
  /** sigma^2 Tr[Sigma A-], A = A+ - A- */
  readonly minus: number;
  /** ln(plus / minus): 0 where the noise of the two sides is in balance, infinite where one has none; NaN without noise. */
  readonly logRatio: number;
  /** (plus - minus - 4 gamma C) / (plus + minus + 2 gamma theta^T |A| theta), in [-1, 1]; 0 where all of it is 0. */
  readonly residual: number;
  /** One entry per direction with mu != 0, by descending mu. */
  readonly byDirection: readonly DirectionFlow[];
}

/** What the flow is computed from, all in the coordinates of the generator's eigenvectors. */
export interface FlowInput {
  readonly mu: Float64Array;
  readonly s: Float64Array;
  /** Coordinates of theta less the center, of theta, and of gbar. */
  readonly displaced: Float64Array;
  readonly theta: Float64Array;
  readonly mean: Float64Array;
  /** What a translation adds; null without one. */
  readonly drift: Drift | null;
}

/** A translation b along which A is 0, beside a theta. */
export interface Drift {
  /** |b|^2, b . theta and b . gbar. */
  readonly squared: number;
  readonly theta: number;
  readonly mean: number;
  /** b . theta and |b|^2 over the blocks that weight decay moves. */
  readonly decaying: number;
  readonly decayingSquared: number;
  /** b on these blocks, P values. */
  readonly moved: Float64Array;
  /** The charge less 1/2 sum_i mu_i q_i + b . theta. */
  readonly constant: number;
}

/** Eigenvalues this small beside the largest are 0. */
const ZERO = 1e-12;

/**
 * dC/dt of a generator by its eigen-directions:
 *
 *   dC/dt = sum_i mu_i (sigma^2 s_i - 2 gamma p_i theta_i - p_i gbar_i) - b . (2 gamma theta + gbar)
 *
 * with p the coordinates of theta less the center, and b the translation where A does not act.
 *
 * @param log natural logarithm with the same bits on every host
 * @source Ziyin et al. 2024, arXiv:2402.07193, eqs. 5 and 7
 */
export function flowOf(
  { mu, s, displaced, theta, mean, drift }: FlowInput,
  { sigma2, gamma, discrete }: Strength,
  log: (x: number) => number,
): NoetherFlow {
  const largest = mu.reduce((m, x) => Math.max(m, Math.abs(x)), 0);
  let [plus, minus, decay, gradient, finite, absolute] = [0, 0, 0, 0, 0, 0];
  const directions: DirectionFlow[] = [];
  for (const [i, m] of mu.entries()) {
    if (Math.abs(m) <= ZERO * largest) continue;
    const noise = m * sigma2 * s[i]!;
    if (m > 0) plus += noise;
    else minus -= noise;
    decay -= 2 * gamma * m * displaced[i]! * theta[i]!;
    gradient -= m * displaced[i]! * mean[i]!;
    finite += m * mean[i]! * mean[i]!;
    absolute += 2 * gamma * Math.abs(m * displaced[i]! * theta[i]!);
    directions.push({ mu: m, s: s[i]!, q: displaced[i]! * displaced[i]!, noise });
  }
  if (drift !== null) {
    decay -= 2 * gamma * drift.decaying;
    gradient -= drift.mean;
    absolute += 2 * gamma * Math.abs(drift.decaying);
  }
  const size = plus + minus + absolute;
  return {
    noise: plus - minus,
    decay: decay + 0, // no -0
    gradient: gradient + 0,
    total: plus - minus + decay + gradient + 0,
    discrete: discrete * finite + 0,
    plus,
    minus,
    logRatio: plus + minus > 0 ? log(plus / minus) : Number.NaN,
    residual: size === 0 ? 0 : (plus - minus + decay) / size,
    byDirection: directions.sort((a, b) => b.mu - a.mu),
  };
}

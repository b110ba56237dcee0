import { exp, log } from "../core/elementary.ts";

/** A law of positive numbers: the probability to lie below each, its mean and its variance. */
export interface Law {
  below(v: number): number;
  readonly mean: number;
  readonly variance: number;
}

/** One step on the balanced line u = w multiplies u by G, a normal number of mean mu and standard deviation tau. */
interface Factor {
  readonly mu: number;
  readonly tau: number;
}

const ROOT_TWO_PI = 2.5066282746310002;

/** Density of ln |G|. */
function densityOfLog({ mu, tau }: Factor, y: number): number {
  const g = exp(y);
  const [a, b] = [(g - mu) / tau, (g + mu) / tau];
  return (g * (exp(-0.5 * a * a) + exp(-0.5 * b * b))) / (tau * ROOT_TWO_PI);
}

/** E ln |G|, by the trapezoidal rule in ln |G|, where the integrand is smooth and falls off at both ends. */
export function meanLog(mu: number, tau: number): number {
  const width = tau / (Math.abs(mu) + tau);
  const step = 0.2 * width;
  const top = log(Math.abs(mu) + 10 * tau);
  let sum = 0;
  for (let y = top; y > top - 60; y -= step) sum += y * densityOfLog({ mu, tau }, y);
  return sum * step;
}

/** Rank-one regression with x^2 = 1 on the line u = w: z = x y is normal, and u' = u (1 - dt delta). */
export interface Chain {
  readonly dt: number;
  /** E z, and the variance of the mean of z in a step. */
  readonly slope: number;
  readonly variance: number;
}

const factorAt = ({ dt, slope, variance }: Chain, v: number): Factor => ({
  mu: 1 - 2 * dt * (v - slope),
  tau: 2 * dt * Math.sqrt(variance),
});

/**
 * The exact law of v = u w after some steps from v(0), on a grid in ln u:
 *
 *   v' = v G^2,   G = 1 - 2 dt (v - zBar) ~ N(1 - 2 dt (v - slope), 4 dt^2 variance)
 *
 * The trapezoidal rule errs by e^(-2 pi^2 / spacing^2) where the spacing is in standard deviations of ln G: less than rounding at
 * 0.6, 1e-6 at 1.2.
 *
 * @param range ln v from and to, outside which v does not come
 * @cost   steps times points times some 30
 */
export function lawAfter(
  chain: Chain,
  start: number,
  steps: number,
  range: readonly [number, number],
  spacing = 0.6,
): Law {
  const least = factorAt(chain, 0);
  const h = (spacing * least.tau) / least.mu;
  const [from, to] = [0.5 * range[0], 0.5 * range[1]];
  const n = Math.ceil((to - from) / h) + 1;
  const x = Float64Array.from({ length: n }, (_, i) => from + i * h);
  const origin = 0.5 * log(start);
  const first = factorAt(chain, start);
  let p = x.map((xi) => densityOfLog(first, xi - origin));
  const rows = Array.from(x, (xi) => rowOf(factorAt(chain, exp(2 * xi)), xi, from, h, n));
  for (let k = 1; k < steps; k++) {
    const next = new Float64Array(n);
    for (let i = 0; i < n; i++) {
      const weight = p[i]!;
      if (weight < 1e-30) continue;
      const { at, density } = rows[i]!;
      for (let j = 0; j < density.length; j++) next[at + j]! += weight * density[j]!;
    }
    p = next;
  }
  return onGrid(p, from, h);
}

/** Densities times h from one point of the grid to those it reaches. */
function rowOf(
  factor: Factor,
  x: number,
  from: number,
  h: number,
  n: number,
): { readonly at: number; readonly density: Float64Array } {
  const { mu, tau } = factor;
  const low = Math.abs(mu) - 9 * tau;
  const index = (y: number) => Math.floor((x + y - from) / h);
  const at = low > 0 ? Math.min(n - 1, Math.max(0, index(log(low)))) : 0;
  const end = Math.max(at, Math.min(n - 1, index(log(Math.abs(mu) + 9 * tau)) + 1));
  const density = Float64Array.from(
    { length: end - at + 1 },
    (_, j) => h * densityOfLog(factor, from + (at + j) * h - x),
  );
  return { at, density };
}

/** The law of v = e^(2 x) from the density of x on a grid; between points by cubics. */
function onGrid(p: Float64Array, from: number, h: number): Law {
  const n = p.length;
  const density = (i: number): number => (i < 0 || i >= n ? 0 : p[i]!);
  const F = new Float64Array(n);
  for (let i = 1; i < n; i++)
    F[i] = F[i - 1]! + (h / 24) * (13 * (density(i - 1) + density(i)) - density(i - 2) - density(i + 1));
  const total = F[n - 1]!;
  const moment = (f: (v: number) => number): number => {
    let sum = 0;
    for (let i = 0; i < n; i++) sum += p[i]! * f(exp(2 * (from + i * h)));
    return (sum * h) / total;
  };
  const mean = moment((v) => v);
  const below = (v: number): number => {
    const place = (0.5 * log(v) - from) / h;
    const i = Math.floor(place);
    if (i < 0) return 0;
    if (i >= n - 1) return 1;
    const t = place - i;
    const rise = F[i + 1]! - F[i]!;
    const [a, b] = [h * p[i]!, h * p[i + 1]!];
    // Hermite's cubic through both values with both slopes
    return (F[i]! + t * (a + t * (3 * rise - 2 * a - b + t * (a + b - 2 * rise)))) / total;
  };
  return { below, mean, variance: moment((v) => (v - mean) * (v - mean)) };
}

/**
 * The gamma law of a shape and a scale: P(shape, v / scale) by its series, whose terms are all positive.
 *
 * @source Abramowitz and Stegun 1964, 6.5.29
 */
export function gammaLaw({ shape, scale }: { readonly shape: number; readonly scale: number }): Law {
  const constant = logGamma(shape + 1);
  const below = (v: number): number => {
    const t = v / scale;
    if (t > shape + 60 + 12 * Math.sqrt(shape)) return 1;
    let term = 1;
    let sum = 1;
    for (let k = 1; term > 1e-18 * sum; k++) {
      term *= t / (shape + k);
      sum += term;
    }
    return Math.min(1, sum * exp(shape * log(t) - t - constant));
  };
  return { below, mean: shape * scale, variance: shape * scale * scale };
}

/** ln Gamma(x) for x > 0 by Stirling's series beyond 12. @source Abramowitz and Stegun 1964, 6.1.41 */
function logGamma(x: number): number {
  let shift = 0;
  let z = x;
  for (; z < 12; z++) shift += log(z);
  const r = 1 / (z * z);
  const series = (1 / 12 - r * (1 / 360 - r * (1 / 1260 - r * (1 / 1680 - r / 1188)))) / z;
  return (z - 0.5) * log(z) - z + log(ROOT_TWO_PI) + series - shift;
}

/** The largest distance of two laws, looked for at `points` values of ln v. */
export function distance(a: Law, b: Law, range: readonly [number, number], points = 4000): number {
  let most = 0;
  for (let i = 0; i <= points; i++) {
    const v = exp(range[0] + ((range[1] - range[0]) * i) / points);
    most = Math.max(most, Math.abs(a.below(v) - b.below(v)));
  }
  return most;
}

/** Kolmogorov's distance of a sample from a law. */
export function kolmogorov(sample: ArrayLike<number>, law: Law): number {
  const sorted = Float64Array.from(sample).sort();
  const n = sorted.length;
  let most = 0;
  for (const [i, v] of sorted.entries()) {
    const F = law.below(v);
    most = Math.max(most, F - i / n, (i + 1) / n - F);
  }
  return most;
}

/**
 * What Kolmogorov's distance of n independent numbers from their own law exceeds once in a million: P(D > e) <= 2 e^(-2 n e^2) for
 * every n.
 *
 * @source Dvoretzky, Kiefer, Wolfowitz 1956; the constant: Massart 1990, Ann. Probab. 18, 1269
 */
export function kolmogorovBound(n: number): number {
  return Math.sqrt(log(2e6) / (2 * n));
}

/**
 * Distributions and test statistics, as textbooks write them. They judge samples of the engine; each is itself checked
 * against a value that is known.
 */

export interface Mean {
  readonly value: number;
  readonly stdErr: number;
}

/** Mean of independent numbers with its standard error. */
export function meanOf(sample: readonly number[]): Mean {
  const value = sample.reduce((a, b) => a + b, 0) / sample.length;
  const squares = sample.reduce((a, x) => a + (x - value) ** 2, 0);
  return { value, stdErr: Math.sqrt(squares / (sample.length - 1) / sample.length) };
}

/** How many standard errors a sample's mean is from what is expected of it. */
export function zOf(sample: readonly number[], expected: number): number {
  const { value, stdErr } = meanOf(sample);
  return (value - expected) / stdErr;
}

/** ln Gamma(x), x > 0: Stirling's series after shifting x above 10. Error below 1e-13. */
export function logGamma(x: number): number {
  let shift = 0;
  let z = x;
  for (; z < 10; z++) shift -= Math.log(z);
  const series =
    1 / (12 * z) - 1 / (360 * z ** 3) + 1 / (1260 * z ** 5) - 1 / (1680 * z ** 7) + 1 / (1188 * z ** 9);
  return shift + (z - 0.5) * Math.log(z) - z + 0.5 * Math.log(2 * Math.PI) + series;
}

/** P(X <= x) of the Gamma law with a shape and scale 1, by its power series. */
export function gammaBelow(shape: number, x: number): number {
  if (x <= 0) return 0;
  let term = 1 / shape;
  let sum = term;
  for (let n = 1; n < 10_000 && term > 1e-17 * sum; n++) {
    term *= x / (shape + n);
    sum += term;
  }
  return Math.min(1, sum * Math.exp(shape * Math.log(x) - x - logGamma(shape)));
}

/** P(X > x) of a chi-square with k degrees of freedom. */
export const chiSquareAbove = (k: number, x: number): number => 1 - gammaBelow(k / 2, x / 2);

/** Kolmogorov-Smirnov distance of independent numbers from a law. */
export function ksDistance(sample: readonly number[], below: (x: number) => number): number {
  const sorted = [...sample].sort((a, b) => a - b);
  const n = sorted.length;
  return sorted.reduce((worst, x, i) => {
    const p = below(x);
    return Math.max(worst, p - i / n, (i + 1) / n - p);
  }, 0);
}

/** Distance that a sample of n exceeds with probability alpha: 2 exp(-2 n d^2) = alpha bounds it from above (Massart 1990). */
export const ksLimit = (n: number, alpha: number): number => Math.sqrt(Math.log(2 / alpha) / (2 * n));

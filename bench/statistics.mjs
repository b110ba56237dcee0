// Medians, spread, and how sure a median ratio is.
import { uniforms } from "./nets.mjs";

const RESAMPLES = 2000;

/** The q-quantile, linear between order statistics. */
export function quantile(values, q) {
  const sorted = [...values].sort((a, b) => a - b);
  const at = q * (sorted.length - 1);
  const below = Math.floor(at);
  return sorted[below] + (at - below) * ((sorted[below + 1] ?? sorted[below]) - sorted[below]);
}

export const median = (values) => quantile(values, 0.5);

export const spread = (values) => ({
  median: median(values),
  min: Math.min(...values),
  q25: quantile(values, 0.25),
  q75: quantile(values, 0.75),
  max: Math.max(...values),
});

/** 90 % interval of the median: its 5 % and 95 % quantiles over resamples with replacement. The same seed each time. */
export function bootstrapInterval(values, seed = 1) {
  const uniform = uniforms(seed);
  const medians = Array.from({ length: RESAMPLES }, () =>
    median(values.map(() => values[Math.floor(uniform() * values.length)])),
  );
  return [quantile(medians, 0.05), quantile(medians, 0.95)];
}

/** above[i] / below[i] for every round i: what slows a whole round cancels. Median, interval, and all of them. */
export function ratioOf(above, below) {
  const ratios = above.map((value, i) => value / below[i]);
  return { ratio: median(ratios), interval: bootstrapInterval(ratios), ratios };
}

/**
 * Does a figure reach its goal? It passes when the better end of its interval does: "reached" if the median does too, "within
 * noise" if only that end does, else "missed".
 *
 * @param goal { atLeast } or { atMost }
 */
export function verdictOf({ ratio, interval }, { atLeast, atMost }) {
  const reaches = (x) => (atLeast === undefined ? x <= atMost : x >= atLeast);
  if (reaches(ratio)) return "reached";
  return interval.some(reaches) ? "within noise" : "missed";
}

// Medians, spread, and how sure a median ratio is.
import { uniforms } from "./nets.mjs";

const RESAMPLES = 4000;

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

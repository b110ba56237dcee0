import type { Estimate } from "./estimate.ts";

/** Standard errors allowed between measured and predicted: a false alarm once in a million. */
export const ALLOWED_STD_ERRORS = 4.9;

/** A prediction with the error its own derivation leaves, stated before the run. */
export interface Prediction {
  readonly value: number;
  /** Absolute size of the neglected terms. */
  readonly modelError: number;
  /** Which terms those are, in words. */
  readonly neglects: string;
}

export interface Verdict {
  readonly agrees: boolean;
  /** measured - predicted. */
  readonly gap: number;
  /** What the gap may be: 4.9 standard errors and the model error. */
  readonly allowed: number;
}

/** Measured and predicted agree if they differ by at most 4.9 standard errors plus the model error. */
export function judge(measured: Estimate, predicted: Prediction): Verdict {
  const gap = measured.value - predicted.value;
  const allowed = ALLOWED_STD_ERRORS * measured.stdErr + predicted.modelError;
  return { agrees: Math.abs(gap) <= allowed, gap, allowed };
}

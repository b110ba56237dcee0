import type { Estimate } from "./estimate.ts";

/** Standard errors allowed between measured and predicted: a false alarm once in a million. */
export const ALLOWED_STD_ERRORS = 4.9;

/** A prediction with the error its own derivation leaves, stated before the run. */
export interface Prediction {
  /** The predicted number. */
  readonly value: number;
  /** Absolute size of the neglected terms. */
  readonly modelError: number;
  /** Which terms those are, in words. */
  readonly neglects: string;
}

/** Measured beside predicted. */
export interface Verdict {
  /** |gap| <= allowed, or it agrees in the limit of small eta. */
  readonly agrees: boolean;
  /** measured - predicted. */
  readonly gap: number;
  /** What the gap may be: 4.9 standard errors and the model error. */
  readonly allowed: number;
  /** Of a row that agrees in the limit: the gap at half the learning rate, and what of it may be chance. */
  readonly limit?: { readonly gap: number; readonly allowed: number };
}

/** Measured and predicted agree if they differ by at most 4.9 standard errors plus the model error. */
export function judge(measured: Estimate, predicted: Prediction): Verdict {
  const gap = measured.value - predicted.value;
  const allowed = ALLOWED_STD_ERRORS * measured.stdErr + predicted.modelError;
  return { agrees: Math.abs(gap) <= allowed, gap, allowed };
}

/**
 * Agreement in the limit of small eta: measured and predicted agree as they stand, or the gap at eta / 2 is half the gap at
 * eta or less (from -1/4 to 3/4 of it), within 4.9 standard errors of the difference and the model errors.
 */
export function judgeInLimit(
  at: { readonly predicted: Prediction; readonly measured: Estimate },
  half: { readonly predicted: Prediction; readonly measured: Estimate },
): Verdict {
  const first = judge(at.measured, at.predicted);
  const gap = half.measured.value - half.predicted.value;
  const [a, b] = [0.5 * at.measured.stdErr, half.measured.stdErr];
  const allowed =
    ALLOWED_STD_ERRORS * Math.sqrt(a * a + b * b) + 0.5 * at.predicted.modelError + half.predicted.modelError;
  // half of it, or less: what is left beyond the first order is a quarter of the first gap at most
  const agrees = first.agrees || Math.abs(gap - 0.25 * first.gap) <= allowed + 0.5 * Math.abs(first.gap);
  return { ...first, agrees, limit: { gap, allowed } };
}

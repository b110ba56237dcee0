/**
 * A number with its doubt: `stdErr` is the standard error of `value` from `count` independent
 * terms; an exact result has stdErr 0 and method "exact".
 */
export interface Estimate {
  readonly value: number;
  readonly stdErr: number;
  readonly count: number;
  readonly method: string;
}

export function exact(value: number, count: number): Estimate {
  return { value, stdErr: 0, count, method: "exact" };
}

/**
 * Mean of independent terms with standard error s / sqrt(n), s^2 the unbiased variance (two-pass).
 */
export function meanOf(terms: ArrayLike<number>, method = "mean"): Estimate {
  const count = terms.length;
  let sum = 0;
  for (let i = 0; i < count; i++) sum += terms[i]!;
  const value = sum / count;
  let squares = 0;
  for (let i = 0; i < count; i++) squares += (terms[i]! - value) * (terms[i]! - value);
  const stdErr = count > 1 ? Math.sqrt(squares / (count - 1) / count) : Number.NaN;
  return { value, stdErr, count, method };
}

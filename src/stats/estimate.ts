import { arctan } from "../core/elementary.ts";
import { checkInteger, checkNumber, fail } from "../errors.ts";

/**
 * A number with its doubt: `stdErr` is the standard error of `value` from `count` independent
 * terms; an exact result has stdErr 0 and method "exact".
 */
export interface Estimate {
  /** The estimate. */
  readonly value: number;
  /** Standard error of `value`; 0 for an exact result. */
  readonly stdErr: number;
  /** Independent terms it comes from. */
  readonly count: number;
  /** "exact", or how it was estimated. */
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

/** Above this many degrees of freedom a quantile of Student's t is that of this many: too long by 1e-5 of itself at most. */
const MANY_DOF = 100_000;

/**
 * value +- t stdErr, which covers the truth with probability `level` where the terms are independent and normal; t is
 * the quantile of Student's distribution with count - 1 degrees of freedom. An exact result is its own interval;
 * an eigenvalue from Lanczos has value +- residual at every level.
 *
 * @throws NoetherflowError "range" for a level outside (0, 1), or a result that is not exact of fewer than 2 terms
 * @example interval({ value: 1, stdErr: 0.1, count: 100, method: "mean" }); // { low: 0.8016, high: 1.198 }
 */
export function interval(estimate: Estimate, level = 0.95): { low: number; high: number } {
  const { value, stdErr, count, method } = estimate;
  if (method === "exact") return { low: value, high: value };
  // an eigenvalue has a bound instead of a standard error
  if ("residual" in estimate && typeof estimate.residual === "number")
    return { low: value - estimate.residual, high: value + estimate.residual };
  if (!(count >= 2 && stdErr >= 0))
    fail(
      "range",
      "interval",
      "a standard error takes at least 2 terms",
      `stdErr ${stdErr} from a count of ${count}`,
    );
  const half = studentT(level, count - 1) * stdErr;
  return { low: value - half, high: value + half };
}

/**
 * t with P(|T| <= t) = level for Student's T with `dof` degrees of freedom: 12.706 for level 0.95 and dof 1.
 *
 * Bisection of the finite sums for integer dof, in + - * / and sqrt alone: the same bits on every host. P(|T| <= t) is
 * met within 1e-14; dof above 100,000 count as 100,000.
 *
 * @cost some 60 sums of dof / 2 terms
 * @source Abramowitz and Stegun 1964, 26.7.3 and 26.7.4
 * @example studentT(0.95, 9); // 2.262
 */
export function studentT(level: number, dof: number): number {
  checkInteger("studentT", "dof", dof, 1);
  if (!(checkNumber("studentT", "level", level) > 0 && level < 1))
    fail("range", "studentT", "level must lie between 0 and 1", `${level}`);
  const n = Math.min(dof, MANY_DOF);
  let [low, high] = [0, 1];
  while (centralProbability(high, n) < level) [low, high] = [high, 2 * high];
  for (;;) {
    const middle = 0.5 * (low + high);
    if (middle <= low || middle >= high) return high;
    if (centralProbability(middle, n) < level) low = middle;
    else high = middle;
  }
}

/** P(|T| <= t), t >= 0. With tan(a) = t / sqrt(dof) it is a sum over powers of cos(a)^2. */
function centralProbability(t: number, dof: number): number {
  const hypotenuse = Math.sqrt(dof + t * t);
  const sine = t / hypotenuse;
  const cosine = Math.sqrt(dof) / hypotenuse;
  const isOdd = dof % 2 === 1;
  let term = isOdd ? cosine : 1;
  let sum = dof === 1 ? 0 : term;
  for (let k = isOdd ? 2 : 1; k <= dof - 3; k += 2) {
    term *= (k / (k + 1)) * cosine * cosine;
    sum += term;
  }
  return isOdd ? (arctan(t / Math.sqrt(dof)) + sine * sum) / (0.5 * Math.PI) : sine * sum;
}

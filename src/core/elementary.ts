/**
 * exp, ln and arctan of single numbers from + - * / and exact steps alone, for predictions: the same bits on every
 * host, where Math's differ. exp and log give the bits of the f64 kernels in assembly/elementary.ts, whatever the
 * dtype of an engine (its f32 kernels round to f32).
 */

/** The bits of one number, most significant byte first. */
const bits = new DataView(new ArrayBuffer(8));

/** 1.5 * 2^52: added to a small x and taken away again, leaves round(x). */
const ROUNDER = 6755399441055744;
const LOG2_E = 1.4426950408889634;
/** ln 2 = LN2_HI + LN2_LO; LN2_HI ends in 21 zero bits, so that k * LN2_HI is exact for |k| < 2^21. */
const LN2_HI = 6.9314718036912381649e-1;
const LN2_LO = 1.90821492927058770002e-10;

/** 2^k for -1022 <= k <= 1023. */
function powerOfTwo(k: number): number {
  bits.setInt32(0, (k + 1023) << 20);
  bits.setInt32(4, 0);
  return bits.getFloat64(0);
}

/** x 2^k for an integer k of any size: exact, or rounded once where the result is denormal. */
export function timesPowerOfTwo(x: number, k: number): number {
  const limited = Math.max(-2200, Math.min(2200, k));
  // whole powers while x stays normal, so that at most the last product rounds
  let rest = limited;
  let out = x;
  for (; rest > 1023; rest -= 1023) out *= powerOfTwo(1023);
  for (; rest < -1022; rest += 969) out *= powerOfTwo(-969);
  return out * powerOfTwo(rest);
}

/** round(x / ln 2), the power of two nearest to e^x, for |x| <= 1e15. */
export function expExponent(x: number): number {
  return x * LOG2_E + ROUNDER - ROUNDER;
}

/**
 * e^x / 2^k for k = expExponent(x), in [0.7, 1.42]: e^x of any size, as a product that need not be formed.
 *
 * error   at most 1 ulp for |k| < 2^21; beyond, an error of about 2^-52 |x| in the exponent
 * order   that of reducedExpm1 in assembly/elementary.ts, where the coefficients come from
 */
export function expMantissa(x: number, k: number): number {
  const r = x - k * LN2_HI - k * LN2_LO;
  const r2 = r * r;
  const r4 = r2 * r2;
  const q0 = r2 * (r * 0.008333333333498437 + 0.041666666666604485) + (r * 0.16666666666666438 + 0.5);
  const q1 =
    r2 * (r * 2.7557639929872243e-6 + 2.480150887455705e-5) +
    (r * 0.00019841269468256052 + 0.0013888888926611138);
  const q2 = r * 2.4978484862527968e-8 + 2.7625122173986013e-7;
  return r2 * (r4 * (r4 * q2 + q1) + q0) + r + 1;
}

/**
 * e^x. Infinity above 709.78, gradual underflow below -708.39, NaN for NaN.
 *
 * error   at most 1 ulp
 */
export function exp(x: number): number {
  if (!(Math.abs(x) <= 746)) return x > 0 ? Infinity : x < 0 ? 0 : x;
  const k = expExponent(x);
  const half = Math.floor(k / 2);
  // two factors: the second product overflows, or rounds once into the denormals
  return expMantissa(x, k) * powerOfTwo(half) * powerOfTwo(k - half);
}

/** The k of x = 2^k m with 1 <= m < 2, for a finite x > 0; denormals right. */
export function binaryExponent(x: number): number {
  const isTiny = x < 2.2250738585072014e-308;
  bits.setFloat64(0, isTiny ? x * 18014398509481984 : x); // 2^54
  return (bits.getInt32(0) >> 20) - (isTiny ? 1077 : 1023);
}

/**
 * ln x. -Infinity for 0, NaN below and for NaN, Infinity for Infinity; denormals right.
 *
 * error   at most 0.9 ulp
 * order   that of logOf in assembly/elementary.ts, where the coefficients come from
 */
export function log(x: number): number {
  if (!(x > 0)) return x === 0 ? -Infinity : Number.NaN;
  if (x === Infinity) return x;
  // x = 2^k (1 + f) with 1 + f in [sqrt 1/2, sqrt 2)
  let k = binaryExponent(x);
  let m = timesPowerOfTwo(x, -k);
  if (m >= Math.SQRT2) {
    m *= 0.5;
    k += 1;
  }
  const f = m - 1;
  const s = f / (f + 2);
  const z = s * s;
  const w = z * z;
  const odd = w * (w * (w * 0.15315019923982912 + 0.22222199515323782) + 0.39999999999472996);
  const even =
    z *
    (w * (w * (w * 0.14787278484079625 + 0.18183521547895976) + 0.28571428731658144) + 0.6666666666666723);
  const halfSquare = 0.5 * (f * f);
  const small = s * (halfSquare + (odd + even)) + k * LN2_LO;
  return k * LN2_HI - (halfSquare - small - f);
}

/**
 * arctan x in (-pi/2, pi/2): two halvings of the angle, then the series.
 *
 * error   at most 4 ulp
 */
export function arctan(x: number): number {
  if (x < 0) return -arctan(-x);
  if (x > 1) return 0.5 * Math.PI - arctan(1 / x);
  let tangent = x;
  for (let half = 0; half < 2; half++) tangent /= 1 + Math.sqrt(1 + tangent * tangent);
  const square = tangent * tangent; // at most 0.0396
  let sum = 0;
  for (let odd = 23; odd >= 3; odd -= 2) sum = 1 / odd - square * sum;
  return 4 * (tangent - tangent * (square * sum));
}

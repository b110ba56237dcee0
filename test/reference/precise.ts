/**
 * Elementary functions in BigInt fixed point: an oracle with more than 150 correct bits, derived apart from
 * the kernels (plain Taylor series and exact halvings; no polynomial fits, no tables, no Math.exp or Math.log).
 * It catches a wrong coefficient, a reduction that loses digits, and a result that is rounded twice.
 *
 * A value is a `Big` m * 2^s with a BigInt m. The argument is an exact double.
 */

/** The number m * 2^s. */
export interface Big {
  readonly m: bigint;
  readonly s: number;
}

/** Fraction bits of the working precision. */
const F = 288;
const ONE = 1n << BigInt(F);

const abs = (a: bigint): bigint => (a < 0n ? -a : a);

/** Number of binary digits of |a|, 0 for 0. */
function bitLength(a: bigint): number {
  const hex = abs(a).toString(16);
  return hex === "0" ? 0 : 4 * (hex.length - 1) + (32 - Math.clz32(Number.parseInt(hex[0] as string, 16)));
}

/** floor(m * 2^shift) for a shift of either sign. */
const shifted = (m: bigint, shift: number): bigint => (shift >= 0 ? m << BigInt(shift) : m >> BigInt(-shift));

/** The finite double x, exactly. */
export function fromDouble(x: number): Big {
  const view = new DataView(new ArrayBuffer(8));
  view.setFloat64(0, x);
  const bits = view.getBigUint64(0);
  const field = Number((bits >> 52n) & 0x7ffn);
  if (field === 0x7ff) throw new RangeError(`fromDouble: expected a finite number, got ${x}`);
  const fraction = bits & 0xfffffffffffffn;
  const m = field === 0 ? fraction : fraction | (1n << 52n);
  return { m: bits >> 63n ? -m : m, s: Math.max(field, 1) - 1075 };
}

/** 2 * atanh(1 / n) in fixed point, by its series. */
function twiceAtanhInverse(n: bigint): bigint {
  let power = (2n * ONE) / n;
  let sum = 0n;
  for (let odd = 1n; power !== 0n; odd += 2n) {
    sum += power / odd;
    power /= n * n;
  }
  return sum;
}

/** atan(1 / n) in fixed point, by its series. */
function atanInverse(n: bigint): bigint {
  let power = ONE / n;
  let sum = 0n;
  for (let odd = 1n, sign = 1n; power !== 0n; odd += 2n, sign = -sign) {
    sum += (sign * power) / odd;
    power /= n * n;
  }
  return sum;
}

/** ln 2 = 2 atanh(1/3). */
const LN2 = twiceAtanhInverse(3n);
/** 2 pi = 8 (4 atan(1/5) - atan(1/239)), Machin. */
const TWO_PI = 8n * (4n * atanInverse(5n) - atanInverse(239n));

/** e^(X 2^-F) for any X, by X = k ln 2 + r, Taylor on r / 2^10, ten squarings. Relative error below 2^-260. */
function expFixed(X: bigint): Big {
  const k = (X + LN2 / 2n) / LN2 - (X + LN2 / 2n < 0n ? 1n : 0n);
  const halvings = 10;
  const guard = 24;
  const width = BigInt(F + guard);
  const r = shifted(X - k * LN2, guard - halvings);
  let term = 1n << width;
  let sum = term;
  for (let n = 1n; term !== 0n && term !== -1n; ++n) {
    term = ((term * r) >> width) / n;
    sum += term;
  }
  for (let i = 0; i < halvings; ++i) sum = (sum * sum) >> width;
  return { m: sum, s: Number(k) - F - guard };
}

/** m 2^s in fixed point with F fraction bits. */
const fixed = (a: Big): bigint => shifted(a.m, a.s + F);

/** ln(M 2^-F) for M > 0 in fixed point; absolute error below 2^-270. */
function logFixed(M: bigint): bigint {
  // M = u 2^e with u in [1/sqrt 2, sqrt 2): then ln u = 2 atanh((u - 1) / (u + 1)), after three square roots.
  let e = bitLength(M) - F;
  const roots = 3;
  const width = F + 32;
  let u = shifted(M, width - F - e);
  const one = 1n << BigInt(width);
  if (u * u < (one * one) / 2n) {
    u <<= 1n;
    e -= 1;
  }
  for (let i = 0; i < roots; ++i) u = squareRoot(u << BigInt(width));
  const y = ((u - one) << BigInt(width)) / (u + one);
  const y2 = (y * y) >> BigInt(width);
  let power = y;
  let sum = 0n;
  for (let odd = 1n; power !== 0n && power !== -1n; odd += 2n) {
    sum += power / odd;
    power = (power * y2) >> BigInt(width);
  }
  return shifted(sum, 1 + roots + F - width) + BigInt(e) * LN2;
}

/** floor(sqrt(a)) by Newton's method from above, started with the 50 leading bits (Math.sqrt is exact to rounding). */
function squareRoot(a: bigint): bigint {
  if (a < 1n << 100n) {
    let root = BigInt(Math.floor(Math.sqrt(Number(a))));
    while (root * root > a) root -= 1n;
    while ((root + 1n) * (root + 1n) <= a) root += 1n;
    return root;
  }
  const half = (bitLength(a) - 99) >> 1;
  let x = BigInt(Math.floor(Math.sqrt(Number(shifted(a, -2 * half)))) + 2) << BigInt(half);
  for (;;) {
    const y = (x + a / x) >> 1n;
    if (y >= x) return x;
    x = y;
  }
}

/** a / b for b > 0, with at least F significant bits. */
function divide(a: Big, b: Big): Big {
  const width = F + bitLength(b.m);
  return { m: (a.m << BigInt(width)) / b.m, s: a.s - b.s - width };
}

/** a + b exactly (the caller keeps the exponents close). */
function add(a: Big, b: Big): Big {
  const s = Math.min(a.s, b.s);
  return { m: (a.m << BigInt(a.s - s)) + (b.m << BigInt(b.s - s)), s };
}

const UNIT: Big = { m: 1n, s: 0 };
const negated = (a: Big): Big => ({ m: -a.m, s: a.s });

/** e^x for a finite double |x| < 2^20. */
export function exp(x: number): Big {
  return expFixed(fixed(fromDouble(x)));
}

/** ln x for a finite double x > 0. */
export function log(x: number): Big {
  if (!(x > 0)) throw new RangeError(`log: expected x > 0, got ${x}`);
  const { m, s } = fromDouble(x);
  const length = bitLength(m);
  // The exponent is split off first, so that the fixed-point argument lies in [1/2, 1) or, near 1, is x itself.
  if (x > 0.5 && x < 2) return { m: logFixed(shifted(m, s + F)), s: -F };
  return { m: logFixed(shifted(m, F - length)) + BigInt(s + length) * LN2, s: -F };
}

/** tanh x for a finite double. */
export function tanh(x: number): Big {
  if (x < 0) return negated(tanh(-x));
  const a = fromDouble(x);
  if (x > 200) return UNIT; // 1 - 2 e^-400 differs from 1 by 2^-576
  // x - x^3 / 3 leaves a relative error of 2 x^4 / 15 < 2^-243
  if (x < 2 ** -60) return a.m === 0n ? a : add(a, negated({ m: a.m ** 3n / 3n, s: 3 * a.s }));
  const e = exp(-2 * x);
  return divide(add(UNIT, negated(e)), add(UNIT, e));
}

/** 2 / sqrt(pi). */
const TWO_OVER_SQRT_PI = sqrt(divide({ m: 8n, s: 0 }, { m: TWO_PI, s: -F }));

/** erf x for a finite double, by e^-(x^2) times a series of positive terms: nothing cancels. */
export function erf(x: number): Big {
  if (x < 0) return negated(erf(-x));
  const a = fromDouble(x);
  if (x > 12) return UNIT; // the rest is below e^-144 = 2^-207
  // x - x^3 / 3 leaves a relative error of x^4 / 10 < 2^-243
  if (x < 2 ** -60) {
    return a.m === 0n ? a : multiply(TWO_OVER_SQRT_PI, add(a, negated({ m: a.m ** 3n / 3n, s: 3 * a.s })));
  }
  const square: Big = { m: a.m * a.m, s: 2 * a.s };
  const twice = 2n * fixed(square);
  // erf x = 2/sqrt(pi) e^-(x^2) sum_n (2 x^2)^n x / (1 3 5 ... (2n + 1))
  let term = fixed(a);
  let sum = 0n;
  for (let odd = 3n; term !== 0n; odd += 2n) {
    sum += term;
    term = ((term * twice) >> BigInt(F)) / odd;
  }
  return multiply(multiply(TWO_OVER_SQRT_PI, expFixed(-fixed(square))), { m: sum, s: -F });
}

/** 1 / (1 + e^-x) for a finite double |x| < 2^20. */
export function sigmoid(x: number): Big {
  const e = exp(-Math.abs(x));
  if (x >= 0) return x > 300 ? UNIT : divide(UNIT, add(UNIT, e));
  return x < -300 ? e : divide(e, add(UNIT, e)); // below -300 the denominator is 1 to 432 bits
}

/** ln(1 + e^x) = max(x, 0) + ln(1 + e^-|x|) for a finite double |x| < 2^20. */
export function softplus(x: number): Big {
  if (x > 300) return fromDouble(x); // the rest is 2^-432
  const e = exp(-Math.abs(x));
  if (x < -300) return e;
  // Beyond 60 the sum 1 + e would cost bits; there e - e^2 / 2 is exact to e^2 / 3 < 2^-174, relatively.
  const tail: Big =
    Math.abs(x) > 60 ? add(e, { m: -e.m * e.m, s: 2 * e.s - 1 }) : { m: logFixed(ONE + fixed(e)), s: -F };
  return x > 0 ? add(fromDouble(x), tail) : tail;
}

/** sin(2 pi t) for a double |t| <= 4, to 2^-280 (absolutely: near a zero the relative precision is less). */
export function sinTurns(t: number): Big {
  return { m: trigFixed(t, 1n), s: -F };
}

/** cos(2 pi t) for a double |t| <= 4, to 2^-280. */
export function cosTurns(t: number): Big {
  return { m: trigFixed(t, 0n), s: -F };
}

/** The Taylor series of sine (first = 1) or cosine (first = 0) at 2 pi t; t is first brought to |t| <= 1/8. */
function trigFixed(t: number, first: bigint): bigint {
  const turns = fixed(fromDouble(t));
  const quarter = ONE >> 2n;
  const j = (turns + (quarter >> 1n)) >> BigInt(F - 2);
  const angle = ((turns - j * quarter) * TWO_PI) >> BigInt(F);
  // sin(a + j pi/2) and cos(a + j pi/2) = sin(a + (j + 1) pi/2)
  const turn = (((j + 1n - first) % 4n) + 4n) % 4n;
  const square = (angle * angle) >> BigInt(F);
  let n = turn % 2n === 0n ? 1n : 0n;
  let term = n === 1n ? angle : ONE;
  let sum = 0n;
  while (term !== 0n && term !== -1n) {
    sum += term;
    term = -((term * square) >> BigInt(F)) / ((n + 1n) * (n + 2n));
    n += 2n;
  }
  return turn >= 2n ? -sum : sum;
}

/** a * b. */
export function multiply(a: Big, b: Big): Big {
  return { m: a.m * b.m, s: a.s + b.s };
}

/** sqrt(a) for a >= 0. */
export function sqrt(a: Big): Big {
  const s = a.s - 2 * F - (((a.s % 2) + 2) % 2);
  return { m: squareRoot(shifted(a.m, a.s - s)), s: s / 2 };
}

/** Formats of the results: significand bits and the exponent of the smallest normal number. */
const FORMATS = {
  f64: { digits: 53, least: -1022, greatest: 1023 },
  f32: { digits: 24, least: -126, greatest: 127 },
} as const;
export type Dtype = keyof typeof FORMATS;

/** Exponent of the unit in the last place of `exact` (gradual underflow included). */
function ulpExponent(exact: Big, dtype: Dtype): number {
  const { digits, least } = FORMATS[dtype];
  return Math.max(bitLength(exact.m) - 1 + exact.s, least) - (digits - 1);
}

/**
 * |got - exact| in units of the last place of `exact`. An infinite `got` is read as 2^(greatest + 1), the number
 * it stands for in rounding, and so is an `exact` beyond that number. NaN gives NaN.
 */
export function ulps(got: number, exact: Big, dtype: Dtype = "f64"): number {
  if (Number.isNaN(got)) return Number.NaN;
  const { greatest } = FORMATS[dtype];
  const isOver = bitLength(exact.m) + exact.s > greatest + 1;
  const aim: Big = isOver ? { m: exact.m > 0n ? 1n : -1n, s: greatest + 1 } : exact;
  const value: Big = Number.isFinite(got) ? fromDouble(got) : { m: got > 0 ? 1n : -1n, s: greatest + 1 };
  const difference = add(value, negated(aim));
  // 32 fraction bits of a unit are enough to print, and a huge difference is still a number
  const inUnits = shifted(difference.m, difference.s - ulpExponent(aim, dtype) + 32);
  return Number(abs(inUnits)) / 2 ** 32;
}

/** The number of the format nearest to `exact`, ties to even. */
export function rounded(exact: Big, dtype: Dtype = "f64"): number {
  if (exact.m === 0n) return 0;
  const unit = ulpExponent(exact, dtype);
  const size = abs(exact.m);
  const shift = unit - exact.s;
  let q = shifted(size, -shift);
  if (shift > 0) {
    const rest = size - (q << BigInt(shift));
    const half = 1n << BigInt(shift - 1);
    if (rest > half || (rest === half && (q & 1n) === 1n)) q += 1n;
  }
  // q < 2^54 is exact; two factors keep the scale itself from underflowing
  const low = Math.trunc(unit / 2);
  const value = Number(q) * 2 ** low * 2 ** (unit - low);
  const limited = value >= 2 ** FORMATS[dtype].greatest * 2 ? Number.POSITIVE_INFINITY : value;
  return exact.m < 0n ? -limited : limited;
}

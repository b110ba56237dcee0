/**
 * Elementary functions, two f64 lanes at a time, with the special cases of IEEE 754: NaN stays NaN, results
 * overflow to infinity and underflow gradually, and a lane's bits never depend on its neighbour.
 *
 * Only +, -, *, / and integer operations are used, no host Math, so equal input gives equal bits everywhere.
 * The f32 build widens each half of a register to f64, computes there and rounds once.
 *
 * Constants lie in memory as pairs: V8 rebuilds a splat constant in every iteration of a loop, a load is cheaper.
 */

// --- constants ---------------------------------------------------------------------------------------------

const COMMON: usize = memory.data<f64>([
  6755399441055744.0, 6755399441055744.0,
  0.5, 0.5,
  1.0, 1.0,
  2.0, 2.0,
  -2.0, -2.0,
  -0.0, -0.0,
  6.93147180369123816490e-01, 6.93147180369123816490e-01,
  1.90821492927058770002e-10, 1.90821492927058770002e-10,
], 16);
/** 1.5 * 2^52: added to a small x, leaves round(x) in the low bits of the sum. */
const ROUNDER: usize = COMMON;
const HALF: usize = COMMON + 16;
const ONE: usize = COMMON + 32;
const TWO: usize = COMMON + 48;
const MINUS_TWO: usize = COMMON + 64;
const SIGN_BIT: usize = COMMON + 80;
/** ln 2 = LN2_HI + LN2_LO; LN2_HI ends in 21 zero bits, so that k * LN2_HI is exact for |k| < 2^21. */
const LN2_HI: usize = COMMON + 96;
const LN2_LO: usize = COMMON + 112;

/**
 * e^r = 1 + r + r^2/2 + r^3 (E0 + E1 r + ... + E8 r^8) on |r| <= 0.3467: a minimax fit whose first two
 * coefficients were held at 1 and 1/2; relative error 6.0e-18 before rounding.
 */
const EXP: usize = memory.data<f64>([
  1.4426950408889634, 1.4426950408889634,
  708.0, 708.0,
  20.0, 20.0,
  746.0, 746.0,
  1.3407807929942597e154, 1.3407807929942597e154,
  7.458340731200207e-155, 7.458340731200207e-155,
  0.16666666666666438, 0.16666666666666438,
  0.041666666666604485, 0.041666666666604485,
  0.008333333333498437, 0.008333333333498437,
  0.0013888888926611138, 0.0013888888926611138,
  0.00019841269468256052, 0.00019841269468256052,
  2.480150887455705e-05, 2.480150887455705e-05,
  2.7557639929872243e-06, 2.7557639929872243e-06,
  2.7625122173986013e-07, 2.7625122173986013e-07,
  2.4978484862527968e-08, 2.4978484862527968e-08,
], 16);
const LOG2_E: usize = EXP;
const EXP_FAST_LIMIT: usize = EXP + 16;
const TANH_LIMIT: usize = EXP + 32;
const EXP_ZERO_LIMIT: usize = EXP + 48;
const TWO_P512: usize = EXP + 64;
const TWO_M512: usize = EXP + 80;
const E0: usize = EXP + 96;
const E1: usize = EXP + 112;
const E2: usize = EXP + 128;
const E3: usize = EXP + 144;
const E4: usize = EXP + 160;
const E5: usize = EXP + 176;
const E6: usize = EXP + 192;
const E7: usize = EXP + 208;
const E8: usize = EXP + 224;

/**
 * ln((1 + s)/(1 - s)) = 2 s + s z (L0 + L1 z + ...), z = s^2.
 * L0..L6: z <= 0.0295, the range of log, error 3.3e-18 relative to 2 s.
 * P0..P7: z <= 0.0401, the wider range of log1p below, error 3.1e-19.
 */
const LOG: usize = memory.data<f64>([
  1021.0, 1021.0,
  18014398509481984.0, 18014398509481984.0,
  0.6666666666666723, 0.6666666666666723,
  0.39999999999472996, 0.39999999999472996,
  0.28571428731658144, 0.28571428731658144,
  0.22222199515323782, 0.22222199515323782,
  0.18183521547895976, 0.18183521547895976,
  0.15315019923982912, 0.15315019923982912,
  0.14787278484079625, 0.14787278484079625,
  0.6666666666666661, 0.6666666666666661,
  0.40000000000050684, 0.40000000000050684,
  0.28571428556929424, 0.28571428556929424,
  0.22222224196571103, 0.22222224196571103,
  0.1818167084730491, 0.1818167084730491,
  0.1539097363384721, 0.1539097363384721,
  0.1317561779090429, 0.1317561779090429,
  0.13831002035957818, 0.13831002035957818,
], 16);
const LOG_FAST_LIMIT: usize = LOG;
const TWO_P54: usize = LOG + 16;
const L0: usize = LOG + 32;
const L1: usize = LOG + 48;
const L2: usize = LOG + 64;
const L3: usize = LOG + 80;
const L4: usize = LOG + 96;
const L5: usize = LOG + 112;
const L6: usize = LOG + 128;
const P0: usize = LOG + 144;
const P1: usize = LOG + 160;
const P2: usize = LOG + 176;
const P3: usize = LOG + 192;
const P4: usize = LOG + 208;
const P5: usize = LOG + 224;
const P6: usize = LOG + 240;
const P7: usize = LOG + 256;

/**
 * erf x = x + x (R0 + R1 s + ... + R12 s^12), s = x^2 - 0.75, for |x| <= 1.1875: error 1.3e-17 relative to erf x.
 * ln(1 - erf x) = Q0 + Q1 x + ... + Q14 x^14 for 1.1875 <= x <= 5.9375: an error of 2.1e-17 in erf x.
 * Minimax fits; for Q each coefficient was rounded before the next were fitted. erf 5.9375 rounds to 1.
 */
const ERF: usize = memory.data<f64>([
  0.75, 0.75,
  1.1875, 1.1875,
  5.9375, 5.9375,
  -0.10010880203447822, -0.10010880203447822,
  -0.24458841374655793, -0.24458841374655793,
  0.06691888796466217, 0.06691888796466217,
  -0.015131144700112321, -0.015131144700112321,
  0.0028472083349924925, 0.0028472083349924925,
  -0.0004554912388101755, -0.0004554912388101755,
  6.318505346017109e-05, 6.318505346017109e-05,
  -7.725334906297608e-06, -7.725334906297608e-06,
  8.436963452691982e-07, 8.436963452691982e-07,
  -8.320877408960328e-08, -8.320877408960328e-08,
  7.476919723392706e-09, 7.476919723392706e-09,
  -6.224410230133235e-10, -6.224410230133235e-10,
  4.930051128193208e-11, 4.930051128193208e-11,
  -3.3883349635357476e-06, -3.3883349635357476e-06,
  -1.1283491971536128, -1.1283491971536128,
  -0.6367435088932902, -0.6367435088932902,
  -0.10245592917861272, -0.10245592917861272,
  0.01856604228481994, 0.01856604228481994,
  0.0009438619547140396, 0.0009438619547140396,
  -0.002425128959400078, -0.002425128959400078,
  0.0011477699150428443, 0.0011477699150428443,
  -0.00035433334653832123, -0.00035433334653832123,
  8.038262428351326e-05, 8.038262428351326e-05,
  -1.363743202811787e-05, -1.363743202811787e-05,
  1.6952584918144857e-06, 1.6952584918144857e-06,
  -1.4632211856999712e-07, -1.4632211856999712e-07,
  7.844942219041218e-09, 7.844942219041218e-09,
  -1.9678265529015767e-10, -1.9678265529015767e-10,
], 16);
const ERF_MIDDLE: usize = ERF;
const ERF_SPLIT: usize = ERF + 16;
const ERF_LIMIT: usize = ERF + 32;
const R0: usize = ERF + 48;
const R1: usize = ERF + 64;
const R2: usize = ERF + 80;
const R3: usize = ERF + 96;
const R4: usize = ERF + 112;
const R5: usize = ERF + 128;
const R6: usize = ERF + 144;
const R7: usize = ERF + 160;
const R8: usize = ERF + 176;
const R9: usize = ERF + 192;
const R10: usize = ERF + 208;
const R11: usize = ERF + 224;
const R12: usize = ERF + 240;
const Q0: usize = ERF + 256;
const Q1: usize = ERF + 272;
const Q2: usize = ERF + 288;
const Q3: usize = ERF + 304;
const Q4: usize = ERF + 320;
const Q5: usize = ERF + 336;
const Q6: usize = ERF + 352;
const Q7: usize = ERF + 368;
const Q8: usize = ERF + 384;
const Q9: usize = ERF + 400;
const Q10: usize = ERF + 416;
const Q11: usize = ERF + 432;
const Q12: usize = ERF + 448;
const Q13: usize = ERF + 464;
const Q14: usize = ERF + 480;

/** Bits of sqrt(1/2). */
const SQRT_HALF_BITS: usize = memory.data<u64>([0x3fe6a09e667f3bcd, 0x3fe6a09e667f3bcd], 16);

/** Taylor-like coefficients of fdlibm's kernel sine and cosine on |a| <= pi/4 (errors below 2^-58). */
const TRIG: usize = memory.data<f64>([
  4.0, 4.0,
  0.25, 0.25,
  6.283185307179586, 6.283185307179586,
  -1.66666666666666324348e-01, -1.66666666666666324348e-01,
  8.33333333332248946124e-03, 8.33333333332248946124e-03,
  -1.98412698298579493134e-04, -1.98412698298579493134e-04,
  2.75573137070700676789e-06, 2.75573137070700676789e-06,
  -2.50507602534068634195e-08, -2.50507602534068634195e-08,
  1.58969099521155010221e-10, 1.58969099521155010221e-10,
  4.16666666666666019037e-02, 4.16666666666666019037e-02,
  -1.38888888888741095749e-03, -1.38888888888741095749e-03,
  2.48015872894767294178e-05, 2.48015872894767294178e-05,
  -2.75573143513906633035e-07, -2.75573143513906633035e-07,
  2.08757232129817482790e-09, 2.08757232129817482790e-09,
  -1.13596475577881948265e-11, -1.13596475577881948265e-11,
], 16);
const FOUR: usize = TRIG;
const QUARTER: usize = TRIG + 16;
const TWO_PI: usize = TRIG + 32;
const S0: usize = TRIG + 48;
const S1: usize = TRIG + 64;
const S2: usize = TRIG + 80;
const S3: usize = TRIG + 96;
const S4: usize = TRIG + 112;
const S5: usize = TRIG + 128;
const C0: usize = TRIG + 144;
const C1: usize = TRIG + 160;
const C2: usize = TRIG + 176;
const C3: usize = TRIG + 192;
const C4: usize = TRIG + 208;
const C5: usize = TRIG + 224;

/** a * b + c and c - a * b, two roundings each. */
// @ts-ignore: decorator
@inline
function madd64(a: v128, b: v128, c: v128): v128 {
  return f64x2.add(f64x2.mul(a, b), c);
}
// @ts-ignore: decorator
@inline
function nmadd64(a: v128, b: v128, c: v128): v128 {
  return f64x2.sub(c, f64x2.mul(a, b));
}

// --- exponential family ------------------------------------------------------------------------------------

/** x = k ln 2 + r: a number whose low bits hold k = round(x / ln 2), for |x| < 2^50. NaN gives NaN. */
// @ts-ignore: decorator
@inline
function nearestPower(x: v128): v128 {
  return madd64(x, v128.load(LOG2_E), v128.load(ROUNDER));
}

/** e^r - 1 for the r that goes with `t` = nearestPower(x). */
// @ts-ignore: decorator
@inline
function reducedExpm1(x: v128, t: v128): v128 {
  const k = f64x2.sub(t, v128.load(ROUNDER));
  const r = nmadd64(k, v128.load(LN2_LO), nmadd64(k, v128.load(LN2_HI), x));
  const r2 = f64x2.mul(r, r);
  const r4 = f64x2.mul(r2, r2);
  const q0 = madd64(r2, madd64(r, v128.load(E2), v128.load(E1)), madd64(r, v128.load(E0), v128.load(HALF)));
  const q1 = madd64(r2, madd64(r, v128.load(E6), v128.load(E5)), madd64(r, v128.load(E4), v128.load(E3)));
  const q2 = madd64(r, v128.load(E8), v128.load(E7));
  return madd64(r2, madd64(r4, madd64(r4, q2, q1), q0), r);
}

/** expF64 for every x: the power of two is applied in two factors, so the last product overflows or underflows. */
function expRare(x: v128): v128 {
  // f64x2.min and max return NaN for NaN; beyond the limits e^x is infinite or below half the least denormal.
  const y = f64x2.max(f64x2.splat(-746.0), f64x2.min(f64x2.splat(710.0), x));
  const t = nearestPower(y);
  const p = f64x2.add(reducedExpm1(y, t), v128.load(ONE));
  const k = i64x2.sub(t, v128.load(ROUNDER));
  const k1 = i64x2.shr_s(k, 1);
  const k2 = i64x2.sub(k, k1);
  // For NaN the factors are garbage, but p is NaN and multiplication keeps it.
  const one = v128.load(ONE);
  return f64x2.mul(
    f64x2.mul(p, i64x2.add(one, i64x2.shl(k1, 52))),
    i64x2.add(one, i64x2.shl(k2, 52)),
  );
}

/**
 * e^x. +Inf above 709.78, gradual underflow below -708.39, e^-Inf = 0, NaN for NaN.
 *
 * error   at most 1 ulp; 0.98 ulp measured on 1.5 million points, 0.92 where e^x is denormal
 */
// @ts-ignore: decorator
@inline
export function expF64(x: v128): v128 {
  // Not (|x| <= 708) catches NaN too, whose payload the exponent arithmetic below would corrupt.
  if (!i64x2.all_true(f64x2.le(f64x2.abs(x), v128.load(EXP_FAST_LIMIT)))) return expRare(x);
  const t = nearestPower(x);
  const p = f64x2.add(reducedExpm1(x, t), v128.load(ONE));
  return i64x2.add(p, i64x2.shl(t, 52));
}

/**
 * e^-|x|, in (0, 1], with gradual underflow and no branch: 2^(k + 512) is a normal number for all k that matter,
 * and the exact factor 2^-512 rounds once into the denormals.
 */
// @ts-ignore: decorator
@inline
function expMinusAbs(x: v128): v128 {
  // pmin(a, b) is a unless b < a: NaN in a stays.
  const y = v128.or(f64x2.pmin(f64x2.abs(x), v128.load(EXP_ZERO_LIMIT)), v128.load(SIGN_BIT));
  const t = nearestPower(y);
  const p = f64x2.add(reducedExpm1(y, t), v128.load(ONE));
  const scale = i64x2.add(v128.load(TWO_P512), i64x2.shl(t, 52));
  return f64x2.mul(f64x2.mul(p, scale), v128.load(TWO_M512));
}

/**
 * tanh x = sign(x) (1 - e^(-2|x|)) / (1 + e^(-2|x|)), through e^y - 1 so that small x keep their digits.
 * tanh(+-Inf) = +-1, tanh(-0) = -0, NaN for NaN; exact for denormal x.
 *
 * error   at most 2.3 ulp; 2.12 measured on 1.25 million points
 */
// @ts-ignore: decorator
@inline
export function tanhF64(x: v128): v128 {
  // tanh(20) rounds to 1; pmin in this order keeps NaN.
  const y = f64x2.mul(f64x2.pmin(f64x2.abs(x), v128.load(TANH_LIMIT)), v128.load(MINUS_TWO));
  const t = nearestPower(y);
  const one = v128.load(ONE);
  const scale = i64x2.add(one, i64x2.shl(t, 52));
  // e^y -+ 1 = 2^k (e^r - 1) + (2^k -+ 1): each rounded by itself, which is more accurate than adding 2 to the
  // numerator. NaN arrives through e^r.
  const e = f64x2.mul(scale, reducedExpm1(y, t));
  const size = f64x2.div(f64x2.add(e, f64x2.sub(scale, one)), f64x2.add(e, f64x2.add(scale, one)));
  return v128.or(f64x2.abs(size), v128.and(x, v128.load(SIGN_BIT)));
}

/**
 * 1 / (1 + e^-x), as e^-|x| / (1 + e^-|x|) for negative x: no overflow, and full relative accuracy down to the
 * denormals. sigmoid(-Inf) = 0, sigmoid(Inf) = 1, NaN for NaN.
 *
 * error   at most 2.5 ulp; 2.30 measured on 1.25 million points
 */
// @ts-ignore: decorator
@inline
export function sigmoidF64(x: v128): v128 {
  const e = expMinusAbs(x);
  const one = v128.load(ONE);
  const top = v128.bitselect(e, one, f64x2.lt(x, f64x2.splat(0.0)));
  return f64x2.div(top, f64x2.add(one, e));
}

// --- error function ----------------------------------------------------------------------------------------

/**
 * erf x for |x| <= 1.1875, elsewhere garbage. The term x is added last, so that small x keep their digits; powers of
 * x^2 - 0.75 round less than those of x^2, and the two lowest are added one by one for the same reason.
 */
// @ts-ignore: decorator
@inline
function erfSmall(x: v128): v128 {
  const s = f64x2.sub(f64x2.mul(x, x), v128.load(ERF_MIDDLE));
  const s2 = f64x2.mul(s, s);
  const s4 = f64x2.mul(s2, s2);
  const q0 = madd64(s2, madd64(s, v128.load(R5), v128.load(R4)), madd64(s, v128.load(R3), v128.load(R2)));
  const q1 = madd64(s2, madd64(s, v128.load(R9), v128.load(R8)), madd64(s, v128.load(R7), v128.load(R6)));
  const q2 = madd64(s2, v128.load(R12), madd64(s, v128.load(R11), v128.load(R10)));
  const q = madd64(s4, madd64(s4, q2, q1), q0);
  return madd64(x, madd64(s, madd64(s, q, v128.load(R1)), v128.load(R0)), x);
}

/** erf x for |x| >= 1.1875 and NaN, elsewhere garbage. */
function erfLarge(x: v128): v128 {
  // pmin in this order keeps NaN
  const y = f64x2.pmin(f64x2.abs(x), v128.load(ERF_LIMIT));
  const y2 = f64x2.mul(y, y);
  const y4 = f64x2.mul(y2, y2);
  const q0 = madd64(y2, madd64(y, v128.load(Q3), v128.load(Q2)), madd64(y, v128.load(Q1), v128.load(Q0)));
  const q1 = madd64(y2, madd64(y, v128.load(Q7), v128.load(Q6)), madd64(y, v128.load(Q5), v128.load(Q4)));
  const q2 = madd64(y2, madd64(y, v128.load(Q11), v128.load(Q10)), madd64(y, v128.load(Q9), v128.load(Q8)));
  const q3 = madd64(y2, v128.load(Q14), madd64(y, v128.load(Q13), v128.load(Q12)));
  const q = madd64(y4, madd64(y4, madd64(y4, q3, q2), q1), q0);
  const t = nearestPower(q);
  const one = v128.load(ONE);
  const scale = i64x2.add(one, i64x2.shl(t, 52));
  // 1 - e^q = (1 - 2^k) - 2^k (e^r - 1); NaN arrives through e^r
  const size = nmadd64(scale, reducedExpm1(q, t), f64x2.sub(one, scale));
  return v128.or(size, v128.and(x, v128.load(SIGN_BIT)));
}

/**
 * erf x = 2/sqrt(pi) times the integral of e^(-t^2) from 0 to x; beyond 1.1875 it is 1 - e^Q(x). There e^Q is at
 * most 0.093, so the rounding errors of Q, some units of its last place, hardly count.
 * erf(+-Inf) = +-1, erf(-0) = -0, NaN for NaN, full relative accuracy down to the denormals.
 *
 * error   at most 1.4 ulp; 1.27 measured on 16 million points
 */
// @ts-ignore: decorator
@inline
export function erfF64(x: v128): v128 {
  const small = erfSmall(x);
  const isSmall = f64x2.lt(f64x2.abs(x), v128.load(ERF_SPLIT));
  return i64x2.all_true(isSmall) ? small : v128.bitselect(small, erfLarge(x), isSmall);
}

// --- logarithm ---------------------------------------------------------------------------------------------

/**
 * k ln 2 + ln(1 + f) with -0.3 <= f <= 0.5, as  k HI - ((f^2/2 - (s (f^2/2 + R) + k LO)) - f),  s = f / (2 + f),
 * R = z (the polynomial in z = s^2), which keeps the large terms exact.
 */
// @ts-ignore: decorator
@inline
function assembleLog(k: v128, f: v128, s: v128, R: v128): v128 {
  const halfSquare = f64x2.mul(v128.load(HALF), f64x2.mul(f, f));
  const small = madd64(s, f64x2.add(halfSquare, R), f64x2.mul(k, v128.load(LN2_LO)));
  return f64x2.sub(f64x2.mul(k, v128.load(LN2_HI)), f64x2.sub(f64x2.sub(halfSquare, small), f));
}

/** ln(2^(k - ki) x) for positive normal x = 2^ki m, m in [sqrt 1/2, sqrt 2), with `ki` = wholePower(x). */
// @ts-ignore: decorator
@inline
function logOf(x: v128, ki: v128, k: v128): v128 {
  const m = i64x2.sub(x, i64x2.shl(ki, 52));
  const f = f64x2.sub(m, v128.load(ONE));
  const s = f64x2.div(f, f64x2.add(f, v128.load(TWO)));
  const z = f64x2.mul(s, s);
  const w = f64x2.mul(z, z);
  const odd = f64x2.mul(w, madd64(w, madd64(w, v128.load(L5), v128.load(L3)), v128.load(L1)));
  const even = f64x2.mul(
    z,
    madd64(w, madd64(w, madd64(w, v128.load(L6), v128.load(L4)), v128.load(L2)), v128.load(L0)),
  );
  return assembleLog(k, f, s, f64x2.add(odd, even));
}

/**
 * The k of x = 2^k m as an integer. For zero, denormals, infinity, NaN and x < 0 it is garbage, but |k| >= 1022:
 * the greatest denormals share k = -1022 with the least normal numbers.
 */
// @ts-ignore: decorator
@inline
function wholePower(x: v128): v128 {
  return i64x2.shr_s(i64x2.sub(x, v128.load(SQRT_HALF_BITS)), 52);
}

/** A small integer as f64: there is no such instruction, so it is added to the bits of the rounder. */
// @ts-ignore: decorator
@inline
function toF64(k: v128): v128 {
  const rounder = v128.load(ROUNDER);
  return f64x2.sub(i64x2.add(k, rounder), rounder);
}

/** logF64 for every x. */
function logRare(x: v128): v128 {
  const zero = f64x2.splat(0.0);
  const infinity = f64x2.splat(Infinity);
  // Denormals are scaled by 2^54 into the normal numbers.
  const isTiny = f64x2.lt(x, f64x2.splat(2.2250738585072014e-308));
  const y = v128.bitselect(f64x2.mul(x, v128.load(TWO_P54)), x, isTiny);
  const ki = wholePower(y);
  const k = f64x2.sub(toF64(ki), v128.and(f64x2.splat(54.0), isTiny));
  let result = logOf(y, ki, k);
  result = v128.bitselect(f64x2.neg(infinity), result, f64x2.eq(x, zero));
  result = v128.bitselect(infinity, result, f64x2.eq(x, infinity));
  // lt is false for NaN, so this is x < 0 or NaN
  return v128.bitselect(result, f64x2.splat(NaN), f64x2.ge(x, zero));
}

/**
 * ln x for positive normal x only; anything else gives garbage. For callers that know their range.
 *
 * error   at most 0.9 ulp; 0.82 measured on 1.5 million points
 */
// @ts-ignore: decorator
@inline
export function logNormalF64(x: v128): v128 {
  const ki = wholePower(x);
  return logOf(x, ki, toF64(ki));
}

/**
 * ln x. ln 0 = -Inf (both zeros), NaN for x < 0 and NaN, ln Inf = Inf, denormals right.
 *
 * error   at most 0.9 ulp; 0.82 measured on 1.5 million points
 */
// @ts-ignore: decorator
@inline
export function logF64(x: v128): v128 {
  const ki = wholePower(x);
  const k = toF64(ki);
  if (!i64x2.all_true(f64x2.le(f64x2.abs(k), v128.load(LOG_FAST_LIMIT)))) return logRare(x);
  return logOf(x, ki, k);
}

/**
 * ln(1 + e^x) = max(x, 0) + ln(1 + e^-|x|), so that very negative x keep full relative accuracy.
 * softplus(Inf) = Inf, softplus(-Inf) = 0, NaN for NaN, gradual underflow.
 *
 * error   at most 1.8 ulp; 1.66 measured on 1.5 million points
 */
// @ts-ignore: decorator
@inline
export function softplusF64(x: v128): v128 {
  const e = expMinusAbs(x);
  const one = v128.load(ONE);
  // 1 + e = 2^k (1 + f) with f exact: f = e below 1/2, f = (e - 1) / 2 from there. NaN takes the first.
  const isUpper = f64x2.ge(e, v128.load(HALF));
  const k = v128.and(one, isUpper);
  const f = v128.bitselect(f64x2.mul(f64x2.sub(e, one), v128.load(HALF)), e, isUpper);
  const s = f64x2.div(f, f64x2.add(f, v128.load(TWO)));
  const z = f64x2.mul(s, s);
  const w = f64x2.mul(z, z);
  const odd = f64x2.mul(
    w,
    madd64(w, madd64(w, madd64(w, v128.load(P7), v128.load(P5)), v128.load(P3)), v128.load(P1)),
  );
  const even = f64x2.mul(
    z,
    madd64(w, madd64(w, madd64(w, v128.load(P6), v128.load(P4)), v128.load(P2)), v128.load(P0)),
  );
  // pmax(0, x) is 0 unless 0 < x; NaN is carried by the other term
  return f64x2.add(f64x2.pmax(f64x2.splat(0.0), x), assembleLog(k, f, s, f64x2.add(odd, even)));
}

// --- sine and cosine of a part of a turn -------------------------------------------------------------------
//
// sin(2 pi t) and cos(2 pi t) for |t| <= 2^50, in four parts that the caller puts together, because a function
// can return only one of the two:
//
//   const q = quarterTurns(t);            round(4 t) in the low bits
//   const a = turnAngle(t, q);            2 pi (t - round(4 t) / 4), in [-pi/4, pi/4]
//   const s = sinSmall(a), c = cosSmall(a);
//   sinOfTurn(q, s, c), cosOfTurn(q, s, c)
//
// The subtraction from t is exact, so results near the zeros t = 0, 1/2 keep their relative accuracy.
// Error measured 1.6 ulp for t in [-1/2, 1/2). No special cases: t is finite.

/** round(4 t) in the low bits of the result. */
// @ts-ignore: decorator
@inline
export function quarterTurns(t: v128): v128 {
  return madd64(t, v128.load(FOUR), v128.load(ROUNDER));
}

/** The angle in radians, in [-pi/4, pi/4], that is left of t turns after q quarters. */
// @ts-ignore: decorator
@inline
export function turnAngle(t: v128, q: v128): v128 {
  const j = f64x2.sub(q, v128.load(ROUNDER));
  return f64x2.mul(nmadd64(j, v128.load(QUARTER), t), v128.load(TWO_PI));
}

/** sin a, |a| <= pi/4. */
// @ts-ignore: decorator
@inline
export function sinSmall(a: v128): v128 {
  const z = f64x2.mul(a, a);
  const w = f64x2.mul(z, z);
  const low = madd64(z, v128.load(S1), v128.load(S0));
  const mid = madd64(z, v128.load(S3), v128.load(S2));
  const high = madd64(z, v128.load(S5), v128.load(S4));
  return madd64(f64x2.mul(a, z), madd64(w, madd64(w, high, mid), low), a);
}

/** cos a, |a| <= pi/4. */
// @ts-ignore: decorator
@inline
export function cosSmall(a: v128): v128 {
  const z = f64x2.mul(a, a);
  const w = f64x2.mul(z, z);
  const low = madd64(z, v128.load(C1), v128.load(C0));
  const mid = madd64(z, v128.load(C3), v128.load(C2));
  const high = madd64(z, v128.load(C5), v128.load(C4));
  return madd64(w, madd64(w, madd64(w, high, mid), low), nmadd64(z, v128.load(HALF), v128.load(ONE)));
}

/** All ones where q is odd. */
// @ts-ignore: decorator
@inline
function isOdd(q: v128): v128 {
  return i64x2.neg(v128.and(q, i64x2.splat(1)));
}

/** sin of the whole angle: sin, cos, -sin, -cos of the rest for q = 0, 1, 2, 3 modulo 4. */
// @ts-ignore: decorator
@inline
export function sinOfTurn(q: v128, s: v128, c: v128): v128 {
  return v128.xor(v128.bitselect(c, s, isOdd(q)), i64x2.shl(v128.and(q, i64x2.splat(2)), 62));
}

/** cos of the whole angle: cos, -sin, -cos, sin of the rest for q = 0, 1, 2, 3 modulo 4. */
// @ts-ignore: decorator
@inline
export function cosOfTurn(q: v128, s: v128, c: v128): v128 {
  const turned = i64x2.add(q, i64x2.splat(1));
  return v128.xor(v128.bitselect(s, c, isOdd(q)), i64x2.shl(v128.and(turned, i64x2.splat(2)), 62));
}

// --- the build's own type ----------------------------------------------------------------------------------

/** Lanes 2 and 3 of an f32x4 as f64x2. */
// @ts-ignore: decorator
@inline
function promoteHigh(x: v128): v128 {
  return f64x2.promote_low_f32x4(v128.shuffle<i64>(x, x, 1, 1));
}

/** Two f64x2 rounded into one f32x4. */
// @ts-ignore: decorator
@inline
export function demotePair(low: v128, high: v128): v128 {
  return v128.shuffle<i64>(f32x4.demote_f64x2_zero(low), f32x4.demote_f64x2_zero(high), 0, 2);
}

/** e^x of LANES values; see expF64. In f32 the f64 result is rounded once (0.5000001 ulp). */
// @ts-ignore: decorator
@inline
export function vexp(x: v128): v128 {
  if (sizeof<real>() == 8) return expF64(x);
  return demotePair(expF64(f64x2.promote_low_f32x4(x)), expF64(promoteHigh(x)));
}

/** ln x of LANES values; see logF64. */
// @ts-ignore: decorator
@inline
export function vlog(x: v128): v128 {
  if (sizeof<real>() == 8) return logF64(x);
  return demotePair(logF64(f64x2.promote_low_f32x4(x)), logF64(promoteHigh(x)));
}

/** tanh x of LANES values; see tanhF64. */
// @ts-ignore: decorator
@inline
export function vtanh(x: v128): v128 {
  if (sizeof<real>() == 8) return tanhF64(x);
  return demotePair(tanhF64(f64x2.promote_low_f32x4(x)), tanhF64(promoteHigh(x)));
}

/** 1 / (1 + e^-x) of LANES values; see sigmoidF64. */
// @ts-ignore: decorator
@inline
export function vsigmoid(x: v128): v128 {
  if (sizeof<real>() == 8) return sigmoidF64(x);
  return demotePair(sigmoidF64(f64x2.promote_low_f32x4(x)), sigmoidF64(promoteHigh(x)));
}

/** ln(1 + e^x) of LANES values; see softplusF64. */
// @ts-ignore: decorator
@inline
export function vsoftplus(x: v128): v128 {
  if (sizeof<real>() == 8) return softplusF64(x);
  return demotePair(softplusF64(f64x2.promote_low_f32x4(x)), softplusF64(promoteHigh(x)));
}

// --- arrays ------------------------------------------------------------------------------------------------
//
// dst, a  byte addresses of n packed values; dst == a is allowed, any other overlap is not
// n       any n >= 0. Buffers are padded: whole registers are read and written up to the next multiple of LANES,
//         so up to LANES - 1 values after the n-th are read (any bits are fine) and overwritten
// order   every value by itself: its bits depend on nothing else
// cost    per value on Node 20, Zen 4, in f64 (in f32 nearly the same): see each

/** dst[i] = e^a[i]; bound and special cases at expF64. 2.4 ns per f64. */
export function exp(dst: usize, a: usize, n: i32): void {
  for (const end = a + (n as usize) * sizeof<real>(); a < end; a += 16, dst += 16) {
    v128.store(dst, vexp(v128.load(a)));
  }
}

/** dst[i] = ln a[i]; bound and special cases at logF64. 3.4 ns per f64. */
export function log(dst: usize, a: usize, n: i32): void {
  for (const end = a + (n as usize) * sizeof<real>(); a < end; a += 16, dst += 16) {
    v128.store(dst, vlog(v128.load(a)));
  }
}

/** dst[i] = tanh a[i]; bound and special cases at tanhF64. 3.5 ns per f64. */
export function tanh(dst: usize, a: usize, n: i32): void {
  for (const end = a + (n as usize) * sizeof<real>(); a < end; a += 16, dst += 16) {
    v128.store(dst, vtanh(v128.load(a)));
  }
}

/** dst[i] = 1 / (1 + e^-a[i]); bound and special cases at sigmoidF64. 3.6 ns per f64. */
export function sigmoid(dst: usize, a: usize, n: i32): void {
  for (const end = a + (n as usize) * sizeof<real>(); a < end; a += 16, dst += 16) {
    v128.store(dst, vsigmoid(v128.load(a)));
  }
}

/** dst[i] = ln(1 + e^a[i]); bound and special cases at softplusF64. 7.4 ns per f64. */
export function softplus(dst: usize, a: usize, n: i32): void {
  for (const end = a + (n as usize) * sizeof<real>(); a < end; a += 16, dst += 16) {
    v128.store(dst, vsoftplus(v128.load(a)));
  }
}

/** dst[i] = erf a[i]; bound and special cases at erfF64. 1.8 ns per f64 where all |a[i]| < 1.19,
 * 6 ns where few are. */
export function erf(dst: usize, a: usize, n: i32): void {
  const end = a + (n as usize) * sizeof<real>();
  if (sizeof<real>() == 8) {
    for (; a < end; a += 16, dst += 16) v128.store(dst, erfF64(v128.load(a)));
  } else {
    // half a register at a time: two copies of erfF64 in one loop would share constants, more than there are registers
    for (; a < end; a += 8, dst += 8) {
      v128.store64_lane(dst, f32x4.demote_f64x2_zero(erfF64(f64x2.promote_low_f32x4(v128.load64_zero(a)))), 0);
    }
  }
}

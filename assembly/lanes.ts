/**
 * The vocabulary every kernel shares. `real` is f64 or f32, chosen by the build (asconfig.json);
 * a vector register holds LANES of them. Nothing here owns memory or decides anything.
 */

/** Values of `real` in one 128-bit register: 2 or 4. */
// @ts-ignore: decorator
@inline
export const LANES: i32 = 16 / sizeof<real>();

/** Bytes of `n` values. */
// @ts-ignore: decorator
@inline
export function bytes(n: i32): usize {
  return (n as usize) * sizeof<real>();
}

/** The value at byte address p in every lane. */
// @ts-ignore: decorator
@inline
export function splatAt(p: usize): v128 {
  return sizeof<real>() == 8 ? v128.load64_splat(p) : v128.load32_splat(p);
}

/**
 * a * b + c, the term of a product: two roundings in the variant "simd", one in "fma", whose build enables relaxed SIMD. Nothing
 * but products uses it, so that elementwise ops have the same bits in both.
 */
// @ts-ignore: decorator
@inline
export function madd(a: v128, b: v128, c: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD) return v128.relaxed_madd<real>(a, b, c);
  return v128.add<real>(v128.mul<real>(a, b), c);
}

/** The same of single values: Wasm has no scalar that fuses, so "fma" takes a lane. */
// @ts-ignore: decorator
@inline
export function maddOne(a: real, b: real, c: real): real {
  if (ASC_FEATURE_RELAXED_SIMD)
    return v128.extract_lane<real>(v128.relaxed_madd<real>(v128.splat<real>(a), v128.splat<real>(b), v128.splat<real>(c)), 0);
  return a * b + c;
}

/** One step: keep * theta - rate * g, three roundings. Every update in the house is this expression. */
// @ts-ignore: decorator
@inline
export function stepped(keep: v128, theta: v128, rate: v128, g: v128): v128 {
  return v128.sub<real>(v128.mul<real>(keep, theta), v128.mul<real>(rate, g));
}

/** Four rows of LANES values to LANES rows of four, `step` bytes apart from `dst` on; returns where the next would be. */
// @ts-ignore: decorator
@inline
export function transpose4(dst: usize, step: usize, r0: v128, r1: v128, r2: v128, r3: v128): usize {
  if (sizeof<real>() == 8) {
    v128.store(dst, v128.shuffle<f64>(r0, r1, 0, 2));
    v128.store(dst, v128.shuffle<f64>(r2, r3, 0, 2), 16);
    dst += step;
    v128.store(dst, v128.shuffle<f64>(r0, r1, 1, 3));
    v128.store(dst, v128.shuffle<f64>(r2, r3, 1, 3), 16);
    return dst + step;
  }
  const low01 = v128.shuffle<f32>(r0, r1, 0, 4, 1, 5);
  const low23 = v128.shuffle<f32>(r2, r3, 0, 4, 1, 5);
  const high01 = v128.shuffle<f32>(r0, r1, 2, 6, 3, 7);
  const high23 = v128.shuffle<f32>(r2, r3, 2, 6, 3, 7);
  v128.store(dst, v128.shuffle<f32>(low01, low23, 0, 1, 4, 5));
  dst += step;
  v128.store(dst, v128.shuffle<f32>(low01, low23, 2, 3, 6, 7));
  dst += step;
  v128.store(dst, v128.shuffle<f32>(high01, high23, 0, 1, 4, 5));
  dst += step;
  v128.store(dst, v128.shuffle<f32>(high01, high23, 2, 3, 6, 7));
  return dst + step;
}

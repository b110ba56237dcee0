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

/** a * b + c with two roundings (the baseline variant never fuses). */
// @ts-ignore: decorator
@inline
export function madd(a: v128, b: v128, c: v128): v128 {
  return v128.add<real>(v128.mul<real>(a, b), c);
}

/** One step: keep * theta - rate * g, three roundings. Every update in the house is this expression. */
// @ts-ignore: decorator
@inline
export function stepped(keep: v128, theta: v128, rate: v128, g: v128): v128 {
  return v128.sub<real>(v128.mul<real>(keep, theta), v128.mul<real>(rate, g));
}

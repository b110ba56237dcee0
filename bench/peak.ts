// @ts-nocheck: AssemblyScript; bench/run.mjs compiles it to build/bench-peak.wasm

/**
 * The arithmetic that one core can do from Wasm with 128-bit SIMD and no fused multiply-add, which bounds every product of
 * the engine: n rounds of a = a x + y in 12 independent chains of two f64. Twelve chains hide the latency of multiply and
 * add, and with x and y still fit the 16 registers.
 *
 * Does 48 n floating-point operations. Returns a sum over the chains, so that none can be dropped.
 */
export function peak(n: i32, x: f64, y: f64): f64 {
  const vx = f64x2.splat(x);
  const vy = f64x2.splat(y);
  let a0 = f64x2.splat(0);
  let a1 = f64x2.splat(1);
  let a2 = f64x2.splat(2);
  let a3 = f64x2.splat(3);
  let a4 = f64x2.splat(4);
  let a5 = f64x2.splat(5);
  let a6 = f64x2.splat(6);
  let a7 = f64x2.splat(7);
  let a8 = f64x2.splat(8);
  let a9 = f64x2.splat(9);
  let a10 = f64x2.splat(10);
  let a11 = f64x2.splat(11);
  for (let i = 0; i < n; i++) {
    a0 = f64x2.add(f64x2.mul(a0, vx), vy);
    a1 = f64x2.add(f64x2.mul(a1, vx), vy);
    a2 = f64x2.add(f64x2.mul(a2, vx), vy);
    a3 = f64x2.add(f64x2.mul(a3, vx), vy);
    a4 = f64x2.add(f64x2.mul(a4, vx), vy);
    a5 = f64x2.add(f64x2.mul(a5, vx), vy);
    a6 = f64x2.add(f64x2.mul(a6, vx), vy);
    a7 = f64x2.add(f64x2.mul(a7, vx), vy);
    a8 = f64x2.add(f64x2.mul(a8, vx), vy);
    a9 = f64x2.add(f64x2.mul(a9, vx), vy);
    a10 = f64x2.add(f64x2.mul(a10, vx), vy);
    a11 = f64x2.add(f64x2.mul(a11, vx), vy);
  }
  let sum = f64x2.add(f64x2.add(f64x2.add(a0, a1), f64x2.add(a2, a3)), f64x2.add(a4, a5));
  sum = f64x2.add(sum, f64x2.add(f64x2.add(f64x2.add(a6, a7), f64x2.add(a8, a9)), f64x2.add(a10, a11)));
  return f64x2.extract_lane(sum, 0) + f64x2.extract_lane(sum, 1);
}

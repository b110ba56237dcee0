// @ts-nocheck: AssemblyScript; bench/machine.mjs compiles it to build/bench-peak-simd.wasm and build/bench-peak-fma.wasm

/** a x + y: two roundings in baseline SIMD; one, fused, where relaxed SIMD is enabled. */
@inline function madd<T>(a: v128, x: v128, y: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD) return v128.relaxed_madd<T>(a, x, y);
  return v128.add<T>(v128.mul<T>(a, x), y);
}

/**
 * The arithmetic that one core can do from Wasm with 128-bit SIMD, which bounds every product of the engine, in registers: n rounds of
 * a = a x + y in 12 independent chains of one register each. Twelve chains hide the latency of multiply and add, and with x and
 * y still fit the 16 registers.
 *
 * Does 24 n floating-point operations per lane. Returns a sum over the chains, so that none can be dropped.
 */
@inline function chains<T>(n: i32, x: T, y: T): T {
  const vx = v128.splat<T>(x);
  const vy = v128.splat<T>(y);
  let a0 = v128.splat<T>(0);
  let a1 = v128.splat<T>(1);
  let a2 = v128.splat<T>(2);
  let a3 = v128.splat<T>(3);
  let a4 = v128.splat<T>(4);
  let a5 = v128.splat<T>(5);
  let a6 = v128.splat<T>(6);
  let a7 = v128.splat<T>(7);
  let a8 = v128.splat<T>(8);
  let a9 = v128.splat<T>(9);
  let a10 = v128.splat<T>(10);
  let a11 = v128.splat<T>(11);
  for (let i = 0; i < n; i++) {
    a0 = madd<T>(a0, vx, vy);
    a1 = madd<T>(a1, vx, vy);
    a2 = madd<T>(a2, vx, vy);
    a3 = madd<T>(a3, vx, vy);
    a4 = madd<T>(a4, vx, vy);
    a5 = madd<T>(a5, vx, vy);
    a6 = madd<T>(a6, vx, vy);
    a7 = madd<T>(a7, vx, vy);
    a8 = madd<T>(a8, vx, vy);
    a9 = madd<T>(a9, vx, vy);
    a10 = madd<T>(a10, vx, vy);
    a11 = madd<T>(a11, vx, vy);
  }
  let sum = v128.add<T>(v128.add<T>(v128.add<T>(a0, a1), v128.add<T>(a2, a3)), v128.add<T>(a4, a5));
  sum = v128.add<T>(sum, v128.add<T>(v128.add<T>(v128.add<T>(a6, a7), v128.add<T>(a8, a9)), v128.add<T>(a10, a11)));
  return v128.extract_lane<T>(sum, 0) + v128.extract_lane<T>(sum, 1);
}

/**
 * The same in the shape of a product, 2 x 4 registers of sums whose factors are loaded again in every round: chains of additions
 * alone, which are shorter, but loads in between. Which of the two is faster depends on the machine and on V8; the peak is the better.
 *
 * Does 16 n operations per lane, on six registers of the first 1.5 KiB at `factors`.
 */
@inline function tile<T>(n: i32, factors: usize): T {
  let a0 = v128.splat<T>(0);
  let a1 = v128.splat<T>(0);
  let a2 = v128.splat<T>(0);
  let a3 = v128.splat<T>(0);
  let b0 = v128.splat<T>(0);
  let b1 = v128.splat<T>(0);
  let b2 = v128.splat<T>(0);
  let b3 = v128.splat<T>(0);
  for (let i = 0; i < n; i++) {
    const at = factors + ((i & 15) as usize) * 96;
    const a = v128.load(at);
    const b = v128.load(at, 16);
    const c0 = v128.load(at, 32);
    const c1 = v128.load(at, 48);
    const c2 = v128.load(at, 64);
    const c3 = v128.load(at, 80);
    a0 = madd<T>(a, c0, a0);
    a1 = madd<T>(a, c1, a1);
    a2 = madd<T>(a, c2, a2);
    a3 = madd<T>(a, c3, a3);
    b0 = madd<T>(b, c0, b0);
    b1 = madd<T>(b, c1, b1);
    b2 = madd<T>(b, c2, b2);
    b3 = madd<T>(b, c3, b3);
  }
  const upper = v128.add<T>(v128.add<T>(a0, a1), v128.add<T>(a2, a3));
  const lower = v128.add<T>(v128.add<T>(b0, b1), v128.add<T>(b2, b3));
  return v128.extract_lane<T>(v128.add<T>(upper, lower), 0);
}

/** x and y are arguments because V8 would make the registers of a constant anew in every round. */
export function chains64(n: i32, x: f64, y: f64): f64 {
  return chains<f64>(n, x, y);
}

export function chains32(n: i32, x: f32, y: f32): f32 {
  return chains<f32>(n, x, y);
}

/** The memory is zero where the factors are, which takes no longer than other numbers. */
export function tile64(n: i32): f64 {
  return tile<f64>(n, 1024);
}

export function tile32(n: i32): f32 {
  return tile<f32>(n, 1024);
}

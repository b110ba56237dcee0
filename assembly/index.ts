/** The export list: whatever is not here cannot be called from outside. What op words call needs no export; see kernels.ts. */
export { advance, evaluate, repeat } from "./loop";
export { scheduleFactor } from "./rates";
export { execute } from "./dispatch";
export { centreRows, mirror, rankUpdate } from "./matrix";
export { drawIndices, normalLanes, signLanes } from "./random";
export * from "./dense";

import { maddOne } from "./lanes";

/** a * b + c as products compute it: tells whether this build and this machine fuse. */
export function multiplyAdd(a: real, b: real, c: real): real {
  return maddOne(a, b, c);
}

/** 1 where the build asks for fused multiply-add. */
export function isFused(): i32 {
  return ASC_FEATURE_RELAXED_SIMD ? 1 : 0;
}

/** First free byte of memory: everything above belongs to the arena. */
export function heapBase(): usize {
  return __heap_base;
}

/** Bytes of one value: 8 in the f64 build, 4 in f32. */
export function realBytes(): i32 {
  return sizeof<real>();
}

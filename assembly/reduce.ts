/**
 * Sums along an axis, over a whole value, and over the lanes of a batch; softmax and log-sum-exp.
 *
 * A sum along an axis is one accumulator from +0 (or from dst, where said) adding its terms in ascending
 * index; SIMD runs across independent sums. Sums over all elements use the fixed tree of eight partial
 * sums that sumAll states. Either way equal input gives equal bits, on any path through the code.
 *
 * Addresses are in bytes, sizes and strides in values of real. Any size may be 0. dst overlaps no
 * operand unless said.
 */
import { vexp, vlog } from "./elementary";
import { bytes, LANES, splatAt } from "./lanes";

/**
 * dst[o*inner + i] = sum_r a[(o*count + r)*inner + i],  r ascending, for o < outer, i < inner.
 *
 * The lanes of a laned value are part of inner.
 */
export function sumAxis(dst: usize, a: usize, outer: i32, count: i32, inner: i32): void {
  if (inner == 1) {
    sumRows(dst, a, outer, count, bytes(count), false);
    return;
  }
  const step = bytes(inner);
  for (; outer > 0; --outer) {
    let i = inner;
    for (; i >= 4 * LANES; i -= 4 * LANES) {
      sumColumns4(dst, a, count, step);
      a += 64;
      dst += 64;
    }
    for (; i >= LANES; i -= LANES) {
      let sum = v128.splat<real>(0);
      for (let r = count, p = a; r > 0; --r) {
        sum = v128.add<real>(sum, v128.load(p));
        p += step;
      }
      v128.store(dst, sum);
      a += 16;
      dst += 16;
    }
    for (; i > 0; --i) {
      let sum: real = 0;
      for (let r = count, p = a; r > 0; --r) {
        sum += load<real>(p);
        p += step;
      }
      store<real>(dst, sum);
      a += sizeof<real>();
      dst += sizeof<real>();
    }
    a += step * (count - 1);
  }
}

/**
 * dst[o*inner + i] = sum_r (a * b)[(o*count + r)*inner + i]: the bits of mul followed by sumAxis. a and b
 * may be the same.
 */
export function sumAxisMul(dst: usize, a: usize, b: usize, outer: i32, count: i32, inner: i32): void {
  if (inner == 1) {
    dotRows(dst, a, b, outer, count);
    return;
  }
  const step = bytes(inner);
  const span = step * count;
  for (; outer > 0; --outer) {
    let q: usize = 0;
    for (const wide = step & ~15; q < wide; q += 16) {
      let sum = v128.splat<real>(0);
      for (let at = q; at < span; at += step) {
        sum = v128.add<real>(sum, v128.mul<real>(v128.load(a + at), v128.load(b + at)));
      }
      v128.store(dst + q, sum);
    }
    for (; q < step; q += sizeof<real>()) {
      let sum: real = 0;
      for (let at = q; at < span; at += step) sum += load<real>(a + at) * load<real>(b + at);
      store<real>(dst + q, sum);
    }
    dst += step;
    a += span;
    b += span;
  }
}

/** dst[o] = sum_r a[o*count + r] * b[o*count + r]: scalar chains, four rows at once. */
function dotRows(dst: usize, a: usize, b: usize, rows: i32, count: i32): void {
  const span = bytes(count);
  for (; rows >= 4; rows -= 4) {
    let s0: real = 0, s1: real = 0, s2: real = 0, s3: real = 0;
    const a1 = a + span, a2 = a1 + span, a3 = a2 + span;
    const b1 = b + span, b2 = b1 + span, b3 = b2 + span;
    for (let q: usize = 0; q < span; q += sizeof<real>()) {
      s0 += load<real>(a + q) * load<real>(b + q);
      s1 += load<real>(a1 + q) * load<real>(b1 + q);
      s2 += load<real>(a2 + q) * load<real>(b2 + q);
      s3 += load<real>(a3 + q) * load<real>(b3 + q);
    }
    store<real>(dst, s0);
    store<real>(dst, s1, sizeof<real>());
    store<real>(dst, s2, 2 * sizeof<real>());
    store<real>(dst, s3, 3 * sizeof<real>());
    a = a3 + span;
    b = b3 + span;
    dst += bytes(4);
  }
  for (; rows > 0; --rows) {
    let sum: real = 0;
    for (let q: usize = 0; q < span; q += sizeof<real>()) sum += load<real>(a + q) * load<real>(b + q);
    store<real>(dst, sum);
    a += span;
    b += span;
    dst += sizeof<real>();
  }
}

/** Four registers of columns: four independent chains. */
function sumColumns4(dst: usize, a: usize, count: i32, step: usize): void {
  let s0 = v128.splat<real>(0);
  let s1 = v128.splat<real>(0);
  let s2 = v128.splat<real>(0);
  let s3 = v128.splat<real>(0);
  for (; count > 0; --count) {
    s0 = v128.add<real>(s0, v128.load(a));
    s1 = v128.add<real>(s1, v128.load(a, 16));
    s2 = v128.add<real>(s2, v128.load(a, 32));
    s3 = v128.add<real>(s3, v128.load(a, 48));
    a += step;
  }
  v128.store(dst, s0);
  v128.store(dst, s1, 16);
  v128.store(dst, s2, 32);
  v128.store(dst, s3, 48);
}

/**
 * dst[o] = start + a[o*step] + ... for count packed values, step in bytes; start is dst[o] if carried, else +0.
 * Scalar chains, eight rows at once because a chain waits for itself.
 */
function sumRows(dst: usize, a: usize, rows: i32, count: i32, step: usize, carried: bool): void {
  for (; rows >= 8; rows -= 8) {
    let s0: real = 0, s1: real = 0, s2: real = 0, s3: real = 0;
    let s4: real = 0, s5: real = 0, s6: real = 0, s7: real = 0;
    if (carried) {
      s0 = load<real>(dst);
      s1 = load<real>(dst, sizeof<real>());
      s2 = load<real>(dst, 2 * sizeof<real>());
      s3 = load<real>(dst, 3 * sizeof<real>());
      s4 = load<real>(dst, 4 * sizeof<real>());
      s5 = load<real>(dst, 5 * sizeof<real>());
      s6 = load<real>(dst, 6 * sizeof<real>());
      s7 = load<real>(dst, 7 * sizeof<real>());
    }
    let a0 = a, a1 = a0 + step, a2 = a1 + step, a3 = a2 + step, a4 = a3 + step, a5 = a4 + step, a6 = a5 + step, a7 = a6 + step;
    for (let end = a + bytes(count); a0 < end; a0 += sizeof<real>()) {
      s0 += load<real>(a0);
      s1 += load<real>(a1);
      a1 += sizeof<real>();
      s2 += load<real>(a2);
      a2 += sizeof<real>();
      s3 += load<real>(a3);
      a3 += sizeof<real>();
      s4 += load<real>(a4);
      a4 += sizeof<real>();
      s5 += load<real>(a5);
      a5 += sizeof<real>();
      s6 += load<real>(a6);
      a6 += sizeof<real>();
      s7 += load<real>(a7);
      a7 += sizeof<real>();
    }
    store<real>(dst, s0);
    store<real>(dst, s1, sizeof<real>());
    store<real>(dst, s2, 2 * sizeof<real>());
    store<real>(dst, s3, 3 * sizeof<real>());
    store<real>(dst, s4, 4 * sizeof<real>());
    store<real>(dst, s5, 5 * sizeof<real>());
    store<real>(dst, s6, 6 * sizeof<real>());
    store<real>(dst, s7, 7 * sizeof<real>());
    a += 8 * step;
    dst += bytes(8);
  }
  for (; rows > 0; --rows) {
    let sum: real = carried ? load<real>(dst) : 0;
    for (let r = count, p = a; r > 0; --r) {
      sum += load<real>(p);
      p += sizeof<real>();
    }
    store<real>(dst, sum);
    a += step;
    dst += sizeof<real>();
  }
}

/**
 * Per lane l: dst[l] = sum_e a[e*ld + l],  e < elements; ld = 1 for a uniform value.
 *
 *   partial[q] = the terms with e mod 8 = q, from +0, e ascending
 *   result     = ((p0 + p1) + (p2 + p3)) + ((p4 + p5) + (p6 + p7))
 *
 * A uniform value and a lane that hold the same elements give the same bits.
 */
export function sumAll(dst: usize, a: usize, elements: i32, ld: i32): void {
  if (ld == 1) store<real>(dst, uniformTotal(a, 0, elements, PLAIN));
  else lanedTotals(dst, a, 0, elements, ld, PLAIN);
}

/** Per lane l: dst[l] = sum_e a[e*ld + l]^2, the squares rounded, then summed as by sumAll. */
export function sumSquares(dst: usize, a: usize, elements: i32, ld: i32): void {
  if (ld == 1) store<real>(dst, uniformTotal(a, 0, elements, SQUARE));
  else lanedTotals(dst, a, 0, elements, ld, SQUARE);
}

/** Per lane l: dst[l] = sum_e a[e*ld + l] b[e*ld + l]: the bits of mul followed by sumAll. */
export function sumAllMul(dst: usize, a: usize, b: usize, elements: i32, ld: i32): void {
  if (ld == 1) store<real>(dst, uniformTotal(a, b - a, elements, PRODUCT));
  else lanedTotals(dst, a, b - a, elements, ld, PRODUCT);
}

// What is summed is a constant at each call of the two bodies below: it costs nothing at run time.
const PLAIN: i32 = 0;
const SQUARE: i32 = 1;
/** The value at p times the one `other` bytes further. */
const PRODUCT: i32 = 2;

// @ts-ignore: decorator
@inline
function term(p: usize, other: usize, what: i32): v128 {
  const x = v128.load(p);
  if (what == PRODUCT) return v128.mul<real>(x, v128.load(p + other));
  return what == SQUARE ? v128.mul<real>(x, x) : x;
}

/** Elements in the lanes: the eight partial sums are 8 / LANES registers. */
// @ts-ignore: decorator
@inline
function uniformTotal(a: usize, other: usize, elements: i32, what: i32): real {
  let s0 = v128.splat<real>(0);
  let s1 = v128.splat<real>(0);
  let s2 = v128.splat<real>(0);
  let s3 = v128.splat<real>(0);
  for (; elements >= 8; elements -= 8) {
    s0 = v128.add<real>(s0, term(a, other, what));
    s1 = v128.add<real>(s1, term(a + 16, other, what));
    if (sizeof<real>() == 8) {
      s2 = v128.add<real>(s2, term(a + 32, other, what));
      s3 = v128.add<real>(s3, term(a + 48, other, what));
    }
    a += bytes(8);
  }
  let p0: real, p1: real, p2: real, p3: real, p4: real, p5: real, p6: real, p7: real;
  if (sizeof<real>() == 8) {
    p0 = v128.extract_lane<real>(s0, 0);
    p1 = v128.extract_lane<real>(s0, 1);
    p2 = v128.extract_lane<real>(s1, 0);
    p3 = v128.extract_lane<real>(s1, 1);
    p4 = v128.extract_lane<real>(s2, 0);
    p5 = v128.extract_lane<real>(s2, 1);
    p6 = v128.extract_lane<real>(s3, 0);
    p7 = v128.extract_lane<real>(s3, 1);
  } else {
    p0 = v128.extract_lane<real>(s0, 0);
    p1 = v128.extract_lane<real>(s0, 1);
    p2 = v128.extract_lane<real>(s0, 2);
    p3 = v128.extract_lane<real>(s0, 3);
    p4 = v128.extract_lane<real>(s1, 0);
    p5 = v128.extract_lane<real>(s1, 1);
    p6 = v128.extract_lane<real>(s1, 2);
    p7 = v128.extract_lane<real>(s1, 3);
  }
  if (elements > 0) p0 += single(a, other, what);
  if (elements > 1) p1 += single(a + bytes(1), other, what);
  if (elements > 2) p2 += single(a + bytes(2), other, what);
  if (elements > 3) p3 += single(a + bytes(3), other, what);
  if (elements > 4) p4 += single(a + bytes(4), other, what);
  if (elements > 5) p5 += single(a + bytes(5), other, what);
  if (elements > 6) p6 += single(a + bytes(6), other, what);
  return p0 + p1 + (p2 + p3) + (p4 + p5 + (p6 + p7));
}

// @ts-ignore: decorator
@inline
function single(p: usize, other: usize, what: i32): real {
  const x = load<real>(p);
  if (what == PRODUCT) return x * load<real>(p + other);
  return what == SQUARE ? x * x : x;
}

/** Lanes in the lanes: eight registers of partial sums for each register of lanes. */
// @ts-ignore: decorator
@inline
function lanedTotals(dst: usize, a: usize, other: usize, elements: i32, ld: i32, what: i32): void {
  const step = bytes(ld);
  for (; ld > 0; ld -= LANES) {
    let p = a;
    let s0 = v128.splat<real>(0);
    let s1 = v128.splat<real>(0);
    let s2 = v128.splat<real>(0);
    let s3 = v128.splat<real>(0);
    let s4 = v128.splat<real>(0);
    let s5 = v128.splat<real>(0);
    let s6 = v128.splat<real>(0);
    let s7 = v128.splat<real>(0);
    let e = elements;
    for (; e >= 8; e -= 8) {
      s0 = v128.add<real>(s0, term(p, other, what));
      p += step;
      s1 = v128.add<real>(s1, term(p, other, what));
      p += step;
      s2 = v128.add<real>(s2, term(p, other, what));
      p += step;
      s3 = v128.add<real>(s3, term(p, other, what));
      p += step;
      s4 = v128.add<real>(s4, term(p, other, what));
      p += step;
      s5 = v128.add<real>(s5, term(p, other, what));
      p += step;
      s6 = v128.add<real>(s6, term(p, other, what));
      p += step;
      s7 = v128.add<real>(s7, term(p, other, what));
      p += step;
    }
    if (e > 0) s0 = v128.add<real>(s0, term(p, other, what));
    if (e > 1) s1 = v128.add<real>(s1, term(p + step, other, what));
    if (e > 2) s2 = v128.add<real>(s2, term(p + 2 * step, other, what));
    if (e > 3) s3 = v128.add<real>(s3, term(p + 3 * step, other, what));
    if (e > 4) s4 = v128.add<real>(s4, term(p + 4 * step, other, what));
    if (e > 5) s5 = v128.add<real>(s5, term(p + 5 * step, other, what));
    if (e > 6) s6 = v128.add<real>(s6, term(p + 6 * step, other, what));
    const low = v128.add<real>(v128.add<real>(s0, s1), v128.add<real>(s2, s3));
    const high = v128.add<real>(v128.add<real>(s4, s5), v128.add<real>(s6, s7));
    v128.store(dst, v128.add<real>(low, high));
    a += 16;
    dst += 16;
  }
}

/**
 * dst[e] = ((dst[e] + a[e*ld]) + a[e*ld + 1]) + ... + a[e*ld + lanes - 1],  e < elements.
 *
 * The sum of a laned value over its batch, one accumulator carried in from dst, ascending. Pad lanes are
 * read but not added. Eight elements at a time, transposed in registers: each sum waits for itself, so
 * the speed is in how many run side by side.
 */
export function batchSum(dst: usize, a: usize, elements: i32, lanes: i32, ld: i32): void {
  const step = bytes(ld);
  for (; elements >= 8; elements -= 8) {
    batchSum8(dst, a, lanes, step);
    a += 8 * step;
    dst += bytes(8);
  }
  sumRows(dst, a, elements, lanes, step, true);
}

/** Eight sums of batchSum. */
function batchSum8(dst: usize, a: usize, lanes: i32, step: usize): void {
  let b = a + 2 * step, c = a + 4 * step, d = a + 6 * step;
  let s0 = v128.load(dst);
  let s1 = v128.load(dst, 16);
  if (sizeof<real>() == 8) {
    let s2 = v128.load(dst, 32);
    let s3 = v128.load(dst, 48);
    for (; lanes > 0; lanes -= 2) {
      const x0 = v128.load(a);
      const y0 = v128.load(a + step);
      const x1 = v128.load(b);
      const y1 = v128.load(b + step);
      const x2 = v128.load(c);
      const y2 = v128.load(c + step);
      const x3 = v128.load(d);
      const y3 = v128.load(d + step);
      s0 = v128.add<real>(s0, v128.shuffle<f64>(x0, y0, 0, 2));
      s1 = v128.add<real>(s1, v128.shuffle<f64>(x1, y1, 0, 2));
      s2 = v128.add<real>(s2, v128.shuffle<f64>(x2, y2, 0, 2));
      s3 = v128.add<real>(s3, v128.shuffle<f64>(x3, y3, 0, 2));
      if (lanes == 1) break;
      s0 = v128.add<real>(s0, v128.shuffle<f64>(x0, y0, 1, 3));
      s1 = v128.add<real>(s1, v128.shuffle<f64>(x1, y1, 1, 3));
      s2 = v128.add<real>(s2, v128.shuffle<f64>(x2, y2, 1, 3));
      s3 = v128.add<real>(s3, v128.shuffle<f64>(x3, y3, 1, 3));
      a += 16;
      b += 16;
      c += 16;
      d += 16;
    }
    v128.store(dst, s2, 32);
    v128.store(dst, s3, 48);
  } else {
    for (; lanes > 0; lanes -= 4) {
      const x0 = v128.load(a);
      const x1 = v128.load(a + step);
      const x2 = v128.load(b);
      const x3 = v128.load(b + step);
      const y0 = v128.load(c);
      const y1 = v128.load(c + step);
      const y2 = v128.load(d);
      const y3 = v128.load(d + step);
      const xLow01 = v128.shuffle<f32>(x0, x1, 0, 4, 1, 5);
      const xLow23 = v128.shuffle<f32>(x2, x3, 0, 4, 1, 5);
      const yLow01 = v128.shuffle<f32>(y0, y1, 0, 4, 1, 5);
      const yLow23 = v128.shuffle<f32>(y2, y3, 0, 4, 1, 5);
      s0 = v128.add<real>(s0, v128.shuffle<f32>(xLow01, xLow23, 0, 1, 4, 5));
      s1 = v128.add<real>(s1, v128.shuffle<f32>(yLow01, yLow23, 0, 1, 4, 5));
      if (lanes == 1) break;
      s0 = v128.add<real>(s0, v128.shuffle<f32>(xLow01, xLow23, 2, 3, 6, 7));
      s1 = v128.add<real>(s1, v128.shuffle<f32>(yLow01, yLow23, 2, 3, 6, 7));
      if (lanes == 2) break;
      const xHigh01 = v128.shuffle<f32>(x0, x1, 2, 6, 3, 7);
      const xHigh23 = v128.shuffle<f32>(x2, x3, 2, 6, 3, 7);
      const yHigh01 = v128.shuffle<f32>(y0, y1, 2, 6, 3, 7);
      const yHigh23 = v128.shuffle<f32>(y2, y3, 2, 6, 3, 7);
      s0 = v128.add<real>(s0, v128.shuffle<f32>(xHigh01, xHigh23, 0, 1, 4, 5));
      s1 = v128.add<real>(s1, v128.shuffle<f32>(yHigh01, yHigh23, 0, 1, 4, 5));
      if (lanes == 3) break;
      s0 = v128.add<real>(s0, v128.shuffle<f32>(xHigh01, xHigh23, 2, 3, 6, 7));
      s1 = v128.add<real>(s1, v128.shuffle<f32>(yHigh01, yHigh23, 2, 3, 6, 7));
      a += 16;
      b += 16;
      c += 16;
      d += 16;
    }
  }
  v128.store(dst, s0);
  v128.store(dst, s1, 16);
}

/** dst[i] += a[i] for n values, n a multiple of LANES: batchSum where every lane is a replica with one sample. */
export function batchSumLaned(dst: usize, a: usize, n: i32): void {
  for (; n >= 4 * LANES; n -= 4 * LANES) {
    v128.store(dst, v128.add<real>(v128.load(dst), v128.load(a)));
    v128.store(dst, v128.add<real>(v128.load(dst, 16), v128.load(a, 16)), 16);
    v128.store(dst, v128.add<real>(v128.load(dst, 32), v128.load(a, 32)), 32);
    v128.store(dst, v128.add<real>(v128.load(dst, 48), v128.load(a, 48)), 48);
    a += 64;
    dst += 64;
  }
  for (; n > 0; n -= LANES) {
    v128.store(dst, v128.add<real>(v128.load(dst), v128.load(a)));
    a += 16;
    dst += 16;
  }
}

/**
 * dst[o][r][i] = e_r / s,  e_r = exp(a[o][r][i] - max_r),  s = sum_r e_r ascending,  for o < outer, i < inner.
 *
 * a, dst    [outer][count][inner]; dst may be a
 * special   NaN among the terms, +Inf among them, or nothing but -Inf: all count results are NaN
 * error     |result - exact| <= (2 D + 2 count + 10) u exact, D = max_r - min_r, where e_r does not underflow;
 *           u = 2^-53 or 2^-24. D enters because the rounding of a difference is magnified by exp
 */
export function softmax(dst: usize, a: usize, outer: i32, count: i32, inner: i32): void {
  if (count <= 0) return;
  const step = bytes(inner);
  for (; outer > 0; --outer) {
    let i = inner;
    for (; i >= LANES; i -= LANES) {
      softmaxColumn(dst, a, count, step, true);
      a += 16;
      dst += 16;
    }
    for (; i > 0; --i) {
      softmaxColumn(dst, a, count, step, false);
      a += sizeof<real>();
      dst += sizeof<real>();
    }
    a += step * (count - 1);
    dst += step * (count - 1);
  }
}

/** A register of columns (full), or one column in every lane: the same arithmetic, hence the same bits. */
function softmaxColumn(dst: usize, a: usize, count: i32, step: usize, full: bool): void {
  const max = maxAlong(a, count, step, full);
  let sum = v128.splat<real>(0);
  let p = dst;
  for (let r = count; r > 0; --r) {
    const e = vexp(v128.sub<real>(read(a, full), max));
    write(p, e, full);
    sum = v128.add<real>(sum, e);
    a += step;
    p += step;
  }
  for (; count > 0; --count) {
    write(dst, v128.div<real>(read(dst, full), sum), full);
    dst += step;
  }
}

/**
 * dst[o*inner + i] = log(sum_r exp(a[o][r][i] - max_r)) + max_r,  r ascending, for o < outer, i < inner.
 *
 * a         [outer][count][inner]; dst [outer][inner]
 * special   NaN or +Inf among the terms: NaN; nothing but -Inf, or no terms: -Inf
 * error     |result - exact| <= (2 D + 2 count + 10) u + 4 u (|exact| + log count), D and u as for softmax
 */
export function logsumexp(dst: usize, a: usize, outer: i32, count: i32, inner: i32): void {
  const step = bytes(inner);
  for (; outer > 0; --outer) {
    let i = inner;
    for (; i >= LANES; i -= LANES) {
      logsumexpColumn(dst, a, count, step, true);
      a += 16;
      dst += 16;
    }
    for (; i > 0; --i) {
      logsumexpColumn(dst, a, count, step, false);
      a += sizeof<real>();
      dst += sizeof<real>();
    }
    a += step * (count - 1);
  }
}

/** As softmaxColumn. */
function logsumexpColumn(dst: usize, a: usize, count: i32, step: usize, full: bool): void {
  let max = maxAlong(a, count, step, full);
  // -Inf - -Inf would be NaN: nothing but -Inf is measured from 0, where its sum is 0 and the logarithm -Inf.
  max = v128.andnot(max, v128.eq<real>(max, v128.splat<real>(-Infinity)));
  let sum = v128.splat<real>(0);
  for (; count > 0; --count) {
    sum = v128.add<real>(sum, vexp(v128.sub<real>(read(a, full), max)));
    a += step;
  }
  write(dst, v128.add<real>(vlog(sum), max), full);
}

/**
 * The maximum of count terms, -Inf if there are none. pmax skips NaN: the sum of exponentials finds it again,
 * and the max that keeps it is a chain of eight instructions, as slow as exp itself.
 */
// @ts-ignore: decorator
@inline
function maxAlong(a: usize, count: i32, step: usize, full: bool): v128 {
  let max = v128.splat<real>(-Infinity);
  for (let r = count, p = a; r > 0; --r) {
    max = v128.pmax<real>(max, read(p, full));
    p += step;
  }
  return max;
}

// @ts-ignore: decorator
@inline
function read(p: usize, full: bool): v128 {
  return full ? v128.load(p) : splatAt(p);
}

// @ts-ignore: decorator
@inline
function write(p: usize, x: v128, full: bool): void {
  if (full) v128.store(p, x);
  else store<real>(p, v128.extract_lane<real>(x, 0));
}

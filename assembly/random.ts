/**
 * Random numbers as a pure function of (counter, key): Philox4x32-10 of Random123 (Salmon et al. 2011), and the
 * uniforms, normals, signs and indices made from its words. Nothing here remembers anything between calls.
 *
 * One block is 4 words of 32 bits. The house's use of the counter:
 *
 *   c0  block index, low word          c2  replica
 *   c1  step, or block index, high word, for index draws
 *   c3  purpose                        key  two words, from the seed
 *
 * All counter arithmetic wraps at 2^32, as unsigned integers do.
 */

import {
  cosOfTurn,
  cosSmall,
  demotePair,
  logNormalF64,
  quarterTurns,
  sinOfTurn,
  sinSmall,
  turnAngle,
} from "./elementary";

// --- constants and scratch ---------------------------------------------------------------------------------

const WORDS_OF_ROUND: usize = memory.data<u32>([
  0xd2511f53, 0xd2511f53, 0xd2511f53, 0xd2511f53,
  0xcd9e8d57, 0xcd9e8d57, 0xcd9e8d57, 0xcd9e8d57,
  0x9e3779b9, 0x9e3779b9, 0x9e3779b9, 0x9e3779b9,
  0xbb67ae85, 0xbb67ae85, 0xbb67ae85, 0xbb67ae85,
  0, 1, 2, 3,
], 16);
const MULTIPLIER0: usize = WORDS_OF_ROUND;
const MULTIPLIER1: usize = WORDS_OF_ROUND + 16;
const WEYL0: usize = WORDS_OF_ROUND + 32;
const WEYL1: usize = WORDS_OF_ROUND + 48;
const IOTA: usize = WORDS_OF_ROUND + 64;

const NUMBERS: usize = memory.data<f64>([1.0, 1.0, 1.5, 1.5, 2.0, 2.0, -2.0, -2.0], 16);
const ONE: usize = NUMBERS;
const ONE_AND_HALF: usize = NUMBERS + 16;
const TWO: usize = NUMBERS + 32;
const MINUS_TWO: usize = NUMBERS + 48;

/** Four word planes of 8 counters: word w of counter i at WORDS + 32 w + 4 i. */
const WORDS: usize = memory.data(128, 16);
const WORD_STRIDE: usize = 32;
/** Up to four planes of 4 values of `real`: entry e of counter i at VALUES + (4 e + i) * sizeof<real>(). */
const VALUES: usize = memory.data(128, 16);
/** The values of 4 counters in stream order, for the last few of a stream. */
const TAIL: usize = memory.data(128, 16);

// --- Philox4x32-10 -----------------------------------------------------------------------------------------

/** The low and the high words of two vectors of 64-bit products. */
// @ts-ignore: decorator
@inline
function lowWords(a: v128, b: v128): v128 {
  return v128.shuffle<i32>(a, b, 0, 2, 4, 6);
}
// @ts-ignore: decorator
@inline
function highWords(a: v128, b: v128): v128 {
  return v128.shuffle<i32>(a, b, 1, 3, 5, 7);
}

/** floor(a * b / 2^32) in each of four unsigned lanes. */
// @ts-ignore: decorator
@inline
function multiplyHigh(a: v128, b: v128): v128 {
  return highWords(i64x2.extmul_low_i32x4_u(a, b), i64x2.extmul_high_i32x4_u(a, b));
}

/** Ten rounds on four counters; word w of counter i goes to out + w * stride + 4 i. Bound by latency: see philox8. */
function philox4(
  out: usize, stride: usize,
  c0: v128, c1: v128, c2: v128, c3: v128,
  key0: u32, key1: u32,
): void {
  let k0 = i32x4.splat(key0);
  let k1 = i32x4.splat(key1);
  for (let round = 0; round < 10; ++round) {
    const a0 = i64x2.extmul_low_i32x4_u(c0, v128.load(MULTIPLIER0));
    const a1 = i64x2.extmul_high_i32x4_u(c0, v128.load(MULTIPLIER0));
    const b0 = i64x2.extmul_low_i32x4_u(c2, v128.load(MULTIPLIER1));
    const b1 = i64x2.extmul_high_i32x4_u(c2, v128.load(MULTIPLIER1));
    c0 = v128.xor(v128.xor(highWords(b0, b1), c1), k0);
    c1 = lowWords(b0, b1);
    c2 = v128.xor(v128.xor(highWords(a0, a1), c3), k1);
    c3 = lowWords(a0, a1);
    k0 = i32x4.add(k0, v128.load(WEYL0));
    k1 = i32x4.add(k1, v128.load(WEYL1));
  }
  v128.store(out, c0);
  v128.store(out + stride, c1);
  v128.store(out + 2 * stride, c2);
  v128.store(out + 3 * stride, c3);
}

/**
 * Ten rounds on eight counters, the second four interleaved with the first so that the multiplier never waits;
 * c1 and c3 are shared. Word w of counter i goes to out + w * stride + 4 i.
 */
function philox8(
  out: usize, stride: usize,
  c0: v128, d0: v128, first1: v128, second1: v128, c2: v128, d2: v128, both3: v128,
  key0: u32, key1: u32,
): void {
  let k0 = i32x4.splat(key0);
  let k1 = i32x4.splat(key1);
  let c1 = first1;
  let d1 = second1;
  let c3 = both3;
  let d3 = both3;
  for (let round = 0; round < 10; ++round) {
    const a0 = i64x2.extmul_low_i32x4_u(c0, v128.load(MULTIPLIER0));
    const a1 = i64x2.extmul_high_i32x4_u(c0, v128.load(MULTIPLIER0));
    const b0 = i64x2.extmul_low_i32x4_u(c2, v128.load(MULTIPLIER1));
    const b1 = i64x2.extmul_high_i32x4_u(c2, v128.load(MULTIPLIER1));
    c0 = v128.xor(v128.xor(highWords(b0, b1), c1), k0);
    c1 = lowWords(b0, b1);
    c2 = v128.xor(v128.xor(highWords(a0, a1), c3), k1);
    c3 = lowWords(a0, a1);
    const e0 = i64x2.extmul_low_i32x4_u(d0, v128.load(MULTIPLIER0));
    const e1 = i64x2.extmul_high_i32x4_u(d0, v128.load(MULTIPLIER0));
    const f0 = i64x2.extmul_low_i32x4_u(d2, v128.load(MULTIPLIER1));
    const f1 = i64x2.extmul_high_i32x4_u(d2, v128.load(MULTIPLIER1));
    d0 = v128.xor(v128.xor(highWords(f0, f1), d1), k0);
    d1 = lowWords(f0, f1);
    d2 = v128.xor(v128.xor(highWords(e0, e1), d3), k1);
    d3 = lowWords(e0, e1);
    k0 = i32x4.add(k0, v128.load(WEYL0));
    k1 = i32x4.add(k1, v128.load(WEYL1));
  }
  v128.store(out, c0);
  v128.store(out, d0, 16);
  out += stride;
  v128.store(out, c1);
  v128.store(out, d1, 16);
  out += stride;
  v128.store(out, c2);
  v128.store(out, d2, 16);
  out += stride;
  v128.store(out, c3);
  v128.store(out, d3, 16);
}

/** The vector base + step * (0, 1, 2, 3). */
// @ts-ignore: decorator
@inline
function ramp(base: u32, step: u32): v128 {
  return i32x4.add(i32x4.splat(base), i32x4.mul(i32x4.splat(step), v128.load(IOTA)));
}

/**
 * Philox of counters (c0 + i inc0, c1, c2 + i inc2, c3), i = 0..3, and if `isWide` of four more that start
 * at (c0 + next0, c1, c2 + next2, c3). With `table` the third words are read there: the first four at table, the
 * next four at table + nextTable.
 */
// @ts-ignore: decorator
@inline
function philoxRun(
  out: usize, stride: usize, isWide: bool,
  c0: u32, c1: u32, c2: u32, c3: u32, inc0: u32, inc2: u32, next0: u32, next2: u32,
  key0: u32, key1: u32, table: usize = 0, nextTable: usize = 0,
): void {
  const shared1 = i32x4.splat(c1);
  const shared3 = i32x4.splat(c3);
  const first2 = table ? v128.load(table) : ramp(c2, inc2);
  if (isWide) {
    philox8(
      out, stride,
      ramp(c0, inc0), ramp(c0 + next0, inc0),
      shared1, shared1,
      first2, table ? v128.load(table + nextTable) : ramp(c2 + next2, inc2),
      shared3, key0, key1,
    );
  } else {
    philox4(out, stride, ramp(c0, inc0), shared1, first2, shared3, key0, key1);
  }
}

/**
 * Raw blocks: counters (c0 + i inc0, c1, c2 + i inc2, c3) for i < count.
 *
 * dst     four planes of u32: word w of block i at dst + 4 (w ldc + i), ldc = count rounded up to a multiple of 4;
 *         blocks count..ldc-1 are written too, with what their own counters give
 * count   any count >= 0
 * cost    2.3 ns per 64 bits on Node 20, Zen 4, from 8 blocks
 */
export function philoxBlocks(
  dst: usize, count: i32,
  c0: u32, c1: u32, c2: u32, c3: u32, inc0: u32, inc2: u32,
  key0: u32, key1: u32,
): void {
  const stride = (((count + 3) & ~3) as usize) << 2;
  for (let i = 0; i < count; ) {
    const isWide = i + 4 < count;
    const n = i as u32;
    philoxRun(
      dst, stride, isWide,
      c0 + n * inc0, c1, c2 + n * inc2, c3, inc0, inc2, 4 * inc0, 4 * inc2, key0, key1,
    );
    i += isWide ? 8 : 4;
    dst += isWide ? 32 : 16;
  }
}

// --- words to values ---------------------------------------------------------------------------------------

/** Counters 0 and 1 (low) or 2 and 3 (high): the 64-bit numbers w | v << 32. */
// @ts-ignore: decorator
@inline
function pairLow(w: v128, v: v128): v128 {
  return v128.shuffle<i32>(w, v, 0, 4, 1, 5);
}
// @ts-ignore: decorator
@inline
function pairHigh(w: v128, v: v128): v128 {
  return v128.shuffle<i32>(w, v, 2, 6, 3, 7);
}

/** 1.x with the top 52 bits of each 64-bit number as x. */
// @ts-ignore: decorator
@inline
function oneToTwo(bits: v128): v128 {
  return v128.or(i64x2.shr_u(bits, 12), v128.load(ONE));
}

/** sqrt(-2 ln u), u = 2 - 1.x in (0, 1]. */
// @ts-ignore: decorator
@inline
function radius(bits: v128): v128 {
  const u = f64x2.sub(v128.load(TWO), oneToTwo(bits));
  return f64x2.sqrt(f64x2.mul(v128.load(MINUS_TWO), logNormalF64(u)));
}

/**
 * Box-Muller on four counters: plane 0 gets R sin(2 pi t), plane 1 R cos(2 pi t). In f64 for both builds, so that
 * they see the same stream.
 */
function toNormals(words: usize): void {
  const w0 = v128.load(words);
  const w1 = v128.load(words + WORD_STRIDE);
  const w2 = v128.load(words + 2 * WORD_STRIDE);
  const w3 = v128.load(words + 3 * WORD_STRIDE);
  const R0 = radius(pairLow(w0, w1));
  const t0 = f64x2.sub(oneToTwo(pairLow(w2, w3)), v128.load(ONE_AND_HALF));
  const q0 = quarterTurns(t0);
  const a0 = turnAngle(t0, q0);
  const s0 = sinSmall(a0);
  const c0 = cosSmall(a0);
  const sin0 = f64x2.mul(R0, sinOfTurn(q0, s0, c0));
  const cos0 = f64x2.mul(R0, cosOfTurn(q0, s0, c0));
  const R1 = radius(pairHigh(w0, w1));
  const t1 = f64x2.sub(oneToTwo(pairHigh(w2, w3)), v128.load(ONE_AND_HALF));
  const q1 = quarterTurns(t1);
  const a1 = turnAngle(t1, q1);
  const s1 = sinSmall(a1);
  const c1 = cosSmall(a1);
  const sin1 = f64x2.mul(R1, sinOfTurn(q1, s1, c1));
  const cos1 = f64x2.mul(R1, cosOfTurn(q1, s1, c1));
  storePlane(0, sin0, sin1);
  storePlane(1, cos0, cos1);
}

/** Four f64 values as plane e of VALUES, rounded in the f32 build. */
// @ts-ignore: decorator
@inline
function storePlane(e: usize, low: v128, high: v128): void {
  if (sizeof<real>() == 8) {
    v128.store(VALUES + 32 * e, low);
    v128.store(VALUES + 32 * e + 16, high);
  } else {
    v128.store(VALUES + 16 * e, demotePair(low, high));
  }
}

/** Four uniforms in [0, 1) from words w and v. */
// @ts-ignore: decorator
@inline
function storeUniforms(e: usize, w: v128, v: v128): void {
  const one = v128.load(ONE);
  const low = f64x2.sub(oneToTwo(pairLow(w, v)), one);
  const high = f64x2.sub(oneToTwo(pairHigh(w, v)), one);
  if (sizeof<real>() == 8) {
    storePlane(e, low, high);
  } else {
    // Rounding can reach 1 (probability 2^-25); the largest f32 below 1 stands in for it.
    v128.store(VALUES + 16 * e, f32x4.pmin(demotePair(low, high), f32x4.splat(0.99999994)));
  }
}

/** Four uniforms from words (0, 1) to plane 0, from words (2, 3) to plane 1. */
function toUniforms(words: usize): void {
  storeUniforms(0, v128.load(words), v128.load(words + WORD_STRIDE));
  storeUniforms(1, v128.load(words + 2 * WORD_STRIDE), v128.load(words + 3 * WORD_STRIDE));
}

/** The top bit of each word as the sign of 1, word w to plane w. */
function toSigns(words: usize): void {
  for (let e: usize = 0; e < 4; ++e) {
    const w = v128.and(v128.load(words + WORD_STRIDE * e), i32x4.splat(0x80000000));
    if (sizeof<real>() == 8) {
      const zero = i32x4.splat(0);
      storePlane(e, v128.or(pairLow(zero, w), v128.load(ONE)), v128.or(pairHigh(zero, w), v128.load(ONE)));
    } else {
      v128.store(VALUES + 16 * e, v128.or(w, f32x4.splat(1)));
    }
  }
}

/** floor(word * below / 2^32) as a number, word w to plane w. */
function toIndices(words: usize, below: u32): void {
  for (let e: usize = 0; e < 4; ++e) {
    const index = multiplyHigh(v128.load(words + WORD_STRIDE * e), i32x4.splat(below));
    if (sizeof<real>() == 8) {
      const high = v128.shuffle<i64>(index, index, 1, 1);
      storePlane(e, f64x2.convert_low_i32x4_u(index), f64x2.convert_low_i32x4_u(high));
    } else {
      v128.store(VALUES + 16 * e, f32x4.convert_i32x4_u(index));
    }
  }
}

// --- laned values ------------------------------------------------------------------------------------------

/** Which conversion a fill uses; a literal at each call, so the choice costs nothing. */
// @ts-ignore: decorator
@inline
const NORMAL: i32 = 0;
// @ts-ignore: decorator
@inline
const UNIFORM: i32 = 1;
// @ts-ignore: decorator
@inline
const SIGN: i32 = 2;
// @ts-ignore: decorator
@inline
const INDEX: i32 = 3;

// @ts-ignore: decorator
@inline
function convert(kind: i32, words: usize, below: u32): void {
  if (kind == NORMAL) toNormals(words);
  else if (kind == UNIFORM) toUniforms(words);
  else if (kind == SIGN) toSigns(words);
  else toIndices(words, below);
}

/** VALUES of four lanes to dst, rows ld apart: `rows` of the planes, and two lanes only if `isHalf` (f64). */
// @ts-ignore: decorator
@inline
function storeRows(dst: usize, rows: i32, ld: i32, isHalf: bool): void {
  let from = VALUES;
  for (let e = 0; e < rows; ++e) {
    v128.store(dst, v128.load(from));
    if (sizeof<real>() == 8) {
      if (!isHalf) v128.store(dst, v128.load(from, 16), 16);
    }
    from += 4 * sizeof<real>();
    dst += (ld as usize) * sizeof<real>();
  }
}

/** VALUES of four blocks to dst in stream order (all entries of block 0, then of block 1, ...), `rest` at most. */
// @ts-ignore: decorator
@inline
function storeStream(entries: i32, dst: usize, rest: i32): void {
  const isWhole = rest >= 4 * entries;
  const out = isWhole ? dst : TAIL;
  if (sizeof<real>() == 8) {
    const a0 = v128.load(VALUES);
    const a1 = v128.load(VALUES, 16);
    const b0 = v128.load(VALUES, 32);
    const b1 = v128.load(VALUES, 48);
    if (entries == 2) {
      v128.store(out, v128.shuffle<i64>(a0, b0, 0, 2));
      v128.store(out, v128.shuffle<i64>(a0, b0, 1, 3), 16);
      v128.store(out, v128.shuffle<i64>(a1, b1, 0, 2), 32);
      v128.store(out, v128.shuffle<i64>(a1, b1, 1, 3), 48);
    } else {
      const c0 = v128.load(VALUES, 64);
      const c1 = v128.load(VALUES, 80);
      const d0 = v128.load(VALUES, 96);
      const d1 = v128.load(VALUES, 112);
      v128.store(out, v128.shuffle<i64>(a0, b0, 0, 2));
      v128.store(out, v128.shuffle<i64>(c0, d0, 0, 2), 16);
      v128.store(out, v128.shuffle<i64>(a0, b0, 1, 3), 32);
      v128.store(out, v128.shuffle<i64>(c0, d0, 1, 3), 48);
      v128.store(out, v128.shuffle<i64>(a1, b1, 0, 2), 64);
      v128.store(out, v128.shuffle<i64>(c1, d1, 0, 2), 80);
      v128.store(out, v128.shuffle<i64>(a1, b1, 1, 3), 96);
      v128.store(out, v128.shuffle<i64>(c1, d1, 1, 3), 112);
    }
  } else {
    const a = v128.load(VALUES);
    const b = v128.load(VALUES, 16);
    if (entries == 2) {
      v128.store(out, pairLow(a, b));
      v128.store(out, pairHigh(a, b), 16);
    } else {
      transpose(out, a, b, v128.load(VALUES, 32), v128.load(VALUES, 48));
    }
  }
  if (!isWhole) memory.copy(dst, TAIL, (rest as usize) * sizeof<real>());
}

/** Rows a, b, c, d of 32-bit numbers stored as columns: a0 b0 c0 d0, a1 b1 c1 d1, ... */
// @ts-ignore: decorator
@inline
function transpose(out: usize, a: v128, b: v128, c: v128, d: v128): void {
  const ab0 = pairLow(a, b);
  const ab1 = pairHigh(a, b);
  const cd0 = pairLow(c, d);
  const cd1 = pairHigh(c, d);
  v128.store(out, v128.shuffle<i64>(ab0, cd0, 0, 2));
  v128.store(out, v128.shuffle<i64>(ab0, cd0, 1, 3), 16);
  v128.store(out, v128.shuffle<i64>(ab1, cd1, 0, 2), 32);
  v128.store(out, v128.shuffle<i64>(ab1, cd1, 1, 3), 48);
}

/**
 * The loop of the four fills below. Registers run over lanes, or over blocks when ld is 1; both give the same
 * bits, because every number is made by the same operations on its own block.
 */
// @ts-ignore: decorator
@inline
function fill(
  kind: i32, dst: usize, elements: i32, ld: i32, below: u32,
  c0: u32, c1: u32, c2: u32, c3: u32, inc0: u32, inc2: u32,
  key0: u32, key1: u32, streams: usize,
): void {
  const entries = kind == NORMAL || kind == UNIFORM ? 2 : 4;
  if (ld == 1) {
    for (let e = 0; e < elements; e += 4 * entries) {
      const isWide = e + 4 * entries < elements;
      philoxRun(
        WORDS, WORD_STRIDE, isWide, c0, c1, streams ? load<u32>(streams) : c2, c3, 1, 0, 4, 0, key0, key1,
      );
      c0 += 8; // not wide means last
      for (let words = WORDS; ; words += 16) {
        convert(kind, words, below);
        storeStream(entries, dst, elements - e);
        dst += 4 * entries * sizeof<real>();
        if (!isWide || words != WORDS) break;
        e += 4 * entries;
      }
    }
    return;
  }
  const rowBytes = (ld as usize) * sizeof<real>();
  if (ld <= 4) {
    // One register of counters holds all lanes: the second four are the next block.
    for (let e = 0; e < elements; e += entries) {
      const isWide = e + entries < elements;
      philoxRun(WORDS, WORD_STRIDE, isWide, c0, c1, c2, c3, inc0, inc2, 1, 0, key0, key1, streams, 0);
      c0 += 2; // not wide means last
      for (let words = WORDS; ; words += 16) {
        convert(kind, words, below);
        storeRows(dst, min(entries, elements - e), ld, ld == 2);
        dst += rowBytes * entries;
        if (!isWide || words != WORDS) break;
        e += entries;
      }
    }
    return;
  }
  for (let e = 0; e < elements; e += entries) {
    const rows = min(entries, elements - e);
    for (let l = 0; l < ld; ) {
      const isWide = l + 4 < ld;
      const lane = l as u32;
      philoxRun(
        WORDS, WORD_STRIDE, isWide,
        c0 + lane * inc0, c1, c2 + lane * inc2, c3, inc0, inc2, 4 * inc0, 4 * inc2, key0, key1,
        streams ? streams + ((l as usize) << 2) : 0, 16,
      );
      for (let words = WORDS; ; words += 16) {
        convert(kind, words, below);
        storeRows(dst + (l as usize) * sizeof<real>(), rows, ld, l + 2 == ld);
        l += 4;
        if (!isWide || words != WORDS) break;
      }
    }
    c0 += 1;
    dst += rowBytes * entries;
  }
}

/**
 * Standard normals for a laned value [elements][ld], by Box-Muller.
 *
 * Entry e of lane l comes from block (c0 + l inc0 + (e >> 1), c1, c2 + l inc2, c3). Its words give two 64-bit
 * numbers a = w0 | w1 << 32 and b = w2 | w3 << 32;
 *
 *   u = 2 - (1 + floor(a / 2^12) / 2^52) in (0, 1],   t = floor(b / 2^12) / 2^52 - 1/2 in [-1/2, 1/2),
 *   R = sqrt(-2 ln u),   even e: R sin(2 pi t),   odd e: R cos(2 pi t).
 *
 * dst      byte address of elements * ld values of `real`
 * elements any number >= 0; if odd, the last cosine is dropped
 * lanes    lanes in use; ld is lanes rounded up to a multiple of LANES, or 1 with lanes = 1. Lanes from `lanes` to
 *          ld - 1 get what their own counters give
 * streams  0, or the address of u32 replica numbers, one per lane up to a multiple of 4 lanes, in place of c2 + l inc2
 * error    at most 3.5 ulp in f64 against the formula (3.0 measured on 200000 values); in f32 the f64 value rounded once;
 *          |value| <= sqrt(104 ln 2) = 8.4905
 * cost     5.5 ns per f64 or f32 on Node 20, Zen 4, where registers are full: ld = 1, 4 and from 8
 */
export function normalLanes(
  dst: usize, elements: i32, lanes: i32, ld: i32,
  c0: u32, c1: u32, c2: u32, c3: u32, inc0: u32, inc2: u32,
  key0: u32, key1: u32, streams: usize,
): void {
  fill(NORMAL, dst, elements, ld, 0, c0, c1, c2, c3, inc0, inc2, key0, key1, streams);
}

/**
 * Uniforms in [0, 1): entry e of a lane is floor(x / 2^12) / 2^52 with x = a (even e) or b (odd e) of block e >> 1.
 * Counters, layout and arguments as in normalLanes. f32 is that number rounded, and at most 1 - 2^-24.
 */
export function uniformLanes(
  dst: usize, elements: i32, lanes: i32, ld: i32,
  c0: u32, c1: u32, c2: u32, c3: u32, inc0: u32, inc2: u32,
  key0: u32, key1: u32, streams: usize,
): void {
  fill(UNIFORM, dst, elements, ld, 0, c0, c1, c2, c3, inc0, inc2, key0, key1, streams);
}

/**
 * Signs: entry e of a lane is -1 if the top bit of word e & 3 of block e >> 2 is set, else 1.
 * Counters (c0 + l inc0 + (e >> 2), c1, c2 + l inc2, c3); layout and arguments as in normalLanes.
 */
export function signLanes(
  dst: usize, elements: i32, lanes: i32, ld: i32,
  c0: u32, c1: u32, c2: u32, c3: u32, inc0: u32, inc2: u32,
  key0: u32, key1: u32, streams: usize,
): void {
  fill(SIGN, dst, elements, ld, 0, c0, c1, c2, c3, inc0, inc2, key0, key1, streams);
}

/**
 * Integers in [0, below) as values of `real`: floor(word below / 2^32), word e & 3 of block e >> 2.
 *
 * Each integer has floor or ceil of 2^32 / below words, so its probability is off by a factor within
 * 1 +- below / 2^32. In f32 integers above 2^24 are rounded.
 * Counters, layout and other arguments as in signLanes.
 */
export function indexLanes(
  dst: usize, elements: i32, lanes: i32, ld: i32, below: u32,
  c0: u32, c1: u32, c2: u32, c3: u32, inc0: u32, inc2: u32,
  key0: u32, key1: u32, streams: usize,
): void {
  fill(INDEX, dst, elements, ld, below, c0, c1, c2, c3, inc0, inc2, key0, key1, streams);
}

// --- index draws -------------------------------------------------------------------------------------------

/** scale * floor(word below / 2^32) of plane w at `words`. */
// @ts-ignore: decorator
@inline
function scaledIndex(words: usize, w: usize, below: v128, scale: v128): v128 {
  return i32x4.mul(multiplyHigh(v128.load(words + WORD_STRIDE * w), below), scale);
}

/** Counters lo + (0, 1, 2, 3) of a 64-bit block index, low words; the high words follow by carry. */
// @ts-ignore: decorator
@inline
function carry(low: v128, lo: u32, hi: u32): v128 {
  // lt gives -1 where the low word wrapped
  return i32x4.sub(i32x4.splat(hi), i32x4.lt_u(low, i32x4.splat(lo)));
}

/** One lane: registers over blocks. The draws of the lane are 4 `lanes` bytes apart. */
// @ts-ignore: decorator
@inline
function drawAlongBlocks(
  dst: usize, blocks: i32, lo: u32, hi: u32, lanes: i32,
  below: v128, scale: v128, replica: v128, purpose: v128,
  key0: u32, key1: u32,
): void {
  const rowBytes = (lanes as usize) << 2;
  for (let b = 0; b < blocks; ) {
    const isWide = b + 4 < blocks;
    const low = i32x4.add(i32x4.splat(lo), v128.load(IOTA));
    if (isWide) {
      const next = i32x4.add(low, i32x4.splat(4));
      philox8(
        WORDS, WORD_STRIDE, low, next, carry(low, lo, hi), carry(next, lo, hi),
        replica, replica, purpose, key0, key1,
      );
    } else {
      philox4(WORDS, WORD_STRIDE, low, carry(low, lo, hi), replica, purpose, key0, key1);
    }
    lo += 8; // not wide means last
    hi += (lo < 8) as u32;
    for (let words = WORDS; ; words += 16) {
      const isWhole = b + 4 <= blocks;
      const out = isWhole && lanes == 1 ? dst : TAIL;
      transpose(
        out,
        scaledIndex(words, 0, below, scale),
        scaledIndex(words, 1, below, scale),
        scaledIndex(words, 2, below, scale),
        scaledIndex(words, 3, below, scale),
      );
      if (out == TAIL) {
        const draws = min(4, blocks - b) << 2;
        for (let j = 0; j < draws; ++j) {
          store<u32>(dst + (j as usize) * rowBytes, load<u32>(TAIL + ((j as usize) << 2)));
        }
      }
      dst += 16 * rowBytes;
      b += 4;
      if (!isWide || words != WORDS) break;
    }
  }
}

/** Four lanes of one block, from `words` to dst, rows `rowBytes` apart. */
// @ts-ignore: decorator
@inline
function storeDraws(dst: usize, rowBytes: usize, words: usize, below: v128, scale: v128): void {
  v128.store(dst, scaledIndex(words, 0, below, scale));
  v128.store(dst + rowBytes, scaledIndex(words, 1, below, scale));
  v128.store(dst + 2 * rowBytes, scaledIndex(words, 2, below, scale));
  v128.store(dst + 3 * rowBytes, scaledIndex(words, 3, below, scale));
}

/** Four lanes or more: registers over lanes. The last four lanes overlap the ones before; equal counters, equal bits. */
// @ts-ignore: decorator
@inline
function drawAlongLanes(
  dst: usize, blocks: i32, lo: u32, hi: u32, lanes: i32,
  below: v128, scale: v128, replica: u32, purpose: v128,
  key0: u32, key1: u32, streams: usize,
): void {
  const rowBytes = (lanes as usize) << 2;
  const four = i32x4.splat(4);
  for (let b = 0; b < blocks; ++b) {
    const c0 = i32x4.splat(lo);
    const c1 = i32x4.splat(hi);
    for (let l = 0; l < lanes; ) {
      if (l + 8 <= lanes) {
        const at = (l as usize) << 2;
        const r = streams ? v128.load(streams + at) : ramp(replica + (l as u32), 1);
        const next = streams ? v128.load(streams + at, 16) : i32x4.add(r, four);
        philox8(WORDS, WORD_STRIDE, c0, c0, c1, c1, r, next, purpose, key0, key1);
        const out = dst + at;
        storeDraws(out, rowBytes, WORDS, below, scale);
        storeDraws(out + 16, rowBytes, WORDS + 16, below, scale);
        l += 8;
      } else {
        const from = min(l, lanes - 4);
        const at = (from as usize) << 2;
        const r = streams ? v128.load(streams + at) : ramp(replica + (from as u32), 1);
        philox4(WORDS, WORD_STRIDE, c0, c1, r, purpose, key0, key1);
        storeDraws(dst + at, rowBytes, WORDS, below, scale);
        l = from + 4;
      }
    }
    lo += 1;
    hi += (lo == 0) as u32;
    dst += 4 * rowBytes;
  }
}

/**
 * Index draws with replacement: draw i of replica r is scale * floor(word below / 2^32), where word is i & 3 of
 * block (low32(i >> 2), high32(i >> 2), r, purpose). Relative bias at most below / 2^32 (see indexLanes).
 *
 * dst      u32: draw first + j of replica `replica + lane` at dst + 4 (j lanes + lane); nothing else is written
 * count    draws per lane, a multiple of 4
 * first    = first_lo | first_hi << 32, a multiple of 4
 * lanes    any number >= 1; registers run over blocks up to 3 lanes, over lanes from 4
 * scale    turns an index into a byte offset, for instance; the product wraps at 2^32
 * streams  0, or the address of u32 replica numbers, one per lane, in place of replica + lane
 * cost     1.4 ns per draw on Node 20, Zen 4, with 32 draws or more of one lane, or 8 lanes or more (1.9 at 4 lanes);
 *          a call for 4 draws of one lane costs 36 ns
 */
export function drawIndices(
  dst: usize, count: i32, first_lo: u32, first_hi: u32, lanes: i32,
  below: u32, scale: u32, replica: u32, purpose: u32,
  key0: u32, key1: u32, streams: usize,
): void {
  const lo = (first_lo >> 2) | (first_hi << 30);
  const hi = first_hi >> 2;
  const blocks = count >> 2;
  const belows = i32x4.splat(below);
  const scales = i32x4.splat(scale);
  const purposes = i32x4.splat(purpose);
  if (lanes >= 4) {
    drawAlongLanes(dst, blocks, lo, hi, lanes, belows, scales, replica, purposes, key0, key1, streams);
    return;
  }
  for (let lane = 0; lane < lanes; ++lane) {
    const number = streams ? load<u32>(streams + ((lane as usize) << 2)) : replica + (lane as u32);
    const replicas = i32x4.splat(number);
    drawAlongBlocks(
      dst + ((lane as usize) << 2), blocks, lo, hi, lanes, belows, scales, replicas, purposes, key0, key1,
    );
  }
}

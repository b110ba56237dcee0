/**
 * Pairs of elementwise ops in one pass: dst = (a op1 b) op2 c, over n values that lie alike. The
 * roundings are those of the two ops one after the other, so fusing changes no bit; it saves one
 * store and one load per value and one dispatch. Buffers are padded to whole registers, dst may be
 * an operand.
 *
 * Names: `mulSub` is a * b - c, `mulFrom` is c - a * b, `scaleAdd` is imm * a + c, `addScale` is
 * imm * (a + b).
 */
import { bytes, splatAt } from "./lanes";

const ADD: i32 = 0;
const SUB: i32 = 1;
const MUL: i32 = 2;
/** First op: a * imm. Second op: c - x for FROM, x * imm for SCALE. */
const SCALE: i32 = 3;
const FROM: i32 = 4;

// @ts-ignore: decorator
@inline
function first(op: i32, a: usize, b: usize, at: usize, imm: v128): v128 {
  const x = v128.load(a + at);
  if (op == SCALE) return v128.mul<real>(x, imm);
  const y = v128.load(b + at);
  if (op == ADD) return v128.add<real>(x, y);
  if (op == SUB) return v128.sub<real>(x, y);
  return v128.mul<real>(x, y);
}

// @ts-ignore: decorator
@inline
function second(op: i32, x: v128, c: usize, at: usize, imm: v128): v128 {
  if (op == SCALE) return v128.mul<real>(x, imm);
  const z = v128.load(c + at);
  if (op == ADD) return v128.add<real>(x, z);
  if (op == SUB) return v128.sub<real>(x, z);
  if (op == FROM) return v128.sub<real>(z, x);
  return v128.mul<real>(x, z);
}

// @ts-ignore: decorator
@inline
function pair(op1: i32, op2: i32, dst: usize, a: usize, b: usize, c: usize, n: i32, imm: f64): void {
  const k = v128.splat<real>(<real>imm);
  const size = bytes(n);
  let at: usize = 0;
  for (; at + 48 < size; at += 64) {
    const r0 = second(op2, first(op1, a, b, at, k), c, at, k);
    const r1 = second(op2, first(op1, a, b, at + 16, k), c, at + 16, k);
    const r2 = second(op2, first(op1, a, b, at + 32, k), c, at + 32, k);
    const r3 = second(op2, first(op1, a, b, at + 48, k), c, at + 48, k);
    v128.store(dst + at, r0);
    v128.store(dst + at, r1, 16);
    v128.store(dst + at, r2, 32);
    v128.store(dst + at, r3, 48);
  }
  for (; at < size; at += 16) v128.store(dst + at, second(op2, first(op1, a, b, at, k), c, at, k));
}

export function addAdd(dst: usize, a: usize, b: usize, c: usize, n: i32, imm: f64): void {
  pair(ADD, ADD, dst, a, b, c, n, imm);
}
export function addSub(dst: usize, a: usize, b: usize, c: usize, n: i32, imm: f64): void {
  pair(ADD, SUB, dst, a, b, c, n, imm);
}
export function addMul(dst: usize, a: usize, b: usize, c: usize, n: i32, imm: f64): void {
  pair(ADD, MUL, dst, a, b, c, n, imm);
}
export function addFrom(dst: usize, a: usize, b: usize, c: usize, n: i32, imm: f64): void {
  pair(ADD, FROM, dst, a, b, c, n, imm);
}
export function addScale(dst: usize, a: usize, b: usize, c: usize, n: i32, imm: f64): void {
  pair(ADD, SCALE, dst, a, b, c, n, imm);
}
export function subAdd(dst: usize, a: usize, b: usize, c: usize, n: i32, imm: f64): void {
  pair(SUB, ADD, dst, a, b, c, n, imm);
}
export function subSub(dst: usize, a: usize, b: usize, c: usize, n: i32, imm: f64): void {
  pair(SUB, SUB, dst, a, b, c, n, imm);
}
export function subMul(dst: usize, a: usize, b: usize, c: usize, n: i32, imm: f64): void {
  pair(SUB, MUL, dst, a, b, c, n, imm);
}
export function subFrom(dst: usize, a: usize, b: usize, c: usize, n: i32, imm: f64): void {
  pair(SUB, FROM, dst, a, b, c, n, imm);
}
export function subScale(dst: usize, a: usize, b: usize, c: usize, n: i32, imm: f64): void {
  pair(SUB, SCALE, dst, a, b, c, n, imm);
}
export function mulAdd(dst: usize, a: usize, b: usize, c: usize, n: i32, imm: f64): void {
  pair(MUL, ADD, dst, a, b, c, n, imm);
}
export function mulSub(dst: usize, a: usize, b: usize, c: usize, n: i32, imm: f64): void {
  pair(MUL, SUB, dst, a, b, c, n, imm);
}
export function mulMul(dst: usize, a: usize, b: usize, c: usize, n: i32, imm: f64): void {
  pair(MUL, MUL, dst, a, b, c, n, imm);
}
export function mulFrom(dst: usize, a: usize, b: usize, c: usize, n: i32, imm: f64): void {
  pair(MUL, FROM, dst, a, b, c, n, imm);
}
export function mulScale(dst: usize, a: usize, b: usize, c: usize, n: i32, imm: f64): void {
  pair(MUL, SCALE, dst, a, b, c, n, imm);
}
export function scaleAdd(dst: usize, a: usize, b: usize, c: usize, n: i32, imm: f64): void {
  pair(SCALE, ADD, dst, a, b, c, n, imm);
}
export function scaleSub(dst: usize, a: usize, b: usize, c: usize, n: i32, imm: f64): void {
  pair(SCALE, SUB, dst, a, b, c, n, imm);
}
export function scaleMul(dst: usize, a: usize, b: usize, c: usize, n: i32, imm: f64): void {
  pair(SCALE, MUL, dst, a, b, c, n, imm);
}
export function scaleFrom(dst: usize, a: usize, b: usize, c: usize, n: i32, imm: f64): void {
  pair(SCALE, FROM, dst, a, b, c, n, imm);
}

/**
 * One step of a parameter block whose gradient is an elementwise op of values that lie like it, one eta
 * for all: theta -= eta * (a op b), n values and not one more (what lies behind theta must stay finite).
 */
// @ts-ignore: decorator
@inline
function step(op: i32, theta: usize, a: usize, b: usize, eta: usize, n: i32): void {
  const rate = splatAt(eta);
  const whole = bytes(n) & ~15;
  let at: usize = 0;
  for (; at < whole; at += 16) {
    const g = first(op, a, b, at, rate);
    v128.store(theta + at, v128.sub<real>(v128.load(theta + at), v128.mul<real>(rate, g)));
  }
  for (const end = bytes(n); at < end; at += sizeof<real>()) {
    const x = load<real>(a + at);
    const y = load<real>(b + at);
    const g: real = op == ADD ? x + y : op == SUB ? x - y : x * y;
    store<real>(theta + at, load<real>(theta + at) - load<real>(eta) * g);
  }
}

export function updateAdd(theta: usize, a: usize, b: usize, eta: usize, n: i32): void {
  step(ADD, theta, a, b, eta, n);
}
export function updateSub(theta: usize, a: usize, b: usize, eta: usize, n: i32): void {
  step(SUB, theta, a, b, eta, n);
}
export function updateMul(theta: usize, a: usize, b: usize, eta: usize, n: i32): void {
  step(MUL, theta, a, b, eta, n);
}

/**
 * Elementwise kernels. A uniform value is [elements] packed; a laned value is [elements][ld], ld a
 * multiple of LANES. Flat kernels run over n consecutive values; every buffer is padded to whole
 * vectors, so up to LANES - 1 values past n are read and written too. dst may be an operand.
 * All results are correctly rounded (IEEE), NaN in gives NaN out.
 */
import { LANES, bytes, splatAt, stepped } from "./lanes";

const ADD: i32 = 0;
const SUB: i32 = 1;
const MUL: i32 = 2;
const DIV: i32 = 3;

// @ts-ignore: decorator
@inline
function binary(op: i32, a: v128, b: v128): v128 {
  if (op == ADD) return v128.add<real>(a, b);
  if (op == SUB) return v128.sub<real>(a, b);
  if (op == MUL) return v128.mul<real>(a, b);
  return v128.div<real>(a, b);
}

// @ts-ignore: decorator
@inline
function binaryScalar(op: i32, a: real, b: real): real {
  if (op == ADD) return a + b;
  if (op == SUB) return a - b;
  if (op == MUL) return a * b;
  return a / b;
}

// @ts-ignore: decorator
@inline
function flatBinary(op: i32, dst: usize, a: usize, b: usize, n: i32): void {
  const end = dst + bytes(n);
  while (dst + 48 < end) {
    const r0 = binary(op, v128.load(a), v128.load(b));
    const r1 = binary(op, v128.load(a, 16), v128.load(b, 16));
    const r2 = binary(op, v128.load(a, 32), v128.load(b, 32));
    const r3 = binary(op, v128.load(a, 48), v128.load(b, 48));
    v128.store(dst, r0);
    v128.store(dst, r1, 16);
    v128.store(dst, r2, 32);
    v128.store(dst, r3, 48);
    dst += 64;
    a += 64;
    b += 64;
  }
  while (dst < end) {
    v128.store(dst, binary(op, v128.load(a), v128.load(b)));
    dst += 16;
    a += 16;
    b += 16;
  }
}

/**
 * Rows of a uniform result, each operand running along the row (column stride 1) or one value for it
 * (column stride 0). The end of a row is done value by value: the next row follows at once.
 */
// @ts-ignore: decorator
@inline
function uniformRows(
  op: i32,
  dst: usize,
  a: usize,
  b: usize,
  rows: i32,
  cols: i32,
  ars: i32,
  acs: i32,
  brs: i32,
  bcs: i32,
): void {
  if (acs) {
    if (bcs) uniformRowsOf(op, true, true, dst, a, b, rows, cols, bytes(ars), bytes(brs));
    else uniformRowsOf(op, true, false, dst, a, b, rows, cols, bytes(ars), bytes(brs));
  } else if (bcs) {
    uniformRowsOf(op, false, true, dst, a, b, rows, cols, bytes(ars), bytes(brs));
  } else {
    uniformRowsOf(op, false, false, dst, a, b, rows, cols, bytes(ars), bytes(brs));
  }
}

/** runA, runB: whether the operand runs along the row; known when this is compiled. */
// @ts-ignore: decorator
@inline
function uniformRowsOf(
  op: i32,
  runA: bool,
  runB: bool,
  dst: usize,
  a: usize,
  b: usize,
  rows: i32,
  cols: i32,
  stepA: usize,
  stepB: usize,
): void {
  const wide = bytes(cols) & ~15;
  for (; rows > 0; --rows) {
    const x = splatAt(a);
    const y = splatAt(b);
    let q: usize = 0;
    for (; q < wide; q += 16) {
      v128.store(dst + q, binary(op, runA ? v128.load(a + q) : x, runB ? v128.load(b + q) : y));
    }
    for (const end = bytes(cols); q < end; q += sizeof<real>()) {
      store<real>(dst + q, binaryScalar(op, load<real>(runA ? a + q : a), load<real>(runB ? b + q : b)));
    }
    dst += bytes(cols);
    a += stepA;
    b += stepB;
  }
}

/**
 * dst[i, j, lane] = a[i ars + j acs, lane] op b[i brs + j bcs, lane]: numpy broadcasting of two
 * values of rank at most 2 as element strides. An operand that is not laned has one value per
 * element, taken for all lanes. ld == 1 is the uniform case.
 */
// @ts-ignore: decorator
@inline
function broadcastBinary(
  op: i32,
  dst: usize,
  a: usize,
  b: usize,
  rows: i32,
  cols: i32,
  ars: i32,
  acs: i32,
  brs: i32,
  bcs: i32,
  ld: i32,
  lanedA: i32,
  lanedB: i32,
): void {
  if (ld == 1 && acs <= 1 && bcs <= 1) {
    uniformRows(op, dst, a, b, rows, cols, ars, acs, brs, bcs);
    return;
  }
  const stepA = bytes(lanedA ? ld : 1);
  const stepB = bytes(lanedB ? ld : 1);
  const row = bytes(ld);
  for (let i = 0; i < rows; i++) {
    let pa = a + ((i * ars) as usize) * stepA;
    let pb = b + ((i * brs) as usize) * stepB;
    for (let j = 0; j < cols; j++) {
      if (ld == 1) {
        store<real>(dst, binaryScalar(op, load<real>(pa), load<real>(pb)));
      } else if (lanedA) {
        if (lanedB) {
          for (let q: usize = 0; q < row; q += 16) v128.store(dst + q, binary(op, v128.load(pa + q), v128.load(pb + q)));
        } else {
          const y = splatAt(pb);
          for (let q: usize = 0; q < row; q += 16) v128.store(dst + q, binary(op, v128.load(pa + q), y));
        }
      } else {
        const x = splatAt(pa);
        if (lanedB) {
          for (let q: usize = 0; q < row; q += 16) v128.store(dst + q, binary(op, x, v128.load(pb + q)));
        } else {
          const y = splatAt(pb);
          for (let q: usize = 0; q < row; q += 16) v128.store(dst + q, binary(op, x, y));
        }
      }
      dst += row;
      pa += (acs as usize) * stepA;
      pb += (bcs as usize) * stepB;
    }
  }
}

/** dst = a + b over n values. */
export function add(dst: usize, a: usize, b: usize, n: i32): void {
  flatBinary(ADD, dst, a, b, n);
}
export function sub(dst: usize, a: usize, b: usize, n: i32): void {
  flatBinary(SUB, dst, a, b, n);
}
export function mul(dst: usize, a: usize, b: usize, n: i32): void {
  flatBinary(MUL, dst, a, b, n);
}
export function div(dst: usize, a: usize, b: usize, n: i32): void {
  flatBinary(DIV, dst, a, b, n);
}

export function addBroadcast(dst: usize, a: usize, b: usize, rows: i32, cols: i32, ars: i32, acs: i32, brs: i32, bcs: i32, ld: i32, lanedA: i32, lanedB: i32): void {
  broadcastBinary(ADD, dst, a, b, rows, cols, ars, acs, brs, bcs, ld, lanedA, lanedB);
}
export function subBroadcast(dst: usize, a: usize, b: usize, rows: i32, cols: i32, ars: i32, acs: i32, brs: i32, bcs: i32, ld: i32, lanedA: i32, lanedB: i32): void {
  broadcastBinary(SUB, dst, a, b, rows, cols, ars, acs, brs, bcs, ld, lanedA, lanedB);
}
export function mulBroadcast(dst: usize, a: usize, b: usize, rows: i32, cols: i32, ars: i32, acs: i32, brs: i32, bcs: i32, ld: i32, lanedA: i32, lanedB: i32): void {
  broadcastBinary(MUL, dst, a, b, rows, cols, ars, acs, brs, bcs, ld, lanedA, lanedB);
}
export function divBroadcast(dst: usize, a: usize, b: usize, rows: i32, cols: i32, ars: i32, acs: i32, brs: i32, bcs: i32, ld: i32, lanedA: i32, lanedB: i32): void {
  broadcastBinary(DIV, dst, a, b, rows, cols, ars, acs, brs, bcs, ld, lanedA, lanedB);
}

/** dst[i, j, lane] = a[i ars + j acs, lane]: a strided copy, for transposes and broadcasts. ld == 1 is uniform. */
export function copyStrided(dst: usize, a: usize, rows: i32, cols: i32, ars: i32, acs: i32, ld: i32): void {
  if (ld == 1 && acs <= 1) {
    for (let i = 0; i < rows; i++) {
      let from = a + bytes(i * ars);
      const x = splatAt(from);
      let j = cols;
      for (; j >= LANES; j -= LANES) {
        v128.store(dst, acs ? v128.load(from) : x);
        dst += 16;
        from += 16;
      }
      if (!acs) from = a + bytes(i * ars);
      for (; j > 0; j--) {
        store<real>(dst, load<real>(from));
        dst += sizeof<real>();
        if (acs) from += sizeof<real>();
      }
    }
    return;
  }
  const row = bytes(ld);
  for (let i = 0; i < rows; i++) {
    let pa = a + ((i * ars) as usize) * row;
    for (let j = 0; j < cols; j++) {
      if (ld == 1) store<real>(dst, load<real>(pa));
      else for (let q: usize = 0; q < row; q += 16) v128.store(dst + q, v128.load(pa + q));
      dst += row;
      pa += (acs as usize) * row;
    }
  }
}

/** dst[e, lane] = a[e]: a uniform value for every lane. */
export function spreadLanes(dst: usize, a: usize, elements: i32, ld: i32): void {
  const row = bytes(ld);
  for (let e = 0; e < elements; e++) {
    const x = splatAt(a);
    for (let q: usize = 0; q < row; q += 16) v128.store(dst + q, x);
    dst += row;
    a += sizeof<real>();
  }
}

/** dst = imm over n values. */
export function fill(dst: usize, n: i32, imm: f64): void {
  const x = v128.splat<real>(<real>imm);
  for (const end = dst + bytes(n); dst < end; dst += 16) v128.store(dst, x);
}

/** dst = imm * a. */
export function scale(dst: usize, a: usize, n: i32, imm: f64): void {
  const c = v128.splat<real>(<real>imm);
  const end = dst + bytes(n);
  while (dst < end) {
    v128.store(dst, v128.mul<real>(v128.load(a), c));
    dst += 16;
    a += 16;
  }
}

// @ts-ignore: decorator
@inline
function withNumber(op: i32, dst: usize, a: usize, n: i32, imm: f64): void {
  const c = v128.splat<real>(<real>imm);
  const end = dst + bytes(n);
  while (dst < end) {
    const x = v128.load(a);
    v128.store(dst, op == ADD ? v128.add<real>(x, c) : op == SUB ? v128.sub<real>(c, x) : v128.div<real>(c, x));
    dst += 16;
    a += 16;
  }
}

/** dst = a + imm. */
export function addNumber(dst: usize, a: usize, n: i32, imm: f64): void {
  withNumber(ADD, dst, a, n, imm);
}
/** dst = imm - a. */
export function numberSub(dst: usize, a: usize, n: i32, imm: f64): void {
  withNumber(SUB, dst, a, n, imm);
}
/** dst = imm / a. */
export function numberDiv(dst: usize, a: usize, n: i32, imm: f64): void {
  withNumber(DIV, dst, a, n, imm);
}

const SQUARE: i32 = 0;
const SQRT: i32 = 1;
const RELU: i32 = 2;
const ABS: i32 = 3;
const STEP: i32 = 4;
const SIGN: i32 = 5;

// @ts-ignore: decorator
@inline
function unary(op: i32, x: v128): v128 {
  if (op == SQUARE) return v128.mul<real>(x, x);
  if (op == SQRT) return v128.sqrt<real>(x);
  const zero = v128.splat<real>(0);
  if (op == RELU) return v128.pmax<real>(x, zero); // x < 0 ? 0 : x, so NaN stays (and max is slow)
  if (op == ABS) return v128.abs<real>(x);
  const one = v128.splat<real>(1);
  const up = v128.and(v128.gt<real>(x, zero), one);
  const y = op == STEP ? up : v128.sub<real>(up, v128.and(v128.lt<real>(x, zero), one));
  return v128.bitselect(x, y, v128.ne<real>(x, x)); // keep NaN
}

// @ts-ignore: decorator
@inline
function flatUnary(op: i32, dst: usize, a: usize, n: i32): void {
  const end = dst + bytes(n);
  while (dst < end) {
    v128.store(dst, unary(op, v128.load(a)));
    dst += 16;
    a += 16;
  }
}

export function square(dst: usize, a: usize, n: i32): void {
  flatUnary(SQUARE, dst, a, n);
}
export function sqrt(dst: usize, a: usize, n: i32): void {
  flatUnary(SQRT, dst, a, n);
}
/** max(x, 0). */
export function relu(dst: usize, a: usize, n: i32): void {
  flatUnary(RELU, dst, a, n);
}
/** x where x > 0, else imm * x (NaN gives NaN). */
export function leakyRelu(dst: usize, a: usize, n: i32, imm: f64): void {
  const c = v128.splat<real>(<real>imm);
  const zero = v128.splat<real>(0);
  for (const end = dst + bytes(n); dst < end; dst += 16) {
    const x = v128.load(a);
    v128.store(dst, v128.bitselect(x, v128.mul<real>(x, c), v128.gt<real>(x, zero)));
    a += 16;
  }
}
export function abs(dst: usize, a: usize, n: i32): void {
  flatUnary(ABS, dst, a, n);
}
/** 1 where x > 0, else 0. */
export function step(dst: usize, a: usize, n: i32): void {
  flatUnary(STEP, dst, a, n);
}
export function sign(dst: usize, a: usize, n: i32): void {
  flatUnary(SIGN, dst, a, n);
}

/**
 * One step of a parameter block: theta = decay * theta - eta * g, three roundings per entry.
 *
 * laned: theta, g are [elements][ld], eta and decay [ld] (one value per replica); else all uniform.
 */
export function update(theta: usize, g: usize, eta: usize, decay: usize, elements: i32, ld: i32): void {
  if (ld == 1) {
    const rate = splatAt(eta);
    const keep = splatAt(decay);
    for (let vectors = elements / LANES; vectors > 0; vectors--) {
      v128.store(theta, stepped(keep, v128.load(theta), rate, v128.load(g)));
      theta += 16;
      g += 16;
    }
    // what lies behind theta is not a parameter and must stay finite: no whole vector at the end
    for (let rest = elements % LANES; rest > 0; rest--) {
      store<real>(theta, load<real>(decay) * load<real>(theta) - load<real>(eta) * load<real>(g));
      theta += sizeof<real>();
      g += sizeof<real>();
    }
    return;
  }
  const row = bytes(ld);
  for (let e = 0; e < elements; e++) {
    for (let q: usize = 0; q < row; q += 16) {
      v128.store(theta + q, stepped(v128.load(decay + q), v128.load(theta + q), v128.load(eta + q), v128.load(g + q)));
    }
    theta += row;
    g += row;
  }
}

/** As `update` on n laned values with one eta and one decay for all replicas. */
export function updateAlike(theta: usize, g: usize, eta: usize, decay: usize, n: i32): void {
  const rate = splatAt(eta);
  const keep = splatAt(decay);
  const end = theta + bytes(n);
  while (theta + 16 < end) {
    const t0 = stepped(keep, v128.load(theta), rate, v128.load(g));
    const t1 = stepped(keep, v128.load(theta, 16), rate, v128.load(g, 16));
    v128.store(theta, t0);
    v128.store(theta, t1, 16);
    theta += 32;
    g += 32;
  }
  if (theta < end) v128.store(theta, stepped(keep, v128.load(theta), rate, v128.load(g)));
}

/** theta = decay * theta on a block (laned: one decay per replica): weight decay before a fused step. */
export function decayBlock(theta: usize, decay: usize, elements: i32, ld: i32): void {
  if (ld == 1) {
    for (let e = 0; e < elements; e++) {
      const at = theta + bytes(e);
      store<real>(at, load<real>(decay) * load<real>(at));
    }
    return;
  }
  const row = bytes(ld);
  for (let e = 0; e < elements; e++) {
    for (let q: usize = 0; q < row; q += 16) {
      v128.store(theta + q, v128.mul<real>(v128.load(decay + q), v128.load(theta + q)));
    }
    theta += row;
  }
}

/** Running sum in f64 of the work of the steps: dst[lane] += eta^2 q[lane], q = (1/2) g^T A g. */
export function addWork(dst: usize, q: usize, eta: usize, lanes: i32): void {
  for (let l = 0; l < lanes; l++) {
    const rate = <f64>load<real>(eta + bytes(l));
    const at = dst + ((l as usize) << 3);
    store<f64>(at, load<f64>(at) + rate * rate * <f64>load<real>(q + bytes(l)));
  }
}

/** 1 when all n values are finite, else 0. */
export function allFinite(a: usize, n: i32): i32 {
  let bad: real = 0;
  for (let i = 0; i < n; i++) bad += load<real>(a + bytes(i)) * 0;
  return bad == 0 ? 1 : 0;
}

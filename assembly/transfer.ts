/** What moves values between the stores of a run (data, draws, trace) and the lanes of a block. */
import { bytes, LANES, splatAt, transpose4 } from "./lanes";
import { indexLanes, normalLanes, signLanes, uniformLanes } from "./random";
import { drawAddr, key0, key1, purpose, replica, sampleBase, step, streams, traceAddr } from "./registers";

/**
 * The same entries of every sample's record as they lie: dst[l * dim + e], l < lanes. A row may write a
 * register into the next one, which is written after it.
 */
export function gatherRows(dst: usize, data: usize, offset: i32, dim: i32, lanes: i32): void {
  const base = data + bytes(offset);
  const row = bytes(dim);
  for (let draw = drawAddr, end = draw + ((lanes as usize) << 2); draw < end; draw += 4) {
    const src = base + (load<u32>(draw) as usize);
    let q: usize = 0;
    for (; q + 48 < row; q += 64) {
      v128.store(dst + q, v128.load(src + q));
      v128.store(dst + q, v128.load(src + q, 16), 16);
      v128.store(dst + q, v128.load(src + q, 32), 32);
      v128.store(dst + q, v128.load(src + q, 48), 48);
    }
    for (; q < row; q += 16) v128.store(dst + q, v128.load(src + q));
    dst += row;
  }
}

/**
 * The inputs of the block's samples: dst[e][lane] = record(lane)[offset + e].
 *
 * The record of a lane starts at data + drawn byte offset; with `shared` all lanes (replicas) see
 * the record of the first draw. Pad lanes repeat the last lane, so they stay finite. ld == 1 copies
 * one record as it lies.
 */
export function gather(dst: usize, data: usize, offset: i32, dim: i32, lanes: i32, ld: i32, shared: i32): void {
  const base = data + bytes(offset);
  if (ld == 1) {
    const src = base + (load<u32>(drawAddr) as usize);
    const size = bytes(dim);
    for (let q: usize = 0; q < size; q += 16) v128.store(dst + q, v128.load(src + q));
    return;
  }
  const row = bytes(ld);
  if (shared) {
    let src = base + (load<u32>(drawAddr) as usize);
    for (let e = 0; e < dim; e++) {
      const x = splatAt(src);
      for (let q: usize = 0; q < row; q += 16) v128.store(dst + q, x);
      src += sizeof<real>();
      dst += row;
    }
    return;
  }
  let l = 0;
  let draw = drawAddr;
  if (sizeof<real>() == 8 && dim == 2) {
    // records of two values (x, y of a tiny model): one load a sample, four samples a turn
    const next = dst + row;
    for (; l + 4 <= lanes; l += 4) {
      const u = v128.load(base + (load<u32>(draw) as usize));
      const v = v128.load(base + (load<u32>(draw, 4) as usize));
      const s = v128.load(base + (load<u32>(draw, 8) as usize));
      const t = v128.load(base + (load<u32>(draw, 12) as usize));
      draw += 16;
      const at = bytes(l);
      v128.store(dst + at, v128.shuffle<i64>(u, v, 0, 2));
      v128.store(dst + at, v128.shuffle<i64>(s, t, 0, 2), 16);
      v128.store(next + at, v128.shuffle<i64>(u, v, 1, 3));
      v128.store(next + at, v128.shuffle<i64>(s, t, 1, 3), 16);
    }
  }
  // four samples at a time, a register of entries of each: their records are read side by side, which hides the way to memory
  for (; l + 4 <= lanes; l += 4) {
    let a = base + (load<u32>(draw) as usize);
    let b = base + (load<u32>(draw, 4) as usize);
    let c = base + (load<u32>(draw, 8) as usize);
    let d = base + (load<u32>(draw, 12) as usize);
    draw += 16;
    let out = dst + bytes(l);
    let e = dim;
    for (; e >= LANES; e -= LANES) {
      out = transpose4(out, row, v128.load(a), v128.load(b), v128.load(c), v128.load(d));
      a += 16;
      b += 16;
      c += 16;
      d += 16;
    }
    for (; e > 0; e--) {
      store<real>(out, load<real>(a));
      store<real>(out, load<real>(b), sizeof<real>());
      store<real>(out, load<real>(c), 2 * sizeof<real>());
      store<real>(out, load<real>(d), 3 * sizeof<real>());
      out += row;
      a += sizeof<real>();
      b += sizeof<real>();
      c += sizeof<real>();
      d += sizeof<real>();
    }
  }
  for (; l < ld; l++) {
    const lane = l < lanes ? l : lanes - 1;
    let src = base + (load<u32>(drawAddr + ((lane as usize) << 2)) as usize);
    let out = dst + bytes(l);
    for (let e = 0; e < dim; e++) {
      store<real>(out, load<real>(src));
      src += sizeof<real>();
      out += row;
    }
  }
}

/**
 * A random leaf of fresh samples: kind 0 normal, 1 uniform, 2 sign, 3 index below `below`.
 * Sample s of the batch takes blocks s * perSample + block and following of this step; lanes are
 * samples, or replicas (`byReplica`) which share the sample number and differ in the replica word.
 */
export function noise(
  dst: usize,
  kind: i32,
  elements: i32,
  lanes: i32,
  ld: i32,
  block: u32,
  perSample: u32,
  below: u32,
  byReplica: i32,
): void {
  const first = sampleBase * perSample + block;
  const inc0: u32 = byReplica ? 0 : perSample;
  const inc2: u32 = byReplica ? 1 : 0;
  if (kind == 0) normalLanes(dst, elements, lanes, ld, first, step, replica, purpose, inc0, inc2, key0, key1, byReplica ? streams : 0);
  else if (kind == 1) uniformLanes(dst, elements, lanes, ld, first, step, replica, purpose, inc0, inc2, key0, key1, byReplica ? streams : 0);
  else if (kind == 2) signLanes(dst, elements, lanes, ld, first, step, replica, purpose, inc0, inc2, key0, key1, byReplica ? streams : 0);
  else indexLanes(dst, elements, lanes, ld, below, first, step, replica, purpose, inc0, inc2, key0, key1, byReplica ? streams : 0);
}

/** dst[(first sample + lane) * stride + offset + e] = a[e][lane]: per-sample results, sample-major. */
export function storeSamples(dst: usize, a: usize, elements: i32, lanes: i32, ld: i32, stride: i32, offset: i32): void {
  for (let l = 0; l < lanes; l++) {
    let out = dst + bytes(((sampleBase + l) as i32) * stride + offset);
    let src = a + bytes(l);
    for (let e = 0; e < elements; e++) {
      store<real>(out, load<real>(src));
      out += sizeof<real>();
      src += bytes(ld);
    }
  }
}

/** Samples per leaf of the summation tree of a full sum over the batch. */
const TREE: u32 = 64;

/**
 * Full sum over the batch of one value per sample, as a fixed two-level tree over the sample
 * index: each run of 64 consecutive samples is added in order from +0, and the sums of the runs
 * are added in order. Error at most (64 + N / 64) u sum |a|. `closeTree` adds the last run.
 *
 * byReplica: one sample of all replicas (ld lanes); else `lanes` samples of one replica.
 */
export function treeSum(dst: usize, partial: usize, a: usize, lanes: i32, ld: i32, byReplica: i32): void {
  if (byReplica) {
    if (sampleBase % TREE == 0) closeTree(dst, partial, ld);
    for (let l = 0; l < ld; l++) {
      const at = partial + bytes(l);
      store<real>(at, load<real>(at) + load<real>(a + bytes(l)));
    }
    return;
  }
  for (let l = 0; l < lanes; l++) {
    if ((sampleBase + l) % TREE == 0) closeTree(dst, partial, 1);
    store<real>(partial, load<real>(partial) + load<real>(a + bytes(l)));
  }
}

/** dst += partial, partial = 0, for n values. */
export function closeTree(dst: usize, partial: usize, n: i32): void {
  for (let i = 0; i < n; i++) {
    const at = dst + bytes(i);
    store<real>(at, load<real>(at) + load<real>(partial + bytes(i)));
    store<real>(partial + bytes(i), 0);
  }
}

/**
 * Writes `lanes` values as f64 into slot `slot` (in f64 values) of the trace record. -0 is written
 * as 0: a sum of a single term is that term, and not +0 plus it.
 */
export function record(a: usize, slot: i32, lanes: i32): void {
  let out = traceAddr + ((slot as usize) << 3);
  for (let l = 0; l < lanes; l++) {
    store<f64>(out, <f64>load<real>(a + bytes(l)) + 0.0);
    out += 8;
  }
}

/** Writes `lanes` values that are f64 already (accumulated work). */
export function recordExact(a: usize, slot: i32, lanes: i32): void {
  memory.copy(traceAddr + ((slot as usize) << 3), a, (lanes as usize) << 3);
}

/** Running sums in f64 for averages over time: dst[lane] += a[lane]. */
export function addToAverage(dst: usize, a: usize, lanes: i32): void {
  for (let l = 0; l < lanes; l++) {
    store<f64>(dst, load<f64>(dst) + <f64>load<real>(a + bytes(l)));
    dst += 8;
  }
}

/** Copies n values. */
export function copy(dst: usize, a: usize, n: i32): void {
  memory.copy(dst, a, bytes(n));
}

/**
 * dst[i*strideD + j] = a[i*strideA + j],  i < rows, j < n: rows of n consecutive values, strides in values.
 *
 * Exactly these values are read and written: what lies between the rows may be live. A row's last register overlaps
 * the one before, so dst and a do not. strideA = 0 repeats one row.
 */
export function copyRows(dst: usize, a: usize, rows: i32, n: i32, strideD: i32, strideA: i32): void {
  const stepD = bytes(strideD);
  const stepA = bytes(strideA);
  if (n < LANES) {
    for (; n > 0; --n) {
      copyColumn(dst, a, rows, stepD, stepA);
      dst += sizeof<real>();
      a += sizeof<real>();
    }
    return;
  }
  const last = bytes(n) - 16;
  for (; rows > 0; --rows) {
    let q: usize = 0;
    for (; q + 48 <= last; q += 64) {
      v128.store(dst + q, v128.load(a + q));
      v128.store(dst + q, v128.load(a + q, 16), 16);
      v128.store(dst + q, v128.load(a + q, 32), 32);
      v128.store(dst + q, v128.load(a + q, 48), 48);
    }
    for (; q < last; q += 16) v128.store(dst + q, v128.load(a + q));
    v128.store(dst + last, v128.load(a + last));
    dst += stepD;
    a += stepA;
  }
}

/** One value of each row; strides in bytes. */
function copyColumn(dst: usize, a: usize, rows: i32, stepD: usize, stepA: usize): void {
  for (; rows > 0; --rows) {
    store<real>(dst, load<real>(a));
    dst += stepD;
    a += stepA;
  }
}

/** What moves values between the stores of a run (data, draws, trace) and the lanes of a block. */
import { bytes } from "./lanes";
import { indexLanes, normalLanes, signLanes, uniformLanes } from "./random";
import { drawAddr, key0, key1, purpose, replica, sampleBase, step, traceAddr } from "./registers";

/**
 * The inputs of the block's samples: dst[e][lane] = record(lane)[offset + e].
 *
 * The record of a lane starts at data + drawn byte offset; with `shared` all lanes (replicas) see
 * the record of the first draw. Pad lanes repeat the last lane, so they stay finite.
 */
export function gather(dst: usize, data: usize, offset: i32, dim: i32, lanes: i32, ld: i32, shared: i32): void {
  const row = bytes(ld);
  const base = data + bytes(offset);
  for (let l = 0; l < ld; l++) {
    const lane = shared ? 0 : l < lanes ? l : lanes - 1;
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
  if (kind == 0) normalLanes(dst, elements, lanes, ld, first, step, replica, purpose, inc0, inc2, key0, key1);
  else if (kind == 1) uniformLanes(dst, elements, lanes, ld, first, step, replica, purpose, inc0, inc2, key0, key1);
  else if (kind == 2) signLanes(dst, elements, lanes, ld, first, step, replica, purpose, inc0, inc2, key0, key1);
  else indexLanes(dst, elements, lanes, ld, below, first, step, replica, purpose, inc0, inc2, key0, key1);
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

/** Writes `lanes` values as f64 into slot `slot` (in f64 values) of the trace record. */
export function record(a: usize, slot: i32, lanes: i32): void {
  let out = traceAddr + ((slot as usize) << 3);
  for (let l = 0; l < lanes; l++) {
    store<f64>(out, <f64>load<real>(a + bytes(l)));
    out += 8;
  }
}

/** Writes `lanes` values that are f64 already (accumulated work). */
export function recordExact(a: usize, slot: i32, lanes: i32): void {
  memory.copy(traceAddr + ((slot as usize) << 3), a, (lanes as usize) << 3);
}

/** Copies n values. */
export function copy(dst: usize, a: usize, n: i32): void {
  memory.copy(dst, a, bytes(n));
}

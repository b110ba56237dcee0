/** Weights of the samples of an update, where they are not all the same. */
import { bytes } from "./lanes";
import { centreRows, rankUpdate } from "./matrix";
import { normalLanes } from "./random";
import { key0, key1, replica, sampleBase, step, streams } from "./registers";

/** Samples per leaf of the tree that adds all xi. */
const TREE: i32 = 64;

/**
 * Weights whose weighted gradient is a step of the SDE with the exact covariance of the gradient noise:
 *
 *   w_n = 1/N + c (xi_n - mean xi),   xi_n standard normal, independent
 *
 * xi_n of a replica is entry n of the normals with counter (n >> 1, update, replica, purpose). The mean is a sum of two
 * levels: runs of 64 from +0, then the runs in order.
 *
 * dst     address of count * ld values, [sample][lane]
 * noise   address of c, one per lane
 * table   0, or the address of given xi: `count` values for every update, the same for all lanes
 * cost    about 6 ns per sample and lane
 */
export function sampleWeights(dst: usize, count: i32, lanes: i32, ld: i32, noise: usize, purpose: u32, table: usize): void {
  const row = bytes(ld);
  if (table) {
    const from = table + (step as usize) * bytes(count);
    for (let n = 0; n < count; n++) {
      for (let l = 0; l < ld; l++) store<real>(dst + (n as usize) * row + bytes(l), load<real>(from + bytes(n)));
    }
  } else {
    normalLanes(dst, count, lanes, ld, 0, step, replica, purpose, 0, 1, key0, key1, streams);
  }
  const equal = (1.0 / (count as f64)) as real;
  if (ld == 1) {
    let sum: real = 0;
    for (let n = 0; n < count; ) {
      let partial: real = 0;
      for (const end = min(n + TREE, count); n < end; n++) partial += load<real>(dst + bytes(n));
      sum += partial;
    }
    const mean: real = sum * equal;
    const c = load<real>(noise);
    for (let n = 0; n < count; n++) store<real>(dst + bytes(n), equal + c * (load<real>(dst + bytes(n)) - mean));
    return;
  }
  const share = v128.splat<real>(equal);
  for (let q: usize = 0; q < row; q += 16) {
    let sum = v128.splat<real>(0);
    for (let n = 0; n < count; ) {
      let partial = v128.splat<real>(0);
      for (const end = min(n + TREE, count); n < end; n++) {
        partial = v128.add<real>(partial, v128.load(dst + (n as usize) * row + q));
      }
      sum = v128.add<real>(sum, partial);
    }
    const mean = v128.mul<real>(sum, share);
    const c = v128.load(noise + q);
    for (let n = 0; n < count; n++) {
      const at = dst + (n as usize) * row + q;
      v128.store(at, v128.add<real>(share, v128.mul<real>(c, v128.sub<real>(v128.load(at), mean))));
    }
  }
}

/** The weights of the block's samples: dst[lane] = weights[first sample + lane], or [first sample][lane] by replica. */
export function takeWeights(dst: usize, weights: usize, lanes: i32, ld: i32, byReplica: i32): void {
  const from = weights + bytes((sampleBase as i32) * (byReplica ? ld : 1));
  const count = byReplica ? ld : lanes;
  memory.copy(dst, from, bytes(count));
  for (let l = count; l < ld; l++) store<real>(dst + bytes(l), 0);
}

/** A pivot this small beside the largest diagonal entry is rounding: that direction has no noise. */
const NO_NOISE: f64 = sizeof<real>() == 8 ? 1e-13 : 1e-5;

/**
 * L z with L L^T = Sigma, the covariance of the rows of g (divisor `count`), and z standard normal: the gradient noise of the SDE
 * the long way. Sigma is singular along symmetries, so a pivot of rounding size makes a column of zeros.
 *
 * dst      p values
 * g        [count][p], centred in place;  mean  p values, the mean of the rows
 * sigma    p x p, becomes L below and on its diagonal;  normals  room for p values
 * cost     count p^2 + p^3 / 3 multiplications: for small p, to check what `sampleWeights` does without Sigma
 */
export function factorNoise(
  dst: usize, g: usize, mean: usize, sigma: usize, normals: usize, count: i32, p: i32, purpose: u32,
): void {
  const row = bytes(p);
  memory.fill(sigma, 0, row * (p as usize));
  centreRows(g, mean, count, p, p);
  rankUpdate(sigma, g, count, p, p);
  let largest: f64 = 0;
  for (let i = 0; i < p; i++) largest = max(largest, load<real>(sigma + (i as usize) * row + bytes(i)) as f64);
  // the upper triangle holds Sigma: column j of L is found from row j
  for (let j = 0; j < p; j++) {
    const rowJ = sigma + (j as usize) * row;
    let pivot = load<real>(rowJ + bytes(j)) as f64;
    for (let k = 0; k < j; k++) {
      const l = load<real>(rowJ + bytes(k)) as f64;
      pivot -= l * l;
    }
    const isNoise = pivot > NO_NOISE * largest;
    const root = isNoise ? Math.sqrt(pivot) : 0;
    for (let i = j + 1; i < p; i++) {
      const rowI = sigma + (i as usize) * row;
      let entry = load<real>(rowJ + bytes(i)) as f64;
      for (let k = 0; k < j; k++) entry -= (load<real>(rowI + bytes(k)) as f64) * (load<real>(rowJ + bytes(k)) as f64);
      store<real>(rowI + bytes(j), isNoise ? ((entry / root) as real) : 0);
    }
    store<real>(rowJ + bytes(j), root as real);
  }
  normalLanes(normals, p, 1, 1, 0, step, replica, purpose, 0, 1, key0, key1, 0);
  const share = 1.0 / Math.sqrt(count as f64);
  for (let i = 0; i < p; i++) {
    const rowI = sigma + (i as usize) * row;
    let sum: f64 = 0;
    for (let j = 0; j <= i; j++) sum += (load<real>(rowI + bytes(j)) as f64) * (load<real>(normals + bytes(j)) as f64);
    store<real>(dst + bytes(i), (sum * share) as real);
  }
}

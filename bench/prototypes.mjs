// The hand-built prototypes, which are not part of this project: jobs2.wasm (all of them) in a folder that --prototypes names.
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { transpose } from "./plain.mjs";

/** Where the prototypes' own data may begin. */
const HEAP = 65536;

/** Instantiates DIR/as/jobs2.wasm. */
export async function loadPrototypes(dir) {
  const bytes = readFileSync(join(dir, "as/jobs2.wasm"));
  const { instance } = await WebAssembly.instantiate(bytes, { env: { abort() {} } });
  return { exports: instance.exports, sha256: createHash("sha256").update(bytes).digest("hex") };
}

/** Hands out cache-line aligned arrays of the prototype's memory, filled with values if some are given. */
export function allocator(memory) {
  let next = HEAP;
  return (values, from) => {
    const address = next;
    next = (next + 8 * values + 63) & ~63;
    if (next > memory.buffer.byteLength) throw new Error("the prototype's memory is too small for this job");
    const view = new Float64Array(memory.buffer, address, values);
    if (from) view.set(from);
    return { address, view };
  };
}

/**
 * Job 1: SGD of 1/2 |U W x - y|^2 with d inputs, hidden units and outputs. Arguments as of plainTwoLayer.
 *
 * The prototype computes two rows of a product at a time. With S = 1 it therefore does twice the work in three of its five
 * products, and overwrites its error row on the way: its time counts, its numbers do not.
 */
export function prototypeTwoLayer({ exports }, d, S, data, theta) {
  const N = data.x.length / d;
  const allocate = allocator(exports.memory);
  const [x, y] = [allocate(N * d), allocate(N * d)];
  const [W1, W2, copy] = [allocate(d * d), allocate(d * d), allocate(d * d)];
  const scratch = allocate(4 * (S + 1) * d);
  x.view.set(data.x);
  y.view.set(data.y);
  W1.view.set(transpose(theta.W, d, d));
  W2.view.set(transpose(theta.U, d, d));
  return {
    run: (steps, eta) =>
      exports.sgd_f64x2_2x4(
        ...[steps, S, N, d, d, d],
        ...[x, y, W1, W2, copy, scratch].map((part) => part.address),
        eta,
      ),
    theta: () => ({ U: transpose(W2.view, d, d), W: transpose(W1.view, d, d) }),
  };
}

/** Job 4: the SDE of SGD with batches of S, exact covariance from weights of all N samples, N a multiple of 32. */
export function prototypeSde({ exports }, d, S, data, theta) {
  const N = data.x.length / d;
  const allocate = allocator(exports.memory);
  const [x, y] = [allocate(N * d, data.x), allocate(N * d, data.y)];
  const [W1, W2] = [allocate(d * d, transpose(theta.W, d, d)), allocate(d * d, transpose(theta.U, d, d))];
  const scratch = [d * d, 3 * 32 * d, d * d, d * d, N].map((n) => allocate(n).address);
  return {
    run: (steps, eta) =>
      exports.em_f64x2_2x4(steps, N, d, x.address, y.address, W1.address, W2.address, ...scratch, eta, S),
    theta: () => ({ U: transpose(W2.view, d, d), W: transpose(W1.view, d, d) }),
  };
}

/**
 * Job 5: replicas of 1/2 (u w x - y)^2 with batches of one sample, 8 replicas in registers.
 *
 * @param data  x and y of N samples, N a power of two
 * @param theta u and w, one per replica
 */
export function prototypeRankOne({ exports }, data, theta) {
  const [N, R] = [data.x.length, theta.u.length];
  const allocate = allocator(exports.memory);
  const xy = allocate(2 * N);
  const [u, w] = [allocate(R), allocate(R)];
  const indices = allocate(4096);
  for (let n = 0; n < N; n++) xy.view.set([data.x[n], data.y[n]], 2 * n);
  const reset = () => {
    u.view.set(theta.u);
    w.view.set(theta.w);
  };
  reset();
  return {
    reset,
    run: (steps, eta) =>
      exports.ens_lanes8(R, steps, N - 1, xy.address, u.address, w.address, eta, indices.address),
    theta: () => ({ u: u.view.slice(), w: w.view.slice() }),
  };
}

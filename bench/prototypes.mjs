// The hand-built prototypes, which are not part of this project: programs for one job each, with fixed layout and nothing to
// interpret. DIR/as/jobs2.wasm, and jobs2_r.wasm with fused multiply-add, in a folder that --prototypes names.
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { transpose } from "./nets.mjs";

const files = { simd: "as/jobs2.wasm", fma: "as/jobs2_r.wasm" };

/** Where the prototypes' own data may begin. */
const HEAP = 65536;

const read = (dir, variant) => readFileSync(join(dir, files[variant]));

/** sha256 of both modules, for the record. */
export const prototypeHashes = (dir) =>
  Object.fromEntries(
    Object.keys(files).map((variant) => [
      variant,
      createHash("sha256").update(read(dir, variant)).digest("hex"),
    ]),
  );

/** Exports of one of them. */
export async function loadPrototypes(dir, variant) {
  const bytes = read(dir, variant);
  if (!WebAssembly.validate(bytes))
    throw Object.assign(new Error("this runtime has no relaxed SIMD"), { code: "unsupported" });
  const { instance } = await WebAssembly.instantiate(bytes, { env: { abort() {} } });
  return instance.exports;
}

/** Hands out cache-line aligned arrays of the prototype's memory, filled with values if some are given. */
export function allocator(memory, Values = Float64Array) {
  let next = HEAP;
  return (values, from) => {
    const address = next;
    next = (next + Values.BYTES_PER_ELEMENT * values + 63) & ~63;
    if (next > memory.buffer.byteLength) throw new Error("the prototype's memory is too small for this job");
    const view = new Values(memory.buffer, address, values);
    if (from) view.set(from);
    return { address, view };
  };
}

/** J1: SGD of 1/2 |U W x - y|^2 with d inputs, hidden units and outputs. theta is { U, W }, row-major. */
export function prototypeSgd(exports, dtype, d, S, { x, y }, theta) {
  const N = x.length / d;
  const allocate = allocator(exports.memory, dtype === "f64" ? Float64Array : Float32Array);
  const [X, Y] = [allocate(N * d, x), allocate(N * d, y)];
  const [W1, W2] = [allocate(d * d, transpose(theta.W, d, d)), allocate(d * d, transpose(theta.U, d, d))];
  const parts = [X, Y, W1, W2, allocate(d * d), allocate(4 * (S + 1) * d)].map((part) => part.address);
  const sgd = dtype === "f64" ? exports.sgd_f64x2_2x4 : exports.sgd_f32x4_4x2;
  return {
    run: (steps, eta) => sgd(steps, S, N, d, d, d, ...parts, eta),
    weights: () => [...W1.view, ...W2.view],
  };
}

/** J4: the SDE of SGD with batches of S, exact covariance from weights of all N samples, N a multiple of 32. */
export function prototypeSde(exports, d, S, { x, y }, theta) {
  const N = x.length / d;
  const allocate = allocator(exports.memory);
  const [X, Y] = [allocate(N * d, x), allocate(N * d, y)];
  const [W1, W2] = [allocate(d * d, transpose(theta.W, d, d)), allocate(d * d, transpose(theta.U, d, d))];
  const scratch = [d * d, 3 * 32 * d, d * d, d * d, N].map((n) => allocate(n).address);
  return {
    run: (steps, eta) =>
      exports.em_f64x2_2x4(steps, N, d, X.address, Y.address, W1.address, W2.address, ...scratch, eta, S),
    weights: () => [...W1.view, ...W2.view],
  };
}

/**
 * J5: replicas of 1/2 (u w x - y)^2 with batches of one sample, 8 replicas in registers.
 *
 * @param data  x and y of N samples, N a power of two
 * @param theta u and w, one per replica
 */
export function prototypeReplicas(exports, data, theta) {
  const [N, R] = [data.x.length, theta.u.length];
  const allocate = allocator(exports.memory);
  const xy = allocate(2 * N);
  const [u, w] = [allocate(R, theta.u), allocate(R, theta.w)];
  const indices = allocate(4096);
  for (let n = 0; n < N; n++) xy.view.set([data.x[n], data.y[n]], 2 * n);
  return {
    run: (steps, eta) =>
      exports.ens_lanes8(R, steps, N - 1, xy.address, u.address, w.address, eta, indices.address),
    weights: () => [...u.view, ...w.view],
  };
}

/** J2: per-sample gradients of 1/2 |U W x - y|^2; their mean square, or the whole second moment. Neither is centred. */
export function prototypeMoments(exports, whole, [d, h, o], { x, y }, { U, W }) {
  const N = x.length / d;
  const allocate = allocator(exports.memory);
  const [X, Y] = [allocate(N * d, x), allocate(N * o, y)];
  const [W1, W2] = [allocate(d * h, transpose(W, h, d)), allocate(h * o, transpose(U, o, h))];
  const parts = [X, Y, W1, W2, allocate(h * o), allocate(4 * 32 * 64)].map((part) => part.address);
  const P = d * h + h * o;
  const trace = allocate(8);
  if (!whole)
    return () => {
      exports.persample_f64(N, d, h, o, ...parts, 0, 0, trace.address);
      return trace.view[0] / N;
    };
  const G = allocate(N * P);
  const weights = allocate(N, new Float64Array(N).fill(1 / N));
  const stride = P + 16;
  const sigma = allocate(stride * stride);
  const packed = allocate((P + 32) * 300);
  return () => {
    exports.persample_f64(N, d, h, o, ...parts, G.address, P, trace.address);
    sigma.view.fill(0);
    exports.s_f64x2_4x2_TN(P, N, G.address, P, weights.address, sigma.address, packed.address, stride, 256);
    let sum = 0;
    for (let i = 0; i < P; i++) sum += sigma.view[i * stride + i];
    return sum;
  };
}

/** J3: Hutchinson's trace of the Hessian of 1/2 |U tanh(W x) - y|^2 by second-order jets. */
export function prototypeHutchinson(exports, d, probes, { x, y }, { U, W }) {
  const N = x.length / d;
  const allocate = allocator(exports.memory);
  const [X, Y] = [allocate(N * d, x), allocate(N * d, y)];
  const [W1, W2] = [allocate(d * d, transpose(W, d, d)), allocate(d * d, transpose(U, d, d))];
  const scratch = [d * d, d * d, d * d, N * d, N * d, N * d, 4 * 32 * d].map((n) => allocate(n).address);
  const parts = [X, Y, W1, W2].map((part) => part.address);
  return () => exports.hutch_f64x2_2x4(probes, N, d, ...parts, ...scratch);
}

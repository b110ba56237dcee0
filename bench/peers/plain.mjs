// Plain JavaScript: typed arrays and loops, no library, as such programs are usually written. Weights in row form: x W1, a W2.
//
// V8 specialises for what it has seen, so every job is measured in a process of its own, in which no buffer was ever detached (as
// growing a Wasm memory does): accesses to typed arrays would be slower after that.
import { momentsCheck } from "../moments.mjs";
import { normal, readInput } from "./inputs.mjs";

/** C = A B, or C += A B: A of m x k from `at`, B of k x n, C of m x n from `to`. */
function product(m, n, k, A, at, B, C, to, accumulate) {
  for (let i = 0; i < m; i++) {
    const row = to + i * n;
    if (!accumulate) for (let j = 0; j < n; j++) C[row + j] = 0;
    for (let q = 0; q < k; q++) {
      const a = A[at + i * k + q];
      const from = q * n;
      for (let j = 0; j < n; j++) C[row + j] += a * B[from + j];
    }
  }
}

/** C = A B^T: A of m x k, B of n x k. */
function backProduct(m, n, k, A, B, C) {
  for (let i = 0; i < m; i++)
    for (let j = 0; j < n; j++) {
      let sum = 0;
      for (let q = 0; q < k; q++) sum += A[i * k + q] * B[j * k + q];
      C[i * n + j] = sum;
    }
}

/** C += A^T B: A of k x m from `at`, B of k x n. */
function outerProduct(m, n, k, A, at, B, C) {
  for (let q = 0; q < k; q++)
    for (let i = 0; i < m; i++) {
      const a = A[at + q * m + i];
      const [row, from] = [i * n, q * n];
      for (let j = 0; j < n; j++) C[row + j] += a * B[from + j];
    }
}

/** The forward and backward pass of 1/2 |U W x - y|^2 over n rows: a = x W1, e = c (a W2 - y), b = e W2^T. */
function errors({ d, h, o }, n, X, Y, W1, W2, a, e, b, weight) {
  product(n, h, d, X, 0, W1, a, 0, false);
  for (let i = 0; i < n * o; i++) e[i] = -Y[i];
  product(n, o, h, a, 0, W2, e, 0, true);
  if (weight) for (let s = 0; s < n; s++) for (let j = 0; j < o; j++) e[s * o + j] *= weight(s);
  backProduct(n, h, o, e, W2, b);
}

/** Data and weights of a job, in the type of its dtype. */
function linearNet({ job, folder }) {
  const Values = job.dtype === "f64" ? Float64Array : Float32Array;
  const { d, h } = job.params;
  const [X, Y] = ["X", "Y"].map((name) => Values.from(readInput(folder, name)));
  const weights = readInput(folder, "weights");
  const start = () => ({
    W1: Values.from(weights.subarray(0, d * h)),
    W2: Values.from(weights.subarray(d * h)),
  });
  return { Values, X, Y, start };
}

function sgd(context) {
  const { Values, X, Y, start } = linearNet(context);
  const { folder, job } = context;
  const { N, d, h, o, S, eta } = job.params;
  const [x, y] = [new Values(S * d), new Values(S * o)];
  const [a, e, b] = [new Values(S * h), new Values(S * o), new Values(S * h)];
  const step = (W1, W2, batch) => {
    for (let s = 0; s < S; s++) {
      for (let j = 0; j < d; j++) x[s * d + j] = X[batch[s] * d + j];
      for (let j = 0; j < o; j++) y[s * o + j] = Y[batch[s] * o + j];
    }
    errors(job.params, S, x, y, W1, W2, a, e, b, null);
    for (let i = 0; i < S * o; i++) e[i] *= -eta / S;
    for (let i = 0; i < S * h; i++) b[i] *= -eta / S;
    outerProduct(h, o, S, a, 0, e, W2);
    outerProduct(d, h, S, x, 0, b, W1);
  };
  const theta = start();
  return {
    run(count) {
      const batch = new Int32Array(S);
      for (let k = 0; k < count; k++) {
        for (let s = 0; s < S; s++) batch[s] = Math.floor(Math.random() * N);
        step(theta.W1, theta.W2, batch);
      }
      return [...theta.W1, ...theta.W2];
    },
    check() {
      const { W1, W2 } = start();
      const batches = readInput(folder, "batches");
      for (let k = 0; k < batches.length / S; k++) step(W1, W2, batches.subarray(k * S, (k + 1) * S));
      return { values: [...W1, ...W2] };
    },
  };
}

/**
 * The same steps, written so that V8 can turn arrays and sizes into constants: they are closed over, and small functions are
 * inlined. It shows how far plain JavaScript goes.
 */
function specialisedSgd(context) {
  const { Values, X, Y, start } = linearNet(context);
  const { folder, job } = context;
  const { N, d, h, o, S, eta } = job.params;
  const [a, e, b] = [new Values(S * h), new Values(S * o), new Values(S * h)];
  const theta = start();
  let { W1, W2 } = theta;
  const addRow = (n, k, p, at, A, r, to) => {
    for (let i = 0; i < k; i++) {
      const v = p[at + i];
      for (let j = 0; j < n; j++) r[to + j] += v * A[i * n + j];
    }
  };
  const addOuter = (n, k, p, at, q, from, A) => {
    for (let i = 0; i < k; i++) {
      const v = p[at + i];
      for (let j = 0; j < n; j++) A[i * n + j] += v * q[from + j];
    }
  };
  function step(batch, first) {
    for (let s = 0; s < S; s++) {
      const n = batch[first + s];
      for (let j = 0; j < h; j++) a[s * h + j] = 0;
      addRow(h, d, X, n * d, W1, a, s * h);
      for (let j = 0; j < o; j++) e[s * o + j] = -Y[n * o + j];
      addRow(o, h, a, s * h, W2, e, s * o);
    }
    for (let j = 0; j < S * o; j++) e[j] *= -eta / S;
    backProduct(S, h, o, e, W2, b);
    for (let s = 0; s < S; s++) {
      addOuter(o, h, a, s * h, e, s * o, W2);
      addOuter(h, d, X, batch[first + s] * d, b, s * h, W1);
    }
  }
  const batch = new Int32Array(S);
  return {
    run(count) {
      for (let k = 0; k < count; k++) {
        for (let s = 0; s < S; s++) batch[s] = Math.floor(Math.random() * N);
        step(batch, 0);
      }
      return [...W1, ...W2];
    },
    check() {
      const batches = Int32Array.from(readInput(folder, "batches"));
      ({ W1, W2 } = start());
      for (let k = 0; k < batches.length; k += S) step(batches, k);
      const values = [...W1, ...W2];
      ({ W1, W2 } = theta);
      return { values };
    },
  };
}

/** Tr Sigma from norms, without forming a gradient: sum_n |x|^2 |b|^2 + |a|^2 |e|^2. Or the whole of Sigma. */
function noise(context) {
  const { X, Y, start } = linearNet(context);
  const { folder, job } = context;
  const { N, d, h, o, whole } = job.params;
  const { W1, W2 } = start();
  const P = d * h + h * o;
  const [a, e, b] = [new Float64Array(N * h), new Float64Array(N * o), new Float64Array(N * h)];
  const squares = (A, n, columns) => {
    let sum = 0;
    for (let j = 0; j < columns; j++) sum += A[n * columns + j] ** 2;
    return sum;
  };
  const mean = new Float64Array(P);
  const pass = () => {
    errors(job.params, N, X, Y, W1, W2, a, e, b, null);
    mean.fill(0);
    outerProduct(d, h, N, X, 0, b, mean.subarray(0, d * h));
    outerProduct(h, o, N, a, 0, e, mean.subarray(d * h));
    for (let i = 0; i < P; i++) mean[i] /= N;
  };
  const trace = () => {
    pass();
    let sum = 0;
    for (let n = 0; n < N; n++)
      sum += squares(X, n, d) * squares(b, n, h) + squares(a, n, h) * squares(e, n, o);
    return sum / N - squares(mean, 0, P);
  };
  const Sigma = new Float64Array(P * P);
  const full = () => {
    pass();
    Sigma.fill(0);
    const g = new Float64Array(P);
    for (let n = 0; n < N; n++) {
      for (let i = 0; i < d; i++) for (let j = 0; j < h; j++) g[i * h + j] = X[n * d + i] * b[n * h + j];
      for (let i = 0; i < h; i++)
        for (let j = 0; j < o; j++) g[d * h + i * o + j] = a[n * h + i] * e[n * o + j];
      for (let i = 0; i < P; i++) {
        const gi = g[i];
        const row = i * P;
        for (let j = 0; j <= i; j++) Sigma[row + j] += gi * g[j];
      }
    }
    for (let i = 0; i < P; i++)
      for (let j = 0; j <= i; j++)
        Sigma[j * P + i] = Sigma[i * P + j] = Sigma[i * P + j] / N - mean[i] * mean[j];
    return Sigma;
  };
  return {
    run(count) {
      let value;
      for (let i = 0; i < count; i++) value = whole ? full() : trace();
      return value;
    },
    check() {
      if (!whole) return { values: [trace()] };
      full();
      const v = readInput(folder, "v");
      return { values: v.map((_, i) => v.reduce((sum, vj, j) => sum + Sigma[i * P + j] * vj, 0)) };
    },
  };
}

/** One weighted backward pass, weights -eta / N - eta (S N)^(-1/2) (xi_n - mean xi). */
function sde(context) {
  const { X, Y, start } = linearNet(context);
  const { folder, job } = context;
  const { N, d, h, o, S, eta } = job.params;
  const [a, e, b] = [new Float64Array(N * h), new Float64Array(N * o), new Float64Array(N * h)];
  const step = (W1, W2, xi) => {
    let mean = 0;
    for (let n = 0; n < N; n++) mean += xi[n] / N;
    const weight = (n) => -eta / N - (eta / Math.sqrt(S * N)) * (xi[n] - mean);
    errors(job.params, N, X, Y, W1, W2, a, e, b, weight);
    outerProduct(h, o, N, a, 0, e, W2);
    outerProduct(d, h, N, X, 0, b, W1);
  };
  const theta = start();
  const xi = new Float64Array(N);
  return {
    run(count) {
      for (let k = 0; k < count; k++) {
        for (let n = 0; n < N; n++) xi[n] = normal();
        step(theta.W1, theta.W2, xi);
      }
      return [...theta.W1, ...theta.W2];
    },
    check() {
      const { W1, W2 } = start();
      const given = readInput(folder, "xi");
      for (let k = 0; k < given.length; k += N) step(W1, W2, given.subarray(k, k + N));
      return { values: [...W1, ...W2] };
    },
  };
}

function ensemble({ job, folder }) {
  const { N, R, eta } = job.params;
  const [X, Y, u0, w0] = ["X", "Y", "u", "w"].map((name) => readInput(folder, name));
  const step = (u, w, r, n) => {
    const c = eta * (u[r] * w[r] * X[n] - Y[n]) * X[n];
    const next = u[r] - c * w[r];
    w[r] -= c * u[r];
    u[r] = next;
  };
  const [u, w] = [u0.slice(), w0.slice()];
  return {
    run(count) {
      for (let r = 0; r < R; r++)
        for (let k = 0; k < count; k++) step(u, w, r, Math.floor(Math.random() * N));
      return [...u, ...w];
    },
    check() {
      const batches = readInput(folder, "batches");
      const [u1, w1] = [u0.slice(), w0.slice()];
      for (let k = 0; k < batches.length; k += R) for (let r = 0; r < R; r++) step(u1, w1, r, batches[k + r]);
      return { values: [...u1, ...w1] };
    },
  };
}

function normals({ job }) {
  const out = new Float64Array(job.params.count);
  const fill = () => {
    for (let i = 0; i < out.length; i++) out[i] = normal();
    return out;
  };
  return {
    run(count) {
      for (let i = 0; i < count; i++) fill();
      return out;
    },
    check: () => momentsCheck(fill()),
  };
}

const families = { sgd, noise, sde, ensemble, normals };

export const sides = {
  "plain-js": (context) => families[context.job.family](context),
  "specialised-js": specialisedSgd,
};

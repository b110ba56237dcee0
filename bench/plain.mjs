// SGD of a two-layer linear net as a plain JavaScript program would have it: Float64Array and loops, no library.

/**
 * ell = 1/2 |U W x - y|^2 on minibatches of S samples; note the 1/2. Weights are kept as x W1, a W2 read them (W1 = W^T of
 * shape [d, h], W2 = U^T of shape [h, o]), so that every inner loop runs along memory. One step:
 *
 *   a = x W1,  e = -(eta/S) (a W2 - y),  b = e W2^T,  W2 += a^T e,  W1 += x^T b
 *
 * V8 specialises these loops for what it sees: run one configuration per process.
 *
 * @param sizes [d, h, o]
 * @param data  x (N x d) and y (N x o), row-major
 * @param theta U [o, h] and W [h, d], row-major
 */
export function plainTwoLayer([d, h, o], S, data, theta) {
  const { x, y } = data;
  const N = x.length / d;
  const W1 = transpose(theta.W, h, d);
  const W2 = transpose(theta.U, o, h);
  const a = new Float64Array(S * h);
  const e = new Float64Array(S * o);
  const b = new Float64Array(S * h);
  const batch = new Int32Array(S);

  function step(eta) {
    a.fill(0);
    for (let s = 0; s < S; s++) {
      const xs = batch[s] * d;
      const as = s * h;
      for (let i = 0; i < d; i++) {
        const v = x[xs + i];
        const row = i * h;
        for (let j = 0; j < h; j++) a[as + j] += v * W1[row + j];
      }
      const ys = batch[s] * o;
      const es = s * o;
      for (let j = 0; j < o; j++) e[es + j] = -y[ys + j];
      for (let i = 0; i < h; i++) {
        const v = a[as + i];
        const row = i * o;
        for (let j = 0; j < o; j++) e[es + j] += v * W2[row + j];
      }
    }
    for (let j = 0; j < S * o; j++) e[j] *= -eta / S;
    for (let s = 0; s < S; s++) {
      const es = s * o;
      for (let i = 0; i < h; i++) {
        const row = i * o;
        let sum = 0;
        for (let j = 0; j < o; j++) sum += e[es + j] * W2[row + j];
        b[s * h + i] = sum;
      }
    }
    for (let s = 0; s < S; s++) {
      const es = s * o;
      for (let i = 0; i < h; i++) {
        const v = a[s * h + i];
        const row = i * o;
        for (let j = 0; j < o; j++) W2[row + j] += v * e[es + j];
      }
      const xs = batch[s] * d;
      const bs = s * h;
      for (let i = 0; i < d; i++) {
        const v = x[xs + i];
        const row = i * h;
        for (let j = 0; j < h; j++) W1[row + j] += v * b[bs + j];
      }
    }
  }

  return {
    /** Steps on batches drawn with replacement. */
    run(steps, eta) {
      for (let k = 0; k < steps; k++) {
        for (let s = 0; s < S; s++) batch[s] = Math.floor(Math.random() * N);
        step(eta);
      }
    },
    /** Steps on given batches: indices, steps x S. */
    runOn(batches, eta) {
      for (let k = 0; k < batches.length / S; k++) {
        batch.set(batches.subarray(k * S, (k + 1) * S));
        step(eta);
      }
    },
    theta: () => ({ U: transpose(W2, h, o), W: transpose(W1, d, h) }),
  };
}

/** The transpose of a row-major rows x cols matrix. */
export function transpose(a, rows, cols) {
  const out = new Float64Array(rows * cols);
  for (let i = 0; i < rows; i++) for (let j = 0; j < cols; j++) out[j * rows + i] = a[i * cols + j];
  return out;
}

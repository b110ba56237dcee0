// SGD of a two-layer linear net in plain JavaScript: Float64Array and loops, no library.
//
// ell = 1/2 |U W x - y|^2 on minibatches of S samples; note the 1/2. Weights are kept the way x W1 and a W2 read them (W1 = W^T
// of shape [d, h], W2 = U^T of shape [h, o]), so that every inner loop runs along memory. One step:
//
//   a = x W1,  e = -(eta/S) (a W2 - y),  b = e W2^T,  W2 += a^T e,  W1 += x^T b
//
// It is written twice, with the same loops in the same order. V8 specialises both for what it has seen: measure one configuration
// per process.

/** A step as one function of its arguments: how such a program is usually written. */
function step(x, y, W1, W2, a, e, b, batch, d, h, o, S, eta) {
  for (let s = 0; s < S; s++) {
    const xs = batch[s] * d;
    const as = s * h;
    for (let j = 0; j < h; j++) a[as + j] = 0;
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

/**
 * The plain program.
 *
 * @param sizes [d, h, o]
 * @param data  x (N x d) and y (N x o), row-major
 * @param theta U [o, h] and W [h, d], row-major
 */
export function plainTwoLayer([d, h, o], S, { x, y }, theta) {
  const N = x.length / d;
  const W1 = transpose(theta.W, h, d);
  const W2 = transpose(theta.U, o, h);
  const a = new Float64Array(S * h);
  const e = new Float64Array(S * o);
  const b = new Float64Array(S * h);
  const batch = new Int32Array(S);
  return {
    /** Steps on batches drawn with replacement. */
    run(steps, eta) {
      for (let k = 0; k < steps; k++) {
        for (let s = 0; s < S; s++) batch[s] = Math.floor(Math.random() * N);
        step(x, y, W1, W2, a, e, b, batch, d, h, o, S, eta);
      }
    },
    /** Steps on given batches: indices, steps x S. */
    runOn(batches, eta) {
      for (let k = 0; k < batches.length / S; k++) {
        batch.set(batches.subarray(k * S, (k + 1) * S));
        step(x, y, W1, W2, a, e, b, batch, d, h, o, S, eta);
      }
    },
    theta: () => ({ U: transpose(W2, h, o), W: transpose(W1, d, h) }),
  };
}

/** r += p A, for a row p of k entries from p[at] on, and A of k x n. */
function addProduct(n, k, p, at, A, r, to) {
  for (let i = 0; i < k; i++) {
    const v = p[at + i];
    const row = i * n;
    for (let j = 0; j < n; j++) r[to + j] += v * A[row + j];
  }
}

/** r = p A^T, for a row p of n entries, and A of k x n. */
function backProduct(k, n, p, at, A, r, to) {
  for (let i = 0; i < k; i++) {
    const row = i * n;
    let sum = 0;
    for (let j = 0; j < n; j++) sum += p[at + j] * A[row + j];
    r[to + i] = sum;
  }
}

/** A += p^T q, for rows p of k and q of n entries. */
function addOuter(k, n, p, at, q, from, A) {
  for (let i = 0; i < k; i++) {
    const v = p[at + i];
    const row = i * n;
    for (let j = 0; j < n; j++) A[row + j] += v * q[from + j];
  }
}

/**
 * The same program, written so that V8 can turn arrays and sizes into constants: they are closed over by the step, and its
 * small functions are inlined there. About twice as fast. Same arguments.
 */
export function specialisedTwoLayer([d, h, o], S, { x, y }, theta) {
  const N = x.length / d;
  const W1 = transpose(theta.W, h, d);
  const W2 = transpose(theta.U, o, h);
  const a = new Float64Array(S * h);
  const e = new Float64Array(S * o);
  const b = new Float64Array(S * h);
  const batch = new Int32Array(S);

  function closedStep(eta) {
    for (let s = 0; s < S; s++) {
      for (let j = 0; j < h; j++) a[s * h + j] = 0;
      addProduct(h, d, x, batch[s] * d, W1, a, s * h);
      for (let j = 0; j < o; j++) e[s * o + j] = -y[batch[s] * o + j];
      addProduct(o, h, a, s * h, W2, e, s * o);
    }
    for (let j = 0; j < S * o; j++) e[j] *= -eta / S;
    for (let s = 0; s < S; s++) backProduct(h, o, e, s * o, W2, b, s * h);
    for (let s = 0; s < S; s++) {
      addOuter(h, o, a, s * h, e, s * o, W2);
      addOuter(d, h, x, batch[s] * d, b, s * h, W1);
    }
  }

  return {
    run(steps, eta) {
      for (let k = 0; k < steps; k++) {
        for (let s = 0; s < S; s++) batch[s] = Math.floor(Math.random() * N);
        closedStep(eta);
      }
    },
    runOn(batches, eta) {
      for (let k = 0; k < batches.length / S; k++) {
        batch.set(batches.subarray(k * S, (k + 1) * S));
        closedStep(eta);
      }
    },
    theta: () => ({ U: transpose(W2, h, o), W: transpose(W1, d, h) }),
  };
}

/** By the kind of a side. */
export const programs = { plain: plainTwoLayer, specialised: specialisedTwoLayer };

/** The sum over theta, which must be finite: evidence that the work was done. */
export function checksum(theta) {
  let sum = 0;
  for (const block of Object.values(theta)) for (const value of block) sum += value;
  if (!Number.isFinite(sum)) throw new Error("theta is not finite");
  return String(sum);
}

/** The transpose of a row-major rows x cols matrix. */
export function transpose(a, rows, cols) {
  const out = new Float64Array(rows * cols);
  for (let i = 0; i < rows; i++) for (let j = 0; j < cols; j++) out[j * rows + i] = a[i * cols + j];
  return out;
}

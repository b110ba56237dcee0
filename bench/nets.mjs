// The nets that are measured: model (built from noetherflow's exports), data, start, step size.

/** mulberry32: a small seeded generator, uniform on [0, 1). */
export function uniforms(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** Seeded normals, by Box and Muller. */
export function normals(seed) {
  const uniform = uniforms(seed);
  return () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
}

export const filled = (n, value) => Float64Array.from({ length: n }, value);

/** The transpose of a row-major rows x cols matrix. */
export function transpose(a, rows, cols) {
  const out = new Float64Array(rows * cols);
  for (let i = 0; i < rows; i++) for (let j = 0; j < cols; j++) out[j * rows + i] = a[i * cols + j];
  return out;
}

/**
 * The weights of a two-layer net the way a program with samples in rows reads them, x W1 and a W2: W1 = W^T of shape [d, h], then
 * W2 = U^T of shape [h, o], row-major. All sides exchange theta, probes and results in this form.
 */
export const rowForm = ({ U, W }, [d, h, o]) => [...transpose(W, h, d), ...transpose(U, o, h)];

/** The inverse of rowForm, as named blocks. */
export const blockForm = (values, [d, h, o]) => ({
  W: transpose(values.slice(0, d * h), d, h),
  U: transpose(values.slice(d * h, d * h + h * o), h, o),
});

/** x normal; y is x, cut or repeated to the size of the output, plus noise of size 0.1. */
function regression(N, d, o, seed) {
  const normal = normals(seed);
  const x = filled(N * d, normal);
  const y = new Float64Array(N * o);
  for (let n = 0; n < N; n++) for (let j = 0; j < o; j++) y[n * o + j] = x[n * d + (j % d)] + 0.1 * normal();
  return { x, y };
}

/** x normal; y one-hot: the largest of the first o entries of x plus noise, so that no net predicts it for sure. */
function classes(N, d, o, seed) {
  const normal = normals(seed);
  const x = filled(N * d, normal);
  const y = new Float64Array(N * o);
  for (let n = 0; n < N; n++) {
    const scores = filled(o, (_, j) => x[n * d + (j % d)] + normal());
    y[n * o + scores.indexOf(Math.max(...scores))] = 1;
  }
  return { x, y };
}

/** Matrices W1 [sizes[1], sizes[0]], W2 [sizes[2], sizes[1]], ... with entries of variance 0.25 / inputs. */
function weights(sizes, seed) {
  const normal = normals(seed);
  return sizes.slice(1).map((m, i) => filled(m * sizes[i], () => (0.5 / Math.sqrt(sizes[i])) * normal()));
}

/** ell = |A x - y|^2, a product and nothing else. */
function oneLayer([d, o]) {
  const [A] = weights([d, o], 1);
  return {
    build: ({ model, ops }) =>
      model({
        params: { A: [o, d] },
        inputs: { x: [d], y: [o] },
        loss: ({ A, x, y }) => ops.sqnorm(ops.sub(ops.matmul(A, x), y)),
      }),
    data: (N) => regression(N, d, o, 2),
    theta: { A },
  };
}

/** ell = |U W x - y|^2. */
function twoLayer([d, h, o]) {
  const [W, U] = weights([d, h, o], 1);
  return {
    build: ({ model, ops }) =>
      model({
        params: { U: [o, h], W: [h, d] },
        inputs: { x: [d], y: [o] },
        loss: ({ U, W, x, y }) => ops.sqnorm(ops.sub(ops.matmul(U, ops.matmul(W, x)), y)),
      }),
    data: (N) => regression(N, d, o, 2),
    theta: { U, W },
    eta: 0.005,
  };
}

/** x and y normal, weights of variance 1 / inputs: data that the net fits badly, so that every gradient is large. */
function halfNet([d, h, o], activation) {
  const normal = normals(7);
  const [W, U] = [filled(h * d, normal), filled(o * h, normal)];
  return {
    build: ({ model, ops }) =>
      model({
        params: { W: [h, d], U: [o, h] },
        inputs: { x: [d], y: [o] },
        loss: ({ W, U, x, y }) => {
          const f = ops.matmul(U, activation(ops, ops.matmul(W, x)));
          return ops.scale(ops.sqnorm(ops.sub(f, y)), 0.5);
        },
      }),
    data(N) {
      const value = normals(8);
      return { x: filled(N * d, value), y: filled(N * o, value) };
    },
    theta: { W: W.map((v) => v / Math.sqrt(d)), U: U.map((v) => v / Math.sqrt(h)) },
  };
}

/** ell = 1/2 |U W x - y|^2. */
const halfTwoLayer = (sizes) => halfNet(sizes, (_, z) => z);

/** ell = 1/2 |U tanh(W x) - y|^2. */
const halfTanh = (sizes) => halfNet(sizes, (ops, z) => ops.tanh(z));

/** ell = |W3 W2 W1 x - y|^2. */
function threeLayer(sizes) {
  const [d, h, g, o] = sizes;
  const [W1, W2, W3] = weights(sizes, 1);
  return {
    build: ({ model, ops }) =>
      model({
        params: { W1: [h, d], W2: [g, h], W3: [o, g] },
        inputs: { x: [d], y: [o] },
        loss: ({ W1, W2, W3, x, y }) =>
          ops.sqnorm(ops.sub(ops.matmul(W3, ops.matmul(W2, ops.matmul(W1, x))), y)),
      }),
    data: (N) => regression(N, d, o, 2),
    theta: { W1, W2, W3 },
    eta: 0.002,
  };
}

/** ell = |W2 tanh(W1 x + b1) + b2 - y|^2. */
function tanhBias(sizes) {
  const [d, h, o] = sizes;
  const [W1, W2] = weights(sizes, 1);
  return {
    build: ({ model, ops }) =>
      model({
        params: { W1: [h, d], b1: [h], W2: [o, h], b2: [o] },
        inputs: { x: [d], y: [o] },
        loss: ({ W1, b1, W2, b2, x, y }) =>
          ops.sqnorm(ops.sub(ops.add(ops.matmul(W2, ops.tanh(ops.add(ops.matmul(W1, x), b1))), b2), y)),
      }),
    data: (N) => regression(N, d, o, 2),
    theta: { W1, b1: new Float64Array(h), W2, b2: new Float64Array(o) },
    eta: 0.005,
  };
}

/** Cross-entropy of the softmax of z = U W x: ell = log sum exp z - y . z. */
function softmaxTwoLayer([d, h, o]) {
  const [W, U] = weights([d, h, o], 1);
  return {
    build: ({ model, ops }) =>
      model({
        params: { U: [o, h], W: [h, d] },
        inputs: { x: [d], y: [o] },
        loss: ({ U, W, x, y }) => {
          const z = ops.matmul(U, ops.matmul(W, x));
          return ops.sub(ops.logsumexp(z), ops.matmul(y, z));
        },
      }),
    data: (N) => classes(N, d, o, 2),
    theta: { U, W },
    eta: 0.05,
  };
}

/** Weight normalisation, row by row, of the two-layer net: each layer is g V / |V|, ell = |layer2 layer1 x - y|^2. */
function weightNormalised([d, h, o]) {
  const [V1, V2] = weights([d, h, o], 1);
  const layer = (ops, V, g) =>
    ops.mul(V, ops.div(g, ops.sqrt(ops.sum(ops.square(V), { axis: 1, keepdims: true }))));
  return {
    build: ({ model, ops }) =>
      model({
        params: { V1: [h, d], g1: [h, 1], V2: [o, h], g2: [o, 1] },
        inputs: { x: [d], y: [o] },
        loss: ({ V1, g1, V2, g2, x, y }) =>
          ops.sqnorm(ops.sub(ops.matmul(layer(ops, V2, g2), ops.matmul(layer(ops, V1, g1), x)), y)),
      }),
    data: (N) => regression(N, d, o, 2),
    theta: { V1, g1: filled(h, () => 0.5), V2, g2: filled(o, () => 0.5) },
    eta: 0.005,
  };
}

/** ell = (u w x - y)^2, everything scalar. */
function rankOne() {
  return {
    build: ({ model, ops }) =>
      model({
        params: { u: [], w: [] },
        inputs: { x: [], y: [] },
        loss: ({ u, w, x, y }) => ops.square(ops.sub(ops.mul(ops.mul(u, w), x), y)),
      }),
    data: (N) => {
      const normal = normals(2);
      const x = filled(N, normal);
      return { x, y: x.map((v) => v + 0.3 * normal()) };
    },
    theta: { u: 0.7, w: 0.8 },
    eta: 0.005,
  };
}

export const nets = {
  oneLayer,
  twoLayer,
  halfTwoLayer,
  halfTanh,
  threeLayer,
  tanhBias,
  softmaxTwoLayer,
  weightNormalised,
  rankOne,
};

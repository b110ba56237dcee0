import {
  checkInteger,
  checkKnown,
  checkNumber,
  checkObject,
  checkWord,
  fail,
  show,
  showShape,
} from "../errors.ts";
import { describe, type Node, type Shape, sameShape } from "../graph/node.ts";
import { ops } from "../graph/ops.ts";

/**
 * Layers as functions from values of a model to values of the same model. Each is a composition of
 * ops; a model file that uses one holds the ops. What stands under "symmetry" leaves the value of the
 * layer, or of the layer and the linear map behind it, unchanged for every sample.
 */

/** Activations by name: a builder of `ops`, or "linear" for none. */
const ACTIVATIONS = {
  linear: (z: Node) => z,
  relu: (z: Node) => ops.relu(z),
  tanh: (z: Node) => ops.tanh(z),
  sigmoid: (z: Node) => ops.sigmoid(z),
  softplus: (z: Node) => ops.softplus(z),
  square: (z: Node) => ops.square(z),
  geluTanh: (z: Node) => ops.geluTanh(z),
  geluErf: (z: Node) => ops.geluErf(z),
} as const;

/** A name, or an elementwise function such as `(z) => ops.leakyRelu(z, { slope: 0.1 })`. */
export type Activation = keyof typeof ACTIVATIONS | ((z: Node) => Node);

/** Weights and bias of one linear map. */
export interface LinearLayer {
  /** [out, in] */
  readonly W: Node;
  /** [out] */
  readonly b?: Node | undefined;
}

/** Applies an activation given by name or as a function. */
export function activate(where: string, activation: Activation, z: Node): Node {
  if (typeof activation !== "function") {
    const known = Object.keys(ACTIVATIONS) as (keyof typeof ACTIVATIONS)[];
    return ACTIVATIONS[checkWord(where, "activation", activation, known)](z);
  }
  const y = checkValue(where, "the activation's result", activation(z));
  if (!sameShape(y.shape, z.shape))
    fail("shape", where, `the activation keeps the shape ${showShape(z.shape)}`, describe(y));
  return y;
}

/**
 * y = W x + b, for each token where x is a matrix: Y = X W^T + b.
 *
 * Symmetry: with another linear map behind it, that of `mlp`.
 *
 * @param W [out, in]
 * @param x [in], or tokens [T, in]
 * @param b [out], optional
 * @returns [out], or [T, out]
 * @throws NoetherflowError "shape" naming the value that does not fit
 * @example layers.linear(W, x).shape; // [4]
 */
export function linear(W: Node, x: Node, b?: Node): Node {
  return linearAt("layers.linear", W, x, b);
}

function linearAt(where: string, W: Node, x: Node, b: Node | undefined): Node {
  const [out, inputs] = checkMatrix(where, "W", W);
  checkValue(where, "x", x);
  if ((x.shape.length !== 1 && x.shape.length !== 2) || x.shape.at(-1) !== inputs) {
    fail(
      "shape",
      where,
      `W ${showShape(W.shape)} takes x of shape [${inputs}] or tokens [T, ${inputs}]`,
      describe(x),
    );
  }
  const z = x.shape.length === 1 ? ops.matmul(W, x) : ops.matmul(x, ops.transpose(W));
  return b === undefined ? z : ops.add(z, checkFits(where, "b", b, [out]));
}

/**
 * A feed-forward net: linear maps with an activation between them, none behind the last,
 *
 *   z_1 = W_1 x + b_1,   z_l = W_l act(z_{l-1}) + b_l,   y = z_L
 *
 * Symmetry, of every adjacent pair (the bias belongs to the rows of its W):
 *   linear         W_{l+1} -> W_{l+1} e^(lambda B), (W_l, b_l) -> e^(-lambda B) (W_l, b_l), B symmetric
 *   relu, leaky    each neuron j: column j of W_{l+1} times e^lambda, row j of (W_l, b_l) times e^-lambda
 *   act(c z) = c^p act(z) for c > 0: the same with e^(p lambda) on the column; square has p = 2
 *   others         none
 *
 * @param x          [in], or tokens [T, in]
 * @param layers     from the input on; a W alone or { W, b? }
 * @param activation a name or a function; see Activation
 * @source Ziyin et al., arXiv:2402.07193; p-homogeneous nets: Du, Hu, Lee, arXiv:1806.00900
 * @example layers.mlp(x, [W, U], "relu").shape; // [2]
 */
export function mlp(x: Node, layers: readonly (Node | LinearLayer)[], activation: Activation): Node {
  if (!Array.isArray(layers) || layers.length === 0)
    fail("shape", "layers.mlp", "expected a list of W or { W, b? }, one or more", show(layers));
  let y = x;
  for (const [i, layer] of (layers as readonly (Node | LinearLayer)[]).entries()) {
    const where = `layers.mlp: layer ${i + 1} of ${layers.length}`;
    const { W, b } = isValue(layer) ? { W: layer, b: undefined } : readLayer(where, layer);
    if (i > 0) y = activate("layers.mlp", activation, y);
    y = linearAt(where, W, y, b);
  }
  return y;
}

function readLayer(where: string, layer: LinearLayer): LinearLayer {
  checkKnown(where, checkObject(where, "a W or { W, b? }", layer), ["W", "b"]);
  return layer;
}

/**
 * y = f(x) + skip x, a block with a skip connection; skip is 1 when absent.
 *
 * Symmetry: none of the unshifted weights. Of two blocks with linear maps the shifted ones
 * U + skip I and W + skip I have the double rotation of a product, so A acts on theta - c with
 * c = -skip I on both blocks (`center` of a generator).
 *
 * @param x any shape
 * @param f maps x to a value of the same shape
 * @source He et al., arXiv:1512.03385; the shifted symmetry: Ziyin et al., arXiv:2402.07193, Figure 4
 * @example layers.residual(x, (z) => ops.tanh(z)).shape; // [3]
 */
export function residual(x: Node, f: (x: Node) => Node, options: { readonly skip?: number } = {}): Node {
  const where = "layers.residual";
  checkValue(where, "x", x);
  checkKnown(where, checkObject(where, "options { skip? }", options), ["skip"]);
  const skip = checkNumber(where, "skip", options.skip ?? 1);
  if (typeof f !== "function") fail("shape", where, "expected a function of x", show(f));
  const y = checkFits(where, "f(x)", f(x), x.shape);
  return skip === 0 ? y : ops.add(y, ops.scale(x, skip));
}

/** What stands behind a normalisation. */
export interface NormOptions {
  /** Factor per feature, behind the normalisation. */
  readonly gain?: Node;
  /** Added per feature, behind the gain. */
  readonly bias?: Node;
  /** Added to the variance; 0 when absent, so that scale invariance is exact. */
  readonly eps?: number;
}

/**
 * y = gain (x - m) / sqrt(v + eps) + bias, m and v the mean and variance (divisor h) of the features
 * of one sample, or of one token.
 *
 * Symmetry, of the map z = W x + b before it (eps 0): scaling of (W, b) together, A = I, C = 1/2 |W, b|^2;
 * and two translations, whose charges are linear and kept by SGD too: one number added to all entries
 * of b, one vector added to all rows of W. eps > 0 breaks the scaling at relative order eps / v.
 * Gain and bias with the map behind: per feature, as a relu neuron of `mlp`.
 *
 * @param x [h] or tokens [T, h], h >= 2; with eps 0 its features must not all be equal
 * @param options gain and bias [h]
 * @source Ba, Kiros, Hinton, arXiv:1607.06450
 * @example layers.layerNorm(layers.linear(W, x)).shape; // [4]
 */
export function layerNorm(x: Node, options: NormOptions = {}): Node {
  const where = "layers.layerNorm";
  checkFeatures(where, x);
  if (x.shape.at(-1) === 1) {
    fail(
      "shape",
      where,
      "x has two features or more, because one alone is its own mean",
      describe(x),
      "batchNorm and weightNorm work with one.",
    );
  }
  return normalised(where, x, (value) => ops.mean(value, { axis: -1, keepdims: true }), options);
}

/**
 * y = gain (x - m) / sqrt(v + eps) + bias, m and v the mean and variance (divisor S) of each feature over
 * the S samples of the minibatch, and over their tokens.
 *
 * It couples the samples: there is no loss of one sample, and gradient descent takes all N as one
 * batch. With eps 0 a batch needs two samples or more; all quantities below hold for each minibatch.
 *
 * Symmetry, of the map z = W x + b before it (eps 0): scaling of each row of (W, b) by itself, so h
 * generators with A = 1 on row j and C = 1/2 |W_j:, b_j|^2; and the translation of every b_j (its
 * gradient is 0). Gain and bias with the map behind: per feature, as a relu neuron of `mlp`.
 *
 * @param x [h] or tokens [T, h]
 * @param options gain and bias [h]
 * @source Ioffe and Szegedy, arXiv:1502.03167; charge per minibatch: Ziyin et al., arXiv:2402.07193
 * @example layers.batchNorm(layers.linear(W, x)).shape; // [4]
 */
export function batchNorm(x: Node, options: NormOptions = {}): Node {
  const where = "layers.batchNorm";
  checkFeatures(where, x);
  const mean = (value: Node): Node =>
    value.shape.length === 1
      ? ops.batchMean(value)
      : ops.batchMean(ops.mean(value, { axis: 0, keepdims: true }));
  return normalised(where, x, mean, options);
}

/** The two passes that layer and batch norm share: the mean, then the mean square about it. */
function normalised(where: string, x: Node, mean: (value: Node) => Node, options: NormOptions): Node {
  checkKnown(where, checkObject(where, "options { gain?, bias?, eps? }", options), ["gain", "bias", "eps"]);
  const eps = checkNumber(where, "eps", options.eps ?? 0, 0);
  const features = [x.shape.at(-1)!];
  const centred = ops.sub(x, mean(x));
  const variance = mean(ops.square(centred));
  let y = ops.div(centred, ops.sqrt(eps === 0 ? variance : ops.add(variance, eps)));
  if (options.gain !== undefined) y = ops.mul(y, checkFits(where, "gain", options.gain, features));
  if (options.bias !== undefined) y = ops.add(y, checkFits(where, "bias", options.bias, features));
  return y;
}

/** Which entries of a matrix share a length, and the lengths. */
export interface WeightNormOptions {
  /** Which entries share a norm: all of them, a row (one output), or a column (one input). */
  readonly by: "block" | "row" | "column";
  /** Lengths: [] for a block, [rows] or [columns]; 1 when absent. */
  readonly gain?: Node;
}

/**
 * Weights of given length: W = gain V / |V|, or row by row, or column by column.
 *
 * Computed once per step where V is a parameter. A row, column or block of zeros has no direction and
 * gives NaN; nothing is added to the norm, which would break the invariance.
 *
 * Symmetry: scaling of the block, of each row or of each column by itself, A = I there, C = 1/2 of its
 * squared length.
 *
 * @param V [rows, columns]; by "block" also [n]
 * @source Salimans and Kingma, arXiv:1602.07868
 * @example layers.weightNorm(W, { by: "row" }).shape; // [4, 3]; every row has length 1
 */
export function weightNorm(V: Node, options: WeightNormOptions): Node {
  const where = "layers.weightNorm";
  checkValue(where, "V", V);
  checkKnown(where, checkObject(where, 'options { by: "block", "row" or "column", gain? }', options), [
    "by",
    "gain",
  ]);
  const by = checkWord(where, "by", options.by, ["block", "row", "column"]);
  if (V.shape.length === 0 || (by !== "block" && V.shape.length !== 2)) {
    fail("shape", where, by === "block" ? "V is a vector or a matrix" : "V is a matrix", describe(V));
  }
  const { gain } = options;
  if (by === "block") {
    const unit = ops.div(V, ops.norm(V));
    return gain === undefined ? unit : ops.mul(unit, checkFits(where, "gain", gain, []));
  }
  const axis = by === "row" ? 1 : 0;
  const lengths = ops.sqrt(ops.sum(ops.square(V), { axis, keepdims: true }));
  const unit = ops.div(V, lengths);
  if (gain === undefined) return unit;
  return ops.mul(unit, ops.reshape(checkFits(where, "gain", gain, [V.shape[1 - axis]!]), lengths.shape));
}

/** Weights of `layers.selfAttention`. */
export interface AttentionOptions {
  /** [d, dk heads] */
  readonly query: Node;
  /** [d, dk heads] */
  readonly key: Node;
  /** [d, dv heads] */
  readonly value: Node;
  /** [dv heads, dOut]; absent for the identity. */
  readonly output?: Node;
  /** 1 when absent; head i has columns i dk ... of query and key, and i dv ... of value. */
  readonly heads?: number;
}

/**
 * Scaled dot-product attention of a sample's tokens to each other, without a mask. Per head, with
 * softmax along the rows,
 *
 *   Y = softmax( X Wq (X Wk)^T / sqrt(dk) ) X Wv
 *
 * the heads side by side, times `output`. Weights are applied from the right: tokens are rows.
 *
 * Symmetry, of each head: Wq -> Wq e^(lambda B), Wk -> Wk e^(-lambda B) for any symmetric B, dk x dk,
 * C = 1/2 Tr[B (Wq^T Wq - Wk^T Wk)]; and the same of its Wv and its rows of `output`, dv x dv. With
 * several heads B is block-diagonal.
 *
 * @param x [T, d]
 * @returns [T, dv heads], or [T, dOut]
 * @source Vaswani et al., arXiv:1706.03762
 * @example
 * const net = model({
 *   params: { Wq: [4, 2], Wk: [4, 2], Wv: [4, 3] }, inputs: { X: [5, 4] },
 *   loss: ({ Wq, Wk, Wv, X }) => ops.mean(layers.selfAttention(X, { query: Wq, key: Wk, value: Wv })),
 * });
 * net.P; // 28
 */
export function selfAttention(x: Node, options: AttentionOptions): Node {
  const where = "layers.selfAttention";
  const [, d] = checkMatrix(where, "x", x);
  const known = ["query", "key", "value", "output", "heads"];
  checkKnown(where, checkObject(where, "options { query, key, value, output?, heads? }", options), known);
  const { query, key, value, output } = options;
  const heads = checkInteger(where, "heads", options.heads ?? 1, 1);
  const widths = { query, key, value };
  for (const [name, W] of Object.entries(widths)) {
    const [inputs, outputs] = checkMatrix(where, name, W);
    if (inputs !== d) fail("shape", where, `x ${showShape(x.shape)} takes ${name} [${d}, ...]`, describe(W));
    if (outputs % heads !== 0)
      fail("shape", where, `${name} has a multiple of ${heads} heads as columns`, describe(W));
  }
  checkFits(where, "key", key, query.shape);
  const [, dv] = value.shape as [number, number];
  if (output !== undefined && checkMatrix(where, "output", output)[0] !== dv)
    fail("shape", where, `value ${showShape(value.shape)} takes output [${dv}, ...]`, describe(output));
  const dk = query.shape[1]! / heads;
  // columns of the weights, not of the tokens: they are cut once per step
  const columns = (W: Node, head: number): Node => {
    if (heads === 1) return W;
    const width = W.shape[1]! / heads;
    return ops.slice(W, { axis: 1, start: head * width, stop: (head + 1) * width });
  };
  const one = (head: number): Node => {
    const [q, k, v] = [query, key, value].map((W) => ops.matmul(x, columns(W, head))) as [Node, Node, Node];
    const scores = ops.scale(ops.matmul(q, ops.transpose(k)), 1 / Math.sqrt(dk));
    return ops.matmul(ops.softmax(scores, { axis: 1 }), v);
  };
  const all = Array.from({ length: heads }, (_, head) => one(head));
  const y = heads === 1 ? all[0]! : ops.concat(all, { axis: 1 });
  return output === undefined ? y : ops.matmul(y, output);
}

// --- checks, shared with losses.ts -----------------------------------------------------------------

const isValue = (x: unknown): x is Node =>
  typeof x === "object" && x !== null && "graph" in x && "shape" in x && "op" in x;

/** A value of a model; a misspelt name in a model's loss arrives here as undefined. */
export function checkValue(where: string, what: string, x: unknown): Node {
  return isValue(x) ? x : fail("shape", where, `${what} must be a value of the model`, show(x));
}

/** A value of exactly this shape: broadcasting would hide a mistake. */
export function checkFits(where: string, what: string, x: unknown, shape: Shape): Node {
  const value = checkValue(where, what, x);
  if (sameShape(value.shape, shape)) return value;
  return fail("shape", where, `${what} must have the shape ${showShape(shape)}`, describe(value));
}

/** Rows and columns of a matrix. */
function checkMatrix(where: string, what: string, x: unknown): [number, number] {
  const { shape } = checkValue(where, what, x);
  if (shape.length !== 2) fail("shape", where, `${what} must be a matrix`, describe(x as Node));
  return shape as unknown as [number, number];
}

function checkFeatures(where: string, x: Node): void {
  checkValue(where, "x", x);
  if (x.shape.length === 0)
    fail("shape", where, "x has features, shape [h], or is tokens, shape [T, h]", describe(x));
}

/**
 * Layers, as functions from values of a model to values of the same model.
 *
 * @namespace
 */
export const layers = { linear, mlp, residual, layerNorm, batchNorm, weightNorm, selfAttention } as const;

import { checkFlag, checkInteger, checkKnown, checkNumber, checkObject, fail, show } from "../errors.ts";
import { type BlockSpec, type Model, model } from "../graph/model.ts";
import type { Node, Shape } from "../graph/node.ts";
import { ops } from "../graph/ops.ts";
import { type Activation, activate, layers } from "./layers.ts";
import { type Loss, losses, lossOf } from "./losses.ts";

/**
 * Models of the literature by name. Every option has a default, that of the experiment in the docstring where there is
 * one. Two-layer models have the parameters U [dy, h] and W [h, dx] and the inputs x [dx] and y [dy]; U_:j is a column, W_j: a
 * row. Losses are those of `losses`; `loss` takes a name or a function (f, y) => scalar.
 */

/** Sizes of a two-layer model: x [dx], h hidden units, y [dy]. */
export interface TwoLayerOptions {
  /** Size of x; the default stands with each model. */
  readonly dx?: number;
  /** Hidden units. */
  readonly h?: number;
  /** Size of y. */
  readonly dy?: number;
  /** "squared" when absent. */
  readonly loss?: Loss;
}

/** What two-layer models differ in. */
interface TwoLayerParts {
  readonly loss: Loss | undefined;
  /** false: U is part of theta and never moves. */
  readonly trainReadout?: boolean;
  readonly f: (U: Node, W: Node, x: Node) => Node;
}

function twoLayer(
  where: string,
  { dx, h, dy }: Sizes,
  { loss, trainReadout = true, f }: TwoLayerParts,
): Model {
  return model({
    params: { U: { shape: [dy, h], trainable: trainReadout }, W: [h, dx] },
    inputs: { x: [dx], y: [dy] },
    loss: ({ U, W, x, y }) => lossOf(where, loss ?? "squared", f(U, W, x), y),
  });
}

/**
 * The smallest model with a symmetry: ell = (u w x - y)^2. Parameters u [1], w [1]; inputs x [1], y [1].
 *
 * Symmetry: rescaling("u", "w"), C = 1/2 (u^2 - w^2). SGD multiplies u^2 - w^2 by exactly
 * 1 - eta^2 delta^2 in each step, delta the batch mean of 2 (u w x - y) x.
 *
 * @source Ziyin et al., arXiv:2402.07193, Figure 1
 * @example models.rankOne().P; // 2
 */
export function rankOne(): Model {
  return model({
    params: { u: [1], w: [1] },
    inputs: { x: [1], y: [1] },
    loss: ({ u, w, x, y }) => losses.squared(ops.mul(ops.mul(u, w), x), y),
  });
}

/**
 * Two-layer linear net f = U W x; dx = 5, h = 8, dy = 5.
 *
 * Symmetry: doubleRotation("U", "W", B) for any symmetric B, h x h: C = 1/2 Tr[B Q], Q = U^T U - W W^T.
 * Its equilibrium under SGD is Theorem 2 (`engine.twoLayer`).
 *
 * @source Ziyin et al., arXiv:2402.07193, section 4.3
 * @example models.twoLayerLinear({ dx: 3, h: 4, dy: 2 }).P; // 20
 */
export function twoLayerLinear(options: TwoLayerOptions = {}): Model {
  const where = "models.twoLayerLinear";
  const sizes = readSizes(where, options, { dx: 5, h: 8, dy: 5 }, ["loss"]);
  return twoLayer(where, sizes, { loss: options.loss, f: (U, W, x) => ops.matmul(U, ops.matmul(W, x)) });
}

/** Sizes, biases and loss of a net of any depth. */
export interface FeedForwardOptions {
  /** Sizes from the input to the output: [dx, h1, ..., dy]. */
  readonly widths?: readonly number[];
  /** A bias b1, b2, ... behind every linear map; false when absent. */
  readonly biases?: boolean;
  /** "squared" when absent. */
  readonly loss?: Loss;
}

/**
 * Linear net of any depth, f = W_L ... W_1 x; widths [3, 3, 3, 3]. Parameters W1 [h1, dx], (b1 [h1],) W2, ...
 *
 * Symmetry: doubleRotation("W2", "W1", B) and so on for every adjacent pair, sum_l h_l (h_l + 1) / 2 in
 * all. With biases the block b1 moves with W1 (a generator with left: -B on both).
 *
 * @source Ziyin et al., arXiv:2402.07193
 * @example models.deepLinear({ widths: [4, 8, 8, 2] }).blocks.map((b) => b.name); // ["W1", "W2", "W3"]
 */
export function deepLinear(options: FeedForwardOptions = {}): Model {
  return feedForward("models.deepLinear", [3, 3, 3, 3], options, "linear");
}

/**
 * ReLU net of any depth, widths [4, 5, 2]. Parameters W1 [h1, dx], (b1 [h1],) W2, ...
 *
 * Symmetry: each hidden neuron j: column j of W2 up, row j of W1 and entry j of b1 down; C_j =
 * 1/2 (|W2_:j|^2 - |W1_j:|^2 - b1_j^2). Their sum is rescaling("W2", "W1") where there are no biases.
 *
 * @source Du, Hu, Lee, arXiv:1806.00900; Ziyin et al., arXiv:2402.07193
 * @example
 * const problem = engine.problem(models.reluNet({ widths: [3, 4, 2] }), teacher, { samples: 8 });
 * problem.checkSymmetry(symmetry.neuronRescaling("W2", "W1", 0)).verdict; // "exact"
 */
export function reluNet(options: FeedForwardOptions = {}): Model {
  return feedForward("models.reluNet", [4, 5, 2], options, "relu");
}

/**
 * Feed-forward net of any depth, activation and loss, widths [4, 5, 2] and tanh. Parameters W1 [h1, dx],
 * (b1 [h1],) W2, ... Symmetries: see `layers.mlp`; tanh has none.
 *
 * @example models.mlp({ widths: [4, 5, 2], activation: "geluErf", biases: true }).P; // 37
 */
export function mlp(options: FeedForwardOptions & { readonly activation?: Activation } = {}): Model {
  const names = ["widths", "activation", "biases", "loss"];
  checkKnown("models.mlp", checkObject("models.mlp", `options ${names.join(", ")}`, options), names);
  const { activation = "tanh", ...others } = options;
  return feedForward("models.mlp", [4, 5, 2], others, activation);
}

function feedForward(
  where: string,
  usual: readonly number[],
  options: FeedForwardOptions,
  activation: Activation,
): Model {
  checkKnown(where, checkObject(where, "options widths, biases, loss", options), [
    "widths",
    "biases",
    "loss",
  ]);
  const { widths = usual, loss = "squared" } = options;
  const biases = checkFlag(where, "biases", options.biases);
  if (!Array.isArray(widths) || widths.length < 2)
    fail("shape", where, "widths is a list [dx, ..., dy] of two sizes or more", show(widths));
  const sizes = (widths as number[]).map((n, i) => checkInteger(where, `widths[${i}]`, n, 1));
  const maps = sizes.slice(1).map((out, i) => ({ W: `W${i + 1}`, b: `b${i + 1}`, out, inputs: sizes[i]! }));
  const params: Record<string, BlockSpec> = {};
  for (const { W, b, out, inputs } of maps) {
    params[W] = [out, inputs];
    if (biases) params[b] = [out];
  }
  const inputs: Record<string, Shape> = { x: [sizes[0]!], y: [sizes.at(-1)!] };
  return model({
    params,
    inputs,
    loss: (values) => {
      const net = maps.map(({ W, b }) => ({ W: values[W]!, b: biases ? values[b]! : undefined }));
      return lossOf(where, loss, layers.mlp(values.x!, net, activation), values.y!);
    },
  });
}

/**
 * f = U tanh(W x); dx = h = dy = 6.
 *
 * Symmetry: none. The double rotation holds approximately, its defect O(|W x|^2).
 *
 * @source Ziyin et al., arXiv:2402.07193, Figure 5
 * @example
 * const problem = engine.problem(models.tanhNet({ dx: 3, h: 4, dy: 2 }), teacher, { samples: 8 });
 * problem.checkSymmetry(A).verdict; // "none"; at standard normal thetas
 */
export function tanhNet(options: TwoLayerOptions = {}): Model {
  const where = "models.tanhNet";
  const sizes = readSizes(where, options, { dx: 6, h: 6, dy: 6 }, ["loss"]);
  return twoLayer(where, sizes, {
    loss: options.loss,
    f: (U, W, x) => ops.matmul(U, ops.tanh(ops.matmul(W, x))),
  });
}

/**
 * The tanh net from x [d] back to d; d = h = 6. Its target y [d] is x, or x with label noise.
 *
 * @source Ziyin et al., arXiv:2402.07193, Figure 5
 * @example models.tanhAutoencoder({ d: 4, h: 3 }).P; // 24
 */
export function tanhAutoencoder(options: { readonly d?: number; readonly h?: number } = {}): Model {
  const { d, h } = readSizes("models.tanhAutoencoder", options, { d: 6, h: 6 });
  return tanhNet({ dx: d, h, dy: d });
}

/**
 * f = (U + skip I)(W + skip I) x, two linear blocks with skip connections; d = 5, skip = 1. Parameters U [d, d],
 * W [d, d]; inputs x [d], y [d].
 *
 * Symmetry: the double rotation of the shifted pair, a generator with `center` -skip I on both blocks; C =
 * 1/2 Tr[B Q_s], Q_s = (U + skip I)^T (U + skip I) - (W + skip I)(W + skip I)^T. At skip 0 that of twoLayerLinear.
 *
 * @source Ziyin et al., arXiv:2402.07193, Figure 4
 * @example models.residual({ d: 3, skip: 0.5 }).P; // 18
 */
export function residual(
  options: { readonly d?: number; readonly skip?: number; readonly loss?: Loss } = {},
): Model {
  const where = "models.residual";
  const { d } = readSizes(where, options, { d: 5 }, ["skip", "loss"]);
  const skip = checkNumber(where, "skip", options.skip ?? 1);
  const block = (W: Node, x: Node) => layers.residual(x, (z) => ops.matmul(W, z), { skip });
  return twoLayer(
    where,
    { dx: d, h: d, dy: d },
    { loss: options.loss, f: (U, W, x) => block(U, block(W, x)) },
  );
}

/**
 * Net-A, normalised by the joint norm of both layers: f = U W x / (|U|^2 + |W|^2); dx = h = 10, dy = 5.
 *
 * Symmetry: scaling("U", "W") and no other. SGD without decay never lowers |theta|^2; a single layer may shrink.
 *
 * @source Ziyin et al., arXiv:2402.07193, Figure 2
 * @example
 * const problem = engine.problem(models.netA({ dx: 3, h: 4, dy: 2 }), teacher, { samples: 8 });
 * problem.checkSymmetry(symmetry.scaling("U", "W")).verdict; // "exact"
 */
export function netA(options: TwoLayerOptions = {}): Model {
  return normalisedNet("models.netA", options, (U, W, x) =>
    ops.div(ops.matmul(U, ops.matmul(W, x)), ops.add(ops.sqnorm(U), ops.sqnorm(W))),
  );
}

/**
 * Net-A', normalised neuron by neuron: f = sum_j U_:j (W_j: x) / (|U_:j|^2 + |W_j:|^2); dx = h = 10, dy = 5.
 *
 * Symmetry: scaling of each neuron, U_:j and W_j: together, so h generators.
 *
 * @source another reading of Ziyin et al., arXiv:2402.07193, Figure 2
 * @example
 * const problem = engine.problem(models.netAPrime({ dx: 3, h: 4, dy: 2 }), teacher, { samples: 8 });
 * problem.checkSymmetry(symmetry.scaling("U", "W")).verdict; // "exact"
 */
export function netAPrime(options: TwoLayerOptions = {}): Model {
  return normalisedNet("models.netAPrime", options, (U, W, x) => {
    const joint = ops.add(ops.sum(ops.square(U), { axis: 0 }), ops.sum(ops.square(W), { axis: 1 }));
    return ops.matmul(U, ops.div(ops.matmul(W, x), joint));
  });
}

/**
 * Net-B, each vector normalised by itself: f = sum_j (U_:j / |U_:j|) (W_j: x / |W_j:|); dx = h = 10, dy = 5.
 *
 * Symmetry: scaling of each U_:j and of each W_j:, 2 h generators; so scaling("U") and scaling("W"), and
 * without decay no step lowers any of these norms. A zero row or column gives NaN.
 *
 * @source Ziyin et al., arXiv:2402.07193, Figure 2
 * @example
 * const problem = engine.problem(models.netB({ dx: 3, h: 4, dy: 2 }), teacher, { samples: 8 });
 * problem.checkSymmetry(symmetry.scaling("U")).verdict; // "exact"
 */
export function netB(options: TwoLayerOptions = {}): Model {
  return normalisedNet("models.netB", options, (U, W, x) =>
    ops.matmul(layers.weightNorm(U, { by: "column" }), ops.matmul(layers.weightNorm(W, { by: "row" }), x)),
  );
}

/**
 * Net-B', each layer normalised by itself: f = U W x / (|U| |W|); dx = h = 10, dy = 5.
 *
 * Symmetry: scaling("U") and scaling("W") and no other.
 *
 * @source another reading of Ziyin et al., arXiv:2402.07193, Figure 2
 * @example
 * const problem = engine.problem(models.netBPrime({ dx: 3, h: 4, dy: 2 }), teacher, { samples: 8 });
 * problem.checkSymmetry(symmetry.scaling("W")).verdict; // "exact"
 */
export function netBPrime(options: TwoLayerOptions = {}): Model {
  return normalisedNet("models.netBPrime", options, (U, W, x) =>
    ops.matmul(layers.weightNorm(U, { by: "block" }), ops.matmul(layers.weightNorm(W, { by: "block" }), x)),
  );
}

function normalisedNet(where: string, options: TwoLayerOptions, f: TwoLayerParts["f"]): Model {
  const sizes = readSizes(where, options, { dx: 10, h: 10, dy: 5 }, ["loss"]);
  return twoLayer(where, sizes, { loss: options.loss, f });
}

/** A two-layer model with a normalisation between its layers. */
export interface NormNetOptions extends TwoLayerOptions {
  /** Behind the normalisation; "linear" when absent. */
  readonly activation?: Activation;
  /** false when absent: U is part of theta and never moves. */
  readonly trainReadout?: boolean;
}

/**
 * f = U act(LayerNorm(W x)), without gain, bias and epsilon; dx = 8, h = 12, dy = 3.
 *
 * Symmetry: scaling("W"), C = 1/2 |W|^2, with the equilibrium |W|^4 = eta G / (4 gamma (1 - eta gamma)) under
 * decay, G = E|ghat|^2 at |W| = 1; and the translation of all rows of W by one vector, whose charge SGD keeps.
 *
 * @source Ziyin et al., arXiv:2402.07193, section 4.1; Ba, Kiros, Hinton, arXiv:1607.06450
 * @example
 * const problem = engine.problem(models.layerNormNet({ dx: 3, h: 4, dy: 2 }), teacher, { samples: 8 });
 * problem.checkSymmetry(symmetry.scaling("W")).verdict; // "exact"
 */
export function layerNormNet(options: NormNetOptions = {}): Model {
  return normNet("models.layerNormNet", options, { dx: 8, h: 12, dy: 3 }, (z) => layers.layerNorm(z));
}

/**
 * f = U act(BatchNorm(W x)), statistics of the minibatch, without gain, bias and epsilon; dx = 8, h = 6, dy = 3.
 * It couples the samples of a batch: see `layers.batchNorm`.
 *
 * Symmetry, of each minibatch's loss: scaling of each row of W, h generators; so scaling("W").
 *
 * @source Ziyin et al., arXiv:2402.07193, section 4.1; Ioffe and Szegedy, arXiv:1502.03167
 * @example
 * const problem = engine.problem(models.batchNormNet({ dx: 3, h: 4, dy: 2 }), teacher, { samples: 8 });
 * problem.checkSymmetry(symmetry.scaling("W")).verdict; // "exact"
 */
export function batchNormNet(options: NormNetOptions = {}): Model {
  return normNet("models.batchNormNet", options, { dx: 8, h: 6, dy: 3 }, (z) => layers.batchNorm(z));
}

function normNet(where: string, options: NormNetOptions, usual: Sizes, norm: (z: Node) => Node): Model {
  const sizes = readSizes(where, options, usual, ["activation", "trainReadout", "loss"]);
  const { activation = "linear", loss } = options;
  const trainReadout = checkFlag(where, "trainReadout", options.trainReadout);
  const f = (U: Node, W: Node, x: Node) => ops.matmul(U, activate(where, activation, norm(ops.matmul(W, x))));
  return twoLayer(where, sizes, { loss, trainReadout, f });
}

/**
 * One entry of a matrix to complete per sample: ell = ((U W)_ij - y)^2; rows = cols = 8, rank = 3. Parameters
 * U [rows, rank], W [rank, cols]; inputs row [rows] and col [cols], one-hot (1 at i and at j), and y [1].
 *
 * Symmetry: that of twoLayerLinear.
 *
 * @source Ziyin et al., arXiv:2402.07193, section 4.2
 * @example models.matrixCompletion({ rows: 6, cols: 5, rank: 2 }).P; // 22
 */
export function matrixCompletion(
  options: { readonly rows?: number; readonly cols?: number; readonly rank?: number } = {},
): Model {
  const { rows, cols, rank } = readSizes("models.matrixCompletion", options, { rows: 8, cols: 8, rank: 3 });
  return model({
    params: { U: [rows, rank], W: [rank, cols] },
    inputs: { row: [rows], col: [cols], y: [1] },
    loss: ({ U, W, row, col, y }) =>
      losses.squared(ops.reshape(ops.matmul(ops.matmul(row, U), ops.matmul(W, col)), [1]), y),
  });
}

/** Sizes and loss of `models.attention`. */
export interface AttentionModelOptions {
  /** Tokens of a sample. */
  readonly T?: number;
  /** Size of a token, of the output, and of all heads' values together. */
  readonly d?: number;
  /** Size of a head's queries and keys. */
  readonly dk?: number;
  /** 1 when absent; it must divide d. */
  readonly heads?: number;
  /** true: a further map Wo [d, d] behind the heads. */
  readonly output?: boolean;
  /** "squared" when absent. */
  readonly loss?: Loss;
}

/**
 * Self-attention, averaged over the tokens: f = mean_t Y_t:, Y = softmax(X Wq (X Wk)^T / sqrt(dk)) X Wv per head;
 * T = 5, d = 4, dk = 3, one head. Parameters Wq, Wk [d, dk heads], Wv [d, d] (and Wo [d, d]); inputs X [T, d], y [d].
 *
 * Symmetry: doubleRotation of key and query, Wq -> Wq e^(lambda B), Wk -> Wk e^(-lambda B): a generator
 * with `right` B on Wq and -B on Wk, B block-diagonal over the heads. See `layers.selfAttention`.
 *
 * @source Ziyin et al., arXiv:2402.07193; Vaswani et al., arXiv:1706.03762
 * @example models.attention({ T: 5, d: 4, dk: 3, heads: 2 }).blocks.map((b) => b.size); // [24, 24, 16]
 */
export function attention(options: AttentionModelOptions = {}): Model {
  const where = "models.attention";
  const usual = { T: 5, d: 4, dk: 3, heads: 1 };
  const { T, d, dk, heads } = readSizes(where, options, usual, ["output", "loss"]);
  const output = checkFlag(where, "output", options.output);
  if (d % heads !== 0)
    fail(
      "shape",
      where,
      `heads must divide d, because each has d / heads values`,
      `d = ${d}, heads = ${heads}`,
    );
  const params: Record<string, BlockSpec> = { Wq: [d, dk * heads], Wk: [d, dk * heads], Wv: [d, d] };
  if (output) params.Wo = [d, d];
  return model({
    params,
    inputs: { X: [T, d], y: [d] },
    loss: (values) => {
      const { Wq, Wk, Wv, Wo, X, y } = values as Record<string, Node>;
      const weights = {
        query: Wq!,
        key: Wk!,
        value: Wv!,
        heads,
        ...(Wo === undefined ? {} : { output: Wo }),
      };
      const f = ops.mean(layers.selfAttention(X!, weights), { axis: 0 });
      return lossOf(where, options.loss ?? "squared", f, y!);
    },
  });
}

/** Sizes of a linear embedding W [h, dx] of two views x [dx] and xplus [dx] of a sample. */
export interface EmbeddingOptions {
  /** Size of a view; 6 when absent. */
  readonly dx?: number;
  /** Size of the embedding; 4 when absent. */
  readonly h?: number;
}

/**
 * Self-supervised linear embedding, ell = 1 - cos(W x, W xplus); dx = 6, h = 4. Parameter W [h, dx]; inputs x [dx] and
 * xplus [dx], two views of a sample.
 *
 * Symmetry: scaling("W"), of the loss and not of the output.
 *
 * @source Ziyin et al., arXiv:2402.07193
 * @example models.selfSupervised({ dx: 6, h: 4 }).inputs.map((i) => i.name); // ["x", "xplus"]
 */
export function selfSupervised(options: EmbeddingOptions = {}): Model {
  return embedding("models.selfSupervised", options, [], losses.cosine);
}

/**
 * Self-supervised linear embedding with in-batch InfoNCE of W x against W xplus; dx = 6, h = 4, temperature 0.3.
 * Parameter W [h, dx]; inputs x [dx] and xplus [dx]. It couples the samples of a batch: see `losses.infoNCE`.
 *
 * Symmetry, of each minibatch's loss: scaling("W").
 *
 * @source Ziyin et al., arXiv:2402.07193; van den Oord, Li, Vinyals, arXiv:1807.03748
 * @example models.infoNCE({ dx: 6, h: 4, temperature: 0.5 }).P; // 24
 */
export function infoNCE(options: EmbeddingOptions & { readonly temperature?: number } = {}): Model {
  return embedding("models.infoNCE", options, ["temperature"], (z1, z2) =>
    losses.infoNCE(z1, z2, { temperature: options.temperature ?? 0.3 }),
  );
}

function embedding(
  where: string,
  options: EmbeddingOptions,
  others: readonly string[],
  loss: (z1: Node, z2: Node) => Node,
): Model {
  const { dx, h } = readSizes(where, options, { dx: 6, h: 4 }, others);
  return model({
    params: { W: [h, dx] },
    inputs: { x: [dx], xplus: [dx] },
    loss: ({ W, x, xplus }) => loss(ops.matmul(W, x), ops.matmul(W, xplus)),
  });
}

/**
 * Softmax regression: cross-entropy of the logits W x; d = 5, classes = 4. Parameter W [classes, d]; inputs x [d] and
 * y [classes], one-hot or probabilities.
 *
 * Symmetry: the translation of all rows of W by one vector: sum_k W_k: is kept by gradient descent and SGD alike.
 *
 * @source Ziyin et al., arXiv:2402.07193 (charges with vanishing Hessian)
 * @example models.softmaxRegression({ d: 5, classes: 3 }).P; // 15
 */
export function softmaxRegression(options: { readonly d?: number; readonly classes?: number } = {}): Model {
  const { d, classes } = readSizes("models.softmaxRegression", options, { d: 5, classes: 4 });
  return model({
    params: { W: [classes, d] },
    inputs: { x: [d], y: [classes] },
    loss: ({ W, x, y }) => losses.crossEntropy(ops.matmul(W, x), y),
  });
}

interface Sizes {
  readonly dx: number;
  readonly h: number;
  readonly dy: number;
}

/** Sizes among the options, each a positive integer; `others` are the options that are no sizes. */
function readSizes<K extends string>(
  where: string,
  options: object,
  usual: Readonly<Record<K, number>>,
  others: readonly string[] = [],
): Record<K, number> {
  const names = Object.keys(usual) as K[];
  const given = checkObject(where, `options ${[...names, ...others].join(", ")}`, options);
  checkKnown(where, given, [...names, ...others]);
  const out = { ...usual } as Record<K, number>;
  for (const name of names) out[name] = checkInteger(where, name, given[name] ?? usual[name], 1);
  return out;
}

/**
 * Models of the literature by name, each with its symmetries.
 *
 * @namespace
 */
export const models = {
  rankOne,
  twoLayerLinear,
  deepLinear,
  reluNet,
  mlp,
  tanhNet,
  tanhAutoencoder,
  residual,
  netA,
  netAPrime,
  netB,
  netBPrime,
  layerNormNet,
  batchNormNet,
  matrixCompletion,
  attention,
  selfSupervised,
  infoNCE,
  softmaxRegression,
} as const;

import { checkKnown, checkNumber, checkObject, checkWord, fail } from "../errors.ts";
import { describe, type Node } from "../graph/node.ts";
import { ops } from "../graph/ops.ts";
import { checkFits, checkValue } from "./layers.ts";

/**
 * Losses as functions from values to the scalar loss of one sample. A symmetry of the network's output
 * is one of every loss; what stands under "symmetry" is the loss's own.
 */

/**
 * |f - y|^2, a sum of squares over all entries, without 1/2.
 *
 * @param f output of the model, any shape
 * @param y target, the same shape
 * @example losses.squared(ops.matmul(U, ops.matmul(W, x)), y) === net.loss; // true; equal expressions are one
 */
export function squared(f: Node, y: Node): Node {
  checkFits("losses.squared", "y", y, checkValue("losses.squared", "f", f).shape);
  return ops.sqnorm(ops.sub(f, y));
}

/**
 * Cross-entropy of softmax(z) against class weights y, in nats:
 *
 *   -sum_k y_k ln softmax(z)_k  =  (ln sum_k e^(z_k)) sum_k y_k - y . z
 *
 * y is one-hot or any probabilities. They should sum to 1; nothing divides by the sum, so weights c y
 * give c times the loss of y, and sums that miss 1 by rounding or on purpose keep the symmetry.
 *
 * Symmetry: one number added to all logits. For logits W x that is the translation W -> W + 1 v^T for any
 * v; its charges are linear (sum_k W_k:) and kept by gradient descent and SGD alike.
 *
 * @param logits z, [K]
 * @param y      class weights, [K]
 * @source Ziyin et al., arXiv:2402.07193 (translation of a softmax layer)
 * @example losses.crossEntropy(ops.matmul(U, ops.matmul(W, x)), y).shape; // []
 */
export function crossEntropy(logits: Node, y: Node): Node {
  const where = "losses.crossEntropy";
  checkVector(where, "logits", logits);
  checkFits(where, "y", y, logits.shape);
  return ops.sub(ops.mul(ops.logsumexp(logits), ops.sum(y)), ops.matmul(y, logits));
}

/**
 * Logistic loss of labels y in {-1, +1}, summed over entries:  sum_i ln(1 + e^(-y_i z_i)).
 *
 * @param z any shape
 * @param y labels, the same shape
 * @example losses.logistic(ops.matmul(U, ops.matmul(W, x)), y).shape; // []
 */
export function logistic(z: Node, y: Node): Node {
  checkFits("losses.logistic", "y", y, checkValue("losses.logistic", "z", z).shape);
  const each = ops.softplus(ops.scale(ops.mul(y, z), -1));
  return each.shape.length === 0 ? each : ops.sum(each);
}

/**
 * 1 - f . y / (|f| |y|). NaN where f or y is 0.
 *
 * Symmetry: the length of f and that of y, each by itself. So scaling of the last linear map behind f
 * (A = I there), although the output changes.
 *
 * @param f [h]
 * @param y [h]
 * @example losses.cosine(ops.matmul(U, ops.matmul(W, x)), y).shape; // []
 */
export function cosine(f: Node, y: Node): Node {
  const where = "losses.cosine";
  checkVector(where, "f", f);
  checkFits(where, "y", y, f.shape);
  return ops.sub(1, ops.div(ops.matmul(f, y), ops.mul(ops.norm(f), ops.norm(y))));
}

/**
 * In-batch InfoNCE: each sample's first embedding is to pick its own second embedding out of those of all S
 * samples of the minibatch,
 *
 *   ell_i = ln sum_j e^(s_ij / tau) - s_ii / tau,   s_ij = z1_i . z2_j / (|z1_i| |z2_j|)
 *
 * It couples the samples: there is no loss of one sample, and gradient descent takes all N as one batch. At
 * S = 1 it is 0. Costs S h per sample beside the embeddings.
 *
 * Symmetry: the lengths of z1 and z2, each by itself; so scaling of the last linear map (A = I there), for
 * each minibatch.
 *
 * @param z1 [h], the embedding of one view of a sample
 * @param z2 [h], that of the other
 * @param options temperature tau > 0
 * @source van den Oord, Li, Vinyals, arXiv:1807.03748; cosine similarity: Chen et al., arXiv:2002.05709
 * @example losses.infoNCE(ops.matmul(W, x), ops.matmul(ops.transpose(U), y), { temperature: 0.3 }).shape; // []
 */
export function infoNCE(z1: Node, z2: Node, options: { readonly temperature: number }): Node {
  const where = "losses.infoNCE";
  checkVector(where, "z1", z1);
  checkFits(where, "z2", z2, z1.shape);
  checkKnown(where, checkObject(where, "options { temperature }", options), ["temperature"]);
  const temperature = checkNumber(where, "temperature", options.temperature);
  if (temperature <= 0) fail("range", where, "temperature must be above 0", `${temperature}`);
  const rate = 1 / temperature;
  const [own, other] = [z1, z2].map((z) => ops.div(z, ops.norm(z))) as [Node, Node];
  const scores = ops.scale(ops.matmul(ops.batchStack(other), own), rate);
  return ops.sub(ops.logsumexp(scores), ops.scale(ops.matmul(own, other), rate));
}

/** Losses of an output and a target, by name. */
const NAMED = { squared, crossEntropy, logistic, cosine } as const;

/** A name, or a function from output and target to a scalar. */
export type Loss = keyof typeof NAMED | ((f: Node, y: Node) => Node);

/** Applies a loss given by name or as a function. */
export function lossOf(where: string, loss: Loss, f: Node, y: Node): Node {
  if (typeof loss === "function") return loss(f, y);
  return NAMED[checkWord(where, "loss", loss, Object.keys(NAMED) as (keyof typeof NAMED)[])](f, y);
}

function checkVector(where: string, what: string, x: Node): void {
  if (checkValue(where, what, x).shape.length !== 1)
    fail("shape", where, `${what} must be a vector`, describe(x));
}

/**
 * Losses of one sample, as functions of values of a model.
 *
 * @namespace
 */
export const losses = { squared, crossEntropy, logistic, cosine, infoNCE } as const;

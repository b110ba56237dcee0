import { fail, showShape } from "../errors.ts";
import type { Block, Model } from "../graph/model.ts";
import type { Node } from "../graph/node.ts";
import { add, matmul, mul, scale, sub, sum, transpose } from "../graph/ops.ts";
import { displaced, fitted, type Generator, quadraticForm } from "./generator.ts";

/**
 * The Noether charge of a generator as an expression of the parameters:
 *
 *   C = 1/2 (theta - c)^T A (theta - c) + b . theta,   grad C = A (theta - c) + b
 *
 * @source theory of exponential symmetries, Ziyin et al. 2024, arXiv:2402.07193, eq. 6 (there
 *         possibly without the 1/2)
 */
export function chargeOf(model: Model, A: Generator, where = "charge"): Node {
  const field = fitted(where, model, A);
  const form = quadraticForm(where, model, field, (name) => displaced(model, field, name));
  const terms = form === null ? [] : [scale(form, 0.5)];
  for (const { name, offset, size, shape } of model.blocks) {
    const b = field.translation?.slice(offset, offset + size);
    if (b?.some((x) => x !== 0))
      terms.push(sum(mul(model.leaf(name), model.graph.constant(b, shape, "translation"))));
  }
  return terms.length === 0 ? model.graph.number(0) : terms.reduce((p, q) => add(p, q));
}

/**
 * 1/2 g^T A g of a step's gradient g: eta^2 times it is what a step without decay adds to the
 * charge, exactly, for a symmetric model (C' = C + eta^2/2 g^T A g). A translation adds nothing.
 */
export function workOf(
  model: Model,
  A: Generator,
  gradient: (block: string) => Node | null,
  where = "work",
): Node {
  const form = quadraticForm(where, model, A, gradient);
  return form === null ? model.graph.number(0) : scale(form, 0.5);
}

/**
 * Matrix charge of a product U W, h x h:  Q = U^T U - W W^T. Gradient flow keeps it when the loss
 * depends on U and W only through U W; C_B = 1/2 Tr[B Q] is the charge of the double rotation by B.
 *
 * @throws NoetherflowError "shape" unless U is dy x h and W is h x dx
 */
export function matrixChargeOf(model: Model, up: string, down: string, where = "matrixCharge"): Node {
  factorsOf(where, model, up, down, false);
  const [u, w] = [model.leaf(up), model.leaf(down)];
  return sub(matmul(transpose(u), u), matmul(w, transpose(w)));
}

/** The blocks of a product U W, or U W^T of the block W; their common size is h. @throws NoetherflowError "shape" or "name" */
export function factorsOf(
  where: string,
  model: Model,
  up: string,
  down: string,
  transposeW: boolean,
): { U: Block; W: Block; h: number } {
  const [U, W] = [model.block(up, where), model.block(down, where)];
  const h = U.shape[1] ?? 0;
  if (U.shape.length !== 2 || W.shape.length !== 2 || W.shape[transposeW ? 1 : 0] !== h)
    fail(
      "shape",
      where,
      `expected matrices U, dy x h, and W, ${transposeW ? "dx x h (its transpose)" : "h x dx"}`,
      `${up} ${showShape(U.shape)} and ${down} ${showShape(W.shape)}`,
    );
  return { U, W, h };
}

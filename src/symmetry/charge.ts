import { fail, showShape } from "../errors.ts";
import type { Model } from "../graph/model.ts";
import type { Node } from "../graph/node.ts";
import { matmul, scale, sub, transpose } from "../graph/ops.ts";
import { checkActsOn, displaced, type Generator, quadraticForm } from "./generator.ts";

/**
 * The Noether charge of a generator as an expression of the parameters:
 *
 *   C = 1/2 (theta - c)^T A (theta - c),   grad C = A (theta - c)
 *
 * @source theory of exponential symmetries, Ziyin et al. 2024, arXiv:2402.07193, eq. 6 (there
 *         possibly without the 1/2)
 */
export function chargeOf(model: Model, A: Generator, where = "charge"): Node {
  checkActsOn(where, model, A);
  const form = quadraticForm(where, model, A, (name) => displaced(model, A, name));
  return form === null ? model.graph.number(0) : scale(form, 0.5);
}

/**
 * 1/2 g^T A g of a step's gradient g: eta^2 times it is what a step without decay adds to the
 * charge, exactly, for a symmetric model (C' = C + eta^2/2 g^T A g).
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
  const [U, W] = [model.block(up, where), model.block(down, where)];
  if (U.shape.length !== 2 || W.shape.length !== 2 || U.shape[1] !== W.shape[0]) {
    fail(
      "shape",
      where,
      "expected matrices U, dy x h, and W, h x dx",
      `${up} ${showShape(U.shape)} and ${down} ${showShape(W.shape)}`,
    );
  }
  const [u, w] = [model.leaf(up), model.leaf(down)];
  return sub(matmul(transpose(u), u), matmul(w, transpose(w)));
}

import type { Model } from "../graph/model.ts";
import type { Node } from "../graph/node.ts";
import { scale } from "../graph/ops.ts";
import { displaced, type Generator, quadraticForm } from "./generator.ts";

/**
 * The Noether charge of a generator as an expression of the parameters:
 *
 *   C = 1/2 (theta - c)^T A (theta - c),   grad C = A (theta - c)
 *
 * @source theory of exponential symmetries, Ziyin et al. 2024, arXiv:2402.07193, eq. 6 (there
 *         possibly without the 1/2)
 */
export function chargeOf(model: Model, A: Generator, where = "charge"): Node {
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

import { fail } from "../errors.ts";
import type { Model } from "../graph/model.ts";
import { type Generator, resolved } from "./generator.ts";

/**
 * A v of a generator and a vector of parameter space, in f64: P -> scalar P + left P + P right on each
 * named block, or the dense product. A center plays no part: it is the linear field's.
 *
 * @throws NoetherflowError "shape" or "name" if A and the model disagree on a block
 */
export function actionOn(where: string, model: Model, A: Generator, v: ArrayLike<number>): Float64Array {
  const { P } = model;
  const out = new Float64Array(P);
  if (A.blocks === null) {
    const dense = A.dense!;
    if (dense.length !== P * P)
      fail("shape", where, `a dense generator of this model is ${P} x ${P}`, `${dense.length} entries`);
    for (let i = 0; i < P; i++) {
      let sum = 0;
      for (let j = 0; j < P; j++) sum += dense[i * P + j]! * v[j]!;
      out[i] = sum;
    }
    return out;
  }
  for (const [name, action] of A.blocks) {
    const { shape, offset } = model.block(name, where);
    const { scalar, left, right } = resolved(`${where}: ${A.name} on ${name}`, action, shape);
    const [rows, cols] = [shape[0] ?? 1, shape[1] ?? 1];
    for (const [side, matrix, size] of [
      ["left", left, rows],
      ["right", right, cols],
    ] as const) {
      if (matrix !== undefined && matrix.size !== size)
        fail(
          "shape",
          where,
          `${A.name} acts on ${name} from the ${side} with ${matrix.size} x ${matrix.size}`,
          `a block of ${rows} x ${cols}`,
        );
    }
    for (let i = 0; i < rows; i++) {
      for (let j = 0; j < cols; j++) {
        let sum = scalar * v[offset + i * cols + j]!;
        for (let k = 0; left && k < rows; k++) sum += left.values[i * rows + k]! * v[offset + k * cols + j]!;
        for (let k = 0; right && k < cols; k++)
          sum += v[offset + i * cols + k]! * right.values[k * cols + j]!;
        out[offset + i * cols + j] = sum;
      }
    }
  }
  return out;
}

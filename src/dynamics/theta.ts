import { fail, show } from "../errors.ts";
import type { Block, Model } from "../graph/model.ts";
import { flatten } from "../graph/parse.ts";

/** A flat theta of P values, or an object of named blocks. */
export type ThetaLike = ArrayLike<number> | Readonly<Record<string, unknown>>;

/** A flat copy of one theta (or another vector of parameter space), given flat or by blocks. */
export function readTheta(where: string, model: Model, theta: unknown, what = "theta"): Float64Array {
  if (Array.isArray(theta) || ArrayBuffer.isView(theta))
    return flatten(`${where}: ${what}`, theta, model.P, [model.P]);
  if (typeof theta !== "object" || theta === null) {
    return fail(
      "shape",
      `${where}: ${what}`,
      `expected ${model.P} values, or an object with ${blockNames(model.blocks)}`,
      show(theta),
    );
  }
  const given = theta as Record<string, unknown>;
  for (const name of Object.keys(given)) model.block(name, `${where}: ${what}`);
  const parts = model.blocks.map((block) => {
    if (!Object.hasOwn(given, block.name)) {
      fail(
        "name",
        `${where}: ${what}`,
        `expected values for ${blockNames(model.blocks)}`,
        `none for ${block.name}`,
      );
    }
    return flatten(`${where}: ${what}.${block.name}`, given[block.name], block.size, block.shape);
  });
  const out = new Float64Array(model.P);
  for (const [i, block] of model.blocks.entries()) out.set(parts[i]!, block.offset);
  return out;
}

const blockNames = (blocks: readonly Block[]): string =>
  blocks.map((b) => `${b.name} [${b.shape.join(", ")}]`).join(", ");

export function readThetas(where: string, model: Model, theta: unknown, replicas: number): Float64Array {
  const { P } = model;
  if (Array.isArray(theta) && theta.length > 0 && typeof theta[0] === "object") {
    if (theta.length !== replicas)
      fail("shape", `${where}: theta`, `expected one theta per replica (${replicas})`, `${theta.length}`);
    const each = theta.map((t, r) => readTheta(`${where}: replica ${r}`, model, t));
    const out = new Float64Array(replicas * P);
    for (const [r, t] of each.entries()) out.set(t, r * P);
    return out;
  }
  const flat = Array.isArray(theta) || ArrayBuffer.isView(theta);
  if (flat && replicas > 1 && (theta as unknown as ArrayLike<number>).length === replicas * P) {
    return flatten(`${where}: theta`, theta, replicas * P, [replicas, P]);
  }
  const one = readTheta(where, model, theta);
  const out = new Float64Array(replicas * P);
  for (let r = 0; r < replicas; r++) out.set(one, r * P);
  return out;
}

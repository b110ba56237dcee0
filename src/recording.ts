import type { Measures } from "./dynamics/draft.ts";
import type { SimulateOptions } from "./dynamics/options.ts";
import { checkInteger, checkKnown, checkObject, fail, show } from "./errors.ts";
import type { Model } from "./graph/model.ts";
import { describe, isSampleValue, type Node } from "./graph/node.ts";
import { chargeOf, matrixChargeOf, workOf } from "./symmetry/charge.ts";
import { Generator } from "./symmetry/generator.ts";

/** What a run records, as expressions: `record` of its options, checked. */
export function readRecord(model: Model, options: SimulateOptions<Generator, Node>): Measures {
  const record = options.record;
  const charges = new Map<string, Node>();
  for (const key of ["charges", "matrixCharges", "values"] as const) {
    if (record?.[key] !== undefined) checkObject(`record.${key}`, "an object of names", record[key]);
  }
  const generators = Object.entries(record?.charges ?? {});
  for (const [name, A] of generators)
    charges.set(name, chargeOf(model, generatorIn(`record.charges.${name}`, A), `record.charges.${name}`));
  const values = new Map<string, Node>();
  for (const [name, node] of Object.entries(record?.values ?? {})) {
    values.set(name, expressionIn(`record.values.${name}`, model, node, "recorded values"));
  }
  const matrixCharges = new Map<string, Node>();
  for (const [name, pair] of Object.entries(record?.matrixCharges ?? {})) {
    const where = `record.matrixCharges.${name}`;
    if (!Array.isArray(pair) || pair.length !== 2)
      fail("shape", where, "expected the names of two blocks, [U, W]", show(pair));
    matrixCharges.set(name, matrixChargeOf(model, pair[0], pair[1], where));
  }
  let average: Measures["average"] = null;
  if (record?.average !== undefined) {
    checkKnown("record.average", checkObject("record.average", "{ from, every? }", record.average), [
      "from",
      "every",
    ]);
    average = {
      from: checkInteger("record.average", "from", record.average.from, 0, 4_294_967_295),
      every: checkInteger("record.average", "every", record.average.every ?? record.every, 1, 4_294_967_295),
    };
    if (charges.size + matrixCharges.size + values.size === 0 && !record.blockNorms) {
      fail(
        "range",
        "record.average",
        "there is nothing to average",
        "no blockNorms, charges, matrixCharges or values",
      );
    }
  }
  return {
    loss: record?.loss ?? null,
    blockNorms: record?.blockNorms ?? false,
    charges,
    work: record?.work
      ? (of) => new Map(generators.map(([name, A]) => [name, workOf(model, A, of, `record.charges.${name}`)]))
      : null,
    matrixCharges,
    values,
    average,
  };
}

/** An expression of the parameters as it came from a caller; `what` names it in the plural. */
export function expressionIn(where: string, model: Model, value: unknown, what: string): Node {
  const node = value as Node | null;
  if (typeof node !== "object" || node === null || node.graph !== model.graph)
    return fail(
      "shape",
      where,
      "expected an expression of this model's parameters",
      show(value),
      "Build it with ops from model.leaf(name).",
    );
  if (isSampleValue(node) || node.phase > 0)
    fail("unsupported", where, `${what} depend on parameters alone`, describe(node));
  return node;
}

/** A generator as it came from a caller. */
export function generatorIn(where: string, A: unknown): Generator {
  return A instanceof Generator
    ? A
    : fail(
        "shape",
        where,
        "expected a generator",
        show(A),
        'Make one with symmetry.rescaling("U", "W") or symmetry.generator({ blocks }).',
      );
}

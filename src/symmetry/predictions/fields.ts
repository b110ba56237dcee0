import { checkKnown, checkNumber, checkObject, fail, show, showShape } from "../../errors.ts";
import type { Matrix } from "../../stats/dense.ts";

/** Reads one named number, or refuses it by its name. */
export type Rule = (where: string, name: string, value: unknown) => number;

/** Any finite number. */
export const finite: Rule = (where, name, value) => checkNumber(where, name, value);

/** A finite number of at least 0. */
export const nonNegative: Rule = (where, name, value) => checkNumber(where, name, value, 0);

/** A finite number above 0. */
export const positive: Rule = (where, name, value) => above0(where, name, value);

/** As `positive`, with a hint. */
export const positiveOr =
  (hint: string): Rule =>
  (where, name, value) =>
    above0(where, name, value, hint);

/** An integer of at least 1. */
export const count: Rule = (where, name, value) => {
  if (Number.isInteger(checkNumber(where, name, value, 1))) return value as number;
  return fail("range", where, `${name} must be an integer of at least 1`, show(value));
};

/** S_eff: at least 1; Infinity where a batch is all of the data. */
export const batch: Rule = (where, name, value) =>
  value === Infinity ? Infinity : checkNumber(where, name, value, 1);

/** At least 0; Infinity counts. */
export const orInfinite: Rule = (where, name, value) =>
  value === Infinity ? Infinity : checkNumber(where, name, value, 0);

/** beta of momentum, in [0, 1). */
export const momentum: Rule = (where, name, value) => {
  const beta = checkNumber(where, name, value, 0);
  return beta < 1 ? beta : fail("range", where, `${name} must be below 1`, `${beta}`);
};

/** A rule for a field that may be absent. */
export const optional =
  (rule: Rule, absent: number): Rule =>
  (where, name, value) =>
    value === undefined ? absent : rule(where, name, value);

/**
 * The numbers of a caller's object, each by its rule.
 *
 * @param others names of further fields that the caller of this reads
 * @throws NoetherflowError "shape" (no object), "name" (a field nobody reads), "range" naming the field
 */
export function readFields<K extends string>(
  where: string,
  given: unknown,
  rules: Readonly<Record<K, Rule>>,
  others: readonly string[] = [],
): Record<K, number> {
  const names = Object.keys(rules) as K[];
  const all = [...names, ...others];
  const fields = checkObject(where, `{ ${all.join(", ")} }`, given);
  checkKnown(where, fields, all);
  return Object.fromEntries(names.map((n) => [n, rules[n](where, n, fields[n])])) as Record<K, number>;
}

/** A finite matrix of this size. */
export function readMatrix(where: string, name: string, given: unknown, rows?: number): Matrix {
  const m = checkObject(where, `${name} as a matrix { rows, cols, values }`, given) as unknown as Matrix;
  const n = rows ?? m.rows;
  if (!Number.isInteger(m.rows) || m.rows !== n || m.cols !== n)
    fail(
      "shape",
      where,
      rows === undefined ? `${name} must be square` : `${name} must be like H, ${showShape([n, n])}`,
      showShape([m.rows, m.cols]),
    );
  readVector(where, `${name}.values`, m.values, n * n, `${n} x ${n}`);
  return m;
}

/** `size` finite numbers. */
export function readVector(
  where: string,
  name: string,
  given: unknown,
  size: number,
  is = `${size}`,
): ArrayLike<number> {
  if (!Array.isArray(given) && !ArrayBuffer.isView(given))
    fail("shape", where, `${name} must hold ${is} values`, show(given));
  const values = given as unknown as ArrayLike<number>;
  if (values.length !== size)
    fail("shape", where, `${name} must hold ${is} values`, `${values.length} values`);
  for (let i = 0; i < size; i++)
    if (!Number.isFinite(values[i]))
      fail("nonfinite", where, `${name} must be finite`, `${show(values[i])} at position ${i}`);
  return values;
}

function above0(where: string, name: string, value: unknown, hint?: string): number {
  const x = checkNumber(where, name, value);
  return x > 0 ? x : fail("range", where, `${name} must be above 0`, `${x}`, hint);
}

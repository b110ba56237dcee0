import { checkInteger, checkNumber, fail, nearest, show } from "../errors.ts";
import type { Parameter } from "./experiment.ts";

/** Defaults with the caller's settings over them, every one checked against its range. */
export function readSpec<T extends Readonly<Record<string, Parameter>>>(
  id: string,
  parameters: T,
  given: Readonly<Record<string, number>>,
): { [K in keyof T]: number } {
  for (const name of Object.keys(given)) {
    if (!Object.hasOwn(parameters, name)) {
      const known = Object.keys(parameters);
      fail("name", id, `settings are ${known.join(", ")}`, show(name), nearest(name, known));
    }
  }
  const out: Record<string, number> = {};
  for (const [name, { value, min, max, integer }] of Object.entries(parameters)) {
    const chosen = given[name] ?? value;
    out[name] = integer ? checkInteger(id, name, chosen, min, max) : checkNumber(id, name, chosen, min, max);
  }
  return out as { [K in keyof T]: number };
}

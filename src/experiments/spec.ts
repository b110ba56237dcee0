import { z } from "zod";
import { fail, nearest, show } from "../errors.ts";

/** One setting of a spec: its default, what it may be, and in which unit. */
export interface Parameter {
  /** The default. */
  readonly value: number;
  /** Least that is accepted. */
  readonly min: number;
  /** Most that is accepted. */
  readonly max: number;
  /** Whole numbers only. */
  readonly integer?: boolean;
  /** Unit, "1" or absent for a pure number: theta^2 / loss for eta, say. */
  readonly unit?: string;
  /** What it is, in words. */
  readonly what: string;
}

/** The settings of an experiment as a zod schema: numbers with ranges, defaults, descriptions and units. */
export function schemaOf(
  parameters: Readonly<Record<string, Parameter>>,
): z.ZodObject<Record<string, z.ZodDefault<z.ZodNumber>>> {
  const one = ({ value, min, max, integer, unit = "1", what }: Parameter) => {
    const number = integer ? z.number().int() : z.number();
    return number.min(min).max(max).default(value).meta({ description: what, unit });
  };
  return z.strictObject(Object.fromEntries(Object.entries(parameters).map(([name, p]) => [name, one(p)])));
}

/** Defaults with the caller's settings over them, every one checked against its range. */
export function readSpec<T extends Readonly<Record<string, Parameter>>>(
  id: string,
  parameters: T,
  given: Readonly<Record<string, number>>,
): { [K in keyof T]: number } {
  const read = schemaOf(parameters).safeParse(given);
  if (read.success) return read.data as { [K in keyof T]: number };
  const issue = read.error.issues[0]!;
  if (issue.code === "unrecognized_keys") {
    const known = Object.keys(parameters);
    const [name] = issue.keys as [string];
    return fail("name", id, `settings are ${known.join(", ")}`, show(name), nearest(name, known));
  }
  const name = String(issue.path[0]);
  const p = parameters[name];
  if (p === undefined) return fail("shape", id, "settings by name", show(given));
  const kind = p.integer ? "an integer" : "a finite number";
  return fail("range", id, `${name} must be ${kind} in [${p.min}, ${p.max}]`, show(given[name]));
}

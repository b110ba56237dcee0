import { checkInteger, checkKnown, checkNumber, checkObject, checkWord, fail } from "../errors.ts";
import { flatten } from "../graph/parse.ts";

/**
 * How the learning rate changes: eta_k = eta times a factor of step k, or the eta_k themselves as a list (one per step;
 * they take the place of eta). Every kind may begin with a linear warm-up, factor (k + 1) / warmup for k < warmup; then, with
 * j = k - warmup,
 *
 *   warmup   1, `steps` being the length of the warm-up
 *   cosine   final + (1 - final) (1 + cos(pi j / steps)) / 2; `steps` is what is left of the run when absent
 *   step     factor^floor(j / every)
 *   inverse  1 / (1 + j / steps)
 */
export type Schedule =
  | readonly number[]
  | Float64Array
  | { readonly kind: "constant" }
  | { readonly kind: "warmup"; readonly steps: number }
  | { readonly kind: "cosine"; readonly steps?: number; readonly final?: number; readonly warmup?: number }
  | { readonly kind: "step"; readonly every: number; readonly factor?: number; readonly warmup?: number }
  | { readonly kind: "inverse"; readonly steps: number; readonly warmup?: number };

/** A schedule as `assembly/rates.ts` reads it. */
export interface ScheduleSetting {
  /** What was asked for, for the record of the run. */
  readonly given: unknown;
  readonly kind: 0 | 1 | 2 | 3 | 4;
  readonly warmup: number;
  readonly period: number;
  readonly number: number;
  readonly table: Float64Array | null;
}

const KINDS = ["constant", "warmup", "cosine", "step", "inverse"] as const;
const MAX = 4_294_967_295;

/** @returns null for a rate that does not change */
export function readSchedule(where: string, schedule: unknown, steps: number): ScheduleSetting | null {
  if (schedule === undefined) return null;
  const at = `${where}: schedule`;
  if (Array.isArray(schedule) || ArrayBuffer.isView(schedule)) {
    const table = flatten(at, schedule, steps, [steps]);
    for (const [k, eta] of table.entries()) checkNumber(at, `eta of step ${k}`, eta, 0);
    return { given: [...table], kind: 4, warmup: 0, period: 1, number: 0, table };
  }
  const given = checkObject(
    at,
    `a list of eta_k, or { kind: ${KINDS.map((k) => `"${k}"`).join(" | ")} }`,
    schedule,
  );
  const kind = checkWord(at, "kind", (given as { kind?: unknown }).kind, KINDS);
  const of = given as Record<string, unknown>;
  const names: Record<(typeof KINDS)[number], readonly string[]> = {
    constant: ["kind"],
    warmup: ["kind", "steps"],
    cosine: ["kind", "steps", "final", "warmup"],
    step: ["kind", "every", "factor", "warmup"],
    inverse: ["kind", "steps", "warmup"],
  };
  checkKnown(at, given, names[kind]);
  const whole = (name: string, least: number, standard?: number): number =>
    checkInteger(at, name, of[name] === undefined ? standard : of[name], least, MAX);
  const warmup = kind === "warmup" ? whole("steps", 1) : kind === "constant" ? 0 : whole("warmup", 0, 0);
  const plain = { given: { ...given }, kind: 0 as const, warmup, period: 1, number: 0, table: null };
  switch (kind) {
    case "cosine": {
      const final = of["final"] === undefined ? 0 : checkNumber(at, "final", of["final"], 0);
      return { ...plain, kind: 1, period: whole("steps", 1, Math.max(1, steps - warmup)), number: final };
    }
    case "step": {
      const factor = of["factor"] === undefined ? 0.1 : checkNumber(at, "factor", of["factor"], 0);
      if (factor === 0) fail("range", at, "factor must be above 0", "0");
      return { ...plain, kind: 2, period: whole("every", 1), number: factor };
    }
    case "inverse":
      return { ...plain, kind: 3, period: whole("steps", 1) };
    default:
      return warmup === 0 ? null : plain;
  }
}

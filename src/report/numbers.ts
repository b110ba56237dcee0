/** Numbers and verdicts in words. */
import type { Row } from "../experiments/experiment.ts";

/**
 * A number with the digits a reader can use: 4 significant, plain between 1e-3 and 1e5.
 *
 * @example showNumber(0.000123456); // "1.23e-4"
 */
export function showNumber(x: number, digits = 4): string {
  if (!Number.isFinite(x)) return String(x);
  if (x === 0) return "0";
  return isPlain(x) ? String(Number(x.toPrecision(digits))) : x.toExponential(Math.max(2, digits - 2));
}

/** The same with a minus sign and a power of ten in HTML. */
export function numberHTML(x: number, digits = 4): string {
  const [mantissa, exponent] = showNumber(x, digits).replaceAll("-", "−").replace("+", "").split("e");
  return exponent === undefined
    ? mantissa!.replace("Infinity", "∞")
    : `${mantissa} × 10<sup>${exponent}</sup>`;
}

/** The same in plain text, for figures: 2×10⁻⁵; 10⁻⁵ where the mantissa is 1. */
export function numberText(x: number, plain = isPlain(x)): string {
  if (x === 0 || !Number.isFinite(x)) return String(x);
  if (plain) return group(String(Number(x.toPrecision(6)))).replace("-", "−");
  const [mantissa, exponent] = String(x.toExponential(3)).split("e") as [string, string];
  const power = `10${[...String(Number(exponent))].map((c) => (c === "-" ? "⁻" : SUPERSCRIPTS[Number(c)])).join("")}`;
  const m = Number(mantissa);
  if (Number(exponent) === 0) return String(m);
  return m === 1 ? power : `${String(m).replace("-", "−")}×${power}`;
}

const SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹";

function isPlain(x: number): boolean {
  const size = Math.abs(x);
  return size >= 1e-3 && size < 1e6;
}

/** Thousands apart from 10 000 on. */
function group(digits: string): string {
  return /^-?\d{5,}$/.test(digits) ? digits.replace(/\B(?=(\d{3})+$)/g, "\u202f") : digits;
}

/** The e in m 10^e, 1 <= |m| < 10. */
export function exponentOf(x: number): number {
  return Number(x.toExponential().split("e")[1]);
}

/** Digits of x that show two of its doubt, 4 to 6. */
export function digitsFor(x: number, doubt: number): number {
  if (!(doubt > 0) || x === 0 || !Number.isFinite(x)) return 4;
  return Math.min(6, Math.max(4, exponentOf(x) - exponentOf(doubt) + 2));
}

/** Measured and predicted differ by this much of what is allowed. */
export function gapRatio({ verdict }: Row): number {
  if (verdict.gap === 0) return 0;
  return verdict.allowed > 0 ? verdict.gap / verdict.allowed : verdict.gap * Number.POSITIVE_INFINITY;
}

/** `agrees`, `agrees in the limit` of small eta, or `disagrees`. */
export function showVerdict({ verdict }: Row): string {
  if (!verdict.agrees) return "disagrees";
  return Math.abs(verdict.gap) <= verdict.allowed ? "agrees" : "agrees in the limit";
}

/** The largest gap of some rows in units of what is allowed; those that agree in the limit do by another rule. */
export function worstRatio(rows: readonly Row[]): number {
  return rows
    .filter((row) => showVerdict(row) !== "agrees in the limit")
    .reduce((m, row) => Math.max(m, Math.abs(gapRatio(row))), 0);
}

export const countInLimit = (rows: readonly Row[]): number =>
  rows.filter((row) => showVerdict(row) === "agrees in the limit").length;

/** `all agree`, or how many of how many. */
export function countAgreeing(rows: readonly Row[]): string {
  const good = rows.filter((r) => r.verdict.agrees).length;
  return good === rows.length
    ? rows.length === 1
      ? "agrees"
      : "all agree"
    : `${good} of ${rows.length} agree`;
}

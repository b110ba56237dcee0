import type { Equilibrium } from "./equilibrium.ts";
import type { NoetherFlow } from "./flow.ts";
import type { Generator } from "./generator.ts";

/** What is known of one symmetry at a theta. */
export interface SymmetryRow {
  readonly name: string;
  readonly generator: Generator;
  /** 1: A has both signs, so noise has an equilibrium; 2: it has one, so the charge grows or falls for ever without decay. */
  readonly class: 1 | 2 | null;
  /** It moves only what the loss does not see. */
  readonly flat: boolean;
  readonly verdict: "exact" | "approximate" | "none";
  readonly defect: number;
  /** Gradient flow keeps the charge: an exact symmetry with a symmetric A. */
  readonly conserved: boolean;
  /** null where A is not symmetric and has none, as its flow. */
  readonly charge: number | null;
  readonly flow: NoetherFlow | null;
  /** null where the field is no exact symmetry. */
  readonly equilibrium: Equilibrium | { readonly status: "none"; readonly reason: string } | null;
  /** 1 / rate near the equilibrium, in units of time k eta; null where there is no finite one. */
  readonly timeScale: number | null;
  /** The same in steps; null when eta is not known. */
  readonly steps: number | null;
}

const COLUMNS = [
  "symmetry",
  "class",
  "conserved by GD",
  "charge C",
  "dC/dt",
  "ln N+/N-",
  "equilibrium",
  "C there",
  "tau",
  "steps",
] as const;

/** Four digits, short. */
const short = (x: number | null): string => {
  if (x === null || Number.isNaN(x)) return "-";
  if (x === Infinity) return "+inf";
  if (x === -Infinity) return "-inf";
  return x === 0 ? "0" : String(Number(x.toPrecision(4)));
};

function cellsOf(row: SymmetryRow): string[] {
  const { equilibrium: e } = row;
  const finite = e !== null && e.status === "finite" ? e : null;
  return [
    row.name,
    row.flat ? "flat" : row.class === null ? "-" : String(row.class),
    row.conserved ? "yes" : row.verdict === "exact" ? "no charge" : "no",
    short(row.charge),
    short(row.flow?.total ?? null),
    short(row.flow?.logRatio ?? null),
    finite ? `lambda ${short(finite.lambda)}` : (e?.status ?? (row.verdict === "exact" ? "-" : row.verdict)),
    short(finite ? finite.charge : null),
    short(row.timeScale),
    short(row.steps),
  ];
}

/** Every symmetry of a problem at a theta: data, and as text or HTML. */
export class SymmetrySummary {
  readonly rows: readonly SymmetryRow[];
  /** How symmetries were found, if they were searched for. */
  readonly discovery: { readonly count: number; readonly flat: number; readonly gap: number } | null;

  constructor(rows: readonly SymmetryRow[], discovery: SymmetrySummary["discovery"]) {
    this.rows = rows;
    this.discovery = discovery;
  }

  /** A table of fixed width. */
  toString(): string {
    const cells = [[...COLUMNS], ...this.rows.map(cellsOf)];
    const widths = COLUMNS.map((_, c) => Math.max(...cells.map((row) => row[c]!.length)));
    const line = (row: readonly string[]) =>
      row
        .map((cell, c) => (c === 0 ? cell.padEnd(widths[c]!) : cell.padStart(widths[c]!)))
        .join("  ")
        .trimEnd();
    const found =
      this.discovery === null
        ? []
        : [`${this.discovery.count} generators found, ${this.discovery.flat} of them flat`];
    return [...cells.map(line), ...found].join("\n");
  }

  /** The same as an HTML table, text escaped. */
  toHTML(): string {
    const escaped = (text: string) =>
      text.replace(/[&<>"]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c]!);
    const row = (cells: readonly string[], tag: "th" | "td") =>
      `<tr>${cells.map((c) => `<${tag}>${escaped(c)}</${tag}>`).join("")}</tr>`;
    const body = this.rows.map((r) => row(cellsOf(r), "td")).join("\n");
    return `<table>\n<thead>${row(COLUMNS, "th")}</thead>\n<tbody>\n${body}\n</tbody>\n</table>`;
  }

  /** Plain data; numbers that JSON has no word for as text. */
  toJSON(): unknown {
    const plain = (_: string, value: unknown): unknown =>
      typeof value === "number" && !Number.isFinite(value) ? String(value) : value;
    return JSON.parse(JSON.stringify({ rows: this.rows, discovery: this.discovery }, plain)) as unknown;
  }
}

import type { Equilibrium } from "./equilibrium.ts";
import type { NoetherFlow } from "./flow.ts";
import type { Generator } from "./generator.ts";

/** What is known of one symmetry at a theta. */
export interface SymmetryRow {
  /** As it was given, or found. */
  readonly name: string;
  /** The generator. */
  readonly generator: Generator;
  /** 1: A has both signs, so noise has an equilibrium; 2: it has one, so the charge grows or falls for ever without decay. */
  readonly class: 1 | 2 | null;
  /** It moves only what the loss does not see. */
  readonly flat: boolean;
  /** Is it a symmetry; see checkSymmetry. */
  readonly verdict: "exact" | "approximate" | "none";
  /** The largest |g_n . J| / (|g_n| |J|). */
  readonly defect: number;
  /** Gradient flow keeps the charge: an exact symmetry with a symmetric A. */
  readonly conserved: boolean;
  /** null where A is not symmetric and has none, as its flow. */
  readonly charge: number | null;
  /** Parts of dC/dt. */
  readonly flow: NoetherFlow | null;
  /** null where the field is no exact symmetry. */
  readonly equilibrium: Equilibrium | { readonly status: "none"; readonly reason: string } | null;
  /** 1 / rate near the equilibrium, in units of time k eta; null where there is no finite one. */
  readonly timeScale: number | null;
  /** The same in steps; null when eta is not known. */
  readonly steps: number | null;
  /** tau_2 / tau_1, how slow the charge is beside the loss; null where either is. */
  readonly ratio: number | null;
  /** "fast" up to .3: the charge follows its equilibrium while the loss falls; "slow" from 3: it drifts when the loss has fallen. */
  readonly phase: "fast" | "slow" | "between" | null;
}

/** How fast the loss falls at theta. */
export interface LossScale {
  /** L, without decay. */
  readonly value: number;
  /** L_inf, as it was given. */
  readonly atRest: number;
  /** |gbar|^2; 0 where it is rounding. */
  readonly squaredGradient: number;
  /** (L - L_inf) / |gbar|^2, its e-folding time; null at rest. */
  readonly tau1: number | null;
  /** The same in steps; null when eta is not known. */
  readonly steps: number | null;
}

/** A column: its head as text, its head and meaning on a page, and whether it holds numbers. */
const COLUMNS = [
  ["symmetry", "Symmetry", "", false],
  ["class", "Class", "1: A has both signs; 2: one; flat: the loss does not see it", false],
  ["GD keeps", "GD keeps", "gradient flow keeps the charge", false],
  ["C", "C", "charge", true],
  ["dC/dt", "dC/dt", "Noether flow", true],
  ["ln N+/N-", "ln N\u208a/N\u208b", "noise of the two signs: 0 in balance without decay", true],
  ["residual", "Residual", "of the balance, in [-1, 1]: 0 at the equilibrium", true],
  ["lambda*", "\u03bb*", "where on the orbit noise balances", true],
  ["C*", "C*", "charge there", true],
  ["tau2", "\u03c4\u2082", "time to get there", true],
  ["steps", "Steps", "\u03c4\u2082 in steps", true],
  ["tau2/tau1", "\u03c4\u2082/\u03c4\u2081", "beside the time of the loss", true],
  ["phase", "Phase", "fast: up to 0.3; slow: from 3", false],
] as const;

/** A charge at its equilibrium below this of that at theta is shown as 0. */
const ROUNDING = 1e-14;

/** Some digits, short. */
const short = (x: number | null, digits = 4): string => {
  if (x === null || Number.isNaN(x)) return "-";
  if (x === Infinity) return "+inf";
  if (x === -Infinity) return "-inf";
  return x === 0 ? "0" : String(Number(x.toPrecision(digits)));
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
    short(row.flow?.logRatio ?? null, 3),
    short(row.flow?.residual ?? null, 3),
    finite ? short(finite.lambda) : (e?.status ?? (row.verdict === "exact" ? "-" : row.verdict)),
    short(finite && (Math.abs(finite.charge) <= ROUNDING * Math.abs(finite.charge0) ? 0 : finite.charge)),
    short(row.timeScale, 3),
    short(row.steps, 3),
    short(row.ratio, 3),
    row.phase ?? "-",
  ];
}

/** Every symmetry of a problem at a theta: data, and as text or HTML. */
export class SymmetrySummary {
  /** One row for each generator. */
  readonly rows: readonly SymmetryRow[];
  /** How symmetries were found, if they were searched for. */
  readonly discovery: { readonly count: number; readonly flat: number; readonly gap: number } | null;

  /** How fast the loss falls, beside which charges are fast or slow. */
  readonly loss: LossScale;

  /** @internal use problem.report */
  constructor(rows: readonly SymmetryRow[], discovery: SymmetrySummary["discovery"], loss: LossScale) {
    this.rows = rows;
    this.discovery = discovery;
    this.loss = loss;
  }

  /** What stands below the table: the loss, and the search. */
  get notes(): readonly string[] {
    const { value, atRest, tau1, steps } = this.loss;
    const time = tau1 === null ? "no time scale" : `tau1 ${short(tau1)}`;
    const also = steps === null ? "" : `, ${short(steps)} steps`;
    const loss = `loss ${short(value)}, at rest ${short(atRest)}: ${time}${also}`;
    if (this.discovery === null) return [loss];
    const { count } = this.discovery;
    const flat = this.rows.filter((row) => row.flat).length;
    return [loss, `${count} generator${count === 1 ? "" : "s"} found, ${flat} of them flat`];
  }

  /** A table of fixed width. */
  toString(): string {
    const cells = [COLUMNS.map(([head]) => head as string), ...this.rows.map(cellsOf)];
    const widths = COLUMNS.map((_, c) => Math.max(...cells.map((row) => row[c]!.length)));
    const line = (row: readonly string[]) =>
      row
        .map((cell, c) => (c === 0 ? cell.padEnd(widths[c]!) : cell.padStart(widths[c]!)))
        .join("  ")
        .trimEnd();
    return [...(this.rows.length > 0 ? cells.map(line) : []), ...this.notes].join("\n");
  }

  /**
   * The same as an HTML table with a caption, heads of rows and columns, and class "n" on numbers; text escaped. For a page
   * of its own: `symmetryPage` of noetherflow/report.
   */
  toHTML(caption = "Symmetries, their charges, and where gradient noise takes them"): string {
    const heads = COLUMNS.map(
      ([, head, meaning, isNumber]) =>
        `<th scope="col"${isNumber ? ' class="n"' : ""}${meaning === "" ? "" : ` title="${escaped(meaning)}"`}>${escaped(head)}</th>`,
    );
    const body = this.rows.map(cellsOf).map(([name, ...cells]) => {
      const data = cells.map(
        (cell, c) => `<td${COLUMNS[c + 1]![3] ? ' class="n"' : ""}>${escaped(cell)}</td>`,
      );
      return `<tr><th scope="row">${escaped(name!)}</th>${data.join("")}</tr>`;
    });
    return [
      "<table>",
      `<caption>${escaped(caption)}</caption>`,
      `<thead><tr>${heads.join("")}</tr></thead>`,
      `<tbody>\n${body.join("\n")}\n</tbody>`,
      "</table>",
    ].join("\n");
  }

  /** Plain data; numbers that JSON has no word for as text. */
  toJSON(): unknown {
    const plain = (_: string, value: unknown): unknown =>
      typeof value === "number" && !Number.isFinite(value) ? String(value) : value;
    return JSON.parse(
      JSON.stringify({ rows: this.rows, discovery: this.discovery, loss: this.loss }, plain),
    ) as unknown;
  }
}

function escaped(text: string): string {
  return text.replace(/[&<>"]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c]!);
}

/** One experiment of a report: question, formula, figures, rows, settings, how to do it again, and its data. */
import type { Figure, Result, Row } from "../experiments/experiment.ts";
import { commandOf } from "./command.ts";
import { dataLink, figureCSV, plainRows, rowsCSV } from "./data.ts";
import { drawFigure, legendOf, NARROW, sentence, WIDE } from "./figure.ts";
import {
  countAgreeing,
  countInLimit,
  digitsFor,
  gapRatio,
  numberHTML,
  numberText,
  showVerdict,
  worstRatio,
} from "./numbers.ts";
import { type Column, cardTable, escapeHtml } from "./page.ts";
import type { Provenance } from "./report.ts";

/** More rows than this are folded where all agree. */
const SHOWN_ROWS = 12;

/** A result with the name that its place in the page and its files have: its id, numbered where it is there again. */
export interface Named {
  readonly name: string;
  readonly result: Result;
}

export function named(results: readonly Result[]): Named[] {
  const seen = new Map<string, number>();
  return results.map((result) => {
    const times = (seen.get(result.id) ?? 0) + 1;
    seen.set(result.id, times);
    return { result, name: times === 1 ? result.id : `${result.id}-${times}` };
  });
}

export function experimentHTML({ name, result: r }: Named, provenance: Provenance): string {
  const id = escapeHtml(name);
  const neglected = [...new Set(r.rows.map((row) => row.predicted.neglects))];
  const inLimit = countInLimit(r.rows);
  const facts = [
    `${r.rows.length} ${r.rows.length === 1 ? "row" : "rows"}`,
    ...(inLimit === 0 ? [] : [`${inLimit} in the limit`]),
    `largest gap ${ratioText(worstRatio(r.rows))} of what is allowed`,
    seconds(r.elapsedMs),
    ...(name === r.id ? [] : [`seed ${seedOf(r, provenance)}`]),
  ];
  return `<section aria-labelledby="${id}">
<h2 id="${id}"><span class="id">${escapeHtml(r.id)}</span> ${escapeHtml(r.title)}</h2>
<p class="badge">${countHTML(r.rows)} <span class="fine">${escapeHtml(facts.join(", "))}</span></p>
<p>${escapeHtml(r.question)}</p>
${r.formula === undefined ? "" : `<pre class="formula">${escapeHtml(r.formula)}</pre>`}
<p><strong>What to look for.</strong> ${escapeHtml(r.claim)}</p>
${r.figures.map(figureHTML).join("\n")}
${rowsHTML(name, r)}
<p class="fine"><strong>The model error covers</strong> ${escapeHtml(neglected.join("; "))}.</p>
<p class="fine"><strong>Source.</strong> ${escapeHtml(sentence(r.source))}</p>
${settingsHTML(r)}
${againHTML(r, provenance)}
${downloadsHTML(name, r)}
</section>`;
}

/** "all agree", or how many do, with a sign and a colour. */
export function countHTML(rows: readonly Row[]): string {
  const kind = rows.every((row) => row.verdict.agrees) ? "yes" : "no";
  return `<span class="verdict ${kind}">${countAgreeing(rows)}</span>`;
}

export const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`;

/** A gap in units of what was allowed. */
export function ratioText(ratio: number): string {
  const size = Math.abs(ratio);
  const digits =
    size === 0
      ? "0"
      : size < 0.005
        ? "<0.01"
        : size < 100
          ? size.toFixed(2)
          : size === Number.POSITIVE_INFINITY
            ? "∞"
            : ">100";
  return ratio < 0 && size >= 0.005 ? `−${digits}` : digits;
}

/** The same with a bar: full where the gap is all that is allowed. */
export function ratioHTML(ratio: number, agrees: boolean): string {
  const size = Math.abs(ratio);
  const fill = Math.min(100, Math.round(100 * size));
  return `${escapeHtml(ratioText(ratio))}<span class="bar${size > 1 ? (agrees ? " near" : " over") : ""}" style="--g:${fill}%"></span>`;
}

/** Predicted, measured and standard error of a row, with the digits that its doubt allows. */
export function valuesOf({ predicted, measured, verdict }: Row): [string, string, string] {
  const doubt = measured.stdErr > 0 ? measured.stdErr : Math.abs(verdict.gap);
  const digits = digitsFor(Math.max(Math.abs(predicted.value), Math.abs(measured.value)), doubt);
  const error = measured.method === "exact" ? "exact" : numberHTML(measured.stdErr, 2);
  return [numberHTML(predicted.value, digits), numberHTML(measured.value, digits), error];
}

export const rowId = (id: string, index: number): string => `${id}-row-${index + 1}`;

const COLUMNS: readonly Column[] = [
  { head: "Case" },
  { head: "Quantity" },
  { head: "Predicted", number: true },
  { head: "Model error", number: true },
  { head: "Measured", number: true },
  { head: "Std. error", number: true },
  { head: "Gap / allowed", number: true },
  { head: "Verdict" },
];

function rowsHTML(name: string, r: Result): string {
  const rows = r.rows.map((row, i) => {
    const [predicted, measured, error] = valuesOf(row);
    const model = row.predicted.modelError === 0 ? "0" : numberHTML(row.predicted.modelError, 2);
    return {
      id: rowId(name, i),
      cells: [
        escapeHtml(row.setting),
        escapeHtml(row.quantity),
        predicted,
        model,
        measured,
        error,
        ratioHTML(gapRatio(row), row.verdict.agrees),
        verdictHTML(row),
      ],
    };
  });
  const table = cardTable(`Predicted and measured in ${r.id}`, COLUMNS, rows);
  if (r.rows.length <= SHOWN_ROWS) return table;
  const open = r.rows.some((row) => !row.verdict.agrees) ? " open" : "";
  return `<details${open}><summary>All ${r.rows.length} rows, predicted and measured</summary>${table}</details>`;
}

/** The verdict in words; where it is not plain agreement, with the gaps behind it. */
function verdictHTML(row: Row): string {
  const { gap, allowed, limit } = row.verdict;
  const words = showVerdict(row);
  const kind = { agrees: "yes", "agrees in the limit": "limit", disagrees: "no" }[words];
  if (kind === "yes") return `<span class="verdict yes">${words}</span>`;
  const at = `gap ${numberHTML(gap, 3)}, allowed ${numberHTML(allowed, 3)}`;
  const half = limit === undefined ? "" : `; gap ${numberHTML(limit.gap, 3)} at η / 2`;
  return `<span class="verdict ${kind}">${words}</span><small>${at}${half}</small>`;
}

function figureHTML(figure: Figure): string {
  const legend = legendOf(figure)
    .map(
      ({ words, svg }) =>
        `<li><svg width="28" height="12" viewBox="0 0 28 12" aria-hidden="true">${svg}</svg>${escapeHtml(words)}</li>`,
    )
    .join("");
  return `<figure>
<figcaption><strong>${escapeHtml(sentence(figure.title))}</strong> ${escapeHtml(figure.caption)}</figcaption>
<ul class="legend">${legend}</ul>
<div class="plot"><div class="wide-plot">${drawFigure(figure, WIDE)}</div><div class="narrow">${drawFigure(figure, NARROW)}</div></div>
</figure>`;
}

function settingsHTML({ id, parameters, spec }: Result): string {
  const rows = Object.entries(spec)
    .filter(([name]) => name !== "seed")
    .map(([name, value]) => {
      const p = parameters[name];
      const shown = typeof value === "number" ? numberText(value) : escapeHtml(String(value));
      const changed =
        p !== undefined && p.value !== value ? `<small>default ${numberText(p.value)}</small>` : "";
      const range = p === undefined ? "" : `${numberText(p.min)} to ${numberText(p.max)}`;
      return {
        cells: [
          `<code>${escapeHtml(name)}</code>`,
          `${shown}${changed}`,
          escapeHtml(p?.unit === undefined || p.unit === "1" ? "–" : p.unit),
          range,
          escapeHtml(p?.what ?? ""),
        ],
      };
    });
  if (rows.length === 0) return "";
  const columns = [
    { head: "Name" },
    { head: "Value", number: true },
    { head: "Unit" },
    { head: "May be", number: true },
    { head: "What it is" },
  ];
  return `<details><summary>Settings</summary>${cardTable(`Settings of ${id}`, columns, rows)}</details>`;
}

/** A result of several seeds knows its own. */
const seedOf = ({ spec }: Result, provenance: Provenance): string =>
  typeof spec.seed === "string" ? spec.seed : provenance.seed;

/** The command and the program that do it again, to the same bits. */
function againHTML(r: Result, provenance: Provenance): string {
  const { dtype } = provenance;
  const seed = seedOf(r, provenance);
  const settings = Object.fromEntries(Object.entries(r.spec).filter(([name]) => name !== "seed"));
  const literal = Object.entries(settings).map(([name, value]) => `  ${name}: ${JSON.stringify(value)},`);
  const code = `import { createEngine } from "noetherflow";
import { experiments, runExperiment } from "noetherflow/experiments";

const engine = await createEngine(${dtype === "f64" ? "" : `{ dtype: ${JSON.stringify(dtype)} }`});
const settings = {
${literal.join("\n")}
};
const result = await runExperiment(experiments.get(${JSON.stringify(r.id)})!, engine, settings, ${JSON.stringify(seed)});
console.table(result.rows.map(({ quantity, predicted, measured, verdict }) =>
  ({ quantity, predicted: predicted.value, measured: measured.value, agrees: verdict.agrees })));`;
  return `<details><summary>Do it again</summary>
<pre><code>${escapeHtml(commandOf(r, seed))}</code></pre>
<pre><code>${escapeHtml(code)}</code></pre></details>`;
}

function downloadsHTML(name: string, r: Result): string {
  const links = [
    dataLink("Rows as CSV", `${name}-rows.csv`, "text/csv", rowsCSV([r])),
    dataLink(
      "Rows as JSON",
      `${name}-rows.json`,
      "application/json",
      `${JSON.stringify(plainRows(r.rows), null, 1)}\n`,
    ),
    ...r.figures.map((figure, i) =>
      dataLink(
        `Data of ${r.figures.length === 1 ? "the figure" : `figure ${i + 1}`} as CSV`,
        `${name}-figure-${i + 1}.csv`,
        "text/csv",
        figureCSV(figure),
      ),
    ),
  ];
  return `<ul class="downloads">${links.map((l) => `<li>${l}</li>`).join("")}</ul>
<p class="fine">The folder <code>${escapeHtml(name)}/</code> beside this report holds its figures as SVG and PNG, and a record of every run that does it again to the same bits.</p>`;
}

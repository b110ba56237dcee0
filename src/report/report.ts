/**
 * Results of experiments as tables, CSV, SVG, PNG and one self-contained page.
 *
 * @module noetherflow/report
 */

import type { Result } from "../experiments/experiment.ts";
import { dataLink, plainRows, rowsCSV } from "./data.ts";
import { countAgreeing, countInLimit, showNumber, showVerdict, worstRatio } from "./numbers.ts";
import { type Column, cardTable, escapeHtml, page } from "./page.ts";
import { countHTML, experimentHTML, named, ratioHTML, rowId, seconds, valuesOf } from "./section.ts";
import { symmetriesHTML } from "./symmetries.ts";

export { figureCSV, rowsCSV } from "./data.ts";
export { describeFigure } from "./figure.ts";
export { figureFiles } from "./files.ts";
export { showNumber, showVerdict } from "./numbers.ts";
export { figurePNG, whyNoPNG } from "./png.ts";
export { figureSVG } from "./standalone.ts";

export { type SymmetryPageOptions, symmetryPage } from "./symmetries.ts";

/** What made a report: shown in it, and needed to make it again. */
export interface Provenance {
  /** Of noetherflow. */
  readonly version: string;
  /** "f64" or "f32". */
  readonly dtype: string;
  /** Build of the Wasm core. */
  readonly variant: string;
  /** Hex; null when it is not known. */
  readonly wasmSha256: string | null;
  /** Version of the random stream. */
  readonly streamVersion: number;
  /** Runtime, operating system and processor. */
  readonly host: string;
  /** Of all experiments. */
  readonly seed: string;
  /** What makes the report again. */
  readonly command: string;
  /** Small settings instead of the defaults, as `npm start -- --quick` takes them. */
  readonly quick?: boolean;
}

/** All results of a reproduction as plain data; numbers in full, runs by their settings and hashes. */
export function reportJSON(results: readonly Result[], provenance: Provenance): Record<string, unknown> {
  return {
    schema: "noetherflow-report/1",
    provenance,
    experiments: results.map((r) => ({
      id: r.id,
      title: r.title,
      question: r.question,
      source: r.source,
      claim: r.claim,
      ...(r.formula === undefined ? {} : { formula: r.formula }),
      parameters: r.parameters,
      spec: r.spec,
      rows: plainRows(r.rows),
      figures: r.figures,
      symmetries: (r.symmetries ?? []).map(({ title, summary }) => ({ title, summary: summary.toJSON() })),
      runs: Object.fromEntries(
        Object.entries(r.runs).map(([name, run]) => [
          name,
          {
            settings: run.settings,
            status: run.status,
            steps: run.steps,
            replicas: run.replicas,
            diverged: run.diverged,
            hash: run.hash,
          },
        ]),
      ),
      elapsedMs: r.elapsedMs,
    })),
  };
}

/** The rows as aligned text for a terminal. */
export function reportTable(results: readonly Result[]): string {
  const head = ["", "case", "quantity", "predicted", "± model", "measured", "std err", "verdict"];
  const body = named(results).flatMap(({ name, result: r }) =>
    r.rows.map((row) => [
      name,
      row.setting,
      row.quantity,
      showNumber(row.predicted.value),
      showNumber(row.predicted.modelError),
      showNumber(row.measured.value),
      row.measured.method === "exact" ? "exact" : showNumber(row.measured.stdErr),
      showVerdict(row),
    ]),
  );
  const lines = [head, ...body];
  const widths = head.map((_, i) => Math.max(...lines.map((l) => l[i]!.length)));
  return lines
    .map((l) =>
      l
        .map((cell, i) => (i >= 3 && i <= 6 ? cell.padStart(widths[i]!) : cell.padEnd(widths[i]!)))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

/**
 * One self-contained HTML page: a summary, and per experiment its question, formula, figures, rows, settings, how to do it
 * again, and its data. No script, no network; readable on screen, in dark, and in print.
 */
export function reportHTML(results: readonly Result[], provenance: Provenance): string {
  const rows = results.flatMap((r) => r.rows);
  const agreeing = rows.filter((r) => r.verdict.agrees).length;
  const whole = results.filter((r) => r.rows.every((row) => row.verdict.agrees)).length;
  const inLimit = countInLimit(rows);
  const symmetries = symmetriesHTML(results);
  const contents = contentsHTML(results, symmetries !== "");
  const elapsed = results.reduce((ms, r) => ms + r.elapsedMs, 0);
  return page(
    "noetherflow: predicted and measured",
    `<a class="skip" href="#main">Skip to the results</a>
<header>
<p class="eyebrow">noetherflow ${escapeHtml(provenance.version)}</p>
<h1>Where gradient noise moves a conserved charge</h1>
<p class="lead">Every row of this report compares a number that theory predicts with the same number measured by running the optimiser.</p>
<dl class="tiles">
<div><dt>experiments agree in all rows</dt><dd>${whole} of ${results.length}</dd></div>
<div><dt>rows agree${inLimit === 0 ? "" : `, ${inLimit} of them in the limit`}</dt><dd>${agreeing} of ${rows.length}</dd></div>
<div><dt>of computing</dt><dd>${duration(elapsed)}</dd></div>
</dl>
</header>
<nav class="aside" aria-label="Contents"><h2>Contents</h2>${contents}</nav>
<nav class="top" aria-label="Contents, folded"><details><summary>Contents</summary>${contents}</details></nav>
<main id="main">
<section aria-labelledby="summary"><h2 id="summary">Summary</h2>
${summaryHTML(results)}
<ul class="downloads"><li>${dataLink("All rows as CSV", "noetherflow-rows.csv", "text/csv", rowsCSV(results))}</li></ul>
<p><span class="verdict yes">agrees</span>: measured and predicted differ by at most 4.9 standard errors plus the model error that the prediction states before the run.
<span class="verdict limit">agrees in the limit</span>: they differ by more, but the gap halves when the learning rate does, as a correction of first order must.
<span class="verdict no">disagrees</span>: neither. The gap is given in units of what is allowed, so 1 is the border.</p>
</section>
${named(results)
  .map((r) => experimentHTML(r, provenance))
  .join("\n")}
${symmetries}
</main>
<footer><h2>How this was made</h2>
<dl>
<dt>Command</dt><dd><code>${escapeHtml(provenance.command)}</code></dd>
<dt>Seed</dt><dd><code>${escapeHtml(provenance.seed)}</code></dd>
<dt>Numbers</dt><dd>${escapeHtml(provenance.dtype)}, variant ${escapeHtml(provenance.variant)}, random stream ${provenance.streamVersion}; the same bits on every host</dd>
<dt>Wasm sha256</dt><dd><code>${escapeHtml(provenance.wasmSha256 ?? "not known")}</code></dd>
<dt>Host</dt><dd>${escapeHtml(provenance.host)}</dd>
</dl></footer>`,
    { wide: true },
  );
}

const SUMMARY: readonly Column[] = [
  { head: "Experiment" },
  { head: "Verdict" },
  { head: "Predicted", number: true },
  { head: "Measured", number: true },
  { head: "Std. error", number: true },
  { head: "Gap / allowed", number: true },
  { head: "Time", number: true },
];

/** A line per experiment with the numbers of its first row. */
function summaryHTML(results: readonly Result[]): string {
  const lines = named(results).map(({ name, result: r }) => {
    const id = escapeHtml(name);
    const [first] = r.rows;
    const values = first === undefined ? ["", "", ""] : valuesOf(first);
    const missed = r.rows.findIndex((row) => !row.verdict.agrees);
    const see =
      missed < 0
        ? ""
        : `<small><a href="#${escapeHtml(rowId(name, missed))}">see row ${missed + 1}</a></small>`;
    const limit = countInLimit(r.rows);
    const inLimit = limit === 0 ? "" : `<small>${limit} in the limit</small>`;
    const what =
      first === undefined ? "" : `<small>${escapeHtml(first.quantity)}; ${escapeHtml(first.setting)}</small>`;
    return {
      cells: [
        `<a href="#${id}"><span class="id">${escapeHtml(r.id)}</span>${escapeHtml(r.title)}</a>${what}`,
        `${countHTML(r.rows)}${inLimit}${see}`,
        ...values,
        ratioHTML(worstRatio(r.rows), missed < 0),
        seconds(r.elapsedMs),
      ],
    };
  });
  return cardTable(
    "All experiments: the numbers of the first row of each, and its largest gap",
    SUMMARY,
    lines,
  );
}

function contentsHTML(results: readonly Result[], symmetries: boolean): string {
  const entries = named(results).map(({ name, result: { id, title, rows } }) => {
    const words = countAgreeing(rows);
    const kind = rows.every((row) => row.verdict.agrees) ? "yes" : "no";
    return `<li><a href="#${escapeHtml(name)}"><span class="id">${escapeHtml(id)}</span><span>${escapeHtml(title)}</span><span class="verdict ${kind}"><span class="hidden">${words}</span></span></a></li>`;
  });
  return `<ol><li><a href="#summary">Summary</a></li>${entries.join("")}${symmetries ? '<li><a href="#symmetries">Symmetries</a></li>' : ""}</ol>`;
}

function duration(ms: number): string {
  const whole = Math.round(ms / 1000);
  return whole < 60 ? `${whole} s` : `${Math.floor(whole / 60)} min ${whole % 60} s`;
}

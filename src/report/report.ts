import type { Figure, Result, Row } from "../experiments/experiment.ts";
import { drawFigure, legendOf } from "./figure.ts";
import { escapeHtml, page, scrolling } from "./page.ts";
import { symmetriesHTML } from "./symmetries.ts";

export { type SymmetryPageOptions, symmetryPage } from "./symmetries.ts";

/** What made a report: shown in it, and needed to make it again. */
export interface Provenance {
  readonly version: string;
  readonly dtype: string;
  readonly variant: string;
  readonly wasmSha256: string | null;
  readonly streamVersion: number;
  readonly host: string;
  readonly seed: string;
  readonly command: string;
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
      spec: r.spec,
      rows: r.rows,
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

/** A number with the digits a reader can use: 4 significant, plain between 1e-3 and 1e5. */
export function showNumber(x: number): string {
  if (!Number.isFinite(x)) return String(x);
  if (x === 0) return "0";
  const size = Math.abs(x);
  return size >= 1e-3 && size < 1e5 ? String(Number(x.toPrecision(4))) : x.toExponential(2);
}

/** `agrees` or `disagrees`, with the gap in units of what was allowed. */
export function showVerdict(row: Row): string {
  return row.verdict.agrees ? "agrees" : "disagrees";
}

/** The rows as aligned text for a terminal. */
export function reportTable(results: readonly Result[]): string {
  const head = ["", "case", "quantity", "predicted", "± model", "measured", "std err", "verdict"];
  const body = results.flatMap((r) =>
    r.rows.map((row) => [
      r.id,
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
 * One self-contained HTML page: a summary, and per experiment its question, figure, rows and
 * settings. No script, no network; readable on screen, in dark, and in print.
 */
export function reportHTML(results: readonly Result[], provenance: Provenance): string {
  const rows = results.flatMap((r) => r.rows);
  const agreeing = rows.filter((r) => r.verdict.agrees).length;
  const summary = results
    .map((r) => {
      const good = r.rows.filter((row) => row.verdict.agrees).length;
      return `<tr><th scope="row"><a href="#${escapeHtml(r.id)}">${escapeHtml(r.id)}</a></th><td>${escapeHtml(r.title)}</td><td class="n">${good} of ${r.rows.length}</td><td class="n">${(r.elapsedMs / 1000).toFixed(1)} s</td></tr>`;
    })
    .join("\n");
  return page(
    "noetherflow: predicted and measured",
    `<header>
<p class="eyebrow">noetherflow ${escapeHtml(provenance.version)}</p>
<h1>Where gradient noise moves a conserved charge</h1>
<p class="lead">Each row compares what theory predicts with what was measured by running the optimiser. ${agreeing} of ${rows.length} rows agree. A row agrees when
the two numbers differ by at most 4.9 standard errors plus the model error that the prediction states before the run.</p>
</header>
<main>
<section aria-labelledby="summary"><h2 id="summary">Summary</h2>
${scrolling(
  "Summary of the experiments",
  `<table><thead><tr><th scope="col">Experiment</th><th scope="col">Title</th><th scope="col" class="n">Rows that agree</th><th scope="col" class="n">Time</th></tr></thead>
<tbody>${summary}</tbody></table>`,
)}</section>
${results.map(experimentHTML).join("\n")}
${symmetriesHTML(results)}
</main>
<footer><h2>How this was made</h2>
<dl>
<dt>Command</dt><dd><code>${escapeHtml(provenance.command)}</code></dd>
<dt>Seed</dt><dd><code>${escapeHtml(provenance.seed)}</code></dd>
<dt>Numbers</dt><dd>${escapeHtml(provenance.dtype)}, variant ${escapeHtml(provenance.variant)}, random stream ${provenance.streamVersion}; the same bits on every host</dd>
<dt>Wasm sha256</dt><dd><code>${escapeHtml(provenance.wasmSha256 ?? "not known")}</code></dd>
<dt>Host</dt><dd>${escapeHtml(provenance.host)}</dd>
</dl></footer>`,
  );
}

function experimentHTML(r: Result): string {
  const rows = r.rows
    .map(
      (row) => `<tr>
<th scope="row">${escapeHtml(row.setting)}</th><td>${escapeHtml(row.quantity)}</td>
<td class="n">${showNumber(row.predicted.value)}</td><td class="n">${showNumber(row.predicted.modelError)}</td>
<td class="n">${showNumber(row.measured.value)}</td><td class="n">${row.measured.method === "exact" ? "exact" : showNumber(row.measured.stdErr)}</td>
<td><span class="verdict ${row.verdict.agrees ? "yes" : "no"}">${showVerdict(row)}</span></td></tr>`,
    )
    .join("\n");
  const spec = Object.entries(r.spec)
    .map(([k, v]) => `<span><code>${escapeHtml(k)}</code> ${escapeHtml(String(v))}</span>`)
    .join(" ");
  const neglected = [...new Set(r.rows.map((row) => row.predicted.neglects))];
  return `<section aria-labelledby="${escapeHtml(r.id)}">
<h2 id="${escapeHtml(r.id)}"><span class="id">${escapeHtml(r.id)}</span> ${escapeHtml(r.title)}</h2>
<p>${escapeHtml(r.question)}</p>
<p><strong>What to look for.</strong> ${escapeHtml(r.claim)}</p>
${r.figures.map(figureHTML).join("\n")}
${scrolling(
  `Rows of ${r.id}`,
  `<table>
<caption>Predicted and measured</caption>
<thead><tr><th scope="col">Case</th><th scope="col">Quantity</th><th scope="col" class="n">Predicted</th><th scope="col" class="n">± model</th><th scope="col" class="n">Measured</th><th scope="col" class="n">Std. error</th><th scope="col">Verdict</th></tr></thead>
<tbody>${rows}</tbody></table>`,
)}
<p class="fine">The model error covers ${escapeHtml(neglected.join("; "))}.</p>
<p class="fine"><strong>Settings.</strong> ${spec}</p>
<p class="fine"><strong>Source.</strong> ${escapeHtml(r.source)}</p>
</section>`;
}

function figureHTML(figure: Figure): string {
  const legend = legendOf(figure)
    .map(({ label, colour }) => `<span><i style="background:${colour}"></i>${escapeHtml(label)}</span>`)
    .join("");
  return `<figure>
<figcaption><strong>${escapeHtml(figure.title)}.</strong> ${escapeHtml(figure.caption)}</figcaption>
<p class="legend">${legend}<span><i class="dash"></i>predicted</span></p>
<div class="plot">${drawFigure(figure)}</div>
</figure>`;
}

import type { Result } from "../experiments/experiment.ts";
import type { SymmetrySummary } from "../symmetry/summary.ts";
import { escapeHtml, page, scrolling } from "./page.ts";

const LEGEND = `<p class="fine">C is the charge and dC/dt its Noether flow; N₊ and N₋ are the noise that raises and lowers it, equal at the noise
equilibrium without weight decay, where the residual is 0. λ* is how far along the orbit that equilibrium lies (“+inf”, “-inf”: the
charge drifts for ever; “flat”: nothing moves it), C* the charge there, τ₂ the time to get there. Beside τ₁, in which the loss
falls, it is “fast” up to 0.3 and “slow” from 3. Class 1 has an equilibrium of noise alone, class 2 needs weight decay.</p>`;

/** The section "Symmetries" of a report: the tables of all experiments that have some, or nothing. */
export function symmetriesHTML(results: readonly Result[]): string {
  const tables = results.flatMap((r) =>
    (r.symmetries ?? []).map(
      ({ title, summary }) =>
        `<h3><a href="#${escapeHtml(r.id)}">${escapeHtml(r.id)}</a> ${escapeHtml(title)}</h3>\n${tableHTML(title, summary)}`,
    ),
  );
  if (tables.length === 0) return "";
  return `<section aria-labelledby="symmetries"><h2 id="symmetries">Symmetries</h2>
<p>What the loss of each experiment does not change under, found from its per-sample gradients alone.</p>
${tables.join("\n")}
${LEGEND}
</section>`;
}

/** Heading of the page. */
export interface SymmetryPageOptions {
  /** What the page is about; "Symmetries" when absent. */
  readonly title?: string;
  /** A sentence or two below it. */
  readonly lead?: string;
}

/**
 * A summary of symmetries (`problem.report`) as one self-contained HTML page: no script, no network, light and dark. All
 * text is escaped.
 *
 * @example
 * const summary = await problem.report(theta, { eta: 0.01, batchSize: 4, generators: { A } });
 * symmetryPage(summary, { title: "Two layers" }).slice(0, 15); // "<!doctype html>"
 */
export function symmetryPage(
  summary: SymmetrySummary,
  { title = "Symmetries", lead }: SymmetryPageOptions = {},
): string {
  return page(
    `${title}: noetherflow`,
    `<header>
<p class="eyebrow">noetherflow</p>
<h1>${escapeHtml(title)}</h1>
${lead === undefined ? "" : `<p class="lead">${escapeHtml(lead)}</p>`}
</header>
<main>
${tableHTML(title, summary)}
${LEGEND}
</main>`,
  );
}

function tableHTML(label: string, summary: SymmetrySummary): string {
  const notes = summary.notes.map((n) => `<p class="fine">${escapeHtml(n)}</p>`).join("\n");
  return `${scrolling(label, summary.toHTML())}\n${notes}`;
}

/** The numbers behind a report as CSV and JSON, and links that carry them. */
import type { Figure, Result, Row } from "../experiments/experiment.ts";
import { showVerdict } from "./numbers.ts";
import { escapeHtml } from "./page.ts";

type Cell = string | number | undefined;

function csv(head: readonly string[], rows: readonly (readonly Cell[])[]): string {
  const cell = (c: Cell) => {
    const text = c === undefined ? "" : String(c);
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return `${[head, ...rows].map((row) => row.map(cell).join(",")).join("\n")}\n`;
}

/** A line per point of every curve, numbers in full. */
export function figureCSV(figure: Figure): string {
  const hasErrors = figure.curves.some((c) => c.error !== undefined);
  const head = ["curve", "kind", "x", "y", ...(hasErrors ? ["std_error"] : [])];
  return csv(
    head,
    figure.curves.flatMap((c) =>
      c.x.map((x, i) => [
        c.label,
        c.predicted ? "predicted" : "measured",
        x,
        c.y[i],
        ...(hasErrors ? [c.error?.[i]] : []),
      ]),
    ),
  );
}

const ROW_HEAD =
  "experiment,case,quantity,predicted,model_error,model_error_covers,measured,std_error,count,method,gap,allowed,gap_at_half_eta,allowed_at_half_eta,verdict".split(
    ",",
  );

/** A line per row of every result, numbers in full. */
export function rowsCSV(results: readonly Pick<Result, "id" | "rows">[]): string {
  const line = (id: string, row: Row): Cell[] => {
    const { predicted: p, measured: m, verdict: v } = row;
    const judged = [v.gap, v.allowed, v.limit?.gap, v.limit?.allowed, showVerdict(row)];
    return [
      id,
      row.setting,
      row.quantity,
      p.value,
      p.modelError,
      p.neglects,
      m.value,
      m.stdErr,
      m.count,
      m.method,
      ...judged,
    ];
  };
  return csv(
    ROW_HEAD,
    results.flatMap(({ id, rows }) => rows.map((row) => line(id, row))),
  );
}

/** Rows as plain data: their numbers and words, and nothing else that they may carry. */
export function plainRows(rows: readonly Row[]): Row[] {
  return rows.map(({ setting, quantity, predicted, measured, verdict }) => ({
    setting,
    quantity,
    predicted: { value: predicted.value, modelError: predicted.modelError, neglects: predicted.neglects },
    measured: {
      value: measured.value,
      stdErr: measured.stdErr,
      count: measured.count,
      method: measured.method,
    },
    verdict,
  }));
}

/** A link that holds its file. */
export function dataLink(
  words: string,
  name: string,
  type: "text/csv" | "application/json",
  text: string,
): string {
  // a URL keeps most characters as they are; what HTML, URLs and spaces would change is escaped
  const escaped = text.replaceAll(/[^\w.,:;()[\]{}+*/=@!$-]/gu, (c) => encodeURIComponent(c));
  return `<a download="${escapeHtml(name)}" href="data:${type};charset=utf-8,${escaped.replaceAll("'", "%27")}">${words}</a>`;
}

import { parseHTML } from "linkedom";
import type { Figure } from "../experiments/experiment.ts";
import { LIGHT } from "./colours.ts";
import { describeFigure, drawFigure, legendOf, WIDE, wrap } from "./figure.ts";
import { escapeHtml } from "./page.ts";

const INK = "#16202b";
const SOFT = "#4a5663";
const PAPER = "#ffffff";
const LINE = "#d7dde3";
const PADDING = 20;
/** Widths of a letter at 13 and, bold, at 15 pixels, in the widest of usual fonts. */
const LETTER = 7.7;
const BOLD_LETTER = 10;

/** A figure as an SVG file of its own: title and legend on a light card, no outside style or font needed. */
export function figureSVG(figure: Figure): string {
  const { document } = parseHTML(`<body>${drawFigure(figure, WIDE)}</body>`);
  const svg = document.querySelector("svg")!;
  const [, , width, height] = svg.getAttribute("viewBox")!.split(" ").map(Number) as [
    number,
    number,
    number,
    number,
  ];
  const title = wrap(figure.title.replace(/\.$/, ""), Math.floor(width / BOLD_LETTER));
  const legend = legendRows(figure, width);
  const head = 22 * title.length + 22 * legend.length + 26;
  const [w, h] = [width + 2 * PADDING, height + head + 14];
  const heads = title.map(
    (t, i) =>
      `<text x="${PADDING}" y="${28 + 22 * i}" font-size="15" font-weight="600">${escapeHtml(t)}</text>`,
  );
  const body = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${w} ${h}" width="${w}" height="${h}" role="img" aria-label="${escapeHtml(figure.title)}">
<title>${escapeHtml(title.join(" "))}</title>
<desc>${escapeHtml(describeFigure(figure))}</desc>
<rect x="0.5" y="0.5" width="${w - 1}" height="${h - 1}" rx="10" fill="${PAPER}" stroke="${LINE}"/>
<g font-family="system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif" fill="${INK}">
${heads.join("\n")}
<g transform="translate(${PADDING},${22 * title.length + 22})" font-size="13" fill="${SOFT}">${legend.map((row, i) => `<g transform="translate(0,${22 * i})">${row}</g>`).join("")}</g>
<g transform="translate(${PADDING},${head})" font-size="13" text-anchor="middle">${svg.innerHTML}</g>
</g>
</svg>
`;
  return body
    .replaceAll("currentColor", INK)
    .replaceAll(/var\(--s(\d)\)/g, (_, i: string) => LIGHT[Number(i)]!);
}

/** The legend in rows that fit. */
function legendRows(figure: Figure, width: number): string[] {
  const rows: string[] = [];
  let x = width;
  for (const { words, svg } of legendOf(figure)) {
    const length = 36 + LETTER * words.length + 18;
    if (x + length > width + 18) {
      rows.push("");
      x = 0;
    }
    rows[rows.length - 1] +=
      `<g transform="translate(${x.toFixed(1)},0)"><g transform="translate(0,-2)">${svg}</g><text x="36" y="9">${escapeHtml(words)}</text></g>`;
    x += length;
  }
  return rows;
}

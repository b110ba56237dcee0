/** The frame of every page of ours: no script, no network; readable on screen, in dark, and in print. */
import { DARK, LIGHT } from "./colours.ts";

/** One self-contained HTML page. `body` is HTML, `title` text; `wide` leaves room for a column beside the text. */
export function page(
  title: string,
  body: string,
  { wide = false }: { readonly wide?: boolean } = {},
): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeHtml(title)}</title>
<style>${STYLE}</style>
</head>
<body${wide ? ' class="wide"' : ""}>
${body}
</body>
</html>
`;
}

/** A table that scrolls by itself where the page is narrow, by keyboard too. */
export function scrolling(label: string, table: string): string {
  return `<div class="scroll" tabindex="0" role="region" aria-label="${escapeHtml(label)}">${table}</div>`;
}

/** One column of a table of cards. */
export interface Column {
  readonly head: string;
  /** A column of numbers. */
  readonly number?: boolean;
}

export interface CardRow {
  readonly id?: string;
  /** HTML of its cells; the first is the row's head. */
  readonly cells: readonly string[];
}

/** A table whose rows are cards on a phone, each cell behind the head of its column. Roles keep it a table there. */
export function cardTable(caption: string, columns: readonly Column[], rows: readonly CardRow[]): string {
  const heads = columns.map(
    ({ head, number }) =>
      `<th role="columnheader" scope="col"${number ? ' class="n"' : ""}>${escapeHtml(head)}</th>`,
  );
  const body = rows.map(({ id, cells }) => {
    const [first, ...rest] = cells;
    const tds = rest.map((cell, i) => {
      const { head, number } = columns[i + 1]!;
      return `<td role="cell" data-head="${escapeHtml(head)}"${number ? ' class="n"' : ""}><div>${cell}</div></td>`;
    });
    return `<tr role="row"${id === undefined ? "" : ` id="${escapeHtml(id)}"`}><th role="rowheader" scope="row">${first}</th>${tds.join("")}</tr>`;
  });
  return `<table class="cards" role="table"><caption>${escapeHtml(caption)}</caption>
<thead role="rowgroup"><tr role="row">${heads.join("")}</tr></thead>
<tbody role="rowgroup">
${body.join("\n")}
</tbody></table>`;
}

/** Text as HTML. */
export function escapeHtml(text: string): string {
  return text
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;");
}

const variables = (colours: readonly string[]): string => colours.map((c, i) => `--s${i}:${c}`).join(";");

const STYLE = `
:root{color-scheme:light dark;--ink:#16202b;--soft:#55616e;--line:#d7dde3;--paper:#fff;--panel:#f5f7f9;--yes:#00664b;--no:#a23400;--limit:#6a4a00;--link:#005a8c;${variables(LIGHT)}}
@media screen and (prefers-color-scheme:dark){:root{--ink:#e6ebf0;--soft:#a3b0bd;--line:#37424d;--paper:#12181f;--panel:#1a222b;--yes:#5fd3b0;--no:#ffab7a;--limit:#ecca6c;--link:#7cc4f0;${variables(DARK)}}}
*{box-sizing:border-box}
html{scroll-padding-top:4rem;-webkit-text-size-adjust:100%}
body{margin:0 auto;max-width:60rem;padding:2.5rem 1.25rem 4rem;background:var(--paper);color:var(--ink);font:1rem/1.6 system-ui,-apple-system,"Segoe UI","DejaVu Sans",sans-serif}
h1{font-size:2rem;line-height:1.2;margin:.2rem 0 1rem;letter-spacing:-.01em;text-wrap:balance}
h2{font-size:1.35rem;margin:0 0 .75rem;line-height:1.3;text-wrap:balance}
h3{font-size:1.05rem;margin:1.5rem 0 .25rem}
main>section{margin-top:3.5rem;padding-top:1.75rem;border-top:1px solid var(--line)}
main>section:first-child{margin-top:1.5rem;border-top:0;padding-top:0}
p,pre,dl{max-width:46rem}
.eyebrow{margin:0;color:var(--soft);font-size:.9rem;letter-spacing:.04em}
.lead{font-size:1.1rem}
.id{color:var(--soft);font-weight:500;margin-right:.35rem}
a{color:var(--link);text-underline-offset:.15em}
:focus-visible{outline:3px solid var(--link);outline-offset:2px;border-radius:.2rem}
.skip{position:absolute;left:-100rem;background:var(--paper);padding:.5rem 1rem;z-index:3}.skip:focus{left:1rem;top:.5rem}
.hidden{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
table{border-collapse:collapse;width:100%;font-size:.93rem}
caption{text-align:left;color:var(--soft);padding:.25rem 0}
th,td{padding:.5rem .8rem .5rem 0;text-align:left;vertical-align:top;border-bottom:1px solid var(--line)}
thead th{color:var(--soft);font-weight:600;vertical-align:bottom}
tbody th{font-weight:600}
thead .n{white-space:normal}.n+:not(.n){padding-left:.8rem}
.cards tbody th{min-width:6.5rem}#summary~.cards thead th:first-child{width:46%}.cards th a{text-decoration:none}.cards th a:hover{text-decoration:underline}
tbody tr:target{background:var(--panel)}
th:last-child,td:last-child{padding-right:0}
.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
td.n sup{font-size:.75em;line-height:0}
small{display:block;color:var(--soft);font-size:.88em;font-weight:400;line-height:1.45}
.verdict{font-weight:650;white-space:nowrap}
.yes{color:var(--yes)}.no{color:var(--no)}.limit{color:var(--limit)}
.yes::before{content:"✓ "}.no::before{content:"✗ "}.limit::before{content:"≈ "}
.yes::before,.no::before,.limit::before{font-weight:700}
.bar{display:block;height:.25rem;min-width:4rem;margin:.35rem 0 0;border-radius:1rem;background:linear-gradient(90deg,var(--fill,var(--yes)) var(--g),var(--line) 0)}
.bar.over{--fill:var(--no)}.bar.near{--fill:var(--limit)}
.scroll{overflow-x:auto}
.badge{margin:0 0 1rem}
pre{margin:1rem 0;padding:.75rem 1rem;background:var(--panel);border-radius:.5rem;white-space:pre-wrap;overflow-wrap:anywhere;font:.9rem/1.55 ui-monospace,SFMono-Regular,Menlo,"DejaVu Sans Mono",monospace}
pre.formula{border-left:.25rem solid var(--link);border-radius:0 .5rem .5rem 0;font-size:1rem}
figure{margin:1.75rem 0;padding:1rem 1.1rem .75rem;background:var(--panel);border-radius:.6rem;max-width:54rem}
figcaption{font-size:.95rem;max-width:46rem}
.plot svg{width:100%;height:auto;display:block}.plot .narrow{display:none}
.legend{display:flex;flex-wrap:wrap;gap:.25rem 1.3rem;font-size:.9rem;margin:.7rem 0 .5rem;padding:0;list-style:none}
.legend li{display:flex;align-items:center;gap:.5rem}.legend svg{flex:none;overflow:visible}
.fine{font-size:.9rem;color:var(--soft)}
code{font:.92em ui-monospace,SFMono-Regular,Menlo,"DejaVu Sans Mono",monospace;overflow-wrap:anywhere}
details{margin:.75rem 0}
summary{cursor:pointer;padding:.3rem 0;font-weight:600;width:fit-content}
.downloads{display:flex;flex-wrap:wrap;gap:.3rem 1.3rem;padding:0;margin:.5rem 0;list-style:none;font-size:.95rem}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.3rem 1.2rem;font-size:.93rem}dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
.tiles{display:flex;flex-wrap:wrap;gap:.75rem;max-width:none;margin:1.5rem 0}
.tiles div{flex:1 1 9rem;padding:.7rem 1rem;background:var(--panel);border-radius:.6rem;display:flex;flex-direction:column-reverse;justify-content:flex-end}
.tiles dd{font-size:1.45rem;font-weight:650;line-height:1.3;font-variant-numeric:tabular-nums}
footer{border-top:1px solid var(--line);margin-top:3.5rem;padding-top:1.75rem}
nav ol{list-style:none;margin:0;padding:0}
nav li a{display:flex;gap:.5rem;padding:.3rem .5rem;color:inherit;text-decoration:none;border-radius:.3rem;line-height:1.35;font-size:.9rem}
nav li a:hover{background:var(--panel);text-decoration:underline}
nav .id{flex:none;min-width:2.4rem;margin:0}nav .verdict{margin-left:auto;flex:none}
.aside{display:none}
.top{position:sticky;top:0;z-index:2;background:var(--paper);border-bottom:1px solid var(--line);margin:0 -1.25rem;padding:0 1.25rem}
.top details{margin:0}.top summary{padding:.6rem 0}.top ol{max-height:70vh;overflow-y:auto;padding:0 0 .75rem}
.wide{max-width:66rem}
@media screen and (min-width:75rem){
.wide{max-width:84rem;padding-left:18.5rem;position:relative}
.wide .aside{display:block;position:fixed;top:0;bottom:0;left:max(0rem,calc(50vw - 42rem));width:17rem;overflow-y:auto;padding:2rem .5rem 2rem 1rem;border-right:1px solid var(--line)}
.aside li a>span:nth-child(2){display:-webkit-box;-webkit-line-clamp:2;-webkit-box-orient:vertical;overflow:hidden}
.aside h2{font-size:.9rem;color:var(--soft);margin:0 0 .5rem .5rem;letter-spacing:.04em;font-weight:500}
.top{display:none}html{scroll-padding-top:1rem}
}
@media screen and (max-width:40rem){
body{padding:1.5rem 1rem 3rem}h1{font-size:1.6rem}.top{margin:0 -1rem;padding:0 1rem}
dl{grid-template-columns:1fr}dt{margin-top:.4rem}.tiles dt{margin:0}.tiles{gap:.5rem}.tiles div{flex-basis:8rem;padding:.6rem .8rem}
figure{margin:1.25rem 0;padding:.8rem .7rem .5rem}.plot .wide-plot{display:none}.plot .narrow{display:block}
}
@media screen and (max-width:60rem){
.cards,.cards tbody,.cards th,.cards td,.cards caption{display:block}
.cards thead{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
.cards tr{display:grid;grid-template-columns:repeat(auto-fill,minmax(6.25rem,1fr));gap:.35rem .75rem;border:1px solid var(--line);border-radius:.5rem;padding:.6rem .8rem;margin:.6rem 0}
.cards th,.cards td,.cards .n+:not(.n){border:0;padding:0;white-space:normal}
.cards th,.cards td:not(.n){grid-column:1/-1}
.cards td:not(.n){display:flex;gap:.6rem}
.cards td.n{text-align:left}
.cards td::before{content:attr(data-head);color:var(--soft);font-size:.88em}
.cards td:not(.n)::before{flex:none}
.cards .bar{max-width:6rem}
}
@media print{
html{font-size:11px}body,.wide{max-width:none;padding:0}
.bar,.legend svg{print-color-adjust:exact}th,td{padding:.35rem .5rem .35rem 0}.bar{min-width:3rem}
main>section{margin-top:2rem;padding-top:1rem}figure{max-width:46rem}
.skip,.aside,.top,.downloads{display:none}
figure,tr,pre{break-inside:avoid}h2,h3{break-after:avoid}.scroll{overflow:visible}
details::details-content{content-visibility:visible;display:block;height:auto}
summary{list-style:none}
figure,pre,.tiles div{background:none;border:1px solid var(--line)}
a{color:inherit;text-decoration:none}
}
`;

/** The frame of every page of ours: no script, no network; readable on screen, in dark, and in print. */

/** One self-contained HTML page. `body` is HTML, `title` text. */
export function page(title: string, body: string): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeHtml(title)}</title>
<style>${STYLE}</style>
</head>
<body>
${body}
</body>
</html>
`;
}

/** A table that scrolls by itself where the page is narrow, by keyboard too. */
export function scrolling(label: string, table: string): string {
  return `<div class="scroll" tabindex="0" role="region" aria-label="${escapeHtml(label)}">${table}</div>`;
}

/** Text as HTML. */
export function escapeHtml(text: string): string {
  return text
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;");
}

const STYLE = `
:root{color-scheme:light dark;--ink:#16202b;--soft:#55616e;--line:#d7dde3;--paper:#fff;--panel:#f5f7f9;--yes:#00664b;--no:#a23400;--link:#005a8c}
@media (prefers-color-scheme:dark){:root{--ink:#e6ebf0;--soft:#a3b0bd;--line:#37424d;--paper:#12181f;--panel:#1a222b;--yes:#5fd3b0;--no:#ffab7a;--link:#7cc4f0}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:60rem;padding:2.5rem 1.25rem 4rem;background:var(--paper);color:var(--ink);font:1rem/1.6 system-ui,-apple-system,"Segoe UI",sans-serif}
h1{font-size:2rem;line-height:1.2;margin:.2rem 0 1rem;letter-spacing:-.01em}
h2{font-size:1.3rem;margin:3rem 0 .75rem;line-height:1.3}
h3{font-size:1.05rem;margin:1.5rem 0 .25rem}
.eyebrow{margin:0;color:var(--soft);font-size:.9rem;letter-spacing:.04em}
.lead{font-size:1.1rem;max-width:46rem}
.id{color:var(--soft);font-weight:500;margin-right:.35rem}
a{color:var(--link)}
table{border-collapse:collapse;width:100%;font-size:.93rem}
caption{text-align:left;color:var(--soft);padding:.25rem 0}
th,td{padding:.5rem .7rem .5rem 0;text-align:left;vertical-align:top;border-bottom:1px solid var(--line)}
thead th{color:var(--soft);font-weight:600;white-space:nowrap}
tbody th{font-weight:600}
.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.verdict{font-weight:650;white-space:nowrap}.yes{color:var(--yes)}.yes::before{content:"✓ "}.no{color:var(--no)}.no::before{content:"✗ "}
.scroll{overflow-x:auto}
figure{margin:1.5rem 0;padding:1rem 1.1rem;background:var(--panel);border-radius:.6rem}
figcaption{font-size:.95rem}
.plot svg{width:100%;height:auto;display:block}
.legend{display:flex;flex-wrap:wrap;gap:.3rem 1.2rem;font-size:.9rem;margin:.6rem 0}
.legend i{display:inline-block;width:1.4rem;height:.2rem;margin-right:.45rem;vertical-align:middle;border-radius:1px}
.legend i.dash{height:0;border-top:2px dashed currentColor;border-radius:0}
.fine{font-size:.9rem;color:var(--soft)}.fine span{margin-right:.9rem;white-space:nowrap}
code{font:.92em ui-monospace,SFMono-Regular,Menlo,monospace}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.3rem 1.2rem;font-size:.93rem}dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
footer{border-top:1px solid var(--line);margin-top:3rem}
@media (max-width:40rem){dl{grid-template-columns:1fr}dt{margin-top:.4rem}}
@media print{body{max-width:none;padding:0;font-size:10pt}figure,tr{break-inside:avoid}h2{break-after:avoid}.scroll{overflow:visible}}
`;

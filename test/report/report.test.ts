/** The report as a page and as data, read back with linkedom: what a reader finds in it, and that no text of ours becomes markup. */
import { parseHTML } from "linkedom";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Result } from "../../src/experiments/experiment.ts";
import {
  figureCSV,
  reportHTML,
  reportJSON,
  reportTable,
  rowsCSV,
  showVerdict,
} from "../../src/report/report.ts";
import { judge, judgeInLimit } from "../../src/stats/verdict.ts";
import { HOSTILE, madeUp, provenance, quickResults } from "../helpers/report.ts";

let results: readonly Result[];
let made: Result;
let document: Document;
let html: string;
beforeAll(async () => {
  made = madeUp();
  results = [...(await quickResults()), made];
  html = reportHTML(results, provenance);
  ({ document } = parseHTML(html));
});
afterAll(() => {
  document = undefined as unknown as Document;
});

const section = (id: string): Element => document.getElementById(id)!.parentElement!;
/** The file behind a link. */
const decoded = (a: Element): string => {
  const [, data] = /^data:[a-z/]+;charset=utf-8,(.*)$/s.exec(a.getAttribute("href")!)!;
  return decodeURIComponent(data!);
};
const link = (id: string, file: string): Element =>
  [...section(id).querySelectorAll("a[download]")].find((a) => a.getAttribute("download") === file)!;
/** Fields of a CSV text, quotes undone. */
const fields = (csv: string): string[][] =>
  csv
    .trimEnd()
    .split("\n")
    .map((line) =>
      [...line.matchAll(/("(?:[^"]|"")*"|[^,]*)(?:,|$)/g)]
        .map(([, cell]) => (cell!.startsWith('"') ? cell!.slice(1, -1).replaceAll('""', '"') : cell!))
        .slice(0, line.endsWith(",") ? undefined : -1),
    );

describe("the summary", () => {
  test("has a line per experiment with its verdict, the numbers of its first row, and its time", () => {
    const lines = [...document.querySelectorAll("#summary ~ table tbody tr")];
    expect(lines.length).toBe(results.length);
    for (const [i, r] of results.entries()) {
      const cells = [...lines[i]!.children].map((c) => c.textContent!);
      expect(cells[0]).toContain(r.title);
      expect(cells[0]).toContain(r.rows[0]!.quantity);
      const good = r.rows.filter((row) => row.verdict.agrees).length;
      const limit = r.rows.filter((row) => showVerdict(row) === "agrees in the limit").length;
      expect(cells[1]!.includes(`${limit} in the limit`)).toBe(limit > 0);
      expect(cells[1]).toContain(good === r.rows.length ? "all agree" : `${good} of ${r.rows.length} agree`);
      expect(Number(cells[2]) / r.rows[0]!.predicted.value).toBeCloseTo(1, 2);
      expect(Number(cells[3]) / r.rows[0]!.measured.value).toBeCloseTo(1, 2);
      expect(cells[6]).toBe(`${(r.elapsedMs / 1000).toFixed(1)} s`);
    }
  });
  test("leads from an experiment that does not agree to its first row that does not", () => {
    const missed = made.rows.findIndex((row) => !row.verdict.agrees);
    const see = [...document.querySelectorAll('#summary ~ table a[href*="-row-"]')].at(-1)!;
    expect(see.textContent).toBe(`see row ${missed + 1}`);
    const row = document.getElementById(see.getAttribute("href")!.slice(1))!;
    expect(row.textContent).toContain("disagrees");
    expect(row.textContent).toContain(made.rows[missed]!.setting);
  });
  test("every link within the page has a place to go to", () => {
    const links = [...document.querySelectorAll('a[href^="#"]')];
    expect(links.length).toBeGreaterThan(3 * results.length);
    for (const a of links) expect(document.getElementById(a.getAttribute("href")!.slice(1))).not.toBeNull();
  });
});

describe("an experiment", () => {
  test("shows every row with its verdict in words", () => {
    for (const r of results) {
      const rows = r.rows.map((_, i) => document.getElementById(`${r.id}-row-${i + 1}`)!);
      for (const [i, tr] of rows.entries()) {
        const cells = [...tr.children].map((c) => c.textContent!);
        expect(cells[0]).toBe(r.rows[i]!.setting);
        expect(cells[1]).toBe(r.rows[i]!.quantity);
        expect(cells.at(-1)!.startsWith(showVerdict(r.rows[i]!))).toBe(true);
      }
      expect(section(r.id).querySelectorAll("tbody tr[id]").length).toBe(r.rows.length);
    }
  });
  test("says where a row disagrees by how much, and how a row agrees in the limit", () => {
    const texts = [...section(made.id).querySelectorAll("tbody tr[id] td:last-child")].map(
      (td) => td.textContent!,
    );
    expect(texts.find((t) => t.startsWith("disagrees"))).toBe("disagreesgap 0.5, allowed 0.049");
    expect(texts.find((t) => t.startsWith("agrees in the limit"))).toBe(
      "agrees in the limitgap 0.4, allowed 0.0049; gap 0.2 at η / 2",
    );
  });
  test("folds its rows only where they are many and all agree", () => {
    const many = { ...made, id: "MANY", rows: Array.from({ length: 30 }, () => made.rows[0]!) };
    const other = { ...many, id: "OPEN", rows: [...many.rows, made.rows[2]!] };
    const page = parseHTML(reportHTML([many, other, made], provenance)).document;
    const details = (id: string) => page.getElementById(`${id}-row-1`)!.closest("details");
    expect(details("MANY")!.hasAttribute("open")).toBe(false);
    expect(details("MANY")!.querySelector("summary")!.textContent).toContain("30 rows");
    expect(details("OPEN")!.hasAttribute("open")).toBe(true);
    expect(details(made.id)).toBeNull();
  });
  test("shows question, claim, source, and its formula line by line", () => {
    for (const r of results) {
      const text = section(r.id).textContent!;
      for (const words of [r.question, r.claim, r.source]) expect(text).toContain(words);
    }
    expect(section(made.id).querySelector("pre.formula")!.textContent).toBe(made.formula);
    expect(section("E01").querySelector("pre.formula") === null).toBe(results[0]!.formula === undefined);
  });
  test("shows its settings with units and what they mean", () => {
    const [table] = [...section(made.id).querySelectorAll("table")].slice(-1);
    const rows = [...table!.querySelectorAll("tbody tr")].map((tr) =>
      [...tr.children].map((c) => c.textContent),
    );
    expect(rows).toEqual([
      ["eta", "0.02default 0.01", "theta² / loss", "0.001 to 0.1", `learning rate ${HOSTILE}`],
      ["steps", "100", "–", "1 to 10⁶", "how long"],
    ]);
  });
  test("says the command and the program that do it again", () => {
    const texts = [...section(made.id).querySelectorAll("details pre")].map((pre) => pre.textContent!);
    expect(texts[0]).toBe('npx noetherflow run X<2> --seed "a \\"seed\\"" --set eta=0.02');
    expect(texts[1]).toContain("  eta: 0.02,\n  steps: 100,\n");
    expect(texts[1]).toContain(`runExperiment(experiments.get("X<2>")!, engine, settings, "a \\"seed\\"")`);
    const defaults = { ...made, spec: { eta: 0.01, steps: 100, seed: provenance.seed } };
    const command = (quick: boolean, r: Result) =>
      parseHTML(reportHTML([r], { ...provenance, quick })).document.querySelectorAll("main details pre")[0]!
        .textContent;
    expect(command(false, defaults)).toBe('npx noetherflow run X<2> --seed "a \\"seed\\""');
    // a first look is told by its settings
    expect(command(true, made)).toBe(command(false, made));
  });
  test("has the data of its rows and figures as files within the page", () => {
    for (const r of results) {
      const rows = fields(decoded(link(r.id, `${r.id}-rows.csv`)));
      expect(rows.length).toBe(r.rows.length + 1);
      for (const [i, row] of r.rows.entries()) {
        const read = Object.fromEntries(rows[0]!.map((name, j) => [name, rows[i + 1]![j]]));
        expect(read.case).toBe(row.setting);
        expect(Number(read.predicted)).toBe(row.predicted.value);
        expect(Number(read.measured)).toBe(row.measured.value);
        expect(Number(read.std_error)).toBe(row.measured.stdErr);
        expect(read.verdict).toBe(showVerdict(row));
      }
      expect(JSON.parse(decoded(link(r.id, `${r.id}-rows.json`)))).toEqual(
        JSON.parse(JSON.stringify(r.rows)),
      );
      for (const [i, figure] of r.figures.entries()) {
        const csv = decoded(link(r.id, `${r.id}-figure-${i + 1}.csv`));
        expect(csv).toBe(figureCSV(figure));
        const points = figure.curves.reduce((n, c) => n + c.x.length, 0);
        expect(fields(csv).length).toBe(points + 1);
      }
    }
    const all = [...document.querySelectorAll("a[download]")].find((a) =>
      a.textContent!.startsWith("All rows"),
    )!;
    expect(decoded(all)).toBe(rowsCSV(results));
  });
});

test("the same experiment with other seeds has a place, files and a command of its own", () => {
  const other = { ...made, spec: { ...made.spec, seed: "s/1" } };
  const page = parseHTML(reportHTML([made, other], provenance)).document;
  const ids = [...page.querySelectorAll("[id]")].map((e) => e.id);
  expect(new Set(ids).size).toBe(ids.length);
  const second = page.getElementById("X<2>-2")!.parentElement!;
  expect(second.textContent).toContain("seed s/1");
  expect(second.querySelector("details pre")!.textContent).toContain("run X<2> --seed s/1");
  expect(second.querySelector("a[download]")!.getAttribute("download")).toBe("X<2>-2-rows.csv");
});

describe("the page", () => {
  test("needs no script and no network, and escapes every text", () => {
    expect(html).not.toMatch(/<script|<link|<iframe|<img|url\(|@import/);
    expect(html.replaceAll("http://www.w3.org/2000/svg", "")).not.toMatch(/https?:/);
    for (const place of ["h2", "figcaption strong", "tbody th", "pre.formula"])
      expect(
        [...section(made.id).querySelectorAll(place)].some((e) => e.textContent!.includes(HOSTILE)),
        place,
      ).toBe(true);
  });
  test("every figure says in words and numbers what it shows", () => {
    for (const r of results) {
      const figures = [...section(r.id).querySelectorAll("figure")];
      expect(figures.length).toBe(r.figures.length);
      for (const [i, element] of figures.entries()) {
        const figure = r.figures[i]!;
        for (const svg of element.querySelectorAll(".plot svg")) {
          const label = svg.getAttribute("aria-label")!;
          expect(svg.getAttribute("role")).toBe("img");
          for (const words of [figure.title, figure.xLabel, figure.yLabel]) expect(label).toContain(words);
          for (const c of figure.curves)
            expect(label).toContain(`${c.label}, ${c.predicted ? "predicted" : "measured"}`);
        }
        expect(element.querySelectorAll(".legend li").length).toBeGreaterThan(0);
      }
    }
    const text = section(made.id).querySelector(".plot svg")!.getAttribute("aria-label")!;
    expect(text).toContain("measured: 3 points from 1 at 1 to 3 at 3");
  });
  test("has its tables with captions and heads of columns and rows, and ids once", () => {
    for (const table of document.querySelectorAll("table")) {
      expect(table.querySelector("caption")!.textContent!.length).toBeGreaterThan(5);
      for (const tr of table.querySelectorAll("tbody tr"))
        expect(tr.children[0]!.getAttribute("scope")).toBe("row");
    }
    const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
    expect(new Set(ids).size).toBe(ids.length);
  });
});

describe("as data and as text", () => {
  test("JSON keeps the formula, the parameters and the figures", () => {
    const { experiments } = JSON.parse(JSON.stringify(reportJSON([made], provenance)));
    expect(experiments[0]).toMatchObject({
      formula: made.formula,
      figures: JSON.parse(JSON.stringify(made.figures)),
    });
    expect(experiments[0].parameters.eta.unit).toBe("theta² / loss");
  });
  test("the table of a terminal says all three verdicts", () => {
    const lines = reportTable([made]).split("\n");
    expect(lines.length).toBe(made.rows.length + 1);
    expect(lines.filter((l) => l.endsWith("agrees in the limit")).length).toBe(1);
    expect(lines.filter((l) => l.endsWith("disagrees")).length).toBe(1);
  });
  test("a verdict in the limit is one only where plain agreement is not there", () => {
    const estimate = { value: 1.4, stdErr: 0.001, count: 4, method: "mean" };
    const predicted = { value: 1, modelError: 0, neglects: "" };
    const half = { predicted, measured: { ...estimate, value: 1.2 } };
    const about = { setting: "", quantity: "", predicted, measured: estimate };
    const inLimit = judgeInLimit({ predicted, measured: estimate }, half);
    expect(showVerdict({ ...about, verdict: inLimit })).toBe("agrees in the limit");
    expect(showVerdict({ ...about, verdict: judge(estimate, predicted) })).toBe("disagrees");
    const close = { predicted, measured: { ...estimate, value: 1.001 } };
    expect(showVerdict({ ...about, verdict: judgeInLimit(close, half) })).toBe("agrees");
  });
});

/** Symmetries on HTML pages: the section of a report, and a page of their own. Structure is read back with linkedom. */
import { parseHTML } from "linkedom";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { experiments, type Result, runExperiment } from "../../src/experiments/experiment.ts";
import { createEngine, type Engine, models, type SymmetrySummary, symmetry } from "../../src/index.ts";
import { type Provenance, reportHTML, reportJSON, symmetryPage } from "../../src/report/report.ts";
import { Draw } from "../helpers/ready.ts";

const HOSTILE = `<script>alert("x")</script> & 'y'`;
const provenance: Provenance = {
  version: "0",
  dtype: "f64",
  variant: "simd",
  wasmSha256: null,
  streamVersion: 1,
  host: "a host",
  seed: "s",
  command: "npm start",
};

let engine: Engine;
let summary: SymmetrySummary;
let result: Result;
beforeAll(async () => {
  engine = await createEngine();
  const d = new Draw(1);
  const problem = engine.problem(models.twoLayerLinear({ dx: 2, h: 2, dy: 2 }), {
    x: d.normals(16),
    y: d.normals(16),
  });
  summary = await problem.report(d.normals(8), {
    eta: 0.01,
    batchSize: 1,
    generators: { [HOSTILE]: symmetry.rescaling("U", "W"), second: symmetry.scaling("U") },
  });
  result = await runExperiment(experiments.get("E01")!, engine, { steps: 200, replicas: 8 }, "report");
});
afterAll(() => engine.dispose());

/** The rows of a table by its heads. */
function read(table: Element): Record<string, string>[] {
  const heads = [...table.querySelectorAll("thead th")].map((th) => th.textContent!);
  return [...table.querySelectorAll("tbody tr")].map((tr) =>
    Object.fromEntries([...tr.children].map((cell, i) => [heads[i]!, cell.textContent!])),
  );
}

function checkAccessible(table: Element): void {
  expect(table.querySelector("caption")!.textContent!.length).toBeGreaterThan(5);
  for (const th of table.querySelectorAll("thead th")) expect(th.getAttribute("scope")).toBe("col");
  for (const tr of table.querySelectorAll("tbody tr")) {
    expect(tr.children[0]!.tagName).toBe("TH");
    expect(tr.children[0]!.getAttribute("scope")).toBe("row");
  }
  // a table that is wider than the page scrolls by itself, reachable by keyboard
  const around = table.parentElement!;
  expect([around.getAttribute("role"), around.getAttribute("tabindex")]).toEqual(["region", "0"]);
  expect(around.getAttribute("aria-label")!.length).toBeGreaterThan(0);
}

describe("a page of their own", () => {
  test("holds the numbers of the summary in an accessible table, without script or network", () => {
    const html = symmetryPage(summary, { title: "A net", lead: "At its start." });
    const { document } = parseHTML(html);
    const table = document.querySelector("table")!;
    checkAccessible(table);
    const rows = read(table);
    expect(rows.map((r) => r["Symmetry"])).toEqual([HOSTILE, "second"]);
    expect(rows[0]).toMatchObject({ Class: "1", "GD keeps": "yes", Phase: summary.rows[0]!.phase! });
    expect(Number(rows[0]!["C"])).toBeCloseTo(summary.rows[0]!.charge!, 2);
    expect(Number(rows[0]!["τ₂"]) / summary.rows[0]!.timeScale!).toBeCloseTo(1, 2);
    expect(document.querySelector("h1")!.textContent).toBe("A net");
    expect(document.documentElement.getAttribute("lang")).toBe("en");
    expect(document.querySelectorAll("script, link, img, iframe").length).toBe(0);
    expect(html).not.toMatch(/https?:|url\(/);
    expect(html).toContain("@media screen and (prefers-color-scheme:dark)");
    expect(html).toContain("color-scheme:light dark");
    for (const note of summary.notes) expect(document.body.textContent).toContain(note);
  });
  test("escapes title, lead and names", () => {
    const html = symmetryPage(summary, { title: HOSTILE, lead: HOSTILE });
    expect(html).not.toContain("<script");
    const { document } = parseHTML(html);
    expect(document.querySelector("h1")!.textContent).toBe(HOSTILE);
    expect(document.querySelector(".lead")!.textContent).toBe(HOSTILE);
  });
  test("needs no title", () => {
    expect(parseHTML(symmetryPage(summary)).document.querySelector("h1")!.textContent).toBe("Symmetries");
  });
});

describe("the report of experiments", () => {
  test("E01 finds its one symmetry at its start: (u^2 - w^2) / 2, at rest where u^2 = w^2", () => {
    const [table] = result.symmetries!;
    const [row, ...others] = table!.summary.rows;
    expect(others).toEqual([]);
    expect(row!.charge).toBeCloseTo((4 - 0.01) / 2, 12);
    // Tr[Sigma A] = 4 D (w^2 - u^2): noise balances where u^2 = w^2
    expect(row!.equilibrium).toMatchObject({ status: "finite" });
    expect(Math.abs((row!.equilibrium as { charge: number }).charge)).toBeLessThan(1e-12);
    expect((row!.equilibrium as { lambda: number }).lambda).toBeCloseTo(Math.log(0.1 / 2) / 2, 10);
    expect(row!.phase).toBe("slow");
  });
  test("has a section with the tables of all experiments that carry some", () => {
    const other = { ...result, id: "X<2>", symmetries: [{ title: HOSTILE, summary }] };
    const html = reportHTML([result, other], provenance);
    const { document } = parseHTML(html);
    const section = document.getElementById("symmetries")!.parentElement!;
    expect(section.getAttribute("aria-labelledby")).toBe("symmetries");
    const tables = [...section.querySelectorAll("table")];
    expect(tables.length).toBe(2);
    for (const table of tables) checkAccessible(table);
    expect(read(tables[0]!)[0]!["Symmetry"]).toBe("rescaling u, w");
    expect([...section.querySelectorAll("h3")].map((h) => h.textContent)).toEqual([
      `E01 ${result.symmetries![0]!.title}`,
      `X<2> ${HOSTILE}`,
    ]);
    expect(section.querySelector("h3 a")!.getAttribute("href")).toBe("#E01");
    expect(html).not.toContain("<script");
  });
  test("has none where no experiment does, and the rest of the page all the same", () => {
    const { symmetries: _, ...without } = result;
    const { document } = parseHTML(reportHTML([without], provenance));
    expect(document.getElementById("symmetries")).toBeNull();
    expect(document.getElementById("E01")).not.toBeNull();
    expect(document.querySelectorAll("main table").length).toBe(3);
  });
  test("as data: the summary beside the rows, plain JSON", () => {
    const json = JSON.parse(JSON.stringify(reportJSON([result], provenance))) as {
      experiments: { symmetries: { title: string; summary: { rows: { charge: number }[] } }[] }[];
    };
    expect(json.experiments[0]!.symmetries[0]!.summary.rows[0]!.charge).toBeCloseTo(1.995, 12);
  });
});

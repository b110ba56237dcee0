/** The report in Chromium: no violation that axe finds, no word in the console, nothing wider than the window, and usable by keyboard. */
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { type Browser, chromium as browserType, type Page } from "playwright";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { reportHTML } from "../../src/report/report.ts";
import { madeUp, provenance, quickResults } from "../helpers/report.ts";

const chromium = process.env.CHROMIUM_PATH || "/usr/bin/chromium";
const missing = !existsSync(chromium);
if (missing) console.log(`report not tested in a browser: no Chromium at ${chromium}`);
const axe = createRequire(import.meta.url).resolve("axe-core/axe.min.js");

interface AxeResult {
  readonly violations: readonly { id: string; help: string; nodes: readonly { html: string }[] }[];
  readonly passes: readonly unknown[];
}

describe.skipIf(missing)("the report in Chromium", () => {
  const folder = mkdtempSync(join(tmpdir(), "noetherflow-report-"));
  const url = pathToFileURL(join(folder, "report.html")).href;
  let browser: Browser;
  beforeAll(async () => {
    const made = madeUp();
    const long = { ...made, id: "LONG", rows: Array.from({ length: 30 }, () => made.rows[0]!) };
    writeFileSync(
      join(folder, "report.html"),
      reportHTML([...(await quickResults()), made, long], provenance),
    );
    browser = await browserType.launch({
      executablePath: chromium,
      args: ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"],
    });
  });
  afterAll(async () => {
    await browser?.close();
    rmSync(folder, { recursive: true, force: true });
  });

  async function open(width: number, colorScheme: "light" | "dark"): Promise<{ page: Page; said: string[] }> {
    const page = await browser.newPage({ colorScheme, viewport: { width, height: 900 } });
    const said: string[] = [];
    page.on("console", (message) => said.push(message.text()));
    page.on("pageerror", (error) => said.push(String(error)));
    page.on("request", (request) => {
      if (request.url() !== url) said.push(`asks for ${request.url()}`);
    });
    await page.goto(url);
    return { page, said };
  }

  test.each([
    [390, "light"],
    [390, "dark"],
    [1280, "light"],
    [1280, "dark"],
  ] as const)("at width %i, %s: axe finds nothing, all unfolded", async (width, scheme) => {
    const { page, said } = await open(width, scheme);
    expect(said).toEqual([]);
    await page.evaluate(() => {
      for (const details of document.querySelectorAll("details")) details.open = true;
    });
    await page.addScriptTag({ path: axe });
    const { violations, passes } = await page.evaluate(() =>
      (globalThis as unknown as { axe: { run(): Promise<AxeResult> } }).axe.run(),
    );
    expect(violations.map((v) => [v.id, v.help, v.nodes[0]!.html])).toEqual([]);
    expect(passes.length).toBeGreaterThan(20);
    await page.close();
  });

  test.each([320, 390, 700, 1000, 1280, 1800])(
    "at width %i nothing is wider than the window",
    async (width) => {
      const { page } = await open(width, "light");
      const wide = await page.evaluate(() => {
        for (const details of document.querySelectorAll<HTMLDetailsElement>("main details"))
          details.open = true;
        const outside = [...document.querySelectorAll("main *:not(.scroll *)")].filter(
          (e) => e.getBoundingClientRect().right > innerWidth + 1,
        );
        return {
          page: document.documentElement.scrollWidth - innerWidth,
          outside: outside.map((e) => e.outerHTML),
        };
      });
      expect(wide).toEqual({ page: 0, outside: [] });
      await page.close();
    },
  );

  test("labels of figures stay inside their drawings, wide and narrow", async () => {
    for (const width of [390, 1280]) {
      const { page } = await open(width, "light");
      const cut = await page.evaluate(() =>
        [...document.querySelectorAll(".plot svg")]
          .filter((svg) => svg.getBoundingClientRect().width > 0)
          .flatMap((svg) => {
            const box = svg.getBoundingClientRect();
            return [...svg.querySelectorAll("text")]
              .filter((t) => {
                const b = t.getBoundingClientRect();
                return (
                  b.left < box.left - 1 ||
                  b.right > box.right + 1 ||
                  b.top < box.top - 1 ||
                  b.bottom > box.bottom + 1
                );
              })
              .map((t) => t.textContent);
          }),
      );
      expect(cut, `at width ${width}`).toEqual([]);
      await page.close();
    }
  });

  test("by keyboard: the first key leads past the contents, and what has the focus is outlined", async () => {
    const { page } = await open(1280, "light");
    await page.keyboard.press("Tab");
    const focus = () =>
      page.evaluate(() => {
        const e = document.activeElement!;
        const { outlineStyle, outlineWidth } = getComputedStyle(e);
        return { text: e.textContent, left: e.getBoundingClientRect().left, outlineStyle, outlineWidth };
      });
    expect(await focus()).toMatchObject({
      text: "Skip to the results",
      outlineStyle: "solid",
      outlineWidth: "3px",
    });
    expect((await focus()).left).toBeGreaterThanOrEqual(0);
    await page.keyboard.press("Enter");
    await page.keyboard.press("Tab");
    expect((await focus()).text).toContain("E01");
    await page.close();
  });

  test("on paper folded rows are there and the contents are not", async () => {
    // the width of A4 between margins of 1 cm
    const { page } = await open(718, "dark");
    await page.emulateMedia({ media: "print" });
    const seen = await page.evaluate(() => ({
      outside: document.documentElement.scrollWidth - innerWidth,
      row: document.getElementById("LONG-row-30")!.getBoundingClientRect().height,
      contents: document.querySelector(".aside")!.getBoundingClientRect().height,
      paper: getComputedStyle(document.body).backgroundColor,
    }));
    expect(seen.row).toBeGreaterThan(0);
    expect(seen).toMatchObject({ outside: 0, contents: 0, paper: "rgb(255, 255, 255)" });
    await page.close();
  });
});

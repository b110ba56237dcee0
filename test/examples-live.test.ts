/** The live page, built and served as a teacher would: the bits of Node, a Stop that stops, mistakes that are said, and no fault that axe finds. */
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type Browser, chromium as browserType, type Page } from "playwright";
import { build, type PreviewServer, preview } from "vite";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { cases, type End, follow, mean, type Point, prepare } from "../examples/live/experiment.ts";
import { hashOf, settingOf } from "../examples/live/setting.ts";
import { createEngine, type Engine } from "../src/index.ts";

const chromium = process.env.CHROMIUM_PATH || "/usr/bin/chromium";
const missing = !existsSync(chromium);
if (missing && process.env.CI === "true")
  throw new Error(`the live page cannot be tested: no Chromium at ${chromium}`);
if (missing) console.log(`the live page is not tested in a browser: no Chromium at ${chromium}`);

const root = fileURLToPath(new URL("../examples/live", import.meta.url));
const LINK = "#model=linear&S=3&eta=0.01&gamma=0.0005&noise=0.7&lambda=-0.4&steps=3000&seed=a+link";

let engine: Engine;
beforeAll(async () => {
  engine = await createEngine();
});
afterAll(() => engine.dispose());

/** The run of an address in Node. */
async function inNode(hash: string): Promise<{ points: Point[]; gd: End; sgd: End }> {
  const points: Point[] = [];
  const run = follow(engine, settingOf(hash));
  for (;;) {
    const { done, value } = await run.next();
    if (done) return { points, ...value };
    points.push(value);
  }
}

describe("the experiment of the live page", () => {
  test("an address is a setting and back, and what is left out is as usual", () => {
    expect(settingOf(LINK)).toEqual({
      model: "linear",
      batchSize: 3,
      eta: 0.01,
      weightDecay: 0.0005,
      noise: 0.7,
      lambda: -0.4,
      seed: "a link",
      steps: 3000,
    });
    expect(hashOf(settingOf(LINK))).toBe(LINK);
    expect(settingOf("")).toEqual({ model: "rank-one", seed: "1", ...cases["rank-one"]!.usual });
    expect(settingOf("#eta=&S=x")).toMatchObject({ eta: Number.NaN, batchSize: Number.NaN });
  });

  test("both runs are those of simulate, and every generator is an exact symmetry", async () => {
    for (const model of Object.keys(cases)) {
      const hash = `#model=${model}&steps=100`;
      const { problem, A, gd, sgd } = prepare(engine, settingOf(hash));
      expect(problem.checkSymmetry(A).verdict, model).toBe("exact");
      const ended = await inNode(hash);
      expect([ended.gd.hash, ended.sgd.hash], model).toEqual([
        (await problem.simulate(gd)).hash,
        (await problem.simulate(sgd)).hash,
      ]);
      problem.dispose();
    }
  });

  test("SGD follows the prediction to its equilibrium, gradient descent keeps the charge", async () => {
    for (const [hash, distance] of [
      ["#model=linear&steps=60000", 0.12],
      ["#model=normalised&steps=20000", 0.05],
    ] as const) {
      const { points } = await inNode(hash);
      const [first, last] = [points[0]!, points.at(-1)!];
      const change = mean(last.sgd!.charges) - first.gd!.charge;
      // the sum at 500 places of a path with noise, of a charge that moves by about 1
      expect(Math.abs(last.sgd!.predicted - mean(last.sgd!.charges))).toBeLessThan(0.05 * Math.abs(change));
      expect(Math.abs(last.sgd!.balance.charge - mean(last.sgd!.charges))).toBeLessThan(
        distance * Math.abs(change),
      );
      if (settingOf(hash).weightDecay === 0)
        expect(Math.abs(last.gd!.charge - first.gd!.charge)).toBeLessThan(0.01 * Math.abs(change));
    }
  });
});

interface AxeResult {
  readonly violations: readonly { id: string; help: string; nodes: readonly { html: string }[] }[];
  readonly passes: readonly unknown[];
}

describe.skipIf(missing)("the live page in Chromium", () => {
  const folder = mkdtempSync(join(tmpdir(), "noetherflow-live-"));
  const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
  const configFile = join(root, "vite.config.ts");
  let server: PreviewServer;
  let browser: Browser;
  let url: string;
  /** What pages wrote to the console, threw, or asked of others: nothing. */
  const said: string[] = [];

  beforeAll(async () => {
    await build({ root, configFile, logLevel: "error", build: { outDir: folder, emptyOutDir: true } });
    server = await preview({
      root,
      configFile,
      logLevel: "error",
      build: { outDir: folder },
      preview: { host: "127.0.0.1", port: 0 },
    });
    url = server.resolvedUrls!.local[0]!;
    browser = await browserType.launch({
      executablePath: chromium,
      args: ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"],
    });
  });
  afterAll(async () => {
    await browser?.close();
    await server?.close();
    rmSync(folder, { recursive: true, force: true });
  });
  afterEach(() => {
    expect(said.splice(0)).toEqual([]);
  });

  async function open(hash: string, options: Parameters<Browser["newPage"]>[0] = {}): Promise<Page> {
    const page = await browser.newPage(options);
    page.on("console", (message) => said.push(message.text()));
    page.on("pageerror", (error) => said.push(String(error)));
    page.on("request", (request) => {
      if (!request.url().startsWith(url) && !request.url().startsWith("blob:"))
        said.push(`asks for ${request.url()}`);
    });
    const response = await page.goto(url + hash);
    // Wasm may be compiled, and nothing inline or from elsewhere is run
    expect(response!.headers()["content-security-policy"]).toBe(
      "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'",
    );
    return page;
  }
  const status = (page: Page, pattern: string): Promise<unknown> =>
    page.locator("#status", { hasText: new RegExp(pattern) }).waitFor({ timeout: 30_000 });
  const hashes = async (page: Page) => [
    await page.textContent("#gd-hash"),
    await page.textContent("#sgd-hash"),
  ];

  test("a permalink gives the bits of Node: hashes, and every number of the CSV", async () => {
    const page = await open(LINK);
    await status(page, "^Done");
    const { points, gd, sgd } = await inNode(LINK);
    expect(await hashes(page)).toEqual([gd.hash, sgd.hash]);
    const [download] = await Promise.all([page.waitForEvent("download"), page.click("#csv")]);
    const [head, ...rows] = readFileSync(await download.path(), "utf8")
      .trimEnd()
      .split("\n");
    expect(head).toBe(
      `k,loss of GD,loss of SGD,${[0, 1, 2, 3, 4, 5, 6, 7].map((r) => `C of SGD ${r}`)},C of GD,C of SGD,equilibrium,predicted C of SGD`,
    );
    expect(rows.map((row) => row.split(",").map(Number))).toEqual(
      points.map(({ k, gd, sgd }) => [
        k,
        gd!.loss,
        sgd!.loss,
        ...sgd!.charges,
        gd!.charge,
        mean(sgd!.charges),
        sgd!.balance.charge,
        sgd!.predicted,
      ]),
    );
    expect(points).toHaveLength(501);
    await page.close();
  });

  test("a changed field runs again, and the copied link opens the same run", async () => {
    const context = await browser.newContext({ permissions: ["clipboard-read", "clipboard-write"] });
    const page = await context.newPage();
    await page.goto(`${url}#steps=1000`);
    await status(page, "^Done");
    const before = await hashes(page);
    await page.getByLabel("batch size").fill("7");
    await page.getByLabel("batch size").press("Enter");
    await status(page, "^Done");
    const [gd, sgd] = await hashes(page);
    expect([gd === before[0], sgd === before[1]]).toEqual([true, false]);
    await page.getByRole("button", { name: "Copy link" }).click();
    await status(page, "is copied");
    const link = await page.evaluate(() => navigator.clipboard.readText());
    expect(link).toContain("S=7");
    const copy = await open(link.slice(url.length));
    await status(copy, "^Done");
    expect(await hashes(copy)).toEqual([gd, sgd]);
    await copy.close();
    // another model comes with its usual settings; Reset waits
    await page.getByLabel("model").selectOption("normalised");
    await status(page, "^Running 50,000 steps");
    expect(page.url()).toContain("gamma=0.001&noise=1&lambda=-0.2");
    await page.getByRole("button", { name: "Reset" }).click();
    await status(page, "^Ready");
    expect(await page.textContent("#step")).toBe("–");
    await context.close();
  });

  test("Stop stops at once, by button and by Escape, and the worker goes on to answer", async () => {
    const page = await open("#model=relu&steps=50000000");
    const stopped = (how: "button" | "key") =>
      page.evaluate(
        (by) =>
          new Promise<number>((resolve) => {
            const line = document.getElementById("status")!;
            const began = performance.now();
            new MutationObserver(() => {
              if (line.textContent!.startsWith("Stopped at step")) resolve(performance.now() - began);
            }).observe(line, { childList: true });
            if (by === "button") document.getElementById("toggle")!.click();
            else document.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape" }));
          }),
        how,
      );
    for (const how of ["button", "key"] as const) {
      await page.waitForFunction(() => document.getElementById("step")!.textContent !== "–");
      expect(await page.textContent("#toggle")).toBe("Stop");
      expect(await stopped(how)).toBeLessThan(1000);
      expect(await page.textContent("#toggle")).toBe("Run");
      await page.getByRole("button", { name: "Run" }).click();
    }
    // a new run ends the one under way
    await page.getByLabel("steps").fill("500");
    await page.getByLabel("steps").press("Enter");
    await status(page, "^Done");
    const { sgd } = await inNode("#model=relu&steps=500");
    expect((await hashes(page))[1]).toBe(sgd.hash);
    await page.close();
  });

  test("what cannot be run is said in a sentence, and so is what diverges", async () => {
    const page = await open("#S=0");
    const error = page.getByRole("alert");
    await status(page, "^Nothing was run");
    expect(await error.textContent()).toMatch(/^sgd: batch size S must be an integer in \[1, .*got 0\.$/);
    for (const [hash, sentence] of [
      ["#model=other", 'model: the models are rank-one, linear, relu, normalised, got "other".'],
      ["#eta=", "gd: eta must be a finite number of at least 0, got NaN."],
      ["#steps=1.5", "steps must be an integer"],
      ["#noise=nan", "NaN"],
      ["#lambda=1e9", "lambda"],
    ] as const) {
      await page.evaluate((to) => {
        location.hash = to;
      }, hash);
      await error.filter({ hasText: sentence }).waitFor({ timeout: 30_000 });
      expect(await page.textContent("#toggle")).toBe("Run");
    }
    await page.evaluate(() => {
      location.hash = "#eta=0.6&steps=1000";
    });
    await status(page, "^Diverged: SGD after step \\d+\\.");
    expect(await error.textContent()).toBe("");
    await page.evaluate(() => {
      location.hash = "#model=normalised&gamma=0&steps=200";
    });
    await status(page, "^Done");
    expect(await page.textContent("#rest")).toBe("none: C grows for ever");
    await page.close();
  });

  test.each([
    [390, "light"],
    [390, "dark"],
    [1280, "light"],
    [1280, "dark"],
  ] as const)(
    "at width %i, %s: axe finds nothing, and nothing is wider than the window",
    async (width, colorScheme) => {
      const page = await open("#steps=1000", { viewport: { width, height: 900 }, colorScheme });
      await status(page, "^Done");
      const check = async () => {
        const { violations, passes } = (await page.evaluate(`${axe}\naxe.run()`)) as AxeResult;
        expect(violations.map((v) => [v.id, v.help, v.nodes[0]!.html])).toEqual([]);
        expect(passes.length).toBeGreaterThan(20);
      };
      await check();
      await page.getByLabel("batch size").fill("0");
      await page.getByLabel("batch size").press("Enter");
      await status(page, "^Nothing was run");
      await check();
      expect(await page.evaluate(() => document.documentElement.scrollWidth - innerWidth)).toBe(0);
      await page.close();
    },
  );
});

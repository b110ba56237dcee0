// The cells of the browser: the stranger's page, bundled by Vite and by esbuild without a setting, and under a strict policy.
import assert from "node:assert/strict";
import { copyFileSync, existsSync, mkdirSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { NotTried } from "./matrix.mjs";
import { writePage } from "./programs.mjs";
import { run } from "./shell.mjs";

const chromium = process.env.CHROMIUM_PATH || "/usr/bin/chromium";
const policy =
  "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; connect-src 'self'; worker-src 'self'; report-uri /violations";
const types = { ".html": "text/html", ".js": "text/javascript", ".wasm": "application/wasm" };
const cells = {
  page: "page",
  f32: "page, f32",
  worker: "module worker",
  many: "simulateMany",
  manyByURL: "simulateMany, the worker's URL passed",
};

/** All pages, one after another in one browser. `tools` is the folder that has the bundlers. */
export async function cellsOfPages(matrix, { stranger, installed, tools, expected }) {
  let browser;
  await matrix.cell("browser", "Chromium", async () => {
    if (!existsSync(chromium))
      throw new NotTried(`no Chromium at ${chromium} (apt-get install chromium, or set CHROMIUM_PATH)`);
    const { chromium: browserType } = await import("playwright");
    const args = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"];
    browser = await browserType.launch({ executablePath: chromium, args });
    return browser.version();
  });
  try {
    for (const bundler of ["vite", "esbuild"])
      for (const strict of [false, true]) {
        const folder = join(stranger, `${bundler}${strict ? "-strict" : ""}`);
        const group = `${bundler}${strict ? ", strict policy" : ""}`;
        let built;
        await matrix.cell(group, "bundled", async () => {
          writePage(folder, bundler, strict);
          built = await bundle[bundler]({ folder, installed, tools });
        });
        if (built !== undefined && browser !== undefined)
          await cellsOfPage(matrix, group, { browser, built, strict, expected });
      }
  } finally {
    await browser?.close();
  }
}

/** Each bundles what is in the folder and returns the folder to serve; a warning is a failure. */
const bundle = {
  async vite({ folder, tools }) {
    const vite = join(tools, "vite/bin/vite.js");
    const { stdout, stderr } = await run(process.execPath, [vite, "build", "--logLevel", "warn"], {
      cwd: folder,
    });
    assert.equal(stdout + stderr, "", "vite warns");
    return join(folder, "dist");
  },

  /** The package's worker is an entry beside the page's own, or a copy whose URL is passed; the page is tried with both. */
  async esbuild({ folder, installed, tools }) {
    const built = join(folder, "out");
    const entries = ["page=page.js", "worker=worker.js", "parallel-worker=noetherflow/parallel-worker.js"];
    const { stdout, stderr } = await run(
      join(tools, ".bin/esbuild"),
      [...entries, "--bundle", "--format=esm", "--outdir=out", "--log-level=warning"],
      { cwd: folder },
    );
    assert.equal(stdout + stderr, "", "esbuild warns");
    copyFileSync(join(folder, "index.html"), join(built, "index.html"));
    copyFileSync(join(installed, "dist/core.wasm"), join(built, "core.wasm"));
    mkdirSync(join(built, "vendor"));
    copyFileSync(join(installed, "dist/parallel-worker.js"), join(built, "vendor/parallel-worker.js"));
    return built;
  },
};

async function cellsOfPage(matrix, group, { browser, built, strict, expected }) {
  const site = await serve(built, strict ? { "Content-Security-Policy": policy } : {});
  const page = await browser.newPage();
  await page.addInitScript(() => {
    window.violations = [];
    addEventListener("securitypolicyviolation", (event) => window.violations.push(event.violatedDirective));
  });
  const said = [];
  page.on("pageerror", (error) => said.push(String(error)));
  page.on("console", (message) => said.push(message.text()));
  try {
    await page.goto(site.url);
    const result = await page
      .waitForFunction(() => window.result, undefined, { timeout: 60_000 })
      .then((handle) => handle.jsonValue())
      .catch((error) => ({ page: { error: error.message } }));
    for (const [name, { value, error }] of Object.entries(result))
      await matrix.cell(group, cells[name], () => {
        if (error !== undefined) throw new Error([error, ...said].join("\n"));
        const wanted = { page: "f64", worker: "f64", f32: "f32", many: "many", manyByURL: "many" }[name];
        assert.deepEqual(value, expected[wanted]);
        return (value.hash ?? value.replicas).slice(0, 12);
      });
    if (strict)
      await matrix.cell(group, "no violation", async () => {
        const seen = () => page.evaluate(() => window.violations);
        assert.deepEqual([site.violations, await seen(), said], [[], [], []]);
        // the policy is in force, and a violation would have been seen
        await page.evaluate(() => fetch("data:text/plain,no").catch(() => {}));
        for (let tries = 0; site.violations.length === 0 && tries < 50; tries++)
          await new Promise((resolve) => setTimeout(resolve, 100));
        assert.equal(site.violations.length, 1, "the policy refuses a data URL, and says so");
        assert.deepEqual(await seen(), ["connect-src"]);
      });
  } finally {
    await page.close();
    await site.close();
  }
}

/** Serves a folder on a free port; keeps what browsers report about its policy, workers included. */
async function serve(folder, headers) {
  const violations = [];
  const server = createServer(async (request, response) => {
    const path = new URL(request.url, "http://localhost").pathname;
    if (path === "/violations") {
      let body = "";
      for await (const part of request) body += part;
      violations.push(body);
      response.writeHead(204).end();
      return;
    }
    const file = join(folder, normalize(path === "/" ? "/index.html" : path));
    try {
      const bytes = await readFile(file);
      response
        .writeHead(200, { ...headers, "Content-Type": types[extname(file)] ?? "text/plain" })
        .end(bytes);
    } catch {
      response.writeHead(404).end();
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const close = () =>
    new Promise((resolve) => {
      server.close(resolve);
      server.closeAllConnections();
    });
  return { url: `http://127.0.0.1:${server.address().port}/`, violations, close };
}

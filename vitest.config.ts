import { existsSync } from "node:fs";
import { playwright } from "@vitest/browser-playwright";
import { defineConfig, type TestProjectInlineConfiguration } from "vitest/config";

const chromium = process.env.CHROMIUM_PATH || "/usr/bin/chromium";

const shared = {
  testTimeout: 60_000,
  expect: { requireAssertions: true }, // a test that asserts nothing fails
};
const slow = process.env.SLOW === "1" ? [] : ["**/*.slow.test.ts"];

const node: TestProjectInlineConfiguration = {
  test: {
    ...shared,
    name: "node",
    environment: "node",
    include: ["test/**/*.test.ts"],
    exclude: ["test/browser/**", ...slow],
  },
};

const browser: TestProjectInlineConfiguration = {
  optimizeDeps: { include: ["@assemblyscript/loader", "fast-check", "seedrandom"] }, // late finds reload the page
  test: {
    ...shared,
    name: "browser",
    include: ["test/browser/**/*.test.ts"],
    exclude: slow,
    browser: {
      enabled: true,
      headless: true,
      screenshotFailures: false,
      provider: playwright({
        launchOptions: {
          executablePath: chromium,
          args: ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"],
        },
      }),
      instances: [{ browser: "chromium" }],
    },
  },
};

/** The browser project, unless there is no browser: an error in CI, a line in the output elsewhere. */
function browserProjects(): TestProjectInlineConfiguration[] {
  if (existsSync(chromium)) return [browser];
  const missing = `no Chromium at ${chromium} (apt-get install chromium, or set CHROMIUM_PATH)`;
  if (process.env.CI === "true") throw new Error(`the browser tests cannot run in CI: ${missing}`);
  console.log(`browser tests not run: ${missing}`);
  return [];
}

export default defineConfig({ test: { projects: [node, ...browserProjects()] } });

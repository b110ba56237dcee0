// `npm test`: the Wasm if it is stale, types, formatting and lint, then every test. Arguments go to vitest.
// All stages run even if one fails, so that one command shows everything; the exit code is 1 if any failed.
import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { refreshKernels, root } from "./build.mjs";

const report = join(root, "build/test-report.json");
const start = performance.now();

function run(script, ...args) {
  const { status } = spawnSync(process.execPath, [join(root, "node_modules", script), ...args], {
    cwd: root,
    stdio: "inherit",
  });
  return status === 0;
}

/** What vitest counted, or undefined if it did not get as far as writing its report. */
function counts() {
  try {
    return JSON.parse(readFileSync(report, "utf8"));
  } catch {
    return undefined;
  }
}

refreshKernels();
mkdirSync(join(root, "build"), { recursive: true });
rmSync(report, { force: true });
const stages = {
  types: run("typescript/bin/tsc", "--noEmit"),
  lint: run("@biomejs/biome/bin/biome", "check", "--diagnostic-level=warn", "--error-on-warnings"),
  tests: run(
    "vitest/vitest.mjs",
    "run",
    ...["--reporter=default", "--reporter=json", `--outputFile.json=${report}`],
    ...process.argv.slice(2),
  ),
};

const failed = Object.keys(stages).filter((stage) => !stages[stage]);
const count = counts();
const tests = count
  ? `${count.numPassedTests} tests passed, ${count.numFailedTests} failed, ${count.numPendingTests} skipped`
  : "no test was run";
const seconds = ((performance.now() - start) / 1000).toFixed(1);
console.log(
  `npm test: ${failed.length === 0 ? "passed" : `FAILED (${failed.join(", ")})`}; ${tests}; ${seconds} s`,
);
process.exitCode = failed.length === 0 ? 0 : 1;

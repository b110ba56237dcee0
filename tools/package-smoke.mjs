// `npm run test:package`: packs the package, installs it in an empty folder and uses it as a stranger would:
// types, import graph, plain Node, and a page bundled by Vite without a setting, run in Chromium if there is one.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { publint } from "publint";
import { formatMessage } from "publint/utils";
import ts from "typescript";
import { build, createLogger, preview } from "vite";

const allowedPackages = ["@assemblyscript/loader", "seedrandom"];
const repository = fileURLToPath(new URL("..", import.meta.url));
const chromium = process.env.CHROMIUM_PATH || "/usr/bin/chromium";
const folder = mkdtempSync(join(tmpdir(), "noetherflow-package-"));
const start = performance.now();

const program = `
import { createEngine, model, ops } from "noetherflow";
import { simulateMany, simulateReplicas } from "noetherflow/parallel";
export async function train() {
  const net = model({ params: { u: [1], w: [1] }, inputs: { x: [1], y: [1] },
    loss: ({ u, w, x, y }) => ops.sqnorm(ops.sub(ops.mul(ops.mul(u, w), x), y)) });
  const engine = await createEngine();
  const problem = engine.problem(net, { x: [1, 2, -1], y: [1.5, 1, -1] });
  const options = { scheme: "sgd" as const, theta: { u: [1], w: [0.5] }, eta: 0.05, batchSize: 1, steps: 10, seed: "smoke" };
  const run = await problem.simulate(options);
  const { runs } = await simulateMany([problem.describe(options), { problem, options }], { workers: 2 });
  const many = runs.map((end) => end.status === "done" ? end.run.hash : end.error.message);
  const replicas = await simulateReplicas(problem, { ...options, replicas: 5 }, { workers: 2 });
  return { theta: Array.from(run.theta), steps: run.steps, hash: run.hash, many, replicas: replicas.hashes[0] };
}
`;

/** For Node alone: the same run with a folder. */
const recording = `
import { createEngine, model, ops } from "noetherflow";
import { readRun, recordRun, replayRun, resumeRun } from "noetherflow/records";
export async function record(dir: string) {
  const net = model({ params: { u: [1] }, inputs: { x: [1] }, loss: ({ u, x }) => ops.sqnorm(ops.mul(u, x)) });
  const engine = await createEngine();
  const problem = engine.problem(net, { x: [1, 2, -1] });
  const options = { scheme: "gd" as const, theta: [1], eta: 0.05, steps: 10, record: { every: 1, loss: "full" as const } };
  const run = await recordRun(problem, options, { dir });
  const { same, differences } = await replayRun(dir);
  const again = [(await resumeRun(dir)).hash, (await readRun(dir)).hash];
  return { hash: run.hash, again, same, differences: differences.length };
}
`;

function say(text) {
  console.log(`package: ${text} (${((performance.now() - start) / 1000).toFixed(1)} s)`);
}

function write(path, text) {
  const full = join(folder, path);
  mkdirSync(dirname(full), { recursive: true });
  writeFileSync(full, text);
  return full;
}

/** Runs a program to its end and returns its output; on failure throws with all it said. */
function run(command, args, cwd) {
  try {
    return execFileSync(command, args, { cwd, encoding: "utf8", stdio: "pipe" });
  } catch (error) {
    throw new Error(
      `${command} ${args.join(" ")} failed:\n${error.stdout ?? ""}${error.stderr ?? error.message}`,
    );
  }
}

/** Packages and built-in modules that a file and what it imports name, statically or by import(). */
function barePackages(file, seen = new Set(), found = new Set()) {
  if (seen.has(file)) return found;
  seen.add(file);
  for (const { fileName } of ts.preProcessFile(readFileSync(file, "utf8"), true, true).importedFiles) {
    if (fileName.startsWith(".")) barePackages(resolve(dirname(file), fileName), seen, found);
    else found.add(fileName);
  }
  return found;
}

function checkTrained({ theta, steps, hash, many, replicas }, host) {
  assert.equal(steps, 10, `${host}: ten steps`);
  assert.equal(theta.length, 2, `${host}: theta has two entries`);
  assert.ok(theta.every(Number.isFinite), `${host}: theta is finite, got ${theta}`);
  assert.notDeepEqual(theta, [1, 0.5], `${host}: theta moved`);
  assert.match(hash, /^\S+$/, `${host}: the run has a hash`);
  assert.deepEqual(many, [hash, hash], `${host}: two workers give the same`);
  assert.match(replicas, /^\S+$/, `${host}: replicas over two workers`);
}

async function checkManifest(pkgDir) {
  const { messages, pkg } = await publint({ pkgDir, pack: false, strict: true });
  assert.deepEqual(
    messages.map((message) => formatMessage(message, pkg, { color: false })),
    [],
    "publint",
  );
}

/** Builds the page as a stranger would; a warning about a Node module in the bundle is a failure. */
async function bundle() {
  write("index.html", '<!doctype html><title>page</title><script type="module" src="./page.js"></script>\n');
  write(
    "page.js",
    'import { train } from "./train.js";\n' +
      "train().then((run) => { window.result = { run }; }, (error) => { window.result = { error: String(error) }; });\n",
  );
  const warnings = [];
  const logger = createLogger("warn");
  logger.warn = (text) => warnings.push(text);
  logger.warnOnce = logger.warn;
  await build({ root: folder, configFile: false, logLevel: "warn", customLogger: logger });
  for (const warning of warnings) console.log(`package: vite warns: ${warning}`);
  assert.ok(!warnings.some((text) => text.includes("externalized")), "vite put a Node module into the page");
}

/** What the built page trained, in Chromium. */
async function trainInBrowser() {
  const { chromium: browserType } = await import("playwright");
  const server = await preview({
    root: folder,
    configFile: false,
    logLevel: "error",
    preview: { host: "127.0.0.1" },
  });
  const browser = await browserType.launch({
    executablePath: chromium,
    args: ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"],
  });
  try {
    const page = await browser.newPage();
    const said = [];
    page.on("pageerror", (error) => said.push(String(error)));
    page.on("console", (message) => said.push(message.text()));
    await page.goto(server.resolvedUrls.local[0]);
    const result = await page
      .waitForFunction(() => window.result, undefined, { timeout: 30_000 })
      .then((handle) => handle.jsonValue())
      .catch((error) => ({ error: `${error}` }));
    assert.equal(result.error, undefined, `the page failed; it said: ${said.join(" | ")}`);
    return result.run;
  } finally {
    await browser.close();
    await server.close();
  }
}

try {
  run("npm", ["pack", "--pack-destination", folder], repository); // runs prepack, which builds
  const tarball = join(
    folder,
    readdirSync(folder).find((name) => name.endsWith(".tgz")),
  );
  say("packed");

  write("package.json", '{ "name": "stranger", "private": true, "type": "module" }\n');
  run("npm", ["install", "--prefer-offline", "--no-audit", "--no-fund", tarball], folder);
  say("installed");

  const installed = join(folder, "node_modules/noetherflow");
  const exported = Object.values(JSON.parse(readFileSync(join(installed, "package.json"), "utf8")).exports);
  for (const path of exported.flatMap((entry) =>
    typeof entry === "string" ? entry : Object.values(entry),
  )) {
    assert.ok(existsSync(join(installed, path)), `the package lacks ${path}, which its exports name`);
  }
  await checkManifest(installed);
  const reached = [...barePackages(join(installed, "dist/index.js"))].sort();
  assert.deepEqual(
    reached.filter((name) => !allowedPackages.includes(name)),
    [],
    "packages the root entry reaches",
  );
  say(`the root entry reaches ${reached.join(", ") || "no package"}`);

  write("train.js", program.replaceAll(" as const", ""));
  write("types.ts", program.replaceAll("export ", ""));
  write("records.js", recording.replaceAll(" as const", "").replace(": string", ""));
  write("records.ts", recording);
  const compilerOptions = { noEmit: true, strict: true, target: "es2022", module: "nodenext", types: [] };
  const project = write("types.json", JSON.stringify({ compilerOptions, files: ["types.ts", "records.ts"] }));
  run(process.execPath, [join(repository, "node_modules/typescript/bin/tsc"), "--project", project], folder);
  say("types resolve under nodenext");

  write("node.js", 'import { train } from "./train.js";\nconsole.log(JSON.stringify(await train()));\n');
  const inNode = JSON.parse(run(process.execPath, ["node.js"], folder));
  checkTrained(inNode, "Node");
  write("require.cjs", 'if (typeof require("noetherflow").createEngine !== "function") process.exit(1);\n');
  run(process.execPath, ["require.cjs"], folder);
  say(`ten steps in Node: theta ${inNode.theta.join(", ")}, hash ${inNode.hash}`);
  write(
    "record.js",
    'import { record } from "./records.js";\nconsole.log(JSON.stringify(await record("run")));\n',
  );
  const recorded = JSON.parse(run(process.execPath, ["record.js"], folder));
  assert.deepEqual(recorded.again, [recorded.hash, recorded.hash], "a run's folder is read back");
  assert.deepEqual([recorded.same, recorded.differences], [true, 0], "and replayed to the same bits");
  say("a run with a folder, read back and replayed");

  await bundle();
  say("bundled by Vite without a setting, workers too");
  if (existsSync(chromium)) {
    const inBrowser = await trainInBrowser();
    checkTrained(inBrowser, "Chromium");
    assert.deepEqual(inBrowser, inNode, "Chromium and Node give the same bits");
    say("ten steps in Chromium, the same bits");
  } else {
    assert.notEqual(process.env.CI, "true", `no Chromium at ${chromium}`);
    say(`page not loaded: no Chromium at ${chromium} (apt-get install chromium, or set CHROMIUM_PATH)`);
  }
  say("passed");
} catch (error) {
  console.error(`package: FAILED: ${error.message}`);
  process.exitCode = 1;
} finally {
  rmSync(folder, { recursive: true, force: true });
}

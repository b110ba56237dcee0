// `npm run test:package`: packs the package, installs it in an empty folder and uses it there as a stranger would, on every version of Node
// and in every bundler that it promises. Every cell of the matrix trains the same small model and must end at the same hash. A cell that
// fails stops no other; the table at the end has them all.
//
//   --nodes 20,22   only these versions of Node, instead of 20, 22, 24, 26 and the oldest that package.json allows
//   --json <file>   the table as data
import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { cellsOfManifest } from "./package/manifest.mjs";
import { Matrix } from "./package/matrix.mjs";
import { cellsOfNode, checkProgram, findNode, trainIn, versionsToTry } from "./package/nodes.mjs";
import { cellsOfPages } from "./package/pages.mjs";
import { writeNodePrograms } from "./package/programs.mjs";
import { endAll, run } from "./package/shell.mjs";
import { buildWasmTwice, compareWasm, measureSizes, measureTimes } from "./package/sizes.mjs";

const { values: flags } = parseArgs({
  options: { nodes: { type: "string" }, json: { type: "string" } },
});
const root = fileURLToPath(new URL("..", import.meta.url));
const own = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
const versions = flags.nodes?.split(",") ?? versionsToTry(["20", "22", "24", "26"], own);
const tools = join(root, "node_modules");
const folder = mkdtempSync(join(tmpdir(), "noetherflow-package-"));
const matrix = new Matrix();

function tidy() {
  endAll();
  rmSync(folder, { recursive: true, force: true });
}
for (const [signal, code] of Object.entries({ SIGINT: 130, SIGTERM: 143 }))
  process.once(signal, () => {
    tidy();
    process.exit(code);
  });

/** A folder with the tarball installed in it, and nothing else. */
async function install(name, tarball, ...flags) {
  const cwd = join(folder, name);
  mkdirSync(cwd);
  writeFileSync(join(cwd, "package.json"), '{ "name": "stranger", "private": true, "type": "module" }\n');
  const args = ["install", "--prefer-offline", "--no-audit", "--no-fund", ...flags, tarball];
  await run("npm", args, { cwd, seconds: 180 });
  return cwd;
}

/** Everything that the cells share; undefined if the package cannot be packed, installed and run at all. */
async function prepare() {
  let tarball;
  const packed = matrix.cell("package", "npm pack", async () => {
    // runs prepack, which builds
    await run("npm", ["pack", "--pack-destination", folder], { cwd: root, seconds: 200 });
    tarball = join(
      folder,
      readdirSync(folder).find((name) => name.endsWith(".tgz")),
    );
  });
  // a Node that cannot be had is a cell of its version, later
  const downloads = versions.map((version) => findNode(version, folder).catch(() => {}));
  await Promise.all([packed, ...downloads]);
  if (tarball === undefined) return undefined;

  let context;
  await matrix.cell("package", "npm install", async () => {
    const stranger = await install("stranger", tarball);
    const installed = join(stranger, "node_modules/noetherflow");
    const manifest = JSON.parse(readFileSync(join(installed, "package.json"), "utf8"));
    writeNodePrograms(stranger);
    context = { tarball, stranger, installed, manifest, tools, shared: {} };
  });
  if (context === undefined) return undefined;
  const trained = await matrix.cell("package", "the training program", async () => {
    const { ended } = await trainIn(process.execPath, context.stranger, "node");
    checkProgram(ended);
    context.expected = ended;
    return `Node ${process.versions.node}, hash ${context.expected.f64.hash}`;
  });
  return trained ? context : undefined;
}

/** The install without optional dependencies, which must do for the program and for a report without PNG files. */
async function installLean({ tarball, expected }) {
  let lean;
  await matrix.cell("package", "without optional dependencies", async () => {
    lean = await install("lean", tarball, "--omit=optional");
    writeNodePrograms(lean);
    const { ended } = await trainIn(process.execPath, lean, "node");
    assert.deepEqual(ended, expected);
    await run("npx", ["noetherflow", "run", "E01", "--quick", "--out", "report"], { cwd: lean });
    return `the program, and run E01 --out: ${readdirSync(join(lean, "report")).join(", ")}`;
  });
  return lean;
}

try {
  const context = await prepare();
  if (context !== undefined) {
    let wasm;
    const nodes = async () => {
      for (const version of versions) await cellsOfNode(matrix, version, context);
    };
    const rest = async () => {
      await cellsOfPages(matrix, context);
      await cellsOfManifest(matrix, context);
    };
    await Promise.all([nodes(), rest()]);
    await matrix.cell("package", "two builds of the Wasm", async () => {
      wasm = await buildWasmTwice(root, folder);
      return compareWasm(wasm, context.installed);
    });
    const lean = await installLean(context);
    if (wasm !== undefined && lean !== undefined)
      await matrix.cell("sizes", "measured", () => measureSizes(matrix, { ...context, lean, wasm: wasm[0] }));
    await matrix.cell("sizes", "timed", () => measureTimes(matrix, context.stranger));
  }
  matrix.print();
  if (flags.json !== undefined) writeFileSync(flags.json, `${JSON.stringify(matrix, null, 1)}\n`);
  process.exitCode = matrix.failed.length === 0 && context !== undefined ? 0 : 1;
} finally {
  tidy();
}

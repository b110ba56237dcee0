// The cells that read the package without running it: its files, manifest, types and import graph.
import assert from "node:assert/strict";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { publint } from "publint";
import { formatMessage } from "publint/utils";
import ts from "typescript";
import { moduleEntries } from "./nodes.mjs";
import { run } from "./shell.mjs";

/** What the root entry may reach at run time, no more and no less. */
const reachable = ["@assemblyscript/loader", "seedrandom"];
/** Entries without types: bytes, and the program of a worker, which nobody imports. */
const untyped = ["./core.wasm", "./parallel-worker.js"];

export async function cellsOfManifest(matrix, { stranger, installed, manifest, tarball, tools }) {
  await matrix.cell("package", "files of its exports", () => {
    const named = Object.values(manifest.exports).flatMap((entry) =>
      typeof entry === "string" ? entry : Object.values(entry),
    );
    for (const path of named) assert.ok(existsSync(join(installed, path)), `the package lacks ${path}`);
    return `${named.length} files`;
  });
  await matrix.cell("package", "publint", async () => {
    const { messages, pkg } = await publint({ pkgDir: installed, pack: false, strict: true });
    assert.deepEqual(
      messages.map((message) => formatMessage(message, pkg, { color: false })),
      [],
    );
  });
  await matrix.cell("package", "attw, esm-only", async () => {
    const attw = join(tools, "@arethetypeswrong/cli/dist/index.js");
    const options = ["--profile", "esm-only", "--format", "json", "--no-definitely-typed"];
    const args = [attw, tarball, ...options, "--exclude-entrypoints", ...untyped];
    const { analysis } = JSON.parse((await run(process.execPath, args, { cwd: stranger })).stdout);
    const checked = Object.keys(analysis.entrypoints);
    for (const name of moduleEntries(manifest).map((entry) => entry.replace(manifest.name, ".")))
      assert.ok(checked.includes(name), `attw has not seen ${name}`);
    // what the profile leaves out: the resolution of before Node 12, and the remark that require() finds ESM, as it shall
    const remarks = ["node10", "node16-cjs"];
    const problems = analysis.problems.filter(({ resolutionKind }) => !remarks.includes(resolutionKind));
    assert.deepEqual(problems, []);
    return `${checked.length} entries`;
  });
  await matrix.cell("package", "types", async () => {
    const strict = { noEmit: true, strict: true, target: "es2022", types: [] };
    for (const [name, options] of Object.entries({
      nodenext: { module: "nodenext" },
      bundler: { module: "esnext", moduleResolution: "bundler" },
    })) {
      const project = join(stranger, "types", `${name}.json`);
      const include = name === "nodenext" ? ["*.ts", "*.cts"] : ["*.ts"];
      writeFileSync(project, JSON.stringify({ compilerOptions: { ...strict, ...options }, include }));
      await run(process.execPath, [join(tools, "typescript/bin/tsc"), "--project", project], {
        cwd: stranger,
      });
    }
    return "nodenext from ESM and CommonJS, bundler";
  });
  await matrix.cell("package", "imports of the root entry", () => {
    const reached = [...barePackages(join(installed, "dist/index.js"))].sort();
    assert.deepEqual(reached, reachable);
    return reached.join(", ");
  });
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

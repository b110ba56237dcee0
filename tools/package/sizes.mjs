// How large the package is and how fast it loads, and the Wasm inside it built twice.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { cpSync, lstatSync, mkdirSync, readdirSync, readFileSync, statSync, symlinkSync } from "node:fs";
import { join, relative } from "node:path";
import { deflateRawSync, gzipSync } from "node:zlib";
import { build } from "esbuild";
import { run } from "./shell.mjs";

/**
 * Limits, why they are there, and the goal where the present size is above what was aimed at (the limit is then the present size, rounded
 * up). A kB is 1000 bytes.
 */
const limits = {
  root: {
    limit: 120,
    goal: 90,
    reason:
      "what a page loads before it makes an engine; most of it derives and lowers models, and runs and measures them",
  },
  page: { limit: 135, reason: "a program that uses little must not load more than one that uses everything" },
  f64: { limit: 25, goal: 25, reason: "a page loads one of them" },
  f32: { limit: 25, goal: 25, reason: "a page loads one of them" },
  worker: {
    limit: 240,
    reason: "every worker of a page loads it; both kinds of Wasm are inside, since it may import nothing",
  },
  tarball: { limit: 2300, reason: "half of it is the gallery that the README shows" },
  installed: { limit: 35_000, reason: "everything with its dependencies, mostly zod, resvg and the fonts" },
  required: { limit: 30_000, reason: "the same without the packages that draw PNG files" },
};

const dtypes = ["f64", "f32"];

export function gzip(bytes) {
  return gzipSync(bytes, { level: 9 }).length / 1000;
}

/** Builds the Wasm twice, in two folders, from copies of its sources; returns the two folders. */
export async function buildWasmTwice(root, folder) {
  const folders = ["wasm-1", "wasm-2"].map((name) => join(folder, name));
  for (const copy of folders) {
    mkdirSync(copy);
    for (const source of ["assembly", "src", "tools", "asconfig.json", "package.json"])
      cpSync(join(root, source), join(copy, source), { recursive: true });
    symlinkSync(join(root, "node_modules"), join(copy, "node_modules"));
  }
  await Promise.all(
    folders.map((cwd) => run(process.execPath, ["tools/build-wasm.mjs"], { cwd, seconds: 200 })),
  );
  return folders.map((copy) => join(copy, "build"));
}

/** Both builds have the same modules, and the package carries them. */
export function compareWasm([first, second], installed) {
  const names = readdirSync(first).filter((name) => name.endsWith(".wasm"));
  assert.deepEqual(
    names,
    readdirSync(second).filter((name) => name.endsWith(".wasm")),
  );
  assert.equal(names.length, 2 * dtypes.length, "a simd and an fma build of each dtype");
  const sums = names.map((name) => {
    const [a, b] = [first, second].map((folder) => readFileSync(join(folder, name)));
    const sum = createHash("sha256").update(a).digest("hex");
    assert.equal(createHash("sha256").update(b).digest("hex"), sum, `${name} of a second build`);
    const inlined = readFileSync(
      join(installed, "dist/chunks", `binary-${name.replace(".wasm", ".js")}`),
      "utf8",
    );
    assert.ok(
      inlined.includes(deflateRawSync(a, { level: 9 }).toString("base64")),
      `the package inlines another ${name}`,
    );
    return `${name} ${sum.slice(0, 12)}`;
  });
  assert.deepEqual(
    readFileSync(join(installed, "dist/core.wasm")),
    readFileSync(join(first, "f64-simd.wasm")),
  );
  return sums.join(", ");
}

/** Sizes of what is sent and installed. `lean` is the install without optional dependencies. */
export async function measureSizes(matrix, { stranger, lean, installed, tarball, wasm }) {
  const root = await gzipOfBundle(stranger, 'export * from "noetherflow";');
  const page = await gzipOfBundle(stranger, 'export { train } from "./node/train.js";');
  await matrix.number("root entry, gzip", root.entry, "kB", limits.root);
  await matrix.number("loaded when asked for: searches, traces, spectra, seeds, gzip", root.later, "kB");
  await matrix.number(
    "a page that trains, entry and f64 Wasm, gzip",
    page.entry + page.wasm,
    "kB",
    limits.page,
  );
  await matrix.number("the three other builds, loaded when asked for, gzip", root.builds, "kB");
  for (const dtype of dtypes)
    await matrix.number(
      `${dtype} Wasm, gzip`,
      gzip(readFileSync(join(wasm, `${dtype}-simd.wasm`))),
      "kB",
      limits[dtype],
    );
  const worker = gzip(readFileSync(join(installed, "dist/parallel-worker.js")));
  await matrix.number("program of a worker, gzip", worker, "kB", limits.worker);
  await matrix.number("tarball", statSync(tarball).size / 1000, "kB", limits.tarball);
  await matrix.number("the package unpacked", sizeOf(installed), "kB");
  await matrix.number(
    "installed, with dependencies",
    sizeOf(join(stranger, "node_modules")),
    "kB",
    limits.installed,
  );
  await matrix.number(
    "installed, without optional ones",
    sizeOf(join(lean, "node_modules")),
    "kB",
    limits.required,
  );
}

/** kB, gzipped, of what an entry loads at once, of the Wasm that is the default, and of what waits until it is asked for. */
export async function gzipOfBundle(stranger, contents) {
  const { outputFiles, metafile } = await build({
    stdin: { contents, resolveDir: stranger },
    absWorkingDir: stranger,
    outdir: "sizes",
    ...{ bundle: true, splitting: true, minify: true, format: "esm", write: false, metafile: true },
  });
  const sizes = new Map(outputFiles.map((file) => [relative(stranger, file.path), gzip(file.contents)]));
  const has = (name, pattern) =>
    Object.keys(metafile.outputs[name].inputs).some((input) => pattern.test(input));
  const atOnce = new Set(
    Object.keys(metafile.outputs).filter((name) => metafile.outputs[name].entryPoint === "<stdin>"),
  );
  for (const name of atOnce)
    for (const { path, kind } of metafile.outputs[name].imports)
      if (kind === "import-statement" && sizes.has(path)) atOnce.add(path);
  const sum = (chosen) => [...sizes].reduce((total, [name, size]) => total + (chosen(name) ? size : 0), 0);
  const isDefault = (name) => has(name, /binary-f64-simd/);
  const isOtherBuild = (name) => has(name, /binary-(f32|f64-fma)/);
  const builds = [...sizes.keys()].filter(isOtherBuild);
  assert.equal(builds.length, 3, "all builds but f64-simd are chunks of their own");
  assert.ok(
    ![...atOnce].some((name) => isDefault(name) || isOtherBuild(name)),
    "no Wasm is loaded before an engine is made",
  );
  return {
    entry: sum((name) => atOnce.has(name)),
    wasm: sum(isDefault),
    builds: sum(isOtherBuild),
    later: sum((name) => !atOnce.has(name) && !isDefault(name) && !isOtherBuild(name)),
  };
}

/** kB of all files below a folder. */
function sizeOf(path) {
  const stat = lstatSync(path);
  if (!stat.isDirectory()) return stat.size / 1000;
  return readdirSync(path).reduce((sum, name) => sum + sizeOf(join(path, name)), 0);
}

/** Fresh processes that import the package, and that train one step, beside one that does nothing: medians of seven. */
export async function measureTimes(matrix, stranger) {
  const scripts = ["empty.js", "import.js", "first-step.js"];
  const times = scripts.map(() => []);
  for (let again = 0; again < 7; again++)
    for (const [i, script] of scripts.entries()) {
      const began = performance.now();
      await run(process.execPath, [script], { cwd: join(stranger, "node") });
      times[i].push(performance.now() - began);
    }
  const [empty, imported, stepped] = times.map((list) => list.sort((a, b) => a - b)[3]);
  await matrix.number("an empty process", empty, "ms");
  await matrix.number("import, beyond that", imported - empty, "ms");
  await matrix.number("import and a first step, beyond that", stepped - empty, "ms");
}

// What is built from what, and whether it is stale (by modification time); tools/start.mjs and tools/test.mjs call it.
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

export const root = fileURLToPath(new URL("..", import.meta.url));

const wasm = {
  name: "the WebAssembly core",
  command: ["tools/build-wasm.mjs"],
  // Generators in tools/ write parts of assembly/ from the tables of instructions and ops.
  inputs: [
    ...["assembly", "asconfig.json", "src/graph/instructions.ts", "src/graph/ops.ts"],
    ...["tools/build-wasm.mjs", /^tools\/gen-/],
  ],
  outputs: ["f64-simd", "f32-simd", "f64-fma", "f32-fma"].flatMap((t) => [
    `build/${t}.wasm`,
    `src/wasm/binary-${t}.ts`,
  ]),
};

const kernels = {
  ...wasm,
  name: "the kernels for tests",
  command: ["tools/build-wasm.mjs", "--kernels"],
  outputs: ["f64-simd", "f32-simd", "f64-fma", "f32-fma"].map((t) => `build/kernels-${t}.ts`),
};

const library = {
  name: "the library",
  command: ["node_modules/tsdown/dist/run.mjs"],
  inputs: ["src", "build/f64-simd.wasm", "tsdown.config.ts", "tsconfig.json", "package.json"],
  outputs:
    "index.js index.d.ts parallel.js parallel-worker.js cli.js reproduce-worker.js records.js core.wasm"
      .split(" ")
      .map((file) => `dist/${file}`),
};

/** Modification times in ms of a file, of every file below a folder, or of the files of tools/ that match. */
function times(path) {
  if (path instanceof RegExp) {
    return readdirSync(join(root, "tools")).flatMap((f) =>
      path.test(`tools/${f}`) ? times(`tools/${f}`) : [],
    );
  }
  const full = join(root, path);
  if (!existsSync(full)) return [];
  const stat = statSync(full);
  if (!stat.isDirectory()) return [stat.mtimeMs];
  return readdirSync(full).flatMap((entry) => times(join(path, entry)));
}

function isStale({ inputs, outputs }) {
  const made = outputs.map((path) => times(path)[0] ?? Number.NEGATIVE_INFINITY);
  return Math.max(...inputs.flatMap(times)) > Math.min(...made);
}

/** Builds one target if it is missing or older than its sources: one line, and the tool's own output if it fails. */
function refresh(target) {
  if (!isStale(target)) return;
  const start = performance.now();
  process.stdout.write(`building ${target.name} ... `);
  const { status, stdout, stderr, error } = spawnSync(process.execPath, target.command, {
    cwd: root,
    encoding: "utf8",
  });
  console.log(status === 0 ? `${((performance.now() - start) / 1000).toFixed(1)} s` : "failed");
  if (status === 0) return;
  console.error(`${stdout ?? ""}${stderr ?? ""}${error ?? ""}`);
  process.exit(1);
}

function requireDependencies() {
  if (existsSync(join(root, "node_modules/assemblyscript"))) return;
  console.error("The dependencies are not installed; run `npm ci` first.");
  process.exit(1);
}

export function refreshWasm() {
  requireDependencies();
  refresh(wasm);
}

export function refreshKernels() {
  refreshWasm();
  refresh(kernels);
}

export function refreshLibrary() {
  refreshWasm();
  refresh(library);
}

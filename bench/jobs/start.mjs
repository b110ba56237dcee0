// From the import to the first step in a fresh process, beside the import of ml-matrix; and how large the Wasm and the package are.
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { root } from "../../tools/build.mjs";
import { gzip, gzipOfBundle } from "../../tools/package/sizes.mjs";

const dist = pathToFileURL(join(root, "dist/index.js")).href;

/** What a fresh process does; it tells the time since `began`, so that the start of Node itself does not count. */
const programs = {
  import: `await import("${dist}");`,
  step: `
    const { createEngine, model, ops } = await import("${dist}");
    const engine = await createEngine();
    const net = model({ params: { u: [], w: [] }, inputs: { x: [], y: [] },
      loss: ({ u, w, x, y }) => ops.square(ops.sub(ops.mul(ops.mul(u, w), x), y)) });
    const problem = engine.problem(net, { x: [1, 2], y: [1, 1] });
    const run = await problem.simulate({ scheme: "sgd", theta: [1, 0.5], eta: 0.01, batchSize: 1, steps: 1 });
    if (run.status !== "done") throw new Error(run.status);`,
  matrix: 'await import("ml-matrix");',
};

export const jobs = [
  {
    ...{ module: import.meta.url, family: "start", name: "start", unit: "process", dtype: "f64" },
    title: "in a fresh process, without the start of Node",
    ...{ once: true, unchecked: true, rounds: 7, passes: 1 },
    sides: [
      { id: "step", label: "import, engine and first step", kind: "process", host: "ours" },
      { id: "import", label: "import", kind: "process", host: "ours" },
      { id: "matrix", label: "import of ml-matrix", kind: "process", host: "ours" },
    ],
  },
];

export const sides = {
  async process({ side }) {
    if (side.id === "matrix") createRequire(import.meta.url).resolve("ml-matrix");
    const program = `
      const began = performance.now();
      const before = process.cpuUsage();
      ${programs[side.id]}
      const { user, system } = process.cpuUsage(before);
      console.log(JSON.stringify({ ms: performance.now() - began, cpuMs: (user + system) / 1000 }));`;
    const once = () => {
      const args = ["--input-type=module", "--eval", program];
      const { status, stdout, stderr } = spawnSync(process.execPath, args, { cwd: root, encoding: "utf8" });
      if (status !== 0) throw new Error(stderr);
      return { checksum: "", ...JSON.parse(stdout) };
    };
    // files in the cache of the system
    once();
    return { run: once };
  },
};

/** Sizes in kB of 1000 bytes, deflated by gzip at its best. */
export async function measureSizes() {
  const wasm = Object.fromEntries(
    ["f64-simd", "f64-fma", "f32-simd", "f32-fma"].map((build) => [
      `Wasm, ${build}`,
      gzip(readFileSync(join(root, `build/${build}.wasm`))),
    ]),
  );
  const { entry } = await gzipOfBundle(root, 'export * from "./dist/index.js";');
  return { ...wasm, "root entry, minified": entry };
}

import { defineConfig } from "tsdown";

/**
 * CommonJS that asks for Node's modules where there is Node: so that the same file serves Node as ESM, and no bundler looks for them.
 * The worker that workerpool brings is left out: every worker here has a program of its own.
 */
const builtins = {
  name: "builtins",
  transform: (code: string, id: string) =>
    /node_modules\/(workerpool|seedrandom)\//.test(id)
      ? code
          .replaceAll(
            /\brequire\((['"])(child_process|crypto|os|worker_threads)\1\)/g,
            "globalThis.process.getBuiltinModule('$2')",
          )
          .replace("require('./generated/embeddedWorker')", "''")
      : undefined,
};
const notices =
  "/*! Contains workerpool (Apache-2.0, Jos de Jong), @assemblyscript/loader (Apache-2.0), seedrandom (MIT), @noble/hashes (MIT). */";

// One build for all entries, so that they share chunks: the inlined f64 module exists once, and the other Wasm builds
// stay chunks of their own that load on demand. `cli` is the program behind `noetherflow` and `npm start`.
const library = defineConfig({
  entry: {
    index: "src/index.ts",
    experiments: "src/experiments/experiment.ts",
    report: "src/report/report.ts",
    external: "src/external.ts",
    parallel: "src/parallel.ts",
    records: "src/records/records.ts",
    cli: "src/cli.ts",
    "reproduce-worker": "src/reproduce-worker.ts",
  },
  format: "esm",
  platform: "neutral",
  target: "es2022",
  dts: true,
  hash: false,
  outputOptions: { chunkFileNames: "chunks/[name].js" },
  plugins: [builtins],
  inputOptions: { resolve: { mainFields: ["main"] } },
  deps: { onlyBundle: ["@noble/hashes", "workerpool"], neverBundle: [/^node:/] }, // nothing else outside `dependencies` may slip into the bundle
  checks: { pluginTimings: false },
  copy: [{ from: "build/f64-simd.wasm", to: "dist", rename: "core.wasm" }],
});

// The program of a worker thread is one file that imports nothing, so that a bundler which copies what `new URL("./parallel-worker.js",
// import.meta.url)` names, as Vite and webpack do, has copied all of it.
const worker = defineConfig({
  entry: { "parallel-worker": "src/parallel/worker.ts" },
  format: "esm",
  platform: "neutral",
  target: "es2022",
  dts: false,
  clean: false,
  minify: true,
  plugins: [builtins],
  inputOptions: { resolve: { mainFields: ["main"] } },
  outputOptions: { codeSplitting: false, banner: notices },
  deps: {
    alwaysBundle: ["@assemblyscript/loader", "seedrandom"],
    onlyBundle: ["@assemblyscript/loader", "@noble/hashes", "seedrandom", "workerpool"],
  },
  checks: { pluginTimings: false },
});

export default [library, worker];

import { defineConfig } from "tsdown";

// One build for all entries, so that they share chunks: the inlined f64 module exists once, and the other Wasm builds
// stay chunks of their own that load on demand. `reproduce` is the program behind `npm start` and is not exported.
export default defineConfig({
  entry: {
    index: "src/index.ts",
    experiments: "src/experiments/experiment.ts",
    report: "src/report/report.ts",
    external: "src/external.ts",
    reproduce: "src/reproduce.ts",
  },
  format: "esm",
  platform: "neutral",
  target: "es2022",
  dts: true,
  hash: false,
  outputOptions: { chunkFileNames: "chunks/[name].js" },
  deps: { onlyBundle: ["@noble/hashes"], neverBundle: [/^node:/] }, // nothing else outside `dependencies` may slip into the bundle
  checks: { pluginTimings: false },
  copy: [{ from: "build/f64-simd.wasm", to: "dist", rename: "core.wasm" }],
});

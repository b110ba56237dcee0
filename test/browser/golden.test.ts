import { afterAll, beforeAll, describe, expect, test } from "vitest";
import * as external from "../../src/external.ts";
import type { Engine } from "../../src/index.ts";
import golden from "../golden.json" with { type: "json" };
import { coreBytes, goldenEngines, goldenRuns } from "../helpers/golden.ts";

/** Committed by Node: test/dynamics/golden.test.ts says how the file is written. */
const committed: Readonly<Record<string, string>> = golden.runs;

let engines: Map<string, Engine>;
beforeAll(async () => {
  engines = await goldenEngines();
});
afterAll(() => {
  for (const engine of engines.values()) engine.dispose();
});

describe("golden runs, in the browser", () => {
  test.each(goldenRuns)(
    "$name: the hash that Node committed, in every lane mode",
    async ({ name, dtype, variant, run }) => {
      const engine = engines.get(`${dtype} ${variant}`)!;
      for (const lanes of ["samples", "replicas", "features"] as const) {
        const made = await run(engine, lanes);
        expect(made.status).toBe("done");
        expect(made.hash, `lanes are ${lanes}`).toBe(committed[name]);
      }
    },
  );
});

describe("an engine on a core that the page brings", () => {
  const [first] = goldenRuns;
  const blobURL = async () =>
    URL.createObjectURL(new Blob([await coreBytes()], { type: "application/wasm" }));
  type Source = WebAssembly.Module | ArrayBuffer | Uint8Array<ArrayBuffer> | URL | string;
  const sources: Record<string, () => Promise<Source>> = {
    "a compiled module": async () => WebAssembly.compile(await coreBytes()),
    "an ArrayBuffer": async () => (await coreBytes()).buffer,
    "a Uint8Array": coreBytes,
    "a URL as text": blobURL,
    "a URL object": async () => new URL(await blobURL()),
  };
  test.each(Object.keys(sources))("%s gives the committed hash", async (kind) => {
    const engine = await external.createEngine(await sources[kind]!());
    const { hash } = await first!.run(engine, "samples");
    expect(hash).toBe(committed[first!.name]);
    expect(engine.wasmSha256).toBeNull();
    engine.dispose();
  });
});

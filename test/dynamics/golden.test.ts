import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import * as external from "../../src/external.ts";
import type { Engine } from "../../src/index.ts";
import { coreBytes, goldenEngines, goldenRuns } from "../helpers/golden.ts";
import { allowRelaxedSimd } from "../helpers/relaxed.ts";

const path = fileURLToPath(new URL("../golden.json", import.meta.url));
const writing = process.env["GOLDEN"] === "write";
const committed = (): Record<string, string> =>
  (JSON.parse(readFileSync(path, "utf8")) as { runs: Record<string, string> }).runs;

let engines: Map<string, Engine>;
beforeAll(async () => {
  allowRelaxedSimd();
  engines = await goldenEngines();
  if (!writing) return;
  const runs: Record<string, string> = {};
  for (const golden of goldenRuns)
    runs[golden.name] = (await golden.run(engines.get(`${golden.dtype} ${golden.variant}`)!, "samples")).hash;
  const how = "written by GOLDEN=write npx vitest run --project node test/dynamics/golden.test.ts";
  writeFileSync(path, `${JSON.stringify({ how, runs }, null, 2)}\n`);
}, 60_000);
afterAll(() => {
  for (const engine of engines.values()) engine.dispose();
});

describe("golden runs, in Node", () => {
  test("test/golden.json names these runs and no others", () => {
    expect(Object.keys(committed())).toEqual(goldenRuns.map(({ name }) => name));
    expect(new Set(Object.values(committed())).size).toBe(goldenRuns.length);
  });

  test.each(goldenRuns)(
    "$name: the committed hash, in every lane mode",
    async ({ name, dtype, variant, run }) => {
      const engine = engines.get(`${dtype} ${variant}`)!;
      for (const lanes of ["samples", "replicas", "features"] as const) {
        const made = await run(engine, lanes);
        expect(made.status).toBe("done");
        expect(made.theta.every(Number.isFinite)).toBe(true);
        expect(made.hash, `lanes are ${lanes}`).toBe(committed()[name]);
      }
    },
  );
});

describe("an engine on a core that the caller brings, in Node", () => {
  const [first] = goldenRuns;
  const sources: Record<
    string,
    () => Promise<WebAssembly.Module | ArrayBuffer | Uint8Array<ArrayBuffer> | string>
  > = {
    "a compiled module": async () => WebAssembly.compile(await coreBytes()),
    "an ArrayBuffer": async () => (await coreBytes()).buffer,
    "a Uint8Array": coreBytes,
    "a data URL": async () =>
      `data:application/wasm;base64,${Buffer.from(await coreBytes()).toString("base64")}`,
  };
  test.each(Object.keys(sources))(
    "%s gives the committed hash, and no sha256 of bytes it did not see",
    async (kind) => {
      const engine = await external.createEngine(await sources[kind]!());
      const { hash, settings } = await first!.run(engine, "samples");
      expect(hash).toBe(committed()[first!.name]);
      expect([engine.dtype, engine.variant, engine.wasmSha256]).toEqual(["f64", "simd", null]);
      expect(settings.wasmSha256).toBeNull();
      engine.dispose();
    },
  );
});

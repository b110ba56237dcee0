import { type Engine, engineOn } from "./engine.ts";
import { checkKnown, checkWord, fail, show } from "./errors.ts";
import { loadInlined } from "./wasm/inlined.ts";
import type { Dtype, Variant } from "./wasm/module.ts";

/** Which build of the Wasm core an engine has. */
export interface EngineOptions {
  /** "f64" (default), or "f32" for speed studies. */
  readonly dtype?: Dtype;
  /** "simd": baseline 128-bit SIMD, the same bits on every host. */
  readonly variant?: Variant;
}

/**
 * An engine with the Wasm core that travels inside this package.
 *
 * @throws NoetherflowError "unsupported" where the runtime has no 128-bit Wasm SIMD
 * @example (await createEngine({ dtype: "f32" })).dtype; // "f32"
 */
export async function createEngine(options: EngineOptions = {}): Promise<Engine> {
  if (typeof options !== "object" || options === null)
    fail("shape", "createEngine", "expected { dtype?, variant? }", show(options));
  checkKnown("createEngine", options, ["dtype", "variant"]);
  const dtype = checkWord("createEngine", "dtype", options.dtype ?? "f64", ["f64", "f32"] as const);
  checkWord("createEngine", "variant", options.variant ?? "simd", ["simd"] as const);
  return engineOn(await loadInlined(dtype));
}

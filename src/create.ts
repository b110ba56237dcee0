import { type Engine, engineOn } from "./engine.ts";
import { checkKnown, checkWord, fail, show } from "./errors.ts";
import { loadInlined } from "./wasm/inlined.ts";
import { type Dtype, VARIANTS, type Variant } from "./wasm/module.ts";

/** Which build of the Wasm core an engine has. */
export interface EngineOptions {
  /** "f64" (default), or "f32" for speed studies. */
  readonly dtype?: Dtype;
  /**
   * "simd" (default): baseline 128-bit SIMD, the same bits on every host. "fma": matrix products with fused multiply-add, faster, its own bits, the same
   * wherever it runs: Node 22, Chrome 114, Firefox 146 or newer, on a machine that fuses.
   */
  readonly variant?: Variant;
}

/**
 * An engine with the Wasm core that travels inside this package.
 *
 * @throws NoetherflowError "unsupported" where the runtime has no 128-bit Wasm SIMD, or cannot run the variant
 * @example (await createEngine({ dtype: "f32" })).dtype; // "f32"
 */
export async function createEngine(options: EngineOptions = {}): Promise<Engine> {
  if (typeof options !== "object" || options === null)
    fail("shape", "createEngine", "expected { dtype?, variant? }", show(options));
  checkKnown("createEngine", options, ["dtype", "variant"]);
  const dtype = checkWord("createEngine", "dtype", options.dtype ?? "f64", ["f64", "f32"] as const);
  const variant = checkWord("createEngine", "variant", options.variant ?? "simd", VARIANTS);
  return engineOn(await loadInlined(dtype, variant));
}

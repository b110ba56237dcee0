/**
 * All of `noetherflow`, with an engine on a Wasm core that the caller brings.
 *
 * @module noetherflow/external
 */

import { type Engine, engineOn } from "./engine.ts";
import { fail, show } from "./errors.ts";
import { loadCore } from "./wasm/module.ts";

/**
 * An engine on a core that the caller brings: for hosts that compile modules ahead of time or serve the Wasm as a file of its own. The f64 core is `noetherflow/core.wasm`.
 *
 * @param source a WebAssembly.Module, the module's bytes, or a URL to fetch them from
 * @throws NoetherflowError "unsupported" where there is no Wasm SIMD, "version" for another module
 */
export async function createEngine(
  source: WebAssembly.Module | BufferSource | URL | string,
): Promise<Engine> {
  if (typeof source === "string" || source instanceof URL)
    return engineOn(await loadCore(fetch(source), null));
  if (source instanceof WebAssembly.Module || source instanceof ArrayBuffer || ArrayBuffer.isView(source)) {
    return engineOn(await loadCore(source, null));
  }
  return fail("shape", "createEngine", "expected a WebAssembly.Module, bytes or a URL", show(source));
}

export * from "./api.ts";

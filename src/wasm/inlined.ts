import { fail } from "../errors.ts";
import { type Core, type Dtype, decodeBase64, hasRelaxedSimd, loadCore, type Variant } from "./module.ts";

/** The builds that travel inside this package; each is a chunk of its own. */
const BUILDS = {
  "f64-simd": () => import("./binary-f64-simd.ts"),
  "f32-simd": () => import("./binary-f32-simd.ts"),
  "f64-fma": () => import("./binary-f64-fma.ts"),
  "f32-fma": () => import("./binary-f32-fma.ts"),
} as const;

/** @throws NoetherflowError "unsupported" for a variant that this runtime cannot run */
export async function loadInlined(dtype: Dtype, variant: Variant = "simd"): Promise<Core> {
  if (variant === "fma" && !hasRelaxedSimd())
    fail(
      "unsupported",
      "createEngine",
      'relaxed SIMD for the variant "fma": Node 22, Chrome 114, Firefox 146 or newer',
      "a runtime without",
      'Use variant "simd".',
    );
  const { base64, sha256 } = await BUILDS[`${dtype}-${variant}`]();
  return loadCore(await inflate(decodeBase64(base64)), sha256);
}

/**
 * Base64 of a module is a third larger than the module, and does not compress: what travels is deflated first. Node's streams take
 * 20 ms to be there at all, its zlib 1.
 */
export async function inflate(bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
  const zlib = globalThis.process?.getBuiltinModule?.("node:zlib");
  if (zlib !== undefined) return new Uint8Array(zlib.inflateRawSync(bytes));
  const whole = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return new Uint8Array(await new Response(whole).arrayBuffer());
}

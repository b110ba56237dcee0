import { type Core, type Dtype, decodeBase64, loadCore } from "./module.ts";

/** The core that travels inside this package; each dtype is a chunk of its own. */
export async function loadInlined(dtype: Dtype): Promise<Core> {
  const { base64, sha256 } =
    dtype === "f64" ? await import("./binary-f64-simd.ts") : await import("./binary-f32-simd.ts");
  return loadCore(decodeBase64(base64), sha256);
}

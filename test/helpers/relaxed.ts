/** The variant "fma" in tests, on Node 20 too. */
import { setFlagsFromString } from "node:v8";

/** Node 20 has relaxed SIMD behind a flag, which counts from the first module that is compiled after it; later ones have it anyway. */
export function allowRelaxedSimd(): void {
  if (Number(process.versions.node.split(".")[0]) < 22)
    setFlagsFromString("--experimental-wasm-relaxed-simd");
}

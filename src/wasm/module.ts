import { instantiate, instantiateSync } from "@assemblyscript/loader";
import { fail, show } from "../errors.ts";
import type { Real } from "../graph/layout.ts";

/** Type of the numbers of an engine. */
export type Dtype = "f64" | "f32";
/** Build of the Wasm core: baseline SIMD, or with fused multiply-add in products. */
export type Variant = "simd" | "fma";
export const VARIANTS: readonly Variant[] = ["simd", "fma"];

/** The functions of the compiled core that TypeScript calls; addresses are bytes, sizes values. */
export interface CoreExports {
  heapBase(): number;
  /** 8 for the f64 build, 4 for f32. */
  realBytes(): number;
  /** 1 for the build that fuses multiply-add in products. */
  isFused(): number;
  /** a * b + c as products compute it. */
  multiplyAdd(a: number, b: number, c: number): number;
  advance(run: number, count: number, probeNow: number, blocks: number): number;
  evaluate(run: number, pass: number): number;
  execute(pc: number, end: number): void;
  repeat(run: number, pass: number, pc: number, times: number): void;
  scheduleFactor(kind: number, warmup: number, period: number, number: number, k: number): number;
  normalLanes(
    dst: number,
    elements: number,
    lanes: number,
    ld: number,
    c0: number,
    c1: number,
    c2: number,
    c3: number,
    inc0: number,
    inc2: number,
    key0: number,
    key1: number,
    streams?: number,
  ): void;
  signLanes(...args: Parameters<CoreExports["normalLanes"]>): void;
  drawIndices(
    dst: number,
    count: number,
    firstLow: number,
    firstHigh: number,
    lanes: number,
    below: number,
    scale: number,
    replica: number,
    purpose: number,
    key0: number,
    key1: number,
    streams?: number,
  ): void;
  // covariances in chunks of samples (assembly/matrix.ts); rows of g are ldg values apart, c is [p][p]
  centreRows(g: number, mean: number, k: number, p: number, ldg: number): void;
  rankUpdate(c: number, g: number, k: number, p: number, ldg: number): void;
  mirror(c: number, p: number): void;
  // small dense linear algebra in f64 (assembly/dense.ts)
  symmetricEigen(a: number, vectors: number, values: number, n: number, maxSweeps: number): number;
  svd(
    a: number,
    u: number,
    values: number,
    v: number,
    m: number,
    n: number,
    scratch: number,
    maxSweeps: number,
  ): number;
  qr(a: number, q: number, r: number, m: number, n: number, scratch: number): void;
  cholesky(a: number, l: number, n: number): number;
  solve(a: number, b: number, x: number, n: number, k: number, scratch: number): number;
  solveUpper(u: number, x: number, n: number, k: number): void;
  denseMatmul(
    dst: number,
    a: number,
    b: number,
    m: number,
    n: number,
    k: number,
    transA: number,
    transB: number,
  ): void;
  euclideanNorm(a: number, n: number): number;
}

/** One instance of the compiled core and its memory. */
export interface Core {
  readonly exports: CoreExports;
  readonly memory: WebAssembly.Memory;
  readonly dtype: Dtype;
  readonly variant: Variant;
  readonly real: Real;
  /** sha256 of the module's bytes, hex; null when an already compiled module was given. */
  readonly sha256: string | null;
}

/** Uses relaxed multiply-add: valid only where relaxed SIMD is. */
const RELAXED_PROBE = "AGFzbQEAAAABBgFgAXwBfAMCAQAHBQEBcAAAChYBFAEBeyAA/RQiASABIAH9hwL9IQAL";

/** A module that splats, multiplies and returns: valid only where 128-bit SIMD is. */
const SIMD_PROBE = "AGFzbQEAAAABBgFgAXwBfAMCAQAHBQEBcAAACgsBCQAgAP0U/SEACw==";

export function decodeBase64(text: string): Uint8Array<ArrayBuffer> {
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return bytes;
}

/**
 * Whether this runtime takes modules with relaxed SIMD, which the variant "fma" needs: Node 22, Chrome 114, Firefox 146 or newer. Whether
 * the machine then fuses is seen when a core is loaded.
 */
export const hasRelaxedSimd = (): boolean =>
  typeof WebAssembly === "object" && WebAssembly.validate(decodeBase64(RELAXED_PROBE));

/**
 * Instantiates the core.
 *
 * @throws NoetherflowError "unsupported" where the runtime has no Wasm SIMD or refuses the module, or where the variant "fma" would
 *         not fuse
 */
export async function loadCore(
  source: BufferSource | WebAssembly.Module | Response | PromiseLike<Response>,
  sha256: string | null,
): Promise<Core> {
  if (typeof WebAssembly !== "object" || !WebAssembly.validate(decodeBase64(SIMD_PROBE))) {
    fail(
      "unsupported",
      "wasm",
      "this runtime has no 128-bit SIMD; it needs Node 16.4, Chrome 91, Firefox 89 or Safari 16.4, or newer",
    );
  }
  let exports: CoreExports & { memory: WebAssembly.Memory };
  try {
    ({ exports } = (await instanceOf(source)) as unknown as { exports: typeof exports });
  } catch (error) {
    return fail(
      "unsupported",
      "wasm",
      "the module of this package must be instantiated",
      show((error as Error).message),
      "Pass the bytes, URL or WebAssembly.Module of noetherflow/core.wasm.",
    );
  }
  if (typeof exports.advance !== "function" || typeof exports.realBytes !== "function") {
    fail(
      "version",
      "wasm",
      "expected the core of this package",
      "a module without its exports",
      "Use the core.wasm of the same version.",
    );
  }
  const bytes = exports.realBytes() as 4 | 8;
  return {
    exports,
    memory: exports.memory,
    dtype: bytes === 8 ? "f64" : "f32",
    variant: variantOf(exports, bytes),
    real: { bytes, perRegister: bytes === 8 ? 2 : 4 },
    sha256,
  };
}

/** The loader asks first whether the source is a Response, and in Node that question loads all of fetch: 15 ms. */
async function instanceOf(source: Parameters<typeof loadCore>[0]) {
  const isNode = globalThis.process?.getBuiltinModule !== undefined;
  if (isNode && source instanceof WebAssembly.Module) return instantiateSync(source);
  if (isNode && (ArrayBuffer.isView(source) || source instanceof ArrayBuffer))
    return instantiateSync(await WebAssembly.compile(source as BufferSource));
  return instantiate(source as BufferSource, {});
}

/**
 * (1 + e) (1 - e) - 1 is -e^2 if fused and 0 if the product is rounded first, e^2 being below half a unit of 1. Relaxed multiply-add
 * may do either, as the machine likes; only the first has bits that are the same everywhere.
 */
function variantOf({ isFused, multiplyAdd }: CoreExports, bytes: 4 | 8): Variant {
  const e = bytes === 8 ? 9.313225746154785e-10 : 0.0001220703125;
  const fuses = multiplyAdd(1 + e, 1 - e, -1) === -e * e;
  if (isFused() === 0) return "simd";
  if (!fuses)
    fail(
      "unsupported",
      "wasm",
      'a machine that fuses multiply-add, for the variant "fma"',
      "one that rounds twice",
      'Use variant "simd".',
    );
  return "fma";
}

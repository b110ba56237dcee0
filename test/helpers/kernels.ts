/**
 * Compiled kernels for tests of assembly/: the module itself, without the arena and without src/ above it.
 * Works in Node and in a browser.
 */

import { inflate } from "../../src/wasm/inlined.ts";
import { decodeBase64 } from "../../src/wasm/module.ts";

export type Dtype = "f64" | "f32";
export type Variant = "simd" | "fma";

const BUILDS = {
  "f64-simd": () => import("../../build/kernels-f64-simd.ts"),
  "f32-simd": () => import("../../build/kernels-f32-simd.ts"),
  "f64-fma": () => import("../../build/kernels-f64-fma.ts"),
  "f32-fma": () => import("../../build/kernels-f32-fma.ts"),
} as const;

/** Every kernel takes and returns plain numbers (addresses, counts, 32-bit words). */
export type Kernel = (...args: number[]) => number;

export interface Kernels {
  /** The kernels by name; a name that is not exported throws when it is read. */
  readonly exports: Readonly<Record<string, Kernel>>;
  readonly memory: WebAssembly.Memory;
  /** First free byte, a multiple of 16. */
  readonly base: number;
}

/** A directory holding kernels-f64-simd.wasm, kernels-f32-simd.wasm, ... to test instead of those built; Node only. */
function overrideDirectory(): string | undefined {
  return typeof process === "undefined" ? undefined : process.env?.NOETHERFLOW_TEST_WASM;
}

async function wasmBytes(dtype: Dtype, variant: Variant): Promise<Uint8Array<ArrayBuffer>> {
  const directory = overrideDirectory();
  if (directory) {
    const fs = "node:fs"; // a variable, so that a bundler for browsers does not look for it
    const { readFileSync } = await import(/* @vite-ignore */ fs);
    return new Uint8Array(readFileSync(`${directory}/kernels-${dtype}-${variant}.wasm`));
  }
  const { base64 } = await BUILDS[`${dtype}-${variant}`]();
  return inflate(decodeBase64(base64));
}

/** A fresh instance with `pages` more pages of memory (64 KiB each) than the module starts with. */
export async function loadKernels(dtype: Dtype, pages = 16, variant: Variant = "simd"): Promise<Kernels> {
  const abort = () => {
    throw new Error("internal: a kernel aborted");
  };
  const { instance } = await WebAssembly.instantiate(await wasmBytes(dtype, variant), { env: { abort } });
  const raw = instance.exports as Record<string, unknown>;
  const memory = raw.memory as WebAssembly.Memory;
  memory.grow(pages);
  const exports = new Proxy({} as Record<string, Kernel>, {
    get: (_, name) => {
      const found = raw[String(name)];
      if (typeof found !== "function")
        throw new Error(`loadKernels: the ${dtype} module has no kernel "${String(name)}"`);
      return found as Kernel;
    },
  });
  const base = ((exports.heapBase as Kernel)() + 15) & ~15;
  return { exports, memory, base };
}

/** Values of `dtype` at byte address `addr`. */
export function values(
  kernels: Kernels,
  dtype: Dtype,
  addr: number,
  count: number,
): Float64Array | Float32Array {
  const { buffer } = kernels.memory;
  return dtype === "f64" ? new Float64Array(buffer, addr, count) : new Float32Array(buffer, addr, count);
}

/** Bytes of one value, and values in one 128-bit register. */
export const sizeOf = { f64: 8, f32: 4 } as const;
export const lanesOf = { f64: 2, f32: 4 } as const;

/**
 * Guards an output: fills `length` bytes at `addr` and 64 more on both sides with 0xff (a NaN as f64 or f32), and
 * returns a function that says whether the bytes on the sides are still as they were.
 */
export function guarded(kernels: Kernels, addr: number, length: number): () => boolean {
  const margin = 64;
  const all = new Uint8Array(kernels.memory.buffer, addr - margin, length + 2 * margin).fill(0xff);
  return () => {
    const isWhole = (byte: number) => byte === 0xff;
    return all.subarray(0, margin).every(isWhole) && all.subarray(margin + length).every(isWhole);
  };
}

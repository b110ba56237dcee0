import { fail, internal } from "../errors.ts";

const PAGE = 65536;
const MAX_BYTES = 65536 * PAGE;
/** Regions start on cache lines and away from each other's padding. */
const ALIGN = 64;

/** A range of Wasm memory owned by one problem or run. */
export interface Region {
  readonly base: number;
  readonly bytes: number;
}

/** Values of an engine: Float64Array in f64, Float32Array in f32. */
export type RealArray = Float64Array | Float32Array;

/**
 * Regions of one Wasm memory. Everything a problem or run needs is planned first and reserved as
 * one region, so memory grows here or not at all. Views are made when needed and never kept,
 * because growing detaches them.
 */
export class Arena {
  readonly #memory: WebAssembly.Memory;
  readonly #realBytes: 4 | 8;
  readonly #start: number;
  /** Regions in use, by ascending base. */
  #regions: Region[] = [];

  constructor(memory: WebAssembly.Memory, heapBase: number, realBytes: 4 | 8) {
    this.#memory = memory;
    this.#realBytes = realBytes;
    this.#start = Math.ceil(heapBase / ALIGN) * ALIGN;
  }

  #fit(bytes: number): number {
    let at = this.#start;
    for (const region of this.#regions) {
      if (region.base - at >= bytes) return at;
      at = Math.ceil((region.base + region.bytes) / ALIGN) * ALIGN;
    }
    return at;
  }

  /**
   * Reserves a region whose size may depend on where it starts (plans hold absolute addresses).
   *
   * @param plan  lays everything out from a base address and says how many bytes it took
   * @param where named in the refusal
   * @throws NoetherflowError "memory" before anything is touched
   */
  reserve<T extends { readonly bytes: number }>(
    where: string,
    plan: (base: number) => T,
  ): { region: Region; plan: T } {
    const bytes = plan(0).bytes;
    const base = this.check(where, bytes);
    const made = plan(base);
    if (made.bytes > bytes + ALIGN) internal("arena", "a plan grew when it was moved");
    const missing = base + bytes - this.#memory.buffer.byteLength;
    if (missing > 0) {
      try {
        this.#memory.grow(Math.ceil(missing / PAGE));
      } catch {
        return this.#refuse(where, bytes);
      }
    }
    const region = { base, bytes };
    this.#regions.push(region);
    this.#regions.sort((a, b) => a.base - b.base);
    return { region, plan: made };
  }

  /**
   * Where a region of this size would start.
   *
   * @throws NoetherflowError "memory" where there is no room
   */
  check(where: string, bytes: number): number {
    const base = this.#fit(bytes);
    return base + bytes > MAX_BYTES ? this.#refuse(where, bytes) : base;
  }

  #refuse(where: string, bytes: number): never {
    const inUse = this.#regions.reduce((n, r) => n + r.bytes, 0);
    return fail(
      "memory",
      where,
      `the plan must fit in the 4 GiB of Wasm memory beside ${showBytes(inUse)} in use`,
      showBytes(bytes),
      "Use fewer samples, replicas or records, or dispose() of problems no longer needed.",
    );
  }

  release(region: Region): void {
    this.#regions = this.#regions.filter((r) => r !== region);
  }

  get bytesInUse(): number {
    return this.#regions.reduce((n, r) => n + r.bytes, 0);
  }

  get buffer(): ArrayBuffer {
    return this.#memory.buffer;
  }

  /** A view of values of the build's type. Valid until memory grows. */
  reals(address: number, length: number): RealArray {
    return this.#realBytes === 8
      ? new Float64Array(this.#memory.buffer, address, length)
      : new Float32Array(this.#memory.buffer, address, length);
  }

  doubles(address: number, length: number): Float64Array {
    return new Float64Array(this.#memory.buffer, address, length);
  }

  words(address: number, length: number): Uint32Array {
    return new Uint32Array(this.#memory.buffer, address, length);
  }

  /** An array of the caller's own. */
  array(length: number): RealArray {
    return this.#realBytes === 8 ? new Float64Array(length) : new Float32Array(length);
  }

  clear(region: Region): void {
    new Uint8Array(this.#memory.buffer, region.base, region.bytes).fill(0);
  }

  copyBytes(to: number, from: number, bytes: number): void {
    new Uint8Array(this.#memory.buffer).copyWithin(to, from, from + bytes);
  }
}

export function showBytes(bytes: number): string {
  const units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit]}`;
}

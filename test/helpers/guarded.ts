/**
 * Runs a kernel on copies of plain arrays in Wasm memory, with guard values before and after every one of them, and
 * compares all of it bit by bit: the result, the gaps inside dst, the operands and the guards.
 */
import type { Values } from "../reference/kernels.ts";
import type { loadKernels } from "./kernels.ts";

export type Kernels = Awaited<ReturnType<typeof loadKernels>>;
export type Dtype = "f64" | "f32";

export const dtypes: readonly Dtype[] = ["f64", "f32"];
export const arrayOf = (dtype: Dtype) => (dtype === "f64" ? Float64Array : Float32Array);
/** Values in one 128-bit register. */
export const lanesOf = (dtype: Dtype): number => (dtype === "f64" ? 2 : 4);

/** What lies between and around the elements: no kernel computes it, and f32 holds it. */
export const GUARD = 3 * 2 ** 40;
const GUARDS = 16;

/**
 * n values of mixed size and sign, one in eight of them a zero, so that sums round, cancel and meet -0. They depend on
 * `seed` only. Where `rows` says [length, stride], the gap after each row holds GUARD.
 */
export function someValues(dtype: Dtype, n: number, seed: number, rows?: [number, number]): Values {
  const values = new (arrayOf(dtype))(n);
  let state = (Math.imul(seed + 1, 0x9e3779b1) ^ 0x5bd1e995) >>> 0;
  const next = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
  for (let i = 0; i < n; ++i) {
    const sign = next() < 0.5 ? -1 : 1;
    const size = next() < 0.125 ? 0 : (0.5 + next()) * 2 ** Math.floor(next() * 12 - 6);
    values[i] = rows && i % rows[1] >= rows[0] ? GUARD : sign * size;
  }
  return values;
}

export const sameBits = (a: number, b: number): boolean => Object.is(a, b);

/**
 * Calls `kernel` with the addresses of copies of `arrays` (dst first), each `offsets[i]` values past a multiple of 16
 * bytes, and returns the copy of dst as it is afterwards. Throws if a guard or an operand has changed.
 */
export function runGuarded(
  { memory, base }: Kernels,
  kernel: (...addresses: number[]) => void,
  arrays: readonly Values[],
  offsets: readonly number[] = [],
): Values {
  const first = arrays[0] as Values;
  const size = first.BYTES_PER_ELEMENT;
  let address = Math.ceil(base / 64) * 64;
  const places = arrays.map((values, index) => {
    const place = address + GUARDS * size + (offsets[index] ?? 0) * size;
    address = Math.ceil((place + (values.length + GUARDS) * size) / 64) * 64;
    return place;
  });
  const missing = address - memory.buffer.byteLength;
  if (missing > 0) memory.grow(Math.ceil(missing / 65536));
  const View = first instanceof Float64Array ? Float64Array : Float32Array;
  const windows = arrays.map((values, index) => {
    const start = (places[index] as number) - GUARDS * size;
    const window = new View(memory.buffer, start, values.length + 2 * GUARDS).fill(GUARD);
    window.set(values, GUARDS);
    return window;
  });
  kernel(...places);
  windows.forEach((window, index) => {
    const values = arrays[index] as Values;
    for (let i = 0; i < window.length; ++i) {
      const inside = i >= GUARDS && i < GUARDS + values.length;
      if (inside && index === 0) continue;
      const before = inside ? (values[i - GUARDS] as number) : GUARD;
      if (!sameBits(window[i] as number, before)) {
        throw new Error(
          `${index === 0 ? "dst" : `operand ${index}`}: position ${i - GUARDS} of ${values.length} was ${before}, is now ${window[i]}`,
        );
      }
    }
  });
  return (windows[0] as Values).slice(GUARDS, GUARDS + first.length);
}

/** Where and how two arrays differ, or "" if they hold the same bits (any NaN equals any NaN). */
export function difference(actual: Values, expected: Values): string {
  for (let i = 0; i < expected.length; ++i) {
    if (!sameBits(actual[i] as number, expected[i] as number)) {
      return `at ${i} of ${expected.length}: got ${actual[i]}, expected ${expected[i]}`;
    }
  }
  return "";
}

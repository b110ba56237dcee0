// What peers are given: arrays in a folder, raw and little-endian, as every language reads them.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** Writes X.f64, batches.u32, ... and returns the folder. */
export function writeInputs(folder, arrays) {
  mkdirSync(folder, { recursive: true });
  for (const [name, values] of Object.entries(arrays)) {
    const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    writeFileSync(join(folder, `${name}.${values instanceof Uint32Array ? "u32" : "f64"}`), bytes);
  }
  return folder;
}

/** An array of the folder, in a buffer of its own. */
export function readInput(folder, name) {
  const kind = name === "batches" ? "u32" : "f64";
  const { buffer, byteOffset, byteLength } = readFileSync(join(folder, `${name}.${kind}`));
  const own = buffer.slice(byteOffset, byteOffset + byteLength);
  return kind === "u32" ? new Uint32Array(own) : new Float64Array(own);
}

/** Rows of a flat matrix, as nested arrays. */
export const nested = (values, columns) =>
  Array.from({ length: values.length / columns }, (_, i) => [
    ...values.subarray(i * columns, (i + 1) * columns),
  ]);

/** Indices of a batch drawn with replacement. */
export const drawBatch = (S, N) => Array.from({ length: S }, () => Math.floor(Math.random() * N));

/** The batches of the check, step by step. */
export const batchesOf = (folder, S) => nested(readInput(folder, "batches"), S);

/** Box and Muller, over the generator of the language. */
export const normal = () =>
  Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());

import { fail, show } from "../errors.ts";
import { isRecord } from "../graph/parse.ts";
import type { NpyArray, NpyValues } from "../records/npy.ts";

/** Bytes of a number, and the array that reads it. */
const DTYPES = new Map<unknown, { readonly bytes: number; read(view: DataView, at: number): number }>([
  ["F64", { bytes: 8, read: (view, at) => view.getFloat64(at, true) }],
  ["F32", { bytes: 4, read: (view, at) => view.getFloat32(at, true) }],
  ["I32", { bytes: 4, read: (view, at) => view.getInt32(at, true) }],
  ["U8", { bytes: 1, read: (view, at) => view.getUint8(at) }],
]);
/** No header of a model that fits here is longer. */
const MAX_HEADER = 16_777_216;

/**
 * Tensors of a .safetensors file by name: eight bytes of length, a header of JSON, the numbers. Safe for files from strangers: every
 * offset is checked before anything is read.
 *
 * @throws NoetherflowError "shape" for a damaged file, "unsupported" for a dtype other than F64, F32, I32, U8
 * @source https://huggingface.co/docs/safetensors, the format
 */
export function decodeSafetensors(bytes: Uint8Array, where: string): Record<string, NpyArray> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < 8) fail("shape", where, "a safetensors file", `${bytes.length} bytes`);
  const length = Number(view.getBigUint64(0, true));
  if (length > MAX_HEADER || 8 + length > bytes.length)
    fail("shape", where, "a safetensors file", `a header of ${length} bytes in ${bytes.length}`);
  let header: unknown;
  try {
    header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)));
  } catch {
    fail("shape", where, "a safetensors file", "a header that is no JSON");
  }
  if (!isRecord(header)) return fail("shape", where, "a header with tensors by name", show(header));
  const data = bytes.length - 8 - length;
  const out: Record<string, NpyArray> = {};
  for (const [name, entry] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    out[name] = tensor(`${where}: ${name}`, entry, view, 8 + length, data);
  }
  return out;
}

function tensor(where: string, entry: unknown, view: DataView, start: number, available: number): NpyArray {
  if (!isRecord(entry)) return fail("shape", where, "{ dtype, shape, data_offsets }", show(entry));
  const kind = DTYPES.get(entry["dtype"]);
  if (kind === undefined)
    return fail(
      "unsupported",
      where,
      `dtype ${[...DTYPES.keys()].join(", ")}`,
      show(entry["dtype"]),
      "Save it as float32.",
    );
  const shape = entry["shape"];
  const offsets = entry["data_offsets"];
  const whole = (x: unknown): x is number => typeof x === "number" && Number.isSafeInteger(x) && x >= 0;
  if (!Array.isArray(shape) || !shape.every(whole))
    return fail("shape", where, "a shape of whole numbers", show(shape));
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(whole))
    return fail("shape", where, "data_offsets [begin, end]", show(offsets));
  const [begin, end] = offsets as [number, number];
  const count = (shape as number[]).reduce((n, d) => n * d, 1);
  if (end > available || end - begin !== count * kind.bytes)
    fail(
      "shape",
      where,
      `${count} numbers of ${kind.bytes} bytes`,
      `bytes ${begin} to ${end} of ${available}`,
    );
  const values: NpyValues = Float64Array.from({ length: count }, (_, i) =>
    kind.read(view, start + begin + i * kind.bytes),
  );
  return { shape: shape as number[], values };
}

/** The array files of numpy: `.npy` (header 1.0 written, 1.0 to 3.0 read) and `.npz`, a zip of them. Little-endian, C order. */
import { type UnzipFileFilter, unzipSync, zipSync } from "fflate";
import { fail, NoetherflowError, show, showShape } from "../errors.ts";

/** Typed arrays that have a numpy dtype here. */
export type NpyValues =
  | Float64Array
  | Float32Array
  | Int32Array
  | Uint32Array
  | Int16Array
  | Uint16Array
  | Int8Array
  | Uint8Array;

/** An array with its shape; `[]` is a number. */
export interface NpyArray {
  /** Rank 0 or more; row-major. */
  readonly shape: readonly number[];
  /** Row-major. */
  readonly values: NpyValues;
}

type Make = { new (buffer: ArrayBuffer): NpyValues; readonly BYTES_PER_ELEMENT: number };

/** numpy's names of the dtypes that are read and written. */
const DTYPES: ReadonlyMap<string, Make> = new Map<string, Make>([
  ["<f8", Float64Array],
  ["<f4", Float32Array],
  ["<i4", Int32Array],
  ["<u4", Uint32Array],
  ["<i2", Int16Array],
  ["<u2", Uint16Array],
  ["|i1", Int8Array],
  ["|u1", Uint8Array],
]);

const MAGIC = "\x93NUMPY";
/** What all compressed members of a zip may come to, in bytes; stored ones come to no more than the file. */
const MAX_INFLATED = 1_073_741_824;
/** A zip without the fields of zip64 ends here. */
const MAX_ZIP = 4_294_967_295;
const HEADER = /^\s*\{\s*('[\s\S]*)\}\s*$/;

/**
 * The bytes of a `.npy` file.
 *
 * @throws NoetherflowError "shape" when the shape does not hold as many numbers as there are
 * @example
 * const bytes = encodeNpy({ shape: [2, 2], values: Float64Array.of(1, 2, 3, 4) });
 * decodeNpy(bytes); // { shape: [2, 2], values: [1, 2, 3, 4] }
 */
export function encodeNpy({ shape, values }: NpyArray): Uint8Array {
  const descr = dtypeOf(values);
  const count = shape.reduce((n, d) => n * d, 1);
  if (count !== values.length)
    fail("shape", "npy", `${values.length} numbers in the shape ${showShape(shape)}`, `room for ${count}`);
  const tuple = shape.length === 1 ? `${shape[0]},` : shape.join(", ");
  const text = `{'descr': '${descr}', 'fortran_order': False, 'shape': (${tuple}), }`;
  // numpy aligns the numbers to 64 bytes; the header ends in a newline
  const length = Math.ceil((10 + text.length + 1) / 64) * 64 - 10;
  const head = `${text.padEnd(length - 1)}\n`;
  const out = new Uint8Array(10 + length + values.byteLength);
  for (let i = 0; i < MAGIC.length; i++) out[i] = MAGIC.charCodeAt(i);
  out[6] = 1;
  new DataView(out.buffer).setUint16(8, length, true);
  for (let i = 0; i < length; i++) out[10 + i] = head.charCodeAt(i);
  out.set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength), 10 + length);
  return out;
}

/**
 * Reads a `.npy` file, also one from a stranger: nothing is allocated before the sizes it names have been compared with the file.
 *
 * @param where says in messages which file it is
 * @returns the array, its numbers a copy
 * @throws  NoetherflowError "shape" for something else or a damaged file, "unsupported" for a dtype or an order not read
 */
export function decodeNpy(bytes: Uint8Array, where = "npy"): NpyArray {
  if (!(bytes instanceof Uint8Array)) return fail("shape", where, "the bytes of a .npy file", show(bytes));
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < 12 || latin(bytes, 0, 6) !== MAGIC)
    return fail("shape", where, "the bytes of a .npy file", `${bytes.length} bytes of something else`);
  const version = bytes[6]!;
  if (version < 1 || version > 3)
    return fail("version", where, "a .npy file of version 1, 2 or 3", `version ${version}`);
  const start = version === 1 ? 10 : 12;
  const length = version === 1 ? view.getUint16(8, true) : view.getUint32(8, true);
  if (length > 65_535 || start + length > bytes.length)
    return fail("shape", where, "a whole .npy file", `a header of ${length} bytes`);
  const { descr, fortran, shape } = readHeader(where, latin(bytes, start, start + length));
  const Values = DTYPES.get(descr);
  if (Values === undefined) {
    const order = descr.startsWith(">") ? "<" : "";
    return fail(
      "unsupported",
      where,
      `an array of dtype ${[...DTYPES.keys()].join(", ")}`,
      `dtype ${show(descr)}`,
      order === "" ? 'Write it with .astype("<f8").' : `Write it with .astype("${order}${descr.slice(1)}").`,
    );
  }
  if (fortran && shape.filter((d) => d !== 1).length > 1)
    return fail(
      "unsupported",
      where,
      "an array in C order",
      "one in Fortran order",
      "Write np.ascontiguousarray(a).",
    );
  const data = bytes.length - start - length;
  const room = data / Values.BYTES_PER_ELEMENT;
  // step by step, so that a product beyond 2^53 is never formed
  let count = shape.includes(0) ? 0 : 1;
  for (const d of shape) count = count > room ? count : count * d;
  if (count !== room)
    return fail(
      "shape",
      where,
      `the ${descr} numbers of shape ${showShape(shape)}`,
      `${data} bytes of data`,
      "The file was cut short or changed.",
    );
  // the slice of a Buffer is no copy
  const copy = Uint8Array.from(bytes.subarray(start + length));
  return { shape, values: new Values(copy.buffer) };
}

/**
 * The bytes of a `.npz` file: a zip of `.npy` files, stored as numpy's savez does. Equal arrays give equal bytes.
 *
 * @throws NoetherflowError "memory" beyond the 4 GiB of a zip
 * @example
 * const bytes = encodeNpz({ theta: { shape: [20], values: theta } });
 * decodeNpz(bytes).theta?.shape; // [20]
 */
export function encodeNpz(arrays: Readonly<Record<string, NpyArray>>): Uint8Array {
  const size = Object.entries(arrays).reduce(
    (n, [name, a]) => n + a.values.byteLength + 512 + 8 * name.length,
    0,
  );
  if (size > MAX_ZIP)
    fail(
      "memory",
      "npz",
      "at most 4 GiB fit in a .npz file",
      `${size} bytes`,
      "Write arrays one by one as .npy.",
    );
  const files = new Map(Object.entries(arrays).map(([name, array]) => [`${name}.npy`, encodeNpy(array)]));
  // a date of its own would make equal records differ
  return zipSync(Object.fromEntries(files), { level: 0, mtime: "1980-01-01T12:00:00" });
}

/**
 * Reads a `.npz` file, also one from a stranger: a zip that would come to more than 1 GiB when inflated, or to more than it
 * can hold when stored, is refused before anything is unpacked.
 *
 * @throws NoetherflowError "shape", "memory", and what decodeNpy throws
 */
export function decodeNpz(bytes: Uint8Array, where = "npz"): Record<string, NpyArray> {
  if (!(bytes instanceof Uint8Array)) return fail("shape", where, "the bytes of a .npz file", show(bytes));
  const names = new Set<string>();
  let stored = 0;
  let inflated = 0;
  const check: UnzipFileFilter = ({ name, size, originalSize, compression }) => {
    if (names.has(name)) fail("shape", where, "members of different names", `two of the name ${show(name)}`);
    if (!name.endsWith(".npy")) fail("shape", where, "a zip of .npy files", show(name));
    names.add(name);
    if (compression === 0) stored += originalSize;
    else inflated += originalSize;
    if (compression === 0 ? originalSize !== size || stored > bytes.length : size > bytes.length)
      fail("shape", where, "members that fit in the file", `${show(name)} of ${originalSize} bytes`);
    // deflate never shrinks by more than this
    if (inflated > MAX_INFLATED || (compression !== 0 && originalSize > 1032 * size + 64))
      fail(
        "memory",
        where,
        `at most ${MAX_INFLATED} bytes after unpacking`,
        `${inflated} in ${bytes.length}`,
      );
    return false;
  };
  let files: Record<string, Uint8Array>;
  try {
    unzipSync(bytes, { filter: check });
    files = unzipSync(bytes);
  } catch (error) {
    if (error instanceof NoetherflowError) throw error;
    return fail("shape", where, "a whole .npz file", (error as Error).message);
  }
  const out: [string, NpyArray][] = [];
  for (const [name, data] of Object.entries(files))
    out.push([name.slice(0, -4), decodeNpy(data, `${where}: ${show(name)}`)]);
  return Object.fromEntries(out);
}

/** numpy's name of the dtype of an array. */
export function dtypeOf(values: NpyValues): string {
  for (const [name, Values] of DTYPES) if (values instanceof Values) return name;
  return fail("unsupported", "npy", `an array of dtype ${[...DTYPES.keys()].join(", ")}`, show(values));
}

function latin(bytes: Uint8Array, start: number, end: number): string {
  let text = "";
  for (let i = start; i < end; i++) text += String.fromCharCode(bytes[i]!);
  return text;
}

/** The Python dict of a header, which has exactly three entries. */
function readHeader(where: string, text: string): { descr: string; fortran: boolean; shape: number[] } {
  const bad = () => fail("shape", where, "the header of a .npy file", show(text.trim()));
  const body = HEADER.exec(text)?.[1] ?? bad();
  const fortran = /'fortran_order'\s*:\s*(True|False)/.exec(body)?.[1] ?? bad();
  const shape = /'shape'\s*:\s*\(([\d\s,L]*)\)/.exec(body)?.[1] ?? bad();
  const descr = /'descr'\s*:\s*(?:'([^']*)'|(\[[\s\S]*\]))/.exec(body) ?? bad();
  const axes = shape
    .split(",")
    .map((axis) => axis.trim().replace(/L$/, ""))
    .filter((axis) => axis !== "")
    .map(Number);
  if (axes.length > 32 || !axes.every((d) => Number.isSafeInteger(d))) bad();
  return { descr: descr[1] ?? descr[2]!, fortran: fortran === "True", shape: axes };
}

/** Plain data with typed arrays as JSON: short arrays inside it, long ones in a `.npz` beside it, every number bit for bit. */
import { fail, show } from "../errors.ts";
import type { NpyArray, NpyValues } from "./npy.ts";

/** JSON and the arrays it refers to by name. */
export interface Packed {
  readonly json: unknown;
  readonly arrays: Readonly<Record<string, NpyArray>>;
}

/** Arrays of more numbers than this go to the `.npz`. */
const INLINE = 256;

const ARRAYS: ReadonlyMap<string, { from(values: ArrayLike<number>): NpyValues }> = new Map<
  string,
  { from(values: ArrayLike<number>): NpyValues }
>([
  ["$f64", Float64Array],
  ["$f32", Float32Array],
  ["$i32", Int32Array],
  ["$u32", Uint32Array],
  ["$i16", Int16Array],
  ["$u16", Uint16Array],
  ["$i8", Int8Array],
  ["$u8", Uint8Array],
]);

/**
 * Writes a value as JSON. Beside what JSON has:
 *
 *   -0, NaN, Infinity      { "$number": "-0" }
 *   a short typed array    { "$f64": [1, 2] }, such numbers in it as text
 *   a long typed array     { "$npz": "name" }
 *   a long list of numbers { "$list": "name" }
 *   a key that begins with $ gets another
 *
 * @param inline false puts every typed array beside it
 * @throws NoetherflowError "unsupported" for what is no data: functions, symbols, big integers
 */
export function pack(value: unknown, inline = true): Packed {
  const arrays: [string, NpyArray][] = [];
  const used = new Set<string>();
  const keep = (path: string, values: NpyValues): string => {
    const base = path.replaceAll(/[^A-Za-z0-9_.-]/g, "_").slice(0, 100) || "array";
    let name = base;
    for (let n = 2; used.has(name.toLowerCase()); n++) name = `${base}-${n}`;
    used.add(name.toLowerCase());
    arrays.push([name, { shape: [values.length], values }]);
    return name;
  };
  const write = (path: string, x: unknown): unknown => {
    if (typeof x === "number") return isPlain(x) ? x : { $number: textOf(x) };
    if (x === null || typeof x === "string" || typeof x === "boolean") return x;
    if (ArrayBuffer.isView(x)) {
      for (const [key, Values] of ARRAYS) {
        if (!(x instanceof (Values as unknown as new () => NpyValues))) continue;
        if (!inline || x.length > INLINE) return { $npz: keep(path, x) };
        return { [key]: Array.from(x, (v) => (isPlain(v) ? v : textOf(v))) };
      }
    }
    if (Array.isArray(x)) {
      if (x.length > INLINE && x.every((v) => typeof v === "number"))
        return { $list: keep(path, Float64Array.from(x)) };
      return x.map((v, i) => write(`${path}.${i}`, v));
    }
    if (typeof x === "object" && Object.getPrototypeOf(x) !== null && !isLiteral(x))
      fail("unsupported", `record: ${path}`, "plain data and typed arrays", show(x));
    if (typeof x !== "object") fail("unsupported", `record: ${path}`, "plain data and typed arrays", show(x));
    const entries = Object.entries(x as object).filter(([, v]) => v !== undefined);
    return Object.fromEntries(
      entries.map(([key, v]) => [
        key.startsWith("$") ? `$${key}` : key,
        write(path === "" ? key : `${path}.${key}`, v),
      ]),
    );
  };
  const json = write("", value);
  return { json, arrays: Object.fromEntries(arrays) };
}

/**
 * The value that `pack` wrote.
 *
 * @throws NoetherflowError "shape" for other JSON, or when an array is missing
 */
export function unpack(where: string, { json, arrays }: Packed): unknown {
  const array = (name: unknown): NpyValues => {
    if (typeof name === "string" && Object.hasOwn(arrays, name)) return arrays[name]!.values;
    return fail("shape", where, "an array of the file beside it", show(name));
  };
  const read = (x: unknown): unknown => {
    if (typeof x !== "object" || x === null) return x;
    if (Array.isArray(x)) return x.map(read);
    const entries = Object.entries(x);
    const [key, inner] = entries[0] ?? ["", null];
    if (!key.startsWith("$") || key.startsWith("$$"))
      return Object.fromEntries(entries.map(([k, v]) => [k.startsWith("$$") ? k.slice(1) : k, read(v)]));
    if (entries.length !== 1) fail("shape", where, `${key} alone in its object`, `${entries.length} keys`);
    if (key === "$number") return numberOf(where, inner);
    if (key === "$npz") return array(inner);
    if (key === "$list") return Array.from(array(inner));
    const Values = ARRAYS.get(key);
    if (Values === undefined || !Array.isArray(inner))
      return fail("shape", where, `one of ${[...ARRAYS.keys()].join(", ")}, $npz, $list, $number`, show(key));
    return Values.from(inner.map((v) => (typeof v === "number" ? v : numberOf(where, v))));
  };
  try {
    return read(json);
  } catch (error) {
    if (error instanceof RangeError) return fail("shape", where, "JSON of some thousand levels", "more");
    throw error;
  }
}

/** JSON with lists of numbers on one line each. */
export function printJSON(json: unknown): string {
  const text = JSON.stringify(json, null, 1);
  // a list without quotes or brackets inside holds numbers alone; text in JSON has no line breaks
  return `${text.replaceAll(/\[\n\s*([^"[\]{}]*?)\n\s*\]/g, (_, list: string) => `[${list.replaceAll(/,\n\s*/g, ", ")}]`)}\n`;
}

function isPlain(x: number): boolean {
  return Number.isFinite(x) && !Object.is(x, -0);
}

function textOf(x: number): string {
  return Object.is(x, -0) ? "-0" : String(x);
}

function numberOf(where: string, text: unknown): number {
  for (const x of [-0, Number.NaN, Infinity, -Infinity]) if (text === textOf(x)) return x;
  return fail("shape", where, 'a number, "-0", "NaN", "Infinity" or "-Infinity"', show(text));
}

function isLiteral(x: object): boolean {
  // of another realm too, whose Object.prototype is not this one's
  return Object.getPrototypeOf(Object.getPrototypeOf(x)) === null;
}

/** Files that people bring: models, data, parameters, generators. */
import { access, constants, readFile, stat } from "node:fs/promises";
import { dirname, extname, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { csvParseRows } from "d3-dsv";
import type { ThetaLike } from "../dynamics/theta.ts";
import { checkInteger, checkObject, fail, NoetherflowError, nearest, show, showShape } from "../errors.ts";
import { Model, parseModel } from "../graph/model.ts";
import { isRecord } from "../graph/parse.ts";
import { parseSampler, Sampler } from "../graph/sampler.ts";
import { MomentMatched } from "../models/moment-matched.ts";
import type { Data } from "../models/samples.ts";
import { exists } from "../records/files.ts";
import { decodeNpy, decodeNpz, type NpyArray } from "../records/npy.ts";
import { readRun } from "../records/record.ts";
import { Generator, generator } from "../symmetry/generator.ts";
import { oneLine } from "./output.ts";
import { decodeSafetensors } from "./safetensors.ts";

/** A model with what its file may bring along. */
export interface LoadedModel {
  readonly model: Model;
  readonly data?: Data;
  readonly theta?: ThetaLike;
  readonly generators: Readonly<Record<string, Generator>>;
}

const CODE = [".js", ".mjs", ".ts", ".mts"];

async function bytesOf(path: string): Promise<Buffer> {
  if (path === "") fail("shape", "file", "expected the path of a file", '""');
  try {
    return await readFile(path);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    return fail(
      "name",
      path,
      "expected a file",
      code === "ENOENT" ? "none" : code === "EISDIR" ? "a folder" : (error as Error).message,
    );
  }
}

/** Refuses the path of a file to be written where that cannot go well: before the work, not after it. */
export async function checkTarget(option: string, path: string): Promise<void> {
  if (path === "") fail("shape", option, "the path of a file", '""');
  if (await isFolder(path)) fail("shape", option, "the path of a file", `the folder ${path}`);
  await checkTargetFolder(option, dirname(resolve(path)), false);
}

/** The same for a folder, which may be made. */
export async function checkTargetFolder(option: string, path: string, mayMake = true): Promise<void> {
  if (path === "") fail("shape", option, "the path of a folder", '""');
  let at = resolve(path);
  if (mayMake) while (!(await exists(at)) && dirname(at) !== at) at = dirname(at);
  if (!(await isFolder(at)))
    fail(
      "shape",
      option,
      mayMake ? "a path of folders" : "a folder that is there",
      (await exists(at)) ? `the file ${at}` : `no ${at}`,
    );
  await access(at, constants.W_OK | constants.X_OK).catch(() =>
    fail("unsupported", option, "a folder that may be written", at),
  );
}

const isFolder = (path: string): Promise<boolean> =>
  stat(path).then(
    (at) => at.isDirectory(),
    () => false,
  );

/** Throws what was refused with the file in front of the place, for `catch`. */
export const naming =
  (path: string) =>
  (error: unknown): never => {
    if (!(error instanceof NoetherflowError) || error.where.startsWith(path)) throw error;
    const { code, where, expected, got, hint } = error;
    throw new NoetherflowError(code, `${path}: ${where}`, { expected, got, hint });
  };

/** What `read` gives; what it refuses names the file, too. */
export function inFile<T>(path: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    return naming(path)(error);
  }
}

function json(path: string, text: string): unknown {
  try {
    return JSON.parse(text.replace(/^\uFEFF/, ""));
  } catch (error) {
    return fail("shape", path, `expected JSON (${(error as Error).message.slice(0, 80)})`);
  }
}

/**
 * A model file (.json, safe for files from strangers), or a program that exports `model` or a default (.js, .mjs, .ts: it is
 * executed), and with it `data`, `theta` and `generators` if it likes.
 *
 * @param library what such a program means by "noetherflow" where that is not installed beside it
 */
export async function loadModel(path: string, library: URL): Promise<LoadedModel> {
  const kind = extname(path);
  if (!CODE.includes(kind)) {
    if (kind.toLowerCase() !== ".json")
      fail("name", path, `a model is a file of .json, ${CODE.join(", ")}`, kind || "no ending");
    const given = json(path, (await bytesOf(path)).toString("utf8"));
    return { model: inFile(path, () => parseModel(given)), generators: {} };
  }
  const exports = await execute(path, library);
  const inner =
    isRecord(exports["default"]) && !(exports["default"] instanceof Model) ? exports["default"] : {};
  const of = (name: string): unknown => exports[name] ?? (inner as Record<string, unknown>)[name];
  const given = of("model") ?? exports["default"];
  if (given === undefined)
    fail(
      "name",
      path,
      "an export named model, or a default export",
      Object.keys(exports).join(", ") || "none",
    );
  const model = inFile(path, () => parseModel(isModel(given) ? given.toJSON() : given));
  const data = of("data");
  const theta = of("theta");
  return {
    model,
    ...(data === undefined ? {} : { data: inFile(path, () => readData(data)) }),
    ...(theta === undefined ? {} : { theta: theta as ThetaLike }),
    generators: readGenerators(`${path}: generators`, of("generators") ?? {}),
  };
}

/** A model of this package, perhaps of another copy of it. */
const isModel = (value: unknown): value is { toJSON(): unknown } =>
  value instanceof Model || (isRecord(value) && typeof value["toJSON"] === "function");

/** Runs a program and gives what it exports; "noetherflow" is this package where none is installed beside the file. */
async function execute(path: string, library: URL): Promise<Record<string, unknown>> {
  await bytesOf(path);
  const url = pathToFileURL(resolve(path)).href;
  try {
    if (!path.endsWith("ts")) {
      try {
        return (await import(url)) as Record<string, unknown>;
      } catch (error) {
        if (!/Cannot find (package|module) 'noetherflow'/.test(String(error))) throw error;
      }
    }
    const { createJiti } = await import("jiti");
    const jiti = createJiti(import.meta.url, { alias: { noetherflow: fileURLToPath(library) } });
    return (await jiti.import(url)) as Record<string, unknown>;
  } catch (error) {
    if (error instanceof NoetherflowError) throw error;
    return fail("unsupported", path, "a program that runs", oneLine(String(error)));
  }
}

function readData(data: unknown): Data {
  if (data instanceof Sampler || data instanceof MomentMatched) return data;
  // a sampler of another copy of this package
  if (isRecord(data) && typeof data["toJSON"] === "function")
    return parseSampler((data as { toJSON(): unknown }).toJSON());
  return data as Data;
}

/** Generators by name, as such or as their data. */
export function readGenerators(where: string, given: unknown): Record<string, Generator> {
  const named = checkObject(where, "generators by name", given);
  const read = (A: unknown): Generator =>
    A instanceof Generator
      ? A
      : generator(
          isRecord(A) && typeof A["toJSON"] === "function" ? (A as { toJSON(): unknown }).toJSON() : A,
        );
  return Object.fromEntries(
    Object.entries(named).map(([name, A]) => [name, inFile(`${where}: ${name}`, () => read(A))]),
  );
}

/**
 * Data: a sampler file or arrays by input name (.json), columns named after the inputs (.csv, .parquet: `y`, or `x[0]`, `x0`, `x_0`
 * for inputs of several entries), arrays by input name (.npz), or one array (.npy) for a model of one input.
 */
export async function loadData(
  path: string,
  model: Model,
  columns: Readonly<Record<string, readonly string[]>> = {},
): Promise<Data> {
  const kind = extname(path).toLowerCase();
  if (Object.keys(columns).length > 0 && kind !== ".csv" && kind !== ".parquet")
    fail("unsupported", "--columns", "data of .csv or .parquet", path);
  const bytes = await bytesOf(path);
  switch (kind) {
    case ".json": {
      const given = json(path, bytes.toString("utf8"));
      if (isRecord(given) && (typeof given["schema"] === "string" || isRecord(given["outputs"])))
        return inFile(path, () => parseSampler(given));
      return checkObject(path, "arrays by input name, or a sampler file", given) as Data;
    }
    case ".csv":
      return columnsOf(path, model, csvTable(path, bytes.toString("utf8")), columns);
    case ".parquet":
      return columnsOf(path, model, await parquetTable(path, bytes), columns);
    case ".npz":
      return samplesOf(path, decodeNpz(bytes, path), model);
    case ".npy": {
      if (model.inputs.length !== 1)
        fail(
          "shape",
          path,
          "an .npz with an array for each input",
          `one array for ${model.inputs.length} inputs`,
        );
      return samplesOf(path, { [model.inputs[0]!.name]: decodeNpy(bytes, path) }, model);
    }
    default:
      return fail("name", path, "data is a file of .json, .csv, .parquet, .npz, .npy", kind || "no ending");
  }
}

/** Parameters: arrays by block (.npz, .safetensors, .json), one flat array (.npy, .json), or where a recorded run ended. */
export async function loadTheta(path: string, model: Model, replica?: number): Promise<ThetaLike> {
  if (await isFolder(path)) {
    const { run } = await readRun(path);
    if (run === null) return fail("unsupported", path, "a run that is finished", "an unfinished one");
    const r = checkInteger("--replica", "a replica of that run", replica ?? 0, 0, run.replicas - 1);
    return run.theta.slice(r * run.P, (r + 1) * run.P);
  }
  if (replica !== undefined) fail("unsupported", "--replica", "--theta <folder>, a run with replicas", path);
  const bytes = await bytesOf(path);
  switch (extname(path).toLowerCase()) {
    case ".json":
      return json(path, bytes.toString("utf8")) as ThetaLike;
    case ".npz":
      return thetaOf(path, decodeNpz(bytes, path), model);
    case ".safetensors":
      return thetaOf(path, decodeSafetensors(bytes, path), model);
    case ".npy":
      return Float64Array.from(decodeNpy(bytes, path).values);
    default:
      return fail(
        "name",
        path,
        "parameters are a file of .npz, .safetensors, .npy, .json",
        extname(path) || "no ending",
      );
  }
}

/** Generators by name from a JSON file: one generator, or an object of them. */
export async function loadGenerators(path: string): Promise<Record<string, Generator>> {
  const given = json(path, (await bytesOf(path)).toString("utf8"));
  const isOne =
    isRecord(given) &&
    (given["blocks"] !== undefined || given["dense"] !== undefined || given["translation"] !== undefined);
  if (isRecord(given) && Object.keys(given).length === 0)
    fail("shape", path, "a generator, or generators by name", "{}");
  return readGenerators(path, isOne ? { [String((given as { name?: unknown }).name ?? "A")]: given } : given);
}

/** Numbers of an array that is to have a shape: as it is, flat, or with axes of one entry more or less. */
function valuesOf(where: string, { shape, values }: NpyArray, expected: readonly number[]): Float64Array {
  const wide = (of: readonly number[]) => of.filter((d) => d !== 1).join();
  if (shape.length !== 1 && wide(shape) !== wide(expected))
    fail(
      "shape",
      where,
      `shape ${showShape(expected)}`,
      showShape(shape),
      wide([...shape].reverse()) === wide(expected) ? "It looks transposed." : undefined,
    );
  return Float64Array.from(values);
}

/** Parameters from arrays by name; names and sizes are checked where a problem reads them. */
function thetaOf(path: string, arrays: Readonly<Record<string, NpyArray>>, model: Model): ThetaLike {
  const shapes = new Map(model.blocks.map((block) => [block.name, block.shape]));
  return Object.fromEntries(
    Object.entries(arrays).map(([name, array]) => [
      name,
      valuesOf(`${path}: ${name}`, array, shapes.get(name) ?? array.shape),
    ]),
  );
}

/** Data from arrays by input name, N samples first. */
function samplesOf(path: string, arrays: Readonly<Record<string, NpyArray>>, model: Model): Data {
  const shapes = new Map(model.inputs.map((input) => [input.name, input.shape]));
  return Object.fromEntries(
    Object.entries(arrays).map(([name, array]) => {
      const shape = shapes.get(name);
      return [
        name,
        valuesOf(`${path}: ${name}`, array, shape ? [array.shape[0] ?? 1, ...shape] : array.shape),
      ];
    }),
  );
}

interface Table {
  readonly names: readonly string[];
  readonly rows: number;
  at(row: number, column: number): number;
}

/** What a cell of numbers may say; no hexadecimal, nothing infinite. */
const DECIMAL = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;

/** Cells are read as numbers where they are asked for: a column of words is no harm. */
function csvTable(path: string, text: string): Table {
  let next = 1;
  const [head, ...rows] = csvParseRows(text.replace(/^\uFEFF/, ""))
    .map((cells) => {
      const line = next;
      // cells in quotes may go over several lines
      next += 1 + cells.reduce((n, cell) => n + cell.split("\n").length - 1, 0);
      return { cells: cells.map((cell) => cell.trim()), line };
    })
    .filter(({ cells }) => cells.some((cell) => cell !== ""));
  const names = head?.cells ?? [];
  for (const { cells, line } of rows)
    if (cells.length !== names.length)
      fail("shape", `${path}: line ${line}`, `${names.length} cells, as in the first`, `${cells.length}`);
  return {
    names,
    rows: rows.length,
    at: (i, j) => {
      const { cells, line } = rows[i]!;
      const value = DECIMAL.test(cells[j]!) ? Number(cells[j]) : Number.NaN;
      if (Number.isFinite(value)) return value;
      const where = `${path}: line ${line}, column ${show(names[j])}`;
      return fail("nonfinite", where, "a finite number", show(cells[j]));
    },
  };
}

async function parquetTable(path: string, bytes: Buffer): Promise<Table> {
  const { parquetReadObjects } = await import("hyparquet");
  const file = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength) as ArrayBuffer;
  let rows: Record<string, unknown>[];
  try {
    rows = (await parquetReadObjects({ file })) as Record<string, unknown>[];
  } catch (error) {
    return fail("shape", path, "a parquet file", (error as Error).message.slice(0, 80));
  }
  const names = Object.keys(rows[0] ?? {});
  return {
    names,
    rows: rows.length,
    at: (i, j) => {
      const value = Number(rows[i]![names[j]!]);
      return Number.isFinite(value)
        ? value
        : fail(
            "nonfinite",
            `${path}: row ${i}, column ${show(names[j])}`,
            "a finite number",
            show(rows[i]![names[j]!]),
          );
    },
  };
}

/** The inputs of a model from the columns of a table. */
function columnsOf(
  path: string,
  model: Model,
  table: Table,
  chosen: Readonly<Record<string, readonly string[]>>,
): Record<string, Float64Array> {
  if (table.rows === 0) fail("shape", path, "a line of names and at least one of numbers", "no numbers");
  const inputs = model.inputs.map((input) => input.name);
  for (const name of Object.keys(chosen))
    if (!inputs.includes(name))
      fail(
        "name",
        "--columns",
        `an input of the model: ${inputs.join(", ")}`,
        show(name),
        nearest(name, inputs),
      );
  const out: Record<string, Float64Array> = {};
  for (const { name, size } of model.inputs) {
    const given = Object.hasOwn(chosen, name) ? chosen[name]! : null;
    if (given !== null && given.length !== size)
      fail("shape", `--columns ${name}`, `${size} column${size === 1 ? "" : "s"}`, `${given.length}`);
    const spellings = (e: number): readonly string[] =>
      given !== null
        ? [given[e]!]
        : size === 1
          ? [name, `${name}[0]`, `${name}0`, `${name}_0`]
          : [`${name}[${e}]`, `${name}${e}`, `${name}_${e}`];
    const columns = Array.from({ length: size }, (_, e) => {
      const [at, again] = table.names.flatMap((n, j) => (spellings(e).includes(n) ? [j] : []));
      const wanted = `a column ${spellings(e).map(show).join(" or ")} for input ${name}`;
      if (at === undefined)
        return fail(
          "name",
          path,
          wanted,
          `columns ${show(table.names.slice(0, 12).join(", "))}`,
          `Or say which: --columns ${name}=<names>.`,
        );
      if (again !== undefined) fail("name", path, `${wanted}, and only one`, "two");
      return at;
    });
    const values = new Float64Array(table.rows * size);
    for (let i = 0; i < table.rows; i++)
      for (const [e, j] of columns.entries()) values[i * size + e] = table.at(i, j);
    out[name] = values;
  }
  return out;
}

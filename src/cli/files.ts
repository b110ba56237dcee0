/** Files that people bring: models, data, parameters, generators. */
import { readFile } from "node:fs/promises";
import { extname, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { csvParseRows } from "d3-dsv";
import type { ThetaLike } from "../dynamics/theta.ts";
import { checkObject, fail, show } from "../errors.ts";
import { Model, parseModel } from "../graph/model.ts";
import { isRecord } from "../graph/parse.ts";
import { parseSampler, Sampler } from "../graph/sampler.ts";
import { MomentMatched } from "../models/moment-matched.ts";
import type { Data } from "../models/samples.ts";
import { decodeNpy, decodeNpz, type NpyArray } from "../records/npy.ts";
import { Generator, generator } from "../symmetry/generator.ts";
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

function json(path: string, text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    return fail("shape", path, `expected JSON (${(error as Error).message.slice(0, 80)})`);
  }
}

/**
 * A model file (.json, safe for files from strangers), or a program that exports `model` or a default (.js, .mjs, .ts: it is
 * executed), and with it `data`, `theta` and `generators` if it likes.
 */
export async function loadModel(path: string): Promise<LoadedModel> {
  const kind = extname(path).toLowerCase();
  if (!CODE.includes(kind)) {
    if (kind !== ".json")
      fail("name", path, `a model is a file of .json, ${CODE.join(", ")}`, kind || "no ending");
    return { model: parseModel(json(path, (await bytesOf(path)).toString("utf8"))), generators: {} };
  }
  const exports = await execute(path);
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
  const model = isModel(given) ? parseModel(given.toJSON()) : parseModel(given);
  const data = of("data");
  const theta = of("theta");
  return {
    model,
    ...(data === undefined ? {} : { data: readData(data) }),
    ...(theta === undefined ? {} : { theta: theta as ThetaLike }),
    generators: readGenerators(`${path}: generators`, of("generators") ?? {}),
  };
}

/** A model of this package, perhaps of another copy of it. */
const isModel = (value: unknown): value is { toJSON(): unknown } =>
  value instanceof Model || (isRecord(value) && typeof value["toJSON"] === "function");

async function execute(path: string): Promise<Record<string, unknown>> {
  await bytesOf(path);
  const url = pathToFileURL(resolve(path)).href;
  if (!path.endsWith("ts")) return (await import(url)) as Record<string, unknown>;
  const { createJiti } = await import("jiti");
  return (await createJiti(import.meta.url).import(url)) as Record<string, unknown>;
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
  return Object.fromEntries(
    Object.entries(named).map(([name, A]) => [
      name,
      A instanceof Generator
        ? A
        : generator(
            isRecord(A) && typeof A["toJSON"] === "function" ? (A as { toJSON(): unknown }).toJSON() : A,
          ),
    ]),
  );
}

/**
 * Data: a sampler file or arrays by input name (.json), columns named after the inputs (.csv, .parquet: `y`, or `x[0]`, `x0`, `x_0`
 * for inputs of several entries), arrays by input name (.npz), or one array (.npy) for a model of one input.
 */
export async function loadData(path: string, model: Model): Promise<Data> {
  const bytes = await bytesOf(path);
  switch (extname(path).toLowerCase()) {
    case ".json": {
      const given = json(path, bytes.toString("utf8"));
      if (isRecord(given) && given["schema"] === "noetherflow-sampler/1") return parseSampler(given);
      return checkObject(path, "arrays by input name, or a sampler file", given) as Data;
    }
    case ".csv":
      return columnsOf(path, model, csvTable(path, bytes.toString("utf8")));
    case ".parquet":
      return columnsOf(path, model, await parquetTable(path, bytes));
    case ".npz":
      return mapArrays(decodeNpz(bytes, path));
    case ".npy": {
      if (model.inputs.length !== 1)
        fail(
          "shape",
          path,
          "an .npz with an array for each input",
          `one array for ${model.inputs.length} inputs`,
        );
      return { [model.inputs[0]!.name]: Float64Array.from(decodeNpy(bytes, path).values) };
    }
    default:
      return fail(
        "name",
        path,
        "data is a file of .json, .csv, .parquet, .npz, .npy",
        extname(path) || "no ending",
      );
  }
}

/** Parameters: arrays by block (.npz, .safetensors, .json), or one flat array (.npy, .json). */
export async function loadTheta(path: string): Promise<ThetaLike> {
  const bytes = await bytesOf(path);
  switch (extname(path).toLowerCase()) {
    case ".json":
      return json(path, bytes.toString("utf8")) as ThetaLike;
    case ".npz":
      return mapArrays(decodeNpz(bytes, path));
    case ".safetensors":
      return mapArrays(decodeSafetensors(bytes, path));
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
  return readGenerators(path, isOne ? { [String((given as { name?: unknown }).name ?? "A")]: given } : given);
}

function mapArrays(arrays: Readonly<Record<string, NpyArray>>): Record<string, Float64Array> {
  return Object.fromEntries(
    Object.entries(arrays).map(([name, { values }]) => [name, Float64Array.from(values)]),
  );
}

interface Table {
  readonly names: readonly string[];
  readonly rows: number;
  at(row: number, column: number): number;
}

function csvTable(path: string, text: string): Table {
  const [names = [], ...lines] = csvParseRows(text.replace(/^\uFEFF/, "")).filter((row) =>
    row.some((cell) => cell.trim() !== ""),
  );
  const values = new Float64Array(lines.length * names.length);
  for (const [i, line] of lines.entries()) {
    if (line.length !== names.length)
      fail(
        "shape",
        `${path}: line ${i + 2}`,
        `${names.length} cells, as in the first line`,
        `${line.length}`,
      );
    for (const [j, cell] of line.entries()) {
      const value = cell.trim() === "" ? Number.NaN : Number(cell);
      if (!Number.isFinite(value))
        fail("nonfinite", `${path}: line ${i + 2}, column ${show(names[j])}`, "a finite number", show(cell));
      values[i * names.length + j] = value;
    }
  }
  return {
    names: names.map((n) => n.trim()),
    rows: lines.length,
    at: (i, j) => values[i * names.length + j]!,
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
function columnsOf(path: string, model: Model, table: Table): Record<string, Float64Array> {
  if (table.rows === 0) fail("shape", path, "a line of names and at least one of numbers", "no numbers");
  const out: Record<string, Float64Array> = {};
  for (const { name, size } of model.inputs) {
    const spellings = (e: number) =>
      size === 1
        ? [name, `${name}[0]`, `${name}0`, `${name}_0`]
        : [`${name}[${e}]`, `${name}${e}`, `${name}_${e}`];
    const columns = Array.from({ length: size }, (_, e) => {
      const at = table.names.findIndex((n) => spellings(e).includes(n));
      return at >= 0
        ? at
        : fail(
            "name",
            path,
            `a column ${spellings(e).map(show).join(" or ")} for input ${name}`,
            `columns ${table.names.slice(0, 12).join(", ")}`,
          );
    });
    const values = new Float64Array(table.rows * size);
    for (let i = 0; i < table.rows; i++)
      for (const [e, j] of columns.entries()) values[i * size + e] = table.at(i, j);
    out[name] = values;
  }
  return out;
}

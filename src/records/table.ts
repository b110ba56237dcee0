/** The series of a run as one table: a row for each record and replica, as in `run.toCSV()`. */
import type { SchemaElement, SubColumnData } from "hyparquet";
import { asyncBufferFromFile, parquetMetadataAsync, parquetRead } from "hyparquet";
import { fileWriter, ParquetWriter } from "hyparquet-writer";
import type { Run, RunSeries, SeriesData } from "../dynamics/result.ts";
import { fail, NoetherflowError, show } from "../errors.ts";

/** Series with more entries than this are no columns of a Parquet file. */
export const MAX_ENTRIES = 256;
/** Rows of a row group, and of what is in memory beside the run. */
const GROUP_ROWS = 65_536;
/** Snappy writes a run of 64 bytes in 3; the page header and the footer come on top. */
const MAX_RATIO = 22;

export type SeriesKind = Exclude<keyof RunSeries, "k" | "t">;

/** One recorded quantity, [record][replica][entry]. */
export interface SeriesInfo {
  readonly kind: SeriesKind;
  /** Empty for the loss. */
  readonly name: string;
  readonly entries: number;
}

/** A column: one entry of a series. */
interface Column {
  readonly name: string;
  readonly data: SeriesData;
  readonly entries: number;
  readonly entry: number;
}

const PREFIX: Readonly<Record<SeriesKind, string>> = {
  loss: "loss",
  blockNorms: "norm",
  charges: "charge",
  modifiedCharges: "modifiedCharge",
  matrixCharges: "matrixCharge",
  work: "work",
  values: "value",
};

/** All series of a run in the order of its hash, each with its data. */
export function seriesOf(run: Run): (SeriesInfo & { readonly data: SeriesData })[] {
  const cells = Math.max(1, run.series.k.length * run.replicas);
  return (Object.keys(PREFIX) as SeriesKind[]).flatMap((kind) => {
    const all = kind === "loss" ? { "": run.series.loss } : run.series[kind];
    return Object.entries(all).flatMap(([name, data]) =>
      data === undefined ? [] : [{ kind, name, entries: data.length / cells, data }],
    );
  });
}

/** What a series is called in tables: `charge.C`. */
export function titleOf({ kind, name }: { readonly kind: SeriesKind; readonly name: string }): string {
  return kind === "loss" ? "loss" : `${PREFIX[kind]}.${name}`;
}

/** Names of the columns of some series; of equal ones all but the first get a number. */
export function columnNames(series: readonly SeriesInfo[]): string[] {
  const used = new Set(["k", "t", "replica"]);
  return series.flatMap((s) =>
    Array.from({ length: s.entries }, (_, e) => {
      const base = s.entries === 1 ? titleOf(s) : `${titleOf(s)}[${e}]`;
      let name = base;
      for (let n = 2; used.has(name); n++) name = `${base} (${n})`;
      used.add(name);
      return name;
    }),
  );
}

/** The columns behind k, t and replica. */
function columnsOf(series: readonly (SeriesInfo & { readonly data: SeriesData })[]): Column[] {
  const names = columnNames(series);
  let at = 0;
  return series.flatMap(({ data, entries }) =>
    Array.from({ length: entries }, (_, entry) => ({ name: names[at++]!, data, entries, entry })),
  );
}

/** Rows [from, to) of k, t, replica and the columns, each as an array of its own. */
export function rowsOf(
  run: Run,
  from: number,
  to: number,
  columns: readonly Column[] = columnsOf(seriesOf(run)),
): Float64Array[] {
  const R = run.replicas;
  const make = (f: (row: number) => number) =>
    Float64Array.from({ length: to - from }, (_, i) => f(from + i));
  return [
    make((row) => run.series.k[Math.floor(row / R)]!),
    make((row) => run.series.t[row]!),
    make((row) => run.settings.firstReplica + (row % R)),
    ...columns.map(({ data, entries, entry }) => make((row) => data[row * entries + entry]!)),
  ];
}

/**
 * Writes a run's series as a Parquet file: one row per record and replica, columns k, t, replica and one for each entry of a
 * series, all DOUBLE and required, in plain encoding (a dictionary would make -0 and 0 one value), compressed by Snappy.
 *
 * @param wide write series of more than 256 entries too
 */
export async function writeParquet(path: string, run: Run, wide = false): Promise<void> {
  const columns = columnsOf(seriesOf(run).filter((s) => wide || s.entries <= MAX_ENTRIES));
  const names = ["k", "t", "replica", ...columns.map((c) => c.name)];
  const schema: SchemaElement[] = [
    { name: "root", num_children: names.length },
    ...names.map((name): SchemaElement => ({ name, type: "DOUBLE", repetition_type: "REQUIRED" })),
  ];
  const rows = run.series.k.length * run.replicas;
  const writer = new ParquetWriter({ writer: fileWriter(path), schema, createdBy: "noetherflow" });
  for (let from = 0; from < rows; from += GROUP_ROWS) {
    const data = rowsOf(run, from, Math.min(rows, from + GROUP_ROWS), columns);
    await writer.write({
      columnData: names.map((name, i) => ({ name, data: data[i]!, encoding: "PLAIN" as const })),
      rowGroupSize: GROUP_ROWS,
    });
  }
  await writer.finish();
}

/**
 * Reads what `writeParquet` wrote: all columns in their order.
 *
 * @param names the columns there must be, and no others
 * @param rows  rows there must be
 * @throws NoetherflowError "shape" for another table, or a damaged one; sizes are compared before anything is allocated
 */
export async function readParquet(
  path: string,
  names: readonly string[],
  rows: number,
): Promise<Float64Array[]> {
  try {
    const file = await asyncBufferFromFile(path);
    const metadata = await parquetMetadataAsync(file);
    const found = metadata.schema.slice(1);
    if (found.length !== names.length || found.some(({ name }, i) => name !== names[i]))
      fail("shape", path, `the columns ${names.slice(0, 8).join(", ")}`, show(found.map((c) => c.name)));
    for (const { name, type, repetition_type } of found)
      if (type !== "DOUBLE" || repetition_type !== "REQUIRED")
        fail("shape", path, `numbers in column ${show(name)}`, `${type} ${repetition_type}`);
    const groups = metadata.row_groups.reduce((n, g) => n + Number(g.num_rows), 0);
    if (Number(metadata.num_rows) !== rows || groups !== rows)
      fail("shape", path, `${rows} rows`, `${metadata.num_rows}`);
    const bytes = 8 * rows * names.length;
    if (bytes > MAX_RATIO * file.byteLength)
      fail(
        "shape",
        path,
        `a file that can hold ${rows} rows of ${names.length} columns`,
        `${file.byteLength} bytes`,
      );
    const out: Float64Array[] = [];
    for (const name of names) {
      const data = new Float64Array(rows);
      let count = 0;
      // column by column, so that what is decoded at a time stays small
      const onPage = ({ columnData, rowStart }: SubColumnData) => {
        data.set(columnData as ArrayLike<number>, rowStart);
        count += columnData.length;
      };
      if (rows > 0) await parquetRead({ file, metadata, columns: [name], onPage });
      if (count !== rows) fail("shape", path, `${rows} rows in ${show(name)}`, `${count}`);
      out.push(data);
    }
    return out;
  } catch (error) {
    if (error instanceof NoetherflowError || (error as NodeJS.ErrnoException).syscall !== undefined)
      throw error;
    return fail("shape", path, "a whole Parquet file", (error as Error).message);
  }
}

/** The text of a run's CSV, some rows at a time: `run.toCSV()`, also where that is longer than a string can be. */
export function* csvOf(run: Run): Generator<string> {
  const columns = columnsOf(seriesOf(run));
  const quote = (name: string) => (/[",\r\n]/.test(name) ? `"${name.replaceAll('"', '""')}"` : name);
  yield `${["k", "t", "replica", ...columns.map((c) => quote(c.name))].join(",")}\n`;
  const rows = run.series.k.length * run.replicas;
  const step = Math.max(1, Math.floor(100_000 / (3 + columns.length)));
  for (let from = 0; from < rows; from += step) {
    const to = Math.min(rows, from + step);
    const data = rowsOf(run, from, to, columns);
    let text = "";
    for (let i = 0; i < to - from; i++) text += `${data.map((column) => column[i]).join(",")}\n`;
    yield text;
  }
}

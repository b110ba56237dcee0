import { open } from "node:fs/promises";
import { Run } from "../dynamics/result.ts";
import { checkFlag, checkKnown, checkObject, checkWord, fail, show } from "../errors.ts";
import { type Content, writeWhole } from "./files.ts";
import { encodeNpy, encodeNpz, type NpyArray } from "./npy.ts";
import { readRun } from "./record.ts";
import { csvOf, rowsOf, seriesOf, titleOf, writeParquet } from "./table.ts";

export const FORMATS = ["csv", "json", "npy", "npz", "parquet"] as const;
/** "csv", "json", "parquet", "npy" or "npz". */
export type ExportFormat = (typeof FORMATS)[number];

/**
 * Writes what a run recorded as one file:
 *
 *   csv      `run.toCSV()`: k, t, replica, then every series, a line per record and replica
 *   npy      the same table as numbers, [record * replicas + replica][column]
 *   parquet  the same table, columns by name, DOUBLE
 *   npz      arrays by name: theta [replicas][P], k, t, and every series as [record][replica] or [record][replica][entry]
 *   json     `run.toJSON()`
 *
 * @param source a run, or the folder of a finished one
 * @param options overwrite: replace a file that is there
 * @throws NoetherflowError "unsupported" for a file that is there or an unfinished run, "name" for another format
 * @example await exportRun(await problem.simulate(options), "parquet", "run.parquet");
 */
export async function exportRun(
  source: Run | string,
  format: ExportFormat,
  path: string,
  options: { readonly overwrite?: boolean } = {},
): Promise<void> {
  const where = "exportRun";
  checkWord(where, "format", format, FORMATS);
  checkKnown(where, checkObject(where, "{ overwrite? }", options), ["overwrite"]);
  const overwrite = checkFlag(where, "overwrite", options.overwrite);
  if (typeof path !== "string" || path === "") fail("shape", where, "the path of the file", show(path));
  await writeWhole(path, contentOf(await runOf(where, source), format), !overwrite);
}

async function runOf(where: string, source: unknown): Promise<Run> {
  if (source instanceof Run) return source;
  if (typeof source !== "string") return fail("shape", where, "a run or the folder of one", show(source));
  const { run } = await readRun(source);
  return (
    run ?? fail("unsupported", where, "a finished run", "an unfinished one", "Finish it with resumeRun.")
  );
}

function contentOf(run: Run, format: ExportFormat): Content {
  if (format === "json") return `${JSON.stringify(run)}\n`;
  if (format === "npz") return encodeNpz(arraysOf(run));
  if (format === "npy") return encodeNpy(tableOf(run));
  if (format === "parquet") return (to) => writeParquet(to, run, true);
  return async (to) => {
    const file = await open(to, "w");
    try {
      for (const lines of csvOf(run)) await file.write(lines);
    } finally {
      await file.close();
    }
  };
}

/** The table of the CSV. */
function tableOf(run: Run): NpyArray {
  const rows = run.series.k.length * run.replicas;
  const columns = rowsOf(run, 0, rows);
  const values = new Float64Array(rows * columns.length);
  for (const [c, column] of columns.entries())
    for (let row = 0; row < rows; row++) values[row * columns.length + c] = column[row]!;
  return { shape: [rows, columns.length], values };
}

function arraysOf(run: Run): Record<string, NpyArray> {
  const { k, t } = run.series;
  const { replicas: R, P } = run;
  const one = ({ entries, data }: ReturnType<typeof seriesOf>[number]): NpyArray => ({
    shape: entries === 1 ? [k.length, R] : [k.length, R, entries],
    values: data,
  });
  return Object.fromEntries([
    ["theta", { shape: [R, P], values: run.theta }],
    ["k", { shape: [k.length], values: k }],
    ["t", { shape: [k.length, R], values: t }],
    ...seriesOf(run).map((s) => [titleOf(s), one(s)] as [string, NpyArray]),
  ]);
}

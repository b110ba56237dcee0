/**
 * The folder of a run:
 *
 *   run.json        what the run is and how it ended: the description to do it again, versions, host, status, hashes
 *   data.npz        long arrays of the description
 *   checkpoint.bin  where an unfinished run goes on
 *   series.parquet  one row per record and replica
 *   theta.npy       final thetas, [replicas][P]
 *   arrays.npz      long arrays of the outcome: averages, probes, series of more than 256 entries
 *
 * run.json comes first and says "unfinished"; the one that says how the run ended is written last, when all else is there.
 */
import { mkdir, readFile, rename, rm, rmdir, stat } from "node:fs/promises";
import { arch, cpus, platform, release } from "node:os";
import { join } from "node:path";
import { STREAM_VERSION } from "../core/key.ts";
import { MAX_RECORDED } from "../dynamics/plan.ts";
import { Run, type RunAverages, type RunSeries } from "../dynamics/result.ts";
import { checkInteger, checkObject, checkWord, fail, show } from "../errors.ts";
import type { RunSpec } from "../spec.ts";
import { VERSION } from "../version.ts";
import { sha256, syncFolder, writeWhole } from "./files.ts";
import { decodeNpy, decodeNpz, encodeNpy, encodeNpz, type NpyArray } from "./npy.ts";
import { type Packed, pack, printJSON, unpack } from "./plain.ts";
import {
  columnNames,
  MAX_ENTRIES,
  readParquet,
  type SeriesInfo,
  type SeriesKind,
  seriesOf,
  writeParquet,
} from "./table.ts";

export const FILES = {
  run: "run.json",
  data: "data.npz",
  checkpoint: "checkpoint.bin",
  series: "series.parquet",
  theta: "theta.npy",
  arrays: "arrays.npz",
} as const;
export const NAMES: readonly string[] = Object.values(FILES);

const SCHEMA = "noetherflow-record/1";
/** A run.json longer than this is none of ours. */
const MAX_JSON = 268_435_456;

/** The machine and the runtime of a part of a run. */
export interface Session {
  /** ISO time. */
  readonly began: string;
  /** Version of Node. */
  readonly node: string;
  /** Operating system, its release, and the architecture. */
  readonly platform: string;
  /** Model of the processor. */
  readonly cpu: string;
}

/** What run.json says beside the outcome; arrays may be in the files beside it. */
export interface Header {
  readonly schema: typeof SCHEMA;
  readonly status: "unfinished" | "done" | "diverged";
  /** Version of noetherflow. */
  readonly engine: string;
  readonly streamVersion: number;
  readonly dtype: string;
  readonly variant: string;
  readonly wasmSha256: string | null;
  readonly seed: unknown;
  /** One for the start, one for every time it went on. */
  readonly sessions: readonly Session[];
  /** ISO time. */
  readonly ended: string | null;
  readonly hash: string | null;
  readonly hashes: readonly string[];
  /** Probes of the host; what functions measured is kept, the functions are not. */
  readonly probes: {
    readonly every: number;
    readonly flow: boolean;
    readonly names: readonly string[];
  } | null;
  readonly verdicts: unknown;
  readonly spec: unknown;
  readonly outcome: unknown;
  /** sha256 of data.npz and arrays.npz, where they are. */
  readonly sums: Readonly<Record<string, string>>;
  /** Folders of earlier records that this one takes the place of. */
  readonly replaces: readonly string[];
}

/** What a run came to, with its arrays; series and theta are in files of their own. */
interface Outcome {
  readonly steps: number;
  readonly replicas: number;
  readonly P: number;
  readonly records: number;
  readonly diverged: Run["diverged"];
  readonly settings: Run["settings"];
  /** With the data of series that have more than 256 entries. */
  readonly series: readonly (SeriesInfo & { readonly data?: Float64Array })[];
  readonly averages: RunAverages | null;
  readonly probes: Run["probes"];
  readonly profile?: Run["profile"];
}

/** This machine, now. */
export function session(): Session {
  return {
    began: new Date().toISOString(),
    node: process.versions.node,
    platform: `${platform()} ${release()} ${arch()}`,
    cpu: cpus()[0]?.model.trim() ?? "unknown",
  };
}

/** The record of a run that begins, and its data.npz if it needs one. */
export function beginning(
  spec: RunSpec,
  wasmSha256: string | null,
  probes: Header["probes"],
  replaces: readonly string[],
): { header: Header; data: Uint8Array | null } {
  const packed = pack(spec);
  const data = zipOf(packed);
  const { seed = "0" } = spec.options;
  const header: Header = {
    schema: SCHEMA,
    status: "unfinished",
    engine: VERSION,
    streamVersion: STREAM_VERSION,
    dtype: spec.dtype,
    variant: spec.variant,
    wasmSha256,
    seed,
    sessions: [session()],
    ended: null,
    hash: null,
    hashes: [],
    probes,
    verdicts: null,
    spec: packed.json,
    outcome: null,
    sums: data === null ? {} : { [FILES.data]: sha256(data) },
    replaces,
  };
  return { header, data };
}

export async function writeHeader(dir: string, header: Header, exclusive = false): Promise<void> {
  await writeWhole(join(dir, FILES.run), printJSON(header), exclusive);
}

/** Writes what a run came to; the record is finished when this returns, and not before. */
export async function writeOutcome(
  dir: string,
  header: Header,
  run: Run,
  verdicts: unknown,
): Promise<Header> {
  const outcome: Outcome = {
    steps: run.steps,
    replicas: run.replicas,
    P: run.P,
    records: run.series.k.length,
    diverged: run.diverged,
    settings: run.settings,
    series: seriesOf(run).map(({ data, ...info }) =>
      info.entries <= MAX_ENTRIES ? info : { ...info, data },
    ),
    averages: run.averages,
    probes: run.probes,
    ...(run.profile === undefined ? {} : { profile: run.profile }),
  };
  const packed = pack(outcome);
  const arrays = zipOf(packed);
  await writeWhole(join(dir, FILES.series), (path) => writeParquet(path, run));
  await writeWhole(join(dir, FILES.theta), encodeNpy({ shape: [run.replicas, run.P], values: run.theta }));
  if (arrays !== null) await writeWhole(join(dir, FILES.arrays), arrays);
  const finished: Header = {
    ...header,
    status: run.status === "diverged" ? "diverged" : "done",
    ended: new Date().toISOString(),
    hash: run.hash,
    hashes: run.hashes,
    outcome: packed.json,
    verdicts: plainOf(verdicts),
    sums: { ...header.sums, ...(arrays === null ? {} : { [FILES.arrays]: sha256(arrays) }) },
    replaces: [],
  };
  await writeHeader(dir, finished);
  await rm(join(dir, FILES.checkpoint), { force: true });
  for (const name of header.replaces) await removeRecord(join(dir, name));
  return finished;
}

/** Data without long arrays, as run.json holds it. */
export function plainOf(value: unknown): unknown {
  if (value === undefined || value === null) return null;
  const { json, arrays } = pack(value);
  if (Object.keys(arrays).length > 0)
    fail("memory", "verdicts", "plain data without arrays of more than 256 numbers", show(value));
  return json;
}

/**
 * run.json of a folder.
 *
 * @throws NoetherflowError "shape" where there is none or a damaged one, "version" for another schema
 */
export async function readHeader(dir: string): Promise<Header> {
  const path = join(dir, FILES.run);
  let text: string;
  try {
    const { size } = await stat(path);
    if (size > MAX_JSON) fail("memory", path, `at most ${MAX_JSON} bytes`, `${size}`);
    text = await readFile(path, "utf8");
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOTDIR") return fail("shape", dir, "the folder of a run", "a file");
    if (code !== "ENOENT") throw error;
    return fail("shape", dir, "the folder of a run", `no ${FILES.run} in it`);
  }
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    return fail("shape", path, "the record of a run", "text that is no JSON");
  }
  const header = checkObject(path, "the record of a run", json) as unknown as Header;
  if (header.schema !== SCHEMA)
    fail(
      "version",
      path,
      `a record of schema "${SCHEMA}"`,
      show(header.schema),
      "Read it with the version that wrote it.",
    );
  checkWord(path, "status", header.status, ["unfinished", "done", "diverged"]);
  const { sessions, hashes, replaces, probes } = header;
  if (!Array.isArray(sessions) || !Array.isArray(hashes) || !Array.isArray(replaces) || !isNames(replaces))
    fail("shape", path, "lists of sessions, hashes and replaced folders", show(header));
  checkObject(path, "sums by file", header.sums);
  if (probes !== null && !(typeof probes === "object" && Array.isArray(probes.names)))
    fail("shape", path, "probes { every, flow, names } or null", show(probes));
  return header;
}

/** Names of folders beside run.json and nowhere else. */
function isNames(list: readonly unknown[]): boolean {
  return list.every((name) => typeof name === "string" && /^replaced-\d+$/.test(name));
}

/** The description of the run, arrays and all. */
export async function readDescription(dir: string, header: Header): Promise<RunSpec> {
  const arrays = await readZip(dir, FILES.data, header);
  return unpack(join(dir, FILES.run), { json: header.spec, arrays }) as RunSpec;
}

/**
 * The run of a finished record.
 *
 * @param check compare its hash with the recorded one
 * @throws NoetherflowError "shape" for files that do not fit together
 */
export async function readOutcome(dir: string, header: Header, check = true): Promise<Run> {
  const where = join(dir, FILES.run);
  const json = { json: header.outcome, arrays: await readZip(dir, FILES.arrays, header) };
  const outcome = checkObject(where, "the outcome of a run", unpack(where, json)) as unknown as Outcome;
  const R = checkInteger(where, "outcome.replicas", outcome.replicas, 1, MAX_RECORDED);
  const P = checkInteger(where, "outcome.P", outcome.P, 0);
  const records = checkInteger(where, "outcome.records", outcome.records, 0, MAX_RECORDED);
  const { settings } = outcome;
  checkInteger(where, "outcome.settings.firstReplica", settings?.firstReplica, 0);
  if (!Array.isArray(outcome.series) || !Array.isArray(outcome.diverged))
    fail("shape", where, "lists of series and of diverged replicas", show(outcome));
  const infos = outcome.series.map((s) => readInfo(where, s, records * R));
  const narrow = infos.filter((s) => s.data === undefined);
  const names = ["k", "t", "replica", ...columnNames(narrow)];
  const path = join(dir, FILES.series);
  const [k, t, replica, ...columns] = await readParquet(path, names, records * R);
  // the hash is of what was measured; when and where has a rule
  for (let row = 0; row < records * R; row++) {
    const record = Math.floor(row / R);
    if (k![row] !== record * (k![R] ?? 0) || replica![row] !== settings.firstReplica + (row % R))
      fail(
        "shape",
        path,
        "records of all replicas, every so many steps",
        `k ${k![row]}, replica ${replica![row]} in row ${row}`,
      );
  }
  const groups: Record<Exclude<SeriesKind, "loss">, [string, Float64Array][]> = {
    blockNorms: [],
    charges: [],
    modifiedCharges: [],
    matrixCharges: [],
    work: [],
    values: [],
  };
  let loss: Float64Array | undefined;
  let at = 0;
  for (const { kind, name, entries, data } of infos) {
    const values = data ?? interleave(columns.slice(at, (at += entries)), records * R);
    if (kind === "loss") loss = values;
    else groups[kind].push([name, values]);
  }
  const series: RunSeries = {
    // one row per replica, and all of a record have its k
    k: Float64Array.from({ length: records }, (_, i) => k![i * R]!),
    t: t!,
    ...(loss === undefined ? {} : { loss }),
    ...(Object.fromEntries(
      Object.entries(groups).map(([kind, all]) => [kind, Object.fromEntries(all)]),
    ) as Omit<RunSeries, "k" | "t" | "loss">),
  };
  const run = new Run({
    theta: await readThetas(dir, header.dtype, R, P),
    replicas: R,
    P,
    steps: checkInteger(where, "outcome.steps", outcome.steps, 0),
    status: header.status === "diverged" ? "diverged" : "done",
    diverged: outcome.diverged,
    series,
    averages: outcome.averages,
    probes: outcome.probes,
    settings,
    ...(outcome.profile === undefined ? {} : { profile: outcome.profile }),
  });
  if (check && run.hash !== header.hash)
    fail(
      "shape",
      dir,
      `theta and series with the hash ${show(header.hash)}`,
      show(run.hash),
      "A file was changed after the run; replayRun says where.",
    );
  return run;
}

function readInfo(where: string, info: Outcome["series"][number], rows: number): Outcome["series"][number] {
  const { kind, name, entries, data } = checkObject(where, "a series", info) as unknown as typeof info;
  const kinds = [
    "loss",
    "blockNorms",
    "charges",
    "modifiedCharges",
    "matrixCharges",
    "work",
    "values",
  ] as const;
  checkWord(where, "kind of a series", kind, kinds);
  if (typeof name !== "string") fail("shape", where, "the name of a series", show(name));
  checkInteger(
    where,
    `entries of ${show(name)}`,
    entries,
    0,
    data === undefined ? MAX_ENTRIES : MAX_RECORDED,
  );
  if (data !== undefined && !(data instanceof Float64Array && data.length === rows * entries))
    fail("shape", where, `${rows} x ${entries} numbers of ${show(name)}`, show(data));
  return { kind, name, entries, ...(data === undefined ? {} : { data }) };
}

/** [row][column] from columns. */
function interleave(columns: readonly Float64Array[], rows: number): Float64Array {
  const entries = columns.length;
  const out = new Float64Array(rows * entries);
  for (const [e, column] of columns.entries())
    for (let row = 0; row < rows; row++) out[row * entries + e] = column[row]!;
  return out;
}

async function readThetas(
  dir: string,
  dtype: string,
  R: number,
  P: number,
): Promise<Float64Array | Float32Array> {
  const path = join(dir, FILES.theta);
  const { values, shape } = decodeNpy(await readPart(path, "theta of the replicas"), path);
  const Values = dtype === "f32" ? Float32Array : Float64Array;
  if (!(values instanceof Values) || shape.length !== 2 || shape[0] !== R || shape[1] !== P)
    fail(
      "shape",
      path,
      `${dtype} numbers of shape [${R}, ${P}]`,
      `${show(values)} of shape [${shape.join(", ")}]`,
    );
  return values as Float64Array | Float32Array;
}

function zipOf({ arrays }: Packed): Uint8Array | null {
  return Object.keys(arrays).length === 0 ? null : encodeNpz(arrays);
}

/** A file that the record must have. */
const readPart = (path: string, what: string): Promise<Buffer> =>
  readFile(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== "ENOENT") throw error;
    return fail("shape", path, what, "no file");
  });

async function readZip(dir: string, name: string, header: Header): Promise<Record<string, NpyArray>> {
  if (!Object.hasOwn(header.sums, name)) return {};
  const path = join(dir, name);
  const bytes = await readPart(path, `the arrays that ${FILES.run} refers to`);
  const sum = sha256(bytes);
  if (sum !== header.sums[name])
    fail(
      "shape",
      path,
      `a file with the sum ${show(header.sums[name])}`,
      show(sum),
      "It was changed after it was written.",
    );
  return decodeNpz(bytes, path);
}

/** Moves a record into a folder of its own, run.json first, so that it can be brought back by hand. */
export async function setAside(dir: string, names: readonly string[]): Promise<string> {
  for (let n = 1; ; n++) {
    const to = join(dir, `replaced-${n}`);
    try {
      await mkdir(to);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
      continue;
    }
    for (const name of names) await rename(join(dir, name), join(to, name));
    await syncFolder(to);
    await syncFolder(dir);
    return `replaced-${n}`;
  }
}

/** Removes the files of a record, and its folder if nothing else is in it. */
async function removeRecord(dir: string): Promise<void> {
  for (const name of NAMES) await rm(join(dir, name), { force: true });
  await rmdir(dir).catch(() => {
    // something of the user's is in it
  });
}

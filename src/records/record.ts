import { mkdir, readFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { STREAM_VERSION } from "../core/key.ts";
import { createEngine } from "../create.ts";
import type { SimulateOptions } from "../dynamics/options.ts";
import { Run } from "../dynamics/result.ts";
import type { ProbeOptions, RunControl } from "../dynamics/run.ts";
import type { Engine } from "../engine.ts";
import { checkFlag, checkKnown, checkNumber, checkObject, fail, NoetherflowError, show } from "../errors.ts";
import type { Node } from "../graph/node.ts";
import type { Problem } from "../problem.ts";
import type { RunSpec } from "../spec.ts";
import type { Generator } from "../symmetry/generator.ts";
import type { Dtype, Variant } from "../wasm/module.ts";
import { exists, sha256, sweepParts, syncFolder, writeWhole } from "./files.ts";
import {
  beginning,
  FILES,
  type Header,
  NAMES,
  plainOf,
  readDescription,
  readHeader,
  readOutcome,
  type Session,
  session,
  setAside,
  writeHeader,
  writeOutcome,
} from "./folder.ts";
import { unpack } from "./plain.ts";

type Options = SimulateOptions<Generator, Node>;

/** How a recorded run is controlled; nothing of it decides a number. */
export interface RecordControl extends Pick<RunControl, "signal" | "onProgress" | "probes"> {
  /** Milliseconds between checkpoints: 60000 when absent; 0 as often as the run yields. An abort leaves one too. */
  readonly checkpointEvery?: number;
  /** What is predicted and judged, given the finished run: data for run.json. */
  readonly verdicts?: (run: Run) => unknown;
}

export interface RecordRunOptions extends RecordControl {
  /** The run's folder; it is made if it is not there. */
  readonly dir: string;
  /** Take the place of a record that is there. It is kept in `replaced-1` (or 2, ...) until the new one is finished. */
  readonly overwrite?: boolean;
}

/** A record read back. */
export interface RecordedRun {
  /** The folder. */
  readonly dir: string;
  /** "unfinished" until its outcome is on disk. */
  readonly status: "unfinished" | "done" | "diverged";
  /** The run as data; `engine.open` takes it. */
  readonly spec: RunSpec;
  /** What it came to; null for an unfinished one. */
  readonly run: Run | null;
  /** `run.hash`; null for an unfinished one. */
  readonly hash: string | null;
  /** As it was given. */
  readonly seed: unknown;
  /** Version of noetherflow that began it. */
  readonly engine: string;
  /** Version of the random stream. */
  readonly streamVersion: number;
  /** Of the engine. */
  readonly dtype: string;
  /** Build of the engine's core. */
  readonly variant: string;
  /** sha256 of the Wasm core, hex; null when it was not known. */
  readonly wasmSha256: string | null;
  /** The start, and every time it went on. */
  readonly sessions: readonly Session[];
  /** ISO time; null for an unfinished one. */
  readonly ended: string | null;
  /** What was predicted and judged; null where nothing was. */
  readonly verdicts: unknown;
}

const CONTROL = ["signal", "onProgress", "probes", "checkpointEvery", "verdicts"];

/**
 * `problem.simulate(options)` with a record: its description is on disk before the first step, checkpoints while it goes, and its
 * outcome at the end. Whenever the process ends, `resumeRun(dir)` goes on to the same bits.
 *
 * @param options as for simulate; signal, onProgress and probes may be among them or among the others
 * @returns the run, the same as without a record
 * @throws  NoetherflowError "unsupported" for a folder that holds a run, unless overwrite; the signal's reason after an abort, a
 *          checkpoint having been written; errors of the file system as they are, with the run on them as `recorded` when it was done
 * @cost    a checkpoint is the state and all series so far, hashed and synced to the disk: some 10 ms per MB
 * @example
 * const run = await recordRun(problem, options, { dir: "runs/7" });
 * (await readRun("runs/7")).hash === run.hash; // true
 */
export async function recordRun(problem: Problem, options: Options, record: RecordRunOptions): Promise<Run> {
  const where = "recordRun";
  checkKnown(where, checkObject(where, "{ dir, ... }", record), ["dir", "overwrite", ...CONTROL]);
  checkFlag(where, "overwrite", record.overwrite);
  const control = readControl(where, { ...options, ...record });
  if (typeof record.dir !== "string" || record.dir === "")
    fail("shape", where, "dir, the path of a folder", show(record.dir));
  for (const name of ["checkpoint", "resume"] as const)
    if (options[name] !== undefined)
      fail(
        "name",
        where,
        "options without checkpoint and resume",
        show(name),
        "checkpointEvery says how often.",
      );
  control.signal?.throwIfAborted();
  const { probes } = control;
  problem.check({ ...options, ...(probes === undefined ? {} : { probes }) });
  const dir = resolve(record.dir);
  const { wasmSha256 } = problem.settings(options);
  const spec = problem.describe(options);
  const header = await begin(where, dir, record.overwrite, (replaces) =>
    beginning(spec, wasmSha256, probesOf(control.probes), replaces),
  );
  return execute(dir, header, problem, options, control);
}

/**
 * The record of a run that was done without one.
 *
 * @param spec what `problem.describe(options)` gave
 * @throws NoetherflowError "unsupported" for a folder that holds a run, unless overwrite
 * @example
 * await saveRun("runs/7", problem.describe(options), await problem.simulate(options));
 * (await readRun("runs/7")).run?.status; // "done"
 */
export async function saveRun(
  dir: string,
  spec: RunSpec,
  run: Run,
  options: { readonly overwrite?: boolean; readonly verdicts?: unknown } = {},
): Promise<void> {
  const where = "saveRun";
  checkKnown(where, checkObject(where, "{ overwrite?, verdicts? }", options), ["overwrite", "verdicts"]);
  checkFlag(where, "overwrite", options.overwrite);
  if (!(run instanceof Run)) fail("shape", where, "a run", show(run));
  if (run.status === "aborted")
    fail(
      "unsupported",
      where,
      "a run that came to its end",
      "an aborted one",
      "recordRun leaves a checkpoint of it.",
    );
  const names = Object.keys(run.probes?.values ?? {});
  const probes = run.probes && { every: run.probes.k[1] ?? run.steps + 1, flow: false, names };
  const folder = resolve(dir);
  const header = await begin(where, folder, options.overwrite, (replaces) =>
    beginning(spec, run.settings.wasmSha256, probes, replaces),
  );
  await writeOutcome(folder, header, run, options.verdicts);
}

/** Makes a folder the folder of a run that begins. */
async function begin(
  where: string,
  dir: string,
  overwrite: boolean | undefined,
  make: (replaces: readonly string[]) => { header: Header; data: Uint8Array | null },
): Promise<Header> {
  const { data } = make([]);
  const present = await presentIn(dir, data);
  if (present.length > 0 && !overwrite)
    fail(
      "unsupported",
      where,
      `a folder without a run`,
      `${show(dir)} with ${present.join(", ")}`,
      "resumeRun goes on with it; overwrite: true begins anew.",
    );
  await makeFolder(dir);
  const replaced = present.length === 0 ? [] : [await setAside(dir, present)];
  const earlier = replaced.length === 0 ? [] : await replacedBy(join(dir, replaced[0]!));
  const { header } = make([...replaced, ...earlier]);
  // the same data.npz may be there already; another one, of a run that begins at the same time, must stay
  if (data !== null && !(await exists(join(dir, FILES.data))))
    await writeWhole(join(dir, FILES.data), data, true);
  await writeHeader(dir, header, true);
  return header;
}

/**
 * Goes on with a recorded run: from its checkpoint, from the start if there is none; a finished one is read back.
 *
 * @param control engine: one to run on, of the record's dtype and Wasm; one is made when absent. probes: the functions
 *                again, if the run had some
 * @returns the run, with the bits it would have had without an interruption
 * @throws  NoetherflowError "version" for a record of another engine, stream or schema; "shape" for a damaged one
 * @example
 * await recordRun(problem, options, { dir: "runs/7" });
 * (await resumeRun("runs/7")).status; // "done"; a finished run is read back
 */
export async function resumeRun(
  dir: string,
  control: RecordControl & { readonly engine?: Engine } = {},
): Promise<Run> {
  const where = "resumeRun";
  checkKnown(where, checkObject(where, "{ engine?, signal?, ... }", control), ["engine", ...CONTROL]);
  const checked = readControl(where, control);
  const header = await readHeader(dir);
  if (header.status !== "unfinished") return readOutcome(dir, header);
  const probes = matchProbes(where, header, checked.probes, true);
  const spec = await readDescription(dir, header);
  await sweepParts(dir, NAMES);
  return withEngine(where, header, control.engine, async (engine) => {
    const { problem, options } = engine.open(spec);
    try {
      const resume = await readFile(join(dir, FILES.checkpoint)).catch((error: NodeJS.ErrnoException) => {
        if (error.code !== "ENOENT") throw error;
        return undefined;
      });
      const again = { ...header, sessions: [...header.sessions, session()] };
      await writeHeader(dir, again);
      return await execute(dir, again, problem, options, { ...checked, probes }, resume);
    } finally {
      problem.dispose();
    }
  });
}

/**
 * A record read back, finished or not.
 *
 * @throws NoetherflowError "shape" where there is none, or where its files are not those that were written
 * @example
 * await recordRun(problem, options, { dir: "runs/7" });
 * (await readRun("runs/7")).status; // "done"
 */
export async function readRun(dir: string): Promise<RecordedRun> {
  const header = await readHeader(dir);
  const { status, hash, engine, streamVersion, dtype, variant, wasmSha256, sessions, ended } = header;
  const json = (value: unknown) => unpack(join(dir, FILES.run), { json: value, arrays: {} });
  return {
    dir,
    status,
    spec: await readDescription(dir, header),
    run: status === "unfinished" ? null : await readOutcome(dir, header),
    hash,
    seed: header.seed,
    engine,
    streamVersion,
    dtype,
    variant,
    wasmSha256,
    sessions,
    ended,
    verdicts: json(header.verdicts),
  };
}

/**
 * Puts verdicts into a record; those that were there go.
 *
 * @example
 * await recordRun(problem, options, { dir: "runs/7" });
 * await writeVerdicts("runs/7", { agrees: true });
 * (await readRun("runs/7")).verdicts; // { agrees: true }
 */
export async function writeVerdicts(dir: string, verdicts: unknown): Promise<void> {
  const header = await readHeader(dir);
  await writeHeader(dir, { ...header, verdicts: plainOf(verdicts) });
}

/** Runs to the end and writes the outcome. */
async function execute(
  dir: string,
  header: Header,
  problem: Problem,
  options: Options,
  control: RecordControl,
  resume?: Uint8Array,
): Promise<Run> {
  const checkpoint = {
    save: (bytes: Uint8Array) => writeWhole(join(dir, FILES.checkpoint), bytes),
    everyMs: control.checkpointEvery ?? 60_000,
  };
  const { signal, onProgress, probes } = control;
  let run: Run;
  let thrown: unknown = null;
  try {
    run = await problem.simulate({
      ...options,
      checkpoint,
      ...(signal === undefined ? {} : { signal }),
      ...(onProgress === undefined ? {} : { onProgress }),
      ...(probes === undefined ? {} : { probes }),
      ...(resume === undefined ? {} : { resume }),
    });
  } catch (error) {
    // onDiverge: "throw" is an outcome
    if (!(error instanceof NoetherflowError && error.code === "nonfinite" && error.recorded instanceof Run))
      throw error;
    run = error.recorded;
    thrown = error;
  }
  try {
    await writeOutcome(dir, header, run, control.verdicts?.(run));
  } catch (error) {
    if (typeof error === "object" && error !== null) Object.assign(error, { recorded: run });
    throw error;
  }
  if (thrown !== null) throw thrown;
  return run;
}

/** Runs something on the engine given, or on one made for it. */
export async function withEngine<T>(
  where: string,
  header: Header,
  given: Engine | undefined,
  use: (engine: Engine) => Promise<T>,
): Promise<T> {
  if (header.streamVersion !== STREAM_VERSION)
    otherVersion(where, "version of the random stream", STREAM_VERSION, header.streamVersion);
  const engine =
    given ?? (await createEngine({ dtype: header.dtype as Dtype, variant: header.variant as Variant }));
  try {
    if (header.dtype !== engine.dtype) otherVersion(where, "dtype", engine.dtype, header.dtype);
    if (header.variant !== engine.variant) otherVersion(where, "variant", engine.variant, header.variant);
    if (header.wasmSha256 !== engine.wasmSha256)
      otherVersion(where, "Wasm core", engine.wasmSha256, header.wasmSha256);
    return await use(engine);
  } finally {
    if (given === undefined) engine.dispose();
  }
}

function otherVersion(where: string, what: string, own: unknown, recorded: unknown): never {
  return fail(
    "version",
    where,
    `a record of the same ${what}, ${show(own)}`,
    show(recorded),
    "Use the version of noetherflow and the engine that made it; readRun reads it anywhere.",
  );
}

/** The probes of a record: those of the flow are data, functions must be given again. */
export function matchProbes(
  where: string,
  { probes: recorded }: Header,
  given: ProbeOptions | undefined,
  needed: boolean,
): ProbeOptions | undefined {
  const names = (probes: Header["probes"]) =>
    probes === null
      ? "no probes"
      : `${[...(probes.flow ? ["the flow"] : []), ...probes.names].join(", ")} every ${probes.every} steps`;
  if (given === undefined && recorded !== null && recorded.names.length === 0)
    return { every: recorded.every, flow: recorded.flow };
  if (given === undefined && (recorded === null || !needed)) return undefined;
  if (names(probesOf(given)) !== names(recorded))
    fail(
      "range",
      where,
      `the probes of the record, ${names(recorded)}`,
      names(probesOf(given)),
      "Functions are not part of a record: pass the same ones as probes.",
    );
  return given;
}

function probesOf(probes: ProbeOptions | undefined): Header["probes"] {
  if (probes === undefined) return null;
  return { every: probes.every, flow: probes.flow ?? false, names: Object.keys(probes.measures ?? {}) };
}

function readControl(where: string, control: RecordControl): RecordControl {
  const { signal, onProgress, probes, checkpointEvery, verdicts } = control;
  if (checkpointEvery !== undefined) checkNumber(where, "checkpointEvery", checkpointEvery, 0);
  if (verdicts !== undefined && typeof verdicts !== "function")
    fail("shape", where, "verdicts must be a function of the run", show(verdicts));
  return {
    ...(signal === undefined ? {} : { signal }),
    ...(onProgress === undefined ? {} : { onProgress }),
    ...(probes === undefined ? {} : { probes }),
    ...(checkpointEvery === undefined ? {} : { checkpointEvery }),
    ...(verdicts === undefined ? {} : { verdicts }),
  };
}

/** Files of a record in a folder. The same data.npz alone is what a crash right at the start leaves. */
async function presentIn(dir: string, data: Uint8Array | null): Promise<string[]> {
  const present: string[] = [];
  for (const name of NAMES) {
    if (await exists(join(dir, name))) present.push(name);
  }
  if (present.length === 1 && present[0] === FILES.data && data !== null) {
    const found = await readFile(join(dir, FILES.data));
    if (sha256(found) === sha256(data)) return [];
  }
  return present;
}

async function makeFolder(dir: string): Promise<void> {
  const first = await mkdir(dir, { recursive: true });
  if (first !== undefined) await syncFolder(dirname(first));
  await sweepParts(dir, NAMES);
}

/** What a record that was set aside had itself taken the place of and not yet removed. */
async function replacedBy(dir: string): Promise<readonly string[]> {
  try {
    return (await readHeader(dir)).replaces;
  } catch {
    return [];
  }
}

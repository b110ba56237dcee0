import type { Run } from "../dynamics/result.ts";
import type { RunControl } from "../dynamics/run.ts";
import type { Engine } from "../engine.ts";
import { checkKnown, checkObject, fail, NoetherflowError } from "../errors.ts";
import { type Header, readDescription, readHeader, readOutcome } from "./folder.ts";
import { matchProbes, withEngine } from "./record.ts";
import { seriesOf, titleOf } from "./table.ts";

/** One thing that a replay did not find as recorded. */
export interface Difference {
  /** `theta`, `hash`, `steps`, or a series: `charge.C`. */
  readonly what: string;
  /** Numbers that differ in a bit, and the first of them. */
  readonly count: number;
  /** Step of the first of them. */
  readonly k?: number;
  /** Its replica. */
  readonly replica?: number;
  /** Its entry. */
  readonly entry?: number;
  /** What the record says. */
  readonly recorded: unknown;
  /** What came now. */
  readonly replayed: unknown;
  /** All of it as a sentence. */
  readonly text: string;
}

/** What a replay found. */
export interface Replay {
  /** Every bit that was compared is equal. */
  readonly same: boolean;
  /** What is not; empty where `same`. */
  readonly differences: readonly Difference[];
  /** What of the record was not compared, because it needs functions that were not given: probes. */
  readonly skipped: readonly string[];
  /** The run that was done again. */
  readonly run: Run;
}

/**
 * Does a recorded run again and compares hash, theta, every series, averages and probes, bit for bit.
 *
 * @param control engine as in resumeRun; probes: their functions again, so that they are compared too
 * @throws  NoetherflowError "version" for a record of another schema, stream, dtype, variant or Wasm, "unsupported" for an
 *          unfinished one, "shape" for one that cannot be read
 * @cost    the run once more
 * @example
 * await recordRun(problem, options, { dir: "runs/7" });
 * (await replayRun("runs/7")).same; // true
 */
export async function replayRun(
  dir: string,
  control: Pick<RunControl, "signal" | "onProgress" | "probes"> & { readonly engine?: Engine } = {},
): Promise<Replay> {
  const where = "replayRun";
  checkKnown(where, checkObject(where, "{ engine?, signal?, ... }", control), [
    "engine",
    "signal",
    "onProgress",
    "probes",
  ]);
  const { signal, onProgress } = control;
  const header = await readHeader(dir);
  if (header.status === "unfinished")
    fail("unsupported", where, "a finished record", "an unfinished one", "Finish it with resumeRun.");
  const probes = matchProbes(where, header, control.probes, false);
  const recorded = await readOutcome(dir, header, false);
  const spec = await readDescription(dir, header);
  return withEngine(where, header, control.engine, async (engine) => {
    const { problem, options } = engine.open(spec);
    try {
      const run = await outcomeOf(
        problem.simulate({
          ...options,
          ...(signal === undefined ? {} : { signal }),
          ...(onProgress === undefined ? {} : { onProgress }),
          ...(probes === undefined ? {} : { probes }),
        }),
      );
      const differences = compare(header, recorded, run, probes !== undefined);
      const skipped = header.probes !== null && probes === undefined ? ["probes"] : [];
      return { same: differences.length === 0, differences, skipped, run };
    } finally {
      problem.dispose();
    }
  });
}

/** The run, also where it diverged and throws. */
async function outcomeOf(run: Promise<Run>): Promise<Run> {
  try {
    return await run;
  } catch (error) {
    if (error instanceof NoetherflowError && error.code === "nonfinite" && error.recorded !== undefined)
      return error.recorded as Run;
    throw error;
  }
}

function compare(header: Header, recorded: Run, replayed: Run, withProbes: boolean): Difference[] {
  const out: Difference[] = [];
  const one = (what: string, a: string | number | null, b: string | number | null) => {
    if (a === b) return;
    out.push({ what, count: 1, recorded: a, replayed: b, text: `${what}: recorded ${a}, replayed ${b}` });
  };
  one("steps", recorded.steps, replayed.steps);
  one("status", recorded.status, replayed.status);
  one("diverged", JSON.stringify(recorded.diverged), JSON.stringify(replayed.diverged));
  one("hash", header.hash, replayed.hash);
  const R = replayed.replicas;
  const k = (record: number) => replayed.series.k[record] ?? recorded.series.k[record];
  const all = (
    what: string,
    a: ArrayLike<number> | undefined,
    b: ArrayLike<number> | undefined,
    place: (i: number) => Place,
  ) => out.push(...numbers(what, a, b, place));
  all("theta", recorded.theta, replayed.theta, (i) => ({
    replica: Math.floor(i / replayed.P),
    entry: i % replayed.P,
  }));
  all("k", recorded.series.k, replayed.series.k, (i) => at({ k: k(i) }));
  all("t", recorded.series.t, replayed.series.t, (i) => at({ k: k(Math.floor(i / R)), replica: i % R }));
  const [before, after] = [seriesOf(recorded), seriesOf(replayed)].map(
    (series) => new Map(series.map((s) => [titleOf(s), s])),
  ) as [Map<string, Series>, Map<string, Series>];
  for (const title of new Set([...before.keys(), ...after.keys()])) {
    const { entries } = after.get(title) ?? before.get(title)!;
    all(title, before.get(title)?.data, after.get(title)?.data, (i) =>
      at({
        k: k(Math.floor(i / (R * entries))),
        replica: Math.floor(i / entries) % R,
        ...(entries === 1 ? {} : { entry: i % entries }),
      }),
    );
  }
  const averages = [flat("average", recorded.averages), flat("average", replayed.averages)] as const;
  const probes = withProbes
    ? ([flat("probe", recorded.probes), flat("probe", replayed.probes)] as const)
    : ([new Map(), new Map()] as const);
  for (const [a, b] of [averages, probes])
    for (const name of new Set([...a.keys(), ...b.keys()]))
      all(name, a.get(name), b.get(name), (i) => ({ entry: i }));
  return out;
}

type Series = ReturnType<typeof seriesOf>[number];
type Place = Pick<Difference, "k" | "replica" | "entry">;

/** A place, what is not known of it left out. */
function at({ k, ...rest }: Omit<Place, "k"> & { k: number | undefined }): Place {
  return k === undefined ? rest : { k, ...rest };
}

/** Numbers that differ in a bit; NaN is NaN, and -0 is not 0. */
function numbers(
  what: string,
  a: ArrayLike<number> | undefined,
  b: ArrayLike<number> | undefined,
  place: (i: number) => Place,
): Difference[] {
  if (a === undefined || b === undefined || a.length !== b.length) {
    const many = (x: ArrayLike<number> | undefined) => (x === undefined ? "nothing" : `${x.length} numbers`);
    if (a === b) return [];
    const [recorded, replayed] = [many(a), many(b)];
    return [
      { what, count: 1, recorded, replayed, text: `${what}: recorded ${recorded}, replayed ${replayed}` },
    ];
  }
  let [count, first] = [0, 0];
  for (let i = 0; i < a.length; i++) if (!Object.is(a[i], b[i]) && count++ === 0) first = i;
  if (count === 0) return [];
  const where = place(first);
  const words = Object.entries(where).map(([name, value]) => `${name} ${value}`);
  return [
    {
      what,
      count,
      ...where,
      recorded: a[first],
      replayed: b[first],
      text: `${what}: ${count} of ${a.length} numbers differ, first at ${words.join(", ")}: recorded ${text(a[first]!)}, replayed ${text(b[first]!)}`,
    },
  ];
}

function text(x: number): string {
  return Object.is(x, -0) ? "-0" : String(x);
}

/** All arrays and numbers of an object of objects, by path. */
function flat(name: string, value: unknown): Map<string, ArrayLike<number>> {
  if (typeof value === "number") return new Map([[name, [value]]]);
  if (ArrayBuffer.isView(value)) return new Map([[name, value as Float64Array]]);
  return new Map(Object.entries(value ?? {}).flatMap(([key, inner]) => [...flat(`${name}.${key}`, inner)]));
}

import type { Setting } from "./options.ts";
import { Run, type RunAverages, type RunSeries, type RunSettings, type SeriesData } from "./result.ts";

/** Replicas of a run that go side by side, and the setting of a run of them alone. */
export interface SubRun {
  readonly setting: Setting;
  /** Positions of its replicas in the whole run. */
  readonly replicas: readonly number[];
  readonly dataSeed: string | undefined;
}

/**
 * Lanes share batch size, seed and data; a run whose replicas differ in these is done in parts, one after the other.
 * Everything else may differ from lane to lane, so each part keeps its replicas' own rates, thetas and streams.
 */
export function splitRun(setting: Setting): SubRun[] {
  const { differs, replicas: R } = setting;
  const everyone = Array.from({ length: R }, (_, r) => r);
  if (differs === null) return [{ setting, replicas: everyone, dataSeed: undefined }];
  const groups = new Map<string, number[]>();
  for (const r of everyone) {
    const key = JSON.stringify([differs.batches[r], differs.seeds[r], differs.dataSeeds?.[r]]);
    groups.set(key, [...(groups.get(key) ?? []), r]);
  }
  const P = setting.theta.length / R;
  return [...groups.values()].map((replicas) => {
    const pick = (values: Float64Array) => Float64Array.from(replicas, (r) => values[r]!);
    const theta = new Float64Array(replicas.length * P);
    for (const [j, r] of replicas.entries()) theta.set(setting.theta.subarray(r * P, (r + 1) * P), j * P);
    const [first] = replicas as [number];
    return {
      replicas,
      dataSeed: differs.dataSeeds?.[first],
      setting: {
        ...setting,
        ...differs.batches[first]!,
        differs: null,
        seed: differs.seeds[first]!,
        replicas: replicas.length,
        streams: Uint32Array.from(replicas, (r) => setting.streams?.[r] ?? setting.firstReplica + r),
        eta: pick(setting.eta),
        gammas: setting.gammas.map(pick),
        momentum: setting.momentum && pick(setting.momentum),
        dt: setting.dt && pick(setting.dt),
        sigma2: setting.sigma2 && pick(setting.sigma2),
        theta,
      },
    };
  });
}

/**
 * One run from those of its parts, replicas in their places. A part whose replicas all diverged ends before the others; what they would
 * have recorded later is NaN.
 */
export function mergeRuns(
  parts: readonly { readonly replicas: readonly number[] }[],
  runs: readonly Run[],
  settings: RunSettings,
): Run {
  if (runs.length === 1) return runs[0]!;
  const [first] = runs as [Run, ...Run[]];
  const longest = runs.reduce((a, b) => (b.steps > a.steps ? b : a));
  const R = parts.reduce((n, p) => n + p.replicas.length, 0);
  /** [outer][replica][entry] of all parts. */
  const merged = (of: (run: Run) => ArrayLike<number>, outer: number): Float64Array => {
    const entries = of(longest).length / (outer * longest.replicas);
    const out = new Float64Array(outer * R * entries);
    for (const [p, run] of runs.entries()) {
      const data = of(run);
      for (let i = 0; i < outer; i++) {
        for (const [j, r] of parts[p]!.replicas.entries()) {
          for (let e = 0; e < entries; e++)
            out[(i * R + r) * entries + e] = data[(i * run.replicas + j) * entries + e] ?? Number.NaN;
        }
      }
    }
    return out;
  };
  const records = longest.series.k.length;
  const all = (
    of: (run: Run) => Readonly<Record<string, SeriesData>>,
    outer: number,
  ): Record<string, Float64Array> =>
    outer === 0
      ? Object.fromEntries(Object.keys(of(first)).map((name) => [name, new Float64Array(0)]))
      : Object.fromEntries(
          Object.keys(of(first)).map((name) => [name, merged((run) => of(run)[name]!, outer)]),
        );
  const { loss } = first.series;
  const series: RunSeries = {
    k: longest.series.k,
    t: records === 0 ? new Float64Array(0) : merged((run) => run.series.t, records),
    ...(loss === undefined ? {} : { loss: merged((run) => run.series.loss!, records) }),
    blockNorms: all((run) => run.series.blockNorms, records),
    charges: all((run) => run.series.charges, records),
    modifiedCharges: all((run) => run.series.modifiedCharges, records),
    matrixCharges: all((run) => run.series.matrixCharges, records),
    work: all((run) => run.series.work, records),
    values: all((run) => run.series.values, records),
  };
  const averages: RunAverages | null = first.averages && {
    count: Math.max(...runs.map((run) => run.averages!.count)),
    blockNorms: all((run) => run.averages!.blockNorms, 1),
    charges: all((run) => run.averages!.charges, 1),
    matrixCharges: all((run) => run.averages!.matrixCharges, 1),
    values: all((run) => run.averages!.values, 1),
  };
  const theta = first.theta.slice(0, 0).constructor as new (n: number) => typeof first.theta;
  const ends = new theta(R * first.P);
  ends.set(merged((run) => run.theta, 1));
  const offset = first.settings.firstReplica;
  return new Run({
    theta: ends,
    replicas: R,
    P: first.P,
    steps: Math.max(...runs.map((run) => run.steps)),
    status: runs.some((run) => run.status === "diverged") ? "diverged" : "done",
    diverged: runs
      .flatMap((run, p) =>
        run.diverged.map((d) => ({ ...d, replica: offset + parts[p]!.replicas[d.replica - offset]! })),
      )
      .sort((a, b) => a.step - b.step || a.replica - b.replica),
    series,
    averages,
    probes: longest.probes && {
      k: longest.probes.k,
      values: all((run) => run.probes!.values, longest.probes.k.length),
    },
    settings,
  });
}

import type { RealArray } from "../core/arena.ts";
import { hashArrays, hashText } from "../core/hash.ts";
import type { ProfileLine } from "./profile.ts";

/** Values of one quantity, flat. */
export type SeriesData = Float64Array;

/** A replica that stopped being finite. */
export interface Divergence {
  /** Position among the run's replicas. */
  readonly replica: number;
  /** Step after which its theta was not finite. */
  readonly step: number;
  /** Last finite minibatch loss before that, or NaN when there was none. */
  readonly lastLoss: number;
}

/** What is recorded; [replica][entry] of one record, or [record][replica][entry] of all of them. */
interface Recorded {
  /** Time, the sum of dt over the updates so far (k eta at a constant eta), one per replica. */
  readonly t: Float64Array;
  /** Mean loss over the data or the minibatch, as `record.loss` says. */
  readonly loss?: SeriesData;
  /** Frobenius norms by block. */
  readonly blockNorms: Readonly<Record<string, SeriesData>>;
  /** C by the names in `record.charges`. */
  readonly charges: Readonly<Record<string, SeriesData>>;
  /** Of runs with momentum and work: C - eta beta / (1 - beta) v . A theta, which changes by the work alone. */
  readonly modifiedCharges: Readonly<Record<string, SeriesData>>;
  /** Q = U^T U - W W^T, row-major entries. */
  readonly matrixCharges: Readonly<Record<string, SeriesData>>;
  /** sum_k eta^2/2 g^T A g up to the record, by charge. */
  readonly work: Readonly<Record<string, SeriesData>>;
  /** Expressions of parameters, by the names in `record.values`. */
  readonly values: Readonly<Record<string, SeriesData>>;
}

/** Every quantity of a run as [record][replica][entry]. */
export interface RunSeries extends Recorded {
  /** Step of each record. */
  readonly k: Float64Array;
}

/** One record of a run under way: every quantity as [replica][entry]. */
export interface RunRecord extends Recorded {
  /** Step. */
  readonly k: number;
}

/** Averages over time of what was recorded, [replica][entry]; see RecordOptions.average. */
export interface RunAverages {
  /** Steps averaged over. */
  readonly count: number;
  /** Mean Frobenius norms by block. */
  readonly blockNorms: Readonly<Record<string, Float64Array>>;
  /** Mean charges by name. */
  readonly charges: Readonly<Record<string, Float64Array>>;
  /** Mean of Q by name, h x h row-major. */
  readonly matrixCharges: Readonly<Record<string, Float64Array>>;
  /** Mean of the expressions by name. */
  readonly values: Readonly<Record<string, Float64Array>>;
}

/** What probes of the host found, [record][replica][entry], at steps k. */
export interface RunProbes {
  /** Step of each probe. */
  readonly k: Float64Array;
  /** By the names of the measures. */
  readonly values: Readonly<Record<string, Float64Array>>;
}

/** What a run was, for its record. */
export interface RunSettings {
  /** "gd", "sgd", ... */
  readonly scheme: string;
  /** How batches were drawn; null where there are none. */
  readonly sampling: string | null;
  /** S of the batches, or of sigma^2 = eta / (2 S); null where there is none. */
  readonly batchSize: number | null | readonly (number | null)[];
  /** One per replica. */
  readonly eta: readonly number[];
  /** gamma, as it was given. */
  readonly weightDecay: unknown;
  /** As text; a list where replicas differ in it. */
  readonly seed: string | readonly string[];
  /** Number of the first replica. */
  readonly firstReplica: number;
  /** Steps asked for; `run.steps` says how many were done. */
  readonly requestedSteps: number;
  /** Steps between records; 0 without any. */
  readonly every: number;
  /** "f64" or "f32". */
  readonly dtype: string;
  /** Build of the Wasm core. */
  readonly variant: string;
  /** sha256 of the Wasm core, hex; null when a compiled module was passed in. */
  readonly wasmSha256: string | null;
  /** Version of the random stream: other versions draw other numbers. */
  readonly streamVersion: number;
  /** What else was asked for: schedule, momentum, dt, ... */
  readonly [option: string]: unknown;
}

/** The outcome of simulate. All arrays are the caller's own. */
export class Run {
  /** replicas x P, row-major: where each replica ended (for a diverged one, its last finite theta). */
  readonly theta: RealArray;
  /** Runs side by side. */
  readonly replicas: number;
  /** Values of one theta. */
  readonly P: number;
  /** Steps done. */
  readonly steps: number;
  /**
   * "done"; "diverged" when some theta stopped being finite (a loss alone may be NaN: its series
   * shows it); "aborted" for what an abort leaves behind.
   */
  readonly status: "done" | "diverged" | "aborted";
  /** Replicas that stopped being finite; empty when status is "done". */
  readonly diverged: readonly Divergence[];
  /** What was recorded, [record][replica][entry]. */
  readonly series: RunSeries;
  /** Averages over time, when asked for with record.average. */
  readonly averages: RunAverages | null;
  /** What probes of the host found, [record][replica][entry], at steps k; not part of the hash. */
  readonly probes: RunProbes | null;
  /** What the run was. */
  readonly settings: RunSettings;
  /** Where the time of a step goes, when asked for with `profile: true`. */
  readonly profile?: readonly ProfileLine[];
  /** sha256 of the replicas' hashes, a line each. */
  readonly hash: string;
  /** Per replica: sha256 of the little-endian final theta, then its series. */
  readonly hashes: readonly string[];

  /** @internal */
  constructor(
    parts: Pick<
      Run,
      | "theta"
      | "replicas"
      | "P"
      | "steps"
      | "status"
      | "diverged"
      | "series"
      | "averages"
      | "probes"
      | "settings"
    > & {
      profile?: readonly ProfileLine[];
    },
  ) {
    this.theta = parts.theta;
    this.replicas = parts.replicas;
    this.P = parts.P;
    this.steps = parts.steps;
    this.status = parts.status;
    this.diverged = parts.diverged;
    this.series = parts.series;
    this.averages = parts.averages;
    this.probes = parts.probes;
    this.settings = parts.settings;
    if (parts.profile !== undefined) this.profile = parts.profile;
    this.hashes = Array.from({ length: this.replicas }, (_, r) =>
      hashArrays([this.theta.slice(r * this.P, (r + 1) * this.P), ...this.#seriesOf(r)]),
    );
    this.hash = hashText(this.hashes.join("\n"));
  }

  #columns(): [string, SeriesData][] {
    const { loss, blockNorms, charges, modifiedCharges, matrixCharges, work, values } = this.series;
    const of = (kind: string, record: Readonly<Record<string, SeriesData>>): [string, SeriesData][] =>
      Object.entries(record).map(([name, data]) => [`${kind}.${name}`, data]);
    return [
      ...(loss === undefined ? [] : [["loss", loss] as [string, SeriesData]]),
      ...of("norm", blockNorms),
      ...of("charge", charges),
      ...of("modifiedCharge", modifiedCharges),
      ...of("matrixCharge", matrixCharges),
      ...of("work", work),
      ...of("value", values),
    ];
  }

  /** All recorded values of one replica, in the order they are declared. */
  #seriesOf(replica: number): Float64Array[] {
    const records = this.series.k.length;
    return this.#columns().map(([, data]) => {
      const entries = data.length / (records * this.replicas);
      const out = new Float64Array(records * entries);
      for (let i = 0; i < records; i++) {
        for (let e = 0; e < entries; e++)
          out[i * entries + e] = data[(i * this.replicas + replica) * entries + e]!;
      }
      return out;
    });
  }

  /**
   * Plain data: settings, status, hashes, final theta and all series, numbers in full.
   *
   * @example JSON.parse(JSON.stringify(await problem.simulate(options))).series.k; // [0, 50, 100]
   */
  toJSON(): Record<string, unknown> {
    const plain = (data: ArrayLike<number>): (number | null)[] =>
      Array.from(data, (x) => (Number.isFinite(x) ? x : null));
    const all = (record: Readonly<Record<string, SeriesData>>) =>
      Object.fromEntries(Object.entries(record).map(([n, d]) => [n, plain(d)]));
    const { k, t, loss, blockNorms, charges, modifiedCharges, matrixCharges, work, values } = this.series;
    const averages = this.averages;
    return {
      schema: "noetherflow-run/1",
      settings: this.settings,
      status: this.status,
      steps: this.steps,
      replicas: this.replicas,
      P: this.P,
      diverged: this.diverged,
      hash: this.hash,
      hashes: this.hashes,
      theta: plain(this.theta),
      series: {
        k: plain(k),
        t: plain(t),
        ...(loss === undefined ? {} : { loss: plain(loss) }),
        blockNorms: all(blockNorms),
        charges: all(charges),
        ...(Object.keys(modifiedCharges).length === 0 ? {} : { modifiedCharges: all(modifiedCharges) }),
        matrixCharges: all(matrixCharges),
        work: all(work),
        values: all(values),
      },
      ...(this.probes === null
        ? {}
        : { probes: { k: plain(this.probes.k), values: all(this.probes.values) } }),
      ...(averages === null
        ? {}
        : {
            averages: {
              count: averages.count,
              blockNorms: all(averages.blockNorms),
              charges: all(averages.charges),
              matrixCharges: all(averages.matrixCharges),
              values: all(averages.values),
            },
          }),
    };
  }

  /**
   * One line per record and replica: k, t, replica, then every series (entries numbered from 0).
   *
   * @example (await problem.simulate(options)).toCSV().split("\n")[0]; // "k,t,replica,charge.C"
   */
  toCSV(): string {
    const records = this.series.k.length;
    const columns = this.#columns().map(([name, data]) => ({
      name,
      data,
      entries: data.length / Math.max(1, records * this.replicas),
    }));
    const quote = (name: string) => (/[",\n]/.test(name) ? `"${name.replaceAll('"', '""')}"` : name);
    const head = columns.flatMap(({ name, entries }) =>
      entries === 1 ? [name] : Array.from({ length: entries }, (_, e) => `${name}[${e}]`),
    );
    const lines = [["k", "t", "replica", ...head.map(quote)].join(",")];
    for (let i = 0; i < records; i++) {
      for (let r = 0; r < this.replicas; r++) {
        const row: (number | undefined)[] = [
          this.series.k[i],
          this.series.t[i * this.replicas + r],
          this.settings.firstReplica + r,
        ];
        for (const { data, entries } of columns) {
          for (let e = 0; e < entries; e++) row.push(data[(i * this.replicas + r) * entries + e]);
        }
        lines.push(row.join(","));
      }
    }
    return `${lines.join("\n")}\n`;
  }
}

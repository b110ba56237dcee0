import { fail, internal } from "../errors.ts";
import type { RunMemory } from "./memory.ts";
import type { Setting } from "./options.ts";
import { updatesPerEta } from "./plan.ts";
import type { RunAverages, RunProbes, RunRecord, RunSeries, SeriesData } from "./result.ts";

/** What a run has recorded so far: series from the trace, and what probes of the host found. */
export class Recorder {
  readonly #memory: RunMemory;
  readonly #setting: Setting;
  readonly #probeEvery: number;
  /** Series, [record][replica][entry] each, growing by chunk. */
  readonly #data: Float64Array[];
  readonly #k: Float64Array;
  #records = 0;
  /** Numbers of all replicas, step after step. */
  readonly #probes = new Map<string, number[]>();
  #probed = 0;

  constructor(memory: RunMemory, setting: Setting, records: number, probeEvery: number) {
    this.#memory = memory;
    this.#setting = setting;
    this.#probeEvery = probeEvery;
    this.#k = new Float64Array(records);
    this.#data = memory.plan.series.map((s) => new Float64Array(records * setting.replicas * s.entries));
  }

  /** Records so far, and steps at which the host has measured something. */
  get records(): number {
    return this.#records;
  }
  get probed(): number {
    return this.#probed;
  }

  /** Keeps what the host has measured at this step. */
  recordProbe(values: Readonly<Record<string, readonly number[]>>): void {
    for (const [name, numbers] of Object.entries(values)) {
      const known = this.#probes.get(name) ?? [];
      if (this.#probed > 0 && known.length !== this.#probed * numbers.length)
        fail(
          "shape",
          `probes.measures.${name}`,
          `${known.length / this.#probed} numbers, as before`,
          `${numbers.length}`,
        );
      known.push(...numbers);
      this.#probes.set(name, known);
    }
    this.#probed++;
  }

  /** One record as it is yielded by a stream. */
  recordAt(i: number): RunRecord {
    const { replicas } = this.#setting;
    const out: Record<string, unknown> = { k: this.#k[i]! };
    const kinds = ["blockNorms", "charges", "modifiedCharges", "matrixCharges", "work", "values"];
    for (const kind of kinds) out[kind] = {};
    for (const [s, { kind, name, entries }] of this.#memory.plan.series.entries()) {
      const part = this.#data[s]!.slice(i * replicas * entries, (i + 1) * replicas * entries);
      if (kind === "loss" || kind === "t") out[kind] = part;
      else (out[kind] as Record<string, Float64Array>)[name] = part;
    }
    out["t"] ??= this.#times().map((dt) => this.#k[i]! * dt);
    return out as unknown as RunRecord;
  }

  /** Time of a step of each replica, where it does not change. */
  #times(): Float64Array {
    const setting = this.#setting;
    return setting.eta.map((eta, r) => (setting.dt?.[r] ?? eta / updatesPerEta(setting)) * setting.substeps);
  }

  /** Moves records from the trace into the series; what a lost replica would show is NaN. */
  drain(records: number, isLost: (replica: number) => boolean): void {
    if (this.#setting.every === 0 || records === 0) return;
    const { plan } = this.#memory;
    const setting = this.#setting;
    const { groupLanes } = plan.choice;
    const { replicas, every } = setting;
    const perGroup = (plan.recordBytes / 8) * plan.traceRecords;
    const view = this.#memory.trace;
    for (let i = 0; i < records; i++) {
      const at = this.#records + i;
      if (at >= this.#k.length) internal("run", "more records than planned");
      this.#k[at] = at * every;
      let slot = 0;
      for (const [s, { entries }] of plan.series.entries()) {
        const data = this.#data[s]!;
        for (let r = 0; r < replicas; r++) {
          const gone = isLost(r);
          const from =
            Math.floor(r / groupLanes) * perGroup + i * (plan.recordBytes / 8) + slot + (r % groupLanes);
          for (let e = 0; e < entries; e++) {
            data[(at * replicas + r) * entries + e] = gone ? Number.NaN : view[from + e * groupLanes]!;
          }
        }
        slot += entries * groupLanes;
      }
    }
    this.#records += records;
  }

  series(): RunSeries {
    const { replicas } = this.#setting;
    const n = this.#records;
    const k = this.#k.slice(0, n);
    const perStep = this.#times();
    let t = new Float64Array(n * replicas);
    for (let i = 0; i < n; i++) for (let r = 0; r < replicas; r++) t[i * replicas + r] = k[i]! * perStep[r]!;
    const groups: Record<
      "blockNorms" | "charges" | "modifiedCharges" | "matrixCharges" | "work" | "values",
      Record<string, SeriesData>
    > = { blockNorms: {}, charges: {}, modifiedCharges: {}, matrixCharges: {}, work: {}, values: {} };
    let loss: SeriesData | undefined;
    for (const [i, s] of this.#memory.plan.series.entries()) {
      const data = this.#data[i]!.slice(0, n * replicas * s.entries);
      if (s.kind === "loss") loss = data;
      else if (s.kind === "t") t = data;
      else groups[s.kind][s.name] = data;
    }
    return { k, t, ...(loss === undefined ? {} : { loss }), ...groups };
  }

  /** Running sums over the number of steps they hold; NaN for lost replicas. */
  averages(step: number, isLost: (replica: number) => boolean): RunAverages | null {
    const { plan } = this.#memory;
    const { replicas } = this.#setting;
    if (plan.average === null) return null;
    const { from, every } = plan.average;
    const count = Math.max(0, Math.floor(step / every) - Math.ceil(Math.max(from, 1) / every) + 1);
    const out = { blockNorms: {}, charges: {}, matrixCharges: {}, values: {} } as Record<
      string,
      Record<string, Float64Array>
    >;
    for (const { series, address } of plan.averages) {
      const mean = new Float64Array(replicas * series.entries);
      for (let r = 0; r < replicas; r++) {
        const sums = this.#memory.sums(address, series.entries, r);
        mean.set(
          sums.map((sum) => (isLost(r) ? Number.NaN : sum / count)),
          r * series.entries,
        );
      }
      out[series.kind]![series.name] = mean;
    }
    return { count, ...(out as Omit<{ -readonly [K in keyof RunAverages]: RunAverages[K] }, "count">) };
  }

  /** What probes found; null where there were none. */
  probes(): RunProbes | null {
    if (this.#probed === 0) return null;
    const every = this.#probeEvery;
    const values = Object.fromEntries([...this.#probes].map(([n, data]) => [n, Float64Array.from(data)]));
    for (const name of this.#probes.keys()) {
      if (!name.startsWith("flow.")) continue;
      const charge = values[`charge.${name.slice(5)}`];
      if (charge !== undefined) values[`predicted.${name.slice(5)}`] = this.#summed(charge, values[name]!);
    }
    return { k: Float64Array.from({ length: this.#probed }, (_, i) => i * every), values };
  }

  /** C(0) plus the sum of the flow by trapezoids. */
  #summed(charge: Float64Array<ArrayBuffer>, flow: Float64Array): Float64Array<ArrayBuffer> {
    const { replicas } = this.#setting;
    const out = charge.slice();
    for (let i = replicas; i < out.length; i++)
      out[i] = out[i - replicas]! + 0.5 * this.#probeEvery * (flow[i]! + flow[i - replicas]!);
    return out;
  }

  /** Probes by name, with their numbers per step. */
  get probeSizes(): readonly (readonly [name: string, perStep: number])[] {
    return [...this.#probes].map(([name, data]) => [name, data.length / Math.max(1, this.#probed)] as const);
  }

  /** All of it as arrays: the series, then the probes. */
  save(): { series: Float64Array[]; probes: Float64Array[] } {
    const { replicas } = this.#setting;
    const series = this.#memory.plan.series.map(({ entries }, i) =>
      this.#data[i]!.subarray(0, this.#records * replicas * entries),
    );
    return { series, probes: [...this.#probes.values()].map((data) => Float64Array.from(data)) };
  }

  load(
    records: number,
    probed: number,
    series: readonly Float64Array[],
    probes: readonly (readonly [name: string, data: Float64Array])[],
  ): void {
    this.#records = records;
    this.#probed = probed;
    for (let i = 0; i < records; i++) this.#k[i] = i * this.#setting.every;
    for (const [i, data] of this.#data.entries()) data.set(series[i]!);
    for (const [name, data] of probes) this.#probes.set(name, [...data]);
  }
}

import { readOptions, type Setting, type SimulateOptions } from "./dynamics/options.ts";
import { planRun } from "./dynamics/plan.ts";
import { etaAt, strengthAt } from "./dynamics/rates.ts";
import type { Run, RunRecord, RunSettings } from "./dynamics/result.ts";
import {
  type Part,
  type ProbeOptions,
  type RunControl,
  readControl,
  simulate,
  stream,
} from "./dynamics/run.ts";
import { settingsOf } from "./dynamics/settings.ts";
import { splitRun } from "./dynamics/sweep.ts";
import { fail, NoetherflowError } from "./errors.ts";
import type { Node } from "./graph/node.ts";
import type { Samples } from "./models/samples.ts";
import { checkRange } from "./problem/base.ts";
import { ProblemReport } from "./problem/report.ts";
import { readRecord } from "./recording.ts";
import { describeRun, type RunSpec } from "./spec.ts";
import type { Generator } from "./symmetry/generator.ts";

/** A model with its data on one engine. Methods take a flat theta or one by named blocks. */
export class Problem extends ProblemReport {
  /**
   * Runs gradient descent or SGD inside Wasm, JavaScript being called once per chunk of about 10 ms.
   *
   *   theta' = (1 - 2 eta gamma) theta - eta sum_i w_i g_i
   *
   * @returns final thetas, recorded series, status and hashes; the same seed gives the same bits on
   *          every host, for any chunking and any number of replicas beside it
   * @throws  NoetherflowError before any work for bad options; the signal's reason after an abort
   * @example
   * const run = await problem.simulate(options);
   * run.series.k; // [0, 50, 100]
   * run.series.charges.C; // [-0.4985, -0.4945, -0.4998]
   */
  async simulate(options: SimulateOptions<Generator, Node>): Promise<Run> {
    const { sweep, measures, control, release } = this.#prepare("simulate", options);
    try {
      return await simulate(this.host, this.model, sweep, measures, control);
    } finally {
      release();
    }
  }

  /**
   * The same run, its records one by one as they are made:
   *
   * @example for await (const { k, charges } of problem.stream(options)) console.log(k, charges.C?.[0]);
   * @returns an iterator whose last value is the Run; it works only while somebody asks for the next record
   */
  async *stream(options: SimulateOptions<Generator, Node>): AsyncGenerator<RunRecord, Run> {
    const { sweep, measures, control, release } = this.#prepare("stream", options);
    try {
      if (sweep.parts.length > 1)
        fail(
          "unsupported",
          "stream",
          "one batchSize, seed and dataSeed",
          "several, whose replicas run in parts",
        );
      if (sweep.setting.every === 0)
        fail(
          "range",
          "stream",
          "records to yield",
          "no record",
          "Say what and how often: record: { every }.",
        );
      return yield* stream(this.host, this.model, sweep, measures, control);
    } finally {
      release();
    }
  }

  /**
   * The run that `simulate(options)` would do, as plain data and typed arrays: what another thread, a file or another host needs
   * to do it again to the same bits. `engine.open` reads it back.
   *
   * @example
   * const { problem: again, options: same } = engine.open(problem.describe(options));
   * (await again.simulate(same)).hash === (await problem.simulate(options)).hash; // true
   */
  describe(options: SimulateOptions<Generator, Node>): RunSpec {
    this.alive("describe");
    readOptions(this.model, this.N, this.host.core.real.bytes, options);
    readRecord(this.model, options);
    return describeRun(this.model, this.samples.origin, this.host.core, options);
  }

  /** @internal Everything that `simulate` refuses before any work. */
  check(options: SimulateOptions<Generator, Node>): void {
    const { sweep, measures, release } = this.#prepare("simulate", options);
    try {
      for (const { samples, setting } of sweep.parts) {
        const { bytes } = planRun(this.model, samples, setting, measures, this.host.core.real, 0);
        this.host.arena.check(setting.scheme.name, bytes);
      }
    } finally {
      release();
    }
  }

  /** @internal What the record of a run with these options will say that it was. */
  settings(options: SimulateOptions<Generator, Node>): RunSettings {
    this.alive("settings");
    const { core } = this.host;
    return settingsOf(readOptions(this.model, this.N, core.real.bytes, options), core);
  }

  /** Checks the options of a run and lays out its parts; data of their own are made for other data seeds. */
  #prepare(where: string, options: SimulateOptions<Generator, Node>) {
    this.alive(where);
    const setting = readOptions(this.model, this.N, this.host.core.real.bytes, options);
    checkRange(setting.scheme.name, setting.theta, this.host.core.dtype);
    const measures = readRecord(this.model, options);
    const control = this.#withFlow(setting, options, readControl(setting.scheme.name, options));
    const made = new Map<string, Samples>();
    const samplesOf = (dataSeed: string | undefined): Samples => {
      if (dataSeed === undefined) return this.samples;
      let samples = made.get(dataSeed);
      if (samples === undefined) {
        samples = this.samples.again(dataSeed);
        made.set(dataSeed, samples);
      }
      return samples;
    };
    const release = () => {
      for (const samples of made.values()) samples.dispose();
    };
    try {
      const parts = splitRun(setting).map((part): Part => ({ ...part, samples: samplesOf(part.dataSeed) }));
      return { sweep: { setting, parts }, measures, control, release };
    } catch (error) {
      release();
      throw error;
    }
  }

  /** Probes of the predicted flow beside those of the caller. */
  #withFlow(setting: Setting, options: SimulateOptions<Generator, Node>, control: RunControl): RunControl {
    const { probes } = control;
    if (!probes?.flow) return control;
    const where = `${setting.scheme.name}: probes.flow`;
    const charges = Object.entries(options.record?.charges ?? {});
    if (charges.length === 0) fail("range", where, "charges to predict", "none in record.charges");
    if (setting.scheme.charges === "none")
      fail("unsupported", where, "a scheme that the theory of charges applies to", setting.scheme.name);
    if (setting.gammas.some((g) => g !== setting.gammas[0] && g.some((x, r) => x !== setting.gammas[0]![r])))
      fail("unsupported", where, "one weight decay for all blocks", "decay by blocks");
    if (setting.differs?.dataSeeds != null)
      fail("unsupported", where, "the same data for all replicas", "dataSeed");
    if (setting.labelNoise !== null || setting.clip !== null)
      fail(
        "unsupported",
        where,
        "gradients as the data give them",
        setting.clip === null ? "labelNoise" : "clip",
        "Put the noise into a sampler with { samples: N }, or leave flow out.",
      );
    this.perSample(where);
    const batches = setting.differs?.batches;
    const gammas = setting.gammas[0] ?? new Float64Array(0);
    const measures: Record<string, NonNullable<ProbeOptions["measures"]>[string]> = { ...probes.measures };
    for (const [name, A] of charges) {
      measures[`charge.${name}`] = (theta) => orNaN(() => this.charge(theta, A));
      measures[`flow.${name}`] = (theta, { k, replica }) => {
        const own = batches === undefined ? setting : { ...setting, ...batches[replica]! };
        const { sigma2, gamma, discrete, time } = strengthAt(this.host.core, own, replica, k, this.N);
        return orNaN(() => {
          const flow = this.noetherFlow(theta, A, { sigma2, weightDecay: gamma });
          const drift = this.noetherFlow(theta, A, { eta: 2, batchSize: 1 }).discrete;
          // keep^2 = 1 - 4 eta gamma (1 - eta gamma)
          const decay = flow.decay * etaAt(this.host.core, own, replica, k) * (gammas[replica] ?? 0);
          return time * (flow.total - decay + discrete * drift);
        });
      };
    }
    return { ...control, probes: { ...probes, measures } };
  }
}

/** What a measure gives; NaN for a replica on its way out of the numbers, which the run reports. */
function orNaN(measure: () => number): number {
  try {
    return measure();
  } catch (error) {
    if (error instanceof NoetherflowError && error.code === "nonfinite") return Number.NaN;
    throw error;
  }
}

import type { RealArray } from "../core/arena.ts";
import { later, type Steps } from "../core/steps.ts";
import { readOptions, type SimulateOptions } from "../dynamics/options.ts";
import type { Run, RunRecord } from "../dynamics/result.ts";
import { type RunControl, readControl, type Sweep, simulate, stream } from "../dynamics/run.ts";
import { splitRun } from "../dynamics/sweep.ts";
import type { ThetaLike } from "../dynamics/theta.ts";
import { checkFlag, checkKnown, checkObject, fail } from "../errors.ts";
import type { Model } from "../graph/model.ts";
import type { Node } from "../graph/node.ts";
import { gradientSteps, hessianSteps, lossesSteps, lossSteps } from "../models/derivatives.ts";
import type { Host } from "../models/evaluate.ts";
import type { Measure } from "../models/measure.ts";
import type { Reader } from "../models/reader.ts";
import { generatorIn, readRecord } from "../recording.ts";
import type { Estimate } from "../stats/estimate.ts";
import {
  type Form,
  finiteNoise,
  type NoiseMethod,
  type NoiseMoments,
  noiseEstimate,
  noiseMoments,
  readMethod,
  readNoise,
  squaredNorm,
} from "../stats/noise.ts";
import { type Generator, quadraticForm } from "../symmetry/generator.ts";
import { checkRange, ProblemBase } from "./base.ts";

/** How a measurement of data that are read on the way is stopped. */
export interface ReadingOptions {
  /** An abort rejects with its reason at once, though the read under way may go on. */
  readonly signal?: AbortSignal;
}

/** Those of noise measurements. */
export interface ReadingNoiseOptions extends ReadingOptions {
  /** As of `problem.noiseTrace`. */
  readonly method?: NoiseMethod;
  /** false: the second moment E[g^T A g], without taking gbar^T A gbar away. */
  readonly centred?: boolean;
}

/**
 * A model with data that a function reads: what `engine.problem(model, { N, read })` makes. Its measurements go over all samples in
 * ascending order, a buffer of them at a time, and are promises; their bits are those of the same data in memory. Measurements of one
 * problem are done one after the other.
 */
export class StreamedProblem extends ProblemBase {
  /** The measurement before the next one. */
  #last: Promise<unknown> = Promise.resolve();

  /** @internal use engine.problem */
  constructor(host: Host, model: Model, reader: Reader, onDispose: () => void) {
    super(host, model, reader as never, {}, onDispose);
  }

  /**
   * Mean loss over all N samples; see `problem.loss`.
   *
   * @throws  what `read` throws; NoetherflowError "shape", "name" or "nonfinite" for what it must not return; the signal's reason
   * @cost    every sample read once, N forward passes
   * @example await streamed.loss(theta); // 8.560; the bits of problem.loss
   */
  async loss(theta: ThetaLike, options: ReadingOptions = {}): Promise<number> {
    const flat = this.checked("loss", theta);
    return this.#measured("loss", options, (measure) => lossSteps(measure, flat));
  }

  /**
   * Loss of every sample, N values.
   *
   * @cost    as loss; memory of N values
   * @example (await streamed.losses(theta)).length; // 32
   */
  async losses(theta: ThetaLike, options: ReadingOptions = {}): Promise<RealArray> {
    const flat = this.checked("losses", theta);
    return this.#measured("losses", options, (measure) => lossesSteps(measure, flat));
  }

  /**
   * Gradient of the mean loss, P values; see `problem.gradient`.
   *
   * @cost    every sample read once, N forward and backward passes
   * @example (await streamed.gradient(theta)).length; // 20
   */
  async gradient(theta: ThetaLike, options: ReadingOptions = {}): Promise<RealArray> {
    const flat = this.checked("gradient", theta);
    return this.real(await this.#measured("gradient", options, (measure) => gradientSteps(measure, flat)));
  }

  /**
   * Hessian-vector product H v of the mean loss; see `problem.hessianVector`.
   *
   * @param options.count how many vectors v holds, flat [count][P]; eight at a time share one reading of the data
   * @example (await streamed.hessianVector(theta, theta)).length; // 20; H theta
   */
  async hessianVector(
    theta: ThetaLike,
    v: ThetaLike,
    options: ReadingOptions & { count?: number } = {},
  ): Promise<RealArray> {
    const where = "hessianVector";
    const flat = this.checked(where, theta);
    const given = checkObject(where, "options { count?, signal? }", options) as typeof options;
    checkKnown(where, given, ["count", "signal"]);
    const { signal, ...rest } = given;
    const { vectors, count } = this.vectorsOf(where, v, rest);
    const steps = (measure: Measure) => hessianSteps(measure, flat, vectors, count);
    return this.real(await this.#measured(where, signal === undefined ? {} : { signal }, steps));
  }

  /**
   * Tr Sigma over all samples; see `problem.noiseTrace`.
   *
   * @cost    one reading of the data; two, and N values of memory, where Sigma is so small beside E|g|^2 that it is formed from
   *          g - gbar, or with method: "streamed"
   * @example (await streamed.noiseTrace(theta)).value; // 245.3
   */
  noiseTrace(theta: ThetaLike, options: ReadingNoiseOptions = {}): Promise<Estimate> {
    return this.#noise("noiseTrace", theta, "trace", squaredNorm, options);
  }

  /**
   * Tr[Sigma A] over all samples for a symmetric generator A; see `problem.noisePower`. Costs as noiseTrace.
   *
   * @example (await streamed.noisePower(theta, A)).value; // 3.539
   */
  async noisePower(theta: ThetaLike, A: Generator, options: ReadingNoiseOptions = {}): Promise<Estimate> {
    const where = "noisePower";
    const generator = generatorIn(where, A);
    const form: Form = (of, products) => quadraticForm(where, this.model, generator, of, products);
    const key = `power of ${JSON.stringify({ ...generator.toJSON(), name: "", center: [] })}`;
    return this.#noise(where, theta, key, () => form, options);
  }

  /**
   * Matrix moments of the gradient noise of a product U W; see `problem.noiseMoments`.
   *
   * @example (await streamed.noiseMoments(theta, "U", "W")).Q.length; // 16; h = 4
   */
  async noiseMoments(
    theta: ThetaLike,
    U: string,
    W: string,
    options: ReadingOptions & { transposeW?: boolean; method?: NoiseMethod } = {},
  ): Promise<NoiseMoments> {
    const where = "noiseMoments";
    const flat = this.checked(where, theta);
    const { signal, transposeW, method, ...rest } = checkObject(where, "options", options) as typeof options;
    checkKnown(where, options, ["signal", "transposeW", "method"]);
    const turned = checkFlag(where, "transposeW", transposeW);
    const by = readMethod(where, method);
    return this.#measured(where, signal === undefined ? rest : { ...rest, signal }, (measure) =>
      noiseMoments(measure, flat, U, W, turned, by),
    );
  }

  /**
   * Runs a scheme; see `problem.simulate`. The bits are those of the same data in memory. Schemes that go over all samples read them
   * in every update, minibatches read what they draw, some updates ahead and in ascending order.
   *
   * @throws  as `problem.simulate`, what `read` throws, and NoetherflowError "unsupported" for `profile`, `probes.flow` and `dataSeed`
   * @example (await streamed.simulate(options)).hash === (await problem.simulate(options)).hash; // true
   */
  async simulate(options: SimulateOptions<Generator, Node>): Promise<Run> {
    const { sweep, measures, control } = this.#prepare("simulate", options);
    return simulate(this.host, this.model, sweep, measures, control);
  }

  /**
   * The same run, its records one by one; see `problem.stream`.
   *
   * @example for await (const { k, charges } of streamed.stream(options)) console.log(k, charges.C?.[0]);
   */
  async *stream(options: SimulateOptions<Generator, Node>): AsyncGenerator<RunRecord, Run> {
    const { sweep, measures, control } = this.#prepare("stream", options);
    if (sweep.parts.length > 1)
      fail("unsupported", "stream", "one batchSize and seed", "several, whose replicas run in parts");
    if (sweep.setting.every === 0)
      fail("range", "stream", "records to yield", "no record", "Say what and how often: record: { every }.");
    return yield* stream(this.host, this.model, sweep, measures, control);
  }

  /** @internal Refuses: what a function reads cannot be written down, for a record, a worker or another host. */
  describe(): void {
    this.alive("describe");
    this.samples.records();
  }

  /** @internal What a record asks before it begins. */
  check(): void {
    this.describe();
  }

  /** Checks the options of a run and lays out its parts. */
  #prepare(where: string, options: SimulateOptions<Generator, Node>) {
    this.alive(where);
    const setting = readOptions(this.model, this.N, this.host.core.real.bytes, options);
    const scheme = setting.scheme.name;
    checkRange(scheme, setting.theta, this.host.core.dtype);
    const control: RunControl = readControl(scheme, options);
    const refuse = (name: string, hint: string) =>
      fail("unsupported", `${scheme}: ${name}`, "data in memory", "data that a function reads", hint);
    if (control.probes?.flow) refuse("probes.flow", "Record the charges and their work instead.");
    if (setting.profile) refuse("profile", "Profile a run over a part of the data, given as arrays.");
    if (setting.differs?.dataSeeds != null) refuse("dataSeed", "It goes with a set that a sampler makes.");
    const parts = splitRun(setting).map((part) => ({ ...part, samples: this.samples }));
    const sweep: Sweep = { setting, parts };
    return { sweep, measures: readRecord(this.model, options), control };
  }

  async #noise(
    where: string,
    theta: ThetaLike,
    key: string,
    form: (measure: Measure) => Form,
    options: ReadingNoiseOptions,
  ): Promise<Estimate> {
    const flat = this.checked(where, theta);
    const given = checkObject(where, "options { method?, centred?, signal? }", options);
    checkKnown(where, given, ["method", "centred", "signal"]);
    const how = readNoise(where, options, true);
    const { signal } = options;
    const found = await this.#measured(where, signal === undefined ? {} : { signal }, (measure) =>
      noiseEstimate(measure, key, flat, form(measure), false, how),
    );
    finiteNoise(where, found.value);
    return found;
  }

  /** A measurement, after those that were asked for before: they share the buffer. */
  async #measured<T>(
    where: string,
    options: ReadingOptions,
    steps: (measure: Measure) => Steps<T>,
  ): Promise<T> {
    checkKnown(where, checkObject(where, "options { signal? }", options), ["signal"]);
    this.control(where, options, []);
    const measure = this.all(where);
    if (measure.samples.coupled)
      fail(
        "unsupported",
        where,
        "a loss with batch ops needs all samples in memory at once",
        "data that a function reads",
        "Give the data as arrays.",
      );
    const { signal } = options;
    const letGo = measure.hold();
    const mine = this.#last.then(() => {
      signal?.throwIfAborted();
      return later(steps(measure), signal);
    });
    this.#last = mine.catch(() => {});
    try {
      return await mine;
    } finally {
      letGo();
    }
  }
}

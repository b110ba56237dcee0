import type { RealArray } from "./core/arena.ts";
import { keyOf, PURPOSE } from "./core/key.ts";
import {
  type Progress,
  readOptions,
  readTheta,
  type Setting,
  type SimulateOptions,
  type ThetaLike,
} from "./dynamics/options.ts";
import { type Measures, meanLoss, planRun } from "./dynamics/plan.ts";
import type { Run } from "./dynamics/result.ts";
import { simulate } from "./dynamics/run.ts";
import { checkInteger, checkKnown, checkObject, fail, NoetherflowError, show } from "./errors.ts";
import { gradient } from "./graph/derive.ts";
import type { Effect, Source } from "./graph/lower.ts";
import type { Block, Model } from "./graph/model.ts";
import { describe, type Node, VARIES_WITH_SAMPLE } from "./graph/node.ts";
import type { Draws } from "./graph/program.ts";
import { Evaluation, type Host } from "./models/evaluate.ts";
import { type InitKind, type InitOptions, init } from "./models/init.ts";
import { type Data, Samples } from "./models/samples.ts";
import { type Estimate, meanOf } from "./stats/estimate.ts";
import { chargeOf, matrixChargeOf, workOf } from "./symmetry/charge.ts";
import { Generator } from "./symmetry/generator.ts";

/** Samples of a measurement on a problem whose samples are drawn fresh. */
export interface FreshOptions {
  readonly samples: number;
  readonly seed?: string | number;
}

/** Memory and time of a run before it is made. */
export interface PlanEstimate {
  /** Wasm memory the run reserves. */
  readonly bytes: number;
  /** Memory of the recorded series in the host. */
  readonly recordBytes: number;
  /** Rough time at one core, from a short trial of the same run. */
  readonly estimatedMs: number;
  readonly lanes: "samples" | "replicas" | "features";
}

const EVALUATION_BLOCK = 64;

/** A model with its data on one engine. Methods take a flat theta or one by named blocks. */
export class Problem {
  readonly model: Model;
  readonly #host: Host;
  readonly #samples: Samples;
  readonly #evaluations = new Map<string, Evaluation>();
  readonly #onDispose: (problem: Problem) => void;
  #disposed = false;

  /** @internal use engine.problem */
  constructor(
    host: Host,
    model: Model,
    data: Data,
    options: { samples?: number; dataSeed?: string | number },
    onDispose: (problem: Problem) => void,
  ) {
    checkKnown("problem", checkObject("problem", "options { samples?, dataSeed? }", options), [
      "samples",
      "dataSeed",
    ]);
    this.model = model;
    this.#host = host;
    this.#samples = Samples.create(host, model, data, options);
    this.#onDispose = onDispose;
  }

  /** Number of samples; Infinity when they are drawn fresh. */
  get N(): number {
    return this.#samples.N;
  }

  /** Number of parameters, untrainable ones included. */
  get P(): number {
    return this.model.P;
  }

  /** The samples as data: each input N x its shape, flat row-major. Finite sets only. */
  get data(): Record<string, Float64Array> {
    this.#alive("data");
    if (this.N === Infinity)
      fail("unsupported", "data", "fresh samples are drawn in every step and never stored");
    const records = this.#samples.records();
    const out: Record<string, Float64Array> = {};
    for (const { name, size, offset } of this.model.inputs) {
      const column = new Float64Array(this.N * size);
      for (let n = 0; n < this.N; n++) {
        for (let e = 0; e < size; e++)
          column[n * size + e] = records[n * this.model.recordSize + offset + e]!;
      }
      out[name] = column;
    }
    return out;
  }

  /** A flat theta from named blocks. @throws NoetherflowError naming the block and both shapes */
  theta(named: ThetaLike): RealArray {
    return this.#real(readTheta("theta", this.model, named));
  }

  /** Named blocks of a flat theta. */
  named(theta: ThetaLike): Record<string, RealArray> {
    const flat = this.#real(readTheta("named", this.model, theta));
    return Object.fromEntries(
      this.model.blocks.map((b: Block) => [b.name, flat.slice(b.offset, b.offset + b.size)]),
    );
  }

  /**
   * Initial parameters: independent normal entries with variance 2/(in+out) ("glorot", "xavier"),
   * 2/in ("he", "kaiming"), 1/in ("lecun", "paperKaiming"), 1/(in+out) ("paperXavier"), or your own
   * `std` ("normal"). Vectors count as biases and start at 0, except under "normal".
   *
   * @example problem.init("glorot", { seed: "run 7" })
   */
  init(kind: InitKind, options: InitOptions): RealArray {
    this.#alive("init");
    return init(this.#host, this.model, kind, options);
  }

  /**
   * Mean loss L(theta) = (1/N) sum_n ell(theta, x_n), weight decay not included.
   *
   * @returns a number; for fresh samples pass { samples, seed } and get an Estimate
   * @cost    N forward passes
   */
  loss(theta: ThetaLike): number;
  loss(theta: ThetaLike, fresh: FreshOptions): Estimate;
  loss(theta: ThetaLike, fresh?: FreshOptions): number | Estimate {
    const flat = this.#checked("loss", theta);
    if (this.#fresh("loss", fresh) !== null) return meanOf(this.#freshLosses(flat, fresh!), "fresh samples");
    const evaluation = this.#evaluation("loss", (take, source) => [
      { kind: "output", value: meanLoss(this.#samples.loss, source.samples), address: take(1) },
    ]);
    evaluation.run(flat);
    return evaluation.read(0, 1)[0]!;
  }

  /** Loss of every sample, N values. */
  losses(theta: ThetaLike, fresh?: FreshOptions): RealArray {
    const flat = this.#checked("losses", theta);
    if (this.#fresh("losses", fresh) !== null) return this.#freshLosses(flat, fresh!);
    const evaluation = this.#evaluation("losses", (take, source) => [
      {
        kind: "storeSamples",
        value: this.#samples.loss,
        address: take(source.samples),
        stride: 1,
        offset: 0,
      },
    ]);
    evaluation.run(flat);
    return evaluation.read(0, this.N);
  }

  /**
   * Gradient of the mean loss, P values, weight decay not included; 0 for untrainable blocks.
   * Fresh samples need { samples, seed } and give the gradient of their mean.
   *
   * @cost N forward and backward passes
   */
  gradient(theta: ThetaLike, fresh?: FreshOptions): RealArray {
    const flat = this.#checked("gradient", theta);
    const draw = this.#fresh("gradient", fresh);
    const name = draw === null ? "gradient" : `gradient of ${draw.samples} fresh samples`;
    const trainable = this.model.blocks.filter((b) => b.trainable);
    let nodes: (Node | null)[] = [];
    const build = (take: (n: number) => number, source: Source): Effect[] => {
      const { graph } = this.model;
      nodes = gradient(
        this.#samples.loss,
        trainable.map((b) => this.model.leaf(b.name)),
        graph.number(1 / source.samples),
        source.samples,
      );
      return trainable.flatMap((b, i): Effect[] =>
        nodes[i] === null ? [] : [{ kind: "output", value: nodes[i]!, address: take(b.size) }],
      );
    };
    const evaluation = this.#evaluation(name, build, draw?.samples);
    evaluation.run(flat, draw ?? undefined);
    const out = this.#host.arena.array(this.P);
    // blocks the loss does not depend on have no output
    const dependent = this.#dependent();
    let index = 0;
    for (const block of trainable)
      if (dependent.has(block.name)) out.set(evaluation.read(index++, block.size), block.offset);
    return out;
  }

  /**
   * Noether charge C = 1/2 (theta - c)^T A (theta - c) of a generator.
   *
   * @throws NoetherflowError "shape" if A and the model disagree on a block
   */
  charge(theta: ThetaLike, A: Generator): number {
    const flat = this.#checked("charge", theta);
    const value = chargeOf(this.model, generatorIn("charge", A));
    const evaluation = this.#make(
      "charge",
      (take) => [{ kind: "output", value, address: take(1) }],
      this.#samples.source(0, true),
      { kind: "none" },
    );
    evaluation.run(flat);
    const charge = evaluation.read(0, 1)[0]!;
    evaluation.dispose();
    return charge;
  }

  /**
   * Runs gradient descent or SGD inside Wasm, JavaScript being called once per chunk of about 10 ms.
   *
   *   theta' = (1 - 2 eta gamma) theta - eta sum_i w_i g_i
   *
   * @returns final thetas, recorded series, status and hashes; the same seed gives the same bits on
   *          every host, for any chunking and any number of replicas beside it
   * @throws  NoetherflowError before any work for bad options; the signal's reason after an abort
   */
  async simulate(options: SimulateOptions<Generator, Node>): Promise<Run> {
    this.#alive("simulate");
    const setting = readOptions(this.model, this.N, this.#host.core.real.bytes, options);
    checkRange(setting.scheme.name, setting.theta, this.#host.core.dtype);
    const measures = this.#measures(options);
    const control: { signal?: AbortSignal | undefined; onProgress?: ((p: Progress) => void) | undefined } = {
      signal: options.signal,
      onProgress: options.onProgress,
    };
    return simulate(this.#host, this.model, this.#samples, setting, measures, control);
  }

  /** Memory a run would take, and its time from a trial of a few steps. Nothing is kept. */
  async plan(options: SimulateOptions<Generator, Node>): Promise<PlanEstimate> {
    this.#alive("plan");
    const setting = readOptions(this.model, this.N, this.#host.core.real.bytes, options);
    const measures = this.#measures(options);
    const plan = planRun(this.model, this.#samples, setting, measures, this.#host.core.real, 0);
    const total = setting.every === 0 ? 0 : Math.floor(setting.steps / setting.every) + 1;
    const time = async (steps: number): Promise<number> => {
      const trial: Setting = {
        ...setting,
        steps,
        batches: setting.batches?.slice(0, steps * setting.S) ?? null,
      };
      const began = performance.now();
      await simulate(this.#host, this.model, this.#samples, trial, measures, {});
      return performance.now() - began;
    };
    let steps = Math.min(setting.steps, 4);
    let spent = await time(steps);
    while (spent < 20 && steps < setting.steps) {
      steps = Math.min(setting.steps, steps * 4);
      spent = await time(steps);
    }
    return {
      bytes: plan.bytes,
      recordBytes: 8 * total * setting.replicas * plan.entries,
      estimatedMs: steps === 0 ? 0 : (spent / steps) * setting.steps,
      lanes: plan.choice.lanes,
    };
  }

  /** Gives the problem's memory back; it cannot be used afterwards. */
  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    for (const evaluation of this.#evaluations.values()) evaluation.dispose();
    this.#samples.dispose();
    this.#onDispose(this);
  }

  #measures(options: SimulateOptions<Generator, Node>): Measures {
    const record = options.record;
    const charges = new Map<string, Node>();
    for (const key of ["charges", "matrixCharges", "values"] as const) {
      if (record?.[key] !== undefined) checkObject(`record.${key}`, "an object of names", record[key]);
    }
    const generators = Object.entries(record?.charges ?? {});
    for (const [name, A] of generators)
      charges.set(
        name,
        chargeOf(this.model, generatorIn(`record.charges.${name}`, A), `record.charges.${name}`),
      );
    const values = new Map<string, Node>();
    for (const [name, node] of Object.entries(record?.values ?? {})) {
      const where = `record.values.${name}`;
      if (typeof node !== "object" || node === null || node.graph !== this.model.graph) {
        fail(
          "shape",
          where,
          "expected an expression of this model's parameters",
          show(node),
          "Build it with ops from model.leaf(name).",
        );
      }
      if ((node.varies & VARIES_WITH_SAMPLE) !== 0)
        fail("unsupported", where, "recorded values depend on parameters alone", describe(node));
      values.set(name, node);
    }
    const matrixCharges = new Map<string, Node>();
    for (const [name, pair] of Object.entries(record?.matrixCharges ?? {})) {
      const where = `record.matrixCharges.${name}`;
      if (!Array.isArray(pair) || pair.length !== 2)
        fail("shape", where, "expected the names of two blocks, [U, W]", show(pair));
      matrixCharges.set(name, matrixChargeOf(this.model, pair[0], pair[1], where));
    }
    let average: Measures["average"] = null;
    if (record?.average !== undefined) {
      checkKnown("record.average", checkObject("record.average", "{ from, every? }", record.average), [
        "from",
        "every",
      ]);
      average = {
        from: checkInteger("record.average", "from", record.average.from, 0, 4_294_967_295),
        every: checkInteger(
          "record.average",
          "every",
          record.average.every ?? record.every,
          1,
          4_294_967_295,
        ),
      };
      if (charges.size + matrixCharges.size + values.size === 0 && !record.blockNorms) {
        fail(
          "range",
          "record.average",
          "there is nothing to average",
          "no blockNorms, charges, matrixCharges or values",
        );
      }
    }
    return {
      loss: record?.loss ?? null,
      blockNorms: record?.blockNorms ?? false,
      charges,
      work: record?.work
        ? (of) =>
            new Map(
              generators.map(([name, A]) => [name, workOf(this.model, A, of, `record.charges.${name}`)]),
            )
        : null,
      matrixCharges,
      values,
      average,
    };
  }

  #freshLosses(theta: Float64Array, fresh: FreshOptions): RealArray {
    const draw = this.#fresh("losses", fresh)!;
    const evaluation = this.#evaluation(
      `losses of ${draw.samples} fresh samples`,
      (take, source) => [
        {
          kind: "storeSamples",
          value: this.#samples.loss,
          address: take(source.samples),
          stride: 1,
          offset: 0,
        },
      ],
      draw.samples,
    );
    evaluation.run(theta, draw);
    return evaluation.read(0, draw.samples);
  }

  /** How to draw fresh samples, or null for a finite data set. */
  #fresh(
    where: string,
    fresh: FreshOptions | undefined,
  ): { samples: number; key: ReturnType<typeof keyOf>; purpose: number } | null {
    if (this.N !== Infinity) {
      if (fresh !== undefined)
        fail(
          "unsupported",
          where,
          "{ samples, seed } go with a sampler of fresh samples",
          `a data set of N = ${this.N}`,
        );
      return null;
    }
    if (typeof fresh !== "object" || fresh === null) {
      return fail(
        "unsupported",
        where,
        "samples are drawn fresh, so say how many: { samples, seed }",
        show(fresh),
      );
    }
    checkKnown(where, fresh, ["samples", "seed"]);
    return {
      samples: checkInteger(where, "samples", fresh.samples, 1, 100_000_000),
      key: keyOf(where, fresh.seed ?? "0"),
      purpose: PURPOSE.measure,
    };
  }

  #dependentBlocks: Set<string> | null = null;
  #dependent(): Set<string> {
    if (this.#dependentBlocks === null) {
      const blocks = this.model.blocks.filter((b) => b.trainable);
      const nodes = gradient(
        this.#samples.loss,
        blocks.map((b) => this.model.leaf(b.name)),
        this.model.graph.number(1),
        1,
      );
      this.#dependentBlocks = new Set(blocks.filter((_, i) => nodes[i] !== null).map((b) => b.name));
    }
    return this.#dependentBlocks;
  }

  #evaluation(
    name: string,
    effects: (take: (n: number) => number, source: Source) => readonly Effect[],
    samples = this.N,
  ): Evaluation {
    let made = this.#evaluations.get(name);
    if (made === undefined) {
      made = this.#make(name, effects, this.#samples.source(samples, true), this.#samples.allDraws);
      this.#evaluations.set(name, made);
    }
    return made;
  }

  #make(
    where: string,
    effects: (take: (n: number) => number, source: Source) => readonly Effect[],
    source: Source,
    draws: Draws,
  ): Evaluation {
    const params = this.model.blocks.map((block) => ({ node: this.model.leaf(block.name), block }));
    return new Evaluation(this.#host, {
      where,
      params,
      source,
      draws,
      block: EVALUATION_BLOCK,
      effects: (take) => effects(take, source),
    });
  }

  #checked(where: string, theta: ThetaLike): Float64Array {
    this.#alive(where);
    const flat = readTheta(where, this.model, theta);
    checkRange(where, flat, this.#host.core.dtype);
    return flat;
  }

  #real(flat: Float64Array): RealArray {
    const out = this.#host.arena.array(flat.length);
    out.set(flat);
    return out;
  }

  #alive(where: string): void {
    if (this.#disposed)
      throw new NoetherflowError("unsupported", where, {
        expected: "the problem was disposed of",
        hint: "Make a new one with engine.problem.",
      });
  }
}

/** In f32, values beyond 3.4e38 would become infinite without a word. */
function checkRange(where: string, theta: Float64Array, dtype: string): void {
  if (dtype === "f64") return;
  const at = theta.findIndex((x) => !Number.isFinite(Math.fround(x)));
  if (at >= 0)
    fail("nonfinite", `${where}: theta`, "values must be finite in f32", `${theta[at]} at position ${at}`);
}

function generatorIn(where: string, A: unknown): Generator {
  return A instanceof Generator
    ? A
    : fail(
        "shape",
        where,
        "expected a generator",
        show(A),
        'Make one with symmetry.rescaling("U", "W") or symmetry.generator({ blocks }).',
      );
}

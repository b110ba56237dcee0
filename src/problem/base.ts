import type { RealArray } from "../core/arena.ts";
import { keyOf } from "../core/key.ts";
import { readOptions, type SimulateOptions } from "../dynamics/options.ts";
import { splitRun } from "../dynamics/sweep.ts";
import { readTheta, type ThetaLike } from "../dynamics/theta.ts";
import { checkInteger, checkKnown, checkObject, fail, NoetherflowError, show } from "../errors.ts";
import type { Block, Model } from "../graph/model.ts";
import type { Node } from "../graph/node.ts";
import type { Host } from "../models/evaluate.ts";
import { type InitKind, type InitOptions, init } from "../models/init.ts";
import { Measure } from "../models/measure.ts";
import { type Data, Samples } from "../models/samples.ts";
import { readRecord } from "../recording.ts";
import type { Generator } from "../symmetry/generator.ts";
import {
  estimate,
  type Measured,
  type MemoryPlan,
  measurementMemory,
  type PlanEstimate,
  runMemory,
} from "./memory.ts";

/** Samples of a measurement on a problem whose samples are drawn fresh. */
export interface FreshOptions {
  /** How many to draw, independently. */
  readonly samples: number;
  /** Text or number; "0" when absent. The same seed gives the same bits. */
  readonly seed?: string | number;
}

/** Sets of drawn samples that are kept for the next measurement. */
const KEPT_SETS = 2;

/** A model with its data: sizes, parameters, and the samples that everything else is measured on. */
export abstract class ProblemBase {
  /** The model it was made with. */
  readonly model: Model;
  /** @internal */
  protected readonly host: Host;
  /** @internal */
  protected readonly samples: Samples;
  /** Over the whole set; null when samples are drawn fresh. */
  readonly #measure: Measure | null;
  readonly #drawn = new Map<string, Measure>();
  readonly #onDispose: () => void;
  #disposed = false;

  /** @internal use engine.problem */
  constructor(
    host: Host,
    model: Model,
    data: Data,
    options: { samples?: number; dataSeed?: string | number },
    onDispose: () => void,
  ) {
    checkKnown("problem", checkObject("problem", "options { samples?, dataSeed? }", options), [
      "samples",
      "dataSeed",
    ]);
    this.model = model;
    this.host = host;
    this.samples = Samples.create(host, model, data, options);
    this.#measure = this.N === Infinity ? null : new Measure(host, model, this.samples);
    this.#onDispose = onDispose;
  }

  /** Number of samples; Infinity when they are drawn fresh. */
  get N(): number {
    return this.samples.N;
  }

  /** Number of parameters, untrainable ones included. */
  get P(): number {
    return this.model.P;
  }

  /** Whether the loss has batch ops: samples of a batch see each other, and none has a gradient of its own. */
  get isCoupled(): boolean {
    return this.samples.coupled;
  }

  /**
   * The samples as data: each input N x its shape, flat row-major. Finite sets only.
   *
   * @example problem.data.x?.length; // 96; 32 samples of 3
   */
  get data(): Record<string, Float64Array> {
    this.alive("data");
    if (this.N === Infinity)
      fail("unsupported", "data", "fresh samples are drawn in every step and never stored");
    return this.samples.columns();
  }

  /**
   * A flat theta from named blocks.
   *
   * @throws NoetherflowError naming the block and both shapes
   * @example
   * const theta = problem.theta({ U: new Array(8).fill(0.1), W: new Array(12).fill(0.2) });
   * theta.length; // 20
   */
  theta(named: ThetaLike): RealArray {
    return this.real(readTheta("theta", this.model, named));
  }

  /**
   * Named blocks of a flat theta.
   *
   * @example problem.named(theta).W?.length; // 12; W is [4, 3]
   */
  named(theta: ThetaLike): Record<string, RealArray> {
    const flat = this.real(readTheta("named", this.model, theta));
    return Object.fromEntries(
      this.model.blocks.map((b: Block) => [b.name, flat.slice(b.offset, b.offset + b.size)]),
    );
  }

  /**
   * Initial parameters: independent normal entries with variance 2/(in+out) ("glorot", "xavier"),
   * 2/in ("he", "kaiming"), 1/in ("lecun", "paperKaiming"), 1/(in+out) ("paperXavier"), or your own
   * `std` ("normal"). Vectors count as biases and start at 0, except under "normal".
   *
   * @example
   * problem.init("glorot", { seed: "run 7" }).length; // 20
   * problem.init("normal", { seed: 7, std: { U: 0.1, W: 0.2 }, replicas: 3 }).length; // 60
   */
  init(kind: InitKind, options: InitOptions): RealArray {
    this.alive("init");
    return init(this.host, this.model, kind, options);
  }

  /**
   * Memory a run would take, and its time from a trial of a few steps. Nothing is kept.
   *
   * @example
   * const { recordBytes, lanes } = await problem.plan({ ...options, steps: 1_000_000 });
   * recordBytes; // 160008; one charge at 20001 records
   */
  async plan(options: SimulateOptions<Generator, Node>): Promise<PlanEstimate> {
    const { sweep, measures } = this.#sweep("plan", options);
    return estimate(this.host, this.model, sweep, measures);
  }

  /**
   * Bytes that a run takes, or a measurement over all samples, without making it: docs/memory.md has the formulae. Passes of
   * measurements are kept until the problem is disposed of; runs give theirs back.
   *
   * @param what options of `simulate`, or "loss", "losses", "gradient" or "noiseTrace"
   * @throws  what `simulate` refuses; NoetherflowError "unsupported" for a measurement of fresh samples
   * @example
   * const { state, bytes } = problem.memory(options);
   * state; // 1408; two copies of 20 numbers and the rates, each array padded
   * bytes > state + problem.memory("gradient").data; // true
   */
  memory(what: Measured | SimulateOptions<Generator, Node>): MemoryPlan {
    if (typeof what === "string") return measurementMemory(this.all("memory"), what);
    const { sweep, measures } = this.#sweep("memory", what);
    return runMemory(this.host, this.model, this.samples, sweep, measures);
  }

  /** A run over the samples as they are. */
  #sweep(where: string, options: SimulateOptions<Generator, Node>) {
    this.alive(where);
    const setting = readOptions(this.model, this.N, this.host.core.real.bytes, options);
    const parts = splitRun(setting).map((part) => ({ ...part, samples: this.samples }));
    return { sweep: { setting, parts }, measures: readRecord(this.model, options) };
  }

  /** Gives the problem's memory back; it cannot be used afterwards. */
  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#measure?.dispose();
    for (const set of this.#drawn.values()) {
      set.dispose();
      set.samples.dispose();
    }
    this.samples.dispose();
    this.#onDispose();
  }

  /** What a call without samples of its own is measured on. */
  protected all(where: string): Measure {
    this.alive(where);
    return (
      this.#measure ??
      fail(
        "unsupported",
        where,
        "this needs a finite set of samples",
        "a sampler of fresh samples",
        "Make one: engine.problem(model, sampler, { samples: N }).",
      )
    );
  }

  /**
   * The samples a measurement goes over: the whole finite set; `samples` fresh ones of a sampler; or
   * `samples` independent draws from a finite set. The last few sets are kept.
   */
  protected over(where: string, draw: FreshOptions | undefined): { measure: Measure; drawn: boolean } {
    if (draw === undefined) {
      if (this.#measure === null)
        return fail(
          "unsupported",
          where,
          "samples are drawn fresh, so say how many: { samples, seed }",
          show(draw),
        );
      return { measure: this.#measure, drawn: false };
    }
    checkKnown(where, checkObject(where, "{ samples, seed? }", draw), ["samples", "seed"]);
    const count = checkInteger(where, "samples", draw.samples, 1, 100_000_000);
    const key = keyOf(where, draw.seed ?? "0");
    const name = `${count}|${key.key0}|${key.key1}`;
    let measure = this.#drawn.get(name);
    if (measure === undefined) {
      if (this.#drawn.size >= KEPT_SETS) {
        const [oldest, set] = this.#drawn.entries().next().value!;
        this.#drawn.delete(oldest);
        set.dispose();
        set.samples.dispose();
      }
      measure = new Measure(this.host, this.model, this.samples.draw(where, count, key));
      this.#drawn.set(name, measure);
    }
    return { measure, drawn: true };
  }

  /** Samples for what needs a gradient per sample. */
  protected perSample(where: string): Measure {
    const measure = this.all(where);
    measure.refuseCoupled(where);
    return measure;
  }

  protected control(where: string, options: object, names: readonly string[]): void {
    checkKnown(where, checkObject(where, `options ${names.join(", ")}`, options), [
      ...names,
      "signal",
      "onProgress",
    ]);
    const { signal, onProgress } = options as { signal?: unknown; onProgress?: unknown };
    if (signal !== undefined && typeof (signal as AbortSignal | null)?.throwIfAborted !== "function")
      fail("shape", where, "signal is an AbortSignal", show(signal));
    if (onProgress !== undefined && typeof onProgress !== "function")
      fail("shape", where, "onProgress is a function", show(onProgress));
  }

  protected vectorsOf(
    where: string,
    v: ThetaLike,
    options: { count?: number },
    names: readonly string[] = ["count"],
  ): { vectors: ArrayLike<number>; count: number } {
    checkKnown(where, checkObject(where, `options ${names.join(", ")}`, options), names);
    const { count } = options;
    if (count === undefined) return { vectors: this.vector(where, v), count: 1 };
    checkInteger(where, "count", count, 1, 1_000_000);
    if (!Array.isArray(v) && !ArrayBuffer.isView(v))
      fail("shape", where, `expected ${count} x ${this.P} numbers`, show(v));
    const flat = v as ArrayLike<number>;
    if (flat.length !== count * this.P)
      fail("shape", where, `expected ${count} x ${this.P} numbers`, `${flat.length}`);
    for (let i = 0; i < flat.length; i++)
      if (!Number.isFinite(flat[i]))
        fail("nonfinite", where, "vectors must be finite", `${flat[i]} at position ${i}`);
    checkRange(where, Float64Array.from(flat), this.host.core.dtype, "v");
    return { vectors: flat, count };
  }

  /** One vector of parameter space. */
  protected vector(where: string, v: ThetaLike): Float64Array {
    const flat = readTheta(where, this.model, v, "v");
    checkRange(where, flat, this.host.core.dtype, "v");
    return flat;
  }

  /** An expression of this model that a caller builds from its leaves, constants included. */
  protected expressionOf(where: string, build: unknown): Node {
    if (typeof build !== "function")
      return fail("shape", where, "expected of: (leaves) => an expression of this model", show(build));
    const { blocks, inputs, constants } = this.model;
    const names = [...blocks.map((b) => b.name), ...inputs.map((i) => i.name), ...constants];
    const node: unknown = build(Object.fromEntries(names.map((n) => [n, this.model.leaf(n)])));
    if (typeof node !== "object" || node === null || (node as Node).graph !== this.model.graph)
      return fail("shape", where, "`of` must return an expression of this model", show(node));
    return node as Node;
  }

  protected checked(where: string, theta: ThetaLike): Float64Array {
    this.alive(where);
    const flat = readTheta(where, this.model, theta);
    checkRange(where, flat, this.host.core.dtype);
    return flat;
  }

  protected real(flat: Float64Array): RealArray {
    const out = this.host.arena.array(flat.length);
    out.set(flat);
    return out;
  }

  protected alive(where: string): void {
    if (this.#disposed)
      throw new NoetherflowError("unsupported", where, {
        expected: "the problem was disposed of",
        hint: "Make a new one with engine.problem.",
      });
  }
}

/** In f32, values beyond 3.4e38 would become infinite without a word. */
export function checkRange(where: string, theta: Float64Array, dtype: string, what = "theta"): void {
  if (dtype === "f64") return;
  const at = theta.findIndex((x) => !Number.isFinite(Math.fround(x)));
  if (at >= 0)
    fail("nonfinite", `${where}: ${what}`, "values must be finite in f32", `${theta[at]} at position ${at}`);
}

import { Arena } from "./core/arena.ts";
import { loadSeeder } from "./core/key.ts";
import type { SimulateOptions } from "./dynamics/options.ts";
import { fail, NoetherflowError, show } from "./errors.ts";
import { Model } from "./graph/model.ts";
import type { Node } from "./graph/node.ts";
import { isReader, type Reader } from "./models/reader.ts";
import type { Data } from "./models/samples.ts";
import { StreamedProblem } from "./problem/streamed.ts";
import { Problem } from "./problem.ts";
import { type RunSpec, readSpec } from "./spec.ts";
import { Dense } from "./stats/dense.ts";
import type { Generator } from "./symmetry/generator.ts";
import { TwoLayer } from "./symmetry/two-layer.ts";
import type { Core, Dtype, Variant } from "./wasm/module.ts";

/** One Wasm instance and the problems on it. Runs may interleave; nothing they compute changes. */
export class Engine {
  /** Type of theta, gradients and runs; `dense` is f64 always. */
  readonly dtype: Dtype;
  /** Build of the core. */
  readonly variant: Variant;
  /** sha256 of the Wasm module, hex, or null when a compiled module was passed in. */
  readonly wasmSha256: string | null;
  /** Dense linear algebra in Wasm, f64, the same bits everywhere; sizes to some hundreds. */
  readonly dense: Dense;
  /** Theorem 2: the noise equilibrium of two-layer linear networks. */
  readonly twoLayer: TwoLayer;
  readonly #host: { core: Core; arena: Arena };
  readonly #problems = new Set<Problem | StreamedProblem>();
  #disposed = false;

  /** @internal use createEngine */
  constructor(core: Core) {
    this.dtype = core.dtype;
    this.variant = core.variant;
    this.wasmSha256 = core.sha256;
    this.#host = { core, arena: new Arena(core.memory, core.exports.heapBase(), core.real.bytes) };
    this.dense = new Dense(this.#host);
    this.twoLayer = new TwoLayer(this.dense);
    const symbol = (Symbol as { dispose?: symbol }).dispose;
    if (symbol !== undefined) Object.defineProperty(this, symbol, { value: () => this.dispose() });
  }

  /** @internal The core, for tests that count calls into Wasm. */
  get core(): Core {
    return this.#host.core;
  }

  /** Wasm memory held by this engine's problems and runs, in bytes. */
  get bytesInUse(): number {
    return this.#host.arena.bytesInUse;
  }

  /**
   * A model with data that a function reads, for sets that do not fit into memory: its measurements and runs have the bits of the same
   * data given as arrays.
   *
   * @param data { N, read, bufferBytes? }: `read(start, count)` returns arrays by input name, or a promise of them
   * @throws NoetherflowError "range" for N and bufferBytes, "name", "memory"
   * @example
   * const streamed = engine.problem(net, { N: 32, read: (start, count) => ({ x: part(xs, 3, start, count), y: part(ys, 2, start, count) }) });
   * (await streamed.loss(theta)) === problem.loss(theta); // true
   */
  problem<R extends Reader>(
    model: Model,
    // `any` is no reader, and goes on to the next signature
    data: R & (0 extends 1 & R ? never : unknown),
  ): StreamedProblem;
  /**
   * A model with data.
   *
   * @param data    arrays by input name (N samples each, nested or flat row-major, typed or not), a
   *                sampler, or momentMatched(sampler)
   * @param options with a sampler: `samples: N` makes a finite set (`dataSeed` says which); without
   *                it samples are drawn fresh in every step and problem.N is Infinity
   * @throws NoetherflowError "shape", "name", "range", "nonfinite", "memory"
   * @example
   * engine.problem(net, { x: [[1, 0, 0]], y: [[1, 0]] }).N; // 1
   * engine.problem(net, teacher, { samples: 100, dataSeed: "b" }).N; // 100
   * engine.problem(net, teacher).N; // Infinity; fresh samples in every step
   */
  problem(model: Model, data: Data, options?: { samples?: number; dataSeed?: string | number }): Problem;
  problem(
    model: Model,
    data: Data | Reader,
    options: { samples?: number; dataSeed?: string | number } = {},
  ): Problem | StreamedProblem {
    if (this.#disposed)
      throw new NoetherflowError("unsupported", "problem", {
        expected: "the engine was disposed of",
        hint: "Make a new one with createEngine.",
      });
    if (!(model instanceof Model))
      fail(
        "shape",
        "problem",
        "expected a model",
        show(model),
        "Make one with model({...}) or parseModel(json).",
      );
    const forget = () => void this.#problems.delete(problem);
    const problem: Problem | StreamedProblem = isReader(data)
      ? this.#streamed(model, data, options, forget)
      : new Problem(this.#host, model, data, options, forget);
    this.#problems.add(problem);
    return problem;
  }

  #streamed(model: Model, reader: Reader, options: object, forget: () => void): StreamedProblem {
    if (Object.keys(options).length > 0)
      fail("unsupported", "problem", "samples and dataSeed go with a sampler", "data that a function reads");
    return new StreamedProblem(this.#host, model, reader, forget);
  }

  /**
   * A run described by `problem.describe`: its problem, and the options of its `simulate`.
   *
   * @throws NoetherflowError "version" for an engine of another dtype or variant, and what parsing refuses
   * @example
   * const { problem: same, options: given } = engine.open(problem.describe(options));
   * same.loss(given.theta as Float64Array) === problem.loss(theta); // true
   */
  open(spec: RunSpec): { problem: Problem; options: SimulateOptions<Generator, Node> } {
    const { dtype, variant, model, data, dataOptions, options } = readSpec(spec);
    if (dtype !== this.dtype || variant !== this.variant)
      fail(
        "version",
        "open",
        `a run for this engine, ${this.dtype} ${this.variant}`,
        `one for ${dtype} ${variant}`,
        `createEngine({ dtype: "${dtype}", variant: "${variant}" })`,
      );
    return { problem: this.problem(model, data, dataOptions), options };
  }

  /** Disposes of all problems. */
  dispose(): void {
    this.#disposed = true;
    for (const problem of [...this.#problems]) problem.dispose();
  }
}

/** An engine on a core that has been loaded. */
export async function engineOn(core: Core): Promise<Engine> {
  await loadSeeder();
  return new Engine(core);
}

import type { Region } from "../core/arena.ts";
import { ArrayHash, hashArrays, hashText } from "../core/hash.ts";
import { type Key, keyOf, PURPOSE } from "../core/key.ts";
import type { Steps } from "../core/steps.ts";
import { checkInteger, fail, show } from "../errors.ts";
import { couplesSamples, instantiate } from "../graph/instantiate.ts";
import { Planner } from "../graph/layout.ts";
import type { Source } from "../graph/lower.ts";
import type { Model } from "../graph/model.ts";
import { type Node, sameShape } from "../graph/node.ts";
import { add, scale } from "../graph/ops.ts";
import { flatten, isRecord } from "../graph/parse.ts";
import type { Draws } from "../graph/program.ts";
import { blocksOf, Sampler } from "../graph/sampler.ts";
import { substitute } from "../graph/substitute.ts";
import { Evaluation, type Host } from "./evaluate.ts";
import { Feed, planFeed } from "./feed.ts";
import { BLOCK } from "./measure.ts";
import { MomentMatched, momentPoints } from "./moment-matched.ts";
import { isReader, type Reader, Records } from "./reader.ts";

/** Where the samples of a problem come from. */
export type Origin =
  | { readonly arrays: () => Record<string, Float64Array> }
  | { readonly sampler: Sampler; readonly samples?: number; readonly dataSeed?: string | number }
  | { readonly momentMatched: Sampler };

/** Standard deviations of fresh noise on inputs, by name; null for none. */
export type LabelNoise = ReadonlyMap<string, number> | null;

/** Data of a problem: arrays by input name, a law of samples, or a finite set with its moments. */
export type Data = Readonly<Record<string, unknown>> | Sampler | MomentMatched;

/**
 * The samples of a problem. A finite set lies in Wasm memory, all inputs of a sample side by side, or is read on the way;
 * a sampler without a sample count is drawn fresh inside every step.
 */
export class Samples {
  /** Number of samples; Infinity when they are drawn fresh. */
  readonly N: number;
  /** The loss couples the samples of a batch: no sample has a loss or a gradient of its own. */
  readonly coupled: boolean;
  /** Per-sample loss; its inputs replaced by the sampler's outputs when samples are fresh. */
  readonly #loss: Node;
  readonly #losses = new Map<number, Node>();
  readonly #host: Host;
  readonly #model: Model;
  readonly #region: Region | null;
  readonly #data: number;
  readonly #table: number;
  readonly #fresh: Sampler | null;
  /** A set that is read on the way; null otherwise. */
  readonly reader: Records | null;
  /** Brings it to passes outside any run, which go over it one at a time. */
  readonly feed: Feed | null;
  #fingerprint: string | null = null;
  /** What a finite set was made from, unless arrays were given. */
  #origin: Origin | null = null;
  /** The problem, and its runs. */
  #holders = 1;
  readonly #noise: { map: Map<Node, number>; blocks: number };

  private constructor(
    host: Host,
    model: Model,
    N: number,
    fresh: Sampler | null,
    loss: Node,
    noise: { map: Map<Node, number>; blocks: number },
    records: Records | null = null,
  ) {
    this.#host = host;
    this.#model = model;
    this.N = N;
    this.#fresh = fresh;
    this.#loss = loss;
    this.coupled = couplesSamples(loss);
    this.#noise = noise;
    this.reader = records;
    this.feed = null;
    if (records !== null) {
      const sizes = { block: BLOCK, most: N, end: 4 * N };
      const { region, plan } = host.arena.reserve("problem: data", (base) => {
        const planner = new Planner(base);
        const feed = planFeed(planner, records, host.core.real, this.recordBytes, "inOrder", sizes);
        return { bytes: planner.end - base, feed };
      });
      host.arena.clear(region);
      this.#region = region;
      this.#data = plan.feed.data;
      this.#table = 0;
      this.feed = new Feed(host, model, records, plan.feed);
      return;
    }
    if (fresh !== null) {
      this.#region = null;
      this.#data = 0;
      this.#table = 0;
      return;
    }
    const { real } = host.core;
    const tableAt = Math.ceil((N * model.recordSize * real.bytes + 64) / 64) * 64;
    const { region } = host.arena.reserve("problem: data", () => ({ bytes: tableAt + 4 * N }));
    this.#region = region;
    this.#data = region.base;
    this.#table = region.base + tableAt;
    host.arena.clear(region);
    const table = host.arena.words(this.#table, N);
    for (let n = 0; n < N; n++) table[n] = n * this.recordBytes;
  }

  /**
   * @param options.samples  number of samples a sampler makes; fresh samples in every step without
   * @param options.dataSeed seed of a finite set made by a sampler
   */
  static create(
    host: Host,
    model: Model,
    data: unknown,
    options: { samples?: number | undefined; dataSeed?: string | number | undefined },
  ): Samples {
    if (data instanceof Sampler) return Samples.#fromSampler(host, model, data, options);
    if (options.samples !== undefined || options.dataSeed !== undefined) {
      fail("unsupported", "problem", "samples and dataSeed go with a sampler", "a finite data set");
    }
    if (data instanceof MomentMatched) return Samples.#fromMoments(host, model, data);
    if (isReader(data)) return Samples.#fromReader(host, model, data);
    return Samples.#fromArrays(host, model, data);
  }

  static #fromReader(host: Host, model: Model, reader: Reader): Samples {
    const records = new Records(model, reader);
    return new Samples(host, model, records.N, null, model.loss, { map: new Map(), blocks: 0 }, records);
  }

  static #fromArrays(host: Host, model: Model, data: unknown): Samples {
    if (!isRecord(data)) {
      return fail(
        "shape",
        "problem: data",
        `expected { ${model.inputs.map((i) => i.name).join(", ")} } or a sampler`,
        show(data),
      );
    }
    for (const key of Object.keys(data)) {
      if (!model.inputs.some((i) => i.name === key)) {
        fail(
          "name",
          "problem: data",
          `the inputs of the model are ${model.inputs.map((i) => i.name).join(", ") || "none"}`,
          show(key),
        );
      }
    }
    let N = -1;
    let first = "";
    const columns: { values: Float64Array; size: number; offset: number }[] = [];
    for (const input of model.inputs) {
      const where = `problem: data.${input.name}`;
      const given = Object.hasOwn(data, input.name) ? data[input.name] : undefined;
      if (given === undefined)
        fail(
          "name",
          where,
          `the model needs input ${input.name} of shape [${input.shape.join(", ")}] per sample`,
          "nothing",
        );
      const entries = countEntries(where, given);
      if (entries === 0) fail("shape", where, "a data set has at least one sample", "N = 0");
      if (entries % input.size !== 0) {
        fail(
          "shape",
          where,
          `expected N times ${input.size} numbers, shape [N, ${input.shape.join(", ")}]`,
          `${entries} numbers`,
        );
      }
      const count = entries / input.size;
      if (N >= 0 && count !== N)
        fail("shape", where, `every input must have the same N; ${first} has ${N}`, `${count}`);
      N = count;
      first = input.name;
      columns.push({
        values: flatten(where, given, entries, [count, ...input.shape]),
        size: input.size,
        offset: input.offset,
      });
    }
    if (N < 0) N = 1;
    const samples = new Samples(host, model, N, null, model.loss, { map: new Map(), blocks: 0 });
    const view = host.arena.reals(samples.#data, N * model.recordSize);
    for (const { values, size, offset } of columns) {
      for (let n = 0; n < N; n++) {
        for (let e = 0; e < size; e++) view[n * model.recordSize + offset + e] = values[n * size + e]!;
      }
    }
    try {
      samples.#checkFinite("problem: data", `values must be finite in ${host.core.dtype}`);
    } catch (error) {
      samples.dispose();
      throw error;
    }
    return samples;
  }

  static #fromSampler(
    host: Host,
    model: Model,
    sampler: Sampler,
    options: { samples?: number | undefined; dataSeed?: string | number | undefined },
  ): Samples {
    const outputs = matchOutputs(model, sampler);
    const { samples: count, dataSeed } = options;
    if (count === undefined) {
      if (dataSeed !== undefined) {
        fail(
          "unsupported",
          "problem",
          "dataSeed goes with samples: N",
          "a sampler of fresh samples",
          "Fresh samples follow the run's seed.",
        );
      }
      // noise leaves are copied into the model's graph, named so that they cannot meet a parameter
      const leaves = new Map<Node, Node>();
      for (const leaf of sampler.noise) {
        leaves.set(
          leaf,
          model.graph.noise(`sampler.${leaf.attrs.name}`, leaf.attrs.kind!, leaf.shape, leaf.attrs.below),
        );
      }
      const drawn = substitute(outputs, model.graph, leaves);
      const inputs = new Map(model.inputs.map((input, i) => [model.leaf(input.name), drawn[i]!]));
      const [loss] = substitute([model.loss], model.graph, inputs);
      return new Samples(
        host,
        model,
        Infinity,
        sampler,
        loss!,
        numberNoise(sampler.noise.map((n) => leaves.get(n)!)),
      );
    }
    const N = checkInteger("problem", "samples", count, 1, 2_147_483_648);
    const key = keyOf("problem: dataSeed", dataSeed ?? "0");
    const samples = new Samples(host, model, N, null, model.loss, { map: new Map(), blocks: 0 });
    try {
      samples.#generate(sampler, outputs, key, PURPOSE.data);
      samples.#origin = { sampler, samples: N, ...(dataSeed === undefined ? {} : { dataSeed }) };
    } catch (error) {
      samples.dispose();
      throw error;
    }
    return samples;
  }

  /** Another finite set of the same size and sampler. */
  again(dataSeed: string | number): Samples {
    const origin = this.#origin;
    if (origin === null || !("sampler" in origin))
      return fail(
        "unsupported",
        "simulate: dataSeed",
        "a finite set made by a sampler",
        this.isFresh ? "fresh samples, which follow the run's seed" : "data of your own",
        "Make the problem with engine.problem(model, sampler, { samples: N }).",
      );
    return Samples.#fromSampler(this.#host, this.#model, origin.sampler, { samples: this.N, dataSeed });
  }

  /**
   * A finite set of `count` independent samples: fresh ones of a sampler, else draws (with replacement)
   * from this set. For measurements; another key gives another set.
   */
  draw(where: string, count: number, key: Key): Samples {
    const host = this.#host;
    const model = this.#model;
    const samples = new Samples(host, model, count, null, model.loss, { map: new Map(), blocks: 0 });
    try {
      if (this.#fresh !== null) {
        samples.#generate(this.#fresh, matchOutputs(model, this.#fresh), key, PURPOSE.measure);
        return samples;
      }
      const size = 4 * Math.ceil(count / 4);
      const { region } = host.arena.reserve(where, () => ({ bytes: 4 * size + 64 }));
      const { drawIndices } = host.core.exports;
      drawIndices(region.base, size, 0, 0, 1, this.N, 1, 0, PURPOSE.measure, key.key0, key.key1);
      const rows = host.arena.words(region.base, count).slice();
      host.arena.release(region);
      const from = host.arena.reals(this.#data, this.N * model.recordSize);
      const to = host.arena.reals(samples.#data, count * model.recordSize);
      const width = model.recordSize;
      for (let i = 0; i < count; i++)
        to.set(from.subarray(rows[i]! * width, (rows[i]! + 1) * width), i * width);
      return samples;
    } catch (error) {
      samples.dispose();
      throw error;
    }
  }

  /** Draws the finite set: sample n takes its own blocks of the counter. */
  #generate(sampler: Sampler, outputs: readonly Node[], key: Key, purpose: number): void {
    const noise = numberNoise(sampler.noise);
    checkInteger(
      "problem",
      "samples times random blocks per sample",
      this.N * noise.blocks,
      0,
      4_294_967_296,
    );
    const evaluation = new Evaluation(this.#host, {
      where: "problem: data from a sampler",
      params: [],
      source: {
        samples: this.N,
        data: null,
        shared: true,
        offsets: new Map(),
        noise: noise.map,
        noiseBlocks: noise.blocks,
      },
      draws: { kind: "none" },
      block: 64,
      effects: () =>
        this.#model.inputs.map((input, i) => ({
          kind: "storeSamples" as const,
          value: outputs[i]!,
          address: this.#data,
          stride: this.#model.recordSize,
          offset: input.offset,
        })),
    });
    evaluation.run(null, { key, purpose });
    evaluation.dispose();
    this.#checkFinite("problem: data from a sampler");
  }

  static #fromMoments(host: Host, model: Model, matched: MomentMatched): Samples {
    const { sampler } = matched;
    const outputs = matchOutputs(model, sampler);
    const points = momentPoints(sampler);
    const samples = new Samples(host, model, points.count, null, model.loss, { map: new Map(), blocks: 0 });
    // the sampler's own graph, its random leaves read from the points as if they were inputs
    const size = points.dimension;
    const { region } = host.arena.reserve("momentMatched", () => ({
      bytes: (points.count * size + 8) * 8 + 4 * points.count + 128,
    }));
    const table = Math.ceil((region.base + points.count * size * host.core.real.bytes) / 64) * 64;
    host.arena.reals(region.base, points.count * size).set(points.values);
    const words = host.arena.words(table, points.count);
    for (let n = 0; n < points.count; n++) words[n] = n * size * host.core.real.bytes;
    const graph = sampler.graph;
    const leaves = new Map(
      sampler.noise.map((leaf) => [leaf, graph.input(`point.${leaf.attrs.name}`, leaf.shape)]),
    );
    const values = substitute(outputs, graph, leaves);
    const offsets = new Map(sampler.noise.map((leaf, i) => [leaves.get(leaf)!, points.offsets[i]!]));
    const evaluation = new Evaluation(host, {
      where: "momentMatched",
      params: [],
      source: {
        samples: points.count,
        data: region.base,
        shared: true,
        offsets,
        noise: new Map(),
        noiseBlocks: 0,
      },
      draws: { kind: "all", table },
      block: 64,
      effects: () =>
        model.inputs.map((input, i) => ({
          kind: "storeSamples" as const,
          value: values[i]!,
          address: samples.#data,
          stride: model.recordSize,
          offset: input.offset,
        })),
    });
    evaluation.run(null);
    evaluation.dispose();
    host.arena.release(region);
    try {
      samples.#checkFinite("momentMatched");
      samples.#origin = { momentMatched: sampler };
    } catch (error) {
      samples.dispose();
      throw error;
    }
    return samples;
  }

  #checkFinite(where: string, expected = "a sampler must give finite values"): void {
    const view = this.#host.arena.reals(this.#data, this.N * this.#model.recordSize);
    for (let i = 0; i < view.length; i++) {
      if (!Number.isFinite(view[i]!)) {
        const n = Math.floor(i / this.#model.recordSize);
        fail("nonfinite", where, expected, `${view[i]} in sample ${n}`);
      }
    }
  }

  /**
   * The loss of a sample of a batch of `count`.
   *
   * @param noise standard deviations of fresh normal noise on inputs, by name
   */
  lossIn(count: number, noise: LabelNoise = null): Node {
    const base = noise === null ? this.#loss : this.#noisyLoss(noise);
    if (!this.coupled) return base;
    if (noise !== null) return instantiate(base, count);
    let loss = this.#losses.get(count);
    if (loss === undefined) {
      loss = instantiate(base, count);
      this.#losses.set(count, loss);
    }
    return loss;
  }

  #noisyLoss(noise: NonNullable<LabelNoise>): Node {
    const { graph } = this.#model;
    const leaves = this.#noiseLeaves(noise);
    const noisy = new Map(
      [...noise].map(([name, std], i) => {
        const input = this.#model.leaf(name);
        return [input, add(input, scale(leaves[i]!, std))];
      }),
    );
    return substitute([this.#loss], graph, noisy)[0]!;
  }

  /** Random leaves of noise on inputs, in a fixed order. */
  #noiseLeaves(noise: NonNullable<LabelNoise>): Node[] {
    const { graph } = this.#model;
    return [...noise.keys()].map((name) =>
      graph.noise(`noise.${name}`, "normal", this.#model.leaf(name).shape),
    );
  }

  get recordBytes(): number {
    return this.#model.recordSize * this.#host.core.real.bytes;
  }

  /** Wasm memory of the samples, or of the buffer that passes outside any run read them through. */
  get bytes(): number {
    return this.#region?.bytes ?? 0;
  }

  get isFresh(): boolean {
    return this.#fresh !== null;
  }

  /** Where a pass over `samples` samples reads them. */
  source(samples: number, shared: boolean, noise: LabelNoise = null, data = this.#data): Source {
    const leaves = noise === null ? this.#noise : numberNoise(this.#noiseLeaves(noise));
    const offsets = new Map(this.#model.inputs.map((i) => [this.#model.leaf(i.name), i.offset]));
    return {
      samples,
      data: this.#fresh === null ? data : null,
      shared,
      offsets,
      noise: leaves.map,
      noiseBlocks: leaves.blocks,
    };
  }

  /** All samples in order, or none when they are fresh. */
  get allDraws(): Draws {
    if (this.feed !== null) return { kind: "all", table: 0, feed: this.feed.plan.address };
    return this.#fresh === null ? { kind: "all", table: this.#table } : { kind: "none" };
  }

  /** Where they come from; arrays are copied when asked for. */
  get origin(): Origin {
    if (this.#fresh !== null) return { sampler: this.#fresh };
    return this.#origin ?? { arrays: () => this.columns() };
  }

  /** Each input as N x its shape, flat row-major. */
  columns(): Record<string, Float64Array> {
    const records = this.records();
    const { recordSize } = this.#model;
    const out: Record<string, Float64Array> = {};
    for (const { name, size, offset } of this.#model.inputs) {
      const column = new Float64Array(this.N * size);
      for (let n = 0; n < this.N; n++)
        column.set(records.subarray(n * recordSize + offset, n * recordSize + offset + size), n * size);
      out[name] = column;
    }
    return out;
  }

  /**
   * The data as it lies in memory: N records, all inputs of a sample side by side.
   *
   * @throws NoetherflowError "unsupported" where they do not
   */
  records(): Float64Array {
    if (this.reader !== null)
      fail(
        "unsupported",
        "data",
        "data in memory, or a law that makes them",
        "data that a function reads",
        "Keep a run by its checkpoints, which hold a hash of the data.",
      );
    return Float64Array.from(this.#host.arena.reals(this.#data, this.N * this.#model.recordSize));
  }

  /** Reads data that are not in memory from end to end, so that `fingerprint` can be asked for. */
  *identify(): Steps<void> {
    if (this.reader === null || this.#fingerprint !== null) return;
    const hash = new ArrayHash();
    const { inputs, recordSize } = this.#model;
    const { portion } = this.reader;
    const room = this.reader.makeRoom(this.#host);
    for (let first = 0; first < this.N; first += portion) {
      const count = Math.min(portion, this.N - first);
      const columns = yield* this.reader.columns(first, count, room);
      const part = new Float64Array(count * recordSize);
      for (const [c, { size, offset }] of inputs.entries())
        for (let i = 0; i < count * size; i++) {
          const value = columns[c]![i]!;
          const at = Math.floor(i / size) * recordSize + offset + (i % size);
          part[at] = this.#host.core.dtype === "f32" ? Math.fround(value) : value;
        }
      hash.update(part);
    }
    this.#fingerprint = hash.digest();
  }

  /** A hash of the data, or of the law they are drawn from. */
  fingerprint(): string {
    this.#fingerprint ??=
      this.#fresh === null ? hashArrays([this.records()]) : hashText(JSON.stringify(this.#fresh.toJSON()));
    return this.#fingerprint;
  }

  /** A run reads the data until it lets go; memory is given back after the last. */
  hold(): void {
    this.#holders++;
  }

  letGo(): void {
    this.#holders--;
    if (this.#holders === 0 && this.#region !== null) this.#host.arena.release(this.#region);
  }

  dispose(): void {
    this.letGo();
  }
}

/** The sampler's outputs in the order of the model's inputs, shapes checked. */
function matchOutputs(model: Model, sampler: Sampler): Node[] {
  const names = [...sampler.outputs.keys()];
  for (const name of names) {
    if (!model.inputs.some((i) => i.name === name)) {
      fail(
        "name",
        "problem: sampler",
        `the inputs of the model are ${model.inputs.map((i) => i.name).join(", ")}`,
        `an output ${show(name)}`,
      );
    }
  }
  return model.inputs.map((input) => {
    const output = sampler.outputs.get(input.name);
    if (output === undefined)
      return fail(
        "name",
        "problem: sampler",
        `expected an output for input ${input.name}`,
        `outputs ${names.join(", ")}`,
      );
    if (!sameShape(output.shape, input.shape)) {
      fail(
        "shape",
        "problem: sampler",
        `input ${input.name} has shape [${input.shape.join(", ")}]`,
        `output of shape [${output.shape.join(", ")}]`,
      );
    }
    return output;
  });
}

/** Blocks of the counter for each random leaf of a sample, one leaf after the other. */
function numberNoise(leaves: readonly Node[]): { map: Map<Node, number>; blocks: number } {
  const map = new Map<Node, number>();
  let blocks = 0;
  for (const leaf of leaves) {
    map.set(leaf, blocks);
    blocks += blocksOf(leaf);
  }
  return { map, blocks };
}

function countEntries(where: string, value: unknown): number {
  if (ArrayBuffer.isView(value) && !(value instanceof DataView))
    return (value as unknown as ArrayLike<number>).length;
  if (!Array.isArray(value))
    return fail("shape", where, "expected an array, nested or flat row-major, typed or not", show(value));
  let count = 0;
  const stack: { level: unknown[]; depth: number }[] = [{ level: value, depth: 0 }];
  while (stack.length > 0) {
    const { level, depth } = stack.pop()!;
    for (const item of level) {
      if (Array.isArray(item)) {
        if (depth >= 3) fail("shape", where, "expected at most three levels of arrays", "more");
        stack.push({ level: item, depth: depth + 1 });
      } else if (ArrayBuffer.isView(item) && !(item instanceof DataView))
        count += (item as unknown as ArrayLike<number>).length;
      else count++;
    }
  }
  return count;
}

import type { Arena, RealArray, Region } from "../core/arena.ts";
import type { Key } from "../core/key.ts";
import { now, type Steps } from "../core/steps.ts";
import { internal } from "../errors.ts";
import { Planner } from "../graph/layout.ts";
import { type Effect, lower, type Source } from "../graph/lower.ts";
import type { Block } from "../graph/model.ts";
import type { Node } from "../graph/node.ts";
import { type Draws, installPass, placePass, RUN_BYTES, writeConstants, writeRun } from "../graph/program.ts";
import type { Core } from "../wasm/module.ts";
import type { Feed } from "./feed.ts";

/** What everything that computes needs: the instance and its memory. */
export interface Host {
  readonly core: Core;
  readonly arena: Arena;
}

export interface EvaluationSpec {
  /** Named in a refusal for lack of memory. */
  readonly where: string;
  /** Parameter leaves and their blocks. */
  readonly params: readonly { readonly node: Node; readonly block: Block }[];
  /** Further leaves whose values are set before a run: directions, means. */
  readonly extra?: readonly { readonly node: Node; readonly size: number }[];
  readonly source: Source;
  /** Which records are read; "chosen" before every run, by `choose`. */
  readonly draws: Draws | "chosen";
  /** Brings the samples, where they are not in memory. */
  readonly feed?: Feed | null;
  /** Samples per block. */
  readonly block: number;
  /** Writes the effects; `take` reserves room for results. */
  readonly effects: (take: (values: number) => number) => readonly Effect[];
}

/** Lays a pass out from a base address. */
function planEvaluation(core: Core, spec: EvaluationSpec, base: number) {
  const planner = new Planner(base);
  const run = planner.take(RUN_BYTES);
  const values = (n: number) => planner.take((n + core.real.perRegister) * core.real.bytes);
  const theta = spec.params.map(({ node, block }) => ({ node, block, address: values(block.size) }));
  const extra = (spec.extra ?? []).map(({ node, size }) => ({ node, size, address: values(size) }));
  const table = spec.draws === "chosen" ? planner.take(4 * spec.source.samples) : 0;
  const results: number[] = [];
  const effects = spec.effects((n) => {
    const address = values(n);
    results.push(address);
    return address;
  });
  const constants = new Map<number, Node>();
  const pass = lower(effects, {
    real: core.real,
    lanes: "samples",
    replicas: 1,
    block: spec.block,
    fuse: true,
    decays: false,
    sameRates: true,
    source: spec.source,
    params: new Map([...theta, ...extra].map((t) => [t.node, t.address])),
    constant: (node, address) => constants.set(address, node),
    planner,
  });
  const draws = spec.draws === "chosen" ? { kind: "all" as const, table } : spec.draws;
  const placed = placePass(planner, pass, draws);
  return { bytes: planner.end - base, run, theta, extra, table, results, constants, placed };
}

/** Wasm memory of a pass, before it is made. */
export const evaluationBytes = (core: Core, spec: EvaluationSpec): number =>
  planEvaluation(core, spec, 0).bytes;

/** One pass made ready: theta in, results out, any number of times. */
export class Evaluation {
  readonly #host: Host;
  readonly #region: Region;
  readonly #run: number;
  readonly #pass: number;
  readonly #theta: readonly { readonly block: Block; readonly address: number }[];
  readonly #extra: readonly { readonly size: number; readonly address: number }[];
  readonly #table: number;
  readonly #feed: Feed | null;
  /** Result addresses, in the order they were taken. */
  readonly results: readonly number[];

  constructor(host: Host, spec: EvaluationSpec) {
    const { core, arena } = host;
    const { region, plan } = arena.reserve(spec.where, (base) => planEvaluation(core, spec, base));
    this.#host = host;
    this.#feed = spec.feed ?? null;
    this.#region = region;
    this.#run = plan.run;
    this.#theta = plan.theta;
    this.#extra = plan.extra;
    this.#table = plan.table;
    this.#pass = plan.placed.address;
    this.results = plan.results;
    arena.clear(region);
    writeConstants(arena, plan.constants);
    const { setup, setupEnd } = installPass(arena, plan.placed);
    core.exports.execute(setup, setupEnd);
  }

  /** Sets further leaf `index`, from some position of an array on. */
  set(index: number, values: ArrayLike<number>, from = 0): void {
    const { address, size } = this.#extra[index]!;
    const view = this.#host.arena.reals(address, size);
    if (values instanceof Float64Array) view.set(values.subarray(from, from + size));
    else for (let i = 0; i < size; i++) view[i] = values[from + i]!;
  }

  /** Says where the record of every sample begins, in bytes from the first. */
  choose(offsets: ArrayLike<number>): void {
    this.#host.arena.words(this.#table, offsets.length).set(offsets);
  }

  /** Runs the pass at a theta; samples drawn fresh use the key, purpose and step. */
  run(theta: ArrayLike<number> | null, draw?: { key: Key; purpose: number; step?: number }): void {
    now(this.walk(theta, draw));
  }

  /** The same where samples may have to be waited for; one walk over a feed at a time. */
  *walk(theta: ArrayLike<number> | null, draw?: { key: Key; purpose: number; step?: number }): Steps<void> {
    const { arena, core } = this.#host;
    if (theta !== null) {
      for (const { block, address } of this.#theta) {
        const view = arena.reals(address, block.size);
        if (theta instanceof Float64Array) view.set(theta.subarray(block.offset, block.offset + block.size));
        else for (let i = 0; i < block.size; i++) view[i] = theta[block.offset + i]!;
      }
    }
    writeRun(arena, this.#run, {
      KEY0: draw?.key.key0 ?? 0,
      KEY1: draw?.key.key1 ?? 0,
      FRESH_PURPOSE: draw?.purpose ?? 0,
      STEP: draw?.step ?? 0,
    });
    while (core.exports.evaluate(this.#run, this.#pass) !== 0) {
      if (this.#feed === null) internal("evaluate", "a pass waits for samples that nobody brings");
      yield* this.#feed.fill();
    }
  }

  /** Copies a result out. */
  read(index: number, length: number): RealArray {
    return this.#host.arena.reals(this.results[index]!, length).slice();
  }

  /** Copies a result into an array, from a position on. */
  readInto(out: RealArray | Float64Array, at: number, index: number, length: number): void {
    out.set(this.#host.arena.reals(this.results[index]!, length), at);
  }

  dispose(): void {
    this.#host.arena.release(this.#region);
  }
}

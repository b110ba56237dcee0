import type { RealArray, Region } from "../core/arena.ts";
import { keyOf } from "../core/key.ts";
import type { Steps } from "../core/steps.ts";
import { drawFields, rateFields } from "../graph/instructions.ts";
import type { Model } from "../graph/model.ts";
import { sizeOf } from "../graph/node.ts";
import { getRun, installPass, setRun, writeConstants, writeFields, writeRun } from "../graph/program.ts";
import type { Host } from "../models/evaluate.ts";
import { Feed } from "../models/feed.ts";
import type { Samples } from "../models/samples.ts";
import type { Setting } from "./options.ts";
import { controlOf, type RunPlan } from "./plan.ts";

/** What `advance` returns when its blocks are used up before the chunk. */
export const PAUSED = -2_147_483_648;
/** A budget no call uses up. */
export const ALL_BLOCKS = 4_294_967_295;

/** The region of Wasm memory of a run: its program, its tables, and the states of all replicas. */
export class RunMemory {
  readonly plan: RunPlan;
  readonly #host: Host;
  readonly #model: Model;
  readonly #setting: Setting;
  readonly region: Region;
  /** What brings samples that are not in memory, by its address. */
  readonly #feeds = new Map<number, Feed>();

  /** @param lay lays the run out from a base address */
  constructor(host: Host, model: Model, samples: Samples, setting: Setting, lay: (base: number) => RunPlan) {
    this.#host = host;
    this.#model = model;
    this.#setting = setting;
    const { arena, core } = host;
    const where = setting.scheme.name;
    const key = keyOf(where, setting.seed);
    const { region, plan } = arena.reserve(where, lay);
    this.region = region;
    this.plan = plan;
    arena.clear(region);
    writeConstants(arena, plan.constants);
    const fields = controlOf(plan, setting, key);
    writeRun(arena, plan.run, fields);
    writeRun(arena, plan.lossRun, {
      ...fields,
      // it moves nothing, its rates included
      RATES: 0,
      RATES_VARY: 0,
      PROBE_PASS: plan.lossPass.address,
      EVERY: 0,
      AVERAGE_EVERY: 0,
      TRACE: plan.lossTrace,
      TRACE_RECORD: 8 * plan.choice.groupLanes,
      TRACE_GROUP: 8 * plan.choice.groupLanes,
    });
    for (const placed of [...plan.passes, plan.lossPass, plan.probePass, plan.averagePass]) {
      const { setup, setupEnd } = installPass(arena, placed);
      core.exports.execute(setup, setupEnd);
    }
    this.#writeTables(samples);
    for (const feed of plan.feeds)
      this.#feeds.set(feed.address, new Feed(host, model, samples.reader!, feed));
    this.writeStates();
  }

  /** What a run reads and never changes: passes, rates, draws given or to be made. */
  #writeTables(samples: Samples): void {
    const { arena } = this.#host;
    const plan = this.plan;
    const setting = this.#setting;
    arena.words(plan.passTable, plan.passes.length).set(plan.passes.map((p) => p.address));
    writeFields(arena, plan.rates.address, rateFields, plan.rates.fields);
    arena.doubles(plan.rates.numbersAt, plan.rates.numbers.length).set(plan.rates.numbers);
    const eta = setting.schedule?.table;
    if (eta != null) arena.doubles(plan.rates.etaTable, eta.length).set(eta);
    if (setting.streams !== null) {
      // lanes beyond the replicas draw what the last one does
      const lanes = arena.words(plan.streams, plan.choice.groups * plan.choice.groupLanes + 8);
      for (let l = 0; l < lanes.length; l++) lanes[l] = setting.streams[Math.min(l, setting.replicas - 1)]!;
    }
    if (setting.batches !== null) {
      const table = arena.words(plan.batches, setting.batches.length);
      for (const [i, n] of setting.batches.entries())
        table[i] = samples.reader === null ? n * samples.recordBytes : n;
    }
    if (setting.normals !== null) arena.reals(plan.normals, setting.normals.length).set(setting.normals);
    for (const { address, fields, distinct } of plan.windows) {
      writeFields(arena, address, drawFields, fields);
      if (distinct === 0) continue;
      const table = arena.words(distinct, samples.N);
      for (let n = 0; n < samples.N; n++) table[n] = n;
    }
  }

  /** Address of the saved state of the group of a replica, and the replica's lane in it. */
  #locate(replica: number): { shift: number; lane: number } {
    const { groupLanes, groups } = this.plan.choice;
    const group = Math.floor(replica / groupLanes);
    const { saved, state, stateBytes } = this.plan;
    return { shift: groups > 1 ? saved + group * stateBytes - state : 0, lane: replica % groupLanes };
  }

  /** The states of all replicas at the start. */
  writeStates(): void {
    const { arena } = this.#host;
    const plan = this.plan;
    const setting = this.#setting;
    const { groups, groupLanes } = plan.choice;
    new Uint8Array(arena.buffer, plan.saved, groups * plan.stateBytes).fill(0);
    for (let slot = 0; slot < groups * plan.ld; slot++) {
      const group = Math.floor(slot / plan.ld);
      const lane = slot % plan.ld;
      const replica = Math.min(group * groupLanes + Math.min(lane, groupLanes - 1), setting.replicas - 1);
      // lanes beyond the replicas repeat the last one and stand still, so that they stay finite
      const isReplica = lane < groupLanes && group * groupLanes + lane < setting.replicas;
      const shift = groups > 1 ? plan.saved + group * plan.stateBytes - plan.state : 0;
      this.#startLane(shift, lane, replica, isReplica);
    }
  }

  /** One lane at the start of its replica; a lane that does not move has eta 0. */
  #startLane(shift: number, lane: number, replica: number, moves: boolean): void {
    const { arena } = this.#host;
    const plan = this.plan;
    const setting = this.#setting;
    const { etaBase, dtBase, sigma2, gammas } = plan.rates;
    const setDouble = (address: number, at: number, value: number) => {
      if (address !== 0) arena.doubles(address + shift, at + 1)[at] = value;
    };
    // a list of eta_k takes the place of eta
    const eta = setting.schedule?.table ? 1 : setting.eta[replica]!;
    setDouble(etaBase, lane, moves ? eta : 0);
    setDouble(dtBase, lane, moves && setting.dt !== null ? setting.dt[replica]! : 0);
    setDouble(sigma2, lane, setting.sigma2?.[replica] ?? 0);
    for (const [i, gamma] of setting.gammas.entries()) setDouble(gammas, i * plan.ld + lane, gamma[replica]!);
    for (const { start, address } of plan.numbers)
      arena.reals(address + shift, plan.ld)[lane] = typeof start === "number" ? start : start[replica]!;
    for (const { leaf, address } of [...plan.vectors.values()].flat()) {
      const view = arena.reals(address + shift, sizeOf(leaf.shape) * plan.ld);
      for (let e = 0; e < sizeOf(leaf.shape); e++) view[e * plan.ld + lane] = 0;
    }
    for (const { block, address } of plan.theta) {
      const view = arena.reals(address + shift, block.size * plan.ld);
      for (let e = 0; e < block.size; e++)
        view[e * plan.ld + lane] = setting.theta[replica * this.#model.P + block.offset + e]! + 0; // -0 becomes 0
    }
  }

  /** Theta of a replica now. */
  theta(replica: number): RealArray {
    const { arena } = this.#host;
    const { shift, lane } = this.#locate(replica);
    const out = arena.array(this.#model.P);
    for (const { block, address } of this.plan.theta) {
      const view = arena.reals(address + shift, block.size * this.plan.ld);
      for (let e = 0; e < block.size; e++) out[block.offset + e] = view[e * this.plan.ld + lane]!;
    }
    return out;
  }

  /** Bytes of the states of all replicas. */
  get stateBytes(): number {
    return this.plan.choice.groups * this.plan.stateBytes;
  }

  /** A copy of the states of all replicas. */
  states(): Uint8Array {
    return new Uint8Array(this.#host.arena.buffer, this.plan.saved, this.stateBytes).slice();
  }

  setStates(states: Uint8Array): void {
    new Uint8Array(this.#host.arena.buffer, this.plan.saved, states.length).set(states);
  }

  /** Keeps the states where `restore` finds them, in Wasm. */
  snapshot(): void {
    this.#host.arena.copyBytes(this.plan.snapshot, this.plan.saved, this.stateBytes);
  }

  restore(): void {
    this.#host.arena.copyBytes(this.plan.saved, this.plan.snapshot, this.stateBytes);
  }

  /** Says which step comes next; a chunk that was paused is forgotten. */
  rewind(step: number): void {
    const { arena } = this.#host;
    setRun(arena, this.plan.run, "IS_PAUSED", 0);
    setRun(arena, this.plan.run, "BLOCK_AT", 0);
    setRun(arena, this.plan.run, "STEP", step);
  }

  /** The code of `advance` in assembly/loop.ts; PAUSED also where samples have to be brought, by `bring`. */
  advance(count: number, probeNow: boolean, blocks = ALL_BLOCKS): number {
    return this.#host.core.exports.advance(this.plan.run, count, probeNow ? 1 : 0, blocks);
  }

  /** What a paused call waits for, or null where it has only used up its blocks. */
  get starved(): Feed | null {
    return this.#starved(this.plan.run);
  }

  #starved(run: number): Feed | null {
    return this.#feeds.get(getRun(this.#host.arena, run, "STARVED")) ?? null;
  }

  /** Records that the trace holds, and sums for averages of a replica. */
  get trace(): Float64Array {
    const { recordBytes, traceRecords, trace, choice } = this.plan;
    return this.#host.arena.doubles(trace, (recordBytes / 8) * traceRecords * choice.groups);
  }

  sums(address: number, entries: number, replica: number): Float64Array {
    const { groupLanes } = this.plan.choice;
    const { shift, lane } = this.#locate(replica);
    const view = this.#host.arena.doubles(address + shift, entries * groupLanes);
    return Float64Array.from({ length: entries }, (_, e) => view[e * groupLanes + lane]!);
  }

  /** Minibatch loss of every replica at the present theta, for the batch of this step. */
  *minibatchLosses(step: number): Steps<Float64Array> {
    const { arena, core } = this.#host;
    const { choice, lossRun, lossTrace } = this.plan;
    // explicit batches end with the run, and so does the table they are read from
    setRun(arena, lossRun, "STEP", step);
    setRun(arena, lossRun, "IS_PAUSED", 0);
    setRun(arena, lossRun, "BLOCK_AT", 0);
    while (core.exports.advance(lossRun, 0, 1, ALL_BLOCKS) === PAUSED) yield* this.#starved(lossRun)!.fill();
    return arena.doubles(lossTrace, choice.groups * choice.groupLanes);
  }

  /** Theta of a replica in the snapshot; its lane then stands still at the start. */
  freeze(replica: number): RealArray {
    const { arena } = this.#host;
    const { plan } = this;
    const { shift, lane } = this.#locate(replica);
    const kept = arena.array(this.#model.P);
    const fromSnapshot = plan.snapshot - plan.saved;
    for (const { block, address } of plan.theta) {
      const before = arena.reals(address + shift + fromSnapshot, block.size * plan.ld);
      for (let e = 0; e < block.size; e++) kept[block.offset + e] = before[e * plan.ld + lane]!;
    }
    this.#startLane(shift, lane, replica, false);
    return kept;
  }

  release(): void {
    this.#host.arena.release(this.region);
  }
}

import type { RealArray } from "../core/arena.ts";
import type { Steps } from "../core/steps.ts";
import { turn } from "../core/turn.ts";
import { fail } from "../errors.ts";
import { feedFields } from "../graph/instructions.ts";
import type { Planner, Real } from "../graph/layout.ts";
import type { Model } from "../graph/model.ts";
import { writeFields } from "../graph/program.ts";
import type { Host } from "./evaluate.ts";
import type { Records, Room } from "./reader.ts";

/** Reads that never wait let timers and aborts run this often, at least between two fillings. */
const TURN_MS = 15;

/** What a feed brings: all samples in ascending order, or those that were drawn. */
export type FeedKind = "inOrder" | "drawn";

/** Memory of a feed, laid out. */
export interface FeedPlan {
  readonly kind: FeedKind;
  readonly address: number;
  /** Byte offsets of the records, one per draw; and room for that many draws. */
  readonly offsets: number;
  readonly draws: number;
  /** Room for that many records. */
  readonly data: number;
  readonly slots: number;
  /** Where the table of draws ends that is known from the start. */
  readonly end: number;
  /** Wasm memory of all that, and what the host keeps beside it. */
  readonly bytes: number;
  readonly hostBytes: number;
}

/**
 * Room for the samples of a walk.
 *
 * @param sizes.block draws of one block, all of which must be there at once
 * @param sizes.most  draws that are ever known at a time
 * @param sizes.end   address where they end, 0 where that changes
 */
export function planFeed(
  planner: Planner,
  records: Records,
  real: Real,
  recordBytes: number,
  kind: FeedKind,
  sizes: { readonly block: number; readonly most: number; readonly end: number },
): FeedPlan {
  const draws = Math.min(sizes.most, Math.max(sizes.block, records.room(recordBytes)));
  const slots = Math.min(records.N, draws);
  const start = planner.mark();
  const address = planner.take(4 * feedFields.length);
  const offsets = planner.take(4 * draws);
  // a register is read beyond the last record
  const data = planner.take(slots * recordBytes + 64);
  const lists = kind === "drawn" ? 8 * draws + 16 * slots : 0;
  return {
    kind,
    address,
    offsets,
    draws,
    data,
    slots,
    end: sizes.end,
    bytes: planner.mark() - start,
    hostBytes: lists + records.roomBytes(real),
  };
}

/** Brings the samples that a walk waits for. */
export class Feed {
  readonly plan: FeedPlan;
  readonly #host: Host;
  readonly #model: Model;
  readonly #records: Records;
  /** Null while a read may fill it: one that was abandoned may do so later. */
  #room: Room | null;
  /** Numbers of the drawn records that are in memory, ascending, and the slot of each. */
  #held = new Uint32Array(0);
  #slots = new Uint32Array(0);
  #turned = performance.now();

  constructor(host: Host, model: Model, records: Records, plan: FeedPlan) {
    this.#host = host;
    this.#model = model;
    this.#records = records;
    this.#room = records.makeRoom(host);
    this.plan = plan;
    const { arena } = host;
    writeFields(arena, plan.address, feedFields, { FEED_OFFSETS: plan.offsets, FEED_END: plan.end });
    if (plan.kind === "drawn") return;
    const offsets = arena.words(plan.offsets, plan.draws);
    for (let i = 0; i < offsets.length; i++) offsets[i] = i * this.#recordBytes;
  }

  get #recordBytes(): number {
    return this.#model.recordSize * this.#host.core.real.bytes;
  }

  #field(name: (typeof feedFields)[number]): number {
    return this.#host.arena.words(this.plan.address + 4 * feedFields.indexOf(name), 1)[0]!;
  }

  #set(name: (typeof feedFields)[number], value: number): void {
    this.#host.arena.words(this.plan.address + 4 * feedFields.indexOf(name), 1)[0] = value;
  }

  /** Brings what is waited for, and as much of what follows as there is room for. */
  *fill(): Steps<void> {
    if (performance.now() - this.#turned > TURN_MS) {
      yield turn();
      this.#turned = performance.now();
    }
    const from = this.#field("FEED_WANTED");
    const count = Math.min(this.plan.draws, (this.#field("FEED_END") - from) / 4);
    // half filled is not filled
    this.#set("FEED_TO", 0);
    if (this.plan.kind === "inOrder") yield* this.#readInOrder(from / 4, count);
    else yield* this.#readDrawn(from, count);
    this.#set("FEED_FROM", from);
    this.#set("FEED_TO", from + 4 * count);
  }

  *#columns(start: number, count: number): Steps<readonly RealArray[]> {
    // a reader may have sent its arrays to another thread
    const isThere = this.#room !== null && Object.values(this.#room).every((values) => values.length > 0);
    const room = this.#room !== null && isThere ? this.#room : this.#records.makeRoom(this.#host);
    this.#room = null;
    const columns = yield* this.#records.columns(start, count, room);
    this.#room = room;
    return columns;
  }

  *#readInOrder(first: number, count: number): Steps<void> {
    const { portion } = this.#records;
    for (let done = 0; done < count; done += portion) {
      const n = Math.min(portion, count - done);
      const columns = yield* this.#columns(first + done, n);
      this.#write(done, columns, 0, n, first + done);
    }
  }

  /** Records that are there stay; the others are read in ascending order, in runs of which at most half is read for nothing. */
  *#readDrawn(from: number, count: number): Steps<void> {
    const { arena } = this.#host;
    const wanted = distinct(Uint32Array.from(arena.words(from, count)).sort());
    const { held, slots, missing } = makeRoom(this.#held, this.#slots, wanted, this.plan.slots);
    // should a read fail, nothing is held
    this.#held = this.#slots = new Uint32Array(0);
    for (let i = 0; i < missing.length; ) {
      const first = held[missing[i]!]!;
      let end = i + 1;
      for (; end < missing.length; end++) {
        const span = held[missing[end]!]! - first + 1;
        if (span > this.#records.portion || span > 2 * (end - i + 1)) break;
      }
      const columns = yield* this.#columns(first, held[missing[end - 1]!]! - first + 1);
      for (; i < end; i++) {
        const at = missing[i]!;
        this.#write(slots[at]!, columns, held[at]! - first, 1, held[at]!);
      }
    }
    this.#held = held;
    this.#slots = slots;
    const draws = arena.words(from, count);
    const offsets = arena.words(this.plan.offsets, count);
    for (let i = 0; i < count; i++) offsets[i] = slots[find(held, draws[i]!)]! * this.#recordBytes;
  }

  /** Rows of some columns into slots that follow each other; `n` is the number of the first sample. */
  #write(slot: number, columns: readonly RealArray[], from: number, rows: number, n: number): void {
    const { recordSize, inputs } = this.#model;
    const { arena, core } = this.#host;
    const view = arena.reals(this.plan.data + slot * this.#recordBytes, rows * recordSize);
    for (const [c, { name, size, offset }] of inputs.entries()) {
      const values = columns[c]!;
      let at = from * size;
      for (let row = 0; row < rows; row++) {
        const to = row * recordSize + offset;
        for (let e = 0; e < size; e++) {
          view[to + e] = values[at++]!;
          if (Number.isFinite(view[to + e])) continue;
          const expected = `values must be finite in ${core.dtype}`;
          fail(
            "nonfinite",
            `problem: data.read: ${name}`,
            expected,
            `${values[at - 1]} in sample ${n + row}`,
          );
        }
      }
    }
  }
}

/** Each number of a sorted list once. */
function distinct(sorted: Uint32Array): Uint32Array {
  let count = 0;
  for (let i = 0; i < sorted.length; i++)
    if (i === 0 || sorted[i] !== sorted[i - 1]) sorted[count++] = sorted[i]!;
  return sorted.subarray(0, count);
}

/** Position of a number in a sorted list that has it. */
function find(sorted: Uint32Array, n: number): number {
  let low = 0;
  for (let high = sorted.length - 1; low < high; ) {
    const middle = (low + high) >> 1;
    if (sorted[middle]! < n) low = middle + 1;
    else high = middle;
  }
  return low;
}

/**
 * Slots for wanted records: those that are held keep theirs, of the others as many go as it takes.
 *
 * @param held   numbers of the records that are held, ascending, and the slot of each
 * @param wanted numbers, ascending; at most `room`, the number of all slots
 * @returns what is held then, and the positions in it of what has to be read
 */
function makeRoom(held: Uint32Array, slots: Uint32Array, wanted: Uint32Array, room: number) {
  let known = 0;
  for (let i = 0, j = 0; i < held.length && j < wanted.length; ) {
    if (held[i] === wanted[j]) known++;
    const [a, b] = [held[i]!, wanted[j]!];
    if (a <= b) i++;
    if (b <= a) j++;
  }
  const missing = new Uint32Array(wanted.length - known);
  let leaving = Math.max(0, held.length + missing.length - room);
  const count = held.length + missing.length - leaving;
  const out = { held: new Uint32Array(count), slots: new Uint32Array(count), missing };
  const free: number[] = [];
  let [to, lacking] = [0, 0];
  for (let i = 0, j = 0; i < held.length || j < wanted.length; ) {
    const [a, b] = [held[i] ?? Infinity, wanted[j] ?? Infinity];
    if (a < b && leaving > 0) {
      leaving--;
      free.push(slots[i]!);
    } else {
      out.held[to] = Math.min(a, b);
      if (a <= b) out.slots[to] = slots[i]!;
      else missing[lacking++] = to;
      to++;
    }
    if (a <= b) i++;
    if (b <= a) j++;
  }
  let unused = held.length;
  for (const at of missing) out.slots[at] = unused < room ? unused++ : free.pop()!;
  return out;
}

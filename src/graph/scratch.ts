import { internal } from "../errors.ts";
import type { Code } from "./instructions.ts";
import type { Planner } from "./layout.ts";

/** Stand-in addresses begin here: no word of an instruction is as large. */
const STAND_IN = 0x2_0000_0000;
const ALIGN = 64;

/** The code of a pass by sections; body and tail run any number of times between before and after. */
export interface Sections {
  readonly setup: Code;
  readonly before: Code;
  readonly body: Code;
  readonly tail: Code;
  readonly after: Code;
}

interface Buffer {
  readonly bytes: number;
  /** First and last instruction that names it, counted from `before` on; first > last if none does. */
  first: number;
  last: number;
  /** Named by setup: its values stay. */
  pinned: boolean;
  address: number;
}

/**
 * Scratch buffers of one pass. While instructions are emitted, a buffer has a stand-in address of its
 * own; `settle` then places buffers so that those in use at the same time do not overlap, which keeps
 * the working set in the caches, and puts the addresses into the code.
 *
 * A buffer is in use from the first instruction that names it to the last. One named in the body and
 * outside it is in use during the whole walk over the blocks. So a buffer may hold anything when its
 * first instruction begins, and no kernel may read what it has not written, except into padding that
 * nobody reads.
 */
export class Scratch {
  /** Stand-ins ascend, so a buffer is found by bisection. */
  readonly #starts: number[] = [];
  readonly #buffers: Buffer[] = [];
  #next = STAND_IN;

  /** A buffer of some bytes, by its stand-in address. */
  take(bytes: number): number {
    const start = this.#next;
    this.#starts.push(start);
    this.#buffers.push({ bytes, first: Infinity, last: -1, pinned: false, address: 0 });
    this.#next = start + Math.max(ALIGN, Math.ceil(bytes / ALIGN) * ALIGN);
    return start;
  }

  /** Places the buffers with a planner and writes their addresses into the code. */
  settle(planner: Planner, sections: Sections): void {
    this.#follow(sections);
    const shared: Buffer[] = [];
    for (const buffer of this.#buffers) {
      if (buffer.pinned) buffer.address = planner.take(buffer.bytes);
      else if (buffer.last >= buffer.first) shared.push(buffer);
    }
    const base = planner.take(0);
    let size = 0;
    shared.sort((a, b) => a.first - b.first);
    /** Buffers in use at the place that is looked at, by address. */
    let live: Buffer[] = [];
    for (const buffer of shared) {
      live = live.filter((other) => other.last >= buffer.first);
      let offset = 0;
      let at = 0;
      for (; at < live.length; at++) {
        const other = live[at]!;
        if (other.address - base >= offset + buffer.bytes) break;
        offset = Math.ceil((other.address - base + other.bytes) / ALIGN) * ALIGN;
      }
      buffer.address = base + offset;
      live.splice(at, 0, buffer);
      size = Math.max(size, offset + buffer.bytes);
    }
    planner.release(base);
    planner.take(size);
    for (const code of Object.values(sections)) {
      code.rewrite((word: number) => {
        if (word < STAND_IN) return word;
        const i = this.#find(word);
        return this.#buffers[i]!.address + word - this.#starts[i]!;
      });
    }
  }

  /** Finds from where to where in the code every buffer is in use. */
  #follow({ setup, before, body, tail, after }: Sections): void {
    const walk = { start: before.length, end: before.length + body.length + tail.length - 1 };
    let start = 0;
    for (const code of [before, body, tail, after]) {
      const inWalk = code === body || code === tail;
      code.visit((instruction, word) => {
        if (word < STAND_IN) return;
        const buffer = this.#buffers[this.#find(word)]!;
        const at = start + instruction;
        const outside = inWalk ? buffer.first < start : buffer.last >= walk.start && buffer.first <= walk.end;
        buffer.first = Math.min(buffer.first, at);
        buffer.last = Math.max(buffer.last, at);
        if (outside) {
          buffer.first = Math.min(buffer.first, walk.start);
          buffer.last = Math.max(buffer.last, walk.end);
        }
      });
      start += code.length;
    }
    setup.visit((_, word) => {
      if (word >= STAND_IN) this.#buffers[this.#find(word)]!.pinned = true;
    });
  }

  /** Index of the buffer a stand-in lies in. */
  #find(word: number): number {
    let low = 0;
    let high = this.#starts.length;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (this.#starts[middle]! <= word) low = middle;
      else high = middle;
    }
    if (high === 0 || word >= this.#next) internal("lower", "a stand-in address belongs to no buffer");
    return low;
  }
}

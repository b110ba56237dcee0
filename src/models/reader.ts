import type { RealArray } from "../core/arena.ts";
import type { Steps } from "../core/steps.ts";
import { checkInteger, checkKnown, checkNumber, fail, show } from "../errors.ts";
import type { Real } from "../graph/layout.ts";
import type { Model } from "../graph/model.ts";
import { flatten, isRecord } from "../graph/parse.ts";
import type { Host } from "./evaluate.ts";

/** Arrays by input name that `read` may fill. */
export type Room = Readonly<Record<string, RealArray>>;

/** Some samples: an array per input, one sample after the other, nested or flat row-major, typed or not. */
export type Columns = Readonly<Record<string, unknown>>;

/**
 * Data that are read on the way, for sets that do not fit into memory or should not be copied.
 *
 * @example
 * const constant = { N: 1e6, read: (_start: number, _count: number, { x, y }: Record<string, Float64Array>) => ({ x: x!.fill(1), y: y!.fill(0) }) };
 * (await engine.problem(net, constant).loss(new Array(20).fill(0.5))) // 18; |U W 1|^2
 */
export interface Reader {
  /** Number of samples, at most 1,000,000,000. */
  readonly N: number;
  /**
   * Samples start, ..., start + count - 1, at once or by a promise: `count` of each input, and the same numbers every time. What it
   * throws reaches whoever asked for a result. It must not wait for a measurement of its own problem, which waits for it.
   *
   * @param room arrays of the right lengths by input name, to be filled and returned; they are used again for the next call. Arrays of
   *             your own are as good, but stay in memory until they are collected
   */
  read(start: number, count: number, room: Room): Columns | Promise<Columns>;
  /** Bytes of samples kept in memory at a time, per walk over the data; 16 MiB when absent. It changes speed, and no bit. */
  readonly bufferBytes?: number;
}

const MAX_SAMPLES = 1_000_000_000;
const BUFFER_BYTES = 16 * 1024 * 1024;
const MAX_BUFFER_BYTES = 2_147_483_648;
/** What is kept beside each sample that is drawn: its number, its place, and lists to find them. */
const DRAW_BYTES = 32;
/** Values of one call of read. */
const READ_VALUES = 131_072;

/** Whether data are given by a function: an object with a `read` that is one. */
export function isReader(data: unknown): data is Reader {
  return isRecord(data) && typeof data["read"] === "function";
}

/** The samples of a reader as records, all inputs of a sample side by side. */
export class Records {
  readonly N: number;
  readonly bufferBytes: number;
  /** Samples a call of read is asked for at most: 1 MiB of numbers. */
  readonly portion: number;
  readonly #read: Reader["read"];
  readonly #model: Model;

  constructor(model: Model, reader: Reader) {
    const where = "problem: data";
    // an object of a class may have fields of its own
    if (Object.getPrototypeOf(reader) === Object.prototype)
      checkKnown(where, reader, ["N", "read", "bufferBytes"]);
    this.N = checkInteger(where, "N", reader.N, 1, MAX_SAMPLES);
    this.bufferBytes = checkNumber(
      where,
      "bufferBytes",
      reader.bufferBytes === undefined ? BUFFER_BYTES : reader.bufferBytes,
      1,
      MAX_BUFFER_BYTES,
    );
    this.#read = (...call) => reader.read(...call);
    this.#model = model;
    const portion = Math.floor(READ_VALUES / Math.max(1, model.recordSize));
    this.portion = Math.max(1, Math.min(this.N, portion));
  }

  /** Samples that fit into the buffer. */
  room(recordBytes: number): number {
    return Math.max(1, Math.floor(this.bufferBytes / (recordBytes + DRAW_BYTES)));
  }

  /** Bytes of the room that one call of read may fill. */
  roomBytes(real: Real): number {
    return real.bytes * this.portion * this.#model.recordSize;
  }

  /** Room for the calls of one walk, each after the other. */
  makeRoom({ arena }: Host): Room {
    return Object.fromEntries(
      this.#model.inputs.map(({ name, size }) => [name, arena.array(this.portion * size)]),
    );
  }

  /** Calls read and checks what comes: flat columns in the order of the model's inputs. */
  *columns(start: number, count: number, room: Room): Steps<RealArray[]> {
    const parts = this.#model.inputs.map(({ name, size }) => [name, room[name]!.subarray(0, count * size)]);
    const result = this.#read(start, count, Object.fromEntries(parts));
    const given = isThenable(result) ? yield Promise.resolve(result) : result;
    const where = `problem: data.read(${start}, ${count})`;
    const { inputs } = this.#model;
    if (!isRecord(given)) {
      const names = inputs.map((i) => i.name).join(", ");
      return fail("shape", where, `must return arrays { ${names} }, or a promise of them`, show(given));
    }
    for (const key of Object.keys(given))
      if (!inputs.some((i) => i.name === key)) {
        const names = inputs.map((i) => i.name).join(", ") || "none";
        fail("name", where, `the inputs of the model are ${names}`, show(key));
      }
    return inputs.map(({ name, shape, size }) => {
      const value = Object.hasOwn(given, name) ? given[name] : undefined;
      if (value === undefined)
        return fail(
          "name",
          where,
          `must return input ${name}, ${count} samples of shape [${shape.join(", ")}]`,
          "nothing",
        );
      if ((value instanceof Float64Array || value instanceof Float32Array) && value.length === count * size)
        return value;
      return flatten(`${where}.${name}`, value, count * size, [count, ...shape]);
    });
  }
}

function isThenable(value: unknown): value is Promise<unknown> {
  return typeof (value as { then?: unknown } | null | undefined)?.then === "function";
}

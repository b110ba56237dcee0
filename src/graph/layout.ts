import { internal } from "../errors.ts";
import type { Code } from "./instructions.ts";
import { isSampleValue, type Node, sizeOf } from "./node.ts";
import type { Scratch } from "./scratch.ts";

/**
 * What runs in the lanes of a SIMD register: samples of one replica's batch, replicas that walk
 * their batches one sample at a time, or the features of one sample of one replica. The bits of
 * every result are the same whichever it is.
 */
export type Lanes = "samples" | "replicas" | "features";

/** Values of `real` in one register, and bytes of one value. */
export interface Real {
  readonly bytes: 4 | 8;
  readonly perRegister: 2 | 4;
}

/** ld of a number of lanes: whole registers. */
export function paddedLanes(real: Real, lanes: number): number {
  return Math.ceil(lanes / real.perRegister) * real.perRegister;
}

/** Bump allocation of byte addresses in one region; nothing is written. */
export class Planner {
  #next: number;
  #peak: number;

  constructor(base: number) {
    this.#next = base;
    this.#peak = base;
  }

  /** 64-byte aligned. */
  take(byteCount: number): number {
    const address = Math.ceil(this.#next / 64) * 64;
    this.#next = address + Math.max(byteCount, 1);
    this.#peak = Math.max(this.#peak, this.#next);
    return address;
  }

  mark(): number {
    return this.#next;
  }

  /** Gives back everything taken since the mark. */
  release(mark: number): void {
    this.#next = mark;
  }

  get end(): number {
    return Math.ceil(this.#peak / 64) * 64;
  }
}

/** A value in memory: natural layout [elements] or [elements][ld]. */
export interface Place {
  readonly address: number;
  readonly laned: boolean;
}

/** A place read with strides, in elements: entry (i, j) at i * rowStride + j * colStride. */
export interface View extends Place {
  readonly rowStride: number;
  readonly colStride: number;
}

/** A copy [lanes][...] of a laned value. */
export interface SampleMajor {
  readonly address: number;
  readonly stride: number;
}

/** Where code goes and how wide its lanes are. */
export interface Section {
  readonly code: Code;
  readonly lanes: number;
  readonly ld: number;
  /** Values known in this section. */
  readonly places: Map<Node, Place>;
  /** Sample-major copies made in this section: where, and values from one lane to the next. */
  readonly sampleMajor: Map<string, SampleMajor>;
  /** Inputs by the address they were gathered to: where they lie in the records of the data. */
  readonly records: Map<number, { readonly data: number; readonly offset: number }>;
}

/** Which values have lanes, and where values lie. */
export class Layout {
  constructor(
    readonly real: Real,
    readonly lanes: Lanes,
    readonly scratch: Scratch,
  ) {}

  isLaned(node: Node): boolean {
    if (this.lanes === "replicas") return node.varies !== 0;
    return this.lanes === "samples" && isSampleValue(node);
  }

  /** Values per element in a section. */
  width(node: Node, section: Section): number {
    return this.isLaned(node) ? section.ld : 1;
  }

  /** Room for some values; a whole register beyond the end may be touched. */
  take(values: number): number {
    return this.scratch.take((values + this.real.perRegister) * this.real.bytes);
  }

  /** Gives a node a buffer of its own and returns its address. */
  place(node: Node, section: Section): number {
    const address = this.take(sizeOf(node.shape) * this.width(node, section));
    section.places.set(node, { address, laned: this.isLaned(node) });
    return address;
  }

  at(node: Node, section: Section): Place {
    return section.places.get(node) ?? internal("lower", `${node.op} was not computed before its use`);
  }

  /** A node as an operand of a product; a transpose without a buffer is a choice of strides. */
  view(node: Node, section: Section): View {
    if (node.op === "transpose" && !section.places.has(node)) {
      const inner = this.view(node.args[0]!, section);
      return { ...inner, rowStride: inner.colStride, colStride: inner.rowStride };
    }
    const rowStride = node.shape.length === 2 ? node.shape[1]! : 1;
    return { ...this.at(node, section), rowStride, colStride: 1 };
  }

  /** Address of a value with lanes; one that is the same in all of them is copied there. */
  inLanes(node: Node, section: Section): number {
    const { address, laned } = this.at(node, section);
    return laned || section.ld === 1 ? address : this.spread(address, sizeOf(node.shape), section);
  }

  /** A uniform value for every lane. */
  spread(address: number, elements: number, section: Section): number {
    const dst = this.take(elements * section.ld);
    section.code.emit("spreadLanes", { dst, a: address, elements, ld: section.ld });
    return dst;
  }

  /** [lanes][outer][inner] copy of a view, shared by all who need the same one in this section. */
  sampleMajor(view: View, outer: number, inner: number, section: Section): SampleMajor {
    const key = `${view.address}|${outer}|${inner}|${view.rowStride}|${view.colStride}`;
    const known = section.sampleMajor.get(key);
    if (known !== undefined) return known;
    const { code, lanes, ld, records } = section;
    const dim = outer * inner;
    const record = records.get(view.address);
    const dst = this.take(dim * lanes);
    const [so, si] = [view.rowStride, view.colStride];
    if (record !== undefined && (outer === 1 || so === inner * si) && (inner === 1 ? so : si) === 1) {
      // as it lies in the data: copied from there
      code.emit("gatherRows", { dst, ...record, dim, lanes });
    } else {
      const a = view.laned ? view.address : this.spread(view.address, dim, section);
      code.emit("laneTranspose", { dst, a, outer, inner, so, si, lanes, ld });
    }
    const copy = { address: dst, stride: dim };
    section.sampleMajor.set(key, copy);
    return copy;
  }
}

export function asMatrix(shape: readonly number[]): [number, number] {
  return [shape.length === 2 ? shape[0]! : 1, shape.at(-1) ?? 1];
}

/** Element strides of an operand read at the entries of a result it broadcasts to. */
export function broadcastStrides(from: readonly number[], to: readonly number[]): [number, number] {
  const [rows, cols] = asMatrix(from);
  const [toRows, toCols] = asMatrix(to);
  return [rows === 1 && toRows !== 1 ? 0 : cols, cols === 1 && toCols !== 1 ? 0 : 1];
}

/** Outer, reduced and inner sizes around an axis, lanes counted as inner. */
export function alongAxis(
  arg: Node,
  axis: number,
  width: number,
): { outer: number; count: number; inner: number } {
  const [rows, cols] = asMatrix(arg.shape);
  if (arg.shape.length === 2 && axis === 0) return { outer: 1, count: rows, inner: cols * width };
  return { outer: arg.shape.length === 2 ? rows : 1, count: cols, inner: width };
}

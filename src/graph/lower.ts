import { internal } from "../errors.ts";
import { Code } from "./instructions.ts";
import { type Node, reachable, sizeOf, VARIES_WITH_SAMPLE } from "./node.ts";

/**
 * What runs in the lanes of a SIMD register: samples of one replica's batch, or replicas that walk
 * their batches one sample at a time. The bits of every result are the same either way.
 */
export type Lanes = "samples" | "replicas";

/** Values of `real` in one register, and bytes of one value. */
export interface Real {
  readonly bytes: 4 | 8;
  readonly perRegister: 2 | 4;
}

/** Bump allocation of byte addresses in one region; nothing is written. */
export class Planner {
  #next: number;
  #peak: number;

  constructor(base: number) {
    this.#next = base;
    this.#peak = base;
  }

  /** 64-byte aligned, and padded so that whole vectors may be read and written at the end. */
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

/** Where the samples of a pass come from. */
export interface Source {
  /** Samples in the pass. */
  readonly samples: number;
  /** Address of the data records, or null when samples are drawn fresh. */
  readonly data: number | null;
  /** Every replica reads the same record. */
  readonly shared: boolean;
  /** Offset of an input in a record, in values. */
  readonly offsets: ReadonlyMap<Node, number>;
  /** First Philox block of a random leaf within a sample, and blocks per sample. */
  readonly noise: ReadonlyMap<Node, number>;
  readonly noiseBlocks: number;
}

/** What a pass is for. Effects of one pass may share every value below them. */
export type Effect =
  /** theta_block = decay theta_block - eta gradient; a null gradient only decays. */
  | {
      readonly kind: "update";
      readonly theta: number;
      readonly size: number;
      readonly gradient: Node | null;
      readonly eta: number;
      readonly decay: number;
    }
  /** work[lane] += eta^2 value */
  | { readonly kind: "work"; readonly value: Node; readonly address: number; readonly eta: number }
  /** Writes the entries of a value to the trace, from a slot on (slots are [entry][lane]). */
  | { readonly kind: "record"; readonly value: Node; readonly slot: number }
  /** Writes accumulated work to the trace. */
  | { readonly kind: "recordWork"; readonly address: number; readonly slot: number }
  /** Per-sample results, sample-major. */
  | {
      readonly kind: "storeSamples";
      readonly value: Node;
      readonly address: number;
      readonly stride: number;
      readonly offset: number;
    }
  /** Copies a value of parameters out of the scratch. */
  | { readonly kind: "output"; readonly value: Node; readonly address: number };

/** The code of one pass, ready to be written, and how it walks the batch. */
export interface Pass {
  readonly setup: Code;
  readonly before: Code;
  readonly body: Code;
  readonly tail: Code;
  readonly after: Code;
  readonly blocks: number;
  readonly blockLanes: number;
}

export interface LowerOptions {
  readonly real: Real;
  readonly lanes: Lanes;
  /** Replicas in the lanes; 1 when samples are. */
  readonly replicas: number;
  /** Samples per block when samples are in the lanes. */
  readonly block: number;
  readonly source: Source;
  /** Address of a parameter block: [elements], or [elements][ld] with replicas in the lanes. */
  readonly params: ReadonlyMap<Node, number>;
  /** Receives constants to be written at an address. */
  readonly constant: (node: Node, address: number) => void;
  readonly planner: Planner;
}

/** A value in memory: natural layout [elements] or [elements][ld]. */
interface Place {
  readonly address: number;
  readonly laned: boolean;
}

/** A place read with strides, in elements: entry (i, j) at i * rowStride + j * colStride. */
interface View extends Place {
  readonly rowStride: number;
  readonly colStride: number;
}

type Stage = "setup" | "before" | "body" | "after";

/** Where code goes and how wide its lanes are. */
interface Section {
  readonly code: Code;
  readonly lanes: number;
  readonly ld: number;
  /** Values of this section, over those of the sections before it. */
  readonly places: Map<Node, Place>;
  /** Sample-major copies made in this section. */
  readonly sampleMajor: Map<string, number>;
}

/** ld of a number of lanes: whole registers. */
export function paddedLanes(real: Real, lanes: number): number {
  return Math.ceil(lanes / real.perRegister) * real.perRegister;
}

/**
 * Lowers the effects of one pass to instructions.
 *
 * A value is computed in the earliest stage it can be: constants once in `setup`, values of
 * parameters once per step in `before`, values of a sample in `body` (emitted twice, for full
 * blocks and for the rest of the batch), values behind a sum over the batch in `after`. Updates
 * come last, after everything that reads theta.
 */
export function lower(effects: readonly Effect[], options: LowerOptions): Pass {
  return new Lowering(options).run(effects);
}

class Lowering {
  readonly #o: LowerOptions;
  readonly #byReplica: boolean;
  readonly #accumulators = new Map<Node, { total: number; partial: number }>();
  readonly #code = { setup: new Code(), before: new Code(), after: new Code() };

  constructor(options: LowerOptions) {
    this.#o = options;
    this.#byReplica = options.lanes === "replicas";
  }

  run(effects: readonly Effect[]): Pass {
    const { source, planner } = this.#o;
    const roots = effects.flatMap((e) =>
      "value" in e ? [e.value] : e.kind === "update" && e.gradient ? [e.gradient] : [],
    );
    const order = reachable(roots).filter((n) => n.op !== "param" || this.#o.params.has(n));
    const stages = new Map(order.map((n) => [n, stageOf(n)]));
    const used = this.#materialised(order, roots);

    const replicaLanes = this.#byReplica ? this.#o.replicas : 1;
    const outerLd = this.#byReplica ? paddedLanes(this.#o.real, replicaLanes) : 1;
    const places = new Map<Node, Place>();
    const outside = (code: Code): Section => ({
      code,
      lanes: replicaLanes,
      ld: outerLd,
      places,
      sampleMajor: new Map(),
    });
    const setup = outside(this.#code.setup);
    const before = outside(this.#code.before);
    const after = outside(this.#code.after);

    for (const node of order) {
      if (stages.get(node) === "setup" && used.has(node)) this.#emit(node, setup);
    }
    for (const node of order) {
      if (stages.get(node) === "before" && used.has(node)) this.#emit(node, before);
    }
    for (const node of order) if (node.op === "batch_sum") this.#openAccumulator(node, before);

    // the body, once for full blocks and once for the rest, in the same scratch
    const width = this.#byReplica ? 1 : Math.max(1, Math.min(this.#o.block, source.samples));
    const blocks = Math.floor(source.samples / width);
    const rest = this.#byReplica ? 0 : source.samples - blocks * width;
    const mark = planner.mark();
    const emitBody = (lanes: number): Code => {
      planner.release(mark);
      const code = new Code();
      const inner: Section = {
        code,
        lanes: this.#byReplica ? replicaLanes : lanes,
        ld: this.#byReplica ? outerLd : paddedLanes(this.#o.real, lanes),
        places: new Map(places),
        sampleMajor: new Map(),
      };
      for (const node of order) {
        if (stages.get(node) === "body" && used.has(node)) this.#emit(node, inner);
        if (node.op === "batch_sum") this.#accumulate(node, inner);
      }
      for (const effect of effects) if (effect.kind === "storeSamples") this.#storeSamples(effect, inner);
      return code;
    };
    const body = emitBody(width);
    const tail = rest > 0 ? emitBody(rest) : new Code();
    for (const node of order) {
      if (node.op === "batch_sum") this.#closeAccumulator(node, after);
      else if (stages.get(node) === "after" && used.has(node)) this.#emit(node, after);
    }
    for (const effect of effects) this.#finish(effect, after);
    for (const effect of effects) if (effect.kind === "update") this.#update(effect, after);
    return { ...this.#code, body, tail, blocks, blockLanes: width };
  }

  /**
   * Nodes that need a buffer of their own. Transposes read by products alone are strides, and
   * outer or matrix products read by a sum over the batch alone are accumulated as they arise.
   */
  #materialised(order: readonly Node[], roots: readonly Node[]): Set<Node> {
    const used = new Set<Node>(roots);
    for (let i = order.length - 1; i >= 0; i--) {
      const node = order[i]!;
      const isSum = node.op === "batch_sum";
      if (!used.has(node) && !isSum) continue;
      for (const arg of node.args) {
        if (isSum && isFused(arg)) for (const inner of arg.args) used.add(viewed(inner));
        else if (node.op === "matmul") used.add(viewed(arg));
        else used.add(arg);
      }
    }
    return used;
  }

  #laned(node: Node): boolean {
    return this.#byReplica ? node.varies !== 0 : (node.varies & VARIES_WITH_SAMPLE) !== 0;
  }

  #width(node: Node, section: Section): number {
    return this.#laned(node) ? section.ld : 1;
  }

  #take(values: number): number {
    // a whole register beyond the end may be touched
    return this.#o.planner.take((values + this.#o.real.perRegister) * this.#o.real.bytes);
  }

  #place(node: Node, section: Section): Place {
    const place: Place = {
      address: this.#take(sizeOf(node.shape) * this.#width(node, section)),
      laned: this.#laned(node),
    };
    section.places.set(node, place);
    return place;
  }

  #at(node: Node, section: Section): Place {
    return section.places.get(node) ?? internal("lower", `${node.op} was not computed before its use`);
  }

  /** A node as an operand of a product. */
  #view(node: Node, section: Section): View {
    if (node.op === "transpose" && !section.places.has(node)) {
      const inner = this.#view(node.args[0]!, section);
      return { ...inner, rowStride: inner.colStride, colStride: inner.rowStride };
    }
    return {
      ...this.#at(node, section),
      rowStride: node.shape.length === 2 ? node.shape[1]! : 1,
      colStride: 1,
    };
  }

  /** A value with lanes, copied into all of them when it is the same in all. */
  #inLanes(node: Node, section: Section): number {
    const place = this.#at(node, section);
    if (place.laned || section.ld === 1) return place.address;
    return this.#spread(place.address, sizeOf(node.shape), section);
  }

  #spread(address: number, elements: number, section: Section): number {
    const dst = this.#take(elements * section.ld);
    section.code.emit("spreadLanes", { dst, a: address, elements, ld: section.ld });
    return dst;
  }

  #emit(node: Node, section: Section): void {
    const { code, ld, lanes } = section;
    const elements = sizeOf(node.shape);
    const width = this.#width(node, section);
    switch (node.op) {
      case "param":
        section.places.set(node, { address: this.#o.params.get(node)!, laned: this.#byReplica });
        return;
      case "number":
      case "constant":
        this.#o.constant(node, this.#place(node, section).address);
        return;
      case "input": {
        const { data, offsets, shared } = this.#o.source;
        const offset = offsets.get(node);
        if (data === null || offset === undefined)
          return internal("lower", `input ${node.attrs.name} has no data`);
        const dst = this.#place(node, section).address;
        code.emit("gather", {
          dst,
          data,
          offset,
          dim: elements,
          lanes,
          ld,
          shared: this.#byReplica && shared ? 1 : 0,
        });
        return;
      }
      case "noise": {
        const block = this.#o.source.noise.get(node);
        if (block === undefined)
          return internal("lower", `random leaf ${node.attrs.name} is not of this source`);
        const kind = ["normal", "uniform", "sign", "index"].indexOf(node.attrs.kind!);
        code.emit("noise", {
          dst: this.#place(node, section).address,
          kind,
          elements,
          lanes,
          ld,
          block,
          perSample: this.#o.source.noiseBlocks,
          below: node.attrs.below ?? 0,
          byReplica: this.#byReplica ? 1 : 0,
        });
        return;
      }
      case "reshape":
        section.places.set(node, this.#at(node.args[0]!, section));
        return;
      case "transpose": {
        const a = this.#at(node.args[0]!, section);
        const [rows, cols] = node.shape as [number, number];
        code.emit("copyStrided", {
          dst: this.#place(node, section).address,
          a: a.address,
          rows,
          cols,
          ars: 1,
          acs: rows,
          ld: width,
        });
        return;
      }
      case "broadcast_to": {
        const arg = node.args[0]!;
        const [rows, cols] = asMatrix(node.shape);
        const [ars, acs] = broadcastStrides(arg.shape, node.shape);
        code.emit("copyStrided", {
          dst: this.#place(node, section).address,
          a: this.#at(arg, section).address,
          rows,
          cols,
          ars,
          acs,
          ld: width,
        });
        return;
      }
      case "add":
      case "sub":
      case "mul":
      case "div":
        return this.#binary(node.op, node, section);
      case "outer": {
        const [m, n] = node.shape as [number, number];
        return this.#broadcast("mul", node, section, [m, n], [1, 0], [0, 1]);
      }
      case "matmul":
        return this.#matmul(node, this.#place(node, section).address, section);
      case "scale":
        code.emit("scale", {
          dst: this.#place(node, section).address,
          a: this.#at(node.args[0]!, section).address,
          n: elements * width,
          imm: node.attrs.c!,
        });
        return;
      case "sum":
      case "sqnorm": {
        const arg = node.args[0]!;
        const a = this.#at(arg, section).address;
        const dst = this.#place(node, section).address;
        if (node.op === "sqnorm") code.emit("sumSquares", { dst, a, elements: sizeOf(arg.shape), ld: width });
        else if (node.attrs.axis == null)
          code.emit("sumAll", { dst, a, elements: sizeOf(arg.shape), ld: width });
        else code.emit("sumAxis", { dst, a, ...alongAxis(arg, node.attrs.axis, width) });
        return;
      }
      case "softmax":
      case "logsumexp": {
        const arg = node.args[0]!;
        const a = this.#at(arg, section).address;
        code.emit(node.op, {
          dst: this.#place(node, section).address,
          a,
          ...alongAxis(arg, node.attrs.axis!, width),
        });
        return;
      }
      default:
        // every other op is a flat elementwise kernel named after it
        code.emit(node.op, {
          dst: this.#place(node, section).address,
          a: this.#at(node.args[0]!, section).address,
          n: elements * width,
        });
    }
  }

  #binary(op: string, node: Node, section: Section): void {
    const [a, b] = [node.args[0]!, node.args[1]!];
    const [pa, pb] = [this.#at(a, section), this.#at(b, section)];
    const elements = sizeOf(node.shape);
    if (pa.laned === pb.laned && sizeOf(a.shape) === elements && sizeOf(b.shape) === elements) {
      section.code.emit(op, {
        dst: this.#place(node, section).address,
        a: pa.address,
        b: pb.address,
        n: elements * this.#width(node, section),
      });
      return;
    }
    this.#broadcast(
      op,
      node,
      section,
      asMatrix(node.shape),
      broadcastStrides(a.shape, node.shape),
      broadcastStrides(b.shape, node.shape),
    );
  }

  #broadcast(
    op: string,
    node: Node,
    section: Section,
    [rows, cols]: [number, number],
    [ars, acs]: [number, number],
    [brs, bcs]: [number, number],
  ): void {
    const [pa, pb] = [this.#at(node.args[0]!, section), this.#at(node.args[1]!, section)];
    section.code.emit(`${op}Broadcast`, {
      dst: this.#place(node, section).address,
      a: pa.address,
      b: pb.address,
      rows,
      cols,
      ars,
      acs,
      brs,
      bcs,
      ld: this.#width(node, section),
      lanedA: pa.laned ? 1 : 0,
      lanedB: pb.laned ? 1 : 0,
    });
  }

  /** dst = a b in the layout the operands are in. */
  #matmul(node: Node, dst: number, section: Section): void {
    const { code, ld } = section;
    const { m, n, k, a, b } = this.#operands(node, section);
    if (!a.laned && !b.laned) return this.#uniformMatmul(dst, a, b, m, n, k, section);
    if (!a.laned && b.colStride === 1 && b.rowStride === n) {
      // a laned right factor is a k x (n ld) matrix
      if (a.colStride === 1)
        code.emit("matmulNN", {
          dst,
          a: a.address,
          b: b.address,
          m,
          n: n * ld,
          k,
          ldd: n * ld,
          lda: a.rowStride,
          ldb: n * ld,
          accumulate: 0,
        });
      else
        code.emit("matmulTN", {
          dst,
          a: a.address,
          b: b.address,
          m,
          n: n * ld,
          k,
          ldd: n * ld,
          lda: a.colStride,
          ldb: n * ld,
          accumulate: 0,
        });
      return;
    }
    if (a.laned && !b.laned && m === 1 && a.colStride === 1) {
      // vector times matrix: the transposed product, with the vector as a k x ld matrix
      if (b.colStride === 1)
        code.emit("matmulTN", {
          dst,
          a: b.address,
          b: a.address,
          m: n,
          n: ld,
          k,
          ldd: ld,
          lda: b.rowStride,
          ldb: ld,
          accumulate: 0,
        });
      else
        code.emit("matmulNN", {
          dst,
          a: b.address,
          b: a.address,
          m: n,
          n: ld,
          k,
          ldd: ld,
          lda: b.colStride,
          ldb: ld,
          accumulate: 0,
        });
      return;
    }
    this.#lanedMatmul(dst, a, b, m, n, k, 0, section);
  }

  #lanedMatmul(
    dst: number,
    a: View,
    b: View,
    m: number,
    n: number,
    k: number,
    accumulate: number,
    section: Section,
  ): void {
    const name = a.laned ? (b.laned ? "matmulLaned" : "matmulLanedUniform") : "matmulUniformLaned";
    section.code.emit(name, {
      dst,
      a: a.address,
      b: b.address,
      m,
      n,
      k,
      ai: a.rowStride,
      ap: a.colStride,
      bp: b.rowStride,
      bj: b.colStride,
      ld: section.ld,
      accumulate,
    });
  }

  #uniformMatmul(dst: number, a: View, b: View, m: number, n: number, k: number, section: Section): void {
    let right = b;
    if (right.colStride !== 1 && n > 1) {
      const copy = this.#take(k * n);
      section.code.emit("copyStrided", {
        dst: copy,
        a: b.address,
        rows: k,
        cols: n,
        ars: b.rowStride,
        acs: b.colStride,
        ld: 1,
      });
      right = { address: copy, laned: false, rowStride: n, colStride: 1 };
    }
    const common = {
      dst,
      a: a.address,
      b: right.address,
      m,
      n,
      k,
      ldd: n,
      ldb: right.rowStride,
      accumulate: 0,
    };
    if (a.colStride === 1) section.code.emit("matmulNN", { ...common, lda: a.rowStride });
    else section.code.emit("matmulTN", { ...common, lda: a.colStride });
  }

  /** Sizes and views of a product, vectors seen as one row or one column; outer products have k = 1. */
  #operands(node: Node, section: Section): { m: number; n: number; k: number; a: View; b: View } {
    const [left, right] = [node.args[0]!, node.args[1]!];
    let a = this.#view(left, section);
    let b = this.#view(right, section);
    if (node.op === "outer") {
      return {
        m: left.shape[0]!,
        n: right.shape[0]!,
        k: 1,
        a: { ...a, rowStride: 1, colStride: 1 },
        b: { ...b, rowStride: right.shape[0]!, colStride: 1 },
      };
    }
    const k = left.shape.at(-1)!;
    const m = left.shape.length === 2 ? left.shape[0]! : 1;
    const n = right.shape.length === 2 ? right.shape[1]! : 1;
    if (left.shape.length === 1) a = { ...a, rowStride: k, colStride: 1 };
    if (right.shape.length === 1) b = { ...b, rowStride: 1, colStride: 1 };
    return { m, n, k, a, b };
  }

  #openAccumulator(node: Node, section: Section): void {
    const values = sizeOf(node.shape) * section.ld;
    const total = this.#take(values);
    const partial = node.shape.length === 0 ? this.#take(values) : 0;
    section.code.emit("fill", { dst: total, n: values, imm: 0 });
    if (partial !== 0) section.code.emit("fill", { dst: partial, n: values, imm: 0 });
    this.#accumulators.set(node, { total, partial });
    section.places.set(node, { address: total, laned: this.#byReplica });
  }

  /** Adds the block's samples to a sum over the batch, each entry in ascending sample order. */
  #accumulate(node: Node, section: Section): void {
    const { code, lanes, ld } = section;
    const { total, partial } = this.#accumulators.get(node)!;
    const arg = node.args[0]!;
    if (node.shape.length === 0) {
      code.emit("treeSum", {
        dst: total,
        partial,
        a: this.#at(arg, section).address,
        lanes,
        ld,
        byReplica: this.#byReplica ? 1 : 0,
      });
      return;
    }
    if (isFused(arg)) {
      const { m, n, k, a, b } = this.#operands(arg, section);
      if (this.#byReplica) return this.#lanedMatmul(total, a, b, m, n, k, 1, section);
      // one accumulator per entry over (sample, inner index): a product of sample-major copies
      if (k === 1 && a.laned && b.laned) {
        const right = this.#sampleMajor(b, 1, n, section);
        code.emit("matmulNN", {
          dst: total,
          a: a.address,
          b: right,
          m,
          n,
          k: lanes,
          ldd: n,
          lda: ld,
          ldb: n,
          accumulate: 1,
        });
        return;
      }
      // left is read as (inner, m): its columns are the rows of the result
      const left = this.#sampleMajor({ ...a, rowStride: a.colStride, colStride: a.rowStride }, k, m, section);
      const right = this.#sampleMajor(b, k, n, section);
      code.emit("matmulTN", {
        dst: total,
        a: left,
        b: right,
        m,
        n,
        k: lanes * k,
        ldd: n,
        lda: m,
        ldb: n,
        accumulate: 1,
      });
      return;
    }
    const a = this.#inLanes(arg, section);
    if (this.#byReplica) code.emit("batchSumLaned", { dst: total, a, n: sizeOf(arg.shape) * ld });
    else code.emit("batchSum", { dst: total, a, elements: sizeOf(arg.shape), lanes, ld });
  }

  /** [lanes][outer][inner] copy of a view, shared by all who need the same one in this section. */
  #sampleMajor(view: View, outer: number, inner: number, section: Section): number {
    let { address } = view;
    const key = `${address}|${outer}|${inner}|${view.rowStride}|${view.colStride}`;
    const known = section.sampleMajor.get(key);
    if (known !== undefined) return known;
    if (!view.laned) address = this.#spread(address, outer * inner, section);
    const dst = this.#take(outer * inner * section.lanes);
    section.code.emit("laneTranspose", {
      dst,
      a: address,
      outer,
      inner,
      so: view.rowStride,
      si: view.colStride,
      lanes: section.lanes,
      ld: section.ld,
    });
    section.sampleMajor.set(key, dst);
    return dst;
  }

  #closeAccumulator(node: Node, section: Section): void {
    const { total, partial } = this.#accumulators.get(node)!;
    if (partial !== 0) section.code.emit("closeTree", { dst: total, partial, n: section.ld });
  }

  #storeSamples(effect: Extract<Effect, { kind: "storeSamples" }>, section: Section): void {
    const a = this.#inLanes(effect.value, section);
    const { address, stride, offset } = effect;
    section.code.emit("storeSamples", {
      dst: address,
      a,
      elements: sizeOf(effect.value.shape),
      lanes: section.lanes,
      ld: section.ld,
      stride,
      offset,
    });
  }

  #finish(effect: Effect, section: Section): void {
    const { code, lanes, ld } = section;
    switch (effect.kind) {
      case "work":
        code.emit("addWork", {
          dst: effect.address,
          q: this.#inLanes(effect.value, section),
          eta: effect.eta,
          lanes,
        });
        return;
      case "record": {
        const a = this.#inLanes(effect.value, section);
        for (let e = 0; e < sizeOf(effect.value.shape); e++) {
          code.emit("record", { a: a + e * ld * this.#o.real.bytes, slot: effect.slot + e * lanes, lanes });
        }
        return;
      }
      case "recordWork":
        code.emit("recordExact", { a: effect.address, slot: effect.slot, lanes });
        return;
      case "output":
        code.emit("copy", {
          dst: effect.address,
          a: this.#at(effect.value, section).address,
          n: sizeOf(effect.value.shape) * this.#width(effect.value, section),
        });
        return;
      default:
        return;
    }
  }

  #update(effect: Extract<Effect, { kind: "update" }>, section: Section): void {
    const { theta, size, gradient, eta, decay } = effect;
    let g: number;
    if (gradient === null) {
      g = this.#take(size * section.ld);
      section.code.emit("fill", { dst: g, n: size * section.ld, imm: 0 });
    } else g = this.#inLanes(gradient, section);
    section.code.emit("update", { theta, g, eta, decay, elements: size, ld: section.ld });
  }
}

function stageOf(node: Node): Stage {
  if (node.varies === 0) return "setup";
  if ((node.varies & VARIES_WITH_SAMPLE) !== 0) {
    return node.phase === 0 ? "body" : internal("lower", "a sample value depends on a sum over the batch");
  }
  return node.phase === 0 ? "before" : "after";
}

/** A product under a sum over the batch is never formed per sample. */
function isFused(arg: Node): boolean {
  return arg.shape.length > 0 && (arg.op === "outer" || arg.op === "matmul");
}

/** The node whose buffer a product reads: transposes are strides. */
function viewed(node: Node): Node {
  let inner = node;
  while (inner.op === "transpose") inner = inner.args[0]!;
  return inner;
}

function asMatrix(shape: readonly number[]): [number, number] {
  return [shape.length === 2 ? shape[0]! : 1, shape.at(-1) ?? 1];
}

/** Element strides of an operand read at the entries of a result it broadcasts to. */
function broadcastStrides(from: readonly number[], to: readonly number[]): [number, number] {
  const [rows, cols] = asMatrix(from);
  const [toRows, toCols] = asMatrix(to);
  return [rows === 1 && toRows !== 1 ? 0 : cols, cols === 1 && toCols !== 1 ? 0 : 1];
}

/** Outer, reduced and inner sizes around an axis, lanes counted as inner. */
function alongAxis(arg: Node, axis: number, width: number): { outer: number; count: number; inner: number } {
  const [rows, cols] = asMatrix(arg.shape);
  if (arg.shape.length === 2 && axis === 0) return { outer: 1, count: rows, inner: cols * width };
  return { outer: arg.shape.length === 2 ? rows : 1, count: cols, inner: width };
}

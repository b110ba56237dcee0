import { internal } from "../errors.ts";
import { emitOp } from "./emit.ts";
import { countUses, isFusedProduct, type Pair, pairUp, storage, type Uses } from "./fuse.ts";
import { Code } from "./instructions.ts";
import { type Lanes, Layout, type Planner, paddedLanes, type Real, type Section } from "./layout.ts";
import { isSampleValue, type Node, reachable, sizeOf } from "./node.ts";
import { rowOf } from "./ops.ts";
import { emitProduct, operands, sumOfProducts } from "./product.ts";
import { Scratch } from "./scratch.ts";

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

/** theta_block = decay theta_block - eta gradient; a null gradient only decays. */
export interface Update {
  readonly kind: "update";
  readonly block: Node;
  readonly gradient: Node | null;
  /** Addresses of one value, or of one per replica. */
  readonly eta: number;
  readonly decay: number;
}

/** What a pass is for. Effects of one pass may share every value below them. */
export type Effect =
  | Update
  /** work[lane] += eta^2 value */
  | { readonly kind: "work"; readonly value: Node; readonly address: number; readonly eta: number }
  /** Copies a value to a leaf that lives from step to step, once everything has been read. */
  | { readonly kind: "assign"; readonly leaf: Node; readonly value: Node }
  /** Writes the entries of a value to the trace, from a slot on (slots are [entry][lane]). */
  | { readonly kind: "record"; readonly value: Node; readonly slot: number }
  /** Writes accumulated work to the trace. */
  | { readonly kind: "recordWork"; readonly address: number; readonly slot: number }
  /** Adds the entries of a value to running sums in f64, [entry][lane]. */
  | { readonly kind: "average"; readonly value: Node; readonly address: number }
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
  /** Samples behind the last full block. */
  readonly rest: number;
  /** One block is the whole batch, and its body is all there is to do. */
  readonly whole: boolean;
}

export interface LowerOptions {
  readonly real: Real;
  readonly lanes: Lanes;
  /** Replicas in the lanes; 1 otherwise. */
  readonly replicas: number;
  /** Samples per block when samples are in the lanes. */
  readonly block: number;
  /** Compute pairs of elementwise ops, and gradients with the step they end in, in one pass. */
  readonly fuse: boolean;
  /** Some replica has weight decay. */
  readonly decays: boolean;
  /** All lanes have the same eta and decay. */
  readonly sameRates: boolean;
  readonly source: Source;
  /** Address of a parameter block: [elements], or [elements][ld] with replicas in the lanes. */
  readonly params: ReadonlyMap<Node, number>;
  /** Address of the weights of the samples, [sample] or [sample][ld], where a value asks for them. */
  readonly weights?: number;
  /** Instructions to execute before anything else, and after everything. */
  readonly opening?: readonly Instruction[];
  readonly closing?: readonly Instruction[];
  /** Receives constants to be written at an address. */
  readonly constant: (node: Node, address: number) => void;
  readonly planner: Planner;
}

/** A kernel with its parameters by name. */
export interface Instruction {
  readonly name: string;
  readonly values: Readonly<Record<string, number>>;
}

type Stage = "setup" | "before" | "body" | "after";

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
  readonly #layout: Layout;
  /** Samples one after the other: replicas or features in the lanes. */
  readonly #oneByOne: boolean;
  /** The whole batch is one execution of the body, so sums over it are not carried. */
  #atOnce: boolean;
  readonly #scratch = new Scratch();
  readonly #code = { setup: new Code(), before: new Code(), after: new Code() };
  /** Second accumulator of full sums over the batch. */
  readonly #partials = new Map<Node, number>();
  #uses!: Uses;
  #pairs = new Map<Node, Pair>();
  /** Inner ops of pairs, and gradients that exist only inside the step that uses them. */
  #absorbed = new Set<Node>();
  #steps = new Map<Node, (update: Update, section: Section) => void>();

  constructor(options: LowerOptions) {
    this.#o = options;
    this.#layout = new Layout(options.real, options.lanes, this.#scratch);
    this.#oneByOne = options.lanes !== "samples";
    this.#atOnce = options.source.samples <= (this.#oneByOne ? 1 : options.block);
  }

  run(effects: readonly Effect[]): Pass {
    const { source, planner, real, replicas } = this.#o;
    const roots = effects.flatMap((e) =>
      "value" in e ? [e.value] : e.kind === "update" && e.gradient ? [e.gradient] : [],
    );
    const order = reachable(roots);
    // a stack of all samples, or values of a sample behind a sum over the batch: all have to be there at once
    const coupled =
      order.some((n) => rowOf(n.op)?.couples || (isSampleValue(n) && n.phase > 0)) ||
      effects.some((e) => e.kind === "storeSamples" && e.value.phase > 0);
    if (coupled && this.#oneByOne) internal("lower", "samples that are coupled go side by side in the lanes");
    if (coupled) this.#atOnce = true;
    const stages = new Map(order.map((n) => [n, stageOf(n, coupled)]));
    this.#uses = countUses(order, roots);
    if (this.#o.fuse) this.#planFusion(order, effects, stages);
    const emitStage = (stage: Stage, section: Section) => {
      for (const node of order) {
        if (stages.get(node) === stage && this.#needsBuffer(node)) this.#emit(node, section);
      }
    };

    const byReplica = this.#o.lanes === "replicas";
    const ld = byReplica ? paddedLanes(real, replicas) : 1;
    const places: Section["places"] = new Map();
    const outside = (code: Code): Section => ({
      code,
      lanes: replicas,
      ld,
      places,
      sampleMajor: new Map(),
      records: new Map(),
    });
    const after = outside(this.#code.after);
    emitStage("setup", outside(this.#code.setup));
    const before = outside(this.#code.before);
    for (const { name, values } of this.#o.opening ?? []) before.code.emit(name, values);
    emitStage("before", before);
    for (const node of order) if (node.op === "batch_sum" && !coupled) this.#openSum(node, before);

    // the body, once for full blocks and once for the rest
    const block = coupled ? source.samples : this.#o.block;
    const width = this.#oneByOne ? 1 : Math.max(1, Math.min(block, source.samples));
    const blocks = Math.floor(source.samples / width);
    const rest = source.samples - blocks * width;
    const emitBody = (samples: number): Code => {
      const code = new Code();
      const lanes = this.#oneByOne ? replicas : samples;
      const inner = { lanes, ld: this.#oneByOne ? ld : paddedLanes(real, lanes) };
      const section: Section = {
        code,
        ...inner,
        places: coupled ? places : new Map(places),
        sampleMajor: new Map(),
        records: new Map(),
      };
      this.#emitInputs(order, section);
      if (coupled) this.#emitCoupled(order, stages, section, { ...outside(code), places: section.places });
      for (const node of coupled ? [] : order) {
        if (stages.get(node) === "body" && this.#needsBuffer(node)) this.#emit(node, section);
        if (node.op === "batch_sum") this.#addToSum(node, section, after);
      }
      for (const effect of effects) if (effect.kind === "storeSamples") this.#storeSamples(effect, section);
      return code;
    };
    const body = emitBody(width);
    const tail = rest > 0 ? emitBody(rest) : new Code();

    for (const node of order) {
      if (node.op === "batch_sum" && !coupled) this.#closeSum(node, after);
      else if (stages.get(node) === "after" && this.#needsBuffer(node)) this.#emit(node, after);
    }
    for (const effect of effects) this.#finish(effect, after);
    this.#holdParameters(effects, after);
    // steps that read other blocks come before those that only read their own gradient
    const updates = effects.filter((e) => e.kind === "update");
    for (const u of updates) {
      const step = u.gradient === null ? undefined : this.#steps.get(u.gradient);
      if (step === undefined) continue;
      const theta = this.#o.params.get(u.block)!;
      if (this.#o.decays)
        after.code.emit("decayBlock", { theta, decay: u.decay, elements: sizeOf(u.block.shape), ld });
      step(u, after);
    }
    for (const effect of effects) if (effect.kind === "assign") this.#assign(effect, after);
    for (const u of updates) if (u.gradient === null || !this.#steps.has(u.gradient)) this.#update(u, after);
    for (const { name, values } of this.#o.closing ?? []) after.code.emit(name, values);
    let sections = { ...this.#code, body, tail };
    const whole = blocks === 1 && rest === 0;
    if (whole) {
      // a batch walked at once needs no stages
      const { setup, before, after } = sections;
      const none = () => new Code();
      sections = { setup, before: none(), body: Code.join(before, body, after), tail: none(), after: none() };
    }
    this.#scratch.settle(planner, sections);
    return { ...sections, blocks, blockLanes: width, rest, whole };
  }

  /**
   * A batch whose samples are coupled: everything in the order of the expression, values that all
   * samples share (`shared`) between values of a sample (`lanes`).
   */
  #emitCoupled(
    order: readonly Node[],
    stages: ReadonlyMap<Node, Stage>,
    lanes: Section,
    shared: Section,
  ): void {
    for (const node of order) {
      if (stages.get(node) !== "body") continue;
      if (node.op === "batch_sum") {
        this.#openSum(node, shared);
        this.#addToSum(node, lanes, shared);
        this.#closeSum(node, shared);
      } else if (this.#needsBuffer(node)) {
        const inLanes = isSampleValue(node) || node.args.some(isSampleValue);
        this.#emit(node, inLanes ? lanes : shared);
      }
    }
  }

  #needsBuffer(node: Node): boolean {
    return (
      this.#uses.isUsed(node) && !this.#absorbed.has(node) && node.op !== "batch_sum" && node.op !== "input"
    );
  }

  /** Chooses what is computed together; without `fuse` every op stands alone. */
  #planFusion(order: readonly Node[], effects: readonly Effect[], stages: ReadonlyMap<Node, Stage>): void {
    const together = (a: Node, b: Node) => stages.get(a) === stages.get(b);
    const alike = (a: Node, b: Node) => this.#layout.isLaned(a) === this.#layout.isLaned(b);
    this.#pairs = pairUp(order, this.#uses, together, alike);
    for (const { inner } of this.#pairs.values()) this.#absorbed.add(inner);
    const moved = new Set<Node>();
    for (const effect of effects) {
      if (effect.kind !== "update" || effect.gradient === null) continue;
      const g = effect.gradient;
      if (this.#uses.count.get(g) !== 1 || this.#pairs.has(g)) continue;
      // weight decay shrinks the block before its step reads anything
      const gone = (block: Node) => moved.has(block) || (this.#o.decays && block === effect.block);
      if (g.args.some((a) => gone(storage(a)))) continue;
      if (this.#isDenseStep(g)) {
        // #addToSum will say where the factors are
        this.#absorbed.add(g);
      } else if (this.#isElementwiseStep(g, alike)) {
        this.#absorbed.add(g);
        this.#steps.set(g, (update, section) => this.#elementwiseStep(update, g, section));
      } else continue;
      moved.add(effect.block);
    }
  }

  /** The gradient of a dense layer over a batch that is walked at once: a product, then a step. */
  #isDenseStep(g: Node): boolean {
    const arg = g.args[0]!;
    if (g.op !== "batch_sum" || arg.op !== "outer" || !this.#atOnce || this.#o.lanes === "replicas")
      return false;
    return arg.args.every((a) => storage(a).op !== "param" && (this.#oneByOne || this.#layout.isLaned(a)));
  }

  /** A sum, difference or product of values that lie like the block. */
  #isElementwiseStep(g: Node, alike: (a: Node, b: Node) => boolean): boolean {
    const { lanes, sameRates } = this.#o;
    const replicas = lanes === "replicas";
    // a gradient that is the same for all replicas has no lanes, their parameters do
    if (replicas && (!sameRates || !this.#layout.isLaned(g))) return false;
    return (
      (g.op === "add" || g.op === "sub" || g.op === "mul") &&
      g.args.every((a) => alike(a, g) && sizeOf(a.shape) === sizeOf(g.shape))
    );
  }

  #emit(node: Node, section: Section): void {
    switch (node.op) {
      case "param":
        section.places.set(node, {
          address:
            this.#o.params.get(node) ?? internal("lower", `parameter ${node.attrs.name} has no address`),
          laned: this.#o.lanes === "replicas",
        });
        return;
      case "number":
      case "constant": {
        // written once, before any code runs
        const { bytes, perRegister } = this.#o.real;
        const address = this.#o.planner.take((sizeOf(node.shape) + perRegister) * bytes);
        section.places.set(node, { address, laned: false });
        this.#o.constant(node, address);
        return;
      }
      case "noise":
        return this.#emitNoise(node, section);
      case "weight": {
        const { lanes, ld } = section;
        const dst = this.#layout.place(node, section);
        const weights = this.#o.weights ?? internal("lower", "a pass without weights of its samples");
        const byReplica = this.#o.lanes === "replicas" ? 1 : 0;
        return section.code.emit("takeWeights", { dst, weights, lanes, ld, byReplica });
      }
      default:
        return emitOp(this.#layout, node, this.#pairs.get(node), section);
    }
  }

  /** Inputs that lie side by side in a record are brought into the lanes together. */
  #emitInputs(order: readonly Node[], section: Section): void {
    const { data, offsets, shared } = this.#o.source;
    const offsetOf = (n: Node) => offsets.get(n) ?? internal("lower", `input ${n.attrs.name} has no data`);
    const inputs = order.filter((n) => n.op === "input" && this.#uses.isUsed(n));
    inputs.sort((a, b) => offsetOf(a) - offsetOf(b));
    const { ld, lanes } = section;
    for (let i = 0; i < inputs.length; ) {
      const first = offsetOf(inputs[i]!);
      let end = first;
      const group: Node[] = [];
      while (i < inputs.length && offsetOf(inputs[i]!) === end) {
        group.push(inputs[i]!);
        end += sizeOf(inputs[i]!.shape);
        i++;
      }
      const dim = end - first;
      const dst = this.#layout.take(dim * ld);
      if (data === null) return internal("lower", "a data set was expected");
      const share = this.#o.lanes === "replicas" && shared ? 1 : 0;
      section.code.emit("gather", { dst, data, offset: first, dim, lanes, ld, shared: share });
      for (const node of group) {
        const address = dst + (offsetOf(node) - first) * ld * this.#o.real.bytes;
        section.places.set(node, { address, laned: this.#layout.isLaned(node) });
        section.records.set(address, { data, offset: offsetOf(node) });
      }
    }
  }

  #emitNoise(node: Node, section: Section): void {
    const { noise, noiseBlocks } = this.#o.source;
    const { attrs } = node;
    section.code.emit("noise", {
      dst: this.#layout.place(node, section),
      kind: ["normal", "uniform", "sign", "index"].indexOf(attrs.kind!),
      elements: sizeOf(node.shape),
      lanes: section.lanes,
      ld: section.ld,
      block: noise.get(node) ?? internal("lower", `random leaf ${attrs.name} is not of this source`),
      perSample: noiseBlocks,
      below: attrs.below ?? 0,
      byReplica: this.#o.lanes === "replicas" ? 1 : 0,
    });
  }

  /** Room for a sum over the batch, set to 0 where it is carried from block to block. */
  #openSum(node: Node, section: Section): void {
    if (this.#absorbed.has(node)) return;
    const arg = node.args[0]!;
    if (this.#atOnce && this.#oneByOne && !isFusedProduct(arg)) return; // one term: the sum is the term
    const values = sizeOf(node.shape) * section.ld;
    const address = this.#layout.take(values);
    section.places.set(node, { address, laned: this.#o.lanes === "replicas" });
    if (!this.#atOnce || !isFusedProduct(arg)) section.code.emit("fill", { dst: address, n: values, imm: 0 });
    if (node.shape.length > 0) return;
    const partial = this.#layout.take(values);
    section.code.emit("fill", { dst: partial, n: values, imm: 0 });
    this.#partials.set(node, partial);
  }

  /** Adds the block's samples to a sum over the batch, each entry in ascending sample order. */
  #addToSum(node: Node, section: Section, after: Section): void {
    const { code, lanes, ld } = section;
    const arg = node.args[0]!;
    const accumulate = this.#atOnce ? 0 : 1;
    if (this.#absorbed.has(node)) {
      // taken as a step of theta once everything else has been read
      const product = operands(this.#layout, arg, section);
      const { m, n } = product;
      const factors = this.#oneByOne
        ? { a: product.a.address, b: product.b.address, k: 1, lda: 1, ldb: n }
        : sumOfProducts(this.#layout, product, section);
      this.#steps.set(node, ({ block, eta }, end) => {
        const { a, b, k, lda, ldb } = factors;
        end.code.emit("matmulStep", { theta: this.#o.params.get(block)!, a, b, m, n, k, lda, ldb, eta });
      });
      return;
    }
    if (isFusedProduct(arg)) {
      const product = operands(this.#layout, arg, section);
      const dst = this.#layout.at(node, section).address;
      if (this.#oneByOne) return emitProduct(this.#layout, dst, product, accumulate, section);
      const { m, n } = product;
      const { name, ...factors } = sumOfProducts(this.#layout, product, section);
      return code.emit(name, { dst, ...factors, m, n, ldd: n, accumulate });
    }
    const a = this.#layout.inLanes(arg, section);
    if (this.#atOnce && this.#oneByOne) {
      after.places.set(node, { address: a, laned: this.#o.lanes === "replicas" });
      return;
    }
    const dst = this.#layout.at(node, section).address;
    const partial = this.#partials.get(node);
    const values = sizeOf(arg.shape) * ld;
    if (partial !== undefined)
      code.emit("treeSum", { dst, partial, a, lanes, ld, byReplica: this.#oneByOne ? 1 : 0 });
    else if (this.#oneByOne) code.emit("batchSumLaned", { dst, a, n: paddedLanes(this.#o.real, values) });
    else code.emit("batchSum", { dst, a, elements: sizeOf(arg.shape), lanes, ld });
  }

  #closeSum(node: Node, section: Section): void {
    const partial = this.#partials.get(node);
    if (partial === undefined) return;
    section.code.emit("closeTree", { dst: this.#layout.at(node, section).address, partial, n: section.ld });
  }

  #storeSamples(
    { value, address, stride, offset }: Extract<Effect, { kind: "storeSamples" }>,
    section: Section,
  ): void {
    const a = this.#layout.inLanes(value, section);
    const { code, lanes, ld } = section;
    code.emit("storeSamples", { dst: address, a, elements: sizeOf(value.shape), lanes, ld, stride, offset });
  }

  #finish(effect: Effect, section: Section): void {
    const { code, lanes, ld } = section;
    switch (effect.kind) {
      case "work": {
        const q = this.#layout.inLanes(effect.value, section);
        return code.emit("addWork", { dst: effect.address, q, eta: effect.eta, lanes });
      }
      case "record": {
        const a = this.#layout.inLanes(effect.value, section);
        for (let e = 0; e < sizeOf(effect.value.shape); e++) {
          code.emit("record", { a: a + e * ld * this.#o.real.bytes, slot: effect.slot + e * lanes, lanes });
        }
        return;
      }
      case "average": {
        const a = this.#layout.inLanes(effect.value, section);
        for (let e = 0; e < sizeOf(effect.value.shape); e++) {
          code.emit("addToAverage", {
            dst: effect.address + 8 * e * lanes,
            a: a + e * ld * this.#o.real.bytes,
            lanes,
          });
        }
        return;
      }
      case "recordWork":
        return code.emit("recordExact", { a: effect.address, slot: effect.slot, lanes });
      case "output": {
        const n = sizeOf(effect.value.shape) * this.#layout.width(effect.value, section);
        return code.emit("copy", {
          dst: effect.address,
          a: this.#layout.at(effect.value, section).address,
          n,
        });
      }
      default:
        return;
    }
  }

  /** What a step or an assignment takes from a block of parameters is copied, before one of them moves that block. */
  #holdParameters(effects: readonly Effect[], section: Section): void {
    const taken = effects.flatMap((e) =>
      e.kind === "assign" ? [e.value] : e.kind === "update" && e.gradient !== null ? [e.gradient] : [],
    );
    for (const value of taken) {
      if (storage(value).op !== "param") continue;
      const { address, laned } = this.#layout.at(value, section);
      const n = sizeOf(value.shape) * (laned ? section.ld : 1);
      const dst = this.#layout.take(n);
      section.code.emit("copy", { dst, a: address, n });
      section.places.set(value, { address: dst, laned });
    }
  }

  #assign({ leaf, value }: Extract<Effect, { kind: "assign" }>, section: Section): void {
    const dst = this.#o.params.get(leaf) ?? internal("lower", `${leaf.attrs.name} has no address`);
    const a = this.#layout.inLanes(value, section);
    section.code.emit("copy", { dst, a, n: sizeOf(leaf.shape) * section.ld });
  }

  #update({ block, gradient, eta, decay }: Update, section: Section): void {
    const elements = sizeOf(block.shape);
    const n = elements * section.ld;
    const theta = this.#o.params.get(block)!;
    let g: number;
    if (gradient === null) {
      g = this.#layout.take(n);
      section.code.emit("fill", { dst: g, n, imm: 0 });
    } else g = this.#layout.inLanes(gradient, section);
    if (this.#o.lanes === "replicas" && this.#o.sameRates)
      section.code.emit("updateAlike", { theta, g, eta, decay, n });
    else section.code.emit("update", { theta, g, eta, decay, elements, ld: section.ld });
  }

  #elementwiseStep({ block, eta }: Update, g: Node, section: Section): void {
    const [a, b] = g.args.map((arg) => this.#layout.at(arg, section).address) as [number, number];
    const n = sizeOf(g.shape) * section.ld;
    const kernel = `update${g.op[0]!.toUpperCase()}${g.op.slice(1)}`;
    section.code.emit(kernel, { theta: this.#o.params.get(block)!, a, b, eta, n });
  }
}

/** The stage a value is computed in. Where samples are coupled, all that needs a sample is in the body. */
function stageOf(node: Node, coupled: boolean): Stage {
  if (node.varies === 0) return "setup";
  if (isSampleValue(node)) return "body";
  return node.phase === 0 ? "before" : coupled ? "body" : "after";
}

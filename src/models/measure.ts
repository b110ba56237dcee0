import { fail } from "../errors.ts";
import { pullback } from "../graph/derive.ts";
import type { Effect, Source } from "../graph/lower.ts";
import type { Block, Model } from "../graph/model.ts";
import type { Node } from "../graph/node.ts";
import { Evaluation, type EvaluationSpec, evaluationBytes, type Host } from "./evaluate.ts";
import type { Samples } from "./samples.ts";

/** Samples side by side in one block of a pass outside any run. */
export const BLOCK = 64;
/** Passes that are kept: each generator whose noise power is asked for has its own. */
const KEPT_PASSES = 64;

/** What a pass computes, and which leaves besides the parameters it reads. */
export interface Recipe {
  /** Samples of the pass; all of them when absent. */
  readonly samples?: number;
  /** The records are chosen before every run, instead of all in order. */
  readonly chosen?: boolean;
  readonly extra?: readonly { readonly node: Node; readonly size: number }[];
  readonly effects: (take: (values: number) => number, source: Source) => readonly Effect[];
}

/**
 * Passes over one set of samples, each lowered once and kept: what losses, derivatives, noise and
 * curvature are measured with.
 */
export class Measure {
  readonly host: Host;
  readonly model: Model;
  readonly samples: Samples;
  /** Blocks that are trained: the others count as constants and their derivatives are 0. */
  readonly trainable: readonly Block[];
  /** By name, the one used last at the end. */
  #mean: { theta: Float64Array; gradient: Float64Array } | null = null;
  readonly #evaluations = new Map<string, Evaluation>();
  /** The owner, and whoever measures while the event loop turns. */
  #holders = 1;

  constructor(host: Host, model: Model, samples: Samples) {
    this.host = host;
    this.model = model;
    this.samples = samples;
    this.trainable = model.blocks.filter((b) => b.trainable);
  }

  get N(): number {
    return this.samples.N;
  }

  get P(): number {
    return this.model.P;
  }

  /** The loss of a sample among all of them. */
  get loss(): Node {
    return this.samples.lossIn(this.N);
  }

  /** Parameter leaves of the trainable blocks. */
  get leaves(): Node[] {
    return this.trainable.map((b) => this.model.leaf(b.name));
  }

  /** Leaves shaped like the trainable blocks, for vectors of parameter space: the k-th such set. */
  vectorLeaves(k: number): { node: Node; size: number; block: Block }[] {
    // names a model cannot have
    return this.trainable.map((block) => ({
      node: this.model.graph.param(`${block.name}~${k}`, block.shape),
      size: block.size,
      block,
    }));
  }

  /** Gradient of the loss of a sample, one node per trainable block; null where it is 0. */
  get sampleGradients(): (Node | null)[] {
    return pullback(this.loss, this.model.graph.number(1), this.leaves, "perSample");
  }

  /**
   * The pass of this name, made when first asked for. After a turn of the event loop it may be gone, unless the measure
   * is held.
   *
   * @throws NoetherflowError "unsupported" once the samples are given back
   */
  pass(name: string, recipe: () => Recipe): Evaluation {
    if (this.#holders === 0)
      fail(
        "unsupported",
        name,
        "the problem was disposed of while this was under way",
        undefined,
        "Make a new one with engine.problem.",
      );
    const made = this.#evaluations.get(name) ?? this.once(name, recipe());
    this.#evaluations.delete(name);
    this.#evaluations.set(name, made);
    while (this.#evaluations.size > KEPT_PASSES && this.#holders === 1) {
      const [oldest, evaluation] = this.#evaluations.entries().next().value!;
      this.#evaluations.delete(oldest);
      evaluation.dispose();
    }
    return made;
  }

  /** A pass to be disposed of by the caller. */
  once(where: string, recipe: Recipe): Evaluation {
    return new Evaluation(this.host, this.#spec(where, recipe));
  }

  /** Wasm memory of a pass that is not made. */
  bytesOf(recipe: Recipe): number {
    return evaluationBytes(this.host.core, this.#spec("memory", recipe));
  }

  #spec(where: string, { samples, chosen, extra, effects }: Recipe): EvaluationSpec {
    const source = this.samples.source(samples ?? this.N, true);
    const params = this.model.blocks.map((block) => ({ node: this.model.leaf(block.name), block }));
    return {
      where,
      params,
      ...(extra === undefined ? {} : { extra }),
      source,
      draws: chosen ? "chosen" : this.samples.allDraws,
      feed: this.samples.feed,
      block: BLOCK,
      effects: (take) => effects(take, source),
    };
  }

  /** The mean gradient at a theta, kept until another theta is asked for: products with Sigma come in series. */
  meanAt(
    theta: Float64Array,
    gradient: (measure: Measure, theta: Float64Array) => Float64Array,
  ): Float64Array {
    const known = this.#mean;
    if (known?.theta.every((x, i) => x === theta[i])) return known.gradient;
    const made = gradient(this, theta);
    this.#mean = { theta: theta.slice(), gradient: made };
    return made;
  }

  /** Refuses what needs a gradient per sample where samples are coupled. */
  refuseCoupled(where: string): void {
    if (this.samples.coupled)
      fail(
        "unsupported",
        where,
        "a loss with batch ops has no gradient per sample, its samples depend on each other",
        "batch_mean, batch_stack or batch_row in the loss",
        "Measure the covariance of minibatch gradients: minibatchNoise(theta, { batchSize, batches }).",
      );
  }

  /** Keeps passes and samples through dispose() until the function it returns is called. */
  hold(): () => void {
    this.#holders++;
    this.samples.hold();
    return () => {
      this.dispose();
      this.samples.letGo();
    };
  }

  dispose(): void {
    this.#holders--;
    if (this.#holders > 0) return;
    for (const evaluation of this.#evaluations.values()) evaluation.dispose();
    this.#evaluations.clear();
  }
}

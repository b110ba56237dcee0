import { internal } from "../errors.ts";
import { gradient, tangent } from "../graph/derive.ts";
import type { Effect } from "../graph/lower.ts";
import type { Block, Model } from "../graph/model.ts";
import type { Node } from "../graph/node.ts";
import { add, div, mul, relu, scale, sqnorm, sqrt, square, sub } from "../graph/ops.ts";
import type { Samples } from "../models/samples.ts";
import type { Setting } from "./options.ts";

/** One value per trainable block, of the block's shape; null stands for zeros. */
export type Vector = readonly (Node | null)[];

/** Samples a pass goes over: all of the data, the batch of the update, a second batch independent of it, or none. */
export type Visit = "all" | "batch" | "second" | "none";

/** One walk over samples, as expressions. */
export interface PassDraft {
  readonly visits: Visit;
  readonly effects: Effect[];
  /** The vector that stands for theta in this pass, or null for theta itself. */
  readonly at: string | null;
  /** The weights of the samples are drawn before it. */
  weighs: boolean;
  /** The gradients of all samples are written down, and after it a vector "noise" with their covariance is drawn. */
  factors: boolean;
  /** The trial step is judged, and taken or not, after it. */
  judges: boolean;
}

/**
 * What a scheme builds an update of theta from: passes over samples, gradients, and vectors that live from update to
 * update. All of it is expressions; planRun lowers them.
 */
export class UpdateBuilder {
  readonly passes: PassDraft[] = [];
  /** Vectors that live from update to update, 0 at the start, by name. */
  readonly vectors = new Map<string, readonly Node[]>();
  /** Numbers that do, one per replica, with their value at the start. */
  readonly numbers = new Map<string, { node: Node; start: number | Float64Array }>();
  readonly trainable: readonly Block[];
  /** The velocity before and after an update, where there is one. */
  momentum: { readonly beta: number | Node; readonly before: Vector; readonly after: Vector } | null = null;
  readonly #leaves: readonly Node[];

  constructor(
    readonly model: Model,
    readonly samples: Samples,
    readonly setting: Setting,
  ) {
    this.trainable = model.blocks.filter((b) => b.trainable);
    this.#leaves = this.trainable.map((b) => model.leaf(b.name));
  }

  /** Begins a pass over samples; what follows belongs to it. `at` names the vector it takes for theta. */
  walk(visits: Visit, at: string | null = null): void {
    this.passes.push({ visits, effects: [], at, weighs: false, factors: false, judges: false });
  }

  get pass(): PassDraft {
    return this.passes.at(-1) ?? internal("scheme", "a gradient before the first pass");
  }

  /** Samples the present pass goes over. */
  get count(): number {
    return this.pass.visits === "all" ? this.samples.N : this.setting.S;
  }

  /** Mean gradient over the samples of the pass. */
  mean(): Vector {
    return this.weighted(this.model.graph.number(1 / this.count));
  }

  /** sum_n w_n g_n with w_n = 1/N + c (xi_n - mean xi), the noise of the SDE; see assembly/weights.ts. */
  noisy(): Vector {
    this.pass.weighs = true;
    return this.weighted(this.model.graph.weight());
  }

  /** sqrt(2 sigma^2 / dt) L z with L L^T = Sigma of the gradients of the pass, for the pass after it. */
  factored(): Vector {
    this.pass.factors = true;
    const noise = this.vector("noise");
    const c = this.model.graph.param("~c", []);
    return times(noise, scale(c, Math.sqrt(this.samples.N)));
  }

  /** The gradient of every sample by itself. */
  each(): Vector {
    return gradient(this.samples.lossIn(this.count), this.#leaves, this.model.graph.number(1), "perSample");
  }

  weighted(weight: Node): Vector {
    return gradient(
      this.samples.lossIn(this.count, this.setting.labelNoise),
      this.#leaves,
      weight,
      this.count,
    );
  }

  /** H v of the mean loss over the samples of the pass. */
  hessianTimes(v: Vector): Vector {
    const along = new Map<Node, Node | null>(this.#leaves.map((leaf, i) => [leaf, v[i]!]));
    const mean = this.mean();
    const moved = tangent(
      mean.filter((g): g is Node => g !== null),
      along,
    );
    let next = 0;
    return mean.map((g) => (g === null ? null : moved[next++]!));
  }

  /** A vector that lives from update to update, as it was before this pass. */
  vector(name: string): readonly Node[] {
    let leaves = this.vectors.get(name);
    if (leaves === undefined) {
      leaves = this.trainable.map((b) => this.model.graph.param(`~${name}.${b.name}`, b.shape));
      this.vectors.set(name, leaves);
    }
    return leaves;
  }

  /** Gives such a vector its value for the passes that follow. */
  keep(name: string, value: Vector): void {
    for (const [i, leaf] of this.vector(name).entries()) {
      const v = value[i] ?? zeros(leaf);
      this.pass.effects.push({ kind: "assign", leaf, value: v });
    }
  }

  /** A number per replica that lives from update to update. */
  number(name: string, start: number | Float64Array): Node {
    let known = this.numbers.get(name);
    if (known === undefined) {
      known = { node: this.model.graph.param(`~${name}`, []), start };
      this.numbers.set(name, known);
    }
    return known.node;
  }

  keepNumber(name: string, value: Node): void {
    const { node } = this.numbers.get(name) ?? internal("scheme", `${name} has no start`);
    this.pass.effects.push({ kind: "assign", leaf: node, value });
  }

  /** A number given per replica: a literal where it is the same for all. */
  given(name: string, values: Float64Array): number | Node {
    return values.every((x) => x === values[0]) ? values[0]! : this.number(name, values);
  }

  /** theta itself, in a pass that takes another vector for it. */
  get theta(): readonly Node[] {
    return this.trainable.map((b) => this.model.graph.param(`~theta.${b.name}`, b.shape));
  }

  /** gamma of a trainable block. */
  gamma(i: number): number | Node {
    return this.given(`gamma.${this.trainable[i]!.name}`, this.setting.gammas[i]!);
  }

  /** A gradient as the run wants it: no longer than `clip`. */
  clipped(v: Vector): Vector {
    const { clip } = this.setting;
    return clip === null ? v : clipped(v, clip);
  }

  /** Heavy ball: v' = beta v + g, the direction of the update; g itself without momentum. */
  heavyBall(g: Vector): Vector {
    const { momentum } = this.setting;
    if (momentum === null) return g;
    const beta = this.given("beta", momentum);
    const before = this.vector("v");
    const after = plus(times(before, beta), g);
    this.keep("v", after);
    this.momentum = { beta, before, after };
    return after;
  }

  /** eta / dt, where dt was given. */
  get ratio(): Node {
    return div(this.eta, this.dt);
  }

  /** 1 - 2 dt gamma of the first block. */
  get keepRate(): Node {
    return this.model.graph.param("~keep", []);
  }

  /** beta / (1 - beta). */
  share(beta: Node): Node {
    return div(beta, sub(this.model.graph.number(1), beta));
  }

  /** eta and dt of the step under way. */
  get eta(): Node {
    return this.model.graph.param("~eta", []);
  }
  get dt(): Node {
    return this.model.graph.param("~dt", []);
  }
}

/** a + b. */
export function plus(a: Vector, b: Vector): Vector {
  return a.map((x, i) => (x === null ? b[i]! : b[i] === null ? x : add(x, b[i]!)));
}

/** c v. */
export function times(v: Vector, c: number | Node): Vector {
  return v.map((x) => x && (typeof c === "number" ? scale(x, c) : mul(x, c)));
}

/** Sum of squares of all entries. */
function squaredLength(v: Vector): Node | null {
  return v.reduce<Node | null>((sum, x) => {
    if (x === null) return sum;
    const part = sqnorm(x);
    return sum === null ? part : add(sum, part);
  }, null);
}

/** v min(1, most / |v|): global-norm clipping, which keeps v orthogonal to whatever it was. */
function clipped(v: Vector, most: number): Vector {
  const length = squaredLength(v);
  if (length === null) return v;
  const limit = length.graph.number(most);
  // most / max(most, |v|): exactly 1 below the limit, and no number where |v| is none
  const norm = sqrt(length);
  return times(v, add(div(limit, add(limit, relu(sub(norm, limit)))), scale(norm, 0)));
}

function zeros(like: Node): Node {
  return scale(like, 0);
}

/** Squares of all entries. */
export function squares(v: Vector): Vector {
  return v.map((x) => x && square(x));
}

import { fail } from "../errors.ts";
import { pullback } from "../graph/derive.ts";
import type { Block, Model } from "../graph/model.ts";
import { type Node, sizeOf } from "../graph/node.ts";
import { add, mul, norm, scale, sub, sum } from "../graph/ops.ts";
import type { Samples } from "../models/samples.ts";
import type { Setting } from "./options.ts";
import { UpdateBuilder, type Vector } from "./update.ts";

/** One recorded quantity: `entries` values per record and replica. */
export interface Series {
  readonly kind:
    | "t"
    | "loss"
    | "blockNorms"
    | "charges"
    | "modifiedCharges"
    | "matrixCharges"
    | "work"
    | "values";
  readonly name: string;
  readonly entries: number;
  readonly node: Node | null;
}

/** What is measured along a run, as expressions. */
export interface Measures {
  readonly loss: "full" | "batch" | null;
  readonly blockNorms: boolean;
  /** Charges of the parameters. */
  readonly charges: ReadonlyMap<string, Node>;
  /** 1/2 x^T A x of a vector x of parameter space, by charge name; null when no work is recorded. */
  readonly work: ((vector: (block: string) => Node | null) => ReadonlyMap<string, Node>) | null;
  /** Matrix charges Q of products, h x h each. */
  readonly matrixCharges: ReadonlyMap<string, Node>;
  readonly values: ReadonlyMap<string, Node>;
  /** Averages over time of everything but loss and work. */
  readonly average: { readonly from: number; readonly every: number } | null;
}

/** What an update does, as expressions, and what of it is recorded. */
export function draftUpdate(model: Model, samples: Samples, setting: Setting, measures: Measures) {
  const { scheme, schedule } = setting;
  if (scheme.perSample && samples.coupled) {
    fail(
      "unsupported",
      scheme.name,
      "a loss of every sample by itself",
      "a loss that couples the samples of a batch",
      "Use sgd, whose batches it is defined for.",
    );
  }
  const build = new UpdateBuilder(model, samples, setting);
  const direction = scheme.update(build);
  const blockOf = (vector: Vector) => (name: string) =>
    vector[build.trainable.findIndex((b) => b.name === name)] ?? null;
  const work = new Map<string, Node>();
  const modifiedCharges = new Map<string, Node>();
  if (direction !== null) {
    const plusPart = (name: string, part: Node) => {
      const known = work.get(name);
      work.set(name, known === undefined ? part : add(known, part));
    };
    const formsOf = (vector: Vector) => measures.work?.(blockOf(vector)) ?? [];
    for (const [name, node] of formsOf(direction)) plusPart(name, node);
    if (scheme.bends !== undefined) {
      // x^T A x is twice what `work` gives; eta / dt is a number unless dt was given
      const ratio = setting.dt === null ? setting.substeps : null;
      // it acts on theta after decay: C' = keep^2 C + work
      const decays = setting.gammas.some((g) => g.some((x) => x !== 0));
      for (const [name, node] of formsOf(scheme.bends(build))) {
        const part = ratio === null ? mul(node, build.ratio) : scale(node, ratio);
        plusPart(name, decays ? mul(part, build.keepRate) : part);
      }
    }
    if (build.momentum !== null) {
      const { beta, before, after } = build.momentum;
      const { graph } = model;
      const b = typeof beta === "number" ? graph.number(beta) : beta;
      const share = build.share(b);
      for (const [name, node] of formsOf(before)) plusPart(name, scale(mul(node, share), 2));
      // D = C - eta beta / (1 - beta) v' . A theta changes by that work alone, at constant eta without decay
      const applies = schedule === null && setting.gammas.every((g) => g.every((x) => x === 0));
      for (const [name, C] of applies && measures.work !== null ? measures.charges : []) {
        const leaves = build.trainable.map((block) => model.leaf(block.name));
        const field = pullback(C, graph.number(1), leaves, 1);
        let p: Node = graph.number(0);
        for (const [i, J] of field.entries()) if (J !== null && after[i]) p = add(p, sum(mul(J, after[i])));
        const at = build.number(`p.${name}`, 0);
        build.keepNumber(`p.${name}`, p);
        modifiedCharges.set(name, sub(C, mul(mul(at, share), build.dt)));
      }
    }
  }
  return { build, direction, work, modifiedCharges };
}

/** Everything a run records, in the order of its trace. */
export function seriesOf(
  measures: Measures,
  theta: readonly { block: Block; node: Node }[],
  modifiedCharges: ReadonlyMap<string, Node>,
  varies: boolean,
): Series[] {
  const series: Series[] = [];
  if (varies) series.push({ kind: "t", name: "t", entries: 1, node: null });
  if (measures.loss !== null) series.push({ kind: "loss", name: "loss", entries: 1, node: null });
  if (measures.blockNorms) {
    for (const { block, node } of theta)
      series.push({ kind: "blockNorms", name: block.name, entries: 1, node: norm(node) });
  }
  for (const [name, node] of measures.charges) series.push({ kind: "charges", name, entries: 1, node });
  for (const [name, node] of modifiedCharges)
    series.push({ kind: "modifiedCharges", name, entries: 1, node });
  for (const [name, node] of measures.matrixCharges)
    series.push({ kind: "matrixCharges", name, entries: sizeOf(node.shape), node });
  if (measures.work !== null)
    for (const name of measures.charges.keys()) series.push({ kind: "work", name, entries: 1, node: null });
  for (const [name, node] of measures.values)
    series.push({ kind: "values", name, entries: sizeOf(node.shape), node });
  return series;
}

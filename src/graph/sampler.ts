import { checkInteger, checkWord, fail, show } from "../errors.ts";
import { couplesSamples } from "./instantiate.ts";
import { type ConstantSpec, fromText, readBody, readConstants } from "./model.ts";
import { checkShape, describe, Graph, type Node, type NoiseKind, type Shape, sizeOf } from "./node.ts";
import { checkName, type ExpressionJSON, isRecord, type Scope } from "./parse.ts";
import { printExpressions } from "./print.ts";

/** A random leaf: iid entries of one kind. `index` gives integers 0 ... below - 1. */
export interface NoiseSpec {
  /** "normal" (0, 1), "uniform" in [0, 1), "sign" -1 or 1, "index". */
  readonly kind: NoiseKind;
  /** Of one sample. */
  readonly shape: Shape;
  /** Of "index": integers 0 to below - 1. */
  readonly below?: number;
}

/** The file form of a sampler. */
export interface SamplerJSON {
  /** Version of the format. */
  schema: "noetherflow-sampler/1";
  /** Random leaves { kind, shape, below? } by name. */
  noise: Record<string, unknown>;
  /** { shape, values } by name, row-major. */
  constants?: Record<string, unknown>;
  /** Subexpressions by name, each from those before it. */
  let?: [string, ExpressionJSON][];
  /** Expressions by the names of the model's inputs. */
  outputs: Record<string, ExpressionJSON>;
}

const SCHEMA = "noetherflow-sampler/1";
const KINDS: readonly NoiseKind[] = ["normal", "uniform", "sign", "index"];

/** A law of samples: random leaves and the expressions that make a model's inputs from them. */
export class Sampler {
  /** @internal */
  readonly graph: Graph;
  /** Random leaves. */
  readonly noise: readonly Node[];
  /** What a sample holds, by the names of a model's inputs. */
  readonly outputs: ReadonlyMap<string, Node>;
  readonly #leaves: Scope;

  /** @internal use `sampler` or `parseSampler` */
  constructor(graph: Graph, noise: readonly Node[], leaves: Scope, outputs: ReadonlyMap<string, Node>) {
    this.graph = graph;
    this.noise = noise;
    this.outputs = outputs;
    this.#leaves = leaves;
  }

  /** The sampler file: JSON data that `parseSampler` reads back. */
  toJSON(): SamplerJSON {
    const noise: Record<string, unknown> = {};
    for (const { attrs } of this.noise) {
      noise[attrs.name!] = {
        kind: attrs.kind,
        shape: [...attrs.shape!],
        ...(attrs.below === undefined ? {} : { below: attrs.below }),
      };
    }
    const constants: Record<string, unknown> = {};
    for (const [name, node] of this.#leaves) {
      if (node.op === "constant")
        constants[name] = { shape: [...node.shape], values: [...node.attrs.values!] };
    }
    const names = [...this.outputs.keys()];
    const { lets, expressions } = printExpressions([...this.outputs.values()], new Set(this.#leaves.keys()));
    return {
      schema: SCHEMA,
      noise,
      ...(Object.keys(constants).length > 0 ? { constants } : {}),
      ...(lets.length > 0 ? { let: lets } : {}),
      outputs: Object.fromEntries(names.map((n, i) => [n, expressions[i]!])),
    };
  }
}

type NodesOf<T> = { readonly [K in keyof T]: Node };

/**
 * Builds a sampler.
 *
 * @example
 * const teacher = sampler({
 *   noise: { x: { kind: "normal", shape: [5] }, eps: { kind: "normal", shape: [2] } },
 *   constants: { V: [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0]] },
 *   outputs: ({ x, eps, V }) => ({ x, y: ops.add(ops.matmul(V, x), ops.scale(eps, 0.5)) }),
 * });
 * teacher.toJSON().noise.eps; // { kind: "normal", shape: [2] }
 */
export function sampler<
  const Z extends Record<string, NoiseSpec>,
  const C extends Record<string, ConstantSpec> = Record<never, never>,
>(spec: {
  noise: Z;
  constants?: C;
  outputs: (values: NodesOf<Z> & NodesOf<C>) => Record<string, Node>;
}): Sampler {
  if (!isRecord(spec) || typeof spec.outputs !== "function") {
    fail(
      "shape",
      "sampler",
      "expected { noise, constants?, outputs: (values) => expressions }",
      show(spec),
      "To read a sampler file use parseSampler.",
    );
  }
  return assemble(spec, (scope) => spec.outputs(Object.fromEntries(scope) as NodesOf<Z> & NodesOf<C>));
}

/**
 * Reads a sampler file, with the same care as `parseModel`.
 *
 * @example parseSampler(JSON.stringify(teacher)).outputs.has("y"); // true
 */
export function parseSampler(json: unknown): Sampler {
  const file = fromText("sampler", json);
  if (!isRecord(file))
    fail("shape", "sampler", "a sampler file is an object with noise and outputs", show(file));
  for (const key of Object.keys(file)) {
    if (!["schema", "noise", "constants", "let", "outputs"].includes(key)) {
      fail(
        "name",
        "sampler",
        "the keys of a sampler file are schema, noise, constants, let, outputs",
        show(key),
      );
    }
  }
  if (file["schema"] !== undefined && file["schema"] !== SCHEMA) {
    fail("version", "sampler.schema", `this version reads "${SCHEMA}"`, show(file["schema"]));
  }
  const outputs = file["outputs"];
  if (!isRecord(outputs))
    fail("shape", "sampler.outputs", "expected an object of expressions", show(outputs));
  return assemble(file, (scope, graph) =>
    readBody(graph, scope, file, "sampler", outputs as Record<string, unknown>, "sampler.outputs"),
  );
}

function assemble(
  spec: { noise?: unknown; constants?: unknown },
  write: (scope: Scope, graph: Graph) => Record<string, Node>,
): Sampler {
  const graph = new Graph();
  const scope: Scope = new Map();
  const noise: Node[] = [];
  if (!isRecord(spec.noise))
    fail("shape", "sampler.noise", "expected an object of random leaves", show(spec.noise));
  for (const [name, given] of Object.entries(spec.noise as Record<string, unknown>)) {
    const path = `sampler.noise.${name}`;
    checkName(path, name, scope);
    if (!isRecord(given)) fail("shape", path, "a random leaf is { kind, shape, below? }", show(given));
    for (const key of Object.keys(given as object)) {
      if (!["kind", "shape", "below"].includes(key))
        fail("name", path, "a random leaf is { kind, shape, below? }", show(key));
    }
    const leaf = given as Record<string, unknown>;
    const kind = checkWord(path, "kind", leaf["kind"], KINDS);
    const shape = checkShape(path, leaf["shape"]);
    const below = kind === "index" ? checkInteger(path, "below", leaf["below"], 1, 2_147_483_648) : undefined;
    if (kind !== "index" && leaf["below"] !== undefined)
      fail("name", path, "only an index leaf has below", show(leaf["below"]));
    const node = graph.noise(name, kind, shape, below);
    noise.push(node);
    scope.set(name, node);
  }
  readConstants(graph, scope, spec.constants, "sampler.constants");
  const outputs = write(new Map(scope), graph);
  if (!isRecord(outputs))
    fail("shape", "sampler.outputs", "expected an object of expressions", show(outputs));
  const checked = new Map<string, Node>();
  for (const [name, node] of Object.entries(outputs)) {
    checkName(`sampler.outputs.${name}`, name);
    if (typeof node !== "object" || node === null || node.graph !== graph) {
      fail("shape", `sampler.outputs.${name}`, "expected an expression of this sampler's values", show(node));
    }
    if (couplesSamples(node)) {
      fail(
        "unsupported",
        `sampler.outputs.${name}`,
        "samples are independent: batch_mean, batch_stack and batch_row belong in a model's loss",
        describe(node),
      );
    }
    checked.set(name, node);
  }
  if (checked.size === 0) fail("shape", "sampler.outputs", "a sampler has at least one output", "none");
  return new Sampler(graph, noise, scope, checked);
}

/** Philox blocks a leaf takes per sample: two normals or uniforms, four signs or indices a block. */
export function blocksOf(leaf: Node): number {
  const entries = sizeOf(leaf.shape);
  return Math.ceil(entries / (leaf.attrs.kind === "normal" || leaf.attrs.kind === "uniform" ? 2 : 4));
}

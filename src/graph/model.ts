import { fail, show, showShape } from "../errors.ts";
import { checkShape, describe, Graph, type Node, reachable, type Shape, sizeOf } from "./node.ts";
import { checkName, type ExpressionJSON, isRecord, Reader, readValues, type Scope } from "./parse.ts";
import { printExpressions } from "./print.ts";

/** One named parameter block of theta. */
export interface Block {
  /** Its name, as in `params`. */
  readonly name: string;
  /** Rank 0 to 2; a matrix is [rows, columns], row-major. */
  readonly shape: Shape;
  /** Entries of the block. */
  readonly size: number;
  /** Where it starts in a flat theta. */
  readonly offset: number;
  /** Untrainable blocks are part of theta and never move. */
  readonly trainable: boolean;
}

/** One input of a sample. */
export interface Input {
  /** Its name, as in `inputs`. */
  readonly name: string;
  /** Of one sample. */
  readonly shape: Shape;
  /** Entries of one sample. */
  readonly size: number;
  /** Where it starts in a sample's record. */
  readonly offset: number;
}

/** A parameter block: its shape, trained unless it says `trainable: false`. */
export type BlockSpec = Shape | { readonly shape: Shape; readonly trainable?: boolean };
/** A constant: a number, nested rows, or flat row-major values with their shape. */
export type ConstantSpec =
  | { readonly shape: Shape; readonly values: ArrayLike<number> }
  | readonly unknown[]
  | number;

/** The file form of a model; see design of the format in README, "Model files". */
export interface ModelJSON {
  /** Version of the format. */
  schema: "noetherflow-model/1";
  /** Shapes by name, or { shape, trainable }. */
  params: Record<string, unknown>;
  /** Shapes per sample, by name. */
  inputs: Record<string, unknown>;
  /** { shape, values } by name, row-major. */
  constants?: Record<string, unknown>;
  /** Subexpressions by name, each from those before it. */
  let?: [string, ExpressionJSON][];
  /** A scalar: ["op", ...arguments]. */
  loss: ExpressionJSON;
}

/** Named expressions as data, with a `let` for what several of them use. */
export interface ExpressionsJSON {
  /** Constants that are theirs alone. */
  readonly constants?: Readonly<
    Record<string, { readonly shape: Shape; readonly values: ArrayLike<number> }>
  >;
  /** Subexpressions used more than once, by name, each from those before it. */
  readonly let?: readonly [string, ExpressionJSON][];
  /** Expressions by name. */
  readonly of: Readonly<Record<string, ExpressionJSON>>;
}

const SCHEMA = "noetherflow-model/1";

/** Named parameters and inputs and the graph of a per-sample scalar loss. Immutable. */
export class Model {
  /** @internal */
  readonly graph: Graph;
  /** Parameter blocks, in the order of a flat theta. */
  readonly blocks: readonly Block[];
  /** Inputs, in the order of a sample's record. */
  readonly inputs: readonly Input[];
  /** Entries of theta, untrainable blocks included. */
  readonly P: number;
  /** Entries of one sample's record: all inputs side by side. */
  readonly recordSize: number;
  /** Expression of the loss of one sample. */
  readonly loss: Node;
  readonly #leaves: Scope;

  /** @internal use `model` or `parseModel` */
  constructor(graph: Graph, blocks: readonly Block[], inputs: readonly Input[], leaves: Scope, loss: Node) {
    this.graph = graph;
    this.blocks = blocks;
    this.inputs = inputs;
    this.P = blocks.reduce((n, b) => n + b.size, 0);
    this.recordSize = inputs.reduce((n, i) => n + i.size, 0);
    this.loss = loss;
    this.#leaves = leaves;
  }

  /** Names of the constants. */
  get constants(): string[] {
    return [...this.#leaves].flatMap(([name, node]) => (node.op === "constant" ? [name] : []));
  }

  /**
   * The node of a parameter, input or constant.
   *
   * @example net.leaf("W").shape; // [4, 3]
   */
  leaf(name: string): Node {
    return (
      this.#leaves.get(name) ??
      fail("name", "model", `known names are ${[...this.#leaves.keys()].join(", ")}`, show(name))
    );
  }

  /**
   * A parameter block by name.
   * @throws NoetherflowError "name" listing the blocks there are
   * @example net.block("W"); // { shape: [4, 3], size: 12, offset: 8, trainable: true }
   */
  block(name: string, where = "model"): Block {
    const found = this.blocks.find((b) => b.name === name);
    return (
      found ??
      fail("name", where, `the parameters are ${this.blocks.map((b) => b.name).join(", ")}`, show(name))
    );
  }

  /** Expressions of this model's values as data; constants that are theirs alone come along. */
  writeExpressions(values: Readonly<Record<string, Node>>): ExpressionsJSON {
    const roots = Object.values(values);
    const taken = new Set(this.#leaves.keys());
    const own = new Set(this.#leaves.values());
    const names = new Map<Node, string>();
    const constants: [string, { shape: Shape; values: Float64Array }][] = [];
    for (const node of reachable(roots)) {
      if (node.op !== "constant" || own.has(node)) continue;
      let name = `c${constants.length}`;
      while (taken.has(name)) name = `${name}_`;
      taken.add(name);
      names.set(node, name);
      constants.push([name, { shape: node.shape, values: node.attrs.values!.slice() }]);
    }
    const { lets, expressions } = printExpressions(roots, taken, names);
    const of = Object.fromEntries(Object.keys(values).map((name, i) => [name, expressions[i]!]));
    return {
      ...(constants.length > 0 ? { constants: Object.fromEntries(constants) } : {}),
      ...(lets.length > 0 ? { let: lets } : {}),
      of,
    };
  }

  /** Expressions that `writeExpressions` wrote, of this model or an equal one. */
  readExpressions(where: string, json: ExpressionsJSON): Record<string, Node> {
    if (!isRecord(json) || !isRecord(json.of))
      fail("shape", where, "expected { constants?, let?, of: expressions by name }", show(json));
    const scope: Scope = new Map(this.#leaves);
    readConstants(this.graph, scope, json.constants, `${where}.constants`);
    return { ...readBody(this.graph, scope, json as Record<string, unknown>, where, json.of, `${where}.of`) };
  }

  /**
   * The model file: JSON data that `parseModel` reads back to an equal model.
   *
   * @example net.toJSON().params; // { U: [2, 4], W: [4, 3] }
   */
  toJSON(): ModelJSON {
    const params: Record<string, unknown> = {};
    for (const b of this.blocks)
      params[b.name] = b.trainable ? [...b.shape] : { shape: [...b.shape], trainable: false };
    const inputs: Record<string, unknown> = {};
    for (const i of this.inputs) inputs[i.name] = [...i.shape];
    const constants: Record<string, unknown> = {};
    for (const [name, node] of this.#leaves) {
      if (node.op === "constant")
        constants[name] = { shape: [...node.shape], values: [...node.attrs.values!] };
    }
    const { lets, expressions } = printExpressions([this.loss], new Set(this.#leaves.keys()));
    return {
      schema: SCHEMA,
      params,
      inputs,
      ...(Object.keys(constants).length > 0 ? { constants } : {}),
      ...(lets.length > 0 ? { let: lets } : {}),
      loss: expressions[0]!,
    };
  }
}

type NodesOf<T> = { readonly [K in keyof T]: Node };

/**
 * Builds a model from shapes and a function that writes the loss with `ops`.
 *
 * @example
 * const net = model({
 *   params: { U: [2, 4], W: [4, 3] }, inputs: { x: [3], y: [2] },
 *   loss: ({ U, W, x, y }) => ops.sqnorm(ops.sub(ops.matmul(U, ops.matmul(W, x)), y)),
 * });
 * net.P; // 20
 * @throws NoetherflowError "shape" (naming the operands), "name" (a name twice)
 */
export function model<
  const P extends Record<string, BlockSpec>,
  const I extends Record<string, Shape>,
  const C extends Record<string, ConstantSpec> = Record<never, never>,
>(spec: {
  params: P;
  inputs: I;
  constants?: C;
  loss: (values: NodesOf<P> & NodesOf<I> & NodesOf<C>) => Node;
}): Model {
  if (!isRecord(spec) || typeof spec.loss !== "function") {
    fail(
      "shape",
      "model",
      "expected { params, inputs, constants?, loss: (values) => expression }",
      show(spec),
      "To read a model file use parseModel.",
    );
  }
  return assemble("model", spec, (scope) => {
    const values = Object.fromEntries(scope) as NodesOf<P> & NodesOf<I> & NodesOf<C>;
    return spec.loss(values);
  });
}

/**
 * Reads a model file: an object, or its JSON text. Safe for files from strangers: nothing is
 * executed, the work is linear in the file, and every refusal names the place.
 *
 * @throws NoetherflowError "name", "shape", "range", "memory", "version"
 * @example parseModel(JSON.stringify(net)).P; // 20
 */
export function parseModel(json: unknown): Model {
  const file = fromText("model", json);
  if (!isRecord(file))
    fail("shape", "model", "a model file is an object with params, inputs and loss", show(file));
  for (const key of Object.keys(file)) {
    if (!["schema", "params", "inputs", "constants", "let", "loss"].includes(key)) {
      fail(
        "name",
        "model",
        "the keys of a model file are schema, params, inputs, constants, let, loss",
        show(key),
      );
    }
  }
  if (file["schema"] !== undefined && file["schema"] !== SCHEMA) {
    fail("version", "model.schema", `this version reads "${SCHEMA}"`, show(file["schema"]));
  }
  return assemble(
    "model",
    file,
    (scope, graph) => readBody(graph, scope, file, "model", { loss: file["loss"] })["loss"]!,
  );
}

/** JSON text or an object already read. */
export function fromText(where: string, json: unknown): unknown {
  if (typeof json !== "string") return json;
  try {
    return JSON.parse(json);
  } catch (error) {
    return fail("shape", where, `expected JSON (${(error as Error).message.slice(0, 80)})`);
  }
}

/** Reads `let` and then the named expressions of a file, which stand under `within`. */
export function readBody(
  graph: Graph,
  scope: Scope,
  file: Record<string, unknown>,
  where: string,
  expressions: Record<string, unknown>,
  within = where,
): Record<string, Node> {
  const names = new Map(scope);
  const reader = new Reader(graph, names);
  const lets = file["let"];
  if (lets !== undefined) {
    if (!Array.isArray(lets))
      fail("shape", `${where}.let`, "expected an array of [name, expression]", show(lets));
    for (const [i, entry] of (lets as unknown[]).entries()) {
      const path = `${where}.let[${i}]`;
      if (!Array.isArray(entry) || entry.length !== 2)
        fail("shape", path, "expected [name, expression]", show(entry));
      const [name, expression] = entry as unknown[];
      names.set(checkName(path, name, names), reader.read(expression, `${path}[1]`));
    }
  }
  const out: Record<string, Node> = Object.create(null);
  for (const [name, expression] of Object.entries(expressions)) {
    const path = `${within}.${name}`;
    if (expression === undefined) fail("shape", path, "expected an expression", "nothing");
    out[name] = reader.read(expression, path);
  }
  return out;
}

/** Constants of a model or sampler become leaves of its graph. */
export function readConstants(graph: Graph, scope: Scope, constants: unknown, where: string): void {
  if (constants === undefined) return;
  if (!isRecord(constants)) fail("shape", where, "expected an object of constants", show(constants));
  for (const [name, given] of Object.entries(constants as Record<string, unknown>)) {
    const path = `${where}.${name}`;
    checkName(path, name, scope);
    const spec = isRecord(given)
      ? readValues(path, given["values"], checkShape(path, given["shape"]))
      : readValues(path, given, null);
    scope.set(name, graph.constant(spec.values, spec.shape, name));
  }
}

function assemble(
  where: string,
  spec: { params?: unknown; inputs?: unknown; constants?: unknown },
  write: (scope: Scope, graph: Graph) => Node,
): Model {
  const graph = new Graph();
  const scope: Scope = new Map();
  const blocks: Block[] = [];
  const inputs: Input[] = [];
  if (!isRecord(spec.params))
    fail("shape", `${where}.params`, "expected an object of shapes", show(spec.params));
  let offset = 0;
  for (const [name, given] of Object.entries(spec.params as Record<string, unknown>)) {
    const path = `${where}.params.${name}`;
    checkName(path, name, scope);
    const { shape, trainable } = readBlock(path, given);
    const size = sizeOf(shape);
    blocks.push({ name, shape, size, offset, trainable });
    offset += size;
    scope.set(name, graph.param(name, shape));
  }
  if (blocks.length === 0) fail("shape", `${where}.params`, "a model has at least one parameter", "none");
  if (!isRecord(spec.inputs))
    fail("shape", `${where}.inputs`, "expected an object of shapes (it may be empty)", show(spec.inputs));
  let record = 0;
  for (const [name, given] of Object.entries(spec.inputs as Record<string, unknown>)) {
    const path = `${where}.inputs.${name}`;
    checkName(path, name, scope);
    const shape = checkShape(path, given);
    const size = sizeOf(shape);
    inputs.push({ name, shape, size, offset: record });
    record += size;
    scope.set(name, graph.input(name, shape));
  }
  checkTotal(where, offset + record);
  readConstants(graph, scope, spec.constants, `${where}.constants`);
  const loss = write(new Map(scope), graph);
  if (typeof loss !== "object" || loss === null || loss.graph !== graph) {
    fail("shape", `${where}.loss`, "the loss must be an expression of this model's values", show(loss));
  }
  if (loss.shape.length !== 0) {
    fail(
      "shape",
      `${where}.loss`,
      "the loss of one sample must be a scalar, shape []",
      `${describe(loss)}, shape ${showShape(loss.shape)}`,
      "Sum it (ops.sum, ops.sqnorm) or take its mean.",
    );
  }
  return new Model(graph, blocks, inputs, scope, loss);
}

function readBlock(path: string, given: unknown): { shape: Shape; trainable: boolean } {
  if (!isRecord(given)) return { shape: checkShape(path, given), trainable: true };
  for (const key of Object.keys(given)) {
    if (key !== "shape" && key !== "trainable")
      fail("name", path, "a parameter is a shape or { shape, trainable }", show(key));
  }
  const trainable = given["trainable"] ?? true;
  if (typeof trainable !== "boolean") fail("range", path, "trainable must be true or false", show(trainable));
  return { shape: checkShape(path, given["shape"]), trainable: trainable as boolean };
}

/** Refuses sizes no memory plan can hold before anything is allocated. */
function checkTotal(where: string, entries: number): void {
  if (entries > 536_870_912) {
    fail(
      "memory",
      where,
      `parameters and one sample must fit in 4 GiB (at most ${536_870_912} entries)`,
      `${entries} entries`,
    );
  }
}

import { fail, show, showShape } from "../errors.ts";
import type { Model } from "../graph/model.ts";
import { type Node, sizeOf } from "../graph/node.ts";
import { add, matmul, mul, reshape, scale, sqnorm, sub, sum } from "../graph/ops.ts";
import { checkName, isRecord, readValues } from "../graph/parse.ts";

/**
 * How A acts on one named block P:  P -> scalar P + left P + P right, with symmetric left and right.
 * A one-dimensional block is a column; a block that is not named is not moved.
 */
export interface BlockAction {
  readonly scalar?: number;
  readonly left?: Matrix;
  readonly right?: Matrix;
}

/** A square matrix, row-major. */
export interface Matrix {
  readonly size: number;
  readonly values: Float64Array;
}

export interface GeneratorJSON {
  name?: string;
  blocks?: Record<string, { scalar?: number; left?: number[][]; right?: number[][] }>;
  dense?: number[];
  center?: number[];
}

/**
 * A symmetric generator A of an exponential transformation theta -> e^(lambda A) theta, as plain
 * data over named blocks, or dense. With a center c the field is A (theta - c). Immutable.
 */
export class Generator {
  readonly name: string;
  readonly blocks: ReadonlyMap<string, BlockAction> | null;
  /** P x P, row-major, when A is not given by blocks. */
  readonly dense: Float64Array | null;
  readonly center: Float64Array | null;

  /** @internal use `generator` or a named constructor */
  constructor(
    name: string,
    blocks: ReadonlyMap<string, BlockAction> | null,
    dense: Float64Array | null,
    center: Float64Array | null,
  ) {
    this.name = name;
    this.blocks = blocks;
    this.dense = dense;
    this.center = center;
  }

  /** The data `generator` reads back. */
  toJSON(): GeneratorJSON {
    const out: GeneratorJSON = { name: this.name };
    if (this.blocks !== null) {
      out.blocks = {};
      for (const [name, { scalar, left, right }] of this.blocks) {
        out.blocks[name] = {
          ...(scalar === undefined ? {} : { scalar }),
          ...(left === undefined ? {} : { left: toRows(left) }),
          ...(right === undefined ? {} : { right: toRows(right) }),
        };
      }
    }
    if (this.dense !== null) out.dense = [...this.dense];
    if (this.center !== null) out.center = [...this.center];
    return out;
  }
}

const toRows = ({ size, values }: Matrix): number[][] =>
  Array.from({ length: size }, (_, i) => [...values.slice(i * size, (i + 1) * size)]);

/**
 * A generator from data: `{ blocks: { U: { right: B }, W: { left: minusB } } }`, or
 * `{ dense }` (P x P), each with an optional `center` (a flat theta) and `name`.
 *
 * @throws NoetherflowError "shape" when a matrix is not square and symmetric
 */
export function generator(json: unknown): Generator {
  if (!isRecord(json)) return fail("shape", "generator", "expected { blocks } or { dense }", show(json));
  const name = typeof json["name"] === "string" ? json["name"] : "generator";
  const center =
    json["center"] === undefined ? null : readValues("generator.center", json["center"], null).values;
  if (json["blocks"] !== undefined) {
    if (!isRecord(json["blocks"]))
      return fail("shape", "generator.blocks", "expected an object of block actions", show(json["blocks"]));
    const blocks = new Map<string, BlockAction>();
    for (const [block, action] of Object.entries(json["blocks"])) {
      const where = `generator.blocks.${block}`;
      checkName(where, block);
      if (!isRecord(action)) return fail("shape", where, "expected { scalar?, left?, right? }", show(action));
      blocks.set(block, readAction(where, action));
    }
    return new Generator(name, blocks, null, center);
  }
  if (json["dense"] === undefined)
    return fail("shape", "generator", "expected { blocks } or { dense }", show(json));
  const given = json["dense"];
  const size =
    Array.isArray(given) && Array.isArray(given[0])
      ? given.length
      : squareRoot((given as ArrayLike<number> | null)?.length ?? 0);
  const matrix = readMatrix("generator.dense", given, size);
  return new Generator(name, null, matrix.values, center);
}

function squareRoot(n: number): number {
  return Math.round(Math.sqrt(n));
}

function readAction(where: string, action: Record<string, unknown>): BlockAction {
  const out: { scalar?: number; left?: Matrix; right?: Matrix } = {};
  for (const [key, value] of Object.entries(action)) {
    if (key === "scalar") {
      if (typeof value !== "number" || !Number.isFinite(value))
        fail("range", where, "scalar must be a finite number", show(value));
      out.scalar = value as number;
    } else if (key === "left" || key === "right") out[key] = readMatrix(`${where}.${key}`, value, null);
    else fail("name", where, "a block action has scalar, left and right", show(key));
  }
  return out;
}

/** A square symmetric matrix; symmetric to 1e-12 of its largest entry. */
function readMatrix(where: string, value: unknown, size: number | null): Matrix {
  const { values, shape } = readValues(where, value, size === null ? null : [size, size]);
  if (shape.length !== 2 || shape[0] !== shape[1])
    return fail("shape", where, "expected a square matrix", showShape(shape));
  const n = shape[0]!;
  const largest = values.reduce((m, x) => Math.max(m, Math.abs(x)), 0);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < i; j++) {
      if (Math.abs(values[i * n + j]! - values[j * n + i]!) > 1e-12 * largest) {
        return fail(
          "shape",
          where,
          "expected a symmetric matrix",
          `${values[i * n + j]} at (${i}, ${j}) and ${values[j * n + i]} at (${j}, ${i})`,
          "Only symmetric generators have a charge.",
        );
      }
    }
  }
  return { size: n, values };
}

/** Names of blocks that take part, each once. */
function checkNames(where: string, names: readonly unknown[]): void {
  for (const [i, name] of names.entries()) {
    checkName(where, name);
    if (names.indexOf(name) !== i) fail("name", where, "each block takes part once", `${show(name)} twice`);
  }
}

/** All parameters of the named blocks scaled together: A = I there. Class 2: norms under normalisation. */
export function scaling(...names: string[]): Generator {
  checkNames("scaling", names);
  if (names.length === 0) fail("name", "scaling", "expected the names of the blocks that scale", "none");
  return new Generator(
    `scaling of ${names.join(", ")}`,
    new Map(names.map((n) => [n, { scalar: 1 }])),
    null,
    null,
  );
}

/** Two blocks against each other: up -> e^lambda up, down -> e^-lambda down. C = (|up|^2 - |down|^2) / 2. */
export function rescaling(up: string, down: string): Generator {
  checkNames("rescaling", [up, down]);
  return new Generator(
    `rescaling ${up}, ${down}`,
    new Map<string, BlockAction>([
      [up, { scalar: 1 }],
      [down, { scalar: -1 }],
    ]),
    null,
    null,
  );
}

/**
 * Double rotation of a product U W: U -> U e^(lambda B), W -> e^(-lambda B) W with B symmetric, h x h.
 * The first-named block carries +. C = Tr[B (U^T U - W W^T)] / 2.
 */
export function doubleRotation(U: string, W: string, B: unknown): Generator {
  checkNames("doubleRotation", [U, W]);
  const right = readMatrix("doubleRotation", B, null);
  const left = { size: right.size, values: right.values.map((x) => -x) };
  return new Generator(
    `double rotation ${U}, ${W}`,
    new Map<string, BlockAction>([
      [U, { right }],
      [W, { left }],
    ]),
    null,
    null,
  );
}

/**
 * p^T A p as an expression, p given by one node per block (parameters less the center, or their
 * gradients).
 *
 * @throws NoetherflowError "shape" or "name" if A and the model disagree on a block
 */
export function quadraticForm(
  where: string,
  model: Model,
  A: Generator,
  of: (block: string) => Node | null,
): Node | null {
  const terms: Node[] = [];
  if (A.blocks !== null) {
    for (const [name, action] of A.blocks) {
      const block = model.block(name, where);
      const [rows, cols] = [block.shape[0] ?? 1, block.shape[1] ?? 1];
      checkFits(where, A, name, block.shape, "left", action.left, rows);
      checkFits(where, A, name, block.shape, "right", action.right, cols);
      const p = of(name);
      if (p === null) continue;
      const column = block.shape.length === 2 ? p : reshape(p, [rows, 1]);
      if (action.scalar !== undefined) terms.push(scale(sqnorm(p), action.scalar));
      if (action.left) terms.push(sum(mul(column, matmul(constant(model, action.left), column))));
      if (action.right) terms.push(sum(mul(column, matmul(column, constant(model, action.right)))));
    }
  } else {
    const { dense } = A;
    const { P } = model;
    if (dense!.length !== P * P)
      fail("shape", where, `a dense generator of this model is ${P} x ${P}`, `${dense!.length} entries`);
    for (const b of model.blocks) {
      for (const c of model.blocks) {
        const part = new Float64Array(b.size * c.size);
        for (let i = 0; i < b.size; i++) {
          for (let j = 0; j < c.size; j++) part[i * c.size + j] = dense![(b.offset + i) * P + c.offset + j]!;
        }
        const [p, q] = [of(b.name), of(c.name)];
        if (p === null || q === null || part.every((x) => x === 0)) continue;
        const inner = matmul(model.graph.constant(part, [b.size, c.size], "generator"), reshape(q, [c.size]));
        terms.push(sum(mul(reshape(p, [b.size]), inner)));
      }
    }
  }
  return terms.length === 0 ? null : terms.reduce((a, b) => add(a, b));
}

const constant = (model: Model, matrix: Matrix): Node =>
  model.graph.constant(matrix.values, [matrix.size, matrix.size], "generator");

function checkFits(
  where: string,
  A: Generator,
  name: string,
  shape: readonly number[],
  side: string,
  matrix: Matrix | undefined,
  size: number,
): void {
  if (matrix !== undefined && matrix.size !== size) {
    fail(
      "shape",
      where,
      `${A.name} acts on ${name} from the ${side} with ${matrix.size} x ${matrix.size}`,
      `${name} of shape ${showShape(shape)}`,
    );
  }
}

/** theta - c of one block, or the parameter itself. */
export function displaced(model: Model, A: Generator, name: string): Node {
  const block = model.block(name);
  const leaf = model.leaf(name);
  if (A.center === null) return leaf;
  if (A.center.length !== model.P) {
    fail(
      "shape",
      A.name,
      `the center of a generator of this model has ${model.P} entries`,
      `${A.center.length}`,
    );
  }
  const part = A.center.slice(block.offset, block.offset + sizeOf(block.shape));
  return sub(leaf, model.graph.constant(part, block.shape, "center"));
}

/** Generators of exponential symmetries, for users. */
export const symmetry = { generator, scaling, rescaling, doubleRotation } as const;

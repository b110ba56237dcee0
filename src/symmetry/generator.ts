import {
  checkInteger,
  checkKnown,
  checkNumber,
  checkObject,
  fail,
  nearest,
  show,
  showShape,
} from "../errors.ts";
import { type Products, plain } from "../graph/inner.ts";
import type { Model } from "../graph/model.ts";
import { type Node, sizeOf } from "../graph/node.ts";
import { add, matmul, mul, reshape, scale, sub, sum } from "../graph/ops.ts";
import { checkName, isRecord, readValues } from "../graph/parse.ts";

/**
 * How A acts on one named block P:  P -> scalar P + left P + P right, with symmetric left and right.
 * A one-dimensional block is a column; a block that is not named is not moved. With `rows` or `columns`,
 * [start, stop), the scalar acts on these alone.
 */
export interface BlockAction {
  /** P -> scalar P. */
  readonly scalar?: number;
  /** Symmetric, as many rows as P has. */
  readonly left?: Matrix;
  /** Symmetric, as many rows as P has columns. */
  readonly right?: Matrix;
  /** The scalar acts on these rows alone. */
  readonly rows?: Range;
  /** The scalar acts on these columns alone. */
  readonly columns?: Range;
}

/** Indices from start to stop - 1. */
export type Range = readonly [start: number, stop: number];

/** A square matrix, row-major. */
export interface Matrix {
  /** Rows, and columns. */
  readonly size: number;
  /** size x size values, row-major. */
  readonly values: Float64Array;
}

/** A vector of parameter space: flat, or values of some named blocks and 0 in the others. */
export type Shift = Float64Array | ReadonlyMap<string, BlockValues>;

/** Values of one block as they were given, row-major. */
export interface BlockValues {
  /** As it was given: that of the block, or a flat list. */
  readonly shape: readonly number[];
  /** Row-major. */
  readonly values: Float64Array;
}

/** A number, a list, or a list of rows. */
type NestedValues = number | number[] | number[][];

/** A generator as data, which `symmetry.generator` reads: `blocks` or `dense`, with `center` and `translation` 0 when absent. */
export interface GeneratorJSON {
  /** For tables and messages. */
  name?: string;
  /** P -> scalar P + left P + P right by block name; see BlockAction. */
  blocks?: Record<
    string,
    { scalar?: number; left?: number[][]; right?: number[][]; rows?: number[]; columns?: number[] }
  >;
  /** P x P values, row-major, instead of blocks. */
  dense?: number[];
  /** c in A (theta - c): a flat theta, or values by block. */
  center?: number[] | Record<string, NestedValues>;
  /** b in A theta + b: a flat theta, or values by block. */
  translation?: number[] | Record<string, NestedValues>;
}

/**
 * The field A (theta - c) + b of a one-parameter transformation of theta, as plain data: a symmetric A over named blocks, or
 * dense; a center c and a translation b, 0 where absent. Without them it is e^(lambda A) theta; with A = 0 it is
 * theta + lambda b. Its charge is C = 1/2 (theta - c)^T A (theta - c) + b . theta. Immutable.
 */
export class Generator {
  /** For tables and messages; it has no other meaning. */
  readonly name: string;
  /** What A does to each block; null where A is dense. */
  readonly blocks: ReadonlyMap<string, BlockAction> | null;
  /** P x P, row-major, when A is not given by blocks. */
  readonly dense: Float64Array | null;
  /** c in A (theta - c) + b; null for 0. */
  readonly center: Shift | null;
  /** b in A (theta - c) + b; null for 0. */
  readonly translation: Shift | null;

  /** @internal use `generator` or a named constructor */
  constructor(
    name: string,
    blocks: ReadonlyMap<string, BlockAction> | null,
    dense: Float64Array | null,
    center: Shift | null,
    translation: Shift | null = null,
  ) {
    this.name = name;
    this.blocks = blocks;
    this.dense = dense;
    this.center = center;
    this.translation = translation;
  }

  /** The data `generator` reads back. */
  toJSON(): GeneratorJSON {
    const out: GeneratorJSON = { name: this.name };
    if (this.blocks !== null) {
      out.blocks = {};
      for (const [name, { scalar, left, right, rows, columns }] of this.blocks) {
        out.blocks[name] = {
          ...(scalar === undefined ? {} : { scalar }),
          ...(left === undefined ? {} : { left: toRows(left) }),
          ...(right === undefined ? {} : { right: toRows(right) }),
          ...(rows === undefined ? {} : { rows: [...rows] }),
          ...(columns === undefined ? {} : { columns: [...columns] }),
        };
      }
    }
    if (this.dense !== null) out.dense = [...this.dense];
    if (this.center !== null) out.center = plainShift(this.center);
    if (this.translation !== null) out.translation = plainShift(this.translation);
    return out;
  }
}

/** A generator as one model reads it: center and translation flat, P values each. */
export interface Fitted extends Generator {
  readonly center: Float64Array | null;
  readonly translation: Float64Array | null;
}

function plainShift(shift: Shift): number[] | Record<string, NestedValues> {
  if (shift instanceof Float64Array) return [...shift];
  const nested = ({ shape, values }: BlockValues): NestedValues => {
    const [rows = 1, cols = 1] = shape;
    if (shape.length < 2) return shape.length === 0 ? values[0]! : [...values];
    return Array.from({ length: rows }, (_, i) => [...values.slice(i * cols, (i + 1) * cols)]);
  };
  return Object.fromEntries([...shift].map(([name, given]) => [name, nested(given)]));
}

const toRows = ({ size, values }: Matrix): number[][] =>
  Array.from({ length: size }, (_, i) => [...values.slice(i * size, (i + 1) * size)]);

/**
 * A generator from data: `{ blocks: { U: { right: B }, W: { left: minusB } } }`, or `{ dense }` (P x P), each with an optional
 * `center`, `translation` (a flat theta, or values by block, 0 in the others) and `name`; or a `translation` alone.
 *
 * @throws NoetherflowError "shape" when a matrix is not square and symmetric
 * @example
 * const A = symmetry.generator({ blocks: { U: { scalar: 1 }, W: { scalar: -1 } } });
 * problem.checkSymmetry(A).verdict; // "exact"
 */
export function generator(json: unknown): Generator {
  if (!isRecord(json))
    return fail("shape", "generator", "expected { blocks }, { dense } or { translation }", show(json));
  const keys = ["name", "blocks", "dense", "center", "translation"];
  // further data may stand beside a generator, but no misspelt part of it
  for (const key of Object.keys(json)) {
    const hint = keys.includes(key) ? undefined : nearest(key, keys);
    if (hint !== undefined) fail("name", "generator", `its keys are ${keys.join(", ")}`, show(key), hint);
  }
  const name = typeof json["name"] === "string" ? json["name"] : "generator";
  const shift = (key: "center" | "translation"): Shift | null =>
    json[key] === undefined ? null : readShift(`generator.${key}`, json[key]);
  const [center, translation] = [shift("center"), shift("translation")];
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
    return new Generator(name, blocks, null, center, translation);
  }
  if (json["dense"] === undefined) {
    if (translation !== null && center === null)
      return new Generator(name, new Map(), null, null, translation);
    return fail("shape", "generator", "expected { blocks }, { dense } or { translation }", show(json));
  }
  const given = json["dense"];
  const size =
    Array.isArray(given) && Array.isArray(given[0])
      ? given.length
      : squareRoot((given as ArrayLike<number> | null)?.length ?? 0);
  const matrix = readMatrix("generator.dense", given, size);
  return new Generator(name, null, matrix.values, center, translation);
}

/** A vector of parameter space before its model is known. */
function readShift(where: string, value: unknown): Shift {
  if (!isRecord(value)) return readValues(where, value, null).values;
  return new Map(
    Object.entries(value).map(([block, given]): [string, BlockValues] => {
      checkName(where, block);
      return [block, readValues(`${where}.${block}`, given, null)];
    }),
  );
}

function squareRoot(n: number): number {
  return Math.round(Math.sqrt(n));
}

function readAction(where: string, action: Record<string, unknown>): BlockAction {
  const out: { -readonly [K in keyof BlockAction]: BlockAction[K] } = {};
  for (const [key, value] of Object.entries(action)) {
    if (key === "scalar") {
      if (typeof value !== "number" || !Number.isFinite(value))
        fail("range", where, "scalar must be a finite number", show(value));
      out.scalar = value as number;
    } else if (key === "left" || key === "right") out[key] = readMatrix(`${where}.${key}`, value, null);
    else if (key === "rows" || key === "columns") out[key] = readRange(`${where}.${key}`, value);
    else fail("name", where, "a block action has scalar, left, right, rows and columns", show(key));
  }
  const ranges = (out.rows === undefined ? 0 : 1) + (out.columns === undefined ? 0 : 1);
  if (ranges > 0 && (ranges > 1 || out.scalar === undefined || out.left || out.right))
    fail(
      "shape",
      where,
      "rows or columns say where a scalar acts, one of the two and nothing beside it",
      show(action),
    );
  return out;
}

function readRange(where: string, value: unknown): Range {
  const [start, stop] = Array.isArray(value) && value.length === 2 ? (value as unknown[]) : [];
  const whole = (x: unknown): x is number => typeof x === "number" && Number.isInteger(x) && x >= 0;
  if (!whole(start) || !whole(stop) || stop <= start)
    return fail("range", where, "expected [start, stop] with 0 <= start < stop", show(value));
  return [start, stop];
}

/** An action on a block of this shape by scalar, left and right alone: a range becomes a diagonal matrix. */
export function resolved(
  where: string,
  { scalar = 0, left, right, rows, columns }: BlockAction,
  [height = 1, width = 1]: readonly number[],
): { scalar: number; left: Matrix | undefined; right: Matrix | undefined } {
  if (rows === undefined && columns === undefined) return { scalar, left, right };
  const [range, size, name] = rows === undefined ? [columns!, width, "columns"] : [rows, height, "rows"];
  if (range[1] > size)
    fail("shape", where, `${name} up to ${range[1]} of a block that has them`, `${size} ${name}`);
  const values = new Float64Array(size * size);
  for (let i = range[0]; i < range[1]; i++) values[i * size + i] = scalar;
  const diagonal = { size, values };
  return { scalar: 0, left: rows && diagonal, right: columns && diagonal };
}

/** A square symmetric matrix; symmetric to 1e-12 of its largest entry. */
function readMatrix(where: string, value: unknown, size: number | null): Matrix {
  const { values, shape } = readValues(where, value, size === null ? null : [size, size]);
  if (shape.length !== 2 || shape[0] !== shape[1])
    return fail("shape", where, "expected a square matrix", showShape(shape));
  const n = shape[0]!;
  const matrix = { size: n, values };
  const asymmetry = asymmetryOf(matrix);
  if (asymmetry !== null) {
    const [i, j] = asymmetry;
    return fail(
      "shape",
      where,
      "expected a symmetric matrix",
      `${values[i * n + j]} at (${i}, ${j}) and ${values[j * n + i]} at (${j}, ${i})`,
      "Only symmetric generators have a charge.",
    );
  }
  return matrix;
}

/** Where a matrix is not symmetric to 1e-12 of its largest entry; null where it is. */
function asymmetryOf({ size: n, values }: Matrix): readonly [number, number] | null {
  const largest = values.reduce((m, x) => Math.max(m, Math.abs(x)), 0);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < i; j++)
      if (Math.abs(values[i * n + j]! - values[j * n + i]!) > 1e-12 * largest) return [i, j];
  }
  return null;
}

/** Names of blocks that take part, each once. */
function checkNames(where: string, names: readonly unknown[]): void {
  for (const [i, name] of names.entries()) {
    checkName(where, name);
    if (names.indexOf(name) !== i) fail("name", where, "each block takes part once", `${show(name)} twice`);
  }
}

/**
 * All parameters of the named blocks scaled together: A = I there. Class 2: norms under normalisation.
 *
 * @example
 * const normalised = engine.problem(models.netA({ dx: 3, h: 4, dy: 2 }), teacher, { samples: 8 });
 * normalised.checkSymmetry(symmetry.scaling("U", "W")).verdict; // "exact"
 */
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

/**
 * Blocks scaled by different powers: P -> e^(lambda f) P for each block's factor f.
 *
 * @example
 * const squares = models.mlp({ widths: [3, 4, 2], activation: "square" }); // act(c z) = c^2 act(z)
 * const problem = engine.problem(squares, teacher, { samples: 8 });
 * problem.checkSymmetry(symmetry.blockScaling({ W2: 2, W1: -1 })).verdict; // "exact"
 */
export function blockScaling(factors: Readonly<Record<string, number>>): Generator {
  const names = Object.keys(checkObject("blockScaling", "a factor for each block: { U: 2, W: -1 }", factors));
  checkNames("blockScaling", names);
  if (names.length === 0) fail("name", "blockScaling", "expected a factor for some blocks", "none");
  const blocks = names.map((n): [string, BlockAction] => [
    n,
    { scalar: checkNumber("blockScaling", n, factors[n]) },
  ]);
  return new Generator(`scaling of ${names.join(", ")}`, new Map(blocks), null, null);
}

/**
 * One hidden unit: its outgoing column of U against its incoming row of W, U_:j -> e^(p lambda) U_:j,
 * W_j: -> e^-lambda W_j:, with its entry of the biases before the activation on W's side.
 *
 * @param options.degree p of an activation with act(c z) = c^p act(z) for c > 0: 1 for ReLU and linear units, 2 for squares
 * @param options.bias   name of the biases, if there are any
 * @example problem.checkSymmetry(symmetry.neuronRescaling("U", "W", 0)).verdict; // "exact"
 */
export function neuronRescaling(
  U: string,
  W: string,
  j: number,
  options: { degree?: number; bias?: string } = {},
): Generator {
  const where = "neuronRescaling";
  checkKnown(where, checkObject(where, "options { degree?, bias? }", options), ["degree", "bias"]);
  const { degree = 1, bias } = options;
  checkNames(where, bias === undefined ? [U, W] : [U, W, bias]);
  checkInteger(where, "the unit", j, 0);
  checkNumber(where, "degree", degree);
  const rows: Range = [j, j + 1];
  const blocks = new Map<string, BlockAction>([
    [U, { scalar: degree, columns: rows }],
    [W, { scalar: -1, rows }],
  ]);
  if (bias !== undefined) blocks.set(bias, { scalar: -1, rows });
  return new Generator(`neuron ${j} of ${U}, ${W}`, blocks, null, null);
}

/**
 * Key and query of an attention with scores X Wq Wk^T X^T: Wq -> Wq e^(lambda B), Wk -> Wk e^(-lambda B), B symmetric.
 * C = Tr[B (Wq^T Wq - Wk^T Wk)] / 2.
 *
 * @example symmetry.keyQuery("Wq", "Wk", [[1, 0], [0, 2]]).toJSON().blocks?.Wk; // { right: [[-1, 0], [0, -2]] }
 */
export function keyQuery(Wq: string, Wk: string, B: unknown): Generator {
  checkNames("keyQuery", [Wq, Wk]);
  const right = readMatrix("keyQuery", B, null);
  const opposite = { size: right.size, values: right.values.map((x) => 0 - x) }; // no -0, which JSON has not
  return new Generator(
    `key/query rotation ${Wq}, ${Wk}`,
    new Map<string, BlockAction>([
      [Wq, { right }],
      [Wk, { right: opposite }],
    ]),
    null,
    null,
  );
}

/**
 * A generator about another center: the field A (theta - c), C = 1/2 (theta - c)^T A (theta - c).
 *
 * @param center a flat theta, or values by block and 0 in the others; for a residual layer (U + I)(W + I) it is -I in both
 *               blocks: { U: minusI, W: minusI }
 * @example
 * const I = [[1, 0], [0, 1]].map((row) => row.map((x) => 0 - x)); // minus I
 * const A = symmetry.shifted(symmetry.doubleRotation("U", "W", [[1, 0], [0, 0]]), { U: I, W: I });
 * const blocks = models.residual({ d: 2 });
 * engine.problem(blocks, { x: [[1, 2]], y: [[0, 1]] }).checkSymmetry(A).verdict; // "exact"
 */
export function shifted(A: Generator, center: unknown): Generator {
  if (!(A instanceof Generator)) return fail("shape", "shifted", "expected a generator", show(A));
  return new Generator(
    `shifted ${A.name}`,
    A.blocks,
    A.dense,
    readShift("shifted: center", center),
    A.translation,
  );
}

/**
 * A translation theta -> theta + lambda b, with the charge C = b . theta. Noise does not move it.
 *
 * @param b a flat theta, or values by block and 0 in the others
 * @example
 * const problem = engine.problem(models.softmaxRegression({ d: 2, classes: 3 }), { x: [[1, 2]], y: [[1, 0, 0]] });
 * problem.checkSymmetry(symmetry.translation({ W: [[1, 0], [1, 0], [1, 0]] })).verdict; // "exact"
 */
export function translation(b: unknown): Generator {
  const shift = readShift("translation", b);
  const parts = shift instanceof Float64Array ? [shift] : [...shift.values()].map((part) => part.values);
  if (parts.every((part) => part.every((x) => x === 0)))
    fail("range", "translation", "expected a direction that is not 0", show(b));
  const name = shift instanceof Float64Array ? "" : ` of ${[...shift.keys()].join(", ")}`;
  return new Generator(`translation${name}`, new Map(), null, null, shift);
}

/**
 * Two blocks against each other: up -> e^lambda up, down -> e^-lambda down. C = (|up|^2 - |down|^2) / 2.
 *
 * @example problem.charge(theta, symmetry.rescaling("U", "W")); // -0.4985
 */
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
 *
 * @example
 * const B = [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]; // hidden units 0 and 1
 * problem.checkSymmetry(symmetry.doubleRotation("U", "W", B)).verdict; // "exact"
 */
export function doubleRotation(U: string, W: string, B: unknown): Generator {
  checkNames("doubleRotation", [U, W]);
  const right = readMatrix("doubleRotation", B, null);
  const left = { size: right.size, values: right.values.map((x) => 0 - x) }; // no -0, which JSON has not
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
 * @param products how inner products of the nodes are formed: from their structure, or plainly
 * @throws NoetherflowError "shape" or "name" if A and the model disagree on a block
 */
export function quadraticForm(
  where: string,
  model: Model,
  A: Generator,
  of: (block: string) => Node | null,
  { inner, leftTimes, rightTimes }: Products = plain,
): Node | null {
  const terms: Node[] = [];
  if (A.blocks !== null) {
    for (const [name, action] of A.blocks) {
      const block = model.block(name, where);
      const [rows, cols] = [block.shape[0] ?? 1, block.shape[1] ?? 1];
      const { scalar, left, right } = resolved(`${where}: ${A.name} on ${name}`, action, block.shape);
      checkFits(where, A, name, block.shape, "left", left, rows);
      checkFits(where, A, name, block.shape, "right", right, cols);
      const p = of(name);
      if (p === null) continue;
      const column = block.shape.length === 2 ? p : reshape(p, [rows, 1]);
      if (scalar !== 0) terms.push(scale(inner(p, p), scalar));
      if (left) terms.push(inner(column, leftTimes(constant(model, left), column)));
      if (right) terms.push(inner(column, rightTimes(column, constant(model, right))));
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

/**
 * A generator as a model reads it: the same where center and translation are flat already, else a copy; one of them that is
 * 0 becomes null.
 *
 * @throws NoetherflowError "shape" or "name" where a center or translation does not fit the model
 */
export function placed(where: string, model: Model, A: Generator): Fitted {
  const flat = (what: "center" | "translation"): Float64Array | null => {
    const shift = A[what];
    if (shift === null) return null;
    if (shift instanceof Float64Array) {
      if (shift.length !== model.P)
        fail(
          "shape",
          where,
          `the ${what} of a generator of this model has ${model.P} entries`,
          `${shift.length}, that of ${A.name}`,
        );
      return shift.some((x) => x !== 0) ? shift : null;
    }
    const out = new Float64Array(model.P);
    for (const [name, { shape, values }] of shift) {
      const block = model.block(name, where);
      const fits = shape.length === block.shape.length && shape.every((n, i) => n === block.shape[i]);
      if (values.length !== block.size || !(fits || shape.length < 2))
        fail(
          "shape",
          where,
          `the ${what} of ${A.name} has values for ${name} of shape ${showShape(block.shape)}`,
          showShape(shape),
        );
      out.set(values, block.offset);
    }
    return out.some((x) => x !== 0) ? out : null;
  };
  const [center, b] = [flat("center"), flat("translation")];
  if (center === A.center && b === A.translation) return A as Fitted;
  return new Generator(A.name, A.blocks, A.dense, center, b) as Fitted;
}

/** A generator of a model, checked: see checkActsOn and placed. */
export function fitted(where: string, model: Model, A: Generator): Fitted {
  checkActsOn(where, model, A);
  return placed(where, model, A);
}

/** Refuses a generator that does not fit a model (blocks it has not, matrices of other sizes) or is not symmetric. */
function checkActsOn(where: string, model: Model, A: Generator): void {
  if (A.blocks === null && A.dense!.length !== model.P * model.P)
    fail(
      "shape",
      where,
      `a dense generator of this model is ${model.P} x ${model.P}`,
      `${A.dense!.length} entries`,
    );
  for (const [name, action] of A.blocks ?? []) {
    const { shape } = model.block(name, where);
    const { left, right } = resolved(`${where}: ${A.name} on ${name}`, action, shape);
    checkFits(where, A, name, shape, "left", left, shape[0] ?? 1);
    checkFits(where, A, name, shape, "right", right, shape[1] ?? 1);
  }
  if (!isSymmetric(A))
    fail(
      "unsupported",
      where,
      "expected a symmetric generator",
      A.name,
      "Only symmetric generators have a charge.",
    );
}

/** Whether A is symmetric to 1e-12 of its largest entry, as all are but rotations that were discovered. */
export function isSymmetric({ blocks, dense }: Generator): boolean {
  const matrices: readonly (Matrix | undefined)[] =
    blocks === null
      ? [{ size: Math.round(Math.sqrt(dense!.length)), values: dense! }]
      : [...blocks.values()].flatMap(({ left, right }) => [left, right]);
  return matrices.every((matrix) => matrix === undefined || asymmetryOf(matrix) === null);
}

/** theta - c of one block, or the parameter itself. */
export function displaced(model: Model, A: Fitted, name: string): Node {
  const block = model.block(name);
  const leaf = model.leaf(name);
  if (A.center === null) return leaf;
  const part = A.center.slice(block.offset, block.offset + sizeOf(block.shape));
  return sub(leaf, model.graph.constant(part, block.shape, "center"));
}

/**
 * Generators of exponential symmetries, theta -> e^(lambda A) theta.
 *
 * @namespace
 */
export const symmetry = {
  generator,
  scaling,
  blockScaling,
  rescaling,
  neuronRescaling,
  doubleRotation,
  keyQuery,
  shifted,
  translation,
} as const;

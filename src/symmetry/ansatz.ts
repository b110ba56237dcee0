import type { Block, Model } from "../graph/model.ts";
import type { BlockAction, Matrix } from "./generator.ts";

/** "symmetric" A, which has a charge; "general" A, rotations too; "affine": A (symmetric) theta + b. */
export type Form = "symmetric" | "general" | "affine";

/** Which A: all P x P; left and right actions on each block; those that are diagonal. */
export type Restriction = "full" | "blocks" | "diagonal";

/** A side of a block that a matrix can act on: P -> E P ("left", a vector's only side), or P -> P E. */
export interface Slot {
  readonly block: Block;
  readonly side: "left" | "right";
  readonly size: number;
}

/** The matrix E that acts on a slot: 1 at (k, l), and `mirror` at (l, k) for k != l. */
export interface Unit {
  readonly k: number;
  readonly l: number;
  readonly mirror: 1 | -1;
}

/** A generator's data: one of the two is null. */
export interface Parts {
  readonly blocks: ReadonlyMap<string, BlockAction> | null;
  readonly dense: Float64Array | null;
}

/** Rows and columns of a block; a vector is a column. */
export const rowsAndColumns = ({ shape }: Block): [number, number] => [shape[0] ?? 1, shape[1] ?? 1];

export function slotsOf(blocks: readonly Block[]): Slot[] {
  return blocks.flatMap((block): Slot[] => {
    const [rows, cols] = rowsAndColumns(block);
    const left: Slot = { block, side: "left", size: rows };
    return block.shape.length < 2 ? [left] : [left, { block, side: "right", size: cols }];
  });
}

const ROOT = Math.sqrt(2);

/**
 * A linear space of fields theta -> A theta + b on the trained entries, by coordinates. A symmetric matrix has the
 * coordinates (diagonal; sqrt 2 times what is above it), in which its Frobenius norm is the Euclidean one.
 */
export abstract class Ansatz {
  readonly model: Model;
  readonly form: Form;
  /** Trained blocks: the others are no unknowns, A is 0 there. */
  readonly blocks: readonly Block[];
  readonly P: number;
  /** Positions in theta of the trained entries. */
  readonly entries: Int32Array;

  constructor(model: Model, form: Form) {
    this.model = model;
    this.form = form;
    this.P = model.P;
    this.blocks = model.blocks.filter((b) => b.trainable);
    this.entries = Int32Array.from(
      this.blocks.flatMap((b) => Array.from({ length: b.size }, (_, e) => b.offset + e)),
    );
  }

  /** Coordinates of A; those of b, if any, follow. */
  abstract readonly linear: number;

  get unknowns(): number {
    return this.linear + (this.form === "affine" ? this.entries.length : 0);
  }

  /** Whether A may have any entry. */
  abstract readonly isFull: boolean;

  /** Coordinates with A = 0 that are not 0, orthonormal: (I, -I) of each matrix block. */
  abstract readonly trivial: readonly Float64Array[];

  /** Coefficients of g . (A theta + b). */
  row(g: Float64Array, theta: Float64Array): Float64Array {
    const out = new Float64Array(this.unknowns);
    this.contract(g, theta, out);
    for (let i = this.linear; i < out.length; i++) out[i] = g[this.entries[i - this.linear]!]!;
    return out;
  }

  protected abstract contract(g: Float64Array, theta: Float64Array, out: Float64Array): void;

  /** Coordinates of a unit matrix on a slot; null where the ansatz has none. */
  abstract unit(slot: Slot, unit: Unit): Float64Array | null;

  /** Coordinates of a matrix over the trained entries, or null where the ansatz has none. */
  abstract coordinates(matrix: Float64Array): Float64Array | null;

  /** A as left and right actions on blocks, else P x P. */
  abstract parts(a: Float64Array): Parts;
}

/** Number of coordinates of a matrix of this size. */
const count = (n: number, form: Form): number => (form === "general" ? n * n : (n * (n + 1)) / 2);

/** Where coordinate (i, j) of a matrix of this size stands, i <= j unless the form is general. */
const place = (n: number, form: Form, i: number, j: number): number =>
  form === "general" ? i * n + j : (i * (2 * n - i - 1)) / 2 + j;

/** Coordinates of a unit matrix, from position `at` on. */
function writeUnit(out: Float64Array, at: number, n: number, form: Form, { k, l, mirror }: Unit): void {
  if (k === l) out[at + place(n, form, k, k)] = 1;
  else if (form === "general") {
    out[at + place(n, form, k, l)] = 1;
    out[at + place(n, form, l, k)] = mirror;
  } else out[at + place(n, form, Math.min(k, l), Math.max(k, l))] = ROOT;
}

/** The matrix of coordinates from position `at` on. */
function matrixAt(a: Float64Array, at: number, n: number, form: Form): Float64Array {
  const out = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < n; j++) {
      const [low, high] = form === "general" ? [i, j] : [Math.min(i, j), Math.max(i, j)];
      const x = a[at + place(n, form, low, high)]!;
      out[i * n + j] = form === "general" || i === j ? x : x / ROOT;
    }
  }
  return out;
}

/** All of A. */
class FullAnsatz extends Ansatz {
  readonly trivial: readonly Float64Array[] = [];
  readonly isFull = true;

  get linear(): number {
    return count(this.entries.length, this.form);
  }

  protected contract(g: Float64Array, theta: Float64Array, out: Float64Array): void {
    const { entries, form } = this;
    const n = entries.length;
    let at = 0;
    for (let i = 0; i < n; i++) {
      const [gi, ti] = [g[entries[i]!]!, theta[entries[i]!]!];
      if (form === "general") {
        for (let j = 0; j < n; j++) out[at++] = gi * theta[entries[j]!]!;
        continue;
      }
      out[at++] = gi * ti;
      for (let j = i + 1; j < n; j++) out[at++] = (gi * theta[entries[j]!]! + g[entries[j]!]! * ti) / ROOT;
    }
  }

  unit({ block, side }: Slot, { k, l, mirror }: Unit): Float64Array {
    const out = new Float64Array(this.linear);
    const [rows, cols] = rowsAndColumns(block);
    const first = this.entries.indexOf(block.offset);
    // A sends entry `from` to entry `to`; E^T acts from the right
    for (let other = 0; other < (side === "left" ? cols : rows); other++) {
      const entry = (index: number) =>
        first + (side === "left" ? index * cols + other : other * cols + index);
      const [to, from] = side === "left" ? [entry(k), entry(l)] : [entry(l), entry(k)];
      writeUnit(out, 0, this.entries.length, this.form, { k: to, l: from, mirror });
    }
    return out;
  }

  coordinates(matrix: Float64Array): Float64Array {
    const n = this.entries.length;
    const out = new Float64Array(this.linear);
    for (let i = 0; i < n; i++) {
      for (let j = this.form === "general" ? 0 : i; j < n; j++) {
        const x = matrix[i * n + j]!;
        out[place(n, this.form, i, j)] = this.form === "general" || i === j ? x : x * ROOT;
      }
    }
    return out;
  }

  parts(a: Float64Array): Parts {
    const { entries, P } = this;
    const n = entries.length;
    const A = matrixAt(a, 0, n, this.form);
    const blocks = this.form === "general" ? null : this.#actions(A);
    if (blocks !== null) return { blocks, dense: null };
    const dense = new Float64Array(P * P);
    for (let i = 0; i < n; i++) {
      for (let j = 0; j < n; j++) dense[entries[i]! * P + entries[j]!] = A[i * n + j]!;
    }
    return { blocks, dense };
  }

  /** X = Tr_cols A / cols and Y = Tr_rows A / rows less its mean, where X x I + I x Y is A to 1e-10. */
  #actions(A: Float64Array): Map<string, BlockAction> | null {
    const n = this.entries.length;
    const most = A.reduce((m, x) => Math.max(m, Math.abs(x)), 0);
    const out = new Map<string, BlockAction>();
    let [first, rest] = [0, 0];
    for (const block of this.blocks) {
      const [rows, cols] = rowsAndColumns(block);
      const at = (i: number, j: number, k: number, l: number) =>
        A[(first + i * cols + j) * n + first + k * cols + l]!;
      const X = new Float64Array(rows * rows);
      const Y = new Float64Array(cols * cols);
      let mean = 0;
      for (let i = 0; i < rows; i++) {
        for (let k = 0; k < rows; k++)
          for (let j = 0; j < cols; j++) X[i * rows + k] = X[i * rows + k]! + at(i, j, k, j) / cols;
        mean += X[i * rows + i]! / rows;
      }
      for (let l = 0; l < cols; l++) {
        for (let j = 0; j < cols; j++)
          for (let i = 0; i < rows; i++) Y[l * cols + j] = Y[l * cols + j]! + at(i, j, i, l) / rows;
        Y[l * cols + l] = Y[l * cols + l]! - mean;
      }
      for (let i = 0; i < rows; i++)
        for (let j = 0; j < cols; j++)
          for (let k = 0; k < rows; k++)
            for (let l = 0; l < cols; l++) {
              const fit = (j === l ? X[i * rows + k]! : 0) + (i === k ? Y[l * cols + j]! : 0);
              rest = Math.max(rest, Math.abs(at(i, j, k, l) - fit));
            }
      for (let i = 0; i < block.size; i++)
        for (let j = 0; j < n; j++)
          if (j < first || j >= first + block.size) rest = Math.max(rest, Math.abs(A[(first + i) * n + j]!));
      const action = actionOf({ size: rows, values: X }, { size: cols, values: Y }, most);
      if (action !== null) out.set(block.name, action);
      first += block.size;
    }
    return rest <= 1e-10 * most ? out : null;
  }
}

/** On each matrix block W -> X W + W Y, on each vector v -> X v. */
class BlockAnsatz extends Ansatz {
  readonly linear: number;
  readonly trivial: readonly Float64Array[];
  readonly isFull = false;
  readonly #slots: readonly { readonly slot: Slot; readonly at: number }[];
  readonly #diagonal: boolean;

  constructor(model: Model, form: Form, diagonal: boolean) {
    super(model, form);
    this.#diagonal = diagonal;
    let at = 0;
    this.#slots = slotsOf(this.blocks).map((slot) => {
      const placed = { slot, at };
      at += diagonal ? slot.size : count(slot.size, form);
      return placed;
    });
    this.linear = at;
    this.trivial = this.blocks
      .filter((block) => block.shape.length === 2)
      .map((block) => {
        const out = new Float64Array(this.unknowns);
        const length = Math.sqrt(block.shape[0]! + block.shape[1]!);
        for (const { slot, at } of this.#slots) {
          if (slot.block !== block) continue;
          const sign = slot.side === "left" ? 1 : -1;
          for (let i = 0; i < slot.size; i++) out[at + this.#place(slot.size, i, i)] = sign / length;
        }
        return out;
      });
  }

  #place(n: number, i: number, j: number): number {
    return this.#diagonal ? i : place(n, this.form, i, j);
  }

  protected contract(g: Float64Array, theta: Float64Array, out: Float64Array): void {
    for (const { slot, at } of this.#slots) {
      const { block, side, size } = slot;
      const [rows, cols] = rowsAndColumns(block);
      // coefficient of E_ik: from the left sum_j g_ij w_kj, from the right (W E)_jk = w_ji: sum_j w_ji g_jk
      const [step, count, stride] = side === "left" ? [1, cols, cols] : [cols, rows, 1];
      const coefficient = (i: number, k: number): number => {
        let sum = 0;
        let [p, q] = [block.offset + i * stride, block.offset + k * stride];
        for (let j = 0; j < count; j++) {
          sum += side === "left" ? g[p]! * theta[q]! : theta[p]! * g[q]!;
          p += step;
          q += step;
        }
        return sum;
      };
      for (let i = 0; i < size; i++) {
        if (this.#diagonal) out[at + i] = coefficient(i, i);
        else if (this.form === "general")
          for (let k = 0; k < size; k++) out[at + i * size + k] = coefficient(i, k);
        else {
          out[at + place(size, this.form, i, i)] = coefficient(i, i);
          for (let k = i + 1; k < size; k++)
            out[at + place(size, this.form, i, k)] = (coefficient(i, k) + coefficient(k, i)) / ROOT;
        }
      }
    }
  }

  unit(slot: Slot, unit: Unit): Float64Array | null {
    if (this.#diagonal && unit.k !== unit.l) return null;
    const out = new Float64Array(this.linear);
    for (const placed of this.#slots) {
      if (placed.slot.block !== slot.block || placed.slot.side !== slot.side) continue;
      if (this.#diagonal) out[placed.at + unit.k] = 1;
      else writeUnit(out, placed.at, slot.size, this.form, unit);
    }
    return out;
  }

  coordinates(): null {
    return null;
  }

  parts(a: Float64Array): Parts {
    const most = a.reduce((m, x) => Math.max(m, Math.abs(x)), 0);
    const out = new Map<string, BlockAction>();
    for (const block of this.blocks) {
      const [left, right] = this.#slots
        .filter(({ slot }) => slot.block === block)
        .map(({ slot: { size }, at }): Matrix => {
          if (!this.#diagonal) return { size, values: matrixAt(a, at, size, this.form) };
          const values = new Float64Array(size * size);
          for (let i = 0; i < size; i++) values[i * size + i] = a[at + i]!;
          return { size, values };
        });
      const action = actionOf(left!, right ?? { size: 1, values: new Float64Array(1) }, most);
      if (action !== null) out.set(block.name, action);
    }
    return { blocks: out, dense: null };
  }
}

/**
 * X P + P Y with as few entries as it takes: a multiple of I goes where it leaves most of a diagonal 0.
 *
 * @param most the largest entry of the generator: beside it 1e-12 is nothing
 */
function actionOf(X: Matrix, Y: Matrix, most: number): BlockAction | null {
  const near = (x: number): boolean => Math.abs(x) <= 1e-12 * most;
  const [x, y] = [X, Y].map(usual) as [number, number];
  const scalar = near(x + y) ? 0 : x + y;
  const [left, right] = [less(X, x), less(Y, y)].map(({ size, values }) => ({
    size,
    values: values.map((v) => (near(v) ? 0 : v)),
  })) as [Matrix, Matrix];
  const out: { scalar?: number; left?: Matrix; right?: Matrix } = {};
  if (scalar !== 0) out.scalar = scalar;
  if (left.values.some((v) => v !== 0)) out.left = left;
  if (right.values.some((v) => v !== 0)) out.right = right;
  return Object.keys(out).length === 0 ? null : out;
}

/** The diagonal entry that occurs most often, the first of equals. */
function usual({ size, values }: Matrix): number {
  const diagonal = Array.from({ length: size }, (_, i) => values[i * size + i]!);
  const most = Math.max(...diagonal.map(Math.abs));
  const times = diagonal.map((x) => diagonal.filter((y) => Math.abs(x - y) <= 1e-9 * most).length);
  return diagonal[times.indexOf(Math.max(...times))]!;
}

function less({ size, values }: Matrix, c: number): Matrix {
  return { size, values: values.map((v, e) => (e % (size + 1) === 0 ? v - c : v)) };
}

export function ansatz(model: Model, form: Form, restrict: Restriction): Ansatz {
  return restrict === "full"
    ? new FullAnsatz(model, form)
    : new BlockAnsatz(model, form, restrict === "diagonal");
}

/** Unknowns of an ansatz, before it is made. */
export function unknownsOf(model: Model, form: Form, restrict: Restriction): number {
  const blocks = model.blocks.filter((b) => b.trainable);
  const entries = blocks.reduce((n, b) => n + b.size, 0);
  const shift = form === "affine" ? entries : 0;
  if (restrict === "full") return count(entries, form) + shift;
  return slotsOf(blocks).reduce(
    (n, s) => n + (restrict === "diagonal" ? s.size : count(s.size, form)),
    shift,
  );
}

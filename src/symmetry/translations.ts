import type { Block } from "../graph/model.ts";
import { norm } from "../stats/operator.ts";
import { type Ansatz, rowsAndColumns, slotsOf } from "./ansatz.ts";
import type { Member } from "./families.ts";
import { APART, furthest, nullSpace, Span } from "./null-space.ts";

/** A direction of theta along which no sample's loss changes, anywhere. */
export interface Translation {
  readonly name: string;
  /** Over the trained entries. */
  readonly vector: Float64Array;
}

/** "b[2]", "W[0, 1]", or the name alone where the block has one entry. */
function entryName({ name, shape, size }: Block, e: number): string {
  if (size === 1) return name;
  const cols = shape[1] ?? 1;
  return shape.length < 2 ? `${name}[${e}]` : `${name}[${Math.floor(e / cols)}, ${e % cols}]`;
}

/**
 * The directions orthogonal to all gradients, as a basis of familiar ones where these exist: entries that are not used;
 * one number added to a vector, a row or a column; one entry against another (parameters that act through a sum).
 *
 * @param gradients of enough samples at enough thetas, over the trained entries, each of length 1
 * @param tolerance how far from the space a familiar direction may be, and the relative size of what is no gradient
 */
export function translations(
  blocks: readonly Block[],
  gradients: readonly Float64Array[],
  tolerance: number,
): Translation[] {
  const n = blocks.reduce((sum, b) => sum + b.size, 0);
  const columns = Array.from({ length: n }, (_, i) => Float64Array.from(gradients, (g) => g[i]!));
  const space = new Span(nullSpace(columns, (largest) => tolerance * largest).vectors);
  const chosen = new Span();
  const found: Translation[] = [];
  for (const { name, vector } of candidates(blocks, n, space, tolerance)) {
    if (found.length === space.vectors.length) break;
    if (space.distance(vector) < tolerance && chosen.add(vector, APART)) found.push({ name, vector });
  }
  if (found.length === space.vectors.length) return found;
  const others = [...furthest(space.vectors, chosen)];
  return [...found, ...others.map((vector, k) => ({ name: `translation ${k}`, vector }))];
}

function* candidates(
  blocks: readonly Block[],
  n: number,
  space: Span,
  tolerance: number,
): Generator<Translation> {
  const labels = blocks.flatMap((b) => Array.from({ length: b.size }, (_, e) => entryName(b, e)));
  const unit = (...at: readonly [number, number][]): Float64Array => {
    const out = new Float64Array(n);
    for (const [i, x] of at) out[i] = x;
    return out;
  };
  // how far each entry's direction is from the space, as a vector
  const rests = labels.map((_, i) => space.outside(unit([i, 1])));
  const lengths = rests.map(norm);
  for (const [i, label] of labels.entries())
    if (lengths[i]! < tolerance) yield { name: `unused ${label}`, vector: unit([i, 1]) };
  let first = 0;
  for (const block of blocks) {
    const [rows, cols] = rowsAndColumns(block);
    const { name } = block;
    const line = (count: number, at: (i: number) => number): Float64Array =>
      unit(...Array.from({ length: count }, (_, i): [number, number] => [at(i), 1]));
    const start = first;
    if (block.shape.length < 2)
      yield { name: `translation of ${name}`, vector: line(rows, (i) => start + i) };
    else {
      for (let j = 0; j < cols; j++)
        yield {
          name: `translation of column ${j} of ${name}`,
          vector: line(rows, (i) => start + i * cols + j),
        };
      for (let i = 0; i < rows; i++)
        yield { name: `translation of row ${i} of ${name}`, vector: line(cols, (j) => start + i * cols + j) };
    }
    first += block.size;
  }
  for (let i = 0; i < n; i++) {
    for (let j = i + 1; j < n; j++) {
      if (lengths[i]! < tolerance || lengths[j]! < tolerance) continue;
      // e_i + c e_j with parallel rests
      const q = rests[j]!;
      let c = 0;
      for (const [e, x] of rests[i]!.entries()) c -= (x * q[e]!) / (lengths[j]! * lengths[j]!);
      c = neat(c, tolerance);
      const vector = unit([i, 1], [j, c]);
      if (c !== 0 && space.distance(vector) < tolerance)
        yield {
          name: `translation of ${labels[i]} against ${labels[j]}${c === -1 ? "" : ` (${-c})`}`,
          vector,
        };
    }
  }
}

/** x as a fraction p / q, q <= 6, where it is one to within the square root of the tolerance. */
export function neat(x: number, tolerance: number): number {
  for (let q = 1; q <= 6; q++) {
    const p = Math.round(x * q);
    if (Math.abs(x * q - p) < Math.sqrt(tolerance)) return p / q;
  }
  return x;
}

/**
 * What translations s, t make of a linear field: A = s t^T + t s^T of each pair; for a general A, s e^T for every entry e.
 */
export function translationMembers(ansatz: Ansatz, found: readonly Translation[]): Member[] {
  const n = ansatz.entries.length;
  const out: Member[] = [];
  const take = (name: string, s: Float64Array, t: Float64Array): void => {
    const matrix = new Float64Array(n * n);
    for (let i = 0; i < n; i++) {
      for (let j = 0; j < n; j++)
        matrix[i * n + j] =
          ansatz.form === "general" ? s[i]! * t[j]! : (s[i]! * t[j]! + s[j]! * t[i]!) / (s === t ? 2 : 1);
    }
    const linear = ansatz.coordinates(matrix);
    if (linear !== null) out.push({ name, linear });
  };
  const labels = ansatz.blocks.flatMap((b) => Array.from({ length: b.size }, (_, e) => entryName(b, e)));
  for (const [i, s] of found.entries()) {
    if (ansatz.form === "general") {
      for (const [e, label] of labels.entries()) {
        const t = new Float64Array(n);
        t[e] = 1;
        take(`${s.name}, by ${label}`, s.vector, t);
      }
      continue;
    }
    take(s.name, s.vector, s.vector);
    for (const t of found.slice(i + 1)) take(`${s.name} and ${t.name}`, s.vector, t.vector);
  }
  return out;
}

/**
 * What restricted fields can say of translations: 1 1^T from one side of a block. From the left it adds to each column of W
 * a multiple of the vector of ones.
 */
export function uniformMembers(ansatz: Ansatz): Member[] {
  return slotsOf(ansatz.blocks).flatMap((slot) => {
    const { block, side, size } = slot;
    const linear = new Float64Array(ansatz.linear);
    for (let k = 0; k < size; k++) {
      for (let l = k; l < size; l++) {
        const unit = ansatz.unit(slot, { k, l, mirror: 1 });
        if (unit === null || size === 1) return [];
        for (const [i, x] of unit.entries()) linear[i] = linear[i]! + x;
      }
    }
    const what = block.shape.length < 2 ? "" : side === "left" ? "columns of " : "rows of ";
    return [{ name: `translation of ${what}${block.name}`, linear }];
  });
}

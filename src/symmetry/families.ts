import { norm } from "../stats/operator.ts";
import { type Ansatz, rowsAndColumns, type Slot, slotsOf, type Unit } from "./ansatz.ts";
import type { BlockAction, Matrix } from "./generator.ts";
import { nullSpace, type Span } from "./null-space.ts";
import { neat } from "./translations.ts";

/** A generator with a name. */
export interface Member {
  readonly name: string;
  /** Coordinates of A. */
  readonly linear: Float64Array;
  /** A by blocks, where it was made so. */
  readonly blocks?: ReadonlyMap<string, BlockAction>;
}

/** A slot, or with side null a whole block, and its share in a generator. */
interface Term {
  readonly name: string;
  readonly side: "left" | "right" | null;
  readonly isMatrix: boolean;
  readonly weight: number;
}

/**
 * Members of known families that lie in a space of generators. A family is made of one unit matrix E that acts on several
 * slots, sum_s w_s E_s; which slots and weights, the space itself says: they are what the space and the span of the E_s
 * have in common. Families with more members come first, so that a sum of members is not found before them:
 *
 *   E = E_kl + E_lk    double rotations, key and query; for a general A also rotations, E_kl - E_lk
 *   E = E_jj           neurons, rows, columns
 *   E = I              whole blocks
 *   A = u_k w_l - u_l w_k of two vectors
 *
 * @param fix       takes out of coordinates what makes no generator
 * @param tolerance how far from the space a member may be
 */
export function families(
  ansatz: Ansatz,
  space: Span,
  fix: (a: Float64Array) => Float64Array,
  tolerance: number,
): Member[] {
  const out: Member[] = [];
  if (space.vectors.length === 0) return out;
  const groups = new Map<number, Slot[]>();
  for (const slot of slotsOf(ansatz.blocks))
    if (slot.size > 1) groups.set(slot.size, [...(groups.get(slot.size) ?? []), slot]);
  for (const [size, slots] of groups) {
    // which slots, weights and indices belong to double rotations
    const rotated = new Set<string>();
    for (const mirror of ansatz.form === "general" ? ([1, -1] as const) : ([1] as const)) {
      for (let k = 0; k < size; k++) {
        for (let l = k + 1; l < size; l++) {
          const unit = { k, l, mirror };
          for (const found of onSlots(ansatz, space, fix, tolerance, slots, unit)) {
            out.push({ ...found, name: rotationName(found.terms, unit) });
            for (const index of [k, l]) rotated.add(`${index} of ${keyOf(found.terms)}`);
          }
        }
      }
    }
    for (let k = 0; k < size; k++) {
      const unit = { k, l: k, mirror: 1 } as const;
      for (const found of onSlots(ansatz, space, fix, tolerance, slots, unit)) {
        const isRotation = rotated.has(`${k} of ${keyOf(found.terms)}`);
        out.push({
          ...found,
          name: isRotation ? rotationName(found.terms, unit) : neuronName(found.terms, k),
        });
      }
    }
  }
  return [...out, ...wholeBlocks(ansatz, space, fix, tolerance), ...exchanges(ansatz, space, tolerance)];
}

const keyOf = (terms: readonly Term[]): string =>
  terms.map((t) => `${t.name} ${t.side} ${Math.sign(t.weight)}`).join(", ");

function onSlots(
  ansatz: Ansatz,
  space: Span,
  fix: (a: Float64Array) => Float64Array,
  tolerance: number,
  slots: readonly Slot[],
  unit: Unit,
): (Member & { terms: Term[] })[] {
  const units = slots.map((slot) => ansatz.unit(slot, unit));
  const used = slots.filter((_, i) => units[i] !== null);
  const vectors = units.filter((a) => a !== null);
  return common(space, vectors.map(fix), tolerance).flatMap((weights) => {
    const terms = oriented(
      used.map(({ block, side }, i) => ({
        name: block.name,
        side,
        isMatrix: block.shape.length === 2,
        weight: weights[i]!,
      })),
    );
    const linear = combined(
      vectors,
      used.map((s) => terms.find((t) => t.name === s.block.name && t.side === s.side)?.weight ?? 0),
    );
    if (!(space.distance(fix(linear)) < tolerance)) return [];
    if (unit.mirror === -1) return [{ name: "", linear, terms }];
    const blocks = new Map<string, BlockAction>();
    for (const { name, side, weight } of terms) {
      const size = used[0]!.size;
      const values = new Float64Array(size * size);
      values[unit.k * size + unit.l] = weight;
      values[unit.l * size + unit.k] = weight;
      blocks.set(name, { ...blocks.get(name), [side as string]: { size, values } });
    }
    return [{ name: "", linear, blocks, terms }];
  });
}

function wholeBlocks(
  ansatz: Ansatz,
  space: Span,
  fix: (a: Float64Array) => Float64Array,
  tolerance: number,
): Member[] {
  const slots = ansatz.blocks.map((block): Slot => slotsOf([block])[0]!);
  const vectors = slots.map((slot) => {
    const units = Array.from({ length: slot.size }, (_, k) => ansatz.unit(slot, { k, l: k, mirror: 1 })!);
    return combined(
      units,
      units.map(() => 1),
    );
  });
  return common(space, vectors.map(fix), tolerance).flatMap((weights) => {
    const terms = oriented(
      slots.map(({ block }, i) => ({ name: block.name, side: null, isMatrix: true, weight: weights[i]! })),
    );
    const weightOf = (s: Slot) => terms.find((t) => t.name === s.block.name)?.weight ?? 0;
    const linear = combined(vectors, slots.map(weightOf));
    if (!(space.distance(fix(linear)) < tolerance)) return [];
    const blocks = new Map(terms.map(({ name, weight }) => [name, { scalar: weight }]));
    return [{ name: blocksName(terms, ansatz.blocks.length), linear, blocks }];
  });
}

/** u_k against w_l less u_l against w_k, of two vectors of one length: the charges u^T K w, K antisymmetric. */
function exchanges(ansatz: Ansatz, space: Span, tolerance: number): Member[] {
  const out: Member[] = [];
  const n = ansatz.entries.length;
  const lines = ansatz.blocks.filter((b) => b.size > 1 && Math.min(...rowsAndColumns(b)) === 1);
  const first = (name: string): number =>
    ansatz.blocks
      .slice(
        0,
        ansatz.blocks.findIndex((b) => b.name === name),
      )
      .reduce((sum, b) => sum + b.size, 0);
  for (const [i, u] of lines.entries()) {
    for (const w of lines.slice(i + 1)) {
      if (u.size !== w.size) continue;
      const [p, q] = [first(u.name), first(w.name)];
      for (let k = 0; k < u.size; k++) {
        for (let l = k + 1; l < u.size; l++) {
          const matrix = new Float64Array(n * n);
          for (const [a, b, x] of [
            [p + k, q + l, 1],
            [p + l, q + k, -1],
          ] as const)
            matrix[a * n + b] = matrix[b * n + a] = x;
          const linear = ansatz.coordinates(matrix);
          if (linear === null) return out;
          if (space.distance(linear) < tolerance)
            out.push({ name: `exchange ${u.name}, ${w.name} (${k}, ${l})`, linear });
        }
      }
    }
  }
  return out;
}

/** Work that a search for places may take, in multiply-adds, and the terms of what it finds. */
const PLACES_WORK = 3e8;
const MOST_TERMS = 4;

/**
 * Members that act on rows or columns at different places, as where one block holds key and query side by side:
 *
 *   sum_p w_p (E_(p, p + d) + E_(p + d, p))   over the places p of every slot, one distance d at a time
 *
 * At most four places each. Nothing where that is too much work.
 */
export function scattered(
  ansatz: Ansatz,
  space: Span,
  fix: (a: Float64Array) => Float64Array,
  tolerance: number,
): Member[] {
  const slots = slotsOf(ansatz.blocks);
  const all = slots.reduce((n, slot) => n + slot.size, 0);
  const most = slots.reduce((n, slot) => Math.max(n, slot.size), 0);
  if (most * all * all * ansatz.linear > PLACES_WORK) return [];
  const out: Member[] = [];
  for (const mirror of ansatz.form === "general" ? ([1, -1] as const) : ([1] as const)) {
    for (let d = most - 1; d >= (mirror < 0 ? 1 : 0); d--) {
      const places = slots.flatMap((slot) =>
        Array.from({ length: Math.max(0, slot.size - d) }, (_, p) => {
          const vector = ansatz.unit(slot, { k: p, l: p + d, mirror });
          return vector === null ? [] : [{ slot, p, vector }];
        }).flat(),
      );
      const vectors = places.map((place) => place.vector);
      for (const weights of common(space, vectors.map(fix), tolerance)) {
        const first = weights.find((w) => w !== 0);
        const used = weights.filter((w) => w !== 0).length;
        if (first === undefined || used > MOST_TERMS) continue;
        const scaled = weights.map((w) => w / first);
        const linear = combined(vectors, scaled);
        if (!(space.distance(fix(linear)) < tolerance)) continue;
        const terms = places.flatMap(({ slot, p }, i) =>
          scaled[i] === 0 ? [] : [{ slot, p, weight: scaled[i]! }],
        );
        const name = placesName(terms, d, mirror);
        out.push(mirror < 0 ? { name, linear } : { name, linear, blocks: placedBlocks(terms, d) });
      }
    }
  }
  return out;
}

interface Place {
  readonly slot: Slot;
  readonly p: number;
  readonly weight: number;
}

function placedBlocks(terms: readonly Place[], d: number): Map<string, BlockAction> {
  const blocks = new Map<string, { left?: Matrix; right?: Matrix }>();
  for (const { slot, p, weight } of terms) {
    const { block, side, size } = slot;
    const action = blocks.get(block.name) ?? {};
    action[side] ??= { size, values: new Float64Array(size * size) };
    action[side].values[p * size + p + d] = weight;
    action[side].values[(p + d) * size + p] = weight;
    blocks.set(block.name, action);
  }
  return blocks;
}

/** "columns (0, 1) of QK against columns (2, 3) of QK". */
function placesName(terms: readonly Place[], d: number, mirror: 1 | -1): string {
  const nameOf = ({ slot: { block, side }, p, weight }: Place): string => {
    const factor = Math.abs(Math.abs(weight) - 1) < 1e-6 ? "" : `${numberName(Math.abs(weight))} `;
    if (block.size === 1) return `${factor}${block.name}`;
    if (block.shape.length < 2) return `${factor}${block.name}[${d === 0 ? p : `${p}, ${p + d}`}]`;
    const line = side === "left" ? "row" : "column";
    return `${factor}${d === 0 ? `${line} ${p}` : `${line}s (${p}, ${p + d})`} of ${block.name}`;
  };
  const names = (sign: number): string =>
    terms
      .filter((t) => Math.sign(t.weight) === sign)
      .map(nameOf)
      .join(" and ");
  const down = names(-1);
  return `${names(1)}${down === "" ? "" : ` against ${down}`}${mirror < 0 ? " turned" : ""}`;
}

/**
 * Weights w with sum_s w_s v_s in the space, the shortest first: the rows of a reduced echelon form, which have many
 * zeros, and sums of two. Fractions of small numbers are made exact.
 */
function common(space: Span, vectors: readonly Float64Array[], tolerance: number): number[][] {
  if (vectors.length === 0) return [];
  const lengths = vectors.map(norm);
  const rests = vectors.map((v, i) => space.outside(v).map((x) => x / lengths[i]!));
  const rows = nullSpace(rests, () => tolerance).vectors.map((c) => Array.from(c, (x, i) => x / lengths[i]!));
  echelon(rows);
  // two rows that share a term have sums without it
  const sums = rows.flatMap((a, i) =>
    rows.slice(i + 1).flatMap((b) => [1, -1].map((sign) => a.map((x, e) => x + sign * b[e]!))),
  );
  const terms = (row: number[]): number => row.filter((x) => x !== 0).length;
  return [...rows, ...sums]
    .map((row) => row.map((x) => neat(x, tolerance)))
    .sort((a, b) => terms(a) - terms(b));
}

/** Gauss-Jordan elimination, in place. */
function echelon(rows: number[][]): void {
  let done = 0;
  for (let column = 0; done < rows.length && column < rows[0]!.length; column++) {
    let pivot = done;
    for (let r = done; r < rows.length; r++)
      if (Math.abs(rows[r]![column]!) > Math.abs(rows[pivot]![column]!)) pivot = r;
    const scale = Math.max(...rows[pivot]!.map(Math.abs));
    if (!(Math.abs(rows[pivot]![column]!) > 1e-4 * scale)) continue;
    const row = rows[pivot]!.map((x) => x / rows[pivot]![column]!);
    rows[pivot] = rows[done]!;
    rows[done] = row;
    for (const [r, other] of rows.entries()) {
      const factor = other[column]!;
      if (r !== done) rows[r] = other.map((x, i) => x - factor * row[i]!);
    }
    done++;
  }
}

/**
 * Terms that take part, those that rise first. What rises: a column side (U of U W) where one sign has them all, else the
 * smaller group, else the first. Weights are scaled so that what falls has weight -1 where it has one weight.
 */
function oriented(terms: readonly Term[]): Term[] {
  const part = terms.filter((t) => t.weight !== 0);
  const groups = [part.filter((t) => t.weight > 0), part.filter((t) => t.weight < 0)] as const;
  const [a, b] = groups;
  if (a.length === 0 || b.length === 0) {
    const unit = part[0]!.weight;
    return part.map((t) => ({ ...t, weight: t.weight / unit }));
  }
  const isColumn = (t: Term) => t.side === "right";
  const [columnsA, columnsB] = [a.some(isColumn), b.some(isColumn)];
  const swap =
    columnsA !== columnsB ? columnsB : a.length !== b.length ? b.length < a.length : part[0] === b[0];
  const [up, down] = swap ? [b, a] : [a, b];
  const unit = -(isEven(down) ? down : isEven(up) ? up.map((t) => ({ ...t, weight: -t.weight })) : down)[0]!
    .weight;
  return [...up, ...down].map((t) => ({ ...t, weight: t.weight / unit }));
}

const isEven = (terms: readonly Term[]): boolean =>
  terms.every((t) => Math.abs(t.weight - terms[0]!.weight) <= 1e-6 * Math.abs(t.weight));

/** "U" or "(W, b)". */
function list(terms: readonly Term[]): string {
  const names = terms.map((t) => t.name);
  return names.length === 1 ? names[0]! : `(${names.join(", ")})`;
}

/** " (degree p)" of weights p and -1, " (weights ...)" of others, nothing of 1 and -1. */
function weightsName(terms: readonly Term[]): string {
  const up = terms.filter((t) => t.weight > 0);
  const down = terms.filter((t) => t.weight < 0);
  if (down.length === 0 && isEven(up)) return "";
  if (down.length > 0 && isEven(up) && isEven(down)) {
    const degree = -up[0]!.weight / down[0]!.weight;
    return Math.abs(degree - 1) < 1e-6 ? "" : ` (degree ${numberName(degree)})`;
  }
  return ` (weights ${terms.map((t) => numberName(t.weight)).join(", ")})`;
}

function numberName(x: number): string {
  const q = [1, 2, 3, 4, 5, 6].find((d) => Math.abs(x * d - Math.round(x * d)) < 1e-6);
  if (q === undefined) return String(Number(x.toPrecision(4)));
  return q === 1 ? String(Math.round(x)) : `${Math.round(x * q)}/${q}`;
}

const sides = (terms: readonly Term[]): [Term[], Term[]] => [
  terms.filter((t) => t.weight > 0),
  terms.filter((t) => t.weight < 0),
];

function rotationName(terms: readonly Term[], { k, l, mirror }: Unit): string {
  const [up, down] = sides(terms);
  const at = `(${k}, ${l})`;
  if (terms.length === 1)
    return `${terms[0]!.side === "left" ? "rows" : "columns"} ${at} of ${terms[0]!.name}${mirror < 0 ? " turned" : ""}`;
  const names = down.length === 0 ? terms.map((t) => t.name).join(", ") : `${list(up)}, ${list(down)}`;
  const areColumns = terms.every((t) => t.side === "right");
  const kind =
    mirror < 0
      ? "rotation"
      : down.length === 0
        ? "joint mixing"
        : areColumns
          ? "key/query"
          : "double rotation";
  return `${kind} ${names} ${at}${weightsName(terms)}`;
}

function neuronName(terms: readonly Term[], j: number): string {
  const [up, down] = sides(terms);
  const [first] = terms;
  if (terms.length === 1) {
    const { name, side, isMatrix } = first!;
    return isMatrix
      ? `${side === "left" ? "row" : "column"} scaling ${j} of ${name}`
      : `scaling of ${name}[${j}]`;
  }
  if (down.length === 0)
    return `joint scaling ${j} of ${terms.map((t) => t.name).join(", ")}${weightsName(terms)}`;
  return `neuron scaling ${j} of ${list(up)}, ${list(down)}${weightsName(terms)}`;
}

function blocksName(terms: readonly Term[], all: number): string {
  const [up, down] = sides(terms);
  const names = terms.map((t) => t.name).join(", ");
  if (down.length > 0) return `rescaling ${list(up)}, ${list(down)}${weightsName(terms)}`;
  const weights = weightsName(terms);
  return terms.length === all && all > 1 && weights === ""
    ? "scaling of all"
    : `scaling of ${names}${weights}`;
}

/** sum_s w_s v_s. */
function combined(vectors: readonly Float64Array[], weights: readonly number[]): Float64Array {
  const out = new Float64Array(vectors[0]!.length);
  for (const [s, v] of vectors.entries()) {
    const w = weights[s]!;
    for (let i = 0; w !== 0 && i < out.length; i++) out[i] = out[i]! + w * v[i]!;
  }
  return out;
}

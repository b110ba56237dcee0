import { type Key, keyOf } from "../core/key.ts";
import { checkKnown, checkObject, checkWord, fail } from "../errors.ts";
import type { Measure } from "../models/measure.ts";
import { Dense } from "../stats/dense.ts";
import { axpy, type Control, divide, dot, EPS, norm } from "../stats/operator.ts";
import type { Dtype } from "../wasm/module.ts";
import { actionOn } from "./action.ts";
import { type Ansatz, ansatz, type Form, type Restriction, unknownsOf } from "./ansatz.ts";
import { Equations, Pace, type Precision } from "./equations.ts";
import { Generator } from "./generator.ts";
import { type Named, named } from "./naming.ts";
import { type NullSpace, nullSpaceWithPauses, rankOf, Span } from "./null-space.ts";
import { Spectrum } from "./spectrum.ts";

/** Which generators are searched for. */
export interface DiscoveryOptions extends Control {
  /** "symmetric" (when absent), "general" (A need not be symmetric: rotations too) or "affine" (A theta + b). */
  readonly form?: Form;
  /**
   * Which A: "full", P x P; "blocks", left and right actions on each block; "diagonal", left and right scalings. When absent
   * the first with at most 1100, 2000 and 3000 unknowns (P = 46 for symmetric A).
   */
  readonly restrict?: Restriction;
  /** Text or number; "0" when absent. The same seed gives the same bits. It draws the thetas. */
  readonly seed?: string | number;
}

/** A generator that was found, with what it is called. */
export class DiscoveredGenerator extends Generator {
  /** g_n . A p = 0 for every p: it moves only what no sample's loss sees, so noise does not move its charge. */
  readonly flat: boolean;
  /** 1 if A is indefinite, 2 if semidefinite; null where A = 0, or is not symmetric and so has no charge. */
  readonly class: 1 | 2 | null;
  /** c, P values; null where it is 0. */
  declare readonly center: Float64Array | null;
  /** What of the constant part no center explains, P values. */
  declare readonly translation: Float64Array | null;

  /** @internal */
  constructor(
    name: string,
    parts: Pick<Generator, "blocks" | "dense" | "center" | "translation">,
    more: Pick<DiscoveredGenerator, "flat" | "class">,
  ) {
    super(name, parts.blocks, parts.dense, parts.center, parts.translation);
    this.flat = more.flat;
    this.class = more.class;
  }
}

/** All exponential symmetries of a model within an ansatz. */
export interface Discovery {
  /** Dimension of the space of generators. */
  readonly count: number;
  /** A basis of it: members of known families as far as these reach, then "unnamed" ones; flat ones last. */
  readonly generators: readonly DiscoveredGenerator[];
  /** Dimension of the flat ones. */
  readonly flat: number;
  /** smallestKept over largestNull, or over 2^-52 (f32: 2^-23) where that is more. */
  readonly gap: number;
  /** Smallest singular value of the equations that counts, and a bound of the largest that does not, over the largest. */
  readonly smallestKept: number;
  /** A bound of the largest singular value that counts as 0, over the largest. */
  readonly largestNull: number;
  /** The ansatz that was solved. */
  readonly form: Form;
  /** Which A it was solved for. */
  readonly restrict: Restriction;
  /** D, the entries of A (and b) that were solved for. */
  readonly unknowns: number;
  /** Rows g_n . (A theta + b) = 0 that they had to satisfy. */
  readonly equations: number;
  /** Random thetas that the equations come from, and the fresh ones that confirmed them. */
  readonly thetas: number;
  /** Charges that are independent as functions: the rank of A_k theta at a random theta, flat ones left out. */
  readonly functionallyIndependent: number;
}

const FORMS = ["symmetric", "general", "affine"] as const;
const RESTRICTIONS = ["full", "blocks", "diagonal"] as const;
/** Up to how many unknowns a restriction is the default; the last is the most there may be. */
const MOST = { full: 1100, blocks: 2000, diagonal: 3000 };

const PRECISION: Record<Dtype, Precision> = {
  f64: {
    rounding: EPS,
    rank: (size) => 10 * size * EPS,
    gap: 1e6,
    near: 1e-8,
    digits: (unknowns) => Math.max(32, unknowns) * EPS,
  },
  f32: { rounding: 1.1920928955078125e-7, rank: () => 1e-4, gap: 30, near: 1e-3, digits: () => 1e-5 },
};
/** Fresh thetas that confirm a null space, or a quarter of those before, and how often more may be asked for. */
const FRESH = 8;
const ROUNDS = 6;
/** Index of the theta that charges are compared at. */
const LAST = 0x3fffffff;

/**
 * The exponential symmetries of a loss, from its per-sample gradients alone: all A (and b) of the ansatz with
 *
 *   g_n(theta) . (A theta + b) = 0   for every sample n and every theta.
 *
 * Each sample at each theta is one linear equation. Thetas are independent standard normals. From each come the rows
 * of samples that are independent, scaled to length 1 (or less, where a gradient has lost digits to cancellation); there are
 * at least twice as many as unknowns, and 2 D / rank + 3 thetas. Fresh thetas confirm: a null vector of too few is none
 * of more, and then more are taken. A restriction to blocks has one null vector (I, -I) per matrix that is no generator;
 * these are excluded by equations of their own. Names come from the null vectors and the shapes of blocks alone.
 *
 * The data must span: N >= dx generic samples with generic labels, else what holds for these samples alone is found too.
 * What acts at very few thetas may be missed. For a loss with batch ops samples are minibatches of 8 (or half of the data).
 *
 * A singular value is 0 up to 10 max(rows, unknowns) 2^-52 of the largest, and the gap must be 10^6. On an f32
 * engine these are 1e-4 and 30: prefer f64.
 *
 * @throws NoetherflowError "memory" (too many unknowns), "range" (no clear gap, or thetas that do not settle it),
 *         "nonfinite", "unsupported" (fresh samples); the signal's reason
 * @cost   4 D^3 flops for D unknowns: 3 s at D = 1035, P = 45; four gradients of at most 128 samples at 2.5 D / rank thetas
 * @source theory.md, section 13.7; count of independent charges: Marcotte, Gribonval, Peyre 2023, arXiv:2307.00144
 */
export async function discoverSymmetries(
  measure: Measure,
  options: DiscoveryOptions = {},
): Promise<Discovery> {
  const { form, restrict, key } = readOptions(measure, options);
  const letGo = measure.hold();
  try {
    return await new Search(measure, ansatz(measure.model, form, restrict), restrict, key, options).run();
  } finally {
    letGo();
  }
}

const WHERE = "discoverSymmetries";

function readOptions(
  measure: Measure,
  options: DiscoveryOptions,
): { form: Form; restrict: Restriction; key: Key } {
  const names = ["form", "restrict", "seed", "signal", "onProgress"];
  checkKnown(WHERE, checkObject(WHERE, `options ${names.join(", ")}`, options), names);
  const form = checkWord(WHERE, "form", options.form ?? "symmetric", FORMS);
  const unknowns = (r: Restriction): number => unknownsOf(measure.model, form, r);
  const restrict =
    options.restrict === undefined
      ? (RESTRICTIONS.find((r) => unknowns(r) <= MOST[r]) ?? "diagonal")
      : checkWord(WHERE, "restrict", options.restrict, RESTRICTIONS);
  const key = keyOf(WHERE, options.seed ?? "0");
  if (measure.N === Infinity)
    fail("unsupported", WHERE, "expected a finite set of samples", "fresh ones", "Draw some.");
  const D = unknowns(restrict);
  if (D === 0) fail("unsupported", WHERE, "expected parameters that are trained", "none");
  if (D > MOST.diagonal) {
    const others = RESTRICTIONS.slice(RESTRICTIONS.indexOf(restrict) + 1).map(
      (r) => `restrict: "${r}" has ${unknowns(r)}`,
    );
    fail(
      "memory",
      WHERE,
      `at most ${MOST.diagonal} unknowns`,
      `${D} for P = ${measure.P} (${brief((32 * D * D) / 1e6)} MB and about ${brief(4 * D * D * D)} operations)`,
      `${others.length === 0 ? "Take a smaller model of the same form" : others.join(", ")}.`,
    );
  }
  return { form, restrict, key };
}

/** One search: equations, null space, names. */
class Search {
  readonly #measure: Measure;
  readonly #ansatz: Ansatz;
  readonly #restrict: Restriction;
  readonly #precision: Precision;
  readonly #pace: Pace;
  readonly #equations: Equations;

  constructor(measure: Measure, over: Ansatz, restrict: Restriction, key: Key, control: Control) {
    this.#measure = measure;
    this.#ansatz = over;
    this.#restrict = restrict;
    this.#precision = PRECISION[measure.host.core.dtype];
    // 2 D equations and D columns; further rounds are not foreseen
    this.#pace = new Pace(control, 3 * over.unknowns);
    this.#equations = new Equations(WHERE, measure, over, key, this.#precision, this.#pace);
  }

  async run(): Promise<Discovery> {
    const { form, unknowns } = this.#ansatz;
    const { near, rounding } = this.#precision;
    const space = await this.#settled();
    const { pure, mixed } = this.#linearParts(space.vectors);
    const flat = await this.#flatPart(mixed);
    const generators = named(this.#ansatz, { mixed, pure, flat }, this.#equations.gradients, near).map(
      (found) => this.#generator(found),
    );
    const fields = generators.filter((A) => !A.flat).map((A) => this.#field(A));
    const functionallyIndependent = rankOf(fields, near);
    this.#pace.report();
    const { smallestKept, largestNull, largest } = space;
    return {
      count: space.vectors.length,
      generators,
      flat: flat.vectors.length + pure.length,
      gap: smallestKept / Math.max(largestNull, rounding * largest),
      smallestKept: smallestKept / largest,
      largestNull: largestNull / largest,
      form,
      restrict: this.#restrict,
      unknowns,
      equations: this.#equations.rows.length,
      thetas: this.#equations.thetas,
      functionallyIndependent,
    };
  }

  /** The null space of enough equations, which fresh thetas do not make smaller. */
  async #settled(): Promise<NullSpace> {
    const { unknowns } = this.#ansatz;
    const { near, rounding, gap } = this.#precision;
    const equations = this.#equations;
    await equations.take(2 * unknowns, () => (2 * unknowns) / Math.max(1, equations.rank) + 3);
    let known = Infinity;
    for (let round = 0; round < ROUNDS; round++) {
      const space = await this.#solve();
      const nullity = space.vectors.length;
      const { smallestKept, largestNull, largest } = space;
      const lowest = Math.max(largestNull, rounding * largest);
      const isClear = smallestKept >= gap * lowest;
      // more equations help where most have lost digits
      if (!isClear && round > 0)
        fail(
          "range",
          WHERE,
          `no clear gap between equations that count and rounding: a ratio of ${gap} at least`,
          `singular values ${brief(smallestKept / largest)} and ${brief(lowest / largest)} of the largest, with ` +
            `${nullity} below, from ${equations.rows.length} equations of ${equations.thetas} thetas`,
          "A symmetry that is broken by very little looks like this; so do gradients that have lost their digits.",
        );
      if (isClear && nullity === 0) return space;
      const before = equations.rows.length;
      for (let k = Math.max(FRESH, equations.thetas / 4); k > 0; k--) await equations.takeTheta();
      let worst = 0;
      for (const row of equations.rows.slice(before))
        worst = Math.max(worst, norm(Float64Array.from(space.vectors, (z) => dot(z, row))));
      // the fresh equations hold, or those before them were fresh, did not hold, and left the count as it is
      if (isClear && (worst <= near || nullity === known)) return space;
      known = nullity;
      await equations.take(unknowns, () => 0);
    }
    return fail(
      "range",
      WHERE,
      "the count of generators must not fall with fresh thetas",
      `${known} from ${equations.rows.length} equations of ${equations.thetas} thetas, and still falling`,
      "The data may hold too few samples.",
    );
  }

  async #solve(): Promise<NullSpace> {
    const { unknowns, trivial } = this.#ansatz;
    const rows = [...this.#equations.rows, ...trivial];
    const columns = Array.from({ length: unknowns }, (_, j) => Float64Array.from(rows, (row) => row[j]!));
    const { rank } = this.#precision;
    const size = Math.max(rows.length, unknowns);
    let column = 0;
    return nullSpaceWithPauses(
      columns,
      (largest) => rank(size) * largest,
      () => this.#pace.pause(2 * unknowns + column++),
    );
  }

  /**
   * A basis whose A are orthonormal, and translations, whose A is 0 (orthonormal too). They differ from the null vectors
   * only in the affine form.
   */
  #linearParts(vectors: readonly Float64Array[]): { mixed: Float64Array[]; pure: Float64Array[] } {
    const { linear, form } = this.#ansatz;
    if (form !== "affine") return { mixed: [...vectors], pure: [] };
    const rest = vectors.map((z) => z.slice());
    const mixed: Float64Array[] = [];
    const head = (z: Float64Array) => z.subarray(0, linear);
    for (;;) {
      const lengths = rest.map((z) => norm(head(z)));
      const next = lengths.indexOf(Math.max(...lengths));
      if (next < 0 || lengths[next]! < this.#precision.near) break;
      const [q] = rest.splice(next, 1);
      divide(q!, lengths[next]!);
      mixed.push(q!);
      for (const z of rest) axpy(-dot(head(q!), head(z)), q!, z);
    }
    const span = new Span();
    for (const z of rest) span.add(z.subarray(linear), this.#precision.near);
    return { mixed, pure: span.vectors };
  }

  /** Those A of the basis that move only what is never seen, by orthonormal coordinates. */
  async #flatPart(basis: readonly Float64Array[]): Promise<Span> {
    if (basis.length === 0) return new Span();
    const { linear } = this.#ansatz;
    const rows = (await this.#equations.directions(2 * basis.length + 8)).map((row) =>
      Float64Array.from(basis, (z) => dot(z, row)),
    );
    const columns = basis.map((_, j) => Float64Array.from(rows, (row) => row[j]!));
    const { vectors } = await nullSpaceWithPauses(
      columns,
      () => this.#precision.near,
      () => this.#pace.pause(),
    );
    return new Span(
      vectors.map((c) => {
        const a = new Float64Array(linear);
        for (const [j, z] of basis.entries()) axpy(c[j]!, z.subarray(0, linear), a);
        return a;
      }),
    );
  }

  #generator({ name, linear, blocks, b, flat }: Named): DiscoveredGenerator {
    const { model, entries, form, P } = this.#ansatz;
    const parts = blocks === undefined ? this.#ansatz.parts(linear) : { blocks, dense: null };
    const shift = new Float64Array(P);
    for (const [i, e] of entries.entries()) shift[e] = b[i]!;
    const A = new Generator(name, parts.blocks, parts.dense, null);
    const isZero = linear.every((x) => x === 0);
    if (isZero) {
      const nothing = { blocks: new Map(), dense: null, center: null };
      return new DiscoveredGenerator(name, { ...nothing, translation: shift }, { flat, class: null });
    }
    if (form === "general" && !isSymmetric(A))
      return new DiscoveredGenerator(
        name,
        { ...parts, center: null, translation: null },
        { flat, class: null },
      );
    const spectrum = new Spectrum(model, A, new Dense(this.#measure.host));
    const { mu } = spectrum;
    const most = mu.reduce((m, x) => Math.max(m, Math.abs(x)), 0);
    const least = this.#precision.near * most;
    const [rises, falls] = [mu.some((x) => x > least), mu.some((x) => x < -least)];
    // A center = -b as far as the range of A goes; the rest is a translation
    const size = norm(shift);
    const scale = norm(linear);
    let center: Float64Array | null = null;
    let translation: Float64Array | null = null;
    if (size > this.#precision.near * scale) {
      const part = spectrum.coordinates(shift).map((x, i) => (Math.abs(mu[i]!) > least ? -x / mu[i]! : 0));
      center = spectrum.vector(part, new Float64Array(P)).map((x) => (Math.abs(x) < 1e-12 * size ? 0 : x));
      const rest = actionOn(WHERE, model, A, center).map((x, i) => x + shift[i]!);
      if (norm(rest) > this.#precision.near * size) translation = rest;
      if (norm(center) === 0) center = null;
    }
    return new DiscoveredGenerator(
      name,
      { ...parts, center, translation },
      { flat, class: rises && falls ? 1 : 2 },
    );
  }

  /** A (theta - center) + translation at a random theta. */
  #field(A: DiscoveredGenerator): Float64Array {
    const theta = this.#equations.theta(LAST);
    const { center, translation } = A;
    const from = center === null ? theta : theta.map((x, i) => x - center[i]!);
    const field = actionOn(WHERE, this.#ansatz.model, A, from);
    return translation === null ? field : field.map((x, i) => x + translation[i]!);
  }
}

function isSymmetric({ blocks, dense }: Generator): boolean {
  const symmetric = (values: Float64Array, n: number): boolean =>
    values.every((x, e) => Math.abs(x - values[(e % n) * n + Math.floor(e / n)]!) <= 1e-10);
  if (dense !== null) return symmetric(dense, Math.round(Math.sqrt(dense.length)));
  return [...blocks!.values()].every(({ left, right }) =>
    [left, right].every((m) => m === undefined || symmetric(m.values, m.size)),
  );
}

/** Three digits, for a message. */
function brief(x: number): string {
  return String(Number(x.toPrecision(3)));
}

import { axpy, dot } from "../stats/operator.ts";
import type { Ansatz } from "./ansatz.ts";
import { families, type Member, scattered } from "./families.ts";
import { APART, furthest, Span } from "./null-space.ts";
import { translationMembers, translations, uniformMembers } from "./translations.ts";

/** A member of a basis of the space of generators. */
export interface Named extends Member {
  /** The constant part of the field, over the trained entries. */
  readonly b: Float64Array;
  readonly flat: boolean;
}

/** A space of generators (A, b). */
export interface Space {
  /** Coordinates; those of A are orthonormal. */
  readonly mixed: readonly Float64Array[];
  /** Coordinates of b where A = 0, orthonormal. */
  readonly pure: readonly Float64Array[];
  /** Coordinates of A of the flat ones. */
  readonly flat: Span;
}

/**
 * A basis of a space of generators that consists of members of known families, as far as they lie in it; the rest of it
 * is "flat" or "unnamed", with the blocks it moves. What is chosen depends on the space and on the shapes of blocks alone.
 *
 * @param gradients what translations are told by; none in a restricted search, which knows only uniform ones
 * @param near      how far from the space a member may be
 * @returns flat ones last
 */
export function named(
  ansatz: Ansatz,
  { mixed, pure, flat }: Space,
  gradients: readonly Float64Array[],
  near: number,
): Named[] {
  const { linear, entries, blocks } = ansatz;
  const space = new Span(mixed.map((z) => z.subarray(0, linear)));
  const trivial = new Span(ansatz.trivial.map((t) => t.subarray(0, linear)));
  const fix = (a: Float64Array): Float64Array => trivial.outside(a);
  const chosen = new Span();
  const out: Named[] = [];
  const take = (member: Member, isFlat: boolean): void => {
    const a = fix(member.linear);
    if (!((isFlat ? flat : space).distance(a) < near) || !chosen.add(a, APART)) return;
    const b = new Float64Array(entries.length);
    for (const z of mixed) if (z.length > linear) axpy(dot(z.subarray(0, linear), a), z.subarray(linear), b);
    out.push({ ...member, b, flat: isFlat });
  };
  const takeRest = (name: string, isFlat: boolean): void => {
    const whole = isFlat ? flat : space;
    if (chosen.vectors.length === whole.vectors.length) return;
    for (const [k, a] of [...furthest(whole.vectors, chosen)].entries())
      take({ name: `${name} ${k}${movedBy(ansatz, a)}`, linear: a }, isFlat);
  };
  const invisible = gradients.length === 0 ? [] : translations(blocks, gradients, near);
  for (const member of translationMembers(ansatz, invisible)) take(member, true);
  for (const member of families(ansatz, flat, fix, near))
    take({ ...member, name: `unused: ${member.name}` }, true);
  if (flat.vectors.length > 0) for (const member of uniformMembers(ansatz)) take(member, true);
  takeRest("flat", true);
  for (const member of families(ansatz, space, fix, near)) take(member, false);
  if (chosen.vectors.length < space.vectors.length)
    for (const member of scattered(ansatz, space, fix, near)) take(member, false);
  takeRest("unnamed", false);
  const shifts = new Span(pure);
  const known = new Span();
  const shift = (name: string, b: Float64Array): void => {
    if (shifts.distance(b) < near && known.add(b, APART))
      out.push({ name, linear: new Float64Array(linear), b, flat: true });
  };
  for (const { name, vector } of invisible) shift(`constant ${name}`, vector);
  for (const [k, b] of [...furthest(pure, known)].entries()) shift(`constant translation ${k}`, b);
  return [...out.filter((g) => !g.flat), ...out.filter((g) => g.flat)];
}

/** " of U, W": the blocks that A moves. */
function movedBy(ansatz: Ansatz, a: Float64Array): string {
  const { blocks, dense } = ansatz.parts(a);
  if (blocks !== null) return ` of ${[...blocks.keys()].join(", ")}`;
  const { P } = ansatz;
  const moved = ansatz.blocks.filter(({ offset, size }) =>
    dense!.subarray(offset * P, (offset + size) * P).some((x) => x !== 0),
  );
  return ` of ${moved.map((b) => b.name).join(", ")}`;
}

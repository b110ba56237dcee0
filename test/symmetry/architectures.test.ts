/**
 * Discovery on random architectures whose generators are known by construction (test/reference/architectures.ts): all are
 * found, none is invented, and each is called what it is. A restriction to blocks, or to diagonals, finds those that are
 * made of left and right actions, or diagonal ones.
 */
import { afterAll, describe, expect, test } from "vitest";
import { createEngine, type Model, parseModel, symmetry } from "../../src/index.ts";
import { discoverSymmetries } from "../../src/symmetry/discover.ts";
import { denseOf, measureOf } from "../helpers/discovery.ts";
import { architecture, kindCount } from "../reference/architectures.ts";

const engine = await createEngine();
afterAll(() => engine.dispose());

const COUNT = 200;

describe("symmetries of random architectures", () => {
  test.each(Array.from({ length: kindCount }, (_, kind) => kind))("kind %i", async (kind) => {
    for (let seed = kind; seed < COUNT; seed += kindCount) await check(seed);
  });
});

async function check(seed: number): Promise<void> {
  const { kind, model, data, P, form, expected, shifts } = architecture(seed);
  const label = `${kind}, seed ${seed}, P ${P}`;
  expect(P, label).toBeLessThanOrEqual(20);
  const parsed = parseModel(model);
  const measure = measureOf(engine, parsed, data);
  const found = await discoverSymmetries(measure, { form, restrict: "full", seed });
  if (form === "symmetric") {
    const truth = orthonormal(expected.map((e) => e.A));
    for (const restrict of ["blocks", "diagonal"] as const) {
      const { count, generators } = await discoverSymmetries(measure, { restrict, seed });
      const within = orthonormal(actions(parsed, restrict === "diagonal"));
      // dim (A and B) = dim A + dim B - dim (A + B)
      const common = truth.length + within.length - orthonormal([...truth, ...within]).length;
      expect(count, `${label}, ${restrict}: ${generators.map((A) => A.name).join("; ")}`).toBe(common);
      for (const A of generators)
        expect(outside(truth, denseOf(parsed, A)), `${label}, ${restrict}: ${A.name}`).toBeLessThan(1e-8);
    }
  }
  measure.dispose();
  measure.samples.dispose();
  const names = found.generators.map((A) => A.name);
  const shown = `${label}: ${names.join("; ")}`;
  expect(found.count, shown).toBe(expected.length + shifts.length);
  expect(found.generators.length, shown).toBe(found.count);
  expect(found.flat, shown).toBe(expected.filter((e) => e.flat).length + shifts.length);
  expect(found.gap, shown).toBeGreaterThan(1e9);
  for (const shift of shifts) expect(names, shown).toContain(shift);
  // as many as there are, and every one of those in their span: so the span is the same
  const matrices = found.generators.filter((A) => !shifts.includes(A.name));
  const span = orthonormal(matrices.map((A) => denseOf(parsed, A)));
  expect(span.length, `${shown}: independent`).toBe(expected.length);
  for (const { names: right, A } of expected)
    expect(outside(span, A), `${shown}: ${right[0] ?? "one without a name"}`).toBeLessThan(1e-8);
  for (const { names: right, A, flat } of expected) {
    if (right.length === 0) continue;
    const named = found.generators.filter((g) => right.includes(g.name));
    expect(named.length, `${shown}: ${right[0]}`).toBe(1);
    expect(named[0]!.flat, `${shown}: ${right[0]}`).toBe(flat);
    const one = orthonormal([denseOf(parsed, named[0]!)]);
    expect(outside(one, A), `${shown}: ${right[0]} is that matrix`).toBeLessThan(1e-8);
  }
  const anonymous = /^(unnamed|flat|translation \d|constant translation \d)/;
  expect(
    names.filter((name) => anonymous.test(name)),
    shown,
  ).toEqual([]);
}

/** Left and right actions of unit matrices on every block. */
function actions(model: Model, diagonal: boolean): Float64Array[] {
  return model.blocks.flatMap(({ name, shape }) =>
    (["left", "right"] as const).slice(0, Math.max(1, shape.length)).flatMap((side) => {
      const size = shape[side === "left" ? 0 : 1] ?? 1;
      return Array.from({ length: size * size }, (_, e) => [Math.floor(e / size), e % size] as const)
        .filter(([k, l]) => (diagonal ? k === l : k <= l))
        .map(([k, l]) => {
          const unit = Array.from({ length: size }, (_, i) =>
            Array.from({ length: size }, (_, j) => ((i === k && j === l) || (i === l && j === k) ? 1 : 0)),
          );
          return denseOf(model, symmetry.generator({ blocks: { [name]: { [side]: unit } } }));
        });
    }),
  );
}

function orthonormal(vectors: readonly Float64Array[]): Float64Array[] {
  const out: Float64Array[] = [];
  for (const v of vectors) {
    const rest = rejected(out, rejected(out, v));
    const length = norm(rest);
    if (length > 1e-6 * norm(v)) out.push(rest.map((x) => x / length));
  }
  return out;
}

function rejected(basis: readonly Float64Array[], v: Float64Array): Float64Array {
  const rest = v.slice();
  for (const q of basis) {
    let along = 0;
    for (const [i, x] of q.entries()) along += x * rest[i]!;
    for (const [i, x] of q.entries()) rest[i] = rest[i]! - along * x;
  }
  return rest;
}

const norm = (v: Float64Array): number => Math.sqrt(v.reduce((s, x) => s + x * x, 0));
const outside = (basis: readonly Float64Array[], v: Float64Array): number =>
  norm(rejected(basis, v)) / norm(v);

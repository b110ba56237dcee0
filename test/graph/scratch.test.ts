import fc from "fast-check";
import { expect, test } from "vitest";
import { Code, WORDS } from "../../src/graph/instructions.ts";
import { Planner } from "../../src/graph/layout.ts";
import { Scratch } from "../../src/graph/scratch.ts";

/**
 * Oracle: a program of copies, executed symbolically. Every buffer holds the number of the value last
 * written to each of its 64-byte cells; reading back a value that was written must give that value,
 * however often the body runs.
 */
interface Line {
  readonly dst: number;
  readonly a: number | null;
}

const programs = fc
  .array(
    fc.record({
      section: fc.constantFrom("setup", "before", "body", "tail", "after"),
      bytes: fc.integer({ min: 1, max: 300 }),
      reads: fc.array(fc.nat(), { maxLength: 3 }),
    }),
    { minLength: 1, maxLength: 40 },
  )
  .chain((lines) => fc.record({ lines: fc.constant(lines), turns: fc.integer({ min: 0, max: 3 }) }));

const order = ["setup", "before", "body", "tail", "after"] as const;

test("buffers in use at the same time never overlap, in any walk over the blocks", () => {
  fc.assert(
    fc.property(programs, ({ lines, turns }) => {
      const scratch = new Scratch();
      const code = Object.fromEntries(order.map((s) => [s, new Code()])) as Record<
        (typeof order)[number],
        Code
      >;
      const plain = Object.fromEntries(order.map((s) => [s, [] as Line[]])) as Record<string, Line[]>;
      // values by section: a value may be read in its own section, or later; body values in body alone
      const made: { id: number; at: number; section: string }[] = [];
      const sorted = [...lines].sort(
        (x, y) => order.indexOf(x.section as "setup") - order.indexOf(y.section as "setup"),
      );
      for (const [id, line] of sorted.entries()) {
        const section = line.section as (typeof order)[number];
        const at = scratch.take(line.bytes);
        const known = made.filter(
          (m) => m.section === section || (m.section !== "body" && m.section !== "tail"),
        );
        for (const r of line.reads) {
          const source = known.length > 0 ? known[r % known.length]! : null;
          if (source === null) continue;
          code[section].emit("copy", { dst: at, a: source.at, n: 1 });
          plain[section]!.push({ dst: id, a: source.id });
        }
        code[section].emit("fill", { dst: at, n: 1, imm: 0 });
        plain[section]!.push({ dst: id, a: null });
        made.push({ id, at, section });
      }
      const base = 4096;
      const planner = new Planner(base);
      scratch.settle(planner, code);
      const memory = new Map<number, number>();
      const run = (section: (typeof order)[number]) => {
        const words: number[] = [];
        code[section].visit((_, word) => words.push(word));
        for (const [i, { dst, a }] of plain[section]!.entries()) {
          const [to, from] = [words[i * WORDS + 1]!, words[i * WORDS + 2]!];
          expect(to).toBeGreaterThanOrEqual(base);
          expect(to).toBeLessThan(planner.end);
          if (a !== null) expect(memory.get(from), `${section} ${i} reads value ${a}`).toBe(a);
          const bytes = sorted[dst]!.bytes;
          for (let b = to; b < to + bytes; b += 64) memory.set(b, dst);
        }
      };
      run("setup");
      for (let step = 0; step < 2; step++) {
        run("before");
        for (let t = 0; t < turns; t++) run("body");
        run("tail");
        run("after");
      }
    }),
    { numRuns: 500, seed: 1 },
  );
});

test("memory is shared: a chain of values needs two buffers", () => {
  const scratch = new Scratch();
  const body = new Code();
  let a = scratch.take(1024);
  body.emit("fill", { dst: a, n: 1, imm: 0 });
  for (let i = 0; i < 20; i++) {
    const dst = scratch.take(1024);
    body.emit("copy", { dst, a, n: 1 });
    a = dst;
  }
  const planner = new Planner(0);
  const none = () => new Code();
  scratch.settle(planner, { setup: none(), before: none(), body, tail: none(), after: none() });
  expect(planner.end).toBe(2048);
});

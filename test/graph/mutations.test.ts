import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

/** Every derivative rule with its sign flipped, doubled, or short of a term, has to be noticed. */
test("all mutants of the derivative rules are killed", () => {
  const script = fileURLToPath(new URL("../../tools/mutate-rules.mjs", import.meta.url));
  const last = execFileSync("node", [script], { encoding: "utf8" }).trim().split("\n").at(-1)!;
  const [, killed, total] = /^killed (\d+) of (\d+)/.exec(last)!.map(Number);
  expect(killed).toBe(total);
  expect(total).toBeGreaterThan(200);
}, 60_000);

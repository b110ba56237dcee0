/** A file is the old one or the new one, whole, whatever happens between. */
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { sweepParts, writeWhole } from "../../src/records/files.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "noetherflow-files-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

describe("writing a file", () => {
  test("leaves the file and nothing else", async () => {
    const path = join(folder, "a.txt");
    await writeWhole(path, "one");
    await writeWhole(path, new TextEncoder().encode("two"));
    expect(readFileSync(path, "utf8")).toBe("two");
    expect(readdirSync(folder)).toEqual(["a.txt"]);
  });

  test("that fails between writing and renaming leaves the old file and nothing else", async () => {
    const path = join(folder, "a.txt");
    await writeWhole(path, "old");
    const half = writeWhole(path, (part) => {
      writeFileSync(part, "ne");
      throw new Error("the disk is full");
    });
    await expect(half).rejects.toThrow("the disk is full");
    // a folder in the way: everything is written, and the rename itself fails
    mkdirSync(join(folder, "b.txt"));
    await expect(writeWhole(join(folder, "b.txt"), "new")).rejects.toThrow(/EISDIR|ENOTEMPTY|EEXIST|EPERM/);
    expect(readFileSync(path, "utf8")).toBe("old");
    expect(readdirSync(folder).sort()).toEqual(["a.txt", "b.txt"]);
  });

  test("exclusively never replaces one, also of two at once only one", async () => {
    const path = join(folder, "a.txt");
    const outcomes = await Promise.allSettled(
      ["one", "two", "three"].map((text) => writeWhole(path, text, true)),
    );
    expect(outcomes.filter((o) => o.status === "fulfilled")).toHaveLength(1);
    const [first] = outcomes.filter((o) => o.status === "rejected");
    expect((first as PromiseRejectedResult).reason.message).toBe(
      `${path}: a file that is not there yet, got one that is. Pass overwrite: true.`,
    );
    expect(readdirSync(folder)).toEqual(["a.txt"]);
  });
});

test("a process that ends between writing and renaming leaves the old file, and what it left is swept", async () => {
  const path = join(folder, "a.txt");
  await writeWhole(path, "old");
  // the process ends where it would have renamed
  const source = new URL("../../src/records/files.ts", import.meta.url);
  const program = `
    const { createJiti } = await import(${JSON.stringify(import.meta.resolve("jiti"))});
    const { writeWhole } = await createJiti(${JSON.stringify(source.href)}).import(${JSON.stringify(source.href)});
    const { writeFileSync } = await import("node:fs");
    await writeWhole(${JSON.stringify(path)}, (part) => { writeFileSync(part, "ne"); process.kill(process.pid, "SIGKILL"); });`;
  const { signal, stderr } = spawnSync(process.execPath, ["--input-type=module", "-e", program], {
    encoding: "utf8",
  });
  expect([signal, stderr]).toEqual(["SIGKILL", ""]);
  const left = readdirSync(folder).filter((name) => name !== "a.txt");
  expect(left).toHaveLength(1);
  expect(left[0]).toMatch(/^a\.txt\.\d+-[0-9a-f]{8}\.part$/);
  expect(readFileSync(path, "utf8")).toBe("old");
  // neither other files' leftovers, nor those of processes that live, nor files that only look alike
  const others = [
    "b.txt.999999999-00000000.part",
    `a.txt.${process.ppid}-00000000.part`,
    "a.txt.part",
    "notes.part",
  ];
  for (const name of others) writeFileSync(join(folder, name), "");
  await sweepParts(folder, ["a.txt"]);
  expect(readdirSync(folder).sort()).toEqual([...others, "a.txt"].sort());
});

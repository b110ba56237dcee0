/** The tables of bench/README.md are those of the raw records, and two records agree or not as bench/compare.mjs says. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, expect, test } from "vitest";

const root = fileURLToPath(new URL("..", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "noetherflow-bench-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function node(...args: string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { cwd: root, encoding: "utf8" });
  return { status, text: stdout + stderr };
}

/** A record with one job in which noetherflow is `times` as fast as a peer. */
function record(name: string, times: number): string {
  const side = (label: string, kind: string, ns: number) => {
    const samples = Array.from({ length: 9 }, (_, i) => ns * (1 + i / 100));
    return { label, kind, variant: "simd", cpuNs: samples, wallNs: samples };
  };
  const sides = { "ours-simd": side("ours", "ours", 10), peer: side("peer", "peer", 10 * times) };
  const jobs = [{ name: "J", family: "sgd", title: "", unit: "step", dtype: "f64", absent: {}, sides }];
  const path = join(folder, name);
  writeFileSync(path, JSON.stringify({ schema: "noetherflow-peers/2", machine: { node: "20.0.0" }, jobs }));
  return path;
}

test("the tables of README.md and bench/README.md are generated from the raw records", () => {
  expect(node("bench/tables.mjs", "--check")).toMatchObject({ status: 0 });
});

test("there is a raw record of both suites on Node 20 and on Node 24", () => {
  const files = readdirSync(join(root, "bench/results")).sort();
  expect(files).toEqual(["bench-20.json", "bench-24.json", "peers-20.json", "peers-24.json"]);
  for (const file of files) {
    const { machine, commit } = JSON.parse(readFileSync(join(root, "bench/results", file), "utf8"));
    expect(machine.node.split(".")[0]).toBe(/\d+/.exec(file)![0]);
    expect(commit).toMatch(/^[0-9a-f]{40}$/);
  }
});

test("records whose ratios differ by less than 20 % agree, others do not", () => {
  const [a, near, far] = [record("a.json", 5), record("near.json", 5.9), record("far.json", 6.1)];
  expect(node("bench/compare.mjs", a, near)).toEqual({
    status: 0,
    text: "1 of 1 ratios agree within 20 %\n",
  });
  const differs = node("bench/compare.mjs", a, far);
  expect(differs.status).toBe(1);
  expect(differs.text).toContain("J: ours-simd / peer");
  expect(node("bench/compare.mjs", far, a).status).toBe(1);
});

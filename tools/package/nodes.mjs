// The cells of one version of Node: the program by import and by require(), every entry, and the command.
import assert from "node:assert/strict";
import { mkdtempSync } from "node:fs";
import { join } from "node:path";
import { NotTried } from "./matrix.mjs";
import { run } from "./shell.mjs";

/**
 * The path of a Node: this one if it is the one asked for, else npm's package `node`, which npm keeps in its cache.
 *
 * @param version a major version, or any version that npm knows
 */
export async function findNode(version, folder) {
  if ([process.versions.node, process.versions.node.split(".")[0]].includes(version)) return process.execPath;
  const args = ["--yes", "--prefer-offline", "-p", `node@${version}`, "node", "-p", "process.execPath"];
  try {
    return (await run("npx", args, { cwd: folder })).stdout.trim();
  } catch (error) {
    throw new NotTried(`npx cannot bring node@${version}: ${error.message}`);
  }
}

/** Trains by import ("node") or by require ("cjs"), and returns what the program printed, and what Node did. */
export async function trainIn(node, stranger, kind) {
  const cwd = join(stranger, kind);
  const { stdout, stderr } = await run(node, ["everything.js", mkdtempSync(join(cwd, "run-"))], { cwd });
  assert.deepEqual(complaints(stderr), [], "nothing on stderr");
  return {
    ended: JSON.parse(stdout),
    remark: stderr === "" ? "" : ", Node remarks that require() of ESM is new",
  };
}

/** Lines on stderr, but for the remark of Node 22.12 that it can require ESM, which later versions do not make. */
function complaints(stderr) {
  const remark =
    /ExperimentalWarning: CommonJS module|^Support for loading ES Module in require|--trace-warnings/;
  return stderr.split("\n").filter((line) => line !== "" && !remark.test(line));
}

/** Every version named, and the oldest that the manifest allows. */
export function versionsToTry(named, { engines }) {
  const oldest = engines.node.match(/\d+\.\d+(\.\d+)?/g) ?? [];
  return [...named, ...oldest.map((version) => (version.split(".").length === 2 ? `${version}.0` : version))];
}

/** What the program of a stranger must end with, whatever runs it. */
export function checkProgram({ f64, f32, many, record }) {
  assert.equal(f64.steps, 10, "ten steps");
  assert.ok(f64.theta.length === 2 && f64.theta.every(Number.isFinite), `theta is finite, got ${f64.theta}`);
  assert.notDeepEqual(f64.theta, [1, 0.5], "theta moved");
  assert.match(f64.hash, /^\S+$/, "the run has a hash");
  assert.notEqual(f32.hash, f64.hash, "f32 is another run");
  assert.deepEqual(many.many, [f64.hash, f64.hash], "two workers give the same");
  assert.match(many.replicas, /^\S+$/, "replicas over two workers");
  const [first, ...again] = record.hashes;
  assert.deepEqual(again, [first, first], "a run's folder is read back");
  assert.deepEqual([record.same, record.differences], [true, 0], "and replayed to the same bits");
}

/** All cells of one version. `shared.command` is what the command said on the first version, for the others to repeat. */
export async function cellsOfNode(matrix, version, { stranger, manifest, expected, shared }) {
  let node;
  const tried = await matrix.cell(`Node ${version}`, "is there", async () => {
    node = await findNode(version, stranger);
    return versionOf(node);
  });
  if (!tried) return;
  const group = `Node ${version}`;
  for (const [kind, name] of [
    ["node", "import"],
    ["cjs", "require()"],
  ])
    await matrix.cell(group, name, async () => {
      const { ended, remark } = await trainIn(node, stranger, kind);
      assert.deepEqual(ended, expected);
      return ended.f64.hash.slice(0, 12) + remark;
    });
  await matrix.cell(group, "every entry, by both", () => checkEntries(node, stranger, manifest));
  await matrix.cell(group, "npx noetherflow", () => checkCommand(node, stranger, manifest, shared));
}

async function versionOf(node) {
  return (await run(node, ["-p", "process.versions.node"], { cwd: "/" })).stdout.trim();
}

async function checkEntries(node, stranger, manifest) {
  const names = moduleEntries(manifest);
  const { stdout, stderr } = await run(node, ["entries.js", ...names], { cwd: join(stranger, "node") });
  const { wasm, version, ...entries } = JSON.parse(stdout);
  for (const name of names) {
    assert.ok(entries[name].import.length > 0, `${name} exports something`);
    assert.deepEqual(entries[name].require, entries[name].import, `${name} by require()`);
  }
  assert.ok(wasm > 10, "core.wasm is a module");
  assert.equal(version, manifest.version);
  assert.deepEqual(complaints(stderr), [], "nothing on stderr");
  return `${names.length} entries, core.wasm, package.json`;
}

/** Entries that are modules to import: not the Wasm, not the manifest, and not the program of a worker. */
export function moduleEntries({ name, exports }) {
  return Object.entries(exports)
    .filter(([, target]) => typeof target === "object")
    .map(([entry]) => name + entry.slice(1));
}

async function checkCommand(node, stranger, manifest, shared) {
  const cwd = mkdtempSync(join(stranger, "starter-"));
  const command = async (...args) => (await run("npx", ["noetherflow", ...args], { cwd, node })).stdout;
  assert.equal((await command("--version")).trim(), manifest.version);
  await command("init");
  const symmetries = JSON.parse(await command("symmetries", "model.json", "--data", "data.csv", "--json"));
  const csv = (await run(node, ["train.mjs"], { cwd, node })).stdout;
  assert.match(csv, /^k,t,replica,loss,charge\./, "the starter prints a table");
  assert.equal(csv.trim().split("\n").length, 12, "of a line for each record");
  const { experiments } = JSON.parse(await command("run", "E01", "--quick", "--json"), (key, value) =>
    key === "elapsedMs" ? undefined : value,
  );
  assert.equal(experiments[0].id, "E01");
  const said = { symmetries, csv, experiments };
  shared.command ??= said;
  assert.deepEqual(said, shared.command, "the same as on the other versions");
  return "--version, init, symmetries, train.mjs, run E01";
}

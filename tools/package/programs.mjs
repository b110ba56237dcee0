// What a stranger writes: one small training program, and the scripts and pages around it.
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import ts from "typescript";

/** Trains ten steps. `core` is what createEngine takes: nothing or options, and for noetherflow/external a URL. */
const train = `
import { createEngine, model, ops } from "noetherflow";

export async function setUp(...core: Parameters<typeof createEngine>) {
  const net = model({ params: { u: [1], w: [1] }, inputs: { x: [1], y: [1] },
    loss: ({ u, w, x, y }) => ops.sqnorm(ops.sub(ops.mul(ops.mul(u, w), x), y)) });
  const engine = await createEngine(...core);
  const problem = engine.problem(net, { x: [1, 2, -1], y: [1.5, 1, -1] });
  const options = { scheme: "sgd" as const, theta: { u: [1], w: [0.5] }, eta: 0.05, batchSize: 1, steps: 10, seed: "stranger" };
  return { problem, options };
}

export async function train(...core: Parameters<typeof createEngine>) {
  const { problem, options } = await setUp(...core);
  const { theta, steps, hash } = await problem.simulate(options);
  return { theta: Array.from(theta), steps, hash };
}
`;

/** The same run twice and replicas of it, in two workers. */
const many = `
import { simulateMany, simulateReplicas } from "noetherflow/parallel";
import { setUp } from "./train.js";

export async function many(core: Parameters<typeof setUp>, worker?: URL) {
  const { problem, options } = await setUp(...core);
  const control = worker === undefined ? { workers: 2 } : { workers: 2, worker };
  const { runs } = await simulateMany([problem.describe(options), { problem, options }], control);
  const replicas = await simulateReplicas(problem, { ...options, replicas: 5 }, control);
  return { many: runs.map((end) => end.status === "done" ? end.run.hash : end.error.message), replicas: replicas.hashes[0] };
}
`;

/** For Node alone: a run with a folder, gone on with, read back and replayed. */
const record = `
import { createEngine, model, ops } from "noetherflow";
import { readRun, recordRun, replayRun, resumeRun } from "noetherflow/records";

export async function record(dir: string) {
  const net = model({ params: { u: [1] }, inputs: { x: [1] }, loss: ({ u, x }) => ops.sqnorm(ops.mul(u, x)) });
  const problem = (await createEngine()).problem(net, { x: [1, 2, -1] });
  const options = { scheme: "gd" as const, theta: [1], eta: 0.05, steps: 10, record: { every: 1, loss: "full" as const } };
  const run = await recordRun(problem, options, { dir });
  const { same, differences } = await replayRun(dir);
  return { hashes: [run.hash, (await resumeRun(dir)).hash, (await readRun(dir)).hash], same, differences: differences.length };
}
`;

/** Prints where the program ended, in Node. */
const everything = `
import { many } from "./many.js";
import { record } from "./record.js";
import { train } from "./train.js";

async function everything() {
  const result = { f64: await train(), f32: await train({ dtype: "f32" }), many: await many([]), record: await record(process.argv[2]) };
  console.log(JSON.stringify(result));
}
everything().catch((error) => { console.error(error); process.exit(1); });
`;

/** Prints what every entry of the package exports, by import and by require. */
const entries = `
import { createRequire } from "node:module";
const require = createRequire(import.meta.url);
const found = {};
for (const entry of process.argv.slice(2)) {
  const names = (module) => Object.keys(module).filter((name) => name !== "__esModule" && name !== "module.exports").sort();
  found[entry] = { import: names(await import(entry)), require: names(require(entry)) };
}
const bytes = require("node:fs").readFileSync(require.resolve("noetherflow/core.wasm"));
found.wasm = WebAssembly.Module.exports(await WebAssembly.compile(bytes)).length;
found.version = require("noetherflow/package.json").version;
console.log(JSON.stringify(found));
`;

/** A page that trains by itself, in a worker of its own and in the package's workers; each ends as { value } or { error }. */
const page = `
import { core, extra, vendored } from "./core.js";
import { many } from "./many.js";
import { train } from "./train.js";

function inWorker() {
  const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
  return new Promise((resolve, reject) => {
    worker.onmessage = ({ data }) => data.error === undefined ? resolve(data.value) : reject(new Error(data.error));
    worker.onerror = (event) => reject(new Error(event.message ?? "the worker did not load"));
  }).finally(() => worker.terminate());
}

const works = { page: () => train(...core), worker: inWorker };
if (extra !== undefined) works.f32 = () => train(extra);
works.many = () => many(core);
if (vendored !== undefined) works.manyByURL = () => many(core, vendored);
const result = {};
for (const name of Object.keys(works))
  result[name] = await works[name]().then((value) => ({ value }), (error) => ({ error: String(error) }));
window.result = result;
`;

const worker = `
import { core } from "./core.js";
import { train } from "./train.js";
train(...core).then((value) => postMessage({ value }), (error) => postMessage({ error: String(error) }));
`;

/** The start page; its script is beside it, since a strict policy allows no inline one. */
const html = `<!doctype html><title>page</title><script type="module" src="./page.js"></script>\n`;

/** What createEngine is given: the inlined core, or one to fetch. Vite takes a URL from the package, others the page's own copy. */
const inlined = (vendored) => `export const core = [], extra = { dtype: "f32" }, vendored = ${vendored};\n`;
const fetched = {
  vite: `import url from "noetherflow/core.wasm?url";
export const core = [new URL(url, location.href)], extra = undefined, vendored = undefined;\n`,
  esbuild: `export const core = [new URL("./core.wasm", import.meta.url)], extra = undefined,
  vendored = new URL("./vendor/parallel-worker.js", import.meta.url);\n`,
};

/** One step from nothing, for its time. */
const firstStep = `
import { createEngine, model, ops } from "noetherflow";
const net = model({ params: { m: [1] }, inputs: { x: [1] }, loss: ({ m, x }) => ops.sqnorm(ops.sub(m, x)) });
const problem = (await createEngine()).problem(net, { x: [1, 2] });
await problem.simulate({ scheme: "gd", theta: [0], eta: 0.1, steps: 1 });
`;

function compiled(text, module) {
  return ts.transpileModule(text, { compilerOptions: { target: "es2022", module } }).outputText.trimStart();
}

function write(...parts) {
  const text = parts.pop();
  const path = join(...parts);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, text);
}

/** The program as ES modules in node/, as CommonJS in cjs/, and as TypeScript in types/. */
export function writeNodePrograms(folder) {
  const sources = { train, many, record, everything };
  for (const [name, text] of Object.entries(sources)) {
    write(folder, "node", `${name}.js`, compiled(text, ts.ModuleKind.ES2022));
    write(folder, "cjs", `${name}.js`, compiled(text, ts.ModuleKind.CommonJS));
    if (name === "everything") continue;
    write(folder, "types", `${name}.ts`, text);
    write(folder, "types", `${name}-cjs.cts`, text.replaceAll("./train.js", "./train-cjs.cjs"));
  }
  write(folder, "types", "train-external.ts", external(train));
  write(folder, "cjs", "package.json", '{ "type": "commonjs" }\n');
  write(folder, "node", "entries.js", entries);
  write(folder, "node", "empty.js", "");
  write(folder, "node", "import.js", 'await import("noetherflow");\n');
  write(folder, "node", "first-step.js", firstStep);
}

/** The page for one bundler; under a strict policy it takes the entry whose core the page brings. */
export function writePage(folder, bundler, strict) {
  const source = (text) => compiled(strict ? external(text) : text, ts.ModuleKind.ES2022);
  write(folder, "train.js", source(train));
  write(folder, "many.js", source(many));
  write(folder, "page.js", page);
  write(folder, "worker.js", worker);
  const byURL =
    bundler === "esbuild" ? 'new URL("./vendor/parallel-worker.js", import.meta.url)' : "undefined";
  write(folder, "core.js", strict ? fetched[bundler] : inlined(byURL));
  write(folder, "index.html", html);
}

function external(text) {
  return text.replace('"noetherflow"', '"noetherflow/external"');
}

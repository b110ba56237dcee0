/**
 * A run with a folder: it is ended halfway, goes on from its checkpoint, and comes to the bits of a run that was never ended;
 * then it is replayed from its record alone, and exported.
 *
 * The folder holds the description of the run (run.json), its series (series.parquet), where it ended (theta.npy), and while it is
 * unfinished a checkpoint. A process that dies, whenever it dies, leaves a folder that resumeRun goes on with.
 *
 * Run it: npx jiti examples/09-record-and-resume.ts   (in your own project import from "noetherflow" and "noetherflow/records")
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createEngine, model, ops, symmetry } from "../src/index.ts";
import { exportRun, readRun, recordRun, replayRun, resumeRun } from "../src/records/records.ts";

const net = model({
  params: { u: [1], w: [1] },
  inputs: { x: [1], y: [1] },
  loss: ({ u, w, x, y }) => ops.sqnorm(ops.sub(ops.mul(ops.mul(u, w), x), y)),
});
const engine = await createEngine();
const problem = engine.problem(net, { x: [1, 1, -1, -1], y: [2, 0, 0, -2] });
const options = {
  scheme: "sgd",
  theta: { u: [2], w: [0.1] },
  eta: 1e-4,
  batchSize: 1,
  steps: 1_000_000,
  seed: "records",
  record: { every: 1000, charges: { C: symmetry.rescaling("u", "w") }, work: true },
} as const;
const whole = await problem.simulate(options);

const folder = mkdtempSync(join(tmpdir(), "noetherflow-"));
const dir = join(folder, "run");
const abort = new AbortController();
let step = 0;
await recordRun(problem, options, {
  dir,
  signal: abort.signal,
  onProgress: (progress) => {
    step = progress.step;
    abort.abort("the lights went out");
  },
}).catch((reason) => console.log(`ended early: ${reason}`));
const unfinished = readdirSync(dir);
console.log(`left behind: ${unfinished.join(", ")}`);

const run = await resumeRun(dir);
const record = await readRun(dir);
console.log(
  `after resumeRun: ${readdirSync(dir).join(", ")}; status ${record.status}, ${record.sessions.length} sessions`,
);
console.log(`the hash of an uninterrupted run: ${run.hash === whole.hash}`);

const { same, differences } = await replayRun(dir);
console.log(`replayed to the same bits: ${same}`);

const csv = join(folder, "run.csv");
await exportRun(dir, "csv", csv);
const lines = readFileSync(csv, "utf8").trimEnd().split("\n");
console.log(`exported ${lines.length - 1} lines: ${lines[0]}`);
rmSync(folder, { recursive: true });
engine.dispose();

/** What test/examples.test.ts checks. */
export const found = { whole, run, record, step, unfinished, same, differences, lines };

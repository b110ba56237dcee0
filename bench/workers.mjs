// `node bench/workers.mjs [rounds]`: how much faster is a batch of equal tasks with two workers than with one? And what does a worker
// cost beside the calling thread? Sides take turns; ratios are taken within a round. The wall clock tells on a machine that has both
// cores to spare. What neighbours change little is CPU time: a batch takes what the calling thread does, and an equal share of what
// the others do for each worker, so the figure is (main + others with one worker) / (main + others / 2 with two).
import { readFileSync, writeFileSync } from "node:fs";
import { cpus, loadavg } from "node:os";
import { join } from "node:path";
import { refreshLibrary, root } from "../tools/build.mjs";
import { nets } from "./nets.mjs";
import { bootstrapInterval, median } from "./statistics.mjs";

const TASKS = 8;
const TASK_MS = 150;
const GOAL = 1.7;
const rounds = Number(process.argv[2] ?? 15);
if (!Number.isInteger(rounds) || rounds < 5)
  throw new Error("bench: rounds must be an integer of at least 5.");
refreshLibrary();
const noetherflow = await import("../dist/index.js");
const { createPool } = await import("../dist/parallel.js");

const net = nets.twoLayer([16, 16, 16]);
const engine = await noetherflow.createEngine();
const problem = engine.problem(net.build(noetherflow), net.data(2048));
const options = { scheme: "sgd", theta: net.theta, eta: net.eta, batchSize: 8 };
const time = async (work) => {
  const began = performance.now();
  await work();
  return performance.now() - began;
};
const trial = 20_000;
await problem.simulate({ ...options, steps: trial, seed: "warm" });
const ms = await time(() => problem.simulate({ ...options, steps: trial, seed: "warm" }));
const steps = Math.max(1, Math.round((TASK_MS / ms) * trial));
const batch = Array.from({ length: TASKS }, (_, i) => ({ ...options, steps, seed: `${i}` }));
const described = batch.map((each) => problem.describe(each));

const pools = [1, 2].map((workers) => createPool({ workers }));
const overPool = async (pool) => {
  const { runs } = await pool.simulateMany(described);
  return runs.map((end) => end.run.hash).join();
};
const sides = {
  alone: async () => {
    const hashes = [];
    for (const each of batch) hashes.push((await problem.simulate(each)).hash);
    return hashes.join();
  },
  one: () => overPool(pools[0]),
  two: () => overPool(pools[1]),
};
const hashes = new Set();
for (const side of Object.values(sides)) hashes.add(await side());
if (hashes.size !== 1) throw new Error("bench: workers gave other hashes than the calling thread");

/** CPU time in ms of the calling thread (Linux tells) and of all others. */
function used() {
  const { user, system } = process.cpuUsage();
  const main = Number(readFileSync(`/proc/self/task/${process.pid}/schedstat`, "utf8").split(" ")[0]) / 1e6;
  return { main, others: (user + system) / 1000 - main };
}

const loadBefore = loadavg();
const samples = Object.fromEntries(Object.keys(sides).map((name) => [name, []]));
for (let round = 0; round < rounds; round++) {
  const order = Object.keys(sides);
  if (round % 2 === 1) order.reverse();
  for (const name of order) {
    const before = used();
    const wall = await time(sides[name]);
    const after = used();
    const main = after.main - before.main;
    const others = after.others - before.others;
    samples[name].push({ wall, cpu: main + others / (name === "two" ? 2 : 1) });
  }
}
for (const pool of pools) await pool.dispose();

const ratio = (above, below, of) => {
  const ratios = samples[above].map((sample, i) => sample[of] / samples[below][i][of]);
  const [low, high] = bootstrapInterval(ratios);
  return { median: median(ratios), low, high };
};
const show = ({ median: middle, low, high }) =>
  `${middle.toFixed(3)} [${low.toFixed(3)}, ${high.toFixed(3)}]`;
const speedup = { cpu: ratio("one", "two", "cpu"), wall: ratio("one", "two", "wall") };
const cost = { cpu: ratio("one", "alone", "cpu"), wall: ratio("one", "alone", "wall") };
const verdict = ({ median: middle, high }) =>
  middle >= GOAL ? "reached" : high >= GOAL ? "within noise" : "missed";
const load = [loadBefore[0], loadavg()[0]].map((value) => value.toFixed(2));
console.log(
  `${TASKS} tasks of ${median(samples.alone.map(({ cpu }) => cpu / TASKS)).toFixed(0)} ms, ${rounds} rounds, ${cpus().length} cores, ` +
    `load ${load[0]} before, ${load[1]} after; medians with 90 % intervals`,
);
for (const of of ["cpu", "wall"]) {
  const by = of === "cpu" ? "CPU time" : "the wall clock";
  console.log(`by ${by}:`);
  console.log(
    `  two workers against one: ${show(speedup[of])} times as fast (goal ${GOAL}: ${verdict(speedup[of])})`,
  );
  console.log(`  one worker against the calling thread: ${show(cost[of])} of its time`);
}
if (process.argv[3] !== undefined)
  writeFileSync(
    join(root, process.argv[3]),
    `${JSON.stringify({ rounds, tasks: TASKS, steps, load, samples, speedup, cost })}\n`,
  );

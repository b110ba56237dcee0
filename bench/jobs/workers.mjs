// A batch of 8 equal runs on the calling thread, over one worker and over two (noetherflow/parallel), all with the same hashes.
//
// The wall clock tells on a machine that has two cores to spare. What neighbours change little is CPU time: a batch takes what the
// calling thread does, and an equal share of what the others do for each worker.
import { readFileSync } from "node:fs";
import { platform } from "node:os";
import { nets } from "../nets.mjs";
import { engineOf, finished, noetherflow } from "../ours.mjs";

const TASKS = 8;
const STEPS = 80_000;

export const jobs = [
  {
    ...{ module: import.meta.url, family: "workers", name: "workers", unit: "batch", dtype: "f64" },
    title: `${TASKS} runs of SGD, two-layer linear net, d = 16, S = 8, ${STEPS} steps each`,
    ...{ unpinned: true, once: true, unchecked: true },
    sides: [
      { id: "alone", label: "calling thread", kind: "ours", host: "ours", variant: "simd", workers: 0 },
      { id: "one", label: "one worker", kind: "ours", host: "ours", variant: "simd", workers: 1 },
      { id: "two", label: "two workers", kind: "ours", host: "ours", variant: "simd", workers: 2 },
    ],
  },
];

/** CPU time in ms of the calling thread, where Linux tells, and of all others. */
function used() {
  const { user, system } = process.cpuUsage();
  const all = (user + system) / 1000;
  if (platform() !== "linux") return { main: 0, others: all };
  const main = Number(readFileSync(`/proc/self/task/${process.pid}/schedstat`, "utf8").split(" ")[0]) / 1e6;
  return { main, others: all - main };
}

let hashes = null;

export const sides = {
  async ours({ job, side: { variant, workers } }) {
    const engine = await engineOf(job, variant);
    const net = nets.twoLayer([16, 16, 16]);
    const problem = engine.problem(net.build(noetherflow), net.data(2048));
    const options = { scheme: "sgd", theta: net.theta, eta: net.eta, batchSize: 8, steps: STEPS };
    const batch = Array.from({ length: TASKS }, (_, i) => ({ ...options, seed: `${i}` }));
    const described = batch.map((each) => problem.describe(each));
    const { createPool } = await import("../../dist/parallel.js");
    const pool = workers === 0 ? null : createPool({ workers });
    const once = async () => {
      if (pool === null) {
        const ended = [];
        for (const each of batch) ended.push((await finished(problem.simulate(each))).hash);
        return ended.join();
      }
      const { runs } = await pool.simulateMany(described);
      return runs.map((end) => end.run.hash).join();
    };
    const first = await once();
    hashes ??= first;
    if (first !== hashes) throw new Error("workers gave other hashes than the calling thread");
    return {
      async run() {
        const before = used();
        const checksum = await once();
        const after = used();
        const others = (after.others - before.others) / Math.max(1, workers);
        return { checksum, cpuMs: after.main - before.main + others };
      },
    };
  },
};

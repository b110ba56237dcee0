/** A program of its own: some runs over workers, after which it must end by itself. Its argument says which. */
import { createEngine, model, ops } from "../../src/index.ts";
import { createPool, simulateMany } from "../../src/parallel.ts";

const net = model({
  params: { u: [1], w: [1] },
  inputs: { x: [1], y: [1] },
  loss: ({ u, w, x, y }) => ops.sqnorm(ops.sub(ops.mul(ops.mul(u, w), x), y)),
});
const engine = await createEngine();
const problem = engine.problem(net, { x: [1, -1], y: [2, -1] });
const of = (seed: string, steps = 1000) =>
  problem.describe({ scheme: "sgd", batchSize: 1, theta: { u: [2], w: [0.1] }, eta: 0.02, steps, seed });

const worker = new URL("./unruly-worker.js", import.meta.url);
const [mood] = process.argv.slice(2);
if (mood === "pool") {
  const pool = createPool({ workers: 2 });
  await pool.simulateMany([of("a"), of("b"), of("c")]);
  await pool.dispose();
} else if (mood === "abort") {
  const abort = new AbortController();
  const many = simulateMany([of("a", 1e9), of("b", 1e9)], {
    workers: 2,
    signal: abort.signal,
    onProgress: () => abort.abort(),
  });
  await many.catch((error: Error) => console.log(error.name));
} else if (mood !== undefined) {
  const { runs } = await simulateMany([of("a"), of(mood), of("b")], { workers: 1, worker });
  for (const end of runs)
    console.log(end.status === "done" ? "done" : `[${end.error.code}] ${end.error.message}`);
}
console.log("end");

/**
 * Many runs over worker threads, one Wasm instance each. Results stand where their tasks stand, with the bits that a single
 * thread gives, however many workers there are and whichever task ends first. A task that fails ends no other.
 *
 * SGD takes the charge C = (u^2 - w^2) / 2 of ell = (u w x - y)^2 away at a rate of 8 sigma2 per unit of time (example 01),
 * sigma2 = eta / (2 S), so after K steps
 *
 *   -ln C(K) / C(0) = 4 eta^2 K / S
 *
 * up to a relative O(eta): twice the batch, half the decay.
 *
 * Run it: npx jiti examples/10-many-runs.ts   (in your own project import from "noetherflow" and "noetherflow/parallel")
 */
import { createEngine, model, ops, type Run, symmetry } from "../src/index.ts";
import { createPool } from "../src/parallel.ts";

const net = model({
  params: { u: [1], w: [1] },
  inputs: { x: [1], y: [1] },
  loss: ({ u, w, x, y }) => ops.sqnorm(ops.sub(ops.mul(ops.mul(u, w), x), y)),
});
const engine = await createEngine();
const problem = engine.problem(net, { x: [1, 1, -1, -1], y: [2, 0, 0, -2] });
const eta = 0.005;
const steps = 20_000;
const replicas = 32;
const options = (batchSize: number) =>
  ({
    scheme: "sgd",
    batchSize,
    theta: { u: [1.5], w: [0.5] },
    eta,
    steps,
    replicas,
    seed: "many runs",
    record: { every: steps, charges: { C: symmetry.rescaling("u", "w") } },
  }) as const;

/** Mean over replicas of -ln C(K) / C(0). */
function decay(run: Run): number {
  const C = run.series.charges.C!;
  const logs = Array.from({ length: replicas }, (_, r) => -Math.log(C[replicas + r]! / C[r]!));
  return logs.reduce((a, b) => a + b) / replicas;
}

const pool = createPool({ workers: 2 });
let last = 0;
const sizes = [1, 2, 4, 8, 0]; // the last is a mistake
const { runs } = await pool.simulateMany(
  sizes.map((S) => ({ problem, options: options(S) })),
  { onProgress: ({ ended }) => (last = ended) },
);
const rows = runs.flatMap((end, i) =>
  end.status === "done"
    ? [{ S: sizes[i]!, measured: decay(end.run), predicted: (4 * eta * eta * steps) / sizes[i]! }]
    : [],
);
const mistakes = runs.flatMap((end) => (end.status === "failed" ? [end.error.message] : []));
console.log("    S   -ln C(K) / C(0)   predicted");
for (const { S, measured, predicted } of rows)
  console.log(
    `${String(S).padStart(5)}   ${measured.toFixed(4).padStart(15)}   ${predicted.toFixed(4).padStart(9)}`,
  );
console.log(`${last} of ${runs.length} tasks ended; failed: ${mistakes.join(" ")}`);

// one run, its replicas shared out between the workers
const together = await pool.simulateReplicas(problem, options(1));
const alone = await problem.simulate(options(1));
const isSame = together.hash === alone.hash && runs[0]?.status === "done" && runs[0].run.hash === alone.hash;
console.log(
  `the run with S = 1 in one thread, in a worker and over two workers: ${isSame ? "" : "NOT "}the same bits`,
);
await pool.dispose(); // without it the process does not end
engine.dispose();

/** What test/examples.test.ts checks. */
export const found = { eta, steps, replicas, rows, mistakes, last, isSame };

/**
 * A run whose state is some megabytes, so that a checkpoint takes time, in a folder; started as a program it begins or goes
 * on, with a checkpoint whenever the run yields. test/helpers/kills.ts ends it.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { createEngine, type Engine, model, ops, type Problem } from "../../src/index.ts";
import { recordRun, resumeRun } from "../../src/records/records.ts";

const SIZE = 360;
const N = 64;

export function open(engine: Engine): { problem: Problem; options: Parameters<Problem["simulate"]>[0] } {
  const net = model({
    params: { W: [SIZE, SIZE] },
    inputs: { x: [SIZE], y: [SIZE] },
    loss: ({ W, x, y }) => ops.sqnorm(ops.sub(ops.matmul(W, x), y)),
  });
  const numbers = (seed: number) =>
    Float64Array.from({ length: SIZE * N }, (_, i) => ((i * seed) % 1009) / 1009 - 0.5);
  const problem = engine.problem(net, { x: numbers(7), y: numbers(11) });
  const options = {
    scheme: "sgd",
    theta: problem.init("glorot", { seed: "kills" }),
    eta: 1e-3,
    momentum: 0.5,
    batchSize: 2,
    steps: 150,
    seed: "kills",
    record: { every: 5, loss: "batch", blockNorms: true },
  } as const;
  return { problem, options };
}

/** Begins the run in a folder or goes on with it, and prints its hash; a dot on the way says that it is running. */
async function main(dir: string): Promise<void> {
  const engine = await createEngine();
  let isSaid = false;
  const onProgress = () => {
    if (!isSaid) process.stdout.write(".");
    isSaid = true;
  };
  const control = { checkpointEvery: 0, onProgress };
  const begun = existsSync(join(dir, "run.json"));
  const { problem, options } = open(engine);
  const run = begun
    ? await resumeRun(dir, { ...control, engine })
    : await recordRun(problem, options, { ...control, dir });
  process.stdout.write(`${run.hash}\n`);
}

if (process.argv[2] !== undefined && import.meta.url.endsWith("/killed-run.mjs")) await main(process.argv[2]);

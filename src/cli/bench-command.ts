/** How fast this machine is: a few runs of well-known sizes, through the public interface. */
import type { Command } from "commander";
import { createEngine } from "../create.ts";
import type { Engine } from "../engine.ts";
import { model } from "../graph/model.ts";
import { ops } from "../graph/ops.ts";
import { count } from "./options.ts";
import { table } from "./output.ts";
import type { Start } from "./program.ts";

interface Job {
  readonly name: string;
  /** Samples that one step of one replica goes through. */
  readonly samples: number;
  readonly replicas: number;
  run(steps: number): Promise<unknown>;
}

/** Two-layer linear nets of d units with N = 2048 samples, and 256 runs of a product of two numbers. */
function jobsOn(engine: Engine): Job[] {
  const wave = (n: number, turn: number) =>
    Float64Array.from({ length: n }, (_, i) => 2 * ((i * turn) % 1) - 1);
  const linear = (d: number) => {
    const net = model({
      params: { W: [d, d], U: [d, d] },
      inputs: { x: [d], y: [d] },
      loss: ({ W, U, x, y }) => ops.sqnorm(ops.sub(ops.matmul(U, ops.matmul(W, x)), y)),
    });
    const problem = engine.problem(net, { x: wave(2048 * d, 0.6180339887), y: wave(2048 * d, 0.7548776662) });
    return { problem, theta: problem.init("lecun", { seed: "bench" }) };
  };
  const small = linear(16);
  const large = linear(64);
  const sgd = (name: string, { problem, theta }: ReturnType<typeof linear>, S: number): Job => ({
    name,
    samples: S,
    replicas: 1,
    run: (steps) => problem.simulate({ scheme: "sgd", theta, eta: 1e-3, batchSize: S, steps }),
  });
  const net = model({
    params: { u: [], w: [] },
    inputs: { x: [], y: [] },
    loss: ({ u, w, x, y }) => ops.square(ops.sub(ops.mul(ops.mul(u, w), x), y)),
  });
  const product = engine.problem(net, { x: wave(2048, 0.6180339887), y: wave(2048, 0.7548776662) });
  return [
    sgd("SGD, linear net d = 16, S = 8", small, 8),
    sgd("SGD, linear net d = 64, S = 32", large, 32),
    {
      name: "SDE, linear net d = 16, N = 2048",
      samples: 2048,
      replicas: 1,
      run: (steps) =>
        small.problem.simulate({ scheme: "sde", theta: small.theta, eta: 1e-3, batchSize: 8, steps }),
    },
    {
      name: "SGD, 256 runs of (u w x - y)^2, S = 1",
      samples: 1,
      replicas: 256,
      run: (steps) =>
        product.simulate({ scheme: "sgd", theta: [1, 0.5], eta: 0.01, batchSize: 1, steps, replicas: 256 }),
    },
  ];
}

export function addBenchCommand(program: Command, start: Start): void {
  program
    .command("bench")
    .description("steps per second of a few runs on this machine")
    .option("--rounds <n>", "samples of each, of which the median counts", count, 5)
    .option("--json", "as data")
    .action(async ({ rounds, json }: { rounds: number; json?: boolean }) => {
      const { output, signal } = start(json ?? false);
      const engine = await createEngine();
      const jobs = jobsOn(engine);
      const found = [];
      for (const [i, { name, samples, replicas, run }] of jobs.entries()) {
        let steps = 64;
        const time = async () => {
          signal.throwIfAborted();
          const began = performance.now();
          await run(steps);
          return performance.now() - began;
        };
        for (let ms = await time(); ms < 150; ms = await time()) steps *= 2;
        const times: number[] = [];
        for (let r = 0; r < rounds; r++) {
          output.progress({ fraction: (i + r / rounds) / jobs.length, what: name });
          times.push(await time());
        }
        const perSecond = (1000 * steps * replicas) / times.sort((a, b) => a - b)[rounds >> 1]!;
        found.push({
          job: name,
          stepsPerSecond: Math.round(perSecond),
          samplesPerSecond: Math.round(perSecond * samples),
        });
      }
      engine.dispose();
      const words = (x: number) => x.toLocaleString("en-US");
      if (json)
        output.data({
          node: process.versions.node,
          platform: `${process.platform} ${process.arch}`,
          rounds,
          jobs: found,
        });
      else
        output.print(
          table(
            ["run", "steps/s", "samples/s"],
            found.map((f) => [f.job, words(f.stepsPerSecond), words(f.samplesPerSecond)]),
          ),
        );
    });
}

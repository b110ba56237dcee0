/**
 * A process of its own that measures and trains on samples made as they are read, and prints its memory beside the plan:
 *
 *   node --expose-gc node_modules/jiti/lib/jiti-cli.mjs test/helpers/streamed-run.ts <MiB>
 */
import { createEngine, models, type Room, symmetry } from "../../src/index.ts";

const mebibytes = Number(process.argv[2] ?? 128);
/** What the engine itself and its compiled code take more or less of is little beside this. */
const bufferBytes = 32 * 1024 * 1024;
/** 1 KiB a sample in f64. */
const dx = 127;
const N = mebibytes * 1024;
const net = models.twoLayerLinear({ dx, h: 8, dy: 1 });
const A = symmetry.rescaling("U", "W");

let values = 0;
let peak = 0;
const look = (): void => {
  peak = Math.max(peak, process.memoryUsage().rss);
};

/** Sample n is the same whenever it is read: multiples of an odd number, modulo 2^32. */
function read(start: number, count: number, { x, y }: Room) {
  let word = Math.imul(start * (dx + 1), 2654435761);
  for (let n = 0, at = 0; n < count; n++) {
    for (let e = 0; e < dx; e++) {
      x![at++] = word / 2147483648;
      word = (word + 2654435761) | 0;
    }
    y![n] = word / 2147483648;
    word = (word + 2654435761) | 0;
  }
  values += count * (dx + 1);
  look();
  return { x: x!, y: y! };
}

const collect = (globalThis as { gc?: () => void }).gc!;
const engine = await createEngine();
const theta = engine.problem(net, { N: 1, read }).init("glorot", { seed: 1 });
const gd = {
  scheme: "gd",
  theta,
  eta: 0.01,
  steps: 2,
  record: { every: 1, loss: "full", charges: { C: A } },
} as const;
const sgd = { scheme: "sgd", theta, eta: 0.01, batchSize: 32, steps: 2000 } as const;
const timed = async <T>(work: () => Promise<T>): Promise<[T, number]> => {
  const began = performance.now();
  const result = await work();
  look();
  return [result, performance.now() - began];
};
/** Everything once, the code of all of it compiled. */
const all = async (count: number) => {
  const problem = engine.problem(net, { N: count, read, bufferBytes });
  const wasm = engine.core.memory.buffer.byteLength;
  const [loss, lossMs] = await timed(() => problem.loss(theta));
  const [, gradientMs] = await timed(() => problem.gradient(theta));
  const [noise, noiseMs] = await timed(() => problem.noiseTrace(theta));
  const [descent, gdMs] = await timed(() => problem.simulate(gd));
  const [minibatches, sgdMs] = await timed(() => problem.simulate(sgd));
  const measured = ["loss", "gradient", "noiseTrace"] as const;
  const passes = measured.map((what) => problem.memory(what));
  const runs = [problem.memory(gd), problem.memory(sgd)];
  // one run at a time, beside the passes of all measurements
  const host = Math.max(...[...passes, ...runs].map((plan) => plan.host));
  const run = Math.max(...runs.map((plan) => plan.bytes - plan.host - plan.data));
  const planned = passes[0]!.data + passes.reduce((n, plan) => n + plan.values, 0) + run;
  problem.dispose();
  return {
    numbers: { loss, noise: noise.value, gd: descent.hash, sgd: minibatches.hash },
    ms: { loss: lossMs, gradient: gradientMs, noise: noiseMs, gd: gdMs, sgd: sgdMs },
    planned: { wasm: planned, host },
    grown: engine.core.memory.buffer.byteLength - wasm,
  };
};
await all(2000);
collect();
const before = process.memoryUsage().rss;
const heldBefore = engine.core.memory.buffer.byteLength;
[values, peak] = [0, 0];
const result = await all(N);
const { planned, numbers, ms } = result;
console.log(
  JSON.stringify({
    bytes: 8 * N * (dx + 1),
    read: 8 * values,
    planned,
    // what the warm-up has grown is used again
    wasm: engine.core.memory.buffer.byteLength,
    heldBefore,
    rss: { before, peak, growth: peak - before },
    numbers,
    ms,
  }),
);

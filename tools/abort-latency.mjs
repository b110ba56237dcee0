// `node tools/abort-latency.mjs [count]`: aborts runs at random times, 1,000 if no other number is given, and prints how long each took
// to be heard: from controller.abort() to the rejection, memory given back. Exit code 1 if the 95th percentile is above max(50 ms, two
// chunks of 10 ms).
import { refreshLibrary } from "./build.mjs";

refreshLibrary();
const { createEngine, model, ops } = await import("../dist/index.js");

const LIMIT_MS = Math.max(50, 2 * 10);
const count = Number(process.argv[2] ?? 1000);
let state = 20240217;
const random = () => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return state / 2 ** 32;
};

const engine = await createEngine();
const tanh = (size) =>
  model({
    params: { W: [size, size] },
    inputs: { x: [size] },
    loss: ({ W, x }) => ops.sqnorm(ops.sub(ops.tanh(ops.matmul(W, x)), x)),
  });
const open = (size, N) =>
  engine.problem(tanh(size), { x: Float64Array.from({ length: size * N }, (_, i) => Math.sin(i)) });
const wide = open(64, 20_000);
const narrow = open(3, 50);
const theta = (size) => Float64Array.from({ length: size * size }, (_, i) => 0.1 * Math.cos(i));
const kinds = {
  "sgd, steps of a microsecond": {
    problem: narrow,
    options: { scheme: "sgd", theta: theta(3), eta: 0.01, batchSize: 4 },
  },
  "sgd, 64 replicas, recorded": {
    problem: narrow,
    options: {
      scheme: "sgd",
      theta: theta(3),
      eta: 0.01,
      batchSize: 4,
      replicas: 64,
      record: { every: 1000, loss: "full" },
    },
  },
  "sde, 20,000 samples": {
    problem: wide,
    options: { scheme: "sde", theta: theta(64), eta: 0.001, batchSize: 4 },
  },
  "gd, a step of 30 ms": { problem: wide, options: { scheme: "gd", theta: theta(64), eta: 0.001 } },
  "flow, one step without an end": {
    problem: narrow,
    options: { scheme: "flow", theta: theta(3), eta: 1e9, atol: 1e-14, rtol: 1e-14 },
  },
};

const heard = new Map(Object.keys(kinds).map((name) => [name, []]));
const before = engine.bytesInUse;
for (let i = 0; i < count; i++) {
  const [name, { problem, options }] = Object.entries(kinds)[i % heard.size];
  const controller = new AbortController();
  let aborted = Number.NaN;
  setTimeout(() => {
    aborted = performance.now();
    controller.abort();
  }, 60 * random());
  const steps = options.record ? 100_000_000 : 4_000_000_000;
  await problem.simulate({ ...options, steps, signal: controller.signal }).catch((error) => {
    if (error.name !== "AbortError") throw error;
  });
  if (engine.bytesInUse !== before) throw new Error(`${name}: memory was not given back`);
  heard.get(name).push(performance.now() - aborted);
}

const row = (name, times) => {
  const sorted = times.sort((a, b) => a - b);
  const at = (share) => sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1)];
  const words = [0.5, 0.95, 0.99, 1].map((share) => at(share).toFixed(1).padStart(8));
  console.log(`${name.padEnd(32)}${String(times.length).padStart(6)}${words.join("")}`);
  return at(0.95);
};
console.log(
  `${"ms until an abort is heard".padEnd(32)}${["n", "median", "95 %", "99 %", "most"].map((w, i) => w.padStart(i === 0 ? 6 : 8)).join("")}`,
);
for (const [name, times] of heard) row(name, times);
const worst = row("all", [...heard.values()].flat());
if (!(worst <= LIMIT_MS)) process.exitCode = 1;

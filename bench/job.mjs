// Measures one job in this process and prints one line of JSON; bench/run.mjs starts it. Argument: JSON with the name of the
// job, the number of rounds, the prototypes' folder or null, and whether to profile.
import { fork } from "node:child_process";
import { readFileSync } from "node:fs";
import { setTimeout as pause } from "node:timers/promises";
import { Bench } from "tinybench";
import * as noetherflow from "../dist/index.js";
import { jobs, N } from "./jobs.mjs";
import { checkMeasure, prepareMeasure } from "./measures.mjs";
import { nets, uniforms } from "./nets.mjs";
import { checksum, programs } from "./plain.mjs";
import { loadPrototypes, prototypeRankOne, prototypeSde, prototypeTwoLayer } from "./prototypes.mjs";

const { name, rounds, prototypes: folder, profile } = JSON.parse(process.argv[2]);
const job = jobs.find((j) => j.name === name);
const engine = await noetherflow.createEngine();
const prototypes = folder === null ? null : await loadPrototypes(folder);

const context = { engine, noetherflow, prototypes };

/** Steps of the comparison of both sides. */
const CHECK_STEPS = 10;
/** Largest difference of any entry of theta, relative to the largest entry. Orders of summation differ between sides. */
const CHECK_TOLERANCE = 1e-12;
/** Enough for a block of every prototype. */
const EQUAL_SAMPLES = 32;
const WARM_UP_RUNS = 3;
const SEED = "bench";

const net = (side) => nets[side.net](side.sizes);

/** The options of a run of noetherflow. */
const options = ({ S, scheme = "sgd", replicas = 1 }, { theta, eta }, steps) => ({
  scheme,
  theta,
  eta,
  ...(scheme === "gd" ? {} : { batchSize: S }),
  steps,
  replicas,
  seed: SEED,
});

/** One start for all replicas, or one per replica. */
const spread = (value, R) => new Float64Array(R).fill(value);

const children = [];

/**
 * A side, ready to run: `run()` does one sample's steps and returns a checksum. A side in a process of its own has `remote()`
 * instead, which also measures.
 */
function prepare(side) {
  if (job.measures) return prepareMeasure(context, side);
  const built = net(side);
  const data = built.data(N);
  if (side.kind === "ours") {
    const problem = engine.problem(built.build(noetherflow), data);
    const simulate = async (more = {}) => {
      const run = await problem.simulate({ ...options(side, built, side.steps), ...more });
      if (run.status !== "done") throw new Error(`${name}: the run ${run.status}; choose a smaller eta`);
      return run;
    };
    return { run: async () => (await simulate()).hash, simulate };
  }
  // the other sides have the loss with a factor 1/2, hence twice the step size
  const eta = 2 * built.eta;
  if (side.kind in programs) {
    // a process of its own: V8 checks every access to a typed array once some buffer was detached, as by a memory that grows
    const child = fork(new URL("plain-process.mjs", import.meta.url), [JSON.stringify({ ...side, N })]);
    children.push(child);
    return {
      remote: () =>
        new Promise((resolve, reject) => {
          const ended = (code) => reject(new Error(`plain JavaScript ended with code ${code}`));
          child.once("exit", ended);
          child.once("message", (answer) => {
            child.off("exit", ended);
            resolve(answer);
          });
          child.send({ steps: side.steps, eta });
        }),
    };
  }
  if (side.net === "rankOne") {
    const { u, w } = built.theta;
    const theta = { u: spread(u, side.replicas), w: spread(w, side.replicas) };
    const prototype = prototypeRankOne(prototypes, data, theta);
    return {
      run: () => {
        prototype.reset();
        prototype.run(side.steps, eta);
        return checksum(prototype.theta());
      },
    };
  }
  const prototype = prototypeOf(side, data, built.theta);
  return {
    run: () => {
      prototype.run(side.steps, eta);
      return checksum(prototype.theta());
    },
  };
}

/** The prototype of a two-layer linear net: SGD, or the SDE. */
function prototypeOf({ scheme, sizes, S }, data, theta) {
  const make = scheme === "sde" ? prototypeSde : prototypeTwoLayer;
  return make(prototypes, sizes[0], S, data, theta);
}

/** Largest difference of an entry, relative to the largest entry. */
function distance(actual, expected) {
  const a = Object.values(actual).flatMap((block) => [...block]);
  const b = Object.values(expected).flatMap((block) => [...block]);
  const scale = Math.max(...b.map(Math.abs));
  return Math.max(...b.map((value, i) => Math.abs(value - a[i]))) / scale;
}

/** The final theta of a run of one replica, by blocks in the order of the model. */
function blocksOf(run, theta) {
  let offset = 0;
  const blocks = {};
  for (const [block, values] of Object.entries(theta)) {
    blocks[block] = run.theta.slice(offset, offset + values.length);
    offset += values.length;
  }
  return blocks;
}

/**
 * Do both sides compute the same? Plain JavaScript and noetherflow take the same batches of real data. A prototype draws its
 * own, so the data are copies of one sample there, for which every batch is the same.
 */
async function check(label, side) {
  const ours = job.sides.ours;
  const built = net(ours);
  const eta = 2 * built.eta;
  let difference;
  let on = `${EQUAL_SAMPLES} equal samples`;
  if (side.kind in programs) {
    on = "the same batches";
    const data = built.data(N);
    const uniform = uniforms(3);
    const batches = Uint32Array.from({ length: CHECK_STEPS * side.S }, () => Math.floor(uniform() * N));
    const plain = programs[side.kind](side.sizes, side.S, data, built.theta);
    plain.runOn(batches, eta);
    const problem = engine.problem(built.build(noetherflow), data);
    const run = await problem.simulate({ ...options(ours, built, CHECK_STEPS), batches });
    problem.dispose();
    difference = distance(blocksOf(run, built.theta), plain.theta());
  } else {
    const one = built.data(1);
    const data = { x: repeat(one.x, EQUAL_SAMPLES), y: repeat(one.y, EQUAL_SAMPLES) };
    const problem = engine.problem(built.build(noetherflow), data);
    if (side.net === "rankOne") {
      const R = side.replicas;
      const theta = { u: new Float64Array(R), w: new Float64Array(R) };
      for (let r = 0; r < R; r++) {
        theta.u[r] = 0.5 + r / R;
        theta.w[r] = 1.2 - r / R;
      }
      const starts = Array.from(theta.u, (u, r) => ({ u, w: theta.w[r] }));
      const run = await problem.simulate({ ...options(ours, built, CHECK_STEPS), theta: starts });
      const prototype = prototypeRankOne(prototypes, data, theta);
      prototype.run(CHECK_STEPS, eta);
      const even = run.theta.filter((_, i) => i % 2 === 0);
      const odd = run.theta.filter((_, i) => i % 2 === 1);
      difference = distance({ u: even, w: odd }, prototype.theta());
    } else {
      const run = await problem.simulate(options(ours, built, CHECK_STEPS));
      const prototype = prototypeOf(side, data, built.theta);
      prototype.run(CHECK_STEPS, eta);
      difference = distance(blocksOf(run, built.theta), prototype.theta());
    }
    problem.dispose();
  }
  // see prototypeTwoLayer
  const comparable = !(side.kind === "prototype" && side.S === 1 && side.net === "twoLayer");
  return {
    side: label,
    on,
    steps: CHECK_STEPS,
    difference,
    tolerance: CHECK_TOLERANCE,
    comparable,
    ok: !comparable || difference <= CHECK_TOLERANCE,
  };
}

function repeat(values, times) {
  const out = new Float64Array(values.length * times);
  for (let i = 0; i < times; i++) out.set(values, i * values.length);
  return out;
}

const wallNow = performance.now;
const cpuNow = () => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
};

/** A profile of the step, timed by the CPU time of this process: it takes 3 ms per line, and neighbours take more at once. */
async function profileOf({ simulate }) {
  performance.now = cpuNow;
  try {
    return (await simulate({ steps: 1000, profile: true })).profile;
  } finally {
    performance.now = wallNow;
  }
}

/** The Wasm peak: one sample is 2e7 rounds of twelve chains. */
async function loadPeak() {
  const file = new URL("../build/bench-peak.wasm", import.meta.url);
  const { instance } = await WebAssembly.instantiate(readFileSync(file));
  const { peak } = instance.exports;
  for (let i = 0; i < 200; i++) peak(2000, 0.999, 1e-3);
  const count = 20_000_000;
  return { flops: 48 * count, run: () => String(peak(count, 0.999, 1e-3)) };
}

const sides = Object.entries(job.sides).filter(([, side]) => side.kind !== "prototype" || prototypes);
const ready = new Map(sides.map(([label, side]) => [label, prepare(side)]));
const peak = job.peak ? await loadPeak() : null;
const timed = new Map(ready);
if (peak) timed.set("peak", peak);

// V8 compiles hot functions anew in the background, and a call that is under way does not profit
for (let i = 0; i < WARM_UP_RUNS; i++) {
  for (const { run, remote } of timed.values()) await (run ?? remote)();
  await pause(30);
}

const samples = Object.fromEntries(
  [...timed.keys()].map((label) => [label, { ms: [], cpuMs: [], checksums: [] }]),
);
const note = (label, cpuMs, value) => {
  samples[label].cpuMs.push(cpuMs);
  samples[label].checksums.push(value);
};
const profiles = {};
const labels = [...timed.keys()];
for (let round = 0; round < rounds; round++) {
  const bench = new Bench({ iterations: 1, time: 0, warmup: false, retainSamples: true, throws: true });
  for (const label of round % 2 === 0 ? labels : labels.toReversed()) {
    const { run, remote } = timed.get(label);
    const local = async () => {
      const before = process.cpuUsage();
      const value = await run();
      const { user, system } = process.cpuUsage(before);
      note(label, (user + system) / 1000, value);
    };
    const elsewhere = async () => {
      const { ms, cpuMs, checksum } = await remote();
      note(label, cpuMs, checksum);
      return { overriddenDuration: ms };
    };
    bench.add(label, run ? local : elsewhere, { async: true });
  }
  for (const task of await bench.run()) samples[task.name].ms.push(task.result.latency.samples[0]);
  for (const [label, side] of sides) {
    if (side.kind === "ours" && !job.measures && (side.profile || profile))
      (profiles[label] ??= []).push(await profileOf(ready.get(label)));
  }
}

for (const child of children) child.disconnect();

const checks = [];
for (const [label, side] of sides) {
  if (side.kind === "ours") continue;
  checks.push(await (job.measures ? checkMeasure(context, label, side) : check(label, side)));
}

const { dtype, variant, wasmSha256 } = engine;
console.log(
  JSON.stringify({
    sides: Object.fromEntries(
      sides.map(([label, side]) => {
        const { checksums, ...times } = samples[label];
        const replicas = side.replicas ?? 1;
        const flops = job.measures ? 0 : side.S * net(side).flopsPerSample * replicas;
        // the same seed gives the same run in every round
        const repeats = side.kind !== "ours" || checksums.every((sum) => sum === checksums[0]);
        return [
          label,
          {
            ...times,
            steps: side.steps,
            replicas,
            flops,
            repeats,
            checksum: checksums.at(-1),
            profiles: profiles[label],
          },
        ];
      }),
    ),
    peak: peak ? { ms: samples.peak.ms, cpuMs: samples.peak.cpuMs, flops: peak.flops } : null,
    checks,
    prototypeSha256: prototypes?.sha256 ?? null,
    core: { dtype, variant, sha256: wasmSha256 },
  }),
);

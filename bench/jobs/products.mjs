// The kernels of products, as a share of what one core can do from Wasm, measured in the same rounds of the same process.
//
//   matmul   f = A x of 64 samples, A of m x k, under gradient descent: the product instructions of a step, forward and for the
//            gradient, timed by `simulate({ profile: true })`
//   rank-k   Sigma of P parameters from 2048 samples, g_n = x_n: whole calls of `noiseCovariance`, P (P + 1) N operations
import { readFileSync } from "node:fs";
import { filled, nets, normals } from "../nets.mjs";
import { engineOf, finished, jobOf, noetherflow } from "../ours.mjs";
import { median } from "../statistics.mjs";

const SIZES = [8, 16, 32, 64, 128, 256];
const SAMPLES = 64;
const PARAMETERS = [300, 1000];
const RANK = 2048;
const PEAK_ROUNDS = 3_000_000;
/** A sample is as many calls as take this long. */
const COVARIANCE_MS = 60;

export const jobs = ["f64", "f32"].map((dtype) =>
  jobOf(import.meta.url, {
    name: `products${dtype === "f32" ? "-f32" : ""}`,
    family: "products",
    title: "products, as a share of the Wasm peak",
    unit: "round of all",
    dtype,
    once: true,
    unchecked: true,
    rounds: 3,
    params: {},
  }),
);

const wallNow = performance.now;
const cpuNow = () => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
};

/** GFLOP/s of the better of two loops that do nothing but multiply and add. */
async function peakOf(dtype, variant) {
  const file = new URL(`../../build/bench-peak-${variant}.wasm`, import.meta.url);
  const { instance } = await WebAssembly.instantiate(readFileSync(file));
  const { chains64, chains32, tile64, tile32 } = instance.exports;
  const [lanes, chains, tile] = dtype === "f64" ? [2, chains64, tile64] : [4, chains32, tile32];
  for (let i = 0; i < 200; i++) for (const loop of [chains, tile]) loop(2000, 0.999, 1e-3);
  const rateOf = (loop, flops, rounds) => {
    const began = cpuNow();
    if (!Number.isFinite(loop(rounds, 0.999, 1e-3))) throw new Error("the peak's sum is not finite");
    return (flops * lanes * rounds) / (1e6 * (cpuNow() - began));
  };
  // the best of two of each: background compilation takes from single ones
  const both = () => [rateOf(chains, 24, PEAK_ROUNDS), rateOf(tile, 16, PEAK_ROUNDS)];
  return () => Math.max(...both(), ...both());
}

/** Operations of a product instruction, 2 m n k, from its name in a profile; 0 for other instructions. */
function flopsOf({ instruction, perStep }) {
  const sizes = /^matmul\w* \(m (\d+), n (\d+), k (\d+)\)$/.exec(instruction);
  return sizes === null ? 0 : perStep * 2 * sizes[1] * sizes[2] * sizes[3];
}

/** GFLOP/s of the products in a step of A x. */
function matmulRate(engine, m, k) {
  const net = nets.oneLayer([k, m]);
  const problem = engine.problem(net.build(noetherflow), net.data(SAMPLES));
  return async () => {
    // a profile times by the wall clock, and neighbours take more of that at once
    performance.now = cpuNow;
    try {
      const options = { scheme: "gd", theta: net.theta, eta: 1e-6, steps: 20, profile: true };
      const { profile } = await finished(problem.simulate(options));
      const products = profile.filter((line) => flopsOf(line) > 0);
      const flops = products.reduce((sum, line) => sum + flopsOf(line), 0);
      if (flops !== 4 * m * k * SAMPLES)
        throw new Error(`the profile names products of ${flops} operations, not of ${4 * m * k * SAMPLES}`);
      return flops / products.reduce((sum, line) => sum + line.perStep * line.ns, 0);
    } finally {
      performance.now = wallNow;
    }
  };
}

/** GFLOP/s of Sigma, and its check: entries against sums over the data. */
function covarianceRate(engine, P, tolerance) {
  const { model, ops } = noetherflow;
  const net = model({
    params: { a: [P] },
    inputs: { x: [P] },
    loss: ({ a, x }) => ops.matmul(a, x),
  });
  const x = filled(RANK * P, normals(15));
  const problem = engine.problem(net, { x });
  const theta = new Float64Array(P);
  const mean = (f) => filled(RANK, (_, n) => f(n)).reduce((sum, value) => sum + value, 0) / RANK;
  const check = (Sigma) => {
    for (const [i, j] of [
      [0, 0],
      [5, 3],
      [P - 1, P >> 1],
    ]) {
      const [xi, xj] = [i, j].map((c) => mean((n) => x[n * P + c]));
      const exact = mean((n) => (x[n * P + i] - xi) * (x[n * P + j] - xj));
      if (!(Math.abs(Sigma[i * P + j] - exact) <= tolerance))
        throw new Error(`Sigma[${i}, ${j}] of P = ${P} is ${Sigma[i * P + j]}, not ${exact}`);
    }
  };
  let isChecked = false;
  return async () => {
    const began = cpuNow();
    let calls = 0;
    let Sigma;
    do {
      Sigma = await problem.noiseCovariance(theta);
      calls++;
    } while (cpuNow() - began < COVARIANCE_MS);
    const rate = (calls * P * (P + 1) * RANK) / (1e6 * (cpuNow() - began));
    if (!isChecked) check(Sigma);
    isChecked = true;
    return rate;
  };
}

export const sides = {
  async ours({ job, side }) {
    const engine = await engineOf(job, side.variant);
    const peak = await peakOf(job.dtype, side.variant);
    const rates = {};
    for (const m of SIZES) for (const k of SIZES) rates[`matmul ${m} x ${k}`] = matmulRate(engine, m, k);
    for (const P of PARAMETERS) rates[`rank-k ${P}`] = covarianceRate(engine, P, job.tolerance);
    // the clock of a core changes with what its neighbours do: every product stands between two peaks of its own
    const round = async () => {
      const peaks = [peak()];
      const shares = {};
      for (const [name, rate] of Object.entries(rates)) {
        const reached = await rate();
        peaks.push(peak());
        shares[name] = (2 * reached) / (peaks.at(-2) + peaks.at(-1));
      }
      return { peak: median(peaks), ...shares };
    };
    // V8 compiles kernels anew in the background
    await round();
    return { run: async () => ({ checksum: "", rates: await round() }) };
  },
};

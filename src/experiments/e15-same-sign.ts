import { exp, log } from "../core/elementary.ts";
import type { Run } from "../dynamics/result.ts";
import { type Model, model } from "../graph/model.ts";
import { ops } from "../graph/ops.ts";
import { type Sampler, sampler } from "../graph/sampler.ts";
import { momentMatched } from "../models/moment-matched.ts";
import { exact } from "../stats/estimate.ts";
import { symmetry } from "../symmetry/generator.ts";
import type { Curve, Experiment } from "./experiment.ts";
import {
  aligned,
  haveOneSign,
  lawOfProduct,
  type Path,
  ratioOf,
  type Start,
  startOf,
} from "./one-dimensional.ts";
import type { Parameter } from "./spec.ts";
import { at, overReplicas, Trial } from "./trial.ts";

const parameters = {
  h: { value: 10, min: 3, max: 40, integer: true, what: "hidden neurons" },
  initSd: {
    value: 0.6,
    min: 0.3,
    max: 1.2,
    unit: "theta",
    what: "standard deviation of the initial u and w",
  },
  slope: { value: 1, min: 0.4, max: 1.6, what: "teacher: y = slope x + noise" },
  xSd: { value: 1, min: 0.5, max: 2, what: "standard deviation of x" },
  noiseSd: { value: 0.8, min: 0.4, max: 1.6, what: "standard deviation of the label noise" },
  rate: {
    value: 0.072,
    min: 0.025,
    max: 0.1,
    what: "eta Var(x) times the largest of |u|^2 + |w|^2 at the start and at the end, and noise / slope: what neglected terms grow with",
  },
  batch: { value: 1, min: 1, max: 4, integer: true, what: "batch size of SGD" },
  steps: { value: 12_000, min: 3000, max: 48_000, integer: true, what: "steps of both" },
  replicas: { value: 256, min: 16, max: 4096, integer: true, what: "independent starts" },
} satisfies Record<string, Parameter>;

type Spec = { [K in keyof typeof parameters]: number };

/** Beyond this decay u and w are so near to each other that their difference is rounding. */
const READABLE = 12;
/** 2^-53. */
const ROUNDING = Number.EPSILON / 2;

/** y = slope x + noise with Gaussian x: the data of E15. */
function teacher({ slope, xSd, noiseSd }: Spec): Sampler {
  return sampler({
    noise: { z: { kind: "normal", shape: [1] }, eps: { kind: "normal", shape: [1] } },
    outputs: ({ z, eps }) => ({
      x: ops.scale(z!, xSd),
      y: ops.add(ops.scale(z!, slope * xSd), ops.scale(eps!, noiseSd)),
    }),
  });
}

/** ell = (sum_j u_j w_j x - y)^2. */
function oneDimensional(h: number): Model {
  return model({
    params: { u: [h], w: [h] },
    inputs: { x: [1], y: [1] },
    loss: ({ u, w, x, y }) => ops.sqnorm(ops.sub(ops.mul(ops.sum(ops.mul(u, w)), x), y)),
  });
}

const mean = (count: number, f: (r: number) => number): number => {
  let sum = 0;
  for (let r = 0; r < count; r++) sum += f(r);
  return sum / count;
};

export const sameSign: Experiment = {
  id: "E15",
  title: "Proposition 1 in one dimension: SGD gives all neurons one sign",
  question:
    "The sum of h neurons u_j w_j x can fit a line with neurons that work against each other. Does the noise of SGD make them all " +
    "work in one direction, and how long does that take?",
  source: "Ziyin et al., arXiv:2402.07193, Proposition 1 and what follows for d = 1",
  claim:
    "Under SGD u u^T - w w^T decays to 0, so u = w or u = -w and all outputs u_j w_j share a sign; gradient descent on the population " +
    "stops with neurons of both signs.",
  formula: "Q(k) = Q(0) prod(1 − η²δ²),  Q = u uᵀ − w wᵀ,  δ = batch mean of dℓ/dv,  v = u·w",
  parameters,
  quick: { steps: 3000, replicas: 64 },

  async measure(engine, given, seed, control) {
    const spec = given as Spec;
    const { h, initSd, slope, xSd, noiseSd, rate, batch, steps, replicas } = spec;
    const largest = Math.max(2 * h * initSd * initSd, 2 * slope, (noiseSd * noiseSd) / (slope * xSd * xSd));
    const eta = rate / (largest * xSd * xSd);
    const net = oneDimensional(h);
    const data = teacher(spec);
    const [u, w] = [net.leaf("u"), net.leaf("w")];
    const values = {
      aa: ops.sqnorm(ops.add(u, w)),
      bb: ops.sqnorm(ops.sub(u, w)),
      outputs: ops.mul(u, w),
    };
    const trial = new Trial("E15", engine, seed, control, 5);
    const fresh = engine.problem(net, data);
    const theta = fresh.init("normal", { std: initSd, seed: trial.seedOf("init"), replicas });
    const common = {
      theta,
      eta,
      steps,
      replicas,
      record: {
        every: Math.max(1, Math.floor(steps / 150)),
        values,
        charges: { C: symmetry.rescaling("u", "w") },
      },
    };
    const sgd = await trial.run("SGD", fresh, { ...common, scheme: "sgd", batchSize: batch }, 4);
    fresh.dispose();
    const population = engine.problem(net, momentMatched(data));
    const gd = await trial.run("gradient descent", population, { ...common, scheme: "gd" });
    population.dispose();
    const starts = Array.from({ length: replicas }, (_, r) => startOf(theta, h, r));
    const v0 = starts.map(({ aa, bb }) => (aa - bb) / 4);
    const q0 = starts.map(({ aa, bb }) => Math.sqrt(aa * bb));
    const cases = [
      { name: `SGD, S = ${batch}`, run: sgd, S: batch },
      { name: "gradient descent", run: gd, S: Infinity },
    ];
    const [shares, left]: [Curve[], Curve[]] = [[], []];
    for (const { name, run, S } of cases) {
      const paths = starts.map((_, r) => lawOfProduct(spec, eta, S, v0[r]!, q0[r]!));
      compare(trial, name, run, starts, paths, q0);
      keepsDirections(trial, name, run, theta, h);
      draw(name, run, starts, paths, q0, shares, left);
    }
    trial.figure({
      title: "Runs in which all neurons have one sign",
      caption:
        "Share of the runs in which all neurons with more than 1 % of the largest output have one sign (solid), and the share that the " +
        "law of the product gives for the same starts (dashed).",
      xLabel: "step",
      yLabel: "share of runs",
      xScale: "linear",
      yScale: "linear",
      curves: shares,
    });
    trial.figure({
      title: "What is left of the charges",
      caption: "‖Q‖ / ‖Q(0)‖, Q = u uᵀ − w wᵀ, geometric mean over the runs (solid), and the law (dashed).",
      xLabel: "step",
      yLabel: "‖Q‖ / ‖Q(0)‖",
      xScale: "linear",
      yScale: "log",
      curves: left,
    });
    return trial.findings;
  },
};

/** -ln(|a| |b|) beyond its start, at a record. */
function decayAt(run: Run, record: number, r: number): number {
  const { aa, bb } = run.series.values as { aa: Float64Array; bb: Float64Array };
  const product = (i: number) => at(run, aa, i, r) * at(run, bb, i, r);
  return 0.5 * log(product(0) / product(record));
}

const outputsAt = (run: Run, record: number, r: number): ArrayLike<number> => {
  const { outputs } = run.series.values as { outputs: Float64Array };
  const h = run.P / 2;
  const i = record * run.replicas + r;
  return outputs.subarray(i * h, (i + 1) * h);
};

/** Three rows: how much of Q is left, how many runs have one sign, and the angle between u and w. */
function compare(
  trial: Trial,
  setting: string,
  run: Run,
  starts: readonly Start[],
  paths: readonly Path[],
  q0: readonly number[],
): void {
  const { replicas, steps } = run;
  const end = run.series.k.length - 1;
  const { k } = run.series;
  let record = 1;
  while (record < end && paths.every(({ decay }) => decay[k[record + 1]!]! <= READABLE)) record++;
  const step = k[record]!;
  const wanted = mean(replicas, (r) => paths[r]!.decay[step]!);
  const paired = overReplicas(run, (r) => decayAt(run, record, r) - paths[r]!.decay[step]!);
  const rounding = 16 * steps * ROUNDING;
  trial.row(
    { setting, quantity: `−ln ‖Q‖/‖Q(0)‖ at step ${step}, Q = u uᵀ − w wᵀ` },
    {
      value: wanted,
      modelError:
        mean(replicas, (r) => paths[r]!.neglected * (paths[r]!.decay[step]! / paths[r]!.decay[steps]!)) +
        rounding,
      neglects: "moments of v = u·w beyond the second, relative (η m + 4 Var v / m²)², m = |u|² + |w|²",
    },
    { ...paired, value: paired.value + wanted, method: `${paired.method}, each less its own prediction` },
  );
  // how far a run's ratio |b|²/|a|² may be from the mean path: twice its scatter, and the model error
  const doubt = (r: number) => 2 * (paths[r]!.neglected + rounding) + 4 * Math.sqrt(paths[r]!.scatter);
  const ends = starts.map((start, r) => {
    const t = ratioOf(q0[r]! * exp(-paths[r]!.decay[steps]!), paths[r]!.v[steps]!);
    const spread = exp(doubt(r));
    return [aligned(start, t), aligned(start, t / spread), aligned(start, t * spread)] as const;
  });
  const row = (quantity: string, key: "oneSign" | "cosine", f: (r: number) => number) => {
    const value = mean(replicas, (r) => ends[r]![0][key]);
    const beside = overReplicas(run, (r) => f(r) - ends[r]![0][key]);
    trial.row(
      { setting, quantity },
      {
        value,
        modelError: mean(replicas, (r) => Math.abs(ends[r]![2][key] - ends[r]![1][key])),
        neglects:
          "the scatter of single runs about the mean path: what twice its size in ln |b|²/|a|² would change",
      },
      { ...beside, value: beside.value + value, method: `${beside.method}, each less its own prediction` },
    );
  };
  row(`share of runs whose neurons have one sign at step ${steps}`, "oneSign", (r) =>
    haveOneSign(outputsAt(run, end, r)) ? 1 : 0,
  );
  const { aa, bb } = run.series.values as { aa: Float64Array; bb: Float64Array };
  row(`|cos(u, w)| at step ${steps}`, "cosine", (r) => {
    const [a, b] = [at(run, aa, end, r), at(run, bb, end, r)];
    const C = at(run, run.series.charges.C!, end, r);
    return Math.abs(a - b) / Math.sqrt((a + b) * (a + b) - 16 * C * C);
  });
}

/**
 * Two exact rows: u + w keeps its direction, and |Q| never grows. Every entry of a = u + w is rounded with u and w, at most three times
 * each a step, relative to the larger of them.
 */
function keepsDirections(trial: Trial, setting: string, run: Run, theta: ArrayLike<number>, h: number): void {
  const { aa, bb } = run.series.values as { aa: Float64Array; bb: Float64Array };
  const { replicas, steps } = run;
  let [turned, grew, allowed] = [0, 0, 0];
  const records = run.series.k.length;
  for (let r = 0; r < replicas; r++) {
    let [cross, first, last, largest] = [0, 0, 0, 0];
    for (let j = 0; j < h; j++) {
      const [a, b] = [r * 2 * h + j, r * 2 * h + h + j];
      const [from, to] = [theta[a]! + theta[b]!, run.theta[a]! + run.theta[b]!];
      cross += from * to;
      first += from * from;
      last += to * to;
    }
    let away = 0;
    for (let j = 0; j < h; j++) {
      const [a, b] = [r * 2 * h + j, r * 2 * h + h + j];
      const off = run.theta[a]! + run.theta[b]! - (cross / first) * (theta[a]! + theta[b]!);
      away += off * off;
    }
    for (let i = 0; i < records; i++) {
      const [a, b] = [at(run, aa, i, r), at(run, bb, i, r)];
      largest = Math.max(largest, Math.sqrt((a + b) / a));
      if (i === 0) continue;
      const before = at(run, aa, i - 1, r) * at(run, bb, i - 1, r);
      // b is a difference of u and w, which carry roundings of their own size
      const fuzz = 16 * steps * ROUNDING * (a + b) * Math.sqrt(before);
      if (a * b > before + fuzz) grew++;
    }
    turned = Math.max(turned, Math.sqrt(away / last));
    allowed = Math.max(allowed, 6 * steps * ROUNDING * largest);
  }
  trial.row(
    { setting, quantity: "largest turn of u + w over all runs, in radians" },
    {
      value: 0,
      modelError: allowed,
      neglects: "rounding: 6 roundings of 2⁻⁵³ an entry and step, relative to |θ| / |u + w|",
    },
    exact(turned, replicas),
  );
  trial.never({ setting, quantity: "records at which ‖Q‖ has grown" }, grew, replicas * (records - 1));
}

function draw(
  label: string,
  run: Run,
  starts: readonly Start[],
  paths: readonly Path[],
  q0: readonly number[],
  shares: Curve[],
  left: Curve[],
): void {
  const { replicas } = run;
  const x = [...run.series.k];
  const over = (f: (r: number, i: number) => number) => x.map((_, i) => mean(replicas, (r) => f(r, i)));
  const predicted = (r: number, k: number) =>
    aligned(starts[r]!, ratioOf(q0[r]! * exp(-paths[r]!.decay[k]!), paths[r]!.v[k]!)).oneSign;
  shares.push(
    { label, predicted: false, x, y: over((r, i) => (haveOneSign(outputsAt(run, i, r)) ? 1 : 0)) },
    { label, predicted: true, x, y: over((r, i) => predicted(r, x[i]!)) },
  );
  const law = over((r, i) => paths[r]!.decay[x[i]!]!);
  const readable = x.filter((_, i) => law[i]! <= READABLE);
  left.push(
    {
      label,
      predicted: false,
      x: readable,
      y: readable.map((_, i) => exp(-mean(replicas, (r) => decayAt(run, i, r)))),
    },
    { label, predicted: true, x: readable, y: readable.map((_, i) => exp(-law[i]!)) },
  );
}

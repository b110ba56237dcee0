import { exp, log } from "../core/elementary.ts";
import type { Run } from "../dynamics/result.ts";
import type { Engine } from "../engine.ts";
import type { Model } from "../graph/model.ts";
import type { Node } from "../graph/node.ts";
import { ops } from "../graph/ops.ts";
import { type Sampler, sampler } from "../graph/sampler.ts";
import { models } from "../models/ready.ts";
import type { Problem } from "../problem.ts";
import { type Generator, symmetry } from "../symmetry/generator.ts";
import type { Experiment } from "./experiment.ts";
import { normalMatrix } from "./linear-net.ts";
import type { Parameter } from "./spec.ts";
import { at, meanCurve, overReplicas, Trial } from "./trial.ts";

const parameters = {
  dx: { value: 4, min: 2, max: 8, integer: true, what: "input dimension" },
  h: { value: 5, min: 2, max: 10, integer: true, what: "hidden neurons" },
  dy: { value: 2, min: 1, max: 5, integer: true, what: "output dimension" },
  samples: { value: 200, min: 100, max: 400, integer: true, what: "samples of the data set" },
  noiseSd: {
    value: 0.7,
    min: 0.35,
    max: 1.4,
    what: "standard deviation of the label noise, fixed in the data",
  },
  stdU: { value: 0.25, min: 0.125, max: 0.5, unit: "theta", what: "standard deviation of the initial U" },
  stdW: { value: 0.8, min: 0.5, max: 2, unit: "theta", what: "standard deviation of the initial W" },
  rate: {
    value: 0.13,
    min: 0.04,
    max: 0.16,
    what: "eta times the larger of h (dx stdW^2 + dy stdU^2) and dx sqrt(h dy): the step size beside the curvature of start and teacher",
  },
  steps: {
    value: 150_000,
    min: 50_000,
    max: 300_000,
    integer: true,
    what: "steps of SGD; averages over the second half",
  },
  replicas: { value: 24, min: 8, max: 256, integer: true, what: "independent starts" },
} satisfies Record<string, Parameter>;

type Spec = { [K in keyof typeof parameters]: number };

/** Steps between two looks at the noise. */
const LOOK = 50;
/** Steps of SGD from the end of gradient descent, looked at in every one. */
const VALLEY = 4000;
/** A neuron counts where half of the run is this many of its own relaxation times: weak ones balance later, dead ones never. */
const RELAXED = 10;

/** y = B relu(A x) + noise, of the sizes of the student. */
function teacher(engine: Engine, { dx, h, dy, noiseSd }: Spec, seed: string): Sampler {
  const A = normalMatrix(engine, h, dx, `${seed}/A`);
  const B = normalMatrix(engine, dy, h, `${seed}/B`);
  const scaled = (X: typeof A, factor: number) => ({
    shape: [X.rows, X.cols],
    values: X.values.map((v) => v * factor),
  });
  return sampler({
    noise: { x: { kind: "normal", shape: [dx] }, e: { kind: "normal", shape: [dy] } },
    constants: { A: scaled(A, 1 / Math.sqrt(dx)), B: scaled(B, 1 / Math.sqrt(h)) },
    outputs: ({ x, e, A: first, B: second }) => ({
      x: x!,
      y: ops.add(ops.matmul(second, ops.relu(ops.matmul(first, x!))), ops.scale(e!, noiseSd)),
    }),
  });
}

/**
 * Per neuron j, over the whole data set, r_n = f(x_n) - y_n and a = relu(W x):
 *
 *   N_u = E|g_{u_j}|^2 = E[4 |r|^2 a_j^2],   N_w = E|g_{w_j}|^2 = E[4 (u_j . r)^2 1(a_j > 0) |x|^2],   C = 1/2 (|u_j|^2 - |w_j|^2)
 */
function measures(net: Model, problem: Problem): Record<"up" | "down" | "C" | "size", Node> {
  const { x, y } = problem.data as Record<"x" | "y", Float64Array>;
  const { N } = problem;
  const [U, W] = [net.leaf("W2"), net.leaf("W1")];
  const [dx, dy] = [W.shape[1]!, U.shape[0]!];
  const X = net.graph.constant(x, [N, dx], "X");
  const Y = net.graph.constant(y, [N, dy], "Y");
  const size = Float64Array.from({ length: N }, (_, n) => {
    let sum = 0;
    for (let i = 0; i < dx; i++) sum += x[n * dx + i]! * x[n * dx + i]!;
    return (4 * sum) / N;
  });
  const Z = ops.matmul(X, ops.transpose(W));
  const active = ops.relu(Z);
  const R = ops.sub(ops.matmul(active, ops.transpose(U)), Y);
  const loss = ops.scale(ops.sum(ops.square(R), { axis: 1, keepdims: true }), 4 / N);
  const back = ops.mul(ops.square(ops.matmul(R, U)), ops.step(Z));
  const lengths = net.graph.constant(size, [N, 1], "lengths");
  const [out, into] = [ops.sum(ops.square(U), { axis: 0 }), ops.sum(ops.square(W), { axis: 1 })];
  return {
    up: ops.sum(ops.mul(ops.square(active), loss), { axis: 0 }),
    down: ops.sum(ops.mul(back, lengths), { axis: 0 }),
    C: ops.scale(ops.sub(out, into), 0.5),
    size: ops.add(out, into),
  };
}

/** Noise of both sides of every neuron and |u_j|^2 + |w_j|^2, [replica][neuron]. */
type Sides = Record<"up" | "down" | "size", ArrayLike<number>>;

/** Neurons of a replica whose tau_2 = (|u_j|^2 + |w_j|^2) / (2 sigma^2 (N_u + N_w)), 2 sigma^2 = eta, is short beside `time`. */
function relaxedNeurons(
  { up, down, size }: Sides,
  r: number,
  h: number,
  eta: number,
  time: number,
): number[] {
  return Array.from({ length: h }, (_, j) => r * h + j).filter(
    (i) => RELAXED * size[i]! < eta * (up[i]! + down[i]!) * time && up[i]! > 0 && down[i]! > 0,
  );
}

/** Mean over some neurons of ln(N_u / N_w); 0 without any. */
const meanLogRatio = ({ up, down }: Sides, neurons: readonly number[]): number =>
  neurons.reduce((sum, i) => sum + log(up[i]! / down[i]!), 0) / Math.max(1, neurons.length);

/**
 * What Theorem 1 leaves of the imbalance of a neuron, |ln(N_u / N_w)| of averages over steps from / 2 ... from: Delta C over the noise,
 * with C relaxing from its value after gradient descent at the rate of the equilibrium.
 */
function imbalanceLeft(
  problem: Problem,
  theta: Float64Array,
  A: Generator,
  eta: number,
  steps: number,
): number | null {
  const setting = { eta, batchSize: 1 };
  const rest = problem.equilibrium(theta, A, setting);
  const { plus, minus } = problem.noetherFlow(theta, A, setting);
  if (rest.status !== "finite") return null;
  const time = 0.5 * steps * eta;
  const left = Math.abs(rest.charge0 - rest.charge) * exp(-time * rest.rate);
  return Math.min(left / (time * Math.sqrt(plus * minus)), Math.abs(log(plus / minus)));
}

export const relu: Experiment = {
  id: "E14",
  title: "ReLU networks: SGD balances every neuron, gradient descent none",
  question:
    "A ReLU neuron does the same when its outgoing weights grow and its incoming ones shrink by one factor. Does SGD settle that factor for each " +
    "neuron by itself, where its two sides have equal gradient noise?",
  source: "Ziyin et al., arXiv:2402.07193, Theorem 1 and eq. 10 for low-rank A, one neuron at a time",
  claim:
    "Under SGD the noise of the outgoing and of the incoming weights becomes equal for every live neuron; its charge moves by exactly what the " +
    "difference of both allows. Gradient descent keeps each charge and with it the imbalance of the start.",
  formula: "C_j' − C_j = (η²/2)(|ĝ_u|² − |ĝ_w|²),  C_j = ½(|u_j|² − |w_j|²);  at rest ln(N_u/N_w) = 0",
  parameters,
  quick: { dx: 3, h: 3, samples: 100, steps: 50_000, replicas: 8 },

  async measure(engine, given, seed, control) {
    const spec = given as Spec;
    const { dx, h, dy, replicas } = spec;
    const trial = new Trial("E14", engine, seed, control, 11);
    const net = models.reluNet({ widths: [dx, h, dy] });
    const problem = engine.problem(net, teacher(engine, spec, trial.seedOf("teacher")), {
      samples: spec.samples,
      dataSeed: trial.seedOf("data"),
    });
    const start = h * (dx * spec.stdW * spec.stdW + dy * spec.stdU * spec.stdU);
    const eta = spec.rate / Math.max(start, Math.max(2, dx) * Math.sqrt(h * dy));
    const values = measures(net, problem);
    const std = { W2: spec.stdU, W1: spec.stdW };
    const theta = problem.init("normal", { std, seed: trial.seedOf("init"), replicas });
    const common = { theta, eta, replicas };
    const gdSteps = 100 * Math.ceil(0.5 / eta);
    const gd = await trial.run(
      "gradient descent",
      problem,
      { ...common, scheme: "gd", steps: gdSteps, record: { every: gdSteps / 100, loss: "full", values } },
      3,
    );
    const steps = 200 * Math.ceil(spec.steps / 200);
    const average = { from: steps / 2, every: LOOK };
    const sgd = await trial.run(
      "SGD",
      problem,
      { ...common, scheme: "sgd", batchSize: 1, steps, record: { every: steps / 200, values, average } },
      7,
    );
    const valley = await trial.run(
      "SGD from where gradient descent ends",
      problem,
      {
        ...common,
        theta: gd.theta,
        scheme: "sgd",
        batchSize: 1,
        steps: VALLEY,
        record: { every: VALLEY, values, average: { from: 1, every: 1 } },
      },
      1,
    );
    const neurons = Array.from({ length: h }, (_, j) => symmetry.neuronRescaling("W2", "W1", j));
    const left = overReplicas(gd, (r) => {
      const end = gd.theta.slice(r * gd.P, (r + 1) * gd.P) as Float64Array;
      const known = neurons.map((A) => imbalanceLeft(problem, end, A, eta, steps)).filter((x) => x !== null);
      return known.reduce((sum, x) => sum + x, 0) / Math.max(1, known.length);
    }).value;
    problem.dispose();
    keptRow(trial, gd, h, eta);
    budgetRows(trial, valley, h, eta);
    const sides = sgd.averages!.values as Record<"up" | "down" | "size", Float64Array>;
    const relaxed = Array.from({ length: replicas }, (_, r) =>
      relaxedNeurons(sides, r, h, eta, 0.5 * steps * eta),
    );
    const count = relaxed.reduce((sum, list) => sum + list.length, 0);
    trial.row(
      {
        setting: "SGD, second half",
        quantity: `mean of ln(N_u / N_w) over the ${count} of ${h * replicas} neurons with ${RELAXED} τ₂ < half of the run`,
      },
      {
        value: 0,
        modelError: left,
        neglects:
          "what Theorem 1 leaves of the imbalance after gradient descent in this time, mean over the neurons",
      },
      overReplicas(sgd, (r) => meanLogRatio(sides, relaxed[r]!)),
    );
    figuresOf(trial, sgd, gd, relaxed);
    return trial.findings;
  },
};

/** Gradient descent moves the charges by at most eta/2 sum eta |g|^2 together, and descends by half of that sum at least. */
function keptRow(trial: Trial, gd: Run, h: number, eta: number): void {
  const loss = gd.series.loss!;
  const fallen = overReplicas(gd, (r) => at(gd, loss, 0, r) - at(gd, loss, -1, r)).value;
  const C = gd.series.values.C!;
  const moved = (r: number) => {
    let sum = 0;
    for (let j = 0; j < h; j++) sum += Math.abs(at(gd, C, -1, r, j) - at(gd, C, 0, r, j));
    return sum;
  };
  trial.row(
    { setting: "gradient descent", quantity: "sum over neurons of |C_j(end) − C_j(0)|" },
    {
      value: 0,
      modelError: eta * fallen,
      neglects: "what gradient descent moves at finite η, at most η (L(0) − L(end))",
    },
    overReplicas(gd, moved),
  );
}

/** What SGD does to the charges from the end of gradient descent, in units of eta^2 / 2, from the noise along its path. */
function budgetRows(trial: Trial, run: Run, h: number, eta: number): void {
  const averages = run.averages!.values as Record<"up" | "down", Float64Array>;
  const series = run.series.values as Record<"up" | "down" | "C", Float64Array>;
  // the averages hold steps 1 to K, the path has 0 to K - 1
  const summed = (side: "up" | "down", r: number, j: number) =>
    run.steps * averages[side][r * h + j]! + at(run, series[side], 0, r, j) - at(run, series[side], -1, r, j);
  const budget = (name: string, neurons: readonly number[]) => {
    const over = (f: (j: number) => number) => neurons.reduce((sum, j) => sum + f(j), 0);
    const wanted = (r: number) => 0.5 * eta * eta * over((j) => summed("up", r, j) - summed("down", r, j));
    const value = overReplicas(run, wanted).value;
    const changed = (r: number) => over((j) => at(run, series.C, -1, r, j) - at(run, series.C, 0, r, j));
    const paired = overReplicas(run, (r) => changed(r) - wanted(r));
    trial.row(
      {
        setting: `SGD, ${run.steps} steps from the end of gradient descent`,
        quantity: `change of ${name}, (η²/2) Σ (N_u − N_w)`,
      },
      { value, modelError: 0, neglects: "nothing: exact in the mean over what each step draws" },
      { ...paired, value: paired.value + value, method: `${paired.method}, each less its own prediction` },
    );
  };
  budget(
    "the sum of all C_j",
    Array.from({ length: h }, (_, j) => j),
  );
  budget("C_1", [0]);
}

function figuresOf(trial: Trial, sgd: Run, gd: Run, relaxed: readonly (readonly number[])[]): void {
  const series = (run: Run) => run.series.values as Record<"up" | "down" | "C" | "size", Float64Array>;
  const h = series(sgd).C.length / (sgd.series.k.length * sgd.replicas);
  const sizes = (run: Run) =>
    Array.from(run.series.k, (_, i) => {
      const start = i * run.replicas * h;
      const { up, down, size } = series(run);
      const sides = { up: up.subarray(start), down: down.subarray(start), size: size.subarray(start) };
      const alive = (neurons: readonly number[]) =>
        neurons.filter((j) => sides.up[j]! > 0 && sides.down[j]! > 0);
      return overReplicas(run, (r) => meanLogRatio(sides, alive(relaxed[r]!))).value;
    });
  const share = (run: Run) => Array.from(run.series.k, (k) => k / run.steps);
  trial.figure({
    title: "Balance of the neurons",
    caption:
      `ln(N_u / N_w) of single moments, mean over the neurons of the table and runs, along SGD (${sgd.steps} steps) and gradient descent (${gd.steps} steps); 0 at the ` +
      "noise equilibrium (dashed).",
    xLabel: "share of the run",
    yLabel: "ln(N_u / N_w)",
    xScale: "linear",
    yScale: "linear",
    curves: [
      { label: "SGD", predicted: false, x: share(sgd), y: sizes(sgd) },
      { label: "SGD", predicted: true, x: [0, 1], y: [0, 0] },
      { label: "gradient descent", predicted: false, x: share(gd), y: sizes(gd) },
    ],
  });
  trial.figure({
    title: "Charges of the neurons",
    caption: "Mean charge ½(|u_j|² − |w_j|²) of the first three neurons over the runs, along SGD.",
    xLabel: "step",
    yLabel: "C_j",
    xScale: "linear",
    yScale: "linear",
    curves: Array.from({ length: Math.min(3, h) }, (_, j) => ({
      label: `neuron ${j + 1}`,
      predicted: false,
      x: [...sgd.series.k],
      y: meanCurve(sgd, series(sgd).C, j),
    })),
  });
}

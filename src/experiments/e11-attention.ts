import { exp, log } from "../core/elementary.ts";
import type { Run } from "../dynamics/result.ts";
import { ops } from "../graph/ops.ts";
import { sampler } from "../graph/sampler.ts";
import { models } from "../models/ready.ts";
import type { Problem } from "../problem.ts";
import { type Generator, symmetry } from "../symmetry/generator.ts";
import type { Experiment } from "./experiment.ts";
import { normalMatrix } from "./linear-net.ts";
import type { Parameter } from "./spec.ts";
import { type About, at, meanCurve, overReplicas, Trial } from "./trial.ts";

const parameters = {
  tokens: { value: 5, min: 2, max: 8, integer: true, what: "tokens of a sample" },
  d: { value: 4, min: 2, max: 8, integer: true, what: "size of a token and of the output" },
  dk: { value: 3, min: 1, max: 6, integer: true, what: "size of queries and keys" },
  samples: { value: 64, min: 32, max: 128, integer: true, what: "samples of the data set" },
  labelSd: { value: 1.5, min: 0.75, max: 3, what: "standard deviation of the labels, which are noise" },
  stdQ: { value: 2, min: 1, max: 4, unit: "theta", what: "standard deviation of the initial Wq" },
  stdK: { value: 0.2, min: 0.1, max: 0.4, unit: "theta", what: "standard deviation of the initial Wk" },
  rate: {
    value: 0.12,
    min: 0.04,
    max: 0.16,
    what: "eta times d, at labels of standard deviation 1.5 or less",
  },
  steps: {
    value: 96_000,
    min: 24_000,
    max: 192_000,
    integer: true,
    what: "steps of SGD; noise over the second half",
  },
  replicas: { value: 16, min: 8, max: 256, integer: true, what: "independent starts" },
} satisfies Record<string, Parameter>;

type Spec = { [K in keyof typeof parameters]: number };

/** Steps along which the flow is followed, and steps between two looks at it. */
const [FOLLOWED, LOOK] = [2000, 10];

/** e^-(time / tau_2) of the way of a charge to its equilibrium, as an imbalance of the averages over the second half. */
function imbalanceLeft(
  problem: Problem,
  theta: Float64Array,
  A: Generator,
  eta: number,
  steps: number,
): number {
  const setting = { eta, batchSize: 1 };
  const rest = problem.equilibrium(theta, A, setting);
  const { plus, minus, logRatio } = problem.noetherFlow(theta, A, setting);
  if (rest.status !== "finite") return Math.abs(logRatio);
  const time = 0.5 * steps * eta;
  const left = Math.abs(rest.charge0 - rest.charge) * exp(-time * rest.rate);
  return Math.min(left / (time * Math.sqrt(plus * minus)), Math.abs(logRatio));
}

export const attention: Experiment = {
  id: "E11",
  title: "Attention: the noise of queries and keys comes to balance",
  question:
    "Attention scores X Wq Wkᵀ Xᵀ do not change when Wq grows and Wk shrinks. Starting from large queries and small keys, what do SGD and gradient " +
    "descent make of that freedom?",
  source: "Ziyin et al., arXiv:2402.07193, symmetries of attention; theory of the key/query rotation",
  claim:
    "The charges of key/query rotations move under SGD by what the Noether flow along the path says, towards equal noise of queries and keys; gradient " +
    "descent keeps them.",
  formula: "dC_B/dt = σ² Tr[Σ A_B] + (η/2) ḡᵀA_Bḡ,  C_B = ½ Tr[B(WqᵀWq − WkᵀWk)]",
  parameters,
  quick: { tokens: 3, d: 3, dk: 2, samples: 32, steps: 24_000, replicas: 8 },

  async measure(engine, given, seed, control) {
    const spec = given as Spec;
    const { tokens, d, dk, labelSd, replicas, steps } = spec;
    const trial = new Trial("E11", engine, seed, control, 12);
    const net = models.attention({ T: tokens, d, dk });
    const law = sampler({
      noise: { X: { kind: "normal", shape: [tokens, d] }, e: { kind: "normal", shape: [d] } },
      outputs: ({ X, e }) => ({ X: X!, y: ops.scale(e!, labelSd) }),
    });
    const problem = engine.problem(net, law, { samples: spec.samples, dataSeed: trial.seedOf("data") });
    const larger = labelSd / 1.5;
    const eta = spec.rate / (d * Math.max(1, larger * larger));
    const { dense } = engine;
    const G = normalMatrix(engine, dk, dk, trial.seedOf("B"));
    const rotation = (B: { rows: number; cols: number; values: Float64Array }) =>
      symmetry.keyQuery(
        "Wq",
        "Wk",
        Array.from({ length: dk }, (_, i) => [...B.values.subarray(i * dk, (i + 1) * dk)]),
      );
    const A = rotation(dense.identity(dk));
    const other = rotation(dense.scale(dense.add(G, dense.transpose(G)), 0.5));
    const charges = { C: A, B: other };
    const std = { Wq: spec.stdQ, Wk: spec.stdK, Wv: 0.5 };
    const theta = problem.init("normal", { std, seed: trial.seedOf("init"), replicas });
    const common = { theta, eta, replicas };
    const gdSteps = Math.ceil(60 / eta);
    const gd = await trial.run(
      "gradient descent",
      problem,
      { ...common, scheme: "gd", steps: gdSteps, record: { every: gdSteps, loss: "full", charges } },
      2,
    );
    const options = { ...common, scheme: "sgd" as const, batchSize: 1 };
    const path = await trial.run(
      "SGD, followed",
      problem,
      {
        ...options,
        steps: FOLLOWED,
        record: { every: LOOK, charges },
        probes: { every: LOOK, flow: true },
      },
      4,
    );
    const sides = { query: symmetry.scaling("Wq"), key: symmetry.scaling("Wk") };
    const half = 2 * Math.ceil(steps / 400);
    const sgd = await trial.run(
      "SGD",
      problem,
      {
        ...options,
        steps: 200 * half,
        record: { every: half, charges: { ...charges, ...sides }, work: true },
      },
      6,
    );
    const left = overReplicas(gd, (r) =>
      imbalanceLeft(problem, gd.theta.slice(r * gd.P, (r + 1) * gd.P) as Float64Array, A, eta, 200 * half),
    ).value;
    const stays = overReplicas(gd, (r) => {
      const end = gd.theta.slice(r * gd.P, (r + 1) * gd.P);
      return problem.noetherFlow(end, A, { eta, batchSize: 1 }).logRatio;
    }).value;
    problem.dispose();

    const setting = `SGD, S = 1, first ${FOLLOWED} steps`;
    pathRow(trial, { setting, quantity: "change of C, B = I, from its flow along the path" }, path, "C");
    pathRow(
      trial,
      { setting, quantity: "change of C_B for a random B, from its flow along the path" },
      path,
      "B",
    );
    keptRow(trial, gd, eta);
    const charge = meanCurve(sgd, sgd.series.charges.C!);
    trial.row(
      { setting: "SGD, second half", quantity: "ln(N_q / N_k), the squared gradients of Wq and Wk" },
      {
        value: 0,
        modelError: left,
        neglects: "what Theorem 1 leaves of the imbalance after gradient descent in this time, for B = I",
      },
      overReplicas(sgd, (r) => logRatio(sgd, r, 100, 200)),
    );
    trial.figure({
      title: "The charge of the key/query rotation",
      caption:
        "C / C(0), C = ½(‖Wq‖² − ‖Wk‖²), mean over the runs of SGD (solid); gradient descent keeps it (dashed).",
      xLabel: "step",
      yLabel: "C / C(0)",
      xScale: "linear",
      yScale: "linear",
      curves: [
        { label: "SGD", predicted: false, x: [...sgd.series.k], y: charge.map((c) => c / charge[0]!) },
        { label: "gradient descent", predicted: true, x: [0, sgd.steps], y: [1, 1] },
      ],
    });
    const x = Array.from({ length: 20 }, (_, i) => 10 * i + 5);
    trial.figure({
      title: "Noise of queries against noise of keys",
      caption: `ln(N_q / N_k) over stretches of ${10 * half} steps of SGD, mean over the runs (solid), and the balance (dashed). Where gradient descent ends it is ${stays.toPrecision(3)}.`,
      xLabel: "step",
      yLabel: "ln(N_q / N_k)",
      xScale: "linear",
      yScale: "linear",
      curves: [
        {
          label: "SGD",
          predicted: false,
          x: x.map((i) => i * half),
          y: x.map((i) => overReplicas(sgd, (r) => logRatio(sgd, r, i - 5, i + 5)).value),
        },
        { label: "SGD", predicted: true, x: [0, sgd.steps], y: [0, 0] },
      ],
    });
    return trial.findings;
  },
};

/** ln of the work on |Wq|^2 over that on |Wk|^2 between two records: the squared gradients of all steps between. */
function logRatio(run: Run, r: number, from: number, to: number): number {
  const done = (name: string) =>
    at(run, run.series.work[name]!, to, r) - at(run, run.series.work[name]!, from, r);
  return log(done("query") / done("key"));
}

/** Gradient descent moves C by at most eta (L(0) - L(end)): eta^2/2 |g|^2 a step, which descends by half of eta |g|^2 at least. */
function keptRow(trial: Trial, gd: Run, eta: number): void {
  const loss = gd.series.loss!;
  const fallen = overReplicas(gd, (r) => at(gd, loss, 0, r) - at(gd, loss, -1, r)).value;
  const C = gd.series.charges.C!;
  trial.row(
    { setting: "gradient descent", quantity: "C(end) − C(0), C = ½(‖Wq‖² − ‖Wk‖²)" },
    {
      value: 0,
      modelError: eta * fallen,
      neglects: "what gradient descent moves at finite η, at most η (L(0) − L(end))",
    },
    overReplicas(gd, (r) => at(gd, C, -1, r) - at(gd, C, 0, r)),
  );
}

/**
 * The change of a charge, and the sum of its flow by trapezoids between the probes. Given its path, what SGD adds to that has mean 0 in
 * every step: the scatter of measured less predicted is the standard error, what trapezoids twice as wide change the model error.
 */
function pathRow(trial: Trial, about: About, run: Run, charge: string): void {
  const C = run.series.charges[charge]!;
  const flow = run.probes!.values[`flow.${charge}`]!;
  const { k } = run.probes!;
  const sums = (r: number, stride: number): number => {
    let sum = 0;
    for (let i = 0; i + stride < k.length; i += stride) {
      const [here, next] = [flow[i * run.replicas + r]!, flow[(i + stride) * run.replicas + r]!];
      sum += 0.5 * (k[i + stride]! - k[i]!) * (here + next);
    }
    return sum;
  };
  const changed = (r: number) => at(run, C, -1, r) - at(run, C, 0, r);
  const value = overReplicas(run, (r) => sums(r, 1)).value;
  const paired = overReplicas(run, (r) => changed(r) - sums(r, 1));
  const neglects = "curvature of the flow between probes: what trapezoids twice as wide change";
  trial.row(
    about,
    { value, modelError: Math.abs(overReplicas(run, (r) => sums(r, 2)).value - value), neglects },
    {
      ...paired,
      value: value + paired.value,
      method: `${paired.method}, each less the prediction along its path`,
    },
  );
}

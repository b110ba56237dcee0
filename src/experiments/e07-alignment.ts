import type { Run } from "../dynamics/result.ts";
import type { Engine } from "../engine.ts";
import type { Model } from "../graph/model.ts";
import type { Node } from "../graph/node.ts";
import { ops } from "../graph/ops.ts";
import type { Matrix } from "../stats/dense.ts";
import { initialTrace } from "../symmetry/predictions/initialisation.ts";
import type { Curve, Experiment } from "./experiment.ts";
import { linearNet, randomTeacher, type Teacher, teacherSampler } from "./linear-net.ts";
import type { Parameter } from "./spec.ts";
import { at, meanCurve, overReplicas, Trial } from "./trial.ts";

const parameters = {
  d: { value: 4, min: 2, max: 8, integer: true, what: "input and output dimension" },
  h: { value: 8, min: 4, max: 24, integer: true, what: "hidden units; at least d" },
  eta: {
    value: 0.004,
    min: 0.0015,
    max: 0.006,
    unit: "theta^2 / loss",
    what: "step size of SGD; every case is run at half of it too",
  },
  times: {
    value: 8,
    min: 3,
    max: 12,
    what: "length of a run before averages are taken, in times of the slowest decay",
  },
  replicas: { value: 32, min: 8, max: 64, integer: true, what: "independent runs per case" },
  variance: { value: 0.08, min: 0.03, max: 0.2, what: "variance of the initial entries of U and W" },
  strong: { value: 1.5, min: 0.7, max: 2.8, what: "singular values of the strong teacher" },
  weak: { value: 0.3, min: 0.2, max: 0.8, what: "singular values of the weak teacher" },
  contrast: {
    value: 5,
    min: 2,
    max: 8,
    what: "noise variance along the teacher's strong direction over that along the others, and its inverse",
  },
  draws: { value: 1, min: 0, max: 8, integer: true, what: "random Sigma_x, Sigma_eps and V beside these" },
  spread: { value: 1.5, min: 1.1, max: 2.5, what: "their eigenvalues lie in [1/spread, spread]" },
} satisfies Record<string, Parameter>;

type Spec = { [K in keyof typeof parameters]: number };

interface Case {
  readonly name: string;
  readonly teacher: Teacher;
}

/** Teachers of equal total noise: strong, weak, and one direction with more or less noise than the others. */
function casesOf(engine: Engine, spec: Spec, seed: string): Case[] {
  const { dense } = engine;
  const { d, contrast } = spec;
  const I = dense.identity(d);
  const first = (one: number, rest: number): Matrix =>
    dense.diagonal(Float64Array.from({ length: d }, (_, i) => (i === 0 ? one : rest)));
  // total noise d in both: one of d directions has `ratio` times the noise of the others
  const noise = (ratio: number) => first((d * ratio) / (ratio + d - 1), d / (ratio + d - 1));
  const plain = (s: number): Case => ({
    name: `V = ${s} I`,
    teacher: { V: dense.scale(I, s), SigmaX: I, SigmaEps: I },
  });
  const uneven = (ratio: number, name: string): Case => ({
    name,
    teacher: { V: first(2, 0.2), SigmaX: I, SigmaEps: noise(ratio) },
  });
  return [
    plain(spec.strong),
    plain(spec.weak),
    uneven(contrast, `V = diag(2, 0.2, …), noise ${contrast} times as large along 2`),
    uneven(1 / contrast, `V = diag(2, 0.2, …), noise ${contrast} times as small along 2`),
    ...Array.from({ length: spec.draws }, (_, i) => ({
      name: `random ${i + 1}`,
      teacher: randomTeacher(engine, d, spec.spread, `${seed}/E07/draw ${i}`),
    })),
  ];
}

/**
 * Rate at which the slowest imbalance decays on the valley U W = V: that of a hidden unit of no use, whose weight out of it in the
 * direction e loses 8 sigma^2 Tr[Sigma_x] e^T Sigma_eps e of its square per unit time, and likewise into it.
 *
 * @source theory.md, 9 (Gamma at the global minimum)
 */
function slowestRate(engine: Engine, { SigmaX, SigmaEps }: Teacher, sigma2: number): number {
  const { dense } = engine;
  const least = (A: Matrix) => dense.symmetricEigen(A).values.reduce((m, x) => Math.min(m, x), Infinity);
  return 8 * sigma2 * Math.min(dense.trace(SigmaX) * least(SigmaEps), dense.trace(SigmaEps) * least(SigmaX));
}

/** Proposition 2 as an expression of the parameters: 2 dy Tr[W Sigma_x W^T] + 2 |U|^2 Tr Sigma_x. */
function traceOf(engine: Engine, net: Model, { SigmaX }: Teacher): Node {
  const d = SigmaX.rows;
  const [U, W] = [net.leaf("U"), net.leaf("W")];
  const Sx = net.graph.constant(SigmaX.values, [d, d], "SigmaX");
  return ops.add(
    ops.scale(ops.sum(ops.mul(W, ops.matmul(W, Sx))), 2 * d),
    ops.scale(ops.sqnorm(U), 2 * engine.dense.trace(SigmaX)),
  );
}

/** Steps before averaging, and in all: times / (rate eta). */
function lengthOf(
  engine: Engine,
  spec: Spec,
  teacher: Teacher,
  eta: number,
): { from: number; steps: number } {
  const one = 1 / (slowestRate(engine, teacher, eta / 2) * eta);
  return { from: Math.ceil(spec.times * one) + 1, steps: Math.ceil(1.4 * spec.times * one) };
}

async function runAt(
  trial: Trial,
  engine: Engine,
  spec: Spec,
  { name, teacher }: Case,
  part: { readonly label: string; readonly eta: number },
): Promise<Run> {
  const net = linearNet(spec.d, spec.h, spec.d);
  const problem = engine.problem(net, teacherSampler(engine, teacher));
  const { replicas } = spec;
  const theta = problem.init("normal", {
    std: Math.sqrt(spec.variance),
    seed: trial.seedOf(`${name}, start`),
    replicas,
  });
  const { from, steps } = lengthOf(engine, spec, teacher, part.eta);
  const run = await trial.run(
    `${name}, ${part.label}`,
    problem,
    {
      scheme: "sgd",
      batchSize: 1,
      theta,
      eta: part.eta,
      steps,
      replicas,
      record: {
        every: Math.ceil(steps / 100),
        values: { trace: traceOf(engine, net, teacher) },
        average: { from, every: 1 },
      },
    },
    steps,
  );
  problem.dispose();
  return run;
}

async function measureCase(trial: Trial, engine: Engine, spec: Spec, one: Case): Promise<Curve[]> {
  const { name, teacher } = one;
  const { d, h, variance, eta } = spec;
  const whole = await runAt(trial, engine, spec, one, { label: "η", eta });
  const half = await runAt(trial, engine, spec, one, { label: "η/2", eta: eta / 2 });
  const traceSigmaX = engine.dense.trace(teacher.SigmaX);
  const start = initialTrace({ h, dy: d, traceSigmaX, varU: variance, varW: variance });
  const end = engine.twoLayer.finalTrace(teacher);
  trial.row(
    { setting: `start, ${name}`, quantity: "E Tr ∇²L, 2 dy h (σW² + σU²) Tr Σx" },
    { value: start, modelError: 0, neglects: "nothing: exact in the mean over initialisations" },
    overReplicas(whole, (r) => at(whole, whole.series.values["trace"]!, 0, r)),
  );
  // what is left of the start after `times` times, in the mean over the averaged part
  let left = start;
  for (let i = 0; i < spec.times; i++) left /= 2.718281828459045;
  const prediction = {
    value: end,
    modelError: left,
    neglects: `what ${spec.times} times leave of the start; fluctuations of the product U W, O(η)`,
  };
  const measured = (run: Run) => overReplicas(run, (r) => run.averages!.values["trace"]![r]!);
  const trend = end > start ? "sharpening" : "flattening";
  trial.limitRow(
    { setting: `SGD, ${name}: ${trend}`, quantity: "Tr ∇²L at the end, for η → 0" },
    { predicted: prediction, measured: measured(whole) },
    { predicted: prediction, measured: measured(half) },
  );
  const { eta: used } = whole.settings;
  const x = Array.from(whole.series.k, (k) => k * used[0]! * used[0]!);
  return [
    { label: name, predicted: false, x, y: meanCurve(whole, whole.series.values["trace"]!) },
    { label: name, predicted: true, x: [0, x.at(-1)!], y: [end, end] },
  ];
}

export const alignment: Experiment = {
  id: "E07",
  title: "Progressive sharpening or flattening: teacher and noise decide, not the start",
  question:
    "From one and the same initialisation SGD makes a two-layer linear network sharper for one task and flatter for another. Does the " +
    "noise equilibrium say which, from the teacher V and how it is aligned with the label noise?",
  source: "Ziyin et al., arXiv:2402.07193, section 4.3, Proposition 2 and Theorem 2",
  claim:
    "Every curve starts at the same sharpness and ends at its own dashed line: above the start for strong teachers, below it for weak " +
    "ones; the alignment of noise and teacher moves the line.",
  formula: "Tr ∇²L = 2dy (Tr Σx / Tr Σε)^½ Σ D + 2 (Tr Σx Tr Σε)^½ Σ Dk (Lᵀ Σε⁻¹ L)kk,  L D Rᵀ = Σε^½ V Σx^½",
  parameters,
  seconds: 7,
  quick: { d: 2, h: 4, times: 5, eta: 0.006, replicas: 8, draws: 0, contrast: 2 },

  async measure(engine, given, seed, control) {
    const settings = given as Spec;
    // a network needs a hidden unit for every direction of the teacher
    const spec = { ...settings, h: Math.max(settings.h, settings.d) };
    const cases = casesOf(engine, spec, seed);
    const length = (teacher: Teacher, eta: number) => lengthOf(engine, spec, teacher, eta).steps;
    const total = cases.reduce(
      (n, { teacher }) => n + length(teacher, spec.eta) + length(teacher, spec.eta / 2),
      0,
    );
    const trial = new Trial("E07", engine, seed, control, total);
    const curves: Curve[][] = [];
    for (const one of cases) curves.push(await measureCase(trial, engine, spec, one));
    const axes = { xLabel: "steps × η²", yLabel: "Tr ∇²L", xScale: "linear", yScale: "log" } as const;
    trial.figure({
      title: "Strong and weak teachers, from one initialisation",
      caption: "Mean trace of the Hessian over the runs; the dashed line is the noise equilibrium.",
      ...axes,
      curves: curves.slice(0, 2).flat(),
    });
    trial.figure({
      title: "Noise along and across the teacher's strong direction",
      caption:
        "Mean trace of the Hessian over the runs; the dashed line is the noise equilibrium. The total noise is the same.",
      ...axes,
      curves: curves.slice(2, 4).flat(),
    });
    return trial.findings;
  },
};

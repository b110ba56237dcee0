import type { Run } from "../dynamics/result.ts";
import type { Engine } from "../engine.ts";
import type { Model } from "../graph/model.ts";
import { ops } from "../graph/ops.ts";
import { type Sampler, sampler } from "../graph/sampler.ts";
import { models } from "../models/ready.ts";
import type { Problem } from "../problem.ts";
import { exact } from "../stats/estimate.ts";
import type { Discovery } from "../symmetry/discover.ts";
import type { Experiment } from "./experiment.ts";
import type { Parameter } from "./spec.ts";
import { at, Trial } from "./trial.ts";

const parameters = {
  dx: { value: 2, min: 1, max: 4, integer: true, what: "inputs" },
  h: { value: 2, min: 1, max: 4, integer: true, what: "hidden units" },
  dy: { value: 2, min: 1, max: 4, integer: true, what: "outputs" },
  samples: { value: 16, min: 12, max: 48, integer: true, what: "random samples of every data set" },
  eta: {
    value: 0.01,
    min: 0.002,
    max: 0.02,
    unit: "theta^2 / loss",
    what: "step size of the runs that check the charges",
  },
  steps: { value: 500, min: 100, max: 2000, integer: true, what: "their steps" },
} satisfies Record<string, Parameter>;

type Spec = { [K in keyof typeof parameters]: number };

const triangle = (n: number): number => (n * (n + 1)) / 2;
const ROUNDING = Number.EPSILON;

/** A model whose symmetries are counted, and how many there are. */
interface Case {
  readonly name: string;
  readonly net: Model;
  readonly form?: "symmetric" | "general" | "affine";
  readonly count: number;
  /** The count as a formula, in words. */
  readonly formula: string;
  /** How many of them move only what no loss sees. */
  readonly flat?: number;
  /** Charges that are independent as functions. */
  readonly independent?: number;
}

const shapeOf = (sizes: readonly number[]): string => `(${sizes.join(", ")})`;

/** f = U W x: all double rotations, and for a single input and output u^T K w with antisymmetric K beside them. */
function linear(dx: number, h: number, dy: number): Case {
  const isScalar = dx === 1 && dy === 1;
  const n = dx + dy;
  return {
    name: `linear ${shapeOf([dx, h, dy])}`,
    net: models.twoLayerLinear({ dx, h, dy }),
    count: isScalar ? h * h : triangle(h),
    formula: isScalar ? "h²" : "h (h + 1)/2",
    // Q has rank n at most; of a product of vectors it is the pair of u and w, up to what keeps u . w
    ...(isScalar ? {} : { independent: h <= n ? triangle(h) : n * h - (n * (n - 1)) / 2 }),
  };
}

/** The table of models at the sizes of a setting. Sizes of 1, where other nets have directions that nothing sees, count as 2 there. */
function casesOf({ dx, h, dy }: Spec): Case[] {
  const [inputs, hidden, outputs] = [Math.max(2, dx), Math.max(2, h), Math.max(2, dy)];
  const sizes = { dx: inputs, h, dy: outputs };
  const widths = [inputs, h, outputs];
  const dk = h;
  const classes = hidden + 1;
  return [
    linear(dx, h, dy),
    linear(inputs + 1, h, outputs),
    linear(inputs, h + 1, 1),
    linear(1, h, 1),
    linear(2, 5, 2),
    {
      name: `linear ${shapeOf(widths)}, any A`,
      net: models.twoLayerLinear(sizes),
      form: "general",
      count: h * h,
      formula: "h²",
    },
    {
      name: `deep linear ${shapeOf([inputs, h, hidden, outputs])}`,
      net: models.deepLinear({ widths: [inputs, h, hidden, outputs] }),
      count: triangle(h) + triangle(hidden),
      formula: "Σ h (h + 1)/2 over the hidden layers",
    },
    { name: `ReLU ${shapeOf(widths)}`, net: models.reluNet({ widths }), count: h, formula: "h" },
    {
      name: `quadratic activation ${shapeOf(widths)}`,
      net: models.mlp({ widths, activation: "square" }),
      count: h,
      formula: "h",
    },
    { name: `tanh ${shapeOf(widths)}`, net: models.tanhNet(sizes), count: 0, formula: "none" },
    { name: `residual, d = ${h}`, net: models.residual({ d: h }), count: 0, formula: "none" },
    {
      name: `residual, d = ${h}, A θ + b`,
      net: models.residual({ d: h }),
      form: "affine",
      count: triangle(h),
      formula: "d (d + 1)/2",
    },
    { name: `Net-A ${shapeOf(widths)}`, net: models.netA(sizes), count: 1, formula: "1" },
    { name: `Net-B ${shapeOf(widths)}`, net: models.netB(sizes), count: 2 * h, formula: "2h" },
    {
      name: `attention, d = 3, dk = ${dk}`,
      net: models.attention({ T: 3, d: 3, dk }),
      count: triangle(dk),
      formula: "dk (dk + 1)/2",
    },
    {
      name: `cosine of two views (${inputs} → ${hidden})`,
      net: models.selfSupervised({ dx: inputs, h: hidden }),
      count: 1,
      formula: "1",
    },
    {
      name: `softmax, ${inputs} inputs, ${classes} classes`,
      net: models.softmaxRegression({ d: inputs, classes }),
      count: triangle(inputs),
      flat: triangle(inputs),
      formula: "d (d + 1)/2, from d translations",
    },
  ];
}

/** Standard normal inputs of any model; class weights of a softmax. */
function randomData(net: Model): Sampler {
  const isClasses = net.inputs.length === 2 && net.blocks.length === 1 && net.inputs[1]!.name === "y";
  return sampler({
    noise: Object.fromEntries(net.inputs.map(({ name, shape }) => [name, { kind: "normal", shape }])),
    outputs: (values) =>
      Object.fromEntries(
        net.inputs.map(({ name }) => [
          name,
          isClasses && name === "y" ? ops.softmax(values[name]!) : values[name]!,
        ]),
      ),
  });
}

/** Rows of one model: how many symmetries, how many of them flat or independent, and that each is one. */
async function count(trial: Trial, problem: Problem, of: Case): Promise<Discovery> {
  const { name: setting, form = "symmetric", flat = 0, independent } = of;
  const { signal } = trial;
  const found = await problem.discoverSymmetries({
    form,
    seed: trial.seedOf(setting),
    ...(signal === undefined ? {} : { signal }),
  });
  const row = (quantity: string, value: number, measured: number): void =>
    trial.row(
      { setting, quantity },
      { value, modelError: 0, neglects: "nothing: exact" },
      exact(measured, found.equations),
    );
  row(`symmetries found, ${of.formula}`, of.count, found.count);
  if (flat > 0) row("of these flat", flat, found.flat);
  if (independent !== undefined)
    row("charges independent as functions", independent, found.functionallyIndependent);
  if (form !== "general" && found.count > flat) {
    const wrong = found.generators.filter(
      (A) => !A.flat && problem.checkSymmetry(A).verdict !== "exact",
    ).length;
    trial.never(
      { setting, quantity: "found, but no exact symmetry at fresh θ and of finite size" },
      wrong,
      found.count,
    );
  }
  return found;
}

/** SGD keeps the budget of every charge that was found: C = C(0) + work, to rounding and to the digits of the generator. */
async function budget(trial: Trial, problem: Problem, spec: Spec, of: Case, found: Discovery): Promise<Run> {
  const charges = Object.fromEntries(found.generators.map((A, i) => [`C${i}`, A]));
  const { eta, steps } = spec;
  const every = Math.max(1, Math.floor(steps / 100));
  const run = await trial.run(`SGD, ${of.name}`, problem, {
    scheme: "sgd",
    batchSize: 1,
    theta: problem.init("normal", { std: 0.5, seed: trial.seedOf(`${of.name}/init`), replicas: 8 }),
    eta,
    steps: every * Math.floor(steps / every),
    replicas: 8,
    record: { every, charges, work: true, blockNorms: true },
  });
  let square = 0;
  for (const norms of Object.values(run.series.blockNorms))
    square += norms.reduce((m, n) => Math.max(m, n), 0) * norms.reduce((m, n) => Math.max(m, n), 0);
  let worst = 0;
  let records = 0;
  for (const [name, C] of Object.entries(run.series.charges)) {
    for (let i = 0; i < run.series.k.length; i++) {
      for (let r = 0; r < run.replicas; r++) {
        const gap = at(run, C, i, r) - at(run, C, 0, r) - at(run, run.series.work[name]!, i, r);
        worst = Math.max(worst, Math.abs(gap));
        records++;
      }
    }
  }
  trial.row(
    { setting: `SGD, ${of.name}`, quantity: `largest |C − C(0) − work| of its ${found.count} charges` },
    {
      value: 0,
      modelError: 16 * ROUNDING * (run.steps + 8) * square,
      neglects: "rounding of every step at the largest |θ|²",
    },
    exact(worst, records),
  );
  return run;
}

export const discoveredSymmetries: Experiment = {
  id: "E23",
  title: "The symmetries of a loss can be found from its gradients alone, as many as theory counts",
  question:
    "Nobody tells a network its symmetries. Can they be found by solving g_n · A θ = 0 for A from per-sample gradients at random points, all " +
    "of them and nothing else?",
  source: "Theory, section 13.7; count of independent charges: Marcotte, Gribonval, Peyré, arXiv:2307.00144",
  claim:
    "The number of symmetries found (dots) is that of theory for every model; each is exact, and SGD keeps the budget of its charge.",
  formula:
    "linear h (h + 1) / 2, h^2 for (1, h, 1) and for any A, deep sum_l h_l (h_l + 1) / 2, ReLU and quadratic h, tanh 0, residual 0 and affine d (d + 1) / 2, Net-A 1, Net-B 2 h, attention dk (dk + 1) / 2",
  parameters,
  quick: { steps: 100 },

  async measure(engine: Engine, given, seed, control) {
    const spec = given as Spec;
    const cases = casesOf(spec);
    const trial = new Trial("E23", engine, seed, control, cases.length + 3);
    const counts: number[] = [];
    for (const [i, of] of cases.entries()) {
      trial.progress(0, of.name);
      const problem = engine.problem(of.net, randomData(of.net), {
        samples: spec.samples,
        dataSeed: trial.seedOf(`data/${of.name}`),
      });
      const found = await count(trial, problem, of);
      counts.push(found.count);
      trial.advance(1);
      // the first linear net, and neurons of a ReLU net
      if (found.count > 0 && (i === 0 || of.formula === "h")) await budget(trial, problem, spec, of, found);
      problem.dispose();
    }
    const x = cases.map((_, i) => i + 1);
    trial.figure({
      title: "Symmetries found and predicted",
      caption: `Models from left to right: ${cases.map(({ name }) => name).join("; ")}.`,
      xLabel: "model",
      yLabel: "independent generators",
      xScale: "linear",
      yScale: "linear",
      curves: [
        { label: "found", predicted: false, x, y: counts, mark: "dots" },
        { label: "found", predicted: true, x, y: cases.map((c) => c.count) },
      ],
    });
    return trial.findings;
  },
};

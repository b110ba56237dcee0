import type { Run } from "../dynamics/result.ts";
import type { Engine } from "../engine.ts";
import { ops } from "../graph/ops.ts";
import { sampler } from "../graph/sampler.ts";
import { symmetry } from "../symmetry/generator.ts";
import { predictions } from "../symmetry/predictions.ts";
import { type Broken, balancePoint, brokenModel, type Law, lawOf, type Point } from "./broken-symmetry.ts";
import type { Curve, Experiment } from "./experiment.ts";
import type { Parameter } from "./spec.ts";
import { at, meanCurve, overReplicas, Trial } from "./trial.ts";

const parameters = {
  eta: { value: 0.01, min: 0.004, max: 0.016, unit: "theta^2 / loss", what: "step size" },
  S: { value: 1, min: 1, max: 8, integer: true, what: "batch size" },
  time: {
    value: 120,
    min: 40,
    max: 160,
    unit: "theta^2 / loss",
    what: "length of all runs, steps times eta",
  },
  replicas: { value: 512, min: 32, max: 1024, integer: true, what: "independent runs per case" },
  zeta: {
    value: 10,
    min: 4,
    max: 20,
    unit: "loss / theta^2",
    what: "the largest ζ; the others are 1/10, ..., 1/10000 of it, and 0",
  },
  centerU: {
    value: 1.6,
    min: 0.8,
    max: 3.2,
    unit: "theta",
    what: "u that the asymmetric part of the loss pulls to",
  },
  centerW: { value: 0.5, min: 0.2, max: 0.8, unit: "theta", what: "w that it pulls to" },
  slope: { value: 1, min: 0.5, max: 2, what: "mean of the labels" },
  noiseSd: { value: 1, min: 0.3, max: 1.2, what: "standard deviation of the labels" },
  ratio: { value: 4, min: 1.5, max: 6, what: "u / w at the start, where u w is the mean label" },
} satisfies Record<string, Parameter>;

type Spec = { [K in keyof typeof parameters]: number };

const A = symmetry.rescaling("u", "w");
const ROUNDING = Number.EPSILON;
/** Parts of the largest zeta. */
const PARTS = [0, 1e-4, 1e-3, 1e-2, 0.1, 1];

interface Case {
  readonly broken: Broken;
  readonly eta: number;
  readonly run: Run;
  readonly law: Law;
}

/** SGD with its prediction, with the work and the pull of the asymmetric part summed over every step. */
async function measureCase(
  trial: Trial,
  engine: Engine,
  spec: Spec,
  zeta: number,
  eta: number,
): Promise<Case> {
  const { S, slope, noiseSd, ratio } = spec;
  const broken: Broken = { zeta, slope, noiseSd, center: { u: spec.centerU, w: spec.centerW } };
  const net = brokenModel(broken);
  const labels = sampler({
    noise: { eps: { kind: "normal", shape: [1] } },
    constants: { mean: [slope] },
    outputs: ({ eps, mean }) => ({ y: ops.add(mean, ops.scale(eps!, noiseSd)) }),
  });
  const problem = engine.problem(net, labels);
  const [u, w] = [net.leaf("u"), net.leaf("w")];
  const toward = (leaf: typeof u, center: number) => ops.mul(leaf, ops.sub(leaf, center));
  const pull = ops.sum(ops.scale(ops.sub(toward(u, spec.centerU), toward(w, spec.centerW)), zeta));
  const root = Math.sqrt(ratio * slope);
  const start: Point = { u: root, w: slope / root };
  const steps = 100 * Math.max(1, Math.round(spec.time / eta / 100));
  const run = await trial.run(
    `SGD, ζ = ${brief(zeta)}, η = ${eta}`,
    problem,
    {
      scheme: "sgd",
      batchSize: S,
      theta: { u: [start.u], w: [start.w] },
      eta,
      steps,
      replicas: spec.replicas,
      record: {
        every: steps / 100,
        charges: { C: A },
        work: true,
        values: { pull },
        average: { from: 1, every: 1 },
      },
    },
    steps,
  );
  problem.dispose();
  return { broken, eta, run, law: lawOf(broken, eta, S, steps, start) };
}

const brief = (x: number): string => String(Number(x.toPrecision(3)));

/** C(end) = C(0) + work - eta sum_k zeta (A theta_k) . grad ell_0, in every run. */
function budget(trial: Trial, { broken, run, eta }: Case): void {
  const { C } = run.series.charges as { C: Float64Array };
  const pull = run.series.values.pull!;
  const mean = run.averages!.values.pull!;
  let wrong = 0;
  for (let r = 0; r < run.replicas; r++) {
    // the average is over steps 1 ... K, the sum over 0 ... K - 1
    const total = run.steps * mean[r]! + at(run, pull, 0, r) - at(run, pull, -1, r);
    const gap = at(run, C, -1, r) - at(run, C, 0, r) - at(run, run.series.work.C!, -1, r) + eta * total;
    let size = 0;
    for (let i = 0; i < run.series.k.length; i++) size = Math.max(size, Math.abs(at(run, C, i, r)));
    const scale = 4 * (size + broken.slope) * (1 + eta * broken.zeta);
    if (!(Math.abs(gap) <= 8 * ROUNDING * run.steps * scale)) wrong++;
  }
  trial.never(
    { setting: `ζ = ${brief(broken.zeta)}`, quantity: "runs with C ≠ C(0) + work − η Σ ζ (Aθ)·∇ℓ₀" },
    wrong,
    run.replicas,
  );
}

const NEGLECTED = "third moments of θ, which change the rates of C by (Var v / v²)²";

/** To first order in sigma^2 about the minimum of the whole loss: at eta and eta / 2, since the rest is of second order. */
async function nearMinimum(trial: Trial, engine: Engine, spec: Spec, whole: Case): Promise<void> {
  const { zeta } = whole.broken;
  const half = await measureCase(trial, engine, spec, zeta, spec.eta / 2);
  const { slope, noiseSd, S } = spec;
  const problem = engine.problem(brokenModel(whole.broken), { y: [slope + noiseSd, slope - noiseSd] });
  const from = balancePoint(whole.broken, 0, { u: spec.centerU, w: spec.centerW });
  const theta = { u: [from.u], w: [from.w] };
  const least = problem.charge(theta, A);
  const pair = async ({ eta, run }: Case) => {
    const shift = await problem.minimumShift(theta, A, { eta, batchSize: S });
    const predicted = { value: shift.charge, modelError: 0, neglects: "second order in σ², finite steps" };
    return { predicted, measured: overReplicas(run, (r) => at(run, run.series.charges.C!, -1, r) - least) };
  };
  trial.limitRow(
    {
      setting: `ζ = ${brief(zeta)}`,
      quantity: `shift of C from ${brief(least)}, its value at the minimum of the loss, by problem.minimumShift`,
    },
    await pair(whole),
    await pair(half),
  );
  problem.dispose();
}

export const brokenSymmetry: Experiment = {
  id: "E17",
  title: "A loss without the symmetry: the charge goes from the noise equilibrium to the minimum of the loss",
  question:
    "Real losses have their symmetries only nearly. When a part ζ ℓ₀ without the symmetry is added, does SGD still go to the noise " +
    "equilibrium, or to the minimum of the loss?",
  source: "Ziyin et al., arXiv:2402.07193, section 4.4, eqs. 18 to 23",
  claim:
    "With ζ the charge rises from 0, the noise equilibrium, to its value at the minimum of the loss; in between it is where the noise " +
    "balances the pull of ζ ℓ₀.",
  formula:
    "dC/dt = sigma^2 Tr[Sigma A] - zeta (A theta) . grad ell_0; at rest sigma^2 Tr[Sigma A] = zeta theta^T A grad ell_0",
  parameters,
  quick: { time: 40, replicas: 32 },

  async measure(engine, given, seed, control) {
    const spec = given as Spec;
    const { eta, S } = spec;
    const trial = new Trial("E17", engine, seed, control, ((PARTS.length + 4) * spec.time) / eta);
    const cases: Case[] = [];
    const curves: Curve[] = [];
    for (const part of PARTS) {
      const one = await measureCase(trial, engine, spec, part * spec.zeta, eta);
      const { run, law, broken } = one;
      cases.push(one);
      const setting = `ζ = ${brief(broken.zeta)}`;
      trial.row(
        { setting, quantity: `mean of C at step ${run.steps}` },
        { value: law.charge[run.steps]!, modelError: law.neglected, neglects: NEGLECTED },
        overReplicas(run, (r) => at(run, run.series.charges.C!, -1, r)),
      );
      budget(trial, one);
      const x = [...run.series.k];
      curves.push({ label: setting, predicted: false, x, y: meanCurve(run, run.series.charges.C!) });
      curves.push({ label: setting, predicted: true, x, y: x.map((k) => law.charge[k]!) });
    }
    for (const one of cases.slice(-2)) await nearMinimum(trial, engine, spec, one);
    trial.figure({
      title: "The charge along SGD, from a loss with the symmetry to one without",
      caption: "Mean of C over the runs (solid) and its law by mean and covariance (dashed).",
      xLabel: "step",
      yLabel: "C = (u² − w²) / 2, in θ²",
      xScale: "linear",
      yScale: "linear",
      curves,
    });
    trial.figure(sweep(cases, predictions.noiseStrength(eta, S)));
    return trial.findings;
  },
};

/** C at the end against zeta, beside where both forces balance and the minimum of the loss. */
function sweep(cases: readonly Case[], sigma2: number) {
  const broken = cases.filter((c) => c.broken.zeta > 0);
  const x = broken.map((c) => c.broken.zeta);
  const charge = ({ u, w }: Point) => 0.5 * (u * u - w * w);
  const ends = broken.map(({ run }) => overReplicas(run, (r) => at(run, run.series.charges.C!, -1, r)));
  const rest = (strength: number) =>
    broken.map((c) => charge(balancePoint(c.broken, strength, c.broken.center)));
  return {
    title: "Between the two fixed points",
    caption:
      "C at the end of the runs (dots), its law there, the balance of noise and pull (eq. 19), where C would go in the end, and its value " +
      "at the minimum of the loss.",
    xLabel: "ζ, in loss/θ²",
    yLabel: "C, in θ²",
    xScale: "log" as const,
    yScale: "linear" as const,
    curves: [
      {
        label: "SGD",
        predicted: false,
        x,
        y: ends.map((e) => e.value),
        error: ends.map((e) => e.stdErr),
        mark: "dots" as const,
      },
      { label: "SGD", predicted: true, x, y: broken.map(({ law, run }) => law.charge[run.steps]!) },
      { label: "balance of noise and pull", predicted: true, x, y: rest(sigma2) },
      { label: "minimum of the loss", predicted: true, x, y: rest(0) },
    ],
  };
}

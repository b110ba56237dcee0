import { exp, log } from "../core/elementary.ts";
import type { Run } from "../dynamics/result.ts";
import type { Engine } from "../engine.ts";
import { model } from "../graph/model.ts";
import { ops } from "../graph/ops.ts";
import type { Problem } from "../problem.ts";
import { type Estimate, exact } from "../stats/estimate.ts";
import { symmetry } from "../symmetry/generator.ts";
import type { Curve, Experiment } from "./experiment.ts";
import { CASES, type Case, dataOf } from "./loss-cases.ts";
import { alongOrbits, type Orbit, orbitOf, squares } from "./rescaling-orbit.ts";
import type { Parameter } from "./spec.ts";
import { at, overReplicas, Trial } from "./trial.ts";

const parameters = {
  eta: {
    value: 0.006,
    min: 0.003,
    max: 0.012,
    unit: "theta^2 / loss",
    what: "step size of the squared loss; 12 times it for logistic and cross-entropy, 8 times for cosine",
  },
  dx: { value: 5, min: 3, max: 12, integer: true, what: "inputs" },
  h: { value: 4, min: 2, max: 8, integer: true, what: "hidden units" },
  dy: { value: 3, min: 2, max: 8, integer: true, what: "outputs, or classes" },
  samples: { value: 200, min: 80, max: 400, integer: true, what: "samples of the data set" },
  noiseSd: { value: 0.7, min: 0.4, max: 1.6, what: "standard deviation of the noise behind the labels" },
  gamma: {
    value: 0.005,
    min: 0.003,
    max: 0.012,
    unit: "loss / theta^2",
    what: "weight decay of the cosine loss, which is scale invariant",
  },
  stdU: { value: 0.3, min: 0.2, max: 0.8, unit: "theta", what: "standard deviation of the initial U" },
  stdW: { value: 0.9, min: 0.4, max: 1.6, unit: "theta", what: "standard deviation of the initial W" },
  times: {
    value: 10,
    min: 8,
    max: 32,
    what: "length of a run in predicted times τ₂; averages over its second half",
  },
  gdSteps: {
    value: 4000,
    min: 2000,
    max: 16_000,
    integer: true,
    what: "steps of gradient descent, where SGD starts",
  },
  probes: {
    value: 160,
    min: 40,
    max: 640,
    integer: true,
    what: "how often along SGD the flow is measured; rounded up to a multiple of 20",
  },
  replicas: { value: 16, min: 8, max: 64, integer: true, what: "independent runs per loss" },
} satisfies Record<string, Parameter>;

type Spec = { [K in keyof typeof parameters]: number };

/** Part of a run whose drift is compared. */
const DRIFT = 0.2;
const UNIT_ROUNDING = Number.EPSILON / 2;

export const universality: Experiment = {
  id: "E32",
  title: "One law for squared, logistic, cross-entropy and cosine loss",
  question:
    "The Noether flow knows the loss only through its gradient noise Σ. Does the rescaling of U W x drift and come to rest by the same " +
    "law under four different losses, each with its own Σ?",
  source: "Ziyin et al., arXiv:2402.07193, eqs. 7, 9 and 10; theory.md, E32",
  claim:
    "Started where gradient descent has come to rest, with layers whose noise differs by a factor of about five, SGD brings the ratio of their " +
    "noise to 1 along the predicted curve under every loss without decay; the cosine loss balances noise against decay.",
  formula:
    "dC/dt = sigma^2 Tr[Sigma A] - 4 gamma C + (eta/2) gbar^T A gbar; at rest ln(N+/N-) = 0, or N+ - N- = 4 gamma C",
  parameters,
  quick: { replicas: 8, dx: 3, h: 2, dy: 2, samples: 80, eta: 0.012, gdSteps: 2000, times: 8, probes: 40 },

  async measure(engine, given, seed, control) {
    const spec = given as Spec;
    const trial = new Trial("E32", engine, seed, control, CASES.length);
    const curves: Curve[] = [];
    for (const one of CASES) curves.push(...(await underLoss(trial, engine, one, spec)));
    trial.figure({
      title: "The noise of the layers comes to balance",
      caption:
        "Logarithm of the ratio of the gradient noise of U to that of W, mean over the runs, from the end of gradient descent on; dashed: " +
        "the orbit of Theorem 1 followed by dλ/dt = f(λ)/‖Aθ‖².",
      xLabel: "time / τ₂",
      yLabel: "ln(Tr Σ_U / Tr Σ_W)",
      xScale: "linear",
      yScale: "linear",
      curves,
    });
    return trial.findings;
  },
};

/** All rows of one loss; its curves. */
async function underLoss(trial: Trial, engine: Engine, one: Case, spec: Spec): Promise<Curve[]> {
  const { name, S } = one;
  const eta = one.factor * spec.eta;
  const gamma = one.decays ? spec.gamma : 0;
  const { dx, h, dy, replicas } = spec;
  const net = model({
    params: { U: [dy, h], W: [h, dx] },
    inputs: { x: [dx], y: [dy] },
    loss: ({ U, W, x, y }) => one.loss(ops.matmul(U, ops.matmul(W, x)), y),
  });
  const problem = engine.problem(net, dataOf(engine, one, spec, trial.seedOf("teacher")), {
    samples: spec.samples,
    dataSeed: trial.seedOf(`data, ${name}`),
  });
  const A = symmetry.rescaling("U", "W");
  const start = problem.init("normal", {
    std: { U: spec.stdU, W: spec.stdW },
    seed: trial.seedOf(`start, ${name}`),
    replicas,
  });
  const gd = await trial.run(
    `gradient descent, ${name}`,
    problem,
    {
      scheme: "gd",
      theta: start,
      eta,
      steps: spec.gdSteps,
      replicas,
      record: { every: spec.gdSteps, charges: { C: A }, work: true },
    },
    0.2,
  );
  descent(trial, gd, `gradient descent, ${name}`);
  const thetas = Array.from({ length: replicas }, (_, r) =>
    Float64Array.from(gd.theta.slice(r * gd.P, (r + 1) * gd.P)),
  );
  const strength = { eta, batchSize: S, weightDecay: gamma };
  const starts = thetas.map((theta) => orbitOf(problem, theta, strength));
  // where scales drift too, no orbit takes longer than the decay allows
  const tau = gamma > 0 ? 1 / (4 * gamma) : Math.max(...starts.map((o) => o.tau));
  const count = 20 * Math.ceil(spec.probes / 20);
  const every = Math.max(1, Math.ceil((spec.times * tau) / (eta * count)));
  const run = await trial.run(
    `SGD, ${name}`,
    problem,
    {
      scheme: "sgd",
      theta: thetas,
      batchSize: S,
      eta,
      weightDecay: gamma,
      steps: every * count,
      replicas,
      record: { every, charges: { C: A }, work: true, average: { from: 1, every: 1 } },
      probes: {
        every,
        flow: true,
        measures: {
          parts: (theta) => {
            const { plus, minus, decay } = problem.noetherFlow(theta, A, strength);
            return [plus, minus, decay, 2 * gamma * squares(theta)];
          },
        },
      },
    },
    0.8,
  );
  budget(trial, run, `SGD, ${name}`, eta, gamma);
  drift(trial, run, `SGD, ${name}`);
  const neglected = await meanGradients(problem, engine, starts[0]!.theta, eta);
  balance(trial, run, `SGD, ${name}`, spec.times, neglected + eta * gamma, starts, gamma);
  problem.dispose();
  if (gamma > 0) return [];
  const parts = run.probes!.values["parts"]!;
  const times = Array.from(run.series.k, (k) => k * eta);
  const mean = (f: (r: number) => number) => overReplicas(run, f).value;
  return [
    {
      label: name,
      predicted: false,
      x: times.map((t) => t / tau),
      y: times.map((_, i) => mean((r) => log(at(run, parts, i, r, 0) / at(run, parts, i, r, 1)))),
    },
    {
      label: name,
      predicted: true,
      x: times.map((t) => t / tau),
      y: alongOrbits(starts, every * eta, count),
    },
  ];
}

/** What gradient descent moves at finite eta, exactly sum eta^2/2 gbar^T A gbar: mean size over the runs. */
function descent(trial: Trial, gd: Run, setting: string): void {
  const { charges, work } = gd.series;
  const size = (f: (r: number) => number) => overReplicas(gd, (r) => Math.abs(f(r))).value;
  const moved = size((r) => at(gd, charges["C"]!, -1, r) - at(gd, charges["C"]!, 0, r));
  trial.row(
    { setting, quantity: "|C(end) − C(0)| = |Σ(η²/2)ḡᵀAḡ|, mean over runs" },
    {
      value: size((r) => at(gd, work["C"]!, -1, r)),
      modelError: (4 * gd.steps * UNIT_ROUNDING * squares(gd.theta)) / gd.replicas,
      neglects: "rounding, at most 4 · 2⁻⁵³ ‖θ‖² a step",
    },
    exact(moved, gd.replicas),
  );
}

/** C(K) - C(0) = sum eta^2/2 g^T A g - 4 eta gamma (1 - eta gamma) sum C_k, to rounding. */
function budget(trial: Trial, run: Run, setting: string, eta: number, gamma: number): void {
  const C = run.series.charges["C"]!;
  const K = run.steps;
  let worst = 0;
  for (let r = 0; r < run.replicas; r++) {
    const [first, last] = [at(run, C, 0, r), at(run, C, -1, r)];
    const sum = K * run.averages!.charges["C"]![r]! - last + first;
    const work = at(run, run.series.work["C"]!, -1, r);
    worst = Math.max(worst, Math.abs(last - first - work + 4 * eta * gamma * (1 - eta * gamma) * sum));
  }
  const size = squares(run.theta) / run.replicas;
  trial.row(
    { setting, quantity: "largest |C(K) − C(0) − Σ(η²/2)ĝᵀAĝ + 4ηγ(1 − ηγ)ΣC|" },
    {
      value: 0,
      modelError: 4 * K * UNIT_ROUNDING * size,
      neglects: "rounding, at most 4 · 2⁻⁵³ ‖θ‖² a step",
    },
    exact(worst, run.replicas),
  );
}

/** The mean of the measured drift beside that of the flow summed along each run. */
function drift(trial: Trial, run: Run, setting: string): void {
  const count = run.probes!.k.length - 1;
  const record = 4 * Math.ceil((DRIFT * count) / 4);
  const { values } = run.probes!;
  const flow = values["flow.C"]!;
  const every = run.steps / count;
  // the trapezoids at twice the spacing, whose error is four times that of the sum itself
  const coarse = overReplicas(run, (r) => {
    let sum = 0;
    for (let i = 0; i < record; i += 2) sum += every * (at(run, flow, i, r) + at(run, flow, i + 2, r));
    return sum;
  }).value;
  const predicted = overReplicas(
    run,
    (r) => at(run, values["predicted.C"]!, record, r) - at(run, values["predicted.C"]!, 0, r),
  );
  const C = run.series.charges["C"]!;
  const moved = (r: number) => at(run, C, record, r) - at(run, C, 0, r);
  // the doubt is that of the difference, run by run
  const gap = overReplicas(
    run,
    (r) => moved(r) - (at(run, values["predicted.C"]!, record, r) - at(run, values["predicted.C"]!, 0, r)),
  );
  const measured: Estimate = { ...gap, value: overReplicas(run, moved).value };
  trial.row(
    { setting, quantity: `C(k) − C(0) at step ${record * every} = Σ η (σ² Tr[ΣA] − 4γC + (η/2)ḡᵀAḡ)` },
    {
      value: predicted.value,
      modelError: Math.abs(coarse - predicted.value) / 3,
      neglects: "the trapezoids between the probes, a third of what twice the spacing changes",
    },
    measured,
  );
}

/** Relative size of mean gradients in the second moment: (eta / 2) Tr[H Sigma] / Tr Sigma. */
async function meanGradients(
  problem: Problem,
  engine: Engine,
  theta: Float64Array,
  eta: number,
): Promise<number> {
  const P = problem.P;
  const square = (values: ArrayLike<number>) => ({ rows: P, cols: P, values: Float64Array.from(values) });
  const { dense } = engine;
  const H = square(await problem.hessian(theta));
  const Sigma = square(await problem.noiseCovariance(theta));
  return (0.5 * eta * Math.abs(dense.trace(dense.matmul(H, Sigma)))) / dense.trace(Sigma);
}

/** Averages over the second half: the normalised residual of eq. 9, and without decay the ratio of both sides. */
function balance(
  trial: Trial,
  run: Run,
  setting: string,
  times: number,
  neglected: number,
  starts: readonly Orbit[],
  gamma: number,
): void {
  const parts = run.probes!.values["parts"]!;
  const count = run.probes!.k.length - 1;
  const half = (r: number, e: number) => {
    let sum = 0;
    for (let i = count / 2; i <= count; i++) sum += at(run, parts, i, r, e);
    return sum;
  };
  // the mean of e^(-t / tau_2) over the second half
  const left = (2 * (exp(-0.5 * times) - exp(-times))) / times;
  const neglects = "mean gradients, relative (η/2) Tr[HΣ]/Tr Σ, and what is left of the start, e^(−t/τ₂)";
  trial.row(
    { setting, quantity: "(N₊ − N₋ − 4γC)/(N₊ + N₋ + 2γ‖θ‖²) at rest" },
    { value: 0, modelError: neglected + left, neglects },
    overReplicas(run, (r) => (half(r, 0) - half(r, 1) + half(r, 2)) / (half(r, 0) + half(r, 1) + half(r, 3))),
  );
  if (gamma > 0) return;
  const first = starts.reduce((sum, o) => sum + Math.abs(log(o.plus / o.minus)) / starts.length, 0);
  // sinh(ln(N+ / N-) / 2) falls as e^(-t / tau_2) all the way
  const reach = exp(0.5 * first) - exp(-0.5 * first);
  trial.row(
    { setting, quantity: `ln(N₊/N₋) at rest; ${first.toPrecision(3)} where gradient descent ended` },
    { value: 0, modelError: 2 * neglected + left * reach, neglects },
    overReplicas(run, (r) => log(half(r, 0) / half(r, 1))),
  );
}

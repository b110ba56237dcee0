import { exp } from "../core/elementary.ts";
import type { Engine } from "../engine.ts";
import { exact } from "../stats/estimate.ts";
import type { Curve, Experiment } from "./experiment.ts";
import {
  cubicCharge,
  descentChange,
  exponentialCharge,
  type GeneralCharge,
  labels,
  type Point,
} from "./general-charges.ts";
import { softmaxTranslation } from "./softmax-translation.ts";
import type { Parameter } from "./spec.ts";
import { at, meanCurve, overReplicas, Trial } from "./trial.ts";

const parameters = {
  eta: {
    value: 0.01,
    min: 0.004,
    max: 0.016,
    unit: "theta^2 / loss",
    what: "step size for a eᵇ; a fifth of it for a³ + b",
  },
  steps: {
    value: 5000,
    min: 1000,
    max: 8000,
    integer: true,
    what: "steps; four times as many at half the step size",
  },
  S: { value: 1, min: 1, max: 8, integer: true, what: "batch size" },
  noiseSd: { value: 1, min: 0.3, max: 1.2, unit: "1", what: "standard deviation of the label noise" },
  target: { value: 1, min: 0.5, max: 2, what: "mean of the labels" },
  b0: { value: 0.7, min: 0.2, max: 1, what: "start of b for a eᵇ; a makes a eᵇ the target" },
  a0: {
    value: 1,
    min: 0.6,
    max: 1.2,
    what: "size of a at the start for a³ + b: larger ones need smaller steps; b makes a³ + b the target",
  },
  replicas: { value: 512, min: 16, max: 1024, integer: true, what: "independent runs" },
  classes: { value: 4, min: 2, max: 12, integer: true, what: "classes of the softmax layer" },
  d: { value: 5, min: 2, max: 12, integer: true, what: "inputs of the softmax layer" },
  samples: {
    value: 200,
    min: 50,
    max: 400,
    integer: true,
    what: "samples of the softmax layer, with random labels",
  },
} satisfies Record<string, Parameter>;

type Spec = { [K in keyof typeof parameters]: number };

/** Rounding of one operation, relative. */
const ROUNDING = Number.EPSILON;
/** Replicas and steps of the runs that are looked at step by step. */
const WITNESSES = 8;
const WATCHED = 1000;

interface Case {
  readonly of: GeneralCharge;
  readonly name: string;
  readonly start: Point;
  readonly eta: number;
  /** How long gradient descent takes to the valley, in time. */
  readonly descent: number;
}

function casesOf({ eta, b0, a0, target }: Spec): Case[] {
  const of = cubicCharge();
  const cubics = [a0, -a0].map((a) => ({
    of,
    name: `a³ + b, a ${a > 0 ? ">" : "<"} 0`,
    start: { a, b: target - a * a * a },
    eta: eta / 5,
    descent: 10,
  }));
  const start = { a: target * exp(-b0), b: b0 };
  return [{ of: exponentialCharge(), name: "a eᵇ", start, eta, descent: 20 }, ...cubics];
}

const thetaOf = ({ a, b }: Point) => ({ a: [a], b: [b] });

/** Work of the runs of a case. */
const workOf = (spec: Spec): number => 5 * spec.steps * spec.S * spec.replicas;

/** SGD along the valley, at eta and at eta / 2 for four times as many steps, against the Noether flow followed along the valley. */
async function drift(trial: Trial, engine: Engine, spec: Spec, one: Case): Promise<Curve[]> {
  const { of, name, start } = one;
  const { S, noiseSd, target } = spec;
  const problem = engine.problem(of.net, labels(target, noiseSd));
  const begin = of.value(start);
  const pair = async (eta: number, steps: number) => {
    const every = Math.max(1, Math.floor(steps / 100));
    const run = await trial.run(
      `SGD, ${name}, η = ${eta}`,
      problem,
      {
        scheme: "sgd",
        batchSize: S,
        theta: thetaOf(start),
        eta,
        steps: every * Math.floor(steps / every),
        replicas: spec.replicas,
        record: { every, values: { C: of.charge } },
      },
      steps * S * spec.replicas,
    );
    // 4 sigma^2 sd^2 t
    const amount = (k: number) => ((2 * eta) / S) * noiseSd * noiseSd * eta * k;
    const change = (k: number) => of.value(of.along(start, target, amount(k))) - begin;
    const neglects = "fluctuations about the valley and finite steps, relative O(η)";
    const predicted = { value: change(run.steps), modelError: 0, neglects };
    const C = run.series.values.C!;
    const measured = overReplicas(run, (r) => at(run, C, -1, r) - at(run, C, 0, r));
    return { run, predicted, measured, amount, change };
  };
  const whole = await pair(one.eta, spec.steps);
  const half = await pair(one.eta / 2, 4 * spec.steps);
  problem.dispose();
  const about = {
    setting: `SGD, ${of.name}, a(0) = ${brief(start.a)}`,
    quantity: `C(end) − C(0) at step ${whole.run.steps}`,
  };
  trial.limitRow(about, whole, half);
  const { run, amount, change } = whole;
  const k = [...run.series.k];
  const x = k.map(amount);
  return [
    { label: name, predicted: false, x, y: meanCurve(run, run.series.values.C!).map((c) => c - begin) },
    { label: name, predicted: true, x, y: k.map(change) },
  ];
}

const brief = (x: number): string => String(Number(x.toPrecision(4)));

/** What holds in every single step: the change of C is a square with the sign of its second derivative. */
async function stepByStep(
  trial: Trial,
  engine: Engine,
  spec: Spec,
  { of, name, start, eta }: Case,
): Promise<void> {
  const problem = engine.problem(of.net, labels(spec.target, spec.noiseSd));
  const run = await trial.run(`SGD, ${name}, every step`, problem, {
    scheme: "sgd",
    batchSize: spec.S,
    theta: thetaOf(start),
    eta,
    steps: Math.min(WATCHED, spec.steps),
    replicas: WITNESSES,
    record: { every: 1, values: { C: of.charge, a: of.net.leaf("a"), b: of.net.leaf("b") } },
  });
  problem.dispose();
  const { C, a, b } = run.series.values as Record<"C" | "a" | "b", Float64Array>;
  let [wrong, against] = [0, 0];
  for (let k = 1; k <= run.steps; k++) {
    for (let r = 0; r < run.replicas; r++) {
      const [before, after] = [at(run, a, k - 1, r), at(run, a, k, r)];
      const change = at(run, C, k, r) - at(run, C, k - 1, r);
      const point = { a: after, b: at(run, b, k, r) };
      // a and b are rounded in three operations, which C passes on by its gradient; then C itself
      const gradient = of.slope(point);
      const passed = Math.abs(gradient.b / gradient.a) * Math.abs(after);
      const rounding = 16 * ROUNDING * (1 + passed + Math.abs(point.b) + after * after + 1 / Math.abs(after));
      if (!(Math.abs(change - of.change(before, after)) <= rounding)) wrong++;
      if (change * of.bend(point) < -rounding * Math.abs(of.bend(point))) against++;
    }
  }
  const setting = `SGD, ${of.name}, a(0) = ${brief(start.a)}`;
  const count = run.steps * run.replicas;
  trial.never(
    { setting, quantity: "steps that change C by another amount than the exact one" },
    wrong,
    count,
  );
  trial.never({ setting, quantity: "steps that move C against the sign of gᵀ ∇²C g" }, against, count);
}

/** The engine's own Noether flow on two labels of the same mean and variance, and whether C is conserved. */
function flowAtStart(trial: Trial, engine: Engine, spec: Spec, { of, start, eta }: Case): void {
  const { target, noiseSd, S } = spec;
  const problem = engine.problem(of.net, { y: [target + noiseSd, target - noiseSd] });
  const flow = problem.chargeFlow(thetaOf(start), of.charge, { eta, batchSize: S });
  const { verdict } = problem.checkCharge(of.charge);
  problem.dispose();
  const value = ((2 * eta) / S) * noiseSd * noiseSd * of.bend(start);
  const setting = `${of.name}, a(0) = ${brief(start.a)}`;
  trial.row(
    { setting, quantity: "dC/dt at the start, σ² Tr[Σ ∇²C], by problem.chargeFlow" },
    { value, modelError: 64 * ROUNDING * Math.abs(value), neglects: "rounding of some dozen operations" },
    exact(flow.noise, 2),
  );
  trial.never(
    { setting, quantity: "∇C · g ≠ 0 for some sample, by problem.checkCharge" },
    verdict === "exact" ? 0 : 1,
    1,
  );
}

/** Gradient descent on to the valley: it moves C by O(eta), as the integral along gradient flow says. */
async function descent(trial: Trial, engine: Engine, spec: Spec, one: Case): Promise<void> {
  const { of, name, eta } = one;
  const { target } = spec;
  const from = 0.5 * target;
  const start = of.reached(of.value(one.start), from, one.start);
  const perEta = descentChange(of, start, from, target);
  const problem = engine.problem(of.net, { y: [target] });
  const pair = async (size: number) => {
    const steps = Math.ceil(one.descent / size);
    const record = { every: steps, values: { C: of.charge } };
    const run = await trial.run(
      `gradient descent, ${name}, η = ${size}`,
      problem,
      { scheme: "gd", theta: thetaOf(start), eta: size, steps, record },
      steps,
    );
    const C = run.series.values.C!;
    return {
      predicted: { value: perEta, modelError: 0, neglects: "higher orders of η" },
      measured: overReplicas(run, () => (at(run, C, -1, 0) - at(run, C, 0, 0)) / size),
    };
  };
  const [whole, half] = [await pair(eta), await pair(eta / 2)];
  problem.dispose();
  trial.limitRow(
    {
      setting: `gradient descent, ${of.name}, from F = ${brief(from)}`,
      quantity: "(C(end) − C(0))/η, ½ ∫ ḡᵀ ∇²C ḡ dt",
    },
    whole,
    half,
  );
}

export const generalCharges: Experiment = {
  id: "E30",
  title: "Charges that are not quadratic drift by their second derivative; those without one stay",
  question:
    "Symmetries need not be linear: (a eᵇ − y)² does not change along a → e^−λ a, b → b + λ, and a softmax layer may have any vector added to " +
    "all its rows. What does SGD do to their charges?",
  source: "Ziyin et al., arXiv:2402.07193, eq. 5; theory, section 2.2",
  claim:
    "Each charge follows its Noether flow σ² Tr[Σ ∇²C] along the valley: down for b − a²/2, with the sign of −a for −1/(3a) − b, and not at all for " +
    "the rows of the softmax layer, while their norm changes.",
  formula:
    "dC/dt = sigma^2 Tr[Sigma Hess C]: -4 sigma^2 s^2 e^(2 b) for a e^b, -24 sigma^2 s^2 a for a^3 + b, 0 for sum_k W_k",
  parameters,
  quick: { steps: 1000, replicas: 32, samples: 50 },

  async measure(engine, given, seed, control) {
    const spec = given as Spec;
    const cases = casesOf(spec);
    const once = WITNESSES * 4 * spec.steps * spec.S;
    const descents = cases.reduce((sum, c) => sum + (3 * c.descent) / c.eta, 0);
    const trial = new Trial(
      "E30",
      engine,
      seed,
      control,
      cases.length * (workOf(spec) + 1) + once + descents + 6,
    );
    const curves: Curve[] = [];
    for (const one of cases) {
      curves.push(...(await drift(trial, engine, spec, one)));
      await stepByStep(trial, engine, spec, one);
      flowAtStart(trial, engine, spec, one);
      await descent(trial, engine, spec, one);
    }
    trial.figure({
      title: "Drift of two charges that are not quadratic",
      caption:
        "Mean of C − C(0) over the runs (solid) and the Noether flow followed along the valley (dashed).",
      xLabel: "4 σ² s² t, s² the variance of the labels",
      yLabel: "C − C(0)",
      xScale: "linear",
      yScale: "linear",
      curves,
    });
    await softmaxTranslation(trial, engine, {
      ...spec,
      eta: 5 * spec.eta,
      steps: 4 * spec.steps,
      replicas: WITNESSES,
    });
    return trial.findings;
  },
};

import { exp, log } from "../core/elementary.ts";
import type { Run } from "../dynamics/result.ts";
import { type Estimate, meanOf } from "../stats/estimate.ts";
import { solveEquilibrium } from "../symmetry/equilibrium.ts";
import { symmetry } from "../symmetry/generator.ts";
import { noiseStrength } from "../symmetry/predictions/noise.ts";
import type { Curve, Experiment } from "./experiment.ts";
import { linearNet, teacherSampler } from "./linear-net.ts";
import { restOf } from "./linear-rest.ts";
import type { Parameter } from "./spec.ts";
import { at, Trial } from "./trial.ts";
import { UnitLaw, type UnitTask } from "./unit-moments.ts";
import { NEGLECTS, neglectedBy, teacherOf } from "./unit-valley.ts";

const parameters = {
  eta: {
    value: 0.01,
    min: 0.006,
    max: 0.024,
    unit: "theta^2 / loss",
    what: "step size; also a run at half of it",
  },
  batch: { value: 4, min: 1, max: 8, integer: true, what: "batch size" },
  gamma: {
    value: 0.01,
    min: 0.002,
    max: 0.03,
    unit: "loss / theta^2",
    what: "weight decay of the second case; the first has none",
  },
  dy: { value: 2, min: 1, max: 6, integer: true, what: "outputs; the input is one number" },
  slope: { value: 1, min: 0.5, max: 1.5, what: "y = slope (1, ..., 1) x + noise" },
  xSd: {
    value: 1,
    min: 0.5,
    max: 1.2,
    what: "standard deviation of x; more is beyond the edge of stability after a large kick",
  },
  noiseSd: { value: 1, min: 0.6, max: 2.4, what: "standard deviation of the label noise" },
  kick: {
    value: 1,
    min: 0.25,
    max: 1,
    what: "largest lambda of e^(lambda A); also .3 and .1 of it. 1 takes |u|^2 to seven times",
  },
  replicas: {
    value: 48,
    min: 8,
    max: 1024,
    integer: true,
    what: "independent streams, each shared by the kicked and the unkicked",
  },
} satisfies Record<string, Parameter>;

type Spec = { [K in keyof typeof parameters]: number };

/** Kicks in units of the largest, the control first. */
const KICKS = [0, -0.1, 0.1, -0.3, 0.3, -1, 1];
/** Times in tau_2: the rate is taken between the first two, and what is left at the second; then the end. */
const TIMES = [2, 4, 5] as const;
const PERIODS = 100;
/** Samples visited in one run, at most, above 8 streams. */
const MOST_WORK = 1e8;

/** One equilibrium, kicked. */
interface Case {
  readonly eta: number;
  readonly S: number;
  readonly gamma: number;
  readonly kicks: readonly number[];
}

export const attractive: Experiment = {
  id: "E28",
  title: "Theorem 1: the fixed point on every orbit attracts, from both sides",
  question:
    "Theorem 1 says that every orbit of the symmetry has one fixed point of the Noether flow, and that it attracts. Kick SGD off the " +
    "equilibrium along the orbit, which costs no loss: does it come back, and at the rate 1/τ₂ = 2σ² Tr[AΣA]/‖Aθ‖² + 4γ?",
  source: "Ziyin et al., arXiv:2402.07193, Theorem 1; theory.md, 4, 5 and E28",
  claim:
    "The charge of kicked runs approaches that of unkicked ones on the same random numbers, from above and from below, with the same slope " +
    "on the logarithmic scale, close to the prediction.",
  formula:
    "d(C - C_control)/dt = -(C - C_control)/tau_2 late, 1/tau_2 = 2 sigma^2 Tr[A Sigma A] / |A theta|^2 + 4 gamma",
  parameters,
  quick: { replicas: 8, eta: 0.02, batch: 1 },

  async measure(engine, given, seed, control) {
    const spec = given as Spec;
    const V = new Float64Array(spec.dy).fill(spec.slope);
    const task: UnitTask = { V, varX: spec.xSd * spec.xSd, varEps: spec.noiseSd * spec.noiseSd };
    const teacher = teacherOf(engine, task);
    const problem = engine.problem(linearNet(1, 1, spec.dy), teacherSampler(engine, teacher));
    const S = spec.batch;
    const scaled = (kicks: readonly number[]) => kicks.map((x) => x * spec.kick);
    const cases: Case[] = [0, spec.gamma].map((gamma) => ({ eta: spec.eta, S, gamma, kicks: scaled(KICKS) }));
    const halves = cases.map((c) => ({ ...c, eta: 0.5 * c.eta, kicks: scaled(KICKS.slice(0, 3)) }));
    const plans = [...cases, ...halves].map((one) => {
      const rest = restOf(engine, teacher, 1, one);
      const u = rest.U.values.reduce((sum, x) => sum + x * x, 0);
      const w = rest.W.values[0]! * rest.W.values[0]!;
      const sigma2 = noiseStrength(one.eta, S);
      const fixed = solveEquilibrium(
        [
          { mu: 1, s: rest.noise.U, q: u },
          { mu: -1, s: rest.noise.W, q: w },
        ],
        { sigma2, gamma: one.gamma },
      );
      const every = Math.ceil(TIMES[2] / (fixed.rate * one.eta * PERIODS));
      // slow settings take fewer streams: the streams are shared, so few say much
      const work = every * PERIODS * S * one.kicks.length;
      const replicas = Math.max(8, Math.min(spec.replicas, Math.floor(MOST_WORK / work)));
      return { ...one, theta: [...rest.U.values, rest.W.values[0]!], fixed, every, replicas };
    });
    const trial = new Trial(
      "E28",
      engine,
      seed,
      control,
      plans.reduce((sum, { every, kicks }) => sum + every * kicks.length, 0),
    );
    const rates: { value: number; measured: Estimate }[] = [];
    for (const plan of plans) {
      const { eta, gamma, kicks, every, fixed, replicas } = plan;
      const name = `γ = ${gamma}, η = ${eta}`;
      const starts = kicks.map((lambda) => kicked(plan.theta, lambda));
      const run = await trial.run(
        name,
        problem,
        {
          scheme: "sgd",
          batchSize: S,
          eta,
          weightDecay: gamma,
          steps: every * PERIODS,
          replicas: kicks.length * replicas,
          theta: starts.flatMap((start) => Array.from({ length: replicas }, () => start)),
          streams: kicks.flatMap(() => Array.from({ length: replicas }, (_, r) => r)),
          record: { every, charges: { C: symmetry.rescaling("U", "W") } },
        },
        every * kicks.length,
      );
      const law = starts.map((start) => lawOf(task, plan, start));
      const record = (time: number) => Math.round(time / (fixed.rate * eta * every));
      const [early, late] = [record(TIMES[0]), record(TIMES[1])];
      const tau = 1 / fixed.rate;
      const span = ((late - early) * every * eta) / tau;
      const size = 0.5 * Math.max(...starts.map((start) => start.reduce((sum, x) => sum + x * x, 0)));
      for (const [i, lambda] of kicks.entries()) {
        if (i === 0) continue;
        const charges = run.series.charges["C"]!;
        const predicted = (j: number) => law[i]![j]! - law[0]![j]!;
        const difference = (j: number, r: number) =>
          at(run, charges, j, i * replicas + r) - at(run, charges, j, r);
        const rate = rateOf(difference, early, late, span, replicas);
        if (plan.kicks.length < KICKS.length || i <= 2) rates.push({ value: lambda, measured: rate });
        if (plan.kicks.length < KICKS.length) continue;
        const setting = `${name}, kick λ = ${lambda}`;
        const relative = neglectedBy(task, plan, lambda > 0 ? size : -size, fixed.charge);
        const expected = log(predicted(early) / predicted(late)) / span;
        trial.row(
          {
            setting,
            quantity: `rate of C − C_control between ${TIMES[0]} and ${TIMES[1]} τ₂, times τ₂; Theorem 1: 1`,
          },
          { value: expected, modelError: relative * expected, neglects: NEGLECTS },
          rate,
        );
        const kick = predicted(0);
        trial.row(
          { setting, quantity: `(C − C_control) / its start (${kick.toPrecision(3)}) after ${TIMES[1]} τ₂` },
          {
            value: predicted(late) / kick,
            modelError: TIMES[1] * relative * (predicted(late) / kick),
            neglects: `${NEGLECTS}, over ${TIMES[1]} τ₂`,
          },
          meanOf(
            Float64Array.from({ length: replicas }, (_, r) => difference(late, r) / kick),
            "mean over streams",
          ),
        );
      }
      if (plan.kicks.length < KICKS.length) continue;
      const mean = law[0]!.slice(early).reduce((a, b) => a + b, 0) / (PERIODS + 1 - early);
      const end = neglectedBy(task, plan, fixed.charge, fixed.charge);
      trial.row(
        {
          setting: name,
          quantity: `C of the control from ${TIMES[0]} τ₂ on; Theorem 1: ${fixed.charge.toPrecision(4)}`,
        },
        {
          value: mean,
          modelError: end * 0.5 * plan.theta.reduce((sum, x) => sum + x * x, 0),
          neglects: NEGLECTS,
        },
        controlOf(run, replicas, early),
      );
      trial.figure(figureOf(run, law, plan.kicks, fixed.rate * eta, gamma, replicas));
    }
    problem.dispose();
    // the kicks of a tenth, at eta and at half of it
    for (const [i, { gamma, eta }] of cases.entries()) {
      for (const j of [0, 1]) {
        const one = (k: number) => ({
          predicted: { value: 1, modelError: 0, neglects: "terms of relative O(η): the gap halves with η" },
          measured: rates[k * 2 + j]!.measured,
        });
        trial.limitRow(
          {
            setting: `γ = ${gamma}, η = ${eta} and half of it, kick λ = ${rates[j]!.value}`,
            quantity: "rate of C − C_control, times τ₂",
          },
          one(i),
          one(i + 2),
        );
      }
    }
    return trial.findings;
  },
};

/** e^(lambda A) theta of (u, w). */
function kicked(theta: readonly number[], lambda: number): Float64Array {
  return Float64Array.from(theta, (x, i) => x * exp(i < theta.length - 1 ? lambda : -lambda));
}

/** Mean charge at every record. */
function lawOf(
  task: UnitTask,
  plan: { eta: number; S: number; gamma: number; every: number },
  start: Float64Array,
): Float64Array {
  const law = new UnitLaw(task, plan, start);
  const charge = new Float64Array(PERIODS + 1);
  charge[0] = law.charge;
  for (let i = 1; i <= PERIODS; i++) {
    for (let k = 0; k < plan.every; k++) law.step();
    charge[i] = law.charge;
  }
  return charge;
}

/** ln(D1 / D2) / span of the means over streams, with the standard error of its linear part. */
function rateOf(
  difference: (record: number, r: number) => number,
  early: number,
  late: number,
  span: number,
  replicas: number,
): Estimate {
  const all = (record: number) => Float64Array.from({ length: replicas }, (_, r) => difference(record, r));
  const [first, second] = [all(early), all(late)];
  const [a, b] = [meanOf(first).value, meanOf(second).value];
  const rate = log(a / b) / span;
  return meanOf(
    first.map((x, r) => rate + (x / a - second[r]! / b) / span),
    "ratio of means over streams",
  );
}

/** Mean over time and streams of the charge of the control. */
function controlOf(run: Run, replicas: number, from: number): Estimate {
  const records = run.series.k.length;
  const charges = run.series.charges["C"]!;
  const terms = Float64Array.from({ length: replicas }, (_, r) => {
    let sum = 0;
    for (let i = from; i < records; i++) sum += at(run, charges, i, r);
    return sum / (records - from);
  });
  return meanOf(terms, `mean over ${replicas} streams`);
}

function figureOf(
  run: Run,
  law: readonly Float64Array[],
  kicks: readonly number[],
  rate: number,
  gamma: number,
  replicas: number,
) {
  const x = Array.from(run.series.k, (k) => k * rate);
  const charges = run.series.charges["C"]!;
  const curves: Curve[] = [3, 5, 6].flatMap((i) => {
    const label = `λ = ${kicks[i]}`;
    const y = x.map((_, j) => {
      let sum = 0;
      for (let r = 0; r < replicas; r++)
        sum += at(run, charges, j, i * replicas + r) - at(run, charges, j, r);
      return Math.abs(sum / replicas);
    });
    const predicted = x.map((_, j) => Math.abs(law[i]![j]! - law[0]![j]!));
    return [
      { label, predicted: false, x, y },
      { label, predicted: true, x, y: predicted },
    ];
  });
  return {
    title: `Back to the fixed point, γ = ${gamma}`,
    caption:
      "Mean distance of the charge of kicked runs from unkicked ones on the same random numbers, and the recursion of mean and covariance (dashed).",
    xLabel: "time / τ₂",
    yLabel: "|C − C_control| (θ²)",
    xScale: "linear" as const,
    yScale: "log" as const,
    curves,
  };
}

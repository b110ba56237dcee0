import type { Run } from "../dynamics/result.ts";
import { model } from "../graph/model.ts";
import { ops } from "../graph/ops.ts";
import { type Estimate, exact } from "../stats/estimate.ts";
import type { Prediction } from "../stats/verdict.ts";
import { symmetry } from "../symmetry/generator.ts";
import type { Curve, Experiment } from "./experiment.ts";
import { normalMatrix } from "./linear-net.ts";
import type { Parameter } from "./spec.ts";
import { at, meanCurve, Trial } from "./trial.ts";

const parameters = {
  eta: {
    value: 0.01,
    min: 0.0025,
    max: 0.02,
    unit: "theta^2 / loss; theta for Adam and RMSProp",
    what: "step size; with momentum eta / (1 - beta)",
  },
  time: { value: 30, min: 20, max: 80, what: "steps times eta" },
  beta: { value: 0.9, min: 0.2, max: 0.9, what: "momentum" },
  u0: { value: 2, min: 1, max: 4, unit: "theta", what: "mean start of u" },
  w0: { value: 0.3, min: 0.1, max: 0.5, unit: "theta", what: "mean start of w" },
  spread: { value: 0.1, min: 0.02, max: 0.15, what: "relative standard deviation of the starts" },
  starts: { value: 8, min: 8, max: 64, integer: true, what: "starts, the same for all optimisers" },
} satisfies Record<string, Parameter>;

type Spec = { [K in keyof typeof parameters]: number };

interface Point {
  readonly u: number;
  readonly w: number;
}

const A = symmetry.rescaling("u", "w");
const ROUNDING = Number.EPSILON;

/**
 * Integral of delta^2 dt along the gradient flow of (u w - 1)^2 to the minimum, delta = 2 (v - 1), v = u w. Q = u^2 - w^2 stays, and dv/dt =
 * -delta sqrt(Q^2 + 4 v^2), so it is that of 2 (1 - v) / sqrt(Q^2 + 4 v^2) dv. Simpson's rule.
 */
export function squaredSlope({ u, w }: Point): number {
  const Q = u * u - w * w;
  const from = u * w;
  const pieces = 1000;
  const h = (1 - from) / pieces;
  let sum = 0;
  for (let i = 0; i <= pieces; i++) {
    const v = from + i * h;
    const weight = i === 0 || i === pieces ? 1 : i % 2 === 1 ? 4 : 2;
    sum += (weight * 2 * (1 - v)) / Math.sqrt(Q * Q + 4 * v * v);
  }
  return (sum * h) / 3;
}

/**
 * How far u and w both go where the steps of every coordinate have the same size: u - w stays, and (u + s)(w + s) = 1. That is Adam in
 * the limit of small steps, whose averages of g and g^2 forget in a time that vanishes with eta.
 */
const equalSteps = ({ u, w }: Point): number => 0.5 * (Math.sqrt((u - w) * (u - w) + 4) - (u + w));

/** One optimiser: its options at a step size, and the (Q(end) - Q(0)) / Q(0) of small steps. */
interface Optimiser {
  readonly name: string;
  readonly options: (eta: number) => Readonly<Record<string, unknown>>;
  /** Of a start; in units of eta where the charge is kept. */
  readonly change: (start: Point) => number;
  /** Its steps are orthogonal to A theta: the charge is kept in the limit. */
  readonly keeps: boolean;
  readonly quantity: string;
  /** Steps that are small for it, and the time that takes it to the minimum. */
  readonly small: { readonly eta: number; readonly time: number };
}

function optimisersOf({ beta }: Spec, starts: readonly Point[]): Optimiser[] {
  const factor = (1 + beta) / (1 - beta);
  const kept = "(Q(end)/Q(0) − 1)/η";
  const lengths = starts.map((start) => Math.abs(equalSteps(start)));
  const longest = lengths.reduce((m, s) => Math.max(m, s), 0);
  const mean = lengths.reduce((sum, s) => sum + s, 0) / lengths.length;
  // gradient descent: 2 (u^2 + w^2) is the curvature, at least 4 at the minimum
  const curvature = starts.reduce((m, { u, w }) => Math.max(m, 2 * (u * u + w * w)), 4);
  return [
    {
      name: "gradient descent",
      options: (eta) => ({ scheme: "gd", eta }),
      change: (start) => -squaredSlope(start),
      keeps: true,
      quantity: `${kept}, −∫ δ² dt`,
      small: { eta: 0.01 / curvature, time: 8 },
    },
    {
      name: `momentum ${beta}`,
      options: (eta) => ({ scheme: "gd", eta: eta * (1 - beta), momentum: beta }),
      change: (start) => -factor * squaredSlope(start),
      keeps: true,
      quantity: `${kept}, −(1 + β)/(1 − β) ∫ δ² dt`,
      small: { eta: (0.01 * (1 - beta)) / curvature, time: 8 },
    },
    ...(["adam", "rmsprop"] as const).map((scheme) => ({
      name: scheme === "adam" ? "Adam" : "RMSProp",
      options: (eta: number) => ({ scheme, batchSize: 1, eta }),
      change: (start: Point) => (2 * equalSteps(start)) / (start.u + start.w),
      keeps: false,
      quantity: "Q(end)/Q(0) − 1, √((u₀ − w₀)² + 4)/(u₀ + w₀) − 1",
      // Adam remembers g^2 for 1000 steps
      small: { eta: mean / 40_000, time: 2 * longest },
    })),
  ];
}

/** Mean over the starts of the change of Q relative to Q(0); exact for these starts. */
function changeOf(run: Run): Estimate {
  const { C } = run.series.charges as { C: Float64Array };
  let sum = 0;
  for (let r = 0; r < run.replicas; r++) sum += at(run, C, -1, r) / at(run, C, 0, r) - 1;
  return exact(sum / run.replicas, run.replicas);
}

/** Records of all runs where the charge, with momentum the shifted one, is not C(0) + work; rounding allowed for. */
function broken(run: Run): number {
  const C = run.series.modifiedCharges.C ?? run.series.charges.C!;
  const work = run.series.work.C!;
  let wrong = 0;
  for (let i = 0; i < run.series.k.length; i++) {
    for (let r = 0; r < run.replicas; r++) {
      const start = at(run, run.series.charges.C!, 0, r);
      // each of u and w is rounded a few times a step, at sizes about that of the start
      const allowed = 32 * ROUNDING * (run.steps + 8) * (1 + Math.abs(start));
      if (!(Math.abs(at(run, C, i, r) - start - at(run, work, i, r)) <= allowed)) wrong++;
    }
  }
  return wrong;
}

export const optimisers: Experiment = {
  id: "E20",
  title: "Gradient descent and momentum keep the charge as steps get small; Adam never does",
  question:
    "The charge of a symmetry is kept by gradient descent up to O(η). Is it kept by momentum, and by optimisers that scale every " +
    "coordinate by itself?",
  source: "Theory, sections 2.4 and 13.4; Kingma, Ba, arXiv:1412.6980, for Adam",
  claim:
    "With gradient descent and momentum the change of Q = u² − w² vanishes with η, at the rate of the modified charge. Adam and RMSProp change " +
    "Q by as much however small their steps: their steps are equal in u and w, which keeps u − w.",
  formula:
    "(Q(end) - Q(0)) / Q(0) = -eta int delta^2 dt; with momentum -eta (1 + beta) / (1 - beta) int delta^2 dt; of equal steps sqrt((u0 - w0)^2 + 4) / (u0 + w0) - 1",
  parameters,
  quick: { time: 20 },

  async measure(engine, given, seed, control) {
    const spec = given as Spec;
    const trial = new Trial("E20", engine, seed, control, 16);
    const net = model({
      params: { u: [1], w: [1] },
      inputs: { y: [1] },
      loss: ({ u, w, y }) => ops.sqnorm(ops.sub(ops.mul(u, w), y)),
    });
    const problem = engine.problem(net, { y: [1] });
    const { values } = normalMatrix(engine, spec.starts, 2, trial.seedOf("starts"));
    const starts = Array.from({ length: spec.starts }, (_, r): Point => {
      // at most two standard deviations, so that u stays above w and u w below 1 or near it
      const shift = (e: number) => 1 + spec.spread * Math.max(-2, Math.min(2, values[2 * r + e]!));
      return { u: spec.u0 * shift(0), w: spec.w0 * shift(1) };
    });
    const curves: Curve[] = [];
    const runAt = (one: Optimiser, eta: number, time: number, share: number): Promise<Run> => {
      const steps = 200 * Math.max(1, Math.round(time / eta / 200));
      return trial.run(
        `${one.name}, η = ${eta}`,
        problem,
        {
          scheme: "gd",
          theta: starts.map(({ u, w }) => ({ u: [u], w: [w] })),
          replicas: starts.length,
          steps,
          record: { every: steps / 200, charges: { C: A }, work: one.keeps },
          ...one.options(eta),
        },
        share,
      );
    };
    for (const one of optimisersOf(spec, starts)) {
      const { name, change, keeps, quantity, small } = one;
      const expected = starts.reduce((sum, start) => sum + change(start), 0) / starts.length;
      const pair = async (eta: number, share: number) => {
        const { value, count } = changeOf(await runAt(one, eta, small.time, share));
        const predicted: Prediction = { value: expected, modelError: 0, neglects: "higher orders of η" };
        return { predicted, measured: exact(keeps ? value / eta : value, count) };
      };
      const whole = await pair(small.eta, 1);
      const half = await pair(small.eta / 2, 2);
      trial.limitRow({ setting: `${name}, η = ${Number(small.eta.toPrecision(3))}`, quantity }, whole, half);
      const run = await runAt(one, spec.eta, spec.time, 1);
      const C = run.series.charges.C!;
      if (keeps)
        trial.never(
          { setting: `${name}, η = ${spec.eta}`, quantity: "records with C ≠ C(0) + work" },
          broken(run),
          run.series.k.length * run.replicas,
        );
      const first = meanCurve(run, C)[0]!;
      const x = Array.from(run.series.k, (k) => k * spec.eta);
      curves.push({ label: name, predicted: false, x, y: meanCurve(run, C).map((c) => c / first) });
      const end = 1 + (keeps ? spec.eta : 1) * expected;
      curves.push({ label: name, predicted: true, x: [0, x.at(-1)!], y: [end, end] });
    }
    problem.dispose();
    trial.figure({
      title: "The charge under four optimisers",
      caption:
        "Mean charge over the starts, relative to its beginning (solid), and where small steps take it (dashed).",
      xLabel: "k η, with momentum k η / (1 − β), of step size η",
      yLabel: "Q / Q(0),  Q = u² − w²",
      xScale: "linear",
      yScale: "linear",
      curves,
    });
    return trial.findings;
  },
};

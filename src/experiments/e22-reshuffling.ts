import type { Run } from "../dynamics/result.ts";
import { ops } from "../graph/ops.ts";
import { models } from "../models/ready.ts";
import type { Problem } from "../problem.ts";
import type { Estimate } from "../stats/estimate.ts";
import type { Prediction } from "../stats/verdict.ts";
import { symmetry } from "../symmetry/generator.ts";
import type { RankOneData } from "../symmetry/predictions.ts";
import { lawOfQ } from "./e01-rescaling.ts";
import type { Curve, Experiment } from "./experiment.ts";
import { decayOf, momentsOfSet, noiseAtMinimum, onValley, regression, roundingOfDecay } from "./rank-one.ts";
import type { Parameter } from "./spec.ts";
import { at, overReplicas, Trial } from "./trial.ts";

const parameters = {
  part: {
    value: 4,
    min: 1,
    max: 16,
    integer: true,
    what: "samples of the smallest batch; the data set has eight times as many",
  },
  eta: {
    value: 0.005,
    min: 0.002,
    max: 0.01,
    unit: "theta^2 / loss",
    what: "step size; the same runs are made at half of it",
  },
  steps: {
    value: 6400,
    min: 800,
    max: 12_800,
    integer: true,
    what: "steps; four times as many at half the step size",
  },
  replicas: { value: 128, min: 16, max: 512, integer: true, what: "independent runs per case" },
  ratio: { value: 4, min: 1.5, max: 6, what: "u / w at the start, where u w is the minimum of the loss" },
  slope: { value: 1, min: 0.5, max: 2, what: "teacher: y = slope x + noise" },
  noiseSd: { value: 1, min: 0.3, max: 1.5, what: "standard deviation of the label noise" },
} satisfies Record<string, Parameter>;

type Spec = { [K in keyof typeof parameters]: number };

/** Batches of an epoch, case by case. */
const BATCHES = [8, 2, 1];
const SAMPLINGS = ["iid", "epochs"] as const;
const WORDS = { iid: "independent", epochs: "shuffled" };

/** What fluctuations of v add to the noise, and how far v strays. */
interface Stray {
  /** E delta^2 over the variance of the batch noise. */
  readonly factor: number;
  /** Mean square of v - v* at the ends of epochs, over that variance and the squared step. */
  readonly spread: number;
}

/**
 * Fluctuations of v = u w about its minimum v*. Linearised,
 *
 *   x' = (1 - h) x - eta m xi,   delta = xi + 2 alpha x,   h = 2 eta alpha m,   m = u^2 + w^2,   x = v - v*
 *
 * with batch noise xi of variance 1. The n batches of a shuffled epoch sum to zero: their noises have the correlation c =
 * -1 / (n - 1), an epoch ends near where it began, and within it v leans against the noise to come, which raises E delta^2.
 * Independent batches have c = 0.
 */
export function strayOf(h: number, n: number, c: number): Stray {
  const r = 1 - h;
  // of step j of an epoch begun at x = 0: sums of r^i and r^(2 i) over i < j, and r^(2 j)
  let [power, sum, squares] = [1, 0, 0];
  const own: number[] = [];
  const lean: number[] = [];
  const left: number[] = [];
  for (let j = 0; j <= n; j++) {
    own.push((1 - c) * squares + c * sum * sum);
    lean.push(c * sum);
    left.push(power * power);
    sum += power;
    squares += power * power;
    power *= r;
  }
  const spread = own[n]! / (1 - left[n]!);
  let total = 0;
  for (let j = 0; j < n; j++) total += 1 - 2 * h * lean[j]! + h * h * (left[j]! * spread + own[j]!);
  return { factor: total / n, spread };
}

/** What is predicted for one way to draw batches. */
interface Law {
  /** -ln Q(k) / Q(0) at step k. */
  readonly decay: Float64Array;
  /** Mean square of v - v* at the ends of epochs. */
  readonly spread: number;
}

/** The law of Q of batches drawn in either way, started at the minimum of the set. */
function lawOf(
  {
    eta,
    n,
    N,
    steps,
  }: { readonly eta: number; readonly n: number; readonly N: number; readonly steps: number },
  sampling: "iid" | "epochs",
  moments: RankOneData,
  { u, w }: { readonly u: number; readonly w: number },
): Law {
  const { alpha } = moments;
  const S = N / n;
  const isShuffled = sampling === "epochs";
  // 4 Cov of a batch, and how two batches of an epoch go together
  const variance = (4 * noiseAtMinimum(moments) * (isShuffled ? (N - S) / (N - 1) : 1)) / S;
  const correlation = isShuffled && n > 1 ? -1 / (n - 1) : 0;
  const decay = new Float64Array(steps + 1);
  let q = u * u - w * w;
  let stray: Stray = { factor: 1, spread: 0 };
  let spread = 0;
  for (let k = 0; k < steps; k++) {
    if (k % 64 === 0) {
      const m = Math.sqrt(q * q + 4 * u * w * u * w);
      stray = strayOf(2 * eta * alpha * m, n, correlation);
      spread = eta * eta * m * m * variance * stray.spread;
    }
    const gain = eta * eta * variance * stray.factor;
    decay[k + 1] = decay[k]! + gain;
    q *= 1 - gain;
  }
  return isShuffled ? { decay, spread } : { decay: lawOfQ(eta, S, steps, u, w, moments).decay, spread };
}

interface Pair {
  readonly predicted: Prediction;
  readonly measured: Estimate;
}

/** One way to draw batches at one step size. */
interface Case {
  readonly run: Run;
  readonly law: Law;
  readonly decay: Pair;
  readonly spread: Pair;
}

const NEGLECTED = "third moments of the batch noise and of v, relative O(η)";

/** The pairs of a run: decay at the end, spread of v over the second half of the records. */
function compare(run: Run, law: Law, least: number, modelError: number): Omit<Case, "run" | "law"> {
  const records = run.series.k.length;
  const from = Math.floor(records / 2);
  const v = run.series.values.v!;
  const square = (r: number): number => {
    let sum = 0;
    for (let i = from; i < records; i++) {
      const x = at(run, v, i, r) - least;
      sum += x * x;
    }
    return sum / (records - from);
  };
  return {
    decay: {
      predicted: { value: law.decay[run.steps]!, modelError, neglects: NEGLECTED },
      measured: overReplicas(run, (r) => decayOf(run, -1, r)),
    },
    spread: {
      predicted: { value: law.spread, modelError: 0, neglects: NEGLECTED },
      measured: overReplicas(run, square),
    },
  };
}

/** The runs of one way to draw batches. */
class Sweep {
  readonly moments: RankOneData;
  readonly start: { u: number; w: number };

  constructor(
    readonly trial: Trial,
    readonly spec: Spec,
    readonly problem: Problem,
  ) {
    this.moments = momentsOfSet(problem);
    this.start = onValley(this.moments, spec.ratio);
  }

  async measure(sampling: "iid" | "epochs", n: number, half: boolean): Promise<Case> {
    const { problem, spec, start, moments } = this;
    const { N } = problem;
    const eta = half ? spec.eta / 2 : spec.eta;
    // whole epochs, so that every record is at the end of one, and the last at the end of the run
    const epochs = Math.max(1, Math.floor(spec.steps / n)) * (half ? 4 : 1);
    const every = n * Math.max(1, Math.floor(epochs / 200));
    const steps = every * Math.floor((n * epochs) / every);
    const net = problem.model;
    const run = await this.trial.run(
      `${WORDS[sampling]} batches, S = ${N / n}, η = ${eta}`,
      problem,
      {
        scheme: "sgd",
        sampling,
        batchSize: N / n,
        theta: { u: [start.u], w: [start.w] },
        eta,
        steps,
        replicas: spec.replicas,
        record: {
          every,
          charges: { C: symmetry.rescaling("u", "w") },
          values: { v: ops.mul(net.leaf("u"), net.leaf("w")) },
        },
      },
      workOf(spec, n, half),
    );
    const law = lawOf({ eta, n, N, steps }, sampling, moments, start);
    const rounding = roundingOfDecay(steps, start.u, start.w);
    return { run, law, ...compare(run, law, moments.b1 / moments.alpha, rounding) };
  }
}

const workOf = ({ steps, part }: Spec, n: number, half: boolean): number =>
  (steps * part * 8 * (half ? 4 : 1)) / n;

function drawn(label: string, { run, law }: Case): Curve[] {
  const x = [...run.series.k];
  const mean = (record: number) => overReplicas(run, (r) => decayOf(run, record, r)).value;
  return [
    { label, predicted: false, x, y: x.map((_, i) => mean(i)) },
    { label, predicted: true, x, y: x.map((k) => law.decay[k]!) },
  ];
}

export const reshuffling: Experiment = {
  id: "E22",
  title:
    "Shuffled epochs move the charge almost as much as independent batches, though they hardly shake the product",
  question:
    "Most training goes through the data in a random order, epoch by epoch, so that the noise of an epoch cancels. Does the drift " +
    "of the charge cancel, too?",
  source: "Theory of reshuffling, section 1; not in the paper, which draws batches independently",
  claim:
    "The charge falls under shuffled epochs, by the factor (N − S) / (N − 1) less than under independent batches; only S = N, gradient " +
    "descent, keeps it. At the ends of epochs v = u w strays far less when batches are shuffled.",
  formula:
    "E delta^2 = 4 D (N - S) / (S (N - 1)) per step for shuffled epochs, 4 D / S for independent batches; Q' = Q (1 - eta^2 delta^2)",
  parameters,
  quick: { steps: 800, replicas: 16 },

  async measure(engine, given, seed, control) {
    const spec = given as Spec;
    const total =
      SAMPLINGS.length * BATCHES.reduce((sum, n) => sum + workOf(spec, n, false) + workOf(spec, n, true), 0);
    const trial = new Trial("E22", engine, seed, control, total);
    const problem = engine.problem(models.rankOne(), regression(spec.slope, spec.noiseSd), {
      samples: 8 * spec.part,
      dataSeed: trial.seedOf("data"),
    });
    const sweep = new Sweep(trial, spec, problem);
    const curves: Curve[] = [];
    for (const n of BATCHES) {
      for (const sampling of SAMPLINGS) {
        const whole = await sweep.measure(sampling, n, false);
        const half = await sweep.measure(sampling, n, true);
        const S = problem.N / n;
        const setting = `${WORDS[sampling]} batches, S = ${S} of ${problem.N}`;
        trial.limitRow(
          { setting, quantity: `−ln Q/Q(0) at step ${whole.run.steps}` },
          whole.decay,
          half.decay,
        );
        if (n === BATCHES[0])
          trial.limitRow(
            { setting, quantity: `mean of (v − v*)² every ${n} steps` },
            whole.spread,
            half.spread,
          );
        curves.push(...drawn(setting, whole));
      }
    }
    trial.figure({
      title: "Decay of the charge under independent and shuffled batches",
      caption:
        "Mean of −ln Q/Q(0) over the runs (solid) and its prediction (dashed). With S = N shuffled epochs are gradient descent from its " +
        "minimum, which stays.",
      xLabel: "step",
      yLabel: "−ln Q/Q(0),  Q = u² − w²",
      xScale: "linear",
      yScale: "linear",
      curves,
    });
    problem.dispose();
    return trial.findings;
  },
};

import { exp, log } from "../core/elementary.ts";
import type { Run } from "../dynamics/result.ts";
import { model } from "../graph/model.ts";
import { ops } from "../graph/ops.ts";
import { sampler } from "../graph/sampler.ts";
import { momentMatched } from "../models/moment-matched.ts";
import { meanOf } from "../stats/estimate.ts";
import { symmetry } from "../symmetry/generator.ts";
import type { Curve, Experiment } from "./experiment.ts";
import type { Parameter } from "./spec.ts";
import { overReplicas, Trial } from "./trial.ts";

const parameters = {
  eta: { value: 0.02, min: 0.001, max: 0.03, what: "step size of all runs" },
  steps: { value: 20_000, min: 200, max: 200_000, integer: true, what: "steps of all runs" },
  replicas: { value: 64, min: 8, max: 4096, integer: true, what: "independent SGD runs per case" },
  u0: { value: 2, min: 0.5, max: 4, what: "start of u" },
  w0: { value: 0.1, min: 0, max: 0.4, what: "start of w" },
  slope: { value: 1, min: 0.3, max: 2, what: "teacher: y = slope x + noise" },
  xSd: { value: 1, min: 0.4, max: 1.2, what: "standard deviation of x" },
  noiseSd: { value: 1, min: 0.3, max: 1.5, what: "standard deviation of the label noise" },
  batch: { value: 16, min: 4, max: 64, integer: true, what: "the larger of the two batch sizes" },
} satisfies Record<string, Parameter>;

/** Samples that the symmetries are found and measured on. */
const SAMPLES = 4096;

type Spec = { [K in keyof typeof parameters]: number };

/** Moments of the data that the law of Q needs: D(v) = Var(x^2 v - x y) = a v^2 - 2 b v + c. */
interface Moments {
  /** E x^2 */
  readonly alpha: number;
  /** E x y */
  readonly b1: number;
  readonly a: number;
  readonly b: number;
  readonly c: number;
}

/** x ~ N(0, sx^2), y = slope x + N(0, sn^2). */
function momentsOf(spec: Spec, noiseSd: number): Moments {
  const x2 = spec.xSd * spec.xSd;
  const varX2 = 2 * x2 * x2;
  return {
    alpha: x2,
    b1: spec.slope * x2,
    a: varX2,
    b: spec.slope * varX2,
    c: spec.slope * spec.slope * varX2 + x2 * noiseSd * noiseSd,
  };
}

/** Predicted decay of the charge along a run. */
interface Law {
  /** -ln(Q_k / Q_0) at step k. */
  readonly decay: Float64Array;
  /** Relative size of what the law neglects, from the path it predicts itself. */
  readonly neglected: number;
}

/**
 * The law of Q = u^2 - w^2 (twice the charge). Each step multiplies Q by exactly 1 - eta^2 delta^2,
 * delta the batch mean of 2 (x^2 v - x y), v = u w. Its mean decay follows from the mean and
 * variance of v, which obey, step by step,
 *
 *   v' = v - eta delta (u^2 + w^2) + eta^2 delta^2 v,   u^2 + w^2 = sqrt(Q^2 + 4 v^2),
 *   E delta^2 = 4 D(v) / S + 4 (alpha v - b1)^2
 *
 * closed at second order in the fluctuations of v. At S = infinity it is exact (gradient descent on
 * the population). Small eta: Q(t) = Q(0) exp(-8 sigma^2 int D dt), sigma^2 = eta / (2 S).
 *
 * Neglected: the third and higher moments of v, relative (eta (u^2 + w^2) + Var v / v^2)^2.
 */
export function lawOfQ(eta: number, S: number, steps: number, u0: number, w0: number, moments: Moments): Law {
  const { alpha, b1, a, b, c } = moments;
  const q0 = u0 * u0 - w0 * w0;
  const decay = new Float64Array(steps + 1);
  let v = u0 * w0;
  let s = 0;
  let lambda = 0;
  // exp(-lambda) as a running product: the law needs no elementary function
  let q = q0;
  let worst = 0;
  let weight = 0;
  for (let k = 0; k < steps; k++) {
    const m = Math.sqrt(q * q + 4 * (v * v + s));
    const slope = alpha * v - b1;
    const d = Math.max(0, a * (v * v + s) - 2 * b * v + c);
    const e2 = (4 * d) / S + 4 * slope * slope + 4 * alpha * alpha * s;
    // delta is a mean of S products of normals: kurtosis 3 + 6 / S
    const fourth = S === Infinity ? e2 * e2 : (3 + 6 / S) * e2 * e2;
    const m1 = m > 0 ? (4 * v) / m : 0;
    const m2 = m > 0 ? 4 / m - (16 * v * v) / (m * m * m) : 0;
    const drift = m * slope + 0.5 * (m2 * slope + 2 * m1 * alpha) * s;
    const contraction = 1 - 2 * eta * (m * alpha + m1 * slope);
    const gain = eta * eta * e2;
    const step = S === Infinity ? -logOneMinus(gain) : gain + 0.5 * eta * eta * eta * eta * fourth;
    v += -2 * eta * drift + gain * v;
    s = contraction * contraction * s + (eta * eta * m * m * 4 * d) / S;
    lambda += step;
    q *= 1 - gain;
    decay[k + 1] = lambda;
    const relative = S === Infinity ? 0 : eta * m + s / Math.max(v * v, 1e-300);
    // early steps, before v has settled, count with the decay they bring
    worst += step * relative * relative;
    weight += step;
  }
  return { decay, neglected: weight > 0 ? worst / weight : 0 };
}

/** ln(1 - x) for 0 <= x < 1 by its series: exact to rounding where the law needs it (x below 0.2). */
function logOneMinus(x: number): number {
  let term = x;
  let sum = 0;
  for (let n = 1; n < 200 && term > 1e-18 * sum + 1e-300; n++) {
    sum += term / n;
    term *= x;
  }
  return -sum;
}

/** Beyond this decay Q has lost so many digits that its logarithm is rounding noise. */
const READABLE_DECAY = 4;

export const rescaling: Experiment = {
  id: "E01",
  title: "Rescaling symmetry: SGD finds the noise equilibrium, gradient descent does not",
  question:
    "The loss (u w x − y)² does not change when u grows and w shrinks by the same factor. Gradient descent therefore keeps " +
    "Q = u² − w². What does SGD do with it?",
  source: "Ziyin et al., arXiv:2402.07193, Figure 1; theory of the rank-one model, sections 8 and 14(a)",
  claim:
    "SGD removes the imbalance exponentially, faster the smaller the batch; gradient descent keeps it; and so does SGD once " +
    "the labels carry no noise, because at interpolation the gradient noise vanishes.",
  parameters,
  quick: { steps: 2000, replicas: 16 },

  async measure(engine, given, seed, control) {
    const spec = given as Spec;
    const net = model({
      params: { u: [1], w: [1] },
      inputs: { x: [1], y: [1] },
      loss: ({ u, w, x, y }) => ops.sqnorm(ops.sub(ops.mul(ops.mul(u, w), x), y)),
    });
    const teacher = (noiseSd: number) =>
      sampler({
        noise: { z: { kind: "normal", shape: [1] }, eps: { kind: "normal", shape: [1] } },
        outputs: ({ z, eps }) => ({
          x: ops.scale(z!, spec.xSd),
          y: ops.add(ops.scale(z!, spec.slope * spec.xSd), ops.scale(eps!, noiseSd)),
        }),
      });
    const start = { u: [spec.u0], w: [spec.w0] };
    const A = symmetry.rescaling("u", "w");
    const every = Math.max(1, Math.floor(spec.steps / 200));

    const cases = [
      { name: "SGD, S = 1", S: 1, noiseSd: spec.noiseSd },
      { name: `SGD, S = ${spec.batch}`, S: spec.batch, noiseSd: spec.noiseSd },
      { name: "gradient descent", S: Infinity, noiseSd: spec.noiseSd },
      { name: "SGD, S = 1, no label noise", S: 1, noiseSd: 0 },
    ];
    const work = cases.map(({ S }) => (S === Infinity ? 4 : S * spec.replicas));
    const trial = new Trial(
      "E01",
      engine,
      seed,
      control,
      work.reduce((a, b) => a + b, 0),
    );
    const curves: Curve[] = [];
    for (const [i, { name, S, noiseSd }] of cases.entries()) {
      const law = lawOfQ(spec.eta, S, spec.steps, spec.u0, spec.w0, momentsOf(spec, noiseSd));
      const data = teacher(noiseSd);
      const problem = engine.problem(net, S === Infinity ? momentMatched(data) : data);
      const run = await trial.run(
        name,
        problem,
        {
          scheme: S === Infinity ? "gd" : "sgd",
          ...(S === Infinity ? {} : { batchSize: S }),
          theta: start,
          eta: spec.eta,
          steps: spec.steps,
          replicas: S === Infinity ? 1 : spec.replicas,
          record: { every, charges: { C: A } },
        },
        work[i]!,
      );
      problem.dispose();
      compare(trial, name, run, law, spec);
      curves.push(...drawn(name, run, law));
    }
    const finite = engine.problem(net, teacher(spec.noiseSd), { samples: SAMPLES, dataSeed: `${seed}/E01` });
    const { x, y } = finite.data as { x: Float64Array; y: Float64Array };
    const mean = (p: Float64Array, q: Float64Array) => p.reduce((sum, a, i) => sum + a * q[i]!, 0) / SAMPLES;
    // the loss at the best v = u w
    const least = mean(y, y) - (mean(x, y) * mean(x, y)) / mean(x, x);
    const summary = await finite.report(start, {
      eta: spec.eta,
      batchSize: 1,
      lossAtRest: Math.min(least, finite.loss(start)),
      ...(trial.signal ? { signal: trial.signal } : {}),
    });
    finite.dispose();
    trial.figure({
      title: "The charge under SGD and gradient descent",
      caption:
        "Geometric mean of Q / Q(0) over the runs of each case (solid) and the predicted law (dashed). Curves end where Q is lost in " +
        "rounding.",
      xLabel: "step",
      yLabel: "Q / Q(0),  Q = u² − w²",
      xScale: "linear",
      yScale: "log",
      curves,
    });
    trial.symmetries({ title: `(u w x − y)² at its start, SGD with S = 1, ${SAMPLES} samples`, summary });
    return trial.findings;
  },
};

/** -ln(Q_k / Q_0) of every replica at record i, from the charge C = Q / 2. */
function decays(run: Run, record: number): Float64Array {
  const { replicas } = run;
  const C = run.series.charges["C"]!;
  // dividing by a ratio just above 0 is safe: Q keeps its sign while 1 - eta^2 delta^2 > 0
  return Float64Array.from({ length: replicas }, (_, r) => log(C[r]! / C[record * replicas + r]!));
}

function compare(trial: Trial, name: string, run: Run, law: Law, spec: Spec): void {
  const { k } = run.series;
  // the last record at which the charge is still readable
  let record = 0;
  while (record + 1 < k.length && law.decay[k[record + 1]!]! <= READABLE_DECAY) record++;
  const step = k[record]!;
  const values = decays(run, record);
  const value = law.decay[step]!;
  const predicted = {
    value,
    modelError: value * law.neglected + 1e-12,
    neglects: "moments of v = u w beyond the second, relative (η(u² + w²) + Var v / v²)²",
  };
  const quantity = `−ln Q(k)/Q(0) at step ${step}${step < spec.steps ? ", while Q is readable" : ""}`;
  trial.row(
    { setting: name, quantity },
    predicted,
    overReplicas(run, (r) => values[r]!),
  );
}

function drawn(name: string, run: Run, law: Law): Curve[] {
  const { k } = run.series;
  const x: number[] = [];
  const y: number[] = [];
  const predicted: number[] = [];
  for (let i = 0; i < k.length; i++) {
    // the geometric mean is what the law of the mean decay predicts
    const mean = exp(-meanOf(decays(run, i)).value);
    if (!(mean > 1e-9)) break;
    x.push(k[i]!);
    y.push(mean);
    predicted.push(exp(-law.decay[k[i]!]!));
  }
  return [
    { label: name, predicted: false, x, y },
    { label: name, predicted: true, x, y: predicted },
  ];
}

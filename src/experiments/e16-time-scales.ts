import { exp, log } from "../core/elementary.ts";
import type { Run } from "../dynamics/result.ts";
import { ops } from "../graph/ops.ts";
import { momentMatched } from "../models/moment-matched.ts";
import { meanOf } from "../stats/estimate.ts";
import { predictions } from "../symmetry/predictions.ts";
import type { Curve, Experiment } from "./experiment.ts";
import {
  type ChargeDecay,
  chargeMatrix,
  chargeSpectrum,
  decayOfCharge,
  descentOf,
  descentValues,
  type IsotropicSgd,
  isotropicTeacher,
} from "./isotropic.ts";
import { linearNet, teacherSampler } from "./linear-net.ts";
import type { Parameter } from "./spec.ts";
import { at, overReplicas, Trial } from "./trial.ts";

const parameters = {
  d: { value: 4, min: 2, max: 8, integer: true, what: "input and output dimension" },
  h: {
    value: 6,
    min: 4,
    max: 16,
    integer: true,
    what: "hidden units, at least d (d of them where there are fewer)",
  },
  stdU: { value: 0.3, min: 0.1, max: 0.4, unit: "theta", what: "standard deviation of the initial U" },
  stdW: { value: 0.6, min: 0.4, max: 1.6, unit: "theta", what: "standard deviation of the initial W" },
  varX: { value: 1, min: 0.5, max: 2, what: "variance of the entries of x" },
  rate: {
    value: 0.08,
    min: 0.02,
    max: 0.1,
    what: "eta Var(x) m, m = |U|^2 + |W|^2 of the widest direction: what neglected terms grow with",
  },
  loud: { value: 3, min: 1, max: 4, what: "label noise of the fast phase, standard deviation" },
  noiseSd: { value: 1, min: 0.5, max: 2, what: "label noise of the two cases between" },
  quiet: { value: 0.3, min: 0.1, max: 0.4, what: "label noise of the slowest case" },
  batch: { value: 16, min: 4, max: 32, integer: true, what: "the larger of the two batch sizes" },
  cap: { value: 12_000, min: 3000, max: 24_000, integer: true, what: "most steps of a run" },
  replicas: {
    value: 16,
    min: 8,
    max: 1024,
    integer: true,
    what: "independent runs per case, all from one start",
  },
} satisfies Record<string, Parameter>;

type Spec = { [K in keyof typeof parameters]: number };

/** Runs whose mean product is followed while the loss falls, in groups that a standard error is made of. */
const [LOSS_RUNS, GROUPS] = [256, 16];
/** How long the loss is followed, in units of the 1/e time of gradient descent. */
const LOSS_TIMES = 4;

/** Step at which a curve falls to 1/e of its start, between records by its logarithm; the last where it does not. */
function fallTime(k: ArrayLike<number>, y: ArrayLike<number>): number {
  for (let i = 1; i < k.length; i++) {
    const [before, after] = [y[i - 1]! / y[0]!, Math.max(y[i]! / y[0]!, 1e-300)];
    const [p, q] = [1 + log(before), 1 + log(after)];
    if (q <= 0) return k[i - 1]! + (p / (p - q)) * (k[i]! - k[i - 1]!);
  }
  return k[k.length - 1]!;
}

/** |<U W> - V|^2 at every record from the replicas of some groups, less what their scatter adds. */
function excessOfMean(run: Run, V: ArrayLike<number>, without: number): number[] {
  const product = run.series.values.product!;
  const entries = V.length;
  const { replicas } = run;
  return Array.from(run.series.k, (_, i) => {
    let total = 0;
    for (let e = 0; e < entries; e++) {
      let [count, sum, squares] = [0, 0, 0];
      for (let r = 0; r < replicas; r++) {
        if (r % GROUPS === without) continue;
        const x = at(run, product, i, r, e) - V[e]!;
        count++;
        sum += x;
        squares += x * x;
      }
      const mean = sum / count;
      total += mean * mean - (squares - count * mean * mean) / (count * (count - 1));
    }
    return total;
  });
}

/** Time, in units of k eta, in which the loss of the mean product falls to 1/e, by the jackknife over groups. */
function lossTime(run: Run, V: ArrayLike<number>, eta: number) {
  const of = (without: number) => eta * fallTime(run.series.k, excessOfMean(run, V, without));
  const whole = of(-1);
  const pseudo = Array.from({ length: GROUPS }, (_, g) => GROUPS * whole - (GROUPS - 1) * of(g));
  return meanOf(pseudo, `jackknife over ${GROUPS} groups of ${LOSS_RUNS / GROUPS} runs`);
}

export const timeScales: Experiment = {
  id: "E16",
  title: "Two time scales: the loss does not wait for the noise, the charges do",
  question:
    "The loss of a linear autoencoder falls in a time that its gradient sets. The charges Q = UᵀU − WWᵀ move in a time that the noise " +
    "sets. Which comes first, and can one be predicted apart from the other?",
  source:
    "Ziyin et al., arXiv:2402.07193, time scales and the two phases of training; theory of the isotropic autoencoder",
  claim:
    "The charges decay at 8σ²d Var(x) Var(ε), σ² = η/2S: in the time of the loss under loud label noise, a hundred times later with " +
    "larger batches. The loss time is that of gradient descent in every case.",
  formula:
    "dQ/dt = −8σ²d Var(x) Var(ε) (1 + κ) Q,  κ = η Var(x) m (1 + (d+1)/S);  t_L from gradient descent on the population",
  parameters,
  quick: { cap: 3000, batch: 4, replicas: 8 },

  async measure(engine, given, seed, control) {
    const spec = given as Spec;
    const { d, varX, batch, replicas, cap } = spec;
    const h = Math.max(spec.h, d);
    const { dense } = engine;
    const V = dense.identity(d);
    const cases = [
      { S: 1, noiseSd: spec.loud },
      { S: 1, noiseSd: spec.noiseSd },
      { S: batch, noiseSd: spec.noiseSd },
      { S: batch, noiseSd: spec.quiet },
    ].map((c) => ({
      ...c,
      name: `S = ${c.S}, noise ${c.noiseSd}`,
      teacher: isotropicTeacher(engine, V, varX, c.noiseSd * c.noiseSd),
    }));
    const net = linearNet(d, h, d);
    const [U, W] = [net.leaf("U"), net.leaf("W")];
    const constant = net.graph.constant(V.values, [d, d], "V");
    const trial = new Trial("E16", engine, seed, control, 14);
    const gdOn = async (name: string, theta: ArrayLike<number>, eta: number, steps: number) => {
      const population = engine.problem(net, momentMatched(teacherSampler(engine, cases[1]!.teacher)));
      const values = descentValues(U, W, constant, d);
      const run = await trial.run(name, population, {
        scheme: "gd",
        theta,
        eta,
        steps,
        record: { every: 1, values },
      });
      population.dispose();
      return run;
    };
    const start = engine.problem(net, teacherSampler(engine, cases[1]!.teacher));
    const theta = start.init("normal", { std: { U: spec.stdU, W: spec.stdW }, seed: trial.seedOf("init") });
    start.dispose();
    const spectrum = chargeSpectrum(engine, theta, h, d);
    // |U|^2 + |W|^2 of the widest direction where U W = V
    const widest = Math.sqrt(spectrum.reduce((most, q) => Math.max(most, q * q), 0) + 4);
    const eta = spec.rate / (varX * widest);
    const fall = await gdOn("gradient descent", theta, eta, descentSteps(eta, varX));
    const half = await gdOn("gradient descent, η/2", theta, 0.5 * eta, descentSteps(0.5 * eta, varX));
    const descent = descentOf(fall);
    const lossOf = (run: Run, step: number) => step * fallTime(run.series.k, run.series.values.excess!);
    const lossSteps = Math.ceil((LOSS_TIMES * lossOf(fall, eta)) / eta);
    const [charges, losses]: [Curve[], Curve[]] = [[], []];

    for (const [i, { name, S, noiseSd, teacher }] of cases.entries()) {
      const sgd: IsotropicSgd = { d, varX, varEps: noiseSd * noiseSd, eta, batch: S, v: 1 };
      const law = decayOfCharge(sgd, spectrum, descent, cap);
      let steps = law.decay.findIndex((x) => x >= 1);
      if (steps < 0) steps = cap;
      const fresh = engine.problem(net, teacherSampler(engine, teacher));
      const run = await trial.run(
        name,
        fresh,
        {
          scheme: "sgd",
          theta,
          eta,
          batchSize: S,
          steps,
          replicas,
          record: {
            every: Math.max(1, Math.floor(steps / 120)),
            values: { q: ops.norm(chargeMatrix(U, W)) },
          },
        },
        2,
      );
      chargeRow(trial, name, run, law, sgd);
      if (i < 3) {
        charges.push(...chargeCurves(name, run, law.decay, eta));
        const short = async (step: number, factor: number) => {
          const product = { product: ops.matmul(U, W) };
          const options = { scheme: "sgd" as const, theta, batchSize: S, replicas: LOSS_RUNS };
          const record = { every: 1, values: product };
          return await trial.run(
            `${name}, loss${factor === 1 ? "" : ", η/2"}`,
            fresh,
            { ...options, eta: step, steps: factor * lossSteps, record },
            0.5,
          );
        };
        const [whole, finer] = [await short(eta, 1), await short(0.5 * eta, 2)];
        const neglects = "what the noise adds to the mean of the product: of order η, so half of it at η/2";
        const pair = (loss: Run, by: Run, step: number) => ({
          predicted: { value: lossOf(by, step), modelError: 0, neglects },
          measured: lossTime(loss, V.values, step),
        });
        trial.limitRow(
          {
            setting: name,
            quantity: "loss time: |⟨U W⟩ − V|² falls to 1/e of its start, against gradient descent, in k η",
          },
          pair(whole, fall, eta),
          pair(finer, half, 0.5 * eta),
        );
        losses.push(lossCurve(name, whole, V.values, eta));
      }
      fresh.dispose();
    }
    const records = lossSteps + 1;
    const x = Array.from({ length: records }, (_, k) => k * eta);
    const y = x.map((_, k) => descent.excess[k]! / descent.excess[0]!);
    losses.push({ label: "gradient descent", predicted: true, x, y });
    trial.figure({
      title: "The charges decay in a time that the noise sets",
      caption:
        "‖Q‖ / ‖Q(0)‖, mean over the runs (solid), and its predicted decay (dashed), from step 1 on. The batch size and the label noise move it along the axis of " +
        "time; the loss of all three has fallen where the dashed curve of the other figure ends.",
      xLabel: "time k η",
      yLabel: "‖Q‖ / ‖Q(0)‖",
      xScale: "log",
      yScale: "linear",
      curves: charges,
    });
    trial.figure({
      title: "The loss falls in the time of gradient descent",
      caption: `Excess loss of the product averaged over ${LOSS_RUNS} runs, relative to its start (solid), and that of gradient descent (dashed).`,
      xLabel: "time k η",
      yLabel: "|⟨U W⟩ − V|² / its start",
      xScale: "linear",
      yScale: "linear",
      curves: losses,
    });
    return trial.findings;
  },
};

/** Steps in which gradient descent comes to rest: 8 times the slowest time of a balanced product. */
const descentSteps = (eta: number, varX: number): number => Math.ceil(4 / (eta * varX));

const decayAt = (run: Run, record: number, r: number): number =>
  log(at(run, run.series.values.q!, 0, r) / at(run, run.series.values.q!, record, r));

function chargeRow(
  trial: Trial,
  setting: string,
  run: Run,
  { decay, neglected }: ChargeDecay,
  sgd: IsotropicSgd,
): void {
  const { steps } = run;
  const value = decay[steps]!;
  const rate = predictions.isotropicRate({
    d: sgd.d,
    varX: sgd.varX,
    varEps: sgd.varEps,
    sigma2: predictions.noiseStrength(sgd.eta, sgd.batch),
  });
  const scale = (1 / rate).toPrecision(3);
  trial.row(
    {
      setting,
      quantity: `−ln ‖Q‖/‖Q(0)‖ at t = ${(steps * sgd.eta).toPrecision(3)}; 1/(8σ²d Var(x) Var(ε)) = ${scale}`,
    },
    {
      value,
      modelError: value * neglected[steps]!,
      neglects:
        "relative κ (κ + ν): κ of the formula at its largest, ν = η Var(ε) m / S the variance of the product",
    },
    overReplicas(run, (r) => decayAt(run, run.series.k.length - 1, r)),
  );
}

function chargeCurves(label: string, run: Run, decay: Float64Array, eta: number): Curve[] {
  const k = [...run.series.k].slice(1);
  const x = k.map((step) => step * eta);
  const y = k.map((_, i) => overReplicas(run, (r) => exp(-decayAt(run, i + 1, r))).value);
  return [
    { label, predicted: false, x, y },
    { label, predicted: true, x, y: k.map((step) => exp(-decay[step]!)) },
  ];
}

function lossCurve(label: string, run: Run, V: ArrayLike<number>, eta: number): Curve {
  const excess = excessOfMean(run, V, -1);
  return {
    label,
    predicted: false,
    x: [...run.series.k].map((k) => k * eta),
    y: excess.map((e) => e / excess[0]!),
  };
}

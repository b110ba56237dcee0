import { exp, log } from "../core/elementary.ts";
import type { Run } from "../dynamics/result.ts";
import type { Engine } from "../engine.ts";
import type { Model } from "../graph/model.ts";
import { ops } from "../graph/ops.ts";
import { momentMatched } from "../models/moment-matched.ts";
import { models } from "../models/ready.ts";
import type { Matrix } from "../stats/dense.ts";
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
import { normalMatrix, teacherSampler } from "./linear-net.ts";
import type { Parameter } from "./spec.ts";
import { at, meanCurve, overReplicas, Trial } from "./trial.ts";

const parameters = {
  d: { value: 5, min: 2, max: 8, integer: true, what: "dimension" },
  stdU: { value: 0.1, min: 0.05, max: 0.2, unit: "theta", what: "standard deviation of the initial U" },
  stdW: { value: 0.6, min: 0.3, max: 1.2, unit: "theta", what: "standard deviation of the initial W" },
  spread: { value: 0.5, min: 0.15, max: 0.6, what: "teacher V = I + spread G / sqrt(d), G standard normal" },
  varX: { value: 1, min: 0.5, max: 2, what: "variance of the entries of x" },
  noise: { value: 1, min: 0.5, max: 2, what: "variance of the label noise over that of x" },
  rate: {
    value: 0.06,
    min: 0.025,
    max: 0.1,
    what: "eta Var(x) (|U|^2 + |W|^2) of the widest direction of any start: what neglected terms grow with",
  },
  replicas: { value: 16, min: 8, max: 1024, integer: true, what: "independent starts per skip" },
} satisfies Record<string, Parameter>;

type Spec = { [K in keyof typeof parameters]: number };

/** Skips epsilon: from the symmetric product to the residual network. */
const SKIPS = [0, 0.25, 0.5, 1];
/** Length of SGD and start of its averages, in relaxation times of the charges. */
const [RELAXATIONS, FROM] = [10, 7];

/** Singular values of V: their mean, and sums of their powers. */
function scalesOf(engine: Engine, V: Matrix) {
  const { s } = engine.dense.svd(V);
  const sum = s.reduce((a, b) => a + b, 0);
  const squares = s.reduce((a, b) => a + b * b, 0);
  const v = sum / s.length;
  return { v, sum, squares, unevenness: squares / s.length / (v * v) - 1 };
}

/**
 * Mean of |Q_s|^2 in the noise equilibrium at S = 1. A step adds eta^2 (g_U^T g_U - g_W g_W^T), of mean -rho Q_s with
 * rho = 4 eta^2 d varX varEps and, in the equilibrium (W_s W_s^T and U_s^T U_s with the singular values of V as eigenvalues), of variance
 *
 *   eta^4 16 varEps^2 varX^2 [ 2 d (d + 2) ((sum sv)^2 + 2 sum sv^2) - 2 (d + 2)^2 sum sv^2 ]
 *
 * for Gaussian x and noise; E |Q_s|^2 = variance / (2 rho).
 */
function restingCharge({ d, varX, varEps, eta }: IsotropicSgd, sum: number, squares: number): number {
  const shape = 2 * d * (d + 2) * (sum * sum + 2 * squares) - 2 * (d + 2) * (d + 2) * squares;
  return (2 * eta * eta * varEps * varX * shape) / d;
}

/** theta with the skip added to both diagonals. */
function shifted(theta: ArrayLike<number>, d: number, skip: number): Float64Array {
  return Float64Array.from(theta, (x, i) => ((i % (d * d)) % (d + 1) === 0 ? x + skip : x));
}

/** What is followed along a run. */
function measures(net: Model, V: Matrix, skip: number) {
  const d = V.rows;
  const [U, W] = [net.leaf("U"), net.leaf("W")];
  const diagonal = Float64Array.from({ length: d * d }, (_, i) => (i % (d + 1) === 0 ? 1 : 0));
  const I = net.graph.constant(diagonal, [d, d], "I");
  const [Us, Ws] = [ops.add(U, ops.scale(I, skip)), ops.add(W, ops.scale(I, skip))];
  const Q = chargeMatrix(Us, Ws);
  const trace = (X: typeof U) => ops.sum(ops.mul(I, X));
  return {
    slow: {
      square: ops.sqnorm(Q),
      trace: trace(Q),
      difference: ops.sub(ops.sqnorm(U), ops.sqnorm(W)),
      size: ops.add(ops.sqnorm(U), ops.sqnorm(W)),
      asymmetry: trace(ops.sub(U, W)),
    },
    descent: descentValues(Us, Ws, net.graph.constant(V.values, [d, d], "V"), d),
  };
}

export const residual: Experiment = {
  id: "E09",
  title: "Residual networks: the skip connection shifts the symmetry and does not remove it",
  question:
    "A residual network (U + εI)(W + εI)x has no rescaling symmetry of U and W. Does the noise of SGD still balance the layers, and " +
    "does the balance fade as the skip ε grows from 0 to 1?",
  source: "Ziyin et al., arXiv:2402.07193, Figure 4; the shifted charge: theory of the residual network",
  claim:
    "The shifted charge Q_s = U_sᵀU_s − W_sW_sᵀ, U_s = U + εI, decays under SGD at the same rate for every skip and is kept by gradient descent. So " +
    "the layers are far closer to balance under SGD: what is left of the imbalance is −2ε Tr(U − W), which no noise acts on.",
  formula: "‖U‖² − ‖W‖² = Tr Q_s − 2ε Tr(U − W);  dQ_s/dt = −8σ²d Var(x) Var(ε) (1 + κ) Q_s",
  parameters,
  quick: { d: 3, replicas: 8 },

  async measure(engine, given, seed, control) {
    const spec = given as Spec;
    const { d, varX, replicas } = spec;
    const varEps = spec.noise * varX;
    const { dense } = engine;
    const trial = new Trial("E09", engine, seed, control, 5 * SKIPS.length);
    const G = normalMatrix(engine, d, d, trial.seedOf("V"));
    const V = dense.add(dense.identity(d), dense.scale(G, spec.spread / Math.sqrt(d)));
    const scales = scalesOf(engine, V);
    const sampler = teacherSampler(engine, isotropicTeacher(engine, V, varX, varEps));
    const holder = engine.problem(models.residual({ d }), sampler);
    const std = { U: spec.stdU, W: spec.stdW };
    const theta = holder.init("normal", { std, seed: trial.seedOf("init"), replicas });
    holder.dispose();
    const starts = SKIPS.map((skip) => {
      const moved = shifted(theta, d, skip);
      return Array.from({ length: replicas }, (_, r) => chargeSpectrum(engine, moved, d, d, r));
    });
    const widest = Math.max(...starts.flat().map((q) => Math.max(q[0]! * q[0]!, q.at(-1)! * q.at(-1)!)));
    const eta = spec.rate / (varX * Math.sqrt(widest + 4 * scales.v * scales.v));
    const sgd: IsotropicSgd = { d, varX, varEps, eta, batch: 1, v: scales.v };
    const rho = 4 * eta * eta * d * varX * varEps;
    const steps = Math.ceil(RELAXATIONS / rho);
    const gdSteps = Math.min(steps, Math.ceil(5 / (eta * varX)));
    const every = Math.max(1, Math.floor(steps / 150));
    const [charges, imbalances]: [Curve[], Record<"sgd" | "gd", Point[]>] = [[], { sgd: [], gd: [] }];

    for (const [i, skip] of SKIPS.entries()) {
      const net = models.residual({ d, skip });
      const { slow, descent } = measures(net, V, skip);
      const common = { theta, eta, replicas };
      const population = engine.problem(net, momentMatched(sampler));
      const record = { every: 1, loss: "full" as const, values: { ...slow, ...descent } };
      const gd = await trial.run(`gradient descent, ε = ${skip}`, population, {
        ...common,
        scheme: "gd",
        steps: gdSteps,
        record,
      });
      population.dispose();
      const fresh = engine.problem(net, sampler);
      const average = { from: Math.floor((FROM / RELAXATIONS) * steps) + 1, every: 1 };
      const options = {
        ...common,
        scheme: "sgd" as const,
        batchSize: 1,
        steps,
        record: { every, values: slow, average },
      };
      const run = await trial.run(`SGD, ε = ${skip}`, fresh, options, 4);
      fresh.dispose();
      const path = descentOf(gd);
      const laws = starts[i]!.map((q) => decayOfCharge(sgd, q, path, Math.ceil(2 / rho)));
      decayRow(trial, `SGD, ε = ${skip}`, run, laws, scales.unevenness);
      const kappa = eta * varX * 2 * scales.v * (d + 2);
      const rest = restingCharge(sgd, scales.sum, scales.squares);
      trial.row(
        { setting: `SGD, ε = ${skip}`, quantity: "mean of ‖Q_s‖² at rest, from the noise of single steps" },
        {
          value: rest,
          modelError: 2 * kappa * rest,
          neglects: "fluctuations of the product, relative 2κ, κ = 2 η Var(x) (d + 2) |V|_*/d",
        },
        overReplicas(run, (r) => run.averages!.values.square![r]!),
      );
      keptRow(trial, `gradient descent, ε = ${skip}`, gd, eta);
      imbalances.sgd.push(imbalanceRow(trial, `SGD, ε = ${skip}`, run, skip, Math.sqrt(d * rest)));
      imbalances.gd.push(imbalanceRow(trial, `gradient descent, ε = ${skip}`, gd, skip, null));
      if (skip !== 0.25) charges.push(...drawn(run, `SGD, ε = ${skip}`, laws));
    }
    const curvesOf = (label: string, points: readonly Point[]): Curve[] => [
      { label, predicted: false, x: SKIPS, y: points.map((p) => Math.abs(p.measured)) },
      { label, predicted: true, x: SKIPS, y: points.map((p) => Math.abs(p.predicted)) },
    ];
    trial.figure({
      title: "The shifted charge along SGD",
      caption:
        "‖Q_s‖ / ‖Q_s(0)‖, mean over the runs (solid), and its predicted decay while it is above the noise of single steps (dashed).",
      xLabel: "step",
      yLabel: "‖Q_s‖ / ‖Q_s(0)‖",
      xScale: "linear",
      yScale: "log",
      curves: charges,
    });
    trial.figure({
      title: "Imbalance of the layers against the skip",
      caption:
        "|I|, I = (‖U‖² − ‖W‖²) / (‖U‖² + ‖W‖²), at the end of SGD and of gradient descent (solid); from the charges: Tr Q_s = 0 under SGD, " +
        "Tr Q_s = Tr Q_s(0) under gradient descent (dashed).",
      xLabel: "skip ε",
      yLabel: "|I|",
      xScale: "linear",
      yScale: "linear",
      curves: [...curvesOf("SGD", imbalances.sgd), ...curvesOf("gradient descent", imbalances.gd)],
    });
    return trial.findings;
  },
};

interface Point {
  readonly predicted: number;
  readonly measured: number;
}

const value = (run: Run, name: string, record: number, r: number): number =>
  at(run, run.series.values[name]!, record, r);

/** Decay at the last record at which the predicted one, averaged over the starts, is at most 1. */
function decayRow(
  trial: Trial,
  setting: string,
  run: Run,
  laws: readonly ChargeDecay[],
  unevenness: number,
): void {
  const mean = (f: (law: ChargeDecay) => number) => laws.reduce((sum, law) => sum + f(law), 0) / laws.length;
  const { k } = run.series;
  let record = 1;
  while (record + 1 < k.length && mean(({ decay }) => decay[k[record + 1]!] ?? Infinity) <= 1) record++;
  const step = k[record]!;
  const wanted = mean(({ decay }) => decay[step]!);
  const paired = overReplicas(
    run,
    (r) => 0.5 * log(value(run, "square", 0, r) / value(run, "square", record, r)) - laws[r]!.decay[step]!,
  );
  trial.row(
    { setting, quantity: `−ln ‖Q_s‖/‖Q_s(0)‖ at step ${step}` },
    {
      value: wanted,
      modelError: wanted * mean(({ neglected, kappa }) => neglected[step]! + kappa * unevenness),
      neglects:
        "relative κ (κ + ν + s): κ what the noise of the product adds, ν its variance over its square, s the variance of the singular values of V over their square",
    },
    { ...paired, value: paired.value + wanted, method: `${paired.method}, each less its own prediction` },
  );
}

/** Gradient descent moves Tr Q_s by at most 2 eta (L(0) - L(end)); see linear-net.ts. */
function keptRow(trial: Trial, setting: string, gd: Run, eta: number): void {
  const loss = gd.series.loss!;
  const fallen = overReplicas(gd, (r) => at(gd, loss, 0, r) - at(gd, loss, -1, r)).value;
  trial.row(
    { setting, quantity: "Tr Q_s(end) − Tr Q_s(0)" },
    {
      value: 0,
      modelError: 2 * eta * fallen,
      neglects: "what gradient descent moves at finite η, at most 2η (L(0) − L(end))",
    },
    overReplicas(gd, (r) => value(gd, "trace", -1, r) - value(gd, "trace", 0, r)),
  );
}

/**
 * The imbalance I at the end, from the charge alone: Tr Q_s is 0 under SGD, up to what |Q_s| is at rest (`fluctuation` bounds |Tr Q_s|), and
 * that of the start under gradient descent.
 */
function imbalanceRow(
  trial: Trial,
  setting: string,
  run: Run,
  skip: number,
  fluctuation: number | null,
): Point {
  const end = (name: string, r: number): number =>
    fluctuation === null ? value(run, name, -1, r) : run.averages!.values[name]![r]!;
  const loss = run.series.loss;
  const predicted = (r: number) =>
    ((fluctuation === null ? value(run, "trace", 0, r) : 0) - 2 * skip * end("asymmetry", r)) /
    end("size", r);
  const moved = (r: number) =>
    (fluctuation ?? 2 * run.settings.eta[0]! * (at(run, loss!, 0, r) - at(run, loss!, -1, r))) /
    end("size", r);
  const wanted = overReplicas(run, predicted).value;
  const paired = overReplicas(run, (r) => end("difference", r) / end("size", r) - predicted(r));
  const measured = {
    ...paired,
    value: wanted + paired.value,
    method: `${paired.method}, each less its own prediction`,
  };
  const neglects =
    fluctuation === null
      ? "what gradient descent moves Tr Q_s at finite η"
      : "Tr Q_s at rest, at most sqrt(d) of the predicted ‖Q_s‖";
  trial.row(
    { setting, quantity: "I = (‖U‖² − ‖W‖²)/(‖U‖² + ‖W‖²) from Tr Q_s and −2ε Tr(U − W)" },
    { value: wanted, modelError: overReplicas(run, moved).value, neglects },
    measured,
  );
  return { predicted: wanted, measured: measured.value };
}

function drawn(run: Run, label: string, laws: readonly ChargeDecay[]): Curve[] {
  const x = [...run.series.k];
  const square = run.series.values.square!;
  const start = meanCurve(run, square)[0]!;
  const within = x.filter((k) => k < laws[0]!.decay.length);
  const predicted = within.map((k) =>
    exp(-laws.reduce((sum, { decay }) => sum + decay[k]!, 0) / laws.length),
  );
  return [
    { label, predicted: false, x, y: meanCurve(run, square).map((s) => Math.sqrt(s / start)) },
    { label, predicted: true, x: within, y: predicted },
  ];
}

import type { RealArray } from "../core/arena.ts";
import type { Run } from "../dynamics/result.ts";
import type { Engine } from "../engine.ts";
import type { Model } from "../graph/model.ts";
import { ops } from "../graph/ops.ts";
import { sampler } from "../graph/sampler.ts";
import type { Problem } from "../problem.ts";
import { type Generator, symmetry } from "../symmetry/generator.ts";
import { normEquilibrium } from "../symmetry/predictions/scale-invariant.ts";
import type { Curve } from "./experiment.ts";
import { type Angles, anglesOf, thetasAt } from "./frozen-steps.ts";
import { normalMatrix } from "./linear-net.ts";
import { alongPath, everyStep, type Flows, follow, type Path, relativeCurve } from "./norms.ts";
import { meanCurve, overReplicas, type Trial } from "./trial.ts";

/** A network whose loss, of every minibatch, does not see the length of W, or of each row of W. */
export interface Normalised {
  /** What SGD is run on, batch size S. */
  readonly problem: Problem;
  /** What gradient descent is run on. */
  readonly whole: Problem;
  readonly S: number;
  readonly eta: number;
  readonly replicas: number;
  readonly theta: RealArray;
  /** Whether each row has a symmetry of its own. */
  readonly byRow: boolean;
  /** Whether samples of a batch see each other, so that there is no gradient of one sample. */
  readonly coupled: boolean;
  /** Size of the loss of a sample, for the bound of rounding. */
  readonly loss: number;
}

/** Steps taken from one theta to measure E|ghat|^2 and angles there: along a path, and at rest, where there are more records. */
const REPEATS = { path: 32, rest: 8 };
/** Records of a run at rest. */
const RECORDS = 64;
/** Runs recorded at every step, and their steps. */
const WATCHED = { replicas: 8, steps: 1000 };

/** The scaling of W, and those of its rows where they are symmetries. */
function chargesOf({ problem, byRow }: Normalised): Record<string, Generator> {
  const [rows] = problem.model.block("W").shape as [number, number];
  const row = (j: number): [string, Generator] => [
    `row ${j + 1}`,
    symmetry.generator({ blocks: { W: { scalar: 1, rows: [j, j + 1] } } }),
  ];
  return {
    W: symmetry.scaling("W"),
    ...(byRow ? Object.fromEntries(Array.from({ length: rows }, (_, j) => row(j))) : {}),
  };
}

/** Names of the charges that come to rest by themselves. */
const partsOf = (net: Normalised): string[] =>
  Object.keys(chargesOf(net)).filter((name) => !net.byRow || name !== "W");

/** Sum over the parts of |part|^4. */
function fourthPower({ problem, byRow }: Normalised) {
  const W = problem.model.leaf("W");
  return byRow ? ops.sum(ops.square(ops.sum(ops.square(W), { axis: 1 }))) : ops.square(ops.sqnorm(W));
}

/** |g|^2 of W. */
function squareOf(problem: Problem, gradient: ArrayLike<number>): number {
  const { offset, size } = problem.model.block("W");
  let sum = 0;
  for (let i = offset; i < offset + size; i++) sum += gradient[i]! * gradient[i]!;
  return sum;
}

/** E|ghat|^2 of W at each recorded theta from the noise of all samples: (1/S) E|g|^2 + (1 - 1/S) |gbar|^2. */
function exactPower({ problem, S, theta }: Normalised, run: Run): Float64Array {
  const A = symmetry.scaling("W");
  return Float64Array.from(thetasAt(problem, run, theta), (at) => {
    const second = problem.noisePower(at, A, { centred: false }).value;
    return second / S + (1 - 1 / S) * squareOf(problem, problem.gradient(at));
  });
}

/** One minibatch step from each recorded theta, many times over: its work and its angles. */
async function stepsFrom(
  trial: Trial,
  net: Normalised,
  run: Run,
  name: string,
  gamma: number,
): Promise<Angles> {
  const { problem, S, eta, theta } = net;
  return anglesOf(problem, thetasAt(problem, run, theta), gamma === 0 ? REPEATS.path : REPEATS.rest, {
    scheme: "sgd",
    batchSize: S,
    eta,
    weightDecay: gamma,
    seed: trial.seedOf(`${name}, steps from its records`),
    charges: chargesOf(net),
    byRow: net.byRow,
  });
}

/** E|ghat|^2 of every charge at the records of a run. */
async function powersAt(
  trial: Trial,
  net: Normalised,
  run: Run,
  name: string,
  steps: () => Promise<Angles>,
): Promise<Flows> {
  trial.progress(0, name);
  return net.coupled ? (await steps()).power : { W: exactPower(net, run) };
}

const scaled = (flows: Flows, factor: number): Flows =>
  Object.fromEntries(Object.entries(flows).map(([name, of]) => [name, Array.from(of, (x) => factor * x)]));

/** Rows and curves without decay: how |W|^2 grows under SGD and under gradient descent, and the identities of each step. */
export async function growth(trial: Trial, net: Normalised, steps: number, gdSteps: number): Promise<void> {
  const { problem, whole, S, eta, replicas, theta } = net;
  const charges = { W: symmetry.scaling("W") };
  const record = { every: 1, charges, values: { W: problem.model.leaf("W") } };
  const sgd = { scheme: "sgd" as const, batchSize: S, theta, eta, replicas };
  const flowsOf = async (run: Run, name: string) =>
    scaled(await powersAt(trial, net, run, name, () => stepsFrom(trial, net, run, name, 0)), 0.5 * eta * eta);
  const setting = `SGD, S = ${S}, γ = 0`;
  const path = await follow(trial, setting, problem, { ...sgd, steps, record }, flowsOf, 4);
  const quantity = `change of ½|W|² in ${steps} steps, dr⁴/dt = 4σ²n + 2η|ḡ|² at r = |W| = 1`;
  alongPath(trial, { setting, quantity }, path, "W");
  const each = await trial.run(`${setting}, every step`, problem, {
    ...sgd,
    theta: theta.subarray(0, WATCHED.replicas * problem.model.P),
    replicas: WATCHED.replicas,
    steps: Math.min(steps, WATCHED.steps),
    record: { every: 1, charges: chargesOf(net), work: true },
  });
  everyStep(trial, setting, each, { what: "|W|²", charge: "W", eta, gamma: 0, loss: net.loss });
  const gdFlows = (run: Run): Flows => {
    const power = Float64Array.from(thetasAt(whole, run, theta), (at) => squareOf(whole, whole.gradient(at)));
    return scaled({ W: power }, 0.5 * eta * eta);
  };
  const gd = await follow(
    trial,
    "gradient descent, γ = 0",
    whole,
    {
      scheme: "gd",
      theta: theta.subarray(0, WATCHED.replicas * whole.model.P),
      eta,
      replicas: WATCHED.replicas,
      steps: gdSteps,
      record: { every: 1, charges, values: { W: whole.model.leaf("W") } },
    },
    gdFlows,
    1,
  );
  const kept = `change of ½|W|² in ${gdSteps} steps, ∫ η/2 |ḡ|² dt`;
  alongPath(trial, { setting: "gradient descent, γ = 0", quantity: kept }, gd, "W");
  trial.figure({
    title: "Growth of the norm without decay",
    caption:
      "|W|² relative to its start, mean over the runs (solid); the sum of the predicted mean changes along the same runs (dashed).",
    xLabel: "step",
    yLabel: "|W|² / its start",
    xScale: "linear",
    yScale: "linear",
    curves: [...grown("SGD", path), ...grown("gradient descent", gd)],
  });
}

const grown = (label: string, path: Path): Curve[] =>
  [false, true].map((predicted) => relativeCurve(label, path, "W", predicted));

/** Steps of one relaxation of r^4, 1 / (8 eta gamma). */
export const relaxation = (eta: number, gamma: number): number => 1 / (8 * eta * gamma);

/**
 * Rows and curves with decay, from a run of `times` relaxations to come to rest and as many to be measured: r^4 against
 * eta G / (4 gamma (1 - eta gamma)), G = E|ghat|^2 r^2 at the records of the second part, and the angle of a step against
 * sqrt(4 eta gamma). Both follow from the norm being at rest: with kappa = (1 - 2 eta gamma)^2, r'^2 = kappa r^2 + eta^2 |ghat|^2
 * gives
 *
 *   <r^4> (1 - kappa) = eta^2 <G> (1 + O((K - 1) eta gamma)),   <ln(1 + tan^2)> = -ln kappa,   K = E|ghat|^4 / (E|ghat|^2)^2
 *
 * @source theory.md, 7
 */
export async function rest(trial: Trial, net: Normalised, gamma: number, times: number): Promise<Curve[]> {
  const { problem, S, eta, replicas, theta } = net;
  const setting = `SGD, S = ${S}, γ = ${gamma}`;
  const steps = Math.ceil(times * relaxation(eta, gamma));
  const common = { scheme: "sgd" as const, batchSize: S, eta, weightDecay: gamma, replicas, steps };
  const r4 = fourthPower(net);
  const record = { every: Math.ceil(steps / 100), values: { r4 } };
  const before = await trial.run(`${setting}, coming to rest`, problem, { ...common, theta, record }, 2);
  const name = `${setting}, at rest`;
  const run = await trial.run(
    name,
    problem,
    {
      ...common,
      theta: before.theta,
      record: {
        every: Math.ceil(steps / RECORDS),
        charges: chargesOf(net),
        values: { r4, W: problem.model.leaf("W") },
        average: { from: 1, every: 1 },
      },
    },
    2,
  );
  const taken = await stepsFrom(trial, net, run, name, gamma);
  const power = await powersAt(trial, net, run, name, async () => taken);
  const level = restRow(trial, net, run, power, gamma);
  trial.row(
    { setting, quantity: `mean square angle of a step of ${net.byRow ? "a row of W" : "W"}, 4ηγ` },
    {
      value: 4 * eta * gamma,
      modelError: 12 * eta * gamma * eta * gamma,
      neglects: "the fourth power of the angle, relative 3ηγ for a batch-to-batch kurtosis K of 3",
    },
    overReplicas(run, (r) => meanOver(taken.square, run, r)),
  );
  const each = await trial.run(`${setting}, every step`, problem, {
    ...common,
    theta: run.theta.subarray(0, WATCHED.replicas * problem.model.P),
    replicas: WATCHED.replicas,
    steps: Math.min(steps, WATCHED.steps),
    record: { every: 1, charges: { W: symmetry.scaling("W") }, work: true },
  });
  everyStep(trial, setting, each, { what: "|W|²", charge: "W", eta, gamma, loss: net.loss });
  const label = `γ = ${gamma}`;
  const x = [...before.series.k];
  return [
    { label, predicted: false, x, y: meanCurve(before, before.series.values["r4"]!) },
    { label, predicted: true, x: [0, steps], y: [level, level] },
  ];
}

/** Mean over the records of replica r, of values [record][replica]. */
function meanOver(values: ArrayLike<number>, run: Run, r: number): number {
  const records = run.series.k.length;
  let sum = 0;
  for (let i = 0; i < records; i++) sum += values[i * run.replicas + r]!;
  return sum / records;
}

/** The row of r^4, and its prediction. */
function restRow(trial: Trial, net: Normalised, run: Run, power: Flows, gamma: number): number {
  const { eta, S } = net;
  const records = run.series.k.length;
  const predictedOf = (r: number): number => {
    let sum = 0;
    for (const part of partsOf(net)) {
      const C = run.series.charges[part]!;
      let G = 0;
      for (let i = 0; i < records; i++)
        G += (2 * C[i * run.replicas + r]! * power[part]![i * run.replicas + r]!) / records;
      const { radius } = normEquilibrium({ eta, G, gamma });
      sum += radius * radius * radius * radius;
    }
    return sum;
  };
  const measuredOf = (r: number): number => run.averages!.values["r4"]![r]!;
  const predicted = overReplicas(run, predictedOf);
  const measured = overReplicas(run, measuredOf);
  const { stdErr } = overReplicas(run, (r) => measuredOf(r) - predictedOf(r));
  trial.row(
    {
      setting: `SGD, S = ${S}, γ = ${gamma}`,
      quantity: `⟨r⁴⟩ ${net.byRow ? "summed over the rows r of W" : "of r = |W|"}, ηG / (4γ(1 − ηγ))`,
    },
    {
      value: predicted.value,
      modelError: 4 * eta * gamma * predicted.value,
      neglects: "fluctuations of |ĝ|² from batch to batch, relative 2(K − 1)ηγ with a kurtosis K of 3",
    },
    { ...measured, stdErr, method: `mean over ${run.replicas} runs, each less the prediction along it` },
  );
  return predicted.value;
}

/** What the experiments on networks with a normalised layer are set by. */
export interface NormalisedSpec {
  readonly dx: number;
  readonly h: number;
  readonly dy: number;
  readonly N: number;
  readonly batch: number;
  readonly eta: number;
  readonly gamma: number;
  readonly steps: number;
  readonly gdSteps: number;
  readonly times: number;
  readonly replicas: number;
  readonly stdW: number;
  readonly stdU: number;
  readonly teacherSd: number;
  readonly noiseSd: number;
}

/** The whole experiment on data of a linear teacher: growth without decay, and rest at decays gamma and `more` times gamma. */
export async function measureNormalised(
  trial: Trial,
  engine: Engine,
  spec: NormalisedSpec,
  kind: { model: Model; byRow: boolean; coupled: boolean; more: number },
): Promise<void> {
  const { dx, h, dy, replicas, stdU, stdW, teacherSd, noiseSd } = spec;
  const V = normalMatrix(engine, dy, dx, trial.seedOf("teacher"));
  const data = sampler({
    noise: { x: { kind: "normal", shape: [dx] }, eps: { kind: "normal", shape: [dy] } },
    constants: { V: { shape: [dy, dx], values: V.values.map((v) => teacherSd * v) } },
    outputs: ({ x, eps, V: map }) => ({ x, y: ops.add(ops.matmul(map, x), ops.scale(eps, noiseSd)) }),
  });
  const problem = engine.problem(kind.model, data, { samples: spec.N, dataSeed: trial.seedOf("data") });
  const theta = problem.init("normal", {
    std: { U: stdU, W: stdW },
    seed: trial.seedOf("start"),
    replicas,
  });
  const loss = dy * (h * stdU * stdU + dx * teacherSd * teacherSd + noiseSd * noiseSd);
  const { byRow, coupled } = kind;
  const net = {
    problem,
    whole: problem,
    S: spec.batch,
    eta: spec.eta,
    replicas,
    theta,
    byRow,
    coupled,
    loss,
  };
  await growthAndRest(trial, net, { ...spec, gammas: [spec.gamma, kind.more * spec.gamma] });
  problem.dispose();
}

/** All of it: growth without decay, and rest at two decays. */
export async function growthAndRest(
  trial: Trial,
  net: Normalised,
  plan: { steps: number; gdSteps: number; gammas: readonly number[]; times: number },
): Promise<void> {
  await growth(trial, net, plan.steps, plan.gdSteps);
  const curves: Curve[] = [];
  for (const gamma of plan.gammas) curves.push(...(await rest(trial, net, gamma, plan.times)));
  trial.figure({
    title: "The norm comes to rest with decay",
    caption:
      "Mean of r⁴ over the runs (solid) from the start on; the level ηG / (4γ(1 − ηγ)), G measured at rest (dashed).",
    xLabel: "step",
    yLabel: net.byRow ? "sum of r⁴ over the rows of W" : "r⁴ = |W|⁴",
    xScale: "linear",
    yScale: "log",
    curves,
  });
}

/** Shares of `growthAndRest` in the work of a trial. */
export const sharesOf = (gammas: number): number => 6 + 5 * gammas;

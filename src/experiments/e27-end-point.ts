import { exp } from "../core/elementary.ts";
import type { Engine } from "../engine.ts";
import type { Model } from "../graph/model.ts";
import type { Node } from "../graph/node.ts";
import { ops } from "../graph/ops.ts";
import { momentMatched } from "../models/moment-matched.ts";
import type { Problem } from "../problem.ts";
import { exact } from "../stats/estimate.ts";
import { symmetry } from "../symmetry/generator.ts";
import type { Experiment } from "./experiment.ts";
import { conservation, linearNet, type Teacher, teacherSampler } from "./linear-net.ts";
import { restOf } from "./linear-rest.ts";
import type { Parameter } from "./spec.ts";
import { at, meanCurve, overReplicas, Trial } from "./trial.ts";
import { UnitLaw, type UnitSetting, type UnitTask } from "./unit-moments.ts";
import { decayTime, NEGLECTS, neglectedBy, offValley, onValley, sizeAt, teacherOf } from "./unit-valley.ts";

const parameters = {
  eta: {
    value: 0.02,
    min: 0.01,
    max: 0.04,
    unit: "theta^2 / loss",
    what: "step size of the middle batch sizes; a quarter of it up to 2.5 times it at the others",
  },
  dy: { value: 2, min: 1, max: 6, integer: true, what: "outputs; the input is one number" },
  slope: {
    value: 1,
    min: 0.5,
    max: 1.5,
    what: "y = slope (1, ..., 1) x + noise; 3 is the edge of stability at the start",
  },
  xSd: {
    value: 1,
    min: 0.5,
    max: 1.1,
    what: "standard deviation of x; more is beyond the edge of stability",
  },
  noiseSd: { value: 1, min: 0.4, max: 1.6, what: "standard deviation of the label noise" },
  start: {
    value: -2,
    min: -3,
    max: -0.5,
    unit: "theta^2",
    what: "charge at the start, on the valley u w = V",
  },
  largest: {
    value: 256,
    min: 64,
    max: 256,
    integer: true,
    what: "the largest batch size; time goes with it",
  },
  times: {
    value: 8,
    min: 4,
    max: 16,
    what: "length of a run in predicted 1/e times of the charge; averages over its last quarter",
  },
  replicas: {
    value: 400,
    min: 32,
    max: 4096,
    integer: true,
    what: "independent runs at S = 1; fewer at the larger batch sizes, at least 8",
  },
  lossRuns: {
    value: 2000,
    min: 100,
    max: 20_000,
    integer: true,
    what: "independent runs for the loss times",
  },
  cosine: {
    value: 0.36,
    min: 0.1,
    max: 0.8,
    what: "cosine of the angle between u and V where the loss times start",
  },
} satisfies Record<string, Parameter>;

type Spec = { [K in keyof typeof parameters]: number };

/** Cases in the figure, by their place: S = 1, 16 and the largest. */
const SHOWN = [2, 4, 6];

/** A run on the valley. */
interface Descent extends UnitSetting {
  readonly name: string;
  readonly replicas: number;
}

export const endPoint: Experiment = {
  id: "E27",
  title: "Not a perturbation: every batch size ends at the noise equilibrium, gradient descent stays",
  question:
    "One would think that large batches make SGD nearly gradient descent. How much of the difference is left at S = 256: is the end " +
    "nearer to that of gradient descent, or only later? And does the noise change how fast the loss falls?",
  source: "Ziyin et al., arXiv:2402.07193, eq. 16 and the discussion of Theorem 2; theory.md, 9 and E27",
  claim:
    "All charges go to the same end, in a time that grows as S/η²; gradient descent stays where it started. The loss falls in a time " +
    "that does not depend on S.",
  formula:
    "C = (|u|^2 - w^2)/2 -> end of Theorem 2; dC/dt = 4 sigma^2 Sigma_x Sigma_eps (n w^2 - |u|^2) on u w = V, and what is of first " +
    "order in eta by the recursion of mean and covariance",
  parameters,
  quick: { times: 4, replicas: 32, largest: 64, lossRuns: 200, eta: 0.04 },

  async measure(engine, given, seed, control) {
    const spec = given as Spec;
    const { dy, eta } = spec;
    const V = new Float64Array(dy).fill(spec.slope);
    const task = { V, varX: spec.xSd * spec.xSd, varEps: spec.noiseSd * spec.noiseSd };
    const teacher = teacherOf(engine, task);
    const net = linearNet(1, 1, dy);
    const problem = engine.problem(net, teacherSampler(engine, teacher));
    const start = onValley(task, spec.start);
    const descents = [
      [1, 0.25],
      [1, 0.5],
      [1, 1],
      [4, 1],
      [16, 1],
      [0.25 * spec.largest, 2],
      [spec.largest, 2.5],
    ].map(([size, factor]): Descent => {
      const [S, step] = [Math.round(size!), factor! * eta];
      // as much work for each as its length allows
      const replicas = Math.max(8, Math.ceil(spec.replicas / S));
      return { name: `S = ${S}, η = ${step}`, S, eta: step, gamma: 0, replicas };
    });
    const plans = descents.map((d) => ({
      ...d,
      steps: Math.ceil(spec.times * decayTime(task, d, spec.start)),
    }));
    const work = (d: { S: number; steps: number; replicas: number }) => d.S * d.steps * d.replicas;
    const total = plans.reduce((sum, d) => sum + work(d), 0);
    const trial = new Trial("E27", engine, seed, control, 1.05 * total);
    const curves = [];
    for (const plan of plans) {
      const every = Math.max(1, Math.floor(plan.steps / 120));
      const run = await trial.run(
        plan.name,
        problem,
        {
          scheme: "sgd",
          batchSize: plan.S,
          theta: start,
          eta: plan.eta,
          steps: plan.steps,
          replicas: plan.replicas,
          record: {
            every,
            charges: { C: symmetry.rescaling("U", "W") },
            average: { from: Math.floor(0.75 * plan.steps) + 1, every: 1 },
          },
        },
        work(plan),
      );
      const end = restOf(engine, teacher, 1, plan).charge;
      const law = lawOf(task, plan, start, plan.steps);
      const { k, charges } = run.series;
      // the record next to the predicted 1/e time
      const left = (step: number) => (law.charge[step]! - end) / (spec.start - end);
      let record = 1;
      while (record + 1 < k.length && left(k[record]!) > exp(-1)) record++;
      trial.row(
        { setting: plan.name, quantity: `C at the end; Theorem 2: ${end.toPrecision(4)}` },
        { value: law.end, modelError: law.neglected * sizeAt(task, end), neglects: NEGLECTS },
        overReplicas(run, (r) => run.averages!.charges["C"]![r]!),
      );
      trial.row(
        {
          setting: plan.name,
          quantity: `(C − C_end)/(C(0) − C_end) at step ${k[record]}, predicted 1/e time`,
        },
        {
          value: left(k[record]!),
          modelError: (law.neglected * sizeAt(task, spec.start)) / Math.abs(spec.start - end),
          neglects: NEGLECTS,
        },
        overReplicas(run, (r) => (at(run, charges["C"]!, record, r) - end) / (spec.start - end)),
      );
      if (!SHOWN.includes(plans.indexOf(plan))) continue;
      const x = Array.from(k, (i) => (i * plan.eta * plan.eta) / plan.S);
      curves.push({ label: `S = ${plan.S}`, predicted: false, x, y: meanCurve(run, charges["C"]!) });
      curves.push({ label: `S = ${plan.S}`, predicted: true, x, y: Array.from(k, (i) => law.charge[i]!) });
    }
    trial.figure({
      title: "One end for all batch sizes",
      caption:
        "Mean charge of the runs of each batch size against its own time, and the recursion of mean and covariance (dashed).",
      xLabel: "η² k / S (θ⁴ / loss²)",
      yLabel: "C = (‖u‖² − w²)/2 (θ²)",
      xScale: "linear",
      yScale: "linear",
      curves,
    });
    await lossTimes(trial, problem, net, task, spec);
    await descent(trial, engine, net, teacher, spec, task);
    problem.dispose();
    return trial.findings;
  },
};

/** Mean charge at every step, and over the last quarter. */
function lawOf(task: UnitTask, setting: UnitSetting, start: Float64Array, steps: number) {
  const law = new UnitLaw(task, setting, start);
  const charge = new Float64Array(steps + 1);
  charge[0] = law.charge;
  const from = Math.floor(0.75 * steps) + 1;
  let end = 0;
  for (let k = 1; k <= steps; k++) {
    law.step();
    charge[k] = law.charge;
    if (k >= from) end += law.charge / (steps + 1 - from);
  }
  return { charge, end, neglected: neglectedBy(task, setting, charge[0]!, charge[steps]!) };
}

/** How far the loss has fallen where it has fallen to 1/e under gradient descent, for every batch size. */
async function lossTimes(
  trial: Trial,
  problem: Problem,
  net: Model,
  task: UnitTask,
  spec: Spec,
): Promise<void> {
  const eta = 0.25 * spec.eta;
  const start = offValley(task, spec.cosine);
  const setting = (S: number): UnitSetting => ({ eta, S, gamma: 0 });
  const law = new UnitLaw(task, setting(Infinity), start);
  const first = law.excess;
  let steps = 0;
  while (law.excess > exp(-1) * first && steps < 100_000) {
    law.step();
    steps++;
  }
  const [U, W] = [net.leaf("U"), net.leaf("W")];
  const target: Node = net.graph.constant(task.V, [task.V.length, 1], "V");
  const values = { excess: ops.scale(ops.sqnorm(ops.sub(ops.matmul(U, W), target)), task.varX) };
  const measured: { S: number[]; predicted: number[]; y: number[]; error: number[] } = {
    S: [],
    predicted: [],
    y: [],
    error: [],
  };
  for (const S of [1, 4, 16, 64, 256]) {
    const run = await trial.run(
      `loss, S = ${S}`,
      problem,
      {
        scheme: "sgd",
        batchSize: S,
        theta: start,
        eta,
        steps,
        replicas: spec.lossRuns,
        record: { every: steps, values },
      },
      0,
    );
    const moments = new UnitLaw(task, setting(S), start);
    for (let k = 0; k < steps; k++) moments.step();
    const predicted = moments.excess / first;
    const relative =
      (2 * neglectedBy(task, setting(S), 0, 0.5 * start.reduce((sum, x) => sum + x * x, 0))) / S;
    const found = overReplicas(run, (r) => at(run, run.series.values["excess"]!, -1, r) / first);
    trial.row(
      {
        setting: `S = ${S}, η = ${eta}`,
        quantity: `excess loss / start at step ${steps}, 1/e under gradient descent`,
      },
      { value: predicted, modelError: relative * predicted, neglects: `${NEGLECTS} 2/S` },
      found,
    );
    measured.S.push(S);
    measured.predicted.push(law.excess / first);
    measured.y.push(found.value);
    measured.error.push(found.stdErr);
  }
  trial.figure({
    title: "The loss falls as fast for every batch size",
    caption:
      "Excess loss left at the step where gradient descent has left 1/e of it (dashed), for each batch size.",
    xLabel: "batch size S",
    yLabel: "excess loss / that at the start",
    xScale: "log",
    yScale: "linear",
    curves: [
      { label: "SGD", predicted: false, x: measured.S, y: measured.y, error: measured.error, mark: "dots" },
      { label: "gradient descent", predicted: true, x: measured.S, y: measured.predicted },
    ],
  });
}

/** Gradient descent on the population from off the valley keeps the charge. */
async function descent(
  trial: Trial,
  engine: Engine,
  net: Model,
  teacher: Teacher,
  spec: Spec,
  task: UnitTask,
): Promise<void> {
  const population = engine.problem(net, momentMatched(teacherSampler(engine, teacher)));
  const theta = onValley(task, spec.start).map((x) => 0.9 * x);
  const run = await trial.run(
    "gradient descent",
    population,
    {
      scheme: "gd",
      theta,
      eta: spec.eta,
      steps: 10_000,
      record: { every: 10_000, loss: "full", matrixCharges: { Q: ["U", "W"] } },
    },
    0,
  );
  population.dispose();
  const [about, predicted, measured] = conservation(run, spec.eta, 1, "gradient descent from 0.9 θ");
  trial.row(about, predicted, exact(measured.value, 1));
}

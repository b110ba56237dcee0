import type { Engine } from "../engine.ts";
import { ops } from "../graph/ops.ts";
import { sampler } from "../graph/sampler.ts";
import { models } from "../models/ready.ts";
import { exact } from "../stats/estimate.ts";
import { symmetry } from "../symmetry/generator.ts";
import { at, overReplicas, type Trial } from "./trial.ts";

const ROUNDING = Number.EPSILON;

/** SGD on a softmax layer with random labels. */
export interface SoftmaxRun {
  readonly classes: number;
  readonly d: number;
  readonly samples: number;
  readonly S: number;
  readonly eta: number;
  readonly steps: number;
  readonly replicas: number;
}

/** The sum of the rows of a softmax layer is the charge of a translation, whose Hessian vanishes: a row and a figure. */
export async function softmaxTranslation(trial: Trial, engine: Engine, spec: SoftmaxRun): Promise<void> {
  const { classes, d, eta, steps, replicas } = spec;
  const every = Math.max(1, Math.floor(steps / 100));
  const net = models.softmaxRegression({ d, classes });
  const random = sampler({
    noise: { x: { kind: "normal", shape: [d] }, z: { kind: "normal", shape: [classes] } },
    // random labels, nearly all of one class
    outputs: ({ x, z }) => ({ x: x!, y: ops.softmax(ops.scale(z!, 8)) }),
  });
  const problem = engine.problem(net, random, { samples: spec.samples, dataSeed: trial.seedOf("labels") });
  const column = (i: number) =>
    Array.from({ length: classes }, () => Array.from({ length: d }, (_, j) => (j === i ? 1 : 0)));
  const charges = Object.fromEntries(
    Array.from({ length: d }, (_, i) => [`sum ${i}`, symmetry.translation({ W: column(i) })]),
  );
  const run = await trial.run(
    "SGD, softmax layer",
    problem,
    {
      scheme: "sgd",
      batchSize: spec.S,
      theta: problem.init("normal", { std: 1, seed: trial.seedOf("softmax"), replicas }),
      eta,
      steps: every * Math.floor(steps / every),
      replicas,
      record: { every, charges, blockNorms: true },
    },
    steps * spec.S * replicas,
  );
  const norms = run.series.blockNorms.W!;
  const { x } = problem.data as unknown as { x: Float64Array };
  problem.dispose();
  const largest = norms.reduce((m, n) => Math.max(m, n), 0);
  const input = x.reduce((m, v) => Math.max(m, Math.abs(v)), 0);
  const drifts = Array.from(run.series.k, (_, i) => {
    let most = 0;
    for (const series of Object.values(run.series.charges))
      for (let r = 0; r < run.replicas; r++)
        most = Math.max(most, Math.abs(at(run, series, i, r) - at(run, series, 0, r)));
    return most;
  });
  trial.row(
    {
      setting: `SGD, softmax of ${classes} classes, ${d} inputs`,
      quantity: "largest change of an entry of Σₖ Wₖ",
    },
    {
      value: 0,
      modelError: run.steps * classes * ROUNDING * (2 * largest + 8 * (classes + 4) * eta * input),
      neglects: "rounding of every update, all of one sign",
    },
    exact(
      drifts.reduce((a, b) => Math.max(a, b), 0),
      run.steps,
    ),
  );
  const k = [...run.series.k];
  const square = (i: number) => overReplicas(run, (r) => at(run, norms, i, r) * at(run, norms, i, r)).value;
  trial.figure({
    title: "A softmax layer under SGD",
    caption:
      "Mean of |W|² over the runs, which noise moves, and the largest change of an entry of the sum of the rows, which it does not.",
    xLabel: "step",
    yLabel: "θ²; change of Σₖ Wₖ in θ",
    xScale: "linear",
    yScale: "linear",
    curves: [
      { label: "|W|²", predicted: false, x: k, y: k.map((_, i) => square(i)) },
      { label: "change of Σₖ Wₖ", predicted: false, x: k, y: drifts },
      { label: "change of Σₖ Wₖ", predicted: true, x: [0, run.steps], y: [0, 0] },
    ],
  });
}

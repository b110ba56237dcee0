import { models } from "../models/ready.ts";
import type { Experiment } from "./experiment.ts";
import { measureNormalised, sharesOf } from "./normalised.ts";
import type { Parameter } from "./spec.ts";
import { Trial } from "./trial.ts";

const parameters = {
  dx: { value: 8, min: 3, max: 12, integer: true, what: "input dimension" },
  h: { value: 6, min: 2, max: 12, integer: true, what: "features that are normalised" },
  dy: { value: 3, min: 1, max: 6, integer: true, what: "output dimension" },
  N: { value: 400, min: 100, max: 800, integer: true, what: "samples of the data set" },
  batch: {
    value: 16,
    min: 8,
    max: 32,
    integer: true,
    what: "batch size of SGD; of a few samples the statistics of a feature may vanish by chance",
  },
  eta: { value: 0.1, min: 0.03, max: 0.15, unit: "theta^2 / loss", what: "step size of all runs" },
  gamma: { value: 0.01, min: 0.004, max: 0.02, unit: "loss / theta^2", what: "weight decay, and twice it" },
  steps: { value: 6000, min: 500, max: 10_000, integer: true, what: "steps of SGD without decay" },
  gdSteps: { value: 400, min: 100, max: 1000, integer: true, what: "steps of gradient descent" },
  times: {
    value: 50,
    min: 20,
    max: 100,
    what: "length of both parts of a run with decay, in 1 / (8 eta gamma) steps",
  },
  replicas: { value: 16, min: 8, max: 32, integer: true, what: "independent starts and runs" },
  stdW: { value: 0.5, min: 0.4, max: 1.6, unit: "theta", what: "standard deviation of the initial W" },
  stdU: { value: 0.5, min: 0.2, max: 0.8, what: "standard deviation of the fixed readout U" },
  teacherSd: { value: 0.5, min: 0.2, max: 0.8, what: "standard deviation of the entries of the teacher V" },
  noiseSd: { value: 0.5, min: 0.2, max: 0.8, what: "standard deviation of the label noise" },
} satisfies Record<string, Parameter>;

type Spec = { [K in keyof typeof parameters]: number };

export const batchNorm: Experiment = {
  id: "E25",
  title: "Batch norm: every row of weights has an equilibrium of its own",
  question:
    "Batch norm couples the samples of a batch, so that no sample has a loss of its own; yet no minibatch sees the length of a row of W. " +
    "Do the laws of scale invariance hold with the noise of whole minibatches, row by row?",
  source: "Ziyin et al., arXiv:2402.07193, section 4.1; Ioffe and Szegedy, arXiv:1502.03167",
  claim:
    "Every step obeys the identity of the norm to rounding. Without decay |W|² grows as the noise of minibatch gradients predicts; with " +
    "decay each row settles where its own noise balances it.",
  formula:
    "r⁴ = ηG / (4γ(1 − ηγ)) for the length r of each row, G = E|ĝ|² r² of its minibatch gradients;  angle (4ηγ)^½",
  parameters,
  seconds: 4,
  quick: {
    dx: 4,
    h: 2,
    dy: 1,
    N: 100,
    batch: 8,
    steps: 500,
    gdSteps: 100,
    times: 20,
    replicas: 8,
    gamma: 0.02,
  },

  async measure(engine, given, seed, control) {
    const spec = given as Spec;
    const trial = new Trial("E25", engine, seed, control, sharesOf(2));
    const model = models.batchNormNet({ dx: spec.dx, h: spec.h, dy: spec.dy });
    await measureNormalised(trial, engine, spec, { model, byRow: true, coupled: true, more: 2 });
    return trial.findings;
  },
};

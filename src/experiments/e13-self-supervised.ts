import { ops } from "../graph/ops.ts";
import { sampler } from "../graph/sampler.ts";
import { models } from "../models/ready.ts";
import type { Experiment } from "./experiment.ts";
import { growthAndRest, sharesOf } from "./normalised.ts";
import type { Parameter } from "./spec.ts";
import { Trial } from "./trial.ts";

const parameters = {
  // |ghat|^2 has the tail of 1 / |W x|^2, whose square has a mean from 5 dimensions on
  dx: {
    value: 8,
    min: 6,
    max: 24,
    integer: true,
    what: "input dimension; of fewer than 6 |ĝ|² has no variance",
  },
  h: {
    value: 6,
    min: 6,
    max: 24,
    integer: true,
    what: "embedding dimension; of fewer than 6 |ĝ|² has no variance",
  },
  N: {
    value: 200,
    min: 50,
    max: 300,
    integer: true,
    what: "samples of gradient descent; SGD draws fresh ones",
  },
  batch: {
    value: 8,
    min: 4,
    max: 24,
    integer: true,
    what: "batch size of SGD; each sample is told from the others",
  },
  temperature: { value: 0.3, min: 0.2, max: 1, what: "temperature of the softmax over the batch" },
  augmentation: {
    value: 0.5,
    min: 0.2,
    max: 1,
    what: "standard deviation of the noise that makes two views of a sample",
  },
  eta: { value: 0.1, min: 0.03, max: 0.15, unit: "theta^2 / loss", what: "step size of all runs" },
  gamma: { value: 0.01, min: 0.005, max: 0.02, unit: "loss / theta^2", what: "weight decay, and twice it" },
  steps: { value: 2000, min: 500, max: 6000, integer: true, what: "steps of SGD without decay" },
  gdSteps: { value: 100, min: 50, max: 300, integer: true, what: "steps of gradient descent" },
  times: {
    value: 40,
    min: 20,
    max: 80,
    what: "length of both parts of a run with decay, in 1 / (8 eta gamma) steps",
  },
  replicas: { value: 16, min: 8, max: 32, integer: true, what: "independent starts and runs" },
  stdW: { value: 0.3, min: 0.25, max: 1, unit: "theta", what: "standard deviation of the initial W" },
} satisfies Record<string, Parameter>;

type Spec = { [K in keyof typeof parameters]: number };

export const selfSupervised: Experiment = {
  id: "E13",
  title: "Self-supervised learning: a symmetry of the loss alone sets the norm of the embedding",
  question:
    "InfoNCE compares directions of embeddings within a batch: the output of the network scales with W, the loss does not. Is that " +
    "enough for the laws of scale invariance, although samples have no loss of their own?",
  source:
    "Ziyin et al., arXiv:2402.07193; van den Oord, Li, Vinyals, arXiv:1807.03748; Chen et al., arXiv:2002.05709",
  claim:
    "|W|² grows under SGD as the noise of minibatch gradients predicts, hardly under gradient descent, and with decay it settles at its " +
    "dashed line.",
  formula: "dr⁴/dt = 4σ²n − 8γr⁴;  r⁴ = ηG / (4γ(1 − ηγ)), G = E|ĝ|² at r = 1;  angle (4ηγ)^½",
  parameters,
  seconds: 3,
  quick: { dx: 6, N: 50, batch: 4, steps: 500, gdSteps: 50, times: 20, replicas: 8, gamma: 0.02 },

  async measure(engine, given, seed, control) {
    const spec = given as Spec;
    const { dx, h, replicas, augmentation } = spec;
    const trial = new Trial("E13", engine, seed, control, sharesOf(2));
    const shape = [dx];
    // a sample, and two views of it
    const views = sampler({
      noise: {
        z: { kind: "normal", shape },
        one: { kind: "normal", shape },
        other: { kind: "normal", shape },
      },
      outputs: ({ z, one, other }) => ({
        x: ops.add(z, ops.scale(one, augmentation)),
        xplus: ops.add(z, ops.scale(other, augmentation)),
      }),
    });
    const model = models.infoNCE({ dx, h, temperature: spec.temperature });
    const problem = engine.problem(model, views);
    const whole = engine.problem(model, views, { samples: spec.N, dataSeed: trial.seedOf("data") });
    const theta = problem.init("normal", { std: spec.stdW, seed: trial.seedOf("start"), replicas });
    const net = {
      problem,
      whole,
      S: spec.batch,
      eta: spec.eta,
      replicas,
      theta,
      byRow: false,
      coupled: true,
      loss: 1 / spec.temperature,
    };
    await growthAndRest(trial, net, { ...spec, gammas: [spec.gamma, 2 * spec.gamma] });
    problem.dispose();
    whole.dispose();
    return trial.findings;
  },
};

import { models } from "../models/ready.ts";
import type { Experiment } from "./experiment.ts";
import { measureNormalised, sharesOf } from "./normalised.ts";
import type { Parameter } from "./spec.ts";
import { Trial } from "./trial.ts";

const parameters = {
  // |ghat|^2 has the tail of one over the variance of the features, whose square has a mean from 5 dimensions on
  dx: {
    value: 8,
    min: 6,
    max: 24,
    integer: true,
    what: "input dimension; of fewer than 6 |ĝ|² has no variance",
  },
  h: {
    value: 12,
    min: 6,
    max: 24,
    integer: true,
    what: "features that are normalised; of fewer than 6 |ĝ|² has no variance",
  },
  dy: { value: 3, min: 1, max: 6, integer: true, what: "output dimension" },
  N: { value: 400, min: 100, max: 800, integer: true, what: "samples of the data set" },
  batch: { value: 4, min: 1, max: 16, integer: true, what: "batch size of SGD" },
  eta: { value: 0.1, min: 0.03, max: 0.15, unit: "theta^2 / loss", what: "step size of all runs" },
  gamma: { value: 0.01, min: 0.005, max: 0.02, unit: "loss / theta^2", what: "weight decay, and 4 times it" },
  steps: { value: 12_000, min: 500, max: 20_000, integer: true, what: "steps of SGD without decay" },
  gdSteps: { value: 500, min: 100, max: 2000, integer: true, what: "steps of gradient descent" },
  times: {
    value: 50,
    min: 20,
    max: 100,
    what: "length of both parts of a run with decay, in 1 / (8 eta gamma) steps",
  },
  replicas: { value: 32, min: 8, max: 64, integer: true, what: "independent starts and runs" },
  stdW: { value: 0.5, min: 0.4, max: 1.6, unit: "theta", what: "standard deviation of the initial W" },
  stdU: { value: 0.5, min: 0.2, max: 0.8, what: "standard deviation of the fixed readout U" },
  teacherSd: { value: 0.5, min: 0.2, max: 0.8, what: "standard deviation of the entries of the teacher V" },
  noiseSd: { value: 0.5, min: 0.2, max: 0.8, what: "standard deviation of the label noise" },
} satisfies Record<string, Parameter>;

type Spec = { [K in keyof typeof parameters]: number };

export const layerNorm: Experiment = {
  id: "E12",
  title: "Layer norm with weight decay: norm and angle per step settle at predicted values",
  question:
    "Behind a layer norm the length of the weights W does not matter. Without decay SGD lets it grow for ever. With decay it settles, " +
    "and with it the effective step size. At which length, and how far does W turn in a step?",
  source:
    "Ziyin et al., arXiv:2402.07193, section 4.1; Li, Lyu, Arora, arXiv:2010.02916; Wan et al., arXiv:2006.08419",
  claim:
    "Without decay |W|² grows by what the gradient noise predicts. With decay |W|⁴ ends at its dashed line, and the angle of a step at " +
    "(4ηγ)^½, which knows neither the data nor the network.",
  formula: "dr⁴/dt = 4σ²n − 8γr⁴;  r⁴ = ηG / (4γ(1 − ηγ)), G = E|ĝ|² at r = 1;  angle (4ηγ)^½",
  parameters,
  seconds: 3,
  quick: { dx: 6, h: 6, dy: 1, N: 100, steps: 500, gdSteps: 100, times: 20, replicas: 8, gamma: 0.02 },

  async measure(engine, given, seed, control) {
    const spec = given as Spec;
    const trial = new Trial("E12", engine, seed, control, sharesOf(2));
    const model = models.layerNormNet({ dx: spec.dx, h: spec.h, dy: spec.dy });
    await measureNormalised(trial, engine, spec, { model, byRow: false, coupled: false, more: 4 });
    return trial.findings;
  },
};

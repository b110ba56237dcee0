import { log } from "../core/elementary.ts";
import type { Run } from "../dynamics/result.ts";
import type { Engine } from "../engine.ts";
import { fail } from "../errors.ts";
import { type Estimate, exact, meanOf } from "../stats/estimate.ts";
import { noiseStrength } from "../symmetry/predictions/noise.ts";
import { type DeepNet, deepData, deepModel, depthOf, unevenStart } from "./deep-net.ts";
import type { Experiment } from "./experiment.ts";
import {
  chargesOf,
  leftOf,
  living,
  noiseOf,
  ofLayer,
  type Pair,
  ratioAt,
  rms,
  slowRate,
  type Unit,
  unitOf,
} from "./layer-balance.ts";
import type { Parameter } from "./spec.ts";
import { at, overReplicas, Trial } from "./trial.ts";

const parameters = {
  eta: {
    value: 0.01,
    min: 0.003,
    max: 0.012,
    unit: "theta^2 / loss",
    what: "step size of gradient descent and of SGD on ReLU nets; linear nets take half of it in SGD",
  },
  deepest: { value: 6, min: 2, max: 8, integer: true, what: "layers of the deepest linear net" },
  width: { value: 3, min: 2, max: 8, integer: true, what: "width of the linear nets" },
  hidden: {
    value: 5,
    min: 3,
    max: 12,
    integer: true,
    what: "hidden units of the ReLU nets of depth 2 and 3; depth 4 has 3 more",
  },
  samples: { value: 200, min: 80, max: 400, integer: true, what: "samples of the data set" },
  noiseSd: { value: 0.7, min: 0.4, max: 1.6, what: "standard deviation of the label noise" },
  uneven: {
    value: 3,
    min: 1.5,
    max: 6,
    what: "scale of large over small layers at the start; two thirds of it in ReLU nets",
  },
  gdSteps: {
    value: 6000,
    min: 2000,
    max: 20_000,
    integer: true,
    what: "steps of gradient descent, where SGD starts",
  },
  times: {
    value: 10,
    min: 6,
    max: 24,
    what: "length of SGD on linear nets in predicted τ₂ of the slowest double rotation of two layers; averages over its second half",
  },
  reluSteps: {
    value: 200_000,
    min: 20_000,
    max: 500_000,
    integer: true,
    what: "steps of SGD on ReLU nets of depth 3 and 4; half of it for depth 2",
  },
  replicas: { value: 8, min: 8, max: 64, integer: true, what: "independent runs per net" },
} satisfies Record<string, Parameter>;

type Spec = { [K in keyof typeof parameters]: number };

/** What has had this many tau_2 counts as at rest. */
const READY = 10;
/** 2^-53. */
const UNIT_ROUNDING = Number.EPSILON / 2;
/** Longest run of SGD on a linear net; what is left of the start after fewer times is part of the model error. */
const MOST_STEPS = 300_000;

interface Case {
  readonly name: string;
  readonly net: DeepNet;
  readonly S: number;
  readonly eta: number;
  readonly uneven: number;
  /** Of SGD; null for as long as the slowest double rotation needs. */
  readonly steps: number | null;
}

export const depth: Experiment = {
  id: "E29",
  title: "The noise of all layers balances at the end of training",
  question:
    "In a deep net every pair of adjacent layers has a rescaling, in a ReLU net every neuron. Does SGD balance the gradient noise of all of them, " +
    "whatever the depth, and which of them are late?",
  source: "Ziyin et al., arXiv:2402.07193, section 4.3 and eq. 10; theory.md, E29",
  claim:
    "Layers that start with very different noise end with the same under SGD, at every depth, and stay apart under gradient descent. In ReLU nets the " +
    "neurons that have had ten of their own times τ₂ are balanced; weak neurons are late.",
  formula:
    "ln(N+/N-) -> 0 as sinh(ln(N+/N-)/2) ~ exp(-t/tau_2), tau_2 = |theta|^2 / (2 sigma^2 (N+ + N-)) of each unit",
  parameters,
  quick: { deepest: 3, reluSteps: 20_000, gdSteps: 2000, samples: 80, hidden: 3, times: 6, eta: 0.012 },

  async measure(engine, given, seed, control) {
    const spec = given as Spec;
    const cases = casesOf(spec);
    const trial = new Trial("E29", engine, seed, control, cases.length);
    const curves: Record<string, { depth: number[]; start: number[]; gd: number[]; sgd: number[] }> = {
      linear: { depth: [], start: [], gd: [], sgd: [] },
      relu: { depth: [], start: [], gd: [], sgd: [] },
    };
    const scatter: Unit[] = [];
    for (const one of cases) {
      const { layersAt, neurons } = await trained(trial, engine, one, spec);
      const into = curves[one.net.activation]!;
      into.depth.push(depthOf(one.net));
      into.start.push(rms(layersAt.start));
      into.gd.push(rms(layersAt.gd));
      into.sgd.push(rms(layersAt.sgd));
      scatter.push(...neurons);
    }
    trial.figure({
      title: "Imbalance of adjacent layers against depth",
      caption:
        "Root mean square of ln(N₊/N₋) over pairs of adjacent layers and runs: at the start, after gradient descent, and under SGD from there " +
        "(average over the second half).",
      xLabel: "layers",
      yLabel: "rms of ln(N₊/N₋)",
      xScale: "linear",
      yScale: "log",
      curves: Object.entries(curves).flatMap(([name, { depth: x, start, gd, sgd }]) =>
        [["start", start] as const, ["gradient descent", gd] as const, ["SGD", sgd] as const].map(
          ([what, y]) => ({
            label: `${name}, ${what}`,
            predicted: false,
            x,
            y,
          }),
        ),
      ),
    });
    const order = scatter.filter((u) => u.times > 0.1).sort((a, b) => a.times - b.times);
    const before = rms(order.map((u) => u.before));
    trial.figure({
      title: "Neurons of the ReLU nets against their own time",
      caption:
        "|ln(N₊/N₋)| of every live neuron in the second half of SGD, against the length of the run in its own τ₂; dashed: what is left of the mean " +
        "imbalance before. Below it are fluctuations of the charge.",
      xLabel: "length of the run / τ₂ of the neuron",
      yLabel: "|ln(N₊/N₋)|",
      xScale: "log",
      yScale: "log",
      curves: [
        {
          label: "neurons",
          predicted: false,
          x: order.map((u) => u.times),
          y: order.map((u) => Math.max(1e-5, Math.abs(u.after))),
          mark: "dots",
        },
        {
          label: "e^(−t/τ₂)",
          predicted: true,
          x: order.map((u) => u.times),
          y: order.map((u) => Math.max(1e-5, leftOf(before, u.times))),
        },
      ],
    });
    return trial.findings;
  },
};

function casesOf({ deepest, width, hidden, eta, uneven, reluSteps }: Spec): Case[] {
  const linear = [2, 3, 4, 6, 8].filter((L) => L <= deepest);
  return [
    ...linear.map((L): Case => {
      const sizes = new Array<number>(L + 1).fill(width);
      return {
        name: `linear, ${L} layers`,
        net: { activation: "linear", sizes },
        S: 1,
        eta: 0.5 * eta,
        uneven,
        steps: null,
      };
    }),
    ...[2, 3, 4].map((L): Case => {
      const inner = new Array<number>(L - 1).fill(L === 4 ? hidden + 3 : hidden);
      return {
        name: `ReLU, ${L} layers`,
        net: { activation: "relu", sizes: [4, ...inner, 2] },
        S: L === 4 ? 2 : 1,
        eta,
        uneven: (2 / 3) * uneven,
        steps: Math.round((L === 2 ? 0.5 : 1) * reluSteps),
      };
    }),
  ];
}

/** Gradient descent, then SGD from its end; rows of both. */
async function trained(trial: Trial, engine: Engine, one: Case, spec: Spec) {
  const { name, net, S, eta } = one;
  const { replicas } = spec;
  const problem = engine.problem(
    deepModel(net),
    deepData(engine, net, spec.noiseSd, trial.seedOf(`teacher, ${name}`)),
    {
      samples: spec.samples,
      dataSeed: trial.seedOf(`data, ${name}`),
    },
  );
  const { charges, pairs } = chargesOf(net);
  const start = unevenStart(problem, net, one.uneven, replicas, trial.seedOf(`start, ${name}`));
  const gd = await trial.run(
    `gradient descent, ${name}`,
    problem,
    {
      scheme: "gd",
      theta: start,
      eta: spec.eta,
      steps: spec.gdSteps,
      replicas,
      record: { every: spec.gdSteps, charges, work: true },
    },
    0.3,
  );
  keptByDescent(trial, gd, pairs, name);
  demandDone(gd, name);
  const noiseAt = (run: Float64Array, r: number) =>
    noiseOf(problem, run.slice(r * problem.P, (r + 1) * problem.P), charges);
  const all = Array.from({ length: replicas }, (_, r) => r);
  const [first, before] = [
    all.map((r) => noiseAt(start, r)),
    all.map((r) => noiseAt(Float64Array.from(gd.theta), r)),
  ];
  const sigma2 = noiseStrength(eta, S);
  const rates =
    one.steps === null
      ? all.map((r) => pairs.map((pair) => slowRate(problem, engine, gdEnd(gd, r), pair, sigma2)))
      : null;
  const steps = one.steps ?? Math.min(MOST_STEPS, spec.times / (Math.min(...rates!.flat()) * eta));
  const half = Math.ceil(steps / 2);
  const run = await trial.run(
    `SGD, ${name}`,
    problem,
    {
      scheme: "sgd",
      batchSize: S,
      theta: Float64Array.from(gd.theta),
      eta,
      steps: 2 * half,
      replicas,
      record: { every: half, charges, work: true },
    },
    0.7,
  );
  problem.dispose();
  demandDone(run, name);
  const units = all.flatMap((r) =>
    pairs.map((pair) => {
      const unit = unitOf(run, pair, r, before[r]!, eta, sigma2);
      if (rates === null) return unit;
      // adjacent pairs share a layer, so each waits for the slowest of them and takes part in what the furthest has left
      const furthest = Math.max(
        ...pairs.map(({ up, down }) => Math.abs(log(before[r]![up]! / before[r]![down]!))),
      );
      return { ...unit, before: furthest, times: Math.min(...rates[r]!) * eta * run.steps };
    }),
  );
  const count = depthOf(net) - 1;
  const perLayer = Array.from({ length: count }, (_, layer) => all.map((r) => ofLayer(units, layer, r)));
  // adjacent pairs share a layer, so each takes part in what the latest of them has left
  const leftIn = all.map((r) => Math.max(...perLayer.map((each) => each[r]!.left).filter(Number.isFinite)));
  for (const [layer, each] of perLayer.entries()) {
    // a layer whose neurons have all become inactive has no gradient: flat, nothing to balance
    const live = all.filter((r) => !Number.isNaN(each[r]!.ratio));
    if (live.length < 2) continue;
    const dead =
      live.length === replicas ? "" : `; ${replicas - live.length} runs with a dead layer left out`;
    trial.row(
      {
        setting: `SGD, ${name}`,
        quantity: `ln(N₊/N₋) of layers ${layer + 2} and ${layer + 1}, over ${2 * half} steps${dead}`,
      },
      {
        value: 0,
        modelError: live.reduce((sum, r) => sum + leftIn[r]! / live.length, 0),
        neglects:
          "what the slow units have left of their start, 2 sinh(ln(N₊/N₋)/2) e^(−t/τ₂) weighted by their noise, of the latest pair",
      },
      meanOf(
        live.map((r) => each[r]!.ratio),
        `mean over ${live.length} runs`,
      ),
    );
  }
  const alive = net.activation === "relu" ? living(units, count, replicas) : [];
  if (alive.length > 0) neuronRow(trial, alive, units.length, name, replicas);
  const layersAt = {
    start: perLayer.flatMap((_, layer) => first.map((noise) => ratioAt(noise, pairs, layer))),
    gd: perLayer.flatMap((_, layer) => before.map((noise) => ratioAt(noise, pairs, layer))),
    sgd: perLayer.flatMap((each) => each.map((x) => x.ratio)),
  };
  return { layersAt, neurons: alive };
}

/** A run that diverged says nothing about its end. */
function demandDone(run: Run, name: string): void {
  if (run.status !== "done")
    fail(
      "range",
      `E29: ${name}`,
      "runs that stay finite",
      `a divergence at step ${run.steps}`,
      "Lower eta or uneven.",
    );
}

/** Where gradient descent ended. */
function gdEnd(gd: Run, r: number): Float64Array {
  return Float64Array.from(gd.theta.slice(r * gd.P, (r + 1) * gd.P));
}

/** What gradient descent moves at finite eta, exactly sum eta^2/2 gbar^T A gbar: the largest of all pairs, mean over runs. */
function keptByDescent(trial: Trial, gd: Run, pairs: readonly Pair[], name: string): void {
  const { charges, work } = gd.series;
  const largest = (f: (pair: Pair, r: number) => number): number =>
    overReplicas(gd, (r) => Math.max(...pairs.map((pair) => Math.abs(f(pair, r))))).value;
  const moved = largest(({ up, down }, r) => {
    const C = (i: number) => at(gd, charges[up]!, i, r) - at(gd, charges[down]!, i, r);
    return C(-1) - C(0);
  });
  const square = Float64Array.from(gd.theta).reduce((sum, x) => sum + x * x, 0) / gd.replicas;
  trial.row(
    {
      setting: `gradient descent, ${name}`,
      quantity: "largest |C(end) − C(0)| of all pairs = |Σ(η²/2)ḡᵀAḡ|",
    },
    {
      value: largest(({ up, down }, r) => at(gd, work[up]!, -1, r) - at(gd, work[down]!, -1, r)),
      modelError: 4 * gd.steps * UNIT_ROUNDING * square,
      neglects: "rounding, at most 4 · 2⁻⁵³ ‖θ‖² a step",
    },
    exact(moved, gd.replicas),
  );
}

/** The mean over neurons that have had their time; the others are counted. */
function neuronRow(trial: Trial, alive: readonly Unit[], all: number, name: string, replicas: number): void {
  const ready = alive.filter((u) => u.times >= READY);
  if (ready.length === 0) return;
  const late = alive.filter((u) => u.times < READY);
  const means: number[] = [];
  for (let r = 0; r < replicas; r++) {
    const own = ready.filter((u) => u.replica === r);
    if (own.length > 0) means.push(own.reduce((sum, u) => sum + u.after, 0) / own.length);
  }
  const lateRms =
    late.length === 0 ? "" : `; rms of the late ${rms(late.map((u) => u.after)).toPrecision(2)}`;
  const measured: Estimate =
    means.length > 1
      ? meanOf(means, `mean over ${means.length} runs`)
      : { value: means[0]!, stdErr: Math.abs(means[0]!), count: 1, method: "a single run" };
  trial.row(
    {
      setting: `SGD, ${name}: ${ready.length} neurons with 10 τ₂, ${late.length} late, ${all - alive.length} inactive`,
      quantity: `mean ln(N₊/N₋) of the former; rms ${rms(ready.map((u) => u.after)).toPrecision(2)}, before ${rms(ready.map((u) => u.before)).toPrecision(2)}${lateRms}`,
    },
    {
      value: 0,
      modelError: ready.reduce((sum, u) => sum + leftOf(u.before, u.times) / ready.length, 0),
      neglects: "what is left of the start, 2 sinh(ln(N₊/N₋)/2) e^(−t/τ₂)",
    },
    measured,
  );
}

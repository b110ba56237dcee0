import { log } from "../core/elementary.ts";
import type { Run } from "../dynamics/result.ts";
import type { Engine } from "../engine.ts";
import { ops } from "../graph/ops.ts";
import { sampler } from "../graph/sampler.ts";
import { models } from "../models/ready.ts";
import { exact } from "../stats/estimate.ts";
import { predictions } from "../symmetry/predictions.ts";
import type { Curve, Experiment } from "./experiment.ts";
import {
  type Chain,
  distance,
  gammaLaw,
  kolmogorov,
  kolmogorovBound,
  type Law,
  lawAfter,
  meanLog,
} from "./product-law.ts";
import type { Parameter } from "./spec.ts";
import { overReplicas, Trial } from "./trial.ts";

const parameters = {
  eta: { value: 0.02, min: 0.01, max: 0.04, unit: "theta^2 / loss", what: "step size" },
  S: { value: 1, min: 1, max: 16, integer: true, what: "batch size" },
  slope: { value: 1, min: 0.5, max: 2, what: "teacher: y = slope x + noise, x = ±1" },
  strength: {
    value: 0.08,
    min: 0.04,
    max: 0.32,
    what: "2 σ² Var(x y) / slope, the noise in units of that which makes v collapse; sets the label noise",
  },
  beyond: { value: 1.5, min: 1.2, max: 4.8, what: "the same of the run that collapses" },
  substeps: { value: 8, min: 4, max: 16, integer: true, what: "updates of the SDE to one step of SGD" },
  replicas: { value: 16_000, min: 2000, max: 32_000, integer: true, what: "independent runs" },
} satisfies Record<string, Parameter>;

type Spec = { [K in keyof typeof parameters]: number };

/** How small v is where its exponent at 0 is measured. */
const TINY = 1e-20;

/** Standard deviation of the label noise with 2 sigma^2 c = strength slope. */
const noiseSdOf = ({ eta, S, slope }: Spec, strength: number): number =>
  Math.sqrt((strength * slope * S) / eta);

/** Fresh samples x = +-1, y = slope x + noise: x y is normal. */
const signs = (slope: number, noiseSd: number) =>
  sampler({
    noise: { x: { kind: "sign", shape: [1] }, eps: { kind: "normal", shape: [1] } },
    outputs: ({ x, eps }) => ({ x: x!, y: ops.add(ops.scale(x!, slope), ops.scale(eps!, noiseSd)) }),
  });

/** v = u w where each replica ended. */
const products = (run: Run): Float64Array =>
  Float64Array.from({ length: run.replicas }, (_, r) => run.theta[2 * r]! * run.theta[2 * r + 1]!);

/** What one run is compared with. */
interface Case {
  readonly name: string;
  readonly run: Run;
  /** The law of its own steps, exact. */
  readonly own: Law;
  /** How much the grid may be off. */
  readonly grid: number;
}

const GRID = "the grid of the law, by a coarser one";

/** Rows that compare a run with the exact law of its steps, and with the gamma law. */
function compare(trial: Trial, { name, run, own, grid }: Case, gamma: Law, far: number): void {
  const v = products(run);
  const n = v.length;
  const bound = kolmogorovBound(n);
  const chance = "Kolmogorov's distance of as many draws, once in a million (Massart)";
  trial.row(
    { setting: name, quantity: "Kolmogorov's distance of v from the law of these very steps" },
    { value: 0, modelError: bound + grid, neglects: `${chance}; ${GRID}` },
    exact(kolmogorov(v, own), n),
  );
  trial.row(
    { setting: name, quantity: "Kolmogorov's distance of v from the gamma law" },
    { value: far, modelError: bound + grid, neglects: `${chance}; ${GRID}` },
    exact(kolmogorov(v, gamma), n),
  );
  const mean = overReplicas(run, (r) => v[r]!);
  const spread = overReplicas(run, (r) => (v[r]! - own.mean) * (v[r]! - own.mean));
  const finite = "what finite steps change, from the law of these steps";
  const pairs = [
    ["mean of v, slope − 2σ²c", mean, gamma.mean, own.mean],
    ["variance of v, (slope − 2σ²c) 4σ²c", spread, gamma.variance, own.variance],
  ] as const;
  for (const [quantity, measured, limit, value] of pairs) {
    trial.row(
      { setting: name, quantity: `${quantity}, with finite steps` },
      { value, modelError: grid * value, neglects: GRID },
      measured,
    );
    trial.row(
      { setting: name, quantity: `${quantity}, of the gamma law` },
      { value: limit, modelError: Math.abs(value - limit) + grid * value, neglects: finite },
      measured,
    );
  }
}

/** SGD from next to v = 0, by small steps: its exponent there, against the exact one and that of the equation. */
async function exponent(
  trial: Trial,
  engine: Engine,
  spec: Spec,
  strength: number,
  share: number,
): Promise<void> {
  const { slope, S, replicas } = spec;
  const eta = spec.eta / spec.substeps;
  const noiseSd = noiseSdOf({ ...spec, eta }, strength);
  const problem = engine.problem(models.rankOne(), signs(slope, noiseSd));
  // long enough for some e-foldings, short enough that v stays next to 0
  const steps = Math.ceil(2 / (eta * slope));
  const name = strength < 1 ? "escape from 0" : "collapse to 0";
  const root = Math.sqrt(TINY);
  const run = await trial.run(
    `SGD, ${name}`,
    problem,
    {
      scheme: "sgd",
      batchSize: S,
      theta: { u: [root], w: [root] },
      eta,
      steps,
      replicas: Math.ceil(replicas / 4),
    },
    share,
  );
  problem.dispose();
  const v = products(run);
  const value = (2 / eta) * meanLog(1 + 2 * eta * slope, (2 * eta * noiseSd) / Math.sqrt(S));
  const measured = overReplicas(run, (r) => log(v[r]! / TINY) / (steps * eta));
  const setting = `${name}, 2σ²c = ${strength} slope, η = ${eta}`;
  trial.row(
    { setting, quantity: "exponent of v, (2/η) E ln |1 + 2η z|" },
    { value, modelError: 1e-9 * Math.abs(value) + 1e-9, neglects: "v itself, below 1e-8" },
    measured,
  );
  const c = noiseSd * noiseSd;
  const moments = { alpha: 1, b1: slope, a: 0, b: 0, c };
  const law = predictions.rankOneLaw(moments, predictions.noiseStrength(eta, S));
  trial.row(
    { setting, quantity: "exponent of v, 4 slope − 8σ²c of the equation" },
    {
      value: law.lyapunov,
      modelError: Math.abs(value - law.lyapunov),
      neglects: "what finite steps change, from the exact exponent",
    },
    measured,
  );
  const agrees = measured.value < 0 === law.collapses;
  trial.never({ setting, quantity: "mean exponents of another sign than the law's" }, agrees ? 0 : 1, 1);
}

/** Empirical and predicted probabilities at a hundred values. */
function drawn(name: string, run: Run, law: Law): Curve[] {
  const sorted = products(run).sort();
  const n = sorted.length;
  const picked = Array.from({ length: 100 }, (_, i) => Math.floor(((i + 0.5) * n) / 100));
  const x = picked.map((i) => sorted[i]!);
  return [
    { label: name, predicted: false, x, y: picked.map((i) => (i + 0.5) / n) },
    { label: name, predicted: true, x, y: x.map((v) => law.below(v)) },
  ];
}

export const stationaryLaw: Experiment = {
  id: "E18",
  title: "At the noise equilibrium of rank-one regression the product follows a gamma law",
  question:
    "On the balanced valley u = w of (u w x − y)², x = ±1, label noise keeps v = u w moving. What is the law of v in the end, and when " +
    "does noise drive v to 0?",
  source: "Ziyin, Li, Ueda, arXiv:2308.06671; theory, section 14 (a)",
  claim:
    "The distribution of the SDE lies on the gamma law; that of SGD beside it by O(η), exactly where the law of its finite steps says. Below " +
    "σ² = slope / (2 c) v escapes from 0, above it collapses.",
  formula:
    "p(v) ~ v^(shape - 1) e^(-v / scale), shape = slope / (4 sigma^2 c) - 1/2, scale = 4 sigma^2 c, c = Var(x y); finite steps: v' = v (1 - 2 eta (v - zBar))^2",
  parameters,
  quick: { replicas: 2000, substeps: 4 },

  async measure(engine, given, seed, control) {
    const spec = given as Spec;
    const { eta, S, slope, strength, substeps, replicas } = spec;
    const noiseSd = noiseSdOf(spec, strength);
    const c = noiseSd * noiseSd;
    const { gamma: law } = predictions.rankOneLaw(
      { alpha: 1, b1: slope, a: 0, b: 0, c },
      predictions.noiseStrength(eta, S),
    );
    const gamma = gammaLaw(law!);
    // eight relaxation times: 1 / (4 mean), or that of ln v where it wanders far down
    const rate = Math.min(
      4 * slope * (1 - strength),
      (slope * (1 - strength) * (1 - strength)) / (2 * strength),
    );
    const steps = Math.ceil(8 / (rate * eta));
    // v^shape is below e^-30 at the lower end, e^(-v / scale) at the upper one
    const { shape, scale, mean } = law!;
    const range = [log(mean) - 1 - 30 / shape, log(scale * (shape + 40))] as const;
    const share = (S * substeps) / (2 * eta * slope);
    const total = (S + 2 * substeps) * steps + 2 * share;
    const trial = new Trial("E18", engine, seed, control, total);
    const exactly = (chain: Chain, count: number): { own: Law; grid: number } => {
      const own = lawAfter(chain, mean, count, range);
      return { own, grid: distance(own, lawAfter(chain, mean, count, range, 1.2), range) };
    };
    const root = Math.sqrt(mean);
    const common = { theta: { u: [root], w: [root] }, eta, steps, replicas };

    const online = engine.problem(models.rankOne(), signs(slope, noiseSd));
    const sgd = {
      name: `SGD, η = ${eta}`,
      run: await trial.run("SGD", online, { ...common, scheme: "sgd", batchSize: S }, S * steps),
      ...exactly({ dt: eta, slope, variance: c / S }, steps),
    };
    online.dispose();
    // two points have the mean and the variance of x y; the SDE sees no more of them
    const pair = engine.problem(models.rankOne(), { x: [1, 1], y: [slope + noiseSd, slope - noiseSd] });
    const sde = {
      name: `SDE, dt = η/${substeps}`,
      run: await trial.run(
        "SDE",
        pair,
        { ...common, scheme: "sde", batchSize: S, substeps },
        2 * substeps * steps,
      ),
      ...exactly({ dt: eta / substeps, slope, variance: (c * substeps) / S }, steps * substeps),
    };
    pair.dispose();
    for (const one of [sgd, sde]) compare(trial, one, gamma, distance(one.own, gamma, range));
    await exponent(trial, engine, spec, strength, share);
    await exponent(trial, engine, spec, spec.beyond, share);
    trial.figure({
      title: "The stationary law",
      caption: `Share of ${replicas} runs with u w below v (solid) and the gamma law (dashed), after ${steps} steps from its mean.`,
      xLabel: "v = u w",
      yLabel: "probability to lie below v",
      xScale: "linear",
      yScale: "linear",
      curves: [sgd, sde].flatMap(({ name, run }) => drawn(name, run, gamma)),
    });
    return trial.findings;
  },
};

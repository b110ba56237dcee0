import type { Run } from "../dynamics/result.ts";
import { models } from "../models/ready.ts";
import type { Problem } from "../problem.ts";
import type { Estimate } from "../stats/estimate.ts";
import type { Prediction } from "../stats/verdict.ts";
import { symmetry } from "../symmetry/generator.ts";
import { predictions, type RankOneData } from "../symmetry/predictions.ts";
import { lawOfQ } from "./e01-rescaling.ts";
import type { Curve, Experiment } from "./experiment.ts";
import { decayOf, momentsOfSet, onValley, regression, roundingOfDecay } from "./rank-one.ts";
import type { Parameter } from "./spec.ts";
import { at, overReplicas, Trial } from "./trial.ts";

const parameters = {
  samples: { value: 64, min: 32, max: 128, integer: true, what: "samples N of the data set" },
  S: { value: 4, min: 2, max: 16, integer: true, what: "batch size" },
  eta: {
    value: 0.02,
    min: 0.006,
    max: 0.024,
    unit: "theta^2 / loss",
    what: "step size; single samples of larger ones leave the valley",
  },
  time: { value: 30, min: 10, max: 40, unit: "theta^2 / loss", what: "length of all runs, steps times eta" },
  replicas: { value: 256, min: 16, max: 1024, integer: true, what: "independent runs per scheme" },
  ratio: { value: 4, min: 1.5, max: 6, what: "u / w at the start, where u w is the minimum of the loss" },
  slope: { value: 1, min: 0.4, max: 1.6, what: "teacher: y = slope x + noise" },
  noiseSd: { value: 1, min: 0.3, max: 1.5, what: "standard deviation of the label noise" },
  l: { value: 4, min: 2, max: 8, integer: true, what: "steps of SVAG to one of SGD" },
  substeps: { value: 4, min: 2, max: 8, integer: true, what: "updates of the SDE to one step of SGD" },
  beta: { value: 0.9, min: 0.3, max: 0.95, what: "momentum" },
} satisfies Record<string, Parameter>;

type Spec = { [K in keyof typeof parameters]: number };

const quantityAt = (steps: number): string => `−ln Q/Q(0) at step ${steps}`;

/** What the law of Q neglects. */
const NEGLECTED = "moments of v = u w beyond the second, relative (η(u² + w²) + Var v / v²)²";

/** The decay -ln Q / Q(0) that is predicted for a scheme. */
interface Law {
  /** At every update, and how many of them there are to a step. */
  readonly decay: Float64Array;
  readonly updates: number;
  readonly neglected: number;
}

/**
 * A scheme as the law of Q sees it: updates of size dt whose noise is that of a batch of `size` samples.
 *
 *   SGD                 dt = eta       size = S, or S (N - 1) / (N - S) without replacement
 *   SDE by steps of dt  dt             Cov = eta Sigma / (S dt), size = S dt / eta
 *   SVAG                dt = eta / l   Cov = l Sigma / S, size = S / l
 */
interface Scheme {
  readonly name: string;
  readonly options: Readonly<Record<string, unknown>>;
  readonly updates: number;
  readonly size: number;
}

function schemesOf({ S, l, substeps, samples }: Spec): Scheme[] {
  const sgd = { scheme: "sgd", batchSize: S };
  return [
    { name: "SGD", options: sgd, updates: 1, size: S },
    {
      name: "SGD without replacement",
      options: { ...sgd, sampling: "without" },
      updates: 1,
      size: predictions.effectiveBatch(S, samples, "without"),
    },
    { name: "SDE, dt = η", options: { scheme: "sde", batchSize: S }, updates: 1, size: S },
    {
      name: `SDE, dt = η/${substeps}`,
      options: { scheme: "sde", batchSize: S, substeps },
      updates: substeps,
      size: S / substeps,
    },
    {
      name: `SVAG, l = ${l}`,
      options: { scheme: "svag", batchSize: S, l, substeps: l },
      updates: l,
      size: S / l,
    },
    { name: "gradient descent", options: { scheme: "gd" }, updates: 1, size: Infinity },
  ];
}

/** The runs of all schemes from one start, on one data set. */
class Comparison {
  readonly moments: RankOneData;
  readonly start: { readonly u: number; readonly w: number };
  readonly steps: number;

  constructor(
    readonly trial: Trial,
    readonly spec: Spec,
    readonly problem: Problem,
  ) {
    this.moments = momentsOfSet(problem);
    this.start = onValley(this.moments, spec.ratio);
    // a hundred records, the last of them at the end
    this.steps = 100 * Math.max(1, Math.round(spec.time / spec.eta / 100));
  }

  law(eta: number, size: number, steps: number, updates: number): Law {
    const { u, w } = this.start;
    const { decay, neglected } = lawOfQ(eta / updates, size, steps * updates, u, w, this.moments);
    return { decay, updates, neglected };
  }

  /** A run of a scheme. All runs have one seed: those that draw alike see the same draws. */
  run(name: string, eta: number, steps: number, options: object, share: number): Promise<Run> {
    const { replicas } = this.spec;
    const { u, w } = this.start;
    const isGd = (options as { scheme: string }).scheme === "gd";
    return this.trial.run(
      name,
      this.problem,
      {
        scheme: "sgd",
        theta: { u: [u], w: [w] },
        eta,
        steps,
        replicas: isGd ? 1 : replicas,
        seed: this.trial.seedOf("draws"),
        record: {
          every: steps / 100,
          charges: { C: symmetry.rescaling("u", "w") },
          work: true,
        },
        ...options,
      },
      share,
    );
  }

  predicted({ decay, neglected }: Law, more = 0): Prediction {
    const value = decay.at(-1)!;
    const { u, w } = this.start;
    return {
      value,
      modelError: value * neglected + more + roundingOfDecay(decay.length, u, w),
      neglects: NEGLECTED,
    };
  }

  /** The exact budget: no record may differ from C(0) plus the work by more than rounding. */
  budget(setting: string, run: Run, updates: number): void {
    const { u, w } = this.start;
    const allowed = roundingOfDecay(run.steps * updates, u, w) * 0.5 * Math.abs(u * u - w * w);
    // with momentum the work is that of a shifted charge
    const C = run.series.modifiedCharges.C ?? run.series.charges.C!;
    const records = run.series.k.length;
    let wrong = 0;
    for (let i = 0; i < records; i++) {
      for (let r = 0; r < run.replicas; r++) {
        const gap = at(run, C, i, r) - at(run, C, 0, r) - at(run, run.series.work.C!, i, r);
        if (!(Math.abs(gap) <= allowed)) wrong++;
      }
    }
    this.trial.never({ setting, quantity: "records with C ≠ C(0) + work" }, wrong, records * run.replicas);
  }
}

const share = (spec: Spec, { updates, options }: Scheme): number =>
  options.scheme === "sde"
    ? spec.samples * updates * spec.replicas
    : options.scheme === "gd"
      ? spec.samples
      : spec.S * updates * spec.replicas * (options.scheme === "svag" ? 2 : 1);

export const schemes: Experiment = {
  id: "E19",
  title: "SGD, its stochastic differential equation and SVAG move the charge alike",
  question:
    "The theory is one of a stochastic differential equation. Does it hold for SGD itself, for SVAG between the two, for batches " +
    "without replacement and with momentum?",
  source:
    "Ziyin et al., arXiv:2402.07193, eq. 1; Li, Malladi, Arora, arXiv:2102.12470; theory, sections 13.1 to 13.4",
  claim:
    "All stochastic schemes of one σ² fall on one curve; without replacement by the factor (N − S) / (N − 1) slower. Gradient descent, " +
    "which has no noise, stays.",
  formula:
    "-ln Q(t) / Q(0) = 8 sigma^2 int D dt, sigma^2 = eta / (2 S_eff); with momentum in the time k eta / (1 - beta), eta / (1 - beta) in place of eta",
  parameters,
  quick: { time: 10, replicas: 16 },

  async measure(engine, given, seed, control) {
    const spec = given as Spec;
    const list = schemesOf(spec);
    const momentum = spec.S * spec.replicas;
    const bent = 2 * spec.samples * spec.substeps * spec.replicas;
    const trial = new Trial(
      "E19",
      engine,
      seed,
      control,
      list.reduce((sum, s) => sum + share(spec, s), 5 * momentum + bent),
    );
    const problem = engine.problem(models.rankOne(), regression(spec.slope, spec.noiseSd), {
      samples: spec.samples,
      dataSeed: trial.seedOf("data"),
    });
    const all = new Comparison(trial, spec, problem);
    const { steps } = all;
    const curves: Curve[] = [];
    const quantity = quantityAt(steps);
    const laws = new Map<string, Law>();
    const runs = new Map<string, Run>();
    const draw = (label: string, run: Run, law: Law | null): void => {
      const x = Array.from(run.series.k, (_, i) => at(run, run.series.t, i, 0));
      const mean = (i: number) => overReplicas(run, (r) => decayOf(run, i, r)).value;
      curves.push({ label, predicted: false, x, y: x.map((_, i) => mean(i)) });
      if (law === null) return;
      const y = Array.from(run.series.k, (k) => law.decay[k * law.updates]!);
      curves.push({ label, predicted: true, x, y });
    };

    for (const scheme of list) {
      const { name, options, updates, size } = scheme;
      const law = all.law(spec.eta, size, steps, updates);
      const run = await all.run(name, spec.eta, steps, options, share(spec, scheme));
      trial.row(
        { setting: name, quantity },
        all.predicted(law),
        overReplicas(run, (r) => decayOf(run, -1, r)),
      );
      all.budget(name, run, updates);
      laws.set(name, law);
      runs.set(name, run);
      if (name !== "SDE, dt = η")
        draw(name, run, name.startsWith("SDE") || name.startsWith("SVAG") ? null : law);
    }
    const plain = runs.get(`SDE, dt = η/${spec.substeps}`)!;
    await modified(all, laws.get("SGD")!, plain, bent);
    const heavy = await withMomentum(all, momentum);
    draw(`momentum ${spec.beta}`, heavy, null);
    paired(all, runs, laws);
    trial.figure({
      title: "The charge under six schemes",
      caption:
        "Mean of −ln Q/Q(0) over the runs (solid) against time; dashed the law for SGD, SGD without replacement and gradient descent. The " +
        "time of momentum is k η/(1 − β).",
      xLabel: "time k η, in θ²/loss",
      yLabel: "−ln Q/Q(0),  Q = u² − w²",
      xScale: "linear",
      yScale: "linear",
      curves,
    });
    problem.dispose();
    return trial.findings;
  },
};

/**
 * The modified equation of second order has the drift of SGD, of finite steps too. Its own Euler steps dt err by O(dt), as those of
 * the plain equation do: by twice what halving dt changes there.
 */
async function modified(all: Comparison, sgd: Law, plain: Run, share: number): Promise<void> {
  const { spec, steps, trial } = all;
  const { S, substeps, eta } = spec;
  const name = `modified equation, dt = η/${substeps}`;
  const ends = [substeps, 2 * substeps].map((n) => all.law(eta, S / n, steps, n).decay.at(-1)!);
  const [coarse, fine] = ends as [number, number];
  const euler = 2 * Math.abs(coarse - fine);
  const run = await all.run(name, eta, steps, { scheme: "modified", batchSize: S, substeps }, share);
  const { value, modelError, neglects } = all.predicted(sgd, euler);
  trial.row(
    { setting: name, quantity: quantityAt(steps) },
    { value, modelError, neglects: `${neglects}; Euler steps of dt, by halving them` },
    overReplicas(run, (r) => decayOf(run, -1, r)),
  );
  all.budget(name, run, substeps);
  // both runs saw the same normals, and err alike by their dt: what differs is what finite steps of SGD add
  trial.row(
    { setting: `${name}, less the SDE's`, quantity: "difference of −ln Q/Q(0), replica by replica" },
    {
      value: value - (2 * fine - coarse),
      modelError,
      neglects: `${neglects}; dt, by halving it`,
    },
    overReplicas(run, (r) => decayOf(run, -1, r) - decayOf(plain, -1, r)),
  );
}

/** Steps eta (1 - beta) with momentum beta: the equation of eta, and O(eta) that no closed form gives; so again at eta / 2. */
async function withMomentum(all: Comparison, share: number): Promise<Run> {
  const { spec, steps, trial } = all;
  const { beta, S } = spec;
  const name = `momentum ${beta}`;
  const pair = async (eta: number, count: number) => {
    // the plain equation: updates a sixteenth of a step of eta
    const law = all.law(eta, S / 16, count, 16);
    const run = await all.run(
      `${name}, η/(1 − β) = ${eta}`,
      eta * (1 - beta),
      count,
      { scheme: "sgd", batchSize: S, momentum: beta },
      share * (count / steps),
    );
    const predicted = { ...all.predicted(law), neglects: `${NEGLECTED}; O(η) of momentum` };
    return { run, predicted, measured: overReplicas(run, (r) => decayOf(run, -1, r)) as Estimate };
  };
  const whole = await pair(spec.eta, steps);
  const half = await pair(spec.eta / 2, 4 * steps);
  trial.limitRow({ setting: name, quantity: quantityAt(steps) }, whole, half);
  all.budget(name, whole.run, 1);
  return whole.run;
}

/** The difference of batches with and without replacement; both runs saw the same random words. */
function paired(all: Comparison, runs: Map<string, Run>, laws: Map<string, Law>): void {
  const [name, other] = ["SGD", "SGD without replacement"] as const;
  const [a, b] = [runs.get(name)!, runs.get(other)!];
  const [p, q] = [all.predicted(laws.get(name)!), all.predicted(laws.get(other)!)];
  all.trial.row(
    { setting: `${name} less ${other}`, quantity: "difference of −ln Q/Q(0), replica by replica" },
    {
      value: p.value - q.value,
      modelError: p.modelError + q.modelError,
      neglects: NEGLECTED,
    },
    overReplicas(a, (r) => decayOf(a, -1, r) - decayOf(b, -1, r)),
  );
}

import { exp, log } from "../core/elementary.ts";
import type { Run } from "../dynamics/result.ts";
import { ops } from "../graph/ops.ts";
import { meanOf } from "../stats/estimate.ts";
import { predictions } from "../symmetry/predictions.ts";
import type { Curve, Experiment } from "./experiment.ts";
import { isotropicTeacher } from "./isotropic.ts";
import { linearNet, teacherSampler } from "./linear-net.ts";
import type { Parameter } from "./spec.ts";
import { at, Trial } from "./trial.ts";
import { type Course, chanceOfFatalSample, courseOf, leastLength, sizeAt } from "./warm-up-course.ts";

const parameters = {
  d: { value: 5, min: 2, max: 8, integer: true, what: "input and output dimension of the autoencoder" },
  ratio: { value: 20, min: 10, max: 40, integer: true, what: "hidden units over d" },
  rate: {
    value: 0.42,
    min: 0.11,
    max: 0.44,
    what: "2 eta (d + 2): eta beside the largest that is stable in mean square at the noise equilibrium; well above a half single samples end runs there too",
  },
  after: {
    value: 4000,
    min: 2000,
    max: 8000,
    integer: true,
    what: "steps at the full eta behind the warm-up",
  },
  replicas: { value: 48, min: 8, max: 256, integer: true, what: "independent starts per warm-up" },
} satisfies Record<string, Parameter>;

type Spec = { [K in keyof typeof parameters]: number };

/** Warm-ups between the two predicted lengths, both included, and how much longer the longest is. */
const [LENGTHS, BEYOND] = [7, 4];

/** Lengths from `from` to `to` in equal ratios, both included, without repetition. */
function lengthsBetween(from: number, to: number): number[] {
  const lengths = Array.from({ length: LENGTHS }, (_, i) =>
    Math.floor(exp(log(from) + (i / (LENGTHS - 1)) * (log(to) - log(from))) + 0.5),
  );
  return lengths.filter((x, i) => i === 0 || x > lengths[i - 1]!);
}

const survivedOf = (run: Run): boolean[] => {
  const lost = new Set(run.diverged.map(({ replica }) => replica));
  return Array.from({ length: run.replicas }, (_, r) => !lost.has(r));
};

export const warmUp: Experiment = {
  id: "E06",
  title: "Warm-up: the noise flattens the start before the full step size arrives",
  question:
    "A wide autoencoder starts so sharp that SGD diverges at a step size that is safe later. How long must the step size grow " +
    "linearly until runs survive it?",
  source: "Ziyin et al., arXiv:2402.07193, section 4.3, Proposition 2: warm-up",
  claim:
    "At the full step size from the start all runs are lost; with a long enough warm-up all survive, because the charges, and with them the sharpness, " +
    "decay on the way. The length that half of the runs survive lies between the one below which the mean square of the residual becomes fatal and the one from which it is stable all the way.",
  formula:
    "safe: η_k m_k (d + 2) ≤ 1 on the way, m² = q² + 4, q′ = (1 − 4η_k²(d + F(1 + 2/d))) q;  fatal: F + d ≥ 1/(2η²d)",
  parameters,
  quick: { d: 3, ratio: 10, after: 2000, replicas: 8 },

  async measure(engine, given, seed, control) {
    const spec = given as Spec;
    const { d, after, replicas } = spec;
    const h = spec.ratio * d;
    const eta = spec.rate / (2 * (d + 2));
    const trial = new Trial("E06", engine, seed, control, LENGTHS + 4);
    const { dense, twoLayer } = engine;
    const teacher = isotropicTeacher(engine, dense.identity(d), 1, 1);
    const net = linearNet(d, h, d);
    const norms = ops.add(ops.sqnorm(net.leaf("U")), ops.sqnorm(net.leaf("W")));
    const values = { trace: ops.scale(norms, 2 * d) };
    const fresh = engine.problem(net, teacherSampler(engine, teacher));
    const theta = fresh.init("lecun", { seed: trial.seedOf("init"), replicas });
    const course = (length: number) => courseOf({ d, h, eta }, length, after);
    const safe = leastLength((length) => course(length).peak <= 1);
    const lost = leastLength((length) => course(length).fatal < 1);
    const simulate = (name: string, step: number, length: number) =>
      trial.run(name, fresh, {
        scheme: "sgd",
        theta,
        eta: step,
        batchSize: 1,
        steps: length + after,
        replicas,
        ...(length > 1 ? { schedule: { kind: "warmup", steps: length } } : {}),
        onDiverge: "stopReplica",
        record: {
          every: Math.max(1, Math.floor((length + after) / 100)),
          values,
          average: { from: length + Math.floor(after / 2) + 1, every: 4 },
        },
      });
    const start = course(1);
    const constant = await simulate("constant η", eta, 1);
    const lowEta = Math.min(
      eta,
      1 / ((d + 2) * sizeAt((Math.sqrt(spec.ratio) + 1) * (Math.sqrt(spec.ratio) + 1))),
    );
    const low = await simulate("constant low η", lowEta, 1);
    const between = lengthsBetween(lost, Math.max(lost + 1, safe));
    const lengths = [...between, BEYOND * between.at(-1)!];
    const runs: Run[] = [];
    for (const length of lengths) runs.push(await simulate(`warm-up of ${length} steps`, eta, length));
    fresh.dispose();

    const rare = (step: number, run: Run) => run.steps * chanceOfFatalSample({ d, h, eta: step });
    survivalRow(trial, `constant η = ${eta.toPrecision(3)}`, constant, start, rare(eta, constant));
    survivalRow(
      trial,
      `constant η = ${lowEta.toPrecision(3)}`,
      low,
      courseOf({ d, h, eta: lowEta }, 1, after),
      rare(lowEta, low),
    );
    for (const i of [lengths.length - 2, lengths.length - 1])
      survivalRow(
        trial,
        `warm-up of ${lengths[i]} steps`,
        runs[i]!,
        course(lengths[i]!),
        rare(eta, runs[i]!),
      );
    const ratePerNoise = predictions.isotropicRate({ d, sigma2: 1 });
    const ramp = (length: number) => Float64Array.from({ length }, (_, k) => (eta * (k + 1)) / length);
    const enough = leastLength(
      (length) => predictions.warmUp({ etas: ramp(length), effectiveBatch: 1, ratePerNoise }).enough,
    );
    halfRow(trial, lengths, runs, lost, safe);
    endRow(trial, runs.at(-1)!, twoLayer.finalTrace(teacher), eta * d);
    figuresOf(trial, {
      lengths,
      runs,
      lost: Math.max(1, lost - 1),
      safe,
      enough,
      eta,
      d,
      constant,
    });
    return trial.findings;
  },
};

/** A share of runs between 0 and 1 with the standard error of a binomial, never 0: that of half a run more or less. */
function shareOf(run: Run): { value: number; stdErr: number; count: number; method: string } {
  const n = run.replicas;
  const survivors = survivedOf(run).filter(Boolean).length;
  const p = (survivors + 0.5) / (n + 1);
  return {
    value: survivors / n,
    stdErr: Math.sqrt((p * (1 - p)) / n),
    count: n,
    method: `share of ${n} runs`,
  };
}

/** All runs survive where the mean square is stable; none where it is predicted to be fatal. In between there is no row. */
function survivalRow(trial: Trial, setting: string, run: Run, { peak, fatal }: Course, rare: number): void {
  const quantity = "share of runs that survive";
  if (peak <= 1 + 1e-9)
    trial.row(
      { setting, quantity: `${quantity}: η_k m_k (d + 2) is at most ${peak.toPrecision(3)}` },
      {
        value: 1,
        modelError: Math.min(1, fatal + rare),
        neglects:
          "rare errors: mean |r|² over its fatal size, which bounds the share of runs beyond it at a time, and the expected number of single fatal samples",
      },
      shareOf(run),
    );
  else if (fatal >= 1)
    trial.row(
      { setting, quantity: `${quantity}: mean |r|² reaches ${fatal.toPrecision(3)} times its fatal size` },
      {
        value: 0,
        modelError: 1 / fatal,
        neglects: "spread of single runs: the fatal |r|² over its predicted mean",
      },
      shareOf(run),
    );
}

/**
 * ln of the length that half of the runs survive, by Spearman and Kaerber from the shares p at the lengths L: the mean of ln L under
 * the steps of p, p being 0 below the first and 1 beyond the last length.
 */
function halfRow(
  trial: Trial,
  lengths: readonly number[],
  runs: readonly Run[],
  lost: number,
  safe: number,
): void {
  const shares = runs.map(shareOf);
  const logs = lengths.map((x) => log(x));
  const [first, last] = [logs[0]!, logs.at(-1)!];
  // integral over ln L of 1 - p, by trapezoids, from the first length on
  let [value, variance] = [first, 0];
  for (const [i, { value: p, stdErr }] of shares.entries()) {
    const width = 0.5 * ((logs[i + 1] ?? last) - (logs[i - 1] ?? first));
    value += width * (1 - p);
    variance += width * width * stdErr * stdErr;
  }
  const [low, high] = [log(lost), log(safe)];
  trial.row(
    {
      setting: "warm-up",
      quantity: `ln of the length half of the runs survive, between ${lost} and ${safe} steps`,
    },
    {
      value: 0.5 * (low + high),
      modelError: 0.5 * (high - low),
      neglects:
        "how single runs fare between the length at which the mean square of the residual becomes fatal and the one at which it is stable all the way",
    },
    {
      value,
      stdErr: Math.sqrt(variance),
      count: runs.length,
      method: `Spearman and Kaerber over ${runs.length} lengths`,
    },
  );
}

/** Sharpness of the survivors of the longest warm-up. */
function endRow(trial: Trial, run: Run, end: number, relative: number): void {
  const average = run.averages!.values.trace!;
  const kept = survivedOf(run).flatMap((lives, r) => (lives ? [average[r]!] : []));
  if (kept.length < 2) return;
  trial.row(
    { setting: "longest warm-up", quantity: "Tr ∇²L at the end, 4 d Tr Σx" },
    {
      value: end,
      modelError: relative * end,
      neglects: "fluctuations of the product U W, relative η (Tr Σx + Tr Σε) / 2",
    },
    meanOf(kept, `mean over ${kept.length} runs`),
  );
}

function figuresOf(
  trial: Trial,
  of: {
    readonly lengths: readonly number[];
    readonly runs: readonly Run[];
    readonly lost: number;
    readonly safe: number;
    readonly enough: number;
    readonly eta: number;
    readonly d: number;
    readonly constant: Run;
  },
): void {
  const { lengths, runs, lost, safe, enough, eta, constant } = of;
  const shares = runs.map(shareOf);
  trial.figure({
    title: "Survival against the length of the warm-up",
    caption:
      `Share of runs that survive a linear warm-up to η = ${eta.toPrecision(3)}, with standard errors; constant η: ${shareOf(constant).value}. Dashed: none up to ` +
      `${lost} steps, all from ${safe} steps on, by the two predicted lengths. ∫dt/τ₂ is 2 for ${enough} steps.`,
    xLabel: "length of the warm-up, steps",
    yLabel: "share of runs that survive",
    xScale: "log",
    yScale: "linear",
    curves: [
      {
        label: "SGD",
        predicted: false,
        x: lengths,
        y: shares.map((s) => s.value),
        error: shares.map((s) => s.stdErr),
      },
      { label: "SGD", predicted: true, x: [lengths[0]!, lost], y: [0, 0] },
      { label: "SGD", predicted: true, x: [safe, Math.max(safe + 1, lengths.at(-1)!)], y: [1, 1] },
    ],
  });
  const last = runs.at(-1)!;
  const { k } = last.series;
  const trace = last.series.values.trace!;
  const lives = survivedOf(last);
  const mean = (i: number) =>
    meanOf(Array.from(lives.keys(), (r) => at(last, trace, i, r)).filter((_, r) => lives[r])).value;
  const curves: Curve[] = lives.some(Boolean)
    ? [
        {
          label: `warm-up of ${lengths.at(-1)} steps`,
          predicted: false,
          x: [...k],
          y: Array.from(k, (_, i) => mean(i)),
        },
      ]
    : [];
  trial.figure({
    title: "Sharpness along the longest warm-up",
    caption:
      "Mean trace of the Hessian over the runs that survive (solid), and that of the noise equilibrium, 4 d² (dashed).",
    xLabel: "step",
    yLabel: "Tr ∇²L",
    xScale: "linear",
    yScale: "log",
    curves: [
      ...curves,
      {
        label: "noise equilibrium",
        predicted: true,
        x: [0, last.steps],
        y: [4 * of.d * of.d, 4 * of.d * of.d],
      },
    ],
  });
}

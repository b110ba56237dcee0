import type { SimulateOptions } from "../dynamics/options.ts";
import type { Run } from "../dynamics/result.ts";
import type { Node } from "../graph/node.ts";
import type { Problem } from "../problem.ts";
import type { Generator } from "../symmetry/generator.ts";
import type { Curve } from "./experiment.ts";
import { at, overReplicas, type Trial } from "./trial.ts";

/** 2^-53, the largest relative error of a rounding to f64. */
const ROUNDING = Number.EPSILON / 2;
/** Roundings of one entry of a gradient and of its step: the ops of a layer, its derivative and the update. */
const ROUNDINGS_PER_ENTRY = 32;

/** A charge that decays and gains work, recorded at every step. */
export interface Norm {
  /** In words, with its formula. */
  readonly what: string;
  /** Name of its charge C = 1/2 |theta|^2 in the run's records; the work is under the same name. */
  readonly charge: string;
  readonly eta: number;
  readonly gamma: number;
  /** Size of the loss: with eta it bounds the part of a step that rounding can turn towards theta. */
  readonly loss: number;
}

/**
 * Two exact rows of a scale-invariant charge C = 1/2 |theta|^2 recorded with its work at every step: how often C fell (which it
 * may only with decay), and how often a step missed
 *
 *   C' = (1 - 2 eta gamma)^2 C + eta^2/2 |g|^2
 *
 * by more than rounding: 2^-53 (32 + P / 8) (C + work + eta L), P / 8 additions in each partial sum of |theta|^2.
 *
 * @source theory.md, 2.3 and 7
 */
export function everyStep(trial: Trial, setting: string, run: Run, norm: Norm): void {
  const { charge, eta, gamma, loss, what } = norm;
  const C = run.series.charges[charge]!;
  const work = run.series.work[charge]!;
  const keep = (1 - 2 * eta * gamma) * (1 - 2 * eta * gamma);
  const unit = ROUNDING * (ROUNDINGS_PER_ENTRY + run.P / 8);
  const steps = run.series.k.length - 1;
  let [missed, fell] = [0, 0];
  for (let k = 0; k < steps; k++) {
    for (let r = 0; r < run.replicas; r++) {
      const [before, after] = [at(run, C, k, r), at(run, C, k + 1, r)];
      const [done, next] = [at(run, work, k, r), at(run, work, k + 1, r)];
      const allowed = unit * (after + before + next + eta * loss);
      if (!(Math.abs(after - keep * before - (next - done)) <= allowed)) missed++;
      if (!(after >= before - allowed)) fell++;
    }
  }
  const count = steps * run.replicas;
  const identity = gamma === 0 ? "C' = C + η²/2 |ĝ|²" : "C' = (1 − 2ηγ)² C + η²/2 |ĝ|²";
  trial.never(
    { setting, quantity: `steps that miss ${identity} by more than rounding, C = ½${what}` },
    missed,
    count,
  );
  if (gamma === 0) trial.never({ setting, quantity: `steps at which ${what} falls` }, fell, count);
}

/** Records of one leg of a path; the next leg has them this many times as far apart. */
const [PROBES, WIDER] = [32, 4];

/** The mean change of charges in the step at each record, by name: [record][replica]. */
export type Flows = Readonly<Record<string, ArrayLike<number>>>;

/** One leg of a run in legs, each going on where the last ended: `from` is its first step. */
export interface Leg {
  readonly from: number;
  readonly run: Run;
  readonly flows: Flows;
}
export type Path = readonly Leg[];

/**
 * A run whose charges and flows are looked at often early on, where they change fast: at every step for 32 steps, then at every 4th
 * for 32 records, every 16th, and so on.
 *
 * @param flowsOf the flows at the records of a leg; probes among the options are taken at the records too
 */
export async function follow(
  trial: Trial,
  name: string,
  problem: Problem,
  options: SimulateOptions<Generator, Node> & { readonly replicas: number },
  flowsOf: (leg: Run, name: string) => Promise<Flows> | Flows,
  share: number,
): Promise<Path> {
  const legs: Leg[] = [];
  let theta = options.theta;
  for (let [from, every] = [0, 1]; from < options.steps; every *= WIDER) {
    const spacing = Math.min(every, options.steps - from);
    const steps = spacing * Math.min(PROBES, Math.floor((options.steps - from) / spacing));
    const leg = `${name}, from step ${from}`;
    const run = await trial.run(
      leg,
      problem,
      {
        ...options,
        theta,
        steps,
        seed: trial.seedOf(leg),
        record: { ...options.record, every: spacing },
        ...(options.probes === undefined ? {} : { probes: { ...options.probes, every: spacing } }),
      },
      share * (steps / options.steps),
    );
    legs.push({ from, run, flows: await flowsOf(run, leg) });
    theta = run.theta;
    from += steps;
  }
  return legs;
}

/**
 * A row about the change of a charge along a path, measured and predicted from its flow at the records: the sum of the mean changes of
 * all steps, between the records by trapezoids. Given its path, what SGD adds to that has mean 0 in every step, so the scatter of
 * measured less predicted over the replicas is the standard error; the model error is what trapezoids twice as wide would
 * change.
 */
export function alongPath(
  trial: Trial,
  about: { readonly setting: string; readonly quantity: string },
  path: Path,
  charge: string,
): void {
  const [first, end] = [path[0]!.run, path.at(-1)!.run];
  const changed = (r: number): number =>
    at(end, end.series.charges[charge]!, -1, r) - at(first, first.series.charges[charge]!, 0, r);
  // with a probe at every step the sum is exact as it stands
  const strideOf = (run: Run, stride: number) => (run.series.k[1] === 1 ? 1 : stride);
  const sums = (r: number, stride: number): number =>
    path.reduce((sum, { run, flows }) => sum + sumOf(run, flows[charge]!, r, strideOf(run, stride)), 0);
  const predicted = overReplicas(first, (r) => sums(r, 1));
  const wider = overReplicas(first, (r) => sums(r, 2));
  const { stdErr } = overReplicas(first, (r) => changed(r) - sums(r, 1));
  trial.row(
    about,
    {
      value: predicted.value,
      modelError: Math.abs(wider.value - predicted.value),
      neglects: "curvature of the flow between records: what trapezoids twice as wide change",
    },
    {
      ...overReplicas(first, changed),
      stdErr,
      method: `mean over ${first.replicas} runs, each less the prediction along its path`,
    },
  );
}

/** sum_k f(k) over the steps of a run, from f at its records: trapezoids, less half of what f gains, which is exact at every step. */
function sumOf(run: Run, f: ArrayLike<number>, r: number, stride: number): number {
  const { k } = run.series;
  const value = (i: number) => f[i * run.replicas + r]!;
  const last = k.length - 1;
  let total = -0.5 * (value(last) - value(0));
  for (let i = 0; i < last; i = Math.min(last, i + stride)) {
    const next = Math.min(last, i + stride);
    total += 0.5 * (k[next]! - k[i]!) * (value(next) + value(i));
  }
  return total;
}

/** A charge relative to its start along a path, mean over the replicas: as measured, or as its flow at the records predicts. */
export function relativeCurve(label: string, path: Path, charge: string, predicted: boolean): Curve {
  const first = path[0]!.run;
  const start = (r: number) => at(first, first.series.charges[charge]!, 0, r);
  const [x, y]: [number[], number[]] = [[0], [1]];
  const gained = new Float64Array(first.replicas);
  for (const { from, run, flows } of path) {
    const C = run.series.charges[charge]!;
    const flow = flows[charge] ?? C;
    for (let i = 1; i < run.series.k.length; i++) {
      const [k, before] = [run.series.k[i]!, run.series.k[i - 1]!];
      for (let r = 0; r < run.replicas; r++)
        gained[r]! += 0.5 * (k - before) * (at(run, flow, i, r) + at(run, flow, i - 1, r));
      x.push(from + k);
      const value = (r: number) => (predicted ? start(r) + gained[r]! : at(run, C, i, r));
      y.push(overReplicas(run, (r) => value(r) / start(r)).value);
    }
  }
  return { label, predicted, x, y };
}

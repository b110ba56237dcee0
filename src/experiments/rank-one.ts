import { log } from "../core/elementary.ts";
import type { Run } from "../dynamics/result.ts";
import { ops } from "../graph/ops.ts";
import { type Sampler, sampler } from "../graph/sampler.ts";
import type { Problem } from "../problem.ts";
import type { RankOneData } from "../symmetry/predictions.ts";
import { at } from "./trial.ts";

/** y = slope x + noise with x ~ N(0, 1) and noise ~ N(0, noiseSd^2). */
export function regression(slope: number, noiseSd: number): Sampler {
  return sampler({
    noise: { x: { kind: "normal", shape: [1] }, eps: { kind: "normal", shape: [1] } },
    outputs: ({ x, eps }) => ({ x: x!, y: ops.add(ops.scale(x!, slope), ops.scale(eps!, noiseSd)) }),
  });
}

/** Moments of a finite data set that laws of (u w x - y)^2 need, divisor N. */
export function momentsOfSet(problem: Problem): RankOneData {
  const { x, y } = problem.data as unknown as { x: ArrayLike<number>; y: ArrayLike<number> };
  const { N } = problem;
  const mean = (f: (i: number) => number): number => {
    let sum = 0;
    for (let i = 0; i < N; i++) sum += f(i);
    return sum / N;
  };
  const alpha = mean((i) => x[i]! * x[i]!);
  const b1 = mean((i) => x[i]! * y[i]!);
  const square = (i: number) => x[i]! * x[i]! - alpha;
  const product = (i: number) => x[i]! * y[i]! - b1;
  return {
    alpha,
    b1,
    a: mean((i) => square(i) * square(i)),
    b: mean((i) => square(i) * product(i)),
    c: mean((i) => product(i) * product(i)),
  };
}

/** D(v) = Var(x^2 v - x y) at the minimum v = b1 / alpha; the derivative of the loss by v has the variance 4 D. */
export function noiseAtMinimum({ alpha, b1, a, b, c }: RankOneData): number {
  const v = b1 / alpha;
  return a * v * v - 2 * b * v + c;
}

/** The point of the valley u w = b1 / alpha with u / w = ratio, signs aside. */
export function onValley(
  { alpha, b1 }: RankOneData,
  ratio: number,
): { readonly u: number; readonly w: number } {
  const v = b1 / alpha;
  const u = Math.sqrt(ratio * Math.abs(v));
  return { u, w: v / u };
}

/** -ln(C / C(0)) of replica r at a record, of the charge C = Q / 2; Q keeps its sign while 1 - eta^2 delta^2 > 0. */
export function decayOf(run: Run, record: number, r: number): number {
  const C = run.series.charges.C!;
  return log(at(run, C, 0, r) / at(run, C, record, r));
}

/**
 * What `steps` updates may do to u^2 - w^2 by rounding, relative to it: each of u and w is rounded at most three times an
 * update, and the charge that is recorded a few times more.
 */
export function roundingOfDecay(steps: number, u: number, w: number): number {
  const [u2, w2] = [u * u, w * w];
  return (8 * (steps + 8) * Number.EPSILON * (u2 + w2)) / Math.abs(u2 - w2);
}

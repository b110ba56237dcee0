import type { RealArray } from "../core/arena.ts";
import { arctan } from "../core/elementary.ts";
import type { Run } from "../dynamics/result.ts";
import type { Problem } from "../problem.ts";
import type { Generator } from "../symmetry/generator.ts";
import type { Flows } from "./norms.ts";

/** What single steps from given thetas do, each the mean over independent batches. */
export interface Angles {
  /** E ghat^T A ghat of each charge, by theta. */
  readonly power: Flows;
  /** Mean square of the angle by which W, or each row of it, turns. */
  readonly square: Float64Array;
}

/** The thetas of a run that recorded W, [record][replica]; its other blocks do not move and are those of the start. */
export function thetasAt(problem: Problem, run: Run, start: RealArray): Float64Array[] {
  const { P } = problem.model;
  const { offset, size } = problem.model.block("W");
  const W = run.series.values["W"]!;
  return Array.from({ length: W.length / size }, (_, i) => {
    const r = i % run.replicas;
    const theta = Float64Array.from(start.subarray(r * P, (r + 1) * P));
    theta.set(W.subarray(i * size, (i + 1) * size), offset);
    return theta;
  });
}

/** Square of the angle between entries [from, to) of two vectors. */
function squareAngle(
  a: ArrayLike<number>,
  b: ArrayLike<number>,
  from: number,
  to: number,
  shift: number,
): number {
  let [aa, bb, ab] = [0, 0, 0];
  for (let i = from; i < to; i++) {
    const [x, y] = [a[i]!, b[shift + i]!];
    aa += x * x;
    bb += y * y;
    ab += x * y;
  }
  const angle = arctan(Math.sqrt(Math.max(0, aa * bb - ab * ab)) / ab);
  return angle * angle;
}

/**
 * One step of SGD from each of the thetas, `repeats` times with batches of their own: one run of a single step whose replicas start there.
 * So E|ghat|^2 has an estimate where no sample has a gradient of its own, from draws that the run it came from never saw.
 */
export async function anglesOf(
  problem: Problem,
  thetas: readonly Float64Array[],
  repeats: number,
  step: {
    readonly scheme: "sgd";
    readonly batchSize: number;
    readonly eta: number;
    readonly weightDecay: number;
    readonly seed: string;
    readonly charges: Readonly<Record<string, Generator>>;
    readonly byRow: boolean;
  },
): Promise<Angles> {
  const { charges, byRow, ...options } = step;
  const { P } = problem.model;
  const { offset, size, shape } = problem.model.block("W");
  const width = byRow ? shape[1]! : size;
  const count = thetas.length * repeats;
  const theta = new Float64Array(count * P);
  for (const [i, at] of thetas.entries())
    for (let t = 0; t < repeats; t++) theta.set(at, (i * repeats + t) * P);
  const run = await problem.simulate({
    ...options,
    theta,
    steps: 1,
    replicas: count,
    record: { every: 1, charges, work: true },
  });
  const mean = (f: (i: number) => number): Float64Array =>
    Float64Array.from(thetas, (_, i) => {
      let sum = 0;
      for (let t = 0; t < repeats; t++) sum += f(i * repeats + t);
      return sum / repeats;
    });
  const perWork = 2 / (step.eta * step.eta);
  const power = Object.fromEntries(
    Object.keys(charges).map((name) => [name, mean((i) => perWork * run.series.work[name]![count + i]!)]),
  );
  const square = mean((i) => {
    const from = thetas[Math.floor(i / repeats)]!;
    let sum = 0;
    for (let a = offset; a < offset + size; a += width)
      sum += squareAngle(from, run.theta, a, a + width, i * P);
    return (sum * width) / size;
  });
  return { power, square };
}

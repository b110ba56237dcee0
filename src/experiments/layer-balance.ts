import { exp, log } from "../core/elementary.ts";
import type { Run } from "../dynamics/result.ts";
import type { Engine } from "../engine.ts";
import type { Problem } from "../problem.ts";
import type { Generator } from "../symmetry/generator.ts";
import { type DeepNet, depthOf, side } from "./deep-net.ts";
import { at } from "./trial.ts";

/** A neuron is alive if each side has this much of the mean noise of its layer. */
const ALIVE = 0.01;

/** Two sides of one rescaling, by the names of their charges: layers, or the column and row of a neuron. */
export interface Pair {
  readonly up: string;
  readonly down: string;
  /** The layer below. */
  readonly layer: number;
}

/** One pair in one run: how far off it was where SGD began, its noise and its time. */
export interface Unit extends Pair {
  readonly replica: number;
  /** ln(N+ / N-) before, and its average over the second half. */
  readonly before: number;
  readonly after: number;
  /** Mean of |g|^2 over the second half, both sides. */
  readonly plus: number;
  readonly minus: number;
  /** Length of the run in tau_2 = |theta|^2 / (2 sigma^2 (N+ + N-)). */
  readonly times: number;
}

/** Charges whose work is |g|^2 of the two sides: of layers in a linear net, of neurons in a ReLU net. */
export function chargesOf(net: DeepNet): { charges: Record<string, Generator>; pairs: Pair[] } {
  const charges: Record<string, Generator> = {};
  const pairs: Pair[] = [];
  for (let layer = 0; layer < depthOf(net) - 1; layer++) {
    const [above, below] = [`W${layer + 2}`, `W${layer + 1}`];
    if (net.activation === "linear") {
      charges[above] = side(above);
      charges[below] = side(below);
      pairs.push({ up: above, down: below, layer });
      continue;
    }
    for (let j = 0; j < net.sizes[layer + 1]!; j++) {
      const [up, down] = [`${above} column ${j}`, `${below} row ${j}`];
      charges[up] = side(above, { columns: j });
      charges[down] = side(below, { rows: j });
      pairs.push({ up, down, layer });
    }
  }
  return { charges, pairs };
}

/** Tr Sigma of every side. */
export function noiseOf(
  problem: Problem,
  theta: Float64Array,
  charges: Record<string, Generator>,
): Record<string, number> {
  return Object.fromEntries(
    Object.entries(charges).map(([name, A]) => [name, problem.noisePower(theta, A).value]),
  );
}

/** ln(N+ / N-) of two adjacent layers. */
export function ratioAt(noise: Record<string, number>, pairs: readonly Pair[], layer: number): number {
  let [plus, minus] = [0, 0];
  for (const pair of pairs) {
    if (pair.layer !== layer) continue;
    plus += noise[pair.up]!;
    minus += noise[pair.down]!;
  }
  return log(plus / minus);
}

/**
 * 1 / tau_2 of the slowest double rotation of two layers: the least of 2 sigma^2 Tr[B (S_U + S_W) B] / Tr[B (U^T U + W W^T) B] over all
 * symmetric B, where the noise of both has come to balance.
 */
export function slowRate(
  problem: Problem,
  engine: Engine,
  theta: Float64Array,
  { up, down }: Pair,
  sigma2: number,
): number {
  const { dense } = engine;
  const at = problem.groupEquilibrium(theta, up, down, { sigma2 });
  const { SU, SW } = problem.noiseMoments(at.theta, up, down);
  const h = at.M.rows;
  const noise = { rows: h, cols: h, values: Float64Array.from(SU, (x, i) => x + SW[i]!) };
  const square = dense.add(
    dense.matmul(dense.transpose(at.U), at.U),
    dense.matmul(at.W, dense.transpose(at.W)),
  );
  const root = dense.invSqrtSymmetric(square);
  const { values } = dense.symmetricEigen(dense.matmul(root, dense.matmul(noise, root)));
  return 2 * sigma2 * values[h - 1]!;
}

/** One pair of one run from its records at the middle and the end. */
export function unitOf(
  run: Run,
  pair: Pair,
  replica: number,
  before: Record<string, number>,
  eta: number,
  sigma2: number,
): Unit {
  const { work, charges } = run.series;
  // work sums eta^2/2 |g|^2; of the batch mean, S times smaller than one sample's noise
  const power = (name: string) =>
    (at(run, work[name]!, 2, replica) - at(run, work[name]!, 1, replica)) /
    (0.5 * eta * eta * (run.steps / 2));
  const [plus, minus] = [power(pair.up), power(pair.down)];
  const square = [pair.up, pair.down].reduce(
    (sum, name) => sum + 2 * at(run, charges[name]!, -1, replica),
    0,
  );
  const S = eta / (2 * sigma2);
  return {
    ...pair,
    replica,
    before: log(before[pair.up]! / before[pair.down]!),
    after: log(plus / minus),
    plus,
    minus,
    times: (2 * sigma2 * S * (plus + minus) * eta * run.steps) / square,
  };
}

/** Mean over the second half of a run of `times` of 2 sinh(ratio / 2) e^(-t / tau_2). */
export function leftOf(ratio: number, times: number): number {
  const size = Math.abs(ratio);
  if (!(times > 0)) return size;
  const decay = (2 * (exp(-0.5 * times) - exp(-times))) / times;
  // never more than it was
  return Math.min(size, decay * (exp(0.5 * Math.min(size, 50)) - exp(-0.5 * size)));
}

/** ln(N+ / N-) of two layers of a run, and what its slow units may have left. */
export function ofLayer(
  units: readonly Unit[],
  layer: number,
  replica: number,
): { ratio: number; left: number } {
  let [plus, minus, left] = [0, 0, 0];
  for (const unit of units) {
    if (unit.layer !== layer || unit.replica !== replica) continue;
    plus += unit.plus;
    minus += unit.minus;
    const total = unit.plus + unit.minus;
    if (total > 0) left += total * leftOf(Number.isFinite(unit.before) ? unit.before : 0, unit.times);
  }
  return { ratio: log(plus / minus), left: left / (plus + minus) };
}

/** Neurons with noise on both sides. */
export function living(units: readonly Unit[], layerCount: number, replicas: number): Unit[] {
  const out: Unit[] = [];
  for (let layer = 0; layer < layerCount; layer++) {
    for (let r = 0; r < replicas; r++) {
      const own = units.filter((u) => u.layer === layer && u.replica === r);
      const least = (of: (u: Unit) => number) =>
        (ALIVE * own.reduce((sum, u) => sum + of(u), 0)) / own.length;
      const [plus, minus] = [least((u) => u.plus), least((u) => u.minus)];
      out.push(...own.filter((u) => u.plus > plus && u.minus > minus && Number.isFinite(u.before)));
    }
  }
  return out;
}

/** Root mean square of the finite ones. */
export function rms(values: readonly number[]): number {
  const finite = values.filter(Number.isFinite);
  return Math.sqrt(finite.reduce((sum, x) => sum + x * x, 0) / Math.max(1, finite.length));
}

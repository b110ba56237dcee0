import { exp, log } from "../core/elementary.ts";
import type { Problem } from "../problem.ts";
import { symmetry } from "../symmetry/generator.ts";

/** |values|^2. */
export const squares = (values: ArrayLike<number>): number =>
  Array.from(values).reduce((sum, x) => sum + x * x, 0);

/** What Theorem 1 needs of one start: noise and squared norms of both layers, and its equilibrium. */
export interface Orbit {
  readonly plus: number;
  readonly minus: number;
  readonly up: number;
  readonly down: number;
  readonly tau: number;
  /** At the equilibrium of the orbit. */
  readonly theta: Float64Array;
}

/** Measured at theta. */
export function orbitOf(
  problem: Problem,
  theta: Float64Array,
  strength: { eta: number; batchSize: number; weightDecay: number },
): Orbit {
  const A = symmetry.rescaling("U", "W");
  const { plus, minus } = problem.noetherFlow(theta, A, strength);
  const at = problem.equilibrium(theta, A, strength);
  const named = problem.named(theta);
  const isReached = at.status === "finite";
  return {
    plus,
    minus,
    up: squares(named["U"]!),
    down: squares(named["W"]!),
    tau: isReached ? 1 / at.rate : Infinity,
    theta: isReached ? Float64Array.from(problem.transform(theta, A, at.lambda)) : theta,
  };
}

/** ln(N+ / N-) along d lambda / dt = (N+ e^(-2 lambda) - N- e^(2 lambda)) / (|U|^2 e^(2 lambda) + |W|^2 e^(-2 lambda)), mean over starts. */
export function alongOrbits(starts: readonly Orbit[], dt: number, records: number): number[] {
  const inner = 20;
  const total = new Array<number>(records + 1).fill(0);
  for (const { plus, minus, up, down } of starts) {
    let lambda = 0;
    for (let i = 0; i <= records; i++) {
      total[i]! += (log(plus / minus) - 4 * lambda) / starts.length;
      for (let j = 0; j < inner; j++) {
        const grown = exp(2 * lambda);
        lambda += ((dt / inner) * (plus / grown - minus * grown)) / (up * grown + down / grown);
      }
    }
  }
  return total;
}

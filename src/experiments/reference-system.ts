import type { Generator } from "../symmetry/generator.ts";
import { symmetry } from "../symmetry/generator.ts";

/** 2 pi = TURN_HI + TURN_LO. */
const TURN_HI = 6.283185307179586;
const TURN_LO = 2.4492935982947064e-16;

/** sin x for |x| below a hundred: one turn taken off, then the series. Error at most 2^-50. */
export function sine(x: number): number {
  const turns = Math.round(x / TURN_HI);
  const r = x - turns * TURN_HI - turns * TURN_LO;
  let term = r;
  let sum = r;
  for (let n = 2; n < 40; n += 2) {
    term *= -(r * r) / (n * (n + 1));
    sum += term;
  }
  return sum;
}

const cosine = (x: number): number => sine(x + 0.25 * TURN_HI);

/** What an independent program found for the reference system. */
export interface Golden {
  readonly weightDecay: number;
  readonly lambda: number;
  readonly slope: number;
  readonly charge: number;
  readonly rate: number;
}

/**
 * A two-layer linear net without random numbers, and its equilibrium as an independent program computed it in float64: N = 8, dx = 3,
 * h = 2, dy = 2, B = [[1, .5], [.5, -1]], eta = .01, S = 4.
 *
 * @source theory, section 18
 */
export function referenceSystem(): {
  readonly data: { readonly x: number[][]; readonly y: number[][] };
  readonly theta: { readonly U: number[][]; readonly W: number[][] };
  readonly A: Generator;
  readonly strength: { readonly eta: number; readonly batchSize: number };
  readonly golden: readonly Golden[];
} {
  const table = (rows: number, cols: number, f: (i: number, j: number) => number): number[][] =>
    Array.from({ length: rows }, (_, i) => Array.from({ length: cols }, (__, j) => f(i, j)));
  return {
    data: {
      x: table(8, 3, (n, j) => sine(1.3 * n * (j + 1) + 0.7 * j + 0.2)),
      y: table(8, 2, (n, i) => cosine(0.9 * n + 1.6 * i + 0.2)),
    },
    theta: {
      U: table(2, 2, (i, a) => sine(0.5 + i + 2 * a)),
      W: table(2, 3, (a, j) => cosine(0.3 + 1.1 * a + 0.7 * j)),
    },
    A: symmetry.doubleRotation("U", "W", [
      [1, 0.5],
      [0.5, -1],
    ]),
    strength: { eta: 0.01, batchSize: 4 },
    golden: [
      {
        weightDecay: 0,
        lambda: -0.1434562039289269,
        slope: -0.05902253348114984,
        charge: -0.4215890808519468,
        rate: 0.011431424500829186,
      },
      {
        weightDecay: 0.02,
        lambda: -0.07139484356887559,
        slope: -0.4660142073962368,
        charge: -0.053395916358219477,
        rate: 0.09177487530737193,
      },
    ],
  };
}

/**
 * Gradient descent and SGD in plain JavaScript, one sample after the other, and the random draws of a run one at a
 * time. It catches a draw taken from the wrong counter (a replica, a step or a window that is off by one), a batch
 * that repeats or misses a sample, decay applied after the step, and a mean taken over the wrong number of samples.
 */
import seedrandom from "seedrandom";
import { philox, type Words2 } from "./philox.ts";

/** What a draw is for: the fourth word of its counter. */
const BATCH = 1;
const FRESH = 3;

/** The key of a seed: the first two words of seedrandom's stream. */
export function keyOfSeed(seed: string): Words2 {
  const generator = seedrandom(seed);
  return [generator.int32() >>> 0, generator.int32() >>> 0];
}

/** Word i of a replica's stream of index draws: word i & 3 of block i >> 2, counter (low, high, replica, purpose). */
export function batchWord(key: Words2, replica: number, i: number): number {
  const block = Math.floor(i / 4);
  return philox([block % 2 ** 32, Math.floor(block / 2 ** 32), replica, BATCH], key)[
    (i % 4) as 0 | 1 | 2 | 3
  ];
}

/** floor(word n / 2^32), exactly. */
export const below = (word: number, n: number): number => Number((BigInt(word) * BigInt(n)) >> 32n);

/** The batch of a step, drawn with replacement. */
export function iidBatch(key: Words2, replica: number, step: number, S: number, N: number): number[] {
  return Array.from({ length: S }, (_, s) => below(batchWord(key, replica, step * S + s), N));
}

/** The batch of a step without repetition: the first S rounds of a Fisher-Yates shuffle of 0 ... N - 1. */
export function distinctBatch(key: Words2, replica: number, step: number, S: number, N: number): number[] {
  const order = Array.from({ length: N }, (_, n) => n);
  for (let s = 0; s < S; s++) {
    const other = s + below(batchWord(key, replica, step * S + s), N - s);
    [order[s], order[other]] = [order[other]!, order[s]!];
  }
  return order.slice(0, S);
}

/** Entry e of a random leaf of a fresh sample; `block` is the leaf's first block of that sample. */
export function freshEntry(
  kind: "normal" | "uniform" | "sign" | "index",
  key: Words2,
  at: { replica: number; step: number; block: number; entry: number; below?: number },
): number {
  const perBlock = kind === "normal" || kind === "uniform" ? 2 : 4;
  const words = philox([at.block + Math.floor(at.entry / perBlock), at.step, at.replica, FRESH], key);
  /** The top 52 of the 64 bits low | high << 32, as a fraction in [0, 1). */
  const fraction = (low: number, high: number) => (high * 2 ** 20 + (low >>> 12)) / 2 ** 52;
  const which = at.entry % perBlock;
  if (kind === "sign") return words[which]! >= 2 ** 31 ? -1 : 1;
  if (kind === "index") return below(words[which]!, at.below!);
  if (kind === "uniform") return which === 0 ? fraction(words[0], words[1]) : fraction(words[2], words[3]);
  const radius = Math.sqrt(-2 * Math.log(1 - fraction(words[0], words[1])));
  const angle = 2 * Math.PI * (fraction(words[2], words[3]) - 0.5);
  return radius * (which === 0 ? Math.sin(angle) : Math.cos(angle));
}

/** Gradient of the loss of one sample. */
export type SampleGradient = (theta: readonly number[], sample: number) => readonly number[];

/** Mean of some vectors of equal length. */
export function meanVector(vectors: readonly (readonly number[])[]): number[] {
  return vectors[0]!.map((_, i) => vectors.reduce((sum, v) => sum + v[i]!, 0) / vectors.length);
}

/** theta after each step, the start first: theta' = (1 - 2 eta gamma) theta - eta (mean gradient of the batch). */
export function descend(options: {
  theta: readonly number[];
  eta: number;
  gamma?: number;
  steps: number;
  gradient: SampleGradient;
  batch: (step: number) => readonly number[];
}): number[][] {
  const { eta, gamma = 0, steps, gradient, batch } = options;
  const path = [[...options.theta]];
  for (let k = 0; k < steps; k++) {
    const theta = path[k]!;
    const g = meanVector(batch(k).map((n) => gradient(theta, n)));
    path.push(theta.map((x, i) => (1 - 2 * eta * gamma) * x - eta * g[i]!));
  }
  return path;
}

/**
 * The two-layer linear model l = |U W x - y|^2 with theta = (U, W), row-major, and its gradient
 * g_U = 2 r (W x)^T, g_W = 2 U^T r x^T, r = U W x - y.
 */
export function twoLayerLinear(
  sizes: { dx: number; h: number; dy: number },
  data: { x: ArrayLike<number>; y: ArrayLike<number> },
): { loss: (theta: readonly number[], sample: number) => number; gradient: SampleGradient } {
  const { dx, h, dy } = sizes;
  const forward = (theta: readonly number[], n: number) => {
    const U = (i: number, a: number) => theta[i * h + a]!;
    const W = (a: number, j: number) => theta[dy * h + a * dx + j]!;
    const range = (count: number) => Array.from({ length: count }, (_, i) => i);
    const x = range(dx).map((j) => data.x[n * dx + j]!);
    const z = range(h).map((a) => range(dx).reduce((sum, j) => sum + W(a, j) * x[j]!, 0));
    const r = range(dy).map(
      (i) => range(h).reduce((sum, a) => sum + U(i, a) * z[a]!, 0) - data.y[n * dy + i]!,
    );
    const back = range(h).map((a) => range(dy).reduce((sum, i) => sum + U(i, a) * r[i]!, 0));
    return { x, z, r, back };
  };
  return {
    loss: (theta, n) => forward(theta, n).r.reduce((sum, r) => sum + r * r, 0),
    gradient: (theta, n) => {
      const { x, z, r, back } = forward(theta, n);
      return [
        ...r.flatMap((ri) => z.map((za) => 2 * ri * za)),
        ...back.flatMap((b) => x.map((xj) => 2 * b * xj)),
      ];
    },
  };
}

/** Mean and covariance (divisor N) of per-sample gradients, row-major P x P. */
export function gradientMoments(gradients: readonly (readonly number[])[]): {
  mean: number[];
  covariance: number[][];
} {
  const mean = meanVector(gradients);
  const covariance = mean.map((_, i) =>
    mean.map(
      (_, j) =>
        gradients.reduce((sum, g) => sum + (g[i]! - mean[i]!) * (g[j]! - mean[j]!), 0) / gradients.length,
    ),
  );
  return { mean, covariance };
}

/** The reference problem: N = 8, dx = 3, h = 2, dy = 2, everything a sine or cosine of the indices. */
export function goldenProblem(): {
  x: number[];
  y: number[];
  U: number[];
  W: number[];
  B: number[][];
} {
  const grid = (rows: number, cols: number, f: (i: number, j: number) => number) =>
    Array.from({ length: rows * cols }, (_, e) => f(Math.floor(e / cols), e % cols));
  return {
    x: grid(8, 3, (n, j) => Math.sin(1.3 * n * (j + 1) + 0.7 * j + 0.2)),
    y: grid(8, 2, (n, i) => Math.cos(0.9 * n + 1.6 * i + 0.2)),
    U: grid(2, 2, (i, a) => Math.sin(0.5 + i + 2 * a)),
    W: grid(2, 3, (a, j) => Math.cos(0.3 + 1.1 * a + 0.7 * j)),
    B: [
      [1, 0.5],
      [0.5, -1],
    ],
  };
}

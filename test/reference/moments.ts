/**
 * Exact first and second moments of SGD and of its diffusions for per-sample losses that are quadratic,
 * l_n = 1/2 theta^T H_n theta + b_n^T theta, where both close: SGD by enumerating all batches of one sample, a diffusion by the
 * linear equation of its moments. A moment matrix is E[a a^T] of a = (theta, 1).
 */

export type Matrix = readonly (readonly number[])[];

export interface Quadratic {
  readonly H: Matrix;
  readonly b: readonly number[];
}

export const times = (A: Matrix, B: Matrix): number[][] =>
  A.map((row) => B[0]!.map((_, j) => row.reduce((sum, a, k) => sum + a * B[k]![j]!, 0)));
export const transpose = (A: Matrix): number[][] => A[0]!.map((_, j) => A.map((row) => row[j]!));
/** A + c B. */
export const plus = (A: Matrix, B: Matrix, c = 1): number[][] =>
  A.map((row, i) => row.map((a, j) => a + c * B[i]![j]!));
export const largest = (A: Matrix): number => A.flat().reduce((m, x) => Math.max(m, Math.abs(x)), 0);
const zero = (n: number): number[][] => Array.from({ length: n }, () => new Array<number>(n).fill(0));
const identity = (n: number): number[][] => zero(n).map((row, i) => row.map((_, j) => (i === j ? 1 : 0)));
const mean = (list: readonly Matrix[]): number[][] =>
  list.reduce<number[][]>((sum, A) => plus(sum, A, 1 / list.length), zero(list[0]!.length));

/** g_n as a matrix on (theta, 1); its last row is zero. */
const gradientMatrix = ({ H, b }: Quadratic): number[][] => [
  ...H.map((row, i) => [...row, b[i]!]),
  new Array<number>(b.length + 1).fill(0),
];

/** Moments of a known start. */
export const certain = (theta: readonly number[]): number[][] => {
  const a = [...theta, 1];
  return a.map((x) => a.map((y) => x * y));
};

/** One step of SGD with batches of one sample: the mean over all of them. */
export function sgdMoments(losses: readonly Quadratic[], eta: number, M: Matrix): number[][] {
  return mean(
    losses.map((l) => {
      const G = gradientMatrix(l);
      const step = plus(identity(G.length), G, -eta);
      return times(times(step, M), transpose(step));
    }),
  );
}

/**
 * Moments after a time of d theta = -(gbar + (bend) H gbar) dt + sqrt(2 sigma2 Sigma) dW, by `steps` steps of the classical
 * fourth-order rule: dM/dt = F M + M F^T + 2 sigma2 mean_n D_n M D_n^T, D_n = g_n - gbar on (theta, 1).
 */
export function diffusionMoments(
  losses: readonly Quadratic[],
  o: { sigma2: number; bend: number; time: number; steps: number },
  start: Matrix,
): number[][] {
  const G = losses.map(gradientMatrix);
  const gBar = mean(G);
  const H = gBar.map((row, i) => row.map((x, j) => (i < row.length - 1 && j < row.length - 1 ? x : 0)));
  const F = plus(plus(zero(gBar.length), gBar, -1), times(H, gBar), -o.bend);
  const D = G.map((g) => plus(g, gBar, -1));
  const rate = (M: Matrix): number[][] => {
    const drift = times(F, M);
    const noise = mean(D.map((d) => times(times(d, M), transpose(d))));
    return plus(plus(drift, transpose(drift)), noise, 2 * o.sigma2);
  };
  let M = start.map((row) => [...row]);
  const dt = o.time / o.steps;
  for (let s = 0; s < o.steps; s++) {
    const k1 = rate(M);
    const k2 = rate(plus(M, k1, dt / 2));
    const k3 = rate(plus(M, k2, dt / 2));
    const k4 = rate(plus(M, k3, dt));
    M = plus(M, plus(plus(k1, k2, 2), plus(plus(zero(M.length), k3, 2), k4)), dt / 6);
  }
  return M;
}

/** Mean and covariance of theta from its moment matrix. */
export function lawOf(M: Matrix): { mean: number[]; covariance: number[][] } {
  const n = M.length - 1;
  const at = M[n]!.slice(0, n);
  return { mean: at, covariance: at.map((x, i) => at.map((y, j) => M[i]![j]! - x * y)) };
}

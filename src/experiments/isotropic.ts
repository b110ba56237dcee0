import { log } from "../core/elementary.ts";
import type { Run } from "../dynamics/result.ts";
import type { Engine } from "../engine.ts";
import type { Node } from "../graph/node.ts";
import { ops } from "../graph/ops.ts";
import type { Matrix } from "../stats/dense.ts";
import type { Teacher } from "./linear-net.ts";
import { meanCurve } from "./trial.ts";

/** A linear net |U W x - y|^2 in d dimensions with isotropic data, y = V x + noise, and how SGD trains it. */
export interface IsotropicSgd {
  readonly d: number;
  readonly varX: number;
  readonly varEps: number;
  readonly eta: number;
  readonly batch: number;
  /** Mean of the singular values of V. */
  readonly v: number;
}

/** y = V x + noise with Sigma_x = varX I and Sigma_eps = varEps I. */
export function isotropicTeacher(engine: Engine, V: Matrix, varX: number, varEps: number): Teacher {
  const { dense } = engine;
  return {
    V,
    SigmaX: dense.scale(dense.identity(V.cols), varX),
    SigmaEps: dense.scale(dense.identity(V.rows), varEps),
  };
}

/** Q = U^T U - W W^T */
export const chargeMatrix = (U: Node, W: Node): Node =>
  ops.sub(ops.matmul(ops.transpose(U), U), ops.matmul(W, ops.transpose(W)));

/**
 * What the fall of the loss does to Q along gradient descent on the population, E = U W - V, relative to Q:
 *
 *   noise = <Q, |E|^2 W W^T + W E^T E W^T - (d + 1) U^T E E^T U> / |Q|^2,   mean = <Q, W E^T E W^T - U^T E E^T U> / |Q|^2
 *
 * so that a step of SGD with Gaussian x changes Q there by 4 eta^2 varX^2 (noise / S + mean), relative.
 */
export function descentValues(
  U: Node,
  W: Node,
  V: Node,
  d: number,
): { noise: Node; mean: Node; excess: Node } {
  const Q = chargeMatrix(U, W);
  const E = ops.sub(ops.matmul(U, W), V);
  const along = (X: Node) => ops.div(ops.sum(ops.mul(Q, X)), ops.sqnorm(Q));
  const [WE, EU] = [ops.matmul(W, ops.transpose(E)), ops.matmul(ops.transpose(U), E)];
  const left = along(ops.matmul(WE, ops.transpose(WE)));
  const right = along(ops.matmul(EU, ops.transpose(EU)));
  const excess = ops.sqnorm(E);
  const all = ops.mul(excess, along(ops.matmul(W, ops.transpose(W))));
  return { noise: ops.add(all, ops.sub(left, ops.scale(right, d + 1))), mean: ops.sub(left, right), excess };
}

/** Along gradient descent on the population at every step, mean over its starts. */
export interface Descent {
  readonly noise: readonly number[];
  readonly mean: readonly number[];
  /** |U W - V|^2 */
  readonly excess: readonly number[];
}

/** From a run on the population that records `descentValues` at every step. */
export function descentOf(run: Run): Descent {
  const { noise, mean, excess } = run.series.values as Record<"noise" | "mean" | "excess", Float64Array>;
  return { noise: meanCurve(run, noise), mean: meanCurve(run, mean), excess: meanCurve(run, excess) };
}

/** Eigenvalues of Q = U^T U - W W^T for U [d, h] and W [h, d] side by side in a theta, descending. */
export function chargeSpectrum(
  engine: Engine,
  theta: ArrayLike<number>,
  h: number,
  d: number,
  r = 0,
): Float64Array {
  const { dense } = engine;
  const at = 2 * h * d * r;
  const U = { rows: d, cols: h, values: Float64Array.from({ length: d * h }, (_, e) => theta[at + e]!) };
  const W = {
    rows: h,
    cols: d,
    values: Float64Array.from({ length: d * h }, (_, e) => theta[at + d * h + e]!),
  };
  const Q = dense.sub(dense.matmul(dense.transpose(U), U), dense.matmul(W, dense.transpose(W)));
  return dense.symmetricEigen(Q).values;
}

/** How Q = U^T U - W W^T is predicted to decay, at every step. */
export interface ChargeDecay {
  /** -ln of |Q| / |Q(0)|. */
  readonly decay: Float64Array;
  /** Relative size of what it neglects, by the end of the time it was asked for. */
  readonly neglected: Float64Array;
  /** Largest part that the noise of the product adds to the rate. */
  readonly kappa: number;
}

/** a and b with a - b = q and a b = v^2. */
function sides(q: number, v: number): { a: number; b: number } {
  const m = Math.sqrt(q * q + 4 * v * v);
  return { a: 0.5 * (m + q), b: 0.5 * (m - q) };
}

/**
 * The decay of Q under SGD. Every step changes it by eta^2 (g_U^T g_U - g_W g_W^T), which along an eigenvector of Q with
 * a = |U|^2, b = |W|^2, q = a - b and a b = v^2 has the mean, for the product at V + E,
 *
 *   q' = q + 4 (eta^2 / S) varX [ b (d varEps + varX (Tr <E E^T> + (1 + S) <E^T E>_jj)) - a (d varEps + varX (d + 1 + S) <E E^T>_jj) ]
 *
 * While the loss falls E is that of gradient descent from the same start; the noise of SGD adds, with m = eta varX (a_i + b_j),
 *
 *   Var E_ij' = (1 - 4 m + 4 m^2 (1 + (d + 1) / S)) Var E_ij + 4 m^2 varEps / (S varX)
 *
 * To lowest order q' = (1 - 8 sigma^2 d varX varEps eta) q.
 *
 * Neglected, relative: k (k + nu), with k what the noise of the product adds where the valley of the start is reached, and
 * nu = eta varEps (a + b) / (S v^2) the variance of the product beside its size.
 *
 * @param spectrum eigenvalues of Q at the start; the d largest in size carry the product
 * @param descent  gradient descent on the population from the same start with the same eta
 * @source theory.md, 14(e), and its O(eta) terms
 */
export function decayOfCharge(
  sgd: IsotropicSgd,
  spectrum: ArrayLike<number>,
  descent: Descent,
  steps: number,
): ChargeDecay {
  const { d, eta, batch: S, varX, varEps, v } = sgd;
  const q = Float64Array.from(spectrum).sort((x, y) => Math.abs(y) - Math.abs(x));
  const norm = (): number => Math.sqrt(q.reduce((sum, x) => sum + x * x, 0));
  const first = norm();
  const unit = (4 * eta * eta * varX) / S;
  const decay = new Float64Array(steps + 1);
  const neglected = new Float64Array(steps + 1);
  const variances = new Float64Array(d * d);
  let [worst, nu, size] = [0, 0, 0];
  for (let k = 0; k < steps; k++) {
    const both = Array.from(q, (x, j) => sides(x, j < d ? v : 0));
    const { rows, cols, total } = productNoise(sgd, both, variances);
    // relative to Q, per unit
    const falling = varX * ((descent.noise[k] ?? 0) + S * (descent.mean[k] ?? 0));
    let [plain, extra] = [0, 0];
    for (const [j, { a, b }] of both.entries()) {
      const more = varX * (b * (total + (1 + S) * cols[j]!) - a * (d + 1 + S) * rows[j]!);
      plain += d * varEps * q[j]! * q[j]!;
      extra -= q[j]! * more;
      size = Math.max(size, a + b);
      q[j] = q[j]! - unit * ((d * varEps - falling) * q[j]! - more);
    }
    if (k === 0) nu = (eta * varEps * size) / (S * v * v);
    worst = Math.max(worst, plain > 0 ? Math.abs(extra) / plain : 0);
    decay[k + 1] = log(first / norm());
    neglected[k + 1] = worst * (worst + nu);
  }
  return { decay, neglected, kappa: worst };
}

/** Variances of the entries of U W after another step; directions beyond d have none. Sums over rows, columns and all of them. */
function productNoise(
  { d, eta, batch, varX, varEps }: IsotropicSgd,
  both: readonly { readonly a: number; readonly b: number }[],
  variances: Float64Array,
): { rows: Float64Array; cols: Float64Array; total: number } {
  const [rows, cols] = [new Float64Array(both.length), new Float64Array(both.length)];
  const more = 1 + (d + 1) / batch;
  let total = 0;
  for (let i = 0; i < d; i++) {
    for (let j = 0; j < d; j++) {
      const m = eta * varX * (both[i]!.a + both[j]!.b);
      const kept = variances[i * d + j]! * (1 - 4 * m + 4 * m * m * more);
      const variance = kept + (4 * m * m * varEps) / (batch * varX);
      variances[i * d + j] = variance;
      rows[i]! += variance;
      cols[j]! += variance;
      total += variance;
    }
  }
  return { rows, cols, total };
}

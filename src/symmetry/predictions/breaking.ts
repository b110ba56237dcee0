/** Lack of symmetry: ell + zeta ell_0, where ell has the symmetry and ell_0 has not. */
import { fail } from "../../errors.ts";
import type { Dense, Matrix } from "../../stats/dense.ts";
import { finite, nonNegative, positive, type Rule, readFields, readMatrix, readVector } from "./fields.ts";
import { lyapunov } from "./stationary.ts";

/**
 * dC/dt = sigma2 Tr[Sigma A] - zeta (A theta) . grad ell_0, where ell has the symmetry and ell_0 has not.
 *
 * @param of.noise Tr[Sigma A]; of.pull (A theta) . grad ell_0
 * @throws NoetherflowError "range" or "name" naming the field
 * @source theory 11, eq. 18; 0 is eq. 19
 * @example predictions.brokenFlow({ sigma2: 0.01, noise: 3, zeta: 0.1, pull: 0.2 }); // 0.01
 */
export function brokenFlow(of: {
  readonly sigma2: number;
  readonly noise: number;
  readonly zeta: number;
  readonly pull: number;
}): number {
  const { sigma2, noise, zeta, pull } = readFields("brokenFlow", of, {
    sigma2: nonNegative,
    noise: finite,
    zeta: finite,
    pull: finite,
  });
  return sigma2 * noise - zeta * pull;
}

/**
 * Shift of the equilibrium along its orbit by a small zeta: zeta q / f'(lambda*), q = (A theta) . grad ell_0 there. The
 * error is O(zeta^2).
 *
 * @param of.slope f'(lambda*) of the symmetric loss, below 0
 * @throws NoetherflowError "range" or "name" naming the field
 * @source theory 11
 * @example predictions.smallBreakingShift({ zeta: 0.1, pull: 2, slope: -4 }); // -0.05
 */
export function smallBreakingShift(of: {
  readonly zeta: number;
  readonly pull: number;
  readonly slope: number;
}): number {
  const falling: Rule = (where, name, value) =>
    finite(where, name, value) < 0
      ? (value as number)
      : fail("range", where, "the slope at a finite equilibrium is below 0", `${value}`);
  const { zeta, pull, slope } = readFields("smallBreakingShift", of, {
    zeta: finite,
    pull: finite,
    slope: falling,
  });
  return (zeta * pull) / slope;
}

/**
 * The paper's estimate for large zeta at a minimum theta* of the total loss: C - C* = sigma2 Tr[Sigma A] / h, and with it
 * the displacement s n along the eigenvector n of the Hessian with the eigenvalue h, s = (C - C*) / (theta*^T A n).
 *
 * It treats theta as a point and may be 25 % off: `minimumShift` is the correct first order in sigma2. Both agree where the
 * noise can not move C, as for ell_0 = psi(C).
 *
 * @param of.alignment theta*^T A n, not 0; without it there is no displacement
 * @throws NoetherflowError "range" or "name" naming the field
 * @source theory 11, eqs. 20-23
 * @example predictions.largeBreakingShift({ sigma2: 0.01, noise: 3, h: 2 }); // { charge: 0.015 }
 */
export function largeBreakingShift(of: {
  readonly sigma2: number;
  readonly noise: number;
  readonly h: number;
  readonly alignment?: number;
}): { readonly charge: number; readonly displacement?: number } {
  const where = "largeBreakingShift";
  const rules = { sigma2: nonNegative, noise: finite, h: positive };
  const { sigma2, noise, h } = readFields(where, of, rules, ["alignment"]);
  const charge = (sigma2 * noise) / h;
  if (of.alignment === undefined) return { charge };
  const alignment = finite(where, "alignment", of.alignment);
  if (alignment === 0)
    fail("range", where, "alignment must not be 0", "0", "This eigenvector does not move the charge.");
  return { charge, displacement: charge / alignment };
}

/** What noise does to first order in sigma2 near a minimum. */
export interface MinimumShift {
  /** Stationary covariance of theta, P x P. */
  readonly R: Matrix;
  /** E[theta] - theta*, P values. */
  readonly delta: Float64Array;
  /** E[C] - C(theta*). */
  readonly charge: number;
}

/**
 * E[theta] - theta* and E[C] - C* of the SDE near a minimum theta*, to first order in sigma2:
 *
 *   H R + R H = 2 sigma2 Sigma,   delta = -1/2 H^-1 (T : R),   E[C] - C* = (A theta*) . delta + 1/2 Tr[A R]
 *
 * @param of.H     Hessian of the total loss, P x P, positive definite
 * @param of.Sigma covariance of single-sample gradients, P x P
 * @param of.T     third derivatives of the total loss, T[(i P + j) P + k]
 * @param of.A     generator, P x P
 * `problem.minimumShift` measures all of these at a theta.
 *
 * @throws NoetherflowError "range" unless H is positive definite; "range", "name" or "shape" naming the field
 * @cost   an eigen-decomposition and some products of P x P, and P^3
 * @source theory 11
 * @example
 * const of = (x: number) => ({ rows: 1, cols: 1, values: Float64Array.of(x) });
 * const line = { H: of(2), Sigma: of(4), T: Float64Array.of(0), A: of(1), theta: [1], sigma2: 0.01 };
 * predictions.minimumShift(engine.dense, line).charge; // 0.01; sigma2 Sigma / (2 H) of a parabola
 */
export function minimumShift(
  dense: Dense,
  of: {
    readonly H: Matrix;
    readonly Sigma: Matrix;
    readonly T: Float64Array;
    readonly A: Matrix;
    readonly theta: ArrayLike<number>;
    readonly sigma2: number;
  },
): MinimumShift {
  const where = "minimumShift";
  const { sigma2 } = readFields(where, of, { sigma2: nonNegative }, ["H", "Sigma", "T", "A", "theta"]);
  const H = readMatrix(where, "H", of.H);
  const P = H.rows;
  const Sigma = readMatrix(where, "Sigma", of.Sigma, P);
  const A = readMatrix(where, "A", of.A, P);
  const T = readVector(where, "T", of.T, P * P * P, `P^3 = ${P * P * P}`);
  const theta = readVector(where, "theta", of.theta, P, `P = ${P}`);
  const { R } = lyapunov(where, dense, H, Sigma, sigma2, 0);
  const bend = new Float64Array(P);
  for (let i = 0; i < P; i++)
    for (let e = 0; e < P * P; e++) bend[i] = bend[i]! + T[i * P * P + e]! * R.values[e]!;
  const delta = displacement(dense, H, bend);
  let charge = 0.5 * dense.trace(dense.matmul(A, R));
  for (let i = 0; i < P; i++) {
    for (let j = 0; j < P; j++) charge += delta[i]! * A.values[i * P + j]! * theta[j]!;
  }
  return { R, delta, charge };
}

/** -1/2 H^-1 (T : R). */
export function displacement(dense: Dense, H: Matrix, bend: Float64Array): Float64Array {
  const values = bend.map((x) => -0.5 * x);
  return dense.solve(H, { rows: H.rows, cols: 1, values }).values;
}

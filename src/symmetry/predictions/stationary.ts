/** Stationary covariances near a minimum. */
import { fail } from "../../errors.ts";
import type { Dense, Matrix } from "../../stats/dense.ts";
import { nonNegative, optional, readFields, readMatrix } from "./fields.ts";

/**
 * Stationary covariance of theta in the quadratic loss theta^T H theta / 2 with constant noise Sigma, and the mean loss
 * above its least, Tr[H R] / 2:
 *
 *   the SDE (no eta)    H R + R H = 2 sigma2 Sigma,                loss (sigma2 / 2) Tr Sigma
 *   SGD with step eta   H R + R H - eta H R H = 2 sigma2 Sigma     (2 sigma2 = eta / S_eff)
 *
 * @throws NoetherflowError "range" unless H is positive definite and, for SGD, eta max eig H < 2; "range", "name" or "shape"
 *         naming the field
 * @source theory 14 (b)
 * @example
 * const of = (x: number) => ({ rows: 1, cols: 1, values: Float64Array.of(x) });
 * predictions.stationaryCovariance(engine.dense, { H: of(2), Sigma: of(4), sigma2: 0.01 }).R.values; // [0.02]
 */
export function stationaryCovariance(
  dense: Dense,
  of: { readonly H: Matrix; readonly Sigma: Matrix; readonly sigma2: number; readonly eta?: number },
): { readonly R: Matrix; readonly excessLoss: number } {
  const where = "stationaryCovariance";
  const rules = { sigma2: nonNegative, eta: optional(nonNegative, 0) };
  const { sigma2, eta } = readFields(where, of, rules, ["H", "Sigma"]);
  const H = readMatrix(where, "H", of.H);
  return lyapunov(where, dense, H, readMatrix(where, "Sigma", of.Sigma, H.rows), sigma2, eta);
}

/**
 * H R + R H - eta H R H = 2 sigma2 Sigma in the eigenvectors of H, and Tr[H R] / 2.
 *
 * @throws NoetherflowError "range" unless H is positive definite and eta max eig H < 2
 */
export function lyapunov(
  where: string,
  dense: Dense,
  H: Matrix,
  Sigma: Matrix,
  sigma2: number,
  eta: number,
): { R: Matrix; excessLoss: number } {
  const P = H.rows;
  const { values: h, vectors: V } = dense.symmetricEigen(H);
  if (P > 0 && !(h[P - 1]! > 0))
    fail("range", where, "H must be positive definite", `an eigenvalue of ${h[P - 1]}`);
  if (P > 0 && !(eta * h[0]! < 2))
    fail(
      "range",
      where,
      "eta times the largest eigenvalue of H must be below 2",
      `${eta * h[0]!}`,
      "SGD diverges there.",
    );
  const Vt = dense.transpose(V);
  const turned = dense.matmul(Vt, dense.matmul(Sigma, V));
  let excessLoss = 0;
  for (let i = 0; i < P; i++) {
    for (let j = 0; j < P; j++)
      turned.values[i * P + j]! *= (2 * sigma2) / (h[i]! + h[j]! - eta * h[i]! * h[j]!);
    excessLoss += 0.5 * h[i]! * turned.values[i * P + i]!;
  }
  return { R: dense.matmul(V, dense.matmul(turned, Vt)), excessLoss };
}

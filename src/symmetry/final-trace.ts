import type { MatrixLike, TwoLayer } from "./two-layer.ts";

/** A teacher y = V x + eps of a two-layer linear network: V dy x dx, covariances of x and eps. */
export interface LinearTeacher {
  /** dy x dx. */
  readonly V: MatrixLike;
  /** dx x dx, positive definite. */
  readonly SigmaX: MatrixLike;
  /** dy x dy, positive definite. */
  readonly SigmaEps: MatrixLike;
}

/**
 * Trace of the Hessian of |U W x - y|^2 where SGD without weight decay comes to rest: that of Proposition 2 at the noise
 * equilibrium of Theorem 2 with U W = V. With L D R^T the singular values of Sigma_eps^(1/2) V Sigma_x^(1/2),
 *
 *   Tr = 2 dy sqrt(Tr Sigma_x / Tr Sigma_eps) sum D + 2 sqrt(Tr Sigma_x Tr Sigma_eps) sum_k D_k (L^T Sigma_eps^-1 L)_kk
 *
 * Where V, Sigma_x and Sigma_eps share no axes, SGD stays some per cent off at any eta: noise turns the hidden units steadily, Q with them.
 * It depends neither on the noise strength nor on the number of hidden units, as long as there are rank V of them.
 *
 * @throws NoetherflowError "shape"; "range" where a covariance is not positive definite
 * @cost   products and eigenvectors of dx x dx and dy x dy
 * @source theory.md, section 10; Ziyin et al. 2024, arXiv:2402.07193, Proposition 2
 */
export function finalTrace(twoLayer: TwoLayer, { V, SigmaX, SigmaEps }: LinearTeacher): number {
  const gammas = twoLayer.gammas({ SigmaX, SigmaEps });
  const h = Math.min(gammas.GammaU.rows, gammas.GammaW.rows);
  // both K are proportional to sigma^2, which drops out
  const { U, W } = twoLayer.balanced({ V, h, sigma2: 1, ...gammas });
  return twoLayer.hessianTrace({ U, W, SigmaX });
}

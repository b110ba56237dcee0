import type { Engine } from "../engine.ts";
import { NoetherflowError } from "../errors.ts";
import type { Matrix } from "../stats/dense.ts";
import { noiseStrength } from "../symmetry/predictions/noise.ts";
import { normalMatrix, type Teacher } from "./linear-net.ts";

/** Where SGD comes to rest on ell = |U W x - y|^2 with weight decay. */
export interface Rest {
  readonly U: Matrix;
  readonly W: Matrix;
  /** U W, which decay shortens. */
  readonly product: Matrix;
  /** K_U = sigma^2 Gamma_U + 2 gamma I and K_W there. */
  readonly KU: Matrix;
  readonly KW: Matrix;
  /** Common spectrum of W K_W W^T and U^T K_U U. */
  readonly D: Float64Array;
  /** C = (|U|^2 - |W|^2) / 2, and the sum of the sizes of what each hidden unit adds to it. */
  readonly charge: number;
  readonly chargeSize: number;
  /** Tr S_U = Tr W Gamma_W W^T and Tr S_W = Tr U^T Gamma_U U: the noise of both layers. */
  readonly noise: { readonly U: number; readonly W: number };
  /** 1 / tau_2 of the slowest mode, 4 sigma^2 a b / (a + b) + 4 gamma, a and b the least eigenvalues of the Gammas. */
  readonly rate: number;
  /**
   * Relative size of what the equilibrium neglects at finite eta: the loss of the fluctuating product beside the label noise where that
   * is least, sigma^2 Tr Sigma / (dy min eig Sigma_eps), and the mean gradients it brings, S |gbar|^2 / Tr Sigma <= eta lambda / 2,
   * where lambda = 2 |Sigma_x| (|U|^2 + |W|^2) bounds the Hessian (spectral norms).
   */
  readonly neglected: number;
}

/** Iterations of the product that decay leaves. */
const ITERATIONS = 500;

/**
 * The noise equilibrium with decay: W K_W W^T = U^T K_U U (eq. 15) at the product M = V + E that the mean drift leaves at rest,
 *
 *   U U^T G + G W^T W = -4 gamma M,   G = 2 E Sigma_x,   K = sigma^2 Gamma(E) + 2 gamma I
 *
 * solved by turns; without decay M = V.
 *
 * @throws NoetherflowError "range" where decay leaves no such product
 * @source Ziyin et al., arXiv:2402.07193, eqs. 9 and 15; theory.md, 9 and E26
 */
export function restOf(
  engine: Engine,
  teacher: Teacher,
  h: number,
  { eta, S, gamma }: { readonly eta: number; readonly S: number; readonly gamma: number },
): Rest {
  const { dense, twoLayer } = engine;
  const { V, SigmaX, SigmaEps } = teacher;
  const sigma2 = noiseStrength(eta, S);
  const inverse = dense.inverse(SigmaX);
  let error = dense.scale(V, 0);
  for (let i = 0; i < ITERATIONS; i++) {
    const product = dense.add(V, error);
    const gammas = twoLayer.gammas({ SigmaX, SigmaEps, error });
    const { U, W, D } = twoLayer.balanced({ V: product, h, sigma2, gamma, ...gammas });
    const pull = sylvester(
      engine,
      gram(engine, U, true),
      gram(engine, W, false),
      dense.scale(product, -4 * gamma),
    );
    const next = dense.scale(dense.matmul(pull, inverse), 0.5);
    const moved = dense.frobenius(dense.sub(next, error));
    error = next;
    if (moved <= 1e-13 * dense.frobenius(V)) {
      const { GammaU, GammaW } = gammas;
      const decay = (n: number) => dense.scale(dense.identity(n), 2 * gamma);
      const noise = {
        U: dense.trace(dense.matmul(GammaW, gram(engine, W, false))),
        W: dense.trace(dense.matmul(GammaU, gram(engine, U, true))),
      };
      const [a, b] = [leastEigenvalue(engine, GammaW), leastEigenvalue(engine, GammaU)];
      return {
        U,
        W,
        product,
        D,
        KU: dense.add(dense.scale(GammaU, sigma2), decay(U.rows)),
        KW: dense.add(dense.scale(GammaW, sigma2), decay(W.cols)),
        ...chargesOf(U, W),
        noise,
        rate: (4 * sigma2 * a * b) / (a + b) + 4 * gamma,
        neglected:
          (sigma2 * (noise.U + noise.W)) / (V.rows * leastEigenvalue(engine, SigmaEps)) +
          0.5 * eta * curvature(engine, teacher, U, W),
      };
    }
  }
  throw new NoetherflowError("range", "restOf", {
    expected: "a weight decay that leaves a product U W at rest",
    got: `gamma = ${gamma}`,
    hint: "Lower gamma, or take a larger V.",
  });
}

/** A A^T, or A^T A. */
function gram({ dense }: Engine, A: Matrix, rows: boolean): Matrix {
  return rows ? dense.matmul(A, dense.transpose(A)) : dense.matmul(dense.transpose(A), A);
}

/** 2 |Sigma_x| (|U|^2 + |W|^2) in spectral norms: the largest eigenvalue of the Hessian at a minimum, or above it. */
export function curvature(engine: Engine, { SigmaX }: Teacher, U: Matrix, W: Matrix): number {
  const top = (A: Matrix): number => engine.dense.symmetricEigen(A).values[0]!;
  return 2 * top(SigmaX) * (top(gram(engine, U, true)) + top(gram(engine, W, true)));
}

function leastEigenvalue({ dense }: Engine, A: Matrix): number {
  return dense.symmetricEigen(A).values[A.rows - 1]!;
}

/** G with A G + G B = R, A and B symmetric. */
function sylvester({ dense }: Engine, A: Matrix, B: Matrix, R: Matrix): Matrix {
  const [left, right] = [dense.symmetricEigen(A), dense.symmetricEigen(B)];
  const turned = dense.matmul(dense.transpose(left.vectors), dense.matmul(R, right.vectors));
  const values = turned.values.map((x, e) => {
    const sum = left.values[Math.floor(e / R.cols)]! + right.values[e % R.cols]!;
    return x === 0 ? 0 : x / sum;
  });
  return dense.matmul(left.vectors, dense.matmul({ ...turned, values }, dense.transpose(right.vectors)));
}

function chargesOf(U: Matrix, W: Matrix): { charge: number; chargeSize: number } {
  const h = U.cols;
  const units = new Float64Array(h);
  for (const [e, x] of U.values.entries()) units[e % h]! += 0.5 * x * x;
  for (const [e, x] of W.values.entries()) units[Math.floor(e / W.cols)]! -= 0.5 * x * x;
  return {
    charge: units.reduce((a, b) => a + b, 0),
    chargeSize: units.reduce((a, b) => a + Math.abs(b), 0),
  };
}

/**
 * A teacher from dx inputs to dy outputs: eigenvalues of both covariances and singular values of V spread evenly over
 * [1 / spread, spread], times varX, varEps and slope, in bases of their own. Spread 1 is isotropic.
 */
export function rectangularTeacher(
  engine: Engine,
  of: {
    readonly dx: number;
    readonly dy: number;
    readonly slope: number;
    readonly varX: number;
    readonly varEps: number;
    readonly spread: number;
  },
  seed: string,
): Teacher {
  const { dense } = engine;
  const { dx, dy, slope, varX, varEps, spread } = of;
  const rotation = (n: number, name: string) => dense.qr(normalMatrix(engine, n, n, `${seed}/${name}`)).Q;
  const scale = (i: number, n: number, offset: number): number => {
    const t = n === 1 ? 0.5 : ((i + offset) % n) / (n - 1);
    return 1 / spread + t * (spread - 1 / spread);
  };
  const turn = (Q: Matrix, D: Matrix, R: Matrix) => dense.matmul(Q, dense.matmul(D, dense.transpose(R)));
  const covariance = (n: number, variance: number, offset: number, name: string) => {
    const Q = rotation(n, name);
    const D = dense.diagonal(Float64Array.from({ length: n }, (_, i) => variance * scale(i, n, offset)));
    return turn(Q, D, Q);
  };
  const rank = Math.min(dx, dy);
  const singular = new Float64Array(dy * dx);
  for (let i = 0; i < rank; i++) singular[i * dx + i] = slope * scale(i, rank, 2);
  return {
    SigmaX: covariance(dx, varX, 0, "x"),
    SigmaEps: covariance(dy, varEps, 1, "eps"),
    V: turn(rotation(dy, "left"), { rows: dy, cols: dx, values: singular }, rotation(dx, "right")),
  };
}

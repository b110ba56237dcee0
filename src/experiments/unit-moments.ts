/**
 * One hidden unit, ell = |u w x - y|^2 with x ~ N(0, varX) in R, y = V x + eps in R^n, eps ~ N(0, varEps I): mean and covariance of
 * theta = (u, w) under SGD, step by step, closed at second order.
 */
export interface UnitTask {
  readonly V: Float64Array;
  readonly varX: number;
  readonly varEps: number;
}

export interface UnitSetting {
  readonly eta: number;
  /** Infinity for gradient descent on the population. */
  readonly S: number;
  readonly gamma: number;
}

/** Mean (u, w) and covariance, row-major. */
interface Moments {
  readonly mean: Float64Array;
  readonly cov: Float64Array;
}

/**
 * Mean and covariance of theta_k. A step does theta' = (1 - 2 eta gamma) theta - eta g, E g = gbar(theta), Cov g = Sigma(theta) / S, with
 * delta = u w - V and J = (w I; u^T):
 *
 *   gbar = 2 varX J delta,   Sigma = 2 gbar gbar^T + 4 varX varEps J J^T
 *
 * Expectations over theta are taken at the 2 P points mean +- sqrt(P) L_i, L L^T = cov, which is exact up to third order: it keeps
 * all of first order in eta (fluctuations of the product, the mean gradients they bring) and neglects third cumulants.
 *
 * @source theory.md, 2.3, 9, 13.3; the points: Julier and Uhlmann 1997
 */
export class UnitLaw {
  readonly #task: UnitTask;
  readonly #setting: UnitSetting;
  #state: Moments;

  /** @param start u, then w */
  constructor(task: UnitTask, setting: UnitSetting, start: Float64Array) {
    this.#task = task;
    this.#setting = setting;
    this.#state = { mean: start.slice(), cov: new Float64Array(start.length * start.length) };
  }

  /** E C = E(|u|^2 - w^2) / 2. */
  get charge(): number {
    const { mean, cov } = this.#state;
    const n = mean.length - 1;
    let sum = 0;
    for (let i = 0; i <= n; i++) sum += (i < n ? 0.5 : -0.5) * (mean[i]! * mean[i]! + cov[i * (n + 2)]!);
    return sum;
  }

  /** Mean of the loss above the label noise, varX |u w - V|^2. */
  get excess(): number {
    const points = sigmaPoints(this.#state);
    const { varX } = this.#task;
    let sum = 0;
    for (const point of points) {
      for (const x of error(this.#task, point)) sum += (varX * x * x) / points.length;
    }
    return sum;
  }

  step(): void {
    const { varX, varEps } = this.#task;
    const { eta, S, gamma } = this.#setting;
    const P = this.#state.mean.length;
    const n = P - 1;
    const points = sigmaPoints(this.#state);
    const weight = 1 / points.length;
    const mean = new Float64Array(P);
    const cov = new Float64Array(P * P);
    const noise = (eta * eta * weight) / S;
    for (const point of points) {
      const w = point[n]!;
      const delta = error(this.#task, point);
      const gradient = new Float64Array(P);
      let square = 0;
      for (let i = 0; i < n; i++) {
        gradient[i] = 2 * varX * w * delta[i]!;
        gradient[n]! += 2 * varX * point[i]! * delta[i]!;
        square += point[i]! * point[i]!;
      }
      const label = 4 * varX * varEps * noise;
      for (let i = 0; i < P; i++) {
        for (let j = 0; j < P; j++) cov[i * P + j]! += 2 * noise * gradient[i]! * gradient[j]!;
      }
      for (let i = 0; i < n; i++) {
        cov[i * P + i]! += label * w * w;
        cov[i * P + n]! += label * w * point[i]!;
        cov[n * P + i]! += label * w * point[i]!;
      }
      cov[n * P + n]! += label * square;
      for (let i = 0; i < P; i++) {
        point[i] = (1 - 2 * eta * gamma) * point[i]! - eta * gradient[i]!;
        mean[i]! += weight * point[i]!;
      }
    }
    for (const point of points) {
      for (let i = 0; i < P; i++) {
        for (let j = 0; j < P; j++)
          cov[i * P + j]! += weight * (point[i]! - mean[i]!) * (point[j]! - mean[j]!);
      }
    }
    this.#state = { mean, cov };
  }
}

/** delta = u w - V. */
function error({ V }: UnitTask, theta: Float64Array): Float64Array {
  const w = theta[theta.length - 1]!;
  return V.map((v, i) => theta[i]! * w - v);
}

/** mean +- sqrt(P) L_i. */
function sigmaPoints({ mean, cov }: Moments): Float64Array[] {
  const P = mean.length;
  const L = factor(cov, P);
  const root = Math.sqrt(P);
  return Array.from({ length: 2 * P }, (_, k) => {
    const [column, sign] = [k >> 1, k % 2 === 0 ? root : -root];
    return mean.map((x, i) => x + sign * L[i * P + column]!);
  });
}

/** L with L L^T = A, A positive semidefinite: a pivot that is rounding counts as 0. */
function factor(A: Float64Array, P: number): Float64Array {
  const L = new Float64Array(P * P);
  for (let j = 0; j < P; j++) {
    let pivot = A[j * P + j]!;
    for (let k = 0; k < j; k++) pivot -= L[j * P + k]! * L[j * P + k]!;
    if (!(pivot > 1e-14 * A[j * P + j]!)) continue;
    const root = Math.sqrt(pivot);
    L[j * P + j] = root;
    for (let i = j + 1; i < P; i++) {
      let x = A[i * P + j]!;
      for (let k = 0; k < j; k++) x -= L[i * P + k]! * L[j * P + k]!;
      L[i * P + j] = x / root;
    }
  }
  return L;
}

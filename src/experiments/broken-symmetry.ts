import { log } from "../core/elementary.ts";
import { type Model, model } from "../graph/model.ts";
import { ops } from "../graph/ops.ts";

/**
 * (u w - y)^2 + (zeta / 2) |theta - center|^2 with y = slope + noise of standard deviation noiseSd: the first term has the rescaling
 * symmetry of u and w, the second has none and no noise.
 */
export interface Broken {
  readonly zeta: number;
  readonly center: Point;
  readonly slope: number;
  readonly noiseSd: number;
}

export interface Point {
  readonly u: number;
  readonly w: number;
}

export function brokenModel({ zeta, center }: Broken): Model {
  return model({
    params: { u: [1], w: [1] },
    inputs: { y: [1] },
    loss: ({ u, w, y }) => {
      const away = ops.add(ops.square(ops.sub(u, center.u)), ops.square(ops.sub(w, center.w)));
      return ops.add(ops.sqnorm(ops.sub(ops.mul(u, w), y)), ops.sum(ops.scale(away, zeta / 2)));
    },
  });
}

/** Nodes and weights of E f(N(0, 1)) that are exact to degree 7. */
const NODES = [-2.334414218338977, -0.7419637843027259, 0.7419637843027259, 2.334414218338977];
const WEIGHTS = [0.04587585476806849, 0.4541241452319315, 0.4541241452319315, 0.04587585476806849];

/** Mean and covariance of theta after some steps. */
export interface Moments {
  readonly u: number;
  readonly w: number;
  readonly uu: number;
  readonly uw: number;
  readonly ww: number;
}

/** E C = E (u^2 - w^2) / 2. */
export const chargeOf = ({ u, w, uu, ww }: Moments): number => 0.5 * (u * u + uu - w * w - ww);

/**
 * One step of SGD for the mean and covariance of theta, closed at second order: the polynomial step averaged over a normal law of
 * theta, exactly, and the noise 4 eta^2 s^2 / S E[(w, u) (w, u)^T].
 */
function advance({ zeta, center, slope, noiseSd }: Broken, eta: number, S: number, at: Moments): Moments {
  // theta = mean + L n, L L^T the covariance
  const l11 = Math.sqrt(Math.max(0, at.uu));
  const l21 = l11 > 0 ? at.uw / l11 : 0;
  const l22 = Math.sqrt(Math.max(0, at.ww - l21 * l21));
  let [mu, mw, uu, uw, ww] = [0, 0, 0, 0, 0];
  for (const [i, a] of NODES.entries()) {
    for (const [j, b] of NODES.entries()) {
      const p = WEIGHTS[i]! * WEIGHTS[j]!;
      const u = at.u + l11 * a;
      const w = at.w + l21 * a + l22 * b;
      const pull = 2 * (u * w - slope);
      const nextU = u - eta * (pull * w + zeta * (u - center.u));
      const nextW = w - eta * (pull * u + zeta * (w - center.w));
      mu += p * nextU;
      mw += p * nextW;
      uu += p * nextU * nextU;
      uw += p * nextU * nextW;
      ww += p * nextW * nextW;
    }
  }
  const noise = (4 * eta * eta * noiseSd * noiseSd) / S;
  return {
    u: mu,
    w: mw,
    uu: uu - mu * mu + noise * (at.w * at.w + at.ww),
    uw: uw - mu * mw + noise * (at.u * at.w + at.uw),
    ww: ww - mw * mw + noise * (at.u * at.u + at.uu),
  };
}

/** The law of C along SGD. */
export interface Law {
  /** E C at every step. */
  readonly charge: Float64Array;
  /**
   * What the closure neglects: third moments of theta, which change the rates of C by the square of the relative variance of v = u w
   * (the largest on the way). Over the e-foldings that C falls by, (1 + ln C(0)/C) of itself.
   */
  readonly neglected: number;
}

/** E C from a start without spread, by mean and covariance, step by step. */
export function lawOf(broken: Broken, eta: number, S: number, steps: number, start: Point): Law {
  const charge = new Float64Array(steps + 1);
  let at: Moments = { ...start, uu: 0, uw: 0, ww: 0 };
  charge[0] = chargeOf(at);
  let worst = 0;
  for (let k = 1; k <= steps; k++) {
    at = advance(broken, eta, S, at);
    charge[k] = chargeOf(at);
    const { u, w, uu, uw, ww } = at;
    const relative = (w * w * uu + 2 * u * w * uw + u * u * ww) / (u * u * w * w);
    worst = Math.max(worst, relative * relative);
  }
  const end = Math.abs(charge[steps]!);
  return { charge, neglected: worst * end * (1 + log(Math.max(1, Math.abs(charge[0]!) / end))) };
}

/**
 * Where both forces on the charge balance at the minimum across the valley, eq. 19: sigma^2 Tr[Sigma A] = zeta theta^T A grad ell_0 and
 * (w, u) . grad L = 0. To leading order in sigma^2. By relaxation: gradient descent with the Noether flow added.
 */
export function balancePoint({ zeta, center, slope, noiseSd }: Broken, sigma2: number, start: Point): Point {
  let { u, w } = start;
  const dt = 0.05 / (4 * (u * u + w * w) + zeta);
  for (let k = 0; k < 2_000_000; k++) {
    const pull = 2 * (u * w - slope);
    const square = u * u + w * w;
    // dC/dt = 4 sigma^2 s^2 (w^2 - u^2), along A theta = (u, -w)
    const along = (4 * sigma2 * noiseSd * noiseSd * (w * w - u * u)) / square;
    const du = -(pull * w + zeta * (u - center.u)) + along * u;
    const dw = -(pull * u + zeta * (w - center.w)) - along * w;
    u += dt * du;
    w += dt * dw;
    if (Math.abs(du) + Math.abs(dw) < 1e-12 * (Math.abs(u) + Math.abs(w))) break;
  }
  return { u, w };
}

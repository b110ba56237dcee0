import { log } from "../core/elementary.ts";

/** Neurons with less than this share of the largest |u_j w_j| do not count: theirs is no output to speak of. */
const COUNTS = 0.01;

/** y = slope x + noise with x ~ N(0, xSd^2), and how long it is learned. */
export interface Data {
  readonly slope: number;
  readonly xSd: number;
  readonly noiseSd: number;
  readonly steps: number;
}

/** Where a run is predicted to be, step by step. */
export interface Path {
  /** -ln of what is left of Q = u u^T - w w^T. */
  readonly decay: Float64Array;
  /** Mean of v = u . w. */
  readonly v: Float64Array;
  /** Variance of `decay` over runs from one start. */
  readonly scatter: number;
  /** Size of what is neglected in `decay`. */
  readonly neglected: number;
}

/**
 * The law of ell = (u . w x - y)^2. With delta the batch mean of d ell / dv, v = u . w, a step is u' = u - eta delta w and
 * w' = w - eta delta u, so that a = u + w and b = u - w keep their directions, and every entry of Q is multiplied by 1 - eta^2 delta^2:
 *
 *   a' = (1 - eta delta) a,   b' = (1 + eta delta) b,   |a| |b| ~ q,   |u|^2 + |w|^2 = sqrt(q^2 + 4 v^2)
 *   E delta^2 = 4 D(v) / S + 4 Var(x)^2 (v - slope)^2,   D(v) = Var(x)^2 (2 (v - slope)^2) + Var(x) Var(noise)
 *
 * closed at the mean and the variance of v. At S = infinity (gradient descent on the population) it is exact.
 *
 * Neglected: moments of v beyond the second, relative (eta m + 4 Var v / m^2)^2 with m = |u|^2 + |w|^2.
 *
 * @source theory.md, 8 (d = 1) and 14(a)
 */
export function lawOfProduct(spec: Data, eta: number, S: number, v0: number, q0: number): Path {
  const { slope, xSd, noiseSd, steps } = spec;
  const x2 = xSd * xSd;
  const isFull = S === Infinity;
  const decay = new Float64Array(steps + 1);
  const path = new Float64Array(steps + 1);
  let [v, s, q, lambda, scatter, neglected] = [v0, 0, q0, 0, 0, 0];
  path[0] = v0;
  for (let k = 0; k < steps; k++) {
    const m = Math.sqrt(q * q + 4 * (v * v + s));
    const e = v - slope;
    const D = 2 * x2 * x2 * (e * e + s) + x2 * noiseSd * noiseSd;
    const square = 4 * x2 * x2 * (e * e + s) + (isFull ? 0 : (4 * D) / S);
    // delta is a mean of S products of normals: kurtosis 3 + 6 / S
    const fourth = isFull ? square * square : (3 + 6 / S) * square * square;
    const gain = eta * eta * square;
    const step = isFull ? -log(1 - gain) : gain + 0.5 * eta * eta * eta * eta * fourth;
    const m1 = m > 0 ? (4 * v) / m : 0;
    const m2 = m > 0 ? 4 / m - (16 * v * v) / (m * m * m) : 0;
    const drift = m * x2 * e + 0.5 * x2 * (m2 * e + 2 * m1) * s;
    const contraction = 1 - 2 * eta * x2 * (m + m1 * e);
    v += gain * v - 2 * eta * drift;
    if (!isFull) {
      s = contraction * contraction * s + (eta * eta * m * m * 4 * D) / S;
      const relative = eta * m * x2 + (4 * s) / (m * m);
      neglected += step * relative * relative;
      scatter += eta * eta * eta * eta * (fourth - square * square);
    }
    lambda += step;
    q *= isFull ? 1 - gain : 1 - step;
    decay[k + 1] = lambda;
    path[k + 1] = v;
  }
  return { decay, v: path, scatter, neglected };
}

/** The start of a replica: squares of the entries of a = u + w and b = u - w over |a|^2 and |b|^2, and their sizes. */
export interface Start {
  readonly a2: Float64Array;
  readonly b2: Float64Array;
  readonly aa: number;
  readonly bb: number;
  readonly ab: number;
}

export function startOf(theta: ArrayLike<number>, h: number, r: number): Start {
  const [a2, b2] = [new Float64Array(h), new Float64Array(h)];
  let [aa, bb, ab] = [0, 0, 0];
  for (let j = 0; j < h; j++) {
    const [u, w] = [theta[2 * h * r + j]!, theta[2 * h * r + h + j]!];
    a2[j] = (u + w) * (u + w);
    b2[j] = (u - w) * (u - w);
    aa += a2[j]!;
    bb += b2[j]!;
    ab += u * u - w * w;
  }
  return { a2: a2.map((x) => x / aa), b2: b2.map((x) => x / bb), aa, bb, ab };
}

/** Do all neurons that count have outputs of one sign? */
export function haveOneSign(outputs: ArrayLike<number>): boolean {
  let [most, least, largest] = [0, 0, 0];
  for (let j = 0; j < outputs.length; j++) largest = Math.max(largest, Math.abs(outputs[j]!));
  for (let j = 0; j < outputs.length; j++) {
    if (Math.abs(outputs[j]!) <= COUNTS * largest) continue;
    most = Math.max(most, outputs[j]!);
    least = Math.min(least, outputs[j]!);
  }
  return most === 0 || least === 0;
}

/** What follows from a start and t = |b|^2 / |a|^2: u_j w_j ~ a_j^2 - t b_j^2 (unit a and b), and the cosine of u and w. */
export function aligned({ a2, b2, aa, bb, ab }: Start, t: number): { oneSign: number; cosine: number } {
  const cosine2 = (ab * ab) / (aa * bb);
  const size = Math.sqrt((1 + t) * (1 + t) - 4 * t * cosine2);
  return {
    oneSign: haveOneSign(a2.map((x, j) => x - t * b2[j]!)) ? 1 : 0,
    cosine: Math.abs(1 - t) / size,
  };
}

/** |b|^2 / |a|^2 from q = |a| |b| and v. */
export function ratioOf(q: number, v: number): number {
  const sum = Math.sqrt(q * q + 4 * v * v);
  // of sum + 2 v and sum - 2 v the one without cancellation
  return v >= 0 ? (q / (sum + 2 * v)) * (q / (sum + 2 * v)) : ((sum - 2 * v) / q) * ((sum - 2 * v) / q);
}

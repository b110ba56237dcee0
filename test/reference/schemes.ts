/**
 * Every scheme as a plain loop, one sample after the other, and the draws they make one at a time. It catches a bias
 * correction that starts at k = 0, decay inside the preconditioner, a velocity updated after theta, weights that do not
 * sum to 1, a schedule off by one step, and draws from the wrong counter.
 */
import { philox, type Words2 } from "./philox.ts";
import { below, meanVector, type SampleGradient } from "./sgd.ts";

/** What a draw is for: the fourth word of its counter. */
const XI = 7;
const BATCH_SECOND = 8;
const EPOCH = 9;

/** The top 52 of the 64 bits low | high << 32, as a fraction in [0, 1). */
const fraction = (low: number, high: number) => (high * 2 ** 20 + (low >>> 12)) / 2 ** 52;

/** xi_n of an update: entry n of the normals with counter (n >> 1, update, replica, purpose); Box-Muller, sine then cosine. */
export function xiOf(key: Words2, replica: number, update: number, n: number): number {
  const words = philox([n >> 1, update, replica, XI], key);
  const radius = Math.sqrt(-2 * Math.log(1 - fraction(words[0], words[1])));
  const angle = 2 * Math.PI * (fraction(words[2], words[3]) - 0.5);
  return radius * (n % 2 === 0 ? Math.sin(angle) : Math.cos(angle));
}

function wordOf(purpose: number, key: Words2, replica: number, i: number): number {
  const block = Math.floor(i / 4);
  const words = philox([block % 2 ** 32, Math.floor(block / 2 ** 32), replica, purpose], key);
  return words[(i % 4) as 0 | 1 | 2 | 3];
}

/** The second batch of an update of SVAG, drawn with replacement. */
export function secondBatch(key: Words2, replica: number, update: number, S: number, N: number): number[] {
  return Array.from({ length: S }, (_, s) => below(wordOf(BATCH_SECOND, key, replica, update * S + s), N));
}

/** The order of the data in an epoch: a Fisher-Yates shuffle of 0 ... N - 1 by N words of its own. */
export function epochOrder(key: Words2, replica: number, epoch: number, N: number): number[] {
  const order = Array.from({ length: N }, (_, n) => n);
  const first = epoch * 4 * Math.ceil(N / 4);
  for (let s = 0; s < N; s++) {
    const other = s + below(wordOf(EPOCH, key, replica, first + s), N - s);
    [order[s], order[other]] = [order[other]!, order[s]!];
  }
  return order;
}

/** The batch of a step of "epochs": batches in the order of the epoch, what is left over at its end dropped. */
export function epochBatch(key: Words2, replica: number, step: number, S: number, N: number): number[] {
  const perEpoch = Math.floor(N / S);
  const at = step % perEpoch;
  return epochOrder(key, replica, Math.floor(step / perEpoch), N).slice(at * S, (at + 1) * S);
}

export type Rule =
  | { kind: "constant" }
  | { kind: "warmup"; steps: number }
  | { kind: "cosine"; steps: number; final?: number; warmup?: number }
  | { kind: "step"; every: number; factor: number; warmup?: number }
  | { kind: "inverse"; steps: number; warmup?: number };

/** eta_k / eta. */
export function factorOf(rule: Rule, k: number): number {
  if (rule.kind === "constant") return 1;
  const warmup = rule.kind === "warmup" ? rule.steps : (rule.warmup ?? 0);
  if (k < warmup) return (k + 1) / warmup;
  const j = k - warmup;
  if (rule.kind === "warmup") return 1;
  if (rule.kind === "step") return rule.factor ** Math.floor(j / rule.every);
  if (rule.kind === "inverse") return 1 / (1 + j / rule.steps);
  const final = rule.final ?? 0;
  return j >= rule.steps ? final : final + ((1 - final) * (1 + Math.cos((Math.PI * j) / rule.steps))) / 2;
}

type Vector = readonly number[];
const sum = (v: Vector) => v.reduce((a, b) => a + b, 0);
const norm = (v: Vector) => Math.sqrt(sum(v.map((x) => x * x)));

/** The gradient of a step, no longer than `most`. */
export const shortened = (g: Vector, most: number): number[] => {
  const length = norm(g);
  return length <= most ? [...g] : g.map((x) => (x * most) / length);
};

export interface Steps {
  readonly theta: Vector;
  readonly eta: (k: number) => number;
  /** gamma of every entry. */
  readonly gamma?: Vector;
  readonly steps: number;
  /** The gradient of step k at theta, decay not included. */
  readonly gradient: (theta: Vector, k: number) => Vector;
}

/** A path with a rule that turns the gradient of step k = 1, 2, ... into a direction. */
function walk(o: Steps, direction: (g: Vector, k: number) => Vector): number[][] {
  const path = [[...o.theta]];
  for (let k = 0; k < o.steps; k++) {
    const theta = path[k]!;
    const d = direction(o.gradient(theta, k), k + 1);
    const eta = o.eta(k);
    path.push(theta.map((x, i) => (1 - 2 * eta * (o.gamma?.[i] ?? 0)) * x - eta * d[i]!));
  }
  return path;
}

/** v' = beta v + g, theta' = (1 - 2 eta gamma) theta - eta v'. */
export function heavyBall(o: Steps & { beta: number }): number[][] {
  let v = o.theta.map(() => 0);
  return walk(o, (g) => {
    v = g.map((x, i) => o.beta * v[i]! + x);
    return v;
  });
}

export function adam(o: Steps & { beta1: number; beta2: number; epsilon: number }): number[][] {
  const { beta1, beta2, epsilon } = o;
  let m = o.theta.map(() => 0);
  let s = o.theta.map(() => 0);
  return walk(o, (g, k) => {
    m = g.map((x, i) => beta1 * m[i]! + (1 - beta1) * x);
    s = g.map((x, i) => beta2 * s[i]! + (1 - beta2) * x * x);
    return m.map((x, i) => x / (1 - beta1 ** k) / (Math.sqrt(s[i]! / (1 - beta2 ** k)) + epsilon));
  });
}

export function rmsprop(o: Steps & { beta2: number; epsilon: number }): number[][] {
  let s = o.theta.map(() => 0);
  return walk(o, (g) => {
    s = g.map((x, i) => o.beta2 * s[i]! + (1 - o.beta2) * x * x);
    return g.map((x, i) => x / (Math.sqrt(s[i]!) + o.epsilon));
  });
}

/** w_n = 1/N + c (xi_n - mean xi), c = sqrt(2 sigma^2 / (N dt)). */
export function weightsOf(xi: Vector, sigma2: number, dt: number): number[] {
  const N = xi.length;
  const mean = sum(xi) / N;
  const c = Math.sqrt((2 * sigma2) / (N * dt));
  return xi.map((x) => 1 / N + c * (x - mean));
}

/** Sum of w_n g_n over all samples. */
export function weighted(gradient: SampleGradient, theta: Vector, weights: Vector): number[] {
  const all = weights.map((w, n) => gradient(theta, n).map((g) => w * g));
  return meanVector(all).map((x) => x * weights.length);
}

/** a g1 + b g2 with a, b = (1 +- sqrt(2 l - 1)) / 2. */
export function svagDirection(g1: Vector, g2: Vector, l: number): number[] {
  const root = Math.sqrt(2 * l - 1);
  return g1.map((x, i) => ((1 + root) / 2) * x + ((1 - root) / 2) * g2[i]!);
}

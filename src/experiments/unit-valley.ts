import { exp } from "../core/elementary.ts";
import type { Engine } from "../engine.ts";
import { noiseStrength } from "../symmetry/predictions/noise.ts";
import type { Teacher } from "./linear-net.ts";
import type { UnitSetting, UnitTask } from "./unit-moments.ts";

/** What the recursion neglects. */
export const NEGLECTS = "third cumulants of θ, relative (η Σx (|u|² + w²)(1 + 2/S)/2 + 8σ² Σε/(|u|² + w²))²";

/** A teacher of one input. */
export function teacherOf(engine: Engine, { V, varX, varEps }: UnitTask): Teacher {
  const { dense } = engine;
  return {
    V: { rows: V.length, cols: 1, values: V },
    SigmaX: dense.diagonal([varX]),
    SigmaEps: dense.scale(dense.identity(V.length), varEps),
  };
}

/** (u, w) with u w = V and the charge C: |u|^2 = C + sqrt(C^2 + |V|^2), w^2 = |u|^2 - 2 C. */
export function onValley({ V }: UnitTask, C: number): Float64Array {
  const v2 = V.reduce((sum, x) => sum + x * x, 0);
  const root = Math.sqrt(C * C + v2);
  // the larger of the two first: no cancellation
  const w2 = C > 0 ? v2 / (root + C) : root - C;
  const w = Math.sqrt(w2);
  return Float64Array.from([...V.map((x) => x / w), w]);
}

/** (|u|^2 + w^2) / 2 on the valley. */
export function sizeAt({ V }: UnitTask, C: number): number {
  return Math.sqrt(C * C + V.reduce((sum, x) => sum + x * x, 0));
}

/** Steps in which C - C_end falls to 1/e by dC/dt = 4 sigma^2 varX varEps (n w^2 - |u|^2) on the valley. */
export function decayTime(task: UnitTask, { eta, S }: UnitSetting, start: number): number {
  const n = task.V.length;
  const rate = (C: number) => (n - 1) * sizeAt(task, C) - (n + 1) * C;
  // n w^2 = |u|^2 where (n - 1) size = (n + 1) C
  const end = ((n - 1) / (2 * Math.sqrt(n))) * sizeAt(task, 0);
  const target = end + exp(-1) * (start - end);
  const count = 400;
  let time = 0;
  for (let i = 0; i < count; i++)
    time += (target - start) / count / rate(start + ((i + 0.5) / count) * (target - start));
  return time / (4 * noiseStrength(eta, S) * task.varX * task.varEps * eta);
}

/**
 * Relative size of third cumulants at charges between the two: the square of that of the second, the mean gradients that a fluctuating
 * product brings and its variance, eta Sigma_x (|u|^2 + w^2) (1 + 2/S) / 2 + 8 sigma^2 Sigma_eps / (|u|^2 + w^2).
 */
export function neglectedBy(task: UnitTask, { eta, S }: UnitSetting, from: number, to: number): number {
  const [one, other] = [sizeAt(task, from), sizeAt(task, to)];
  const least = from * to <= 0 ? sizeAt(task, 0) : Math.min(one, other);
  const relative =
    eta * task.varX * Math.max(one, other) * (1 + 2 / S) + (2 * eta * task.varEps) / (S * least);
  return relative * relative;
}

/** A start with |u| = |w| = sqrt |V|, u at an angle to V. */
export function offValley({ V }: UnitTask, cosine: number): Float64Array {
  const n = V.length;
  const length = Math.sqrt(V.reduce((sum, x) => sum + x * x, 0));
  const size = Math.sqrt(length);
  // a unit vector across V: (1, -1, 0, ...) where there is room for one
  const across = Float64Array.from(V, (_, i) =>
    n === 1 || i > 1 ? 0 : i === 0 ? Math.SQRT1_2 : -Math.SQRT1_2,
  );
  const sine = Math.sqrt(1 - cosine * cosine);
  return Float64Array.from([...V.map((x, i) => size * ((cosine * x) / length + sine * across[i]!)), size]);
}

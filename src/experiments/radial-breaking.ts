import { exp } from "../core/elementary.ts";
import type { Engine } from "../engine.ts";
import { model } from "../graph/model.ts";
import { ops } from "../graph/ops.ts";
import { sampler } from "../graph/sampler.ts";
import { symmetry } from "../symmetry/generator.ts";
import { largeBreakingShift } from "../symmetry/predictions/breaking.ts";
import { noiseStrength } from "../symmetry/predictions/noise.ts";
import { overReplicas, type Trial } from "./trial.ts";

/** What the model with A = I and A = -I takes of its experiment. */
export interface RadialSpec {
  readonly d: number;
  readonly radius: number;
  readonly eta: number;
  readonly times: number;
  readonly replicas: number;
}

/** A point of the figure: the paper's shift, and the measured and predicted ones. */
export interface RadialShift {
  readonly x: number;
  readonly y: number;
  readonly error: number;
  readonly predicted: number;
}

/**
 * A = I and A = -I: ell = xi . theta / |theta| + zeta (r - r0)^2 / 2, r = |theta|, xi ~ N(0, I). The noise of its gradient,
 * (I - theta theta^T / r^2) xi / r, is at right angles to theta, so a step does exactly
 *
 *   r'^2 = (r - eta zeta (r - r0))^2 + eta^2 |xi_perp|^2 / r^2,   E |xi_perp|^2 = (d - 1) / S
 *
 * and r rests where its mean change is 0. Neglected: the variance of r, relative (d - 1) sigma^2 eta / r^4 at most.
 */
export async function radial(
  trial: Trial,
  engine: Engine,
  spec: RadialSpec,
  zeta: number,
  S: number,
): Promise<RadialShift> {
  const { d, radius, eta } = spec;
  const net = model({
    params: { theta: [d] },
    inputs: { xi: [d] },
    loss: ({ theta, xi }) => {
      const r = ops.norm(theta);
      const noise = ops.div(ops.matmul(xi, theta), r);
      return ops.add(noise, ops.scale(ops.square(ops.sub(r, radius)), 0.5 * zeta));
    },
  });
  const problem = engine.problem(
    net,
    sampler({ noise: { z: { kind: "normal", shape: [d] } }, outputs: ({ z }) => ({ xi: z! }) }),
  );
  const theta = new Float64Array(d);
  theta[0] = radius;
  const steps = Math.ceil(spec.times / (zeta * eta));
  const run = await trial.run(
    `A = ±I, ζ = ${zeta}, S = ${S}`,
    problem,
    {
      scheme: "sgd",
      batchSize: S,
      theta,
      eta,
      steps,
      replicas: spec.replicas,
      record: {
        every: steps,
        charges: { C: symmetry.blockScaling({ theta: 1 }), D: symmetry.blockScaling({ theta: -1 }) },
        average: { from: Math.floor(0.1 * steps) + 1, every: 1 },
      },
    },
    S,
  );
  problem.dispose();
  const sigma2 = noiseStrength(eta, S);
  const atRest = 0.5 * radius * radius;
  const noise = (d - 1) / (radius * radius);
  const paper = largeBreakingShift({ sigma2: 1, noise, h: zeta }).charge;
  const r = restingRadius(spec, zeta, S);
  const value = (0.5 * r * r - atRest) / sigma2;
  const relative = (((d - 1) * sigma2) / (radius * radius * radius * radius)) * eta;
  const neglects = "the variance of the radius, relative (d − 1) σ² η / r⁴; and the start, e^(−t/τ)/t";
  const early = exp(-0.1 * spec.times) / (0.9 * spec.times);
  const modelError = (relative + early) * value;
  for (const [sign, name] of [[1, "C"] as const, [-1, "D"] as const]) {
    trial.row(
      {
        setting: `A = ${sign > 0 ? "" : "−"}I, d = ${d}, ζ = ${zeta}, S = ${S}`,
        quantity: `(⟨C⟩ − C*)/σ²; eq. 23: ${(sign * paper).toPrecision(3)}`,
      },
      { value: sign * value, modelError, neglects },
      overReplicas(run, (i) => (run.averages!.charges[name]![i]! - sign * atRest) / sigma2),
    );
  }
  const shift = overReplicas(run, (i) => run.averages!.charges["C"]![i]! - atRest);
  return { x: sigma2 * paper, y: shift.value, error: shift.stdErr, predicted: value * sigma2 };
}

/** Root of (r - eta zeta (r - r0))^2 + eta^2 (d - 1) / (S r^2) = r^2 by bisection. */
function restingRadius({ d, radius, eta }: RadialSpec, zeta: number, S: number): number {
  const rises = (r: number): boolean => {
    const inward = r - eta * zeta * (r - radius);
    return inward * inward + (eta * eta * (d - 1)) / (S * r * r) > r * r;
  };
  let [low, high] = [radius, 2 * radius];
  while (rises(high)) high *= 2;
  for (let i = 0; i < 200; i++) {
    const middle = 0.5 * (low + high);
    if (rises(middle)) low = middle;
    else high = middle;
  }
  return low;
}

import { exp } from "../core/elementary.ts";
import { norm } from "../stats/operator.ts";
import { type Equilibrium, MU_FLOOR } from "./equilibrium.ts";
import type { Drift } from "./flow.ts";
import type { Fitted } from "./generator.ts";
import type { Spectrum } from "./spectrum.ts";

/**
 * The field A (theta - c) + b by what it does: it turns and scales about `center` where A acts, and translates by `drift`
 * where it does not.
 */
export interface Motion {
  readonly spectrum: Spectrum;
  /** c - A^+ b, where the field is 0 as far as A reaches; null at 0. */
  readonly center: Float64Array | null;
  /** b less its part in the range of A; null where nothing is left. */
  readonly drift: Float64Array | null;
  /** The charge less 1/2 (theta - center)^T A (theta - center) + drift . theta: b_A . c - 1/2 b^T A^+ b, b_A the part in the range. */
  readonly constant: number;
}

/** A part of a vector this small beside it is rounding. */
const ROUNDING = 1e-12;

/** @param spectrum of A */
export function motionOf({ center, translation: b }: Fitted, spectrum: Spectrum): Motion {
  if (b === null) return { spectrum, center, drift: null, constant: 0 };
  const { mu } = spectrum;
  const least = MU_FLOOR * mu.reduce((m, x) => Math.max(m, Math.abs(x)), 0);
  const size = norm(b);
  const along = spectrum.coordinates(b).map((x, i) => (Math.abs(mu[i]!) > least ? x : 0));
  if (!along.some((x) => Math.abs(x) > ROUNDING * size)) return { spectrum, center, drift: b, constant: 0 };
  const zero = new Float64Array(b.length);
  const back = spectrum.vector(
    along.map((x, i) => (x === 0 ? 0 : x / mu[i]!)),
    zero,
  );
  const inside = spectrum.vector(along, zero);
  const rest = b.map((x, i) => x - inside[i]!);
  const largest = Math.max(norm(back), center === null ? 0 : norm(center));
  const moved = back.map((x, i) => {
    const sum = (center === null ? 0 : center[i]!) - x;
    return Math.abs(sum) <= ROUNDING * largest ? 0 : sum;
  });
  let constant = 0;
  for (const [i, x] of along.entries()) if (x !== 0) constant -= (0.5 * x * x) / mu[i]!;
  if (center !== null) for (const [i, x] of inside.entries()) constant += x * center[i]!;
  return {
    spectrum,
    center: moved.some((x) => x !== 0) ? moved : null,
    drift: norm(rest) > ROUNDING * size ? rest : null,
    constant,
  };
}

/** theta - center. */
export function fromCenter({ center }: Motion, theta: Float64Array): Float64Array {
  return center === null ? theta : theta.map((x, i) => x - center[i]!);
}

/**
 * theta moved along the field for a time lambda: e^(lambda A) (theta - center) + center + lambda drift, without forming the
 * exponential of a P x P matrix.
 */
export function transformed(motion: Motion, theta: Float64Array, lambda: number): Float64Array {
  const { spectrum, center, drift } = motion;
  const from = fromCenter(motion, theta);
  const { mu } = spectrum;
  const moved = spectrum
    .coordinates(from)
    .map((x, i) => (mu[i] === 0 || x === 0 ? x : x * exp(lambda * mu[i]!)));
  const out = spectrum.vector(moved, from);
  if (center !== null) for (const [i, x] of center.entries()) out[i] = out[i]! + x;
  if (drift !== null) for (const [i, x] of drift.entries()) out[i] = out[i]! + lambda * x;
  return out;
}

/** What a translation adds to the flow at a point of its orbit, -2 gamma b . theta there. */
export function driftFlow({ decaying, decayingSquared }: Drift, gamma: number, lambda: number): number {
  return -2 * gamma * (decaying + lambda * decayingSquared) + 0; // no -0
}

/** What a translation adds to the charge 1/2 sum_i mu_i q_i at a point of its orbit. */
export function driftCharge({ constant, theta, squared }: Drift, lambda: number): number {
  return constant + theta + (squared === 0 ? 0 : lambda * squared);
}

/**
 * The equilibrium of a field that translates too, from that of its eigen-directions. Without decay a translation adds
 * nothing to the flow, only to the charge and to |J|^2; with decay it must be alone, and then f(lambda) =
 * -2 gamma b . (theta + lambda b) has one root, lambda* = -b . theta / |b|^2.
 *
 * @param at of the eigen-directions; "flat" where there are none
 */
export function equilibriumWith(drift: Drift | null, at: Equilibrium, gamma: number): Equilibrium {
  if (drift === null) return at;
  const { squared, decaying, decayingSquared } = drift;
  const charge0 = at.charge0 + driftCharge(drift, 0);
  if (gamma > 0 && decayingSquared > 0) {
    const lambda = -decaying / decayingSquared + 0; // no -0
    const slope = -2 * gamma * decayingSquared;
    const flow0 = driftFlow(drift, gamma, 0);
    const charge = driftCharge(drift, lambda);
    return {
      status: "finite",
      lambda,
      flow0,
      slope,
      charge0,
      charge,
      rate: -slope / squared,
      iterations: 0,
      residual: 0,
    };
  }
  const field = at.rate === Infinity || at.rate === 0 ? 0 : -at.slope / at.rate;
  return {
    ...at,
    charge0,
    charge: at.charge + driftCharge(drift, at.lambda),
    rate: at.status === "finite" && squared > 0 ? -at.slope / (field + squared) : at.rate,
  };
}

import { exp } from "../core/elementary.ts";
import type { Key } from "../core/key.ts";
import { fail } from "../errors.ts";
import { jacobianVector, losses, meanGradient } from "../models/derivatives.ts";
import type { Measure } from "../models/measure.ts";
import { rawTerms, squaredNorm } from "../stats/noise.ts";
import { dot, norm } from "../stats/operator.ts";
import { probes } from "../stats/probes.ts";
import { actionOn } from "./action.ts";
import type { Generator } from "./generator.ts";
import type { Spectrum } from "./spectrum.ts";

/** How far a field is from being a symmetry. */
export interface SymmetryCheck {
  readonly verdict: "exact" | "approximate" | "none";
  /** max over samples and thetas of |g_n . J| / (|g_n| |J|), J = A (theta - c): a cosine. */
  readonly defect: number;
  /** The same for the loss under the finite transformation: max |change of ell| / (|ell| + |g| |J|). */
  readonly finiteDefect: number;
}

/** Up to here a defect is rounding. */
const EXACT = { f64: 1e-10, f32: 1e-4 };
const APPROXIMATE = 0.05;
const THETAS = 3;
/** The finite transformation moves the fastest direction by this factor's logarithm. */
const FINITE = 0.25;

/** theta moved along the orbit of A: e^(lambda A) (theta - c) + c, without forming the exponential of a P x P matrix. */
export function transformed(
  spectrum: Spectrum,
  theta: Float64Array,
  lambda: number,
  center: Float64Array | null,
): Float64Array {
  const from = center === null ? theta : theta.map((x, i) => x - center[i]!);
  const { mu } = spectrum;
  const moved = spectrum.coordinates(from).map((x, i) => (mu[i] === 0 ? x : x * exp(lambda * mu[i]!)));
  const out = spectrum.vector(moved, from);
  if (center !== null) for (let i = 0; i < out.length; i++) out[i] = out[i]! + center[i]!;
  return out;
}

/** A (theta - c). */
export function fieldOf(where: string, measure: Measure, A: Generator, theta: Float64Array): Float64Array {
  const { center } = A;
  const from = center === null ? theta : theta.map((x, i) => x - center[i]!);
  return actionOn(where, measure.model, A, from);
}

/**
 * Is A a symmetry of the loss of every sample? Checked at standard normal thetas (and one given), first
 * the derivative along A (theta - c), then the loss under e^(lambda A). For losses with batch ops "sample" is the
 * whole batch.
 *
 * @param spectrum of A; null for an A that is not symmetric, where the derivative alone is looked at
 * @cost two passes over the samples per theta for the derivative, two for the finite transformation
 */
export function checkSymmetry(
  measure: Measure,
  A: Generator,
  spectrum: Spectrum | null,
  key: Key,
  given: Float64Array | null,
): SymmetryCheck {
  const { host, P, samples } = measure;
  const normals = probes(host, key, "normals", P, 0, THETAS);
  const thetas: Float64Array[] = Array.from({ length: THETAS }, (_, k) => normals.slice(k * P, (k + 1) * P));
  if (given !== null) thetas.push(given);
  const fastest = spectrum?.mu.reduce((m, x) => Math.max(m, Math.abs(x)), 0) ?? 0;
  let defect = 0;
  let finiteDefect = 0;
  // a theta outside the domain of the loss (a root or logarithm of a negative number) says nothing
  let counted = 0;
  for (const theta of thetas) {
    const J = fieldOf("checkSymmetry", measure, A, theta);
    const length = norm(J);
    if (length === 0) continue;
    // |g| and g . J of every sample, or of the batch
    let sizes: ArrayLike<number>;
    let along: ArrayLike<number>;
    if (samples.coupled) {
      const g = meanGradient(measure, theta);
      sizes = [norm(g)];
      along = [dot(g, J)];
    } else {
      sizes = rawTerms(measure, "squared norm", theta, squaredNorm(measure)).map(Math.sqrt);
      along = jacobianVector(measure, theta, J);
    }
    for (let n = 0; n < along.length; n++) {
      if (!Number.isFinite(sizes[n]!) || !Number.isFinite(along[n]!)) continue;
      counted++;
      if (sizes[n]! > 0) defect = Math.max(defect, Math.abs(along[n]!) / (sizes[n]! * length));
    }
    if (spectrum === null || fastest === 0) continue;
    const before = losses(measure, theta);
    for (const lambda of [FINITE / fastest, -FINITE / fastest]) {
      const after = losses(measure, transformed(spectrum, theta, lambda, A.center));
      for (let n = 0; n < before.length; n++) {
        const size = Math.abs(before[n]!) + (sizes[samples.coupled ? 0 : n] ?? 0) * length;
        if (!Number.isFinite(size)) continue;
        // a transformation that leaves the domain of the loss keeps no loss
        const change = Number.isFinite(after[n]!) ? Math.abs(after[n]! - before[n]!) : Infinity;
        if (change > 0) finiteDefect = Math.max(finiteDefect, change / size);
      }
    }
  }
  const moves = thetas.some((theta) => norm(fieldOf("checkSymmetry", measure, A, theta)) > 0);
  if (counted === 0 && moves)
    fail(
      "nonfinite",
      "checkSymmetry",
      "the gradient of some sample must be finite at a random theta, or at the one given",
      "none that is",
      "Pass a { theta } in the domain of the loss.",
    );
  const worst = Math.max(defect, finiteDefect);
  const exact = EXACT[host.core.dtype];
  return {
    verdict:
      defect <= exact && finiteDefect <= 10 * exact ? "exact" : worst <= APPROXIMATE ? "approximate" : "none",
    defect,
    finiteDefect,
  };
}

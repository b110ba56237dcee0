import type { Key } from "../core/key.ts";
import { fail } from "../errors.ts";
import { jacobianVector, losses, meanGradient } from "../models/derivatives.ts";
import type { Measure } from "../models/measure.ts";
import { rawTerms, squaredNorm } from "../stats/noise.ts";
import { dot, norm } from "../stats/operator.ts";
import { probes } from "../stats/probes.ts";
import { actionOn } from "./action.ts";
import { type Fitted, type Generator, placed } from "./generator.ts";
import { motionOf, transformed } from "./motion.ts";
import type { Spectrum } from "./spectrum.ts";

/** How far a field is from being a symmetry. */
export interface SymmetryCheck {
  /** "exact": a defect of rounding alone; "approximate": up to 0.05; "none" beyond. */
  readonly verdict: "exact" | "approximate" | "none";
  /** max over samples and thetas of |g_n . J| / (|g_n| |J|), J = A (theta - c) + b: a cosine. */
  readonly defect: number;
  /** The same for the loss under the finite transformation: max |change of ell| / (|ell| + |g| |J|). */
  readonly finiteDefect: number;
}

/** Up to here a defect is rounding. */
const EXACT = { f64: 1e-10, f32: 1e-4 };
const APPROXIMATE = 0.05;
const THETAS = 3;
/** The finite transformation moves the fastest direction by this factor's logarithm, and translates by this part of |theta|. */
const FINITE = 0.25;

/** A (theta - c) + b. */
function fieldOf(where: string, measure: Measure, A: Fitted, theta: Float64Array): Float64Array {
  const { center, translation } = A;
  const from = center === null ? theta : theta.map((x, i) => x - center[i]!);
  const linear = actionOn(where, measure.model, A, from);
  return translation === null ? linear : linear.map((x, i) => x + translation[i]!);
}

/** |g_n . v| / (|g_n| |v|) of every sample with a finite gradient (of the batch, for losses with batch ops): the largest. */
export function misalignment(
  measure: Measure,
  theta: Float64Array,
  v: Float64Array,
): { readonly worst: number; readonly counted: number; readonly sizes: ArrayLike<number> } {
  const length = norm(v);
  let sizes: ArrayLike<number>;
  let along: ArrayLike<number>;
  if (measure.samples.coupled) {
    const g = meanGradient(measure, theta);
    sizes = [norm(g)];
    along = [dot(g, v)];
  } else {
    sizes = rawTerms(measure, "squared norm", theta, squaredNorm(measure)).map(Math.sqrt);
    along = jacobianVector(measure, theta, v);
  }
  let [worst, counted] = [0, 0];
  for (let n = 0; n < along.length; n++) {
    if (!Number.isFinite(sizes[n]!) || !Number.isFinite(along[n]!)) continue;
    counted++;
    if (sizes[n]! > 0 && length > 0) worst = Math.max(worst, Math.abs(along[n]!) / (sizes[n]! * length));
  }
  return { worst, counted, sizes };
}

/** What a defect says, where rounding is all that an exact symmetry shows. */
export function verdictOf(dtype: "f64" | "f32", defect: number, finiteDefect = 0): SymmetryCheck["verdict"] {
  const exact = EXACT[dtype];
  if (defect <= exact && finiteDefect <= 10 * exact) return "exact";
  return Math.max(defect, finiteDefect) <= APPROXIMATE ? "approximate" : "none";
}

/**
 * Is A a symmetry of the loss of every sample? Checked at standard normal thetas (and one given), first
 * the derivative along J = A (theta - c) + b, then the loss under the finite transformation. For losses with batch ops
 * "sample" is the whole batch.
 *
 * @param spectrum of A; null for an A that is not symmetric, where the derivative alone is looked at
 * @throws NoetherflowError "unsupported" for a field that is 0 everywhere, "nonfinite" where no gradient is finite
 * @cost two passes over the samples per theta for the derivative, two for the finite transformation
 */
export function checkSymmetry(
  measure: Measure,
  A: Generator,
  spectrum: Spectrum | null,
  key: Key,
  given: Float64Array | null,
  where = "checkSymmetry",
): SymmetryCheck {
  const { host, P, samples } = measure;
  const field = placed(where, measure.model, A);
  const motion = spectrum && motionOf(field, spectrum);
  const normals = probes(host, key, "normals", P, 0, THETAS);
  const thetas: Float64Array[] = Array.from({ length: THETAS }, (_, k) => normals.slice(k * P, (k + 1) * P));
  if (given !== null) thetas.push(given);
  const fastest = spectrum?.mu.reduce((m, x) => Math.max(m, Math.abs(x)), 0) ?? 0;
  const drift = motion?.drift ? norm(motion.drift) : 0;
  let defect = 0;
  let finiteDefect = 0;
  let moves = false;
  // a theta outside the domain of the loss (a root or logarithm of a negative number) says nothing
  let counted = 0;
  for (const theta of thetas) {
    const J = fieldOf(where, measure, field, theta);
    const length = norm(J);
    if (length === 0) continue;
    moves = true;
    const at = misalignment(measure, theta, J);
    counted += at.counted;
    defect = Math.max(defect, at.worst);
    const pace = Math.max(fastest, drift / (norm(theta) || 1));
    if (motion === null || pace === 0) continue;
    const before = losses(measure, theta);
    for (const lambda of [FINITE / pace, -FINITE / pace]) {
      const after = losses(measure, transformed(motion, theta, lambda));
      for (let n = 0; n < before.length; n++) {
        const size = Math.abs(before[n]!) + (at.sizes[samples.coupled ? 0 : n] ?? 0) * length;
        if (!Number.isFinite(size)) continue;
        // a transformation that leaves the domain of the loss keeps no loss
        const change = Number.isFinite(after[n]!) ? Math.abs(after[n]! - before[n]!) : Infinity;
        if (change > 0) finiteDefect = Math.max(finiteDefect, change / size);
      }
    }
  }
  if (!moves)
    fail(
      "unsupported",
      where,
      "expected a field that moves theta",
      `${A.name}, which is 0 everywhere`,
      "Nothing is a symmetry of every loss; give it a matrix or a translation that is not 0.",
    );
  if (counted === 0)
    fail(
      "nonfinite",
      where,
      "the gradient of some sample must be finite at a random theta, or at the one given",
      "none that is",
      "Pass a { theta } in the domain of the loss.",
    );
  return { verdict: verdictOf(host.core.dtype, defect, finiteDefect), defect, finiteDefect };
}

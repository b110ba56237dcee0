import type { ThetaLike } from "../dynamics/theta.ts";
import { checkObject, fail } from "../errors.ts";
import { curvatureGradients, meanGradient, WIDTH } from "../models/derivatives.ts";
import { noiseCovariance } from "../stats/covariance.ts";
import { hessianMatrix } from "../stats/curvature.ts";
import { Dense, type Matrix } from "../stats/dense.ts";
import { type Control, dot, norm, Products } from "../stats/operator.ts";
import { actionOn } from "../symmetry/action.ts";
import type { Generator } from "../symmetry/generator.ts";
import { displacement, type MinimumShift } from "../symmetry/predictions/breaking.ts";
import { lyapunov } from "../symmetry/predictions/stationary.ts";
import { readStrength, type StrengthOptions } from "../symmetry/strength.ts";
import { ProblemEquilibria } from "./equilibria.ts";

/** The most trained parameters: H, Sigma and R are dense. */
const MOST = 500;
/** How near to a minimum theta must be: the Newton step to it, beside |theta| and the width of the fluctuations. */
const NEAR = { f64: 1e-6, f32: 1e-3 };
/** Curvature below this of the largest is none: that of a symmetry along its orbit. */
const FLAT = { f64: 1e-10, f32: 1e-5 };

/** What noise does at a minimum of a loss that breaks the symmetry. */
export abstract class ProblemShift extends ProblemEquilibria {
  /**
   * E[theta] - theta* and E[C] - C(theta*) of the noise about a minimum theta* of L + gamma |theta|^2, to first order in
   * sigma2, everything measured at theta*:
   *
   *   H R + R H = 2 sigma2 Sigma,   delta = -1/2 H^-1 (T : R),   E[C] - C* = (A theta*) . delta + 1/2 Tr[A R]
   *
   * H and T are the second and third derivatives of the loss with decay; T : R = sum_k r_k grad(v_k^T H v_k) over the
   * eigenpairs of R. Finite steps of SGD add a relative O(eta). A need not be a symmetry.
   *
   * @param options { eta, batchSize } or { sigma2 }, weightDecay, sampling; signal, onProgress
   * @returns R (P x P), delta (P values) and the shift of the charge; 0 for entries that are not trained
   * @throws  NoetherflowError "range" where theta is no minimum: a gradient that is not 0, or a direction without curvature
   *          (an unbroken symmetry); "memory" beyond 500 trained parameters
   * @cost    P Hessian-vector products, Sigma, and some 3 P products for T : R; eigenvectors of P x P
   * @source  theory.md, section 11
   * @example
   * const line = model({ params: { w: [1] }, inputs: { x: [1], y: [1] }, loss: ({ w, x, y }) => losses.squared(ops.mul(w, x), y) });
   * const atRest = engine.problem(line, { x: [[1], [1]], y: [[1], [3]] }); // H = 2, Sigma = 4, least at w = 2
   * (await atRest.minimumShift([2], symmetry.scaling("w"), { sigma2: 0.01 })).charge; // 0.01
   */
  async minimumShift(
    theta: ThetaLike,
    A: Generator,
    options: StrengthOptions & Control,
  ): Promise<MinimumShift> {
    const where = "minimumShift";
    const flat = this.checked(where, theta);
    const measure = this.perSample(where);
    const generator = this.fitting(where, A);
    const { signal, onProgress, ...rest } = checkObject(
      where,
      "options { eta, batchSize } or { sigma2 }",
      options,
    ) as typeof options;
    const { sigma2, gamma } = readStrength(where, rest, this.N, ["signal", "onProgress"]);
    this.control(where, { signal, onProgress }, []);
    const { P, model } = this;
    const entries = model.blocks.flatMap(({ trainable, offset, size }) =>
      trainable ? Array.from({ length: size }, (_, e) => offset + e) : [],
    );
    const n = entries.length;
    if (n === 0) fail("unsupported", where, "expected parameters that are trained", "none");
    if (n > MOST)
      fail("memory", where, `at most ${MOST} trained parameters, since matrices of them are dense`, `${n}`);
    const { dtype } = this.host.core;
    const picked = (matrix: ArrayLike<number>): Matrix => ({
      rows: n,
      cols: n,
      values: Float64Array.from({ length: n * n }, (_, e) => {
        const [i, j] = [entries[Math.floor(e / n)]!, entries[e % n]!];
        return 0.5 * (matrix[i * P + j]! + matrix[j * P + i]!);
      }),
    });
    const spread = (values: ArrayLike<number>): Float64Array => {
      const out = new Float64Array(P);
      for (const [i, e] of entries.entries()) out[e] = values[i]!;
      return out;
    };
    const letGo = measure.hold();
    try {
      // H, then T : R
      const seen = (done: number) => onProgress?.({ done, total: 2 * n });
      const half = {
        signal,
        onProgress: (p: { done: number; total: number }) => seen((p.done / p.total) * n),
      };
      const H = picked(await hessianMatrix(measure, flat, half));
      for (let i = 0; i < n; i++) H.values[i * n + i]! += 2 * gamma;
      const dense = new Dense(this.host);
      const { values: h } = dense.symmetricEigen(H);
      if (!(h[n - 1]! > FLAT[dtype] * h[0]!))
        fail(
          "range",
          where,
          "expected a minimum, with a Hessian that is positive definite",
          `eigenvalues from ${brief(h[n - 1]!)} to ${brief(h[0]!)}`,
          h[n - 1]! < -FLAT[dtype] * Math.abs(h[0]!)
            ? "The loss falls from here: run gradient descent to its end first."
            : "Along the orbit of a symmetry that nothing breaks there is no curvature: its noise equilibrium is what equilibrium() gives.",
        );
      const Sigma = picked(await noiseCovariance(measure, flat, this.N, { signal }));
      const { R } = lyapunov(where, dense, H, Sigma, sigma2, 0);
      const mean = meanGradient(measure, flat);
      const slope = entries.map((e) => mean[e]! + 2 * gamma * flat[e]!);
      const step = norm(dense.solve(H, { rows: n, cols: 1, values: Float64Array.from(slope) }).values);
      const size = norm(flat) + Math.sqrt(dense.trace(R));
      if (!(step <= NEAR[dtype] * size))
        fail(
          "range",
          where,
          `expected a minimum of the loss${gamma > 0 ? " with decay" : ""}, where the gradient is 0`,
          `|gbar| = ${brief(norm(Float64Array.from(slope)))}, ${brief(step)} away from it where |theta| = ${brief(norm(flat))}`,
          'Run simulate({ scheme: "gd", ... }) to its end and pass its theta.',
        );
      const { values: r, vectors: V } = dense.symmetricEigen(R);
      const bend = new Float64Array(n);
      const vectors = new Float64Array(n * P);
      for (let k = 0; k < n; k++) vectors.set(spread(entries.map((_, i) => V.values[i * n + k]!)), k * P);
      const thirds = new Products(
        where,
        { size: P, width: WIDTH, apply: (v, count) => curvatureGradients(measure, flat, v, count) },
        n,
        { signal, onProgress: (p) => seen(n + p.done) },
      );
      const made = await thirds.apply(vectors, n);
      for (let k = 0; k < n; k++) {
        for (const [i, e] of entries.entries()) bend[i] = bend[i]! + r[k]! * made[k * P + e]!;
      }
      const delta = spread(displacement(dense, H, bend));
      const { center, translation } = generator;
      const from = center === null ? flat : flat.map((x, i) => x - center[i]!);
      let charge = dot(actionOn(where, model, generator, from), delta);
      if (translation !== null) charge += dot(translation, delta);
      for (let k = 0; k < n; k++) {
        const v = vectors.subarray(k * P, (k + 1) * P);
        charge += 0.5 * r[k]! * dot(v, actionOn(where, model, generator, v));
      }
      const values = new Float64Array(P * P);
      for (const [i, a] of entries.entries())
        for (const [j, b] of entries.entries()) values[a * P + b] = R.values[i * n + j]!;
      return { R: { rows: P, cols: P, values }, delta, charge };
    } finally {
      letGo();
    }
  }
}

/** Three digits, for a message. */
function brief(x: number): string {
  return String(Number(x.toPrecision(3)));
}

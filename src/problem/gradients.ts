import type { RealArray } from "../core/arena.ts";
import type { ThetaLike } from "../dynamics/theta.ts";
import { checkInteger, checkKnown, checkObject, fail, show } from "../errors.ts";
import { MAX_ENTRIES, type Node } from "../graph/node.ts";
import {
  gaussNewtonVectors,
  hessianVectors,
  jacobianVector,
  losses,
  meanGradient,
  meanLoss,
  perSampleGradients,
  perSampleHessianVector,
} from "../models/derivatives.ts";
import type { Measure } from "../models/measure.ts";
import { type Estimate, meanOf } from "../stats/estimate.ts";
import { type FreshOptions, ProblemBase } from "./base.ts";

/** The loss and its derivatives, of all samples and of each. */
export abstract class ProblemGradients extends ProblemBase {
  /**
   * Mean loss L(theta) = (1/N) sum_n ell(theta, x_n), weight decay not included.
   *
   * @returns a number; for fresh samples pass { samples, seed } and get an Estimate
   * @cost    N forward passes
   * @example
   * problem.loss(theta); // 8.560
   * problem.loss(theta, { samples: 1000, seed: 1 }).stdErr; // 0.2305; of 1000 independent draws
   */
  loss(theta: ThetaLike): number;
  loss(theta: ThetaLike, fresh: FreshOptions): Estimate;
  loss(theta: ThetaLike, fresh?: FreshOptions): number | Estimate {
    const flat = this.checked("loss", theta);
    const { measure, drawn } = this.over("loss", fresh);
    // what one batch of coupled samples says about others is not known
    if (drawn && measure.samples.coupled)
      return { value: meanLoss(measure, flat), stdErr: Number.NaN, count: 1, method: "one batch" };
    return drawn
      ? meanOf(losses(measure, flat), this.N === Infinity ? "fresh samples" : "independent draws")
      : meanLoss(measure, flat);
  }

  /**
   * Loss of every sample, N values.
   *
   * @example problem.losses(theta).length; // 32
   */
  losses(theta: ThetaLike, fresh?: FreshOptions): RealArray {
    const flat = this.checked("losses", theta);
    return losses(this.over("losses", fresh).measure, flat);
  }

  /**
   * Gradient of the mean loss, P values, weight decay not included; 0 for untrainable blocks.
   * Fresh samples need { samples, seed } and give the gradient of their mean.
   *
   * @cost N forward and backward passes
   * @example
   * const g = problem.gradient(theta);
   * problem.named(g).U?.length; // 8; U is [2, 4]
   */
  gradient(theta: ThetaLike, fresh?: FreshOptions): RealArray {
    const flat = this.checked("gradient", theta);
    return this.real(meanGradient(this.over("gradient", fresh).measure, flat));
  }

  /**
   * Per-sample gradients g_n = grad ell(theta, x_n), weight decay not included.
   *
   * @param options.rows sample indices; all N when absent
   * @param options.out  where to write them, rows x P values; a new array when absent
   * @returns row-major [rows][P]
   * @throws  NoetherflowError "unsupported" for losses with batch ops and for fresh samples, "range" for
   *          rows that do not exist, "shape" for an `out` of another size
   * @cost    a forward and a backward pass, and P values written, per row
   * @example problem.perSampleGradients(theta, { rows: [0, 31] }).length; // 40; 2 rows of P = 20
   */
  perSampleGradients(
    theta: ThetaLike,
    options: { rows?: ArrayLike<number>; out?: RealArray } = {},
  ): RealArray {
    const where = "perSampleGradients";
    const flat = this.checked(where, theta);
    const measure = this.perSample(where);
    const { rows, out } = this.#rowsAndOut(where, options, measure);
    perSampleGradients(measure, flat, rows, out);
    return out;
  }

  /**
   * Directional derivatives g_n . v of all samples, N values: one forward pass with tangents.
   *
   * @example problem.jacobianVector(theta, theta)[0]; // 2.099; g_0 . theta
   */
  jacobianVector(theta: ThetaLike, v: ThetaLike): RealArray {
    const where = "jacobianVector";
    const flat = this.checked(where, theta);
    return jacobianVector(this.perSample(where), flat, this.vector(where, v));
  }

  /**
   * Hessian-vector product H v of the mean loss, weight decay not included (it adds 2 gamma v).
   *
   * @param v one vector, or several as a flat [count][P] array with `count`
   * @returns as many vectors as were given
   * @cost    about two gradients per vector; several at a time share what does not depend on them
   * @source  Pearlmutter 1994: the tangent of the gradient
   * @example
   * const g = problem.gradient(theta);
   * problem.hessianVector(theta, g).length; // 20
   */
  hessianVector(theta: ThetaLike, v: ThetaLike, options: { count?: number } = {}): RealArray {
    const where = "hessianVector";
    const flat = this.checked(where, theta);
    const measure = this.all(where);
    const { vectors, count } = this.vectorsOf(where, v, options);
    return this.real(hessianVectors(measure, flat, vectors, count));
  }

  /**
   * Per-sample Hessian-vector products H_n v, [rows][P]; options as perSampleGradients.
   *
   * @example problem.perSampleHessianVector(theta, theta, { rows: [3] }).length; // 20; H_3 theta
   */
  perSampleHessianVector(
    theta: ThetaLike,
    v: ThetaLike,
    options: { rows?: ArrayLike<number>; out?: RealArray } = {},
  ): RealArray {
    const where = "perSampleHessianVector";
    const flat = this.checked(where, theta);
    const measure = this.perSample(where);
    const { rows, out } = this.#rowsAndOut(where, options, measure);
    perSampleHessianVector(measure, flat, this.vector(where, v), rows, out);
    return out;
  }

  /**
   * Gauss-Newton product  mean_n J_n^T (d^2 ell / d f^2) J_n v  for a value f of a sample on the way to the
   * loss (for a squared or cross-entropy loss, the output of the network). Positive semidefinite where the
   * loss is convex in f.
   *
   * @param options.of    f as an expression of this model: `({ W, x }) => ops.matmul(W, x)`; it must be part of the loss
   * @param options.count how many vectors v holds, flat [count][P]
   * @cost  as hessianVector
   * @example
   * const f = ({ U, W, x }: Record<string, Expr>) => ops.matmul(U!, ops.matmul(W!, x!));
   * problem.gaussNewtonVector(theta, theta, { of: f }).length; // 20
   */
  gaussNewtonVector(
    theta: ThetaLike,
    v: ThetaLike,
    options: { of: (leaves: Record<string, Node>) => Node; count?: number },
  ): RealArray {
    const where = "gaussNewtonVector";
    const flat = this.checked(where, theta);
    const measure = this.all(where);
    const of = this.expressionOf(where, options?.of);
    const { vectors, count } = this.vectorsOf(where, v, options, ["of", "count"]);
    return this.real(gaussNewtonVectors(measure, of, flat, vectors, count));
  }

  #rowsAndOut(
    where: string,
    options: { rows?: ArrayLike<number>; out?: RealArray },
    measure: Measure,
  ): { rows: ArrayLike<number>; out: RealArray } {
    checkKnown(where, checkObject(where, "options { rows?, out? }", options), ["rows", "out"]);
    if (options.rows !== undefined && !Array.isArray(options.rows) && !ArrayBuffer.isView(options.rows))
      fail("shape", where, "rows is an array of sample indices", show(options.rows));
    const rows = options.rows ?? Array.from({ length: measure.N }, (_, n) => n);
    for (let i = 0; i < rows.length; i++) checkInteger(where, `rows[${i}]`, rows[i], 0, measure.N - 1);
    const size = rows.length * this.P;
    if (size > MAX_ENTRIES)
      fail(
        "memory",
        where,
        `at most ${MAX_ENTRIES} values are made at a time`,
        `${rows.length} x ${this.P}`,
        "Ask for fewer rows.",
      );
    const out = options.out ?? this.host.arena.array(size);
    if (!(out instanceof Float64Array || out instanceof Float32Array))
      fail("shape", where, "out is a Float64Array or Float32Array", show(out));
    if (out.length !== size)
      fail("shape", where, `out holds ${rows.length} x ${this.P} values`, `${out.length} values`);
    return { rows, out };
  }
}

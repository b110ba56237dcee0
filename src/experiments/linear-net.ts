import type { Run } from "../dynamics/result.ts";
import type { Engine } from "../engine.ts";
import { type Model, model } from "../graph/model.ts";
import { ops } from "../graph/ops.ts";
import { type Sampler, sampler } from "../graph/sampler.ts";
import type { Matrix } from "../stats/dense.ts";
import { type Estimate, meanOf } from "../stats/estimate.ts";
import type { Prediction } from "../stats/verdict.ts";
import type { About } from "./trial.ts";

/** A teacher y = V x + eps with Gaussian x and eps of any covariances. */
export interface Teacher {
  readonly V: Matrix;
  readonly SigmaX: Matrix;
  readonly SigmaEps: Matrix;
}

/**
 * What Theorem 2 leaves out. Its balance dQ/dt = 0 leaves the place along the rotations of the hidden units free, which carry no
 * charge. Where V, Sigma_x and Sigma_eps share no axes, fluctuations of U W turn the hidden units steadily at the rate of the balance
 * itself; Q turns with them, its eigenvalues at rest, and sharpness stays some per cent off however small eta is. With
 * eigenvalues spread by 2.8 it is 1.5 % (d = 4, eta -> 0); none with common axes.
 */
export const TURNING = "a steady turn of the hidden units where V, Σx and Σε share no axes, at any η";

/** ell = |U W x - y|^2 with h hidden units. */
export function linearNet(dx: number, h: number, dy: number): Model {
  return model({
    params: { U: [dy, h], W: [h, dx] },
    inputs: { x: [dx], y: [dy] },
    loss: ({ U, W, x, y }) => ops.sqnorm(ops.sub(ops.matmul(U, ops.matmul(W, x)), y)),
  });
}

/** Fresh samples of a teacher. */
export function teacherSampler(engine: Engine, { V, SigmaX, SigmaEps }: Teacher): Sampler {
  const constant = (A: Matrix) => ({ shape: [A.rows, A.cols], values: A.values });
  return sampler({
    noise: { z: { kind: "normal", shape: [V.cols] }, e: { kind: "normal", shape: [V.rows] } },
    constants: {
      V: constant(V),
      rootX: constant(engine.dense.sqrtSymmetric(SigmaX)),
      rootEps: constant(engine.dense.sqrtSymmetric(SigmaEps)),
    },
    outputs: ({ z, e, V: map, rootX, rootEps }) => {
      const x = ops.matmul(rootX, z);
      return { x, y: ops.add(ops.matmul(map, x), ops.matmul(rootEps, e)) };
    },
  });
}

/** Independent standard normals drawn in Wasm by a seed. */
export function normalMatrix(engine: Engine, rows: number, cols: number, seed: string): Matrix {
  const holder = model({ params: { A: [rows, cols] }, inputs: {}, loss: ({ A }) => ops.sqnorm(A) });
  const problem = engine.problem(holder, {});
  const values = Float64Array.from(problem.init("normal", { std: 1, seed }));
  problem.dispose();
  return { rows, cols, values };
}

/** A random teacher: eigenvalues of both covariances and singular values of V spread over `spread` around 1. */
export function randomTeacher(engine: Engine, d: number, spread: number, seed: string): Teacher {
  const { dense } = engine;
  const rotation = (name: string) => dense.qr(normalMatrix(engine, d, d, `${seed}/${name}`)).Q;
  // evenly spread in [1 / spread, spread] in the mean of both scales: no elementary function needed
  const scales = (offset: number) =>
    dense.diagonal(
      Float64Array.from({ length: d }, (_, i) => {
        const t = d === 1 ? 0.5 : ((i + offset) % d) / (d - 1);
        return 1 / spread + t * (spread - 1 / spread);
      }),
    );
  const turn = (Q: Matrix, D: Matrix, R: Matrix) => dense.matmul(Q, dense.matmul(D, dense.transpose(R)));
  const [X, E] = [rotation("x"), rotation("eps")];
  return {
    SigmaX: turn(X, scales(0), X),
    SigmaEps: turn(E, scales(1), E),
    V: turn(rotation("left"), scales(2), rotation("right")),
  };
}

/**
 * Slowest rate at which SGD brings the two layers into balance, near U W = V:
 *
 *   4 sigma^2 (Tr Sigma_eps min eig Sigma_x + Tr Sigma_x min eig Sigma_eps),   8 sigma^2 d for unit covariances
 *
 * @source theory of two-layer linear nets: dQ/dt = 2 sigma^2 (W Gamma_W W^T - U^T Gamma_U U), Gamma_W = 4 Tr Sigma_eps Sigma_x
 */
function balanceRate(engine: Engine, { SigmaX, SigmaEps }: Teacher, sigma2: number): number {
  const { dense } = engine;
  const least = (A: Matrix) => Math.min(...dense.symmetricEigen(A).values);
  return 4 * sigma2 * (dense.trace(SigmaEps) * least(SigmaX) + dense.trace(SigmaX) * least(SigmaEps));
}

/** Steps of SGD with S = 1 that last `relaxations` times 1 / rate of the slowest balance. */
export function relaxationSteps(engine: Engine, teacher: Teacher, eta: number, relaxations: number): number {
  const rate = balanceRate(engine, teacher, eta / 2);
  return Math.ceil(relaxations / (rate * eta));
}

/** Trace of replica r's n x n matrix in recorded values. */
export function traceOf(values: Float64Array, r: number, n: number): number {
  let sum = 0;
  for (let i = 0; i < n; i++) sum += values[r * n * n + i * n + i]!;
  return sum;
}

/**
 * Gradient descent moves C by  sum eta^2/2 gbar^T A gbar, at most eta/2 sum eta |gbar|^2, and descends
 * by at least half of that sum while eta lambda_max <= 1: so Tr Q = 2 C stays within
 * 2 eta (L(0) - L(end)). Needs a run that records matrixCharges Q and the full loss at both ends.
 * Returns what a row of a trial takes.
 */
export function conservation(
  gd: Run,
  eta: number,
  h: number,
  setting: string,
): [About, Prediction, Estimate] {
  const { replicas } = gd;
  const Q = gd.series.matrixCharges.Q!;
  const loss = gd.series.loss!;
  const records = gd.series.k.length - 1;
  const moved = new Float64Array(replicas);
  let bound = 0;
  for (let r = 0; r < replicas; r++) {
    moved[r] = traceOf(Q, records * replicas + r, h) - traceOf(Q, r, h);
    bound += (2 * eta * (loss[r]! - loss[records * replicas + r]!)) / replicas;
  }
  const measured = meanOf(moved, `mean over ${replicas} runs`);
  const neglects = "what gradient descent moves at finite η, at most 2η (L(0) − L(end))";
  return [
    { setting, quantity: "Tr Q(end) − Tr Q(0), Q = UᵀU − WWᵀ" },
    { value: 0, modelError: bound, neglects },
    measured,
  ];
}

import { exp } from "../core/elementary.ts";
import type { Run } from "../dynamics/result.ts";
import type { Engine } from "../engine.ts";
import type { Model } from "../graph/model.ts";
import { ops } from "../graph/ops.ts";
import { models } from "../models/ready.ts";
import type { Matrix } from "../stats/dense.ts";
import type { Experiment } from "./experiment.ts";
import { conservation, normalMatrix, traceOf } from "./linear-net.ts";
import type { Parameter } from "./spec.ts";
import { at, overReplicas, Trial } from "./trial.ts";

const parameters = {
  rows: { value: 8, min: 4, max: 16, integer: true, what: "rows of the matrix" },
  cols: { value: 8, min: 4, max: 16, integer: true, what: "columns of the matrix" },
  rank: { value: 2, min: 1, max: 4, integer: true, what: "rank of the target" },
  h: {
    value: 3,
    min: 2,
    max: 8,
    integer: true,
    what: "hidden dimension, at least the rank (that where it is less)",
  },
  observed: {
    value: 0.7,
    min: 0.5,
    max: 1,
    what: "share of the entries that are observed; below a half some rows are hardly seen and balance too late to wait for",
  },
  noiseSd: { value: 0.5, min: 0.4, max: 1.6, what: "standard deviation of the fresh label noise" },
  stdU: { value: 0.2, min: 0.1, max: 0.4, unit: "theta", what: "standard deviation of the initial U" },
  stdW: { value: 1, min: 0.5, max: 2, unit: "theta", what: "standard deviation of the initial W" },
  rate: {
    value: 0.06,
    min: 0.025,
    max: 0.1,
    what: "eta |M|_* (1/rows + 1/cols): eta times the mean of |U_i|^2 + |W_j|^2 at rest (or half of it at the start, if more), what neglected terms grow with",
  },
  relaxations: {
    value: 8,
    min: 4,
    max: 16,
    what: "steps of SGD in mean relaxation times; averages over the second half",
  },
  replicas: { value: 16, min: 8, max: 256, integer: true, what: "independent starts" },
} satisfies Record<string, Parameter>;

type Spec = { [K in keyof typeof parameters]: number };

/** A matrix some entries of which are seen. */
interface Task {
  readonly M: Matrix;
  /** 1 where an entry is observed, else 0. */
  readonly seen: Matrix;
  /** Observed entries; those of every row and of every column. */
  readonly n: number;
  readonly inRow: Float64Array;
  readonly inCol: Float64Array;
}

/** M = A B / sqrt(rank) with normal factors, and the observed entries: one of every row and column, the others by lot. */
function taskOf(engine: Engine, spec: Spec, seed: string): Task {
  const { rows, cols, rank, observed } = spec;
  const { dense } = engine;
  const product = dense.matmul(
    normalMatrix(engine, rows, rank, `${seed}/A`),
    normalMatrix(engine, rank, cols, `${seed}/B`),
  );
  const M = dense.scale(product, 1 / Math.sqrt(rank));
  const lot = normalMatrix(engine, rows, cols, `${seed}/observed`).values;
  const sure = Math.max(rows, cols);
  const isSure = (e: number) => {
    const [i, j] = [Math.floor(e / cols), e % cols];
    return rows >= cols ? j === i % cols : i === j % rows;
  };
  const n = Math.max(sure, Math.floor(observed * rows * cols + 0.5));
  const order = Array.from(lot, (_, e) => e).sort(
    (e, f) => Number(isSure(f)) - Number(isSure(e)) || lot[f]! - lot[e]!,
  );
  const values = new Float64Array(rows * cols);
  const [inRow, inCol] = [new Float64Array(rows), new Float64Array(cols)];
  for (const e of order.slice(0, n)) {
    values[e] = 1;
    inRow[Math.floor(e / cols)]! += 1;
    inCol[e % cols]! += 1;
  }
  return { M, seen: { rows, cols, values }, n, inRow, inCol };
}

/** One sample per observed entry. */
function samplesOf({ M, seen }: Task): Record<"row" | "col" | "y", number[][]> {
  const samples: Record<"row" | "col" | "y", number[][]> = { row: [], col: [], y: [] };
  const hot = (n: number, at: number) => Array.from({ length: n }, (_, i) => (i === at ? 1 : 0));
  for (const [e, isSeen] of seen.values.entries()) {
    if (isSeen === 0) continue;
    samples.row.push(hot(M.rows, Math.floor(e / M.cols)));
    samples.col.push(hot(M.cols, e % M.cols));
    samples.y.push([M.values[e]!]);
  }
  return samples;
}

/**
 * Second moments of single-sample gradients with label noise s, as expressions of the parameters: with R_ij = (4/n) ((U W - M)_ij^2 + s^2) on
 * the observed entries, c and r its sums over columns and rows,
 *
 *   N_U = E[g_U^T g_U] = W diag(c) W^T,   N_W = E[g_W g_W^T] = U^T diag(r) U
 */
function measures(net: Model, { M, seen, n }: Task, noiseSd: number) {
  const [U, W] = [net.leaf("U"), net.leaf("W")];
  const constant = (A: Matrix, name: string) => net.graph.constant(A.values, [A.rows, A.cols], name);
  const product = ops.matmul(U, W);
  const error = ops.mul(constant(seen, "seen"), ops.sub(product, constant(M, "M")));
  const noise = ops.scale(constant(seen, "seen"), noiseSd * noiseSd);
  const R = ops.scale(ops.add(ops.square(error), noise), 4 / n);
  const [inCol, inRow] = [ops.sum(R, { axis: 0 }), ops.sum(R, { axis: 1 })];
  return {
    NU: ops.matmul(ops.mul(W, inCol), ops.transpose(W)),
    NW: ops.matmul(ops.mul(ops.transpose(U), inRow), U),
    product,
    inCol,
    inRow,
  };
}

/** Nuclear norm of diag(r)^1/2 V diag(c)^1/2. */
function nuclearNorm(
  engine: Engine,
  V: ArrayLike<number>,
  r: ArrayLike<number>,
  c: ArrayLike<number>,
): number {
  const [rows, cols] = [r.length, c.length];
  const values = Float64Array.from(V, (x, e) => x * Math.sqrt(r[Math.floor(e / cols)]! * c[e % cols]!));
  return engine.dense.svd({ rows, cols, values }).s.reduce((a, b) => a + b, 0);
}

export const completion: Experiment = {
  id: "E24",
  title: "Matrix completion: SGD balances the noise of both factors",
  question:
    "Entries of a matrix are learned one at a time as a product U W, with noisy labels. Any U M, M⁻¹W fits as well. Which factors does SGD " +
    "choose, and which gradient descent?",
  source: "Ziyin et al., arXiv:2402.07193, section 4.2, Proposition 1: generalised matrix factorisation",
  claim:
    "Under SGD the noise moments of both factors become equal, N_U = N_W, and their trace is the nuclear norm of the completed matrix weighted by the " +
    "noise of its rows and columns. Gradient descent keeps Q = UᵀU − WWᵀ and the imbalance of its start.",
  formula: "⟨N_U⟩ − ⟨N_W⟩ = ΔQ/(η² steps);  Tr N = ‖diag(r)^½ U W diag(c)^½‖_*",
  parameters,
  quick: { rows: 5, cols: 5, h: 2, rank: 1, relaxations: 4, replicas: 8 },

  async measure(engine, given, seed, control) {
    const spec = given as Spec;
    const { rows, cols, noiseSd, replicas } = spec;
    const h = Math.max(spec.h, spec.rank);
    const trial = new Trial("E24", engine, seed, control, 10);
    const task = taskOf(engine, spec, trial.seedOf("matrix"));
    const { n, inRow, inCol } = task;
    const net = models.matrixCompletion({ rows, cols, rank: h });
    const values = measures(net, task, noiseSd);
    const problem = engine.problem(net, samplesOf(task));
    const std = { U: spec.stdU, W: spec.stdW };
    const theta = problem.init("normal", { std, seed: trial.seedOf("init"), replicas });
    const { s } = engine.dense.svd(task.M);
    const nuclear = s.reduce((a, b) => a + b, 0);
    const start = h * (spec.stdU * spec.stdU + spec.stdW * spec.stdW);
    const eta = spec.rate / Math.max(nuclear * (1 / rows + 1 / cols), 0.5 * start);
    // 4 eta^2 s^2 / n per entry seen in a row or a column: the mean of both, and the least
    const perEntry = (4 * eta * eta * noiseSd * noiseSd) / n;
    const steps = 200 * Math.ceil(spec.relaxations / (perEntry * 0.5 * (n / rows + n / cols)) / 200);
    const from = steps / 2;
    const charges = { matrixCharges: { Q: ["U", "W"] as const } };
    const sgd = await trial.run(
      "SGD",
      problem,
      {
        scheme: "sgd",
        theta,
        eta,
        batchSize: 1,
        labelNoise: { y: noiseSd },
        steps,
        replicas,
        record: { every: steps / 200, values, ...charges, average: { from, every: 8 } },
      },
      9,
    );
    // a tenth of what the largest curvature allows, 2 (|U|^2 + |W|^2) / n in spectral norms
    const wide = spec.stdW * (Math.sqrt(h) + Math.sqrt(cols));
    const gdEta = (0.1 * n) / (2 * (wide * wide + s[0]!));
    const gd = await trial.run("gradient descent", problem, {
      scheme: "gd",
      theta,
      eta: gdEta,
      steps: 4000,
      replicas,
      record: { every: 20, loss: "full", values, ...charges },
    });
    problem.dispose();

    const weights = { r: inRow.map((x) => x * perEntry), c: inCol.map((x) => x * perEntry) };
    const resting = nuclearNorm(engine, task.M.values, weights.r, weights.c) / (eta * eta);
    const slowest = Math.min(...weights.r, ...weights.c);
    const TrQ0 = overReplicas(sgd, (r) => Math.abs(traceOf(sgd.series.matrixCharges.Q!, r, h))).value;
    const left = (TrQ0 * exp(-slowest * from)) / ((steps - from) * eta * eta * resting);
    rowsOf(trial, engine, sgd, { h, eta, from, left, rate: spec.rate, cells: rows * cols, rows, cols });
    trial.row(...conservation(gd, gdEta, h, "gradient descent"));
    figuresOf(trial, sgd, gd, h);
    return trial.findings;
  },
};

interface Resting {
  readonly h: number;
  readonly eta: number;
  readonly from: number;
  /** Imbalance that the start is predicted to leave, relative. */
  readonly left: number;
  readonly rate: number;
  readonly cells: number;
  readonly rows: number;
  readonly cols: number;
}

/** The budget of Q, entry by entry, then balance and nuclear norm. */
function rowsOf(trial: Trial, engine: Engine, sgd: Run, resting: Resting): void {
  const { h, eta, from, left, rate, cells, rows, cols } = resting;
  const { NU, NW, product, inCol, inRow } = sgd.averages!.values as Record<string, Float64Array>;
  const Q = sgd.series.matrixCharges.Q!;
  const first = sgd.series.k.findIndex((k) => k === from);
  const setting = "SGD, S = 1, second half";
  const spent = eta * eta * (sgd.steps - from);
  const edge = 8 / (sgd.steps - from);
  const size = overReplicas(sgd, (r) => traceOf(NU!, r, h) + traceOf(NW!, r, h)).value;
  const budget = (name: string, of: (X: Float64Array, r: number) => number) => {
    const charge = (record: number, r: number) => {
      const i = record < 0 ? sgd.series.k.length - 1 : record;
      const start = (i * sgd.replicas + r) * h * h;
      return of(Q.subarray(start, start + h * h), 0);
    };
    const wanted = (r: number) => of(NU!, r) - of(NW!, r);
    const value = overReplicas(sgd, wanted).value;
    const paired = overReplicas(sgd, (r) => (charge(-1, r) - charge(first, r)) / spent - wanted(r));
    trial.row(
      { setting, quantity: `change of ${name} per step over η², from ⟨N_U⟩ − ⟨N_W⟩` },
      { value, modelError: edge * size, neglects: "the ends of the average over every 8th step" },
      { ...paired, value: value + paired.value, method: `${paired.method}, each less its own prediction` },
    );
  };
  budget("Tr Q", (X, r) => traceOf(X, r, h));
  budget("Q₁₂", (X, r) => X[r * h * h + 1]!);
  trial.row(
    { setting, quantity: "Tr ⟨N_U⟩ / Tr ⟨N_W⟩" },
    {
      value: 1,
      modelError: left,
      neglects: "what is left of Tr Q(0) after half of the run, at the rate of the row or column seen least",
    },
    overReplicas(sgd, (r) => traceOf(NU!, r, h) / traceOf(NW!, r, h)),
  );
  const nuclear = (r: number) =>
    nuclearNorm(
      engine,
      product!.subarray(r * cells, (r + 1) * cells),
      inRow!.subarray(r * rows, (r + 1) * rows),
      inCol!.subarray(r * cols, (r + 1) * cols),
    );
  const value = overReplicas(sgd, nuclear).value;
  const noise = (r: number) => 0.5 * (traceOf(NU!, r, h) + traceOf(NW!, r, h));
  const paired = overReplicas(sgd, (r) => noise(r) - nuclear(r));
  trial.row(
    { setting, quantity: "Tr ⟨N⟩ from the nuclear norm of diag(r)^½ ⟨U W⟩ diag(c)^½" },
    {
      value,
      modelError: (rate + left * left) * value,
      neglects:
        "fluctuations of the product, relative η ‖M‖_* (1/rows + 1/cols), and the square of the imbalance left",
    },
    { ...paired, value: value + paired.value, method: `${paired.method}, each less its own prediction` },
  );
}

function figuresOf(trial: Trial, sgd: Run, gd: Run, h: number): void {
  const ratio = (run: Run) =>
    Array.from(
      run.series.k,
      (_, i) =>
        overReplicas(run, (r) => {
          const trace = (X: Float64Array) => {
            let sum = 0;
            for (let j = 0; j < h; j++) sum += at(run, X, i, r, j * (h + 1));
            return sum;
          };
          return trace(run.series.values.NU!) / trace(run.series.values.NW!);
        }).value,
    );
  const share = (run: Run) => Array.from(run.series.k, (k) => k / run.steps);
  trial.figure({
    title: "Balance of the noise of the factors",
    caption:
      `Tr N_U / Tr N_W along SGD (${sgd.steps} steps) and gradient descent (${gd.steps} steps), mean over the runs (solid); 1 at the noise equilibrium (dashed). Under ` +
      "gradient descent it is what the label noise would do there.",
    xLabel: "share of the run",
    yLabel: "Tr N_U / Tr N_W",
    xScale: "linear",
    yScale: "log",
    curves: [
      { label: "SGD", predicted: false, x: share(sgd), y: ratio(sgd) },
      { label: "SGD", predicted: true, x: [0, 1], y: [1, 1] },
      { label: "gradient descent", predicted: false, x: share(gd), y: ratio(gd) },
    ],
  });
}

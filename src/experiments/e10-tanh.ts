import type { Run } from "../dynamics/result.ts";
import type { Engine } from "../engine.ts";
import type { Model } from "../graph/model.ts";
import { model } from "../graph/model.ts";
import { ops } from "../graph/ops.ts";
import { type Sampler, sampler } from "../graph/sampler.ts";
import type { Curve, Experiment } from "./experiment.ts";
import { traceOf } from "./linear-net.ts";
import type { Parameter } from "./spec.ts";
import { at, overReplicas, Trial } from "./trial.ts";

const parameters = {
  d: { value: 6, min: 2, max: 8, integer: true, what: "dimension of input, hidden layer and output" },
  varX: { value: 0.025, min: 0.01, max: 0.04, what: "variance of the entries of x: what tanh is bent by" },
  noise: { value: 2.2, min: 1, max: 4, what: "mean variance of the label noise over that of x" },
  contrast: {
    value: 10,
    min: 3,
    max: 15,
    what: "large over small variance of the label noise; each has half of the outputs",
  },
  stronger: {
    value: 4,
    min: 2,
    max: 8,
    what: "how many times larger all variances are in the case of strong tanh",
  },
  rate: {
    value: 0.06,
    min: 0.04,
    max: 0.16,
    what: "relative size of the fluctuations of the product: eta Var(x) (|U|^2 + |W|^2) (1 + (d + 1) / S) of the widest direction at rest",
  },
  batch: { value: 2, min: 1, max: 4, integer: true, what: "batch size of SGD" },
  relaxations: {
    value: 10,
    min: 6,
    max: 24,
    what: "steps of SGD in relaxation times of the slowest direction; averages over the second half",
  },
  replicas: { value: 16, min: 8, max: 256, integer: true, what: "independent starts per case" },
} satisfies Record<string, Parameter>;

type Spec = { [K in keyof typeof parameters]: number };

/** Standard deviations of the initial U and W. */
const STD = { U: 0.5, W: 0.8 };
/** Samples without label noise that gradient descent sees. */
const CLEAN = 400;

/** One network and its data. */
interface Case {
  readonly name: string;
  readonly isLinear: boolean;
  readonly varX: number;
  /** Label noise by output. */
  readonly phi: Float64Array;
}

/** ell = |U act(W x) - y|^2 */
function autoencoder(d: number, isLinear: boolean): Model {
  return model({
    params: { U: [d, d], W: [d, d] },
    inputs: { x: [d], y: [d] },
    loss: ({ U, W, x, y }) => {
      const z = ops.matmul(W, x);
      return ops.sqnorm(ops.sub(ops.matmul(U, isLinear ? z : ops.tanh(z)), y));
    },
  });
}

/** x ~ N(0, varX I), y = x + noise of variances phi. */
function law({ varX, phi }: Case, isClean: boolean): Sampler {
  const d = phi.length;
  return sampler({
    noise: { z: { kind: "normal", shape: [d] }, e: { kind: "normal", shape: [d] } },
    constants: { sd: { shape: [d], values: phi.map((p) => (isClean ? 0 : Math.sqrt(p))) } },
    outputs: ({ z, e, sd }) => {
      const x = ops.scale(z, Math.sqrt(varX));
      return { x, y: ops.add(x, ops.mul(e, sd)) };
    },
  });
}

/** The equilibrium of the linear network, direction by direction: w_i^4 = d phi_i / sum phi at u_i w_i = 1. */
interface Rest {
  /** Eigenvalues of W W^T, which W^T W has along output i. */
  readonly w2: Float64Array;
  /** Share of output i in Tr W^T W, the spectrum of the representation. */
  readonly share: Float64Array;
  /** Largest |u_i|^2 + |w_i|^2. */
  readonly widest: number;
  /** Slowest rate of a direction per unit of sigma^2 Tr Sigma. */
  readonly slowest: number;
  /** Tr W S_x W^T = Tr U^T S_eps U for S = Sigma / Tr Sigma. */
  readonly trace: number;
}

function restOf({ varX, phi }: Case): Rest {
  const d = phi.length;
  const total = phi.reduce((a, b) => a + b, 0);
  const w2 = phi.map((p) => Math.sqrt((d * p) / total));
  const sum = w2.reduce((a, b) => a + b, 0);
  // 1 / tau_2 = 2 sigma^2 (N_u + N_w) / (u^2 + w^2), both N = 4 w^2 varX Tr Sigma_eps
  const rates = w2.map((w) => (16 * w * varX * total) / (w + 1 / w));
  return {
    w2,
    share: w2.map((w) => w / sum),
    widest: w2.reduce((most, w) => Math.max(most, w + 1 / w), 0),
    slowest: rates.reduce((least, x) => Math.min(least, x)),
    trace: sum / d,
  };
}

/** P = W S_x W^T and E = U^T S_eps U, normalised covariances, and W^T W, which rotations of the hidden units leave alone. */
function measures(net: Model, { phi }: Case) {
  const d = phi.length;
  const [U, W] = [net.leaf("U"), net.leaf("W")];
  const total = phi.reduce((a, b) => a + b, 0);
  const weights = net.graph.constant(
    phi.map((p) => p / total),
    [d, 1],
    "S_eps",
  );
  return {
    P: ops.scale(ops.matmul(W, ops.transpose(W)), 1 / d),
    E: ops.matmul(ops.transpose(U), ops.mul(U, weights)),
    inner: ops.matmul(ops.transpose(W), W),
  };
}

export const tanhRepresentation: Experiment = {
  id: "E10",
  title: "A tanh autoencoder learns the spectrum of its label noise",
  question:
    "All inputs have one variance, but half of the labels are noisier. Does that show in what the hidden layer represents, and does gradient descent see " +
    "it as well?",
  source: "Ziyin et al., arXiv:2402.07193, Figure 5; eq. 16 as an approximation where tanh is nearly linear",
  claim:
    "Under SGD the covariance of the hidden layer gives each output direction a share that grows with the root of its label noise, and equals that " +
    "of the noise sent back, P = E. Gradient descent without label noise keeps the shares of its start.",
  formula: "P = W Σ̄x Wᵀ = Uᵀ Σ̄ε U = E,  share of output i: φ_i^½ / Σ φ^½",
  parameters,
  quick: { d: 4, rate: 0.12, relaxations: 6, replicas: 8 },

  async measure(engine, given, seed, control) {
    const spec = given as Spec;
    const { d, replicas, batch } = spec;
    const low = (2 * spec.noise) / (1 + spec.contrast);
    const phi = (factor: number) =>
      Float64Array.from(
        { length: d },
        (_, i) => factor * spec.varX * low * (i < Math.floor(d / 2) ? 1 : spec.contrast),
      );
    const cases: Case[] = [
      { name: "linear", isLinear: true, varX: spec.varX, phi: phi(1) },
      { name: "tanh", isLinear: false, varX: spec.varX, phi: phi(1) },
      {
        name: `tanh, variances × ${spec.stronger}`,
        isLinear: false,
        varX: spec.stronger * spec.varX,
        phi: phi(spec.stronger),
      },
    ];
    const trial = new Trial("E10", engine, seed, control, 3 * cases.length + 1);
    const curves: Curve[] = [];
    for (const one of cases) {
      const rest = restOf(one);
      const net = autoencoder(d, one.isLinear);
      const values = measures(net, one);
      const eta = spec.rate / (one.varX * rest.widest * (1 + (d + 1) / batch));
      const steps = 200 * Math.ceil((spec.relaxations * 2 * batch) / (rest.slowest * eta * eta) / 200);
      const fresh = engine.problem(net, law(one, false));
      const theta = fresh.init("normal", { std: STD, seed: trial.seedOf(`${one.name}/init`), replicas });
      const average = { from: steps / 2, every: 4 };
      const run = await trial.run(
        `SGD, ${one.name}`,
        fresh,
        {
          scheme: "sgd",
          theta,
          eta,
          batchSize: batch,
          steps,
          replicas,
          record: { every: steps / 100, values, average },
        },
        3,
      );
      fresh.dispose();
      rowsOf(trial, run, one, rest, spec.rate);
      if (!one.isLinear) curves.push(...sharesAlong(`SGD, ${one.name}`, run, one, rest));
      if (one.name !== "tanh") continue;
      const clean = engine.problem(net, law(one, true), { samples: CLEAN, dataSeed: trial.seedOf("clean") });
      const gdSteps = 3000;
      const gd = await trial.run("gradient descent, tanh", clean, {
        scheme: "gd",
        theta,
        // an eighth of what the largest curvature allows, 2 Var(x) (|U|^2 + |W|^2) at the start
        eta: 1 / (8 * one.varX * 4 * d * STD.W * STD.W),
        steps: gdSteps,
        replicas,
        record: { every: gdSteps / 100, values },
      });
      clean.dispose();
      curves.push(...sharesAlong("gradient descent, tanh", gd, one, null));
    }
    trial.figure({
      title: "Share of the noisier half of the outputs in the hidden layer",
      caption:
        "Trace of WᵀW over the noisier outputs, of the whole trace, mean over the runs (solid), and Σ φ^½ over the noisier ones of the whole sum (dashed). One half is what " +
        "inputs of equal variance would give.",
      xLabel: "share of the run",
      yLabel: "share of the noisier outputs",
      xScale: "linear",
      yScale: "linear",
      curves,
    });
    trial.figure(spectrumFigure(engine, trial.findings.runs, cases));
    return trial.findings;
  },
};

/** Tr P, the balance of both traces, and the share of the noisier outputs. */
function rowsOf(trial: Trial, run: Run, one: Case, rest: Rest, rate: number): void {
  const d = one.phi.length;
  const { P, E, inner } = run.averages!.values as Record<"P" | "E" | "inner", Float64Array>;
  // tanh z = z (1 - z^2 / 3 ...): relative E z^2 of the widest hidden direction
  const bent = one.isLinear ? 0 : one.varX * rest.w2.reduce((a, b) => Math.max(a, b));
  const error = rate + bent;
  const neglects = one.isLinear
    ? "fluctuations of the product, relative η Var(x) (|U|² + |W|²) (1 + (d + 1)/S)"
    : "fluctuations of the product, relative η Var(x) (|U|² + |W|²) (1 + (d + 1)/S), and the bend of tanh, relative E z² of the widest direction";
  const row = (quantity: string, value: number, modelError: number, f: (r: number) => number) =>
    trial.row(
      { setting: `SGD, ${one.name}`, quantity },
      { value, modelError, neglects },
      overReplicas(run, f),
    );
  row("Tr P = Tr W Σ̄x Wᵀ", rest.trace, error * rest.trace, (r) => traceOf(P, r, d));
  row("Tr P / Tr E, E = Uᵀ Σ̄ε U", 1, error, (r) => traceOf(P, r, d) / traceOf(E, r, d));
  const value = noisier(rest.share, d);
  // a relative error of both shares moves the one against the other
  row("share of the noisier outputs in Tr WᵀW", value, error * value, (r) => {
    const diagonal = Float64Array.from({ length: d }, (_, i) => inner[r * d * d + i * (d + 1)]!);
    return noisier(diagonal, d) / traceOf(inner, r, d);
  });
}

/** Sum over the noisier half of the outputs. */
function noisier(of: ArrayLike<number>, d: number): number {
  let sum = 0;
  for (let i = Math.floor(d / 2); i < d; i++) sum += of[i]!;
  return sum;
}

function sharesAlong(label: string, run: Run, one: Case, rest: Rest | null): Curve[] {
  const d = one.phi.length;
  const inner = run.series.values.inner!;
  const x = Array.from(run.series.k, (k) => k / run.steps);
  const share = (i: number, r: number) => {
    const diagonal = Float64Array.from({ length: d }, (_, j) => at(run, inner, i, r, j * (d + 1)));
    return noisier(diagonal, d) / diagonal.reduce((a, b) => a + b, 0);
  };
  const y = x.map((_, i) => overReplicas(run, (r) => share(i, r)).value);
  const measured: Curve = { label, predicted: false, x, y };
  if (rest === null) return [measured];
  const value = noisier(rest.share, d);
  return [measured, { label, predicted: true, x: [0, 1], y: [value, value] }];
}

/** Eigenvalues of W^T W averaged over time and runs, over their sum. */
function spectrumFigure(engine: Engine, runs: Readonly<Record<string, Run>>, cases: readonly Case[]) {
  const d = cases[0]!.phi.length;
  const x = Array.from({ length: d }, (_, i) => i + 1);
  const spectrum = (inner: ArrayLike<number>, replicas: number, offset: number): number[] => {
    const values = new Float64Array(d * d);
    for (let r = 0; r < replicas; r++)
      for (let e = 0; e < d * d; e++) values[e]! += inner[offset + r * d * d + e]! / replicas;
    const { values: eigen } = engine.dense.symmetricEigen({ rows: d, cols: d, values });
    const total = eigen.reduce((a, b) => a + b, 0);
    return [...eigen].map((v) => v / total);
  };
  const measured = cases.slice(0, 2).map(({ name }): Curve => {
    const run = runs[`SGD, ${name}`]!;
    return {
      label: `SGD, ${name}`,
      predicted: false,
      x,
      y: spectrum(run.averages!.values.inner!, run.replicas, 0),
    };
  });
  const gd = runs["gradient descent, tanh"]!;
  const last = gd.series.values.inner!;
  const offset = last.length - gd.replicas * d * d;
  return {
    title: "Spectrum of the representation",
    caption:
      "Eigenvalues of WᵀW averaged over runs (and time, for SGD) over their sum, largest first (solid), and φ^½ / Σ φ^½ (dashed).",
    xLabel: "eigenvalue number",
    yLabel: "eigenvalue / trace",
    xScale: "linear" as const,
    yScale: "linear" as const,
    curves: [
      ...measured,
      { label: "SGD, tanh", predicted: true, x, y: [...restOf(cases[1]!).share].sort((a, b) => b - a) },
      { label: "gradient descent, tanh", predicted: false, x, y: spectrum(last, gd.replicas, offset) },
    ],
  };
}

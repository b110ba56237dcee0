import type { Run } from "../dynamics/result.ts";
import type { Engine } from "../engine.ts";
import { type Model, model } from "../graph/model.ts";
import type { Node } from "../graph/node.ts";
import { ops } from "../graph/ops.ts";
import { type Sampler, sampler } from "../graph/sampler.ts";
import type { Estimate } from "../stats/estimate.ts";
import { symmetry } from "../symmetry/generator.ts";
import { largeBreakingShift } from "../symmetry/predictions/breaking.ts";
import { noiseStrength } from "../symmetry/predictions/noise.ts";
import type { Experiment } from "./experiment.ts";
import { radial } from "./radial-breaking.ts";
import type { Parameter } from "./spec.ts";
import { overReplicas, Trial } from "./trial.ts";

const parameters = {
  eta: {
    value: 0.01,
    min: 0.004,
    max: 0.016,
    unit: "theta^2 / loss",
    what: "step size; also runs at half of it",
  },
  zeta: {
    value: 1,
    min: 0.5,
    max: 2,
    what: "the smaller strength of the breaking loss; also `ratio` times it",
  },
  ratio: { value: 3, min: 1.5, max: 6, what: "the larger strength over the smaller" },
  slope: { value: 1, min: 0.6, max: 2.4, what: "target of u w" },
  noiseSd: { value: 1, min: 0.4, max: 1.6, what: "standard deviation of the label noise" },
  level: {
    value: 0.6,
    min: 0.3,
    max: 1.2,
    unit: "theta^2",
    what: "the charge that psi = (C - level)^2 / 2 prefers",
  },
  u0: { value: 1.5, min: 0.75, max: 3, unit: "theta", what: "u that |theta - (u0, w0)|^2 / 2 prefers" },
  w0: { value: 0.6, min: 0.3, max: 1.2, unit: "theta", what: "w that it prefers" },
  d: { value: 5, min: 2, max: 12, integer: true, what: "dimension of the model with A = I and A = -I" },
  radius: { value: 1, min: 0.8, max: 3.2, unit: "theta", what: "radius that its breaking loss prefers" },
  batch: { value: 8, min: 2, max: 16, integer: true, what: "the larger batch size, beside 1" },
  times: {
    value: 200,
    min: 60,
    max: 600,
    what: "length of a run in times of the least curvature; averages over all but the first tenth",
  },
  replicas: { value: 64, min: 8, max: 1024, integer: true, what: "independent runs" },
} satisfies Record<string, Parameter>;

type Spec = { [K in keyof typeof parameters]: number };

/** A loss that breaks the symmetry, of one strength. */
interface Breaking {
  readonly name: string;
  readonly zeta: number;
  readonly of: (u: Node, w: Node) => Node;
  readonly near: readonly [number, number];
}

export const breaking: Experiment = {
  id: "E31",
  title: "Broken symmetry: noise shifts the charge by the sign of A, in proportion to σ²",
  question:
    "Where a second loss breaks the symmetry there is a minimum, and the noise moves SGD away from it. In which direction does the charge " +
    "move, how far, and does only σ² = η/2S count?",
  source: "Ziyin et al., arXiv:2402.07193, eqs. 20-23; theory.md, 11 and E31",
  claim:
    "The shift of the charge is proportional to σ² with the predicted factor, the same at every batch size: above 0 for A = I, below for " +
    "A = −I, and for A = diag(1, −1) as the third derivatives say. The paper's estimate σ² Tr[ΣA]/h is exact where the second loss is a " +
    "function of C, and off otherwise.",
  formula:
    "H R + R H = 2 sigma^2 Sigma, delta = -1/2 H^-1 (T : R), E[C] - C* = (A theta*) . delta + 1/2 Tr[A R]; eq. 23: sigma^2 Tr[Sigma A] / h",
  parameters,
  quick: { replicas: 16, times: 60, batch: 2 },

  async measure(engine, given, seed, control) {
    const spec = given as Spec;
    const { slope, u0, w0 } = spec;
    const strengths = [spec.zeta, spec.ratio * spec.zeta];
    const C = (u: Node, w: Node) => ops.scale(ops.sub(ops.square(u), ops.square(w)), 0.5);
    // u w = slope with the charge that is preferred
    const top = Math.sqrt(spec.level + Math.sqrt(spec.level * spec.level + slope * slope));
    const cases = strengths.flatMap((zeta): Breaking[] => [
      {
        name: `ζ(C − ${spec.level})²/2, ζ = ${zeta}`,
        zeta,
        of: (u, w) => ops.scale(ops.square(ops.sub(C(u, w), spec.level)), 0.5),
        near: [top, slope / top],
      },
      {
        name: `ζ‖θ − (${u0}, ${w0})‖²/2, ζ = ${zeta}`,
        zeta,
        of: (u, w) => ops.scale(ops.add(ops.square(ops.sub(u, u0)), ops.square(ops.sub(w, w0))), 0.5),
        near: [u0, w0],
      },
    ]);
    const trial = new Trial(
      "E31",
      engine,
      seed,
      control,
      cases.length * (1 + spec.batch) * 3 + 2 * (1 + spec.batch),
    );
    const found: { sigma2: number; shift: number; error: number; full: number; paper: number }[] = [];
    for (const one of cases) {
      const minimum = await minimumOf(trial, engine, one, spec);
      const measured = await shifts(trial, engine, one, spec, minimum);
      for (const { S, at, half } of measured) {
        const sigma2 = noiseStrength(spec.eta, S);
        const neglects = "terms of relative O(η): the gap halves with η";
        const predicted = { value: minimum.full, modelError: 0, neglects };
        const about = `(⟨C⟩ − C*)/σ²; eq. 23: ${minimum.paper.toPrecision(3)}`;
        trial.limitRow(
          { setting: `A = diag(1, −1), ${one.name}, S = ${S}`, quantity: about },
          { predicted, measured: at },
          { predicted, measured: half },
        );
        if (one === cases[1])
          found.push({
            sigma2,
            shift: at.value * sigma2,
            error: at.stdErr * sigma2,
            full: minimum.full * sigma2,
            paper: minimum.paper * sigma2,
          });
        if (one === cases[1])
          found.push({
            sigma2: 0.5 * sigma2,
            shift: 0.5 * half.value * sigma2,
            error: 0.5 * half.stdErr * sigma2,
            full: 0.5 * minimum.full * sigma2,
            paper: 0.5 * minimum.paper * sigma2,
          });
      }
    }
    const positive: { x: number; y: number; error: number; predicted: number }[] = [];
    for (const zeta of strengths) {
      for (const S of [1, spec.batch]) positive.push(await radial(trial, engine, spec, zeta, S));
    }
    found.sort((a, b) => a.sigma2 - b.sigma2);
    const x = found.map((f) => f.sigma2);
    trial.figure({
      title: "Shift of the charge against the strength of the noise",
      caption: `A = diag(1, −1) with ${cases[1]!.name}, at two step sizes and batch sizes: measured, the full formula and eq. 23 of the paper (dashed).`,
      xLabel: "σ² = η/2S (θ² / loss)",
      yLabel: "⟨C⟩ − C* (θ²)",
      xScale: "log",
      yScale: "linear",
      curves: [
        {
          label: "SGD",
          predicted: false,
          x,
          y: found.map((f) => f.shift),
          error: found.map((f) => f.error),
          mark: "dots",
        },
        { label: "full formula", predicted: true, x, y: found.map((f) => f.full) },
        { label: "eq. 23", predicted: true, x, y: found.map((f) => f.paper) },
      ],
    });
    trial.figure({
      title: "A = I: the radius grows",
      caption:
        "Shift of C = ‖θ‖²/2 against σ² Tr Σ/ζ for both strengths and batch sizes, and where drift and noise balance (dashed).",
      xLabel: "σ² Tr Σ/ζ (θ²)",
      yLabel: "⟨C⟩ − C* (θ²)",
      xScale: "log",
      yScale: "log",
      curves: [false, true].map((predicted) => {
        const order = [...positive].sort((a, b) => a.x - b.x);
        return {
          label: "A = I",
          predicted,
          x: order.map((p) => p.x),
          y: order.map((p) => (predicted ? p.predicted : p.y)),
          ...(predicted ? {} : { error: order.map((p) => p.error), mark: "dots" as const }),
        };
      }),
    });
    return trial.findings;
  },
};

/** ell = (u w - slope - eps)^2 + zeta ell_0. */
function modelOf({ zeta, of }: Breaking, { slope }: Spec): Model {
  return model({
    params: { u: [1], w: [1] },
    inputs: { eps: [1] },
    loss: ({ u, w, eps }) => {
      const fit = ops.sqnorm(ops.sub(ops.sub(ops.mul(u, w), slope), eps));
      return ops.add(fit, ops.scale(ops.sum(of(u, w)), zeta));
    },
  });
}

const noiseOf = ({ noiseSd }: Spec): Sampler =>
  sampler({
    noise: { e: { kind: "normal", shape: [1] } },
    outputs: ({ e }) => ({ eps: ops.scale(e!, noiseSd) }),
  });

/** The minimum, its curvatures, and the shift of C per sigma^2: the full formula, and the paper's estimate. */
interface Minimum {
  readonly theta: Float64Array;
  readonly charge: number;
  readonly least: number;
  readonly full: number;
  readonly paper: number;
}

/** Steps of gradient descent to the minimum. */
const SETTLE = 200_000;

async function minimumOf(trial: Trial, engine: Engine, one: Breaking, spec: Spec): Promise<Minimum> {
  const A = symmetry.rescaling("u", "w");
  // two samples of label noise have its mean and variance, all that enters here
  const problem = engine.problem(modelOf(one, spec), { eps: [spec.noiseSd, -spec.noiseSd] });
  const run = await trial.run(
    `minimum, ${one.name}`,
    problem,
    { scheme: "gd", theta: { u: [one.near[0]], w: [one.near[1]] }, eta: spec.eta, steps: SETTLE },
    0,
  );
  const theta = Float64Array.from(run.theta);
  const H = await problem.hessian(theta);
  const { values: h, vectors } = engine.dense.symmetricEigen({
    rows: 2,
    cols: 2,
    values: Float64Array.from(H),
  });
  const sigma2 = 1;
  const full = (await problem.minimumShift(theta, A, { sigma2 })).charge;
  const noise = problem.noisePower(theta, A).value;
  // the paper's n: the direction of curvature that moves the charge most
  const moves = [0, 1].map((k) => theta[0]! * vectors.values[k]! - theta[1]! * vectors.values[2 + k]!);
  const along = Math.abs(moves[0]!) > Math.abs(moves[1]!) ? 0 : 1;
  const paper = largeBreakingShift({ sigma2, noise, h: h[along]! }).charge;
  const charge = problem.charge(theta, A);
  problem.dispose();
  return { theta, charge, least: h[1]!, full, paper };
}

/** (mean C - C*) / sigma^2 at eta and at half of it, for both batch sizes. */
async function shifts(
  trial: Trial,
  engine: Engine,
  one: Breaking,
  spec: Spec,
  { theta, charge, least }: Minimum,
): Promise<{ S: number; at: Estimate; half: Estimate }[]> {
  const problem = engine.problem(modelOf(one, spec), noiseOf(spec));
  const measure = async (S: number, eta: number, share: number): Promise<Estimate> => {
    const steps = Math.ceil(spec.times / (least * eta));
    const run = await trial.run(
      `${one.name}, S = ${S}, η = ${eta}`,
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
          charges: { C: symmetry.rescaling("u", "w") },
          average: { from: Math.floor(0.1 * steps) + 1, every: 1 },
        },
      },
      share,
    );
    return meanShift(run, charge, noiseStrength(eta, S));
  };
  const out = [];
  for (const S of [1, spec.batch]) {
    const at = await measure(S, spec.eta, S);
    out.push({ S, at, half: await measure(S, 0.5 * spec.eta, 2 * S) });
  }
  problem.dispose();
  return out;
}

function meanShift(run: Run, charge: number, sigma2: number): Estimate {
  return overReplicas(run, (r) => (run.averages!.charges["C"]![r]! - charge) / sigma2);
}

import type { Engine } from "../engine.ts";
import { model } from "../graph/model.ts";
import { ops } from "../graph/ops.ts";
import { type Sampler, sampler } from "../graph/sampler.ts";
import { momentMatched } from "../models/moment-matched.ts";
import { symmetry } from "../symmetry/generator.ts";
import type { Curve, Experiment } from "./experiment.ts";
import { everyStep } from "./norms.ts";
import type { Parameter } from "./spec.ts";
import { meanCurve, overReplicas, Trial } from "./trial.ts";

const parameters = {
  eta: { value: 0.02, min: 0.002, max: 0.04, unit: "theta^2 / loss", what: "step size of all runs" },
  steps: { value: 5000, min: 200, max: 50_000, integer: true, what: "steps of all runs" },
  replicas: { value: 1024, min: 8, max: 16_384, integer: true, what: "independent SGD runs per case" },
  batch: { value: 8, min: 2, max: 64, integer: true, what: "the larger of the two batch sizes" },
  gamma: { value: 0.01, min: 0.001, max: 0.02, unit: "loss / theta^2", what: "weight decay of one case" },
  radius: { value: 1.4142135623730951, min: 0.8, max: 4, unit: "theta", what: "|theta| at the start" },
  cosine: {
    value: -0.1414213562373095,
    min: -0.6,
    max: 0.95,
    what: "cosine of the angle between start and teacher; near -1 a start at rest, left by chance, has no law of its mean",
  },
  slope: { value: 1, min: 0.4, max: 1.6, what: "length of the teacher: y = slope x.(0.6, -0.8) + noise" },
  noiseSd: { value: 0.5, min: 0.25, max: 1, what: "standard deviation of the label noise" },
} satisfies Record<string, Parameter>;

type Spec = { [K in keyof typeof parameters]: number };

/** Direction of the teacher. */
const TEACHER = [0.6, -0.8] as const;
/** Runs recorded at every step. */
const WATCHED = 8;

/** Predicted |theta|^4 at every step, and a bound of what the law neglects. */
interface Law {
  readonly fourth: Float64Array;
  readonly neglected: number;
}

/** Raw moments 2 to 4 of the mean of S independent terms, from those of one term. */
function batchMoments(m1: number, m2: number, m3: number, m4: number, S: number): [number, number, number] {
  const k2 = (m2 - m1 * m1) / S;
  const k3 = (m3 - 3 * m2 * m1 + 2 * m1 * m1 * m1) / (S * S);
  const c2 = m2 - m1 * m1;
  const c4 = m4 - 4 * m3 * m1 + 6 * m2 * m1 * m1 - 3 * m1 * m1 * m1 * m1;
  const k4 = (c4 - 3 * c2 * c2) / (S * S * S);
  const m1s = m1 * m1;
  return [k2 + m1s, k3 + 3 * k2 * m1 + m1s * m1, k4 + 4 * k3 * m1 + 3 * k2 * k2 + 6 * k2 * m1s + m1s * m1s];
}

/**
 * The law of theta = r (cos, sin)(delta), delta the angle from the teacher v = rho v_hat, for x ~ N(0, I). A gradient is tangential
 * and of the size q / r,
 *
 *   q = 2 mean(e b),  e = a (1 - rho cos delta) + b rho sin delta - eps,   a, b, eps / s ~ N(0, 1)
 *   r'^4 = ((1 - 2 eta gamma)^2 r^2 + eta^2 q^2 / r^2)^2,   tan(delta - delta') = eta q / ((1 - 2 eta gamma) r^2)
 *
 * so that E r^4 needs E q^2 = 4 E[((1 - rho cos)^2 + 3 rho^2 sin^2 + s^2) / S + (1 - 1/S) rho^2 sin^2], and that the mean m and the
 * variance V of delta, closed as if delta were normal. At S = infinity the recursion is exact.
 *
 * Neglected: what is not normal in delta, at most 4 (2 rho + 8 rho^2) V^2 of E q^2, the bound of its derivatives.
 *
 * @source theory.md, 7
 */
export function lawOfNorm(spec: Spec, S: number, gamma: number): Law {
  const { eta, steps, slope: rho, noiseSd } = spec;
  const s2 = noiseSd * noiseSd;
  const keep = 1 - 2 * eta * gamma;
  const [keep2, keep4] = [keep * keep, keep * keep * keep * keep];
  const fourth = new Float64Array(steps + 1);
  let r4 = spec.radius * spec.radius * spec.radius * spec.radius;
  let [c, s] = [spec.cosine, Math.sqrt(1 - spec.cosine * spec.cosine)];
  let V = 0;
  let neglected = 0;
  fourth[0] = r4;
  for (let k = 0; k < steps; k++) {
    const R = Math.sqrt(r4);
    // e^(-V/2) to its own error: V is below 1 where the law says anything
    const damp = 1 / (1 + 0.5 * V + 0.125 * V * V);
    const d2 = damp * damp;
    const cos2 = (c * c - s * s) * d2 * d2;
    const sine2 = 0.5 * (1 - cos2);
    const m1 = rho * s * damp;
    const one = 1 - 2 * rho * c * damp + rho * rho * (2 - cos2) + s2;
    const q2 = 4 * (S === Infinity ? rho * rho * sine2 : one / S + (1 - 1 / S) * rho * rho * sine2);
    // third and fourth moments at the mean angle: they are small
    const B = rho * s;
    const D = (1 - rho * c) * (1 - rho * c) + s2;
    const B2 = B * B;
    const [b2, b3, b4] =
      S === Infinity
        ? [B2, B2 * B, B2 * B2]
        : batchMoments(B, 3 * B2 + D, 15 * B * B2 + 9 * B * D, 105 * B2 * B2 + 90 * B2 * D + 9 * D * D, S);
    const a = eta / (keep * R);
    const y = 2 * a * m1;
    const spread = Math.max(0, a * a * 4 * (b2 - B2));
    const skew = S === Infinity ? 0 : 8 * a * a * a * (b3 - 3 * b2 * B + 2 * B * B2);
    const wide = 1 + y * y;
    // tan of the mean turn: E arctan(y) beyond arctan(E y)
    const turn = S === Infinity ? y : y - (y * spread) / wide - (wide * skew) / 3;
    const length = Math.sqrt(1 + turn * turn);
    [c, s] = [(c + turn * s) / length, (s - turn * c) / length];
    r4 = keep4 * r4 + 2 * keep2 * eta * eta * q2 + (eta * eta * eta * eta * 16 * b4) / (R * R);
    neglected = keep4 * neglected + 2 * keep2 * eta * eta * 4 * (2 * rho + 8 * rho * rho) * V * V;
    if (S !== Infinity) {
      const noise = a * a * q2 - y * y - (2 / 3) * a * a * a * a * 16 * b4;
      V = Math.max(0, V * (1 - 4 * a * rho * c * damp) + noise);
    }
    fourth[k + 1] = r4;
  }
  return { fourth, neglected };
}

/** ell = (x . theta / |theta| - y)^2 in the plane. */
function unitRegression() {
  return model({
    params: { theta: [2] },
    inputs: { x: [2], y: [] },
    loss: ({ theta, x, y }) => ops.square(ops.sub(ops.div(ops.matmul(x, theta), ops.norm(theta)), y)),
  });
}

function teacher(slope: number, noiseSd: number): Sampler {
  return sampler({
    noise: { x: { kind: "normal", shape: [2] }, eps: { kind: "normal", shape: [] } },
    constants: { v: [slope * TEACHER[0], slope * TEACHER[1]] },
    outputs: ({ x, eps, v }) => ({ x, y: ops.add(ops.matmul(x, v), ops.scale(eps, noiseSd)) }),
  });
}

/** What is run. */
interface Case {
  readonly name: string;
  readonly S: number;
  readonly gamma: number;
}

function casesOf(spec: Spec): Case[] {
  return [
    { name: "SGD, S = 1", S: 1, gamma: 0 },
    { name: `SGD, S = ${spec.batch}`, S: spec.batch, gamma: 0 },
    { name: `SGD, S = 1, γ = ${spec.gamma}`, S: 1, gamma: spec.gamma },
    { name: "gradient descent", S: Infinity, gamma: 0 },
  ];
}

async function runCase(trial: Trial, engine: Engine, spec: Spec, { name, S, gamma }: Case): Promise<Curve[]> {
  const { eta, steps, radius, cosine } = spec;
  const net = unitRegression();
  const theta = net.leaf("theta");
  const data = teacher(spec.slope, spec.noiseSd);
  const problem = engine.problem(net, S === Infinity ? momentMatched(data) : data);
  const sine = Math.sqrt(1 - cosine * cosine);
  const [vx, vy] = TEACHER;
  const square = ops.sqnorm(theta);
  const options = {
    ...(S === Infinity ? { scheme: "gd" as const } : { scheme: "sgd" as const, batchSize: S }),
    theta: [radius * (cosine * vx - sine * vy), radius * (cosine * vy + sine * vx)],
    eta,
    weightDecay: gamma,
    steps,
    seed: trial.seedOf(name),
  };
  const isSgd = S !== Infinity;
  const record = { every: Math.max(1, Math.floor(steps / 200)), values: { r4: ops.square(square) } };
  const replicas = isSgd ? spec.replicas : 1;
  const run = await trial.run(name, problem, { ...options, replicas, record }, isSgd ? S * replicas : 4);
  const law = lawOfNorm(spec, S, gamma);
  const { k } = run.series;
  const last = k.at(-1)!;
  const value = law.fourth[last]!;
  const series = run.series.values["r4"]!;
  trial.row(
    { setting: name, quantity: `|θ|⁴ at step ${last}` },
    {
      value,
      modelError: isSgd ? law.neglected : steps * 1e-15 * value,
      neglects: isSgd
        ? "what is not normal in the angle δ, at most 4(2ρ + 8ρ²) (Var δ)² of E q²"
        : "rounding",
    },
    overReplicas(run, (r) => series[(k.length - 1) * replicas + r]!),
  );
  // the same runs again, their first replicas at every step
  const each = await trial.run(`${name}, every step`, problem, {
    ...options,
    replicas: isSgd ? WATCHED : 1,
    record: { every: 1, charges: { C: symmetry.scaling("theta") }, work: true },
  });
  const loss = 1 + spec.slope * spec.slope + spec.noiseSd * spec.noiseSd;
  everyStep(trial, name, each, { what: "|θ|²", charge: "C", eta, gamma, loss });
  problem.dispose();
  const x = [...k];
  return [
    { label: name, predicted: false, x, y: meanCurve(run, series) },
    { label: name, predicted: true, x, y: x.map((step) => law.fourth[step]!) },
  ];
}

export const scaling: Experiment = {
  id: "E02",
  title: "Scale invariance: SGD pushes the parameters outwards, and only weight decay stops it",
  question:
    "The loss (x·θ/|θ| − y)² does not depend on the length of θ. Gradient descent therefore keeps |θ|, but for its finite steps. " +
    "How fast does SGD move it, and where does it end?",
  source: "Ziyin et al., arXiv:2402.07193, Figure 1 and section 4.1, eq. 11",
  claim:
    "Under SGD |θ|⁴ grows in proportion to time and for ever, faster the smaller the batch; with weight decay it comes to rest; under " +
    "gradient descent it stops as soon as the direction is learned.",
  formula: "d|θ|⁴/dt = 4σ² n − 8γ|θ|⁴,  n = Tr Σ at |θ| = 1,  σ² = η/(2S)",
  parameters,
  seconds: 2,
  quick: { steps: 400, replicas: 64 },

  async measure(engine, given, seed, control) {
    const spec = given as Spec;
    const cases = casesOf(spec);
    const total = cases.reduce((n, { S }) => n + (S === Infinity ? 5 : S * spec.replicas + 1), 0);
    const trial = new Trial("E02", engine, seed, control, total);
    const [free, decaying]: [Curve[], Curve[]] = [[], []];
    for (const one of cases)
      (one.gamma === 0 ? free : decaying).push(...(await runCase(trial, engine, spec, one)));
    const axes = { xLabel: "step", yLabel: "|θ|⁴", xScale: "linear", yScale: "linear" } as const;
    trial.figure({
      title: "Growth of |θ|⁴ under a scale-invariant loss",
      caption: "Mean over the runs of each case (solid) and the predicted law (dashed).",
      ...axes,
      curves: free,
    });
    trial.figure({
      title: "With weight decay |θ|⁴ comes to rest",
      caption: "Mean over the runs (solid) and the predicted law (dashed), which rests at ηG / (4γ(1 − ηγ)).",
      ...axes,
      curves: decaying,
    });
    return trial.findings;
  },
};

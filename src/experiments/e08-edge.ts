import type { Run } from "../dynamics/result.ts";
import type { Engine } from "../engine.ts";
import { ops } from "../graph/ops.ts";
import { models } from "../models/ready.ts";
import type { Problem } from "../problem.ts";
import { exact } from "../stats/estimate.ts";
import type { Curve, Experiment } from "./experiment.ts";
import { normalMatrix } from "./linear-net.ts";
import type { Parameter } from "./spec.ts";
import { at, overReplicas, Trial } from "./trial.ts";

const parameters = {
  eta: {
    value: 0.3,
    min: 0.02,
    max: 0.35,
    unit: "theta^2 / loss",
    what: "largest step size; beyond 1/2 no minimum of this loss is stable, because none has a sharpness below 4",
  },
  steep: {
    value: 1.59,
    min: 1.05,
    max: 1.75,
    what: "sharpness of the starts' valley over 2 / eta; below 1 they are stable, from 2 on gradient descent diverges",
  },
  product: { value: 0.66, min: 0.25, max: 0.98, what: "u w at the start; the minimum has 1" },
  jitter: { value: 0.02, min: 0.005, max: 0.04, what: "relative scatter of the starts" },
  overshoot: {
    value: 0.04,
    min: 0.01,
    max: 0.08,
    what: "sharpness over 2 / eta, less 1, of a start just beyond the edge",
  },
  steps: { value: 3000, min: 1000, max: 20_000, integer: true, what: "steps of gradient descent" },
  replicas: { value: 64, min: 8, max: 1024, integer: true, what: "starts per step size" },
} satisfies Record<string, Parameter>;

type Spec = { [K in keyof typeof parameters]: number };

/** Step sizes, as parts of the largest. */
const PARTS = [1 / 3, 5 / 6, 1] as const;
/** Runs recorded at every step, and whose Hessians are looked at. */
const WATCHED = 8;
/** Points of the sweep over the sharpness of the start. */
const SWEEP = 40;
/** |u w - 1| of a run that has settled. */
const SETTLED = 1e-9;

/** u w and Q = u^2 - w^2, which decide the fate of a run. */
interface Invariants {
  readonly v: number;
  readonly Q: number;
}

/**
 * Gradient descent on (u w - 1)^2 as a map of v = u w and Q = u^2 - w^2, with delta = 2 (v - 1):
 *
 *   v' = v - eta delta sqrt(Q^2 + 4 v^2) + eta^2 delta^2 v,   Q' = (1 - eta^2 delta^2) Q
 *
 * @source theory.md, 8 and 10
 */
export function descend({ v, Q }: Invariants, eta: number, steps: number): Invariants {
  let [x, q] = [v, Q];
  for (let k = 0; k < steps; k++) {
    const move = 2 * eta * (x - 1);
    x += -move * Math.sqrt(q * q + 4 * x * x) + move * move * x;
    q *= 1 - move * move;
  }
  return { v: x, Q: q };
}

/** Largest eigenvalue of the Hessian on the valley u w = 1 with this Q: 2 (u^2 + w^2). */
const valley = (Q: number): number => 2 * Math.sqrt(Q * Q + 4);

const invariants = (u: number, w: number): Invariants => ({ v: u * w, Q: u * u - w * w });

/** u and w > 0 with u w = v on the side of the valley of this sharpness. */
function startAt(sharpness: number, v: number): [number, number] {
  const Q = Math.sqrt(0.25 * sharpness * sharpness - 4);
  const u = Math.sqrt(0.5 * (Q + Math.sqrt(Q * Q + 4 * v * v)));
  return [u, v / u];
}

const quantities = (problem: Problem) => {
  const [u, w] = [problem.model.leaf("u"), problem.model.leaf("w")];
  return {
    v: ops.sum(ops.mul(u, w)),
    sharpness: ops.scale(ops.sqrt(ops.add(ops.square(ops.sub(ops.sqnorm(u), ops.sqnorm(w))), 4)), 2),
    Q: ops.sub(ops.sqnorm(u), ops.sqnorm(w)),
  };
};

/** The largest eigenvalues where the runs end, and the bound 2 / eta. */
function ends(trial: Trial, setting: string, run: Run, starts: Float64Array, eta: number): void {
  const { steps } = run;
  const last = (r: number) => at(run, run.series.values["sharpness"]!, -1, r);
  const start = (r: number) => invariants(starts[2 * r]!, starts[2 * r + 1]!);
  const predicted = overReplicas(run, (r) => valley(descend(start(r), eta, steps).Q));
  // rounding of the run and of the map, as a start that is off by 1e-13
  const moved = overReplicas(run, (r) => {
    const { v, Q } = start(r);
    const [here, there] = [descend({ v, Q }, eta, steps), descend({ v: v * (1 + 1e-13), Q }, eta, steps)];
    return Math.abs(valley(there.Q) - valley(here.Q));
  });
  const measured = overReplicas(run, last);
  trial.row(
    { setting, quantity: `largest eigenvalue 2(Q² + 4)^½ of the valley at step ${steps}` },
    {
      value: predicted.value,
      modelError: 10 * moved.value + 1e-12 * predicted.value,
      neglects: "rounding: 10 times what a start that is off by 1e-13 changes",
    },
    { ...exact(measured.value, run.replicas), method: "exact: the map takes each run's own start" },
  );
  let [above, settled] = [0, 0];
  for (let r = 0; r < run.replicas; r++) {
    if (!(Math.abs(at(run, run.series.values["v"]!, -1, r) - 1) < SETTLED)) continue;
    settled++;
    if (last(r) > (2 / eta) * (1 + 1e-9)) above++;
  }
  trial.never({ setting, quantity: "runs that have settled where λmax > 2/η" }, above, settled);
}

/** Every step multiplies Q by 1 - eta^2 delta^2, delta = 2 (u w - 1). */
function productIdentity(trial: Trial, setting: string, run: Run, eta: number): void {
  const [Q, v] = [run.series.values["Q"]!, run.series.values["v"]!];
  let [missed, count] = [0, 0];
  for (let k = 0; k < run.steps; k++) {
    for (let r = 0; r < run.replicas; r++) {
      const move = 2 * eta * (at(run, v, k, r) - 1);
      const [before, after] = [at(run, Q, k, r), at(run, Q, k + 1, r)];
      const norm = Math.sqrt(before * before + 4 * at(run, v, k, r) * at(run, v, k, r));
      // 2^-53 for each of some ten roundings of u, w, their squares and the step
      const allowed = 8 * Number.EPSILON * (1 + Math.abs(move)) * (1 + Math.abs(move)) * norm;
      count++;
      if (!(Math.abs(after - (1 - move * move) * before) <= allowed)) missed++;
    }
  }
  trial.never(
    { setting, quantity: "steps that miss Q' = (1 − η²δ²) Q by more than rounding" },
    missed,
    count,
  );
}

/** The Hessian itself, where the first runs end. */
async function hessians(trial: Trial, setting: string, problem: Problem, run: Run): Promise<void> {
  const [predicted, measured]: [number[], number[]] = [[], []];
  let off = 0;
  for (let r = 0; r < Math.min(WATCHED, run.replicas); r++) {
    const theta = run.theta.subarray(2 * r, 2 * r + 2);
    const { v, Q } = invariants(theta[0]!, theta[1]!);
    const { max } = await problem.sharpness(Float64Array.from(theta));
    predicted.push(valley(Q));
    measured.push(max.value);
    off += Math.abs(v - 1);
  }
  const mean = (x: number[]) => x.reduce((a, b) => a + b, 0) / x.length;
  const value = mean(predicted);
  trial.row(
    { setting, quantity: "largest eigenvalue of the Hessian at the end, by Lanczos" },
    {
      value,
      modelError: 1e-7 * value + (8 * off) / predicted.length,
      neglects: "the Lanczos residual, 1e-8 of the eigenvalue, and the distance from u w = 1",
    },
    exact(mean(measured), measured.length),
  );
}

async function descendFromStarts(
  trial: Trial,
  engine: Engine,
  spec: Spec,
  problem: Problem,
  part: number,
): Promise<Curve[]> {
  const eta = spec.eta * part;
  const setting = `η = ${Number(eta.toPrecision(3))}, 2/η = ${Number((2 / eta).toPrecision(3))}`;
  const [u0, w0] = startAt((2 * spec.steep) / spec.eta, spec.product);
  const normal = normalMatrix(engine, spec.replicas, 2, trial.seedOf("starts")).values;
  const theta = normal.map((z, i) => (i % 2 === 0 ? u0 : w0) * (1 + spec.jitter * z));
  const options = { scheme: "gd", theta, eta, steps: spec.steps, replicas: spec.replicas } as const;
  const values = quantities(problem);
  const run = await trial.run(setting, problem, { ...options, record: { every: spec.steps, values } });
  ends(trial, setting, run, theta, eta);
  await hessians(trial, setting, problem, run);
  const each = await trial.run(`${setting}, every step`, problem, {
    ...options,
    theta: theta.subarray(0, 2 * WATCHED),
    replicas: WATCHED,
    steps: Math.min(spec.steps, 1000),
    record: { every: 1, values },
  });
  productIdentity(trial, setting, each, eta);
  // the first steps, where it happens
  const count = Math.min(each.series.k.length, 151);
  const x = Array.from(each.series.k.subarray(0, count));
  const label = `η = ${Number(eta.toPrecision(3))}`;
  return [
    { label, predicted: false, x, y: x.map((_, k) => at(each, each.series.values["sharpness"]!, k, 0)) },
    { label: `${label}: 2/η`, predicted: true, x: [0, x.at(-1)!], y: [2 / eta, 2 / eta] },
  ];
}

/**
 * Just beyond the edge. The amplitude a of the oscillation of u w about 1 grows by eta lambda - 2 in each step, and Q falls by
 * 4 eta^2 a^2; so a^2 + (eta lambda - 2)^2 / const is kept, and the sharpness ends as far below 2 / eta as it began above it, up to
 * a relative O(overshoot).
 */
async function reflect(trial: Trial, spec: Spec, problem: Problem): Promise<Curve[]> {
  const { eta, overshoot } = spec;
  const top = Math.max(2 * overshoot, Math.min(0.4, spec.steep - 1));
  const beyond = [overshoot, overshoot / 2];
  for (let i = 0; i < SWEEP; i++) beyond.push(overshoot / 2 + ((top - overshoot / 2) * i) / (SWEEP - 1));
  const theta = Float64Array.from(beyond.flatMap((e) => startAt((2 * (1 + e)) / eta, 1 + 1e-4)));
  const steps = Math.ceil(120 / overshoot);
  const run = await trial.run("just beyond the edge", problem, {
    scheme: "gd",
    theta,
    eta,
    steps,
    replicas: beyond.length,
    record: { every: steps, values: quantities(problem) },
  });
  const end = (r: number) => 0.5 * eta * at(run, run.series.values["sharpness"]!, -1, r);
  const pair = (r: number) => ({
    predicted: { value: 1, modelError: 0, neglects: "the next order in the overshoot, which halves with it" },
    measured: exact((1 - end(r)) / beyond[r]!, 1),
  });
  trial.limitRow(
    {
      setting: `η = ${spec.eta}, start ${overshoot} and ${overshoot / 2} beyond the edge`,
      quantity: "(2/η − λ(end)) / (λ(0) − 2/η)",
    },
    pair(0),
    pair(1),
  );
  const x = beyond.slice(2).map((e) => 1 + e);
  const y = (f: (e: number, r: number) => number) => beyond.slice(2).map((e, i) => f(e, i + 2));
  const exactly = y((_, r) => {
    const start = invariants(theta[2 * r]!, theta[2 * r + 1]!);
    return 0.5 * eta * valley(descend(start, eta, steps).Q);
  });
  return [
    { label: "gradient descent", predicted: false, mark: "dots", x, y: y((_, r) => end(r)) },
    { label: "map of u w and Q", predicted: true, x, y: exactly },
    { label: "reflection at the edge", predicted: true, x, y: y((e) => 1 - e) },
  ];
}

export const edge: Experiment = {
  id: "E08",
  title: "Edge of stability: too large a step spends the charge until the minimum is flat enough",
  question:
    "The minima of (u w − 1)² have the sharpness 2(Q² + 4)^½, Q = u² − w². Where gradient descent is unstable, at a sharpness above " +
    "2/η, it oscillates. How far does that lower Q, and with it the sharpness?",
  source:
    "Ziyin et al., arXiv:2402.07193, section 4.3; Cohen et al., arXiv:2103.00065; Damian et al., arXiv:2209.15594",
  claim:
    "Below 2/η the sharpness stays; above it every run ends below 2/η. A start just beyond the edge ends as far below it as it began " +
    "above; from steeper ones the end is lower, down to the flattest minimum there is, sharpness 4.",
  formula:
    "Q' = (1 − η²δ²) Q,  δ = 2(u w − 1),  λmax = 2(Q² + 4)^½ where u w = 1;  λ(end) ≈ 4/η − λ(0) just beyond the edge",
  parameters,
  seconds: 0.2,
  quick: { steps: 1000, replicas: 16 },

  async measure(engine, given, seed, control) {
    const spec = given as Spec;
    const trial = new Trial("E08", engine, seed, control, 2 * PARTS.length + 1);
    const problem = engine.problem(models.rankOne(), { x: [1], y: [1] });
    const curves: Curve[] = [];
    for (const part of PARTS) curves.push(...(await descendFromStarts(trial, engine, spec, problem, part)));
    const reflection = await reflect(trial, spec, problem);
    problem.dispose();
    trial.figure({
      title: "Sharpness of the valley in the first steps",
      caption: "2(Q² + 4)^½ of one run per step size (solid) and the edge of stability 2/η (dashed).",
      xLabel: "step",
      yLabel: "2(Q² + 4)^½",
      xScale: "linear",
      yScale: "log",
      curves,
    });
    trial.figure({
      title: "Where the sharpness ends",
      caption:
        "Sharpness at the end against that of the start, both over 2/η, from starts beside the minimum (dots); the map of u w and Q, and " +
        "the reflection at 1, which holds just beyond the edge (dashed).",
      xLabel: "η λ(0) / 2",
      yLabel: "η λ(end) / 2",
      xScale: "linear",
      yScale: "linear",
      curves: reflection,
    });
    return trial.findings;
  },
};

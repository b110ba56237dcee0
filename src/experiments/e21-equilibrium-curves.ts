import { exp, log } from "../core/elementary.ts";
import type { Engine } from "../engine.ts";
import { sampler } from "../graph/sampler.ts";
import { models } from "../models/ready.ts";
import type { Problem } from "../problem.ts";
import { exact, meanOf } from "../stats/estimate.ts";
import { type Generator, symmetry } from "../symmetry/generator.ts";
import type { Curve, Experiment } from "./experiment.ts";
import { normalMatrix } from "./linear-net.ts";
import { referenceSystem } from "./reference-system.ts";
import type { Parameter } from "./spec.ts";
import { at, Trial } from "./trial.ts";

const parameters = {
  dx: { value: 3, min: 2, max: 8, integer: true, what: "inputs" },
  h: { value: 2, min: 1, max: 6, integer: true, what: "hidden units" },
  dy: { value: 2, min: 1, max: 4, integer: true, what: "outputs" },
  samples: { value: 8, min: 8, max: 64, integer: true, what: "samples of the data set" },
  eta: { value: 0.01, min: 0.0025, max: 0.04, unit: "theta^2 / loss", what: "step size" },
  S: { value: 4, min: 1, max: 16, integer: true, what: "batch size" },
  gamma: {
    value: 0.02,
    min: 0.005,
    max: 0.08,
    unit: "loss / theta^2",
    what: "weight decay of the second curve",
  },
  replicas: {
    value: 4096,
    min: 256,
    max: 16_384,
    integer: true,
    what: "single steps of SGD at every point of a curve",
  },
} satisfies Record<string, Parameter>;

type Spec = { [K in keyof typeof parameters]: number };

const ROUNDING = Number.EPSILON;
/** Points of a curve, to both sides of its middle; single steps of SGD are taken at every tenth. */
const POINTS = 20;
const REACH = 1;

interface System {
  readonly name: string;
  readonly problem: Problem;
  readonly theta: Float64Array;
  /** Its eigenvalues lie in [-1, 1]. */
  readonly A: Generator;
}

interface Strength {
  readonly eta: number;
  readonly batchSize: number;
  readonly weightDecay: number;
}

/** The numbers of an independent program. */
function golden(trial: Trial, engine: Engine): void {
  const { data, theta, A, strength, golden } = referenceSystem();
  const problem = engine.problem(models.twoLayerLinear({ dx: 3, h: 2, dy: 2 }), data);
  for (const { weightDecay, ...values } of golden) {
    const found = problem.equilibrium(theta, A, { ...strength, weightDecay });
    const setting = `reference system, γ = ${weightDecay}`;
    trial.never({ setting, quantity: "no finite equilibrium" }, found.status === "finite" ? 0 : 1, 1);
    if (found.status !== "finite") continue;
    const names = { lambda: "λ*", slope: "f′(λ*)", charge: "C(λ*)", rate: "1/τ₂" } as const;
    for (const [key, name] of Object.entries(names) as [keyof typeof names, string][]) {
      trial.row(
        { setting, quantity: `${name}, beside an independent program` },
        { value: values[key], modelError: 1e-12, neglects: "rounding of both programs" },
        exact(found[key], problem.N),
      );
    }
  }
  problem.dispose();
}

/** A random two-layer linear net with a random double rotation: class 1. */
function linear(trial: Trial, engine: Engine, spec: Spec): System {
  const { dx, h, dy } = spec;
  const net = models.twoLayerLinear({ dx, h, dy });
  const square = normalMatrix(engine, h, h, trial.seedOf("B"));
  const B = Array.from({ length: h }, (_, i) =>
    Array.from({ length: h }, (__, j) => 0.5 * (square.values[i * h + j]! + square.values[j * h + i]!)),
  );
  const { values } = engine.dense.symmetricEigen({ rows: h, cols: h, values: Float64Array.from(B.flat()) });
  const size = values.reduce((m, x) => Math.max(m, Math.abs(x)), 0);
  const scaled = B.map((row) => row.map((x) => x / size));
  return made(
    trial,
    engine,
    spec,
    net,
    `linear net (${dx}, ${h}, ${dy})`,
    symmetry.doubleRotation("U", "W", scaled),
  );
}

/** A random Net-A: class 2. */
function normalised(trial: Trial, engine: Engine, spec: Spec): System {
  const { dx, h, dy } = spec;
  const net = models.netA({ dx, h, dy });
  return made(trial, engine, spec, net, `Net-A (${dx}, ${h}, ${dy})`, symmetry.scaling("U", "W"));
}

function made(
  trial: Trial,
  engine: Engine,
  { dx, dy, samples }: Spec,
  net: ReturnType<typeof models.netA>,
  name: string,
  A: Generator,
): System {
  const data = sampler({
    noise: { x: { kind: "normal", shape: [dx] }, y: { kind: "normal", shape: [dy] } },
    outputs: ({ x, y }) => ({ x: x!, y: y! }),
  });
  const problem = engine.problem(net, data, { samples, dataSeed: trial.seedOf(`data/${name}`) });
  const theta = Float64Array.from(problem.init("normal", { std: 0.7, seed: trial.seedOf(`theta/${name}`) }));
  return { name, problem, theta, A };
}

/**
 * What rounding makes of a flow at e^(lambda A) theta: that of N gradients of P entries, magnified by the condition of e^(2 lambda A),
 * and of J . gbar, which is a sum of P terms that cancel.
 */
function roundingAt(
  { problem, theta }: System,
  there: ArrayLike<number>,
  lambda: number,
  { plus, minus, decay }: { readonly plus: number; readonly minus: number; readonly decay: number },
): number {
  const norm = (x: ArrayLike<number>): number => {
    let sum = 0;
    for (let i = 0; i < x.length; i++) sum += x[i]! * x[i]!;
    return Math.sqrt(sum);
  };
  const size = plus + minus + Math.abs(decay) + norm(there) * norm(problem.gradient(there));
  return 16 * ROUNDING * (problem.N + theta.length) * exp(2 * Math.abs(lambda)) * size;
}

/** Everything Theorem 1 says about the orbit of one system at one weight decay. */
async function orbit(trial: Trial, spec: Spec, system: System, weightDecay: number): Promise<Curve[]> {
  const { name, problem, theta, A } = system;
  const strength: Strength = { eta: spec.eta, batchSize: spec.S, weightDecay };
  const setting = `${name}, γ = ${weightDecay}`;
  const at0 = problem.equilibrium(theta, A, strength);
  const isClass2 = name.startsWith("Net-A");
  const expected = isClass2 && weightDecay === 0 ? "+inf" : "finite";
  trial.never({ setting, quantity: `another status than "${expected}"` }, at0.status === expected ? 0 : 1, 1);
  const middle = at0.status === "finite" ? at0.lambda : 0;
  const lambdas = Float64Array.from(
    { length: 2 * POINTS + 1 },
    (_, i) => middle + (REACH * (i - POINTS)) / POINTS,
  );
  const { flow: f } = problem.equilibriumCurve(theta, A, lambdas, strength);
  const moved = Array.from(lambdas, (lambda) => problem.transform(theta, A, lambda));
  const flows = moved.map((there) => problem.noetherFlow(there, A, strength));

  let [off, rising, wrong] = [0, 0, 0];
  for (const [i, { total }] of flows.entries()) {
    const size = roundingAt(system, moved[i]!, lambdas[i]!, flows[i]!);
    if (!(Math.abs(total - f[i]!) <= size)) off++;
    if (i > 0 && f[i]! > f[i - 1]! + size) rising++;
    const side = at0.status === "finite" ? middle - lambdas[i]! : 1;
    if (Math.abs(side) > 1e-6 && f[i]! * side <= 0) wrong++;
  }
  const count = lambdas.length;
  trial.never(
    { setting, quantity: "points where f(λ) is not the Noether flow measured at e^(λA) θ" },
    off,
    count,
  );
  trial.never({ setting, quantity: "points where f rises" }, rising, count);
  trial.never({ setting, quantity: "points where f has not the sign of λ* − λ" }, wrong, count);
  if (at0.status === "finite") {
    const [there, flow] = [moved[POINTS]!, flows[POINTS]!];
    const size = flow.plus + flow.minus + Math.abs(flow.decay);
    trial.row(
      { setting, quantity: `flow at λ* = ${Number(middle.toPrecision(4))}, over the sum of its terms` },
      {
        value: 0,
        modelError: roundingAt(system, there, middle, flow) / size,
        neglects: "rounding, times the condition of e^(2λA)",
      },
      exact(flow.total / size, problem.N),
    );
    if (isClass2) {
      const sigma2 = spec.eta / (2 * spec.S);
      const square = theta.reduce((sum, x) => sum + x * x, 0);
      const value = 0.25 * log((sigma2 * problem.noiseTrace(theta).value) / (2 * weightDecay * square));
      trial.row(
        { setting, quantity: "λ* = ¼ ln(σ² Tr Σ / (2γ |θ|²))" },
        { value, modelError: 16 * ROUNDING * (problem.N + problem.P), neglects: "rounding" },
        exact(middle, problem.N),
      );
    }
  }
  const dots = await singleSteps(
    trial,
    spec,
    system,
    strength,
    [0, 10, 20, 30, 40].map((i) => [lambdas[i]!, moved[i]!]),
  );
  const label = `γ = ${weightDecay}`;
  return [
    { label, predicted: true, x: [...lambdas], y: [...f] },
    { label, predicted: false, mark: "dots", ...dots },
  ];
}

/**
 * Single steps of SGD from points of the orbit. Their mean is exact:
 *
 *   E[C' - C] / eta = sigma^2 Tr[Sigma A] + (eta / 2) gbar^T A gbar - 4 gamma (1 - eta gamma) C
 */
async function singleSteps(
  trial: Trial,
  { replicas }: Spec,
  { name, problem, A }: System,
  { eta, batchSize, weightDecay }: Strength,
  points: readonly (readonly [number, ArrayLike<number>])[],
): Promise<{ x: number[]; y: number[]; error: number[] }> {
  const out: { x: number[]; y: number[]; error: number[] } = { x: [], y: [], error: [] };
  for (const [lambda, theta] of points) {
    const run = await trial.run(`${name}, γ = ${weightDecay}, λ = ${lambda}`, problem, {
      scheme: "sgd",
      batchSize,
      theta,
      eta,
      steps: 1,
      weightDecay,
      replicas,
      record: { every: 1, charges: { C: A } },
    });
    const C = run.series.charges.C!;
    const measured = meanOf(
      Float64Array.from({ length: replicas }, (_, r) => (at(run, C, 1, r) - at(run, C, 0, r)) / eta),
      `mean over ${replicas} steps`,
    );
    const flow = problem.noetherFlow(theta, A, { eta, batchSize, weightDecay });
    const value = flow.noise + flow.discrete + flow.decay * (1 - eta * weightDecay);
    const size = Math.abs(at(run, C, 0, 0)) + theta.length;
    trial.row(
      {
        setting: `${name}, γ = ${weightDecay}`,
        quantity: `mean of ΔC/η in one step at λ = ${Number(lambda.toPrecision(4))}`,
      },
      { value, modelError: (64 * ROUNDING * size) / eta, neglects: "rounding of C" },
      measured,
    );
    out.x.push(lambda);
    // the curve is that of the equation, without what finite steps add
    out.y.push(measured.value - flow.discrete - flow.decay * -eta * weightDecay);
    out.error.push(measured.stdErr);
  }
  return out;
}

export const equilibriumCurves: Experiment = {
  id: "E21",
  title: "Theorem 1: along every orbit the flow of the charge falls, and crosses zero at most once",
  question:
    "A symmetry connects parameters of equal loss by an orbit. Where on it does the charge come to rest under SGD, and when is there no such " +
    "point?",
  source: "Ziyin et al., arXiv:2402.07193, Theorem 1 and eqs. 34 to 38; golden values: theory, section 18",
  claim:
    "f(λ) falls everywhere. For a double rotation, with both signs in A, it crosses zero with and without weight decay; for a scale-invariant net " +
    "only with it. Single steps of SGD (dots) lie on the curves.",
  formula: "f(lambda) = sum_i mu_i [sigma^2 s_i e^(-2 lambda mu_i) - 2 gamma q_i e^(2 lambda mu_i)], f' <= 0",
  parameters,
  quick: { replicas: 256 },

  async measure(engine, given, seed, control) {
    const spec = given as Spec;
    const trial = new Trial("E21", engine, seed, control, 20);
    golden(trial, engine);
    for (const make of [linear, normalised]) {
      const system = make(trial, engine, spec);
      const curves: Curve[] = [];
      for (const gamma of [0, spec.gamma]) curves.push(...(await orbit(trial, spec, system, gamma)));
      system.problem.dispose();
      trial.figure({
        title: `Flow of the charge along the orbit, ${system.name}`,
        caption:
          "f(λ) = dC/dt at e^(λA) θ (dashed), and the mean of single steps of SGD there, without what finite steps add (dots).",
        xLabel: "λ",
        yLabel: "dC/dt, in loss",
        xScale: "linear",
        yScale: "linear",
        curves,
      });
    }
    return trial.findings;
  },
};

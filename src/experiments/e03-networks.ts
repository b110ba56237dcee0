import type { Run } from "../dynamics/result.ts";
import type { Engine } from "../engine.ts";
import { ops } from "../graph/ops.ts";
import { type Sampler, sampler } from "../graph/sampler.ts";
import { models } from "../models/ready.ts";
import type { Problem } from "../problem.ts";
import { symmetry } from "../symmetry/generator.ts";
import type { Experiment } from "./experiment.ts";
import { normalMatrix } from "./linear-net.ts";
import { alongPath, everyStep, follow, relativeCurve } from "./norms.ts";
import type { Parameter } from "./spec.ts";
import { Trial } from "./trial.ts";

const parameters = {
  dx: { value: 10, min: 3, max: 16, integer: true, what: "input dimension" },
  h: { value: 10, min: 3, max: 16, integer: true, what: "hidden units" },
  dy: { value: 5, min: 2, max: 8, integer: true, what: "output dimension" },
  N: { value: 500, min: 100, max: 1000, integer: true, what: "samples of the data set" },
  batch: { value: 8, min: 2, max: 32, integer: true, what: "batch size of SGD" },
  eta: { value: 0.05, min: 0.005, max: 0.08, unit: "theta^2 / loss", what: "step size of Net-B" },
  etaA: { value: 1, min: 0.1, max: 1.5, unit: "theta^2 / loss", what: "step size of Net-A" },
  steps: { value: 4000, min: 400, max: 10_000, integer: true, what: "steps of SGD" },
  gdSteps: { value: 1000, min: 100, max: 4000, integer: true, what: "steps of gradient descent" },
  replicas: { value: 16, min: 8, max: 64, integer: true, what: "independent starts and runs per network" },
  stdU: { value: 0.5, min: 0.25, max: 1, unit: "theta", what: "standard deviation of the initial U" },
  stdW: { value: 0.2, min: 0.15, max: 0.8, unit: "theta", what: "standard deviation of the initial W" },
  teacherSd: { value: 0.1, min: 0.05, max: 0.3, what: "standard deviation of the entries of the teacher V" },
  noiseSd: { value: 0.5, min: 0.2, max: 0.8, what: "standard deviation of the label noise" },
} satisfies Record<string, Parameter>;

type Spec = { [K in keyof typeof parameters]: number };

/** Runs and steps of them recorded at every step. */
const WATCHED = { replicas: 8, steps: 1000 };

const CHARGES = {
  T: symmetry.scaling("U", "W"),
  U: symmetry.scaling("U"),
  W: symmetry.scaling("W"),
} as const;
type Charge = keyof typeof CHARGES;

const NAMES = { T: "(|U|² + |W|²)", U: "|U|²", W: "|W|²" } as const;

/** One of the two networks. */
interface Net {
  readonly name: "Net-A" | "Net-B";
  readonly eta: number;
  /** Charges that are conserved by gradient flow. */
  readonly symmetric: readonly Charge[];
  /** Charges whose change is predicted. */
  readonly followed: readonly Charge[];
}

/** y = V x + eps with a random V. */
function teacher(engine: Engine, spec: Spec, seed: string): Sampler {
  const V = normalMatrix(engine, spec.dy, spec.dx, seed);
  return sampler({
    noise: { x: { kind: "normal", shape: [spec.dx] }, eps: { kind: "normal", shape: [spec.dy] } },
    constants: { V: { shape: [spec.dy, spec.dx], values: V.values.map((v) => spec.teacherSd * v) } },
    outputs: ({ x, eps, V: map }) => ({
      x,
      y: ops.add(ops.matmul(map, x), ops.scale(eps, spec.noiseSd)),
    }),
  });
}

/** Mean change of a charge in one step at theta, whether or not its generator is a symmetry; S = N is gradient descent. */
const changePerStep =
  (problem: Problem, charge: Charge, eta: number, S: number) => (theta: ArrayLike<number>) => {
    const sampling = S === problem.N ? "without" : "iid";
    const flow = problem.noetherFlow(theta, CHARGES[charge], { eta, batchSize: S, sampling });
    return eta * (flow.total + flow.discrete);
  };

async function runNet(trial: Trial, engine: Engine, spec: Spec, net: Net): Promise<void> {
  const { name, eta } = net;
  const model = (name === "Net-A" ? models.netA : models.netB)({ dx: spec.dx, h: spec.h, dy: spec.dy });
  const data = teacher(engine, spec, trial.seedOf("teacher"));
  const problem = engine.problem(model, data, { samples: spec.N, dataSeed: trial.seedOf("data") });
  const { replicas } = spec;
  const theta = problem.init("normal", {
    std: { U: spec.stdU, W: spec.stdW },
    seed: trial.seedOf(`${name}, start`),
    replicas,
  });
  const [U, W] = [model.leaf("U"), model.leaf("W")];
  const common = { theta, eta, replicas };
  const sgd = { scheme: "sgd" as const, batchSize: spec.batch, seed: trial.seedOf(name) };
  const probes = (charges: readonly Charge[], S: number) => ({
    every: 1,
    measures: Object.fromEntries(charges.map((c) => [c, changePerStep(problem, c, eta, S)] as const)),
  });
  const probed = (leg: Run) => leg.probes!.values;
  const path = await follow(
    trial,
    `SGD, ${name}`,
    problem,
    {
      ...common,
      ...sgd,
      steps: spec.steps,
      record: { every: 1, charges: CHARGES },
      probes: probes(net.followed, spec.batch),
    },
    probed,
    4,
  );
  for (const charge of net.followed) {
    const layer = net.symmetric.includes(charge) ? "" : " − θᵀAḡ";
    const quantity = `change of ½${NAMES[charge]} over the run, ∫ σ² Tr[ΣA] + η/2 ḡᵀAḡ${layer} dt`;
    alongPath(trial, { setting: `SGD, ${name}`, quantity }, path, charge);
  }
  const watched = await trial.run(`SGD, ${name}, every step`, problem, {
    ...common,
    ...sgd,
    theta: theta.subarray(0, WATCHED.replicas * model.P),
    replicas: WATCHED.replicas,
    steps: Math.min(spec.steps, WATCHED.steps),
    record: {
      every: 1,
      charges: CHARGES,
      work: true,
      values: {
        columns: ops.sum(ops.square(U), { axis: 0 }),
        rows: ops.sum(ops.square(W), { axis: 1 }),
      },
    },
  });
  // |y|^2 and |f|^2 in the mean, with U and W of unit columns and rows
  const loss =
    spec.dx * spec.dy * spec.teacherSd * spec.teacherSd +
    spec.dy * spec.noiseSd * spec.noiseSd +
    spec.h * spec.h;
  for (const charge of net.symmetric)
    everyStep(trial, `SGD, ${name}`, watched, { what: NAMES[charge], charge, eta, gamma: 0, loss });
  if (name === "Net-B") neuronsNeverShrink(trial, watched);
  const gd = await follow(
    trial,
    `GD, ${name}`,
    problem,
    {
      ...common,
      scheme: "gd",
      steps: spec.gdSteps,
      record: { every: 1, charges: CHARGES },
      probes: probes(net.symmetric.slice(-2), spec.N),
    },
    probed,
    1,
  );
  for (const charge of net.symmetric.slice(-2))
    alongPath(
      trial,
      { setting: `GD, ${name}`, quantity: `change of ½${NAMES[charge]}, ∫ η/2 ḡᵀAḡ dt` },
      gd,
      charge,
    );
  problem.dispose();
  trial.figure({
    title: `${name}: squared norms under SGD and gradient descent`,
    caption:
      name === "Net-A"
        ? "Relative to the start, mean over the runs. Only the joint norm belongs to a symmetry: a single layer may shrink."
        : "Relative to the start, mean over the runs. Each layer has a symmetry of its own, so neither ever shrinks.",
    xLabel: "step",
    yLabel: "squared norm / its start",
    xScale: "linear",
    yScale: "log",
    curves: [
      ...(["T", "U", "W"] as const).map((c) => relativeCurve(`SGD, ${NAMES[c]}`, path, c, false)),
      ...net.followed.map((c) => relativeCurve(`SGD, ${NAMES[c]}`, path, c, true)),
      relativeCurve(`gradient descent, ${NAMES.T}`, gd, "T", false),
    ],
  });
}

/** Steps at which the norm of a column of U or of a row of W falls, by more than rounding. */
function neuronsNeverShrink(trial: Trial, run: Run): void {
  let [fell, count] = [0, 0];
  for (const name of ["columns", "rows"]) {
    const values = run.series.values[name]!;
    const stride = values.length / run.series.k.length;
    for (let i = stride; i < values.length; i++) {
      count++;
      if (!(values[i]! >= values[i - stride]! * (1 - 1e-14))) fell++;
    }
  }
  trial.never({ setting: "SGD, Net-B", quantity: "steps at which some |U:j|² or |Wj:|² falls" }, fell, count);
}

export const networks: Experiment = {
  id: "E03",
  title: "Normalised networks: the norms that belong to a symmetry grow under SGD and never shrink",
  question:
    "Net-A divides by the norm of all weights together, Net-B every row and column by its own. Which norms does SGD let grow, by " +
    "how much, and what does gradient descent do with them?",
  source: "Ziyin et al., arXiv:2402.07193, Figure 2",
  claim:
    "SGD multiplies the total norm several times over, gradient descent leaves it nearly as it was. In Net-B each layer grows at every " +
    "step; in Net-A, whose layers have no symmetry of their own, one layer grows at the cost of the other.",
  formula:
    "dC/dt = σ² Tr[ΣA] + (η/2) ḡᵀAḡ,  C = ½|θ|² of the weights that A scales;  |θ'|² = |θ|² + η²|ĝ|² in every step",
  parameters,
  seconds: 7,
  quick: { dx: 4, h: 4, dy: 2, N: 100, steps: 400, gdSteps: 100, replicas: 8 },

  async measure(engine, given, seed, control) {
    const spec = given as Spec;
    const nets: Net[] = [
      { name: "Net-A", eta: spec.etaA, symmetric: ["T"], followed: ["T", "U"] },
      { name: "Net-B", eta: spec.eta, symmetric: ["T", "U", "W"], followed: ["U", "W"] },
    ];
    const trial = new Trial("E03", engine, seed, control, 6 * nets.length);
    for (const net of nets) await runNet(trial, engine, spec, net);
    return trial.findings;
  },
};

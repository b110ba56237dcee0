import { exp } from "../core/elementary.ts";
import type { Run } from "../dynamics/result.ts";
import { ops } from "../graph/ops.ts";
import { symmetry } from "../symmetry/generator.ts";
import type { Experiment } from "./experiment.ts";
import { linearNet, teacherSampler } from "./linear-net.ts";
import { rectangularTeacher, restOf } from "./linear-rest.ts";
import type { Parameter } from "./spec.ts";
import { overReplicas, Trial } from "./trial.ts";

const parameters = {
  dx: { value: 6, min: 2, max: 12, integer: true, what: "inputs" },
  dy: { value: 3, min: 1, max: 8, integer: true, what: "outputs" },
  h: {
    value: 4,
    min: 2,
    max: 12,
    integer: true,
    what: "hidden units; the smaller of dx and dy where that is more",
  },
  eta: { value: 0.004, min: 0.003, max: 0.012, unit: "theta^2 / loss", what: "step size" },
  gamma: {
    value: 0.012,
    min: 0.002,
    max: 0.02,
    unit: "slope xSd^2 / spread^2",
    what: "weight decay, in units of what the weakest mode of V withstands; swept over 0 and a quarter to four times this",
  },
  replicas: { value: 16, min: 8, max: 1024, integer: true, what: "independent runs per case" },
  times: {
    value: 16,
    min: 12,
    max: 48,
    what: "length of a run in predicted relaxation times; averages over its second half",
  },
  slope: { value: 1, min: 0.5, max: 2, what: "scale of the singular values of V" },
  xSd: {
    value: 1,
    min: 0.5,
    max: 1.2,
    what: "scale of x; 1.2 keeps the largest step below the edge of stability",
  },
  noiseSd: { value: 1, min: 0.6, max: 2.4, what: "scale of the label noise" },
  spread: {
    value: 1,
    min: 1,
    max: 2,
    what:
      "eigenvalues of the covariances and singular values of V lie in [1/spread, spread] times their scale; the predicted times and " +
      "what fluctuations add grow with its square, hence no wider",
  },
  start: { value: 0.5, min: 0.1, max: 0.8, unit: "theta", what: "standard deviation of the initial entries" },
} satisfies Record<string, Parameter>;

type Spec = { [K in keyof typeof parameters]: number };

interface Case {
  readonly S: number;
  readonly gamma: number;
}

/** Samples times parameters visited, at most, above 8 replicas. */
const MOST_WORK = 4e9;
/** Factors of gamma at S = 1, and batch sizes at gamma. */
const DECAYS = [0, 0.25, 1, 4];
const BATCHES = [4, 16];

const NEGLECTS =
  "fluctuations of U W at finite η and the mean gradients they bring, relative σ² Tr Σ / (dy min eig Σε) + η λ_max / 2; " +
  "and what is left of the start, e^(−t/τ₂)";

export const decay: Experiment = {
  id: "E26",
  title: "Weight decay against noise: larger decay, smaller charge; larger noise, larger charge",
  question:
    "Weight decay pulls the charge of a rescaling to 0, gradient noise to where the noise of the layers balances. Where do the " +
    "two come to rest, and is it where Theorem 2 with decay says, for any decay and any batch size?",
  source: "Ziyin et al., arXiv:2402.07193, eqs. 9 and 15",
  claim:
    "The size of the charge falls with the decay γ and with the batch size S, along the predicted line; and both sides of " +
    "W K_W Wᵀ = Uᵀ K_U U have the predicted trace.",
  formula:
    "W K_W W^T = U^T K_U U, K = sigma^2 Gamma + 2 gamma I; U U^T G + G W^T W = -4 gamma U W, G = 2 (U W - V) Sigma_x; " +
    "sigma^2 = eta / (2 S)",
  parameters,
  quick: { dx: 3, dy: 2, h: 2, eta: 0.008, replicas: 8, times: 12 },

  async measure(engine, given, seed, control) {
    const spec = given as Spec;
    const { dx, dy, eta, slope, spread } = spec;
    const h = Math.max(spec.h, Math.min(dx, dy));
    const [varX, varEps] = [spec.xSd * spec.xSd, spec.noiseSd * spec.noiseSd];
    const middle = (spec.gamma * slope * varX) / (spread * spread);
    const cases: Case[] = [
      ...DECAYS.map((f) => ({ S: 1, gamma: f * middle })),
      ...BATCHES.map((S) => ({ S, gamma: middle })),
    ];
    const teacher = rectangularTeacher(
      engine,
      { dx, dy, slope, varX, varEps, spread },
      `${seed}/E26/teacher`,
    );
    const net = linearNet(dx, h, dy);
    const [U, W] = [net.leaf("U"), net.leaf("W")];
    const problem = engine.problem(net, teacherSampler(engine, teacher));
    const plans = cases.map((one) => {
      const rest = restOf(engine, teacher, h, { eta, ...one });
      return { ...one, rest, steps: Math.ceil(spec.times / (rest.rate * eta)) };
    });
    const total = plans.reduce((sum, { steps, S }) => sum + steps * S, 0);
    const replicas = Math.max(8, Math.min(spec.replicas, Math.floor(MOST_WORK / (total * (dx + dy) * h))));
    const trial = new Trial("E26", engine, seed, control, total);
    const theta = problem.init("normal", {
      std: spec.start,
      seed: trial.seedOf("start"),
      replicas,
    });
    const curves = {
      γ: { x: [] as number[], measured: [] as number[], error: [] as number[], predicted: [] as number[] },
      S: { x: [] as number[], measured: [] as number[], error: [] as number[], predicted: [] as number[] },
    };
    for (const { S, gamma, rest, steps } of plans) {
      const setting = `γ = ${gamma.toPrecision(3)}, S = ${S}`;
      const constant = (values: Float64Array, n: number, name: string) =>
        net.graph.constant(values, [n, n], `${name}, ${setting}`);
      const KW = constant(rest.KW.values, dx, "KW");
      const KU = constant(rest.KU.values, dy, "KU");
      const values = {
        down: ops.sum(ops.mul(W, ops.matmul(W, KW))),
        up: ops.sum(ops.mul(U, ops.matmul(KU, U))),
      };
      const run = await trial.run(
        setting,
        problem,
        {
          scheme: "sgd",
          batchSize: S,
          theta,
          eta,
          weightDecay: gamma,
          steps,
          replicas,
          record: {
            every: Math.max(1, Math.floor(steps / 100)),
            charges: { C: symmetry.rescaling("U", "W") },
            values,
            average: { from: Math.floor(steps / 2) + 1, every: 1 },
          },
        },
        steps * S,
      );
      const C = average(run, run.averages!.charges["C"]!);
      const sum = rest.D.reduce((a, b) => a + b, 0);
      // the mean of e^(-t / tau_2) over the second half, times the size of the initial charges beside those at rest
      const half = 0.5 * spec.times;
      const left = (exp(-half) - exp(-2 * half)) / half;
      const size = 0.5 * (squares(rest.U.values) + squares(rest.W.values));
      const first = 0.5 * spec.start * spec.start * h * (dx + dy);
      const relative = rest.neglected + (left * (first + size)) / size;
      const traces = { value: sum, modelError: relative * sum, neglects: NEGLECTS };
      trial.row(
        { setting, quantity: "C = (‖U‖² − ‖W‖²)/2 at rest" },
        {
          value: rest.charge,
          modelError: rest.neglected * rest.chargeSize + left * (first + size),
          neglects: NEGLECTS,
        },
        C,
      );
      trial.row(
        { setting, quantity: "Tr W K_W Wᵀ = Σ D" },
        traces,
        average(run, run.averages!.values["down"]!),
      );
      trial.row(
        { setting, quantity: "Tr Uᵀ K_U U = Σ D" },
        traces,
        average(run, run.averages!.values["up"]!),
      );
      for (const [name, x] of [["γ", gamma] as const, ["S", S] as const]) {
        if ((name === "γ" && S !== 1) || (name === "S" && gamma !== middle)) continue;
        curves[name].x.push(x);
        curves[name].measured.push(C.value);
        curves[name].error.push(C.stdErr);
        curves[name].predicted.push(rest.charge);
      }
    }
    problem.dispose();
    for (const name of ["γ", "S"] as const) {
      const { x, measured, error, predicted } = curves[name];
      trial.figure({
        title:
          name === "γ" ? "The charge at rest against the decay" : "The charge at rest against the batch size",
        caption:
          name === "γ"
            ? "Charge of the rescaling at S = 1, averaged over time and runs, and the prediction (dashed)."
            : `Charge of the rescaling at γ = ${middle.toPrecision(3)}, averaged over time and runs, and the prediction (dashed).`,
        xLabel: name === "γ" ? "γ (loss / θ²)" : "batch size S",
        yLabel: "C = (‖U‖² − ‖W‖²)/2 (θ²)",
        xScale: name === "γ" ? "linear" : "log",
        yScale: "linear",
        curves: [
          { label: "SGD", predicted: false, x, y: measured, error, mark: "dots" },
          { label: "SGD", predicted: true, x, y: predicted },
        ],
      });
    }
    return trial.findings;
  },
};

const squares = (values: Float64Array): number => values.reduce((sum, x) => sum + x * x, 0);

/** Average over time of one number per replica, as a mean over replicas. */
function average(run: Run, values: Float64Array) {
  return overReplicas(run, (r) => values[r]!);
}

import type { Run } from "../dynamics/result.ts";
import { ops } from "../graph/ops.ts";
import { momentMatched } from "../models/moment-matched.ts";
import { type Estimate, meanOf } from "../stats/estimate.ts";
import { predictions } from "../symmetry/predictions.ts";
import type { Curve, Experiment } from "./experiment.ts";
import { isotropicTeacher } from "./isotropic.ts";
import { conservation, linearNet, teacherSampler } from "./linear-net.ts";
import type { Parameter } from "./spec.ts";
import { at, meanCurve, Trial } from "./trial.ts";

const parameters = {
  d: { value: 5, min: 2, max: 8, integer: true, what: "input and output dimension of the autoencoder" },
  varX: { value: 1, min: 0.5, max: 2, what: "variance of the entries of x" },
  noise: { value: 1, min: 0.5, max: 2, what: "variance of the label noise over that of x" },
  rate: {
    value: 0.02,
    min: 0.01,
    max: 0.04,
    what: "eta (Tr Sigma_x + Tr Sigma_eps) / 2: what the fluctuations of the product, relative, are",
  },
  relaxations: {
    value: 8,
    min: 6,
    max: 24,
    what: "steps of SGD, in relaxation times of the charges of the noise equilibrium; averages over the last quarter",
  },
  replicas: { value: 64, min: 16, max: 1024, integer: true, what: "independent starts per width" },
} satisfies Record<string, Parameter>;

type Spec = { [K in keyof typeof parameters]: number };

/** Widths h over d. */
const WIDTHS = [1, 2, 4];

/** Quotient of two means over the same replicas, by the jackknife. */
function quotient(over: ArrayLike<number>, under: ArrayLike<number>): Estimate {
  const n = over.length;
  const sum = (x: ArrayLike<number>) => Array.from(x).reduce((a, b) => a + b, 0);
  const [a, b] = [sum(over), sum(under)];
  const pseudo = Array.from(
    { length: n },
    (_, r) => (n * a) / b - ((n - 1) * (a - over[r]!)) / (b - under[r]!),
  );
  return meanOf(pseudo, `quotient of means over ${n} runs, by the jackknife`);
}

export const width: Experiment = {
  id: "E05b",
  title: "Initialisation by fan-in flattens every network but one: h = d",
  question:
    "With variances 1/fan-in the trace of the Hessian of a linear autoencoder starts the higher the wider the network is. The noise " +
    "equilibrium does not depend on the width. At which width does training leave the sharpness where it was?",
  source: 'Ziyin et al., arXiv:2402.07193, section 4.3, eq. 17: "Kaiming" initialisation and h = d',
  claim:
    "All widths end at 4 d Tr Σx. The start lies above it by (1 + h/d) / 2, so SGD flattens every network wider than its input and " +
    "leaves h = d alone; single starts at h = d lie on either side.",
  formula: "Tr ∇²L: start 2 d h (1/d + 1/h) Tr Σx, end 4 d Tr Σx, ratio end/start 2 / (1 + h/d)",
  parameters,
  quick: { d: 3, replicas: 16 },

  async measure(engine, given, seed, control) {
    const spec = given as Spec;
    const { d, varX, replicas } = spec;
    const varEps = spec.noise * varX;
    const { dense, twoLayer } = engine;
    const teacher = isotropicTeacher(engine, dense.identity(d), varX, varEps);
    const traceX = d * varX;
    const eta = (2 * spec.rate) / (d * (varX + varEps));
    const rate = predictions.isotropicRate({ d, sigma2: predictions.noiseStrength(eta, 1), varX, varEps });
    const steps = Math.ceil(spec.relaxations / (rate * eta));
    const trial = new Trial("E05b", engine, seed, control, 12);
    const end = twoLayer.finalTrace(teacher);
    const curves: Curve[] = [];
    const [ends, predictedEnds]: [number[], number[]] = [[], []];
    for (const times of WIDTHS) {
      const h = times * d;
      const setting = `h = ${h} = ${times === 1 ? "" : `${times} `}d`;
      const net = linearNet(d, h, d);
      const [U, W] = [net.leaf("U"), net.leaf("W")];
      const norms = ops.add(ops.sqnorm(U), ops.sqnorm(W));
      // Proposition 2 with Sigma_x = varX I
      const trace = ops.scale(norms, 2 * traceX);
      const data = teacherSampler(engine, teacher);
      const fresh = engine.problem(net, data);
      const theta = fresh.init("lecun", { seed: trial.seedOf(`${setting}/init`), replicas });
      const every = Math.max(1, Math.floor(steps / 120));
      const average = { from: Math.floor(0.75 * steps) + 1, every: 1 };
      const sgd = await trial.run(
        `SGD, ${setting}`,
        fresh,
        {
          scheme: "sgd",
          theta,
          eta,
          batchSize: 1,
          steps,
          replicas,
          record: { every, values: { trace }, average },
        },
        times + 1,
      );
      fresh.dispose();
      const population = engine.problem(net, momentMatched(data));
      const gdSteps = Math.ceil(3 / (eta * varX));
      const gd = await trial.run(
        `gradient descent, ${setting}`,
        population,
        {
          scheme: "gd",
          theta,
          eta,
          steps: gdSteps,
          replicas,
          record: { every: gdSteps, loss: "full", values: { trace }, matrixCharges: { Q: ["U", "W"] } },
        },
        0.5,
      );
      population.dispose();
      const start = predictions.initialTrace({ init: "lecun", dx: d, h, dy: d, traceSigmaX: traceX });
      rowsOf(trial, setting, sgd, { start, end, rate: spec.rate });
      trial.row(...conservation(gd, eta, h, `gradient descent, ${setting}`));
      const series = sgd.series.values.trace!;
      const x = [...sgd.series.k];
      curves.push({ label: setting, predicted: false, x, y: meanCurve(sgd, series) });
      curves.push({ label: setting, predicted: true, x: [0, steps], y: [start, end] });
      const last = meanOf(sgd.averages!.values.trace!).value;
      ends.push(last / meanOf(series.slice(0, replicas)).value);
      predictedEnds.push(predictions.traceRatio({ initial: end, final: start }).ratio);
    }
    trial.figure({
      title: "Sharpness along SGD, by width",
      caption:
        "Mean trace of the Hessian over the runs (solid). The dashed lines join the predicted value of the start and that of the noise equilibrium.",
      xLabel: "step",
      yLabel: "Tr ∇²L",
      xScale: "linear",
      yScale: "linear",
      curves,
    });
    trial.figure({
      title: "Flattening against the width",
      caption:
        "Mean trace of the Hessian at the end over that at the start (dots), and 2 / (1 + h/d) (dashed).",
      xLabel: "h / d",
      yLabel: "Tr ∇²L, end / start",
      xScale: "linear",
      yScale: "linear",
      curves: [
        { label: "SGD", predicted: false, x: WIDTHS, y: ends, mark: "dots" },
        { label: "SGD", predicted: true, x: WIDTHS, y: predictedEnds },
      ],
    });
    return trial.findings;
  },
};

/** Start, end and their quotient. */
function rowsOf(
  trial: Trial,
  setting: string,
  sgd: Run,
  { start, end, rate }: { readonly start: number; readonly end: number; readonly rate: number },
): void {
  const method = `mean over ${sgd.replicas} runs`;
  const series = sgd.series.values.trace!;
  const starts = Float64Array.from({ length: sgd.replicas }, (_, r) => at(sgd, series, 0, r));
  const averages = sgd.averages!.values.trace!;
  trial.row(
    { setting, quantity: "E Tr ∇²L at the start, 2 d h (1/d + 1/h) Tr Σx" },
    { value: start, modelError: 0, neglects: "nothing: exact in the mean over initialisations" },
    meanOf(starts, method),
  );
  const neglects = "fluctuations of the product U W, relative η (Tr Σx + Tr Σε) / 2";
  trial.row(
    { setting, quantity: "Tr ∇²L at the end, 4 d Tr Σx" },
    { value: end, modelError: rate * end, neglects },
    meanOf(averages, method),
  );
  trial.row(
    { setting, quantity: "Tr ∇²L, end over start, 2 / (1 + h/d)" },
    { value: end / start, modelError: (rate * end) / start, neglects },
    quotient(averages, starts),
  );
}

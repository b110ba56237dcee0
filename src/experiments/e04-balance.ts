import type { Engine } from "../engine.ts";
import { fail } from "../errors.ts";
import type { Model } from "../graph/model.ts";
import type { Node } from "../graph/node.ts";
import { ops } from "../graph/ops.ts";
import { momentMatched } from "../models/moment-matched.ts";
import type { Matrix } from "../stats/dense.ts";
import type { Curve, Experiment } from "./experiment.ts";
import {
  conservation,
  linearNet,
  randomTeacher,
  relaxationSteps,
  type Teacher,
  TURNING,
  teacherSampler,
  traceOf,
} from "./linear-net.ts";
import type { Parameter } from "./spec.ts";
import { overReplicas, Trial } from "./trial.ts";

const parameters = {
  d: { value: 5, min: 2, max: 12, integer: true, what: "input and output dimension" },
  h: { value: 8, min: 3, max: 24, integer: true, what: "hidden units, at least d" },
  eta: { value: 0.006, min: 0.002, max: 0.008, what: "step size of SGD and gradient descent" },
  relaxations: {
    value: 12,
    min: 8,
    max: 32,
    what: "length of SGD, in times 1 / rate of the slowest balance; averages over the last quarter",
  },
  gdSteps: {
    value: 4000,
    min: 1000,
    max: 100_000,
    integer: true,
    what: "steps of gradient descent on the population",
  },
  replicas: { value: 16, min: 4, max: 128, integer: true, what: "independent runs per case" },
  stdU: { value: 0.05, min: 0.02, max: 0.4, what: "standard deviation of the initial U" },
  stdW: { value: 0.8, min: 0.3, max: 1.2, what: "standard deviation of the initial W" },
  draws: {
    value: 5,
    min: 0,
    max: 16,
    integer: true,
    what: "random Sigma_x, Sigma_eps and V beside the sweep",
  },
  spread: { value: 1.5, min: 1, max: 4, what: "their eigenvalues lie in [1/spread, spread]" },
} satisfies Record<string, Parameter>;

type Spec = { [K in keyof typeof parameters]: number };

/** Anisotropies of the sweep: Sigma_x = diag(phi, phi, 1, ..., 1). */
const SWEEP = [0.2, 0.5, 1, 2, 5];

/** P = W S_x W^T and E = U^T S_eps U with S = Sigma / Tr Sigma, and the invariant part of P. */
function measures(engine: Engine, net: Model, teacher: Teacher): Record<string, Node> {
  const { dense } = engine;
  const [U, W] = [net.leaf("U"), net.leaf("W")];
  const constant = (A: Matrix, name: string) => net.graph.constant(A.values, [A.rows, A.cols], name);
  const normalised = (A: Matrix) => dense.scale(A, 1 / dense.trace(A));
  const Sx = normalised(teacher.SigmaX);
  const Se = normalised(teacher.SigmaEps);
  const P = ops.matmul(W, ops.matmul(constant(Sx, "Sx"), ops.transpose(W)));
  const E = ops.matmul(ops.transpose(U), ops.matmul(constant(Se, "Se"), U));
  // W enters as W^T W here, so rotations of the hidden units, which drift freely, drop out
  const root = constant(dense.sqrtSymmetric(Sx), "rootSx");
  const spectrum = ops.matmul(root, ops.matmul(ops.matmul(ops.transpose(W), W), root));
  return { P, E, spectrum };
}

export const balance: Experiment = {
  id: "E04",
  title: "Theorem 2: one balance of the two layers, whatever the start",
  question:
    "In a two-layer linear network U W x the layers can share the work in infinitely many ways. Gradient descent keeps the " +
    "share it starts with. Where does SGD put it, and does that depend on the input and on the label noise as Theorem 2 says?",
  source: "Ziyin et al., arXiv:2402.07193, Figure 3 (left), Theorem 2, eq. 16",
  claim:
    "SGD lies on the diagonal: the normalised pre-activation covariance W Σx Wᵀ equals the back-propagated noise Uᵀ Σε U, and " +
    "their common trace is the nuclear norm of Σε^½ V Σx^½. Gradient descent stays more than ten times off.",
  parameters,
  quick: { d: 3, h: 4, relaxations: 8, gdSteps: 1500, replicas: 8, draws: 1 },

  async measure(engine, given, seed, control) {
    const spec = given as Spec;
    const { d, h } = spec;
    if (h < d) fail("range", "E04", `h of at least d = ${d}, so that U W can be V`, `${h}`);
    const { dense } = engine;
    const identity = dense.identity(d);
    const sweep = SWEEP.map((phi) => ({
      name: `φ = ${phi}`,
      teacher: {
        V: identity,
        SigmaEps: identity,
        SigmaX: dense.diagonal(Float64Array.from({ length: d }, (_, i) => (i < 2 ? phi : 1))),
      },
    }));
    const random = Array.from({ length: spec.draws }, (_, i) => ({
      name: `random ${i + 1}`,
      teacher: randomTeacher(engine, d, spec.spread, `${seed}/E04/draw ${i}`),
    }));
    const cases = [...sweep, ...random];
    const trial = new Trial("E04", engine, seed, control, cases.length);
    const spectra: Curve[] = [];
    const traces: Record<"SGD" | "GD" | "theory", number[]> = { SGD: [], GD: [], theory: [] };

    for (const [i, { name, teacher }] of cases.entries()) {
      const net = linearNet(d, h, d);
      const data = teacherSampler(engine, teacher);
      const values = measures(engine, net, teacher);
      const fresh = engine.problem(net, data);
      const theta = fresh.init("normal", {
        std: { U: spec.stdU, W: spec.stdW },
        seed: trial.seedOf(`${name}/init`),
        replicas: spec.replicas,
      });
      const common = { theta, eta: spec.eta, replicas: spec.replicas };
      // sigma^2 = eta / 2 at S = 1
      const steps = relaxationSteps(engine, teacher, spec.eta, spec.relaxations);
      const sgd = await trial.run(
        `SGD, ${name}`,
        fresh,
        {
          ...common,
          scheme: "sgd",
          batchSize: 1,
          steps,
          seed: trial.seedOf(name),
          record: { every: steps, values, average: { from: Math.floor(0.75 * steps) + 1, every: 1 } },
        },
        0.9,
      );
      fresh.dispose();
      const population = engine.problem(net, momentMatched(data));
      const gd = await trial.run(
        `GD, ${name}`,
        population,
        {
          ...common,
          scheme: "gd",
          steps: spec.gdSteps,
          record: { every: spec.gdSteps, loss: "full", values, matrixCharges: { Q: ["U", "W"] } },
        },
        0.1,
      );
      population.dispose();

      // the prediction: singular values of S_eps^(1/2) V S_x^(1/2), S = Sigma / Tr Sigma
      const normal = (A: Matrix) => dense.sqrtSymmetric(dense.scale(A, 1 / dense.trace(A)));
      const { s } = dense.svd(
        dense.matmul(normal(teacher.SigmaEps), dense.matmul(teacher.V, normal(teacher.SigmaX))),
      );
      const predictedTrace = s.reduce((a, b) => a + b, 0);
      // fluctuations of the product U W at finite eta: 5 eta per eigenvalue at d = 5 with unit covariances
      const relative = (spec.eta * (dense.trace(teacher.SigmaX) + dense.trace(teacher.SigmaEps))) / 2;
      const neglects = `fluctuations of the product U W, relative η (Tr Σx + Tr Σε) / 2; not in it: ${TURNING}`;
      const averages = sgd.averages!.values;
      const trP = overReplicas(sgd, (r) => traceOf(averages["P"]!, r, h));
      const ratio = overReplicas(sgd, (r) => traceOf(averages["P"]!, r, h) / traceOf(averages["E"]!, r, h));
      const setting = `SGD, ${name}`;
      trial.row(
        { setting, quantity: "Tr W Σ̄x Wᵀ" },
        { value: predictedTrace, modelError: relative * predictedTrace, neglects },
        trP,
      );
      trial.row(
        { setting, quantity: "Tr W Σ̄x Wᵀ / Tr Uᵀ Σ̄ε U" },
        { value: 1, modelError: relative, neglects },
        ratio,
      );
      trial.row(...conservation(gd, spec.eta, h, `GD, ${name}`));

      const last = (data: Float64Array, r: number) => traceOf(data.subarray(spec.replicas * h * h), r, h);
      const gdRatio = overReplicas(
        gd,
        (r) => last(gd.series.values["P"]!, r) / last(gd.series.values["E"]!, r),
      );
      traces.SGD.push(ratio.value);
      traces.GD.push(gdRatio.value);
      traces.theory.push(1);
      if (i < sweep.length)
        spectra.push(...spectrumOf(engine, name, averages["spectrum"]!, spec.replicas, d, s));
    }
    trial.figure({
      title: "Balance of the layers against the anisotropy of the input",
      caption: "Tr W Σ̄x Wᵀ over Tr Uᵀ Σ̄ε U at the end of training; balance is 1. Σx = diag(φ, φ, 1, …).",
      xLabel: "φ",
      yLabel: "ratio of the two traces",
      xScale: "log",
      yScale: "log",
      curves: (["SGD", "GD", "theory"] as const).map((label) => ({
        label: label === "theory" ? "SGD" : label === "GD" ? "gradient descent" : "SGD",
        predicted: label === "theory",
        x: SWEEP,
        y: traces[label].slice(0, SWEEP.length),
      })),
    });
    trial.figure({
      title: "Spectrum at the equilibrium",
      caption:
        "Eigenvalues of Σ̄x^½ WᵀW Σ̄x^½, averaged over time and runs, beside the predicted singular values of Σ̄ε^½ V Σ̄x^½.",
      xLabel: "eigenvalue number",
      yLabel: "eigenvalue",
      xScale: "linear",
      yScale: "linear",
      curves: spectra,
    });
    return trial.findings;
  },
};

/** Eigenvalues of the averaged matrix, mean over replicas, beside the predicted ones. */
function spectrumOf(
  engine: Engine,
  label: string,
  average: Float64Array,
  replicas: number,
  d: number,
  predicted: Float64Array,
): Curve[] {
  const mean = new Float64Array(d);
  for (let r = 0; r < replicas; r++) {
    const values = average.slice(r * d * d, (r + 1) * d * d);
    const { values: eigen } = engine.dense.symmetricEigen({ rows: d, cols: d, values });
    for (let i = 0; i < d; i++) mean[i]! += eigen[i]! / replicas;
  }
  const x = Array.from({ length: d }, (_, i) => i + 1);
  return [
    { label, predicted: false, x, y: [...mean] },
    { label, predicted: true, x, y: [...predicted] },
  ];
}

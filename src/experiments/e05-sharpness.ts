import { exp } from "../core/elementary.ts";
import { ops } from "../graph/ops.ts";
import { momentMatched } from "../models/moment-matched.ts";
import { initialTrace, type NamedInit } from "../symmetry/predictions/initialisation.ts";
import type { Curve, Experiment } from "./experiment.ts";
import {
  conservation,
  linearNet,
  randomTeacher,
  relaxationSteps,
  type Teacher,
  TURNING,
  teacherSampler,
} from "./linear-net.ts";
import type { Parameter } from "./spec.ts";
import { at, meanCurve, overReplicas, Trial } from "./trial.ts";

const parameters = {
  d: { value: 5, min: 2, max: 10, integer: true, what: "input and output dimension of the autoencoder" },
  h: { value: 50, min: 10, max: 200, integer: true, what: "hidden units" },
  eta: { value: 0.004, min: 0.0015, max: 0.006, what: "step size of SGD and gradient descent" },
  relaxations: {
    value: 8,
    min: 6,
    max: 24,
    what: "length of SGD, in times 1 / rate of the slowest balance; averages over the last quarter",
  },
  gdSteps: {
    value: 3000,
    min: 1000,
    max: 100_000,
    integer: true,
    what: "steps of gradient descent on the population",
  },
  replicas: { value: 12, min: 4, max: 128, integer: true, what: "independent runs per case" },
  draws: {
    value: 5,
    min: 0,
    max: 16,
    integer: true,
    what: "random Sigma_x, Sigma_eps and V beside the autoencoder",
  },
  spread: { value: 1.5, min: 1, max: 3, what: "their eigenvalues lie in [1/spread, spread]" },
} satisfies Record<string, Parameter>;

type Spec = { [K in keyof typeof parameters]: number };

/** Initialisations, with the variances of the entries of W and U. */
const INITS: readonly { readonly kind: NamedInit; readonly name: string }[] = [
  { kind: "paperXavier", name: "1/(in+out)" },
  { kind: "glorot", name: "Glorot, 2/(in+out)" },
  { kind: "lecun", name: "1/fan-in" },
  { kind: "he", name: "He, 2/fan-in" },
];

export const sharpness: Experiment = {
  id: "E05",
  title: "Proposition 2: sharpness goes to one value from every initialisation",
  question:
    "The trace of the Hessian of a two-layer linear network is 2 dy Tr[W Σx Wᵀ] + 2 ‖U‖² Tr Σx. Different initialisations " +
    "start at very different sharpness. Does SGD flatten or sharpen them to the value of the noise equilibrium?",
  source: "Ziyin et al., arXiv:2402.07193, Figure 3 (right), Proposition 2, eq. 17",
  claim:
    "SGD ends at the same sharpness from every start, the one predicted from Theorem 2; initialisations above it are flattened " +
    "and those below sharpened. Gradient descent keeps the imbalance Tr Q of the two layers and so cannot go there.",
  parameters,
  quick: { d: 3, h: 10, relaxations: 6, gdSteps: 1500, replicas: 8, draws: 1 },

  async measure(engine, given, seed, control) {
    const spec = given as Spec;
    const { d, h, replicas } = spec;
    const { dense, twoLayer } = engine;
    const autoencoder: Teacher = {
      V: dense.identity(d),
      SigmaX: dense.identity(d),
      SigmaEps: dense.identity(d),
    };
    const cases = [
      ...INITS.map((init) => ({ name: init.name, init, teacher: autoencoder, sweep: true })),
      ...Array.from({ length: spec.draws }, (_, i) => ({
        name: `random ${i + 1}`,
        init: INITS[1]!,
        teacher: randomTeacher(engine, d, spec.spread, `${seed}/E05/draw ${i}`),
        sweep: false,
      })),
    ];
    const trial = new Trial("E05", engine, seed, control, cases.length);
    const curves: Curve[] = [];

    for (const { name, init, teacher, sweep } of cases) {
      const net = linearNet(d, h, d);
      const [U, W] = [net.leaf("U"), net.leaf("W")];
      const Sx = net.graph.constant(teacher.SigmaX.values, [d, d], "SigmaX");
      const traceX = dense.trace(teacher.SigmaX);
      // Proposition 2 as an expression of the parameters
      const trace = ops.add(
        ops.scale(ops.sum(ops.mul(W, ops.matmul(W, Sx))), 2 * d),
        ops.scale(ops.sqnorm(U), 2 * traceX),
      );
      const data = teacherSampler(engine, teacher);
      const fresh = engine.problem(net, data);
      const theta = fresh.init(init.kind, { seed: trial.seedOf(`${name}/init`), replicas });
      const common = { theta, eta: spec.eta, replicas };
      // sigma^2 = eta / 2 at S = 1
      const steps = relaxationSteps(engine, teacher, spec.eta, spec.relaxations);
      const every = Math.max(1, Math.floor(steps / 100));
      const from = Math.floor(0.75 * steps) + 1;
      const sgd = await trial.run(
        `SGD, ${name}`,
        fresh,
        {
          ...common,
          scheme: "sgd",
          batchSize: 1,
          steps,
          seed: trial.seedOf(name),
          record: { every, values: { trace }, average: { from, every: 1 } },
        },
        sweep ? 0.9 : 1,
      );
      fresh.dispose();

      const predictedEnd = twoLayer.finalTrace(teacher);
      const fluctuation = (spec.eta * (traceX + dense.trace(teacher.SigmaEps))) / 2;
      const startTrace = initialTrace({ init: init.kind, dx: d, h, dy: d, traceSigmaX: traceX });
      // Tr is sqrt(q^2 + 4 p^2) in the charges q left over, of relative size 2 Tr_init / Tr_end at the start
      const left = (2 * startTrace * exp(-0.75 * spec.relaxations)) / predictedEnd;
      const relative = fluctuation + (left * left) / 8;
      const neglects = `fluctuations of the product U W, relative η (Tr Σx + Tr Σε) / 2, and what is left of the start; not in it: ${TURNING}`;
      trial.row(
        { setting: `SGD, ${name}`, quantity: "Tr ∇²L at the end" },
        { value: predictedEnd, modelError: relative * predictedEnd, neglects },
        overReplicas(sgd, (r) => sgd.averages!.values["trace"]![r]!),
      );
      const series = sgd.series.values["trace"]!;
      if (sweep) {
        trial.row(
          { setting: `start, ${name}`, quantity: "E Tr ∇²L, 2 dy h (σW² + σU²) Tr Σx" },
          { value: startTrace, modelError: 0, neglects: "nothing: exact in the mean over initialisations" },
          overReplicas(sgd, (r) => at(sgd, series, 0, r)),
        );
        const population = engine.problem(net, momentMatched(data));
        const gd = await trial.run(
          `GD, ${name}`,
          population,
          {
            ...common,
            scheme: "gd",
            steps: spec.gdSteps,
            record: {
              every: spec.gdSteps,
              loss: "full",
              values: { trace },
              matrixCharges: { Q: ["U", "W"] },
            },
          },
          0.1,
        );
        population.dispose();
        trial.row(...conservation(gd, spec.eta, h, `GD, ${name}`));
        curves.push({ label: name, predicted: false, x: [...sgd.series.k], y: meanCurve(sgd, series) });
        curves.push({ label: name, predicted: true, x: [0, steps], y: [predictedEnd, predictedEnd] });
      }
    }
    trial.figure({
      title: "Sharpness along SGD",
      caption:
        "Mean trace of the Hessian of the autoencoder over the runs of each initialisation; the dashed line is the prediction.",
      xLabel: "step",
      yLabel: "Tr ∇²L",
      xScale: "linear",
      yScale: "log",
      curves,
    });
    return trial.findings;
  },
};

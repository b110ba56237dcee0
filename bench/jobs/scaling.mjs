// How the cost of a step, or of Tr Sigma, grows with samples N, parameters P, batch size S and replicas R; and what other nets
// cost beside the two-layer linear one of the same size. Our side alone, f64, baseline SIMD.
import { nets } from "../nets.mjs";
import { engineOf, finished, noetherflow } from "../ours.mjs";

const side = (id, label, kind, more) => ({ id, label, kind, host: "ours", variant: "simd", ...more });

const job = (name, title, unit, sides) => ({
  ...{ module: import.meta.url, family: "scaling", name, title, unit, dtype: "f64" },
  // what these compute is checked by the tests and by the other jobs
  ...{ unchecked: true, sides },
});

const sgd = (id, label, net, sizes, S, replicas = 1) =>
  side(id, label, "sgd", { net, sizes, S, replicas, unitsPerRun: replicas });

export const jobs = [
  job(
    "N",
    "Tr Sigma, two-layer linear net 16-32-16, P = 1024, N samples",
    "sample",
    [128, 512, 2048, 8192, 32768].map((N) =>
      side(`N-${N}`, `N = ${N}`, "trace", { sizes: [16, 32, 16], N, unitsPerRun: N }),
    ),
  ),
  job(
    "P",
    "SGD step, two-layer linear net of width d, P = 2 d^2, S = 32",
    "step",
    [4, 8, 16, 32, 64, 128].map((d) => sgd(`P-${2 * d * d}`, `P = ${2 * d * d}`, "twoLayer", [d, d, d], 32)),
  ),
  job(
    "S",
    "SGD step, two-layer linear net, d = 16, batches of S",
    "step",
    [1, 2, 4, 8, 32, 128, 512].map((S) => sgd(`S-${S}`, `S = ${S}`, "twoLayer", [16, 16, 16], S)),
  ),
  job(
    "R",
    "R replicas of (u w x - y)^2, S = 1",
    "replica-step",
    [1, 4, 16, 64, 256, 1024].map((R) => sgd(`R-${R}`, `R = ${R}`, "rankOne", [1], 1, R)),
  ),
  job("nets", "SGD step of other nets, d = 16, S = 32", "step", [
    sgd("linear", "two-layer linear", "twoLayer", [16, 16, 16], 32),
    sgd("odd", "two-layer linear, 12-20-7", "twoLayer", [12, 20, 7], 32),
    sgd("three", "three-layer linear", "threeLayer", [16, 16, 16, 16], 32),
    sgd("tanh", "tanh with bias", "tanhBias", [16, 16, 16], 32),
    sgd("softmax", "softmax cross-entropy", "softmaxTwoLayer", [16, 16, 16], 32),
    sgd("weight-norm", "weight-normalised", "weightNormalised", [16, 16, 16], 32),
  ]),
];

export const sides = {
  async sgd({ job: of, side: { variant, net: name, sizes, S, replicas } }) {
    const engine = await engineOf(of, variant);
    const net = nets[name](sizes);
    const problem = engine.problem(net.build(noetherflow), net.data(2048));
    // small enough for every width
    const eta = net.eta / Math.max(1, sizes[0] / 16);
    const options = { scheme: "sgd", theta: net.theta, eta, batchSize: S, replicas, seed: "bench" };
    return { run: async (steps) => (await finished(problem.simulate({ ...options, steps }))).hash };
  },
  async trace({ job: of, side: { variant, sizes, N } }) {
    const engine = await engineOf(of, variant);
    const net = nets.halfTwoLayer(sizes);
    const problem = engine.problem(net.build(noetherflow), net.data(N));
    const theta = problem.theta(net.theta);
    return {
      run(count) {
        let value;
        for (let i = 0; i < count; i++) value = problem.noiseTrace(theta).value;
        return value;
      },
    };
  },
};

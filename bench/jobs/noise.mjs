// J2: the noise of 2048 per-sample gradients of 1/2 |U W x - y|^2, 16-32-16, P = 1024: Tr Sigma, and the whole of Sigma.
import { blockForm, filled, nets, normals, rowForm } from "../nets.mjs";
import { engineOf, jobOf, N, noetherflow, prototypeOf, referenceEngine } from "../ours.mjs";
import { prototypeMoments } from "../prototypes.mjs";

const sizes = [16, 32, 16];
const [d, h, o] = sizes;

const measures = {
  trace: "Tr Sigma, P = 1024",
  moment: "E|g|^2, not centred, P = 1024",
  full: "the whole of Sigma, P = 1024",
};

export const jobs = ["f64", "f32"].flatMap((dtype) =>
  Object.entries(measures)
    // the uncentred moment is there for the prototype, which does not centre
    .filter(([measure]) => dtype === "f64" || measure !== "moment")
    .map(([measure, title]) =>
      jobOf(import.meta.url, {
        name: `J2-${measure}${dtype === "f32" ? "-f32" : ""}`,
        family: "noise",
        title: `${title}, of 2048 per-sample gradients`,
        unit: "call",
        dtype,
        prototype: dtype === "f64",
        params: { N, d, h, o, whole: measure === "full" ? 1 : 0, centred: measure === "moment" ? 0 : 1 },
      }),
    ),
);

export const settingOf = () => nets.halfTwoLayer(sizes);

/** Data, weights in row form, and a vector v for the check: Sigma v stands for the whole of Sigma. */
export function inputs() {
  const net = settingOf();
  const { x: X, y: Y } = net.data(N);
  const v = filled(d * h + h * o, normals(11));
  return { X, Y, weights: Float64Array.from(rowForm(net.theta, sizes)), v };
}

/** By our vector routine, which never forms Sigma: Sigma v in row form, or the trace. */
async function expectedOf({ params }) {
  const engine = await referenceEngine();
  const net = settingOf();
  const problem = engine.problem(net.build(noetherflow), net.data(N));
  const theta = problem.theta(net.theta);
  const centred = params.centred === 1;
  const expected = params.whole
    ? rowForm(problem.named(problem.noiseVector(theta, blockForm(inputs().v, sizes))), sizes)
    : [problem.noiseTrace(theta, { centred }).value];
  engine.dispose();
  return expected;
}

export const sides = {
  async ours({ job, side }) {
    const engine = await engineOf(job, side.variant);
    const net = settingOf();
    const problem = engine.problem(net.build(noetherflow), net.data(N));
    const theta = problem.theta(net.theta);
    const { whole } = job.params;
    const centred = job.params.centred === 1;
    const once = async () =>
      whole ? await problem.noiseCovariance(theta) : problem.noiseTrace(theta, { centred }).value;
    return {
      async run(count) {
        let value;
        for (let i = 0; i < count; i++) value = await once();
        return value;
      },
      async check() {
        const expected = await expectedOf(job);
        const value = await once();
        if (!whole) return { values: [value], expected };
        const { P } = problem;
        const v = problem.theta(blockForm(inputs().v, sizes));
        const product = v.map((_, i) => v.reduce((sum, vj, j) => sum + value[i * P + j] * vj, 0));
        return { values: rowForm(problem.named(product), sizes), expected };
      },
    };
  },
  async prototype(context) {
    const exports = await prototypeOf(context);
    const { whole } = context.job.params;
    const net = settingOf();
    const once = prototypeMoments(exports, whole, sizes, net.data(N), net.theta);
    return {
      run(count) {
        let value;
        for (let i = 0; i < count; i++) value = once();
        return value;
      },
      // it does not centre, and sums the diagonal of what it gets
      check: async () => ({
        values: [once()],
        expected: await expectedOf({ params: { whole: 0, centred: 0 } }),
      }),
    };
  },
};

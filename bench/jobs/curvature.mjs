// J3: the trace of the Hessian by Hutchinson's estimator, 64 probes of signs, 1/2 |U tanh(W x) - y|^2, 64-64-64, 1024 samples.
import { blockForm, filled, nets, rowForm, uniforms } from "../nets.mjs";
import { engineOf, jobOf, noetherflow, prototypeOf, referenceEngine } from "../ours.mjs";
import { prototypeHutchinson } from "../prototypes.mjs";

const d = 64;
const sizes = [d, d, d];
const N = 1024;
const PROBES = 64;

export const jobs = ["f64", "f32"].map((dtype) =>
  jobOf(import.meta.url, {
    name: `J3${dtype === "f32" ? "-f32" : ""}`,
    family: "curvature",
    title: "Hessian trace, tanh net 64-64-64, N = 1024, 64 probes",
    unit: "call",
    dtype,
    prototype: dtype === "f64",
    params: { N, d, h: d, o: d, probes: PROBES },
  }),
);

const settingOf = () => nets.halfTanh(sizes);

/** Data, weights in row form, and one probe of signs for the check. */
export function inputs() {
  const net = settingOf();
  const { x: X, y: Y } = net.data(N);
  const uniform = uniforms(12);
  const v = filled(2 * d * d, () => (uniform() < 0.5 ? -1 : 1));
  return { X, Y, weights: Float64Array.from(rowForm(net.theta, sizes)), v };
}

const hutchinson = { method: "hutchinson", probes: PROBES, seed: "bench" };

export const sides = {
  async ours({ job, side }) {
    const engine = await engineOf(job, side.variant);
    const net = settingOf();
    const problem = engine.problem(net.build(noetherflow), net.data(N));
    const theta = problem.theta(net.theta);
    const quadratic = (on) => {
      const v = on.theta(blockForm(inputs().v, sizes));
      return on.hessianVector(on.theta(net.theta), v).reduce((sum, hv, i) => sum + hv * v[i], 0);
    };
    return {
      async run(count) {
        let value;
        for (let i = 0; i < count; i++) value = (await problem.hessianTrace(theta, hutchinson)).value;
        return value;
      },
      // v . H v for the one probe that all sides get
      async check() {
        const engine64 = await referenceEngine();
        const reference = engine64.problem(net.build(noetherflow), net.data(N));
        return { values: [quadratic(problem)], expected: [quadratic(reference)] };
      },
    };
  },
  async prototype(context) {
    const exports = await prototypeOf(context);
    const net = settingOf();
    const data = net.data(N);
    const once = prototypeHutchinson(exports, d, PROBES, data, net.theta);
    return {
      run(count) {
        let value;
        for (let i = 0; i < count; i++) value = once();
        return value;
      },
      // it draws its own probes: within five standard errors of the exact trace, which our estimator knows
      async check() {
        const engine = await referenceEngine();
        const problem = engine.problem(net.build(noetherflow), data);
        const theta = problem.theta(net.theta);
        const exact = (await problem.hessianTrace(theta, { method: "exact" })).value;
        const { stdErr } = await problem.hessianTrace(theta, hutchinson);
        return { values: [once()], expected: [exact], tolerance: (5 * stdErr) / exact };
      },
    };
  },
};

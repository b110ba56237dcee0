// Normals per second. Ours are drawn through the public interface: a data set of a sampler, ready in the engine's memory, and the
// initial theta of `problem.init`, an array of the caller.
import { momentsCheck } from "../moments.mjs";
import { engineOf, jobOf, noetherflow } from "../ours.mjs";

const ENTRIES = 64;
const SAMPLES = 4096;
const COUNT = ENTRIES * SAMPLES;

export const jobs = ["f64", "f32"].map((dtype) => {
  const job = jobOf(import.meta.url, {
    name: `normals${dtype === "f32" ? "-f32" : ""}`,
    family: "normals",
    title: "standard normals, 2^18 at a time",
    unit: "normal",
    unitsPerRun: COUNT,
    dtype,
    params: { count: COUNT },
  });
  const init = {
    ...{
      id: "ours-init",
      label: "ours, simd, as initial theta",
      kind: "init",
      host: "ours",
      variant: "simd",
    },
  };
  return { ...job, sides: [...job.sides, init] };
});

export const inputs = () => ({});

/** x of a data set is read back through the losses a . x of basis vectors a. */
const net = () => {
  const { model, ops } = noetherflow;
  return model({
    params: { a: [ENTRIES] },
    inputs: { x: [ENTRIES] },
    loss: ({ a, x }) => ops.matmul(a, x),
  });
};

export const sides = {
  async ours({ job, side }) {
    const engine = await engineOf(job, side.variant);
    const source = noetherflow.sampler({
      noise: { x: { kind: "normal", shape: [ENTRIES] } },
      outputs: ({ x }) => ({ x }),
    });
    const drawn = () => engine.problem(net(), source, { samples: SAMPLES, dataSeed: "bench" });
    return {
      run(count) {
        for (let i = 0; i < count; i++) drawn().dispose();
        return String(count);
      },
      check() {
        const problem = drawn();
        const basis = (i) => Float64Array.from({ length: ENTRIES }, (_, j) => (i === j ? 1 : 0));
        const values = Array.from({ length: ENTRIES }, (_, i) => [...problem.losses(basis(i))]).flat();
        problem.dispose();
        return momentsCheck(values);
      },
    };
  },
  async init({ job, side }) {
    const engine = await engineOf(job, side.variant);
    const { model, ops } = noetherflow;
    const large = model({
      params: { a: [COUNT] },
      inputs: { x: [] },
      loss: ({ a, x }) => ops.mul(x, ops.sum(a)),
    });
    const problem = engine.problem(large, { x: [1] });
    const once = () => problem.init("normal", { std: 1, seed: "bench" });
    return {
      run(count) {
        let drawn;
        for (let i = 0; i < count; i++) drawn = once();
        return drawn;
      },
      check: () => momentsCheck(Array.from(once())),
    };
  },
};

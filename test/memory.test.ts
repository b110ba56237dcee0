/**
 * What a run and a measurement take: the plan against the formulae of docs/memory.md, what is reserved against the plan, and the pages of
 * Wasm memory and the resident set of a process against it.
 */
import { afterAll, describe, expect, test } from "vitest";
import { createEngine, type MemoryPlan, model, models, NoetherflowError, ops } from "../src/index.ts";
import { streamedRun } from "./helpers/streamed.ts";

const engines = { f64: await createEngine(), f32: await createEngine({ dtype: "f32" }) };
afterAll(() => {
  for (const engine of Object.values(engines)) engine.dispose();
});

const BYTES = { f64: 8, f32: 4 } as const;
const dtypes = ["f64", "f32"] as const;

/** P parameters, records of `size` + 1 values; no value of a sample grows with P. */
function problemOf(dtype: keyof typeof engines, P: number, N: number, size = 3) {
  const net = model({
    params: { w: [P] },
    inputs: { x: [size], y: [] },
    loss: ({ w, x, y }) => ops.mul(ops.sub(ops.sum(x), y), ops.sqnorm(w)),
  });
  return engines[dtype].problem(net, { x: new Float32Array(N * size), y: new Float32Array(N) });
}

function planOf(
  dtype: keyof typeof engines,
  { P, N, R }: { P: number; N: number; R: number },
  options: object,
): MemoryPlan {
  const problem = problemOf(dtype, P, N);
  const theta = new Float64Array(P);
  const plan = problem.memory({ theta, eta: 0.1, steps: 1, replicas: R, ...options } as never);
  problem.dispose();
  return plan;
}

/** Vectors beside theta that live from step to step. */
const vectors = {
  gd: 0,
  sgd: 0,
  "sgd, momentum": 1,
  sde: 0,
  svag: 1,
  modified: 1,
  rmsprop: 1,
  adam: 2,
  flow: 7,
} as const;
const optionsOf: Record<keyof typeof vectors, object> = {
  gd: { scheme: "gd" },
  sgd: { scheme: "sgd", batchSize: 64 },
  "sgd, momentum": { scheme: "sgd", batchSize: 64, momentum: 0.9 },
  sde: { scheme: "sde", batchSize: 64 },
  adam: { scheme: "adam", batchSize: 64 },
  svag: { scheme: "svag", batchSize: 64, l: 2 },
  modified: { scheme: "modified", batchSize: 64 },
  rmsprop: { scheme: "rmsprop", batchSize: 64 },
  flow: { scheme: "flow" },
};

describe.each(dtypes)("the formulae in %s:", (dtype) => {
  const b = BYTES[dtype];
  // whole cache lines, so that padding is the same
  const [P, more, N, many] = [1024, 11264, 1024, 5120];

  describe.each(Object.keys(vectors) as (keyof typeof vectors)[])("a run of %s", (name) => {
    const V = vectors[name];

    test.each([1, 2, 7])("has state for every parameter, %d replicas beside one batch", (R) => {
      const options = { ...optionsOf[name], lowering: { lanes: "samples" } };
      const [a, c] = [P, more].map((p) => planOf(dtype, { P: p, N, R }, options).state) as [number, number];
      const copies = R === 1 ? 2 : 1 + 2 * R;
      expect((c - a) / (more - P)).toBe((1 + V) * b * copies);
    });

    test("has state for every parameter and lane", () => {
      const options = { ...optionsOf[name], lowering: { lanes: "replicas" } };
      const [a, c] = [P, more].map((p) => planOf(dtype, { P: p, N, R: 6 }, options).state) as [
        number,
        number,
      ];
      // six replicas fill whole registers of two or four values
      const lanes = dtype === "f64" ? 6 : 8;
      expect((c - a) / (more - P)).toBe(2 * (1 + V) * b * lanes);
    });

    test("keeps data, and what is drawn for each sample", () => {
      const plans = [N, many].map((n) => planOf(dtype, { P, N: n, R: 1 }, optionsOf[name]));
      const slope = (key: keyof MemoryPlan) => (plans[1]![key] - plans[0]![key]) / (many - N);
      expect(slope("data")).toBe(4 * b + 4);
      expect(slope("samples")).toBe(name === "sde" || name === "modified" ? b : 0);
      expect(slope("state")).toBe(0);
      expect(slope("trace")).toBe(0);
    });
  });

  test.each([
    ["iid", 0],
    ["without", 4],
    ["epochs", 8],
  ] as const)("sampling %s takes %d bytes per sample", (sampling, bytes) => {
    const options = { scheme: "sgd", batchSize: 64, sampling };
    const [a, c] = [N, many].map((n) => planOf(dtype, { P, N: n, R: 1 }, options).samples) as [
      number,
      number,
    ];
    expect((c - a) / (many - N)).toBe(bytes);
  });

  test("the host has theta as given and as returned, and the series", () => {
    const plan = planOf(
      dtype,
      { P, N, R: 3 },
      { scheme: "gd", steps: 100, record: { every: 10, blockNorms: true } },
    );
    expect(plan.host).toBe(3 * P * (8 + b) + 8 * 11 * (1 + 3));
  });

  test.each([
    ["loss", b, 0],
    ["losses", b, b],
  ] as const)("%s takes %d bytes per parameter and %d per sample", (what, perParameter, perSample) => {
    const values = (p: number, n: number): number => {
      const problem = problemOf(dtype, p, n);
      const plan = problem.memory(what);
      problem.dispose();
      return plan.values;
    };
    expect((values(more, N) - values(P, N)) / (more - P)).toBe(perParameter);
    expect((values(P, many) - values(P, N)) / (many - N)).toBe(perSample);
  });

  test("data that are read take their buffer, whatever N", () => {
    const net = models.twoLayerLinear({ dx: 30, h: 4, dy: 2 });
    const read = () => ({});
    const bufferBytes = 1e6;
    const theta = new Float64Array(128);
    for (const N of [100_000, 1e9]) {
      const problem = engines[dtype].problem(net, { N, read, bufferBytes });
      for (const options of [{ scheme: "gd" }, { scheme: "sgd", batchSize: 8 }] as const) {
        const plan = problem.memory({ ...options, theta, eta: 0.1, steps: 1000 });
        expect(plan.data).toBeLessThanOrEqual(bufferBytes);
        expect(plan.samples).toBeLessThanOrEqual(bufferBytes);
        // 32 of 32 b + 32 bytes are for lists, half of them in Wasm; one sample of the buffer may not fit any more
        expect(plan.data + plan.samples).toBeGreaterThan(2 * (0.7 * bufferBytes - 32 * b - 32));
      }
      problem.dispose();
    }
  });
});

describe.each(dtypes)("what is reserved in %s", (dtype) => {
  test.each(Object.entries(optionsOf))("during a run of %s is the plan", async (_, options) => {
    const engine = engines[dtype];
    const before = engine.bytesInUse;
    const problem = problemOf(dtype, 1000, 3000);
    const theta = new Float64Array(1000).fill(0.01);
    const seen: number[] = [];
    const measures = { held: () => seen.push(engine.bytesInUse - before) };
    const all = {
      theta,
      eta: 1e-9,
      steps: 4,
      replicas: 3,
      record: { every: 1, loss: "full" },
      ...options,
    } as const;
    const plan = problem.memory(all as never);
    await problem.simulate({ ...all, probes: { every: 2, measures } } as never);
    problem.dispose();
    const planned = plan.data + plan.state + plan.samples + plan.trace + plan.values;
    expect(seen.length).toBeGreaterThan(0);
    // a region that starts elsewhere may be padded otherwise, by less than a cache line
    for (const held of seen) expect(Math.abs(held - planned)).toBeLessThanOrEqual(64);
  });

  test.each(["loss", "losses", "gradient", "noiseTrace"] as const)("by %s is the plan", (what) => {
    const engine = engines[dtype];
    const problem = problemOf(dtype, 1000, 3000);
    const before = engine.bytesInUse;
    const plan = problem.memory(what);
    expect(engine.bytesInUse).toBe(before);
    const theta = new Float64Array(1000).fill(0.01);
    if (what === "noiseTrace") problem.noiseTrace(theta, { method: "streamed" });
    else problem[what](theta);
    const held = engine.bytesInUse - before;
    expect(held).toBeLessThanOrEqual(plan.values + 64);
    if (what !== "noiseTrace") expect(held).toBeGreaterThanOrEqual(plan.values - 64);
    problem.dispose();
  });
});

test.each(dtypes)("Wasm memory in %s grows by at most 1.2 of the plan, and a page", async (dtype) => {
  const engine = await createEngine({ dtype });
  const start = engine.core.memory.buffer.byteLength;
  const net = models.twoLayerLinear({ dx: 100, h: 50, dy: 10 });
  const problem = engine.problem(net, { x: new Float32Array(1e6), y: new Float32Array(1e5) });
  const theta = problem.init("glorot", { seed: 1 });
  const options = {
    scheme: "sgd",
    theta,
    eta: 1e-3,
    batchSize: 100,
    steps: 5,
    replicas: 20,
    momentum: 0.5,
  } as const;
  const [run, gradient] = [problem.memory(options), problem.memory("gradient")];
  await problem.simulate(options);
  problem.gradient(theta);
  const planned = gradient.data + Math.max(run.bytes - run.data - run.host, gradient.values);
  const grown = engine.core.memory.buffer.byteLength - start;
  expect(planned).toBeGreaterThan(5e6);
  expect(grown).toBeLessThanOrEqual(1.2 * planned + 65536);
  expect(grown).toBeGreaterThanOrEqual(planned - 2 * 65536);
  engine.dispose();
});

test("128 MiB that are read on the way take no more than 1.2 of the plan, of Wasm memory and of the process", async () => {
  const { wasm, rss, planned, bytes, read } = await streamedRun(128);
  expect(bytes).toBe(128 * 1024 * 1024);
  // loss, gradient, noise, two steps of GD and three losses beside them, and what SGD draws
  expect(read).toBeGreaterThan(8 * bytes);
  expect(wasm).toBeLessThanOrEqual(1.2 * planned.wasm);
  expect(rss.growth).toBeLessThanOrEqual(1.2 * (planned.wasm + planned.host));
  expect(rss.growth).toBeLessThan(bytes);
}, 120_000);

describe("refused", () => {
  const messageOf = (make: () => unknown): string => {
    try {
      make();
    } catch (error) {
      if (error instanceof NoetherflowError) return error.message;
    }
    return "nothing was refused";
  };
  test("an unknown measurement, options that simulate refuses, a measurement of fresh samples", () => {
    const problem = problemOf("f64", 10, 10);
    expect(messageOf(() => problem.memory("los" as never))).toBe(
      'memory: a measurement must be one of "loss", "losses", "gradient", "noiseTrace", got "los". Did you mean "loss"?',
    );
    expect(messageOf(() => problem.memory({ scheme: "gd", theta: [1], eta: 1, steps: 1 }))).toMatch(/theta/);
    problem.dispose();
    expect(messageOf(() => problem.memory("loss"))).toMatch(/disposed/);
  });
});

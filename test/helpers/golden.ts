/**
 * Runs whose hashes are committed in test/golden.json, the same on every host. Together they pass through every
 * elementary function, every kind of draw, both dtypes and every lane mode. Works in Node and in a browser.
 *
 * A hash that changes is a decision: a kernel, an order of summation, a stream or a default became another. When that
 * is meant, write the file anew and say so under "Numbers changed" in CHANGELOG.md:
 *
 *   GOLDEN=write npx vitest run --project node test/dynamics/golden.test.ts
 */
import {
  createEngine,
  type Engine,
  type Expr,
  type Generator,
  model,
  momentMatched,
  ops,
  type Problem,
  type Run,
  sampler,
  symmetry,
} from "../../src/index.ts";
import { inflate } from "../../src/wasm/inlined.ts";
import { decodeBase64 } from "../../src/wasm/module.ts";

type Options = Parameters<Problem["simulate"]>[0];

export interface GoldenRun {
  readonly name: string;
  readonly dtype: "f64" | "f32";
  readonly variant: "simd" | "fma";
  /** The run, with its lanes in one of three places; all must give the committed hash. */
  run(engine: Engine, lanes: "samples" | "replicas" | "features"): Promise<Run>;
}

/** y = V x + noise, x and the noise normal. */
const teacher = () =>
  sampler({
    noise: { x: { kind: "normal", shape: [3] }, e: { kind: "normal", shape: [2] } },
    constants: {
      V: [
        [1, 0.5, -0.25],
        [0, -1, 0.75],
      ],
    },
    outputs: ({ x, e, V }) => ({ x, y: ops.add(ops.matmul(V, x), ops.scale(e, 0.5)) }),
  });

const linear = () =>
  model({
    params: { U: [2, 4], W: [4, 3] },
    inputs: { x: [3], y: [2] },
    loss: ({ U, W, x, y }) => ops.sqnorm(ops.sub(ops.matmul(U, ops.matmul(W, x)), y)),
  });

const tanhNet = () =>
  model({
    params: { U: [2, 6], W: [6, 3], b: [6] },
    inputs: { x: [3], y: [2] },
    loss: ({ U, W, b, x, y }) =>
      ops.sqnorm(ops.sub(ops.matmul(U, ops.tanh(ops.add(ops.matmul(W, x), b))), y)),
  });

/** exp, log, sqrt, sigmoid, softplus, GELU and division in one loss. */
const functions = () =>
  model({
    params: { a: [5], b: [5] },
    inputs: { x: [5], y: [] },
    loss: ({ a, b, x, y }) => {
      const z = ops.mul(a, x);
      const parts: Expr[] = [
        ops.exp(ops.scale(z, 0.5)),
        ops.log(ops.add(ops.square(z), 0.7)),
        ops.sqrt(ops.add(ops.square(z), 0.3)),
        ops.mul(b, ops.sigmoid(z)),
        ops.softplus(ops.mul(b, z)),
        ops.geluTanh(ops.add(z, b)),
        ops.div(z, ops.add(ops.abs(z), 1)),
        ops.relu(z),
      ];
      return ops.square(ops.sub(ops.scale(ops.sum(parts.reduce((p, q) => ops.add(p, q))), 0.05), y));
    },
  });
const mixedNoise = () =>
  sampler({
    noise: {
      u: { kind: "uniform", shape: [5] },
      s: { kind: "sign", shape: [5] },
      i: { kind: "index", shape: [], below: 7 },
    },
    outputs: ({ u, s, i }) => ({ x: ops.mul(ops.scale(u, 2), s), y: ops.scale(i, 0.2) }),
  });

/** One head of attention over four tokens, and the cross-entropy of its mean. */
const attention = () =>
  model({
    params: { Wq: [3, 2], Wk: [3, 2], Wv: [3, 4] },
    inputs: { X: [4, 3], y: [4] },
    loss: ({ Wq, Wk, Wv, X, y }) => {
      const scores = ops.matmul(ops.matmul(X, Wq), ops.transpose(ops.matmul(X, Wk)));
      const logits = ops.mean(ops.matmul(ops.softmax(ops.scale(scores, 0.7)), ops.matmul(X, Wv)), {
        axis: 0,
      });
      return ops.sub(ops.logsumexp(logits), ops.sum(ops.mul(y, logits)));
    },
  });
const tokens = () =>
  sampler({
    noise: { X: { kind: "normal", shape: [4, 3] }, g: { kind: "normal", shape: [4] } },
    outputs: ({ X, g }) => ({ X, y: ops.softmax(ops.scale(g, 3)) }),
  });

const rotation = (size: number): Generator =>
  symmetry.doubleRotation(
    "U",
    "W",
    Array.from({ length: size }, (_, a) =>
      Array.from({ length: size }, (_, b) => (a === b ? 1 - a / 2 : 0.25)),
    ),
  );

async function onProblem(problem: Problem, options: Options): Promise<Run> {
  const run = await problem.simulate(options);
  problem.dispose();
  return run;
}

const shared = { eta: 0.01, seed: "golden", replicas: 3, steps: 1000 } as const;

const tables: Record<
  string,
  (engine: Engine, lowering: { lanes: "samples" | "replicas" | "features" }) => Promise<Run>
> = {
  "linear, 60 samples, iid, decay, work": (engine, lowering) => {
    const net = linear();
    const problem = engine.problem(net, teacher(), { samples: 60, dataSeed: "set" });
    return onProblem(problem, {
      ...shared,
      scheme: "sgd",
      theta: problem.init("glorot", { seed: "start", replicas: 3 }),
      weightDecay: [0, 0.01, 0.1],
      batchSize: 5,
      record: { every: 100, loss: "full", blockNorms: true, charges: { B: rotation(4) }, work: true },
      lowering,
    });
  },
  "tanh, online normals": (engine, lowering) => {
    const net = tanhNet();
    const problem = engine.problem(net, teacher());
    return onProblem(problem, {
      ...shared,
      scheme: "sgd",
      theta: problem.init("lecun", { seed: "start", replicas: 3 }),
      batchSize: 10,
      record: {
        every: 100,
        loss: "batch",
        charges: { all: symmetry.scaling("U", "W", "b") },
        values: { tanhU: ops.tanh(net.leaf("U")) },
      },
      lowering,
    });
  },
  "functions, online uniforms, signs and indices": (engine, lowering) => {
    const net = functions();
    const problem = engine.problem(net, mixedNoise());
    return onProblem(problem, {
      ...shared,
      scheme: "sgd",
      theta: problem.init("normal", { std: 0.5, seed: "start", replicas: 3 }),
      batchSize: 7,
      record: {
        every: 100,
        loss: "batch",
        blockNorms: true,
        values: { e: ops.exp(net.leaf("a")), s: ops.softplus(net.leaf("b")) },
      },
      lowering,
    });
  },
  "attention cross-entropy, 50 samples, without replacement": (engine, lowering) => {
    const net = attention();
    const problem = engine.problem(net, tokens(), { samples: 50, dataSeed: "set" });
    return onProblem(problem, {
      ...shared,
      steps: 300,
      scheme: "sgd",
      theta: problem.init("he", { seed: "start", replicas: 3 }),
      batchSize: 9,
      sampling: "without",
      record: {
        every: 30,
        loss: "full",
        charges: { qk: symmetry.rescaling("Wq", "Wk") },
        work: true,
        values: { p: ops.softmax(net.leaf("Wv"), { axis: 0 }) },
      },
      lowering,
    });
  },
  "tanh, gradient descent on 300 samples": (engine, lowering) => {
    const problem = engine.problem(tanhNet(), teacher(), { samples: 300, dataSeed: "large" });
    return onProblem(problem, {
      scheme: "gd",
      steps: 100,
      replicas: 2,
      eta: [0.02, 0.05],
      theta: problem.init("glorot", { seed: "start", replicas: 2 }),
      record: { every: 10, loss: "full", blockNorms: true },
      lowering,
    });
  },
  "linear, gradient descent on matched moments": (engine, lowering) => {
    const problem = engine.problem(linear(), momentMatched(teacher()));
    return onProblem(problem, {
      scheme: "gd",
      steps: 500,
      eta: 0.02,
      theta: problem.init("glorot", { seed: "start" }),
      record: { every: 50, loss: "full", charges: { B: rotation(4) }, work: true },
      lowering,
    });
  },
  "SDE, SVAG, modified equation, flow, momentum, Adam, RMSProp, epochs, schedules": async (
    engine,
    lowering,
  ) => {
    const net = linear();
    const problem = engine.problem(net, teacher(), { samples: 24, dataSeed: "set" });
    const common = {
      ...shared,
      steps: 60,
      theta: problem.init("glorot", { seed: "start", replicas: 3 }),
      record: { every: 20, loss: "full", charges: { B: rotation(4) } },
      lowering,
    } as const;
    const work = { ...common.record, work: true };
    const cosine = { kind: "cosine", warmup: 10, final: 0.1 } as const;
    const runs: Options[] = [
      { ...common, record: work, scheme: "sde", batchSize: 3, substeps: 2, weightDecay: [0, 0.1, 0.2] },
      { ...common, record: work, scheme: "svag", batchSize: 3, l: 3, labelNoise: { y: 0.2 } },
      { ...common, record: work, scheme: "modified", sigma2: [0.001, 0.002, 0], substeps: 3 },
      { ...common, scheme: "flow", eta: [0.02, 0.2, 0.1], weightDecay: 0.05 },
      {
        ...common,
        record: work,
        scheme: "sgd",
        batchSize: 5,
        sampling: "epochs",
        momentum: [0.5, 0.9, 0],
        clip: 3,
      },
      { ...common, scheme: "adam", batchSize: 4, sampling: "without", schedule: cosine, streams: [4, 4, 1] },
      { ...common, scheme: "rmsprop", batchSize: [4, 2, 4], schedule: { kind: "inverse", steps: 30 } },
    ];
    const done: Run[] = [];
    for (const options of runs) done.push(await problem.simulate(options));
    problem.dispose();
    // one run stands for all of them
    const hashes = done.map((run) => run.hash);
    return Object.assign(Object.create(done[0]!), { hash: hashes.join(" "), hashes }) as Run;
  },
};

/** 100,000 steps of one product u w under label noise, at batch size 1. */
const long = (engine: Engine, lowering: { lanes: "samples" | "replicas" | "features" }): Promise<Run> => {
  const net = model({
    params: { u: [], w: [] },
    inputs: { x: [], y: [] },
    loss: ({ u, w, x, y }) => ops.square(ops.sub(ops.mul(ops.mul(u, w), x), y)),
  });
  const law = sampler({
    noise: { x: { kind: "sign", shape: [] }, e: { kind: "normal", shape: [] } },
    outputs: ({ x, e }) => ({ x, y: ops.add(x, ops.scale(e, 2)) }),
  });
  const problem = engine.problem(net, law);
  return onProblem(problem, {
    scheme: "sgd",
    theta: [1.5, 0.5],
    eta: [0.02, 0.01],
    batchSize: 1,
    steps: 100_000,
    replicas: 2,
    seed: "long",
    record: { every: 1000, charges: { Q: symmetry.rescaling("u", "w") }, work: true },
    lowering,
  });
};

export const goldenRuns: readonly GoldenRun[] = [
  ...Object.entries(tables).flatMap(([name, run]) =>
    (["f64", "f32"] as const).map(
      (dtype): GoldenRun => ({
        name: `${name}, ${dtype}`,
        dtype,
        variant: "simd",
        run: (engine, lanes) => run(engine, { lanes }),
      }),
    ),
  ),
  // what has no matrix product has the same bits in both variants
  ...Object.entries(tables)
    .filter(([name]) => !name.startsWith("functions"))
    .flatMap(([name, run]) =>
      (["f64", "f32"] as const).map(
        (dtype): GoldenRun => ({
          name: `${name}, ${dtype} fma`,
          dtype,
          variant: "fma",
          run: (engine, lanes) => run(engine, { lanes }),
        }),
      ),
    ),
  {
    name: "product u w, online, 100,000 steps, f64",
    dtype: "f64",
    variant: "simd",
    run: (engine, lanes) => long(engine, { lanes }),
  },
];

/** An engine for every kind of golden run, by `${dtype} ${variant}`. */
export async function goldenEngines(): Promise<Map<string, Engine>> {
  const engines = new Map<string, Engine>();
  for (const dtype of ["f64", "f32"] as const)
    for (const variant of ["simd", "fma"] as const)
      engines.set(`${dtype} ${variant}`, await createEngine({ dtype, variant }));
  return engines;
}

/** The core's bytes, for engines made from a module that the caller compiled. */
export async function coreBytes(): Promise<Uint8Array<ArrayBuffer>> {
  const { base64 } = await import("../../src/wasm/binary-f64-simd.ts");
  return inflate(decodeBase64(base64));
}

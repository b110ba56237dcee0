import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  createEngine,
  type Data,
  type Engine,
  type Expr,
  type Generator,
  type LoweringOptions,
  type Model,
  model,
  NoetherflowError,
  ops,
  type Problem,
  parseModel,
  sampler,
  symmetry,
} from "../../src/index.ts";
import attention from "../fixtures/attention.json" with { type: "json" };
import layerNorm from "../fixtures/layer-norm.json" with { type: "json" };
import netA from "../fixtures/net-a.json" with { type: "json" };
import netB from "../fixtures/net-b.json" with { type: "json" };

const dtypes = ["f64", "f32"] as const;
const engines = new Map<string, Engine>();
beforeAll(async () => {
  for (const dtype of dtypes) engines.set(dtype, await createEngine({ dtype }));
});
afterAll(() => {
  for (const engine of engines.values()) engine.dispose();
});

/** A network with its data, a generator (not always a symmetry: layout must not matter) and expressions to record. */
interface Case {
  readonly net: Model;
  readonly data: Data;
  readonly A: Generator;
  readonly values: Record<string, Expr>;
  readonly eta?: number;
}

/** N numbers a sample, between -1 and 1, from a multiplicative generator. */
function numbers(count: number, seed: number): number[] {
  let state = seed;
  return Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  });
}

function onlineTanh(): Case {
  const net = model({
    params: { U: [2, 5], W: [5, 3], b: [5] },
    inputs: { x: [3], y: [2] },
    loss: ({ U, W, b, x, y }) =>
      ops.sqnorm(ops.sub(ops.matmul(U, ops.tanh(ops.add(ops.matmul(W, x), b))), y)),
  });
  const data = sampler({
    noise: {
      x: { kind: "normal", shape: [3] },
      e: { kind: "normal", shape: [2] },
      s: { kind: "sign", shape: [1] },
    },
    constants: { V: [numbers(3, 1), numbers(3, 2)] },
    outputs: ({ x, e, s, V }) => ({ x, y: ops.add(ops.matmul(V, x), ops.mul(s, ops.scale(e, 0.5))) }),
  });
  const A = symmetry.doubleRotation("U", "W", [
    [1, 0.5, 0, 0, 0.1],
    [0.5, -1, 0.2, 0, 0],
    [0, 0.2, 0.3, 0, 0],
    [0, 0, 0, 1, 0.7],
    [0.1, 0, 0, 0.7, 0],
  ]);
  return { net, data, A, values: { UW: ops.matmul(net.leaf("U"), net.leaf("W")) } };
}

/** A loss of exponentials, with a parameter of rank 0 and one that stands still. */
function exponential(): Case {
  const net = model({
    params: { a: [], b: [3], still: { shape: [3], trainable: false } },
    inputs: { x: [3], y: [] },
    loss: ({ a, b, still, x, y }) => {
      const v = ops.mul(a, ops.exp(ops.scale(ops.sum(ops.mul(ops.add(b, still), x)), 0.5)));
      return ops.add(ops.square(ops.sub(v, y)), ops.log(ops.add(ops.square(v), 1.5)));
    },
  });
  const data = { x: numbers(40 * 3, 3), y: numbers(40, 4) };
  return {
    net,
    data,
    A: symmetry.rescaling("a", "b"),
    values: { e: ops.exp(net.leaf("a")), s: ops.softmax(net.leaf("b")) },
  };
}

/** Cross-entropy of a two-layer network. */
function crossEntropy(): Case {
  const net = model({
    params: { W: [6, 4], U: [3, 6], b: [3] },
    inputs: { x: [4], y: [3] },
    loss: ({ W, U, b, x, y }) => {
      const logits = ops.add(ops.matmul(U, ops.relu(ops.matmul(W, x))), b);
      return ops.sub(ops.logsumexp(logits), ops.sum(ops.mul(y, logits)));
    },
  });
  const y = Array.from({ length: 150 }, (_, i) => ((i * 7 + ((i / 3) | 0)) % 3 === i % 3 ? 1 : 0));
  return {
    net,
    data: { x: numbers(50 * 4, 5), y },
    A: symmetry.rescaling("U", "W"),
    values: { p: ops.softmax(net.leaf("b")), n: ops.logsumexp(net.leaf("U"), { axis: 0 }) },
  };
}

/** One matrix used twice, once transposed, on a sample that is a matrix. */
function usedTwice(): Case {
  const net = model({
    params: { W: [3, 3], c: [3] },
    inputs: { X: [3, 3], y: [3] },
    loss: ({ W, c, X, y }) => {
      const Z = ops.matmul(W, ops.matmul(X, ops.transpose(W)));
      return ops.sqnorm(ops.sub(ops.add(ops.matmul(Z, ops.matmul(W, y)), c), y));
    },
  });
  return {
    net,
    data: { X: numbers(30 * 9, 6), y: numbers(30 * 3, 7) },
    A: symmetry.scaling("W"),
    values: { WW: ops.matmul(net.leaf("W"), ops.transpose(net.leaf("W"))) },
  };
}

/** Matrices wider than one tile of every product, tokens, and products from the left. */
function wide(): Case {
  const net = model({
    params: { W: [19, 11], V: [11, 21], U: [21, 5] },
    inputs: { X: [3, 19], y: [5] },
    loss: ({ W, V, U, X, y }) => {
      const hidden = ops.sigmoid(ops.matmul(ops.matmul(X, W), V));
      return ops.sqnorm(ops.sub(ops.matmul(ops.mean(hidden, { axis: 0 }), U), y));
    },
  });
  return {
    net,
    data: { X: numbers(9 * 57, 10), y: numbers(9 * 5, 11) },
    A: symmetry.scaling("W", "U"),
    values: { WVU: ops.matmul(ops.matmul(net.leaf("W"), net.leaf("V")), net.leaf("U")) },
  };
}

/** Every op of the table, per sample in the loss and of parameters in what is recorded. */
function everyOp(): Case {
  const each = (v: Expr): Record<string, Expr> => {
    const positive = ops.add(ops.square(v), 0.5);
    return {
      tanh: ops.tanh(v),
      sigmoid: ops.sigmoid(v),
      softplus: ops.softplus(v),
      exp: ops.exp(v),
      log: ops.log(positive),
      sqrt: ops.sqrt(positive),
      relu: ops.relu(v),
      abs: ops.abs(v),
      step: ops.step(v),
      sign: ops.sign(v),
      gelu: ops.geluTanh(v),
      div: ops.div(v, positive),
      softmax0: ops.softmax(v, { axis: 0 }),
      softmax1: ops.softmax(v, { axis: 1 }),
      lse0: ops.broadcastTo(ops.logsumexp(v, { axis: 0, keepdims: true }), v.shape),
      lse1: ops.broadcastTo(ops.logsumexp(v, { axis: 1, keepdims: true }), v.shape),
      mean0: ops.broadcastTo(ops.mean(v, { axis: 0, keepdims: true }), v.shape),
      sum1: ops.broadcastTo(ops.sum(v, { axis: 1, keepdims: true }), v.shape),
      norm: ops.mul(v, ops.norm(v)),
      outer: ops.outer(ops.sum(v, { axis: 1 }), ops.sum(v, { axis: 0 })),
      turned: ops.transpose(ops.scale(ops.transpose(v), 0.3)),
      flat: ops.reshape(ops.reshape(v, [15]), [3, 5]),
    };
  };
  const net = model({
    params: { A: [3, 5] },
    inputs: { X: [3, 5], y: [3, 5] },
    loss: ({ A, X, y }) => {
      const terms = Object.values(each(ops.mul(A, X)));
      const total = terms.reduce((sum, term, i) => ops.add(sum, ops.scale(term, 1 / (i + 2))));
      return ops.sum(ops.square(ops.sub(ops.tanh(ops.scale(total, 0.1)), y)));
    },
  });
  return {
    net,
    data: { X: numbers(33 * 15, 12), y: numbers(33 * 15, 13) },
    A: symmetry.scaling("A"),
    values: each(net.leaf("A")),
  };
}

interface Fixture {
  readonly model: unknown;
  readonly data: unknown;
}

function fixture(json: Fixture, block: string): Case {
  const net = parseModel(json.model);
  return {
    net,
    data: json.data as Data,
    A: symmetry.scaling(...net.blocks.map((b) => b.name)),
    values: { v: ops.square(net.leaf(block)) },
  };
}

const cases: Record<string, () => Case> = {
  "tanh network, online normals": onlineTanh,
  "exponentials, a block that stands still": exponential,
  "ReLU cross-entropy": crossEntropy,
  "a matrix used twice": usedTwice,
  "wide matrices and tokens": wide,
  "every op": everyOp,
  attention: () => fixture(attention, "Wq"),
  "net-a": () => fixture(netA, "U"),
  "net-b": () => fixture(netB, "W"),
  "layer norm": () => fixture(layerNorm, "W"),
};

type Options = Parameters<Problem["simulate"]>[0];

function open(on: Engine, { net, data }: Case): Problem {
  return on.problem(net, data);
}

/** A theta of its own for every replica. */
function thetas(problem: Problem, replicas: number, firstReplica = 0): Float64Array | Float32Array {
  return problem.init("normal", { std: 0.6, seed: "start", replicas, firstReplica });
}

function record(c: Case, loss: "full" | "batch" | undefined, every: number): NonNullable<Options["record"]> {
  return {
    every,
    ...(loss === undefined ? {} : { loss }),
    blockNorms: true,
    charges: { A: c.A, shifted: symmetry.scaling(c.net.blocks[0]!.name) },
    work: true,
    values: c.values,
    average: { from: 2, every: 2 },
  };
}

const layouts: Record<string, LoweringOptions> = {
  "samples, block 1": { lanes: "samples", block: 1 },
  "samples, block 2": { lanes: "samples", block: 2 },
  "samples, block 3": { lanes: "samples", block: 3 },
  "samples, block 8": { lanes: "samples", block: 8 },
  "samples, block 64": { lanes: "samples", block: 64 },
  "samples, block 128": { lanes: "samples", block: 128 },
  "samples, chunk 5": { lanes: "samples", chunk: 5 },
  "replicas, group 1": { lanes: "replicas", group: 1 },
  "replicas, group 2": { lanes: "replicas", group: 2, chunk: 7 },
  "replicas, group 3": { lanes: "replicas", group: 3 },
  "replicas, group 4": { lanes: "replicas", group: 4, chunk: 1 },
  "replicas, group 64": { lanes: "replicas", group: 64 },
  features: { lanes: "features" },
  "samples, nothing fused": { lanes: "samples", block: 8, fuse: false },
  "replicas, nothing fused": { lanes: "replicas", group: 4, fuse: false },
  "features, nothing fused": { lanes: "features", fuse: false, chunk: 2 },
  chosen: {},
};

/** Names of the layouts whose hashes or averages differ from those of the first. */
async function disagreeing(problem: Problem, options: Options): Promise<string[]> {
  let expected: readonly string[] | undefined;
  const wrong: string[] = [];
  for (const [name, lowering] of Object.entries(layouts)) {
    const run = await problem.simulate({ ...options, lowering });
    if (run.status !== "done") wrong.push(`${name}: ${run.status}`);
    const { count, ...kinds } = run.averages!;
    const averages = Object.values(kinds).flatMap((of) => Object.values(of).map((values) => values.join()));
    const seen = [...run.hashes, `${count}`, ...averages];
    expected ??= seen;
    const at = seen.findIndex((text, i) => text !== expected![i]);
    if (at >= 0) wrong.push(`${name}: ${at < run.replicas ? `replica ${at}` : "averages"}`);
  }
  return wrong;
}

describe.each(dtypes)("%s: lanes, blocks, groups and chunks change no hash", (dtype) => {
  const replicas = 5;

  test.each(Object.keys(cases))(
    "%s: SGD with decay, S = 13, batch loss, charges, work, values",
    async (name) => {
      const c = cases[name]!();
      const problem = open(engines.get(dtype)!, c);
      const wrong = await disagreeing(problem, {
        scheme: "sgd",
        theta: thetas(problem, replicas),
        eta: [0.01, 0.02, 0.005, 0.03, 0.001],
        weightDecay: 0.01,
        batchSize: 13,
        steps: 23,
        replicas,
        seed: "layout",
        record: record(c, "batch", 3),
      });
      problem.dispose();
      expect(wrong).toEqual([]);
    },
  );

  test.each(Object.keys(cases))("%s: two blocks of 64 and a tail, S = 131", async (name) => {
    const c = cases[name]!();
    const problem = open(engines.get(dtype)!, c);
    const wrong = await disagreeing(problem, {
      scheme: "sgd",
      theta: thetas(problem, 3),
      eta: 0.01,
      batchSize: 131,
      steps: 3,
      replicas: 3,
      seed: "tail",
      record: record(c, problem.N === Infinity ? "batch" : "full", 1),
    });
    problem.dispose();
    expect(wrong).toEqual([]);
  });

  const finite = Object.keys(cases).filter((name) => name !== "tanh network, online normals");
  test.each(finite)(
    "%s: GD, an eta for each replica; SGD without replacement and full loss",
    async (name) => {
      const c = cases[name]!();
      const problem = open(engines.get(dtype)!, c);
      const shared = {
        theta: thetas(problem, replicas),
        eta: [0.01, 0.02, 0.005, 0.03, 0.001],
        weightDecay: [0, 0.01, 0, 0.02, 0],
        steps: 12,
        replicas,
        record: record(c, "full", 5),
      } as const;
      const gd = await disagreeing(problem, { scheme: "gd", ...shared });
      const without = await disagreeing(problem, {
        scheme: "sgd",
        ...shared,
        batchSize: 5,
        sampling: "without",
        seed: "w",
      });
      problem.dispose();
      expect({ gd, without }).toEqual({ gd: [], without: [] });
    },
  );

  test("explicit batches: the same in every layout", async () => {
    const c = crossEntropy();
    const problem = open(engines.get(dtype)!, c);
    const wrong = await disagreeing(problem, {
      scheme: "sgd",
      theta: thetas(problem, replicas),
      eta: [0.01, 0.02, 0.005, 0.03, 0.001],
      batchSize: 9,
      steps: 20,
      batches: Array.from({ length: 180 }, (_, i) => (i * i + 5 * i) % 50),
      replicas,
      record: record(c, "full", 4),
    });
    problem.dispose();
    expect(wrong).toEqual([]);
  });
});

describe.each(dtypes)("%s: calls and neighbours change no hash", (dtype) => {
  test.each([1, 2, 4])("one call of 1,000 steps and 1,000 calls of one step, S = %i", async (S) => {
    for (const c of [onlineTanh(), crossEntropy()]) {
      const problem = open(engines.get(dtype)!, c);
      for (const lanes of ["samples", "replicas", "features"] as const) {
        const hashes: string[] = [];
        for (const chunk of [1000, 1, 3, 300]) {
          const run = await problem.simulate({
            scheme: "sgd",
            theta: thetas(problem, 2),
            eta: 0.01,
            batchSize: S,
            steps: 1000,
            replicas: 2,
            seed: "chunks",
            record: record(c, "batch", 50),
            lowering: { chunk, lanes },
          });
          hashes.push(run.hash);
        }
        expect(new Set(hashes).size, lanes).toBe(1);
      }
      problem.dispose();
    }
  });

  test.each([1, 2, 3, 5])(
    "groups of every width, whose windows of draws hold many steps or few, S = %i",
    async (S) => {
      // 256 replicas in 1 ... 40 groups: 256, 128, 86, 64, 52, 43 ... 7 replicas side by side
      const c = exponential();
      const problem = open(engines.get(dtype)!, c);
      const run = (lowering: LoweringOptions) =>
        problem.simulate({
          scheme: "sgd",
          theta: thetas(problem, 256),
          eta: 0.01,
          batchSize: S,
          steps: 300,
          replicas: 256,
          seed: "window",
          lowering: { ...lowering, chunk: 300 },
        });
      const expected = (await run({ lanes: "samples" })).hash;
      const wrong: number[] = [];
      for (const groups of [1, 2, 3, 4, 5, 6, 7, 9, 11, 13, 20, 40]) {
        const group = Math.ceil(256 / groups);
        if ((await run({ lanes: "replicas", group })).hash !== expected) wrong.push(group);
      }
      problem.dispose();
      expect(wrong).toEqual([]);
    },
  );

  test.each(Object.keys(cases))(
    "%s: replica 7 alone, alone in a group of lanes, and beside 255 others",
    async (name) => {
      const c = cases[name]!();
      const problem = open(engines.get(dtype)!, c);
      const etas = Array.from({ length: 256 }, (_, r) => 0.001 * (1 + (r % 20)));
      const shared = {
        scheme: "sgd",
        batchSize: 3,
        steps: 9,
        seed: "seven",
        record: record(c, "batch", 2),
      } as const;
      const all = await problem.simulate({
        ...shared,
        theta: thetas(problem, 256),
        eta: etas,
        replicas: 256,
      });
      const hashes: string[] = [];
      for (const lowering of [{ lanes: "samples" }, { lanes: "replicas" }, { lanes: "features" }] as const) {
        const alone = await problem.simulate({
          ...shared,
          theta: thetas(problem, 1, 7),
          eta: etas[7]!,
          firstReplica: 7,
          lowering,
        });
        hashes.push(alone.hashes[0]!);
      }
      problem.dispose();
      expect(hashes).toEqual([all.hashes[7], all.hashes[7], all.hashes[7]]);
      // replicas differ from each other, or the comparison would say nothing
      expect(new Set(all.hashes).size).toBe(256);
    },
  );
});

describe("runs beside each other", () => {
  /** Options of a run long enough to be interrupted: a step of 300 samples takes some 50 us. */
  const longRun = (c: Case, problem: Problem, seed: string): Options => ({
    scheme: "sgd",
    theta: thetas(problem, 2),
    eta: 0.01,
    batchSize: 300,
    steps: 600,
    replicas: 2,
    seed,
    record: record(c, "batch", 100),
  });

  test("two runs that take turns on one engine give the hashes they give alone", async () => {
    const engine = await createEngine();
    const [first, second] = [onlineTanh(), crossEntropy()];
    const [p, q] = [open(engine, first), open(engine, second)];
    const alone = [
      (await p.simulate(longRun(first, p, "p"))).hashes,
      (await q.simulate(longRun(second, q, "q"))).hashes,
    ];
    const turns: string[] = [];
    const both = await Promise.all([
      p.simulate({ ...longRun(first, p, "p"), onProgress: () => turns.push("p"), lowering: { chunk: 20 } }),
      q.simulate({ ...longRun(second, q, "q"), onProgress: () => turns.push("q"), lowering: { chunk: 20 } }),
    ]);
    engine.dispose();
    expect(both.map((run) => run.hashes)).toEqual(alone);
    // they did take turns
    const switches = turns.filter((who, i) => i > 0 && who !== turns[i - 1]).length;
    expect(switches).toBeGreaterThan(2);
  });

  test("problems, evaluations, thetas and whole runs made inside onProgress change no hash", async () => {
    const engine = await createEngine();
    const c = onlineTanh();
    const problem = open(engine, c);
    const expected = (await problem.simulate(longRun(c, problem, "p"))).hashes;
    const other = crossEntropy();
    const before = engine.core.memory.buffer.byteLength;
    const pending: Promise<unknown>[] = [];
    const kept: Problem[] = [];
    let calls = 0;
    const run = await problem.simulate({
      ...longRun(c, problem, "p"),
      lowering: { chunk: 20 },
      onProgress: () => {
        calls++;
        // more memory, so that views of the old one are detached
        const large = engine.problem(other.net, { x: numbers(4 * 20_000, 8), y: numbers(3 * 20_000, 9) });
        const made = open(engine, other);
        const theta = thetas(made, 1);
        made.loss(theta);
        made.gradient(theta);
        problem.loss(thetas(problem, 1), { samples: 40, seed: "in between" });
        if (pending.length < 3) {
          pending.push(
            made.simulate({ scheme: "gd", theta, eta: 0.01, steps: 10 }).then(() => made.dispose()),
          );
        } else made.dispose();
        if (kept.length < 6) kept.push(large);
        else large.dispose();
      },
    });
    await Promise.all(pending);
    expect(calls).toBeGreaterThan(2);
    expect(engine.core.memory.buffer.byteLength).toBeGreaterThan(before);
    engine.dispose();
    expect(run.hashes).toEqual(expected);
  });

  test("a problem disposed of while it runs gives its hash or refuses, never other numbers", async () => {
    const c = crossEntropy();
    const other = crossEntropy();
    const outcome = async (disposes: boolean): Promise<string> => {
      const engine = await createEngine();
      const problem = open(engine, c);
      let calls = 0;
      try {
        const run = await problem.simulate({
          ...longRun(c, problem, "gone"),
          steps: 2000,
          lowering: { chunk: 20 },
          onProgress: () => {
            if (++calls !== 2 || !disposes) return;
            problem.dispose();
            // takes the place of the data, if that was given back
            engine.problem(other.net, { x: numbers(50 * 4, 20), y: numbers(50 * 3, 21) });
          },
        });
        return run.hash;
      } catch (error) {
        if (error instanceof NoetherflowError) return error.name;
        throw error;
      } finally {
        engine.dispose();
      }
    };
    const expected = await outcome(false);
    expect([expected, "NoetherflowError"]).toContain(await outcome(true));
  });

  test("the order of runs on an engine changes no hash, and what ran before leaves no trace", async () => {
    const [fresh, used] = [await createEngine(), await createEngine()];
    const c = usedTwice();
    const options = (problem: Problem): Options => ({
      scheme: "sgd",
      theta: thetas(problem, 3),
      eta: 0.01,
      batchSize: 4,
      sampling: "without",
      steps: 50,
      replicas: 3,
      seed: "order",
      record: record(c, "full", 10),
    });
    const clean = open(fresh, c);
    const expected = (await clean.simulate(options(clean))).hash;
    const before = open(used, onlineTanh());
    await before.simulate({
      scheme: "sgd",
      theta: thetas(before, 9),
      eta: 5,
      batchSize: 7,
      steps: 400,
      replicas: 9,
    });
    before.dispose();
    const after = open(used, c);
    const hashes = [(await after.simulate(options(after))).hash, (await after.simulate(options(after))).hash];
    fresh.dispose();
    used.dispose();
    expect(hashes).toEqual([expected, expected]);
  });
});

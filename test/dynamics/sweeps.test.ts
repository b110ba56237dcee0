/**
 * Replicas that differ in what lanes cannot hold are done in parts: each must be the run it would be alone. It catches a
 * part that takes another's seed or stream, results put in the order of the parts, and a lost replica that takes its
 * neighbours' records along.
 */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createEngine, type Engine, model, ops, type Problem, sampler, symmetry } from "../../src/index.ts";

type Options = Parameters<Problem["simulate"]>[0];

let engine: Engine;
beforeAll(async () => {
  engine = await createEngine();
});
afterAll(() => engine.dispose());

const lanes = ["samples", "replicas", "features"] as const;
const net = model({
  params: { U: [2, 3], W: [3, 4] },
  inputs: { x: [4], y: [2] },
  loss: ({ U, W, x, y }) => ops.sqnorm(ops.sub(ops.matmul(U, ops.matmul(W, x)), y)),
});
const law = sampler({
  noise: { x: { kind: "normal", shape: [4] }, y: { kind: "normal", shape: [2] } },
  outputs: ({ x, y }) => ({ x, y }),
});
const [N, P] = [12, 18];
const thetas = Array.from({ length: 6 }, (_, r) =>
  Array.from({ length: P }, (_p, i) => Math.cos(7 * r + 3 * i) / 2),
);
const record: NonNullable<Options["record"]> = {
  every: 5,
  loss: "full",
  blockNorms: true,
  charges: { C: symmetry.rescaling("U", "W") },
  work: true,
  matrixCharges: { Q: ["U", "W"] },
  values: { U: net.leaf("U") },
  average: { from: 7 },
};
const differing = {
  batchSize: [1, 4, 1, 3, 4, 1],
  seed: ["a", "a", "b", 7, "a", "a"],
  dataSeed: ["one", "two", "one", "one", "two", "three"],
  eta: [0.01, 0.02, 0.03, 0.01, 0.005, 0.015],
  weightDecay: [0.05, 0.1, 0.01, 0.2, 0.02, 0.3],
};
const cases: [string, Partial<Options>][] = [
  ["sgd", { momentum: [0, 0.5, 0.9, 0, 0.3, 0.8] }],
  ["sgd, epochs", { sampling: "epochs", momentum: [0, 0.5, 0.9, 0, 0.3, 0.8] }],
  ["sgd, momentum and modified charges", { momentum: [0.1, 0.5, 0.9, 0.7, 0.3, 0.8], weightDecay: 0 }],
  ["sgd, without", { sampling: "without", labelNoise: { y: 0.3 } }],
  ["svag", { scheme: "svag", l: 3 }],
  ["sde", { scheme: "sde", dt: [0.01, 0.002, 0.03, 0.001, 0.005, 0.015] }],
  ["modified", { scheme: "modified", substeps: 2 }],
  ["adam", { scheme: "adam", beta1: 0.8, record: { ...record, work: false } }],
];

/** The value for one replica of an option that may be a list. */
const at = <T>(value: T | readonly T[] | undefined, r: number): T | undefined =>
  Array.isArray(value) ? (value as T[])[r] : (value as T | undefined);

describe("a replica in parts is the run it would be alone, bit for bit", () => {
  for (const where of lanes) {
    test.each(cases)(`%s, lanes are ${where}`, async (_name, own) => {
      const problem = engine.problem(net, law, { samples: N, dataSeed: "zero" });
      const common = { scheme: "sgd", steps: 23, record, lowering: { lanes: where }, ...own } as const;
      const before = engine.bytesInUse;
      const sweep = await problem.simulate({
        ...common,
        theta: thetas,
        replicas: 6,
        firstReplica: 40,
        ...differing,
        ...own,
      });
      expect(engine.bytesInUse).toBe(before);
      expect(sweep.status).toBe("done");
      for (const [r, theta] of thetas.entries()) {
        const data = engine.problem(net, law, { samples: N, dataSeed: differing.dataSeed[r]! });
        const each = Object.fromEntries(
          [...Object.entries(differing), ...Object.entries(own)].map(([k, v]) => [k, at<unknown>(v, r)]),
        );
        const { dataSeed: _unused, ...options } = each;
        const alone = await data.simulate({ ...common, ...options, theta, firstReplica: 40 + r } as Options);
        expect(sweep.hashes[r], `replica ${r}`).toBe(alone.hashes[0]);
        const row = (series: ArrayLike<number>, R: number, place: number) =>
          Array.from({ length: 5 }, (_, i) => series[i * R + place]);
        expect(row(sweep.series.t, 6, r)).toEqual(row(alone.series.t, 1, 0));
        expect([...sweep.averages!.values["U"]!.subarray(6 * r, 6 * r + 6)]).toEqual([
          ...alone.averages!.values["U"]!,
        ]);
        expect(sweep.averages!.count).toBe(alone.averages!.count);
        expect([...sweep.theta.subarray(r * P, (r + 1) * P)]).toEqual([...alone.theta]);
        data.dispose();
      }
      problem.dispose();
    });
  }

  test("in the order of the parts or in another, each replica keeps its numbers", async () => {
    const problem = engine.problem(net, law, { samples: N, dataSeed: "zero" });
    const common = { scheme: "sgd", steps: 10, record: { every: 5, loss: "full" }, replicas: 4 } as const;
    const options = { theta: thetas[0]!, eta: 0.01, batchSize: [2, 3, 2, 3] };
    const one = await problem.simulate({ ...common, ...options, streams: [5, 6, 7, 8] });
    const turned = await problem.simulate({
      ...common,
      ...options,
      batchSize: [3, 2, 3, 2],
      streams: [6, 5, 8, 7],
    });
    const swapped = [1, 0, 3, 2].map((r) => one.hashes[r]);
    expect(turned.hashes).toEqual(swapped);
    expect(new Set(one.hashes).size).toBe(4);
    problem.dispose();
  });
});

describe("streams", () => {
  const numbers = [9, 9, 2, 4_000_000_000, 0, 2];
  const draws: [string, Partial<Options>][] = [
    ["sgd", { scheme: "sgd", batchSize: 2 }],
    ["epochs", { scheme: "sgd", batchSize: 5, sampling: "epochs" }],
    ["svag", { scheme: "svag", batchSize: 2, l: 2 }],
    ["sde", { scheme: "sde", batchSize: 2 }],
    ["noise on inputs", { scheme: "gd", labelNoise: { x: 0.1 } }],
  ];
  for (const where of lanes) {
    test.each(draws)(
      `%s: equal numbers see equal draws, each those of the replica so numbered, lanes are ${where}`,
      async (_name, own) => {
        const problem = engine.problem(net, law, { samples: N, dataSeed: "zero" });
        const common = {
          theta: thetas[0]!,
          eta: 0.01,
          steps: 15,
          seed: "s",
          lowering: { lanes: where, group: 4 },
          ...own,
        };
        const run = await problem.simulate({ scheme: "sgd", ...common, replicas: 6, streams: numbers });
        for (const [r, n] of numbers.entries()) {
          const alone = await problem.simulate({ scheme: "sgd", ...common, firstReplica: n });
          expect(run.hashes[r], `stream ${n}`).toBe(alone.hashes[0]);
        }
        expect(new Set(run.hashes).size).toBe(4);
        problem.dispose();
      },
    );
  }

  test("fresh samples follow them too", async () => {
    const problem = engine.problem(net, law);
    const common = { scheme: "sgd", theta: thetas[0]!, eta: 0.01, batchSize: 3, steps: 15 } as const;
    for (const where of lanes) {
      const lowering = { lanes: where };
      const run = await problem.simulate({ ...common, lowering, replicas: 6, streams: numbers });
      for (const [r, n] of numbers.entries()) {
        const alone = await problem.simulate({ ...common, lowering, firstReplica: n });
        expect(run.hashes[r]).toBe(alone.hashes[0]);
      }
    }
    problem.dispose();
  });
});

describe("replicas that are lost in parts", () => {
  const eta = [0.01, 40, 0.02, 30, 0.01];
  const options = {
    scheme: "sgd",
    theta: thetas[0]!,
    steps: 60,
    replicas: 5,
    batchSize: [2, 2, 2, 3, 3],
    record: { every: 10, loss: "full", values: { U: net.leaf("U") }, average: { from: 20 } },
  } as const;

  test.each(lanes)(
    "leave the others their bits, and are reported by their own numbers, lanes are %s",
    async (where) => {
      const problem = engine.problem(net, law, { samples: N, dataSeed: "zero" });
      const lowering = { lanes: where };
      const run = await problem.simulate({ ...options, eta, firstReplica: 10, lowering });
      expect(run.status).toBe("diverged");
      expect(run.diverged.map((d) => d.replica)).toEqual([11, 13]);
      expect([...run.series.k]).toEqual([0, 10, 20, 30, 40, 50, 60]);
      for (const r of [0, 2, 4]) {
        const alone = await problem.simulate({
          ...options,
          replicas: 1,
          batchSize: options.batchSize[r]!,
          eta: eta[r]!,
          firstReplica: 10 + r,
          lowering,
        });
        expect(run.hashes[r], `replica ${r}`).toBe(alone.hashes[0]);
      }
      for (const r of [1, 3]) {
        const alone = await problem.simulate({
          ...options,
          replicas: 1,
          batchSize: options.batchSize[r]!,
          eta: eta[r]!,
          firstReplica: 10 + r,
          onDiverge: "stopReplica",
          lowering,
        });
        expect([...run.theta.subarray(r * P, (r + 1) * P)]).toEqual([...alone.theta]);
        expect(alone.diverged).toEqual(run.diverged.filter((d) => d.replica === 10 + r));
        expect(run.series.loss![6 * 5 + r]).toBeNaN();
      }
      problem.dispose();
    },
  );

  // a part of which all replicas are lost ends early; its few records must not be all that is kept
  test.each([
    ["first", [40, 0.01, 0.01, 0.01, 0.01], [2, 3, 3, 3, 3], 0],
    ["last", [0.01, 0.01, 0.01, 0.01, 40], [2, 2, 2, 2, 3], 4],
  ] as const)(
    "a part lost as a whole, the %s, leaves all records of the others",
    async (_name, rates, sizes, lost) => {
      const problem = engine.problem(net, law, { samples: N, dataSeed: "zero" });
      const run = await problem.simulate({ ...options, eta: rates, batchSize: sizes });
      expect(run.diverged.map((d) => d.replica)).toEqual([lost]);
      expect([...run.series.k]).toEqual([0, 10, 20, 30, 40, 50, 60]);
      expect(run.averages!.count).toBe(5);
      const alone = await problem.simulate({
        ...options,
        replicas: 1,
        eta: 0.01,
        batchSize: 3 - (lost >> 2),
        firstReplica: 2,
      });
      expect(run.hashes[2]).toBe(alone.hashes[0]);
      expect(
        run.series.values["U"]!.subarray(6 * 5 * 6 + 6 * lost, 6 * 5 * 6 + 6 * lost + 6).every(Number.isNaN),
      ).toBe(true);
      problem.dispose();
    },
  );
});

describe("what is recorded of a replica does not depend on its neighbours", () => {
  const options = {
    scheme: "sgd",
    theta: thetas[0]!,
    eta: 0.01,
    steps: 20,
    record: { every: 5, charges: { C: symmetry.rescaling("U", "W") }, work: true },
  } as const;

  test("momentum beside none in one run: the hash of each is that alone", async () => {
    const problem = engine.problem(net, law, { samples: N, dataSeed: "zero" });
    const momentum = [0, 0.9];
    const run = await problem.simulate({ ...options, batchSize: 2, replicas: 2, momentum });
    for (const [r, beta] of momentum.entries()) {
      const alone = await problem.simulate({ ...options, batchSize: 2, momentum: beta, firstReplica: r });
      expect(run.hashes[r]).toBe(alone.hashes[0]);
    }
  });

  test.each([[[0.9, 0]], [[0, 0.9]]])(
    "momentum %j in parts: both have their modified charge",
    async (momentum) => {
      const problem = engine.problem(net, law, { samples: N, dataSeed: "zero" });
      const run = await problem.simulate({ ...options, batchSize: [2, 3], replicas: 2, momentum });
      expect(Object.keys(run.series.modifiedCharges)).toEqual(["C"]);
    },
  );
});

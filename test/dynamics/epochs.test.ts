/**
 * Which samples the steps of "epochs" visit, read off the engine: under the loss x . t with x the n-th unit vector, t_n
 * counts how often sample n was used. It catches an epoch that begins in the middle of another, an order that depends on
 * the chunk, and a shuffle that is not uniform.
 */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createEngine, type Engine, model, ops, type Problem } from "../../src/index.ts";
import { epochBatch } from "../reference/schemes.ts";
import { keyOfSeed } from "../reference/sgd.ts";
import { chiSquareAbove } from "../reference/statistics.ts";

type Options = Parameters<Problem["simulate"]>[0];

let engine: Engine;
beforeAll(async () => {
  engine = await createEngine();
});
afterAll(() => engine.dispose());

const lanes = ["samples", "replicas", "features"] as const;
const counter = (N: number) =>
  model({ params: { t: [N] }, inputs: { x: [N] }, loss: ({ t, x }) => ops.matmul(x, t) });
const units = (N: number) => Array.from({ length: N * N }, (_, e) => (Math.floor(e / N) === e % N ? 1 : 0));

/** Sorted batch of every step of every replica: [replica][step][sample]. */
async function batchesOf(N: number, S: number, options: Partial<Options>): Promise<number[][][]> {
  const net = counter(N);
  const problem = engine.problem(net, { x: units(N) });
  const run = await problem.simulate({
    scheme: "sgd",
    theta: new Array<number>(N).fill(0),
    eta: S,
    batchSize: S,
    sampling: "epochs",
    steps: 1,
    seed: "epochs",
    ...options,
    record: { every: 1, values: { t: net.leaf("t") } },
  });
  problem.dispose();
  const t = run.series.values["t"]!;
  const R = run.replicas;
  return Array.from({ length: R }, (_, r) =>
    Array.from({ length: run.steps }, (_s, k) =>
      Array.from({ length: N }, (_n, n) => n).flatMap((n) => {
        // eta / S = 1, so a count is an integer up to rounding
        const used = Math.round(t[(k * R + r) * N + n]! - t[((k + 1) * R + r) * N + n]!);
        return new Array<number>(used).fill(n);
      }),
    ),
  );
}

const [N, replicas, firstReplica] = [11, 3, 6];
describe("every epoch goes through the data once, in batches that are disjoint", () => {
  for (const where of lanes) {
    test.each([1, 3, 4, 5, 11])(`N = 11, S = %d, lanes are ${where}`, async (S) => {
      const perEpoch = Math.floor(N / S);
      const epochs = 7;
      const options = { steps: epochs * perEpoch, replicas, firstReplica, lowering: { lanes: where } };
      const runs = await batchesOf(N, S, options);
      const key = keyOfSeed("epochs");
      const orders = new Set<string>();
      for (const [r, batches] of runs.entries()) {
        for (let e = 0; e < epochs; e++) {
          const epoch = batches.slice(e * perEpoch, (e + 1) * perEpoch);
          for (const batch of epoch) expect(batch).toHaveLength(S);
          // no sample twice; all of them where S divides N, else N mod S are left out
          expect(new Set(epoch.flat()).size).toBe(perEpoch * S);
          orders.add(JSON.stringify(epoch));
        }
        for (const [k, batch] of batches.entries())
          expect(batch).toEqual(epochBatch(key, firstReplica + r, k, S, N).sort((a, b) => a - b));
      }
      // epochs of a replica and of different replicas have orders of their own
      if (S < 6) expect(orders.size).toBe(epochs * replicas);
    });
  }

  test("what is left over is not always the same", async () => {
    const [batches] = await batchesOf(N, 4, { steps: 40 });
    const left = Array.from({ length: 20 }, (_, e) => {
      const used = new Set(batches!.slice(2 * e, 2 * e + 2).flat());
      return Array.from({ length: N }, (_n, n) => n).filter((n) => !used.has(n));
    });
    expect(new Set(left.flat()).size).toBe(N);
  });
});

describe("orders are uniform", () => {
  const words = (permutation: readonly number[]) => permutation.join("");
  const permutations = ["0", "1", "2", "3"].flatMap((a) =>
    ["0", "1", "2", "3"].flatMap((b) =>
      ["0", "1", "2", "3"].flatMap((c) =>
        ["0", "1", "2", "3"].flatMap((d) => (new Set([a, b, c, d]).size === 4 ? [a + b + c + d] : [])),
      ),
    ),
  );
  const chiSquare = (counts: ReadonlyMap<string, number>, cells: readonly string[]) => {
    const total = [...counts.values()].reduce((a, b) => a + b, 0);
    const expected = total / cells.length;
    const x = cells.reduce((sum, c) => sum + ((counts.get(c) ?? 0) - expected) ** 2 / expected, 0);
    return chiSquareAbove(cells.length - 1, x);
  };
  const count = (list: readonly string[]) => {
    const counts = new Map<string, number>();
    for (const cell of list) counts.set(cell, (counts.get(cell) ?? 0) + 1);
    return counts;
  };

  // 48,000 epochs of N = 4, S = 1, 2,000 in each of 24 cells: a cell off by 10 % adds 20 to a chi-square of 23 +- 7.
  // p < 1e-6 is the alarm of each of three statistics
  test("all 24 orders of four samples, alone and beside the epoch before: p > 1e-6", async () => {
    const runs = await batchesOf(4, 1, { steps: 4 * 48, replicas: 1000, seed: "uniform" });
    const epochs = runs.map((steps) =>
      Array.from({ length: 48 }, (_, e) => steps.slice(4 * e, 4 * e + 4).flat()),
    );
    expect(chiSquare(count(epochs.flat().map(words)), permutations)).toBeGreaterThan(1e-6);
    const cells = permutations.flatMap((p) => [0, 1, 2, 3].map((n) => `${p}${n}`));
    const seams = epochs.flatMap((list) => list.slice(1).map((e, i) => words(list[i]!) + e[0]));
    expect(chiSquare(count(seams), cells)).toBeGreaterThan(1e-6);
    // first sample of the same epoch in neighbouring replicas
    const pairs = epochs.slice(1).flatMap((list, r) => list.map((e, i) => `${epochs[r]![i]![0]}${e[0]}`));
    const sixteen = [0, 1, 2, 3].flatMap((a) => [0, 1, 2, 3].map((b) => `${a}${b}`));
    expect(chiSquare(count(pairs), sixteen)).toBeGreaterThan(1e-6);
    // the shuffle that exchanges with any of the N entries, not those left, has 256 ways for 24 orders: rejected
    let state = 1;
    const next = (below: number) => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return Math.floor((state / 2 ** 32) * below);
    };
    const naive = epochs.flat().map(() => {
      const order = [0, 1, 2, 3];
      for (let s = 0; s < 4; s++) {
        const j = next(4);
        [order[s], order[j]] = [order[j]!, order[s]!];
      }
      return words(order);
    });
    expect(chiSquare(count(naive), permutations)).toBeLessThan(1e-6);
  });
});

describe("the place in an epoch does not depend on how a run is cut", () => {
  const net = counter(N);
  const common: Options = {
    scheme: "sgd",
    theta: new Array<number>(N).fill(0.25),
    eta: 0.1,
    batchSize: 3,
    sampling: "epochs",
    steps: 50,
    replicas: 5,
    seed: "cut",
    record: { every: 7, loss: "batch", values: { t: net.leaf("t") } },
  };

  test.each(lanes)("chunks of 1, 2, 3, 4, 5 and 50 steps give one hash, lanes are %s", async (where) => {
    const problem = engine.problem(net, { x: units(N) });
    const hashes = new Set<string>();
    for (const chunk of [1, 2, 3, 4, 5, 50])
      for (const group of [2, 5])
        hashes.add((await problem.simulate({ ...common, lowering: { lanes: where, chunk, group } })).hash);
    problem.dispose();
    expect(hashes.size).toBe(1);
  });

  test.each(lanes)(
    "a run resumed in the middle of an epoch ends on the same bits, lanes are %s",
    async (where) => {
      const problem = engine.problem(net, { x: units(N) });
      const lowering = { lanes: where };
      const straight = await problem.simulate({ ...common, lowering });
      const saved: Uint8Array[] = [];
      const checkpoint = { everySteps: 4, save: (bytes: Uint8Array) => void saved.push(bytes) };
      expect((await problem.simulate({ ...common, lowering, checkpoint })).hash).toBe(straight.hash);
      expect(saved).toHaveLength(12);
      for (const resume of saved)
        expect((await problem.simulate({ ...common, lowering, resume })).hash).toBe(straight.hash);
      problem.dispose();
    },
  );

  test("the recorded batch loss is that of the next step's batch, across the end of an epoch", async () => {
    const problem = engine.problem(net, { x: units(N) });
    const [R, steps] = [5, 50];
    const run = await problem.simulate({
      ...common,
      record: { every: 1, loss: "batch", values: { t: net.leaf("t") } },
    });
    problem.dispose();
    const key = keyOfSeed("cut");
    const t = run.series.values["t"]!;
    for (let r = 0; r < R; r++) {
      for (let k = 0; k <= steps; k++) {
        const row = k * R + r;
        const batch = epochBatch(key, r, k, 3, N);
        const expected = batch.reduce((sum, n) => sum + t[row * N + n]!, 0) / 3;
        expect(Math.abs(run.series.loss![row]! - expected)).toBeLessThan(1e-14);
      }
    }
  });
});

/**
 * How close the diffusions are to SGD: exact moments on both sides, so that an order of convergence is seen without noise;
 * and the engine's own steps against the drift and the covariance those moments assume. It catches eta/4 for eta/2 in the
 * bend of the drift, its sign, sigma^2 without its 1/2, and a Hessian product of the wrong pass.
 */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createEngine, type Engine, model, ops, type Problem } from "../../src/index.ts";
import {
  certain,
  diffusionMoments,
  largest,
  lawOf,
  plus,
  type Quadratic,
  sgdMoments,
} from "../reference/moments.ts";

// four samples, S = 1; H_n symmetric, not commuting, b_n of mean (.05, .025)
const losses: Quadratic[] = [
  {
    H: [
      [1.2, 0.3],
      [0.3, 0.5],
    ],
    b: [0.6, -0.4],
  },
  {
    H: [
      [0.4, -0.2],
      [-0.2, 0.9],
    ],
    b: [-0.8, 0.3],
  },
  {
    H: [
      [0.9, 0.1],
      [0.1, 0.2],
    ],
    b: [0.1, 0.7],
  },
  {
    H: [
      [0.3, 0.5],
      [0.5, 1.6],
    ],
    b: [0.3, -0.5],
  },
];
const N = losses.length;
const start = [1, -0.7];
const net = model({
  params: { t: [2] },
  inputs: { H: [2, 2], b: [2] },
  loss: ({ t, H, b }) => ops.add(ops.scale(ops.matmul(t, ops.matmul(H, t)), 0.5), ops.matmul(b, t)),
});
const data = { H: losses.flatMap((l) => l.H.flat()), b: losses.flatMap((l) => l.b) };
const lanes = ["samples", "replicas", "features"] as const;

let engine: Engine;
let problem: Problem;
beforeAll(async () => {
  engine = await createEngine();
  problem = engine.problem(net, data);
});
afterAll(() => engine.dispose());

/** log2 of the ratios of neighbouring errors: the observed orders. */
const orders = (errors: readonly number[]): number[] =>
  errors.slice(1).map((e, i) => Math.log2(errors[i]! / e));

describe("weak order, at time 1, from exact moments", () => {
  const time = 1;
  const etas = [0.1, 0.05, 0.025, 0.0125];
  const errorsOf = (sigma2: (eta: number) => number, bend: (eta: number) => number): number[] =>
    etas.map((eta) => {
      let M: number[][] = certain(start);
      for (let k = 0; k < Math.round(time / eta); k++) M = sgdMoments(losses, eta, M);
      const o = { sigma2: sigma2(eta), bend: bend(eta), time, steps: 400 };
      return largest(plus(M, diffusionMoments(losses, o, certain(start)), -1));
    });
  // an error a eta^p + b eta^(p+1) + ... has the order p + O(eta); the fourth-order rule is wrong by some 1e-12
  test("the SDE follows SGD's moments to order 1", () => {
    for (const p of orders(
      errorsOf(
        (eta) => eta / 2,
        () => 0,
      ),
    ))
      expect(Math.abs(p - 1)).toBeLessThan(0.15);
  });
  test("the modified equation follows them to order 2, and no neighbour of it does", () => {
    const errors = errorsOf(
      (eta) => eta / 2,
      (eta) => eta / 2,
    );
    for (const p of orders(errors)) expect(Math.abs(p - 2)).toBeLessThan(0.15);
    expect(errors.at(-1)).toBeLessThan(1e-4);
    for (const bend of [0.25, -0.5, 1]) {
      const wrong = orders(
        errorsOf(
          (eta) => eta / 2,
          (eta) => bend * eta,
        ),
      );
      expect(wrong.at(-1), `bend ${bend} eta`).toBeLessThan(1.5);
    }
    const noisier = orders(
      errorsOf(
        (eta) => 1.1 * (eta / 2),
        (eta) => eta / 2,
      ),
    );
    expect(noisier.at(-1)).toBeLessThan(1.5);
  });
});

describe("the engine's steps have that drift and that covariance", () => {
  const [eta, dt] = [0.1, 0.02];
  /** Displacement of one update for given xi. */
  const step = async (
    scheme: "sde" | "modified",
    normals: readonly number[],
    where: (typeof lanes)[number],
  ) => {
    const options = { scheme, theta: start, eta, dt, batchSize: 1, steps: 1, normals } as const;
    const run = await problem.simulate({ ...options, lowering: { lanes: where } });
    return [...run.theta].map((x, i) => x - start[i]!);
  };
  /** What the moment equations assume, from their own right-hand side: the moments' rates at a known theta. */
  const assumed = (bend: number) => {
    const small = 1e-3;
    const at = (time: number) =>
      lawOf(diffusionMoments(losses, { sigma2: eta / 2, bend, time, steps: 1 }, certain(start)));
    // moments are smooth in time: symmetric differences over +-small are wrong by some small^2
    const [after, before] = [at(small), at(-small)];
    return {
      drift: after.mean.map((x, i) => (x - before.mean[i]!) / (2 * small)),
      spread: plus(after.covariance, before.covariance, -1).map((row) => row.map((x) => x / (2 * small))),
    };
  };

  for (const where of lanes) {
    test.each([
      ["sde", 0],
      ["modified", eta / 2],
    ] as const)(`%s, lanes are ${where}`, async (scheme, bend) => {
      const zero = new Array<number>(N).fill(0);
      const { drift, spread } = assumed(bend);
      const mean = await step(scheme, zero, where);
      for (const [i, x] of mean.entries()) expect(Math.abs(x / dt - drift[i]!)).toBeLessThan(1e-5);
      const columns = await Promise.all(
        zero.map(async (_, n) => {
          const one = await step(
            scheme,
            zero.map((_z, m) => (m === n ? 1 : 0)),
            where,
          );
          return one.map((x, i) => x - mean[i]!);
        }),
      );
      for (const [i, row] of spread.entries()) {
        for (const [j, s] of row.entries()) {
          const own = columns.reduce((sum, c) => sum + c[i]! * c[j]!, 0) / dt;
          expect(Math.abs(own - s)).toBeLessThan(1e-5);
        }
      }
      // the two drifts are told apart by far more than that
      const other = assumed(eta / 2 - bend).drift;
      expect(Math.max(...drift.map((x, i) => Math.abs(x - other[i]!)))).toBeGreaterThan(1e-2);
    });
  }
});

test("without noise the engine's modified equation follows its GD to order 2, its flow to order 1", async () => {
  const time = 2;
  const etas = [0.2, 0.1, 0.05, 0.025];
  const errors: { flow: number[]; modified: number[] } = { flow: [], modified: [] };
  for (const eta of etas) {
    const common = { theta: start, eta, steps: Math.round(time / eta) };
    const gd = (await problem.simulate({ ...common, scheme: "gd" })).theta;
    const flow = (await problem.simulate({ ...common, scheme: "flow", rtol: 1e-12, atol: 1e-14 })).theta;
    const bent = async (substeps: number) =>
      (await problem.simulate({ ...common, scheme: "modified", sigma2: 0, substeps })).theta;
    // Euler's error in dt = eta / substeps is a series in it: two extrapolations leave (eta / 64)^3
    const [a, b, c] = [await bent(64), await bent(128), await bent(256)];
    const exact = [...c].map((x, i) => (8 * x - 6 * b[i]! + a[i]!) / 3);
    const far = (from: ArrayLike<number>) => Math.hypot(...[...gd].map((x, i) => x - from[i]!));
    errors.flow.push(far(flow));
    errors.modified.push(far(exact));
  }
  for (const p of orders(errors.flow)) expect(Math.abs(p - 1)).toBeLessThan(0.15);
  for (const p of orders(errors.modified)) expect(Math.abs(p - 2)).toBeLessThan(0.15);
});

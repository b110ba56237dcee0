/**
 * Gradient flow against closed forms. It catches a wrong coefficient of the pair (order and error fall), a tolerance that is
 * not per replica, steps of one replica that follow another's, decay outside the field, and a pole that is never left.
 */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createEngine, type Engine, model, ops, type Problem, symmetry } from "../../src/index.ts";
import { goldenProblem } from "../reference/sgd.ts";

let engine: Engine;
beforeAll(async () => {
  engine = await createEngine();
});
afterAll(() => engine.dispose());

const lanes = ["samples", "replicas", "features"] as const;

describe("L = 1/2 theta^T H theta + b . theta", () => {
  // eigenvalues 2 and 30 with the directions (3, 4) / 5 and (-4, 3) / 5; mean b = (-1, .5)
  const [soft, hard] = [2, 30];
  const [c, s] = [0.6, 0.8];
  const H = [
    [soft * c * c + hard * s * s, (soft - hard) * c * s],
    [(soft - hard) * c * s, soft * s * s + hard * c * c],
  ];
  const b = [
    [-1.7, 0.4],
    [-0.3, 0.6],
  ];
  const net = model({
    params: { t: [2] },
    inputs: { b: [2] },
    constants: { H },
    loss: ({ t, b: slope, H: h }) =>
      ops.add(ops.scale(ops.matmul(t, ops.matmul(h, t)), 0.5), ops.matmul(slope, t)),
  });
  const start = [1.5, -0.4];
  let problem: Problem;
  beforeAll(() => {
    problem = engine.problem(net, { b: b.flat() });
  });

  /** theta(t) = theta* + exp(-(H + 2 gamma) t) (theta0 - theta*), by the eigenvectors. */
  function exact(time: number, gamma = 0): number[] {
    const along = (v: readonly number[], h: number) => {
      const rate = h + 2 * gamma;
      const rest = (v[0]! * 1 + v[1]! * -0.5) / rate; // theta* = -(H + 2 gamma)^-1 mean b
      const before = v[0]! * start[0]! + v[1]! * start[1]!;
      return rest + Math.exp(-rate * time) * (before - rest);
    };
    const [p, q] = [along([c, s], soft), along([-s, c], hard)];
    return [c * p - s * q, s * p + c * q];
  }
  const error = (theta: ArrayLike<number>, expected: readonly number[]) =>
    Math.max(...expected.map((x, i) => Math.abs(theta[i]! - x)));

  // the flow contracts, so errors of trial steps, each at most the tolerance, fade with rate 2: they cannot add up to more
  // than those of the steps in the last time unit. 20 is three times the trial steps stability allows in it
  for (const where of lanes) {
    test.each([1e-4, 1e-6, 1e-8, 1e-10, 1e-12])(
      `rtol %d: theta(t) within 20 (atol + rtol |theta|) of the closed form, lanes are ${where}`,
      async (rtol) => {
        const [eta, steps, atol] = [0.125, 12, 1e-3 * rtol];
        const run = await problem.simulate({
          scheme: "flow",
          theta: start,
          eta,
          steps,
          rtol,
          atol,
          record: { every: 1, values: { t: net.leaf("t") } },
          lowering: { lanes: where },
        });
        for (let k = 0; k <= steps; k++) {
          const at = run.series.values["t"]!.subarray(2 * k, 2 * k + 2);
          expect(run.series.t[k]).toBeCloseTo(k * eta, 14);
          expect(error(at, exact(k * eta))).toBeLessThan(20 * (atol + rtol * 1.6));
        }
        // one long step is as good as many short ones
        const once = await problem.simulate({ scheme: "flow", theta: start, eta: 1.5, steps: 1, rtol, atol });
        expect(error(once.theta, exact(1.5))).toBeLessThan(20 * (atol + rtol * 1.6));
      },
    );
  }

  test("tightening rtol by 1e4 tightens the error by more than 1e3", async () => {
    const errors: number[] = [];
    for (const rtol of [1e-3, 1e-7, 1e-11]) {
      const run = await problem.simulate({
        scheme: "flow",
        theta: start,
        eta: 0.2,
        steps: 1,
        rtol,
        atol: 1e-15,
      });
      errors.push(error(run.theta, exact(0.2)));
    }
    expect(errors[0]! / errors[1]!).toBeGreaterThan(1e3);
    expect(errors[1]! / errors[2]!).toBeGreaterThan(1e3);
  });

  test("decay is part of the field: rates H + 2 gamma, a gamma per replica, the minimum moved", async () => {
    const gammas = [0, 0.3, 4];
    const run = await problem.simulate({
      scheme: "flow",
      theta: start,
      eta: 0.4,
      steps: 3,
      replicas: 3,
      weightDecay: gammas,
      rtol: 1e-11,
      atol: 1e-13,
    });
    for (const [r, gamma] of gammas.entries())
      expect(error(run.theta.subarray(2 * r, 2 * r + 2), exact(1.2, gamma))).toBeLessThan(1e-9);
  });

  test("a schedule is a list of times, and eta 0 stands still", async () => {
    const schedule = [0.1, 0, 0.4, 0.05];
    const options = { scheme: "flow", theta: start, steps: 4, rtol: 1e-11, atol: 1e-13 } as const;
    const run = await problem.simulate({
      ...options,
      schedule,
      record: { every: 1, values: { t: net.leaf("t") } },
    });
    let time = 0;
    for (const [k, eta] of schedule.entries()) {
      time += eta;
      expect(run.series.t[k + 1]).toBeCloseTo(time, 14);
      expect(error(run.series.values["t"]!.subarray(2 * k + 2, 2 * k + 4), exact(time))).toBeLessThan(1e-9);
    }
    const still = await problem.simulate({ ...options, eta: [0, 0.1], replicas: 2 });
    expect([...still.theta.subarray(0, 2)]).toEqual(start);
    expect(error(still.theta.subarray(2), exact(0.4))).toBeLessThan(1e-9);
  });

  // the estimate of the error is rounded to f32 too, so a tolerance below its unit, 6e-8, can only be met by small steps
  test("in f32 it ends with the tolerances it has by default, and with 100 units of rounding", async () => {
    const single = await createEngine({ dtype: "f32" });
    const on = single.problem(net, { b: b.flat() });
    const run = await on.simulate({ scheme: "flow", theta: start, eta: 0.5, steps: 2 });
    expect(run.status).toBe("done");
    expect(error(run.theta, exact(1))).toBeLessThan(100 * 2 ** -24 * 1.6);
    single.dispose();
  });

  test("a single step too stiff for this lifetime hears an abort", async () => {
    const controller = new AbortController();
    setTimeout(() => controller.abort(), 40);
    const began = performance.now();
    const options = { scheme: "flow", theta: start, eta: 1e8, steps: 1, signal: controller.signal } as const;
    await expect(problem.simulate(options)).rejects.toThrow(/abort/i);
    expect(performance.now() - began).toBeLessThan(1000);
  });
});

describe("charges under the flow", () => {
  const golden = goldenProblem();
  const net = model({
    params: { U: [2, 2], W: [2, 3] },
    inputs: { x: [3], y: [2] },
    loss: ({ U, W, x, y }) => ops.sqnorm(ops.sub(ops.matmul(U, ops.matmul(W, x)), y)),
  });
  const A = symmetry.doubleRotation("U", "W", golden.B);
  const theta = [...golden.U, ...golden.W];
  const follow = async (options: { rtol: number; weightDecay?: number; lanes?: (typeof lanes)[number] }) => {
    const problem = engine.problem(net, { x: golden.x, y: golden.y });
    const run = await problem.simulate({
      scheme: "flow",
      theta,
      eta: 0.5,
      steps: 20,
      rtol: options.rtol,
      atol: 1e-3 * options.rtol,
      weightDecay: options.weightDecay ?? 0,
      record: { every: 1, charges: { C: A } },
      lowering: options.lanes === undefined ? {} : { lanes: options.lanes },
    });
    const gd = await problem.simulate({
      scheme: "gd",
      theta,
      eta: 0.05,
      steps: 200,
      record: { every: 200, charges: { C: A } },
    });
    problem.dispose();
    return { C: run.series.charges["C"]!, gd: gd.series.charges["C"]! };
  };

  // errors along an orbit do not fade: at most the tolerance for each of some 100 trial steps, times |A theta| < 3
  test.each([1e-5, 1e-8, 1e-11])("C is kept to 300 rtol |theta|, rtol %d", async (rtol) => {
    for (const where of lanes) {
      const { C, gd } = await follow({ rtol, lanes: where });
      const worst = Math.max(...Array.from(C, (x) => Math.abs(x - C[0]!)));
      expect(worst).toBeLessThan(300 * rtol);
      expect(worst).toBeGreaterThan(0);
      // gradient descent over the same time does not keep it
      expect(Math.abs(gd[1]! - gd[0]!)).toBeGreaterThan(300 * 1e-5);
    }
  });

  test("with decay C(t) = C(0) exp(-4 gamma t)", async () => {
    const [rtol, gamma] = [1e-10, 0.05];
    const { C } = await follow({ rtol, weightDecay: gamma });
    for (const [k, x] of C.entries())
      expect(Math.abs(x - C[0]! * Math.exp(-4 * gamma * 0.5 * k))).toBeLessThan(300 * rtol);
  });
});

describe("replicas of different stiffness", () => {
  // L = sum of a quartic well and noise-free data: rates from 1 to 1000 along the way
  const net = model({
    params: { u: [], w: [] },
    inputs: { x: [], y: [] },
    loss: ({ u, w, x, y }) => ops.square(ops.sub(ops.mul(ops.mul(u, w), x), y)),
  });
  const thetas = [
    [0.5, 0.4],
    [12, -3],
    [0, 0],
    [30, 25],
    [-2, 7],
    [1, 1],
  ];
  const eta = [0.7, 0.01, 3, 0.2, 0, 1.3];
  const gamma = [0, 3, 0.2, 10, 1, 0];

  test.each(lanes)("have the same hashes alone and together, lanes are %s", async (where) => {
    const problem = engine.problem(net, { x: [1, -0.5, 2], y: [0.3, 1, -1] });
    const common = {
      scheme: "flow",
      steps: 9,
      rtol: 1e-7,
      record: { every: 2, loss: "full", values: { u: net.leaf("u") } },
      lowering: { lanes: where },
    } as const;
    const together = await problem.simulate({
      ...common,
      theta: thetas,
      eta,
      weightDecay: gamma,
      replicas: thetas.length,
    });
    for (const [r, theta] of thetas.entries()) {
      const alone = await problem.simulate({
        ...common,
        theta,
        eta: eta[r]!,
        weightDecay: gamma[r]!,
        firstReplica: r,
      });
      expect(alone.hashes[0], `replica ${r}`).toBe(together.hashes[r]);
      expect(alone.series.t[4]).toBe(together.series.t[4 * thetas.length + r]);
    }
    problem.dispose();
  });
});

describe("a pole: theta' = theta^2, theta(t) = theta0 / (1 - theta0 t)", () => {
  const net = model({
    params: { t: [] },
    inputs: { x: [] },
    loss: ({ t, x }) => ops.scale(ops.mul(x, ops.mul(t, ops.square(t))), -1 / 3),
  });
  const eta = 0.3;
  const open = () => engine.problem(net, { x: [1] });

  test.each(lanes)("ends the run as diverged at the step that crosses it, lanes are %s", async (where) => {
    const problem = open();
    const began = performance.now();
    const run = await problem.simulate({
      scheme: "flow",
      theta: [1],
      eta,
      steps: 100,
      record: { every: 1, values: { t: net.leaf("t") } },
      lowering: { lanes: where },
    });
    problem.dispose();
    expect(performance.now() - began).toBeLessThan(2000);
    expect([run.status, run.steps]).toEqual(["diverged", 3]);
    expect(run.diverged).toMatchObject([{ replica: 0, step: 4 }]);
    // the last finite loss is that at t = .9, theta = 10
    expect(run.diverged[0]!.lastLoss).toBeCloseTo(-1000 / 3, 2);
    const path = run.series.values["t"]!;
    for (let k = 0; k <= 3; k++) expect(Math.abs(path[k]! * (1 - eta * k) - 1)).toBeLessThan(1e-6);
  });

  test.each(lanes)("leaves the other replicas alone, lanes are %s", async (where) => {
    const problem = open();
    const starts = [-1, 1, -0.2, 0.5, 0];
    const run = await problem.simulate({
      scheme: "flow",
      theta: starts.map((x) => [x]),
      replicas: starts.length,
      eta,
      steps: 20,
      onDiverge: "stopReplica",
      lowering: { lanes: where },
    });
    problem.dispose();
    // poles at 1 and at 2: within steps 4 and 7
    expect(run.diverged.map(({ replica, step }) => [replica, step])).toEqual([
      [1, 4],
      [3, 7],
    ]);
    const time = eta * 20;
    for (const [r, x] of starts.entries()) {
      if (x > 0) continue;
      expect(Math.abs(run.theta[r]! - x / (1 - x * time))).toBeLessThan(1e-6);
    }
  });
});

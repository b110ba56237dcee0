/**
 * Charges that need not be quadratic: their flow against closed forms, differences, enumerated steps of SGD and simulated runs
 * (row E30 of the theory), and whether they are conserved.
 */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createEngine, type Engine, losses, model, ops, type Problem, symmetry } from "../../src/index.ts";
import { Draw } from "../helpers/ready.ts";

let engine: Engine;
beforeAll(async () => {
  engine = await createEngine();
});
afterAll(() => engine.dispose());

const near = (got: number, expected: number, tolerance: number, what = ""): void =>
  expect(Math.abs(got - expected), `${what}: ${got}, expected ${expected}`).toBeLessThanOrEqual(tolerance);

/** y is 0 or 2: on the valley f = 1 the noise of the label has variance 1. */
const valley = { y: [0, 2] };

/** (a e^b - y)^2, conserved C = b - a^2 / 2. */
const exponential = model({
  params: { a: [], b: [] },
  inputs: { y: [] },
  loss: ({ a, b, y }) => ops.square(ops.sub(ops.mul(a, ops.exp(b)), y)),
});
const chargeE = ops.sub(exponential.leaf("b"), ops.scale(ops.square(exponential.leaf("a")), 0.5));

/** (a^3 + b - y)^2, conserved C = -1 / (3 a) - b. */
const cubic = model({
  params: { a: [], b: [] },
  inputs: { y: [] },
  loss: ({ a, b, y }) => ops.square(ops.sub(ops.add(ops.mul(a, ops.square(a)), b), y)),
});
const chargeC = ops.scale(ops.add(ops.div(1 / 3, cubic.leaf("a")), cubic.leaf("b")), -1);

describe("a e^b", () => {
  test("on the valley dC/dt = -4 sigma^2 e^(2 b), with grad C = (-a, 1) and Hess C = diag(-1, 0)", () => {
    const problem = engine.problem(exponential, valley);
    for (const b of [Math.log(2), 0, -0.4]) {
      const theta = [Math.exp(-b), b];
      const flow = problem.chargeFlow(theta, chargeE, { eta: 0.01, batchSize: 1 });
      near(flow.charge, b - Math.exp(-2 * b) / 2, 1e-15);
      near(flow.noise, -4 * 0.005 * Math.exp(2 * b), 1e-14);
      near(flow.gradient, 0, 1e-15);
      near(flow.discrete, 0, 1e-15);
      near(flow.defect, 0, 1e-15);
      near(flow.total, flow.noise, 1e-15);
    }
    // off it, with decay
    const [a, b] = [0.7, 0.3];
    const decayed = problem.chargeFlow([a, b], chargeE, { sigma2: 0.1, weightDecay: 0.02 });
    near(decayed.decay, -0.04 * (b - a * a), 1e-16);
    const g = problem.gradient([a, b]);
    const finite = problem.chargeFlow([a, b], chargeE, { eta: 0.2, batchSize: 1 }).discrete;
    near(finite, -0.1 * g[0]! * g[0]!, 1e-14);
    expect(problem.checkCharge(chargeE)).toMatchObject({ verdict: "exact" });
    expect(problem.checkCharge(exponential.leaf("b")).verdict).toBe("none");
    problem.dispose();
  });

  test("is the charge of a generator that translates b, with the same flow", () => {
    const problem = engine.problem(exponential, valley);
    const A = symmetry.generator({ blocks: { a: { scalar: -1 } }, translation: { b: 1 } });
    expect(problem.checkSymmetry(A).verdict).toBe("exact");
    for (const theta of [
      [0.5, Math.log(2)],
      [-0.3, 1.1],
    ]) {
      near(problem.charge(theta, A), problem.chargeFlow(theta, chargeE, { sigma2: 1 }).charge, 1e-15);
      const options = { eta: 0.1, batchSize: 1, weightDecay: 0.05 };
      const [flow, general] = [
        problem.noetherFlow(theta, A, options),
        problem.chargeFlow(theta, chargeE, options),
      ];
      for (const part of ["noise", "decay", "gradient", "discrete", "total"] as const)
        near(general[part], flow[part], 1e-13 * (1 + Math.abs(flow[part])), part);
    }
    problem.dispose();
  });

  test("a run falls as the flow says, never rising", async () => {
    const problem = engine.problem(exponential, valley);
    const [eta, steps, replicas] = [0.01, 2000, 256];
    const run = await problem.simulate({
      scheme: "sgd",
      batchSize: 1,
      theta: [0.5, Math.log(2)],
      eta,
      steps,
      replicas,
      seed: "E30",
      record: { every: 1, values: { C: chargeE } },
    });
    const C = run.series.values["C"]!;
    let rises = 0;
    for (let e = replicas; e < C.length; e++) if (C[e]! - C[e - replicas]! > 1e-15) rises++;
    expect(rises).toBe(0);
    const changes = Array.from({ length: replicas }, (_, r) => C[steps * replicas + r]! - C[r]!);
    const mean = changes.reduce((s, x) => s + x, 0) / replicas;
    const stdErr = Math.sqrt(changes.reduce((s, x) => s + (x - mean) ** 2, 0) / (replicas - 1) / replicas);
    // along the valley a = e^-b: db/dt = dC/dt / (1 + e^(-2 b))
    const flowAt = (b: number): number =>
      problem.chargeFlow([Math.exp(-b), b], chargeE, { eta, batchSize: 1 }).noise;
    let [b, predicted] = [Math.log(2), 0];
    const dt = eta * 20;
    for (let k = 0; k < steps / 20; k++) {
      const half = b + (0.5 * dt * flowAt(b)) / (1 + Math.exp(-2 * b));
      const rate = flowAt(half);
      predicted += dt * rate;
      b += (dt * rate) / (1 + Math.exp(-2 * half));
    }
    // the model error of the valley is O(eta): 3 %, as the theory found
    expect(Math.abs(mean - predicted)).toBeLessThan(0.03 * Math.abs(predicted) + 4.9 * stdErr);
    expect(predicted).toBeLessThan(-0.5);
    problem.dispose();
  });
});

describe("a^3 + b", () => {
  test("Hess C = diag(-2 / (3 a^3), 0): on the valley dC/dt = -24 sigma^2 a, of either sign", () => {
    const problem = engine.problem(cubic, valley);
    for (const a of [1, -1, 0.6]) {
      const flow = problem.chargeFlow([a, 1 - a * a * a], chargeC, { eta: 0.002, batchSize: 1 });
      near(flow.noise, -24 * 0.001 * a, 1e-15);
      near(flow.charge, -1 / (3 * a) - 1 + a * a * a, 1e-15);
      near(flow.gradient, 0, 1e-15);
    }
    expect(problem.checkCharge(chargeC).verdict).toBe("exact");
    problem.dispose();
  });

  test("runs from a = 1 and a = -1 go the two ways", async () => {
    const problem = engine.problem(cubic, valley);
    const [eta, steps, replicas] = [0.002, 1000, 128];
    for (const sign of [1, -1]) {
      const run = await problem.simulate({
        scheme: "sgd",
        batchSize: 1,
        theta: [sign, 1 - sign],
        eta,
        steps,
        replicas,
        seed: "E30",
        record: { every: steps, values: { C: chargeC } },
      });
      const C = run.series.values["C"]!;
      const changes = Array.from({ length: replicas }, (_, r) => C[replicas + r]! - C[r]!);
      const mean = changes.reduce((s, x) => s + x, 0) / replicas;
      const stdErr = Math.sqrt(changes.reduce((s, x) => s + (x - mean) ** 2, 0) / (replicas - 1) / replicas);
      // on a^3 + b = 1, C = -1/(3a) - 1 + a^3: dC/da = 1/(3a^2) + 3a^2
      let [a, predicted] = [sign, 0];
      const dt = eta * 10;
      for (let k = 0; k < steps / 10; k++) {
        const rate = problem.chargeFlow([a, 1 - a * a * a], chargeC, { eta, batchSize: 1 }).noise;
        predicted += dt * rate;
        a += (dt * rate) / (1 / (3 * a * a) + 3 * a * a);
      }
      expect(Math.sign(predicted)).toBe(-sign);
      expect(Math.abs(mean - predicted)).toBeLessThan(0.03 * Math.abs(predicted) + 4.9 * stdErr);
    }
    problem.dispose();
  });
});

test("one number added to all logits of a softmax: conserved exactly, at every step", async () => {
  const net = model({
    params: { W: [4, 5] },
    inputs: { x: [5], y: [4] },
    constants: { k: [1, -2, 0.5, 3, 1] },
    loss: ({ W, x, y }) => losses.crossEntropy(ops.matmul(W, x), y),
  });
  const d = new Draw(30);
  const N = 40;
  const y = Array.from({ length: N }, () => d.between(0, 3)).flatMap((k) =>
    [0, 1, 2, 3].map((j) => (j === k ? 1 : 0)),
  );
  const problem = engine.problem(net, { x: d.normals(5 * N), y });
  const C = ops.sum(ops.mul(ops.sum(net.leaf("W"), { axis: 0 }), net.leaf("k")));
  const theta = d.normals(20);
  const flow = problem.chargeFlow(theta, C, { eta: 0.05, batchSize: 1 });
  expect([flow.noise, flow.discrete]).toEqual([0, 0]);
  near(flow.gradient, 0, 1e-14);
  expect(problem.checkCharge(C).verdict).toBe("exact");
  const run = await problem.simulate({
    scheme: "sgd",
    batchSize: 1,
    theta,
    eta: 0.05,
    steps: 5000,
    seed: "E30",
    record: { every: 50, values: { C }, blockNorms: true },
  });
  for (const x of run.series.values["C"]!) near(x, flow.charge, 1e-12);
  const norms = run.series.blockNorms!["W"]!;
  expect(Math.abs(norms[norms.length - 1]! - norms[0]!)).toBeGreaterThan(0.3);
  problem.dispose();
});

describe("a net whose charge has every kind of op", () => {
  const B = [
    [1, 0.5, 0],
    [0.5, -0.75, 0.2],
    [0, 0.2, 0.3],
  ];
  const net = model({
    params: { U: [2, 3], W: [3, 2], c: [2], f: { shape: [2], trainable: false } },
    inputs: { x: [2], y: [2] },
    constants: { B },
    loss: ({ U, W, c, f, x, y }) =>
      ops.sqnorm(ops.sub(ops.add(ops.mul(ops.matmul(U, ops.tanh(ops.matmul(W, x))), f), c), y)),
  });
  const [U, W, c, f] = ["U", "W", "c", "f"].map((name) => net.leaf(name)) as [never, never, never, never];
  const C = ops.add(
    ops.sum(ops.softmax(ops.matmul(ops.matmul(U, W), c))),
    ops.add(
      ops.logsumexp(ops.matmul(ops.transpose(W), ops.exp(ops.sum(U, { axis: 0 })))),
      ops.mul(ops.sum(ops.tanh(ops.matmul(U, ops.matmul(W, f)))), ops.sqnorm(c)),
    ),
  );
  const d = new Draw(17);
  const N = 7;
  const data = { x: d.normals(2 * N), y: d.normals(2 * N) };
  const theta = d.normals(net.P, 0.6);
  let problem: Problem;
  beforeAll(() => {
    problem = engine.problem(net, data);
  });
  const chargeAt = (at: ArrayLike<number>): number =>
    problem.chargeFlow(Array.from(at), C, { sigma2: 0 }).charge;
  const moved = (steps: readonly (readonly [number, number])[]): number[] => {
    const out = [...theta];
    for (const [i, h] of steps) out[i]! += h;
    return out;
  };

  test("Tr[Sigma Hess C] and gbar . Hess C gbar are those of second differences", async () => {
    const h = 2e-3;
    const { P } = net;
    const Sigma = await problem.noiseCovariance(theta);
    const g = problem.gradient(theta);
    let [power, along, size] = [0, 0, 0];
    for (let i = 0; i < P; i++) {
      for (let j = 0; j < P; j++) {
        if (Sigma[i * P + j] === 0 && g[i]! * g[j]! === 0) continue;
        const mixedDifference = (step: number): number =>
          (chargeAt(
            moved([
              [i, step],
              [j, step],
            ]),
          ) -
            chargeAt(
              moved([
                [i, step],
                [j, -step],
              ]),
            ) -
            chargeAt(
              moved([
                [i, -step],
                [j, step],
              ]),
            ) +
            chargeAt(
              moved([
                [i, -step],
                [j, -step],
              ]),
            )) /
          (4 * step * step);
        // Richardson: the error is of fourth order
        const H = (4 * mixedDifference(h) - mixedDifference(2 * h)) / 3;
        power += Sigma[i * P + j]! * H;
        along += g[i]! * H * g[j]!;
        size += Math.abs(Sigma[i * P + j]! * H);
      }
    }
    const flow = problem.chargeFlow(theta, C, { eta: 2, batchSize: 1 });
    near(flow.noise, power, 1e-7 * size);
    near(flow.discrete, along, 1e-6 * (1 + Math.abs(along)));
    expect(Math.abs(power)).toBeGreaterThan(1e-3);
  });

  test("gradient and decay are those of first differences; the untrained block is left out", () => {
    const h = 1e-4;
    const slope = theta.map((_, i) => (chargeAt(moved([[i, h]])) - chargeAt(moved([[i, -h]]))) / (2 * h));
    const g = problem.gradient(theta);
    const flow = problem.chargeFlow(theta, C, { sigma2: 0, weightDecay: 0.5 });
    near(flow.gradient, -slope.reduce((s, x, i) => s + x * g[i]!, 0), 1e-6);
    const decaying = slope.reduce((s, x, i) => s + (i < net.P - 2 ? x * theta[i]! : 0), 0);
    near(flow.decay, -decaying, 1e-6);
    expect(flow.defect).toBeGreaterThan(0.01);
    expect(problem.checkCharge(C).verdict).toBe("none");
  });

  test("gradient + noise + discrete is the mean of a step of SGD, to second order", () => {
    const rows = problem.perSampleGradients(theta);
    const meanStep = (eta: number): number => {
      let total = 0;
      for (let n = 0; n < N; n++)
        total += chargeAt(theta.map((x, i) => x - eta * rows[n * net.P + i]!)) - chargeAt(theta);
      return total / N / eta;
    };
    const errorAt = (eta: number): number => {
      const flow = problem.chargeFlow(theta, C, { eta, batchSize: 1 });
      return Math.abs(meanStep(eta) - flow.total - flow.discrete);
    };
    const [coarse, fine] = [errorAt(4e-4), errorAt(2e-4)];
    expect(coarse / fine).toBeGreaterThan(3.5);
    expect(coarse / fine).toBeLessThan(4.5);
  });

  test("a quadratic charge has the flow of its generator", () => {
    const A = symmetry.doubleRotation("U", "W", B);
    const Q = ops.sub(ops.matmul(ops.transpose(U), U), ops.matmul(W, ops.transpose(W)));
    const quadratic = ops.scale(ops.sum(ops.mul(net.leaf("B"), Q)), 0.5);
    const options = {
      eta: 0.1,
      batchSize: 2,
      weightDecay: 0.05,
      sampling: "without",
      momentum: 0.5,
    } as const;
    const [flow, general] = [
      problem.noetherFlow(theta, A, options),
      problem.chargeFlow(theta, quadratic, options),
    ];
    for (const part of ["noise", "decay", "gradient", "discrete", "total"] as const)
      near(general[part], flow[part], 1e-13 * (1 + flow.plus + flow.minus), part);
    near(general.charge, problem.charge(theta, A), 1e-14);
  });

  const cases: readonly [string, () => unknown, string][] = [
    [
      "a generator",
      () => problem.chargeFlow(theta, symmetry.scaling("U") as never, { sigma2: 1 }),
      "chargeFlow: expected an expression of this model's parameters, got an object with keys",
    ],
    ["no charge", () => problem.checkCharge(undefined as never), "checkCharge: expected an expression"],
    [
      "a leaf of another model",
      () => problem.chargeFlow(theta, cubic.leaf("a"), { sigma2: 1 }),
      "chargeFlow: expected an expression of this model's parameters",
    ],
    [
      "an input",
      () => problem.chargeFlow(theta, ops.sum(net.leaf("x")), { sigma2: 1 }),
      "chargeFlow: charges depend on parameters alone",
    ],
    [
      "a matrix",
      () => problem.checkCharge(net.leaf("U")),
      "checkCharge: expected a charge of one value, got shape [2, 3].",
    ],
    [
      "a charge of the untrained block",
      () => problem.chargeFlow(theta, ops.sum(net.leaf("f")), { sigma2: 1 }),
      "chargeFlow: expected a charge that depends on parameters that are trained, got one that never moves.",
    ],
    [
      "a constant in disguise",
      () => problem.checkCharge(ops.scale(ops.sum(net.leaf("U")), 0)),
      "checkCharge: expected a charge that depends on parameters that are trained, got one",
    ],
    [
      "a misspelt option",
      () => problem.chargeFlow(theta, C, { sigma: 1 } as never),
      'chargeFlow: options are eta, batchSize, sigma2, weightDecay, sampling, momentum, got "sigma".',
    ],
    [
      "an option of checkCharge",
      () => problem.checkCharge(C, { sed: 1 } as never),
      'checkCharge: options are theta, seed, got "sed". Did you mean "seed"?',
    ],
  ];
  test.each(cases)("%s is refused", (_, call, message) => {
    expect(call).toThrow(message);
  });
});

describe("a charge with a domain", () => {
  const net = model({
    params: { a: [8] },
    inputs: { x: [] },
    loss: ({ a, x }) => ops.square(ops.sub(ops.sum(ops.sqrt(a)), x)),
  });
  const power = (i: number) => {
    const a = ops.slice(net.leaf("a"), { start: i, stop: i + 1 });
    return ops.mul(a, ops.sqrt(a));
  };
  // one value in a list: a_0^(3/2) - a_1^(3/2)
  const C = ops.sub(power(0), power(1));

  test("thetas outside are replaced by their absolute values, and one that is given must be inside", () => {
    const problem = engine.problem(net, { x: [1, 2, 4] });
    // g is along 1 / sqrt(a), and grad C along sqrt(a_0) e_0 - sqrt(a_1) e_1
    expect(problem.checkCharge(C).verdict).toBe("exact");
    const inside = new Array(8).fill(0.5);
    expect(problem.checkCharge(C, { theta: inside }).verdict).toBe("exact");
    expect(() => problem.chargeFlow(new Array(8).fill(-1), C, { sigma2: 1 })).toThrow(
      "chargeFlow: C within f64, got NaN. The charge and the loss must be finite at theta, with their derivatives.",
    );
    // of a logarithm of what is never positive
    const never = ops.log(ops.scale(ops.sqnorm(net.leaf("a")), -1));
    expect(() => problem.checkCharge(never)).toThrow(
      "checkCharge: the charge and its gradient must be finite at a random theta, or at the one given, got none that is. Pass a { theta } in the domain",
    );
    problem.dispose();
  });
});

/**
 * Laws with a closed form, against the engine's own noise: stationary laws, decay of a charge, the factor of drawing
 * without repetition, and the identity that momentum keeps. It catches S divided twice, sigma^2 without its 1/2, an SDE that
 * is SGD in disguise, and work that leaves out the velocity.
 */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createEngine, type Engine, model, ops, type Problem, symmetry } from "../../src/index.ts";
import { largest, type Matrix, plus, times } from "../reference/moments.ts";
import { goldenProblem, gradientMoments, twoLayerLinear } from "../reference/sgd.ts";
import { gammaBelow, ksDistance, ksLimit, meanOf, zOf } from "../reference/statistics.ts";

type Options = Parameters<Problem["simulate"]>[0];

let engine: Engine;
beforeAll(async () => {
  engine = await createEngine();
});
afterAll(() => engine.dispose());

const lanes = ["samples", "replicas", "features"] as const;

test("the Gamma law and the test's limit are those of the tables", () => {
  // P(X <= 2) of shape 3 is 1 - 5 e^-2; of shape 1/2, erf(sqrt x); chi-square of 10 at 18.307 is .95
  expect(gammaBelow(3, 2)).toBeCloseTo(1 - 5 * Math.exp(-2), 13);
  expect(gammaBelow(0.5, 1)).toBeCloseTo(0.842700792949715, 13);
  expect(gammaBelow(5, 18.307 / 2)).toBeCloseTo(0.95, 5);
  expect(ksLimit(1000, 0.05)).toBeCloseTo(0.04295, 4);
});

describe("stationary covariance R of L = 1/2 theta^T H theta with noise of covariance Sigma", () => {
  // eigenvalues 1.2 and .3; four samples, Sigma = [[1, -.6], [-.6, .61]]
  const H = [
    [0.84, 0.432],
    [0.432, 0.66],
  ];
  const half = [
    [1, -0.6],
    [0, 0.5],
  ];
  const root2 = Math.SQRT2;
  const xi = [1, -1].flatMap((s) => half.map((v) => v.map((x) => s * root2 * x)));
  const Sigma = [
    [1, -0.6],
    [-0.6, 0.61],
  ];
  const [eta, S, R, substeps] = [1, 4, 6000, 20];
  const net = model({
    params: { t: [2] },
    inputs: { xi: [2] },
    constants: { H },
    loss: ({ t, xi: x, H: h }) => ops.add(ops.scale(ops.matmul(t, ops.matmul(h, t)), 0.5), ops.matmul(x, t)),
  });

  /** H R + R H - dt H R H = noise, by iterating R -> (I - dt H) R (I - dt H) + dt noise to the last bit. */
  function stationary(noise: Matrix, dt: number): number[][] {
    const keep = H.map((row, i) => row.map((h, j) => (i === j ? 1 : 0) - dt * h));
    let M = H.map((row) => row.map(() => 0));
    for (let i = 0; i < 400_000; i++) {
      const next = plus(times(times(keep, M), keep), noise, dt);
      const change = largest(plus(next, M, -1));
      M = next;
      if (change <= 1e-16) break;
    }
    return M;
  }
  const noise = Sigma.map((row) => row.map((s) => (eta / S) * s));
  const ofSGD = stationary(noise, eta);
  const ofEuler = stationary(noise, eta / substeps);
  const ofSDE = stationary(noise, 1e-3);

  const worstZ = (theta: ArrayLike<number>, M: Matrix): number => {
    let worst = 0;
    for (let i = 0; i < 2; i++) {
      const at = (r: number, e: number) => theta[2 * r + e]!;
      const replicas = Array.from({ length: R }, (_, r) => r);
      worst = Math.max(
        worst,
        Math.abs(
          zOf(
            replicas.map((r) => at(r, i)),
            0,
          ),
        ),
      );
      for (let j = 0; j <= i; j++)
        worst = Math.max(
          worst,
          Math.abs(
            zOf(
              replicas.map((r) => at(r, i) * at(r, j)),
              M[i]![j]!,
            ),
          ),
        );
    }
    return worst;
  };
  const settled = async (options: Partial<Options>) => {
    const problem = engine.problem(net, { xi: xi.flat() });
    const run = await problem.simulate({
      scheme: "sgd",
      theta: [0, 0],
      eta,
      batchSize: S,
      steps: Math.ceil(28 / (0.3 * eta)), // the slow mode has died out to 1e-12
      replicas: R,
      seed: "ou",
      ...options,
    });
    problem.dispose();
    return run.theta;
  };

  test("the data have that Sigma, and the laws of SDE and SGD are as far apart as they should be", () => {
    const { mean, covariance } = gradientMoments(xi);
    expect(largest([mean])).toBeLessThan(1e-15);
    expect(largest(plus(covariance, Sigma, -1))).toBeLessThan(1e-15);
    // HR + RH = 2 sigma2 Sigma up to dt H R H, here 1e-3 of it
    const lyapunov = plus(times(H, ofSDE), times(ofSDE, H));
    expect(largest(plus(lyapunov, noise, -1)) / largest(noise)).toBeLessThan(2e-3);
    // Euler-Maruyama at dt = eta / 20 is within 4 % of the SDE's largest entry, SGD more than 25 % off
    expect(largest(plus(ofEuler, ofSDE, -1)) / largest(ofSDE)).toBeLessThan(0.04);
    expect(largest(plus(ofSGD, ofSDE, -1)) / largest(ofSDE)).toBeGreaterThan(0.25);
  });

  // 5 statistics a run, R = 6,000: a variance has a standard error of 1.8 %, so |z| < 4.9 sees 9 %; false alarm 5e-6 a run
  test("the SDE at dt = eta / 20 has the SDE's R and not SGD's, |z| < 4.9, R = 6,000", async () => {
    const theta = await settled({ scheme: "sde", substeps });
    expect(worstZ(theta, ofEuler)).toBeLessThan(4.9);
    expect(worstZ(theta, ofSGD)).toBeGreaterThan(4.9);
  });
  test("SGD has SGD's and not the SDE's; at dt = eta the SDE's step has SGD's law too", async () => {
    for (const options of [{}, { scheme: "sde" } as const]) {
      const theta = await settled(options);
      expect(worstZ(theta, ofSGD)).toBeLessThan(4.9);
      expect(worstZ(theta, ofSDE)).toBeGreaterThan(4.9);
    }
  });
  test("SVAG with l = 20 has that of its own step, dt = eta / l and covariance l Sigma / S: the SDE's", async () => {
    const theta = await settled({ scheme: "svag", l: substeps, substeps });
    expect(worstZ(theta, ofEuler)).toBeLessThan(4.9);
    expect(worstZ(theta, ofSGD)).toBeGreaterThan(4.9);
  });
});

describe("l = (u w x - y)^2, x = 1, y = b1 +- sqrt c: the SDE's closed forms", () => {
  // D = c whatever v = u w: far tails are tame; sigma2 and dt small (theory 16)
  const [b1, c, sigma2, dt] = [1, 1, 0.05, 0.002];
  const net = model({
    params: { u: [], w: [] },
    inputs: { x: [], y: [] },
    loss: ({ u, w, x, y }) => ops.square(ops.sub(ops.mul(ops.mul(u, w), x), y)),
  });
  const data = { x: [1, 1], y: [b1 - Math.sqrt(c), b1 + Math.sqrt(c)] };

  // R = 4,000 independent replicas at time 5, 20 relaxation times 1 / (4 b1). The limit at one in a million is .043; steps
  // of dt move the mean by a relative 4 v dt = .8 %, .4 % of a standard deviation
  test("v = u w has a Gamma law, shape b1 / (4 sigma2 c) - 1/2, scale 4 sigma2 c: KS below its limit at 1e-6", async () => {
    const R = 4000;
    const problem = engine.problem(net, data);
    const run = await problem.simulate({
      scheme: "sde",
      theta: [1, 1],
      eta: 1,
      sigma2,
      dt,
      steps: 2500,
      replicas: R,
      seed: "gamma of the sde",
    });
    problem.dispose();
    const v = Array.from({ length: R }, (_, r) => run.theta[2 * r]! * run.theta[2 * r + 1]!);
    const law = (strength: number, less: number) => (x: number) =>
      gammaBelow(b1 / (4 * strength * c) - less, x / (4 * strength * c));
    const limit = ksLimit(R, 1e-6);
    const distance = ksDistance(v, law(sigma2, 0.5));
    expect(distance).toBeLessThan(limit);
    expect(Math.abs(zOf(v, b1 - 2 * sigma2 * c))).toBeLessThan(4.9);
    // wrong: without the -1/2 of Ito's term; sigma2 = eta / S
    expect(ksDistance(v, law(sigma2, 0))).toBeGreaterThan(limit);
    expect(ksDistance(v, law(2 * sigma2, 0.5))).toBeGreaterThan(limit);
  });

  // stated before: a step multiplies Q by (1 - 2 dt gamma)^2 - dt^2 delta^2, so -ln Q exceeds the SDE's by about
  // dt (E[mean slope]^2 + 3/2 (8 sigma2 c)^2) < 1 % of 8 sigma2 c here
  test.each([0, 0.1])(
    "gamma %d: Q = u^2 - w^2 falls at 8 sigma2 c + 4 gamma, within 4.9 standard errors and a hundredth",
    async (gamma) => {
      const [R, steps] = [2000, 1500];
      const problem = engine.problem(net, data);
      const run = await problem.simulate({
        scheme: "sde",
        theta: [1.5, 0.7],
        eta: 1,
        sigma2,
        dt,
        steps,
        weightDecay: gamma,
        replicas: R,
        seed: "decay of Q",
      });
      problem.dispose();
      const Q = (u: number, w: number) => u * u - w * w;
      const rates = Array.from(
        { length: R },
        (_, r) => -Math.log(Q(run.theta[2 * r]!, run.theta[2 * r + 1]!) / Q(1.5, 0.7)) / (steps * dt),
      );
      const { value, stdErr } = meanOf(rates);
      const near = (expected: number) => Math.abs(value - expected) <= 4.9 * stdErr + 0.01 * expected;
      expect(near(8 * sigma2 * c + 4 * gamma)).toBe(true);
      expect(near(4 * sigma2 * c + 4 * gamma)).toBe(false);
      if (gamma > 0) expect(near(8 * sigma2 * c + 2 * gamma)).toBe(false);
    },
  );
});

const golden = goldenProblem();
const [N, dx, h, dy, P] = [8, 3, 2, 2, 10];
const start = [...golden.U, ...golden.W];
const net = model({
  params: { U: [dy, h], W: [h, dx] },
  inputs: { x: [dx], y: [dy] },
  loss: ({ U, W, x, y }) => ops.sqnorm(ops.sub(ops.matmul(U, ops.matmul(W, x)), y)),
});
const C = symmetry.doubleRotation("U", "W", golden.B);
const A: number[][] = Array.from({ length: P }, () => new Array<number>(P).fill(0));
for (let a = 0; a < h; a++) {
  for (let b = 0; b < h; b++) {
    for (let i = 0; i < dy; i++) A[i * h + a]![i * h + b]! += golden.B[a]![b]!;
    for (let j = 0; j < dx; j++) A[dy * h + a * dx + j]![dy * h + b * dx + j]! -= golden.B[a]![b]!;
  }
}

describe("epochs and batches without repetition", () => {
  const plain = twoLayerLinear({ dx, h, dy }, golden);
  const { mean, covariance } = gradientMoments(Array.from({ length: N }, (_, n) => plain.gradient(start, n)));
  const trace = times(covariance, A).reduce((sum, row, i) => sum + row[i]!, 0);
  const own = times(
    [mean],
    times(
      A,
      mean.map((g) => [g]),
    ),
  )[0]![0]!;

  // eta = 1e-6: theta moves by 1e-5 in an epoch, so its gradients are those of the start to that precision. The noise of
  // an epoch's steps cancels in theta and not in the charge
  // R = 20,000, and the factors of 1 and (N - S) / (N - 1) are 17 % apart for S = 2, the standard error below 1 %
  test.each([
    ["iid", 2],
    ["without", 2],
    ["epochs", 2],
    ["epochs", 3],
  ] as const)(
    "%s, S = %d: work of 4 steps is 4 (eta^2/2) (Tr[Sigma A] / S_eff + gBar A gBar), |z| < 4.9",
    async (sampling, S) => {
      const [R, eta, steps] = [20_000, 1e-6, 4];
      const problem = engine.problem(net, { x: golden.x, y: golden.y });
      const run = await problem.simulate({
        scheme: "sgd",
        theta: start,
        eta,
        batchSize: S,
        sampling,
        steps,
        replicas: R,
        seed: "work of an epoch",
        record: { every: steps, charges: { C }, work: true },
      });
      problem.dispose();
      const work = Array.from(run.series.work["C"]!.subarray(R), (x) => x / (steps * 0.5 * eta * eta));
      const z = (factor: number) => Math.abs(zOf(work, (factor * trace) / S + own));
      const factor = sampling === "iid" ? 1 : (N - S) / (N - 1);
      expect(z(factor)).toBeLessThan(4.9);
      expect(z(sampling === "iid" ? (N - S) / (N - 1) : 1)).toBeGreaterThan(4.9);
    },
  );

  test.each(lanes)("S = N is gradient descent, lanes are %s", async (where) => {
    const problem = engine.problem(net, { x: golden.x, y: golden.y });
    const common = { theta: start, eta: 0.02, steps: 200, lowering: { lanes: where } };
    const gd = await problem.simulate({ ...common, scheme: "gd" });
    for (const sampling of ["epochs", "without"] as const) {
      const run = await problem.simulate({ ...common, scheme: "sgd", batchSize: N, sampling });
      // the samples are added in another order: a rounding a step
      for (const [i, x] of gd.theta.entries()) expect(Math.abs(run.theta[i]! - x)).toBeLessThan(1e-12);
    }
    problem.dispose();
  });

  // E22. -ln Q is a sum of 6,400 squares, so a run scatters by 2 %, R = 256 by .1 %; what is O(eta) in one is in the other
  test("over 200 epochs Q falls (N - S) / (N - 1) as fast as with iid draws, within 4.9 standard errors and 1 %", async () => {
    const [n, S, eta, R] = [32, 4, 0.005, 256];
    const product = model({
      params: { u: [], w: [] },
      inputs: { x: [], y: [] },
      loss: ({ u, w, x, y }) => ops.square(ops.sub(ops.mul(ops.mul(u, w), x), y)),
    });
    const x = Array.from({ length: n }, (_, i) => Math.sin(3 * i + 1) * 1.4);
    const y = x.map((xi, i) => xi + Math.cos(7 * i));
    const problem = engine.problem(product, { x, y });
    const b1 = x.reduce((sum, xi, i) => sum + xi * y[i]!, 0) / n;
    const alpha = x.reduce((sum, xi) => sum + xi * xi, 0) / n;
    const w0 = 0.6;
    const u0 = b1 / alpha / w0;
    const fall = async (sampling: "iid" | "epochs") => {
      const run = await problem.simulate({
        scheme: "sgd",
        theta: [u0, w0],
        eta,
        batchSize: S,
        sampling,
        steps: 1600,
        replicas: R,
        seed: "reshuffling",
      });
      const Q = (u: number, w: number) => u * u - w * w;
      return meanOf(
        Array.from(
          { length: R },
          (_, r) => -Math.log(Q(run.theta[2 * r]!, run.theta[2 * r + 1]!) / Q(u0, w0)),
        ),
      );
    };
    const [iid, epochs] = [await fall("iid"), await fall("epochs")];
    problem.dispose();
    const ratio = epochs.value / iid.value;
    const stdErr = ratio * Math.hypot(epochs.stdErr / epochs.value, iid.stdErr / iid.value);
    const factor = (n - S) / (n - 1);
    expect(Math.abs(ratio - factor)).toBeLessThan(4.9 * stdErr + 0.01);
    expect(4.9 * stdErr + 0.01).toBeLessThan((1 - factor) / 2);
    // and at the rate 8 sigma2 D, up to the relative eta (u^2 + w^2) of theory 14(f)
    const v = u0 * w0;
    const z = x.map((xi, i) => xi * xi * v - xi * y[i]!);
    const D = z.reduce((sum, q) => sum + q * q, 0) / n;
    const predicted = 8 * (eta / (2 * S)) * D * 1600 * eta;
    const doubt = 4.9 * iid.stdErr + eta * (u0 * u0 + w0 * w0) * predicted;
    expect(Math.abs(iid.value - predicted)).toBeLessThan(doubt);
  });
});

describe("momentum: C - eta beta / (1 - beta) v . A theta changes by the recorded work alone", () => {
  const [eta, steps] = [0.002, 1500];
  const follow = async (options: Partial<Options>, where: (typeof lanes)[number]) => {
    const problem = engine.problem(net, { x: golden.x, y: golden.y });
    const run = await problem.simulate({
      scheme: "sgd",
      theta: start,
      eta,
      steps,
      seed: "momentum",
      ...options,
      record: { every: 1, charges: { C }, work: true },
      lowering: { lanes: where },
    });
    problem.dispose();
    return run;
  };
  const betas = [0.3, 0.9, 0.97, 0];

  // a step is wrong by less than 100 units of rounding of a charge of size 1 (identity.test.ts), velocities by 1 / (1 - beta)
  // of that, and errors add up over the steps at worst
  for (const where of lanes) {
    test.each([
      ["sgd", { batchSize: 2 }],
      ["sgd, epochs", { batchSize: 3, sampling: "epochs" }],
      ["gd", { scheme: "gd" }],
    ] as [string, Partial<Options>][])(
      `%s, a beta per replica, lanes are ${where}`,
      async (_name, options) => {
        const run = await follow({ ...options, momentum: betas, replicas: betas.length }, where);
        const R = betas.length;
        const D = run.series.modifiedCharges["C"]!;
        const W = run.series.work["C"]!;
        const plainC = run.series.charges["C"]!;
        for (const [r, beta] of betas.entries()) {
          let parted = 0;
          for (let k = 0; k <= steps; k++) {
            const at = k * R + r;
            const bound = (100 * 2 ** -53 * (k + 1)) / (1 - beta) ** 2;
            expect(Math.abs(D[at]! - D[r]! - W[at]!)).toBeLessThan(bound);
            if (beta === 0) expect(D[at]).toBe(plainC[at]);
            parted = Math.max(parted, Math.abs(plainC[at]! - plainC[r]! - W[at]!) / bound);
          }
          expect(D[r]).toBe(plainC[r]);
          // C itself does not, so the correction and the velocity's share of the work are what is tested
          if (beta > 0) expect(parted).toBeGreaterThan(10);
          else expect([...D]).not.toEqual([...plainC]);
          expect(Math.abs(W[steps * R + r]!)).toBeGreaterThan(1e-5);
        }
      },
    );
  }

  test("one beta for all, and that per replica, are the same run", async () => {
    const one = await follow({ momentum: 0.9, batchSize: 2 }, "samples");
    const several = await follow({ momentum: [0.9, 0.5], batchSize: 2, replicas: 2 }, "samples");
    const D = (run: typeof one, R: number) =>
      Array.from({ length: steps + 1 }, (_, k) => run.series.modifiedCharges["C"]![k * R]!);
    const worst = D(one, 1).reduce((m, x, k) => Math.max(m, Math.abs(x - D(several, 2)[k]!)), 0);
    expect(worst).toBeLessThan(1e-12);
  });
});

describe("E20: l = (u w - 1)^2 from u = 2, w = .3, full batches", () => {
  const product = model({
    params: { u: [], w: [] },
    inputs: { y: [] },
    loss: ({ u, w, y }) => ops.square(ops.sub(ops.mul(u, w), y)),
  });
  const ratio = async (options: Partial<Options>) => {
    const problem = engine.problem(product, { y: [1] });
    const run = await problem.simulate({ scheme: "gd", theta: [2, 0.3], eta: 0.01, steps: 3000, ...options });
    problem.dispose();
    const [u, w] = run.theta as unknown as [number, number];
    return (u * u - w * w) / (4 - 0.09);
  };
  // Q' = Q (1 - eta^2 delta^2): GD moves it by less than eta times what |grad|^2 integrates to, the loss at the start
  test("GD and momentum keep Q to 1 %, Adam and RMSProp move it by more than 2 %", async () => {
    expect(Math.abs((await ratio({})) - 1)).toBeLessThan(0.01);
    expect(Math.abs((await ratio({ eta: 0.001, momentum: 0.9 })) - 1)).toBeLessThan(0.01);
    expect(Math.abs((await ratio({ scheme: "flow", steps: 30, eta: 1 })) - 1)).toBeLessThan(1e-6);
    for (const scheme of ["adam", "rmsprop"] as const)
      expect(Math.abs((await ratio({ scheme, batchSize: 1 })) - 1), scheme).toBeGreaterThan(0.02);
  });
});

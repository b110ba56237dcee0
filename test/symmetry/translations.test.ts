/**
 * Generators that translate, alone or beside a matrix: charge, orbit, check, flow, equilibrium, records and discovery. Oracles:
 * differences of losses and charges, closed forms of one-parameter groups, noise covariances written out, simulated runs.
 */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  createEngine,
  type Engine,
  type Generator,
  losses,
  model,
  models,
  ops,
  type Problem,
  symmetry,
} from "../../src/index.ts";
import { Draw } from "../helpers/ready.ts";

let engine: Engine;
/** Softmax regression with biases, and two parameters that nothing reads. */
let softmax: Problem;
/** Of u w and u e^-s: u -> e^t u, w -> e^-t w, s -> s + t. */
let mixed: Problem;
let residual: Problem;

const logits = model({
  params: { W: [3, 2], b: [3], idle: [2] },
  inputs: { x: [2], y: [3] },
  loss: ({ W, b, x, y }) => losses.crossEntropy(ops.add(ops.matmul(W, x), b), y),
});
const product = model({
  params: { u: [], w: [], s: [] },
  inputs: { x: [], y: [], z: [] },
  loss: ({ u, w, s, x, y, z }) =>
    ops.add(
      ops.square(ops.sub(ops.mul(ops.mul(u, w), x), y)),
      ops.square(ops.sub(ops.mul(ops.mul(u, ops.exp(ops.scale(s, -1))), x), z)),
    ),
});
const M = symmetry.generator({
  name: "u, w and s",
  blocks: { u: { scalar: 1 }, w: { scalar: -1 } },
  translation: { s: 1 },
});
const B = [
  [1, 0.5],
  [0.5, -0.75],
];
const minusI = [
  [-0.5, 0],
  [0, -0.5],
];

beforeAll(async () => {
  engine = await createEngine();
  const d = new Draw(3);
  const labels = Array.from({ length: 12 }, (_, n) => [0, 1, 2].map((k) => ((n * n + n) % 3 === k ? 1 : 0)));
  softmax = engine.problem(logits, { x: d.normals(24), y: labels.flat() });
  mixed = engine.problem(product, { x: d.normals(8), y: d.normals(8), z: d.normals(8) });
  residual = engine.problem(models.residual({ d: 2, skip: 0.5 }), { x: d.normals(24), y: d.normals(24) });
});
afterAll(() => engine.dispose());

const near = (got: number, expected: number, tolerance: number, what = ""): void =>
  expect(Math.abs(got - expected), `${what}: ${got}, expected ${expected}`).toBeLessThanOrEqual(tolerance);
const nearAll = (got: ArrayLike<number>, expected: ArrayLike<number>, tolerance: number): void => {
  for (let i = 0; i < expected.length; i++) near(got[i]!, expected[i]!, tolerance, `entry ${i}`);
};

describe("a translation", () => {
  const ones = symmetry.translation({ b: [1, 1, 1] });
  const theta = new Draw(5).normals(11);
  const sum = theta[6]! + theta[7]! + theta[8]!;

  test("has the charge b . theta, moves theta along b, and leaves every loss", () => {
    expect(ones.name).toBe("translation of b");
    near(softmax.charge(theta, ones), sum, 1e-15);
    const moved = softmax.transform(theta, ones, 0.7);
    nearAll(
      moved,
      theta.map((x, i) => (i >= 6 && i < 9 ? x + 0.7 : x)),
      1e-15,
    );
    nearAll(softmax.losses(moved), softmax.losses(theta), 1e-14);
    const { verdict, defect, finiteDefect } = softmax.checkSymmetry(ones, { theta });
    // beside the gradient of a sample that is nearly certain
    expect([verdict, defect < 1e-11, finiteDefect < 1e-11]).toEqual(["exact", true, true]);
  });

  test("that is no symmetry is told, by the derivative and by the finite one", () => {
    const one = softmax.checkSymmetry(symmetry.translation({ b: [1, 0, 0] }), { theta });
    expect(one.verdict).toBe("none");
    expect(one.finiteDefect).toBeGreaterThan(0.01);
    // a column of W against b: right for inputs with x_0 = 1 alone
    expect(
      softmax.checkSymmetry(symmetry.translation({ W: [1, 0, 0, 0, 0, 0], b: [-1, 0, 0] })).verdict,
    ).toBe("none");
  });

  test("is not moved by noise; decay pulls it to 0", () => {
    const plain = softmax.noetherFlow(theta, ones, { eta: 0.1, batchSize: 2 });
    expect([plain.noise, plain.decay, plain.gradient, plain.total, plain.discrete]).toEqual([0, 0, 0, 0, 0]);
    expect(plain.byDirection).toEqual([]);
    const decayed = softmax.noetherFlow(theta, ones, { eta: 0.1, batchSize: 2, weightDecay: 0.03 });
    near(decayed.total, -2 * 0.03 * sum, 1e-15);
    near(Math.abs(decayed.residual), 1, 1e-15);
    // of one that is no symmetry: the gradient
    const column = symmetry.translation({ W: [1, 0, 0, 0, -2, 0] });
    const g = softmax.gradient(theta);
    near(softmax.noetherFlow(theta, column, { sigma2: 0.1 }).gradient, -(g[0]! - 2 * g[4]!), 1e-15);
  });

  test("is flat without decay, and comes to rest at b . theta = 0 with it", () => {
    const flat = softmax.equilibrium(theta, ones, { sigma2: 0.1 });
    expect(flat).toMatchObject({ status: "flat", lambda: 0, rate: 0, flow0: 0 });
    if (flat.status === "none") throw new Error(flat.reason);
    near(flat.charge0, sum, 1e-15);
    near(flat.charge, sum, 1e-15);
    const options = { sigma2: 0.1, weightDecay: 0.03 };
    const at = softmax.equilibrium(theta, ones, options);
    if (at.status !== "finite") throw new Error(at.status);
    near(at.lambda, -sum / 3, 1e-15);
    near(at.charge0, sum, 1e-15);
    near(at.charge, 0, 1e-15);
    near(at.flow0, -0.06 * sum, 1e-15);
    near(at.slope, -0.18, 1e-15);
    near(at.rate, 0.06, 1e-16);
    const there = softmax.transform(theta, ones, at.lambda);
    near(softmax.noetherFlow(there, ones, options).total, 0, 1e-15);
    const curve = softmax.equilibriumCurve(theta, ones, [-1, 0, 0.5], options);
    for (const [k, lambda] of [-1, 0, 0.5].entries()) {
      const moved = softmax.transform(theta, ones, lambda);
      near(curve.charge[k]!, softmax.charge(moved, ones), 1e-14);
      near(curve.flow[k]!, softmax.noetherFlow(moved, ones, options).total, 1e-14);
    }
    const slope = softmax.equilibriumGradient(theta, ones, options);
    nearAll(
      slope,
      theta.map((_, i) => (i >= 6 && i < 9 ? -1 / 3 : 0)),
      1e-15,
    );
  });

  test("keeps its charge in a run, to rounding; with decay it shrinks by 1 - 2 eta gamma a step", async () => {
    const record = {
      every: 100,
      charges: { C: ones, idle: symmetry.translation({ idle: [1, 2] }) },
      work: true,
    };
    for (const gamma of [0, 0.02]) {
      const run = await softmax.simulate({
        scheme: "sgd",
        batchSize: 1,
        theta,
        eta: 0.1,
        steps: 400,
        seed: "t",
        weightDecay: gamma,
        record,
      });
      for (const [k, C] of run.series.charges["C"]!.entries())
        near(C, sum * (1 - 0.2 * gamma) ** (100 * k), 1e-13, `gamma ${gamma}, record ${k}`);
      expect([...run.series.work["C"]!].every((x) => x === 0)).toBe(true);
    }
  });

  test("of untrained blocks decay leaves alone", () => {
    const frozen = engine.problem(
      model({
        params: { a: { shape: [], trainable: false }, b: [] },
        inputs: { x: [], y: [] },
        loss: ({ a, b, x, y }) => ops.square(ops.sub(ops.mul(ops.add(a, b), x), y)),
      }),
      { x: [1, 2, -1], y: [1, 0, 2] },
    );
    const at = { a: 2, b: 3 };
    const both = symmetry.translation({ a: 1, b: -1 });
    const flow = frozen.noetherFlow(at as never, both, { sigma2: 0.1, weightDecay: 0.5 });
    near(flow.decay, 3, 1e-15);
    const rest = frozen.equilibrium([2, 3], both, { sigma2: 0.1, weightDecay: 0.5, force: true });
    if (rest.status !== "finite") throw new Error(rest.status);
    // only b decays: at rest where b = 0
    near(rest.lambda, 3, 1e-15);
    near(rest.rate, 0.5, 1e-15);
    near(frozen.transform([2, 3], both, rest.lambda)[1]!, 0, 1e-15);
    frozen.dispose();
  });
});

describe("a matrix and a translation", () => {
  const theta = [1.3, -0.6, 0.4];

  test("orbit and charge are those of the group", () => {
    const [u, w, s] = theta as [number, number, number];
    for (const lambda of [-0.8, 0, 0.5]) {
      const expected = [u * Math.exp(lambda), w * Math.exp(-lambda), s + lambda];
      nearAll(mixed.transform(theta, M, lambda), expected, 1e-15 * 4);
      nearAll(mixed.losses(expected), mixed.losses(theta), 1e-13);
    }
    near(mixed.charge(theta, M), (u * u - w * w) / 2 + s, 1e-15);
    expect(mixed.checkSymmetry(M, { theta }).verdict).toBe("exact");
    // without its translation it is none
    const bare = symmetry.generator({ blocks: { u: { scalar: 1 }, w: { scalar: -1 } } });
    expect(mixed.checkSymmetry(bare).verdict).toBe("none");
  });

  test("the flow is sigma^2 Tr[Sigma A] - 2 gamma J . theta, and the gradient part that of J", async () => {
    const Sigma = await mixed.noiseCovariance(theta);
    const [u, w, s] = theta as [number, number, number];
    const flow = mixed.noetherFlow(theta, M, { eta: 0.1, batchSize: 2, weightDecay: 0.03 });
    near(flow.noise, 0.025 * (Sigma[0]! - Sigma[4]!), 1e-14);
    near(flow.decay, -0.06 * (u * u - w * w + s), 1e-15);
    near(flow.gradient, 0, 1e-14);
    const off = symmetry.generator({ blocks: { u: { scalar: 1 } }, translation: { s: 2, w: 0.5 } });
    const g = mixed.gradient(theta);
    near(
      mixed.noetherFlow(theta, off, { sigma2: 0.1 }).gradient,
      -(u * g[0]! + 0.5 * g[1]! + 2 * g[2]!),
      1e-13,
    );
  });

  test("comes to rest where the noise of both signs is equal; with decay there is no closed form", () => {
    const options = { sigma2: 0.02 };
    const at = mixed.equilibrium(theta, M, options);
    if (at.status !== "finite") throw new Error(at.status);
    near(at.charge0, mixed.charge(theta, M), 1e-14);
    const there = mixed.transform(theta, M, at.lambda);
    near(mixed.noetherFlow(there, M, options).total, 0, 1e-13);
    near(at.charge, mixed.charge(there, M), 1e-13);
    // dC/dlambda = |J|^2, and the rate is -f' over it
    const [u, w] = there as unknown as [number, number];
    near(at.rate, -at.slope / (u * u + w * w + 1), 1e-12 * at.rate);
    const h = 1e-4;
    const curve = mixed.equilibriumCurve(theta, M, [at.lambda - h, at.lambda + h, 0.3], options);
    near((curve.charge[1]! - curve.charge[0]!) / (2 * h), u * u + w * w + 1, 1e-6);
    near((curve.flow[1]! - curve.flow[0]!) / (2 * h), at.slope, 1e-6 * Math.abs(at.slope));
    near(curve.charge[2]!, mixed.charge(mixed.transform(theta, M, 0.3), M), 1e-13);
    const slopes = mixed.equilibriumGradient(theta, M, options);
    near(slopes[0]! * theta[0]! - slopes[1]! * theta[1]! + slopes[2]!, -1, 1e-12);
    const decayed = mixed.equilibrium(theta, M, { ...options, weightDecay: 0.1 });
    expect(decayed.status).toBe("none");
    near(decayed.charge0, mixed.charge(theta, M), 1e-14);
    expect(() => mixed.commonEquilibrium(theta, [M], options)).toThrow(
      "commonEquilibrium: generators without a translation, got generator 0 (u, w and s), which translates.",
    );
  });

  test("a step of SGD adds eta^2/2 g . A g to the charge, and a run follows C(0) + work", async () => {
    const run = await mixed.simulate({
      scheme: "sgd",
      batchSize: 2,
      theta,
      eta: 1e-3,
      steps: 2,
      seed: "m",
      record: { every: 1, charges: { C: M }, work: true },
    });
    const { charges, work } = run.series;
    const change = charges["C"]![1]! - charges["C"]![0]!;
    // J is affine, so the step is exact but for the translation, whose first-order part cancels too
    near(change, work["C"]![1]!, 1e-14);
    expect(Math.abs(change)).toBeGreaterThan(1e-8);
  });

  test("discovery of affine fields finds it, as a generator with a charge", async () => {
    const found = await mixed.discoverSymmetries({ form: "affine" });
    expect(found.count).toBe(1);
    const [A] = found.generators as [(typeof found.generators)[number]];
    expect(mixed.checkSymmetry(A).verdict).toBe("exact");
    // the same field up to a factor
    const factor = A.translation![2]!;
    nearAll(mixed.transform(theta, A, 0.3 / factor), mixed.transform(theta, M, 0.3), 1e-12);
    near(mixed.charge(theta, A) / factor, mixed.charge(theta, M), 1e-11);
    const back = symmetry.generator(JSON.parse(JSON.stringify(A)));
    near(mixed.charge(theta, back), mixed.charge(theta, A), 1e-14);
    const table = await mixed.report(theta, { eta: 0.1, batchSize: 2, discover: { form: "affine" } });
    const [row] = table.rows;
    expect([row!.conserved, row!.verdict, row!.equilibrium!.status]).toEqual([true, "exact", "finite"]);
    near(row!.charge!, mixed.charge(theta, A), 1e-14);
  });
});

describe("a translation in the range of A", () => {
  const A = symmetry.doubleRotation("U", "W", B);
  const about = symmetry.shifted(A, { U: minusI, W: minusI });
  const theta = new Draw(8).normals(8);
  // b = -A c, c = -1/2 in both blocks
  const half = B.map((row) => row.map((x) => 0.5 * x));
  const other = symmetry.generator({
    ...A.toJSON(),
    translation: { U: half, W: half.map((row) => row.map((x) => -x)) },
  });

  test("is a moved center: the same field, orbit, flow and equilibrium, and a charge that differs by a constant", () => {
    expect(residual.checkSymmetry(about).verdict).toBe("exact");
    expect(residual.checkSymmetry(other).verdict).toBe("exact");
    expect(residual.checkSymmetry(A).verdict).toBe("none");
    nearAll(residual.transform(theta, other, 0.4), residual.transform(theta, about, 0.4), 1e-14);
    const options = { eta: 0.1, batchSize: 2, weightDecay: 0.01 };
    const [p, q] = [residual.noetherFlow(theta, other, options), residual.noetherFlow(theta, about, options)];
    for (const part of ["noise", "decay", "total", "discrete"] as const) near(p[part], q[part], 1e-13, part);
    const constant = residual.charge(theta, other) - residual.charge(theta, about);
    const elsewhere = new Draw(9).normals(8);
    near(residual.charge(elsewhere, other) - residual.charge(elsewhere, about), constant, 1e-14);
    const [r, s] = [other, about].map((G) => residual.equilibrium(theta, G, { sigma2: 0.01 }));
    if (r!.status !== "finite" || s!.status !== "finite") throw new Error(r!.status);
    near(r!.lambda, s!.lambda, 1e-13);
    near(r!.rate, s!.rate, 1e-13 * s!.rate);
    for (const [G, at] of [
      [other, r!],
      [about, s!],
    ] as const) {
      near(at.charge0, residual.charge(theta, G), 1e-14);
      near(at.charge, residual.charge(residual.transform(theta, G, at.lambda), G), 1e-13);
    }
    expect(residual.equilibrium(theta, other, { sigma2: 0.01, weightDecay: 0.1 }).status).toBe("none");
  });

  test("in part: any A, c and b, as matrices written out", () => {
    const P = 8;
    const d = new Draw(21);
    // rank 4: two positive and two negative directions
    const columns = [1, 0.6, -0.8, -0.3].map((mu) => ({ mu, v: d.normals(P, 0.5) }));
    const A = Array.from({ length: P }, (_, i) =>
      Array.from({ length: P }, (__, j) => columns.reduce((sum, { mu, v }) => sum + mu * v[i]! * v[j]!, 0)),
    );
    const [c, b, at] = [d.normals(P), d.normals(P), d.normals(P)] as const;
    const G = symmetry.generator({ dense: A, center: c, translation: b });
    const field = (theta: ArrayLike<number>): number[] =>
      A.map((row, i) => row.reduce((sum, a, j) => sum + a * (theta[j]! - c[j]!), b[i]!));
    const charge = (theta: ArrayLike<number>): number =>
      b.reduce((sum, x, i) => sum + (0.5 * (field(theta)[i]! - x) * (theta[i]! - c[i]!) + x * theta[i]!), 0);
    near(residual.charge(at, G), charge(at), 1e-13);
    // the orbit by 2000 steps of the classical Runge-Kutta method
    let path = [...at];
    const h = 0.5 / 2000;
    const ahead = (k: number[], step: number) => field(path.map((x, i) => x + step * k[i]!));
    for (let n = 0; n < 2000; n++) {
      const k1 = field(path);
      const k2 = ahead(k1, h / 2);
      const k3 = ahead(k2, h / 2);
      const k4 = ahead(k3, h);
      path = path.map((x, i) => x + (h / 6) * (k1[i]! + 2 * k2[i]! + 2 * k3[i]! + k4[i]!));
    }
    nearAll(residual.transform(at, G, 0.5), path, 1e-11);
    const g = residual.gradient(at);
    const options = { sigma2: 0.01, weightDecay: 0.1 };
    const flow = residual.noetherFlow(at, G, options);
    near(flow.gradient, -field(at).reduce((sum, x, i) => sum + x * g[i]!, 0), 1e-11);
    near(flow.decay, -0.2 * field(at).reduce((sum, x, i) => sum + x * at[i]!, 0), 1e-12);
    const rest = residual.equilibrium(at, G, { sigma2: 0.01, force: true });
    if (rest.status !== "finite") throw new Error(rest.status);
    near(rest.charge0, charge(at), 1e-12);
    const there = residual.transform(at, G, rest.lambda);
    near(rest.charge, charge(there), 1e-10);
    const squared = field(there).reduce((sum, x) => sum + x * x, 0);
    near(rest.rate, -rest.slope / squared, 1e-9 * rest.rate);
    const none = residual.equilibrium(at, G, { ...options, force: true });
    expect(none.status).toBe("none");
    near(none.charge0, charge(at), 1e-12);
    near(none.flow0, flow.total, 1e-15);
  });

  test("a center of zeros is none: decay has a closed form about it", () => {
    for (const center of [new Array(8).fill(0), { U: [0, 0, 0, 0] }]) {
      const [got, expected] = [symmetry.shifted(A, center), A].map((X) =>
        residual.equilibrium(theta, X, { sigma2: 0.01, weightDecay: 0.1, force: true }),
      );
      expect(got).toEqual(expected);
      expect(got!.status).toBe("finite");
    }
  });

  test("that moves the center back to 0 leaves a plain generator, with decay too", () => {
    const net = models.twoLayerLinear({ dx: 2, h: 2, dy: 2 });
    const d = new Draw(4);
    const plain = engine.problem(net, { x: d.normals(16), y: d.normals(16) });
    const G = symmetry.shifted(
      symmetry.generator({
        ...A.toJSON(),
        translation: { U: half.map((r) => r.map((x) => -x)), W: half },
      }),
      { U: minusI, W: minusI },
    );
    const options = { sigma2: 0.01, weightDecay: 0.1 };
    const [got, expected] = [G, A].map((X) => plain.equilibrium(theta, X, options));
    if (got!.status !== "finite" || expected!.status !== "finite") throw new Error(got!.status);
    near(got!.lambda, expected!.lambda, 1e-13);
    near(got!.charge0, plain.charge(theta, G), 1e-14);
    near(plain.charge(theta, G) - plain.charge(theta, A), got!.charge - expected!.charge, 1e-13);
    plain.dispose();
  });
});

describe("blocks by name", () => {
  const A = symmetry.doubleRotation("U", "W", B);

  test("a center by blocks is the flat one, and JSON keeps its form", () => {
    const theta = new Draw(8).normals(8);
    const flat = symmetry.shifted(A, [-0.5, 0, 0, -0.5, -0.5, 0, 0, -0.5]);
    const named = symmetry.shifted(A, { U: minusI, W: [-0.5, 0, 0, -0.5] });
    expect(residual.charge(theta, named)).toBe(residual.charge(theta, flat));
    expect(named.toJSON().center).toEqual({ U: minusI, W: [-0.5, 0, 0, -0.5] });
    expect(flat.toJSON().center).toEqual([-0.5, 0, 0, -0.5, -0.5, 0, 0, -0.5]);
    const back = symmetry.generator(JSON.parse(JSON.stringify(named)));
    expect(back.toJSON()).toEqual(named.toJSON());
    expect(residual.charge(theta, back)).toBe(residual.charge(theta, flat));
    // blocks that are not named are 0
    const half = symmetry.shifted(A, { W: minusI });
    expect(residual.charge(theta, half)).toBe(
      residual.charge(theta, symmetry.shifted(A, [0, 0, 0, 0, -0.5, 0, 0, -0.5])),
    );
    const translated = symmetry.generator({ translation: { U: minusI } });
    expect(translated.toJSON()).toEqual({ name: "generator", blocks: {}, translation: { U: minusI } });
    expect(symmetry.translation([1, 2]).toJSON()).toEqual({
      name: "translation",
      blocks: {},
      translation: [1, 2],
    });
    expect(mixed.charge([1, 2, 3], symmetry.generator(JSON.parse(JSON.stringify(M))))).toBe(
      mixed.charge([1, 2, 3], M),
    );
  });

  test("a run records it by either form, bit for bit", async () => {
    const theta = new Draw(8).normals(8);
    const run = await residual.simulate({
      scheme: "gd",
      theta,
      eta: 0.01,
      steps: 20,
      record: {
        every: 5,
        charges: {
          flat: symmetry.shifted(A, [-0.5, 0, 0, -0.5, -0.5, 0, 0, -0.5]),
          named: symmetry.shifted(A, { U: minusI, W: minusI }),
        },
      },
    });
    expect(run.series.charges["named"]).toEqual(run.series.charges["flat"]);
  });

  const cases: readonly [string, () => unknown, string][] = [
    [
      "an unknown block",
      () => residual.charge(new Array(8).fill(1), symmetry.shifted(A, { V: minusI })),
      'charge: the parameters are U, W, got "V"',
    ],
    [
      "another shape",
      () => residual.charge(new Array(8).fill(1), symmetry.shifted(A, { U: [[1, 2, 3, 4]] })),
      "charge: the center of shifted double rotation U, W has values for U of shape [2, 2], got [1, 4].",
    ],
    [
      "another length",
      () => residual.transform(new Array(8).fill(1), symmetry.translation([1, 2]), 1),
      "transform: the translation of a generator of this model has 8 entries, got 2, that of translation.",
    ],
    [
      "what is not finite",
      () => symmetry.translation({ b: [1, Number.NaN] }),
      "translation.b: values must be finite, got NaN at position 1.",
    ],
    [
      "a translation by 0",
      () => symmetry.translation({ b: [0, 0] }),
      "translation: expected a direction that is not 0, got an object with keys b.",
    ],
    ["no translation", () => symmetry.translation(null), "translation: "],
  ];
  test.each(cases)("%s is refused", (_, call, message) => {
    expect(call).toThrow(message);
  });
});

describe("a field that is 0 everywhere", () => {
  const zeros: readonly [string, Generator][] = [
    ["no blocks", symmetry.generator({ blocks: {} })],
    ["a factor 0", symmetry.blockScaling({ U: 0 })],
    ["a dense one", symmetry.generator({ dense: new Array(64).fill(0) })],
    ["a translation by 0", symmetry.generator({ blocks: {}, translation: { U: [0, 0, 0, 0] } })],
  ];
  test.each(zeros)("%s is no symmetry", (_, A) => {
    expect(() => residual.checkSymmetry(A)).toThrow(
      `checkSymmetry: expected a field that moves theta, got ${A.name}, which is 0 everywhere.`,
    );
    expect(() => residual.equilibrium(new Array(8).fill(1), A, { sigma2: 1 })).toThrow(
      `equilibrium: expected a field that moves theta, got ${A.name}, which is 0 everywhere.`,
    );
  });
});

describe("beyond the range of f64", () => {
  const A = symmetry.doubleRotation("U", "W", B);
  const huge = new Array(8).fill(1e200);

  test("what cannot be said is refused by name", () => {
    const plain = engine.problem(models.twoLayerLinear({ dx: 2, h: 2, dy: 2 }), {
      x: [1, 2, 3, 4],
      y: [0, 1, 1, 0],
    });
    const big = new Array(8).fill(1e100);
    expect(() => plain.charge(huge, symmetry.scaling("U"))).toThrow("charge: C within f64, got Infinity.");
    expect(() => plain.charge(huge, A)).toThrow("charge: C within f64");
    expect(() => plain.transform(big, symmetry.scaling("U"), 700)).toThrow(
      "transform: theta on the orbit within f64, got Infinity. Take a lambda nearer to 0.",
    );
    for (const at of [huge, big]) {
      expect(() => plain.noetherFlow(at, A, { sigma2: 1 })).toThrow(/^noetherFlow: .* f64/);
      expect(() => plain.matrixFlow(at, "U", "W", { sigma2: 1 })).toThrow(
        /^matrixFlow: the noise of the flow within f64/,
      );
    }
    // and what can be said is
    expect(Number.isFinite(plain.charge(big, A))).toBe(true);
    plain.dispose();
  });
});

describe("a report", () => {
  test("of a softmax layer and unused parameters shows charges, and no rounding", async () => {
    const theta = new Draw(5).normals(11);
    const table = await softmax.report(theta, { eta: 0.1, batchSize: 2, discover: { form: "affine" } });
    expect(table.rows.length).toBeGreaterThan(10);
    for (const row of table.rows) {
      expect([row.name, row.flat, row.conserved]).toEqual([row.name, true, true]);
      expect([row.name, row.flow!.total, row.flow!.gradient]).toEqual([row.name, 0, 0]);
      expect(row.equilibrium!.status).toBe("flat");
      expect(Number.isFinite(row.charge!)).toBe(true);
    }
    expect(table.toString()).not.toMatch(/e-1\d/);
    const ones = table.rows.find((row) => row.name === "constant translation of b")!;
    near(ones.charge!, softmax.charge(theta, ones.generator), 1e-15);
    const scale = ones.charge! / (theta[6]! + theta[7]! + theta[8]!);
    near(scale, 1, 1e-13);
  });
});

describe("the matrix flow of a product", () => {
  const bases = [
    [1, 0, 0, 0],
    [0, 0, 0, 1],
    [0, 1, 1, 0],
  ].map((b) => [
    [b[0]!, b[1]!],
    [b[2]!, b[3]!],
  ]);

  /** 1/2 Tr[B dQ/dt], part by part, is the flow of the charge of B. */
  function compare(on: Problem, theta: number[], transposeW: boolean): void {
    const options = { eta: 0.1, batchSize: 2, weightDecay: 0.05 };
    const flow = on.matrixFlow(theta, "U", "W", { ...options, transposeW });
    for (const b of bases) {
      const A = transposeW ? symmetry.keyQuery("U", "W", b) : symmetry.doubleRotation("U", "W", b);
      const expected = on.noetherFlow(theta, A, options);
      for (const part of ["noise", "decay", "gradient", "total"] as const) {
        const got = b.flat().reduce((sum, x, e) => sum + 0.5 * x * flow[part][e]!, 0);
        near(got, expected[part], 1e-13 * (1 + Math.abs(expected[part])), part);
      }
    }
  }

  test.each([
    ["of a loss of U W", models.twoLayerLinear({ dx: 3, h: 2, dy: 2 }), false],
    ["of one that is none: the gradient part", tanhNet(true, false), false],
    ["with an untrained W, which does not decay", tanhNet(false, false), false],
    ["with W transposed", tanhNet(true, true), true],
  ] as const)("%s", (_, net, transposeW) => {
    const d = new Draw(12);
    const on = engine.problem(net, { x: d.normals(27), y: d.normals(18) });
    compare(on, d.normals(net.P), transposeW);
    on.dispose();
  });

  test("says what it expects in its own name", () => {
    expect(() => softmax.matrixFlow(new Array(11).fill(1), "W", "b", { sigma2: 1 })).toThrow(
      "matrixFlow: expected matrices U, dy x h, and W, h x dx, got W [3, 2] and b [3].",
    );
  });
});

function tanhNet(trainable: boolean, transposed: boolean) {
  return model({
    params: { U: [2, 2], W: { shape: transposed ? [3, 2] : [2, 3], trainable } },
    inputs: { x: [3], y: [2] },
    loss: ({ U, W, x, y }) =>
      ops.sqnorm(ops.sub(ops.matmul(U, ops.tanh(ops.matmul(transposed ? ops.transpose(W) : W, x))), y)),
  });
}

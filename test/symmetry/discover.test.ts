/**
 * Discovery of exponential symmetries: the counts of theory.md 13.7, the public fixtures, names, flat generators, restricted
 * searches, and refusals. It catches too few thetas, wrong factors off the diagonal, trivial null vectors that are
 * counted, and generators that hold for the thetas of the search alone.
 */
import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, test } from "vitest";
import {
  createEngine,
  layers,
  losses,
  type Model,
  model,
  models,
  NoetherflowError,
  ops,
  parseModel,
  sampler,
  symmetry,
} from "../../src/index.ts";
import { perSampleGradients } from "../../src/models/derivatives.ts";
import type { Measure } from "../../src/models/measure.ts";
import {
  type DiscoveredGenerator,
  type Discovery,
  type DiscoveryOptions,
  discoverSymmetries,
} from "../../src/symmetry/discover.ts";
import { nullSpace } from "../../src/symmetry/null-space.ts";
import { denseOf, measureOf } from "../helpers/discovery.ts";
import { uniforms } from "../reference/grammar.ts";

const engine = await createEngine();
const single = await createEngine({ dtype: "f32" });
afterAll(() => {
  engine.dispose();
  single.dispose();
});

/** Standard normal data, apart from the engine's own numbers. */
function dataOf(net: Model, N: number, seed = 1): Record<string, Float64Array> {
  const random = uniforms(seed);
  const normal = () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
  return Object.fromEntries(
    net.inputs.map((i) => [i.name, Float64Array.from({ length: N * i.size }, normal)]),
  );
}

async function using<T>(
  net: Model,
  data: Record<string, ArrayLike<number>>,
  work: (measure: Measure) => T | Promise<T>,
  on = engine,
): Promise<T> {
  const measure = measureOf(on, net, data);
  try {
    return await work(measure);
  } finally {
    measure.dispose();
    measure.samples.dispose();
  }
}

const discover = (net: Model, N = 16, options: DiscoveryOptions = {}, on = engine): Promise<Discovery> =>
  using(net, dataOf(net, N), (measure) => discoverSymmetries(measure, options), on);

const names = (found: Discovery): string[] => found.generators.map((A) => A.name);

async function refusal(work: Promise<unknown>): Promise<NoetherflowError> {
  try {
    await work;
  } catch (error) {
    if (error instanceof NoetherflowError) return error;
    throw error;
  }
  throw new Error("nothing was refused");
}

/** max |g . J| / (|g| |J|) over samples, at a theta that no search has used; J = A (theta - c) + t. */
function defect(measure: Measure, net: Model, A: DiscoveredGenerator): number {
  const random = uniforms(77);
  const theta = Float64Array.from({ length: net.P }, () => 2 * random() - 1);
  const matrix = denseOf(net, A);
  const J = Float64Array.from({ length: net.P }, (_, i) => {
    let sum = A.translation?.[i] ?? 0;
    for (let j = 0; j < net.P; j++) sum += matrix[i * net.P + j]! * (theta[j]! - (A.center?.[j] ?? 0));
    return sum;
  });
  const rows = Array.from({ length: measure.N }, (_, n) => n);
  const g = new Float64Array(rows.length * net.P);
  perSampleGradients(measure, theta, rows, g);
  let worst = 0;
  for (const n of rows) {
    let [along, gg, jj] = [0, 0, 0];
    for (let i = 0; i < net.P; i++) {
      const x = g[n * net.P + i]!;
      along += x * J[i]!;
      gg += x * x;
      jj += J[i]! * J[i]!;
    }
    if (gg > 0) worst = Math.max(worst, Math.abs(along) / Math.sqrt(gg * jj));
  }
  return worst;
}

const sizes = (dx: number, h: number, dy: number) => ({ dx, h, dy });
const product = (
  net: (f: { dx: number; h: number; dy: number }) => Model,
  ...s: readonly [number, number, number]
): Model => net(sizes(...s));

describe("the table of section 13.7", () => {
  const rows: [string, Model, number, DiscoveryOptions?][] = [
    ...(
      [
        [[2, 2, 2], 3],
        [[3, 2, 2], 3],
        [[2, 3, 2], 6],
        [[2, 1, 3], 1],
        [[2, 3, 1], 6],
        [[1, 1, 1], 1],
        [[1, 2, 1], 4],
        [[1, 3, 1], 9],
      ] as [[number, number, number], number][]
    ).map(([s, count]): [string, Model, number] => [
      `linear (${s.join(", ")})`,
      product(models.twoLayerLinear, ...s),
      count,
    ]),
    ["linear (2, 2, 2), A general", product(models.twoLayerLinear, 2, 2, 2), 4, { form: "general" }],
    ["deep linear (2, 2, 2, 2)", models.deepLinear({ widths: [2, 2, 2, 2] }), 6],
    ["relu (2, 3, 2)", models.reluNet({ widths: [2, 3, 2] }), 3],
    ["relu (2, 3, 2) with biases", models.reluNet({ widths: [2, 3, 2], biases: true }), 3],
    ["square (2, 3, 2)", models.mlp({ widths: [2, 3, 2], activation: "square" }), 3],
    ["tanh (2, 3, 2)", product(models.tanhNet, 2, 3, 2), 0],
    ["residual, A linear", models.residual({ d: 2 }), 0],
    ["residual, affine", models.residual({ d: 2 }), 3, { form: "affine" }],
    ["Net-A", product(models.netA, 3, 2, 2), 1],
    ["Net-A'", product(models.netAPrime, 3, 2, 2), 2],
    ["Net-B", product(models.netB, 3, 2, 2), 4],
    ["Net-B'", product(models.netBPrime, 3, 2, 2), 2],
    ["attention", models.attention({ T: 4, d: 3, dk: 2 }), 3],
    ["cosine of one linear map", models.selfSupervised({ dx: 4, h: 3 }), 1],
  ];

  test.each(rows)("%s", async (_, net, count, options = {}) => {
    await using(net, dataOf(net, 16), async (measure) => {
      const found = await discoverSymmetries(measure, options);
      expect(found.count).toBe(count);
      expect(found.generators.length).toBe(count);
      expect(found.flat).toBe(0);
      expect(found.gap).toBeGreaterThan(1e11);
      expect(found.restrict).toBe("full");
      for (const A of found.generators) {
        expect(defect(measure, net, A), A.name).toBeLessThan(1e-12);
        expect(A.name).not.toMatch(/unnamed/);
        expect(A.flat).toBe(false);
      }
    });
  });
});

describe("names and forms of generators", () => {
  test("double rotations are blocks, with E_kl + E_lk and E_kk", async () => {
    const found = await discover(product(models.twoLayerLinear, 3, 2, 2));
    expect(names(found)).toEqual([
      "double rotation U, W (0, 1)",
      "double rotation U, W (0, 0)",
      "double rotation U, W (1, 1)",
    ]);
    expect(found.generators[0]!.toJSON()).toEqual({
      name: "double rotation U, W (0, 1)",
      blocks: {
        U: {
          right: [
            [0, 1],
            [1, 0],
          ],
        },
        W: {
          left: [
            [0, -1],
            [-1, 0],
          ],
        },
      },
    });
    expect(found.generators.map((A) => A.class)).toEqual([1, 1, 1]);
    // what the constructor of that name makes
    const B = [
      [0, 1],
      [1, 0],
    ];
    const net = product(models.twoLayerLinear, 3, 2, 2);
    expect(denseOf(net, found.generators[0]!)).toEqual(denseOf(net, symmetry.doubleRotation("U", "W", B)));
  });

  test("neurons, with their degree and their bias", async () => {
    expect(names(await discover(models.reluNet({ widths: [2, 2, 2] })))).toEqual([
      "neuron scaling 0 of W2, W1",
      "neuron scaling 1 of W2, W1",
    ]);
    const biased = await discover(models.reluNet({ widths: [2, 2, 2], biases: true }));
    expect(names(biased)[1]).toBe("neuron scaling 1 of W2, (W1, b1)");
    expect(biased.generators[1]!.toJSON().blocks).toEqual({
      W2: {
        right: [
          [0, 0],
          [0, 1],
        ],
      },
      W1: {
        left: [
          [0, 0],
          [0, -1],
        ],
      },
      b1: {
        left: [
          [0, 0],
          [0, -1],
        ],
      },
    });
    const square = await discover(models.mlp({ widths: [2, 2, 2], activation: "square" }));
    expect(names(square)).toEqual([
      "neuron scaling 0 of W2, W1 (degree 2)",
      "neuron scaling 1 of W2, W1 (degree 2)",
    ]);
    const root = model({
      params: { U: [2, 2], W: [2, 2] },
      inputs: { x: [2], y: [2] },
      loss: ({ U, W, x, y }) => ops.sqnorm(ops.sub(ops.matmul(U, ops.sqrt(ops.abs(ops.matmul(W, x)))), y)),
    });
    expect(names(await discover(root))[0]).toBe("neuron scaling 0 of U, W (degree 1/2)");
    // a degree that is no fraction of small numbers comes from the null vectors
    const odd = model({
      params: { u: [2], w: [2] },
      inputs: { x: [2], y: [] },
      loss: ({ u, w, x, y }) => {
        const power = ops.exp(ops.scale(ops.log(ops.abs(w)), 1.23456));
        return ops.sqnorm(ops.sub(ops.matmul(ops.mul(u, power), x), y));
      },
    });
    expect(names(await discover(odd))).toEqual([
      "neuron scaling 0 of u, w (degree 1.235)",
      "neuron scaling 1 of u, w (degree 1.235)",
    ]);
  });

  test("rescaling, scaling of a block and of all; class 2 where A is semidefinite", async () => {
    const pair = await discover(models.rankOne());
    expect(names(pair)).toEqual(["rescaling u, w"]);
    expect(pair.generators[0]!.toJSON().blocks).toEqual({ u: { scalar: 1 }, w: { scalar: -1 } });
    const all = await discover(product(models.netA, 3, 2, 2));
    expect(names(all)).toEqual(["scaling of all"]);
    expect(all.generators[0]!.class).toBe(2);
    expect(names(await discover(product(models.netBPrime, 3, 2, 2)))).toEqual([
      "scaling of U",
      "scaling of W",
    ]);
    expect(names(await discover(product(models.netB, 3, 2, 2)))).toEqual([
      "column scaling 0 of U",
      "row scaling 0 of W",
      "column scaling 1 of U",
      "row scaling 1 of W",
    ]);
  });

  test("key and query share the column side; a product stored transposed is a double rotation", async () => {
    const found = await discover(models.attention({ T: 4, d: 3, dk: 2 }));
    expect(names(found)[0]).toBe("key/query Wq, Wk (0, 1)");
    const stored = model({
      params: { U: [2, 3], W: [2, 2] },
      inputs: { x: [2], y: [3] },
      loss: ({ U, W, x, y }) => ops.sqnorm(ops.sub(ops.matmul(ops.transpose(U), ops.matmul(W, x)), y)),
    });
    expect(names(await discover(stored))[0]).toBe("double rotation U, W (0, 1)");
  });

  test("two heads mix within a head only", async () => {
    const found = await discover(models.attention({ T: 4, d: 4, dk: 2, heads: 2, output: true }), 24, {
      restrict: "blocks",
    });
    expect(found.count).toBe(12);
    expect(names(found).filter((n) => /\((0|1), (2|3)\)/.test(n))).toEqual([]);
    expect(names(found)).toContain("double rotation Wv, Wo (2, 3)");
  });

  test("u^T K w of a product of two vectors", async () => {
    const found = await discover(product(models.twoLayerLinear, 1, 2, 1));
    expect(names(found)).toContain("exchange U, W (0, 1)");
    const A = found.generators.find((g) => g.name.startsWith("exchange"))!;
    expect([...A.dense!]).toEqual([0, 0, 0, 1, 0, 0, -1, 0, 0, -1, 0, 0, 1, 0, 0, 0]);
  });

  test("general A: rotations have no class, and come back as data that is not symmetric", async () => {
    const found = await discover(product(models.twoLayerLinear, 2, 2, 2), 16, { form: "general" });
    expect(names(found)).toContain("rotation U, W (0, 1)");
    const turned = found.generators.find((A) => A.name.startsWith("rotation"))!;
    expect(turned.class).toBeNull();
    expect(found.generators.filter((A) => A.class === 1).length).toBe(3);
    const tied = model({
      params: { W: [3, 2] },
      inputs: { x: [2], y: [2] },
      loss: ({ W, x, y }) => ops.sqnorm(ops.sub(ops.matmul(ops.transpose(W), ops.matmul(W, x)), y)),
    });
    const orthogonal = await discover(tied, 16, { form: "general" });
    expect(orthogonal.count).toBe(3);
    expect(names(orthogonal)[0]).toBe("rows (0, 1) of W turned");
    expect((await discover(tied)).count).toBe(0);
    const blocks = await discover(tied, 16, { form: "general", restrict: "blocks" });
    expect(blocks.count).toBe(3);
  });

  test("affine: the center of a residual pair is -skip I", async () => {
    const net = models.residual({ d: 2, skip: 0.5 });
    const found = await discover(net, 16, { form: "affine" });
    const first = found.generators.find((A) => A.name === "double rotation U, W (0, 0)")!;
    expect(first.translation).toBeNull();
    for (const [i, x] of [-0.5, 0, 0, 0, -0.5, 0, 0, 0].entries())
      expect(first.center![i]!).toBeCloseTo(x, 12);
    const blocks = await discover(net, 16, { form: "affine", restrict: "blocks" });
    expect(blocks.count).toBe(3);
    expect(names(blocks)).toEqual(names(found));
  });

  test("query, key and value side by side in one block are named by their columns", async () => {
    const attention = (dk: number, dv: number): Model =>
      model({
        params: { QKV: [2, 2 * dk + dv], O: [dv, 2] },
        inputs: { x: [3, 2], y: [3, 2] },
        loss: ({ QKV, O, x, y }) => {
          const part = (start: number, stop: number) =>
            ops.slice(ops.matmul(x, QKV), { axis: 1, start, stop });
          const scores = ops.matmul(part(0, dk), ops.transpose(part(dk, 2 * dk)));
          const values = ops.matmul(ops.softmax(scores), part(2 * dk, 2 * dk + dv));
          return ops.sqnorm(ops.sub(ops.matmul(values, O), y));
        },
      });
    const keys = [
      "columns (0, 1) of QKV against columns (2, 3) of QKV",
      "column 0 of QKV against column 2 of QKV",
      "column 1 of QKV against column 3 of QKV",
    ];
    for (const [dv, others] of [
      [1, ["column 4 of QKV against row 0 of O"]],
      [
        2,
        [
          "columns (4, 5) of QKV against rows (0, 1) of O",
          "column 4 of QKV against row 0 of O",
          "column 5 of QKV against row 1 of O",
        ],
      ],
    ] as const) {
      const net = attention(2, dv);
      await using(net, dataOf(net, 16), async (measure) => {
        for (const restrict of ["full", "blocks"] as const) {
          const found = await discoverSymmetries(measure, { restrict });
          expect([...names(found)].sort()).toEqual([...keys, ...others].sort());
          for (const A of found.generators) {
            expect(A.blocks).not.toBeNull();
            expect(defect(measure, net, A), A.name).toBeLessThan(1e-11);
          }
        }
        const general = await discoverSymmetries(measure, { form: "general" });
        expect(names(general)).toContain("columns (0, 1) of QKV and columns (2, 3) of QKV turned");
      });
    }
  });

  test("what no family holds is unnamed, and still a symmetry", async () => {
    // (R W) with a fixed turn R between: no coordinate direction is special
    const c = [Math.cos(0.7), Math.sin(0.7)] as const;
    const net = model({
      params: { u: [2], w: [2] },
      inputs: { x: [2], y: [2] },
      constants: {
        R: [
          [c[0], -c[1]],
          [c[1], c[0]],
        ],
      },
      loss: ({ u, w, R, x, y }) =>
        ops.sqnorm(ops.sub(ops.mul(ops.mul(ops.matmul(R, u), ops.matmul(R, w)), x), y)),
    });
    await using(net, dataOf(net, 16), async (measure) => {
      const found = await discoverSymmetries(measure);
      expect(found.count).toBe(2);
      // their sum is the rescaling of the pair
      expect(names(found)).toEqual(["rescaling u, w", "unnamed 0 of u, w"]);
      expect(found.generators[1]!.blocks).not.toBeNull();
      for (const A of found.generators) expect(defect(measure, net, A)).toBeLessThan(1e-12);
    });
  });
});

describe("of a problem", () => {
  test("what is found is exact, also under the finite transformation", async () => {
    const own = await createEngine();
    for (const [net, form, count] of [
      [models.deepLinear({ widths: [2, 2, 2, 2] }), "symmetric", 6],
      [product(models.netB, 3, 2, 2), "symmetric", 4],
      [models.attention({ T: 4, d: 3, dk: 2 }), "symmetric", 3],
      [models.mlp({ widths: [2, 3, 2], activation: "square", biases: true }), "symmetric", 3],
      [models.residual({ d: 2 }), "affine", 3],
    ] as const) {
      const problem = own.problem(net, dataOf(net, 16));
      const { generators } = await problem.discoverSymmetries({ form });
      expect(generators.length).toBe(count);
      for (const A of generators) expect(problem.checkSymmetry(A).verdict, A.name).toBe("exact");
      problem.dispose();
    }
    own.dispose();
  });
});

describe("flat generators", () => {
  test("k translations that are linear in theta give k (k + 1) / 2", async () => {
    for (const [d, classes] of [
      [1, 3],
      [3, 3],
    ] as const) {
      const found = await discover(models.softmaxRegression({ d, classes }));
      expect([found.count, found.flat]).toEqual([(d * (d + 1)) / 2, (d * (d + 1)) / 2]);
      expect(found.functionallyIndependent).toBe(0);
      expect(names(found)[0]).toBe("translation of column 0 of W");
      // as an action from the left: all columns together
      const blocks = await discover(models.softmaxRegression({ d, classes }), 16, { restrict: "blocks" });
      expect([blocks.count, blocks.flat, ...names(blocks)]).toEqual([1, 1, "translation of columns of W"]);
    }
  });

  test("n unused parameters give n (n + 1) / 2, beside what else there is", async () => {
    const net = model({
      params: { U: [2, 2], W: [2, 2], idle: [3] },
      inputs: { x: [2], y: [2] },
      loss: ({ U, W, x, y }) => ops.sqnorm(ops.sub(ops.matmul(U, ops.matmul(W, x)), y)),
    });
    const found = await discover(net);
    expect([found.count, found.flat, found.functionallyIndependent]).toEqual([9, 6, 3]);
    expect(names(found).filter((n) => n.includes("idle"))).toEqual([
      "unused idle[0]",
      "unused idle[0] and unused idle[1]",
      "unused idle[0] and unused idle[2]",
      "unused idle[1]",
      "unused idle[1] and unused idle[2]",
      "unused idle[2]",
    ]);
    for (const A of found.generators) expect(A.flat).toBe(A.name.includes("idle"));
    for (const restrict of ["blocks", "diagonal"] as const)
      expect((await discover(net, 16, { restrict })).flat).toBe(restrict === "blocks" ? 6 : 3);
  });

  test("d parameters that act through their sum give (d - 1) d / 2", async () => {
    const net = model({
      params: { parts: [4] },
      inputs: { x: [], y: [] },
      loss: ({ parts, x, y }) => ops.sqnorm(ops.sub(ops.mul(ops.sum(parts), x), y)),
    });
    const found = await discover(net);
    expect([found.count, found.flat]).toEqual([6, 6]);
    expect(names(found)[0]).toBe("translation of parts[0] against parts[1]");
    const affine = await discover(net, 16, { form: "affine" });
    expect([affine.count, affine.flat]).toEqual([9, 9]);
    const shift = affine.generators.find(
      (A) => A.name === "constant translation of parts[0] against parts[2]",
    )!;
    expect([...shift.translation!]).toEqual([1, 0, -1, 0]);
    expect([shift.class, shift.center, shift.flat]).toEqual([null, null, true]);
    // as linear fields that need not be symmetric: each translation driven by each entry
    const general = await discover(net, 16, { form: "general" });
    expect([general.count, general.flat]).toEqual([12, 12]);
  });

  test("layer norm: scaling of W, and translations", async () => {
    const net = models.layerNormNet({ dx: 2, h: 3, dy: 2 });
    const found = await discover(net);
    expect([found.count, found.flat]).toEqual([4, 3]);
    expect(names(found)[0]).toBe("scaling of W");
    // the readout is not trained: no unknown of it, and A does not move it
    expect(found.unknowns).toBe(21);
    expect([...found.generators[0]!.blocks!.keys()]).toEqual(["W"]);
  });

  test("a relu that is at rest at some thetas is not taken for flat", async () => {
    const net = models.reluNet({ widths: [1, 4, 1], biases: true });
    for (let seed = 0; seed < 10; seed++) {
      const found = await discover(net, 8, { seed });
      expect([found.count, found.flat]).toEqual([4, 0]);
    }
  });
});

describe("independence", () => {
  test.each<[readonly [number, number, number], "full" | "blocks", number, number]>([
    [[2, 5, 2], "full", 15, 14],
    [[1, 3, 1], "blocks", 6, 5],
    // with the charges u^T K w there are 9, of P - 1 = 5 at most
    [[1, 3, 1], "full", 9, 5],
    [[2, 2, 2], "full", 3, 3],
    [[3, 4, 1], "blocks", 10, 10],
    [[1, 4, 2], "blocks", 10, 9],
  ])("linear %j, %s: %i generators, %i charges", async (s, restrict, count, independent) => {
    const found = await discover(product(models.twoLayerLinear, ...s), 16, { restrict });
    expect([found.count, found.functionallyIndependent]).toEqual([count, independent]);
    const [dx, h, dy] = s;
    const n = dx + dy;
    if (count === (h * (h + 1)) / 2) expect(independent).toBe(h <= n ? count : n * h - (n * (n - 1)) / 2);
  });
});

describe("the trap of too few thetas", () => {
  test("Net-A' (3, 5, 1), N = 9: 53 thetas of 9 samples seem to give 51 generators, there are 5", async () => {
    const net = product(models.netAPrime, 3, 5, 1);
    await using(net, dataOf(net, 9), async (measure) => {
      const random = uniforms(5);
      const normal = () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
      const { P } = net;
      const rows: Float64Array[] = [];
      for (let k = 0; k < 53; k++) {
        const theta = Float64Array.from({ length: P }, normal);
        const g = new Float64Array(9 * P);
        perSampleGradients(measure, theta, [0, 1, 2, 3, 4, 5, 6, 7, 8], g);
        for (let n = 0; n < 9; n++) {
          const row: number[] = [];
          for (let i = 0; i < P; i++)
            for (let j = i; j < P; j++) {
              const both = g[n * P + i]! * theta[j]! + g[n * P + j]! * theta[i]!;
              row.push(i === j ? both / 2 : both * Math.SQRT1_2);
            }
          const length = Math.sqrt(row.reduce((s, x) => s + x * x, 0));
          rows.push(Float64Array.from(row, (x) => x / length));
        }
      }
      const columns = Array.from({ length: 210 }, (_, j) => Float64Array.from(rows, (r) => r[j]!));
      const trapped = nullSpace(columns, (largest) => 1e-12 * largest);
      // 477 rows, but 3 independent ones from each theta
      expect([rows.length, trapped.vectors.length]).toEqual([477, 210 - 3 * 53]);
      expect(trapped.smallestKept / Math.max(trapped.largestNull, 2e-16)).toBeGreaterThan(1e12);

      const found = await discoverSymmetries(measure);
      expect([found.count, found.unknowns]).toEqual([5, 210]);
      expect(found.thetas).toBeGreaterThanOrEqual((2 * 210) / 3 + 3);
      expect(names(found)).toEqual([0, 1, 2, 3, 4].map((j) => `joint scaling ${j} of U, W`));
    });
  });

  test("a parameter that acts at one theta in three is seen by fresh thetas, if not by the first", async () => {
    const net = model({
      params: { a: [1], g: [1] },
      inputs: { x: [1], z: [1], y: [1] },
      loss: ({ a, g, x, z, y }) =>
        losses.squared(ops.add(ops.mul(a, x), ops.mul(ops.relu(ops.sub(g, 0.5)), z)), y),
    });
    let again = 0;
    for (let seed = 0; seed < 60; seed++) {
      const found = await discover(net, 8, { seed });
      expect([seed, found.count]).toEqual([seed, 0]);
      // 5 to 9 thetas are the usual number; g > 1/2 has the chance 0.69^9 = 0.035 to be none of 9
      if (found.thetas > 9) again++;
    }
    expect(again).toBeGreaterThan(0);
  });

  test("data that do not span give what holds for these samples", async () => {
    // 2 samples of x in 3 dimensions: one column direction of W is never seen
    const found = await discover(product(models.twoLayerLinear, 3, 2, 2), 2);
    expect(found.count).toBeGreaterThan(3);
    expect(found.flat).toBeGreaterThan(0);
  });
});

describe("the public fixtures", () => {
  const folder = fileURLToPath(new URL("../fixtures/", import.meta.url));
  interface Fixture {
    model: unknown;
    data: Record<string, number[]>;
    P: number;
    expected: {
      discovery?: { nullity: number; unknowns: number };
      generators: { name: string; isSymmetry: boolean; center?: number[] }[];
    };
  }
  const all = readdirSync(folder).filter((file) => file.endsWith(".json"));
  // what the layers say where the file does not; "affine" where the symmetry is
  const others: Record<string, [number, DiscoveryOptions]> = {
    attention: [3, {}],
    "deep-linear-3": [9, {}],
    // translations: 4 columns of W2 and b2
    "gelu-cross-entropy": [0, { restrict: "diagonal" }],
    // W, and translations of 4 columns of W and 2 rows of U
    "layer-norm": [22, {}],
    "logistic-linear": [10, {}],
    "relu-bias": [6, { restrict: "blocks" }],
    "residual-1": [10, { form: "affine" }],
    "tanh-bias": [0, { restrict: "blocks" }],
  };

  test.each(all)("%s", async (file) => {
    const fixture = JSON.parse(readFileSync(folder + file, "utf8")) as Fixture;
    const net = parseModel(fixture.model);
    const { discovery, generators } = fixture.expected;
    const [count, options] = discovery === undefined ? others[file.slice(0, -5)]! : [discovery.nullity, {}];
    await using(net, fixture.data, async (measure) => {
      const found = await discoverSymmetries(measure, options);
      expect(found.count, names(found).join("; ")).toBe(count);
      if (discovery !== undefined) expect(found.unknowns).toBe(discovery.unknowns);
      expect(names(found).filter((n) => n.startsWith("unnamed"))).toEqual([]);
      for (const A of found.generators) expect(defect(measure, net, A), A.name).toBeLessThan(1e-10);
      // the symmetries of the file lie in the span
      const span = found.generators.map((A) => denseOf(net, A).slice());
      for (let i = 0; i < span.length; i++) {
        reject(span[i]!, span.slice(0, i));
        reject(span[i]!, span.slice(0, i));
        const length = Math.sqrt(span[i]!.reduce((s, x) => s + x * x, 0));
        span[i] = span[i]!.map((x) => x / length);
      }
      for (const g of generators) {
        if (!g.isSymmetry || (g.center !== undefined) !== (options.form === "affine")) continue;
        const A = denseOf(net, symmetry.generator(g));
        const rest = A.slice();
        reject(rest, span);
        const size = (v: Float64Array) => Math.sqrt(v.reduce((s, x) => s + x * x, 0));
        expect(size(rest) / size(A), g.name).toBeLessThan(1e-8);
      }
    });
  });

  function reject(v: Float64Array, basis: readonly Float64Array[]): void {
    for (const q of basis) {
      let along = 0;
      for (const [i, x] of q.entries()) along += x * v[i]!;
      for (const [i, x] of q.entries()) v[i] = v[i]! - along * x;
    }
  }
});

describe("restricted to blocks", () => {
  test.each<[string, Model, number]>([
    ["linear (6, 5, 4)", product(models.twoLayerLinear, 6, 5, 4), 15],
    ["deep linear (3, 4, 3, 2)", models.deepLinear({ widths: [3, 4, 3, 2] }), 16],
    ["relu (4, 5, 3)", models.reluNet({ widths: [4, 5, 3] }), 5],
    ["square (4, 5, 3)", models.mlp({ widths: [4, 5, 3], activation: "square" }), 5],
    ["attention", models.attention({ T: 4, d: 4, dk: 3 }), 6],
    ["Net-A", product(models.netA, 4, 3, 3), 1],
    ["Net-B", product(models.netB, 4, 3, 3), 6],
    ["tanh", product(models.tanhNet, 4, 3, 3), 0],
  ])("%s: %#", async (_, net, count) => {
    await using(net, dataOf(net, 30), async (measure) => {
      const found = await discoverSymmetries(measure, { restrict: "blocks" });
      expect(found.count).toBe(count);
      expect(found.gap).toBeGreaterThan(1e11);
      for (const A of found.generators) {
        expect(A.blocks).not.toBeNull();
        expect(A.name).not.toMatch(/unnamed/);
        expect(defect(measure, net, A)).toBeLessThan(1e-11);
      }
    });
  });

  test("speed: the 64 neurons of a 64-64-64 relu net, diagonal", async () => {
    const net = models.reluNet({ widths: [64, 64, 64] });
    await using(net, dataOf(net, 200), async (measure) => {
      const began = performance.now();
      const found = await discoverSymmetries(measure, { restrict: "diagonal" });
      console.log(`diagonal, 64-64-64 relu: ${brief(began)} s (${found.unknowns} unknowns)`);
      expect(found.count).toBe(64);
      expect(names(found)[63]).toBe("neuron scaling 63 of W2, W1");
      // without a restriction the sizes choose it
      expect((await discoverSymmetries(measure)).restrict).toBe("diagonal");
    });
  });

  test("speed: the 78 generators of an 8-12-6 linear net, by blocks", async () => {
    const net = product(models.twoLayerLinear, 8, 12, 6);
    await using(net, dataOf(net, 60), async (measure) => {
      const began = performance.now();
      const found = await discoverSymmetries(measure);
      console.log(`blocks, 8-12-6 linear: ${brief(began)} s (${found.unknowns} unknowns)`);
      expect([found.restrict, found.count]).toEqual(["blocks", 78]);
    });
  });

  const brief = (began: number): string => ((performance.now() - began) / 1000).toFixed(2);
});

describe("losses with batch ops: every minibatch", () => {
  test("batch norm: the scaling of each row", async () => {
    const net = models.batchNormNet({ dx: 3, h: 3, dy: 2 });
    const found = await discover(net, 24);
    expect(names(found)).toEqual(["row scaling 0 of W", "row scaling 1 of W", "row scaling 2 of W"]);
  });
  test("batch norm behind a bias: its entries are translations", async () => {
    const net = model({
      params: { W: [2, 2], b: [2], U: [1, 2] },
      inputs: { x: [2], y: [1] },
      loss: ({ W, b, U, x, y }) =>
        losses.squared(ops.matmul(U, ops.tanh(layers.batchNorm(layers.linear(W, x, b)))), y),
    });
    const found = await discover(net, 24);
    expect(found.flat).toBe(3);
    expect(names(found)).toEqual([
      "row scaling 0 of W",
      "row scaling 1 of W",
      "unused b[0]",
      "unused b[0] and unused b[1]",
      "unused b[1]",
    ]);
  });
  test("InfoNCE: the scaling of W", async () => {
    expect(names(await discover(models.infoNCE({ dx: 3, h: 3 }), 24))).toEqual(["scaling of W"]);
  });
});

describe("the search", () => {
  const net = product(models.twoLayerLinear, 3, 2, 2);

  test("has at least 2 D equations, and 2 D / rank + 3 thetas", async () => {
    const found = await discover(net, 40);
    expect(found.unknowns).toBe(55);
    expect(found.equations).toBeGreaterThanOrEqual(110);
    // a theta gives as many equations as the rank of its gradients, 6 for a 2 x 3 map
    expect(found.thetas).toBeGreaterThanOrEqual(Math.ceil(110 / 6) + 3);
    expect(found.equations).toBeLessThanOrEqual(6 * found.thetas);
    expect(found.thetas).toBeLessThan(40);
  });

  test("gives the same bits again, and other thetas by another seed", async () => {
    const [a, b, c] = [
      await discover(net, 16, { seed: "x" }),
      await discover(net, 16, { seed: "x" }),
      await discover(net, 16, { seed: "y" }),
    ];
    expect(b).toEqual(a);
    expect(c!.smallestKept).not.toBe(a!.smallestKept);
    expect(names(c!)).toEqual(names(a!));
  });

  test("more samples than are taken at a time are drawn", async () => {
    const found = await discover(net, 1000);
    expect(names(found)).toEqual(names(await discover(net, 16)));
  });

  test("f32: the same generators with a smaller gap", async () => {
    for (const [m, count] of [
      [net, 3],
      [product(models.netB, 3, 2, 2), 4],
      [models.reluNet({ widths: [2, 3, 2], biases: true }), 3],
      [product(models.tanhNet, 2, 3, 2), 0],
      [models.softmaxRegression({ d: 2, classes: 3 }), 3],
    ] as const) {
      const found = await discover(m, 16, {}, single);
      expect(found.count).toBe(count);
      expect(names(found)).toEqual(names(await discover(m, 16)));
      expect(found.gap).toBeGreaterThan(1e3);
      expect(found.gap).toBeLessThan(1e8);
    }
  });

  test("reports progress up to its total, and stops at the signal", async () => {
    const seen: { done: number; total: number }[] = [];
    await discover(net, 16, { onProgress: (p) => seen.push(p) });
    const last = seen.at(-1)!;
    expect(last.done).toBe(last.total);
    expect(seen.every((p, i) => i === 0 || p.done >= seen[i - 1]!.done)).toBe(true);
    const early = new AbortController();
    early.abort(new Error("not now"));
    await expect(discover(net, 16, { signal: early.signal })).rejects.toThrow("not now");
    const late = new AbortController();
    const big = product(models.twoLayerLinear, 8, 12, 6);
    const work = discover(big, 60, {
      signal: late.signal,
      onProgress: () => late.abort(new Error("enough")),
    });
    await expect(work).rejects.toThrow("enough");
  });

  test("gives all memory back", async () => {
    await using(net, dataOf(net, 16), async (measure) => {
      const before = measure.host.arena.bytesInUse;
      const large = dataOf(net, 300);
      await using(net, large, (m) => discoverSymmetries(m));
      expect(measure.host.arena.bytesInUse).toBe(before);
    });
  });
});

describe("refusals", () => {
  const net = product(models.twoLayerLinear, 3, 2, 2);

  test("words and options that are not known", async () => {
    expect((await refusal(discover(net, 8, { form: "linear" } as never))).message).toBe(
      'discoverSymmetries: form must be one of "symmetric", "general", "affine", got "linear".',
    );
    expect((await refusal(discover(net, 8, { restrict: "block" } as never))).message).toBe(
      'discoverSymmetries: restrict must be one of "full", "blocks", "diagonal", got "block". Did you mean "blocks"?',
    );
    expect((await refusal(discover(net, 8, { samples: 3 } as never))).code).toBe("name");
  });

  test("too many unknowns, with what there is instead", async () => {
    const big = models.reluNet({ widths: [20, 60, 20] });
    const error = await refusal(discover(big, 8, { restrict: "full" }));
    expect(error.code).toBe("memory");
    expect(error.message).toMatch(
      /^discoverSymmetries: at most 3000 unknowns, got 2881200 for P = 2400 \(\S+ MB and about \S+ operations\)\. restrict: "blocks" has 4080, restrict: "diagonal" has 160\.$/,
    );
    const huge = await refusal(discover(models.reluNet({ widths: [1000, 1500, 2] }), 2, { form: "affine" }));
    expect(huge.message).toContain("Take a smaller model");
  });

  test("samples that are drawn fresh", async () => {
    const fresh = measureOf(
      engine,
      net,
      sampler({
        noise: { x: { kind: "normal", shape: [3] }, y: { kind: "normal", shape: [2] } },
        outputs: ({ x, y }) => ({ x: x!, y: y! }),
      }),
    );
    const error = await refusal(discoverSymmetries(fresh));
    expect([error.code, error.message]).toEqual([
      "unsupported",
      "discoverSymmetries: expected a finite set of samples, got fresh ones. Draw some.",
    ]);
    fresh.dispose();
    fresh.samples.dispose();
  });

  test("a loss that does not depend on theta, and parameters that are not trained", async () => {
    const still = model({
      params: { w: [2] },
      inputs: { x: [2] },
      loss: ({ w, x }) => ops.sum(ops.mul(x, ops.step(w))),
    });
    expect((await refusal(discover(still))).message).toBe(
      "discoverSymmetries: the loss must depend on theta, got gradients of 0 for all samples at 8 random thetas.",
    );
    const fixed = model({
      params: { w: { shape: [2], trainable: false } },
      inputs: { x: [2] },
      loss: ({ w, x }) => ops.matmul(w, x),
    });
    expect((await refusal(discover(fixed))).message).toBe(
      "discoverSymmetries: expected parameters that are trained, got none.",
    );
  });

  test("gradients that are not finite", async () => {
    const bad = model({
      params: { w: [2] },
      inputs: { x: [2] },
      loss: ({ w, x }) => ops.sum(ops.mul(x, ops.sqrt(w))),
    });
    const error = await refusal(discover(bad));
    expect([error.code, error.expected]).toEqual([
      "nonfinite",
      "gradients must be finite at standard normal thetas",
    ]);
  });

  test("a symmetry broken by 1e-11: no clear gap, with the numbers", async () => {
    const broken = (size: number) =>
      model({
        params: { U: [2, 2], W: [2, 2] },
        inputs: { x: [2], y: [2] },
        loss: ({ U, W, x, y }) =>
          ops.add(
            losses.squared(ops.matmul(U, ops.matmul(W, x)), y),
            ops.scale(ops.sqnorm(ops.matmul(U, x)), size),
          ),
      });
    const error = await refusal(discover(broken(1e-11)));
    expect(error.code).toBe("range");
    expect(error.message).toMatch(
      /^discoverSymmetries: no clear gap between equations that count and rounding: a ratio of 1000000 at least, got singular values \S+e-1[12] and \S+e-16 of the largest, with 0 below, from \d+ equations of \d+ thetas\. A symmetry/,
    );
    expect((await discover(broken(1e-6))).count).toBe(0);
    expect((await discover(broken(0))).count).toBe(3);
  });
});

/**
 * The constructors of `symmetry`: what each does to a small model, as P x P matrices written out by hand, and the words with
 * which each refuses what it cannot read. The exponential is a Taylor series of the matrix, scaled and squared.
 */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  createEngine,
  type Engine,
  Generator,
  model,
  NoetherflowError,
  ops,
  type Problem,
  symmetry,
} from "../../src/index.ts";
import {
  apply,
  type Blocks,
  blocksOf,
  Draw,
  denseOfMove,
  flatOf,
  form,
  type Rows,
  scaled,
  times,
} from "../helpers/ready.ts";

const B = [
  [1, 0.5],
  [0.5, -0.75],
];
const L = [
  [0.3, -0.4, 0],
  [-0.4, -1, 0.2],
  [0, 0.2, 0.6],
];
/** P = 16; U [3, 2], W [2, 3], b [2], a scalar s, and a frozen vector f [1]. */
const net = model({
  params: { U: [3, 2], W: [2, 3], b: [2], s: [], f: { shape: [1], trainable: false } },
  inputs: { x: [3], y: [3] },
  loss: ({ U, W, b, s, f, x, y }) =>
    ops.add(
      ops.sqnorm(ops.sub(ops.matmul(U, ops.add(ops.matmul(W, x), b)), y)),
      ops.square(ops.sub(s, ops.sum(f))),
    ),
});
const { P } = net;

let engine: Engine;
let problem: Problem;
beforeAll(async () => {
  engine = await createEngine();
  const d = new Draw(1);
  problem = engine.problem(net, { x: d.normals(12), y: d.normals(12) });
});
afterAll(() => engine.dispose());

const only = (A: Rows, c: number, keeps: (i: number, j: number) => boolean): Rows =>
  A.map((row, i) => row.map((a, j) => (keeps(i, j) ? c * a : 0)));
const c = new Draw(2).normals(P);

/** Each with what it does to the blocks, and its center. */
const generators: readonly { A: Generator; move: (p: Blocks) => Blocks; center?: readonly number[] }[] = [
  { A: symmetry.scaling("U", "b", "s"), move: (p) => ({ U: p.U!, b: p.b!, s: p.s! }) },
  {
    A: symmetry.blockScaling({ U: 2, W: -1, b: -1, s: 0, f: 0.5 }),
    move: (p) => ({ U: scaled(p.U!, 2), W: scaled(p.W!, -1), b: scaled(p.b!, -1), f: scaled(p.f!, 0.5) }),
  },
  { A: symmetry.rescaling("W", "U"), move: (p) => ({ W: p.W!, U: scaled(p.U!, -1) }) },
  {
    A: symmetry.neuronRescaling("U", "W", 1),
    move: (p) => ({ U: only(p.U!, 1, (_, j) => j === 1), W: only(p.W!, -1, (i) => i === 1) }),
  },
  {
    A: symmetry.neuronRescaling("U", "W", 0, { degree: 2, bias: "b" }),
    move: (p) => ({
      U: only(p.U!, 2, (_, j) => j === 0),
      W: only(p.W!, -1, (i) => i === 0),
      b: only(p.b!, -1, (i) => i === 0),
    }),
  },
  {
    A: symmetry.doubleRotation("U", "W", B),
    move: (p) => ({ U: times(p.U!, B), W: scaled(times(B, p.W!), -1) }),
  },
  {
    A: symmetry.doubleRotation("W", "U", L),
    move: (p) => ({ W: times(p.W!, L), U: scaled(times(L, p.U!), -1) }),
  },
  {
    A: symmetry.shifted(symmetry.doubleRotation("U", "W", B), c),
    move: (p) => ({ U: times(p.U!, B), W: scaled(times(B, p.W!), -1) }),
    center: c,
  },
  {
    A: symmetry.generator({
      name: "ranges",
      blocks: {
        U: { scalar: 1.5, rows: [1, 3] },
        W: { scalar: -0.5, columns: [0, 2] },
        b: { scalar: 2, rows: [0, 1] },
        f: { scalar: 3, columns: [0, 1] },
      },
    }),
    move: (p) => ({
      U: only(p.U!, 1.5, (i) => i > 0),
      W: only(p.W!, -0.5, (_, j) => j < 2),
      b: only(p.b!, 2, (i) => i === 0),
      f: scaled(p.f!, 3),
    }),
  },
  {
    A: symmetry.generator({ blocks: { U: { scalar: 0.5, left: L, right: B }, b: { left: B } } }),
    move: (p) => {
      const [left, right] = [times(L, p.U!), times(p.U!, B)];
      return {
        U: p.U!.map((row, i) => row.map((x, j) => 0.5 * x + left[i]![j]! + right[i]![j]!)),
        b: times(B, p.b!),
      };
    },
  },
  {
    A: symmetry.generator({ name: "dense", dense: new Draw(5).symmetric(P).flat(), center: c }),
    move: (p) => blocksOf(net, apply(new Draw(5).symmetric(P), flatOf(net, p))),
    center: c,
  },
  { A: symmetry.generator({ blocks: {} }), move: () => ({}) },
];

/** e^M: the Taylor series of M / 2^10, squared ten times. */
function exponential(M: Rows): Rows {
  const small = scaled(M, 2 ** -10);
  const unit: Rows = M.map((row, i) => row.map((_, j) => (i === j ? 1 : 0)));
  let [sum, term]: [Rows, Rows] = [unit, unit];
  for (let k = 1; k < 12; k++) {
    term = scaled(times(term, small), 1 / k);
    sum = sum.map((row, i) => row.map((x, j) => x + term[i]![j]!));
  }
  for (let k = 0; k < 10; k++) sum = times(sum, sum);
  return sum;
}

const largest = (v: ArrayLike<number>): number => Array.from(v).reduce((m, x) => Math.max(m, Math.abs(x)), 0);
const less = (v: ArrayLike<number>, w: ArrayLike<number>): number[] => Array.from(v, (x, i) => x - w[i]!);

describe.each(generators.map((g) => [g.A.name, g] as const))("%s", (_, { A, move, center }) => {
  const dense = denseOfMove(net, move);
  const origin = center ?? new Array<number>(P).fill(0);
  const theta = new Draw(3).normals(P);

  test("the matrix is symmetric, and the charge is 1/2 (theta - c) . A (theta - c)", () => {
    for (const [i, row] of dense.entries())
      for (const [j, x] of row.entries()) expect(x).toBeCloseTo(dense[j]![i]!, 14);
    const from = less(theta, origin);
    expect(problem.charge(theta, A)).toBeCloseTo(form(dense, from) / 2, 12);
  });

  test("e^(lambda A) (theta - c) + c is the exponential of the matrix, and a group", () => {
    for (const lambda of [0.3, -0.8]) {
      const expected = apply(exponential(scaled(dense, lambda)), less(theta, origin)).map(
        (x, i) => x + origin[i]!,
      );
      const moved = problem.transform(theta, A, lambda);
      expect(largest(less(moved, expected))).toBeLessThan(1e-11 * largest(expected));
      const back = problem.transform(moved, A, -lambda);
      expect(largest(less(back, theta))).toBeLessThan(1e-12 * largest(expected));
      const half = problem.transform(problem.transform(theta, A, lambda / 2), A, lambda / 2);
      expect(largest(less(half, moved))).toBeLessThan(1e-13 * largest(expected));
    }
    expect(largest(less(problem.transform(theta, A, 0), theta))).toBeLessThan(1e-14 * 10);
  });

  test("Tr[Sigma A] and the flow are those of the matrix, the eigenvalues too", async () => {
    const Sigma = await problem.noiseCovariance(theta);
    const gBar = problem.gradient(theta);
    const gamma = 0.2;
    const flow = problem.noetherFlow(theta, A, { eta: 0.1, batchSize: 2, weightDecay: gamma });
    const power = dense.reduce(
      (sum, row, i) => sum + row.reduce((s, a, j) => s + a * Sigma[i * P + j]!, 0),
      0,
    );
    const size = 1 + flow.plus + flow.minus;
    expect(Math.abs(flow.noise - (0.1 / 4) * power)).toBeLessThan(1e-12 * size);
    const field = apply(dense, less(theta, origin));
    const along = (v: ArrayLike<number>) => field.reduce((sum, x, i) => sum + x * v[i]!, 0);
    expect(Math.abs(flow.gradient + along(gBar))).toBeLessThan(1e-12 * (1 + Math.abs(along(gBar))));
    // the frozen entry is the last one, and decay leaves it where it is
    const decaying = theta.map((x, i) => (i === P - 1 ? 0 : x));
    expect(Math.abs(flow.decay + 2 * gamma * along(decaying))).toBeLessThan(1e-12 * size);
    expect(Math.abs(flow.discrete - 0.05 * form(dense, gBar))).toBeLessThan(
      1e-12 * size * (1 + form(dense, gBar) ** 2),
    );
    // traces of A and A^2
    const mu = flow.byDirection.map((d) => d.mu);
    expect(mu.reduce((a, b) => a + b, 0)).toBeCloseTo(
      dense.reduce((sum, row, i) => sum + row[i]!, 0),
      11,
    );
    expect(mu.reduce((a, b) => a + b * b, 0)).toBeCloseTo(
      dense.flat().reduce((sum, x) => sum + x * x, 0),
      11,
    );
    expect(mu).toEqual([...mu].sort((a, b) => b - a));
  });

  test("goes through JSON and back, the same bits", () => {
    const again = symmetry.generator(JSON.parse(JSON.stringify(A)));
    expect(again).toBeInstanceOf(Generator);
    expect(again.toJSON()).toEqual(A.toJSON());
    expect(again.name).toBe(A.name);
    expect(problem.charge(theta, again)).toBe(problem.charge(theta, A));
    expect([...problem.transform(theta, again, 0.4)]).toEqual([...problem.transform(theta, A, 0.4)]);
  });
});

test("key and query rotate against each other, both from the right", () => {
  const two = model({
    params: { Wq: [3, 2], Wk: [2, 2] },
    inputs: { x: [3], z: [2] },
    // scores x Wq Wk^T z
    loss: ({ Wq, Wk, x, z }) => ops.square(ops.matmul(ops.matmul(x, Wq), ops.matmul(z, Wk))),
  });
  const on = engine.problem(two, { x: new Draw(7).normals(9), z: new Draw(8).normals(6) });
  const A = symmetry.keyQuery("Wq", "Wk", B);
  const dense = denseOfMove(two, (p) => ({ Wq: times(p.Wq!, B), Wk: scaled(times(p.Wk!, B), -1) }));
  const theta = new Draw(9).normals(two.P);
  expect(on.charge(theta, A)).toBeCloseTo(form(dense, theta) / 2, 12);
  expect(on.checkSymmetry(A).verdict).toBe("exact");
  on.dispose();
});

test("what is given is copied: a caller's later changes change nothing", () => {
  const matrix = [
    [1, 0],
    [0, 2],
  ];
  const center = new Float64Array(P);
  const A = symmetry.shifted(symmetry.doubleRotation("U", "W", matrix), center);
  const theta = new Draw(3).normals(P);
  const before = problem.charge(theta, A);
  matrix[0]![0] = 7;
  center[0] = 3;
  expect(problem.charge(theta, A)).toBe(before);
  const json = A.toJSON();
  (json.center as number[])[0] = 5;
  json.blocks!["U"]!.right![0]![0] = 9;
  expect(problem.charge(theta, A)).toBe(before);
});

describe("what a constructor cannot read, in its words", () => {
  const cases: readonly [string, () => unknown, string][] = [
    ["no names", () => symmetry.scaling(), "scaling: expected the names of the blocks that scale, got none."],
    ["a name twice", () => symmetry.scaling("U", "U"), 'scaling: each block takes part once, got "U" twice.'],
    ["no name", () => symmetry.scaling(""), "scaling: a name is a letter or _"],
    [
      "one block against itself",
      () => symmetry.rescaling("U", "U"),
      'rescaling: each block takes part once, got "U"',
    ],
    ["half a pair", () => symmetry.rescaling("U", undefined as never), "rescaling: a name is"],
    [
      "no factors",
      () => symmetry.blockScaling({}),
      "blockScaling: expected a factor for some blocks, got none.",
    ],
    [
      "null for factors",
      () => symmetry.blockScaling(null as never),
      "blockScaling: expected a factor for each block: { U: 2, W: -1 }, got null.",
    ],
    [
      "a list of factors",
      () => symmetry.blockScaling([1] as never),
      "blockScaling: expected a factor for each block",
    ],
    [
      "a NaN factor",
      () => symmetry.blockScaling({ U: Number.NaN }),
      "blockScaling: U must be a finite number, got NaN.",
    ],
    [
      "a unit below 0",
      () => symmetry.neuronRescaling("U", "W", -1),
      "neuronRescaling: the unit must be an integer",
    ],
    [
      "half a unit",
      () => symmetry.neuronRescaling("U", "W", 0.5),
      "neuronRescaling: the unit must be an integer",
    ],
    [
      "a misspelt option",
      () => symmetry.neuronRescaling("U", "W", 0, { degre: 2 } as never),
      'neuronRescaling: options are degree, bias, got "degre". Did you mean "degree"?',
    ],
    [
      "null options",
      () => symmetry.neuronRescaling("U", "W", 0, null as never),
      "neuronRescaling: expected options",
    ],
    [
      "an infinite degree",
      () => symmetry.neuronRescaling("U", "W", 0, { degree: Infinity }),
      "neuronRescaling: degree must be a finite number, got Infinity.",
    ],
    [
      "the bias is a weight",
      () => symmetry.neuronRescaling("U", "W", 0, { bias: "W" }),
      'neuronRescaling: each block takes part once, got "W" twice.',
    ],
    [
      "B not symmetric",
      () =>
        symmetry.doubleRotation("U", "W", [
          [1, 2],
          [3, 4],
        ]),
      "doubleRotation: expected a symmetric matrix, got 3 at (1, 0) and 2 at (0, 1). Only symmetric generators have a charge.",
    ],
    [
      "B not square",
      () => symmetry.doubleRotation("U", "W", [[1, 2]]),
      "doubleRotation: expected a square matrix, got [1, 2].",
    ],
    [
      "B of NaN",
      () => symmetry.doubleRotation("U", "W", [[Number.NaN]]),
      "doubleRotation: values must be finite, got NaN",
    ],
    ["B of text", () => symmetry.doubleRotation("U", "W", "B"), "doubleRotation: "],
    [
      "B flat",
      () => symmetry.keyQuery("Wq", "Wk", [1, 0, 0, 1]),
      "keyQuery: expected a square matrix, got [4].",
    ],
    [
      "key is query",
      () => symmetry.keyQuery("Wq", "Wq", [[1]]),
      'keyQuery: each block takes part once, got "Wq" twice.',
    ],
    [
      "shifted nothing",
      () => symmetry.shifted(null as never, [1]),
      "shifted: expected a generator, got null.",
    ],
    [
      "shifted JSON",
      () => symmetry.shifted({ blocks: {} } as never, [1]),
      "shifted: expected a generator, got an object",
    ],
    [
      "a center of NaN",
      () => symmetry.shifted(symmetry.scaling("U"), [0, Number.NaN]),
      "shifted: center: values must be finite, got NaN at position 1.",
    ],
    ["a center of text", () => symmetry.shifted(symmetry.scaling("U"), "here"), "shifted: center: expected"],
    [
      "null",
      () => symmetry.generator(null),
      "generator: expected { blocks }, { dense } or { translation }, got null.",
    ],
    [
      "neither",
      () => symmetry.generator({ actions: {} }),
      "generator: expected { blocks }, { dense } or { translation }, got an object with keys actions.",
    ],
    [
      "a misspelt center",
      () => symmetry.generator({ blocks: {}, centre: [1] }),
      'generator: its keys are name, blocks, dense, center, translation, got "centre". Did you mean "center"?',
    ],
    [
      "blocks a list",
      () => symmetry.generator({ blocks: [] }),
      "generator.blocks: expected an object of block actions",
    ],
    [
      "an action a number",
      () => symmetry.generator({ blocks: { U: 1 } }),
      "generator.blocks.U: expected { scalar?, left?, right? }, got 1.",
    ],
    [
      "an unknown key",
      () => symmetry.generator({ blocks: { U: { scaler: 1 } } }),
      'generator.blocks.U: a block action has scalar, left, right, rows and columns, got "scaler".',
    ],
    [
      "a NaN scalar",
      () => symmetry.generator({ blocks: { U: { scalar: Number.NaN } } }),
      "generator.blocks.U: scalar must be a finite number, got NaN.",
    ],
    [
      "rows that end before they begin",
      () => symmetry.generator({ blocks: { U: { scalar: 1, rows: [2, 1] } } }),
      "generator.blocks.U.rows: expected [start, stop] with 0 <= start < stop, got [2, 1].",
    ],
    [
      "no rows",
      () => symmetry.generator({ blocks: { U: { scalar: 1, rows: [1, 1] } } }),
      "generator.blocks.U.rows: expected [start, stop]",
    ],
    [
      "half a row",
      () => symmetry.generator({ blocks: { U: { scalar: 1, rows: [0, 1.5] } } }),
      "generator.blocks.U.rows: expected [start, stop]",
    ],
    [
      "columns of one number",
      () => symmetry.generator({ blocks: { U: { scalar: 1, columns: [1] } } }),
      "generator.blocks.U.columns: expected [start, stop]",
    ],
    [
      "both rows and columns",
      () => symmetry.generator({ blocks: { U: { scalar: 1, rows: [0, 1], columns: [0, 1] } } }),
      "generator.blocks.U: rows or columns say where a scalar acts, one of the two and nothing beside it",
    ],
    [
      "rows without a scalar",
      () => symmetry.generator({ blocks: { U: { rows: [0, 1] } } }),
      "generator.blocks.U: rows or columns say where a scalar acts",
    ],
    [
      "rows beside a matrix",
      () => symmetry.generator({ blocks: { U: { scalar: 1, left: [[1]], rows: [0, 1] } } }),
      "generator.blocks.U: rows or columns",
    ],
    [
      "left not symmetric",
      () =>
        symmetry.generator({
          blocks: {
            U: {
              left: [
                [0, 1],
                [0, 0],
              ],
            },
          },
        }),
      "generator.blocks.U.left: expected a symmetric matrix",
    ],
    [
      "dense not square",
      () => symmetry.generator({ dense: [1, 2, 3] }),
      "generator.dense: expected 4 numbers, shape [2, 2], got 3.",
    ],
    [
      "dense ragged",
      () => symmetry.generator({ dense: [[1, 2], [3]] }),
      "generator.dense: expected 4 numbers, shape [2, 2], got 1.",
    ],
    ["dense empty", () => symmetry.generator({ dense: [] }), "generator.dense: "],
    ["dense null", () => symmetry.generator({ dense: null }), "generator.dense: "],
    ["a center of nulls", () => symmetry.generator({ dense: [[1]], center: [null] }), "generator.center: "],
  ];
  test.each(cases)("%s", (_, make, message) => {
    const caught = caughtBy(make);
    expect(caught.message).toContain(message);
  });
});

describe("a generator that does not fit the model: every call says so in its own name", () => {
  const wrong: readonly [string, Generator, string][] = [
    ["a block it has not", symmetry.rescaling("U", "V"), 'the parameters are U, W, b, s, f, got "V"'],
    [
      "a matrix of another size",
      symmetry.doubleRotation("U", "W", L),
      "double rotation U, W acts on U from the right with 3 x 3, got U of shape [3, 2]",
    ],
    [
      "left of another size",
      symmetry.generator({ name: "A", blocks: { W: { left: L } } }),
      "A acts on W from the left with 3 x 3, got W of shape [2, 3]",
    ],
    [
      "a unit beyond the last",
      symmetry.neuronRescaling("U", "W", 2),
      "columns up to 3 of a block that has them, got 2 columns",
    ],
    [
      "rows beyond the last",
      symmetry.generator({ blocks: { b: { scalar: 1, rows: [1, 4] } } }),
      "rows up to 4 of a block that has them, got 2 rows",
    ],
    [
      "another P",
      symmetry.generator({ dense: [[1]] }),
      `a dense generator of this model is ${P} x ${P}, got 1 entries`,
    ],
    [
      "a center of another length",
      symmetry.shifted(symmetry.rescaling("U", "W"), [1, 2]),
      `the center of a generator of this model has ${P} entries, got 2`,
    ],
  ];
  const calls: Readonly<Record<string, (theta: number[], A: Generator) => unknown>> = {
    charge: (theta, A) => problem.charge(theta, A),
    transform: (theta, A) => problem.transform(theta, A, 0.1),
    checkSymmetry: (_, A) => problem.checkSymmetry(A),
    noetherFlow: (theta, A) => problem.noetherFlow(theta, A, { sigma2: 1 }),
    equilibrium: (theta, A) => problem.equilibrium(theta, A, { sigma2: 1 }),
    report: (theta, A) => problem.report(theta, { sigma2: 1, generators: { A } }),
    simulate: (theta, A) =>
      problem.simulate({ scheme: "gd", theta, eta: 0.1, steps: 1, record: { every: 1, charges: { A } } }),
  };
  const first: Readonly<Record<string, string>> = {
    simulate: "record.charges.A",
    report: "report: generators.A",
  };
  test.each(wrong)("%s", async (_, A, message) => {
    const theta = new Draw(4).normals(P);
    for (const [name, call] of Object.entries(calls)) {
      const caught = await caughtFrom(() => call(theta, A));
      expect(caught.message).toContain(message);
      expect(caught.message.startsWith(`${first[name] ?? name}:`), caught.message).toBe(true);
    }
  });
  test("what is no generator", async () => {
    const theta = new Draw(4).normals(P);
    for (const [name, call] of Object.entries(calls)) {
      const caught = await caughtFrom(() => call(theta, { blocks: {} } as never));
      expect(caught.message).toContain(`${first[name] ?? name}: expected a generator`);
    }
  });
});

function caughtBy(make: () => unknown): NoetherflowError {
  try {
    make();
  } catch (error) {
    expect(error).toBeInstanceOf(NoetherflowError);
    return error as NoetherflowError;
  }
  throw new Error("nothing was thrown");
}

async function caughtFrom(make: () => unknown): Promise<NoetherflowError> {
  try {
    await make();
  } catch (error) {
    expect(error).toBeInstanceOf(NoetherflowError);
    return error as NoetherflowError;
  }
  throw new Error("nothing was thrown");
}

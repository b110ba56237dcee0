/** Model and sampler files: what is read, what is written back, and what every refusal says. */
import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import ts from "typescript";
import { afterAll, describe, expect, test } from "vitest";
import { NoetherflowError } from "../../src/errors.ts";
import { gradient, tangent } from "../../src/graph/derive.ts";
import { Graph, type Node } from "../../src/graph/node.ts";
import { apply, publicOps } from "../../src/graph/ops.ts";
import { substitute } from "../../src/graph/substitute.ts";
import { createEngine, Model, model, ops, parseModel, parseSampler, sampler } from "../../src/index.ts";
import { parse, readSources } from "../helpers/source.ts";

const engine = await createEngine();
const folder = fileURLToPath(new URL("../fixtures/", import.meta.url));
const fixtures = readdirSync(folder)
  .filter((file) => file.endsWith(".json"))
  .map((file) => JSON.parse(readFileSync(folder + file, "utf8")))
  .map((f) => ({
    name: f.name as string,
    model: f.model as object,
    data: f.data as Record<string, number[]>,
    theta: f.theta as Record<string, number[]>,
  }));

/** Losses and gradient of a model on some data, as text that shows every bit. */
function bitsOf(
  net: Model,
  data: Record<string, unknown>,
  theta: Record<string, unknown> | number[],
): string {
  const problem = engine.problem(net, data);
  const numbers = [...problem.losses(theta), ...problem.gradient(theta)];
  problem.dispose();
  return numbers.map((x) => (Object.is(x, -0) ? "-0" : String(x))).join(" ");
}

/** Through JSON text and back. */
const reread = (net: Model): Model => parseModel(JSON.stringify(net));

/** A matrix-sized example with constants, a let, shared nodes, options and every public op. */
const everything = {
  schema: "noetherflow-model/1",
  params: { W: [3, 2], b: { shape: [3], trainable: false }, s: [] },
  inputs: { x: [2], y: [3] },
  constants: { V: { shape: [2, 3], values: [1, -0.5, 0.25, 3, 1e-300, 0.1] } },
  let: [
    ["z", ["add", ["matmul", "W", "x"], "b"]],
    ["p", ["softmax", "z"]],
    ["positive", ["add", 1, ["square", "z"]]],
    [
      "parts",
      [
        "concat",
        ["leaky_relu", ["slice", "z", { start: 1 }], { slope: 0.1 }],
        ["erf", "z"],
        ["pad", ["gelu_erf", "y"], { before: 1, after: 2 }],
        ["reshape", ["slice", "W", { axis: -1, stop: 1 }], { shape: [3] }],
      ],
    ],
    ["rows", ["batch_stack", "p"]],
    [
      "batch",
      [
        "add",
        ["sqnorm", ["sub", "z", ["batch_mean", "z"]]],
        [
          "add",
          ["logsumexp", ["matmul", "rows", "z"]],
          ["add", ["sum", ["batch_row", ["mul", "rows", "y"]]], ["mean", "rows"]],
        ],
      ],
    ],
  ],
  loss: [
    "add",
    ["mul", "s", ["sum", ["mul", "p", ["relu", "y"]]]],
    [
      "add",
      ["sqnorm", ["matmul", "V", ["sub", ["tanh", "z"], ["sigmoid", "y"]]]],
      [
        "add",
        ["logsumexp", ["outer", "p", "x"], { axis: 0, keepdims: true }],
        [
          "add",
          ["mean", ["reshape", ["softplus", "z"], { shape: [3, 1] }], { axis: 0 }],
          [
            "add",
            ["norm", ["div", ["log", "positive"], ["sqrt", "positive"]]],
            [
              "add",
              ["sum", ["gelu_tanh", ["abs", ["scale", "z", 0.25]]]],
              [
                "add",
                [
                  "sum",
                  [
                    "mul",
                    ["mul", ["step", "z"], ["sign", "y"]],
                    ["sum", ["broadcast_to", ["exp", ["transpose", "W"]], { shape: [2, 3] }], { axis: 0 }],
                  ],
                ],
                ["add", ["sqnorm", "parts"], "batch"],
              ],
            ],
          ],
        ],
      ],
    ],
  ],
};

/** The same with the builder. */
const built = () =>
  model({
    params: { W: [3, 2], b: { shape: [3], trainable: false }, s: [] },
    inputs: { x: [2], y: [3] },
    constants: { V: [[1, -0.5, 0.25] as const, [3, 1e-300, 0.1]] },
    loss: ({ W, b, s, x, y, V }) => {
      const z = ops.add(ops.matmul(W, x), b);
      const p = ops.softmax(z);
      const positive = ops.add(1, ops.square(z));
      const parts = ops.concat([
        ops.leakyRelu(ops.slice(z, { start: 1, stop: 3 }), { slope: 0.1 }),
        ops.erf(z),
        ops.pad(ops.geluErf(y), { axis: 0, before: 1, after: 2 }),
        ops.reshape(ops.slice(W, { axis: 1, stop: 1 }), [3]),
      ]);
      const rows = ops.batchStack(p);
      const batch = [
        ops.sqnorm(ops.sub(z, ops.batchMean(z))),
        ops.logsumexp(ops.matmul(rows, z)),
        ops.sum(ops.batchRow(ops.mul(rows, y))),
        ops.mean(rows),
      ];
      const total = (terms: readonly Node[]) => terms.reduceRight((rest, term) => ops.add(term, rest));
      const terms = [
        ops.mul(s, ops.sum(ops.mul(p, ops.relu(y)))),
        ops.sqnorm(ops.matmul(V, ops.sub(ops.tanh(z), ops.sigmoid(y)))),
        ops.logsumexp(ops.outer(p, x), { axis: -2, keepdims: true }),
        ops.mean(ops.reshape(ops.softplus(z), [3, 1]), { axis: 0 }),
        ops.norm(ops.div(ops.log(positive), ops.sqrt(positive))),
        ops.sum(ops.geluTanh(ops.abs(ops.scale(z, 0.25)))),
        ops.sum(
          ops.mul(
            ops.mul(ops.step(z), ops.sign(y)),
            ops.sum(ops.broadcastTo(ops.exp(ops.transpose(W)), [2, 3]), { axis: 0 }),
          ),
        ),
        ops.sqnorm(parts),
        total(batch),
      ];
      return ops.sum(total(terms));
    },
  });

const someData = { x: [0.4, -1.2, 2, 0.3], y: [0.2, -0.8, 1.5, 0.6, 0.7, -0.1] };
const someTheta = {
  W: [
    [0.3, -0.4],
    [0.8, 0.1],
    [-0.9, 0.2],
  ],
  b: [0.01, -0.02, 0.03],
  s: [1.7],
};

describe("written and read again", () => {
  test.each(fixtures.map((f) => [f.name, f] as const))(
    "%s gives the same file and the same bits",
    (_, { model: file, data, theta }) => {
      const net = parseModel(file);
      const again = reread(net);
      expect(again.toJSON()).toEqual(net.toJSON());
      expect(again.blocks).toEqual(net.blocks);
      expect(again.inputs).toEqual(net.inputs);
      expect(bitsOf(again, data, theta)).toBe(bitsOf(net, data, theta));
    },
  );

  test("constants, untrainable blocks, options and shared nodes survive", () => {
    // V x is one vector of 3 for the whole file: wrap the sum, whose term of logsumexp has rank 2
    const net = parseModel({ ...everything, loss: ["sum", everything.loss] });
    const text = JSON.stringify([everything.let, everything.loss]);
    expect(publicOps.filter((op) => !text.includes(`["${op}",`))).toEqual([]);
    const again = reread(net);
    expect(again.toJSON()).toEqual(net.toJSON());
    expect(again.toJSON().params).toEqual(everything.params);
    expect(again.toJSON().constants).toEqual(everything.constants);
    expect(bitsOf(again, someData, someTheta)).toBe(bitsOf(net, someData, someTheta));
  });

  test("a node used twice is written once, under a let whose name is free", () => {
    const net = parseModel({
      params: { t0: [2], t1: [2] },
      inputs: {},
      loss: ["add", ["sum", ["mul", ["tanh", "t0"], "t1"]], ["sqnorm", ["tanh", "t0"]]],
    });
    expect(net.toJSON().let).toEqual([["t2", ["tanh", "t0"]]]);
    expect(net.toJSON().loss).toEqual([
      "add",
      ["sum", ["mul", "t2", "t1"], { axis: null }],
      ["sqnorm", "t2"],
    ]);
    expect(reread(net).toJSON()).toEqual(net.toJSON());
  });

  test("ops with options are written with all of them, whichever were given", () => {
    const written = (loss: unknown) =>
      parseModel({ params: { w: [3], M: [2, 3] }, inputs: { x: [3] }, loss: ["sum", loss] }).toJSON().loss;
    const forms: [given: unknown, expected: unknown][] = [
      [
        ["concat", "w", "x"],
        ["concat", "w", "x", { axis: 0 }],
      ],
      [
        ["concat", "M", "M", "M", { axis: -1 }],
        ["concat", "M", "M", "M", { axis: 1 }],
      ],
      [
        ["concat", "w"],
        ["concat", "w", { axis: 0 }],
      ],
      [
        ["concat", "w", "x", { shapes: [[3], [3], [6]] }],
        ["concat", "w", "x", { axis: 0 }],
      ],
      [
        ["slice", "w"],
        ["slice", "w", { axis: 0, start: 0, stop: 3 }],
      ],
      [
        ["slice", "M", { stop: 2, axis: -1 }],
        ["slice", "M", { axis: 1, start: 0, stop: 2 }],
      ],
      [
        ["pad", "M", {}],
        ["pad", "M", { axis: 0, before: 0, after: 0 }],
      ],
      [
        ["pad", "w", { after: 4 }],
        ["pad", "w", { axis: 0, before: 0, after: 4 }],
      ],
      [
        ["leaky_relu", "w", { slope: -0.25 }],
        ["leaky_relu", "w", { slope: -0.25 }],
      ],
      [
        ["batch_row", ["batch_stack", "x"]],
        ["batch_row", ["batch_stack", "x"]],
      ],
      [
        ["mean", ["batch_stack", "x"], { axis: 0 }],
        ["mean", ["batch_stack", "x"], { axis: 0 }],
      ],
    ];
    for (const [given, expected] of forms) expect(written(given)).toEqual(["sum", expected, { axis: null }]);
    // two slopes, two places: four nodes
    const twice = (a: object, b: object, op: string) => {
      const loss = ["sum", ["add", [op, "w", a], [op, "w", b]]];
      return parseModel({ params: { w: [3] }, inputs: {}, loss }).toJSON().let;
    };
    expect(twice({ slope: 0.1 }, { slope: 0.2 }, "leaky_relu")).toBeUndefined();
    expect(twice({ start: 0, stop: 2 }, { start: 1, stop: 3 }, "slice")).toBeUndefined();
    expect(twice({ before: 1 }, { after: 1 }, "pad")).toBeUndefined();
    expect(twice({ before: 1 }, { before: 1, after: 0, axis: -1 }, "pad")).toHaveLength(1);
  });

  test("a loss that couples its samples is written before any size is known, and serves all", () => {
    const net = parseModel({ ...everything, loss: ["sum", everything.loss] });
    const before = net.toJSON();
    const sized = (N: number) => ({
      x: Array.from({ length: 2 * N }, (_, i) => Math.sin(i)),
      y: Array.from({ length: 3 * N }, (_, i) => Math.cos(i)),
    });
    for (const N of [1, 2, 5])
      expect(bitsOf(reread(net), sized(N), someTheta)).toBe(bitsOf(net, sized(N), someTheta));
    expect(net.toJSON()).toEqual(before);
    expect(reread(net).toJSON()).toEqual(before);
  });

  test("a node shared by exponentially many paths stays one node", () => {
    const lets: [string, unknown][] = [["z0", ["tanh", "w"]]];
    for (let i = 1; i <= 60; i++) lets.push([`z${i}`, ["mul", `z${i - 1}`, `z${i - 1}`]]);
    const net = parseModel({ params: { w: [] }, inputs: {}, let: lets, loss: "z60" });
    expect(net.toJSON().let).toHaveLength(60);
    expect(reread(net).toJSON()).toEqual(net.toJSON());
  });

  /** tanh w is used twice and comes last, so that a let moves it in front of the other users of w. */
  const reordered = {
    params: { w: [] },
    inputs: { x: [] },
    loss: [
      "add",
      ["mul", ["exp", "w"], "x"],
      [
        "add",
        ["mul", ["sigmoid", "w"], "x"],
        ["add", ["square", ["tanh", "w"]], ["mul", ["tanh", "w"], "x"]],
      ],
    ],
  };
  test("the order of the sums behind a gradient does not depend on what a let moved to the front", () => {
    const net = parseModel(reordered);
    const again = reread(net);
    const x = [1.1, 2.2, -0.3, 0.4, 0.5, 0.6];
    const thetas = Array.from({ length: 200 }, (_, k) => [0.1 + 0.00137 * k]);
    const different = thetas.filter((theta) => bitsOf(net, { x }, theta) !== bitsOf(again, { x }, theta));
    expect(different).toEqual([]);
  });

  /** How deep the arrays of a JSON text nest. */
  const deepest = (text: string): number => {
    let [level, most] = [0, 0];
    for (const c of text) {
      if (c === "[") most = Math.max(most, ++level);
      else if (c === "]") level--;
    }
    return most;
  };

  test.each([1, 99, 100, 101, 50_000])("a chain of %i ops, read nested and written in pieces", (depth) => {
    let loss: unknown = "w";
    let expected = 1.5;
    for (let i = 0; i < depth; i++) {
      loss = ["tanh", loss];
      expected = Math.tanh(expected);
    }
    const net = parseModel({ params: { w: [] }, inputs: {}, loss });
    const again = reread(net);
    expect(again.toJSON()).toEqual(net.toJSON());
    // an array for let, one for its entry, and at most 100 of expressions
    expect(deepest(JSON.stringify(net))).toBeLessThanOrEqual(102);
    const problem = engine.problem(again, {});
    // each of `depth` functions is off by at most 3 units in the last place, and none enlarges what came before
    expect(Math.abs(problem.loss([1.5]) / expected - 1)).toBeLessThanOrEqual(depth * 6 * 2 ** -53);
    problem.dispose();
  });

  test("a chain of 50,000 scales, whose product is exact in any order", () => {
    let loss: unknown = "w";
    for (let i = 0; i < 50_000; i++) loss = ["scale", loss, i % 3 === 0 ? 4 : 0.5];
    const net = parseModel({ params: { w: [] }, inputs: {}, loss });
    expect(reread(net).toJSON()).toEqual(net.toJSON());
    // 16,667 times 4 and 33,333 times 1/2
    expect(bitsOf(reread(net), {}, [1.5])).toBe("3 2");
  });

  test("two scales whose product overflows or underflows keep the value that their order has", () => {
    const twice = (c: number) =>
      parseModel({ params: { w: [] }, inputs: {}, loss: ["scale", ["scale", "w", c], c] });
    const loss = (net: Model, w: number): number => engine.problem(net, {}).loss([w]);
    // two roundings of half a unit each
    expect(Math.abs(loss(twice(1e200), 1e-300) / 1e100 - 1)).toBeLessThanOrEqual(2 ** -51);
    expect(Math.abs(loss(twice(1e-200), 1e300) / 1e-100 - 1)).toBeLessThanOrEqual(2 ** -51);
  });

  test("a chain of 20,000 lets, each used by the next", () => {
    const lets: [string, unknown][] = Array.from({ length: 20_000 }, (_, i) => [
      `z${i}`,
      ["add", i === 0 ? "w" : `z${i - 1}`, 0.5],
    ]);
    const net = parseModel({ params: { w: [] }, inputs: {}, let: lets, loss: "z19999" });
    const problem = engine.problem(net, {});
    expect(problem.loss([1])).toBe(10_001);
    problem.dispose();
    expect(reread(net).toJSON()).toEqual(net.toJSON());
  });

  test("the builder and the file make the same model", () => {
    const fromFile = parseModel({ ...everything, loss: ["sum", everything.loss] });
    expect(built().toJSON()).toEqual(fromFile.toJSON());
    expect(bitsOf(built(), someData, someTheta)).toBe(bitsOf(fromFile, someData, someTheta));
  });

  test("JSON text and the object it holds make the same model", () => {
    const file = { params: { w: [2] }, inputs: {}, loss: ["sqnorm", "w"] };
    expect(parseModel(JSON.stringify(file)).toJSON()).toEqual(parseModel(file).toJSON());
  });

  test("samplers, with noise of every kind, constants and a shared node", () => {
    const file = {
      schema: "noetherflow-sampler/1",
      noise: {
        z: { kind: "normal", shape: [2] },
        u: { kind: "uniform", shape: [] },
        s: { kind: "sign", shape: [2] },
        i: { kind: "index", shape: [], below: 5 },
      },
      constants: { c: { shape: [2], values: [0.5, 2] } },
      let: [["t0", ["mul", "z", "c"]]],
      outputs: { x: ["add", "t0", "s"], y: ["sum", ["mul", "t0", ["add", "u", "i"]], { axis: null }] },
    };
    expect(parseSampler(file).toJSON()).toEqual(file);
    expect(parseSampler(JSON.stringify(parseSampler(file))).toJSON()).toEqual(file);
    const made = sampler({
      noise: {
        z: { kind: "normal", shape: [2] },
        u: { kind: "uniform", shape: [] },
        s: { kind: "sign", shape: [2] },
        i: { kind: "index", shape: [], below: 5 },
      },
      constants: { c: [0.5, 2] },
      outputs: ({ z, u, s, i, c }) => {
        const t = ops.mul(z, c);
        return { x: ops.add(t, s), y: ops.sum(ops.mul(t, ops.add(u, i))) };
      },
    });
    expect(made.toJSON()).toEqual(file);
  });
});

describe("names", () => {
  const odd = ["constructor", "toString", "hasOwnProperty", "valueOf", "prototype", "π", "x'", "_", "a.b"];

  test("that objects inherit are ordinary names of parameters, inputs, constants and lets", () => {
    for (const name of odd) {
      const asParameter = parseModel({ params: { [name]: [2] }, inputs: {}, loss: ["sqnorm", name] });
      expect(bitsOf(asParameter, {}, { [name]: [3, 4] })).toBe("25 6 8");
      expect(Object.keys(engine.problem(asParameter, {}).named([3, 4]))).toEqual([name]);
      const asInput = parseModel({ params: { w: [] }, inputs: { [name]: [] }, loss: ["mul", "w", name] });
      expect(bitsOf(asInput, { [name]: [3] }, [2])).toBe("6 3");
      const constants = { [name]: 5 };
      const asConstant = parseModel({ params: { w: [] }, inputs: {}, constants, loss: ["mul", "w", name] });
      expect(bitsOf(asConstant, {}, [2])).toBe("10 5");
      const asLet = parseModel({ params: { w: [] }, inputs: {}, let: [[name, ["square", "w"]]], loss: name });
      expect(bitsOf(asLet, {}, [2])).toBe("4 4");
      for (const net of [asParameter, asInput, asConstant, asLet])
        expect(reread(net).toJSON()).toEqual(net.toJSON());
    }
  });

  test("that no file declares are not found on objects", () => {
    for (const name of odd)
      expect(() => parseModel({ params: { w: [] }, inputs: {}, loss: name })).toThrow(
        "model.loss: expected a parameter, input, constant or let name",
      );
    for (const op of odd)
      expect(() => parseModel({ params: { w: [] }, inputs: {}, loss: [op, "w"] })).toThrow(
        "model.loss: expected [op, arguments...] with a known op",
      );
    for (const option of ["constructor", "toString"])
      expect(() =>
        parseModel({ params: { w: [] }, inputs: {}, loss: ["sum", "w", { [option]: 0 }] }),
      ).toThrow("model.loss: options of sum are axis, keepdims");
  });

  test("__proto__ is refused wherever a name stands", () => {
    const refused = "a name is a letter or _";
    const places: Record<string, string> = {
      params: '{"params":{"__proto__":[1]},"inputs":{},"loss":1}',
      inputs: '{"params":{"w":[]},"inputs":{"__proto__":[1]},"loss":"w"}',
      constants: '{"params":{"w":[]},"inputs":{},"constants":{"__proto__":1},"loss":"w"}',
      let: '{"params":{"w":[]},"inputs":{},"let":[["__proto__","w"]],"loss":"w"}',
    };
    for (const [place, text] of Object.entries(places)) {
      expect(() => parseModel(text), place).toThrow(refused);
    }
    expect(() =>
      parseSampler('{"noise":{"__proto__":{"kind":"sign","shape":[]}},"outputs":{"x":1}}'),
    ).toThrow(refused);
    expect(() => parseSampler('{"noise":{},"outputs":{"__proto__":1}}')).toThrow(refused);
    const key = '{"params":{"w":[]},"inputs":{},"loss":"w","__proto__":{"loss":1}}';
    expect(() => parseModel(key)).toThrow("the keys of a model file are");
    expect(({} as Record<string, unknown>).loss).toBeUndefined();
  });

  test("of 64 characters pass, of 65 do not", () => {
    const net = (n: number) =>
      parseModel({ params: { ["w".repeat(n)]: [] }, inputs: {}, loss: "w".repeat(n) });
    expect(net(64).blocks[0]!.name).toHaveLength(64);
    expect(() => net(65)).toThrow("64 at most");
  });

  test("a constant of the model keeps its values when a generator brings one of the same name", async () => {
    const { symmetry } = await import("../../src/index.ts");
    const net = parseModel({
      params: { U: [2, 2] },
      inputs: {},
      constants: {
        "generator'": [
          [1, 2],
          [2, 5],
        ],
        generator: [
          [7, 8],
          [8, 9],
        ],
      },
      loss: ["sum", ["mul", "U", ["add", "generator", "generator'"]]],
    });
    const problem = engine.problem(net, {});
    const identity = symmetry.generator({
      blocks: {
        U: {
          left: [
            [1, 0],
            [0, 1],
          ],
        },
      },
    });
    // C = 1/2 |U|^2
    expect(problem.charge([1, 2, 3, 4], identity)).toBe(15);
    expect(problem.loss([1, 0, 0, 0])).toBe(8);
    problem.dispose();
  });
});

describe("limits", () => {
  const chain = (n: number): unknown => {
    let loss: unknown = "w";
    for (let i = 1; i < n; i++) loss = ["scale", loss, 0.5];
    return loss;
  };

  test("100,000 nodes pass, 100,001 do not, nested or spread over lets", () => {
    const file = (loss: unknown, lets?: unknown) => ({
      params: { w: [] },
      inputs: {},
      ...(lets ? { let: lets } : {}),
      loss,
    });
    const refused = "a model may have at most 100000 nodes, got more";
    expect(parseModel(file(chain(100_000))).loss.op).toBe("scale");
    expect(() => parseModel(file(chain(100_001)))).toThrow(`model.loss: ${refused}`);
    const lets = (n: number) => Array.from({ length: n }, (_, i) => [`z${i}`, "w"]);
    expect(parseModel(file("w", lets(99_999))).loss.op).toBe("param");
    expect(() => parseModel(file("w", lets(100_000)))).toThrow(`model.loss: ${refused}`);
    expect(() => parseModel(file("w", lets(100_001)))).toThrow(`model.let[100000][1]: ${refused}`);
  });

  /** Linear work takes 0.1 to 0.4 s for each of these files, quadratic work more than 20 s. */
  const LINEAR_MS = 5000;

  test("reading takes time in proportion to the file, however it nests", () => {
    const file = { params: { w: [] }, inputs: {}, loss: chain(99_000) };
    const began = performance.now();
    parseModel(file);
    expect(performance.now() - began).toBeLessThan(LINEAR_MS);
  });

  test.each(["params", "inputs", "constants"])("100,000 %s are read in proportion too", (place) => {
    const many = Array.from({ length: 100_000 }, (_, i) => [`n${i}`, place === "constants" ? 1 : []]);
    const file = { params: { w: [] }, inputs: {}, loss: 1, [place]: Object.fromEntries(many) };
    const began = performance.now();
    parseModel(file);
    expect(performance.now() - began).toBeLessThan(LINEAR_MS);
  });

  test("what cannot fit is refused before anything of its size is made", () => {
    const one =
      (params: object, loss: unknown = 1, more: object = {}) =>
      () =>
        parseModel({ params, inputs: {}, loss, ...more });
    const began = performance.now();
    expect(one({ w: [20_000, 20_000] })).toThrow("a value may have at most 268435456 entries");
    expect(one({ w: [Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER] })).toThrow(
      "at most 268435456 entries",
    );
    expect(one({ a: [268_435_456], b: [268_435_456], c: [1] })).toThrow(
      "model: parameters and one sample must fit in 4 GiB (at most 536870912 entries), got 536870913 entries.",
    );
    const wide = ["broadcast_to", "w", { shape: [20_000, 1] }];
    expect(
      one({ w: [] }, [
        "sqnorm",
        ["outer", ["reshape", wide, { shape: [20_000] }], ["reshape", wide, { shape: [20_000] }]],
      ]),
    ).toThrow(
      "model.loss[1]: a value may have at most 268435456 entries, got outer of shape [20000, 20000].",
    );
    expect(one({ w: [] }, ["sum", ["add", wide, ["transpose", wide]]])).toThrow(
      "add of shape [20000, 20000]",
    );
    expect(one({ w: [] }, 1, { constants: { c: { shape: [16_384, 16_384], values: [1] } } })).toThrow(
      "model.constants.c: expected 268435456 numbers, shape [16384, 16384], got 1.",
    );
    // 2 GiB of zeros alone would take longer
    expect(performance.now() - began).toBeLessThan(200);
  });

  test("a constant of the wrong size is counted before room for it is made", () => {
    const original = globalThis.Float64Array;
    const sizes: number[] = [];
    // only lengths are of interest: every array made from a number is noted
    globalThis.Float64Array = new Proxy(original, {
      construct(target, args, newTarget) {
        if (typeof args[0] === "number") sizes.push(args[0]);
        return Reflect.construct(target, args, newTarget);
      },
    });
    try {
      expect(() =>
        parseModel({
          params: { w: [] },
          inputs: {},
          constants: { c: { shape: [4096, 4096], values: [1] } },
          loss: 1,
        }),
      ).toThrow("expected 16777216 numbers");
    } finally {
      globalThis.Float64Array = original;
    }
    expect(sizes.filter((n) => n > 1000)).toEqual([]);
  });
});

// --- every message ---------------------------------------------------------------------------------------------

/** `expected` of every error some row below produced. */
const seen: string[] = [];

function refusal(make: () => unknown): NoetherflowError {
  try {
    make();
  } catch (error) {
    if (error instanceof NoetherflowError) {
      seen.push(error.expected);
      return error;
    }
    throw error;
  }
  throw new Error("nothing was refused");
}

type Row = [what: string, make: () => unknown, code: string, message: string | RegExp];

const file =
  (loss: unknown, more: object = {}) =>
  () =>
    parseModel({ params: { w: [2], M: [2, 3], s: [] }, inputs: { x: [3] }, loss, ...more });
const random =
  (more: object = {}) =>
  () =>
    parseSampler({ noise: { z: { kind: "normal", shape: [2] } }, outputs: { x: "z" }, ...more });
const builder = (loss: (v: { w: never; M: never; s: never; x: never }) => unknown) => () =>
  model({ params: { w: [2], M: [2, 3], s: [] }, inputs: { x: [3] }, loss: loss as never });
const other = model({ params: { v: [] }, inputs: {}, loss: ({ v }) => v });
const nested = (n: number): unknown => {
  let value: unknown = 1;
  for (let i = 0; i < n; i++) value = [value];
  return value;
};
const NAME = "a name is a letter or _, then letters, digits, _, . or ' (64 at most)";
const SHAPE = "a shape is an array of at most two positive integers";

const rows: Record<string, Row[]> = {
  "a model file": [
    ["text that is no JSON", () => parseModel("{"), "shape", /^model: expected JSON \(.*\)\.$/],
    [
      "expressions that are none",
      () =>
        model({ params: { a: [] }, inputs: {}, loss: ({ a }) => a }).readExpressions("values", null as never),
      "shape",
      "values: expected { constants?, let?, of: expressions by name }, got null.",
    ],
    [
      "a number",
      () => parseModel(3),
      "shape",
      "model: a model file is an object with params, inputs and loss, got 3.",
    ],
    [
      "null",
      () => parseModel(null),
      "shape",
      "model: a model file is an object with params, inputs and loss, got null.",
    ],
    [
      "an unknown key",
      file("s", { lett: [] }),
      "name",
      /^model: the keys of a model file are schema, params, inputs, constants, let, loss, got "lett"\./,
    ],
    [
      "another version",
      file("s", { schema: "noetherflow-model/2" }),
      "version",
      'model.schema: this version reads "noetherflow-model/1", got "noetherflow-model/2".',
    ],
    ["no loss", file(undefined), "shape", "model.loss: expected an expression, got nothing."],
    [
      "params that are no object",
      file("s", { params: [2] }),
      "shape",
      "model.params: expected an object of shapes, got [2].",
    ],
    [
      "no parameters",
      file(1, { params: {} }),
      "shape",
      "model.params: a model has at least one parameter, got none.",
    ],
    [
      "a parameter with a misspelt key",
      file("s", { params: { w: { shape: [1], train: true } } }),
      "name",
      'model.params.w: a parameter is a shape or { shape, trainable }, got "train".',
    ],
    [
      "trainable that is no truth value",
      file("s", { params: { w: { shape: [1], trainable: 1 } } }),
      "range",
      "model.params.w: trainable must be true or false, got 1.",
    ],
    [
      "inputs that are no object",
      file("s", { inputs: null }),
      "shape",
      "model.inputs: expected an object of shapes (it may be empty), got null.",
    ],
    [
      "constants that are no object",
      file("s", { constants: 3 }),
      "shape",
      "model.constants: expected an object of constants, got 3.",
    ],
    [
      "more than 4 GiB of parameters",
      file("s", { params: { a: [268435456], b: [268435456], c: [1] } }),
      "memory",
      "model: parameters and one sample must fit in 4 GiB (at most 536870912 entries), got 536870916 entries.",
    ],
    [
      "a loss with a shape",
      file(["tanh", "w"]),
      "shape",
      "model.loss: the loss of one sample must be a scalar, shape [], got tanh(...) [2], shape [2]. Sum it (ops.sum, ops.sqnorm) or take its mean.",
    ],
    [
      "a loss that is a parameter with a shape",
      file("w"),
      "shape",
      "model.loss: the loss of one sample must be a scalar, shape [], got w [2], shape [2]. Sum it (ops.sum, ops.sqnorm) or take its mean.",
    ],
    [
      "let that is no array",
      file("s", { let: {} }),
      "shape",
      /^model\.let: expected an array of \[name, expression\], got an object/,
    ],
    [
      "a let that is no pair",
      file("s", { let: [["a", "s"], ["b"]] }),
      "shape",
      "model.let[1]: expected [name, expression], got an array of 1.",
    ],
    [
      "a let with an error inside",
      file("s", { let: [["a", ["add", "s", ["tanh", "q"]]]] }),
      "name",
      'model.let[0][1][2][1]: expected a parameter, input, constant or let name, got "q". Did you mean "w"?',
    ],
    [
      "a let that uses a later one",
      file("a", {
        let: [
          ["a", "b2"],
          ["b2", "s"],
        ],
      }),
      "name",
      /^model\.let\[0\]\[1\]: expected a parameter, input, constant or let name, got "b2"\./,
    ],
    [
      "a deep let",
      file("z", { let: [["z", ["tanh", ["tanh", ["tanh", ["tanh", ["tanhh", "s"]]]]]]] }),
      "name",
      'model.let[0][1][1][1][1][1]: expected [op, arguments...] with a known op, got "tanhh". Did you mean "tanh"?',
    ],
  ],
  "a name": [
    ["that is empty", file("s", { params: { "": [1] } }), "name", `model.params.: ${NAME}, got "".`],
    [
      "that begins with a digit",
      file("s", { let: [["1a", "s"]] }),
      "name",
      `model.let[0]: ${NAME}, got "1a".`,
    ],
    ["that is no text", file("s", { let: [[3, "s"]] }), "name", `model.let[0]: ${NAME}, got 3.`],
    ["with a space", file("s", { inputs: { "a b": [1] } }), "name", `model.inputs.a b: ${NAME}, got "a b".`],
    [
      "given to a parameter and an input",
      file("s", { inputs: { w: [1] } }),
      "name",
      'model.inputs.w: names must be distinct, got "w". Rename one of the two.',
    ],
    [
      "given to a parameter and a constant",
      file("s", { constants: { w: 1 } }),
      "name",
      'model.constants.w: names must be distinct, got "w". Rename one of the two.',
    ],
    [
      "given to an input and a let",
      file("s", { let: [["x", "s"]] }),
      "name",
      'model.let[0]: names must be distinct, got "x". Rename one of the two.',
    ],
    [
      "given to two lets",
      file("s", {
        let: [
          ["a", "s"],
          ["a", "s"],
        ],
      }),
      "name",
      'model.let[1]: names must be distinct, got "a". Rename one of the two.',
    ],
  ],
  "a shape": [
    ["that is a number", file("s", { params: { w: 3 } }), "shape", `model.params.w: ${SHAPE}, got 3.`],
    ["with a zero", file("s", { params: { w: [0] } }), "shape", `model.params.w: ${SHAPE}, got [0].`],
    [
      "with a negative size",
      file("s", { inputs: { x: [-1] } }),
      "shape",
      `model.inputs.x: ${SHAPE}, got [-1].`,
    ],
    ["with a fraction", file("s", { params: { w: [1.5] } }), "shape", `model.params.w: ${SHAPE}, got [1.5].`],
    [
      "with NaN, which is named",
      file("s", { params: { w: [Number.NaN] } }),
      "shape",
      `model.params.w: ${SHAPE}, got [NaN].`,
    ],
    ["with text", file("s", { params: { w: ["2"] } }), "shape", /^model\.params\.w: a shape is an array/],
    [
      "of three axes",
      file("s", { params: { w: [2, 3, 4] } }),
      "shape",
      /^model\.params\.w: .* positive integers, got \[2, ?3, ?4\]\.$/,
    ],
    [
      "that nests 50,000 deep",
      file("s", { params: { w: nested(50_000) } }),
      "shape",
      /^model\.params\.w: a shape is an array/,
    ],
    [
      "that is missing",
      file("s", { params: { w: {} } }),
      "shape",
      `model.params.w: ${SHAPE}, got undefined.`,
    ],
    [
      "with too many entries",
      file("s", { params: { w: [20000, 20000] } }),
      "memory",
      /^model\.params\.w: a value may have at most 268435456 entries, got \[20000, ?20000\]\.$/,
    ],
  ],
  "a constant": [
    [
      "of too few numbers",
      file("s", { constants: { c: { shape: [2], values: [1] } } }),
      "shape",
      "model.constants.c: expected 2 numbers, shape [2], got 1.",
    ],
    [
      "of too many numbers",
      file("s", { constants: { c: { shape: [1], values: [1, 2] } } }),
      "shape",
      "model.constants.c: expected 1 numbers, shape [1], got 2.",
    ],
    [
      "in a typed array too long",
      file("s", { constants: { c: { shape: [1], values: new Float64Array(3) } } }),
      "shape",
      "model.constants.c: expected 1 numbers, shape [1], got 3.",
    ],
    [
      "with NaN",
      file("s", { constants: { c: [1, Number.NaN] } }),
      "nonfinite",
      "model.constants.c: values must be finite, got NaN at position 1.",
    ],
    [
      "with text",
      file("s", { constants: { c: [1, "2"] } }),
      "shape",
      'model.constants.c: expected 2 numbers, shape [2], got "2".',
    ],
    [
      "with rows of two lengths",
      file("s", { constants: { c: [[1, 2], [3]] } }),
      "shape",
      /^model\.constants\.c: expected 4 numbers, shape \[2, 2\], got (1|3|a row of 1.*)\.$/,
    ],
    [
      "of rank 3",
      file("s", { constants: { c: [[[1]]] } }),
      "shape",
      /^model\.constants\.c: a shape is an array of at most two positive integers, got \[1, ?1, ?1\]\.$/,
    ],
    ["that is empty", file("s", { constants: { c: [] } }), "shape", `model.constants.c: ${SHAPE}, got [0].`],
    [
      "nested too deep",
      file("s", { constants: { c: { shape: [1], values: nested(50_000) } } }),
      "shape",
      "model.constants.c: expected 1 numbers, shape [1], got arrays nested deeper than the shape.",
    ],
  ],
  "an expression": [
    [
      "with an unknown name",
      file("m"),
      "name",
      'model.loss: expected a parameter, input, constant or let name, got "m". Did you mean "M"?',
    ],
    [
      "with a name nothing is near to",
      file("weights"),
      "name",
      'model.loss: expected a parameter, input, constant or let name, got "weights".',
    ],
    [
      "with an unknown op",
      file(["tahn", "s"]),
      "name",
      'model.loss: expected [op, arguments...] with a known op, got "tahn". Did you mean "tanh"?',
    ],
    [
      "with the builder's name of an op",
      file(["geluTanh", "s"]),
      "name",
      'model.loss: expected [op, arguments...] with a known op, got "geluTanh". Did you mean "gelu_tanh"?',
    ],
    [
      "with an op that is internal",
      file(["batch_sum", "s"]),
      "name",
      /^model\.loss: expected \[op, arguments\.\.\.\] with a known op, got "batch_sum"\./,
    ],
    [
      "that is empty",
      file([]),
      "name",
      "model.loss: expected [op, arguments...] with a known op, got undefined.",
    ],
    [
      "that begins with a number",
      file([1, 2]),
      "name",
      "model.loss: expected [op, arguments...] with a known op, got 1.",
    ],
    [
      "that is null",
      file(null),
      "shape",
      "model.loss: expected a name, a number or [op, arguments...], got null.",
    ],
    [
      "with null inside",
      file(["add", "s", null]),
      "shape",
      "model.loss[2]: expected a name, a number or [op, arguments...], got null.",
    ],
    [
      "with NaN",
      file(["add", "s", Number.NaN]),
      "nonfinite",
      "model.loss[2]: a literal must be a finite number, got NaN.",
    ],
    [
      "with an infinity",
      file(Number.POSITIVE_INFINITY),
      "nonfinite",
      "model.loss: a literal must be a finite number, got Infinity.",
    ],
    ["with no argument", file(["tanh"]), "shape", "model.loss[1]: tanh takes 1 argument, got 0."],
    [
      "with one of two arguments",
      file(["add", "s"]),
      "shape",
      "model.loss[2]: add takes 2 arguments, got 1.",
    ],
    [
      "with an argument too many",
      file(["tanh", "s", "s"]),
      "shape",
      'model.loss: tanh takes 1 argument and then an object of options, got "s".',
    ],
    [
      "with something after the options",
      file(["add", "s", "s", { shapes: [[], [], []] }, 3]),
      "shape",
      /^model\.loss: add takes 2 arguments and then an object of options, got an object/,
    ],
    [
      "of scale without a number",
      file(["scale", "s"]),
      "range",
      "model.loss: scale takes a value and a finite number, got undefined.",
    ],
    [
      "of scale with two values",
      file(["scale", "s", "s"]),
      "range",
      'model.loss: scale takes a value and a finite number, got "s".',
    ],
    [
      "with an axis that is no number",
      file(["sum", "w", { axis: "0" }]),
      "range",
      'model.loss: axis must be an integer or null, got "0".',
    ],
    [
      "with an axis that is not there",
      file(["sum", "M", { axis: 2 }]),
      "range",
      "model.loss: sum of M [2, 3] takes an axis in [-2, 1] or null, got 2.",
    ],
    [
      "with a fraction of an axis",
      file(["mean", "w", { axis: 0.5 }]),
      "range",
      "model.loss: mean of w [2] takes an axis in [-1, 0] or null, got 0.5.",
    ],
    [
      "of softmax over no axis",
      file(["softmax", "w", { axis: null }]),
      "range",
      "model.loss: softmax of w [2] takes an axis in [-1, 0], got null.",
    ],
    [
      "with keepdims that is no truth value",
      file(["sum", "w", { keepdims: 1 }]),
      "range",
      "model.loss: keepdims must be true or false, got 1.",
    ],
    [
      "with a misspelt option",
      file(["sum", "w", { keepdim: true }]),
      "name",
      'model.loss: options of sum are axis, keepdims, got "keepdim". Did you mean "keepdims"?',
    ],
    [
      "with an option of another op",
      file(["tanh", "s", { axis: 0 }]),
      "name",
      'model.loss: tanh takes no options, got "axis".',
    ],
    [
      "of a binary op with an option",
      file(["add", "s", "s", { shape: [] }]),
      "name",
      'model.loss: options of add are shapes, got "shape". Did you mean "shapes"?',
    ],
    [
      "whose shapes contradict",
      file(["sum", ["add", "w", "w", { shapes: [[2], [2], [3]] }]]),
      "shape",
      /^model\.loss\[1\]: shapes should be \[\[2\],\[2\],\[2\]\], got /,
    ],
    [
      "whose shapes nest 50,000 deep",
      file(["add", "s", "s", { shapes: nested(50_000) }]),
      "shape",
      /^model\.loss: /,
    ],
    ["of reshape without a shape", file(["reshape", "w"]), "shape", "model.loss: reshape needs a shape."],
    [
      "of concat with nothing",
      file(["sum", ["concat", { axis: 0 }]]),
      "shape",
      "model.loss[1]: concat takes one argument or more, got none.",
    ],
    [
      "of concat with values of two ranks",
      file(["sum", ["concat", "w", "M"]]),
      "shape",
      "model.loss[1]: concat expects values of one rank that agree along all other axes, got w [2], M [2, 3].",
    ],
    [
      "of concat with rows of two lengths",
      file(["sum", ["concat", "M", "M", ["transpose", "M"]]]),
      "shape",
      "model.loss[1]: concat expects values of one rank that agree along all other axes, got M [2, 3], M [2, 3], transpose(...) [3, 2].",
    ],
    [
      "of concat with scalars",
      file(["sum", ["concat", "s", 2]]),
      "range",
      /^model\.loss\[1\]: concat of s \[\] takes an axis in .*, got 0\.$/,
    ],
    [
      "of concat along no axis",
      file(["sum", ["concat", "w", "w", { axis: null }]]),
      "range",
      "model.loss[1]: concat of w [2] takes an axis in [-1, 0], got null.",
    ],
    [
      "of concat with an option of another op",
      file(["sum", ["concat", "w", "w", "w", { start: 1 }]]),
      "name",
      'model.loss[1]: options of concat are axis, got "start".',
    ],
    [
      "of concat with something behind the options",
      file(["sum", ["concat", "w", { axis: 0 }, "w"]]),
      "shape",
      "model.loss[1][2]: expected a name, a number or [op, arguments...], got an object with keys axis.",
    ],
    [
      "of a slice behind the end",
      file(["sum", ["slice", "M", { axis: 1, start: 1, stop: 4 }]]),
      "shape",
      "model.loss[1]: slice expects at least 4 entries along axis 1, got M [2, 3].",
    ],
    [
      "of a slice before the beginning",
      file(["sum", ["slice", "w", { start: -1 }]]),
      "range",
      "model.loss[1]: slice needs start, an integer of at least 0, got -1.",
    ],
    [
      "of an empty slice",
      file(["sum", ["slice", "w", { start: 1, stop: 1 }]]),
      "range",
      "model.loss[1]: slice needs stop, an integer of at least 2, got 1.",
    ],
    [
      "of a slice from half an entry",
      file(["sum", ["slice", "w", { start: 0.5 }]]),
      "range",
      "model.loss[1]: slice needs start, an integer of at least 0, got 0.5.",
    ],
    [
      "of a slice from an entry named by text",
      file(["sum", ["slice", "w", { start: "1" }]]),
      "range",
      'model.loss[1]: start must be a number, got "1".',
    ],
    [
      "of a slice with a step",
      file(["sum", ["slice", "w", { step: 2 }]]),
      "name",
      'model.loss[1]: options of slice are axis, start, stop, got "step". Did you mean "stop"?',
    ],
    [
      "of a slice of a scalar",
      file(["slice", "s", { start: 0, stop: 1 }]),
      "range",
      /^model\.loss: slice of s \[\] takes an axis in .*, got 0\.$/,
    ],
    [
      "of pad by less than nothing",
      file(["sum", ["pad", "w", { after: -1 }]]),
      "range",
      "model.loss[1]: pad needs after, an integer of at least 0, got -1.",
    ],
    [
      "of pad by more than any memory",
      file(["sum", ["pad", "w", { before: 2 ** 28 }]]),
      "memory",
      "model.loss[1]: a value may have at most 268435456 entries, got pad of shape [268435458].",
    ],
    [
      "of pad by sizes whose sum is infinite, as the size of a batch is",
      file(["sum", ["pad", "w", { before: 1e308, after: 1e308 }]]),
      "range",
      "model.loss[1]: pad needs before, an integer of at least 0, got 1e+308.",
    ],
    [
      "of pad with null",
      file(["sum", ["pad", "w", { before: null }]]),
      "range",
      "model.loss[1]: before must be a number, got null.",
    ],
    [
      "of leaky_relu without a slope",
      file(["leaky_relu", "s"]),
      "range",
      "model.loss: leaky_relu needs slope, a finite number, got undefined.",
    ],
    [
      "of leaky_relu with a slope behind it, as scale has",
      file(["leaky_relu", "s", 0.1]),
      "shape",
      "model.loss: leaky_relu takes 1 argument and then an object of options, got 0.1.",
    ],
    [
      "of leaky_relu with an infinite slope",
      file(["leaky_relu", "s", { slope: Number.NEGATIVE_INFINITY }]),
      "range",
      "model.loss: leaky_relu needs slope, a finite number, got -Infinity.",
    ],
    [
      "of leaky_relu with a misspelt slope",
      file(["leaky_relu", "s", { slop: 0.1 }]),
      "name",
      'model.loss: options of leaky_relu are slope, got "slop". Did you mean "slope"?',
    ],
    [
      "that stacks matrices",
      file(["sum", ["batch_stack", ["mul", "M", "x"]]]),
      "shape",
      "model.loss[1]: batch_stack expects a vector per sample, got mul(...) [2, 3].",
    ],
    [
      "that stacks scalars",
      file(["sum", ["batch_stack", "s"]]),
      "shape",
      "model.loss[1]: batch_stack expects a vector per sample, got s [].",
    ],
    [
      "of a row of a matrix of literal size",
      file(["sum", ["batch_row", "M"]]),
      "shape",
      "model.loss[1]: batch_row expects a matrix with one row per sample of the batch, got M [2, 3].",
    ],
    [
      "of a row of a vector",
      file(["sum", ["batch_row", ["batch_mean", "x"]]]),
      "shape",
      "model.loss[1]: batch_row expects a matrix with one row per sample of the batch, got batch_mean(...) [3].",
    ],
    [
      "of a batch of a size of its own",
      file(["sum", ["batch_mean", "x", { count: 2 }]]),
      "name",
      'model.loss[1]: batch_mean takes no options, got "count".',
    ],
    [
      "of a stack by the size of its batch",
      file(["sum", ["reshape", ["batch_stack", "x"], { shape: [6] }]]),
      "shape",
      /^model\.loss\[1\]: reshape expects a value with 6 entries, got batch_stack\(\.\.\.\) \[.*, 3\]\.$/,
    ],
    [
      "with another op that is internal",
      file(["sum", ["batch_pick", ["batch_stack", "x"]]]),
      "name",
      /^model\.loss\[1\]: expected \[op, arguments\.\.\.\] with a known op, got "batch_pick"\./,
    ],
    [
      "of reshape with a wrong shape",
      file(["reshape", "w", { shape: [3] }]),
      "shape",
      "model.loss: reshape expects a value with 3 entries, got w [2].",
    ],
    [
      "of broadcast_to with a wrong shape",
      file(["broadcast_to", "w", { shape: [3] }]),
      "shape",
      "model.loss: broadcast_to expects a value that broadcasts to [3], got w [2].",
    ],
    [
      "of shapes that do not broadcast",
      file(["sum", ["mul", "w", "x"]]),
      "shape",
      "model.loss[1]: mul expects two shapes that broadcast, got w [2] and x [3].",
    ],
    [
      "of a product that does not fit",
      file(["matmul", "w", ["matmul", "x", "M"]]),
      "shape",
      "model.loss[2]: matmul expects operands of rank 1 or 2 whose inner sizes agree, got x [3] and M [2, 3].",
    ],
    [
      "of a product with a scalar",
      file(["matmul", "w", 2]),
      "shape",
      "model.loss: matmul expects operands of rank 1 or 2 whose inner sizes agree, got w [2] and 2.",
    ],
    [
      "that transposes a vector",
      file(["transpose", "w"]),
      "shape",
      "model.loss: transpose expects a matrix, got w [2].",
    ],
    [
      "of outer with a matrix",
      file(["outer", "M", "w"]),
      "shape",
      "model.loss: outer expects two vectors, got M [2, 3] and w [2].",
    ],
    [
      "of too many nodes",
      file(Array.from({ length: 50_000 }).reduce((e: unknown) => ["add", e, "s"], "s" as unknown)),
      "memory",
      "model.loss: a model may have at most 100000 nodes, got more.",
    ],
    [
      "of a value too large",
      file([
        "matmul",
        ["broadcast_to", "s", { shape: [20000, 1] }],
        ["broadcast_to", "s", { shape: [1, 20000] }],
      ]),
      "memory",
      "model.loss: a value may have at most 268435456 entries, got matmul of shape [20000, 20000].",
    ],
  ],
  "the builder": [
    [
      "null",
      () => model(null as never),
      "shape",
      "model: expected { params, inputs, constants?, loss: (values) => expression }, got null. To read a model file use parseModel.",
    ],
    [
      "a loss that is no function",
      () => model({ params: {}, inputs: {}, loss: ["tanh", "w"] } as never),
      "shape",
      "model: expected { params, inputs, constants?, loss: (values) => expression }, got an object with keys params, inputs, loss. To read a model file use parseModel.",
    ],
    [
      "a loss that gives a number",
      builder(() => 3),
      "shape",
      "model.loss: the loss must be an expression of this model's values, got 3.",
    ],
    [
      "a loss of another model",
      builder(() => other.loss),
      "shape",
      /^model\.loss: the loss must be an expression of this model's values, got an object/,
    ],
    [
      "a mixture of two models",
      builder(({ s }) => ops.add(s, other.loss)),
      "unsupported",
      "ops.add: all arguments must belong to one model, got nodes of two models. Build the expression inside one model's loss function.",
    ],
    [
      "text as a value",
      builder(() => ops.tanh("w" as never)),
      "range",
      'ops.tanh: expected values of the model, and finite numbers beside them, got "w".',
    ],
    [
      "NaN beside a value",
      builder(({ s }) => ops.add(s, Number.NaN)),
      "range",
      "ops.add: expected values of the model, and finite numbers beside them, got NaN.",
    ],
    [
      "two numbers",
      builder(() => ops.add(1, 2)),
      "range",
      "ops.add: expected values of the model, and finite numbers beside them, got 1.",
    ],
    [
      "shapes that do not broadcast",
      builder(({ w, x }) => ops.sub(w, x)),
      "shape",
      "ops.sub: sub expects two shapes that broadcast, got w [2] and x [3].",
    ],
    [
      "a product that does not fit",
      builder(({ M, w }) => ops.matmul(M, ops.tanh(w))),
      "shape",
      "ops.matmul: matmul expects operands of rank 1 or 2 whose inner sizes agree, got M [2, 3] and tanh(...) [2].",
    ],
    [
      "a reshape without a shape",
      builder(({ w }) => ops.reshape(w, undefined as never)),
      "shape",
      "ops.reshape: reshape needs a shape.",
    ],
    [
      "a reshape to a fraction",
      builder(({ w }) => ops.sum(ops.reshape(w, [0.5, 4]))),
      "shape",
      /^ops\.reshape: a shape is an array of at most two positive integers/,
    ],
    [
      "a reshape to rank 3",
      builder(({ w }) => ops.sum(ops.reshape(w, [1, 2, 1]))),
      "shape",
      /^ops\.reshape: a shape is an array of at most two positive integers/,
    ],
    [
      "a broadcast to a negative size",
      builder(({ s }) => ops.sum(ops.broadcastTo(s, [-1]))),
      "shape",
      /^ops\.broadcastTo: a shape is an array of at most two positive integers/,
    ],
    [
      "a scale by an infinity",
      builder(({ s }) => ops.scale(s, Number.POSITIVE_INFINITY)),
      "range",
      "ops.scale: scale needs a finite number, got Infinity.",
    ],
    [
      "a misspelt option",
      builder(({ w }) => ops.sum(w, { axes: 0 } as never)),
      "name",
      /^ops\.sum: .*"axes".* Did you mean "axis"\?$/,
    ],
    [
      "a misspelt option of an op of several words",
      builder(({ s }) => ops.leakyRelu(s, { slop: 1 } as never)),
      "name",
      'ops.leakyRelu: options are slope, got "slop". Did you mean "slope"?',
    ],
    [
      "no options where one is needed",
      builder(({ s }) => ops.leakyRelu(s, undefined as never)),
      "shape",
      "ops.leakyRelu: expected options slope, got undefined.",
    ],
    [
      "text as a value of an op of several words",
      builder(() => ops.geluErf("w" as never)),
      "range",
      'ops.geluErf: expected values of the model, and finite numbers beside them, got "w".',
    ],
    [
      "text as a row",
      builder(() => ops.batchStack("w" as never)),
      "range",
      'ops.batchStack: expected values of the model, and finite numbers beside them, got "w".',
    ],
    [
      "values side by side that are in no array",
      builder(({ w, x }) => (ops.concat as (...args: unknown[]) => never)(w, x)),
      "shape",
      /^ops\.concat: expected an array of values, got an object/,
    ],
    [
      "no values side by side",
      builder(() => ops.concat([])),
      "shape",
      "ops.concat: concat takes one argument or more, got 0.",
    ],
    [
      "a misspelt option of concat",
      builder(({ w, x }) => ops.concat([w, x], { axes: 0 } as never)),
      "name",
      'ops.concat: options are axis, got "axes". Did you mean "axis"?',
    ],
    [
      "an axis of concat that is not there",
      builder(({ w, x }) => ops.concat([w, x], { axis: 1 })),
      "range",
      "ops.concat: concat of w [2] takes an axis in [-1, 0], got 1.",
    ],
    [
      "a slice without options",
      builder(({ w }) => ops.slice(w, undefined as never)),
      "shape",
      "ops.slice: expected options axis, start, stop, got undefined.",
    ],
    [
      "a slice that ends in text",
      builder(({ w }) => ops.slice(w, { stop: "2" as never })),
      "range",
      'ops.slice: slice needs stop, an integer of at least 1, got "2".',
    ],
    [
      "a pad with a misspelt option",
      builder(({ w }) => ops.pad(w, { befor: 2 } as never)),
      "name",
      'ops.pad: options are axis, before, after, got "befor". Did you mean "before"?',
    ],
    [
      "a row of a parameter",
      builder(({ M }) => ops.batchRow(M)),
      "shape",
      "ops.batchRow: batch_row expects a matrix with one row per sample of the batch, got M [2, 3].",
    ],
    [
      "an op that is not in the table",
      () => apply("tanhh", [other.loss]),
      "name",
      'tanhh: expected an op of the table, got "tanhh". Did you mean "tanh"?',
    ],
    [
      "too few nodes for an op",
      () => apply("add", [other.loss]),
      "shape",
      "add: add takes 2 arguments, got 1.",
    ],
    ["a leaf that is not there", () => other.leaf("w"), "name", 'model: known names are v, got "w".'],
    ["a block that is not there", () => other.block("w"), "name", 'model: the parameters are v, got "w".'],
  ],
  "a sampler": [
    [
      "file that is no object",
      () => parseSampler(3),
      "shape",
      "sampler: a sampler file is an object with noise and outputs, got 3.",
    ],
    ["file that is no JSON", () => parseSampler("["), "shape", /^sampler: expected JSON \(.*\)\.$/],
    [
      "with an unknown key",
      random({ loss: 3 }),
      "name",
      'sampler: the keys of a sampler file are schema, noise, constants, let, outputs, got "loss".',
    ],
    [
      "of another version",
      random({ schema: "x" }),
      "version",
      'sampler.schema: this version reads "noetherflow-sampler/1", got "x".',
    ],
    [
      "without outputs",
      random({ outputs: undefined }),
      "shape",
      "sampler.outputs: expected an object of expressions, got undefined.",
    ],
    [
      "with no output",
      random({ outputs: {} }),
      "shape",
      "sampler.outputs: a sampler has at least one output, got none.",
    ],
    [
      "with an unknown name in an output",
      random({ outputs: { x: ["tanh", "zz"] } }),
      "name",
      'sampler.outputs.x[1]: expected a parameter, input, constant or let name, got "zz". Did you mean "z"?',
    ],
    [
      "with an output that is nothing",
      random({ outputs: { x: undefined } }),
      "shape",
      "sampler.outputs.x: expected an expression, got nothing.",
    ],
    [
      "with an output of a bad name",
      random({ outputs: { 1: "z" } }),
      "name",
      `sampler.outputs.1: ${NAME}, got "1".`,
    ],
    [
      "with noise that is no object",
      random({ noise: 3 }),
      "shape",
      "sampler.noise: expected an object of random leaves, got 3.",
    ],
    [
      "with a leaf that is no object",
      random({ noise: { z: [2] } }),
      "shape",
      "sampler.noise.z: a random leaf is { kind, shape, below? }, got [2].",
    ],
    [
      "with a leaf of too many keys",
      random({ noise: { z: { kind: "normal", shape: [2], sd: 1 } } }),
      "name",
      'sampler.noise.z: a random leaf is { kind, shape, below? }, got "sd".',
    ],
    [
      "with a leaf of no kind",
      random({ noise: { z: { shape: [2] } } }),
      "name",
      'sampler.noise.z: kind must be one of "normal", "uniform", "sign", "index", got undefined.',
    ],
    [
      "with a misspelt kind",
      random({ noise: { z: { kind: "Normal", shape: [2] } } }),
      "name",
      'sampler.noise.z: kind must be one of "normal", "uniform", "sign", "index", got "Normal". Did you mean "normal"?',
    ],
    [
      "with an index below nothing",
      random({ noise: { z: { kind: "index", shape: [] } } }),
      "range",
      "sampler.noise.z: below must be an integer in [1, 2147483648], got undefined.",
    ],
    [
      "with an index below 0",
      random({ noise: { z: { kind: "index", shape: [], below: 0 } } }),
      "range",
      "sampler.noise.z: below must be an integer in [1, 2147483648], got 0.",
    ],
    [
      "with a sign below something",
      random({ noise: { z: { kind: "sign", shape: [], below: 3 } } }),
      "name",
      "sampler.noise.z: only an index leaf has below, got 3.",
    ],
    [
      "with a leaf and a constant of one name",
      random({ constants: { z: 1 } }),
      "name",
      'sampler.constants.z: names must be distinct, got "z". Rename one of the two.',
    ],
    [
      "with an output that couples the samples",
      random({ outputs: { x: ["sub", "z", ["batch_mean", "z"]] } }),
      "unsupported",
      "sampler.outputs.x: samples are independent: batch_mean, batch_stack and batch_row belong in a model's loss, got sub(...) [2].",
    ],
    [
      "built from a number",
      () => sampler(3 as never),
      "shape",
      "sampler: expected { noise, constants?, outputs: (values) => expressions }, got 3. To read a sampler file use parseSampler.",
    ],
    [
      "whose function gives no object",
      () => sampler({ noise: {}, outputs: () => 3 as never }),
      "shape",
      "sampler.outputs: expected an object of expressions, got 3.",
    ],
    [
      "whose function gives a number",
      () => sampler({ noise: {}, outputs: () => ({ x: 3 as never }) }),
      "shape",
      "sampler.outputs.x: expected an expression of this sampler's values, got 3.",
    ],
    [
      "with an output of a model",
      () => sampler({ noise: {}, outputs: () => ({ x: other.loss }) }),
      "shape",
      /^sampler\.outputs\.x: expected an expression of this sampler's values, got an object/,
    ],
  ],
};

describe.each(Object.entries(rows))("refused: %s", (_, list) => {
  test.each(list)("%s", (_what, make, code, message) => {
    const error = refusal(make);
    expect(error.code).toBe(code);
    if (typeof message === "string") expect(error.message).toBe(message);
    else expect(error.message).toMatch(message);
    expect(error.message.startsWith(`${error.where}: ${error.expected}`)).toBe(true);
  });
});

test("a mistake of ours says internal, and asks for a report", async () => {
  const net = parseModel({ params: { w: [] }, inputs: { x: [] }, loss: ["mul", "w", "x"] });
  const { graph, loss } = net;
  const w = net.leaf("w");
  const unknown = graph.intern("mystery", [w], {}, [], w.varies, 0);
  // coupled by an op that no file can name
  const behindSum = apply("mul", [net.leaf("x"), apply("batch_sum", [loss], { count: 2 })]);
  const leaves = new Map([...net.blocks, ...net.inputs].map((b) => [b.name, net.leaf(b.name)]));
  const mixed = engine.problem(new Model(graph, net.blocks, net.inputs, leaves, behindSum), { x: [1, 3] });
  const mistakes: [() => unknown, string][] = [
    [() => gradient(unknown, [w], graph.number(1), 1), "internal: derive: op mystery has no vjp rule"],
    [
      () => tangent([unknown], new Map([[w, graph.number(1)]])),
      "internal: derive: op mystery has no jvp rule",
    ],
    [
      () => substitute([loss], new Graph(), new Map()),
      "internal: substitute: leaf param w has no replacement",
    ],
  ];
  for (const [make, sentence] of mistakes) {
    const error = refusal(make);
    expect(error.message).toBe(`${sentence}. Please report this with the model and options.`);
    expect(error.code).toBe("internal");
  }
  expect([...mixed.losses([2])]).toEqual([8, 24]);
  for (const lanes of ["replicas", "features"] as const)
    await expect(
      mixed.simulate({ scheme: "gd", theta: [1], eta: 0.1, steps: 1, lowering: { lanes } }),
    ).rejects.toThrow(
      "internal: lower: samples that are coupled go side by side in the lanes. Please report this with the model and options.",
    );
  mixed.dispose();
});

describe("no refusal goes unread", () => {
  const files = ["graph/node.ts", "graph/ops.ts", "graph/parse.ts", "graph/model.ts", "graph/sampler.ts"];
  /** Texts of `expected` in the source, what is inserted standing for anything. */
  const patterns: { at: string; pattern: RegExp }[] = [];
  const quoted = (text: string): string => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  const texts = (node: ts.Node): string[] => {
    if (ts.isStringLiteralLike(node)) return [quoted(node.text)];
    if (ts.isTemplateExpression(node))
      return [quoted(node.head.text) + node.templateSpans.map((s) => `.*${quoted(s.literal.text)}`).join("")];
    if (ts.isConditionalExpression(node)) return [...texts(node.whenTrue), ...texts(node.whenFalse)];
    return [];
  };
  for (const [path, text] of readSources()) {
    if (!files.includes(path)) continue;
    const source = parse(path, text);
    const visit = (node: ts.Node): void => {
      const called =
        (ts.isCallExpression(node) || ts.isNewExpression(node)) && ts.isIdentifier(node.expression)
          ? node.expression.text
          : "";
      const args = ts.isCallExpression(node) || ts.isNewExpression(node) ? node.arguments : undefined;
      const told = called === "fail" ? args?.[2] : called === "ShapeMismatch" ? args?.[0] : undefined;
      const line = source.getLineAndCharacterOfPosition(node.getStart(source)).line + 1;
      for (const t of told ? texts(told) : [])
        patterns.push({ at: `${path}:${line} ${t}`, pattern: new RegExp(t) });
      ts.forEachChild(node, visit);
    };
    visit(source);
  }

  test("every sentence of src/graph's reading side is produced by a row above", () => {
    // the rows run again, so that this test stands alone
    for (const [, make] of Object.values(rows).flat()) {
      try {
        refusal(make);
      } catch {
        // a row that fails says so in its own test
      }
    }
    expect(patterns.length).toBeGreaterThan(50);
    expect(patterns.filter(({ pattern }) => !seen.some((s) => pattern.test(s))).map(({ at }) => at)).toEqual(
      [],
    );
  });
});

afterAll(() => engine.dispose());

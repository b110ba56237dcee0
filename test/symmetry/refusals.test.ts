/** What the calls about symmetries refuse, each in a NoetherflowError that names the call: before any work, or by rejecting. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  createEngine,
  type Engine,
  models,
  NoetherflowError,
  ops,
  type Problem,
  sampler,
  symmetry,
} from "../../src/index.ts";
import { Draw } from "../helpers/ready.ts";

let engine: Engine;
let problem: Problem;
/** Samples drawn fresh, and samples that are coupled. */
let fresh: Problem;
let coupled: Problem;
const N = 6;
beforeAll(async () => {
  engine = await createEngine();
  const d = new Draw(1);
  const net = models.twoLayerLinear({ dx: 2, h: 2, dy: 2 });
  problem = engine.problem(net, { x: d.normals(2 * N), y: d.normals(2 * N) });
  fresh = engine.problem(
    net,
    sampler({
      noise: { x: { kind: "normal", shape: [2] }, y: { kind: "normal", shape: [2] } },
      outputs: ({ x, y }) => ({ x, y }),
    }),
  );
  coupled = engine.problem(models.batchNormNet({ dx: 2, h: 2, dy: 2 }), {
    x: d.normals(2 * N),
    y: d.normals(2 * N),
  });
});
afterAll(() => engine.dispose());

const theta = new Draw(2).normals(8);
const A = symmetry.rescaling("U", "W");
type Any = never;

async function messageOf(call: () => unknown): Promise<string> {
  try {
    await call();
  } catch (error) {
    expect(error).toBeInstanceOf(NoetherflowError);
    return (error as Error).message;
  }
  throw new Error("nothing was thrown");
}

/** Calls that read the strength of the noise. */
const withStrength: Readonly<Record<string, (on: Problem, options: unknown, theta?: unknown) => unknown>> = {
  noetherFlow: (on, options, at = theta) => on.noetherFlow(at as Any, A, options as Any),
  equilibrium: (on, options, at = theta) => on.equilibrium(at as Any, A, options as Any),
  chargeFlow: (on, options, at = theta) =>
    on.chargeFlow(at as Any, ops.sqnorm(on.model.leaf(on.model.blocks[0]!.name)), options as Any),
  matrixFlow: (on, options, at = theta) => on.matrixFlow(at as Any, "U", "W", options as Any),
  report: (on, options, at = theta) =>
    on.report(
      at as Any,
      typeof options === "object" && options !== null && !Array.isArray(options)
        ? ({ generators: { A }, ...options } as Any)
        : (options as Any),
    ),
};

describe.each(Object.entries(withStrength))("%s", (name, call) => {
  const both = { eta: 0.1, batchSize: 2 };
  const cases: readonly [string, unknown, string][] = [
    ["no options", undefined, "got undefined"],
    ["null", null, "got null"],
    ["a list", [0.1, 2], "got [0.1, 2]"],
    ["nothing in them", {}, "expected { eta, batchSize } or { sigma2 }"],
    ["no batch size", { eta: 0.1 }, "expected { eta, batchSize } or { sigma2 }"],
    ["no eta", { batchSize: 2 }, "expected { eta, batchSize } or { sigma2 }"],
    ["a misspelt name", { ...both, weightdecay: 1 }, 'got "weightdecay". Did you mean "weightDecay"?'],
    ["eta below 0", { eta: -1, batchSize: 2 }, "eta must be a finite number of at least 0, got -1."],
    ["eta NaN", { eta: Number.NaN, batchSize: 2 }, "eta must be a finite number of at least 0, got NaN."],
    ["batch size 0", { eta: 0.1, batchSize: 0 }, "batchSize must be an integer of at least 1, got 0."],
    ["half a sample", { eta: 0.1, batchSize: 1.5 }, "batchSize must be an integer of at least 1, got 1.5."],
    ["sigma2 below 0", { sigma2: -1 }, "sigma2 must be a finite number of at least 0, got -1."],
    ["sigma2 infinite", { sigma2: Infinity }, "sigma2 must be a finite number of at least 0, got Infinity."],
    ...(["eta", "batchSize"] as const).map((more): [string, unknown, string] => [
      `${more} beside sigma2`,
      { sigma2: 1, [more]: 1 },
      `sigma2 says it all, got ${more} beside it. Give { eta, batchSize } or { sigma2 }.`,
    ]),
    ["sampling beside sigma2", { sigma2: 1, sampling: "iid" }, "sigma2 says it all, got sampling beside it."],
    ["momentum beside sigma2", { sigma2: 1, momentum: 0 }, "sigma2 says it all, got momentum beside it."],
    ["decay below 0", { sigma2: 1, weightDecay: -1e-9 }, "weightDecay must be a finite number of at least 0"],
    [
      "decay as text",
      { sigma2: 1, weightDecay: "1" },
      'weightDecay must be a finite number of at least 0, got "1".',
    ],
    ["momentum 1", { ...both, momentum: 1 }, "momentum is below 1, got 1."],
    [
      "momentum below 0",
      { ...both, momentum: -0.5 },
      "momentum must be a finite number of at least 0, got -0.5.",
    ],
    [
      "an unknown sampling",
      { ...both, sampling: "epochs" },
      'sampling is "iid", "without" or "online", got "epochs".',
    ],
    [
      "more than N without replacement",
      { eta: 0.1, batchSize: N + 1, sampling: "without" },
      `without replacement a batch has at most N = ${N} samples of a finite set, got ${N + 1}.`,
    ],
  ];
  test.each(cases)("%s", async (_, options, message) => {
    const said = await messageOf(() => call(problem, options));
    expect(said.startsWith(`${name}: `), said).toBe(true);
    expect(said).toContain(message);
  });
  test.each([
    ["too short", [1, 2], `${name}: theta: expected 8 numbers, shape [8], got 2.`],
    ["NaN", [...theta.slice(1), Number.NaN], `${name}: theta: values must be finite, got NaN at position 7.`],
    [
      "blocks missing",
      { U: [1, 2, 3, 4] },
      `${name}: theta: expected values for U [2, 2], W [2, 2], got none for W.`,
    ],
    ["null", null, `${name}: theta: expected 8 values`],
  ])("a theta that is %s", async (_, at, message) => {
    const options = { eta: 0.1, batchSize: 2 };
    expect(await messageOf(() => call(problem, options, at))).toContain(message);
  });
  test("fresh samples, and samples that are coupled", async () => {
    const drawn = await messageOf(() => call(fresh, { eta: 0.1, batchSize: 2 }));
    expect(drawn).toContain(
      `${name}: this needs a finite set of samples, got a sampler of fresh samples. Make one: engine.problem(`,
    );
    const together = await messageOf(() => call(coupled, { eta: 0.1, batchSize: 2 }));
    expect(together.startsWith(`${name}: `), together).toBe(true);
    expect(together).toContain("batch");
  });
  test("a problem that was disposed of", async () => {
    const d = new Draw(5);
    const gone = engine.problem(models.twoLayerLinear({ dx: 2, h: 2, dy: 2 }), {
      x: d.normals(4),
      y: d.normals(4),
    });
    gone.dispose();
    expect(await messageOf(() => call(gone, { sigma2: 1 }))).toContain(
      `${name}: the problem was disposed of`,
    );
  });
});

describe("what one call alone reads", () => {
  const cases: readonly [string, () => unknown, string][] = [
    [
      "checkSymmetry, an unknown option",
      () => problem.checkSymmetry(A, { sed: 1 } as Any),
      'checkSymmetry: options are theta, seed, got "sed". Did you mean "seed"?',
    ],
    [
      "checkSymmetry, options null",
      () => problem.checkSymmetry(A, null as Any),
      "checkSymmetry: expected options { theta?, seed? }, got null.",
    ],
    [
      "checkSymmetry, a seed that is none",
      () => problem.checkSymmetry(A, { seed: Number.NaN }),
      "checkSymmetry: a seed is a string or a finite number",
    ],
    [
      "checkSymmetry, another theta",
      () => problem.checkSymmetry(A, { theta: [1] }),
      "checkSymmetry: theta: expected 8 numbers",
    ],
    [
      "checkSymmetry, fresh samples",
      () => fresh.checkSymmetry(A),
      "checkSymmetry: this needs a finite set of samples, got a sampler of fresh samples.",
    ],
    [
      "transform, lambda NaN",
      () => problem.transform(theta, A, Number.NaN),
      "transform: lambda must be a finite number, got NaN.",
    ],
    [
      "transform, no lambda",
      () => problem.transform(theta, A, undefined as Any),
      "transform: lambda must be a finite number, got undefined.",
    ],
    [
      "equilibrium, force of text",
      () => problem.equilibrium(theta, A, { sigma2: 1, force: "yes" as Any }),
      'equilibrium: force must be true or false, got "yes".',
    ],
    [
      "equilibrium, no symmetry",
      () => problem.equilibrium(theta, symmetry.scaling("U"), { sigma2: 1 }),
      "equilibrium: scaling of U is no exact symmetry of this loss, got a field along which the loss of some sample changes. See checkSymmetry; { force: true } computes it all the same.",
    ],
    [
      "noetherFlow, force",
      () => problem.noetherFlow(theta, A, { sigma2: 1, force: true } as Any),
      'noetherFlow: options are eta, batchSize, sigma2, weightDecay, sampling, momentum, got "force".',
    ],
    [
      "matrixFlow, an unknown block",
      () => problem.matrixFlow(theta, "U", "V", { sigma2: 1 }),
      'matrixFlow: the parameters are U, W, got "V"',
    ],
    [
      "matrixFlow, transposeW of text",
      () => problem.matrixFlow(theta, "U", "W", { sigma2: 1, transposeW: "no" as Any }),
      'matrixFlow: transposeW must be true or false, got "no".',
    ],
    [
      "report, an unknown option",
      () => problem.report(theta, { sigma2: 1, discovr: true } as Any),
      'report: options are eta, batchSize, sigma2, weightDecay, sampling, momentum, generators, discover, seed, lossAtRest, signal, onProgress, got "discovr". Did you mean "discover"?',
    ],
    [
      "report, nothing to report",
      () => problem.report(theta, { sigma2: 1, discover: false }),
      "report: expected generators, or discover: true, got neither.",
    ],
    [
      "report, no generators in the map",
      () => problem.report(theta, { sigma2: 1, generators: {} }),
      "report: expected generators, or discover: true, got neither.",
    ],
    [
      "report, a list of generators",
      () => problem.report(theta, { sigma2: 1, generators: [A] as Any }),
      "report: expected generators by name, got an array of 1.",
    ],
    [
      "report, generators null",
      () => problem.report(theta, { sigma2: 1, generators: null as Any }),
      "report: expected generators by name, got null.",
    ],
    [
      "report, no generator",
      () => problem.report(theta, { sigma2: 1, generators: { C: {} as Any } }),
      "report: generators.C: expected a generator",
    ],
    [
      "report, discover a number",
      () => problem.report(theta, { sigma2: 1, discover: 5 as Any }),
      "report: expected discover: true, false or options of discoverSymmetries, got 5.",
    ],
    [
      "report, discover null",
      () => problem.report(theta, { sigma2: 1, discover: null as Any }),
      "report: expected discover: true, false or options of discoverSymmetries, got null.",
    ],
    [
      "report, a seed that is none",
      () => problem.report(theta, { sigma2: 1, generators: { A }, seed: {} as Any }),
      "report: a seed is a string or a finite number",
    ],
    [
      "report, a signal that is none",
      () => problem.report(theta, { sigma2: 1, generators: { A }, signal: 3 as Any }),
      "report: signal is an AbortSignal, got 3.",
    ],
    [
      "report, progress to nobody",
      () => problem.report(theta, { sigma2: 1, generators: { A }, onProgress: 3 as Any }),
      "report: onProgress is a function, got 3.",
    ],
  ];
  test.each(cases)("%s", async (_, call, message) => {
    expect(await messageOf(call)).toContain(message);
  });
});

describe("an abort", () => {
  test.each([
    ["known generators", { generators: { A } }],
    ["a search", { discover: true }],
  ])("before a report of %s rejects with the reason of the signal", async (_, options) => {
    const reason = new Error("enough");
    await expect(
      problem.report(theta, { sigma2: 1, ...options, signal: AbortSignal.abort(reason) }),
    ).rejects.toBe(reason);
  });
  test("during a report comes between two of its rows", async () => {
    const controller = new AbortController();
    const reason = new Error("enough");
    const generators = Object.fromEntries(
      Array.from({ length: 400 }, (_, k) => [`A${k}`, symmetry.rescaling("U", "W")]),
    );
    const made = problem.report(theta, { sigma2: 1, generators, signal: controller.signal });
    setTimeout(() => controller.abort(reason), 1);
    await expect(made).rejects.toBe(reason);
  });
  test("so does the end of its problem", async () => {
    const d = new Draw(6);
    const short = engine.problem(models.twoLayerLinear({ dx: 2, h: 2, dy: 2 }), {
      x: d.normals(4),
      y: d.normals(4),
    });
    const made = short.report(theta, { sigma2: 1, generators: { A } });
    short.dispose();
    await expect(made).rejects.toThrow("report: the problem was disposed of");
  });
});

test("in f32 a theta beyond its range is refused by name", async () => {
  const single = await createEngine({ dtype: "f32" });
  const d = new Draw(7);
  const on = single.problem(models.twoLayerLinear({ dx: 2, h: 2, dy: 2 }), {
    x: d.normals(4),
    y: d.normals(4),
  });
  const huge = [1e39, ...theta.slice(1)];
  expect(() => on.checkSymmetry(A, { theta: huge })).toThrow(
    "checkSymmetry: theta: values must be finite in f32",
  );
  expect(() => on.noetherFlow(huge, A, { sigma2: 1 })).toThrow(
    "noetherFlow: theta: values must be finite in f32",
  );
  single.dispose();
});

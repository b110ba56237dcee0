/**
 * What the public border refuses, and the sentence it says: where, what was expected, what came, what to try. Every
 * refusal comes before any work and leaves no memory behind.
 */
import { afterAll, describe, expect, test } from "vitest";
import { checkInteger, checkNumber, NoetherflowError, nearest, show } from "../src/errors.ts";
import { createEngine, model, ops, parseModel, sampler, symmetry } from "../src/index.ts";

const N = 128;
const engine = await createEngine();
afterAll(() => engine.dispose());

const net = model({
  params: { u: [2], V: [2, 3] },
  inputs: { x: [3], y: [2] },
  loss: ({ u, V, x, y }) => ops.sqnorm(ops.sub(ops.mul(u, ops.matmul(V, x)), y)),
});
const data = {
  x: Float64Array.from({ length: 3 * N }, (_, i) => ((i * 7) % 11) / 11 - 0.5),
  y: Float64Array.from({ length: 2 * N }, (_, i) => ((i * 5) % 13) / 13 - 0.5),
};
const noise = sampler({
  noise: { x: { kind: "normal", shape: [3] }, y: { kind: "normal", shape: [2] } },
  outputs: ({ x, y }) => ({ x, y }),
});
const problem = engine.problem(net, data);
const fresh = engine.problem(net, noise);
const theta = [1, -1, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6];

type Message = string | RegExp;
type Row = [what: string, code: string, message: Message];

/** Checks the error of a call: one of ours, with this code and sentence, and nothing kept in memory. */
async function expectRefusal(call: () => unknown, code: string, message: Message): Promise<void> {
  const before = engine.bytesInUse;
  let error: unknown;
  try {
    await call();
  } catch (thrown) {
    error = thrown;
  }
  expect(error).toBeInstanceOf(NoetherflowError);
  const refusal = error as NoetherflowError;
  if (typeof message === "string") expect(refusal.message).toBe(message);
  else expect(refusal.message).toMatch(message);
  expect(refusal.code).toBe(code);
  const got = refusal.got === undefined ? "" : `, got ${refusal.got}`;
  const hint = refusal.hint === undefined ? "" : ` ${refusal.hint}`;
  expect(refusal.message).toBe(`${refusal.where}: ${refusal.expected}${got}.${hint}`);
  expect(engine.bytesInUse, "bytes kept").toBe(before);
}

describe("createEngine refuses", () => {
  const rows: [...Row, options: unknown][] = [
    ["null", "shape", "createEngine: expected { dtype?, variant? }, got null.", null],
    ["text", "shape", 'createEngine: expected { dtype?, variant? }, got "f32".', "f32"],
    [
      "an unknown dtype",
      "name",
      'createEngine: dtype must be one of "f64", "f32", got "f16". Did you mean "f64"?',
      { dtype: "f16" },
    ],
    [
      "an unknown variant",
      "name",
      /^createEngine: variant must be one of "simd".*, got "simt"\. Did you mean "simd"\?$/,
      { variant: "simt" },
    ],
    [
      "a dtype that is no text",
      "name",
      'createEngine: dtype must be one of "f64", "f32", got 64.',
      { dtype: 64 },
    ],
    [
      "a misspelt option",
      "name",
      'createEngine: options are dtype, variant, got "dtpye". Did you mean "dtype"?',
      { dtpye: "f32" },
    ],
  ];
  test.each(rows)("%s", (_, code, message, options) =>
    expectRefusal(() => createEngine(options as never), code, message),
  );
});

describe("engine.problem refuses", () => {
  const rows: [...Row, call: () => unknown][] = [
    [
      "nothing for a model",
      "shape",
      "problem: expected a model, got undefined. Make one with model({...}) or parseModel(json).",
      () => engine.problem(undefined as never, {}),
    ],
    [
      "a model file for a model",
      "shape",
      /^problem: expected a model, got an object with keys schema, params, inputs, loss\. Make one/,
      () => engine.problem(net.toJSON() as never, {}),
    ],
    [
      "null for data",
      "shape",
      "problem: data: expected { x, y } or a sampler, got null.",
      () => engine.problem(net, null as never),
    ],
    [
      "a sampler's file for a sampler",
      "name",
      /^problem: data: the inputs of the model are x, y, got "schema"\.$/,
      () => engine.problem(net, noise.toJSON() as never),
    ],
    [
      "options that are no object",
      "shape",
      /^problem: .*, got 5\.$/,
      () => engine.problem(net, data, 5 as never),
    ],
    [
      "a misspelt option",
      "name",
      'problem: options are samples, dataSeed, got "dataseed". Did you mean "dataSeed"?',
      () => engine.problem(net, noise, { dataseed: 3 } as never),
    ],
  ];
  test.each(rows)("%s", (_, code, message, call) => expectRefusal(call, code, message));
});

describe("a theta is refused", () => {
  const names = "u [2], V [2, 3]";
  const rows: [...Row, theta: unknown][] = [
    ["with too few values", "shape", "loss: theta: expected 8 numbers, shape [8], got 3.", [1, 2, 3]],
    ["with too many values", "shape", "loss: theta: expected 8 numbers, shape [8], got 9.", [...theta, 1]],
    [
      "typed, with too many values",
      "shape",
      /^loss: theta: expected 8 numbers, shape \[8\], got 9/,
      new Float64Array(9),
    ],
    [
      "with NaN",
      "nonfinite",
      "loss: theta: values must be finite, got NaN at position 2.",
      [1, 2, Number.NaN, 4, 5, 6, 7, 8],
    ],
    [
      "with an infinity, typed",
      "nonfinite",
      "loss: theta: values must be finite, got Infinity at position 0.",
      Float64Array.from(theta, (x, i) => (i === 0 ? 1 / 0 : x)),
    ],
    [
      "with text",
      "shape",
      'loss: theta: expected 8 numbers, shape [8], got "1".',
      ["1", 2, 3, 4, 5, 6, 7, 8],
    ],
    ["that is a number", "shape", `loss: theta: expected 8 values, or an object with ${names}, got 1.`, 1],
    ["that is null", "shape", `loss: theta: expected 8 values, or an object with ${names}, got null.`, null],
    [
      "that is missing",
      "shape",
      `loss: theta: expected 8 values, or an object with ${names}, got undefined.`,
      undefined,
    ],
    [
      "by blocks, without one",
      "name",
      `loss: theta: expected values for ${names}, got none for V.`,
      { u: [1, 2] },
    ],
    [
      "by blocks, with one that is not there",
      "name",
      'loss: theta: the parameters are u, V, got "v".',
      { u: [1, 2], v: [1] },
    ],
    [
      "by blocks, one too short",
      "shape",
      "loss: theta.V: expected 6 numbers, shape [2, 3], got 3.",
      { u: [1, 2], V: [1, 2, 3] },
    ],
    [
      "by blocks, one transposed",
      "shape",
      /^loss: theta\.V: expected 6 numbers, shape \[2, 3\], got /,
      {
        u: [1, 2],
        V: [
          [1, 2],
          [3, 4],
          [5, 6],
        ],
      },
    ],
    [
      "by blocks, one with NaN",
      "nonfinite",
      "loss: theta.u: values must be finite, got NaN at position 1.",
      { u: [1, Number.NaN], V: theta.slice(2) },
    ],
    [
      "by blocks, one null",
      "shape",
      "loss: theta.u: expected 2 numbers, shape [2], got null.",
      { u: null, V: theta.slice(2) },
    ],
  ];
  test.each(rows)("%s", (_, code, message, given) =>
    expectRefusal(() => problem.loss(given as never), code, message),
  );

  test("with the name of whoever asked", async () => {
    const short = [1, 2];
    const sentence = "theta: expected 8 numbers, shape [8], got 2.";
    await expectRefusal(() => problem.losses(short), "shape", `losses: ${sentence}`);
    await expectRefusal(() => problem.gradient(short), "shape", `gradient: ${sentence}`);
    await expectRefusal(() => problem.charge(short, symmetry.scaling("u")), "shape", `charge: ${sentence}`);
    await expectRefusal(() => problem.theta(short), "shape", `theta: ${sentence}`);
    await expectRefusal(() => problem.named(short), "shape", `named: ${sentence}`);
  });
});

describe("charge refuses", () => {
  const rows: [...Row, generator: unknown][] = [
    [
      "data for a generator",
      "shape",
      /^charge: expected a generator, got an object with keys blocks\. Make one with symmetry\./,
      { blocks: { u: { scalar: 1 } } },
    ],
    ["a block that is not there", "name", 'charge: the parameters are u, V, got "W".', symmetry.scaling("W")],
    [
      "a matrix of the wrong size",
      "shape",
      "charge: generator acts on V from the right with 2 x 2, got V of shape [2, 3].",
      symmetry.generator({
        blocks: {
          V: {
            right: [
              [1, 0],
              [0, 1],
            ],
          },
        },
      }),
    ],
    [
      "a matrix of the wrong size on the left",
      "shape",
      "charge: generator acts on u from the left with 1 x 1, got u of shape [2].",
      symmetry.generator({ blocks: { u: { left: [[1]] } } }),
    ],
    [
      "a dense generator of another model",
      "shape",
      "charge: a dense generator of this model is 8 x 8, got 4 entries.",
      symmetry.generator({
        dense: [
          [1, 0],
          [0, 1],
        ],
      }),
    ],
    [
      "a center of another model",
      "shape",
      /the center of a generator of this model has 8 entries, got 2( entries)?(, that of generator)?\.$/,
      symmetry.generator({ blocks: { u: { scalar: 1 } }, center: [1, 2] }),
    ],
  ];
  test.each(rows)("%s", (_, code, message, A) =>
    expectRefusal(() => problem.charge(theta, A as never), code, message),
  );
});

describe("simulate refuses", () => {
  const base = { scheme: "sgd", theta, eta: 0.1, steps: 10, batchSize: 2 };
  const A = symmetry.scaling("u");
  const run = (change: object, on = problem) => on.simulate({ ...base, ...change } as never);
  const gd = (change: object, on = problem) => run({ scheme: "gd", batchSize: undefined, ...change }, on);
  const record = (change: object, on = problem) => run({ record: { every: 5, ...change } }, on);

  const rows: [...Row, call: () => unknown][] = [
    [
      "no options",
      "shape",
      "simulate: expected an object of options, got undefined.",
      () => problem.simulate(undefined as never),
    ],
    [
      "null",
      "shape",
      "simulate: expected an object of options, got null.",
      () => problem.simulate(null as never),
    ],
    [
      "a misspelt option",
      "name",
      /^simulate: options are scheme, theta, eta, schedule, steps, .*, got "bachSize"\. Did you mean "batchSize"\?$/,
      () => run({ bachSize: 3 }),
    ],
    [
      "an option of other packages",
      "name",
      /^simulate: options are .*, got "lr"\. Did you mean "eta"\?$/,
      () => run({ lr: 0.1 }),
    ],
    [
      "no scheme",
      "name",
      /^simulate: scheme must be one of "gd", "sgd".*, got undefined\.$/,
      () => run({ scheme: undefined }),
    ],
    [
      "an unknown scheme",
      "name",
      /^simulate: scheme must be one of "gd", "sgd".*, got "SGD"\. Did you mean "sgd"\?$/,
      () => run({ scheme: "SGD" }),
    ],
    // theta
    [
      "no theta",
      "shape",
      "sgd: theta: expected 8 values, or an object with u [2], V [2, 3], got undefined.",
      () => run({ theta: undefined }),
    ],
    [
      "a theta too short",
      "shape",
      "sgd: theta: expected 8 numbers, shape [8], got 2.",
      () => run({ theta: [1, 2] }),
    ],
    [
      "a theta for three of two replicas",
      "shape",
      "sgd: theta: expected 8 numbers, shape [8], got 24.",
      () => run({ theta: [...theta, ...theta, ...theta], replicas: 2 }),
    ],
    [
      "two thetas for three replicas",
      "shape",
      "sgd: theta: expected one theta per replica (3), got 2.",
      () => run({ theta: [theta, theta], replicas: 3 }),
    ],
    [
      "one of several thetas too short",
      "shape",
      "sgd: replica 1: theta: expected 8 numbers, shape [8], got 1.",
      () => run({ theta: [theta, [1]], replicas: 2 }),
    ],
    [
      "one of several thetas without a block",
      "name",
      "sgd: replica 1: theta: expected values for u [2], V [2, 3], got none for V.",
      () => run({ theta: [theta, { u: [1, 2] }], replicas: 2 }),
    ],
    [
      "a theta with NaN",
      "nonfinite",
      "sgd: theta: values must be finite, got NaN at position 0.",
      () => run({ theta: theta.map((x, i) => (i === 0 ? Number.NaN : x)) }),
    ],
    // eta
    [
      "no eta",
      "range",
      "sgd: eta must be a finite number of at least 0, got undefined.",
      () => run({ eta: undefined }),
    ],
    [
      "a negative eta",
      "range",
      "sgd: eta must be a finite number of at least 0, got -0.1.",
      () => run({ eta: -0.1 }),
    ],
    [
      "an eta that is NaN",
      "range",
      "sgd: eta must be a finite number of at least 0, got NaN.",
      () => run({ eta: Number.NaN }),
    ],
    [
      "an infinite eta",
      "range",
      "sgd: eta must be a finite number of at least 0, got Infinity.",
      () => run({ eta: 1 / 0 }),
    ],
    [
      "text for eta",
      "range",
      'sgd: eta must be a finite number of at least 0, got "0.1".',
      () => run({ eta: "0.1" }),
    ],
    [
      "two etas for three replicas",
      "shape",
      "sgd: eta is one number or one per replica (3), got 2.",
      () => run({ eta: [0.1, 0.2], replicas: 3 }),
    ],
    [
      "one negative eta of three",
      "range",
      "sgd: eta of replica 1 must be a finite number of at least 0, got -1.",
      () => run({ eta: [0.1, -1, 0.2], replicas: 3 }),
    ],
    // steps
    [
      "no steps",
      "range",
      "sgd: steps must be an integer in [0, 4294967295], got undefined.",
      () => run({ steps: undefined }),
    ],
    [
      "negative steps",
      "range",
      "sgd: steps must be an integer in [0, 4294967295], got -1.",
      () => run({ steps: -1 }),
    ],
    [
      "half a step",
      "range",
      "sgd: steps must be an integer in [0, 4294967295], got 0.5.",
      () => run({ steps: 0.5 }),
    ],
    [
      "more steps than are counted",
      "range",
      "sgd: steps must be an integer in [0, 4294967295], got 4294967296.",
      () => run({ steps: 2 ** 32 }),
    ],
    // batchSize and sampling
    [
      "no batch size",
      "range",
      "sgd: batch size S must be an integer in [1, 1000000000], got undefined.",
      () => run({ batchSize: undefined }),
    ],
    [
      "a batch of 0 drawn with replacement",
      "range",
      "sgd: batch size S must be an integer in [1, 1000000000], got 0.",
      () => run({ batchSize: 0 }),
    ],
    [
      "a batch of 0 drawn without replacement",
      "range",
      "sgd: batch size S must be an integer in [1, N = 128], got 0.",
      () => run({ batchSize: 0, sampling: "without" }),
    ],
    [
      "a batch of 2.5",
      "range",
      "sgd: batch size S must be an integer in [1, N = 128], got 2.5.",
      () => run({ batchSize: 2.5, sampling: "without" }),
    ],
    [
      "a batch of more than N without replacement",
      "range",
      'sgd: batch size S must be an integer in [1, N = 128] without replacement, got 200. Use sampling: "iid", which may draw a sample twice.',
      () => run({ batchSize: 200, sampling: "without" }),
    ],
    [
      "an unknown sampling",
      "name",
      /^sgd: sampling must be one of "iid", "without", .*got "with"\.( Did you mean "without"\?)?$/,
      () => run({ sampling: "with" }),
    ],
    [
      "online draws from a data set",
      "unsupported",
      /^sgd: a finite data set is drawn "iid" or "without".*, got "online"\.$/,
      () => run({ sampling: "online" }),
    ],
    [
      "iid draws from fresh samples",
      "unsupported",
      'sgd: fresh samples are drawn "online", got "iid".',
      () => run({ sampling: "iid" }, fresh),
    ],
    [
      "a batch size for gd",
      "unsupported",
      /^gd: gd visits all N samples in every step; it takes no batchSize and no sampling\.$/,
      () => gd({ batchSize: 4 }),
    ],
    [
      "a sampling for gd",
      "unsupported",
      /^gd: gd visits all N samples in every step/,
      () => gd({ sampling: "iid" }),
    ],
    [
      "gd on fresh samples",
      "unsupported",
      "gd: gd needs a finite data set, got a sampler of fresh samples. Use momentMatched(sampler), or { samples: N }.",
      () => gd({}, fresh),
    ],
    // batches
    [
      "batches that are too few",
      "shape",
      "sgd: batches: expected 20 numbers, shape [10, 2], got 3.",
      () => run({ batches: [0, 1, 2] }),
    ],
    [
      "an index of N",
      "range",
      "sgd: batches: entry 3 must be an integer in [0, N - 1 = 127], got 128.",
      () =>
        run({
          steps: 2,
          batches: [
            [0, 1],
            [2, 128],
          ],
        }),
    ],
    [
      "a negative index",
      "range",
      "sgd: batches: entry 0 must be an integer in [0, N - 1 = 127], got -1.",
      () => run({ steps: 1, batches: [-1, 0] }),
    ],
    [
      "half an index",
      "range",
      "sgd: batches: entry 1 must be an integer in [0, N - 1 = 127], got 0.5.",
      () => run({ steps: 1, batches: [1, 0.5] }),
    ],
    [
      "batches that are no arrays",
      "shape",
      'sgd: batches: expected 20 numbers, shape [10, 2], got "all".',
      () => run({ batches: "all" }),
    ],
    [
      "batches for gd",
      "unsupported",
      "gd: explicit batches go with a scheme that draws from a finite data set.",
      () => gd({ batches: [0] }),
    ],
    [
      "batches of fresh samples",
      "unsupported",
      "sgd: explicit batches go with a scheme that draws from a finite data set.",
      () => run({ batches: [0] }, fresh),
    ],
    [
      "the batch loss of explicit batches",
      "unsupported",
      'record: loss: "batch" needs the batch after the last step, which explicit batches do not have. Record loss: "full".',
      () => run({ steps: 1, batches: [0, 1], record: { every: 1, loss: "batch" } }),
    ],
    // weightDecay, seed, replicas
    [
      "a negative weight decay",
      "range",
      "sgd: weightDecay must be a finite number of at least 0, got -0.01.",
      () => run({ weightDecay: -0.01 }),
    ],
    [
      "a weight decay that is NaN",
      "range",
      "sgd: weightDecay must be a finite number of at least 0, got NaN.",
      () => run({ weightDecay: Number.NaN }),
    ],
    [
      "two weight decays for one replica",
      "shape",
      "sgd: weightDecay is one number or one per replica (1), got 2.",
      () => run({ weightDecay: [0, 0.1] }),
    ],
    [
      "a seed that is an object",
      "range",
      "sgd: seed must be a string or a finite number, got an object with keys a.",
      () => run({ seed: { a: 1 } }),
    ],
    [
      "a seed that is NaN",
      "range",
      "sgd: seed must be a string or a finite number, got NaN.",
      () => run({ seed: Number.NaN }),
    ],
    [
      "no replicas",
      "range",
      "sgd: replicas must be an integer in [1, 1000000000], got 0.",
      () => run({ replicas: 0 }),
    ],
    [
      "half a replica",
      "range",
      "sgd: replicas must be an integer in [1, 1000000000], got 1.5.",
      () => run({ replicas: 1.5 }),
    ],
    [
      "a negative first replica",
      "range",
      "sgd: firstReplica must be an integer in [0, 4294967294], got -1.",
      () => run({ firstReplica: -1 }),
    ],
    [
      "a first replica beyond the counter",
      "range",
      "sgd: firstReplica must be an integer in [0, 4294967292], got 4294967293.",
      () => run({ firstReplica: 2 ** 32 - 3, replicas: 3 }),
    ],
    // record
    [
      "a record that is no object",
      "shape",
      "record: expected { every, ... }, got 5.",
      () => run({ record: 5 }),
    ],
    [
      "a record that is null",
      "shape",
      "record: expected { every, ... }, got null.",
      () => run({ record: null }),
    ],
    [
      "a record without every",
      "range",
      "record: every must be an integer in [1, 4294967295], got undefined.",
      () => run({ record: { loss: "full" } }),
    ],
    [
      "a record every 0 steps",
      "range",
      "record: every must be an integer in [1, 4294967295], got 0.",
      () => record({ every: 0 }),
    ],
    [
      "a misspelt record",
      "name",
      /^record: options are every, loss, blockNorms, charges, .*, got "charge"\. Did you mean "charges"\?$/,
      () => record({ charge: {} }),
    ],
    [
      "an unknown loss",
      "name",
      'record: loss must be one of "full", "batch", got "ful". Did you mean "full"?',
      () => record({ loss: "ful" }),
    ],
    [
      "the full loss of fresh samples",
      "unsupported",
      'record: loss: "full" needs a finite data set, got a sampler of fresh samples. Record loss: "batch", or make a set with { samples: N }.',
      () => record({ loss: "full" }, fresh),
    ],
    [
      "work without charges",
      "range",
      "record: work is recorded for the charges, got no charges. Name a generator in record.charges.",
      () => record({ work: true }),
    ],
    [
      "a charge that is no generator",
      "shape",
      /^record\.charges\.C: expected a generator, got 3\. Make one with symmetry\./,
      () => record({ charges: { C: 3 } }),
    ],
    [
      "a charge of a block that is not there",
      "name",
      'record.charges.C: the parameters are u, V, got "W".',
      () => record({ charges: { C: symmetry.scaling("W") } }),
    ],
    ["charges that are a number", "shape", /^record\.charges: .*got 5\.$/, () => record({ charges: 5 })],
    [
      "values that are no expressions",
      "shape",
      "record.values.n: expected an expression of this model's parameters, got 3. Build it with ops from model.leaf(name).",
      () => record({ values: { n: 3 } }),
    ],
    [
      "values of another model",
      "shape",
      /^record\.values\.n: expected an expression of this model's parameters, got an object/,
      () => record({ values: { n: parseModel({ params: { w: [] }, inputs: {}, loss: "w" }).loss } }),
    ],
    [
      "values that vary with the sample",
      "unsupported",
      "record.values.n: recorded values depend on parameters alone, got sqnorm(...) [].",
      () => record({ values: { n: net.loss } }),
    ],
    [
      "a matrix charge of one block",
      "shape",
      "record.matrixCharges.Q: expected the names of two blocks, [U, W], got an array of 1.",
      () => record({ matrixCharges: { Q: ["V"] } }),
    ],
    [
      "a matrix charge of a block that is not there",
      "name",
      /^record\.matrixCharges\.Q: the parameters are u, V, got "W"\.$/,
      () => record({ matrixCharges: { Q: ["V", "W"] } }),
    ],
    [
      "an average of nothing",
      "range",
      "record.average: there is nothing to average, got no blockNorms, charges, matrixCharges or values.",
      () => record({ average: { from: 1 } }),
    ],
    [
      "an average from nowhere",
      "range",
      "record.average: from must be an integer in [0, 4294967295], got undefined.",
      () => record({ blockNorms: true, average: {} }),
    ],
    [
      "a misspelt average",
      "name",
      'record.average: options are from, every, got "form". Did you mean "from"?',
      () => record({ blockNorms: true, average: { form: 1 } }),
    ],
    [
      "an average that is a number",
      "shape",
      /^record\.average: .*got 5\.$/,
      () => record({ blockNorms: true, average: 5 }),
    ],
    // flags: text from a file would count as true
    [
      "blockNorms that is text",
      "range",
      /^record: blockNorms must be true or false, got "false"\.$/,
      () => record({ blockNorms: "false" }),
    ],
    [
      "work that is text",
      "range",
      /^record: work must be true or false, got "no"\.$/,
      () => record({ charges: { A }, work: "no" }),
    ],
    // control
    [
      "an unknown way to end",
      "name",
      'sgd: onDiverge must be one of "stop", "stopReplica", "throw", got "stopreplica". Did you mean "stopReplica"?',
      () => run({ onDiverge: "stopreplica" }),
    ],
    [
      "a signal that is none",
      "shape",
      /^sgd: signal must be an AbortSignal, got an object/,
      () => run({ signal: {} }),
    ],
    [
      "a signal that is null",
      "shape",
      "sgd: signal must be an AbortSignal, got null.",
      () => run({ signal: null }),
    ],
    [
      "progress that is no function",
      "shape",
      "sgd: onProgress must be a function, got 3.",
      () => run({ onProgress: 3 }),
    ],
    [
      "unknown lanes",
      "name",
      /^lowering: lanes must be one of "samples", "replicas".*, got "sample"\. Did you mean "samples"\?$/,
      () => run({ lowering: { lanes: "sample" } }),
    ],
    [
      "a block of 0",
      "range",
      "lowering: block must be an integer in [1, 4294967295], got 0.",
      () => run({ lowering: { block: 0 } }),
    ],
    [
      "a group of half a replica",
      "range",
      "lowering: group must be an integer in [1, 4294967295], got 0.5.",
      () => run({ lowering: { group: 0.5 } }),
    ],
    [
      "a chunk of no step",
      "range",
      "lowering: chunk must be an integer in [1, 4294967295], got 0.",
      () => run({ lowering: { chunk: 0 } }),
    ],
    [
      "a misspelt lowering",
      "name",
      /^lowering: options are lanes, block, group, .*chunk, got "lane"\. Did you mean "lanes"\?$/,
      () => run({ lowering: { lane: "samples" } }),
    ],
    ["a lowering that is a number", "shape", /^lowering: .*got 5\.$/, () => run({ lowering: 5 })],
  ];
  test.each(rows)("%s", (_, code, message, call) => expectRefusal(call, code, message));

  test("the same before planning as before running", async () => {
    await expectRefusal(
      () => problem.plan({ ...base, eta: -1 } as never),
      "range",
      "sgd: eta must be a finite number of at least 0, got -1.",
    );
    await expectRefusal(
      () => problem.plan({ ...base, charges: {} } as never),
      "name",
      /^simulate: options are/,
    );
  });

  test("a run that leaves the finite numbers, where asked to throw", async () => {
    const before = engine.bytesInUse;
    const diverging = problem.simulate({ ...base, scheme: "sgd", eta: 1e6, steps: 1000, onDiverge: "throw" });
    const error = (await diverging.catch((e: unknown) => e)) as NoetherflowError;
    expect(error).toBeInstanceOf(NoetherflowError);
    expect(error.code).toBe("nonfinite");
    expect(error.message).toMatch(
      /^run: theta became non-finite at step \d+, replica 0 \(eta 1000000, last finite loss [\d.e+]+\)\. Lower eta, or pass onDiverge: "stopReplica" to let the others go on\.$/,
    );
    expect((error.recorded as { status: string }).status).toBe("diverged");
    expect(engine.bytesInUse).toBe(before);
  });

  test("no option that is right: the base of all rows runs", async () => {
    const before = engine.bytesInUse;
    expect((await problem.simulate(base as never)).status).toBe("done");
    expect((await fresh.simulate(base as never)).status).toBe("done");
    expect((await problem.simulate({ ...base, eta: 0, steps: 0, batchSize: 1000 } as never)).steps).toBe(0);
    expect(engine.bytesInUse).toBe(before);
  });
});

describe("after dispose()", () => {
  const sentence = (where: string) =>
    `${where}: the problem was disposed of. Make a new one with engine.problem.`;

  test("every method of a problem that computes says so", async () => {
    const gone = engine.problem(net, data);
    gone.dispose();
    gone.dispose();
    const options = { scheme: "gd", theta, eta: 0.1, steps: 1 } as const;
    await expectRefusal(() => gone.loss(theta), "unsupported", sentence("loss"));
    await expectRefusal(() => gone.losses(theta), "unsupported", sentence("losses"));
    await expectRefusal(() => gone.gradient(theta), "unsupported", sentence("gradient"));
    await expectRefusal(() => gone.charge(theta, symmetry.scaling("u")), "unsupported", sentence("charge"));
    await expectRefusal(() => gone.init("he", { seed: 1 }), "unsupported", sentence("init"));
    await expectRefusal(() => gone.data, "unsupported", sentence("data"));
    await expectRefusal(() => gone.simulate(options), "unsupported", sentence("simulate"));
    await expectRefusal(() => gone.plan(options), "unsupported", sentence("plan"));
  });

  test("an engine takes its problems with it, holds no memory and makes no new ones", async () => {
    const other = await createEngine();
    const held = other.problem(net, data);
    held.loss(theta);
    expect(other.bytesInUse).toBeGreaterThan(0);
    other.dispose();
    other.dispose();
    expect(other.bytesInUse).toBe(0);
    await expectRefusal(() => held.loss(theta), "unsupported", sentence("loss"));
    await expectRefusal(
      () => other.problem(net, data),
      "unsupported",
      "problem: the engine was disposed of. Make a new one with createEngine.",
    );
  });
});

describe("more memory than there is", () => {
  /** Bytes of ArrayBuffers in this process that a refused call may make: messages and small tables. */
  const HARMLESS = 16 * 2 ** 20;

  /** As expectRefusal; and neither the Wasm memory nor the host has made room for what does not fit. */
  async function expectTooLarge(call: () => unknown, message: Message, code = "memory"): Promise<void> {
    const wasm = engine.core.memory.buffer.byteLength;
    const host = process.memoryUsage().arrayBuffers;
    await expectRefusal(call, code, message);
    expect(engine.core.memory.buffer.byteLength, "Wasm memory").toBe(wasm);
    expect(process.memoryUsage().arrayBuffers - host, "bytes of arrays in the host").toBeLessThan(HARMLESS);
  }
  const hint = "Use fewer samples, replicas or records, or dispose\\(\\) of problems no longer needed\\.";
  const full = (where: string, size: string) =>
    new RegExp(
      `^${where}: the plan must fit in the 4 GiB of Wasm memory beside [\\d.]+ (bytes|KiB|MiB) in use, got ${size}\\. ${hint}$`,
    );
  const base = { scheme: "sgd", theta, eta: 0.1, steps: 10, batchSize: 2 } as const;

  test("2^31 samples of 5 numbers: 88 GiB", () =>
    // 40 bytes of data and 4 of addresses each
    expectTooLarge(
      () => engine.problem(net, noise, { samples: 2 ** 31 }),
      full("problem: data", "88.0 GiB"),
    ));

  test("a batch of 10^9", () =>
    expectTooLarge(() => problem.simulate({ ...base, batchSize: 1e9 }), full("sgd", "\\d+\\.\\d GiB")));

  test("2^26 replicas, and then 10^9", async () => {
    await expectTooLarge(
      () => problem.simulate({ ...base, replicas: 2 ** 26 }),
      /^sgd: .*4 GiB.*67108864|^sgd: .*got \d+\.\d GiB/,
    );
    await expectTooLarge(
      () => problem.simulate({ ...base, replicas: 1e9 }),
      /^sgd: .*4 GiB.*1000000000|^sgd: .*got \d+\.\d GiB/,
    );
  });

  test("a record of every step of 4 billion, whatever is recorded", async () => {
    const message = (entries: number) =>
      `record: at most 268435456 numbers can be recorded, got 4000000001 records x 1 replicas x ${entries} entries. Record less often (a larger record.every), or run fewer replicas.`;
    const record = (more: object) => () =>
      problem.simulate({ ...base, steps: 4e9, record: { every: 1, ...more } } as never);
    await expectTooLarge(record({ loss: "full" }), message(1));
    await expectTooLarge(record({ loss: "full", blockNorms: true }), message(3));
    await expectTooLarge(record({}), message(0));
  });

  test("explicit batches of 4 * 10^12 indices, when one is given", () =>
    expectTooLarge(
      () => problem.simulate({ ...base, steps: 4e9, batchSize: 1000, batches: [0] }),
      "sgd: batches: expected 4000000000000 numbers, shape [4000000000, 1000], got 1.",
      "shape",
    ));

  test("a theta of 2 GiB, when two numbers are given", async () => {
    const huge = engine.problem(parseModel({ params: { w: [2 ** 28] }, inputs: {}, loss: ["sum", "w"] }), {});
    const sentence = "expected 268435456 numbers, shape [268435456], got 2.";
    await expectTooLarge(() => huge.loss([1, 2]), `loss: theta: ${sentence}`, "shape");
    await expectTooLarge(() => huge.theta({ w: [1, 2] }), `theta: theta.w: ${sentence}`, "shape");
    huge.dispose();
  });

  test("initial parameters of 10^12 replicas", () =>
    expectTooLarge(() => problem.init("he", { seed: 1, replicas: 1e12 }), /^init: .*1000000000000/));
});

describe("the helpers that word messages", () => {
  test("show any value in at most some 80 characters, and never throw", () => {
    const cyclic: Record<string, unknown> = {};
    cyclic.self = cyclic;
    const values: unknown[] = [
      undefined,
      null,
      Number.NaN,
      -0,
      1n,
      Symbol("s"),
      () => 1,
      "x".repeat(1000),
      Array.from({ length: 1000 }, (_, i) => i),
      [1, "a"],
      new Float32Array(9),
      new DataView(new ArrayBuffer(8)),
      cyclic,
      Object.create(null),
      new Proxy({}, {}),
      Object.fromEntries(Array.from({ length: 20 }, (_, i) => [`key${i}`, i])),
    ];
    for (const value of values) expect(show(value).length).toBeLessThanOrEqual(90);
    expect(values.map(show).slice(0, 7)).toEqual([
      "undefined",
      "null",
      "NaN",
      "0",
      "1n",
      "a symbol",
      "a function",
    ]);
    expect(show([1, 2, 3])).toBe("[1, 2, 3]");
    expect(
      show(Object.fromEntries(Array.from({ length: 6 }, (_, i) => [`${"k".repeat(1000)}${i}`, 1]))).length,
    ).toBeLessThan(200);
  });

  test("suggest a word within two edits, whatever its case, and none beyond", () => {
    const known = ["eta", "batchSize", "weightDecay"];
    expect(nearest("batchsize", known)).toBe('Did you mean "batchSize"?');
    expect(nearest("weigthDecay", known)).toBe('Did you mean "weightDecay"?');
    expect(nearest("weightDcy", known)).toBe('Did you mean "weightDecay"?');
    expect(nearest("decay", known)).toBeUndefined();
    expect(nearest("x".repeat(100_000), known)).toBeUndefined();
  });

  test("name the interval a number must lie in", () => {
    expect(() => checkNumber("w", "x", 3, 0, 1)).toThrow("w: x must be a finite number in [0, 1], got 3.");
    expect(() => checkNumber("w", "x", -1, 0)).toThrow("w: x must be a finite number of at least 0, got -1.");
    expect(() => checkNumber("w", "x", 3, -Infinity, 1)).toThrow(
      "w: x must be a finite number of at most 1, got 3.",
    );
    expect(() => checkNumber("w", "x", "3")).toThrow('w: x must be a finite number, got "3".');
    expect(() => checkInteger("w", "k", 0, 1)).toThrow("w: k must be an integer of at least 1, got 0.");
    expect(() => checkInteger("w", "k", 9, 1, 8)).toThrow("w: k must be an integer in [1, 8], got 9.");
    expect(() => checkInteger("w", "k", 9, 1, 8, "N")).toThrow(
      "w: k must be an integer in [1, N = 8], got 9.",
    );
  });
});

describe("refusals found by review", () => {
  test("f32 refuses data and theta that only f64 can hold", async () => {
    const engine = await createEngine({ dtype: "f32" });
    const line = model({
      params: { w: [1] },
      inputs: { x: [1], y: [1] },
      loss: ({ w, x, y }) => ops.sqnorm(ops.sub(ops.mul(w, x), y)),
    });
    expect(() => engine.problem(line, { x: [1e300], y: [1] })).toThrow(
      "problem: data: values must be finite in f32, got Infinity in sample 0.",
    );
    expect(engine.bytesInUse).toBe(0);
    const problem = engine.problem(line, { x: [1], y: [1] });
    expect(() => problem.loss([1e300])).toThrow(
      "loss: theta: values must be finite in f32, got 1e+300 at position 0.",
    );
    await expect(problem.simulate({ scheme: "gd", theta: [1e300], eta: 0.1, steps: 1 })).rejects.toThrow(
      "gd: theta: values must be finite in f32",
    );
    engine.dispose();
  });

  test("generators refuse a block twice, names that are none, and nothing at all", () => {
    expect(() => symmetry.rescaling("U", "U")).toThrow(
      'rescaling: each block takes part once, got "U" twice.',
    );
    expect(() => symmetry.doubleRotation("W", "W", [[1]])).toThrow(
      "doubleRotation: each block takes part once",
    );
    expect(() => symmetry.rescaling(Symbol("U") as never, "W")).toThrow("rescaling: a name is a letter");
    expect(() => symmetry.generator({ dense: null })).toThrow(NoetherflowError);
  });

  test("a builder refuses an argument too many", () => {
    const surplus = (loss: never) => () => model({ params: { a: [1] }, inputs: { b: [1] }, loss });
    const sqnorm = ops.sqnorm as (...args: unknown[]) => never;
    expect(surplus((({ a, b }: Record<string, never>) => sqnorm(a, b)) as never)).toThrow(
      "ops.sqnorm: sqnorm takes 1 argument, got 2.",
    );
  });

  test("what an abort leaves behind says so", async () => {
    const engine = await createEngine();
    const line = model({
      params: { w: [1] },
      inputs: { x: [1] },
      loss: ({ w, x }) => ops.sqnorm(ops.sub(w, x)),
    });
    const problem = engine.problem(line, { x: [1, 2] });
    const abort = new AbortController();
    const run = problem.simulate({
      scheme: "sgd",
      batchSize: 1,
      theta: [0],
      eta: 0.01,
      steps: 1e9,
      signal: abort.signal,
      onProgress: () => abort.abort(),
    });
    const error = await run.then(
      () => undefined,
      (e: unknown) => e as { recorded: { status: string } },
    );
    expect(error?.recorded.status).toBe("aborted");
    engine.dispose();
  });
});

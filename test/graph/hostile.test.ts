/**
 * Files from strangers: 10,000 mutated model files and 2,000 mutated sampler files. Whatever comes, it is read and
 * computed, or refused with a NoetherflowError that is not a bug of ours, within 100 ms, and leaves no memory behind.
 */
import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { NoetherflowError } from "../../src/errors.ts";
import { instantiate } from "../../src/graph/instantiate.ts";
import { type Node, reachable, sizeOf } from "../../src/graph/node.ts";
import { publicOps } from "../../src/graph/ops.ts";
import { createEngine, model, momentMatched, ops, parseModel, parseSampler } from "../../src/index.ts";

const MODELS = 10_000;
const SAMPLERS = 2000;
/** Files that are read before the clock counts: the first ones also compile the reader. */
const WARM_UP = 200;
const LIMIT_MS = 100;
/** All files together take some seconds; a reader that does quadratic work would take hours. */
const GIVE_UP_MS = 60_000;
/** Entries of all values of a file up to which its loss is computed; beyond, the work is what the file asks for. */
const COMPUTED = 50_000;

const engine = await createEngine();

// --- files -----------------------------------------------------------------------------------------------------

const folder = fileURLToPath(new URL("../fixtures/", import.meta.url));
const fixtures = readdirSync(folder)
  .filter((name) => name.endsWith(".json"))
  .map((name) => JSON.parse(readFileSync(folder + name, "utf8")).model as object);

const times = <T>(n: number, f: (i: number) => T): T[] => Array.from({ length: n }, (_, i) => f(i));

const handMade: object[] = [
  {
    schema: "noetherflow-model/1",
    params: { W: [5, 3], U: { shape: [2, 5], trainable: false }, s: [] },
    inputs: { x: [3], y: [2] },
    constants: { V: { shape: [2, 3], values: times(6, (i) => i / 7) }, c: [1, 2, 3, 4, 5] },
    let: [
      ["z", ["tanh", ["add", ["matmul", "W", "x"], "c"]]],
      ["p", ["softmax", "z", { axis: 0 }]],
      ["e", ["sub", ["matmul", "U", "p"], ["matmul", "V", "x"]]],
    ],
    loss: ["add", ["mul", "s", ["sqnorm", "e"]], ["logsumexp", ["mul", "e", "y"], { axis: 0 }]],
  },
  {
    params: { w: [4] },
    inputs: { x: [4] },
    let: times(60, (i) => [`z${i}`, ["tanh", ["add", i === 0 ? "w" : `z${i - 1}`, "x"]]]),
    loss: ["sum", ["mul", "z59", "z30"]],
  },
  {
    params: { A: [3, 4], b: [4], d: [1, 4] },
    inputs: { X: [6, 3] },
    constants: { M: times(6, (i) => times(4, (j) => i - j)), one: 1 },
    let: [
      ["H", ["add", ["matmul", "X", "A"], "b"]],
      ["S", ["softmax", ["matmul", "H", ["transpose", ["mul", "H", "d"]]], { axis: 1 }]],
    ],
    loss: [
      "add",
      ["mean", ["square", ["sub", ["matmul", "S", "H"], "M"]]],
      [
        "norm",
        ["reshape", ["outer", ["exp", "b"], ["broadcast_to", "one", { shape: [3] }]], { shape: [12] }],
      ],
    ],
  },
  {
    params: Object.fromEntries(times(40, (i) => [`p${i}`, [2]])),
    inputs: Object.fromEntries(times(10, (i) => [`x${i}`, []])),
    loss: times(40, (i) => i).reduce<unknown>(
      (e, i) => ["add", e, ["sum", ["scale", ["mul", `p${i}`, `x${i % 10}`], 0.5]]],
      0,
    ),
  },
  {
    params: { A: [3, 4], b: [4], c: [2] },
    inputs: { x: [4], y: [3] },
    let: [
      ["h", ["leaky_relu", ["add", ["matmul", "A", "x"], "y"], { slope: 0.1 }]],
      ["k", ["concat", "h", ["slice", "b", { start: 1, stop: 3 }], "c"]],
      ["P", ["pad", ["slice", "A", { axis: 1, start: 1 }], { axis: -1, before: 1, after: 0 }]],
    ],
    loss: [
      "add",
      ["sqnorm", ["erf", ["pad", "k", { after: 2 }]]],
      ["sum", ["gelu_erf", ["concat", "A", "P", ["slice", "P", { stop: 1 }], { axis: 0 }]]],
    ],
  },
  {
    params: { W: [3, 4], g: [3] },
    inputs: { x: [4], y: [3] },
    let: [
      ["v", ["matmul", "W", "x"]],
      ["d", ["sub", "v", ["batch_mean", "v"]]],
      ["n", ["mul", "g", ["div", "d", ["sqrt", ["add", ["batch_mean", ["square", "d"]], 0.1]]]]],
      ["Y", ["batch_stack", "y"]],
      ["p", ["softmax", ["matmul", "Y", "n"]]],
    ],
    loss: [
      "add",
      ["logsumexp", ["matmul", "Y", "n"]],
      ["sum", ["mul", ["batch_row", ["outer", "p", "n"]], ["mean", ["tanh", "Y"], { axis: 0 }]]],
    ],
  },
];

const samplers: object[] = [
  {
    schema: "noetherflow-sampler/1",
    noise: { z: { kind: "normal", shape: [5] }, e: { kind: "normal", shape: [2] } },
    constants: { V: { shape: [2, 5], values: times(10, (i) => i / 5 - 1) } },
    outputs: { x: "z", y: ["add", ["matmul", "V", "z"], ["scale", "e", 0.5]] },
  },
  {
    noise: { u: { kind: "uniform", shape: [3, 2] }, s: { kind: "sign", shape: [2] } },
    let: [["m", ["mul", "u", "s"]]],
    outputs: { x: ["sum", "m", { axis: 0 }], y: ["sqnorm", "m"] },
  },
  {
    noise: { i: { kind: "index", shape: [], below: 7 }, j: { kind: "index", shape: [4], below: 2 } },
    constants: { c: [0, 1, 2, 3, 4, 5, 6] },
    outputs: { x: ["relu", ["sub", 1, ["abs", ["sub", "c", "i"]]]], y: ["softplus", "j"] },
  },
  { noise: {}, constants: { c: [1, 2, 3] }, outputs: { x: ["exp", "c"] } },
  {
    noise: { z: { kind: "normal", shape: [4] }, b: { kind: "sign", shape: [] } },
    let: [["h", ["slice", "z", { start: 1, stop: 3 }]]],
    outputs: {
      x: ["concat", "h", ["pad", ["mul", "b", "h"], { before: 1 }], "z"],
      y: ["leaky_relu", ["erf", "b"], { slope: 0.5 }],
    },
  },
];

// --- mutations -------------------------------------------------------------------------------------------------

type Random = () => number;

function mulberry(seed: number): Random {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

const pick = <T>(list: readonly T[], next: Random): T => list[Math.floor(next() * list.length)]!;

const nest = (depth: number, wrap: (inner: unknown) => unknown, inner: unknown): unknown => {
  let value = inner;
  for (let i = 0; i < depth; i++) value = wrap(value);
  return value;
};

/** Deep enough that quadratic work would be seen; the last test goes deeper. */
const DEPTH = 2500;
const deep: readonly unknown[] = [
  nest(DEPTH, (x) => [x], 1),
  nest(DEPTH, (x) => ({ shape: x }), [1]),
  nest(DEPTH, (x) => ["tanh", x], "x"),
  // more nodes than a file may have: 2^18 of them
  nest(17, (x) => ["add", x, x], 1),
  nest(DEPTH, (x) => ["scale", x, 0.5], "W"),
];
const isDeep = new Set<unknown>(deep);

/** What takes the place of something else. */
const replacements: readonly unknown[] = [
  null,
  true,
  false,
  0,
  -0,
  1,
  -1,
  0.5,
  1e308,
  -1e308,
  1e-320,
  2 ** 31,
  2 ** 32,
  2 ** 53,
  Number.NaN,
  Number.POSITIVE_INFINITY,
  "",
  " ",
  "W",
  "x",
  "y",
  "z",
  "loss",
  "__proto__",
  "constructor",
  "toString",
  "π",
  "a".repeat(100),
  "a".repeat(100_000),
  "tanh",
  "matmul",
  "1e5",
  "index",
  "normal",
  [],
  [[]],
  {},
  [0],
  [1],
  [2],
  [-1],
  [1.5],
  [3, 4],
  [1, 2, 3],
  [2 ** 28],
  [2 ** 14, 2 ** 14],
  [100_000, 100_000],
  ["tanh"],
  ["tanh", "W"],
  ["tanh", "W", {}],
  ["add", 1, 2],
  ["mul", "x", "x"],
  ["scale", "x", 1e300],
  ["matmul", "W", "x"],
  ["sum", "x", { axis: 7 }],
  ["reshape", "x", { shape: [1, 1] }],
  ["broadcast_to", 1, { shape: [2 ** 14, 2 ** 14] }],
  ["broadcast_to", 1, { shape: [30, 40] }],
  ["batch_sum", "x"],
  ["batch_pick", ["batch_stack", "x"]],
  ["batch_mean", "x"],
  ["batch_stack", "x"],
  ["batch_row", ["batch_stack", "x"]],
  ["matmul", ["batch_stack", "x"], ["transpose", ["batch_stack", "y"]]],
  ["slice", ["batch_stack", "x"], { start: 1, stop: 2 }],
  ["pad", ["batch_stack", "x"], { after: 1 }],
  ["concat", "x", "x", "y"],
  ["concat"],
  ["slice", "x", { start: 1 }],
  ["pad", "x", { axis: -1, before: 1, after: 2 }],
  ["pad", "x", { before: 1e308, after: 1e308 }],
  ["leaky_relu", "x", { slope: -1e308 }],
  ["gelu_erf", ["erf", "x"]],
  ["constructor", "x"],
  ["sqnorm", "x"],
  ["exp", ["exp", ["exp", 9]]],
  ["log", -1],
  ["div", 1, 0],
  { axis: 0 },
  { axis: -1, keepdims: true },
  { shape: [1] },
  { start: 1, stop: 2 },
  { start: 2 ** 53, stop: 2 ** 53 + 2 },
  { axis: 1, before: 3 },
  { after: 2 ** 28 },
  { slope: 0.1 },
  { shapes: [[1], [1], [1]] },
  { shape: [2], values: [1, 2] },
  { shape: [2 ** 14, 2 ** 14], values: [1] },
  { kind: "index", shape: [1], below: 2 ** 31 },
  { kind: "sign", shape: [2] },
  times(300, (i) => i),
  times(300, () => ["add", "x", 1]),
  [
    ["a", "W"],
    ["a", "x"],
  ],
  [["t", 1]],
];

interface Place {
  readonly holder: Record<string, unknown> | unknown[];
  readonly key: string;
}

/** Every place of a file where a value stands. */
function places(file: unknown): Place[] {
  const found: Place[] = [];
  const stack: unknown[] = [file];
  while (stack.length > 0) {
    const value = stack.pop();
    if (typeof value !== "object" || value === null || isDeep.has(value)) continue;
    for (const [key, inner] of Object.entries(value)) {
      found.push({ holder: value as unknown[], key });
      stack.push(inner);
    }
  }
  return found;
}

/** An own property, whatever its name means elsewhere. */
function put(holder: Place["holder"], key: string, value: unknown): void {
  Object.defineProperty(holder, key, { value, configurable: true, enumerable: true, writable: true });
}

const read = ({ holder, key }: Place): unknown => (holder as Record<string, unknown>)[key];

/** Ops of one value that need no options. */
const WRAPPERS = [
  "tanh",
  "exp",
  "sum",
  "log",
  "sqnorm",
  "transpose",
  "erf",
  "slice",
  "pad",
  "concat",
  "batch_mean",
  "batch_stack",
  "batch_row",
];

/** One to four mutations of a file; some files come as JSON text. */
function mutate(original: object, next: Random): { file: unknown; nested: boolean } {
  const file: unknown = JSON.parse(JSON.stringify(original));
  let nested = false;
  const count = pick([1, 1, 1, 1, 2, 4], next);
  for (let i = 0; i < count; i++) {
    const all = places(file);
    if (all.length === 0) break;
    const place = pick(all, next);
    const { holder, key } = place;
    const value = read(place);
    const kind = next();
    if (kind < 0.1 && Array.isArray(holder) && holder.length > 2) {
      const [i, j] = [pick([1, 2], next), holder.length - 1];
      [holder[i], holder[j]] = [holder[j], holder[i]];
    } else if (kind < 0.25 && (typeof value === "string" || Array.isArray(value))) {
      // inside an expression these often leave a file that can be read
      if (key === "0") put(holder, key, pick(publicOps, next));
      else put(holder, key, [pick(WRAPPERS, next), value]);
    } else if (kind < 0.3) {
      if (Array.isArray(holder)) holder.splice(Number(key), 1);
      else delete holder[key];
    } else if (kind < 0.4) {
      if (Array.isArray(holder)) holder.splice(Number(key), 0, value);
      else
        put(holder, pick(["__proto__", "constructor", "q", `${key}2`, "W", "x", "trainable"], next), value);
    } else if (kind < 0.5) {
      // a copy of another part of the file
      const text = JSON.stringify(read(pick(all, next)));
      put(holder, key, text === undefined ? text : JSON.parse(text));
    } else if (kind < 0.53) {
      put(holder, key, pick(deep, next));
      nested = true;
    } else if (kind < 0.75 && typeof value === "number") {
      put(holder, key, value * pick([-1, 0, 2, 1e3, 1e9, 1e200, 0.5], next));
    } else put(holder, key, structuredClone(pick(replacements, next)));
    if (nested) break;
  }
  return { file: !nested && next() < 0.3 ? JSON.stringify(file) : file, nested };
}

// --- what is done with a file ----------------------------------------------------------------------------------

type Outcome = "refused" | "computed" | "too large to compute";

const isSmall = (roots: readonly Node[], more: number): boolean =>
  reachable(roots).reduce((n, node) => n + sizeOf(node.shape), more) <= COMPUTED;

function tryModel(file: unknown, every: number): Outcome {
  const net = parseModel(file);
  net.toJSON();
  // sizes that depend on the batch are known for the two samples it will have
  const small = isSmall([instantiate(net.loss, 2)], net.P + net.recordSize);
  // two samples, or data that cannot fit
  const data = Object.fromEntries(
    net.inputs.map((i) => [i.name, times(small ? 2 * i.size : 1, (k) => 0.1 * k - 0.3)]),
  );
  const theta = times(small ? net.P : 1, (k) => 0.05 * k + 0.2);
  const problem = engine.problem(net, data);
  try {
    if (!small) return "too large to compute";
    problem.loss(theta);
    if (every % 10 === 0) problem.gradient(theta);
    return "computed";
  } finally {
    problem.dispose();
  }
}

function trySampler(file: unknown, every: number): Outcome {
  const made = parseSampler(file);
  made.toJSON();
  const outputs = [...made.outputs];
  if (!isSmall([...made.outputs.values(), ...made.noise], 0)) return "too large to compute";
  const net = model({
    params: { weight: [] },
    inputs: Object.fromEntries(outputs.map(([name, node]) => [name === "weight" ? "w" : name, node.shape])),
    loss: (v) =>
      outputs.map(([name]) => ops.sum(v[name as "weight"])).reduce((sum, x) => ops.add(sum, x), v.weight),
  });
  for (const problem of [
    () => engine.problem(net, made, { samples: 3, dataSeed: "hostile" }),
    () => engine.problem(net, made),
    ...(every % 2 === 0 ? [() => engine.problem(net, momentMatched(made))] : []),
  ]) {
    const opened = problem();
    try {
      if (opened.N === Number.POSITIVE_INFINITY) opened.loss([1], { samples: 2 });
      else opened.loss([1]);
    } finally {
      opened.dispose();
    }
  }
  return "computed";
}

/** What a file came to, or a line about what it should not have done. */
function outcomeOf(attempt: () => Outcome): Outcome | { fault: string } {
  try {
    return attempt();
  } catch (error) {
    if (error instanceof NoetherflowError && error.code !== "internal") return "refused";
    return { fault: `${(error as Error).name}: ${(error as Error).message.slice(0, 200)}` };
  }
}

function examine(
  what: string,
  originals: readonly object[],
  count: number,
  seed: number,
  attempt: (file: unknown, every: number) => Outcome,
): void {
  const next = mulberry(seed);
  const faults: string[] = [];
  const counts: Record<Outcome, number> = { refused: 0, computed: 0, "too large to compute": 0 };
  let slowest = 0;
  const start = performance.now();
  for (let i = -WARM_UP; i < count; i++) {
    if (performance.now() - start > GIVE_UP_MS || faults.length >= 20) {
      faults.push(`given up at file ${i}`);
      break;
    }
    const { file, nested } = mutate(pick(originals, next), next);
    // what shares its parts a thousand times over cannot be printed
    const excerpt = () =>
      nested ? "a deep file" : (typeof file === "string" ? file : JSON.stringify(file)).slice(0, 300);
    const before = engine.bytesInUse;
    let ms = Number.POSITIVE_INFINITY;
    let outcome: Outcome | { fault: string } = "refused";
    // a file that is slow is slow every time; a pause of the machine is not
    for (let again = 0; again < 5 && ms > LIMIT_MS && typeof outcome === "string"; again++) {
      const began = performance.now();
      outcome = outcomeOf(() => attempt(file, i + WARM_UP));
      ms = Math.min(ms, performance.now() - began);
    }
    if (typeof outcome === "object") faults.push(`file ${i}: ${outcome.fault} for ${excerpt()}`);
    else if (i >= 0) counts[outcome]++;
    if (engine.bytesInUse !== before)
      faults.push(`file ${i} keeps ${engine.bytesInUse - before} bytes: ${excerpt()}`);
    if (i < 0) continue;
    slowest = Math.max(slowest, ms);
    if (ms > LIMIT_MS) faults.push(`file ${i} took ${ms.toFixed(0)} ms: ${excerpt()}`);
  }
  console.log(
    `${count} mutated ${what} files: ${counts.refused} refused, ${counts.computed} computed, ` +
      `${counts["too large to compute"]} too large to compute here; slowest ${slowest.toFixed(1)} ms`,
  );
  expect(faults).toEqual([]);
  // mutations that nothing survives, or that everything survives, would test little
  expect(counts.refused).toBeGreaterThan(count / 10);
  expect(counts.computed).toBeGreaterThan(count / 10);
}

test(`${MODELS} mutated model files: NoetherflowError or a number, within ${LIMIT_MS} ms, no memory kept`, () => {
  examine("model", [...fixtures, ...handMade], MODELS, 20_240_601, tryModel);
});

test(`${SAMPLERS} mutated sampler files: NoetherflowError or a number, within ${LIMIT_MS} ms, no memory kept`, () => {
  examine("sampler", samplers, SAMPLERS, 7, trySampler);
});

test("files nested 100,000 deep are refused or read, as objects and as text", () => {
  const depth = 100_000;
  const text = (open: string, inner: string, close: string) =>
    open.repeat(depth) + inner + close.repeat(depth);
  const file = (loss: string) => `{"params":{"W":[2]},"inputs":{},"loss":${loss}}`;
  const outcomes = [
    () => parseModel(file(text("[", "", "]"))),
    () => parseModel(file(text('["tanh",', '"W"', "]"))),
    () => parseModel(file(text('{"shape":', "1", "}"))),
    () => parseModel(`{"params":{"W":${text("[", "1", "]")}},"inputs":{},"loss":1}`),
    () => parseModel(`{"params":{"W":[1]},"inputs":{},"constants":{"c":${text("[", "1", "]")}},"loss":1}`),
    () => parseModel(`{"params":{"W":[1]},"inputs":${text("[", "1", "]")},"loss":1}`),
    () => parseModel(`{"params":{"W":[1]},"inputs":{},"let":[["a",${text("[", "1", "]")}]],"loss":1}`),
    () => parseModel(file(`["sum","W",{"axis":${text("[", "1", "]")}}]`)),
    () => parseModel(file(`["add",1,1,{"shapes":${text("[", "1", "]")}}]`)),
    () => parseModel(text("[", "1", "]")),
    () => parseSampler(`{"noise":{"z":{"kind":"sign","shape":${text("[", "1", "]")}}},"outputs":{"x":"z"}}`),
    () => parseSampler(`{"noise":{},"outputs":{"x":${text('["exp",', "1", "]")}}}`),
    () => engine.problem(parseModel(file("1")), JSON.parse(`{"x":${text("[", "1", "]")}}`)),
  ].map((read) =>
    outcomeOf(() => {
      read();
      return "computed";
    }),
  );
  expect(outcomes).toEqual(outcomes.map(() => "refused"));
});

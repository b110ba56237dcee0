// `node tools/mutate-rules.mjs [--only OP]`: would the tests notice a wrong derivative rule?
//
// Every jvp and vjp rule of the op table is changed in memory, one mistake at a time: the result or what it owes to one
// argument negated, doubled or forgotten, and every term of every sum it emits dropped. After each change the first and
// second derivatives of small models about that op are compared with the evaluator over dual numbers that the tests use
// (test/reference/dual.ts), along all four ways the engine composes rules: gradients, tangents, tangents of gradients and
// gradients of tangents. A mutant that no comparison notices has survived; then the exit code is 1.
import { parseArgs } from "node:util";
import { createJiti } from "jiti";

const jiti = createJiti(import.meta.url);
const { gradient, tangent } = await jiti.import("../src/graph/derive.ts");
const { Graph, reachable } = await jiti.import("../src/graph/node.ts");
const { apply, table } = await jiti.import("../src/graph/ops.ts");
const { derivatives, leaves, opsOver, reals, sampleCount } = await jiti.import("../test/reference/dual.ts");
const { allOps, modelOf } = await jiti.import("../test/reference/grammar.ts");

const { values: args } = parseArgs({ options: { only: { type: "string" } } });

/** Models about one op: enough for every rank, axis and option of it to be drawn. */
const CASES = 16;
/** Far above rounding, far below what a mistake does. */
const TOLERANCE = 1e-9;

const range = (n) => [...Array(n).keys()];
const start = performance.now();

// --- models ------------------------------------------------------------------------------------------------

/** Ops that only derivatives use: files cannot say them, but the reference knows them. */
const internal = {
  batch_sum: {
    params: { W0: [2, 3] },
    inputs: { x0: [2, 3] },
    constants: { c0: { shape: [2, 3], values: [0.5, -1.25, 0.75, 1.5, -0.4, 0.9] } },
    loss: ["sum", ["mul", "c0", ["square", ["batch_sum", ["mul", "W0", "x0"]]]]],
  },
  batch_pick: {
    params: { W0: [3, 2] },
    inputs: { x0: [2] },
    loss: ["sum", ["mul", "x0", ["square", ["batch_pick", "W0"]]]],
  },
};
const entries = (n, phase) => range(n).map((i) => 0.4 + Math.sin(3 * i + phase));
const size = (shape) => shape.reduce((n, d) => n * d, 1);

function casesOf(op) {
  if (allOps.includes(op)) return range(CASES).map((seed) => caseOf(modelOf(op, seed)));
  const model = internal[op];
  if (model === undefined) throw new Error(`no models of ${op}: test/reference/grammar.ts does not know it`);
  const data = { x0: entries(3 * size(model.inputs.x0), 1) };
  return [caseOf({ model, data, theta: entries(size(model.params.W0), 2) })];
}

function caseOf({ model, data, theta }) {
  const v = theta.map((_, i) => Math.cos(2 * i + 1));
  return { model, data, theta, v, expected: derivatives(model, data, theta, v) };
}

/** The model as a graph of its own. */
function graphOf({ params, inputs, constants = {}, let: lets = [], loss }, S) {
  const graph = new Graph();
  const names = new Map();
  for (const [name, shape] of Object.entries(params)) names.set(name, graph.param(name, shape));
  for (const [name, shape] of Object.entries(inputs)) names.set(name, graph.input(name, shape));
  for (const [name, { shape, values }] of Object.entries(constants))
    names.set(name, graph.constant(Float64Array.from(values), shape, name));
  const read = (expression) => {
    if (typeof expression === "number") return graph.number(expression);
    if (typeof expression === "string") return names.get(expression);
    const [op, ...rest] = expression;
    const { options = [] } = table.get(op);
    const { shapes: _, ...attrs } = rest.find((x) => typeof x === "object" && !Array.isArray(x)) ?? {};
    const operands = rest.filter((x) => typeof x !== "object" || Array.isArray(x));
    if (options.includes("c")) attrs.c = operands.pop();
    if (options.includes("count")) attrs.count = S;
    return apply(op, operands.map(read), attrs);
  };
  for (const [name, expression] of lets) names.set(name, read(expression));
  return { graph, loss: read(loss), blocks: Object.keys(params).map((name) => names.get(name)) };
}

// --- values of graphs --------------------------------------------------------------------------------------

const loops = opsOver(reals);

/** Values of nodes on all samples, by the loops of the reference. */
function evaluate(nodes, { model, data, theta }, S) {
  const named = leaves(model, data, reals, (i) => theta[i]);
  const number = (c) => range(S).map(() => ({ shape: [], entries: [c] }));
  const values = new Map();
  for (const node of reachable(nodes)) {
    const { op, attrs, shape } = node;
    if (op === "number") values.set(node, number(attrs.c));
    else if (op === "constant")
      values.set(
        node,
        range(S).map(() => ({ shape, entries: [...attrs.values] })),
      );
    else if (node.args.length === 0) values.set(node, named.get(attrs.name));
    else {
      const loop = loops[op];
      if (loop === undefined) throw new Error(`test/reference/dual.ts does not know ${op}`);
      const operands = node.args.map((a) => values.get(a));
      if (op === "scale") operands.push(number(attrs.c));
      values.set(node, loop(operands, attrs));
    }
  }
  return (node) => values.get(node);
}

/** What is wrong with the derivatives of a model under the rules as they are now: null, or which of them. */
function faultOf(example) {
  const { model, data, v, expected } = example;
  const S = sampleCount(model, data);
  const { graph, loss, blocks } = graphOf(model, S);
  const weight = graph.number(1 / S);
  let offset = 0;
  const directions = new Map(
    blocks.map((block) => {
      const n = size(block.shape);
      offset += n;
      const along = Float64Array.from(v.slice(offset - n, offset));
      return [block, graph.constant(along, block.shape, `v.${block.attrs.name}`)];
    }),
  );
  const slopes = gradient(loss, blocks, weight, S);
  const moving = slopes.filter((g) => g !== null);
  const tangents = tangent(moving, directions);
  const curved = slopes.map((g) => (g === null ? null : tangents[moving.indexOf(g)]));
  const [along] = tangent([loss], directions);
  const reverse = along === null ? blocks.map(() => null) : gradient(along, blocks, weight, S);
  const value = evaluate(
    [...slopes, ...curved, along, ...reverse].filter((n) => n !== null),
    example,
    S,
  );
  const zeros = (shape) => range(size(shape)).map(() => 0);
  // values of parameters are the same on every sample
  const flat = (nodes) =>
    nodes.flatMap((n, k) => (n === null ? zeros(blocks[k].shape) : value(n)[0].entries));
  const got = {
    gradient: flat(slopes),
    tangent: along === null ? range(S).map(() => 0) : value(along).flatMap((x) => x.entries),
    "tangent of the gradient": flat(curved),
    "gradient of the tangent": flat(reverse),
  };
  const wanted = {
    gradient: expected.gradient,
    tangent: expected.jacobianVector,
    "tangent of the gradient": expected.hessianVector,
    "gradient of the tangent": expected.hessianVector,
  };
  const wrong = Object.keys(got).find((what) => {
    const { values } = wanted[what];
    const scale = Math.max(1, ...values.map(Math.abs));
    return (
      got[what].length !== values.length ||
      !got[what].every((x, i) => Math.abs(x - values[i]) <= TOLERANCE * scale)
    );
  });
  return wrong ?? null;
}

/** The first thing that is wrong with some model; a rule that throws is noticed too. */
function firstFault(examples) {
  for (const example of examples) {
    try {
      const wrong = faultOf(example);
      if (wrong !== null) return wrong;
    } catch (error) {
      return `throws (${error.message.slice(0, 60)})`;
    }
  }
  return null;
}

// --- mutants -----------------------------------------------------------------------------------------------

const times = (c) => (node) => node && apply("scale", [node], { c });
const changes = { negated: times(-1), doubled: times(2), dropped: () => null };

/** Sums that a rule emitted: those behind its result that were not there before. */
function emittedSums(result, before) {
  const old = new Set(reachable(before.filter((n) => n !== null)));
  return reachable([result]).filter((n) => !old.has(n) && (n.op === "add" || n.op === "sub"));
}

/** The result without one side of its k-th emitted sum. */
function withoutTerm(result, before, k, side) {
  if (result === null) return null;
  const sum = emittedSums(result, before)[k];
  if (sum === undefined) return result;
  const kept = sum.args[1 - side];
  const term = sum.op === "sub" && side === 0 ? times(-1)(kept) : kept;
  const changed = new Map([[sum, apply("broadcast_to", [term], { shape: sum.shape })]]);
  for (const node of reachable([result])) {
    if (changed.has(node) || !node.args.some((a) => changed.has(a))) continue;
    const operands = node.args.map((a) => changed.get(a) ?? a);
    changed.set(node, apply(node.op, operands, node.attrs));
  }
  return changed.get(result) ?? result;
}

/**
 * How the rules of an op behave on its models: its most arguments, the most sums in a result of jvp and in each part of a
 * result of vjp, and whether anything but null ever came.
 */
function observe(row, examples) {
  const seen = { arguments: 0, jvp: 0, vjp: [], isZero: true };
  const { jvp, vjp } = row;
  row.jvp = (node, tangents) => {
    const result = jvp(node, tangents);
    seen.arguments = Math.max(seen.arguments, node.args.length);
    if (result !== null) {
      seen.isZero = false;
      seen.jvp = Math.max(seen.jvp, emittedSums(result, [node, ...tangents]).length);
    }
    return result;
  };
  row.vjp = (node, cotangent, needs) => {
    const parts = vjp(node, cotangent, needs);
    for (const [j, part] of parts.entries()) {
      if (part === null) continue;
      seen.isZero = false;
      seen.vjp[j] = Math.max(seen.vjp[j] ?? 0, emittedSums(part, [node, cotangent]).length);
    }
    return parts;
  };
  const wrong = firstFault(examples);
  Object.assign(row, { jvp, vjp });
  return { ...seen, wrong };
}

/** All mutants of an op's rules: a name, the rule, and what stands in for it. */
function mutantsOf(row, seen) {
  const { jvp, vjp } = row;
  const mutants = [];
  const add = (rule, name, stand) => mutants.push({ rule, name: `${row.name} ${rule}: ${name}`, stand });
  const argument = (j) => (seen.arguments > 1 ? `argument ${j}` : "the result");
  for (const [how, change] of Object.entries(changes)) {
    if (seen.arguments > 1 && how !== "dropped")
      add("jvp", `the result ${how}`, (n, tangents) => change(jvp(n, tangents)));
    for (const j of range(seen.arguments)) {
      add("jvp", `${argument(j)} ${how}`, (n, tangents) => {
        const moved = tangents.map((t, i) => (i === j ? change(t) : t));
        return moved.every((t) => t === null) ? null : jvp(n, moved);
      });
      add("vjp", `${argument(j)} ${how}`, (n, cotangent, needs) =>
        vjp(n, cotangent, needs).map((part, i) => (i === j ? change(part) : part)),
      );
    }
  }
  for (const [k, side] of range(seen.jvp).flatMap((k) => [0, 1].map((side) => [k, side])))
    add("jvp", `term ${side} of sum ${k} dropped`, (n, tangents) =>
      withoutTerm(jvp(n, tangents), [n, ...tangents], k, side),
    );
  for (const [j, sums] of seen.vjp.entries()) {
    for (const [k, side] of range(sums ?? 0).flatMap((k) => [0, 1].map((side) => [k, side])))
      add("vjp", `${argument(j)}, term ${side} of sum ${k} dropped`, (n, cotangent, needs) =>
        vjp(n, cotangent, needs).map((part, i) =>
          i === j ? withoutTerm(part, [n, cotangent], k, side) : part,
        ),
      );
  }
  return mutants;
}

// --- all of it ---------------------------------------------------------------------------------------------

const without = { compositions: [], "zero everywhere": [] };
const survivors = [];
let [killed, total] = [0, 0];
for (const [op, row] of table) {
  if (args.only !== undefined && op !== args.only) continue;
  const examples = casesOf(op);
  const hasRules = row.jvp !== undefined && row.vjp !== undefined;
  const seen = hasRules ? observe(row, examples) : { wrong: firstFault(examples) };
  if (seen.wrong !== null) {
    console.error(`${op}: the rules as they are fail: ${seen.wrong}`);
    process.exit(2);
  }
  if (!hasRules) {
    without.compositions.push(op);
    continue;
  }
  if (seen.isZero) {
    without["zero everywhere"].push(op);
    continue;
  }
  for (const { rule, name, stand } of mutantsOf(row, seen)) {
    const original = row[rule];
    row[rule] = stand;
    const noticed = firstFault(examples);
    row[rule] = original;
    total++;
    if (noticed === null) survivors.push(name);
    else killed++;
    console.log(noticed === null ? `SURVIVED  ${name}` : `killed    ${name}, by its ${noticed}`);
  }
}
for (const [why, names] of Object.entries(without))
  if (names.length > 0) console.log(`no rules to mutate (${why}): ${names.join(", ")}`);
console.log(`killed ${killed} of ${total} in ${((performance.now() - start) / 1000).toFixed(1)} s`);
for (const name of survivors) console.log(`survived: ${name}`);
process.exitCode = survivors.length > 0 || total === 0 ? 1 : 0;

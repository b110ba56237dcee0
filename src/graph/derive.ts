import { internal } from "../errors.ts";
import { isSampleValue, type Node, reachable } from "./node.ts";
import { add, apply, batchSum, mul, rowOf, scale, sum } from "./ops.ts";
import { substitute } from "./substitute.ts";

/**
 * How contributions to a value that all samples share are gathered: over the batch of `count` samples,
 * or "perSample", where every sample has its own.
 */
export type Gathering = number | "perSample";

/**
 * Cotangents of some targets from that of one output, by reverse accumulation over the table's vjp
 * rules: one node per target, of the target's shape, or null where the output does not depend on it.
 *
 * Where a cotangent leaves the part of the graph that varies with the sample, it is summed over the
 * batch first and pulled back once (so a value of parameters alone is differentiated once per step).
 * Contributions are added from the last use of a value to its first; together with a sum per
 * contribution this fixes the order of every sum, whatever the layout.
 *
 * @param output    the value that is differentiated
 * @param cotangent of the output's shape
 * @param targets   nodes below it: parameter leaves, or values on the way
 */
export function pullback(
  output: Node,
  cotangent: Node,
  targets: readonly Node[],
  gathering: Gathering,
): (Node | null)[] {
  const order = reachable([output]);
  const wanted = new Set<Node>(targets);
  // nodes on a path from a target to the output
  const active = new Set<Node>();
  for (const node of order) {
    if (wanted.has(node) || node.args.some((a) => active.has(a))) active.add(node);
  }
  const cotangents = new Map<Node, Node>();
  if (active.has(output)) {
    cotangents.set(output, isSampleValue(output) ? cotangent : overBatch(cotangent, gathering));
    for (let i = order.length - 1; i >= 0; i--) {
      const node = order[i]!;
      const ct = cotangents.get(node);
      if (ct === undefined || node.args.length === 0) continue;
      const row = rowOf(node.op);
      const vjp = row?.vjp ?? internal("derive", `op ${node.op} has no vjp rule`);
      const needs = node.args.map((a) => active.has(a));
      const parts = vjp(node, ct, needs);
      for (const [j, part] of parts.entries()) {
        const arg = node.args[j]!;
        if (part === null || !needs[j]) continue;
        // the rules of ops that couple samples have gone over the batch themselves
        const leaves = isSampleValue(node) && !isSampleValue(arg) && !row!.couples;
        const contribution = leaves ? overBatch(part, gathering) : part;
        const known = cotangents.get(arg);
        cotangents.set(arg, known === undefined ? contribution : add(known, contribution));
      }
    }
  }
  return targets.map((t) => cotangents.get(t) ?? null);
}

/**
 * Gradient of  sum_i w_i ell_i  over the samples of a batch with respect to some parameters.
 *
 * @param loss    scalar per-sample loss
 * @param targets parameter leaves
 * @param weight  the seed w: a number node when all samples weigh the same, else a sample value
 * @param count   samples in the batch
 */
export function gradient(
  loss: Node,
  targets: readonly Node[],
  weight: Node,
  count: Gathering,
): (Node | null)[] {
  return pullback(loss, weight, targets, count);
}

/**
 * v^T H v of  sum_i w_i ell_i  for the Hessian H with respect to some leaves: with first-order tangents
 * d and the cotangents of the loss, which do not depend on v,
 *
 *   v^T H v = sum over values y = f(x) of  <cotangent of y, D^2 f(x) [d, d]>
 *
 * No tangent is carried backward, so each further v costs the forward products alone.
 *
 * @param weight     the seed w, as of `gradient`
 * @param directions v, one node per leaf
 */
export function curvature(
  loss: Node,
  weight: Node,
  directions: ReadonlyMap<Node, Node>,
  count: number,
): Node | null {
  const first = new Map<Node, Node | null>(directions);
  const bent: { node: Node; second: Node }[] = [];
  for (const node of reachable([loss])) {
    if (first.has(node)) continue;
    const moved = node.args.map((a) => first.get(a) ?? null);
    if (moved.every((d) => d === null)) continue;
    const jvp = rowOf(node.op)?.jvp ?? internal("derive", `op ${node.op} has no jvp rule`);
    const d = jvp(node, [moved[0] ?? null, moved[1] ?? null, ...moved.slice(2)]);
    first.set(node, d);
    if (d === null) continue;
    const second = secondDerivative(node, moved);
    if (second !== null) bent.push({ node, second });
  }
  const cotangents = pullback(
    loss,
    weight,
    bent.map((b) => b.node),
    count,
  );
  let perSample: Node | null = null;
  let shared: Node | null = null;
  for (const [i, { second }] of bent.entries()) {
    const ct = cotangents[i]!;
    if (ct === null) continue;
    const part = sum(mul(ct, second));
    if (isSampleValue(bent[i]!.node)) perSample = perSample === null ? part : add(perSample, part);
    else shared = shared === null ? part : add(shared, part);
  }
  const overAll = perSample === null ? null : overBatch(perSample, count);
  return overAll === null ? shared : shared === null ? overAll : add(overAll, shared);
}

/**
 * D^2 f(x) [d, d] of one op. Its rule is applied twice to leaves that stand for the arguments and directions: with
 * the arguments themselves, simplifications of the graph could see through to what lies behind them.
 */
function secondDerivative(node: Node, directions: readonly (Node | null)[]): Node | null {
  const { graph, op, attrs } = node;
  const x = node.args.map((a, i) => standIn(a, `${i}`));
  const d = directions.map((t, i) => t && standIn(t, `d${i}`));
  const value = apply(op, x, attrs, op);
  const along = new Map<Node, Node>();
  for (const [i, leaf] of x.entries()) if (d[i]) along.set(leaf, d[i]);
  const [first] = tangent([value], along);
  const [second] = first == null ? [null] : tangent([first], along);
  if (second == null) return null;
  const back = new Map<Node, Node>();
  for (const [i, leaf] of x.entries()) {
    back.set(leaf, node.args[i]!);
    if (d[i]) back.set(d[i], directions[i]!);
  }
  return substitute([second], graph, back)[0]!;
}

/** A leaf that varies with what a value varies with, by a name no model can have. */
export function standIn(value: Node, name: string): Node {
  const { graph, shape } = value;
  return isSampleValue(value) ? graph.input(`~${name}`, shape) : graph.param(`~${name}`, shape);
}

/** Mean of a value over the `count` samples of a batch. */
export function meanOver(value: Node, count: number): Node {
  return isSampleValue(value) ? scale(batchSum(value, count), 1 / count) : value;
}

/** Sum over the batch; a part that is the same for every sample is multiplied instead. */
function overBatch(part: Node, gathering: Gathering): Node {
  if (gathering === "perSample") return part;
  return isSampleValue(part) ? batchSum(part, gathering) : scale(part, gathering);
}

/**
 * Tangent of some outputs along given tangents of leaves, by the table's jvp rules.
 *
 * @param directions tangents of leaves, or of values on the way, which are then not looked behind; null
 *                   holds a value fixed
 * @returns one node per output, or null where it does not move
 */
export function tangent(
  outputs: readonly Node[],
  directions: ReadonlyMap<Node, Node | null>,
): (Node | null)[] {
  const tangents = new Map<Node, Node | null>(directions);
  for (const node of reachable(outputs)) {
    if (tangents.has(node)) continue;
    const parts = node.args.map((a) => tangents.get(a) ?? null);
    if (parts.every((p) => p === null)) continue;
    const jvp = rowOf(node.op)?.jvp ?? internal("derive", `op ${node.op} has no jvp rule`);
    tangents.set(node, jvp(node, [parts[0] ?? null, parts[1] ?? null, ...parts.slice(2)]));
  }
  return outputs.map((o) => tangents.get(o) ?? null);
}

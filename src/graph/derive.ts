import { internal } from "../errors.ts";
import { type Node, reachable, VARIES_WITH_SAMPLE } from "./node.ts";
import { add, batchSum, rowOf, scale } from "./ops.ts";

/**
 * Gradient of  sum_i w_i ell_i  over the samples of a batch with respect to some parameters:
 * one node per target, of the target's shape, or null where the loss does not depend on it.
 *
 * Reverse accumulation over the table's vjp rules, seeded with the sample weight w. Where a
 * cotangent leaves the part of the graph that varies with the sample, it is summed over the batch
 * first and pulled back once (so a value of parameters alone is differentiated once per step).
 * Contributions are added from the last use of a value to its first; together with `batchSum` per contribution this
 * fixes the order of every sum, whatever the layout.
 *
 * @param loss    scalar per-sample loss
 * @param targets parameter leaves
 * @param weight  the seed w: a number node when all samples weigh the same, else a sample value
 * @param count   samples in the batch, for contributions that do not vary with the sample
 */
export function gradient(loss: Node, targets: readonly Node[], weight: Node, count: number): (Node | null)[] {
  const order = reachable([loss]);
  const wanted = new Set<Node>(targets);
  // nodes on a path from a target to the loss
  const active = new Set<Node>();
  for (const node of order) {
    if (wanted.has(node) || node.args.some((a) => active.has(a))) active.add(node);
  }
  const cotangents = new Map<Node, Node>();
  if (active.has(loss)) {
    cotangents.set(loss, crossing(loss, weight, count));
    for (let i = order.length - 1; i >= 0; i--) {
      const node = order[i]!;
      const ct = cotangents.get(node);
      if (ct === undefined || node.args.length === 0) continue;
      const vjp = rowOf(node.op)?.vjp ?? internal("derive", `op ${node.op} has no vjp rule`);
      const needs = node.args.map((a) => active.has(a));
      const parts = vjp(node, ct, needs);
      for (const [j, part] of parts.entries()) {
        const arg = node.args[j]!;
        if (part === null || !needs[j]) continue;
        const contribution = isSampleValue(node) && !isSampleValue(arg) ? overBatch(part, count) : part;
        const known = cotangents.get(arg);
        cotangents.set(arg, known === undefined ? contribution : add(known, contribution));
      }
    }
  }
  return targets.map((t) => cotangents.get(t) ?? null);
}

const isSampleValue = (node: Node): boolean => (node.varies & VARIES_WITH_SAMPLE) !== 0;

/** The seed of the loss itself, which may depend on parameters alone. */
function crossing(loss: Node, weight: Node, count: number): Node {
  return isSampleValue(loss) ? weight : overBatch(weight, count);
}

/** Sum over the batch; a part that is the same for every sample is multiplied instead. */
function overBatch(part: Node, count: number): Node {
  return isSampleValue(part) ? batchSum(part) : scale(part, count);
}

/**
 * Tangent of some outputs along given tangents of leaves, by the table's jvp rules.
 *
 * @returns one node per output, or null where it does not move
 */
export function tangent(outputs: readonly Node[], directions: ReadonlyMap<Node, Node>): (Node | null)[] {
  const tangents = new Map<Node, Node | null>(directions);
  for (const node of reachable(outputs)) {
    if (tangents.has(node)) continue;
    const parts = node.args.map((a) => tangents.get(a) ?? null);
    if (parts.every((p) => p === null)) continue;
    const jvp = rowOf(node.op)?.jvp ?? internal("derive", `op ${node.op} has no jvp rule`);
    tangents.set(node, jvp(node, [parts[0] ?? null, parts[1] ?? null]));
  }
  return outputs.map((o) => tangents.get(o) ?? null);
}

import { type Node, reachable } from "./node.ts";
import { apply, table } from "./ops.ts";

/** Whether a value depends on a coupling of the samples of a batch. */
export function couplesSamples(root: Node): boolean {
  return reachable([root]).some((node) => table.get(node.op)?.couples === true);
}

/**
 * An expression for batches of a known size: ops that couple samples get their `count`, and with it
 * their shapes. Expressions without such ops come back as they are.
 *
 * @throws NoetherflowError "shape" where the size does not fit, for example a slice of more rows
 */
export function instantiate(root: Node, count: number): Node {
  const done = new Map<Node, Node>();
  for (const node of reachable([root])) {
    const args = node.args.map((a) => done.get(a)!);
    const couples = table.get(node.op)?.couples === true;
    const same = !couples && args.every((a, i) => a === node.args[i]);
    const { attrs } = node;
    done.set(node, same ? node : apply(node.op, args, couples ? { ...attrs, count } : attrs, node.op));
  }
  return done.get(root)!;
}

import { internal } from "../errors.ts";
import { type Graph, type Node, reachable } from "./node.ts";
import { apply } from "./ops.ts";

/**
 * Copies expressions into a graph, leaves replaced as the map says (the data of a sampler takes
 * the place of a model's inputs). Leaves without replacement are copied as they are.
 */
export function substitute(roots: readonly Node[], graph: Graph, leaves: ReadonlyMap<Node, Node>): Node[] {
  const copied = new Map<Node, Node>();
  for (const node of reachable(roots)) {
    const replacement = leaves.get(node);
    if (replacement !== undefined) copied.set(node, replacement);
    else if (node.args.length > 0) {
      copied.set(
        node,
        apply(
          node.op,
          node.args.map((a) => copied.get(a)!),
          node.attrs,
        ),
      );
    } else copied.set(node, copyLeaf(node, graph));
  }
  return roots.map((r) => copied.get(r)!);
}

function copyLeaf(node: Node, graph: Graph): Node {
  const { name, shape, kind, below, values, c } = node.attrs;
  if (node.graph === graph) return node;
  switch (node.op) {
    case "number":
      return graph.number(c!);
    case "constant":
      return graph.constant(values!, node.shape, `sampler.${name}`);
    case "noise":
      return graph.noise(name!, kind!, shape!, below);
    default:
      return internal("substitute", `leaf ${node.op} ${name} has no replacement`);
  }
}

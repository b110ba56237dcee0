import { internal } from "../errors.ts";
import { type Node, reachable } from "./node.ts";
import { table } from "./ops.ts";
import type { ExpressionJSON } from "./parse.ts";

/** Nesting deeper than this is broken by a `let`, so that any JSON reader can take the file. */
const MAX_DEPTH = 100;

/**
 * Expressions of some roots as JSON, with a `let` for every node used twice.
 *
 * @param taken names a `let` must not use
 * @param names of leaves that are not to be called by their own
 */
export function printExpressions(
  roots: readonly Node[],
  taken: ReadonlySet<string>,
  names: ReadonlyMap<Node, string> = new Map(),
): { lets: [string, ExpressionJSON][]; expressions: ExpressionJSON[] } {
  const order = reachable(roots);
  const uses = new Map<Node, number>();
  for (const node of order) for (const arg of node.args) uses.set(arg, (uses.get(arg) ?? 0) + 1);
  for (const root of roots) uses.set(root, (uses.get(root) ?? 0) + 1);

  const lets: [string, ExpressionJSON][] = [];
  const written = new Map<Node, { json: ExpressionJSON; depth: number }>();
  let counter = 0;
  for (const node of order) {
    const known = names.get(node);
    let { json, depth } =
      known === undefined
        ? printNode(node, (arg) => written.get(arg) ?? internal("print", "an argument came after its user"))
        : { json: known as ExpressionJSON, depth: 0 };
    if (node.args.length > 0 && ((uses.get(node) ?? 0) > 1 || depth >= MAX_DEPTH)) {
      let name: string;
      do name = `t${counter++}`;
      while (taken.has(name));
      lets.push([name, json]);
      json = name;
      depth = 0;
    }
    written.set(node, { json, depth });
  }
  return { lets, expressions: roots.map((root) => written.get(root)!.json) };
}

function printNode(
  node: Node,
  of: (arg: Node) => { json: ExpressionJSON; depth: number },
): { json: ExpressionJSON; depth: number } {
  if (node.op === "number") return { json: node.attrs.c!, depth: 0 };
  if (node.args.length === 0) return { json: node.attrs.name!, depth: 0 };
  const args = node.args.map(of);
  const json: unknown[] = [node.op, ...args.map((a) => a.json)];
  const allowed = table.get(node.op)?.options ?? [];
  if (allowed.includes("c")) json.push(node.attrs.c);
  const options: Record<string, unknown> = {};
  for (const name of allowed) {
    if (name !== "c" && name !== "count" && node.attrs[name] !== undefined) options[name] = node.attrs[name];
  }
  if (Object.keys(options).length > 0) json.push(options);
  return { json, depth: 1 + Math.max(...args.map((a) => a.depth)) };
}

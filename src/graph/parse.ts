import { fail, nearest, show } from "../errors.ts";
import { type Attrs, checkShape, type Graph, type Node, type Shape, sameShape, sizeOf } from "./node.ts";
import { apply, argumentsOf, publicOps, table } from "./ops.ts";

/** An expression in a model file: a name, a number, or [op, argument, ..., { options }]. */
export type ExpressionJSON = string | number | readonly unknown[];

/** More nodes than this in one file are refused. */
export const MAX_NODES = 100_000;

/** Names in force while a file is read. A Map, so that `constructor` is an ordinary name. */
export type Scope = Map<string, Node>;

interface Frame {
  readonly json: readonly unknown[];
  readonly op: string;
  readonly count: number;
  readonly args: Node[];
}

/** Counts nodes over all expressions of one file. */
export class Reader {
  #count = 0;

  constructor(
    readonly graph: Graph,
    readonly scope: Scope,
  ) {}

  /**
   * Reads one expression. Iterative: a file from a stranger may nest as deep as it likes.
   *
   * @param path where the expression stands ("loss", "let[2]"), for messages
   */
  read(json: unknown, path: string): Node {
    const frames: Frame[] = [];
    let current: unknown = json;
    for (;;) {
      const here = () => path + frames.map((f) => `[${f.args.length + 1}]`).join("");
      if (++this.#count > MAX_NODES)
        fail("memory", path, `a model may have at most ${MAX_NODES} nodes`, "more");
      let node: Node | undefined;
      if (typeof current === "string") {
        node = this.scope.get(current);
        if (node === undefined) {
          fail(
            "name",
            here(),
            "expected a parameter, input, constant or let name",
            show(current),
            nearest(current, [...this.scope.keys()]),
          );
        }
      } else if (typeof current === "number") {
        if (!Number.isFinite(current))
          fail("nonfinite", here(), "a literal must be a finite number", show(current));
        node = this.graph.number(current);
      } else if (Array.isArray(current)) {
        const op: unknown = current[0];
        if (typeof op !== "string" || !publicOps.includes(op)) {
          fail(
            "name",
            here(),
            "expected [op, arguments...] with a known op",
            show(op),
            typeof op === "string" ? nearest(op, publicOps) : undefined,
          );
        }
        const row = table.get(op as string)!;
        const last: unknown = current[current.length - 1];
        const count = row.arity === "some" ? current.length - (isRecord(last) ? 2 : 1) : row.arity;
        if (count < 1) fail("shape", here(), `${row.name} takes ${argumentsOf(row)}`, "none");
        frames.push({ json: current, op: op as string, count, args: [] });
      } else {
        fail("shape", here(), "expected a name, a number or [op, arguments...]", show(current));
      }
      // close every frame whose arguments are complete
      while (frames.length > 0) {
        const frame = frames[frames.length - 1]!;
        if (node !== undefined) frame.args.push(node);
        if (frame.args.length < frame.count) {
          if (frame.args.length + 1 >= frame.json.length) {
            fail(
              "shape",
              here(),
              `${frame.op} takes ${argumentsOf(table.get(frame.op)!)}`,
              `${frame.json.length - 1}`,
            );
          }
          break;
        }
        frames.pop();
        node = this.#close(frame, here);
      }
      if (frames.length === 0) return node!;
      const top = frames[frames.length - 1]!;
      current = top.json[top.args.length + 1];
    }
  }

  #close(frame: Frame, where: () => string): Node {
    const rest = frame.json.slice(frame.count + 1);
    const attrs: { -readonly [K in keyof Attrs]: Attrs[K] } = {};
    const allowed = table.get(frame.op)!.options ?? [];
    if (allowed.includes("c")) {
      const c = rest.shift();
      if (typeof c !== "number" || !Number.isFinite(c))
        fail("range", where(), `${frame.op} takes a value and a finite number`, show(c));
      attrs.c = c as number;
    }
    const options = rest.shift();
    if (rest.length > 0 || (options !== undefined && !isRecord(options))) {
      fail(
        "shape",
        where(),
        `${frame.op} takes ${argumentsOf(table.get(frame.op)!)} and then an object of options`,
        show(options),
      );
    }
    let shapes: unknown;
    for (const [key, value] of Object.entries(options ?? {})) {
      if (key === "shapes" && frame.count === 2) shapes = value;
      else if (key === "axis" && allowed.includes("axis")) {
        if (value !== null && typeof value !== "number")
          fail("range", where(), "axis must be an integer or null", show(value));
        attrs.axis = value as number | null;
      } else if (key === "keepdims" && allowed.includes("keepdims")) {
        if (typeof value !== "boolean") fail("range", where(), "keepdims must be true or false", show(value));
        attrs.keepdims = value as boolean;
      } else if (key === "shape" && allowed.includes("shape")) attrs.shape = checkShape(where(), value);
      else if (isNumberOption(key) && allowed.includes(key)) {
        if (typeof value !== "number") fail("range", where(), `${key} must be a number`, show(value));
        attrs[key] = value as number;
      } else {
        const known = [
          ...allowed.filter((o) => o !== "c" && o !== "count"),
          ...(frame.count === 2 ? ["shapes"] : []),
        ];
        fail(
          "name",
          where(),
          known.length > 0
            ? `options of ${frame.op} are ${known.join(", ")}`
            : `${frame.op} takes no options`,
          show(key),
          nearest(key, known),
        );
      }
    }
    const node = apply(frame.op, frame.args, attrs, where);
    if (shapes !== undefined) checkShapes(where(), shapes, [...frame.args.map((a) => a.shape), node.shape]);
    return node;
  }
}

const NUMBER_OPTIONS = ["slope", "start", "stop", "before", "after"] as const;
const isNumberOption = (key: string): key is (typeof NUMBER_OPTIONS)[number] =>
  (NUMBER_OPTIONS as readonly string[]).includes(key);

/** The option `shapes: [a, b, result]` only spells out what is inferred; a contradiction is an error. */
function checkShapes(where: string, given: unknown, inferred: readonly Shape[]): void {
  const said = Array.isArray(given) ? given.map((s) => checkShape(where, s)) : [];
  if (said.length !== inferred.length || said.some((s, i) => !sameShape(s, inferred[i]!))) {
    fail("shape", where, `shapes should be ${JSON.stringify(inferred)}`, show(given));
  }
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !ArrayBuffer.isView(value);
}

/** A name a file may introduce. */
export function checkName(where: string, name: unknown, scope?: Scope): string {
  if (typeof name !== "string" || !/^[\p{L}_][\p{L}\p{N}_.']{0,63}$/u.test(name) || name === "__proto__") {
    fail("name", where, "a name is a letter or _, then letters, digits, _, . or ' (64 at most)", show(name));
  }
  if (scope?.has(name as string))
    fail("name", where, "names must be distinct", show(name), "Rename one of the two.");
  return name as string;
}

/**
 * Values given by a caller or a file: nested arrays or flat row-major, typed or not, all finite.
 *
 * @param shape the expected shape, or null to take it from nested arrays
 */
export function readValues(
  where: string,
  value: unknown,
  shape: Shape | null,
): { values: Float64Array; shape: Shape } {
  const dims: number[] = [];
  if (shape === null) {
    for (
      let level = value;
      Array.isArray(level) || ArrayBuffer.isView(level);
      level = (level as unknown[])[0]
    ) {
      dims.push((level as unknown[]).length);
      if (dims.length > 2) break;
    }
  }
  const target = checkShape(where, shape ?? dims);
  const values = flatten(where, value, sizeOf(target), target);
  return { values, shape: target };
}

/**
 * Row-major copy of numbers given flat or nested by the shape, typed or not; refuses another count,
 * rows that do not fit and anything not finite, before it allocates.
 */
export function flatten(where: string, value: unknown, count: number, shape: Shape): Float64Array {
  const wrong = (got: string): never =>
    fail("shape", where, `expected ${count} numbers, shape [${shape.join(", ")}]`, got);
  if (typeof value === "number" && count !== 1) wrong(show(value));
  if (typeof value !== "number") checkStructure(value, shape, wrong);
  const out = new Float64Array(count);
  if (ArrayBuffer.isView(value)) {
    // typed arrays hold numbers side by side; thetas come this way for every measurement
    out.set(value as unknown as ArrayLike<number>);
    const at = out.findIndex((x) => !Number.isFinite(x));
    if (at >= 0) fail("nonfinite", where, "values must be finite", `${out[at]} at position ${at}`);
    return out;
  }
  let filled = 0;
  const put = (x: unknown): void => {
    if (typeof x !== "number") wrong(show(x));
    if (!Number.isFinite(x)) fail("nonfinite", where, "values must be finite", `${x} at position ${filled}`);
    out[filled++] = x as number;
  };
  const walk = (level: unknown): void => {
    if (typeof level === "number") return put(level);
    const list = level as ArrayLike<unknown>;
    for (let i = 0; i < list.length; i++) walk(list[i]);
  };
  walk(value);
  return out;
}

/** Numbers side by side, or arrays that hold the rest of the shape each. Depth is that of the shape. */
function checkStructure(value: unknown, dims: Shape, wrong: (got: string) => never): void {
  const isTyped = ArrayBuffer.isView(value) && !(value instanceof DataView);
  if (value instanceof BigInt64Array || value instanceof BigUint64Array) return wrong(show(value[0]));
  if (!isTyped && !Array.isArray(value)) return wrong(show(value));
  const list = value as ArrayLike<unknown>;
  const total = sizeOf(dims);
  const nested = !isTyped && list.length > 0 && typeof list[0] === "object" && list[0] !== null;
  if (!nested) {
    if (list.length !== total) wrong(`${list.length}`);
    for (let i = 0; i < (isTyped ? 0 : list.length); i++)
      if (typeof list[i] !== "number") wrong(show(list[i]));
    return;
  }
  if (dims.length === 0) wrong("arrays nested deeper than the shape");
  if (list.length !== dims[0]) wrong(`${list.length} rows`);
  for (let i = 0; i < list.length; i++) checkStructure(list[i], dims.slice(1), wrong);
}

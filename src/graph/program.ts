import type { Arena } from "../core/arena.ts";
import { type Code, passFields, runFields } from "./instructions.ts";
import type { Planner } from "./layout.ts";
import type { Pass } from "./lower.ts";
import type { Node } from "./node.ts";

/** How a pass finds the records of its samples. */
export type Draws =
  | { readonly kind: "none" }
  /** A window of Philox draws. */
  | {
      readonly kind: "window";
      readonly window: number;
      readonly strideBytes: number;
      readonly feed?: number;
    }
  /** The same table of byte offsets in every update: the whole data set in order. With a feed there is no table. */
  | { readonly kind: "all"; readonly table: number; readonly feed?: number }
  /** A table with the draws of every update, a row each. */
  | { readonly kind: "table"; readonly table: number; readonly rowBytes: number; readonly feed?: number };

/** A lowered pass with addresses for its code; nothing is written before `install`. */
export interface PlacedPass {
  readonly address: number;
  readonly pass: Pass;
  readonly draws: Draws;
  /** What its random leaves are drawn for; 0 for what the run says. */
  readonly purpose: number;
  readonly code: readonly [Code, number][];
}

export function placePass(planner: Planner, pass: Pass, draws: Draws, purpose = 0): PlacedPass {
  const address = planner.take(4 * passFields.length);
  const code = [pass.setup, pass.before, pass.body, pass.tail, pass.after].map((c): [Code, number] => [
    c,
    planner.take(c.byteLength),
  ]);
  return { address, pass, draws, purpose, code };
}

/** Writes a pass into memory; its setup code is then at [start, end) to be executed once. */
export function installPass(arena: Arena, placed: PlacedPass): { setup: number; setupEnd: number } {
  for (const [code, address] of placed.code) if (code.length > 0) code.writeTo(arena.buffer, address);
  const range = (i: number): [number, number] => {
    const [code, address] = placed.code[i]!;
    return [address, address + code.byteLength];
  };
  const [setup, setupEnd] = range(0);
  const [before, beforeEnd] = range(1);
  const [body, bodyEnd] = range(2);
  const [tail, tailEnd] = range(3);
  const [after, afterEnd] = range(4);
  const { draws } = placed;
  writeFields(arena, placed.address, passFields, {
    BEFORE: before,
    BEFORE_END: beforeEnd,
    BODY: body,
    BODY_END: bodyEnd,
    TAIL: tail,
    TAIL_END: tailEnd,
    AFTER: after,
    AFTER_END: afterEnd,
    BLOCKS: placed.pass.blocks,
    BLOCK_LANES: placed.pass.blockLanes,
    REST: placed.pass.rest,
    DRAW_KIND: draws.kind === "window" ? 1 : 0,
    DRAW_TABLE: draws.kind === "window" ? draws.window : draws.kind === "none" ? 0 : draws.table,
    DRAW_STRIDE: draws.kind === "window" ? draws.strideBytes : 4,
    DRAW_ROW: draws.kind === "table" ? draws.rowBytes : 0,
    WHOLE: placed.pass.whole ? 1 : 0,
    PURPOSE_OF_NOISE: placed.purpose,
    FEED: draws.kind === "none" ? 0 : (draws.feed ?? 0),
  });
  return { setup, setupEnd };
}

/** Writes a control block; fields not named are 0. */
export function writeRun(
  arena: Arena,
  address: number,
  values: Partial<Record<(typeof runFields)[number], number>>,
): void {
  writeFields(arena, address, runFields, values);
}

export function setRun(
  arena: Arena,
  address: number,
  field: (typeof runFields)[number],
  value: number,
): void {
  arena.words(address + 4 * runFields.indexOf(field), 1)[0] = value;
}

export function getRun(arena: Arena, address: number, field: (typeof runFields)[number]): number {
  return arena.words(address + 4 * runFields.indexOf(field), 1)[0]!;
}

export const RUN_BYTES = 4 * runFields.length;

export function writeFields<T extends string>(
  arena: Arena,
  address: number,
  names: readonly T[],
  values: Partial<Record<T, number>>,
): void {
  const words = arena.words(address, names.length);
  for (const [i, name] of names.entries()) words[i] = values[name] ?? 0;
}

/** Writes constants collected while lowering. */
export function writeConstants(arena: Arena, constants: ReadonlyMap<number, Node>): void {
  for (const [address, node] of constants) {
    if (node.op === "number") arena.reals(address, 1)[0] = node.attrs.c!;
    else arena.reals(address, node.attrs.values!.length).set(node.attrs.values!);
  }
}

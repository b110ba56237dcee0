import { type Key, PURPOSE } from "../core/key.ts";
import { checkInteger } from "../errors.ts";
import type { Host } from "../models/evaluate.ts";

/** What probes are made of, and word c1 of their counters. */
const FAMILY = { signs: 0, normals: 1 } as const;

/**
 * Probe vectors with independent entries, mean 0 and covariance I, drawn in Wasm: "signs" are -1 or 1, "normals"
 * standard normal. Entry e of probe j is a function of (key, kind, j, e) alone, however many are asked for.
 *
 *   counter (e >> 2 for signs, e >> 1 for normals; 0 for signs, 1 for normals; j; 6)
 *
 * On an f32 engine normals are rounded to f32.
 *
 * @param first index of the first probe
 * @returns flat [count][size], the caller's own
 */
export function probes(
  host: Host,
  key: Key,
  kind: keyof typeof FAMILY,
  size: number,
  first: number,
  count: number,
): Float64Array {
  const { arena, core } = host;
  checkInteger("probes", "the index of the last probe", first + count - 1, 0, 0xffffffff);
  const draw = kind === "signs" ? core.exports.signLanes : core.exports.normalLanes;
  const out = new Float64Array(count * size);
  const { region } = arena.reserve("probes", () => ({ bytes: (size + 8) * core.real.bytes }));
  try {
    for (let j = 0; j < count; j++) {
      draw(region.base, size, 1, 1, 0, FAMILY[kind], first + j, PURPOSE.probe, 0, 0, key.key0, key.key1);
      out.set(arena.reals(region.base, size), j * size);
    }
  } finally {
    arena.release(region);
  }
  return out;
}

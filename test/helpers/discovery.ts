import { Arena } from "../../src/core/arena.ts";
import type { Engine, Generator, Model } from "../../src/index.ts";
import { Measure } from "../../src/models/measure.ts";
import { type Data, Samples } from "../../src/models/samples.ts";

const arenas = new WeakMap<Engine, Arena>();

/**
 * A measure on an engine that has no problems of its own: both would hand out the same memory. Give it back with
 * `measure.dispose()` and `measure.samples.dispose()`.
 */
export function measureOf(engine: Engine, model: Model, data: Data): Measure {
  const { core } = engine;
  const arena = arenas.get(engine) ?? new Arena(core.memory, core.exports.heapBase(), core.real.bytes);
  arenas.set(engine, arena);
  const host = { core, arena };
  const samples = Samples.create(host, model, data, {});
  return new Measure(host, model, samples);
}

/** A of a generator as P x P, written out: P -> s P + L P + P R on each block. */
export function denseOf(model: Model, A: Generator): Float64Array {
  if (A.blocks === null) return A.dense!;
  const { P } = model;
  const out = new Float64Array(P * P);
  for (const [name, { scalar = 0, left, right }] of A.blocks) {
    const { shape, offset } = model.block(name);
    const [rows, cols] = [shape[0] ?? 1, shape[1] ?? 1];
    for (let i = 0; i < rows; i++) {
      for (let j = 0; j < cols; j++) {
        const put = (k: number, l: number, x: number) => {
          out[(offset + i * cols + j) * P + offset + k * cols + l]! += x;
        };
        put(i, j, scalar);
        for (let k = 0; left && k < rows; k++) put(k, j, left.values[i * rows + k]!);
        for (let l = 0; right && l < cols; l++) put(i, l, right.values[l * cols + j]!);
      }
    }
  }
  return out;
}

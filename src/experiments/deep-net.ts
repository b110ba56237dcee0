import type { Engine } from "../engine.ts";
import { type Model, model } from "../graph/model.ts";
import { ops } from "../graph/ops.ts";
import { type Sampler, sampler } from "../graph/sampler.ts";
import { layers } from "../models/layers.ts";
import { losses } from "../models/losses.ts";
import type { Problem } from "../problem.ts";
import { type Generator, generator } from "../symmetry/generator.ts";
import { normalMatrix } from "./linear-net.ts";

/** A feed-forward net of weights W1, W2, ... from the input on: sizes dx, h, ..., h, dy. */
export interface DeepNet {
  readonly activation: "linear" | "relu";
  readonly sizes: readonly number[];
}

export const depthOf = ({ sizes }: DeepNet): number => sizes.length - 1;

/** Squared loss of the net. */
export function deepModel(net: DeepNet): Model {
  const { sizes, activation } = net;
  const names = Array.from({ length: depthOf(net) }, (_, i) => `W${i + 1}`);
  return model({
    params: Object.fromEntries(names.map((name, i) => [name, [sizes[i + 1]!, sizes[i]!]])),
    inputs: { x: [sizes[0]!], y: [sizes.at(-1)!] },
    loss: (leaves) =>
      losses.squared(
        layers.mlp(
          leaves["x"]!,
          names.map((name) => leaves[name]!),
          activation,
        ),
        leaves["y"]!,
      ),
  });
}

/**
 * Labels with noise: of a linear map I + .3 G for a linear net, of a random two-layer ReLU net of the same width otherwise.
 */
export function deepData(
  engine: Engine,
  { sizes, activation }: DeepNet,
  noiseSd: number,
  seed: string,
): Sampler {
  const [dx, h, dy] = [sizes[0]!, sizes[1]!, sizes.at(-1)!];
  const { dense } = engine;
  const random = (rows: number, cols: number, name: string, scale: number) =>
    dense.scale(normalMatrix(engine, rows, cols, `${seed}/${name}`), scale);
  const linear = activation === "linear";
  const first = linear
    ? dense.add(dense.identity(dx), random(dy, dx, "V", 0.3))
    : random(h, dx, "V", Math.sqrt(2 / dx));
  const second = linear ? dense.identity(dy) : random(dy, h, "T", Math.sqrt(2 / h));
  return sampler({
    noise: { x: { kind: "normal", shape: [dx] }, e: { kind: "normal", shape: [dy] } },
    constants: {
      first: { shape: [first.rows, first.cols], values: first.values },
      second: { shape: [second.rows, second.cols], values: second.values },
    },
    outputs: ({ x, e, first: inner, second: outer }) => {
      const z = ops.matmul(inner!, x!);
      return { x: x!, y: ops.add(ops.matmul(outer!, linear ? z : ops.relu(z)), ops.scale(e!, noiseSd)) };
    },
  });
}

/**
 * Initial parameters, layers by turns larger and smaller by sqrt(uneven) than their mean scale: linear layers scale (I + .3 G), ReLU
 * layers scale times He's initialisation; the last of an odd number is at the mean scale.
 */
export function unevenStart(
  problem: Problem,
  net: DeepNet,
  uneven: number,
  replicas: number,
  seed: string,
): Float64Array {
  const linear = net.activation === "linear";
  const L = depthOf(net);
  const theta = Float64Array.from(
    linear ? problem.init("normal", { std: 0.3, seed, replicas }) : problem.init("he", { seed, replicas }),
  );
  const mean = linear ? Math.sqrt(0.75) : Math.sqrt(0.845);
  for (const [l, { offset, size, shape }] of problem.model.blocks.entries()) {
    const turn = l % 2 === 0 ? Math.sqrt(uneven) : 1 / Math.sqrt(uneven);
    const scale = l === L - 1 && L % 2 === 1 ? 1 : mean * turn;
    for (let r = 0; r < replicas; r++) {
      for (let e = 0; e < size; e++) {
        const i = r * problem.P + offset + e;
        const identity = linear && Math.floor(e / shape[1]!) === e % shape[1]! ? 1 : 0;
        theta[i] = scale * (theta[i]! + identity);
      }
    }
  }
  return theta;
}

/** One side of a rescaling: the block, or the column or row of one neuron, with A = 1 there. Its work is that of |g|^2 there. */
export function side(
  block: string,
  at: { readonly columns?: number; readonly rows?: number } = {},
): Generator {
  const range = (i: number) => [i, i + 1];
  return generator({
    name: block,
    blocks: {
      [block]: {
        scalar: 1,
        ...(at.columns === undefined ? {} : { columns: range(at.columns) }),
        ...(at.rows === undefined ? {} : { rows: range(at.rows) }),
      },
    },
  });
}

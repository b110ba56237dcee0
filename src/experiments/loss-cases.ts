import type { Engine } from "../engine.ts";
import type { Node } from "../graph/node.ts";
import { ops } from "../graph/ops.ts";
import { type Sampler, sampler } from "../graph/sampler.ts";
import { losses } from "../models/losses.ts";
import { normalMatrix } from "./linear-net.ts";

/** One loss of f = U W x. */
export interface Case {
  readonly name: string;
  readonly loss: (f: Node, y: Node) => Node;
  /** Labels from the teacher's outputs z with noise: `flip` uniform numbers, `other` normals of the same size. */
  readonly labels: (z: Node, flip: Node, other: Node) => Node;
  /** Step size over that of the squared loss, and batch size. */
  readonly factor: number;
  readonly S: number;
  readonly decays: boolean;
}

/** Of each label, how often a sign is turned, and a class drawn anew. */
const FLIPPED = 0.15;
const REDRAWN = 0.25;

export const CASES: readonly Case[] = [
  { name: "squared", loss: losses.squared, labels: (z) => z, factor: 1, S: 1, decays: false },
  {
    name: "logistic",
    loss: losses.logistic,
    labels: (z, flip) => ops.mul(ops.sign(z), ops.sign(ops.sub(flip, FLIPPED))),
    factor: 12,
    S: 2,
    decays: false,
  },
  {
    name: "cross-entropy",
    loss: losses.crossEntropy,
    labels: (z, flip, other) => {
      // scores far beyond the teacher's decide where the class is drawn anew
      const anew = ops.step(ops.sub(REDRAWN, ops.slice(flip, { start: 0, stop: 1 })));
      return largest(ops.add(z, ops.mul(anew, ops.scale(other, 1e6))));
    },
    factor: 12,
    S: 2,
    decays: false,
  },
  { name: "cosine", loss: losses.cosine, labels: (z) => z, factor: 8, S: 2, decays: true },
];

/** One-hot where z is largest. */
function largest(z: Node): Node {
  const n = z.shape[0]!;
  const entry = (i: number) => ops.slice(z, { start: i, stop: i + 1 });
  return ops.concat(
    Array.from({ length: n }, (_, i) => {
      const wins = Array.from({ length: n }, (__, j) => j).filter((j) => j !== i);
      return wins.map((j) => ops.step(ops.sub(entry(i), entry(j)))).reduce((a, b) => ops.mul(a, b));
    }),
  );
}

/** x ~ N(0, I), labels of a random linear teacher with noise. */
export function dataOf(
  engine: Engine,
  one: Case,
  { dx, dy, noiseSd }: { readonly dx: number; readonly dy: number; readonly noiseSd: number },
  seed: string,
): Sampler {
  const { values } = engine.dense.scale(normalMatrix(engine, dy, dx, seed), 1 / Math.sqrt(dx));
  return sampler({
    noise: {
      x: { kind: "normal", shape: [dx] },
      e: { kind: "normal", shape: [dy] },
      flip: { kind: "uniform", shape: [dy] },
      other: { kind: "normal", shape: [dy] },
    },
    constants: { V: { shape: [dy, dx], values } },
    outputs: ({ x, e, flip, other, V }) => {
      const z = ops.add(ops.matmul(V!, x!), ops.scale(e!, noiseSd));
      return { x: x!, y: one.labels(z, flip!, other!) };
    },
  });
}

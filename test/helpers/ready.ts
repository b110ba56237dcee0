/**
 * Ready models of random sizes, activations, losses and data, with exact symmetries that are known from their algebra. Each
 * generator comes twice: from a constructor of `symmetry`, and as a P x P matrix from what it does to each block, written out
 * here. It catches a constructor that acts on the wrong side, with the wrong sign or degree, or about the wrong center.
 */
import { type Generator, type Loss, type Model, models, ops, symmetry } from "../../src/index.ts";
import { uniforms } from "../reference/grammar.ts";

export type Rows = number[][];
/** Blocks as matrices; a one-dimensional one is a column. */
export type Blocks = Record<string, Rows>;

export interface KnownSymmetry {
  readonly A: Generator;
  /** P x P. */
  readonly dense: Rows;
  readonly center: readonly number[];
}

export interface ReadyModel {
  readonly label: string;
  readonly model: Model;
  readonly N: number;
  readonly data: Record<string, number[]>;
  readonly theta: Float64Array;
  readonly symmetries: readonly KnownSymmetry[];
}

interface Draft {
  readonly model: Model;
  readonly loss?: Loss;
  readonly oneHot?: readonly string[];
  readonly moves: readonly {
    readonly A: Generator;
    readonly move: (blocks: Blocks) => Blocks;
    readonly center?: Blocks;
  }[];
}

// --- matrices, plainly ---------------------------------------------------------------------------------------

export const times = (A: Rows, B: Rows): Rows =>
  A.map((row) => B[0]!.map((_, j) => row.reduce((sum, a, k) => sum + a * B[k]![j]!, 0)));
export const scaled = (A: Rows, c: number): Rows => A.map((row) => row.map((a) => c * a));
export const apply = (A: Rows, v: ArrayLike<number>): number[] =>
  A.map((row) => row.reduce((sum, a, j) => sum + a * v[j]!, 0));
/** v^T A w. */
export const form = (A: Rows, v: ArrayLike<number>, w: ArrayLike<number> = v): number =>
  apply(A, w).reduce((sum, x, i) => sum + x * v[i]!, 0);
const keepRow = (A: Rows, j: number, c: number): Rows =>
  A.map((row, i) => row.map((a) => (i === j ? c * a : 0)));
const keepColumn = (A: Rows, j: number, c: number): Rows =>
  A.map((row) => row.map((a, i) => (i === j ? c * a : 0)));
const diagonal = (n: number, c: number): Rows =>
  Array.from({ length: n }, (_, i) => Array.from({ length: n }, (_, j) => (i === j ? c : 0)));

/** Named blocks of a flat vector. */
export function blocksOf(model: Model, v: ArrayLike<number>): Blocks {
  return Object.fromEntries(
    model.blocks.map(({ name, shape, offset }): [string, Rows] => {
      const [rows, cols] = [shape[0] ?? 1, shape[1] ?? 1];
      return [
        name,
        Array.from({ length: rows }, (_, i) =>
          Array.from({ length: cols }, (_, j) => v[offset + i * cols + j]!),
        ),
      ];
    }),
  );
}

/** The flat vector of blocks, 0 where there are none. */
export function flatOf(model: Model, blocks: Blocks): number[] {
  return model.blocks.flatMap(({ name, size }) => blocks[name]?.flat() ?? new Array<number>(size).fill(0));
}

/** P x P of a linear map on blocks: its columns are the images of the basis. */
export function denseOfMove(model: Model, move: (blocks: Blocks) => Blocks): Rows {
  const { P } = model;
  const columns = Array.from({ length: P }, (_, k) => {
    const basis = Array.from({ length: P }, (_, i) => (i === k ? 1 : 0));
    return flatOf(model, move(blocksOf(model, basis)));
  });
  return Array.from({ length: P }, (_, i) => columns.map((c) => c[i]!));
}

// --- models --------------------------------------------------------------------------------------------------

/** Uniform choices and normal numbers from one seed. */
export class Draw {
  readonly #next: () => number;
  constructor(seed: number) {
    this.#next = uniforms(seed);
  }
  uniform = (low = 0, high = 1): number => low + (high - low) * this.#next();
  between = (low: number, high: number): number => low + Math.floor(this.#next() * (high - low + 1));
  choose = <T>(from: readonly T[]): T => from[this.between(0, from.length - 1)]!;
  normal = (): number => Math.sqrt(-2 * Math.log(1 - this.#next())) * Math.cos(2 * Math.PI * this.#next());
  normals = (n: number, scale = 1): number[] => Array.from({ length: n }, () => scale * this.normal());
  symmetric(n: number): Rows {
    const half = Array.from({ length: n }, () => this.normals(n, 0.5));
    return half.map((row, i) => row.map((x, j) => x + half[j]![i]!));
  }
}

const LOSSES: readonly Loss[] = ["squared", "logistic", "crossEntropy", "cosine"];

/** Double rotation of adjacent blocks U W, written out. */
const rotation = (U: string, W: string, B: Rows) => ({
  A: symmetry.doubleRotation(U, W, B),
  move: (p: Blocks): Blocks => ({ [U]: times(p[U]!, B), [W]: times(scaled(B, -1), p[W]!) }),
});
const rescaled = (U: string, W: string) => ({
  A: symmetry.rescaling(U, W),
  move: (p: Blocks): Blocks => ({ [U]: p[U]!, [W]: scaled(p[W]!, -1) }),
});
const scaledBlocks = (...names: string[]) => ({
  A: symmetry.scaling(...names),
  move: (p: Blocks): Blocks => Object.fromEntries(names.map((n) => [n, p[n]!])),
});
const neuron = (U: string, W: string, j: number, degree: number, bias?: string) => ({
  A: symmetry.neuronRescaling(U, W, j, bias === undefined ? { degree } : { degree, bias }),
  move: (p: Blocks): Blocks => ({
    [U]: keepColumn(p[U]!, j, degree),
    [W]: keepRow(p[W]!, j, -1),
    ...(bias === undefined ? {} : { [bias]: keepRow(p[bias]!, j, -1) }),
  }),
});
/** A generator from data, one unit of two blocks scaled together. */
const unit = (U: string, W: string, j: number) => ({
  A: symmetry.generator({
    name: `unit ${j} of ${U}, ${W}`,
    blocks: { [U]: { scalar: 1, columns: [j, j + 1] }, [W]: { scalar: 1, rows: [j, j + 1] } },
  }),
  move: (p: Blocks): Blocks => ({ [U]: keepColumn(p[U]!, j, 1), [W]: keepRow(p[W]!, j, 1) }),
});

const kinds: Readonly<Record<string, (d: Draw) => Draft>> = {
  rankOne: () => ({ model: models.rankOne(), moves: [rescaled("u", "w")] }),
  twoLayerLinear: (d) => {
    const loss = d.choose(LOSSES);
    const [dx, h, dy] = [d.between(1, 4), d.between(1, 4), d.between(2, 4)];
    const also = loss === "cosine" ? [scaledBlocks("U"), scaledBlocks("W")] : [rescaled("U", "W")];
    return {
      model: models.twoLayerLinear({ dx, h, dy, loss }),
      loss,
      moves: [rotation("U", "W", d.symmetric(h)), ...also],
    };
  },
  deepLinear: (d) => {
    const loss = d.choose(LOSSES);
    const widths = [d.between(1, 3), d.between(2, 3), d.between(1, 3), d.between(2, 3)];
    return {
      model: models.deepLinear({ widths, loss }),
      loss,
      moves: [rotation("W2", "W1", d.symmetric(widths[1]!)), rotation("W3", "W2", d.symmetric(widths[2]!))],
    };
  },
  reluNet: (d) => {
    const loss = d.choose(LOSSES);
    const [dx, h, dy] = [d.between(1, 4), d.between(2, 5), d.between(2, 3)];
    const biases = d.choose([true, false]);
    const model = models.mlp({
      widths: [dx, h, dy],
      biases,
      loss,
      activation: d.choose(["relu" as const, (z) => ops.leakyRelu(z, { slope: 0.2 })]),
    });
    const moves = [neuron("W2", "W1", d.between(0, h - 1), 1, biases ? "b1" : undefined)];
    return { model, loss, moves: biases ? moves : [...moves, rescaled("W2", "W1")] };
  },
  squareNet: (d) => {
    const loss = d.choose(["squared", "logistic"] as const);
    const [dx, h, dy] = [d.between(1, 4), d.between(2, 4), d.between(1, 3)];
    const biases = d.choose([true, false]);
    const bias = biases ? { b1: -1 } : {};
    return {
      model: models.mlp({ widths: [dx, h, dy], biases, loss, activation: "square" }),
      loss,
      moves: [
        {
          A: symmetry.blockScaling({ W2: 2, W1: -1, ...bias }),
          move: (p) => ({
            W2: scaled(p.W2!, 2),
            W1: scaled(p.W1!, -1),
            ...(biases ? { b1: scaled(p.b1!, -1) } : {}),
          }),
        },
        neuron("W2", "W1", d.between(0, h - 1), 2, biases ? "b1" : undefined),
      ],
    };
  },
  residual: (d) => {
    const size = d.between(2, 3);
    const skip = d.uniform(0.3, 1.5);
    const { A, move } = rotation("U", "W", d.symmetric(size));
    const center = { U: diagonal(size, -skip), W: diagonal(size, -skip) };
    return {
      model: models.residual({ d: size, skip }),
      moves: [{ A: symmetry.shifted(A, [...center.U.flat(), ...center.W.flat()]), move, center }],
    };
  },
  normalised: (d) => {
    const which = d.choose(["netA", "netAPrime", "netB", "netBPrime"] as const);
    const [dx, h, dy] = [d.between(2, 4), d.between(2, 4), d.between(2, 3)];
    const separate = which === "netB" || which === "netBPrime";
    const own = separate ? [scaledBlocks("U"), scaledBlocks("W")] : [];
    const units = which === "netAPrime" || which === "netB" ? [unit("U", "W", d.between(0, h - 1))] : [];
    return { model: models[which]({ dx, h, dy }), moves: [scaledBlocks("U", "W"), ...own, ...units] };
  },
  attention: (d) => {
    const [T, dk, heads] = [d.between(2, 4), d.between(1, 3), d.between(1, 2)];
    const size = 2 * heads;
    // block-diagonal over the heads
    const parts = Array.from({ length: heads }, () => d.symmetric(dk));
    const B = diagonal(dk * heads, 0).map((row, i) =>
      row.map((_, j) =>
        Math.floor(i / dk) === Math.floor(j / dk) ? parts[Math.floor(i / dk)]![i % dk]![j % dk]! : 0,
      ),
    );
    return {
      model: models.attention({ T, d: size, dk, heads, output: d.choose([true, false]) }),
      moves: [
        {
          A: symmetry.keyQuery("Wq", "Wk", B),
          move: (p) => ({ Wq: times(p.Wq!, B), Wk: times(p.Wk!, scaled(B, -1)) }),
        },
      ],
    };
  },
  layerNorm: (d) => ({
    model: models.layerNormNet({
      dx: d.between(2, 4),
      h: d.between(3, 5),
      dy: d.between(1, 3),
      activation: d.choose(["linear", "tanh", "softplus"] as const),
      trainReadout: d.choose([true, false]),
    }),
    moves: [scaledBlocks("W")],
  }),
  selfSupervised: (d) => ({
    model: models.selfSupervised({ dx: d.between(2, 5), h: d.between(2, 4) }),
    moves: [scaledBlocks("W")],
  }),
  matrixCompletion: (d) => {
    const rank = d.between(1, 3);
    return {
      model: models.matrixCompletion({ rows: d.between(2, 4), cols: d.between(2, 4), rank }),
      oneHot: ["row", "col"],
      moves: [rotation("U", "W", d.symmetric(rank)), rescaled("U", "W")],
    };
  },
};

export const readyKinds: readonly string[] = Object.keys(kinds);

/** A ready model, its size and numbers from the seed, its kind in turn. */
export function readyModel(seed: number, N?: number): ReadyModel {
  const d = new Draw(seed);
  const kind = readyKinds[seed % readyKinds.length]!;
  const { model, loss, oneHot = [], moves } = kinds[kind]!(d);
  const samples = N ?? d.between(4, 12);
  const data = Object.fromEntries(
    model.inputs.map(({ name, size }): [string, number[]] => {
      const hot = oneHot.includes(name) || (name === "y" && loss === "crossEntropy");
      const one = (): number[] => {
        if (!hot) return d.normals(size).map((x) => (name === "y" && loss === "logistic" ? Math.sign(x) : x));
        const at = d.between(0, size - 1);
        return Array.from({ length: size }, (_, i) => (i === at ? 1 : 0));
      };
      return [name, Array.from({ length: samples }, one).flat()];
    }),
  );
  const scale = d.uniform(0.4, 1.1);
  const theta = Float64Array.from(d.normals(model.P, scale));
  return {
    label: `${kind}, seed ${seed}, P ${model.P}, N ${samples}`,
    model,
    N: samples,
    data,
    theta,
    symmetries: moves.map(({ A, move, center = {} }) => ({
      A,
      dense: denseOfMove(model, move),
      center: flatOf(model, center),
    })),
  };
}

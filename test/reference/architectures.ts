/**
 * Small random architectures whose exponential symmetries are known by construction: model file, data, and every
 * generator as a dense matrix with its name. Nothing here looks at gradients; what a discovery finds is compared with what
 * the algebra of the layers says. It catches generators that are missed or invented, and wrong names.
 *
 * Numbers come from mulberry32, so that a seed is all there is to say about a failure.
 */
import { uniforms } from "./grammar.ts";

type Expression = unknown;

/** One unit matrix on one side of a block: P -> w E P or P -> w P E, E = E_kl + E_lk or E_kk; "all" for w P. */
interface Action {
  readonly block: string;
  readonly side: "left" | "right" | "all";
  readonly k: number;
  readonly l: number;
  readonly weight: number;
}

export interface Expected {
  /** Names that are right; empty where the choice of a basis is free. */
  readonly names: readonly string[];
  /** P x P, row-major. */
  readonly A: Float64Array;
  readonly flat: boolean;
}

export interface Architecture {
  readonly seed: number;
  readonly kind: string;
  readonly model: {
    readonly params: Record<string, number[]>;
    readonly inputs: Record<string, number[]>;
    readonly loss: Expression;
  };
  readonly data: Record<string, number[]>;
  readonly P: number;
  readonly form: "symmetric" | "affine";
  readonly expected: readonly Expected[];
  /** Translations as fields b of their own, in the affine form. */
  readonly shifts: readonly string[];
}

/** What is put together. */
class Draft {
  readonly params: Record<string, number[]> = {};
  readonly inputs: Record<string, number[]> = {};
  readonly losses: Expression[] = [];
  readonly moving: {
    names: string[];
    actions: Action[];
    entries: [string, number, string, number, number][];
  }[] = [];
  /** Directions nothing depends on: [block, entry, value]. */
  readonly invisible: { name: string; vector: [string, number, number][] }[] = [];
  form: "symmetric" | "affine" = "symmetric";

  param(name: string, shape: number[]): string {
    this.params[name] = shape;
    return name;
  }

  input(name: string, shape: number[]): string {
    this.inputs[name] = shape;
    return name;
  }

  get P(): number {
    return Object.values(this.params).reduce((n, shape) => n + size(shape), 0);
  }

  squared(f: Expression, shape: number[]): void {
    const y = this.input(`y${this.losses.length}`, shape);
    this.losses.push(["sqnorm", ["sub", f, y]]);
  }

  generator(name: string | string[], actions: Action[]): void {
    this.moving.push({ names: [name].flat(), actions, entries: [] });
  }

  /** Double rotations of a product, every (k, l), the bias (if any) on the side of W. */
  rotations(
    h: number,
    up: [string, "left" | "right"],
    down: [string, "left" | "right"][],
    kind: string,
  ): void {
    const names = down.map(([block]) => block);
    const falls = names.length === 1 ? names[0]! : `(${names.join(", ")})`;
    const weights = (k: number, l: number): Action[] => [
      { block: up[0], side: up[1], k, l, weight: 1 },
      ...down.map(([block, side]): Action => ({ block, side, k, l, weight: -1 })),
    ];
    if (h === 1) this.generator(names.length > 1 ? `rescaling ${up[0]}, ${falls}` : [], weights(0, 0));
    else
      for (let k = 0; k < h; k++)
        for (let l = k; l < h; l++) this.generator(`${kind} ${up[0]}, ${falls} (${k}, ${l})`, weights(k, l));
  }
}

const size = (shape: readonly number[]): number => shape.reduce((n, d) => n * d, 1);

/** A random integer in [from, to]. */
type Draw = (from: number, to: number) => number;

const column = (block: string, k: number, weight: number): Action => ({
  block,
  side: "right",
  k,
  l: k,
  weight,
});
const row = (block: string, k: number, weight: number): Action => ({ block, side: "left", k, l: k, weight });
const whole = (block: string, weight: number): Action => ({ block, side: "all", k: 0, l: 0, weight });

/** W x + b. */
function affine(draft: Draft, W: string, x: Expression, out: number, inputs: number, b?: string): Expression {
  draft.param(W, [out, inputs]);
  const z = ["matmul", W, x];
  return b === undefined ? z : ["add", z, draft.param(b, [out])];
}

/** A net of linear maps with an activation between; `join` says what the hidden layer l has for symmetries. */
function net(
  draft: Draft,
  widths: readonly number[],
  biases: boolean,
  activation: (z: Expression) => Expression,
  join: (l: number, h: number, names: { up: string; W: string; b: string | undefined }) => void,
): Expression {
  let y: Expression = draft.input("x", [widths[0]!]);
  for (let l = 1; l < widths.length; l++) {
    if (l > 1) y = activation(y);
    y = affine(draft, `W${l}`, y, widths[l]!, widths[l - 1]!, biases ? `b${l}` : undefined);
    if (l + 1 < widths.length)
      join(l, widths[l]!, { up: `W${l + 1}`, W: `W${l}`, b: biases ? `b${l}` : undefined });
  }
  return y;
}

const layerNorm = (z: Expression): Expression => {
  const centred = ["sub", z, ["mean", z, { axis: 0, keepdims: true }]];
  return ["div", centred, ["sqrt", ["mean", ["square", centred], { axis: 0, keepdims: true }]]];
};

const unitRows = (W: string): Expression => [
  "div",
  W,
  ["sqrt", ["sum", ["square", W], { axis: 1, keepdims: true }]],
];
const unitColumns = (U: string): Expression => [
  "div",
  U,
  ["sqrt", ["sum", ["square", U], { axis: 0, keepdims: true }]],
];

/** What an architecture is, by name. Each adds parameters, a loss, and what leaves it unchanged. */
const kinds: Record<string, (draft: Draft, draw: Draw) => void> = {
  /** Double rotation of each adjacent pair; between two scalars u^T K w too. */
  linear(draft, draw) {
    const widths = [draw(1, 2), draw(1, 3), draw(1, 2)];
    const biases = draw(0, 2) === 0;
    const y = net(
      draft,
      widths,
      biases,
      (z) => z,
      (_, h, { up, W, b }) => {
        const down: [string, "left"][] =
          b === undefined
            ? [[W, "left"]]
            : [
                [W, "left"],
                [b, "left"],
              ];
        draft.rotations(h, [up, "right"], down, "double rotation");
      },
    );
    if (!biases && widths[0] === 1 && widths[2] === 1) exchange(draft, "W1", "W2", widths[1]!);
    draft.squared(y, [widths[2]!]);
  },

  deepLinear(draft, draw) {
    const widths = [2, draw(1, 2), draw(1, 2), 2];
    const y = net(
      draft,
      widths,
      draw(0, 3) === 0 && widths[1]! + widths[2]! < 4,
      (z) => z,
      (_, h, { up, W, b }) => {
        const down: [string, "left"][] =
          b === undefined
            ? [[W, "left"]]
            : [
                [W, "left"],
                [b, "left"],
              ];
        draft.rotations(h, [up, "right"], down, "double rotation");
      },
    );
    // a chain of widths 1 has many bases
    if (widths[1] === 1 && widths[2] === 1) for (const g of draft.moving) g.names.length = 0;
    draft.squared(y, [2]);
  },

  /** U stored transposed: both factors are turned from the left. */
  transposed(draft, draw) {
    const [dx, h, dy] = [draw(2, 3), draw(2, 3), draw(1, 2)];
    const x = draft.input("x", [dx]);
    draft.param("U", [h, dy]);
    const z = affine(draft, "W", x, h, dx);
    draft.rotations(h, ["U", "left"], [["W", "left"]], "double rotation");
    draft.squared(["matmul", ["transpose", "U"], z], [dy]);
  },

  relu: (draft, draw) => homogeneous(draft, draw, (z) => [draw(0, 1) === 0 ? "relu" : "abs", z], 1),
  leaky: (draft, draw) => homogeneous(draft, draw, (z) => ["leaky_relu", z, { slope: 0.3 }], 1),
  square: (draft, draw) => homogeneous(draft, draw, (z) => ["square", z], 2),

  tanh(draft, draw) {
    const dy = draw(1, 2);
    const widths = [draw(1, 2), draw(2, 3), dy];
    const y = net(
      draft,
      widths,
      draw(0, 1) === 0,
      (z) => [draw(0, 1) === 0 ? "tanh" : "sigmoid", z],
      () => {},
    );
    draft.squared(y, [dy]);
  },

  layerNorm(draft, draw) {
    const [dx, h, dy] = [draw(1, 2), 3, draw(1, 2)];
    const biases = draw(0, 1) === 0;
    const x = draft.input("x", [dx]);
    const z = affine(draft, "W", x, h, dx, biases ? "b" : undefined);
    for (let j = 0; j < dx; j++)
      translate(draft, `translation of column ${j} of W`, "W", h, (i) => i * dx + j);
    if (biases) translate(draft, "translation of b", "b", h, (i) => i);
    draft.generator(biases ? "scaling of W, b" : "scaling of W", [
      whole("W", 1),
      ...(biases ? [whole("b", 1)] : []),
    ]);
    draft.param("U", [dy, h]);
    // normalised features sum to 0
    for (let i = 0; i < dy; i++) translate(draft, `translation of row ${i} of U`, "U", h, (j) => i * h + j);
    draft.squared(["matmul", "U", layerNorm(z)], [dy]);
  },

  layerNormWithGain(draft) {
    const [dx, h, dy] = [2, 3, 1];
    const z = affine(draft, "W", draft.input("x", [dx]), h, dx);
    for (let j = 0; j < dx; j++)
      translate(draft, `translation of column ${j} of W`, "W", h, (i) => i * dx + j);
    draft.generator("scaling of W", [whole("W", 1)]);
    draft.param("gain", [h]);
    draft.param("shift", [h]);
    draft.param("U", [dy, h]);
    for (let j = 0; j < h; j++)
      draft.generator(`neuron scaling ${j} of U, (gain, shift)`, [
        column("U", j, 1),
        row("gain", j, -1),
        row("shift", j, -1),
      ]);
    draft.squared(["matmul", "U", ["add", ["mul", "gain", layerNorm(z)], "shift"]], [dy]);
  },

  weightNorm(draft, draw) {
    const [dx, h, dy] = [2, draw(2, 3), draw(1, 2)];
    const x = draft.input("x", [dx]);
    draft.param("W", [h, dx]);
    for (let j = 0; j < h; j++) draft.generator(`row scaling ${j} of W`, [row("W", j, 1)]);
    draft.param("U", [dy, h]);
    draft.squared(["matmul", "U", ["tanh", ["matmul", unitRows("W"), x]]], [dy]);
  },

  netB(draft, draw) {
    const [dx, h, dy] = [2, draw(2, 3), 2];
    const x = draft.input("x", [dx]);
    draft.param("U", [dy, h]);
    draft.param("W", [h, dx]);
    for (let j = 0; j < h; j++) {
      draft.generator(`column scaling ${j} of U`, [column("U", j, 1)]);
      draft.generator(`row scaling ${j} of W`, [row("W", j, 1)]);
    }
    draft.squared(["matmul", unitColumns("U"), ["matmul", unitRows("W"), x]], [dy]);
  },

  netBByBlocks(draft, draw) {
    const [dx, h, dy] = [2, draw(2, 3), 2];
    const x = draft.input("x", [dx]);
    for (const [name, shape] of [
      ["U", [dy, h]],
      ["W", [h, dx]],
    ] as const) {
      draft.param(name, [...shape]);
      draft.generator(`scaling of ${name}`, [whole(name, 1)]);
    }
    const f = ["matmul", ["div", "U", ["norm", "U"]], ["matmul", ["div", "W", ["norm", "W"]], x]];
    draft.squared(f, [dy]);
  },

  netA(draft, draw) {
    const [dx, h, dy] = [2, draw(2, 3), draw(1, 2)];
    const x = draft.input("x", [dx]);
    draft.param("U", [dy, h]);
    draft.param("W", [h, dx]);
    draft.generator(["scaling of all", "scaling of U, W"], [whole("U", 1), whole("W", 1)]);
    const f = ["div", ["matmul", "U", ["matmul", "W", x]], ["add", ["sqnorm", "U"], ["sqnorm", "W"]]];
    draft.squared(f, [dy]);
  },

  netAByNeurons(draft, draw) {
    const [dx, h, dy] = [2, draw(2, 3), draw(1, 2)];
    const x = draft.input("x", [dx]);
    draft.param("U", [dy, h]);
    draft.param("W", [h, dx]);
    for (let j = 0; j < h; j++)
      draft.generator(`joint scaling ${j} of U, W`, [column("U", j, 1), row("W", j, 1)]);
    const joint = ["add", ["sum", ["square", "U"], { axis: 0 }], ["sum", ["square", "W"], { axis: 1 }]];
    draft.squared(["matmul", "U", ["div", ["matmul", "W", x], joint]], [dy]);
  },

  /** A bias of the keys adds the same to all scores of a token. */
  attention(draft, draw) {
    const [T, d, dk] = [3, 2, draw(1, 2)];
    const x = draft.input("X", [T, d]);
    for (const name of ["Wq", "Wk"]) draft.param(name, [d, dk]);
    draft.param("V", [d, 2]);
    draft.rotations(dk, ["Wq", "right"], [["Wk", "right"]], "key/query");
    let keys: Expression = ["matmul", x, "Wk"];
    if (draw(0, 1) === 0) {
      keys = ["add", keys, ["reshape", draft.param("bk", [dk]), { shape: [1, dk] }]];
      for (let i = 0; i < dk; i++)
        draft.invisible.push({ name: dk === 1 ? "unused bk" : `unused bk[${i}]`, vector: [["bk", i, 1]] });
    }
    const scores = ["matmul", ["matmul", x, "Wq"], ["transpose", keys]];
    const y = ["matmul", ["softmax", scores, { axis: 1 }], ["matmul", x, "V"]];
    draft.squared(["mean", y, { axis: 0 }], [2]);
  },

  /** (U + I)(W + I) x: the double rotation of the shifted pair. */
  residual(draft) {
    const d = 2;
    const x = draft.input("x", [d]);
    draft.form = "affine";
    draft.param("U", [d, d]);
    draft.param("W", [d, d]);
    draft.rotations(d, ["U", "right"], [["W", "left"]], "double rotation");
    const z = ["add", ["matmul", "W", x], x];
    draft.squared(["add", ["matmul", "U", z], z], [d]);
  },

  /** The same without affine fields has none. */
  residualLinear(draft) {
    kinds.residual!(draft, () => 0);
    draft.form = "symmetric";
    draft.moving.length = 0;
  },

  /** W^T W x: only rotations, which are not symmetric. */
  tied(draft, draw) {
    const [d, h] = [draw(2, 3), draw(1, 3)];
    const x = draft.input("x", [d]);
    draft.param("W", [h, d]);
    draft.squared(["matmul", ["transpose", "W"], ["matmul", "W", x]], [d]);
  },

  /** One vector twice: u_j^2 w_j. */
  tiedTwice(draft, draw) {
    const h = draw(2, 4);
    const x = draft.input("x", [h]);
    draft.param("u", [h]);
    draft.param("w", [h]);
    for (let j = 0; j < h; j++)
      draft.generator(`neuron scaling ${j} of u, w (degree 1/2)`, [row("u", j, 0.5), row("w", j, -1)]);
    draft.squared(["matmul", ["mul", ["square", "u"], "w"], x], []);
  },

  products(draft, draw) {
    const h = draw(2, 4);
    const x = draft.input("x", [h]);
    const names = draw(0, 1) === 0 ? ["a", "c"] : ["a", "b", "c"];
    for (const name of names) draft.param(name, [h]);
    for (const name of names.slice(0, -1))
      for (let j = 0; j < h; j++)
        draft.generator(`neuron scaling ${j} of ${name}, c`, [row(name, j, 1), row("c", j, -1)]);
    const product = names.slice(1).reduce((f: Expression, name) => ["mul", f, name], names[0]!);
    draft.squared(["mul", product, x], [h]);
  },

  softmax(draft, draw) {
    const [dx, K] = [draw(1, 2), draw(2, 3)];
    const biases = draw(0, 1) === 0;
    const logits = affine(draft, "W", draft.input("x", [dx]), K, dx, biases ? "b" : undefined);
    for (let j = 0; j < dx; j++)
      translate(draft, `translation of column ${j} of W`, "W", K, (i) => i * dx + j);
    if (biases) translate(draft, "translation of b", "b", K, (i) => i);
    crossEntropy(draft, logits, K);
  },

  reluClassifier(draft, draw) {
    const [dx, h, K] = [draw(1, 2), 2, draw(2, 3)];
    const z = affine(draft, "W", draft.input("x", [dx]), h, dx, "b");
    draft.param("U", [K, h]);
    for (let j = 0; j < h; j++) {
      translate(draft, `translation of column ${j} of U`, "U", K, (i) => i * h + j);
      draft.generator(`neuron scaling ${j} of U, (W, b)`, [
        column("U", j, 1),
        row("W", j, -1),
        row("b", j, -1),
      ]);
    }
    crossEntropy(draft, ["matmul", "U", ["relu", z]], K);
  },

  cosine(draft, draw) {
    const [dx, h] = [draw(2, 3), draw(2, 3)];
    const [x, other] = [draft.input("x", [dx]), draft.input("other", [dx])];
    draft.param("W", [h, dx]);
    draft.generator("scaling of W", [whole("W", 1)]);
    embeddings(draft, ["matmul", "W", x], ["matmul", "W", other]);
  },

  /** The output of two linear maps, of which only the direction counts. */
  deepCosine(draft) {
    const [dx, h, dy] = [2, 2, 3];
    const [x, other] = [draft.input("x", [dx]), draft.input("other", [dx])];
    draft.param("U", [dy, h]);
    draft.param("W", [h, dx]);
    draft.rotations(h, ["U", "right"], [["W", "left"]], "double rotation");
    draft.generator("scaling of U", [whole("U", 1)]);
    embeddings(draft, ["matmul", "U", ["matmul", "W", x]], ["matmul", "U", ["matmul", "W", other]]);
  },
};

function homogeneous(draft: Draft, draw: Draw, activation: (z: Expression) => Expression, p: number): void {
  const deep = draw(0, 3) === 0;
  const widths = deep ? [2, 2, 2, 1] : [draw(1, 2), draw(2, 3), draw(1, 2)];
  const biases = draw(0, 1) === 0;
  const one = activation(0);
  const fixed = (z: Expression): Expression => {
    const [op, , ...rest] = one as [string, unknown, ...unknown[]];
    return [op, z, ...rest];
  };
  const y = net(draft, widths, biases, fixed, (_, h, { up, W, b }) => {
    for (let j = 0; j < h; j++)
      draft.generator(
        `neuron scaling ${j} of ${up}, ${b === undefined ? W : `(${W}, ${b})`}${p === 1 ? "" : ` (degree ${p})`}`,
        [column(up, j, p), row(W, j, -1), ...(b === undefined ? [] : [row(b, j, -1)])],
      );
  });
  draft.squared(y, [widths.at(-1)!]);
}

/** What a bias of each column, row or vector of ones is. */
function translate(
  draft: Draft,
  name: string,
  block: string,
  count: number,
  at: (i: number) => number,
): void {
  draft.invisible.push({
    name,
    vector: Array.from({ length: count }, (_, i): [string, number, number] => [block, at(i), 1]),
  });
}

/** A[u_k, w_l] = 1 = -A[u_l, w_k]. */
function exchange(draft: Draft, u: string, w: string, h: number): void {
  for (let k = 0; k < h; k++)
    for (let l = k + 1; l < h; l++)
      draft.moving.push({
        names: [`exchange ${u}, ${w} (${k}, ${l})`],
        actions: [],
        entries: [
          [u, k, w, l, 1],
          [u, l, w, k, -1],
        ],
      });
}

function crossEntropy(draft: Draft, logits: Expression, K: number): void {
  const y = draft.input("classes", [K]);
  draft.losses.push(["sub", ["mul", ["logsumexp", logits], ["sum", y]], ["matmul", y, logits]]);
}

function embeddings(draft: Draft, f: Expression, g: Expression): void {
  draft.losses.push(["sub", 1, ["div", ["matmul", f, g], ["mul", ["norm", f], ["norm", g]]]]);
}

/** Additions that change nothing of what is there: parameters not used, and parameters that act through their sum. */
const decorations: ((draft: Draft, draw: Draw) => void)[] = [
  (draft, draw) => {
    const n = draw(1, 3);
    draft.param("idle", [n]);
    for (let i = 0; i < n; i++)
      draft.invisible.push({ name: n === 1 ? "unused idle" : `unused idle[${i}]`, vector: [["idle", i, 1]] });
  },
  (draft, draw) => {
    const n = draw(2, 3);
    draft.param("parts", [n]);
    for (let i = 1; i < n; i++)
      draft.invisible.push({
        name: `translation of parts[0] against parts[${i}]`,
        vector: [
          ["parts", 0, 1],
          ["parts", i, -1],
        ],
      });
    const scale = draft.input("scale", []);
    draft.squared(["mul", ["sum", "parts"], scale], []);
  },
];

/** Samples of every architecture. */
const N = 16;
const MOST_PARAMETERS = 20;

/** The architecture of a seed; the kinds take turns, so that so many seeds have them all. */
export const kindCount: number = Object.keys(kinds).length;

export function architecture(seed: number): Architecture {
  const kind = Object.keys(kinds)[seed % kindCount]!;
  const random = uniforms(seed + 1);
  const draw: Draw = (from, to) => from + Math.floor(random() * (to - from + 1));
  const draft = new Draft();
  kinds[kind]!(draft, draw);
  const decorated = draw(0, 5);
  if (decorated < decorations.length && draft.P + 3 <= MOST_PARAMETERS) decorations[decorated]!(draft, draw);
  const normal = (): number => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
  const data = Object.fromEntries(
    Object.entries(draft.inputs).map(([name, shape]) => [
      name,
      Array.from({ length: N * size(shape) }, () => (name === "classes" ? 0.1 + random() : normal())),
    ]),
  );
  return {
    seed,
    kind,
    model: {
      params: draft.params,
      inputs: draft.inputs,
      loss: draft.losses.reduce((a, b) => ["add", a, b]),
    },
    data,
    P: draft.P,
    form: draft.form,
    expected: expectedOf(draft),
    shifts: draft.form === "affine" ? draft.invisible.map(({ name }) => `constant ${name}`) : [],
  };
}

function expectedOf(draft: Draft): Expected[] {
  const { P, params } = draft;
  const offsets = new Map<string, number>();
  let offset = 0;
  for (const [name, shape] of Object.entries(params)) {
    offsets.set(name, offset);
    offset += size(shape);
  }
  const out: Expected[] = [];
  for (const { names, actions, entries } of draft.moving) {
    const A = new Float64Array(P * P);
    const put = (i: number, j: number, x: number): void => {
      A[i * P + j] = A[i * P + j]! + x;
    };
    for (const { block, side, k, l, weight } of actions) {
      const [rows, cols] = [params[block]![0] ?? 1, params[block]![1] ?? 1];
      const at = (i: number, j: number): number => offsets.get(block)! + i * cols + j;
      const units =
        k === l
          ? [[k, k]]
          : [
              [k, l],
              [l, k],
            ];
      if (side === "all") for (let e = 0; e < rows * cols; e++) put(at(0, e), at(0, e), weight);
      for (const [p, q] of units as [number, number][]) {
        if (side === "left") for (let j = 0; j < cols; j++) put(at(p, j), at(q, j), weight);
        if (side === "right") for (let i = 0; i < rows; i++) put(at(i, p), at(i, q), weight);
      }
    }
    for (const [u, k, w, l, x] of entries) {
      put(offsets.get(u)! + k, offsets.get(w)! + l, x);
      put(offsets.get(w)! + l, offsets.get(u)! + k, x);
    }
    out.push({ names, A, flat: false });
  }
  const vectors = draft.invisible.map(({ name, vector }) => {
    const v = new Float64Array(P);
    for (const [block, e, x] of vector) v[offsets.get(block)! + e] = x;
    return { name, v };
  });
  for (const [i, s] of vectors.entries()) {
    for (const t of vectors.slice(i)) {
      const A = Float64Array.from({ length: P * P }, (_, e) => {
        const [p, q] = [Math.floor(e / P), e % P];
        return s.v[p]! * t.v[q]! + s.v[q]! * t.v[p]!;
      });
      const names = s === t ? [s.name] : [`${s.name} and ${t.name}`, `${t.name} and ${s.name}`];
      out.push({ names, A, flat: true });
    }
  }
  return out;
}

/**
 * Values and derivatives of model files, slowly: a plain evaluator of expressions over second-order dual numbers
 * a + b e1 + c e2 + d e1 e2 with e1^2 = e2^2 = 0. With theta + u e1 + v e2 for the parameters, one evaluation gives the
 * loss, its derivatives along u and v, and u^T H v, all exactly (there are no differences here, and no rule of any op: ops
 * are loops over additions, products and functions of one number). Written from the table in fixtures/README.md and from
 * design.md 2.4; imports nothing.
 *
 * It catches a wrong term, sign or factor of a derivative rule, a cotangent summed over the wrong axis or not over all uses
 * of a value, a sum over the batch in the wrong place, and a second derivative that forgets how a value depends on itself.
 *
 * A whole batch is evaluated at once, sample beside sample, because batch ops couple its samples. Every number carries a
 * bound on what roundings may do to it, so that tests need no guessed tolerances.
 */

// --- numbers -----------------------------------------------------------------------------------------------

/** What ops are written with: real numbers or dual numbers. */
export interface Field<T> {
  of(x: number): T;
  add(a: T, b: T): T;
  mul(a: T, b: T): T;
  /** A function of one number. */
  apply(f: Curve, x: T): T;
  /** The real part. */
  read(x: T): number;
}

/** A function of one number with its first three derivatives. */
export type Curve = (x: number) => Jet;

export interface Jet {
  /** f, f', f'', f'''; the last only bounds errors. */
  readonly d: Quad;
  /** What the roundings of f, f' and f'' are relative to, where that is more than their own size (1 - tanh^2). */
  readonly terms?: readonly [number, number, number];
}

type Quad = readonly [number, number, number, number];

/** A dual number: coefficients of 1, e1, e2 and e1 e2. */
export interface Dual {
  readonly at: Quad;
  /**
   * Of each coefficient, the sum of the absolute contributions of all paths from the parameters, so that nothing cancels;
   * of the real part just its size.
   */
  readonly size: Quad;
  /**
   * A bound, in units of U, on how far two evaluations may differ that add, multiply and apply functions in another order
   * or direction: a running error analysis to first order, ROUNDINGS relative errors for every operation.
   */
  readonly error: Quad;
}

/** Unit of rounding. */
export const U = 2 ** -53;

/** Relative errors of U behind one operation: elementary functions are good to 3 units in the last place (6 U). */
const ROUNDINGS = 8;

export const reals: Field<number> = {
  of: (x) => x,
  add: (a, b) => a + b,
  mul: (a, b) => a * b,
  apply: (f, x) => f(x).d[0],
  read: (x) => x,
};

const plus = (x: Quad, y: Quad): Quad => [x[0] + y[0], x[1] + y[1], x[2] + y[2], x[3] + y[3]];
const times = (x: Quad, y: Quad): Quad => [
  x[0] * y[0],
  x[0] * y[1] + x[1] * y[0],
  x[0] * y[2] + x[2] * y[0],
  x[0] * y[3] + x[1] * y[2] + x[2] * y[1] + x[3] * y[0],
];
const rounded = (size: Quad): Quad => [
  ROUNDINGS * size[0],
  ROUNDINGS * size[1],
  ROUNDINGS * size[2],
  ROUNDINGS * size[3],
];

/** A parameter that moves with speed u along e1 and v along e2. */
export const seeded = (x: number, u: number, v: number): Dual => ({
  at: [x, u, v, 0],
  size: [Math.abs(x), Math.abs(u), Math.abs(v), 0],
  error: [0, 0, 0, 0],
});

export const duals: Field<Dual> = {
  of: (x) => seeded(x, 0, 0),
  add: (a, b) => {
    const at = plus(a.at, b.at);
    const terms = plus(a.size, b.size);
    return {
      at,
      size: [Math.abs(at[0]), terms[1], terms[2], terms[3]],
      error: plus(plus(a.error, b.error), rounded(terms)),
    };
  },
  mul: (a, b) => {
    const size = times(a.size, b.size);
    return {
      at: times(a.at, b.at),
      size,
      error: plus(plus(times(a.error, b.size), times(a.size, b.error)), rounded(size)),
    };
  },
  apply: (f, x) => {
    const { d, terms } = f(x.at[0]);
    const [, x1, x2, x12] = x.at;
    const [, s1, s2, s12] = x.size;
    const [E, E1, E2, E12] = x.error;
    const [f0, f1, f2, f3] = d.map(Math.abs) as unknown as Quad;
    const [t0, t1, t2] = terms ?? [f0, f1, f2];
    return {
      at: [d[0], d[1] * x1, d[1] * x2, d[1] * x12 + d[2] * x1 * x2],
      size: [f0, f1 * s1, f1 * s2, f1 * s12 + f2 * s1 * s2],
      error: [
        f1 * E + ROUNDINGS * t0,
        f1 * E1 + f2 * s1 * E + ROUNDINGS * t1 * s1,
        f1 * E2 + f2 * s2 * E + ROUNDINGS * t1 * s2,
        f1 * E12 +
          f2 * (s1 * E2 + s2 * E1 + s12 * E) +
          f3 * s1 * s2 * E +
          ROUNDINGS * (t1 * s12 + t2 * s1 * s2),
      ],
    };
  },
  read: (x) => x.at[0],
};

// --- functions of one number -------------------------------------------------------------------------------

/** e^(-x^2), x split so that its square is exact. */
function gauss(x: number): number {
  const head = Math.fround(x);
  return Math.exp(-head * head) * Math.exp(-(x - head) * (x + head));
}

/**
 * erf(x) to 1e-15: below 2 by e^(-x^2) sum_n 2^(n+1) x^(2n+1) / (sqrt(pi) (2n+1)!!), whose terms are all positive and are
 * added from the smallest; above by the continued fraction of erfc, which is small there.
 */
export function erf(x: number): number {
  const y = Math.abs(x);
  if (y >= 2) {
    let tail = 0;
    for (let k = 80; k > 0; k--) tail = k / 2 / (y + tail);
    return Math.sign(x) * (1 - gauss(y) / (Math.sqrt(Math.PI) * (y + tail)));
  }
  const terms = [y];
  while (terms.at(-1)! > 1e-20 * y) terms.push((terms.at(-1)! * 2 * y * y) / (2 * terms.length + 1));
  const series = terms.reduceRight((sum, term) => sum + term, 0);
  return Math.sign(x) * (2 / Math.sqrt(Math.PI)) * gauss(y) * series;
}

const logistic = (x: number): number => (x >= 0 ? 1 / (1 + Math.exp(-x)) : Math.exp(x) / (1 + Math.exp(x)));

function sigmoid(x: number): Required<Jet> {
  const [y, rest] = [logistic(x), logistic(-x)];
  const slope = y * rest;
  return {
    d: [y, slope, slope * (rest - y), slope * (1 - 6 * slope)],
    terms: [y, y * (1 + y), y * (1 + y) * (1 + 2 * y)],
  };
}

/** A function that is c x next to x. */
const line = (c: number, x: number): Jet => ({ d: [c * x, c, 0, 0] });

/** Functions by their names in model files, and `reciprocal` for div. Kinks have the derivative that the engine fixes at 0. */
export const curves = {
  tanh: (x) => {
    const y = Math.tanh(x);
    const slope = 1 / Math.cosh(x) ** 2;
    const terms = 1 + y * y;
    return {
      d: [y, slope, -2 * y * slope, slope * (6 * y * y - 2)],
      terms: [Math.abs(y), terms, 2 * Math.abs(y) * terms],
    };
  },
  sigmoid,
  softplus: (x) => {
    const { d, terms } = sigmoid(x);
    return {
      d: [Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x))), d[0], d[1], d[2]],
      terms: [Math.abs(x) + 1, d[0], terms[1]],
    };
  },
  exp: (x) => {
    const y = Math.exp(x);
    return { d: [y, y, y, y] };
  },
  log: (x) => ({ d: [Math.log(x), 1 / x, -1 / x ** 2, 2 / x ** 3] }),
  sqrt: (x) => {
    const y = Math.sqrt(x);
    return { d: [y, 0.5 / y, -0.25 / (x * y), 0.375 / (x * x * y)] };
  },
  square: (x) => ({ d: [x * x, 2 * x, 2, 0] }),
  reciprocal: (x) => ({ d: [1 / x, -1 / x ** 2, 2 / x ** 3, -6 / x ** 4] }),
  erf: (x) => {
    const slope = (2 / Math.sqrt(Math.PI)) * gauss(x);
    return { d: [erf(x), slope, -2 * x * slope, (4 * x * x - 2) * slope] };
  },
  abs: (x) => line(Math.sign(x), x),
  relu: (x) => line(x > 0 ? 1 : 0, x),
  step: (x) => ({ d: [x > 0 ? 1 : 0, 0, 0, 0] }),
  sign: (x) => ({ d: [Math.sign(x), 0, 0, 0] }),
} satisfies Record<string, Curve>;

const leaky =
  (slope: number): Curve =>
  (x) =>
    line(x > 0 ? 1 : slope, x);

// --- values ------------------------------------------------------------------------------------------------

export type Shape = readonly number[];

/** One value of one sample, row-major. */
export interface Tensor<T> {
  readonly shape: Shape;
  readonly entries: readonly T[];
}

/** One value of every sample of a batch. A value of parameters alone is there once per sample too. */
export type Batch<T> = readonly Tensor<T>[];

export const sizeOf = (shape: Shape): number => shape.reduce((n, d) => n * d, 1);

/** The value of a shape whose entry at an index list is `entry(index)`. */
function build<T>(shape: Shape, entry: (index: number[]) => T): Tensor<T> {
  const entries = Array.from({ length: sizeOf(shape) }, (_, at) =>
    entry(shape.length === 2 ? [Math.floor(at / shape[1]!), at % shape[1]!] : shape.length === 1 ? [at] : []),
  );
  return { shape, entries };
}

function at<T>({ shape, entries }: Tensor<T>, index: readonly number[]): T {
  return entries[index.reduce((flat, i, axis) => flat * shape[axis]! + i, 0)]!;
}

/** Numpy broadcasting: shapes are lined up at the end, and an axis of size 1 is read again and again. */
function broadcast<T>(a: Tensor<T>, shape: Shape): Tensor<T> {
  const missing = shape.length - a.shape.length;
  return build(shape, (index) =>
    at(
      a,
      a.shape.map((size, axis) => (size === 1 ? 0 : index[missing + axis]!)),
    ),
  );
}

function pointwise<T>(a: Tensor<T>, b: Tensor<T>, f: (x: T, y: T) => T): Tensor<T> {
  const rank = Math.max(a.shape.length, b.shape.length);
  const shape = Array.from({ length: rank }, (_, i) =>
    Math.max(a.shape.at(i - rank) ?? 1, b.shape.at(i - rank) ?? 1),
  );
  const [x, y] = [broadcast(a, shape), broadcast(b, shape)];
  return build(shape, (index) => f(at(x, index), at(y, index)));
}

/** The index with another count along one axis. */
const moved = (index: readonly number[], axis: number, to: number): number[] =>
  index.map((i, k) => (k === axis ? to : i));

/** Applies `fold` to the entries along an axis, or to all of them. */
function reduce<T>(a: Tensor<T>, { axis, keepdims }: Options, fold: (xs: readonly T[]) => T): Tensor<T> {
  if (axis == null) return { shape: keepdims ? a.shape.map(() => 1) : [], entries: [fold(a.entries)] };
  const along = axis < 0 ? axis + a.shape.length : axis;
  const line = (index: readonly number[]) =>
    Array.from({ length: a.shape[along]! }, (_, k) => at(a, moved(index, along, k)));
  const kept = build(moved(a.shape, along, 1), (index) => fold(line(index)));
  return keepdims ? kept : { shape: a.shape.filter((_, k) => k !== along), entries: kept.entries };
}

// --- ops ---------------------------------------------------------------------------------------------------

export interface Options {
  readonly axis?: number | null;
  readonly keepdims?: boolean;
  readonly shape?: Shape;
  readonly slope?: number;
  readonly start?: number;
  readonly stop?: number;
  readonly before?: number;
  readonly after?: number;
}

export type Op<T> = (args: readonly Batch<T>[], options: Options) => Batch<T>;

/** Every op of model files over a field, by name; `scale` gets its number as a second argument. */
export function opsOver<T>(field: Field<T>): Readonly<Record<string, Op<T>>> {
  const { of, add, mul, apply, read } = field;
  const negative = (x: T): T => mul(of(-1), x);
  const divide = (x: T, y: T): T => mul(x, apply(curves.reciprocal, y));
  const total = (xs: readonly T[]): T => xs.slice(1).reduce(add, xs[0]!);
  const mean = (xs: readonly T[]): T => mul(total(xs), of(1 / xs.length));
  const squares = (xs: readonly T[]): T => total(xs.map((x) => apply(curves.square, x)));

  /** e^(x - m) and m, the largest entry: a number that does not move. */
  const shifted = (xs: readonly T[]): [T[], T] => {
    const top = of(Math.max(...xs.map(read)));
    return [xs.map((x) => apply(curves.exp, add(x, negative(top)))), top];
  };
  const logSumExp = (xs: readonly T[]): T => {
    const [powers, top] = shifted(xs);
    return add(top, apply(curves.log, total(powers)));
  };
  const softmax = (a: Tensor<T>, axis: number): Tensor<T> => {
    const along = axis < 0 ? axis + a.shape.length : axis;
    return build(a.shape, (index) => {
      const line = Array.from({ length: a.shape[along]! }, (_, k) => at(a, moved(index, along, k)));
      const [powers] = shifted(line);
      return divide(powers[index[along]!]!, total(powers));
    });
  };
  const matmul = (a: Tensor<T>, b: Tensor<T>): Tensor<T> => {
    const left = a.shape.length === 2 ? a : { ...a, shape: [1, a.shape[0]!] };
    const right = b.shape.length === 2 ? b : { ...b, shape: [b.shape[0]!, 1] };
    const inner = left.shape[1]!;
    const { entries } = build([left.shape[0]!, right.shape[1]!], ([i, j]) =>
      total(Array.from({ length: inner }, (_, k) => mul(at(left, [i!, k]), at(right, [k, j!])))),
    );
    return { shape: [...a.shape.slice(0, -1), ...b.shape.slice(1)], entries };
  };
  const concat = (parts: readonly Tensor<T>[], axis: number): Tensor<T> => {
    const along = axis < 0 ? axis + parts[0]!.shape.length : axis;
    const length = parts.reduce((n, part) => n + part.shape[along]!, 0);
    return build(moved(parts[0]!.shape, along, length), (index) => {
      let k = index[along]!;
      for (const part of parts) {
        if (k < part.shape[along]!) return at(part, moved(index, along, k));
        k -= part.shape[along]!;
      }
      throw new Error("an index behind the last part");
    });
  };
  const geluTanh = (x: T): T => {
    const inner = mul(of(Math.sqrt(2 / Math.PI)), add(x, mul(of(0.044715), mul(x, mul(x, x)))));
    return mul(mul(of(0.5), x), add(of(1), apply(curves.tanh, inner)));
  };
  const geluErf = (x: T): T => mul(mul(of(0.5), x), add(of(1), apply(curves.erf, mul(of(Math.SQRT1_2), x))));

  /** An op of each sample by itself. */
  const each =
    (f: (args: Tensor<T>[], options: Options) => Tensor<T>): Op<T> =>
    (args, options) =>
      args[0]!.map((_, n) =>
        f(
          args.map((a) => a[n]!),
          options,
        ),
      );
  const map = (f: (x: T, options: Options) => T): Op<T> =>
    each(([a], options) => ({ shape: a!.shape, entries: a!.entries.map((x) => f(x, options)) }));
  const unary = (f: Curve): Op<T> => map((x) => apply(f, x));
  const binary = (f: (x: T, y: T) => T): Op<T> => each(([a, b]) => pointwise(a!, b!, f));
  /** The sum over the samples. */
  const sumOf = (a: Batch<T>): Tensor<T> => a.reduce((sum, x) => pointwise(sum, x, add));
  /** The same value for every sample. */
  const shared = (a: Batch<T>, value: Tensor<T>): Batch<T> => a.map(() => value);

  return {
    matmul: each(([a, b]) => matmul(a!, b!)),
    transpose: each(([a]) => build([a!.shape[1]!, a!.shape[0]!], ([i, j]) => at(a!, [j!, i!]))),
    outer: each(([a, b]) => build([a!.shape[0]!, b!.shape[0]!], ([i, j]) => mul(at(a!, [i!]), at(b!, [j!])))),
    add: binary(add),
    sub: binary((x, y) => add(x, negative(y))),
    mul: binary(mul),
    div: binary(divide),
    scale: binary((x, c) => mul(c, x)),
    tanh: unary(curves.tanh),
    relu: unary(curves.relu),
    leaky_relu: map((x, { slope }) => apply(leaky(slope!), x)),
    sigmoid: unary(curves.sigmoid),
    exp: unary(curves.exp),
    log: unary(curves.log),
    sqrt: unary(curves.sqrt),
    square: unary(curves.square),
    abs: unary(curves.abs),
    softplus: unary(curves.softplus),
    step: unary(curves.step),
    sign: unary(curves.sign),
    erf: unary(curves.erf),
    gelu_tanh: map(geluTanh),
    gelu_erf: map(geluErf),
    sum: each(([a], options) => reduce(a!, options, total)),
    mean: each(([a], options) => reduce(a!, options, mean)),
    sqnorm: each(([a]) => reduce(a!, {}, squares)),
    norm: each(([a]) => reduce(a!, {}, (xs) => apply(curves.sqrt, squares(xs)))),
    softmax: each(([a], { axis }) => softmax(a!, axis ?? -1)),
    logsumexp: each(([a], { axis, ...rest }) => reduce(a!, { axis: axis ?? -1, ...rest }, logSumExp)),
    concat: each((parts, { axis }) => concat(parts, axis ?? 0)),
    slice: each(([a], { axis = 0, start, stop }) => {
      const along = axis! < 0 ? axis! + a!.shape.length : axis!;
      return build(moved(a!.shape, along, stop! - start!), (index) =>
        at(a!, moved(index, along, index[along]! + start!)),
      );
    }),
    pad: each(([a], { axis = 0, before = 0, after = 0 }) => {
      const along = axis! < 0 ? axis! + a!.shape.length : axis!;
      const length = a!.shape[along]!;
      return build(moved(a!.shape, along, before + length + after), (index) => {
        const k = index[along]! - before;
        return k < 0 || k >= length ? of(0) : at(a!, moved(index, along, k));
      });
    }),
    reshape: each(([a], { shape }) => ({ shape: shape!, entries: a!.entries })),
    broadcast_to: each(([a], { shape }) => broadcast(a!, shape!)),
    batch_mean: ([a]) => {
      const sum = sumOf(a!);
      return shared(a!, { ...sum, entries: sum.entries.map((x) => mul(x, of(1 / a!.length))) });
    },
    batch_stack: ([a]) =>
      shared(
        a!,
        build([a!.length, a![0]!.shape[0]!], ([n, j]) => at(a![n!]!, [j!])),
      ),
    batch_row: ([a]) => {
      const sum = sumOf(a!);
      return a!.map((_, n) => build([sum.shape[1]!], ([j]) => at(sum, [n, j!])));
    },
    // not for model files: what gradients of the engine use
    batch_pick: ([a]) => a!.map((m, n) => build([m.shape[1]!], ([j]) => at(m, [n, j!]))),
    batch_sum: ([a]) => shared(a!, sumOf(a!)),
  };
}

// --- model files -------------------------------------------------------------------------------------------

/** An expression of a model file. */
export type Expression = string | number | readonly unknown[];

export interface ModelFile {
  readonly params: Readonly<Record<string, Shape | { readonly shape: Shape; readonly trainable?: boolean }>>;
  readonly inputs: Readonly<Record<string, Shape>>;
  readonly constants?: Readonly<
    Record<string, { readonly shape: Shape; readonly values: readonly number[] }>
  >;
  readonly let?: readonly (readonly [string, Expression])[];
  readonly loss: Expression;
}

/** Flat values of inputs, sample by sample. */
export type Data = Readonly<Record<string, ArrayLike<number>>>;

const isOptions = (x: Expression | Options): x is Options => typeof x === "object" && !Array.isArray(x);

/** The value of an expression on a batch of S samples, names looked up in `names`. */
export function evaluate<T>(
  expression: Expression,
  names: ReadonlyMap<string, Batch<T>>,
  S: number,
  field: Field<T>,
  table: Readonly<Record<string, Op<T>>> = opsOver(field),
): Batch<T> {
  if (typeof expression === "number")
    return Array.from({ length: S }, () => ({ shape: [], entries: [field.of(expression)] }));
  if (typeof expression === "string") {
    const known = names.get(expression);
    if (known === undefined) throw new Error(`no value is named ${expression}`);
    return known;
  }
  const [name, ...rest] = expression as [string, ...(Expression | Options)[]];
  const op = table[name];
  if (op === undefined) throw new Error(`no op is named ${name}`);
  const args = rest.flatMap((x) => (isOptions(x) ? [] : [evaluate(x, names, S, field, table)]));
  return op(args, rest.find(isOptions) ?? {});
}

interface Block {
  readonly name: string;
  readonly shape: Shape;
  readonly trainable: boolean;
}

function blocksOf(file: ModelFile): Block[] {
  return Object.entries(file.params).map(([name, given]) =>
    "shape" in given
      ? { name, shape: given.shape, trainable: given.trainable ?? true }
      : { name, shape: given, trainable: true },
  );
}

/** 1 for entries of theta that may move, 0 for those of untrainable blocks. */
export const trainableMask = (file: ModelFile): number[] =>
  blocksOf(file).flatMap((b) => Array.from({ length: sizeOf(b.shape) }, () => (b.trainable ? 1 : 0)));

/** How many samples the data hold; a model without inputs has one. */
export function sampleCount(file: ModelFile, data: Data): number {
  const [first] = Object.entries(file.inputs);
  return first === undefined ? 1 : data[first[0]]!.length / sizeOf(first[1]);
}

/** The leaves of a model on all samples of its data, entry i of theta being `entry(i)`. */
export function leaves<T>(
  file: ModelFile,
  data: Data,
  field: Field<T>,
  entry: (i: number) => T,
): Map<string, Batch<T>> {
  const S = sampleCount(file, data);
  const names = new Map<string, Batch<T>>();
  const shared = (value: Tensor<T>) => Array.from({ length: S }, () => value);
  let offset = 0;
  for (const { name, shape } of blocksOf(file)) {
    const start = offset;
    names.set(
      name,
      shared({ shape, entries: Array.from({ length: sizeOf(shape) }, (_, e) => entry(start + e)) }),
    );
    offset += sizeOf(shape);
  }
  for (const [name, shape] of Object.entries(file.inputs)) {
    const size = sizeOf(shape);
    names.set(
      name,
      Array.from({ length: S }, (_, n) => ({
        shape,
        entries: Array.from({ length: size }, (__, e) => field.of(data[name]![n * size + e]!)),
      })),
    );
  }
  for (const [name, { shape, values }] of Object.entries(file.constants ?? {}))
    names.set(name, shared({ shape, entries: values.map((x) => field.of(x)) }));
  return names;
}

/** The loss of every sample at leaves of any kind. */
function lossesAt<T>(file: ModelFile, data: Data, field: Field<T>, entry: (i: number) => T): T[] {
  const S = sampleCount(file, data);
  const names = leaves(file, data, field, entry);
  const table = opsOver(field);
  for (const [name, expression] of file.let ?? [])
    names.set(name, evaluate(expression, names, S, field, table));
  return evaluate(file.loss, names, S, field, table).map(({ entries }) => entries[0]!);
}

export const losses = (file: ModelFile, data: Data, theta: ArrayLike<number>): number[] =>
  lossesAt(file, data, reals, (i) => theta[i]!);

/** The loss of every sample at theta + u e1 + v e2. */
export const lossesAlong = (
  file: ModelFile,
  data: Data,
  theta: ArrayLike<number>,
  u: ArrayLike<number>,
  v: ArrayLike<number>,
): Dual[] => lossesAt(file, data, duals, (i) => seeded(theta[i]!, u[i]!, v[i]!));

export function meanOf(xs: readonly Dual[]): Dual {
  return duals.mul(xs.slice(1).reduce(duals.add, xs[0]!), duals.of(1 / xs.length));
}

/** Numbers, and how far roundings may move each. */
export interface Bounded {
  readonly values: readonly number[];
  readonly bounds: readonly number[];
}

/** `k`: 0 for the value, 1 and 2 for the derivatives along e1 and e2, 3 for the second derivative. */
const bounded = (xs: readonly Dual[], k: 0 | 1 | 2 | 3): Bounded => ({
  values: xs.map((x) => x.at[k]),
  bounds: xs.map((x) => U * x.error[k]),
});

export interface Derivatives {
  /** Mean over the samples. */
  readonly loss: Bounded;
  readonly losses: Bounded;
  readonly gradient: Bounded;
  /** N x P, the sample first. Without batch ops these are the gradients of the samples' own losses. */
  readonly perSampleGradients: Bounded;
  /** g_n . v for every sample. */
  readonly jacobianVector: Bounded;
  /** H v of the mean loss. */
  readonly hessianVector: Bounded;
}

/** All derivatives at theta, those that need a direction along v, in P evaluations. Untrainable entries do not move. */
export function derivatives(
  file: ModelFile,
  data: Data,
  theta: ArrayLike<number>,
  v: ArrayLike<number> = Array.from(theta, () => 0),
): Derivatives {
  const mask = trainableMask(file);
  const along = mask.map((m, i) => m * v[i]!);
  const rows = mask.map((m, i) =>
    lossesAlong(
      file,
      data,
      theta,
      mask.map((_, j) => (j === i ? m : 0)),
      along,
    ),
  );
  const samples = rows[0]!;
  const means = rows.map(meanOf);
  return {
    loss: bounded(means.slice(0, 1), 0),
    losses: bounded(samples, 0),
    gradient: bounded(means, 1),
    perSampleGradients: bounded(
      samples.flatMap((_, n) => rows.map((row) => row[n]!)),
      1,
    ),
    jacobianVector: bounded(samples, 2),
    hessianVector: bounded(means, 3),
  };
}

/** The Hessian of the mean loss, P x P, an entry per evaluation; rows and columns of untrainable entries are 0. */
export function hessian(file: ModelFile, data: Data, theta: ArrayLike<number>): number[] {
  const P = theta.length;
  const mask = trainableMask(file);
  const unit = (i: number) => Array.from({ length: P }, (_, j) => (i === j ? mask[i]! : 0));
  const H = new Array<number>(P * P).fill(0);
  for (let i = 0; i < P; i++) {
    for (let j = i; j < P; j++)
      H[i * P + j] = H[j * P + i] = meanOf(lossesAlong(file, data, theta, unit(i), unit(j))).at[3];
  }
  return H;
}

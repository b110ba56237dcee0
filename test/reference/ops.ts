/**
 * The ops of a model file on nested arrays, one obvious loop each, and an evaluator of whole expressions, for one sample
 * or for a batch. Written from the table in fixtures/README.md, design.md 2.4 and numpy's rules; imports nothing.
 *
 * It catches a transposed stride, a broadcast along the wrong axis, a reduction over the wrong axis, a product read
 * column by column, a kernel whose tail repeats or drops an entry, parts of a concatenation that lie one entry off, and a
 * batch whose rows are those of other samples.
 */

/** A scalar, a vector or a matrix (an array of rows). */
export type Value = number | number[] | number[][];

export interface Options {
  readonly axis?: number | null;
  readonly keepdims?: boolean;
  readonly shape?: readonly number[];
  readonly slope?: number;
  readonly start?: number;
  readonly stop?: number;
  readonly before?: number;
  readonly after?: number;
}

export type Expression = string | number | readonly unknown[];

export function shapeOf(value: Value): number[] {
  if (typeof value === "number") return [];
  const first = value[0];
  return Array.isArray(first) ? [value.length, first.length] : [value.length];
}

/** The entries, row by row. */
export function flat(value: Value): number[] {
  return typeof value === "number" ? [value] : (value as number[][]).flat(1);
}

/** The value of a shape whose entry at an index list is `entry(index)`. */
export function build(shape: readonly number[], entry: (index: number[]) => number): Value {
  if (shape.length === 0) return entry([]);
  if (shape.length === 1) return Array.from({ length: shape[0]! }, (_, i) => entry([i]));
  return Array.from({ length: shape[0]! }, (_, i) =>
    Array.from({ length: shape[1]! }, (_, j) => entry([i, j])),
  );
}

/** Row-major entries as a value. */
export function shaped(entries: ArrayLike<number>, shape: readonly number[]): Value {
  return build(
    shape,
    (index) => entries[index.length === 2 ? index[0]! * shape[1]! + index[1]! : (index[0] ?? 0)]!,
  );
}

function at(value: Value, index: readonly number[]): number {
  let inner: Value | undefined = value;
  for (const i of index) inner = (inner as number[])[i];
  return inner as number;
}

const map = (a: Value, f: (x: number) => number): Value => build(shapeOf(a), (index) => f(at(a, index)));

/** Numpy broadcasting: shapes are lined up at the end, and an axis of size 1 is read again and again. */
function broadcast(a: Value, shape: readonly number[]): Value {
  const own = shapeOf(a);
  return build(shape, (index) =>
    at(
      a,
      own.map((size, axis) => (size === 1 ? 0 : index[shape.length - own.length + axis]!)),
    ),
  );
}

function pointwise(a: Value, b: Value, f: (x: number, y: number) => number): Value {
  const [left, right] = [shapeOf(a), shapeOf(b)];
  const rank = Math.max(left.length, right.length);
  const shape = Array.from({ length: rank }, (_, i) =>
    Math.max(left[left.length - rank + i] ?? 1, right[right.length - rank + i] ?? 1),
  );
  const [x, y] = [broadcast(a, shape), broadcast(b, shape)];
  return build(shape, (index) => f(at(x, index), at(y, index)));
}

function matmul(a: Value, b: Value): Value {
  const left = shapeOf(a).length === 2 ? (a as number[][]) : [a as number[]];
  const right = shapeOf(b).length === 2 ? (b as number[][]) : (b as number[]).map((x) => [x]);
  const product = left.map((row) =>
    right[0]!.map((_, j) => {
      let sum = 0;
      for (const [k, x] of row.entries()) sum += x * right[k]![j]!;
      return sum;
    }),
  );
  if (shapeOf(a).length === 2 && shapeOf(b).length === 2) return product;
  if (shapeOf(a).length === 2) return product.map((row) => row[0]!);
  return shapeOf(b).length === 2 ? product[0]! : product[0]![0]!;
}

const transpose = (a: Value): Value => {
  const rows = a as number[][];
  return rows[0]!.map((_, j) => rows.map((row) => row[j]!));
};

/** Applies `fold` to the entries along an axis (all of them when it is null). */
function reduce(a: Value, { axis = null, keepdims = false }: Options, fold: (xs: number[]) => number): Value {
  const shape = shapeOf(a);
  if (axis === null) {
    const total = fold(flat(a));
    return keepdims
      ? shaped(
          [total],
          shape.map(() => 1),
        )
      : total;
  }
  const along = axis < 0 ? axis + shape.length : axis;
  const kept = shape.map((size, i) => (i === along ? 1 : size));
  const result = build(kept, (index) =>
    fold(
      Array.from({ length: shape[along]! }, (_, k) =>
        at(
          a,
          index.map((i, position) => (position === along ? k : i)),
        ),
      ),
    ),
  );
  return keepdims
    ? result
    : shaped(
        flat(result),
        kept.filter((_, i) => i !== along),
      );
}

const total = (xs: number[]): number => xs.reduce((sum, x) => sum + x, 0);
const logSumExp = (xs: number[]): number => Math.log(total(xs.map(Math.exp)));

function softmax(a: Value, { axis = -1 }: Options): Value {
  const norms = reduce(a, { axis, keepdims: true }, (xs) => total(xs.map(Math.exp)));
  return pointwise(map(a, Math.exp), norms, (x, y) => x / y);
}

/** 2 / sqrt(pi) e^(-x^2) sum_n 2^n x^(2n+1) / (1 3 5 ... (2n+1)): terms of one sign, for |x| up to 6. */
function erf(x: number): number {
  let term = x;
  let sum = 0;
  for (let n = 0; n < 200; n++) {
    sum += term;
    term *= (2 * x * x) / (2 * n + 3);
  }
  return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum;
}

/** A value along an axis of its own: `f` gets the rows of a matrix or the entries of a vector. */
function along(a: Value, axis: number, f: (list: Value[]) => Value[]): Value {
  const own = axis < 0 ? axis + shapeOf(a).length : axis;
  if (own === 0) return f(a as Value[]) as Value;
  return (a as number[][]).map((row) => f(row) as number[]);
}

function concat(parts: Value[], { axis = 0 }: Options): Value {
  const isColumns = shapeOf(parts[0]!).length === 2 && axis !== 0 && axis !== -2;
  if (isColumns) return (parts[0] as number[][]).map((_, i) => parts.flatMap((p) => (p as number[][])[i]!));
  return parts.flat(1) as Value;
}

function pad(a: Value, { axis = 0, before = 0, after = 0 }: Options): Value {
  const zeros = (count: number, like: Value) => Array.from({ length: count }, () => map(like, () => 0));
  return along(a, axis!, (list) => [...zeros(before, list[0]!), ...list, ...zeros(after, list[0]!)]);
}

type Op = (args: Value[], options: Options) => Value;
const unary =
  (f: (x: number) => number): Op =>
  ([a]) =>
    map(a!, f);
const binary =
  (f: (x: number, y: number) => number): Op =>
  ([a, b]) =>
    pointwise(a!, b!, f);

/** Every op by its name in model files. `scale` gets its number as a second argument. */
export const ops: Readonly<Record<string, Op>> = {
  matmul: ([a, b]) => matmul(a!, b!),
  transpose: ([a]) => transpose(a!),
  outer: ([a, b]) => (a as number[]).map((x) => (b as number[]).map((y) => x * y)),
  add: binary((x, y) => x + y),
  sub: binary((x, y) => x - y),
  mul: binary((x, y) => x * y),
  div: binary((x, y) => x / y),
  scale: binary((x, c) => c * x),
  tanh: unary(Math.tanh),
  sigmoid: unary((x) => 1 / (1 + Math.exp(-x))),
  softplus: unary((x) => Math.log1p(Math.exp(x))),
  exp: unary(Math.exp),
  log: unary(Math.log),
  sqrt: unary(Math.sqrt),
  square: unary((x) => x * x),
  relu: unary((x) => (x > 0 ? x : 0)),
  abs: unary(Math.abs),
  step: unary((x) => (x > 0 ? 1 : 0)),
  sign: unary((x) => (x > 0 ? 1 : x < 0 ? -1 : 0)),
  sum: ([a], options) => reduce(a!, options, total),
  mean: ([a], options) => reduce(a!, options, (xs) => total(xs) / xs.length),
  sqnorm: ([a]) => total(flat(a!).map((x) => x * x)),
  norm: ([a]) => Math.sqrt(total(flat(a!).map((x) => x * x))),
  softmax: ([a], options) => softmax(a!, options),
  logsumexp: ([a], { axis = -1, ...rest }) => reduce(a!, { axis, ...rest }, logSumExp),
  broadcast_to: ([a], { shape }) => broadcast(a!, shape!),
  reshape: ([a], { shape }) => shaped(flat(a!), shape!),
  gelu_tanh: unary((x) => (x / 2) * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)))),
  gelu_erf: unary((x) => (x / 2) * (1 + erf(x / Math.SQRT2))),
  erf: unary(erf),
  leaky_relu: ([a], { slope }) => map(a!, (x) => (x > 0 ? x : slope! * x)),
  concat,
  slice: ([a], { axis = 0, start = 0, stop }) => along(a!, axis!, (list) => list.slice(start, stop)),
  pad: ([a], options) => pad(a!, options),
};

const sumOf = (all: Value[]): Value => all.reduce((sum, x) => pointwise(sum, x, (a, b) => a + b));

/** Ops that couple the samples of a batch: the argument of every sample in, the value of every sample out. */
export const batchOps: Readonly<Record<string, (all: Value[]) => Value[]>> = {
  batch_mean: (all) => {
    const mean = map(sumOf(all), (x) => x / all.length);
    return all.map(() => mean);
  },
  batch_stack: (all) => all.map(() => all as number[][]),
  batch_row: (all) => sumOf(all) as number[][],
};

type Names = Readonly<Record<string, Value>>;

/** The value of an expression of a model file for every sample of a batch, names looked up in the sample's own values. */
export function evaluateBatch(
  expression: Expression,
  samples: readonly Names[],
  table: Readonly<Record<string, Op>> = ops,
): Value[] {
  if (typeof expression === "number") return samples.map(() => expression);
  if (typeof expression === "string") return samples.map((values) => values[expression]!);
  const [name, ...rest] = expression as [string, ...Expression[]];
  const isOptions = (x: unknown): x is Options => typeof x === "object" && !Array.isArray(x);
  const options = rest.find(isOptions) ?? {};
  const args = rest.filter((x) => !isOptions(x)).map((x) => evaluateBatch(x, samples, table));
  const coupled = batchOps[name];
  if (coupled !== undefined) return coupled(args[0]!);
  const op = table[name]!;
  const values: Value[] = [];
  for (const n of samples.keys()) {
    // what all samples share is computed once
    const isShared = n > 0 && args.every((a) => a[n] === a[0]);
    values.push(
      isShared
        ? values[0]!
        : op(
            args.map((a) => a[n]!),
            options,
          ),
    );
  }
  return values;
}

/** The value of an expression for one sample by itself. */
export const evaluate = (expression: Expression, values: Names, table = ops): Value =>
  evaluateBatch(expression, [values], table)[0]!;

/**
 * What the roundings inside an expression are relative to: the same expression with every leaf replaced by its absolute
 * value and every difference by a sum, so that nothing cancels. Of a batch, for every sample.
 */
export function magnitudes(expression: Expression, samples: readonly Names[]): number[] {
  const sizes = samples.map((values) =>
    Object.fromEntries(Object.entries(values).map(([name, v]) => [name, map(v, Math.abs)])),
  );
  const growing = { ...ops, sub: ops.add!, scale: binary((x, c) => Math.abs(c) * x) };
  return evaluateBatch(expression, sizes, growing).map((value) => total(flat(map(value, Math.abs))));
}

export const magnitude = (expression: Expression, values: Names): number =>
  magnitudes(expression, [values])[0]!;

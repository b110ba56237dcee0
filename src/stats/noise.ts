import type { RealArray } from "../core/arena.ts";
import { now, type Steps } from "../core/steps.ts";
import { checkFlag, fail, show, showShape } from "../errors.ts";
import { associate } from "../graph/associate.ts";
import { gradient, meanOver, tangent } from "../graph/derive.ts";
import { hasStructure, type Products, plain, structured, weighted } from "../graph/inner.ts";
import type { Effect } from "../graph/lower.ts";
import type { Node } from "../graph/node.ts";
import { add, batchSum, matmul, mul, scale, sub, sum, transpose } from "../graph/ops.ts";
import { chooseRows, gradientRecipe, gradientSteps, mapVectors } from "../models/derivatives.ts";
import type { Evaluation } from "../models/evaluate.ts";
import type { Measure, Recipe } from "../models/measure.ts";
import { type Estimate, exact, meanOf } from "./estimate.ts";

/**
 * A quadratic form of a vector of parameter space that is given by one node per block: Tr Sigma is
 * that of the identity, Tr[Sigma A] that of A.
 */
export type Form = (of: (block: string) => Node | null, products: Products) => Node | null;

/** Where a squared norm is this much smaller than what it is summed from, products are taken in the order as written. */
const REORDERING = { f64: 1e-6, f32: 1e-3 };

/** Where Sigma is this much smaller than E|g|^2, it is computed from g - gbar instead: some digits are to be left. */
const CANCELLATION = { f64: 1e-6, f32: 1e-2 };

/** How a quantity of the gradient noise is computed: from factors where they exist, or from g - gbar. */
export type NoiseMethod = "structured" | "streamed";

/** A method as it came from a caller. */
export function readMethod(where: string, method: unknown): NoiseMethod {
  if (method === undefined) return "structured";
  if (method !== "structured" && method !== "streamed")
    fail("range", where, 'method is "structured" or "streamed"', show(method));
  return method as NoiseMethod;
}

/** How Tr[Sigma A] is to be computed, as it came from a caller; a method goes with the whole set, centred. */
export function readNoise(
  where: string,
  { method, centred }: { readonly method?: unknown; readonly centred?: unknown },
  isWhole: boolean,
): { readonly method: NoiseMethod | undefined; readonly centred: boolean } {
  const by = method === undefined ? undefined : readMethod(where, method);
  const isCentred = centred === undefined || checkFlag(where, "centred", centred);
  if (by !== undefined && !(isWhole && isCentred))
    fail("unsupported", where, "a method goes with the centred noise of the whole set", show(by));
  return { method: by, centred: isCentred };
}

/** A number of the noise as it is, where it is one. */
export function finiteNoise(where: string, value: number): number {
  if (Number.isFinite(value)) return value;
  const expected = "the gradients of all samples and their squares must be finite";
  return fail("nonfinite", where, expected, `${value} at this theta`);
}

/** |p|^2 of all blocks. */
export const squaredNorm =
  (measure: Measure): Form =>
  (of, { inner }) => {
    const terms = measure.trainable.flatMap((b) => {
      const p = of(b.name);
      return p === null ? [] : [inner(p, p)];
    });
    return terms.length === 0 ? null : terms.reduce((a, b) => add(a, b));
  };

const byBlock = (measure: Measure, nodes: readonly (Node | null)[]) => (name: string) =>
  nodes[measure.trainable.findIndex((b) => b.name === name)] ?? null;

/**
 * Tr[Sigma A] = (1/N) sum_n g_n^T A g_n - gbar^T A gbar over all samples of a set, for the form of A.
 *
 * Structured: gradients stay products of their factors (one pass). Where the difference would lose more than six
 * digits (two in f32), and with method "streamed", it is the mean of (g_n - gbar)^T A (g_n - gbar), formed block by
 * block of samples (two passes). The digits lost are those of Tr Sigma in some block that A acts on, whatever the size
 * of A, and those of the difference itself.
 *
 * Without a method Tr Sigma also takes its products in the order that costs least (graph/associate.ts), as long as no
 * more digits are lost by that: a linear net then never forms its hidden layers.
 *
 * error of the difference: some N u |A| E|g|^2;  of the centred form: some u |A| sqrt(Tr Sigma E|g|^2), u = 2^-53 or 2^-24
 */
function* noiseForm(
  measure: Measure,
  key: string,
  theta: ArrayLike<number>,
  form: Form,
  method?: NoiseMethod,
): Steps<number> {
  if (method !== "streamed") {
    const orders = method === undefined ? ([true, false] as const) : ([false] as const);
    for (const reorders of orders) {
      const moments = yield* momentsOf(measure, key, theta, form, reorders);
      if (moments === null) continue;
      const { second, first, blocks } = moments;
      const value = second - first;
      if (method === "structured" || blocks.every((b) => b.second === 0 && b.first === 0 && b.bound === 0))
        return value;
      const least = CANCELLATION[measure.host.core.dtype];
      const keeps = (a: number, b: number): boolean =>
        Math.abs(a - b) > least * Math.max(Math.abs(a), Math.abs(b));
      if (!blocks.every((b) => b.second > REORDERING[measure.host.core.dtype] * b.bound || b.bound === 0))
        continue;
      const kept = blocks.every((b) => b.second === 0 || keeps(b.second, b.first));
      if (kept && keeps(second, first)) return value;
      break;
    }
  }
  const terms = yield* centredTerms(measure, key, theta, form);
  let total = 0;
  for (let n = 0; n < terms.length; n++) total += terms[n]!;
  return total / measure.N;
}

/** Second and first moment of a form, and of |g|^2 in the blocks it acts on. */
interface Moments {
  readonly second: number;
  readonly first: number;
  /** `bound` is what rounding of `second` is relative to: E|g|^2 where products are in the order as written. */
  readonly blocks: readonly { readonly second: number; readonly first: number; readonly bound: number }[];
}

/** The pass of `momentsOf`; without effects where another order of products is asked for and none is cheaper. */
function momentRecipe(measure: Measure, form: Form, reorders: boolean): Recipe {
  const { N, loss, leaves } = measure;
  return {
    effects: (take) => {
      const each = byBlock(measure, measure.sampleGradients);
      // with the seed 1 of the gradients per sample, so that they share the way back
      const sums = gradient(loss, leaves, measure.model.graph.number(1), N);
      const mean = byBlock(
        measure,
        sums.map((g) => g && scale(g, 1 / N)),
      );
      const acted = new Set<string>();
      const second = form((name) => {
        const g = each(name);
        if (g !== null) acted.add(name);
        return g;
      }, structured);
      const first = form(mean, plain);
      if (second === null || first === null) return [];
      const names = [...acted];
      const norms = names.map((name) => structured.inner(each(name)!, each(name)!));
      const means = names.map((name) => plain.inner(mean(name)!, mean(name)!));
      let values = [meanOver(second, N), first, ...norms.map((n) => meanOver(n, N)), ...means];
      let bounds: readonly Node[] = [];
      if (reorders) {
        // what is rewritten has a bound only where nothing is taken away from it
        const cheaper = [second, ...norms].every(isPositive) ? associate(values, N) : null;
        if (cheaper === null) return [];
        values = [...cheaper.values];
        bounds = names.map((_, i) => cheaper.bounds[2 + i] ?? values[2 + i]!);
      }
      return [...values, ...bounds].map((value): Effect => ({ kind: "output", value, address: take(1) }));
    },
  };
}

/** By one pass over the samples, gradients kept as products; null where another order of products is asked for and none is cheaper. */
function* momentsOf(
  measure: Measure,
  key: string,
  theta: ArrayLike<number>,
  form: Form,
  reorders: boolean,
): Steps<Moments | null> {
  const pass = measure.pass(`${key}, ${reorders ? "cheapest order" : "structured"}`, () =>
    momentRecipe(measure, form, reorders),
  );
  if (pass.results.length === 0) return reorders ? null : { second: 0, first: 0, blocks: [] };
  yield* pass.walk(theta);
  const [second = 0, first = 0, ...rest] = pass.results.map((_, i) => pass.read(i, 1)[0]!);
  const count = rest.length / (reorders ? 3 : 2);
  const blocks = Array.from({ length: count }, (_, i) => ({
    second: rest[i]!,
    first: rest[count + i]!,
    bound: rest[reorders ? 2 * count + i : i]!,
  }));
  return { second, first, blocks };
}

/** Sums, products and positive multiples of squared norms. */
function isPositive(node: Node): boolean {
  if (node.op === "sqnorm") return true;
  if (node.op === "add" || node.op === "mul") return node.args.every(isPositive);
  return node.op === "scale" && node.attrs.c! >= 0 && isPositive(node.args[0]!);
}

/** The mean of g_n^T A g_n: the second moment, from which Tr[Sigma A] is left by taking gbar^T A gbar away. */
export const secondMoment = (measure: Measure, key: string, theta: ArrayLike<number>, form: Form): number =>
  now(secondMomentSteps(measure, key, theta, form));

function* secondMomentSteps(
  measure: Measure,
  key: string,
  theta: ArrayLike<number>,
  form: Form,
): Steps<number> {
  const pass = measure.pass(`${key}, second moment`, () => ({
    effects: (take) => {
      const address = take(1);
      const value = form(byBlock(measure, measure.sampleGradients), structured);
      return value === null ? [] : [{ kind: "output", value: meanOver(value, measure.N), address }];
    },
  }));
  yield* pass.walk(theta);
  return pass.read(0, 1)[0]!;
}

/** g_n^T A g_n of every sample, N values. */
export function rawTerms(measure: Measure, key: string, theta: ArrayLike<number>, form: Form): RealArray {
  const pass = measure.pass(`${key}, terms`, () => ({
    effects: (take) => {
      const address = take(measure.N);
      const value = form(byBlock(measure, measure.sampleGradients), structured);
      return value === null ? [] : [{ kind: "storeSamples", value, address, stride: 1, offset: 0 }];
    },
  }));
  pass.run(theta);
  return pass.read(0, measure.N);
}

function centredRecipe(measure: Measure, form: Form): Recipe {
  const means = () => measure.vectorLeaves(0);
  return {
    extra: means(),
    effects: (take) => {
      const address = take(measure.N);
      const centred = measure.sampleGradients.map((g, i) => (g === null ? null : sub(g, means()[i]!.node)));
      const value = form(byBlock(measure, centred), plain);
      return value === null ? [] : [{ kind: "storeSamples", value, address, stride: 1, offset: 0 }];
    },
  };
}

/** Passes of `noiseEstimate` over a whole set: the second and third only where the first loses too many digits. */
export const noiseRecipes = (measure: Measure, form: Form): Recipe[] => [
  momentRecipe(measure, form, true),
  momentRecipe(measure, form, false),
  gradientRecipe(measure),
  centredRecipe(measure, form),
];

/** (g_n - gbar)^T A (g_n - gbar) of every sample, N values. */
function* centredTerms(
  measure: Measure,
  key: string,
  theta: ArrayLike<number>,
  form: Form,
): Steps<RealArray> {
  const mean = yield* gradientSteps(measure, theta);
  const pass = measure.pass(`${key}, centred`, () => centredRecipe(measure, form));
  for (const [i, block] of measure.trainable.entries()) pass.set(i, mean, block.offset);
  yield* pass.walk(theta);
  return pass.read(0, measure.N);
}

/**
 * Tr[Sigma A] as an Estimate. For all samples of a finite set it is exact. For n independent draws the
 * sum of the centred terms q_n over n - 1 is unbiased, and its standard error is the jackknife's:
 *
 *   value  = sum_n q_n / (n - 1)
 *   stdErr = n / ((n - 1)(n - 2)) sqrt((n - 1)/n sum_n (q_n - mean q)^2)
 *
 * With centred: false it is the second moment, the mean of g_n^T A g_n.
 */
export function* noiseEstimate(
  measure: Measure,
  key: string,
  theta: ArrayLike<number>,
  form: Form,
  drawn: boolean,
  { method, centred = true }: { method?: NoiseMethod | undefined; centred?: boolean | undefined } = {},
): Steps<Estimate> {
  const n = measure.N;
  if (!centred)
    return drawn
      ? meanOf(rawTerms(measure, key, theta, form), "independent samples")
      : exact(yield* secondMomentSteps(measure, key, theta, form), n);
  if (!drawn) return exact(yield* noiseForm(measure, key, theta, form, method), n);
  const terms = yield* centredTerms(measure, key, theta, form);
  return bessel(terms);
}

/**
 * Sum of squared deviations' terms over n - 1, with the jackknife's standard error.
 *
 * A 95 % interval of Student's t lacks half a percent where n is some 50 times the squared skewness of the terms. For a
 * squared loss the terms are of fourth order in the data: n = 1,000 for bounded inputs, 5,000 for normal ones. Without
 * a twelfth moment it takes far more (Student's t with 10 degrees of freedom: 91 % at n = 4096), and without an eighth
 * there is no standard error to estimate (with 5 degrees: 50 %, at any n). Nothing in a sample tells: those that missed
 * the tail look best. Measured in test/noise-coverage.test.ts; bootstrap-t and medians of means cover no better.
 */
export function bessel(terms: ArrayLike<number>): Estimate {
  const n = terms.length;
  let total = 0;
  for (let i = 0; i < n; i++) total += terms[i]!;
  let spread = 0;
  for (let i = 0; i < n; i++) spread += (terms[i]! - total / n) * (terms[i]! - total / n);
  const stdErr = n < 3 ? Infinity : (n / ((n - 1) * (n - 2))) * Math.sqrt(((n - 1) / n) * spread);
  return {
    value: n < 2 ? NaN : total / (n - 1),
    stdErr,
    count: n,
    method: "jackknife of independent samples",
  };
}

/** Matrix moments of the noise of two factors, all h x h, row-major. */
export interface NoiseMoments {
  /** E[g_U^T g_U] - gbar_U^T gbar_U. */
  readonly SU: RealArray;
  /** E[g_W g_W^T] - gbar_W gbar_W^T. */
  readonly SW: RealArray;
  /** U^T U - W W^T. */
  readonly Q: RealArray;
}

/**
 * Moments of a product U W, with W or its transpose as the block.
 *
 * Structured: gradients of dense layers stay factored, and the first moment is taken from the second (one pass). With
 * method "streamed", and where an entry on the diagonal would lose more digits than noiseForm allows, they are means of
 * products of g_n - gbar (two passes).
 */
export function* noiseMoments(
  measure: Measure,
  theta: ArrayLike<number>,
  up: string,
  down: string,
  transposeW: boolean,
  method: NoiseMethod = "structured",
): Steps<NoiseMoments> {
  const where = "noiseMoments";
  const [U, W] = [measure.model.block(up, where), measure.model.block(down, where)];
  const h = U.shape[1] ?? 0;
  if (U.shape.length !== 2 || W.shape.length !== 2 || W.shape[transposeW ? 1 : 0] !== h) {
    fail(
      "shape",
      where,
      `expected matrices U, dy x h, and W, ${transposeW ? "dx x h (its transpose)" : "h x dx"}`,
      `${up} ${showShape(U.shape)} and ${down} ${showShape(W.shape)}`,
      transposeW ? undefined : "Pass { transposeW: true } where the block holds the transpose of W.",
    );
  }
  const { N, model } = measure;
  const means = measure.vectorLeaves(0);
  const meanLeaf = byBlock(
    measure,
    means.map(({ node }) => node),
  );
  const run = function* (by: NoiseMethod): Steps<RealArray[]> {
    const isCentred = by === "streamed";
    const pass = measure.pass(`moments of ${up}, ${down}, ${transposeW}, ${by}`, () => ({
      extra: isCentred ? means : [],
      effects: (take) => {
        const weight = model.graph.number(1 / N);
        const mean = byBlock(measure, gradient(measure.loss, measure.leaves, weight, N));
        const each = byBlock(measure, measure.sampleGradients);
        /** E[a^T a] and E[a]^T E[a], a = g or g^T; of a = g - gbar the first alone */
        const moment = (name: string, turned: boolean): Effect[] => {
          const [second, first] = [take(h * h), take(h * h)];
          const [g, m] = [each(name), mean(name)];
          if (g === null || m === null) return [];
          const { gram, transposed } = isCentred ? plain : structured;
          const a = isCentred ? sub(g, meanLeaf(name)!) : g;
          const sums = gram(turned ? transposed(a) : a).map((t) => meanOver(t, N));
          const effects: Effect[] = [
            { kind: "output", value: sums.reduce((x, y) => add(x, y)), address: second },
          ];
          const ofMean = turned ? matmul(m, transpose(m)) : matmul(transpose(m), m);
          if (!isCentred) effects.push({ kind: "output", value: ofMean, address: first });
          return effects;
        };
        const effects = [...moment(up, false), ...moment(down, !transposeW)];
        const [u, w] = [model.leaf(up), model.leaf(down)];
        const second = transposeW ? matmul(transpose(w), w) : matmul(w, transpose(w));
        const Q = sub(matmul(transpose(u), u), second);
        return [...effects, { kind: "output", value: Q, address: take(h * h) }];
      },
    }));
    if (isCentred) {
      const mean = yield* gradientSteps(measure, theta);
      for (const [i, block] of measure.trainable.entries()) pass.set(i, mean, block.offset);
    }
    yield* pass.walk(theta);
    return pass.results.map((_, i) => pass.read(i, h * h));
  };
  const results = yield* run(method);
  const least = CANCELLATION[measure.host.core.dtype];
  const loses = [0, 2].some((at) =>
    results[at]!.some(
      (second, e) => e % (h + 1) === 0 && second > 0 && !(second - results[at + 1]![e]! > least * second),
    ),
  );
  const [SU, meanU, SW, meanW, Q] = (method === "structured" && loses ? yield* run("streamed") : results) as [
    RealArray,
    RealArray,
    RealArray,
    RealArray,
    RealArray,
  ];
  for (let e = 0; e < h * h; e++) {
    SU[e] = SU[e]! - meanU[e]!;
    SW[e] = SW[e]! - meanW[e]!;
  }
  return { SU, SW, Q };
}

/** Samples whose gradient weights are centred by before the mean of all is known. */
const PILOTS = 64;

/** The gradient g0 of some samples spread over the set, from one short pass. */
function pilotGradient(measure: Measure, theta: ArrayLike<number>): Float64Array {
  const { N } = measure;
  const count = Math.min(PILOTS, N);
  const pass = measure.pass("gradient of a few samples", () => ({
    samples: count,
    chosen: true,
    effects: (take) => meanEffects(measure, count, take),
  }));
  chooseRows(
    measure,
    pass,
    Array.from({ length: count }, (_, i) => Math.floor((i * N) / count)),
    count,
  );
  pass.run(theta);
  return readGradient(measure, pass, 0);
}

/** The mean gradient of the samples of a pass from sums of g_n: the same bits in every pass over the same samples. */
function meanEffects(measure: Measure, count: number, take: (values: number) => number): Effect[] {
  const sums = gradient(measure.loss, measure.leaves, measure.model.graph.number(1), count);
  return sums.flatMap((g, i): Effect[] => {
    const address = take(measure.trainable[i]!.size);
    return g === null ? [] : [{ kind: "output", value: scale(g, 1 / count), address }];
  });
}

/** A vector of parameter space from results of a pass, a block each. */
function readGradient(measure: Measure, pass: Evaluation, from: number): Float64Array {
  const out = new Float64Array(measure.P);
  for (const [i, block] of measure.trainable.entries())
    pass.readInto(out, block.offset, from + i, block.size);
  return out;
}

/** The gradient of a few samples and that of all, kept until another theta is asked for: products with Sigma come in series. */
interface Centre {
  readonly theta: Float64Array;
  readonly pilot: Float64Array;
  mean: Float64Array | null;
}
const centres = new WeakMap<Measure, Centre>();

function centreAt(measure: Measure, theta: Float64Array): Centre {
  const known = centres.get(measure);
  if (known?.theta.every((x, i) => x === theta[i])) return known;
  const made = { theta: theta.slice(), pilot: pilotGradient(measure, theta), mean: null };
  centres.set(measure, made);
  return made;
}

/**
 * Sigma v = (1/N) sum_n g_n (g_n . v) - gbar (gbar . v) for several vectors, [count][P].
 *
 * Weights w_n = g_n . v - g0 . v are centred by the gradient g0 of a few samples: a forward pass for the weights and one
 * weighted backward pass, from which their mean, small by then, times gbar is taken away. Where gbar is not known yet the
 * pass of one vector finds it on its way, to the same bits.
 *
 * error |v| some u sqrt(Tr Sigma E|g|^2), u = 2^-53 or 2^-24, and at most sqrt(N / 64) times that, for |g0 - gbar|^2 is at
 * most N / 64 Tr Sigma
 */
export function noiseVectors(
  measure: Measure,
  theta: Float64Array,
  vectors: ArrayLike<number>,
  count: number,
): Float64Array {
  const centre = centreAt(measure, theta);
  if (centre.mean === null && count > 1) {
    const pass = measure.pass("mean gradient from sums", () => ({
      effects: (take) => meanEffects(measure, measure.N, take),
    }));
    pass.run(theta);
    centre.mean = readGradient(measure, pass, 0);
  }
  const { mean } = centre;
  const leavesOf = (name: string) =>
    measure.trainable.map((b) => ({
      node: measure.model.graph.param(`${b.name}~${name}`, b.shape),
      size: b.size,
    }));
  const [pilots, means] = [leavesOf("pilot"), mean === null ? [] : leavesOf("mean")];
  const set = (pass: Evaluation, from: number) => {
    for (const [i, block] of measure.trainable.entries()) {
      pass.set(from + i, centre.pilot, block.offset);
      if (mean !== null) pass.set(from + pilots.length + i, mean, block.offset);
    }
  };
  const build = (along: ReadonlyMap<Node, Node>, k: number) =>
    noiseProduct(measure, along, measure.vectorLeaves(k), pilots, means.length === 0 ? null : means);
  const shared = [...pilots, ...means];
  if (mean !== null)
    return now(mapVectors(measure, "noise covariance times", theta, vectors, count, build, shared, set));
  const pass = measure.pass("noise covariance times, and the mean", () => ({
    extra: [...measure.vectorLeaves(0), ...shared],
    effects: (take) => {
      const product = build(
        new Map(measure.vectorLeaves(0).map(({ node }, i) => [measure.leaves[i]!, node])),
        0,
      );
      const effects = product.flatMap((value, i): Effect[] => {
        const address = take(measure.trainable[i]!.size);
        return value === null ? [] : [{ kind: "output", value, address }];
      });
      return [...effects, ...meanEffects(measure, measure.N, take)];
    },
  }));
  for (const [i, block] of measure.trainable.entries()) pass.set(i, vectors, block.offset);
  set(pass, measure.trainable.length);
  pass.run(theta);
  centre.mean = readGradient(measure, pass, measure.trainable.length);
  return readGradient(measure, pass, 0);
}

/** Sigma v by blocks, null where the loss does not depend on a block; `means` null where the pass is to find gbar. */
function noiseProduct(
  measure: Measure,
  along: ReadonlyMap<Node, Node>,
  v: readonly { readonly node: Node }[],
  pilots: readonly { readonly node: Node }[],
  means: readonly { readonly node: Node }[] | null,
): (Node | null)[] {
  const { N, loss, leaves } = measure;
  const each = measure.sampleGradients;
  if (each.every((g) => g === null)) return each;
  // factored gradients are weighted by sample; others go back again with the weight as the seed
  const isFactored = each.every((g) => g === null || hasStructure(g));
  const weightedSum = (weight: Node) =>
    isFactored
      ? each.map(
          (g) =>
            g &&
            weighted(weight, g)
              .map((t) => batchSum(t, N))
              .reduce((a, b) => add(a, b)),
        )
      : gradient(loss, leaves, weight, N);
  const mean =
    means?.map(({ node }) => node) ??
    gradient(loss, leaves, measure.model.graph.number(1), N).map((g) => g && scale(g, 1 / N));
  const total = (nodes: readonly (Node | null | undefined)[]) =>
    nodes.filter((n) => n != null).reduce((a, b) => add(a, b));
  const moved = isFactored
    ? total(each.map((g, i) => g && structured.inner(g, v[i]!.node)))
    : tangent([loss], along)[0]!;
  const drift = v.map(({ node }, i) => sum(mul(pilots[i]!.node, node)));
  const weight = sub(moved, total(drift));
  const left = meanOver(weight, N);
  return weightedSum(scale(weight, 1 / N)).map((g, i) => g && sub(g, mul(left, mean[i]!)));
}

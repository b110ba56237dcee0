import type { RealArray } from "../core/arena.ts";
import { turn } from "../core/turn.ts";
import { fail } from "../errors.ts";
import { meanOver } from "../graph/derive.ts";
import { Code } from "../graph/instructions.ts";
import { Planner } from "../graph/layout.ts";
import { type Lifted, type LiftedTerm, lift } from "../graph/lifted.ts";
import type { Effect } from "../graph/lower.ts";
import { type Node, sizeOf } from "../graph/node.ts";
import { chooseRows, chunkRows, gradientsPass, meanGradient } from "../models/derivatives.ts";
import type { Measure } from "../models/measure.ts";
import type { Control } from "./operator.ts";

/** How the whole Sigma is found: from the gradients of all samples, or from moments of what they are linear images of. */
export type CovarianceMethod = "direct" | "moments";

/** The whole Sigma, P x P row-major, and how it was found. */
export type Covariance = RealArray & { readonly method: CovarianceMethod };

/** Moments are taken where they cost less than this share of the direct way. */
const WORTHWHILE = 0.7;
/** Where Tr Sigma of a block is this much below what its rounding is relative to, it is found from the gradients. */
const CANCELLATION = { f64: 1e-6, f32: 1e-4 };
/** Values of phi of the samples that are gone through together: they stay in the cache. */
const LIFTED_VALUES = 1 << 16;
/** Multiply-adds between two turns of the event loop: some milliseconds. */
const TURN = 1 << 26;

interface Options extends Control {
  readonly method?: CovarianceMethod | undefined;
}

/**
 * The whole covariance Sigma, P x P row-major. Both methods centre before they multiply.
 *
 *   direct   sum_n (g_n - gbar)(g_n - gbar)^T, a rank-k update over chunks of samples: N P^2 / 2 multiply-adds
 *   moments  T C T^T for g_n = T phi_n + const (graph/lifted.ts), C the covariance of the shorter phi: N p^2 / 2 for C,
 *            and for each term of a block two products with its matrices
 *
 * error of an entry, u = 2^-53 or 2^-24:  direct   some N u sqrt(Sigma_ii Sigma_jj) + u sqrt(Tr Sigma E|g|^2)
 *                                         moments  the same of |T| sqrt(diag C) in the place of sqrt(Sigma_ii)
 *
 * Without a method moments are taken where they cost less, unless in some block they would lose more than six digits
 * (four in f32) of its trace.
 *
 * @param divisor N for a whole set, n - 1 for n independent draws
 * @throws NoetherflowError "unsupported" for method "moments" where no vector shorter than g_n will do; the signal's
 *         reason, as soon as a chunk is done; dispose() meanwhile lets it finish
 */
export async function noiseCovariance(
  measure: Measure,
  theta: ArrayLike<number>,
  divisor: number,
  { method, ...control }: Options = {},
): Promise<Covariance> {
  control.signal?.throwIfAborted();
  const letGo = measure.hold();
  try {
    if (method !== "direct") {
      const lifted = liftedOf(measure);
      if (lifted === null && method === "moments")
        fail(
          "unsupported",
          "noiseCovariance",
          "gradients that are a linear image of fewer products of vectors of the sample",
          "none are shorter than the gradients of this model",
          'Leave the method out, or take "direct".',
        );
      if (lifted !== null && (method === "moments" || isWorthwhile(measure, lifted))) {
        const found = await fromMoments(measure, theta, divisor, lifted, method === "moments", control);
        if (found !== null) return named(found, "moments");
      }
    }
    return named(await fromGradients(measure, theta, divisor, control), "direct");
  } finally {
    letGo();
  }
}

const named = (values: RealArray, method: CovarianceMethod): Covariance =>
  Object.defineProperty(values, "method", { value: method }) as Covariance;

const known = new WeakMap<Measure, Lifted | null>();

/** The short form of the gradients, looked for once. */
function liftedOf(measure: Measure): Lifted | null {
  let found = known.get(measure);
  if (found === undefined) {
    found = lift(measure.sampleGradients);
    known.set(measure, found);
  }
  return found;
}

/** By centred rank-k updates over chunks of samples. */
async function fromGradients(
  measure: Measure,
  theta: ArrayLike<number>,
  divisor: number,
  { signal, onProgress }: Control,
): Promise<RealArray> {
  const { host, N, P } = measure;
  const { arena, core } = host;
  const { bytes } = core.real;
  const rows = chunkRows(measure);
  const mean = meanGradient(measure, theta);
  const { region, plan } = arena.reserve("noiseCovariance", (base) => {
    const meanAt = base + Math.ceil((P * P * bytes + 64) / 64) * 64;
    return { bytes: meanAt - base + (P + 8) * bytes, meanAt };
  });
  try {
    arena.clear(region);
    arena.reals(plan.meanAt, P).set(mean);
    for (let first = 0; first < N; first += rows) {
      const count = Math.min(rows, N - first);
      const pass = gradientsPass(measure);
      chooseRows(
        measure,
        pass,
        Array.from({ length: count }, (_, i) => first + i),
        rows,
      );
      pass.run(theta);
      core.exports.centreRows(pass.results[0]!, plan.meanAt, count, P, P);
      core.exports.rankUpdate(region.base, pass.results[0]!, count, P, P);
      onProgress?.({ done: first + count, total: N });
      if (first + count < N) await turn();
      signal?.throwIfAborted();
    }
    core.exports.mirror(region.base, P);
    const out = arena.reals(region.base, P * P).slice();
    for (let i = 0; i < out.length; i++) out[i] = out[i]! / divisor;
    return out;
  } finally {
    arena.release(region);
  }
}

/** Multiply-adds of both ways. */
function isWorthwhile({ N, P, trainable }: Measure, { size, blocks }: Lifted): boolean {
  let moments = 0.5 * N * size * (size + 2);
  for (const [b, terms] of blocks.entries()) {
    const entries = trainable[b]!.size;
    for (const { lift, left, right } of terms) {
      const columns = size + P;
      const inner = right === null ? lift.rows * lift.cols : lift.rows * right.shape[0]!;
      if (right !== null) moments += inner * lift.cols * columns;
      if (left !== null) moments += entries * lift.rows * columns;
    }
  }
  return moments < WORTHWHILE * 0.5 * N * P * P;
}

/** Addresses of the matrices of a term, 0 for the identity. */
interface Placed {
  readonly left: number;
  readonly right: number;
}

/** T C T^T; null where `forced` is false and rounding would be too large. */
async function fromMoments(
  measure: Measure,
  theta: ArrayLike<number>,
  divisor: number,
  lifted: Lifted,
  forced: boolean,
  { signal, onProgress }: Control,
): Promise<RealArray | null> {
  const { host, N, P, trainable } = measure;
  const { arena, core } = host;
  const { bytes } = core.real;
  const { size: p, lifts, blocks } = lifted;
  const rows = Math.max(1, Math.min(N, Math.floor(LIFTED_VALUES / p)));

  const means = measure.pass("mean of lifted gradients", () => ({
    effects: (take) =>
      outputs(
        lifts.map(({ node }) => meanOver(node, N)),
        take,
      ),
  }));
  means.run(theta);
  const { matrices, index } = matricesOf(blocks);
  const maps = measure.pass("matrices of lifted gradients", () => ({
    samples: 1,
    effects: (take) => outputs(matrices, take),
  }));
  if (matrices.length > 0) maps.run(theta);
  const placed = blocks.map((terms) =>
    terms.map(({ left, right }): Placed => {
      const at = (node: Node | null) => (node === null ? 0 : maps.results[index.get(node)!]!);
      return { left: at(left), right: at(right) };
    }),
  );
  const chunk = measure.pass("lifted gradients", () => ({
    samples: rows,
    chosen: true,
    effects: (take) => {
      const address = take(rows * p);
      return lifts.map(
        ({ node, offset }): Effect => ({
          kind: "storeSamples",
          value: node,
          address,
          stride: p,
          offset,
        }),
      );
    },
  }));

  // rows an odd number of cache lines long lie in different sets of the cache
  const line = 64 / bytes;
  const wide = (2 * Math.floor(P / line / 2) + 3) * line;
  const code = new Code();
  const { region, plan } = arena.reserve("noiseCovariance", (base) => {
    const planner = new Planner(base);
    const take = (values: number) => planner.take((values + 8) * bytes);
    const at = { Sigma: take(P * P), C: take(p * p), mean: take(p), TC: take(P * p), CT: take(p * wide) };
    const most = Math.max(
      1,
      ...blocks.flat().map((t) => (t.left && t.right ? t.lift.rows * t.right.shape[0]! : 0)),
    );
    return { ...at, between: take(most * wide), bytes: planner.end - base };
  });
  try {
    // the rest is written as a whole, unless some entries of theta do not move
    const isWhole = blocks.reduce((n, terms, b) => n + (terms.length > 0 ? trainable[b]!.size : 0), 0) === P;
    if (isWhole) arena.reals(plan.C, p * p).fill(0);
    else arena.clear(region);
    for (const [i, { rows: m, cols: n, offset }] of lifts.entries())
      means.readInto(arena.reals(plan.mean, p), offset, i, m * n);
    let work = 0;
    for (let first = 0; first < N; first += rows) {
      const count = Math.min(rows, N - first);
      chooseRows(
        measure,
        chunk,
        Array.from({ length: count }, (_, i) => first + i),
        rows,
      );
      chunk.run(theta);
      core.exports.centreRows(chunk.results[0]!, plan.mean, count, p, p);
      core.exports.rankUpdate(plan.C, chunk.results[0]!, count, p, p);
      work += 0.5 * count * p * p;
      if (work < TURN && first + count < N) continue;
      work = 0;
      onProgress?.({ done: first + count, total: N });
      if (first + count < N) await turn();
      signal?.throwIfAborted();
    }
    core.exports.mirror(plan.C, p);
    code.emit("scale", { dst: plan.C, a: plan.C, n: p * p, imm: 1 / divisor });
    const between = { address: plan.between, ld: wide };
    const each = blocks.map((terms, b) => ({ terms, placed: placed[b]!, ...trainable[b]! }));
    for (const { terms, placed, offset } of each) {
      const to = { address: plan.TC + offset * p * bytes, ld: p };
      emitImage(code, terms, placed, { address: plan.C, ld: p }, to, p, between, bytes);
    }
    code.emit("transpose", { dst: plan.CT, a: plan.TC, rows: P, cols: p, ldd: wide, lda: p });
    // on and above the diagonal, whole blocks
    for (const { terms, placed, offset } of each) {
      const from = { address: plan.CT + offset * bytes, ld: wide };
      const to = { address: plan.Sigma + offset * (P + 1) * bytes, ld: P };
      emitImage(code, terms, placed, from, to, P - offset, between, bytes);
    }
    await execute(measure, code);
    signal?.throwIfAborted();
    core.exports.mirror(plan.Sigma, P);
    const Sigma = arena.reals(plan.Sigma, P * P);
    const C = arena.reals(plan.C, p * p);
    const deviations = Float64Array.from({ length: p }, (_, i) => Math.sqrt(C[i * (p + 1)]!));
    const kept = each.every(({ terms, placed, offset, size }) => {
      let trace = 0;
      for (let i = offset; i < offset + size; i++) trace += Sigma[i * (P + 1)]!;
      const bound = boundOf(measure, terms, placed, deviations, size);
      return bound === 0 || trace > CANCELLATION[core.dtype] * bound;
    });
    return kept || forced ? Sigma.slice() : null;
  } finally {
    arena.release(region);
  }
}

const outputs = (values: readonly Node[], take: (values: number) => number): Effect[] =>
  values.map((value) => ({ kind: "output", value, address: take(sizeOf(value.shape)) }));

/** The matrices of all terms, each once. */
function matricesOf(blocks: Lifted["blocks"]): { matrices: Node[]; index: Map<Node, number> } {
  const index = new Map<Node, number>();
  for (const { left, right } of blocks.flat())
    for (const node of [left, right]) if (node !== null && !index.has(node)) index.set(node, index.size);
  return { matrices: [...index.keys()], index };
}

/** Runs instructions outside any pass. */
async function execute({ host: { arena, core } }: Measure, code: Code): Promise<void> {
  const { region, plan } = arena.reserve("noiseCovariance", (base) => {
    const planner = new Planner(base);
    return { at: planner.take(code.byteLength), bytes: planner.end - base };
  });
  try {
    if (code.length > 0) code.writeTo(arena.buffer, plan.at);
    core.exports.execute(plan.at, plan.at + code.byteLength);
  } finally {
    arena.release(region);
  }
}

interface Rows {
  readonly address: number;
  /** Values from row to row. */
  readonly ld: number;
}

/**
 * The rows of T X of one block, for some columns of X [p][columns]:
 *
 *   dst[(i, j)] = sum over terms of sum_kl left[i][k] right[j][l] X[offset + (k, l)]
 */
function emitImage(
  code: Code,
  terms: readonly LiftedTerm[],
  placed: readonly Placed[],
  X: Rows,
  dst: Rows,
  columns: number,
  between: Rows,
  bytes: number,
): void {
  for (const [i, { lift, left, right }] of terms.entries()) {
    const { rows, cols, offset } = lift;
    const at = placed[i]!;
    const accumulate = i === 0 ? 0 : 1;
    const rowOf = ({ address, ld }: Rows, row: number) => address + row * ld * bytes;
    const from: Rows = { address: rowOf(X, offset), ld: X.ld };
    const n = right === null ? cols : right.shape[0]!;
    if (left === null && right === null) {
      // the first term: see graph/lifted.ts
      code.emit("copyRows", {
        dst: dst.address,
        a: from.address,
        rows: rows * cols,
        n: columns,
        strideD: dst.ld,
        strideA: X.ld,
      });
      continue;
    }
    let middle = from;
    if (right !== null) {
      middle = left === null ? dst : between;
      for (let k = 0; k < rows; k++)
        code.emit("matmulNN", {
          dst: rowOf(middle, k * n),
          a: at.right,
          b: rowOf(from, k * cols),
          m: n,
          n: columns,
          k: cols,
          ldd: middle.ld,
          lda: cols,
          ldb: X.ld,
          accumulate: left === null ? accumulate : 0,
        });
    }
    if (left === null) continue;
    for (let j = 0; j < n; j++)
      code.emit("matmulNN", {
        dst: rowOf(dst, j),
        a: at.left,
        b: rowOf(middle, j),
        m: left.shape[0]!,
        n: columns,
        k: rows,
        ldd: n * dst.ld,
        lda: rows,
        ldb: n * middle.ld,
        accumulate,
      });
  }
}

/** Sum over the entries of a block of ((|left| x |right|) sqrt(diag C))^2: what rounding of its trace is relative to. */
function boundOf(
  { host: { arena } }: Measure,
  terms: readonly LiftedTerm[],
  placed: readonly Placed[],
  deviations: Float64Array,
  size: number,
): number {
  const sums = new Float64Array(size);
  for (const [i, { lift, left, right }] of terms.entries()) {
    const { rows, cols, offset } = lift;
    const L = left === null ? null : arena.reals(placed[i]!.left, sizeOf(left.shape));
    const R = right === null ? null : arena.reals(placed[i]!.right, sizeOf(right.shape));
    const n = right === null ? cols : right.shape[0]!;
    const m = left === null ? rows : left.shape[0]!;
    const middle = new Float64Array(rows * n);
    for (let k = 0; k < rows; k++)
      for (let j = 0; j < n; j++) {
        if (R === null) middle[k * n + j] = deviations[offset + k * cols + j]!;
        else
          for (let l = 0; l < cols; l++)
            middle[k * n + j] =
              middle[k * n + j]! + Math.abs(R[j * cols + l]!) * deviations[offset + k * cols + l]!;
      }
    for (let a = 0; a < m; a++)
      for (let j = 0; j < n; j++) {
        if (L === null) sums[a * n + j] = sums[a * n + j]! + middle[a * n + j]!;
        else
          for (let k = 0; k < rows; k++)
            sums[a * n + j] = sums[a * n + j]! + Math.abs(L[a * rows + k]!) * middle[k * n + j]!;
      }
  }
  return sums.reduce((sum, x) => sum + x * x, 0);
}

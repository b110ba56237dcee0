import { fail } from "../errors.ts";
import { meanOver } from "../graph/derive.ts";
import type { Effect } from "../graph/lower.ts";
import type { Block } from "../graph/model.ts";
import { abs } from "../graph/ops.ts";
import type { Measure } from "../models/measure.ts";
import { MU_FLOOR } from "./equilibrium.ts";
import { noiseSpectrum, type Spectrum } from "./spectrum.ts";

/** An energy this small beside the squares it is made from is what rounding leaves of none. */
export const NOISE_FLOOR = { f64: 1e-24, f32: 1e-10 };
/** Sizes whose squares, and sums of many of them, are held with all digits. */
const RANGE = { f64: [1e-140, 1e140], f32: [1e-16, 1e16] } as const;
/** Eigenvalues that agree to 2^-30 of the largest belong to one eigenspace. */
const SAME = 1073741824;

/** Energies along the eigenvectors v_i of one generator, or of several that share them. */
export interface Energies {
  /** Noise Var_n(v_i . g_n), and 0 where rounding explains it. */
  readonly s: Float64Array;
  /** What rounding explains of s_i, and of the square of any other mean along v_i; 0 where the generator does not act. */
  readonly floor: Float64Array;
  /** (v_i . (theta - c))^2, and 0 where rounding explains it. */
  readonly q: Float64Array;
  /** v_i . (theta - c). */
  readonly displaced: Float64Array;
}

/**
 * Energies along the eigenvectors of a spectrum, those that are no more than rounding set to 0. With a_j = mean_n |g_nj|,
 * and 1e-10 for 1e-24 in f32:
 *
 *   s_i counts above 1e-24 max((sum_j |v_ij| a_j)^2, min(sum_j a_j^2, sum_j a_j^2 theta_j^2 / |theta_V|^2))
 *   q_i counts above 1e-24 (sum_j |v_ij| |theta_j|)^2
 *
 * with theta for theta - c, and theta_V its part in the eigenspace of v_i. The first is the rounding of the
 * projection, which matters where v_i mixes entries. The second is that of the gradient itself, whose entries are sums that
 * may cancel (the bias of keys in attention): at most the size of the whole gradient, and at most that of a gradient which
 * changes the loss over a distance |theta_V| as much as the others do over theirs. Products of a gradient and a theta are the
 * same along an orbit, so that theta may be any distance off balance.
 *
 * @param from theta - c
 * @param mu   eigenvalues of each generator, in the order of the spectrum; where all are 0 the energies are not looked at
 * @param key  of the generators
 * @throws NoetherflowError "nonfinite" where a gradient or theta is too large or too small for its square
 * @cost   that of noiseSpectrum, and a pass over the samples for a
 * @source theory.md, 5.3
 */
export function energiesAlong(
  where: string,
  measure: Measure,
  theta: Float64Array,
  from: Float64Array,
  spectrum: Spectrum,
  mu: readonly Float64Array[],
  key: string,
): Energies {
  const { dtype } = measure.host.core;
  const sizes = gradientSizes(measure, theta);
  const displaced = spectrum.coordinates(from);
  const q = displaced.map((x) => x * x);
  const s = noiseSpectrum(measure, theta, spectrum, key);
  const reached = { s: spectrum.spread(sizes), q: spectrum.spread(from.map(Math.abs)) };
  const spaces = eigenspaces(mu);
  for (const space of spaces) {
    checkRange(where, "the gradient noise along the generator", space, s, reached.s, dtype);
    checkRange(where, "theta along the generator", space, q, reached.q, "f64");
  }
  let [total, reach] = [0, 0];
  for (const [j, a] of sizes.entries()) {
    total += a * a;
    reach += a * from[j]! * (a * from[j]!);
  }
  const floor = new Float64Array(s.length);
  const least = NOISE_FLOOR[dtype];
  for (const space of spaces) {
    const norm = space.reduce((sum, i) => sum + q[i]!, 0);
    const cancelled = reach < total * norm ? reach / norm : total;
    for (const i of space) {
      const [ofNoise, ofTheta] = [reached.s[i]!, reached.q[i]!];
      floor[i] = least * Math.max(ofNoise * ofNoise, cancelled);
      if (s[i]! <= floor[i]!) s[i] = 0;
      if (q[i]! <= least * (ofTheta * ofTheta)) q[i] = 0;
    }
  }
  return { s, floor, q, displaced };
}

/** Refuses a theta whose entries in a block, or the gradients there, are too large or too small for their squares. */
export function checkSquares(
  where: string,
  measure: Measure,
  theta: Float64Array,
  blocks: readonly Block[],
): void {
  const [sizes, absolute] = [gradientSizes(measure, theta), theta.map(Math.abs)];
  for (const { name, offset, size } of blocks) {
    const entries = Array.from({ length: size }, (_, e) => offset + e);
    checkRange(where, `the gradient of ${name}`, entries, sizes, sizes, measure.host.core.dtype);
    checkRange(where, `the entries of ${name}`, entries, absolute, absolute, "f64");
  }
}

/** mean_n |g_nj| of every entry, P values; 0 for blocks that are not trained. */
function gradientSizes(measure: Measure, theta: ArrayLike<number>): Float64Array {
  const { trainable, sampleGradients, N, P } = measure;
  const pass = measure.pass("sizes of the gradient's entries", () => ({
    effects: (take) =>
      trainable.flatMap(({ size }, i): Effect[] => {
        const address = take(size);
        const g = sampleGradients[i]!;
        return g === null ? [] : [{ kind: "output", value: meanOver(abs(g), N), address }];
      }),
  }));
  pass.run(theta);
  const out = new Float64Array(P);
  for (const [i, { offset, size }] of trainable.entries()) pass.readInto(out, offset, i, size);
  return out;
}

/** Indices of the eigenvectors that share their eigenvalues, all but those where every eigenvalue is 0. */
function eigenspaces(mu: readonly Float64Array[]): number[][] {
  const largest = mu.map((m) => m.reduce((most, x) => Math.max(most, Math.abs(x)), 0));
  const spaces = new Map<string, number[]>();
  for (let i = 0; i < (mu[0]?.length ?? 0); i++) {
    if (mu.every((m, k) => Math.abs(m[i]!) <= MU_FLOOR * largest[k]!)) continue;
    const values = mu.map((m, k) => (m[i] === 0 ? 0 : Math.round((SAME * m[i]!) / largest[k]!)));
    const name = values.join();
    const space = spaces.get(name);
    if (space === undefined) spaces.set(name, [i]);
    else space.push(i);
  }
  return [...spaces.values()];
}

/** Refuses squares beyond the range, and entries, not all 0, whose squares all vanish. */
function checkRange(
  where: string,
  what: string,
  entries: readonly number[],
  squares: Float64Array,
  sizes: Float64Array,
  dtype: "f64" | "f32",
): void {
  const [least, largest] = RANGE[dtype];
  let most = 0;
  for (const i of entries) most = squares[i]! < Infinity ? Math.max(most, sizes[i]!) : Infinity; // NaN stays
  if (most === 0 || (most >= least && most <= largest)) return;
  fail(
    "nonfinite",
    where,
    `${what} of a size between ${least} and ${largest}, whose squares ${dtype} holds`,
    `${Number(most.toPrecision(2))}`,
    "Move theta along its orbit with problem.transform, or scale the data or theta.",
  );
}

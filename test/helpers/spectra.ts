import { EigenvalueDecomposition, Matrix } from "ml-matrix";
import { Arena } from "../../src/core/arena.ts";
import type { Host } from "../../src/models/evaluate.ts";
import type { LinearOperator } from "../../src/stats/operator.ts";
import { loadInlined } from "../../src/wasm/inlined.ts";
import type { Dtype } from "../../src/wasm/module.ts";

export async function hostOf(dtype: Dtype): Promise<Host> {
  const core = await loadInlined(dtype);
  return { core, arena: new Arena(core.memory, core.exports.heapBase(), core.real.bytes) };
}

// ---- plain loops: nothing below comes from the code under test

let state = 20240229;
export const uniform = (): number => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return (state + 0.5) / 2 ** 32;
};
export const normal = (): number => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());

/** A symmetric matrix, row-major. */
export interface Explicit {
  readonly n: number;
  readonly values: Float64Array;
  readonly trace: number;
}

export function explicit(n: number, entry: (i: number, j: number) => number): Explicit {
  const values = new Float64Array(n * n);
  for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) values[i * n + j] = entry(i, j);
  return {
    n,
    values,
    trace: Array.from({ length: n }, (_, i) => values[i * n + i]!).reduce((s, x) => s + x, 0),
  };
}

/** Q diag(spectrum) Q^T, Q a product of n random reflections: no eigenvector is along an axis. */
export function withSpectrum(spectrum: readonly number[]): Explicit {
  const n = spectrum.length;
  const A = explicit(n, (i, j) => (i === j ? spectrum[i]! : 0)).values;
  for (let r = 0; r < n; r++) {
    const v = Array.from({ length: n }, normal);
    const twice = 2 / v.reduce((s, x) => s + x * x, 0);
    for (const [step, other] of [
      [1, n],
      [n, 1],
    ] as const) {
      for (let i = 0; i < n; i++) {
        let along = 0;
        for (let j = 0; j < n; j++) along += A[i * other + j * step]! * v[j]!;
        for (let j = 0; j < n; j++) A[i * other + j * step]! -= twice * along * v[j]!;
      }
    }
  }
  return explicit(n, (i, j) => 0.5 * (A[i * n + j]! + A[j * n + i]!));
}

export const spectra = {
  /** Different numbers in [0.5, 1.5]. */
  flat: (n: number) => Array.from({ length: n }, () => 0.5 + uniform()),
  /** k^-2. */
  decaying: (n: number) => Array.from({ length: n }, (_, k) => 1 / (k + 1) ** 2),
  /** 100 above different numbers in [0.5, 1.5]. */
  spike: (n: number) => Array.from({ length: n }, (_, k) => (k === 0 ? 100 : 0.5 + uniform())),
} as const;

/** The matrix as an operator that counts its products. */
export function operatorOf(A: Explicit, width = 16): LinearOperator & { products: number } {
  const { n, values } = A;
  return {
    size: n,
    width,
    products: 0,
    apply(vectors, count) {
      this.products += count;
      const out = new Float64Array(count * n);
      for (let c = 0; c < count; c++) {
        for (let i = 0; i < n; i++) {
          let sum = 0;
          for (let j = 0; j < n; j++) sum += values[i * n + j]! * vectors[c * n + j]!;
          out[c * n + i] = sum;
        }
      }
      return out;
    },
    quadratic(vectors, count) {
      const images = this.apply(vectors, count);
      return Float64Array.from({ length: count }, (_, c) => {
        let sum = 0;
        for (let i = 0; i < n; i++) sum += vectors[c * n + i]! * images[c * n + i]!;
        return sum;
      });
    },
  };
}

/** Eigenvalues by ml-matrix, ascending. */
export function eigenvaluesOf(A: Explicit): number[] {
  const M = Matrix.from1DArray(A.n, A.n, [...A.values]);
  return new EigenvalueDecomposition(M, { assumeSymmetric: true }).realEigenvalues.sort((a, b) => a - b);
}

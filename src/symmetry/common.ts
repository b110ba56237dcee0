import { exp, log } from "../core/elementary.ts";
import { fail } from "../errors.ts";
import type { Model } from "../graph/model.ts";
import type { Dense, Matrix as DenseMatrix } from "../stats/dense.ts";
import { actionOn } from "./action.ts";
import { type Direction, MU_FLOOR, solveEquilibrium } from "./equilibrium.ts";
import { type BlockAction, type Fitted, Generator, type Matrix, resolved } from "./generator.ts";
import { Spectrum } from "./spectrum.ts";

/** Eigenvectors that several generators share, and their eigenvalues. */
export interface CommonBasis {
  readonly spectrum: Spectrum;
  /** mu[k][i], the eigenvalue of generator k along eigenvector i of the spectrum. */
  readonly mu: readonly Float64Array[];
  /** Of all the generators, or null. */
  readonly center: Float64Array | null;
}

/** What a generator may have off the diagonal in the common basis, beside its largest entry. */
const DIAGONAL = 1e-9;
/** Combinations that are tried: two eigenvalues of one of them may be close by chance. */
const COMBINATIONS = 4;
/** The fractional part of the golden ratio: multiples of it, modulo 1, keep apart. */
const GOLDEN = 0.6180339887498949;

/** How a generator acts on one part of parameter space: scalar + left + right. */
interface Action {
  readonly scalar: number;
  readonly left: Matrix | undefined;
  readonly right: Matrix | undefined;
}

/**
 * An orthonormal basis in which all the generators are diagonal, block by block: the eigenvectors of sum_k c_k A_k with
 * c generic. All must turn about one center.
 *
 * @param generators of this model, at least one
 * @throws NoetherflowError "unsupported" for generators that do not commute (to 1e-9 of their largest entries), naming two
 *         of them, or with different centers
 * @cost   O(K (rows^3 + cols^3)) per block for K generators; O(K P^3) with a dense one among them
 */
export function commonBasis(
  where: string,
  model: Model,
  generators: readonly Fitted[],
  dense: Dense,
): CommonBasis {
  const center = commonCenter(where, generators);
  const isDense = generators.some((A) => A.blocks === null);
  const names = isDense ? [null] : [...new Set(generators.flatMap((A) => [...A.blocks!.keys()]))];
  const actions = generators.map((A) => names.map((name) => actionOf(where, model, A, name)));
  const sizes = actions.map((parts) => 1 / (largestOf(parts) || 1));
  for (let attempt = 0; attempt < COMBINATIONS; attempt++) {
    const c = sizes.map((size, k) => size * (1 + (((k + 1) * (attempt + 1) * GOLDEN) % 1)));
    const combined = names.map((_, part) =>
      combination(
        actions.map((of) => of[part]!),
        c,
      ),
    );
    const blocks = new Map(names.map((name, part): [string, BlockAction] => [`${name}`, combined[part]!]));
    const spectrum = new Spectrum(
      model,
      isDense
        ? new Generator("the combination", null, combined[0]!.left!.values, null)
        : new Generator("the combination", blocks, null, null),
      dense,
    );
    const mu = actions.map((parts) => eigenvaluesIn(spectrum, parts, dense));
    if (mu.every((m) => m !== null)) return { spectrum, mu, center };
  }
  const { i, j, size } = worstPair(actions, dense);
  const nameOf = (k: number) => `generator ${k} (${generators[k]!.name})`;
  return fail(
    "unsupported",
    where,
    "generators that commute, so that they have eigenvectors in common",
    `${nameOf(i)} and ${nameOf(j)}, whose commutator is ${Number(size.toPrecision(2))} of their product`,
    "For all rotations of a product U W at once there is a closed form: problem.groupEquilibrium(theta, U, W, options), or engine.twoLayer.groupEquilibrium.",
  );
}

function commonCenter(where: string, generators: readonly Fitted[]): Float64Array | null {
  const { center } = generators[0]!;
  for (const [k, A] of generators.entries()) {
    if (A.translation !== null)
      fail(
        "unsupported",
        where,
        "generators without a translation",
        `generator ${k} (${A.name}), which translates`,
      );
    const isSame =
      A.center === null || center === null
        ? A.center === center
        : A.center.length === center.length && A.center.every((x, i) => x === center[i]);
    if (!isSame)
      fail(
        "unsupported",
        where,
        "generators about one center",
        `generators 0 and ${k}, about different ones`,
      );
  }
  return center;
}

/** On one block, or on all parameters (null), where it becomes a matrix. */
function actionOf(where: string, model: Model, A: Generator, name: string | null): Action {
  if (name !== null) {
    const action = A.blocks!.get(name);
    if (action === undefined) return { scalar: 0, left: undefined, right: undefined };
    return resolved(`${where}: ${A.name} on ${name}`, action, model.block(name, where).shape);
  }
  const { P } = model;
  const values = new Float64Array(P * P);
  const unit = new Float64Array(P);
  for (let i = 0; i < P; i++) {
    unit[i] = 1;
    values.set(actionOn(where, model, A, unit), i * P); // symmetric: columns are rows
    unit[i] = 0;
  }
  return { scalar: 0, left: { size: P, values }, right: undefined };
}

function largest({ values }: { readonly values: Float64Array }): number {
  return values.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
}

function largestOf(parts: readonly Action[]): number {
  let most = 0;
  for (const { scalar, left, right } of parts)
    most = Math.max(most, Math.abs(scalar), left ? largest(left) : 0, right ? largest(right) : 0);
  return most;
}

function combination(actions: readonly Action[], c: readonly number[]): BlockAction {
  const side = (of: "left" | "right"): Matrix | undefined => {
    let sum: Matrix | undefined;
    for (const [k, action] of actions.entries()) {
      const matrix = action[of];
      if (matrix === undefined) continue;
      sum ??= { size: matrix.size, values: new Float64Array(matrix.values.length) };
      for (const [e, x] of matrix.values.entries()) sum.values[e] = sum.values[e]! + c[k]! * x;
    }
    return sum;
  };
  const scalar = actions.reduce((sum, action, k) => sum + c[k]! * action.scalar, 0);
  const [left, right] = [side("left"), side("right")];
  return { scalar, ...(left && { left }), ...(right && { right }) };
}

/** Eigenvalues of a generator in a basis, in its order, or null where it is not diagonal there. */
function eigenvaluesIn(spectrum: Spectrum, actions: readonly Action[], dense: Dense): Float64Array | null {
  const size = largestOf(actions);
  const out: number[] = [];
  for (const [part, { scalar, left, right }] of actions.entries()) {
    const { rows, cols, left: E, right: F } = spectrum.parts[part]!;
    const a = left === undefined ? new Float64Array(rows) : diagonalIn(E!.vectors, left, size, dense);
    const b = right === undefined ? new Float64Array(cols) : diagonalIn(F!.vectors, right, size, dense);
    if (a === null || b === null) return null;
    for (let i = 0; i < rows; i++) for (let j = 0; j < cols; j++) out.push(scalar + a[i]! + b[j]!);
  }
  const most = out.reduce((m, x) => Math.max(m, Math.abs(x)), 0);
  return Float64Array.from(out, (x) => (Math.abs(x) <= MU_FLOOR * most ? 0 : x));
}

/** The diagonal of E^T A E, or null where the rest is more than rounding. */
function diagonalIn(vectors: Float64Array, A: Matrix, size: number, dense: Dense): Float64Array | null {
  const n = A.size;
  const E = asDense({ size: n, values: vectors });
  const { values } = dense.matmul(dense.transpose(E), dense.matmul(asDense(A), E));
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < n; j++) if (i !== j && Math.abs(values[i * n + j]!) > DIAGONAL * size) return null;
  }
  return Float64Array.from({ length: n }, (_, i) => values[i * n + i]!);
}

const asDense = ({ size, values }: Matrix): DenseMatrix => ({ rows: size, cols: size, values });

/** The two generators whose commutator is largest beside their product. */
function worstPair(
  actions: readonly (readonly Action[])[],
  dense: Dense,
): { i: number; j: number; size: number } {
  let worst = { i: 0, j: Math.min(1, actions.length - 1), size: 0 };
  for (let i = 0; i < actions.length; i++) {
    for (let j = i + 1; j < actions.length; j++) {
      for (const [part, a] of actions[i]!.entries()) {
        const b = actions[j]![part]!;
        for (const side of ["left", "right"] as const) {
          if (a[side] === undefined || b[side] === undefined) continue;
          const product = dense.matmul(asDense(a[side]), asDense(b[side]));
          const length = dense.frobenius(product);
          if (length === 0) continue; // symmetric: the product the other way round is 0 too
          const size = dense.frobenius(dense.sub(product, dense.transpose(product))) / length;
          if (size > worst.size) worst = { i, j, size };
        }
      }
    }
  }
  return worst;
}

// --- the minimum -------------------------------------------------------------------------------------------

/** One unit vector v that is an eigenvector of every generator: A_k v = mu[k] v. */
export interface CommonDirection {
  readonly mu: ArrayLike<number>;
  /** Noise energy v^T Sigma v. */
  readonly s: number;
  /** Parameter energy (v^T theta)^2. */
  readonly q: number;
}

/** Where the charges of all generators come to rest. */
export type CommonRest =
  | {
      readonly status: "finite";
      readonly lambda: Float64Array;
      readonly flat: number;
      readonly iterations: number;
      readonly residual: number;
    }
  | { readonly status: "none"; readonly reason: string; readonly direction: Float64Array | null };

/** e^(weight + slope . lambda), a term of Psi. */
interface Term {
  readonly weight: number;
  readonly slope: Float64Array;
}

const MAX_ITERATIONS = 100;
/** A balance worse than this is none. */
const CONVERGED = 1e-8;
/** What rounding leaves of a sum of terms that cancel, beside their sizes. */
const ROUNDING = 1e-15;
/** Iterations without progress after which rounding is what is left. */
const PATIENCE = 4;
/** Terms below e^-700 of the largest count as that: a line search may not mistake them for 0. */
const LEAST = -700;
/** Eigenvalues of a scaled Hessian up to here are those of flat directions. */
const FLAT = 1e-12;

/**
 * The minimum over lambda of
 *
 *   Psi(lambda) = sum_i [sigma2 s_i e^(-2 lambda . mu_i) + 2 gamma q_i e^(2 lambda . mu_i)],   d Psi / d lambda_k = -2 dC_k/dt
 *
 * the noise, and the norm, that are left where the orbit's charges rest. Psi is a sum of exponentials of b_j . lambda: it
 * has a minimum exactly where some weights y_j > 0 give sum_j y_j b_j = 0 (Stiemke), and otherwise a direction d along
 * which no b_j . d is positive and not all are 0. Which of the two is decided first, by non-negative least squares; the
 * residual of that is the direction. Where all b_j . d are 0 the direction is flat: nothing moves along it, and the
 * minimum has no component there.
 *
 * The minimum is found by Newton's method: the Hessian sum_j e_j b_j b_j^T is scaled to a unit diagonal, its
 * pseudo-inverse gives the step, and its length is that of the exact minimum along it, found as for one generator (so that
 * terms of very different size do no harm). Before the first step each lambda_k is brought to its own minimum in turn, and
 * where steps gain little that is done again, for the eigenvectors of the Hessian too.
 *
 * @returns lambda, with residual = max_k |dC_k/dt| / (sum of the sizes of its terms), flat = directions that are flat; or
 *          "none" with a direction along which charges change for ever (null where all are flat)
 * @throws  NoetherflowError "range" where energies or eigenvalues are too many decades apart for f64 (residual above 1e-8)
 * @cost    O(J K^2 + K^3) an iteration for J different terms, and as much for each step of the first decision (about K)
 * @source  theory.md, 3 (variational form)
 */
export function solveCommon(
  where: string,
  directions: readonly CommonDirection[],
  K: number,
  setting: { readonly sigma2: number; readonly gamma: number },
  dense: Dense,
): CommonRest {
  // generators of any size alike: lambda is in units of 1 / max |mu_k| until the end
  const unit = new Float64Array(K);
  for (const { mu } of directions) for (let k = 0; k < K; k++) unit[k] = Math.max(unit[k]!, Math.abs(mu[k]!));
  for (let k = 0; k < K; k++) unit[k] = unit[k] === 0 ? 1 : 1 / unit[k]!;
  const terms = termsOf(where, directions, unit, setting);
  if (terms.length === 0)
    return {
      status: "none",
      reason: "there is neither noise nor decay along these generators: no charge moves",
      direction: null,
    };
  const away = recession(terms, K, dense);
  if (away !== null) {
    const direction = away.map((x, k) => x * unit[k]!);
    const length = Math.sqrt(direction.reduce((sum, x) => sum + x * x, 0));
    return {
      status: "none",
      reason: "along `direction` nothing resists the noise and the decay: charges change for ever",
      direction: direction.map((x) => (Math.abs(x) <= FLAT * length ? 0 : x / length)),
    };
  }
  const { basis, flat } = spanOf(terms, K, dense);
  let { lambda, iterations, residual } = minimum(flat === 0 ? terms : within(basis, terms), K - flat, dense);
  if (flat > 0) {
    const found = lambda;
    lambda = Float64Array.from({ length: K }, (_, k) =>
      basis.reduce((sum, v, e) => sum + found[e]! * v[k]!, 0),
    );
    residual = balanceAt(terms, lambda).residual;
  }
  if (!(residual <= CONVERGED))
    fail(
      "range",
      where,
      "generators and energies whose balance f64 can resolve",
      `a balance of ${Number(residual.toPrecision(2))} after ${iterations} iterations`,
      "Eigenvalues of one generator, or energies along them, are too many decades apart: leave some out.",
    );
  return { status: "finite", lambda: lambda.map((x, k) => x * unit[k]!), flat, iterations, residual };
}

/** Terms of Psi, those with one slope added up; terms that do not depend on lambda left out. */
function termsOf(
  where: string,
  directions: readonly CommonDirection[],
  unit: Float64Array,
  { sigma2, gamma }: { readonly sigma2: number; readonly gamma: number },
): Term[] {
  const sums = new Map<string, { size: number; slope: Float64Array }>();
  const put = (size: number, sign: number, mu: Float64Array): void => {
    if (size === 0 || mu.every((m) => m === 0)) return;
    const slope = mu.map((m) => 2 * sign * m + 0); // no -0
    const key = slope.join();
    const known = sums.get(key);
    if (known === undefined) sums.set(key, { size, slope });
    else known.size += size;
  };
  for (const { mu, s, q } of directions) {
    const scaled = unit.map((u, k) => u * mu[k]!);
    put(sigma2 * s, -1, scaled);
    put(2 * gamma * q, 1, scaled);
  }
  return [...sums.values()].map(({ size, slope }) => {
    if (size === Infinity)
      fail(
        "nonfinite",
        where,
        "noise and decay within f64",
        "a sum beyond 1.8e308",
        "Scale sigma2 or weightDecay.",
      );
    return { weight: log(size), slope };
  });
}

function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
  return sum;
}

/** The matrix with these columns. */
function fromColumns(columns: readonly Float64Array[], rows: number): DenseMatrix {
  const cols = columns.length;
  const values = new Float64Array(rows * cols);
  for (const [j, column] of columns.entries()) {
    for (let i = 0; i < rows; i++) values[i * cols + j] = column[i]!;
  }
  return { rows, cols, values };
}

/**
 * A direction d with b_j . d <= 0 for all terms, not all 0; null where there is none. From the least |r|, r = sum_j
 * (1 + y_j) b_j, over y >= 0 (Lawson and Hanson): r = 0 gives the positive weights that rule d out, and else b_j . r >= 0
 * for every j, sum_j (1 + y_j) b_j . r = |r|^2, so that d = -r is one.
 */
function recession(terms: readonly Term[], K: number, dense: Dense): Float64Array | null {
  // unit vectors: positive factors change nothing
  const b = terms.map(({ slope }) => {
    const length = Math.sqrt(dot(slope, slope));
    return slope.map((x) => x / length);
  });
  const target = new Float64Array(K);
  for (const v of b) for (let k = 0; k < K; k++) target[k] = target[k]! - v[k]!;
  const J = b.length;
  const y = new Float64Array(J);
  const isIn = new Uint8Array(J);
  const residualOf = (): Float64Array => {
    const r = target.slice(); // target - B y = -r
    for (let j = 0; j < J; j++) if (y[j]! > 0) for (let k = 0; k < K; k++) r[k] = r[k]! - y[j]! * b[j]![k]!;
    return r;
  };
  const scale = (): number => 1e-10 * y.reduce((sum, x) => sum + x, J);
  for (let round = 0; round < 3 * (J + K); round++) {
    const r = residualOf();
    if (Math.sqrt(dot(r, r)) <= scale()) return null;
    let best = -1;
    let most = 1e-10 * Math.sqrt(dot(r, r));
    for (let j = 0; j < J; j++) {
      const slope = dot(b[j]!, r);
      if (isIn[j] === 0 && slope > most) [best, most] = [j, slope];
    }
    if (best < 0) return r; // b_j . r <= 0 for all that are out, 0 for those that are in
    isIn[best] = 1;
    for (;;) {
      const chosen = [...isIn.keys()].filter((j) => isIn[j] === 1);
      const solution = leastSquares(
        chosen.map((j) => b[j]!),
        target,
        dense,
      );
      if (solution.every((x) => x > 0)) {
        for (const [i, j] of chosen.entries()) y[j] = solution[i]!;
        break;
      }
      let step = 1;
      for (const [i, j] of chosen.entries()) {
        if (solution[i]! <= 0) step = Math.min(step, y[j]! / (y[j]! - solution[i]!) || 0);
      }
      let dropped = false;
      for (const [i, j] of chosen.entries()) {
        y[j] = y[j]! + step * (solution[i]! - y[j]!);
        if (solution[i]! <= 0 && y[j]! <= 1e-14 * (1 + Math.abs(solution[i]!))) {
          y[j] = 0;
          isIn[j] = 0;
          dropped = true;
        }
      }
      if (!dropped) {
        const j = chosen.reduce((least, at) => (y[at]! < y[least]! ? at : least));
        y[j] = 0;
        isIn[j] = 0;
      }
      if (isIn.every((x) => x === 0)) break;
    }
  }
  const r = residualOf();
  return Math.sqrt(dot(r, r)) <= 1e4 * scale() ? null : r;
}

/** x with least |sum_j x_j columns_j - target|, by singular values. */
function leastSquares(columns: readonly Float64Array[], target: Float64Array, dense: Dense): Float64Array {
  const { U, s, V } = dense.svd(fromColumns(columns, target.length));
  const out = new Float64Array(columns.length);
  for (const [e, value] of s.entries()) {
    if (value <= FLAT * s[0]!) continue;
    let along = 0;
    for (let k = 0; k < target.length; k++) along += U.values[k * U.cols + e]! * target[k]!;
    for (let j = 0; j < out.length; j++) out[j] = out[j]! + (along / value) * V.values[j * V.cols + e]!;
  }
  return out;
}

/** Orthonormal vectors that span the slopes, and how many directions are left. */
function spanOf(
  terms: readonly Term[],
  K: number,
  dense: Dense,
): { basis: readonly Float64Array[]; flat: number } {
  const gram = new Float64Array(K * K);
  for (const { slope } of terms) addOuter(gram, slope, 1);
  const { values, vectors } = dense.symmetricEigen({ rows: K, cols: K, values: gram });
  const basis: Float64Array[] = [];
  for (const [e, value] of values.entries()) {
    if (value > FLAT * values[0]!)
      basis.push(Float64Array.from({ length: K }, (_, k) => vectors.values[k * K + e]!));
  }
  return { basis, flat: K - basis.length };
}

/** Terms as functions of coordinates along some vectors. */
function within(basis: readonly Float64Array[], terms: readonly Term[]): Term[] {
  return terms.map(({ weight, slope }) => ({
    weight,
    slope: Float64Array.from(basis, (v) => dot(v, slope)),
  }));
}

function addOuter(to: Float64Array, v: Float64Array, weight: number): void {
  const K = v.length;
  for (let i = 0; i < K; i++) {
    if (v[i] === 0) continue;
    for (let j = 0; j < K; j++) to[i * K + j] = to[i * K + j]! + weight * v[i]! * v[j]!;
  }
}

/** Terms at lambda over the largest of them, and what that gives. */
function balanceAt(terms: readonly Term[], lambda: Float64Array) {
  const K = lambda.length;
  const w = Float64Array.from(terms, ({ weight, slope }) => weight + dot(slope, lambda));
  const most = w.reduce((m, x) => Math.max(m, x), -Infinity);
  const sizes = w.map((x) => exp(Math.max(LEAST, x - most)));
  const gradient = new Float64Array(K);
  const absolute = new Float64Array(K);
  for (const [j, { slope }] of terms.entries()) {
    for (let k = 0; k < K; k++) {
      gradient[k] = gradient[k]! + sizes[j]! * slope[k]!;
      absolute[k] = absolute[k]! + sizes[j]! * Math.abs(slope[k]!);
    }
  }
  const shares = gradient.map((x, k) => (absolute[k] === 0 ? 0 : Math.abs(x) / absolute[k]!));
  return {
    sizes,
    gradient,
    /** ln Psi */
    height: most + log(sizes.reduce((sum, x) => sum + x, 0)),
    residual: shares.reduce((m, x) => Math.max(m, x), 0),
  };
}

/** The minimum of a sum of terms that has one. */
function minimum(
  terms: readonly Term[],
  K: number,
  dense: Dense,
): { lambda: Float64Array; iterations: number; residual: number } {
  const lambda = new Float64Array(K);
  /** To the minimum along d, as that of one generator with |mu| = |b . d| / 2. */
  const search = (d: Float64Array): void => {
    const along = terms.map(({ slope }) => {
      const size = slope.reduce((sum, x, k) => sum + Math.abs(x * d[k]!), 0);
      const x = -0.5 * dot(slope, d);
      return Math.abs(x) <= FLAT * size ? 0 : x;
    });
    const unit = along.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
    if (!(unit > 0 && unit < Infinity)) return;
    const { sizes } = balanceAt(terms, lambda);
    const directions = along.map((x, j): Direction => ({ mu: x / unit, s: sizes[j]!, q: 0 }));
    const at = solveEquilibrium(directions, { sigma2: 1 });
    if (at.status !== "finite") return;
    for (let k = 0; k < K; k++) lambda[k] = lambda[k]! + at.lambda * (d[k]! / unit);
  };
  const axes = Array.from({ length: K }, (_, k) => Float64Array.from({ length: K }, (__, j) => +(j === k)));
  for (const axis of axes) search(axis);
  let best = { lambda: lambda.slice(), residual: Infinity };
  let least = Infinity;
  let last = 0;
  let iterations = 0;
  for (; iterations < MAX_ITERATIONS; iterations++) {
    const { sizes, gradient, height, residual } = balanceAt(terms, lambda);
    const hessian = new Float64Array(K * K);
    for (const [j, { slope }] of terms.entries()) addOuter(hessian, slope, sizes[j]!);
    const before = best.residual;
    if (residual < best.residual) {
      best = { lambda: lambda.slice(), residual };
      last = iterations;
    }
    if (height < least - 1e-9) [least, last] = [height, iterations];
    if (residual <= ROUNDING || iterations - last >= PATIENCE) break;
    const { step, vectors } = newton(hessian, gradient, dense);
    search(step);
    if (residual > 0.5 * before) for (const axis of [...vectors, ...axes]) search(axis);
  }
  return { ...best, iterations };
}

/** -H^+ g, with the pseudo-inverse of H scaled to a unit diagonal, and the eigenvectors of that as directions. */
function newton(
  hessian: Float64Array,
  gradient: Float64Array,
  dense: Dense,
): { step: Float64Array; vectors: readonly Float64Array[] } {
  const K = gradient.length;
  const scale = Float64Array.from({ length: K }, (_, k) =>
    hessian[k * K + k]! > 0 ? 1 / Math.sqrt(hessian[k * K + k]!) : 0,
  );
  const scaled = hessian.map((x, e) => x * scale[(e - (e % K)) / K]! * scale[e % K]!);
  const eigen = dense.symmetricEigen({ rows: K, cols: K, values: scaled });
  const step = new Float64Array(K);
  const vectors = Array.from(eigen.values, (value, e) => {
    const v = scale.map((x, k) => x * eigen.vectors.values[k * K + e]!);
    const along = dot(v, gradient);
    if (value > FLAT * eigen.values[0]!)
      for (let k = 0; k < K; k++) step[k] = step[k]! - (along / value) * v[k]!;
    return v;
  });
  return { step, vectors };
}

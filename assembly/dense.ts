/**
 * Factorisations of small dense matrices: symmetric eigenproblem, SVD, QR, Cholesky, LU, and their products.
 *
 * f64 in every build, whatever `real` is. Only + - * / sqrt, each in one order: equal input gives equal bits on any
 * host. Nothing is allocated. Addresses are in bytes (multiples of 8), matrices are row-major and packed, sizes are
 * in values and may be 0. Inputs are finite; outputs and scratch overlap no input and one another unless said.
 *
 * u = 2^-53. Matrices are scaled by a power of two first, so that no intermediate overflows and none that matters
 * underflows: bounds hold from 1e-300 to 1e300, entries or columns below 1e-280 of the largest excepted.
 */

const EPS: f64 = 2.220446049250313e-16; // 2^-52
/** Squared sine of an angle between two vectors that counts as none, (2^-53)^2. */
const NO_ANGLE: f64 = 1.232595164407831e-32;
/** Matrices are worked on with their largest entry in [2^480, 2^481): squares and sums of 2^60 of them fit. */
const WORKING: i32 = 480;
/** Squared norms below this (2^-960) would lose digits to underflow; the row counts as zero. */
const NO_LENGTH: f64 = 1.0261342003245941e-289;

// @ts-ignore: decorator
@inline
function size(n: i32): usize {
  return (n as usize) << 3;
}

/** Largest |a[i]|, 0 if n = 0. */
function maxAbs(a: usize, n: i32): f64 {
  let largest = f64x2.splat(0);
  for (; n >= 2; n -= 2) {
    largest = f64x2.max(largest, f64x2.abs(v128.load(a)));
    a += 16;
  }
  const most = max(f64x2.extract_lane(largest, 0), f64x2.extract_lane(largest, 1));
  return n > 0 ? max(most, abs(load<f64>(a))) : most;
}

/** floor(log2 x) for finite x > 0; -1023 for all subnormal x, which is near enough here. */
function exponent(x: f64): i32 {
  return ((reinterpret<u64>(x) >> 52) as i32) - 1023;
}

/** 2^e for -1022 <= e <= 1023. */
function power(e: i32): f64 {
  return reinterpret<f64>(((e + 1023) as u64) << 52);
}

/** dst[i] = 2^e a[i], |e| <= 2000, exact unless the result is subnormal or too large; dst may be a. */
function shift(dst: usize, a: usize, n: i32, e: i32): void {
  // in two steps, since 2^e itself may be no f64
  const first = power(e / 2), second = power(e - e / 2);
  for (; n > 0; --n) {
    store<f64>(dst, load<f64>(a) * first * second);
    a += 8;
    dst += 8;
  }
}

/** The e for which 2^e a has its largest entry in [2^to, 2^(to + 1)), or a little below; 0 for a zero matrix. */
function shiftTo(a: usize, n: i32, to: i32): i32 {
  const most = maxAbs(a, n);
  return most > 0 ? to - exponent(most) : 0;
}

/** sum_i x[i] y[i]: partial sums of i mod 4 as (p0 + p2) + (p1 + p3), then the tail ascending. */
function dot(x: usize, y: usize, n: i32): f64 {
  let low = f64x2.splat(0);
  let high = f64x2.splat(0);
  for (; n >= 4; n -= 4) {
    low = f64x2.add(low, f64x2.mul(v128.load(x), v128.load(y)));
    high = f64x2.add(high, f64x2.mul(v128.load(x, 16), v128.load(y, 16)));
    x += 32;
    y += 32;
  }
  let sum = lanes(low, high);
  for (; n > 0; --n) {
    sum += load<f64>(x) * load<f64>(y);
    x += 8;
    y += 8;
  }
  return sum;
}

// @ts-ignore: decorator
@inline
function lanes(low: v128, high: v128): f64 {
  const both = f64x2.add(low, high);
  return f64x2.extract_lane(both, 0) + f64x2.extract_lane(both, 1);
}

/** y[i] -= f x[i]. */
function subtract(y: usize, x: usize, f: f64, n: i32): void {
  const factor = f64x2.splat(f);
  for (; n >= 2; n -= 2) {
    v128.store(y, f64x2.sub(v128.load(y), f64x2.mul(factor, v128.load(x))));
    x += 16;
    y += 16;
  }
  if (n > 0) store<f64>(y, load<f64>(y) - f * load<f64>(x));
}

/** x[i] = x[i] / d. */
function divide(x: usize, d: f64, n: i32): void {
  const divisor = f64x2.splat(d);
  for (; n >= 2; n -= 2) {
    v128.store(x, f64x2.div(v128.load(x), divisor));
    x += 16;
  }
  if (n > 0) store<f64>(x, load<f64>(x) / d);
}

function negate(x: usize, n: i32): void {
  for (; n > 0; --n) {
    store<f64>(x, -load<f64>(x));
    x += 8;
  }
}

function swap(x: usize, y: usize, n: i32): void {
  for (; n > 0; --n) {
    const kept = load<f64>(x);
    store<f64>(x, load<f64>(y));
    store<f64>(y, kept);
    x += 8;
    y += 8;
  }
}

/** dst[j][i] = a[i][j] for i < m, j < n. */
function transposed(dst: usize, a: usize, m: i32, n: i32): void {
  for (let i = 0; i < m; ++i) {
    let to = dst + size(i);
    for (let j = 0; j < n; ++j) {
      store<f64>(to, load<f64>(a));
      a += 8;
      to += size(m);
    }
  }
}

function setIdentity(a: usize, n: i32): void {
  memory.fill(a, 0, size(n * n));
  for (let i = 0; i < n; ++i) store<f64>(a + size(i * n + i), 1);
}

/** True if the entry of largest magnitude is negative; of equal ones the first decides. */
function pointsBack(x: usize, n: i32): bool {
  let most: f64 = 0;
  let back = false;
  for (; n > 0; --n) {
    const value = load<f64>(x);
    if (abs(value) > most) {
      most = abs(value);
      back = value < 0;
    }
    x += 8;
  }
  return back;
}

/**
 * tan of the rotation that makes two directions with (squared) sizes alpha, beta and coupling gamma orthogonal:
 *
 *   zeta = (beta - alpha) / (2 gamma),  t = sign(zeta) / (|zeta| + sqrt(1 + zeta^2)),  |t| <= 1
 */
// @ts-ignore: decorator
@inline
function tangent(alpha: f64, beta: f64, gamma: f64): f64 {
  const zeta = (beta - alpha) / (2 * gamma);
  // beyond 2^54 the root is |zeta|, and its square may overflow
  if (abs(zeta) > 1.8014398509481984e16) return 0.5 / zeta;
  const t = 1 / (abs(zeta) + sqrt(1 + zeta * zeta));
  return zeta < 0 ? -t : t;
}

/**
 * Rotates n pairs by the angle with sine s and tau = s / (1 + cosine):
 *
 *   toX[i] = x[i] - s (y[i] + tau x[i]),   toY[i] = y[i] + s (x[i] - tau y[i])
 *
 * The change is added to the value, so small angles cost no digits. {toX, toY} = {x, y} is allowed either way round.
 */
function rotate(toX: usize, toY: usize, x: usize, y: usize, n: i32, s: f64, tau: f64): void {
  const sines = f64x2.splat(s), taus = f64x2.splat(tau);
  for (; n >= 2; n -= 2) {
    const vx = v128.load(x), vy = v128.load(y);
    v128.store(toX, f64x2.sub(vx, f64x2.mul(sines, f64x2.add(vy, f64x2.mul(taus, vx)))));
    v128.store(toY, f64x2.add(vy, f64x2.mul(sines, f64x2.sub(vx, f64x2.mul(taus, vy)))));
    x += 16;
    y += 16;
    toX += 16;
    toY += 16;
  }
  if (n > 0) {
    const vx = load<f64>(x), vy = load<f64>(y);
    store<f64>(toX, vx - s * (vy + tau * vx));
    store<f64>(toY, vy + s * (vx - tau * vy));
  }
}

/**
 * Rows p and q of the symmetric a as by rotate(), exchanged if so told, and columns p and q with them. The four
 * entries where these meet are left wrong: the caller knows them better.
 */
function rotateSymmetric(a: usize, p: i32, q: i32, n: i32, s: f64, tau: f64, exchanged: bool): void {
  const row = size(n);
  let x = a + size(p * n), y = a + size(q * n);
  let toX = exchanged ? y : x, toY = exchanged ? x : y;
  let downX = a + size(exchanged ? q : p), downY = a + size(exchanged ? p : q);
  const sines = f64x2.splat(s), taus = f64x2.splat(tau);
  for (; n >= 2; n -= 2) {
    const vx = v128.load(x), vy = v128.load(y);
    const nx = f64x2.sub(vx, f64x2.mul(sines, f64x2.add(vy, f64x2.mul(taus, vx))));
    const ny = f64x2.add(vy, f64x2.mul(sines, f64x2.sub(vx, f64x2.mul(taus, vy))));
    v128.store(toX, nx);
    v128.store(toY, ny);
    v128.store_lane<f64>(downX, nx, 0);
    v128.store_lane<f64>(downY, ny, 0);
    v128.store_lane<f64>(downX + row, nx, 1);
    v128.store_lane<f64>(downY + row, ny, 1);
    x += 16;
    y += 16;
    toX += 16;
    toY += 16;
    downX += 2 * row;
    downY += 2 * row;
  }
  if (n > 0) {
    const vx = load<f64>(x), vy = load<f64>(y);
    const nx = vx - s * (vy + tau * vx), ny = vy + s * (vx - tau * vy);
    store<f64>(toX, nx);
    store<f64>(toY, ny);
    store<f64>(downX, nx);
    store<f64>(downY, ny);
  }
}

/**
 * Eigenvalues and eigenvectors of a symmetric matrix, A = V diag(values) V^T, by cyclic Jacobi rotations.
 *
 * a          n x n, both triangles; destroyed
 * vectors    n x n, V: eigenvectors in columns; in each the entry of largest magnitude (the first of equals) is > 0
 * values     n, descending
 * maxSweeps  sweeps over all pairs before giving up; 3 to 20 are usual
 * returns    sweeps used (0 for n < 2), or -1 when they were not enough: then nothing is of use
 *
 * A pair rests when |a_pq| <= u sqrt(|a_pp a_qq|), not when it is small beside ||A||: tiny eigenvalues of a graded
 * positive definite matrix keep their digits, to about u times the condition of diag(A)^-1/2 A diag(A)^-1/2.
 *
 * error      ||A V - V D||, ||V^T V - I|| ||A||  <=  4 n 2^-52 ||A||  (Frobenius; test/stats/dense.test.ts)
 * cost       about 10 n^3 flops a sweep
 * source     Rutishauser 1966 (formulas); Demmel, Veselic 1992 (criterion)
 */
export function symmetricEigen(a: usize, vectors: usize, values: usize, n: i32, maxSweeps: i32): i32 {
  const e = shiftTo(a, n * n, WORKING);
  shift(a, a, n * n, e);
  // the rows of `vectors` are the eigenvectors until the end
  setIdentity(vectors, n);
  let sweeps = 0;
  let moved = n > 1;
  while (moved) {
    if (sweeps == maxSweeps) return -1;
    ++sweeps;
    moved = false;
    for (let p = 0; p < n - 1; ++p) {
      for (let q = p + 1; q < n; ++q) {
        const pp = a + size(p * n + p), qq = a + size(q * n + q), pq = a + size(p * n + q), qp = a + size(q * n + p);
        const alpha = load<f64>(pp), beta = load<f64>(qq), gamma = load<f64>(pq);
        if (gamma * gamma <= NO_ANGLE * (abs(alpha) * abs(beta))) continue;
        moved = true;
        const t = tangent(alpha, beta, gamma);
        const c = 1 / sqrt(1 + t * t), s = t * c, tau = s / (1 + c);
        // the larger one first: graded matrices converge faster, and in their own order
        const exchanged = abs(alpha) < abs(beta);
        rotateSymmetric(a, p, q, n, s, tau, exchanged);
        store<f64>(exchanged ? qq : pp, alpha - t * gamma);
        store<f64>(exchanged ? pp : qq, beta + t * gamma);
        store<f64>(pq, 0);
        store<f64>(qp, 0);
        const vp = vectors + size(p * n), vq = vectors + size(q * n);
        rotate(exchanged ? vq : vp, exchanged ? vp : vq, vp, vq, n, s, tau);
      }
    }
  }
  for (let i = 0; i < n; ++i) store<f64>(values + size(i), load<f64>(a + size(i * n + i)));
  shift(values, values, n, -e);
  for (let i = 0; i < n; ++i) {
    const largest = indexOfLargest(values, i, n);
    if (largest != i) {
      swap(values + size(i), values + size(largest), 1);
      swap(vectors + size(i * n), vectors + size(largest * n), n);
    }
    if (pointsBack(vectors + size(i * n), n)) negate(vectors + size(i * n), n);
  }
  for (let i = 0; i < n; ++i) {
    for (let j = 0; j < i; ++j) swap(vectors + size(i * n + j), vectors + size(j * n + i), 1);
  }
  return sweeps;
}

/** Index of the largest of values[from .. n), the first of equals. */
function indexOfLargest(values: usize, from: i32, n: i32): i32 {
  let best = from;
  for (let i = from + 1; i < n; ++i) {
    if (load<f64>(values + size(i)) > load<f64>(values + size(best))) best = i;
  }
  return best;
}

/**
 * Thin singular value decomposition A = U diag(values) V^T by one-sided Jacobi rotations, k = min(m, n).
 *
 * a          m x n, only read
 * u, v       m x k and n x k, orthonormal columns, also where a singular value is 0; in each column of v the entry
 *            of largest magnitude (the first of equals) is > 0
 * values     k, >= 0, descending; below 1e-280 of the largest entry they are 0
 * scratch    k (m + n) values
 * maxSweeps  sweeps over all pairs before giving up; 3 to 15 are usual, 25 where columns are exactly dependent
 * returns    sweeps used (0 for k < 2), or -1 when they were not enough: then nothing is of use
 *
 * The rows of G (A^T for m >= n, else A) are rotated until the cosine between any two is at most
 * (2 + sqrt(max(m, n)) / 8) 2^-52. Tiny singular values keep their digits where bad conditioning comes from the
 * lengths of these rows.
 *
 * error      ||A - U S V^T|| / ||A||, ||U^T U - I||, ||V^T V - I||  <=  4 max(m, n) 2^-52
 *            (Frobenius; test/stats/dense.test.ts)
 * cost       about 5 k^2 (max(m, n) + k) flops a sweep
 * source     Hestenes 1958; de Rijk 1989 (longer row first)
 */
export function svd(
  a: usize, u: usize, values: usize, v: usize, m: i32, n: i32, scratch: usize, maxSweeps: i32,
): i32 {
  const k = min(m, n), length = max(m, n);
  const g = scratch, z = scratch + size(k * length);
  if (m >= n) transposed(g, a, m, n);
  else memory.copy(g, a, size(m * n));
  const e = shiftTo(g, k * length, WORKING);
  shift(g, g, k * length, e);
  setIdentity(z, k);
  const tolerance = EPS * (2 + 0.125 * sqrt(length as f64));
  let sweeps = 0;
  let moved = k > 1;
  while (moved) {
    if (sweeps == maxSweeps) return -1;
    ++sweeps;
    moved = false;
    for (let p = 0; p < k - 1; ++p) {
      for (let q = p + 1; q < k; ++q) {
        if (orthogonalise(g, z, p, q, length, k, tolerance)) moved = true;
      }
    }
  }
  for (let i = 0; i < k; ++i) {
    const squared = dot(g + size(i * length), g + size(i * length), length);
    store<f64>(values + size(i), squared < NO_LENGTH ? 0 : sqrt(squared));
  }
  for (let i = 0; i < k; ++i) {
    const largest = indexOfLargest(values, i, k);
    if (largest != i) {
      swap(values + size(i), values + size(largest), 1);
      swap(g + size(i * length), g + size(largest * length), length);
      swap(z + size(i * k), z + size(largest * k), k);
    }
    const value = load<f64>(values + size(i));
    if (value > 0) divide(g + size(i * length), value, length);
    else complete(g, i, length);
    if (m >= n ? pointsBack(z + size(i * k), k) : pointsBack(g + size(i * length), length)) {
      negate(g + size(i * length), length);
      negate(z + size(i * k), k);
    }
  }
  shift(values, values, k, -e);
  transposed(m >= n ? u : v, g, k, length);
  transposed(m >= n ? v : u, z, k, k);
  return sweeps;
}

/**
 * Makes rows p and q of g orthogonal, the longer one in p, by a rotation, and turns rows p and q of z alike. False if
 * they were so already.
 */
function orthogonalise(g: usize, z: usize, p: i32, q: i32, length: i32, k: i32, tolerance: f64): bool {
  const gp = g + size(p * length), gq = g + size(q * length);
  let pp0 = f64x2.splat(0), pp1 = f64x2.splat(0);
  let qq0 = f64x2.splat(0), qq1 = f64x2.splat(0);
  let pq0 = f64x2.splat(0), pq1 = f64x2.splat(0);
  let n = length, x = gp, y = gq;
  for (; n >= 4; n -= 4) {
    const x0 = v128.load(x), x1 = v128.load(x, 16);
    const y0 = v128.load(y), y1 = v128.load(y, 16);
    pp0 = f64x2.add(pp0, f64x2.mul(x0, x0));
    pp1 = f64x2.add(pp1, f64x2.mul(x1, x1));
    qq0 = f64x2.add(qq0, f64x2.mul(y0, y0));
    qq1 = f64x2.add(qq1, f64x2.mul(y1, y1));
    pq0 = f64x2.add(pq0, f64x2.mul(x0, y0));
    pq1 = f64x2.add(pq1, f64x2.mul(x1, y1));
    x += 32;
    y += 32;
  }
  let alpha = lanes(pp0, pp1), beta = lanes(qq0, qq1), gamma = lanes(pq0, pq1);
  for (; n > 0; --n) {
    const xi = load<f64>(x), yi = load<f64>(y);
    alpha += xi * xi;
    beta += yi * yi;
    gamma += xi * yi;
    x += 8;
    y += 8;
  }
  const swapped = alpha < beta;
  const settled = min(alpha, beta) < NO_LENGTH || abs(gamma) <= tolerance * sqrt(alpha) * sqrt(beta);
  if (settled && !swapped) return false;
  const zp = z + size(p * k), zq = z + size(q * k);
  if (settled) {
    // not at rest: the sweep goes on with rows in other places, and would leave out pairs
    swap(gp, gq, length);
    swap(zp, zq, k);
    return true;
  }
  const t = swapped ? tangent(beta, alpha, gamma) : tangent(alpha, beta, gamma);
  const c = 1 / sqrt(1 + t * t), s = t * c, tau = s / (1 + c);
  rotate(gp, gq, swapped ? gq : gp, swapped ? gp : gq, length, s, tau);
  rotate(zp, zq, swapped ? zq : zp, swapped ? zp : zq, k, s, tau);
  return true;
}

/** Row i of g becomes a unit vector orthogonal to the rows before it, which are orthonormal and fewer than length. */
function complete(g: usize, i: i32, length: i32): void {
  const row = g + size(i * length);
  // the axis furthest from their span: what they leave of it has length at least 1 / sqrt(length)
  for (let j = 0; j < length; ++j) {
    let covered: f64 = 0;
    for (let r = 0; r < i; ++r) {
      const entry = load<f64>(g + size(r * length + j));
      covered += entry * entry;
    }
    store<f64>(row + size(j), 1 - covered);
  }
  const axis = indexOfLargest(row, 0, length);
  memory.fill(row, 0, size(length));
  store<f64>(row + size(axis), 1);
  for (let r = 0; r < i; ++r) subtract(row, g + size(r * length), dot(row, g + size(r * length), length), length);
  divide(row, sqrt(dot(row, row, length)), length);
}

/**
 * Thin QR factorisation A = Q R by Householder reflections, k = min(m, n).
 *
 * a        m x n, only read
 * q, r     m x k with orthonormal columns, and k x n upper triangular with diagonal >= 0
 * scratch  m (n + k) + k values
 * error    ||A - Q R|| / ||A||, ||Q^T Q - I||  <=  4 max(m, n) 2^-52  (Frobenius; test/stats/dense.test.ts)
 */
export function qr(a: usize, q: usize, r: usize, m: i32, n: i32, scratch: usize): void {
  const k = min(m, n);
  const columns = scratch, basis = scratch + size(m * n), taus = basis + size(m * k);
  transposed(columns, a, m, n);
  const e = shiftTo(columns, m * n, WORKING);
  shift(columns, columns, m * n, e);
  memory.fill(r, 0, size(k * n));
  for (let j = 0; j < k; ++j) {
    const v = columns + size(j * m + j);
    const rest = m - j;
    const x0 = load<f64>(v);
    const below = dot(v + 8, v + 8, rest - 1);
    let diagonal = x0;
    let tau: f64 = 0;
    if (below >= NO_LENGTH) {
      // H = I - tau v v^T with v[0] = 1; the sign avoids cancellation in x0 - diagonal
      const norm = sqrt(x0 * x0 + below);
      diagonal = x0 > 0 ? -norm : norm;
      tau = (diagonal - x0) / diagonal;
      divide(v + 8, x0 - diagonal, rest - 1);
    }
    store<f64>(taus + size(j), tau);
    store<f64>(v, 1);
    store<f64>(r + size(j * n + j), diagonal);
    for (let c = j + 1; c < n; ++c) {
      const y = columns + size(c * m + j);
      reflect(y, v, tau, rest);
      store<f64>(r + size(j * n + c), load<f64>(y));
    }
  }
  memory.fill(basis, 0, size(m * k));
  for (let i = 0; i < k; ++i) {
    const row = basis + size(i * m);
    store<f64>(row + size(i), 1);
    for (let j = i; j >= 0; --j) reflect(row + size(j), columns + size(j * m + j), load<f64>(taus + size(j)), m - j);
    const diagonal = r + size(i * n + i);
    if (load<f64>(diagonal) < 0) {
      negate(diagonal, n - i);
      negate(row, m);
    }
  }
  transposed(q, basis, k, m);
  shift(r, r, k * n, -e);
}

/** y -= tau v (v^T y). */
// @ts-ignore: decorator
@inline
function reflect(y: usize, v: usize, tau: f64, n: i32): void {
  if (tau != 0) subtract(y, v, tau * dot(v, y, n), n);
}

/**
 * Cholesky factorisation A = L L^T of a positive definite matrix.
 *
 * a        n x n, symmetric, only read
 * l        n x n, lower triangular with diagonal > 0, zeros above it
 * returns  0, or i + 1 for the first i whose pivot a_ii - sum_j<i l_ij^2 is not > 0: then A is not positive definite
 *          to within its rounding, and l is of no use
 * error    |A - L L^T|_ij <= (n + 4) 2^-53 sqrt(a_ii a_jj): scaling rows and columns alike loses nothing
 */
export function cholesky(a: usize, l: usize, n: i32): i32 {
  // an even power, so that its root is one
  const e = shiftTo(a, n * n, WORKING) & ~1;
  shift(l, a, n * n, e);
  for (let i = 0; i < n; ++i) {
    const li = l + size(i * n);
    for (let j = 0; j < i; ++j) {
      const lj = l + size(j * n);
      store<f64>(li + size(j), (load<f64>(li + size(j)) - dot(li, lj, j)) / load<f64>(lj + size(j)));
    }
    const pivot = load<f64>(li + size(i)) - dot(li, li, i);
    if (!(pivot > 0)) return i + 1;
    store<f64>(li + size(i), sqrt(pivot));
    memory.fill(li + size(i + 1), 0, size(n - i - 1));
  }
  shift(l, l, n * n, -e / 2);
  return 0;
}

/**
 * Solves A X = B by LU with partial pivoting, rows scaled by powers of two first.
 *
 * a        n x n, only read
 * b, x     n x k, k right-hand sides side by side; b only read
 * scratch  n (n + 1) values
 * returns  0, or i + 1 for the first pivot i of magnitude <= n 2^-51 times the largest entry of its column (of the
 *          scaled matrix): column i is a combination of those before it to within rounding, and x is of no use.
 *          Finds nine in ten matrices that rounding alone keeps from being singular; the condition tells of the rest
 * error    ||B - A X|| <= 2 n 2^-52 (||A|| ||X|| + ||B||)  (Frobenius; test/stats/dense.test.ts)
 */
export function solve(a: usize, b: usize, x: usize, n: i32, k: i32, scratch: usize): i32 {
  const lu = scratch, most = scratch + size(n * n);
  memory.fill(most, 0, size(n));
  for (let i = 0; i < n; ++i) {
    const e = shiftTo(a + size(i * n), n, 0);
    shift(lu + size(i * n), a + size(i * n), n, e);
    shift(x + size(i * k), b + size(i * k), k, e);
    for (let j = 0; j < n; ++j) {
      const entry = abs(load<f64>(lu + size(i * n + j)));
      if (entry > load<f64>(most + size(j))) store<f64>(most + size(j), entry);
    }
  }
  for (let j = 0; j < n; ++j) {
    let best = j;
    for (let i = j + 1; i < n; ++i) {
      if (abs(load<f64>(lu + size(i * n + j))) > abs(load<f64>(lu + size(best * n + j)))) best = i;
    }
    if (best != j) {
      swap(lu + size(j * n), lu + size(best * n), n);
      swap(x + size(j * k), x + size(best * k), k);
    }
    const from = lu + size(j * n + j);
    const pivot = load<f64>(from);
    if (abs(pivot) <= (n as f64) * (2 * EPS) * load<f64>(most + size(j))) return j + 1;
    for (let i = j + 1; i < n; ++i) {
      const at = lu + size(i * n + j);
      const factor = load<f64>(at) / pivot;
      if (factor == 0) continue;
      subtract(at + 8, from + 8, factor, n - j - 1);
      subtract(x + size(i * k), x + size(j * k), factor, k);
    }
  }
  solveUpper(lu, x, n, k);
  return 0;
}

/**
 * x = U^-1 x by back substitution.
 *
 * u      n x n, only read; of it the upper triangle, whose diagonal has no zero
 * x      n x k, right-hand sides in, solutions out
 * error  |B - U X| <= (n + 1) 2^-53 |U| |X|, entry by entry
 */
export function solveUpper(u: usize, x: usize, n: i32, k: i32): void {
  for (let i = n - 1; i >= 0; --i) {
    for (let j = i + 1; j < n; ++j) subtract(x + size(i * k), x + size(j * k), load<f64>(u + size(i * n + j)), k);
    divide(x + size(i * k), load<f64>(u + size(i * n + i)), k);
  }
}

/**
 * dst = op(A) op(B), m x n, inner size k: one accumulator from +0 per entry, terms in ascending inner index, two
 * roundings each. So A A^T is symmetric to the bit, and a transposed operand gives the bits of its transpose.
 *
 * a  m x k, or k x m if transA is not 0
 * b  k x n, or n x k if transB is not 0
 */
export function denseMatmul(
  dst: usize, a: usize, b: usize, m: i32, n: i32, k: i32, transA: i32, transB: i32,
): void {
  const aRow = transA ? size(1) : size(k), aStep = transA ? size(m) : size(1);
  const bColumn = transB ? size(k) : size(1), bStep = transB ? size(1) : size(n);
  const row = size(n);
  let i = m;
  for (; i >= 4; i -= 4) {
    let bj = b, to = dst, j = n;
    for (; j >= 2; j -= 2) {
      tile(to, row, a, aRow, aStep, bj, bColumn, bStep, k);
      bj += 2 * bColumn;
      to += 16;
    }
    if (j > 0) {
      for (let r: usize = 0; r < 4; ++r) store<f64>(to + r * row, entry(a + r * aRow, aStep, bj, bStep, k));
    }
    a += 4 * aRow;
    dst += 4 * row;
  }
  for (; i > 0; --i) {
    let bj = b, to = dst;
    for (let j = n; j > 0; --j) {
      store<f64>(to, entry(a, aStep, bj, bStep, k));
      bj += bColumn;
      to += 8;
    }
    a += aRow;
    dst += row;
  }
}

/** One entry of a product. */
function entry(a: usize, aStep: usize, b: usize, bStep: usize, k: i32): f64 {
  let sum: f64 = 0;
  for (; k > 0; --k) {
    sum += load<f64>(a) * load<f64>(b);
    a += aStep;
    b += bStep;
  }
  return sum;
}

/** Four rows by two columns of a product. */
function tile(
  dst: usize, row: usize, a: usize, aRow: usize, aStep: usize, b: usize, bColumn: usize, bStep: usize, k: i32,
): void {
  let s0 = f64x2.splat(0), s1 = f64x2.splat(0), s2 = f64x2.splat(0), s3 = f64x2.splat(0);
  const packed = bColumn == 8;
  for (; k > 0; --k) {
    const pair = packed ? v128.load(b) : v128.load_lane<f64>(b + bColumn, v128.load64_zero(b), 1);
    s0 = f64x2.add(s0, f64x2.mul(v128.load64_splat(a), pair));
    s1 = f64x2.add(s1, f64x2.mul(v128.load64_splat(a + aRow), pair));
    s2 = f64x2.add(s2, f64x2.mul(v128.load64_splat(a + 2 * aRow), pair));
    s3 = f64x2.add(s3, f64x2.mul(v128.load64_splat(a + 3 * aRow), pair));
    a += aStep;
    b += bStep;
  }
  v128.store(dst, s0);
  v128.store(dst + row, s1);
  v128.store(dst + 2 * row, s2);
  v128.store(dst + 3 * row, s3);
}

/** sqrt(sum_i a[i]^2) for n values, without overflow on the way. */
export function euclideanNorm(a: usize, n: i32): f64 {
  const most = maxAbs(a, n);
  if (!(most > 0)) return most;
  const e = -exponent(most);
  const first = power(e / 2), second = power(e - e / 2);
  let low: f64 = 0, high: f64 = 0;
  for (; n >= 2; n -= 2) {
    const x = load<f64>(a) * first * second, y = load<f64>(a, 8) * first * second;
    low += x * x;
    high += y * y;
    a += 16;
  }
  if (n > 0) {
    const x = load<f64>(a) * first * second;
    low += x * x;
  }
  return sqrt(low + high) / first / second;
}

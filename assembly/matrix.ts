/**
 * Matrix products and transposes.
 *
 * Every element of a product is one accumulator that starts at +0 (accumulate = 0) or at the value in
 * dst (accumulate = 1) and adds a * b in ascending p, in two roundings each, or one in "fma". SIMD runs across
 * independent elements, so the bits are those of the plain triple loop for any tile.
 *
 * Addresses are in bytes, sizes and strides in values of real. A uniform value is packed; a laned one
 * is [elements][ld], ld a multiple of LANES, whose pad lanes are computed like the others. Any size may
 * be 0. dst overlaps no operand, and nothing outside the elements of dst is written.
 */
import { bytes, LANES, madd, maddOne, splatAt, transpose4 } from "./lanes";
import {
  laned1x1,
  laned2x1,
  laned2x2,
  lanedAdd1x1,
  lanedAdd2x1,
  lanedAdd2x2,
  productNN,
  productNNAdd,
  productNNStep,
  productStrided,
  productStridedAdd,
  productTN,
  productTNAdd,
} from "./tiles";
import { copyRows } from "./transfer";

/**
 * dst[i*ldd + j] (+)= sum_p a[i*lda + p] * b[p*ldb + j],  i < m, j < n, p < k.
 *
 * A laned B [k][n][ld] is a matrix of k rows and n*ld columns: this is then one product for all lanes.
 */
export function matmulNN(
  dst: usize, a: usize, b: usize, m: i32, n: i32, k: i32, ldd: i32, lda: i32, ldb: i32, accumulate: i32,
): void {
  if (sizeof<real>() == 8 && n == 1 && ldd == 1 && ldb == 1) {
    matvec(dst, a, b, m, k, bytes(lda), accumulate);
    return;
  }
  product(dst, a, b, m, n, k, bytes(ldd), bytes(lda), sizeof<real>(), bytes(ldb), accumulate);
}

/** dst[i*ldd + j] (+)= sum_p a[p*lda + i] * b[p*ldb + j]: as matmulNN, with A stored as [k][m]. */
export function matmulTN(
  dst: usize, a: usize, b: usize, m: i32, n: i32, k: i32, ldd: i32, lda: i32, ldb: i32, accumulate: i32,
): void {
  if (n == 1 && ldd == 1) {
    // One column: the same sums as a row, b^T A, whose elements lie side by side in A.
    product(dst, b, a, 1, m, k, 0, 0, bytes(ldb), bytes(lda), accumulate);
  } else {
    product(dst, a, b, m, n, k, bytes(ldd), sizeof<real>(), bytes(lda), bytes(ldb), accumulate);
  }
}

/**
 * One step of a parameter matrix with the gradient sum_p a[i*lda + p] * b[p*ldb + j]:
 *
 *   theta[i*n + j] -= eta * sum
 *
 * The bits of matmulNN followed by update without decay, the gradient never being stored. eta is the
 * address of one value.
 */
export function matmulStep(
  theta: usize, a: usize, b: usize, m: i32, n: i32, k: i32, lda: i32, ldb: i32, eta: usize,
): void {
  if (k == 1) {
    const row = bytes(n);
    for (; m > 0; --m) {
      scaledStep(theta, a, b, n, eta);
      theta += row;
      a += bytes(lda);
    }
    return;
  }
  productNNStep(theta, a, b, m, n, k, bytes(n), bytes(lda), bytes(ldb), eta);
}

/**
 * dst[(i*n + j)*ld + l] (+)= sum_p a[(i*ai + p*ap)*ld + l] * b[(p*bp + j*bj)*ld + l]
 *
 * for every lane l < ld; strides ai, ap, bp, bj in elements, so a transpose is a choice of strides.
 */
export function matmulLaned(
  dst: usize, a: usize, b: usize, m: i32, n: i32, k: i32,
  ai: i32, ap: i32, bp: i32, bj: i32, ld: i32, accumulate: i32,
): void {
  const width = bytes(ld);
  const rowA = width * ai;
  const columnB = width * bj;
  const rowD = width * n;
  if (k == 1) {
    for (; m > 0; --m) {
      let y = b;
      for (let j = n; j > 0; --j) {
        if (accumulate) lanesTimesAdd(dst, a, y, width);
        else lanesTimes(dst, a, y, width);
        y += columnB;
        dst += width;
      }
      a += rowA;
    }
    return;
  }
  const stepA = width * ap;
  const stepB = width * bp;
  for (; m >= 2; m -= 2) {
    let j = n, y = b, d = dst;
    for (; j >= 2; j -= 2) {
      if (accumulate) lanedAdd2x2(d, a, y, k, rowD, rowA, stepA, stepB, columnB, width);
      else laned2x2(d, a, y, k, rowD, rowA, stepA, stepB, columnB, width);
      y += 2 * columnB;
      d += 2 * width;
    }
    if (j) {
      if (accumulate) lanedAdd2x1(d, a, y, k, rowD, rowA, stepA, stepB, width);
      else laned2x1(d, a, y, k, rowD, rowA, stepA, stepB, width);
    }
    a += 2 * rowA;
    dst += 2 * rowD;
  }
  if (m > 0) {
    // The last row, seen as a column: the tile of two rows then takes two columns of B at a time.
    for (; n >= 2; n -= 2) {
      if (accumulate) lanedAdd2x1(dst, b, a, k, width, columnB, stepB, stepA, width);
      else laned2x1(dst, b, a, k, width, columnB, stepB, stepA, width);
      b += 2 * columnB;
      dst += 2 * width;
    }
    if (n > 0) {
      if (accumulate) lanedAdd1x1(dst, a, b, k, stepA, stepB, width);
      else laned1x1(dst, a, b, k, stepA, stepB, width);
    }
  }
}

/**
 * dst[(i*n + j)*ld + l] (+)= sum_p a[(i*ai + p*ap)*ld + l] * b[p*bp + j*bj]
 *
 * a laned, b uniform. Row i of dst is b^T times the k rows of lanes of a.
 */
export function matmulLanedUniform(
  dst: usize, a: usize, b: usize, m: i32, n: i32, k: i32,
  ai: i32, ap: i32, bp: i32, bj: i32, ld: i32, accumulate: i32,
): void {
  const width = bytes(ld);
  const rowA = width * ai;
  const stepA = width * ap;
  if (n == 1 && ai == 1) {
    product(dst, b, a, 1, m * ld, k, 0, 0, bytes(bp), stepA, accumulate);
    return;
  }
  const rowD = width * n;
  for (; m > 0; --m) {
    product(dst, b, a, n, ld, k, width, bytes(bj), bytes(bp), stepA, accumulate);
    a += rowA;
    dst += rowD;
  }
}

/**
 * dst[(i*n + j)*ld + l] (+)= sum_p a[i*ai + p*ap] * b[(p*bp + j*bj)*ld + l]
 *
 * a uniform, b laned. With the columns of b side by side (bj = 1) it is one product of n*ld columns.
 */
export function matmulUniformLaned(
  dst: usize, a: usize, b: usize, m: i32, n: i32, k: i32,
  ai: i32, ap: i32, bp: i32, bj: i32, ld: i32, accumulate: i32,
): void {
  const width = bytes(ld);
  const rowD = width * n;
  const stepB = width * bp;
  if (bj == 1) {
    ld *= n;
    n = 1;
  }
  for (; n > 0; --n) {
    product(dst, a, b, m, ld, k, rowD, bytes(ai), bytes(ap), stepB, accumulate);
    b += width * bj;
    dst += width;
  }
}

/** The product with byte strides, by the tile that fits the strides of A. */
function product(
  dst: usize, a: usize, b: usize, m: i32, n: i32, k: i32,
  ldd: usize, ai: usize, ap: usize, ldb: usize, accumulate: i32,
): void {
  if (k == 1 && n >= LANES) {
    outer(dst, a, b, m, n, ldd, ai, accumulate);
  } else if (ap == sizeof<real>()) {
    if (accumulate) productNNAdd(dst, a, b, m, n, k, ldd, ai, ldb);
    else productNN(dst, a, b, m, n, k, ldd, ai, ldb);
  } else if (ai == sizeof<real>()) {
    if (accumulate) productTNAdd(dst, a, b, m, n, k, ldd, ap, ldb);
    else productTN(dst, a, b, m, n, k, ldd, ap, ldb);
  } else {
    if (accumulate) productStridedAdd(dst, a, b, m, n, k, ldd, ai, ap, ldb);
    else productStrided(dst, a, b, m, n, k, ldd, ai, ap, ldb);
  }
}

/** dst[i][j] (+)= a[i] * b[j]: a product with k = 1. Byte strides ldd and ai. */
function outer(
  dst: usize, a: usize, b: usize, m: i32, n: i32, ldd: usize, ai: usize, accumulate: i32,
): void {
  for (; m > 0; --m) {
    if (accumulate) scaledAdd(dst, a, b, n);
    else scaled(dst, a, b, n);
    a += ai;
    dst += ldd;
  }
}

// The four loops below write 0 + a * b as the sum it is: it turns -0 into +0, as an accumulator does.

/** dst[j] = +0 + a[0] * b[j] for n values. */
function scaled(dst: usize, a: usize, b: usize, n: i32): void {
  const x = splatAt(a);
  const zero = v128.splat<real>(0);
  for (; n >= 4 * LANES; n -= 4 * LANES) {
    v128.store(dst, madd(x, v128.load(b), zero));
    v128.store(dst, madd(x, v128.load(b, 16), zero), 16);
    v128.store(dst, madd(x, v128.load(b, 32), zero), 32);
    v128.store(dst, madd(x, v128.load(b, 48), zero), 48);
    b += 64;
    dst += 64;
  }
  for (; n >= LANES; n -= LANES) {
    v128.store(dst, madd(x, v128.load(b), zero));
    b += 16;
    dst += 16;
  }
  for (; n > 0; --n) {
    store<real>(dst, maddOne(load<real>(a), load<real>(b), 0));
    b += sizeof<real>();
    dst += sizeof<real>();
  }
}

/** dst[j] += a[0] * b[j] for n values. */
function scaledAdd(dst: usize, a: usize, b: usize, n: i32): void {
  const x = splatAt(a);
  for (; n >= 4 * LANES; n -= 4 * LANES) {
    v128.store(dst, madd(x, v128.load(b), v128.load(dst)));
    v128.store(dst, madd(x, v128.load(b, 16), v128.load(dst, 16)), 16);
    v128.store(dst, madd(x, v128.load(b, 32), v128.load(dst, 32)), 32);
    v128.store(dst, madd(x, v128.load(b, 48), v128.load(dst, 48)), 48);
    b += 64;
    dst += 64;
  }
  for (; n >= LANES; n -= LANES) {
    v128.store(dst, madd(x, v128.load(b), v128.load(dst)));
    b += 16;
    dst += 16;
  }
  for (; n > 0; --n) {
    store<real>(dst, maddOne(load<real>(a), load<real>(b), load<real>(dst)));
    b += sizeof<real>();
    dst += sizeof<real>();
  }
}

/** dst[l] = +0 + a[l] * b[l] for `width` bytes of lanes. */
function lanesTimes(dst: usize, a: usize, b: usize, width: usize): void {
  const zero = v128.splat<real>(0);
  const end = dst + width;
  for (const wide = dst + (width & ~63); dst < wide; ) {
    v128.store(dst, madd(v128.load(a), v128.load(b), zero));
    v128.store(dst, madd(v128.load(a, 16), v128.load(b, 16), zero), 16);
    v128.store(dst, madd(v128.load(a, 32), v128.load(b, 32), zero), 32);
    v128.store(dst, madd(v128.load(a, 48), v128.load(b, 48), zero), 48);
    a += 64;
    b += 64;
    dst += 64;
  }
  while (dst < end) {
    v128.store(dst, madd(v128.load(a), v128.load(b), zero));
    a += 16;
    b += 16;
    dst += 16;
  }
}

/** dst[l] += a[l] * b[l] for `width` bytes of lanes. */
function lanesTimesAdd(dst: usize, a: usize, b: usize, width: usize): void {
  const end = dst + width;
  for (const wide = dst + (width & ~63); dst < wide; ) {
    v128.store(dst, madd(v128.load(a), v128.load(b), v128.load(dst)));
    v128.store(dst, madd(v128.load(a, 16), v128.load(b, 16), v128.load(dst, 16)), 16);
    v128.store(dst, madd(v128.load(a, 32), v128.load(b, 32), v128.load(dst, 32)), 32);
    v128.store(dst, madd(v128.load(a, 48), v128.load(b, 48), v128.load(dst, 48)), 48);
    a += 64;
    b += 64;
    dst += 64;
  }
  while (dst < end) {
    v128.store(dst, madd(v128.load(a), v128.load(b), v128.load(dst)));
    a += 16;
    b += 16;
    dst += 16;
  }
}

/** dst[j*ldd + i] = a[i*lda + j],  i < rows, j < cols: a register of each of LANES rows at a time. */
export function transpose(dst: usize, a: usize, rows: i32, cols: i32, ldd: i32, lda: i32): void {
  const stepD = bytes(ldd);
  const stepA = bytes(lda);
  for (; rows >= 4; rows -= 4) {
    transposeRows4(dst, a, cols, stepD, stepA);
    a += 4 * stepA;
    dst += 4 * sizeof<real>();
  }
  for (; rows > 0; --rows) {
    let x = a, y = dst;
    for (let j = cols; j > 0; --j) {
      store<real>(y, load<real>(x));
      x += sizeof<real>();
      y += stepD;
    }
    a += stepA;
    dst += sizeof<real>();
  }
}

/** Four rows of cols values at a, to four columns at dst; strides in bytes. */
function transposeRows4(dst: usize, a: usize, cols: i32, stepD: usize, stepA: usize): void {
  let a1 = a + stepA;
  let a2 = a1 + stepA;
  let a3 = a2 + stepA;
  for (; cols >= LANES; cols -= LANES) {
    dst = transpose4(dst, stepD, v128.load(a), v128.load(a1), v128.load(a2), v128.load(a3));
    a += 16;
    a1 += 16;
    a2 += 16;
    a3 += 16;
  }
  for (; cols > 0; --cols) {
    store<real>(dst, load<real>(a));
    store<real>(dst, load<real>(a1), sizeof<real>());
    store<real>(dst, load<real>(a2), 2 * sizeof<real>());
    store<real>(dst, load<real>(a3), 3 * sizeof<real>());
    dst += stepD;
    a += sizeof<real>();
    a1 += sizeof<real>();
    a2 += sizeof<real>();
    a3 += sizeof<real>();
  }
}

/**
 * Laned to sample-major: dst[l*(outer*inner) + o*inner + i] = a[(o*so + i*si)*ld + l]
 *
 * for o < outer, i < inner, l < lanes; so and si in elements. Pad lanes are left out. Every o is one
 * transpose, and all of them are one where the elements lie at a single stride.
 */
export function laneTranspose(
  dst: usize, a: usize, outer: i32, inner: i32, so: i32, si: i32, lanes: i32, ld: i32,
): void {
  const elements = outer * inner;
  if (inner == 1) {
    transpose(dst, a, outer, lanes, elements, so * ld);
  } else if (so == inner * si) {
    transpose(dst, a, elements, lanes, elements, si * ld);
  } else {
    for (; outer > 0; --outer) {
      transpose(dst, a, inner, lanes, elements, si * ld);
      dst += bytes(inner);
      a += bytes(so * ld);
    }
  }
}

/** theta[j] -= eta * (a * b[j]), j < n: a step with one sample's outer product, row by row. */
function scaledStep(theta: usize, a: usize, b: usize, n: i32, eta: usize): void {
  const x = splatAt(a);
  const rate = splatAt(eta);
  for (; n >= 2 * LANES; n -= 2 * LANES) {
    const g0 = v128.mul<real>(rate, v128.mul<real>(x, v128.load(b)));
    const g1 = v128.mul<real>(rate, v128.mul<real>(x, v128.load(b, 16)));
    v128.store(theta, v128.sub<real>(v128.load(theta), g0));
    v128.store(theta, v128.sub<real>(v128.load(theta, 16), g1), 16);
    theta += 32;
    b += 32;
  }
  for (; n > 0; --n) {
    store<real>(theta, load<real>(theta) - load<real>(eta) * (load<real>(a) * load<real>(b)));
    theta += sizeof<real>();
    b += sizeof<real>();
  }
}

/**
 * dst[i] (+)= sum_p a[i*lda + p] * x[p]: one column, f64. Two rows share a register, their entries
 * brought together by shuffles, so that every row keeps its one accumulator in ascending p.
 */
function matvec(dst: usize, a: usize, x: usize, m: i32, k: i32, lda: usize, accumulate: i32): void {
  const step = lda << 1;
  for (; m >= 8; m -= 8) {
    let c0 = accumulate ? v128.load(dst) : v128.splat<f64>(0);
    let c1 = accumulate ? v128.load(dst, 16) : v128.splat<f64>(0);
    let c2 = accumulate ? v128.load(dst, 32) : v128.splat<f64>(0);
    let c3 = accumulate ? v128.load(dst, 48) : v128.splat<f64>(0);
    let p = a;
    let q = x;
    let n = k;
    for (; n >= 2; n -= 2) {
      const x0 = v128.load64_splat(q);
      const x1 = v128.load64_splat(q, 8);
      let r = p;
      let u = v128.load(r);
      let v = v128.load(r + lda);
      c0 = madd(v128.shuffle<i64>(u, v, 1, 3), x1, madd(v128.shuffle<i64>(u, v, 0, 2), x0, c0));
      r += step;
      u = v128.load(r);
      v = v128.load(r + lda);
      c1 = madd(v128.shuffle<i64>(u, v, 1, 3), x1, madd(v128.shuffle<i64>(u, v, 0, 2), x0, c1));
      r += step;
      u = v128.load(r);
      v = v128.load(r + lda);
      c2 = madd(v128.shuffle<i64>(u, v, 1, 3), x1, madd(v128.shuffle<i64>(u, v, 0, 2), x0, c2));
      r += step;
      u = v128.load(r);
      v = v128.load(r + lda);
      c3 = madd(v128.shuffle<i64>(u, v, 1, 3), x1, madd(v128.shuffle<i64>(u, v, 0, 2), x0, c3));
      p += 16;
      q += 16;
    }
    if (n > 0) {
      const x0 = v128.load64_splat(q);
      let r = p;
      c0 = madd(v128.load64_lane(r + lda, v128.load64_zero(r), 1), x0, c0);
      r += step;
      c1 = madd(v128.load64_lane(r + lda, v128.load64_zero(r), 1), x0, c1);
      r += step;
      c2 = madd(v128.load64_lane(r + lda, v128.load64_zero(r), 1), x0, c2);
      r += step;
      c3 = madd(v128.load64_lane(r + lda, v128.load64_zero(r), 1), x0, c3);
    }
    v128.store(dst, c0);
    v128.store(dst, c1, 16);
    v128.store(dst, c2, 32);
    v128.store(dst, c3, 48);
    a += lda << 3;
    dst += 64;
  }
  if (m > 0) {
    if (accumulate) productNNAdd(dst, a, x, m, 1, k, 8, lda, 8);
    else productNN(dst, a, x, m, 1, k, 8, lda, 8);
  }
}

// --- covariances -------------------------------------------------------------------------------------------
//
// C [p][p] packed, G [k][p] with rows of ldg values:
//
//   centreRows(g, mean, k, p, ldg); rankUpdate(c, g, k, p, ldg);    for each chunk of samples, in order
//   mirror(c, p);                                                   once

/** g[n*ldg + j] -= mean[j],  n < k, j < p. */
export function centreRows(g: usize, mean: usize, k: i32, p: i32, ldg: i32): void {
  const wide = bytes(p) & ~15;
  const end = bytes(p);
  for (; k > 0; --k) {
    let q: usize = 0;
    for (; q < wide; q += 16) v128.store(g + q, v128.sub<real>(v128.load(g + q), v128.load(mean + q)));
    for (; q < end; q += sizeof<real>()) store<real>(g + q, load<real>(g + q) - load<real>(mean + q));
    g += bytes(ldg);
  }
}

/** Samples and columns of a packed block: 32 KiB of values. */
const BLOCK_DEPTH: i32 = 64;
const BLOCK_COLUMNS: i32 = 512 / sizeof<real>();
/** Bytes from row to row of a packed block: an odd number of cache lines, so that a column is spread over all sets. */
const BLOCK_ROW: i32 = 576;
const LEFT: usize = memory.data(BLOCK_DEPTH * BLOCK_ROW, 64);
const RIGHT: usize = memory.data(BLOCK_DEPTH * BLOCK_ROW, 64);

/**
 * C += G^T G on and above the diagonal:  c[i*p + j] += sum_n g[n*ldg + i] * g[n*ldg + j],  n < k, i <= j < p.
 *
 * An element is one accumulator that adds its samples in ascending order to what is in c, so a set of samples may
 * come in chunks of any size. Some elements below the diagonal, less than 4 LANES columns from it, are added to as
 * well; the others are left alone. See mirror.
 *
 * Blocks of G are packed first: its own rows may lie a power of two apart and then meet in a few sets of the cache,
 * which halved the speed at p = 1024.
 */
export function rankUpdate(c: usize, g: usize, k: i32, p: i32, ldg: i32): void {
  const row = bytes(p);
  const stride = BLOCK_ROW / sizeof<real>();
  for (; k > 0; k -= BLOCK_DEPTH) {
    const depth = min(k, BLOCK_DEPTH);
    for (let j = 0; j < p; j += BLOCK_COLUMNS) {
      const n = min(p - j, BLOCK_COLUMNS);
      copyRows(RIGHT, g + bytes(j), depth, n, stride, ldg);
      for (let i = 0; i < j; i += BLOCK_COLUMNS) {
        copyRows(LEFT, g + bytes(i), depth, BLOCK_COLUMNS, stride, ldg);
        const at = c + bytes(i * p + j);
        productTNAdd(at, LEFT, RIGHT, BLOCK_COLUMNS, n, depth, row, BLOCK_ROW, BLOCK_ROW);
      }
      // The block on the diagonal, a panel of columns at a time down to the diagonal.
      for (let q = 0; q < n; q += 4 * LANES) {
        const width = min(n - q, 4 * LANES);
        const at = c + bytes(j * p + j + q);
        productTNAdd(at, RIGHT, RIGHT + bytes(q), q + width, width, depth, row, BLOCK_ROW, BLOCK_ROW);
      }
    }
    g += bytes(BLOCK_DEPTH * ldg);
  }
}

/** c[j*p + i] = c[i*p + j],  i < j < p: the upper triangle to the lower. */
export function mirror(c: usize, p: i32): void {
  const size = 32; // of a block: both it and its transpose stay in the cache
  for (let j = 0; j < p; j += size) {
    const n = min(p - j, size);
    for (let i = 0; i < j; i += size) transpose(c + bytes(j * p + i), c + bytes(i * p + j), size, n, p, p);
    const corner = c + bytes(j * p + j);
    for (let r = 1; r < n; ++r) {
      for (let q = 0; q < r; ++q) store<real>(corner + bytes(r * p + q), load<real>(corner + bytes(q * p + r)));
    }
  }
}

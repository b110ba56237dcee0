import { asMatrix, type Layout, type Section, type View } from "./layout.ts";
import type { Node } from "./node.ts";

/** A product of two views: sizes, vectors seen as one row or one column. */
export interface Product {
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly a: View;
  readonly b: View;
}

/** The operands of a matmul, or of an outer product (k = 1). */
export function operands(layout: Layout, node: Node, section: Section): Product {
  const [left, right] = [node.args[0]!, node.args[1]!];
  const a = layout.view(left, section);
  const b = layout.view(right, section);
  if (node.op === "outer") {
    const [m, n] = asMatrix(node.shape);
    return { m, n, k: 1, a: { ...a, rowStride: 1, colStride: 1 }, b: { ...b, rowStride: n, colStride: 1 } };
  }
  const k = left.shape.at(-1)!;
  const isRow = left.shape.length === 1;
  const isColumn = right.shape.length === 1;
  return {
    m: isRow ? 1 : left.shape[0]!,
    n: isColumn ? 1 : right.shape[1]!,
    k,
    a: isRow ? { ...a, rowStride: k, colStride: 1 } : a,
    b: isColumn ? { ...b, rowStride: 1, colStride: 1 } : b,
  };
}

/**
 * dst (+)= a b by the kernel that fits how the operands lie. Every path adds the terms of an entry
 * in ascending inner index to one accumulator.
 */
export function emitProduct(
  layout: Layout,
  dst: number,
  product: Product,
  accumulate: 0 | 1,
  section: Section,
): void {
  const { m, n, k, a, b } = product;
  const { code, ld } = section;
  if (!a.laned && !b.laned) return emitUniform(layout, dst, product, accumulate, section);
  if (!a.laned && b.colStride === 1 && b.rowStride === n) {
    // a laned right factor is a k x (n ld) matrix
    const columns = n * ld;
    const sizes = {
      dst,
      a: a.address,
      b: b.address,
      m,
      n: columns,
      k,
      ldd: columns,
      ldb: columns,
      accumulate,
    };
    if (a.colStride === 1) return code.emit("matmulNN", { ...sizes, lda: a.rowStride });
    if (a.rowStride === 1) return code.emit("matmulTN", { ...sizes, lda: a.colStride });
  }
  if (a.laned && !b.laned && m === 1 && a.colStride === 1) {
    // vector times matrix: the transposed product, with the vector as a k x ld matrix
    const sizes = { dst, a: b.address, b: a.address, m: n, n: ld, k, ldd: ld, ldb: ld, accumulate };
    if (b.colStride === 1) return code.emit("matmulTN", { ...sizes, lda: b.rowStride });
    if (b.rowStride === 1) return code.emit("matmulNN", { ...sizes, lda: b.colStride });
  }
  const kernel = a.laned ? (b.laned ? "matmulLaned" : "matmulLanedUniform") : "matmulUniformLaned";
  const strides = { ai: a.rowStride, ap: a.colStride, bp: b.rowStride, bj: b.colStride };
  code.emit(kernel, { dst, a: a.address, b: b.address, m, n, k, ...strides, ld, accumulate });
}

function emitUniform(
  layout: Layout,
  dst: number,
  product: Product,
  accumulate: 0 | 1,
  section: Section,
): void {
  const { m, n, k, a, b } = product;
  let right = b.address;
  let ldb = b.rowStride;
  if (b.colStride !== 1 && n > 1) {
    right = layout.take(k * n);
    ldb = n;
    const strides = { ars: b.rowStride, acs: b.colStride };
    section.code.emit("copyStrided", { dst: right, a: b.address, rows: k, cols: n, ...strides, ld: 1 });
  }
  const sizes = { dst, a: a.address, b: right, m, n, k, ldd: n, ldb, accumulate };
  if (a.colStride === 1) section.code.emit("matmulNN", { ...sizes, lda: a.rowStride });
  else section.code.emit("matmulTN", { ...sizes, lda: a.colStride });
}

/**
 * Adds a product of every sample of the block to dst, one accumulator per entry over (sample, inner
 * index), from sample-major copies of the operands. Samples are in the lanes.
 *
 * @returns the factors when the whole is one plain product of [m][lanes] and [lanes][n]
 */
export function sumOfProducts(
  layout: Layout,
  product: Product,
  section: Section,
): { name: "matmulNN" | "matmulTN"; a: number; b: number; k: number; lda: number; ldb: number } {
  const { m, n, k, a, b } = product;
  const right = layout.sampleMajor(b, k, n, section);
  if (k === 1 && a.laned) {
    const { lanes, ld } = section;
    return { name: "matmulNN", a: a.address, b: right.address, k: lanes, lda: ld, ldb: right.stride };
  }
  // left is read as (inner, m): its columns are the rows of the result
  const left = layout.sampleMajor({ ...a, rowStride: a.colStride, colStride: a.rowStride }, k, m, section);
  const ldb = k === 1 ? right.stride : n;
  const lda = k === 1 ? left.stride : m;
  return { name: "matmulTN", a: left.address, b: right.address, k: section.lanes * k, lda, ldb };
}

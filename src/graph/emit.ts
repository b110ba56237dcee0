import { internal } from "../errors.ts";
import type { Pair } from "./fuse.ts";
import { alongAxis, asMatrix, broadcastStrides, type Layout, type Section } from "./layout.ts";
import { type Node, sizeOf } from "./node.ts";
import { emitProduct, operands } from "./product.ts";

/** Emits the instructions that compute one op into a buffer of its own. Leaves are lower.ts's. */
export function emitOp(layout: Layout, node: Node, pair: Pair | undefined, section: Section): void {
  const { code } = section;
  const elements = sizeOf(node.shape);
  const width = layout.width(node, section);
  const address = (arg: Node) => layout.at(arg, section).address;
  if (pair !== undefined) return emitPair(layout, node, pair, section);
  const arg = node.args[0]!;
  switch (node.op) {
    case "reshape":
      section.places.set(node, layout.at(arg, section));
      return;
    case "transpose":
    case "broadcast_to": {
      const [rows, cols] = asMatrix(node.shape);
      const [ars, acs] = node.op === "transpose" ? [1, rows] : broadcastStrides(arg.shape, node.shape);
      const a = address(arg);
      return code.emit("copyStrided", {
        dst: layout.place(node, section),
        a,
        rows,
        cols,
        ars,
        acs,
        ld: width,
      });
    }
    case "add":
    case "sub":
    case "mul":
    case "div":
      return emitBinary(layout, node, section);
    case "outer":
      return emitBroadcast(layout, "mul", node, [1, 0], [0, 1], section);
    case "matmul": {
      const product = operands(layout, node, section);
      return emitProduct(layout, layout.place(node, section), product, 0, section);
    }
    case "scale": {
      const a = address(arg);
      return code.emit("scale", {
        dst: layout.place(node, section),
        a,
        n: elements * width,
        imm: node.attrs.c!,
      });
    }
    case "leaky_relu": {
      const a = address(arg);
      const dst = layout.place(node, section);
      return code.emit("leakyRelu", { dst, a, n: elements * width, imm: node.attrs.slope! });
    }
    case "slice":
    case "pad":
    case "concat":
      return emitBlock(layout, node, section);
    case "batch_stack": {
      // the rows are the lanes
      const a = layout.inLanes(arg, section);
      const { lanes, ld } = section;
      const dst = layout.place(node, section);
      return code.emit("laneTranspose", { dst, a, outer: 1, inner: arg.shape[0]!, so: 1, si: 1, lanes, ld });
    }
    case "batch_pick": {
      const a = address(arg);
      const [rows, cols] = asMatrix(arg.shape);
      const dst = layout.place(node, section);
      return code.emit("transpose", { dst, a, rows, cols, ldd: section.ld, lda: cols });
    }
    case "sum":
    case "sqnorm": {
      const a = address(arg);
      const dst = layout.place(node, section);
      if (node.op === "sum" && node.attrs.axis != null) {
        return code.emit("sumAxis", { dst, a, ...alongAxis(arg, node.attrs.axis, width) });
      }
      const kernel = node.op === "sqnorm" ? "sumSquares" : "sumAll";
      return code.emit(kernel, { dst, a, elements: sizeOf(arg.shape), ld: width });
    }
    case "softmax":
    case "logsumexp": {
      const a = address(arg);
      return code.emit(node.op, {
        dst: layout.place(node, section),
        a,
        ...alongAxis(arg, node.attrs.axis!, width),
      });
    }
    default: {
      // every other op is a flat elementwise kernel named after it
      const a = address(arg);
      return code.emit(node.op, { dst: layout.place(node, section), a, n: elements * width });
    }
  }
}

/** Copies blocks along an axis; a slice along the first axis is read where it lies. */
function emitBlock(layout: Layout, node: Node, section: Section): void {
  const { code } = section;
  const width = layout.width(node, section);
  const axis = node.attrs.axis!;
  // values between one entry of the axis and the next, lanes counted
  const inner = (shape: readonly number[]) => (axis === 0 && shape.length === 2 ? shape[1]! : 1) * width;
  const rowOf = (shape: readonly number[]) => shape[axis]! * inner(shape);
  const rows = axis === 0 ? 1 : node.shape[0]!;
  const { bytes } = layout.real;
  const copy = (dst: number, strideD: number, a: number, strideA: number, n: number) =>
    code.emit("copyRows", { dst, a, rows, n, strideD, strideA });
  if (node.op === "slice") {
    const arg = node.args[0]!;
    const { address, laned } = layout.at(arg, section);
    const from = address + node.attrs.start! * inner(arg.shape) * bytes;
    if (axis === 0) section.places.set(node, { address: from, laned });
    else copy(layout.place(node, section), rowOf(node.shape), from, rowOf(arg.shape), rowOf(node.shape));
    return;
  }
  const addresses = node.args.map((a) =>
    layout.isLaned(node) ? layout.inLanes(a, section) : layout.at(a, section).address,
  );
  const dst = layout.place(node, section);
  const stride = rowOf(node.shape);
  if (node.op === "pad") code.emit("fill", { dst, n: elementsOf(node, width), imm: 0 });
  let at = dst + (node.attrs.before ?? 0) * inner(node.shape) * bytes;
  for (const [i, arg] of node.args.entries()) {
    const n = rowOf(arg.shape);
    copy(at, stride, addresses[i]!, n, n);
    at += n * bytes;
  }
}

const elementsOf = (node: Node, width: number): number => sizeOf(node.shape) * width;

function emitBinary(layout: Layout, node: Node, section: Section): void {
  const [a, b] = [node.args[0]!, node.args[1]!];
  const elements = sizeOf(node.shape);
  const n = elements * layout.width(node, section);
  const [pa, pb] = [layout.at(a, section), layout.at(b, section)];
  if (b.op === "number" && sizeOf(a.shape) === elements && (node.op === "add" || node.op === "sub")) {
    const imm = node.op === "add" ? b.attrs.c! : -b.attrs.c!;
    return section.code.emit("addNumber", { dst: layout.place(node, section), a: pa.address, n, imm });
  }
  if (a.op === "number" && sizeOf(b.shape) === elements && node.op !== "mul") {
    const kernel =
      { add: "addNumber", sub: "numberSub", div: "numberDiv" }[node.op] ?? internal("lower", node.op);
    return section.code.emit(kernel, { dst: layout.place(node, section), a: pb.address, n, imm: a.attrs.c! });
  }
  if (pa.laned === pb.laned && sizeOf(a.shape) === elements && sizeOf(b.shape) === elements) {
    return section.code.emit(node.op, { dst: layout.place(node, section), a: pa.address, b: pb.address, n });
  }
  emitBroadcast(
    layout,
    node.op,
    node,
    broadcastStrides(a.shape, node.shape),
    broadcastStrides(b.shape, node.shape),
    section,
  );
}

function emitBroadcast(
  layout: Layout,
  op: string,
  node: Node,
  [ars, acs]: [number, number],
  [brs, bcs]: [number, number],
  section: Section,
): void {
  const [a, b] = [layout.at(node.args[0]!, section), layout.at(node.args[1]!, section)];
  const [rows, cols] = asMatrix(node.shape);
  const laned = { ld: layout.width(node, section), lanedA: a.laned ? 1 : 0, lanedB: b.laned ? 1 : 0 };
  const dst = layout.place(node, section);
  section.code.emit(`${op}Broadcast`, {
    dst,
    a: a.address,
    b: b.address,
    rows,
    cols,
    ars,
    acs,
    brs,
    bcs,
    ...laned,
  });
}

function emitPair(layout: Layout, node: Node, { inner, kernel, other }: Pair, section: Section): void {
  const at = (arg: Node | null | undefined) => (arg == null ? 0 : layout.at(arg, section).address);
  if (kernel === "sumAllMul") {
    const [a, b] = [at(inner.args[0]), at(inner.args[1] ?? inner.args[0])];
    const elements = sizeOf(inner.shape);
    const ld = layout.width(inner, section);
    return section.code.emit(kernel, { dst: layout.place(node, section), a, b, elements, ld });
  }
  if (kernel === "sumAxisMul") {
    const along = alongAxis(inner, node.attrs.axis!, layout.width(inner, section));
    const [a, b] = [at(inner.args[0]), at(inner.args[1] ?? inner.args[0])];
    return section.code.emit(kernel, { dst: layout.place(node, section), a, b, ...along });
  }
  const values = { a: at(inner.args[0]), b: at(inner.args[1]), c: at(other) };
  const n = sizeOf(node.shape) * layout.width(node, section);
  section.code.emit(kernel, {
    dst: layout.place(node, section),
    ...values,
    n,
    imm: inner.attrs.c ?? node.attrs.c ?? 0,
  });
}

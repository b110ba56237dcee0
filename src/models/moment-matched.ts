import { fail, show } from "../errors.ts";
import { type Node, reachable, sizeOf } from "../graph/node.ts";
import { Sampler } from "../graph/sampler.ts";

/** A finite data set that has exactly the first and second moments of a sampler. */
export class MomentMatched {
  /** @internal use `momentMatched` */
  constructor(
    /** The law whose moments it has. */
    readonly sampler: Sampler,
  ) {}
}

/**
 * The population of a sampler as far as a loss quadratic in the data can see it: 2 d points with
 * exactly its mean and covariance, d the number of random entries per sample. Full-batch gradient
 * descent on them is gradient descent on the population.
 *
 * The points are the sampler's outputs at  mean +- sqrt(d) sd e_i  of its random entries, so the
 * sampler must be affine in them (y = V x + noise is); it is refused otherwise.
 *
 * @throws NoetherflowError "unsupported" when an output is not affine in the random entries
 * @example engine.problem(net, momentMatched(teacher)).N; // 10; 2 d points, d = 3 + 2
 */
export function momentMatched(sampler: Sampler): MomentMatched {
  if (!(sampler instanceof Sampler)) fail("shape", "momentMatched", "expected a sampler", show(sampler));
  for (const leaf of sampler.noise) {
    if (leaf.attrs.kind === "index") {
      fail(
        "unsupported",
        "momentMatched",
        "an index has no moments to match",
        `leaf ${show(leaf.attrs.name)}`,
        "Give a finite data set with { samples: N }.",
      );
    }
  }
  checkAffine(sampler);
  return new MomentMatched(sampler);
}

/** Refuses any op that is not affine in the random entries. */
function checkAffine(sampler: Sampler): void {
  const views = ["broadcast_to", "reshape", "transpose", "concat", "slice", "pad"];
  const affine = new Set(["add", "sub", "scale", "sum", ...views]);
  for (const node of reachable([...sampler.outputs.values()])) {
    if (node.args.length === 0 || affine.has(node.op)) continue;
    const random = node.args.map((a) => a.varies !== 0);
    const bilinear =
      (node.op === "mul" || node.op === "matmul" || node.op === "outer") &&
      random.filter(Boolean).length <= 1;
    const divided = node.op === "div" && !random[1];
    if (bilinear || divided || random.every((r) => !r)) continue;
    fail(
      "unsupported",
      "momentMatched",
      "every output must be affine in the random entries",
      `${node.op} of them`,
      "Use engine.problem(model, sampler, { samples: N }) with a large N instead.",
    );
  }
}

/** Mean and standard deviation of one entry. */
function momentsOf(leaf: Node): { mean: number; sd: number } {
  return leaf.attrs.kind === "uniform" ? { mean: 0.5, sd: Math.sqrt(1 / 12) } : { mean: 0, sd: 1 };
}

/** The 2 d points, row-major, and where each random leaf starts in one. */
export function momentPoints(sampler: Sampler): {
  values: Float64Array;
  count: number;
  dimension: number;
  offsets: number[];
} {
  const offsets: number[] = [];
  const entries: { mean: number; sd: number }[] = [];
  for (const leaf of sampler.noise) {
    offsets.push(entries.length);
    for (let e = 0; e < sizeOf(leaf.shape); e++) entries.push(momentsOf(leaf));
  }
  const d = entries.length;
  const count = Math.max(1, 2 * d);
  const values = new Float64Array(count * d);
  for (let p = 0; p < count; p++) {
    for (let e = 0; e < d; e++) {
      const { mean, sd } = entries[e]!;
      const offset = p >> 1 === e ? Math.sqrt(d) * sd * (p % 2 === 0 ? 1 : -1) : 0;
      values[p * d + e] = mean + offset;
    }
  }
  return { values, count, dimension: d, offsets };
}

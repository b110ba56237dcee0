import type { Node } from "../graph/node.ts";
import { abs, add, div, mul, relu, scale, sqnorm, sub } from "../graph/ops.ts";
import type { Scheme } from "./scheme.ts";
import { plus, times, type UpdateBuilder, type Vector } from "./update.ts";

/** The Dormand-Prince pair: stages, and the difference of its fifth- and fourth-order results. */
const STAGES = [
  [1 / 5],
  [3 / 40, 9 / 40],
  [44 / 45, -56 / 15, 32 / 9],
  [19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729],
  [9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656],
  [35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84],
] as const;
const ERROR = [71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40] as const;

/**
 * Gradient flow, d theta / dt = -grad L - 2 gamma theta: the limit of gradient descent for small eta. Each step follows it over a
 * time eta with the Dormand-Prince pair of orders 5 and 4, as many trial steps as the tolerances need:
 * rms of error / (atol + rtol |theta|) at most 1, for each replica by itself.
 *
 * @cost seven passes over the data per trial step
 * @source Dormand, Prince 1980, J. Comput. Appl. Math. 6
 */
export const flow: Scheme = {
  name: "flow",
  visits: "all",
  batches: 0,
  samplings: [],
  takes: ["rtol", "atol"],
  charges: "kept",
  perSample: false,
  update(build) {
    const start = build.theta;
    const h = build.number("h", 0);
    const slopes: Vector[] = [];
    for (const [i, weights] of STAGES.entries()) {
      build.walk("all", i === 0 ? null : "y");
      slopes.push(slope(build, i === 0 ? start : build.vector("y")));
      build.keep("y", plus(start, times(combine(weights, slopes), h)));
      // what later passes need of it
      build.keep(`k${i}`, slopes[i]!);
      slopes[i] = build.vector(`k${i}`);
    }
    build.walk("all", "y");
    const end = build.vector("y");
    slopes.push(slope(build, end));
    const error = times(combine(ERROR, slopes), h);
    build.number("error", 0);
    build.keepNumber("error", scaled(build, error, start, end));
    build.number("accept", 0);
    build.pass.judges = true;
    return null;
  },
};

/** -grad L - 2 gamma theta. */
function slope(build: UpdateBuilder, theta: readonly Node[]): Vector {
  const g = build.mean();
  return g.map((x, i) => {
    const gamma = build.gamma(i);
    const down = x && scale(x, -1);
    if (gamma === 0) return down;
    const decay = typeof gamma === "number" ? scale(theta[i]!, -2 * gamma) : scale(mul(theta[i]!, gamma), -2);
    return down === null ? decay : add(down, decay);
  });
}

function combine(weights: readonly number[], vectors: readonly Vector[]): Vector {
  return weights.reduce<Vector | null>((sum, c, i) => {
    if (c === 0) return sum;
    const part = times(vectors[i]!, c);
    return sum === null ? part : plus(sum, part);
  }, null)!;
}

/** sum (error / (atol + rtol max(|start|, |end|)))^2 over all entries. */
function scaled(build: UpdateBuilder, error: Vector, start: readonly Node[], end: readonly Node[]): Node {
  const { graph } = build.model;
  const { rtol, atol } = build.setting;
  let total: Node = graph.number(0);
  for (const [i, e] of error.entries()) {
    if (e === null) continue;
    const [a, b] = [abs(start[i]!), abs(end[i]!)];
    const larger = add(a, relu(sub(b, a)));
    total = add(total, sqnorm(div(e, add(scale(larger, rtol), graph.number(atol)))));
  }
  return total;
}

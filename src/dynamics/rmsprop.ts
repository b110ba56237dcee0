import { add, div, sqrt } from "../graph/ops.ts";
import type { Scheme } from "./scheme.ts";
import { plus, squares, times } from "./update.ts";

/**
 * RMSProp, as a contrast: s' = beta2 s + (1 - beta2) g^2, theta' = (1 - 2 eta gamma) theta - eta g / (sqrt(s') + epsilon). The theory of
 * charges does not apply to it; see adam.ts.
 *
 * @source Tieleman, Hinton 2012, lecture 6.5 of Neural Networks for Machine Learning
 */
export const rmsprop: Scheme = {
  name: "rmsprop",
  visits: "batch",
  batches: 1,
  samplings: ["iid", "without", "epochs", "online"],
  takes: ["batchSize", "sampling", "batches", "clip", "labelNoise", "beta2", "epsilon"],
  charges: "none",
  perSample: false,
  update(build) {
    const { beta2, epsilon } = build.setting;
    build.walk("batch");
    const g = build.clipped(build.mean());
    const s = plus(times(build.vector("s"), beta2), times(squares(g), 1 - beta2));
    build.keep("s", s);
    return g.map((x, i) => x && div(x, add(sqrt(s[i]!), x.graph.number(epsilon))));
  },
};

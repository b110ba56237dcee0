import { add, div, scale, sqrt, sub } from "../graph/ops.ts";
import type { Scheme } from "./scheme.ts";
import { plus, squares, times } from "./update.ts";

/**
 * Adam, as a contrast: m' = beta1 m + (1 - beta1) g, s' = beta2 s + (1 - beta2) g^2,
 *
 *   theta' = (1 - 2 eta gamma) theta - eta (m' / (1 - beta1^k)) / (sqrt(s' / (1 - beta2^k)) + epsilon)
 *
 * with k counted from 1 and decoupled decay. It scales every coordinate by itself, so its steps are not orthogonal to
 * A theta, and the theory of charges does not apply to it.
 *
 * @source Kingma, Ba 2015, arXiv:1412.6980; Loshchilov, Hutter 2019, arXiv:1711.05101, for the decay
 */
export const adam: Scheme = {
  name: "adam",
  visits: "batch",
  batches: 1,
  samplings: ["iid", "without", "epochs", "online"],
  takes: ["batchSize", "sampling", "batches", "clip", "labelNoise", "beta1", "beta2", "epsilon"],
  charges: "none",
  perSample: false,
  update(build) {
    const { beta1, beta2, epsilon } = build.setting;
    const { graph } = build.model;
    build.walk("batch");
    const g = build.clipped(build.mean());
    const m = plus(times(build.vector("m"), beta1), times(g, 1 - beta1));
    const s = plus(times(build.vector("s"), beta2), times(squares(g), 1 - beta2));
    build.keep("m", m);
    build.keep("s", s);
    const [left1, left2] = (
      [
        ["beta1", beta1],
        ["beta2", beta2],
      ] as const
    ).map(([name, beta]) => {
      const power = scale(build.number(name, 1), beta);
      build.keepNumber(name, power);
      return sub(graph.number(1), power);
    });
    return m.map((mi, i) => {
      if (mi === null) return null;
      const width = add(sqrt(div(s[i]!, left2!)), graph.number(epsilon));
      return div(div(mi, left1!), width);
    });
  },
};

import type { Key } from "../core/key.ts";
import { fail } from "../errors.ts";
import { curvature, meanOver, pullback } from "../graph/derive.ts";
import type { Effect } from "../graph/lower.ts";
import type { Node } from "../graph/node.ts";
import { sub } from "../graph/ops.ts";
import { meanGradient } from "../models/derivatives.ts";
import type { Measure } from "../models/measure.ts";
import { dot, norm } from "../stats/operator.ts";
import { probes } from "../stats/probes.ts";
import { misalignment, type SymmetryCheck, verdictOf } from "./check.ts";
import type { Strength } from "./strength.ts";

/** dC/dt of any charge, in units of C per unit of time k eta. */
export interface ChargeFlow {
  /** C(theta). */
  readonly charge: number;
  /** sigma^2 Tr[Sigma Hess C] */
  readonly noise: number;
  /** -2 gamma grad C . theta, over the blocks that are trained */
  readonly decay: number;
  /** -grad C . gbar: 0 for a conserved charge */
  readonly gradient: number;
  /** noise + decay + gradient */
  readonly total: number;
  /** (eta / 2) gbar^T Hess C gbar, the part that finite steps add to second order; not in total. 0 when only sigma2 was given. */
  readonly discrete: number;
  /** The largest |g_n . grad C| / (|g_n| |grad C|) over the samples: 0 for a conserved charge. */
  readonly defect: number;
}

/** How far a charge is from being conserved. */
export type ChargeCheck = Omit<SymmetryCheck, "finiteDefect">;

/** A charge at a theta, with its gradient over the trained blocks, P values. */
interface ChargeAt {
  readonly value: number;
  readonly gradient: Float64Array;
}

const THETAS = 3;
/** Random thetas that are tried where the charge has a domain. */
const DRAWS = 16;

/** C and grad C; "unsupported" where C depends on no trained block. */
function chargeAt(where: string, measure: Measure, C: Node, key: string, theta: ArrayLike<number>): ChargeAt {
  const { graph } = measure.model;
  const nodes = pullback(C, graph.number(1), measure.leaves, "perSample");
  if (nodes.every((node) => node === null))
    fail(
      "unsupported",
      where,
      "expected a charge that depends on parameters that are trained",
      "one that never moves",
    );
  const pass = measure.pass(`gradient of ${key}`, () => ({
    effects: (take) => [
      { kind: "output", value: C, address: take(1) },
      ...nodes.flatMap((value, i): Effect[] => {
        const address = take(measure.trainable[i]!.size);
        return value === null ? [] : [{ kind: "output", value, address }];
      }),
    ],
  }));
  pass.run(theta);
  const gradient = new Float64Array(measure.P);
  for (const [i, { offset, size }] of measure.trainable.entries())
    if (nodes[i] !== null) pass.readInto(gradient, offset, i + 1, size);
  return { value: pass.read(0, 1)[0]!, gradient };
}

/**
 * The Noether flow of any charge C, an expression of the parameters:
 *
 *   dC/dt = -grad C . gbar + sigma^2 Tr[Sigma Hess C] - 2 gamma grad C . theta
 *
 * Tr[Sigma Hess C] is the mean over samples of D^2 C [v, v], v = g_n - gbar: second derivatives along one vector, so that
 * neither Sigma nor Hess C is formed, whatever their size.
 *
 * @param key      of C, for the passes
 * @param decaying theta, 0 for blocks that are not trained
 * @throws NoetherflowError "unsupported" where C depends on no trained block
 * @cost   five passes over the samples, one of them with their gradients formed: 0.5 s for a product of the layers of a 100-100-100
 *         net and 1000 samples, 50 gradients
 * @source theory.md, 2.2; Ziyin et al. 2024, arXiv:2402.07193, eq. 5
 */
export function chargeFlowOf(
  where: string,
  measure: Measure,
  C: Node,
  key: string,
  theta: Float64Array,
  decaying: Float64Array,
  { sigma2, gamma, discrete }: Strength,
): ChargeFlow {
  const { graph } = measure.model;
  const { value, gradient: J } = chargeAt(where, measure, C, key, theta);
  const mean = measure.meanAt(theta, meanGradient);
  const means = measure.vectorLeaves(0);
  const pass = measure.pass(`noise of ${key}`, () => ({
    extra: means,
    effects: (take) => {
      const each = measure.sampleGradients;
      const along = (of: (i: number) => Node | null): Node | null => {
        const directions = new Map<Node, Node>();
        for (const [i, leaf] of measure.leaves.entries()) {
          const v = of(i);
          if (v !== null) directions.set(leaf, v);
        }
        return curvature(C, graph.number(1), directions, 1);
      };
      const noise = along((i) => (each[i] == null ? null : sub(each[i], means[i]!.node)));
      const drift = along((i) => (each[i] == null ? null : means[i]!.node));
      return [noise, drift].flatMap((node): Effect[] => {
        const address = take(1);
        return node === null ? [] : [{ kind: "output", value: meanOver(node, measure.N), address }];
      });
    },
  }));
  for (const [i, { offset }] of measure.trainable.entries()) pass.set(i, mean, offset);
  pass.run(theta);
  const [trace, along] = [0, 1].map((i) => pass.read(i, 1)[0]!) as [number, number];
  const parts = {
    noise: sigma2 * trace,
    decay: -2 * gamma * dot(J, decaying) + 0, // no -0
    gradient: -dot(J, mean) + 0,
  };
  return {
    charge: value,
    ...parts,
    total: parts.noise + parts.decay + parts.gradient,
    discrete: discrete * along,
    defect: misalignment(measure, theta, J).worst,
  };
}

/**
 * Is C conserved by the gradient of every sample? Checked at three standard normal thetas and one given. A theta where C or
 * its gradient is not finite is tried with its absolute values, then drawn again, 16 times at most.
 *
 * @throws NoetherflowError "nonfinite" where C or the gradient of the loss is finite at none of them, "unsupported" where C
 *         is constant
 * @cost   three passes over the samples per theta
 */
export function checkCharge(
  where: string,
  measure: Measure,
  C: Node,
  key: string,
  seed: Key,
  given: Float64Array | null,
): ChargeCheck {
  const { host, P } = measure;
  let [defect, counted, found] = [0, 0, 0];
  let moves = false;
  const look = (theta: Float64Array): boolean => {
    const { value, gradient } = chargeAt(where, measure, C, key, theta);
    if (!Number.isFinite(value) || !gradient.every(Number.isFinite)) return false;
    found++;
    if (norm(gradient) === 0) return true;
    moves = true;
    const at = misalignment(measure, theta, gradient);
    counted += at.counted;
    defect = Math.max(defect, at.worst);
    return at.counted > 0;
  };
  if (given !== null) look(given);
  let drawn = 0;
  for (let k = 0; k < DRAWS && drawn < THETAS; k++) {
    const theta = probes(host, seed, "normals", P, k, 1);
    if (look(theta) || look(theta.map(Math.abs))) drawn++;
  }
  const outside = (what: string): never =>
    fail(
      "nonfinite",
      where,
      `${what} must be finite at a random theta, or at the one given`,
      "none that is",
      "Pass a { theta } in the domain of the charge and of the loss.",
    );
  if (found === 0) outside("the charge and its gradient");
  if (!moves)
    fail(
      "unsupported",
      where,
      "expected a charge that depends on parameters that are trained",
      "one whose gradient is 0",
      "A constant is conserved whatever the loss.",
    );
  if (counted === 0) outside("the gradient of some sample");
  return { verdict: verdictOf(host.core.dtype, defect), defect };
}

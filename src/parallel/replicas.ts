import type { SimulateOptions } from "../dynamics/options.ts";
import { fail, show } from "../errors.ts";
import type { Node } from "../graph/node.ts";
import type { RunSpec } from "../spec.ts";
import type { Generator } from "../symmetry/generator.ts";

/** Options that are one value, or a list of one per replica. */
const PER_REPLICA = ["batchSize", "eta", "momentum", "dt", "sigma2", "seed", "dataSeed"];
/** Replicas go side by side in multiples of this many where there are enough of them. */
const SIDE_BY_SIDE = 8;

/**
 * Positions 0 .. count - 1 in at most `workers` runs of consecutive ones, as even as multiples of 8 allow, which fill the lanes.
 *
 * @returns as many lists as there are workers, or fewer; none is empty
 */
export function splitReplicas(count: number, workers: number): { readonly replicas: readonly number[] }[] {
  const unit = count >= 2 * SIDE_BY_SIDE * workers ? SIDE_BY_SIDE : 1;
  const units = Math.ceil(count / unit);
  const parts = Math.min(workers, units);
  const edge = (p: number) => Math.min(count, unit * Math.round((p * units) / parts));
  return Array.from({ length: parts }, (_, p) => ({
    replicas: Array.from({ length: edge(p + 1) - edge(p) }, (_, j) => edge(p) + j),
  }));
}

/** The part of a run with some of its replicas, which keep the numbers of their streams. */
export function partOf(spec: RunSpec, P: number, count: number, replicas: readonly number[]): RunSpec {
  const { options } = spec;
  const pick = (value: unknown): unknown => {
    const list = asList(value);
    return list === null ? value : replicas.map((r) => list[r]);
  };
  const some: Record<string, unknown> = {};
  for (const name of PER_REPLICA) if (options[name] !== undefined) some[name] = pick(options[name]);
  const { weightDecay } = options;
  if (weightDecay !== undefined)
    some.weightDecay =
      typeof weightDecay === "object" && weightDecay !== null && asList(weightDecay) === null
        ? Object.fromEntries(Object.entries(weightDecay).map(([block, gamma]) => [block, pick(gamma)]))
        : pick(weightDecay);
  const first = (options.firstReplica as number | undefined) ?? 0;
  const streams = asList(options.streams);
  return {
    ...spec,
    options: {
      ...options,
      ...some,
      theta: thetasOf(options.theta, P, count, replicas),
      replicas: replicas.length,
      streams: replicas.map((r) => streams?.[r] ?? first + r),
    },
  };
}

/** Starts of some replicas: rows of a flat theta of all of them, entries of a list of thetas, else the one of all. */
function thetasOf(theta: unknown, P: number, count: number, replicas: readonly number[]): unknown {
  const list = asList(theta);
  if (list === null || count === 1) return theta;
  if (Array.isArray(theta) && typeof theta[0] === "object") return replicas.map((r) => theta[r]);
  if (list.length !== count * P) return theta;
  const out = new Float64Array(replicas.length * P);
  for (const [j, r] of replicas.entries())
    for (let e = 0; e < P; e++) out[j * P + e] = list[r * P + e] as number;
  return out;
}

function asList(value: unknown): ArrayLike<unknown> | null {
  return Array.isArray(value) || ArrayBuffer.isView(value) ? (value as unknown as ArrayLike<unknown>) : null;
}

/** Replicas in other threads stop nobody, so a run in parts goes on without those that diverge. */
export function goOn(options: SimulateOptions<Generator, Node>): SimulateOptions<Generator, Node> {
  const { onDiverge = "stopReplica" } = options;
  if (onDiverge !== "stopReplica")
    fail(
      "unsupported",
      "simulateReplicas",
      'onDiverge: "stopReplica"',
      show(onDiverge),
      "Replicas of other workers cannot be stopped.",
    );
  return { ...options, onDiverge };
}

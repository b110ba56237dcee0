import type { Measures } from "../dynamics/draft.ts";
import { planRun, recordsOf } from "../dynamics/plan.ts";
import type { Part, Sweep } from "../dynamics/run.ts";
import { simulate } from "../dynamics/run.ts";
import { checkWord, internal } from "../errors.ts";
import type { Model } from "../graph/model.ts";
import { gradientRecipe, lossesRecipe, lossRecipe } from "../models/derivatives.ts";
import type { Host } from "../models/evaluate.ts";
import type { Measure } from "../models/measure.ts";
import type { Samples } from "../models/samples.ts";
import { noiseRecipes, squaredNorm } from "../stats/noise.ts";

/** Memory and time of a run before it is made. */
export interface PlanEstimate {
  /** Wasm memory the run reserves. */
  readonly bytes: number;
  /** Memory of the recorded series in the host. */
  readonly recordBytes: number;
  /** Rough time at one core, from a short trial of the same run. */
  readonly estimatedMs: number;
  /** What runs in the SIMD lanes. */
  readonly lanes: "samples" | "replicas" | "features";
}

/** Bytes of a run or of a measurement, known before anything is reserved. */
export interface MemoryPlan {
  /** Wasm memory of the samples; of data that a function reads, of the buffer of measurements. */
  readonly data: number;
  /** Of a run: theta, and what lives from step to step, of all replicas; as it is, as it was when the chunk began, and while it moves. */
  readonly state: number;
  /** Of a run: what it keeps for samples beside `data`: draws ahead, weights, buffers of data that a function reads. */
  readonly samples: number;
  /** Of a run: records that have not been fetched, at most 4 MiB. */
  readonly trace: number;
  /** Values of a block of samples, gradients, constants and the program; of a measurement all of its passes. */
  readonly values: number;
  /** Memory of the host: theta as given and as returned, series, results, and the room that `read` may fill. */
  readonly host: number;
  /** All of it. */
  readonly bytes: number;
}

/** Measurements whose memory can be asked for. */
export type Measured = "loss" | "losses" | "gradient" | "noiseTrace";

const MEASURED: readonly Measured[] = ["loss", "losses", "gradient", "noiseTrace"];

type Parts = Omit<MemoryPlan, "bytes">;

const total = (plan: Parts): MemoryPlan => ({
  ...plan,
  bytes: plan.data + plan.state + plan.samples + plan.trace + plan.values + plan.host,
});

/** Memory of a measurement over all samples. */
export function measurementMemory(measure: Measure, what: unknown): MemoryPlan {
  const word = checkWord("memory", "a measurement", what, MEASURED);
  const { N, P, samples, host } = measure;
  const bytes = host.core.real.bytes;
  const recipes = {
    loss: () => [lossRecipe(measure)],
    losses: () => [lossesRecipe(measure)],
    gradient: () => [gradientRecipe(measure)],
    noiseTrace: () => noiseRecipes(measure, squaredNorm(measure)),
  }[word]();
  const result = { loss: 0, losses: bytes * N, gradient: (8 + bytes) * P, noiseTrace: 8 * P + bytes * N };
  return total({
    data: samples.bytes,
    state: 0,
    samples: 0,
    trace: 0,
    values: recipes.reduce((n, recipe) => n + measure.bytesOf(recipe), 0),
    host: 8 * P + result[word] + (samples.reader?.roomBytes(host.core.real) ?? 0),
  });
}

/** Memory of a run; its parts are done one after the other, each with the data it is over. */
export function runMemory(
  host: Host,
  model: Model,
  data: Samples,
  { setting, parts }: Pick<Sweep, "setting"> & { parts: readonly Pick<Part, "setting">[] },
  measures: Measures,
): MemoryPlan {
  const { real } = host.core;
  const plans = parts.map((part) => planRun(model, data, part.setting, measures, real, 0));
  const largest = plans.reduce(
    (a, b) => (b.bytes > a.bytes ? b : a),
    plans[0] ?? internal("memory", "no part"),
  );
  const { state, samples, trace } = largest.parts;
  const sets = new Set(setting.differs?.dataSeeds ?? []).size;
  const records = recordsOf(setting);
  const { replicas } = setting;
  return total({
    data: data.bytes * (1 + sets),
    state,
    samples,
    trace,
    values: largest.bytes - state - samples - trace,
    host:
      (8 + real.bytes) * replicas * model.P +
      8 * records * (1 + replicas * largest.entries) +
      largest.feeds.reduce((n, feed) => n + feed.hostBytes, 0),
  });
}

/** Memory of a run, and its time from a trial of a few steps. */
export async function estimate(
  host: Host,
  model: Model,
  { setting, parts }: Sweep,
  measures: Measures,
): Promise<PlanEstimate> {
  const plans = parts.map((part) => planRun(model, part.samples, part.setting, measures, host.core.real, 0));
  const records = recordsOf(setting);
  const time = async (steps: number): Promise<number> => {
    // tables given for the whole run serve a part of it
    const trial = parts.map((part) => ({
      ...part,
      setting: { ...part.setting, steps, onDiverge: "stop" as const },
    }));
    const began = performance.now();
    await simulate(host, model, { setting, parts: trial }, measures, {});
    return performance.now() - began;
  };
  let steps = Math.min(setting.steps, 4);
  let spent = await time(steps);
  while (spent < 20 && steps < setting.steps) {
    steps = Math.min(setting.steps, steps * 4);
    spent = await time(steps);
  }
  return {
    bytes: Math.max(...plans.map((plan) => plan.bytes)),
    recordBytes: 8 * records * setting.replicas * plans[0]!.entries,
    estimatedMs: steps === 0 ? 0 : (spent / steps) * setting.steps,
    lanes: plans[0]!.choice.lanes,
  };
}

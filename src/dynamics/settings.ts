import { STREAM_VERSION } from "../core/key.ts";
import type { Core } from "../wasm/module.ts";
import type { BatchSetting } from "./batches.ts";
import type { Setting } from "./options.ts";
import type { RunSettings } from "./result.ts";
import type { SchemeOption } from "./scheme.ts";

/** What a run was: everything asked for that decides its numbers. */
export function settingsOf(setting: Setting, core: Core): RunSettings {
  const { scheme, schedule, differs } = setting;
  const takes = (name: SchemeOption) => scheme.takes.includes(name);
  const sizeOfBatch = ({ S, noiseOf }: BatchSetting) =>
    scheme.visits === "batch" ? S : (noiseOf?.batchSize ?? null);
  return {
    scheme: scheme.name,
    sampling: setting.noiseOf?.sampling ?? setting.sampling,
    batchSize: differs?.batches.map(sizeOfBatch) ?? sizeOfBatch(setting),
    eta: [...setting.eta],
    weightDecay: setting.weightDecay,
    seed: differs?.seeds ?? setting.seed,
    ...(differs?.dataSeeds == null ? {} : { dataSeed: differs.dataSeeds }),
    firstReplica: setting.firstReplica,
    requestedSteps: setting.steps,
    every: setting.every,
    dtype: core.dtype,
    variant: core.variant,
    wasmSha256: core.sha256,
    streamVersion: STREAM_VERSION,
    ...(setting.streams === null ? {} : { streams: [...setting.streams] }),
    ...(schedule === null ? {} : { schedule: schedule.given }),
    ...(setting.momentum === null ? {} : { momentum: [...setting.momentum] }),
    ...(setting.clip === null ? {} : { clip: setting.clip }),
    ...(setting.labelNoise === null ? {} : { labelNoise: Object.fromEntries(setting.labelNoise) }),
    ...(setting.noise === "factor" ? { noise: "factor" } : {}),
    ...(takes("l") ? { l: setting.l } : {}),
    ...(takes("substeps") ? { substeps: setting.substeps } : {}),
    ...(setting.dt === null ? {} : { dt: [...setting.dt] }),
    ...(setting.sigma2 === null ? {} : { sigma2: [...setting.sigma2] }),
    ...(takes("beta1") ? { beta1: setting.beta1 } : {}),
    ...(takes("beta2") ? { beta2: setting.beta2, epsilon: setting.epsilon } : {}),
    ...(takes("rtol") ? { rtol: setting.rtol, atol: setting.atol } : {}),
  };
}

import type { Core } from "../wasm/module.ts";
import type { Setting } from "./options.ts";
import { updatesPerEta } from "./plan.ts";

/** eta of step k of a replica, as assembly/rates.ts has it. */
export function etaAt(core: Core, { eta, schedule }: Setting, replica: number, k: number): number {
  if (schedule === null) return eta[replica]!;
  const { kind, warmup, period, number, table } = schedule;
  if (table !== null) return table[Math.min(k, table.length - 1)] ?? 0;
  return eta[replica]! * core.exports.scheduleFactor(kind, warmup, period, number, k);
}

/** Time that passes in step k. */
export function timeOf(core: Core, setting: Setting, replica: number, k: number): number {
  const dt = setting.dt?.[replica] ?? etaAt(core, setting, replica, k) / updatesPerEta(setting);
  return dt * setting.substeps;
}

/** What moves charges in step k: sigma^2, gamma, and the factor of gbar^T A gbar that finite updates add. */
export function strengthAt(
  core: Core,
  setting: Setting,
  replica: number,
  k: number,
  N: number,
): { sigma2: number; gamma: number; discrete: number; time: number } {
  const { scheme, sampling, S, noiseOf, momentum, gammas } = setting;
  const eta = etaAt(core, setting, replica, k);
  const time = timeOf(core, setting, replica, k);
  const dt = time / setting.substeps;
  const gamma = gammas[0]?.[replica] ?? 0;
  if (scheme.charges === "kept") return { sigma2: 0, gamma, discrete: 0, time };
  if (scheme.visits === "all" && scheme.takes.includes("sigma2")) {
    const sigma2 = setting.sigma2?.[replica] ?? eta / (2 * (noiseOf?.effectiveS ?? 1));
    // the modified equation has the drift of SGD's finite steps beside its own
    const bend = scheme.bends === undefined ? 0 : eta / 2;
    return { sigma2, gamma, discrete: dt / 2 + bend, time };
  }
  const beta = momentum?.[replica] ?? 0;
  const slow = eta / (1 - beta);
  // with momentum it holds for a gradient that changes slowly, which that of batches does not
  const isSlow = beta === 0 || scheme.visits === "all";
  const discrete = isSlow ? (0.5 * (beta === 0 ? dt : slow) * (1 + beta)) / (1 - beta) : 0;
  const distinct = sampling === "without" || sampling === "epochs";
  const batch = !distinct ? S : S === N ? Infinity : (S * (N - 1)) / (N - S);
  const sigma2 = scheme.visits === "all" ? 0 : slow / (2 * batch);
  return { sigma2, gamma: gamma * (1 - beta), discrete, time: time / (1 - beta) };
}

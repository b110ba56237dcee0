/** How strong the noise of an optimiser is, and what it does to a charge in discrete time. */
import { checkInteger, checkNumber, checkWord } from "../../errors.ts";
import { batch, finite, momentum, nonNegative, optional, positive, readFields } from "./fields.ts";

/**
 * S_eff with Cov(mean of a batch) = Sigma / S_eff: S with replacement, S (N - 1) / (N - S) without (also the batches of a
 * shuffled epoch, for the drift of a charge). Infinity where a batch is all of the data, which leaves no noise.
 *
 * @source theory 1
 * @example predictions.effectiveBatch(10, 100, "without"); // 11
 */
export function effectiveBatch(S: number, N = Infinity, sampling: "iid" | "without" = "iid"): number {
  const where = "effectiveBatch";
  checkInteger(where, "S", S, 1);
  checkWord(where, "sampling", sampling, ["iid", "without"]);
  if (N !== Infinity) checkInteger(where, "N", N, 1);
  if (sampling === "iid" || N === Infinity) return S;
  checkInteger(where, "S", S, 1, N, "N");
  return S === N ? Infinity : (S * (N - 1)) / (N - S);
}

/**
 * sigma^2 = eta / (2 S_eff).
 *
 * @source theory 1
 * @example predictions.noiseStrength(0.01, 4); // 0.00125
 */
export function noiseStrength(eta: number, effectiveBatch: number): number {
  const where = "noiseStrength";
  return checkNumber(where, "eta", eta, 0) / (2 * batch(where, "S_eff", effectiveBatch));
}

/**
 * eta~ = eta / (1 - beta) of heavy-ball momentum (v' = beta v + g, theta' = theta - eta v'): predictions hold with it in
 * place of eta, at time k eta~. Fixed points without decay stay where they are.
 *
 * @source theory 13.4
 * @example predictions.effectiveEta(0.01, 0.75); // 0.04
 */
export function effectiveEta(eta: number, beta: number): number {
  const where = "effectiveEta";
  return nonNegative(where, "eta", eta) / (1 - momentum(where, "beta", beta));
}

/**
 * Mean change of a charge per unit of the time k eta~, without decay:
 *
 *   dC/dt = eta~ / (2 S_eff) Tr[Sigma A] + (eta~ / 2) (1 + beta) / (1 - beta) gbar^T A gbar
 *
 * Exact for beta = 0 (one step of SGD); otherwise that of the slow motion, to first order in eta.
 *
 * @param of.noise Tr[Sigma A]; of.mean gbar^T A gbar
 * @throws NoetherflowError "range" or "name" naming the field
 * @source theory 2.3, 13.4
 * @example predictions.discreteFlow({ eta: 0.01, effectiveBatch: 4, noise: 2, mean: 1 }); // 0.0075
 */
export function discreteFlow(of: {
  readonly eta: number;
  readonly effectiveBatch: number;
  readonly noise: number;
  readonly mean: number;
  readonly beta?: number;
}): number {
  const given = readFields("discreteFlow", of, {
    eta: positive,
    effectiveBatch: batch,
    noise: finite,
    mean: finite,
    beta: optional(momentum, 0),
  });
  const eta = effectiveEta(given.eta, given.beta);
  const { noise, mean, beta } = given;
  return noiseStrength(eta, given.effectiveBatch) * noise + 0.5 * eta * ((1 + beta) / (1 - beta)) * mean;
}

import { checkInteger, checkKnown, checkNumber, checkObject, fail, show } from "../errors.ts";
import { effectiveBatch, effectiveEta, noiseStrength } from "./predictions/noise.ts";

/** How strong the noise of an optimiser is, for predictions: eta and the batch size, or sigma2 itself. */
export interface StrengthOptions {
  /** Learning rate; with `batchSize` it gives sigma^2 = eta / (2 S). */
  readonly eta?: number;
  /** S. */
  readonly batchSize?: number;
  /** sigma^2 = eta / (2 S), instead of the two above. */
  readonly sigma2?: number;
  /** gamma of the decay gamma |theta|^2 (half of PyTorch's weight_decay). */
  readonly weightDecay?: number;
  /** "without" replacement: S becomes S (N - 1) / (N - S). */
  readonly sampling?: "iid" | "without" | "online";
  /** beta of heavy-ball momentum: eta becomes eta / (1 - beta), and time runs in steps of that. */
  readonly momentum?: number;
}

/** What predictions need of it. */
export interface Strength {
  readonly sigma2: number;
  readonly gamma: number;
  /** Factor of gbar^T A gbar in the mean change of the charge per unit time, beside the noise; 0 when only sigma2 is known. */
  readonly discrete: number;
}

export const STRENGTH_OPTIONS = ["eta", "batchSize", "sigma2", "weightDecay", "sampling", "momentum"];

/**
 * Reads { eta, batchSize } or { sigma2 }, and what modifies them.
 *
 *   sigma^2 = eta~ / (2 S_eff),  eta~ = eta / (1 - beta),  S_eff = S or S (N - 1) / (N - S)
 *
 * With momentum the time of predictions is k eta~, in which decoupled decay acts with gamma (1 - beta), and gbar^T A gbar has the factor (eta~ / 2) (1 + beta) / (1 - beta).
 *
 * @param more names of further options the caller reads
 * @throws NoetherflowError "range", "name"
 */
export function readStrength(
  where: string,
  given: StrengthOptions,
  N: number,
  more: readonly string[] = [],
): Strength {
  checkKnown(where, checkObject(where, "{ eta, batchSize } or { sigma2 }", given), [
    ...STRENGTH_OPTIONS,
    ...more,
  ]);
  const gamma = checkNumber(where, "weightDecay", given.weightDecay ?? 0, 0);
  if (given.sigma2 !== undefined) {
    for (const name of ["eta", "batchSize", "sampling", "momentum"] as const)
      if (given[name] !== undefined)
        fail(
          "range",
          where,
          "sigma2 says it all",
          `${name} beside it`,
          "Give { eta, batchSize } or { sigma2 }.",
        );
    return { sigma2: checkNumber(where, "sigma2", given.sigma2, 0), gamma, discrete: 0 };
  }
  if (given.eta === undefined || given.batchSize === undefined)
    return fail("range", where, "expected { eta, batchSize } or { sigma2 }", show(given));
  const eta = checkNumber(where, "eta", given.eta, 0);
  const S = checkInteger(where, "batchSize", given.batchSize, 1);
  const beta = checkNumber(where, "momentum", given.momentum ?? 0, 0);
  if (beta >= 1) fail("range", where, "momentum is below 1", `${beta}`);
  const { sampling = "iid" } = given;
  if (!["iid", "without", "online"].includes(sampling))
    fail("range", where, 'sampling is "iid", "without" or "online"', show(sampling));
  if (sampling === "without" && !(S <= N && N < Infinity))
    fail("range", where, `without replacement a batch has at most N = ${N} samples of a finite set`, `${S}`);
  const effective = effectiveEta(eta, beta);
  const batch = effectiveBatch(S, N, sampling === "without" ? "without" : "iid");
  return {
    sigma2: noiseStrength(effective, batch),
    // decay is decoupled: momentum speeds up the noise and not the decay
    gamma: gamma * (1 - beta),
    discrete: (0.5 * effective * (1 + beta)) / (1 - beta),
  };
}

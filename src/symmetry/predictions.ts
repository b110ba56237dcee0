/**
 * Closed-form predictions, as functions of plain numbers. Conventions are those of the glossary: C = theta^T A theta / 2,
 * sigma2 = eta / (2 S_eff), time t = k eta, decay gamma |theta|^2 (PyTorch's weight_decay is 2 gamma), Sigma of single
 * samples. "theory" is theory.md with its section. Every field is checked: a misspelt one is refused by name.
 */
import { brokenFlow, largeBreakingShift, minimumShift, smallBreakingShift } from "./predictions/breaking.ts";
import { autoencoderTrace, initialTrace, initVariances, traceRatio } from "./predictions/initialisation.ts";
import { discreteFlow, effectiveBatch, effectiveEta, noiseStrength } from "./predictions/noise.ts";
import { productFactor, productRate, rankOneLaw, rankOneLogDensity } from "./predictions/rank-one.ts";
import { angularUpdate, normEquilibrium, radiusAt, unitPower } from "./predictions/scale-invariant.ts";
import { balance, isotropicRate, timeScales, warmUp } from "./predictions/scales.ts";
import { stationaryCovariance } from "./predictions/stationary.ts";

export type { MinimumShift } from "./predictions/breaking.ts";
export type { InitVariances, NamedInit, TraceRatio } from "./predictions/initialisation.ts";
export type { GammaLaw, RankOneData, RankOneLaw } from "./predictions/rank-one.ts";
export type { NormEquilibrium } from "./predictions/scale-invariant.ts";
export type { Balance, TimeScales, WarmUp } from "./predictions/scales.ts";

/**
 * Closed-form predictions, as functions of plain numbers: C = theta^T A theta / 2, sigma2 = eta / (2 S_eff), time t = k eta, decay
 * gamma |theta|^2 (PyTorch's weight_decay is 2 gamma), Sigma of single samples. Every field is checked: a misspelt one is refused by name.
 *
 * @namespace
 */
export const predictions = {
  effectiveBatch,
  noiseStrength,
  effectiveEta,
  discreteFlow,
  timeScales,
  balance,
  isotropicRate,
  warmUp,
  initVariances,
  initialTrace,
  autoencoderTrace,
  traceRatio,
  unitPower,
  radiusAt,
  normEquilibrium,
  angularUpdate,
  productRate,
  productFactor,
  brokenFlow,
  smallBreakingShift,
  largeBreakingShift,
  minimumShift,
  stationaryCovariance,
  rankOneLaw,
  rankOneLogDensity,
} as const;

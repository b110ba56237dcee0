import type { Run } from "../dynamics/result.ts";
import type { Engine } from "../engine.ts";
import type { RunSpec } from "../spec.ts";
import type { Estimate } from "../stats/estimate.ts";
import type { Prediction, Verdict } from "../stats/verdict.ts";
import type { SymmetrySummary } from "../symmetry/summary.ts";
import { rescaling } from "./e01-rescaling.ts";
import { scaling } from "./e02-scaling.ts";
import { networks } from "./e03-networks.ts";
import { balance } from "./e04-balance.ts";
import { sharpness } from "./e05-sharpness.ts";
import { width } from "./e05b-width.ts";
import { warmUp } from "./e06-warm-up.ts";
import { alignment } from "./e07-alignment.ts";
import { edge } from "./e08-edge.ts";
import { residual } from "./e09-residual.ts";
import { tanhRepresentation } from "./e10-tanh.ts";
import { attention } from "./e11-attention.ts";
import { layerNorm } from "./e12-layer-norm.ts";
import { selfSupervised } from "./e13-self-supervised.ts";
import { relu } from "./e14-relu.ts";
import { sameSign } from "./e15-same-sign.ts";
import { timeScales } from "./e16-time-scales.ts";
import { brokenSymmetry } from "./e17-broken-symmetry.ts";
import { stationaryLaw } from "./e18-stationary-law.ts";
import { schemes } from "./e19-schemes.ts";
import { optimisers } from "./e20-optimisers.ts";
import { equilibriumCurves } from "./e21-equilibrium-curves.ts";
import { reshuffling } from "./e22-reshuffling.ts";
import { discoveredSymmetries } from "./e23-discovered-symmetries.ts";
import { completion } from "./e24-completion.ts";
import { batchNorm } from "./e25-batch-norm.ts";
import { decay } from "./e26-decay.ts";
import { endPoint } from "./e27-end-point.ts";
import { attractive } from "./e28-attractive.ts";
import { depth } from "./e29-depth.ts";
import { generalCharges } from "./e30-general-charges.ts";
import { breaking } from "./e31-breaking.ts";
import { universality } from "./e32-losses.ts";
import { type Parameter, readSpec } from "./spec.ts";

/** A table row: one number, predicted and measured. */
export interface Row {
  /** What was varied. */
  readonly setting: string;
  /** What the number is, with its formula. */
  readonly quantity: string;
  readonly predicted: Prediction;
  readonly measured: Estimate;
  readonly verdict: Verdict;
}

/** One line of a figure, or points; `predicted` lines are drawn dashed. */
export interface Curve {
  readonly label: string;
  readonly predicted: boolean;
  readonly x: readonly number[];
  readonly y: readonly number[];
  /** Standard errors of y, drawn as bars. */
  readonly error?: readonly number[];
  /** "line" when absent. */
  readonly mark?: "line" | "dots";
}

export interface Figure {
  readonly title: string;
  readonly caption: string;
  readonly xLabel: string;
  readonly yLabel: string;
  readonly xScale: "linear" | "log";
  readonly yScale: "linear" | "log";
  readonly curves: readonly Curve[];
}

/** What an experiment measured, and the runs that made it. */
export interface Findings {
  readonly rows: readonly Row[];
  readonly figures: readonly Figure[];
  readonly runs: Readonly<Record<string, Run>>;
  /** What does each of them again to the same bits, by the same names. */
  readonly specs: Readonly<Record<string, RunSpec>>;
  /** Symmetries of its models, each at a theta of interest. */
  readonly symmetries?: readonly SymmetryTable[];
}

/** The symmetries of a model at a theta. */
export interface SymmetryTable {
  /** Which model, where, under which noise. */
  readonly title: string;
  readonly summary: SymmetrySummary;
}

/** Everything a report needs. */
export interface Result extends Findings {
  readonly id: string;
  readonly formula?: string;
  readonly title: string;
  readonly question: string;
  readonly source: string;
  readonly claim: string;
  readonly spec: Readonly<Record<string, unknown>>;
  /** What the settings in `spec` are. */
  readonly parameters: Readonly<Record<string, Parameter>>;
  readonly elapsedMs: number;
}

/** How an experiment reports progress and is stopped. */
export interface Control {
  readonly signal?: AbortSignal;
  /** Fraction done, 0 to 1, and what is being done. */
  readonly onProgress?: (fraction: number, what: string) => void;
}

/** An experiment is data plus one function. */
export interface Experiment {
  readonly id: string;
  readonly title: string;
  readonly question: string;
  /** Where the statement comes from. */
  readonly source: string;
  /** What the figure should show. */
  readonly claim: string;
  /** The prediction, in plain symbols. */
  readonly formula?: string;
  readonly parameters: Readonly<Record<string, Parameter>>;
  /** Settings of a run of a second or so, for a first look and for tests. */
  readonly quick?: Readonly<Record<string, number>>;
  /** CPU time at the defaults, roughly: for the order of many, and the remaining time. */
  readonly seconds?: number;
  /** Measures at settings that have been checked; call it through `runExperiment`. */
  measure(
    engine: Engine,
    spec: Readonly<Record<string, number>>,
    seed: string,
    control: Control,
  ): Promise<Findings>;
}

/** All experiments, by id. */
export const experiments: ReadonlyMap<string, Experiment> = new Map(
  [
    rescaling,
    scaling,
    networks,
    balance,
    sharpness,
    width,
    warmUp,
    alignment,
    edge,
    residual,
    tanhRepresentation,
    attention,
    layerNorm,
    selfSupervised,
    relu,
    sameSign,
    timeScales,
    brokenSymmetry,
    stationaryLaw,
    schemes,
    optimisers,
    equilibriumCurves,
    reshuffling,
    discoveredSymmetries,
    completion,
    batchNorm,
    decay,
    endPoint,
    attractive,
    depth,
    generalCharges,
    breaking,
    universality,
  ].map((e) => [e.id, e]),
);

/**
 * Runs an experiment: defaults with the caller's settings over them, each checked against its range.
 *
 * @throws NoetherflowError "name" or "range" before any work; the signal's reason after an abort
 */
export async function runExperiment(
  experiment: Experiment,
  engine: Engine,
  settings: Readonly<Record<string, number>>,
  seed: string,
  control: Control = {},
): Promise<Result> {
  control.signal?.throwIfAborted();
  const began = performance.now();
  const { id, title, question, source, claim } = experiment;
  const spec = readSpec(id, experiment.parameters, settings);
  const findings = await experiment.measure(engine, spec, seed, control);
  return {
    id,
    title,
    question,
    source,
    claim,
    ...(experiment.formula === undefined ? {} : { formula: experiment.formula }),
    spec: { ...spec, seed },
    parameters: experiment.parameters,
    ...findings,
    elapsedMs: performance.now() - began,
  };
}

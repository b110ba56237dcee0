/**
 * The experiments: each a question, a prediction in plain symbols, and the runs that test it.
 *
 * @module noetherflow/experiments
 */

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

export type { Prediction, Verdict } from "../stats/verdict.ts";
export type { Parameter } from "./spec.ts";

/** A table row: one number, predicted and measured. */
export interface Row {
  /** What was varied. */
  readonly setting: string;
  /** What the number is, with its formula. */
  readonly quantity: string;
  /** What theory says, with the error of its derivation. */
  readonly predicted: Prediction;
  /** What was measured, with its standard error. */
  readonly measured: Estimate;
  /** Do they agree. */
  readonly verdict: Verdict;
}

/** One line of a figure, or points; `predicted` lines are drawn dashed. */
export interface Curve {
  /** For the legend. */
  readonly label: string;
  /** A prediction, not a measurement. */
  readonly predicted: boolean;
  /** Abscissae. */
  readonly x: readonly number[];
  /** Ordinates, as many; NaN leaves a gap. */
  readonly y: readonly number[];
  /** Standard errors of y, drawn as bars. */
  readonly error?: readonly number[];
  /** "line" when absent. */
  readonly mark?: "line" | "dots";
}

/** A figure as data. */
export interface Figure {
  /** Its heading. */
  readonly title: string;
  /** What it shows, in a sentence or two. */
  readonly caption: string;
  /** With its unit. */
  readonly xLabel: string;
  /** With its unit. */
  readonly yLabel: string;
  /** Scale of the x axis. */
  readonly xScale: "linear" | "log";
  /** Scale of the y axis. */
  readonly yScale: "linear" | "log";
  /** Measured and predicted, in the order of the legend. */
  readonly curves: readonly Curve[];
}

/** What an experiment measured, and the runs that made it. */
export interface Findings {
  /** Numbers, predicted and measured. */
  readonly rows: readonly Row[];
  /** Figures as data. */
  readonly figures: readonly Figure[];
  /** The runs that made them, by name. */
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
  /** One row for each symmetry. */
  readonly summary: SymmetrySummary;
}

/** Everything a report needs. */
export interface Result extends Findings {
  /** "E04". */
  readonly id: string;
  /** The prediction, in plain symbols. */
  readonly formula?: string;
  /** In a few words. */
  readonly title: string;
  /** What was asked. */
  readonly question: string;
  /** Where the statement comes from. */
  readonly source: string;
  /** What the figure should show. */
  readonly claim: string;
  /** Settings it was measured at, with the seed. */
  readonly spec: Readonly<Record<string, unknown>>;
  /** What the settings in `spec` are. */
  readonly parameters: Readonly<Record<string, Parameter>>;
  /** Time it took. */
  readonly elapsedMs: number;
}

/** How an experiment reports progress and is stopped. */
export interface Control {
  /** An abort rejects with its reason. */
  readonly signal?: AbortSignal;
  /** Fraction done, 0 to 1, and what is being done. */
  readonly onProgress?: (fraction: number, what: string) => void;
}

/** An experiment is data plus one function. */
export interface Experiment {
  /** "E04". */
  readonly id: string;
  /** In a few words. */
  readonly title: string;
  /** What it asks. */
  readonly question: string;
  /** Where the statement comes from. */
  readonly source: string;
  /** What the figure should show. */
  readonly claim: string;
  /** The prediction, in plain symbols. */
  readonly formula?: string;
  /** Settings by name: default, range, unit. */
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
 * @example
 * const e04 = experiments.get("E04")!;
 * const result = await runExperiment(e04, engine, { ...e04.quick }, "0");
 * result.rows.every((row) => row.verdict.agrees); // true
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

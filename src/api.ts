// What the root entry and `./external` share: everything but createEngine.

export type { RealArray } from "./core/arena.ts";
export type {
  LoweringOptions,
  Progress,
  RecordOptions,
  SimulateOptions,
} from "./dynamics/options.ts";
export type { ProfileLine } from "./dynamics/profile.ts";
export type { PerReplica } from "./dynamics/replicas.ts";
export type {
  Divergence,
  Run,
  RunAverages,
  RunProbes,
  RunRecord,
  RunSeries,
  RunSettings,
  SeriesData,
} from "./dynamics/result.ts";
export type { CheckpointOptions, ProbeOptions, ProbePoint, ProbeResult } from "./dynamics/run.ts";
export type { Schedule } from "./dynamics/schedule.ts";
export type { Sampling } from "./dynamics/scheme.ts";
export type { ThetaLike } from "./dynamics/theta.ts";
export type { Engine } from "./engine.ts";
export type { ErrorParts } from "./errors.ts";
export { type ErrorCode, NoetherflowError } from "./errors.ts";
export type { BlockSpec, ConstantSpec, ExpressionsJSON } from "./graph/model.ts";
export { type Block, type Input, Model, type ModelJSON, model, parseModel } from "./graph/model.ts";
export type { Node as Expr, NoiseKind, Shape } from "./graph/node.ts";
export { type AxisOptions, type Operand, ops, type PadOptions, type SliceOptions } from "./graph/ops.ts";
export type { ExpressionJSON } from "./graph/parse.ts";
export type { NoiseSpec } from "./graph/sampler.ts";
export { parseSampler, Sampler, type SamplerJSON, sampler } from "./graph/sampler.ts";
export type { InitKind, InitOptions } from "./models/init.ts";
export {
  type Activation,
  type AttentionOptions,
  type LinearLayer,
  layers,
  type NormOptions,
  type WeightNormOptions,
} from "./models/layers.ts";
export { type Loss, losses } from "./models/losses.ts";
export { MomentMatched, momentMatched } from "./models/moment-matched.ts";
export type { Columns, Reader, Room } from "./models/reader.ts";
export {
  type AttentionModelOptions,
  type EmbeddingOptions,
  type FeedForwardOptions,
  models,
  type NormNetOptions,
  type TwoLayerOptions,
} from "./models/ready.ts";
export type { Data } from "./models/samples.ts";
export type { FreshOptions } from "./problem/base.ts";
export type {
  Curvature,
  Eigenvalue,
  EigenvalueOptions,
  HessianTraceOptions,
  SpectrumOptions,
} from "./problem/curvature.ts";
export type {
  CommonEquilibrium,
  EquilibriumCurve,
  EquilibriumOptions,
  GroupEquilibrium,
  GroupOptions,
  OrbitEquilibrium,
} from "./problem/equilibria.ts";
export type { Measured, MemoryPlan, PlanEstimate } from "./problem/memory.ts";
export type { MinibatchMeasurement, NoiseOptions } from "./problem/noise.ts";
export type { ReportOptions } from "./problem/report.ts";
export type { ReadingNoiseOptions, ReadingOptions, StreamedProblem } from "./problem/streamed.ts";
export type { MatrixFlow } from "./problem/symmetries.ts";
export type { Problem } from "./problem.ts";
export type { DataSpec, RunSpec } from "./spec.ts";
export type { Covariance, CovarianceMethod } from "./stats/covariance.ts";
export type { Dense, Matrix } from "./stats/dense.ts";
export type { Share, SpectralDensity } from "./stats/density.ts";
export { type Estimate, interval, studentT } from "./stats/estimate.ts";
export type { MinibatchNoise } from "./stats/minibatch.ts";
export type { NoiseMethod, NoiseMoments } from "./stats/noise.ts";
export type { Control, LinearOperator } from "./stats/operator.ts";
export type { Form as DiscoveryForm, Restriction as DiscoveryRestriction } from "./symmetry/ansatz.ts";
export type { ChargeCheck, ChargeFlow } from "./symmetry/charge-flow.ts";
export type { SymmetryCheck } from "./symmetry/check.ts";
export type { DiscoveredGenerator, Discovery, DiscoveryOptions } from "./symmetry/discover.ts";
export type { Direction, Equilibrium } from "./symmetry/equilibrium.ts";
export type { LinearTeacher } from "./symmetry/final-trace.ts";
export type { DirectionFlow, NoetherFlow } from "./symmetry/flow.ts";
export type { BlockAction, Matrix as SquareMatrix, Range as IndexRange } from "./symmetry/generator.ts";
export {
  type BlockValues,
  Generator,
  type GeneratorJSON,
  type Shift,
  symmetry,
} from "./symmetry/generator.ts";
export {
  type Balance,
  type GammaLaw,
  type InitVariances,
  type MinimumShift,
  type NamedInit,
  type NormEquilibrium,
  predictions,
  type RankOneData,
  type RankOneLaw,
  type TimeScales,
  type TraceRatio,
  type WarmUp,
} from "./symmetry/predictions.ts";
export type { StrengthOptions } from "./symmetry/strength.ts";
export type { LossScale, SymmetryRow, SymmetrySummary } from "./symmetry/summary.ts";
export type {
  BalancedFactors,
  Gammas,
  GroupFactors,
  GroupTrend,
  MatrixLike,
  TwoLayer,
} from "./symmetry/two-layer.ts";
export type { Dtype, Variant } from "./wasm/module.ts";

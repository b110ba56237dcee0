/** What the root entry and `./external` share: everything but createEngine. */

export type {
  LoweringOptions,
  PerReplica,
  Progress,
  RecordOptions,
  SimulateOptions,
  ThetaLike,
} from "./dynamics/options.ts";
export type { ProfileLine } from "./dynamics/profile.ts";
export type { Divergence, Run, RunAverages, RunSeries, RunSettings } from "./dynamics/result.ts";
export type { Sampling } from "./dynamics/scheme.ts";
export type { Engine } from "./engine.ts";
export { type ErrorCode, NoetherflowError } from "./errors.ts";
export { type Block, type Input, Model, type ModelJSON, model, parseModel } from "./graph/model.ts";
export type { Node as Expr } from "./graph/node.ts";
export { type AxisOptions, type Operand, ops } from "./graph/ops.ts";
export { parseSampler, Sampler, type SamplerJSON, sampler } from "./graph/sampler.ts";
export type { InitKind, InitOptions } from "./models/init.ts";
export { MomentMatched, momentMatched } from "./models/moment-matched.ts";
export type { Data } from "./models/samples.ts";
export type { FreshOptions, PlanEstimate, Problem } from "./problem.ts";
export type { Dense, Matrix } from "./stats/dense.ts";
export type { Estimate } from "./stats/estimate.ts";
export { Generator, type GeneratorJSON, symmetry } from "./symmetry/generator.ts";
export type { BalancedFactors, Gammas, MatrixLike, TwoLayer } from "./symmetry/two-layer.ts";

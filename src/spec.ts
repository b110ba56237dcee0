import type { SimulateOptions } from "./dynamics/options.ts";
import { checkKnown, checkObject, checkWord, fail, show } from "./errors.ts";
import { type ExpressionsJSON, type Model, type ModelJSON, parseModel } from "./graph/model.ts";
import type { Node } from "./graph/node.ts";
import { isRecord } from "./graph/parse.ts";
import { parseSampler, type SamplerJSON } from "./graph/sampler.ts";
import { momentMatched } from "./models/moment-matched.ts";
import type { Data, Origin } from "./models/samples.ts";
import { type Generator, generator } from "./symmetry/generator.ts";
import { type Dtype, VARIANTS, type Variant } from "./wasm/module.ts";

/** The data of a run as plain data: arrays by input name, or the law that makes them. */
export type DataSpec =
  | { readonly arrays: Readonly<Record<string, ArrayLike<number>>> }
  | { readonly sampler: SamplerJSON; readonly samples?: number; readonly dataSeed?: string | number }
  | { readonly momentMatched: SamplerJSON };

/**
 * A run as plain data and typed arrays: what another thread, a file or another host needs to do it again to the same bits.
 * Callbacks (signal, onProgress, probes, checkpoint) are not part of it.
 */
export interface RunSpec {
  /** Version of the format. */
  readonly schema: "noetherflow-spec/1";
  /** Of the engine. */
  readonly dtype: Dtype;
  /** Build of the engine's core. */
  readonly variant: Variant;
  /** The model file. */
  readonly model: ModelJSON;
  /** Arrays, or the law that makes them. */
  readonly data: DataSpec;
  /** Options of simulate; in `record`, charges are generators as data and values are expressions as data. */
  readonly options: Readonly<Record<string, unknown>>;
}

const SCHEMA = "noetherflow-spec/1";
/** Options that are functions, or belong to one execution of the run. */
const OWN = ["signal", "onProgress", "probes", "checkpoint", "resume", "profile"];

/** Describes a run; `origin` says where its data come from. */
export function describeRun(
  model: Model,
  origin: Origin,
  engine: { readonly dtype: Dtype; readonly variant: Variant },
  options: SimulateOptions<Generator, Node>,
): RunSpec {
  const kept = Object.entries(options).filter(([name, value]) => !OWN.includes(name) && value !== undefined);
  const plain: Record<string, unknown> = Object.fromEntries(kept);
  const { record } = options;
  if (record !== undefined) {
    const { charges, values, ...rest } = record;
    plain["record"] = {
      ...rest,
      ...(charges === undefined ? {} : { charges: mapValues(charges, (A) => A.toJSON()) }),
      ...(values === undefined ? {} : { values: model.writeExpressions(values) }),
    };
  }
  return {
    schema: SCHEMA,
    dtype: engine.dtype,
    variant: engine.variant,
    model: model.toJSON(),
    data:
      "sampler" in origin
        ? { ...origin, sampler: origin.sampler.toJSON() }
        : "momentMatched" in origin
          ? { momentMatched: origin.momentMatched.toJSON() }
          : { arrays: origin.arrays() },
    options: plain,
  };
}

/** A description read back: model, data and options for `engine.problem` and `simulate`. */
export function readSpec(spec: unknown): {
  readonly dtype: Dtype;
  readonly variant: Variant;
  readonly model: Model;
  readonly data: Data;
  readonly dataOptions: { samples?: number; dataSeed?: string | number };
  readonly options: SimulateOptions<Generator, Node>;
} {
  const where = "spec";
  const given = checkObject(where, "a description of a run", spec) as Partial<RunSpec>;
  checkKnown(where, given, ["schema", "dtype", "variant", "model", "data", "options"]);
  if (given.schema !== SCHEMA)
    fail("version", `${where}.schema`, `this version reads "${SCHEMA}"`, show(given.schema));
  const dtype = checkWord(where, "dtype", given.dtype, ["f64", "f32"]);
  const variant = checkWord(where, "variant", given.variant, VARIANTS);
  const model = parseModel(given.model);
  const { data, dataOptions } = readData(given.data);
  const options = { ...checkObject(`${where}.options`, "options of simulate", given.options) } as Record<
    string,
    unknown
  >;
  for (const name of OWN)
    if (options[name] !== undefined) fail("name", `${where}.options`, "options that are data", show(name));
  const record = options["record"];
  if (record !== undefined) {
    const at = `${where}.options.record`;
    const { charges, values, ...rest } = checkObject(at, "{ every, ... }", record) as Record<string, unknown>;
    options["record"] = {
      ...rest,
      ...(charges === undefined
        ? {}
        : {
            charges: mapValues(checkObject(`${at}.charges`, "generators by name", charges), (A) =>
              generator(A),
            ),
          }),
      ...(values === undefined
        ? {}
        : { values: model.readExpressions(`${at}.values`, values as ExpressionsJSON) }),
    };
  }
  return {
    dtype,
    variant,
    model,
    data,
    dataOptions,
    options: options as unknown as SimulateOptions<Generator, Node>,
  };
}

function readData(data: unknown): {
  data: Data;
  dataOptions: { samples?: number; dataSeed?: string | number };
} {
  const where = "spec.data";
  if (!isRecord(data))
    return fail("shape", where, "{ arrays }, { sampler } or { momentMatched }", show(data));
  if (isRecord(data["arrays"])) return { data: data["arrays"], dataOptions: {} };
  if (data["momentMatched"] !== undefined)
    return { data: momentMatched(parseSampler(data["momentMatched"])), dataOptions: {} };
  if (data["sampler"] === undefined)
    return fail("shape", where, "{ arrays }, { sampler } or { momentMatched }", show(data));
  const { sampler, ...dataOptions } = data as { sampler: unknown; samples?: number; dataSeed?: string };
  return { data: parseSampler(sampler), dataOptions };
}

function mapValues<T, U>(record: Readonly<Record<string, T>>, f: (value: T) => U): Record<string, U> {
  return Object.fromEntries(Object.entries(record).map(([name, value]) => [name, f(value)]));
}

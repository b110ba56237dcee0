/** Options that several commands share, and how their values are read. */
import { type Command, InvalidArgumentError, Option } from "commander";
import type { ThetaLike } from "../dynamics/theta.ts";
import type { Engine } from "../engine.ts";
import { fail, nearest, show } from "../errors.ts";
import type { InitKind } from "../models/init.ts";
import type { Problem } from "../problem.ts";
import { type Generator, symmetry } from "../symmetry/generator.ts";
import type { StrengthOptions } from "../symmetry/strength.ts";
import { loadData, loadGenerators, loadModel, loadTheta } from "./files.ts";

/** A number as people write it: 1e-3, 0.01. */
export function number(text: string): number {
  const value = text.trim() === "" ? Number.NaN : Number(text);
  if (!Number.isFinite(value)) throw new InvalidArgumentError(`It must be a number, got "${text}".`);
  return value;
}

/** Whole numbers, at least 1. */
export function count(text: string): number {
  const value = number(text);
  if (!Number.isInteger(value) || value < 1)
    throw new InvalidArgumentError(`It must be a whole number of at least 1, got "${text}".`);
  return value;
}

/** key=value pairs, repeatable. */
export function pairs(text: string, before: Record<string, number> = {}): Record<string, number> {
  const at = text.indexOf("=");
  if (at < 1) throw new InvalidArgumentError(`It must be key=value, got "${text}".`);
  return { ...before, [text.slice(0, at).trim()]: number(text.slice(at + 1)) };
}

/** A list that a repeated option adds to. */
export const each = (text: string, before: readonly string[] = []): string[] => [...before, text];

export interface ProblemFlags {
  readonly data?: string;
  readonly samples?: number;
  readonly dataSeed?: string;
  readonly theta?: string;
  readonly init: InitKind;
  readonly std?: number;
  readonly seed: string;
}

const INITS = ["glorot", "he", "lecun", "paperXavier", "paperKaiming", "normal"];

/** Which data, and which parameters. */
export function withProblem(command: Command): Command {
  return command
    .option("--data <file>", "data: .csv, .parquet, .npz, .npy, .json (arrays, or a sampler file)")
    .option("--samples <n>", "of a sampler: a finite set of so many samples", count)
    .option("--data-seed <text>", "of a sampler: which set (default: 0)")
    .option("--theta <file>", "parameters: .npz, .safetensors, .npy, .json")
    .addOption(new Option("--init <kind>", "parameters without --theta").choices(INITS).default("glorot"))
    .option("--std <number>", "standard deviation of --init normal, in units of theta", number)
    .option("--seed <text>", "seed of everything random", "0");
}

export interface StrengthFlags {
  readonly eta: number;
  readonly batchSize: number;
  readonly sigma2?: number;
  readonly weightDecay: number;
  readonly sampling: "iid" | "without";
}

/** How strong the noise is. */
export function withStrength(command: Command): Command {
  return command
    .option("--eta <number>", "learning rate, in theta^2 / loss", number, 0.01)
    .option("--batch-size <n>", "S, samples of a batch", count, 1)
    .option("--sigma2 <number>", "sigma^2 = eta / (2 S) itself, instead of the two above", number)
    .option("--weight-decay <gamma>", "gamma of gamma |theta|^2, half of PyTorch's weight_decay", number, 0)
    .addOption(
      new Option("--sampling <how>", "batches with or without replacement")
        .choices(["iid", "without"])
        .default("iid"),
    );
}

export function strengthOf({
  eta,
  batchSize,
  sigma2,
  weightDecay,
  sampling,
}: StrengthFlags): StrengthOptions {
  return sigma2 === undefined ? { eta, batchSize, weightDecay, sampling } : { sigma2, weightDecay };
}

/** A model with its data and a theta, as a command line names them. */
export async function openProblem(
  engine: Engine,
  file: string,
  flags: ProblemFlags,
  needsFinite = false,
): Promise<{ problem: Problem; theta: ThetaLike; generators: Readonly<Record<string, Generator>> }> {
  const loaded = await loadModel(file);
  const data = flags.data === undefined ? loaded.data : await loadData(flags.data, loaded.model);
  if (data === undefined && loaded.model.inputs.length > 0)
    fail(
      "name",
      file,
      `data for the inputs ${loaded.model.inputs.map((i) => `${i.name} [${i.shape.join(", ")}]`).join(", ")}`,
      "none",
      "Pass --data <file>.",
    );
  const { samples, dataSeed } = flags;
  const problem = engine.problem(loaded.model, data ?? {}, {
    ...(samples === undefined ? {} : { samples }),
    ...(dataSeed === undefined ? {} : { dataSeed }),
  });
  if (needsFinite && problem.N === Infinity)
    fail("unsupported", file, "a finite set of samples", "a sampler", "Say how many: --samples 1000.");
  const { init, std, seed } = flags;
  const theta =
    flags.theta !== undefined
      ? await loadTheta(flags.theta)
      : (loaded.theta ?? problem.init(init, { seed, ...(std === undefined ? {} : { std }) }));
  return { problem, theta, generators: loaded.generators };
}

const KINDS = ["rescaling:U,W", "scaling:U,W,...", "neuron:U,W,3"];

/**
 * Generators by name: "rescaling:U,W", "scaling:U,W", "neuron:U,W,3", the name of one that the model file brings, or a JSON file.
 */
export async function readSymmetries(
  texts: readonly string[],
  known: Readonly<Record<string, Generator>>,
): Promise<Record<string, Generator>> {
  const out: Record<string, Generator> = {};
  for (const text of texts) {
    const [kind, rest] = text.split(":", 2) as [string, string?];
    if (rest === undefined) {
      if (known[text] !== undefined) out[text] = known[text];
      else if (text.endsWith(".json")) Object.assign(out, await loadGenerators(text));
      else
        fail(
          "name",
          "--symmetry",
          `one of ${[...KINDS, ...Object.keys(known), "a .json file"].join(", ")}`,
          show(text),
          nearest(text, Object.keys(known)),
        );
      continue;
    }
    const names = rest.split(",").map((name) => name.trim());
    if (kind === "rescaling" && names.length === 2) out[text] = symmetry.rescaling(names[0]!, names[1]!);
    else if (kind === "scaling") out[text] = symmetry.scaling(...names);
    else if (kind === "neuron" && names.length === 3)
      out[text] = symmetry.neuronRescaling(names[0]!, names[1]!, Number(names[2]));
    else fail("name", "--symmetry", `one of ${KINDS.join(", ")}`, show(text));
  }
  return out;
}

/** Options that several commands share, and how their values are read. */
import { type Command, InvalidArgumentError, Option } from "commander";
import { csvParseRows } from "d3-dsv";
import type { ThetaLike } from "../dynamics/theta.ts";
import type { Engine } from "../engine.ts";
import { fail, nearest, show } from "../errors.ts";
import type { Model } from "../graph/model.ts";
import type { InitKind } from "../models/init.ts";
import type { Problem } from "../problem.ts";
import { type Generator, symmetry } from "../symmetry/generator.ts";
import type { StrengthOptions } from "../symmetry/strength.ts";
import { inFile, loadData, loadGenerators, loadModel, loadTheta } from "./files.ts";

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

/** Whole numbers of at least 1, up to a most. */
export const countTo =
  (most: number) =>
  (text: string): number => {
    const value = count(text);
    if (value > most) throw new InvalidArgumentError(`It must be at most ${most}, got "${text}".`);
    return value;
  };

/** Whole numbers from 0. */
export function index(text: string): number {
  const value = number(text);
  if (!Number.isInteger(value) || value < 0)
    throw new InvalidArgumentError(`It must be a whole number of at least 0, got "${text}".`);
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

/** Not negative. */
export function atLeastZero(text: string): number {
  const value = number(text);
  if (value < 0) throw new InvalidArgumentError(`It must be at least 0, got "${text}".`);
  return value;
}

/** Columns of a table for an input: "x=age,bmi", repeatable; names with commas in quotes, as in a CSV. */
export function columns(
  text: string,
  before: Readonly<Record<string, readonly string[]>> = {},
): Record<string, readonly string[]> {
  const at = text.indexOf("=");
  const names = (csvParseRows(text.slice(at + 1))[0] ?? [""]).map((name) => name.trim());
  if (at < 1 || names.includes(""))
    throw new InvalidArgumentError(`It must be input=column,column,..., got "${text}".`);
  return { ...before, [text.slice(0, at).trim()]: names };
}

export interface ProblemFlags {
  readonly data?: string;
  readonly columns?: Readonly<Record<string, readonly string[]>>;
  readonly samples?: number;
  readonly dataSeed?: string;
  readonly theta?: string;
  readonly replica?: number;
  readonly init: InitKind;
  readonly std?: number;
  readonly seed: string;
}

export const MODEL_ARGUMENT =
  "model file: .json (plain data), or .js, .mjs, .ts (executed: trusted files only)";
const INITS = ["glorot", "he", "lecun", "paperXavier", "paperKaiming", "normal"];

/** Which data, and which parameters. */
export function withProblem(command: Command): Command {
  return command
    .option(
      "--data <file>",
      "data: .csv, .parquet, .npz, .npy, .json (arrays, or a sampler file) (default: what the model file exports)",
    )
    .option(
      "--columns <input=names>",
      "of .csv and .parquet: columns of an input, x=age,bmi or x='\"a, b\",c'; repeatable (default: x0, x1, ... or x[0], x[1], ...)",
      columns,
    )
    .option("--samples <n>", "of a sampler: a finite set of n samples (default: fresh samples)", count)
    .option("--data-seed <text>", "of a sampler with --samples: which set (default: 0)")
    .option(
      "--theta <file>",
      "parameters: .npz, .safetensors, .npy, .json, or the folder of a run, its end (default: from the model file, or --init)",
    )
    .option("--replica <n>", "of --theta <folder>: which replica, from 0 (default: 0)", index)
    .addOption(
      new Option("--init <kind>", "parameters without --theta; all but normal set vectors and numbers to 0")
        .choices(INITS)
        .default("glorot")
        .conflicts("theta"),
    )
    .option(
      "--std <number>",
      "of --init normal: standard deviation, in units of theta (default: 1)",
      atLeastZero,
    )
    .option("--seed <text>", "seed of everything random", "0");
}

export interface StrengthFlags {
  readonly eta: number;
  readonly batchSize: number;
  readonly sigma2?: number;
  readonly weightDecay: number;
  readonly sampling: "iid" | "without";
}

export const ETA = "learning rate, in theta^2 / loss";
export const WEIGHT_DECAY = "gamma of gamma |theta|^2, half of PyTorch's weight_decay, in loss / theta^2";

/** How strong the noise is. */
export function withStrength(command: Command): Command {
  return command
    .option("--eta <number>", ETA, atLeastZero, 0.01)
    .option("--batch-size <n>", "S, samples of a batch", count, 1)
    .addOption(
      new Option(
        "--sigma2 <number>",
        "sigma^2 itself, in theta^2 / loss, instead of the two above (default: eta / (2 S))",
      )
        .argParser(atLeastZero)
        .conflicts(["eta", "batchSize", "sampling"]),
    )
    .option("--weight-decay <gamma>", WEIGHT_DECAY, atLeastZero, 0)
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
export interface Opened {
  readonly problem: Problem;
  readonly theta: ThetaLike;
  /** Those that the model file brings. */
  readonly generators: Readonly<Record<string, Generator>>;
}

/** @param library what a model file means by "noetherflow" where that is not installed beside it */
export async function openProblem(
  engine: Engine,
  file: string,
  flags: ProblemFlags,
  { library, needsFinite = false }: { library: URL; needsFinite?: boolean },
): Promise<Opened> {
  const loaded = await loadModel(file, library);
  const data =
    flags.data === undefined ? loaded.data : await loadData(flags.data, loaded.model, flags.columns);
  if (data === undefined && loaded.model.inputs.length > 0)
    fail(
      "name",
      file,
      `data for the inputs ${loaded.model.inputs.map((i) => `${i.name} [${i.shape.join(", ")}]`).join(", ")}`,
      "none",
      "Pass --data <file>.",
    );
  const { samples, dataSeed } = flags;
  const problem = inFile(flags.data ?? file, () =>
    engine.problem(loaded.model, data ?? {}, {
      ...(samples === undefined ? {} : { samples }),
      ...(dataSeed === undefined ? {} : { dataSeed }),
    }),
  );
  if (needsFinite && problem.N === Infinity)
    fail("unsupported", file, "a finite set of samples", "a sampler", "Say how many: --samples 1000.");
  const { init, seed } = flags;
  if (flags.std !== undefined && init !== "normal")
    fail("unsupported", "--std", "--init normal", `--init ${init}`);
  const given =
    flags.theta !== undefined ? await loadTheta(flags.theta, loaded.model, flags.replica) : loaded.theta;
  if (flags.replica !== undefined && flags.theta === undefined)
    fail("unsupported", "--replica", "--theta <folder>, a run with replicas", "no --theta");
  const theta =
    given === undefined
      ? problem.init(init, { seed, ...(init === "normal" ? { std: flags.std ?? 1 } : {}) })
      : inFile(flags.theta ?? file, () => problem.theta(given));
  const loss = problem.N === Infinity ? 0 : (problem.loss(theta) as number);
  if (!Number.isFinite(loss))
    fail(
      "nonfinite",
      flags.theta ?? file,
      "parameters with a finite loss",
      `a loss of ${loss}`,
      given === undefined && init !== "normal" && loaded.model.blocks.some((b) => b.shape.length < 2)
        ? `--init ${init} sets vectors and numbers to 0: pass --theta, or --init normal --std 0.5.`
        : "Look at the parameters and at the data.",
    );
  return { problem, theta, generators: loaded.generators };
}

/** A way to name a generator on a command line: its arguments, and the generator of them; null where they do not fit. */
interface Kind {
  readonly usage: string;
  read(names: readonly string[], model: Model): Generator | null;
}

const isIndex = (text: string | undefined): boolean => text !== undefined && /^\d{1,6}$/.test(text);

/** B = E_ij + E_ji of the size of the inner dimension, the columns of the first block. */
function pairOf(model: Model, block: string, i: string, j: string): number[][] {
  const [, h = 1] = model.block(block, "--symmetry").shape;
  const [a, b] = [Number(i), Number(j)];
  if (a >= h || b >= h)
    fail("range", "--symmetry", `i and j below ${h}, the columns of ${block}`, `${i}, ${j}`);
  const isIn = (r: number, c: number) => (r === a && c === b) || (r === b && c === a);
  return Array.from({ length: h }, (_, r) => Array.from({ length: h }, (__, c) => (isIn(r, c) ? 1 : 0)));
}

/** Of two blocks and two indices. */
const ofPair =
  (make: (U: string, W: string, B: number[][]) => Generator): Kind["read"] =>
  ([U, W, i, j, ...rest], model) =>
    isIndex(i) && isIndex(j) && rest.length === 0 ? make(U!, W!, pairOf(model, U!, i!, j!)) : null;

const KINDS: ReadonlyMap<string, Kind> = new Map<string, Kind>([
  [
    "rescaling",
    {
      usage: "rescaling:U,W",
      read: ([U, W, ...rest]) => (W === undefined || rest.length > 0 ? null : symmetry.rescaling(U!, W)),
    },
  ],
  ["scaling", { usage: "scaling:U,W,...", read: (names) => symmetry.scaling(...names) }],
  [
    "neuron",
    {
      usage: "neuron:U,W,j",
      read: ([U, W, j, ...rest]) =>
        isIndex(j) && rest.length === 0 ? symmetry.neuronRescaling(U!, W!, Number(j)) : null,
    },
  ],
  ["rotation", { usage: "rotation:U,W,i,j", read: ofPair(symmetry.doubleRotation) }],
  ["keyquery", { usage: "keyquery:Wq,Wk,i,j", read: ofPair(symmetry.keyQuery) }],
]);
const USAGES = [...KINDS.values()].map((kind) => kind.usage);

export const SYMMETRIES = `${USAGES.join(", ")}, a name that symmetries prints or the model file exports, or a .json file; repeatable`;

/** Every symmetry that a search finds, by its name. */
export async function searched(
  problem: Problem,
  options: NonNullable<Parameters<Problem["discoverSymmetries"]>[0]>,
): Promise<Record<string, Generator>> {
  const { generators } = await problem.discoverSymmetries(options);
  return Object.fromEntries(generators.map((A) => [A.name, A]));
}

/** Generators as a command line names them; a name of no kind is looked for among those that a search finds. */
export async function readSymmetries(
  texts: readonly string[],
  { problem, generators: known }: Pick<Opened, "problem" | "generators">,
  search: { readonly seed: string; readonly signal: AbortSignal },
): Promise<Record<string, Generator>> {
  const out: Record<string, Generator> = {};
  let found: Readonly<Record<string, Generator>> | undefined;
  for (const text of texts) {
    const at = text.indexOf(":");
    const [kind, rest] = at < 0 ? [text, ""] : [text.slice(0, at), text.slice(at + 1)];
    const names = rest.split(",").map((name) => name.trim());
    if (at < 0 && text.endsWith(".json")) {
      for (const [name, A] of Object.entries(await loadGenerators(text)))
        out[Object.hasOwn(out, name) ? `${name} of ${text}` : name] = A;
      continue;
    }
    let generator = Object.hasOwn(known, text)
      ? known[text]
      : inFile(`--symmetry ${text}`, () => KINDS.get(kind)?.read(names, problem.model));
    // what symmetries prints has words and a number in it
    if (!generator && at < 0 && /\s/.test(text)) {
      found ??= await searched(problem, search);
      if (Object.hasOwn(found, text)) generator = found[text];
    }
    const all = [...Object.keys(known), ...Object.keys(found ?? {})];
    out[text] =
      generator ??
      fail(
        "name",
        "--symmetry",
        `one of ${[...USAGES, ...all, "a .json file"].join(", ")}`,
        show(text),
        nearest(kind, [...all, ...KINDS.keys()]),
      );
  }
  return out;
}

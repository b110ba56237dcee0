import type { RealArray } from "../core/arena.ts";
import { keyOf, PURPOSE } from "../core/key.ts";
import { checkKnown, checkNumber, checkWord, fail, show } from "../errors.ts";
import type { Block, Model } from "../graph/model.ts";
import { MAX_ENTRIES } from "../graph/node.ts";
import type { Host } from "./evaluate.ts";

/** Variances of the entries of a matrix with `out` rows and `in` columns. */
const KINDS = {
  /** Glorot and Bengio: 2 / (in + out). */
  glorot: (fanIn: number, fanOut: number) => 2 / (fanIn + fanOut),
  xavier: (fanIn: number, fanOut: number) => 2 / (fanIn + fanOut),
  /** He et al., ReLU gain: 2 / in. */
  he: (fanIn: number) => 2 / fanIn,
  kaiming: (fanIn: number) => 2 / fanIn,
  /** 1 / in. */
  lecun: (fanIn: number) => 1 / fanIn,
  /** 1 / (in + out): the variance that the words of arXiv:2402.07193 imply for "Xavier". */
  paperXavier: (fanIn: number, fanOut: number) => 1 / (fanIn + fanOut),
  /** 1 / in: the variance that its words imply for "Kaiming". */
  paperKaiming: (fanIn: number) => 1 / fanIn,
  /** The caller's standard deviation. */
  normal: () => Number.NaN,
} as const;

/**
 * Law of the entries of a matrix with `in` columns and `out` rows: independent normals of variance 2 / (in + out) ("glorot", "xavier"), 2 / in ("he", "kaiming"),
 * 1 / in ("lecun", "paperKaiming"), 1 / (in + out) ("paperXavier"), or of a given standard deviation ("normal").
 */
export type InitKind = keyof typeof KINDS;

/**
 * Variance of the entries of a matrix under a named kind.
 *
 * @throws NoetherflowError "name" for a kind that has no variance of its own
 */
export function initVariance(where: string, kind: unknown, fanIn: number, fanOut: number): number {
  const { normal: _, ...named } = KINDS;
  return named[checkWord(where, "init", kind, Object.keys(named) as (keyof typeof named)[])](fanIn, fanOut);
}

/** The draw of an initialisation. */
export interface InitOptions {
  /** Text or number. The same seed gives the same bits. */
  readonly seed: string | number;
  /** Standard deviation for "normal": one number, or one per block. */
  readonly std?: number | Readonly<Record<string, number>>;
  /** How many thetas, one after the other; 1 when absent. */
  readonly replicas?: number;
  /** Number of the first theta, 0 when absent: theta 7 alone equals theta 7 among many. */
  readonly firstReplica?: number;
}

/**
 * Independent normal entries with the variance of the kind, drawn in Wasm by (seed, replica, block,
 * entry). Blocks of rank 0 and 1 count as biases and are 0, except under "normal".
 *
 * @returns replicas * P values, the caller's own
 */
export function init(host: Host, model: Model, kind: InitKind, options: InitOptions): RealArray {
  checkWord("init", "kind", kind, Object.keys(KINDS) as InitKind[]);
  if (typeof options !== "object" || options === null)
    fail("shape", "init", "expected { seed, std?, replicas?, firstReplica? }", show(options));
  checkKnown("init", options, ["seed", "std", "replicas", "firstReplica"]);
  const replicas = options.replicas ?? 1;
  const firstReplica = options.firstReplica ?? 0;
  for (const [name, n] of Object.entries({ replicas, firstReplica })) {
    if (!Number.isInteger(n) || n < (name === "replicas" ? 1 : 0))
      fail("range", "init", `${name} must be an integer of at least ${name === "replicas" ? 1 : 0}`, show(n));
  }
  if (kind !== "normal" && options.std !== undefined)
    fail("unsupported", "init", 'std goes with kind "normal"', `kind "${kind}"`);
  if (kind !== "normal" && model.blocks.every((b) => b.shape.length < 2)) {
    fail(
      "unsupported",
      "init",
      `"${kind}" sets the variance of matrices by their fans`,
      `a model whose blocks are ${model.blocks.map((b) => `${b.name} [${b.shape.join(", ")}]`).join(", ")}`,
      'Use init("normal", { std, seed }).',
    );
  }
  const key = keyOf("init", options.seed);
  const sds = model.blocks.map((block) => standardDeviation(model, kind, block, options.std));
  const { arena, core } = host;
  if (replicas * model.P > MAX_ENTRIES) {
    fail(
      "memory",
      "init",
      `at most ${MAX_ENTRIES} numbers are made at a time`,
      `${replicas} replicas of ${model.P} parameters`,
      "Ask for fewer, with firstReplica.",
    );
  }
  const out = arena.array(replicas * model.P);
  const largest = Math.max(...model.blocks.map((b) => b.size));
  const { region } = arena.reserve("init", () => ({ bytes: (largest + 8) * core.real.bytes }));
  for (let r = 0; r < replicas; r++) {
    for (const [b, block] of model.blocks.entries()) {
      const sd = sds[b]!;
      if (sd === 0) continue;
      const { key0, key1 } = key;
      core.exports.normalLanes(
        region.base,
        block.size,
        1,
        1,
        0,
        b,
        firstReplica + r,
        PURPOSE.init,
        0,
        0,
        key0,
        key1,
      );
      const drawn = arena.reals(region.base, block.size);
      const at = r * model.P + block.offset;
      if (sd === 1) out.set(drawn, at);
      else for (let e = 0; e < block.size; e++) out[at + e] = sd * drawn[e]!;
    }
  }
  arena.release(region);
  return out;
}

function standardDeviation(model: Model, kind: InitKind, block: Block, std: InitOptions["std"]): number {
  if (kind === "normal") {
    if (typeof std === "number") return checkNumber("init", "std", std, 0);
    if (typeof std !== "object" || std === null)
      return fail("range", "init", 'kind "normal" needs std, a number or one per block', show(std));
    for (const name of Object.keys(std)) model.block(name, "init: std");
    if (!Object.hasOwn(std, block.name))
      fail("name", "init", "std needs an entry for every block", `none for ${block.name}`);
    return checkNumber("init", `std.${block.name}`, std[block.name], 0);
  }
  if (block.shape.length < 2) return 0;
  return Math.sqrt(initVariance("init", kind, block.shape[1]!, block.shape[0]!));
}

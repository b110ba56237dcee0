import { table } from "./ops.ts";

/**
 * The instruction set: kernel name -> its parameters, in the order of its signature in assembly/.
 * An instruction is 16 words of 32 bits: opcode, parameters, and `imm` (an f64) in words 14 and 15.
 * `tools/gen-dispatch.ts` writes assembly/dispatch.ts and assembly/layout.ts from this file.
 */
const structural = {
  matmulNN: ["dst", "a", "b", "m", "n", "k", "ldd", "lda", "ldb", "accumulate"],
  matmulTN: ["dst", "a", "b", "m", "n", "k", "ldd", "lda", "ldb", "accumulate"],
  matmulLaned: ["dst", "a", "b", "m", "n", "k", "ai", "ap", "bp", "bj", "ld", "accumulate"],
  matmulLanedUniform: ["dst", "a", "b", "m", "n", "k", "ai", "ap", "bp", "bj", "ld", "accumulate"],
  matmulUniformLaned: ["dst", "a", "b", "m", "n", "k", "ai", "ap", "bp", "bj", "ld", "accumulate"],
  transpose: ["dst", "a", "rows", "cols", "ldd", "lda"],
  laneTranspose: ["dst", "a", "outer", "inner", "so", "si", "lanes", "ld"],
  sumAxis: ["dst", "a", "outer", "count", "inner"],
  sumAxisMul: ["dst", "a", "b", "outer", "count", "inner"],
  sumAll: ["dst", "a", "elements", "ld"],
  sumSquares: ["dst", "a", "elements", "ld"],
  sumAllMul: ["dst", "a", "b", "elements", "ld"],
  batchSum: ["dst", "a", "elements", "lanes", "ld"],
  batchSumLaned: ["dst", "a", "n"],
  softmax: ["dst", "a", "outer", "count", "inner"],
  logsumexp: ["dst", "a", "outer", "count", "inner"],
  scale: ["dst", "a", "n", "imm"],
  leakyRelu: ["dst", "a", "n", "imm"],
  fill: ["dst", "n", "imm"],
  copyRows: ["dst", "a", "rows", "n", "strideD", "strideA"],
  copyStrided: ["dst", "a", "rows", "cols", "ars", "acs", "ld"],
  spreadLanes: ["dst", "a", "elements", "ld"],
  matmulStep: ["theta", "a", "b", "m", "n", "k", "lda", "ldb", "eta"],
  addNumber: ["dst", "a", "n", "imm"],
  numberSub: ["dst", "a", "n", "imm"],
  numberDiv: ["dst", "a", "n", "imm"],
  update: ["theta", "g", "eta", "decay", "elements", "ld"],
  updateAlike: ["theta", "g", "eta", "decay", "n"],
  updateAdd: ["theta", "a", "b", "eta", "n"],
  updateSub: ["theta", "a", "b", "eta", "n"],
  updateMul: ["theta", "a", "b", "eta", "n"],
  decayBlock: ["theta", "decay", "elements", "ld"],
  addWork: ["dst", "q", "eta", "lanes"],
  sampleWeights: ["dst", "count", "lanes", "ld", "noise", "purpose", "table"],
  takeWeights: ["dst", "weights", "lanes", "ld", "byReplica"],
  factorNoise: ["dst", "g", "mean", "sigma", "normals", "count", "p", "purpose"],
  adaptStep: ["error", "count", "h", "next", "left", "accept", "lanes"],
  acceptStep: ["theta", "y", "accept", "elements", "ld"],
  gather: ["dst", "data", "offset", "dim", "lanes", "ld", "shared"],
  gatherRows: ["dst", "data", "offset", "dim", "lanes"],
  noise: ["dst", "kind", "elements", "lanes", "ld", "block", "perSample", "below", "byReplica"],
  storeSamples: ["dst", "a", "elements", "lanes", "ld", "stride", "offset"],
  treeSum: ["dst", "partial", "a", "lanes", "ld", "byReplica"],
  closeTree: ["dst", "partial", "n"],
  record: ["a", "slot", "lanes"],
  recordExact: ["a", "slot", "lanes"],
  addToAverage: ["dst", "a", "lanes"],
  copy: ["dst", "a", "n"],
} as const;

/** Where each structural kernel lives, for the generated imports. */
export const homes: Record<string, readonly string[]> = {
  matrix: [
    "matmulNN",
    "matmulTN",
    "matmulLaned",
    "matmulLanedUniform",
    "matmulUniformLaned",
    "laneTranspose",
    "matmulStep",
    "transpose",
  ],
  reduce: [
    "sumAxis",
    "sumAxisMul",
    "sumAll",
    "sumSquares",
    "sumAllMul",
    "batchSum",
    "batchSumLaned",
    "softmax",
    "logsumexp",
  ],
  pointwise: [
    "scale",
    "leakyRelu",
    "fill",
    "copyStrided",
    "spreadLanes",
    "addNumber",
    "numberSub",
    "numberDiv",
    "update",
    "updateAlike",
    "decayBlock",
    "addWork",
  ],
  transfer: [
    "gather",
    "gatherRows",
    "noise",
    "storeSamples",
    "treeSum",
    "closeTree",
    "record",
    "recordExact",
    "addToAverage",
    "copy",
    "copyRows",
  ],
  weights: ["sampleWeights", "takeWeights", "factorNoise"],
  adaptive: ["adaptStep", "acceptStep"],
};

/** Pairs of elementwise ops that have one kernel: (a first b) second c, see assembly/fused.ts. */
export const PAIR_FIRST = ["add", "sub", "mul", "scale"] as const;
export const PAIR_SECOND = ["Add", "Sub", "Mul", "From", "Scale"] as const;
export const pairs: readonly string[] = PAIR_FIRST.flatMap((f) => PAIR_SECOND.map((s) => `${f}${s}`)).filter(
  (p) => p !== "scaleScale",
);

const UNARY = ["dst", "a", "n"] as const;
const PAIR = ["dst", "a", "b", "c", "n", "imm"] as const;
const BINARY = ["dst", "a", "b", "n"] as const;
const BROADCAST = [
  "dst",
  "a",
  "b",
  "rows",
  "cols",
  "ars",
  "acs",
  "brs",
  "bcs",
  "ld",
  "lanedA",
  "lanedB",
] as const;

/** Every instruction with its parameters; the position in the map is the opcode. */
export const instructions: ReadonlyMap<string, readonly string[]> = new Map<string, readonly string[]>([
  ...Object.entries(structural),
  ...pairs.map((name): [string, readonly string[]] => [name, PAIR]),
  ...[...table.values()].flatMap((row): [string, readonly string[]][] =>
    row.kernel === "unary"
      ? [[row.name, UNARY]]
      : row.kernel === "binary"
        ? [
            [row.name, BINARY],
            [`${row.name}Broadcast`, BROADCAST],
          ]
        : [],
  ),
]);

export const WORDS = 16;
export const WORD_BYTES = 4 * WORDS;
const IMM = 14;

/** Parameters that say how much an instruction does. */
const SIZES = new Set([
  "m",
  "n",
  "k",
  "ld",
  "lanes",
  "elements",
  "rows",
  "cols",
  "outer",
  "count",
  "inner",
  "dim",
]);

const opcodes = new Map([...instructions.keys()].map((name, i) => [name, i]));

/** A growing list of encoded instructions. */
export class Code {
  #words: number[] = [];
  #imms = new Map<number, number>();
  /** What each instruction does, for profiles: the kernel and its sizes. */
  readonly labels: string[] = [];

  /** Appends one instruction, parameters by name. */
  emit(name: string, values: Readonly<Record<string, number>>): void {
    const opcode = opcodes.get(name);
    const parameters = instructions.get(name);
    if (opcode === undefined || parameters === undefined) throw new Error(`no instruction ${name}`);
    const sizes = parameters.filter((p) => SIZES.has(p)).map((p) => `${p} ${values[p]}`);
    this.labels.push(`${name}${sizes.length > 0 ? ` (${sizes.join(", ")})` : ""}`);
    const start = this.#words.length;
    for (let i = 0; i < WORDS; i++) this.#words.push(0);
    this.#words[start] = opcode;
    for (const [i, parameter] of parameters.entries()) {
      const value = values[parameter];
      if (value === undefined) throw new Error(`${name} needs ${parameter}`);
      if (parameter === "imm") this.#imms.set(start + IMM, value);
      else this.#words[start + 1 + i] = value;
    }
  }

  /** Some code after other code, as one. */
  static join(...parts: readonly Code[]): Code {
    const out = new Code();
    for (const part of parts) {
      for (const [i, value] of part.#imms) out.#imms.set(out.#words.length + i, value);
      for (const word of part.#words) out.#words.push(word);
      out.labels.push(...part.labels);
    }
    return out;
  }

  get length(): number {
    return this.#words.length / WORDS;
  }

  /** Every word with the number of its instruction. */
  visit(see: (instruction: number, word: number) => void): void {
    for (const [i, word] of this.#words.entries()) see(Math.floor(i / WORDS), word);
  }

  /** Replaces words. */
  rewrite(change: (word: number) => number): void {
    for (const [i, word] of this.#words.entries()) this.#words[i] = change(word);
  }

  get byteLength(): number {
    return this.#words.length * 4;
  }

  /** Writes the words at a byte address of a memory. */
  writeTo(buffer: ArrayBufferLike, address: number): void {
    new Uint32Array(buffer, address, this.#words.length).set(this.#words);
    const view = new DataView(buffer, address, this.byteLength);
    for (const [i, value] of this.#imms) view.setFloat64(4 * i, value, true);
  }
}

/** Fields of a run's control block, one u32 each, in order. */
export const runFields = [
  /** Addresses of the passes of one update of theta, and how many there are. */
  "PASSES",
  "PASS_COUNT",
  /** Updates of theta in a step. */
  "UPDATES",
  /** Address of what is left of the step in each lane (f64): a step then repeats its update until nothing is. */
  "UNTIL",
  "PROBE_PASS",
  "AVERAGE_PASS",
  /** Averages are over the steps from AVERAGE_FROM on that are multiples of AVERAGE_EVERY (0: none). */
  "AVERAGE_FROM",
  "AVERAGE_EVERY",
  /** Address of the rates, and whether they change from step to step. */
  "RATES",
  "RATES_VARY",
  "KEY0",
  "KEY1",
  "FRESH_PURPOSE",
  "FIRST_REPLICA",
  /** Address of the replicas' numbers where they are not consecutive, else 0. */
  "STREAMS",
  "GROUP_LANES",
  "GROUPS",
  "STATE",
  "STATE_BYTES",
  "SAVED",
  "THETA",
  "THETA_VALUES",
  "STEP",
  "EVERY",
  "TRACE",
  "TRACE_RECORD",
  "TRACE_GROUP",
  /** The windows of draws in use, at most two. */
  "DRAWS_A",
  "DRAWS_B",
  /** Where a paused call goes on. */
  "IS_PAUSED",
  "GROUP",
  "STEP_AT",
  "STAGE_AT",
  "UPDATE_AT",
  "PASS_AT",
  "BLOCK_AT",
  "RECORDS",
  "FINITE",
  /** Address of the feed whose samples a paused call waits for, or 0. */
  "STARVED",
] as const;

/** Fields of a window of draws. */
export const drawFields = [
  "WINDOW",
  "WINDOW_UPDATES",
  "WINDOW_FIRST",
  "WINDOW_VALID",
  "BATCH_SIZE",
  "DRAW_LANES",
  "BELOW",
  "RECORD_BYTES",
  "PURPOSE",
  /** Address of an identity table when a batch must not repeat a sample, else 0. */
  "DISTINCT",
  /** Updates of an epoch, which the window then covers; 0 where batches are independent. */
  "EPOCH_UPDATES",
  /** Address of the feed that brings the drawn samples, or 0 where all samples are there. */
  "WINDOW_FEED",
] as const;

/** Fields of a feed: the samples of some consecutive draws, brought into memory by the host. */
export const feedFields = [
  /** The draws it has: from this address of the table of draws up to that one. */
  "FEED_FROM",
  "FEED_TO",
  /** Address of the byte offsets of their records, in the order of the draws. */
  "FEED_OFFSETS",
  /** Where the draws end that are known. */
  "FEED_END",
  /** What a paused call waits for. */
  "FEED_WANTED",
  "FEED_BYTES",
] as const;

/** Fields of the rates of a run; addresses of one value per lane, f64 where not said otherwise. */
export const rateFields = [
  "LANES",
  "ETA_BASE",
  /** dt where it does not follow from eta, else 0. */
  "DT_BASE",
  /** gamma, [blocks][lanes]. */
  "GAMMAS",
  /** sigma^2 where it does not follow from eta and S, else 0. */
  "SIGMA2",
  /** Results in the build's type: eta, dt, 1 - 2 dt gamma ([blocks], DECAY_BYTES apart), weight noise. */
  "ETA",
  "DT",
  "KEEP",
  "DECAYS",
  "DECAY_BYTES",
  "NOISE",
  /** Time since the start, and what is left of the step; LEFT may be 0. */
  "TIME",
  "LEFT",
  /** Of adaptive steps: their size in the build's type, and the size to try next. */
  "H",
  "NEXT",
  /** Kind (4: a table), steps of linear warm-up, table of eta_k. */
  "SCHEDULE",
  "WARMUP",
  "ETA_TABLE",
  /** f64: period, factor or final, eta / dt, 2 S, N, updates of a step. */
  "NUMBERS",
] as const;

/** Fields of a pass. */
export const passFields = [
  "BEFORE",
  "BEFORE_END",
  "BODY",
  "BODY_END",
  "TAIL",
  "TAIL_END",
  "AFTER",
  "AFTER_END",
  "BLOCKS",
  "BLOCK_LANES",
  /** Samples behind the last full block. */
  "REST",
  /** 0 a table of byte offsets, 1 a window of draws. */
  "DRAW_KIND",
  "DRAW_TABLE",
  /** Bytes from one sample to the next, and from one update to the next. */
  "DRAW_STRIDE",
  "DRAW_ROW",
  /** The body is the whole pass. */
  "WHOLE",
  /** What random leaves are drawn for; 0 for what the run says. */
  "PURPOSE_OF_NOISE",
  /** Address of the feed that brings the samples; the table of draws then holds their numbers. 0 where all samples are there. */
  "FEED",
] as const;

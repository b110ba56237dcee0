/** What commands say: progress on a terminal, plain lines in a pipe, JSON lines for programs. */
import { CommanderError } from "commander";
import { NoetherflowError } from "../errors.ts";

/** How a command ends. */
export const EXIT = {
  fine: 0,
  disagrees: 1,
  badInput: 2,
  failed: 3,
  interrupted: 130,
  terminated: 143,
} as const;

export const HELP_EXIT = `
Exit codes:
  0    done
  1    done, and the answer is no: an experiment disagrees, a replay differs, a field is no symmetry, a run diverged
  2    bad options, or a file that cannot be used; the message names it
  3    a failure of this program
  130  interrupted
  143  terminated`;

/** Where a command writes. */
export interface Terminal {
  out(text: string): void;
  err(text: string): void;
  /** Whether a person watches what goes to err. */
  readonly isTerminal: boolean;
  columns(): number;
}

export interface Progress {
  readonly fraction: number;
  readonly what: string;
  readonly remainingMs?: number;
}

/** What is left of interrupted work. */
export interface AfterInterrupt {
  readonly text: string;
  /** The command that goes on with it. */
  readonly resume?: string;
}
export const NOTHING_WRITTEN: AfterInterrupt = {
  text: "nothing was written. The same command starts again with the same numbers.",
};

/** Progress on stderr: a bar on a terminal, a line now and then in a pipe, JSON lines with --json. */
export class Output {
  readonly #terminal: Terminal;
  readonly #began = performance.now();
  #said = 0;
  #drawn = false;
  /** How the command ends, unless it throws. */
  exitCode: number = EXIT.fine;
  /** What an interrupted user should know. */
  afterInterrupt: () => Promise<AfterInterrupt> = async () => NOTHING_WRITTEN;

  constructor(
    readonly json: boolean,
    terminal: Terminal,
  ) {
    this.#terminal = terminal;
  }

  /** The answer, on stdout. */
  print(text: string): void {
    this.clear();
    this.#terminal.out(text.endsWith("\n") ? text : `${text}\n`);
  }

  /** The answer as data, on stdout. */
  data(value: unknown): void {
    this.clear();
    this.#terminal.out(`${JSON.stringify(value, plain, 1)}\n`);
  }

  /** Beside the answer, on stderr. */
  note(text: string): void {
    this.clear();
    this.#terminal.err(`${text}\n`);
  }

  progress({ fraction, what, remainingMs }: Progress): void {
    const now = performance.now();
    if (this.#terminal.isTerminal && !this.json) {
      if (now - this.#said < 60 && fraction < 1) return;
      this.#said = now;
      const filled = Math.round(24 * fraction);
      const left =
        remainingMs === undefined || !Number.isFinite(remainingMs)
          ? ""
          : `  ${Math.ceil(remainingMs / 1000)} s left`;
      const bar = `${"█".repeat(filled)}${"░".repeat(24 - filled)} ${String(Math.floor(100 * fraction)).padStart(3)} %${left}`;
      const room = Math.max(10, this.#terminal.columns() - bar.length - 3);
      this.#terminal.err(`\r\x1b[2K${bar}  ${what.slice(0, room)}`);
      this.#drawn = true;
      return;
    }
    // in a pipe every five seconds are enough, and the first is not told before that
    if (now - Math.max(this.#said, this.#began) < 5000) return;
    this.#said = now;
    this.#terminal.err(
      this.json
        ? `${JSON.stringify({ progress: fraction, what, ...(remainingMs === undefined ? {} : { remainingMs }) })}\n`
        : `${Math.floor(100 * fraction)} %  ${what}\n`,
    );
  }

  clear(): void {
    if (this.#drawn) this.#terminal.err("\r\x1b[2K");
    this.#drawn = false;
  }
}

/** Numbers that JSON has no word for as text, typed arrays as lists. */
function plain(_: string, value: unknown): unknown {
  if (typeof value === "number" && !Number.isFinite(value)) return String(value);
  return ArrayBuffer.isView(value) ? [...(value as unknown as Iterable<number>)] : value;
}

/** Hints of the library, as a command line says them; test/cli/hints.test.ts finds those that are missing. */
export const HINTS: ReadonlyMap<string, string> = new Map([
  ["Finish it with resumeRun.", "Finish it: noetherflow resume <folder>."],
  [
    "For all rotations of a product U W at once there is a closed form: problem.groupEquilibrium(theta, U, W, options), or engine.twoLayer.groupEquilibrium.",
    "For all rotations of a product U W at once there is a closed form: noetherflow equilibrium --group U,W.",
  ],
  ["Give a finite data set with { samples: N }.", "Make a finite data set: --samples 1000."],
  ["Give { eta, batchSize } or { sigma2 }.", "Pass --eta and --batch-size, or --sigma2."],
  ["Make one: engine.problem(model, sampler, { samples: N }).", "Make a finite data set: --samples 1000."],
  [
    "Make the problem with engine.problem(model, sampler, { samples: N }).",
    "Make a finite data set: --samples 1000.",
  ],
  [
    "Measure the covariance of minibatch gradients: minibatchNoise(theta, { batchSize, batches }).",
    "Its minibatches have noise that noetherflow measure --batch-size S shows.",
  ],
  [
    "Move theta along its orbit with problem.transform, or scale the data or theta.",
    "Start nearer to the equilibrium, or scale the data or theta.",
  ],
  [
    "Pass a { theta } in the domain of the charge and of the loss.",
    "Pass another --theta, in the domain of the loss.",
  ],
  ["Pass a { theta } in the domain of the loss.", "Pass another --theta, in the domain of the loss."],
  ["Pass overwrite: true.", "Pass --overwrite."],
  [
    "Pass { regularize: 1e-6 } to come near it and see the trend.",
    "Name single rotations by --symmetry to see which have none.",
  ],
  [
    "Pass { transposeW: true } where the block holds the transpose of W.",
    "Use --symmetry keyquery: or what symmetries finds.",
  ],
  [
    "resumeRun goes on with it; overwrite: true begins anew.",
    "noetherflow resume goes on with it; --overwrite begins anew.",
  ],
  [
    "Record less often (a larger record.every), or run fewer replicas.",
    "Record less often (a larger --every), or run fewer --replicas.",
  ],
  ["Run fewer at a time, with firstReplica.", "Run fewer at a time: --replicas with --first-replica."],
  [
    "A file was changed after the run; replayRun says where.",
    "A file was changed after the run; noetherflow replay says where.",
  ],
  [
    "See checkSymmetry; { force: true } computes it all the same.",
    "See noetherflow check; --force computes it all the same.",
  ],
  [
    "Some directions are too many decades off balance: pass { regularize: 1e-6 }, or a larger one.",
    "Some directions are too many decades off balance: start from a theta nearer to it.",
  ],
  ["Use momentMatched(sampler), or { samples: N }.", "Make a finite data set: --samples 1000."],
  [
    "Use engine.problem(model, sampler, { samples: N }) with a large N instead.",
    "Use a sampler with a large --samples instead.",
  ],
  [
    "Use the version of noetherflow and the engine that made it; readRun reads it anywhere.",
    "Use the version of noetherflow that made it.",
  ],
  ['Use init("normal", { std, seed }).', "Pass --init normal --std 1."],
  ["Ask for fewer, with firstReplica.", "Run fewer at a time: --replicas with --first-replica."],
  [
    "Use fewer samples, replicas or records, or dispose() of problems no longer needed.",
    "Use fewer samples, replicas or records.",
  ],
]);

/** One line about what went wrong, and the exit code it means. */
export function explain(error: unknown, json: boolean): { line: string; code: number } {
  const ours = error instanceof NoetherflowError ? error : null;
  // of the file system: the error names the path
  const isTheirs =
    error instanceof CommanderError || (ours !== null ? ours.code !== "internal" : isOfFiles(error));
  const code = isTheirs ? EXIT.badInput : EXIT.failed;
  const hint = HINTS.get(ours?.hint ?? "") ?? ours?.hint;
  const text = error instanceof Error ? error.message : String(error);
  const message = oneLine(ours === null || hint === undefined ? text : text.replace(ours.hint!, hint))
    .replace(/^error: /, "")
    .replace(/, got undefined\b/, ", got none");
  if (!json) return { line: `noetherflow: ${message}`, code };
  const parts =
    ours === null ? {} : { code: ours.code, where: ours.where, expected: ours.expected, got: ours.got, hint };
  return { line: JSON.stringify({ error: { message, ...parts } }), code };
}

/** What the text of others may hold: lines, and what would move the cursor. */
export function oneLine(text: string): string {
  const line = text
    .replaceAll(/\s+/g, " ")
    .replaceAll(/\p{Cc}/gu, "\uFFFD")
    .trim();
  return line.length > MAX_LINE ? `${line.slice(0, MAX_LINE)}...` : line;
}
const MAX_LINE = 1000;

const isOfFiles = (error: unknown): boolean =>
  error instanceof Error && typeof (error as NodeJS.ErrnoException).syscall === "string" && "path" in error;

/** A table of columns, the first to the left, numbers to the right. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const all = [head, ...rows];
  const widths = head.map((_, c) => Math.max(...all.map((row) => row[c]!.length)));
  return all
    .map((row) =>
      row
        .map((cell, c) => (c === 0 ? cell.padEnd(widths[c]!) : cell.padStart(widths[c]!)))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

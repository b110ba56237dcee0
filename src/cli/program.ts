/** The program behind `noetherflow`: its commands, and how a call of it ends. */
import { Command, CommanderError } from "commander";
import { VERSION } from "../version.ts";
import { addBenchCommand } from "./bench-command.ts";
import { addCompletionCommand } from "./completion.ts";
import { addExperimentCommands } from "./experiment-commands.ts";
import { addInitCommand } from "./init-command.ts";
import { addModelCommands } from "./model-commands.ts";
import { EXIT, explain, HELP_EXIT, Output, type Terminal } from "./output.ts";
import { addRunCommands } from "./run-commands.ts";

/** Why the signal of a host aborts where it is not the user who interrupts. */
export class Terminated extends Error {}

/** What a call of the program runs in. */
export interface Host {
  readonly terminal: Terminal;
  /** Aborts when the user interrupts. */
  readonly signal: AbortSignal;
  /** The program of a worker thread, reproduce-worker.js. */
  readonly thread: URL;
  /** What a model file means by "noetherflow" where it is not installed beside the file. */
  readonly library: URL;
}

/** What a command gets when it begins. */
export interface Started {
  readonly output: Output;
  readonly signal: AbortSignal;
  readonly host: Host;
}
export type Start = (json: boolean) => Started;

const MODELS = `
Models are files of .json (plain data, safe for files from strangers) or .js, .mjs, .ts, which are executed: run only those that you trust.
Start with: noetherflow init, then noetherflow symmetries model.json --data data.csv`;

/** All commands. Nothing is done before one is parsed. */
export function createProgram(start: Start): Command {
  const program = new Command("noetherflow")
    .version(VERSION)
    .description("Symmetry, gradient noise and where SGD ends up: simulate, measure, predict.")
    .addHelpText("after", HELP_EXIT)
    .addHelpText("after", MODELS)
    .showSuggestionAfterError();
  addExperimentCommands(program, start);
  addModelCommands(program, start);
  addRunCommands(program, start);
  addBenchCommand(program, start);
  addInitCommand(program, start);
  addCompletionCommand(program, start);
  return program;
}

/**
 * One call of the program.
 *
 * @param args words after `noetherflow`
 * @returns the exit code; see EXIT
 */
export async function run(args: readonly string[], host: Host): Promise<number> {
  const { terminal, signal } = host;
  let output = new Output(args.includes("--json"), terminal);
  const program = createProgram((json) => {
    output = new Output(json, terminal);
    return { output, signal, host };
  });
  for (const command of [program, ...program.commands])
    command.exitOverride().configureOutput({
      writeOut: terminal.out,
      // a mistake is told once, below; help that nobody asked for is not
      writeErr: (text) => (/^Usage:/.test(text) ? terminal.err(text) : undefined),
      getErrHelpWidth: terminal.columns,
      getOutHelpWidth: terminal.columns,
    });
  try {
    await program.parseAsync([...args], { from: "user" });
    return output.exitCode;
  } catch (error) {
    output.clear();
    // help and version end here too, and are no mistake
    if (error instanceof CommanderError && error.exitCode === 0) return EXIT.fine;
    if (error instanceof CommanderError && error.code === "commander.help") return EXIT.badInput;
    if (signal.aborted) {
      const how = signal.reason instanceof Terminated ? "terminated" : "interrupted";
      const { text, ...left } = await output.afterInterrupt();
      terminal.err(
        output.json ? `${JSON.stringify({ [how]: text, ...left })}\n` : `noetherflow: ${how}; ${text}\n`,
      );
      return EXIT[how];
    }
    const { line, code } = explain(error, output.json);
    terminal.err(`${line}\n`);
    return code;
  }
}

#!/usr/bin/env node
/** The command line: `noetherflow`. */
import { Command, CommanderError } from "commander";
import { addBenchCommand } from "./cli/bench-command.ts";
import { addCompletionCommand } from "./cli/completion.ts";
import { addExperimentCommands } from "./cli/experiment-commands.ts";
import { addInitCommand } from "./cli/init-command.ts";
import { addModelCommands } from "./cli/model-commands.ts";
import { EXIT, explain, HELP_EXIT, Output } from "./cli/output.ts";
import { addRunCommands } from "./cli/run-commands.ts";
import { VERSION } from "./version.ts";

const program = new Command("noetherflow")
  .version(VERSION)
  .description("Symmetry, gradient noise and where SGD ends up: simulate, measure, predict.")
  .configureHelp({ showGlobalOptions: true })
  .addHelpText("after", HELP_EXIT)
  .addHelpText(
    "after",
    `
Models are files of .json (plain data, safe from strangers) or .js, .mjs, .ts, which are executed: run only those that you trust.
Start with: noetherflow init, then noetherflow symmetries model.json --data data.csv`,
  )
  .showSuggestionAfterError()
  .exitOverride();

let output = new Output(false);
const interrupt = new AbortController();
// a reader that has seen enough, as head does, is no failure
for (const stream of [process.stdout, process.stderr])
  stream.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code !== "EPIPE") throw error;
    process.exit();
  });
process.once("SIGINT", () => interrupt.abort(new Error("interrupted")));
const start = (json: boolean) => {
  output = new Output(json);
  return { output, signal: interrupt.signal };
};

addExperimentCommands(program, start, new URL("./reproduce-worker.js", import.meta.url));
addModelCommands(program, start);
addRunCommands(program, start);
addBenchCommand(program, start);
addInitCommand(program, start);
addCompletionCommand(program);
for (const command of program.commands) command.exitOverride().showSuggestionAfterError();

async function main(): Promise<void> {
  try {
    await program.parseAsync(process.argv);
  } catch (error) {
    output.clear();
    // help and version are no errors; commander has said what else was wrong
    if (error instanceof CommanderError) process.exitCode = error.exitCode === 0 ? EXIT.fine : EXIT.badInput;
    else if (interrupt.signal.aborted) {
      const isRecorded = ["train", "resume"].includes(process.argv[2] ?? "");
      process.stderr.write(
        isRecorded
          ? "Interrupted; a checkpoint was written. Go on with: noetherflow resume <folder>\n"
          : "Interrupted; nothing was written. The same command starts again with the same numbers.\n",
      );
      process.exitCode = EXIT.interrupted;
    } else {
      const { line, code } = explain(error, output.json);
      process.stderr.write(`${line}\n`);
      process.exitCode = code;
    }
  }
}

void main();

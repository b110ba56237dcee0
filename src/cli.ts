#!/usr/bin/env node
/** The command line: `noetherflow`. */
import { writeSync } from "node:fs";
import { EXIT } from "./cli/output.ts";
import { run, Terminated } from "./cli/program.ts";

// a model file may exit, or wait for what never comes
let isOver = false;
process.once("exit", () => {
  if (isOver) return;
  process.exitCode = EXIT.badInput;
  writeSync(
    2,
    "noetherflow: ended before its work was done: a program of a model file exits, or waits for something that never comes.\n",
  );
});
// a reader that has seen enough, as head does, is no failure
for (const stream of [process.stdout, process.stderr])
  stream.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code !== "EPIPE") throw error;
    isOver = true;
    process.exit();
  });
// the first Ctrl-C asks for an end, a second one does not wait
const interrupt = new AbortController();
process.once("SIGINT", () => interrupt.abort(new Error("interrupted")));
process.once("SIGTERM", () => interrupt.abort(new Terminated("terminated")));

/** Sources are run as they are in a checkout, and built in the package. */
const ending = import.meta.url.endsWith(".ts") ? ".ts" : ".js";
const beside = (name: string) => new URL(`./${name}${ending}`, import.meta.url);

void run(process.argv.slice(2), {
  terminal: {
    out: (text) => void process.stdout.write(text),
    err: (text) => void process.stderr.write(text),
    isTerminal: process.stderr.isTTY === true,
    columns: () => process.stderr.columns ?? 100,
  },
  signal: interrupt.signal,
  thread: beside("reproduce-worker"),
  library: beside("index"),
}).then((code) => {
  isOver = true;
  process.exitCode = code;
});

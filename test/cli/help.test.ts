/**
 * What the help texts promise: every option says what it is and its default, the documented exit codes are those of the program, and
 * docs/command-line.md is what the program says of itself. UPDATE_DOCS=1 writes the page.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { Command } from "commander";
import { describe, expect, test } from "vitest";
import { EXIT, HELP_EXIT } from "../../src/cli/output.ts";
import { createProgram } from "../../src/cli/program.ts";

const page = fileURLToPath(new URL("../../docs/command-line.md", import.meta.url));
const program = createProgram(() => {
  throw new Error("nothing is run here");
});

/** The help of a command as it is printed at 100 columns, what is written after it included. */
function helpOf(command: Command): string {
  let text = "";
  command.configureOutput({
    writeOut: (part) => {
      text += part;
    },
    getOutHelpWidth: () => 100,
  });
  command.outputHelp();
  return text;
}

/** How many threads there are is the machine's business. */
const anywhere = (text: string): string =>
  text.replaceAll(/(--workers <n>[^(]*(?:\n[^(]*)?\(default:)\s+\d+\)/g, "$1 cores, at most 8)");

function written(): string {
  const block = (text: string) => `\`\`\`text\n${anywhere(text).trim()}\n\`\`\``;
  return `${[
    "<!-- Written from the program itself: UPDATE_DOCS=1 npx vitest run test/cli/help.test.ts -->",
    "# The command line",
    `What \`noetherflow --help\` says, and \`--help\` after each command. Results go to stdout, progress to stderr: a bar on a terminal, a line
now and then in a pipe, JSON lines with \`--json\`, and then a mistake is a line of JSON too. Ctrl-C ends the work within some ten
milliseconds; a run of \`train\` leaves a checkpoint, and the last line says how to go on.`,
    block(helpOf(program)),
    ...program.commands.flatMap((c) => [`## ${c.name()}`, block(helpOf(c))]),
  ].join("\n\n")}\n`;
}

test("docs/command-line.md is what the program says", () => {
  if (process.env["UPDATE_DOCS"] === "1") writeFileSync(page, written());
  expect(readFileSync(page, "utf8")).toBe(written());
});

test("the help names every exit code", () => {
  const named = [...HELP_EXIT.matchAll(/^ {2}(\d+) /gm)].map((m) => Number(m[1]));
  expect(named).toEqual(Object.values(EXIT));
});

describe.each(program.commands.map((command) => ({ name: command.name(), command })))(
  "$name",
  ({ command }) => {
    test("says what it does, what it takes, and the default of every option", () => {
      expect(command.description()).not.toBe("");
      for (const argument of command.registeredArguments)
        expect(argument.description, argument.name()).not.toBe("");
      for (const option of command.options) {
        expect(option.description, option.flags).not.toBe("");
        const isFlag = !option.required && !option.optional;
        const hasDefault = option.defaultValue !== undefined || /\(default: /.test(option.description);
        if (!isFlag && !option.mandatory) expect([option.flags, hasDefault]).toEqual([option.flags, true]);
      }
    });
  },
);

test("every command that has results can say them as data", () => {
  const without = program.commands.filter((c) => !c.options.some((option) => option.long === "--json"));
  expect(without.map((c) => c.name())).toEqual(["init", "completion"]);
});

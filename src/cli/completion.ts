/** Shell completion: a script that knows every command, option and choice of the program. */
import { Argument, type Command } from "commander";
import { experiments } from "../experiments/experiment.ts";
import type { Start } from "./program.ts";

const SHELLS = ["bash", "zsh", "fish"] as const;

interface Words {
  readonly name: string;
  readonly description: string;
  readonly options: readonly { readonly long: string; readonly choices: readonly string[] }[];
  /** Of its first argument, where that is no file. */
  readonly choices: readonly string[];
}

/** Commands by name, each with its long options and what these may be. */
function wordsOf(program: Command): Words[] {
  return program.commands.map((c) => {
    const [argument] = c.registeredArguments;
    return {
      name: c.name(),
      description: c.description(),
      options: [
        ...c.options.flatMap((o) => (o.long == null ? [] : [{ long: o.long, choices: o.argChoices ?? [] }])),
        { long: "--help", choices: [] },
      ],
      choices: argument?.name() === "id" ? [...experiments.keys()] : (argument?.argChoices ?? []),
    };
  });
}

function bash(program: Command): string {
  const commands = wordsOf(program);
  const cases = commands
    .map(
      (c) =>
        `    ${c.name}) options="${c.options.map((o) => o.long).join(" ")}" words="${c.choices.join(" ")}" ;;`,
    )
    .join("\n");
  const values = commands
    .flatMap((c) =>
      c.options.flatMap((o) =>
        o.choices.length === 0
          ? []
          : [`    ${c.name}:${o.long}) options="" words="${o.choices.join(" ")}" ;;`],
      ),
    )
    .join("\n");
  return `_noetherflow() {
  local options="" words="" IFS=$' \\t\\n' current="\${COMP_WORDS[COMP_CWORD]}"
  case "\${COMP_WORDS[1]}" in
${cases}
  esac
  case "\${COMP_WORDS[1]}:\${COMP_WORDS[COMP_CWORD-1]}" in
${values}
  esac
  if [ "$COMP_CWORD" -eq 1 ]; then words="${commands.map((c) => c.name).join(" ")}"; fi
  if [ "\${current#-}" != "$current" ]; then words="$options"; fi
  local found
  if [ -n "$words" ]; then found="$(compgen -W "$words" -- "$current")"; else found="$(compgen -f -- "$current")"; fi
  # a name of a file may hold spaces
  IFS=$'\\n'
  COMPREPLY=($found)
}
complete -o filenames -F _noetherflow noetherflow
`;
}

function fish(program: Command): string {
  const quote = (text: string) => `'${text.replaceAll("'", "\\'")}'`;
  return `${wordsOf(program)
    .flatMap((c) => {
      const seen = `complete -c noetherflow -n "__fish_seen_subcommand_from ${c.name}"`;
      return [
        `complete -c noetherflow -n __fish_use_subcommand -a ${c.name} -d ${quote(c.description)}`,
        ...(c.choices.length === 0 ? [] : [`${seen} -f -a ${quote(c.choices.join(" "))}`]),
        ...c.options.map(
          (o) =>
            `${seen} -l ${o.long.slice(2)}${o.choices.length === 0 ? "" : ` -x -a ${quote(o.choices.join(" "))}`}`,
        ),
      ];
    })
    .join("\n")}\n`;
}

export function addCompletionCommand(program: Command, start: Start): void {
  program
    .command("completion")
    .description('print a completion script: eval "$(noetherflow completion bash)"')
    .addArgument(new Argument("<shell>", "which").choices(SHELLS))
    .action((shell: (typeof SHELLS)[number]) => {
      const text = shell === "fish" ? fish(program) : bash(program);
      start(false).output.print(
        shell === "zsh" ? `autoload -U +X bashcompinit && bashcompinit\n${text}` : text,
      );
    });
}

/** Shell completion: a script that knows every command and option of the program. */
import { Argument, type Command } from "commander";
import type { Start } from "./program.ts";

const SHELLS = ["bash", "zsh", "fish"] as const;

/** Commands by name, each with its long options. */
function wordsOf(program: Command): { name: string; description: string; options: string[] }[] {
  return program.commands.map((c) => ({
    name: c.name(),
    description: c.description(),
    options: [...c.options.map((o) => o.long ?? ""), "--help"].filter((o) => o !== ""),
  }));
}

function bash(program: Command): string {
  const commands = wordsOf(program);
  const cases = commands.map((c) => `    ${c.name}) words="${c.options.join(" ")}" ;;`).join("\n");
  return `_noetherflow() {
  local words current="\${COMP_WORDS[COMP_CWORD]}"
  case "\${COMP_WORDS[1]}" in
${cases}
    *) words="${commands.map((c) => c.name).join(" ")}" ;;
  esac
  if [ "$COMP_CWORD" -eq 1 ] || [ "\${current#-}" != "$current" ]; then
    COMPREPLY=($(compgen -W "$words" -- "$current"))
  else
    COMPREPLY=($(compgen -f -- "$current"))
  fi
}
complete -o filenames -F _noetherflow noetherflow
`;
}

function fish(program: Command): string {
  const quote = (text: string) => `'${text.replaceAll("'", "\\'")}'`;
  return `${wordsOf(program)
    .flatMap((c) => [
      `complete -c noetherflow -n __fish_use_subcommand -a ${c.name} -d ${quote(c.description)}`,
      ...c.options.map(
        (o) => `complete -c noetherflow -n "__fish_seen_subcommand_from ${c.name}" -l ${o.slice(2)}`,
      ),
    ])
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

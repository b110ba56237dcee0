/** The command lines that do things again. */
import type { Result } from "../experiments/experiment.ts";

/** A word of a shell's command line, in double quotes where it needs them. */
export function shellWord(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `"${text.replaceAll(/[\\"$`]/g, "\\$&")}"`;
}

/** Runs one experiment to the same bits: its seed, and the settings that are not those of its table. */
export function commandOf({ id, parameters, spec }: Result, seed: string): string {
  const changed = Object.entries(spec).filter(
    ([name, value]) => name !== "seed" && parameters[name]?.value !== value,
  );
  const sets = changed.map(([name, value]) => ` --set ${shellWord(`${name}=${value}`)}`).join("");
  return `npx noetherflow run ${id} --seed ${shellWord(seed)}${sets}`;
}

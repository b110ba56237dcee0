/** A setting as the address says it: #model=linear&S=4&eta=0.005 ... What is not there is as usual for the model. */
import { cases, type Setting } from "./experiment.ts";

/** Names in the address and of the fields of the form. */
const NUMBERS = {
  S: "batchSize",
  eta: "eta",
  gamma: "weightDecay",
  noise: "noise",
  lambda: "lambda",
  steps: "steps",
} as const;

/** The setting that an address asks for. Nothing is checked: the library refuses what it cannot run, and says why. */
export function settingOf(hash: string): Setting {
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  const model = given.get("model") ?? "rank-one";
  const usual = cases[model]?.usual ?? cases["rank-one"]!.usual;
  const number = (name: keyof typeof NUMBERS): number => {
    const text = given.get(name);
    return text === null ? usual[NUMBERS[name]] : text.trim() === "" ? Number.NaN : Number(text);
  };
  return {
    model,
    batchSize: number("S"),
    eta: number("eta"),
    weightDecay: number("gamma"),
    noise: number("noise"),
    lambda: number("lambda"),
    seed: given.get("seed") ?? "1",
    steps: number("steps"),
  };
}

/** Every value of a setting under its name in the address. */
export function valuesOf(setting: Setting): Record<string, string> {
  const numbers = Object.entries(NUMBERS).map(([name, key]) => {
    const value = setting[key];
    return [name, Number.isNaN(value) ? "" : String(value)];
  });
  return { model: setting.model, ...Object.fromEntries(numbers), seed: setting.seed };
}

export function hashOf(setting: Setting): string {
  return `#${new URLSearchParams(valuesOf(setting))}`;
}

/** A starter: a model file, data, and a script that uses them. */
import { access, mkdir } from "node:fs/promises";
import { join, resolve } from "node:path";
import type { Command } from "commander";
import { fail } from "../errors.ts";
import { writeWhole } from "../records/files.ts";
import type { Start } from "./program.ts";

const MODEL = `{
  "schema": "noetherflow-model/1",
  "params": { "W": [4, 2], "U": [1, 4] },
  "inputs": { "x": [2], "y": [1] },
  "let": [["h", ["relu", ["matmul", "W", "x"]]]],
  "loss": ["sqnorm", ["sub", ["matmul", "U", "h"], "y"]]
}
`;

const SCRIPT = `// Trains the model of model.json on data.csv and follows the charge of each hidden unit.
//   node train.mjs
import { readFile } from "node:fs/promises";
import { createEngine, parseModel, symmetry } from "noetherflow";

const net = parseModel(await readFile(new URL("model.json", import.meta.url), "utf8"));
const lines = (await readFile(new URL("data.csv", import.meta.url), "utf8")).trim().split("\\n").slice(1);
const rows = lines.map((line) => line.split(",").map(Number));
const engine = await createEngine();
const problem = engine.problem(net, { x: rows.map(([a, b]) => [a, b]), y: rows.map(([, , y]) => [y]) });
const theta = problem.init("he", { seed: "starter" });
const charges = Object.fromEntries([0, 1, 2, 3].map((j) => [\`unit \${j}\`, symmetry.neuronRescaling("U", "W", j)]));
const run = await problem.simulate({
  scheme: "sgd", theta, eta: 0.01, batchSize: 1, steps: 20_000, seed: "starter",
  record: { every: 2000, loss: "full", charges },
});
console.log(run.toCSV());
`;

/** y = |x0| + x1 with a wave for noise: no random numbers, so that everybody gets the same file. */
function data(): string {
  const lines = ["x0,x1,y"];
  for (let n = 0; n < 64; n++) {
    // irrational turns cover the square evenly
    const turn = (a: number) => 4 * ((n * a) % 1) - 2;
    const [x0, x1, wave] = [turn(0.6180339887), turn(0.7548776662), 0.25 * turn(0.8191725134)];
    lines.push([x0, x1, Math.abs(x0) + x1 + wave].map((v) => v.toFixed(4)).join(","));
  }
  return `${lines.join("\n")}\n`;
}

export function addInitCommand(program: Command, start: Start): void {
  program
    .command("init")
    .argument("[folder]", "where to write them", ".")
    .description("write a starter: model.json, data.csv and train.mjs")
    .action(async (folder: string) => {
      const { output } = start(false);
      const files: Record<string, string> = { "model.json": MODEL, "data.csv": data(), "train.mjs": SCRIPT };
      for (const name of Object.keys(files)) {
        const path = join(folder, name);
        const isThere = await access(path).then(
          () => true,
          () => false,
        );
        if (isThere) fail("unsupported", "init", "a folder without model.json, data.csv and train.mjs", path);
      }
      await mkdir(folder, { recursive: true });
      for (const [name, text] of Object.entries(files)) await writeWhole(join(folder, name), text, true);
      output.print(
        [
          `wrote ${Object.keys(files).join(", ")} to ${resolve(folder)}`,
          "next:",
          "  noetherflow symmetries model.json --data data.csv",
          "  noetherflow train model.json --data data.csv --symmetry neuron:U,W,0",
        ].join("\n"),
      );
    });
}

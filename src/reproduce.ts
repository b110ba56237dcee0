/** The program behind `npm start`: runs experiments, prints the table, writes the report. */
import { mkdir, rename, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { STREAM_VERSION } from "./core/key.ts";
import { createEngine } from "./create.ts";
import { fail, NoetherflowError, nearest, show } from "./errors.ts";
import { type Experiment, experiments, type Result, runExperiment } from "./experiments/experiment.ts";
import { type Provenance, reportHTML, reportJSON, reportTable } from "./report/report.ts";
import { VERSION } from "./version.ts";

const HELP = `Usage: npm start -- [options]

Runs the experiments, prints predicted and measured side by side, and writes a report.

Options:
  --only <ids>    experiments to run, separated by commas (default: all)
  --out <folder>  where the report goes (default: noetherflow-report)
  --seed <text>   seed of every random number (default: "noetherflow")
  --json          print the report's data as JSON instead of the table
  --list          list the experiments and their settings
  --help          this text

Writes report.html (self-contained), report.json (the data behind it) and one folder per experiment
with every run as JSON. Exit code 0: all rows agree; 1: some row disagrees; 2: bad options;
130: interrupted.
`;

interface Options {
  readonly ids: readonly string[];
  readonly out: string;
  readonly seed: string;
  readonly json: boolean;
}

function readArguments(args: readonly string[]): Options | "help" | "list" {
  let values: { only?: string; out?: string; seed?: string; json?: boolean; help?: boolean; list?: boolean };
  try {
    ({ values } = parseArgs({
      args: [...args],
      options: {
        only: { type: "string" },
        out: { type: "string" },
        seed: { type: "string" },
        json: { type: "boolean" },
        help: { type: "boolean", short: "h" },
        list: { type: "boolean" },
      },
    }));
  } catch (error) {
    return fail(
      "name",
      "npm start",
      (error as Error).message.replace(/\.$/, ""),
      undefined,
      "See npm start -- --help.",
    );
  }
  if (values.help) return "help";
  if (values.list) return "list";
  const known = [...experiments.keys()];
  const ids = values.only === undefined ? known : values.only.split(",").map((id) => id.trim());
  for (const id of ids) {
    if (!experiments.has(id))
      fail("name", "--only", `experiments are ${known.join(", ")}`, show(id), nearest(id, known));
  }
  return {
    ids,
    out: resolve(values.out ?? "noetherflow-report"),
    seed: values.seed ?? "noetherflow",
    json: values.json ?? false,
  };
}

function list(): string {
  const describe = (e: Experiment) =>
    `${e.id}  ${e.title}\n${Object.entries(e.parameters)
      .map(([name, p]) => `      ${name} = ${p.value}  in [${p.min}, ${p.max}]  ${p.what}`)
      .join("\n")}`;
  return [...experiments.values()].map(describe).join("\n");
}

/** One line that is rewritten on a terminal; a line per experiment and case when piped. */
function progressLine(): { show(text: string, fraction: number): void; end(): void } {
  const terminal = process.stderr.isTTY === true;
  let last = "";
  return {
    show(text, fraction) {
      if (terminal) {
        const filled = Math.round(24 * fraction);
        process.stderr.write(
          `\r\x1b[2K${"█".repeat(filled)}${"░".repeat(24 - filled)} ${String(Math.round(100 * fraction)).padStart(3)} %  ${text}`,
        );
      } else if (text !== last) process.stderr.write(`${text}\n`);
      last = text;
    },
    end() {
      if (terminal) process.stderr.write("\r\x1b[2K");
    },
  };
}

/** Writes through a temporary file, so that a reader never meets half a file. */
async function writeWhole(path: string, text: string): Promise<void> {
  await writeFile(`${path}.part`, text);
  await rename(`${path}.part`, path);
}

async function main(args: readonly string[]): Promise<number> {
  const options = readArguments(args);
  if (options === "help" || options === "list") {
    process.stdout.write(options === "help" ? HELP : `${list()}\n`);
    return 0;
  }
  const abort = new AbortController();
  process.once("SIGINT", () => abort.abort(new Error("interrupted")));
  const engine = await createEngine();
  const line = progressLine();
  const results: Result[] = [];
  try {
    for (const [i, id] of options.ids.entries()) {
      const experiment = experiments.get(id)!;
      const result = await runExperiment(experiment, engine, {}, options.seed, {
        signal: abort.signal,
        onProgress: (fraction, what) => line.show(`${id}  ${what}`, (i + fraction) / options.ids.length),
      });
      results.push(result);
    }
  } catch (error) {
    if (!abort.signal.aborted) throw error;
    line.end();
    process.stderr.write(
      "Interrupted; nothing was written. The same command starts again with the same numbers.\n",
    );
    return 130;
  } finally {
    line.end();
    engine.dispose();
  }
  const provenance: Provenance = {
    version: VERSION,
    dtype: engine.dtype,
    variant: engine.variant,
    wasmSha256: engine.wasmSha256,
    streamVersion: STREAM_VERSION,
    host: `Node ${process.versions.node}, ${process.platform} ${process.arch}`,
    seed: options.seed,
    command: `npm start${args.length > 0 ? ` -- ${args.join(" ")}` : ""}`,
  };
  const data = `${JSON.stringify(reportJSON(results, provenance), null, 1)}\n`;
  await mkdir(options.out, { recursive: true });
  for (const result of results) {
    const folder = join(options.out, result.id);
    await mkdir(folder, { recursive: true });
    for (const [name, run] of Object.entries(result.runs)) {
      await writeWhole(
        join(folder, `${name.replaceAll(/[^A-Za-z0-9]+/g, "-").toLowerCase()}.json`),
        `${JSON.stringify(run)}\n`,
      );
    }
  }
  await writeWhole(join(options.out, "report.json"), data);
  await writeWhole(join(options.out, "report.html"), reportHTML(results, provenance));
  const rows = results.flatMap((r) => r.rows);
  const agreeing = rows.filter((r) => r.verdict.agrees).length;
  if (options.json) process.stdout.write(data);
  else {
    process.stdout.write(
      `${reportTable(results)}\n\n${agreeing} of ${rows.length} rows agree.\nReport: ${join(options.out, "report.html")}\n`,
    );
  }
  return agreeing === rows.length ? 0 : 1;
}

main(process.argv.slice(2)).then(
  (code) => {
    process.exitCode = code;
  },
  (error: unknown) => {
    process.stderr.write(
      error instanceof NoetherflowError ? `${error.message}\n` : `${(error as Error).stack ?? error}\n`,
    );
    process.exitCode = 2;
  },
);

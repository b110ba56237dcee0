/** Commands about the experiments of the paper: what there is, one of them, all of them. */
import { mkdir, rm } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { join, resolve } from "node:path";
import type { Command } from "commander";
import { STREAM_VERSION } from "../core/key.ts";
import { createEngine } from "../create.ts";
import { fail, nearest, show } from "../errors.ts";
import { type Experiment, experiments, type Result } from "../experiments/experiment.ts";
import { exists, writeWhole } from "../records/files.ts";
import { saveRun } from "../records/record.ts";
import { shellWord } from "../report/command.ts";
import { figureFiles } from "../report/files.ts";
import { whyNoPNG } from "../report/png.ts";
import { type Provenance, reportHTML, reportJSON, reportTable } from "../report/report.ts";
import { named } from "../report/section.ts";
import { type Job, reproduce } from "../reproduction.ts";
import { VERSION } from "../version.ts";
import { checkTargetFolder } from "./files.ts";
import { count, countTo, pairs } from "./options.ts";
import { EXIT, type Output, table } from "./output.ts";
import type { Start, Started } from "./program.ts";

interface ReproduceFlags {
  readonly only?: string;
  readonly out: string;
  readonly seed: string;
  readonly workers: number;
  readonly quick?: boolean;
  readonly records: boolean;
  readonly json?: boolean;
}

interface RunFlags extends Omit<ReproduceFlags, "only" | "out"> {
  readonly set?: Record<string, number>;
  readonly seeds: number;
  readonly out?: string;
}

const CORES = Math.min(8, availableParallelism());

function experimentOf(id: string): Experiment {
  const known = [...experiments.keys()];
  const found = known.find((k) => k.toLowerCase() === id.toLowerCase());
  return (
    experiments.get(found ?? "") ??
    fail("name", "experiment", `one of ${known.join(", ")}`, show(id), nearest(id, known))
  );
}

export function addExperimentCommands(program: Command, start: Start): void {
  program
    .command("list")
    .description("the experiments, a line each")
    .option("--json", "as data")
    .action((flags: { json?: boolean }) => {
      const { output } = start(flags.json ?? false);
      const all = [...experiments.values()];
      if (flags.json)
        output.data(all.map(({ id, title, question, source }) => ({ id, title, question, source })));
      else output.print(all.map((e) => `${e.id.padEnd(5)} ${e.title}`).join("\n"));
    });

  program
    .command("show")
    .argument("<id>", "E01, E02, ...; list tells them")
    .description("what an experiment asks, predicts and lets you set")
    .option("--json", "as data")
    .action((id: string, flags: { json?: boolean }) => {
      const { output } = start(flags.json ?? false);
      const { measure: _, ...data } = experimentOf(id);
      if (flags.json) return output.data(data);
      const rows = Object.entries(data.parameters).map(([name, p]) => [
        name,
        `${p.value}`,
        `${p.min} ... ${p.max}`,
        p.unit ?? "",
        p.what,
      ]);
      const text = table(["setting", "default", "range", "unit", "what"], rows);
      return output.print(
        [
          `${data.id}  ${data.title}`,
          "",
          data.question,
          "",
          ...(data.formula === undefined ? [] : [`Prediction: ${data.formula}`, ""]),
          `Look for: ${data.claim}`,
          `Source: ${data.source}`,
          "",
          text,
        ].join("\n"),
      );
    });

  program
    .command("run")
    .argument("<id>", "E01, E02, ...; list tells them")
    .description("one experiment, with settings of your own")
    .option(
      "--set <key=value>",
      "a setting; repeatable; show <id> tells ranges and units (default: those of show)",
      pairs,
    )
    .option("--seed <text>", "seed of every random number", "noetherflow")
    .option("--seeds <n>", "repeat with n seeds, at most 10000: <seed>, <seed>/1, ...", countTo(10_000), 1)
    .option(
      "--out <folder>",
      "write report, figures and records there; a report that is there is replaced (default: only print)",
    )
    .option("--workers <n>", "threads for several seeds; the numbers do not depend on it", count, CORES)
    .option("--quick", "small settings: a first look")
    .option("--no-records", "do not write the runs themselves")
    .option("--json", "the result as data; progress as JSON lines")
    .action(async (id: string, flags: RunFlags) => {
      const started = start(flags.json ?? false);
      const experiment = experimentOf(id);
      const settings = { ...(flags.quick ? experiment.quick : {}), ...flags.set };
      const jobs = Array.from({ length: flags.seeds }, (_, i) => ({
        id: experiment.id,
        seed: i === 0 ? flags.seed : `${flags.seed}/${i}`,
        settings,
      }));
      await perform(started, jobs, flags, commandLine(`run ${experiment.id}`, flags));
    });

  program
    .command("reproduce")
    .description("all experiments of the paper: predicted beside measured, and a report")
    .option("--only <ids>", "experiments, separated by commas (default: all)")
    .option("--out <folder>", "where the report goes; one that is there is replaced", "noetherflow-report")
    .option("--seed <text>", "seed of every random number", "noetherflow")
    .option("--workers <n>", "threads; the numbers do not depend on it", count, CORES)
    .option("--quick", "small settings: a first look in seconds, with wider errors")
    .option("--no-records", "do not write the runs themselves")
    .option("--json", "print the report's data instead of the table; progress as JSON lines")
    .action(async (flags: ReproduceFlags) => {
      const started = start(flags.json ?? false);
      const ids = flags.only?.split(",").map((id) => id.trim()) ?? [...experiments.keys()];
      const jobs = [...new Set(ids.map(experimentOf))].map(
        ({ id, quick }): Job => ({ id, seed: flags.seed, settings: flags.quick ? (quick ?? {}) : {} }),
      );
      await perform(started, jobs, flags, commandLine("reproduce", flags));
    });
}

/** What was asked for, without where it goes: the numbers do not depend on that. */
function commandLine(command: string, flags: Partial<ReproduceFlags & RunFlags>): string {
  const words = [
    ...Object.entries(flags.set ?? {}).flatMap(([key, value]) => ["--set", `${key}=${value}`]),
    ...(flags.only === undefined ? [] : ["--only", flags.only]),
    ...(flags.seeds === undefined || flags.seeds === 1 ? [] : ["--seeds", `${flags.seeds}`]),
    ...(flags.seed === undefined ? [] : ["--seed", flags.seed]),
    ...(flags.quick ? ["--quick"] : []),
  ];
  return ["noetherflow", command, ...words.map(shellWord)].join(" ");
}

/** Does the jobs, writes what is asked for, and says how it went. */
async function perform(
  { output, signal, host }: Started,
  jobs: readonly Job[],
  flags: ReproduceFlags | RunFlags,
  command: string,
): Promise<void> {
  if (flags.out !== undefined) await checkTargetFolder("--out", flags.out);
  const results = await reproduce(jobs, {
    workers: flags.workers,
    thread: host.thread,
    signal,
    onProgress: ({ fraction, under, remainingMs }) =>
      output.progress({ fraction, what: under.join("; "), remainingMs }),
  });
  await finish(results, flags, output, command, flags.quick ?? false);
}

/** Writes what is asked for, and says how it went. */
async function finish(
  results: readonly Result[],
  flags: { readonly out?: string; readonly seed: string; readonly records: boolean; readonly json?: boolean },
  output: Output,
  command: string,
  quick: boolean,
): Promise<void> {
  const engine = await createEngine();
  const provenance: Provenance = {
    version: VERSION,
    dtype: engine.dtype,
    variant: engine.variant,
    wasmSha256: engine.wasmSha256,
    streamVersion: STREAM_VERSION,
    host: `Node ${process.versions.node}, ${process.platform} ${process.arch}`,
    seed: flags.seed,
    command,
    quick,
  };
  engine.dispose();
  const data = reportJSON(results, provenance);
  if (flags.out !== undefined) {
    output.progress({ fraction: 1, what: "writing the report" });
    await write(results, data, provenance, flags.out, flags.records);
  }
  const rows = results.flatMap((r) => r.rows);
  const agreeing = rows.filter((r) => r.verdict.agrees).length;
  const whole = results.filter((r) => r.rows.every((row) => row.verdict.agrees)).length;
  if (flags.json) output.data(data);
  else {
    const lines = [
      reportTable(results),
      "",
      `${agreeing} of ${rows.length} rows agree; ${whole} of ${results.length} experiments agree in all rows.`,
    ];
    const png = flags.out === undefined ? undefined : await whyNoPNG();
    if (png !== undefined) lines.push(`No PNG files: ${png}`);
    if (flags.out !== undefined) lines.push(`Report: ${join(resolve(flags.out), "report.html")}`);
    output.print(lines.join("\n"));
  }
  if (agreeing < rows.length) output.exitCode = EXIT.disagrees;
}

/** report.html, report.json, and per experiment its figures and the records of its runs. */
async function write(
  results: readonly Result[],
  data: unknown,
  provenance: Provenance,
  out: string,
  records: boolean,
): Promise<void> {
  const folder = resolve(out);
  await mkdir(folder, { recursive: true });
  // of an earlier report nothing stays in the folders of what is done again
  const isReport = await exists(join(folder, "report.json"));
  for (const { name: called, result } of named(results)) {
    const own = join(folder, called);
    if (isReport) await rm(own, { recursive: true, force: true });
    await mkdir(own, { recursive: true });
    for (const [name, content] of await figureFiles(result)) await writeWhole(join(own, name), content);
    for (const [name, run] of records ? Object.entries(result.runs) : []) {
      const spec = result.specs[name];
      const file = name
        .replaceAll(/[^A-Za-z0-9]+/g, "-")
        .replaceAll(/^-|-$/g, "")
        .toLowerCase();
      if (spec !== undefined) await saveRun(join(own, "runs", file), spec, run, { overwrite: true });
    }
  }
  await writeWhole(join(folder, "report.json"), `${JSON.stringify(data, null, 1)}\n`);
  await writeWhole(join(folder, "report.html"), reportHTML(results, provenance));
}

/** Commands about runs: training a model of one's own with a record on disk, and what is done with records. */
import { extname, resolve } from "node:path";
import { type Command, Option } from "commander";
import { createEngine } from "../create.ts";
import type { Progress } from "../dynamics/options.ts";
import type { Run } from "../dynamics/result.ts";
import { schemes } from "../dynamics/scheme.ts";
import { fail, show } from "../errors.ts";
import { type ExportFormat, exportRun, FORMATS } from "../records/export.ts";
import { readHeader } from "../records/folder.ts";
import { recordRun, resumeRun } from "../records/record.ts";
import { replayRun } from "../records/replay.ts";
import { shellWord } from "../report/command.ts";
import { type Dtype, VARIANTS, type Variant } from "../wasm/module.ts";
import { checkTarget, checkTargetFolder, naming } from "./files.ts";
import {
  atLeastZero,
  count,
  ETA,
  each,
  index,
  MODEL_ARGUMENT,
  number,
  openProblem,
  type ProblemFlags,
  readSymmetries,
  SYMMETRIES,
  WEIGHT_DECAY,
  withProblem,
} from "./options.ts";
import { type AfterInterrupt, EXIT, NOTHING_WRITTEN, type Output } from "./output.ts";
import type { Start } from "./program.ts";

interface TrainFlags extends ProblemFlags {
  readonly scheme: string;
  readonly eta: number;
  readonly steps: number;
  readonly batchSize?: number;
  readonly sampling?: "iid";
  readonly schedule?: string;
  readonly momentum?: number;
  readonly weightDecay: number;
  readonly clip?: number;
  readonly substeps?: number;
  readonly l?: number;
  readonly replicas: number;
  readonly firstReplica: number;
  readonly every?: number;
  readonly symmetry?: string[];
  readonly dtype: Dtype;
  readonly variant: Variant;
  readonly out: string;
  readonly overwrite?: boolean;
  readonly json?: boolean;
}

/** What an interrupted user should know: nothing is there before the run begins. */
const goOn = (folder: string) => (): Promise<AfterInterrupt> =>
  readHeader(folder).then(
    ({ status }) => {
      const resume = `noetherflow resume ${shellWord(folder)}`;
      return status === "unfinished"
        ? { text: `what was done is kept. Go on with: ${resume}`, resume }
        : NOTHING_WRITTEN;
    },
    () => NOTHING_WRITTEN,
  );

const told = (output: Output, what: string) => (p: Progress) =>
  output.progress({
    fraction: p.step / Math.max(1, p.steps),
    what: `${what}, step ${p.step} of ${p.steps}`,
    remainingMs: p.remainingMs,
  });

export function addRunCommands(program: Command, start: Start): void {
  withProblem(program.command("train").argument("<model>", MODEL_ARGUMENT))
    .description("run a scheme on a model and keep a record that can be resumed, replayed and exported")
    .addOption(new Option("--scheme <name>", "how theta moves").choices([...schemes.keys()]).default("sgd"))
    .option("--eta <number>", ETA, atLeastZero, 0.01)
    .option("--steps <n>", "number of steps", count, 1000)
    .option("--batch-size <n>", "S, samples of a batch, of schemes that draw them (default: 1)", count)
    .addOption(
      new Option("--sampling <how>", "how batches are drawn (default: iid; online from a sampler)").choices([
        "iid",
        "without",
        "epochs",
        "online",
      ]),
    )
    .option(
      "--schedule <json>",
      'eta_k / eta by a rule: {"kind":"cosine","warmup":100}; kinds constant, warmup, cosine, step, inverse (default: constant)',
    )
    .option("--momentum <beta>", "of gd and sgd: heavy ball, in [0, 1) (default: 0)", number)
    .option("--weight-decay <gamma>", WEIGHT_DECAY, atLeastZero, 0)
    .option("--clip <norm>", "longest gradient of an update, in loss / theta (default: no limit)", number)
    .option("--substeps <n>", "of sde, svag, modified: updates per step (default: 1)", count)
    .option("--l <n>", "of svag: steps of eta / l with the noise of one of eta (default: 1)", count)
    .option("--replicas <n>", "independent runs", count, 1)
    .option("--first-replica <n>", "number of the first: replica 7 has the same draws in every run", index, 0)
    .option("--every <n>", "steps between records (default: a hundredth of the run)", count)
    .option("--symmetry <which>", `charges to record: ${SYMMETRIES} (default: none)`, each)
    .addOption(new Option("--dtype <type>", "numbers of the run").choices(["f64", "f32"]).default("f64"))
    .addOption(
      new Option("--variant <build>", "fma: faster products with bits of their own, from Node 22 on")
        .choices([...VARIANTS])
        .default("simd"),
    )
    .option("--out <folder>", "the record", "noetherflow-run")
    .option("--overwrite", "replace a record that is there")
    .option("--json", "the outcome as data; progress as JSON lines")
    .action(async (file: string, flags: TrainFlags) => {
      const { output, signal, host } = start(flags.json ?? false);
      await checkTargetFolder("--out", flags.out);
      const engine = await createEngine({ dtype: flags.dtype, variant: flags.variant });
      try {
        const opened = await openProblem(engine, file, flags, host);
        const { problem, theta } = opened;
        const scheme = schemes.get(flags.scheme)!;
        const charges = await readSymmetries(flags.symmetry ?? [], opened, { seed: flags.seed, signal });
        const { momentum, clip, substeps, l, sampling } = flags;
        const batchSize = flags.batchSize ?? (scheme.takes.includes("batchSize") ? 1 : undefined);
        const options = {
          scheme: flags.scheme as "sgd",
          theta,
          eta: flags.eta,
          steps: flags.steps,
          weightDecay: flags.weightDecay,
          replicas: flags.replicas,
          firstReplica: flags.firstReplica,
          seed: flags.seed,
          ...(batchSize === undefined ? {} : { batchSize }),
          ...(sampling === undefined ? {} : { sampling }),
          ...(momentum === undefined ? {} : { momentum }),
          ...(clip === undefined ? {} : { clip }),
          ...(substeps === undefined ? {} : { substeps }),
          ...(l === undefined ? {} : { l }),
          ...(flags.schedule === undefined ? {} : { schedule: rule(flags.schedule) }),
          record: {
            every: flags.every ?? Math.max(1, Math.floor(flags.steps / 100)),
            blockNorms: true,
            ...(problem.N === Infinity ? {} : { loss: "full" as const }),
            charges,
          },
        };
        output.afterInterrupt = goOn(flags.out);
        const run = await recordRun(problem, options, {
          dir: flags.out,
          signal,
          overwrite: flags.overwrite ?? false,
          onProgress: told(output, flags.scheme),
        });
        report(output, run, flags.out);
      } finally {
        engine.dispose();
      }
    });

  program
    .command("resume")
    .argument("<folder>", "of a run that train began")
    .description("go on with a record that was interrupted, to the same bits")
    .option("--json", "the outcome as data; progress as JSON lines")
    .action(async (folder: string, flags: { json?: boolean }) => {
      const { output, signal } = start(flags.json ?? false);
      output.afterInterrupt = goOn(folder);
      const run = await resumeRun(folder, { signal, onProgress: told(output, "resume") }).catch(
        naming(folder),
      );
      report(output, run, folder);
    });

  program
    .command("replay")
    .argument("<folder>", "of a finished run: by train, or under runs/ of a report")
    .description("do a recorded run again and compare every number, bit for bit")
    .option("--json", "the differences as data; progress as JSON lines")
    .action(async (folder: string, flags: { json?: boolean }) => {
      const { output, signal } = start(flags.json ?? false);
      const { same, differences, skipped, run } = await replayRun(folder, {
        signal,
        onProgress: told(output, "replay"),
      }).catch(naming(folder));
      if (flags.json) output.data({ same, hash: run.hash, differences, skipped });
      else if (same) output.print(`the same bits: ${run.hash}`);
      else output.print(["different:", ...differences.map((d) => `  ${d.text}`)].join("\n"));
      if (skipped.length > 0 && !flags.json) output.note(`not compared: ${skipped.join(", ")}`);
      if (!same) output.exitCode = EXIT.disagrees;
    });

  program
    .command("export")
    .argument("<folder>", "of a finished run")
    .description("what a record holds, as one file")
    .addOption(
      new Option("--format <format>", "of the file (default: as --out ends, else csv)").choices(FORMATS),
    )
    .option("--out <file>", "the file (default: run.<format>)")
    .option("--overwrite", "replace a file that is there")
    .option("--json", "the path as data")
    .action(
      async (
        folder: string,
        flags: { format?: ExportFormat; out?: string; overwrite?: boolean; json?: boolean },
      ) => {
        const { output } = start(flags.json ?? false);
        const ending = extname(flags.out ?? "").slice(1);
        const format = flags.format ?? FORMATS.find((known) => known === ending) ?? "csv";
        const path = flags.out ?? `run.${format}`;
        await checkTarget("--out", path);
        await exportRun(folder, format, path, { overwrite: flags.overwrite ?? false }).catch(naming(folder));
        if (flags.json) output.data({ file: resolve(path), format });
        else output.print(resolve(path));
      },
    );
}

function rule(text: string): { kind: "constant" } {
  try {
    return JSON.parse(text) as { kind: "constant" };
  } catch {
    return fail("shape", "--schedule", 'a rule as JSON, {"kind":"cosine"}', show(text));
  }
}

function report(output: Output, run: Run, folder: string): void {
  const { loss, charges, k } = run.series;
  const mean = (series: Float64Array | undefined, record: number) => {
    if (series === undefined || k.length === 0) return null;
    let sum = 0;
    for (let r = 0; r < run.replicas; r++) sum += series[record * run.replicas + r]!;
    return sum / run.replicas;
  };
  const last = k.length - 1;
  const ends = Object.entries(charges).map(([name, C]) => ({
    charge: name,
    start: mean(C, 0),
    end: mean(C, last),
  }));
  if (output.json) {
    output.data({
      folder: resolve(folder),
      status: run.status,
      steps: run.steps,
      hash: run.hash,
      diverged: run.diverged,
      replicas: run.replicas,
      recorded: { from: k[0] ?? null, to: k[last] ?? null },
      loss: { start: mean(loss, 0), end: mean(loss, last) },
      charges: ends,
    });
  } else {
    const lines = [`${run.status} after ${run.steps} steps, hash ${run.hash.slice(0, 16)}`];
    const means = run.replicas === 1 ? "" : `, mean of ${run.replicas} replicas`;
    if (k.length > 0) lines.push(`from step 0 to step ${k[last]}, the last that was recorded${means}:`);
    if (loss !== undefined)
      lines.push(`  loss ${mean(loss, 0)!.toPrecision(6)} -> ${mean(loss, last)!.toPrecision(6)}`);
    for (const { charge, start, end } of ends)
      lines.push(`  charge of ${charge}: ${start!.toPrecision(6)} -> ${end!.toPrecision(6)}`);
    for (const d of run.diverged.slice(0, 5)) lines.push(`replica ${d.replica} diverged at step ${d.step}`);
    output.print([...lines, `record: ${resolve(folder)}`].join("\n"));
  }
  if (run.status === "diverged") output.exitCode = EXIT.disagrees;
}

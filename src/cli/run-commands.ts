/** Commands about runs: training a model of one's own with a record on disk, and what is done with records. */
import { resolve } from "node:path";
import { type Command, Option } from "commander";
import { createEngine } from "../create.ts";
import type { Progress } from "../dynamics/options.ts";
import type { Run } from "../dynamics/result.ts";
import { schemes } from "../dynamics/scheme.ts";
import { fail, show } from "../errors.ts";
import { type ExportFormat, exportRun } from "../records/export.ts";
import { recordRun, resumeRun } from "../records/record.ts";
import { replayRun } from "../records/replay.ts";
import {
  count,
  each,
  number,
  openProblem,
  type ProblemFlags,
  readSymmetries,
  withProblem,
} from "./options.ts";
import { EXIT, type Output } from "./output.ts";

type Start = (json: boolean) => { output: Output; signal: AbortSignal };

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
  readonly every?: number;
  readonly symmetry?: string[];
  readonly out: string;
  readonly overwrite?: boolean;
  readonly json?: boolean;
}

const told = (output: Output, what: string) => (p: Progress) =>
  output.progress({
    fraction: p.step / Math.max(1, p.steps),
    what: `${what}, step ${p.step} of ${p.steps}`,
    remainingMs: p.remainingMs,
  });

export function addRunCommands(program: Command, start: Start): void {
  withProblem(program.command("train <model>"))
    .description("run a scheme on a model and keep a record that can be resumed, replayed and exported")
    .addOption(new Option("--scheme <name>", "how theta moves").choices([...schemes.keys()]).default("sgd"))
    .option("--eta <number>", "learning rate, in theta^2 / loss", number, 0.01)
    .option("--steps <n>", "steps", count, 1000)
    .option("--batch-size <n>", "S, samples of a batch (schemes that draw them; default: 1)", count)
    .addOption(
      new Option(
        "--sampling <how>",
        "how batches are drawn (default: iid, or online from a sampler)",
      ).choices(["iid", "without", "epochs", "online"]),
    )
    .option("--schedule <json>", `eta_k / eta by a rule: '{"kind":"cosine","warmup":100}'`)
    .option("--momentum <beta>", "heavy ball", number)
    .option("--weight-decay <gamma>", "gamma of gamma |theta|^2, half of PyTorch's weight_decay", number, 0)
    .option("--clip <norm>", "longest gradient", number)
    .option("--substeps <n>", "updates per step of sde, svag, modified", count)
    .option("-l, --l <n>", "of svag", number)
    .option("--replicas <n>", "independent runs", count, 1)
    .option("--every <n>", "steps between records (default: a hundredth of the run)", count)
    .option(
      "--symmetry <which>",
      "charges to record: rescaling:U,W, scaling:W, neuron:U,W,3, a .json file; repeatable",
      each,
    )
    .option("--out <folder>", "the record", "noetherflow-run")
    .option("--overwrite", "replace a record that is there")
    .option("--json", "the outcome as data; progress as JSON lines")
    .action(async (file: string, flags: TrainFlags) => {
      const { output, signal } = start(flags.json ?? false);
      const engine = await createEngine();
      const { problem, theta, generators } = await openProblem(engine, file, flags);
      const scheme = schemes.get(flags.scheme)!;
      const charges = await readSymmetries(flags.symmetry ?? [], generators);
      const { momentum, clip, substeps, l, sampling } = flags;
      const batchSize = flags.batchSize ?? (scheme.takes.includes("batchSize") ? 1 : undefined);
      const options = {
        scheme: flags.scheme as "sgd",
        theta,
        eta: flags.eta,
        steps: flags.steps,
        weightDecay: flags.weightDecay,
        replicas: flags.replicas,
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
      const run = await recordRun(problem, options, {
        dir: flags.out,
        signal,
        overwrite: flags.overwrite ?? false,
        onProgress: told(output, flags.scheme),
      });
      report(output, run, flags.out);
      engine.dispose();
    });

  program
    .command("resume <folder>")
    .description("go on with a record that was interrupted, to the same bits")
    .option("--json", "the outcome as data")
    .action(async (folder: string, flags: { json?: boolean }) => {
      const { output, signal } = start(flags.json ?? false);
      report(output, await resumeRun(folder, { signal, onProgress: told(output, "resume") }), folder);
    });

  program
    .command("replay <folder>")
    .description("do a recorded run again and compare every number, bit for bit")
    .option("--json", "the differences as data")
    .action(async (folder: string, flags: { json?: boolean }) => {
      const { output, signal } = start(flags.json ?? false);
      const { same, differences, skipped, run } = await replayRun(folder, {
        signal,
        onProgress: told(output, "replay"),
      });
      if (flags.json) output.data({ same, hash: run.hash, differences, skipped });
      else if (same) output.print(`the same bits: ${run.hash}`);
      else output.print(["different:", ...differences.map((d) => `  ${d.text}`)].join("\n"));
      if (skipped.length > 0 && !flags.json) output.note(`not compared: ${skipped.join(", ")}`);
      if (!same) process.exitCode = EXIT.disagrees;
    });

  program
    .command("export <folder>")
    .description("what a record holds, as one file")
    .addOption(
      new Option("--format <format>", "of the file")
        .choices(["csv", "json", "npy", "npz", "parquet"])
        .default("csv"),
    )
    .option("--out <file>", "the file (default: run.<format>)")
    .option("--overwrite", "replace a file that is there")
    .action(async (folder: string, flags: { format: ExportFormat; out?: string; overwrite?: boolean }) => {
      const { output } = start(false);
      const path = flags.out ?? `run.${flags.format}`;
      await exportRun(folder, flags.format, path, { overwrite: flags.overwrite ?? false });
      output.print(resolve(path));
    });
}

function rule(text: string): { kind: "constant" } {
  try {
    return JSON.parse(text) as { kind: "constant" };
  } catch {
    return fail("shape", "--schedule", "JSON", show(text));
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
      loss: { start: mean(loss, 0), end: mean(loss, last) },
      charges: ends,
    });
  } else {
    const lines = [`${run.status} after ${run.steps} steps, hash ${run.hash.slice(0, 16)}`];
    if (loss !== undefined)
      lines.push(`loss ${mean(loss, 0)!.toPrecision(6)} -> ${mean(loss, last)!.toPrecision(6)}`);
    for (const { charge, start, end } of ends)
      lines.push(`charge of ${charge}: ${start!.toPrecision(6)} -> ${end!.toPrecision(6)}`);
    for (const d of run.diverged.slice(0, 5)) lines.push(`replica ${d.replica} diverged at step ${d.step}`);
    output.print([...lines, `record: ${resolve(folder)}`].join("\n"));
  }
  if (run.status === "diverged") process.exitCode = EXIT.disagrees;
}

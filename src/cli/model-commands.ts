/** Commands about a model of one's own: its symmetries, its equilibrium, its noise and curvature. */
import { type Command, Option } from "commander";
import { createEngine } from "../create.ts";
import type { Engine } from "../engine.ts";
import { fail } from "../errors.ts";
import type { HessianTraceOptions } from "../problem/curvature.ts";
import type { Problem } from "../problem.ts";
import { writeWhole } from "../records/files.ts";
import { encodeNpz } from "../records/npy.ts";
import { symmetryPage } from "../report/symmetries.ts";
import type { Estimate } from "../stats/estimate.ts";
import type { Generator } from "../symmetry/generator.ts";
import { checkTarget } from "./files.ts";
import {
  count,
  each,
  MODEL_ARGUMENT,
  type Opened,
  openProblem,
  type ProblemFlags,
  readSymmetries,
  type StrengthFlags,
  SYMMETRIES,
  searched,
  strengthOf,
  withProblem,
  withStrength,
} from "./options.ts";
import { EXIT, type Output, table } from "./output.ts";
import type { Start, Started } from "./program.ts";

type Flags = ProblemFlags & StrengthFlags & { readonly json?: boolean };
type Restrict = "full" | "blocks" | "diagonal";
type TraceMethod = NonNullable<HessianTraceOptions["method"]>;

const short = (x: number): string => (Number.isFinite(x) ? String(Number(x.toPrecision(6))) : String(x));
const shown = ({ value, stdErr, method }: Estimate): string =>
  method === "exact" || !(stdErr > 0) ? short(value) : `${short(value)} +- ${short(stdErr)}`;

/** Opens what the command line names, and closes it again. */
async function opened(
  { host }: Started,
  file: string,
  flags: ProblemFlags,
  act: (of: Opened & { readonly engine: Engine }) => void | Promise<void>,
): Promise<void> {
  const engine = await createEngine();
  try {
    await act({
      ...(await openProblem(engine, file, flags, { library: host.library, needsFinite: true })),
      engine,
    });
  } finally {
    engine.dispose();
  }
}

export function addModelCommands(program: Command, start: Start): void {
  addSymmetries(program, start);
  addEquilibrium(program, start);
  addMeasure(program, start);
  addCheck(program, start);
}

/** A command about a model. */
const onModel = (program: Command, name: string): Command =>
  withProblem(program.command(name).argument("<model>", MODEL_ARGUMENT));

function addSymmetries(program: Command, start: Start): void {
  withStrength(onModel(program, "symmetries"))
    .description("find the symmetries of a loss and say where noise moves their charges")
    .option("--symmetry <which>", `to report instead of a search: ${SYMMETRIES} (default: search)`, each)
    .addOption(
      new Option("--form <form>", "fields to search")
        .choices(["symmetric", "general", "affine"])
        .default("symmetric"),
    )
    .addOption(
      new Option("--restrict <to>", "actions to search (default: as many as the size allows)").choices([
        "full",
        "blocks",
        "diagonal",
      ]),
    )
    .option("--html <file>", "write the table as a page, too (default: none)")
    .option("--json", "the table as data")
    .addHelpText(
      "after",
      `
Columns: class 1 has an equilibrium, class 2 (a scale) only with weight decay; GD keeps, whether gradient descent conserves the charge;
C, the charge at theta; dC/dt, its drift by noise and weight decay (a step of SGD adds eta/2 gbar A gbar, gbar the mean gradient: 0 at a minimum,
of the same order far from one); ln N+/N-, noise that raises C over noise that lowers it; lambda*, C*, where on the orbit of theta noise
balances and the charge there; tau2, steps, the time it takes; tau2/tau1, that over the time in which the loss falls.`,
    )
    .action(
      async (
        file: string,
        flags: Flags & {
          symmetry?: string[];
          form: "symmetric" | "general" | "affine";
          restrict?: Restrict;
          html?: string;
        },
      ) => {
        const started = start(flags.json ?? false);
        const { output, signal } = started;
        if (flags.html !== undefined) await checkTarget("--html", flags.html);
        await opened(started, file, flags, async (of) => {
          const { problem, theta, generators } = of;
          const { form, restrict, seed, symmetry } = flags;
          const summary = await problem.report(theta, {
            ...strengthOf(flags),
            seed,
            signal,
            onProgress: told(output, "symmetries"),
            ...(symmetry === undefined
              ? { generators, discover: { form, ...(restrict === undefined ? {} : { restrict }) } }
              : { generators: await readSymmetries(symmetry, of, { seed, signal }) }),
          });
          if (flags.html !== undefined)
            await writeWhole(flags.html, symmetryPage(summary, { title: `Symmetries of ${file}` }));
          if (flags.json) output.data(summary);
          else output.print(summary.toString());
        });
      },
    );
}

function addEquilibrium(program: Command, start: Start): void {
  withStrength(onModel(program, "equilibrium"))
    .description(
      "noise equilibrium: where on the orbit of theta the charge of a symmetry comes to rest (Theorem 1)",
    )
    .option("--symmetry <which>", `${SYMMETRIES} (default: all that a search finds)`, each)
    .option(
      "--group <U,W>",
      "instead: all double rotations of a product U W at once, in closed form (default: none)",
    )
    .option(
      "--save <file.npz>",
      "parameters at the equilibrium of one symmetry, or of the group (default: none)",
    )
    .option("--force", "also where the field is no exact symmetry")
    .option("--json", "as data")
    .action(
      async (
        file: string,
        flags: Flags & { symmetry?: string[]; group?: string; save?: string; force?: boolean },
      ) => {
        const started = start(flags.json ?? false);
        if (flags.group !== undefined && flags.symmetry !== undefined)
          fail("unsupported", "equilibrium", "--symmetry or --group", "both");
        if (flags.save !== undefined) await checkTarget("--save", flags.save);
        await opened(started, file, flags, (of) =>
          flags.group !== undefined
            ? groupEquilibrium(started.output, of, flags, flags.group)
            : equilibria(started, of, flags),
        );
      },
    );
}

interface EquilibriumFlags extends Flags {
  readonly symmetry?: string[];
  readonly save?: string;
  readonly force?: boolean;
}

async function equilibria({ output, signal }: Started, of: Opened, flags: EquilibriumFlags): Promise<void> {
  const { problem, theta } = of;
  const { seed } = flags;
  const chosen =
    flags.symmetry !== undefined
      ? await readSymmetries(flags.symmetry, of, { seed, signal })
      : await searched(problem, { seed, signal, onProgress: told(output, "search") });
  if (flags.save !== undefined && Object.keys(chosen).length !== 1)
    fail("unsupported", "--save", "one symmetry", `${Object.keys(chosen).length}`, "Name one by --symmetry.");
  const strength = strengthOf(flags);
  const found = Object.entries(chosen).map(([name, A]) => ({
    symmetry: name,
    charge: problem.charge(theta, A),
    flow: problem.noetherFlow(theta, A, strength).total,
    equilibrium: problem.equilibrium(theta, A, { ...strength, ...(flags.force ? { force: true } : {}) }),
  }));
  if (flags.save !== undefined) {
    const [{ symmetry, equilibrium }] = found as [(typeof found)[number]];
    if (equilibrium.status !== "finite")
      fail("unsupported", "--save", `a finite equilibrium of ${symmetry}`, equilibrium.status);
    await saveTheta(flags.save, problem, problem.transform(theta, chosen[symmetry]!, equilibrium.lambda));
  }
  if (flags.json) return output.data(found);
  const rows = found.map(({ symmetry, charge, flow, equilibrium: e }) => {
    const there = e.status === "finite" ? [e.lambda, e.charge, e.rate].map(short) : ["-", "-", "-"];
    return [symmetry, short(charge), short(flow), e.status, ...there];
  });
  if (rows.length === 0) output.print("no symmetry found");
  else output.print(table(["symmetry", "C", "dC/dt", "status", "lambda*", "C*", "rate"], rows));
  for (const { symmetry, equilibrium } of found)
    if ("reason" in equilibrium && equilibrium.reason) output.note(`${symmetry}: ${equilibrium.reason}`);
}

async function groupEquilibrium(
  output: Output,
  { problem, theta, engine }: Opened & { engine: Engine },
  flags: EquilibriumFlags,
  group: string,
): Promise<void> {
  const [U, W, ...rest] = group.split(",").map((name) => name.trim());
  if (!U || !W || rest.length > 0) return fail("shape", "--group", "two blocks, U,W", JSON.stringify(group));
  const at = problem.groupEquilibrium(theta, U, W, {
    ...strengthOf(flags),
    ...(flags.force ? { force: true } : {}),
  });
  if (flags.save !== undefined) await saveTheta(flags.save, problem, at.theta);
  const spectrum = (of: typeof theta) => {
    const { Q } = problem.noiseMoments(of, U, W);
    const h = Math.round(Math.sqrt(Q.length));
    return [...engine.dense.symmetricEigen({ rows: h, cols: h, values: Float64Array.from(Q) }).values];
  };
  const [now, there] = [spectrum(theta), spectrum(at.theta)];
  if (flags.json) return output.data({ product: [U, W], Q: now, QThere: there, ...at });
  output.print(
    table(
      [`eigenvalues of Q = ${U}^T ${U} - ${W} ${W}^T`, "now", "at the equilibrium"],
      now.map((q, i) => [`${i}`, short(q), short(there[i]!)]),
    ),
  );
}

/** Parameters by block, as an .npz. */
async function saveTheta(path: string, problem: Problem, theta: ArrayLike<number>): Promise<void> {
  const named = problem.named(theta as Float64Array);
  const arrays = problem.model.blocks.map(({ name, shape }) => [
    name,
    { shape: [...shape], values: Float64Array.from(named[name]!) },
  ]);
  await writeWhole(path, encodeNpz(Object.fromEntries(arrays)));
}

function addMeasure(program: Command, start: Start): void {
  onModel(program, "measure")
    .description("loss, gradient, gradient noise and curvature at given parameters")
    .option("--probes <n>", "probe vectors of estimated traces (default: 64)", count)
    .addOption(
      new Option("--trace <method>", "trace of the Hessian")
        .choices(["exact", "basis", "hutchinson", "hutch++", "xtrace"])
        .default("hutch++"),
    )
    .option(
      "--batch-size <n>",
      "S of the minibatches whose noise is measured where batch ops couple samples",
      count,
      16,
    )
    .option("--symmetry <which>", `also the charge and Tr[Sigma A] of ${SYMMETRIES} (default: none)`, each)
    .option("--json", "as data")
    .action(
      async (
        file: string,
        flags: ProblemFlags & {
          json?: boolean;
          probes?: number;
          trace: TraceMethod;
          batchSize: number;
          symmetry?: string[];
        },
      ) => {
        const started = start(flags.json ?? false);
        await opened(started, file, flags, async (of) => {
          const { signal } = started;
          const chosen = await readSymmetries(flags.symmetry ?? [], of, { seed: flags.seed, signal });
          await measure(started, of, flags, chosen);
        });
      },
    );
}

/** Minibatches that the noise of a loss with batch ops is measured on. */
const BATCHES = 4096;

async function measure(
  { output, signal }: Started,
  { problem, theta }: Opened,
  flags: { json?: boolean; probes?: number; trace: TraceMethod; batchSize: number; seed: string },
  chosen: Readonly<Record<string, Generator>>,
): Promise<void> {
  const { probes = 64, trace: method, seed, batchSize } = flags;
  const isDrawn = method !== "exact" && method !== "basis";
  if (!isDrawn && flags.probes !== undefined)
    fail("unsupported", "--probes", "an estimated trace", `--trace ${method}`);
  const loss = problem.loss(theta) as number;
  let squares = 0;
  for (const g of problem.gradient(theta)) squares += g * g;
  const gradientNorm = Math.sqrt(squares);
  const hessianTrace = await problem.hessianTrace(theta, {
    ...(isDrawn ? { method, probes, seed } : { method }),
    signal,
    onProgress: told(output, "trace of the Hessian", 0, 0.5),
  });
  const { max, min } = await problem.sharpness(theta, {
    signal,
    onProgress: told(output, "sharpness", 0.5, 0.8),
  });
  output.progress({ fraction: 0.8, what: "gradient noise" });
  // where samples of a batch see each other, no sample has a gradient of its own
  const ofBatches = problem.isCoupled
    ? await problem.minibatchNoise(theta, { batchSize, batches: BATCHES, seed, signal })
    : null;
  const noiseTrace = ofBatches?.trace ?? problem.noiseTrace(theta);
  const symmetries = Object.entries(chosen).map(([symmetry, A]) => ({
    symmetry,
    charge: problem.charge(theta, A),
    noisePower: ofBatches?.power(A) ?? problem.noisePower(theta, A),
  }));
  if (flags.json)
    return output.data({
      N: problem.N,
      P: problem.P,
      loss,
      gradientNorm,
      noiseTrace,
      hessianTrace,
      largestEigenvalue: max,
      smallestEigenvalue: min,
      symmetries,
    });
  const noise =
    ofBatches === null ? "gradient noise of one sample" : `S = ${batchSize}, S Cov of a minibatch`;
  return output.print(
    table(
      ["quantity", "value"],
      [
        ["samples N, parameters P", `${problem.N}, ${problem.P}`],
        ["loss L", short(loss)],
        ["|grad L|", short(gradientNorm)],
        [`Tr Sigma, ${noise}`, shown(noiseTrace)],
        [`Tr of the Hessian (${hessianTrace.method})`, shown(hessianTrace)],
        ["largest eigenvalue of the Hessian", `${short(max.value)} +- ${short(max.residual ?? 0)}`],
        ["smallest eigenvalue", `${short(min.value)} +- ${short(min.residual ?? 0)}`],
        ...symmetries.flatMap(({ symmetry, charge, noisePower }) => [
          [`charge of ${symmetry}`, short(charge)],
          [`Tr[Sigma A] of ${symmetry}`, shown(noisePower)],
        ]),
      ],
    ),
  );
}

function addCheck(program: Command, start: Start): void {
  onModel(program, "check")
    .description("is a field a symmetry of the loss of every sample? exit code 1 says no")
    .requiredOption("--symmetry <which>", SYMMETRIES, each)
    .option("--json", "as data")
    .action(async (file: string, flags: ProblemFlags & { json?: boolean; symmetry: string[] }) => {
      const started = start(flags.json ?? false);
      const { output, signal } = started;
      await opened(started, file, flags, async (of) => {
        const { problem, theta } = of;
        const chosen = await readSymmetries(flags.symmetry, of, { seed: flags.seed, signal });
        const found = Object.entries(chosen).map(([symmetry, A]) => ({
          symmetry,
          ...problem.checkSymmetry(A, { theta, seed: flags.seed }),
        }));
        if (flags.json) output.data(found);
        else
          output.print(
            table(
              ["symmetry", "verdict", "defect"],
              found.map((f) => [f.symmetry, f.verdict, short(f.defect)]),
            ),
          );
        if (found.some((f) => f.verdict !== "exact")) output.exitCode = EXIT.disagrees;
      });
    });
}

/** Progress of a part of the work, from one share of the whole to another. */
const told =
  (output: Output, what: string, from = 0, to = 1) =>
  ({ done, total }: { done: number; total: number }): void =>
    output.progress({ fraction: from + ((to - from) * done) / total, what });

/** Commands about a model of one's own: its symmetries, its equilibrium, its noise and curvature. */
import { writeFile } from "node:fs/promises";
import { type Command, Option } from "commander";
import { createEngine } from "../create.ts";
import { fail } from "../errors.ts";
import { symmetryPage } from "../report/symmetries.ts";
import type { Estimate } from "../stats/estimate.ts";
import {
  count,
  each,
  openProblem,
  type ProblemFlags,
  readSymmetries,
  type StrengthFlags,
  strengthOf,
  withProblem,
  withStrength,
} from "./options.ts";
import { EXIT, type Output, table } from "./output.ts";

type Start = (json: boolean) => { output: Output; signal: AbortSignal };

const short = (x: number): string => (Number.isFinite(x) ? String(Number(x.toPrecision(6))) : String(x));
const shown = ({ value, stdErr, method }: Estimate): string =>
  method === "exact" || !(stdErr > 0) ? short(value) : `${short(value)} +- ${short(stdErr)}`;

export function addModelCommands(program: Command, start: Start): void {
  withStrength(withProblem(program.command("symmetries <model>")))
    .description("find the symmetries of a loss and say where noise moves their charges")
    .option(
      "--symmetry <which>",
      "one to report instead of a search: rescaling:U,W, scaling:W, neuron:U,W,3, a .json file; repeatable",
      each,
    )
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
    .option("--html <file>", "write the table as a page, too")
    .option("--json", "the table as data")
    .action(
      async (
        file: string,
        flags: Flags & { symmetry?: string[]; form: "symmetric"; restrict?: "full"; html?: string },
      ) => {
        const { output, signal } = start(flags.json ?? false);
        const engine = await createEngine();
        const { problem, theta, generators } = await openProblem(engine, file, flags, true);
        const chosen =
          flags.symmetry === undefined ? undefined : await readSymmetries(flags.symmetry, generators);
        const { form, restrict, seed } = flags;
        const summary = await problem.report(theta, {
          ...strengthOf(flags),
          seed,
          ...(chosen === undefined
            ? { generators, discover: { form, ...(restrict === undefined ? {} : { restrict }) } }
            : { generators: chosen }),
          signal,
          onProgress: ({ done, total }) => output.progress({ fraction: done / total, what: "symmetries" }),
        });
        if (flags.html !== undefined)
          await writeFile(flags.html, symmetryPage(summary, { title: `Symmetries of ${file}` }));
        if (flags.json) output.data(summary);
        else output.print(summary.toString());
        engine.dispose();
      },
    );

  withStrength(withProblem(program.command("equilibrium <model>")))
    .description(
      "noise equilibrium (Theorem 1) of one symmetry: where on the orbit of theta the charge comes to rest",
    )
    .requiredOption(
      "--symmetry <which>",
      "rescaling:U,W, scaling:W, neuron:U,W,3, a generator of the model file, or a .json file",
      each,
    )
    .option("--force", "also where the field is no exact symmetry")
    .option("--json", "as data")
    .action(async (file: string, flags: Flags & { symmetry: string[]; force?: boolean }) => {
      const { output } = start(flags.json ?? false);
      const engine = await createEngine();
      const { problem, theta, generators } = await openProblem(engine, file, flags, true);
      const chosen = await readSymmetries(flags.symmetry, generators);
      const found = Object.entries(chosen).map(([name, A]) => {
        const options = { ...strengthOf(flags), ...(flags.force ? { force: true } : {}) };
        return {
          symmetry: name,
          charge: problem.charge(theta, A),
          flow: problem.noetherFlow(theta, A, strengthOf(flags)).total,
          equilibrium: problem.equilibrium(theta, A, options),
        };
      });
      if (flags.json) output.data(found);
      else
        output.print(
          table(
            ["symmetry", "C", "dC/dt", "status", "lambda*", "C there", "rate"],
            found.map(({ symmetry, charge, flow, equilibrium: e }) => {
              const at = e.status === "finite" ? e : null;
              return [
                symmetry,
                short(charge),
                short(flow),
                e.status,
                at ? short(at.lambda) : "-",
                at ? short(at.charge) : "-",
                at ? short(at.rate) : "-",
              ];
            }),
          ),
        );
      engine.dispose();
    });

  withProblem(program.command("measure <model>"))
    .description("loss, gradient, gradient noise and curvature at given parameters")
    .option("--probes <n>", "probe vectors of estimated traces", count, 64)
    .addOption(
      new Option("--trace <method>", "trace of the Hessian")
        .choices(["exact", "hutchinson", "hutch++", "xtrace"])
        .default("hutch++"),
    )
    .option("--symmetry <which>", "also the noise power Tr[Sigma A] of a symmetry; repeatable", each)
    .option("--json", "as data")
    .action(async (file: string, flags: Flags & { probes: number; trace: "exact"; symmetry?: string[] }) => {
      const { output, signal } = start(flags.json ?? false);
      const engine = await createEngine();
      const { problem, theta, generators } = await openProblem(engine, file, flags, true);
      const chosen = await readSymmetries(flags.symmetry ?? [], generators);
      const gradient = problem.gradient(theta);
      let squares = 0;
      for (const g of gradient) squares += g * g;
      const norm = Math.sqrt(squares);
      const { probes, trace, seed } = flags;
      output.progress({ fraction: 0.2, what: "trace of the Hessian" });
      const hessianTrace = await problem.hessianTrace(
        theta,
        trace === "exact" ? { method: trace, signal } : { method: trace, probes, seed, signal },
      );
      output.progress({ fraction: 0.6, what: "sharpness" });
      const { max, min } = await problem.sharpness(theta, { signal });
      const noise = problem.noiseTrace(theta);
      const powers = Object.entries(chosen).map(([name, A]) => ({
        symmetry: name,
        charge: problem.charge(theta, A),
        noisePower: problem.noisePower(theta, A),
      }));
      const found = {
        N: problem.N,
        P: problem.P,
        loss: problem.loss(theta),
        gradientNorm: norm,
        noiseTrace: noise,
        hessianTrace,
        largestEigenvalue: max,
        smallestEigenvalue: min,
        symmetries: powers,
      };
      if (flags.json) output.data(found);
      else
        output.print(
          table(
            ["quantity", "value"],
            [
              ["samples N, parameters P", `${problem.N}, ${problem.P}`],
              ["loss L", short(found.loss)],
              ["|grad L|", short(norm)],
              ["Tr Sigma, gradient noise of one sample", shown(noise)],
              [`Tr of the Hessian (${hessianTrace.method})`, shown(hessianTrace)],
              ["largest eigenvalue of the Hessian", `${short(max.value)} +- ${short(max.residual ?? 0)}`],
              ["smallest eigenvalue", `${short(min.value)} +- ${short(min.residual ?? 0)}`],
              ...powers.flatMap(({ symmetry, charge, noisePower }) => [
                [`charge of ${symmetry}`, short(charge)],
                [`Tr[Sigma A] of ${symmetry}`, shown(noisePower)],
              ]),
            ],
          ),
        );
      engine.dispose();
    });

  withStrength(withProblem(program.command("check <model>")))
    .description("is a field a symmetry of the loss of every sample?")
    .requiredOption("--symmetry <which>", "as for equilibrium; repeatable", each)
    .option("--json", "as data")
    .action(async (file: string, flags: Flags & { symmetry: string[] }) => {
      const { output } = start(flags.json ?? false);
      const engine = await createEngine();
      const { problem, theta, generators } = await openProblem(engine, file, flags, true);
      const chosen = await readSymmetries(flags.symmetry, generators);
      if (Object.keys(chosen).length === 0) fail("range", "check", "a symmetry to check", "none");
      const found = Object.entries(chosen).map(([name, A]) => ({
        symmetry: name,
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
      if (found.some((f) => f.verdict !== "exact")) process.exitCode = EXIT.disagrees;
      engine.dispose();
    });
}

type Flags = ProblemFlags & StrengthFlags & { readonly json?: boolean };

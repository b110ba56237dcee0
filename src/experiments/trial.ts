import type { SimulateOptions } from "../dynamics/options.ts";
import type { Run } from "../dynamics/result.ts";
import type { Engine } from "../engine.ts";
import { fail } from "../errors.ts";
import type { Node } from "../graph/node.ts";
import type { Problem } from "../problem.ts";
import type { RunSpec } from "../spec.ts";
import { type Estimate, exact, meanOf } from "../stats/estimate.ts";
import { judge, judgeInLimit, type Prediction } from "../stats/verdict.ts";
import type { Generator } from "../symmetry/generator.ts";
import type { Control, Figure, Findings, Row, SymmetryTable } from "./experiment.ts";

/** What a row is about: the case, and the quantity with its formula. */
export interface About {
  readonly setting: string;
  readonly quantity: string;
}

/**
 * One execution of an experiment: runs with seeds of their own, progress over all of them, and the rows, figures and records
 * they end in.
 */
export class Trial {
  readonly #id: string;
  readonly #seed: string;
  readonly #control: Control;
  /** Sum of the shares of all runs. */
  readonly #total: number;
  #done = 0;
  readonly #rows: Row[] = [];
  readonly #figures: Figure[] = [];
  readonly #runs: Record<string, Run> = {};
  readonly #specs: Record<string, RunSpec> = {};
  readonly #symmetries: SymmetryTable[] = [];

  /** @param total sum of the shares of all runs, in any unit of work */
  constructor(
    id: string,
    readonly engine: Engine,
    seed: string,
    control: Control,
    total: number,
  ) {
    this.#id = id;
    this.#seed = seed;
    this.#control = control;
    this.#total = total;
  }

  /** A seed of this experiment, by name. */
  seedOf(name: string): string {
    return `${this.#seed}/${this.#id}/${name}`;
  }

  get signal(): AbortSignal | undefined {
    return this.#control.signal;
  }

  /** Runs, reports progress, and keeps the run and its description under its name. The seed is that of the name when absent. */
  async run(
    name: string,
    problem: Problem,
    options: SimulateOptions<Generator, Node>,
    share = 1,
  ): Promise<Run> {
    const full = { seed: this.seedOf(name), ...options };
    this.#specs[name] = problem.describe(full);
    const { signal } = this.#control;
    const run = await problem.simulate({
      ...full,
      ...(signal === undefined ? {} : { signal }),
      onProgress: (p) => this.progress(share * (p.step / Math.max(1, p.steps)), name),
    });
    this.#done += share;
    this.#runs[name] = run;
    // where a lost replica is part of the question, the experiment says so by onDiverge
    if (run.status === "diverged" && options.onDiverge === undefined) {
      const { replica, step } = run.diverged[0]!;
      fail(
        "nonfinite",
        `${this.#id}: ${name}`,
        "runs that stay finite",
        `replica ${replica} lost at step ${step}`,
        "Choose a smaller step size.",
      );
    }
    return run;
  }

  /** Work of `share` under way beside the runs that are done. */
  progress(share: number, what: string): void {
    this.#control.onProgress?.(Math.min(1, (this.#done + share) / this.#total), what);
  }

  /** Work that was no run. */
  advance(share: number): void {
    this.#done += share;
  }

  /** A row whose prediction errs by `modelError` at most, for the terms named. */
  row(about: About, predicted: Prediction, measured: Estimate): void {
    const { setting, quantity } = about;
    this.#rows.push({ setting, quantity, predicted, measured, verdict: judge(measured, predicted) });
  }

  /** A row whose gap has to halve where eta does: pairs at eta and at eta / 2. */
  limitRow(
    about: About,
    at: { readonly predicted: Prediction; readonly measured: Estimate },
    half: { readonly predicted: Prediction; readonly measured: Estimate },
  ): void {
    const { setting, quantity } = about;
    const { predicted, measured } = at;
    this.#rows.push({ setting, quantity, predicted, measured, verdict: judgeInLimit(at, half) });
  }

  /** A row about something that must never happen: how often it did, out of `count`. */
  never(about: About, times: number, count: number): void {
    this.row(about, { value: 0, modelError: 0, neglects: "nothing: exact" }, exact(times, count));
  }

  figure(figure: Figure): void {
    this.#figures.push(figure);
  }

  symmetries(table: SymmetryTable): void {
    this.#symmetries.push(table);
  }

  get findings(): Findings {
    return {
      rows: this.#rows,
      figures: this.#figures,
      runs: this.#runs,
      specs: this.#specs,
      ...(this.#symmetries.length === 0 ? {} : { symmetries: this.#symmetries }),
    };
  }
}

/** Mean over the replicas of a run of f(replica), with its standard error; exact for a single one that no chance entered. */
export function overReplicas(run: Run, f: (replica: number) => number): Estimate {
  const terms = Float64Array.from({ length: run.replicas }, (_, r) => f(r));
  return run.replicas === 1 ? exact(terms[0]!, 1) : meanOf(terms, `mean over ${run.replicas} runs`);
}

/** Entry e of replica r at record i of a series [record][replica][entry]; a negative record counts from the end. */
export function at(run: Run, series: ArrayLike<number>, record: number, r: number, e = 0): number {
  const records = run.series.k.length;
  const i = record < 0 ? records + record : record;
  const entries = series.length / (records * run.replicas);
  return series[(i * run.replicas + r) * entries + e]!;
}

/** Mean over the replicas of every record, for a curve. */
export function meanCurve(run: Run, series: ArrayLike<number>, e = 0): number[] {
  return Array.from(run.series.k, (_, i) => {
    let sum = 0;
    for (let r = 0; r < run.replicas; r++) sum += at(run, series, i, r, e);
    return sum / run.replicas;
  });
}

import { type Progress, readOptions, type Setting, type SimulateOptions } from "./dynamics/options.ts";
import { planRun } from "./dynamics/plan.ts";
import type { Run } from "./dynamics/result.ts";
import { simulate } from "./dynamics/run.ts";
import type { Node } from "./graph/node.ts";
import { checkRange } from "./problem/base.ts";
import { ProblemReport } from "./problem/report.ts";
import { readRecord } from "./recording.ts";
import type { Generator } from "./symmetry/generator.ts";

/** Memory and time of a run before it is made. */
export interface PlanEstimate {
  /** Wasm memory the run reserves. */
  readonly bytes: number;
  /** Memory of the recorded series in the host. */
  readonly recordBytes: number;
  /** Rough time at one core, from a short trial of the same run. */
  readonly estimatedMs: number;
  readonly lanes: "samples" | "replicas" | "features";
}

/** A model with its data on one engine. Methods take a flat theta or one by named blocks. */
export class Problem extends ProblemReport {
  /**
   * Runs gradient descent or SGD inside Wasm, JavaScript being called once per chunk of about 10 ms.
   *
   *   theta' = (1 - 2 eta gamma) theta - eta sum_i w_i g_i
   *
   * @returns final thetas, recorded series, status and hashes; the same seed gives the same bits on
   *          every host, for any chunking and any number of replicas beside it
   * @throws  NoetherflowError before any work for bad options; the signal's reason after an abort
   */
  async simulate(options: SimulateOptions<Generator, Node>): Promise<Run> {
    this.alive("simulate");
    const setting = readOptions(this.model, this.N, this.host.core.real.bytes, options);
    checkRange(setting.scheme.name, setting.theta, this.host.core.dtype);
    const measures = readRecord(this.model, options);
    const control: { signal?: AbortSignal | undefined; onProgress?: ((p: Progress) => void) | undefined } = {
      signal: options.signal,
      onProgress: options.onProgress,
    };
    return simulate(this.host, this.model, this.samples, setting, measures, control);
  }

  /** Memory a run would take, and its time from a trial of a few steps. Nothing is kept. */
  async plan(options: SimulateOptions<Generator, Node>): Promise<PlanEstimate> {
    this.alive("plan");
    const setting = readOptions(this.model, this.N, this.host.core.real.bytes, options);
    const measures = readRecord(this.model, options);
    const plan = planRun(this.model, this.samples, setting, measures, this.host.core.real, 0);
    const total = setting.every === 0 ? 0 : Math.floor(setting.steps / setting.every) + 1;
    const time = async (steps: number): Promise<number> => {
      // tables given for the whole run serve a part of it
      const trial: Setting = { ...setting, steps };
      const began = performance.now();
      await simulate(this.host, this.model, this.samples, trial, measures, {});
      return performance.now() - began;
    };
    let steps = Math.min(setting.steps, 4);
    let spent = await time(steps);
    while (spent < 20 && steps < setting.steps) {
      steps = Math.min(setting.steps, steps * 4);
      spent = await time(steps);
    }
    return {
      bytes: plan.bytes,
      recordBytes: 8 * total * setting.replicas * plan.entries,
      estimatedMs: steps === 0 ? 0 : (spent / steps) * setting.steps,
      lanes: plan.choice.lanes,
    };
  }
}

import type { Region } from "../core/arena.ts";
import { WORD_BYTES } from "../graph/instructions.ts";
import type { Host } from "../models/evaluate.ts";
import type { RunPlan } from "./plan.ts";

/** Where the time of a step goes: one line per instruction, the longest first. */
export interface ProfileLine {
  /** Kernel and sizes. */
  readonly instruction: string;
  /** When in a step it runs: before the batch, per block, on the rest of the batch, after it. */
  readonly stage: "before" | "body" | "tail" | "after";
  /** Executions per step (of one group of replicas). */
  readonly perStep: number;
  /** Time per execution, caches warm. */
  readonly ns: number;
  /** Share of the sum over all lines. */
  readonly share: number;
}

/** Each instruction is repeated for about this long. */
const TRIAL_MS = 3;

/**
 * Times every instruction of the step by itself, caches warm. Overwrites the run's state: call it
 * when the run is over.
 *
 * An instruction that works in place and is repeated takes its values out of the range of normal numbers, where arithmetic is up to
 * a hundred times slower, for itself and for all that read them: so every trial begins with the numbers of the run.
 */
export function profileStep(host: Host, plan: RunPlan, region: Region): ProfileLine[] {
  const { repeat } = host.core.exports;
  const kept = new Uint8Array(host.arena.buffer, region.base, region.bytes).slice();
  const stages = ["setup", "before", "body", "tail", "after"] as const;
  const lines: { instruction: string; stage: ProfileLine["stage"]; perStep: number; ns: number }[] = [];
  for (const [pass, s, [code, address]] of plan.passes.flatMap((p) =>
    p.code.map((c, s) => [p, s, c] as const),
  )) {
    const stage = stages[s]!;
    if (stage === "setup") continue;
    const perStep = stage === "body" ? pass.pass.blocks : 1;
    for (const [i, instruction] of code.labels.entries()) {
      const pc = address + i * WORD_BYTES;
      let times = 16;
      let ms = 0;
      for (;;) {
        new Uint8Array(host.arena.buffer, region.base, region.bytes).set(kept);
        const start = performance.now();
        repeat(plan.run, pass.address, pc, times);
        ms = performance.now() - start;
        if (ms >= TRIAL_MS) break;
        times *= ms > 0.2 ? Math.ceil(TRIAL_MS / ms) : 4;
      }
      lines.push({ instruction, stage, perStep, ns: (1e6 * ms) / times });
    }
  }
  const total = lines.reduce((n, l) => n + l.perStep * l.ns, 0);
  return lines.map((l) => ({ ...l, share: (l.perStep * l.ns) / total })).sort((a, b) => b.share - a.share);
}

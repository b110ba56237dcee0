import { createEngine } from "../create.ts";
import type { Run } from "../dynamics/result.ts";
import type { Engine } from "../engine.ts";
import { NoetherflowError } from "../errors.ts";
import type { RunSpec } from "../spec.ts";
import type { Dtype } from "../wasm/module.ts";
import { type AnswerWire, type ProgressWire, packError, packRun, type TaskWire } from "./wire.ts";

/** The engines of this thread: one Wasm instance for each dtype asked for. */
const engines = new Map<Dtype, Promise<Engine>>();

/** Progress is told this often at most. */
const REPORT_MS = 50;

function engineFor({ dtype, variant }: RunSpec): Promise<Engine> {
  const known = engines.get(dtype);
  if (known !== undefined) return known;
  const made = createEngine({ dtype, variant });
  engines.set(dtype, made);
  return made;
}

/**
 * Does one task in this thread. It answers and never throws: an error of the run is part of the answer.
 *
 * @param report told how many steps of one replica are done
 */
export async function serve(
  { spec, control }: TaskWire,
  report: (done: ProgressWire) => void,
): Promise<AnswerWire> {
  const stopped: Error & { recorded?: Run | null } = new Error("stopped");
  const stop = new AbortController();
  control.onmessage = () => stop.abort(stopped);
  try {
    const engine = await engineFor(spec);
    const { problem, options } = engine.open(spec);
    try {
      let last = performance.now();
      const onProgress = ({ step, replicas }: { step: number; replicas: number }) => {
        if (performance.now() - last < REPORT_MS) return;
        last = performance.now();
        report(step * replicas);
      };
      const run = await problem.simulate({ ...options, signal: stop.signal, onProgress });
      return { status: "done", run: packRun(run) };
    } finally {
      problem.dispose();
    }
  } catch (error) {
    if (error === stopped)
      return { status: "aborted", run: stopped.recorded ? packRun(stopped.recorded) : null };
    // a trap may leave an instance in any state
    if (!(error instanceof NoetherflowError)) engines.clear();
    return { status: "failed", error: packError(error) };
  } finally {
    control.close();
  }
}

/** The program of a thread that runs experiments, one at a time, as it is asked. */
import { parentPort } from "node:worker_threads";
import { createEngine } from "./create.ts";
import type { Engine } from "./engine.ts";
import { experiments, runExperiment } from "./experiments/experiment.ts";
import { packError } from "./parallel/wire.ts";
import { type Job, type Message, packResult } from "./reproduction.ts";

/** Progress is told this often at most. */
const REPORT_MS = 100;

const port = parentPort!;
const say = (message: Message) => port.postMessage(message);
let engine: Promise<Engine> | undefined;

port.on("message", async ({ id, seed, settings }: Job) => {
  try {
    engine ??= createEngine();
    let last = 0;
    const result = await runExperiment(experiments.get(id)!, await engine, settings, seed, {
      onProgress: (fraction, what) => {
        const now = performance.now();
        if (now - last < REPORT_MS) return;
        last = now;
        say({ kind: "progress", fraction, what });
      },
    });
    say({ kind: "result", result: packResult(result) });
  } catch (error) {
    say({ kind: "error", error: packError(error) });
  }
});

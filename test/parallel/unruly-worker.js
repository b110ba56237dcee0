// A worker that does what the seed of a run says: it dies, hangs, or does the run.
import { createJiti } from "jiti";
import { Transfer, worker, workerEmit } from "workerpool";

const jiti = createJiti(import.meta.url);
const { serve } = await jiti.import("../../src/parallel/serve.ts");
const { buffersIn } = await jiti.import("../../src/parallel/wire.ts");

const moods = {
  exit: () => process.exit(3),
  // out of reach of any promise, as a bug in a timer would be
  throw: () =>
    new Promise(() =>
      setTimeout(() => {
        throw new RangeError("a bug in a timer");
      }),
    ),
  heap: () => {
    const kept = [];
    for (;;) kept.push(new Array(10_000).fill(kept.length + 0.5));
  },
  hang: () => {
    for (;;);
  },
};
let finished = 0;

worker({
  simulate: async (task) => {
    const { seed } = task.spec.options;
    if (seed === "exit once" && finished > 0) process.exit(4);
    await moods[seed]?.();
    const answer = await serve(task, workerEmit);
    if (seed === "exit later") setTimeout(() => process.exit(5), 50);
    finished++;
    return new Transfer(answer, buffersIn(answer));
  },
});

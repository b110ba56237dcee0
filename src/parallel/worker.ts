/** The program of a worker: it answers tasks, one at a time. */
import { Transfer, worker, workerEmit } from "workerpool";
import { serve } from "./serve.ts";
import { buffersIn, type TaskWire } from "./wire.ts";

worker({
  simulate: async (task: TaskWire) => {
    const answer = await serve(task, workerEmit);
    return new Transfer(answer, buffersIn(answer));
  },
});

/**
 * Many runs over worker threads, in Node and in browsers.
 *
 * @module noetherflow/parallel
 */

import type { SimulateOptions } from "./dynamics/options.ts";
import type { Run } from "./dynamics/result.ts";
import type { Node } from "./graph/node.ts";
import { type ManyOptions, Pool, type PoolOptions, type Task, type TaskResult } from "./parallel/pool.ts";
import type { Problem } from "./problem.ts";
import type { Generator } from "./symmetry/generator.ts";

export type {
  ManyOptions,
  ManyProgress,
  Pool,
  PoolOptions,
  Task,
  TaskResult,
  TaskSoFar,
} from "./parallel/pool.ts";

/**
 * Workers to keep between calls: `const pool = createPool({ workers: 4 })`, then `pool.simulateMany`, and `await pool.dispose()` at the end,
 * without which a process does not end.
 *
 * @throws NoetherflowError "range", "name"
 * @example
 * const pool = createPool({ workers: 1 });
 * const { runs } = await pool.simulateMany({ a: problem.describe(options) });
 * await pool.dispose();
 * runs.a.status; // "done"
 */
export function createPool(options: PoolOptions = {}): Pool {
  return new Pool(options, () => new URL("./parallel-worker.js", import.meta.url));
}

/**
 * Many runs with workers of their own, which are gone when it returns; see `Pool.simulateMany`.
 *
 * @example
 * const tasks = [0.01, 0.02].map((eta) => problem.describe({ ...options, eta }));
 * const { runs } = await simulateMany(tasks, { workers: 1 });
 * runs.map(({ status }) => status); // ["done", "done"]
 */
export function simulateMany<const T extends readonly Task[] | Readonly<Record<string, Task>>>(
  tasks: T,
  options: ManyOptions<T extends readonly Task[] ? number : string> & PoolOptions = {},
): Promise<{ runs: { -readonly [K in keyof T]: TaskResult } }> {
  return withPool(options, (pool, rest) => pool.simulateMany(tasks, rest));
}

/**
 * One run with its replicas shared out between workers of their own; see `Pool.simulateReplicas`.
 *
 * @example
 * const run = await simulateReplicas(problem, { ...options, replicas: 4 }, { workers: 2 });
 * run.hash === (await problem.simulate({ ...options, replicas: 4 })).hash; // true
 */
export function simulateReplicas(
  problem: Problem,
  options: SimulateOptions<Generator, Node>,
  control: Omit<ManyOptions, "onResult"> & PoolOptions = {},
): Promise<Run> {
  return withPool(control, (pool, rest) => pool.simulateReplicas(problem, options, rest));
}

async function withPool<O extends PoolOptions, T>(
  options: O,
  use: (pool: Pool, rest: Omit<O, keyof PoolOptions>) => Promise<T>,
): Promise<T> {
  const { workers, worker, ...rest } = options;
  const pool = createPool({
    ...(workers === undefined ? {} : { workers }),
    ...(worker === undefined ? {} : { worker }),
  });
  try {
    return await use(pool, rest);
  } finally {
    await pool.dispose();
  }
}

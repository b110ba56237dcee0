import { internal } from "../errors.ts";

/**
 * Work that may have to wait for samples: it yields what it waits for and is given what came. So one text serves samples in memory,
 * where nothing is ever waited for, and samples that are read on the way.
 */
export type Steps<T> = Generator<Promise<unknown>, T, unknown>;

/** The result of work that waits for nothing. */
export function now<T>(steps: Steps<T>): T {
  const { done, value } = steps.next();
  return done ? value : internal("steps", "samples were waited for where they lie in memory");
}

/**
 * The result of work, whatever it waits for.
 *
 * @param canStop whether an abort may end the work where it stands
 * @throws what is waited for throws; the signal's reason as soon as it is aborted, though a read may go on for nobody
 */
export async function later<T>(
  steps: Steps<T>,
  signal?: AbortSignal,
  canStop: () => boolean = () => true,
): Promise<T> {
  let next = steps.next();
  while (!next.done) {
    let came: unknown;
    try {
      came = await unlessAborted(next.value, canStop() ? signal : undefined);
    } catch (error) {
      next = steps.throw(error);
      continue;
    }
    next = steps.next(came);
  }
  return next.value;
}

function unlessAborted(promise: Promise<unknown>, signal: AbortSignal | undefined): Promise<unknown> {
  if (signal === undefined) return promise;
  return new Promise((resolve, reject) => {
    const stop = () => reject(signal.reason);
    const done = () => signal.removeEventListener("abort", stop);
    if (signal.aborted) stop();
    else signal.addEventListener("abort", stop, { once: true });
    promise.then(resolve, reject).finally(done);
  });
}

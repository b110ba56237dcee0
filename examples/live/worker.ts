/** Trains beside the page, so that the page stays free: one engine for all runs, one run at a time. */
import { follow, type Setting } from "./experiment.ts";
import type { News, Order } from "./messages.ts";
import { createEngine } from "./noetherflow.ts";

const port = self as unknown as {
  onmessage: (event: MessageEvent<Order>) => void;
  postMessage(news: News): void;
};
const engine = createEngine();
let current = new AbortController();

port.onmessage = ({ data }) => {
  current.abort();
  if (data.type === "stop") return;
  current = new AbortController();
  void run(data.id, data.setting, current.signal);
};

async function run(id: number, setting: Setting, signal: AbortSignal): Promise<void> {
  try {
    const points = follow(await engine, setting, signal);
    const began = performance.now();
    let next = await points.next();
    for (; !next.done; next = await points.next()) {
      const stepsPerSecond = (1000 * next.value.k) / (performance.now() - began);
      port.postMessage({ id, type: "point", point: next.value, stepsPerSecond });
    }
    port.postMessage({ id, type: "end", ...next.value });
  } catch (error) {
    if (signal.aborted) port.postMessage({ id, type: "stopped" });
    else
      port.postMessage({ id, type: "failed", message: error instanceof Error ? error.message : `${error}` });
  }
}

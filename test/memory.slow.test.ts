/** The same as the last case of memory.test.ts, of a set that would not be copied lightly. */
import { expect, test } from "vitest";
import { streamedRun } from "./helpers/streamed.ts";

test("1 GiB that is read on the way takes no more than 1.2 of the plan, of Wasm memory and of the process", async () => {
  const { wasm, rss, planned, bytes, read } = await streamedRun(1024);
  expect(bytes).toBe(1024 * 1024 * 1024);
  expect(read).toBeGreaterThan(8 * bytes);
  expect(wasm).toBeLessThanOrEqual(1.2 * planned.wasm);
  expect(rss.growth).toBeLessThanOrEqual(1.2 * (planned.wasm + planned.host));
}, 600_000);

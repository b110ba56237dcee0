/**
 * Processes that record a run are ended by SIGKILL at random times, some while they write; what they leave is read, and
 * whoever goes on comes to the bits of a run that was never ended. `npm run test:kills` does the same 200 times.
 */
import { expect, test } from "vitest";
import { createEngine } from "../../src/index.ts";
import { open } from "../helpers/killed-run.ts";
import { killRuns } from "../helpers/kills.ts";

const KILLS = Number(process.env.KILLS ?? 10);

test(`after ${KILLS} kills every run has the hash of an uninterrupted one`, async () => {
  const engine = await createEngine();
  const { problem, options } = open(engine);
  const { hash } = await problem.simulate(options);
  engine.dispose();
  const { kills, hashes } = await killRuns(KILLS);
  expect(kills).toBe(KILLS);
  expect(hashes.length).toBeGreaterThan(0);
  expect(new Set(hashes)).toEqual(new Set([hash]));
}, 120_000);

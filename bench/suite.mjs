// Measures jobs: all sides of a job take turns, in fresh processes, several times over the whole run. Writes the raw record.
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { Channel } from "./channel.mjs";
import { describeMachine, describeSource, idlestCore } from "./machine.mjs";
import { median, spread } from "./statistics.mjs";

/**
 * A job is { name, title, unit, unitsPerRun, tolerance, sides, hosts }:
 *
 *   unit         what a time is per: "step", "call", ...; one repetition of a side has `unitsPerRun` of them
 *   sides        { id, label, kind, host, ... }; sides of one host share a process
 *   hosts        by name { command, env? }: how to start the process; or why there is none, in `missing` by name
 *   tolerance    largest difference of any checked value between sides, relative to the largest value
 *   once         repetitions are not repeated to fill the time of a sample, nor warmed up
 *   unpinned     the processes may use all cores
 *
 * A check returns { values }: what a side computes in a few steps on given input. All sides must agree with the first one, which
 * is ours. Where a side cannot take that input it returns { values, expected } (and perhaps a tolerance of its own).
 */

/** Settings of a run of the suite: passes in fresh processes, rounds in each, ms of a sample. */
export const effort = {
  full: { passes: 2, rounds: 4, sampleMs: 100 },
  quick: { passes: 1, rounds: 5, sampleMs: 40 },
};

const WARM_UP_RUNS = 3;
const WARM_UP_MS = 1000;

/** How many repetitions fill a sample, found while V8 compiles them for good. */
async function warmUp(ask, sampleMs) {
  let count = 1;
  let ms = 0;
  const began = performance.now();
  const spent = () => performance.now() - began;
  for (;;) {
    ({ ms } = await ask(count));
    // the first calls of all compile; one that is slow is asked again
    if (ms >= sampleMs / 2 && spent() < WARM_UP_MS) ({ ms } = await ask(count));
    if (ms >= sampleMs / 2) break;
    count = Math.ceil(count * Math.min(100, Math.max(2, (0.75 * sampleMs) / Math.max(ms, 0.01))));
  }
  for (let i = 0; i < WARM_UP_RUNS && spent() < WARM_UP_MS; i++) {
    // V8 compiles hot functions anew in the background, and a call that is under way does not profit
    await pause(20);
    ({ ms } = await ask(count));
    count = Math.max(count, Math.round((count * sampleMs) / ms));
  }
  return count;
}

/** Largest difference of a value, relative to the largest value. */
function distance(actual, expected) {
  if (actual.length !== expected.length)
    throw new Error(`${actual.length} checked values instead of ${expected.length}`);
  const scale = Math.max(...expected.map(Math.abs));
  return Math.max(...expected.map((value, i) => Math.abs(value - actual[i]))) / scale;
}

/** One process each of the hosts of a job: prepares, checks, warms up, and measures some rounds into `result`. */
async function pass(job, result, rounds, sampleMs) {
  const core = job.unpinned ? null : idlestCore();
  const channels = new Map();
  const ask = ({ id, host }, word, ...rest) => {
    if (!channels.has(host)) {
      const { command, env } = job.hosts[host];
      channels.set(host, new Channel(`${job.name}, ${host}`, command, core, env));
    }
    return channels.get(host).ask(word, id, ...rest);
  };
  let ready = [];
  /** Does something with a side. Where a peer cannot, it leaves the job with its reason; ours may not fail. */
  const attempt = async (side, work) => {
    try {
      return await work();
    } catch (error) {
      if (side.kind !== "peer") throw error;
      result.absent[side.id] = error.message.split("\n")[0];
      delete result.sides[side.id];
      ready = ready.filter((each) => each.side !== side);
    }
  };
  try {
    let reference = null;
    for (const side of job.sides) {
      if (job.hosts[side.host] === undefined) result.absent[side.id] = job.missing[side.host];
      if (result.absent[side.id] !== undefined) continue;
      await attempt(side, async () => {
        const { absent } = await ask(side, "prepare");
        if (absent !== undefined) {
          result.absent[side.id] = absent;
          return;
        }
        const entry = (result.sides[side.id] ??= newEntry(side));
        if (!job.unchecked && (entry.check === null || reference === null)) {
          const { values, expected, tolerance = job.tolerance } = await ask(side, "check");
          reference ??= expected ?? values;
          const difference = distance(values, expected ?? reference);
          entry.check = { difference, tolerance, ok: difference <= tolerance };
        }
        ready.push({ side, entry, run: (count) => ask(side, "run", count), sums: [] });
      });
    }
    for (const each of [...ready])
      await attempt(each.side, async () => {
        each.count = job.once ? 1 : await warmUp(each.run, sampleMs);
      });
    for (let round = 0; round < rounds; round++) {
      for (const each of round % 2 === 0 ? [...ready] : ready.toReversed()) {
        const { side, entry, run, count, sums } = each;
        await attempt(side, async () => {
          const { ms, cpuMs, checksum, rates } = await run(count);
          const units = count * (side.unitsPerRun ?? job.unitsPerRun ?? 1);
          entry.wallNs.push((1e6 * ms) / units);
          entry.cpuNs.push((1e6 * cpuMs) / units);
          for (const [name, rate] of Object.entries(rates ?? {})) (entry.rates[name] ??= []).push(rate);
          entry.counts.push(count);
          sums.push(checksum);
        });
      }
    }
    for (const { side, entry, sums } of ready) {
      entry.checksum = sums.at(-1);
      // the same seed gives the same run in every round
      if (side.kind === "ours" && sums.some((sum) => sum !== sums[0])) entry.repeats = false;
    }
  } finally {
    for (const channel of channels.values()) channel.close();
  }
}

function newEntry({ label, kind, variant, info }) {
  const measured = { counts: [], wallNs: [], cpuNs: [], rates: {}, checksum: null };
  return { label, kind, variant, info, check: null, repeats: true, ...measured };
}

/** Measures all jobs; returns the record. */
export async function measure(suite, jobs, { passes, rounds, sampleMs }, more = {}) {
  const began = new Date();
  const [machine, source] = [describeMachine(), describeSource()];
  const results = jobs.map((job) => ({ job, sides: {}, absent: {} }));
  for (let i = 0; i < passes; i++)
    for (const result of results) {
      const { job } = result;
      if (process.stderr.isTTY) process.stderr.write(`\r\x1b[Kpass ${i + 1} of ${passes}: ${job.name}`);
      if (i >= (job.passes ?? passes)) continue;
      await pass(job, result, job.rounds ?? rounds, sampleMs);
    }
  if (process.stderr.isTTY) process.stderr.write("\r\x1b[K");
  if (describeSource().library !== source.library)
    throw new Error("dist/ was rebuilt while the benchmarks ran; run them again.");
  const sides = results.flatMap((result) => Object.values(result.sides));
  return {
    schema: `noetherflow-${suite}/2`,
    date: began.toISOString(),
    seconds: Math.round((Date.now() - began) / 1000),
    ...source,
    machine: {
      ...machine,
      loadAfter: describeMachine().load,
      // the part of a core that the measured processes had
      busy: median(sides.flatMap((side) => side.cpuNs.map((ns, i) => ns / side.wallNs[i]))),
    },
    effort: { passes, rounds, sampleMs },
    ...more,
    jobs: results.map(({ job: { name, family, title, unit, dtype }, sides: measured, absent }) => ({
      ...{ name, family, title, unit, dtype, absent },
      sides: Object.fromEntries(Object.entries(measured).map(([id, entry]) => [id, forFile(entry)])),
    })),
  };
}

/** What a record keeps of a side: samples to six digits, and their spread. */
function forFile({ rates, ...entry }) {
  const short = (values) => values.map((x) => Number(x.toPrecision(6)));
  const nsPerUnit = spread(short(entry.cpuNs));
  const shortRates = Object.fromEntries(Object.entries(rates).map(([name, of]) => [name, short(of)]));
  return {
    ...entry,
    wallNs: short(entry.wallNs),
    cpuNs: short(entry.cpuNs),
    nsPerUnit,
    ...(Object.keys(rates).length > 0 ? { rates: shortRates } : {}),
  };
}

/** What went wrong in a record, in words. */
export function problemsOf(record) {
  return record.jobs.flatMap(({ name, sides }) =>
    Object.values(sides).flatMap(({ label, check, repeats }) => [
      ...(check !== null && !check.ok
        ? [`${name}: ${label} differs by ${check.difference} where ${check.tolerance} is allowed`]
        : []),
      ...(repeats ? [] : [`${name}: ${label} did not repeat its run bit for bit`]),
    ]),
  );
}

/** Writes a record as JSON, lists of numbers on a line each. */
export function writeRecord(path, record) {
  const target = resolve(path);
  mkdirSync(dirname(target), { recursive: true });
  const text = JSON.stringify(record, null, 1).replace(
    /\[\n([\s\d.,e+-]+)\]/g,
    (_, numbers) => `[${numbers.replace(/\s+/g, "")}]`,
  );
  writeFileSync(target, `${text}\n`);
  return target;
}

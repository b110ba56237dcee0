// `npm run test:kills -- [count]`: ends processes that record a run by SIGKILL at random times, 200 if no other number is given, and checks
// that every run that goes on afterwards has the bits of one that was never ended.
import { createEngine } from "../src/index.ts";
import { open } from "../test/helpers/killed-run.ts";
import { killRuns } from "../test/helpers/kills.ts";

const count = Number(process.argv[2] ?? 200);
const start = performance.now();
const engine = await createEngine();
const { problem, options } = open(engine);
const { hash } = await problem.simulate(options);
const { kills, early, late, writing, hashes } = await killRuns(count, (n) => {
  if (n % 20 === 0) console.log(`${n} kills`);
});
const wrong = hashes.filter((h) => h !== hash).length;
const written = Object.entries(writing).map(([file, n]) => `${n} of ${file}`);
const hits = Object.values(writing).reduce((a, b) => a + b, 0);
console.log(
  `${kills} kills in ${((performance.now() - start) / 1000).toFixed(0)} s: ${early} before the first checkpoint of a process, ` +
    `${hits} during a write (${written.join(", ") || "none"}), ${late} with the outcome on disk.`,
);
console.log(
  `${hashes.length} runs came to their end, ${hashes.length - wrong} with the hash of the uninterrupted run.`,
);
process.exitCode = wrong === 0 && hashes.length > 0 ? 0 : 1;

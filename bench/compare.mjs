// `node bench/compare.mjs A.json B.json` says whether two records of the same suite agree: every ratio, share of the peak and size
// of both within 20 %. Times are not compared, since a machine is not always equally fast. Exit code 1 if they do not agree.
import { readFileSync } from "node:fs";
import { comparisonsOf, sharesOf, table, verdictsOf } from "./report.mjs";
import { ratioOf } from "./statistics.mjs";

const ALLOWED = 0.2;

const files = process.argv.slice(2);
if (files.length !== 2) {
  console.error("bench: expected two records, node bench/compare.mjs A.json B.json");
  process.exit(2);
}
const records = files.map((file) => JSON.parse(readFileSync(file, "utf8")));
const [first, second] = records.map(({ schema }) => schema);
if (first !== second) {
  console.error(`bench: ${files[0]} is a ${first}, ${files[1]} a ${second}`);
  process.exit(2);
}

/** Every ratio of a record by name. */
function ratiosOf(record) {
  const ratios = new Map();
  for (const job of record.jobs) {
    for (const { of, against, ratio } of comparisonsOf(job))
      ratios.set(`${job.name}: ${of} / ${against}`, ratio);
    for (const [id, side] of Object.entries(job.sides))
      for (const [name, { ratio }] of Object.entries(side.rates === undefined ? {} : sharesOf(side)))
        ratios.set(`${job.name}, ${id}: ${name}`, ratio);
    // what stands for itself is compared with the first of its job
    const [base, ...others] = Object.entries(job.sides);
    if (job.family === "scaling" || job.family === "workers" || job.family === "start")
      for (const [id, side] of others)
        ratios.set(`${job.name}: ${id} / ${base[0]}`, ratioOf(side.cpuNs, base[1].cpuNs).ratio);
  }
  for (const [name, kB] of Object.entries(record.sizes ?? {})) ratios.set(name, kB);
  return ratios;
}

const [a, b] = records.map(ratiosOf);
const shared = [...a.keys()].filter((name) => b.has(name));
const apart = shared
  .map((name) => ({ name, change: b.get(name) / a.get(name) - 1 }))
  .filter(({ change }) => Math.max(change, 1 / (1 + change) - 1) > ALLOWED);
const show = (x) => x.toPrecision(3);
if (apart.length > 0)
  console.log(
    table(
      ["ratio", "A", "B", "change"],
      apart.map(({ name, change }) => [
        name,
        show(a.get(name)),
        show(b.get(name)),
        `${(100 * change).toFixed(0)} %`,
      ]),
    ),
  );
const turned = verdictsOf(records[0]).filter((verdict) => !verdictsOf(records[1]).includes(verdict));
for (const verdict of turned) console.log(`in A alone: ${verdict}`);
const missing = [...a.keys(), ...b.keys()].filter((name) => !(a.has(name) && b.has(name)));
if (missing.length > 0) console.log(`in one of them alone: ${missing.join("; ")}`);
console.log(`${shared.length - apart.length} of ${shared.length} ratios agree within ${100 * ALLOWED} %`);
process.exitCode = apart.length === 0 && shared.length > 0 ? 0 : 1;

// `node bench/tables.mjs` writes the tables of bench/README.md anew from the raw records of bench/results, between their marks:
//
//   <!-- table: SUITE.NAME --> ... <!-- end -->     of `npm run bench` or `bench:peers`, on all versions of Node that have a record
//
// With --check it writes nothing and fails if they are not current.
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { tables } from "./report.mjs";

const here = fileURLToPath(new URL(".", import.meta.url));
const page = join(here, "README.md");
const results = join(here, "results");

/** The records of a suite, by version of Node. */
function recordsOf(suite) {
  const files = existsSync(results) ? readdirSync(results) : [];
  return files
    .filter((file) => new RegExp(`^${suite}-\\d+\\.json$`).test(file))
    .sort()
    .map((file) => JSON.parse(readFileSync(join(results, file), "utf8")));
}

const text = readFileSync(page, "utf8");
const marks = /(<!-- table: (\w+)\.(\w+) -->\n)[\s\S]*?(<!-- end -->)/g;
const current = text.replace(marks, (_, begin, suite, name, end) => {
  const make = tables[suite]?.[name];
  if (make === undefined) throw new Error(`bench/README.md: there is no table ${suite}.${name}`);
  const records = recordsOf(suite);
  return `${begin}\n${records.length === 0 ? "Not measured yet." : make(records)}\n\n${end}`;
});
if (current === text) console.log("the tables of bench/README.md are current");
else if (process.argv.includes("--check")) {
  console.error("bench/README.md differs from bench/results; run `node bench/tables.mjs`.");
  process.exitCode = 1;
} else {
  writeFileSync(page, current);
  console.log("wrote bench/README.md");
}

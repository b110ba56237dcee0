// `node bench/tables.mjs` writes the tables of README.md and bench/README.md anew from the raw records of bench/results, between
// their marks:
//
//   <!-- table: SUITE.NAME --> ... <!-- end -->     of `npm run bench` or `bench:peers`, on all versions of Node that have a record
//
// With --check it writes nothing and fails if they are not current.
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { tables } from "./report.mjs";

const here = fileURLToPath(new URL(".", import.meta.url));
const pages = ["README.md", "bench/README.md"];
const results = join(here, "results");

/** The records of a suite, by version of Node. */
function recordsOf(suite) {
  const files = existsSync(results) ? readdirSync(results) : [];
  return files
    .filter((file) => new RegExp(`^${suite}-\\d+\\.json$`).test(file))
    .sort()
    .map((file) => JSON.parse(readFileSync(join(results, file), "utf8")));
}

const marks = /(<!-- table: (\w+)\.(\w+) -->\n)[\s\S]*?(<!-- end -->)/g;
for (const page of pages) {
  const path = join(here, "..", page);
  const text = readFileSync(path, "utf8");
  const current = text.replace(marks, (_, begin, suite, name, end) => {
    const make = tables[suite]?.[name];
    if (make === undefined) throw new Error(`${page}: there is no table ${suite}.${name}`);
    const records = recordsOf(suite);
    return `${begin}\n${records.length === 0 ? "Not measured yet." : make(records)}\n\n${end}`;
  });
  if (current === text) console.log(`the tables of ${page} are current`);
  else if (process.argv.includes("--check")) {
    console.error(`${page} differs from bench/results; run \`node bench/tables.mjs\`.`);
    process.exitCode = 1;
  } else {
    writeFileSync(path, current);
    console.log(`wrote ${page}`);
  }
}

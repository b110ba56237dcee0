// What `npm run bench` and `npm run bench:peers` have in common: options, which jobs, printing, and where the record goes.
import { join } from "node:path";
import { parseArgs } from "node:util";
import { refreshLibrary } from "../tools/build.mjs";
import { here, nodeMajor, refreshPeak } from "./machine.mjs";
import { consoleReport } from "./report.mjs";
import { effort, measure, problemsOf, writeRecord } from "./suite.mjs";

const common = {
  only: { type: "string", multiple: true, default: [] },
  json: { type: "string" },
  quick: { type: "boolean", default: false },
  list: { type: "boolean", default: false },
  help: { type: "boolean", default: false },
};

export function stop(message) {
  console.error(`bench: ${message}`);
  process.exit(1);
}

const standardFile = (suite) => join(here, `results/${suite}-${nodeMajor}.json`);

/** The options, or the help and the end. `own` and its `lines` of help are those of one suite. */
export function optionsOf(suite, own, lines) {
  let values;
  try {
    ({ values } = parseArgs({ options: { ...common, ...own } }));
  } catch (error) {
    stop(error.message);
  }
  if (values.help) {
    console.log(`npm run ${suite === "bench" ? "bench" : "bench:peers"} -- [options]

  --only TEXT         jobs whose name or family is one of these (comma separated), else whose name contains one; repeatable
  --quick             one pass of short samples: to see that all runs, not to read ratios from
  --json FILE         write the raw record there (default ${standardFile(suite)}, if all jobs run in full)
${lines}  --list              print the names of the jobs
  --help`);
    process.exit(0);
  }
  return values;
}

function choose(jobs, only) {
  const wanted = only.flatMap((text) => text.split(",")).filter((text) => text !== "");
  if (wanted.length === 0) return jobs;
  const exact = jobs.filter(({ name, family }) => wanted.includes(name) || wanted.includes(family));
  if (exact.length > 0) return exact;
  const part = jobs.filter(({ name }) => wanted.some((text) => name.includes(text)));
  if (part.length === 0) stop(`no job is named like ${wanted.join(", ")}; --list shows the names.`);
  return part;
}

/**
 * Measures the chosen jobs, prints the tables, writes the record.
 *
 * @param prepare of the chosen jobs: { jobs with hosts, more: what else the record has, finish }
 */
export async function runSuite(suite, jobs, options, prepare) {
  if (options.list) {
    for (const { name, family, title } of jobs)
      console.log(`${name.padEnd(18)} ${family.padEnd(12)} ${title}`);
    return;
  }
  const chosen = choose(jobs, options.only);
  refreshLibrary();
  refreshPeak();
  const { jobs: ready, more, finish = () => {} } = await prepare(chosen);
  let record;
  try {
    record = await measure(suite, ready, options.quick ? effort.quick : effort.full, more);
  } finally {
    finish();
  }
  console.log(consoleReport(record));
  const problems = problemsOf(record);
  for (const problem of problems) console.error(`bench: ${problem}`);
  if (problems.length > 0) process.exitCode = 1;
  const isStandard = chosen.length === jobs.length && !options.quick && problems.length === 0;
  const file = options.json ?? (isStandard ? standardFile(suite) : null);
  if (file === null) return;
  console.log(`wrote ${writeRecord(file, record)}`);
  if (file === standardFile(suite))
    console.log("`node bench/tables.mjs` brings the tables of bench/README.md up to date.");
}

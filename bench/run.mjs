// `npm run bench`: measures every job in fresh processes, prints a table, and writes bench/results/. See bench/README.md.
import { execFileSync, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { cpus, loadavg, platform, release, totalmem } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { refreshLibrary, root } from "../tools/build.mjs";
import { jobs } from "./jobs.mjs";
import { assess, busy, forFile, merge, peakShare, profileText, table } from "./report.mjs";

/** Rounds are spread over this many processes per job, minutes apart: a process can be lucky, and a minute noisy. */
const PASSES = 3;
const JOB_TIMEOUT_MS = 300_000;
const here = fileURLToPath(new URL(".", import.meta.url));
const nodeMajor = process.versions.node.split(".")[0];

const help = `npm run bench -- [options]

  --only TEXT         jobs whose name contains one of these texts (comma separated); repeatable
  --rounds N          rounds of every job, at least 5 (default 15), spread over ${PASSES} processes
  --prototypes DIR    compare with the hand-built prototypes: DIR/as/jobs2.wasm
  --profile           print where the time of a step goes
  --json FILE         write the raw results there (default bench/results/speed-${nodeMajor}.json, if all jobs run)
  --list              print the names of the jobs
  --help
`;

const { values: args } = parseArgs({
  options: {
    only: { type: "string", multiple: true, default: [] },
    rounds: { type: "string", default: "15" },
    prototypes: { type: "string" },
    profile: { type: "boolean", default: false },
    json: { type: "string" },
    list: { type: "boolean", default: false },
    help: { type: "boolean", default: false },
  },
});
if (args.help) {
  console.log(help);
  process.exit(0);
}
if (args.list) {
  for (const job of jobs) console.log(`${job.name.padEnd(24)} ${job.title}`);
  process.exit(0);
}
const stop = (message) => {
  console.error(`bench: ${message}`);
  process.exit(1);
};
const rounds = Number(args.rounds);
if (!Number.isInteger(rounds) || rounds < 5)
  stop(`--rounds must be an integer of at least 5, got ${args.rounds}.`);
const wanted = args.only.flatMap((text) => text.split(",")).filter((text) => text !== "");
const exact = jobs.filter((job) => wanted.includes(job.name));
const chosen =
  wanted.length === 0
    ? jobs
    : exact.length === wanted.length
      ? exact
      : jobs.filter((job) => wanted.some((text) => job.name.includes(text)));
if (chosen.length === 0) stop(`no job is named like ${wanted.join(", ")}; --list shows the names.`);
const prototypes = args.prototypes === undefined ? null : resolve(args.prototypes);
if (prototypes !== null && !existsSync(join(prototypes, "as/jobs2.wasm")))
  stop(`--prototypes: ${join(prototypes, "as/jobs2.wasm")} does not exist.`);

/** Compiles the peak when it is missing or older than its source. */
function refreshPeak() {
  const [source, target] = [join(here, "peak.ts"), join(root, "build/bench-peak.wasm")];
  if (existsSync(target) && statSync(target).mtimeMs > statSync(source).mtimeMs) return;
  mkdirSync(join(root, "build"), { recursive: true });
  const asc = join(root, "node_modules/assemblyscript/bin/asc.js");
  // the base folder keeps asc from reading the asconfig.json of the core
  const flags = ["--baseDir", here, "--runtime", "stub", "--noAssert", "-O3", "--enable", "simd"];
  execFileSync(process.execPath, [asc, "peak.ts", ...flags, "--outFile", target], { stdio: "inherit" });
}

/** One text for the library under test, to notice a rebuild under way. */
function libraryHash() {
  const hash = createHash("sha256");
  for (const file of readdirSync(join(root, "dist"), { recursive: true }).sort()) {
    if (/\.(js|wasm)$/.test(file)) hash.update(readFileSync(join(root, "dist", file)));
  }
  return hash.digest("hex");
}

/** Ticks that each core has been idle, and all ticks, from Linux. */
function coreTicks() {
  return new Map(
    [...readFileSync("/proc/stat", "utf8").matchAll(/^cpu(\d+) (.*)$/gm)].map((match) => {
      const ticks = match[2].trim().split(/\s+/).map(Number);
      return [Number(match[1]), { idle: ticks[3], all: ticks.slice(0, 8).reduce((a, b) => a + b) }];
    }),
  );
}

const canPin = platform() === "linux" && spawnSync("taskset", ["-p", String(process.pid)]).status === 0;

/** Of the cores that this process may use, the one that was idle most in the last moments; null where it cannot be pinned. */
function idlestCore() {
  if (!canPin) return null;
  const allowed = /^Cpus_allowed_list:\s*(.*)$/m.exec(readFileSync("/proc/self/status", "utf8"))[1];
  const cores = allowed.split(",").flatMap((range) => {
    const [first, last = first] = range.split("-").map(Number);
    return Array.from({ length: last - first + 1 }, (_, i) => first + i);
  });
  const before = coreTicks();
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 300);
  const after = coreTicks();
  const idle = (core) =>
    (after.get(core).idle - before.get(core).idle) / Math.max(1, after.get(core).all - before.get(core).all);
  return cores.reduce((best, core) => (idle(core) >= idle(best) ? core : best), cores[0]);
}

/** One process of one job. */
function measure(job, count) {
  const core = idlestCore();
  const task = JSON.stringify({ name: job.name, rounds: count, prototypes, profile: args.profile });
  const command = [process.execPath, join(here, "job.mjs"), task];
  const [program, ...rest] = core === null ? command : ["taskset", "-c", String(core), ...command];
  const { status, stdout, stderr, error } = spawnSync(program, rest, {
    cwd: root,
    encoding: "utf8",
    timeout: JOB_TIMEOUT_MS,
    maxBuffer: 1 << 26,
  });
  if (status !== 0) stop(`${job.name} failed.\n${error ?? ""}${stderr ?? ""}`);
  return JSON.parse(stdout.trim().split("\n").at(-1));
}

const git = (...command) => {
  const { status, stdout } = spawnSync("git", command, { cwd: root, encoding: "utf8" });
  return status === 0 ? stdout.trim() : null;
};

refreshLibrary();
refreshPeak();
const library = libraryHash();
const started = new Date();
const loadBefore = loadavg();
const results = new Map(chosen.map((job) => [job.name, null]));
for (let pass = 0; pass < PASSES; pass++) {
  const count = Math.floor((rounds + pass) / PASSES);
  for (const job of chosen) {
    if (process.stderr.isTTY) process.stderr.write(`\r\x1b[Kpass ${pass + 1} of ${PASSES}: ${job.name}`);
    results.set(job.name, merge(results.get(job.name), measure(job, count)));
  }
}
if (process.stderr.isTTY) process.stderr.write("\r\x1b[K");
if (libraryHash() !== library) stop("dist/ was rebuilt while the benchmarks ran; run them again.");

const finished = chosen.map((job) => {
  const result = results.get(job.name);
  return {
    name: job.name,
    title: job.title,
    ...result,
    figures: job.figures.map((figure) => assess(figure, result)),
    peakShare: peakShare(result, "ours"),
  };
});

const problems = finished.flatMap((result) => [
  ...result.checks
    .filter((check) => !check.ok)
    .map(
      (check) =>
        `${result.name}: theta of ${check.side} differs by ${check.difference} after ${check.steps} steps`,
    ),
  ...Object.entries(result.sides)
    .filter(([, side]) => !side.repeats)
    .map(([label]) => `${result.name}: ${label} did not repeat its run bit for bit`),
]);
const share = busy(finished);
const seconds = (Date.now() - started) / 1000;
const [{ model: cpu, speed }] = cpus();
const { core, prototypeSha256 } = finished[0];
const machine = {
  cpu: cpu.trim(),
  mhz: speed,
  cores: cpus().length,
  memoryGiB: Number((totalmem() / 2 ** 30).toFixed(1)),
  os: `${platform()} ${release()}`,
  node: process.versions.node,
  v8: process.versions.v8,
  pinned: canPin,
  loadBefore,
  loadAfter: loadavg(),
  busy: share,
};
const description =
  `${started.toISOString().slice(0, 10)}, ${machine.cpu}, ${machine.cores} cores, Node ${machine.node}, V8 ${machine.v8}, ` +
  `${core.dtype} ${core.variant}; the measured processes had ${(100 * share).toFixed(0)} % of their core`;
const summary = `${description}\n\n${table(finished)}\n`;
console.log(summary);
if (prototypes === null) console.log("The prototypes were not run; --prototypes DIR compares with them.\n");
for (const result of finished) {
  if (result.peakShare === null) continue;
  const { share: ofPeak, peak } = result.peakShare;
  console.log(
    `${result.name}: its products reach ${(100 * ofPeak).toFixed(0)} % of the Wasm peak of ${peak.toFixed(1)} GFLOP/s, counting whole steps`,
  );
}
if (args.profile) for (const result of finished) console.log(`\n${profileText(result)}`);
const missed = finished.flatMap((r) => r.figures).filter((f) => f.verdict === "missed").length;
console.log(`\n${missed} of the goals missed; ${seconds.toFixed(0)} s`);
for (const problem of problems) console.error(`bench: ${problem}`);
if (problems.length > 0) process.exitCode = 1;

/** Puts the table between the marks of bench/README.md. */
function pasteIntoReadme() {
  const path = join(here, "README.md");
  const marks = /(<!-- table:begin[^\n]*-->\n)[\s\S]*?(<!-- table:end -->)/;
  writeFileSync(
    path,
    readFileSync(path, "utf8").replace(marks, (_, begin, end) => `${begin}\n${summary}\n${end}`),
  );
}

const isComplete = chosen.length === jobs.length;
const standard = join(here, `results/speed-${nodeMajor}.json`);
const file = args.json ?? (isComplete ? standard : null);
if (file !== null) {
  const record = {
    schema: "noetherflow-bench/1",
    date: started.toISOString(),
    seconds,
    commit: git("rev-parse", "HEAD"),
    modified: git("status", "--porcelain", "--", "src", "assembly") !== "",
    machine,
    core,
    library,
    prototypeSha256,
    rounds,
    passes: PASSES,
    problems,
    jobs: finished.map(forFile),
  };
  const target = resolve(file);
  mkdirSync(dirname(target), { recursive: true });
  writeFileSync(target, `${JSON.stringify(record, null, 2)}\n`);
  // formatted as `npm run check` wants it
  if (target.startsWith(here))
    spawnSync(process.execPath, [
      join(root, "node_modules/@biomejs/biome/bin/biome"),
      "format",
      "--write",
      target,
    ]);
  if (target === standard && prototypes !== null) pasteIntoReadme();
  console.log(`wrote ${target}`);
}

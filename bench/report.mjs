// What follows from records: ratios, verdicts, and tables. A record is what suite.mjs writes.
import { readFileSync } from "node:fs";
import { median, ratioOf, verdictOf } from "./statistics.mjs";

const goals = JSON.parse(readFileSync(new URL("goals.json", import.meta.url), "utf8"));

const majorOf = ({ machine }) => Number(machine.node.split(".")[0]);

/** The build that a record is judged by: fused multiply-add where Node has it without a flag. */
export const variantOf = (record) => (majorOf(record) < 22 ? "simd" : "fma");

const suiteOf = ({ schema }) => /^noetherflow-(\w+)\//.exec(schema)[1];

const jobNamed = (record, name) => record?.jobs.find((job) => job.name === name);

/** How many times as fast `of` is as `against`, by CPU time, with the same by the wall clock. */
export function speed(of, against) {
  return { ...ratioOf(against.cpuNs, of.cpuNs), wall: median(ratioOf(against.wallNs, of.wallNs).ratios) };
}

/** Every comparison of a job: each of our builds with each other side, a prototype with its own build alone. */
export function comparisonsOf(job) {
  const all = Object.entries(job.sides);
  return all
    .filter(([id]) => id === "ours-simd" || id === "ours-fma")
    .flatMap(([of, ours]) =>
      all
        .filter(
          ([, { kind, variant }]) => kind === "peer" || (kind === "prototype" && variant === ours.variant),
        )
        .map(([against, theirs]) => ({ job: job.name, of, against, ...speed(ours, theirs) })),
    );
}

/** Share of the peak that every product of a side reaches: median and interval over the rounds. */
export function sharesOf({ rates: { peak, ...shares } }) {
  const one = peak.map(() => 1);
  return Object.fromEntries(Object.entries(shares).map(([name, share]) => [name, ratioOf(share, one)]));
}

/** What a goal is about, in a record: { ratio, interval }, or { why } there is none. */
function figureOf(goal, record, variant) {
  if (goal.size !== undefined) {
    const size = record.sizes?.[goal.size];
    return size === undefined ? { why: "not run" } : { ratio: size, interval: [size, size] };
  }
  const job = jobNamed(record, goal.job);
  if (job === undefined) return { why: "not run" };
  const id = goal.of ?? `ours-${variant}`;
  const ours = job.sides[id];
  if (ours === undefined) return { why: job.absent[id] ?? "not run" };
  if (goal.rates !== undefined) {
    const shares = sharesOf(ours);
    return goal.rates
      .map((name) => shares[name])
      .reduce((low, each) => (each.ratio < low.ratio ? each : low));
  }
  const other = goal.against === "prototype" ? `prototype-${variant}` : goal.against;
  const theirs = job.sides[other];
  if (theirs === undefined) return { why: job.absent[other] ?? "not run" };
  return goal.atMost ? ratioOf(ours.cpuNs, theirs.cpuNs) : speed(ours, theirs);
}

/** Every goal of the record's suite with its verdict. */
export function judge(record) {
  const variant = variantOf(record);
  return goals
    .filter(({ suite }) => suite === suiteOf(record))
    .map((goal) => {
      const bound = goal[variant];
      const figure = figureOf(goal, record, variant);
      const isJudged = bound !== null && figure.why === undefined;
      const verdict = isJudged
        ? verdictOf(figure, goal.atMost ? { atMost: bound } : { atLeast: bound })
        : null;
      return { ...goal, bound, ...figure, verdict };
    });
}

/** The verdicts of a record in words. */
export const verdictsOf = (record) =>
  judge(record)
    .filter(({ verdict }) => verdict !== null)
    .map(({ what, against, verdict }) => `${what}${against ? `, beside ${against}` : ""}: ${verdict}`);

const show = (x, digits = 3) => (Math.abs(x) >= 1000 ? x.toFixed(0) : x.toPrecision(digits));
/** A ratio with its 90 % interval. */
const showRatio = ({ ratio, interval }) => `${show(ratio)} [${show(interval[0])}, ${show(interval[1])}]`;

/** ns in the unit that reads best. */
function showTime(ns) {
  for (const [unit, size] of Object.entries({ s: 1e9, ms: 1e6, us: 1e3 }))
    if (ns >= size) return `${show(ns / size)} ${unit}`;
  return `${show(ns)} ns`;
}

/** A table in Markdown, columns aligned. */
export function table(head, rows) {
  const all = [head, ...rows].map((row) => row.map(String));
  const width = head.map((_, i) => Math.max(3, ...all.map((row) => row[i].length)));
  const line = (row) => `| ${row.map((cell, i) => cell.padEnd(width[i])).join(" | ")} |`;
  const rule = `|${width.map((w) => "-".repeat(w + 2)).join("|")}|`;
  return [line(all[0]), rule, ...all.slice(1).map(line)].join("\n");
}

/** Where a record comes from, in one line. */
export function origin(record) {
  const { machine, date, commit, modified, effort, seconds, python, openblas } = record;
  const peers = [python, openblas && `OpenBLAS ${openblas}`].filter(Boolean).map((each) => `, ${each}`);
  const source = `${(commit ?? "?").slice(0, 8)}${modified ? " with changes" : ""}`;
  return (
    `Node ${machine.node} (V8 ${machine.v8})${peers.join("")}, ${date.slice(0, 10)}, ${machine.cpu}, ${machine.cores} cores, commit ${source}; ` +
    `${effort.passes * effort.rounds} rounds in ${effort.passes} passes, ${seconds} s; the measured processes had ` +
    `${(100 * machine.busy).toFixed(0)} % of their core`
  );
}

/** Where records come from, a line each. */
const origins = (records) => records.map((record) => `- ${origin(record)}`).join("\n");

const headOf = (record) => `Node ${majorOf(record)}`;

/** A row per key in the order of the first record that has it, a cell or more per record. */
function merged(records, rowsOf, emptyCells) {
  const maps = records.map(rowsOf);
  const keys = [...new Set(maps.flatMap((rows) => [...rows.keys()]))];
  return keys.map((key) => {
    const { lead } = maps.findLast((rows) => rows.has(key)).get(key);
    return [...lead, ...maps.flatMap((rows) => rows.get(key)?.cells ?? emptyCells)];
  });
}

/** Goals of several records side by side. */
export function goalTable(records) {
  const rowsOf = (record) =>
    new Map(
      judge(record).map((goal) => {
        const { what, against, atMost, bound, verdict, why } = goal;
        const beside = goal.size !== undefined || goal.rates !== undefined || atMost ? "" : (against ?? "");
        const asked = bound === null ? "-" : `${atMost ? "<=" : ">="} ${bound}`;
        const isExact = goal.size !== undefined;
        const measured = why !== undefined ? "absent" : isExact ? show(goal.ratio) : showRatio(goal);
        return [`${what}|${against}`, { lead: [what, beside], cells: [asked, measured, verdict ?? "-"] }];
      }),
    );
  const heads = records.flatMap((record) => [`goal, ${variantOf(record)}`, headOf(record), "verdict"]);
  return table(["figure", "beside", ...heads], merged(records, rowsOf, ["", "", ""]));
}

/** Times of all sides of jobs, strongest first; how many times as fast we are with the build that the record is judged by; goals. */
export function speedTable(records, families) {
  const rowsOf = (record) => {
    const rows = new Map();
    const variant = variantOf(record);
    const judged = judge(record);
    for (const job of record.jobs.filter(({ family }) => families.includes(family))) {
      const ratios = new Map(
        comparisonsOf(job)
          .filter(({ of }) => of === `ours-${variant}`)
          .map((each) => [each.against, each]),
      );
      const rank = (id) => (id.startsWith("ours") ? 0 : (ratios.get(id)?.ratio ?? Number.POSITIVE_INFINITY));
      const ids = [...Object.keys(job.sides), ...Object.keys(job.absent)];
      for (const id of ids.sort((a, b) => rank(a) - rank(b))) {
        const side = job.sides[id];
        const ratio = ratios.get(id);
        const goal = judged.find(
          (each) => each.job === job.name && [id, side?.kind].includes(each.against) && each.verdict !== null,
        );
        const asked = ratio === undefined || goal === undefined ? "" : `>= ${goal.bound}: ${goal.verdict}`;
        const time =
          side === undefined ? shortened(job.absent[id]) : `${showTime(side.nsPerUnit.median)} / ${job.unit}`;
        rows.set(`${job.name}|${id}`, {
          lead: [job.name, side?.label ?? id.replaceAll("-", " ")],
          cells: [time, ratio === undefined ? "" : showRatio(ratio), asked],
        });
      }
    }
    return rows;
  };
  const heads = records.flatMap((record) => [
    headOf(record),
    `ours, ${variantOf(record)}, faster by`,
    "goal",
  ]);
  return table(["job", "side", ...heads], merged(records, rowsOf, ["", "", ""]));
}

/** The part of a reason that a table has room for. */
const shortened = (why) =>
  `absent: ${why.includes("relaxed SIMD") ? "no relaxed SIMD" : why.split("\n")[0].slice(0, 80)}`;

/** Shares of the peak: matrices of m by k, and the covariance updates, per build. */
export function productTables(records) {
  const blocks = records.flatMap((record) =>
    record.jobs
      .filter(({ family }) => family === "products")
      .flatMap(({ dtype, sides, absent }) => [
        ...Object.values(sides).map(({ variant, rates }) => ({ record, dtype, variant, rates })),
        ...Object.values(absent).map((why) => ({ record, dtype, why })),
      ]),
  );
  return blocks
    .map(({ record, dtype, variant, rates, why }) => {
      if (why !== undefined) return `${headOf(record)}, ${dtype}, fma: absent; ${why}`;
      const shares = sharesOf({ rates });
      const percent = (name) => `${(100 * shares[name].ratio).toFixed(0)} %`;
      const products = Object.keys(shares).filter((name) => name.startsWith("matmul"));
      const sizes = [...new Set(products.map((name) => name.split(" ").at(-1)))];
      const matrix = sizes.map((m) => [`m = ${m}`, ...sizes.map((k) => percent(`matmul ${m} x ${k}`))]);
      const updates = Object.keys(shares)
        .filter((name) => name.startsWith("rank-k"))
        .map((name) => `P = ${name.split(" ")[1]}: ${percent(name)}`);
      const peak = show(median(rates.peak));
      return `${headOf(record)}, ${dtype}, ${variant}: peak ${peak} GFLOP/s; rank-k covariance update ${updates.join(", ")}\n\n${table(["", ...sizes.map((k) => `k = ${k}`)], matrix)}`;
    })
    .join("\n\n");
}

/** Times of sides that stand for themselves: scaling, workers, experiments, start. */
export function timeTable(records, families) {
  const rowsOf = (record) => {
    const rows = new Map();
    for (const job of record.jobs.filter(({ family }) => families.includes(family)))
      for (const [id, side] of Object.entries(job.sides))
        rows.set(`${job.name}|${id}`, {
          lead: [job.title, side.label],
          cells: [`${showTime(side.nsPerUnit.median)} / ${job.unit}`],
        });
    return rows;
  };
  const rows = merged(records, rowsOf, [""]);
  // a title stands in the first row of its job
  const titled = rows.map(([title, ...rest], i) => [title === rows[i - 1]?.[0] ? "" : title, ...rest]);
  return table(["what", "case", ...records.map(headOf)], titled);
}

/** Sizes of the Wasm and of the root entry. */
export function sizeTable(records) {
  const rowsOf = (record) =>
    new Map(
      Object.entries(record.sizes ?? {}).map(([name, kB]) => [
        name,
        { lead: [name], cells: [kB.toFixed(1)] },
      ]),
    );
  return table(["kB, gzip", ...records.map(headOf)], merged(records, rowsOf, [""]));
}

const times = (ratio) => (ratio >= 10 ? ratio.toFixed(0) : ratio.toPrecision(2));

/** Libraries of the table in the project's README, by the names of their sides. */
const LIBRARIES = {
  "C, OpenBLAS": /^c-/,
  numpy: /^numpy(?!-ts)/,
  torch: /^torch/,
  "plain JavaScript": /^plain-js/,
  "tfjs, wasm": /^tfjs-wasm/,
};

/** How many times as fast we are, with the default build, as the strongest way of each library: the first record alone. */
export function headlineTable([record]) {
  const rows = record.jobs
    .filter(({ family }) => SPEED.includes(family) && family !== "normals")
    .map((job) => {
      const ratios = comparisonsOf(job).filter(({ of }) => of === "ours-simd");
      const cells = Object.values(LIBRARIES).map((names) => {
        const found = ratios.filter(({ against }) => names.test(against)).map(({ ratio }) => ratio);
        return found.length === 0 ? "" : `${times(Math.min(...found))}x`;
      });
      return [`${job.title}${job.dtype === "f32" ? ", f32" : ""}`, ...cells];
    });
  return `${table(["one core, Node 20", ...Object.keys(LIBRARIES)], rows)}\n\n${origin(record)}.`;
}

const SPEED = ["sgd", "noise", "curvature", "sde", "ensemble", "normals"];

/** All tables by name, from the records of a suite. */
export const tables = {
  bench: {
    origin: origins,
    goals: goalTable,
    jobs: (records) => speedTable(records, SPEED),
    products: productTables,
    scaling: (records) => timeTable(records, ["scaling", "workers"]),
    start: (records) => timeTable(records, ["start"]),
    sizes: sizeTable,
    experiments: (records) => timeTable(records, ["experiments"]),
  },
  peers: {
    origin: origins,
    jobs: (records) => speedTable(records, SPEED),
    headline: headlineTable,
  },
};

/** What a run prints: where it was, and every table that has a row. */
export function consoleReport(record) {
  return Object.entries(tables[suiteOf(record)])
    .map(([name, make]) => [name, make([record])])
    .filter(([name, text]) => name === "origin" || text.split("\n").length > 2)
    .map(([, text]) => text)
    .join("\n\n");
}

// What follows from the samples: ratios per round, their medians and intervals, verdicts, and the table.
import { bootstrapInterval, median, spread } from "./statistics.mjs";

/** Appends the samples of one process to those of the processes before. */
export function merge(total, part) {
  if (total === null) return part;
  for (const [label, side] of Object.entries(part.sides)) {
    const into = total.sides[label];
    into.ms.push(...side.ms);
    into.cpuMs.push(...side.cpuMs);
    into.repeats &&= side.repeats && (side.kind !== "ours" || side.checksum === into.checksum);
    if (side.profiles) into.profiles.push(...side.profiles);
  }
  if (total.peak) {
    total.peak.ms.push(...part.peak.ms);
    total.peak.cpuMs.push(...part.peak.cpuMs);
  }
  total.checks.push(...part.checks);
  return total;
}

/** ns per step of one replica, per round, by one of two clocks: cpuMs (of the process) or ms (of the wall). */
const nsPerStep = (side, clock) => side[clock].map((ms) => (1e6 * ms) / (side.steps * side.replicas));

/** Operations of the products per ns of a step. */
const stepRate = (side, clock) => nsPerStep(side, clock).map((ns) => side.flops / side.replicas / ns);

/** Operations of a product instruction, 2 m n k, from its name in a profile; 0 for other instructions. */
function flopsOf({ instruction, perStep }) {
  const sizes = /^matmul\w* \(m (\d+), n (\d+), k (\d+)\)$/.exec(instruction);
  return sizes === null ? 0 : perStep * 2 * sizes[1] * sizes[2] * sizes[3];
}

/** Operations of the products per ns in the instructions that do them, per profile. */
const productRate = (side) =>
  side.profiles.map((lines) => {
    const products = lines.filter((l) => flopsOf(l) > 0);
    const flops = products.reduce((sum, l) => sum + flopsOf(l), 0);
    // a product that the profile names in another way would make the rate wrong
    if (flops !== side.flops)
      throw new Error(`the profile has ${flops} operations in products, the net ${side.flops}`);
    return flops / products.reduce((sum, l) => sum + l.perStep * l.ns, 0);
  });

/** One profile out of several: the median of each line. Equal instructions are told apart by their rank. */
function medianProfile(profiles) {
  const times = new Map();
  for (const lines of profiles) {
    const seen = new Map();
    for (const line of lines) {
      const name = `${line.stage} ${line.instruction}`;
      const rank = seen.get(name) ?? 0;
      seen.set(name, rank + 1);
      const key = `${name} ${rank}`;
      if (!times.has(key)) times.set(key, { ...line, all: [] });
      times.get(key).all.push(line.ns);
    }
  }
  const lines = [...times.values()].map(({ all, ...line }) => ({ ...line, ns: median(all) }));
  const total = lines.reduce((sum, l) => sum + l.perStep * l.ns, 0);
  return lines.map((l) => ({ ...l, share: (l.perStep * l.ns) / total })).sort((a, b) => b.share - a.share);
}

const quantities = {
  speed: { unit: "ns/step", value: nsPerStep, ratio: (of, against) => against / of },
  cost: { unit: "ns/step", value: nsPerStep, ratio: (of, against) => of / against },
  stepRate: { unit: "GFLOP/s of a step", value: stepRate, ratio: (of, against) => of / against },
  productRate: { unit: "GFLOP/s in products", value: productRate, ratio: (of, against) => of / against },
};

/**
 * One comparison. Rounds are compared pairwise, so what slows a whole round cancels.
 *
 * The verdict is by the CPU time of the process, which the neighbours on a shared machine take less from than from the wall clock's;
 * the wall clock's ratio is beside it. "reached": the median does. "within noise": only the better end of the interval does.
 */
export function assess(figure, result) {
  const of = result.sides[figure.of];
  const against = result.sides[figure.against];
  const { quantity, atLeast, atMost } = figure;
  const goal = atLeast ?? atMost ?? null;
  const base = { ...figure, unit: quantities[quantity].unit };
  if (against === undefined) return { ...base, verdict: "not run" };
  const { value, ratio } = quantities[quantity];
  const ratios = (clock) => {
    const other = value(against, clock);
    return value(of, clock).map((v, i) => ratio(v, other[i]));
  };
  const perRound = ratios("cpuMs");
  const middle = median(perRound);
  const interval = bootstrapInterval(perRound);
  const reaches = (x) => (atLeast !== undefined ? x >= goal : x <= goal);
  const verdict =
    goal === null
      ? "no goal"
      : reaches(middle)
        ? "reached"
        : interval.some(reaches)
          ? "within noise"
          : "missed";
  return {
    ...base,
    rounds: perRound.length,
    values: { of: spread(value(of, "cpuMs")), against: spread(value(against, "cpuMs")) },
    ratio: middle,
    interval,
    ratios: perRound,
    // a profile has one clock
    wallRatio: quantity === "productRate" ? null : median(ratios("ms")),
    verdict,
  };
}

/** Share of the in-run Wasm peak that the products of a side reach, counting the time of the whole step. */
export function peakShare(result, label) {
  if (!result.peak) return null;
  const peak = result.peak.cpuMs.map((ms) => result.peak.flops / (1e6 * ms));
  const rates = stepRate(result.sides[label], "cpuMs");
  return { share: median(rates.map((rate, i) => rate / peak[i])), peak: median(peak) };
}

/** CPU time over wall time: how much of a core this process had. */
export function busy(results) {
  const sides = results.flatMap((r) => Object.values(r.sides));
  return median(sides.flatMap((side) => side.ms.map((ms, i) => side.cpuMs[i] / ms)));
}

const show = (x, digits = 3) => (x >= 1000 ? x.toFixed(0) : x.toPrecision(digits));

/** A ratio with its interval. */
const showRatio = (f) => `${show(f.ratio)} [${show(f.interval[0])}, ${show(f.interval[1])}]`;

function goalOf(figure) {
  if (figure.atLeast !== undefined) return `>= ${figure.atLeast}`;
  return figure.atMost !== undefined ? `<= ${figure.atMost}` : "";
}

/** The table in Markdown, columns aligned. */
export function table(results) {
  const head = ["job", "quantity", "ours", "beside", "", "ratio [90 % interval]", "wall", "goal", "verdict"];
  const rows = results.flatMap((result) =>
    result.figures.map((f) => {
      const cells = [result.name, `${f.quantity}, ${f.unit}`];
      if (f.verdict === "not run") return [...cells, "", "", f.against, "", "", goalOf(f), "not run"];
      return [
        ...cells,
        show(f.values.of.median),
        show(f.values.against.median),
        f.against,
        showRatio(f),
        f.wallRatio === null ? "" : show(f.wallRatio),
        goalOf(f),
        f.verdict === "no goal" ? "" : f.verdict,
      ];
    }),
  );
  const all = [head, ...rows];
  const width = head.map((_, i) => Math.max(3, ...all.map((row) => row[i].length)));
  const line = (row) => `| ${row.map((cell, i) => cell.padEnd(width[i])).join(" | ")} |`;
  return [line(head), `|${width.map((w) => "-".repeat(w + 2)).join("|")}|`, ...rows.map(line)].join("\n");
}

/** Where the time of a step goes, for every side of ours that was profiled. */
export function profileText(result) {
  const blocks = Object.entries(result.sides).flatMap(([label, side]) => {
    if (!side.profiles) return [];
    const lines = medianProfile(side.profiles);
    const step = median(nsPerStep(side, "cpuMs")) * side.replicas;
    const sum = lines.reduce((total, l) => total + l.perStep * l.ns, 0);
    const products = lines.filter((l) => l.instruction.startsWith("matmul"));
    const share = products.reduce((total, l) => total + l.share, 0);
    return [
      `${result.name}, ${label}: ${show(step)} ns per step${side.replicas > 1 ? ` of all ${side.replicas} replicas` : ""}; ` +
        `the instructions below take ${show(sum)} ns${side.replicas > 1 ? " for one group of replicas" : ""} when timed alone, ` +
        `${(100 * share).toFixed(0)} % of it in products`,
      ...lines.map(
        (l) =>
          `  ${(100 * l.share).toFixed(1).padStart(5)} %  ${l.ns.toFixed(1).padStart(9)} ns  ${String(l.perStep).padStart(3)} x  ` +
          `${l.stage.padEnd(6)}  ${l.instruction}`,
      ),
    ];
  });
  return blocks.join("\n");
}

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
    return flops / products.reduce((sum, l) => sum + l.perStep * l.ns, 0);
  });

/** Whether the profile's product instructions do all operations of the net's products, and no more. */
const namesAllProducts = (side) =>
  side.profiles.every((lines) => lines.reduce((sum, l) => sum + flopsOf(l), 0) === side.flops);

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
 * The verdict is by the CPU time of the process: on a shared machine the wall clock also counts the neighbours. Its ratio is
 * given beside. "reached": the median does. "within noise": only the better end of the interval does.
 */
export function assess(figure, result) {
  const of = result.sides[figure.of];
  const against = result.sides[figure.against];
  const { quantity, atLeast, atMost } = figure;
  const goal = atLeast ?? atMost ?? null;
  const base = { ...figure, unit: quantities[quantity].unit };
  if (against === undefined) return { ...base, verdict: "not run", why: `${figure.against}: not run` };
  if (quantity === "productRate" && !(namesAllProducts(of) && namesAllProducts(against)))
    return {
      ...base,
      verdict: "not run",
      why: "the profile names products in a way that report.mjs does not know",
    };
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
  const head = ["job", "quantity", "ours", "beside", "ratio [90 % interval]", "wall", "goal", "verdict"];
  const rows = results.flatMap((result) =>
    result.figures.map((f) => {
      const cells = [result.name, `${f.quantity}, ${f.unit}`];
      if (f.verdict === "not run") return [...cells, "", f.why, "", "", goalOf(f), ""];
      return [
        ...cells,
        show(f.values.of.median),
        `${f.against}: ${show(f.values.against.median)}`,
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

/** What a result keeps for the file: the median of the profiles instead of all, and samples to a tenth of a microsecond. */
export function forFile(result) {
  const round = (values) => values.map((x) => Number(x.toFixed(4)));
  const times = ({ ms, cpuMs }) => ({ ms: round(ms), cpuMs: round(cpuMs) });
  return {
    ...result,
    sides: Object.fromEntries(
      Object.entries(result.sides).map(([label, { profiles, ...side }]) => [
        label,
        {
          ...side,
          ...times(side),
          nsPerStep: spread(nsPerStep(side, "cpuMs")),
          wallNsPerStep: spread(nsPerStep(side, "ms")),
          ...(profiles ? { profile: medianProfile(profiles) } : {}),
        },
      ]),
    ),
    peak: result.peak && { ...result.peak, ...times(result.peak) },
  };
}

/** Where the time of a step goes, for every side of ours that was profiled. */
export function profileText(result) {
  const texts = Object.entries(result.sides).flatMap(([label, side]) => {
    if (!side.profiles) return [];
    const lines = medianProfile(side.profiles);
    const R = side.replicas;
    const step = median(nsPerStep(side, "cpuMs")) * R;
    // a profile is of one group of replicas; the gather says how many those are
    const group = Number(
      /^gather .*lanes (\d+)/.exec(lines.find((l) => l.instruction.startsWith("gather"))?.instruction)?.[1] ??
        1,
    );
    const groups = R === 1 ? 1 : Math.ceil(R / group);
    const sum = groups * lines.reduce((total, l) => total + l.perStep * l.ns, 0);
    const share = lines.reduce((total, l) => total + (l.instruction.startsWith("matmul") ? l.share : 0), 0);
    return [
      `${result.name}, ${label}: ${show(step)} ns per step${R > 1 ? ` of ${R} replicas in ${groups} groups` : ""}. ` +
        `Timed alone, its instructions take ${show(sum)} ns, ${(100 * share).toFixed(0)} % of it products; ` +
        `${show(Math.max(0, step - sum))} ns are draws, the loop and samples that are not in the cache.`,
      ...lines.map((l) => {
        const [percent, ns] = [(100 * l.share).toFixed(1).padStart(5), l.ns.toFixed(1).padStart(9)];
        return `  ${percent} %  ${ns} ns  ${String(l.perStep).padStart(3)} x  ${l.stage.padEnd(6)}  ${l.instruction}`;
      }),
    ];
  });
  return texts.join("\n");
}

// A process that measures sides written in JavaScript; bench/channel.mjs has the words it understands. Argument: JSON of
// { module, job, context }. The module exports `sides`: by `make` or kind, a function of ({ job, side, ...context }) that prepares one and
// returns
//
//   run(count)   does `count` repetitions; returns a checksum, or { checksum, ms, cpuMs, rates } where it measures itself
//   check()      { values }, see check in suite.mjs
import { createInterface } from "node:readline";
import { Bench } from "tinybench";

const { module, job, context } = JSON.parse(process.argv[2]);
const prepared = new Map();

/** The sum of numbers, which must be finite: evidence that the work was done. */
function checksumOf(result) {
  if (typeof result === "string") return result;
  let sum = 0;
  for (const value of typeof result === "number" ? [result] : result) sum += value;
  if (!Number.isFinite(sum)) throw new Error("the result is not finite");
  return String(sum);
}

const answers = {
  async prepare(id) {
    const side = job.sides.find((each) => each.id === id);
    try {
      const { sides } = await import(module);
      prepared.set(id, await sides[side.make ?? side.kind]({ ...context, job, side }));
      return {};
    } catch (error) {
      // a build that this runtime or machine cannot have
      if (error.code === "unsupported" || error.code === "ERR_MODULE_NOT_FOUND")
        return { absent: error.message };
      throw error;
    }
  },
  async check(id) {
    const { values, expected, ...rest } = await prepared.get(id).check();
    return { values: Array.from(values), ...(expected ? { expected: Array.from(expected) } : {}), ...rest };
  },
  async run(id, count) {
    const { run } = prepared.get(id);
    let answer;
    const bench = new Bench({ iterations: 1, time: 0, warmup: false, retainSamples: true, throws: true });
    const once = async () => {
      const before = process.cpuUsage();
      const result = await run(Number(count));
      const { user, system } = process.cpuUsage(before);
      const own = result?.checksum === undefined ? { checksum: checksumOf(result) } : result;
      answer = { cpuMs: (user + system) / 1000, ...own };
    };
    bench.add(id, once, { async: true });
    const [{ result }] = await bench.run();
    return { ms: result.latency.samples[0], ...answer };
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const [word, ...rest] = line.split(" ");
  let answer;
  try {
    answer = await answers[word](...rest);
  } catch (error) {
    answer = { error: String(error?.stack ?? error) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
process.exit(0);

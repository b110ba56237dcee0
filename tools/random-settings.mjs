// Every experiment at settings drawn at random from its ranges: do the predictions follow? Draws are log-uniform (uniform where a
// range holds 0), by a seed. `npm run build`, then: node tools/random-settings.mjs [--draws 3] [--seed text] [--only E01,E02] [--workers 2]
import { fork } from "node:child_process";
import { availableParallelism } from "node:os";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const { values: args } = parseArgs({
  options: {
    draws: { type: "string", default: "3" },
    seed: { type: "string", default: "settings" },
    only: { type: "string" },
    workers: { type: "string", default: String(Math.min(4, availableParallelism())) },
  },
});

/** Uniform numbers from a text, the same on every machine. */
function uniforms(text) {
  let state = 2166136261;
  for (const c of text) state = Math.imul(state ^ c.charCodeAt(0), 16777619);
  return () => {
    state = Math.imul(state ^ (state >>> 15), 2246822519) + 0x9e3779b9;
    return ((Math.imul(state ^ (state >>> 13), 3266489917) ^ (state >>> 16)) >>> 0) / 4294967296;
  };
}

function drawn(parameters, random) {
  return Object.fromEntries(
    Object.entries(parameters).map(([name, { min, max, integer }]) => {
      const u = random();
      const value = min > 0 ? min * (max / min) ** u : min + u * (max - min);
      return [name, integer ? Math.round(value) : value];
    }),
  );
}

if (process.send === undefined) {
  const { experiments } = await import("../dist/experiments.js");
  const ids = args.only === undefined ? [...experiments.keys()] : args.only.split(",");
  const jobs = [];
  for (let i = 0; i < Number(args.draws); i++) for (const id of ids) jobs.push({ id, i });
  const total = { rows: 0, agree: 0, settings: 0, whole: 0 };
  const began = Date.now();
  const work = () =>
    new Promise((resolve, reject) => {
      const child = fork(fileURLToPath(import.meta.url), process.argv.slice(2));
      const next = () => {
        const job = jobs.shift();
        if (job === undefined) {
          child.kill();
          resolve();
        } else child.send(job);
      };
      child.on("error", reject);
      child.on("message", ({ id, settings, error, rows, seconds }) => {
        const bad = (rows ?? []).filter((r) => !r.agrees);
        total.settings++;
        if (error === undefined && bad.length === 0) total.whole++;
        total.rows += rows?.length ?? 0;
        total.agree += (rows?.length ?? 0) - bad.length;
        console.log(
          `${id.padEnd(5)} ${error ?? `${rows.length - bad.length} of ${rows.length} rows agree`}, ${seconds.toFixed(1)} s`,
        );
        if (error !== undefined || bad.length > 0) console.log(`      ${JSON.stringify(settings)}`);
        for (const r of bad)
          console.log(
            `      ${r.setting}; ${r.quantity}: predicted ${r.predicted} +- ${r.modelError}, measured ${r.measured} +- ${r.stdErr}; neglects ${r.neglects}`,
          );
        next();
      });
      next();
    });
  await Promise.all(Array.from({ length: Number(args.workers) }, work));
  console.log(
    `${total.settings} settings, ${total.whole} with all rows in agreement; ${total.agree} of ${total.rows} rows agree; ${((Date.now() - began) / 1000).toFixed(0)} s`,
  );
} else {
  const { experiments, runExperiment } = await import("../dist/experiments.js");
  const { createEngine } = await import("../dist/index.js");
  const engine = await createEngine();
  process.on("message", async ({ id, i }) => {
    const experiment = experiments.get(id);
    const seed = `${args.seed}/${id}/${i}`;
    const settings = drawn(experiment.parameters, uniforms(seed));
    const began = Date.now();
    const answer = { id, settings };
    try {
      const { rows } = await runExperiment(experiment, engine, settings, seed);
      answer.rows = rows.map((r) => ({
        setting: r.setting,
        quantity: r.quantity,
        agrees: r.verdict.agrees,
        predicted: r.predicted.value,
        modelError: r.predicted.modelError,
        neglects: r.predicted.neglects,
        measured: r.measured.value,
        stdErr: r.measured.stdErr,
      }));
    } catch (error) {
      answer.error = `refused: ${error.message}`;
    }
    process.send({ ...answer, seconds: (Date.now() - began) / 1000 });
  });
}

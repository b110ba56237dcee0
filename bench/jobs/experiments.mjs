// The cost of every experiment, at its quick settings.
import { experiments, runExperiment } from "../../dist/experiments.js";
import { engineOf } from "../ours.mjs";

export const jobs = [
  {
    ...{ module: import.meta.url, family: "experiments", name: "experiments", unit: "run", dtype: "f64" },
    title: "the experiments at their quick settings",
    ...{ once: true, unchecked: true, passes: 1, rounds: 3 },
    sides: [...experiments.values()].map(({ id, title }) => ({
      ...{ id, label: `${id}: ${title}`, kind: "ours", host: "ours", variant: "simd" },
    })),
  },
];

export const sides = {
  async ours({ job, side }) {
    const experiment = experiments.get(side.id);
    return {
      async run() {
        const engine = await engineOf(job, side.variant);
        const { rows } = await runExperiment(experiment, engine, experiment.quick ?? {}, "bench");
        engine.dispose();
        return rows.map(({ measured }) => measured.value).join();
      },
    };
  },
};

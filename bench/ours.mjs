// What the sides of noetherflow share: the built library, an engine of a build, and the sides of a job.
import * as noetherflow from "../dist/index.js";
import { loadPrototypes } from "./prototypes.mjs";

export { noetherflow };

/** Samples of the data of J1, J2, J4 and J5. */
export const N = 2048;

export const engineOf = (job, variant) => noetherflow.createEngine({ dtype: job.dtype, variant });

/** The engine that checks are measured by. */
export const referenceEngine = () => noetherflow.createEngine();

/** Allowed between sides, relative to the largest value: orders of summation differ, and multiply-add fuses or does not. */
export const TOLERANCE = { f64: 1e-11, f32: 1e-4 };

/**
 * A job with our sides, one per build, and those of the prototypes where it has them.
 *
 * @param module     import.meta.url of the file that has its sides
 * @param prototype  whether there is a prototype for it; it is prepared by `sides.prototype`
 */
export function jobOf(module, { dtype = "f64", prototype = false, ...job }) {
  const variants = ["simd", "fma"];
  const ours = variants.map((variant) => ({
    ...{ id: `ours-${variant}`, label: `ours, ${variant}`, kind: "ours", host: "ours", variant },
  }));
  const theirs = variants.map((variant) => ({
    ...{
      id: `prototype-${variant}`,
      label: `prototype, ${variant}`,
      kind: "prototype",
      host: "ours",
      variant,
    },
  }));
  const all = { tolerance: TOLERANCE[dtype], unit: "step", ...job };
  return { module, dtype, ...all, sides: [...ours, ...(prototype ? theirs : [])] };
}

/** The prototype of a side; without --prototypes it is absent. */
export function prototypeOf({ prototypes, side }) {
  if (prototypes === null)
    throw Object.assign(new Error("not run: --prototypes DIR compares with them"), { code: "unsupported" });
  return loadPrototypes(prototypes, side.variant);
}

/** Runs to the end, or says why not. */
export async function finished(run) {
  const result = await run;
  if (result.status !== "done") throw new Error(`the run ${result.status}; choose a smaller eta`);
  return result;
}

/** `copies` copies of one sample, for which every batch is the same: what a side that draws its own batches can be checked on. */
export function repeated(one, copies) {
  const of = (values) =>
    Float64Array.from({ length: values.length * copies }, (_, i) => values[i % values.length]);
  return { x: of(one.x), y: of(one.y) };
}

/** Results for the tests of the report: real ones at quick settings, and a made-up one with all that a report may meet. */
import { experiments, type Figure, type Result, runExperiment } from "../../src/experiments/experiment.ts";
import { createEngine } from "../../src/index.ts";
import type { Provenance } from "../../src/report/report.ts";
import { judge, judgeInLimit } from "../../src/stats/verdict.ts";

export const HOSTILE = `<script>alert("x")</script> & 'y'`;

export const provenance: Provenance = {
  version: "0",
  dtype: "f64",
  variant: "simd",
  wasmSha256: null,
  streamVersion: 1,
  host: "a host",
  seed: 'a "seed"',
  command: "npm start",
};

export async function quickResults(): Promise<Result[]> {
  const engine = await createEngine();
  const results: Result[] = [];
  for (const id of ["E01", "E04"]) {
    const experiment = experiments.get(id)!;
    results.push(await runExperiment(experiment, engine, experiment.quick ?? {}, provenance.seed));
  }
  engine.dispose();
  return results;
}

/** Six curves with dots, bars, gaps and logarithmic axes. */
const figure: Figure = {
  title: HOSTILE,
  caption: "What it shows",
  xLabel: "learning rate η",
  yLabel: "a label of the vertical axis that is longer than a phone is wide, so that it takes two lines",
  xScale: "log",
  yScale: "log",
  curves: ["one", "two", "three"].flatMap((label, i) => [
    {
      label,
      predicted: false,
      mark: i === 0 ? ("dots" as const) : ("line" as const),
      x: [1, 2, 3],
      y: [1 + i, i === 1 ? Number.NaN : 2, 3],
      ...(i < 2 ? { error: [0.1, 0.2, 4] } : {}),
    },
    { label, predicted: true, x: [1, 2, 3], y: [1 + i, 2, 3] },
  ]),
};

/** Rows that agree, agree in the limit and disagree; texts with characters of HTML and CSV. */
export function madeUp(): Result {
  const predicted = { value: 1, modelError: 0, neglects: `terms, of "second" order` };
  const measured = (value: number, stdErr: number) => ({
    value,
    stdErr,
    count: 64,
    method: "mean over runs",
  });
  const row = (setting: string, value: number, stdErr: number) => {
    const m = measured(value, stdErr);
    return { setting, quantity: `Tr, "∇²L"`, predicted, measured: m, verdict: judge(m, predicted) };
  };
  const [at, half] = [measured(1.4, 0.001), measured(1.2, 0.001)];
  return {
    id: "X<2>",
    title: HOSTILE,
    question: "Is it so?",
    formula: `λ* = ½ ln(w²/u²)\n  ${HOSTILE}`,
    source: "section 2",
    claim: "It is.",
    parameters: {
      eta: { value: 0.01, min: 0.001, max: 0.1, unit: "theta² / loss", what: `learning rate ${HOSTILE}` },
      steps: { value: 100, min: 1, max: 1e6, integer: true, what: "how long" },
    },
    spec: { eta: 0.02, steps: 100, seed: provenance.seed },
    rows: [
      row(HOSTILE, 1.001, 0.01),
      {
        setting: "in the limit",
        quantity: "λ",
        predicted,
        measured: at,
        verdict: judgeInLimit({ predicted, measured: at }, { predicted, measured: half }),
      },
      row("missed", 1.5, 0.01),
    ],
    figures: [
      figure,
      { ...figure, title: "Nothing", curves: [{ label: "none", predicted: false, x: [1], y: [-1] }] },
      {
        ...figure,
        title: "A point",
        xScale: "linear",
        curves: [{ label: "p", predicted: false, x: [0], y: [5] }],
      },
    ],
    runs: {},
    specs: {},
    elapsedMs: 1234,
  };
}

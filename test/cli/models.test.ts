/**
 * The models of examples/models as a new user tries them: attention with a sampler, a convolution as a program, a table with columns
 * of its own. The generators are those that the structure of each model has, and predictions are checked by what they predict.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createEngine, type Problem } from "../../src/index.ts";
import { readRun } from "../../src/records/records.ts";
import { Workplace } from "../helpers/command.ts";

const folder = fileURLToPath(new URL("../../examples/models/", import.meta.url));
const place = new Workplace();
beforeAll(() => {
  for (const name of readdirSync(folder)) place.write(name, readFileSync(`${folder}${name}`));
});
afterAll(() => place.dispose());

async function answer<T>(...args: string[]): Promise<T> {
  const { code, out, err } = await place.call([...args, "--json"]);
  // slow machines see progress, in lines of its own
  const said = err.split("\n").filter((line) => !line.startsWith('{"progress"'));
  expect([said, code]).toEqual([[""], 0]);
  return JSON.parse(out) as T;
}

interface Summary {
  readonly rows: readonly { readonly name: string; readonly charge: number; readonly class: number }[];
  readonly discovery: { readonly count: number };
}
interface Found {
  readonly symmetry: string;
  readonly charge: number;
  readonly flow: number;
  readonly equilibrium: { readonly status: string; readonly lambda: number; readonly charge: number };
}

const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i);
const CASES = {
  attention: {
    args: ["attention.json", "--data", "attention-data.json", "--samples", "200"],
    // GL(2) acts between keys and queries, and between values and output: 3 symmetric generators each
    names: ["Wq, Wk", "Wo, Wv"].flatMap((of) =>
      ["(0, 0)", "(0, 1)", "(1, 1)"].map((ij) => `double rotation ${of} ${ij}`),
    ),
    eta: 0.002,
  },
  convolution: {
    args: ["convolution.mjs"],
    names: range(4).map((j) => `neuron scaling ${j} of R, K`),
    eta: 0.0005,
  },
  table: {
    args: ["houses.json", "--data", "houses.csv", "--columns", "features=area,rooms,age"],
    names: range(5).map((j) => `neuron scaling ${j} of U, (W, b)`),
    eta: 0.001,
  },
};

describe.each(Object.entries(CASES))("%s", (name, { args, names, eta }) => {
  test("symmetries finds the generators that the model has, and no others", async () => {
    const { rows, discovery } = await answer<Summary>("symmetries", ...args);
    expect(rows.map((row) => row.name).sort()).toEqual([...names].sort());
    expect(discovery.count).toBe(names.length);
    expect(rows.every((row) => row.class === 1)).toBe(true);
  });

  test("equilibrium: saved parameters have the charge it says, no flow, and the same loss", async () => {
    const [first] = names as [string];
    const [now] = await answer<Found[]>("equilibrium", ...args, "--symmetry", first, "--save", `${name}.npz`);
    expect(now!.equilibrium.status).toBe("finite");
    const [there] = await answer<Found[]>(
      "equilibrium",
      ...args,
      "--symmetry",
      first,
      "--theta",
      `${name}.npz`,
    );
    expect(there!.charge).toBeCloseTo(now!.equilibrium.charge, 9);
    expect(Math.abs(there!.flow)).toBeLessThan(1e-9 * Math.abs(now!.flow));
    const loss = async (...more: string[]) =>
      (await answer<{ loss: number }>("measure", ...args, ...more)).loss;
    expect(await loss("--theta", `${name}.npz`)).toBeCloseTo(await loss(), 9);
  });

  test("train moves each charge as dC/dt at the start says: |z| < 4.9 in 2048 runs of one step", async () => {
    const before = await answer<Found[]>("equilibrium", ...args, "--eta", `${eta}`);
    await answer(
      "train",
      ...args,
      ...["--eta", `${eta}`, "--steps", "1", "--replicas", "2048", "--out", `run ${name}`],
      ...names.flatMap((of) => ["--symmetry", of]),
    );
    await place.call(["export", `run ${name}`, "--format", "json", "--out", `${name}-run.json`]);
    const { series } = JSON.parse(place.read(`${name}-run.json`).toString()) as {
      series: { charges: Record<string, number[]> };
    };
    const problem = await recorded(name);
    const theta = problem.init("glorot", { seed: "0" });
    const { generators } = await problem.discoverSymmetries({ seed: "0" });
    for (const { symmetry, flow } of before) {
      const C = series.charges[symmetry]!;
      const moved = range(2048).map((r) => C[2048 + r]! - C[r]!);
      const mean = moved.reduce((a, b) => a + b) / 2048;
      const stdErr = Math.sqrt(moved.reduce((s, m) => s + (m - mean) ** 2, 0) / 2047 / 2048);
      const A = generators.find((g) => g.name === symmetry)!;
      // the change of C is eta^2/2 E[ghat^T A ghat]: the flow, and what gradient descent does at a finite step
      const { discrete } = problem.noetherFlow(theta, A, { eta, batchSize: 1 });
      expect(stdErr).toBeGreaterThan(0);
      expect(Math.abs(mean - eta * (flow + discrete))).toBeLessThan(4.9 * stdErr);
    }
  });
});

/** The problem that a run of the command was on, from its record. */
async function recorded(name: string): Promise<Problem> {
  const { spec } = await readRun(join(place.dir, `run ${name}`));
  return (await createEngine()).open(spec).problem;
}

test("the convolution is one: its loss is that of plain loops", async () => {
  const problem = await recorded("convolution");
  const theta = problem.init("glorot", { seed: "loops" });
  const { K, R } = problem.named(theta) as { K: Float64Array; R: Float64Array };
  const { x, y } = problem.data as { x: Float64Array; y: Float64Array };
  let sum = 0;
  for (let n = 0; n < problem.N; n++) {
    let f = 0;
    for (let p = 0; p < 6; p++)
      for (let j = 0; j < 4; j++) {
        let z = 0;
        for (let i = 0; i < 3; i++) z += K[3 * j + i]! * x[8 * n + p + i]!;
        f += R[4 * p + j]! * Math.max(0, z);
      }
    sum += (f - y[n]!) ** 2;
  }
  expect(problem.loss(theta) as number).toBeCloseTo(sum / problem.N, 10);
});

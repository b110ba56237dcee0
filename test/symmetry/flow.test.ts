/**
 * Every generator of the public fixtures: is it a symmetry, how does noise move its charge, where does it come to rest.
 * The golden problem of the theory, and what the parts of the flow have to satisfy.
 */
import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { createEngine, parseModel, symmetry } from "../../src/index.ts";
import { goldenProblem } from "../reference/sgd.ts";

interface EquilibriumFixture {
  status: string;
  lambda?: number | null;
  C?: number;
  fPrime?: number;
  rate?: number;
}

interface GeneratorFixture {
  name: string;
  isSymmetry: boolean;
  C: number;
  center?: number[];
  worstRelative: number;
  traceSigmaA: number;
  gAg: number;
  dCdt: number;
  dCdtWithDecay: number;
  driftOfGradient?: number;
  equilibrium?: EquilibriumFixture;
  equilibriumWithDecay?: EquilibriumFixture;
}

const folder = fileURLToPath(new URL("../fixtures/", import.meta.url));
const names = readdirSync(folder)
  .filter((f) => f.endsWith(".json"))
  .map((f) => f.slice(0, -5));

/** Relative to what the terms of a sum may lose to each other. */
const expectNear = (
  got: number,
  expected: number,
  tolerance: number,
  scale = Math.abs(expected),
  what = "",
) =>
  expect(Math.abs(got - expected), `${what}: ${got}, expected ${expected}`).toBeLessThanOrEqual(
    tolerance * scale,
  );

describe.each(names)("%s", async (name) => {
  const engine = await createEngine();
  const fixture = JSON.parse(readFileSync(`${folder}${name}.json`, "utf8"));
  const problem = engine.problem(parseModel(fixture.model), fixture.data);
  const { theta } = fixture;
  const { eta, S, gamma, sigma2 } = fixture.settings;
  const generators = fixture.expected.generators as GeneratorFixture[];

  test.each(generators.map((g) => [g.name, g] as const))("%s", (_, g) => {
    const A = symmetry.generator(g);
    const found = problem.checkSymmetry(A, { theta });
    expect(found.verdict === "exact", `${found.verdict}, defect ${found.defect}`).toBe(g.isSymmetry);
    // the defect at the fixture's theta is one of those it is the largest of
    expect(found.defect).toBeGreaterThanOrEqual(g.worstRelative * 0.999 - 1e-14);

    const flow = problem.noetherFlow(theta, A, { eta, batchSize: S });
    const size = flow.plus + flow.minus;
    expectNear(flow.noise, g.dCdt, 1e-11, Math.max(size, Math.abs(g.dCdt)), "noise");
    const drift = g.driftOfGradient ?? 0;
    expectNear(flow.total, g.dCdt + drift, 1e-11, size + Math.abs(drift) + 1e-3, "total");
    expectNear(flow.discrete, (eta / 2) * g.gAg, 1e-11, (eta / 2) * Math.abs(g.gAg) + size, "discrete");
    const sum = flow.byDirection.reduce((n, d) => n + d.noise, 0);
    expectNear(sum, flow.noise, 1e-12, size, "by direction");
    const decayed = problem.noetherFlow(theta, A, { sigma2, weightDecay: gamma });
    expectNear(
      decayed.total,
      g.dCdtWithDecay + drift,
      1e-10,
      size + Math.abs(decayed.decay) + Math.abs(drift),
      "with decay",
    );
    expect(Math.abs(decayed.discrete)).toBe(0);
    expect(Math.abs(decayed.residual)).toBeLessThanOrEqual(1);

    if (!g.isSymmetry) {
      expect(() => problem.equilibrium(theta, A, { sigma2 })).toThrow("no exact symmetry");
      expect(problem.equilibrium(theta, A, { sigma2, force: true })).toHaveProperty("status");
      return;
    }
    for (const [expected, weightDecay] of [
      [g.equilibrium, 0],
      [g.equilibriumWithDecay, gamma],
    ] as const) {
      if (expected === undefined) continue;
      const at = problem.equilibrium(theta, A, { sigma2, weightDecay });
      if (g.center !== undefined && weightDecay > 0) {
        expect(at.status).toBe("none");
        continue;
      }
      expect(at.status).toBe(expected.status);
      if (at.status !== "finite") continue;
      expectNear(at.lambda, expected.lambda!, 1e-9, Math.max(1, Math.abs(expected.lambda!)), "lambda");
      expectNear(at.slope, expected.fPrime!, 1e-9, Math.abs(expected.fPrime!), "slope");
      expectNear(at.rate, expected.rate!, 1e-9, Math.abs(expected.rate!), "rate");
      expectNear(at.charge, expected.C!, 1e-9, Math.abs(g.C) + Math.abs(expected.C!) + 1, "charge");
      // the equilibrium of an equilibrium is where one is
      const there = problem.transform(theta, A, at.lambda);
      const again = problem.equilibrium(there, A, { sigma2, weightDecay });
      if (again.status !== "finite") throw new Error(again.status);
      expect(Math.abs(again.lambda)).toBeLessThan(1e-9);
      expectNear(problem.charge(there, A), at.charge, 1e-9, Math.abs(g.C) + Math.abs(at.charge) + 1);
    }
  });
});

describe("a loss with a domain", async () => {
  const engine = await createEngine();
  const loss = ["mul", ["sum", "x"], ["sum", ["add", ["sqrt", "u"], "w"]]];
  const problem = engine.problem(parseModel({ params: { u: [8], w: [8] }, inputs: { x: [2] }, loss }), {
    x: [1, 2, 3, 5],
  });
  const A = symmetry.scaling("u");

  test("where no gradient is finite nothing is said, and at a theta of the domain the truth", () => {
    expect(() => problem.checkSymmetry(A)).toThrow("the gradient of some sample must be finite");
    const theta = { u: new Float64Array(8).fill(2), w: new Float64Array(8).fill(1) };
    expect(problem.checkSymmetry(A, { theta }).verdict).toBe("none");
    expect(() => problem.equilibrium(theta, A, { sigma2: 0.01 })).toThrow("no exact symmetry");
  });
});

test("what rounding leaves of a coordinate of theta makes no finite equilibrium", async () => {
  const loss = ["square", ["sub", ["mul", "w", "x"], 1]];
  const problem = (await createEngine()).problem(
    parseModel({ params: { u: [2], w: [] }, inputs: { x: [] }, loss }),
    { x: [1, 2, 3] },
  );
  // the loss does not see u: only decay moves it, and along e_2 alone, where A = e_1 e_1^T - e_2 e_2^T is negative
  for (let k = 1; k <= 40; k++) {
    const [c, s] = [Math.cos(0.037 * k), Math.sin(0.037 * k)];
    const left = [
      [c * c - s * s, 2 * c * s],
      [2 * c * s, s * s - c * c],
    ];
    const A = symmetry.generator({ blocks: { u: { left } } });
    const at = problem.equilibrium({ u: [-3 * s, 3 * c], w: [0.5] }, A, { sigma2: 0.01, weightDecay: 0.1 });
    expect(at.status, `angle ${0.037 * k}`).toBe("+inf");
  }
});

describe("the golden problem of the theory", async () => {
  const engine = await createEngine();
  const { model: file, data, theta } = goldenModel();
  const problem = engine.problem(parseModel(file), data);
  const A = symmetry.doubleRotation("U", "W", [
    [1, 0.5],
    [0.5, -1],
  ]);

  test("flow and equilibrium, with and without decay, to 1e-10", () => {
    const plain = { eta: 0.01, batchSize: 4 };
    const decayed = { ...plain, weightDecay: 0.02 };
    expectNear(problem.noetherFlow(theta, A, plain).total, -0.008613106880885285, 1e-11);
    expectNear(problem.noetherFlow(theta, A, decayed).total, -0.03341251646133408, 1e-11);
    const expected = [
      [plain, -0.1434562039289269, -0.05902253348114984, -0.4215890808519468, 0.011431424500829186],
      [decayed, -0.07139484356887559, -0.4660142073962368, -0.053395916358219477, 0.09177487530737193],
    ] as const;
    for (const [options, lambda, slope, charge, rate] of expected) {
      const at = problem.equilibrium(theta, A, options);
      if (at.status !== "finite") throw new Error(at.status);
      expectNear(at.lambda, lambda, 1e-10);
      expectNear(at.slope, slope, 1e-10);
      expectNear(at.charge, charge, 1e-10);
      expectNear(at.rate, rate, 1e-10);
    }
  });

  test("matrix form: Tr[B dQ/dt] / 2 is the flow of the charge of B", () => {
    const { total } = problem.matrixFlow(theta, "U", "W", { eta: 0.01, batchSize: 4, weightDecay: 0.02 });
    const B = [1, 0.5, 0.5, -1];
    const flow = B.reduce((n, b, i) => n + 0.5 * b * total[i]!, 0);
    expectNear(flow, -0.03341251646133408, 1e-11);
  });

  test("without replacement and with momentum", () => {
    const iid = problem.noetherFlow(theta, A, { eta: 0.01, batchSize: 4 });
    const without = problem.noetherFlow(theta, A, { eta: 0.01, batchSize: 4, sampling: "without" });
    expectNear(without.noise, (iid.noise * (8 - 4)) / (8 - 1), 1e-12);
    expect(problem.noetherFlow(theta, A, { eta: 0.01, batchSize: 8, sampling: "without" }).noise).toBe(0);
    const heavy = problem.noetherFlow(theta, A, { eta: 0.01, batchSize: 4, momentum: 0.9 });
    expectNear(heavy.noise, iid.noise * 10, 1e-12);
    expectNear(heavy.discrete, iid.discrete * 10 * 19, 1e-12);
  });

  test("e^(lambda A) moves the loss of no sample, and is a group", () => {
    const before = problem.losses(theta);
    const there = problem.transform(theta, A, 0.7);
    const after = problem.losses(there);
    for (const [n, x] of before.entries()) expectNear(after[n]!, x, 1e-12);
    const back = problem.transform(there, A, -0.7);
    for (const [i, x] of problem.theta(theta).entries()) expectNear(back[i]!, x, 1e-13, 1);
  });
});

function goldenModel() {
  const { x, y, U, W } = goldenProblem();
  const loss = ["sqnorm", ["sub", ["matmul", "U", ["matmul", "W", "x"]], "y"]];
  const model = { params: { U: [2, 2], W: [2, 3] }, inputs: { x: [3], y: [2] }, loss };
  return { model, data: { x, y }, theta: { U, W } };
}

/**
 * Honest doubt: over 1,000 keys, how often the 95 % interval of a sampled noiseTrace or noisePower covers the truth.
 *
 * The loss is (sum_j u_j w_j x_j - y)^2 with y = V.x + s e, so that g = 2 r (w x, u x) with r = c.x - s e, c = u w - V,
 * and with the moments m2 = E x_j^2, m22 = E x_1^2 x_2^2, m4 = E x_j^4 of symmetric data
 *
 *   Var(r x_j) = c_j^2 m4 + c_i^2 m22 + s^2 m2 - c_j^2 m2^2        (i the other index)
 *   Tr Sigma = 4 sum_j (u_j^2 + w_j^2) Var(r x_j),   Tr[Sigma A] = 4 sum_j (w_j^2 - u_j^2) Var(r x_j) for rescaling
 *
 * The terms of Tr Sigma are of fourth order in x: they have a variance where x has an eighth moment, a skewness where it
 * has a twelfth. The terms of Tr[Sigma A] have both signs.
 *
 * Numbers of samples were fixed before this test ran. By the Edgeworth expansion (Hall 1992) a 95 % interval of Student's t
 * over n terms with skewness g and excess kurtosis k covers 0.95 - 0.229 (1.08 g^2 - 0.07 k) / n. For a defect of half a
 * percent, less than the standard error 0.7 % of 1,000 keys, the skewness of Tr Sigma asks for
 *
 *   uniform x       g = 4.8,  k = 37     n = 1,020
 *   normal x        g = 10.4, k = 208    n = 4,650
 *
 * (g and k from 40 million draws in numpy). Student's t with 16 degrees of freedom has no k; numpy with other seeds covers
 * 94.8 and 95.4 % with 4096. With 10 degrees of freedom there is no g: numpy covers 91.2 % of Tr Sigma with 4096 samples,
 * 92.9 % with 16,384. With 5 there is no variance, and no n is enough.
 */
import { afterAll, describe, expect, test } from "vitest";
import {
  createEngine,
  type Estimate,
  type Expr,
  interval,
  model,
  ops,
  type Problem,
  type Sampler,
  sampler,
  symmetry,
} from "../src/index.ts";

const KEYS = 1000;
const engine = await createEngine();
const lines: string[] = [];
afterAll(() => {
  engine.dispose();
  console.log(["95 % intervals over 1,000 keys (standard error 0.7 %)", ...lines].join("\n"));
});

const u = [0.8, 1.1];
const w = [1.2, 0.6];
const V = [0.46, 0.96];
const s = 0.7;
const net = model({
  params: { u: [2], w: [2] },
  inputs: { x: [2], y: [1] },
  loss: ({ u, w, x, y }) => ops.sqnorm(ops.sub(ops.sum(ops.mul(ops.mul(u, w), x)), y)),
});
const theta = { u, w };
const A = symmetry.rescaling("u", "w");

interface Law {
  readonly moments: { readonly m2: number; readonly m22: number; readonly m4: number };
  readonly sampler: Sampler;
}
const outputsOf = (x: Expr, e: Expr, V: Expr) => ({ x, y: ops.add(ops.matmul(V, x), ops.scale(e, s)) });
const e = { kind: "normal", shape: [1] } as const;

/** x uniform on [-sqrt 3, sqrt 3]. */
const uniform: Law = {
  moments: { m2: 1, m22: 1, m4: 9 / 5 },
  sampler: sampler({
    noise: { z: { kind: "uniform", shape: [2] }, e },
    constants: { V },
    outputs: ({ z, e, V }) =>
      outputsOf(ops.scale(ops.sub(z, 0.5), 2 * Math.sqrt(3)), e, ops.reshape(V, [1, 2])),
  }),
};
const normal: Law = {
  moments: { m2: 1, m22: 1, m4: 3 },
  sampler: sampler({
    noise: { x: { kind: "normal", shape: [2] }, e },
    constants: { V },
    outputs: ({ x, e, V }) => outputsOf(x, e, ops.reshape(V, [1, 2])),
  }),
};
/** Multivariate t: normals over one root mean square of `dof` normals. */
const student = (dof: number): Law => {
  const m22 = (dof * dof) / ((dof - 2) * (dof - 4));
  return {
    moments: { m2: dof / (dof - 2), m22, m4: 3 * m22 },
    sampler: sampler({
      noise: { z: { kind: "normal", shape: [2] }, d: { kind: "normal", shape: [dof] }, e },
      constants: { V },
      outputs: ({ z, d, e, V }) =>
        outputsOf(ops.div(z, ops.sqrt(ops.mean(ops.square(d)))), e, ops.reshape(V, [1, 2])),
    }),
  };
};

function truthOf({ m2, m22, m4 }: Law["moments"]): { trace: number; power: number } {
  const c = [0, 1].map((j) => u[j]! * w[j]! - V[j]!);
  const variance = (j: number) => c[j]! ** 2 * (m4 - m2 * m2) + c[1 - j]! ** 2 * m22 + s * s * m2;
  const sum = (weight: (j: number) => number) => 4 * (weight(0) * variance(0) + weight(1) * variance(1));
  return { trace: sum((j) => u[j]! ** 2 + w[j]! ** 2), power: sum((j) => w[j]! ** 2 - u[j]! ** 2) };
}

const covers = (estimate: Estimate, truth: number): boolean => {
  const { low, high } = interval(estimate);
  return low <= truth && truth <= high;
};

/** Percent of the keys whose intervals cover the truth. */
function coverage(
  name: string,
  problem: Problem,
  samples: number,
  truth: { trace: number; power: number },
): { trace: number; power: number } {
  const covered = { trace: 0, power: 0 };
  for (let seed = 0; seed < KEYS; seed++) {
    if (covers(problem.noiseTrace(theta, { samples, seed }), truth.trace)) covered.trace++;
    if (covers(problem.noisePower(theta, A, { samples, seed }), truth.power)) covered.power++;
  }
  const percent = { trace: (100 * covered.trace) / KEYS, power: (100 * covered.power) / KEYS };
  const columns = [`  ${name},`.padEnd(52), `${samples} samples:`.padStart(15)];
  lines.push(
    `${columns.join("")}   Tr Sigma ${percent.trace.toFixed(1)} %   Tr[Sigma A] ${percent.power.toFixed(1)} %`,
  );
  return percent;
}

describe("fresh samples of a law", () => {
  test.each<[string, Law]>([
    ["uniform x", uniform],
    ["normal x", normal],
    ["Student's t, 16", student(16)],
  ])("%s: the truth above is that of 1,000,000 samples, |z| < 4.9", (_, { sampler, moments }) => {
    const problem = engine.problem(net, sampler);
    const truth = truthOf(moments);
    const many = { samples: 1_000_000, seed: "truth" };
    const z = ({ value, stdErr }: Estimate, expected: number) => Math.abs(value - expected) / stdErr;
    expect(z(problem.noiseTrace(theta, many), truth.trace)).toBeLessThan(4.9);
    expect(z(problem.noisePower(theta, A, many), truth.power)).toBeLessThan(4.9);
    problem.dispose();
  });

  test.each<[string, number, Law]>([
    ["uniform x", 1024, uniform],
    ["normal x", 4650, normal],
    ["Student's t, 16 degrees of freedom", 4096, student(16)],
  ])("%s, %d samples: intervals cover in 93 to 97 %", (name, samples, { sampler, moments }) => {
    const problem = engine.problem(net, sampler);
    const { trace, power } = coverage(name, problem, samples, truthOf(moments));
    problem.dispose();
    for (const percent of [trace, power]) {
      expect(percent).toBeGreaterThanOrEqual(93);
      expect(percent).toBeLessThanOrEqual(97);
    }
  });

  // limits that the docstring of `bessel` states; the numbers are numpy's, with 4.9 standard errors either side
  test.each<[string, number, Law, number, number]>([
    ["Student's t, 10: an eighth moment, no twelfth", 4096, student(10), 91.2, 94.3],
    ["Student's t, 5: no eighth moment", 4096, student(5), 50.1, 78.4],
  ])("%s, %d samples: intervals cover too seldom", (name, samples, { sampler, moments }, trace, power) => {
    const problem = engine.problem(net, sampler);
    const found = coverage(name, problem, samples, truthOf(moments));
    problem.dispose();
    const allowed = (percent: number) =>
      4.9 * Math.sqrt((percent * (100 - percent)) / KEYS + (percent * (100 - percent)) / 1952);
    expect(Math.abs(found.trace - trace)).toBeLessThan(allowed(trace));
    expect(Math.abs(found.power - power)).toBeLessThan(allowed(power));
  });
});

test("draws from a finite set of 500, uniform x, 1024 draws: intervals cover in 93 to 97 %", () => {
  const problem = engine.problem(net, uniform.sampler, { samples: 500, dataSeed: "finite" });
  const truth = {
    trace: problem.noiseTrace(theta).value,
    power: problem.noisePower(theta, A).value,
  };
  const { trace, power } = coverage("draws from 500 samples, uniform x", problem, 1024, truth);
  problem.dispose();
  for (const percent of [trace, power]) {
    expect(percent).toBeGreaterThanOrEqual(93);
    expect(percent).toBeLessThanOrEqual(97);
  }
});

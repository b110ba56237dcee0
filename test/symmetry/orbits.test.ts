/**
 * Along the orbit of a generator and from one to the next: derivatives of the equilibrium, flow and charge along it, and the
 * equilibria of several generators at once.
 */
import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import {
  createEngine,
  type Generator,
  model as makeModel,
  models,
  ops,
  type Problem,
  parseModel,
  symmetry,
} from "../../src/index.ts";
import { solveCommon } from "../../src/symmetry/common.ts";
import { goldenProblem } from "../reference/sgd.ts";

interface GeneratorFixture {
  name: string;
  isSymmetry: boolean;
}

const folder = fileURLToPath(new URL("../fixtures/", import.meta.url));
const fixtures = readdirSync(folder)
  .filter((f) => f.endsWith(".json"))
  .map((f) => ({ name: f.slice(0, -5), fixture: JSON.parse(readFileSync(`${folder}${f}`, "utf8")) }))
  .filter(({ fixture }) => fixture.expected.generators.some((g: GeneratorFixture) => g.isSymmetry));

const engine = await createEngine();

/** A (theta - c), from how the orbit leaves theta: odd differences of e^(h A), Richardson, error O(h^6). */
function fieldOf(problem: Problem, theta: ArrayLike<number>, A: Generator): Float64Array {
  const flat = Float64Array.from(theta);
  const odd = (h: number) => {
    const [up, down] = [problem.transform(flat, A, h), problem.transform(flat, A, -h)];
    return flat.map((_, i) => (up[i]! - down[i]!) / (2 * h));
  };
  const [a, b, c] = [odd(4e-2), odd(2e-2), odd(1e-2)];
  return flat.map((_, i) => {
    const [ab, bc] = [(4 * b[i]! - a[i]!) / 3, (4 * c[i]! - b[i]!) / 3];
    return (16 * bc - ab) / 15;
  });
}

/** The field from the generator's data: what the fixtures' blocks, dense matrix and center say. */
function fieldFromJSON(problem: Problem, theta: ArrayLike<number>, A: Generator): Float64Array {
  const { blocks, dense, center } = A.toJSON();
  const from = Float64Array.from(theta, (x, i) => x - ((center as number[] | undefined)?.[i] ?? 0));
  const P = from.length;
  if (dense) return from.map((_, i) => from.reduce((sum, x, j) => sum + dense[i * P + j]! * x, 0));
  const out = new Float64Array(P);
  for (const [name, { scalar = 0, left, right, rows, columns }] of Object.entries(blocks!)) {
    const block = problem.model.block(name);
    const [m, n] = [block.shape[0] ?? 1, block.shape[1] ?? 1];
    const at = (i: number, j: number) => from[block.offset + i * n + j]!;
    for (let i = 0; i < m; i++) {
      for (let j = 0; j < n; j++) {
        const isIn =
          (!rows || (i >= rows[0]! && i < rows[1]!)) && (!columns || (j >= columns[0]! && j < columns[1]!));
        let sum = isIn ? scalar * at(i, j) : 0;
        for (let k = 0; left && k < m; k++) sum += left[i]![k]! * at(k, j);
        for (let k = 0; right && k < n; k++) sum += at(i, k) * right[k]![j]!;
        out[block.offset + i * n + j] = sum;
      }
    }
  }
  return out;
}

const dot = (a: ArrayLike<number>, b: ArrayLike<number>) =>
  Array.from(a).reduce((sum, x, i) => sum + x * b[i]!, 0);
const largest = (a: ArrayLike<number>) => Array.from(a).reduce((m, x) => Math.max(m, Math.abs(x)), 0);

describe.each(fixtures)("$name", ({ fixture }) => {
  const problem = engine.problem(parseModel(fixture.model), fixture.data);
  const theta = Float64Array.from(problem.theta(fixture.theta));
  const { gamma, sigma2 } = fixture.settings;
  const generators = (fixture.expected.generators as GeneratorFixture[])
    .filter((g) => g.isSymmetry)
    .map((g) => [g.name, symmetry.generator(g)] as const);

  test.each(generators)(
    "%s: the equilibrium moves by -1 along the orbit, as central differences say",
    (_, A) => {
      const field = fieldFromJSON(problem, theta, A);
      const moved = fieldOf(problem, theta, A);
      for (const [i, x] of field.entries())
        expect(Math.abs(x - moved[i]!)).toBeLessThanOrEqual(1e-9 * (1 + largest(field)));
      let count = 0;
      for (const weightDecay of [0, gamma]) {
        const options = { sigma2, weightDecay };
        const at = problem.equilibrium(theta, A, options);
        if (at.status !== "finite") {
          expect(() => problem.equilibriumGradient(theta, A, options)).toThrow(
            at.status === "none" ? "another center" : `status "${at.status}"`,
          );
          continue;
        }
        count++;
        const gradient = problem.equilibriumGradient(theta, A, options);
        expect(Math.abs(dot(field, gradient) + 1)).toBeLessThanOrEqual(1e-10);

        // along some directions: the error of differences falls by 4 with half the step, or is rounding
        for (const seed of [1, 2, 3]) {
          const v = theta.map((__, i) => Math.sin(seed * (i + 1) * 1.7 + seed));
          const lambdaAt = (h: number) => {
            const there = problem.equilibrium(
              theta.map((x, i) => x + h * v[i]!),
              A,
              options,
            );
            return there.status === "finite" ? there.lambda : Number.NaN;
          };
          const difference = (h: number) => (lambdaAt(h) - lambdaAt(-h)) / (2 * h);
          const [coarse, fine] = [difference(2e-4), difference(1e-4)];
          const exact = dot(v, gradient);
          expect(Math.abs((4 * fine - coarse) / 3 - exact), `${exact}`).toBeLessThanOrEqual(
            1e-8 * (1 + largest(gradient)),
          );
        }
      }
      expect(count).toBeGreaterThan(0);
    },
  );

  test.each(generators)("%s: the curve is the flow measured along the orbit", (_, A) => {
    const lambdas = Array.from({ length: 41 }, (__, i) => (i - 20) / 20);
    for (const weightDecay of [0, A.center === null ? gamma : 0]) {
      const options = { sigma2, weightDecay };
      const { lambda, flow, charge } = problem.equilibriumCurve(theta, A, lambdas, options);
      expect([...lambda]).toEqual(lambdas);
      for (let i = 1; i < lambdas.length; i++) {
        expect(flow[i]!).toBeLessThanOrEqual(flow[i - 1]!);
        expect(charge[i]!).toBeGreaterThanOrEqual(charge[i - 1]!);
      }
      for (const i of [0, 13, 20, 27, 40]) {
        const there = problem.transform(theta, A, lambdas[i]!);
        const { plus, minus, noise, decay } = problem.noetherFlow(there, A, options);
        const size = plus + minus + Math.abs(decay);
        expect(Math.abs(flow[i]! - noise - decay)).toBeLessThanOrEqual(1e-10 * size);
        const C = problem.charge(there, A);
        expect(Math.abs(charge[i]! - C)).toBeLessThanOrEqual(1e-11 * (1 + dot(there, there)));
      }
      const at = problem.equilibrium(theta, A, options);
      if (at.status !== "finite") continue;
      const root = problem.equilibriumCurve(theta, A, [at.lambda], options);
      expect(Math.abs(root.flow[0]!)).toBeLessThanOrEqual(1e-13 * Math.abs(at.slope));
      expect(root.charge[0]).toBe(at.charge);
    }
  });

  test.each(generators)("%s alone has the same equilibrium as one of several", (_, A) => {
    for (const weightDecay of [0, gamma]) {
      const options = { sigma2, weightDecay };
      const one = problem.equilibrium(theta, A, options);
      const all = problem.commonEquilibrium(theta, [A], options);
      expect(all.flows0).toHaveLength(1);
      expect(Math.abs(all.flows0[0]! - one.flow0)).toBeLessThanOrEqual(1e-12 + 1e-9 * Math.abs(one.flow0));
      expect(Math.abs(all.charges0[0]! - one.charge0)).toBeLessThanOrEqual(1e-12 * (1 + dot(theta, theta)));
      if (all.status === "finite" && one.status === "finite") {
        expect(Math.abs(all.lambda[0]! - one.lambda)).toBeLessThanOrEqual(1e-12 * (1 + Math.abs(one.lambda)));
        expect(Math.abs(all.charges[0]! - one.charge)).toBeLessThanOrEqual(1e-11 * (1 + dot(theta, theta)));
        const there = problem.transform(theta, A, one.lambda);
        for (const [i, x] of all.theta.entries()) expect(Math.abs(x - there[i]!)).toBeLessThan(1e-10);
        continue;
      }
      expect(one.status).not.toBe("finite");
      if (all.status !== "none") throw new Error(`${all.status} beside ${one.status}`);
      if (one.status === "+inf" || one.status === "-inf")
        expect(all.direction).toEqual([one.status === "+inf" ? 1 : -1]);
      else expect(all.direction).toBeNull();
    }
  });
});

/** Every flow of the generators at theta, beside the sizes of what it is made of. */
function worstFlow(
  problem: Problem,
  theta: ArrayLike<number>,
  generators: readonly Generator[],
  options: { sigma2: number; weightDecay?: number },
): number {
  return generators.reduce((worst, A) => {
    const { noise, decay, byDirection, plus, minus } = problem.noetherFlow(
      Float64Array.from(theta),
      A,
      options,
    );
    const { weightDecay: gamma = 0 } = options;
    const size = byDirection.reduce((sum, d) => sum + 2 * gamma * Math.abs(d.mu) * d.q, plus + minus);
    return size === 0 ? worst : Math.max(worst, Math.abs(noise + decay) / size);
  }, 0);
}

function finite<T extends { status: string }>(at: T): Exclude<T, { status: "none" }> {
  if (at.status !== "finite") throw new Error(JSON.stringify(at));
  return at as Exclude<T, { status: "none" }>;
}

/** Points and labels of a made-up regression. */
const points = (N: number, dx: number, dy: number) => ({
  x: Array.from({ length: N }, (_, n) =>
    Array.from({ length: dx }, (__, j) => Math.sin(1.3 * (n + 1) * (j + 1) + 0.7 * j * j + 0.2)),
  ),
  y: Array.from({ length: N }, (_, n) =>
    Array.from({ length: dy }, (__, i) => Math.cos(0.9 * n + 1.6 * i + 0.2)),
  ),
});

describe("derivatives of the equilibrium", () => {
  const { x, y, U, W } = goldenProblem();

  test("blocks that are not trained move it too", () => {
    const net = makeModel({
      params: { U: [2, 2], W: [2, 3], R: { shape: [2, 2], trainable: false } },
      inputs: { x: [3], y: [2] },
      loss: ({ U, W, R, x, y }) => {
        const f = ops.matmul(R!, ops.matmul(U!, ops.matmul(W!, x!)));
        return ops.sqnorm(ops.sub(f, y!));
      },
    });
    const problem = engine.problem(net, { x, y });
    const theta = Float64Array.from(problem.theta({ U, W, R: [1, 0.3, -0.2, 0.8] }));
    const A = symmetry.rescaling("U", "W");
    const options = { sigma2: 0.01, weightDecay: 0.01 };
    const gradient = problem.equilibriumGradient(theta, A, options);
    for (const [i, exact] of gradient.entries()) {
      const difference = (h: number) => {
        const [up, down] = [1, -1].map((sign) =>
          finite(
            problem.equilibrium(
              theta.map((t, j) => t + sign * h * +(i === j)),
              A,
              options,
            ),
          ),
        );
        return (up!.lambda - down!.lambda) / (2 * h);
      };
      const extrapolated = (4 * difference(1e-3) - difference(2e-3)) / 3;
      expect(Math.abs(extrapolated - exact)).toBeLessThan(1e-9 * largest(gradient));
    }
    expect(largest(gradient.slice(10))).toBeGreaterThan(0.01);

    // a generator that moves such a block, where decay does not
    const moving = symmetry.generator({ blocks: { R: { scalar: 1 }, U: { scalar: -1 } } });
    const force = { ...options, force: true };
    expect(() => problem.equilibriumGradient(theta, moving, force)).toThrow("untrained blocks");
    expect(() => problem.equilibriumCurve(theta, moving, [0], force)).toThrow("untrained blocks");
    const at = problem.commonEquilibrium(theta, [moving, A], force);
    expect(at).toMatchObject({ status: "none", direction: null });
    expect(at.flows0[0]).toBeCloseTo(
      problem.noetherFlow(theta, moving, options).noise + problem.noetherFlow(theta, moving, options).decay,
      12,
    );
    expect(() => problem.groupEquilibrium(theta, "R", "U", force)).toThrow("untrained blocks");
  });

  test("f32: the same to its rounding", async () => {
    const single = await createEngine({ dtype: "f32" });
    const build = (e: typeof engine) => {
      const problem = e.problem(models.twoLayerLinear({ dx: 3, h: 2, dy: 2 }), { x, y });
      return { problem, theta: problem.theta({ U, W }) };
    };
    const A = symmetry.doubleRotation("U", "W", [
      [1, 0.5],
      [0.5, -1],
    ]);
    const options = { sigma2: 0.01, weightDecay: 0.01 };
    const [a, b] = [build(engine), build(single as typeof engine)];
    const exact = a.problem.equilibriumGradient(a.theta, A, options);
    const rounded = b.problem.equilibriumGradient(b.theta, A, options);
    expect(rounded).toBeInstanceOf(Float32Array);
    for (const [i, g] of exact.entries())
      expect(Math.abs(rounded[i]! - g)).toBeLessThan(1e-4 * largest(exact));
    const all = finite(b.problem.commonEquilibrium(b.theta, [A], options));
    const expected = finite(a.problem.equilibrium(a.theta, A, options));
    expect(Math.abs(all.lambda[0]! - expected.lambda)).toBeLessThan(1e-5);
    const group = b.problem.groupEquilibrium(b.theta, "U", "W", options);
    expect(group.theta).toBeInstanceOf(Float32Array);
    expect(largest(b.problem.matrixFlow(group.theta, "U", "W", options).total)).toBeLessThan(1e-5);
  });
});

describe("several generators at once", () => {
  const relu = engine.problem(models.reluNet({ widths: [4, 6, 2] }), points(40, 4, 2));
  const thetaRelu = relu.init("he", { seed: "orbits" });
  const neurons = Array.from({ length: 6 }, (_, j) => symmetry.neuronRescaling("W2", "W1", j));

  test("neurons of a ReLU layer: every flow is 0 at the transformed theta, each is at its own equilibrium", () => {
    for (const weightDecay of [0, 0.01]) {
      const options = { sigma2: 0.00125, weightDecay };
      const at = finite(relu.commonEquilibrium(thetaRelu, neurons, options));
      expect(at.flat).toBe(0);
      expect(at.residual).toBeLessThan(1e-14);
      expect(worstFlow(relu, thetaRelu, neurons, options)).toBeGreaterThan(0.1);
      // neurons share no parameters of their own, so that each is where it would be alone
      let moved: ArrayLike<number> = thetaRelu;
      for (const [k, A] of neurons.entries()) {
        const alone = finite(relu.equilibrium(thetaRelu, A, options));
        expect(Math.abs(at.lambda[k]! - alone.lambda)).toBeLessThan(1e-12);
        expect(Math.abs(at.charges[k]! - alone.charge)).toBeLessThan(1e-12 * (1 + Math.abs(alone.charge)));
        moved = relu.transform(Float64Array.from(moved), A, at.lambda[k]!);
      }
      for (const [i, x] of at.theta.entries()) expect(Math.abs(x - moved[i]!)).toBeLessThan(1e-13);
      expect(worstFlow(relu, moved, neurons, options)).toBeLessThan(1e-12);
    }
  });

  test("layers of a deep linear net, with the neurons between two of them", () => {
    const deep = engine.problem(models.deepLinear({ widths: [3, 3, 3, 3, 2] }), points(30, 3, 2));
    const theta = deep.init("he", { seed: "deep" });
    for (const weightDecay of [0, 0.02]) {
      const options = { sigma2: 0.002, weightDecay };
      const layers = [1, 2, 3].map((l) => symmetry.rescaling(`W${l + 1}`, `W${l}`));
      const at = finite(deep.commonEquilibrium(theta, layers, options));
      expect(at.flat).toBe(0);
      expect(worstFlow(deep, at.theta, layers, options)).toBeLessThan(1e-12);
      // the noise alone: every layer has the same
      const units = [0, 1, 2].map((j) => symmetry.neuronRescaling("W3", "W2", j));
      const more = finite(deep.commonEquilibrium(theta, [...layers, ...units], options));
      expect(more.flat).toBe(1); // the units together are the rescaling of their layers
      expect(worstFlow(deep, more.theta, [...layers, ...units], options)).toBeLessThan(1e-12);
      for (const [n, x] of deep.losses(theta).entries())
        expect(Math.abs(deep.losses(more.theta)[n]! - x)).toBeLessThan(1e-12 * (1 + x));
      // lambda has no part along which nothing changes: layer 2 against the units
      const along = more.lambda[1]! - more.lambda[3]! - more.lambda[4]! - more.lambda[5]!;
      expect(Math.abs(along)).toBeLessThan(1e-10);
    }
  });

  test("rotations that commute without being diagonal", () => {
    const linear = engine.problem(models.twoLayerLinear({ dx: 4, h: 3, dy: 3 }), points(30, 4, 3));
    const theta = linear.init("he", { seed: "rotations" });
    const B = [
      [1, 0.5, 0.2],
      [0.5, -1, 0.3],
      [0.2, 0.3, 0.7],
    ];
    const square = B.map((row) => B[0]!.map((_, j) => row.reduce((sum, x, k) => sum + x * B[k]![j]!, 0)));
    const eye = B.map((_, i) => B.map((__, j) => +(i === j)));
    const generators = [B, square, eye].map((b) => symmetry.doubleRotation("U", "W", b));
    const options = { sigma2: 0.01, weightDecay: 0.003 };
    const at = finite(linear.commonEquilibrium(theta, generators, options));
    expect(worstFlow(linear, at.theta, generators, options)).toBeLessThan(1e-12);
    // the dense form of the same
    const dense = generators.map((A) => {
      const P = linear.P;
      const values = new Float64Array(P * P);
      for (let i = 0; i < P; i++)
        values.set(
          fieldFromJSON(
            linear,
            Float64Array.from({ length: P }, (_, j) => +(i === j)),
            A,
          ),
          i * P,
        );
      return symmetry.generator({ name: "dense", dense: values });
    });
    const mixed = finite(
      linear.commonEquilibrium(theta, [dense[0], generators[1], dense[2]] as Generator[], options),
    );
    for (const [k, x] of at.lambda.entries()) expect(Math.abs(mixed.lambda[k]! - x)).toBeLessThan(1e-10);
  });

  test("the same generator twice shares its lambda; sizes of generators do not matter", () => {
    const options = { sigma2: 0.01 };
    const [A] = neurons as [Generator];
    const alone = finite(relu.equilibrium(thetaRelu, A, options));
    const twice = finite(relu.commonEquilibrium(thetaRelu, [A, A], options));
    expect(twice.flat).toBe(1);
    for (const x of twice.lambda) expect(Math.abs(x - alone.lambda / 2)).toBeLessThan(1e-12);
    const big = symmetry.generator({
      blocks: { W2: { scalar: 1e6, columns: [1, 2] }, W1: { scalar: -1e6, rows: [1, 2] } },
    });
    const both = finite(relu.commonEquilibrium(thetaRelu, [A, big], options));
    const second = finite(relu.equilibrium(thetaRelu, neurons[1]!, options));
    expect(Math.abs(both.lambda[1]! * 1e6 - second.lambda)).toBeLessThan(1e-12);
  });

  test("a dead neuron is flat and stays; with nothing else it is no equilibrium", () => {
    const { W1, W2 } = relu.named(thetaRelu) as { W1: Float64Array; W2: Float64Array };
    for (let j = 0; j < 4; j++) W1[4 * 2 + j] = 0;
    for (let i = 0; i < 2; i++) W2[6 * i + 2] = 0;
    const theta = relu.theta({ W1, W2 });
    const at = finite(relu.commonEquilibrium(theta, neurons, { sigma2: 0.01 }));
    expect(at.flat).toBe(1);
    expect(at.lambda[2]).toBe(0);
    const dead = relu.commonEquilibrium(theta, [neurons[2]!], { sigma2: 0.01 });
    if (dead.status !== "none") throw new Error(dead.status);
    expect(dead.reason).toContain("no charge moves");
    expect(dead.direction).toBeNull();
    expect(dead.flows0).toEqual([0]);
  });

  test("where one direction diverges there is none, and the direction is a combination", () => {
    // one column of U normalised, one row of W: both norms grow, their ratio has no noise against it
    const normed = engine.problem(
      makeModel({
        params: { u: [3], w: [3], a: [2] },
        inputs: { x: [3], y: [2] },
        loss: ({ u, w, a, x, y }) => {
          const unit = (p: typeof u) => ops.div(p!, ops.norm(p!));
          const f = ops.mul(ops.sum(ops.mul(unit(u), x!)), ops.sum(ops.mul(unit(w), x!)));
          return ops.sqnorm(ops.sub(ops.mul(a!, f), y!));
        },
      }),
      points(20, 3, 2),
    );
    const theta = normed.init("normal", { seed: "norms", std: { u: 1, w: 1, a: 1 } });
    const [U, W] = [symmetry.scaling("u"), symmetry.scaling("w")];
    for (const generators of [
      [U, W],
      [symmetry.rescaling("u", "w"), U],
      [U, symmetry.blockScaling({ u: 1, w: 2 })],
    ]) {
      const at = normed.commonEquilibrium(theta, generators, { sigma2: 0.01 });
      if (at.status !== "none") throw new Error(at.status);
      expect(at.reason).toContain("for ever");
      const d = at.direction!;
      expect(Math.abs(Math.hypot(...d) - 1)).toBeLessThan(1e-14);
      // every norm that moves grows: no exponent of the noise rises
      const log = [0, 0];
      for (const [k, A] of generators.entries()) {
        const { blocks } = A.toJSON();
        for (const [b, name] of ["u", "w"].entries())
          log[b] = log[b]! + d[k]! * (blocks?.[name]?.scalar ?? 0);
      }
      expect(Math.min(...log)).toBeGreaterThanOrEqual(-1e-12);
      expect(Math.max(...log)).toBeGreaterThan(0.1);
    }
    // the difference of both alone is finite, and with decay so are both
    expect(normed.equilibrium(theta, symmetry.rescaling("u", "w"), { sigma2: 0.01 }).status).toBe("finite");
    const at = finite(normed.commonEquilibrium(theta, [U, W], { sigma2: 0.01, weightDecay: 0.001 }));
    expect(worstFlow(normed, at.theta, [U, W], { sigma2: 0.01, weightDecay: 0.001 })).toBeLessThan(1e-12);
  });

  test("far away, terms of sizes 1e14 apart: the same rest", () => {
    const far = Float64Array.from(thetaRelu);
    const [first, second] = [neurons[0]!, neurons[3]!];
    const start = relu.transform(relu.transform(far, first, 8), second, -6);
    const options = { sigma2: 0.01, weightDecay: 1e-4 };
    const near = finite(relu.commonEquilibrium(far, neurons, options));
    const at = finite(relu.commonEquilibrium(start, neurons, options));
    expect(at.residual).toBeLessThan(1e-12);
    for (const [k, x] of near.lambda.entries()) {
      const shift = k === 0 ? 8 : k === 3 ? -6 : 0;
      expect(Math.abs(at.lambda[k]! + shift - x)).toBeLessThan(1e-9);
    }
  });

  test("random spectra: at rest, or with a direction along which nothing resists", () => {
    let state = 12345;
    const uniform = () => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return (state + 0.5) / 2 ** 32;
    };
    const normal = () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
    const counts = { finite: 0, none: 0, flat: 0 };
    for (let trial = 0; trial < 400; trial++) {
      const decades = trial % 2 === 0 ? 2 : 20;
      const K = 1 + Math.floor(uniform() * 6);
      const gamma = uniform() < 0.5 ? 0 : 0.01;
      const mu = trial % 4 < 2 ? normal : () => Math.floor(uniform() * 5) - 2;
      const directions = Array.from(
        { length: 1 + Math.floor(uniform() * (trial % 3 === 0 ? 4 : 24)) },
        () => ({
          mu: Array.from({ length: K }, mu),
          s: 10 ** (decades * (uniform() - 0.5)),
          q: uniform() < 0.3 ? 0 : 10 ** (decades * (uniform() - 0.5)),
        }),
      );
      const setting = { sigma2: 0.01, gamma };
      const at = solveCommon("here", directions, K, setting, engine.dense);
      counts[at.status]++;
      // ln size and slope of every term that is there, from the formula
      const terms = directions.flatMap(({ mu, s, q }) => [
        { size: Math.log(0.01 * s), slope: mu.map((m) => -2 * m) },
        ...(gamma * q > 0 ? [{ size: Math.log(2 * gamma * q), slope: mu.map((m) => 2 * m) }] : []),
      ]);
      if (at.status === "finite") {
        if (at.flat > 0) counts.flat++;
        const w = terms.map(({ size, slope }) => size + dot(slope, at.lambda));
        const most = Math.max(...w);
        for (let k = 0; k < K; k++) {
          const parts = terms.map(({ slope }, j) => slope[k]! * Math.exp(w[j]! - most));
          const size = parts.reduce((sum, x) => sum + Math.abs(x), 0);
          expect(Math.abs(parts.reduce((sum, x) => sum + x, 0))).toBeLessThanOrEqual(2e-8 * size);
          if (decades === 2) expect(at.residual).toBeLessThan(1e-14);
        }
        continue;
      }
      if (at.direction === null) {
        expect(terms.every(({ slope }) => slope.every((b) => b === 0))).toBe(true);
        continue;
      }
      const along = terms.map(({ slope }) => dot(slope, at.direction!));
      for (const x of along) expect(x).toBeLessThan(1e-12);
      expect(Math.min(...along)).toBeLessThan(-1e-3);
    }
    expect(counts.none).toBeGreaterThan(50);
    expect(counts.flat).toBeGreaterThan(20);
  });

  test("energies too many decades apart for f64 are refused, not answered", () => {
    const directions = [
      { mu: [0, 0, 1, 2, 2, 0], s: 8.639309736589662e-20, q: 2.950359517350046e-12 },
      { mu: [2, 0, -2, 1, 1, 0], s: 8.530617157953882e-14, q: 2.0775030433467045e33 },
      { mu: [0, 0, 0, 0, -1, 2], s: 0.00008607209075752557, q: 1.506389054445818e49 },
      { mu: [1, 0, -1, 0, 1, 0], s: 1.520516039591914e-33, q: 5.710372468890786e40 },
    ];
    const setting = { sigma2: 0.01, gamma: 0.01 };
    expect(() => solveCommon("here", directions, 6, setting, engine.dense)).toThrow("decades apart");
  });

  test("what it refuses", () => {
    const linear = engine.problem(models.twoLayerLinear({ dx: 3, h: 2, dy: 2 }), points(20, 3, 2));
    const theta = linear.init("he", { seed: "refused" });
    const rotations = [
      [
        [1, 0],
        [0, 1],
      ],
      [
        [1, 0],
        [0, -1],
      ],
      [
        [0, 1],
        [1, 0],
      ],
    ].map((B) => symmetry.doubleRotation("U", "W", B));
    const options = { sigma2: 0.01 };
    const attempt = () => linear.commonEquilibrium(theta, rotations, options);
    expect(attempt).toThrow("generator 1 (double rotation U, W) and generator 2 (double rotation U, W)");
    expect(attempt).toThrow("engine.twoLayer.groupEquilibrium");
    expect(attempt).toThrow(expect.objectContaining({ code: "unsupported", where: "commonEquilibrium" }));
    expect(() => linear.commonEquilibrium(theta, [], options)).toThrow("at least one");
    expect(() => linear.commonEquilibrium(theta, [1 as never], options)).toThrow("expected a generator");
    expect(() => linear.commonEquilibrium(theta, [symmetry.scaling("U")], options)).toThrow(
      "no exact symmetry",
    );
    const about = symmetry.shifted(rotations[0]!, new Float64Array(linear.P).fill(0.1));
    expect(() =>
      linear.commonEquilibrium(theta, [rotations[0]!, about], { ...options, force: true }),
    ).toThrow("one center");
    expect(() => linear.equilibriumGradient(theta, symmetry.scaling("U"), options)).toThrow(
      "no exact symmetry",
    );
    expect(() => linear.equilibriumCurve(theta, rotations[0]!, 3 as never, options)).toThrow("lambdas");
    expect(() => linear.equilibriumCurve(theta, rotations[0]!, [0, Number.NaN], options)).toThrow("finite");
    expect(() =>
      linear.equilibriumCurve(theta, about, [0], { ...options, weightDecay: 1, force: true }),
    ).toThrow("another center");
  });
});

describe("all rotations of a product", () => {
  const { x, y, U, W } = goldenProblem();
  const linear = makeModel({
    params: { U: [2, 2], W: [2, 3] },
    inputs: { x: [3], y: [2] },
    loss: ({ U, W, x, y }) => ops.sqnorm(ops.sub(ops.matmul(U!, ops.matmul(W!, x!)), y!)),
  });
  const problem = engine.problem(linear, { x, y });
  const theta = problem.theta({ U, W });

  test.each([
    [0, [0.8977477097910058, 0.16106929345434626, 0.16106929345434626, 1.7779138064632893]],
    [0.02, [0.9845718824174201, 0.06816015787590073, 0.06816015787590073, 1.5858680471489595]],
  ] as const)("the golden M, and dQ/dt = 0 there; gamma %s", (weightDecay, M) => {
    const options = { eta: 0.01, batchSize: 4, weightDecay };
    const at = problem.groupEquilibrium(theta, "U", "W", options);
    for (const [e, m] of M.entries()) expect(Math.abs(at.M.values[e]! - m)).toBeLessThan(1e-10);
    const before = problem.matrixFlow(theta, "U", "W", options);
    const { total } = problem.matrixFlow(at.theta, "U", "W", options);
    expect(largest(total)).toBeLessThan(1e-12 * largest(before.total));
    expect(Math.abs(problem.loss(at.theta) - problem.loss(theta))).toBeLessThan(1e-12);
    const named = problem.named(at.theta);
    expect([...named.U!]).toEqual([...at.U.values]);
    expect([...named.W!]).toEqual([...at.W.values]);
    // no single rotation moves from there
    for (const B of [
      [
        [1, 0],
        [0, 0],
      ],
      [
        [0, 1],
        [1, 0],
      ],
    ]) {
      const alone = finite(problem.equilibrium(at.theta, symmetry.doubleRotation("U", "W", B), options));
      expect(Math.abs(alone.lambda)).toBeLessThan(1e-12);
    }
  });

  test("with the transpose of W as the block: the same", () => {
    const turned = engine.problem(
      makeModel({
        params: { U: [2, 2], V: [3, 2] },
        inputs: { x: [3], y: [2] },
        loss: ({ U, V, x, y }) => ops.sqnorm(ops.sub(ops.matmul(U!, ops.matmul(ops.transpose(V!), x!)), y!)),
      }),
      { x, y },
    );
    const V = Float64Array.from({ length: 6 }, (_, e) => W[(e % 2) * 3 + Math.floor(e / 2)]!);
    const options = { eta: 0.01, batchSize: 4, weightDecay: 0.02 };
    const expected = problem.groupEquilibrium(theta, "U", "W", options);
    const at = turned.groupEquilibrium({ U, V }, "U", "V", { ...options, transposeW: true });
    for (const [e, m] of expected.M.values.entries())
      expect(Math.abs(at.M.values[e]! - m)).toBeLessThan(1e-13);
    for (const [e, w] of expected.W.values.entries())
      expect(Math.abs(at.W.values[e]! - w)).toBeLessThan(1e-13);
    const { total } = turned.matrixFlow(at.theta, "U", "V", { ...options, transposeW: true });
    expect(largest(total)).toBeLessThan(1e-14);
  });

  test("what it refuses", () => {
    const options = { sigma2: 0.01 };
    expect(() => problem.groupEquilibrium(theta, "U", "W", { ...options, turned: true } as never)).toThrow(
      "turned",
    );
    expect(() => problem.groupEquilibrium(theta, "W", "U", options)).toThrow("expected matrices");
    const relu = engine.problem(models.reluNet({ widths: [3, 4, 2] }), points(20, 3, 2));
    const at = relu.init("he", { seed: "group" });
    expect(() => relu.groupEquilibrium(at, "W2", "W1", options)).toThrow("no exact symmetry");
    // more hidden units than outputs: without decay the infimum is at infinity
    const wide = engine.problem(models.twoLayerLinear({ dx: 3, h: 4, dy: 2 }), points(20, 3, 2));
    const wideTheta = wide.init("he", { seed: "group" });
    expect(() => wide.groupEquilibrium(wideTheta, "U", "W", options)).toThrow(
      expect.objectContaining({ code: "range", where: "groupEquilibrium" }),
    );
    expect(() => wide.groupEquilibrium(wideTheta, "U", "W", { ...options, regularize: 0 })).toThrow(
      "groupEquilibrium: regularize must be a finite number in [1e-10, 1], got 0.",
    );
  });

  test("more hidden units than outputs, regularized: the same loss, less noise, and a limit", () => {
    const wide = engine.problem(models.twoLayerLinear({ dx: 3, h: 4, dy: 2 }), points(20, 3, 2));
    const start = wide.init("he", { seed: "group" });
    const options = { sigma2: 0.01 };
    const flowAt = (there: ArrayLike<number>) =>
      largest(wide.matrixFlow(there as Float64Array, "U", "W", options).total);
    let before = flowAt(start);
    for (const regularize of [1e-3, 1e-5, 1e-7]) {
      const at = wide.groupEquilibrium(start, "U", "W", { ...options, regularize });
      expect(Math.abs(wide.loss(at.theta) / wide.loss(start) - 1)).toBeLessThan(1e-9);
      expect(wide.noiseTrace(at.theta).value).toBeLessThan(wide.noiseTrace(start).value);
      const flow = flowAt(at.theta);
      expect(flow).toBeLessThan(0.2 * before);
      before = flow;
      expect(Math.abs(at.trend!.growth)).toBeLessThan(0.01);
      expect(at.trend!.imbalance[1]).toBeLessThan(0.2 * at.trend!.imbalance[0]);
    }
  });
});

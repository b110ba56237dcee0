/** Equilibria of thetas of any size: far off balance, where noise is rounding, and beyond what f64 holds. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  createEngine,
  type Generator,
  layers,
  model as makeModel,
  models,
  NoetherflowError,
  ops,
  type Problem,
  symmetry,
} from "../../src/index.ts";
import { Draw } from "../helpers/ready.ts";

const engine = await createEngine();
const singles = await createEngine({ dtype: "f32" });

function points(N: number, dx: number, dy: number, seed: number) {
  const d = new Draw(seed);
  return { x: d.normals(N * dx), y: d.normals(N * dy) };
}

/** theta with entries of blocks multiplied by e^power. */
function scaledBy(problem: Problem, theta: ArrayLike<number>, powers: Record<string, (e: number) => number>) {
  const out = Float64Array.from(theta);
  for (const { name, offset, size } of problem.model.blocks)
    for (let e = 0; e < size; e++) out[offset + e] = out[offset + e]! * Math.exp(powers[name]?.(e) ?? 0);
  return out;
}

/** Sum over entries of the variance of the gradient, from per-sample gradients in two passes. */
function noiseOf(problem: Problem, theta: ArrayLike<number>, entries: (i: number) => boolean): number {
  const { N, P } = problem;
  const g = problem.perSampleGradients(theta as Float64Array);
  let sum = 0;
  for (let i = 0; i < P; i++) {
    if (!entries(i)) continue;
    let mean = 0;
    for (let n = 0; n < N; n++) mean += g[n * P + i]! / N;
    for (let n = 0; n < N; n++) sum += (g[n * P + i]! - mean) ** 2 / N;
  }
  return sum;
}

const finite = <T extends { readonly status: string }>(at: T): Exclude<T, { readonly status: "none" }> => {
  if (at.status !== "finite") throw new Error(at.status);
  return at as Exclude<T, { readonly status: "none" }>;
};
const options = { sigma2: 0.01 };
const FAR = [-20, -14, -6, 6, 14, 20];

describe("far off balance: lambda* is that of the start less the way there", () => {
  const nets = [1, 2, 3, 4, 5, 6].map((seed) => {
    const [dx, h, dy] = [1 + (seed % 4), 1 + ((seed * 5) % 6), 1 + ((seed * 2) % 3)];
    const net = seed % 2 ? models.twoLayerLinear({ dx, h, dy }) : models.reluNet({ widths: [dx, h, dy] });
    const problem = engine.problem(net, points(12, dx, dy, seed));
    const [W, U] = seed % 2 ? ["W", "U"] : ["W1", "W2"];
    return { problem, h, U: U!, W: W!, theta: problem.init("he", { seed }) };
  });

  test.each(nets)("rescaling, net %#", ({ problem, U, W, theta }) => {
    const A = symmetry.rescaling(U, W);
    const at = (name: string) => {
      const { offset, size } = problem.model.block(name);
      return (i: number) => i >= offset && i < offset + size;
    };
    // A = +-1: the closed form
    const wanted = 0.25 * Math.log(noiseOf(problem, theta, at(U)) / noiseOf(problem, theta, at(W)));
    for (const k of [0, ...FAR, -25, 25]) {
      const there = scaledBy(problem, theta, { [U]: () => k, [W]: () => -k });
      const found = finite(problem.equilibrium(there, A, options));
      expect(Math.abs(found.lambda + k - wanted), `${k}`).toBeLessThan(1e-9);
      const common = finite(problem.commonEquilibrium(there, [A], options));
      expect(Math.abs(common.lambda[0]! + k - wanted), `${k}`).toBeLessThan(1e-9);
    }
    // with decay, whose terms are as far apart: the same orbit
    const decaying = { ...options, weightDecay: 0.003 };
    const near = finite(problem.equilibrium(theta, A, decaying));
    for (const k of FAR) {
      const there = scaledBy(problem, theta, { [U]: () => k, [W]: () => -k });
      const found = finite(problem.equilibrium(there, A, decaying));
      expect(Math.abs(found.lambda + k - near.lambda)).toBeLessThan(1e-9);
      expect(Math.abs(found.charge / near.charge - 1)).toBeLessThan(1e-9);
      expect(Math.abs(found.rate / near.rate - 1)).toBeLessThan(1e-9);
      // the mean gradient's parts cancel there too
      const flow = problem.noetherFlow(there, A, decaying);
      const g = problem.gradient(there);
      const parts = Float64Array.from(g).reduce((sum, x, i) => sum + Math.abs(x * there[i]!), 0);
      expect(Math.abs(flow.gradient)).toBeLessThan(1e-12 * parts);
    }
  });

  test.each(nets)("each neuron at a distance of its own, net %#", ({ problem, h, U, W, theta }) => {
    const A = Array.from({ length: h }, (_, j) => symmetry.neuronRescaling(U, W, j));
    const cols = problem.model.block(W).shape[1]!;
    const d = new Draw(h);
    for (let round = 0; round < 4; round++) {
      const k = Array.from({ length: h }, () => 20 * Math.sin(7 * d.normals(1)[0]!));
      const there = scaledBy(problem, theta, {
        [U]: (e) => k[e % h]!,
        [W]: (e) => -k[Math.floor(e / cols)]!,
      });
      const all = problem.commonEquilibrium(there, A, options);
      for (const [j, a] of A.entries()) {
        const start = problem.equilibrium(theta, a, options);
        const found = problem.equilibrium(there, a, options);
        expect(found.status).toBe(start.status);
        if (start.status !== "finite" || found.status !== "finite") continue;
        expect(Math.abs(found.lambda + k[j]! - start.lambda)).toBeLessThan(1e-9);
        if (all.status === "finite") expect(Math.abs(all.lambda[j]! - found.lambda)).toBeLessThan(1e-9);
      }
    }
  });

  test("a neuron whose bias is 0 and whose weights are e^20: the bias counts", () => {
    const problem = engine.problem(models.reluNet({ widths: [3, 4, 2], biases: true }), points(20, 3, 2, 9));
    const theta = problem.init("he", { seed: "bias" });
    const names = problem.model.blocks.map((b) => b.name);
    expect(names).toEqual(["W1", "b1", "W2", "b2"]);
    const A = symmetry.neuronRescaling("W2", "W1", 1, { bias: "b1" });
    const start = finite(problem.equilibrium(theta, A, options));
    for (const k of FAR) {
      const there = scaledBy(problem, theta, {
        W2: (e) => (e % 4 === 1 ? k : 0),
        W1: (e) => (Math.floor(e / 3) === 1 ? -k : 0),
      });
      expect(Math.abs(finite(problem.equilibrium(there, A, options)).lambda + k - start.lambda)).toBeLessThan(
        1e-9,
      );
    }
  });

  test("rotations lose the digits that theta has lost, and no more", () => {
    const problem = engine.problem(models.twoLayerLinear({ dx: 4, h: 3, dy: 3 }), points(30, 4, 3, 11));
    const theta = problem.init("he", { seed: "turned" });
    const B = [
      [1, 0.5, 0.2],
      [0.5, -1, 0.3],
      [0.2, 0.3, 0.7],
    ];
    const A = symmetry.doubleRotation("U", "W", B);
    const start = finite(problem.equilibrium(theta, A, options));
    for (const k of [-8, -4, 4, 8]) {
      const found = finite(problem.equilibrium(problem.transform(theta, A, k), A, options));
      // |mu| <= 1.2: entries e^(1.2 k), of which rounding leaves 2^-52 along the vector where mu = -1.2
      expect(Math.abs(found.lambda + k - start.lambda)).toBeLessThan(1e-14 * Math.exp(2.5 * Math.abs(k)));
    }
  });
});

describe("no noise but rounding", () => {
  const statusOf = (problem: Problem, theta: ArrayLike<number>, A: Generator, weightDecay = 0) =>
    problem.equilibrium(theta as Float64Array, A, { ...options, weightDecay, force: true }).status;

  test("a dead neuron and an unused block are flat, others off balance or not", () => {
    const problem = engine.problem(models.reluNet({ widths: [3, 4, 2] }), points(20, 3, 2, 3));
    const theta = Float64Array.from(problem.init("he", { seed: "dead" }));
    const { offset } = problem.model.block("W2");
    for (let i = 0; i < 3; i++) theta[6 + i] = 0;
    for (let i = 0; i < 2; i++) theta[offset + 4 * i + 2] = 0;
    for (const k of [0, ...FAR]) {
      const there = scaledBy(problem, theta, { W2: () => k, W1: () => -k });
      expect(statusOf(problem, there, symmetry.neuronRescaling("W2", "W1", 2))).toBe("flat");
      expect(statusOf(problem, there, symmetry.neuronRescaling("W2", "W1", 1))).toBe("finite");
    }
    const idle = engine.problem(
      makeModel({
        params: { w: [2], idle: [2] },
        inputs: { x: [2], y: [] },
        loss: ({ w, x, y }) => ops.square(ops.sub(ops.matmul(w!, x!), y!)),
      }),
      { x: [1, 0, 0, 1], y: [1, 2] },
    );
    expect(statusOf(idle, [3, 4, 5, 6], symmetry.scaling("idle"))).toBe("flat");
    expect(statusOf(idle, [3, 4, 5, 6], symmetry.scaling("idle"), 0.1)).toBe("-inf");
    // interpolation: no gradient at all
    expect(statusOf(idle, [1, 2, 5, 6], symmetry.rescaling("w", "idle"))).toBe("flat");
  });

  test("a bias that the softmax of attention does not see, of any size, and beside layers off balance", () => {
    const d = 3;
    const T = 4;
    // logits q . (K x_t + b): b adds one number to all of them
    const problem = engine.problem(
      makeModel({
        params: { q: [d], K: [d, d], b: [d], U: [2, d], W: [d, d] },
        inputs: { x: [T, d], y: [2] },
        loss: ({ q, K, b, U, W, x, y }) => {
          const keys = ops.add(ops.matmul(x!, ops.transpose(K!)), b!);
          const mix = ops.matmul(ops.softmax(ops.matmul(keys, q!)), x!);
          return ops.sqnorm(ops.sub(ops.matmul(U!, ops.matmul(W!, mix)), y!));
        },
      }),
      points(15, T * d, 2, 5),
    );
    const theta = problem.init("normal", { seed: "keys", std: { q: 1, K: 1, b: 1, U: 1, W: 1 } });
    const g = problem.perSampleGradients(theta);
    const { offset, size } = problem.model.block("b");
    const ofBias = g.filter((_, i) => i % problem.P >= offset && i % problem.P < offset + size);
    expect(Math.max(...ofBias.map(Math.abs))).toBeGreaterThan(0); // rounding
    for (const bias of [-1, -3, 0, 2])
      for (const k of [0, 5]) {
        const there = scaledBy(problem, theta, { b: () => bias, U: () => k, W: () => -k });
        expect(statusOf(problem, there, symmetry.scaling("b")), `${bias} ${k}`).toBe("flat");
        expect(statusOf(problem, there, symmetry.scaling("b"), 0.1)).toBe("-inf");
        expect(statusOf(problem, there, symmetry.rescaling("U", "W"))).toBe("finite");
      }
    const single = singles.problem(problem.model, problem.data);
    expect(statusOf(single, theta, symmetry.scaling("b"))).toBe("flat");
    expect(statusOf(single, theta, symmetry.rescaling("U", "W"))).toBe("finite");
    const none = scaledBy(problem, theta, { b: () => -Infinity });
    expect(statusOf(problem, none, symmetry.scaling("b"))).toBe("flat");
  });

  test("one vector added to all logits: the gradient along it cancels, and theta where its columns add up to 0", () => {
    const problem = engine.problem(
      makeModel({
        params: { W: [4, 3], idle: [2] },
        inputs: { x: [3], y: [4] },
        loss: ({ W, x, y }) => {
          const z = ops.matmul(W!, x!);
          return ops.sub(ops.logsumexp(z), ops.sum(ops.mul(ops.softmax(y!), z)));
        },
      }),
      points(15, 3, 4, 6),
    );
    const theta = problem.init("normal", { seed: "logits", std: { W: 1, idle: 1 } });
    const left = Array.from({ length: 4 }, () => [1, 1, 1, 1]);
    const A = symmetry.generator({ blocks: { W: { left } } });
    expect(statusOf(problem, theta, A)).toBe("flat");
    expect(statusOf(problem, theta, A, 0.1)).toBe("-inf");
    // with an unused block in the same eigenspace, of any size
    const wider = symmetry.generator({ blocks: { W: { left }, idle: { scalar: 4 } } });
    for (const idle of [-30, 0, 30])
      expect(statusOf(problem, scaledBy(problem, theta, { idle: () => idle }), wider)).toBe("flat");
    const centred = Float64Array.from(theta, (x, e) => {
      if (e >= 12) return x;
      return x - [0, 1, 2, 3].reduce((sum, i) => sum + theta[3 * i + (e % 3)]! / 4, 0);
    });
    const sums = [0, 1, 2].map((j) => [0, 1, 2, 3].reduce((sum, i) => sum + centred[3 * i + j]!, 0));
    expect(sums.some((x) => x !== 0)).toBe(true); // rounding
    expect(statusOf(problem, centred, A, 0.1)).toBe("flat");
  });

  test("a scaling of weights of which only the direction counts, in one dimension", () => {
    const problem = engine.problem(
      makeModel({
        params: { w: [3, 1], U: [2, 3], c: [1] },
        inputs: { x: [1], y: [2] },
        loss: ({ w, U, c, x, y }) => {
          const unit = layers.weightNorm(w!, { by: "row" });
          return ops.sqnorm(ops.sub(ops.mul(c!, ops.matmul(U!, ops.matmul(unit, x!))), y!));
        },
      }),
      points(15, 1, 2, 8),
    );
    const theta = problem.init("normal", { seed: "norm", std: { w: 1, U: 1, c: 1 } });
    for (const k of FAR) {
      const there = scaledBy(problem, theta, { U: () => k, c: () => -k });
      expect(["flat"]).toContain(statusOf(problem, there, symmetry.scaling("w")));
      expect(statusOf(problem, there, symmetry.rescaling("U", "c"))).toBe("finite");
    }
  });
});

describe("of any size", () => {
  const problem = engine.problem(models.twoLayerLinear({ dx: 2, h: 2, dy: 2 }), points(8, 2, 2, 12));
  const start = problem.init("he", { seed: "size" });
  const A = symmetry.rescaling("U", "W");
  const neurons = [0, 1].map((j) => symmetry.neuronRescaling("U", "W", j));
  type Call = (theta: Float64Array, weightDecay: number) => unknown;
  const calls: Record<string, Call> = {
    equilibrium: (theta, weightDecay) => problem.equilibrium(theta, A, { ...options, weightDecay }),
    equilibriumGradient: (theta, weightDecay) =>
      problem.equilibriumGradient(theta, A, { ...options, weightDecay }),
    equilibriumCurve: (theta, weightDecay) =>
      problem.equilibriumCurve(theta, A, [-400, -1, 0, 1, 400], { ...options, weightDecay }),
    commonEquilibrium: (theta, weightDecay) =>
      problem.commonEquilibrium(theta, neurons, { ...options, weightDecay }),
    groupEquilibrium: (theta, weightDecay) =>
      problem.groupEquilibrium(theta, "U", "W", { ...options, weightDecay }),
  };
  /** No number in a result is NaN. */
  function checkNumbers(value: unknown, where: string): void {
    if (typeof value === "number") expect(value, where).not.toBeNaN();
    else if (typeof value === "object" && value !== null)
      for (const [key, part] of Object.entries(value)) checkNumbers(part, `${where}.${key}`);
  }
  const magnitude = fc.oneof(
    fc.constantFrom(-200, -100, 0, 100, 200),
    fc.double({ min: -320, max: 307, noNaN: true }),
  );

  test.each(Object.entries(calls))("%s: no NaN; an answer, or a sentence with a hint", (name, call) => {
    let [answers, refusals] = [0, 0];
    fc.assert(
      fc.property(
        fc.array(magnitude, { minLength: 8, maxLength: 8 }),
        fc.boolean(),
        fc.constantFrom(0, 0.01),
        (powers, byBlock, decay) => {
          const theta = Float64Array.from(
            start,
            (x, i) => x * Number(`1e${Math.round(powers[byBlock ? (i < 4 ? 0 : 4) : i]!)}`),
          );
          try {
            checkNumbers(call(theta, decay), name);
            answers++;
          } catch (error) {
            if (!(error instanceof NoetherflowError)) throw error;
            refusals++;
            expect(["nonfinite", "unsupported", "range"], error.message).toContain(error.code);
            expect(error.where, error.message).toContain(name);
            if (error.code === "nonfinite") expect(error.hint, error.message).toBeTruthy();
          }
        },
      ),
      { numRuns: 400 },
    );
    console.log(`${name}: ${answers} answers, ${refusals} refusals`);
    expect(answers).toBeGreaterThan(5);
    expect(refusals).toBeGreaterThan(5);
  });

  test("on one orbit from 1e-60 to 1e60: the same rest", () => {
    const rest = finite(problem.equilibrium(start, A, options));
    fc.assert(
      fc.property(fc.double({ min: -138, max: 138, noNaN: true }), (k) => {
        const there = scaledBy(problem, start, { U: () => k, W: () => -k });
        const found = finite(problem.equilibrium(there, A, options));
        expect(Math.abs(found.lambda + k - rest.lambda)).toBeLessThan(1e-9);
        expect(Math.abs(found.charge / rest.charge - 1)).toBeLessThan(1e-9);
        const common = finite(problem.commonEquilibrium(there, [A], options));
        expect(Math.abs(common.lambda[0]! + k - rest.lambda)).toBeLessThan(1e-9);
      }),
    );
  });

  test("what is out of range is named", () => {
    const scale = (u: number, w: number) => Float64Array.from(start, (x, i) => x * (i < 4 ? u : w));
    const refused = (call: Call, theta: Float64Array) => {
      try {
        call(theta, 0);
      } catch (error) {
        return error as NoetherflowError;
      }
      throw new Error("no refusal");
    };
    for (const [name, call] of Object.entries(calls)) {
      const large = refused(call, scale(1e200, 1e200));
      expect(large).toMatchObject({ code: "nonfinite", where: name });
      const small = refused(call, scale(1e-200, 1e-200));
      expect(small, name).toMatchObject({ code: "nonfinite", where: name });
    }
    expect(refused(calls.equilibrium!, scale(1e-200, 1e-200)).message).toBe(
      "equilibrium: the gradient noise along the generator of a size between 1e-140 and 1e+140, whose squares f64 holds, got 3.1e-200. Move theta along its orbit with problem.transform, or scale the data or theta.",
    );
    expect(refused(calls.groupEquilibrium!, scale(1, 1e200)).message).toContain(
      "the gradient of U of a size",
    );
  });

  test("lambdas of a curve: none give none, and those that are not finite are refused by name", () => {
    const none = problem.equilibriumCurve(start, A, [], options);
    expect([none.lambda.length, none.flow.length, none.charge.length]).toEqual([0, 0, 0]);
    expect(problem.equilibriumCurve(start, A, new Float64Array(0), options).flow).toHaveLength(0);
    for (const [bad, text] of [
      [Number.NaN, "NaN at position 1"],
      [Infinity, "Infinity at position 1"],
      [-Infinity, "-Infinity at position 1"],
    ] as const)
      expect(() => problem.equilibriumCurve(start, A, [0, bad], options)).toThrow(
        `equilibriumCurve: lambdas: values must be finite, got ${text}.`,
      );
    expect(() => problem.equilibriumCurve(start, A, [[0, 1]] as never, options)).toThrow(
      "equilibriumCurve: lambdas: expected a list of numbers, got [1, 2].",
    );
  });
});

/**
 * What holds for every exponential symmetry, on the fixtures and on random ready models: gradients and their covariance are
 * carried along the orbit by e^(-lambda A), the flow never rises along it, and the check of a symmetry says what it is.
 */
import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  createEngine,
  type Engine,
  type Generator,
  models,
  type Problem,
  parseModel,
  symmetry,
} from "../../src/index.ts";
import { Draw, readyKinds, readyModel } from "../helpers/ready.ts";

let engine: Engine;
let single: Engine;
beforeAll(async () => {
  engine = await createEngine();
  single = await createEngine({ dtype: "f32" });
});
afterAll(() => {
  engine.dispose();
  single.dispose();
});

/** A problem, where it is looked at, and its symmetries (or fields that are none). */
interface Case {
  readonly label: string;
  open(on: Engine): Problem;
  readonly theta: ArrayLike<number>;
  readonly symmetries: readonly Generator[];
  readonly controls: readonly Generator[];
}

interface Fixture {
  model: unknown;
  data: Record<string, number[]>;
  theta: number[];
  expected: { generators: { isSymmetry: boolean }[] };
}

const folder = fileURLToPath(new URL("../fixtures/", import.meta.url));
const fixtures = readdirSync(folder)
  .filter((f) => f.endsWith(".json"))
  .map((f): Case => {
    const fixture = JSON.parse(readFileSync(folder + f, "utf8")) as Fixture;
    const of = (is: boolean) =>
      fixture.expected.generators.filter((g) => g.isSymmetry === is).map((g) => symmetry.generator(g));
    return {
      label: f.slice(0, -5),
      open: (on) => on.problem(parseModel(fixture.model), fixture.data),
      theta: fixture.theta,
      symmetries: of(true),
      controls: of(false),
    };
  });
const ready = Array.from({ length: 2 * readyKinds.length }, (_, i): Case => {
  const { label, model, data, theta, symmetries } = readyModel(i + 500);
  return {
    label,
    open: (on) => on.problem(model, data),
    theta,
    symmetries: symmetries.map(({ A }) => A),
    controls: [],
  };
});
const cases = [...fixtures, ...ready];
const pairs = cases.flatMap((c) => c.symmetries.map((A) => [c.label, A.name, c, A] as const));

/** e^(lambda A) v of a linear field, the center left out, by the engine's `transform`. */
const carry = (problem: Problem, v: ArrayLike<number>, A: Generator, lambda: number): Float64Array => {
  const { name: _, center: __, ...linear } = A.toJSON();
  return Float64Array.from(problem.transform(v, symmetry.generator(linear), lambda));
};

/** Largest |a - b| over the largest |b|, or over `size`. */
const apart = (a: ArrayLike<number>, b: ArrayLike<number>, size = 0): number => {
  let [worst, largest] = [0, size];
  for (let i = 0; i < b.length; i++) {
    const d = Math.abs(a[i]! - b[i]!);
    if (!(d <= worst)) worst = d;
    largest = Math.max(largest, Math.abs(b[i]!));
  }
  return largest === 0 ? worst : worst / largest;
};

/** The largest |lambda| that moves no direction of A by more than e^0.7 (twice). */
function reach(problem: Problem, theta: ArrayLike<number>, A: Generator): number {
  const { byDirection } = problem.noetherFlow(theta, A, { sigma2: 1 });
  return 0.7 / Math.max(...byDirection.map((d) => Math.abs(d.mu)));
}

describe.each(pairs)("%s: %s", (_, __, c, A) => {
  let problem: Problem;
  beforeAll(() => {
    problem = c.open(engine);
  });
  afterAll(() => problem.dispose());

  test.each([1, -0.6])("gradients and Sigma are carried by e^(-lambda A), %d of the reach", async (share) => {
    const { P, N } = problem;
    const lambda = share * reach(problem, c.theta, A);
    const there = problem.transform(c.theta, A, lambda);
    const [g, moved] = [problem.perSampleGradients(c.theta), problem.perSampleGradients(there)];
    for (let n = 0; n < N; n++) {
      const expected = carry(problem, g.subarray(n * P, (n + 1) * P), A, -lambda);
      expect(apart(moved.subarray(n * P, (n + 1) * P), expected, 1e-3), `sample ${n}`).toBeLessThan(1e-10);
    }
    // Sigma is symmetric: carry its rows, then its columns
    const turned = (M: ArrayLike<number>): Float64Array => {
      const rows = Array.from({ length: P }, (_r, i) =>
        carry(
          problem,
          Array.from({ length: P }, (_c, j) => M[i * P + j]!),
          A,
          -lambda,
        ),
      );
      return Float64Array.from({ length: P * P }, (_e, k) => rows[k % P]![Math.floor(k / P)]!);
    };
    const Sigma = turned(turned(await problem.noiseCovariance(c.theta)));
    expect(apart(await problem.noiseCovariance(there), Sigma, 1e-6)).toBeLessThan(1e-10);
    // so Tr[Sigma A], and the charge of the mean gradient
    const [power, along] = [problem.noisePower(there, A).value, problem.noetherFlow(there, A, { sigma2: 1 })];
    expect(Math.abs(power - along.noise)).toBeLessThan(1e-11 * (along.plus + along.minus) + 1e-18);
  });

  test("f(lambda) = dC/dt at e^(lambda A) theta never rises, for gamma 0 and above; C never falls", () => {
    const far = 2 * reach(problem, c.theta, A);
    const lambdas = Array.from({ length: 9 }, (_l, i) => (far * (i - 4)) / 4);
    // for a shifted generator the closed form, and monotony with it, hold without decay
    for (const weightDecay of A.center === null ? [0, 0.01, 3] : [0]) {
      const options = { sigma2: 0.01, weightDecay };
      const points = lambdas.map((lambda) => {
        const there = problem.transform(c.theta, A, lambda);
        return { flow: problem.noetherFlow(there, A, options), charge: problem.charge(there, A) };
      });
      const curve = problem.equilibriumCurve(c.theta, A, lambdas, options);
      for (const [i, { flow, charge }] of points.entries()) {
        const size = flow.plus + flow.minus + Math.abs(flow.decay) + 1e-12;
        // from one measurement, and from one at each point
        expect(Math.abs(curve.flow[i]! - flow.noise - flow.decay)).toBeLessThan(1e-9 * size);
        const previous = points[i - 1];
        if (previous === undefined) continue;
        const [before, after] = [previous.flow.noise + previous.flow.decay, flow.noise + flow.decay];
        expect(after - before, `gamma ${weightDecay}, ${lambdas[i]}`).toBeLessThan(1e-11 * size);
        expect(charge - previous.charge).toBeGreaterThan(-1e-12 * (1 + Math.abs(charge)));
      }
    }
  });

  test("is exact in f64 and in f32, at any seed", () => {
    for (const seed of ["0", "1", 7]) {
      const { verdict, defect, finiteDefect } = problem.checkSymmetry(A, { theta: c.theta, seed });
      expect(verdict, `defect ${defect}, finite ${finiteDefect}`).toBe("exact");
    }
    const other = c.open(single);
    const { verdict, defect, finiteDefect } = other.checkSymmetry(A);
    expect(verdict, `f32: defect ${defect}, finite ${finiteDefect}`).toBe("exact");
    expect(defect).toBeLessThan(1e-4);
    other.dispose();
  });
});

describe("fields that are no symmetry", () => {
  test.each(cases.map((c) => [c.label, c] as const))(
    "%s: controls and a random symmetric matrix are refused, in f64 and f32",
    (_, c) => {
      for (const on of [engine, single]) {
        const problem = c.open(on);
        const { P } = problem;
        const M = new Draw(P).symmetric(P);
        for (const A of [...c.controls, symmetry.generator({ name: "random", dense: M.flat() })]) {
          const found = problem.checkSymmetry(A);
          expect(found.verdict, `${A.name}: ${found.defect}, ${found.finiteDefect}`).not.toBe("exact");
          expect(() => problem.equilibrium(c.theta, A, { sigma2: 1 })).toThrow("no exact symmetry");
          expect(problem.equilibrium(c.theta, A, { sigma2: 1, force: true })).toHaveProperty("status");
        }
        problem.dispose();
      }
    },
  );

  test("a generator that is exact but for a part in a million is none that is exact, and equilibrium refuses it", () => {
    const { model, data, theta } = readyModel(readyKinds.indexOf("reluNet"), 6);
    const problem = engine.problem(model, data);
    const almost = symmetry.blockScaling({
      W2: 1,
      W1: -1 - 1e-6,
      ...("b1" in problem.named(theta) ? { b1: -1 } : {}),
    });
    const { verdict, defect } = problem.checkSymmetry(almost);
    expect(verdict).toBe("approximate");
    expect(defect).toBeGreaterThan(1e-8);
    expect(defect).toBeLessThan(1e-5);
    expect(() => problem.equilibrium(theta, almost, { sigma2: 1 })).toThrow("equilibrium");
    problem.dispose();
  });
});

describe("tanh: the double rotation holds to O(|W x|^2)", () => {
  const d = new Draw(3);
  const [dx, h, dy, N] = [3, 3, 3, 6];
  const B = d.symmetric(h);
  const A = symmetry.doubleRotation("U", "W", B);
  const y = d.normals(N * dy);
  const x = d.normals(N * dx);
  /** The same problem with inputs this much smaller. */
  const on = (c: number) => engine.problem(models.tanhNet({ dx, h, dy }), { x: x.map((v) => c * v), y });

  test("the defect falls by 4 where the inputs are halved, and passes from none to approximate", () => {
    const scales = [1, 1 / 8, 1 / 16, 1 / 32, 1 / 64];
    const found = scales.map((c) => {
      const problem = on(c);
      const check = problem.checkSymmetry(A);
      problem.dispose();
      return check;
    });
    expect(found[0]!.verdict).toBe("none");
    expect(found.at(-1)!.verdict).toBe("approximate");
    const ratios = found.slice(2).map((f, i) => found[i + 1]!.defect / f.defect);
    for (const ratio of ratios) expect(Math.abs(ratio - 4), ratios.join(" ")).toBeLessThan(0.3);
  });

  test("the verdict turns at a defect of .05, the larger of the two", () => {
    const found = Array.from({ length: 40 }, (_, i) => 0.9 ** i).map((c) => {
      const problem = on(c);
      const { verdict, defect, finiteDefect } = problem.checkSymmetry(A);
      problem.dispose();
      return { verdict, worst: Math.max(defect, finiteDefect) };
    });
    for (const { verdict, worst } of found) expect(verdict).toBe(worst <= 0.05 ? "approximate" : "none");
    // both sides, close to it
    expect(found.some(({ worst }) => worst > 0.05 && worst < 0.08)).toBe(true);
    expect(found.some(({ worst }) => worst <= 0.05 && worst > 0.03)).toBe(true);
  });

  test("and equilibrium refuses it however small it is", () => {
    const problem = on(1e-3);
    const theta = problem.init("glorot", { seed: "small" });
    expect(problem.checkSymmetry(A).verdict).toBe("approximate");
    expect(() => problem.equilibrium(theta, A, { sigma2: 1 })).toThrow("no exact symmetry");
    problem.dispose();
  });

  test("without decay the flow has a part along the gradient that a symmetry has not", () => {
    const problem = on(1);
    const theta = problem.init("normal", { seed: 0, std: 1 });
    const flow = problem.noetherFlow(theta, A, { eta: 0.01, batchSize: 2 });
    expect(Math.abs(flow.gradient)).toBeGreaterThan(1e-3);
    expect(flow.total).toBe(flow.noise + flow.decay + flow.gradient);
    problem.dispose();
  });
});

test("losses that couple a batch: the whole batch is one sample, scaling is exact and a rotation is not", () => {
  const d = new Draw(11);
  const net = engine.problem(models.batchNormNet({ dx: 3, h: 3, dy: 2 }), {
    x: d.normals(24),
    y: d.normals(16),
  });
  expect(net.checkSymmetry(symmetry.scaling("W")).verdict).toBe("exact");
  expect(net.checkSymmetry(symmetry.rescaling("U", "W")).verdict).toBe("none");
  const views = engine.problem(models.infoNCE({ dx: 3, h: 3 }), { x: d.normals(15), xplus: d.normals(15) });
  expect(views.checkSymmetry(symmetry.scaling("W")).verdict).toBe("exact");
  expect(views.checkSymmetry(symmetry.generator({ blocks: { W: { right: d.symmetric(3) } } })).verdict).toBe(
    "none",
  );
  net.dispose();
  views.dispose();
});

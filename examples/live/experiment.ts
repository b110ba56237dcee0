/** What the page runs: four models with a symmetry, and the two runs of a setting. No browser needed: Node gives the same bits. */
import {
  type Engine,
  type Generator,
  type Model,
  models,
  NoetherflowError,
  ops,
  type Problem,
  type Run,
  type RunRecord,
  type SimulateOptions,
  sampler,
  symmetry,
  type ThetaLike,
} from "./noetherflow.ts";

/** Everything a run depends on; the part behind # in the page's address. */
export interface Setting {
  readonly model: string;
  /** S */
  readonly batchSize: number;
  readonly eta: number;
  /** gamma: decay adds gamma |theta|^2 to the loss. */
  readonly weightDecay: number;
  /** Standard deviation of the label noise. */
  readonly noise: number;
  /** The start is e^(lambda A) theta_0: the same loss, another charge. */
  readonly lambda: number;
  readonly seed: string;
  readonly steps: number;
}

export interface Case {
  readonly title: string;
  /** Formulas, as text. */
  readonly loss: string;
  readonly charge: string;
  /** What to look at. */
  readonly about: string;
  readonly net: Model;
  /** dx and dy of the teacher's x and y. */
  readonly sizes: readonly [dx: number, dy: number];
  /** The generator of the symmetry; its charge is C. */
  readonly A: Generator;
  /** theta_0; at random, by the seed, when absent. */
  readonly start?: ThetaLike;
  readonly usual: Omit<Setting, "model" | "seed">;
}

export const cases: Readonly<Record<string, Case>> = {
  "rank-one": {
    title: "two numbers: u w x",
    loss: "ℓ = (u w x − y)²",
    charge: "C = ½ (u² − w²)",
    about:
      "The loss stays the same when u grows and w shrinks by one factor. Theory predicts that SGD removes the difference C, " +
      "and the faster, the larger η² / S.",
    net: models.rankOne(),
    sizes: [1, 1],
    A: symmetry.rescaling("u", "w"),
    start: { u: [1], w: [0.5] },
    usual: { batchSize: 4, eta: 0.002, weightDecay: 0, noise: 1, lambda: 0.5, steps: 1_000_000 },
  },
  linear: {
    title: "linear net: U W x",
    loss: "ℓ = |U W x − y|²",
    charge: "C = ½ (|U|² − |W|²)",
    about:
      "The noise does not make both layers equally large: the layer with less gradient noise grows, until the noise of both balances.",
    net: models.twoLayerLinear({ dx: 6, h: 2, dy: 2 }),
    sizes: [6, 2],
    A: symmetry.rescaling("U", "W"),
    usual: { batchSize: 4, eta: 0.005, weightDecay: 0, noise: 1, lambda: 0.25, steps: 200_000 },
  },
  relu: {
    title: "ReLU net: U relu(W x)",
    loss: "ℓ = |U relu(W x) − y|²",
    charge: "C = ½ (|U|² − |W|²)",
    about:
      "ReLU lets a positive factor through, so U may grow where W shrinks. The net still learns while the charge moves, and where " +
      "the noise balances moves with it.",
    net: models.reluNet({ widths: [4, 5, 2] }),
    sizes: [4, 2],
    A: symmetry.rescaling("W2", "W1"),
    usual: { batchSize: 4, eta: 0.005, weightDecay: 0, noise: 0.5, lambda: 0, steps: 400_000 },
  },
  normalised: {
    title: "normalised: U W x / |θ|²",
    loss: "ℓ = |U W x / (|U|² + |W|²) − y|²",
    charge: "C = ½ |θ|²",
    about:
      "The loss does not depend on the size of θ. Noise can only make it grow, weight decay only shrink: with both, it comes to rest. " +
      "Gradient descent, with no noise against the decay, shrinks it to almost nothing.",
    net: models.netA({ dx: 4, h: 4, dy: 2 }),
    sizes: [4, 2],
    A: symmetry.scaling("U", "W"),
    usual: { batchSize: 4, eta: 0.05, weightDecay: 0.001, noise: 1, lambda: -0.2, steps: 50_000 },
  },
};

/** Independent runs of SGD, side by side. */
export const REPLICAS = 8;
/** Samples of the data set. */
const SAMPLES = 64;
/** Points of a curve. */
const POINTS = 500;

/** One place of both runs. A run that diverged has no more of them. */
export interface Point {
  readonly k: number;
  readonly gd: { readonly charge: number; readonly loss: number } | null;
  readonly sgd: {
    /** Of every replica. */
    readonly charges: readonly number[];
    readonly loss: number;
    /** C(0) and the sum of the Noether flow up to here, mean of the replicas. */
    readonly predicted: number;
    readonly balance: Balance;
  } | null;
}

/** What theory says where SGD is now, means over the replicas. */
export interface Balance {
  /** dC of a step by the Noether flow, what steps of finite size add included. */
  readonly flow: number;
  /** "finite", or why the charge never comes to rest. */
  readonly status: string;
  /** The charge at the noise equilibrium, on the orbit through theta; NaN where there is none. */
  readonly charge: number;
  /** Of the approach to it: 1 / tau_2, per step. */
  readonly rate: number;
}

/** How a run ended. */
export interface End {
  readonly status: "done" | "diverged" | "aborted";
  /** The last step at which all replicas were finite. */
  readonly steps: number;
  readonly hash: string;
}

/** A problem and its two runs: gradient descent, and SGD with REPLICAS replicas. */
export interface Experiment {
  readonly problem: Problem;
  readonly A: Generator;
  readonly gd: SimulateOptions<Generator>;
  readonly sgd: SimulateOptions<Generator>;
}

/**
 * The experiment of a setting. Whoever asks for it disposes of its problem.
 *
 * @throws NoetherflowError for a setting that cannot be run
 */
export function prepare(engine: Engine, setting: Setting): Experiment {
  const { batchSize, eta, weightDecay, seed, steps } = setting;
  const known = Object.hasOwn(cases, setting.model) ? cases[setting.model] : undefined;
  if (known === undefined)
    throw new NoetherflowError("name", "model", {
      expected: `the models are ${Object.keys(cases).join(", ")}`,
      got: `"${setting.model}"`,
    });
  const { net, A, sizes } = known;
  const problem = engine.problem(net, teacher(sizes, setting.noise), { samples: SAMPLES, dataSeed: seed });
  try {
    const start = known.start ?? problem.init("glorot", { seed });
    const common = { theta: problem.transform(start, A, setting.lambda), eta, weightDecay, seed, steps };
    const record = {
      every: Math.max(1, Math.ceil(steps / POINTS)),
      loss: "full",
      charges: { C: A },
    } as const;
    // theory is asked where SGD is, so theta itself is recorded too
    const values = Object.fromEntries(net.blocks.map(({ name }) => [name, net.leaf(name)]));
    const gd = { ...common, scheme: "gd", record } as const;
    const sgd = {
      ...common,
      scheme: "sgd",
      batchSize,
      replicas: REPLICAS,
      record: { ...record, values },
    } as const;
    problem.describe(gd); // a mistake shows here, before any work
    problem.describe(sgd);
    return { problem, A, gd, sgd };
  } catch (error) {
    problem.dispose();
    throw error;
  }
}

/** Both runs of a setting side by side, point by point; an abort throws the signal's reason. */
export async function* follow(
  engine: Engine,
  setting: Setting,
  signal?: AbortSignal,
): AsyncGenerator<Point, { gd: End; sgd: End }> {
  const experiment = prepare(engine, setting);
  const { problem } = experiment;
  const control = signal === undefined ? {} : { signal };
  const gd = problem.stream({ ...experiment.gd, ...control });
  const sgd = problem.stream({ ...experiment.sgd, ...control });
  try {
    const theory = new Theory(experiment);
    // The first steps are fast. A run is a function of its options and seed: these are the same steps, at more places.
    const { every } = experiment.sgd.record!;
    const record = { ...experiment.sgd.record, every: Math.ceil(every / 50) };
    const first = { ...experiment.sgd, ...control, record, steps: Math.min(every, setting.steps) };
    for await (const at of problem.stream(first)) theory.add(at);

    let [a, b] = [await gd.next(), await sgd.next()];
    while (!a.done || !b.done) {
      const [g, s] = [a.done ? null : a.value, b.done ? null : b.value];
      yield {
        k: (g ?? s)!.k,
        gd: g && { charge: g.charges.C![0]!, loss: g.loss![0]! },
        sgd: s && { charges: [...s.charges.C!], loss: mean(s.loss!), ...theory.add(s) },
      };
      if (!a.done) a = await gd.next();
      if (!b.done) b = await sgd.next();
    }
    return { gd: endOf(a.value), sgd: endOf(b.value) };
  } finally {
    await gd.return(undefined as never);
    await sgd.return(undefined as never);
    problem.dispose();
  }
}

const endOf = ({ status, steps, hash }: Run): End => ({ status, steps, hash });

/** The course of the charge that theory predicts, summed by trapezoids from record to record. */
class Theory {
  readonly #experiment: Experiment;
  #last: { k: number; predicted: number; flow: number } | null = null;

  constructor(experiment: Experiment) {
    this.#experiment = experiment;
  }

  add(record: RunRecord): { predicted: number; balance: Balance } {
    const balance = this.#balance(record);
    const C = mean(record.charges.C!);
    if (this.#last === null) this.#last = { k: record.k, predicted: C, flow: balance.flow };
    const { k, predicted, flow } = this.#last;
    if (record.k < k) return { predicted: C, balance }; // the start again
    const next = predicted + 0.5 * (record.k - k) * (flow + balance.flow);
    this.#last = { k: record.k, predicted: next, flow: balance.flow };
    return { predicted: next, balance };
  }

  #balance({ values }: RunRecord): Balance {
    const { problem, A, sgd } = this.#experiment;
    const [eta, batchSize] = [sgd.eta as number, sgd.batchSize as number];
    const options = { eta, batchSize, weightDecay: sgd.weightDecay as number };
    const thetas = Array.from({ length: REPLICAS }, (_, r) =>
      Object.fromEntries(
        Object.entries(values).map(([name, all]) => {
          const size = all.length / REPLICAS;
          return [name, all.subarray(r * size, (r + 1) * size)];
        }),
      ),
    );
    try {
      const flows = thetas.map((theta) => problem.noetherFlow(theta, A, options));
      const ends = thetas.map((theta) => problem.equilibrium(theta, A, options));
      const rest = ends.map((end) =>
        end.status === "finite" ? end : { charge: Number.NaN, rate: Number.NaN },
      );
      return {
        flow: eta * mean(flows.map(({ total, discrete }) => total + discrete)),
        status: ends.find(({ status }) => status !== "finite")?.status ?? "finite",
        charge: mean(rest.map(({ charge }) => charge)),
        rate: eta * mean(rest.map(({ rate }) => rate)),
      };
    } catch (error) {
      // a replica on its way out of the numbers; the run will say so
      if (!(error instanceof NoetherflowError && error.code === "nonfinite")) throw error;
      return { flow: Number.NaN, status: "none", charge: Number.NaN, rate: Number.NaN };
    }
  }
}

/** x ~ N(0, I), y = V x + label noise, V with ones on its diagonal. */
function teacher([dx, dy]: Case["sizes"], noise: number) {
  const V = Array.from({ length: dy }, (_, i) => Array.from({ length: dx }, (_, j) => (i === j ? 1 : 0)));
  return sampler({
    noise: { x: { kind: "normal", shape: [dx] }, e: { kind: "normal", shape: [dy] } },
    constants: { V },
    outputs: ({ x, e, V }) => ({ x, y: ops.add(ops.matmul(V, x), ops.scale(e, noise)) }),
  });
}

export function mean(values: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i]!;
  return sum / values.length;
}

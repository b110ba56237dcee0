/**
 * Data that a function reads: the numbers are those of the same data in memory, whatever the buffer, the kind of walk and the host's
 * manner of reading; what it must not return is refused; nothing is left behind.
 */
import { afterAll, describe, expect, test } from "vitest";
import { NoetherflowError } from "../src/errors.ts";
import {
  type Columns,
  createEngine,
  type Engine,
  model,
  models,
  ops,
  type Problem,
  type Reader,
  type Room,
  type SimulateOptions,
  type StreamedProblem,
  sampler,
  symmetry,
} from "../src/index.ts";
import { recordRun } from "../src/records/records.ts";

const engines = { f64: await createEngine(), f32: await createEngine({ dtype: "f32" }) };
const engine = engines.f64;
afterAll(() => {
  for (const e of Object.values(engines)) e.dispose();
});

/** Not a multiple of a block, of a run of the summation tree, or of a portion. */
const N = 1237;
const net = models.twoLayerLinear({ dx: 3, h: 4, dy: 2 });
const law = sampler({
  noise: { x: { kind: "normal", shape: [3] }, e: { kind: "normal", shape: [2] } },
  constants: {
    V: [
      [1, 0.5, 0],
      [0, 1, -1],
    ],
  },
  outputs: ({ x, e, V }) => ({ x: x!, y: ops.add(ops.matmul(V!, x!), ops.scale(e!, 0.5)) }),
});
const A = symmetry.rescaling("U", "W");

interface Call {
  readonly start: number;
  readonly count: number;
}

/** A reader of the data of a problem, that notes what it is asked for. */
function readerOf(
  problem: Problem,
  { bufferBytes = 4096, wait = false }: { bufferBytes?: number; wait?: boolean } = {},
): Reader & { calls: Call[] } {
  const { data } = problem;
  const calls: Call[] = [];
  const sizes = problem.model.inputs.map(({ name, size }) => [name, size] as const);
  const read = (start: number, count: number): Columns | Promise<Columns> => {
    calls.push({ start, count });
    const columns = Object.fromEntries(
      sizes.map(([name, size]) => [name, data[name]!.subarray(start * size, (start + count) * size)]),
    );
    return wait ? new Promise((resolve) => setImmediate(() => resolve(columns))) : columns;
  };
  return { N: problem.N, bufferBytes, read, calls };
}

/** The same data in memory and read on the way. */
function both(
  e: Engine = engine,
  options: { bufferBytes?: number; wait?: boolean } = {},
): { inMemory: Problem; streamed: StreamedProblem; reader: Reader & { calls: Call[] } } {
  const inMemory = e.problem(net, law, { samples: N });
  const reader = readerOf(inMemory, options);
  const { N: count, bufferBytes, read } = reader;
  return { inMemory, reader, streamed: e.problem(net, { N: count, read, bufferBytes: bufferBytes! }) };
}

const refusal = async (make: () => unknown): Promise<NoetherflowError> => {
  try {
    await make();
  } catch (error) {
    if (error instanceof NoetherflowError) return error;
    throw error;
  }
  throw new Error("nothing was refused");
};

describe.each(["f64", "f32"] as const)("measurements in %s have the bits of data in memory", (dtype) => {
  // 1 byte: a block at a time; 4096: some blocks; 1e6: all of it
  describe.each([1, 4096, 1e6])("with a buffer of %d bytes", (bufferBytes) => {
    const { inMemory, streamed } = both(engines[dtype], { bufferBytes, wait: true });
    const theta = inMemory.init("glorot", { seed: 3 });
    const v = inMemory.init("normal", { seed: 4, std: 1, replicas: 9 } as never);

    test("loss and losses", async () => {
      expect(await streamed.loss(theta)).toBe(inMemory.loss(theta));
      expect(await streamed.losses(theta)).toEqual(inMemory.losses(theta));
    });
    test("gradient and products with the Hessian", async () => {
      expect(await streamed.gradient(theta)).toEqual(inMemory.gradient(theta));
      expect(await streamed.hessianVector(theta, v, { count: 9 })).toEqual(
        inMemory.hessianVector(theta, v, { count: 9 }),
      );
    });
    test.each([undefined, "structured", "streamed"] as const)("noise by method %s", async (method) => {
      const options = method === undefined ? {} : { method };
      expect(await streamed.noiseTrace(theta, options)).toEqual(inMemory.noiseTrace(theta, options));
      expect(await streamed.noisePower(theta, A, options)).toEqual(inMemory.noisePower(theta, A, options));
      expect(await streamed.noiseMoments(theta, "U", "W", options)).toEqual(
        inMemory.noiseMoments(theta, "U", "W", options),
      );
    });
    test("second moments", async () => {
      expect(await streamed.noiseTrace(theta, { centred: false })).toEqual(
        inMemory.noiseTrace(theta, { centred: false }),
      );
    });
  });
});

/** Runs of every scheme and kind of batch; `batches` are rows for two steps of SVAG, four of SGD. */
const batches = Array.from({ length: 4 * 10 }, (_, i) => (i * 389) % N);
const runs: Record<string, Partial<SimulateOptions> & { scheme: SimulateOptions["scheme"]; steps: number }> =
  {
    gd: { scheme: "gd", steps: 12 },
    "gd with momentum": { scheme: "gd", steps: 12, momentum: 0.5, weightDecay: 0.01 },
    sgd: { scheme: "sgd", batchSize: 10, steps: 300 },
    "sgd, batches larger than a block": { scheme: "sgd", batchSize: 401, steps: 9 },
    "sgd, batches of one": { scheme: "sgd", batchSize: 1, steps: 300 },
    "sgd without replacement": { scheme: "sgd", batchSize: 10, sampling: "without", steps: 200 },
    "sgd by epochs": { scheme: "sgd", batchSize: 100, sampling: "epochs", steps: 40 },
    "sgd, explicit batches": { scheme: "sgd", batchSize: 10, batches, steps: 4 },
    "sgd with label noise": { scheme: "sgd", batchSize: 10, labelNoise: { y: 0.3 }, steps: 50 },
    sde: { scheme: "sde", batchSize: 10, steps: 12 },
    "sde by a factor": { scheme: "sde", batchSize: 10, noise: "factor", steps: 3 },
    svag: { scheme: "svag", batchSize: 10, l: 2, steps: 20 },
    "svag, explicit batches": { scheme: "svag", batchSize: 10, l: 1, batches, steps: 2 },
    modified: { scheme: "modified", batchSize: 10, steps: 5 },
    flow: { scheme: "flow", steps: 3 },
    adam: { scheme: "adam", batchSize: 10, steps: 50 },
  };

describe.each(Object.entries(runs))("a run of %s", (name, options) => {
  const explicit = options.batches !== undefined;
  const lanes = options.noise === "factor" ? (["samples"] as const) : (["samples", "replicas"] as const);
  const dtypes = name === "gd" || name === "sgd" ? (["f64", "f32"] as const) : (["f64"] as const);
  const cases = dtypes.flatMap((dtype) =>
    lanes.flatMap((l) => [1, 4096, 1e6].map((bufferBytes) => [dtype, l, bufferBytes] as const)),
  );

  test.each(cases)("has its bits in %s, lanes %s, a buffer of %d", async (dtype, l, bufferBytes) => {
    const { inMemory, streamed } = both(engines[dtype], { bufferBytes, wait: bufferBytes === 4096 });
    const all = {
      eta: 0.01,
      theta: inMemory.init("glorot", { seed: 5, replicas: 3 }),
      replicas: 3,
      record: {
        every: 2,
        loss: explicit ? "full" : "batch",
        charges: { C: A },
        work: options.scheme === "sgd",
      },
      lowering: { lanes: l },
      ...options,
    } as SimulateOptions<typeof A>;
    expect((await streamed.simulate(all)).hashes).toEqual((await inMemory.simulate(all)).hashes);
    streamed.dispose();
    inMemory.dispose();
  });
});

describe("runs", () => {
  const { inMemory, streamed } = both(engine, { bufferBytes: 4096, wait: true });
  const theta = inMemory.init("glorot", { seed: 5 });
  const options = {
    scheme: "sgd",
    theta,
    eta: 0.01,
    batchSize: 10,
    steps: 500,
    record: { every: 100, loss: "full", charges: { C: A } },
  } as const;

  test("the chunks decide nothing", async () => {
    const { hash } = await inMemory.simulate(options);
    for (const chunk of [1, 7, 5000])
      expect((await streamed.simulate({ ...options, lowering: { chunk } })).hash).toBe(hash);
  });

  test("may interleave with measurements and with each other", async () => {
    const [a, b, loss, power] = await Promise.all([
      streamed.simulate(options),
      streamed.simulate({ ...options, scheme: "gd", batchSize: undefined, steps: 20 } as never),
      streamed.loss(theta),
      streamed.noisePower(theta, A),
    ]);
    expect(a.hash).toBe((await inMemory.simulate(options)).hash);
    const gd = { ...options, scheme: "gd", batchSize: undefined, steps: 20 } as never;
    expect(b.hash).toBe((await inMemory.simulate(gd)).hash);
    expect(loss).toBe(inMemory.loss(theta));
    expect(power).toEqual(inMemory.noisePower(theta, A));
  });

  test("stream gives the same records", async () => {
    const seen: number[] = [];
    for await (const { k } of streamed.stream(options)) seen.push(k);
    expect(seen).toEqual([0, 100, 200, 300, 400, 500]);
  });

  test("a sweep in parts", async () => {
    const sweep = { ...options, replicas: 2, batchSize: [3, 10], steps: 50 };
    expect((await streamed.simulate(sweep)).hash).toBe((await inMemory.simulate(sweep)).hash);
  });

  test("go on from a checkpoint, also from one of the same data in memory", async () => {
    const whole = await inMemory.simulate(options);
    for (const [from, to] of [
      [streamed, streamed],
      [inMemory, streamed],
      [streamed, inMemory],
    ] as const) {
      let kept: Uint8Array | undefined;
      const save = (bytes: Uint8Array) => void (kept ??= bytes);
      await from.simulate({ ...options, lowering: { chunk: 50 }, checkpoint: { save, everySteps: 200 } });
      const run = await to.simulate({ ...options, lowering: { chunk: 50 }, resume: kept! });
      expect(run.hash).toBe(whole.hash);
    }
  });

  test("a checkpoint of other data is refused", async () => {
    let kept: Uint8Array | undefined;
    const save = (bytes: Uint8Array) => void (kept ??= bytes);
    await streamed.simulate({ ...options, checkpoint: { save, everySteps: 200 } });
    const other = engine.problem(net, law, { samples: N, dataSeed: "other" });
    const { read } = readerOf(other);
    const error = await refusal(() =>
      engine.problem(net, { N, read }).simulate({ ...options, resume: kept! }),
    );
    expect(error.message).toMatch(/checkpoint/);
  });

  test.each(["stop", "stopReplica"] as const)("diverge with %s as data in memory do", async (onDiverge) => {
    const wild = {
      ...options,
      theta: inMemory.init("glorot", { seed: 5, replicas: 3 }),
      replicas: 3,
      eta: [0.01, 1.5, 0.01],
      onDiverge,
      lowering: { lanes: "samples" },
    } as const;
    const [a, b] = [await streamed.simulate(wild), await inMemory.simulate(wild)];
    expect(b.status).toBe("diverged");
    expect(a.diverged).toEqual(b.diverged);
    expect(a.hash).toBe(b.hash);
  });

  test("a coupled loss goes with minibatches", async () => {
    const coupled = model({
      params: { W: [2, 3] },
      inputs: { x: [3], y: [2] },
      loss: ({ W, x, y }) => {
        const z = ops.matmul(W, x);
        return ops.sqnorm(ops.sub(ops.sub(z, ops.batchMean(z)), y));
      },
    });
    const given = engine.problem(coupled, law, { samples: N });
    const { read } = readerOf(given);
    const own = engine.problem(coupled, { N, read, bufferBytes: 1 });
    const W = given.init("glorot", { seed: 1 });
    const sgd = { scheme: "sgd", theta: W, eta: 0.01, batchSize: 70, steps: 20 } as const;
    expect((await own.simulate(sgd)).hash).toBe((await given.simulate(sgd)).hash);
    for (const make of [
      () => own.loss(W),
      () => own.simulate({ scheme: "gd", theta: W, eta: 0.1, steps: 1 }),
    ]) {
      const error = await refusal(make);
      expect(error.code).toBe("unsupported");
      expect(error.message).toMatch(/batch ops needs all samples/);
    }
  });
});

describe("what is read", () => {
  test("a walk over all samples reads each once, in ascending order", async () => {
    const { streamed, reader, inMemory } = both();
    await streamed.gradient(inMemory.init("glorot", { seed: 1 }));
    expect(reader.calls.reduce((n, c) => n + c.count, 0)).toBe(N);
    for (const [i, { start }] of reader.calls.entries())
      expect(start).toBe(i === 0 ? 0 : reader.calls[i - 1]!.start + reader.calls[i - 1]!.count);
  });

  test("what fits in the buffer is read once, whatever is done with it", async () => {
    const { streamed, reader, inMemory } = both(engine, { bufferBytes: 1e6 });
    const theta = inMemory.init("glorot", { seed: 1 });
    await streamed.loss(theta);
    await streamed.noiseTrace(theta);
    expect(reader.calls.reduce((n, c) => n + c.count, 0)).toBe(N);
    reader.calls.length = 0;
    await streamed.simulate({ scheme: "gd", theta, eta: 0.01, steps: 20 });
    expect(reader.calls.reduce((n, c) => n + c.count, 0)).toBe(N);
  });

  test("minibatches read at most twice what is drawn, in ascending order within a read of the buffer", async () => {
    const { streamed, reader, inMemory } = both(engine, { bufferBytes: 4096 });
    const theta = inMemory.init("glorot", { seed: 1 });
    const steps = 200;
    await streamed.simulate({
      scheme: "sgd",
      theta,
      eta: 0.01,
      steps,
      batchSize: 10,
      lowering: { chunk: steps },
    });
    // beside those of the steps, the draws of one update that a record might ask for
    const drawn = 10 * (steps + 1);
    const read = reader.calls.reduce((n, c) => n + c.count, 0);
    expect(read).toBeLessThanOrEqual(2 * drawn);
    // 4096 / (5 * 8 + 32) = 56 draws fit: so many times the buffer is filled at most, and each begins anew
    const restarts = reader.calls.filter((c, i) => i > 0 && c.start < reader.calls[i - 1]!.start).length;
    expect(restarts).toBeLessThanOrEqual(Math.ceil(drawn / 50));
  });
});

describe("the room that read may fill", () => {
  const theta = new Array(20).fill(0.1);

  test.each(["f64", "f32"] as const)(
    "has the right lengths and type in %s, and is used again",
    async (dtype) => {
      const given = engines[dtype].problem(net, law, { samples: N });
      const { data } = given;
      const buffers = new Set<ArrayBufferLike>();
      const read = (start: number, count: number, room: Room) => {
        expect(Object.keys(room)).toEqual(["x", "y"]);
        expect([room.x!.length, room.y!.length]).toEqual([3 * count, 2 * count]);
        expect(room.x).toBeInstanceOf(dtype === "f64" ? Float64Array : Float32Array);
        for (const [name, size] of [
          ["x", 3],
          ["y", 2],
        ] as const) {
          room[name]!.set(data[name]!.subarray(size * start, size * (start + count)));
          buffers.add(room[name]!.buffer);
        }
        return room;
      };
      const streamed = engines[dtype].problem(net, { N, read, bufferBytes: 4096 });
      expect(await streamed.gradient(theta)).toEqual(given.gradient(theta));
      expect(buffers.size).toBe(2);
      streamed.dispose();
      given.dispose();
    },
  );

  test("is another after a read that was abandoned, which may fill its own late", async () => {
    const rooms: Room[] = [];
    let hangs = true;
    const read = (_: number, __: number, room: Room): Room | Promise<Room> => {
      rooms.push(room);
      if (hangs) return new Promise(() => {});
      // the one before comes after all
      for (const column of Object.values(rooms[0]!)) column.fill(1e6);
      for (const column of Object.values(room)) column.fill(1);
      for (const column of Object.values(rooms[0]!)) column.fill(1e6);
      return room;
    };
    const streamed = engine.problem(net, { N: 10, read });
    const control = new AbortController();
    const waiting = streamed.loss(theta, { signal: control.signal });
    await new Promise((resolve) => setImmediate(resolve));
    control.abort(new Error("enough"));
    await expect(waiting).rejects.toThrow("enough");
    hangs = false;
    const ones = engine.problem(net, { x: new Array(30).fill(1), y: new Array(20).fill(1) });
    expect(await streamed.loss(theta)).toBe(ones.loss(theta));
  });

  test("is a new one where read sent its own away", async () => {
    const ones = engine.problem(net, { x: new Array(30).fill(1), y: new Array(20).fill(1) });
    const read = (_: number, count: number, room: Room) => {
      structuredClone(room.x, { transfer: [room.x!.buffer as ArrayBuffer] });
      return { x: new Float64Array(3 * count).fill(1), y: new Float64Array(2 * count).fill(1) };
    };
    const streamed = engine.problem(net, { N: 10, read, bufferBytes: 200 });
    expect(await streamed.loss(theta)).toBe(ones.loss(theta));
    expect(await streamed.gradient(theta)).toEqual(ones.gradient(theta));
  });
});

describe("a read that never waits", () => {
  test.each(["loss", "gradient", "noiseTrace"] as const)(
    "lets timers run during %s, and an abort ends it",
    async (what) => {
      const read = (_: number, __: number, room: Room) => ({ x: room.x!.fill(0.5), y: room.y!.fill(1) });
      // a hundred million samples take seconds: an abort that were not heard would outlast the test
      const streamed = engine.problem(net, { N: 1e8, read, bufferBytes: 1 << 20 });
      const control = new AbortController();
      setTimeout(() => control.abort(new Error("enough")), 30);
      const began = performance.now();
      await expect(streamed[what](new Array(20).fill(0.1), { signal: control.signal })).rejects.toThrow(
        "enough",
      );
      // of a process that has a tenth of a core
      expect(performance.now() - began).toBeLessThan(1000);
      streamed.dispose();
    },
  );
});

describe("refused", () => {
  const good = (start: number, count: number) => ({
    x: new Float64Array(3 * count).fill(start),
    y: new Float64Array(2 * count),
  });
  const theta = new Array(20).fill(0.1);
  const lossOf = (read: unknown, count: unknown = 10) =>
    refusal(() => engine.problem(net, { N: count, read } as Reader).loss(theta));

  test.each([0, -1, 1.5, Number.NaN, Infinity, "10", null, 2e9])("N = %s", async (count) => {
    const error = await lossOf(good, count);
    expect(error.code).toBe("range");
    expect(error.message).toMatch(/problem: data: N must be an integer in \[1, 1000000000\], got/);
  });

  test("other options, misspelt ones and those of samplers", async () => {
    const misspelt = { N: 3, read: good, buffer: 1 } as Reader;
    expect((await refusal(() => engine.problem(net, misspelt))).message).toMatch(
      /N, read, bufferBytes, got "buffer"/,
    );
    const error = await refusal(() => engine.problem(net, { N: 3, read: good }, { samples: 2 } as never));
    expect(error.message).toBe(
      "problem: samples and dataSeed go with a sampler, got data that a function reads.",
    );
    const size = await refusal(() => engine.problem(net, { N: 3, read: good, bufferBytes: 0 }));
    expect(size.message).toMatch(/bufferBytes must be a finite number in \[1, 2147483648\], got 0/);
  });

  test.each<[string, unknown, string, RegExp]>([
    [
      "nothing",
      () => undefined,
      "shape",
      /data\.read\(0, 10\): must return arrays \{ x, y \}, or a promise of them, got undefined/,
    ],
    ["a list", () => [1], "shape", /got \[1\]/],
    [
      "no y",
      () => ({ x: new Array(30).fill(0) }),
      "name",
      /must return input y, 10 samples of shape \[2\], got nothing/,
    ],
    ["another input", () => ({ ...good(0, 10), z: [] }), "name", /the inputs of the model are x, y, got "z"/],
    [
      "too few",
      () => ({ ...good(0, 10), x: [1, 2, 3] }),
      "shape",
      /read\(0, 10\)\.x: expected 30 numbers, shape \[10, 3\], got 3/,
    ],
    [
      "too few, typed",
      () => ({ ...good(0, 10), x: new Float32Array(29) }),
      "shape",
      /expected 30 numbers, shape \[10, 3\], got 29/,
    ],
    ["text", () => ({ ...good(0, 10), x: "abc" }), "shape", /expected 30 numbers/],
    [
      "NaN",
      () => ({ ...good(0, 10), y: new Float64Array(20).fill(1).fill(Number.NaN, 8, 9) }),
      "nonfinite",
      /data\.read: y: values must be finite in f64, got NaN in sample 4/,
    ],
    [
      "NaN, untyped",
      () => ({ ...good(0, 10), y: new Array(20).fill(Number.NaN) }),
      "nonfinite",
      /values must be finite, got NaN at position 0/,
    ],
    ["by a promise, nothing", async () => null, "shape", /got null/],
  ])("a read that returns %s", async (_, read, code, message) => {
    const error = await lossOf(read);
    expect(error.code).toBe(code);
    expect(error.message).toMatch(message);
  });

  test("options that do not go with a measurement", async () => {
    const streamed = engine.problem(net, { N: 10, read: good });
    const messages = await Promise.all(
      [
        () => streamed.hessianVector(theta, theta, null as never),
        () => streamed.hessianVector(theta, theta, { foo: 1 } as never),
        () => streamed.noiseMoments(theta, "U", "W", { foo: 1 } as never),
        () => streamed.noiseTrace(theta, { method: "streamed", centred: false }),
      ].map(async (call) => (await refusal(call)).message),
    );
    expect(messages[0]).toMatch(/options \{ count\?, signal\? \}, got null/);
    expect(messages[1]).toMatch(/count, signal.*got "foo"/);
    expect(messages[2]).toMatch(/signal, transposeW, method.*got "foo"/);
    expect(messages[3]).toMatch(/a method goes with the centred noise/);
  });

  test("in f32, what is infinite there", async () => {
    const big = () => ({ ...good(0, 10), x: new Float64Array(30).fill(1e39) });
    const error = await refusal(() => engines.f32.problem(net, { N: 10, read: big }).loss(theta));
    expect(error.message).toMatch(/values must be finite in f32, got 1e\+39 in sample 0/);
  });

  test("what read throws reaches the caller as it is, and the next call begins anew", async () => {
    const own = new RangeError("the disk is gone");
    let broken = true;
    for (const reject of [true, false]) {
      broken = true;
      const read = (start: number, count: number) => {
        if (!broken || start < 64) return good(start, count);
        if (reject) return Promise.reject(own);
        throw own;
      };
      const streamed = engine.problem(net, { N: 500, read, bufferBytes: 1 });
      await expect(streamed.loss(theta)).rejects.toBe(own);
      await expect(streamed.simulate({ scheme: "gd", theta, eta: 0.1, steps: 3 })).rejects.toBe(own);
      broken = false;
      const arrays = good(0, 500);
      for (let n = 0; n < 500; n++) arrays.x.fill(64 * Math.floor(n / 64), 3 * n, 3 * n + 3);
      expect(await streamed.loss(theta)).toBe(engine.problem(net, arrays).loss(theta));
      streamed.dispose();
    }
  });

  test("what needs data that can be written down, or all of them at hand", async () => {
    const streamed = engine.problem(net, { N: 10, read: good });
    const options = { scheme: "sgd", theta, eta: 0.1, batchSize: 2, steps: 1 } as const;
    const described = await refusal(() => recordRun(streamed as never, options, { dir: "never" }));
    expect(described.message).toBe(
      "data: data in memory, or a law that makes them, got data that a function reads. Keep a run by its checkpoints, which hold a hash of the data.",
    );
    for (const more of [
      { profile: true },
      { probes: { every: 1, flow: true }, record: { every: 1, charges: { C: A } } },
      { dataSeed: ["a", "b"], replicas: 2 },
    ]) {
      const error = await refusal(() => streamed.simulate({ ...options, ...more } as never));
      expect(error.code).toBe("unsupported");
      expect(error.message).toMatch(/data in memory, got data that a function reads\. \w+/);
    }
    expect((await refusal(() => streamed.data)).message).toMatch(/data that a function reads/);
    expect((await refusal(() => streamed.loss(theta, { samples: 3 } as never))).message).toMatch(
      /options are signal/,
    );
  });
});

describe("stopping", () => {
  const slow = (gate: Promise<unknown>) => async (_: number, count: number) => {
    await gate;
    return { x: new Float64Array(3 * count), y: new Float64Array(2 * count) };
  };
  const theta = new Array(20).fill(0.1);

  test("an abort ends a measurement that waits for a read, and the next one is right", async () => {
    const control = new AbortController();
    let hangs = true;
    const arrays = { x: new Float64Array(3), y: Float64Array.of(1, 2) };
    const read = () => (hangs ? new Promise<never>(() => {}) : arrays);
    const streamed = engine.problem(net, { N: 1, read });
    const waiting = streamed.gradient(theta, { signal: control.signal });
    setTimeout(() => control.abort(new Error("enough")), 5);
    await expect(waiting).rejects.toThrow("enough");
    await expect(streamed.loss(theta, { signal: control.signal })).rejects.toThrow("enough");
    hangs = false;
    expect(await streamed.loss(theta)).toBe(5);
  });

  test("an abort ends a run that waits for a read, with what it has", async () => {
    const control = new AbortController();
    const never = new Promise<never>(() => {});
    let reads = 0;
    const read = (_: number, count: number) =>
      ++reads > 3 ? never : { x: new Float64Array(3 * count), y: new Float64Array(2 * count) };
    const streamed = engine.problem(net, { N: 1000, read, bufferBytes: 1 });
    const before = engine.bytesInUse;
    const run = streamed.simulate({
      scheme: "gd",
      theta,
      eta: 0.1,
      steps: 9,
      signal: control.signal,
      record: { every: 1 },
    });
    setTimeout(() => control.abort(new Error("enough")), 5);
    const error = await run.then(
      () => expect.fail("not aborted"),
      (e: Error & { recorded: { status: string; steps: number } }) => e,
    );
    expect(error.message).toBe("enough");
    expect(error.recorded.status).toBe("aborted");
    expect(error.recorded.steps).toBe(0);
    expect(engine.bytesInUse).toBe(before);
  });

  test("dispose() lets what is under way finish and gives everything back", async () => {
    const before = engine.bytesInUse;
    let open = (_?: unknown): void => {};
    const gate = new Promise((resolve) => {
      open = resolve;
    });
    const streamed = engine.problem(net, { N: 100, read: slow(gate), bufferBytes: 1 });
    const loss = streamed.loss(theta);
    const run = streamed.simulate({ scheme: "sgd", theta, eta: 0.1, batchSize: 4, steps: 3 });
    streamed.dispose();
    open();
    expect(await loss).toBe(0);
    expect((await run).status).toBe("done");
    expect(engine.bytesInUse).toBe(before);
    expect((await refusal(() => streamed.loss(theta))).message).toMatch(/problem was disposed of/);
  });
});

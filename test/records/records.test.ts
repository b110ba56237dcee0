/**
 * A run's folder: what is read back has the bits of the run, whatever is recorded; it goes on, is replayed and exported, and
 * refuses what is not its own.
 */
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { parquetMetadata, parquetReadObjects } from "hyparquet";
import { afterAll, afterEach, beforeEach, describe, expect, test } from "vitest";
import { Run, type RunSeries } from "../../src/dynamics/result.ts";
import {
  createEngine,
  type Model,
  model,
  momentMatched,
  NoetherflowError,
  ops,
  type Problem,
  sampler,
  symmetry,
} from "../../src/index.ts";
import {
  decodeNpy,
  decodeNpz,
  exportRun,
  readRun,
  recordRun,
  replayRun,
  resumeRun,
  saveRun,
  writeVerdicts,
} from "../../src/records/records.ts";
import { readParquet, writeParquet } from "../../src/records/table.ts";
import { hasRelaxedSimd } from "../../src/wasm/module.ts";

type Options = Parameters<Problem["simulate"]>[0];

const engine = await createEngine();
afterAll(() => engine.dispose());

let folder: string;
let dir: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "noetherflow-records-"));
  dir = join(folder, "run");
});
afterEach(() => rmSync(folder, { recursive: true }));

const linear = (): Model =>
  model({
    params: { U: [2, 3], W: [3, 2] },
    inputs: { x: [2], y: [2] },
    constants: {
      M: [
        [1, -0],
        [0.5, 2],
      ],
    },
    loss: ({ U, W, M, x, y }) => ops.sqnorm(ops.sub(ops.matmul(M!, ops.matmul(U!, ops.matmul(W!, x!))), y!)),
  });
const wave = (n: number, a: number) => Float64Array.from({ length: n }, (_, i) => ((i * a) % 17) / 17 - 0.5);
const data = { x: wave(80, 5), y: wave(80, 7) };
const teacher = () =>
  sampler({
    noise: { x: { kind: "normal", shape: [2] }, e: { kind: "normal", shape: [2] } },
    outputs: ({ x, e }) => ({ x: x!, y: ops.add(x!, ops.scale(e!, 0.5)) }),
  });

function setting(options: Partial<Options> = {}, net = linear()): { problem: Problem; options: Options } {
  const problem = engine.problem(net, data);
  return {
    problem,
    options: {
      scheme: "sgd",
      theta: problem.init("glorot", { seed: "start", replicas: 2 }),
      replicas: 2,
      eta: [0.01, 0.02],
      batchSize: 3,
      steps: 400,
      seed: "records",
      record: {
        every: 20,
        loss: "full",
        blockNorms: true,
        charges: { C: symmetry.rescaling("U", "W") },
        matrixCharges: { Q: ["U", "W"] },
        work: true,
        values: { tanhU: ops.tanh(net.leaf("U")) },
        average: { from: 100 },
      },
      ...options,
    } as Options,
  };
}

/** What a promise rejects with. */
async function refusal(promise: Promise<unknown>): Promise<NoetherflowError> {
  try {
    await promise;
  } catch (error) {
    expect(error).toBeInstanceOf(NoetherflowError);
    return error as NoetherflowError;
  }
  throw new Error("expected a refusal");
}

/** Changes run.json. */
function edit(change: (json: Record<string, unknown>) => void): void {
  const path = join(dir, "run.json");
  const json = JSON.parse(readFileSync(path, "utf8"));
  change(json);
  writeFileSync(path, JSON.stringify(json));
}

const hex = (a: Float64Array | Float32Array) =>
  Buffer.from(a.buffer, a.byteOffset, a.byteLength).toString("hex");

describe("a record", () => {
  test("holds the run, bit for bit, and what made it", async () => {
    const { problem, options } = setting();
    const plain = await problem.simulate(options);
    const run = await recordRun(problem, options, {
      dir,
      verdicts: (r) => [{ steps: r.steps, agrees: true }],
    });
    expect(run.hash).toBe(plain.hash);
    expect(readdirSync(dir).sort()).toEqual(["run.json", "series.parquet", "theta.npy"]);
    const back = await readRun(dir);
    expect(back.run!.toJSON()).toEqual(plain.toJSON());
    expect(hex(back.run!.theta)).toBe(hex(plain.theta));
    expect(back.run!.averages).toEqual(plain.averages);
    expect(back).toMatchObject({
      status: "done",
      hash: plain.hash,
      seed: "records",
      engine: JSON.parse(readFileSync("package.json", "utf8")).version,
      streamVersion: 1,
      dtype: "f64",
      variant: "simd",
      wasmSha256: engine.wasmSha256,
      verdicts: [{ steps: 400, agrees: true }],
    });
    expect(back.sessions).toHaveLength(1);
    expect(back.sessions[0]!.node).toBe(process.versions.node);
    expect(Date.parse(back.ended!)).toBeGreaterThanOrEqual(Date.parse(back.sessions[0]!.began));
    await writeVerdicts(dir, { agrees: false, gap: Number.NaN });
    expect((await readRun(dir)).verdicts).toEqual({ agrees: false, gap: Number.NaN });
  });

  test("can be made afterwards, and is replayed like any other", async () => {
    const { problem, options } = setting();
    const run = await problem.simulate(options);
    await saveRun(dir, problem.describe(options), run, { verdicts: { agrees: true } });
    const back = await readRun(dir);
    expect([back.run!.hash, back.status, back.verdicts]).toEqual([run.hash, "done", { agrees: true }]);
    expect((await replayRun(dir)).same).toBe(true);
    expect((await refusal(saveRun(dir, problem.describe(options), run))).message).toMatch(
      /^saveRun: a folder without a run, got ".*" with run\.json/,
    );
    await saveRun(dir, problem.describe(options), run, { overwrite: true });
    expect(readdirSync(dir).sort()).toEqual(["run.json", "series.parquet", "theta.npy"]);
  });

  test("has a Parquet file that others read: a row per record and replica, named columns", async () => {
    const { problem, options } = setting({ firstReplica: 5 });
    const run = await recordRun(problem, options, { dir });
    const file = readFileSync(join(dir, "series.parquet"));
    const buffer = file.buffer.slice(file.byteOffset, file.byteOffset + file.byteLength);
    const rows = await parquetReadObjects({ file: buffer });
    expect(rows).toHaveLength(21 * 2);
    const lines = run.toCSV().trimEnd().split("\n");
    expect(Object.keys(rows[0]!)).toEqual(lines[0]!.split(","));
    for (const [i, row] of rows.entries()) expect(Object.values(row).join(",")).toBe(lines[i + 1]);
    expect(parquetMetadata(buffer).created_by).toBe("noetherflow");
  });

  test("comes from every kind of data, options and dtype, and is replayed to the same bits", async () => {
    const net = linear();
    const f32 = await createEngine({ dtype: "f32" });
    const set = engine.problem(net, teacher(), { samples: 30, dataSeed: 7 });
    const theta = {
      U: wave(6, 3),
      W: [
        [1, 2],
        [-0, 0.5],
        [0.25, -1],
      ],
    };
    const rates = Float64Array.from({ length: 300 }, (_, k) => 0.02 / (1 + k));
    const common = { scheme: "sgd", theta, eta: 0.01, batchSize: 4, steps: 300, seed: "kinds" } as const;
    const cases: [string, Problem, Options][] = [
      ["fresh samples", engine.problem(net, teacher()), { ...common, record: { every: 10, loss: "batch" } }],
      [
        "a set of a sampler, several data and sizes",
        set,
        {
          ...common,
          replicas: 3,
          batchSize: [2, 4, 2],
          dataSeed: ["a", "b", "a"],
          record: { every: 10, loss: "full" },
        },
      ],
      [
        "matched moments",
        engine.problem(net, momentMatched(teacher())),
        { scheme: "gd", theta, eta: 0.01, steps: 300 },
      ],
      ["nothing recorded", set, common],
      [
        "a table of rates, momentum and decay by block",
        set,
        {
          ...common,
          schedule: rates,
          momentum: 0.9,
          weightDecay: { W: 0.01 },
          record: { every: 100, blockNorms: true },
        },
      ],
      [
        "explicit batches",
        set,
        { ...common, batches: Int32Array.from({ length: 1200 }, (_, i) => (i * 7) % 30) },
      ],
      [
        "a value of 300 entries",
        set,
        {
          ...common,
          record: {
            every: 50,
            values: {
              big: ops.broadcastTo(net.leaf("U"), [50, 2, 3].slice(1)),
              wide: ops.outer(
                ops.reshape(net.leaf("U"), [6]),
                ops.concat(Array.from({ length: 10 }, () => ops.reshape(net.leaf("W"), [6]))),
              ),
            },
          },
        },
      ],
      ["f32", f32.problem(net, data), { ...common, record: { every: 10, loss: "full" } }],
      [
        "a run that diverges",
        set,
        {
          ...common,
          eta: [0.01, 50],
          replicas: 2,
          onDiverge: "stopReplica",
          record: { every: 10, loss: "full" },
        },
      ],
    ];
    for (const [name, problem, options] of cases) {
      const to = join(folder, name);
      const run = await recordRun(problem, options, { dir: to });
      const back = (await readRun(to)).run!;
      expect(back.hash, name).toBe(run.hash);
      expect(back.theta.constructor, name).toBe(run.theta.constructor);
      expect(back.diverged, name).toEqual(run.diverged);
      expect(back.settings, name).toEqual(run.settings);
      const replay = await replayRun(to);
      expect(replay.differences, name).toEqual([]);
      expect(replay.same, name).toBe(true);
    }
    expect(existsSync(join(folder, "a value of 300 entries", "arrays.npz"))).toBe(true);
    expect(existsSync(join(folder, "explicit batches", "data.npz"))).toBe(true);
    f32.dispose();
  });

  test("of any series and names comes back bit for bit: NaN, -0, Infinity, none at all, several replicas", async () => {
    const name = fc.oneof(
      fc.string({ unit: "grapheme", maxLength: 8 }),
      fc.constantFrom("C[0]", "C", "a.b", '",\n', "constructor", "toString", "k", "__proto__ ", "é"),
    );
    const shape = fc.record({
      records: fc.integer({ min: 0, max: 5 }),
      replicas: fc.integer({ min: 1, max: 3 }),
      names: fc.uniqueArray(fc.tuple(name, fc.integer({ min: 1, max: 4 })), {
        selector: ([n]) => n,
        maxLength: 5,
      }),
      seed: fc.nat(),
    });
    const special = [Number.NaN, -0, 0, Infinity, -Infinity, 5e-324, 1, 1, 1];
    await fc.assert(
      fc.asyncProperty(shape, async ({ records, replicas, names, seed }) => {
        let at = seed;
        const number = () => {
          at = (at * 1_103_515_245 + 12_345) % 2_147_483_648;
          return at % 3 === 0 ? special[at % special.length]! : at / 1000;
        };
        const made = (entries: number) => Float64Array.from({ length: records * replicas * entries }, number);
        const group = () => Object.fromEntries(names.map(([n, entries]) => [n, made(entries)]));
        const series: RunSeries = {
          k: Float64Array.from({ length: records }, (_, i) => 10 * i),
          t: made(1),
          loss: made(1),
          blockNorms: {},
          charges: Object.fromEntries(names.map(([n]) => [n, made(1)])),
          modifiedCharges: {},
          matrixCharges: group(),
          work: {},
          values: group(),
        };
        const run = new Run({
          theta: Float64Array.from({ length: replicas * 2 }, number),
          replicas,
          P: 2,
          steps: 10 * records,
          status: "done",
          diverged: [],
          series,
          averages: null,
          probes: null,
          settings: { firstReplica: 3 } as unknown as Run["settings"],
        });
        const path = join(folder, "any.parquet");
        await writeParquet(path, run);
        const bytes = readFileSync(path);
        const { schema } = parquetMetadata(
          bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength),
        );
        const titles = schema.slice(1).map((s) => s.name);
        expect(new Set(titles).size).toBe(titles.length);
        const columns = await readParquet(path, titles, records * replicas);
        const expected = [
          Float64Array.from({ length: records * replicas }, (_, i) => 10 * Math.floor(i / replicas)),
          series.t,
          Float64Array.from({ length: records * replicas }, (_, i) => 3 + (i % replicas)),
          // without a record nobody can say how many entries there would be
          ...(records === 0 ? [] : [series.loss!, ...Object.values(series.charges)]),
          ...[series.matrixCharges, series.values].flatMap((record) =>
            names.flatMap(([n, entries]) =>
              Array.from({ length: records === 0 ? 0 : entries }, (_, e) =>
                Float64Array.from({ length: records * replicas }, (_, i) => record[n]![i * entries + e]!),
              ),
            ),
          ),
        ];
        // integer-like names come first in an object: compare as sets of columns, order apart
        const sorted = (all: Float64Array[]) => all.map(hex).sort();
        expect(sorted(columns)).toEqual(sorted(expected));
        await exportRun(run, "npz", join(folder, "any.npz"), { overwrite: true });
        const arrays = decodeNpz(readFileSync(join(folder, "any.npz")));
        for (const [n, values] of Object.entries(series.values))
          expect(hex(arrays[`value.${n}`]!.values as Float64Array)).toBe(hex(values));
        expect(arrays["theta"]!.shape).toEqual([replicas, 2]);
      }),
      { numRuns: 60 },
    );
  });
});

describe("a folder that holds a run", () => {
  test("is not written over unless asked, and then keeps the old one until the new one is finished", async () => {
    const { problem, options } = setting();
    const first = await recordRun(problem, options, { dir });
    writeFileSync(join(dir, "notes.txt"), "mine");
    const error = await refusal(recordRun(problem, options, { dir }));
    expect(error.message).toBe(
      `recordRun: a folder without a run, got ${JSON.stringify(dir.length > 60 ? `${dir.slice(0, 57)}...` : dir)} with run.json, series.parquet, theta.npy. resumeRun goes on with it; overwrite: true begins anew.`,
    );
    // bad options are refused before anything is moved
    await refusal(recordRun(problem, { ...options, batchSize: 0 }, { dir, overwrite: true }));
    expect((await readRun(dir)).hash).toBe(first.hash);
    // an abort leaves the old record beside the new one, and so does a second attempt
    for (const n of [1, 2]) {
      const abort = new AbortController();
      const long = { ...options, steps: 100_000_000, record: { every: 1_000_000, loss: "full" } } as const;
      const ended = recordRun(problem, long, {
        dir,
        overwrite: true,
        signal: abort.signal,
        onProgress: () => abort.abort("enough"),
      });
      await expect(ended).rejects.toBe("enough");
      expect(existsSync(join(dir, "checkpoint.bin"))).toBe(true);
      expect((await readRun(dir)).status).toBe("unfinished");
      expect((await readRun(join(dir, "replaced-1"))).hash).toBe(first.hash);
      expect(existsSync(join(dir, `replaced-${n}`))).toBe(true);
    }
    const second = await recordRun(problem, { ...options, seed: "other" }, { dir, overwrite: true });
    expect(second.hash).not.toBe(first.hash);
    expect(readdirSync(dir).sort()).toEqual(["notes.txt", "run.json", "series.parquet", "theta.npy"]);
    expect((await readRun(dir)).hash).toBe(second.hash);
  });

  test("of two that begin at once only one does", async () => {
    const { problem, options } = setting();
    const both = await Promise.allSettled([
      recordRun(problem, options, { dir }),
      recordRun(problem, options, { dir }),
    ]);
    expect(both.map((b) => b.status).sort()).toEqual(["fulfilled", "rejected"]);
    expect((await readRun(dir)).status).toBe("done");
  });

  test("with other things in it takes a run and leaves them alone", async () => {
    mkdirSync(dir);
    writeFileSync(join(dir, "notes.txt"), "mine");
    const { problem, options } = setting();
    await recordRun(problem, options, { dir });
    expect(readFileSync(join(dir, "notes.txt"), "utf8")).toBe("mine");
  });
});

describe("a run that was interrupted", () => {
  test("goes on from its checkpoint to the same bits, in parts and with probes too", async () => {
    const { problem, options } = setting({ batchSize: [2, 4], steps: 60_000 });
    const probes = { every: 20_000, flow: true, measures: { norm: (theta: ArrayLike<number>) => theta[0]! } };
    const whole = await problem.simulate({ ...options, probes });
    let [aborts, reports] = [0, 0];
    let run: Run | null = null;
    for (; run === null && aborts < 100; aborts++) {
      const abort = new AbortController();
      const until = ++reports;
      let seen = 0;
      const control = {
        signal: abort.signal,
        probes,
        checkpointEvery: 0,
        onProgress: () => {
          if (++seen === until) abort.abort(new Error("interrupted"));
        },
      };
      const going = aborts === 0 ? recordRun(problem, options, { dir, ...control }) : resumeRun(dir, control);
      run = await going.catch((error: Error) => {
        expect(error.message).toBe("interrupted");
        return null;
      });
    }
    expect(aborts).toBeGreaterThan(2);
    expect(run!.hash).toBe(whole.hash);
    expect(run!.probes).toEqual(whole.probes);
    const back = await readRun(dir);
    expect(back.run!.probes).toEqual(whole.probes);
    expect(back.sessions).toHaveLength(aborts);
    expect(existsSync(join(dir, "checkpoint.bin"))).toBe(false);
    // a finished one is read back; a replay compares what needs no function, and probes where these are given
    expect((await resumeRun(dir)).hash).toBe(whole.hash);
    expect(await replayRun(dir)).toMatchObject({ same: true, skipped: ["probes"] });
    expect(await replayRun(dir, { probes })).toMatchObject({ same: true, skipped: [] });
    const other = { ...probes, measures: { norm: () => 0 } };
    expect((await replayRun(dir, { probes: other })).differences.map((d) => d.what)).toEqual([
      "probe.values.norm",
    ]);
    const fewer = await refusal(replayRun(dir, { probes: { every: 1, measures: {}, flow: true } }));
    expect(fewer.message).toBe(
      "replayRun: the probes of the record, the flow, norm every 20000 steps, got the flow every 1 steps. Functions are not part of a record: pass the same ones as probes.",
    );
  });

  test("starts anew where there is no checkpoint yet, and where only data.npz was written begins again", async () => {
    const net = linear();
    const many = engine.problem(net, { x: wave(2000, 3), y: wave(2000, 5) });
    const { options } = setting({}, net);
    const whole = await recordRun(many, options, { dir });
    edit((json) => {
      Object.assign(json, { status: "unfinished", outcome: null, hash: null, hashes: [] });
    });
    expect(existsSync(join(dir, "data.npz"))).toBe(true);
    expect((await readRun(dir)).run).toBeNull();
    expect((await refusal(replayRun(dir))).message).toBe(
      "replayRun: a finished record, got an unfinished one. Finish it with resumeRun.",
    );
    expect((await resumeRun(dir, { engine })).hash).toBe(whole.hash);
    for (const name of ["run.json", "series.parquet", "theta.npy"]) rmSync(join(dir, name));
    expect((await recordRun(many, options, { dir })).hash).toBe(whole.hash);
    for (const name of ["run.json", "series.parquet", "theta.npy"]) rmSync(join(dir, name));
    writeFileSync(join(dir, "data.npz"), "somebody else's");
    expect((await refusal(recordRun(many, options, { dir }))).message).toContain("with data.npz.");
  });

  test("that throws when it diverges is recorded all the same", async () => {
    const { problem, options } = setting({ eta: 50, onDiverge: "throw" });
    const error = await refusal(recordRun(problem, options, { dir }));
    expect(error.code).toBe("nonfinite");
    const back = await readRun(dir);
    expect(back.status).toBe("diverged");
    expect(back.run!.hash).toBe((error.recorded as Run).hash);
    expect((await replayRun(dir)).same).toBe(true);
  });

  test("whose record cannot be written keeps its checkpoint, and the error has the run", async () => {
    const { problem, options } = setting();
    const whole = await problem.simulate(options);
    const failing = recordRun(problem, options, {
      dir,
      checkpointEvery: 0,
      verdicts: () => {
        throw new Error("no verdict");
      },
    });
    await expect(failing).rejects.toMatchObject({ message: "no verdict", recorded: { hash: whole.hash } });
    expect((await readRun(dir)).status).toBe("unfinished");
    expect((await resumeRun(dir)).hash).toBe(whole.hash);
  });
});

describe("a replay", () => {
  test("says what differs: which series, how many numbers, where first", async () => {
    const { problem, options } = setting();
    const run = await recordRun(problem, options, { dir });
    const changed = new Run({
      ...run,
      theta: run.theta.map((x, i) => (i === 13 ? x + 1e-16 + 1 : x)),
      series: {
        ...run.series,
        charges: { C: run.series.charges["C"]!.map((x, i) => (i >= 7 ? -x : x)) },
      },
    });
    await writeParquet(join(dir, "series.parquet"), changed);
    const { same, differences } = await replayRun(dir, { engine });
    expect(same).toBe(false);
    expect(differences).toHaveLength(1);
    const C = run.series.charges["C"]!;
    expect(differences[0]).toMatchObject({
      what: "charge.C",
      count: 35,
      k: 60,
      replica: 1,
      recorded: -C[7]!,
      replayed: C[7]!,
    });
    expect(differences[0]!.text).toBe(
      `charge.C: 35 of 42 numbers differ, first at k 60, replica 1: recorded ${-C[7]!}, replayed ${C[7]!}`,
    );
    // and reading it says that it was changed
    const error = await refusal(readRun(dir));
    expect(error.code).toBe("shape");
    expect(error.message).toMatch(
      /theta and series with the hash ".*", got ".*"\. A file was changed after the run; replayRun says where\.$/,
    );
    // another seed in the description: everything differs, hash first
    edit((json) => {
      ((json["spec"] as Record<string, Record<string, unknown>>)["options"] as Record<string, unknown>)[
        "seed"
      ] = "other";
    });
    const found = (await replayRun(dir, { engine })).differences.map((d) => d.what);
    expect(found.slice(0, 3)).toEqual(["hash", "theta", "loss"]);
  });
});

describe("refused by a sentence:", () => {
  const cases: [string, (json: Record<string, unknown>) => void, string, RegExp][] = [
    [
      "another schema",
      (j) => (j["schema"] = "noetherflow-record/9"),
      "version",
      /run\.json: a record of schema "noetherflow-record\/1", got "noetherflow-record\/9"\. Read it with the version that wrote it\.$/,
    ],
    [
      "another stream",
      (j) => (j["streamVersion"] = 2),
      "version",
      /^replayRun: a record of the same version of the random stream, 1, got 2\. Use the version/,
    ],
    [
      "another Wasm core",
      (j) => (j["wasmSha256"] = "00"),
      "version",
      /^replayRun: a record of the same Wasm core, "[0-9a-f]+\.*", got "00"\. Use/,
    ],
    ["a core nobody knows", (j) => (j["wasmSha256"] = null), "version", /got null/],
    [
      "another dtype",
      (j) => (j["dtype"] = "f16"),
      "name",
      /createEngine: dtype must be one of "f64", "f32", got "f16"|f16 numbers/,
    ],
    [
      "another variant",
      (j) => (j["variant"] = "fma"),
      // Node 20 has no such engine; later ones have, of another Wasm
      hasRelaxedSimd() ? "version" : "unsupported",
      /createEngine: relaxed SIMD for the variant "fma"|Wasm/,
    ],
    [
      "a description of another kind",
      (j) => ((j["spec"] as Record<string, unknown>)["variant"] = "sse"),
      "name",
      /variant/,
    ],
    [
      "a status of its own",
      (j) => (j["status"] = "perfect"),
      "name",
      /status must be one of "unfinished", "done", "diverged", got "perfect"/,
    ],
    [
      "more replicas than thetas",
      (j) => ((j["outcome"] as Record<string, unknown>)["replicas"] = 3),
      "shape",
      /63 rows, got 42/,
    ],
    [
      "a billion records",
      (j) => ((j["outcome"] as Record<string, unknown>)["records"] = 1e9),
      "range",
      /outcome\.records must be an integer in/,
    ],
    ["no outcome", (j) => (j["outcome"] = null), "shape", /expected the outcome of a run, got null/],
    ["a folder elsewhere to remove", (j) => (j["replaces"] = ["../../home"]), "shape", /lists of sessions/],
  ];
  test("records of another kind", async () => {
    const { problem, options } = setting();
    await recordRun(problem, options, { dir });
    const whole = readFileSync(join(dir, "run.json"));
    for (const [name, change, code, message] of cases) {
      writeFileSync(join(dir, "run.json"), whole);
      edit((json) => void change(json));
      const error = await refusal(replayRun(dir));
      expect(error.message, name).toMatch(message);
      expect(error.code, name).toBe(code);
    }
    writeFileSync(join(dir, "run.json"), whole.subarray(0, 500));
    expect((await refusal(readRun(dir))).message).toMatch(
      /run\.json: the record of a run, got text that is no JSON\.$/,
    );
    expect((await refusal(readRun(folder))).message).toMatch(
      /: the folder of a run, got no run\.json in it\.$/,
    );
    const f32 = await createEngine({ dtype: "f32" });
    writeFileSync(join(dir, "run.json"), whole);
    expect((await refusal(replayRun(dir, { engine: f32 }))).message).toMatch(
      /^replayRun: a record of the same dtype, "f32", got "f64"\./,
    );
    f32.dispose();
  });

  test("damaged files", async () => {
    const { problem, options } = setting({ record: { every: 1, loss: "full" } });
    const many = engine.problem(linear(), { x: wave(2000, 3), y: wave(2000, 5) });
    await recordRun(many, options, { dir });
    const damage = async (name: string, change: (path: string) => void) => {
      const copy = join(folder, `copy of ${name}`);
      cpSync(dir, copy, { recursive: true });
      change(join(copy, name));
      const error = await refusal(readRun(copy));
      expect(["shape", "memory"], error.message).toContain(error.code);
      rmSync(copy, { recursive: true });
      return error.message;
    };
    const flip = (path: string) => {
      const bytes = readFileSync(path);
      bytes[bytes.length >> 1]! ^= 1;
      writeFileSync(path, bytes);
    };
    expect(await damage("data.npz", flip)).toMatch(/a file with the sum ".*", got ".*"\. It was changed/);
    expect(await damage("data.npz", (p) => rmSync(p))).toMatch(
      /the arrays that run\.json refers to, got no file/,
    );
    expect(await damage("theta.npy", flip)).toMatch(/theta and series with the hash/);
    expect(await damage("theta.npy", (p) => truncateSync(p, 100))).toMatch(/theta\.npy: a whole \.npy file/);
    expect(await damage("series.parquet", flip)).toMatch(/series\.parquet: |theta and series/);
    expect(await damage("series.parquet", (p) => truncateSync(p, 1000))).toMatch(
      /series\.parquet: a whole Parquet file/,
    );
    problem.dispose();
  });

  test("options that make no sense", async () => {
    const { problem, options } = setting();
    const rows: [call: () => Promise<unknown>, string][] = [
      [
        () => recordRun(problem, options, {} as never),
        "recordRun: dir, the path of a folder, got undefined.",
      ],
      [
        () => recordRun(problem, options, { dir, overwite: true } as never),
        'recordRun: options are dir, overwrite, signal, onProgress, probes, checkpointEvery, verdicts, got "overwite". Did you mean "overwrite"?',
      ],
      [
        () => recordRun(problem, options, { dir, checkpointEvery: -1 }),
        "recordRun: checkpointEvery must be a finite number of at least 0, got -1.",
      ],
      [
        () => recordRun(problem, { ...options, checkpoint: { save: () => {} } }, { dir }),
        'recordRun: options without checkpoint and resume, got "checkpoint". checkpointEvery says how often.',
      ],
      [
        () => recordRun(problem, options, { dir, verdicts: [] as never }),
        "recordRun: verdicts must be a function of the run, got [].",
      ],
      [
        () => exportRun(join(folder, "none"), "csv" as const, join(folder, "x")),
        `${join(folder, "none")}: the folder of a run, got no run.json in it.`,
      ],
      [() => exportRun(3 as never, "csv", "x"), "exportRun: a run or the folder of one, got 3."],
      [
        () => exportRun(dir, "xlsx" as never, "x"),
        'exportRun: format must be one of "csv", "json", "npy", "npz", "parquet", got "xlsx".',
      ],
    ];
    for (const [call, message] of rows) expect((await refusal(call())).message).toBe(message);
    expect(existsSync(dir)).toBe(false);
  });
});

describe("an export", () => {
  test("is the run in five forms, from the folder or from the run", async () => {
    const { problem, options } = setting();
    const run = await recordRun(problem, options, { dir });
    const to = (name: string) => join(folder, name);
    for (const format of ["csv", "json", "npy", "npz", "parquet"] as const) {
      await exportRun(dir, format, to(`a.${format}`));
      await exportRun(run, format, to(`b.${format}`));
      if (format !== "parquet")
        expect(readFileSync(to(`a.${format}`))).toEqual(readFileSync(to(`b.${format}`)));
    }
    expect(readFileSync(to("a.csv"), "utf8")).toBe(run.toCSV());
    expect(JSON.parse(readFileSync(to("a.json"), "utf8"))).toEqual(JSON.parse(JSON.stringify(run)));
    const table = decodeNpy(readFileSync(to("a.npy")));
    const lines = run.toCSV().trimEnd().split("\n").slice(1);
    expect(table.shape).toEqual([42, lines[0]!.split(",").length]);
    expect(Array.from(table.values).join(",")).toBe(lines.join(","));
    const arrays = decodeNpz(readFileSync(to("a.npz")));
    expect(Object.fromEntries(Object.entries(arrays).map(([name, a]) => [name, a.shape]))).toEqual({
      theta: [2, 12],
      k: [21],
      t: [21, 2],
      loss: [21, 2],
      "norm.U": [21, 2],
      "norm.W": [21, 2],
      "charge.C": [21, 2],
      "matrixCharge.Q": [21, 2, 9],
      "work.C": [21, 2],
      "value.tanhU": [21, 2, 6],
    });
    const error = await refusal(exportRun(run, "csv", to("a.csv")));
    expect(error.message).toBe(
      `${to("a.csv")}: a file that is not there yet, got one that is. Pass overwrite: true.`,
    );
    await exportRun(run, "npy", to("a.csv"), { overwrite: true });
    expect(decodeNpy(readFileSync(to("a.csv"))).shape).toEqual(table.shape);
  });
});

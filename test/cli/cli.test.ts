/** The command as people type it: every command once, and mistakes, which end in one line and an exit code. */
import { spawn } from "node:child_process";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parquetWriteFile } from "hyparquet-writer";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { decodeSafetensors } from "../../src/cli/safetensors.ts";
import { encodeNpz, readRun } from "../../src/records/records.ts";
import { Workplace } from "../helpers/command.ts";

/** A process of its own transpiles the sources, and a loaded machine takes its time for that. */
const LIMIT = 60_000;
const place = new Workplace();
const { dir } = place;
afterAll(() => place.dispose());
const noetherflow = (...args: string[]) => place.call(args);

beforeAll(async () => {
  expect((await noetherflow("init")).code).toBe(0);
});

describe("commands", () => {
  test("init writes a starter, and not over files that are there", async () => {
    expect(readdirSync(dir).sort()).toEqual(expect.arrayContaining(["data.csv", "model.json", "train.mjs"]));
    const again = await noetherflow("init");
    expect(again.code).toBe(2);
    expect(again.err).toMatch(/^noetherflow: init: a folder without model\.json/);
  });

  test("symmetries finds the four neurons of the starter, as table, data and page", async () => {
    const { code, out } = await noetherflow(
      "symmetries",
      "model.json",
      "--data",
      "data.csv",
      "--json",
      "--html",
      "page.html",
    );
    expect(code).toBe(0);
    const found = JSON.parse(out) as {
      rows: { name: string; class: number }[];
      discovery: { count: number };
    };
    expect(found.discovery.count).toBe(4);
    expect(found.rows.map((r) => r.name)).toEqual([0, 1, 2, 3].map((j) => `neuron scaling ${j} of U, W`));
    expect(readFileSync(join(dir, "page.html"), "utf8")).toContain("neuron scaling 3 of U, W");
  });

  test("check says yes by 0 and no by 1", async () => {
    const yes = await noetherflow("check", "model.json", "--data", "data.csv", "--symmetry", "neuron:U,W,2");
    expect([yes.code, /exact/.test(yes.out)]).toEqual([0, true]);
    const no = await noetherflow("check", "model.json", "--data", "data.csv", "--symmetry", "scaling:W");
    expect([no.code, /none|approximate/.test(no.out)]).toEqual([1, true]);
  });

  test("equilibrium and measure give numbers for parameters from npz", async () => {
    const U = Float64Array.from([0.5, -1, 2, 0.25]);
    const W = Float64Array.from([1, 0, 0.5, -1, 0.2, 0.1, -2, 1]);
    writeFileSync(
      join(dir, "theta.npz"),
      encodeNpz({ W: { shape: [4, 2], values: W }, U: { shape: [1, 4], values: U } }),
    );
    const files = ["model.json", "--data", "data.csv", "--theta", "theta.npz"];
    const at = await noetherflow("equilibrium", ...files, "--symmetry", "neuron:U,W,0", "--json");
    const [found] = JSON.parse(at.out) as { charge: number; equilibrium: { status: string } }[];
    // (U_0^2 - |W_0|^2) / 2
    expect(found!.charge).toBeCloseTo((0.25 - 1) / 2, 12);
    expect(found!.equilibrium.status).toBe("finite");
    const measured = JSON.parse((await noetherflow("measure", ...files, "--json")).out) as Record<
      string,
      number
    >;
    expect(measured).toMatchObject({ N: 64, P: 12 });
    const rows = readFileSync(join(dir, "data.csv"), "utf8")
      .trim()
      .split("\n")
      .slice(1)
      .map((l) => l.split(",").map(Number));
    const loss = rows.reduce((sum, [a, b, y]) => {
      const f = [0, 1, 2, 3].reduce(
        (s, j) => s + U[j]! * Math.max(0, W[2 * j]! * a! + W[2 * j + 1]! * b!),
        0,
      );
      return sum + (f - y!) ** 2 / rows.length;
    }, 0);
    expect(measured["loss"]).toBeCloseTo(loss, 10);
  });

  test("train, replay and export: a record that is the same again", async () => {
    const options = [
      "--data",
      "data.csv",
      "--scheme",
      "sde",
      "--steps",
      "200",
      "--replicas",
      "3",
      "--symmetry",
      "neuron:U,W,1",
      "--out",
      "run",
    ];
    const run = await noetherflow("train", "model.json", ...options, "--json");
    expect(run.code).toBe(0);
    expect(JSON.parse(run.out)).toMatchObject({ status: "done", steps: 200 });
    const replay = await noetherflow("replay", "run");
    expect([replay.code, replay.out.startsWith("the same bits: ")]).toEqual([0, true]);
    expect((await noetherflow("export", "run", "--format", "csv", "--out", "run.csv")).code).toBe(0);
    expect(readFileSync(join(dir, "run.csv"), "utf8").split("\n")[0]).toContain("charge.neuron:U,W,1");
    const again = await noetherflow("train", "model.json", ...options);
    expect([again.code, /resumeRun goes on with it|overwrite/.test(again.err)]).toEqual([2, true]);
  });

  test("list, show and run of an experiment", async () => {
    expect((await noetherflow("list")).out.trim().split("\n")).toHaveLength(33);
    expect((await noetherflow("show", "e08")).out).toMatch(/^E08 /);
    const { code, out } = await noetherflow("run", "E08", "--quick", "--json");
    expect([0, 1]).toContain(code);
    expect(JSON.parse(out)).toMatchObject({ schema: "noetherflow-report/1" });
  });

  test("completion knows every command", async () => {
    const { out } = await noetherflow("completion", "bash");
    for (const name of ["symmetries", "reproduce", "replay"]) expect(out).toContain(`${name})`);
  });
});

describe("mistakes are one line and exit code 2", () => {
  test.each([
    ["an unknown command", ["nosuch"], /unknown command/],
    ["an unknown option", ["list", "--nosuch"], /unknown option/],
    ["no data", ["symmetries", "model.json"], /model\.json: data for the inputs x \[2\], y \[1\], got none/],
    ["no file", ["measure", "nosuch.json", "--data", "data.csv"], /nosuch\.json: expected a file, got none/],
    [
      "a column that is missing",
      ["measure", "model.json", "--data", "short.csv"],
      /short\.csv: a column "y" or "y\[0\]"/,
    ],
    [
      "a cell that is no number",
      ["measure", "model.json", "--data", "words.csv"],
      /words\.csv: line 2, column "y": a finite number, got "one"/,
    ],
    ["a number that is none", ["train", "model.json", "--eta", "fast"], /must be a number, got "fast"/],
    ["an unknown experiment", ["show", "E99"], /one of E01, E02/],
    ["a setting out of range", ["run", "E01", "--set", "eta=7"], /E01: eta must be/],
    [
      "a symmetry of no block",
      ["equilibrium", "model.json", "--data", "data.csv", "--symmetry", "rescaling:U,Q"],
      /the parameters are W, U/,
    ],
    ["a folder without a run", ["replay", "."], /run\.json|record/],
  ] as [string, string[], RegExp][])("%s", async (_, args, message) => {
    writeFileSync(join(dir, "short.csv"), "x0,x1\n1,2\n");
    writeFileSync(join(dir, "words.csv"), "x0,x1,y\n1,2,one\n");
    const { code, out, err } = await noetherflow(...args);
    expect(code).toBe(2);
    expect(out).toBe("");
    expect(err).toMatch(message);
    expect(err).not.toMatch(/\n\s+at /);
  });
});

describe("while it works", () => {
  const isBegun = (run: string) => existsSync(join(dir, run, "run.json"));
  const LONG = ["train", "model.json", "--data", "data.csv", "--steps", "3000000", "--every", "30000"];

  test("a terminal gets a bar, programs get lines of JSON, a short command says nothing", async () => {
    const args = [
      "train",
      "model.json",
      "--data",
      "data.csv",
      "--steps",
      "300000",
      "--overwrite",
      "--out",
      "bar",
    ];
    const bar = await place.call(args, { isTerminal: true });
    expect(bar.code).toBe(0);
    expect(bar.err).toMatch(/[█░]{24} +\d+ %.* step \d+ of 300000/);
    // the line is cleared before the answer
    expect(bar.err.endsWith("\r\x1b[2K")).toBe(true);
    expect((await place.call(["list", "--json"])).err).toBe("");
  });

  test("an interrupt leaves a checkpoint and says how to go on, and resume comes to the same bits", async () => {
    const interrupt = new AbortController();
    // once the record's description is there, before the first step, the run is under way
    const poll = setInterval(() => {
      if (isBegun("long")) interrupt.abort(new Error("interrupted"));
    }, 5);
    const { code, out, err } = await place.call([...LONG, "--out", "long"], { signal: interrupt.signal });
    clearInterval(poll);
    expect([code, out]).toEqual([130, ""]);
    expect(err).toBe(
      "noetherflow: interrupted; what was done is kept. Go on with: noetherflow resume long\n",
    );
    expect((await readRun(join(dir, "long"))).status).toBe("unfinished");
    const resumed = await place.call(["resume", "long", "--json"]);
    expect(resumed.code).toBe(0);
    await place.call([...LONG, "--out", "whole"]);
    expect((JSON.parse(resumed.out) as { hash: string }).hash).toBe((await readRun(join(dir, "whole"))).hash);
  });

  test("an interrupted search writes nothing and says so", async () => {
    const { code, err } = await place.call(["run", "E01"], {
      signal: AbortSignal.abort(new Error("interrupted")),
    });
    expect([code, err]).toEqual([
      130,
      "noetherflow: interrupted; nothing was written. The same command starts again with the same numbers.\n",
    ]);
  });

  test("Ctrl-C in a shell: the program itself ends with 130 and the sentence", {
    timeout: LIMIT,
  }, async () => {
    const cli = fileURLToPath(new URL("../../src/cli.ts", import.meta.url));
    const jiti = fileURLToPath(new URL("../../node_modules/jiti/lib/jiti-cli.mjs", import.meta.url));
    const child = spawn(process.execPath, [jiti, cli, ...LONG, "--out", "shell"], { cwd: dir });
    let err = "";
    child.stderr.on("data", (chunk: Buffer) => {
      err += chunk.toString();
    });
    const ended = new Promise((resolve) => child.on("exit", resolve));
    while (!isBegun("shell")) await new Promise((resolve) => setTimeout(resolve, 5));
    child.kill("SIGINT");
    expect(await ended).toBe(130);
    expect(err).toContain("Go on with: noetherflow resume shell");
  });
});

describe("files of every kind", () => {
  test("the same loss from csv, columns by name, json, npz, parquet and a program in TypeScript", async () => {
    const rows = readFileSync(join(dir, "data.csv"), "utf8").trim().split("\n").slice(1);
    const cells = rows.map((line) => line.split(",").map(Number) as [number, number, number]);
    const x = cells.map(([a, b]) => [a, b]);
    const y = cells.map(([, , c]) => [c]);
    place.write("other.csv", `a,b,label,note\n${rows.map((line) => `${line},some words`).join("\n")}\n`);
    place.write("data.json", JSON.stringify({ x, y }));
    place.write(
      "data.npz",
      encodeNpz({
        x: { shape: [64, 2], values: Float64Array.from(x.flat()) },
        y: { shape: [64], values: Float64Array.from(y.flat()) },
      }),
    );
    parquetWriteFile({
      filename: join(dir, "data.parquet"),
      columnData: ["x0", "x1", "y"].map((name, j) => ({
        name,
        data: Float64Array.from(cells, (row) => row[j]!),
        type: "DOUBLE" as const,
      })),
    });
    const file = JSON.stringify(JSON.parse(readFileSync(join(dir, "model.json"), "utf8")));
    place.write(
      "model.ts",
      `import { parseModel, symmetry } from "noetherflow";
export const model = parseModel(${JSON.stringify(file)});
export const data: { x: number[][]; y: number[][] } = ${JSON.stringify({ x, y })};
export const generators = { mine: symmetry.neuronRescaling("U", "W", 3) };`,
    );
    const lossOf = async (...args: string[]) => {
      const { code, out, err } = await noetherflow("measure", ...args, "--json");
      expect([code, err]).toEqual([0, ""]);
      return (JSON.parse(out) as { loss: number }).loss;
    };
    const loss = await lossOf("model.json", "--data", "data.csv");
    for (const name of ["data.json", "data.npz", "data.parquet"])
      expect([name, await lossOf("model.json", "--data", name)]).toEqual([name, loss]);
    expect(
      await lossOf("model.json", "--data", "other.csv", "--columns", "x=a,b", "--columns", "y=label"),
    ).toBe(loss);
    expect(await lossOf("model.ts")).toBe(loss);
    expect((await noetherflow("check", "model.ts", "--symmetry", "mine")).code).toBe(0);
  });

  test("the end of a run is where measure begins", async () => {
    const run = await noetherflow(
      ...[
        "train",
        "model.json",
        "--data",
        "data.csv",
        "--steps",
        "50",
        "--replicas",
        "2",
        "--out",
        "ends",
        "--json",
      ],
    );
    expect(run.code).toBe(0);
    const { run: whole } = await readRun(join(dir, "ends"));
    for (const replica of [0, 1]) {
      const { out } = await noetherflow(
        ...[
          "measure",
          "model.json",
          "--data",
          "data.csv",
          "--theta",
          "ends",
          "--replica",
          `${replica}`,
          "--json",
        ],
      );
      expect((JSON.parse(out) as { loss: number }).loss).toBe(whole!.series.loss!.at(replica - 2));
    }
  });
});

describe("safetensors", () => {
  const file = (header: unknown, data: Uint8Array): Uint8Array => {
    const text = new TextEncoder().encode(typeof header === "string" ? header : JSON.stringify(header));
    const out = new Uint8Array(8 + text.length + data.length);
    new DataView(out.buffer).setBigUint64(0, BigInt(text.length), true);
    out.set(text, 8);
    out.set(data, 8 + text.length);
    return out;
  };

  test("tensors of two dtypes by name", () => {
    const data = new Uint8Array(24);
    new Float32Array(data.buffer, 0, 2).set([1.5, -2]);
    new Float64Array(data.buffer, 8, 2).set([0.1, 3]);
    const bytes = file(
      {
        __metadata__: { a: "b" },
        W: { dtype: "F32", shape: [2, 1], data_offsets: [0, 8] },
        b: { dtype: "F64", shape: [2], data_offsets: [8, 24] },
      },
      data,
    );
    expect(decodeSafetensors(bytes, "f")).toEqual({
      W: { shape: [2, 1], values: Float64Array.from([1.5, -2]) },
      b: { shape: [2], values: Float64Array.from([0.1, 3]) },
    });
  });

  test.each([
    ["seven bytes", new Uint8Array(7)],
    ["a header longer than the file", file("{}", new Uint8Array(0)).fill(255, 0, 4)],
    ["no JSON", file("{", new Uint8Array(0))],
    [
      "offsets beyond the end",
      file({ W: { dtype: "F32", shape: [2], data_offsets: [0, 8] } }, new Uint8Array(4)),
    ],
    [
      "a shape that does not fit",
      file({ W: { dtype: "F32", shape: [3], data_offsets: [0, 8] } }, new Uint8Array(8)),
    ],
    ["another dtype", file({ W: { dtype: "BF16", shape: [2], data_offsets: [0, 4] } }, new Uint8Array(4))],
  ])("%s is refused", (_, bytes) => {
    expect(() => decodeSafetensors(bytes, "f")).toThrow(/^f/);
  });
});

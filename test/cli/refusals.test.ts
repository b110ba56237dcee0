/** What cannot go well is refused before the work, in the words of the command line, and leaves every file as it was. */
import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { HINTS } from "../../src/cli/output.ts";
import { Workplace } from "../helpers/command.ts";

const place = new Workplace();
afterAll(() => place.dispose());
const OF = ["model.json", "--data", "data.csv"];

beforeAll(async () => {
  expect((await place.call(["init"])).code).toBe(0);
  expect((await place.call(["train", ...OF, "--steps", "40", "--out", "whole"])).code).toBe(0);
  place.write(
    "gamma.json",
    JSON.stringify({
      schema: "noetherflow-model/1",
      params: { gain: [2], W: [2, 2] },
      inputs: { x: [2] },
      loss: ["sqnorm", ["mul", "gain", ["matmul", "W", "x"]]],
    }),
  );
  place.write("x.csv", "x0,x1\n1,2\n3,4\n");
  mkdirSync(join(place.dir, "empty"));
});

describe("before the work", () => {
  test.each<[string, string[], RegExp]>([
    ["more seeds than anyone waits for", ["run", "E01", "--seeds", "1e9"], /--seeds.*at most 10000/],
    [
      "more records than an array holds",
      ["train", ...OF, "--steps", "1e9", "--every", "1", "--out", "n"],
      /at most 268435456 numbers.*Record less often \(a larger --every\)/,
    ],
    [
      "more replicas than memory holds",
      ["train", ...OF, "--steps", "10", "--replicas", "1e7", "--out", "n"],
      /at most 268435456 numbers.*run fewer --replicas/,
    ],
    ["a page without a name", ["symmetries", ...OF, "--html", ""], /--html: the path of a file/],
    [
      "a page that is a folder",
      ["symmetries", ...OF, "--html", "empty"],
      /--html: the path of a file, got the folder/,
    ],
    ["parameters without a name", ["equilibrium", ...OF, "--save", ""], /--save: the path of a file/],
    [
      "parameters in no folder",
      ["equilibrium", ...OF, "--save", "no/such.npz"],
      /--save: a folder that is there, got no /,
    ],
    [
      "a record that is a file",
      ["train", ...OF, "--out", "data.csv"],
      /--out: a path of folders, got the file/,
    ],
    [
      "a report that is a file",
      ["run", "E08", "--out", "data.csv"],
      /--out: a path of folders, got the file/,
    ],
    ["a replay of a file", ["replay", "data.csv"], /data\.csv: the folder of a run, got a file/],
    ["an export to nowhere", ["export", "whole", "--out", "no/run.csv"], /--out: a folder that is there/],
    ["no name of a file", ["measure", "model.json", "--data", ""], /the path of a file, got ""/],
    ["a deviation of glorot", ["measure", ...OF, "--std", "2"], /--std: --init normal, got --init glorot/],
    ["a replica of nothing", ["measure", ...OF, "--replica", "1"], /--replica: --theta <folder>/],
    [
      "two ways to say how strong the noise is",
      ["symmetries", ...OF, "--sigma2", "0.1", "--eta", "0.2"],
      /--sigma2.*cannot be used with.*--eta/,
    ],
    [
      "two thetas",
      ["measure", ...OF, "--theta", "whole", "--init", "he"],
      /--init.*cannot be used with.*--theta/,
    ],
    [
      "probes of an exact trace",
      ["measure", ...OF, "--trace", "exact", "--probes", "8"],
      /--probes: an estimated trace, got --trace exact/,
    ],
    [
      "no generators",
      ["check", ...OF, "--symmetry", "none.json"],
      /none\.json: a generator, or generators by name/,
    ],
    [
      "a number in another base",
      ["measure", "model.json", "--data", "hex.csv"],
      /hex\.csv: line 2, column "y": a finite number, got "0x10"/,
    ],
    [
      "a cell after one of two lines",
      ["measure", "model.json", "--data", "lines.csv"],
      /lines\.csv: line 4, column "y": a finite number, got "word"/,
    ],
    [
      "a loss that overflows",
      ["measure", "model.json", "--data", "huge.csv"],
      /parameters with a finite loss, got a loss of Infinity/,
    ],
  ])("%s", async (_, args, message) => {
    place.write("none.json", "{}");
    place.write("hex.csv", "x0,x1,y\n1,2,0x10\n");
    place.write("lines.csv", 'x0,x1,y,note\n1,2,3,"two\nlines"\n1,2,word,one\n');
    place.write("huge.csv", "x0,x1,y\n1,2,1e200\n");
    const before = place.state();
    const { code, out, err } = await place.call(args);
    expect(err).toMatch(message);
    expect([code, out, err.split("\n").length]).toEqual([2, "", 2]);
    expect(place.state()).toEqual(before);
  });

  test("a record whose file is gone says which", async () => {
    await place.call(["train", ...OF, "--steps", "40", "--out", "torn"]);
    rmSync(join(place.dir, "torn", "theta.npy"));
    const { code, err } = await place.call(["export", "torn", "--out", "torn.csv"]);
    expect([code, err]).toEqual([
      2,
      expect.stringMatching(/theta\.npy: theta of the replicas, got no file\.\n$/),
    ]);
  });
});

describe("what people bring", () => {
  test("a byte order mark, names with commas", async () => {
    const rows = place.read("data.csv").toString().trim().split("\n").slice(1);
    place.write("names.csv", `"a, first",b,y\n${rows.join("\n")}\n`);
    place.write("marked.json", `\uFEFF${place.read("model.json").toString()}`);
    const lossOf = async (...args: string[]) =>
      (JSON.parse((await place.call(["measure", ...args, "--json"])).out) as { loss: number }).loss;
    const loss = await lossOf(...OF);
    expect(await lossOf("marked.json", "--data", "names.csv", "--columns", 'x="a, first",b')).toBe(loss);
  });

  test("a file goes by its ending, and --format by its word", async () => {
    for (const [args, format] of [
      [["--out", "by-ending.npz"], "npz"],
      [["--out", "of-format", "--format", "json"], "json"],
      [[], "csv"],
    ] as const) {
      const { out } = await place.call(["export", "whole", ...args, "--json"]);
      expect((JSON.parse(out) as { format: string }).format).toBe(format);
    }
  });

  test("a model's program that exits, or waits for ever, is told", { timeout: 120_000 }, () => {
    const cli = fileURLToPath(new URL("../../src/cli.ts", import.meta.url));
    const jiti = fileURLToPath(new URL("../../node_modules/jiti/lib/jiti-cli.mjs", import.meta.url));
    for (const [name, program] of [
      ["exits.mjs", "process.exit(0);"],
      ["waits.mjs", "await new Promise(() => {}); export const model = 1;"],
    ] as const) {
      place.write(name, program);
      const { status, stderr } = spawnSync(process.execPath, [jiti, cli, "measure", name], {
        cwd: place.dir,
        encoding: "utf8",
      });
      expect([status, stderr]).toEqual([
        2,
        expect.stringMatching(/^noetherflow: ended before its work was done: .*\n$/),
      ]);
    }
  });

  test("a program that throws nothing in particular", async () => {
    place.write("null.mjs", "throw null;");
    const { code, err } = await place.call(["measure", "null.mjs"]);
    expect([code, err]).toEqual([2, "noetherflow: null.mjs: a program that runs, got null.\n"]);
  });
});

describe("an interrupt", () => {
  test("before the first step promises nothing, and is data with --json", async () => {
    const signal = AbortSignal.abort(new Error("interrupted"));
    const args = ["train", ...OF, "--out", "never"];
    const { code, err } = await place.call(args, { signal });
    expect([code, err]).toEqual([
      130,
      "noetherflow: interrupted; nothing was written. The same command starts again with the same numbers.\n",
    ]);
    const json = await place.call([...args, "--json"], { signal });
    expect(JSON.parse(json.err)).toEqual({
      interrupted: "nothing was written. The same command starts again with the same numbers.",
    });
    expect(readdirSync(place.dir)).not.toContain("never");
  });

  test("quotes a folder with a space", async () => {
    const interrupt = new AbortController();
    const poll = setInterval(() => {
      if (readdirSync(place.dir).includes("my run")) interrupt.abort(new Error("interrupted"));
    }, 5);
    const args = ["train", ...OF, "--steps", "3e6", "--every", "30000", "--out", "my run", "--json"];
    const { code, err } = await place.call(args, { signal: interrupt.signal });
    clearInterval(poll);
    expect(code).toBe(130);
    expect(JSON.parse(err.trim().split("\n").at(-1)!)).toEqual({
      interrupted: 'what was done is kept. Go on with: noetherflow resume "my run"',
      resume: 'noetherflow resume "my run"',
    });
  });
});

describe("hints", () => {
  const sources = readdirSync("src", { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".ts") && !/^(cli|experiments|report|parallel)\b/.test(name))
    .map((name) => readFileSync(join("src", name), "utf8"))
    .join("\n");
  // texts that only programs get: of options that no command has, and of objects that only programs make
  const PROGRAMS =
    /createEngine|parseModel|parseSampler|createPool|engine\.problem\.$|onDiverge|loss: "batch"|record: \{|equilibrium\(\) gives|simulate\(|leave flow out|model\.leaf|symmetry\.generator|\.wasm|astype|ascontiguous|sigma2 or weightDecay/;

  test("that name functions of the library are said in words of the command", () => {
    const hints = [
      ...sources.matchAll(/(["'`])([A-Z](?:(?!\1)[^\\\n]|\\.)* (?:(?!\1)[^\\\n]|\\.)*\.)\1/g),
    ].map((m) => m[2]!);
    const ofPrograms = hints.filter(
      (hint) =>
        /[a-z][A-Z]|\w\(|: true|\{ /.test(hint.replaceAll(/\$\{[^}]*\}/g, "")) && !PROGRAMS.test(hint),
    );
    expect(ofPrograms.length).toBeGreaterThan(10);
    expect(ofPrograms.filter((hint) => !HINTS.has(hint))).toEqual([]);
  });

  test("in the table are those of the library, letter by letter", () => {
    for (const hint of HINTS.keys()) expect([hint, sources.includes(hint)]).toEqual([hint, true]);
  });
});

describe("completion in bash", () => {
  const complete = async (...words: string[]): Promise<string[]> => {
    place.write("complete.bash", (await place.call(["completion", "bash"])).out);
    place.write("a file.json", "{}");
    const script = `source ./complete.bash; COMP_WORDS=(noetherflow "$@"); COMP_CWORD=$#; _noetherflow; printf '%s\\n' "\${COMPREPLY[@]}"`;
    return execFileSync("bash", ["-c", script, "bash", ...words], { cwd: place.dir, encoding: "utf8" })
      .trim()
      .split("\n");
  };

  test("commands, options, choices, experiments, and files with spaces", async () => {
    expect(await complete("rep")).toEqual(["reproduce", "replay"]);
    expect(await complete("train", "--sch")).toEqual(["--scheme", "--schedule"]);
    expect(await complete("train", "model.json", "--dtype", "f")).toEqual(["f64", "f32"]);
    expect(await complete("show", "E0")).toContain("E08");
    expect(await complete("measure", "a")).toEqual(["a file.json"]);
  });
});

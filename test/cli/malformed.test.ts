/**
 * Malformed input of every kind, mutated from what works: each call ends with a code that is not 0, one line that names what is
 * wrong, no stack trace, nothing on stdout, and every file as it was. The mutations are drawn by a fixed generator.
 */
import seedrandom from "seedrandom";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { experiments } from "../../src/experiments/experiment.ts";
import { encodeNpy, encodeNpz } from "../../src/records/records.ts";
import { Workplace } from "../helpers/command.ts";

const OF_EACH = 20;
const place = new Workplace();
afterAll(() => place.dispose());

const MODEL = {
  schema: "noetherflow-model/1",
  params: { W: [4, 2], U: [1, 4], R: { shape: [1, 2], trainable: false } },
  inputs: { x: [2], y: [1] },
  constants: { M: { shape: [1, 1], values: [2] } },
  let: [
    ["h", ["relu", ["matmul", "W", "x"]]],
    ["r", ["sub", ["add", ["matmul", "U", "h"], ["matmul", "R", "x"]], "y"]],
  ],
  loss: ["matmul", "r", ["matmul", "M", "r"]],
};
const SAMPLER = {
  schema: "noetherflow-sampler/1",
  noise: { x: { kind: "normal", shape: [2] }, e: { kind: "normal", shape: [1] } },
  constants: { V: { shape: [1, 2], values: [1, -1] } },
  outputs: { x: "x", y: ["add", ["matmul", "V", "x"], ["scale", "e", 0.5]] },
};
const N = 8;
const turn = (n: number, a: number): number => 2 * ((n * a) % 1) - 1;
const X = Float64Array.from({ length: 2 * N }, (_, n) => turn(n + 1, 0.618));
const Y = Float64Array.from({ length: N }, (_, n) => turn(n + 1, 0.755));
const CSV = `x0,x1,y,name\n${Array.from(Y, (y, n) => `${X[2 * n]},${X[2 * n + 1]},${y},row ${n}`).join("\n")}\n`;
const DATA = { x: [...X], y: [...Y] };
const THETA = {
  W: { shape: [4, 2], values: Float64Array.from([1, 0, 0.5, -1, 0.2, 0.1, -2, 1]) },
  U: { shape: [1, 4], values: Float64Array.from([0.5, -1, 2, 0.25]) },
  R: { shape: [1, 2], values: Float64Array.from([0.1, 0.2]) },
};
const NPZ = encodeNpz({ x: { shape: [N, 2], values: X }, y: { shape: [N, 1], values: Y } });
const GENERATORS = { first: { blocks: { W: { scalar: 1 }, U: { scalar: -1 } } } };

function safetensors(arrays: Record<string, { shape: readonly number[]; values: Float64Array }>): Uint8Array {
  let at = 0;
  const header = Object.fromEntries(
    Object.entries(arrays).map(([name, { shape, values }]) => {
      const begin = at;
      at += values.byteLength;
      return [name, { dtype: "F64", shape, data_offsets: [begin, at] }];
    }),
  );
  const text = new TextEncoder().encode(JSON.stringify(header));
  const out = new Uint8Array(8 + text.length + at);
  new DataView(out.buffer).setBigUint64(0, BigInt(text.length), true);
  out.set(text, 8);
  let end = 8 + text.length;
  for (const { values } of Object.values(arrays)) {
    out.set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength), end);
    end += values.byteLength;
  }
  return out;
}

const text = (value: unknown): string => JSON.stringify(value);
const SET = ["model.json", "--data", "data.csv"];

beforeAll(async () => {
  place.write("model.json", text(MODEL));
  place.write(
    "single.json",
    text({
      schema: MODEL.schema,
      params: { m: [2] },
      inputs: { x: [2] },
      loss: ["sqnorm", ["sub", "m", "x"]],
    }),
  );
  place.write("data.csv", CSV);
  place.write("data.json", text(DATA));
  place.write("data.npz", NPZ);
  place.write("x.npy", encodeNpy({ shape: [N, 2], values: X }));
  place.write("theta.npz", encodeNpz(THETA));
  place.write("theta.safetensors", safetensors(THETA));
  place.write("sampler.json", text(SAMPLER));
  place.write("generators.json", text(GENERATORS));
  // what is mutated below works as it stands
  for (const args of [
    ["measure", ...SET],
    ["measure", "model.json", "--data", "data.json", "--theta", "theta.npz"],
    ["measure", "model.json", "--data", "data.npz", "--theta", "theta.safetensors"],
    ["measure", "model.json", "--data", "sampler.json", "--samples", "20"],
    ["measure", "model.json", "--data", "data.csv", "--columns", "x=x1,x0"],
    ["measure", "single.json", "--data", "x.npy", "--init", "normal"],
    ["check", ...SET, "--symmetry", "neuron:U,W,0"],
    ["train", ...SET, "--steps", "20", "--out", "run", "--replicas", "2"],
    ["export", "run", "--format", "parquet", "--out", "table.parquet"],
    ["replay", "run"],
  ]) {
    const answer = await place.call(args);
    expect([args.join(" "), answer.code, answer.err]).toEqual([args.join(" "), 0, ""]);
  }
});

/** A call that must be refused, and what its line must name. */
interface Bad {
  readonly args: readonly string[];
  readonly names: RegExp;
  /** Written for the call alone. */
  readonly files?: Readonly<Record<string, string | Uint8Array>>;
}

interface Dice {
  /** 0 to below n. */
  below(n: number): number;
  pick<T>(of: readonly T[]): T;
}

function dice(seed: string): Dice {
  const random = seedrandom(seed);
  const below = (n: number) => Math.floor(random() * n);
  return { below, pick: (of) => of[below(of.length)]! };
}

const escaped = (word: string): RegExp => new RegExp(word.replaceAll(/[.*+?^${}()|[\]\\]/g, "\\$&"));
const copy = <T>(value: T): T => structuredClone(value);

/** The value at a path replaced, or taken away where it is undefined. */
function changed(value: unknown, path: readonly (string | number)[], to: unknown): unknown {
  const out = copy(value) as Record<string | number, unknown>;
  let at = out;
  for (const key of path.slice(0, -1)) at = at[key] as Record<string | number, unknown>;
  const last = path.at(-1)!;
  if (to === undefined) delete at[last];
  else at[last] = to;
  return out;
}

/** One letter doubled, dropped or changed. */
function misspelt(word: string, { below }: Dice): string {
  const at = 2 + below(word.length - 2);
  const [before, after] = [word.slice(0, at), word.slice(at + 1)];
  return [`${before}${word[at]}${word[at]}${after}`, `${before}${after}q`, `${before}z${after}`][below(3)]!;
}

const model = (changedModel: unknown, names: RegExp): Bad => ({
  args: ["measure", "bad.json", "--data", "data.csv"],
  files: { "bad.json": typeof changedModel === "string" ? changedModel : text(changedModel) },
  names,
});
const data = (name: string, content: string | Uint8Array, names: RegExp, of = "model.json"): Bad => ({
  args: ["measure", of, "--data", name],
  files: { [name]: content },
  names,
});
const theta = (name: string, content: string | Uint8Array, names: RegExp): Bad => ({
  args: ["measure", ...SET, "--theta", name],
  files: { [name]: content },
  names,
});

const JUNK = ["fast", "", "1e", "0x", "--", "1,5", "NaN", "one", "1e999", "-Infinity", "½", "1 2", "[1]"];
const WORDS = ["adamw", "gauss", "Normal ", "sgd,gd", "", "0", "none", "EXACT"];
const NUMBERS = [
  "--eta",
  "--weight-decay",
  "--batch-size",
  "--steps",
  "--replicas",
  "--every",
  "--samples",
  "--std",
];

const classes: Readonly<Record<string, (d: Dice) => Bad>> = {
  "a command that is none": (d) => {
    const word = misspelt(
      d.pick(["symmetries", "equilibrium", "measure", "train", "replay", "reproduce"]),
      d,
    );
    return { args: [word, ...SET], names: escaped(word) };
  },
  "an option that is none": (d) => {
    const word = misspelt(d.pick(["--data", "--theta", "--columns", "--init", "--samples", "--seed"]), d);
    const command = d.pick(["symmetries", "equilibrium", "measure", "train"]);
    return { args: [command, "model.json", word, "data.csv"], names: escaped(word) };
  },
  "a number that is none": (d) => {
    const option = d.pick(NUMBERS);
    return { args: ["train", ...SET, option, d.pick(JUNK)], names: escaped(option) };
  },
  "a number out of range": (d) => {
    const [option, value] = d.pick([
      ["--eta", "-0.1"],
      ["--steps", "0"],
      ["--steps", "2.5"],
      ["--batch-size", "-3"],
      ["--batch-size", "0.5"],
      ["--replicas", "0"],
      ["--every", "-1"],
      ["--weight-decay", "-1e-3"],
      ["--momentum", "1"],
      ["--momentum", "-0.2"],
      ["--clip", "-1"],
      ["--samples", "0"],
      ["--first-replica", "-1"],
      ["--substeps", "0"],
    ] as const);
    return {
      args: ["train", ...SET, "--out", "new", option, value],
      names: escaped(option.replace("--", "").slice(0, 5)),
    };
  },
  "a word of no list": (d) => {
    const [command, option] = d.pick([
      ["train", "--scheme"],
      ["train", "--sampling"],
      ["train", "--init"],
      ["measure", "--trace"],
      ["symmetries", "--form"],
      ["symmetries", "--restrict"],
      ["equilibrium", "--sampling"],
    ] as const);
    return { args: [command, ...SET, option, d.pick(WORDS)], names: escaped(option) };
  },
  "an argument that is missing, or too much": (d) =>
    d.pick<Bad>([
      { args: [d.pick(["measure", "train", "symmetries", "equilibrium", "check"])], names: /'model'/ },
      { args: [d.pick(["replay", "resume", "export"])], names: /'folder'/ },
      { args: [d.pick(["run", "show"])], names: /'id'/ },
      { args: ["check", ...SET], names: /--symmetry/ },
      ...["--data", "--theta", "--eta", "--seed"].map((o) => ({
        args: ["measure", "model.json", o],
        names: escaped(o),
      })),
      { args: ["measure", "model.json", "data.csv"], names: /too many arguments|data/ },
      { args: ["list", "E01"], names: /too many arguments/ },
      { args: ["measure", "model.json"], names: /model\.json: data for the inputs/ },
    ]),
  "a symmetry that is none": (d) => {
    const word = d.pick([
      "rescaling:U",
      "rescaling:U,Q",
      "rescaling:U,W,R",
      "scaling:",
      "scaling:Q",
      "neuron:U,W",
      "neuron:U,W,9",
      "neuron:U,W,-1",
      "neuron:U,W,first",
      "neuron:W,U,0",
      "rotation:U,W,0",
      "rotation:U,W,0,7",
      "rotation:Q,W,0,1",
      "constructor",
      "__proto__",
      "rescalling:U,W",
      "U,W",
      "nosuch.json",
      "data.json",
    ]);
    const command = d.pick(["check", "equilibrium", "symmetries", "measure"]);
    return { args: [command, ...SET, "--symmetry", word], names: /symmetry|U|W|Q|R|data\.json|nosuch\.json/ };
  },
  "columns that are not there": (d) => {
    const [given, names] = d.pick([
      ["x=x0", /x/],
      ["x=x0,x1,y", /x/],
      ["x", /columns/],
      ["=x0", /columns/],
      ["x=", /columns/],
      ["z=x0,x1", /z/],
      ["x=x0,nosuch", /nosuch/],
      ["y=name", /name/],
      ["x=x0,,x1", /columns/],
      ["toString=x0", /toString/],
    ] as const);
    return { args: ["measure", ...SET, "--columns", given], names };
  },
  "a setting of an experiment": (d) => {
    const experiment = d.pick([...experiments.values()]);
    const [name, p] = d.pick(Object.entries(experiment.parameters));
    const word = `${name}x`;
    return d.pick<Bad>([
      { args: ["run", experiment.id, "--set", `${word}=1`], names: escaped(word) },
      { args: ["run", experiment.id, "--set", `${name}=${p.max + 1}`], names: escaped(name) },
      { args: ["run", experiment.id, "--set", `${name}=${p.min - 1}`], names: escaped(name) },
      { args: ["run", experiment.id, "--set", `${name}=much`], names: /much/ },
      { args: ["run", experiment.id, "--set", name], names: escaped(name) },
      { args: ["run", `${experiment.id}9`], names: escaped(experiment.id) },
      { args: ["reproduce", "--only", `E01,${experiment.id}9`], names: escaped(experiment.id) },
    ]);
  },
  "a model file that is no JSON": (d) => {
    const whole = text(MODEL);
    const at = 1 + d.below(whole.length - 2);
    return model(
      d.pick([whole.slice(0, at), `${whole.slice(0, at)}\u0000${whole.slice(at)}`, `${whole}}`]),
      /bad\.json/,
    );
  },
  "a model file with other parts": (d) => {
    const [path, to, names] = d.pick<[(string | number)[], unknown, RegExp]>([
      [["schema"], "noetherflow-model/2", /schema/],
      [["schema"], 1, /schema/],
      [["params"], undefined, /params/],
      [["params"], [], /params/],
      [["params"], {}, /params|W/],
      [["inputs"], 3, /inputs/],
      [["inputs"], undefined, /inputs|x/],
      [["loss"], undefined, /loss/],
      [["loss"], [], /loss/],
      [["loss"], "h", /loss/],
      [["loss"], {}, /loss/],
      [["losses"], "r", /losses/],
      [["let"], {}, /let/],
      [["let", 0], ["h"], /let/],
      [["let", 1, 0], "h", /h/],
      [["let", 1, 0], "W", /W/],
      [["constants", "M"], 3, /M/],
      [["constants", "M", "values"], [1, 2], /M/],
      [["constants", "M", "values"], ["two"], /M/],
      [["constants", "x"], { shape: [1], values: [1] }, /x/],
      [["params", "R", "trainable"], "yes", /R/],
      [["params", "R", "train"], true, /train/],
    ]);
    return model(changed(MODEL, path, to), names);
  },
  "a shape that is none": (d) => {
    const [where, name] = d.pick([
      ["params", "W"],
      ["params", "U"],
      ["inputs", "x"],
      ["inputs", "y"],
    ] as const);
    const shape = d.pick<unknown>([
      [-1],
      [0, 2],
      [1.5],
      ["2"],
      [2, 2, 2],
      4,
      null,
      "2",
      [1e9, 1e9],
      [[2]],
      { d: 2 },
    ]);
    return model(changed(MODEL, [where, name], shape), escaped(name));
  },
  "an expression that does not fit": (d) => {
    const [to, names] = d.pick<[unknown, RegExp]>([
      [["rellu", ["matmul", "W", "x"]], /rellu/],
      [["relu", ["matmul", "W", "z"]], /z/],
      [["relu", ["matmul", "x", "W"]], /matmul/],
      [["relu"], /relu/],
      [["relu", "W", "x"], /relu/],
      [["relu", ["matmul", "W"]], /matmul/],
      [["relu", ["matmul", "W", "x", "x"]], /matmul/],
      [["sum", ["matmul", "W", "x"], { axis: 5 }], /axis|sum/],
      [["sum", ["matmul", "W", "x"], { axes: 0 }], /axes/],
      [["reshape", ["matmul", "W", "x"], { shape: [3] }], /reshape/],
      [["slice", ["matmul", "W", "x"], { start: 3, stop: 9 }], /slice/],
      [["leaky_relu", ["matmul", "W", "x"]], /leaky_relu/],
      [["add", ["matmul", "W", "x"], "x"], /add/],
      [["constructor", "x"], /constructor/],
      [["__proto__", "x"], /__proto__/],
      [[1, "x"], /let/],
      [null, /let/],
      [true, /let/],
    ]);
    return model(changed(MODEL, ["let", 0, 1], to), names);
  },
  "a table of data": (d) => {
    const lines = CSV.trimEnd().split("\n");
    const row = 1 + d.below(N);
    const at = lines[row]!.split(",");
    const cell = (j: number, value: string) => [
      ...lines.slice(0, row),
      at.map((was, k) => (k === j ? value : was)).join(","),
      ...lines.slice(row + 1),
    ];
    const line = escaped(`line ${row + 1}`);
    const [content, names] = d.pick<[string[], RegExp]>([
      [cell(0, d.pick(["one", "", "1,0", "NaN", "inf", "1e999"])), line],
      [cell(2, d.pick(["-", "0x", "null"])), line],
      [[...lines.slice(0, row), at.slice(1).join(","), ...lines.slice(row + 1)], line],
      [["x0,x1,z,name", ...lines.slice(1)], /"y"/],
      [["x0,x0,y,name", ...lines.slice(1)], /x/],
      [lines.slice(1), /"x\[0\]"|x/],
      [lines.slice(0, 1), /bad\.csv/],
      [[], /bad\.csv/],
    ]);
    return data("bad.csv", content.join("\n"), names);
  },
  "data as JSON": (d) => {
    const [value, names] = d.pick<[unknown, RegExp]>([
      [changed(DATA, ["x"], undefined), /x/],
      [changed(DATA, ["y"], DATA.y.slice(1)), /x|y/],
      [changed(DATA, ["z"], [1]), /z/],
      [changed(DATA, ["x", d.below(N)], "one"), /x/],
      [changed(DATA, ["x", d.below(N)], null), /x/],
      [changed(DATA, ["y"], "1, 2"), /y/],
      [changed(DATA, ["y"], []), /y/],
      [changed(DATA, ["y"], [[[1]]]), /y/],
      [[1, 2], /bad\.json/],
      [3, /bad\.json/],
      [null, /bad\.json/],
    ]);
    return data("bad.json", text(value), names);
  },
  "arrays of numpy": (d) => {
    const cut = 1 + d.below(NPZ.length - 1);
    const npy = encodeNpy({ shape: [N, 2], values: X });
    const one = npy.slice();
    one[d.below(6)]! ^= 0x55;
    return d.pick<Bad>([
      data("bad.npz", NPZ.slice(0, cut), /bad\.npz/),
      data("bad.npz", encodeNpz({ x: { shape: [N, 2], values: X } }), /y/),
      data(
        "bad.npz",
        encodeNpz({ x: { shape: [2 * N], values: X }, y: { shape: [3], values: Y.slice(0, 3) } }),
        /x|y/,
      ),
      data(
        "bad.npz",
        encodeNpz({
          x: { shape: [2 * N], values: X.map((v, i) => (i === 3 ? Number.NaN : v)) },
          y: { shape: [N], values: Y },
        }),
        /x/,
      ),
      data("bad.npy", one, /bad\.npy/, "single.json"),
      data("bad.npy", npy.slice(0, 8 + d.below(npy.length - 8)), /bad\.npy/, "single.json"),
      data("bad.npy", npy, /bad\.npy/),
    ]);
  },
  "a table of Parquet": (d) => {
    const whole = new Uint8Array(place.read("table.parquet"));
    const last = whole.slice();
    last[whole.length - 1 - d.below(4)]! ^= 0xff;
    return data(
      "bad.parquet",
      d.pick([whole.slice(0, d.below(whole.length)), last, whole, new Uint8Array(20)]),
      /bad\.parquet/,
    );
  },
  parameters: (d) => {
    const tensors = safetensors(THETA);
    const header = tensors.slice();
    header[8 + d.below(40)] = 0x01;
    const { R: _, ...missing } = THETA;
    return d.pick<Bad>([
      theta("bad.npz", encodeNpz(missing), /R/),
      theta("bad.npz", encodeNpz({ ...THETA, Q: THETA.W }), /Q/),
      theta("bad.npz", encodeNpz({ ...THETA, W: THETA.U }), /W/),
      theta(
        "bad.npz",
        encodeNpz({ ...THETA, W: { ...THETA.W, shape: [2, 4] } }),
        /W: shape \[4, 2\], got \[2, 4\]\. It looks transposed/,
      ),
      theta(
        "bad.safetensors",
        safetensors({ ...THETA, W: { ...THETA.W, shape: [2, 4] } }),
        /W: .*transposed/,
      ),
      theta("bad.safetensors", tensors.slice(0, d.below(tensors.length)), /bad\.safetensors|W|U|R/),
      theta("bad.safetensors", header, /bad\.safetensors|W|U|R/),
      theta("bad.json", "[1, 2, 3]", /theta/),
      theta("bad.json", text({ W: [1], U: [1], R: [1] }), /W/),
      theta("bad.json", text({ W: Array(8).fill("a"), U: Array(4).fill(1), R: [1, 2] }), /W/),
      theta("bad.npy", encodeNpy({ shape: [3], values: Float64Array.from([1, 2, 3]) }), /theta/),
      { args: ["measure", ...SET, "--theta", "run", "--replica", "2"], names: /replica/ },
      { args: ["measure", "single.json", "--data", "x.npy", "--theta", "run"], names: /theta/ },
    ]);
  },
  "a sampler file": (d) => {
    const [path, to, names] = d.pick<[(string | number)[], unknown, RegExp]>([
      [["schema"], "noetherflow-sampler/9", /schema/],
      [["noise", "x", "kind"], "gamma", /x/],
      [["noise", "x", "kind"], undefined, /x/],
      [["noise", "x", "shape"], [-2], /x/],
      [["noise", "x", "shape"], "2", /x/],
      [["noise"], [], /noise/],
      [["noise", "e"], { kind: "index" }, /e/],
      [["noise", "e"], { kind: "index", below: 0 }, /e/],
      [["outputs"], undefined, /outputs/],
      [["outputs", "y"], undefined, /y/],
      [["outputs", "y"], "x", /y/],
      [["outputs", "z"], "x", /z/],
      [["outputs", "y"], ["add", "x", "q"], /q/],
      [["constants", "V", "values"], [1], /V/],
      [["law"], 1, /law/],
    ]);
    return {
      args: ["measure", "model.json", "--data", "bad.json", "--samples", "20"],
      files: { "bad.json": text(changed(SAMPLER, path, to)) },
      names,
    };
  },
  "a sampler without a number of samples": (d) => ({
    args: [
      d.pick(["measure", "symmetries", "equilibrium", "check"]),
      "model.json",
      "--data",
      "sampler.json",
      "--symmetry",
      "neuron:U,W,0",
    ],
    names: /--samples/,
  }),
  "generators as JSON": (d) => {
    const [value, names] = d.pick<[unknown, RegExp]>([
      [{ first: { blocks: { Q: { scalar: 1 } } } }, /Q/],
      [{ first: { blocks: { W: { scale: 1 } } } }, /scale/],
      [{ first: { blocks: { W: { scalar: "1" } } } }, /W/],
      [{ first: { blocks: { W: { right: [1, 2, 3] } } } }, /W/],
      [{ first: { blocks: [] } }, /blocks/],
      [{ first: {} }, /generator|first/],
      [{ first: { dense: [1, 2, 3] } }, /dense|P/],
      [{ first: 3 }, /generator|first/],
      [[], /bad\.json/],
      [3, /bad\.json/],
    ]);
    return {
      args: [d.pick(["check", "equilibrium"]), ...SET, "--symmetry", "bad.json"],
      files: { "bad.json": text(value) },
      names,
    };
  },
  "a program as a model": (d) => {
    const [content, names] = d.pick<[string, RegExp]>([
      ["throw new Error('no model\\ntoday');", /no model today/],
      ["export const nothing = 1;", /model/],
      ["export const model = 3;", /model/],
      ["export const model = {", /bad/],
      ["import x from 'nosuch-package'; export const model = x;", /nosuch-package/],
      [`export const model = ${text(changed(MODEL, ["loss"], ["sqnorm", "q"]))};`, /q/],
      [`export const model = ${text(MODEL)}; export const data = 3;`, /data/],
      [`export const model = ${text(MODEL)}; export const data = { x: [1], y: [1] };`, /x/],
      [
        `export const model = ${text(MODEL)}; export const data = ${text(DATA)}; export const theta = [1];`,
        /theta/,
      ],
      [`export const model = ${text(MODEL)}; export const generators = { a: 1 };`, /a|generators/],
    ]);
    const name = `bad-${d.below(1e9)}.mjs`;
    return { args: ["measure", name], files: { [name]: content }, names };
  },
  "a file that is not there, or another": (d) =>
    d.pick<Bad>([
      { args: ["measure", "nosuch.json", "--data", "data.csv"], names: /nosuch\.json/ },
      { args: ["measure", "data.csv", "--data", "data.csv"], names: /data\.csv/ },
      { args: ["measure", "run", "--data", "data.csv"], names: /run/ },
      { args: ["measure", "model.json", "--data", "nosuch.csv"], names: /nosuch\.csv/ },
      { args: ["measure", "model.json", "--data", "run"], names: /run/ },
      { args: ["measure", "model.json", "--data", "x.npy"], names: /x\.npy/ },
      { args: ["measure", "model.json", "--data", "theta.safetensors"], names: /theta\.safetensors/ },
      { args: ["measure", ...SET, "--theta", "nosuch.npz"], names: /nosuch\.npz/ },
      { args: ["measure", ...SET, "--theta", "data.csv"], names: /data\.csv/ },
      { args: ["measure", "nosuch.mjs"], names: /nosuch\.mjs/ },
      { args: ["replay", "nosuch"], names: /nosuch/ },
      { args: ["replay", "model.json"], names: /model\.json/ },
      { args: ["resume", "nosuch"], names: /nosuch/ },
      { args: ["export", "run", "--out", "table.parquet", "--format", "parquet"], names: /table\.parquet/ },
      { args: ["export", "nosuch"], names: /nosuch/ },
      { args: ["train", ...SET, "--out", "run"], names: /run/ },
      { args: ["train", ...SET, "--out", "model.json"], names: /model\.json/ },
      { args: ["init"], names: /model\.json/ },
    ]),
  "the record of a run": (d) => {
    const whole = JSON.parse(place.read("run/run.json").toString()) as Record<string, unknown>;
    const folder = ["data.npz", "series.parquet", "theta.npy", "arrays.npz"].filter(
      (name) => place.state()[`run/${name}`],
    );
    const files = Object.fromEntries(
      folder.map((name) => [`bad/${name}`, new Uint8Array(place.read(`run/${name}`))]),
    );
    const put = (run: unknown, more: Record<string, Uint8Array> = {}): Bad => ({
      args: ["replay", "bad"],
      files: { ...files, "bad/run.json": typeof run === "string" ? run : text(run), ...more },
      names: /bad|run\.json|record/,
    });
    const series = files["bad/series.parquet"]!;
    const key = d.pick([
      "schema",
      "status",
      "spec",
      "streamVersion",
      "hashes",
      "outcome",
      "dtype",
      "variant",
    ]);
    return d.pick<Bad>([
      put(text(whole).slice(0, 1 + d.below(400))),
      put(changed(whole, [key], undefined)),
      put(changed(whole, [key], d.pick<unknown>([17, "x", []]))),
      put(changed(whole, ["status"], "unfinished")),
      put(changed(whole, ["spec", d.pick(["model", "options", "data"])], undefined)),
      put(changed(whole, ["spec", "options", "eta"], "fast")),
      put(changed(whole, ["spec", "options", "scheme"], "nosuch")),
      put(whole, { "bad/series.parquet": series.slice(0, d.below(series.length)) }),
      put(whole, { "bad/theta.npy": files["bad/theta.npy"]!.slice(0, d.below(60)) }),
    ]);
  },
  "a schedule": (d) => ({
    args: [
      "train",
      ...SET,
      "--out",
      "new",
      "--schedule",
      d.pick([
        "{",
        "cosine",
        '{"kind":"cos"}',
        '{"kind":"step"}',
        '{"kind":"cosine","final":-1}',
        "3",
        "[]",
        '{"kind":"warmup","steps":0}',
        '{"kind":"constant","x":1}',
        "null",
      ]),
    ],
    names: /schedule|kind|eta/,
  }),
  "options that do not go together": (d) =>
    d.pick<Bad>([
      {
        args: ["train", ...SET, "--out", "new", "--scheme", "gd", "--batch-size", "2"],
        names: /batchSize|batch/,
      },
      { args: ["train", ...SET, "--out", "new", "--scheme", "sde", "--momentum", "0.5"], names: /momentum/ },
      { args: ["train", ...SET, "--out", "new", "--scheme", "adam", "--l", "2"], names: /l/ },
      { args: ["train", ...SET, "--out", "new", "--sampling", "online"], names: /online/ },
      {
        args: ["train", ...SET, "--out", "new", "--sampling", "without", "--batch-size", "9"],
        names: /batch size/,
      },
      { args: ["equilibrium", ...SET, "--group", "U,W", "--symmetry", "neuron:U,W,0"], names: /--group/ },
      { args: ["equilibrium", ...SET, "--group", "U"], names: /--group/ },
      { args: ["equilibrium", ...SET, "--group", "U,Q"], names: /Q/ },
      { args: ["equilibrium", ...SET, "--save", "new.npz"], names: /--save/ },
      { args: ["equilibrium", ...SET, "--symmetry", "scaling:W"], names: /scaling|symmetry/ },
      { args: ["measure", "model.json", "--data", "data.json", "--columns", "x=x0,x1"], names: /--columns/ },
      { args: ["measure", ...SET, "--samples", "5"], names: /samples/ },
    ]),
};

test("at least fifteen classes of twenty", () => {
  expect(Object.keys(classes).length).toBeGreaterThanOrEqual(15);
  expect(Object.keys(classes).length * OF_EACH).toBeGreaterThanOrEqual(300);
});

describe.each(Object.entries(classes))("%s", (name, bad) => {
  test(`${OF_EACH} of them are refused in one line`, async () => {
    const faults: string[] = [];
    for (let i = 0; i < OF_EACH; i++) {
      const { args, files = {}, names } = bad(dice(`${name} ${i}`));
      for (const [file, content] of Object.entries(files)) place.write(file, content);
      const before = place.state();
      const { code, out, err } = await place.call(args);
      const fault = (what: string) =>
        faults.push(`${what}: noetherflow ${args.join(" ")}\n    ${text(Object.keys(files))}\n    ${err}`);
      if (code !== 2) fault(`exit code ${code}`);
      if (out !== "") fault(`stdout ${text(out.slice(0, 60))}`);
      if (!/^noetherflow: [^\n]+\n$/.test(err)) fault("not one line");
      if (!names.test(err)) fault(`does not name ${names}`);
      if (/\bat .*:\d+:\d+|TypeError|undefined|RuntimeError/.test(err)) fault("the program's own words");
      if (text(place.state()) !== text(before)) fault("files changed");
      for (const file of Object.keys(files)) place.remove(file.split("/")[0]!);
    }
    expect(faults.join("\n")).toBe("");
  });
});

/**
 * Array files: what numpy wrote is read bit for bit (test/fixtures/numpy, made by tools/npy-fixtures.py), what is written here numpy reads
 * (where python3 with numpy is installed), and files from strangers are refused by a sentence before anything is allocated.
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { zipSync } from "fflate";
import { describe, expect, test } from "vitest";
import { NoetherflowError } from "../../src/errors.ts";
import { decodeNpy, decodeNpz, encodeNpy, encodeNpz, type NpyArray } from "../../src/records/records.ts";

const fixture = (name: string): Uint8Array =>
  readFileSync(fileURLToPath(new URL(`../fixtures/numpy/${name}`, import.meta.url)));

/** All bits of an array, with its kind and shape. */
const bits = ({ shape, values }: NpyArray) => [
  values.constructor.name,
  [...shape],
  Buffer.from(values.buffer, values.byteOffset, values.byteLength).toString("hex"),
];

/** What the fixtures hold, written apart from tools/npy-fixtures.py. */
const odd = [0, -0, Number.NaN, Infinity, -Infinity, 5e-324, 1.7976931348623157e308, 0.1];
const expected: Record<string, NpyArray> = {
  f8: { shape: [8], values: Float64Array.from(odd) },
  f4: { shape: [2, 3], values: Float32Array.from([0, -0, Number.NaN, Infinity, -Infinity, 0.1]) },
  i4: { shape: [2, 2], values: Int32Array.from([-2147483648, 2147483647, 0, -1]) },
  u4: { shape: [2], values: Uint32Array.from([4294967295, 0]) },
  number: { shape: [], values: Float64Array.of(2.5) },
  none: { shape: [0, 3], values: new Float64Array(0) },
};

function refusal(call: () => unknown): NoetherflowError {
  try {
    call();
  } catch (error) {
    expect(error).toBeInstanceOf(NoetherflowError);
    return error as NoetherflowError;
  }
  throw new Error("expected a refusal");
}

describe("what numpy wrote", () => {
  test.each(Object.keys(expected))("%s.npy is read bit for bit", (name) => {
    expect(bits(decodeNpy(fixture(`${name}.npy`)))).toEqual(bits(expected[name]!));
  });

  test.each(["stored.npz", "deflated.npz"])("%s too, with a name beyond ASCII", (file) => {
    const { zeros, ...found } = decodeNpz(fixture(file));
    expect(Object.keys(found).sort()).toEqual([...Object.keys(expected), "naïve name"].sort());
    for (const [name, array] of Object.entries(expected)) expect(bits(found[name]!)).toEqual(bits(array));
    expect([...found["naïve name"]!.values]).toEqual([0, 1, 2]);
    expect(zeros?.values.length).toBe(file === "stored.npz" ? undefined : 2000);
  });

  test.each([
    [
      "i8",
      "unsupported",
      'npy: an array of dtype <f8, <f4, <i4, <u4, <i2, <u2, |i1, |u1, got dtype "<i8". Write it with .astype("<f8").',
    ],
    ["c16", "unsupported", /got dtype "<c16"/],
    ["big", "unsupported", /got dtype ">f8"\. Write it with \.astype\("<f8"\)\.$/],
    [
      "fortran",
      "unsupported",
      "npy: an array in C order, got one in Fortran order. Write np.ascontiguousarray(a).",
    ],
    ["fields", "unsupported", /got dtype "\[\('a', '<f8'\), \('b', '<i4'\)\]"/],
    ["text", "unsupported", /got dtype "<U2"/],
  ])("an array of %s is refused by name", (name, code, message) => {
    const error = refusal(() => decodeNpy(fixture(`refused-${name}.npy`)));
    expect(error.code).toBe(code);
    if (typeof message === "string") expect(error.message).toBe(message);
    else expect(error.message).toMatch(message);
  });
});

describe("what is written", () => {
  const kinds = [
    fc.float64Array({ maxLength: 40 }),
    fc.float32Array({ maxLength: 40 }),
    fc.int32Array({ maxLength: 40 }),
    fc.uint32Array({ maxLength: 40 }),
    fc.int16Array({ maxLength: 40 }),
    fc.uint16Array({ maxLength: 40 }),
    fc.int8Array({ maxLength: 40 }),
    fc.uint8Array({ maxLength: 40 }),
  ] as const;
  const array = fc
    .oneof(...kinds)
    .chain((values) =>
      fc
        .constantFrom<number[]>(
          [values.length],
          [1, values.length],
          [values.length, 1],
          [values.length, 1, 1],
        )
        .map((shape): NpyArray => ({ shape, values })),
    );

  test("is read back bit for bit, aligned to 64 bytes", () => {
    fc.assert(
      fc.property(array, (a) => {
        const bytes = encodeNpy(a);
        expect((bytes.length - a.values.byteLength) % 64).toBe(0);
        expect(bits(decodeNpy(bytes))).toEqual(bits(a));
        // a Buffer is a view of a pool, and its slices share it
        expect(bits(decodeNpy(Buffer.from(bytes)))).toEqual(bits(a));
      }),
    );
  });

  test("as .npz by any name, and equal arrays give equal bytes", () => {
    const name = fc.oneof(
      fc.string({ unit: "grapheme", maxLength: 12 }),
      fc.constantFrom("__proto__", "constructor", "a/b", "..\\c", "", "toString", "é.npy"),
    );
    fc.assert(
      fc.property(
        fc.uniqueArray(fc.tuple(name, array), { selector: ([n]) => n, maxLength: 6 }),
        (entries) => {
          const arrays = Object.fromEntries(entries);
          const bytes = encodeNpz(arrays);
          const back = decodeNpz(bytes);
          expect(Object.keys(back).sort()).toEqual(entries.map(([n]) => n).sort());
          for (const [n, a] of entries) expect(bits(back[n]!)).toEqual(bits(a));
          expect(Buffer.compare(bytes, encodeNpz(arrays))).toBe(0);
        },
      ),
    );
  });

  test("has room for all numbers of its shape", () => {
    expect(refusal(() => encodeNpy({ shape: [2, 2], values: new Float64Array(3) })).message).toBe(
      "npy: 3 numbers in the shape [2, 2], got room for 4.",
    );
  });

  const hasNumpy = (() => {
    try {
      execFileSync("python3", ["-c", "import numpy"], { stdio: "ignore", timeout: 20_000 });
      return true;
    } catch {
      return false;
    }
  })();

  test.skipIf(!hasNumpy)("is what numpy reads (python3 with numpy is the oracle, where it is)", () => {
    const folder = mkdtempSync(join(tmpdir(), "noetherflow-npy-"));
    try {
      const path = join(folder, "all.npz");
      writeFileSync(path, encodeNpz({ ...expected, "naïve name": expected.f8! }));
      const program =
        "import sys, numpy as np; z = np.load(sys.argv[1]); " +
        "print('\\n'.join(f'{n} {z[n].dtype.str} {z[n].shape} {z[n].tobytes().hex()}' for n in sorted(z.files)))";
      const said = execFileSync("python3", ["-c", program, path], { encoding: "utf8", timeout: 20_000 });
      const dtype = (name: string) => (name.startsWith("n") ? "<f8" : `<${name}`);
      const tuple = (shape: readonly number[]) => `(${shape.join(", ")}${shape.length === 1 ? "," : ""})`;
      const lines = Object.entries({ ...expected, "naïve name": expected.f8! })
        .map(([name, a]) => `${name} ${dtype(name)} ${tuple(a.shape)} ${bits(a)[2]}`)
        .sort();
      expect(said.trimEnd().split("\n").sort()).toEqual(lines);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

describe("files from strangers", () => {
  const whole = encodeNpy({ shape: [2, 3], values: Float64Array.of(1, 2, 3, 4, 5, 6) });
  const withHeader = (text: string, data = 48) => {
    const head = new TextEncoder().encode(text);
    const bytes = new Uint8Array(10 + head.length + data);
    bytes.set(whole.subarray(0, 8));
    new DataView(bytes.buffer).setUint16(8, head.length, true);
    bytes.set(head, 10);
    return bytes;
  };

  test.each([
    ["nothing", new Uint8Array(0), /^npy: the bytes of a \.npy file, got 0 bytes of something else\.$/],
    ["text", new TextEncoder().encode("not an array at all"), /something else/],
    ["another version", whole.map((b, i) => (i === 6 ? 9 : b)), /got version 9/],
    [
      "one cut short",
      whole.subarray(0, whole.length - 1),
      /numbers of shape \[2, 3\], got 47 bytes of data\. The file was cut short/,
    ],
    ["one with more", Uint8Array.from([...whole, 0]), /got 49 bytes of data/],
    ["a header beyond the file", whole.subarray(0, 40), /got a header of 118 bytes/],
    ["a header of no dict", withHeader("hello"), /the header of a \.npy file, got "hello"/],
    ["a header without a shape", withHeader("{'descr': '<f8', 'fortran_order': False}"), /the header/],
    [
      "a shape of 2^80",
      withHeader("{'descr': '<f8', 'fortran_order': False, 'shape': (1099511627776, 1099511627776), }"),
      /got 48 bytes/,
    ],
    [
      "a shape of 10^30",
      withHeader(`{'descr': '<f8', 'fortran_order': False, 'shape': (1${"0".repeat(30)},), }`),
      /the header/,
    ],
    [
      "zeros times a lot",
      withHeader("{'descr': '<f8', 'fortran_order': False, 'shape': (0, 9007199254740991), }"),
      /got 48 bytes/,
    ],
  ])("%s", (_, bytes, message) => {
    const error = refusal(() => decodeNpy(bytes));
    expect(error.message).toMatch(message);
    expect(["shape", "version"]).toContain(error.code);
  });

  test("bytes with one changed are read or refused, never anything else", () => {
    const zipped = encodeNpz({ a: { shape: [2], values: Float64Array.of(1, 2) }, b: expected.i4! });
    const deflated = fixture("deflated.npz");
    fc.assert(
      fc.property(fc.constantFrom(whole, zipped, deflated), fc.nat(), fc.nat(255), (bytes, at, value) => {
        const changed = Uint8Array.from(bytes);
        changed[at % bytes.length] = value;
        try {
          if (bytes === whole) decodeNpy(changed);
          else decodeNpz(changed);
        } catch (error) {
          expect(error).toBeInstanceOf(NoetherflowError);
          expect((error as NoetherflowError).code).not.toBe("internal");
        }
        return true;
      }),
      { numRuns: 3000 },
    );
  });

  test("a zip bomb is refused before anything of it is unpacked", () => {
    // 30 MB of zeros in 30 kB, and a table of contents that names them 40 times
    const one = Buffer.from(zipSync({ "00.npy": new Uint8Array(30_000_000) }, { level: 9 }));
    const contents = one.readUInt32LE(one.length - 6);
    const entry = one.subarray(contents, one.length - 22);
    const entries = Array.from({ length: 40 }, (_, i) => {
      const copy = Buffer.from(entry);
      copy.write(String(i).padStart(2, "0"), 46);
      return copy;
    });
    const end = Buffer.from(one.subarray(one.length - 22));
    end.writeUInt16LE(40, 8);
    end.writeUInt16LE(40, 10);
    const bomb = Buffer.concat([one.subarray(0, contents), ...entries, end]);
    expect(bomb.length).toBeLessThan(40_000);
    const before = performance.now();
    const error = refusal(() => decodeNpz(bomb));
    expect(error.message).toMatch(/^npz: at most 1073741824 bytes after unpacking, got 1080000000 in \d+\.$/);
    expect(error.code).toBe("memory");
    expect(performance.now() - before).toBeLessThan(100);
  });

  test("a member that says it is larger than deflate can make it is refused", () => {
    const bytes = zipSync({ "a.npy": whole }, { level: 9 });
    const view = new DataView(bytes.buffer);
    // the size after unpacking, in the central directory
    let at = bytes.length - 22;
    at = view.getUint32(at + 16, true);
    view.setUint32(at + 24, 900_000_000, true);
    expect(refusal(() => decodeNpz(bytes)).code).toBe("memory");
  });

  test("members that are no arrays, and two of one name", () => {
    expect(refusal(() => decodeNpz(zipSync({ "evil.exe": whole }))).message).toBe(
      'npz: a zip of .npy files, got "evil.exe".',
    );
    const twice = zipSync({ "a.npy": whole, "b.npy": whole }, { level: 0 });
    const text = Buffer.from(twice);
    for (let at = text.indexOf("b.npy"); at >= 0; at = text.indexOf("b.npy", at + 1)) text.write("a.npy", at);
    expect(refusal(() => decodeNpz(text)).message).toBe(
      'npz: members of different names, got two of the name "a.npy".',
    );
    expect(refusal(() => decodeNpz(zipSync({ "a.npy": new Uint8Array(5) }))).message).toMatch(
      /^npz: "a\.npy": the bytes of a \.npy file/,
    );
  });
});

/** Plain data as JSON and arrays beside it: every number comes back with its bits, every key as it was. */
import { isDeepStrictEqual } from "node:util";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { NoetherflowError } from "../../src/errors.ts";
import { pack, printJSON, unpack } from "../../src/records/plain.ts";

/** Through text, as a file does. */
const through = (value: unknown): unknown => {
  const { json, arrays } = pack(value);
  return unpack("test", { json: JSON.parse(printJSON(json)), arrays });
};

const numbers = fc.oneof(fc.double(), fc.constantFrom(-0, Number.NaN, Infinity, -Infinity));
const lists = fc.oneof(
  fc.array(numbers, { maxLength: 5 }),
  fc.array(numbers, { minLength: 257, maxLength: 260 }),
  fc.float64Array({ maxLength: 300 }),
  fc.float32Array({ maxLength: 300 }),
  fc.int32Array({ maxLength: 300 }),
  fc.uint8Array({ maxLength: 300 }),
);
const keys = fc.oneof(
  fc.string(),
  fc.constantFrom("__proto__", "constructor", "$f64", "$npz", "$$", "$number", "", "a.b", "é", "[\n1,\n2\n]"),
);
const { value } = fc.letrec((tie) => ({
  value: fc.oneof(
    { maxDepth: 4 },
    numbers,
    lists,
    fc.string(),
    fc.boolean(),
    fc.constant(null),
    fc.array(tie("value"), { maxLength: 4 }),
    fc.array(fc.tuple(keys, tie("value")), { maxLength: 4 }).map((entries) => Object.fromEntries(entries)),
  ),
}));

describe("plain data", () => {
  test("comes back as it was: -0, NaN, typed arrays short and long, keys that begin with $", () => {
    fc.assert(
      fc.property(value, (x) => {
        // bit for bit, and not fooled by keys called constructor
        expect(isDeepStrictEqual(through(x), x)).toBe(true);
      }),
      { numRuns: 500 },
    );
  });

  test("is read by people: short arrays inside, numbers on one line", () => {
    const x = { eta: 0.1, theta: Float64Array.of(1, -0, Number.NaN), list: [1, 2, 3], text: "[\n1\n]" };
    const text = printJSON(pack(x).json);
    expect(text).toBe(
      '{\n "eta": 0.1,\n "theta": {\n  "$f64": [\n   1,\n   "-0",\n   "NaN"\n  ]\n },\n "list": [1, 2, 3],\n "text": "[\\n1\\n]"\n}\n',
    );
  });

  test("long arrays go beside it, by names that every zip and every system takes", () => {
    const long = new Float64Array(257);
    const { json, arrays } = pack({ "a/b": long, "a:b": long, A_b: long, list: Array.from(long) });
    expect(Object.keys(arrays)).toEqual(["a_b", "a_b-2", "A_b-3", "list"]);
    expect(json).toEqual({
      "a/b": { $npz: "a_b" },
      "a:b": { $npz: "a_b-2" },
      A_b: { $npz: "A_b-3" },
      list: { $list: "list" },
    });
  });

  test("what is no data is refused by its place", () => {
    const refused = (x: unknown) => {
      try {
        pack(x);
      } catch (error) {
        return (error as NoetherflowError).message;
      }
      throw new Error("expected a refusal");
    };
    expect(refused({ a: [1, { f: () => 1 }] })).toBe(
      "record: a.1.f: plain data and typed arrays, got a function.",
    );
    expect(refused({ when: new Date(0) })).toMatch(/^record: when: plain data and typed arrays/);
    expect(refused({ n: 1n })).toBe("record: n: plain data and typed arrays, got 1n.");
  });

  test.each([
    [{ $what: [1] }, /one of \$f64.*got "\$what"/],
    [{ $f64: [1], more: 1 }, /\$f64 alone in its object, got 2 keys/],
    [{ $f64: ["1"] }, /a number, "-0".*got "1"/],
    [{ $npz: "constructor" }, /an array of the file beside it, got "constructor"/],
    [{ $number: "12" }, /got "12"/],
  ])("JSON of another form is refused: %j", (json, message) => {
    expect(() => unpack("run.json", { json, arrays: {} })).toThrow(message);
    expect(() => unpack("run.json", { json, arrays: {} })).toThrow(NoetherflowError);
  });

  test("JSON of a hundred thousand levels is refused, not a crash", () => {
    let json: unknown = 1;
    for (let i = 0; i < 100_000; i++) json = [json];
    expect(() => unpack("run.json", { json, arrays: {} })).toThrow(
      "run.json: JSON of some thousand levels, got more.",
    );
  });
});

/**
 * Docstrings keep their word. Every `@example` of src/ is a program of its own, after the lines that the docstring of
 * src/index.ts gives: it is type-checked, and run in an empty folder. A comment behind a statement that begins as a value does
 * is a claim about the value of the statement: numbers equal to the digits shown, of an object the fields that are named,
 * and what stands behind a semicolon is said to readers alone. Other comments are words. The API reference builds without a
 * warning: every public name has a docstring, and every link leads somewhere.
 */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Application, Logger, LogLevel, TypeDocReader } from "typedoc";
import ts from "typescript";
import { describe, expect, test } from "vitest";
import * as experiments from "../src/experiments/experiment.ts";
import * as root from "../src/index.ts";
import * as parallel from "../src/parallel.ts";
import * as records from "../src/records/records.ts";
import * as report from "../src/report/report.ts";
import { readSources } from "./helpers/source.ts";

const home = fileURLToPath(new URL("..", import.meta.url));
const entries = {
  "index.ts": root,
  "parallel.ts": parallel,
  "records/records.ts": records,
  "experiments/experiment.ts": experiments,
  "report/report.ts": report,
};

interface Example {
  /** Where it stands, and of what it is one. */
  readonly title: string;
  readonly text: string;
}

/** A comment that claims a value, of a statement from `start` to `end`. */
interface Claim {
  readonly start: number;
  readonly end: number;
  readonly text: string;
}

/** Every `@example` of a file, by its syntax tree. */
function examplesOf(path: string, text: string): Example[] {
  const file = ts.createSourceFile(path, text, ts.ScriptTarget.ESNext, true);
  const found: Example[] = [];
  const visit = (node: ts.Node): void => {
    for (const tag of ts.getJSDocCommentsAndTags(node).flatMap(tagsOf)) {
      if (tag.tagName.text !== "example") continue;
      const line = file.getLineAndCharacterOfPosition(tag.getStart()).line + 1;
      const example = ts.getTextOfJSDocComment(tag.comment) ?? "";
      if (found.every((e) => !e.title.startsWith(`${path}:${line} `)))
        found.push({ title: `${path}:${line} ${nameOf(node)}`, text: example });
    }
    ts.forEachChild(node, visit);
  };
  visit(file);
  return found;
}

const tagsOf = (doc: ts.JSDoc | ts.JSDocTag): readonly ts.JSDocTag[] =>
  ts.isJSDoc(doc) ? (doc.tags ?? []) : [doc];

function nameOf(node: ts.Node): string {
  const named = ts.isVariableStatement(node) ? node.declarationList.declarations[0]! : node;
  return ts.getNameOfDeclaration(named as ts.Declaration)?.getText() ?? "";
}

/** Claims of a program: of its statements, or of the value that `const name = ...` declares. */
function claimsOf(text: string): Claim[] {
  const file = ts.createSourceFile("example.ts", text, ts.ScriptTarget.ESNext, true);
  const claims: Claim[] = [];
  const visit = (node: ts.Node): void => {
    const hasValue = ts.isExpressionStatement(node) || ts.isVariableStatement(node);
    const [comment] = hasValue ? (ts.getTrailingCommentRanges(text, node.end) ?? []) : [];
    const words = comment === undefined ? "" : text.slice(comment.pos + 2, comment.end).trim();
    if (/^([-\d[{"]|(true|false|null|undefined|NaN|Infinity)\b)/.test(words)) {
      const value = ts.isExpressionStatement(node)
        ? node.expression
        : (node as ts.VariableStatement).declarationList.declarations[0]!.initializer!;
      claims.push({ start: value.getStart(), end: value.end, text: words });
    }
    ts.forEachChild(node, visit);
  };
  visit(file);
  return claims;
}

/** Whether a value is what a claim says. */
function agrees(value: unknown, claim: ts.Expression): boolean {
  if (ts.isParenthesizedExpression(claim)) return agrees(value, claim.expression);
  const text = claim.getText();
  if (ts.isStringLiteral(claim)) return value === claim.text;
  if (ts.isArrayLiteralExpression(claim)) {
    if (!Array.isArray(value) && !ArrayBuffer.isView(value)) return false;
    const items = Array.from(value as ArrayLike<unknown>);
    return items.length === claim.elements.length && claim.elements.every((e, i) => agrees(items[i], e));
  }
  if (ts.isObjectLiteralExpression(claim))
    return claim.properties.every(
      (p) =>
        ts.isPropertyAssignment(p) &&
        agrees((value as Record<string, unknown>)[(p.name as ts.Identifier).text], p.initializer),
    );
  const words: Record<string, unknown> = { true: true, false: false, null: null, undefined: undefined };
  if (Object.hasOwn(words, text)) return value === words[text];
  if (typeof value !== "number" || !/^-?(\d[\d.]*(e[+-]?\d+)?|Infinity|NaN)$/.test(text)) return false;
  const claimed = Number(text);
  if (Number.isInteger(claimed) || !Number.isFinite(claimed)) return Object.is(value, claimed);
  const digits = text
    .replace(/e.*/, "")
    .replace(/^[-0.]+/, "")
    .replace(".", "").length;
  return Number(value.toPrecision(digits)) === claimed;
}

const literalOf = (text: string): ts.Expression => {
  const file = ts.createSourceFile("claim.ts", `(${text.split(";")[0]!})`, ts.ScriptTarget.ESNext, true);
  return (file.statements[0] as ts.ExpressionStatement).expression;
};

/** Lines before every example, from the docstring of src/index.ts. */
const preamble = /^ \* ```ts\n([\s\S]*?)^ \* ```$/m
  .exec(readFileSync(`${home}src/index.ts`, "utf8"))![1]!
  .replaceAll(/^ \* /gm, "");

const entryPaths = [...Object.keys(entries), "external.ts"];

/** What an example may import: everything public. */
const imports: Record<string, unknown> = Object.assign({}, ...Object.values(entries));

const javascript = (text: string): string =>
  ts.transpileModule(text, {
    compilerOptions: { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext },
  }).outputText;
const AsyncFunction = Object.getPrototypeOf(async () => {}).constructor as FunctionConstructor;

/** Runs an example; returns what its claimed statements came to. */
async function run(example: Example, claims: readonly Claim[]): Promise<unknown[][]> {
  const values: unknown[][] = claims.map(() => []);
  let { text } = example;
  for (const [i, { start, end }] of [...claims.entries()].reverse())
    text = `${text.slice(0, start)}claim(${i}, ${text.slice(start, end)})${text.slice(end)}`;
  const execute = new AsyncFunction(
    ...Object.keys(imports),
    "claim",
    "console",
    javascript(`${preamble}\n{\n${text}\n}\nengine.dispose();`),
  ) as (...args: unknown[]) => Promise<void>;
  const claim = (i: number, value: unknown): unknown => {
    values[i]!.push(value);
    return value;
  };
  const folder = mkdtempSync(join(tmpdir(), "noetherflow-docstring-"));
  process.chdir(folder);
  try {
    await execute(...Object.values(imports), claim, { log: (value: unknown) => value });
  } finally {
    process.chdir(home);
    rmSync(folder, { recursive: true });
  }
  return values;
}

const examples = [...readSources()].flatMap(([path, text]) => examplesOf(path, text));

test("there are examples, and claims in them", () => {
  const claims = examples.flatMap(({ text }) => claimsOf(text));
  expect(examples.length).toBeGreaterThanOrEqual(100);
  expect(claims.length).toBeGreaterThanOrEqual(80);
});

test("every function of a namespace and every method of Problem has an example", () => {
  const used = examples.map(({ text }) => text).join("\n");
  const { layers, losses, models, predictions, symmetry } = root;
  const functions = Object.entries({ layers, losses, models, predictions, symmetry }).flatMap(([space, of]) =>
    Object.keys(of).map((name) => `${space}.${name}(`),
  );
  expect(functions.filter((call) => !used.includes(call))).toEqual([]);
  // methods with a docstring of several lines, which leaves out what is internal
  const sources = [...readSources()].filter(([path]) => /^problem(\/|\.ts)/.test(path));
  const page = sources.map(([, text]) => text).join("\n");
  const methods = [...page.matchAll(/^ {3}\*\/\n {2}(?:async )?\*?([a-z]\w+)\(/gm)].map((m) => m[1]!);
  expect(methods.length).toBeGreaterThan(35);
  expect(methods.filter((name) => !used.includes(`.${name}(`))).toEqual([]);
});

test.each(examples)("$title", async (example) => {
  const claims = claimsOf(example.text);
  const values = await run(example, claims);
  expect(values).toHaveLength(claims.length);
  for (const [i, { text }] of claims.entries()) {
    expect(values[i], `"${text}" is never reached`).not.toEqual([]);
    for (const value of values[i]!)
      expect(agrees(value, literalOf(text)), `${JSON.stringify(value)} is not ${text}`).toBe(true);
  }
});

/** Where the example of each line of `program` begins. */
const starts: number[] = [];
const checkedName = `${home}docstring-examples.ts`;

/** All examples and all entries as one program of the compiler: they are checked, and the reference is made of it. */
function compile(): ts.Program {
  const lead = Object.entries(entries)
    .map(([path, entry]) => `import { ${Object.keys(entry).join(", ")} } from "./src/${path}";`)
    .join("\n");
  let text = `${lead}\nimport type { Expr } from "./src/index.ts";\n`;
  for (const example of examples) {
    starts.push(text.split("\n").length);
    text += `async () => {\n${preamble}\n{\n${example.text}\n}\n};\n`;
  }
  const { config } = ts.readConfigFile(`${home}tsconfig.json`, ts.sys.readFile) as {
    config: { compilerOptions: object };
  };
  const { options } = ts.convertCompilerOptionsFromJson(config.compilerOptions, home);
  const host = ts.createCompilerHost(options);
  const { getSourceFile } = host;
  host.getSourceFile = (file, target, ...rest) =>
    file === checkedName
      ? ts.createSourceFile(file, text, target, true)
      : getSourceFile(file, target, ...rest);
  return ts.createProgram([checkedName, ...entryPaths.map((path) => `${home}src/${path}`)], options, host);
}

describe("under the compiler", () => {
  let made: ts.Program | undefined;
  const compiled = (): ts.Program => {
    made ??= compile();
    return made;
  };
  test("every example has the types it needs", () => {
    const program = compiled();
    const file = program.getSourceFile(checkedName)!;
    const found = [...program.getSyntacticDiagnostics(file), ...program.getSemanticDiagnostics(file)];
    const problems = found.map((d) => {
      const { line } = file.getLineAndCharacterOfPosition(d.start!);
      const at = examples[starts.filter((start) => start <= line + 1).length - 1]?.title ?? "before all";
      return `${at}: ${ts.flattenDiagnosticMessageText(d.messageText, "\n")}`;
    });
    expect(problems).toEqual([]);
  });

  test("the API reference has no warnings", async () => {
    const program = compiled();
    const app = await Application.bootstrapWithPlugins({ options: home }, [new TypeDocReader()]);
    const warnings: string[] = [];
    app.logger = Object.assign(new Logger(), {
      log: (message: string, level: LogLevel) => void (level >= LogLevel.Warn && warnings.push(message)),
    });
    const project = app.converter.convert(
      entryPaths.map((path) => ({
        displayName: path,
        program,
        sourceFile: program.getSourceFile(`${home}src/${path}`)!,
      })),
    );
    app.validate(project);
    expect(warnings).toEqual([]);
    const names = ["", "/experiments", "/external", "/parallel", "/records", "/report"];
    expect(project.children?.map((c) => c.name).sort()).toEqual(names.map((n) => `noetherflow${n}`));
  });
});

describe("the checker", () => {
  const holds = (value: unknown, claim: string) => agrees(value, literalOf(claim));
  test("takes numbers to the digits shown, and integers as they are", () => {
    expect(holds(0.24996, "0.25")).toBe(true);
    expect(holds(0.256, "0.25")).toBe(false);
    expect(holds(3.00001, "3")).toBe(false);
    expect(holds(-1.26e-7, "-1.3e-7")).toBe(true);
    expect(holds("3", "3")).toBe(false);
  });
  test("goes into lists and the fields that are named", () => {
    expect(holds(new Float64Array([1, 2.5]), "[1, 2.5]")).toBe(true);
    expect(holds([1], "[1, 2]")).toBe(false);
    expect(holds({ a: "x", b: [{ c: null }] }, "{ b: [{ c: null }] }; of many")).toBe(true);
    expect(holds({ a: "x" }, '{ a: "y" }')).toBe(false);
  });
  test("finds claims behind statements and declarations, and no others", () => {
    const text = 'f(1); // 2\nconst a = g(); // words\nconst b = h(); // "x"\nif (b) k(); // -3';
    expect(claimsOf(text).map((c) => [text.slice(c.start, c.end), c.text])).toEqual([
      ["f(1)", "2"],
      ["h()", '"x"'],
      ["k()", "-3"],
    ]);
  });
  test("finds examples by the syntax tree", () => {
    const text = 'const s = "/** @example no */";\n/** @example yes() */\nfunction f() {}\n// @example no';
    expect(examplesOf("a.ts", text)).toEqual([{ title: "a.ts:2 f", text: "yes()" }]);
  });
});

import ts from "typescript";
import { describe, expect, test } from "vitest";
import { lineOf, parse, readSources, type Sources, valueImports } from "./helpers/source.ts";

/**
 * What of Math gives the same bits in every host: exact operations and constants. Everything else (exp, log, sin, pow,
 * hypot, cbrt, random, ...) differs between engines or is not seeded, and belongs in assembly/.
 */
const exactMath = new Set(
  "abs ceil clz32 floor fround imul max min round sign sqrt trunc E LN10 LN2 LOG10E LOG2E PI SQRT1_2 SQRT2".split(
    " ",
  ),
);

/** Packages that the root and the external entry may reach at run time. */
// @noble/hashes is a development dependency whose sha256 the build inlines: users install nothing for it
const rootPackages = [
  "@assemblyscript/loader",
  "seedrandom",
  "@noble/hashes/sha2.js",
  "@noble/hashes/utils.js",
];

/** Programs: files that are run and not imported, so they may act when loaded. */
const programs = ["cli.ts", "reproduce-worker.ts", "parallel/worker.ts"];

/** The name that is read from Math at this node, "Math" itself if it is passed around, or undefined. */
function mathUse(node: ts.Node): string | undefined {
  const isMath = ts.isIdentifier(node) && node.text === "Math";
  if (!isMath) return undefined;
  // `globalThis.Math` stands for Math; any other `x.Math` and `{ Math: ... }` is only a name.
  let whole: ts.Node = node;
  if (ts.isPropertyAccessExpression(node.parent) && node.parent.name === node) {
    if (!/^(globalThis|self|window)$/.test(node.parent.expression.getText())) return undefined;
    whole = node.parent;
  } else if (ts.isPropertyAssignment(node.parent) && node.parent.name === node) {
    return undefined;
  }
  const user = whole.parent;
  if (ts.isPropertyAccessExpression(user) && user.expression === whole) return user.name.text;
  if (ts.isElementAccessExpression(user) && ts.isStringLiteralLike(user.argumentExpression)) {
    return user.argumentExpression.text;
  }
  return "Math";
}

function isPower(node: ts.Node): boolean {
  return (
    node.kind === ts.SyntaxKind.AsteriskAsteriskToken ||
    node.kind === ts.SyntaxKind.AsteriskAsteriskEqualsToken
  );
}

function arithmeticViolations(path: string, text: string): string[] {
  const file = parse(path, text);
  const violations: string[] = [];
  const visit = (node: ts.Node): void => {
    const name = mathUse(node);
    if (name === "Math") violations.push(`${path}:${lineOf(file, node)} passes Math around`);
    else if (name !== undefined && !exactMath.has(name))
      violations.push(`${path}:${lineOf(file, node)} uses Math.${name}`);
    else if (isPower(node)) violations.push(`${path}:${lineOf(file, node)} uses **`);
    ts.forEachChild(node, visit);
  };
  visit(file);
  return violations;
}

/** Code that runs at import: statements that are no declarations, bare imports, and top-level await. */
function importTimeViolations(path: string, text: string): string[] {
  const file = parse(path, text);
  const isDeclaration = (node: ts.Statement): boolean =>
    ts.isImportDeclaration(node) ||
    ts.isExportDeclaration(node) ||
    ts.isExportAssignment(node) ||
    ts.isVariableStatement(node) ||
    ts.isFunctionDeclaration(node) ||
    ts.isClassDeclaration(node) ||
    ts.isInterfaceDeclaration(node) ||
    ts.isTypeAliasDeclaration(node) ||
    ts.isEnumDeclaration(node) ||
    ts.isModuleDeclaration(node);
  const violations: string[] = [];
  const visit = (node: ts.Node): void => {
    if (ts.isFunctionLike(node)) return;
    const awaits =
      ts.isAwaitExpression(node) || (ts.isForOfStatement(node) && node.awaitModifier !== undefined);
    if (awaits) violations.push(`${path}:${lineOf(file, node)} awaits at the top level`);
    ts.forEachChild(node, visit);
  };
  visit(file);
  if (programs.includes(path)) return violations;
  for (const statement of file.statements) {
    if (!isDeclaration(statement)) violations.push(`${path}:${lineOf(file, statement)} runs at import`);
  }
  for (const { bare, specifier, line } of valueImports(path, text)) {
    if (bare) violations.push(`${path}:${line} imports ${specifier} for its effects`);
  }
  return violations;
}

/** Packages outside `rootPackages` that an entry reaches through value imports, static or dynamic. */
function packageViolations(sources: Sources, entry: string): string[] {
  const seen = new Set<string>();
  const violations: string[] = [];
  const visit = (path: string): void => {
    const text = sources.get(path);
    if (text === undefined || seen.has(path)) return;
    seen.add(path);
    for (const { specifier, target, line } of valueImports(path, text)) {
      if (target !== undefined) visit(target);
      else if (!rootPackages.includes(specifier)) violations.push(`${path}:${line} imports ${specifier}`);
    }
  };
  visit(entry);
  return sources.has(entry) ? violations : [`${entry} is missing`];
}

function each(sources: Sources, check: (path: string, text: string) => string[]): string[] {
  return [...sources].flatMap(([path, text]) => check(path, text));
}

describe("src/", () => {
  const sources = readSources();
  test("uses no Math whose bits depend on the host, and no **", () => {
    expect(each(sources, arithmeticViolations)).toEqual([]);
  });
  test("runs nothing at import and has no top-level await", () => {
    expect(each(sources, importTimeViolations)).toEqual([]);
  });
  test.each(["index.ts", "external.ts"])("%s reaches only the loader and seedrandom", (entry) => {
    expect(packageViolations(sources, entry)).toEqual([]);
  });
});

describe("the checker refuses", () => {
  const lines = (text: string) => arithmeticViolations("core/key.ts", text).length;
  const loads = (text: string, path = "core/key.ts") => importTimeViolations(path, text).length;

  test.each(
    (
      "exp log log2 log10 log1p expm1 sin cos tan asin acos atan atan2 sinh cosh tanh asinh acosh atanh pow cbrt " +
      "hypot random"
    ).split(" "),
  )("Math.%s", (name) => {
    expect(arithmeticViolations("core/key.ts", `\nconst y = Math.${name}(x);`)).toEqual([
      `core/key.ts:2 uses Math.${name}`,
    ]);
  });
  test("Math by another road: index, destructuring, alias, globalThis", () => {
    expect(lines('const y = Math["exp"](x);')).toBe(1);
    expect(lines("const y = Math[name](x);")).toBe(1);
    expect(lines("const { exp } = Math;")).toBe(1);
    expect(lines("const M = Math; M.exp(1);")).toBe(1);
    expect(lines("const y = globalThis.Math.exp(x);")).toBe(1);
    expect(lines("xs.map(Math.exp)")).toBe(1);
  });
  test("the operators ** and **=", () => {
    expect(lines("const y = x ** 2;")).toBe(1);
    expect(lines("let y = 2; y **= 2;")).toBe(1);
  });
  test("top-level await, calls, loops and bare imports, but not in functions", () => {
    expect(loads("const m = await load();")).toBe(1);
    expect(loads("for await (const x of xs) {}")).toBe(2);
    expect(loads("register();")).toBe(1);
    expect(loads("table.x = 1;")).toBe(1);
    expect(loads('import "seedrandom";')).toBe(1);
    expect(loads("const f = async () => { await g(); h(); }; class C { async m() { await g(); } }")).toBe(0);
    expect(loads("main();", "cli.ts")).toBe(0);
    expect(loads("await main();", "cli.ts")).toBe(1);
  });
  test("a package that the root reaches through other files, also by import()", () => {
    const sources: Sources = new Map([
      ["index.ts", 'export { a } from "./core/a.ts"; import type { Zod } from "zod";'],
      ["core/a.ts", 'export const a = () => import("node:fs"); import seedrandom from "seedrandom";'],
      ["report/report.ts", 'import { parseHTML } from "linkedom";'],
    ]);
    expect(packageViolations(sources, "index.ts")).toEqual(["core/a.ts:1 imports node:fs"]);
  });
  test("but neither exact Math, nor comments, strings, types and properties that share a name", () => {
    const innocent = `
      // Math.exp(x) ** 2
      const text = "Math.exp(x) ** 2", more = \`Math.log \${Math.sqrt(Math.abs(x)) * Math.PI}\`;
      const y = ops.exp(x) + ops.pow(x, 2) + record.Math.exp + { Math: 1 }.Math;
      const { exp } = ops;`;
    expect(lines(innocent)).toBe(0);
  });
});

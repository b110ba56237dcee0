/**
 * The README keeps its word. Every `ts` block is a program of its own: it is type-checked and run, and what it prints
 * must be the `text` block that follows it (a `ts` block without one must print nothing). Every `json` block is a model
 * or sampler file that is read and written back. Every local link leads to a file.
 *
 * UPDATE_README=1 writes the outputs that the programs have now.
 */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import ts from "typescript";
import { describe, expect, test } from "vitest";
import * as noetherflow from "../src/index.ts";
import * as parallel from "../src/parallel.ts";
import * as records from "../src/records/records.ts";

const root = fileURLToPath(new URL("..", import.meta.url));
const path = `${root}README.md`;
const readme = readFileSync(path, "utf8");

interface Block {
  readonly language: string;
  readonly text: string;
  readonly line: number;
  /** Where the text starts in the file. */
  readonly start: number;
}

function blocksOf(markdown: string): Block[] {
  return [...markdown.matchAll(/^```(\w*)\n([\s\S]*?)^```$/gm)].map((match) => ({
    language: match[1]!,
    text: match[2]!,
    line: markdown.slice(0, match.index).split("\n").length,
    start: match.index + match[0].indexOf("\n") + 1,
  }));
}

const blocks = blocksOf(readme);
const programs = blocks.flatMap((block, i) => {
  const next = blocks[i + 1];
  return block.language === "ts" ? [{ block, output: next?.language === "text" ? next : undefined }] : [];
});

/** What a program prints. Its imports of the package are answered with this source. */
async function run(program: string): Promise<string> {
  const body = program
    .replace(/^import \{([^}]*)\} from "noetherflow";$/m, "const {$1} = noetherflow;")
    .replace(/^import \{([^}]*)\} from "noetherflow\/parallel";$/m, "const {$1} = parallel;")
    .replace(/^import \{([^}]*)\} from "noetherflow\/records";$/m, "const {$1} = records;");
  const { outputText } = ts.transpileModule(body, {
    compilerOptions: { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext },
  });
  const lines: string[] = [];
  const AsyncFunction = Object.getPrototypeOf(async () => {}).constructor as FunctionConstructor;
  const execute = new AsyncFunction("noetherflow", "parallel", "records", "console", outputText) as (
    ...args: unknown[]
  ) => Promise<void>;
  const log = (...parts: unknown[]) => void lines.push(parts.join(" "));
  // what a program writes to disk goes where it leaves no trace
  const [home, elsewhere] = [process.cwd(), mkdtempSync(join(tmpdir(), "noetherflow-readme-"))];
  process.chdir(elsewhere);
  try {
    await execute(noetherflow, parallel, records, { log });
  } finally {
    process.chdir(home);
    rmSync(elsewhere, { recursive: true });
  }
  return lines.map((line) => `${line.trimEnd()}\n`).join("");
}

test("has the programs, files and outputs that are checked below", () => {
  expect(programs.length).toBeGreaterThanOrEqual(3);
  expect(blocks.filter((b) => b.language === "text")).toHaveLength(programs.filter((p) => p.output).length);
  for (const { language, line } of blocks)
    expect(["ts", "text", "json", "sh"], `block at line ${line}`).toContain(language);
});

describe.each(programs)("the program at line $block.line", ({ block, output }) => {
  test("prints what the page says", async () => {
    const printed = await run(block.text);
    if (process.env.UPDATE_README === "1" && output !== undefined) {
      const now = readFileSync(path, "utf8");
      const [target] = blocksOf(now).filter(
        (b) => b.language === "text" && b.start > now.indexOf(block.text),
      );
      writeFileSync(
        path,
        now.slice(0, target!.start) + printed + now.slice(target!.start + target!.text.length),
      );
    } else expect(printed).toBe(output?.text ?? "");
    expect(printed).not.toContain("NaN");
  });
});

test("the programs compile under strict types", () => {
  const names = programs.map(({ block }) => `${root}readme-line-${block.line}.ts`);
  const texts = new Map(names.map((name, i) => [name, `${programs[i]!.block.text}\nexport {};\n`]));
  const { config } = ts.readConfigFile(`${root}tsconfig.json`, ts.sys.readFile) as {
    config: { compilerOptions: object };
  };
  const { options } = ts.convertCompilerOptionsFromJson(config.compilerOptions, root);
  const host = ts.createCompilerHost(options);
  const [fileExists, readFile, getSourceFile] = [host.fileExists, host.readFile, host.getSourceFile];
  host.fileExists = (file) => texts.has(file) || fileExists(file);
  host.readFile = (file) => texts.get(file) ?? readFile(file);
  host.getSourceFile = (file, target, ...rest) => {
    const text = texts.get(file);
    return text === undefined
      ? getSourceFile(file, target, ...rest)
      : ts.createSourceFile(file, text, target, true);
  };
  const program = ts.createProgram(
    names,
    {
      ...options,
      paths: {
        noetherflow: [`${root}src/index.ts`],
        "noetherflow/parallel": [`${root}src/parallel.ts`],
        "noetherflow/records": [`${root}src/records/records.ts`],
      },
    },
    host,
  );
  const problems = names.flatMap((name) => {
    const file = program.getSourceFile(name)!;
    return [...program.getSyntacticDiagnostics(file), ...program.getSemanticDiagnostics(file)].map(
      (d) => `${name.slice(root.length)}: ${ts.flattenDiagnosticMessageText(d.messageText, "\n")}`,
    );
  });
  expect(problems).toEqual([]);
}, 60_000);

test.each(blocks.filter((b) => b.language === "json"))(
  "the file at line $line reads and writes back",
  ({ text }) => {
    const json = JSON.parse(text) as { schema: string };
    const read = json.schema.startsWith("noetherflow-sampler/")
      ? noetherflow.parseSampler
      : noetherflow.parseModel;
    expect(json.schema).toMatch(/^noetherflow-(model|sampler)\/1$/);
    const written = JSON.stringify(read(text));
    expect(JSON.stringify(read(written))).toBe(written);
  },
);

test("its table of ops names every op of a model file and no other", () => {
  const table = readme.slice(readme.indexOf("| ops | meaning |"), readme.indexOf("The builders in `ops`"));
  const named = [...table.matchAll(/^\| (.*?) \|/gm)]
    .slice(1)
    .flatMap((row) => [...row[1]!.matchAll(/`([a-z_]+)`/g)].map((m) => m[1]!));
  const camel = (name: string) => name.replace(/_(\w)/g, (_, c: string) => c.toUpperCase());
  expect(named.map(camel).sort()).toEqual(Object.keys(noetherflow.ops).sort());
});

const pages = [
  ..."README.md ARCHITECTURE.md CONTRIBUTING.md CHANGELOG.md docs/glossary.md".split(" "),
  ...readdirSync(`${root}docs/adr`).map((file) => `docs/adr/${file}`),
];

test.each(pages)("links and paths of %s lead to files", (page) => {
  const text = readFileSync(`${root}${page}`, "utf8");
  const folder = page.slice(0, page.lastIndexOf("/") + 1);
  const links = [...text.matchAll(/\]\(([^)#]+)[^)]*\)/g)]
    .map((m) => m[1]!)
    .filter((l) => !/^https?:/.test(l));
  // a path in code font is a promise too; patterns and what the build writes are not
  const paths = [...text.matchAll(/`((?:src|assembly|test|tools|docs|examples)\/[\w./-]+)`/g)].map(
    (m) => m[1]!,
  );
  const missing = [...links.map((link) => `${folder}${link}`), ...paths].filter(
    (p) => !existsSync(`${root}${p}`),
  );
  expect(missing).toEqual([]);
});

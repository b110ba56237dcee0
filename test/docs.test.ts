/**
 * The pages keep their word: README.md and everything in docs/.
 *
 *   ts       a program of its own: type-checked, run, and what it prints is the `text` block that follows (none: it prints nothing)
 *   sh       the commands and options of `noetherflow` that it names exist; one with a `text` block behind it is run, block after
 *            block of a page in one folder, and prints that
 *   json     a model, a sampler or a generator, read and written back
 *   js       of web pages: type-checked, not run
 *   html, python, jsonc, csv    shown, not run
 *
 * A name behind the language, as in "json model.json", puts the block into the folder in which the page's commands run. Links lead to
 * files and to headings. UPDATE_DOCS=1 writes the outputs that programs and commands have now; read the difference.
 */
import { execFile } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, posix } from "node:path";
import { fileURLToPath } from "node:url";
import ts from "typescript";
import { afterAll, describe, expect, test } from "vitest";
import { createProgram } from "../src/cli/program.ts";
import * as noetherflow from "../src/index.ts";

const root = fileURLToPath(new URL("..", import.meta.url));
const LANGUAGES = ["ts", "text", "sh", "json", "js", "html", "python", "jsonc", "csv"];
/** Commands and programs take a second or two; a loaded machine takes many times that. */
const LIMIT = 180_000;
/** Stands in the pages for the folder that a test works in. */
const FOLDER = "/home/you/try";
/** What the package's entries are here. */
const ENTRIES: Readonly<Record<string, string>> = {
  noetherflow: "src/index.ts",
  "noetherflow/experiments": "src/experiments/experiment.ts",
  "noetherflow/external": "src/external.ts",
  "noetherflow/parallel": "src/parallel.ts",
  "noetherflow/records": "src/records/records.ts",
  "noetherflow/report": "src/report/report.ts",
};

const markdown = (folder: string): string[] =>
  readdirSync(`${root}${folder}`)
    .filter((file) => file.endsWith(".md"))
    .map((file) => `${folder}/${file}`);
const pages = ["README.md", ...markdown("docs"), ...markdown("docs/guides")];
const textOf = (page: string): string => readFileSync(`${root}${page}`, "utf8");

interface Block {
  readonly page: string;
  readonly line: number;
  readonly language: string;
  /** The name of a file, or nothing. */
  readonly name: string;
  readonly text: string;
  /** What the page says it prints, if a `text` block comes next. */
  readonly output: string | undefined;
}

function blocksOf(page: string): Block[] {
  const text = textOf(page);
  const found = [...text.matchAll(/^```([^\n]*)\n([\s\S]*?)^```$/gm)];
  return found.map((match, i) => {
    const [language = "", name = ""] = match[1]!.split(" ");
    const next = found[i + 1];
    return {
      page,
      line: text.slice(0, match.index).split("\n").length,
      language,
      name,
      text: match[2]!,
      output: next?.[1] === "text" ? next[2] : undefined,
    };
  });
}

const blocks = pages.flatMap(blocksOf);
const inLanguage = (language: string): Block[] => blocks.filter((block) => block.language === language);

/** Compares with what the page says, or writes it there. */
function settle({ page, text, output }: Block, printed: string): void {
  if (process.env.UPDATE_DOCS === "1" && output !== undefined) {
    const now = textOf(page);
    const from = now.indexOf("```text\n", now.indexOf(text)) + "```text\n".length;
    const to = now.indexOf("```\n", from);
    writeFileSync(`${root}${page}`, now.slice(0, from) + printed + now.slice(to));
  } else expect(printed).toBe(output ?? "");
  expect(printed).not.toContain("NaN");
}

const trimmed = (text: string): string => text.replaceAll(/[ \t]+$/gm, "");
const temporary = (): string => mkdtempSync(join(tmpdir(), "noetherflow-docs-"));

test("pages have the blocks that are checked below, and no others", () => {
  for (const { page, line, language } of blocks)
    expect(LANGUAGES, `${page}, block at line ${line}`).toContain(language);
  expect(inLanguage("ts").length).toBeGreaterThanOrEqual(8);
  expect(inLanguage("sh").filter((b) => b.output !== undefined).length).toBeGreaterThanOrEqual(5);
  // what no program or command prints would be checked by nothing; a page that is written from the program has a test of its own
  const byHand = blocks.filter(({ page }) => !textOf(page).startsWith("<!-- Written from"));
  const printed = byHand.filter((b) => ["ts", "sh"].includes(b.language) && b.output !== undefined);
  expect(byHand.filter((b) => b.language === "text")).toHaveLength(printed.length);
});

describe.each(inLanguage("ts"))("the program of $page, line $line", (block) => {
  /** An import statement as a line of a function's body. */
  const asStatement = (_: string, what: string, from: string): string => {
    const names = what.replaceAll(/\btype \w+,?/g, "").replaceAll(" as ", ": ");
    const source = ENTRIES[from];
    return `const ${names} = await load(${JSON.stringify(source === undefined ? from : `../${source}`)});`;
  };

  test(
    "prints what the page says",
    async () => {
      const body = block.text
        .replaceAll(/^import type .*$/gm, "")
        .replaceAll(/^import (\{[^}]*\}) from "([^"]+)";$/gm, asStatement);
      const { outputText } = ts.transpileModule(body, {
        compilerOptions: { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext },
      });
      const AsyncFunction = Object.getPrototypeOf(async () => {}).constructor as FunctionConstructor;
      const execute = new AsyncFunction("load", "console", outputText) as (
        load: (path: string) => Promise<unknown>,
        console: { log(...parts: unknown[]): void },
      ) => Promise<void>;
      const lines: string[] = [];
      // what a program writes to disk goes where it leaves no trace
      const [home, elsewhere] = [process.cwd(), temporary()];
      process.chdir(elsewhere);
      try {
        await execute((path) => import(path), { log: (...parts) => void lines.push(parts.join(" ")) });
      } finally {
        process.chdir(home);
        rmSync(elsewhere, { recursive: true });
      }
      settle(block, trimmed(lines.map((line) => `${line.trimEnd()}\n`).join("")));
    },
    LIMIT,
  );
});

/** What TypeScript has to say about blocks, each a file of its own in the root of the repository. */
function problemsOf(all: readonly Block[], options: ts.CompilerOptions): string[] {
  const nameOf = ({ page, line }: Block) => `${root}${page.replaceAll("/", "-")}-line-${line}.ts`;
  const texts = new Map(all.map((block) => [nameOf(block), `${block.text}\nexport {};\n`]));
  texts.set(`${root}assets.d.ts`, 'declare module "*?url" { const url: string; export default url; }\n');
  const { config } = ts.readConfigFile(`${root}tsconfig.json`, ts.sys.readFile) as {
    config: { compilerOptions: object };
  };
  const paths = Object.fromEntries(Object.entries(ENTRIES).map(([name, file]) => [name, [root + file]]));
  const settings = {
    ...ts.convertCompilerOptionsFromJson(config.compilerOptions, root).options,
    paths,
    ...options,
  };
  const host = ts.createCompilerHost(settings);
  const [fileExists, readFile, getSourceFile] = [host.fileExists, host.readFile, host.getSourceFile];
  host.fileExists = (file) => texts.has(file) || fileExists(file);
  host.readFile = (file) => texts.get(file) ?? readFile(file);
  host.getSourceFile = (file, target, ...rest) => {
    const text = texts.get(file);
    return text === undefined
      ? getSourceFile(file, target, ...rest)
      : ts.createSourceFile(file, text, target, true);
  };
  const program = ts.createProgram([...texts.keys()], settings, host);
  return [...texts.keys()].flatMap((name) => {
    const file = program.getSourceFile(name)!;
    return [...program.getSyntacticDiagnostics(file), ...program.getSemanticDiagnostics(file)].map(
      (d) => `${name.slice(root.length)}: ${ts.flattenDiagnosticMessageText(d.messageText, "\n")}`,
    );
  });
}

test("programs compile under strict types", () => {
  expect(problemsOf(inLanguage("ts"), {})).toEqual([]);
}, 60_000);

test("code of web pages compiles", () => {
  expect(problemsOf(inLanguage("js"), { strict: false })).toEqual([]);
}, 60_000);

describe("commands", () => {
  const program = createProgram(() => expect.fail("no command is run here"));
  const CALL = /^(?:(?:npx )?noetherflow|(npm start) --) ((?:-|[a-z])[^`#|>]*)/;
  /** Words behind `noetherflow`, in blocks and in code font; `npm start -- ...` stands for `noetherflow reproduce ...`. */
  const calls = pages.flatMap((page) => {
    const lines = inLanguage("sh").flatMap((b) => (b.page === page ? b.text.split("\n") : []));
    const inline = [...textOf(page).matchAll(/`([^`\n]+)`/g)].map((m) => m[1]!);
    return [...lines, ...inline].flatMap((text) => {
      const [, start, words] = text.match(CALL) ?? [];
      return words === undefined ? [] : [{ page, words: `${start ? "reproduce " : ""}${words.trim()}` }];
    });
  });

  test.each(calls)("$page: noetherflow $words", ({ words }) => {
    const [name, ...rest] = words.split(/\s+/);
    const command = name!.startsWith("-") ? program : program.commands.find((c) => c.name() === name);
    expect(command, `a command ${name}`).toBeDefined();
    const known = [...command!.options.flatMap((o) => [o.short, o.long]), "--help", "--version"];
    for (const word of [name!, ...rest].filter((w) => /^--?[a-z]/.test(w))) expect(known).toContain(word);
  });
});

describe.each(pages)("the commands of %s", (page) => {
  const own = blocks.filter((block) => block.page === page);
  const sessions = own.filter((block) => block.language === "sh" && block.output !== undefined);
  const folder = temporary();
  afterAll(() => rmSync(folder, { recursive: true }));

  /** A block in a shell whose `npx noetherflow` is this source. */
  const shell = (text: string): Promise<string> => {
    const [jiti, cli] = [`${root}node_modules/jiti/lib/jiti-cli.mjs`, `${root}src/cli.ts`];
    const script = `npx() { shift; "${process.execPath}" "${jiti}" "${cli}" "$@"; }\n${text}`;
    return new Promise((resolve, reject) => {
      execFile("sh", ["-e", "-c", script], { cwd: folder, timeout: LIMIT }, (error, out, err) => {
        if (error === null) resolve(trimmed(out.replaceAll(folder, FOLDER)));
        else reject(new Error(`${error.message}\n${err}`));
      });
    });
  };

  test.runIf(sessions.length > 0)(
    "print what the page says, in the order of the page",
    async () => {
      for (const block of own) {
        if (block.name !== "") writeFileSync(join(folder, block.name), block.text);
        if (sessions.includes(block)) settle(block, await shell(block.text));
      }
    },
    LIMIT,
  );
});

test.each(inLanguage("json"))("the file of $page, line $line, reads and writes back", ({ text }) => {
  const { schema } = JSON.parse(text) as { schema?: string };
  const read = (given: string): unknown =>
    schema === undefined
      ? noetherflow.symmetry.generator(JSON.parse(given))
      : schema.startsWith("noetherflow-sampler/")
        ? noetherflow.parseSampler(given)
        : noetherflow.parseModel(given);
  if (schema !== undefined) expect(schema).toMatch(/^noetherflow-(model|sampler)\/1$/);
  const written = JSON.stringify(read(text));
  expect(JSON.stringify(read(written))).toBe(written);
});

test("the table of ops names every op of a model file and no other", () => {
  const [table = ""] = textOf("docs/model-files.md").match(/^\| ops \| meaning \|\n(?:\|.*\n)+/m) ?? [];
  const named = [...table.matchAll(/^\| (.*?) \|/gm)]
    .slice(1)
    .flatMap((row) => [...row[1]!.matchAll(/`([a-z_]+)`/g)].map((m) => m[1]!));
  const camel = (name: string) => name.replace(/_(\w)/g, (_, c: string) => c.toUpperCase());
  expect(named.map(camel).sort()).toEqual(Object.keys(noetherflow.ops).sort());
});

/** The anchors of a page's headings, as GitHub makes them. */
const anchorsOf = (page: string): string[] =>
  [...textOf(page).matchAll(/^#+ (.*)$/gm)].map((m) =>
    m[1]!
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N}\s_-]/gu, "")
      .replaceAll(" ", "-"),
  );

const others = ["ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", ...markdown("docs/adr")];

test.each([...pages, ...others])("links and paths of %s lead to files and headings", (page) => {
  const text = textOf(page).replaceAll(/^```[\s\S]*?^```$/gm, "");
  const missing = [...text.matchAll(/\]\(([^)\s]+)\)/g)].flatMap(([, link = ""]) => {
    if (/^https?:/.test(link)) return [];
    const [path = "", anchor] = link.split("#");
    const target = path === "" ? page : posix.join(posix.dirname(page), path);
    if (!existsSync(`${root}${target}`)) return [link];
    return anchor === undefined || anchorsOf(target).includes(anchor) ? [] : [link];
  });
  // a path in code font is a promise too; patterns and what the build writes are not
  const paths = [...text.matchAll(/`((?:src|assembly|test|tools|docs|examples)\/[\w./-]+)`/g)]
    .map((m) => m[1]!)
    .filter((path) => !existsSync(`${root}${path}`));
  expect([...missing, ...paths]).toEqual([]);
});

import { describe, expect, test } from "vitest";
import { readSources, type Sources, valueImports } from "./helpers/source.ts";

/** Layer numbers, by folder or by file of src/. A file imports from its own folder or number, and from lower ones. */
const layers: Record<string, number> = {
  "errors.ts": 0,
  "wasm/": 1,
  "core/": 2,
  "graph/": 3,
  "models/": 4,
  "stats/": 5,
  "dynamics/": 6,
  "symmetry/": 7,
  "experiments/": 8,
  "report/": 9,
  "version.ts": 0,
  "engine.ts": 9.5,
  "problem/": 9.2,
  "recording.ts": 9.1,
  "spec.ts": 9.1,
  "problem.ts": 9.5,
  "create.ts": 9.6,
  "api.ts": 9.6,
  "parallel/": 9.7,
  "parallel.ts": 10,
  "records/": 10,
  "index.ts": 10,
  "external.ts": 10,
  "reproduction.ts": 10.5,
  "reproduce-worker.ts": 11,
  "cli/": 10.6,
  "cli.ts": 11,
};

/** Folders below a file's number that it must not import all the same. */
const forbidden: Record<string, readonly string[]> = {
  "engine.ts": ["experiments/", "report/"],
  "problem/": ["experiments/", "report/"],
  "recording.ts": ["experiments/", "report/"],
  "spec.ts": ["experiments/", "report/"],
  "problem.ts": ["experiments/", "report/"],
  "create.ts": ["experiments/", "report/"],
  "api.ts": ["experiments/", "report/"],
};

/** Imports that break a rule and are meant to, as "from -> to". Each needs its reason beside it. */
const exceptions: readonly string[] = [];

/** The key of `layers` that a path below src/ belongs to: its top folder, or the file itself. */
function place(path: string): string {
  const slash = path.indexOf("/");
  return slash < 0 ? path : path.slice(0, slash + 1);
}

function layerViolations(sources: Sources): string[] {
  const violations: string[] = [];
  for (const [path, text] of sources) {
    const from = layers[place(path)];
    if (from === undefined) violations.push(`${path} has no layer`);
    for (const { target, line } of valueImports(path, text)) {
      if (target === undefined || exceptions.includes(`${path} -> ${target}`)) continue;
      const at = `${path}:${line} imports ${target}`;
      const to = layers[place(target)];
      if (target.startsWith("../")) violations.push(`${at}, which is outside src/`);
      else if (to === undefined) violations.push(`${at}, which has no layer`);
      else if (from !== undefined && to > from)
        violations.push(`${at}: layer ${from} must not see layer ${to}`);
      else if (forbidden[path]?.includes(place(target)))
        violations.push(`${at}: that folder is closed to it`);
    }
  }
  return violations;
}

/** The cycles of value imports, each as the path that closes it; one per file that starts it. */
function cycles(sources: Sources): string[] {
  const targets = new Map(
    [...sources].map(([path, text]) => [
      path,
      valueImports(path, text).flatMap(({ target }) => target ?? []),
    ]),
  );
  const done = new Set<string>();
  const found: string[] = [];
  const visit = (path: string, trail: readonly string[]): void => {
    const start = trail.indexOf(path);
    if (start >= 0) found.push([...trail.slice(start), path].join(" -> "));
    if (start >= 0 || done.has(path)) return;
    for (const target of targets.get(path) ?? []) visit(target, [...trail, path]);
    done.add(path);
  };
  for (const path of sources.keys()) visit(path, []);
  return found;
}

describe("the layers of src/", () => {
  const sources = readSources();
  test("no file imports upward", () => expect(layerViolations(sources)).toEqual([]));
  test("value imports have no cycle", () => expect(cycles(sources)).toEqual([]));
});

describe("the checker refuses", () => {
  const refuses = (path: string, text: string) => layerViolations(new Map([[path, text]]));

  test("an import from a higher layer, static, re-exported or dynamic", () => {
    expect(refuses("dynamics/sgd.ts", 'import { charge } from "../symmetry/charge.ts";')).toEqual([
      "dynamics/sgd.ts:1 imports symmetry/charge.ts: layer 6 must not see layer 7",
    ]);
    expect(refuses("graph/node.ts", '\nexport * from "../stats/trace";')).toHaveLength(1);
    expect(refuses("errors.ts", 'const f = () => import("./wasm/module.ts");')).toHaveLength(1);
    expect(refuses("experiments/e01.ts", 'import { createEngine } from "../engine.ts";')).toHaveLength(1);
  });
  test("experiments and report in engine.ts, though they are lower", () => {
    expect(refuses("engine.ts", 'import { table } from "./experiments/experiment.ts";')).toHaveLength(1);
    expect(refuses("engine.ts", 'import { charge } from "./symmetry/charge.ts";')).toEqual([]);
  });
  test("a file or folder without a layer, and what lies outside src/", () => {
    expect(refuses("utils/misc.ts", "")).toEqual(["utils/misc.ts has no layer"]);
    expect(refuses("core/key.ts", 'import "./../../package.json";')).toHaveLength(1);
  });
  test("a cycle, between two files and of one file with itself", () => {
    const pair: Sources = new Map([
      ["core/a.ts", 'import { b } from "./b.ts";'],
      ["core/b.ts", 'import { a } from "./a.js";'],
    ]);
    expect(cycles(pair)).toEqual(["core/a.ts -> core/b.ts -> core/a.ts"]);
    expect(cycles(new Map([["core/a.ts", 'export { a } from "./a.ts";']]))).toHaveLength(1);
  });
  test("but neither type-only imports, nor comments and strings, nor the own folder and lower ones", () => {
    const innocent = `import type { Run } from "../symmetry/flow.ts";
      export type { Row } from "../report/report.ts";
      type Lazy = import("../index.ts").Engine;
      // import { x } from "../index.ts";
      const text = 'import { x } from "../index.ts"';
      import { sde } from "./sde.ts";
      import { Graph } from "../graph/node.ts";`;
    expect(refuses("dynamics/sgd.ts", innocent)).toEqual([]);
  });
});

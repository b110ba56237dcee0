/** problem.report: its rows against the calls they sum up, and its three forms. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createEngine, type Engine, model, models, ops, type Problem, symmetry } from "../../src/index.ts";
import { Draw } from "../helpers/ready.ts";

let engine: Engine;
let problem: Problem;
beforeAll(async () => {
  engine = await createEngine();
  const d = new Draw(1);
  problem = engine.problem(models.twoLayerLinear({ dx: 2, h: 2, dy: 2 }), {
    x: d.normals(16),
    y: d.normals(16),
  });
});
afterAll(() => engine.dispose());

const theta = new Draw(2).normals(8);
const B = [
  [1, 0.5],
  [0.5, -1],
];
const rotation = symmetry.doubleRotation("U", "W", B);
const rescaling = symmetry.rescaling("U", "W");
const control = symmetry.scaling("U");
const strength = { eta: 0.01, batchSize: 4, weightDecay: 0.02, momentum: 0.5 };

describe("given generators", () => {
  const generators = { rotation, '<b>bold & "quoted"</b>': rescaling, control };

  test("a row each, in order, and none that was not asked for", async () => {
    for (const discover of [undefined, false]) {
      const { rows, discovery } = await problem.report(theta, {
        ...strength,
        generators,
        ...(discover === undefined ? {} : { discover }),
      });
      expect(rows.map((r) => r.name)).toEqual(Object.keys(generators));
      expect(discovery).toBeNull();
    }
  });

  test("each row holds what the calls say", async () => {
    const { rows } = await problem.report(theta, { ...strength, generators, seed: "other" });
    for (const row of rows) {
      const { generator: A } = row;
      const { verdict, defect } = problem.checkSymmetry(A, { seed: "other", theta });
      expect([row.verdict, row.defect]).toEqual([verdict, defect]);
      expect(row.charge).toBe(problem.charge(theta, A));
      expect(row.flow).toEqual(problem.noetherFlow(theta, A, strength));
      expect(row.conserved).toBe(verdict === "exact");
      expect(row.flat).toBe(false);
      if (verdict !== "exact") {
        expect([row.equilibrium, row.timeScale, row.steps]).toEqual([null, null, null]);
        continue;
      }
      const at = problem.equilibrium(theta, A, strength);
      expect(row.equilibrium).toEqual(at);
      if (at.status !== "finite") throw new Error(at.status);
      expect(row.timeScale).toBeCloseTo(1 / at.rate, 12);
      // a step of momentum .5 is 2 eta of time
      expect(row.steps).toBeCloseTo(1 / at.rate / 0.02, 9);
    }
    expect(rows.map((r) => r.class)).toEqual([1, 1, 2]);
    expect(rows.map((r) => r.verdict)).toEqual(["exact", "exact", "none"]);
  });

  test("without eta there is a time scale and no number of steps", async () => {
    const { rows } = await problem.report(theta, { sigma2: 0.01, generators: { rotation } });
    expect(rows[0]!.timeScale).toBeGreaterThan(0);
    expect(rows[0]!.steps).toBeNull();
    expect(rows[0]!.flow!.discrete).toBe(0);
  });

  test("as text: a column each, as wide as its widest cell, in 140 columns", async () => {
    const summary = await problem.report(theta, {
      ...strength,
      generators: { rotation, rescaling, control },
    });
    const lines = summary.toString().split("\n");
    expect(lines.length).toBe(5);
    const cells = lines.slice(0, 4).map((line) => line.split(/ {2,}/));
    expect(cells[0]).toEqual(
      "symmetry,class,GD keeps,C,dC/dt,ln N+/N-,residual,lambda*,C*,tau2,steps,tau2/tau1,phase".split(","),
    );
    for (const row of cells) expect(row.length).toBe(13);
    const [row] = summary.rows;
    expect(cells[1]!.slice(0, 3)).toEqual(["rotation", "1", "yes"]);
    expect(Number(cells[1]![3])).toBeCloseTo(row!.charge!, 2);
    expect(Number(cells[1]![6])).toBeCloseTo(row!.flow!.residual, 2);
    expect(cells[1]![7]).toMatch(/^-?\d/);
    expect(Number(cells[1]![11])).toBeCloseTo(row!.ratio!, 1);
    expect(cells[1]![12]).toBe(row!.phase);
    expect(cells[3]!.slice(0, 3)).toEqual(["control", "2", "no"]);
    expect(cells[3]!.slice(7)).toEqual(["none", "-", "-", "-", "-", "-"]);
    expect(lines[4]).toMatch(/^loss \S+, at rest 0: tau1 \S+, \S+ steps$/);
    expect(`${summary}`).toBe(summary.toString());
    for (const line of lines) expect(line.length).toBeLessThanOrEqual(140);
    // the columns end at the same place
    const at = lines[0]!.indexOf("dC/dt") + 5;
    for (const line of lines.slice(0, 4)) expect(line.slice(at, at + 2)).toBe("  ");
  });

  test("as HTML: a caption, heads of rows and columns, and text of the caller is text", async () => {
    const summary = await problem.report(theta, { ...strength, generators });
    const html = summary.toHTML('<i>a & "b"</i>');
    expect(html).toContain("<caption>&lt;i&gt;a &amp; &quot;b&quot;&lt;/i&gt;</caption>");
    expect(html).toContain('<th scope="row">&lt;b&gt;bold &amp; &quot;quoted&quot;&lt;/b&gt;</th>');
    expect(html).not.toMatch(/<[bi]>/);
    expect(html.match(/<tr>/g)!.length).toBe(4);
    expect(html.match(/<th scope="col"/g)!.length).toBe(13);
    expect(html.match(/<th scope="row"/g)!.length).toBe(3);
    expect(html.match(/<td/g)!.length).toBe(36);
    for (const tag of ["table", "caption", "thead", "tbody", "tr", "th", "td"])
      expect(html.match(new RegExp(`<${tag}[ >]`, "g"))!.length).toBe(
        html.match(new RegExp(`</${tag}>`, "g"))!.length,
      );
    // no markup of another kind, and nothing that runs
    expect(
      [...html.matchAll(/<\/?(\w+)/g)]
        .map((m) => m[1])
        .filter((t) => !/^(table|caption|thead|tbody|tr|th|td)$/.test(t!)),
    ).toEqual([]);
  });

  test("as JSON: plain data that text can hold, generators to be read back", async () => {
    const summary = await problem.report(theta, {
      ...strength,
      weightDecay: 0,
      generators: { control, rotation },
    });
    const json = summary.toJSON() as { rows: Record<string, unknown>[]; discovery: null };
    expect(JSON.parse(JSON.stringify(summary))).toEqual(json);
    expect(json.discovery).toBeNull();
    expect(json.rows.map((r) => r["name"])).toEqual(["control", "rotation"]);
    // U alone has no noise that pulls the other way
    expect((json.rows[0]!["flow"] as { logRatio: unknown }).logRatio).toBe("Infinity");
    const again = symmetry.generator(json.rows[1]!["generator"]);
    expect(problem.charge(theta, again)).toBe(json.rows[1]!["charge"]);
    expect((json.rows[1]!["equilibrium"] as { lambda: number }).lambda).toBe(
      (summary.rows[1]!.equilibrium as { lambda: number }).lambda,
    );
  });
});

describe("a search", () => {
  test("finds all double rotations; beside given generators where it is asked for", async () => {
    const alone = await problem.report(theta, strength);
    expect(alone.rows.length).toBe(3);
    expect(alone.discovery!.count).toBe(3);
    for (const row of alone.rows) {
      expect([row.verdict, row.class, row.conserved]).toEqual(["exact", 1, true]);
      expect(row.equilibrium!.status).toBe("finite");
    }
    expect(alone.toString().split("\n").at(-1)).toBe("3 generators found, 0 of them flat");
    const both = await problem.report(theta, { ...strength, generators: { mine: rotation }, discover: true });
    expect(both.rows.map((r) => r.name)).toEqual(["mine", ...alone.rows.map((r) => r.name)]);
    const narrow = await problem.report(theta, { ...strength, discover: { restrict: "diagonal" } });
    expect(narrow.rows.length).toBe(2);
  });

  test("for general A shows rotations as symmetries without a charge", async () => {
    const { rows, discovery } = await problem.report(theta, { ...strength, discover: { form: "general" } });
    expect(discovery!.count).toBe(4);
    const turns = rows.filter((r) => r.charge === null);
    expect(turns.length).toBeGreaterThan(0);
    for (const row of turns) {
      expect([row.verdict, row.conserved, row.flow, row.equilibrium]).toEqual(["exact", false, null, null]);
      expect(row.defect).toBeLessThan(1e-10);
      // and what needs a charge refuses it by name
      expect(() => problem.noetherFlow(theta, row.generator, strength)).toThrow(
        "noetherFlow: expected a symmetric generator",
      );
      expect(() => problem.charge(theta, row.generator)).toThrow("Only symmetric generators have a charge.");
    }
    const table = `${await problem.report(theta, { ...strength, discover: { form: "general" } })}`;
    expect(table).toContain("no charge");
  });

  test("shows directions without noise as such: rounding is not noise", async () => {
    const d = new Draw(8);
    const on = engine.problem(models.layerNormNet({ dx: 2, h: 3, dy: 1 }), {
      x: d.normals(16),
      y: d.normals(8),
    });
    const { rows } = await on.report(d.normals(9), { eta: 0.1, batchSize: 1 });
    const flat = rows.filter((r) => r.flat);
    expect(flat.length).toBe(3);
    for (const { flow, equilibrium } of flat) {
      expect([flow!.noise, flow!.plus, flow!.minus, flow!.logRatio]).toEqual([0, 0, 0, Number.NaN]);
      expect(equilibrium!.status).toBe("flat");
    }
    on.dispose();
  });

  test("that finds nothing is a table without rows", async () => {
    const d = new Draw(3);
    const on = engine.problem(
      model({
        params: { w: [3] },
        inputs: { x: [3], y: [] },
        loss: ({ w, x, y }) => ops.square(ops.sub(ops.tanh(ops.matmul(w, x)), y)),
      }),
      { x: d.normals(18), y: d.normals(6) },
    );
    const summary = await on.report([1, 2, 3], { sigma2: 1 });
    expect(summary.rows).toEqual([]);
    expect(summary.toString().split("\n").at(-1)).toBe("0 generators found, 0 of them flat");
    expect(summary.toHTML()).toContain("<tbody>");
    on.dispose();
  });
});

describe("rows that have no equilibrium", () => {
  test("class 2 without decay grows for ever, and says so in every form", async () => {
    const d = new Draw(4);
    const on = engine.problem(models.selfSupervised({ dx: 3, h: 2 }), {
      x: d.normals(18),
      xplus: d.normals(18),
    });
    const at = d.normals(6);
    const summary = await on.report(at, { eta: 0.1, batchSize: 2, generators: { W: symmetry.scaling("W") } });
    const [row] = summary.rows;
    expect([row!.class, row!.equilibrium!.status, row!.timeScale, row!.steps]).toEqual([
      2,
      "+inf",
      null,
      null,
    ]);
    expect(summary.toString()).toMatch(/ \+inf /);
    expect(summary.toHTML()).toContain('<td class="n">+inf</td>');
    expect(JSON.stringify(summary)).toContain('"lambda":"Infinity"');
    on.dispose();
  });

  test("a semidefinite matrix with eigenvalues 0 is of class 2, whatever rounding leaves of them", async () => {
    // B = v v^T with v = (1, 1/3, ...): two of three eigenvalues are 0, in floating point +-1e-17
    const v = [1, 1 / 3, -0.7];
    const dense = Array.from({ length: 8 * 8 }, (_, e) => (v[Math.floor(e / 8)] ?? 0) * (v[e % 8] ?? 0));
    const A = symmetry.generator({ name: "semidefinite", dense });
    const { rows } = await problem.report(theta, { sigma2: 1, generators: { A } });
    expect(rows[0]!.class).toBe(2);
  });

  test("shifted with decay, and one that moves an untrained block with decay: none, with the reason", async () => {
    const d = new Draw(5);
    const net = models.residual({ d: 2 });
    const on = engine.problem(net, { x: d.normals(8), y: d.normals(8) });
    const shifted = symmetry.shifted(rotation, [-1, 0, 0, -1, -1, 0, 0, -1]);
    const summary = await on.report(theta, { ...strength, generators: { shifted } });
    expect(summary.rows[0]!.equilibrium).toMatchObject({ status: "none" });
    expect(summary.toString()).toContain(" none ");
    const without = await on.report(theta, { ...strength, weightDecay: 0, generators: { shifted } });
    expect(without.rows[0]!.equilibrium!.status).toBe("finite");
    on.dispose();
  });
});

test("decay leaves untrained blocks where they are: the flow says what one step does, the equilibrium that it has no form", async () => {
  const d = new Draw(6);
  const unit = (W: Parameters<typeof ops.norm>[0]) => ops.div(W, ops.norm(W));
  const net = model({
    params: { U: { shape: [2, 2], trainable: false }, W: [2, 2] },
    inputs: { x: [2], y: [2] },
    loss: ({ U, W, x, y }) => ops.sqnorm(ops.sub(ops.matmul(unit(U!), ops.matmul(unit(W!), x!)), y!)),
  });
  const on = engine.problem(net, { x: d.normals(6), y: d.normals(6) });
  const A = symmetry.scaling("U", "W");
  const dense = symmetry.generator({ dense: Array.from({ length: 64 }, (_, e) => (e % 9 === 0 ? 1 : 0)) });
  expect(on.checkSymmetry(A).verdict).toBe("exact");
  const [eta, gamma] = [0.01, 0.3];
  const options = { eta, batchSize: 3, sampling: "without", weightDecay: gamma } as const;
  const run = await on.simulate({
    scheme: "sgd",
    theta,
    ...options,
    steps: 1,
    record: { every: 1, charges: { A } },
  });
  const C = run.series.charges["A"]!;
  for (const form of [A, dense]) {
    const flow = on.noetherFlow(theta, form, options);
    // of all samples there is no noise; W alone decays, by (1 - 2 eta gamma)
    const W = theta.slice(4).reduce((sum, x) => sum + x * x, 0);
    expect(Math.abs(flow.decay + 2 * gamma * W)).toBeLessThan(1e-13 * W);
    const change = (C[1]! - C[0]!) / eta;
    expect(Math.abs(change - flow.total - flow.discrete - 2 * eta * gamma * gamma * W)).toBeLessThan(1e-11);
    expect(on.equilibrium(theta, form, options)).toMatchObject({ status: "none" });
    expect(on.equilibrium(theta, form, { ...options, weightDecay: 0 }).status).not.toBe("none");
  }
  on.dispose();
});

describe("how fast the loss falls beside the charges", () => {
  const generators = { rotation, rescaling, control };

  test("tau_1 is the excess loss over the squared gradient, and each row has tau_2 / tau_1 and its phase", async () => {
    for (const lossAtRest of [undefined, 0.25]) {
      const { rows, loss } = await problem.report(theta, {
        ...strength,
        generators,
        ...(lossAtRest === undefined ? {} : { lossAtRest }),
      });
      const square = Float64Array.from(problem.gradient(theta)).reduce((sum, x) => sum + x * x, 0);
      expect([loss.value, loss.atRest]).toEqual([problem.loss(theta), lossAtRest ?? 0]);
      expect(Math.abs(loss.squaredGradient / square - 1)).toBeLessThan(1e-14);
      expect(loss.tau1).toBeCloseTo((loss.value - (lossAtRest ?? 0)) / square, 12);
      // a step of momentum .5 is 2 eta of time
      expect(loss.steps).toBeCloseTo(loss.tau1! / 0.02, 9);
      for (const row of rows.slice(0, 2)) {
        expect(row.ratio).toBeCloseTo(row.timeScale! / loss.tau1!, 9);
        expect(row.phase).toBe(row.ratio! <= 0.3 ? "fast" : row.ratio! >= 3 ? "slow" : "between");
      }
      expect([rows[2]!.ratio, rows[2]!.phase]).toEqual([null, null]);
    }
  });

  test("strong noise makes the charge fast, weak noise slow, and in between it is not classed", async () => {
    const phase = async (sigma2: number) => {
      const { rows } = await problem.report(theta, { sigma2, generators: { rescaling } });
      return rows[0]!;
    };
    const one = (await phase(1)).ratio!; // tau_2 ~ 1 / sigma2
    for (const [ratio, wanted] of [
      [0.29, "fast"],
      [0.31, "between"],
      [2.9, "between"],
      [3.1, "slow"],
    ] as const) {
      const row = await phase(one / ratio);
      expect(row.ratio).toBeCloseTo(ratio, 9);
      expect(row.phase).toBe(wanted);
    }
  });

  test("at a minimum, at lossAtRest, and below 0 the loss has no time scale; above the loss it is refused", async () => {
    const net = model({
      params: { u: [1], w: [1] },
      inputs: { y: [1] },
      loss: ({ u, w, y }) => ops.sub(ops.sqnorm(ops.sub(ops.mul(u!, w!), y!)), 3),
    });
    const on = engine.problem(net, { y: [0.5, 1.5] });
    const A = symmetry.rescaling("u", "w");
    const at = (point: number[], more: object) =>
      on.report(point, { eta: 0.1, batchSize: 1, generators: { A }, ...more });
    // u w = 1 is the minimum, of loss .25 - 3
    const rest = await at([2, 0.5], { lossAtRest: -4 });
    expect([rest.loss.tau1, rest.loss.squaredGradient, rest.rows[0]!.phase]).toEqual([null, 0, null]);
    expect(String(rest)).toContain("loss -2.75, at rest -4: no time scale");
    expect((await at([1, 3], { lossAtRest: 1.25 })).loss.tau1).toBeNull();
    expect((await at([1, 1.5], {})).loss).toMatchObject({ value: -2.5, atRest: 0, tau1: null });
    expect((await at([1, 3], {})).loss.tau1).toBeGreaterThan(0);
    await expect(at([1, 3], { lossAtRest: 2 })).rejects.toThrow(
      "report: lossAtRest is at most the loss at theta, 1.25, got 2.",
    );
    await expect(at([1, 3], { lossAtRest: Number.NaN })).rejects.toThrow(
      "report: lossAtRest must be a finite",
    );
    on.dispose();
  });
});

describe("progress", () => {
  test.each([
    ["a search and rows", {}],
    ["given generators", { generators: { rotation, rescaling, control } }],
    ["both", { generators: { rotation }, discover: true }],
  ])("of %s rises to 1, one total for all of it", async (_, options) => {
    const seen: { done: number; total: number }[] = [];
    const { rows } = await problem.report(theta, {
      ...strength,
      ...options,
      onProgress: (p) => seen.push(p),
    });
    const done = seen.map((p) => p.done);
    expect(new Set(seen.map((p) => p.total)).size).toBe(1);
    for (const [i, x] of done.entries()) if (i > 0) expect(x).toBeGreaterThan(done[i - 1]!);
    expect(seen.at(-1)).toEqual({ done: seen[0]!.total, total: seen[0]!.total });
    // rows count, and not the search alone
    const share = "generators" in options && !("discover" in options) ? 0 : 0.5;
    expect(done.filter((x) => x / seen[0]!.total >= share).length).toBeGreaterThanOrEqual(rows.length);
  });
  test("the search's own listener hears the search", async () => {
    const own: number[] = [];
    const all: number[] = [];
    await problem.report(theta, {
      ...strength,
      discover: { onProgress: (p) => own.push(p.done / p.total) },
      onProgress: (p) => all.push(p.done / p.total),
    });
    expect([own.at(-1), all.at(-1)]).toEqual([1, 1]);
  });
});

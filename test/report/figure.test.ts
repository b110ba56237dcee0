/** Figures as SVG and PNG files: what is drawn, labels and ticks, and text on a machine without fonts. */
import { parseHTML } from "linkedom";
import { describe, expect, test } from "vitest";
import type { Curve, Figure } from "../../src/experiments/experiment.ts";
import { DARK, LIGHT } from "../../src/report/colours.ts";
import { drawFigure, NARROW, wrap } from "../../src/report/figure.ts";
import { numberText } from "../../src/report/numbers.ts";
import { describeFigure, figureFiles, figurePNG, figureSVG, whyNoPNG } from "../../src/report/report.ts";
import { HOSTILE, madeUp } from "../helpers/report.ts";

const figures = madeUp().figures;
const base: Figure = {
  title: "A figure",
  caption: "what it shows",
  xLabel: "step",
  yLabel: "Tr ∇²L",
  xScale: "linear",
  yScale: "linear",
  curves: [],
};
const curve = (label: string, y: readonly number[], more: Partial<Curve> = {}): Curve => ({
  label,
  predicted: false,
  x: y.map((_, i) => i),
  y,
  ...more,
});
const draw = (figure: Figure, size?: typeof NARROW) =>
  parseHTML(`<body>${drawFigure(figure, size)}</body>`).document.querySelector("svg")!;
const textsOf = (svg: Element) => [...svg.querySelectorAll("text")].map((t) => t.textContent!);

describe("a drawing", () => {
  test("has a line for a line, a mark for every dot, a bar for every error that is not 0, dashes for a prediction", () => {
    const svg = draw({
      ...base,
      curves: [
        curve("a", [1, 2, 3], { mark: "dots", error: [0.1, 0, 0.3] }),
        curve("a", [1, 2, 3], { predicted: true }),
        curve("b", [2, 3, 4]),
      ],
    });
    expect(svg.querySelectorAll("line[x1][stroke], g[stroke='var(--s0)'] > line").length).toBeGreaterThan(0);
    const bars = [...svg.querySelectorAll("g[stroke='var(--s0)'] > line")];
    expect(bars.length).toBe(2);
    const dots = [...svg.querySelectorAll("g[fill='var(--s0)'] > path, g[fill='var(--s0)'] > circle")];
    expect(dots.length).toBe(3);
    // the prediction takes the colour of the dots it goes through
    expect(svg.querySelectorAll("g[stroke='var(--s0)'][stroke-dasharray] > path").length).toBe(1);
    expect(svg.querySelectorAll("g[stroke='var(--s1)']:not([stroke-dasharray]) > path").length).toBe(1);
  });
  test("draws a prediction in ink where it lies on its measured line, in the line's colour where it runs apart", () => {
    const dashed = (y: readonly number[], yScale: "linear" | "log" = "linear") =>
      draw({ ...base, yScale, curves: [curve("a", [1, 2, 4]), curve("a", y, { predicted: true })] })
        .querySelector("[stroke-dasharray]")!
        .getAttribute("stroke");
    expect(dashed([1.05, 2, 4])).toBe("currentColor");
    expect(dashed([2, 3, 5])).toBe("var(--s0)");
    expect(dashed([1.1, 2.1, 4.1], "log")).toBe("currentColor");
    expect(dashed([2, 3, 5], "log")).toBe("var(--s0)");
  });
  test("counts by ones where all values are few integers", () => {
    expect(textsOf(draw({ ...base, curves: [curve("a", [0.5, 0.6, 0.7])] }))).not.toContain("0.2");
  });
  test("leaves a gap where a value is no number or has no logarithm, and lets bars end at the lowest point", () => {
    const log = { ...base, yScale: "log" as const };
    const svg = draw({ ...log, curves: [curve("a", [1, 0.1, Number.NaN, -1, 0.2, 0.3])] });
    const path = svg.querySelector("g[stroke='var(--s0)'] > path")!.getAttribute("d")!;
    expect(path.match(/M/g)!.length).toBe(2);
    expect(path).not.toMatch(/NaN|Infinity/);
    const bars = draw({ ...log, curves: [curve("a", [1, 0.1], { error: [2, 0.01] })] });
    const ends = [...bars.querySelectorAll("g[stroke='var(--s0)'] > line")].map((l) =>
      Number(l.getAttribute("y1")),
    );
    expect(ends.every(Number.isFinite)).toBe(true);
  });
  test.each([
    ["many decades", [1e-30, 1e-3, 1e3], ["10⁻³⁰", "1"]],
    ["two decades", [0.01, 1.2], ["0.01", "0.1", "1"]],
    ["less than one", [0.012, 0.07], ["0.02", "0.05"]],
    ["next to nothing", [1, 1.0001], ["1"]],
  ])("labels a log axis over %s", (_, y, labels) => {
    const texts = textsOf(draw({ ...base, yScale: "log", curves: [curve("a", y)] }));
    for (const label of labels) expect(texts).toContain(label);
    expect(texts.length).toBeLessThan(24);
  });
  test("leaves room for the labels of its vertical axis", () => {
    const svg = draw({ ...base, curves: [curve("a", [-1.8e-5, -1.2e-7])] });
    const [left] = svg.querySelector("g[stroke='var(--s0)'] > path")!.getAttribute("d")!.slice(1).split(",");
    expect(Number(left)).toBeGreaterThan(7 * "−1.8×10⁻⁵".length);
  });
  test("on the width of a phone, long labels take more lines", () => {
    const lines = wrap(figures[0]!.yLabel, Math.floor(NARROW.width / 7.6));
    expect(lines.length).toBeGreaterThan(1);
    expect(lines.join(" ")).toBe(figures[0]!.yLabel);
    expect(draw(figures[0]!, NARROW).getAttribute("width")).toBe("350");
  });
  test("with nothing to draw it says so", () => {
    for (const c of [curve("a", []), curve("a", [Number.NaN]), curve("a", [-1, 0])])
      expect(textsOf(draw({ ...base, yScale: "log", curves: [c] }))).toContain("nothing to draw");
    expect(textsOf(draw(base))).toContain("nothing to draw");
  });
  test("a seventh curve differs from the first in its shape", () => {
    const curves = Array.from({ length: 7 }, (_, i) => curve(`c${i}`, [i, i + 1]));
    const svg = draw({ ...base, curves });
    const first = [...svg.querySelectorAll("g[fill='var(--s0)'] > *")].map((e) => e.getAttribute("d"));
    expect(new Set(first).size).toBeGreaterThan(1);
  });
});

describe("numbers on axes", () => {
  test.each([
    [0, "0"],
    [1e-5, "10⁻⁵"],
    [-2.5e-7, "−2.5×10⁻⁷"],
    [20000, "20\u202f000"],
    [1500, "1500"],
    [-0.25, "−0.25"],
    [3e9, "3×10⁹"],
  ])("%d is %s", (x, text) => expect(numberText(x)).toBe(text));
});

/** Contrast of two colours as WCAG defines it. */
function contrast(a: string, b: string): number {
  const luminance = (c: string) => {
    const [r, g, bl] = [1, 3, 5].map((i) => {
      const v = Number.parseInt(c.slice(i, i + 2), 16) / 255;
      return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r! + 0.7152 * g! + 0.0722 * bl!;
  };
  const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return (high! + 0.05) / (low! + 0.05);
}
test("every colour of a curve stands out 3:1 or more from the panels it is drawn on", () => {
  for (const colour of LIGHT)
    for (const paper of ["#ffffff", "#f5f7f9"]) expect(contrast(colour, paper)).toBeGreaterThan(3);
  for (const colour of DARK)
    for (const paper of ["#12181f", "#1a222b"]) expect(contrast(colour, paper)).toBeGreaterThan(3);
});

describe("an SVG file", () => {
  test("stands alone: title, description, legend, and colours of its own", () => {
    const text = figureSVG(figures[0]!);
    expect(text).not.toMatch(/currentColor|var\(|<style|<script/);
    expect(text.startsWith('<svg xmlns="http://www.w3.org/2000/svg"')).toBe(true);
    const { document } = parseHTML(`<body>${text}</body>`);
    expect(document.querySelector("title")!.textContent).toBe(HOSTILE);
    expect(document.querySelector("desc")!.textContent).toBe(describeFigure(figures[0]!));
    const texts = textsOf(document.querySelector("svg")!);
    for (const words of ["one", "two", "three", "dashed: predicted", "bars: ± 1 standard error"])
      expect(texts).toContain(words);
    expect(texts.join(" ")).toContain("learning rate η");
  });
  test("a long legend and a long title take more rows, and none leaves the card", () => {
    const curves = Array.from({ length: 6 }, (_, i) => curve(`a case with a long name, number ${i}`, [i, 2]));
    const { document } = parseHTML(
      `<body>${figureSVG({ ...base, title: "word ".repeat(40).trim(), curves })}</body>`,
    );
    const svg = document.querySelector("svg")!;
    const rows = [...svg.querySelectorAll("g[transform^='translate(20,'] > g")];
    expect(rows.length).toBeGreaterThan(2);
    expect(textsOf(svg).filter((t) => t.startsWith("word")).length).toBeGreaterThan(2);
  });
});

describe("a PNG file", async () => {
  const missing = await whyNoPNG();
  if (missing !== undefined) console.log(`PNG files not tested: ${missing}`);
  test.skipIf(missing !== undefined)("has the size of the SVG times its scale, and letters", async () => {
    const { Resvg } = await import("@resvg/resvg-wasm");
    const figure = { ...base, curves: [curve("a", [1, 2])] };
    const size = (png: Uint8Array) => {
      const view = new DataView(png.buffer, png.byteOffset);
      return [view.getUint32(16), view.getUint32(20)];
    };
    const [, width, height] = /width="(\d+)" height="(\d+)"/.exec(figureSVG(figure))!.map(Number);
    const png = await figurePNG(figure);
    expect([...png.slice(0, 8)]).toEqual([137, 80, 78, 71, 13, 10, 26, 10]);
    expect(size(png)).toEqual([2 * width!, 2 * height!]);
    expect(size(await figurePNG(figure, { scale: 1 }))).toEqual([width, height]);
    // the same without fonts lacks its letters, some 30 of them, so its file is smaller
    const bare = new Resvg(figureSVG(figure), { fitTo: { mode: "zoom", value: 2 } });
    expect(png.length).toBeGreaterThan(bare.render().asPng().length + 3000);
    await expect(figurePNG(figure, { scale: 0 })).rejects.toThrow(
      "figurePNG: scale must be in [0.1, 8], got 0.",
    );
  });
  test("the files of a result are its figures by number", async () => {
    const files = await figureFiles({ figures: [figures[0]!, figures[2]!] });
    const names = missing === undefined ? ["svg", "png"] : ["svg"];
    expect([...files.keys()]).toEqual([1, 2].flatMap((n) => names.map((ext) => `figure-${n}.${ext}`)));
    expect(files.get("figure-2.svg")).toBe(figureSVG(figures[2]!));
  });
});

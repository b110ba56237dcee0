import * as Plot from "@observablehq/plot";
import { parseHTML } from "linkedom";
import type { Curve, Figure } from "../experiments/experiment.ts";
import { LIGHT } from "./colours.ts";
import { exponentOf, numberText, showNumber } from "./numbers.ts";
import { escapeHtml } from "./page.ts";

/** Corners of the shapes in units of the radius; none for a disc. */
const SHAPES: readonly (readonly (readonly [number, number])[] | undefined)[] = [
  undefined,
  [
    [-0.85, -0.85],
    [0.85, -0.85],
    [0.85, 0.85],
    [-0.85, 0.85],
  ],
  [
    [0, -1.2],
    [1.1, 0.8],
    [-1.1, 0.8],
  ],
  [
    [0, -1.3],
    [1, 0],
    [0, 1.3],
    [-1, 0],
  ],
  [
    [0, 1.2],
    [1.1, -0.8],
    [-1.1, -0.8],
  ],
  [
    [-1.2, -0.45],
    [-0.45, -0.45],
    [-0.45, -1.2],
    [0.45, -1.2],
    [0.45, -0.45],
    [1.2, -0.45],
    [1.2, 0.45],
    [0.45, 0.45],
    [0.45, 1.2],
    [-0.45, 1.2],
    [-0.45, 0.45],
    [-1.2, 0.45],
  ],
];
const RADIUS = 4;
/** More dots than this are drawn at half the size. */
const MANY = 60;

/** All curves of one label. */
export interface Series {
  readonly label: string;
  /** A CSS colour: a variable of the page. */
  readonly colour: string;
  readonly shape: number;
  readonly measured: readonly Curve[];
  readonly predicted: readonly Curve[];
  /** Predicted curves in its own colour: those that run apart from its measured line, which would hide them. */
  readonly own: boolean;
}

export function seriesOf(figure: Figure): Series[] {
  return [...new Set(figure.curves.map((c) => c.label))].map((label, i) => {
    const curves = figure.curves.filter((c) => c.label === label);
    const measured = curves.filter((c) => !c.predicted);
    const predicted = curves.filter((c) => c.predicted);
    const lines = measured.filter((c) => c.mark !== "dots");
    return {
      label,
      colour: `var(--s${i % LIGHT.length})`,
      shape: (i + Math.floor(i / LIGHT.length)) % SHAPES.length,
      measured,
      predicted,
      own: !lines.some((line) => predicted.some((c) => isCovered(c, line, figure))),
    };
  });
}

/** A prediction lies on the line measured, at most of the places where both have a point near. */
function isCovered(predicted: Curve, measured: Curve, { yScale, curves }: Figure): boolean {
  const all = curves.flatMap((c) => c.y.filter(Number.isFinite));
  const range =
    all.reduce((m, y) => Math.max(m, y), -Infinity) - all.reduce((m, y) => Math.min(m, y), Infinity);
  const near = measured.x.filter((x, i) => {
    const [p, m] = [valueAt(predicted, x), measured.y[i]!];
    return yScale === "log" ? p < 1.15 * m && p > m / 1.15 : Math.abs(p - m) <= 0.03 * range;
  });
  return near.length > 0.4 * measured.x.length;
}

/** y of a curve at x, on the straight line between its points; NaN outside. */
function valueAt({ x: xs, y: ys }: Curve, x: number): number {
  const i = xs.findIndex((_, j) => xs[j]! <= x && (xs[j + 1] ?? Number.NaN) >= x);
  if (i < 0) return Number.NaN;
  const [a, b] = [xs[i]!, xs[i + 1]!];
  return a === b ? ys[i]! : ys[i]! + ((ys[i + 1]! - ys[i]!) * (x - a)) / (b - a);
}

/** One entry of a legend: what stands beside its words, 28 by 12, as SVG without its frame. */
export interface Key {
  readonly words: string;
  readonly svg: string;
}

export function legendOf(figure: Figure): Key[] {
  const series = seriesOf(figure);
  const line = (colour: string, dashed: boolean) =>
    `<path d="M0,6H28" fill="none" stroke="${colour}" stroke-width="${dashed ? 1.75 : 2.5}"${dashed ? ' stroke-dasharray="5,3"' : ""}/>`;
  const keys = series.map(({ label, colour, shape, measured, predicted, own }) => ({
    words: measured.length === 0 ? `${label}, predicted` : label,
    svg:
      (measured.some((c) => c.mark !== "dots") ? line(colour, false) : "") +
      (own && predicted.length > 0 ? line(colour, true) : "") +
      (measured.length === 0
        ? ""
        : `<path d="${shapePath(shape)}" transform="translate(14,6)" fill="${colour}"/>`),
  }));
  const notes: Key[] = [];
  if (series.some((s) => s.predicted.length > 0 && s.measured.length > 0))
    notes.push({ words: "dashed: predicted", svg: line("currentColor", true) });
  if (figure.curves.some((c) => c.error !== undefined))
    notes.push({
      words: "bars: ± 1 standard error",
      svg: '<path d="M14,0V12M11,0H17M11,12H17" fill="none" stroke="currentColor" stroke-width="1.25"/>',
    });
  return [...keys, ...notes];
}

function shapePath(shape: number): string {
  const corners = SHAPES[shape];
  if (corners === undefined)
    return `M${-RADIUS},0a${RADIUS},${RADIUS} 0 1,0 ${2 * RADIUS},0a${RADIUS},${RADIUS} 0 1,0 ${-2 * RADIUS},0z`;
  return `M${corners.map(([x, y]) => `${RADIUS * x},${RADIUS * y}`).join("L")}z`;
}

/** A shape as Plot draws symbols. */
const symbolOf = (shape: number, radius: number) => ({
  draw(context: {
    moveTo(x: number, y: number): void;
    lineTo(x: number, y: number): void;
    closePath(): void;
    arc(...args: number[]): void;
  }) {
    const corners = SHAPES[shape];
    if (corners === undefined) {
      context.moveTo(radius, 0);
      context.arc(0, 0, radius, 0, 2 * Math.PI);
      return;
    }
    for (const [i, [x, y]] of corners.entries()) {
      if (i === 0) context.moveTo(radius * x, radius * y);
      else context.lineTo(radius * x, radius * y);
    }
    context.closePath();
  },
});

interface Point {
  readonly x: number;
  /** NaN where nothing can be drawn: a gap of the line. */
  readonly y: number;
  readonly low: number;
  readonly high: number;
}

export interface Size {
  readonly width: number;
  readonly height: number;
}
export const WIDE: Size = { width: 720, height: 400 };
/** For phones: the same letters on half the width. */
export const NARROW: Size = { width: 350, height: 300 };

/**
 * A figure as SVG text without frame, legend and title. Measured curves are solid or dots, predicted ones dashed; colours are variables of
 * the page, text and axes take its ink, so one figure serves light, dark and print.
 */
export function drawFigure(figure: Figure, { width, height }: Size = WIDE): string {
  const { document } = parseHTML("<!doctype html><html><body></body></html>");
  const series = seriesOf(figure);
  const points = new Map(figure.curves.map((c) => [c, pointsOf(figure, c)]));
  const all = [...points.values()].flat().filter((p) => Number.isFinite(p.y));
  const x = axisOf(
    all.map((p) => p.x),
    figure.xScale,
    width < 500 ? 4 : 7,
  );
  const y = axisOf(
    all.flatMap((p) => [p.y, p.low, p.high]),
    figure.yScale,
    8,
  );
  const yLabel = wrap(figure.yLabel, Math.floor(width / 7.6));
  const xLabel = wrap(figure.xLabel, Math.floor((width - 80) / 7.6));
  const top = 16 + 17 * yLabel.length;
  const bottom = 34 + 17 * xLabel.length;
  const lines = series.flatMap(({ colour, measured }) =>
    measured
      .filter((c) => c.mark !== "dots")
      .map((c) =>
        Plot.line(points.get(c)!, {
          x: "x",
          y: "y",
          stroke: colour,
          strokeWidth: 2.25,
          strokeLinejoin: "round",
        }),
      ),
  );
  const bars = series.flatMap(({ colour, measured, predicted }) =>
    [...measured, ...predicted]
      .filter((c) => c.error !== undefined)
      .map((c) =>
        Plot.ruleX(
          points.get(c)!.filter((p) => Number.isFinite(p.y) && p.high > p.low),
          { x: "x", y1: "low", y2: "high", stroke: colour, strokeWidth: 1.5 },
        ),
      ),
  );
  const dashes = series.flatMap(({ colour, predicted, own }) =>
    predicted.map((c) => {
      const common = { x: "x", y: "y", stroke: own ? colour : "currentColor" };
      return c.mark === "dots"
        ? Plot.dot(points.get(c)!, { ...common, r: RADIUS, strokeWidth: 1.5 })
        : Plot.line(points.get(c)!, { ...common, strokeWidth: own ? 1.75 : 1.25, strokeDasharray: "5,4" });
    }),
  );
  const marks = series.flatMap(({ colour, shape, measured }, s) =>
    measured.map((c) => {
      const drawn = points.get(c)!.filter((p) => Number.isFinite(p.y));
      return Plot.dot(c.mark === "dots" ? drawn : spaced(drawn, s / series.length), {
        x: "x",
        y: "y",
        fill: colour,
        stroke: "none",
        symbol: symbolOf(shape, c.mark === "dots" && drawn.length > MANY ? RADIUS / 2 : RADIUS),
      } as Plot.DotOptions);
    }),
  );
  const plot = (left: number) =>
    Plot.plot({
      document,
      width,
      height: height + 17 * (yLabel.length + xLabel.length - 2),
      marginTop: top,
      marginLeft: left,
      marginRight: 22,
      marginBottom: bottom,
      inset: 6,
      style: { background: "transparent", fontSize: "13px", color: "currentColor" },
      x: { ...x, label: null, tickSpacing: width < 500 ? 70 : 100, nice: x.type === "linear" },
      y: { ...y, label: null, grid: true, tickSpacing: 44 },
      marks: [
        ...lines,
        ...bars,
        ...dashes,
        ...marks,
        Plot.text(all.length === 0 ? ["nothing to draw"] : [], { frameAnchor: "middle" }),
        Plot.text([yLabel.join("\n")], {
          frameAnchor: "top-left",
          dx: -left,
          dy: -top + 2,
          lineAnchor: "top",
          textAnchor: "start",
          lineHeight: 1.3,
        }),
        Plot.text([xLabel.join("\n")], { frameAnchor: "bottom", dy: 34, lineAnchor: "top", lineHeight: 1.3 }),
      ],
    } as Plot.PlotOptions);
  // a second time where the labels of the axis need more room, which are known only now
  const first = plot(52);
  const labels = [...first.querySelectorAll('[aria-label="y-axis tick label"] text')];
  const room = 14 + 7.6 * Math.max(0, ...labels.map((t) => t.textContent!.length));
  const svg = room > 52 ? plot(room) : first;
  for (const group of svg.querySelectorAll("[aria-label], [aria-description]")) {
    group.removeAttribute("aria-label");
    group.removeAttribute("aria-description");
  }
  svg.querySelector("style")?.remove();
  svg.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  return `<svg role="img" aria-label="${escapeHtml(describeFigure(figure))}" ${compact(svg.outerHTML).slice("<svg ".length)}`;
}

function pointsOf(figure: Figure, c: Curve): Point[] {
  const drawable = (x: number, scale: "linear" | "log") =>
    Number.isFinite(x) && (scale === "linear" || x > 0);
  const floor =
    figure.yScale === "log"
      ? figure.curves
          .flatMap((other) => other.y)
          .reduce((m, y) => (y > 0 ? Math.min(m, y) : m), Number.POSITIVE_INFINITY)
      : 0;
  return c.x
    .map((x, i) => {
      const y = c.y[i]!;
      const e = c.error?.[i] ?? 0;
      if (!drawable(y, figure.yScale)) return { x, y: Number.NaN, low: Number.NaN, high: Number.NaN };
      // a bar that reaches 0 ends at the lowest point of a log axis
      return { x, y, low: drawable(y - e, figure.yScale) ? y - e : Math.min(y, floor), high: y + e };
    })
    .filter(({ x }) => drawable(x, figure.xScale));
}

/** Some six points of a line that carry its shape; each line its own, so that they do not cover each other. */
function spaced(points: readonly Point[], offset: number): Point[] {
  if (points.length <= 12) return [...points];
  return Array.from(
    { length: 6 },
    (_, j) => points[Math.floor(((j + 0.15 + 0.7 * offset) / 6) * points.length)]!,
  );
}

interface Axis {
  readonly type: "linear" | "log";
  readonly domain?: readonly [number, number];
  readonly ticks?: readonly number[];
  readonly tickFormat: (tick: number) => string;
}

/** Scale and ticks for some values: powers of ten on a log axis, or 1, 2, 5 where there is less than a decade or two. */
function axisOf(values: readonly number[], scale: "linear" | "log", count: number): Axis {
  const finite = values.filter(Number.isFinite);
  const low = finite.reduce((m, v) => Math.min(m, v), Number.POSITIVE_INFINITY);
  const high = finite.reduce((m, v) => Math.max(m, v), Number.NEGATIVE_INFINITY);
  const linear = {
    type: "linear",
    tickFormat: (t: number) => numberText(Number(t.toPrecision(12))),
  } as const;
  if (low > high) return { ...linear, domain: [0, 1] };
  if (scale === "linear") {
    if (low < high && high - low <= 10 && finite.every(Number.isInteger)) {
      return { ...linear, ticks: Array.from({ length: high - low + 1 }, (_, i) => low + i) };
    }
    if (low < high) return linear;
    const around = Math.abs(low) || 1;
    return { ...linear, domain: [low - around / 2, low + around / 2] };
  }
  const domain = low < high ? ([low, high] as const) : ([low / 2, low * 2] as const);
  const first = exponentOf(domain[0]);
  const decades = Array.from({ length: exponentOf(domain[1]) - first + 1 }, (_, i) => first + i);
  const ticksAt = (mantissas: readonly number[], exponents: readonly number[]) =>
    exponents
      .flatMap((e) => mantissas.map((m) => Number(`${m}e${e}`)))
      .filter((t) => t >= domain[0] && t <= domain[1]);
  let ticks = ticksAt([1], decades);
  const step = Math.ceil(ticks.length / count);
  if (step > 1)
    ticks = ticksAt(
      [1],
      decades.filter((e) => e % step === 0),
    );
  for (const mantissas of [
    [1, 3],
    [1, 2, 5],
    [1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9],
  ]) {
    if (ticks.length < 3) ticks = ticksAt(mantissas, decades);
  }
  if (ticks.length < 2) ticks = [...domain];
  const plain = ticks.every((t) => t >= 1e-3 && t < 1e5);
  return { type: "log", domain, ticks, tickFormat: (t) => numberText(Number(t.toPrecision(3)), plain) };
}

/** Words in lines of some length. */
export function wrap(text: string, length: number): string[] {
  const lines: string[] = [];
  for (const word of text.split(/ (?=\S)/)) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + 1 + word.length <= length)
      lines[lines.length - 1] = `${last} ${word}`;
    else lines.push(word);
  }
  return lines;
}

/** Coordinates to a tenth of a pixel: a third of the text. */
function compact(svg: string): string {
  return svg.replaceAll(
    / (d|transform|x|y|x1|x2|y1|y2|cx|cy)="([^"]*)"/g,
    (_, name: string, value: string) => {
      return ` ${name}="${value.replaceAll(/-?\d+\.\d{2,}/g, (n) => String(Number(Number(n).toFixed(1))))}"`;
    },
  );
}

/** What a figure shows, in words and numbers. */
export function describeFigure(figure: Figure): string {
  const drawn = figure.curves.map((c) => ({
    c,
    points: pointsOf(figure, c).filter((p) => Number.isFinite(p.y)),
  }));
  const curves = drawn.slice(0, 24).map(({ c, points }) => {
    const name = `${c.label}, ${c.predicted ? "predicted" : "measured"}`;
    const [first, last] = [points[0], points.at(-1)];
    if (first === undefined || last === undefined) return `${name}: nothing to draw`;
    const from = `${showNumber(first.y)} at ${showNumber(first.x)}`;
    return points.length === 1
      ? `${name}: ${from}`
      : `${name}: ${points.length} points from ${from} to ${showNumber(last.y)} at ${showNumber(last.x)}`;
  });
  const more = drawn.length > curves.length ? ` And ${drawn.length - curves.length} more curves.` : "";
  const scale = (s: "linear" | "log") => (s === "log" ? " (log scale)" : "");
  return (
    `${sentence(figure.title)} ${sentence(figure.caption)} Horizontal: ${figure.xLabel}${scale(figure.xScale)}; ` +
    `vertical: ${figure.yLabel}${scale(figure.yScale)}. ${curves.join("; ")}.${more}`
  );
}

/** The text with a full stop at its end. */
export function sentence(text: string): string {
  return /[.!?]$/.test(text) ? text : `${text}.`;
}

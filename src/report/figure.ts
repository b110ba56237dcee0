import * as Plot from "@observablehq/plot";
import { parseHTML } from "linkedom";
import type { Figure } from "../experiments/experiment.ts";

/** Okabe and Ito's palette: distinguishable under the common colour-vision deficiencies, on light and dark. */
const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"];

const WIDTH = 720;
const HEIGHT = 400;

/**
 * A figure as SVG text. Solid lines are measured, dashed ones predicted; text and axes take the
 * page's colour, so one figure serves light, dark and print.
 */
export function drawFigure(figure: Figure): string {
  const { document } = parseHTML("<!doctype html><html><body></body></html>");
  const labels = [...new Set(figure.curves.map((c) => c.label))];
  const points = (predicted: boolean) =>
    figure.curves
      .filter((c) => c.predicted === predicted)
      .flatMap((c) => c.x.map((x, i) => ({ x, y: c.y[i]!, label: c.label })))
      .filter(({ y }) => Number.isFinite(y) && (figure.yScale === "linear" || y > 0));
  const svg = Plot.plot({
    document,
    width: WIDTH,
    height: HEIGHT,
    marginTop: 34,
    marginLeft: 64,
    marginRight: 24,
    marginBottom: 44,
    style: { background: "transparent", fontSize: "13px", color: "currentColor" },
    x: { label: figure.xLabel, type: figure.xScale, labelAnchor: "center", nice: true, tickSpacing: 100 },
    y: {
      label: figure.yLabel,
      type: figure.yScale,
      grid: true,
      ...(figure.yScale === "log" ? { ticks: 8, tickFormat: powerOfTen } : {}),
    },
    color: { domain: labels, range: COLOURS.slice(0, labels.length) },
    marks: [
      Plot.line(points(false), { x: "x", y: "y", stroke: "label", strokeWidth: 2.5, strokeOpacity: 0.75 }),
      Plot.line(points(true), {
        x: "x",
        y: "y",
        z: "label",
        stroke: "currentColor",
        strokeWidth: 1.25,
        strokeDasharray: "5,4",
      }),
    ],
  } as Plot.PlotOptions);
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `${figure.title}. ${figure.caption}`);
  svg.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  return svg.outerHTML;
}

const SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹";

/** 10⁻³ for 0.001; nothing at ticks that are no power of ten. */
function powerOfTen(value: number): string {
  const [mantissa, exponent] = value.toExponential(6).split("e") as [string, string];
  if (Number(mantissa) !== 1) return "";
  if (Number(exponent) === 0) return "1";
  return `10${[...String(Number(exponent))].map((c) => (c === "-" ? "⁻" : SUPERSCRIPTS[Number(c)])).join("")}`;
}

/** Colour of each label, for a legend in the page's own markup. */
export function legendOf(figure: Figure): { label: string; colour: string }[] {
  return [...new Set(figure.curves.map((c) => c.label))].map((label, i) => ({
    label,
    colour: COLOURS[i % COLOURS.length]!,
  }));
}

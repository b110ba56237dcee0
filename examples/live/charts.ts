/** The two charts of a run, and its numbers as CSV. */
import uPlot from "uplot";
import { mean, type Point, REPLICAS } from "./experiment.ts";

/** A number for people: four digits, few characters. */
export function show(x: number): string {
  if (Number.isNaN(x)) return "–";
  if (!Number.isFinite(x)) return x > 0 ? "∞" : "−∞";
  const size = Math.abs(x);
  if (size === 0 || (size >= 1e-3 && size < 1e9))
    return x.toLocaleString("en", { maximumSignificantDigits: size < 1e4 ? 4 : 9 }).replace("-", "−");
  const [digits, exponent] = x.toExponential(2).split("e") as [string, string];
  const raised = [...exponent.replace("+", "")].map((c) => "⁰¹²³⁴⁵⁶⁷⁸⁹⁻"["0123456789-".indexOf(c)]).join("");
  return `${Number(digits)}·10${raised}`.replace("-", "−");
}

interface Line {
  readonly name: string;
  /** A custom property of the style sheet. */
  readonly colour: string;
  readonly width: number;
  readonly dash?: number[];
  readonly of: (point: Point) => number | undefined;
}

const replicas = Array.from(
  { length: REPLICAS },
  (_, r): Line => ({
    name: `C of SGD ${r}`,
    colour: "--sgd-light",
    width: 1,
    of: ({ sgd }) => sgd?.charges[r],
  }),
);
const charge: readonly Line[] = [
  ...replicas,
  { name: "C of GD", colour: "--gd", width: 3, of: ({ gd }) => gd?.charge },
  { name: "C of SGD", colour: "--sgd", width: 4, of: ({ sgd }) => sgd?.charges && mean(sgd.charges) },
  {
    name: "equilibrium",
    colour: "--rest",
    width: 2,
    dash: [2, 4],
    of: ({ sgd }) => sgd?.balance.charge,
  },
  {
    name: "predicted C of SGD",
    colour: "--ink",
    width: 1.75,
    dash: [8, 6],
    of: ({ sgd }) => sgd?.predicted,
  },
];
const loss: readonly Line[] = [
  { name: "loss of GD", colour: "--gd", width: 3, of: ({ gd }) => gd?.loss },
  { name: "loss of SGD", colour: "--sgd", width: 2, of: ({ sgd }) => sgd?.loss },
];

class Chart {
  readonly #host: HTMLElement;
  readonly #lines: readonly Line[];
  #plot: uPlot | undefined;

  constructor(host: HTMLElement, lines: readonly Line[]) {
    this.#host = host;
    this.#lines = lines;
  }

  draw(points: readonly Point[], steps: number): void {
    // what a diverging run reaches would flatten all else
    const finite = (y: number | undefined) => (y !== undefined && Math.abs(y) < 1e3 ? y : null);
    const data: uPlot.AlignedData = [
      points.map(({ k }) => k),
      ...this.#lines.map(({ of }) => points.map((point) => finite(of(point)))),
    ];
    this.#plot ??= this.#made();
    this.#plot.setData(data, false);
    this.#plot.setScale("x", { min: 0, max: Math.max(1, steps) });
  }

  /** To the width of its place, in the colours of the page. */
  fit(): void {
    this.#plot?.setSize(this.#size());
    this.#plot?.redraw(true, true);
  }

  #size(): { width: number; height: number } {
    const width = this.#host.clientWidth;
    return { width, height: Math.round(Math.min(Number(this.#host.dataset.height), 0.75 * width)) };
  }

  #made(): uPlot {
    const colour = (name: string) => () => getComputedStyle(this.#host).getPropertyValue(name);
    const axis = {
      stroke: colour("--soft"),
      font: "13px system-ui, sans-serif",
      grid: { stroke: colour("--line"), width: 1 },
      ticks: { show: false },
      values: (_: uPlot, ticks: number[]) => ticks.map(show),
    };
    const options: uPlot.Options = {
      ...this.#size(),
      legend: { show: false },
      cursor: { show: false },
      padding: [null, 40, null, null],
      scales: { x: { time: false } },
      axes: [
        { ...axis, space: 80, size: 28, label: "step k", labelFont: axis.font, labelSize: 20 },
        { ...axis, size: (_, ticks) => 20 + 8 * Math.max(4, ...(ticks ?? []).map((text) => text.length)) },
      ],
      series: [
        {},
        ...this.#lines.map(({ colour: name, width, dash }) => ({
          stroke: colour(name),
          width,
          ...(dash ? { dash } : {}),
          points: { show: false },
        })),
      ],
    };
    return new uPlot(options, [[]], this.#host);
  }
}

/** Takes the points of a run as they come and draws them once a frame. */
export class Charts {
  readonly #charts: readonly Chart[];
  #points: Point[] = [];
  #steps = 1;
  #due = 0;

  constructor(chargeHost: HTMLElement, lossHost: HTMLElement) {
    this.#charts = [new Chart(chargeHost, charge), new Chart(lossHost, loss)];
    new ResizeObserver(() => this.fit()).observe(chargeHost);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.fit());
  }

  /** Empties the charts for a run of so many steps. */
  clear(steps: number): void {
    this.#points = [];
    this.#steps = Number.isFinite(steps) ? steps : 1;
    this.#draw();
  }

  add(point: Point): void {
    this.#points.push(point);
    this.#draw();
  }

  get points(): readonly Point[] {
    return this.#points;
  }

  fit(): void {
    for (const chart of this.#charts) chart.fit();
  }

  #draw(): void {
    this.#due ||= requestAnimationFrame(() => {
      this.#due = 0;
      for (const chart of this.#charts) chart.draw(this.#points, this.#steps);
    });
  }
}

/** One line per point: both runs, every replica, and theory; numbers in full. */
export function csvOf(points: readonly Point[]): string {
  const lines = [...loss, ...charge];
  const rows = points.map((point) => [point.k, ...lines.map(({ of }) => of(point) ?? "")].join(","));
  return `${[["k", ...lines.map(({ name }) => name)].join(","), ...rows].join("\n")}\n`;
}

/** The page: fields and buttons, a worker that trains, charts and numbers of what it says. */
import { Charts, csvOf, show } from "./charts.ts";
import { cases, type End, mean, type Point, REPLICAS, type Setting } from "./experiment.ts";
import type { News, Order } from "./messages.ts";
import { hashOf, settingOf, valuesOf } from "./setting.ts";

const byId = <E extends HTMLElement>(id: string): E => document.getElementById(id) as E;
const form = byId<HTMLFormElement>("controls");
const toggle = byId<HTMLButtonElement>("toggle");
const say = (id: string, text: string): void => {
  const element = byId(id);
  if (element.textContent !== text) element.textContent = text;
};

const charts = new Charts(byId("charge-chart"), byId("loss-chart"));
const worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
const send = (order: Order): void => worker.postMessage(order);
let setting: Setting;
let id = 0;

for (const [name, { title }] of Object.entries(cases))
  form.querySelector("select")!.append(new Option(title, name));

// --- a run ------------------------------------------------------------------------------------------------

/** Shows a setting in the form and the address, with nothing run yet. */
function set(next: Setting): void {
  setting = next;
  const values = valuesOf(setting);
  for (const field of form.querySelectorAll<HTMLInputElement | HTMLSelectElement>("input, select"))
    field.value = values[field.name] ?? "";
  history.replaceState(null, "", hashOf(setting));
  const model = cases[setting.model];
  say("loss-formula", model?.loss ?? "");
  for (const place of ["charge-formula", "charge-heading"]) say(place, model?.charge ?? "");
  say("about", model?.about ?? "");
  id++; // what the worker still says of the run before is not heard
  charts.clear(setting.steps);
  for (const tile of ["step", "speed", "gd", "sgd", "rest", "time", "gd-hash", "sgd-hash"]) say(tile, "–");
  say("error", "");
}

function run(next: Setting): void {
  set(next);
  send({ type: "run", id, setting });
  isRunning(true);
  say("status", `Running ${show(setting.steps)} steps …`);
}

function isRunning(running: boolean): void {
  toggle.textContent = running ? "Stop" : "Run";
  toggle.dataset.running = String(running);
}

worker.onmessage = ({ data: news }: MessageEvent<News>) => {
  if (news.id !== id) return;
  if (news.type === "point") return showPoint(news.point, news.stepsPerSecond);
  isRunning(false);
  if (news.type === "end") showEnd(news.gd, news.sgd);
  else if (news.type === "stopped") say("status", `Stopped at step ${byId("step").textContent}.`);
  else fail(news.message);
};
worker.onerror = ({ message }) => fail(`The worker does not run: ${message || "its script was not loaded"}.`);

function fail(message: string): void {
  isRunning(false);
  say("status", "Nothing was run.");
  say("error", message);
  byId("error").scrollIntoView({ block: "nearest" });
}

// --- what it says -----------------------------------------------------------------------------------------

const BALANCES: Record<string, string> = {
  "+inf": "none: C grows for ever",
  "-inf": "none: C falls for ever",
  flat: "none: nothing moves C",
};

/** A charge; what rounding leaves of 0 is 0. */
const showCharge = (C: number): string => show(Math.abs(C) < 1e-12 ? 0 : C);

function showPoint(point: Point, stepsPerSecond: number): void {
  charts.add(point);
  const { k, gd, sgd } = point;
  say("step", show(k));
  if (k > 0) say("speed", show(Number(stepsPerSecond.toPrecision(2))));
  if (gd) say("gd", showCharge(gd.charge));
  if (!sgd) return;
  const { status, charge, rate } = sgd.balance;
  say("sgd", showCharge(mean(sgd.charges)));
  say("rest", status === "finite" ? showCharge(charge) : (BALANCES[status] ?? "–"));
  say("time", rate > 0 ? `${show(Number((1 / rate).toPrecision(2)))} steps` : "–");
}

function showEnd(gd: End, sgd: End): void {
  say("gd-hash", gd.hash);
  say("sgd-hash", sgd.hash);
  const lost = [
    { name: "SGD", ...sgd },
    { name: "gradient descent", ...gd },
  ].filter(({ status }) => status === "diverged");
  if (lost.length > 0) {
    const which = lost.map(({ name, steps }) => `${name} after step ${show(steps)}`).join(", ");
    say("status", `Diverged: ${which}. A step this long leaves the numbers; try a smaller η.`);
    return;
  }
  const first = charts.points.at(0);
  const last = charts.points.at(-1);
  if (!first?.gd || !last?.gd || !last.sgd) return;
  const text =
    `Done. From C = ${showCharge(first.gd.charge)}, gradient descent came to ${showCharge(last.gd.charge)} and SGD, mean of ` +
    `${REPLICAS}, to ${showCharge(mean(last.sgd.charges))}; predicted for SGD: ${showCharge(last.sgd.predicted)}.`;
  say("status", text);
  byId("charge-chart").ariaLabel = `The charge C against the step k. ${text}`;
}

// --- what the reader does ---------------------------------------------------------------------------------

const fromForm = (): Setting =>
  settingOf(new URLSearchParams(new FormData(form) as unknown as Record<string, string>).toString());
const usual = (model: string, seed: string): Setting =>
  settingOf(new URLSearchParams({ model, seed }).toString());
const stop = (): void => {
  if (toggle.dataset.running === "true") send({ type: "stop" });
};

toggle.addEventListener("click", () => (toggle.dataset.running === "true" ? stop() : run(fromForm())));
form.addEventListener("change", ({ target }) => {
  const { model, seed } = fromForm();
  run((target as HTMLElement).matches("select") ? usual(model, seed) : fromForm());
});
form.addEventListener("reset", (event) => {
  event.preventDefault();
  stop();
  set(usual(setting.model, "1"));
  isRunning(false);
  say("status", "Ready. What will become of C? Press Run.");
});
document.addEventListener("keydown", ({ key }) => {
  if (key === "Escape") stop();
});
addEventListener("hashchange", () => {
  run(settingOf(location.hash));
  byId("charge-chart").scrollIntoView({ block: "nearest" });
});

byId("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(location.href);
    say("status", "The link to this run is copied: it gives the same numbers anywhere.");
  } catch {
    say("status", "The browser does not let the page copy; the link is in the address bar.");
  }
});
byId("csv").addEventListener("click", () => {
  const url = URL.createObjectURL(new Blob([csvOf(charts.points)], { type: "text/csv" }));
  Object.assign(document.createElement("a"), { href: url, download: `${setting.model}.csv` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
});

run(settingOf(location.hash));

/** What page and worker say to each other. */
import type { End, Point, Setting } from "./experiment.ts";

/** To the worker. A new run ends the one before. */
export type Order =
  | { readonly type: "run"; readonly id: number; readonly setting: Setting }
  | { readonly type: "stop" };

/** From the worker, about the run with this id. */
export type News = { readonly id: number } & (
  | { readonly type: "point"; readonly point: Point; readonly stepsPerSecond: number }
  | { readonly type: "end"; readonly gd: End; readonly sgd: End }
  | { readonly type: "stopped" }
  | { readonly type: "failed"; readonly message: string }
);

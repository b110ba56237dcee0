/** The public API: what a page or a program imports. */

export * from "./api.ts";
export { createEngine, type EngineOptions } from "./create.ts";

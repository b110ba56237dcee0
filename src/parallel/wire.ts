import { Run } from "../dynamics/result.ts";
import { type ErrorCode, internal, NoetherflowError } from "../errors.ts";
import type { RunSpec } from "../spec.ts";

/** A run as it crosses threads: what makes it again, and its hash to compare. */
export interface RunWire {
  readonly parts: ConstructorParameters<typeof Run>[0];
  readonly hash: string;
}

/** An error as it crosses threads; one of ours has a code. */
export interface ErrorWire {
  readonly code: ErrorCode | null;
  readonly where: string;
  readonly expected: string;
  readonly got: string | undefined;
  readonly hint: string | undefined;
  readonly name: string;
  readonly message: string;
  readonly stack: string | undefined;
  readonly recorded: RunWire | null;
}

/** What a worker is asked for: a run, and a port on which any message stops it. */
export interface TaskWire {
  readonly spec: RunSpec;
  readonly control: MessagePort;
}

/** What it answers; an aborted run is the run so far, null where there is none. */
export type AnswerWire =
  | { readonly status: "done"; readonly run: RunWire }
  | { readonly status: "failed"; readonly error: ErrorWire }
  | { readonly status: "aborted"; readonly run: RunWire | null };

/** Steps of one replica that a task has done. */
export type ProgressWire = number;

export function packRun(run: Run): RunWire {
  const { theta, replicas, P, steps, status, diverged, series, averages, probes, settings, profile } = run;
  const parts = { theta, replicas, P, steps, status, diverged, series, averages, probes, settings };
  return { parts: profile === undefined ? parts : { ...parts, profile }, hash: run.hash };
}

export function unpackRun({ parts, hash }: RunWire): Run {
  const run = new Run(parts);
  if (run.hash !== hash) internal("parallel", "a run changed on its way between threads");
  return run;
}

export function packError(error: unknown): ErrorWire {
  const given = error instanceof Error ? error : new Error(String(error));
  const ours = given instanceof NoetherflowError ? given : null;
  return {
    code: ours?.code ?? null,
    where: ours?.where ?? "",
    expected: ours?.expected ?? "",
    got: ours?.got,
    hint: ours?.hint,
    name: given.name,
    message: given.message,
    stack: given.stack,
    recorded: ours?.recorded instanceof Run ? packRun(ours.recorded) : null,
  };
}

/** The error of a worker as one of ours; what else was thrown there is its cause. */
export function unpackError(where: string, wire: ErrorWire): NoetherflowError {
  const { code, name, message, stack } = wire;
  if (code !== null) {
    const error = new NoetherflowError(code, wire.where, wire);
    if (stack !== undefined) error.stack = stack;
    if (wire.recorded !== null) error.recorded = unpackRun(wire.recorded);
    return error;
  }
  const cause = new Error(message);
  Object.defineProperty(cause, "name", { value: name, configurable: true });
  if (stack !== undefined) cause.stack = stack;
  const error = new NoetherflowError("internal", where, {
    expected: "a run or an error of this package",
    got: `${name}: ${message.replace(/\.$/, "")}`,
    hint: "Please report this with the model and options.",
  });
  error.cause = cause;
  return error;
}

/** The buffers of typed arrays in plain data, each once, for transfer. Lists of numbers are not looked into. */
export function buffersIn(data: unknown): ArrayBuffer[] {
  const found = new Set<ArrayBuffer>();
  const open: unknown[] = [data];
  while (open.length > 0) {
    const value = open.pop();
    if (ArrayBuffer.isView(value)) {
      if (value.buffer instanceof ArrayBuffer) found.add(value.buffer);
    } else if (value instanceof ArrayBuffer) found.add(value);
    else if (
      typeof value === "object" &&
      value !== null &&
      !(Array.isArray(value) && typeof value[0] === "number")
    )
      for (const inner of Object.values(value))
        if (typeof inner === "object" && inner !== null) open.push(inner);
  }
  return [...found];
}

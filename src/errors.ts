/** What went wrong, for programs; the message says it for people. */
export type ErrorCode =
  | "shape"
  | "range"
  | "nonfinite"
  | "name"
  | "unsupported"
  | "memory"
  | "version"
  | "internal";

/** What a message is made of. */
export interface ErrorParts {
  /** What was expected, as the middle of a sentence. */
  expected: string;
  /** What came: value and shape. */
  got?: string | undefined;
  /** What to try, a sentence. */
  hint?: string | undefined;
}

/**
 * Every error this package throws on purpose. The message reads
 * `where: what was expected, got what came. What to try.`
 */
export class NoetherflowError extends Error {
  /** "NoetherflowError". */
  override readonly name = "NoetherflowError";
  /** What kind of mistake it is, for programs. */
  readonly code: ErrorCode;
  /** The function or the option it is about. */
  readonly where: string;
  /** What was expected. */
  readonly expected: string;
  /** What came; undefined where nothing did. */
  readonly got: string | undefined;
  /** What to try; undefined where there is nothing to say. */
  readonly hint: string | undefined;
  /** What a run had recorded when it ended, where there is something to keep. */
  recorded?: unknown;

  constructor(code: ErrorCode, where: string, parts: ErrorParts) {
    const got = parts.got === undefined ? "" : `, got ${parts.got}`;
    const hint = parts.hint === undefined ? "" : ` ${parts.hint}`;
    super(`${where}: ${parts.expected}${got}.${hint}`);
    this.code = code;
    this.where = where;
    this.expected = parts.expected;
    this.got = parts.got;
    this.hint = parts.hint;
  }
}

/** Throws a NoetherflowError; the return type lets callers end a branch with it. */
export function fail(code: ErrorCode, where: string, expected: string, got?: string, hint?: string): never {
  throw new NoetherflowError(code, where, { expected, got, hint });
}

/** A bug of ours: says so and asks for a report. */
export function internal(where: string, what: string): never {
  return fail(
    "internal",
    `internal: ${where}`,
    what,
    undefined,
    "Please report this with the model and options.",
  );
}

/** Any value in at most some 80 characters, never throwing. */
export function show(value: unknown): string {
  const text = showWhole(value);
  return text.length > 90 ? `${text.slice(0, 87)}...` : text;
}

function showWhole(value: unknown): string {
  if (typeof value === "string")
    return JSON.stringify(value.length > 60 ? `${value.slice(0, 57)}...` : value);
  if (typeof value === "number" || typeof value === "boolean" || value == null) return String(value);
  if (typeof value === "bigint") return `${value}n`;
  if (typeof value === "function") return "a function";
  if (typeof value === "symbol") return "a symbol";
  if (ArrayBuffer.isView(value))
    return `${value.constructor.name} of ${(value as Float64Array).length} values`;
  if (Array.isArray(value)) {
    if (value.length <= 8 && value.every((v) => typeof v === "number")) return `[${value.join(", ")}]`;
    return `an array of ${value.length}`;
  }
  const keys = Object.keys(value as object);
  return `an object with keys ${keys.slice(0, 6).join(", ")}${keys.length > 6 ? ", ..." : ""}`;
}

/** `[2, 3]` for a shape. */
export function showShape(shape: readonly number[]): string {
  // an axis of one entry per sample has size Infinity until the batch is known
  return `[${shape.map((d) => (d === Infinity ? "batch" : d)).join(", ")}]`;
}

/** A finite number, optionally within [min, max]. */
export function checkNumber(
  where: string,
  what: string,
  value: unknown,
  min = -Infinity,
  max = Infinity,
): number {
  if (typeof value === "number" && Number.isFinite(value) && value >= min && value <= max) return value;
  const range =
    min > -Infinity && max < Infinity
      ? ` in [${min}, ${max}]`
      : min > -Infinity
        ? ` of at least ${min}`
        : max < Infinity
          ? ` of at most ${max}`
          : "";
  return fail("range", where, `${what} must be a finite number${range}`, show(value));
}

/** An integer within [min, max]; `maxName` names the upper end ("N") in the message. */
export function checkInteger(
  where: string,
  what: string,
  value: unknown,
  min: number,
  max: number = Number.MAX_SAFE_INTEGER,
  maxName?: string,
): number {
  if (typeof value === "number" && Number.isInteger(value) && value >= min && value <= max) return value;
  const top = max === Number.MAX_SAFE_INTEGER ? "" : maxName ? `${maxName} = ${max}` : `${max}`;
  const range = top === "" ? `of at least ${min}` : `in [${min}, ${top}]`;
  return fail("range", where, `${what} must be an integer ${range}`, show(value));
}

/** An object with named entries; not an array, a Map or a Date, which have none, and not null. */
export function checkObject(where: string, what: string, value: unknown): Record<string, unknown> {
  if (Object.prototype.toString.call(value) === "[object Object]") return value as Record<string, unknown>;
  return fail("shape", where, `expected ${what}`, show(value));
}

/** true, false, or absent. */
export function checkFlag(where: string, what: string, value: unknown): boolean {
  if (value === undefined || typeof value === "boolean") return value ?? false;
  return fail("range", where, `${what} must be true or false`, show(value));
}

/** Refuses options nobody reads, so that a misspelt one is never silently ignored. */
export function checkKnown(where: string, options: object, known: readonly string[]): void {
  for (const key of Object.keys(options)) {
    if (!known.includes(key)) {
      fail("name", where, `options are ${known.join(", ")}`, show(key), nearest(key, known));
    }
  }
}

/** One of a closed list of words. */
export function checkWord<T extends string>(
  where: string,
  what: string,
  value: unknown,
  known: readonly T[],
): T {
  if (typeof value === "string" && (known as readonly string[]).includes(value)) return value as T;
  return fail(
    "name",
    where,
    `${what} must be one of ${known.map((k) => `"${k}"`).join(", ")}`,
    show(value),
    typeof value === "string" ? nearest(value, known) : undefined,
  );
}

/** "Did you mean ...?" when one known word is within two edits. */
export function nearest(word: string, known: readonly string[]): string | undefined {
  let best: string | undefined;
  let bestDistance = 3;
  for (const candidate of known) {
    const d = editDistance(word.toLowerCase(), candidate.toLowerCase(), bestDistance);
    if (d < bestDistance) {
      bestDistance = d;
      best = candidate;
    }
  }
  return best === undefined ? undefined : `Did you mean "${best}"?`;
}

function editDistance(a: string, b: string, limit: number): number {
  if (Math.abs(a.length - b.length) >= limit || a.length > 64 || b.length > 64) return limit;
  let previous = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const change = previous[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      row.push(Math.min(change, previous[j]! + 1, row[j - 1]! + 1));
    }
    previous = row;
  }
  return previous[b.length]!;
}

import { hashBytes } from "../core/hash.ts";
import { fail, show } from "../errors.ts";
import type { Divergence } from "./result.ts";

/** What a checkpoint says of itself. */
export interface CheckpointHeader {
  readonly schema: "noetherflow-checkpoint/1";
  readonly engine: string;
  readonly streamVersion: number;
  readonly dtype: string;
  readonly variant: string;
  readonly wasmSha256: string | null;
  /** Hash of everything that decides the numbers of the run. */
  readonly fingerprint: string;
  /** How states lie in memory: lanes, groups, bytes. */
  readonly layout: string;
  readonly step: number;
  readonly records: number;
  readonly isOver: boolean;
  readonly diverged: readonly (Omit<Divergence, "lastLoss"> & { readonly lastLoss: number | null })[];
  /** Steps probed, and the probes by name with their numbers per step. */
  readonly probed: number;
  readonly probes: readonly (readonly [name: string, perStep: number])[];
  /** Replicas that were lost while the others go on. */
  readonly frozen: readonly number[];
}

const MAGIC = 0x4b43464e; // "NFCK"
/** Bytes before the header: magic, its length, sha256 in hex. */
const HEAD = 8 + 64;
const PARTS = 0x504b464e; // "NFKP"
const WHERE = "resume";

/**
 * A checkpoint as bytes: magic, length of the header, sha256 of what follows it, the header as JSON, then the states and
 * the arrays, all little-endian.
 */
export function packCheckpoint(
  header: CheckpointHeader,
  states: Uint8Array,
  arrays: readonly Float64Array[],
): Uint8Array {
  const text = new TextEncoder().encode(JSON.stringify(header));
  const size = states.length + arrays.reduce((n, a) => n + 8 * a.length, 0);
  const out = new Uint8Array(HEAD + text.length + size);
  out.set(text, HEAD);
  out.set(states, HEAD + text.length);
  let at = HEAD + text.length + states.length;
  for (const array of arrays) {
    out.set(new Uint8Array(array.buffer, array.byteOffset, array.byteLength), at);
    at += array.byteLength;
  }
  const view = new DataView(out.buffer);
  view.setUint32(0, MAGIC, true);
  view.setUint32(4, text.length, true);
  out.set(new TextEncoder().encode(hashBytes(out.subarray(HEAD))), 8);
  return out;
}

/**
 * Reads a checkpoint back, after comparing it with the run that is to go on.
 *
 * @param lengths of the arrays that follow the states
 */
export function unpackCheckpoint(
  bytes: unknown,
  own: CheckpointHeader,
  stateBytes: number,
  lengths: (header: CheckpointHeader) => number[],
): { header: CheckpointHeader; states: Uint8Array; arrays: Float64Array[] } {
  const { header, payload } = readHeader(bytes);
  const versions: [keyof CheckpointHeader, string][] = [
    ["engine", "version of noetherflow"],
    ["streamVersion", "version of the random stream"],
    ["dtype", "dtype"],
    ["variant", "variant"],
    ["wasmSha256", "Wasm core"],
  ];
  for (const [key, what] of versions) {
    if (header[key] !== own[key])
      fail(
        "version",
        WHERE,
        `a checkpoint of the same ${what}, ${show(own[key])}`,
        show(header[key]),
        "Resume it where it was made.",
      );
  }
  if (header.fingerprint !== own.fingerprint)
    fail(
      "range",
      WHERE,
      "a checkpoint of this run",
      "one of another model, data, theta or options",
      "Resume with the options that made it.",
    );
  if (header.layout !== own.layout)
    fail(
      "range",
      WHERE,
      `a checkpoint with the layout ${own.layout}`,
      header.layout,
      "Resume with the same lowering options.",
    );
  const sizes = lengths(header);
  const expected = stateBytes + 8 * sizes.reduce((n, x) => n + x, 0);
  if (payload.length !== expected) damaged(`${payload.length} bytes of data instead of ${expected}`);
  let at = stateBytes;
  const arrays = sizes.map((size) => {
    const part = new Float64Array(size);
    // not slice, which copies nothing where the bytes are a Buffer of Node
    new Uint8Array(part.buffer).set(payload.subarray(at, at + 8 * size));
    at += 8 * size;
    return part;
  });
  return { header, states: payload.subarray(0, stateBytes), arrays };
}

/** Checkpoints of the parts of a run as one: how many, then the length and the bytes of each. */
export function joinCheckpoints(parts: readonly Uint8Array[]): Uint8Array {
  const size = parts.reduce((n, p) => n + 8 + p.length, 8);
  const out = new Uint8Array(size);
  const view = new DataView(out.buffer);
  view.setUint32(0, PARTS, true);
  view.setUint32(4, parts.length, true);
  let at = 8;
  for (const part of parts) {
    view.setBigUint64(at, BigInt(part.length), true);
    out.set(part, at + 8);
    at += 8 + part.length;
  }
  return out;
}

/** The parts of `joinCheckpoints`: as many as had begun. */
export function splitCheckpoints(bytes: unknown, count: number): Uint8Array[] {
  if (!(bytes instanceof Uint8Array))
    return fail("shape", WHERE, "the bytes of a checkpoint, a Uint8Array", show(bytes));
  if (bytes.length < 8) return damaged(`${bytes.length} bytes`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(0, true) !== PARTS)
    return fail("shape", WHERE, "the bytes of a checkpoint", "something else");
  const parts: Uint8Array[] = [];
  const begun = view.getUint32(4, true);
  if (begun > count)
    return fail("range", WHERE, `a checkpoint of this run, which has ${count} parts`, `one with ${begun}`);
  for (let at = 8; parts.length < begun; ) {
    if (at + 8 > bytes.length) return damaged(`${bytes.length} bytes`);
    const length = Number(view.getBigUint64(at, true));
    if (at + 8 + length > bytes.length) return damaged(`${bytes.length} bytes`);
    parts.push(bytes.subarray(at + 8, at + 8 + length));
    at += 8 + length;
  }
  return parts;
}

function readHeader(bytes: unknown): { header: CheckpointHeader; payload: Uint8Array } {
  if (!(bytes instanceof Uint8Array))
    return fail("shape", WHERE, "the bytes of a checkpoint, a Uint8Array", show(bytes));
  if (bytes.length < HEAD) return damaged(`${bytes.length} bytes`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(0, true) !== MAGIC)
    return fail("shape", WHERE, "the bytes of a checkpoint", "something else");
  if (new TextDecoder().decode(bytes.subarray(8, HEAD)) !== hashBytes(bytes.subarray(HEAD)))
    return damaged("other data than its sum says");
  const end = HEAD + view.getUint32(4, true);
  let header: CheckpointHeader;
  try {
    header = JSON.parse(new TextDecoder().decode(bytes.subarray(HEAD, end))) as CheckpointHeader;
  } catch {
    return damaged("a header that cannot be read");
  }
  if (header.schema !== "noetherflow-checkpoint/1")
    return fail("version", WHERE, 'a checkpoint of schema "noetherflow-checkpoint/1"', show(header.schema));
  const payload = bytes.subarray(end);
  return { header, payload };
}

function damaged(how: string): never {
  return fail("shape", WHERE, "a whole checkpoint", how, "It was cut short or changed; use an earlier one.");
}

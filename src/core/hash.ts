import { sha256 } from "@noble/hashes/sha2.js";
import { bytesToHex } from "@noble/hashes/utils.js";

const LITTLE_ENDIAN = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;

/** sha256, in hex, of the little-endian bytes of some arrays, one after the other. */
export function hashArrays(parts: readonly (Float64Array | Float32Array)[]): string {
  const hash = new ArrayHash();
  for (const part of parts) hash.update(part);
  return hash.digest();
}

/** The same of arrays that are not there at once. */
export class ArrayHash {
  readonly #hash = sha256.create();

  update(part: Float64Array | Float32Array): void {
    this.#hash.update(littleEndian(part));
  }

  digest(): string {
    return bytesToHex(this.#hash.digest());
  }
}

export function hashText(text: string): string {
  return bytesToHex(sha256(new TextEncoder().encode(text)));
}

/** sha256 of some bytes, in hex. */
export function hashBytes(bytes: Uint8Array): string {
  return bytesToHex(sha256(bytes));
}

function littleEndian(part: Float64Array | Float32Array): Uint8Array {
  if (LITTLE_ENDIAN) return new Uint8Array(part.buffer, part.byteOffset, part.byteLength);
  const bytes = new Uint8Array(part.byteLength);
  const view = new DataView(bytes.buffer);
  for (let i = 0; i < part.length; i++) {
    if (part.BYTES_PER_ELEMENT === 8) view.setFloat64(8 * i, part[i]!, true);
    else view.setFloat32(4 * i, part[i]!, true);
  }
  return bytes;
}

import { sha256 } from "@noble/hashes/sha2.js";
import { bytesToHex } from "@noble/hashes/utils.js";

/** sha256, in hex, of the little-endian bytes of some arrays, one after the other. */
export function hashArrays(parts: readonly (Float64Array | Float32Array)[]): string {
  const hash = sha256.create();
  for (const part of parts) {
    const bytes = new Uint8Array(part.length * part.BYTES_PER_ELEMENT);
    const view = new DataView(bytes.buffer);
    for (let i = 0; i < part.length; i++) {
      if (part.BYTES_PER_ELEMENT === 8) view.setFloat64(8 * i, part[i]!, true);
      else view.setFloat32(4 * i, part[i]!, true);
    }
    hash.update(bytes);
  }
  return bytesToHex(hash.digest());
}

export function hashText(text: string): string {
  return bytesToHex(sha256(new TextEncoder().encode(text)));
}

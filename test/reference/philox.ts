/**
 * Philox4x32-10, one block at a time and as the paper writes it (Salmon et al. 2011, "Parallel random numbers: as
 * easy as 1, 2, 3"). It catches a swapped word, a key that is not bumped, and a product cut to 32 bits.
 */

export type Words4 = readonly [number, number, number, number];
export type Words2 = readonly [number, number];

/** High and low word of the unsigned product a * b. */
function product(a: number, b: number): Words2 {
  const wide = BigInt(a >>> 0) * BigInt(b >>> 0);
  return [Number(wide >> 32n), Number(wide & 0xffffffffn)];
}

/** Ten rounds of counter under key; all words are taken modulo 2^32 and returned as unsigned. */
export function philox(counter: Words4, key: Words2): Words4 {
  let [c0, c1, c2, c3] = counter;
  let [k0, k1] = key;
  for (let round = 0; round < 10; ++round) {
    const [high0, low0] = product(0xd2511f53, c0);
    const [high1, low1] = product(0xcd9e8d57, c2);
    [c0, c1, c2, c3] = [(high1 ^ c1 ^ k0) >>> 0, low1, (high0 ^ c3 ^ k1) >>> 0, low0];
    k0 = (k0 + 0x9e3779b9) >>> 0;
    k1 = (k1 + 0xbb67ae85) >>> 0;
  }
  return [c0, c1, c2, c3];
}

/** The known answers published with Random123 for philox4x32-10: counter, key, result. */
export const knownAnswers: readonly { counter: Words4; key: Words2; result: Words4 }[] = [
  {
    counter: [0, 0, 0, 0],
    key: [0, 0],
    result: [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8],
  },
  {
    counter: [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff],
    key: [0xffffffff, 0xffffffff],
    result: [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd],
  },
  {
    counter: [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
    key: [0xa4093822, 0x299f31d0],
    result: [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
  },
];

/**
 * Turns uniform 32-bit words into batches without repetition, in place.
 *
 * For each step and lane the S words w_0 ... w_(S-1) run the first S rounds of a Fisher-Yates
 * shuffle of 0 ... N - 1: round s exchanges entry s with entry s + floor(w_s (N - s) / 2^32). Every
 * S-subset is equally likely up to a relative N / 2^32. The exchanges are undone afterwards, so a
 * batch is a function of its own words alone and costs O(S).
 *
 * draws   u32 words, draw-major with `lanes` words each; overwritten by index * scale
 * table   u32, the identity 0 ... N - 1 before and after
 */
export function distinctBatches(draws: usize, steps: i32, S: i32, lanes: i32, N: u32, scale: u32, table: usize): void {
  const stride = (lanes as usize) << 2;
  for (let k = 0; k < steps; k++) {
    for (let l = 0; l < lanes; l++) {
      const first = draws + ((k * S) as usize) * stride + ((l as usize) << 2);
      let at = first;
      for (let s = 0; s < S; s++) {
        const word = load<u32>(at) as u64;
        const j = (s as u32) + (((word * ((N - s) as u64)) >> 32) as u32);
        const a = table + ((s as usize) << 2);
        const b = table + ((j as usize) << 2);
        const chosen = load<u32>(b);
        store<u32>(b, load<u32>(a));
        store<u32>(a, chosen);
        // the exchange partner, kept where the word was, is needed to undo
        store<u32>(at, j);
        at += stride;
      }
      for (let s = S - 1; s >= 0; s--) {
        at -= stride;
        const a = table + ((s as usize) << 2);
        const b = table + ((load<u32>(at) as usize) << 2);
        const chosen = load<u32>(a);
        store<u32>(a, load<u32>(b));
        store<u32>(b, chosen);
        store<u32>(at, chosen * scale);
      }
    }
  }
}

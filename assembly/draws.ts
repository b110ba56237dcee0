/** Which samples an update goes over: byte offsets of their records, drawn ahead into a window. */
import * as at from "./layout";
import { distinctBatches } from "./distinct";
import { drawIndices } from "./random";
import { key0, key1, replica, streams } from "./registers";

// @ts-ignore: decorator
@inline
function word(base: usize, field: usize): u32 {
  return load<u32>(base + field);
}

/** Address of the first drawn offset of update u of a pass; `last` is the largest u this call may ask for. */
export function drawsOf(pass: usize, u: u32, last: u32): usize {
  const table = word(pass, at.DRAW_TABLE) as usize;
  const kind = word(pass, at.DRAW_KIND);
  if (kind == 1) return windowAt(table, u, last);
  return table + (u as usize) * (word(pass, at.DRAW_ROW) as usize);
}

/** Address of the draws of update u in a window, which is made to cover it, and what follows as far as `last`. */
function windowAt(draws: usize, u: u32, last: u32): usize {
  const window = word(draws, at.WINDOW) as usize;
  const row = (word(draws, at.BATCH_SIZE) as usize) * (word(draws, at.DRAW_LANES) as usize);
  const epoch = word(draws, at.EPOCH_UPDATES);
  const isCovered = word(draws, at.WINDOW_VALID) && u - word(draws, at.WINDOW_FIRST) < word(draws, at.WINDOW_UPDATES);
  if (epoch != 0) {
    if (!isCovered) shuffle(draws, window, u / epoch, epoch);
    return window + (((u - word(draws, at.WINDOW_FIRST)) as usize) * row << 2);
  }
  if (!isCovered) cover(draws, window, u, last);
  // draws come in blocks of four; the window starts at the block that holds the first draw it covers
  const S = word(draws, at.BATCH_SIZE) as u64;
  const first = (word(draws, at.WINDOW_FIRST) as u64) * S & ~(3 as u64);
  const ahead = ((u as u64) * S - first) as usize;
  return window + (ahead * (word(draws, at.DRAW_LANES) as usize) << 2);
}

function cover(draws: usize, window: usize, u: u32, last: u32): void {
  const S = word(draws, at.BATCH_SIZE);
  const lanes = word(draws, at.DRAW_LANES);
  const updates = min(word(draws, at.WINDOW_UPDATES), last - u + 1);
  const first = ((u as u64) * (S as u64)) & ~(3 as u64);
  // up to 3 draws of that block come before, and the last block is whole
  const count = ((updates as u64) * (S as u64) + 6) & ~(3 as u64);
  const distinct = word(draws, at.DISTINCT) as usize;
  // for distinct samples the words themselves are wanted: an index below 2^32 - 1
  const below = distinct ? u32.MAX_VALUE : word(draws, at.BELOW);
  const scale = distinct ? 1 : word(draws, at.RECORD_BYTES);
  draw(draws, window, count as i32, first, below, scale);
  const ahead = ((u as u64) * (S as u64) - first) as usize;
  if (distinct) {
    const start = window + ((ahead * (lanes as usize)) << 2);
    distinctBatches(start, updates, S, lanes, word(draws, at.BELOW), word(draws, at.RECORD_BYTES), distinct);
  }
  store<u32>(draws + at.WINDOW_FIRST, u);
  store<u32>(draws + at.WINDOW_VALID, 1);
  forget(draws, window + ((ahead + (updates as usize) * (S as usize)) * (lanes as usize) << 2));
}

/** Other draws stand in the window, up to `end`: what was brought for the former ones is of no use. */
function forget(draws: usize, end: usize): void {
  const feed = word(draws, at.WINDOW_FEED) as usize;
  if (feed == 0) return;
  store<u32>(feed + at.FEED_FROM, 0);
  store<u32>(feed + at.FEED_TO, 0);
  store<u32>(feed + at.FEED_END, end as u32);
}

/** The permutation of all samples that epoch e goes through; its words are those from e times N rounded up to fours. */
function shuffle(draws: usize, window: usize, e: u32, updates: u32): void {
  const N = word(draws, at.BELOW);
  const count = (N + 3) & ~3;
  draw(draws, window, count, (e as u64) * (count as u64), u32.MAX_VALUE, 1);
  const lanes = word(draws, at.DRAW_LANES);
  distinctBatches(window, 1, N, lanes, N, word(draws, at.RECORD_BYTES), word(draws, at.DISTINCT));
  store<u32>(draws + at.WINDOW_FIRST, e * updates);
  store<u32>(draws + at.WINDOW_VALID, 1);
  forget(draws, window + ((N as usize) * (lanes as usize) << 2));
}

function draw(draws: usize, window: usize, count: i32, first: u64, below: u32, scale: u32): void {
  const lanes = word(draws, at.DRAW_LANES);
  const purpose = word(draws, at.PURPOSE);
  drawIndices(
    window, count, first as u32, (first >> 32) as u32, lanes, below, scale, replica, purpose, key0, key1, streams,
  );
}

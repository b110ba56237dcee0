/**
 * Repeats passes: a pass is one walk over a batch (before, blocks of samples, after), a step is one
 * pass of the step program, a record one pass of the probe program. Knows no scheme, no network.
 *
 * A run holds `groups` of replicas. A group's state (rates, theta, accumulated work) is brought to
 * the working addresses, advanced all the steps of the call, and put back, so op words carry plain
 * addresses; a single group stays where it is.
 */
import * as at from "./layout";
import { distinctBatches } from "./distinct";
import { drawIndices } from "./random";
import { setBlock, setKey, setReplica, setStep, setTrace } from "./registers";
import { allFinite } from "./pointwise";
import { execute } from "./dispatch";

// @ts-ignore: decorator
@inline
function word(base: usize, field: usize): u32 {
  return load<u32>(base + field);
}

/** A word that is an address or a number of bytes. */
// @ts-ignore: decorator
@inline
function place(base: usize, field: usize): usize {
  return load<u32>(base + field) as usize;
}

/** Step after the last one of this call: a probe may want its batch, nobody a later one. */
let last: u32 = 0;

/** Makes the window of drawn indices cover step k, and the steps after it as far as this call goes. */
function cover(run: usize, k: u32): void {
  const room = word(run, at.WINDOW_STEPS);
  if (room == 0) return;
  if (word(run, at.WINDOW_VALID) && k - word(run, at.WINDOW_FIRST) < room) return;
  const steps = min(room, last - k + 1);
  const S = word(run, at.BATCH_SIZE);
  const lanes = word(run, at.DRAW_LANES);
  // draws come in blocks of four; start at the block that holds the first draw of step k
  const first = ((k as u64) * (S as u64)) & ~(3 as u64);
  // up to 3 draws of that block come before, and the last block is whole
  const count = ((steps as u64) * (S as u64) + 6) & ~(3 as u64);
  const window = place(run, at.WINDOW);
  const distinct = place(run, at.DISTINCT);
  // for distinct samples the words themselves are wanted: an index below 2^32 - 1
  drawIndices(
    window,
    count as i32,
    first as u32,
    (first >> 32) as u32,
    lanes,
    distinct ? u32.MAX_VALUE : word(run, at.BELOW),
    distinct ? 1 : word(run, at.RECORD_BYTES),
    word(run, at.GROUP_REPLICA),
    word(run, at.DRAW_PURPOSE),
    word(run, at.KEY0),
    word(run, at.KEY1),
  );
  if (distinct) {
    const ahead = ((k as u64) * (S as u64) - first) as usize;
    const start = window + ((ahead * (lanes as usize)) << 2);
    distinctBatches(start, steps, S, lanes, word(run, at.BELOW), word(run, at.RECORD_BYTES), distinct);
  }
  store<u32>(run + at.WINDOW_FIRST, k);
  store<u32>(run + at.WINDOW_VALID, 1);
}

/** Address of the first drawn offset of the batch of step k. */
function draws(run: usize, pass: usize, k: u32): usize {
  const kind = word(pass, at.DRAW_KIND);
  const S = word(run, at.BATCH_SIZE);
  if (kind == 1) {
    cover(run, k);
    const first = ((word(run, at.WINDOW_FIRST) as u64) * (S as u64)) & ~(3 as u64);
    const ahead = (k as u64) * (S as u64) - first;
    return place(run, at.WINDOW) + (((ahead as usize) * word(run, at.DRAW_LANES)) << 2);
  }
  const table = place(pass, at.DRAW_TABLE);
  if (kind == 3) return table + ((k as usize) * S << 2);
  return table;
}

function runPass(run: usize, pass: usize, k: u32): void {
  const table = draws(run, pass, k);
  setBlock(0, table);
  if (word(pass, at.WHOLE)) {
    execute(place(pass, at.BODY), place(pass, at.BODY_END));
    return;
  }
  const perSample = place(pass, at.DRAW_STRIDE);
  execute(place(pass, at.BEFORE), place(pass, at.BEFORE_END));
  const lanes = word(pass, at.BLOCK_LANES);
  const blocks = word(pass, at.BLOCKS);
  const body = place(pass, at.BODY);
  const bodyEnd = place(pass, at.BODY_END);
  let base: u32 = 0;
  for (let b: u32 = 0; b < blocks; b++) {
    setBlock(base, table + (base as usize) * perSample);
    execute(body, bodyEnd);
    base += lanes;
  }
  setBlock(base, table + (base as usize) * perSample);
  execute(place(pass, at.TAIL), place(pass, at.TAIL_END));
  execute(place(pass, at.AFTER), place(pass, at.AFTER_END));
}

function probe(run: usize, group: u32, k: u32, slot: u32): void {
  setTrace(
    place(run, at.TRACE) + (group as usize) * place(run, at.TRACE_GROUP) + (slot as usize) * place(run, at.TRACE_RECORD),
  );
  runPass(run, place(run, at.PROBE_PASS), k);
}

/**
 * Advances every replica of a run by `count` steps and writes a record after each step whose number
 * is a multiple of EVERY; with `probeNow` also one before the first step.
 *
 * @returns the number of records each group wrote, or -1 - records when some theta is not finite
 */
export function advance(run: usize, count: u32, probeNow: i32): i32 {
  const groups = word(run, at.GROUPS);
  const size = place(run, at.STATE_BYTES);
  const state = place(run, at.STATE);
  const saved = place(run, at.SAVED);
  const every = word(run, at.EVERY);
  const stepPass = place(run, at.STEP_PASS);
  const averagePass = place(run, at.AVERAGE_PASS);
  const averageFrom = word(run, at.AVERAGE_FROM);
  const averageEvery = word(run, at.AVERAGE_EVERY);
  const first = word(run, at.STEP);
  last = first + count;
  setKey(word(run, at.KEY0), word(run, at.KEY1), word(run, at.FRESH_PURPOSE));
  let records: u32 = 0;
  let finite = 1;
  for (let g: u32 = 0; g < groups; g++) {
    const home = saved + (g as usize) * size;
    if (groups > 1) memory.copy(state, home, size);
    const replica = word(run, at.FIRST_REPLICA) + g * word(run, at.GROUP_LANES);
    store<u32>(run + at.GROUP_REPLICA, replica);
    store<u32>(run + at.WINDOW_VALID, 0);
    setReplica(replica);
    records = 0;
    let k = first;
    setStep(k);
    if (probeNow) probe(run, g, k, records++);
    for (let s: u32 = 0; s < count; s++) {
      runPass(run, stepPass, k);
      k++;
      setStep(k);
      if (averageEvery != 0 && k >= averageFrom && k % averageEvery == 0) runPass(run, averagePass, k);
      if (every != 0 && k % every == 0) probe(run, g, k, records++);
    }
    finite &= allFinite(place(run, at.THETA), word(run, at.THETA_VALUES));
    if (groups > 1) memory.copy(home, state, size);
  }
  store<u32>(run + at.STEP, first + count);
  return finite ? (records as i32) : -1 - (records as i32);
}

/** One pass outside any run: an evaluation of losses, a gradient, a data set. */
export function evaluate(run: usize): void {
  setKey(word(run, at.KEY0), word(run, at.KEY1), word(run, at.FRESH_PURPOSE));
  const replica = word(run, at.FIRST_REPLICA);
  setReplica(replica);
  store<u32>(run + at.GROUP_REPLICA, replica);
  setStep(word(run, at.STEP));
  runPass(run, place(run, at.STEP_PASS), word(run, at.STEP));
}

/**
 * Executes one instruction of a run's step again and again, for profiles. The registers are those
 * of the first block of the run's present step; what the instruction changes is the caller's to
 * put back.
 */
export function repeat(run: usize, pc: usize, times: u32): void {
  setKey(word(run, at.KEY0), word(run, at.KEY1), word(run, at.FRESH_PURPOSE));
  setReplica(word(run, at.FIRST_REPLICA));
  const k = word(run, at.STEP);
  last = k;
  setStep(k);
  setTrace(place(run, at.TRACE));
  setBlock(0, draws(run, place(run, at.STEP_PASS), k));
  for (let i: u32 = 0; i < times; i++) execute(pc, pc + 64);
}

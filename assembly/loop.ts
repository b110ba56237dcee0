/**
 * Repeats passes: a pass is one walk over a batch (before, blocks of samples, after), an update of theta is a list of
 * passes, a step one or more updates, a record one pass of the probe program. Knows no scheme, no network.
 *
 * A run holds `groups` of replicas. A group's state (rates, theta, accumulated work) is brought to
 * the working addresses, advanced all the steps of the call, and put back, so op words carry plain
 * addresses; a single group stays where it is.
 */
import * as at from "./layout";
import { drawsOf } from "./draws";
import { setRates } from "./rates";
import { setBlock, setKey, setPurpose, setReplica, setStep, setTrace } from "./registers";
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

/** What `advance` returns when it has walked as many blocks as it was given and is not through. */
export const PAUSED: i32 = i32.MIN_VALUE;

/** Update after the last one of this call: a probe may want its batch, nobody a later one. */
let last: u32 = 0;
/** Blocks this call may still walk. */
let budget: u32 = 0;
/** Address of the feed that has to be filled before the call can go on, or 0. */
let starved: usize = 0;

/** Address of the byte offsets of the draws from an address on; 0 when their records have to be brought first. */
function brought(feed: usize, from: usize, bytes: usize): usize {
  const first = place(feed, at.FEED_FROM);
  if (from >= first && from + bytes <= place(feed, at.FEED_TO)) return place(feed, at.FEED_OFFSETS) + (from - first);
  store<u32>(feed + at.FEED_WANTED, from as u32);
  store<u32>(feed + at.FEED_BYTES, bytes as u32);
  starved = feed;
  return 0;
}

/**
 * Executes a pass from block `at.BLOCK_AT` of the run on; false when the budget ends before the pass, or samples have to be
 * brought first.
 */
function walk(run: usize, pass: usize, u: u32): bool {
  const table = drawsOf(pass, u, last);
  const purpose = word(pass, at.PURPOSE_OF_NOISE);
  setPurpose(purpose ? purpose : word(run, at.FRESH_PURPOSE));
  const feed = place(pass, at.FEED);
  if (word(pass, at.WHOLE)) {
    if (budget == 0) return false;
    let draws = table;
    if (feed) {
      draws = brought(feed, table, place(pass, at.BLOCK_LANES) * place(pass, at.DRAW_STRIDE));
      if (draws == 0) return false;
    }
    budget--;
    setBlock(0, draws);
    execute(place(pass, at.BODY), place(pass, at.BODY_END));
    return true;
  }
  const perSample = place(pass, at.DRAW_STRIDE);
  const lanes = word(pass, at.BLOCK_LANES);
  const blockBytes = (lanes as usize) * perSample;
  const blocks = word(pass, at.BLOCKS);
  const body = place(pass, at.BODY);
  const bodyEnd = place(pass, at.BODY_END);
  let b = word(run, at.BLOCK_AT);
  if (b == 0) {
    setBlock(0, table);
    execute(place(pass, at.BEFORE), place(pass, at.BEFORE_END));
  }
  let base = b * lanes;
  for (; b < blocks; b++) {
    const from = table + (base as usize) * perSample;
    const draws = feed != 0 && budget != 0 ? brought(feed, from, blockBytes) : from;
    if (budget == 0 || (feed != 0 && draws == 0)) {
      store<u32>(run + at.BLOCK_AT, b);
      return false;
    }
    budget--;
    setBlock(base, draws);
    execute(body, bodyEnd);
    base += lanes;
  }
  let rest = table + (base as usize) * perSample;
  const restBytes = (word(pass, at.REST) as usize) * perSample;
  if (feed != 0 && restBytes != 0) {
    rest = brought(feed, rest, restBytes);
    if (rest == 0) {
      store<u32>(run + at.BLOCK_AT, b);
      return false;
    }
  }
  setBlock(base, rest);
  execute(place(pass, at.TAIL), place(pass, at.TAIL_END));
  execute(place(pass, at.AFTER), place(pass, at.AFTER_END));
  store<u32>(run + at.BLOCK_AT, 0);
  return true;
}

function probe(run: usize, group: u32, u: u32, slot: u32): bool {
  setTrace(
    place(run, at.TRACE) + (group as usize) * place(run, at.TRACE_GROUP) + (slot as usize) * place(run, at.TRACE_RECORD),
  );
  return walk(run, place(run, at.PROBE_PASS), u);
}

/** Some lane has not reached the end of the step. */
function isLeft(run: usize): bool {
  const left = place(run, at.UNTIL);
  const lanes = word(place(run, at.RATES), at.LANES);
  for (let l: u32 = 0; l < lanes; l++) if (load<f64>(left + ((l as usize) << 3)) > 0) return true;
  return false;
}

/** The updates of step k, from the pass where the run is on; false when the budget ends before them. */
function walkStep(run: usize, k: u32): bool {
  const passes = place(run, at.PASSES);
  const count = word(run, at.PASS_COUNT);
  const updates = word(run, at.UPDATES);
  let j = word(run, at.UPDATE_AT);
  let p = word(run, at.PASS_AT);
  do {
    const u = k * updates + j;
    setStep(u);
    for (; p < count; p++) {
      if (walk(run, load<u32>(passes + ((p as usize) << 2)) as usize, u)) continue;
      store<u32>(run + at.UPDATE_AT, j);
      store<u32>(run + at.PASS_AT, p);
      return false;
    }
    p = 0;
    j++;
  } while (word(run, at.UNTIL) ? isLeft(run) : j < updates);
  store<u32>(run + at.UPDATE_AT, 0);
  store<u32>(run + at.PASS_AT, 0);
  return true;
}

/** What a group does next: the parts of a step in their order, and the record before the first one. */
const FIRST_PROBE: u32 = 0;
const BEGIN: u32 = 1;
const PASSES: u32 = 2;
const AVERAGE: u32 = 3;
const PROBE: u32 = 4;

/**
 * Advances every replica of a run by `count` steps and writes a record after each step whose number
 * is a multiple of EVERY; with `probeNow` also one before the first step.
 *
 * @param blocks blocks of samples to walk before coming back; PAUSED then says so, and the same call goes on. It also comes
 *               back for samples that are not in memory: STARVED is then the feed to be filled
 * @returns the number of records each group wrote, or -1 - records when some theta is not finite
 */
export function advance(run: usize, count: u32, probeNow: i32, blocks: u32): i32 {
  const groups = word(run, at.GROUPS);
  const size = place(run, at.STATE_BYTES);
  const state = place(run, at.STATE);
  const saved = place(run, at.SAVED);
  const every = word(run, at.EVERY);
  const updates = word(run, at.UPDATES);
  const rates = place(run, at.RATES);
  const vary = word(run, at.RATES_VARY);
  const averagePass = place(run, at.AVERAGE_PASS);
  const averageFrom = word(run, at.AVERAGE_FROM);
  const averageEvery = word(run, at.AVERAGE_EVERY);
  const first = word(run, at.STEP);
  let resumes = word(run, at.IS_PAUSED);
  budget = blocks;
  starved = 0;
  last = (first + count) * updates;
  setKey(word(run, at.KEY0), word(run, at.KEY1));
  let records: u32 = 0;
  let finite = resumes ? word(run, at.FINITE) : 1;
  for (let g: u32 = resumes ? word(run, at.GROUP) : 0; g < groups; g++) {
    const home = saved + (g as usize) * size;
    const numbers = place(run, at.STREAMS);
    const lane0 = g * word(run, at.GROUP_LANES);
    const table = numbers ? numbers + ((lane0 as usize) << 2) : 0;
    setReplica(table ? load<u32>(table) : word(run, at.FIRST_REPLICA) + lane0, table);
    let s: u32 = 0;
    let stage = probeNow ? FIRST_PROBE : BEGIN;
    records = 0;
    if (resumes) {
      s = word(run, at.STEP_AT);
      stage = word(run, at.STAGE_AT);
      records = word(run, at.RECORDS);
      resumes = 0;
    } else {
      if (groups > 1) memory.copy(state, home, size);
      if (!vary && rates) setRates(rates, first);
      for (let i: usize = 0; i < 8; i += 4) {
        const draws = place(run, at.DRAWS_A + i);
        if (draws) store<u32>(draws + at.WINDOW_VALID, 0);
      }
      store<u32>(run + at.UPDATE_AT, 0);
      store<u32>(run + at.PASS_AT, 0);
    }
    let isThrough = true;
    setStep((first + s) * updates);
    if (stage == FIRST_PROBE) {
      isThrough = probe(run, g, first * updates, records);
      if (isThrough) {
        records++;
        stage = BEGIN;
      }
    }
    while (isThrough && s < count) {
      if (stage == BEGIN) {
        if (vary) setRates(rates, first + s);
        stage = PASSES;
      }
      if (stage == PASSES) {
        isThrough = walkStep(run, first + s);
        if (!isThrough) break;
        stage = AVERAGE;
      }
      const k = first + s + 1;
      setStep(k * updates);
      if (stage == AVERAGE) {
        if (averageEvery != 0 && k >= averageFrom && k % averageEvery == 0) {
          isThrough = walk(run, averagePass, k * updates);
          if (!isThrough) break;
        }
        stage = PROBE;
      }
      if (every != 0 && k % every == 0) {
        isThrough = probe(run, g, k * updates, records);
        if (!isThrough) break;
        records++;
      }
      s++;
      stage = BEGIN;
    }
    if (!isThrough) {
      store<u32>(run + at.IS_PAUSED, 1);
      store<u32>(run + at.GROUP, g);
      store<u32>(run + at.STEP_AT, s);
      store<u32>(run + at.STAGE_AT, stage);
      store<u32>(run + at.RECORDS, records);
      store<u32>(run + at.FINITE, finite);
      store<u32>(run + at.STARVED, starved as u32);
      return PAUSED;
    }
    finite &= allFinite(place(run, at.THETA), word(run, at.THETA_VALUES));
    if (groups > 1) memory.copy(home, state, size);
  }
  store<u32>(run + at.IS_PAUSED, 0);
  store<u32>(run + at.STEP, first + count);
  return finite ? (records as i32) : -1 - (records as i32);
}

/**
 * One pass outside any run: an evaluation of losses, a gradient, a data set.
 *
 * @returns 0; or PAUSED for samples that are not in memory, after which the same call goes on
 */
export function evaluate(run: usize, pass: usize): i32 {
  setKey(word(run, at.KEY0), word(run, at.KEY1));
  setReplica(word(run, at.FIRST_REPLICA), 0);
  const k = word(run, at.STEP);
  setStep(k);
  budget = u32.MAX_VALUE;
  starved = 0;
  last = k;
  const isThrough = walk(run, pass, k);
  store<u32>(run + at.STARVED, starved as u32);
  return isThrough ? 0 : PAUSED;
}

/**
 * Executes one instruction of a pass of a run again and again, for profiles. The registers are those
 * of the first block of the run's present step; what the instruction changes is the caller's to
 * put back.
 */
export function repeat(run: usize, pass: usize, pc: usize, times: u32): void {
  setKey(word(run, at.KEY0), word(run, at.KEY1));
  setReplica(word(run, at.FIRST_REPLICA), 0);
  const k = word(run, at.STEP) * word(run, at.UPDATES);
  last = k;
  setStep(k);
  setTrace(place(run, at.TRACE));
  setPurpose(word(pass, at.PURPOSE_OF_NOISE));
  setBlock(0, drawsOf(pass, k, last));
  for (let i: u32 = 0; i < times; i++) execute(pc, pc + 64);
}

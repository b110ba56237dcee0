/**
 * What the running pass knows and op words do not say: which step, which samples, which replica.
 * Set by loop.ts before any kernel reads them; nothing here outlives a call from outside.
 */

/** Updates of theta done before this one: the counter of whatever is drawn for it. */
export let step: u32 = 0;
/** Index, within the batch, of the first sample of the current block. */
export let sampleBase: u32 = 0;
/** Replica number of lane 0. */
export let replica: u32 = 0;
/** Address of the lanes' replica numbers (u32), or 0 where they follow that of lane 0. */
export let streams: usize = 0;
/** Random key of the run. */
export let key0: u32 = 0;
export let key1: u32 = 0;
/** Purpose word of fresh samples drawn in this pass. */
export let purpose: u32 = 0;
/** Address of the drawn byte offset (u32) of the block's first sample. */
export let drawAddr: usize = 0;
/** Address of the trace record being written (f64 values). */
export let traceAddr: usize = 0;

export function setStep(k: u32): void {
  step = k;
}
export function setReplica(r: u32, numbers: usize): void {
  replica = r;
  streams = numbers;
}
export function setKey(k0: u32, k1: u32): void {
  key0 = k0;
  key1 = k1;
}
export function setPurpose(p: u32): void {
  purpose = p;
}
export function setBlock(base: u32, draws: usize): void {
  sampleBase = base;
  drawAddr = draws;
}
export function setTrace(addr: usize): void {
  traceAddr = addr;
}

/**
 * What may change from step to step: the learning rate by its schedule, and what follows from it. All in f64 and
 * rounded once, whatever the build.
 */
import * as at from "./layout";
import { bytes } from "./lanes";
import { cosOfTurn, cosSmall, quarterTurns, sinSmall, turnAngle } from "./elementary";

// @ts-ignore: decorator
@inline
function word(base: usize, field: usize): u32 {
  return load<u32>(base + field);
}
// @ts-ignore: decorator
@inline
function place(base: usize, field: usize): usize {
  return load<u32>(base + field) as usize;
}

/** x^n by squaring. */
function power(x: f64, n: u32): f64 {
  let result = 1.0;
  for (; n > 0; n >>= 1) {
    if (n & 1) result *= x;
    x *= x;
  }
  return result;
}

/** cos(2 pi t), t in [-1/2, 1/2). */
function cosine(t: f64): f64 {
  const turn = f64x2.splat(t);
  const q = quarterTurns(turn);
  const a = turnAngle(turn, q);
  return f64x2.extract_lane(cosOfTurn(q, sinSmall(a), cosSmall(a)), 0);
}

/**
 * eta_k / eta of a schedule, k = 0, 1, ...: a linear rise (k + 1) / warmup over the first `warmup` steps, then with
 * j = k - warmup
 *
 *   0 constant  1                                2 step     factor^floor(j / period)
 *   1 cosine    final + (1 - final) (1 + cos(pi j / period)) / 2, final from j = period on
 *   3 inverse   1 / (1 + j / period)
 *
 * @param number factor, or final
 */
export function scheduleFactor(kind: u32, warmup: u32, period: f64, number: f64, k: u32): f64 {
  if (k < warmup) return ((k as f64) + 1.0) / (warmup as f64);
  const j = (k - warmup) as f64;
  if (kind == 1) return j >= period ? number : number + (1.0 - number) * (0.5 * (1.0 + cosine(0.5 * (j / period))));
  if (kind == 2) return power(number, Math.floor(j / period) as u32);
  if (kind == 3) return 1.0 / (1.0 + j / period);
  return 1.0;
}

/**
 * The rates of step k for every lane, and the time that has passed by its end:
 *
 *   eta = base eta_k / eta,   dt = eta / divisor (or given),   keep = 1 - 2 dt gamma,   c = sqrt(2 sigma^2 / (N dt))
 *
 * with sigma^2 = eta / (2 S) unless it is given. A lane with eta = 0 stands still.
 */
export function setRates(rates: usize, k: u32): void {
  const lanes = word(rates, at.LANES) as i32;
  const kind = word(rates, at.SCHEDULE);
  const numbers = place(rates, at.NUMBERS);
  const table = place(rates, at.ETA_TABLE);
  const factor =
    kind == 4 ? 1.0 : scheduleFactor(kind, word(rates, at.WARMUP), load<f64>(numbers), load<f64>(numbers, 8), k);
  const etaBase = place(rates, at.ETA_BASE);
  const dtBase = place(rates, at.DT_BASE);
  const gammas = place(rates, at.GAMMAS);
  const sigma2 = place(rates, at.SIGMA2);
  const time = place(rates, at.TIME);
  const blocks = word(rates, at.DECAYS);
  const divisor = load<f64>(numbers, 16);
  const twiceS = load<f64>(numbers, 24);
  const N = load<f64>(numbers, 32);
  const updates = load<f64>(numbers, 40);
  const wide = place(rates, at.DECAY_BYTES);
  for (let l = 0; l < lanes; l++) {
    const from = (l as usize) << 3;
    const to = bytes(l);
    const base = load<f64>(etaBase + from);
    const eta = base == 0 ? 0 : kind == 4 ? load<f64>(table + ((k as usize) << 3)) : base * factor;
    const dt = eta == 0 ? 0 : dtBase ? load<f64>(dtBase + from) : eta / divisor;
    store<real>(place(rates, at.ETA) + to, eta as real);
    store<real>(place(rates, at.DT) + to, dt as real);
    for (let b: u32 = 0; b < blocks; b++) {
      const gamma = load<f64>(gammas + (b as usize) * ((lanes as usize) << 3) + from);
      store<real>(place(rates, at.KEEP) + (b as usize) * wide + to, (1.0 - 2.0 * dt * gamma) as real);
    }
    if (place(rates, at.NOISE)) {
      const strength = sigma2 ? load<f64>(sigma2 + from) : eta / twiceS;
      const c = dt == 0 ? 0 : Math.sqrt((2.0 * strength) / (N * dt));
      store<real>(place(rates, at.NOISE) + to, c as real);
    }
    if (place(rates, at.LEFT)) {
      const next = place(rates, at.NEXT) + from;
      if (load<f64>(next) == 0) store<f64>(next, eta);
      store<f64>(place(rates, at.LEFT) + from, eta);
      store<real>(place(rates, at.H) + to, min(load<f64>(next), eta) as real);
    }
    if (time) store<f64>(time + from, load<f64>(time + from) + dt * updates);
  }
}

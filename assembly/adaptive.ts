/** Step sizes of an integrator that watches its error, lane by lane. */
import { bytes } from "./lanes";

/** x^(1/5), 0 <= x < 1e4, by Newton's method from above. */
function fifthRoot(x: f64): f64 {
  if (x == 0) return 0;
  let y = max(1.0, x);
  for (let i = 0; i < 200; i++) {
    const y4 = y * y * y * y;
    const less = y - (y * y4 - x) / (5.0 * y4);
    if (!(less < y)) break;
    y = less;
  }
  return y;
}

/**
 * Judges a trial step of a fifth-order pair with an error estimate of fourth order: it is taken if
 * e = sqrt(error / count) <= 1, and the next size is h times 0.9 e^(-1/5), within a fifth and five times.
 *
 * error   sum over parameters of (estimate / tolerance)^2, one per lane
 * h       the size tried; becomes the size of the next trial, 0 where the step is through
 * next    f64: the size to go on with when the end of the step no longer cuts it short
 * left    f64: what is left of the step
 * accept  1 taken, 0 not, NaN where no size is small enough: theta is not finite there, or its field has a pole
 */
export function adaptStep(error: usize, count: i32, h: usize, next: usize, left: usize, accept: usize, lanes: i32): void {
  for (let l = 0; l < lanes; l++) {
    const wide = (l as usize) << 3;
    const at = bytes(l);
    let rest = load<f64>(left + wide);
    if (rest == 0) {
      store<real>(accept + at, 0);
      continue;
    }
    const size = load<real>(h + at) as f64;
    const e = Math.sqrt((load<real>(error + at) as f64) / (count as f64));
    const isTaken = e <= 1.0;
    const root = e < 1e4 ? fifthRoot(e) : Infinity;
    const factor = e == e ? min(5.0, max(0.2, 0.9 / root)) : 0.2;
    let trial = size * factor;
    if (isTaken) {
      // a size cut short by the end of the step says nothing against the one before
      if (size < load<f64>(next + wide)) trial = max(trial, load<f64>(next + wide));
      rest = size >= rest ? 0 : rest - size;
      store<f64>(left + wide, rest);
    }
    store<f64>(next + wide, trial);
    const isStuck = rest > 0 && trial < 1e-14 * rest;
    store<real>(accept + at, isStuck ? NaN : isTaken ? 1 : 0);
    if (isStuck) store<f64>(left + wide, 0);
    store<real>(h + at, isStuck ? 0 : (min(trial, rest) as real));
  }
}

/** theta = y where the step is taken, NaN where it cannot be. */
export function acceptStep(theta: usize, y: usize, accept: usize, elements: i32, ld: i32): void {
  for (let e = 0; e < elements; e++) {
    for (let l = 0; l < ld; l++) {
      const at = bytes(e * ld + l);
      const verdict = load<real>(accept + bytes(l));
      if (verdict != 0) store<real>(theta + at, verdict == 1 ? load<real>(y + at) : NaN);
    }
  }
}

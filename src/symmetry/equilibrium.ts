import { binaryExponent, expExponent, expMantissa, log, timesPowerOfTwo } from "../core/elementary.ts";
import { checkNumber, fail, internal } from "../errors.ts";

/** One unit eigenvector v of a generator at a point theta: A v = mu v. */
export interface Direction {
  /** Eigenvalue of A. */
  readonly mu: number;
  /** Noise energy v^T Sigma v, (loss / parameter)^2. */
  readonly s: number;
  /** Parameter energy (v^T theta)^2. */
  readonly q: number;
}

/** What moves theta. */
export interface EquilibriumSetting {
  /** sigma^2 = eta / (2 S_eff). */
  readonly sigma2: number;
  /** gamma in L + gamma |theta|^2 (PyTorch's weight_decay is 2 gamma); 0 when absent. */
  readonly gamma?: number | undefined;
}

/** Where the charge comes to rest on the orbit e^(lambda A) theta. */
export interface Equilibrium {
  /** "+inf", "-inf": the charge drifts that way for ever. "flat": it never drifts. These are results, not failures. */
  readonly status: "finite" | "+inf" | "-inf" | "flat";
  /** lambda*: infinite where the status is, and 0 where it is "flat", since theta stays. */
  readonly lambda: number;
  /** f(0) = dC/dt at theta, loss per time. */
  readonly flow0: number;
  /** f'(lambda*), at most 0; 0 where lambda* is not finite. */
  readonly slope: number;
  /** C at theta and at lambda*; infinite only at an infinite lambda*, or beyond 1.8e308. */
  readonly charge0: number;
  /** C at lambda*. */
  readonly charge: number;
  /** 1 / tau_2 = -f'(lambda*) / |A theta*|^2; 0 where lambda* is not finite. */
  readonly rate: number;
  /** Values of lambda that were tried before the last. */
  readonly iterations: number;
  /** |ln P - ln M| at lambda*, the two sides that balance there. */
  readonly residual: number;
}

/** |mu| below this times the largest is what rounding leaves of 0. */
export const MU_FLOOR = 1e-12;
/** Far more than spectra need: see rootOf. */
const MAX_ITERATIONS = 200;
/** What rounding leaves of ln P - ln M where both are equal: 2^-51. */
const ROUNDING = 4.440892098500626e-16;
/** A step this small beside lambda, or beside 1 / max m, is the last. */
const STEP = 1e-14;
const LN2 = 0.6931471805599453;
/** Exponents beyond this are as good as infinite, and still have a nearest whole power of two. */
const FAR = 1e15;

/** value * 2^exponent * e^(2 rate x), value in [1, 8): a number of any size. */
interface Term {
  readonly rate: number;
  readonly value: number;
  readonly exponent: number;
}

/** value * 2^exponent; value 0 has exponent -Infinity. */
interface Scaled {
  readonly value: number;
  readonly exponent: number;
}

/** The flow of the charge along an orbit, f = P - M: P falls from Infinity or is 0, M rises to Infinity or is 0. */
interface Sides {
  /** Values at x = -lambda. */
  readonly P: readonly Term[];
  /** Values at x = lambda. */
  readonly M: readonly Term[];
}

/**
 * The noise equilibrium of one generator (Theorem 1): the root of
 *
 *   f(lambda) = dC/dt at e^(lambda A) theta = sum_i mu_i [sigma2 s_i e^(-2 lambda mu_i) - 2 gamma q_i e^(2 lambda mu_i)]
 *
 * which never increases. With every term on the side where it is positive, f = P - M, and the root is that of
 * phi = ln P - ln M, whose slope is -2 (<m>_P + <m>_M), m = |mu|, with the terms as weights. Terms are kept as a
 * mantissa and an exponent, so that nothing overflows and a result is infinite only where it is.
 *
 *   P has a term   M has a term   status
 *   yes            yes            finite, unique, attractive
 *   yes            no             "+inf"
 *   no             yes            "-inf"
 *   no             no             "flat"
 *
 * P has a term where mu > 0 and s > 0, or gamma > 0, mu < 0 and q > 0; M likewise with the other sign of mu.
 * Directions may come in any order and number, several with one mu: two for a product (`productDirections`).
 *
 * phi(lambda*) is 0 to within 1e-15, and 2^-53 of the largest exponent 2 lambda* m that counts there.
 *
 * @throws NoetherflowError "range" for gamma < 0 (f is then not monotone), a negative s or q, or mu outside [1e-100, 1e100]
 * @cost   some 3 us per direction with a distinct mu: 2 or 3 iterations (1 where all |mu| are equal) of an exp for each of
 *         its terms, and as many again for the results
 * @source theory.md, 5.1 to 5.4; Ziyin et al. 2024, arXiv:2402.07193, Theorem 1 and eqs. 31-38
 */
export function solveEquilibrium(directions: readonly Direction[], setting: EquilibriumSetting): Equilibrium {
  const where = "equilibrium";
  const kept = cleaned(where, directions, setting);
  const sides = sidesOf(kept, setting);
  const { P, M } = sides;
  const charge0 = chargeOf(kept, 0);
  const flow0 = flowOf(sides, 0);
  if (P.length === 0 || M.length === 0) {
    const status = P.length > 0 ? "+inf" : M.length > 0 ? "-inf" : "flat";
    const lambda = P.length > 0 ? Infinity : M.length > 0 ? -Infinity : 0;
    const charge = chargeOf(kept, lambda);
    return { status, lambda, flow0, slope: 0, charge0, charge, rate: 0, iterations: 0, residual: 0 };
  }
  const { lambda, iterations } = rootOf(where, sides);
  const fall = fallOf(sides, lambda);
  return {
    status: "finite",
    lambda,
    flow0,
    slope: 0 - unscaled(fall),
    charge0,
    charge: chargeOf(kept, lambda),
    rate: ratio(fall, fieldOf(kept, lambda)),
    iterations,
    residual: Math.abs(imbalance(tangentsAt(sides, lambda))),
  };
}

/** f(lambda), the drift dC/dt of the charge at e^(lambda A) theta; +-Infinity beyond 1.8e308. */
export function flowAt(
  directions: readonly Direction[],
  lambda: number,
  setting: EquilibriumSetting,
): number {
  const where = "flowAt";
  checkNumber(where, "lambda", lambda);
  return flowOf(sidesOf(cleaned(where, directions, setting), setting), lambda);
}

/** f'(lambda) = -sum_i mu_i^2 [2 sigma2 s_i e^(-2 lambda mu_i) + 4 gamma q_i e^(2 lambda mu_i)]. */
export function slopeAt(
  directions: readonly Direction[],
  lambda: number,
  setting: EquilibriumSetting,
): number {
  const where = "slopeAt";
  checkNumber(where, "lambda", lambda);
  return 0 - unscaled(fallOf(sidesOf(cleaned(where, directions, setting), setting), lambda));
}

/** C(lambda) = 1/2 sum_i mu_i q_i e^(2 lambda mu_i), the charge at e^(lambda A) theta; lambda may be infinite. */
export function chargeAt(directions: readonly Direction[], lambda: number): number {
  if (Number.isNaN(lambda)) checkNumber("chargeAt", "lambda", lambda);
  return chargeOf(cleaned("chargeAt", directions, { sigma2: 0 }), lambda);
}

/** |A theta_lambda|^2 = sum_i mu_i^2 q_i e^(2 lambda mu_i) = dC/dlambda. */
export function fieldAt(directions: readonly Direction[], lambda: number): number {
  if (Number.isNaN(lambda)) checkNumber("fieldAt", "lambda", lambda);
  return unscaled(fieldOf(cleaned("fieldAt", directions, { sigma2: 0 }), lambda));
}

/** Energies along one eigenvector b of B, B b = beta b, of the double rotation U -> U e^(lambda B), W -> e^(-lambda B) W. */
export interface ProductEnergies {
  readonly beta: number;
  /** b^T S_U b and b^T S_W b. */
  readonly sU: number;
  readonly sW: number;
  /** b^T U^T U b and b^T W W^T b. */
  readonly qU: number;
  readonly qW: number;
}

/**
 * Directions of a double rotation from h x h matrices: of a beta one part moves with U and one against it, with W.
 *
 * @source theory.md, 5.4
 */
export function productDirections(parts: readonly ProductEnergies[]): Direction[] {
  return parts.flatMap(({ beta, sU, sW, qU, qW }) => [
    { mu: beta, s: sU, q: qU },
    { mu: -beta, s: sW, q: qW },
  ]);
}

// --- the spectrum ------------------------------------------------------------------------------------------

/** Directions that count, |mu| above rounding; those of one mu added up. */
function cleaned(where: string, directions: readonly Direction[], setting: EquilibriumSetting): Direction[] {
  checkNumber(where, "sigma2", setting.sigma2, 0);
  checkNumber(where, "gamma", setting.gamma ?? 0, 0);
  let largest = 0;
  for (const { mu } of directions) largest = Math.max(largest, Math.abs(checkNumber(where, "mu", mu)));
  if (largest > 0 && !(largest >= 1e-100 && largest <= 1e100))
    fail(
      "range",
      where,
      "the largest |mu| must lie in [1e-100, 1e100]",
      `${largest}`,
      "Scale the generator.",
    );
  const byMu = new Map<number, { s: number; q: number }>();
  for (const { mu, s, q } of directions) {
    if (Math.abs(mu) <= MU_FLOOR * largest) continue;
    checkNumber(where, "s", s, 0);
    checkNumber(where, "q", q, 0);
    const sum = byMu.get(mu);
    if (sum === undefined) byMu.set(mu, { s, q });
    else {
      sum.s = checkNumber(where, "the sum of s", sum.s + s);
      sum.q = checkNumber(where, "the sum of q", sum.q + q);
    }
  }
  return [...byMu].map(([mu, { s, q }]) => ({ mu, s, q }));
}

function sidesOf(directions: readonly Direction[], { sigma2, gamma = 0 }: EquilibriumSetting): Sides {
  const P: Term[] = [];
  const M: Term[] = [];
  for (const { mu, s, q } of directions) {
    const m = Math.abs(mu);
    const noise = termOf(m, sigma2, m, s);
    const decay = termOf(m, 2 * gamma, m, q);
    if (noise !== null) (mu > 0 ? P : M).push(noise);
    if (decay !== null) (mu > 0 ? M : P).push(decay);
  }
  return { P, M };
}

/** a b c e^(2 rate x), or null where that is 0. */
function termOf(rate: number, a: number, b: number, c: number): Term | null {
  if (a === 0 || b === 0 || c === 0) return null;
  const [i, j, k] = [binaryExponent(a), binaryExponent(b), binaryExponent(c)];
  const value = timesPowerOfTwo(a, -i) * timesPowerOfTwo(b, -j) * timesPowerOfTwo(c, -k);
  return { rate, value, exponent: i + j + k };
}

/** Terms factor m q e^(2 lambda mu) of the directions with mu > 0, at x = lambda, and mu < 0, at x = -lambda. */
function energyTerms(directions: readonly Direction[], factor: (m: number) => number) {
  const of = (sign: number): Term[] =>
    directions.flatMap(({ mu, q }) => {
      const m = sign * mu;
      return m > 0 ? (termOf(m, factor(m), m, q) ?? []) : [];
    });
  return { up: of(1), down: of(-1) };
}

// --- sums of terms -----------------------------------------------------------------------------------------

/** sum_i term_i(x), and the mean of the rates with the terms as weights. */
function sumOf(terms: readonly Term[], x: number): Scaled & { readonly meanRate: number } {
  let exponent = -Infinity;
  for (const term of terms) exponent = Math.max(exponent, term.exponent + expExponent(argument(term, x)));
  let value = 0;
  let moment = 0;
  for (const term of terms) {
    const y = argument(term, x);
    const k = expExponent(y);
    const part = timesPowerOfTwo(term.value * expMantissa(y, k), term.exponent + k - exponent);
    value += part;
    moment += term.rate * part;
  }
  return { value, exponent, meanRate: value === 0 ? 0 : moment / value };
}

function argument({ rate }: Term, x: number): number {
  return Math.max(-FAR, Math.min(FAR, 2 * rate * x));
}

/** a + sign b. */
function combined(a: Scaled, b: Scaled, sign: 1 | -1): Scaled {
  const exponent = Math.max(a.exponent, b.exponent);
  if (exponent === -Infinity) return { value: 0, exponent };
  const value =
    timesPowerOfTwo(a.value, a.exponent - exponent) + sign * timesPowerOfTwo(b.value, b.exponent - exponent);
  return { value, exponent };
}

/** As a number: rounded into the denormals, +-Infinity beyond 1.8e308. */
function unscaled({ value, exponent }: Scaled): number {
  return value === 0 ? 0 : timesPowerOfTwo(value, exponent) + 0; // no -0
}

/** a / b for a > 0, Infinity where b = 0. */
function ratio(a: Scaled, b: Scaled): number {
  return b.value === 0 ? Infinity : timesPowerOfTwo(a.value / b.value, a.exponent - b.exponent);
}

function flowOf({ P, M }: Sides, lambda: number): number {
  return unscaled(combined(sumOf(P, -lambda), sumOf(M, lambda), -1));
}

/** -f'. */
function fallOf({ P, M }: Sides, lambda: number): Scaled {
  const [p, m] = [sumOf(P, -lambda), sumOf(M, lambda)];
  const of = (sum: typeof p): Scaled => ({ value: 2 * sum.meanRate * sum.value, exponent: sum.exponent });
  return combined(of(p), of(m), 1);
}

function chargeOf(directions: readonly Direction[], lambda: number): number {
  const { up, down } = energyTerms(directions, () => 0.5);
  return unscaled(combined(sumOf(up, lambda), sumOf(down, -lambda), -1));
}

/** |A theta|^2. */
function fieldOf(directions: readonly Direction[], lambda: number): Scaled {
  const { up, down } = energyTerms(directions, (m) => m);
  return combined(sumOf(up, lambda), sumOf(down, -lambda), 1);
}

// --- the root ----------------------------------------------------------------------------------------------

/** The line ln(value) + exponent ln 2 + slope (lambda - at). */
interface Line extends Scaled {
  readonly slope: number;
  readonly at: number;
}

/** Lines below ln P and ln M, which are convex. */
interface Lines {
  readonly P: Line;
  readonly M: Line;
}

function tangentsAt({ P, M }: Sides, lambda: number): Lines {
  const [p, m] = [sumOf(P, -lambda), sumOf(M, lambda)];
  return {
    P: { ...p, slope: -2 * p.meanRate, at: lambda },
    M: { ...m, slope: 2 * m.meanRate, at: lambda },
  };
}

/** The tangents at -Infinity, or Infinity: the terms with the largest rate on the side that grows, the least on the other. */
function asymptotes({ P, M }: Sides, sign: 1 | -1): Lines {
  const extreme = (terms: readonly Term[], most: boolean) =>
    terms.reduce((best, term) => (term.rate > best.rate === most ? term : best));
  const [p, m] = [extreme(P, sign < 0), extreme(M, sign > 0)];
  return { P: { ...p, slope: -2 * p.rate, at: 0 }, M: { ...m, slope: 2 * m.rate, at: 0 } };
}

/** ln P - ln M of two lines at the same lambda. */
function imbalance({ P, M }: Lines): number {
  return log(P.value / M.value) + (P.exponent - M.exponent) * LN2;
}

/** Where a falling line meets a rising one. */
function meeting(P: Line, M: Line): number {
  return P.at + (imbalance({ P, M }) - M.slope * (P.at - M.at)) / (M.slope - P.slope);
}

/**
 * The root of phi = ln P - ln M. Both are convex, so the larger of their tangents at two points is a lower bound of each,
 * nearly exact where only one term takes over in between. The next lambda is where these bounds meet: the max over the
 * tangents of P of the min over those of M of where two lines meet. The first points are +-Infinity and 0. Where that
 * adds nothing it is Newton's step, and near the root always.
 *
 * A step from one side that does not end near the root meets a slope less by a factor of about e, so the number of steps
 * is bounded by the decades that mu spans: 12 were the most for random spectra, 32 for some made to be slow.
 */
function rootOf(where: string, sides: Sides): { lambda: number; iterations: number } {
  const unit = 1 / [...sides.P, ...sides.M].reduce((most, { rate }) => Math.max(most, rate), 0);
  let [left, right] = [asymptotes(sides, -1), asymptotes(sides, 1)];
  let [low, high] = [-Infinity, Infinity];
  let lambda = 0;
  for (let iterations = 0; iterations < MAX_ITERATIONS; iterations++) {
    const here = tangentsAt(sides, lambda);
    if (Math.abs(imbalance(here)) <= ROUNDING) return { lambda, iterations };
    const newton = meeting(here.P, here.M);
    if (Math.abs(newton - lambda) <= STEP * Math.max(unit, Math.abs(lambda)))
      return { lambda: newton, iterations };
    if (newton > lambda) [left, low] = [here, lambda];
    else [right, high] = [here, lambda];
    let next = Math.max(
      Math.min(meeting(left.P, left.M), meeting(left.P, right.M)),
      Math.min(meeting(right.P, left.M), meeting(right.P, right.M)),
    );
    const width = high - low;
    const isInside = next > low && next < high;
    // lines from afar are rounded; those from here are not
    if (!isInside || (width < Infinity && Math.abs(next - newton) <= 1e-6 * width)) next = newton;
    if (!(next > low && next < high)) next = low + 0.5 * width;
    if (next === low || next === high) return { lambda, iterations };
    lambda = next;
  }
  return internal(where, `${MAX_ITERATIONS} iterations did not find the root`);
}

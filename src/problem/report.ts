import { keyOf } from "../core/key.ts";
import { turn } from "../core/turn.ts";
import type { ThetaLike } from "../dynamics/theta.ts";
import { checkNumber, checkObject, fail } from "../errors.ts";
import { meanGradient, meanLoss } from "../models/derivatives.ts";
import type { Measure } from "../models/measure.ts";
import { secondMoment, squaredNorm } from "../stats/noise.ts";
import { type Control, dot } from "../stats/operator.ts";
import { checkSymmetry } from "../symmetry/check.ts";
import type { DiscoveredGenerator, Discovery, DiscoveryOptions } from "../symmetry/discover.ts";
import { NOISE_FLOOR } from "../symmetry/energy.ts";
import { MU_FLOOR } from "../symmetry/equilibrium.ts";
import { type Generator, isSymmetric } from "../symmetry/generator.ts";
import { timeScales } from "../symmetry/predictions/scales.ts";
import type { StrengthOptions } from "../symmetry/strength.ts";
import { readStrength } from "../symmetry/strength.ts";
import type { LossScale, SymmetryRow, SymmetrySummary } from "../symmetry/summary.ts";
import { ProblemShift } from "./shift.ts";

export interface ReportOptions extends StrengthOptions, Control {
  /** Symmetries to report, by a name of your own; those of the model are searched for when absent. */
  readonly generators?: Readonly<Record<string, Generator>>;
  /** How they are searched for; false leaves it. */
  readonly discover?: boolean | DiscoveryOptions;
  /** Text or number; "0" when absent. The same seed gives the same bits. It draws the thetas of checks and of the search. */
  readonly seed?: string | number;
  /** L_inf, what the loss falls to in the end (the variance of the label noise, say), for its time tau_1; 0 when absent. */
  readonly lossAtRest?: number;
  /** Told in thousandths: the search first, then a row at a time. */
  readonly onProgress?: Control["onProgress"];
}

const OPTIONS = ["generators", "discover", "seed", "lossAtRest", "signal", "onProgress"];
/** Thousandths of a report. */
const PARTS = 1000;

/** What a rotation has to show: a symmetry, and no charge. */
const NO_CHARGE = {
  class: null,
  conserved: false,
  charge: null,
  flow: null,
  equilibrium: null,
  timeScale: null,
  steps: null,
  ratio: null,
  phase: null,
} as const;

/** The symmetries of a loss: found, and summed up. The search is loaded when it is asked for. */
export abstract class ProblemReport extends ProblemShift {
  /**
   * Finds the exponential symmetries of the loss from its per-sample gradients at random thetas: all symmetric A (or
   * general, or affine) with g_n . A theta = 0, as a basis whose members are named where they belong to a known family.
   *
   * @throws NoetherflowError "range" where no clear gap separates symmetries from the rest, "memory" for too many unknowns
   * @cost   O(D^3) for D unknowns: P (P + 1) / 2 in full, fewer by blocks or diagonal
   * @example
   * const found = await problem.discoverSymmetries();
   * found.count; // 10; h (h + 1) / 2 double rotations
   */
  async discoverSymmetries(options: DiscoveryOptions = {}): Promise<Discovery> {
    const measure = this.all("discoverSymmetries");
    const { discoverSymmetries } = await import("../symmetry/discover.ts");
    return discoverSymmetries(measure, options);
  }

  /**
   * Every known or discovered symmetry at theta: class, charge, Noether flow, balance, noise equilibrium, and the time tau_2 it
   * takes beside tau_1 = (L - L_inf) / |gbar|^2, that of the loss (without decay).
   *
   * @param options { eta, batchSize } or { sigma2 }, weightDecay, ...; generators by name, or discover: true; lossAtRest, L_inf
   * @returns rows, toString() (a table), toHTML(), toJSON()
   * @throws  NoetherflowError "range" for a lossAtRest above the loss, and as discoverSymmetries and noetherFlow do
   * @cost    the search, and per row some twenty passes over the data: 2 s and 7 s for 100 neurons of a 100-100-100 ReLU net
   * @source  theory.md, sections 4 to 6
   * @example
   * const summary = await problem.report(theta, { eta: 0.01, batchSize: 4, generators: { A } });
   * summary.rows[0]?.equilibrium?.status; // "finite"
   * console.log(`${summary}`); // a table
   */
  async report(theta: ThetaLike, options: ReportOptions): Promise<SymmetrySummary> {
    const where = "report";
    const flat = this.checked(where, theta);
    checkObject(where, "options { eta, batchSize }", options);
    const {
      generators,
      discover = generators === undefined,
      seed = "0",
      lossAtRest,
      signal,
      onProgress,
      ...rest
    } = options;
    readStrength(where, rest, this.N, OPTIONS);
    this.control(where, { signal, onProgress }, []);
    if (typeof discover !== "boolean")
      checkObject(where, "discover: true, false or options of discoverSymmetries", discover);
    const measure = this.perSample(where);
    const given = generators === undefined ? {} : checkObject(where, "generators by name", generators);
    const known = Object.entries(given).map(([name, A]): [string, Generator] => [
      name,
      this.fitting(`${where}: generators.${name}`, A as Generator),
    ]);
    const key = keyOf(where, seed);
    signal?.throwIfAborted();
    const loss = this.#lossScale(measure, flat, lossAtRest, rest);
    let told = -1;
    const tell = (fraction: number): void => {
      const done = Math.floor(PARTS * fraction);
      if (done <= told) return;
      told = done;
      onProgress?.({ done, total: PARTS });
    };
    let discovery: Discovery | null = null;
    const share = discover === false ? 0 : 0.5;
    if (discover !== false) {
      const how = typeof discover === "object" ? discover : {};
      discovery = await this.discoverSymmetries({
        seed,
        signal,
        ...how,
        onProgress: (p) => {
          how.onProgress?.(p);
          tell((share * p.done) / p.total);
        },
      });
      for (const A of discovery.generators) known.push([A.name, A]);
    }
    if (known.length === 0 && discovery === null)
      fail("range", where, "expected generators, or discover: true", "neither");
    const rows: SymmetryRow[] = [];
    for (const [i, [name, A]] of known.entries()) {
      tell(share + ((1 - share) * i) / known.length);
      await turn();
      signal?.throwIfAborted();
      this.alive(where);
      const found = "flat" in A ? (A as DiscoveredGenerator) : null;
      const spectrum = isSymmetric(A) ? this.spectrumOf(A).spectrum : null;
      const { verdict, defect } = checkSymmetry(measure, A, spectrum, key, flat, where);
      const shown = { name, generator: A, flat: found?.flat ?? false, verdict, defect };
      if (spectrum === null) {
        rows.push({ ...shown, ...NO_CHARGE });
        continue;
      }
      const least = MU_FLOOR * spectrum.mu.reduce((m, x) => Math.max(m, Math.abs(x)), 0);
      const signs = spectrum.mu.map((m) => (Math.abs(m) > least ? Math.sign(m) : 0));
      const kind = signs.includes(1) ? (signs.includes(-1) ? 1 : 2) : signs.includes(-1) ? 2 : null;
      // force: it has just been checked
      const at = verdict === "exact" ? this.equilibrium(flat, A, { ...rest, force: true }) : null;
      const rate = at !== null && at.status === "finite" ? at.rate : 0;
      const timeScale = rate > 0 ? 1 / rate : null;
      const scales =
        timeScale === null || loss.excess === null
          ? null
          : timeScales({ rate, excessLoss: loss.excess, squaredGradient: loss.squaredGradient });
      rows.push({
        ...shown,
        class: found === null ? kind : found.class,
        conserved: verdict === "exact",
        charge: this.charge(flat, A),
        flow: this.noetherFlow(flat, A, rest),
        equilibrium: at,
        timeScale,
        steps: inSteps(timeScale, rest),
        ratio: scales?.ratio ?? null,
        phase: scales?.phase ?? null,
      });
    }
    tell(1);
    const { excess: _, ...shown } = loss;
    const { SymmetrySummary } = await import("../symmetry/summary.ts");
    return new SymmetrySummary(
      rows,
      discovery && { count: discovery.count, flat: discovery.flat, gap: discovery.gap },
      shown,
    );
  }

  /** tau_1 and what it is made of. `excess` is null where it says nothing: at rest, or without a gradient. */
  #lossScale(
    measure: Measure,
    theta: Float64Array,
    given: unknown,
    strength: StrengthOptions,
  ): LossScale & { readonly excess: number | null } {
    const value = meanLoss(measure, theta);
    const atRest = checkNumber("report", "lossAtRest", given ?? 0);
    // a loss below 0 has another infimum than the one that nobody gave
    if (given !== undefined && atRest > value)
      fail("range", "report", `lossAtRest is at most the loss at theta, ${value}`, `${atRest}`);
    const gradient = measure.meanAt(theta, meanGradient);
    const floor =
      NOISE_FLOOR[measure.host.core.dtype] *
      secondMoment(measure, "squared norm", theta, squaredNorm(measure));
    const square = dot(gradient, gradient);
    const squaredGradient = square > floor ? square : 0;
    const excess = value > atRest && squaredGradient > 0 ? value - atRest : null;
    const tau1 = excess === null ? null : excess / squaredGradient;
    return { value, atRest, squaredGradient, tau1, steps: inSteps(tau1, strength), excess };
  }
}

/** A time in steps of eta / (1 - beta); null where it is, or where eta is not known. */
function inSteps(time: number | null, { eta, momentum = 0 }: StrengthOptions): number | null {
  return time === null || eta === undefined || eta === 0 ? null : (time * (1 - momentum)) / eta;
}

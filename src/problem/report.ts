import { keyOf } from "../core/key.ts";
import { turn } from "../core/turn.ts";
import type { ThetaLike } from "../dynamics/options.ts";
import { checkObject, fail } from "../errors.ts";
import type { Control } from "../stats/operator.ts";
import { checkSymmetry } from "../symmetry/check.ts";
import {
  DiscoveredGenerator,
  type Discovery,
  type DiscoveryOptions,
  discoverSymmetries,
} from "../symmetry/discover.ts";
import { MU_FLOOR } from "../symmetry/equilibrium.ts";
import { type Generator, isSymmetric } from "../symmetry/generator.ts";
import type { StrengthOptions } from "../symmetry/strength.ts";
import { readStrength } from "../symmetry/strength.ts";
import { type SymmetryRow, SymmetrySummary } from "../symmetry/summary.ts";
import { ProblemEquilibria } from "./equilibria.ts";

export interface ReportOptions extends StrengthOptions, Control {
  /** Symmetries to report, by a name of your own; those of the model are searched for when absent. */
  readonly generators?: Readonly<Record<string, Generator>>;
  /** How they are searched for; false leaves it. */
  readonly discover?: boolean | DiscoveryOptions;
  readonly seed?: string | number;
}

/** What a rotation has to show: a symmetry, and no charge. */
const NO_CHARGE = {
  class: null,
  conserved: false,
  charge: null,
  flow: null,
  equilibrium: null,
  timeScale: null,
  steps: null,
} as const;

/** The symmetries of a loss: found, and summed up. */
export abstract class ProblemReport extends ProblemEquilibria {
  /**
   * Finds the exponential symmetries of the loss from its per-sample gradients at random thetas: all symmetric A (or
   * general, or affine) with g_n . A theta = 0, as a basis whose members are named where they belong to a known family.
   *
   * @throws NoetherflowError "range" where no clear gap separates symmetries from the rest, "memory" for too many unknowns
   * @cost   O(D^3) for D unknowns: P (P + 1) / 2 in full, fewer by blocks or diagonal
   */
  async discoverSymmetries(options: DiscoveryOptions = {}): Promise<Discovery> {
    return discoverSymmetries(this.all("discoverSymmetries"), options);
  }

  /**
   * Every known or discovered symmetry at theta: class, charge, Noether flow, noise equilibrium and time scale.
   *
   * @param options { eta, batchSize } or { sigma2 }, weightDecay, ...; generators by name, or discover: true
   * @returns rows, toString() (a table), toHTML(), toJSON()
   */
  async report(theta: ThetaLike, options: ReportOptions): Promise<SymmetrySummary> {
    const where = "report";
    const flat = this.checked(where, theta);
    checkObject(where, "options { eta, batchSize }", options);
    const {
      generators,
      discover = generators === undefined,
      seed = "0",
      signal,
      onProgress,
      ...rest
    } = options;
    readStrength(where, rest, this.N, ["generators", "discover", "seed", "signal", "onProgress"]);
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
    let discovery: Discovery | null = null;
    if (discover !== false) {
      const how = typeof discover === "object" ? discover : {};
      discovery = await this.discoverSymmetries({ seed, signal, onProgress, ...how });
      for (const A of discovery.generators) known.push([A.name, A]);
    }
    if (known.length === 0 && discovery === null)
      fail("range", where, "expected generators, or discover: true", "neither");
    const rows: SymmetryRow[] = [];
    for (const [name, A] of known) {
      await turn();
      signal?.throwIfAborted();
      this.alive(where);
      const found = A instanceof DiscoveredGenerator ? A : null;
      const spectrum = isSymmetric(A) ? this.spectrumOf(A).spectrum : null;
      const translates = found !== null && found.translation !== null;
      // the search has confirmed a field with a constant part; the check is of A (theta - c) alone
      const { verdict, defect } = translates
        ? { verdict: "exact" as const, defect: 0 }
        : checkSymmetry(measure, A, spectrum, key, flat);
      const shown = { name, generator: A, flat: found?.flat ?? false, verdict, defect };
      if (spectrum === null || translates) {
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
      rows.push({
        ...shown,
        class: found === null ? kind : found.class,
        conserved: verdict === "exact" && (found === null || found.class !== null),
        charge: this.charge(flat, A),
        flow: this.noetherFlow(flat, A, rest),
        equilibrium: at,
        timeScale,
        steps:
          timeScale === null || rest.eta === undefined
            ? null
            : (timeScale * (1 - (rest.momentum ?? 0))) / rest.eta,
      });
    }
    return new SymmetrySummary(
      rows,
      discovery && { count: discovery.count, flat: discovery.flat, gap: discovery.gap },
    );
  }
}

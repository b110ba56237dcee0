/** Sharpness of a two-layer linear network |U W x - y|^2 before and after training (Proposition 2). */
import { checkObject } from "../../errors.ts";
import { type InitKind, initVariance } from "../../models/init.ts";
import { count, nonNegative, optional, positive, readFields } from "./fields.ts";

/** Variances of the entries of U (dy x h) and W (h x dx). */
export interface InitVariances {
  /** Var U_ij. */
  readonly varU: number;
  /** Var W_ij. */
  readonly varW: number;
}

const VARIANCES = { varU: nonNegative, varW: nonNegative };

/** Named laws of an initialisation. */
export type NamedInit = Exclude<InitKind, "normal">;

/**
 * Variances of the entries of U (dy x h) and W (h x dx) under `problem.init(kind)`; "paperXavier" and "paperKaiming" are what
 * the words of the paper imply, without the usual factor of 2.
 *
 * @throws NoetherflowError "name" for a kind without a variance of its own, "range" or "name" naming the field
 * @source theory 10
 * @example predictions.initVariances("glorot", { dx: 3, h: 5, dy: 3 }); // { varU: 0.25, varW: 0.25 }
 */
export function initVariances(
  init: NamedInit,
  sizes: { readonly dx: number; readonly h: number; readonly dy: number },
): InitVariances {
  const where = "initVariances";
  const { dx, h, dy } = readFields(where, sizes, { dx: count, h: count, dy: count });
  return named(where, init, dx, h, dy);
}

const named = (where: string, init: unknown, dx: number, h: number, dy: number): InitVariances => ({
  varU: initVariance(where, init, h, dy),
  varW: initVariance(where, init, dx, h),
});

/**
 * Expected trace of the Hessian for independent entries of mean 0:
 *
 *   E Tr = 2 dy h (Var W + Var U) Tr Sigma_x
 *
 * @param of { h, dy, traceSigmaX } with { varU, varW }, or with { init: "glorot", dx }
 * @throws NoetherflowError "range" or "name" naming the field
 * @source theory 10, Proposition 2
 * @example predictions.initialTrace({ h: 4, dy: 2, traceSigmaX: 3, varU: 0.5, varW: 0.5 }); // 48
 */
export function initialTrace(
  of: { readonly h: number; readonly dy: number; readonly traceSigmaX: number } & (
    | (InitVariances & { readonly dx?: number })
    | { readonly init: NamedInit; readonly dx: number }
  ),
): number {
  const where = "initialTrace";
  const sizes = { h: count, dy: count, traceSigmaX: positive };
  const given = checkObject(where, "{ h, dy, traceSigmaX } with { varU, varW } or { init, dx }", of);
  const { h, dy, traceSigmaX, dx, varU, varW } =
    "init" in given
      ? { varU: 0, varW: 0, ...readFields(where, of, { ...sizes, dx: count }, ["init"]) }
      : readFields(where, of, { ...sizes, ...VARIANCES, dx: optional(count, 0) });
  const law = "init" in given ? named(where, given.init, dx, h, dy) : { varU, varW };
  return 2 * dy * h * (law.varW + law.varU) * traceSigmaX;
}

/**
 * Trace of the Hessian of a linear autoencoder of d dimensions (y = x + noise, both isotropic, h >= d) at the noise equilibrium,
 * 4 d Tr Sigma_x, whatever the noise; its largest eigenvalue is 4 Tr Sigma_x / d, d^2 times, and the others are 0. For any
 * target and covariances: `engine.twoLayer.finalTrace`.
 *
 * @throws NoetherflowError "range" or "name" naming the field
 * @source theory 10
 * @example predictions.autoencoderTrace({ d: 2, traceSigmaX: 2 }); // 16
 */
export function autoencoderTrace(of: { readonly d: number; readonly traceSigmaX: number }): number {
  const { d, traceSigmaX } = readFields("autoencoderTrace", of, { d: count, traceSigmaX: positive });
  return 4 * d * traceSigmaX;
}

/** Does SGD make the minimum flatter or sharper than the start? */
export interface TraceRatio {
  /** Expected trace of the Hessian at the start over that at the noise equilibrium. */
  readonly ratio: number;
  /** "flattening" above 1, "sharpening" below; "neither" at 1, to rounding. */
  readonly trend: "flattening" | "sharpening" | "neither";
}

/** What rounding leaves of 1. */
const ROUNDING = 1e-12;

/**
 * Trace of the Hessian at the start over that at the end.
 *
 *   { initial, final }          their quotient: `initialTrace`, `engine.twoLayer.finalTrace`
 *   { h, varU, varW }           h (Var W + Var U) / 2, for the isotropic linear autoencoder
 *   { h, d, init: "glorot" }    the same, by name: Glorot 2 h / (d + h), He 1 + h / d, paperXavier h / (d + h),
 *                               paperKaiming (1 + h / d) / 2
 *
 * @throws NoetherflowError "range" or "name" naming the field
 * @source theory 10, eq. 17
 * @example predictions.traceRatio({ h: 4, d: 2, init: "he" }); // { ratio: 3, trend: "flattening" }
 */
export function traceRatio(
  of:
    | { readonly initial: number; readonly final: number }
    | ({ readonly h: number } & InitVariances)
    | { readonly h: number; readonly d: number; readonly init: NamedInit },
): TraceRatio {
  const where = "traceRatio";
  const given = checkObject(where, "{ initial, final }, { h, varU, varW } or { h, d, init }", of);
  let ratio: number;
  if ("initial" in given || "final" in given) {
    const { initial, final } = readFields(where, of, { initial: nonNegative, final: positive });
    ratio = initial / final;
  } else if ("init" in given) {
    const { h, d } = readFields(where, of, { h: count, d: count }, ["init"]);
    const { varU, varW } = named(where, given.init, d, h, d);
    ratio = (h * (varW + varU)) / 2;
  } else {
    const { h, varU, varW } = readFields(where, of, { h: count, ...VARIANCES });
    ratio = (h * (varW + varU)) / 2;
  }
  const trend = Math.abs(ratio - 1) <= ROUNDING ? "neither" : ratio > 1 ? "flattening" : "sharpening";
  return { ratio, trend };
}

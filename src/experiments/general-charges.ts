import { exp, log } from "../core/elementary.ts";
import { type Model, model } from "../graph/model.ts";
import type { Node } from "../graph/node.ts";
import { ops } from "../graph/ops.ts";
import { type Sampler, sampler } from "../graph/sampler.ts";

/** A point of two parameters. */
export interface Point {
  readonly a: number;
  readonly b: number;
}

/**
 * A loss (F(a, b) - y)^2 of fresh labels y = target + noise, and a charge C with grad C . grad F = 0 that is not quadratic. On the
 * valley F = target the noise is sd^2 times 4 grad F grad F^T, so that
 *
 *   dC/dt = 4 sigma^2 sd^2 grad F^T Hess C grad F
 */
export interface GeneralCharge {
  readonly name: string;
  readonly net: Model;
  readonly charge: Node;
  /** grad F^T Hess C grad F on the valley. */
  bend(at: Point): number;
  value(at: Point): number;
  /** The valley after `amount` = 4 sigma^2 sd^2 t, from a start on it. */
  along(start: Point, target: number, amount: number): Point;
  /** dF/da, dF/db. */
  slope(at: Point): Point;
  /** C(a', b') - C(a, b) of any step along g, exactly. */
  change(a: number, next: number): number;
  /** The point with F = value on the flow of -grad F through a point near it: C stays. */
  reached(C: number, value: number, near: Point): Point;
}

function net(F: (a: Node, b: Node) => Node): Model {
  return model({
    params: { a: [1], b: [1] },
    inputs: { y: [1] },
    loss: ({ a, b, y }) => ops.sqnorm(ops.sub(F(a, b), y)),
  });
}

const leaves = (of: Model): readonly [Node, Node] => [of.leaf("a"), of.leaf("b")];

/**
 * F = a e^b: the scaling a -> e^-lambda a is undone by the translation b -> b + lambda. C = b - a^2 / 2, Hess C = diag(-1, 0).
 *
 * On the valley a = y e^-b and p = e^-2b obeys p + y^2 p^2 / 2 = constant + 2 amount.
 *
 * @source theory, section 2.2 and E30
 */
export function exponentialCharge(): GeneralCharge {
  const made = net((a, b) => ops.mul(a, ops.exp(b)));
  const [a, b] = leaves(made);
  return {
    name: "a eᵇ, C = b − a²/2",
    net: made,
    charge: ops.sum(ops.sub(b, ops.scale(ops.square(a), 0.5))),
    bend: ({ b }) => -exp(2 * b),
    value: ({ a, b }) => b - 0.5 * a * a,
    change: (a, next) => -0.5 * (next - a) * (next - a),
    slope: ({ a, b }) => ({ a: exp(b), b: a * exp(b) }),
    along: ({ b }, target, amount) => {
      const y2 = target * target;
      const p = exp(-2 * b);
      const whole = p + 0.5 * y2 * p * p + 2 * amount;
      const b1 = -0.5 * log((2 * whole) / (1 + Math.sqrt(1 + 2 * y2 * whole)));
      return { a: target * exp(-b1), b: b1 };
    },
    reached: (C, value, near) => {
      // b - value^2 e^(-2 b) / 2 = C, by Newton's steps
      let b = near.b;
      for (let k = 0; k < 60; k++) {
        const square = value * value * exp(-2 * b);
        b -= (b - 0.5 * square - C) / (1 + square);
      }
      return { a: value * exp(-b), b };
    },
  };
}

/**
 * F = a^3 + b: C = -1 / (3 a) - b, Hess C = diag(-2 / (3 a^3), 0), of the sign of -a.
 *
 * On the valley b = y - a^3 and 3 a^2 / 2 - 1 / (6 a^2) = constant - 6 amount.
 *
 * @source theory, E30
 */
export function cubicCharge(): GeneralCharge {
  const made = net((a, b) => ops.add(ops.mul(a, ops.square(a)), b));
  const [a, b] = leaves(made);
  return {
    name: "a³ + b, C = −1/(3a) − b",
    net: made,
    charge: ops.sum(ops.sub(ops.div(-1 / 3, a), b)),
    bend: ({ a }) => -6 * a,
    value: ({ a, b }) => -1 / (3 * a) - b,
    change: (a, next) => (-(next - a) * (next - a)) / (3 * a * a * next),
    slope: ({ a }) => ({ a: 3 * a * a, b: 1 }),
    along: ({ a }, target, amount) => {
      const whole = 1.5 * a * a - 1 / (6 * a * a) - 6 * amount;
      const square = (whole + Math.sqrt(whole * whole + 1)) / 3;
      const size = Math.sqrt(square);
      const next = a > 0 ? size : -size;
      return { a: next, b: target - next * next * next };
    },
    reached: (C, value, near) => {
      // a^3 - 1 / (3 a) = value + C, by Newton's steps
      let a = near.a;
      for (let k = 0; k < 60; k++) {
        const step = (a * a * a - 1 / (3 * a) - value - C) / (3 * a * a + 1 / (3 * a * a));
        // not across 0, where C has a pole
        a -= Math.max(-0.5 * Math.abs(a), Math.min(0.5 * Math.abs(a), step));
      }
      return { a, b: value - a * a * a };
    },
  };
}

/** Labels y = target + noise. */
export const labels = (target: number, noiseSd: number): Sampler =>
  sampler({
    noise: { eps: { kind: "normal", shape: [1] } },
    constants: { target: [target] },
    outputs: ({ eps, target: y }) => ({ y: ops.add(y, ops.scale(eps!, noiseSd)) }),
  });

/**
 * What gradient descent of small steps does to C on its way from one value of F to the target, per eta: with v = F,
 *
 *   dC = (eta / 2) gbar^T Hess C gbar dt,   gbar = 2 (v - y) grad F,   dv = -2 (v - y) |grad F|^2 dt
 *
 * so that the change is eta times the integral of (y - v) grad F^T Hess C grad F / |grad F|^2 dv. Simpson's rule.
 */
export function descentChange(of: GeneralCharge, start: Point, from: number, target: number): number {
  const C = of.value(start);
  const pieces = 400;
  const h = (target - from) / pieces;
  let near = start;
  let sum = 0;
  for (let i = 0; i <= pieces; i++) {
    const v = from + i * h;
    near = of.reached(C, v, near);
    const { a, b } = of.slope(near);
    const weight = i === 0 || i === pieces ? 1 : i % 2 === 1 ? 4 : 2;
    sum += (weight * (target - v) * of.bend(near)) / (a * a + b * b);
  }
  return (sum * h) / 3;
}

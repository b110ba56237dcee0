import { type Key, PURPOSE } from "../core/key.ts";
import { turn } from "../core/turn.ts";
import { fail } from "../errors.ts";
import { gradient } from "../graph/derive.ts";
import type { Effect } from "../graph/lower.ts";
import { chooseRows, chunkRows, perSampleGradients } from "../models/derivatives.ts";
import type { Measure } from "../models/measure.ts";
import { type Control, divide, norm } from "../stats/operator.ts";
import { probes } from "../stats/probes.ts";
import type { Ansatz } from "./ansatz.ts";
import { independentRows } from "./null-space.ts";

/** What counts as what; it depends on the precision of gradients. */
export interface Precision {
  /** Spacing of numbers at 1. */
  readonly rounding: number;
  /** Singular values up to this times the largest are 0, in a matrix with so many rows or columns. */
  readonly rank: (size: number) => number;
  /** How many times the largest of those the next must be. */
  readonly gap: number;
  /** A distance between vectors of length 1 that is none. */
  readonly near: number;
  /** An equation whose relative error is larger counts for less. */
  readonly digits: (unknowns: number) => number;
}

/** A gradient this much shorter than the longest of its theta is what cancellation left of it, and no equation. */
const SHORT = 1e-4;
/** Thetas that differ from one in its last digits, to see how many digits its gradients have. */
const NEARBY = 3;
const MOST_SAMPLES = 128;
const BATCH_SIZE = 8;
/** Probes from here on are directions, not thetas. */
const DIRECTIONS = 0x40000000;
/** Thetas that flat generators are told by, and gradients of each at least. */
const DIRECTION_THETAS = 32;
const DIRECTION_SAMPLES = 8;

/** Turns the event loop every 10 ms, with progress and a look at the signal. */
export class Pace {
  readonly #control: Control;
  readonly #total: number;
  #done = 0;
  #turned = performance.now();

  constructor(control: Control, total: number) {
    control.signal?.throwIfAborted();
    this.#control = control;
    this.#total = total;
  }

  async pause(done = this.#done): Promise<void> {
    if (performance.now() - this.#turned < 10) return;
    this.report(done);
    await turn();
    this.#control.signal?.throwIfAborted();
    this.#turned = performance.now();
  }

  report(done = this.#total): void {
    this.#done = Math.max(this.#done, Math.min(done, this.#total));
    this.#control.onProgress?.({ done: this.#done, total: this.#total });
  }
}

/** Linear equations g_n(theta) . (A theta + b) = 0 for the coordinates of an ansatz, at random thetas. */
export class Equations {
  /** Each of length 1, or less where the gradient has lost digits. */
  readonly rows: Float64Array[] = [];
  /** The gradients they come from, over the trained entries; kept for the full ansatz alone. */
  readonly gradients: Float64Array[] = [];
  /** Thetas so far. */
  thetas = 0;
  /** The most independent equations that a theta gave. */
  rank = 0;
  readonly #where: string;
  readonly #measure: Measure;
  readonly #ansatz: Ansatz;
  readonly #key: Key;
  readonly #precision: Precision;
  readonly #pace: Pace;
  #draws = 0;

  constructor(where: string, measure: Measure, over: Ansatz, key: Key, precision: Precision, pace: Pace) {
    this.#where = where;
    this.#measure = measure;
    this.#ansatz = over;
    this.#key = key;
    this.#precision = precision;
    this.#pace = pace;
  }

  /** Equations until there are `count` more, from `thetas()` more thetas at least. */
  async take(count: number, thetas: () => number): Promise<void> {
    const [rows, first] = [this.rows.length + count, this.thetas];
    while (this.rows.length < rows || this.thetas - first < thetas()) {
      if (this.thetas >= 8 && this.rows.length === 0)
        fail(
          "range",
          this.#where,
          "the loss must depend on theta",
          "gradients of 0 for all samples at 8 random thetas",
        );
      // where most thetas give nothing, what there is decides
      if (this.thetas - first > 2 * count + 8) break;
      await this.takeTheta();
    }
  }

  /** The independent equations of one more theta. */
  async takeTheta(): Promise<void> {
    const { entries, unknowns, isFull } = this.#ansatz;
    const { near, digits, rounding } = this.#precision;
    const index = this.thetas++;
    const theta = this.theta(index);
    const samples = this.#samples();
    const { P, host } = this.#measure;
    const nearby = Array.from({ length: NEARBY }, (_, k) => {
      const signs = probes(host, this.#key, "signs", P, NEARBY * index + k, 1);
      const moved = theta.map((x, i) => x + 4 * rounding * signs[i]! * x);
      return this.#gradientsAt(moved, samples);
    });
    const found: {
      row: Float64Array;
      size: number;
      noise: number;
      length: number;
      g: Float64Array | null;
    }[] = [];
    for (const gradient of this.#gradientsAt(theta, samples)) {
      const others = nearby.map((moved) => this.#ansatz.row(moved.next().value!, theta));
      const whole = this.#ansatz.row(gradient, theta);
      const row = unitVector(whole);
      if (row === null) continue;
      // how much of it is rounding shows when theta moves in its last digits
      const noise = Math.max(...others.map((other) => apart(row, other)));
      const length = norm(gradient);
      const g = isFull ? Float64Array.from(entries, (e) => gradient[e]! / length) : null;
      found.push({ row, size: norm(whole), noise, length, g });
    }
    const longest = Math.max(...found.map(({ length }) => length));
    const long = found.filter(({ length }) => length > SHORT * longest);
    // what cancels is much the same for all samples; one sample alone may be exact by chance
    const usual = median(long.map(({ size, noise }) => size * noise));
    for (const { row, size, noise } of long) {
      const weight = Math.min(1, digits(unknowns) / Math.max(noise, usual / size));
      for (let i = 0; i < row.length; i++) row[i] = weight * row[i]!;
    }
    const chosen = independentRows(
      long.map(({ row }) => row),
      near,
    );
    this.rank = Math.max(this.rank, chosen.length);
    for (const i of chosen) {
      this.rows.push(long[i]!.row);
      if (isFull) this.gradients.push(long[i]!.g!);
    }
    await this.#pace.pause(Math.min(this.rows.length, 2 * unknowns));
  }

  /**
   * Coefficients of g_n . (A p + b) with directions p that have nothing to do with the theta of g_n. What solves these too
   * moves only what is never seen. They come from several thetas, because at one a relu may be at rest for all samples.
   */
  async directions(count: number): Promise<Float64Array[]> {
    const rows: Float64Array[] = [];
    const share = Math.max(DIRECTION_SAMPLES, Math.ceil(count / DIRECTION_THETAS));
    for (let k = 0; k < DIRECTION_THETAS || rows.length < count; k++) {
      const samples = this.#samples();
      const some = Array.from(
        { length: Math.min(share, samples.length) },
        (_, i) => samples[(k * share + i) % samples.length]!,
      );
      for (const g of this.#gradientsAt(this.theta(this.thetas + k), some)) {
        const row = unitVector(this.#ansatz.row(g, this.theta(DIRECTIONS + rows.length)));
        rows.push(row ?? new Float64Array(this.#ansatz.unknowns));
      }
      await this.#pace.pause();
    }
    return rows;
  }

  /** Theta of this index: independent standard normals. */
  theta(index: number): Float64Array {
    return probes(this.#measure.host, this.#key, "normals", this.#measure.P, index, 1);
  }

  /** Some samples, each by itself, or minibatches of a loss with batch ops. */
  #samples(): number[][] {
    const { N, P, samples } = this.#measure;
    const count = Math.min(MOST_SAMPLES, P + 16);
    if (!samples.coupled) {
      const rows = N <= count ? Array.from({ length: N }, (_, n) => n) : this.#draw(count);
      return rows.map((n) => [n]);
    }
    const S = Math.min(N, Math.max(4, Math.min(BATCH_SIZE, Math.floor(N / 2))));
    return Array.from({ length: N === S ? 1 : count }, () => this.#draw(S));
  }

  /** Gradients of samples or minibatches, one after the other; not more at a time than a pass holds. */
  *#gradientsAt(theta: Float64Array, samples: readonly number[][]): Generator<Float64Array, undefined> {
    const measure = this.#measure;
    const { P } = measure;
    const room = measure.samples.coupled ? 1 : chunkRows(measure);
    for (let first = 0; first < samples.length; first += room) {
      const rows = samples.slice(first, first + room);
      const values = new Float64Array(rows.length * P);
      if (measure.samples.coupled) batchGradient(measure, theta, rows[0]!, values);
      else perSampleGradients(measure, theta, rows.flat(), values);
      for (let n = 0; n < rows.length; n++) {
        const g = values.subarray(n * P, (n + 1) * P);
        if (!Number.isFinite(norm(g)))
          fail(
            "nonfinite",
            this.#where,
            "gradients must be finite at standard normal thetas",
            `${g.find((x) => !Number.isFinite(x)) ?? Infinity}`,
            "Scale the parameters of the model, or use f64.",
          );
        yield g;
      }
    }
  }

  /** Indices of distinct samples: draws of purpose 5 exchange the first ones with any behind. */
  #draw(count: number): number[] {
    const { host, N } = this.#measure;
    const words = 4 * Math.ceil(count / 4);
    const { region } = host.arena.reserve(this.#where, () => ({ bytes: 4 * words + 64 }));
    const { key0, key1 } = this.#key;
    host.core.exports.drawIndices(
      region.base,
      words,
      this.#draws,
      0,
      1,
      N,
      1,
      0,
      PURPOSE.measure,
      key0,
      key1,
    );
    const drawn = host.arena.words(region.base, words).slice();
    host.arena.release(region);
    this.#draws += words;
    const moved = new Map<number, number>();
    return Array.from({ length: count }, (_, i) => {
      const j = i + (drawn[i]! % (N - i));
      const taken = moved.get(j) ?? j;
      moved.set(j, moved.get(i) ?? i);
      return taken;
    });
  }
}

/** The mean gradient of one minibatch, P values. */
function batchGradient(
  measure: Measure,
  theta: Float64Array,
  rows: readonly number[],
  out: Float64Array,
): void {
  const { model, trainable, leaves } = measure;
  const S = rows.length;
  const pass = measure.pass(`gradient of a batch of ${S}`, () => ({
    samples: S,
    chosen: true,
    effects: (take) =>
      gradient(measure.samples.lossIn(S), leaves, model.graph.number(1 / S), S).flatMap(
        (value, i): Effect[] => {
          const address = take(trainable[i]!.size);
          return value === null ? [] : [{ kind: "output", value, address }];
        },
      ),
  }));
  chooseRows(measure, pass, rows, S);
  pass.run(theta);
  for (const [i, { offset, size }] of trainable.entries()) pass.readInto(out, offset, i, size);
}

/** The middle one, the upper of two; 0 of none. */
function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
}

/** |unit - v / |v||; 1 for a v of zeros. */
function apart(unit: Float64Array, v: Float64Array): number {
  const length = norm(v);
  if (length === 0) return 1;
  let sum = 0;
  for (let i = 0; i < unit.length; i++) {
    const difference = unit[i]! - v[i]! / length;
    sum += difference * difference;
  }
  return Math.sqrt(sum);
}

/** v / |v|; null for zeros. */
export function unitVector(v: Float64Array): Float64Array | null {
  const length = norm(v);
  if (length === 0) return null;
  const out = v.slice();
  divide(out, length);
  return out;
}

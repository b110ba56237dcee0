import { turn } from "../core/turn.ts";
import { fail } from "../errors.ts";
import { gradient } from "../graph/derive.ts";
import type { Effect } from "../graph/lower.ts";
import { chooseRows } from "../models/derivatives.ts";
import type { Measure } from "../models/measure.ts";
import type { Estimate } from "./estimate.ts";
import { bessel } from "./noise.ts";
import { type Control, dot } from "./operator.ts";

/**
 * The noise of minibatch gradients, from independent batches. By convention
 *
 *   Sigma = S Cov(g_hat),   g_hat the mean gradient of a batch of S samples,
 *
 * which for a loss without batch ops is the covariance of per-sample gradients; with batch ops it is the
 * only covariance there is, and depends on S.
 *
 * @source theory of batch normalisation and the identity of charges: every minibatch loss has the symmetry
 */
export class MinibatchNoise {
  /** S. */
  readonly batchSize: number;
  /** Independent batches it was measured on. */
  readonly batches: number;
  /** Mean of the batches' gradients, P values. */
  readonly mean: Float64Array;
  /** Gradients less their mean, [batches][P]. */
  readonly #centred: Float64Array;

  /** @internal use problem.minibatchNoise */
  constructor(batchSize: number, batches: number, gradients: Float64Array) {
    const P = gradients.length / batches;
    this.batchSize = batchSize;
    this.batches = batches;
    this.mean = new Float64Array(P);
    for (let m = 0; m < batches; m++) {
      for (let i = 0; i < P; i++) this.mean[i] = this.mean[i]! + gradients[m * P + i]! / batches;
    }
    for (let m = 0; m < batches; m++) {
      for (let i = 0; i < P; i++) gradients[m * P + i] = gradients[m * P + i]! - this.mean[i]!;
    }
    this.#centred = gradients;
  }

  /** Tr Sigma. */
  get trace(): Estimate {
    return this.form((d) => d);
  }

  /** Tr[Sigma A] for the linear map A: unbiased, with the jackknife's standard error. */
  form(A: (d: Float64Array) => Float64Array): Estimate {
    const P = this.mean.length;
    const terms = Float64Array.from({ length: this.batches }, (_, m) => {
      const d = this.#centred.subarray(m * P, (m + 1) * P);
      return this.batchSize * dot(d, A(d));
    });
    return { ...bessel(terms), method: "jackknife of independent batches" };
  }

  /** Sigma, P x P row-major, divisor batches - 1. Its rank is at most batches - 1. */
  covariance(): Float64Array {
    const P = this.mean.length;
    const out = new Float64Array(P * P);
    const scale = this.batchSize / (this.batches - 1);
    for (let m = 0; m < this.batches; m++) {
      const d = this.#centred.subarray(m * P, (m + 1) * P);
      for (let i = 0; i < P; i++) {
        for (let j = 0; j < P; j++) out[i * P + j] = out[i * P + j]! + scale * d[i]! * d[j]!;
      }
    }
    return out;
  }
}

/**
 * Gradients of independent minibatches.
 *
 * @param measure   batches times batchSize independent samples, one batch after the other
 * @cost  a forward and a backward pass per batch
 */
export async function minibatchNoise(
  measure: Measure,
  theta: ArrayLike<number>,
  batchSize: number,
  batches: number,
  { signal, onProgress }: Control,
): Promise<MinibatchNoise> {
  const { P, model, trainable, leaves } = measure;
  const pass = measure.pass(`gradient of a batch of ${batchSize}`, () => ({
    samples: batchSize,
    chosen: true,
    effects: (take) =>
      gradient(
        measure.samples.lossIn(batchSize),
        leaves,
        model.graph.number(1 / batchSize),
        batchSize,
      ).flatMap((value, i): Effect[] => {
        const address = take(trainable[i]!.size);
        return value === null ? [] : [{ kind: "output", value, address }];
      }),
  }));
  const gradients = new Float64Array(batches * P);
  const letGo = measure.hold();
  try {
    let turned = performance.now();
    for (let m = 0; m < batches; m++) {
      chooseRows(
        measure,
        pass,
        Array.from({ length: batchSize }, (_, s) => m * batchSize + s),
        batchSize,
      );
      pass.run(theta);
      for (const [i, { offset, size }] of trainable.entries())
        pass.readInto(gradients, m * P + offset, i, size);
      checkFinite(gradients, m, P);
      if (performance.now() - turned > 10 || m === batches - 1) {
        onProgress?.({ done: m + 1, total: batches });
        await turn();
        signal?.throwIfAborted();
        turned = performance.now();
      }
    }
  } finally {
    letGo();
  }
  return new MinibatchNoise(batchSize, batches, gradients);
}

function checkFinite(gradients: Float64Array, batch: number, P: number): void {
  for (let e = batch * P; e < (batch + 1) * P; e++) {
    if (Number.isFinite(gradients[e])) continue;
    fail(
      "nonfinite",
      "minibatchNoise",
      "the gradient of every batch must be finite",
      `${gradients[e]} in batch ${batch}`,
      "Batch statistics with eps 0 divide by 0 where a batch repeats one sample: take larger batches, or eps > 0.",
    );
  }
}

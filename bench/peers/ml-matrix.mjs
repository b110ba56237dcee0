// ml-matrix: dense matrices in JavaScript.
import { Matrix } from "ml-matrix";
import { batchesOf, drawBatch, nested, normal, readInput } from "./inputs.mjs";

/** Data as rows, and the weights. */
function linearNet({ job, folder }) {
  const { d, h, o } = job.params;
  const weights = readInput(folder, "weights");
  return {
    X: nested(readInput(folder, "X"), d),
    Y: nested(readInput(folder, "Y"), o),
    start: () => ({
      W1: new Matrix(nested(weights.subarray(0, d * h), h)),
      W2: new Matrix(nested(weights.subarray(d * h), o)),
    }),
  };
}

const flat = ({ W1, W2 }) => [...W1.to1DArray(), ...W2.to1DArray()];

function sgd(context) {
  const { X, Y, start } = linearNet(context);
  const { N, S, eta } = context.job.params;
  const step = ({ W1, W2 }, batch) => {
    const x = new Matrix(batch.map((n) => X[n]));
    const a = x.mmul(W1);
    const e = a
      .mmul(W2)
      .sub(new Matrix(batch.map((n) => Y[n])))
      .mul(eta / S);
    const b = e.mmul(W2.transpose());
    W2.sub(a.transpose().mmul(e));
    W1.sub(x.transpose().mmul(b));
  };
  const theta = start();
  return {
    run(count) {
      for (let k = 0; k < count; k++) step(theta, drawBatch(S, N));
      return flat(theta);
    },
    check() {
      const own = start();
      for (const batch of batchesOf(context.folder, S)) step(own, batch);
      return { values: flat(own) };
    },
  };
}

/** Tr Sigma, from norms. */
function noise(context) {
  const { X, Y, start } = linearNet(context);
  const { N } = context.job.params;
  const [x, y] = [new Matrix(X), new Matrix(Y)];
  const { W1, W2 } = start();
  const squares = (A) => Matrix.mul(A, A).sum("row");
  const trace = () => {
    const a = x.mmul(W1);
    const e = a.mmul(W2).sub(y);
    const b = e.mmul(W2.transpose());
    const [xx, aa, ee, bb] = [x, a, e, b].map(squares);
    let sum = 0;
    for (let n = 0; n < N; n++) sum += xx[n] * bb[n] + aa[n] * ee[n];
    const means = [x.transpose().mmul(b), a.transpose().mmul(e)].map((g) => g.div(N).norm() ** 2);
    return sum / N - means[0] - means[1];
  };
  return {
    run(count) {
      let value;
      for (let i = 0; i < count; i++) value = trace();
      return value;
    },
    check: () => ({ values: [trace()] }),
  };
}

function sde(context) {
  const { X, Y, start } = linearNet(context);
  const { N, S, eta } = context.job.params;
  const [x, y] = [new Matrix(X), new Matrix(Y)];
  const xT = x.transpose();
  const step = ({ W1, W2 }, xi) => {
    const mean = xi.reduce((sum, each) => sum + each, 0) / N;
    const weights = Array.from(xi, (each) => -eta / N - (eta / Math.sqrt(S * N)) * (each - mean));
    const a = x.mmul(W1);
    const e = a.mmul(W2).sub(y).mulColumnVector(weights);
    const b = e.mmul(W2.transpose());
    W2.add(a.transpose().mmul(e));
    W1.add(xT.mmul(b));
  };
  const theta = start();
  return {
    run(count) {
      for (let k = 0; k < count; k++) step(theta, Float64Array.from({ length: N }, normal));
      return flat(theta);
    },
    check() {
      const own = start();
      for (const xi of nested(readInput(context.folder, "xi"), N)) step(own, xi);
      return { values: flat(own) };
    },
  };
}

const families = { sgd, noise, sde };

export const sides = { "ml-matrix": (context) => families[context.job.family](context) };

// numpy-ts: numpy's interface in TypeScript.
import * as np from "numpy-ts";
import { momentsCheck } from "../moments.mjs";
import { batchesOf, drawBatch, nested, readInput } from "./inputs.mjs";

function linearNet({ job, folder }) {
  const { d, h, o } = job.params;
  const type = job.dtype === "f64" ? "float64" : "float32";
  const matrix = (values, columns) => np.array(nested(values, columns), type);
  const weights = readInput(folder, "weights");
  return {
    X: matrix(readInput(folder, "X"), d),
    Y: matrix(readInput(folder, "Y"), o),
    start: () => ({
      W1: matrix(weights.subarray(0, d * h), h),
      W2: matrix(weights.subarray(d * h), o),
    }),
  };
}

const flat = ({ W1, W2 }) => [...W1.flatten().tolist(), ...W2.flatten().tolist()];

function sgd(context) {
  const { X, Y, start } = linearNet(context);
  const { N, S, eta } = context.job.params;
  const step = ({ W1, W2 }, batch) => {
    const x = np.take(X, batch, 0);
    const a = np.matmul(x, W1);
    const e = np.multiply(np.subtract(np.matmul(a, W2), np.take(Y, batch, 0)), eta / S);
    const b = np.matmul(e, np.transpose(W2));
    return {
      W2: np.subtract(W2, np.matmul(np.transpose(a), e)),
      W1: np.subtract(W1, np.matmul(np.transpose(x), b)),
    };
  };
  let theta = start();
  return {
    run(count) {
      for (let k = 0; k < count; k++) theta = step(theta, drawBatch(S, N));
      return flat(theta);
    },
    check() {
      let own = start();
      for (const batch of batchesOf(context.folder, S)) own = step(own, batch);
      return { values: flat(own) };
    },
  };
}

/** Tr Sigma, from norms. (The matrix of all gradients does not fit its memory.) */
function noise(context) {
  const { X, Y, start } = linearNet(context);
  const { N } = context.job.params;
  const { W1, W2 } = start();
  const squares = (A) => np.sum(np.multiply(A, A), 1);
  const pass = () => {
    const a = np.matmul(X, W1);
    const e = np.subtract(np.matmul(a, W2), Y);
    return { a, e, b: np.matmul(e, np.transpose(W2)) };
  };
  const trace = () => {
    const { a, e, b } = pass();
    const squared = np.add(np.multiply(squares(X), squares(b)), np.multiply(squares(a), squares(e)));
    const means = [np.matmul(np.transpose(X), b), np.matmul(np.transpose(a), e)];
    const ofMeans = means.map((g) => Number(np.sum(np.multiply(g, g))) / N ** 2);
    return Number(np.mean(squared)) - ofMeans[0] - ofMeans[1];
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

function normals({ job }) {
  const draw = () => np.random.standard_normal([job.params.count]);
  return {
    run(count) {
      let drawn;
      for (let i = 0; i < count; i++) drawn = draw();
      return Number(np.sum(drawn));
    },
    check: () => momentsCheck(draw().tolist()),
  };
}

const families = { sgd, noise, normals };

export const sides = { "numpy-ts": (context) => families[context.job.family](context) };

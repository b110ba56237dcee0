// TensorFlow.js, f32: backends cpu and wasm (one thread), by closed form and by its automatic differentiation.
//
// What Node loads of tfjs-core by itself has no gradients, and its other modules need a bundler: bench/peers.mjs bundles this file.
import * as tf from "@tensorflow/tfjs-core";
import "@tensorflow/tfjs-core/dist/public/chained_ops/register_all_chained_ops";
import "@tensorflow/tfjs-core/dist/register_all_gradients";
import "@tensorflow/tfjs-backend-cpu";
import * as wasm from "@tensorflow/tfjs-backend-wasm";
import { momentsCheck } from "../moments.mjs";
import { batchesOf, drawBatch, readInput } from "./inputs.mjs";

async function use(backend, context) {
  if (backend === "wasm") {
    wasm.setWasmPaths(context.wasm);
    wasm.setThreadsCount(1);
  }
  if (!(await tf.setBackend(backend))) throw new Error(`no backend ${backend}`);
  await tf.ready();
}

async function sgd(context, backend, isClosed) {
  await use(backend, context);
  const { job, folder } = context;
  const { N, d, h, o, S, eta } = job.params;
  const tensor = (values, shape) => tf.tensor(Float32Array.from(values), shape);
  const [X, Y] = [tensor(readInput(folder, "X"), [N, d]), tensor(readInput(folder, "Y"), [N, o])];
  const weights = readInput(folder, "weights");
  const start = () => ({
    W1: tf.variable(tensor(weights.subarray(0, d * h), [d, h])),
    W2: tf.variable(tensor(weights.subarray(d * h), [h, o])),
  });
  const optimizer = tf.train.sgd(eta);
  const closed = ({ W1, W2 }, x, y) => {
    const a = x.matMul(W1);
    const e = a
      .matMul(W2)
      .sub(y)
      .mul(eta / S);
    const b = e.matMul(W2, false, true);
    W2.assign(W2.sub(a.matMul(e, true, false)));
    W1.assign(W1.sub(x.matMul(b, true, false)));
  };
  const automatic = ({ W1, W2 }, x, y) => {
    const loss = () =>
      x
        .matMul(W1)
        .matMul(W2)
        .sub(y)
        .square()
        .sum()
        .mul(0.5 / S);
    optimizer.minimize(loss, false, [W1, W2]);
  };
  const step = (theta, batch) =>
    tf.tidy(() => {
      const rows = tf.tensor1d(batch, "int32");
      (isClosed ? closed : automatic)(theta, X.gather(rows), Y.gather(rows));
    });
  const flat = async ({ W1, W2 }) => [...(await W1.data()), ...(await W2.data())];
  const theta = start();
  return {
    run(count) {
      for (let k = 0; k < count; k++) step(theta, drawBatch(S, N));
      return flat(theta);
    },
    async check() {
      const own = start();
      for (const batch of batchesOf(folder, S)) step(own, batch);
      return { values: await flat(own) };
    },
  };
}

async function normals(context, backend) {
  await use(backend, context);
  const { job } = context;
  const draw = () => {
    const drawn = tf.randomNormal([job.params.count]);
    const values = drawn.dataSync();
    drawn.dispose();
    return values;
  };
  return {
    run(count) {
      let drawn;
      for (let i = 0; i < count; i++) drawn = draw();
      return drawn;
    },
    check: () => momentsCheck(Array.from(draw())),
  };
}

const families = { sgd, normals };
const on = (backend, isClosed) => (context) => families[context.job.family](context, backend, isClosed);

export const sides = {
  "tfjs-wasm-closed": on("wasm", true),
  "tfjs-wasm-autodiff": on("wasm", false),
  "tfjs-cpu-closed": on("cpu", true),
  "tfjs-cpu-autodiff": on("cpu", false),
};

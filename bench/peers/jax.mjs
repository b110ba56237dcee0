// jax-js on its wasm device: a step under jit, by closed form. Every minibatch is uploaded.
import { batchesOf, drawBatch, nested, readInput } from "./inputs.mjs";

async function sgd({ job, folder }) {
  if (globalThis.Float16Array === undefined)
    throw Object.assign(new Error("jax-js needs Float16Array, hence Node 24"), { code: "unsupported" });
  const { defaultDevice, init, jit, numpy: np } = await import("@jax-js/jax");
  await init("wasm");
  defaultDevice("wasm");
  const { d, h, o, N, S, eta } = job.params;
  const dtype = job.dtype === "f64" ? np.float64 : np.float32;
  const upload = (values, columns) =>
    np.array(Array.from(values), { dtype }).reshape([values.length / columns, columns]);
  const [X, Y] = [nested(readInput(folder, "X"), d), nested(readInput(folder, "Y"), o)];
  const weights = readInput(folder, "weights");
  const start = () => [upload(weights.subarray(0, d * h), h), upload(weights.subarray(d * h), o)];
  // as an array, because numbers have the precision of f32
  const scale = np.array([eta / S], { dtype });
  const compiled = jit((W1, W2, x, y, c) => {
    const a = np.matmul(x.ref, W1.ref);
    const e = np.matmul(a.ref, W2.ref).sub(y).mul(c);
    const b = np.matmul(e.ref, np.transpose(W2.ref));
    return [W1.sub(np.matmul(np.transpose(x), b)), W2.sub(np.matmul(np.transpose(a), e))];
  });
  const rows = (from, batch, columns) =>
    upload(
      batch.flatMap((n) => from[n]),
      columns,
    );
  const step = ([W1, W2], batch) => compiled(W1, W2, rows(X, batch, d), rows(Y, batch, o), scale.ref);
  const flat = async ([W1, W2]) => [...(await W1.ref.data()), ...(await W2.ref.data())];
  let theta = start();
  return {
    async run(count) {
      for (let k = 0; k < count; k++) theta = step(theta, drawBatch(S, N));
      return flat(theta);
    },
    async check() {
      let own = start();
      for (const batch of batchesOf(folder, S)) own = step(own, batch);
      return { values: await flat(own) };
    },
  };
}

export const sides = { "jax-js": sgd };

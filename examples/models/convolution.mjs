// A convolution of width 3 over a signal of 8 values, written as a matmul of the filters with each slice, then ReLU, then a linear
// readout of every place. Filter j and the readouts of its feature at all places rescale against each other.
import { model, ops } from "noetherflow";

const [LENGTH, WIDTH, FILTERS] = [8, 3, 4];
const PLACES = LENGTH - WIDTH + 1;

export default model({
  params: { K: [FILTERS, WIDTH], R: [PLACES, FILTERS] },
  inputs: { x: [LENGTH], y: [] },
  loss: ({ K, R, x, y }) => {
    const features = Array.from({ length: PLACES }, (_, p) =>
      ops.relu(ops.matmul(K, ops.slice(x, { start: p, stop: p + WIDTH }))),
    );
    // row p of R reads the features at place p
    const readouts = features.map((h, p) => ops.matmul(ops.slice(R, { start: p, stop: p + 1 }), h));
    return ops.square(ops.sub(ops.sum(ops.concat(readouts)), y));
  },
});

// the largest rise of a signal from one place to the next
const wave = (n, p) => Math.sin(0.9 * n + 0.7 * p) + Math.cos(2.3 * n * p);
const signals = Array.from({ length: 200 }, (_, n) =>
  Array.from({ length: LENGTH }, (_, p) => wave(n + 1, p + 1)),
);
export const data = {
  x: signals,
  y: signals.map((x) => Math.max(...x.slice(1).map((v, p) => v - x[p]))),
};

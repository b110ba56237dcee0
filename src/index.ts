/**
 * Models, engines, generators of symmetries, charges, gradient noise and runs: what a page or a program imports.
 *
 * Examples come after these lines, and after the imports that they need:
 *
 * ```ts
 * const net = models.twoLayerLinear({ dx: 3, h: 4, dy: 2 }); // U [2, 4], W [4, 3]; f = U W x, |f - y|^2
 * const [U, W, x, y] = [net.leaf("U"), net.leaf("W"), net.leaf("x"), net.leaf("y")];
 * const teacher = sampler({
 *   noise: { x: { kind: "normal", shape: [3] }, eps: { kind: "normal", shape: [2] } },
 *   constants: { V: [[1, 0, 0], [0, 1, 0]] },
 *   outputs: ({ x, eps, V }) => ({ x, y: ops.add(ops.matmul(V, x), eps) }),
 * });
 * const engine = await createEngine();
 * const problem = engine.problem(net, teacher, { samples: 32 });
 * const { x: xs, y: ys } = problem.data as { x: Float64Array; y: Float64Array };
 * const part = (from: Float64Array, size: number, start: number, count: number) => from.subarray(size * start, size * (start + count));
 * const reader = { N: 32, read: (start: number, count: number) => ({ x: part(xs, 3, start, count), y: part(ys, 2, start, count) }) };
 * const streamed = engine.problem(net, reader); // the same data, read on the way
 * const theta = problem.init("glorot", { seed: "a" });
 * const A = symmetry.rescaling("U", "W"); // C = (|U|^2 - |W|^2) / 2
 * const options = { scheme: "sgd", theta, eta: 0.01, batchSize: 4, steps: 100, record: { every: 50, charges: { C: A } } } as const;
 * ```
 *
 * @module noetherflow
 */

export * from "./api.ts";
export { createEngine, type EngineOptions } from "./create.ts";

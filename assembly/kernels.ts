/** The same core with every kernel exported, for tests of single kernels. Exports cost 1.4 kB of a package, so that has them not. */
export * from "./index";
export * from "./pointwise";
export * from "./fused";
export * from "./matrix";
export * from "./reduce";
export * from "./transfer";
export * from "./weights";
export * from "./adaptive";
export * from "./distinct";
export * from "./random";
export { exp, log, tanh, sigmoid, softplus, erf } from "./elementary";

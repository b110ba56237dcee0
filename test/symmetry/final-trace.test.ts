/** engine.twoLayer.finalTrace: the formula of theory 10 written out, its isotropic case, and the end of a run. */
import { EigenvalueDecomposition, Matrix, SingularValueDecomposition } from "ml-matrix";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createEngine, type Engine, predictions } from "../../src/index.ts";
import { Draw } from "../helpers/ready.ts";

let engine: Engine;
beforeAll(async () => {
  engine = await createEngine();
});
afterAll(() => engine.dispose());

const root = (S: Matrix): Matrix => {
  const { eigenvectorMatrix: E, realEigenvalues } = new EigenvalueDecomposition(S);
  return E.mmul(Matrix.diag(realEigenvalues.map(Math.sqrt))).mmul(E.transpose());
};

/** 2 dy sqrt(tx / te) sum D + 2 sqrt(tx te) sum_k D_k (L^T Sigma_eps^-1 L)_kk */
function formula(V: Matrix, Sx: Matrix, Se: Matrix): number {
  const svd = new SingularValueDecomposition(root(Se).mmul(V).mmul(root(Sx)), { autoTranspose: true });
  const D = svd.diagonal;
  const L = svd.leftSingularVectors;
  const inverse = L.transpose().mmul(new SingularValueDecomposition(Se).inverse()).mmul(L);
  const [tx, te] = [Sx.trace(), Se.trace()];
  const sum = D.reduce((a, b) => a + b, 0);
  const weighted = D.reduce((s, d, k) => s + d * inverse.get(k, k), 0);
  return 2 * V.rows * Math.sqrt(tx / te) * sum + 2 * Math.sqrt(tx * te) * weighted;
}

describe("the trace of the Hessian where SGD comes to rest", () => {
  test.each([
    [2, 3],
    [4, 3],
    [3, 3],
  ])("is the formula for any V, Sigma_x, Sigma_eps, dy = %d, dx = %d", (dy, dx) => {
    for (const seed of [1, 2, 3]) {
      const d = new Draw(seed);
      const matrix = (r: number, c: number) => Matrix.from1DArray(r, c, [...d.normals(r * c)]);
      const spd = (n: number) => {
        const M = matrix(n, n);
        return M.mmul(M.transpose()).add(Matrix.eye(n, n).mul(0.3));
      };
      const [V, Sx, Se] = [matrix(dy, dx), spd(dx), spd(dy)];
      const found = engine.twoLayer.finalTrace({
        V: V.to2DArray(),
        SigmaX: Sx.to2DArray(),
        SigmaEps: Se.to2DArray(),
      });
      expect(Math.abs(found / formula(V, Sx, Se) - 1)).toBeLessThan(1e-11);
    }
  });
  test("of an isotropic autoencoder is 4 d Tr Sigma_x, whatever the noise", () => {
    const { dense } = engine;
    for (const noise of [0.01, 1, 9]) {
      const found = engine.twoLayer.finalTrace({
        V: dense.identity(5),
        SigmaX: dense.scale(dense.identity(5), 2),
        SigmaEps: dense.scale(dense.identity(5), noise),
      });
      expect(found).toBeCloseTo(predictions.autoencoderTrace({ d: 5, traceSigmaX: 10 }), 9);
    }
  });
  test("refuses shapes that do not fit", () => {
    const I = engine.dense.identity(2);
    expect(() => engine.twoLayer.finalTrace({ V: engine.dense.identity(3), SigmaX: I, SigmaEps: I })).toThrow(
      "expected a",
    );
  });
});

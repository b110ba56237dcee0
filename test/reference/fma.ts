/**
 * a * b + c rounded once, in whole numbers: what a fused multiply-add gives. For finite values whose result is normal.
 * It catches a kernel that rounds the product, or one that fuses where another does not.
 */

/** x = m 2^e with an integer m; the bits of a double say both. */
function parts(x: number): [bigint, number] {
  view.setFloat64(0, x);
  const bits = view.getBigUint64(0);
  const exponent = Number((bits >> 52n) & 0x7ffn);
  const mantissa = (bits & 0xfffffffffffffn) | (exponent === 0 ? 0n : 1n << 52n);
  return [bits >> 63n ? -mantissa : mantissa, Math.max(exponent, 1) - 1075];
}
const view = new DataView(new ArrayBuffer(8));

/** @param digits binary digits of the result: 53, or 24 for a float */
export function fusedMultiplyAdd(a: number, b: number, c: number, digits: 24 | 53): number {
  const [[ma, ea], [mb, eb], [mc, ec]] = [parts(a), parts(b), parts(c)];
  const e = Math.min(ea + eb, ec);
  const sum = ((ma * mb) << BigInt(ea + eb - e)) + (mc << BigInt(ec - e));
  // an exact zero has the sign of a plain sum: of products and terms that are -0 only -0 is left
  if (sum === 0n) return a * b + c;
  const size = sum < 0n ? -sum : sum;
  const shift = Math.max(0, size.toString(2).length - digits);
  const [unit, half] = [1n << BigInt(shift), shift === 0 ? 0n : 1n << BigInt(shift - 1)];
  let kept = size / unit;
  const rest = size % unit;
  if (rest > half || (rest === half && rest > 0n && kept % 2n === 1n)) kept += 1n;
  // scaled in two steps, so that the power of two is never beyond a double
  const power = e + shift;
  const result = Number(kept) * 2 ** Math.trunc(power / 2) * 2 ** (power - Math.trunc(power / 2));
  return sum < 0n ? -result : result;
}

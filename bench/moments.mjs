/**
 * The check of n standard normals: mean, variance and fourth moment in units of their standard errors, to be within 6 of the truth.
 * One is added to each, because a check is relative to the largest expected value.
 */
export function momentsCheck(values) {
  const n = values.length;
  const moment = (k) => values.reduce((sum, x) => sum + x ** k, 0) / n;
  const z = [
    moment(1) * Math.sqrt(n),
    (moment(2) - 1) * Math.sqrt(n / 2),
    (moment(4) - 3) * Math.sqrt(n / 96),
  ];
  return { values: z.map((each) => 1 + each), expected: [1, 1, 1], tolerance: 6 };
}

// Writes assembly/tiles.ts: the register tiles of the matrix products, and the loops that lay them.
//
//   node tools/gen-tiles.mjs           write the file
//   node tools/gen-tiles.mjs --print   print it (a test compares the two)
//
// Accumulators have to be named locals, and AssemblyScript has no const generics, so the tiles are
// written by this script. Whether dst is added to is fixed per tile: a run-time branch in front of
// the accumulators cost 15 % at 16 x 8 x 16. k is never unrolled: V8 does it, and better.
import { writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const range = (count) => [...Array(count).keys()];
const lines = (...parts) => parts.flat(Infinity).join("\n");

/** How the rows of A are read: by one pointer each (NN, strided) or from one pointer (TN). */
const kinds = {
  NN: {
    title: "dst (+)= A B, A [m][k]",
    parameters: "lda: usize",
    arguments: "lda",
    rowStep: "lda",
    step: "sizeof<real>()",
    tiles: [
      [2, 4],
      [1, 4],
      [4, 2],
      [2, 2],
      [1, 2],
      [4, 1],
      [2, 1],
      [1, 1],
    ],
  },
  TN: {
    title: "dst (+)= A^T B, A [k][m]",
    parameters: "lda: usize",
    arguments: "lda",
    rowStep: "sizeof<real>()",
    step: "lda",
    tiles: [
      [2, 4],
      [1, 4],
      [4, 2],
      [2, 2],
      [1, 2],
      [4, 1],
      [2, 1],
      [1, 1],
    ],
  },
  // Any two strides: one-row matrices, and operands that are slices of something larger.
  Strided: {
    title: "dst (+)= A B, A element (i, p) at a + i*ai + p*ap",
    parameters: "ai: usize, ap: usize",
    arguments: "ai, ap",
    rowStep: "ai",
    step: "ap",
    tiles: [
      [1, 4],
      [1, 1],
    ],
  },
};

/** The address text base + stride * i. */
const at = (base, stride, i) =>
  i === 0 ? base : i === 1 ? `${base} + ${stride}` : `${base} + ${stride} * ${i}`;
/**
 * In "fma" a product keeps the two units busy with one instruction a term instead of two, and what bounds it is the number of
 * loads: a tile of 6 rows by 2 registers loads 8 registers for 12 terms, 2 x 4 loads 6 for 8. On Node 24 that is 6 % at
 * 64 x 32 x 64, two tiles side by side so that lines of the cache are whole. With two roundings it spills, and so do the other kinds and the step on Node 22, to half the speed: 13 registers
 * live at a time are the most that the compilers of all hosts keep.
 */
const TALL = { rows: 6, vectors: 2, least: 24 };
const isTall = (kind, form) => kind === "NN" && form !== "Step";

const times = (stride, n) => (n === 1 ? stride : `${stride} * ${n}`);
const offset = (bytes) => (bytes === 0 ? "" : `, ${bytes}`);

/**
 * What a product does with its sums: stores them, adds to what is in dst, or takes a step of gradient
 * descent with them, dst -= rate * sum (rate is the address of one value).
 */
const forms = {
  Store: { suffix: "", parameters: "", arguments: "" },
  Add: { suffix: "Add", parameters: "", arguments: "" },
  Step: { suffix: "Step", parameters: ", rate: usize", arguments: ", rate" },
};

/**
 * One tile: `rows` rows of A by `vectors` registers of columns of B. A tile of kind TN goes on down A for m rows, `rows` at a time:
 * 6 % faster at 64 x 64 x 64, where a block of a covariance is 64 such calls; for the other kinds it is no faster, and the step 2 % slower.
 */
function tile(kind, form, rows, vectors) {
  const { parameters, rowStep, step } = kinds[kind];
  const { suffix, parameters: extra } = forms[form];
  const adds = form === "Add";
  const goesDown = kind === "TN";
  const each = (text) => range(rows).map((i) => range(vectors).map((j) => text(i, j)));
  const others = kind === "TN" ? [] : range(rows).slice(1); // rows that need a pointer of their own
  const [left, right] = goesDown ? ["x", "y"] : ["a", "b"];
  const row = (i) => (i > 0 && others.length ? `a${i}` : left);
  const broadcast = (i) =>
    kind === "TN" && i > 0
      ? `sizeof<real>() == 8 ? v128.load64_splat(x, ${8 * i}) : v128.load32_splat(x, ${4 * i})`
      : `splatAt(${row(i)})`;
  const body = [
    each((i, j) =>
      adds
        ? `let c${i}${j} = v128.load(${at("dst", "ldd", i)}${offset(16 * j)});`
        : `let c${i}${j} = i64x2(0, 0);`,
    ),
    others.map((i) => `let a${i} = ${at("a", rowStep, i)};`),
    goesDown ? ["let x = a;", "let y = b;"] : [],
    // a step keeps two numbers more: without the counter of k it is 4 % faster on Node 20, and as fast elsewhere
    form === "Step"
      ? `for (const end = a + (k as usize) * ${step}; a < end; ) {`
      : goesDown
        ? "for (let p = k; p > 0; --p) {"
        : "for (; k > 0; --k) {",
    range(vectors).map((j) => `  const b${j} = v128.load(${right}${offset(16 * j)});`),
    range(rows).map((i) => [
      `  const x${i} = ${broadcast(i)};`,
      range(vectors).map((j) => `  c${i}${j} = madd(x${i}, b${j}, c${i}${j});`),
    ]),
    `  ${left} += ${step};`,
    others.map((i) => `  a${i} += ${step};`),
    `  ${right} += ldb;`,
    "}",
    each((i, j) => {
      const place = `${at("dst", "ldd", i)}${offset(16 * j)}`;
      const value =
        form === "Step"
          ? `v128.sub<real>(v128.load(${place}), v128.mul<real>(splatAt(rate), c${i}${j}))`
          : `c${i}${j}`;
      return `v128.store(${at("dst", "ldd", i)}, ${value}${offset(16 * j)});`;
    }),
    goesDown ? [`a += ${times(rowStep, rows)};`, `dst += ${times("ldd", rows)};`] : [],
  ]
    .flat(Infinity)
    .map((line) => `${goesDown ? "    " : "  "}${line}`);
  return lines(
    `function tile${kind}${suffix}${rows}x${vectors}(`,
    `  dst: usize, a: usize, b: usize, ${goesDown ? "m: i32, " : ""}k: i32, ldd: usize, ${parameters}, ldb: usize${extra},`,
    "): void {",
    goesDown ? [`  for (; m >= ${rows}; m -= ${rows}) {`, body, "  }"] : body,
    "}",
  );
}

/** `rows` rows of one column, as independent scalar chains: what is left when n is no multiple of LANES. */
function column(kind, form, rows) {
  const { parameters, rowStep, step } = kinds[kind];
  const { suffix, parameters: extra } = forms[form];
  const adds = form === "Add";
  const each = (text) => range(rows).map(text);
  const others = kind === "TN" ? [] : range(rows).slice(1);
  const load = (i) =>
    i === 0 ? "load<real>(a)" : kind === "TN" ? `load<real>(a, ${i} * sizeof<real>())` : `load<real>(a${i})`;
  return lines(
    `function column${kind}${suffix}${rows}(`,
    `  dst: usize, a: usize, b: usize, k: i32, ldd: usize, ${parameters}, ldb: usize${extra},`,
    "): void {",
    each((i) => `  let c${i}: real = ${adds ? `load<real>(${at("dst", "ldd", i)})` : "0"};`),
    others.map((i) => `  let a${i} = ${at("a", rowStep, i)};`),
    "  for (; k > 0; --k) {",
    "    const x = load<real>(b);",
    each((i) => `    c${i} = maddOne(${load(i)}, x, c${i});`),
    `    a += ${step};`,
    others.map((i) => `    a${i} += ${step};`),
    "    b += ldb;",
    "  }",
    each((i) => {
      const place = at("dst", "ldd", i);
      const value = form === "Step" ? `load<real>(${place}) - load<real>(rate) * c${i}` : `c${i}`;
      return `  store<real>(${place}, ${value});`;
    }),
    "}",
  );
}

/** The loops of one kind: panels of 4, 2, 1 registers of columns, then single columns. */
function product(kind, form) {
  const { title, parameters, arguments: strides, rowStep, tiles } = kinds[kind];
  const { parameters: extra, arguments: extraArguments } = forms[form];
  const suffix = `${kind}${forms[form].suffix}`;
  const rest = `k, ldd, ${strides}, ldb${extraArguments}`;
  const note = { Store: "", Add: "; adds to dst", Step: "; dst -= rate * product" }[form];
  const next = (rows) => [`    y += ${times("ldd", rows)};`, `    x += ${times(rowStep, rows)};`];
  const down = (rows, call) => [
    rows === 1 ? "  for (; i < m; ++i) {" : `  for (; i + ${rows} <= m; i += ${rows}) {`,
    `    ${call}(y, x, b, ${rest});`,
    next(rows),
    "  }",
  ];
  /** Pairs of tall tiles. */
  const talls = () => {
    const call = `tile${suffix}${TALL.rows}x${TALL.vectors}`;
    const beside = 16 * TALL.vectors;
    return [
      `  for (; i + ${TALL.rows} <= m; i += ${TALL.rows}) {`,
      `    ${call}(y, x, b, ${rest});`,
      `    ${call}(y + ${beside}, x, b + ${beside}, ${rest});`,
      next(TALL.rows),
      "  }",
    ];
  };
  /** As many tiles as fit under row i, by one call. */
  const allOf = (rows, vectors) => [
    `  if (i + ${rows} <= m) {`,
    `    tile${suffix}${rows}x${vectors}(y, x, b, m - i, ${rest});`,
    ...(rows === 1
      ? []
      : [
          `    const whole = (m - i) - (m - i) % ${rows};`,
          "    y += (whole as usize) * ldd;",
          `    x += (whole as usize) * ${rowStep};`,
          "    i += whole;",
        ]),
    "  }",
  ];
  const panel = (vectors, indent, tall) =>
    [
      `for (; n >= ${vectors === 1 ? "" : `${vectors} * `}LANES; n -= ${vectors === 1 ? "" : `${vectors} * `}LANES) {`,
      "  let i = 0, x = a, y = dst;",
      tall ? talls() : [],
      tiles
        .filter(([, v]) => v === vectors)
        .map(([rows]) =>
          kind === "TN" ? allOf(rows, vectors) : down(rows, `tile${suffix}${rows}x${vectors}`).flat(),
        ),
      `  b += ${16 * vectors};`,
      `  dst += ${16 * vectors};`,
      "}",
    ]
      .flat(Infinity)
      .map((line) => `${indent}${line}`);
  const widths = [...new Set(tiles.map(([, vectors]) => vectors))];
  return lines(
    `/** ${title}${note}. Strides in bytes; n counts columns of any number. */`,
    `export function product${suffix}(`,
    `  dst: usize, a: usize, b: usize, m: i32, n: i32, k: i32, ldd: usize, ${parameters}, ldb: usize${extra},`,
    "): void {",
    isTall(kind, form)
      ? [
          `  if (ASC_FEATURE_RELAXED_SIMD && m >= ${TALL.least}) {`,
          panel(2 * TALL.vectors, "    ", true),
          "  }",
        ]
      : [],
    widths.map((vectors) => panel(vectors, "  ", false)),
    "  for (; n > 0; --n) {",
    "    let i = 0, x = a, y = dst;",
    [4, 1].flatMap((rows) => down(rows, `column${suffix}${rows}`).flat()).map((line) => `  ${line}`),
    "    b += sizeof<real>();",
    "    dst += sizeof<real>();",
    "  }",
    "}",
  );
}

/**
 * Both operands laned: `rows` x `columns` elements, `vectors` registers of lanes at a time and one at
 * the end. The balance is one load per multiply-add: 2 x 2 x 2 loads 8 registers for 8 of them.
 */
function lanedTile(adds, rows, columns, vectors) {
  const name = `laned${adds ? "Add" : ""}${rows}x${columns}`;
  const body = (v) => {
    const each = (text) =>
      range(rows).map((i) =>
        range(columns).map((j) => range(v).map((l) => text(i, j, l, `c${i}${j}${v > 1 ? l : ""}`))),
      );
    const place = (i, j) => at(at("dst", "rowD", i), "width", j);
    return [
      each(
        (i, j, l, c) =>
          `    let ${c} = ${adds ? `v128.load(${place(i, j)}${offset(16 * l)})` : "i64x2(0, 0)"};`,
      ),
      range(rows).map((i) => `    let a${i} = ${at("a", "rowA", i)};`),
      range(columns).map((j) => `    let b${j} = ${at("b", "columnB", j)};`),
      "    for (let p = k; p > 0; --p) {",
      range(v).map((l) => [
        range(rows).map((i) => `      const x${i}${l} = v128.load(a${i}${offset(16 * l)});`),
        range(columns).map((j) => `      const y${j}${l} = v128.load(b${j}${offset(16 * l)});`),
        range(rows).map((i) =>
          range(columns).map((j) => {
            const c = `c${i}${j}${v > 1 ? l : ""}`;
            return `      ${c} = madd(x${i}${l}, y${j}${l}, ${c});`;
          }),
        ),
      ]),
      range(rows).map((i) => `      a${i} += stepA;`),
      range(columns).map((j) => `      b${j} += stepB;`),
      "    }",
      each((i, j, l, c) => `    v128.store(${place(i, j)}, ${c}${offset(16 * l)});`),
      `    a += ${16 * v};`,
      `    b += ${16 * v};`,
      `    dst += ${16 * v};`,
    ];
  };
  return lines(
    `/** ${rows} x ${columns} elements of a laned product${adds ? "; adds to dst" : ""}. Strides in bytes; width = bytes of one element. */`,
    `export function ${name}(`,
    `  dst: usize, a: usize, b: usize, k: i32,${rows > 1 ? " rowD: usize, rowA: usize," : ""}`,
    `  stepA: usize, stepB: usize,${columns > 1 ? " columnB: usize," : ""} width: usize,`,
    "): void {",
    "  const end = dst + width;",
    `  for (let wide = dst + (width & ~${16 * vectors - 1}); dst < wide; ) {`,
    body(vectors),
    "  }",
    "  while (dst < end) {",
    body(1),
    "  }",
    "}",
  );
}

const text = `${lines(
  "// Generated by tools/gen-tiles.mjs; do not edit.",
  "",
  "/**",
  " * Register tiles of the matrix products, and the loops that lay them over a matrix. Every element of dst",
  " * is one accumulator, from +0 (or from dst: the Add forms), adding its terms in ascending p: the bits of",
  " * the plain triple loop, whatever the tile. Addresses and strides are in bytes. dst overlaps neither",
  " * operand.",
  " */",
  'import { LANES, madd, maddOne, splatAt } from "./lanes";',
  "",
  Object.keys(kinds).map((kind) =>
    // a step is taken with the gradient of a dense layer, which is an NN product
    Object.keys(forms)
      .filter((form) => form !== "Step" || kind === "NN")
      .map((form) => [
        [...kinds[kind].tiles, ...(isTall(kind, form) ? [[TALL.rows, TALL.vectors]] : [])].map(
          ([rows, vectors]) => [tile(kind, form, rows, vectors), ""],
        ),
        [4, 1].map((rows) => [column(kind, form, rows), ""]),
        product(kind, form),
        "",
      ]),
  ),
  [false, true].map((adds) =>
    [
      [2, 2, 2],
      [2, 1, 2],
      [1, 1, 4],
    ].map((shape) => [lanedTile(adds, ...shape), ""]),
  ),
).trimEnd()}\n`;

if (process.argv[2] === "--print") process.stdout.write(text);
else writeFileSync(fileURLToPath(new URL("../assembly/tiles.ts", import.meta.url)), text);

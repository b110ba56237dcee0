// `npm run bench:peers`: noetherflow beside other libraries that do the same jobs. See bench/README.md.
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { build } from "esbuild";
import { refreshLibrary } from "../tools/build.mjs";
import { here, outputOf } from "./machine.mjs";
import { optionsOf, runSuite } from "./options.mjs";
import { writeInputs } from "./peers/inputs.mjs";

const options = optionsOf(
  "peers",
  { python: { type: "string" } },
  `  --python PATH       the Python with numpy and torch (default $BENCH_PYTHON, or the first of /usr/bin/python3
                      and python3 that has numpy)
`,
);

/** What a side is measured by: a module of peers/, "python", or "c". Each JavaScript side has a process of its own. */
const programs = {
  "plain-js": ["plain", "plain JavaScript"],
  "specialised-js": ["plain", "plain JavaScript, specialised"],
  "ml-matrix": ["ml-matrix", "ml-matrix"],
  "numpy-ts": ["numpy-ts", "numpy-ts"],
  "tfjs-wasm-closed": ["tfjs", "tfjs wasm, closed form"],
  "tfjs-wasm-autodiff": ["tfjs", "tfjs wasm, autodiff"],
  "tfjs-cpu-closed": ["tfjs", "tfjs cpu, closed form"],
  "tfjs-cpu-autodiff": ["tfjs", "tfjs cpu, autodiff"],
  "jax-js": ["jax", "jax-js, jit, closed form"],
  "c-openblas": ["c", "C, OpenBLAS"],
  numpy: ["python", "numpy"],
  "numpy-ghost": ["python", "numpy, from norms"],
  "numpy-direct": ["python", "numpy, direct"],
  "numpy-structured": ["python", "numpy, fourth moments"],
  "numpy-matrix-free": ["python", "numpy, matrix-free"],
  "numpy-cholesky": ["python", "numpy, Sigma and Cholesky"],
  "numpy-generator": ["python", "numpy Generator"],
  "numpy-philox": ["python", "numpy Generator, Philox"],
  torch: ["python", "torch"],
  "torch-closed": ["python", "torch, closed form"],
  "torch-autograd": ["python", "torch autograd"],
  "torch-vmap": ["python", "torch vmap(grad)"],
  "torch-double-backward": ["python", "torch double backward"],
  "torch-matrix-free": ["python", "torch, matrix-free"],
};

const javascript = ["plain-js", "ml-matrix", "numpy-ts"];
const tensorflow = ["tfjs-wasm-closed", "tfjs-wasm-autodiff", "tfjs-cpu-closed", "tfjs-cpu-autodiff"];
const python = ["numpy", "torch-closed", "torch-autograd"];

/** Which peers do which job. */
const peersOf = {
  "J1-d16-S8": ["c-openblas", ...python, ...javascript, "specialised-js", "jax-js"],
  "J1-d64-S32": ["c-openblas", ...python, ...javascript, "specialised-js", "jax-js"],
  "J1-d16-S8-f32": ["c-openblas", ...python, "plain-js", "numpy-ts", ...tensorflow, "jax-js"],
  "J1-d64-S32-f32": ["c-openblas", ...python, "plain-js", "numpy-ts", ...tensorflow, "jax-js"],
  "J2-trace": ["c-openblas", "numpy-ghost", "torch-vmap", ...javascript],
  "J2-full": ["c-openblas", "numpy-direct", "numpy-structured", "torch-closed", "torch-vmap", "plain-js"],
  J3: ["c-openblas", "torch-double-backward"],
  J4: ["c-openblas", "numpy-matrix-free", "torch-matrix-free", "numpy-cholesky", "plain-js", "ml-matrix"],
  J5: ["c-openblas", "numpy", "torch", "plain-js"],
  normals: ["numpy-generator", "numpy-philox", "torch", "plain-js", "numpy-ts"],
  "normals-f32": ["tfjs-cpu-closed"],
};

refreshLibrary();
const families = ["sgd", "noise", "curvature", "sde", "ensemble", "normals"];
const modules = await Promise.all(families.map((family) => import(`./jobs/${family}.mjs`)));
const hosted = modules.flatMap((module) => module.jobs.map((job) => ({ module, job })));
const host = fileURLToPath(new URL("host.mjs", import.meta.url));
const peerModule = (name) => new URL(`peers/${name}.mjs`, import.meta.url).href;

/** A job of ours with its peers beside it; the prototypes are those of `npm run bench`. */
function withPeers({ job }) {
  const ours = job.sides.filter(({ kind }) => kind !== "prototype");
  const peers = peersOf[job.name].map((id) => {
    const [program, label] = programs[id];
    return { id, label, kind: "peer", make: id, host: ["python", "c"].includes(program) ? program : id };
  });
  return { ...job, sides: [...ours, ...peers] };
}

const jobs = hosted.filter(({ job }) => job.name in peersOf).map(withPeers);

/** The packages of bench/peers, as its lock file has them. */
function installPackages() {
  const folder = join(here, "peers");
  const lock = join(folder, "package-lock.json");
  const installed = join(folder, "node_modules/.package-lock.json");
  const version = (path, name) =>
    JSON.parse(readFileSync(path, "utf8")).packages[`node_modules/${name}`]?.version;
  const wanted = Object.keys(JSON.parse(readFileSync(join(folder, "package.json"), "utf8")).dependencies);
  const isCurrent =
    existsSync(installed) && wanted.every((name) => version(installed, name) === version(lock, name));
  if (!isCurrent) {
    console.log("installing the packages of bench/peers");
    const { status } = spawnSync("npm", ["ci", "--prefix", folder, "--no-audit", "--no-fund"], {
      stdio: "inherit",
      shell: process.platform === "win32",
    });
    if (status !== 0) console.error("bench: they could not be installed; their sides will be absent.");
  }
  return Object.fromEntries(wanted.map((name) => [name, version(lock, name) ?? null]));
}

/** The first Python that has numpy, or null. */
function findPython() {
  const asked = options.python ?? process.env.BENCH_PYTHON;
  const candidates = asked === undefined ? ["/usr/bin/python3", "python3"] : [asked];
  return candidates.find((path) => outputOf(path, ["-c", "import numpy"]) !== null) ?? null;
}

const VERSIONS = `
import sys, numpy
print("Python", sys.version.split()[0] + ", numpy", numpy.__version__, end="")
try:
    import torch; print(", torch", torch.__version__, end="")
except ImportError: pass`;

/** Compiles peers/native.c; null where there is no compiler or no OpenBLAS. */
function compile(folder) {
  const program = join(folder, "native");
  const flags = ["-O3", "-march=native", "-ffast-math", join(here, "peers/native.c"), "-o", program];
  return outputOf("gcc", [...flags, "-lopenblas", "-lm"]) === null ? null : program;
}

/** tfjs.mjs with the modules it needs, as one file; the file itself, which will say what is missing, where they are. */
async function bundleTensorflow(folder) {
  // what the loader of its Wasm expects of Node
  const commonJs = `import { createRequire } from "node:module";
    const require = createRequire(import.meta.url), __dirname = import.meta.dirname ?? ".";`;
  const outfile = join(folder, "tfjs.mjs");
  const made = build({
    ...{ entryPoints: [join(here, "peers/tfjs.mjs")], outfile, bundle: true, format: "esm" },
    ...{ platform: "node", mainFields: ["module", "main"], logLevel: "silent", banner: { js: commonJs } },
  });
  return made.then(
    () => pathToFileURL(outfile).href,
    () => peerModule("tfjs"),
  );
}

await runSuite("peers", jobs, options, async (chosen) => {
  const packages = installPackages();
  const folder = mkdtempSync(join(tmpdir(), "noetherflow-peers-"));
  const interpreter = findPython();
  const native = compile(folder);
  const tfjs = await bundleTensorflow(folder);
  const wasm = join(here, "peers/node_modules/@tensorflow/tfjs-backend-wasm/dist/");
  const moduleOf = (id) => (programs[id][0] === "tfjs" ? tfjs : peerModule(programs[id][0]));
  const env = { OPENBLAS_NUM_THREADS: "1", OMP_NUM_THREADS: "1" };
  const hostsOf = (job) => {
    const { inputs } = hosted.find((each) => each.job.name === job.name).module;
    const data = writeInputs(join(folder, job.name), inputs(job));
    const sizes = Object.entries(job.params).map(([name, value]) => `${name}=${value}`);
    const words = [data, job.family, job.dtype, ...sizes];
    const node = (module, context) => ({
      command: [process.execPath, host, JSON.stringify({ module, job, context })],
    });
    const hosts = { ours: node(job.module, { prototypes: null }) };
    for (const { id, kind } of job.sides)
      if (kind === "peer") hosts[id] = node(moduleOf(id), { folder: data, wasm });
    if (interpreter !== null)
      hosts.python = { command: [interpreter, join(here, "peers/peers.py"), ...words], env };
    if (native !== null) hosts.c = { command: [native, ...words], env };
    return hosts;
  };
  const missing = {
    python: "no Python with numpy: apt-get install python3-numpy python3-torch libopenblas-dev",
    c: "gcc and OpenBLAS are needed: apt-get install gcc libopenblas-dev",
  };
  const compiler = outputOf("gcc", ["--version"])?.split("\n")[0] ?? null;
  return {
    jobs: chosen.map((job) => ({ ...job, hosts: hostsOf(job), missing })),
    more: {
      packages,
      python: interpreter === null ? null : outputOf(interpreter, ["-c", VERSIONS]),
      compiler: native === null ? null : compiler,
      openblas: outputOf("dpkg-query", ["-W", "libopenblas0-pthread"])?.split("\t")[1] ?? null,
    },
    finish: () => rmSync(folder, { recursive: true, force: true }),
  };
});

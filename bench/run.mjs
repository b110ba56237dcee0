// `npm run bench`: how fast noetherflow is by itself, beside the Wasm peak and hand-built prototypes. See bench/README.md.
import { existsSync } from "node:fs";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { refreshLibrary } from "../tools/build.mjs";
import { optionsOf, runSuite, stop } from "./options.mjs";
import { prototypeHashes } from "./prototypes.mjs";

const options = optionsOf(
  "bench",
  { prototypes: { type: "string" } },
  "  --prototypes DIR    compare with the hand-built prototypes: DIR/as/jobs2.wasm and DIR/as/jobs2_r.wasm\n",
);
const prototypes = options.prototypes === undefined ? null : resolve(options.prototypes);
for (const file of prototypes === null ? [] : ["as/jobs2.wasm", "as/jobs2_r.wasm"])
  if (!existsSync(join(prototypes, file))) stop(`--prototypes: ${join(prototypes, file)} does not exist.`);

// the families read the library, which must be there
refreshLibrary();
const families = [
  ...["sgd", "noise", "curvature", "sde", "ensemble", "normals"],
  ...["products", "scaling", "workers", "experiments", "start"],
];
const modules = await Promise.all(families.map((family) => import(`./jobs/${family}.mjs`)));
const { measureSizes } = modules.at(-1);
const host = fileURLToPath(new URL("host.mjs", import.meta.url));

await runSuite(
  "bench",
  modules.flatMap(({ jobs }) => jobs),
  options,
  async (chosen) => {
    const jobs = chosen.map((job) => {
      const argument = JSON.stringify({ module: job.module, job, context: { prototypes } });
      return { ...job, hosts: { ours: { command: [process.execPath, host, argument] } } };
    });
    const more = { prototypes: prototypes === null ? null : prototypeHashes(prototypes) };
    if (chosen.some(({ family }) => family === "start")) more.sizes = await measureSizes();
    return { jobs, more };
  },
);

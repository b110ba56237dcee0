// The worker of a checkout, which runs the sources as they are; the build puts dist/parallel-worker.js in its place.
import { createJiti } from "jiti";

await createJiti(import.meta.url).import("./parallel/worker.ts");

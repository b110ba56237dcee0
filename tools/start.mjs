// `npm start`: builds what is missing or stale, then reproduces the experiments. Arguments are passed through.
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { refreshLibrary, root } from "./build.mjs";

refreshLibrary();
const { status, signal } = spawnSync(
  process.execPath,
  [join(root, "dist/cli.js"), "reproduce", ...process.argv.slice(2)],
  {
    stdio: "inherit",
  },
);
if (signal) process.kill(process.pid, signal);
process.exitCode = status ?? 1;

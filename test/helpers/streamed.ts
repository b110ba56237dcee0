import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";

/** What test/helpers/streamed-run.ts prints. */
export interface StreamedRun {
  /** Of the whole set, and of all that was read. */
  readonly bytes: number;
  readonly read: number;
  readonly planned: { readonly wasm: number; readonly host: number };
  /** Wasm memory at the end, all of it. */
  readonly wasm: number;
  /** Of the process: before, at its peak, and the difference. */
  readonly rss: { readonly before: number; readonly peak: number; readonly growth: number };
  readonly numbers: Readonly<Record<string, number | string>>;
  readonly ms: Readonly<Record<string, number>>;
}

/** Measures and trains on so many MiB in a process of its own. */
export function streamedRun(mebibytes: number): Promise<StreamedRun> {
  const root = fileURLToPath(new URL("../..", import.meta.url));
  const program = ["node_modules/jiti/lib/jiti-cli.mjs", "test/helpers/streamed-run.ts", String(mebibytes)];
  return new Promise((resolve, reject) => {
    execFile(process.execPath, ["--expose-gc", ...program], { cwd: root }, (error, out, err) => {
      if (error === null) resolve(JSON.parse(out) as StreamedRun);
      else reject(new Error(`${error.message}\n${err}`));
    });
  });
}

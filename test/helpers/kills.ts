/** Ends processes that record a run, at random times, by SIGKILL, and lets others go on. */
import { spawn } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, watch } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "vite";
import { readRun } from "../../src/records/records.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));

export interface Kills {
  /** Processes ended before they were through. */
  readonly kills: number;
  /** Of these: before the run had begun to step, and while a file was being written, by its name. */
  readonly early: number;
  readonly writing: Readonly<Record<string, number>>;
  /** Of these: with the outcome on disk already. */
  readonly late: number;
  /** Hash of every run that came to its end. */
  readonly hashes: readonly string[];
}

/**
 * Makes `count` kills, over as many runs as that takes, each in a folder of its own and brought to its end.
 *
 * @param report is told after every kill
 */
export async function killRuns(count: number, report: (kills: number) => void = () => {}): Promise<Kills> {
  const folder = mkdtempSync(join(root, "build/kills-"));
  try {
    // one file of JavaScript, so that a process starts in a tenth of a second
    await build({
      configFile: false,
      logLevel: "error",
      root,
      build: {
        ssr: join(root, "test/helpers/killed-run.ts"),
        outDir: folder,
        target: "node20",
        rollupOptions: { output: { entryFileNames: "killed-run.mjs" } },
      },
    });
    const program = join(folder, "killed-run.mjs");
    const writing: Record<string, number> = {};
    const hashes: string[] = [];
    // a process that ends before it has swept its folder leaves what another one left
    const seen = new Set<string>();
    let [kills, early, late, runs] = [0, 0, 0, 0];
    while (kills < count || hashes.length < runs) {
      if (hashes.length === runs) runs++;
      const dir = join(folder, `run-${runs}`);
      const end = await runUntil(program, dir, kills < count);
      if (end.hash !== null) {
        hashes.push(end.hash);
        rmSync(dir, { recursive: true });
        continue;
      }
      kills++;
      if (!end.hasBegun) early++;
      const parts = readdirSync(dir).filter((name) => name.endsWith(".part") && !seen.has(name));
      for (const part of parts) {
        seen.add(part);
        const file = part.replace(/\.\d+-[0-9a-f]+\.part$/, "");
        writing[file] = (writing[file] ?? 0) + 1;
      }
      // whatever is there can be read
      if (existsSync(join(dir, "run.json")) && (await readRun(dir)).run !== null) late++;
      report(kills);
    }
    return { kills, early, late, writing, hashes };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Runs the program to its end, or to a random time before. */
function runUntil(
  program: string,
  dir: string,
  kill: boolean,
): Promise<{ hash: string | null; hasBegun: boolean }> {
  return new Promise((resolve, reject) => {
    mkdirSync(dir, { recursive: true });
    const child = spawn(process.execPath, [program, dir], { stdio: ["ignore", "pipe", "pipe"] });
    let [said, complaint] = ["", ""];
    const end = () => child.kill("SIGKILL");
    const timers: NodeJS.Timeout[] = [];
    // a fifth at any time from the start, half at any time of the run, the others as a temporary file is seen
    const way = kill ? Math.random() : 1;
    if (way < 0.2) timers.push(setTimeout(end, 300 * Math.random()));
    let sightings = Math.ceil(12 * Math.random());
    const watcher = kill && way >= 0.7 ? watch(dir) : undefined;
    watcher?.on("change", (_, name) => {
      if (String(name).endsWith(".part") && --sightings === 0) end();
    });
    child.stdout.on("data", (text: Buffer) => {
      if (said === "" && way >= 0.2 && way < 0.7) timers.push(setTimeout(end, 600 * Math.random()));
      said += text;
    });
    child.stderr.on("data", (text: Buffer) => {
      complaint += text;
    });
    child.on("error", reject);
    child.on("close", (code, signal) => {
      watcher?.close();
      for (const timer of timers) clearTimeout(timer);
      const hash = /[0-9a-f]{64}/.exec(said)?.[0] ?? null;
      if (signal === "SIGKILL") resolve({ hash: null, hasBegun: said !== "" });
      else if (code === 0) resolve({ hash, hasBegun: true });
      else reject(new Error(`the recording process failed with ${code ?? signal}: ${complaint}`));
    });
  });
}

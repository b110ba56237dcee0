/** The command, called in this process, in a folder of its own. */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { type Host, run } from "../../src/cli/program.ts";
import { sha256 } from "../../src/records/files.ts";

export interface Answer {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

export interface CallOptions {
  readonly signal?: AbortSignal;
  /** Whether a person watches; a pipe when absent. */
  readonly isTerminal?: boolean;
}

/** A folder for calls of the command. The process is in it while one is under way. */
export class Workplace {
  readonly dir = mkdtempSync(join(tmpdir(), "noetherflow-command-"));

  async call(args: readonly string[], options: CallOptions = {}): Promise<Answer> {
    const said = { out: "", err: "" };
    const host: Host = {
      terminal: {
        out: (text) => {
          said.out += text;
        },
        err: (text) => {
          said.err += text;
        },
        isTerminal: options.isTerminal ?? false,
        columns: () => 100,
      },
      signal: options.signal ?? new AbortController().signal,
      thread: new URL("../../dist/reproduce-worker.js", import.meta.url),
      library: new URL("../../src/index.ts", import.meta.url),
    };
    const home = process.cwd();
    process.chdir(this.dir);
    try {
      return { code: await run(args, host), ...said };
    } finally {
      process.chdir(home);
    }
  }

  write(name: string, content: string | Uint8Array): string {
    const path = join(this.dir, name);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, content);
    return name;
  }

  read(name: string): Buffer {
    return readFileSync(join(this.dir, name));
  }

  remove(name: string): void {
    rmSync(join(this.dir, name), { recursive: true, force: true });
  }

  /** Every file with the hash of what it holds. */
  state(): Readonly<Record<string, string>> {
    const files = readdirSync(this.dir, { recursive: true, encoding: "utf8" }).sort();
    return Object.fromEntries(
      files.map((name) => {
        const path = join(this.dir, name);
        return [name, statSync(path).isDirectory() ? "folder" : sha256(readFileSync(path))];
      }),
    );
  }

  dispose(): void {
    rmSync(this.dir, { recursive: true, force: true });
  }
}

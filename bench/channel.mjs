// A process that measures, on the other end of two pipes: a line of words goes in, a line of JSON comes out.
//
//   prepare SIDE       {}, or { absent: why } where the side cannot be
//   check SIDE         { values, ... }: what the side computes in a few steps, to compare with the others
//   run SIDE COUNT     { ms, cpuMs, checksum, ... }: COUNT repetitions, by the clock and by the CPU time of the process
//
// An answer { error: why } is a failure. Programs in JavaScript (host.mjs), Python and C speak it alike, so that all take turns
// in the same rounds.
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { root } from "../tools/build.mjs";

const TIMEOUT_MS = 120_000;

export class Channel {
  #child;
  #name;
  #lines;
  #errors = "";

  /**
   * @param command program and arguments
   * @param core    the core it may use, or null for any
   */
  constructor(name, command, core, env = {}) {
    const [program, ...args] = core === null ? command : ["taskset", "-c", String(core), ...command];
    this.#name = name;
    this.#child = spawn(program, args, { cwd: root, env: { ...process.env, ...env } });
    this.#child.stderr.on("data", (text) => {
      this.#errors = `${this.#errors}${text}`.slice(-4000);
    });
    // a program that has ended shows by its missing answer
    this.#child.stdin.on("error", () => {});
    this.#child.on("error", (error) => {
      this.#errors += error.message;
    });
    this.#lines = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]();
  }

  async ask(...words) {
    this.#child.stdin.write(`${words.join(" ")}\n`);
    const late = setTimeout(() => this.#child.kill("SIGKILL"), TIMEOUT_MS);
    try {
      for (;;) {
        const { value, done } = await this.#lines.next();
        if (done) throw new Error(`${this.#name}: no answer to "${words.join(" ")}"\n${this.#errors.trim()}`);
        // libraries may print lines of their own
        if (!value.startsWith("{")) continue;
        const answer = JSON.parse(value);
        if (answer.error !== undefined) throw new Error(`${this.#name}: ${answer.error}`);
        return answer;
      }
    } finally {
      clearTimeout(late);
    }
  }

  close() {
    this.#child.stdin.end();
    this.#child.kill();
  }
}

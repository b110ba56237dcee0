// Programs that the matrix starts, in the environment of a stranger, and their end.
import { spawn } from "node:child_process";
import { delimiter, dirname } from "node:path";

const running = new Set();

/** The environment without what `npm run` adds to it, so that nothing of the checkout is found by name. */
function strangerEnvironment(node) {
  const env = Object.fromEntries(
    Object.entries(process.env).filter(
      ([name]) =>
        !/^(npm_(package|lifecycle|command|config_(call|package|local_prefix))|INIT_CWD|NODE_(PATH|OPTIONS))/.test(
          name,
        ),
    ),
  );
  const path = (process.env.PATH ?? "")
    .split(delimiter)
    .filter((part) => !/node_modules|node-gyp-bin/.test(part));
  return { ...env, PATH: [dirname(node), ...path].join(delimiter), NO_COLOR: "1" };
}

/**
 * Runs a program to its end and returns what it printed; throws with all it said if it fails or takes too long.
 *
 * @param node the Node that it finds by name, this process's own when absent
 */
export function run(command, args, { cwd, node = process.execPath, seconds = 120 }) {
  return new Promise((resolve, reject) => {
    // a process group of its own, so that what it started ends with it
    const options = {
      cwd,
      env: strangerEnvironment(node),
      detached: true,
      stdio: ["ignore", "pipe", "pipe"],
    };
    const child = spawn(command, args, options);
    running.add(child);
    const said = { stdout: "", stderr: "" };
    for (const stream of ["stdout", "stderr"]) {
      child[stream].setEncoding("utf8");
      child[stream].on("data", (text) => {
        said[stream] += text;
      });
    }
    const timer = setTimeout(() => end(child), seconds * 1000);
    const settle = (failure) => {
      clearTimeout(timer);
      running.delete(child);
      if (failure === undefined) resolve(said);
      else
        reject(new Error(`${[command, ...args].join(" ")}: ${failure}\n${said.stdout}${said.stderr}`.trim()));
    };
    child.on("error", (error) => settle(error.message));
    child.on("close", (code, signal) => {
      if (code === 0) settle();
      else settle(signal === null ? `exit code ${code}` : `ended by ${signal}, after ${seconds} s at most`);
    });
  });
}

function end(child) {
  try {
    process.kill(-child.pid, "SIGKILL");
  } catch {
    // it has ended by itself
  }
}

/** Ends every program that is still running. */
export function endAll() {
  for (const child of running) end(child);
}

// The machine, the versions and the library that a record is about; the quietest core; the peak's Wasm.
import { execFileSync, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync } from "node:fs";
import { cpus, loadavg, platform, release, totalmem } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { root } from "../tools/build.mjs";

export const here = fileURLToPath(new URL(".", import.meta.url));
export const nodeMajor = Number(process.versions.node.split(".")[0]);

/** What a program prints, or null if it cannot be run. */
export function outputOf(program, args) {
  const { status, stdout } = spawnSync(program, args, { cwd: root, encoding: "utf8" });
  return status === 0 ? stdout.trim() : null;
}

const canPin = platform() === "linux" && outputOf("taskset", ["-p", String(process.pid)]) !== null;

/** Ticks that each core has been idle, and all ticks, from Linux. */
function coreTicks() {
  return new Map(
    [...readFileSync("/proc/stat", "utf8").matchAll(/^cpu(\d+) (.*)$/gm)].map((match) => {
      const ticks = match[2].trim().split(/\s+/).map(Number);
      return [Number(match[1]), { idle: ticks[3], all: ticks.slice(0, 8).reduce((a, b) => a + b) }];
    }),
  );
}

/** Of the cores that this process may use, the one that was idle most in the last moments; null where it cannot be pinned. */
export function idlestCore() {
  if (!canPin) return null;
  const allowed = /^Cpus_allowed_list:\s*(.*)$/m.exec(readFileSync("/proc/self/status", "utf8"))[1];
  const cores = allowed.split(",").flatMap((range) => {
    const [first, last = first] = range.split("-").map(Number);
    return Array.from({ length: last - first + 1 }, (_, i) => first + i);
  });
  const before = coreTicks();
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 200);
  const after = coreTicks();
  const idle = (core) =>
    (after.get(core).idle - before.get(core).idle) / Math.max(1, after.get(core).all - before.get(core).all);
  return cores.reduce((best, core) => (idle(core) >= idle(best) ? core : best), cores[0]);
}

/** Compiles peak.ts, without and with fused multiply-add, where that is missing or older than its source. */
export function refreshPeak() {
  const source = join(here, "peak.ts");
  mkdirSync(join(root, "build"), { recursive: true });
  for (const [variant, features] of [
    ["simd", ["simd"]],
    ["fma", ["simd", "relaxed-simd"]],
  ]) {
    const target = join(root, `build/bench-peak-${variant}.wasm`);
    if (existsSync(target) && statSync(target).mtimeMs > statSync(source).mtimeMs) continue;
    const asc = join(root, "node_modules/assemblyscript/bin/asc.js");
    // the base folder keeps asc from reading the asconfig.json of the core
    const flags = ["--baseDir", here, "--runtime", "stub", "--noAssert", "-O3", "--initialMemory", "1"];
    const enable = features.flatMap((feature) => ["--enable", feature]);
    execFileSync(process.execPath, [asc, "peak.ts", ...flags, ...enable, "--outFile", target], {
      stdio: "inherit",
    });
  }
}

/** One text for the library under test, to notice a rebuild under way. */
export function libraryHash() {
  const hash = createHash("sha256");
  for (const file of readdirSync(join(root, "dist"), { recursive: true }).sort()) {
    if (/\.(js|wasm)$/.test(file)) hash.update(readFileSync(join(root, "dist", file)));
  }
  return hash.digest("hex");
}

/** Hardware, system and Node. */
export function describeMachine() {
  const [{ model, speed }] = cpus();
  return {
    cpu: model.trim(),
    mhz: speed,
    cores: cpus().length,
    memoryGiB: Number((totalmem() / 2 ** 30).toFixed(1)),
    os: `${platform()} ${release()}`,
    node: process.versions.node,
    v8: process.versions.v8,
    pinned: canPin,
    load: loadavg(),
  };
}

/** Which source the library was built from. */
export function describeSource() {
  return {
    commit: outputOf("git", ["rev-parse", "HEAD"]),
    modified: outputOf("git", ["status", "--porcelain", "--", "src", "assembly"]) !== "",
    library: libraryHash(),
  };
}

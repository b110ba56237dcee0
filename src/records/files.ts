/** Files that are there whole or not at all, whenever the process ends. */
import { createHash, randomBytes } from "node:crypto";
import { access, type FileHandle, link, open, readdir, rename, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fail } from "../errors.ts";

/** What a temporary file is called: the file, the process that writes it, and a word of its own. */
const PART = /^(.+)\.(\d+)-[0-9a-f]{8}\.part$/;
/** Temporary files this process is writing now. */
const writing = new Set<string>();

/** Whether something is at a path. */
export const exists = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false,
  );

/** Bytes at once, or a function that writes them to a path. */
export type Content = Uint8Array | string | ((path: string) => void | Promise<void>);

/**
 * Writes a file by way of a temporary one beside it: written, synced to the disk, renamed, the folder synced. A crash at any
 * time leaves the old file or the new one, and perhaps a temporary one, which `sweepParts` takes away.
 *
 * @param exclusive refuse to replace a file that is there, also one that appears meanwhile
 * @throws NoetherflowError "unsupported" for a file that is there; errors of the file system as they are
 */
export async function writeWhole(path: string, content: Content, exclusive = false): Promise<void> {
  const part = `${path}.${process.pid}-${randomBytes(4).toString("hex")}.part`;
  writing.add(part);
  let handle: FileHandle | undefined;
  try {
    if (typeof content === "function") {
      await content(part);
      handle = await open(part, "r+");
    } else {
      handle = await open(part, "wx");
      await handle.writeFile(content);
    }
    await handle.sync();
    await handle.close();
    handle = undefined;
    if (exclusive) await publish(part, path);
    else await rename(part, path);
  } catch (error) {
    await handle?.close().catch(() => {});
    await rm(part, { force: true });
    throw error;
  } finally {
    writing.delete(part);
  }
  await syncFolder(dirname(path));
}

/** Renames, unless there is a file of that name. */
async function publish(part: string, path: string): Promise<void> {
  try {
    // a second name for the same file, made only where that name is free
    await link(part, path);
    await rm(part);
  } catch (error) {
    const isThere = await exists(path);
    if (isThere)
      fail("unsupported", path, "a file that is not there yet", "one that is", "Pass overwrite: true.");
    // a file system without second names
    if (!["EPERM", "ENOTSUP", "EOPNOTSUPP", "ENOSYS"].includes((error as NodeJS.ErrnoException).code ?? ""))
      throw error;
    await rename(part, path);
  }
}

/** Makes renames in a folder last; where folders cannot be synced (Windows), the system does so in its own time. */
export async function syncFolder(folder: string): Promise<void> {
  let handle: FileHandle | undefined;
  try {
    handle = await open(folder, "r");
    await handle.sync();
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== "EISDIR" && code !== "EPERM" && code !== "EACCES" && code !== "EINVAL") throw error;
  } finally {
    await handle?.close();
  }
}

/** Temporary files in a folder, each with the file it was to become. */
export async function partsIn(folder: string): Promise<{ readonly path: string; readonly of: string }[]> {
  return (await readdir(folder)).flatMap((name) => {
    const of = PART.exec(name)?.[1];
    return of === undefined ? [] : [{ path: join(folder, name), of }];
  });
}

/** Takes away temporary files of these names that processes have left which are no more. */
export async function sweepParts(folder: string, names: readonly string[]): Promise<void> {
  for (const { path, of } of await partsIn(folder)) {
    const pid = Number(PART.exec(path)![2]);
    const isWritten = pid === process.pid ? writing.has(path) : isAlive(pid);
    if (names.includes(of) && !isWritten) await rm(path, { force: true });
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

/** sha256 of some bytes, in hex. */
export function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/**
 * Files and folders that appear whole or not at all: written under a temporary name beside the target, flushed to the disk,
 * then renamed. A reader never sees half a checkpoint, whatever kills the writer.
 */
import { promises as fs } from 'node:fs';
import { hostname } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import { MaeError, fileError } from '../errors';
import { makeFolder } from './makeFolder';

/** What a file is written from; an iterable is written chunk by chunk, so files larger than memory are fine. */
export type FileContent = string | Uint8Array | Iterable<Uint8Array> | AsyncIterable<Uint8Array>;

/**
 * Writes a file atomically, replacing one that exists. Parent folders are made.
 *
 * @throws MaeError MAE_FILE when the system refuses or the name is a device's or a pipe's; whatever `content` throws passes through. In both cases the temporary file is
 * removed and the old file is untouched.
 */
export async function writeFileAtomic(path: string, content: FileContent): Promise<void> {
  const target = resolve(path);
  const temporary = besideName(target, 'tmp');
  try {
    await requireOrdinary(target);
    await prepareFolder(dirname(target));
    const file = await fs.open(temporary, 'wx');
    try {
      for await (const chunk of chunksOf(content)) await writeAll(file, chunk);
      await file.sync();
    } finally {
      await file.close();
    }
    await fs.rename(temporary, target);
    await syncFolder(dirname(target));
  } catch (error) {
    await fs.rm(temporary, { force: true }).catch(() => {});
    throw asFileError('write', target, error);
  }
}

/**
 * Makes a folder atomically: `fill` writes into an empty temporary folder, every file in it is flushed, then it takes its name.
 * A folder that already has the name is moved aside first and removed afterwards; if the machine stops between the two renames, the
 * next call of this module in the same parent folder moves it back.
 *
 * @param fill  writes the contents; gets the temporary folder's path
 * @throws MaeError MAE_FILE when the system refuses; whatever `fill` throws passes through. In both cases the temporary folder is
 * removed and an existing folder keeps its name and contents.
 */
export async function writeFolderAtomic(path: string, fill: (temporary: string) => void | Promise<void>): Promise<void> {
  const target = resolve(path);
  const temporary = besideName(target, 'tmp');
  try {
    await prepareFolder(dirname(target));
    await fs.mkdir(temporary);
    await fill(temporary);
    await syncTree(temporary);
    await replaceFolder(temporary, target);
    await syncFolder(dirname(target));
  } catch (error) {
    await fs.rm(temporary, { recursive: true, force: true }).catch(() => {});
    throw asFileError('write', target, error);
  }
}

/**
 * Clears what interrupted writers left in a folder: removes their temporaries, and moves a folder that was moved aside back when
 * its name is free. Both writers call it on the folder they write into. Temporaries of living processes are left alone.
 */
export async function removeStaleTemporaries(folder: string): Promise<void> {
  for (const name of await fs.readdir(folder)) {
    const found = besidePattern.exec(name);
    if (!found) continue;
    const [, target, kind, pid, host] = found;
    const path = join(folder, name);
    if (!(await isStale(path, Number(pid), host))) continue;
    const restored = kind === 'old' && !(await exists(join(folder, target)));
    if (restored) await fs.rename(path, join(folder, target));
    else await fs.rm(path, { recursive: true, force: true });
  }
}

// `.<name>.<kind>-<pid>-<number>@<host>`: the leading dot hides it, the rest says who is writing.
const besidePattern = /^\.(.+)\.(tmp|old)-(\d+)-\d+@(.+)$/;
const thisHost = hostname().replace(/[^\w.-]/g, '_') || 'localhost';
let nextNumber = 0;

function besideName(target: string, kind: 'tmp' | 'old'): string {
  return join(dirname(target), `.${basename(target)}.${kind}-${process.pid}-${nextNumber++}@${thisHost}`);
}

// Shared folders hold temporaries of other machines, whose processes cannot be asked: those are stale after a day.
async function isStale(path: string, pid: number, host: string): Promise<boolean> {
  const stat = await fs.stat(path).catch(() => undefined);
  if (!stat) return false; // its writer has just renamed it
  if (host !== thisHost) return Date.now() - stat.mtimeMs > 24 * 3600 * 1000;
  // In a container every run may have the same process id: older than this process means left by a former one.
  if (pid === process.pid) return stat.mtimeMs < Date.now() - process.uptime() * 1000;
  try {
    process.kill(pid, 0);
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ESRCH';
  }
}

// A rename would put a file in the place of /dev/null: the system allows it to root.
async function requireOrdinary(target: string): Promise<void> {
  const there = await fs.stat(target).catch(() => undefined);
  if (!there || there.isFile()) return;
  if (there.isDirectory()) throw fileError('write', target, { code: 'EISDIR' });
  throw new MaeError('MAE_FILE', `could not write ${target}: it is a device, a pipe or a socket, a name for a new file is needed`);
}

async function prepareFolder(folder: string): Promise<void> {
  makeFolder(folder);
  await removeStaleTemporaries(folder);
}

async function replaceFolder(temporary: string, target: string): Promise<void> {
  try {
    return await fs.rename(temporary, target);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'ENOTEMPTY' && code !== 'EEXIST' && code !== 'EPERM') throw error;
  }
  const aside = besideName(target, 'old');
  await fs.rename(target, aside);
  try {
    await fs.rename(temporary, target);
  } catch (error) {
    await fs.rename(aside, target);
    throw error;
  }
  await fs.rm(aside, { recursive: true, force: true });
}

async function syncTree(folder: string): Promise<void> {
  for (const entry of await fs.readdir(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) await syncTree(path);
    else if (entry.isFile()) await syncPath(path);
  }
  await syncFolder(folder);
}

// A rename is on the disk only when its folder is. Windows cannot open folders and orders renames itself.
async function syncFolder(folder: string): Promise<void> {
  if (process.platform !== 'win32') await syncPath(folder);
}

async function syncPath(path: string): Promise<void> {
  const handle = await fs.open(path, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

async function exists(path: string): Promise<boolean> {
  return fs.access(path).then(
    () => true,
    () => false,
  );
}

function chunksOf(content: FileContent): Iterable<Uint8Array> | AsyncIterable<Uint8Array> {
  if (typeof content === 'string') return [Buffer.from(content)];
  return ArrayBuffer.isView(content) ? [content] : content;
}

// One write(2) takes at most 2 GiB and may take less than it is given.
async function writeAll(file: fs.FileHandle, chunk: Uint8Array): Promise<void> {
  const most = 64 * 2 ** 20;
  for (let offset = 0; offset < chunk.byteLength;) {
    const { bytesWritten } = await file.write(chunk, offset, Math.min(most, chunk.byteLength - offset));
    offset += bytesWritten;
  }
}

// Only the system's own errors are reworded: a defect in `content` or `fill` must keep its stack and its words.
function asFileError(action: string, path: string, error: unknown): unknown {
  const fromSystem = !(error instanceof MaeError) && (error as NodeJS.ErrnoException)?.syscall !== undefined;
  return fromSystem ? fileError(action, path, error) : error;
}

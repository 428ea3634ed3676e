/** Folders, made with all that are above them. */
import { mkdirSync, statSync } from 'node:fs';
import { dirname, resolve } from 'node:path';

const isFolder = (place: string): boolean => Boolean(statSync(place, { throwIfNoEntry: false })?.isDirectory());

/**
 * mkdir -p. Node's own never returns where the system says "no such file" of a folder whose parent is there, as Linux does below /proc.
 * @throws the system's error
 */
export function makeFolder(folder: string): void {
  const target = resolve(folder);
  if (isFolder(target)) return;
  if (dirname(target) !== target) makeFolder(dirname(target));
  try {
    mkdirSync(target);
  } catch (error) {
    if (!isFolder(target)) throw error; // else another process was faster
  }
}

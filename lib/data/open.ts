/** A path, as a user gives it, to a data set. */
import fs from 'node:fs';
import { MaeError } from '../errors';
import type { Dataset } from './dataset';
import { ImageFolder } from './folder';
import type { ImageFolderOptions } from './folder';
import { PackedDataset } from './packed';

/**
 * Opens a folder of pictures or a packed data set.
 * @param source  path of a folder or of a .maepack file; a data set is returned as it is
 * @param options  for folders
 * @throws MaeError MAE_DATA, MAE_FILE or MAE_FORMAT, saying what was looked for
 */
export function openDataset(source: string | Dataset, options: ImageFolderOptions = {}): Dataset {
  if (typeof source !== 'string') {
    if (typeof source?.fetch === 'function') return source;
    throw new MaeError('MAE_ARGUMENT', `openDataset: needs a folder, a .maepack file or a Dataset, got ${String(source)}`);
  }
  if (!fs.statSync(source, { throwIfNoEntry: false })?.isFile()) return new ImageFolder(source, options);
  if (source.endsWith('.maepack') || PackedDataset.recognises(source)) return new PackedDataset(source);
  throw new MaeError(
    'MAE_DATA',
    `${source} is neither a folder of pictures nor a packed data set (a .maepack file, written by \`mae pack\`)`,
  );
}

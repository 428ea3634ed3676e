/** Every failure that a user can cause or meet is a `MaeError`: what was called, what it needs, what it got, what to do. */

/** Stable, machine-readable reasons. */
export type MaeErrorCode =
  | 'MAE_ARGUMENT' // an option or argument of the wrong type or value
  | 'MAE_SHAPE' // tensors whose shapes do not go together
  | 'MAE_GRAPH' // a model graph that cannot be differentiated or run
  | 'MAE_DISPOSED' // use after dispose()
  | 'MAE_BUSY' // the object is already running something
  | 'MAE_MEMORY' // not enough memory on the device or the host
  | 'MAE_NOT_BUILT' // the native addon is absent or does not load
  | 'MAE_NO_CUDA' // CUDA was asked for and is not available
  | 'MAE_CUDA' // a CUDA call failed
  | 'MAE_NON_FINITE' // loss or gradient norm is not finite
  | 'MAE_DATA' // pictures: missing, empty or broken
  | 'MAE_FILE' // reading or writing a file failed
  | 'MAE_FORMAT' // a file is not what its name says, or is damaged
  | 'MAE_CHECKPOINT' // a checkpoint does not fit this model or run
  | 'MAE_CONFIG' // a configuration file or flag is wrong
  | 'MAE_INTERRUPTED' // stopped by the user
  | 'MAE_INTERNAL'; // a defect of this library

export class MaeError extends Error {
  readonly code: MaeErrorCode;

  /**
   * @param code  the reason, stable across versions
   * @param message  what was called, what it needs, what it got, what to do
   */
  constructor(code: MaeErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = 'MaeError';
    this.code = code;
  }
}

/** The system's own word for a failed file operation, with the path; for `catch (e) { throw fileError('write', path, e) }`. */
export function fileError(action: string, path: string, cause: unknown): MaeError {
  const { code, message } = cause as NodeJS.ErrnoException;
  const advice: Record<string, string> = {
    ENOSPC: 'the disk is full: free some space and run again',
    EACCES: 'no permission: choose another folder or change its rights',
    EPERM: 'no permission: choose another folder or change its rights',
    EROFS: 'the file system is read-only: choose another folder',
    ENOENT: 'no such file or folder: check the path',
    ENOTDIR: 'a part of the path is a file, not a folder',
    EEXIST: 'a part of the path is a file, not a folder',
    EISDIR: 'this is a folder, a file is needed',
    EMFILE: 'too many open files: raise the limit with `ulimit -n`',
  };
  return new MaeError('MAE_FILE', `could not ${action} ${path}: ${(code && advice[code]) ?? message}`, { cause });
}

import { MaeError } from '../../lib/errors';

/** The MaeError that a call throws or rejects with, as "CODE message"; fails when there is none or it is of another class. */
export async function errorOf(run: () => unknown): Promise<string> {
  try {
    await run();
  } catch (error) {
    if (!(error instanceof MaeError)) throw error;
    return `${error.code} ${error.message}`;
  }
  throw new Error('expected an error, got none');
}

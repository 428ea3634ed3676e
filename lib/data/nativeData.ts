/** The data part of the addon (native/data/binding.cc). */
import { MaeError } from '../errors';
import { native } from '../native';

/**
 * What to take of a picture: the rectangle (top, left, height, width) is cut out, resized as a whole to resizedHeight × resizedWidth, and
 * the window of the output's size at (offsetTop, offsetLeft) of that is taken, mirrored left to right if flip is 1.
 */
export interface Crop {
  sourceHeight: number;
  sourceWidth: number;
  top: number;
  left: number;
  height: number;
  width: number;
  resizedHeight: number;
  resizedWidth: number;
  offsetTop: number;
  offsetLeft: number;
  flip: 0 | 1;
}

interface CropJob {
  /** Crops as rows of 11 int32, in the order of the interface above (native/data/crop.h: `Crop`). */
  crops: Int32Array;
  /** The pixels [sourceHeight, sourceWidth, channels] of each picture, or the file and the offsets where they lie. */
  pictures?: (Uint8Array | Float32Array)[];
  fd?: number;
  offsets?: Float64Array;
  channels: number;
  bytesPerValue: 1 | 4;
  /** [crops, height, width, channels]; not to be touched before the promise is settled. */
  out: Uint8Array | Float32Array;
  height: number;
  width: number;
  /** Threads at work. */
  workers: number;
}

interface NativeData {
  cropBatch(job: CropJob): Promise<void>;
}

const FIELDS = 11;

/** Cuts, resizes and mirrors pictures into a batch, off the JavaScript thread. @throws MaeError MAE_FILE when a record cannot be read */
export async function cropBatch(job: Omit<CropJob, 'crops'>, crops: readonly Crop[]): Promise<void> {
  const fields = new Int32Array(crops.length * FIELDS);
  let at = 0;
  for (const crop of crops) {
    fields[at++] = crop.sourceHeight;
    fields[at++] = crop.sourceWidth;
    fields[at++] = crop.top;
    fields[at++] = crop.left;
    fields[at++] = crop.height;
    fields[at++] = crop.width;
    fields[at++] = crop.resizedHeight;
    fields[at++] = crop.resizedWidth;
    fields[at++] = crop.offsetTop;
    fields[at++] = crop.offsetLeft;
    fields[at++] = crop.flip;
  }
  const addon = native() as unknown as NativeData;
  try {
    await addon.cropBatch({ ...job, crops: fields });
  } catch (error) {
    const code = job.fd === undefined ? 'MAE_INTERNAL' : 'MAE_FILE';
    throw new MaeError(code, `reading pictures for a batch failed: ${(error as Error).message}`, { cause: error });
  }
}

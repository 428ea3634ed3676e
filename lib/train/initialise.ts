/** Starting a run from given weights instead of drawn ones. */
import { MaeError } from '../errors';
import type { WeightsConfig } from '../io/metadata';
import { readWeights } from '../io/weights';
import { describeWeights } from '../io/weightsReport';
import type { MaskedAutoencoder } from '../nn/maskedAutoencoder';

const ENCODER = ['imageSize', 'patchSize', 'inChans', 'embedDim', 'depth', 'numHeads', 'mlpRatio'] as const;
const DECODER = ['decoderEmbedDim', 'decoderDepth', 'decoderNumHeads'] as const;

/**
 * Gives a model the weights of any file or folder that `MaskedAutoencoder.load` takes; those of an encoder alone leave the decoder at its
 * initialisation. Sizes must agree, also where no shape shows it (heads). Masking, target and normalisation are the run's own, and so is
 * LayerNorm's epsilon: Hugging Face's files say 1e-12 of weights that were trained with 1e-6.
 * @returns what to say of it, a line each
 * @throws MaeError MAE_CHECKPOINT when the weights are of another architecture, MAE_FILE, MAE_FORMAT
 */
export function initialiseFrom(place: string, model: MaskedAutoencoder): string[] {
  const { file, tensors, hasDecoder, config } = readWeights(place);
  const inWords = (size: WeightsConfig[(typeof ENCODER)[number]]): string => (typeof size === 'number' ? String(size) : size.join('x'));
  const differences = [...ENCODER, ...(hasDecoder ? DECODER : [])].flatMap((key) => {
    const [theirs, ours] = [config[key], model.config[key]];
    return theirs === undefined || String(theirs) === String(ours) ? [] : `${key} is ${inWords(theirs)} there and ${inWords(ours)} here`;
  });
  if (differences.length > 0) {
    const advice = 'give the run the preset and sizes of the weights, or leave --init-from out';
    throw new MaeError('MAE_CHECKPOINT', `${file} is of another architecture: ${differences.join('; ')}. What to do: ${advice}`);
  }
  const report = model.setWeights(tensors, file);
  return [`starting from the weights in ${file}`, ...describeWeights(report).map((line) => `note: ${line}`)];
}

/** Sizes by name. Base, large and huge are the paper's; the small ones are ViT's usual widths with decoders in proportion. */
import { MaeError } from '../errors';
import type { MaeOptions } from './config';

const paperDecoder = { decoderEmbedDim: 512, decoderDepth: 8, decoderNumHeads: 16 };

const sizes = {
  /** 32-pixel pictures such as CIFAR-10: 64 patches of 4 pixels. */
  'vit-tiny/4': {
    imageSize: 32,
    patchSize: 4,
    embedDim: 192,
    depth: 12,
    numHeads: 3,
    decoderEmbedDim: 96,
    decoderDepth: 2,
    decoderNumHeads: 3,
    normPixLoss: true,
  },
  /** 64-pixel pictures, 64 patches of 8 pixels, in minutes on a CPU: the model of `mae demo`. */
  'vit-micro/8': {
    imageSize: 64,
    patchSize: 8,
    embedDim: 128,
    depth: 4,
    numHeads: 4,
    decoderEmbedDim: 128,
    decoderDepth: 2,
    decoderNumHeads: 4,
  },
  'vit-tiny/16': { patchSize: 16, embedDim: 192, depth: 12, numHeads: 3, decoderEmbedDim: 192, decoderDepth: 4, decoderNumHeads: 6 },
  'vit-small/16': { patchSize: 16, embedDim: 384, depth: 12, numHeads: 6, decoderEmbedDim: 256, decoderDepth: 4, decoderNumHeads: 8 },
  'vit-base/16': { patchSize: 16, embedDim: 768, depth: 12, numHeads: 12, ...paperDecoder },
  'vit-large/16': { patchSize: 16, embedDim: 1024, depth: 24, numHeads: 16, ...paperDecoder },
  'vit-huge/14': { patchSize: 14, embedDim: 1280, depth: 32, numHeads: 16, ...paperDecoder },
} as const satisfies Record<string, MaeOptions>;

/** A name that does not exist is an error in JavaScript too, where `...presets['vit-bse/16']` would add nothing. @throws MaeError MAE_ARGUMENT */
export const presets: typeof sizes = new Proxy(sizes, {
  get(target, name, receiver): unknown {
    if (typeof name === 'string' && name.startsWith('vit') && !(name in target)) {
      throw new MaeError('MAE_ARGUMENT', `presets: there is no '${name}'; there are ${Object.keys(target).join(', ')}`);
    }
    return Reflect.get(target, name, receiver);
  },
});

export type PresetName = keyof typeof presets;

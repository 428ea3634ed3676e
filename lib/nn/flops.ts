/** Model FLOPs in closed form, the reference's way of counting: what MFU and the paper's ratios are made of. */
import { type MaeConfig, numPatches, numVisible, patchDim } from './config';

/** Multiply-adds of one picture's forward pass; norms, GELU, softmax and biases are not counted. */
export interface ForwardMacs {
  readonly encoder: number;
  readonly decoder: number;
  readonly total: number;
}

/** A block on n tokens of width d: (4 + 2·mlpRatio)·n·d² + 2·n²·d; 12·n·d² + 2·n²·d at mlpRatio 4. */
function blockMacs(tokens: number, width: number, mlpRatio: number): number {
  return (4 + 2 * mlpRatio) * tokens * width ** 2 + 2 * tokens ** 2 * width;
}

/** All patches are embedded and all are predicted, as the reference does; 9.781 G in all for ViT-B/16. */
export function forwardMacs(config: MaeConfig): ForwardMacs {
  const patches = numPatches(config);
  const encoded = (config.maskTokensInEncoder ? patches : numVisible(config)) + 1;
  const { embedDim: d, decoderEmbedDim: dd, mlpRatio } = config;
  const encoder = config.depth * blockMacs(encoded, d, mlpRatio) + patches * patchDim(config) * d;
  const decoder = encoded * d * dd + config.decoderDepth * blockMacs(patches + 1, dd, mlpRatio) + (patches + 1) * dd * patchDim(config);
  return { encoder, decoder, total: encoder + decoder };
}

/** FLOPs of one picture's training step: 2 per multiply-add, backward twice the forward. */
export function trainFlops(config: MaeConfig): number {
  return 6 * forwardMacs(config).total;
}

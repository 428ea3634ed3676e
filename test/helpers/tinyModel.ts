/** The smallest model that has everything: 16 patches, 4 of them visible. */
export const tinySizes = {
  imageSize: 16,
  patchSize: 4,
  embedDim: 24,
  depth: 1,
  numHeads: 3,
  decoderEmbedDim: 16,
  decoderDepth: 1,
  decoderNumHeads: 2,
};

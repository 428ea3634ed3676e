/** The public API of node-mae. */
export { MaskedAutoencoder, type ForwardOptions, type ForwardResult, type ModelOptions } from './nn/maskedAutoencoder';
export { type ImageBatch } from './nn/inputs';
export { type StepBatch, type StepResult, TrainStep, type TrainStepOptions } from './nn/trainStep';
export { type MaeConfig, type MaeOptions, IMAGENET_MEAN, IMAGENET_STD } from './nn/config';
export { presets, type PresetName } from './nn/presets';
export { MaeError, type MaeErrorCode } from './errors';
export { devices, type OpenDevice, type Precision } from './graph/device';
export { type HostTensor, type SafetensorsDType, type TensorData } from './io/safetensors';
export { type WeightsConfig } from './io/metadata';
export { type NameStyle } from './io/names';
export { type WeightsReport } from './io/weightsReport';
export { type AdamW, type AdamWOptions } from './optim/adamw';
export * from './optim/schedule';
export { ImageFolder, type ImageFolderOptions } from './data/folder';
export { PackedDataset } from './data/packed';
export { ArrayDataset, type ArrayDatasetOptions } from './data/array';
export { type BrokenPicture, type Dataset, type Picture, type PictureSource, readPicture, type StoredPicture } from './data/dataset';
export { openDataset } from './data/open';
export { type Batch, Loader, type LoaderOptions } from './data/loader';
export { type Augment } from './data/augment';
export { pack, type PackOptions, type PackResult } from './data/pack';
export { type ChannelStatistics, statistics } from './data/statistics';
export { checkData, type CheckOptions, type CheckReport } from './data/check';
export { pretrain, type PretrainCall, type PretrainResult, type StepEvent } from './train/pretrain';
export { type PretrainOptions } from './train/options';
export { recipes, type RecipeName } from './train/recipes';
export { type PictureOptions, reconstructions, reconstructionPicture, validationLoss } from './train/evaluation';
export { forwardMacs, trainFlops } from './nn/flops';
export {
  maskRatioLadder,
  type MaskRatioLadderOptions,
  type Reconstruction,
  reconstructionGrid,
  type ReconstructionGridOptions,
} from './view/reconstruction';
export { type StatisticsSource } from './view/patchStatistics';
export { type ProgressStream } from './view/progress';

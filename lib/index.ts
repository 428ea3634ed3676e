/** The public API of node-mae. */
export { MaskedAutoencoder, type ForwardOptions, type ForwardResult, type ModelOptions } from './nn/maskedAutoencoder';
export { type StepBatch, type StepResult, TrainStep, type TrainStepOptions } from './nn/trainStep';
export { type MaeConfig, type MaeOptions, IMAGENET_MEAN, IMAGENET_STD } from './nn/config';
export { presets, type PresetName } from './nn/presets';
export { MaeError, type MaeErrorCode } from './errors';
export { devices, type Precision } from './graph/device';
export { type AdamWOptions } from './optim/adamw';
export * from './optim/schedule';
export { ImageFolder, type ImageFolderOptions } from './data/folder';
export { PackedDataset } from './data/packed';
export { ArrayDataset, type ArrayDatasetOptions } from './data/array';
export { type Dataset, type Picture, readPicture } from './data/dataset';
export { openDataset } from './data/open';
export { type Batch, Loader, type LoaderOptions } from './data/loader';
export { type Augment } from './data/augment';
export { pack, type PackOptions, type PackResult } from './data/pack';
export { type ChannelStatistics, statistics } from './data/statistics';
export { checkData, type CheckOptions, type CheckReport } from './data/check';

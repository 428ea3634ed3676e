/** The public API of node-mae. */
export { MaskedAutoencoder, type ForwardOptions, type ForwardResult, type ModelOptions } from './nn/maskedAutoencoder';
export { type StepBatch, type StepResult, TrainStep, type TrainStepOptions } from './nn/trainStep';
export { type MaeConfig, type MaeOptions, IMAGENET_MEAN, IMAGENET_STD } from './nn/config';
export { presets, type PresetName } from './nn/presets';
export { MaeError, type MaeErrorCode } from './errors';
export { devices, type Precision } from './graph/device';
export { type AdamWOptions } from './optim/adamw';
export * from './optim/schedule';

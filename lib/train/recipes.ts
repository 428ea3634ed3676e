/** Training settings by name, from the paper and the reference. A flag or a line of the configuration file overrides them. */
export const recipes = {
  /** Paper, Table 8: 800 epochs at an effective batch of 4096. */
  paper: { epochs: 800, warmupEpochs: 40, blr: 1.5e-4, weightDecay: 0.05, batchSize: 64, accumIter: 64, normPixLoss: true },
  /** The same for one small machine: the paper's rates at an effective batch of 256 (the linear rule scales the learning rate). */
  'single-machine': { epochs: 400, warmupEpochs: 20, blr: 1.5e-4, weightDecay: 0.05, batchSize: 64, accumIter: 4, normPixLoss: true },
  /** Small pictures such as CIFAR-10 from scratch: a higher base rate, gentler crops. */
  'small-pictures': {
    epochs: 400,
    warmupEpochs: 20,
    blr: 1.5e-3,
    weightDecay: 0.05,
    batchSize: 128,
    normPixLoss: true,
    scale: [0.4, 1] as [number, number],
  },
};

export type RecipeName = keyof typeof recipes;

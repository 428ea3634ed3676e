// A few training steps, a forward pass and features of a model on random pictures, for tools that watch kernels (compute-sanitizer, ncu):
//   node scripts/gpu-steps.js PRESET [--depth N] [--batch N] [--steps N] [--precision fp32|bf16]
// --depth shortens encoder and decoder; --precision: default both. The device is MAE_DEVICE's.
'use strict';
const { randomFillSync } = require('node:crypto');
const { parseArgs } = require('node:util');
const { MaskedAutoencoder, presets } = require('../dist');

async function main() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      depth: { type: 'string' },
      batch: { type: 'string', default: '4' },
      steps: { type: 'string', default: '2' },
      precision: { type: 'string' },
    },
  });
  const [preset] = positionals;
  const depths = values.depth ? { depth: Number(values.depth), decoderDepth: Number(values.depth) } : {};
  const batchSize = Number(values.batch);
  for (const precision of values.precision ? [values.precision] : ['fp32', 'bf16']) {
    const model = new MaskedAutoencoder({ ...presets[preset], ...depths, precision });
    const [height, width] = model.config.imageSize;
    const images = randomFillSync(new Uint8Array(batchSize * height * width * model.config.inChans));
    const step = model.trainStep({ batchSize });
    for (let i = 1; i <= Number(values.steps); i++) {
      const { loss } = await step.run({ images }, { lr: 1e-4 });
      console.log(`${model.device.handle.name}, ${preset}, ${precision}: step ${i}, loss ${(await loss).toFixed(4)}`);
    }
    await model.forward(images);
    await model.features(images);
    model.dispose();
  }
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});

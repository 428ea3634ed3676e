/** `mae convert`: weights under other names, with or without the decoder. */
import path from 'node:path';
import type { Command } from 'commander';
import { MaeError } from '../errors';
import { writeFileAtomic, writeFolderAtomic } from '../io/atomic';
import { toHuggingFaceConfig, toPreprocessorConfig } from '../io/huggingFaceConfig';
import { toMetadata, type WeightsConfig } from '../io/metadata';
import { type NameStyle, nameStyles, toNames } from '../io/names';
import { writeSafetensors } from '../io/safetensors';
import { MODEL_FILE, readWeights } from '../io/weights';

export function convertCommand(program: Command): void {
  program
    .command('convert')
    .description('write weights under the names of the reference, Hugging Face (a folder with config.json) or timm')
    .argument('<from>', 'run folder, checkpoint folder or .safetensors file')
    .argument('<to>', '.safetensors file, or a folder for huggingface')
    .option('--names <style>', nameStyles.join(', '), 'reference')
    .option('--encoder-only', 'leave the decoder out')
    .action(async (from: string, to: string, { names, encoderOnly }: { names: NameStyle; encoderOnly?: boolean }) => {
      const { file, tensors, metadata, config } = readWeights(from);
      const renamed = toNames(tensors, names, { encoderOnly });
      const asFolder = names === 'huggingface' && !to.endsWith('.safetensors');
      const facts = toMetadata(config, metadata); // for a file of Hugging Face, which has them beside it
      if (!asFolder) await writeSafetensors(to, renamed, facts);
      else {
        if (config.embedDim === undefined) {
          throw new MaeError(
            'MAE_FORMAT',
            `${file} does not say what model it is of (no metadata): give a .safetensors name to write the weights alone`,
          );
        }
        await writeFolderAtomic(to, async (folder) => {
          await writeSafetensors(path.join(folder, MODEL_FILE), renamed, facts);
          const json = (value: unknown): string => `${JSON.stringify(value, null, 2)}\n`;
          await writeFileAtomic(path.join(folder, 'config.json'), json(toHuggingFaceConfig(config as WeightsConfig, { encoderOnly })));
          await writeFileAtomic(path.join(folder, 'preprocessor_config.json'), json(toPreprocessorConfig(config as WeightsConfig)));
        });
      }
      console.log(`wrote ${to}: ${renamed.size} tensors, ${names} names`);
    });
}

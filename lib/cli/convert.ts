/** `mae convert`: weights under other names, with or without the decoder. */
import path from 'node:path';
import type { Command } from 'commander';
import { MaeError } from '../errors';
import { writeFileAtomic, writeFolderAtomic } from '../io/atomic';
import { toHuggingFaceConfig, toPreprocessorConfig } from '../io/huggingFaceConfig';
import { fromMetadata, type WeightsConfig } from '../io/metadata';
import { fromNames, type NameStyle, nameStyles, toNames } from '../io/names';
import { readSafetensors, writeSafetensors } from '../io/safetensors';
import { weightsFile } from './reconstruct';

export function convertCommand(program: Command): void {
  program
    .command('convert')
    .description('write weights under the names of the reference, Hugging Face (a folder with config.json) or timm')
    .argument('<from>', 'run folder, checkpoint folder or .safetensors file')
    .argument('<to>', '.safetensors file, or a folder for huggingface')
    .option('--names <style>', nameStyles.join(', '), 'reference')
    .option('--encoder-only', 'leave the decoder out')
    .action(async (from: string, to: string, { names, encoderOnly }: { names: NameStyle; encoderOnly?: boolean }) => {
      if (!nameStyles.includes(names))
        throw new MaeError('MAE_ARGUMENT', `convert: --names must be one of ${nameStyles.join(', ')}, got '${names}'`);
      const file = weightsFile(from);
      const { tensors, metadata } = readSafetensors(file);
      const renamed = toNames(fromNames(tensors).tensors, names, { encoderOnly });
      const asFolder = names === 'huggingface' && !to.endsWith('.safetensors');
      if (!asFolder) await writeSafetensors(to, renamed, metadata);
      else {
        const config = fromMetadata(metadata, file) as WeightsConfig;
        if (config.embedDim === undefined) {
          throw new MaeError(
            'MAE_FORMAT',
            `${file} does not say what model it is of (no metadata): give a .safetensors name to write the weights alone`,
          );
        }
        await writeFolderAtomic(to, async (folder) => {
          await writeSafetensors(path.join(folder, 'model.safetensors'), renamed, metadata);
          const json = (value: unknown): string => `${JSON.stringify(value, null, 2)}\n`;
          await writeFileAtomic(path.join(folder, 'config.json'), json(toHuggingFaceConfig(config, { encoderOnly })));
          await writeFileAtomic(path.join(folder, 'preprocessor_config.json'), json(toPreprocessorConfig(config)));
        });
      }
      console.log(`wrote ${to}: ${renamed.size} tensors, ${names} names`);
    });
}

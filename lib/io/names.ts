/**
 * The names that weights go by. Inside this library they have the names of the reference implementation (facebookresearch/mae);
 * files may also speak Hugging Face (ViTMAE: `vit.` and `decoder.` in front, query, key and value apart) or timm (the encoder alone,
 * under the reference's names).
 */
import { MaeError } from '../errors';
import { HostTensor } from './safetensors';

export const nameStyles = ['reference', 'huggingface', 'timm'] as const;
export type NameStyle = (typeof nameStyles)[number];

/** Weights by their reference names, and how they were named in the file. */
export interface NamedWeights {
  tensors: Map<string, HostTensor>;
  style: NameStyle;
  /** False: the file holds the encoder only. */
  hasDecoder: boolean;
}

/**
 * Weights under the names of `style`. Hugging Face's query, key and value are views of the packed tensor, not copies.
 *
 * @param tensors  by reference names
 * @param options.encoderOnly  leave the decoder out; always so for timm, which has none
 * @throws MaeError MAE_ARGUMENT when a tensor has no name in the style
 */
export function toNames(
  tensors: ReadonlyMap<string, HostTensor>,
  style: NameStyle,
  options: { encoderOnly?: boolean } = {},
): Map<string, HostTensor> {
  if (!nameStyles.includes(style))
    throw new MaeError('MAE_ARGUMENT', `names must be one of ${nameStyles.join(', ')}, got '${String(style)}'`);
  const encoderOnly = options.encoderOnly || style === 'timm';
  const out = new Map<string, HostTensor>();
  for (const [name, tensor] of tensors) {
    if (encoderOnly && isDecoderName(name)) continue;
    if (style !== 'huggingface') out.set(name, tensor);
    else for (const [renamed, part] of toHuggingFace(name, tensor)) out.set(renamed, part);
  }
  return out;
}

/**
 * Weights of a file under their reference names, whatever style it uses. Names that no style knows (a classifier's head) stay as they
 * are, so a WeightsReport lists them.
 *
 * @throws MaeError MAE_FORMAT when no name belongs to a vision transformer in any of the styles, or query, key and value do not fit
 */
export function fromNames(tensors: ReadonlyMap<string, HostTensor>): NamedWeights {
  const style = detectStyle(tensors.keys());
  const renamed = style === 'huggingface' ? fromHuggingFace(tensors) : new Map(tensors);
  return { tensors: renamed, style, hasDecoder: [...renamed.keys()].some(isDecoderName) };
}

/** The style that names are in. @throws MaeError MAE_FORMAT when they are in none. */
export function detectStyle(names: Iterable<string>): NameStyle {
  const all = [...names];
  if (all.some((name) => huggingFaceName.test(name))) return 'huggingface';
  if (!all.some((name) => name === 'cls_token' || name.startsWith('blocks.') || isDecoderName(name))) {
    const sample = all.slice(0, 3).join(', ') || 'none';
    throw new MaeError('MAE_FORMAT', `the names of the tensors are neither those of MAE, of Hugging Face ViTMAE nor of timm: ${sample}`);
  }
  return all.some(isDecoderName) ? 'reference' : 'timm';
}

/** Whether a reference name belongs to the decoder; the mask token does. */
export function isDecoderName(name: string): boolean {
  return name === 'mask_token' || name.startsWith('decoder_');
}

// [reference, Hugging Face], without `.weight` and `.bias`.
const stems: readonly (readonly [string, string])[] = [
  ['cls_token', 'vit.embeddings.cls_token'],
  ['pos_embed', 'vit.embeddings.position_embeddings'],
  ['patch_embed.proj', 'vit.embeddings.patch_embeddings.projection'],
  ['norm', 'vit.layernorm'],
  ['decoder_embed', 'decoder.decoder_embed'],
  ['mask_token', 'decoder.mask_token'],
  ['decoder_pos_embed', 'decoder.decoder_pos_embed'],
  ['decoder_norm', 'decoder.decoder_norm'],
  ['decoder_pred', 'decoder.decoder_pred'],
];
const blocks: typeof stems = [
  ['blocks', 'vit.encoder.layer'],
  ['decoder_blocks', 'decoder.decoder_layers'],
];
const insideBlock: typeof stems = [
  ['norm1', 'layernorm_before'],
  ['attn.proj', 'attention.output.dense'],
  ['norm2', 'layernorm_after'],
  ['mlp.fc1', 'intermediate.dense'],
  ['mlp.fc2', 'output.dense'],
];
const packed = 'attn.qkv';
const unpacked = ['query', 'key', 'value'].map((part) => `attention.attention.${part}`);

const huggingFaceName = /^((vit\.)?(embeddings\.|encoder\.layer\.|layernorm\.)|decoder\.)/;

/** Reference → Hugging Face: one tensor, or three for a packed qkv (rows [0, D), [D, 2D), [2D, 3D)). */
function toHuggingFace(name: string, tensor: HostTensor): [string, HostTensor][] {
  const { block, leaf, suffix } = splitName(name);
  const prefix = block && translate(blocks, block.kind, 0);
  if (prefix && leaf === packed) {
    return splitRows(name, tensor).map((part, i) => [`${prefix}.${block.index}.${unpacked[i]}${suffix}`, part]);
  }
  const stem = block ? prefix && joinBlock(prefix, block.index, translate(insideBlock, leaf, 0)) : translate(stems, leaf, 0);
  if (!stem) throw new MaeError('MAE_ARGUMENT', `toNames: ${name} has no name in Hugging Face ViTMAE; leave it out or use 'reference'`);
  return [[stem + suffix, tensor]];
}

function fromHuggingFace(tensors: ReadonlyMap<string, HostTensor>): Map<string, HostTensor> {
  const out = new Map<string, HostTensor>();
  const parts = new Map<string, Map<number, [string, HostTensor]>>(); // packed name → its query, key, value
  for (const [name, tensor] of tensors) {
    // ViTMAEModel, the encoder alone, leaves `vit.` out.
    const { block, leaf, suffix } = splitName(/^(embeddings|encoder|layernorm)\./.test(name) ? `vit.${name}` : name);
    const kind = block && translate(blocks, block.kind, 1);
    const part = kind ? unpacked.indexOf(leaf) : -1;
    if (part >= 0) {
      const whole = `${kind}.${block!.index}.${packed}${suffix}`;
      parts.set(whole, (parts.get(whole) ?? new Map()).set(part, [name, tensor]));
      continue;
    }
    const stem = block ? kind && joinBlock(kind, block.index, translate(insideBlock, leaf, 1)) : translate(stems, leaf, 1);
    out.set(stem ? stem + suffix : name, tensor);
  }
  for (const [whole, found] of parts) {
    // An incomplete triple stays under its own names: the report then shows what is missing and what is left over.
    if (found.size < 3) for (const [name, tensor] of found.values()) out.set(name, tensor);
    else
      out.set(
        whole,
        joinRows(
          whole,
          [0, 1, 2].map((i) => found.get(i)![1]),
        ),
      );
  }
  return out;
}

// `blocks.3.attn.qkv.weight` → block { kind: 'blocks', index: '3' }, leaf 'attn.qkv', suffix '.weight'
function splitName(name: string) {
  const suffix = /\.(weight|bias)$/.exec(name)?.[0] ?? '';
  const stem = name.slice(0, name.length - suffix.length);
  const inBlock = /^(.+?)\.(\d+)\.(.+)$/.exec(stem);
  return inBlock ? { block: { kind: inBlock[1], index: inBlock[2] }, leaf: inBlock[3], suffix } : { leaf: stem, suffix };
}

function translate(pairs: typeof stems, name: string, from: 0 | 1): string | undefined {
  return pairs.find((pair) => pair[from] === name)?.[1 - from];
}

function joinBlock(prefix: string, index: string, leaf: string | undefined): string | undefined {
  return leaf && `${prefix}.${index}.${leaf}`;
}

function splitRows(name: string, { dtype, shape, data }: HostTensor): HostTensor[] {
  const [rows] = shape;
  if (rows % 3 !== 0)
    throw new MaeError('MAE_ARGUMENT', `toNames: ${name} packs query, key and value, its rows must be 3·D, got [${shape}]`);
  const length = data.length / 3;
  return [0, 1, 2].map((i) => ({ dtype, shape: [rows / 3, ...shape.slice(1)], data: data.subarray(i * length, (i + 1) * length) }));
}

function joinRows(name: string, parts: readonly HostTensor[]): HostTensor {
  const [{ dtype, shape, data }] = parts;
  const alike = parts.every((part) => part.dtype === dtype && String(part.shape) === String(shape));
  if (!alike) {
    const got = parts.map((part) => `${part.dtype} [${part.shape}]`).join(', ');
    throw new MaeError('MAE_FORMAT', `${name} cannot be put together: query, key and value must be alike, got ${got}`);
  }
  const joined = new (data.constructor as new (length: number) => typeof data)(3 * data.length);
  parts.forEach((part, i) => joined.set(part.data as never, i * data.length));
  return { dtype, shape: [3 * shape[0], ...shape.slice(1)], data: joined };
}

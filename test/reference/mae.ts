/** The masked autoencoder's forward pass in float64 (He et al. 2021, section 3), made of the rows' references. */
import { numPatches, numVisible, type MaeConfig } from '../../lib/nn/config';
import { references } from './index';
import { Control, type Value, type Values } from './value';

export interface MaeInputs {
  readonly config: MaeConfig;
  /** By reference names, position tables included. */
  readonly weights: Readonly<Record<string, Value>>;
  /** [batch, height, width, channels], 0–255 or 0–1 as `full` says. */
  readonly images: Value;
  readonly full: 1 | 255;
  /** [batch, L]. */
  readonly noise: Value;
}

export interface MaeResults {
  readonly latent: Value;
  readonly pred: Value;
  readonly mask: Value;
  readonly restore: Value;
  readonly loss: number;
}

const exactly = (values: Float64Array): Float64Array => values;
const vector = (values: readonly number[]): Value => ({ shape: [values.length], values: Float64Array.from(values) });
const reshaped = ({ values }: Value, ...shape: number[]): Value => ({ shape, values });

export function referenceMae({ config, weights, images, full, noise }: MaeInputs): MaeResults {
  const [batch] = images.shape;
  const [patches, visible] = [numPatches(config), numVisible(config)];
  const eps = config.layerNormEps;
  const pixels = {
    images,
    scale: vector(config.std.map((s) => 1 / (full * s))),
    shift: vector(config.mean.map((m, c) => -m / config.std[c])),
  };
  const layer = (name: string): Values => ({ w: weights[`${name}.weight`], bias: weights[`${name}.bias`] });
  const norm = (name: string, x: Value): Value =>
    references.layer_norm({ x, weight: weights[`${name}.weight`], bias: weights[`${name}.bias`] }, { eps }, exactly).y;
  const linear = (name: string, x: Value, residual?: Value): Value =>
    references.linear({ x, ...layer(name), ...(residual ? { residual } : {}) }, {}, exactly).y;
  const block = (name: string, x: Value, heads: number): Value => {
    const qkv = linear(`${name}.attn.qkv`, norm(`${name}.norm1`, x));
    const attended = linear(`${name}.attn.proj`, references.attention({ qkv }, { heads }, exactly).out, x);
    const [fc1, fc2] = [layer(`${name}.mlp.fc1`), layer(`${name}.mlp.fc2`)];
    const operands = { x: norm(`${name}.norm2`, attended), w1: fc1.w, b1: fc1.bias, w2: fc2.w, b2: fc2.bias, residual: attended };
    return references.mlp(operands, {}, exactly).y;
  };
  const blocks = (name: string, count: number, heads: number, x: Value): Value =>
    Array.from({ length: count }, (_, i) => `${name}.${i}`).reduce((stream, each) => block(each, stream, heads), x);
  const table = (name: string): Value => reshaped(weights[name], patches + 1, weights[name].shape[2]);

  const control = { shape: [16], values: new Float64Array(16) };
  control.values[Control.gradScale] = 1;
  const indices = { shape: [batch], values: new Float64Array(batch) };
  const { ids, restore, mask } = references.random_mask({ control, indices, noise }, { patches, visible, seed: 0 }, exactly);
  const unshuffle = (x: Value, token: string, pos: string): Value =>
    references.unshuffle({ x, mask_token: reshaped(weights[token], x.shape[2]), pos: table(pos), restore, ids }, {}, exactly).y;

  const w = reshaped(weights['patch_embed.proj.weight'], config.embedDim, images.shape[3] * config.patchSize ** 2);
  const embedding = { w, bias: weights['patch_embed.proj.bias'], cls: reshaped(weights.cls_token, config.embedDim) };
  const pos: Values = config.maskTokensInEncoder ? {} : { pos: table('pos_embed') };
  const { tokens } = references.patch_embed({ ...pixels, ids, ...embedding, ...pos }, { patch: config.patchSize, visible }, exactly);
  const stream = config.maskTokensInEncoder ? unshuffle(tokens, 'encoder_mask_token', 'pos_embed') : tokens;
  const latent = norm('norm', blocks('blocks', config.depth, config.numHeads, stream));

  const embedded = linear('decoder_embed', latent);
  const decoderInput = config.maskTokensInEncoder
    ? references.unshuffle({ x: embedded, pos: table('decoder_pos_embed') }, {}, exactly).y
    : unshuffle(embedded, 'mask_token', 'decoder_pos_embed');
  const decoded = norm('decoder_norm', blocks('decoder_blocks', config.decoderDepth, config.decoderNumHeads, decoderInput));
  const pred = linear('decoder_pred', references.select_tokens({ x: decoded }, { first: 0, count: patches }, exactly).y);
  const attributes = { patch: config.patchSize, first: 0, counted: batch * (patches - visible), normPix: config.normPixLoss };
  const { loss } = references.masked_mse({ pred, ...pixels, mask, control }, attributes, exactly);
  return { latent, pred, mask, restore, loss: loss.values[0] };
}

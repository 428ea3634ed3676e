/** node-mae and PyTorch side by side in one run, on the same model, weights and machine, taking turns. */
import { randomFillSync } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { MaeError } from '../errors';
import { type MaeConfig, numPatches } from '../nn/config';
import { MaskedAutoencoder } from '../nn/maskedAutoencoder';
import { type PresetName, presets } from '../nn/presets';
import { alternate } from './alternate';
import { budgetOf, type Context } from './context';
import { threadsOf } from './machine';
import { findPython, type PeerAbout, PeerProcess } from './peerProcess';
import { type Comparison, timingOf } from './result';
import { ratioOf } from './stats';
import { repeatsFor, Workload } from './workload';

/** Seconds of a quick run for one preset. */
const SECONDS = 20;
/** Pictures on which both must have the same loss. */
const CHECKED = 2;
/** float32 sums in another order differ by about 1e-6 in the loss; bf16 rounding (2⁻⁹) by less than this. */
const LOSS_TOLERANCE = { fp32: 1e-4, bf16: 2e-2 };

interface Form {
  readonly name: string;
  readonly about: PeerAbout;
  readonly peer: PeerProcess;
  /** Of one sample. */
  readonly steps: number;
}

/** Compares a training step with every form of the peer that runs here; undefined, with a note, where there is no PyTorch. */
export async function comparePeers(context: Context, preset: PresetName, given?: string): Promise<Comparison | undefined> {
  const python = findPython(given);
  if (!python) {
    const where = given ? `${given} has no PyTorch` : 'no python3 here has PyTorch; --python names one that has';
    context.note(`PyTorch peer left out: ${where}`);
    return undefined;
  }
  const { device, precision } = context;
  const batchSize = context.batchOf(preset);
  const folder = mkdtempSync(path.join(tmpdir(), 'mae-bench-'));
  const peers: PeerProcess[] = [];
  using model = new MaskedAutoencoder({ ...presets[preset], device: device.id, precision });
  try {
    const weights = path.join(folder, 'weights.safetensors');
    await model.save(weights);
    const check = await checkInputs(model, folder);
    const forms: Form[] = [];
    let lossDifference = 0;
    for (const mode of modesOf(context)) {
      const { peer, about } = await PeerProcess.start(python, threadsOf(device.handle.name));
      peers.push(peer);
      if (precision === 'bf16' && !about.bf16) {
        context.note(`PyTorch ${about.torch} left out: it has no bf16 autocast on ${device.kind}`);
        return undefined;
      }
      if (mode !== 'eager' && !about.compile) {
        context.note(`PyTorch ${about.torch} has no torch.compile`);
        break;
      }
      const name = `PyTorch ${about.torch}, ${mode === 'eager' ? 'eager' : `compiled (${mode})`}`;
      try {
        await peer.ask({ do: 'prepare', config: configOf(model.config), batch: batchSize, precision, device: device.kind, mode, weights });
        const { loss } = await peer.ask<{ loss: number }>({ do: 'check', count: CHECKED, images: check.images, noise: check.noise });
        const difference = Math.abs(loss / check.loss - 1);
        if (!(difference < LOSS_TOLERANCE[precision])) {
          throw new MaeError('MAE_INTERNAL', `the peer's loss is ${loss}, ours ${check.loss}: it computes another model`);
        }
        lossDifference = Math.max(lossDifference, difference);
        await peer.ask({ do: 'run', steps: 1 }); // compiles
        const { seconds } = await peer.ask<{ seconds: number }>({ do: 'run', steps: 1 });
        forms.push({ name, about, peer, steps: repeatsFor(device.kind, seconds) });
      } catch (error) {
        if (!(error instanceof MaeError) || error.code === 'MAE_INTERNAL') throw error;
        context.note(`${name} left out: ${error.message}`);
      }
    }
    if (forms.length === 0) return undefined;
    const workload = new Workload(model, { batchSize });
    const [ours, ...theirs] = await alternate(
      [
        { run: () => workload.sample('step') },
        ...forms.map(({ peer, steps }) => ({ run: async () => (await peer.ask<{ seconds: number }>({ do: 'run', steps })).seconds })),
      ],
      budgetOf(context, SECONDS),
    );
    const rows = [];
    for (const [i, { name, about, peer }] of forms.entries()) {
      const { bytes, matmul } = await peer.ask<{ bytes: number; matmul: number }>({ do: 'about' });
      rows.push({
        name,
        form: describe(about, matmul),
        step: timingOf(theirs[i]),
        ratio: ratioOf(theirs[i], ours),
        memoryBytes: bytes,
      });
    }
    return { preset, precision, batchSize, ours: timingOf(ours), memoryBytes: workload.memoryBytes, peers: rows, lossDifference };
  } finally {
    for (const peer of peers) peer[Symbol.dispose]();
    rmSync(folder, { recursive: true, force: true });
  }
}

/** torch.compile takes a minute or more: full runs only. */
function modesOf({ full, device }: Context): readonly string[] {
  if (!full) return ['eager'];
  return device.kind === 'cuda' ? ['eager', 'default', 'max-autotune'] : ['eager', 'default'];
}

function describe({ sdpa, fusedAdamw, threads }: PeerAbout, matmul: number): string {
  const attention = sdpa ? 'scaled_dot_product_attention' : 'explicit attention';
  return `${attention}, ${fusedAdamw ? 'fused' : 'foreach'} AdamW, ${threads} threads, 1024³ matmul ${(matmul / 1e9).toFixed(0)} GFLOP/s`;
}

/** The peer's own names are the reference's. */
function configOf(config: MaeConfig): Record<string, unknown> {
  const { imageSize, patchSize, inChans, embedDim, depth, numHeads, mlpRatio, decoderEmbedDim, decoderDepth, decoderNumHeads } = config;
  return {
    img_size: imageSize,
    patch_size: patchSize,
    in_chans: inChans,
    embed_dim: embedDim,
    depth,
    num_heads: numHeads,
    mlp_ratio: mlpRatio,
    decoder_embed_dim: decoderEmbedDim,
    decoder_depth: decoderDepth,
    decoder_num_heads: decoderNumHeads,
    mask_ratio: config.maskRatio,
    norm_pix_loss: config.normPixLoss,
    norm_eps: config.layerNormEps,
    mean: config.mean,
    std: config.std,
  };
}

/** Pictures and mask noise in files, and our loss on them. */
async function checkInputs(model: MaskedAutoencoder, folder: string): Promise<{ images: string; noise: string; loss: number }> {
  const [height, width] = model.config.imageSize;
  const images = randomFillSync(new Uint8Array(CHECKED * height * width * model.config.inChans));
  const noise = Float32Array.from({ length: CHECKED * numPatches(model.config) }, Math.random);
  const { loss } = await model.forward(images, { noise });
  const files = { images: path.join(folder, 'images'), noise: path.join(folder, 'noise') };
  writeFileSync(files.images, images);
  writeFileSync(files.noise, noise);
  return { ...files, loss };
}

/** node-mae and PyTorch side by side in one run, on the same model, weights and machine, taking turns. */
import { randomFillSync } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { MaeError } from '../errors';
import { type MaeConfig, numPatches } from '../nn/config';
import { MaskedAutoencoder } from '../nn/maskedAutoencoder';
import { type PresetName, presets } from '../nn/presets';
import { alternate } from './alternate';
import { budgetOf, type Context } from './context';
import { threadsOf } from './machine';
import { findPython, type PeerAbout, PeerProcess, type PeerThreads } from './peerProcess';
import { type Comparison, timingOf } from './result';
import { ratioOf } from './stats';
import { repeatsFor, Workload } from './workload';

/** Seconds of a quick run for one preset. */
const SECONDS = 20;
/** Pictures on which both must have the same loss. */
const CHECKED = 2;
/** float32 sums in another order differ by about 1e-6 in the loss; bf16 rounding (2⁻⁹) by less than this. */
const LOSS_TOLERANCE = { fp32: 1e-4, bf16: 2e-2 };

/** One way to run the peer, warmed up. */
interface Form {
  readonly name: string;
  readonly threads: PeerThreads;
  readonly about: PeerAbout;
  readonly peer: PeerProcess;
  /** Relative, from ours on the same weights, pictures and masks. */
  readonly lossDifference: number;
  /** Seconds of a step, for choosing between forms. */
  readonly seconds: number;
}

/** What all forms of one comparison share. */
interface Setting {
  readonly context: Context;
  readonly python: string;
  readonly model: MaskedAutoencoder;
  readonly batchSize: number;
  readonly weights: string;
  readonly check: CheckInputs;
}

interface CheckInputs {
  readonly images: string;
  readonly noise: string;
  readonly loss: number;
}

/** Compares a training step with the peer's best forms here; undefined, with a note, where there is no PyTorch. */
export async function comparePeers(context: Context, preset: PresetName, given?: string): Promise<Comparison | undefined> {
  const python = findPython(given);
  if (!python) {
    const where = given ? `${given} has no PyTorch` : 'no python3 here has PyTorch; --python names one that has';
    context.note(`PyTorch peer left out: ${where}`);
    return undefined;
  }
  const { device, precision } = context;
  const batchSize = context.batchOf(preset);
  const folder = mkdtempSync(path.join(os.tmpdir(), 'mae-bench-'));
  const started: PeerProcess[] = [];
  using model = new MaskedAutoencoder({ ...presets[preset], device: device.id, precision });
  try {
    const weights = path.join(folder, 'weights.safetensors');
    await model.save(weights);
    const setting = { context, python, model, batchSize, weights, check: await checkInputs(model, folder) };
    const forms = await openForms(setting, started);
    if (forms.length === 0) return undefined;
    const workload = new Workload(model, { batchSize });
    const [ours, ...theirs] = await alternate(
      [
        { run: () => workload.sample('step') },
        ...forms.map(({ peer, seconds }) => ({ run: () => runPeer(peer, repeatsFor(device.kind, seconds)) })),
      ],
      budgetOf(context, SECONDS),
    );
    const rows = [];
    for (const [i, { name, threads, about, peer, lossDifference }] of forms.entries()) {
      const { bytes, matmul } = await peer.ask<{ bytes: number; matmul: number }>({ do: 'about' });
      const form = describe(about, threads, matmul);
      rows.push({ name, form, step: timingOf(theirs[i]), ratio: ratioOf(theirs[i], ours), memoryBytes: bytes, lossDifference });
    }
    return { preset, precision, batchSize, ours: timingOf(ours), memoryBytes: workload.memoryBytes, peers: rows };
  } finally {
    for (const peer of started) peer[Symbol.dispose]();
    rmSync(folder, { recursive: true, force: true });
  }
}

/** torch.compile takes a minute or more: quick runs do without it on a CPU, and with one mode on a GPU, where nobody trains without it. */
const COMPILED = { cpu: { quick: [], full: ['default'] }, cuda: { quick: ['default'], full: ['default', 'max-autotune'] } } as const;

/** Eager with the threads that suit it best, then compiled with the same. What does not run is noted. */
async function openForms(setting: Setting, started: PeerProcess[]): Promise<Form[]> {
  const { context } = setting;
  const eager: Form[] = [];
  for (const threads of threadsToTry(context)) {
    const form = await openForm(setting, 'eager', threads, started);
    if (form) eager.push(form);
  }
  if (eager.length === 0) return [];
  const best = eager.reduce((a, b) => (b.seconds < a.seconds ? b : a));
  for (const form of eager) if (form !== best) form.peer[Symbol.dispose]();
  const forms = [best];
  const modes = COMPILED[context.device.kind][context.full ? 'full' : 'quick'];
  for (const mode of modes) {
    const form = best.about.compile ? await openForm(setting, mode, best.threads, started) : undefined;
    if (form) forms.push(form);
  }
  if (modes.length > 0 && !best.about.compile) context.note(`PyTorch ${best.about.torch} has no torch.compile`);
  return forms;
}

async function openForm(setting: Setting, mode: string, threads: PeerThreads, started: PeerProcess[]): Promise<Form | undefined> {
  const { context, python, model, batchSize, weights, check } = setting;
  const { precision, device } = context;
  const { peer, about } = await PeerProcess.start(python, threads);
  started.push(peer);
  const name = `PyTorch ${about.torch}, ${mode === 'eager' ? 'eager' : `compiled (${mode})`}`;
  if (precision === 'bf16' && !about.bf16) {
    context.note(`${name} left out: it has no bf16 autocast`);
    return undefined;
  }
  try {
    await peer.ask({ do: 'prepare', config: configOf(model.config), batch: batchSize, precision, device: device.kind, mode, weights });
    const { loss } = await peer.ask<{ loss: number }>({ do: 'check', count: CHECKED, images: check.images, noise: check.noise });
    const lossDifference = Math.abs(loss / check.loss - 1);
    if (!(lossDifference < LOSS_TOLERANCE[precision])) {
      throw new MaeError('MAE_INTERNAL', `${name}: its loss is ${loss}, ours ${check.loss} on the same weights: it computes another model`);
    }
    await runPeer(peer, 1); // compiles
    const seconds = Math.min(await runPeer(peer, 1), await runPeer(peer, 1));
    return { name, threads, about, peer, lossDifference, seconds };
  } catch (error) {
    if (!(error instanceof MaeError) || error.code === 'MAE_INTERNAL') throw error;
    context.note(`${name} left out: ${error.message}`);
    return undefined;
  }
}

async function runPeer(peer: PeerProcess, steps: number): Promise<number> {
  return (await peer.ask<{ seconds: number }>({ do: 'run', steps })).seconds;
}

function threadsToTry({ device }: Context): readonly PeerThreads[] {
  const count = threadsOf(device.handle.name);
  if (device.kind === 'cuda' || count === 1) return [{ count, sleeping: false }];
  return [
    { count, sleeping: false },
    { count, sleeping: true },
    { count: 1, sleeping: false },
  ];
}

function describe({ sdpa, fusedAdamw }: PeerAbout, { count, sleeping }: PeerThreads, matmul: number): string {
  const attention = sdpa ? 'scaled_dot_product_attention' : 'explicit attention';
  const threads = `${count} thread${count > 1 ? 's' : ''}${sleeping ? ' (sleeping while they wait)' : ''}`;
  return `${attention}, ${fusedAdamw ? 'fused' : 'foreach'} AdamW, ${threads}, 1024³ matmul ${(matmul / 1e9).toFixed(0)} GFLOP/s`;
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
async function checkInputs(model: MaskedAutoencoder, folder: string): Promise<CheckInputs> {
  const [height, width] = model.config.imageSize;
  const images = randomFillSync(new Uint8Array(CHECKED * height * width * model.config.inChans));
  const noise = Float32Array.from({ length: CHECKED * numPatches(model.config) }, Math.random);
  const { loss } = await model.forward(images, { noise });
  const files = { images: path.join(folder, 'images'), noise: path.join(folder, 'noise') };
  writeFileSync(files.images, images);
  writeFileSync(files.noise, noise);
  return { ...files, loss };
}

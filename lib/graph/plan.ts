/** Gives every tensor of a trace a place in one arena, or in gradients not written yet: tensors that are never alive together share memory. */
import type { Layout } from './layout';
import { bytesOf, type Parameter, size, type Tensor } from './tensor';
import type { Trace } from './tape';

/** Every buffer starts on such a boundary (16-byte vector accesses, TMA, cache lines). */
export const ALIGNMENT = 256;

export const align = (bytes: number): number => Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;

export interface Plan {
  /** Byte offset in the arena of every tensor that lies there. */
  readonly offsets: ReadonlyMap<Tensor, number>;
  /** Byte offset in the store's gradients of every tensor that lies there: see `lent` of plan. */
  readonly lent: ReadonlyMap<Tensor, number>;
  readonly arenaBytes: number;
  /** What the arena would be without sharing. */
  readonly unplannedBytes: number;
}

/** A block of memory and the launches from its first to its last use. */
interface Block {
  readonly bytes: number;
  first: number;
  last: number;
  offset: number;
}

/**
 * Lifetimes from first to last mention, then best fit by decreasing size. Kept tensors live from the first launch to the last, because a
 * later segment or the host reads them and segments repeat.
 * @param share  false gives every tensor memory of its own, for finding a wrong lifetime
 * @param lent   lends the store's gradients: a parameter's gradient needs its memory only from its first write on, and until then activations
 *               may have it. For runs that do not add to gradients of a run or micro-batch before.
 */
export function plan(trace: Trace, share = true, lent?: Layout): Plan {
  const blocks = lifetimes(trace);
  const distinct = [...new Set(blocks.values())].sort((a, b) => b.bytes - a.bytes || a.first - b.first);
  const gradients = lent ? gradientBlocks(trace, lent) : [];
  const gradientBytes = lent ? lent.count * 4 : 0;
  const inGradients = new Set<Block>();
  const arena: Block[] = [];
  let arenaBytes = 0;
  for (const block of distinct) {
    const together = (other: Block): boolean => !share || (other.first <= block.last && block.first <= other.last);
    const free = firstGap(gradients.filter(together), block.bytes, gradientBytes);
    block.offset = free ?? firstGap(arena.filter(together), block.bytes, Infinity)!;
    if (free === undefined) {
      arena.push(block);
      arenaBytes = Math.max(arenaBytes, block.offset + block.bytes);
    } else {
      gradients.push(block);
      inGradients.add(block);
    }
  }
  const placed = (lies: (block: Block) => boolean): Map<Tensor, number> =>
    new Map([...blocks].filter(([, block]) => lies(block)).map(([tensor, block]) => [tensor, block.offset]));
  const unplannedBytes = [...blocks.keys()].reduce((sum, tensor) => sum + align(bytesOf(tensor)), 0);
  const borrows = (block: Block): boolean => inGradients.has(block);
  return { offsets: placed((block) => !borrows(block)), lent: placed(borrows), arenaBytes, unplannedBytes };
}

/**
 * The gradients' buffer, whole: each gradient from its first write to the end, where the optimizer reads it; what this trace does not write
 * and the padding, which the gradient norm sums up as zeros, always.
 */
function gradientBlocks(trace: Trace, { offsets, count }: Layout): Block[] {
  const written = new Map<Parameter, number>();
  trace.launches.forEach((launch, i) => {
    for (const tensor of Object.values(launch.operands)) {
      if (tensor?.place.kind === 'gradient' && !written.has(tensor.place.parameter)) written.set(tensor.place.parameter, i);
    }
  });
  const last = trace.launches.length;
  const starts = [...offsets.values(), count];
  return [...offsets.keys()].flatMap((parameter, i) => {
    const [offset, bytes, next] = [starts[i] * 4, size(parameter.shape) * 4, starts[i + 1] * 4];
    return [
      { offset, bytes, first: written.get(parameter) ?? 0, last },
      { offset: offset + bytes, bytes: next - offset - bytes, first: 0, last },
    ];
  });
}

function lifetimes(trace: Trace): Map<Tensor, Block> {
  const end = trace.launches.length;
  const blocks = new Map<Tensor, Block>();
  trace.launches.forEach((launch, i) => {
    for (const tensor of Object.values(launch.operands)) {
      if (tensor?.place.kind !== 'arena') continue;
      const block = blocks.get(tensor);
      if (block) block.last = i;
      else blocks.set(tensor, { bytes: align(bytesOf(tensor)), first: i, last: i, offset: -1 });
    }
  });
  for (const tensor of trace.kept) {
    const block = blocks.get(tensor);
    if (block) Object.assign(block, { first: 0, last: end });
  }
  // An output takes over the memory of an input that dies in the same launch, where the row allows it.
  trace.launches.forEach((launch, i) => {
    for (const [output, input] of launch.inPlace) {
      const [to, from] = [launch.operands[output], launch.operands[input]];
      const [target, source] = [to && blocks.get(to), from && blocks.get(from)];
      if (!target || !source || target === source || target.first !== i || source.last !== i || target.bytes !== source.bytes) continue;
      // The kernel may read its other operands after it has begun to write this one.
      const readTwice = Object.entries(launch.operands).some(([name, t]) => t && name !== input && blocks.get(t) === source);
      if (readTwice) continue;
      source.last = target.last;
      for (const [tensor, block] of blocks) if (block === target) blocks.set(tensor, source);
    }
  });
  return blocks;
}

/**
 * The lowest offset of a gap of at least `bytes` between blocks that are alive at the same time, and before `limit`; the tightest such gap
 * wins. Undefined where there is none.
 */
function firstGap(alive: readonly Block[], bytes: number, limit: number): number | undefined {
  const sorted = [...alive].sort((a, b) => a.offset - b.offset);
  let end = 0;
  let best: number | undefined;
  let bestGap = Infinity;
  const consider = (gap: number): void => {
    if (gap >= bytes && (best === undefined || gap < bestGap)) [best, bestGap] = [end, gap];
  };
  for (const block of sorted) {
    consider(block.offset - end);
    end = Math.max(end, block.offset + block.bytes);
  }
  consider(limit - end);
  return best;
}

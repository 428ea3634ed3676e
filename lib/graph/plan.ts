/** Gives every tensor of a trace an offset in one arena: tensors that are never alive together share memory. */
import { bytesOf, type Tensor } from './tensor';
import type { Trace } from './tape';

/** Every buffer starts on such a boundary (16-byte vector accesses, TMA, cache lines). */
export const ALIGNMENT = 256;

export const align = (bytes: number): number => Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;

export interface Plan {
  /** Byte offset of every arena tensor. */
  readonly offsets: ReadonlyMap<Tensor, number>;
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
 */
export function plan(trace: Trace, share = true): Plan {
  const blocks = lifetimes(trace);
  const distinct = [...new Set(blocks.values())].sort((a, b) => b.bytes - a.bytes || a.first - b.first);
  const placed: Block[] = [];
  let arenaBytes = 0;
  for (const block of distinct) {
    const neighbours = share ? placed.filter((other) => other.first <= block.last && block.first <= other.last) : placed;
    block.offset = firstGap(neighbours, block.bytes);
    placed.push(block);
    arenaBytes = Math.max(arenaBytes, block.offset + block.bytes);
  }
  const offsets = new Map([...blocks].map(([tensor, block]) => [tensor, block.offset]));
  const unplannedBytes = [...blocks.keys()].reduce((sum, tensor) => sum + align(bytesOf(tensor)), 0);
  return { offsets, arenaBytes, unplannedBytes };
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

/** The lowest offset of a gap of at least `bytes` between blocks that are alive at the same time; the tightest such gap wins. */
function firstGap(alive: readonly Block[], bytes: number): number {
  const sorted = [...alive].sort((a, b) => a.offset - b.offset);
  let end = 0;
  let best = -1;
  let bestGap = Infinity;
  for (const block of sorted) {
    const gap = block.offset - end;
    if (gap >= bytes && gap < bestGap) [best, bestGap] = [end, gap];
    end = Math.max(end, block.offset + block.bytes);
  }
  return best >= 0 ? best : end;
}

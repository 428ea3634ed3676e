// How a GEMM is cut into blocks (after Goto and van de Geijn, "Anatomy of high-performance matrix multiplication", 2008, with the roles of
// A and B exchanged): a block of B (some panels of columns, one block of k) is packed, beside the first panel of A where that can read it as
// it lies, and stays in L2; a panel of A (kRows rows) stays in L1 and meets every panel of the block. The sizes are from measurements on
// Zen 5 at the shapes of MAE models.
#pragma once
#include "../chunks.h"
#include "epilogue.h"
#include "gemm.h"
#include "microkernel.h"
#include "pack.h"

namespace mae { namespace cpu { namespace MAE_ISA {

constexpr int64_t kWholeDepth = 768;   // words of k that are not cut: a panel of A is then 43 KiB or less
constexpr int64_t kBlockDepth = 512;   // words of k in a block of a longer k
constexpr int64_t kBlockBytes = kLanes == 16 ? 640 << 10 : 192 << 10;  // of B: what L2, 1 MiB or more where AVX-512 is, holds beside A and C
constexpr int64_t kSharedBytes = 2 << 20;  // of B, packed once for all threads
constexpr int64_t kScratchRows = 1024;     // of C, where partial sums over k must wait for an epilogue
constexpr int64_t kBlocksPerThread = 2;    // blocks of C, for balance
constexpr int64_t kLeastPanels = 4;        // of A in a block: its share of packing B
constexpr int64_t kSplitElements = 1024;   // of k in a split, at least
constexpr int64_t kSplitBlocks = 16;       // blocks of C that give enough parallel work without splitting k

static inline int64_t align(int64_t bytes) { return (bytes + 63) & ~int64_t(63); }

static inline bool uses_pairs(const Gemm& g) { return kHasPairs && g.type == BF16; }

struct Plan {
  int per_word;   // elements of k in a word
  int64_t words;  // of k
  int64_t depth;  // words in a block of k; the last may have fewer
  int64_t k_blocks, splits;  // split s has blocks begin_of(k_blocks, splits, s) and on
  int64_t m_panels, n_panels, m_blocks, n_blocks;
  bool direct_a;   // A is read where it is
  bool shared_b;   // B is packed once for all threads
  bool scratch_c;  // tiles of C wait in scratch space between blocks of k
  int64_t slots;   // scratch spaces: the threads that can take part
  int64_t shared_bytes, partial_bytes, sums_bytes;  // of the workspace
  int64_t b_bytes, a_bytes, c_bytes;                // of a slot
};

// The first of the items of a part, where all are shared out evenly.
static inline int64_t begin_of(int64_t items, int64_t parts, int64_t part) { return items * part / parts; }

// Cuts C into blocks: as few as keep a block of B in L2 and tiles that wait in kScratchRows, give every thread kBlocksPerThread and leave none
// idle at the end. Where the last does not come out even, a few more are tried.
static inline void cut_c(Plan& p, const Gemm& g, int64_t slots) {
  const int64_t least = ceil_div(p.n_panels, at_least(1, kBlockBytes / (p.depth * kColumns * 4)));
  const int64_t least_m = p.scratch_c ? ceil_div(g.m, kScratchRows) : 1;
  double best = -1;  // even one block for many threads is a cut
  for (int64_t times = 1; times <= 2; ++times) {
    for (int64_t n = least; n < least + 4 && n <= p.n_panels; ++n) {
      const int64_t wanted = slots == 1 ? 1 : times * ceil_div(slots * kBlocksPerThread, n * p.splits);
      const int64_t m = at_least(least_m, at_most(wanted, p.m_panels / kLeastPanels)), blocks = n * m * p.splits;
      const double busy = double(blocks) / double(ceil_div(blocks, slots) * slots);
      if (busy < best + 0.03) continue;
      best = busy, p.n_blocks = n, p.m_blocks = m;
    }
  }
}

static inline Plan make_plan(const Gemm& g, int64_t slots) {
  Plan p = {};
  p.slots = slots;
  p.per_word = uses_pairs(g) ? 2 : 1;
  p.words = ceil_div(g.k, p.per_word);
  p.m_panels = ceil_div(g.m, kRows);
  p.n_panels = ceil_div(g.n, kColumns);

  // How k is cut depends on the shape alone: it decides the order of the additions.
  p.splits = 1;
  if (g.split_k) {
    const int64_t blocks = ceil_div(g.m, 112) * ceil_div(g.n, 256);
    p.splits = at_least(1, at_most(ceil_div(kSplitBlocks, blocks), g.k / kSplitElements));
  }
  p.k_blocks = p.words <= kWholeDepth ? 1 : p.splits * ceil_div(p.words, p.splits * kBlockDepth);
  p.depth = ceil_div(p.words, p.k_blocks);
  p.k_blocks = ceil_div(p.words, p.depth);
  p.splits = at_most(p.splits, p.k_blocks);

  p.scratch_c = p.k_blocks > 1 && !is_plain(g.c);
  cut_c(p, g, slots);

  // Rows whose distance is a multiple of 4 KiB fall on the same few sets of L1: those are copied.
  const bool same_words = (p.per_word == 2 || g.type == F32) && g.k % p.per_word == 0;
  p.direct_a = g.a.k_contiguous && same_words && (p.k_blocks == 1 || p.words * 4 % 4096 != 0);
  p.shared_bytes = align(p.k_blocks * p.n_panels * panel_stride(p.depth) * 4);
  p.shared_b = p.m_blocks > 1 && p.shared_bytes <= kSharedBytes;
  if (!p.shared_b) p.shared_bytes = 0;
  if (p.splits > 1) p.partial_bytes = align(p.splits * g.m * g.n * 4);
  if (p.splits > 1 && g.row_sums) p.sums_bytes = align(p.splits * g.m * 4);
  if (!p.shared_b) p.b_bytes = align(ceil_div(p.n_panels, p.n_blocks) * panel_stride(p.depth) * 4);
  if (!p.direct_a) p.a_bytes = (g.a.k_contiguous ? 1 : 2) * align(p.depth * kRowStride * 4);
  if (p.scratch_c) p.c_bytes = align(ceil_div(p.m_panels, p.m_blocks) * kRows * ceil_div(p.n_panels, p.n_blocks) * kColumns * 4);
  return p;
}

static inline int64_t slot_bytes(const Plan& p) { return p.b_bytes + p.a_bytes + p.c_bytes; }
static inline int64_t total_bytes(const Plan& p) { return p.shared_bytes + p.partial_bytes + p.sums_bytes + p.slots * slot_bytes(p); }

}}}  // namespace mae::cpu::MAE_ISA

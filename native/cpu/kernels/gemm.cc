// The GEMM's blocking (after Goto and van de Geijn, "Anatomy of high-performance matrix multiplication", 2008), with the roles of the caches
// turned round: a block of B (some panels of columns, one block of k) is packed and stays in L2, a panel of A (kRows rows) stays in L1
// and meets every panel of the block. Work is cut into blocks of C; each thread packs what its block needs into its own scratch space,
// except that a B small enough is packed once for all.
#include "gemm.h"

#include "../chunks.h"
#include "epilogue.h"
#include "microkernel.h"
#include "pack.h"

namespace mae { namespace cpu { namespace MAE_ISA {
namespace {

#ifndef T_DEPTH
#define T_DEPTH 768
#define T_PLAIN 384
#define T_BLOCK 512
#define T_GROUP 4
#endif
constexpr int64_t kMaxDepth = T_DEPTH;         // words of k in a block: a panel of A is 43 KiB or less
constexpr int64_t kPlainDepth = T_PLAIN;       // the same where partial sums can wait in C itself
constexpr int64_t kBlockBytes = T_BLOCK << 10;     // of B, in L2
constexpr int64_t kGroup = T_GROUP;                // panels of A packed together, from lines that they share
constexpr int64_t kSharedBytes = 2 << 20;      // of B, packed once for all threads
constexpr int64_t kScratchRows = 1024;         // of C, where partial sums over k must wait for an epilogue
constexpr int64_t kBlocksPerThread = 4;        // blocks of C, for balance
constexpr int64_t kLeastPanels = 4;            // of A in a block: its share of packing B
constexpr int64_t kSplitElements = 1024;       // of k in a split, at least
constexpr int64_t kSplitBlocks = 16;           // blocks of C that give enough parallel work without splitting k

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t at_most(int64_t a, int64_t b) { return a < b ? a : b; }
int64_t at_least(int64_t a, int64_t b) { return a > b ? a : b; }
int64_t align(int64_t bytes) { return (bytes + 63) & ~int64_t(63); }

bool uses_pairs(const Gemm& g) { return kHasPairs && g.type == BF16; }

struct Plan {
  int per_word;             // elements of k in a word
  int64_t words;            // of k
  int64_t depth;            // words in a block of k; the last may have fewer
  int64_t k_blocks, splits; // split s has blocks part(k_blocks, splits, s)
  int64_t m_panels, n_panels, m_blocks, n_blocks;
  bool direct_a;            // A is read where it is
  bool shared_b;
  bool scratch_c;
  int64_t slots;            // scratch spaces: the threads that can take part
  int64_t shared_bytes, partial_bytes, sums_bytes, b_bytes, a_bytes, c_bytes;  // whole; then for each slot
};

int64_t begin_of(int64_t items, int64_t parts, int64_t part) { return items * part / parts; }

Plan make_plan(const Gemm& g, int64_t slots) {
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
  const bool plain = is_plain(g.c);
  p.k_blocks = p.splits * ceil_div(p.words, p.splits * (plain ? kPlainDepth : kMaxDepth));
  p.depth = ceil_div(p.words, p.k_blocks);
  p.k_blocks = ceil_div(p.words, p.depth);
  p.splits = at_most(p.splits, p.k_blocks);

  p.n_blocks = ceil_div(p.n_panels, at_least(1, kBlockBytes / (p.depth * kColumns * 4)));
  const int64_t wanted = slots == 1 ? 1 : ceil_div(slots * kBlocksPerThread, p.n_blocks * p.splits);
  p.m_blocks = at_least(1, at_most(wanted, p.m_panels / kLeastPanels));
  p.scratch_c = p.k_blocks > 1 && !plain;
  if (p.scratch_c) p.m_blocks = at_least(p.m_blocks, ceil_div(g.m, kScratchRows));

  // Rows whose distance is a multiple of 4 KiB fall on the same few sets of L1: those are copied.
  const bool same_words = (p.per_word == 2 || g.type == F32) && g.k % p.per_word == 0;
  p.direct_a = g.a.k_contiguous && same_words && (p.k_blocks == 1 || p.words * 4 % 4096 != 0);
  p.shared_bytes = align(p.words * p.n_panels * kColumns * 4);
  p.shared_b = p.m_blocks > 1 && p.shared_bytes <= kSharedBytes;
  if (!p.shared_b) p.shared_bytes = 0;
  if (p.splits > 1) p.partial_bytes = align(p.splits * g.m * g.n * 4);
  if (p.splits > 1 && g.row_sums) p.sums_bytes = align(p.splits * g.m * 4);
  if (!p.shared_b) p.b_bytes = align(ceil_div(p.n_panels, p.n_blocks) * kColumns * p.depth * 4);
  if (!p.direct_a) p.a_bytes = align(kGroup * p.depth * kRowStride * 4);
  if (p.scratch_c) p.c_bytes = align(ceil_div(p.m_panels, p.m_blocks) * kRows * ceil_div(p.n_panels, p.n_blocks) * kColumns * 4);
  return p;
}

int64_t slot_bytes(const Plan& p) { return p.b_bytes + p.a_bytes + p.c_bytes; }
int64_t total_bytes(const Plan& p) { return p.shared_bytes + p.partial_bytes + p.sums_bytes + p.slots * slot_bytes(p); }

// Panels [from, to) of B, elements [k, k + count) along k.
template <bool Pairs, class T>
void pack_b(const Gemm& g, float* out, int64_t from, int64_t to, int64_t k, int64_t count) {
  const T* b = static_cast<const T*>(g.b.data);
  const int64_t begin = from * kColumns, end = at_most(to * kColumns, g.n);
  if (!g.b.k_contiguous) return pack_rows<Pairs>(out, b + k * g.n + begin, g.n, int(end - begin), count);
  const int64_t words = ceil_div(count, kPerWord<Pairs>);
  for (int64_t column = begin; column < end; column += kColumns, out += words * kColumns) {
    const int columns = int(at_most(kColumns, end - column));
    pack_transposed<Pairs>(out, b + column * g.k + k, g.k, columns, count, columns > kLanes ? 2 : 1);
  }
}

// One gemm call, with its workspace.
struct Run {
  const Gemm& g;
  const Plan& p;
  float* shared_b;
  float* partials;      // [splits, m, n]
  float* partial_sums;  // [splits, m]
  char* slots;
};

// Elements of k in the blocks before block `b`.
int64_t k_begin(const Run& run, int64_t b) { return at_most(b * run.p.depth * run.p.per_word, run.g.k); }

// Packs `rows` rows of A from `row` on for a block of k, and takes their sums where they are wanted.
template <bool Pairs, class T>
void pack_a(const Run& run, float* out, int64_t row, int rows, int64_t k, int64_t count, int64_t split, bool first, bool with_sums) {
  const Gemm& g = run.g;
  const T* a = static_cast<const T*>(g.a.data);
  if (g.a.k_contiguous) return copy_rows<Pairs>(out, a + row * g.k + k, g.k, rows, count);
  if (!g.row_sums || !with_sums) return pack_columns<Pairs>(out, a + k * g.m + row, g.m, rows, g.m - row, count, nullptr);
  float* const total = (run.partial_sums ? run.partial_sums + split * g.m : g.row_sums) + row;
  const bool resume = !first || (g.accumulate_row_sums && !run.partial_sums);
  alignas(64) float sums[kGroup * kRowStride] = {};
  if (resume) for (int r = 0; r < rows; ++r) sums[r / kRows * kRowStride + r % kRows] = total[r];
  pack_columns<Pairs>(out, a + k * g.m + row, g.m, rows, g.m - row, count, sums);
  for (int r = 0; r < rows; ++r) total[r] = sums[r / kRows * kRowStride + r % kRows];
}

// What the tile number `call` of a group of A brings into L2: a part of the group that starts at `row`, elements [k, ..) along k.
template <bool Pairs, class T>
Ahead ahead_of(const Gemm& g, int64_t row, int64_t k, int64_t depth, int64_t call) {
  const char* a = static_cast<const char*>(g.a.data);
  const int64_t size = sizeof(T), line = 64;
  if (g.a.k_contiguous) {  // four rows a call, along k
    const int64_t ld = g.k * size;
    return {a + (row + 4 * call) * ld + k * size, ld, 2 * ld, line};
  }
  const int64_t ld = g.m * size, first = k + call * (depth / kAheadWords) * kPerWord<Pairs>;
  if (Pairs) return {a + first * ld + row * size, line, ld, 2 * ld};
  return {a + first * ld + row * size, line, 2 * line, ld};
}

// One block of C over one split of k.
template <bool Pairs, class T>
void run_block(const Run& run, int64_t split, int64_t m_block, int64_t n_block, int64_t slot) {
  const Gemm& g = run.g;
  const Plan& p = run.p;
  char* space = run.slots + slot * slot_bytes(p);
  float* const own_b = reinterpret_cast<float*>(space);
  float* const own_a = reinterpret_cast<float*>(space + p.b_bytes);
  float* const waiting = reinterpret_cast<float*>(space + p.b_bytes + p.a_bytes);  // tiles of C between two blocks of k
  const int64_t m_begin = begin_of(p.m_panels, p.m_blocks, m_block), m_end = begin_of(p.m_panels, p.m_blocks, m_block + 1);
  const int64_t n_begin = begin_of(p.n_panels, p.n_blocks, n_block), n_end = begin_of(p.n_panels, p.n_blocks, n_block + 1);
  const int64_t k_first = begin_of(p.k_blocks, p.splits, split), k_last = begin_of(p.k_blocks, p.splits, split + 1) - 1;
  const bool plain = is_plain(g.c);
  Epilogue c = g.c;
  if (run.partials) c.out = run.partials + split * g.m * g.n;
  const bool onto_c = c.accumulate && !run.partials;

  for (int64_t block = k_first; block <= k_last; ++block) {
    const bool first = block == k_first, last = block == k_last;
    const int64_t k = k_begin(run, block), count = k_begin(run, block + 1) - k, depth = ceil_div(count, p.per_word);
    const float* b = own_b;
    if (p.shared_b) b = run.shared_b + (block * p.depth * p.n_panels + n_begin * depth) * kColumns;
    else pack_b<Pairs, T>(g, own_b, n_begin, n_end, k, count);
    if (plain && (onto_c || !first)) c.add = c.out, c.add_type = F32;

    const int64_t group = p.direct_a ? 1 : kGroup;
    for (int64_t i = m_begin; i < m_end; ++i) {
      const int64_t row = i * kRows, in_group = (i - m_begin) % group;
      const int rows = int(at_most(kRows, g.m - row));
      Tile t;
      t.depth = depth;
      if (p.direct_a) {
        t.a = reinterpret_cast<const word*>(static_cast<const T*>(g.a.data) + row * g.k + k), t.a_stride = p.words;
      } else {
        const int64_t end = at_most(at_most(i + group, m_end) * kRows, g.m);
        if (in_group == 0) pack_a<Pairs, T>(run, own_a, row, int(end - row), k, count, split, first, n_block == 0);
        t.a_stride = g.a.k_contiguous ? depth : kRowStride;
        t.a = own_a + in_group * depth * (g.a.k_contiguous ? kRows : kRowStride);
      }
      for (int64_t j = n_begin; j < n_end; ++j) {
        const int64_t column = j * kColumns;
        const int columns = int(at_most(kColumns, g.n - column)), vectors = columns > kLanes ? 2 : 1;
        t.b = b + (j - n_begin) * depth * kColumns;
        t.ahead = ahead_of<Pairs, T>(g, row + (group - in_group) * kRows, k, depth, in_group * (n_end - n_begin) + j - n_begin);
        if (plain && columns == vectors * kLanes) {
          t.out = static_cast<float*>(c.out) + row * g.n + column, t.out_stride = g.n;
          t.start = c.add ? t.out : nullptr, t.start_stride = g.n;
          multiply<Pairs>(g.a.k_contiguous, vectors, rows, t);
          continue;
        }
        float finished[kRows * kColumns];
        float* const tile = p.scratch_c ? waiting + ((i - m_begin) * (n_end - n_begin) + j - n_begin) * kRows * kColumns : nullptr;
        t.start = tile && !first ? tile : nullptr, t.out = tile && !last ? tile : finished;
        t.start_stride = t.out_stride = kColumns;
        multiply<Pairs>(g.a.k_contiguous, vectors, rows, t);
        if (t.out == finished) finish_tile(c, g.type, g.n, finished, row, column, rows, columns);
      }
    }
  }
}

template <bool Pairs, class T>
void run_all(const Run& run) {
  const Gemm& g = run.g;
  const Plan& p = run.p;
  if (p.shared_b) {
    parallel_for(p.k_blocks * p.n_panels, [&](int64_t chunk, int) {
      const int64_t block = chunk / p.n_panels, j = chunk % p.n_panels;
      const int64_t k = k_begin(run, block), count = k_begin(run, block + 1) - k;
      float* out = run.shared_b + (block * p.depth * p.n_panels + j * ceil_div(count, p.per_word)) * kColumns;
      pack_b<Pairs, T>(g, out, j, j + 1, k, count);
    });
  }
  // A slot is a scratch space; whoever holds it takes block after block.
  const int64_t blocks = p.splits * p.n_blocks * p.m_blocks;
  int64_t next = 0;
  parallel_for(at_most(p.slots, blocks), [&](int64_t slot, int) {
    for (int64_t block; (block = __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED)) < blocks;) {
      run_block<Pairs, T>(run, block / (p.n_blocks * p.m_blocks), block % p.m_blocks, block / p.m_blocks % p.n_blocks, slot);
    }
  });
}

}  // namespace

size_t gemm_workspace(const Gemm& g) {
  int64_t bytes = 0;
  for (int64_t slots = threads(); slots >= 1; --slots) bytes = at_least(bytes, total_bytes(make_plan(g, slots)));
  return size_t(bytes);
}

void gemm(const Gemm& g, Context& context) {
  int64_t slots = threads();
  Plan p = make_plan(g, slots);
  while (slots > 1 && total_bytes(p) > int64_t(context.workspace_bytes)) p = make_plan(g, --slots);  // more threads now than when planned
  char* at = static_cast<char*>(context.workspace);
  Run run{g, p, reinterpret_cast<float*>(at), nullptr, nullptr, at + p.shared_bytes + p.partial_bytes + p.sums_bytes};
  if (p.splits > 1) run.partials = reinterpret_cast<float*>(at + p.shared_bytes);
  if (p.sums_bytes) run.partial_sums = reinterpret_cast<float*>(at + p.shared_bytes + p.partial_bytes);
  if (uses_pairs(g)) run_all<kHasPairs, uint16_t>(run);
  else if (g.type == BF16) run_all<false, uint16_t>(run);
  else run_all<false, float>(run);
  if (run.partials) sum_partials(run.partials, p.splits, g.m * g.n, g.m * g.n, Operand{g.c.out, F32, g.c.accumulate ? kAccumulate : 0});
  if (run.partial_sums) sum_partials(run.partial_sums, p.splits, g.m, g.m, Operand{g.row_sums, F32, g.accumulate_row_sums ? kAccumulate : 0});
}

}}}  // namespace mae::cpu::MAE_ISA

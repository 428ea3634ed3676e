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

constexpr int64_t kMaxDepth = 768;             // words of k in a block: a panel of A then is 43 KiB or less
constexpr int64_t kBlockBytes = 512 << 10;     // of B, in L2
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
  p.k_blocks = p.splits * ceil_div(p.words, p.splits * kMaxDepth);
  p.depth = ceil_div(p.words, p.k_blocks);
  p.k_blocks = ceil_div(p.words, p.depth);
  p.splits = at_most(p.splits, p.k_blocks);

  p.n_blocks = ceil_div(p.n_panels, at_least(1, kBlockBytes / (p.depth * kColumns * 4)));
  const int64_t wanted = slots == 1 ? 1 : ceil_div(slots * kBlocksPerThread, p.n_blocks * p.splits);
  p.m_blocks = at_least(1, at_most(wanted, p.m_panels / kLeastPanels));
  p.scratch_c = p.k_blocks > 1 && !is_plain(g.c);
  if (p.scratch_c) p.m_blocks = at_least(p.m_blocks, ceil_div(g.m, kScratchRows));

  const bool same_words = p.per_word == 2 || g.type == F32;
  p.direct_a = g.a.k_contiguous && same_words && p.k_blocks == 1 && g.k % p.per_word == 0;
  p.shared_bytes = align(p.words * p.n_panels * kColumns * 4);
  p.shared_b = p.m_blocks > 1 && p.shared_bytes <= kSharedBytes;
  if (!p.shared_b) p.shared_bytes = 0;
  if (p.splits > 1) p.partial_bytes = align(p.splits * g.m * g.n * 4);
  if (p.splits > 1 && g.row_sums) p.sums_bytes = align(p.splits * g.m * 4);
  if (!p.shared_b) p.b_bytes = align(ceil_div(p.n_panels, p.n_blocks) * kColumns * p.depth * 4);
  if (!p.direct_a) p.a_bytes = align((p.depth * kRows + kRowVectors * kLanes) * 4);
  if (p.scratch_c) p.c_bytes = align(ceil_div(p.m_panels, p.m_blocks) * kRows * ceil_div(p.n_panels, p.n_blocks) * kColumns * 4);
  return p;
}

int64_t slot_bytes(const Plan& p) { return p.b_bytes + p.a_bytes + p.c_bytes; }
int64_t total_bytes(const Plan& p) { return p.shared_bytes + p.partial_bytes + p.sums_bytes + p.slots * slot_bytes(p); }

// The panel of B at `column`, elements [k, k + count) along k.
template <bool Pairs, class T>
void pack_b(const Gemm& g, float* out, int64_t column, int64_t k, int64_t count) {
  const T* b = static_cast<const T*>(g.b.data);
  const int columns = int(at_most(kColumns, g.n - column));
  const int vectors = columns > kLanes ? 2 : 1;
  if (g.b.k_contiguous) pack_transposed<Pairs>(out, b + column * g.k + k, g.k, columns, count, vectors);
  else pack_rows<Pairs>(out, b + k * g.n + column, g.n, columns, count, vectors);
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

// Packs the panel of A at `row` for a block of k; adds to the row sums, which start with the split's first block.
template <bool Pairs, class T>
void pack_a(const Run& run, float* out, int64_t row, int rows, int64_t k, int64_t count, int64_t split, bool first, bool sums_too) {
  const Gemm& g = run.g;
  const T* a = static_cast<const T*>(g.a.data);
  if (g.a.k_contiguous) return copy_rows<Pairs>(out, a + row * g.k + k, g.k, rows, count);
  float sums[kRowVectors * kLanes] = {};
  float* const total = run.partial_sums ? run.partial_sums + split * g.m + row : g.row_sums ? g.row_sums + row : nullptr;
  const bool resume = !first || (g.accumulate_row_sums && !run.partial_sums);
  if (total && sums_too && resume) memcpy(sums, total, size_t(rows) * 4);
  pack_columns<Pairs>(out, a + k * g.m + row, g.m, rows, count, sums);
  if (total && sums_too) memcpy(total, sums, size_t(rows) * 4);
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
  if (run.partials) c.out = run.partials + split * g.m * g.n, c.accumulate = false;
  const bool onto_c = c.accumulate;

  for (int64_t block = k_first; block <= k_last; ++block) {
    const bool first = block == k_first, last = block == k_last;
    const int64_t k = k_begin(run, block), count = k_begin(run, block + 1) - k, depth = ceil_div(count, p.per_word);
    const float* b = own_b;
    if (p.shared_b) b = run.shared_b + (block * p.depth * p.n_panels + n_begin * depth) * kColumns;
    else for (int64_t j = n_begin; j < n_end; ++j) pack_b<Pairs, T>(g, own_b + (j - n_begin) * depth * kColumns, j * kColumns, k, count);
    c.accumulate = onto_c || (plain && !first);

    for (int64_t i = m_begin; i < m_end; ++i) {
      const int64_t row = i * kRows;
      const int rows = int(at_most(kRows, g.m - row));
      Tile t;
      t.depth = depth;
      if (p.direct_a) {
        t.a = reinterpret_cast<const word*>(static_cast<const T*>(g.a.data) + row * g.k), t.a_stride = p.words;
      } else {
        pack_a<Pairs, T>(run, own_a, row, rows, k, count, split, first, n_block == 0);
        t.a = own_a, t.a_stride = g.a.k_contiguous ? depth : kRows;
      }
      for (int64_t j = n_begin; j < n_end; ++j) {
        const int64_t column = j * kColumns;
        const int columns = int(at_most(kColumns, g.n - column)), vectors = columns > kLanes ? 2 : 1;
        t.b = b + (j - n_begin) * depth * kColumns;
        if (plain && columns == vectors * kLanes) {
          t.out = static_cast<float*>(c.out) + row * g.n + column, t.out_stride = g.n;
          t.start = c.accumulate ? t.out : nullptr, t.start_stride = g.n;
          multiply<Pairs>(g.a.k_contiguous, vectors, rows, t);
          continue;
        }
        float finished[kRows * kColumns];
        float* const tile = p.scratch_c ? waiting + ((i - m_begin) * (n_end - n_begin) + j - n_begin) * kRows * kColumns : nullptr;
        t.start = tile && !first ? tile : nullptr, t.out = tile && !last ? tile : finished;
        t.start_stride = t.out_stride = kColumns;
        multiply<Pairs>(g.a.k_contiguous, vectors, rows, t);
        if (t.out == finished) finish_tile(c, g.type, g.n, finished, kColumns, row, column, rows, columns);
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
      pack_b<Pairs, T>(g, out, j * kColumns, k, count);
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

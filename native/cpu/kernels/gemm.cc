// The GEMM over its blocks of C (blocking.h). Each thread packs what its block needs into its own scratch space, except that a B small
// enough is packed once for all.
#include "gemm.h"

#include "blocking.h"

namespace mae { namespace cpu { namespace MAE_ISA {
namespace {

// Panels [from, to) of B, elements [k, k + count) along k.
template <bool Pairs, class T>
void pack_b(const Gemm& g, float* out, int64_t from, int64_t to, int64_t k, int64_t count) {
  const T* b = static_cast<const T*>(g.b.data);
  const int64_t begin = from * kColumns, end = at_most(to * kColumns, g.n);
  if (!g.b.k_contiguous) return pack_rows<Pairs>(out, b + k * g.n + begin, g.n, int(end - begin), count);
  const int64_t words = words_of<Pairs>(count);
  for (int64_t column = begin; column < end; column += kColumns, out += panel_stride(words, kColumns)) {
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

// Panel j of a block of k, `depth` words, in the B packed for all.
float* shared_panel(const Run& run, int64_t block, int64_t j, int64_t depth) {
  return run.shared_b + block * run.p.n_panels * panel_stride(run.p.depth, kColumns) + j * panel_stride(depth, kColumns);
}

// Some panels of A along one block of k: what is packed together. rows = 0: none.
struct Piece {
  int64_t row, rows, k, count;
};

// Words [from, to) of a piece of A[k, m].
template <bool Pairs, class T>
void pack_words(const Gemm& g, float* out, const Piece& a, int64_t from, int64_t to) {
  const int64_t first = from * kPerWord<Pairs>, last = at_most(to * kPerWord<Pairs>, a.count);
  const T* begin = static_cast<const T*>(g.a.data) + (a.k + first) * g.m + a.row;
  pack_columns<Pairs>(out + from * kRowStride, panel_stride(words_of<Pairs>(a.count), kRowStride), begin, g.m, a.rows, g.m - a.row, last - first);
}

// Takes the sums along k of a piece that pack_words wrote; resume: onto those of the blocks of k before.
template <bool Pairs>
void sum_rows(const Run& run, const float* panel, const Piece& a, int64_t split, bool resume) {
  float* const total = (run.partial_sums ? run.partial_sums + split * run.g.m : run.g.row_sums) + a.row;
  const int64_t words = words_of<Pairs>(a.count);
  for (int64_t r = 0; r < a.rows; r += kRows, panel += panel_stride(words, kRowStride)) {
    const size_t bytes = size_t(at_most(kRows, a.rows - r)) * 4;
    float sums[kRowStride] = {};
    if (resume) memcpy(sums, total + r, bytes);
    sum_panel<Pairs>(sums, panel, words);
    memcpy(total + r, sums, bytes);
  }
}

// What the tile number `call` of those that share a piece of A brings into L2 of the next piece: of A[m, k] four rows, along k as fast as the
// tile itself; of A[k, m] the words [from, to), which are packed after it.
template <bool Pairs, class T>
Ahead ahead_of(const Gemm& g, const Piece& next, int64_t depth, int64_t call, int64_t from, int64_t to) {
  const char* a = static_cast<const char*>(g.a.data);
  const int64_t size = sizeof(T), line = 64;
  if (g.a.k_contiguous) {
    const int64_t ld = g.k * size;
    return {a + (next.row + 4 * call) * ld + next.k * size, ld, 2 * ld, line, line / int64_t(sizeof(word))};
  }
  const int64_t ld = g.m * size, lines = (to - from) * kPerWord<Pairs>;
  const int64_t words = lines ? at_least(kUnroll, depth / lines / kUnroll * kUnroll) : depth + 1;
  return {a + (next.k + from * kPerWord<Pairs>) * ld + next.row * size, line, 2 * line, ld, words};
}

// One block of C over one split of k.
template <bool Pairs, class T>
void run_block(const Run& run, int64_t split, int64_t m_block, int64_t n_block, int64_t slot) {
  const Gemm& g = run.g;
  const Plan& p = run.p;
  char* space = run.slots + slot * slot_bytes(p);
  float* const own_b = reinterpret_cast<float*>(space);
  float* a = reinterpret_cast<float*>(space + p.b_bytes);                     // a piece of A, packed
  float* a_after = reinterpret_cast<float*>(space + p.b_bytes + p.a_bytes / 2);  // the one after it
  float* const waiting = reinterpret_cast<float*>(space + p.b_bytes + p.a_bytes);  // tiles of C between two blocks of k
  const int64_t m_begin = begin_of(p.m_panels, p.m_blocks, m_block), m_end = begin_of(p.m_panels, p.m_blocks, m_block + 1);
  const int64_t n_begin = begin_of(p.n_panels, p.n_blocks, n_block), n_end = begin_of(p.n_panels, p.n_blocks, n_block + 1);
  const int64_t k_first = begin_of(p.k_blocks, p.splits, split), k_last = begin_of(p.k_blocks, p.splits, split + 1) - 1;
  const bool plain = is_plain(g.c), by_row = g.a.k_contiguous, sums = g.row_sums && n_block == 0;
  const int64_t group = p.direct_a ? 1 : kGroup;
  Epilogue c = g.c;
  if (run.partials) c.out = run.partials + split * g.m * g.n;
  const bool onto_c = c.accumulate && !run.partials;
  const auto piece = [&](int64_t panel, int64_t block) {
    const int64_t row = panel * kRows, k = k_begin(run, block);
    return Piece{row, at_most(at_most(panel + group, m_end) * kRows, g.m) - row, k, k_begin(run, block + 1) - k};
  };

  for (int64_t block = k_first; block <= k_last; ++block) {
    const bool first = block == k_first, last = block == k_last;
    const Piece whole = piece(m_begin, block);
    const int64_t depth = words_of<Pairs>(whole.count);
    const float* b = own_b;
    if (p.shared_b) b = shared_panel(run, block, n_begin, depth);
    else pack_b<Pairs, T>(g, own_b, n_begin, n_end, whole.k, whole.count);
    if (plain && (onto_c || !first)) c.add = c.out, c.add_type = F32;
    if (!by_row && first) pack_words<Pairs, T>(g, a, whole, 0, depth);

    for (int64_t i = m_begin; i < m_end; i += group) {
      const Piece now = piece(i, block);
      const Piece next = i + group < m_end ? piece(i + group, block) : !last ? piece(m_begin, block + 1) : Piece{};
      const int64_t next_depth = words_of<Pairs>(next.count);
      if (by_row && !p.direct_a) copy_rows<Pairs>(a, static_cast<const T*>(g.a.data) + now.row * g.k + now.k, g.k, int(now.rows), now.count);
      if (sums) sum_rows<Pairs>(run, a, now, split, !first || (g.accumulate_row_sums && !run.partial_sums));
      const int64_t width = n_end - n_begin, calls = ceil_div(now.rows, kRows) * width;
      for (int64_t call = 0; call < calls; ++call) {
        const int64_t panel = call / width, j = n_begin + call % width;
        const int64_t row = now.row + panel * kRows, column = j * kColumns;
        const int rows = int(at_most(kRows, g.m - row));
        const int columns = int(at_most(kColumns, g.n - column)), vectors = columns > kLanes ? 2 : 1;
        const int64_t from = begin_of(next_depth, calls, call), to = begin_of(next_depth, calls, call + 1);
        Tile t;
        t.depth = depth;
        if (p.direct_a) t.a = reinterpret_cast<const word*>(static_cast<const T*>(g.a.data) + row * g.k + now.k), t.a_stride = p.words;
        else if (by_row) t.a = a + panel * kRows * depth, t.a_stride = depth;
        else t.a = a + panel * panel_stride(depth, kRowStride), t.a_stride = kRowStride;
        t.b = b + (j - n_begin) * panel_stride(depth, kColumns);
        t.ahead = ahead_of<Pairs, T>(g, next, depth, call, from, to);
        if (plain && columns == vectors * kLanes) {
          t.out = static_cast<float*>(c.out) + row * g.n + column, t.out_stride = g.n;
          t.start = c.add ? t.out : nullptr, t.start_stride = g.n;
          fetch_rows(t.out + (j + 1 < n_end ? kColumns : kRows * g.n + (n_begin - j) * kColumns), g.n * 4, rows, kColumns * 4);  // the next
          multiply<Pairs>(by_row, vectors, rows, t);
        } else {
          alignas(64) float finished[kRows * kColumns];
          float* const tile = p.scratch_c ? waiting + ((row / kRows - m_begin) * width + j - n_begin) * kRows * kColumns : nullptr;
          t.start = tile && !first ? tile : nullptr, t.out = tile && !last ? tile : finished;
          t.start_stride = t.out_stride = kColumns;
          if (t.out == finished) fetch_tile(c, g.type, g.n, row, column, rows, columns);
          multiply<Pairs>(by_row, vectors, rows, t);
          if (t.out == finished) finish_tile(c, g.type, g.n, finished, row, column, rows, columns);
        }
        if (!by_row && next.rows) pack_words<Pairs, T>(g, a_after, next, from, to);
      }
      if (!by_row) {
        float* const done = a;
        a = a_after, a_after = done;
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
      pack_b<Pairs, T>(g, shared_panel(run, block, j, ceil_div(count, p.per_word)), j, j + 1, k, count);
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
  const Operand c = {g.c.out, F32, g.c.accumulate ? kAccumulate : 0}, sums = {g.row_sums, F32, g.accumulate_row_sums ? kAccumulate : 0};
  if (run.partials) sum_partials(run.partials, p.splits, g.m * g.n, g.m * g.n, c);
  if (run.partial_sums) sum_partials(run.partial_sums, p.splits, g.m, g.m, sums);
}

}}}  // namespace mae::cpu::MAE_ISA

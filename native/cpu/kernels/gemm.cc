// The GEMM over its blocks of C (blocking.h). Each thread packs what its block needs into its own scratch space, except that a B small
// enough is packed once for all.
#include "gemm.h"

#include "blocking.h"

namespace mae { namespace cpu { namespace MAE_ISA {
namespace {

// One gemm call, with its workspace.
struct Run {
  const Gemm& g;
  const Plan& p;
  float* shared_b;
  float* partials;      // [splits, m, n]
  float* partial_sums;  // [splits, m]
  char* slots;
};

// Panels [from, to) of B, elements [k, k + count) along k.
template <bool Pairs, class T>
void pack_b(const Gemm& g, float* out, int64_t from, int64_t to, int64_t k, int64_t count) {
  const T* b = static_cast<const T*>(g.b.data);
  const int64_t begin = from * kColumns, end = at_most(to * kColumns, g.n);
  if (!g.b.k_contiguous) return pack_rows<Pairs>(out, b + k * g.n + begin, g.n, int(end - begin), count);
  for (int64_t column = begin; column < end; column += kColumns, out += panel_stride(words_of<Pairs>(count))) {
    const int columns = int(at_most(kColumns, end - column));
    pack_transposed<Pairs>(out, b + column * g.k + k, g.k, columns, count, columns > kLanes ? 2 : 1);
  }
}

// Elements [begin, begin + count) of k, in `words` words.
struct BlockOfK {
  int64_t begin, count, words;
};
BlockOfK block_of_k(const Run& run, int64_t block) {
  const int64_t size = run.p.depth * run.p.per_word, begin = block * size, count = at_most(begin + size, run.g.k) - begin;
  return {begin, count, ceil_div(count, run.p.per_word)};
}

// Panel j of a block of k in the B packed for all.
float* shared_panel(const Run& run, int64_t block, int64_t j) {
  return run.shared_b + block * run.p.n_panels * panel_stride(run.p.depth) + j * panel_stride(block_of_k(run, block).words);
}

// A block of C over a block of k: panels of A meet panels of B.
struct Pass {
  int64_t split, m_begin, m_end, n_begin, n_end;  // panels
  BlockOfK k;
  bool first, last;    // block of k of the split
  int64_t raw_end;     // panels of B before it are read where they lie by the first panel of A, which leaves them packed
  float* b;            // packed
  float *a, *a_after;  // packed: a panel of A, and the next
  float* waiting;      // tiles of C between two blocks of k
};

// Σ_k of the packed panel i of A, onto the sums of the blocks of k before.
template <bool Pairs>
void sum_rows(const Run& run, const Pass& pass, int64_t i) {
  const int64_t row = i * kRows;
  float* const total = (run.partial_sums ? run.partial_sums + pass.split * run.g.m : run.g.row_sums) + row;
  const size_t bytes = size_t(at_most(kRows, run.g.m - row)) * 4;
  float sums[kRowStride] = {};
  if (!pass.first || (run.g.accumulate_row_sums && !run.partial_sums)) memcpy(sums, total, bytes);
  sum_panel<Pairs>(sums, pass.a, pass.k.words);
  memcpy(total, sums, bytes);
}

// Where the tiles of a pass go; where they are the result itself, `add` is what they start from.
Epilogue epilogue_of(const Run& run, const Pass& pass) {
  Epilogue c = run.g.c;
  if (run.partials) c.out = run.partials + pass.split * run.g.m * run.g.n;
  const bool onto_c = c.accumulate && !run.partials;
  if (is_plain(c) && (onto_c || !pass.first)) c.add = c.out, c.add_type = F32;
  return c;
}

// Packs the pass's block of B, but whole panels of B[k, n] are left to the first panel of A, if that is whole itself.
template <bool Pairs, class T>
void pack_own_b(const Gemm& g, Pass& pass) {
  const bool raw = !g.b.k_contiguous && g.m >= (pass.m_begin + 1) * kRows && pass.k.count % kPerWord<Pairs> == 0;
  pass.raw_end = raw ? at_most(pass.n_end, g.n / kColumns) : pass.n_begin;
  float* const rest = pass.b + (pass.raw_end - pass.n_begin) * panel_stride(pass.k.words);
  pack_b<Pairs, T>(g, rest, pass.raw_end, pass.n_end, pass.k.begin, pass.k.count);
}

// Panel j of B as panel i of A finds it. Where that leaves it packed, what the next tile reads first is asked for.
template <bool Pairs, class T>
void take_b(const Run& run, const Pass& pass, int64_t i, int64_t j, Tile& t) {
  t.b = pass.b + (j - pass.n_begin) * panel_stride(pass.k.words);
  t.raw_b = nullptr;
  if (i > pass.m_begin || j >= pass.raw_end) return;
  const int64_t ld = run.g.n, size = int64_t(sizeof(T));
  const T* const raw = static_cast<const T*>(run.g.b.data) + pass.k.begin * ld + j * kColumns;
  t.raw_b = raw, t.raw_stride = ld;
  if (j + 1 < pass.raw_end) fetch_rows(raw + kColumns, ld * size, kRawAhead * kPerWord<Pairs>, kColumns * size);
}

// Panel i of A meets panel j of B. t, with the operands, comes by reference: a copy of it would be read in vectors wider than it was written
// in, and so wait until all stores before it, the last tile's among them, have reached the cache.
template <bool Pairs, class T>
void compute_tile(const Run& run, const Pass& pass, const Epilogue& c, int64_t i, int64_t j, Tile& t) {
  const Gemm& g = run.g;
  const int64_t row = i * kRows, column = j * kColumns;
  take_b<Pairs, T>(run, pass, i, j, t);
  const int rows = int(at_most(kRows, g.m - row)), columns = int(at_most(kColumns, g.n - column)), vectors = columns > kLanes ? 2 : 1;
  if (is_plain(g.c) && columns == vectors * kLanes) {
    t.out = static_cast<float*>(c.out) + row * g.n + column, t.out_stride = g.n;
    t.start = c.add ? t.out : nullptr, t.start_stride = g.n;
    const float* next = t.out + (j + 1 < pass.n_end ? kColumns : kRows * g.n + (pass.n_begin - j) * kColumns);
    fetch_rows(next, g.n * 4, rows, kColumns * 4);
    return multiply<Pairs, T>(g.a.k_contiguous, vectors, rows, t);
  }
  alignas(64) float finished[kRows * kColumns];
  float* tile = nullptr;
  if (run.p.scratch_c) tile = pass.waiting + ((i - pass.m_begin) * (pass.n_end - pass.n_begin) + j - pass.n_begin) * kRows * kColumns;
  t.start = tile && !pass.first ? tile : nullptr, t.out = tile && !pass.last ? tile : finished;
  t.start_stride = t.out_stride = kColumns;
  if (t.out == finished) fetch_tile(c, g.type, g.n, row, column, rows, columns);
  multiply<Pairs, T>(g.a.k_contiguous, vectors, rows, t);
  if (t.out == finished) finish_tile(c, g.type, g.n, finished, row, column, rows, columns);
}

// A[m, k]: rows are used as they are, or copied.
template <bool Pairs, class T>
void pass_by_row(const Run& run, const Pass& pass) {
  const Gemm& g = run.g;
  const Epilogue c = epilogue_of(run, pass);
  const int64_t ld = g.k * int64_t(sizeof(T)), line = 64, every = line / int64_t(sizeof(word));
  for (int64_t i = pass.m_begin; i < pass.m_end; ++i) {
    const T* const a = static_cast<const T*>(g.a.data) + i * kRows * g.k + pass.k.begin;
    const T* next = a + kRows * g.k;  // rows of the next panel, brought into L2: four beside each tile, along k as fast as the tile itself
    Tile t = {};
    t.depth = pass.k.words, t.a = pass.a, t.a_stride = pass.k.words;
    if (run.p.direct_a) t.a = reinterpret_cast<const word*>(a), t.a_stride = run.p.words;
    else copy_rows<Pairs>(pass.a, a, g.k, int(at_most(kRows, g.m - i * kRows)), pass.k.count);
    for (int64_t j = pass.n_begin; j < pass.n_end; ++j, next += 4 * g.k) {
      t.errand = {t.depth / every, every, reinterpret_cast<const char*>(next), line, 0, ld, 2 * ld, nullptr, false};
      compute_tile<Pairs, T>(run, pass, c, i, j, t);
    }
  }
}

// A[k, m]: beside the tiles of a panel the next one is packed.
template <bool Pairs, class T>
void pass_by_column(const Run& run, Pass& pass, const BlockOfK& next_k) {
  const Gemm& g = run.g;
  const Epilogue c = epilogue_of(run, pass);
  const int64_t width = pass.n_end - pass.n_begin;
  const auto strip = [&](int64_t i, const BlockOfK& k, float* to) {
    return Strip<T>{static_cast<const T*>(g.a.data) + k.begin * g.m + i * kRows, g.m, k.count, g.m - i * kRows, to};
  };
  if (pass.first) pack_words<Pairs>(strip(pass.m_begin, pass.k, pass.a), 0, pass.k.words);
  for (int64_t i = pass.m_begin; i < pass.m_end; ++i) {
    const bool within = i + 1 < pass.m_end;
    const BlockOfK& k = within ? pass.k : next_k;
    const Strip<T> next = strip(within ? i + 1 : pass.m_begin, k, pass.a_after);
    if (g.row_sums && pass.n_begin == 0) sum_rows<Pairs>(run, pass, i);
    Tile t = {};
    t.depth = pass.k.words, t.a = pass.a, t.a_stride = kRowStride;
    for (int64_t call = 0; call < width; ++call) {
      const int64_t begin = begin_of(k.words, width, call), end = begin_of(k.words, width, call + 1);
      t.errand = errand_for<Pairs>(next, begin, end, t.depth);
      compute_tile<Pairs, T>(run, pass, c, i, pass.n_begin + call, t);
      pack_words<Pairs>(next, begin + t.errand.count, end);
    }
    float* const done = pass.a;
    pass.a = pass.a_after, pass.a_after = done;
  }
}

// One block of C over one split of k, in the scratch space `slot`.
template <bool Pairs, class T>
void run_block(const Run& run, int64_t split, int64_t m_block, int64_t n_block, int64_t slot) {
  const Plan& p = run.p;
  float* const own_b = reinterpret_cast<float*>(run.slots + slot * slot_bytes(p));
  Pass pass = {};
  pass.split = split;
  pass.m_begin = begin_of(p.m_panels, p.m_blocks, m_block), pass.m_end = begin_of(p.m_panels, p.m_blocks, m_block + 1);
  pass.n_begin = begin_of(p.n_panels, p.n_blocks, n_block), pass.n_end = begin_of(p.n_panels, p.n_blocks, n_block + 1);
  pass.a = own_b + p.b_bytes / 4, pass.a_after = pass.a + p.a_bytes / 8;
  pass.waiting = pass.a + p.a_bytes / 4;
  const int64_t begin = begin_of(p.k_blocks, p.splits, split), end = begin_of(p.k_blocks, p.splits, split + 1);
  for (int64_t block = begin; block < end; ++block) {
    pass.k = block_of_k(run, block), pass.first = block == begin, pass.last = block + 1 == end;
    pass.b = p.shared_b ? shared_panel(run, block, pass.n_begin) : own_b;
    if (!p.shared_b) pack_own_b<Pairs, T>(run.g, pass);
    if (run.g.a.k_contiguous) pass_by_row<Pairs, T>(run, pass);
    else pass_by_column<Pairs, T>(run, pass, pass.last ? BlockOfK{} : block_of_k(run, block + 1));
  }
}

template <bool Pairs, class T>
void run_all(const Run& run) {
  const Plan& p = run.p;
  if (p.shared_b) {
    parallel_for(p.k_blocks * p.n_panels, [&](int64_t chunk, int) {
      const int64_t block = chunk / p.n_panels, j = chunk % p.n_panels;
      const BlockOfK k = block_of_k(run, block);
      pack_b<Pairs, T>(run.g, shared_panel(run, block, j), j, j + 1, k.begin, k.count);
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

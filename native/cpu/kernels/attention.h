// What attention and its gradient share: one head's matrices packed into scratch memory, a register-blocked GEMM over them, and the pieces
// of the softmax.
//
// A packed matrix holds 4-byte units along the axis that a product sums over: one float, or a pair of bf16 that vdpbf16ps multiplies and
// adds at once. With T tokens, head dimension d and G elements in a unit, a matrix [T, d] is packed in up to three layouts, their strides
// padded to whole vectors:
//   rows     [T, d/G]  a row is a token: left operand of a product that sums over d
//   columns  [d/G, T]  the transpose of rows: right operand of a product that sums over d
//   groups   [T/G, d]  unit (t, i) is element i of tokens G·t … G·t + G−1: right operand of a product that sums over tokens
// With G = 1 rows and groups are the same.
//
// Scores are kept transposed, [key, query]: the softmax then runs down the lanes, without a horizontal sum or maximum.
#pragma once
#include <math.h>
#include "../chunks.h"

namespace mae { namespace cpu { namespace MAE_ISA {

static inline int64_t whole_vectors(int64_t n) { return ceil_div(n, kLanes) * kLanes; }
static inline int64_t whole_quads(int64_t n) { return ceil_div(n, 4) * 4; }

// The two kinds of unit. The bits of a unit travel in floats.
struct Floats {
  static constexpr int kGroup = 1;
};
static inline vf broadcast(Floats, const float* unit) { return splat(*unit); }
static inline vf multiply_add(Floats, vf a, vf b, vf sum) { return a * b + sum; }
template <class T, class N>
static inline vf load_units(Floats, const T* row, int64_t unit, N n) {
  return load(row + unit, n);
}
// Elements [i, i + kLanes) of a row in the layout rows; kLanes units of the layout groups from kGroup rows.
static inline void store_in_row(Floats, float* row, int64_t i, vf v) { store(row + i, v); }
static inline void store_group(Floats, float* to, const vf* v) { store(to, v[0]); }

#if defined(__AVX512BF16__)
struct Pairs {
  static constexpr int kGroup = 2;
};
static inline vf broadcast(Pairs, const float* unit) {
  int32_t bits;
  memcpy(&bits, unit, sizeof bits);
  return (vf)_mm512_set1_epi32(bits);
}
static inline vf multiply_add(Pairs, vf a, vf b, vf sum) { return (vf)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b); }
template <class N>
static inline vf load_units(Pairs, const uint16_t* row, int64_t unit, N n) {
  return load(reinterpret_cast<const float*>(row) + unit, n);
}
static inline void store_in_row(Pairs, float* row, int64_t i, vf v) { store(reinterpret_cast<uint16_t*>(row) + i, v); }
static inline void store_group(Pairs, float* to, const vf* v) {
  const __m512i interleave = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8,  //
                                              23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  store(to, (vf)_mm512_permutexvar_epi16(interleave, (__m512i)_mm512_cvtne2ps_pbh((__m512)v[1], (__m512)v[0])));
}
#endif

// body(element, units) with the element type and units of a call. bf16 is widened to floats where there is no vdpbf16ps, and where an odd
// head dimension has no pairs.
template <class F>
static inline void with_units(DType dtype, int64_t head_dim, const F& body) {
#if defined(__AVX512BF16__)
  if (dtype == BF16 && head_dim % 2 == 0) return body(uint16_t{}, Pairs{});
#endif
  (void)head_dim;
  dtype == BF16 ? body(uint16_t{}, Floats{}) : body(float{}, Floats{});
}

// A matrix of floats or units in scratch memory.
struct Matrix {
  float* at;
  int64_t stride;
};
static inline float* row_of(Matrix m, int64_t row) { return m.at + row * m.stride; }

// Scratch memory is cut from the front of a thread's share of the workspace; with memory = null only the size is counted.
struct Scratch {
  float* memory;
  int64_t used;  // floats
};
static inline Matrix take(Scratch& s, int64_t rows, int64_t stride) {
  const Matrix m = {s.memory ? s.memory + s.used : nullptr, stride};
  s.used += ceil_div(rows * stride, 16) * 16;  // whole cache lines of 64 bytes
  return m;
}

// One head's matrix in memory: `tokens` rows of `width` elements, `stride` elements apart.
template <class T>
struct HeadMatrix {
  T* at;
  int64_t stride, tokens, width;
};

// Matrix `part` of head `head` (counted over the batch) in x [batch, tokens, parts, heads, head_dim]; Args: attention's or its gradient's.
template <class T, class Args>
static inline HeadMatrix<T> head_matrix(const Operand& x, int64_t parts, int64_t part, const Args& a, int64_t head) {
  const int64_t stride = parts * a.heads * a.head_dim;
  T* picture = static_cast<T*>(x.data) + head / a.heads * a.tokens * stride;
  return {picture + (part * a.heads + head % a.heads) * a.head_dim, stride, a.tokens, a.head_dim};
}
template <class T>
static inline HeadMatrix<T> tokens_of(const HeadMatrix<T>& x, int64_t begin, int64_t count) {
  return {x.at + begin * x.stride, x.stride, count, x.width};
}

template <class U, class T>
static inline void pack_rows(U u, const HeadMatrix<T>& x, Matrix to) {
  for (int64_t t = 0; t < x.tokens; ++t) {
    const T* row = x.at + t * x.stride;
    for_lanes(x.width / U::kGroup, [&](int64_t i, auto n) { store(row_of(to, t) + i, load_units(u, row, i, n)); });
  }
}

// Zeros stand for the token that the last group may lack.
template <class T>
static inline void pack_groups(Floats u, const HeadMatrix<T>& x, Matrix to) {
  pack_rows(u, x, to);
}
#if defined(__AVX512BF16__)
static inline void pack_groups(Pairs, const HeadMatrix<uint16_t>& x, Matrix to) {
  for (int64_t t = 0; t < x.tokens; t += 2) {
    const uint16_t* row = x.at + t * x.stride;
    for_lanes(x.width, [&](int64_t i, auto n) {
      const vf even = load(row + i, n), odd = t + 1 < x.tokens ? load(row + x.stride + i, n) : vf{};
      store(row_of(to, t / 2) + i, (vf)((vu)even >> 16 | (vu)odd));
    });
  }
}
#endif

// Four units of kLanes rows, `stride` apart, to four rows of kLanes units.
static inline void transpose_quad(const float* x, int64_t stride, Matrix to) {
#if defined(__AVX512F__) || defined(__AVX2__)
#if defined(__AVX512F__)
#define MAE_MM(name) _mm512_##name
  typedef __m512 vs;
  typedef __m512d vd;
  vs row[4];  // 128-bit lane l of row[r]: the units of row 4·l + r, merged while loading, which costs no shuffle
  for (int r = 0; r < 4; ++r) {
    vs v = _mm512_castps128_ps512(_mm_loadu_ps(x + r * stride));
    v = _mm512_mask_broadcast_f32x4(v, 0x00f0, _mm_loadu_ps(x + (r + 4) * stride));
    v = _mm512_mask_broadcast_f32x4(v, 0x0f00, _mm_loadu_ps(x + (r + 8) * stride));
    row[r] = _mm512_mask_broadcast_f32x4(v, 0xf000, _mm_loadu_ps(x + (r + 12) * stride));
  }
#else
#define MAE_MM(name) _mm256_##name
  typedef __m256 vs;
  typedef __m256d vd;
  vs row[4];
  for (int r = 0; r < 4; ++r) {
    row[r] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(x + r * stride)), _mm_loadu_ps(x + (r + 4) * stride), 1);
  }
#endif
  const vd a = (vd)MAE_MM(unpacklo_ps)(row[0], row[1]), b = (vd)MAE_MM(unpackhi_ps)(row[0], row[1]);
  const vd c = (vd)MAE_MM(unpacklo_ps)(row[2], row[3]), d = (vd)MAE_MM(unpackhi_ps)(row[2], row[3]);
  store(row_of(to, 0), (vf)MAE_MM(unpacklo_pd)(a, c));
  store(row_of(to, 1), (vf)MAE_MM(unpackhi_pd)(a, c));
  store(row_of(to, 2), (vf)MAE_MM(unpacklo_pd)(b, d));
  store(row_of(to, 3), (vf)MAE_MM(unpackhi_pd)(b, d));
#undef MAE_MM
#else
  for (int r = 0; r < kLanes; ++r) {
    for (int i = 0; i < 4; ++i) memcpy(row_of(to, i) + r, x + r * stride + i, sizeof(float));
  }
#endif
}

// rows [tokens, width] → columns [width, tokens]. Zeros fill the last vector of tokens, and the rows up to a multiple of 4.
static inline void pack_columns(const HeadMatrix<float>& x, Matrix to) {
  for (int64_t t = 0; t < x.tokens; t += kLanes) {
    const int64_t rows = x.tokens - t < kLanes ? x.tokens - t : kLanes;
    for (int64_t i = 0; i < x.width; i += 4) {
      const float* from = x.at + t * x.stride + i;
      const Matrix quad = {row_of(to, i) + t, to.stride};
      const int64_t units = x.width - i < 4 ? x.width - i : 4;
      if (rows == kLanes && units == 4) {
        transpose_quad(from, x.stride, quad);
        continue;
      }
      float padded[kLanes][4] = {};
      for (int64_t r = 0; r < rows; ++r, from += x.stride) {
        if (units == 4) {  // a size that the compiler knows: two moves instead of a call
          memcpy(padded[r], from, sizeof padded[r]);
        } else {
          memcpy(padded[r], from, size_t(units) * sizeof(float));
        }
      }
      transpose_quad(padded[0], 4, quad);
    }
  }
}

// x in the layout rows: x itself where its elements already are units, else packed into `rows`.
static inline HeadMatrix<float> units_of(Floats, const HeadMatrix<float>& x, Matrix) { return x; }
static inline HeadMatrix<float> units_of(Floats u, const HeadMatrix<uint16_t>& x, Matrix rows) {
  pack_rows(u, x, rows);
  return {rows.at, rows.stride, x.tokens, x.width};
}
#if defined(__AVX512BF16__)
static inline HeadMatrix<float> units_of(Pairs, const HeadMatrix<uint16_t>& x, Matrix) {
  return {reinterpret_cast<float*>(x.at), x.stride / 2, x.tokens, x.width / 2};
}
#endif

// to[t, i] = x[t, i] · factor(t), rounded to T.
template <class T, class F>
static inline void unpack(Matrix x, const HeadMatrix<T>& to, const F& factor) {
  for (int64_t t = 0; t < to.tokens; ++t) {
    const vf f = splat(factor(t));
    for_lanes(to.width, [&](int64_t i, auto n) { store(to.at + t * to.stride + i, load(row_of(x, t) + i) * f, n); });
  }
}

// How the left operand of a product lies: Rows a[m, k], Columns a[k, m].
enum class Left { Rows, Columns };

// These products are small, in cache and of any shape, so tiles follow the shape; the large GEMM's kernel (microkernel.h) has one shape of
// tile. R rows by V vectors of a product stay in registers while the sum runs. Of 32 vector registers 24 hold sums, the
// others the V vectors of b and a broadcast; of 16 hold 12 (8 on SSE, where a product takes a register before it is added).
#if defined(__AVX512F__)
constexpr int kMaxVectors = 4;
constexpr int max_rows(int vectors) { return vectors == 1 ? 8 : 24 / vectors; }
#elif defined(__AVX2__)
constexpr int kMaxVectors = 2;
constexpr int max_rows(int) { return 6; }
#elif defined(__aarch64__)
constexpr int kMaxVectors = 2;
constexpr int max_rows(int) { return 8; }
#else
constexpr int kMaxVectors = 2;
constexpr int max_rows(int) { return 4; }
#endif

template <class U, Left kLeft, int R, int V>
static void multiply_tile(int64_t depth, const float* a, int64_t a_stride, const float* b, int64_t b_stride, float* c, int64_t c_stride,
                          bool accumulate) {
  vf sum[R][V];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sum[r][v] = accumulate ? load(c + r * c_stride + v * kLanes) : vf{};
  }
  for (int64_t k = 0; k < depth; ++k) {
    vf right[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) right[v] = load(b + v * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const vf left = broadcast(U{}, kLeft == Left::Rows ? a + r * a_stride : a + r);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sum[r][v] = multiply_add(U{}, left, right[v], sum[r][v]);
    }
    a += kLeft == Left::Rows ? 1 : a_stride;
    b += b_stride;
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) store(c + v * kLanes, sum[r][v]);
    c += c_stride;
  }
}

typedef void (*TileFunction)(int64_t, const float*, int64_t, const float*, int64_t, float*, int64_t, bool);

// multiply_tile for as many vectors and rows, 1 ≤ vectors ≤ kMaxVectors, 1 ≤ rows ≤ max_rows(vectors).
template <class U, Left kLeft, int V, int R = max_rows(V)>
static inline TileFunction tile_of_rows(int64_t rows) {
  if constexpr (R > 1) {
    if (rows < R) return tile_of_rows<U, kLeft, V, R - 1>(rows);
  }
  return multiply_tile<U, kLeft, R, V>;
}
template <class U, Left kLeft, int V = kMaxVectors>
static inline TileFunction tile_of(int64_t vectors, int64_t rows) {
  if constexpr (V > 1) {
    if (vectors < V) return tile_of<U, kLeft, V - 1>(vectors, rows);
  }
  return tile_of_rows<U, kLeft, V>(rows);
}

// `items` in as few pieces of at most `most` as there can be, their sizes at most 1 apart.
struct Pieces {
  int64_t count, size, longer;  // the first `longer` pieces have size + 1
};
static inline Pieces even_pieces(int64_t items, int64_t most) {
  const int64_t count = ceil_div(items, most);
  return {count, items / count, items % count};
}
static inline int64_t piece_size(const Pieces& p, int64_t piece) { return p.size + (piece < p.longer); }

// The workspace of threads that each hold the scratch memory of one head: scratch(units, a, s) takes it from s.
template <class Args, class F>
static size_t heads_workspace(const Args& a, const F& scratch) {
  Scratch s = {nullptr, 0};
  with_units(a.qkv.dtype, a.head_dim, [&](auto, auto u) { scratch(u, a, s); });
  return size_t(threads() * s.used) * sizeof(float);
}
// body(element, units, head, scratch) for every picture's heads, on all threads.
template <class Args, class F, class Body>
static void for_heads(const Args& a, Context& context, const F& scratch, const Body& body) {
  with_units(a.qkv.dtype, a.head_dim, [&](auto element, auto u) {
    Scratch size = {nullptr, 0};
    scratch(u, a, size);
    float* workspace = static_cast<float*>(context.workspace);
    parallel_for(a.batch * a.heads, [&](int64_t head, int thread) {
      Scratch s = {workspace + thread * size.used, 0};
      body(element, u, head, scratch(u, a, s));
    });
  });
}

// The matrices of the head that this thread takes next, to be brought into L2 row by row while it works on the present one: the rows of a
// head lie pages apart, out of reach of the hardware's prefetching.
struct NextHead {
  const char* matrix[4];
  int64_t stride[4], row_bytes, rows, count;  // of matrices
  int64_t at, row;                            // the next row to ask for
};
template <class T>
static inline void add_matrix(NextHead& next, const HeadMatrix<T>& x) {
  next.matrix[next.count] = reinterpret_cast<const char*>(x.at);
  next.stride[next.count] = x.stride * int64_t(sizeof(T));
  next.row_bytes = x.width * int64_t(sizeof(T));
  next.rows = x.tokens;
  ++next.count;
}
static inline void prefetch_rows(NextHead& next, int64_t rows) {
  for (; rows > 0 && next.at < next.count; --rows) {
    const char* row = next.matrix[next.at] + next.row * next.stride[next.at];
    for (int64_t i = 0; i < next.row_bytes; i += 64) __builtin_prefetch(row + i, 0, 2);
    if (++next.row == next.rows) next.row = 0, ++next.at;
  }
}
constexpr int64_t kRowsPerTile = 8;  // asked for with each tile of a product: all of them in the time that a head takes at T = 50

// c[rows, columns] (+)= Σ_k a · b[depth, columns]. columns: whole vectors; depth: in units.
template <class U, Left kLeft>
static inline void multiply(int64_t rows, int64_t columns, int64_t depth, Matrix a, Matrix b, Matrix c, NextHead& next,
                            bool accumulate = false) {
  const Pieces panels = even_pieces(columns / kLanes, kMaxVectors);
  for (int64_t p = 0, column = 0; p < panels.count; ++p) {
    const int64_t vectors = piece_size(panels, p);
    const Pieces blocks = even_pieces(rows, max_rows(int(vectors)));
    const TileFunction longer = tile_of<U, kLeft>(vectors, blocks.size + 1), shorter = tile_of<U, kLeft>(vectors, blocks.size);
    for (int64_t i = 0, row = 0; i < blocks.count; ++i) {
      const float* left = kLeft == Left::Rows ? row_of(a, row) : a.at + row;
      const TileFunction tile = i < blocks.longer ? longer : shorter;
      prefetch_rows(next, kRowsPerTile);
      tile(depth, left, a.stride, b.at + column, b.stride, row_of(c, row) + column, c.stride, accumulate);
      row += piece_size(blocks, i);
    }
    column += vectors * kLanes;
  }
}

// Queries pass in tiles of at most 64, so that scores [tokens, tile] stay near the core whatever T is: at T = 257 64 KiB, and no slower
// than all queries at once (measured for 48, 64, 80, 112 and T).
static inline Pieces query_tiles(int64_t tokens) { return even_pieces(ceil_div(tokens, kLanes), 64 / kLanes); }
// Queries in the longest tile: whole vectors.
static inline int64_t query_stride(int64_t tokens) { return piece_size(query_tiles(tokens), 0) * kLanes; }
// body(begin, queries) for every tile, in order.
template <class F>
static inline void for_query_tiles(int64_t tokens, const F& body) {
  const Pieces tiles = query_tiles(tokens);
  for (int64_t tile = 0, begin = 0; tile < tiles.count; ++tile) {
    const int64_t padded = piece_size(tiles, tile) * kLanes, queries = padded < tokens - begin ? padded : tokens - begin;
    body(begin, queries);
    begin += queries;
  }
}

// 2ˣ for x ≤ 0, within 1.1 units in the last place; 2⁻¹⁰⁰ below −100, so that no weight and no product with one is denormal. NaN gives NaN.
// A softmax subtracts the maximum first, so its scores need no more, and the factor log₂e hides in their scale. Half the work of vexp.
static inline vf exp2_weight(vf x) {
  x = vmax(splat(-100.0f), x);
#if defined(__AVX512F__)
  const vf fraction = (vf)_mm512_reduce_ps((__m512)x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);  // x − ⌊x⌋
#else
  const float shift = 12582912.0f;  // 1.5·2²³: adding it rounds to an integer, which then lies in the low bits
  const vf shifted = (x - 0.5f) + shift, fraction = x - (shifted - shift);
#endif
  vf p = splat(0.000216129163f);  // 2^fraction on [0, 1]: minimax in relative error, 1 at 0; made for this file
  p = p * fraction + 0.00124678458f;
  p = p * fraction + 0.00967545155f;
  p = p * fraction + 0.0554852821f;
  p = p * fraction + 0.240229309f;
  p = p * fraction + 0.693147063f;
  p = p * fraction + 1.0f;
#if defined(__AVX512F__)
  return (vf)_mm512_maskz_scalef_ps(0xffff, (__m512)p, (__m512)x);  // p · 2^⌊x⌋
#else
  return p * (vf)(((vi)shifted - 0x4b400000 + 127) << 23);
#endif
}
constexpr float kLog2e = 1.44269504f;

// body(i, Vectors<V>) for the vectors of [0, columns): V = kMaxVectors at a time, whose chains of additions overlap, then one by one.
template <int V>
struct Vectors {};
template <class F>
static inline void for_vectors(int64_t columns, const F& body) {
  int64_t i = 0;
  for (; i + kMaxVectors * kLanes <= columns; i += kMaxVectors * kLanes) body(i, Vectors<kMaxVectors>{});
  for (; i < columns; i += kLanes) body(i, Vectors<1>{});
}

// The maximum of scale · scores down V vectors of columns.
template <int V>
static inline void column_maxima(Matrix scores, int64_t tokens, float scale, int64_t column, vf (&maximum)[V]) {
  for (int v = 0; v < V; ++v) maximum[v] = splat(-INFINITY);
  for (int64_t j = 0; j < tokens; ++j) {
    for (int v = 0; v < V; ++v) maximum[v] = vmax(maximum[v], load(row_of(scores, j) + column + v * kLanes) * scale);
  }
}

}}}  // namespace mae::cpu::MAE_ISA

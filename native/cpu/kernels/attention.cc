// out = softmax(scale · q · kᵀ) · v for every picture and head (Vaswani et al., 2017). One head is one chunk of work: its keys and values
// are packed once, then tiles of queries pass; scores and weights never leave the thread's scratch memory.
#include "attention.h"

namespace mae { namespace cpu { namespace MAE_ISA {

struct ForwardScratch {
  Matrix key_rows, value_groups;                  // the whole head
  Matrix query_columns, scores, weights, output;  // a tile of queries; weights are groups of keys
  Matrix sum;                                     // [1, tile]: of the weights
};

template <class U>
static inline ForwardScratch forward_scratch(U, const attention_args& a, Scratch& s) {
  const int64_t units = a.head_dim / U::kGroup, width = whole_vectors(a.head_dim), groups = ceil_div(a.tokens, U::kGroup);
  const int64_t tile = query_stride(a.tokens);
  ForwardScratch f;
  f.key_rows = take(s, a.tokens, whole_vectors(units));
  f.value_groups = take(s, groups, width);
  f.query_columns = take(s, whole_quads(units), tile);
  f.scores = take(s, a.tokens, tile);
  f.weights = U::kGroup == 1 ? f.scores : take(s, groups, tile);
  f.output = take(s, tile, width);
  f.sum = take(s, 1, tile);
  return f;
}

// weights = 2^(scale · scores − maximum) down V vectors of columns, with their sums beside them: the division is left to the output.
template <class U, int V>
static inline void softmax(U u, const ForwardScratch& f, int64_t tokens, float scale, int64_t column, Vectors<V>) {
  const Matrix scores = f.scores, weights = f.weights;
  vf maximum[V], sum[V] = {};
  column_maxima(scores, tokens, scale, column, maximum);
  for (int64_t j = 0; j < tokens; j += U::kGroup) {
    for (int v = 0; v < V; ++v) {
      const int64_t i = column + v * kLanes;
      vf weight[U::kGroup] = {};
      for (int64_t g = 0; g < U::kGroup && j + g < tokens; ++g) {
        weight[g] = exp2_weight(load(row_of(scores, j + g) + i) * scale - maximum[v]);
        sum[v] += weight[g];
      }
      store_group(u, row_of(weights, j / U::kGroup) + i, weight);
    }
  }
  for (int v = 0; v < V; ++v) store(f.sum.at + column + v * kLanes, sum[v]);
}

template <class U, class T>
static inline void attend_head(U u, const attention_args& a, int64_t head, const ForwardScratch& f) {
  const HeadMatrix<T> q = head_matrix<T>(a.qkv, 3, 0, a, head), out = head_matrix<T>(a.out, 1, 0, a, head);
  const int64_t units = a.head_dim / U::kGroup, groups = ceil_div(a.tokens, U::kGroup);
  pack_rows(u, head_matrix<T>(a.qkv, 3, 1, a, head), f.key_rows);
  pack_groups(u, head_matrix<T>(a.qkv, 3, 2, a, head), f.value_groups);
  NextHead next = {};  // a guess, harmless where another thread takes it
  if (head + threads() < a.batch * a.heads) {
    for (int part = 0; part < 3; ++part) add_matrix(next, head_matrix<T>(a.qkv, 3, part, a, head + threads()));
  }
  for_query_tiles(a.tokens, [&](int64_t begin, int64_t queries) {
    const int64_t columns = whole_vectors(queries);
    pack_columns(units_of(u, tokens_of(q, begin, queries), f.output), f.query_columns);
    multiply<U, Left::Rows>(a.tokens, columns, units, f.key_rows, f.query_columns, f.scores, next);
    for_vectors(columns, [&](int64_t column, auto v) { softmax(u, f, a.tokens, float(a.scale) * kLog2e, column, v); });
    multiply<U, Left::Columns>(queries, f.output.stride, groups, f.weights, f.value_groups, f.output, next);
    unpack(f.output, tokens_of(out, begin, queries), [&](int64_t t) { return 1.0f / f.sum.at[t]; });
  });
}

constexpr auto scratch = [](auto u, const auto& a, Scratch& s) { return forward_scratch(u, a, s); };

size_t attention_workspace(const attention_args& a) { return heads_workspace(a, scratch); }

void attention(const attention_args& a, Context& context) {
  for_heads(a, context, scratch, [&](auto element, auto u, int64_t head, const auto& f) {
    attend_head<decltype(u), decltype(element)>(u, a, head, f);
  });
}

}}}  // namespace mae::cpu::MAE_ISA

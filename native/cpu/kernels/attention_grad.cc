// The gradient of attention, one head a chunk of work. With P = softmax(scale · q · kᵀ), computed again, and dP = dout · vᵀ:
//   dv = Pᵀ · dout,  dS = P ∘ (dP − rowsum(P ∘ dP)),  dq = scale · dS · k,  dk = scale · dSᵀ · q.
// The row sum over all keys equals rowsum(out ∘ dout), so the output is not read. Tiles of queries pass through the thread's
// scratch memory; dk and dv add up over the tiles, in their order.
#include "attention.h"

namespace mae { namespace cpu { namespace MAE_ISA {

struct GradScratch {
  Matrix key_rows, value_rows, key_groups, dk, dv;                           // the whole head
  Matrix query_columns, query_groups, dout_columns, dout_groups, dq;         // a tile of queries
  Matrix scores, dweights, weight_rows, dscore_rows, dscore_groups;          // [keys, tile]; rows and groups of keys
};

template <class U>
static inline GradScratch grad_scratch(U, const attention_grad_args& a, Scratch& s) {
  constexpr int64_t G = U::kGroup;
  const int64_t units = a.head_dim / G, width = whole_vectors(a.head_dim), groups = ceil_div(a.tokens, G), tile = query_stride(a.tokens);
  GradScratch f;
  f.key_rows = take(s, a.tokens, whole_vectors(units));
  f.value_rows = take(s, a.tokens, whole_vectors(units));
  f.key_groups = G == 1 ? f.key_rows : take(s, groups, width);
  f.dk = take(s, a.tokens, width);
  f.dv = take(s, a.tokens, width);
  f.query_columns = take(s, whole_quads(units), tile);
  f.query_groups = take(s, tile / G, width);
  f.dout_columns = take(s, whole_quads(units), tile);
  f.dout_groups = take(s, tile / G, width);
  f.dq = take(s, tile, width);
  f.scores = take(s, a.tokens, tile);
  f.dweights = take(s, a.tokens, tile);
  f.weight_rows = G == 1 ? f.scores : take(s, a.tokens, tile / G);
  f.dscore_rows = G == 1 ? f.dweights : take(s, a.tokens, tile / G);
  f.dscore_groups = G == 1 ? f.dweights : take(s, groups, tile);
  return f;
}

// A tile of q or dout, which is a right operand both ways: in the sum over d and in the sum over queries.
template <class U, class T>
static inline void pack_both(U u, const HeadMatrix<T>& x, Matrix groups, Matrix columns) {
  pack_groups(u, x, groups);
  if constexpr (U::kGroup == 1) {
    pack_columns(HeadMatrix<float>{groups.at, groups.stride, x.tokens, x.width}, columns);
  } else {
    pack_columns(units_of(u, x, groups), columns);
  }
}

// P and dS from scores and dweights = dPᵀ, down V vectors of columns.
template <class U, int V>
static inline void softmax_grad(U u, const GradScratch& f, int64_t tokens, float scale, int64_t column, Vectors<V>) {
  const Matrix scores = f.scores, dweights = f.dweights, weight_rows = f.weight_rows, dscore_rows = f.dscore_rows;
  const Matrix dscore_groups = f.dscore_groups;
  vf maximum[V], normalise[V], mean[V], sum[V] = {}, dot[V] = {};
  column_maxima(scores, tokens, scale, column, maximum);
  for (int64_t j = 0; j < tokens; ++j) {
    for (int v = 0; v < V; ++v) {
      const int64_t i = column + v * kLanes;
      const vf weight = exp2_weight(load(row_of(scores, j) + i) * scale - maximum[v]);
      sum[v] += weight;
      dot[v] += weight * load(row_of(dweights, j) + i);
      store(row_of(scores, j) + i, weight);
    }
  }
  for (int v = 0; v < V; ++v) {
    normalise[v] = 1.0f / sum[v];
    mean[v] = dot[v] * normalise[v];
  }
  for (int64_t j = 0; j < tokens; j += U::kGroup) {
    for (int v = 0; v < V; ++v) {
      const int64_t i = column + v * kLanes;
      vf dscore[U::kGroup] = {};
      for (int64_t g = 0; g < U::kGroup && j + g < tokens; ++g) {
        const vf weight = load(row_of(scores, j + g) + i) * normalise[v];
        dscore[g] = weight * (load(row_of(dweights, j + g) + i) - mean[v]);
        store_in_row(u, row_of(weight_rows, j + g), i, weight);
        store_in_row(u, row_of(dscore_rows, j + g), i, dscore[g]);
      }
      if (U::kGroup > 1) store_group(u, row_of(dscore_groups, j / U::kGroup) + i, dscore);
    }
  }
}

template <class U, class T>
static inline void attend_head_grad(U u, const attention_grad_args& a, int64_t head, const GradScratch& f) {
  constexpr int64_t G = U::kGroup;
  const int64_t tokens = a.tokens, units = a.head_dim / G, width = whole_vectors(a.head_dim);
  const HeadMatrix<T> q = head_matrix<T>(a.qkv, 3, 0, a, head), k = head_matrix<T>(a.qkv, 3, 1, a, head);
  const HeadMatrix<T> dout = head_matrix<T>(a.dout, 1, 0, a, head), dq = head_matrix<T>(a.dqkv, 3, 0, a, head);
  const auto scale = [&](int64_t) { return float(a.scale); };
  pack_rows(u, k, f.key_rows);
  pack_rows(u, head_matrix<T>(a.qkv, 3, 2, a, head), f.value_rows);
  if (G > 1) pack_groups(u, k, f.key_groups);
  NextHead next = {};  // a guess, harmless where another thread takes it
  if (head + threads() < a.batch * a.heads) {
    for (int part = 0; part < 3; ++part) add_matrix(next, head_matrix<T>(a.qkv, 3, part, a, head + threads()));
    add_matrix(next, head_matrix<T>(a.dout, 1, 0, a, head + threads()));
  }
  for_query_tiles(tokens, [&](int64_t begin, int64_t queries) {
    const int64_t columns = whole_vectors(queries), groups = ceil_div(queries, G);
    const bool accumulate = begin > 0;
    pack_both(u, tokens_of(q, begin, queries), f.query_groups, f.query_columns);
    pack_both(u, tokens_of(dout, begin, queries), f.dout_groups, f.dout_columns);
    multiply<U, Left::Rows>(tokens, columns, units, f.key_rows, f.query_columns, f.scores, next);
    multiply<U, Left::Rows>(tokens, columns, units, f.value_rows, f.dout_columns, f.dweights, next);
    for_vectors(columns, [&](int64_t column, auto v) { softmax_grad(u, f, tokens, float(a.scale) * kLog2e, column, v); });
    multiply<U, Left::Columns>(queries, width, ceil_div(tokens, G), f.dscore_groups, f.key_groups, f.dq, next);
    multiply<U, Left::Rows>(tokens, width, groups, f.dscore_rows, f.query_groups, f.dk, next, accumulate);
    multiply<U, Left::Rows>(tokens, width, groups, f.weight_rows, f.dout_groups, f.dv, next, accumulate);
    unpack(f.dq, tokens_of(dq, begin, queries), scale);
  });
  unpack(f.dk, head_matrix<T>(a.dqkv, 3, 1, a, head), scale);
  unpack(f.dv, head_matrix<T>(a.dqkv, 3, 2, a, head), [](int64_t) { return 1.0f; });
}

constexpr auto scratch = [](auto u, const auto& a, Scratch& s) { return grad_scratch(u, a, s); };

size_t attention_grad_workspace(const attention_grad_args& a) { return heads_workspace(a, scratch); }

void attention_grad(const attention_grad_args& a, Context& context) {
  for_heads(a, context, scratch, [&](auto element, auto u, int64_t head, const auto& f) {
    attend_head_grad<decltype(u), decltype(element)>(u, a, head, f);
  });
}

}}}  // namespace mae::cpu::MAE_ISA

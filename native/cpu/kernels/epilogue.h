// What the GEMM does to a finished tile of C on its way to memory (struct Epilogue in gemm.h).
#pragma once
#include "../lanes.h"
#include "gemm.h"
#include "microkernel.h"
#include "vmath.h"

namespace mae { namespace cpu { namespace MAE_ISA {

// Whether the product is the result: such tiles go from the registers to C.
static inline bool is_plain(const Epilogue& e) {
  return e.out_type == F32 && !e.bias && !e.pre && !e.gelu && !e.gelu_of && !e.add && e.token_rows == 0;
}

// Rows of the product → rows of `out` and of `add`.
struct RowPair {
  int64_t out, add;
};
static inline RowPair map_row(const Epilogue& e, int64_t row) {
  if (e.token_rows == 0) return {row, row};
  const int64_t b = row / e.token_rows, j = row % e.token_rows;
  return {row + b + 1, 1 + (e.ids ? e.ids[b * e.id_stride + j] : j)};
}

// Asks for `rows` rows of `bytes` bytes, `ld` bytes apart.
static inline void fetch_rows(const void* from, int64_t ld, int rows, int64_t bytes) {
  const char* at = static_cast<const char*>(from);
  for (int r = 0; r < rows; ++r, at += ld)
    for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(at + i, 1);
}

// Asks for what finish_tile will read and write, while the tile is being computed.
static inline void fetch_tile(const Epilogue& e, DType act, int64_t n, int64_t row, int64_t column, int rows, int columns) {
  if (e.token_rows) return;
  const auto fetch = [&](const void* matrix, DType type) {
    const int64_t size = type == BF16 ? 2 : 4;
    if (matrix) fetch_rows(static_cast<const char*>(matrix) + (row * n + column) * size, n * size, rows, columns * size);
  };
  fetch(e.out, e.out_type);
  fetch(e.pre, e.out_type);
  fetch(e.gelu_of, act);
  if (e.add != e.out) fetch(e.add, e.add_type);
}

enum class Step { kNone, kGelu, kGeluGrad };

// Where a row of a tile goes and what it meets.
template <class Out, class Add, class Act>
struct RowPointers {
  Out* out;
  Out* pre;
  const Act* gelu_of;
  const Add* add;
};

template <Step step, class Out, class Add, class Act, class N>
static inline void finish_vector(const RowPointers<Out, Add, Act>& row, vf c, int j, N n) {
  if constexpr (step == Step::kGelu) {
    if (row.pre) store(row.pre + j, c, n);
    c = gelu(c);
  }
  if constexpr (step == Step::kGeluGrad) c *= gelu_grad(load(row.gelu_of + j, n));
  if (row.add) c += load(row.add + j, n);
  store(row.out + j, c, n);
}

template <Step step, class Out, class Add, class Act>
static void finish_rows(const Epilogue& e, int64_t n, const float* tile, int64_t row, int64_t column, int rows, int columns) {
  const Part first = {columns < kLanes ? columns : kLanes}, second = {columns - first.lanes};
  const bool whole = columns == kColumns;
  vf bias[kVectors] = {};
  if (e.bias) bias[0] = load_n(e.bias + column, first.lanes);
  if (e.bias && second.lanes) bias[1] = load_n(e.bias + column + kLanes, second.lanes);
  for (int r = 0; r < rows; ++r, tile += kColumns) {
    const RowPair at = map_row(e, row + r);
    const int64_t here = (row + r) * n + column;
    const RowPointers<Out, Add, Act> to = {static_cast<Out*>(e.out) + at.out * n + column,
                                           e.pre ? static_cast<Out*>(e.pre) + here : nullptr,
                                           e.gelu_of ? static_cast<const Act*>(e.gelu_of) + here : nullptr,
                                           e.add ? static_cast<const Add*>(e.add) + at.add * n + column : nullptr};
    if (whole) {
      finish_vector<step>(to, load(tile) + bias[0], 0, Full{});
      finish_vector<step>(to, load(tile + kLanes) + bias[1], kLanes, Full{});
    } else {
      finish_vector<step>(to, load(tile) + bias[0], 0, first);
      if (second.lanes) finish_vector<step>(to, load(tile + kLanes) + bias[1], kLanes, second);
    }
  }
}

// Applies the epilogue to a tile of `rows` × `columns` values, stride kColumns; its first is element (row, column) of the product [.., n].
static void finish_tile(const Epilogue& e, DType act, int64_t n, const float* tile, int64_t row, int64_t column, int rows, int columns) {
  typedef void Finish(const Epilogue&, int64_t, const float*, int64_t, int64_t, int, int);
  const bool out16 = e.out_type == BF16, add16 = e.add && e.add_type == BF16;
  Finish* finish;
  if (e.gelu_of) {
    static Finish* const table[2][2][2] = {  // [act][out][add], each f32 or bf16
        {{finish_rows<Step::kGeluGrad, float, float, float>, finish_rows<Step::kGeluGrad, float, uint16_t, float>},
         {finish_rows<Step::kGeluGrad, uint16_t, float, float>, finish_rows<Step::kGeluGrad, uint16_t, uint16_t, float>}},
        {{finish_rows<Step::kGeluGrad, float, float, uint16_t>, finish_rows<Step::kGeluGrad, float, uint16_t, uint16_t>},
         {finish_rows<Step::kGeluGrad, uint16_t, float, uint16_t>, finish_rows<Step::kGeluGrad, uint16_t, uint16_t, uint16_t>}}};
    finish = table[act == BF16][out16][add16];
  } else {
    static Finish* const table[2][2][2] = {  // [gelu][out][add]
        {{finish_rows<Step::kNone, float, float, float>, finish_rows<Step::kNone, float, uint16_t, float>},
         {finish_rows<Step::kNone, uint16_t, float, float>, finish_rows<Step::kNone, uint16_t, uint16_t, float>}},
        {{finish_rows<Step::kGelu, float, float, float>, finish_rows<Step::kGelu, float, uint16_t, float>},
         {finish_rows<Step::kGelu, uint16_t, float, float>, finish_rows<Step::kGelu, uint16_t, uint16_t, float>}}};
    finish = table[e.gelu][out16][add16];
  }
  finish(e, n, tile, row, column, rows, columns);
}

}}}  // namespace mae::cpu::MAE_ISA
